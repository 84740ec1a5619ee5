/* SPDX-License-Identifier: Apache-2.0 */
/* SQLite store: one node with nothing else installed. One row a key and revision; the table `current` points at the
 * newest row of each key that exists. A commit is one SQLite transaction with synchronous=FULL on a WAL, so what was
 * acknowledged survives a power cut; then it is published to the hub in the same lock, without polling.
 *
 *   kv(rev, key, create_rev, version, lease, value)      value NULL = the key was deleted
 *   current(key, rev, lease)                             keys that exist
 *   lease(id, ttl_s)                                     after a restart each gets its full time again
 *   meta(name, value)                                    'rev', 'compacted', 'format'
 *
 * Connections: one writer under `lock`, READERS for reads, each under its own lock. A second process is kept out by a lock
 * file, because it would not hear of our commits. History: the newest STORE_HISTORY_REVS revisions; older ones are
 * dropped in small steps as commits go on, so the file does not grow without bound and no step takes long. */
#include "store/internal.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "store/sqlite_db.h"

#define READERS		 2
#define COMPACT_EVERY	 512 /* revisions */
#define HISTORY_EVENTS	 1000
#define VACUUM_PAGES_MAX 256

struct sqlite {
	struct store store;
	int lock_fd;
	pthread_mutex_t lock; /* writer, rev, compacted */
	struct db writer;
	int64_t rev, compacted;
	struct leases *leases;
	struct reader {
		pthread_mutex_t lock;
		struct db db;
	} readers[READERS];
	unsigned turn;
};

static struct sqlite *sqlite_of(struct store *s)
{
	return container_of(s, struct sqlite, store);
}

static struct reader *reader_take(struct sqlite *q)
{
	struct reader *r;

	for (size_t i = 0; i < READERS; i++)
		if (pthread_mutex_trylock(&q->readers[i].lock) == 0)
			return &q->readers[i];
	r = &q->readers[__atomic_fetch_add(&q->turn, 1, __ATOMIC_RELAXED) % READERS];
	pthread_mutex_lock(&r->lock);
	return r;
}

/* Inside one read transaction: checks the revision and fills ret. */
static int range_in(struct db *db, const struct store_span *span, struct store_list *ret, struct err *e)
{
	int64_t rev, compacted;
	int r;

	if ((r = db_meta(db, "rev", &rev, e)) < 0 || (r = db_meta(db, "compacted", &compacted, e)) < 0)
		return r;
	ret->rev = span->rev ? span->rev : rev;
	if (ret->rev < compacted)
		return err_set(e, -ESTALE, "revision %lld was compacted away", (long long)ret->rev);
	if (ret->rev > rev)
		return err_set(e, -EINVAL, "revision %lld is in the future", (long long)ret->rev);
	return db_range(db, span, ret->rev == rev, ret, e);
}

static int sqlite_range(struct store *s, const struct store_span *span, struct store_list *ret, struct err *e)
{
	struct reader *reader = reader_take(sqlite_of(s));
	struct store_list l = {0};
	int r = db_exec(&reader->db, DB_BEGIN_READ, e);

	if (r == 0) {
		r = range_in(&reader->db, span, &l, e);
		db_exec(&reader->db, DB_ROLLBACK, NULL);
	}
	pthread_mutex_unlock(&reader->lock);
	if (r < 0)
		store_list_done(&l);
	else
		*ret = l;
	return r;
}

static int check(struct sqlite *q, const struct store_cmp *cmp, size_t n_cmp, const struct store_op *ops,
		 size_t n_ops, struct err *e)
{
	for (size_t i = 0; i < n_cmp; i++) {
		int64_t now;
		int r = db_current_rev(&q->writer, cmp[i].key, &now, e);

		if (r < 0)
			return r;
		if (now != cmp[i].mod_rev)
			return err_set(e, -EEXIST, "%s is at revision %lld, not %lld", cmp[i].key,
				       (long long)now, (long long)cmp[i].mod_rev);
	}
	for (size_t i = 0; i < n_ops; i++)
		if (ops[i].type == STORE_PUT && ops[i].lease && !leases_has(q->leases, ops[i].lease))
			return err_set(e, -ENOENT, "lease %lld has ended", (long long)ops[i].lease);
	return 0;
}

/* One revision of one key: its row, `current`, and the event. */
static int apply(struct sqlite *q, const struct store_op *op, struct hub_batch *b, struct err *e)
{
	struct store_event *ev = &b->ev[b->n];
	bool put = op->type == STORE_PUT;
	int r = db_read_current(&q->writer, op->key, &ev->prev, e);

	if (r < 0)
		return r;
	if (!put && !ev->prev.key)
		return 0; /* nothing to delete: no event */
	b->n++;
	ev->type = put ? STORE_EVENT_PUT : STORE_EVENT_DELETE;
	store_kv_fill(&ev->kv, op->key, put ? op->value : NULL, put ? op->value_len : 0);
	ev->kv.mod_rev = b->rev;
	if (put) {
		ev->kv.create_rev = ev->prev.key ? ev->prev.create_rev : b->rev;
		ev->kv.version = ev->prev.version + 1;
		ev->kv.lease = op->lease;
	}
	r = db_insert(&q->writer, &ev->kv, !put, e);
	return r < 0 ? r : db_set_current(&q->writer, &ev->kv, !put, e);
}

