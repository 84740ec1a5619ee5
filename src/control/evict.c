/* SPDX-License-Identifier: Apache-2.0 */
/* From a verdict to writes on the node and its pods. All of them go out in one pass:
 *
 *   dead, cut off   condition Ready=Unknown; taints unreachable NoSchedule + NoExecute; every pod there Ready=False (so
 *                   that nobody sends traffic) or deleted by force:
 *                     tolerates unreachable:NoExecute for ever   stays (its own quorum fences it)
 *                     tolerates it for N seconds                 deleted after them
 *                     singleton                                  deleted when fenced: its agent has killed it by then
 *                     all others                                 deleted now
 *   ready           taints away; Ready of node and pods back to what the agent last said when it was only our doing;
 *                   Ready=False by its own word gives taints not-ready, and its pods are asked to leave after NOT_READY_S
 *                   pods that do not tolerate a NoExecute taint that somebody else set are asked to leave
 *   slow, returning nothing changes
 *
 * Deletion is by uid and without grace: the agent that could stop the pod is not heard. When it comes back it finds pods
 * that the API does not know and stops them. */
#include "control/evict.h"

#define NOT_READY_S	30
#define POD_UNREACHABLE "NodeUnreachable"

static json_t *taint_new(const struct plan *p, const char *key, const char *effect)
{
	return json_pack("{s:s, s:s, s:o}", "key", key, "effect", effect, "timeAdded", plan_time(p));
}

/* Adds what is missing of `key`, drops `other`; NULL when nothing changes. */
static json_t *taints_with(const struct plan *p, const json_t *node, const char *key, bool schedule,
			   bool execute)
{
	static const char *const ours[] = {UNREACHABLE_TAINT, NOT_READY_TAINT};
	json_t *out = json_array(), *t;
	bool want[2] = {schedule, execute}, changed = false;
	static const char *const effects[] = {"NoSchedule", "NoExecute"};
	size_t i;

	json_array_foreach (js_get(node, "spec.taints"), i, t) {
		const char *k = js_str_or(t, "key", ""), *effect = js_str_or(t, "effect", "");
		bool keep = !streq(k, ours[0]) && !streq(k, ours[1]);

		for (int e = 0; e < 2; e++)
			if (key && streq(k, key) && streq(effect, effects[e]) && want[e]) {
				want[e] = false;
				keep = true;
			}
		if (keep)
			json_array_append(out, t);
		else
			changed = true;
	}
	for (int e = 0; e < 2; e++)
		if (key && want[e]) {
			json_array_append_new(out, taint_new(p, key, effects[e]));
			changed = true;
		}
	if (changed)
		return out;
	json_decref(out);
	return NULL;
}

static void set_taints(struct plan *p, json_t *node, const char *key, bool schedule, bool execute)
{
	json_t *taints = taints_with(p, node, key, schedule, execute);

	if (taints)
		plan_patch(p, ACTION_PATCH_MERGE, K_NODE, NULL, node,
			   json_pack("{s:{s:s}, s:{s:o}}", "metadata", "resourceVersion",
				     js_str_or(node, "metadata.resourceVersion", ""), "spec", "taints",
				     taints));
}

/* reason and message may be NULL: taken away. */
static void set_condition(struct plan *p, enum kind kind, json_t *obj, const char *status, const char *reason,
			  const char *message)
{
	plan_patch(p, ACTION_PATCH_STRATEGIC, kind, "status", obj,
		   json_pack("{s:{s:[{s:s, s:s, s:s?, s:s?, s:o}]}}", "status", "conditions", "type", "Ready",
			     "status", status, "reason", reason, "message", message, "lastTransitionTime",
			     plan_time(p)));
}

