/* SPDX-License-Identifier: Apache-2.0 */
/* The manager: caches -> world -> queue -> reconcile -> plan -> API.
 *
 * One item a controller and object. An item whose writes are on their way is not reconciled again; answers are put into
 * the caches at once, so the next look sees what was done (no second pod for the same gap). A write that conflicts or
 * fails brings the item back after a back-off. All writes of a plan go out at once.
 *
 * Only the leader works; the others keep their caches warm. A new leader lists everything anew, from the newest state
 * of the store, before it does anything: what the one before wrote last is seen. */
#include "control/manager.h"

#include "control/provision.h"

#define RUN_MS		 1 /* changes that come together are looked at together */
#define POLL_MS		 5000
#define WRITE_TIMEOUT_MS 5000

struct item {
	enum controller c;
	char *ns, *name;
	uint64_t due_ms; /* UINT64_MAX = nothing to do */
	unsigned failures;
	int in_flight;
	bool failed; /* a write of this round did */
	uint64_t
		rest_until_ms; /* a look that took long is not repeated at once: four times as long is left to others */
};

struct write {
	struct manager *m;
	enum controller c;
	char *key;
	enum kind kind;
	enum action_type type;
	json_t *obj; /* what is deleted, or the dependent */
	json_t *ref;
	uint64_t term; /* answers to writes of an earlier one count no more */
};

const char *controller_name(enum controller c)
{
	static const char *const names[] = {
		[C_NODE] = "node",
		[C_ENDPOINTS] = "endpointslice",
		[C_REPLICASET] = "replicaset",
		[C_STATEFULSET] = "statefulset",
		[C_DEPLOYMENT] = "deployment",
		[C_PODCIDR] = "podcidr",
		[C_GC] = "garbage",
		[C_PODGC] = "podgarbage",
		[C_CLAIM] = "claim",
		[C_VOLUME] = "volume",
	};

	ensure((size_t)c < ARRAY_SIZE(names));
	return names[c];
}

bool manager_ready(const struct manager *m)
{
	return m->leading && m->unsynced == 0 && kube_leader_is(m->leader);
}

size_t manager_waiting(const struct manager *m)
{
	size_t n = 0;

	for (int c = 0; c < CONTROLLERS; c++)
		n += strmap_len(m->queue[c]);
	return n;
}

/* ---- queue ---- */
static void run(void *ctx);

static void wake(struct manager *m, uint64_t due_ms)
{
	uint64_t now = clock_ms();

	if (due_ms >= m->due_ms)
		return;
	m->due_ms = due_ms;
	timer_start(m->timer, due_ms > now ? due_ms - now : 0, 0);
}

static void item_free(void *p)
{
	struct item *it = p;

	free(it->ns);
	free(it->name);
	free(it);
}

void manager_enqueue(struct manager *m, enum controller c, const char *ns, const char *name,
		     uint64_t delay_ms)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", ns, name);
	uint64_t due = clock_ms() + MAX(delay_ms, RUN_MS);
	struct item *it;

	if (!m->leading || m->closing)
		return;
	it = strmap_get(m->queue[c], key);
	if (!it) {
		it = xcalloc(1, sizeof(*it));
		*it = (struct item){.c = c, .ns = xstrdup(ns), .name = xstrdup(name), .due_ms = UINT64_MAX};
		strmap_set(m->queue[c], key, it);
	}
	it->due_ms = MIN(it->due_ms, MAX(due, it->rest_until_ms));
	if (!it->in_flight)
		wake(m, it->due_ms);
}

/* ---- carrying out ---- */
static void write_free(struct write *wr)
{
	free(wr->key);
	json_decref(wr->obj);
	json_decref(wr->ref);
	free(wr);
}

static void item_written(struct write *wr, bool ok, bool soon)
{
	struct manager *m = wr->m;
	struct item *it = strmap_get(m->queue[wr->c], wr->key);

	if (!it || wr->term != m->terms || !it->in_flight)
		return; /* leadership was lost meanwhile */
	it->failed |= !ok;
	if (--it->in_flight > 0)
		return;
	if (it->failed) {
		uint64_t wait =
			soon && it->failures < 5 ? 20 : MIN((uint64_t)100 << MIN(it->failures, 6), 5000);

		it->failures++;
		it->failed = false;
		it->due_ms = clock_ms() + wait;
	} else {
		it->failures = 0;
		it->due_ms =
			MIN(it->due_ms, MAX(clock_ms() + RUN_MS, it->rest_until_ms)); /* look at the result */
	}
	wake(m, it->due_ms);
}

