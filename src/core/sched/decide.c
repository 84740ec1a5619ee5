/* SPDX-License-Identifier: Apache-2.0 */
/* One decision: filters, scores, reserve, choice; and the sentence that says why nothing fits. */
#include "core/sched/internal.h"

static bool better(const struct sched_state *s, size_t a, size_t b)
{
	const struct sched_node *na = s->nodes[a], *nb = s->nodes[b];

	if (s->score[a] > s->score[b] + 1e-9 || s->score[b] > s->score[a] + 1e-9)
		return s->score[a] > s->score[b];
	if (na->n_pods != nb->n_pods)
		return na->n_pods < nb->n_pods;
	return strcmp(na->name.s, nb->name.s) < 0;
}

/* Index of the best node that is still feasible, SIZE_MAX when there is none. */
static size_t best_of(const struct sched_state *s)
{
	size_t best = SIZE_MAX;

	for (size_t i = 0; i < s->n_nodes; i++)
		if (s->feasible[i] && (best == SIZE_MAX || better(s, i, best)))
			best = i;
	return best;
}

static size_t score_all(struct sched_state *s, const struct sched_pod *p, const struct sched_policy *policy)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_nodes; i++) {
		s->score[i] = 0;
		s->part[i] = 0;
		s->feasible[i] = s->verdicts[i].why == SCHED_FITS;
		n += s->feasible[i];
	}
	if (n > 1) {
		sched_prefer(s, p);
		policy->score(policy->ctx, s, p, s->feasible, s->part);
	}
	for (size_t i = 0; i < s->n_nodes; i++) {
		s->score[i] += s->part[i];
		s->verdicts[i].score = s->score[i];
	}
	return n;
}

void sched_decide(struct sched_state *s, const struct sched_pod *pod, const struct sched_options *o,
		  struct sched_decision *ret)
{
	const struct sched_policy *policy = o && o->policy ? o->policy : &sched_policy_default;
	size_t best;

	sched_scratch_fit(s);
	*ret = (struct sched_decision){.n_nodes = s->n_nodes, .verdicts = s->verdicts};
	if (s->n_nodes == 0)
		return;
	sched_filter_nodes(s, pod);
	sched_filter_spread(s, pod);
	sched_filter_pods(s, pod);
	ret->n_feasible = score_all(s, pod, policy);
	while ((best = best_of(s)) != SIZE_MAX) {
		if (!o || !o->reserve || !sched_reserve_breaks(s, pod, s->nodes[best], &s->verdicts[best])) {
			ret->node = s->nodes[best];
			return;
		}
		s->feasible[best] = false;
		ret->n_feasible--;
	}
}

static const char *const simple_reasons[] = {
	[SCHED_UNSCHEDULABLE] = "node(s) were unschedulable",
	[SCHED_OTHER_NODE] = "node(s) didn't match the requested node name",
	[SCHED_NODE_AFFINITY] = "node(s) didn't match Pod's node affinity/selector",
	[SCHED_PORTS] = "node(s) didn't have free ports for the requested pod ports",
	[SCHED_SPREAD] = "node(s) didn't match pod topology spread constraints",
	[SCHED_SPREAD_LABEL] =
		"node(s) didn't match pod topology spread constraints (missing required label)",
	[SCHED_POD_AFFINITY] = "node(s) didn't match pod affinity rules",
	[SCHED_POD_ANTI_AFFINITY] = "node(s) didn't match pod anti-affinity rules",
	[SCHED_OTHERS_ANTI_AFFINITY] = "node(s) didn't satisfy existing pods anti-affinity rules",
};

struct reasons {
	size_t n, cap;
	struct reason {
		char *text;
		size_t count;
	} * v;
};

static void count_reason(struct reasons *r, const char *text)
{
	for (size_t i = 0; i < r->n; i++)
		if (streq(r->v[i].text, text)) {
			r->v[i].count++;
			return;
		}
	if (r->n == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 8;
		r->v = xrealloc(r->v, r->cap * sizeof(r->v[0]));
	}
	r->v[r->n++] = (struct reason){xstrdup(text), 1};
}

static void count_lacks(struct reasons *r, const struct sched_pod *p, unsigned lack)
{
	if (lack & SCHED_LACK_PODS)
		count_reason(r, "Too many pods");
	if (lack & SCHED_LACK_CPU)
		count_reason(r, "Insufficient cpu");
	if (lack & SCHED_LACK_MEMORY)
		count_reason(r, "Insufficient memory");
	if (lack & SCHED_LACK_STORAGE)
		count_reason(r, "Insufficient ephemeral-storage");
	for (size_t i = 0; i < p->request.n_extra; i++)
		if (lack & (unsigned)SCHED_LACK_EXTRA << i) {
			_cleanup_free_ char *text = xasprintf("Insufficient %s", p->request.extra[i].name.s);

			count_reason(r, text);
		}
}

static void count_verdict(struct reasons *r, const struct sched_pod *p, const struct sched_verdict *v)
{
	_cleanup_free_ char *text = NULL;

	if (v->why == SCHED_RESOURCES) {
		count_lacks(r, p, v->lack);
		return;
	}
	if (v->why == SCHED_TAINT)
		text = xasprintf("node(s) had untolerated taint {%s: %s}", v->taint->key.s,
				 v->taint->value.s ? v->taint->value.s : "");
	else if (v->why == SCHED_RESERVE)
		text = xasprintf("node(s) would leave critical pod %s/%s without a place if %s %s fails",
				 v->homeless->ns.s, v->homeless->name.s, v->failure_zone ? "zone" : "node",
				 v->failure.s);
	if (v->why != SCHED_FITS)
		count_reason(r, text ? text : simple_reasons[v->why]);
}

static int compare_reasons(const void *a, const void *b)
{
	const struct reason *ra = a, *rb = b;
	_cleanup_free_ char *ta = xasprintf("%zu %s", ra->count, ra->text);
	_cleanup_free_ char *tb = xasprintf("%zu %s", rb->count, rb->text);

	return strcmp(ta, tb);
}

void sched_explain(const struct sched_state *s, const struct sched_pod *pod, const struct sched_decision *d,
		   struct buf *out)
{
	struct reasons r = {0};

	if (d->n_nodes == 0) {
		buf_adds(out, "no nodes available to schedule pods");
		return;
	}
	ensure(d->n_nodes == s->n_nodes);
	for (size_t i = 0; i < d->n_nodes; i++)
		count_verdict(&r, pod, &d->verdicts[i]);
	if (r.n)
		qsort(r.v, r.n, sizeof(r.v[0]), compare_reasons);
	buf_addf(out, "%zu/%zu nodes are available", d->n_feasible, d->n_nodes);
	for (size_t i = 0; i < r.n; i++) {
		buf_addf(out, "%s%zu %s", i ? ", " : ": ", r.v[i].count, r.v[i].text);
		free(r.v[i].text);
	}
	buf_adds(out, ".");
	free(r.v);
}
