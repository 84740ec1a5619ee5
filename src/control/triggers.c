/* SPDX-License-Identifier: Apache-2.0 */
/* Which controllers have to look at what after a change. Too much is only work; too little would be a pod that is never
 * replaced, so the rules are wide and a new leader looks at everything. */
#include "control/manager.h"

static enum controller controller_of(enum kind kind)
{
	switch (kind) {
	case K_REPLICASET:
		return C_REPLICASET;
	case K_DEPLOYMENT:
		return C_DEPLOYMENT;
	case K_STATEFULSET:
		return C_STATEFULSET;
	case K_SERVICE:
		return C_ENDPOINTS;
	case K_NODE:
		return C_NODE;
	case K_CLAIM:
		return C_CLAIM;
	case K_VOLUME:
		return C_VOLUME;
	default:
		return CONTROLLERS;
	}
}

/* Its controlling owner, and that one's. */
static void owners(struct manager *m, const json_t *obj, int depth)
{
	const json_t *ref = obj_controller(obj), *owner;
	enum kind k = ref ? kind_of(js_str(ref, "apiVersion"), js_str(ref, "kind")) : KINDS;

	if (k == KINDS || controller_of(k) == CONTROLLERS)
		return;
	manager_enqueue(m, controller_of(k), obj_ns(obj), js_str_or(ref, "name", ""), 0);
	owner = world_get(m->world, k, obj_ns(obj), js_str_or(ref, "name", ""));
	if (owner && depth < 3)
		owners(m, owner, depth + 1);
}

static bool selects(const json_t *svc, const json_t *pod)
{
	const json_t *selector = js_get(svc, "spec.selector"), *value;
	const char *key;

	if (!pod || !json_object_size(selector))
		return false;
	json_object_foreach ((json_t *)selector, key, value)
		if (!streq(obj_label(pod, key), json_string_value(value)))
			return false;
	return true;
}

static void services_of(struct manager *m, const json_t *old, const json_t *obj)
{
	_cleanup_free_ json_t **services = world_list(m->world, K_SERVICE, obj_ns(obj ? obj : old), NULL);

	for (size_t i = 0; services[i]; i++)
		if (selects(services[i], old) || selects(services[i], obj))
			manager_enqueue(m, C_ENDPOINTS, obj_ns(services[i]), obj_name(services[i]), 0);
}

static void adopters(struct manager *m, const json_t *obj, enum kind kind)
{
	_cleanup_free_ json_t **v = world_list(m->world, kind, obj_ns(obj), NULL);

	for (size_t i = 0; v[i]; i++)
		if (model_labels_match(js_get(v[i], "spec.selector"), js_get(obj, "metadata.labels")))
			manager_enqueue(m, controller_of(kind), obj_ns(v[i]), obj_name(v[i]), 0);
}

static void garbage(struct manager *m, enum kind kind, const json_t *old, const json_t *obj)
{
	const json_t *o = obj ? obj : old;
	_cleanup_free_ char *name = xasprintf("%d/%s", (int)kind, obj_name(o));
	_cleanup_free_ struct dependent *all = NULL;
	json_t *ref;
	size_t i, n;

	if (obj && (obj_has_finalizer(obj, "orphan") || obj_has_finalizer(obj, "foregroundDeletion") ||
		    json_array_size(js_get(obj, "metadata.ownerReferences"))))
		manager_enqueue(m, C_GC, obj_ns(obj), name, 0);
	if (obj)
		return;
	/* Gone: its owners may wait for that, its dependents have to follow. */
	json_array_foreach (js_get(old, "metadata.ownerReferences"), i, ref) {
		enum kind k = kind_of(js_str(ref, "apiVersion"), js_str(ref, "kind"));
		const json_t *owner =
			k < KINDS ? world_get(m->world, k, obj_ns(old), js_str_or(ref, "name", "")) : NULL;
		_cleanup_free_ char *id = owner ? xasprintf("%d/%s", (int)k, obj_name(owner)) : NULL;

		if (id && obj_deleting(owner))
			manager_enqueue(m, C_GC, obj_ns(owner), id, 0);
	}
	n = world_dependents(m->world, obj_uid(old), &all);
	for (i = 0; i < n; i++) {
		_cleanup_free_ char *id = xasprintf("%d/%s", (int)all[i].kind, obj_name(all[i].obj));

		manager_enqueue(m, C_GC, obj_ns(all[i].obj), id, 0);
	}
}

/* What EndpointSlices take from a node. */
static bool endpoints_differ(const json_t *old, const json_t *obj)
{
	const char *zone = "topology.kubernetes.io/zone";

	return !old || !obj || !streq(obj_label(old, zone), obj_label(obj, zone)) ||
	       node_has_taint(old, UNREACHABLE_TAINT, "NoExecute") !=
		       node_has_taint(obj, UNREACHABLE_TAINT, "NoExecute");
}

static void all_services(struct manager *m)
{
	_cleanup_free_ json_t **services = world_list(m->world, K_SERVICE, NULL, NULL);

	for (size_t i = 0; services[i]; i++)
		manager_enqueue(m, C_ENDPOINTS, obj_ns(services[i]), obj_name(services[i]), 0);
}

/* ---- storage ---- */

