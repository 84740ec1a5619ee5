/* SPDX-License-Identifier: Apache-2.0 */
/* recover: from the last checkpoint and the log to the state of a log prefix. Runs inside bstore_open, before the threads.
 *
 * 1. The log is read once for what is in it. Cut marks are resolved; per group a chain of records stays that follows the checkpoint without a gap.
 * 2. It is read again, and the chain's records are done again. Data first: payloads in the log are written, trims and punches done, except
 *    where a later record of the chain, whose payload is not in the log, has written: its data is in place and would be lost. Then keys, by
 *    replica_apply in replay. Checksums are those that blocks had after that record (a whole block's is in the record, a part's in the frame's
 *    patches): the file may be ahead already.
 * 3. After a power loss the data of large writes that no later frame calls durable is read and compared; so is, always, what records that were
 *    cut or could not be used may have written. What does not fit is marked bad, so that it is fetched from another member.
 * 4. The log goes on in a new segment; a checkpoint is made, so that nothing of this is needed again.
 * Doing it twice, after a crash in the middle, gives the same. */
#include "volume/bstore/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

/* A record found in the log, without its content. */
struct seen {
	uint64_t lsn, seq, epoch;
	uint32_t group;
	bool keep, live;
};
/* A write whose data is not in the log. */
struct large {
	uint32_t group;
	struct vol_ino ino;
	uint64_t off, len, lsn;
	size_t at; /* index into seen */
};
struct chain {
	uint64_t seq, epoch; /* of its end */
	size_t *at, n, cap;  /* indexes into seen */
};

struct recovery {
	struct bstore *b;
	struct seen *seen;
	size_t n_seen, cap_seen, next;
	struct large *large;
	size_t n_large, cap_large;
	struct bstripe *check;
	size_t n_check, cap_check;
	struct chain *chain; /* a group */
	uint64_t synced;     /* data up to here is durable */
	bool same;	     /* no power loss */
	int err;
};

#define GROW(p, n, cap) \
	((n) == (cap) ? (p) = xrealloc(p, ((cap) = (cap) ? (cap)*2 : 256) * sizeof(*(p))) : (p))

static void recovery_done(struct recovery *c)
{
	for (uint32_t i = 0; c->chain && i < c->b->o.n_groups; i++)
		free(c->chain[i].at);
	free(c->chain);
	free(c->seen);
	free(c->large);
	free(c->check);
}

/* ---- first reading ---- */

static void chain_cut(struct recovery *c, uint32_t group, uint64_t seq)
{
	struct chain *ch = &c->chain[group];
	const struct replica *r = &c->b->group[group].replica;

	while (ch->n > 0 && c->seen[ch->at[ch->n - 1]].seq > seq)
		c->seen[ch->at[--ch->n]].keep = false;
	ch->seq = ch->n > 0 ? c->seen[ch->at[ch->n - 1]].seq : r->seq;
	ch->epoch = ch->n > 0 ? c->seen[ch->at[ch->n - 1]].epoch : r->epoch;
}

static void first_record(struct recovery *c, const struct frame *f)
{
	const struct record *rec = f->rec;
	struct bgroup *g = &c->b->group[rec->group];
	struct chain *ch = &c->chain[rec->group];
	struct seen *s;

	GROW(c->seen, c->n_seen, c->cap_seen);
	s = &c->seen[c->n_seen++];
	*s = (struct seen){f->lsn, rec->seq, rec->epoch, rec->group, false, f->flags & FRAME_LIVE};
	if (rec->seq != ch->seq + 1 || rec->prev_epoch != ch->epoch || (s->live && g->replica.dirty))
		return;
	s->keep = true;
	ch->seq = rec->seq;
	ch->epoch = rec->epoch;
	GROW(ch->at, ch->n, ch->cap);
	ch->at[ch->n++] = c->n_seen - 1;
	g->committed = MAX(g->committed, f->committed);
	for (uint32_t i = 0; i < rec->n; i++) {
		const struct effect *e = &rec->effect[i];

		if (e->type != EFFECT_WRITE || (f->flags & FRAME_PAYLOAD))
			continue;
		GROW(c->large, c->n_large, c->cap_large);
		c->large[c->n_large++] =
			(struct large){rec->group, e->ino, e->off, e->len, f->lsn, c->n_seen - 1};
	}
}