/* Drops history below rev inside the transaction at hand. */
static int compact(struct sqlite *q, int64_t rev, struct err *e)
{
	int r = db_compact(&q->writer, rev, e);

	return r < 0 ? r : db_set_meta(&q->writer, "compacted", rev, e);
}

/* Under the lock and in a transaction; fills b with the events. */
static int write_all(struct sqlite *q, const struct store_op *ops, size_t n_ops, struct hub_batch *b,
		     int64_t *compact_to, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n_ops; i++)
		r = apply(q, &ops[i], b, e);
	if (r < 0 || !b->n)
		return r;
	if (b->rev >= q->compacted + STORE_HISTORY_REVS + COMPACT_EVERY) {
		*compact_to = b->rev - STORE_HISTORY_REVS;
		r = compact(q, *compact_to, e);
	}
	return r < 0 ? r : db_set_meta(&q->writer, "rev", b->rev, e);
}

/* Under the lock, in a transaction begun: commits or rolls back, then publishes. gone = lease whose row goes too, or 0. */
static int commit(struct sqlite *q, const struct store_op *ops, size_t n_ops, int64_t gone, int64_t *ret_rev,
		  struct err *e)
{
	struct hub_batch *b = hub_batch_new(q->rev + 1, n_ops);
	size_t room = b->n;
	int64_t compact_to = 0;
	int r;

	b->n = 0;
	r = write_all(q, ops, n_ops, b, &compact_to, e);
	ensure(b->n <= room);
	if (r == 0 && gone)
		r = db_lease_del(&q->writer, gone, e);
	if (r == 0)
		r = db_exec(&q->writer, DB_COMMIT, e);
	if (r < 0) {
		db_exec(&q->writer, DB_ROLLBACK, NULL);
		hub_batch_unref(b);
		return r;
	}
	if (compact_to) {
		q->compacted = compact_to;
		hub_compact(q->store.hub, compact_to);
		db_vacuum(&q->writer, VACUUM_PAGES_MAX);
	}
	if (b->n) {
		q->rev = b->rev;
		hub_publish(q->store.hub, b);
	} else {
		hub_batch_unref(b);
	}
	*ret_rev = q->rev;
	return 0;
}

static int sqlite_txn(struct store *s, const struct store_cmp *cmp, size_t n_cmp, const struct store_op *ops,
		      size_t n_ops, int64_t *ret_rev, struct err *e)
{
	struct sqlite *q = sqlite_of(s);
	int r;

	pthread_mutex_lock(&q->lock);
	r = check(q, cmp, n_cmp, ops, n_ops, e);
	if (r == 0)
		r = db_exec(&q->writer, DB_BEGIN_WRITE, e);
	if (r == 0)
		r = commit(q, ops, n_ops, 0, ret_rev, e);
	pthread_mutex_unlock(&q->lock);
	return r;
}

static int sqlite_history(void *ctx, const char *prefix, int64_t from, int64_t to, const bool *stop,
			  struct hub_events *out, int64_t *ret_next)
{
	struct sqlite *q = ctx;
	struct reader *reader = reader_take(q);
	int64_t compacted = 0;
	int r = db_exec(&reader->db, DB_BEGIN_READ, NULL);

	if (r == 0) {
		r = db_meta(&reader->db, "compacted", &compacted, NULL);
		if (r == 0 && from < compacted)
			r = -ESTALE;
		if (r == 0)
			r = db_history(&reader->db, prefix, from, to, HISTORY_EVENTS, out, ret_next);
		db_exec(&reader->db, DB_ROLLBACK, NULL);
	}
	pthread_mutex_unlock(&reader->lock);
	return r;
}

/* Deletes the keys of a lease that is out of the table, all in one revision. */
static int lease_end(struct sqlite *q, int64_t id, struct err *e)
{
	_cleanup_strv_ char **keys = NULL;
	_cleanup_free_ struct store_op *ops = NULL;
	size_t n;
	int64_t rev;
	int r;

	pthread_mutex_lock(&q->lock);
	r = db_lease_keys(&q->writer, id, &keys, e);
	n = strv_len(keys);
	ops = xcalloc(n + 1, sizeof(*ops));
	for (size_t i = 0; i < n; i++)
		ops[i] = (struct store_op){.type = STORE_DELETE, .key = keys[i]};
	if (r == 0)
		r = db_exec(&q->writer, DB_BEGIN_WRITE, e);
	if (r == 0)
		r = commit(q, ops, n, id, &rev, e);
	pthread_mutex_unlock(&q->lock);
	return r;
}

static void lease_expired(void *ctx, int64_t id)
{
	struct sqlite *q = ctx;
	struct err e = {0};

	if (lease_end(q, id, &e) < 0) {
		log_error("store: lease %lld has ended but its keys are still there, trying again in 1 s: %s",
			  (long long)id, e.text);
		leases_add(q->leases, id, 1);
	}
}