static void on_written(void *ctx, int status, json_t *body)
{
	struct write *wr = ctx;
	struct manager *m = wr->m;
	bool ok = status >= 200 && status < 300;

	if (ok && wr->type == ACTION_DELETE) {
		/* Gone at once, or going: then the answer is the object with its deletionTimestamp. */
		if (body && streq(js_str(body, "kind"), control_kinds[wr->kind].kind) && obj_deleting(body) &&
		    (js_int(body, "metadata.deletionGracePeriodSeconds", 1) > 0 ||
		     json_array_size(js_get(body, "metadata.finalizers"))))
			kube_cache_apply(m->caches[wr->kind], body);
		else
			world_bury(m->world, wr->kind, wr->obj);
	} else if (ok && body) {
		kube_cache_apply(m->caches[wr->kind], body);
	} else if (status == 404 && wr->type != ACTION_CREATE) {
		ok = true; /* its deletion will be seen */
		if (wr->type == ACTION_DELETE)
			world_bury(m->world, wr->kind, wr->obj);
	} else if (status == 409) {
		m->conflicts++;
		if (wr->type == ACTION_DELETE) { /* another uid has the name: ours is gone */
			ok = true;
			world_bury(m->world, wr->kind, wr->obj);
		}
	} else if (!ok) {
		m->failures++;
		log_warn("%s %s: %s answered %d %s", controller_name(wr->c), wr->key,
			 control_kinds[wr->kind].plural, status, body ? js_str_or(body, "message", "") : "");
	}
	item_written(wr, ok, status == 409);
	write_free(wr);
}

static void delete_now(struct write *wr, int64_t grace_s)
{
	_cleanup_free_ char *path =
		kube_path(&control_kinds[wr->kind], obj_ns(wr->obj), obj_name(wr->obj), NULL);
	_cleanup_json_ json_t *body =
		json_pack("{s:s, s:s, s:{s:s}, s:s}", "kind", "DeleteOptions", "apiVersion", "v1",
			  "preconditions", "uid", obj_uid(wr->obj), "propagationPolicy", "Background");

	if (grace_s >= 0)
		json_object_set_new(body, "gracePeriodSeconds", json_integer(grace_s));
	wr->type = ACTION_DELETE;
	kube_call(wr->m->kube, &(struct kube_request){.method = "DELETE",
						      .path = path,
						      .body = body,
						      .timeout_ms = WRITE_TIMEOUT_MS,
						      .attempt_ms = 2000,
						      .again = true, /* by uid: a second one finds nothing */
						      .done = on_written,
						      .ctx = wr});
}

static void on_owner_read(void *ctx, int status, json_t *body)
{
	struct write *wr = ctx;
	bool node = wr->type == ACTION_DELETE_IF_NODE_GONE;

	if (status == 404 || (status == 200 && !node && !streq(obj_uid(body), js_str(wr->ref, "uid")))) {
		log_info("%s %s/%s: its %s is gone, deleting it", control_kinds[wr->kind].kind,
			 obj_ns(wr->obj), obj_name(wr->obj), node ? "node" : "owner");
		delete_now(wr, node ? 0 : -1);
		return;
	}
	/* It is there; the cache will show it. Look again later in case it does not. */
	item_written(wr, false, false);
	write_free(wr);
}

static void ask_owner(struct manager *m, struct write *wr)
{
	enum kind k = K_NODE;
	const char *name = js_str_or(wr->obj, "spec.nodeName", "");

	if (wr->type == ACTION_DELETE_IF_OWNER_GONE) {
		k = kind_of(js_str(wr->ref, "apiVersion"), js_str(wr->ref, "kind"));
		name = js_str_or(wr->ref, "name", "");
	}
	ensure(k < KINDS);
	kube_get(m->kube, &control_kinds[k], obj_ns(wr->obj), name, on_owner_read, wr);
}

static void on_csi_done(void *ctx, bool ok)
{
	struct write *wr = ctx;

	wr->m->failures += !ok;
	item_written(wr, ok, false);
	write_free(wr);
}

