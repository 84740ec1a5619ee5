/* SPDX-License-Identifier: Apache-2.0 */
/* kube: client of the Kubernetes REST API, the only interface between roles. Works against `kuayu api` and a stock Kubernetes.
 * Loop thread only. Several servers: the first that answers is used, the next one after a connection error, time-out or 503. */
#pragma once

#include "io/io.h"
#include "model/model.h"

struct kube;
struct kube_cache;
struct kube_leader;

/* Settings every client role has: put KUBE_SETTINGS(struct my_settings, kube) into its table. */
struct kube_settings {
	char **servers;	  /* https://host:6443, the local one first */
	char *kubeconfig; /* current context is used; servers above win over its server */
	char *ca_file, *cert_file, *key_file, *token_file;
};
#define KUBE_SETTINGS(type, member)                                                                  \
	{"server", SETTING_STRINGS, offsetof(type, member.servers), NULL, 0,                         \
	 0,	   "URL,...",	    "API servers, nearest first"},                                   \
		{"kubeconfig", SETTING_STRING,	    offsetof(type, member.kubeconfig), NULL, 0, 0,   \
		 "FILE",       "kubeconfig to read"},                                                \
		{"ca", SETTING_STRING, offsetof(type, member.ca_file),	    NULL, 0,                 \
		 0,    "FILE",	       "CA certificates of the API servers"},                        \
		{"cert", SETTING_STRING,      offsetof(type, member.cert_file), NULL, 0, 0,          \
		 "FILE", "client certificate"},                                                      \
		{"key", SETTING_STRING, offsetof(type, member.key_file), NULL, 0,                    \
		 0,	"FILE",		"client certificate's key"},                                 \
	{                                                                                            \
		"token-file", SETTING_STRING, offsetof(type, member.token_file), NULL, 0, 0, "FILE", \
			"bearer token"                                                               \
	}

/* Without any setting: $KUBECONFIG, then the in-cluster files and environment (KUBERNETES_SERVICE_HOST, service account). */
int kube_new(uv_loop_t *loop, const struct kube_settings *s, const char *user_agent, struct kube **ret,
	     struct err *e);
struct kube *
kube_free(struct kube *k); /* accepts NULL; calls on their way end without done; frees its caches */

/* status: HTTP status or negative errno. body: parsed answer (a Status object on errors), borrowed, maybe NULL. */
typedef void (*kube_done_fn)(void *ctx, int status, json_t *body);

/* All calls are asynchronous and time out after 5 s (one retry on another server inside that for reads and for writes whose
 * connection failed before anything was sent). done may be NULL. resource = plural name; ns NULL = cluster-scoped or all namespaces. */
void kube_get(struct kube *k, const struct model_kind *kind, const char *ns, const char *name,
	      kube_done_fn done, void *ctx);
void kube_list(struct kube *k, const struct model_kind *kind, const char *ns, const char *query,
	       kube_done_fn done, void *ctx);
void kube_create(struct kube *k, const struct model_kind *kind, const char *ns, const json_t *obj,
		 kube_done_fn done, void *ctx);
/* subresource NULL, "status", "scale", ... */
void kube_update(struct kube *k, const struct model_kind *kind, const char *subresource, const json_t *obj,
		 kube_done_fn done, void *ctx);
enum kube_patch { KUBE_PATCH_STRATEGIC, KUBE_PATCH_MERGE, KUBE_PATCH_JSON };
void kube_patch(struct kube *k, const struct model_kind *kind, const char *ns, const char *name,
		const char *subresource, enum kube_patch type, const json_t *patch, kube_done_fn done,
		void *ctx);
/* uid NULL = any; grace_s < 0 = the object's own; 0 = at once. */
void kube_delete(struct kube *k, const struct model_kind *kind, const char *ns, const char *name,
		 const char *uid, int64_t grace_s, kube_done_fn done, void *ctx);
/* Anything else: POST of pods/binding, pods/eviction ... path starts with '/'. */
void kube_raw(struct kube *k, const char *method, const char *path, const char *content_type,
	      const json_t *body, kube_done_fn done, void *ctx);

