/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint: what changed in memory goes to LMDB, so that the log before it is not needed any more.
 *
 *   loop thread	freeze: take back what is not committed, set `now` aside as `frozen`, do the rest again in a new `now` (microseconds)
 *   checkpointer	sync data files and log; one LMDB transaction with frozen's keys and the new log position; its commit is the checkpoint
 *   loop thread	read from the new LMDB state, forget frozen, use old log segments again
 * Order: data before LMDB (a checksum in LMDB is of data that is durable), LMDB before the log goes. A checkpoint holds committed records
 * only; the log is kept from the oldest record that was not. When one fails frozen stays, and the same is tried again every second; a
 * failed sync ends it all (bstore_fail). */
#include "volume/bstore/internal.h"

#include "base/bytes.h"

/* ---- the thread ---- */

struct writing {
	MDB_txn *txn;
	MDB_dbi dbi;
};

static int write_key(void *ctx, struct mem_entry *e)
{
	struct writing *w = ctx;
	MDB_val k = {e->key_len, e->key};
	int r;

	if (e->state == MEM_NONE)
		return 0;
	if (e->state == MEM_VALUE)
		return env_put(w->txn, w->dbi, &k, e->value, e->value_len);
	r = mdb_del(w->txn, w->dbi, &k, NULL);
	return r == MDB_NOTFOUND ? 0 : r;
}

static int write_meta(struct writing *w, const struct checkpoint_job *j)
{
	uint8_t value[32];
	MDB_val k = {sizeof(META_KEY) - 1, META_KEY};

	be64_put(value, BSTORE_FORMAT);
	be64_put(value + 8, j->start_lsn);
	be64_put(value + 16, j->freeze_lsn);
	be64_put(value + 24, j->count);
	return env_put(w->txn, w->dbi, &k, value, sizeof(value));
}

int meta_read(struct bstore *b, struct meta *ret, struct err *e)
{
	MDB_val k = {sizeof(META_KEY) - 1, META_KEY}, v;
	int r = mdb_get(b->read, b->dbi, &k, &v);

	*ret = (struct meta){0};
	if (r == MDB_NOTFOUND)
		return 0;
	if (r != 0 || !env_value_ok(&k, &v) || v.mv_size != 32 || be64_get(v.mv_data) != BSTORE_FORMAT)
		return err_set(e, -EBADMSG,
			       "the metadata store's checkpoint mark is damaged: move the brick's folder "
			       "away and let it be filled anew");
	ret->start_lsn = be64_get((uint8_t *)v.mv_data + 8);
	ret->freeze_lsn = be64_get((uint8_t *)v.mv_data + 16);
	ret->count = be64_get((uint8_t *)v.mv_data + 24);
	return 0;
}

static void write_checkpoint(struct bstore *b, struct checkpoint_job *j)
{
	struct writing w = {.dbi = b->dbi};
	int r;

	j->err = sync_run(b, &j->sync);
	if (j->err < 0) {
		snprintf(j->err_text, sizeof(j->err_text), "sync: %s", strerror(-j->err));
		return;
	}
	r = mdb_txn_begin(b->env, NULL, 0, &w.txn);
	if (r == 0) {
		r = mem_walk(j->map, write_key, &w);
		if (r == 0)
			r = write_meta(&w, j);
		if (r == 0)
			r = mdb_txn_commit(w.txn);
		else
			mdb_txn_abort(w.txn);
	}
	j->err = r == ENOENT ? -EIO : mdb_errno(r);
	snprintf(j->err_text, sizeof(j->err_text), "metadata store: %s", mdb_strerror(r));
}

void checkpoint_thread(struct bstore *b)
{
	struct checkpoint_job *j = &b->checkpoint;

	if (j->garbage)
		j->garbage = mem_free(j->garbage);
	else
		write_checkpoint(b, j);
}

/* ---- the loop thread ---- */

/* G as it was after the newest committed record. */
static int save_group(struct bgroup *g)
{
	struct replica *r = &g->replica;
	struct replica was = *r;
	int err;

	if (g->undo.n > 0) {
		const struct undo *u = undo_at(&g->undo, 0);

		if (r->seq >= u->rec->seq) {
			r->seq = u->rec->seq - 1;
			r->epoch = u->rec->prev_epoch;
		}
		r->floor = u->floor;
		r->tombs = u->tombs;
	}
	err = replica_save(r, g->committed);
	r->seq = was.seq;
	r->epoch = was.epoch;
	r->floor = was.floor;
	r->tombs = was.tombs;
	return err;
}