static int sqlite_lease_grant(struct store *s, int64_t ttl_s, int64_t *ret_id, struct err *e)
{
	struct sqlite *q = sqlite_of(s);
	int64_t id = lease_new_id();
	int r;

	pthread_mutex_lock(&q->lock);
	r = db_lease_add(&q->writer, id, ttl_s, e);
	pthread_mutex_unlock(&q->lock);
	if (r < 0)
		return r;
	r = leases_add(q->leases, id, ttl_s);
	if (r < 0)
		return err_errno(e, r, "cannot grant a lease");
	*ret_id = id;
	return 0;
}

static int sqlite_lease_keepalive(struct store *s, int64_t id, struct err *e)
{
	int r = leases_keepalive(sqlite_of(s)->leases, id);

	return r < 0 ? err_set(e, r, "lease %lld has ended", (long long)id) : 0;
}

static int sqlite_lease_revoke(struct store *s, int64_t id, struct err *e)
{
	struct sqlite *q = sqlite_of(s);
	int r = leases_remove(q->leases, id);

	if (r < 0)
		return err_set(e, r, "lease %lld has ended", (long long)id);
	r = lease_end(q, id, e);
	if (r < 0)
		leases_add(q->leases, id, 1); /* ends a second later */
	return r;
}

static int sqlite_compact(struct store *s, int64_t rev, struct err *e)
{
	struct sqlite *q = sqlite_of(s);
	int r;

	pthread_mutex_lock(&q->lock);
	if (rev > q->rev)
		r = err_set(e, -EINVAL, "revision %lld is in the future", (long long)rev);
	else if (rev <= q->compacted)
		r = err_set(e, -ESTALE, "revision %lld was compacted already", (long long)rev);
	else
		r = db_exec(&q->writer, DB_BEGIN_WRITE, e);
	if (r == 0) {
		r = compact(q, rev, e);
		if (r == 0)
			r = db_exec(&q->writer, DB_COMMIT, e);
		if (r < 0)
			db_exec(&q->writer, DB_ROLLBACK, NULL);
	}
	if (r == 0) {
		q->compacted = rev;
		hub_compact(s->hub, rev);
		db_vacuum(&q->writer, VACUUM_PAGES_MAX);
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}

static void sqlite_store_close(struct store *s)
{
	struct sqlite *q = sqlite_of(s);

	leases_free(q->leases);
	hub_free(s->hub);
	for (size_t i = 0; i < READERS; i++) {
		db_close(&q->readers[i].db);
		pthread_mutex_destroy(&q->readers[i].lock);
	}
	db_close(&q->writer);
	pthread_mutex_destroy(&q->lock);
	if (q->lock_fd >= 0)
		close(q->lock_fd);
	free(q);
}

static const struct store_driver sqlite_driver = {
	.close = sqlite_store_close,
	.range = sqlite_range,
	.txn = sqlite_txn,
	.lease_grant = sqlite_lease_grant,
	.lease_keepalive = sqlite_lease_keepalive,
	.lease_revoke = sqlite_lease_revoke,
	.compact = sqlite_compact,
};

static int take_lock_file(struct sqlite *q, const char *path, struct err *e)
{
	_cleanup_free_ char *lock = xasprintf("%s.lock", path);

	q->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (q->lock_fd < 0)
		return err_errno(e, -errno, "cannot open %s", lock);
	if (flock(q->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, -EBUSY, "%s is in use by another process", path);
	return 0;
}

static void lease_loaded(void *ctx, int64_t id, int64_t ttl_s)
{
	leases_add(ctx, id, ttl_s);
}

static int open_all(struct sqlite *q, const char *path, struct err *e)
{
	int r;

	if ((r = take_lock_file(q, path, e)) < 0 || (r = db_open(&q->writer, path, true, e)) < 0)
		return r;
	for (size_t i = 0; i < READERS; i++)
		if ((r = db_open(&q->readers[i].db, path, false, e)) < 0)
			return r;
	if ((r = db_meta(&q->writer, "rev", &q->rev, e)) < 0)
		return r;
	return db_meta(&q->writer, "compacted", &q->compacted, e);
}

int sqlite_open(const char *path, const struct store_options *o, struct store **ret, struct err *e)
{
	struct sqlite *q;
	int r;

	if (!*path)
		return err_set(e, -EINVAL, "'sqlite:' needs the path of a file");
	q = xcalloc(1, sizeof(*q));
	q->lock_fd = -1;
	q->store.driver = &sqlite_driver;
	pthread_mutex_init(&q->lock, NULL);
	for (size_t i = 0; i < READERS; i++)
		pthread_mutex_init(&q->readers[i].lock, NULL);
	q->leases = leases_new(lease_expired, q);
	r = open_all(q, path, e);
	if (r == 0) {
		q->store.hub =
			hub_new(&(struct hub_source){.history = sqlite_history, .ctx = q}, q->rev, true);
		hub_compact(q->store.hub, q->compacted);
		r = db_leases(&q->writer, lease_loaded, q->leases, e);
	}
	if (r < 0) {
		sqlite_store_close(&q->store);
		return r;
	}
	*ret = &q->store;
	return 0;
}
