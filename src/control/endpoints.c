/* SPDX-License-Identifier: Apache-2.0 */
/* EndpointSlices of a Service with a selector: which pods answer for it, on which node and in which zone, and whether
 * they are ready. A pod on a node that is given up is not ready whatever it said last, so traffic turns away in the same
 * moment as the verdict, without waiting for the pods' own status to be rewritten.
 *
 * The older Endpoints object of the Service's name is kept beside them, with at most ADDRESSES_MAX addresses: kubectl 1.20 and people read
 * it (`kubectl get endpoints`), nothing of kuayu does. One that somebody else made is left alone.
 *
 * Pods whose named ports resolve differently go into slices of their own. At most 100 endpoints a slice. Names are made
 * of service, ports and number, so creating one twice is impossible. Not here: Services without a selector (their
 * slices are the user's), IPv6. */
#include "control/reconcile.h"

#define SLICE_MAX     100
#define GROUPS_MAX    16
#define ADDRESSES_MAX 1000
#define MANAGER	      "kuayu-controller"
#define MANAGED_BY    "endpoints.kubernetes.io/managed-by"

struct group {
	json_t *ports;	   /* of the slice */
	json_t *endpoints; /* array */
};

static int64_t named_port(const json_t *pod, const char *name, const char *protocol)
{
	json_t *c, *port;
	size_t i, j;

	json_array_foreach (js_get(pod, "spec.containers"), i, c)
		json_array_foreach (json_object_get(c, "ports"), j, port)
			if (streq(js_str(port, "name"), name) &&
			    streq(js_str_or(port, "protocol", "TCP"), protocol))
				return js_int(port, "containerPort", -1);
	return -1;
}

/* The slice's ports for this pod; a port that the pod does not have is left out. */
static json_t *ports_for(const json_t *svc, const json_t *pod)
{
	json_t *out = json_array(), *port;
	size_t i;

	json_array_foreach (js_get(svc, "spec.ports"), i, port) {
		const json_t *target = json_object_get(port, "targetPort");
		const char *protocol = js_str_or(port, "protocol", "TCP"), *app = js_str(port, "appProtocol");
		int64_t n = js_int(port, "port", -1);
		json_t *p;

		if (json_is_integer(target) && json_integer_value(target) > 0)
			n = json_integer_value(target);
		else if (json_is_string(target))
			n = named_port(pod, json_string_value(target), protocol);
		if (n <= 0)
			continue;
		p = json_pack("{s:s, s:s, s:I}", "name", js_str_or(port, "name", ""), "protocol", protocol,
			      "port", (json_int_t)n);
		if (app)
			json_object_set_new(p, "appProtocol", json_string(app));
		json_array_append_new(out, p);
	}
	return out;
}

static json_t *endpoint_for(const struct world *w, const json_t *svc, const json_t *pod)
{
	const char *node_name = js_str(pod, "spec.nodeName"), *hostname = js_str(pod, "spec.hostname");
	const json_t *node = node_name ? world_get(w, K_NODE, "", node_name) : NULL;
	const char *zone = node ? obj_label(node, "topology.kubernetes.io/zone") : NULL;
	bool reachable = !node || !node_has_taint(node, UNREACHABLE_TAINT, "NoExecute");
	bool serving = pod_is_ready(pod) && reachable, deleting = obj_deleting(pod);
	bool ready = js_bool(svc, "spec.publishNotReadyAddresses", false) || (serving && !deleting);
	json_t *e = json_pack("{s:[s], s:{s:b, s:b, s:b}, s:{s:s, s:s, s:s, s:s}}", "addresses",
			      js_str_or(pod, "status.podIP", ""), "conditions", "ready", ready, "serving",
			      serving, "terminating", deleting, "targetRef", "kind", "Pod", "namespace",
			      obj_ns(pod), "name", obj_name(pod), "uid", obj_uid(pod));

	if (node_name)
		json_object_set_new(e, "nodeName", json_string(node_name));
	if (zone)
		json_object_set_new(e, "zone", json_string(zone));
	if (hostname && streq(js_str(pod, "spec.subdomain"), obj_name(svc)))
		json_object_set_new(e, "hostname", json_string(hostname));
	return e;
}