/* What all of the above are made of, for calls that need their own time limit. */
struct kube_request {
	const char *method, *path; /* path with query, starts with '/' */
	const char *content_type;  /* NULL = application/json when there is a body */
	const json_t *body;	   /* borrowed; NULL = none */
	int64_t timeout_ms;	   /* all attempts together; 0 = 5,000 */
	int64_t attempt_ms;	   /* one attempt; 0 = 2,000 for reads, timeout_ms for writes */
	bool again; /* a write that may be sent again although its outcome is unknown (compare-and-swap) */
	kube_done_fn done;
	void *ctx;
};
void kube_call(struct kube *k, const struct kube_request *r);
/* Forgets the calls on their way with this ctx: their done is not called (what they do at the server is not undone). */
void kube_cancel(struct kube *k, const void *ctx);
/* Path of a collection (name NULL) or an object; malloc'ed. */
char *kube_path(const struct model_kind *kind, const char *ns, const char *name, const char *subresource);
/* Milliseconds since any server last answered a call or was heard on a watch. */
uint64_t kube_silent_ms(const struct kube *k);
uv_loop_t *kube_loop(const struct kube *k);

/* Events are counted up and rate-limited: at most 10 a second; excess is dropped and counted. */
void kube_event(struct kube *k, const json_t *involved, const char *type /* Normal, Warning */,
		const char *reason, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* ---- cache: list + watch, kept true; relists on 410 and on reconnect where needed ---- */
struct kube_cache_handler {
	/* old NULL = new; obj NULL = deleted (old is the last state). Borrowed. */
	void (*changed)(void *ctx, json_t *old, json_t *obj);
	void (*synced)(void *ctx); /* first list is complete; may be NULL */
	void *ctx;
};
/* query: "labelSelector=...&fieldSelector=..." or NULL. The handler may be all NULL. */
struct kube_cache *kube_cache_new(struct kube *k, const struct model_kind *kind, const char *ns,
				  const char *query, const struct kube_cache_handler *h);
struct kube_cache *kube_cache_free(struct kube_cache *c); /* accepts NULL; not from inside its own handler */
bool kube_cache_synced(const struct kube_cache *c);
/* Milliseconds since the watch last heard from a server (event or bookmark); for "am I cut off?". */
uint64_t kube_cache_silent_ms(const struct kube_cache *c);
json_t *kube_cache_get(const struct kube_cache *c, const char *ns, const char *name); /* borrowed, NULL */
/* *pos = 0 to start. Do not change the cache while iterating (callbacks of calls come later, so issuing calls is fine). */
json_t *kube_cache_next(const struct kube_cache *c, size_t *pos);
size_t kube_cache_len(const struct kube_cache *c);
/* Lists again, from the newest state of the store, and goes on watching from there. `synced` is called again. */
void kube_cache_resync(struct kube_cache *c);
/* Puts the answer of a write in at once when it is newer than what is there, so that the next reconcile sees its own writes. */
void kube_cache_apply(struct kube_cache *c, json_t *obj);

#define kube_cache_foreach(c, obj) for (size_t _pos_##obj = 0; ((obj) = kube_cache_next((c), &_pos_##obj));)

/* ---- leader election by a coordination.k8s.io/v1 Lease ---- */
struct kube_leader_options {
	const char *ns, *name, *identity; /* copied */
	int64_t duration_ms;		  /* 0 = 3,000: others take it after 4/5 of it without a renewal */
	int64_t renew_ms;		  /* 0 = 500 */
	void (*started)(void *ctx);
	/* Called before another can have been elected: when renewal has not succeeded for 2/3 of duration by the own clock. */
	void (*stopped)(void *ctx);
	void *ctx;
};
struct kube_leader *kube_leader_new(struct kube *k, const struct kube_leader_options *o);
/* By the clock: false also when `stopped` is only about to be called. */
bool kube_leader_is(const struct kube_leader *l);
/* Gives the lease up if held. */
struct kube_leader *kube_leader_free(struct kube_leader *l);
