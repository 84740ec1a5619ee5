/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the etcd store share: etcd.c (calls and failover), etcd_txn.c (transactions done once), etcd_feed.c
 * (watches), etcd_msg.c (messages to and from our own types). */
#pragma once

#include "etcd.pb-c.h"
#include "net/grpc.h"
#include "store/internal.h"

#define ETCD_ENDPOINTS_MAX 16
#define ETCD_TRY_MS	   600 /* one call at one endpoint; doubles after each round through all */
#define ETCD_MARKERS	   "\x01kuayu/txn/"
#define ETCD_SLOTS	   64 /* transactions at once */

struct etcd_endpoint {
	char *address; /* host:port */
	struct rpc_channel *ch;
	uint64_t failed_ms; /* 0 = up */
};

/* A key of the store's own that a transaction writes beside its operations. */
struct etcd_slot {
	bool busy;
	unsigned number;
	int64_t mod_rev; /* its revision as last known; 0 = not there */
};

struct etcd {
	struct store store;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a slot is free, or the store closes */
	bool closing;
	struct etcd_endpoint ep[ETCD_ENDPOINTS_MAX];
	size_t n_ep;
	pthread_t minder; /* brings failed endpoints back */
	bool minder_runs;
	pthread_t feed;
	bool feed_runs;
	int feed_ep;			/* the feed's endpoint, -1 = none */
	struct rpc_stream *feed_stream; /* with it; closing cancels it */
	bool went_back;			/* the newest revision is lower than one that the feed has seen */

	char instance[17]; /* part of our markers' names */
	uint64_t txns;	   /* numbers our transactions */
	unsigned slots_made;
	struct etcd_slot slots[ETCD_SLOTS];
};

static inline struct etcd *etcd_of(struct store *s)
{
	return container_of(s, struct etcd, store);
}

/* ---- etcd.c ---- */
/* The best endpoint: the first that is up, else the one that failed longest ago. */
size_t etcd_pick(struct etcd *c);
void etcd_failed(struct etcd *c, size_t ep, const char *why);
/* Is it marked, and (ret_other) is another one up? */
bool etcd_has_failed(struct etcd *c, size_t ep, bool *ret_other);
bool etcd_closing(struct etcd *c);
/* Sleeps, but not longer than until the store closes. */
void etcd_sleep(struct etcd *c, int64_t ms);
/* One try at the next endpoint. -EAGAIN: another try may help, the outcome is unknown; the endpoint is marked. */
int etcd_try(struct etcd *c, const char *method, const ProtobufCMessage *req,
	     const ProtobufCMessageDescriptor *type, uint64_t deadline_ms, unsigned tries,
	     ProtobufCMessage **ret, struct err *e);
/* Tries until the deadline: for calls that may be done twice. */
int etcd_call(struct etcd *c, const char *method, const ProtobufCMessage *req,
	      const ProtobufCMessageDescriptor *type, uint64_t deadline_ms, ProtobufCMessage **ret,
	      struct err *e);
uint64_t etcd_deadline(struct etcd *c);
/* The newest revision, linearizable. */
int etcd_revision(struct etcd *c, int64_t *ret, struct err *e);

/* ---- etcd_txn.c ---- */
int etcd_txn(struct store *s, const struct store_cmp *cmp, size_t n_cmp, const struct store_op *ops,
	     size_t n_ops, int64_t *ret_rev, struct err *e);
/* Deletes the markers that nobody has written since rev. */
void etcd_markers_clean(struct etcd *c, int64_t rev);

/* ---- etcd_feed.c ---- */
void *etcd_feed_thread(void *c);
int etcd_history(void *ctx, const char *prefix, int64_t from, int64_t to, const bool *stop,
		 struct hub_events *out, int64_t *ret_next);

/* ---- etcd_msg.c ---- */
static inline ProtobufCBinaryData etcd_bytes(const char *s)
{
	return (ProtobufCBinaryData){.data = (uint8_t *)(s ? s : ""), .len = s ? strlen(s) : 0};
}

/* "https://a:2379,https://b:2379" -> addresses. At most ETCD_ENDPOINTS_MAX; *ret_tls from the schemes, which must agree. */
int etcd_parse_uri(const char *text, char ***ret, bool *ret_tls, struct err *e);
/* Packs any message; malloc'ed. */
void *etcd_pack(const ProtobufCMessage *m, size_t *ret_len);
/* false: the key is not one of ours (it holds a zero byte). */
bool etcd_kv_to(const Etcd__KeyValue *from, struct store_kv *to);
/* Appends what the callers may see of the events [*at, ...) of one revision, and moves *at behind them. Returns the
 * revision, or -EBADMSG. Keys must start with prefix. */
int64_t etcd_events_to(const Etcd__WatchResponse *m, size_t *at, const char *prefix, struct hub_events *out);
