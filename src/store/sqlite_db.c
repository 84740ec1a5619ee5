/* SPDX-License-Identifier: Apache-2.0 */
/* The SQL of the SQLite store; the schema is described in sqlite.c. Keys are BLOBs, so SQLite compares them bytewise.
 * Memory: rows are copied out. */
#include "store/sqlite_db.h"

#define FORMAT	   1
#define BUSY_MS	   2000
#define ROW_COLUMN "k.rev, k.key, k.create_rev, k.version, k.lease, k.value"

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS kv(id INTEGER PRIMARY KEY, rev INTEGER NOT NULL, key BLOB NOT NULL,"
	" create_rev INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL, value BLOB);"
	"CREATE UNIQUE INDEX IF NOT EXISTS kv_key ON kv(key, rev);"
	"CREATE INDEX IF NOT EXISTS kv_rev ON kv(rev);"
	"CREATE TABLE IF NOT EXISTS current(key BLOB PRIMARY KEY, rev INTEGER NOT NULL, lease INTEGER NOT "
	"NULL)"
	" WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS current_lease ON current(lease) WHERE lease != 0;"
	"CREATE TABLE IF NOT EXISTS lease(id INTEGER PRIMARY KEY, ttl_s INTEGER NOT NULL);"
	"CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
	"INSERT OR IGNORE INTO meta VALUES('format', 1), ('rev', 1), ('compacted', 0);";

static const char *const sql[DB_STMTS] = {
	[DB_BEGIN_READ] = "BEGIN",
	[DB_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[DB_COMMIT] = "COMMIT",
	[DB_ROLLBACK] = "ROLLBACK",
	[DB_META] = "SELECT value FROM meta WHERE name = ?",
	[DB_SET_META] = "UPDATE meta SET value = ?2 WHERE name = ?1",
	[DB_CURRENT_REV] = "SELECT rev FROM current WHERE key = ?",
	[DB_READ_CURRENT] = "SELECT " ROW_COLUMN
			    " FROM current c JOIN kv k ON k.key = c.key AND k.rev = c.rev WHERE c.key = ?",
	[DB_INSERT] = "INSERT INTO kv(rev, key, create_rev, version, lease, value) VALUES(?, ?, ?, ?, ?, ?)",
	[DB_SET_CURRENT] = "INSERT OR REPLACE INTO current VALUES(?, ?, ?)",
	[DB_DEL_CURRENT] = "DELETE FROM current WHERE key = ?",
	/* ?1 begin, ?2 end, ?3 limit (-1 = none) */
	[DB_RANGE_NEWEST] =
		"SELECT " ROW_COLUMN " FROM current c CROSS JOIN kv k ON k.key = c.key AND k.rev = c.rev"
		" WHERE c.key >= ?1 AND c.key < ?2 ORDER BY c.key LIMIT ?3",
	[DB_COUNT_NEWEST] = "SELECT count(*) FROM current WHERE key >= ?1 AND key < ?2",
	/* the same as it was at revision ?4 */
	[DB_RANGE_AT] =
		"SELECT " ROW_COLUMN " FROM kv k WHERE k.key >= ?1 AND k.key < ?2 AND k.value IS NOT NULL"
		" AND k.rev = (SELECT max(rev) FROM kv o WHERE o.key = k.key AND o.rev <= ?4)"
		" ORDER BY k.key LIMIT ?3",
	[DB_COUNT_AT] = "SELECT count(*) FROM kv k WHERE k.key >= ?1 AND k.key < ?2 AND k.value IS NOT NULL"
			" AND k.rev = (SELECT max(rev) FROM kv o WHERE o.key = k.key AND o.rev <= ?4)",
	[DB_HISTORY] =
		"SELECT " ROW_COLUMN " FROM kv k WHERE k.rev >= ?1 AND k.rev <= ?2 ORDER BY k.rev, k.id",
	[DB_PREVIOUS] =
		"SELECT " ROW_COLUMN " FROM kv k WHERE k.key = ?1 AND k.rev < ?2 ORDER BY k.rev DESC LIMIT 1",
	/* rows that a newer one, itself not above ?1, has replaced; then deletions below ?1 */
	[DB_COMPACT_OLD] = "DELETE FROM kv WHERE rev < ?1 AND EXISTS"
			   " (SELECT 1 FROM kv n WHERE n.key = kv.key AND n.rev > kv.rev AND n.rev <= ?1)",
	[DB_COMPACT_GONE] = "DELETE FROM kv WHERE rev < ?1 AND value IS NULL",
	[DB_LEASE_KEYS] = "SELECT key FROM current WHERE lease = ? AND lease != 0",
	[DB_LEASE_ADD] = "INSERT INTO lease VALUES(?, ?)",
	[DB_LEASE_DEL] = "DELETE FROM lease WHERE id = ?",
	[DB_LEASES] = "SELECT id, ttl_s FROM lease",
};

static int errno_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -ETIMEDOUT;
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return -EACCES;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CANTOPEN:
		return -ENOENT;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	default:
		return -EIO;
	}
}