static int64_t tainted_us(const json_t *node, int64_t now_us)
{
	json_t *t;
	size_t i;

	json_array_foreach (js_get(node, "spec.taints"), i, t)
		if (streq(js_str(t, "key"), UNREACHABLE_TAINT) && streq(js_str(t, "effect"), "NoExecute"))
			return obj_time_us(t, "timeAdded") ? obj_time_us(t, "timeAdded") : now_us;
	return now_us;
}

static bool may_evict(const json_t *node, json_t *pod, const struct node_view *v, struct plan *p)
{
	int64_t tolerated_s = pod_toleration_s(pod, UNREACHABLE_TAINT, "", 0), left_us;

	if (tolerated_s == INT64_MAX)
		return false;
	left_us = tainted_us(node, p->now_us) + tolerated_s * 1000000 - p->now_us;
	if (tolerated_s > 0 && left_us > 0) {
		plan_again(p, left_us / 1000 + 10);
		return false;
	}
	return v->fenced || !pod_is_singleton(pod);
}

static void give_up(const struct world *w, json_t *node, const struct node_view *v, struct plan *p)
{
	_cleanup_free_ json_t **pods = world_list(w, K_POD, NULL, NULL);
	const char *name = obj_name(node);

	if (!streq(obj_condition_status(node, "Ready"), "Unknown"))
		set_condition(p, K_NODE, node, "Unknown", REASON_SILENT,
			      "Node agent stopped renewing its lease.");
	set_taints(p, node, UNREACHABLE_TAINT, true, true);
	for (size_t i = 0; pods[i]; i++) {
		if (!streq(js_str(pods[i], "spec.nodeName"), name) || pod_is_finished(pods[i]))
			continue;
		if (may_evict(node, pods[i], v, p))
			plan_delete(p, K_POD, pods[i], 0);
		else if (pod_is_ready(pods[i]))
			set_condition(p, K_POD, pods[i], "False", POD_UNREACHABLE,
				      "The pod's node is not heard any more.");
	}
}

static void ask_to_leave(const struct world *w, const json_t *node, int64_t since_us, struct plan *p)
{
	_cleanup_free_ json_t **pods = world_list(w, K_POD, NULL, NULL);

	for (size_t i = 0; pods[i]; i++) {
		int64_t s, left_us;

		if (!streq(js_str(pods[i], "spec.nodeName"), obj_name(node)) || !pod_is_active(pods[i]))
			continue;
		s = pod_toleration_s(pods[i], NOT_READY_TAINT, "", NOT_READY_S);
		if (s == INT64_MAX)
			continue;
		left_us = since_us + s * 1000000 - p->now_us;
		if (left_us <= 0)
			plan_delete(p, K_POD, pods[i], -1);
		else
			plan_again(p, left_us / 1000 + 10);
	}
}

/* Pods that stayed (they tolerate it, or the node came back in time) get back what their agent said of their containers. */
static void restore_pods(const struct world *w, const json_t *node, struct plan *p)
{
	_cleanup_free_ json_t **pods = world_list(w, K_POD, NULL, NULL);

	for (size_t i = 0; pods[i]; i++) {
		const json_t *ready = obj_condition(pods[i], "Ready");

		if (!streq(js_str(pods[i], "spec.nodeName"), obj_name(node)) || !ready ||
		    !streq(js_str(ready, "reason"), POD_UNREACHABLE))
			continue;
		if (streq(obj_condition_status(pods[i], "ContainersReady"), "True"))
			set_condition(p, K_POD, pods[i], "True", NULL, NULL);
		else
			set_condition(p, K_POD, pods[i], "False", "ContainersNotReady", "");
	}
}

static bool is_others(const json_t *taint)
{
	const char *key = js_str_or(taint, "key", "");

	return streq(js_str(taint, "effect"), "NoExecute") && !streq(key, UNREACHABLE_TAINT) &&
	       !streq(key, NOT_READY_TAINT);
}

