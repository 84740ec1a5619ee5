/* SPDX-License-Identifier: Apache-2.0 */
/* bstore: the store's front: appending, flushing, commits, rollback, the newest records in memory, life. Where state lies and which thread does
 * what: internal.h. What survives what: docs/protocol/brick-store.md.
 *
 * append: apply to keys and data with an undo list -> frame into the log's buffer. flush: one write(2). A record that cannot be logged is taken
 * back, so that state is always a prefix of the log; blocks it had written in place already are marked bad. When a sync or a write failed
 * with EIO nothing more is accepted (`failed`): only a restart may trust the disk again. */
#include "volume/bstore/internal.h"

#include <fcntl.h>
#include <sys/statvfs.h>

#define RECORD_BYTES 8192u /* of memory a record, without payload */

void bstore_fail(struct bstore *b, int err, const char *what)
{
	if (b->failed)
		return;
	b->failed = err;
	b->stats.error = err;
	run_set_failed(b);
	log_error("bstore: %s failed: %s; this store takes nothing more until the brick is restarted", what,
		  strerror(-err));
}

/* ---- the newest records ---- */

static void ring_take(struct bstore *b, struct record **slot)
{
	b->ring_bytes -= RECORD_BYTES + (*slot)->body_len + (*slot)->payload_len;
	*slot = record_unref(*slot);
}

void ring_put(struct bstore *b, struct record *rec)
{
	struct record **slot = &b->group[rec->group].ring[rec->seq % RING_RECORDS];

	if (*slot)
		ring_take(b, slot);
	*slot = record_ref(rec);
	b->ring_bytes += RECORD_BYTES + rec->body_len + rec->payload_len;
	b->fifo[(b->fifo_at + b->fifo_n++) % b->fifo_cap] = (struct ring_pos){rec->group, rec->seq};
	while (b->fifo_n > 1 && (b->ring_bytes > RING_BYTES || b->fifo_n == b->fifo_cap)) {
		struct ring_pos *p = &b->fifo[b->fifo_at];

		slot = &b->group[p->group].ring[p->seq % RING_RECORDS];
		if (*slot && (*slot)->seq == p->seq && *slot != rec)
			ring_take(b, slot);
		b->fifo_at = (b->fifo_at + 1) % b->fifo_cap;
		b->fifo_n--;
	}
}

void ring_drop(struct bstore *b, uint32_t group, uint64_t after)
{
	for (uint32_t i = 0; i < RING_RECORDS; i++) {
		struct record **slot = &b->group[group].ring[i];

		if (*slot && (*slot)->seq > after)
			ring_take(b, slot);
	}
}

struct record *bstore_fetch(struct bstore *b, uint32_t group, uint64_t seq)
{
	struct record *rec = b->group[group].ring[seq % RING_RECORDS];

	return rec && rec->seq == seq ? rec : NULL;
}

/* ---- applying with undo ---- */

static bool has_data_effect(const struct record *rec)
{
	for (uint32_t i = 0; i < rec->n; i++)
		if (rec->effect[i].type >= EFFECT_WRITE && rec->effect[i].type <= EFFECT_DROP)
			return true;
	return false;
}

/* Takes the newest uncommitted record of the group back. Returns it (a reference): what it wrote in place is to be distrusted when all are back. */
static struct record *take_back(struct bstore *b, struct bgroup *g)
{
	struct undo *u = undo_at(&g->undo, g->undo.n - 1);
	struct record *rec = record_ref(u->rec);
	struct replica *r = &g->replica;

	r->floor = u->floor;
	r->tombs = u->tombs;
	if (r->catching) {
		r->live_first = u->live_first;
		r->live_seq = u->live_seq;
		r->live_epoch = u->live_epoch;
	} else if (r->seq >= rec->seq) {
		r->seq = rec->seq - 1;
		r->epoch = rec->prev_epoch;
	}
	keys_undo(b, u);
	g->undo.n--;
	return rec;
}

/* Blocks that rec wrote, cut off or dropped do not hold what the state says now: they become bad. */
static void distrust(struct bstore *b, struct bgroup *g, struct record *rec)
{
	if (has_data_effect(rec)) {
		if (replica_distrust(&g->replica, rec) < 0)
			bstore_fail(b, -EIO, "marking blocks of a record that was taken back");
		bstore_mark_dirty(b);
	}
	record_unref(rec);
}