static size_t collect(const struct world *w, json_t *svc, struct group *g)
{
	_cleanup_free_ json_t **pods = world_list(w, K_POD, obj_ns(svc), NULL);
	const json_t *selector = js_get(svc, "spec.selector"), *value;
	size_t n = 0;

	for (size_t i = 0; pods[i]; i++) {
		bool match = true;
		const char *key;
		json_t *ports;
		size_t at = 0;

		json_object_foreach ((json_t *)selector, key, value)
			match &= streq(obj_label(pods[i], key), json_string_value(value));
		if (!match || pod_is_finished(pods[i]) || !*js_str_or(pods[i], "status.podIP", ""))
			continue;
		ports = ports_for(svc, pods[i]);
		while (at < n && !json_equal(g[at].ports, ports))
			at++;
		if (at == n && n < GROUPS_MAX)
			g[n++] = (struct group){json_incref(ports), json_array()};
		json_decref(ports);
		if (at < GROUPS_MAX)
			json_array_append_new(g[at].endpoints, endpoint_for(w, svc, pods[i]));
	}
	if (n == 0) /* an empty slice says that there is none, rather than that nobody has looked */
		g[n++] = (struct group){json_array(), json_array()};
	return n;
}

static json_t *slice_new(const json_t *svc, const struct group *g, size_t number)
{
	_cleanup_json_ json_t *id = json_pack("[s, O, I]", obj_uid(svc), g->ports, (json_int_t)number);
	_cleanup_free_ char *name = NULL;
	json_t *labels = json_pack("{s:s, s:s}", "kubernetes.io/service-name", obj_name(svc),
				   "endpointslice.kubernetes.io/managed-by", MANAGER);
	json_t *part = json_array(), *e;
	char hash[11];
	size_t i;

	json_hash(id, 0, hash);
	name = xasprintf("%.52s-%s", obj_name(svc), hash);
	if (streq(js_str(svc, "spec.clusterIP"), "None"))
		json_object_set_new(labels, "service.kubernetes.io/headless", json_string(""));
	json_array_foreach (g->endpoints, i, e)
		if (i / SLICE_MAX == number)
			json_array_append(part, e);
	return json_pack("{s:s, s:s, s:{s:s, s:s, s:o, s:[o]}, s:s, s:o, s:O}", "apiVersion",
			 "discovery.k8s.io/v1", "kind", "EndpointSlice", "metadata", "name", name,
			 "namespace", obj_ns(svc), "labels", labels, "ownerReferences",
			 owner_ref_new(svc, K_SERVICE, true), "addressType", "IPv4", "endpoints", part,
			 "ports", g->ports);
}

static void write_slice(const struct world *w, json_t *want, struct plan *p)
{
	json_t *have = world_get(w, K_ENDPOINTSLICE, obj_ns(want), obj_name(want)), *copy;

	if (!have) {
		plan_create(p, K_ENDPOINTSLICE, want);
		return;
	}
	if (json_equal(json_object_get(have, "endpoints"), json_object_get(want, "endpoints")) &&
	    json_equal(json_object_get(have, "ports"), json_object_get(want, "ports")) &&
	    json_equal(js_get(have, "metadata.labels"), js_get(want, "metadata.labels"))) {
		json_decref(want);
		return;
	}
	copy = json_deep_copy(have);
	json_object_set(copy, "endpoints", json_object_get(want, "endpoints"));
	json_object_set(copy, "ports", json_object_get(want, "ports"));
	js_set_new(copy, "metadata.labels", json_incref(js_get(want, "metadata.labels")));
	json_decref(want);
	plan_update(p, K_ENDPOINTSLICE, NULL, copy);
}

/* ---- Endpoints ---- */

static json_t *address_new(const json_t *endpoint)
{
	static const char *const same[] = {"hostname", "nodeName", "targetRef"};
	json_t *a = json_pack("{s:O}", "ip", json_array_get(json_object_get(endpoint, "addresses"), 0));

	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		if (json_object_get(endpoint, same[i]))
			json_object_set(a, same[i], json_object_get(endpoint, same[i]));
	return a;
}