static int fail(struct db *db, struct err *e, const char *doing)
{
	return err_set(e, errno_of(sqlite3_errcode(db->h)), "SQLite, %s: %s", doing, sqlite3_errmsg(db->h));
}

static void reset_p(sqlite3_stmt **s)
{
	if (*s) {
		sqlite3_reset(*s);
		sqlite3_clear_bindings(*s);
	}
}
#define _cleanup_stmt_ _cleanup_(reset_p)

/* Ready to bind; NULL and e set when it cannot be prepared. */
static sqlite3_stmt *get(struct db *db, enum db_stmt which, struct err *e)
{
	if (!db->stmt[which] && sqlite3_prepare_v3(db->h, sql[which], -1, SQLITE_PREPARE_PERSISTENT,
						   &db->stmt[which], NULL) != SQLITE_OK) {
		fail(db, e, "preparing a statement");
		return NULL;
	}
	return db->stmt[which];
}

static void bind_key(sqlite3_stmt *s, int at, const char *key)
{
	sqlite3_bind_blob(s, at, key, (int)strlen(key), SQLITE_STATIC);
}

/* 1 = a row, 0 = the end. */
static int step(struct db *db, sqlite3_stmt *s, struct err *e)
{
	int code = sqlite3_step(s);

	if (code == SQLITE_ROW)
		return 1;
	return code == SQLITE_DONE ? 0 : fail(db, e, "running a statement");
}

/* The columns of ROW_COLUMN; true = the row is a deletion. */
static bool read_row(sqlite3_stmt *s, struct store_kv *kv)
{
	_cleanup_free_ char *key = xstrndup(sqlite3_column_blob(s, 1) ? sqlite3_column_blob(s, 1) : "",
					    (size_t)sqlite3_column_bytes(s, 1));

	*kv = (struct store_kv){0};
	store_kv_fill(kv, key, sqlite3_column_blob(s, 5), (size_t)sqlite3_column_bytes(s, 5));
	kv->mod_rev = sqlite3_column_int64(s, 0);
	kv->create_rev = sqlite3_column_int64(s, 2);
	kv->version = sqlite3_column_int64(s, 3);
	kv->lease = sqlite3_column_int64(s, 4);
	return sqlite3_column_type(s, 5) == SQLITE_NULL;
}

int db_exec(struct db *db, enum db_stmt which, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, which, e);

	return s ? step(db, s, e) : -EIO;
}

int db_meta(struct db *db, const char *name, int64_t *ret, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_META, e);
	int r;

	if (!s)
		return -EIO;
	sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
	r = step(db, s, e);
	if (r == 0)
		return err_set(e, -EUCLEAN, "the store's file has no '%s'", name);
	if (r > 0)
		*ret = sqlite3_column_int64(s, 0);
	return r < 0 ? r : 0;
}

int db_set_meta(struct db *db, const char *name, int64_t value, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_SET_META, e);

	if (!s)
		return -EIO;
	sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
	sqlite3_bind_int64(s, 2, value);
	return step(db, s, e);
}

int db_current_rev(struct db *db, const char *key, int64_t *ret, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_CURRENT_REV, e);
	int r;

	if (!s)
		return -EIO;
	bind_key(s, 1, key);
	r = step(db, s, e);
	*ret = r > 0 ? sqlite3_column_int64(s, 0) : 0;
	return r < 0 ? r : 0;
}