int apply_record(struct bstore *b, struct record *rec, bool live, bool replay)
{
	struct bgroup *g = &b->group[rec->group];
	struct undo *u = undo_push(&g->undo, rec);
	int r;

	if (!u)
		return -ENOMEM;
	u->floor = g->replica.floor;
	u->tombs = g->replica.tombs;
	u->live_first = g->replica.live_first;
	u->live_seq = g->replica.live_seq;
	u->live_epoch = g->replica.live_epoch;
	b->recording = u;
	b->recording_seq = live ? 0 : rec->seq;
	b->recording_large = rec->payload_len > LOG_PAYLOAD_MAX;
	r = live ? replica_apply_live(&g->replica, rec) : replica_apply(&g->replica, rec, replay);
	b->recording = NULL;
	b->recording_seq = 0;
	b->recording_large = false;
	if (r < 0)
		distrust(b, g, take_back(b, g));
	return r;
}

/* Everything that did not get into the log file is taken back. */
static void drop_unflushed(struct bstore *b)
{
	uint64_t end = lsn_make(b->log.seg_no, b->log.at);

	b->log.buf.len = 0;
	for (uint32_t i = 0; i < b->o.n_groups; i++) {
		struct bgroup *g = &b->group[i];

		struct record **back = xcalloc(g->undo.n + 1, sizeof(struct record *));
		uint32_t n = 0;

		while (g->undo.n > 0 && undo_at(&g->undo, g->undo.n - 1)->lsn >= end) {
			back[n] = take_back(b, g);
			ring_drop(b, i, back[n++]->seq - 1);
		}
		while (n > 0)
			distrust(b, g, back[--n]);
		free(back);
	}
}

static void log_failed(struct bstore *b, int r)
{
	if (!b->stats.error)
		log_error("bstore: the log cannot be written: %s", strerror(-r));
	b->stats.error = r;
	b->lost = r;
	if (r != -ENOSPC && r != -EDQUOT)
		bstore_fail(b, r, "writing the log");
	drop_unflushed(b);
}

int bstore_append(struct bstore *b, struct record *rec, bool live)
{
	struct bgroup *g;
	uint8_t flags = live ? FRAME_LIVE : 0;
	uint64_t lsn = 0;
	int r = b->failed ? b->failed : b->lost;

	if (rec->group >= b->o.n_groups || !b->group[rec->group].member)
		return -EINVAL;
	if (r == 0 && b->now->bytes > NOW_BYTES_STOP)
		r = b->stats.error ? b->stats.error : -ENOSPC;
	if (r == 0)
		r = apply_record(b, rec, live, false);
	if (r < 0)
		return r;
	g = &b->group[rec->group];
	if (rec->payload_len > LOG_PAYLOAD_MAX)
		flags |= FRAME_CHUNKS;
	else if (rec->payload_len > 0)
		flags |= FRAME_PAYLOAD;
	undo_at(&g->undo, g->undo.n - 1)->lsn = UINT64_MAX;
	r = log_record(&b->log, rec, g->committed, flags, g->replica.patch, g->replica.n_patches, &lsn);
	if (r < 0) {
		log_failed(b, r);
		return r;
	}
	undo_at(&g->undo, g->undo.n - 1)->lsn = lsn;
	b->stats.records++;
	ring_put(b, rec);
	return 0;
}

int bstore_write_log(struct bstore *b)
{
	int r = b->failed ? b->failed : b->lost;

	if (r == 0)
		r = log_flush(&b->log);
	if (r == 0)
		run_set(b);
	else if (!b->failed && !b->lost)
		log_failed(b, r);
	return r;
}

int bstore_flush(struct bstore *b)
{
	int r = b->lost;

	b->lost = 0;
	if (b->failed)
		return b->failed;
	if (r < 0)
		return r;
	r = log_flush(&b->log);
	if (r < 0) {
		log_failed(b, r);
		b->lost = 0;
		return r;
	}
	run_set(b);
	files_begin_writeback(&b->files);
	return 0;
}

void bstore_set_committed(struct bstore *b, uint32_t group, uint64_t seq)
{
	struct bgroup *g = &b->group[group];

	if (seq <= g->committed)
		return;
	g->committed = seq;
	while (g->undo.n > 0 && undo_at(&g->undo, 0)->rec->seq <= seq) {
		undo_done(undo_at(&g->undo, 0));
		g->undo.at = (g->undo.at + 1) & (g->undo.cap - 1);
		g->undo.n--;
	}
}

/* ---- rollback ---- */