static int freeze(struct bstore *b)
{
	struct checkpoint_job *j = &b->checkpoint;
	struct mem_map *next = mem_new(b->now);
	int r = 0;

	if (!next)
		return -ENOMEM;
	ensure(!b->recording && !b->frozen);
	j->freeze_lsn = j->start_lsn = log_end(&b->log);
	j->outside = b->outside;
	j->count = ++b->checkpoint_count;
	for (uint32_t i = 0; i < b->o.n_groups; i++) {
		struct bgroup *g = &b->group[i];

		for (uint32_t k = g->undo.n; k-- > 0;)
			undo_swap_back(undo_at(&g->undo, k));
		if (g->undo.n > 0)
			j->start_lsn = MIN(j->start_lsn, undo_at(&g->undo, 0)->lsn);
		if (g->member && r == 0)
			r = save_group(g);
	}
	if (r == 0)
		r = mem_settle(b->now); /* nobody changes it any more */
	b->frozen = b->now;
	b->now = next;
	j->map = b->frozen;
	for (uint32_t i = 0; i < b->o.n_groups; i++)
		for (uint32_t k = 0; k < b->group[i].undo.n && r == 0; k++)
			r = undo_swap_forward(undo_at(&b->group[i].undo, k), b->now);
	if (r < 0)
		bstore_fail(b, r, "freezing for a checkpoint");
	return r;
}

/* 0: one is on its way (or was already). */
int checkpoint_start(struct bstore *b)
{
	struct checkpoint_job *j = &b->checkpoint;
	int r = b->failed;

	if (r < 0)
		return r;
	if (worker_busy(&b->checkpointer))
		return 0;
	r = files_settle(&b->files); /* the log that they are in will not be kept */
	if (r < 0)
		return r;
	if (!b->frozen) {
		r = bstore_flush(b);
		if (r == 0)
			r = env_room(b);
		if (r == 0)
			r = freeze(b);
		if (r < 0)
			return r;
	}
	r = sync_take_log(b, &j->sync);
	if (r < 0)
		return r;
	files_take_dirty(&b->files, false, &j->sync);
	b->checkpoint_at_ms = clock_ms();
	worker_give(&b->checkpointer);
	return 0;
}

static void failed(struct bstore *b, struct checkpoint_job *j)
{
	if (!b->stats.error)
		log_error("bstore: a checkpoint failed: %s%s", j->err_text,
			  j->sync.err ? "" : "; it is tried again");
	b->stats.error = j->err;
	b->checkpoint_failed_ms = clock_ms();
	if (j->sync.err < 0 || j->err == -EBADMSG || j->err == -EIO)
		bstore_fail(b, j->err, "a checkpoint");
	if (j->err == -ENOSPC)
		env_room(b);
}

void checkpoint_reap(struct bstore *b)
{
	struct checkpoint_job *j = &b->checkpoint;
	int r;

	if (!worker_take(&b->checkpointer, false) || !j->map)
		return;
	files_give_back(&b->files, &j->sync, j->sync.err == 0 && j->err == 0, false);
	sync_give_back_log(b, &j->sync);
	if (j->err < 0) {
		failed(b, j);
		sync_start(b);
		return;
	}
	r = env_refresh(b);
	if (r < 0) {
		bstore_fail(b, r, "reading the new checkpoint");
		return;
	}
	j->map = NULL;
	j->garbage = b->frozen;
	b->frozen = NULL;
	b->stats.checkpoints++;
	b->stats.error = b->failed;
	b->checkpoint_failed_ms = 0;
	b->outside_durable = j->outside;
	b->checkpoint_lsn = j->start_lsn;
	log_forget(&b->log, j->start_lsn);
	worker_give(&b->checkpointer);
	sync_start(b);
}

int bstore_checkpoint(struct bstore *b, struct err *e)
{
	uint64_t want;
	int r;

	/* What is on its way does not hold everything: let it end, then make one. Bounded: garbage, a running one, ours. */
	for (int i = 0; i < 4 && worker_busy(&b->checkpointer); i++) {
		pthread_mutex_lock(&b->checkpointer.lock);
		while (b->checkpointer.state == JOB_GIVEN)
			pthread_cond_wait(&b->checkpointer.cond, &b->checkpointer.lock);
		pthread_mutex_unlock(&b->checkpointer.lock);
		checkpoint_reap(b);
	}
	want = b->stats.checkpoints + 1 + (b->frozen != NULL);
	for (int i = 0; i < 6 && b->stats.checkpoints < want; i++) {
		r = checkpoint_start(b);
		if (r < 0)
			return err_errno(e, r, "cannot make a checkpoint");
		pthread_mutex_lock(&b->checkpointer.lock);
		while (b->checkpointer.state == JOB_GIVEN)
			pthread_cond_wait(&b->checkpointer.cond, &b->checkpointer.lock);
		pthread_mutex_unlock(&b->checkpointer.lock);
		checkpoint_reap(b);
		if (b->checkpoint.map && b->checkpoint.err < 0)
			return err_set(e, b->checkpoint.err, "a checkpoint failed: %s",
				       b->checkpoint.err_text);
	}
	return b->stats.checkpoints >= want ? 0 : err_set(e, -EIO, "a checkpoint did not end");
}
