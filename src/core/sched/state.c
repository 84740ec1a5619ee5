/* SPDX-License-Identifier: Apache-2.0 */
/* The snapshot: nodes, the pods on them, what is in use. Objects live in arenas of their own, the state owns the objects.
 * A pod whose node is not known (yet) is kept and counted as soon as the node appears. */
#include "core/sched/internal.h"

#define CHUNK_SIZE 2048

struct sched_chunk {
	struct sched_chunk *next;
	size_t used, size;
	_Alignas(16) char data[];
};

void *sched_alloc(struct sched_arena *a, size_t n, size_t size)
{
	size_t want = (n * size + 15) & ~(size_t)15;

	ensure(size == 0 || n <= SIZE_MAX / 2 / size);
	if (!a->head || a->head->size - a->head->used < want) {
		size_t room = MAX(want, (size_t)CHUNK_SIZE);
		struct sched_chunk *c = xcalloc(1, sizeof(*c) + room);

		c->size = room;
		c->next = a->head;
		a->head = c;
	}
	a->head->used += want;
	return a->head->data + a->head->used - want;
}

struct sched_sym sched_key(const char *s)
{
	struct sched_sym sym = {0, s};

	if (!s)
		return sym;
	sym.h = hash_fnv64(s, strlen(s));
	if (sym.h == 0)
		sym.h = 1;
	return sym;
}

struct sched_sym sched_sym(struct sched_arena *a, const char *s)
{
	struct sched_sym sym = sched_key(s);
	size_t len;
	char *copy;

	if (!s)
		return sym;
	len = strlen(s) + 1;
	copy = sched_alloc(a, 1, len);
	memcpy(copy, s, len);
	sym.s = copy;
	return sym;
}

void sched_arena_done(struct sched_arena *a)
{
	while (a->head) {
		struct sched_chunk *c = a->head;

		a->head = c->next;
		free(c);
	}
}

struct sched_node *sched_node_new(void)
{
	return xcalloc(1, sizeof(struct sched_node));
}

struct sched_node *sched_node_free(struct sched_node *n)
{
	if (!n)
		return NULL;
	sched_arena_done(&n->mem);
	free(n->pods);
	free(n);
	return NULL;
}

struct sched_pod *sched_pod_new(void)
{
	struct sched_pod *p = xcalloc(1, sizeof(*p));

	p->request.pods = 1;
	return p;
}

struct sched_pod *sched_pod_free(struct sched_pod *p)
{
	if (!p)
		return NULL;
	sched_arena_done(&p->mem);
	free(p);
	return NULL;
}

void sched_amount_add(struct sched_amount *a, const struct sched_amount *b, int sign)
{
	a->cpu += sign * b->cpu;
	a->memory += sign * b->memory;
	a->storage += sign * b->storage;
	a->pods += sign * b->pods;
	for (size_t i = 0; i < b->n_extra; i++) {
		size_t k = 0;

		while (k < a->n_extra && !sched_same(a->extra[k].name, b->extra[i].name))
			k++;
		/* The table is filled with the node's own extras first, so one that does not fit is none the node offers. */
		if (k == a->n_extra)
			continue;
		a->extra[k].amount += sign * b->extra[i].amount;
	}
}

static void shape_count(struct sched_state *s, const struct sched_pod *p, bool add)
{
	struct shape *free_slot = NULL;

	for (size_t i = 0; i < SHAPES_MAX; i++) {
		struct shape *h = &s->shapes[i];

		if (h->count && h->cpu == p->request.cpu && h->memory == p->request.memory) {
			h->count = add ? h->count + 1 : h->count - 1;
			return;
		}
		if (!h->count && !free_slot)
			free_slot = h;
	}
	if (add && free_slot)
		*free_slot = (struct shape){p->request.cpu, p->request.memory, 1};
}

static void link_pod(struct sched_state *s, struct sched_pod *p, struct sched_node *n)
{
	ensure(!p->node);
	if (n->n_pods == n->cap_pods) {
		n->cap_pods = n->cap_pods ? n->cap_pods * 2 : 16;
		n->pods = xrealloc(n->pods, n->cap_pods * sizeof(n->pods[0]));
	}
	p->node = n;
	p->node_slot = n->n_pods;
	n->pods[n->n_pods++] = p;
	sched_amount_add(&n->used, &p->request, 1);
	shape_count(s, p, true);
}

