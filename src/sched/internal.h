/* SPDX-License-Identifier: Apache-2.0 */
/* `kuayu scheduler`: what its files share. One loop thread. */
#pragma once

#include "kube/kube.h"
#include "net/http_server.h"
#include "sched/load.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS	 3000
#define BATCH_MAX	 64    /* decisions before the loop gets its turn */
#define FLUSH_MS	 10000 /* everything that waits is tried again at least so often */
#define HISTOGRAM_MAX	 14

/* Prometheus histogram in seconds. */
struct histogram {
	uint64_t count, bucket[HISTOGRAM_MAX];
	double sum;
};

extern const double sched_histogram_bounds[HISTOGRAM_MAX];

struct metrics {
	struct histogram bound;	   /* pod first seen -> its binding accepted */
	struct histogram decision; /* one run of the algorithm */
	uint64_t scheduled, unschedulable, bind_errors;
};

void sched_histogram_add(struct histogram *h, double seconds);
/* In Prometheus' text form. */
void sched_metrics(const struct metrics *m, bool leader, size_t pending, size_t nodes, size_t pods,
		   struct buf *out);

/* A pod without a node. */
struct pending {
	char *key; /* "ns/name" */
	json_t *pod;
	struct sched_pod *compiled; /* NULL while it is assumed: the state has it then */
	uint64_t seen_us, not_before_ms;
	unsigned attempts;
	bool waiting; /* found unschedulable: only a change or the flush tries it again */
	bool binding;
	bool telling; /* its condition is being written: no decision meanwhile, so that writes keep their order */
	char *message; /* last reason told */
};

/* The same at this path in both objects, or in neither. */
bool sched_same_json(const json_t *a, const json_t *b, const char *path);

struct pending *sched_pending_new(const char *key, json_t *pod);
void sched_pending_free(void *p);
/* Another version of the same pod. */
void sched_pending_update(struct pending *p, json_t *pod);
/* 100 ms, doubled an attempt, at most 3 s. */
uint64_t sched_pending_backoff_ms(unsigned attempts);
/* Higher priority first, then who came first. */
int sched_pending_compare(const void *a, const void *b);

struct settings {
	struct kube_settings kube;
	char *identity, *name;
	int64_t port;
	bool reserve, elect;
};

struct scheduler {
	uv_loop_t *loop;
	struct settings s;
	struct kube *kube;
	struct kube_cache *nodes, *pods, *namespaces, *claims, *classes;
	struct kube_leader *leader;
	struct http_server *http;
	struct sched_state *state;
	struct strmap *queue; /* key -> struct pending */
	struct timer *run, *flush;
	uint64_t run_at_ms; /* when `run` fires; 0 = it is not set */
	struct metrics metrics;
	bool leading;
	const struct model_kind *pod_kind;
};

/* ---- watch.c: caches -> state and queue ---- */
void sched_watch(struct scheduler *s);
bool sched_synced(const struct scheduler *s);
void sched_unwatch(struct scheduler *s);
/* Something has changed that may give a waiting pod a place. */
void sched_queue_wake(struct scheduler *s);
/* Runs the queue soon. */
void sched_queue_kick(struct scheduler *s, uint64_t after_ms);

/* ---- claims.c: the PersistentVolumeClaims of a pod ---- */
enum sched_claims {
	CLAIMS_READY,  /* none, or all are bound: volumes are the same on every node here */
	CLAIMS_WAIT,   /* text says for what */
	CLAIMS_CHOOSE, /* some want a node before they are made */
};
enum sched_claims sched_claims_look(const struct scheduler *s, const json_t *pod, struct buf *text);
void sched_claims_choose(struct scheduler *s, const json_t *pod, const char *node);
/* Has a claim or class changed so that a waiting pod may go? */
bool sched_claim_matters(const json_t *old, const json_t *now);

/* ---- schedule.c: queue -> bindings, conditions, events ---- */
void sched_run(void *scheduler);
/* No longer the leader: what was assumed and not confirmed is forgotten. */
void sched_forget(struct scheduler *s);