/* Behind what this member knows as committed: its state is of no use as a beginning. Position 0; keys and data stay until the delta from 0 replaces them. */
static int start_over(struct bstore *b, uint32_t group)
{
	struct bgroup *g = &b->group[group];
	int err;

	for (uint32_t i = 0; i < g->undo.n; i++)
		undo_done(undo_at(&g->undo, i));
	g->undo.n = 0;
	g->replica.seq = g->replica.epoch = 0;
	g->committed = 0;
	ring_drop(b, group, 0);
	bstore_mark_dirty(b);
	err = log_cut_mark(&b->log, group, 0, 0);
	if (err < 0)
		log_failed(b, err);
	else
		err = bstore_flush(b);
	return err < 0 ? err : -ERANGE;
}

int bstore_rollback(struct bstore *b, uint32_t group, uint64_t epoch, uint64_t seq)
{
	struct bgroup *g = &b->group[group];
	struct replica *r = &g->replica;
	_cleanup_free_ struct record **cut = NULL;
	uint32_t n = 0;
	int err = bstore_flush(b);

	if (err < 0)
		return err;
	if (seq < g->committed || (g->undo.n == 0 && seq < r->seq) ||
	    (g->undo.n > 0 && seq + 1 < undo_at(&g->undo, 0)->rec->seq && seq < r->seq))
		return start_over(b, group);
	cut = xcalloc(g->undo.n + 1, sizeof(struct record *));
	while (g->undo.n > 0 && undo_at(&g->undo, g->undo.n - 1)->rec->seq > seq)
		cut[n++] = take_back(b, g);
	ring_drop(b, group, seq);
	if (n > 0) {
		err = log_cut_mark(&b->log, group, epoch, seq);
		if (err == 0)
			err = bstore_flush(b);
		else
			log_failed(b, err);
	}
	while (n > 0)
		distrust(b, g, cut[--n]);
	if (err == 0 && r->seq == seq && seq > 0 && r->epoch != epoch)
		err = start_over(b, group);
	return err;
}

/* ---- small things ---- */

struct replica *bstore_replica(struct bstore *b, uint32_t group)
{
	return group < b->o.n_groups && b->group[group].member ? &b->group[group].replica : NULL;
}

uint64_t bstore_committed(struct bstore *b, uint32_t group)
{
	return b->group[group].committed;
}

void bstore_mark_dirty(struct bstore *b)
{
	b->outside++;
}

int bstore_fd(struct bstore *b, uint32_t group, const struct vol_ino *ino)
{
	struct bfile *f;
	int r = files_settle(&b->files);

	if (r == 0)
		r = files_fd(&b->files, group, ino, FILES_THERE, &f);
	return r < 0 ? r : f->fd;
}

int bstore_look(struct bstore *b, uint32_t group, const struct vol_ino *ino)
{
	return files_look(&b->files, group, ino);
}

int bstore_settle_data(struct bstore *b)
{
	return files_settle(&b->files);
}

void bstore_measure(struct bstore *b)
{
	struct statvfs v;

	b->statvfs_at_ms = clock_ms();
	if (fstatvfs(b->dir_fd, &v) < 0)
		return;
	b->stats.bytes_total = (uint64_t)v.f_blocks * v.f_frsize;
	b->stats.bytes_free = (uint64_t)v.f_bavail * v.f_frsize;
	b->stats.files_total = v.f_files;
	b->stats.files_free = v.f_favail;
}

void bstore_get_stats(struct bstore *b, struct bstore_stats *ret)
{
	if (clock_ms() - b->statvfs_at_ms >= 500)
		bstore_measure(b);
	b->stats.log_bytes = log_bytes(&b->log, b->checkpoint_lsn);
	*ret = b->stats;
}

void bstore_tick(struct bstore *b)
{
	uint64_t now = clock_ms(), every = b->o.checkpoint_ms ? b->o.checkpoint_ms : CHECKPOINT_MS;
	uint64_t bytes = b->o.checkpoint_bytes ? b->o.checkpoint_bytes : CHECKPOINT_BYTES;

	/* A disk that gets full: no more log than two segments. Those that checkpoints free are used again, so it does not grow any more. */
	if (b->stats.bytes_free < MIN(b->stats.bytes_total / 4, LOG_ROOM))
		bytes = MIN(bytes, 2 * b->log.seg_bytes);
	sync_reap(b);
	checkpoint_reap(b);
	sync_start(b);
	if (b->failed || (b->checkpoint_failed_ms && now - b->checkpoint_failed_ms < CHECKPOINT_RETRY_MS))
		return;
	if (b->frozen || b->outside_wanted > b->outside_durable || b->now->bytes > NOW_BYTES_MAX ||
	    log_bytes(&b->log, b->checkpoint_lsn) > bytes ||
	    (now - b->checkpoint_at_ms >= every && (b->now->n > 0 || b->outside != b->outside_durable)))
		checkpoint_start(b);
}