static int first_frame(void *ctx, struct frame *f)
{
	struct recovery *c = ctx;
	uint32_t group = f->rec ? f->rec->group : f->group;

	if (group >= c->b->o.n_groups || !c->b->group[group].member)
		return 0; /* the brick was a member once */
	if (f->rec)
		first_record(c, f);
	else if (f->seq >= c->b->group[group].replica.seq)
		chain_cut(c, group, f->seq);
	else
		chain_cut(c, group, 0);
	return 0;
}

static int cmp_large(const void *a, const void *b)
{
	const struct large *x = a, *y = b;
	int r = x->group < y->group ? -1 : x->group > y->group;

	if (r == 0)
		r = memcmp(&x->ino.folder, &y->ino.folder, sizeof(x->ino.folder));
	if (r == 0)
		r = x->ino.num < y->ino.num ? -1 : x->ino.num > y->ino.num;
	return r ? r : x->lsn < y->lsn ? -1 : x->lsn > y->lsn;
}

/* Only writes that stay count; sorted by slice, then by time. */
static void sort_large(struct recovery *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_large; i++)
		if (c->seen[c->large[i].at].keep)
			c->large[n++] = c->large[i];
	c->n_large = n;
	if (n)
		qsort(c->large, n, sizeof(*c->large), cmp_large);
}

/* ---- data ---- */

