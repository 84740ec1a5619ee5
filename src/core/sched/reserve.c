/* SPDX-License-Identifier: Apache-2.0 */
/* Reserve for one failure: after the placement, if any one node or any one zone fails, all its critical pods must still find
 * a place on what is left. Pods that stay (critical or not) keep theirs; nothing is preempted.
 *
 * The check packs the critical pods of the failed part, largest first, each into the fullest node that takes it, looking at
 * resources, taints, selectors and node affinity. It errs on the side of refusing: a packing that exists may not be found. Pods
 * that cannot run anywhere else, and pods that never leave their node, are nobody's reserve and are left out.
 *
 * Two exceptions, so that the reserve never hurts what it is for. While some node is not ready the reserve is being
 * used: critical pods are then not refused. And a failure that could not be covered before the placement either (a reserve that is
 * already spent) does not hold back a critical pod. */
#include "core/sched/internal.h"

struct failure {
	struct sched_sym name;
	bool zone;
};

static bool fails(const struct sched_node *n, const struct failure *f)
{
	return sched_same(f->zone ? n->zone : n->name, f->name);
}

static bool can_run(const struct sched_pod *p, const struct sched_node *n)
{
	return n->ready && !n->unschedulable && !sched_untolerated(p, n, false) &&
	       sched_node_affinity_ok(p, n);
}

static double size_of(const struct sched_pod *p, const struct sched_amount *all)
{
	double cpu = all->cpu > 0 ? (double)p->request.cpu / (double)all->cpu : 0;
	double memory = all->memory > 0 ? (double)p->request.memory / (double)all->memory : 0;

	return MAX(cpu, memory);
}

static bool has_other_home(const struct sched_state *s, const struct sched_pod *p, const struct failure *f)
{
	for (size_t i = 0; i < s->n_nodes; i++)
		if (!fails(s->nodes[i], f) && can_run(p, s->nodes[i]))
			return true;
	return false;
}

/* Fills s->moving with the critical pods of the failed part, largest first. */
static size_t collect(struct sched_state *s, const struct sched_pod *p, const struct sched_node *at,
		      const struct failure *f)
{
	struct sched_amount all = {0};
	size_t n = 0;

	for (size_t i = 0; i < s->n_nodes; i++) {
		all.cpu += s->nodes[i]->allocatable.cpu;
		all.memory += s->nodes[i]->allocatable.memory;
		for (size_t k = 0; fails(s->nodes[i], f) && k < s->nodes[i]->n_pods; k++)
			s->moving[n++] = s->nodes[i]->pods[k];
	}
	if (at && fails(at, f))
		s->moving[n++] = p;
	for (size_t i = 0; i < n;) {
		const struct sched_pod *c = s->moving[i];

		if (c->critical && !c->bound && !c->terminating && has_other_home(s, c, f))
			i++;
		else
			s->moving[i] = s->moving[--n];
	}
	for (size_t i = 1; i < n; i++) {
		const struct sched_pod *c = s->moving[i];
		size_t k = i;

		for (; k > 0 && size_of(s->moving[k - 1], &all) < size_of(c, &all); k--)
			s->moving[k] = s->moving[k - 1];
		s->moving[k] = c;
	}
	return n;
}

/* Puts c into the fullest node that takes it; room[] is what is in use. */
static bool place(struct sched_state *s, const struct sched_pod *c, const struct failure *f)
{
	size_t best = SIZE_MAX;
	double fullest = -1;

	for (size_t i = 0; i < s->n_nodes; i++) {
		const struct sched_node *n = s->nodes[i];
		double full;

		if (fails(n, f) || !can_run(c, n) || sched_lacks(&n->allocatable, &s->room[i], &c->request))
			continue;
		full = n->allocatable.cpu > 0 ? (double)s->room[i].cpu / (double)n->allocatable.cpu : 0;
		full += n->allocatable.memory > 0 ? (double)s->room[i].memory / (double)n->allocatable.memory
						  : 0;
		if (full > fullest) {
			fullest = full;
			best = i;
		}
	}
	if (best == SIZE_MAX)
		return false;
	sched_amount_add(&s->room[best], &c->request, 1);
	return true;
}

/* The critical pod that finds no place when f fails; at = where p is put, NULL = before it is placed. */
static const struct sched_pod *uncovered(struct sched_state *s, const struct sched_pod *p,
					 const struct sched_node *at, const struct failure *f)
{
	size_t n = collect(s, p, at, f);

	for (size_t i = 0; i < s->n_nodes; i++)
		s->room[i] = s->nodes[i]->used;
	if (at)
		sched_amount_add(&s->room[at->index], &p->request, 1);
	for (size_t i = 0; i < n; i++)
		if (!place(s, s->moving[i], f))
			return s->moving[i];
	return NULL;
}

static bool zone_seen(const struct sched_state *s, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (sched_same(s->nodes[k]->zone, s->nodes[i]->zone))
			return true;
	return false;
}

bool sched_reserve_breaks(struct sched_state *s, const struct sched_pod *p, const struct sched_node *n,
			  struct sched_verdict *v)
{
	for (size_t i = 0; p->critical && i < s->n_nodes; i++)
		if (!s->nodes[i]->ready)
			return false;
	for (size_t i = 0; i < 2 * s->n_nodes; i++) {
		const struct sched_node *at = s->nodes[i / 2];
		struct failure f = {i % 2 ? at->zone : at->name, i % 2};
		const struct sched_pod *homeless;

		if (!f.name.h || (f.zone && zone_seen(s, i / 2)))
			continue;
		homeless = uncovered(s, p, n, &f);
		if (!homeless || (p->critical && uncovered(s, p, NULL, &f)))
			continue;
		/* A pod that goes down with the failed part takes nothing from the rest. */
		if (!p->critical && fails(n, &f))
			continue;
		v->why = SCHED_RESERVE;
		v->failure = f.name;
		v->failure_zone = f.zone;
		v->homeless = homeless;
		return true;
	}
	return false;
}
