/* SPDX-License-Identifier: Apache-2.0 */
/* store: revisioned keys over etcd, SQLite or memory, behind one interface. The contract is etcd's (API v3 KV, Watch,
 * Lease): one revision counter for the whole store, raised by every committed transaction; keys in byte order.
 *
 * All calls block, are safe from any thread and end by their deadline. They are for worker threads, never for a loop
 * thread. Watch callbacks come from a thread of the store. */
#pragma once

#include "base/base.h"

struct store;
struct store_watch;

#define STORE_KEY_MAX	  1024		    /* bytes */
#define STORE_VALUE_MAX	  ((size_t)1 << 20) /* bytes; as etcd's default request of 1.5 MiB allows */
#define STORE_TXN_OPS_MAX 64

struct store_options {
	const char *ca_file, *cert_file, *key_file; /* TLS to etcd; NULL = plain */
	int64_t timeout_ms;			    /* one call, all retries included; 0 = 5,000 */
};

struct store_kv {
	char *key;
	char *value; /* zero-terminated behind value_len */
	size_t value_len;
	int64_t create_rev, mod_rev, version;
	int64_t lease; /* 0 = none */
};

struct store_list {
	struct store_kv *kv;
	size_t n;
	int64_t rev;   /* revision at which this is true */
	bool more;     /* limit cut it */
	int64_t count; /* keys in the range, the cut ones included */
};

/* uri: "etcd:https://h1:2379,https://h2:2379" (tried in this order, local one first), "sqlite:/path/file", "mem:".
 * o may be NULL. */
int store_open(const char *uri, const struct store_options *o, struct store **ret, struct err *e);
struct store *store_free(struct store *s); /* accepts NULL, returns NULL; ends its watches */

/* rev 0 = newest, linearizable. -ENOENT; -ESTALE = compacted away; -EAGAIN / -ETIMEDOUT = store not reachable in time. */
int store_get(struct store *s, const char *key, int64_t rev, struct store_kv *ret, int64_t *ret_rev,
	      struct err *e);
/* Keys k with begin <= k < end; end NULL = all that start with begin. limit 0 = all. */
int store_range(struct store *s, const char *begin, const char *end, size_t limit, int64_t rev,
		struct store_list *ret, struct err *e);

struct store_cmp {
	const char *key;
	int64_t mod_rev; /* must equal; 0 = key must not exist */
};

struct store_op {
	enum { STORE_PUT, STORE_DELETE } type;
	const char *key;
	const void *value; /* PUT */
	size_t value_len;
	int64_t lease; /* PUT; 0 = none */
};

/* All compares hold -> all ops at one new revision (*ret_rev). -EEXIST when a compare failed (nothing done).
 * -ETIMEDOUT: outcome unknown. */
int store_txn(struct store *s, const struct store_cmp *cmp, size_t n_cmp, const struct store_op *ops,
	      size_t n_ops, int64_t *ret_rev, struct err *e);

struct store_event {
	enum { STORE_EVENT_PUT, STORE_EVENT_DELETE } type;
	struct store_kv kv;   /* DELETE: key and mod_rev only */
	struct store_kv prev; /* what was there before; key NULL = nothing, or not known */
};

struct store_watch_handler {
	/* Events of one revision never come in two calls. n = 0: nothing changed up to rev (progress, about every
	 * second while the store is reachable). */
	void (*events)(void *ctx, const struct store_event *ev, size_t n, int64_t rev);
	/* The watch has ended; why = -ESTALE (from_rev was compacted: list again) or another errno. Last call. */
	void (*ended)(void *ctx, int why);
	void *ctx;
};

/* Every change with revision >= from_rev of keys that start with prefix, in order, none twice, none missing; it
 * reconnects by itself and goes on where it was. */
int store_watch(struct store *s, const char *prefix, int64_t from_rev, const struct store_watch_handler *h,
		struct store_watch **ret, struct err *e);
/* No callback runs after it has returned. Not from inside a callback. */
struct store_watch *store_watch_free(struct store_watch *w);

int store_lease_grant(struct store *s, int64_t ttl_s, int64_t *ret_id, struct err *e);
int store_lease_keepalive(struct store *s, int64_t id, struct err *e); /* once; -ENOENT when it has ended */
int store_lease_revoke(struct store *s, int64_t id, struct err *e);
/* History below rev is dropped; the newest value of each key stays. */
int store_compact(struct store *s, int64_t rev, struct err *e);

void store_kv_done(struct store_kv *kv);
void store_list_done(struct store_list *l);
