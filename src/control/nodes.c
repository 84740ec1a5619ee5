/* SPDX-License-Identifier: Apache-2.0 */
/* Node lifecycle: observes leases and what nodes say of each other, has the verdict passed (core/route/verdict), confirms
 * it and sets the work off (evict.c). Observation goes on while another controller leads, so that a new leader can judge
 * at once; acting is the leader's.
 *
 * Two clocks are kept apart: ages are counted by the own monotonic clock from the moment a renewal was SEEN. Contact with
 * the store is proved by leases that change, whoever's: a write came through. A verdict of dead or cut off, and that the
 * node's singletons are fenced, is confirmed by reading its lease from the store before anything is done: a watch that
 * lags cannot kill a node.
 *
 * Every failover is written down: Events on the node (NodeSilent, NodeDead or NodeCutOff, PodsEvicted, PodsFenced,
 * PodsReplaced, NodeReturned) and one log line a phase, "failover node=b1 phase=decide ms=1512": milliseconds since the
 * last renewal was seen. */
#include "control/evict.h"
#include "control/manager.h"

#define LEASE_NS	"kube-node-lease"
#define TICK_MS		50
#define FLAPS_MAX	8
#define FLAP_MEMORY_MS	300000
#define FAILOVER_MAX_MS 600000 /* after that nobody waits for the replacements any more */
#define CONFIRM_MS	1500

/* What is told about one failover. */
struct failover {
	bool active;
	uint64_t last_ms; /* last renewal seen */
	size_t evicted;
	json_t *owners; /* uid -> [kind, ns, name] */
};

struct state {
	struct nodes *n;
	char *name;
	bool has_lease;
	char renewed[64]; /* spec.renewTime as last seen */
	uint64_t seen_ms, known_ms, steady_ms;
	json_t *views_json;
	struct verdict_view *views;
	size_t n_views;
	enum verdict verdict;
	bool known, fenced, asking;
	struct verdict_result pending; /* what is being confirmed */
	char asked[64];		       /* `renewed` when the question was asked */
	uint64_t flaps[FLAPS_MAX];
	size_t flaps_at;
	struct failover f;
};

struct nodes {
	struct manager *m;
	struct strmap *by_name;
	struct timer *tick;
	uint64_t contact_ms, last_write_ms; /* since when, and the last sign */
	uint64_t deaths, last_decide_ms, last_replaced_ms;
};

static struct state *state_of(struct nodes *n, const char *name)
{
	struct state *s = strmap_get(n->by_name, name);

	if (s)
		return s;
	s = xcalloc(1, sizeof(*s));
	s->n = n;
	s->name = xstrdup(name);
	s->known_ms = s->seen_ms = s->steady_ms = clock_ms();
	strmap_set(n->by_name, name, s);
	return s;
}

static void state_free(void *p)
{
	struct state *s = p;

	kube_cancel(s->n->m->kube, s);
	json_decref(s->views_json);
	json_decref(s->f.owners);
	free(s->views);
	free(s->name);
	free(s);
}

/* ---- observation ---- */
static void read_views(struct state *s, const json_t *lease)
{
	const char *text = obj_annotation(lease, "kuayu.io/peers"), *name;
	json_t *parsed = NULL, *value;

	if (text && js_parse_new(text, strlen(text), &parsed, NULL) < 0)
		parsed = NULL;
	json_decref(s->views_json);
	s->views_json = parsed;
	s->views = xrealloc(s->views, (json_object_size(parsed) + 1) * sizeof(*s->views));
	s->n_views = 0;
	json_object_foreach (parsed, name, value) {
		bool refused = streq(json_string_value(value), "refused");

		if (json_is_integer(value) || refused)
			s->views[s->n_views++] = (struct verdict_view){
				.node = name,
				.silent_ms = refused ? INT64_MAX : json_integer_value(value),
				.refused = refused};
	}
}

static void lease_seen(struct nodes *n, const json_t *lease)
{
	struct state *s = state_of(n, obj_name(lease));
	const char *renewed = js_str_or(lease, "spec.renewTime", "");
	uint64_t now = clock_ms();

	if (!s->has_lease || !streq(renewed, s->renewed)) {
		if (!s->has_lease || now - s->seen_ms > (uint64_t)verdict_limits_default.late_ms)
			s->steady_ms = now;
		s->seen_ms = now;
		s->has_lease = true;
		snprintf(s->renewed, sizeof(s->renewed), "%s", renewed);
	}
	read_views(s, lease);
}

