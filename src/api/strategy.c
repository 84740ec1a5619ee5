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

static bool is_outside(const json_t *svc)
{
	const char *type = js_str_or(svc, "spec.type", "");

	return streq(type, "NodePort") || streq(type, "LoadBalancer");
}

static const json_t *port_like(const json_t *ports, const json_t *port)
{
	json_t *p;
	size_t i;

	json_array_foreach ((json_t *)ports, i, p)
		if (js_int(p, "port", 0) == js_int(port, "port", 0) &&
		    streq(js_str_or(p, "protocol", "TCP"), js_str_or(port, "protocol", "TCP")))
			return p;
	return NULL;
}

/* A Service keeps its addresses and node ports when a client leaves them out. */
static void keep_service_values(const json_t *cur, json_t *obj)
{
	static const char *const paths[] = {"spec.clusterIP", "spec.clusterIPs", "spec.ipFamilies",
					    "spec.ipFamilyPolicy"};
	json_t *p;
	size_t i;

	if (!streq(js_str(obj, "spec.type"), "ExternalName") && !*js_str_or(obj, "spec.clusterIP", ""))
		for (i = 0; i < ARRAY_SIZE(paths); i++)
			if (js_get(cur, paths[i]))
				js_set_new(obj, paths[i], json_incref(js_get(cur, paths[i])));
	json_array_foreach (is_outside(cur) && is_outside(obj) ? js_get(obj, "spec.ports") : NULL, i, p) {
		const json_t *was = port_like(js_get(cur, "spec.ports"), p);

		if (!js_int(p, "nodePort", 0) && js_int(was, "nodePort", 0))
			json_object_set(p, "nodePort", json_object_get(was, "nodePort"));
	}
}

static void drop_if_same(const json_t *cur, json_t *obj, const char *path)
{
	if (js_get(obj, path) && js_get(cur, path) && json_equal(js_get(obj, path), js_get(cur, path)))
		js_del(obj, path);
}

/* What belongs to the former type goes with it, unless the client changed it: as Kubernetes, so that a patch of the type alone is valid. */
static void drop_service_values(const json_t *cur, json_t *obj)
{
	static const char *const of_address[] = {"spec.clusterIP", "spec.clusterIPs", "spec.ipFamilies",
						 "spec.ipFamilyPolicy", "spec.internalTrafficPolicy"};
	const char *was = js_str_or(cur, "spec.type", ""), *now = js_str_or(obj, "spec.type", "");
	json_t *p;
	size_t i;

	if (streq(now, "ExternalName") && !streq(was, now))
		for (i = 0; i < ARRAY_SIZE(of_address); i++)
			drop_if_same(cur, obj, of_address[i]);
	if (is_outside(cur) && !is_outside(obj)) {
		drop_if_same(cur, obj, "spec.externalTrafficPolicy");
		json_array_foreach (js_get(obj, "spec.ports"), i, p) {
			const json_t *before = port_like(js_get(cur, "spec.ports"), p);

			if (js_int(p, "nodePort", 0) == js_int(before, "nodePort", 0))
				json_object_del(p, "nodePort");
		}
	}
	if (streq(was, "LoadBalancer") && !streq(now, was))
		drop_if_same(cur, obj, "spec.allocateLoadBalancerNodePorts");
}

void strategy_update(struct call *c, const json_t *cur, json_t *obj)
{
	const char *p = c->kind->plural;

	if (streq(p, "services")) {
		keep_service_values(cur, obj);
		drop_service_values(cur, obj);
	} else if (streq(p, "namespaces") && js_get(cur, "spec.finalizers")) {
		js_set_new(obj, "spec.finalizers",
			   json_incref(js_get(cur, "spec.finalizers"))); /* by finalize only */
	}
}

bool strategy_protected(const struct model_kind *k, const char *name)
{
	/* The platform itself lives in them: without their Leases every node is given up, and its singletons stop. */
	static const char *const names[] = {"default", "kube-system", "kube-public", "kube-node-lease", NULL};

	return streq(k->plural, "namespaces") && one_of(name, names);
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