static void send_write(struct manager *m, const struct action *a, struct write *wr)
{
	const struct model_kind *kind = &control_kinds[a->kind];
	const json_t *o = a->type == ACTION_CREATE ? a->body : a->obj;
	_cleanup_free_ char *path =
		kube_path(kind, obj_ns(o), a->type == ACTION_CREATE ? NULL : obj_name(o), a->subresource);
	struct kube_request r = {
		.path = path,
		.body = a->body,
		.timeout_ms = WRITE_TIMEOUT_MS,
		.attempt_ms = 2000,
		.again = true, /* created by name, changed by resourceVersion or to a fixed value */
		.done = on_written,
		.ctx = wr};

	m->writes++;
	switch (a->type) {
	case ACTION_CREATE:
		r.method = "POST";
		break;
	case ACTION_UPDATE:
		r.method = "PUT";
		break;
	case ACTION_PATCH_MERGE:
	case ACTION_PATCH_STRATEGIC:
		r.method = "PATCH";
		r.content_type = a->type == ACTION_PATCH_MERGE ? "application/merge-patch+json"
							       : "application/strategic-merge-patch+json";
		break;
	case ACTION_DELETE:
		delete_now(wr, a->grace_s);
		return;
	case ACTION_DELETE_IF_OWNER_GONE:
	case ACTION_DELETE_IF_NODE_GONE:
		ask_owner(m, wr);
		return;
	case ACTION_CSI_CREATE:
	case ACTION_CSI_DELETE:
	case ACTION_CSI_EXPAND:
	case ACTION_CLAIM_RELEASE:
		provision_carry_out(m, a, on_csi_done, wr);
		return;
	case ACTION_EVENT:
		ensure(false);
	}
	kube_call(m->kube, &r);
}

static void carry_out(struct manager *m, struct item *it, const char *key, const struct plan *p)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct action *a = &p->actions[i];
		struct write *wr;

		if (a->type == ACTION_EVENT)
			continue;
		wr = xcalloc(1, sizeof(*wr));
		*wr = (struct write){.m = m,
				     .c = it->c,
				     .key = xstrdup(key),
				     .kind = a->kind,
				     .type = a->type,
				     .obj = json_incref(a->obj),
				     .term = m->terms};
		if (a->type == ACTION_DELETE_IF_OWNER_GONE)
			wr->ref = json_incref(a->body);
		it->in_flight++;
		send_write(m, a, wr);
	}
	/* Events last: nobody waits for them. */
	for (size_t i = 0; i < p->n; i++) {
		const struct action *a = &p->actions[i];

		if (a->type == ACTION_EVENT)
			kube_event(m->kube, a->obj, js_str_or(a->body, "type", "Normal"),
				   js_str_or(a->body, "reason", ""), "%s", js_str_or(a->body, "message", ""));
	}
}

static void reconcile(struct manager *m, const struct item *it, struct plan *p)
{
	static const reconcile_fn fns[CONTROLLERS] = {
		[C_ENDPOINTS] = endpoints_reconcile,
		[C_REPLICASET] = replicaset_reconcile,
		[C_STATEFULSET] = statefulset_reconcile,
		[C_DEPLOYMENT] = deployment_reconcile,
		[C_GC] = gc_reconcile,
		[C_CLAIM] = claim_reconcile,
		[C_VOLUME] = volume_reconcile,
	};

	if (it->c == C_NODE)
		nodes_reconcile(m->nodes, it->name, p);
	else if (it->c == C_PODCIDR)
		podcidr_reconcile(m->world, m->pod_cidr, p);
	else if (it->c == C_PODGC)
		podgc_reconcile(m->world, p);
	else
		fns[it->c](m->world, it->ns, it->name, p);
}

static void run_item(struct manager *m, struct item *it, const char *key)
{
	_cleanup_(plan_done) struct plan p;
	uint64_t start = clock_us(), spent_us;

	plan_init(&p, clock_wall_us());
	it->due_ms = UINT64_MAX;
	reconcile(m, it, &p);
	m->reconciles[it->c]++;
	spent_us = clock_us() - start;
	m->longest_us = MAX(m->longest_us, spent_us);
	it->rest_until_ms = clock_ms() + spent_us * 4 / 1000;
	if (p.again_ms >= 0)
		it->due_ms = clock_ms() + (uint64_t)MAX(p.again_ms, RUN_MS);
	carry_out(m, it, key, &p);
}