static void contact(struct nodes *n)
{
	uint64_t now = clock_ms();

	if (!n->contact_ms || now - n->last_write_ms > (uint64_t)verdict_limits_default.late_ms)
		n->contact_ms = now;
	n->last_write_ms = now;
}

static int64_t contact_age(const struct nodes *n)
{
	uint64_t now = clock_ms();

	if (!n->contact_ms || now - n->last_write_ms > (uint64_t)verdict_limits_default.late_ms)
		return -1;
	return (int64_t)(now - n->contact_ms);
}

static void on_tick(void *ctx);

void nodes_changed(struct nodes *n, enum kind kind, json_t *old, json_t *obj)
{
	json_t *o = obj ? obj : old;

	if (kind == K_NODE) {
		if (obj)
			state_of(n, obj_name(obj));
		else {
			struct state *s = strmap_del(n->by_name, obj_name(old));

			if (s)
				state_free(s);
		}
	} else if (kind == K_LEASE && obj) {
		contact(n);
		if (streq(obj_ns(o), LEASE_NS) && strmap_get(n->by_name, obj_name(o)))
			lease_seen(n, o);
		else if (streq(obj_ns(o), LEASE_NS) && !old)
			lease_seen(n, o); /* the lease was listed before its node */
	}
}

/* ---- consequences ---- */
static const json_t *node_of(const struct state *s)
{
	return world_get(s->n->m->world, K_NODE, "", s->name);
}

static void tell(struct state *s, const char *type, const char *reason, const char *phase, const char *text)
{
	const json_t *node = node_of(s);
	unsigned long long ms = clock_ms() - (s->f.active ? s->f.last_ms : s->seen_ms);

	log_info("failover node=%s phase=%s ms=%llu: %s", s->name, phase, ms, text);
	if (node)
		kube_event(s->n->m->kube, node, type, reason, "%s", text);
}

static unsigned flaps_of(const struct state *s)
{
	uint64_t now = clock_ms();
	unsigned count = 0;

	for (size_t i = 0; i < FLAPS_MAX; i++)
		count += s->flaps[i] && now - s->flaps[i] < FLAP_MEMORY_MS;
	return count;
}

static void decided(struct state *s, const struct verdict_result *r)
{
	bool dead = r->verdict == VERDICT_DEAD;
	char text[300];

	s->verdict = r->verdict;
	s->known = true;
	s->fenced = false;
	s->flaps[s->flaps_at++ % FLAPS_MAX] = clock_ms();
	s->n->deaths++;
	json_decref(s->f.owners);
	s->f = (struct failover){.active = true, .last_ms = s->seen_ms, .owners = json_object()};
	s->n->last_decide_ms = clock_ms() - s->seen_ms;
	snprintf(text, sizeof(text), "Node %s has fallen silent: its last renewal was seen %llu ms ago",
		 s->name, (unsigned long long)(clock_ms() - s->seen_ms));
	tell(s, "Warning", "NodeSilent", "detect", text);
	snprintf(text, sizeof(text), "Node %s is %s: %s", s->name, verdict_name(r->verdict), r->why);
	tell(s, "Warning", dead ? "NodeDead" : "NodeCutOff", "decide", text);
	manager_enqueue(s->n->m, C_NODE, "", s->name, 0);
}

static void on_confirmed(void *ctx, int status, json_t *body)
{
	struct state *s = ctx;
	struct manager *m = s->n->m;
	/* Neither the store nor the watch may have seen a renewal since the question was asked. */
	bool same = streq(s->renewed, s->asked) &&
		    ((status == 200 && streq(js_str_or(body, "spec.renewTime", ""), s->asked)) ||
		     (status == 404 && !s->has_lease));
	bool given_up = s->verdict == VERDICT_DEAD || s->verdict == VERDICT_CUT_OFF;

	s->asking = false;
	if (!same) {
		if (status == 200) {
			log_warn("node %s: its lease was renewed although the watch has not said so",
				 s->name);
			kube_cache_apply(m->caches[K_LEASE], body);
		}
		return;
	}
	if (!manager_ready(m))
		return;
	if (!given_up)
		decided(s, &s->pending);
	if (s->pending.fenced && !s->fenced) {
		s->fenced = true;
		tell(s, "Normal", "NodeFenced", "fence",
		     "Its singleton pods have stopped by themselves and may start elsewhere");
		manager_enqueue(m, C_NODE, "", s->name, 0);
	}
}