static json_t *subset_ports_new(const json_t *ports)
{
	json_t *out = json_deep_copy(ports), *port;
	size_t i;

	json_array_foreach (out, i, port)
		if (!*js_str_or(port, "name", ""))
			json_object_del(port, "name");
	return out;
}

/* NULL when the group has nobody to name: Kubernetes leaves pods that are being stopped out. */
static json_t *subset_new(const struct group *g, size_t *room)
{
	_cleanup_json_ json_t *ready = json_array(), *unready = json_array();
	json_t *out, *e;
	size_t i;

	json_array_foreach (g->endpoints, i, e) {
		bool is_ready = js_bool(e, "conditions.ready", false);

		if (!*room || (!is_ready && js_bool(e, "conditions.terminating", false)))
			continue;
		json_array_append_new(is_ready ? ready : unready, address_new(e));
		--*room;
	}
	if (!json_array_size(ready) && !json_array_size(unready))
		return NULL;
	out = json_object();
	if (json_array_size(ready))
		json_object_set(out, "addresses", ready);
	if (json_array_size(unready))
		json_object_set(out, "notReadyAddresses", unready);
	if (json_array_size(g->ports))
		json_object_set_new(out, "ports", subset_ports_new(g->ports));
	return out;
}

static void write_endpoints(const struct world *w, json_t *svc, const struct group *g, size_t n,
			    struct plan *p)
{
	json_t *have = world_get(w, K_ENDPOINTS, obj_ns(svc), obj_name(svc)), *copy;
	_cleanup_json_ json_t *subsets = json_array();
	size_t room = ADDRESSES_MAX;

	for (size_t i = 0; i < n; i++) {
		json_t *one = subset_new(&g[i], &room);

		if (one)
			json_array_append_new(subsets, one);
	}
	if (!have) {
		plan_create(p, K_ENDPOINTS,
			    json_pack("{s:s, s:s, s:{s:s, s:s, s:{s:s}, s:[o]}, s:O}", "apiVersion", "v1",
				      "kind", "Endpoints", "metadata", "name", obj_name(svc), "namespace",
				      obj_ns(svc), "labels", MANAGED_BY, MANAGER, "ownerReferences",
				      owner_ref_new(svc, K_SERVICE, true), "subsets", subsets));
		return;
	}
	if (!streq(obj_label(have, MANAGED_BY), MANAGER) || obj_deleting(have))
		return;
	if (json_array_size(subsets) == json_array_size(json_object_get(have, "subsets")) &&
	    (!json_array_size(subsets) || json_equal(subsets, json_object_get(have, "subsets"))))
		return;
	copy = json_deep_copy(have);
	json_object_set(copy, "subsets", subsets);
	plan_update(p, K_ENDPOINTS, NULL, copy);
}

void endpoints_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p)
{
	json_t *svc = world_get(w, K_SERVICE, ns, name);
	_cleanup_free_ json_t **have = NULL;
	_cleanup_json_ json_t *wanted = json_object();
	struct group g[GROUPS_MAX];
	size_t n;

	if (!svc || obj_deleting(svc) || streq(js_str(svc, "spec.type"), "ExternalName") ||
	    json_object_size(js_get(svc, "spec.selector")) == 0)
		return;
	n = collect(w, svc, g);
	for (size_t i = 0; i < n; i++) {
		size_t count = json_array_size(g[i].endpoints);

		for (size_t k = 0; k == 0 || k * SLICE_MAX < count; k++) {
			json_t *slice = slice_new(svc, &g[i], k);

			json_object_set_new(wanted, obj_name(slice), json_true());
			write_slice(w, slice, p);
		}
	}
	write_endpoints(w, svc, g, n, p);
	for (size_t i = 0; i < n; i++) {
		json_decref(g[i].ports);
		json_decref(g[i].endpoints);
	}
	have = world_list(w, K_ENDPOINTSLICE, ns, obj_uid(svc));
	for (size_t i = 0; have[i]; i++)
		if (streq(obj_label(have[i], "endpointslice.kubernetes.io/managed-by"), MANAGER) &&
		    !json_object_get(wanted, obj_name(have[i])) && !obj_deleting(have[i]))
			plan_delete(p, K_ENDPOINTSLICE, have[i], -1);
}
