/* SPDX-License-Identifier: Apache-2.0 */
/* kubectl get for nodes, services, endpoints, events and the small kinds. */
#include "model/table.h"

#define SHOWN_MAX 3 /* endpoints and ports in one cell, as Kubernetes */

/* ---- nodes ---- */

static void cell_node_status(json_t *cells, const json_t *node)
{
	const char *state = "Unknown";
	char text[64];
	json_t *c;
	size_t i;

	json_array_foreach (js_get(node, "status.conditions"), i, c)
		if (streq(js_str(c, "type"), "Ready"))
			state = streq(js_str(c, "status"), "True") ? "Ready" : "NotReady";
	snprintf(text, sizeof(text), "%s%s", state,
		 js_bool(node, "spec.unschedulable", false) ? ",SchedulingDisabled" : "");
	cell(cells, text);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void cell_node_roles(json_t *cells, const json_t *node)
{
	static const char prefix[] = "node-role.kubernetes.io/";
	_cleanup_strv_ char **roles = NULL;
	_cleanup_buf_ struct buf b = {.limit = 4096};
	const char *key;
	size_t n = 0;
	json_t *v;

	json_object_foreach (js_get(node, "metadata.labels"), key, v) {
		if (str_starts(key, prefix) && key[strlen(prefix)])
			roles = strv_put(roles, n++, key + strlen(prefix));
		else if (streq(key, "kubernetes.io/role") && json_string_length(v))
			roles = strv_put(roles, n++, json_string_value(v));
	}
	if (roles)
		qsort(roles, strv_len(roles), sizeof(*roles), compare);
	for (char **r = roles; r && *r; r++)
		join(&b, *r);
	cell_buf(cells, &b, "<none>");
}

static const char *node_address(const json_t *node, const char *type)
{
	json_t *a;
	size_t i;

	json_array_foreach (js_get(node, "status.addresses"), i, a)
		if (streq(js_str(a, "type"), type))
			return js_str(a, "address");
	return NULL;
}

static void cells_node(json_t *cells, const json_t *node, int64_t now_us)
{
	cell(cells, js_str(node, "metadata.name"));
	cell_node_status(cells, node);
	cell_node_roles(cells, node);
	cell_age(cells, node, now_us);
	cell(cells, js_str(node, "status.nodeInfo.kubeletVersion"));
	cell_or(cells, node_address(node, "InternalIP"), "<none>");
	cell_or(cells, node_address(node, "ExternalIP"), "<none>");
	cell_or(cells, js_str(node, "status.nodeInfo.osImage"), "<unknown>");
	cell_or(cells, js_str(node, "status.nodeInfo.kernelVersion"), "<unknown>");
	cell_or(cells, js_str(node, "status.nodeInfo.containerRuntimeVersion"), "<unknown>");
}

const struct table table_node = {
	"Node",
	COLUMNS(COLUMN_NAME, {"Status", "string", "", 0, "Whether the node is ready and takes pods."},
		{"Roles", "string", "", 0, "Roles of the node."}, COLUMN_AGE,
		{"Version", "string", "", 0, "Version of the node agent."},
		{"Internal-IP", "string", "", 1, "Address inside the cluster."},
		{"External-IP", "string", "", 1, "Address outside the cluster."},
		{"OS-Image", "string", "", 1, "Operating system."},
		{"Kernel-Version", "string", "", 1, "Version of the kernel."},
		{"Container-Runtime", "string", "", 1, "Container runtime."}),
	cells_node,
};

/* ---- services and endpoints ---- */

static void cell_external(json_t *cells, const json_t *svc)
{
	const char *type = js_str_or(svc, "spec.type", "ClusterIP");
	_cleanup_buf_ struct buf b = {.limit = 4096};
	json_t *v;
	size_t i;

	if (streq(type, "ExternalName")) {
		cell(cells, js_str(svc, "spec.externalName"));
		return;
	}
	if (streq(type, "LoadBalancer"))
		json_array_foreach (js_get(svc, "status.loadBalancer.ingress"), i, v)
			join(&b, js_str_or(v, "ip", js_str_or(v, "hostname", "")));
	cell_buf(cells, &b, streq(type, "LoadBalancer") ? "<pending>" : "<none>");
}

static void cell_service_ports(json_t *cells, const json_t *svc)
{
	_cleanup_buf_ struct buf b = {.limit = 4096};
	json_t *p;
	size_t i;

	json_array_foreach (js_get(svc, "spec.ports"), i, p) {
		char text[64];
		long long node = js_int(p, "nodePort", 0), port = js_int(p, "port", 0);
		const char *protocol = js_str_or(p, "protocol", "TCP");

		if (node)
			snprintf(text, sizeof(text), "%lld:%lld/%.8s", port, node, protocol);
		else
			snprintf(text, sizeof(text), "%lld/%.8s", port, protocol);
		join(&b, text);
	}
	cell_buf(cells, &b, "<none>");
}

static void cells_service(json_t *cells, const json_t *svc, int64_t now_us)
{
	_cleanup_buf_ struct buf selector = {.limit = 65536};

	cell(cells, js_str(svc, "metadata.name"));
	cell_or(cells, js_str(svc, "spec.type"), "ClusterIP");
	cell_or(cells, js_str(svc, "spec.clusterIP"), "<none>");
	cell_external(cells, svc);
	cell_service_ports(cells, svc);
	cell_age(cells, svc, now_us);
	labels_text(&selector, js_get(svc, "spec.selector"));
	cell_buf(cells, &selector, "<none>");
}

const struct table table_service = {
	"Service",
	COLUMNS(COLUMN_NAME, {"Type", "string", "", 0, "How it is exposed."},
		{"Cluster-IP", "string", "", 0, "Virtual address."},
		{"External-IP", "string", "", 0, "Addresses outside the cluster."},
		{"Port(s)", "string", "", 0, "Ports."}, COLUMN_AGE,
		{"Selector", "string", "", 1, "Labels of its pods."}),
	cells_service,
};

/* Appends "ip:port" of up to SHOWN_MAX endpoints; *ret_n counts all. */
static void subset_text(struct buf *b, const json_t *subset, size_t *ret_n)
{
	json_t *ports = json_object_get(subset, "ports"), *a, *p;
	size_t i, j;

	json_array_foreach (json_object_get(subset, "addresses"), i, a) {
		if (!json_array_size(ports) && (*ret_n)++ < SHOWN_MAX)
			join(b, js_str_or(a, "ip", ""));
		json_array_foreach (ports, j, p) {
			char text[128];

			if ((*ret_n)++ >= SHOWN_MAX)
				continue;
			snprintf(text, sizeof(text), "%.100s:%lld", js_str_or(a, "ip", ""),
				 (long long)js_int(p, "port", 0));
			join(b, text);
		}
	}
}

static void cells_endpoints(json_t *cells, const json_t *ep, int64_t now_us)
{
	_cleanup_buf_ struct buf b = {.limit = 4096};
	size_t i, n = 0;
	json_t *s;

	json_array_foreach (json_object_get(ep, "subsets"), i, s)
		subset_text(&b, s, &n);
	if (n > SHOWN_MAX)
		buf_addf(&b, " + %zu more...", n - SHOWN_MAX);
	cell(cells, js_str(ep, "metadata.name"));
	cell_buf(cells, &b, "<none>");
	cell_age(cells, ep, now_us);
}

const struct table table_endpoints = {
	"Endpoints",
	COLUMNS(COLUMN_NAME, {"Endpoints", "string", "", 0, "Addresses."}, COLUMN_AGE),
	cells_endpoints,
};

static void cells_slice(json_t *cells, const json_t *slice, int64_t now_us)
{
	_cleanup_buf_ struct buf ports = {.limit = 4096}, addresses = {.limit = 4096};
	json_t *list = json_object_get(slice, "ports"), *v, *a;
	size_t i, j, n = 0;

	json_array_foreach (list, i, v) {
		char text[32];

		if (i >= SHOWN_MAX)
			continue;
		snprintf(text, sizeof(text), "%lld", (long long)js_int(v, "port", 0));
		join(&ports, js_int(v, "port", 0) ? text : js_str_or(v, "name", "*"));
	}
	if (json_array_size(list) > SHOWN_MAX)
		buf_addf(&ports, " + %zu more...", json_array_size(list) - SHOWN_MAX);
	json_array_foreach (json_object_get(slice, "endpoints"), i, v)
		json_array_foreach (json_object_get(v, "addresses"), j, a)
			if (n++ < SHOWN_MAX)
				join(&addresses, json_is_string(a) ? json_string_value(a) : "");
	if (n > SHOWN_MAX)
		buf_addf(&addresses, " + %zu more...", n - SHOWN_MAX);
	cell(cells, js_str(slice, "metadata.name"));
	cell(cells, js_str(slice, "addressType"));
	cell_buf(cells, &ports, "<unset>");
	cell_buf(cells, &addresses, "<unset>");
	cell_age(cells, slice, now_us);
}

const struct table table_slice = {
	"EndpointSlice",
	COLUMNS(COLUMN_NAME, {"AddressType", "string", "", 0, "Kind of addresses."},
		{"Ports", "string", "", 0, "Ports."}, {"Endpoints", "string", "", 0, "Addresses."},
		COLUMN_AGE),
	cells_slice,
};

/* ---- events ---- */

static void lower(char *s)
{
	for (; *s; s++)
		*s = *s >= 'A' && *s <= 'Z' ? (char)(*s + 32) : *s;
}

static void cells_event(json_t *cells, const json_t *ev, int64_t now_us)
{
	const char *first = js_str(ev, "firstTimestamp"), *last = js_str(ev, "lastTimestamp");
	const char *name = js_str_or(ev, "involvedObject.name", "");
	const char *host = js_str_or(ev, "source.host", ""),
		   *component = js_str_or(ev, "source.component", "");
	_cleanup_free_ char *kind = xstrdup(js_str_or(ev, "involvedObject.kind", "")), *object = NULL,
			    *source = NULL;
	int64_t count = js_int(ev, "count", 0);
	char text[AGE_MAX];

	if (!first)
		first = js_str(ev, "eventTime");
	if (!last)
		last = first;
	if (json_is_object(json_object_get(ev, "series"))) {
		last = js_str(ev, "series.lastObservedTime");
		count = js_int(ev, "series.count", 0);
	}
	lower(kind);
	object = xasprintf("%s%s%s", kind, *name ? "/" : "", name);
	if (!*component)
		component = js_str_or(ev, "reportingComponent", "");
	if (!*host)
		host = js_str_or(ev, "reportingInstance", "");
	source = xasprintf("%s%s%s", component, *host ? ", " : "", host);
	cell(cells, since_text(text, last, now_us));
	cell(cells, js_str(ev, "type"));
	cell(cells, js_str(ev, "reason"));
	cell(cells, object);
	cell(cells, js_str(ev, "involvedObject.fieldPath"));
	cell(cells, source);
	cell(cells, js_str(ev, "message"));
	cell(cells, since_text(text, first, now_us));
	cell_int(cells, count ? count : 1);
	cell(cells, js_str(ev, "metadata.name"));
}

const struct table table_event = {
	"Event",
	COLUMNS({"Last Seen", "string", "", 0, "Time since it happened last."},
		{"Type", "string", "", 0, "Normal or Warning."}, {"Reason", "string", "", 0, "One word why."},
		{"Object", "string", "", 0, "The object it is about."},
		{"Subobject", "string", "", 1, "Part of the object."},
		{"Source", "string", "", 1, "Who reports."}, {"Message", "string", "", 0, "What happened."},
		{"First Seen", "string", "", 1, "Time since it happened first."},
		{"Count", "integer", "", 1, "How often it happened."},
		{"Name", "string", "name", 1, "Name of the event."}),
	cells_event,
};

/* ---- small kinds ---- */

static void cells_namespace(json_t *cells, const json_t *ns, int64_t now_us)
{
	cell(cells, js_str(ns, "metadata.name"));
	cell(cells, js_str(ns, "status.phase"));
	cell_age(cells, ns, now_us);
}

const struct table table_namespace = {
	"Namespace",
	COLUMNS(COLUMN_NAME, {"Status", "string", "", 0, "Active or Terminating."}, COLUMN_AGE),
	cells_namespace,
};

static void cells_config_map(json_t *cells, const json_t *cm, int64_t now_us)
{
	cell(cells, js_str(cm, "metadata.name"));
	cell_int(cells, (int64_t)(json_object_size(json_object_get(cm, "data")) +
				  json_object_size(json_object_get(cm, "binaryData"))));
	cell_age(cells, cm, now_us);
}

const struct table table_config_map = {
	"ConfigMap",
	COLUMNS(COLUMN_NAME, {"Data", "string", "", 0, "Number of keys."}, COLUMN_AGE),
	cells_config_map,
};

static void cells_secret(json_t *cells, const json_t *secret, int64_t now_us)
{
	cell(cells, js_str(secret, "metadata.name"));
	cell(cells, js_str(secret, "type"));
	cell_int(cells, (int64_t)json_object_size(json_object_get(secret, "data")));
	cell_age(cells, secret, now_us);
}

const struct table table_secret = {
	"Secret",
	COLUMNS(COLUMN_NAME, {"Type", "string", "", 0, "What the data is for."},
		{"Data", "string", "", 0, "Number of keys."}, COLUMN_AGE),
	cells_secret,
};

static void cells_account(json_t *cells, const json_t *sa, int64_t now_us)
{
	cell(cells, js_str(sa, "metadata.name"));
	cell_int(cells, (int64_t)json_array_size(json_object_get(sa, "secrets")));
	cell_age(cells, sa, now_us);
}

const struct table table_account = {
	"ServiceAccount",
	COLUMNS(COLUMN_NAME, {"Secrets", "string", "", 0, "Number of secrets."}, COLUMN_AGE),
	cells_account,
};

static void cells_lease(json_t *cells, const json_t *lease, int64_t now_us)
{
	cell(cells, js_str(lease, "metadata.name"));
	cell(cells, js_str(lease, "spec.holderIdentity"));
	cell_age(cells, lease, now_us);
}

const struct table table_lease = {
	"Lease",
	COLUMNS(COLUMN_NAME, {"Holder", "string", "", 0, "Who holds it."}, COLUMN_AGE),
	cells_lease,
};
