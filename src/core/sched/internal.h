/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of core/sched share: the state's inside and the steps of a decision. */
#pragma once

#include "core/sched/sched.h"

#define SHAPES_MAX 16 /* kinds of pods (request of cpu and memory) that the scarcity score knows */

struct shape {
	int64_t cpu, memory;
	size_t count; /* 0 = free slot */
};

/* Nodes grouped by the value of one label. domain[i] is the group of node i, -1 without the label. */
struct topology {
	size_t n_domains;
	int32_t *domain;
	int64_t *count; /* a number for each domain */
};

struct sched_state {
	size_t n_nodes, cap_nodes, n_pods, cap_pods;
	struct sched_node **nodes;
	struct sched_pod **pods;
	struct strmap *node_by_name, *pod_by_name, *namespaces;
	struct shape shapes[SHAPES_MAX];
	/* scratch: sized for cap_nodes */
	size_t cap_scratch;
	struct sched_verdict *verdicts;
	bool *feasible, *eligible, *seen;
	double *score, *part;
	int64_t *sum;
	struct sched_amount *room;
	const struct sched_pod **moving;
	size_t cap_moving;
	uint32_t *hash_slots;
	size_t n_hash_slots;
	struct topology *topo; /* one a constraint or term */
	size_t n_topo;
};

struct sched_namespace {
	struct sched_arena mem;
	struct sched_labels labels;
};

void sched_arena_done(struct sched_arena *a);
void sched_scratch_fit(struct sched_state *s);
/* The i-th scratch topology over `key`, counts 0. */
struct topology *sched_topology(struct sched_state *s, size_t i, struct sched_sym key);

void sched_amount_add(struct sched_amount *a, const struct sched_amount *b, int sign);
unsigned sched_lacks(const struct sched_amount *allocatable, const struct sched_amount *used,
		     const struct sched_amount *request);

const struct sched_taint *sched_untolerated(const struct sched_pod *p, const struct sched_node *n,
					    bool prefer_only);
bool sched_node_affinity_ok(const struct sched_pod *p, const struct sched_node *n);
bool sched_node_term_match(const struct sched_node_term *t, const struct sched_node *n);
bool sched_pod_term_match(const struct sched_state *s, const struct sched_pod_term *t,
			  struct sched_sym own_ns, const struct sched_pod *other);

/* Filters: write the first refusal into s->verdicts[] of nodes that fit so far. */
void sched_filter_nodes(struct sched_state *s, const struct sched_pod *p);
void sched_filter_spread(struct sched_state *s, const struct sched_pod *p);
void sched_filter_pods(struct sched_state *s, const struct sched_pod *p);

/* Adds what the pod's own preferences say to s->score[] of feasible nodes. */
void sched_prefer(struct sched_state *s, const struct sched_pod *p);
void sched_prefer_pods(struct sched_state *s, const struct sched_pod *p);
void sched_prefer_spread(struct sched_state *s, const struct sched_pod *p);
/* Scales s->sum[] of feasible nodes to 0..100 (reverse: the smallest is best), times weight, into s->score[]. */
void sched_add_scaled(struct sched_state *s, double weight, bool reverse);

/* Would one more failure leave critical pods without a place if p went to node n? Fills v then. */
bool sched_reserve_breaks(struct sched_state *s, const struct sched_pod *p, const struct sched_node *n,
			  struct sched_verdict *v);
