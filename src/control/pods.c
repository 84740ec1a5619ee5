/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to a pod, and a pod out of a template. */
#include "control/pods.h"

bool pod_is_finished(const json_t *pod)
{
	const char *phase = js_str_or(pod, "status.phase", "");

	return streq(phase, "Succeeded") || streq(phase, "Failed");
}

bool pod_is_active(const json_t *pod)
{
	return !pod_is_finished(pod) && !obj_deleting(pod);
}

bool pod_is_ready(const json_t *pod)
{
	return streq(obj_condition_status(pod, "Ready"), "True");
}

bool pod_is_running_ready(const json_t *pod)
{
	return streq(js_str(pod, "status.phase"), "Running") && pod_is_ready(pod);
}

bool pod_is_available(const json_t *pod, int64_t min_ready_s, int64_t now_us, int64_t *ret_in_ms)
{
	int64_t since, left_us;

	if (!pod_is_ready(pod))
		return false;
	if (min_ready_s <= 0)
		return true;
	since = obj_time_us(obj_condition(pod, "Ready"), "lastTransitionTime");
	if (!since)
		return false;
	left_us = since + min_ready_s * 1000000 - now_us;
	if (left_us <= 0)
		return true;
	if (ret_in_ms)
		*ret_in_ms = MIN(*ret_in_ms < 0 ? INT64_MAX : *ret_in_ms, left_us / 1000 + 1);
	return false;
}

bool pod_is_singleton(const json_t *pod)
{
	const json_t *owner = obj_controller(pod);

	return (owner && streq(js_str(owner, "kind"), "StatefulSet")) ||
	       streq(obj_annotation(pod, "kuayu.io/singleton"), "true");
}

int64_t pod_toleration_s(const json_t *pod, const char *taint_key, const char *taint_value, int64_t otherwise)
{
	int64_t s = -1;
	json_t *t;
	size_t i;

	json_array_foreach (js_get(pod, "spec.tolerations"), i, t) {
		const char *key = js_str(t, "key"), *effect = js_str(t, "effect");
		const char *op = js_str_or(t, "operator", "Equal");

		if (key && *key ? !streq(key, taint_key) : !streq(op, "Exists"))
			continue;
		if (effect && *effect && !streq(effect, "NoExecute"))
			continue;
		if (streq(op, "Equal") && !streq(js_str_or(t, "value", ""), taint_value))
			continue;
		/* Of several the shortest counts, as in Kubernetes. */
		s = s < 0 ? js_int(t, "tolerationSeconds", INT64_MAX)
			  : MIN(s, js_int(t, "tolerationSeconds", INT64_MAX));
		s = MAX(0, s);
	}
	return s < 0 ? otherwise : s;
}

bool node_evicts(const json_t *node)
{
	json_t *t;
	size_t i;

	json_array_foreach (js_get(node, "spec.taints"), i, t)
		if (streq(js_str(t, "effect"), "NoExecute"))
			return true;
	return false;
}

bool node_has_taint(const json_t *node, const char *key, const char *effect)
{
	json_t *t;
	size_t i;

	json_array_foreach (js_get(node, "spec.taints"), i, t)
		if (streq(js_str(t, "key"), key) && streq(js_str(t, "effect"), effect))
			return true;
	return false;
}

json_t *pod_object_new(const json_t *template, const json_t *owner, enum kind owner_kind, char *name)
{
	static const char *const kept[] = {"labels", "annotations", "finalizers"};
	json_t *meta = json_pack("{s:s, s:s, s:[o]}", "name", name, "namespace", obj_ns(owner),
				 "ownerReferences", owner_ref_new(owner, owner_kind, true));
	const json_t *from = json_object_get(template, "metadata");
	json_t *spec = json_object_get(template, "spec");

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (json_object_get(from, kept[i]))
			json_object_set_new(meta, kept[i], json_deep_copy(json_object_get(from, kept[i])));
	free(name);
	return json_pack("{s:s, s:s, s:o, s:o}", "apiVersion", "v1", "kind", "Pod", "metadata", meta, "spec",
			 spec ? json_deep_copy(spec) : json_object());
}