static void unbound_claims(struct manager *m)
{
	_cleanup_free_ json_t **all = world_list(m->world, K_CLAIM, NULL, NULL);

	for (size_t i = 0; all[i]; i++)
		if (!*js_str_or(all[i], "spec.volumeName", ""))
			manager_enqueue(m, C_CLAIM, obj_ns(all[i]), obj_name(all[i]), 0);
}

void triggers_storage(struct manager *m)
{
	_cleanup_free_ json_t **volumes = world_list(m->world, K_VOLUME, NULL, NULL);

	_cleanup_free_ json_t **claims = world_list(m->world, K_CLAIM, NULL, NULL);

	for (size_t i = 0; claims[i]; i++)
		manager_enqueue(m, C_CLAIM, obj_ns(claims[i]), obj_name(claims[i]), 0);
	for (size_t i = 0; volumes[i]; i++)
		manager_enqueue(m, C_VOLUME, "", obj_name(volumes[i]), 0);
}

/* Its volumes, old and new, and the one that was made for it; its StatefulSet by its labels. */
static void claim_changed(struct manager *m, const json_t *old, const json_t *obj)
{
	const json_t *o = obj ? obj : old;
	_cleanup_free_ char *made = xasprintf("pvc-%s", obj_uid(o));

	if (js_str(o, "spec.volumeName"))
		manager_enqueue(m, C_VOLUME, "", js_str(o, "spec.volumeName"), 0);
	manager_enqueue(m, C_VOLUME, "", made, 0);
	if (!obj)
		adopters(m, o, K_STATEFULSET);
}

static void volume_changed(struct manager *m, const json_t *old, const json_t *obj)
{
	const json_t *o = obj ? obj : old;

	if (js_str(o, "spec.claimRef.name"))
		manager_enqueue(m, C_CLAIM, js_str_or(o, "spec.claimRef.namespace", ""),
				js_str(o, "spec.claimRef.name"), 0);
	else
		unbound_claims(m);
}

/* Claims that wait for their last pod. */
static void claims_of(struct manager *m, const json_t *pod)
{
	json_t *v;
	size_t i;

	json_array_foreach (js_get(pod, "spec.volumes"), i, v) {
		const char *name = js_str(v, "persistentVolumeClaim.claimName");
		const json_t *claim = name ? world_get(m->world, K_CLAIM, obj_ns(pod), name) : NULL;

		if (claim && obj_deleting(claim))
			manager_enqueue(m, C_CLAIM, obj_ns(pod), name, 0);
	}
}

static void pod_changed(struct manager *m, json_t *old, json_t *obj)
{
	services_of(m, old, obj);
	claims_of(m, obj ? obj : old);
	if (old)
		owners(m, old, 0);
	if (obj)
		owners(m, obj, 0);
	if (obj && !obj_controller(obj))
		adopters(m, obj, K_REPLICASET);
	if (obj && js_str(obj, "spec.nodeName")) {
		const json_t *node = world_get(m->world, K_NODE, "", js_str(obj, "spec.nodeName"));

		if (!node)
			manager_enqueue(m, C_PODGC, "", "all", 1000);
		else if (node_evicts(node))
			manager_enqueue(m, C_NODE, "", obj_name(node), 0);
	}
}

void triggers_changed(struct manager *m, enum kind kind, json_t *old, json_t *obj)
{
	json_t *o = obj ? obj : old;
	enum controller c = controller_of(kind);
	const char *service;

	if (c != CONTROLLERS)
		manager_enqueue(m, c, obj_ns(o), obj_name(o), 0);
	switch (kind) {
	case K_POD:
		pod_changed(m, old, obj);
		break;
	case K_REPLICASET:
		owners(m, o, 0);
		if (obj && !obj_controller(obj))
			adopters(m, obj, K_DEPLOYMENT);
		break;
	case K_ENDPOINTSLICE:
		service = obj_label(o, "kubernetes.io/service-name");
		if (service)
			manager_enqueue(m, C_ENDPOINTS, obj_ns(o), service, 0);
		break;
	case K_ENDPOINTS:
		manager_enqueue(m, C_ENDPOINTS, obj_ns(o), obj_name(o), 0);
		break;
	case K_NODE:
		if (endpoints_differ(old, obj))
			all_services(m);
		if (obj && !js_str(obj, "spec.podCIDR"))
			manager_enqueue(m, C_PODCIDR, "", "all", 0);
		if (!obj)
			manager_enqueue(m, C_PODGC, "", "all", 0);
		break;
	case K_CLAIM:
		claim_changed(m, old, obj);
		break;
	case K_VOLUME:
		volume_changed(m, old, obj);
		break;
	case K_STORAGECLASS:
		unbound_claims(m);
		break;
	case K_LEASE:
		return; /* every second, and never owned */
	default:
		break;
	}
	garbage(m, kind, old, obj);
}

void triggers_all(struct manager *m)
{
	for (int k = 0; k < KINDS; k++) {
		_cleanup_free_ json_t **all = k == K_LEASE ? xcalloc(1, sizeof(*all))
							   : world_list(m->world, (enum kind)k, NULL, NULL);

		for (size_t i = 0; all[i]; i++)
			triggers_changed(m, (enum kind)k, NULL, all[i]);
	}
}