int db_read_current(struct db *db, const char *key, struct store_kv *ret, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_READ_CURRENT, e);
	int r;

	if (!s)
		return -EIO;
	bind_key(s, 1, key);
	r = step(db, s, e);
	if (r > 0)
		read_row(s, ret);
	return r < 0 ? r : 0;
}

int db_insert(struct db *db, const struct store_kv *kv, bool deleted, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_INSERT, e);

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, kv->mod_rev);
	bind_key(s, 2, kv->key);
	sqlite3_bind_int64(s, 3, kv->create_rev);
	sqlite3_bind_int64(s, 4, kv->version);
	sqlite3_bind_int64(s, 5, kv->lease);
	if (!deleted) /* an empty value must not become NULL */
		sqlite3_bind_blob(s, 6, kv->value, (int)kv->value_len, SQLITE_STATIC);
	return step(db, s, e);
}

int db_set_current(struct db *db, const struct store_kv *kv, bool deleted, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, deleted ? DB_DEL_CURRENT : DB_SET_CURRENT, e);

	if (!s)
		return -EIO;
	bind_key(s, 1, kv->key);
	if (!deleted) {
		sqlite3_bind_int64(s, 2, kv->mod_rev);
		sqlite3_bind_int64(s, 3, kv->lease);
	}
	return step(db, s, e);
}

static void bind_span(sqlite3_stmt *s, const struct store_span *span, int64_t rev)
{
	/* longer than any key, so above them all; always a bound, or SQLite would scan to the end of the table */
	static const unsigned char behind_all[STORE_KEY_MAX + 1] = {[0 ... STORE_KEY_MAX] = 0xff};

	/* begin + zero byte is the first key behind begin */
	bind_key(s, 1, span->begin);
	if (span->exact)
		sqlite3_bind_blob(s, 2, span->begin, (int)strlen(span->begin) + 1, SQLITE_STATIC);
	else if (span->end)
		bind_key(s, 2, span->end);
	else
		sqlite3_bind_blob(s, 2, behind_all, sizeof(behind_all), SQLITE_STATIC);
	if (sqlite3_bind_parameter_count(s) >= 3)
		sqlite3_bind_int64(s, 3, span->limit ? (int64_t)span->limit + 1 : -1);
	if (sqlite3_bind_parameter_count(s) >= 4)
		sqlite3_bind_int64(s, 4, rev);
}

static int count(struct db *db, const struct store_span *span, bool newest, struct store_list *ret,
		 struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, newest ? DB_COUNT_NEWEST : DB_COUNT_AT, e);
	int r;

	if (!s)
		return -EIO;
	bind_span(s, span, ret->rev);
	r = step(db, s, e);
	if (r > 0)
		ret->count = sqlite3_column_int64(s, 0);
	return r < 0 ? r : 0;
}

int db_range(struct db *db, const struct store_span *span, bool newest, struct store_list *ret, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, newest ? DB_RANGE_NEWEST : DB_RANGE_AT, e);
	int r;

	if (!s)
		return -EIO;
	bind_span(s, span, ret->rev);
	while ((r = step(db, s, e)) > 0) {
		if (span->limit && ret->n == span->limit) {
			ret->more = true;
			break;
		}
		read_row(s, store_list_slot(ret));
	}
	if (r < 0)
		return r;
	ret->count = (int64_t)ret->n;
	return ret->more ? count(db, span, newest, ret, e) : 0;
}

/* What the key was just before rev; prev->key stays NULL when it was not there. */
static int previous(struct db *db, const char *key, int64_t rev, struct store_kv *prev)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_PREVIOUS, NULL);
	int r;

	if (!s)
		return -EIO;
	bind_key(s, 1, key);
	sqlite3_bind_int64(s, 2, rev);
	r = step(db, s, NULL);
	if (r > 0 && read_row(s, prev))
		store_kv_done(prev);
	return r < 0 ? r : 0;
}

