/* SPDX-License-Identifier: Apache-2.0 */
/* Compiles Nodes and Pods of the API into what core/sched works on. Each object gets one arena; nothing of the JSON is kept. */
#include "sched/load.h"

#include "model/model.h"

#define ITEMS_MAX 1000 /* of any list in an object; what is beyond is ignored */

static size_t items(const json_t *array)
{
	return MIN(json_array_size(array), (size_t)ITEMS_MAX);
}

/* Limited so that the sum over the pods of a node stays far from overflow. */
static int64_t quantity(const json_t *q, int64_t unit)
{
	int64_t milli;

	if (!q || model_quantity_json(q, &milli) < 0 || milli < 0)
		return 0;
	return MIN(milli / unit + (milli % unit > 0), (int64_t)1 << 52);
}

static void amount_set(struct sched_arena *mem, struct sched_amount *a, const char *name, const json_t *q)
{
	size_t i = 0;

	if (streq(name, "cpu"))
		a->cpu = quantity(q, 1);
	else if (streq(name, "memory"))
		a->memory = quantity(q, 1000);
	else if (streq(name, "ephemeral-storage"))
		a->storage = quantity(q, 1000);
	else if (streq(name, "pods"))
		a->pods = quantity(q, 1000);
	else {
		while (i < a->n_extra && !streq(a->extra[i].name.s, name))
			i++;
		if (i == SCHED_EXTRA_MAX)
			return;
		if (i == a->n_extra)
			a->extra[a->n_extra++].name = sched_sym(mem, name);
		a->extra[i].amount = quantity(q, 1000);
	}
}

static void amount_load(struct sched_arena *mem, struct sched_amount *a, const json_t *map)
{
	const char *name;
	json_t *q;

	json_object_foreach ((json_t *)map, name, q)
		amount_set(mem, a, name, q);
}

static struct sched_labels labels_load(struct sched_arena *mem, const json_t *map, size_t spare)
{
	struct sched_labels l = {0,
				 sched_alloc(mem, json_object_size(map) + spare, sizeof(struct sched_label))};
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)map, name, value)
		l.v[l.n++] = (struct sched_label){
			sched_sym(mem, name),
			sched_sym(mem, json_is_string(value) ? json_string_value(value) : "")};
	return l;
}

static enum sched_effect effect_of(const char *text)
{
	if (streq(text, "NoSchedule"))
		return SCHED_NO_SCHEDULE;
	if (streq(text, "PreferNoSchedule"))
		return SCHED_PREFER_NO_SCHEDULE;
	return streq(text, "NoExecute") ? SCHED_NO_EXECUTE : SCHED_ANY_EFFECT;
}

/* "True", "False", "Unknown"; NULL when the node does not say. */
static const char *ready_of(const json_t *node)
{
	const json_t *conditions = js_get(node, "status.conditions"), *c;
	size_t i;

	json_array_foreach (conditions, i, c)
		if (streq(js_str(c, "type"), "Ready"))
			return js_str(c, "status");
	return NULL;
}

/* A node that is not ready is kept out by its taint. Until the node controller has put it, it is taken as there. */
static void taints_load(struct sched_node *n, const json_t *node, const char *ready)
{
	const json_t *taints = js_get(node, "spec.taints"), *t;
	const char *implied =
		streq(ready, "Unknown") ? "node.kubernetes.io/unreachable" : "node.kubernetes.io/not-ready";
	bool there = n->ready;
	size_t i;

	n->taints = sched_alloc(&n->mem, items(taints) + 1, sizeof(n->taints[0]));
	json_array_foreach (taints, i, t) {
		const char *key = js_str_or(t, "key", "");
		struct sched_taint *to = &n->taints[n->n_taints];

		if (i >= ITEMS_MAX)
			break;
		*to = (struct sched_taint){sched_sym(&n->mem, key),
					   sched_sym(&n->mem, js_str_or(t, "value", "")),
					   effect_of(js_str(t, "effect"))};
		n->n_taints++;
		there |= streq(key, "node.kubernetes.io/not-ready") ||
			 streq(key, "node.kubernetes.io/unreachable");
	}
	if (!there)
		n->taints[n->n_taints++] = (struct sched_taint){sched_sym(&n->mem, implied),
								sched_sym(&n->mem, ""), SCHED_NO_SCHEDULE};
}