/* First large write of the slice behind lsn; *ret_n of them follow. */
static const struct large *later(const struct recovery *c, uint32_t group, const struct vol_ino *ino,
				 uint64_t lsn, size_t *ret_n)
{
	struct large want = {.group = group, .ino = *ino, .lsn = lsn + 1};
	size_t lo = 0, hi = c->n_large, end;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (cmp_large(&c->large[mid], &want) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (end = lo;
	     end < c->n_large && c->large[end].group == group && vol_ino_eq(&c->large[end].ino, ino); end++)
		;
	*ret_n = end - lo;
	return c->large + lo;
}

/* The part of [off, end) that begins first and that no later large write covers: *ret_off .. *ret_end; false when there is none. */
static bool uncovered(const struct large *l, size_t n, uint64_t off, uint64_t end, uint64_t *ret_off,
		      uint64_t *ret_end)
{
	bool moved = true;

	/* Bounded: each turn passes the end of one write. */
	while (moved && off < end) {
		moved = false;
		for (size_t i = 0; i < n; i++)
			if (l[i].off <= off && off < l[i].off + l[i].len) {
				off = l[i].off + l[i].len;
				moved = true;
			}
	}
	if (off >= end)
		return false;
	for (size_t i = 0; i < n; i++)
		if (l[i].off > off)
			end = MIN(end, l[i].off);
	*ret_off = off;
	*ret_end = end;
	return true;
}

static uint64_t size_of(struct bstore *b, uint32_t group, const struct vol_ino *ino)
{
	struct bfile *f;
	struct stat st;

	return files_fd(&b->files, group, ino, FILES_THERE, &f) < 0 || fstat(f->fd, &st) < 0
		       ? 0
		       : (uint64_t)st.st_size;
}

static void check_range(struct recovery *c, uint32_t group, const struct vol_ino *ino, uint64_t off,
			uint64_t len)
{
	uint32_t size = c->b->o.stripe_size;

	for (uint64_t s = off / size; len > 0 && s <= (off + len - 1) / size; s++) {
		GROW(c->check, c->n_check, c->cap_check);
		c->check[c->n_check++] = (struct bstripe){group, *ino, s};
	}
}

/* A block that was a hole had zeros under a write to a part of it, whatever lies in the file: a punch that the disk lost, or data that was never
 * believed. c's keys are at the record before. */
static int zero_holes(struct recovery *c, uint32_t group, const struct effect *e, const struct large *l,
		      size_t n)
{
	struct bstore *b = c->b;
	uint64_t edge[2] = {e->off, e->off + e->len};
	int r = 0;

	for (int i = 0; i < 2 && r == 0; i++) {
		uint64_t off = edge[i] / VOL_BLOCK * VOL_BLOCK, end = off + VOL_BLOCK, to;
		uint32_t sum = 0;

		if (edge[i] == off)
			continue;
		r = replica_crcs(&b->group[group].replica, &e->ino, off, VOL_BLOCK, &sum);
		if (r < 0 || sum != BLOCK_CRC_HOLE)
			continue;
		for (; r == 0 && uncovered(l, n, off, end, &off, &to); off = to)
			r = b->files.blob.punch(&b->files.blob, group, &e->ino, off, to - off);
	}
	return r;
}

/* A block at either end that cannot be read (a bad sector) cannot be written in part: it becomes zeros, and the check at the end finds that it is bad. */
static int renew_edges(struct recovery *c, uint32_t group, const struct vol_ino *ino, uint64_t off,
		       uint64_t end)
{
	static const uint8_t zeros[VOL_BLOCK];
	struct blob *bl = &c->b->files.blob;
	uint64_t edge[2] = {off, end};
	uint8_t block[VOL_BLOCK];
	int r = -EIO;

	for (int i = 0; i < 2; i++) {
		uint64_t at = edge[i] / VOL_BLOCK * VOL_BLOCK;

		if (edge[i] == at || bl->read(bl, group, ino, at, block, VOL_BLOCK) != -EIO)
			continue;
		r = bl->write(bl, group, ino, at, zeros, VOL_BLOCK);
		if (r < 0)
			return r;
		check_range(c, group, ino, at, VOL_BLOCK);
	}
	return r;
}

static int redo_effect(struct recovery *c, const struct frame *f, const struct effect *e)
{
	struct bstore *b = c->b;
	struct blob *bl = &b->files.blob;
	uint32_t group = f->rec->group;
	uint64_t off = e->off, end = e->off + e->len, to;
	const struct large *l;
	size_t n;
	int r = 0;

	if (e->type < EFFECT_WRITE || e->type > EFFECT_DROP || (e->type == EFFECT_WRITE && !f->rec->payload))
		return 0;
	l = later(c, group, &e->ino, f->lsn, &n);
	if (n == 0 && e->type == EFFECT_DROP)
		return bl->drop(bl, group, &e->ino);
	if (n == 0 && e->type == EFFECT_TRIM)
		return bl->trim(bl, group, &e->ino, e->off);
	if (e->type == EFFECT_DROP)
		off = 0;
	if (e->type != EFFECT_WRITE && e->type != EFFECT_PUNCH)
		end = size_of(b, group, &e->ino);
	if (e->type == EFFECT_WRITE)
		r = zero_holes(c, group, e, l, n);
	for (bool renewed = false; r == 0 && uncovered(l, n, off, end, &off, &to);) {
		r = e->type == EFFECT_WRITE
			    ? bl->write(bl, group, &e->ino, off, f->rec->payload->data + (off - e->off),
					(uint32_t)(to - off))
			    : bl->punch(bl, group, &e->ino, off, to - off);
		if (r == -EIO && !renewed) {
			renewed = true;
			r = renew_edges(c, group, &e->ino, off, to);
			continue;
		}
		off = to;
	}
	return r;
}

/* ---- second reading ---- */

static void check_record(struct recovery *c, const struct record *rec)
{
	for (uint32_t i = 0; i < rec->n; i++) {
		const struct effect *e = &rec->effect[i];

		if (e->type == EFFECT_WRITE || e->type == EFFECT_PUNCH)
			check_range(c, rec->group, &e->ino, e->off, e->len);
		if (e->type == EFFECT_TRIM || e->type == EFFECT_DROP) {
			GROW(c->check, c->n_check, c->cap_check);
			c->check[c->n_check++] = (struct bstripe){rec->group, e->ino, UINT64_MAX};
		}
	}
}

/* A record that may have to be sent again needs its payload. Data that is not there any more: it is not kept, a delta does it. */
static void keep_for_sending(struct recovery *c, struct record *rec)
{
	struct blob *bl = &c->b->files.blob;

	for (uint32_t i = 0; i < rec->n && !rec->payload && rec->payload_len; i++) {
		const struct effect *e = &rec->effect[i];
		struct payload *p;

		if (e->type != EFFECT_WRITE)
			continue;
		p = payload_new(rec->payload_len);
		if (p && bl->read(bl, rec->group, &e->ino, e->off, p->data, p->len) == 0 &&
		    payload_sum(p, e->off) == rec->payload_crc)
			rec->payload = payload_ref(p);
		payload_unref(p);
	}
	if (!rec->payload_len || rec->payload)
		ring_put(c->b, rec);
}

static int second_frame(void *ctx, struct frame *f)
{
	struct recovery *c = ctx;
	struct bstore *b = c->b;
	struct bgroup *g;
	const struct seen *s;
	bool uncommitted;
	int r = 0;

	if (!f->rec || f->rec->group >= b->o.n_groups || !b->group[f->rec->group].member)
		return 0;
	if (c->next >= c->n_seen || c->seen[c->next].lsn != f->lsn)
		return -EBADMSG;
	s = &c->seen[c->next++];
	g = &b->group[f->rec->group];
	if (!s->keep) {
		if (s->seq > g->replica.seq || s->lsn >= c->synced)
			check_record(c, f->rec);
		b->stats.dropped += s->seq > g->replica.seq;
		return 0;
	}
	for (uint32_t i = 0; i < f->rec->n && r == 0; i++)
		r = redo_effect(c, f, &f->rec->effect[i]);
	if (r < 0)
		return r;
	b->files.frozen = true;
	g->replica.n_patches = f->n_patches;
	if (f->n_patches != 0)
		memcpy(g->replica.patch, f->patch, f->n_patches * sizeof(*f->patch));
	r = apply_record(b, f->rec, false, true);
	b->files.frozen = false;
	if (r < 0)
		return r;
	undo_at(&g->undo, g->undo.n - 1)->lsn = f->lsn;
	uncommitted = f->rec->seq > g->committed;
	if (uncommitted)
		keep_for_sending(c, f->rec);
	else {
		uint64_t committed = g->committed;

		g->committed = 0;
		bstore_set_committed(b, f->rec->group, f->rec->seq);
		g->committed = committed;
	}
	if (!c->same && !(f->flags & FRAME_PAYLOAD) && f->lsn >= c->synced)
		check_record(c, f->rec);
	b->stats.replayed++;
	return 0;
}

static int cmp_stripe(const void *a, const void *b)
{
	const struct bstripe *x = a, *y = b;
	int r = x->group < y->group ? -1 : x->group > y->group;

	if (r == 0)
		r = memcmp(&x->ino.folder, &y->ino.folder, sizeof(x->ino.folder));
	if (r == 0)
		r = x->ino.num < y->ino.num ? -1 : x->ino.num > y->ino.num;
	return r ? r : x->stripe < y->stripe ? -1 : x->stripe > y->stripe;
}

static int check_stripes(struct recovery *c)
{
	uint32_t size = c->b->o.stripe_size;
	size_t n = 0;

	if (c->n_check)
		qsort(c->check, c->n_check, sizeof(*c->check), cmp_stripe);
	for (size_t i = 0; i < c->n_check; i++) {
		const struct bstripe *s = &c->check[i];
		struct replica *r = &c->b->group[s->group].replica;
		uint32_t bad = 0;
		int err;

		if (i > 0 && cmp_stripe(s, s - 1) == 0)
			continue;
		err = s->stripe == UINT64_MAX ? replica_verify(r, &s->ino, 0, UINT64_MAX, &bad)
					      : replica_verify(r, &s->ino, s->stripe * size, size, &bad);
		if (err < 0)
			return err;
		c->b->stats.bad_blocks += bad;
		if (bad > 0)
			c->check[n++] = *s;
	}
	c->b->torn = take_ptr(c->check);
	c->b->n_torn = n;
	return 0;
}

bool bstore_torn(struct bstore *b, uint32_t group, const struct vol_ino *ino, uint64_t off)
{
	for (size_t i = 0; i < b->n_torn; i++) {
		const struct bstripe *s = &b->torn[i];

		if (s->group == group && vol_ino_eq(&s->ino, ino) &&
		    (s->stripe == UINT64_MAX || s->stripe == off / b->o.stripe_size))
			return true;
	}
	return false;
}

/* ---- all of it ---- */

static int init_groups(struct bstore *b, struct err *e)
{
	for (uint32_t i = 0; i < b->o.n_groups; i++) {
		struct bgroup *g = &b->group[i];
		int r;

		if (!g->member)
			continue;
		r = replica_init(&g->replica, i, b->o.stripe_size, &b->kv, &b->files.blob);
		if (r < 0)
			return err_errno(e, r, "the metadata store of group %u cannot be read", i);
		r = replica_saved_committed(&g->replica, &g->committed);
		if (r < 0)
			return err_errno(e, r, "the metadata store of group %u cannot be read", i);
	}
	return 0;
}

/* Segments behind the end are dead; the next one gets a number that was never used. */
static void remove_dead(struct bstore *b, int dir_fd, const struct log_scan *s)
{
	char name[32];

	for (uint64_t no = MAX(s->end >> 32, s->first_seg - 1) + 1; s->last_seg && no <= s->last_seg; no++) {
		snprintf(name, sizeof(name), "%08llu.log", (unsigned long long)no);
		if (unlinkat(dir_fd, name, 0) == 0)
			log_warn("bstore: log segment %s lies behind the log's end and was removed", name);
	}
}

static int read_log(struct recovery *c, uint64_t from, struct log_scan *s, struct err *e)
{
	struct bstore *b = c->b;
	struct log_scan again;
	int r = log_scan(b->log.dir_fd, b->o.uuid.b, from, first_frame, c, s, e);

	if (r < 0)
		return r;
	c->synced = s->synced;
	sort_large(c);
	r = log_scan(b->log.dir_fd, b->o.uuid.b, from, second_frame, c, &again, e);
	if (r < 0)
		return r;
	if (again.end != s->end)
		return err_set(e, -EIO, "the log reads differently each time");
	r = check_stripes(c);
	return r < 0 ? err_errno(e, r, "checking data after the log's replay") : 0;
}

static void decide_sure(struct recovery *c, const struct run_state *run, const struct log_scan *s)
{
	struct bstore *b = c->b;
	bool whole = run->same && s->end >= run->flushed;

	for (uint32_t i = 0; i < b->o.n_groups; i++)
		b->group[i].sure = whole && run->sure[i];
	/* A record without its predecessors, not of a catching-up member: something is missing. */
	for (size_t i = 0; i < c->n_seen; i++)
		if (!c->seen[i].keep && !c->seen[i].live &&
		    c->seen[i].seq > b->group[c->seen[i].group].replica.seq + 1)
			b->group[c->seen[i].group].sure = false;
	if (s->synced > s->end)
		log_error("bstore: the log ends at %llx (%s) but was durable up to %llx: damaged; what is "
			  "missing comes from the other members",
			  (unsigned long long)s->end, s->why, (unsigned long long)s->synced);
	else if (run->same && !whole)
		log_error("bstore: the log ends at %llx (%s) but %llx had been written: damaged; what is "
			  "missing comes from the other members",
			  (unsigned long long)s->end, s->why, (unsigned long long)run->flushed);
	b->stats.torn = s->torn || (run->same && !whole);
}

static uint64_t segment_size(const struct bstore *b)
{
	uint64_t size = SEGMENT_BYTES;

	while (size > SEGMENT_BYTES_MIN && size > b->stats.bytes_total / 64)
		size /= 2;
	return size;
}

int recover(struct bstore *b, struct err *e)
{
	_cleanup_(recovery_done) struct recovery c = {.b = b};
	struct run_state run;
	struct log_scan s;
	struct meta meta;
	uint64_t start = clock_ms(), seg;
	int dir_fd, r;

	if (mkdirat(b->dir_fd, "log", 0700) < 0 && errno != EEXIST)
		return err_errno(e, -errno, "cannot make the log's folder");
	dir_fd = b->log.dir_fd = openat(b->dir_fd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || fsync(b->dir_fd) < 0)
		return err_errno(e, -errno, "cannot open the log's folder");
	r = meta_read(b, &meta, e);
	if (r == 0)
		r = init_groups(b, e);
	if (r < 0)
		return r;
	b->checkpoint_count = meta.count;
	run_read(b, &run);
	c.same = run.same;
	c.chain = xcalloc(b->o.n_groups, sizeof(*c.chain));
	for (uint32_t i = 0; i < b->o.n_groups; i++) {
		c.chain[i].seq = b->group[i].replica.seq;
		c.chain[i].epoch = b->group[i].replica.epoch;
	}
	r = read_log(&c, meta.start_lsn, &s, e);
	if (r < 0)
		return r;
	/* Large writes of the life before may be in the page cache only: the first sync and the first checkpoint sync everything. */
	b->files.evicted_dirty = b->files.evicted_large = c.n_seen > 0;
	decide_sure(&c, &run, &s);
	remove_dead(b, dir_fd, &s);
	seg = MAX(MAX(s.last_seg, s.end >> 32), meta.freeze_lsn >> 32) + 1;
	b->log.oldest_seg = s.first_seg;
	b->checkpoint_lsn = meta.start_lsn;
	r = log_open(&b->log, dir_fd, b->o.uuid.b, segment_size(b), seg, s.end, e);
	if (r == 0 && s.first_seg)
		log_info("bstore: %s: %llu records replayed, %llu dropped, %llu bad blocks, %s end, %llu ms",
			 b->dir, (unsigned long long)b->stats.replayed, (unsigned long long)b->stats.dropped,
			 (unsigned long long)b->stats.bad_blocks, b->stats.torn ? "torn" : "clean",
			 (unsigned long long)(clock_ms() - start));
	return r;
}