/* How long the pod may still stay, microseconds; INT64_MAX = for ever. *ret_timed is set when that depends on a taint's time. */
static int64_t stay_us(const json_t *node, const json_t *pod, int64_t now_us, bool *ret_timed)
{
	int64_t left_us = INT64_MAX;
	json_t *t;
	size_t i;

	json_array_foreach (js_get(node, "spec.taints"), i, t) {
		int64_t since_us = obj_time_us(t, "timeAdded"), s;

		if (!is_others(t))
			continue;
		s = pod_toleration_s(pod, js_str_or(t, "key", ""), js_str_or(t, "value", ""), 0);
		if (s == INT64_MAX)
			continue;
		*ret_timed |= s > 0 && !since_us;
		left_us = MIN(left_us, (since_us ? since_us : now_us) + s * 1000000 - now_us);
	}
	return left_us;
}

/* tolerationSeconds count from a taint's timeAdded, which kubectl does not write. */
static void date_taints(json_t *node, struct plan *p)
{
	json_t *taints = json_deep_copy(js_get(node, "spec.taints")), *t;
	size_t i;

	json_array_foreach (taints, i, t)
		if (is_others(t) && !obj_time_us(t, "timeAdded"))
			json_object_set_new(t, "timeAdded", plan_time(p));
	plan_patch(p, ACTION_PATCH_MERGE, K_NODE, NULL, node,
		   json_pack("{s:{s:s}, s:{s:o}}", "metadata", "resourceVersion",
			     js_str_or(node, "metadata.resourceVersion", ""), "spec", "taints", taints));
}

/* As Kubernetes: a taint NoExecute that somebody set. */
static void obey_taints(const struct world *w, json_t *node, struct plan *p)
{
	_cleanup_free_ json_t **pods = NULL;
	bool others = false, timed = false;
	json_t *t;
	size_t i;

	json_array_foreach (js_get(node, "spec.taints"), i, t)
		others |= is_others(t);
	pods = others ? world_list(w, K_POD, NULL, NULL) : NULL;
	for (i = 0; pods && pods[i]; i++) {
		int64_t left_us;

		if (!streq(js_str(pods[i], "spec.nodeName"), obj_name(node)) || !pod_is_active(pods[i]))
			continue;
		left_us = stay_us(node, pods[i], p->now_us, &timed);
		if (left_us <= 0)
			plan_delete(p, K_POD, pods[i], -1);
		else if (left_us != INT64_MAX)
			plan_again(p, left_us / 1000 + 10);
	}
	if (timed)
		date_taints(node, p);
}

static void serve(const struct world *w, json_t *node, struct plan *p)
{
	const json_t *ready = obj_condition(node, "Ready");
	const char *status = obj_condition_status(node, "Ready");
	int64_t since_us = ready ? obj_time_us(ready, "lastTransitionTime") : 0;
	bool of_long = since_us && p->now_us - since_us > NOT_READY_S * 1000000LL;

	restore_pods(w, node, p);
	obey_taints(w, node, p);
	if (ready && streq(status, "Unknown") && streq(js_str(ready, "reason"), REASON_SILENT)) {
		set_condition(p, K_NODE, node, "True", "NodeAgentReady",
			      "The node agent renews its lease again.");
		set_taints(p, node, NULL, false, false);
	} else if (streq(status, "True")) {
		set_taints(p, node, NULL, false, false);
	} else {
		set_taints(p, node, NOT_READY_TAINT, true, of_long);
		if (since_us && !of_long)
			plan_again(p, NOT_READY_S * 1000);
		if (since_us)
			ask_to_leave(w, node, since_us, p);
	}
}

void node_reconcile(const struct world *w, const char *name, const struct node_view *v, struct plan *p)
{
	json_t *node = world_get(w, K_NODE, "", name);

	if (!node || obj_deleting(node) || !v->known)
		return;
	if (v->verdict == VERDICT_DEAD || v->verdict == VERDICT_CUT_OFF)
		give_up(w, node, v, p);
	else if (v->verdict == VERDICT_READY)
		serve(w, node, p);
}