static void confirm(struct state *s, const struct verdict_result *r)
{
	_cleanup_free_ char *path = NULL;

	if (s->asking)
		return;
	s->asking = true;
	s->pending = *r;
	memcpy(s->asked, s->renewed, sizeof(s->asked));
	path = kube_path(&control_kinds[K_LEASE], LEASE_NS, s->name, NULL);
	kube_call(s->n->m->kube, &(struct kube_request){.method = "GET",
							.path = path,
							.timeout_ms = CONFIRM_MS,
							.attempt_ms = CONFIRM_MS / 2,
							.done = on_confirmed,
							.ctx = s});
}

static void follow(struct state *s, const struct verdict_result *r)
{
	bool given_up = s->verdict == VERDICT_DEAD || s->verdict == VERDICT_CUT_OFF;
	bool gives_up = r->verdict == VERDICT_DEAD || r->verdict == VERDICT_CUT_OFF;

	if (!r->passed)
		return;
	if (gives_up) {
		if (!given_up || (r->fenced && !s->fenced))
			confirm(s, r);
		return;
	}
	if (r->verdict == s->verdict && s->known)
		return;
	log_info("node %s: %s -> %s: %s", s->name, verdict_name(s->verdict), verdict_name(r->verdict),
		 r->why);
	if (r->verdict == VERDICT_READY && s->verdict >= VERDICT_RETURNING)
		tell(s, "Normal", "NodeReturned", "return", "The node renews its lease steadily again");
	s->verdict = r->verdict;
	s->known = true;
	s->fenced = false;
	manager_enqueue(s->n->m, C_NODE, "", s->name, 0);
}

/* Have the owners of evicted pods all the pods they want, ready? */
static bool replaced(const struct state *s)
{
	const struct world *w = s->n->m->world;
	const char *uid;
	json_t *ref;

	json_object_foreach (s->f.owners, uid, ref) {
		enum kind k = (enum kind)json_integer_value(json_array_get(ref, 0));
		const json_t *owner = world_get(w, k, json_string_value(json_array_get(ref, 1)),
						json_string_value(json_array_get(ref, 2)));
		_cleanup_free_ json_t **pods = NULL;
		int64_t ready = 0;

		if (!owner || !streq(obj_uid(owner), uid))
			continue;
		pods = world_list(w, K_POD, obj_ns(owner), uid);
		for (size_t i = 0; pods[i]; i++)
			ready += pod_is_active(pods[i]) && pod_is_ready(pods[i]) &&
				 !streq(js_str(pods[i], "spec.nodeName"), s->name);
		if (ready < js_int(owner, "spec.replicas", 1))
			return false;
	}
	return true;
}

static void follow_failover(struct state *s)
{
	struct failover *f = &s->f;
	uint64_t ms = clock_ms() - f->last_ms;
	char text[200];

	if (!f->active || (!f->evicted && s->verdict >= VERDICT_RETURNING))
		return;
	if (f->evicted && json_object_size(f->owners) && replaced(s)) {
		snprintf(text, sizeof(text),
			 "The %zu pods of node %s are replaced and ready, %llu ms after its last renewal",
			 f->evicted, s->name, (unsigned long long)ms);
		tell(s, "Normal", "PodsReplaced", "replaced", text);
		s->n->last_replaced_ms = ms;
		f->evicted = 0; /* singletons may follow, and are told of again */
		json_object_clear(f->owners);
	}
	if (s->verdict < VERDICT_RETURNING || ms > FAILOVER_MAX_MS)
		f->active = f->evicted > 0 && ms <= FAILOVER_MAX_MS;
}

static void on_tick(void *ctx)
{
	struct nodes *n = ctx;
	_cleanup_free_ json_t **list = NULL;
	_cleanup_free_ struct verdict_node *in = NULL;
	_cleanup_free_ struct verdict_result *out = NULL;
	uint64_t now = clock_ms();
	size_t count = 0;

	if (!manager_ready(n->m))
		return;
	list = world_list(n->m->world, K_NODE, NULL, NULL);
	while (list[count])
		count++;
	in = xcalloc(count + 1, sizeof(*in));
	out = xcalloc(count + 1, sizeof(*out));
	for (size_t i = 0; i < count; i++) {
		struct state *s = state_of(n, obj_name(list[i]));

		in[i] = (struct verdict_node){
			.name = s->name,
			.zone = obj_label(list[i], "topology.kubernetes.io/zone"),
			.has_lease = s->has_lease,
			.lease_ms = (int64_t)(now - (s->has_lease ? s->seen_ms : s->known_ms)),
			.steady_ms = (int64_t)(now - s->steady_ms),
			.flaps = flaps_of(s),
			.before = s->verdict,
			.views = s->views,
			.n_views = s->n_views,
		};
		if (!in[i].zone)
			in[i].zone = s->name;
	}
	verdict_pass(in, count, contact_age(n), NULL, out);
	for (size_t i = 0; i < count; i++) {
		struct state *s = state_of(n, obj_name(list[i]));

		follow(s, &out[i]);
		follow_failover(s);
	}
}

