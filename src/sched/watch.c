/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes, pods and namespaces from the API into the snapshot and the queue. Every scheduler keeps them, leader or not, so that a new
 * leader starts at once. A change that may open a place wakes the pods that wait. */
#include "sched/internal.h"

void sched_queue_kick(struct scheduler *s, uint64_t after_ms)
{
	uint64_t at = clock_ms() + after_ms;

	if (s->run_at_ms && s->run_at_ms <= at)
		return;
	s->run_at_ms = MAX(at, (uint64_t)1);
	timer_start(s->run, after_ms, 0);
}

void sched_queue_wake(struct scheduler *s)
{
	const char *key;
	struct pending *p;

	strmap_foreach (s->queue, key, p)
		p->waiting = false;
	sched_queue_kick(s, 0);
}

/* ---- nodes ---- */

/* What decides about pods; heartbeats and addresses do not. */
static bool node_matters(const json_t *old, const json_t *new)
{
	static const char *const paths[] = {"metadata.labels", "spec.taints", "spec.unschedulable",
					    "status.allocatable"};
	struct sched_node *a, *b;
	bool ready_changed;

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (!sched_same_json(old, new, paths[i]))
			return true;
	a = sched_load_node(old);
	b = sched_load_node(new);
	ready_changed = a->ready != b->ready || a->n_taints != b->n_taints;
	sched_node_free(a);
	sched_node_free(b);
	return ready_changed;
}

static void on_node(void *ctx, json_t *old, json_t *obj)
{
	struct scheduler *s = ctx;

	if (!obj)
		sched_node_del(s->state, js_str_or(old, "metadata.name", ""));
	else if (!old || node_matters(old, obj))
		sched_node_set(s->state, sched_load_node(obj));
	else
		return;
	sched_queue_wake(s);
}

/* ---- pods ---- */

static char *key_of(const json_t *pod)
{
	return xasprintf("%s/%s", js_str_or(pod, "metadata.namespace", ""),
			 js_str_or(pod, "metadata.name", ""));
}

static const char *node_of(const json_t *pod)
{
	const char *node = js_str(pod, "spec.nodeName");

	return node && *node ? node : NULL;
}

static void dequeue(struct scheduler *s, const char *key)
{
	sched_pending_free(strmap_del(s->queue, key));
}

static void assigned(struct scheduler *s, const json_t *old, json_t *pod, const char *key)
{
	bool news =
		!old || !node_of(old) || sched_load_pod_finished(old) != sched_load_pod_finished(pod) ||
		!js_get(old, "metadata.deletionTimestamp") != !js_get(pod, "metadata.deletionTimestamp") ||
		!sched_same_json(old, pod, "spec") || !sched_same_json(old, pod, "metadata.labels");

	dequeue(s, key);
	if (!news)
		return;
	if (sched_load_pod_finished(pod))
		sched_pod_del(s->state, js_str(pod, "metadata.namespace"), js_str(pod, "metadata.name"));
	else
		sched_pod_set(s->state, sched_load_pod(pod));
	sched_queue_wake(s);
}

/* Ours, and free to go. */
static bool wanted(const struct scheduler *s, const json_t *pod)
{
	return streq(js_str_or(pod, "spec.schedulerName", "default-scheduler"), s->s.name) &&
	       !js_get(pod, "metadata.deletionTimestamp") &&
	       json_array_size(js_get(pod, "spec.schedulingGates")) == 0 && !sched_load_pod_finished(pod);
}

static void unassigned(struct scheduler *s, json_t *pod, const char *key)
{
	struct pending *p = strmap_get(s->queue, key);

	if (p && !streq(js_str(p->pod, "metadata.uid"), js_str(pod, "metadata.uid"))) {
		if (p->binding)
			sched_pod_del(s->state, js_str(pod, "metadata.namespace"),
				      js_str(pod, "metadata.name"));
		dequeue(s, key);
		p = NULL;
	}
	if (!wanted(s, pod)) {
		dequeue(s, key);
		return;
	}
	if (p)
		sched_pending_update(p, pod);
	else
		strmap_set(s->queue, key, sched_pending_new(key, pod));
	sched_queue_kick(s, 0);
}

static void on_pod(void *ctx, json_t *old, json_t *obj)
{
	struct scheduler *s = ctx;
	_cleanup_free_ char *key = key_of(obj ? obj : old);

	if (!obj) {
		dequeue(s, key);
		sched_pod_del(s->state, js_str(old, "metadata.namespace"), js_str(old, "metadata.name"));
		sched_queue_wake(s);
	} else if (node_of(obj)) {
		assigned(s, old, obj, key);
	} else {
		unassigned(s, obj, key);
	}
}

/* ---- namespaces ---- */

static void on_namespace(void *ctx, json_t *old, json_t *obj)
{
	struct scheduler *s = ctx;
	struct sched_arena mem = {0};
	struct sched_labels labels;

	if (!obj) {
		sched_namespace_set(s->state, js_str_or(old, "metadata.name", ""), NULL, NULL);
		return;
	}
	labels = sched_load_namespace(obj, &mem);
	sched_namespace_set(s->state, js_str_or(obj, "metadata.name", ""), &mem, &labels);
}

/* ---- storage ---- */

static void on_claim(void *ctx, json_t *old, json_t *obj)
{
	if (sched_claim_matters(old, obj))
		sched_queue_wake(ctx);
}

static void on_class(void *ctx, json_t *old, json_t *obj)
{
	(void)old, (void)obj;
	sched_queue_wake(ctx);
}

static void on_synced(void *ctx)
{
	sched_queue_kick(ctx, 0);
}

static struct kube_cache *watch(struct scheduler *s, const char *group, const char *plural,
				void (*changed)(void *ctx, json_t *old, json_t *obj))
{
	const struct model_kind *kind = model_kind_by_plural(group, "v1", plural);
	struct kube_cache_handler h = {changed, on_synced, s};

	ensure(kind);
	return kube_cache_new(s->kube, kind, NULL, NULL, &h);
}

void sched_watch(struct scheduler *s)
{
	s->namespaces = watch(s, "", "namespaces", on_namespace);
	s->nodes = watch(s, "", "nodes", on_node);
	s->pods = watch(s, "", "pods", on_pod);
	s->claims = watch(s, "", "persistentvolumeclaims", on_claim);
	s->classes = watch(s, "storage.k8s.io", "storageclasses", on_class);
}

bool sched_synced(const struct scheduler *s)
{
	return kube_cache_synced(s->nodes) && kube_cache_synced(s->pods) &&
	       kube_cache_synced(s->namespaces) && kube_cache_synced(s->claims) &&
	       kube_cache_synced(s->classes);
}

void sched_unwatch(struct scheduler *s)
{
	s->namespaces = kube_cache_free(s->namespaces);
	s->nodes = kube_cache_free(s->nodes);
	s->pods = kube_cache_free(s->pods);
	s->claims = kube_cache_free(s->claims);
	s->classes = kube_cache_free(s->classes);
}
