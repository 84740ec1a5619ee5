/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `kuayu api` share. See main.c for the threads. */
#pragma once

#include <stdatomic.h>

#include "io/io.h"
#include "model/model.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "store/store.h"

#define REGISTRY	"/registry/"
#define CAS_TRIES_MAX	16
#define REASON_CONFLICT "Conflict"

struct api_settings {
	char *store, *store_ca, *store_cert, *store_key;
	int64_t store_timeout_ms;
	char *listen, *advertise;
	char *tls_cert, *tls_key, *client_ca, *token_file;
	char *service_cidr;
	char *node_cert, *node_key, *node_ca;
	int64_t event_window, workers, event_ttl_ms, compact_ms;
	bool anonymous;
};

struct token_user;
struct cache;
struct metrics;
struct watches;

struct api {
	struct api_settings s;
	uv_loop_t loop;
	struct mailbox *mailbox;
	struct store *store;
	struct cache *cache;
	struct watches *watches;
	struct metrics *metrics;
	struct http_server *http;
	struct http_client *nodes; /* NULL: no logs */
	struct strmap *tokens;	   /* token -> struct token_user */
	struct keeper *keeper;
	uint32_t service_net, service_mask; /* host byte order */
	int port;
	_Atomic int in_flight;
	_Atomic bool stopping;
	_Atomic bool defaults_there;	 /* the default namespaces and default/kubernetes */
	_Atomic uint64_t store_heard_ms; /* monotonic: when a linearizable read last succeeded */
	pthread_mutex_t event_lease_lock;
	int64_t event_lease, event_lease_until_ms;
	_Atomic int log_streams;
};

enum verb {
	VERB_GET,
	VERB_LIST,
	VERB_WATCH,
	VERB_CREATE,
	VERB_UPDATE,
	VERB_PATCH,
	VERB_DELETE,
	VERB_DELETECOLLECTION
};
enum output { OUTPUT_OBJECT, OUTPUT_TABLE, OUTPUT_PARTIAL };

/* One API request, or one operation of the server itself (http NULL). A call is used by one thread at a time. */
struct call {
	struct api *api;
	struct http_req *http;
	uv_work_t work;
	enum verb verb;
	const struct model_kind *kind;
	char *ns, *name, *sub; /* NULL = none */
	const char *user;
	enum output output;
	const char *table_version; /* "v1", "v1beta1" */
	bool dry_run, strict, warn;
	json_t *warnings; /* texts */
	uint64_t started_us;
	/* A failed step leaves its Status here. */
	int code;
	json_t *status;
	int success; /* HTTP status of a success; 0 = 200 */
};