struct sched_node *sched_load_node(const json_t *node)
{
	struct sched_node *n = sched_node_new();
	const char *ready = ready_of(node);
	const json_t *allocatable = js_get(node, "status.allocatable");

	n->name = sched_sym(&n->mem, js_str_or(node, "metadata.name", ""));
	n->labels = labels_load(&n->mem, js_get(node, "metadata.labels"), 0);
	n->unschedulable = js_bool(node, "spec.unschedulable", false);
	n->ready = streq(ready, "True");
	amount_load(&n->mem, &n->allocatable, allocatable ? allocatable : js_get(node, "status.capacity"));
	taints_load(n, node, ready);
	return n;
}

struct sched_labels sched_load_namespace(const json_t *ns, struct sched_arena *mem)
{
	struct sched_labels l = labels_load(mem, js_get(ns, "metadata.labels"), 1);
	struct sched_sym key = sched_sym(mem, "kubernetes.io/metadata.name");

	if (!sched_label_get(&l, key).h)
		l.v[l.n++] = (struct sched_label){key, sched_sym(mem, js_str_or(ns, "metadata.name", ""))};
	return l;
}

bool sched_load_pod_finished(const json_t *pod)
{
	const char *phase = js_str(pod, "status.phase");

	return streq(phase, "Succeeded") || streq(phase, "Failed");
}

/* ---- selectors ---- */

static enum sched_op op_of(const char *text)
{
	static const struct {
		const char *text;
		enum sched_op op;
	} ops[] = {{"In", SCHED_IN},	     {"NotIn", SCHED_NOT_IN},
		   {"Exists", SCHED_EXISTS}, {"DoesNotExist", SCHED_NOT_EXISTS},
		   {"Gt", SCHED_GT},	     {"Lt", SCHED_LT}};

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		if (streq(ops[i].text, text))
			return ops[i].op;
	return SCHED_IN; /* without values: matches nothing */
}

static void require_load(struct sched_arena *mem, struct sched_require *r, const json_t *e)
{
	const json_t *values = json_object_get(e, "values"), *v;
	size_t i;

	r->key = sched_sym(mem, js_str_or(e, "key", ""));
	r->op = op_of(js_str(e, "operator"));
	r->values = sched_alloc(mem, items(values), sizeof(r->values[0]));
	json_array_foreach (values, i, v)
		if (i < ITEMS_MAX)
			r->values[r->n++] = sched_sym(mem, json_is_string(v) ? json_string_value(v) : "");
}

/* matchLabels (or a plain map) and expressions into one selector. */
static struct sched_selector selector_make(struct sched_arena *mem, const json_t *map,
					   const json_t *expressions, size_t spare)
{
	struct sched_selector s = {0};
	const char *name;
	json_t *value, *e;
	size_t i;

	s.v = sched_alloc(mem, json_object_size(map) + items(expressions) + spare, sizeof(s.v[0]));
	json_object_foreach ((json_t *)map, name, value) {
		struct sched_require *r = &s.v[s.n++];

		*r = (struct sched_require){sched_sym(mem, name), SCHED_IN, 1,
					    sched_alloc(mem, 1, sizeof(r->values[0]))};
		r->values[0] = sched_sym(mem, json_is_string(value) ? json_string_value(value) : "");
	}
	json_array_foreach (expressions, i, e)
		if (i < ITEMS_MAX)
			require_load(mem, &s.v[s.n++], e);
	return s;
}

