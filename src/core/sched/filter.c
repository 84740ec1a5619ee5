/* SPDX-License-Identifier: Apache-2.0 */
/* Filters that look at one node by itself: unschedulable, node name, taints, node affinity, host ports, resources. Order and
 * meaning as in kube-scheduler; the first refusal is the one that is told. */
#include "core/sched/internal.h"

struct sched_sym sched_label_get(const struct sched_labels *labels, struct sched_sym key)
{
	for (size_t i = 0; i < labels->n; i++)
		if (sched_same(labels->v[i].key, key))
			return labels->v[i].value;
	return (struct sched_sym){0, NULL};
}

/* Gt and Lt take one whole number each side; anything else does not match. */
static bool compare(const struct sched_require *r, struct sched_sym value)
{
	int64_t have, want;

	if (!value.h || r->n != 1 || str_i64(value.s, &have) < 0 || str_i64(r->values[0].s, &want) < 0)
		return false;
	return r->op == SCHED_GT ? have > want : have < want;
}

static bool require_match(const struct sched_require *r, struct sched_sym value)
{
	bool in = false;

	switch (r->op) {
	case SCHED_EXISTS:
		return value.h != 0;
	case SCHED_NOT_EXISTS:
		return value.h == 0;
	case SCHED_GT:
	case SCHED_LT:
		return compare(r, value);
	case SCHED_IN:
	case SCHED_NOT_IN:
		for (size_t i = 0; i < r->n && value.h && !in; i++)
			in = sched_same(r->values[i], value);
		return in == (r->op == SCHED_IN);
	}
	return false;
}

bool sched_match(const struct sched_selector *s, const struct sched_labels *labels)
{
	if (s->none)
		return false;
	for (size_t i = 0; i < s->n; i++)
		if (!require_match(&s->v[i], sched_label_get(labels, s->v[i].key)))
			return false;
	return true;
}

static bool tolerates(const struct sched_toleration *t, const struct sched_taint *taint)
{
	if (t->effect != SCHED_ANY_EFFECT && t->effect != taint->effect)
		return false;
	if (t->key.h && !sched_same(t->key, taint->key))
		return false;
	return t->exists || sched_same(t->value, taint->value);
}

const struct sched_taint *sched_untolerated(const struct sched_pod *p, const struct sched_node *n,
					    bool prefer_only)
{
	for (size_t i = 0; i < n->n_taints; i++) {
		const struct sched_taint *taint = &n->taints[i];
		size_t k = 0;

		if ((taint->effect == SCHED_PREFER_NO_SCHEDULE) != prefer_only)
			continue;
		while (k < p->n_tolerations && !tolerates(&p->tolerations[k], taint))
			k++;
		if (k == p->n_tolerations)
			return taint;
	}
	return NULL;
}

bool sched_node_term_match(const struct sched_node_term *t, const struct sched_node *n)
{
	struct sched_label name = {sched_key("metadata.name"), n->name};
	struct sched_labels fields = {1, &name};

	if (t->labels.n == 0 && t->fields.n == 0)
		return false;
	return sched_match(&t->labels, &n->labels) && sched_match(&t->fields, &fields);
}

bool sched_node_affinity_ok(const struct sched_pod *p, const struct sched_node *n)
{
	if (!sched_match(&p->node_selector, &n->labels))
		return false;
	for (size_t i = 0; i < p->n_node_terms; i++)
		if (sched_node_term_match(&p->node_terms[i], n))
			return true;
	return !p->node_required;
}

static bool ports_clash(const struct sched_pod *p, const struct sched_pod *other)
{
	struct sched_sym any = sched_key("0.0.0.0");

	for (size_t i = 0; i < p->n_ports; i++)
		for (size_t k = 0; k < other->n_ports; k++) {
			const struct sched_port *a = &p->ports[i], *b = &other->ports[k];

			if (a->port == b->port && sched_same(a->protocol, b->protocol) &&
			    (sched_same(a->ip, b->ip) || sched_same(a->ip, any) || sched_same(b->ip, any)))
				return true;
		}
	return false;
}

static bool ports_free(const struct sched_pod *p, const struct sched_node *n)
{
	if (p->n_ports == 0)
		return true;
	for (size_t i = 0; i < n->n_pods; i++)
		if (ports_clash(p, n->pods[i]))
			return false;
	return true;
}

static int64_t extra_of(const struct sched_amount *a, struct sched_sym name)
{
	for (size_t i = 0; i < a->n_extra; i++)
		if (sched_same(a->extra[i].name, name))
			return a->extra[i].amount;
	return 0;
}

unsigned sched_lacks(const struct sched_amount *allocatable, const struct sched_amount *used,
		     const struct sched_amount *request)
{
	unsigned lack = 0;

	if (used->pods + request->pods > allocatable->pods)
		lack |= SCHED_LACK_PODS;
	if (request->cpu > 0 && request->cpu > allocatable->cpu - used->cpu)
		lack |= SCHED_LACK_CPU;
	if (request->memory > 0 && request->memory > allocatable->memory - used->memory)
		lack |= SCHED_LACK_MEMORY;
	if (request->storage > 0 && request->storage > allocatable->storage - used->storage)
		lack |= SCHED_LACK_STORAGE;
	for (size_t i = 0; i < request->n_extra; i++) {
		struct sched_sym name = request->extra[i].name;
		int64_t want = request->extra[i].amount;

		if (want > 0 && want > extra_of(allocatable, name) - extra_of(used, name))
			lack |= (unsigned)SCHED_LACK_EXTRA << i;
	}
	return lack;
}

/* A cordoned node is refused unless the pod tolerates the taint that stands for it. */
static bool cordon_tolerated(const struct sched_pod *p)
{
	struct sched_taint cordon = {sched_key("node.kubernetes.io/unschedulable"), sched_key(""),
				     SCHED_NO_SCHEDULE};

	for (size_t i = 0; i < p->n_tolerations; i++)
		if (tolerates(&p->tolerations[i], &cordon))
			return true;
	return false;
}

static void judge(const struct sched_pod *p, const struct sched_node *n, struct sched_verdict *v)
{
	*v = (struct sched_verdict){.why = SCHED_FITS};
	if (n->unschedulable && !cordon_tolerated(p))
		v->why = SCHED_UNSCHEDULABLE;
	else if (p->node_name.h && !sched_same(p->node_name, n->name))
		v->why = SCHED_OTHER_NODE;
	else if ((v->taint = sched_untolerated(p, n, false)))
		v->why = SCHED_TAINT;
	else if (!sched_node_affinity_ok(p, n))
		v->why = SCHED_NODE_AFFINITY;
	else if (!ports_free(p, n))
		v->why = SCHED_PORTS;
	else if ((v->lack = sched_lacks(&n->allocatable, &n->used, &p->request)))
		v->why = SCHED_RESOURCES;
}

void sched_filter_nodes(struct sched_state *s, const struct sched_pod *p)
{
	for (size_t i = 0; i < s->n_nodes; i++)
		judge(p, s->nodes[i], &s->verdicts[i]);
}