static void unlink_pod(struct sched_state *s, struct sched_pod *p)
{
	struct sched_node *n = p->node;

	if (!n)
		return;
	ensure(n->pods[p->node_slot] == p);
	n->pods[p->node_slot] = n->pods[--n->n_pods];
	n->pods[p->node_slot]->node_slot = p->node_slot;
	sched_amount_add(&n->used, &p->request, -1);
	shape_count(s, p, false);
	p->node = NULL;
}

struct sched_state *sched_state_new(void)
{
	struct sched_state *s = xcalloc(1, sizeof(*s));

	s->node_by_name = strmap_new();
	s->pod_by_name = strmap_new();
	s->namespaces = strmap_new();
	return s;
}

static void namespace_free(void *p)
{
	struct sched_namespace *ns = p;

	sched_arena_done(&ns->mem);
	free(ns);
}

struct sched_state *sched_state_free(struct sched_state *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n_nodes; i++)
		sched_node_free(s->nodes[i]);
	for (size_t i = 0; i < s->n_pods; i++)
		sched_pod_free(s->pods[i]);
	strmap_free(s->node_by_name, NULL);
	strmap_free(s->pod_by_name, NULL);
	strmap_free(s->namespaces, namespace_free);
	for (size_t i = 0; i < s->n_topo; i++) {
		free(s->topo[i].domain);
		free(s->topo[i].count);
	}
	free(s->topo);
	free(s->nodes);
	free(s->pods);
	free(s->verdicts);
	free(s->feasible);
	free(s->eligible);
	free(s->seen);
	free(s->score);
	free(s->part);
	free(s->sum);
	free(s->room);
	free(s->moving);
	free(s->hash_slots);
	free(s);
	return NULL;
}

/* The used table starts with the names of the node's own extras, so that adding a pod finds them. */
static void start_used(struct sched_node *n)
{
	n->used = (struct sched_amount){.n_extra = n->allocatable.n_extra};
	for (size_t i = 0; i < n->used.n_extra; i++)
		n->used.extra[i].name = n->allocatable.extra[i].name;
	n->zone = sched_label_get(&n->labels, sched_key("topology.kubernetes.io/zone"));
}

void sched_node_set(struct sched_state *s, struct sched_node *n)
{
	struct sched_node *old = strmap_get(s->node_by_name, n->name.s);

	start_used(n);
	if (old) {
		n->index = old->index;
		s->nodes[n->index] = n;
		while (old->n_pods) {
			struct sched_pod *p = old->pods[old->n_pods - 1];

			unlink_pod(s, p);
			link_pod(s, p, n);
		}
		strmap_set(s->node_by_name, n->name.s, n);
		sched_node_free(old);
		return;
	}
	if (s->n_nodes == s->cap_nodes) {
		s->cap_nodes = s->cap_nodes ? s->cap_nodes * 2 : 16;
		s->nodes = xrealloc(s->nodes, s->cap_nodes * sizeof(s->nodes[0]));
	}
	n->index = s->n_nodes;
	s->nodes[s->n_nodes++] = n;
	strmap_set(s->node_by_name, n->name.s, n);
	for (size_t i = 0; i < s->n_pods; i++)
		if (!s->pods[i]->node && sched_same(s->pods[i]->node_name, n->name))
			link_pod(s, s->pods[i], n);
}

void sched_node_del(struct sched_state *s, const char *name)
{
	struct sched_node *n = strmap_del(s->node_by_name, name);

	if (!n)
		return;
	while (n->n_pods)
		unlink_pod(s, n->pods[n->n_pods - 1]);
	s->nodes[n->index] = s->nodes[--s->n_nodes];
	s->nodes[n->index]->index = n->index;
	sched_node_free(n);
}

static char *pod_key(const char *ns, const char *name)
{
	return xasprintf("%s/%s", ns ? ns : "", name ? name : "");
}

void sched_pod_set(struct sched_state *s, struct sched_pod *p)
{
	_cleanup_free_ char *key = pod_key(p->ns.s, p->name.s);
	struct sched_node *n = p->node_name.h ? strmap_get(s->node_by_name, p->node_name.s) : NULL;

	sched_pod_del(s, p->ns.s, p->name.s);
	if (s->n_pods == s->cap_pods) {
		s->cap_pods = s->cap_pods ? s->cap_pods * 2 : 64;
		s->pods = xrealloc(s->pods, s->cap_pods * sizeof(s->pods[0]));
	}
	p->index = s->n_pods;
	s->pods[s->n_pods++] = p;
	strmap_set(s->pod_by_name, key, p);
	if (n)
		link_pod(s, p, n);
}

