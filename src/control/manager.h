/* SPDX-License-Identifier: Apache-2.0 */
/* manager: caches, world, work queue and the carrying out of plans. */
#pragma once

#include "control/reconcile.h"
#include "kube/kube.h"

enum controller {
	C_NODE, /* the order in which due work is done */
	C_ENDPOINTS,
	C_REPLICASET,
	C_STATEFULSET,
	C_DEPLOYMENT,
	C_PODCIDR,
	C_GC,
	C_PODGC,
	C_CLAIM,
	C_VOLUME,
	CONTROLLERS,
};

struct nodes;
struct provision;

struct manager {
	uv_loop_t *loop;
	struct kube *kube;
	struct world *world;
	struct kube_cache *caches[KINDS];
	struct kube_leader *leader;
	struct nodes *nodes;
	struct provision *provision;
	const char *pod_cidr;
	struct strmap *queue[CONTROLLERS]; /* "ns/name" -> struct item */
	struct timer *timer;
	uint64_t due_ms; /* when the timer fires; UINT64_MAX = not set */
	bool leading;
	int unsynced;	    /* caches that have to be listed before work starts */
	struct timer *poll; /* pod garbage, every few seconds */
	bool closing;
	/* for /metrics */
	uint64_t reconciles[CONTROLLERS], writes, conflicts, failures, terms;
	uint64_t longest_us;
};

struct manager *manager_new(uv_loop_t *loop, struct kube *k, const char *identity, const char *pod_cidr);
/* CSI drivers that make volumes for claims: "unix:///..."; once, before the loop runs. */
int manager_csi(struct manager *m, char *const *endpoints, struct err *e);
struct manager *manager_free(struct manager *m); /* accepts NULL; gives the leadership up */
/* Work on this object in delay_ms, or earlier when it waits already. Ignored while not leading. */
void manager_enqueue(struct manager *m, enum controller c, const char *ns, const char *name,
		     uint64_t delay_ms);
const char *controller_name(enum controller c);
/* Leading, with all caches listed since then. */
bool manager_ready(const struct manager *m);
size_t manager_waiting(const struct manager *m);

/* ---- triggers.c: which work a change makes ---- */
void triggers_changed(struct manager *m, enum kind kind, json_t *old, json_t *obj);
void triggers_all(struct manager *m);
/* All claims and volumes: a provisioner has appeared. */
void triggers_storage(struct manager *m);

/* ---- nodes.c ---- */
struct nodes *nodes_new(struct manager *m);
struct nodes *nodes_free(struct nodes *n);
void nodes_changed(struct nodes *n, enum kind kind, json_t *old, json_t *obj);
void nodes_leading(struct nodes *n); /* all caches are fresh: verdicts start from what the node objects say */
void nodes_reconcile(struct nodes *n, const char *name, struct plan *p);
void nodes_metrics(struct nodes *n, struct buf *out);

/* ---- metrics.c ---- */
struct http_server *metrics_serve(struct manager *m, const char *address, int port, struct err *e);