int db_history(struct db *db, const char *prefix, int64_t from, int64_t to, size_t events_max,
	       struct hub_events *out, int64_t *ret_next)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_HISTORY, NULL);
	size_t prefix_len = strlen(prefix);
	int r;

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, from);
	sqlite3_bind_int64(s, 2, to);
	*ret_next = to + 1;
	while ((r = step(db, s, NULL)) > 0) {
		const void *key = sqlite3_column_blob(s, 1);
		size_t len = (size_t)sqlite3_column_bytes(s, 1);
		struct store_event *ev;
		bool gone;

		if (len < prefix_len || memcmp(key, prefix, prefix_len) != 0)
			continue;
		if (out->n >= events_max && sqlite3_column_int64(s, 0) != out->ev[out->n - 1].kv.mod_rev) {
			*ret_next = sqlite3_column_int64(s, 0);
			break;
		}
		ev = hub_events_add(out);
		gone = read_row(s, &ev->kv);
		ev->type = gone ? STORE_EVENT_DELETE : STORE_EVENT_PUT;
		r = previous(db, ev->kv.key, ev->kv.mod_rev, &ev->prev);
		if (r < 0)
			break;
	}
	return r < 0 ? r : 0;
}

static int with_rev(struct db *db, enum db_stmt which, int64_t rev, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, which, e);

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, rev);
	return step(db, s, e);
}

int db_compact(struct db *db, int64_t rev, struct err *e)
{
	int r = with_rev(db, DB_COMPACT_OLD, rev, e);

	return r < 0 ? r : with_rev(db, DB_COMPACT_GONE, rev, e);
}

void db_vacuum(struct db *db, int pages)
{
	char text[64];

	snprintf(text, sizeof(text), "PRAGMA incremental_vacuum(%d)", pages);
	sqlite3_exec(db->h, text, NULL, NULL, NULL); /* only gives space back: failing is harmless */
}

int db_lease_keys(struct db *db, int64_t id, char ***ret, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_LEASE_KEYS, e);
	int r;

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, id);
	while ((r = step(db, s, e)) > 0) {
		_cleanup_free_ char *key =
			xstrndup(sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0));

		*ret = strv_add(*ret, key);
	}
	return r;
}

int db_lease_add(struct db *db, int64_t id, int64_t ttl_s, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_LEASE_ADD, e);

	if (!s)
		return -EIO;
	sqlite3_bind_int64(s, 1, id);
	sqlite3_bind_int64(s, 2, ttl_s);
	return step(db, s, e);
}

int db_lease_del(struct db *db, int64_t id, struct err *e)
{
	return with_rev(db, DB_LEASE_DEL, id, e);
}

int db_leases(struct db *db, void (*fn)(void *ctx, int64_t id, int64_t ttl_s), void *ctx, struct err *e)
{
	_cleanup_stmt_ sqlite3_stmt *s = get(db, DB_LEASES, e);
	int r;

	if (!s)
		return -EIO;
	while ((r = step(db, s, e)) > 0)
		fn(ctx, sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1));
	return r;
}

static int prepare_file(struct db *db, struct err *e)
{
	int64_t format;
	int r;

	/* auto_vacuum must be set before the first table */
	if (sqlite3_exec(db->h, "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;", NULL, NULL,
			 NULL) ||
	    sqlite3_exec(db->h, schema, NULL, NULL, NULL))
		return fail(db, e, "preparing the file");
	r = db_meta(db, "format", &format, e);
	if (r == 0 && format != FORMAT)
		r = err_set(e, -EPROTO, "the store's file has format %lld, this version reads %d",
			    (long long)format, FORMAT);
	return r;
}

int db_open(struct db *db, const char *path, bool writer, struct err *e)
{
	int flags = writer ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READWRITE;
	int r;

	if (sqlite3_open_v2(path, &db->h, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		r = db->h ? fail(db, e, path) : err_set(e, -ENOMEM, "SQLite has no memory");
	else if (sqlite3_busy_timeout(db->h, BUSY_MS) ||
		 sqlite3_exec(db->h,
			      "PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF; PRAGMA "
			      "journal_size_limit=16777216;",
			      NULL, NULL, NULL))
		r = fail(db, e, "setting up");
	else
		r = writer ? prepare_file(db, e) : 0;
	if (r < 0)
		db_close(db);
	return r;
}

void db_close(struct db *db)
{
	for (int i = 0; i < DB_STMTS; i++)
		sqlite3_finalize(db->stmt[i]);
	sqlite3_close(db->h);
	*db = (struct db){0};
}