void sched_pod_del(struct sched_state *s, const char *ns, const char *name)
{
	_cleanup_free_ char *key = pod_key(ns, name);
	struct sched_pod *p = strmap_del(s->pod_by_name, key);

	if (!p)
		return;
	unlink_pod(s, p);
	s->pods[p->index] = s->pods[--s->n_pods];
	s->pods[p->index]->index = p->index;
	sched_pod_free(p);
}

const struct sched_pod *sched_pod_get(const struct sched_state *s, const char *ns, const char *name)
{
	_cleanup_free_ char *key = pod_key(ns, name);

	return strmap_get(s->pod_by_name, key);
}

void sched_namespace_set(struct sched_state *s, const char *name, struct sched_arena *mem,
			 const struct sched_labels *labels)
{
	struct sched_namespace *ns, *old;

	if (!labels) {
		old = strmap_del(s->namespaces, name);
	} else {
		ns = xcalloc(1, sizeof(*ns));
		ns->mem = *mem;
		ns->labels = *labels;
		mem->head = NULL;
		old = strmap_set(s->namespaces, name, ns);
	}
	if (old)
		namespace_free(old);
}

size_t sched_nodes(const struct sched_state *s)
{
	return s->n_nodes;
}

size_t sched_pods(const struct sched_state *s)
{
	return s->n_pods;
}

const struct sched_node *sched_node_at(const struct sched_state *s, size_t i)
{
	ensure(i < s->n_nodes);
	return s->nodes[i];
}

#define FIT(p, n) ((p) = xrealloc((p), (n) * sizeof((p)[0])))

void sched_scratch_fit(struct sched_state *s)
{
	size_t n = s->cap_nodes;

	if (s->cap_moving < s->n_pods + 1) {
		s->cap_moving = s->cap_pods + 1;
		FIT(s->moving, s->cap_moving);
	}
	if (s->cap_scratch >= n)
		return;
	FIT(s->verdicts, n);
	FIT(s->feasible, n);
	FIT(s->eligible, n);
	FIT(s->seen, n);
	FIT(s->score, n);
	FIT(s->part, n);
	FIT(s->sum, n);
	FIT(s->room, n);
	for (s->n_hash_slots = 16; s->n_hash_slots < n * 2;)
		s->n_hash_slots *= 2;
	FIT(s->hash_slots, s->n_hash_slots);
	for (size_t i = 0; i < s->n_topo; i++) {
		FIT(s->topo[i].domain, n);
		FIT(s->topo[i].count, n);
	}
	s->cap_scratch = n;
}

struct topology *sched_topology(struct sched_state *s, size_t i, struct sched_sym key)
{
	struct topology *t;

	ensure(i <= s->n_topo);
	if (i == s->n_topo) {
		FIT(s->topo, s->n_topo + 1);
		t = &s->topo[s->n_topo++];
		t->domain = xcalloc(s->cap_scratch + 1, sizeof(t->domain[0]));
		t->count = xcalloc(s->cap_scratch + 1, sizeof(t->count[0]));
	}
	t = &s->topo[i];
	t->n_domains = 0;
	memset(s->hash_slots, 0, s->n_hash_slots * sizeof(s->hash_slots[0]));
	for (size_t k = 0; k < s->n_nodes; k++) {
		struct sched_sym value = sched_label_get(&s->nodes[k]->labels, key);
		size_t slot = value.h & (s->n_hash_slots - 1);

		t->domain[k] = -1;
		if (!value.h)
			continue;
		/* A slot holds 1 + the first node of its domain; at most half of the slots are used. */
		for (; s->hash_slots[slot]; slot = (slot + 1) & (s->n_hash_slots - 1)) {
			size_t first = s->hash_slots[slot] - 1;

			if (sched_same(sched_label_get(&s->nodes[first]->labels, key), value)) {
				t->domain[k] = t->domain[first];
				break;
			}
		}
		if (t->domain[k] >= 0)
			continue;
		s->hash_slots[slot] = (uint32_t)k + 1;
		t->count[t->n_domains] = 0;
		t->domain[k] = (int32_t)t->n_domains++;
	}
	return t;
}