/* matchLabelKeys adds: the same value as the pod's own label (left out when the pod has none). */
static struct sched_selector selector_load(struct sched_pod *p, const json_t *selector,
					   const json_t *label_keys, bool same)
{
	struct sched_selector s;
	const json_t *k;
	size_t i;

	if (!json_is_object(selector))
		return (struct sched_selector){.none = true};
	s = selector_make(&p->mem, json_object_get(selector, "matchLabels"),
			  json_object_get(selector, "matchExpressions"), items(label_keys));
	json_array_foreach (label_keys, i, k) {
		struct sched_sym key = sched_sym(&p->mem, json_string_value(k)),
				 value = sched_label_get(&p->labels, key);
		struct sched_require *r;

		if (i >= ITEMS_MAX || !value.h)
			continue;
		r = &s.v[s.n++];
		*r = (struct sched_require){key, same ? SCHED_IN : SCHED_NOT_IN, 1,
					    sched_alloc(&p->mem, 1, sizeof(r->values[0]))};
		r->values[0] = value;
	}
	return s;
}

/* ---- affinity ---- */

static struct sched_node_term node_term_load(struct sched_pod *p, const json_t *term, int weight)
{
	return (struct sched_node_term){
		selector_make(&p->mem, NULL, json_object_get(term, "matchExpressions"), 0),
		selector_make(&p->mem, NULL, json_object_get(term, "matchFields"), 0),
		weight,
	};
}

static void node_affinity_load(struct sched_pod *p, const json_t *affinity)
{
	const json_t *required = js_get(affinity, "requiredDuringSchedulingIgnoredDuringExecution");
	const json_t *terms = json_object_get(required, "nodeSelectorTerms"), *t;
	const json_t *preferred = js_get(affinity, "preferredDuringSchedulingIgnoredDuringExecution");
	size_t i;

	p->node_required = json_is_object(required);
	p->node_terms = sched_alloc(&p->mem, items(terms), sizeof(p->node_terms[0]));
	json_array_foreach (terms, i, t)
		if (i < ITEMS_MAX)
			p->node_terms[p->n_node_terms++] = node_term_load(p, t, 0);
	p->node_preferred = sched_alloc(&p->mem, items(preferred), sizeof(p->node_preferred[0]));
	json_array_foreach (preferred, i, t)
		if (i < ITEMS_MAX)
			p->node_preferred[p->n_node_preferred++] = node_term_load(
				p, json_object_get(t, "preference"), (int)js_int(t, "weight", 1));
}

static struct sched_pod_term pod_term_load(struct sched_pod *p, const json_t *term, int weight)
{
	const json_t *namespaces = json_object_get(term, "namespaces"), *ns;
	struct sched_pod_term t = {.weight = weight};
	size_t i;

	t.selector = selector_load(p, json_object_get(term, "labelSelector"),
				   json_object_get(term, "matchLabelKeys"), true);
	t.topology_key = sched_sym(&p->mem, js_str_or(term, "topologyKey", ""));
	t.namespace_selector = selector_load(p, json_object_get(term, "namespaceSelector"), NULL, true);
	t.namespaces = sched_alloc(&p->mem, items(namespaces), sizeof(t.namespaces[0]));
	json_array_foreach (namespaces, i, ns)
		if (i < ITEMS_MAX)
			t.namespaces[t.n_namespaces++] = sched_sym(&p->mem, json_string_value(ns));
	return t;
}

static void pod_terms_load(struct sched_pod *p, const json_t *affinity, struct sched_pod_terms *required,
			   struct sched_pod_terms *preferred)
{
	const json_t *hard = js_get(affinity, "requiredDuringSchedulingIgnoredDuringExecution"), *t;
	const json_t *soft = js_get(affinity, "preferredDuringSchedulingIgnoredDuringExecution");
	size_t i;

	required->v = sched_alloc(&p->mem, items(hard), sizeof(required->v[0]));
	json_array_foreach (hard, i, t)
		if (i < ITEMS_MAX)
			required->v[required->n++] = pod_term_load(p, t, 0);
	preferred->v = sched_alloc(&p->mem, items(soft), sizeof(preferred->v[0]));
	json_array_foreach (soft, i, t)
		if (i < ITEMS_MAX)
			preferred->v[preferred->n++] = pod_term_load(p, json_object_get(t, "podAffinityTerm"),
								     (int)js_int(t, "weight", 1));
}

