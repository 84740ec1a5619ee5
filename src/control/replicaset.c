/* SPDX-License-Identifier: Apache-2.0 */
/* ReplicaSet: as many pods of a template as wanted. Pods are found by their controller reference; matching orphans are
 * adopted. A pod that is being deleted does not count, so its replacement starts at once. Scaling down takes first what
 * hurts least: pods that are not placed, not running, not ready, on a node that is given up, with a lower deletion cost,
 * that share their node with others, that are youngest. */
#include "control/reconcile.h"

#define BURST 500 /* pods created or deleted in one go */

struct ranked {
	json_t *pod;
	int phase, ready, reachable;
	int64_t cost, ready_us, created_us;
	size_t on_node;
};

static int order(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

#define BY(field, sign)                                               \
	do {                                                          \
		if (x->field != y->field)                             \
			return (x->field < y->field ? -1 : 1) * sign; \
	} while (0)
	BY(phase, 1);
	BY(reachable, 1);
	BY(ready, 1);
	BY(cost, 1);
	BY(on_node, -1);
	BY(ready_us, -1);
	BY(created_us, -1);
#undef BY
	return strcmp(obj_name(x->pod), obj_name(y->pod));
}

static int phase_rank(const json_t *pod)
{
	const char *phase = js_str_or(pod, "status.phase", "Pending");

	if (!js_str(pod, "spec.nodeName"))
		return 0;
	return streq(phase, "Running") ? 3 : streq(phase, "Unknown") ? 2 : 1;
}

static struct ranked *rank(const struct world *w, json_t **pods, size_t n)
{
	struct ranked *r = xcalloc(n + 1, sizeof(*r));
	struct strmap *on_node = strmap_new(); /* node -> number of its pods here */

	for (size_t i = 0; i < n; i++) {
		const char *name = js_str_or(pods[i], "spec.nodeName", "");

		strmap_set(on_node, name, (void *)((uintptr_t)strmap_get(on_node, name) + 1));
	}
	for (size_t i = 0; i < n; i++) {
		const char *node_name = js_str(pods[i], "spec.nodeName");
		const json_t *node = node_name ? world_get(w, K_NODE, "", node_name) : NULL;
		const char *cost = obj_annotation(pods[i], "controller.kubernetes.io/pod-deletion-cost");

		r[i] = (struct ranked){.pod = pods[i],
				       .phase = phase_rank(pods[i]),
				       .ready = pod_is_ready(pods[i]),
				       .reachable =
					       !node || !node_has_taint(node, UNREACHABLE_TAINT, "NoExecute"),
				       .created_us = obj_time_us(pods[i], "metadata.creationTimestamp")};
		if (r[i].ready)
			r[i].ready_us = obj_time_us(obj_condition(pods[i], "Ready"), "lastTransitionTime");
		if (cost && str_i64(cost, &r[i].cost) < 0)
			r[i].cost = 0;
		if (node_name)
			r[i].on_node = (uintptr_t)strmap_get(on_node, node_name);
	}
	strmap_free(on_node, NULL);
	qsort(r, n, sizeof(*r), order);
	return r;
}

static void adopt(const struct world *w, json_t *rs, struct plan *p)
{
	_cleanup_free_ json_t **pods = world_list(w, K_POD, obj_ns(rs), NULL);
	const json_t *selector = js_get(rs, "spec.selector");

	for (size_t i = 0; pods[i]; i++) {
		json_t *refs;

		if (obj_controller(pods[i]) || !pod_is_active(pods[i]) ||
		    !model_labels_match(selector, js_get(pods[i], "metadata.labels")))
			continue;
		refs = js_get(pods[i], "metadata.ownerReferences");
		refs = refs ? json_deep_copy(refs) : json_array();
		json_array_append_new(refs, owner_ref_new(rs, K_REPLICASET, true));
		/* The uid makes sure that it is still this pod. */
		plan_patch(p, ACTION_PATCH_MERGE, K_POD, NULL, pods[i],
			   json_pack("{s:{s:s, s:o}}", "metadata", "uid", obj_uid(pods[i]), "ownerReferences",
				     refs));
	}
}

static void scale(const struct world *w, json_t *rs, json_t **active, size_t n, struct plan *p)
{
	int64_t want = js_int(rs, "spec.replicas", 1);
	_cleanup_free_ struct ranked *r = NULL;

	for (int64_t i = (int64_t)n; i < want && i < (int64_t)n + BURST; i++) {
		char *name = plan_name(p, obj_name(rs));

		plan_event(p, rs, "Normal", "SuccessfulCreate", "Created pod: %s", name);
		plan_create(p, K_POD, pod_object_new(js_get(rs, "spec.template"), rs, K_REPLICASET, name));
	}
	if ((int64_t)n <= want)
		return;
	r = rank(w, active, n);
	for (size_t i = 0; i < n - (size_t)want && i < BURST; i++) {
		plan_event(p, rs, "Normal", "SuccessfulDelete", "Deleted pod: %s", obj_name(r[i].pod));
		plan_delete(p, K_POD, r[i].pod, -1);
	}
}

static void set_status(json_t *rs, json_t **active, size_t n, struct plan *p)
{
	int64_t ready = 0, available = 0, labelled = 0, in_ms = -1;
	int64_t min_ready_s = js_int(rs, "spec.minReadySeconds", 0);
	const json_t *labels = js_get(rs, "spec.template.metadata.labels"), *value;
	json_t *status = js_get(rs, "status") ? json_deep_copy(js_get(rs, "status")) : json_object();

	for (size_t i = 0; i < n; i++) {
		const char *key;
		bool all = true;

		json_object_foreach ((json_t *)labels, key, value)
			all &= streq(obj_label(active[i], key), json_string_value(value));
		labelled += all;
		ready += pod_is_ready(active[i]);
		available += pod_is_available(active[i], min_ready_s, p->now_us, &in_ms);
	}
	json_object_set_new(status, "replicas", json_integer((json_int_t)n));
	json_object_set_new(status, "fullyLabeledReplicas", json_integer(labelled));
	json_object_set_new(status, "readyReplicas", json_integer(ready));
	json_object_set_new(status, "availableReplicas", json_integer(available));
	json_object_set_new(status, "observedGeneration", json_integer(js_int(rs, "metadata.generation", 0)));
	plan_status(p, K_REPLICASET, rs, status);
	if (in_ms >= 0)
		plan_again(p, in_ms);
}

void replicaset_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p)
{
	json_t *rs = world_get(w, K_REPLICASET, ns, name);
	_cleanup_free_ json_t **pods = NULL;
	size_t n = 0;

	if (!rs)
		return;
	pods = world_list(w, K_POD, ns, obj_uid(rs));
	for (size_t i = 0; pods[i]; i++)
		if (pod_is_active(pods[i]))
			pods[n++] = pods[i];
	if (!obj_deleting(rs)) {
		size_t before = p->n;

		adopt(w, rs, p);
		if (p->n == before) /* else first see what was adopted */
			scale(w, rs, pods, n, p);
	}
	set_status(rs, pods, n, p);
}
