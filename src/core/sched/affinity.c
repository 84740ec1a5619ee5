/* SPDX-License-Identifier: Apache-2.0 */
/* Affinity and anti-affinity between pods, required (filter) and preferred (score), with the symmetry of kube-scheduler: a required
 * anti-affinity of a pod that runs keeps matching newcomers out of its domain, and the preferences of running pods count
 * for newcomers too. */
#include "core/sched/internal.h"

#define HARD_AFFINITY_WEIGHT 1 /* what a running pod's required affinity adds for a newcomer it matches */

bool sched_pod_term_match(const struct sched_state *s, const struct sched_pod_term *t,
			  struct sched_sym own_ns, const struct sched_pod *other)
{
	bool in_ns = false;

	if (t->n_namespaces == 0 && t->namespace_selector.none)
		in_ns = sched_same(own_ns, other->ns);
	for (size_t i = 0; i < t->n_namespaces && !in_ns; i++)
		in_ns = sched_same(t->namespaces[i], other->ns);
	if (!in_ns && !t->namespace_selector.none) {
		const struct sched_namespace *ns = strmap_get(s->namespaces, other->ns.s);
		static const struct sched_labels nothing;

		in_ns = sched_match(&t->namespace_selector, ns ? &ns->labels : &nothing);
	}
	return in_ns && sched_match(&t->selector, &other->labels);
}

static bool matches_all(const struct sched_state *s, const struct sched_pod_terms *terms,
			const struct sched_pod *owner, const struct sched_pod *other)
{
	for (size_t i = 0; i < terms->n; i++)
		if (!sched_pod_term_match(s, &terms->v[i], owner->ns, other))
			return false;
	return terms->n > 0;
}

static void refuse(struct sched_state *s, size_t node, enum sched_why why)
{
	if (s->verdicts[node].why == SCHED_FITS)
		s->verdicts[node].why = why;
}

/* Every term needs a pod in its domain that matches all terms. The first pod of a group that wants to be together
 * has none: it may go anywhere where the keys exist. */
static void filter_affinity(struct sched_state *s, const struct sched_pod *p)
{
	int64_t total = 0;
	bool first;

	for (size_t k = 0; k < p->affinity.n; k++) {
		struct topology *t = sched_topology(s, k, p->affinity.v[k].topology_key);

		for (size_t i = 0; i < s->n_nodes; i++)
			for (size_t j = 0; t->domain[i] >= 0 && j < s->nodes[i]->n_pods; j++)
				if (matches_all(s, &p->affinity, p, s->nodes[i]->pods[j])) {
					t->count[t->domain[i]]++;
					total++;
				}
	}
	first = total == 0 && matches_all(s, &p->affinity, p, p);
	for (size_t i = 0; i < s->n_nodes; i++)
		for (size_t k = 0; k < p->affinity.n; k++) {
			const struct topology *t = &s->topo[k];

			if (t->domain[i] < 0 || (!first && t->count[t->domain[i]] == 0))
				refuse(s, i, SCHED_POD_AFFINITY);
		}
}

static void filter_anti(struct sched_state *s, const struct sched_pod *p)
{
	for (size_t k = 0; k < p->anti.n; k++) {
		struct topology *t = sched_topology(s, 0, p->anti.v[k].topology_key);

		for (size_t i = 0; i < s->n_nodes; i++)
			for (size_t j = 0; t->domain[i] >= 0 && j < s->nodes[i]->n_pods; j++)
				t->count[t->domain[i]] +=
					sched_pod_term_match(s, &p->anti.v[k], p->ns, s->nodes[i]->pods[j]);
		for (size_t i = 0; i < s->n_nodes; i++)
			if (t->domain[i] >= 0 && t->count[t->domain[i]] > 0)
				refuse(s, i, SCHED_POD_ANTI_AFFINITY);
	}
}

/* Does something to every node in the same domain as `home`. */
static void each_in_domain(struct sched_state *s, const struct sched_node *home, struct sched_sym key,
			   void (*fn)(struct sched_state *s, size_t node, int64_t arg), int64_t arg)
{
	struct sched_sym value = sched_label_get(&home->labels, key);

	for (size_t i = 0; value.h && i < s->n_nodes; i++)
		if (sched_same(sched_label_get(&s->nodes[i]->labels, key), value))
			fn(s, i, arg);
}

static void refuse_others(struct sched_state *s, size_t node, int64_t arg)
{
	refuse(s, node, (enum sched_why)arg);
}

static void filter_others_anti(struct sched_state *s, const struct sched_pod *p)
{
	for (size_t i = 0; i < s->n_pods; i++) {
		const struct sched_pod *other = s->pods[i];

		for (size_t k = 0; other->node && k < other->anti.n; k++)
			if (sched_pod_term_match(s, &other->anti.v[k], other->ns, p))
				each_in_domain(s, other->node, other->anti.v[k].topology_key, refuse_others,
					       SCHED_OTHERS_ANTI_AFFINITY);
	}
}

void sched_filter_pods(struct sched_state *s, const struct sched_pod *p)
{
	if (p->affinity.n)
		filter_affinity(s, p);
	filter_anti(s, p);
	filter_others_anti(s, p);
}

static void add(struct sched_state *s, size_t node, int64_t arg)
{
	s->sum[node] += arg;
}

/* Terms of `owner` that match `other`: the domain of `home` gains their weights times sign (weight 0 = HARD_AFFINITY_WEIGHT). */
static bool add_terms(struct sched_state *s, const struct sched_pod_terms *terms,
		      const struct sched_pod *owner, const struct sched_pod *other,
		      const struct sched_node *home, int sign)
{
	bool any = false;

	for (size_t k = 0; k < terms->n; k++) {
		const struct sched_pod_term *t = &terms->v[k];

		if (!sched_pod_term_match(s, t, owner->ns, other))
			continue;
		any = true;
		each_in_domain(s, home, t->topology_key, add,
			       sign * (t->weight ? t->weight : HARD_AFFINITY_WEIGHT));
	}
	return any;
}

void sched_prefer_pods(struct sched_state *s, const struct sched_pod *p)
{
	bool any = false;

	memset(s->sum, 0, s->n_nodes * sizeof(s->sum[0]));
	for (size_t i = 0; i < s->n_pods; i++) {
		const struct sched_pod *other = s->pods[i];
		const struct sched_node *home = other->node;

		if (!home)
			continue;
		any |= add_terms(s, &p->affinity_preferred, p, other, home, 1);
		any |= add_terms(s, &p->anti_preferred, p, other, home, -1);
		any |= add_terms(s, &other->affinity_preferred, other, p, home, 1);
		any |= add_terms(s, &other->anti_preferred, other, p, home, -1);
		any |= add_terms(s, &other->affinity, other, p, home, 1);
	}
	if (any)
		sched_add_scaled(s, 2, false);
}