static void spread_load(struct sched_pod *p, const json_t *constraints)
{
	const json_t *c;
	size_t i;

	p->spread = sched_alloc(&p->mem, items(constraints), sizeof(p->spread[0]));
	json_array_foreach (constraints, i, c)
		if (i < ITEMS_MAX)
			p->spread[p->n_spread++] = (struct sched_spread){
				.topology_key = sched_sym(&p->mem, js_str_or(c, "topologyKey", "")),
				.selector = selector_load(p, json_object_get(c, "labelSelector"),
							  json_object_get(c, "matchLabelKeys"), true),
				.max_skew = (int)CLAMP(js_int(c, "maxSkew", 1), 1, 1000000),
				.min_domains = (int)CLAMP(js_int(c, "minDomains", 1), 1, 1000000),
				.hard = !streq(js_str(c, "whenUnsatisfiable"), "ScheduleAnyway"),
				.ignore_affinity = streq(js_str(c, "nodeAffinityPolicy"), "Ignore"),
				.honor_taints = streq(js_str(c, "nodeTaintsPolicy"), "Honor"),
			};
}

/* ---- the pod ---- */

static void tolerations_load(struct sched_pod *p, const json_t *tolerations)
{
	const json_t *t;
	size_t i;

	p->tolerations = sched_alloc(&p->mem, items(tolerations), sizeof(p->tolerations[0]));
	json_array_foreach (tolerations, i, t) {
		const char *key = js_str(t, "key"), *effect = js_str(t, "effect");
		struct sched_toleration *to = &p->tolerations[p->n_tolerations];

		if (i >= ITEMS_MAX)
			break;
		p->n_tolerations++;
		*to = (struct sched_toleration){
			.key = sched_sym(&p->mem, key && *key ? key : NULL),
			.exists = streq(js_str(t, "operator"), "Exists"),
			.value = sched_sym(&p->mem, js_str_or(t, "value", "")),
			.effect = effect_of(effect),
			.forever = !json_is_integer(json_object_get(t, "tolerationSeconds")),
		};
		if (to->exists && to->forever &&
		    (!to->key.h || streq(key, "node.kubernetes.io/unreachable")) &&
		    (to->effect == SCHED_ANY_EFFECT || to->effect == SCHED_NO_EXECUTE))
			p->bound = true;
	}
}

static void ports_load(struct sched_pod *p, const json_t *containers, bool host_network)
{
	const json_t *c, *port;
	size_t n = 0, i, k;

	json_array_foreach (containers, i, c)
		n += items(json_object_get(c, "ports"));
	p->ports = sched_alloc(&p->mem, n, sizeof(p->ports[0]));
	json_array_foreach (containers, i, c)
		json_array_foreach (json_object_get(c, "ports"), k, port) {
			int64_t host =
				js_int(port, "hostPort", host_network ? js_int(port, "containerPort", 0) : 0);
			const char *ip = js_str_or(port, "hostIP", "");

			if (host > 0 && p->n_ports < n)
				p->ports[p->n_ports++] = (struct sched_port){
					sched_sym(&p->mem, js_str_or(port, "protocol", "TCP")),
					sched_sym(&p->mem, *ip ? ip : "0.0.0.0"), (int)host};
		}
}

static struct sched_amount container_request(struct sched_pod *p, const json_t *c)
{
	struct sched_amount a = {0};

	/* A limit without a request is also the request. */
	amount_load(&p->mem, &a, js_get(c, "resources.limits"));
	amount_load(&p->mem, &a, js_get(c, "resources.requests"));
	a.pods = 0;
	return a;
}

