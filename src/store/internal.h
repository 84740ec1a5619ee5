/* SPDX-License-Identifier: Apache-2.0 */
/* What the drivers (memory, SQLite, etcd) share: the table of calls a driver fills, the hub that feeds watches, the lease
 * table of the stores that keep time themselves. store.c checks every argument before a driver sees it. */
#pragma once

#include <pthread.h>

#include "store/store.h"

#define STORE_HISTORY_REVS \
	8192 /* memory and SQLite: this much history is always kept, unless compacted by call */
#define STORE_TXN_BYTES_MAX \
	(STORE_VALUE_MAX + ((size_t)256 << 10)) /* keys and values of one transaction together */
/* Keys that start with this byte belong to the store itself; callers neither see nor write them. */
#define STORE_RESERVED	'\x01'
#define STORE_FIRST_KEY "\x02"

/* Keys k with begin <= k < end (end NULL = no end); exact: only the key begin. */
struct store_span {
	const char *begin, *end;
	bool exact;
	size_t limit; /* 0 = all */
	int64_t rev;  /* 0 = newest */
};

struct store_driver {
	void (*close)(struct store *s);
	int (*range)(struct store *s, const struct store_span *span, struct store_list *ret, struct err *e);
	int (*txn)(struct store *s, const struct store_cmp *cmp, size_t n_cmp, const struct store_op *ops,
		   size_t n_ops, int64_t *ret_rev, struct err *e);
	int (*watch_begin)(struct store *s, struct err *e); /* NULL = the hub always runs */
	int (*lease_grant)(struct store *s, int64_t ttl_s, int64_t *ret_id, struct err *e);
	int (*lease_keepalive)(struct store *s, int64_t id, struct err *e);
	int (*lease_revoke)(struct store *s, int64_t id, struct err *e);
	int (*compact)(struct store *s, int64_t rev, struct err *e);
};

/* Head of every driver's own struct. */
struct store {
	const struct store_driver *driver;
	struct hub *hub;
	int64_t timeout_ms;
};

int fake_open(const char *rest, const struct store_options *o, struct store **ret, struct err *e);
int etcd_open(const char *rest, const struct store_options *o, struct store **ret, struct err *e);
int sqlite_open(const char *path, const struct store_options *o, struct store **ret, struct err *e);

/* ---- lists ---- */
/* Appends a zeroed kv; valid until the next one. */
struct store_kv *store_list_slot(struct store_list *l);
/* Copies key and value. */
void store_kv_fill(struct store_kv *kv, const char *key, const void *value, size_t len);

/* ---- hub: recent events in memory, one thread a watch ---- */
struct hub;

/* The events of one revision. Shared by all watches; freed with the last reference. */
struct hub_batch {
	int refs;
	int64_t rev;
	size_t n, bytes;
	struct store_event ev[];
};

struct hub_batch *hub_batch_new(int64_t rev, size_t n);
void hub_batch_unref(struct hub_batch *b);

struct hub_events {
	struct store_event *ev; /* owned */
	size_t n, cap;
};

struct store_event *hub_events_add(struct hub_events *v);
void hub_events_done(struct hub_events *v);

struct hub_source {
	/* Events older than the hub remembers: of keys with prefix, from <= rev <= to, whole revisions; stops early after
	 * some number of events. *ret_next = first revision not looked at. -ESTALE = compacted. Long waits look at *stop.
	 * NULL = there is no older history. */
	int (*history)(void *ctx, const char *prefix, int64_t from, int64_t to, const bool *stop,
		       struct hub_events *out, int64_t *ret_next);
	void *ctx;
};

/* rev: the newest revision; events come later. */
struct hub *hub_new(const struct hub_source *src, int64_t rev, bool reachable);
struct hub *hub_free(struct hub *h); /* ends all watches first */
/* Takes over b. Revisions must rise. */
void hub_publish(struct hub *h, struct hub_batch *b);
/* What lies below rev cannot be watched any more. */
void hub_compact(struct hub *h, int64_t rev);
/* Starts again behind rev; ends every watch with why, unless that is 0 (then nothing was published before). */
void hub_reset(struct hub *h, int64_t rev, int why);
/* Progress is told only while reachable. */
void hub_set_reachable(struct hub *h, bool reachable);
int64_t hub_rev(struct hub *h);
int hub_watch(struct hub *h, const char *prefix, int64_t from_rev, const struct store_watch_handler *handler,
	      struct store_watch **ret, struct err *e);

/* ---- leases of stores that keep time themselves ---- */
struct leases;

/* expired runs on the table's own thread, which starts with the first lease. */
struct leases *leases_new(void (*expired)(void *ctx, int64_t id), void *ctx);
struct leases *leases_free(struct leases *l);
int leases_add(struct leases *l, int64_t id, int64_t ttl_s);
bool leases_has(struct leases *l, int64_t id);
int leases_keepalive(struct leases *l, int64_t id);
int leases_remove(struct leases *l, int64_t id);
int64_t lease_new_id(void);
