/* SPDX-License-Identifier: Apache-2.0 */
/* topologySpreadConstraints: DoNotSchedule as a filter, ScheduleAnyway as a preference. A domain is one value of the topology
 * key; the skew a placement would make is (matching pods in the domain, with the new one) - (the fewest in any eligible domain).
 * Eligible are nodes that have all the keys and, by nodeAffinityPolicy and nodeTaintsPolicy, that the pod could use. */
#include <math.h>

#include "core/sched/internal.h"

static bool eligible(const struct sched_pod *p, const struct sched_spread *c, const struct sched_node *n,
		     bool hard)
{
	for (size_t i = 0; i < p->n_spread; i++)
		if (p->spread[i].hard == hard && !sched_label_get(&n->labels, p->spread[i].topology_key).h)
			return false;
	if (!c->ignore_affinity && !sched_node_affinity_ok(p, n))
		return false;
	return !c->honor_taints || !sched_untolerated(p, n, false);
}

static int64_t matching_pods(const struct sched_pod *p, const struct sched_spread *c,
			     const struct sched_node *n)
{
	int64_t count = 0;

	for (size_t i = 0; i < n->n_pods; i++) {
		const struct sched_pod *other = n->pods[i];

		count += !other->terminating && sched_same(other->ns, p->ns) &&
			 sched_match(&c->selector, &other->labels);
	}
	return count;
}

/* Counts by domain over the eligible nodes (s->eligible[] and s->seen[] tell which); *ret_domains = how many of them. */
static struct topology *count_domains(struct sched_state *s, const struct sched_pod *p,
				      const struct sched_spread *c, size_t *ret_domains)
{
	struct topology *t = sched_topology(s, 0, c->topology_key);

	*ret_domains = 0;
	memset(s->seen, 0, t->n_domains * sizeof(s->seen[0]));
	for (size_t i = 0; i < s->n_nodes; i++) {
		s->eligible[i] = t->domain[i] >= 0 && eligible(p, c, s->nodes[i], c->hard);
		if (!s->eligible[i])
			continue;
		t->count[t->domain[i]] += matching_pods(p, c, s->nodes[i]);
		*ret_domains += !s->seen[t->domain[i]];
		s->seen[t->domain[i]] = true;
	}
	return t;
}

static void filter_one(struct sched_state *s, const struct sched_pod *p, const struct sched_spread *c)
{
	int64_t least = INT64_MAX, self = sched_match(&c->selector, &p->labels);
	size_t n_domains;
	struct topology *t = count_domains(s, p, c, &n_domains);

	for (size_t d = 0; d < t->n_domains; d++)
		if (s->seen[d])
			least = MIN(least, t->count[d]);
	if (n_domains == 0 || n_domains < (size_t)c->min_domains)
		least = 0;
	for (size_t i = 0; i < s->n_nodes; i++) {
		struct sched_verdict *v = &s->verdicts[i];

		if (v->why != SCHED_FITS)
			continue;
		if (t->domain[i] < 0)
			v->why = SCHED_SPREAD_LABEL;
		else if (t->count[t->domain[i]] + self - least > c->max_skew)
			v->why = SCHED_SPREAD;
	}
}

void sched_filter_spread(struct sched_state *s, const struct sched_pod *p)
{
	for (size_t i = 0; i < p->n_spread; i++)
		if (p->spread[i].hard)
			filter_one(s, p, &p->spread[i]);
}

/* As kube-scheduler: a constraint with many domains weighs more, by log(domains + 2); nodes without the key get nothing. */
void sched_prefer_spread(struct sched_state *s, const struct sched_pod *p)
{
	bool any = false;

	memset(s->sum, 0, s->n_nodes * sizeof(s->sum[0]));
	for (size_t k = 0; k < p->n_spread; k++) {
		const struct sched_spread *c = &p->spread[k];
		struct topology *t;
		size_t n_domains;

		if (c->hard)
			continue;
		any = true;
		t = count_domains(s, p, c, &n_domains);
		for (size_t i = 0; i < s->n_nodes; i++) {
			double cost = t->domain[i] < 0
					      ? 1e6
					      : (double)t->count[t->domain[i]] * log((double)n_domains + 2);

			s->sum[i] += (int64_t)(cost * 1000);
		}
	}
	if (any)
		sched_add_scaled(s, 2, true);
}