/* a = a op b by name; names only in b are added. */
static void combine(struct sched_amount *a, const struct sched_amount *b, bool sum)
{
#define OP(x, y) (sum ? (x) + (y) : MAX((x), (y)))
	a->cpu = OP(a->cpu, b->cpu);
	a->memory = OP(a->memory, b->memory);
	a->storage = OP(a->storage, b->storage);
	for (size_t i = 0; i < b->n_extra; i++) {
		size_t k = 0;

		while (k < a->n_extra && !sched_same(a->extra[k].name, b->extra[i].name))
			k++;
		if (k == SCHED_EXTRA_MAX)
			continue;
		if (k == a->n_extra)
			a->extra[a->n_extra++] = (struct sched_extra){b->extra[i].name, 0};
		a->extra[k].amount = OP(a->extra[k].amount, b->extra[i].amount);
	}
#undef OP
}

/* The sum of the containers, or what the largest init container needs beside the sidecars before it; plus overhead. */
static void request_load(struct sched_pod *p, const json_t *spec)
{
	struct sched_amount sum = {0}, sidecars = {0}, peak = {0}, a;
	const json_t *c;
	size_t i;

	json_array_foreach (js_get(spec, "initContainers"), i, c) {
		a = container_request(p, c);
		if (streq(js_str(c, "restartPolicy"), "Always")) {
			combine(&sidecars, &a, true);
			combine(&peak, &sidecars, false);
		} else {
			combine(&a, &sidecars, true);
			combine(&peak, &a, false);
		}
	}
	json_array_foreach (js_get(spec, "containers"), i, c) {
		a = container_request(p, c);
		combine(&sum, &a, true);
	}
	combine(&sum, &sidecars, true);
	combine(&sum, &peak, false);
	a = (struct sched_amount){0};
	amount_load(&p->mem, &a, js_get(spec, "overhead"));
	combine(&sum, &a, true);
	sum.pods = 1;
	p->request = sum;
}

static bool is_critical(const json_t *pod)
{
	const char *class = js_str(pod, "spec.priorityClassName");
	const json_t *annotations = js_get(pod, "metadata.annotations");
	const char *mark = json_string_value(json_object_get(annotations, "kuayu.io/critical"));

	if (mark)
		return streq(mark, "true");
	return class && str_starts(class, "system-") && str_ends(class, "-critical");
}

static const char *owner_uid(const json_t *pod)
{
	const json_t *owners = js_get(pod, "metadata.ownerReferences"), *o;
	size_t i;

	json_array_foreach (owners, i, o)
		if (js_bool(o, "controller", false))
			return js_str(o, "uid");
	return NULL;
}

struct sched_pod *sched_load_pod(const json_t *pod)
{
	struct sched_pod *p = sched_pod_new();
	const json_t *spec = js_get(pod, "spec"), *affinity = js_get(spec, "affinity");
	const char *node = js_str(spec, "nodeName");

	p->ns = sched_sym(&p->mem, js_str_or(pod, "metadata.namespace", "default"));
	p->name = sched_sym(&p->mem, js_str_or(pod, "metadata.name", ""));
	p->uid = sched_sym(&p->mem, js_str(pod, "metadata.uid"));
	p->owner = sched_sym(&p->mem, owner_uid(pod));
	p->labels = labels_load(&p->mem, js_get(pod, "metadata.labels"), 0);
	p->node_name = sched_sym(&p->mem, node && *node ? node : NULL);
	p->priority = (int)CLAMP(js_int(spec, "priority", 0), INT32_MIN, INT32_MAX);
	p->critical = is_critical(pod);
	p->terminating = js_get(pod, "metadata.deletionTimestamp") != NULL;
	p->node_selector = selector_make(&p->mem, js_get(spec, "nodeSelector"), NULL, 0);
	node_affinity_load(p, js_get(affinity, "nodeAffinity"));
	pod_terms_load(p, js_get(affinity, "podAffinity"), &p->affinity, &p->affinity_preferred);
	pod_terms_load(p, js_get(affinity, "podAntiAffinity"), &p->anti, &p->anti_preferred);
	tolerations_load(p, js_get(spec, "tolerations"));
	ports_load(p, js_get(spec, "containers"), js_bool(spec, "hostNetwork", false));
	spread_load(p, js_get(spec, "topologySpreadConstraints"));
	request_load(p, spec);
	return p;
}