/* ---- status.c: failures and answers ---- */
/* Sets the call's Status and returns -1. */
int fail(struct call *c, int code, const char *reason, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
int fail_not_found(struct call *c);
int fail_conflict(struct call *c, const char *why);
int fail_invalid(struct call *c, json_t *causes); /* takes over causes */
int fail_store(struct call *c, int r, const struct err *e);
json_t *status_new(int code, const char *reason, const char *message);
void warn(struct call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void warn_of(struct call *c, const json_t *obj); /* of what is not fully carried out */
void reply_failure(struct call *c);
void reply_object(struct call *c, json_t *obj); /* in the form the client asked for */
void reply_raw_text(struct call *c, int status, const char *text, size_t len);
void negotiate(struct call *c);
json_t *partial_new(const json_t *obj);

/* ---- route.c ---- */
void route(void *ctx, struct http_req *r);
struct call *call_new(struct api *api, struct http_req *r);
/* An operation of the server itself; name may be NULL. */
struct call *call_of(struct api *api, const struct model_kind *k, const char *ns, const char *name);
void call_free(struct call *c);
/* Runs fn on a worker thread; the call is freed behind it. */
void call_queue(struct call *c, void (*fn)(struct call *c));
bool query_true(const struct call *c, const char *name);
bool api_store_alive(struct api *api);

/* ---- auth.c ---- */
int tokens_load(const char *path, struct strmap **ret, struct err *e);
struct strmap *tokens_free(struct strmap *m);
/* The user's name; NULL = not authenticated. */
const char *authenticate(struct api *api, const struct http_req *r);

/* ---- discovery.c ---- */
/* true when it has answered. */
bool discovery(struct api *api, struct http_req *r);

/* ---- cache.c: every object, from one watch of the store ---- */
struct obj {
	_Atomic int refs;
	const struct model_kind *kind;
	char *key; /* behind /registry/PLURAL/ */
	char *ns;  /* NULL = cluster-scoped */
	int64_t rev;
	json_t *json; /* never changed */
	char *text;   /* the same, serialized */
	size_t text_len;
};

enum event_type { EVENT_ADDED, EVENT_MODIFIED, EVENT_DELETED };
struct event {
	int64_t rev;
	enum event_type type;
	struct obj *obj; /* DELETED: last state, with the revision of the deletion */
	struct obj *old; /* NULL = ADDED */
};

struct cache *cache_new(struct store *s, struct api *api, size_t window, void (*changed)(void *ctx),
			void *ctx);
struct cache *cache_free(struct cache *c);
/* Waits until the first list has been read; -ETIMEDOUT. */
int cache_wait_ready(struct cache *c, uint64_t timeout_ms);
bool cache_ready(struct cache *c);
int64_t cache_rev(struct cache *c);
/* Milliseconds since the store was last heard of through the watch. */
uint64_t cache_silent_ms(struct cache *c);
/* Waits until the cache has seen revision rev. -ETIMEDOUT */
int cache_wait_rev(struct cache *c, int64_t rev, uint64_t timeout_ms);
struct obj *obj_ref(struct obj *o);
void obj_unref(struct obj *o);
/* The serialized object of a stored value; NULL when the value is no object of the kind. */
struct obj *obj_new(const struct model_kind *k, const char *key, const char *value, size_t len, int64_t rev);
/* New reference or NULL. key as in struct obj. */
struct obj *cache_get(struct cache *c, const struct model_kind *k, const char *key);
struct obj_list {
	struct obj **v;
	size_t n;
	int64_t rev;
};
/* All of a kind and namespace (NULL = all), in key order, true at rev. */
/* -EAGAIN while the cache is being filled: what it holds then is not all there is; *ret is empty. */
int cache_list(struct cache *c, const struct model_kind *k, const char *ns, struct obj_list *ret);
void obj_list_done(struct obj_list *l);
/* The latest revision in which an object of the kind changed. */
int64_t cache_kind_rev(struct cache *c, const struct model_kind *k);
/* Keys of the server's own below /registry/PREFIX/ that are no objects. */
bool cache_has_raw(struct cache *c, const char *key);
/* Events are numbered; *generation changes when the numbering starts anew (the store's history was lost).
 * First event with a revision > rev. -ESTALE when it is not in the window any more. */
int cache_event_at(struct cache *c, int64_t rev, uint64_t *ret_seq, uint64_t *ret_generation);
/* Copies up to max events from seq on (references taken). -ESTALE when they have gone. *ret_rev: all events up to it are in the
 * answer if fewer than max came. */
int cache_events(struct cache *c, uint64_t generation, uint64_t seq, struct event *ret, size_t max,
		 size_t *ret_n, int64_t *ret_rev);
void event_done(struct event *e);
size_t cache_objects(struct cache *c);

/* ---- watch.c ---- */
struct watches *watches_new(struct api *api);
struct watches *watches_free(struct watches *w);
void watches_changed(void *api); /* any thread: the cache has moved */
void watch_begin(struct call *c);
size_t watches_count(const struct watches *w);

/* ---- read.c (worker threads) ---- */
void run_get(struct call *c);
void run_list(struct call *c);
bool list_from_cache(struct call *c); /* loop thread: resourceVersion=0; false = use run_list */
struct filter {
	struct model_selector *labels;
	struct model_field_selector *fields;
};
int filter_init(struct call *c, struct filter *f);
void filter_done(struct filter *f);
bool filter_match(const struct filter *f, const json_t *obj);
/* A revision at which everything acknowledged before now is visible. */
int current_rev(struct call *c, int64_t *ret);
/* Everything of a kind, linearizable. */
int list_now(struct call *c, const struct model_kind *k, const char *ns, struct obj_list *ret);

/* ---- objects.c: one object in the store (worker threads) ---- */
char *object_key(const struct model_kind *k, const char *ns, const char *name); /* the whole store key */
int object_load(struct call *c, json_t **ret, int64_t *ret_rev);
int object_guess(struct call *c, json_t **ret,
		 int64_t *ret_rev); /* from the cache; -ENOENT, nothing is failed */
struct commit {
	const struct store_op *more; /* further operations in the same transaction */
	size_t n_more;
	const struct store_cmp *cmp;
	size_t n_cmp;
	int64_t lease;
};
/* Writes obj (its resourceVersion is set to the new one). expect 0 = create. -EEXIST: someone was faster, nothing is failed. */
int object_commit(struct call *c, const char *key, json_t *obj, int64_t expect, const struct commit *o);
int object_remove(struct call *c, const char *key, const json_t *obj, int64_t expect);
/* Load, change, check, write; again when someone was faster. change returns the new object or fails; *ret = what is now there. */
typedef int (*change_fn)(struct call *c, const json_t *cur, json_t **ret, void *ctx);
int object_modify(struct call *c, change_fn change, void *ctx, json_t **ret);
int object_create(struct call *c, json_t *obj, json_t **ret); /* obj borrowed, is changed */
void tidy_meta(json_t *obj);
int parse_body(struct call *c, json_t **ret);
int check_fields(struct call *c, json_t *obj);

/* ---- write.c, delete.c, subresource.c (worker threads) ---- */
void run_create(struct call *c);
void run_update(struct call *c);
void run_patch(struct call *c);
void run_delete(struct call *c);
void run_deletecollection(struct call *c);
void run_binding(struct call *c);
void run_eviction(struct call *c);
void run_scale(struct call *c);
int prepare_update(struct call *c, const json_t *cur, json_t *obj);
struct delete_options {
	int64_t grace_s; /* -1 = the object's own */
	const char *propagation, *uid, *rv;
	json_t *body;
};
int delete_options_parse(struct call *c, struct delete_options *o);
int delete_one(struct call *c, const struct delete_options *o, json_t **ret, bool *ret_gone);

/* ---- strategy.c: what kinds want beyond the schema ---- */
void strategy_create(struct call *c, json_t *obj);
void strategy_update(struct call *c, const json_t *cur, json_t *obj);
/* An object that is never deleted. */
bool strategy_protected(const struct model_kind *k, const char *name);
int64_t strategy_grace(const struct model_kind *k, const json_t *obj, int64_t asked);

/* ---- service_alloc.c ---- */
int service_net_parse(struct api *api, struct err *e);
/* As object_commit, for a Service: with an address and node ports of its own (or those it asks for), given back and taken in the same
 * transaction. cur NULL = it is created. */
int service_commit(struct call *c, const char *key, const json_t *cur, json_t *svc, int64_t expect);
/* Deletions of what svc holds; their keys are the caller's to free. Returns how many. */
#define SERVICE_HOLDS_MAX 31
size_t service_release(const json_t *svc, struct store_op *ops, size_t room);

/* ---- keeper.c: health of the store, default objects, own endpoint, compaction ---- */
struct keeper *keeper_new(struct api *api);
struct keeper *keeper_free(struct keeper *k);
int event_lease(struct api *api, int64_t *ret, struct err *e);

/* ---- namespaces.c (keeper thread) ---- */
void namespaces_end(struct api *api);

/* ---- reviews.c (loop thread) ---- */
bool reviews(struct call *c, const char *path); /* true = it was one, and is answered */

/* ---- logs.c (loop thread) ---- */
void log_begin(struct call *c);

/* ---- metrics.c ---- */
struct metrics *metrics_new(void);
struct metrics *metrics_free(struct metrics *m);
void metrics_count(struct metrics *m, const struct call *c, int code, uint64_t us);
void metrics_reply(struct api *api, struct http_req *r);
const char *verb_name(enum verb v);
