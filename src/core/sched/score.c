/* SPDX-License-Identifier: Apache-2.0 */
/* Scores. First what the pod's author prefers (node affinity, PreferNoSchedule taints, pod affinity, soft spread: weights as in
 * kube-scheduler, they come before the rest), then the policy: what is good for the cluster.
 *
 * The built-in policy adds three parts, each 0..100:
 *  spread    replicas of one owner in different zones, then on different nodes: a failure takes as few as possible;
 *  balance   cpu and memory used in the same proportion;
 *  scarcity  for each kind of pod that runs here (up to 16 kinds): its share of the pods times the copies of it that could no
 *            longer be placed on this node, as a part of all copies that the cluster could still take. */
#include "core/sched/internal.h"

void sched_add_scaled(struct sched_state *s, double weight, bool reverse)
{
	int64_t lo = INT64_MAX, hi = INT64_MIN;

	for (size_t i = 0; i < s->n_nodes; i++)
		if (s->feasible[i]) {
			lo = MIN(lo, s->sum[i]);
			hi = MAX(hi, s->sum[i]);
		}
	for (size_t i = 0; i < s->n_nodes && hi > lo; i++)
		if (s->feasible[i]) {
			double x = (double)(s->sum[i] - lo) / (double)(hi - lo);

			s->score[i] += 100 * weight * (reverse ? 1 - x : x);
		}
}

static void prefer_nodes(struct sched_state *s, const struct sched_pod *p)
{
	for (size_t i = 0; i < s->n_nodes; i++) {
		s->sum[i] = 0;
		for (size_t k = 0; k < p->n_node_preferred; k++)
			if (sched_node_term_match(&p->node_preferred[k], s->nodes[i]))
				s->sum[i] += p->node_preferred[k].weight;
	}
	sched_add_scaled(s, 2, false);
}

static void prefer_untainted(struct sched_state *s, const struct sched_pod *p)
{
	for (size_t i = 0; i < s->n_nodes; i++)
		s->sum[i] = sched_untolerated(p, s->nodes[i], true) != NULL;
	sched_add_scaled(s, 3, true);
}

void sched_prefer(struct sched_state *s, const struct sched_pod *p)
{
	if (p->n_node_preferred)
		prefer_nodes(s, p);
	prefer_untainted(s, p);
	sched_prefer_pods(s, p);
	sched_prefer_spread(s, p);
}

static double part_of(int64_t used, int64_t all)
{
	return all > 0 ? CLAMP((double)used / (double)all, 0.0, 1.0) : 1;
}

static double balance(const struct sched_node *n, const struct sched_pod *p)
{
	double cpu = part_of(n->used.cpu + p->request.cpu, n->allocatable.cpu);
	double memory = part_of(n->used.memory + p->request.memory, n->allocatable.memory);

	return 100 * (1 - (cpu > memory ? cpu - memory : memory - cpu));
}

/* How many more pods of this kind fit. */
static int64_t copies(const struct sched_node *n, const struct shape *h, const struct sched_pod *with)
{
	int64_t cpu = n->allocatable.cpu - n->used.cpu - (with ? with->request.cpu : 0);
	int64_t memory = n->allocatable.memory - n->used.memory - (with ? with->request.memory : 0);
	int64_t k = n->allocatable.pods - n->used.pods - (with ? 1 : 0);

	if (h->cpu > 0)
		k = MIN(k, cpu / h->cpu);
	if (h->memory > 0)
		k = MIN(k, memory / h->memory);
	return MAX(k, 0);
}

static void scarcity(struct sched_state *s, const struct sched_pod *p, const bool *feasible, double *cost)
{
	size_t all = 0;

	memset(cost, 0, s->n_nodes * sizeof(cost[0]));
	for (size_t k = 0; k < SHAPES_MAX; k++)
		all += s->shapes[k].count;
	for (size_t k = 0; k < SHAPES_MAX; k++) {
		const struct shape *h = &s->shapes[k];
		int64_t left = 0;

		if (!h->count || (!h->cpu && !h->memory))
			continue;
		for (size_t i = 0; i < s->n_nodes; i++)
			if (!s->nodes[i]->unschedulable)
				left += copies(s->nodes[i], h, NULL);
		for (size_t i = 0; i < s->n_nodes && left > 0; i++)
			if (feasible[i])
				cost[i] +=
					(double)h->count / (double)all *
					(double)(copies(s->nodes[i], h, NULL) - copies(s->nodes[i], h, p)) /
					(double)left;
	}
}

/* Replicas of the same owner on the node, or in its zone. */
static int64_t siblings(const struct sched_state *s, const struct sched_pod *p, size_t node, bool zone)
{
	int64_t count = 0;

	for (size_t i = 0; i < s->n_nodes; i++) {
		const struct sched_node *n = s->nodes[i];

		if (i != node && !(zone && n->zone.h && sched_same(n->zone, s->nodes[node]->zone)))
			continue;
		for (size_t k = 0; k < n->n_pods; k++)
			count += !n->pods[k]->terminating && sched_same(n->pods[k]->owner, p->owner);
	}
	return count;
}

static void spread(struct sched_state *s, const struct sched_pod *p, const bool *feasible, bool zone,
		   double weight, double *ret)
{
	int64_t most = 0;

	for (size_t i = 0; i < s->n_nodes; i++)
		if (feasible[i])
			most = MAX(most, s->sum[i] = siblings(s, p, i, zone));
	for (size_t i = 0; i < s->n_nodes && most > 0; i++)
		if (feasible[i])
			ret[i] += 100 * weight * (1 - (double)s->sum[i] / (double)most);
}

static void score_default(void *ctx, struct sched_state *s, const struct sched_pod *p, const bool *feasible,
			  double *ret)
{
	double worst = 0;

	(void)ctx;
	scarcity(s, p, feasible, ret);
	for (size_t i = 0; i < s->n_nodes; i++)
		worst = MAX(worst, ret[i]);
	for (size_t i = 0; i < s->n_nodes; i++) {
		double scarce = worst > 0 ? 1 - ret[i] / worst : 0;

		ret[i] = feasible[i] ? 15 * scarce + 0.15 * balance(s->nodes[i], p) : 0;
	}
	if (p->owner.h) {
		spread(s, p, feasible, true, 0.45, ret);
		spread(s, p, feasible, false, 0.25, ret);
	}
}

const struct sched_policy sched_policy_default = {"default", NULL, score_default};
