/* SPDX-License-Identifier: Apache-2.0 */
/* The queue -> bindings. A decided pod is put into the snapshot at once (assumed), so that the next decision sees it, and bound by a
 * call that runs beside the following decisions. A binding that fails is taken back and tried again after a back-off. One
 * whose outcome is unknown too: if it did succeed, the second one is refused (409) and the watch shows where the pod is.
 *
 * Only the leader decides. A pod that fits nowhere gets the condition PodScheduled=False and an event, each time the reason changes,
 * and waits for a change in the cluster. */
#include "sched/internal.h"

/* What a call on its way needs: by its answer the queue may have another pod of that name. */
struct binding {
	struct scheduler *s;
	json_t *pod;
	char *key, *node;
	uint64_t seen_us;
};

static void binding_free(struct binding *b)
{
	free(b->key);
	json_decref(b->pod);
	free(b->node);
	free(b);
}

static struct binding *binding_new(struct scheduler *s, const struct pending *p, const char *node)
{
	struct binding *b = xcalloc(1, sizeof(*b));

	b->s = s;
	b->key = xstrdup(p->key);
	b->pod = json_incref(p->pod);
	b->seen_us = p->seen_us;
	b->node = node ? xstrdup(node) : NULL;
	return b;
}

/* The pod goes back into the queue. */
static void take_back(struct scheduler *s, struct pending *p)
{
	p->binding = false;
	sched_pod_del(s->state, js_str(p->pod, "metadata.namespace"), js_str(p->pod, "metadata.name"));
	if (!p->compiled)
		p->compiled = sched_load_pod(p->pod);
	p->not_before_ms = clock_ms() + sched_pending_backoff_ms(p->attempts);
	sched_queue_kick(s, sched_pending_backoff_ms(p->attempts));
}

static void on_bound(void *ctx, int status, json_t *body)
{
	struct binding *b = ctx;
	struct scheduler *s = b->s;
	struct pending *p = strmap_get(s->queue, b->key);
	bool ours = p && p->binding && streq(js_str(p->pod, "metadata.uid"), js_str(b->pod, "metadata.uid"));

	if (status == 200 || status == 201) {
		/* The watch may have told already, and the queue have forgotten the pod. */
		s->metrics.scheduled++;
		sched_histogram_add(&s->metrics.bound, (double)(clock_us() - b->seen_us) / 1e6);
		kube_event(s->kube, b->pod, "Normal", "Scheduled", "Successfully assigned %s to %s", b->key,
			   b->node);
	} else {
		s->metrics.bind_errors++;
		log_warn("binding %s to %s: %d %s", b->key, b->node, status, js_str_or(body, "message", ""));
		if (ours)
			take_back(s, p);
	}
	binding_free(b);
}

static void bind_pod(struct scheduler *s, struct pending *p, const char *node)
{
	const char *ns = js_str_or(p->pod, "metadata.namespace", ""),
		   *name = js_str_or(p->pod, "metadata.name", "");
	_cleanup_free_ char *path = kube_path(s->pod_kind, ns, name, "binding");
	struct binding *b = binding_new(s, p, node);
	_cleanup_json_ json_t *body = json_pack(
		"{s:s, s:s, s:{s:s, s:s, s:s*}, s:{s:s, s:s, s:s}}", "apiVersion", "v1", "kind", "Binding",
		"metadata", "namespace", ns, "name", name, "uid", js_str(p->pod, "metadata.uid"), "target",
		"apiVersion", "v1", "kind", "Node", "name", node);

	p->binding = true;
	p->compiled->node_name = sched_sym(&p->compiled->mem, node);
	sched_pod_set(s->state, take_ptr(p->compiled));
	kube_raw(s->kube, "POST", path, NULL, body, on_bound, b);
}

static void on_told(void *ctx, int status, json_t *body)
{
	struct binding *b = ctx;
	struct pending *p = strmap_get(b->s->queue, b->key);

	if (p && streq(js_str(p->pod, "metadata.uid"), js_str(b->pod, "metadata.uid"))) {
		p->telling = false;
		if (status != 200) { /* told again with the next decision */
			log_debug("status of %s: %d %s", b->key, status, js_str_or(body, "message", ""));
			free(take_ptr(p->message));
		}
		sched_queue_kick(b->s, 0);
	}
	binding_free(b);
}

