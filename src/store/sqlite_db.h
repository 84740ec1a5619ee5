/* SPDX-License-Identifier: Apache-2.0 */
/* The SQL of the SQLite store: one connection with its prepared statements. Each call 0 or -errno with text. Not
 * thread-safe: its owner locks. */
#pragma once

#include <sqlite3.h>

#include "store/internal.h"

enum db_stmt {
	DB_BEGIN_READ,
	DB_BEGIN_WRITE,
	DB_COMMIT,
	DB_ROLLBACK,
	DB_META,
	DB_SET_META,
	DB_CURRENT_REV,
	DB_READ_CURRENT,
	DB_INSERT,
	DB_SET_CURRENT,
	DB_DEL_CURRENT,
	DB_RANGE_NEWEST,
	DB_COUNT_NEWEST,
	DB_RANGE_AT,
	DB_COUNT_AT,
	DB_HISTORY,
	DB_PREVIOUS,
	DB_COMPACT_OLD,
	DB_COMPACT_GONE,
	DB_LEASE_KEYS,
	DB_LEASE_ADD,
	DB_LEASE_DEL,
	DB_LEASES,
	DB_STMTS
};

struct db {
	sqlite3 *h;
	sqlite3_stmt *stmt[DB_STMTS]; /* prepared at first use */
};

int db_open(struct db *db, const char *path, bool writer, struct err *e);
void db_close(struct db *db);

/* A statement without parameters and rows. */
int db_exec(struct db *db, enum db_stmt which, struct err *e);
int db_meta(struct db *db, const char *name, int64_t *ret, struct err *e);
int db_set_meta(struct db *db, const char *name, int64_t value, struct err *e);
/* 0 in *ret = the key is not there. */
int db_current_rev(struct db *db, const char *key, int64_t *ret, struct err *e);
/* ret->key stays NULL when the key is not there. */
int db_read_current(struct db *db, const char *key, struct store_kv *ret, struct err *e);
int db_insert(struct db *db, const struct store_kv *kv, bool deleted, struct err *e);
int db_set_current(struct db *db, const struct store_kv *kv, bool deleted, struct err *e);
int db_range(struct db *db, const struct store_span *span, bool newest, struct store_list *ret,
	     struct err *e);
int db_history(struct db *db, const char *prefix, int64_t from, int64_t to, size_t events_max,
	       struct hub_events *out, int64_t *ret_next);
int db_compact(struct db *db, int64_t rev, struct err *e);
void db_vacuum(struct db *db, int pages);
int db_lease_keys(struct db *db, int64_t id, char ***ret, struct err *e);
int db_lease_add(struct db *db, int64_t id, int64_t ttl_s, struct err *e);
int db_lease_del(struct db *db, int64_t id, struct err *e);
int db_leases(struct db *db, void (*fn)(void *ctx, int64_t id, int64_t ttl_s), void *ctx, struct err *e);
