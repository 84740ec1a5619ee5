/* SPDX-License-Identifier: Apache-2.0 */
/* Quality of service class of a pod. */
#include "model/internal.h"

/* Adds to *ret_any whether cpu or memory is given at all; true when limits are given for both and equal the requests. */
static bool guaranteed(const json_t *c, bool *ret_any)
{
	static const char *const names[] = {"cpu", "memory"};
	const json_t *limits = js_get(c, "resources.limits"), *requests = js_get(c, "resources.requests");
	bool all = true;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const json_t *l = json_object_get(limits, names[i]), *r = json_object_get(requests, names[i]);
		int64_t a = 0, b = 0;

		if (model_quantity_json(l, &a) < 0 || model_quantity_json(r, &b) < 0)
			return false;
		*ret_any |= a || b;
		all &= a && (!r || a == b);
	}
	return all;
}

const char *pod_qos_class(const json_t *spec)
{
	static const char *const lists[] = {"initContainers", "containers"};
	bool any = false, all = true;
	json_t *c;
	size_t i;

	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		json_array_foreach (json_object_get(spec, lists[l]), i, c)
			all &= guaranteed(c, &any);
	return !any ? "BestEffort" : all ? "Guaranteed" : "Burstable";
}