/* Tells it in the pod's status and as an event, when it is news. */
static void refuse(struct scheduler *s, struct pending *p, const char *text)
{
	const char *ns = js_str_or(p->pod, "metadata.namespace", ""),
		   *name = js_str_or(p->pod, "metadata.name", "");
	_cleanup_json_ json_t *patch = NULL;
	char now[CLOCK_TEXT_MAX];

	s->metrics.unschedulable++;
	p->waiting = true;
	p->not_before_ms = clock_ms() + sched_pending_backoff_ms(p->attempts);
	if (streq(p->message, text))
		return;
	free(p->message);
	p->message = xstrdup(text);
	patch = json_pack("{s:{s:[{s:s, s:s, s:s, s:s, s:s}]}}", "status", "conditions", "type",
			  "PodScheduled", "status", "False", "reason", "Unschedulable", "message", text,
			  "lastTransitionTime", clock_text(now, clock_wall_us(), 0));
	kube_patch(s->kube, s->pod_kind, ns, name, "status", KUBE_PATCH_STRATEGIC, patch, on_told,
		   binding_new(s, p, NULL));
	p->telling = true;
	kube_event(s->kube, p->pod, "Warning", "FailedScheduling", "%s", text);
	log_info("%s: %s", p->key, text);
}

static void decide(struct scheduler *s, struct pending *p)
{
	struct sched_options o = {.reserve = s->s.reserve};
	_cleanup_buf_ struct buf text = {.limit = 4096};
	enum sched_claims claims = sched_claims_look(s, p->pod, &text);
	struct sched_decision d;
	uint64_t start = clock_us();

	p->attempts++;
	if (claims == CLAIMS_WAIT) {
		refuse(s, p, text.data);
		return;
	}
	sched_decide(s->state, p->compiled, &o, &d);
	sched_histogram_add(&s->metrics.decision, (double)(clock_us() - start) / 1e6);
	if (!d.node) {
		sched_explain(s->state, p->compiled, &d, &text);
		refuse(s, p, text.data);
	} else if (claims == CLAIMS_CHOOSE) {
		sched_claims_choose(s, p->pod, d.node->name.s);
		refuse(s, p, "waiting for the volumes of its PersistentVolumeClaims to be made");
	} else {
		_cleanup_free_ char *node = xstrdup(d.node->name.s);

		bind_pod(s, p, node);
	}
}

/* Collects what may be tried now; *ret_next_ms = when the next one may, 0 = none waits for its time. */
static struct pending **collect(struct scheduler *s, size_t *ret_n, uint64_t *ret_next_ms)
{
	struct pending **list = xcalloc(strmap_len(s->queue) + 1, sizeof(list[0])), *p;
	uint64_t now = clock_ms();
	const char *key;
	size_t n = 0;

	*ret_next_ms = 0;
	strmap_foreach (s->queue, key, p) {
		if (p->binding || p->telling || p->waiting || !p->compiled)
			continue;
		if (p->not_before_ms <= now)
			list[n++] = p;
		else if (!*ret_next_ms || p->not_before_ms < *ret_next_ms)
			*ret_next_ms = p->not_before_ms;
	}
	if (n)
		qsort(list, n, sizeof(list[0]), sched_pending_compare);
	*ret_n = n;
	return list;
}

void sched_run(void *ctx)
{
	struct scheduler *s = ctx;
	_cleanup_free_ struct pending **list = NULL;
	uint64_t next_ms;
	size_t n;

	s->run_at_ms = 0;
	if (!s->leading || !sched_synced(s))
		return;
	list = collect(s, &n, &next_ms);
	for (size_t i = 0; i < n && i < BATCH_MAX; i++)
		decide(s, list[i]);
	if (n > BATCH_MAX)
		sched_queue_kick(s, 0);
	else if (next_ms)
		sched_queue_kick(s, next_ms - MIN(next_ms, clock_ms()));
}

void sched_forget(struct scheduler *s)
{
	const char *key;
	struct pending *p;

	strmap_foreach (s->queue, key, p)
		if (p->binding)
			take_back(s, p);
}