void nodes_leading(struct nodes *n)
{
	struct state *s;
	const char *name;

	strmap_foreach (n->by_name, name, s) {
		const json_t *node = node_of(s);
		bool tainted = node && node_has_taint(node, UNREACHABLE_TAINT, "NoExecute");

		s->verdict = tainted ? VERDICT_DEAD : VERDICT_READY;
		s->known = true;
		s->fenced = false;
		if (tainted && !s->f.active) {
			json_decref(s->f.owners);
			s->f = (struct failover){
				.active = true, .last_ms = s->seen_ms, .owners = json_object()};
		}
	}
}

static void note_evictions(struct state *s, struct plan *p)
{
	size_t singles = 0, others = 0;

	for (size_t i = 0; i < p->n; i++) {
		const struct action *a = &p->actions[i];
		const json_t *ref;
		enum kind k;

		if (a->type != ACTION_DELETE || a->kind != K_POD)
			continue;
		if (pod_is_singleton(a->obj))
			singles++;
		else
			others++;
		ref = obj_controller(a->obj);
		k = ref ? kind_of(js_str(ref, "apiVersion"), js_str(ref, "kind")) : KINDS;
		if ((k == K_REPLICASET || k == K_STATEFULSET) && s->f.owners)
			json_object_set_new(
				s->f.owners, js_str_or(ref, "uid", ""),
				json_pack("[i, s, s]", (int)k, obj_ns(a->obj), js_str_or(ref, "name", "")));
	}
	if (!singles && !others)
		return;
	s->f.evicted += singles + others;
	log_info("failover node=%s phase=evict ms=%llu: %zu pods, %zu of them singletons", s->name,
		 (unsigned long long)(clock_ms() - s->f.last_ms), singles + others, singles);
	plan_event(p, (json_t *)node_of(s), "Normal", singles && !others ? "PodsFenced" : "PodsEvicted",
		   "Deleted %zu pods by force, %zu of them singletons, to be replaced elsewhere",
		   singles + others, singles);
}

void nodes_reconcile(struct nodes *n, const char *name, struct plan *p)
{
	struct state *s = strmap_get(n->by_name, name);
	struct node_view v;

	if (!s)
		return;
	v = (struct node_view){s->verdict, s->known, s->fenced};
	node_reconcile(n->m->world, name, &v, p);
	if (s->verdict >= VERDICT_CUT_OFF && node_of(s))
		note_evictions(s, p);
}

void nodes_metrics(struct nodes *n, struct buf *out)
{
	struct state *s;
	const char *name;

	buf_adds(out, "# TYPE kuayu_node_verdict gauge\n");
	strmap_foreach (n->by_name, name, s)
		buf_addf(out, "kuayu_node_verdict{node=\"%s\",verdict=\"%s\"} 1\n", name,
			 verdict_name(s->verdict));
	buf_adds(out, "# TYPE kuayu_node_lease_age_ms gauge\n");
	strmap_foreach (n->by_name, name, s)
		buf_addf(out, "kuayu_node_lease_age_ms{node=\"%s\"} %llu\n", name,
			 (unsigned long long)(clock_ms() - s->seen_ms));
	buf_addf(out,
		 "# TYPE kuayu_failovers_total counter\nkuayu_failovers_total %llu\n"
		 "# TYPE kuayu_failover_last_decide_ms gauge\nkuayu_failover_last_decide_ms %llu\n"
		 "# TYPE kuayu_failover_last_replaced_ms gauge\nkuayu_failover_last_replaced_ms %llu\n",
		 (unsigned long long)n->deaths, (unsigned long long)n->last_decide_ms,
		 (unsigned long long)n->last_replaced_ms);
}

struct nodes *nodes_new(struct manager *m)
{
	struct nodes *n = xcalloc(1, sizeof(*n));

	n->m = m;
	n->by_name = strmap_new();
	n->tick = timer_new(m->loop, on_tick, n);
	timer_start(n->tick, TICK_MS, TICK_MS);
	return n;
}

struct nodes *nodes_free(struct nodes *n)
{
	if (!n)
		return NULL;
	strmap_free(n->by_name, state_free);
	timer_free(n->tick);
	free(n);
	return NULL;
}
