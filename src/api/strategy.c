/* SPDX-License-Identifier: Apache-2.0 */
/* What kinds want beyond their schema when they are created, changed or deleted. */
#include "api/internal.h"

#define POD_GRACE_S 30

static bool one_of(const char *word, const char *const *list)
{
	for (; *list; list++)
		if (streq(word, *list))
			return true;
	return false;
}

static void begin_namespace(json_t *obj)
{
	const char *name = js_str_or(obj, "metadata.name", "");
	json_t *labels = js_object(obj, "metadata.labels");

	js_set_new(obj, "spec.finalizers", json_pack("[s]", "kubernetes"));
	json_object_set_new(obj, "status", json_pack("{ss}", "phase", "Active"));
	if (labels)
		json_object_set_new(labels, "kubernetes.io/metadata.name", json_string(name));
}

static void begin_pod(json_t *obj)
{
	json_t *qos = json_incref(js_get(obj, "status.qosClass")); /* a default of the model */

	json_object_set_new(obj, "status", json_pack("{ss}", "phase", "Pending"));
	if (qos)
		js_set_new(obj, "status.qosClass", qos);
}

/* Claims and volumes are kept while they are in use; the controllers take the finalizer away. */
static void begin_storage(json_t *obj, const char *finalizer)
{
	json_t *list = js_array(obj, "metadata.finalizers"), *f;
	bool there = false;
	size_t i;

	json_object_set_new(obj, "status", json_pack("{ss}", "phase", "Pending"));
	json_array_foreach (list, i, f)
		there |= streq(json_string_value(f), finalizer);
	if (list && !there)
		json_array_append_new(list, json_string(finalizer));
}

void strategy_create(struct call *c, json_t *obj)
{
	static const char *const no_generation[] = {
		"nodes", "namespaces", "pods", "services", "persistentvolumeclaims", "persistentvolumes",
		NULL};
	const char *p = c->kind->plural;

	if (c->kind->has_status && !streq(p, "nodes") &&
	    !streq(p, "pods")) /* a node agent registers with its status */
		json_object_del(obj, "status");
	if (c->kind->has_status && !one_of(p, no_generation))
		js_set_new(obj, "metadata.generation", json_integer(1));
	else
		js_del(obj, "metadata.generation");
	if (streq(p, "namespaces")) {
		begin_namespace(obj);
	} else if (streq(p, "pods")) {
		begin_pod(obj);
	} else if (streq(p, "services")) {
		json_object_set_new(obj, "status", json_pack("{s{}}", "loadBalancer"));
	} else if (streq(p, "persistentvolumeclaims")) {
		begin_storage(obj, "kubernetes.io/pvc-protection");
	} else if (streq(p, "persistentvolumes")) {
		begin_storage(obj, "kubernetes.io/pv-protection");
	} else if (c->kind->has_status && !json_object_get(obj, "status")) {
		json_object_set_new(obj, "status", json_object());
	}
}

/* A Service keeps its address when a client leaves it out. */
static void keep_service_ip(const json_t *cur, json_t *obj)
{
	static const char *const paths[] = {"spec.clusterIP", "spec.clusterIPs", "spec.ipFamilies",
					    "spec.ipFamilyPolicy"};

	if (streq(js_str(obj, "spec.type"), "ExternalName") || *js_str_or(obj, "spec.clusterIP", ""))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (js_get(cur, paths[i]))
			js_set_new(obj, paths[i], json_incref(js_get(cur, paths[i])));
}

void strategy_update(struct call *c, const json_t *cur, json_t *obj)
{
	const char *p = c->kind->plural;

	if (streq(p, "services"))
		keep_service_ip(cur, obj);
	else if (streq(p, "namespaces") && js_get(cur, "spec.finalizers"))
		js_set_new(obj, "spec.finalizers",
			   json_incref(js_get(cur, "spec.finalizers"))); /* by finalize only */
}

int64_t strategy_grace(const struct model_kind *k, const json_t *obj, int64_t asked)
{
	const char *phase = js_str_or(obj, "status.phase", "");

	if (!streq(k->plural, "pods"))
		return 0;
	/* Nobody runs it: nothing to wait for. */
	if (!*js_str_or(obj, "spec.nodeName", "") || streq(phase, "Succeeded") || streq(phase, "Failed"))
		return 0;
	return asked >= 0 ? asked : MAX(js_int(obj, "spec.terminationGracePeriodSeconds", POD_GRACE_S), 0);
}