static void run(void *ctx)
{
	struct manager *m = ctx;
	uint64_t now = clock_ms(), next = UINT64_MAX;

	m->due_ms = UINT64_MAX;
	if (!manager_ready(m))
		return;
	for (int c = 0; c < CONTROLLERS; c++) {
		struct item *it;
		const char *key;

		strmap_foreach (m->queue[c], key, it) {
			if (it->in_flight)
				continue;
			if (it->due_ms <= now)
				run_item(m, it, key);
			if (it->in_flight)
				continue;
			if (it->due_ms == UINT64_MAX) {
				if (it->rest_until_ms > now) { /* stays to be remembered */
					next = MIN(next, it->rest_until_ms + 1);
					continue;
				}
				_cleanup_free_ char *copy = xstrdup(key);

				item_free(strmap_del(m->queue[c], copy));
			} else {
				next = MIN(next, it->due_ms);
			}
		}
	}
	if (next != UINT64_MAX)
		wake(m, next);
}

static void on_poll(void *ctx)
{
	manager_enqueue(ctx, C_PODGC, "", "all", 0);
	manager_enqueue(ctx, C_PODCIDR, "", "all", 0);
}

/* ---- caches ---- */
struct feed {
	struct manager *m;
	enum kind kind;
	bool waiting;
};

static struct feed feeds[KINDS]; /* one manager a process */

static void on_changed(void *ctx, json_t *old, json_t *obj)
{
	struct feed *f = ctx;

	if (obj)
		world_put(f->m->world, f->kind, obj);
	else
		world_del(f->m->world, f->kind, obj_ns(old), obj_name(old));
	nodes_changed(f->m->nodes, f->kind, old, obj);
	if (f->m->leading)
		triggers_changed(f->m, f->kind, old, obj);
}

static void on_synced(void *ctx)
{
	struct feed *f = ctx;
	struct manager *m = f->m;

	if (!f->waiting)
		return;
	f->waiting = false;
	if (--m->unsynced > 0 || !m->leading)
		return;
	log_info("all listed: %zu nodes, %zu pods; work starts", world_len(m->world, K_NODE),
		 world_len(m->world, K_POD));
	nodes_leading(m->nodes);
	triggers_all(m);
	on_poll(m);
	timer_start(m->poll, POLL_MS, POLL_MS);
}

static void on_started(void *ctx)
{
	struct manager *m = ctx;

	m->leading = true;
	m->terms++;
	m->unsynced = KINDS;
	for (int k = 0; k < KINDS; k++) {
		feeds[k].waiting = true;
		kube_cache_resync(m->caches[k]);
	}
}

static void on_stopped(void *ctx)
{
	struct manager *m = ctx;

	m->leading = false;
	timer_stop(m->poll);
	timer_stop(m->timer);
	m->due_ms = UINT64_MAX;
	for (int c = 0; c < CONTROLLERS; c++) {
		strmap_free(m->queue[c], item_free);
		m->queue[c] = strmap_new();
	}
}

struct manager *manager_new(uv_loop_t *loop, struct kube *k, const char *identity, const char *pod_cidr)
{
	struct manager *m = xcalloc(1, sizeof(*m));
	struct kube_leader_options lo = {.ns = "kube-system",
					 .name = "kuayu-controller",
					 .identity = identity,
					 .started = on_started,
					 .stopped = on_stopped,
					 .ctx = m};

	m->loop = loop;
	m->kube = k;
	m->pod_cidr = pod_cidr;
	m->world = world_new();
	m->timer = timer_new(loop, run, m);
	m->poll = timer_new(loop, on_poll, m);
	m->due_ms = UINT64_MAX;
	for (int c = 0; c < CONTROLLERS; c++)
		m->queue[c] = strmap_new();
	m->nodes = nodes_new(m);
	for (int kind = 0; kind < KINDS; kind++) {
		struct kube_cache_handler h = {on_changed, on_synced, &feeds[kind]};

		feeds[kind] = (struct feed){m, (enum kind)kind, false};
		m->caches[kind] = kube_cache_new(k, &control_kinds[kind], NULL, NULL, &h);
	}
	m->leader = kube_leader_new(k, &lo);
	return m;
}

int manager_csi(struct manager *m, char *const *endpoints, struct err *e)
{
	return provision_new(m, endpoints, &m->provision, e);
}

struct manager *manager_free(struct manager *m)
{
	if (!m)
		return NULL;
	m->closing = true;
	on_stopped(m);
	provision_free(m->provision);
	kube_leader_free(m->leader);
	for (int k = 0; k < KINDS; k++)
		kube_cache_free(m->caches[k]);
	nodes_free(m->nodes);
	for (int c = 0; c < CONTROLLERS; c++)
		strmap_free(m->queue[c], item_free);
	timer_free(m->timer);
	timer_free(m->poll);
	world_free(m->world);
	free(m);
	return NULL;
}