/* ---- life ---- */

static int open_all(struct bstore *b, struct err *e)
{
	bool fresh;
	int r = dir_open(b, &fresh, e);

	if (r == 0)
		r = files_open(&b->files, b, b->dir_fd, e);
	if (r == 0)
		r = env_open(b, e);
	if (r < 0)
		return r;
	bstore_measure(b);
	r = recover(b, e);
	if (r == 0)
		r = run_open(b, e);
	return r;
}

int bstore_open(const struct bstore_options *o, struct bstore **ret, struct err *e)
{
	struct bstore *b = xcalloc(1, sizeof(*b));
	int r;

	b->o = *o;
	b->dir = xstrdup(o->dir);
	b->o.dir = b->dir;
	b->o.run_dir = o->run_dir ? xstrdup(o->run_dir) : NULL;
	b->o.node = NULL;
	b->o.member = NULL;
	b->dir_fd = b->lock_fd = b->log.fd = b->log.dir_fd = -1;
	b->wait_last = &b->wait_first;
	b->sync_avg_us = 10 * INLINE_SYNC_US; /* until it is measured */
	b->group = xcalloc(o->n_groups, sizeof(*b->group));
	b->fifo_cap = (size_t)o->n_groups * RING_RECORDS + 1;
	b->fifo = xcalloc(b->fifo_cap, sizeof(*b->fifo));
	for (uint32_t i = 0; i < o->n_groups; i++)
		b->group[i].member = o->member[i];
	b->now = mem_new(NULL);
	b->mailbox = mailbox_new(o->loop);
	keys_init(b);
	b->o.node = o->node;
	r = b->now ? open_all(b, e) : -ENOMEM;
	b->o.node = NULL;
	if (r == 0 && (worker_start(&b->syncer, b, sync_thread, sync_reap) < 0 ||
		       worker_start(&b->checkpointer, b, checkpoint_thread, checkpoint_reap) < 0 ||
		       worker_start(&b->writeback, b, writeback_thread, NULL) < 0))
		r = err_set(e, -EAGAIN, "cannot start the store's threads");
	if (r < 0) {
		b->failed = r;
		bstore_close(b);
		return r;
	}
	b->checkpoint_at_ms = clock_ms();
	b->outside = b->outside_durable + (b->now->n > 0);
	b->files.later_on = o->turns;
	*ret = b;
	return 0;
}

static void close_all(struct bstore *b)
{
	worker_stop(&b->syncer);
	worker_stop(&b->checkpointer);
	worker_stop(&b->writeback);
	while (b->files.n_begin > 0)
		bfile_unref(b->files.begin[--b->files.n_begin]);
	if (b->sync.file)
		files_give_back(&b->files, &b->sync, true, true);
	if (b->checkpoint.sync.file)
		files_give_back(&b->files, &b->checkpoint.sync, true, false);
	mailbox_close(b->mailbox);
	strays_end(b);
	for (uint32_t i = 0; i < b->o.n_groups; i++) {
		struct bgroup *g = &b->group[i];

		if (g->member && g->replica.kv)
			replica_done(&g->replica);
		undo_ring_done(&g->undo);
		ring_drop(b, i, 0);
	}
	run_close(b);
	files_close(&b->files);
	log_close(&b->log);
	env_close(b);
}

struct bstore *bstore_close(struct bstore *b)
{
	if (!b)
		return NULL;
	if (!b->failed && bstore_checkpoint(b, NULL) == 0) {
		struct sync_job j = {0};

		/* Uncommitted records are in the log only. */
		if (bstore_flush(b) == 0 && sync_take_log(b, &j) == 0) {
			files_take_dirty(&b->files, true, &j);
			if (sync_run(b, &j) == 0)
				clean_set(b);
			files_give_back(&b->files, &j, true, true);
			sync_give_back_log(b, &j);
		}
	}
	sync_answer_all(b, -ECANCELED);
	close_all(b);
	mem_free(b->now);
	mem_free(b->frozen);
	mem_free(b->checkpoint.garbage);
	if (b->log.dir_fd >= 0)
		close(b->log.dir_fd);
	if (b->lock_fd >= 0)
		close(b->lock_fd);
	if (b->dir_fd >= 0)
		close(b->dir_fd);
	free((char *)(uintptr_t)b->o.run_dir);
	free(b->fifo);
	free(b->torn);
	free(b->group);
	free(b->dir);
	free(b);
	return NULL;
}
