/* SPDX-License-Identifier: Apache-2.0 */
/* Service, Endpoints, EndpointSlice. Types are known to be right here. */
#include "model/internal.h"

#define ENDPOINTS_MAX 1000
#define PORTS_MAX     100
#define ADDRESSES_MAX 100

/* ---- services ---- */

static void service_port_name(json_t *causes, const struct at *at, const json_t *port, size_t ports,
			      json_t *names)
{
	json_t *name = json_object_get(port, "name");
	const char *s = json_string_value(name);

	if (!json_string_length(name)) {
		if (ports > 1)
			fault_required(causes, AT(at, "name"), NULL);
		return;
	}
	if (!model_name_ok(s))
		fault_invalid(causes, AT(at, "name"), name, "%s", text_label);
	else if (json_object_get(names, s))
		fault_duplicate(causes, AT(at, "name"), name);
	json_object_set_new(names, s, json_true());
}

static void service_ports(json_t *causes, const struct at *at, const json_t *spec)
{
	_cleanup_json_ json_t *names = json_object(), *numbers = json_object();
	json_t *list = json_object_get(spec, "ports"), *p;
	const char *type = js_str_or(spec, "type", "ClusterIP");
	bool node_ports = streq(type, "NodePort") || streq(type, "LoadBalancer");
	size_t i;

	json_array_foreach (list, i, p) {
		const struct at *one = AT_INDEX(at, i);
		json_t *app = json_object_get(p, "appProtocol");
		char key[64];

		service_port_name(causes, one, p, json_array_size(list), names);
		snprintf(key, sizeof(key), "%lld/%.8s", (long long)js_int(p, "port", 0),
			 js_str_or(p, "protocol", "TCP"));
		if (json_object_get(numbers, key))
			fault_duplicate(causes, one, p);
		json_object_set_new(numbers, key, json_true());
		if (json_object_get(p, "targetPort"))
			validate_port_value(causes, AT(one, "targetPort"), json_object_get(p, "targetPort"));
		if (js_int(p, "nodePort", 0) && !node_ports)
			fault_forbidden(causes, AT(one, "nodePort"), "may not be used when `type` is '%s'",
					type);
		if (json_string_length(app) && !name_is_qualified(json_string_value(app)))
			fault_invalid(causes, AT(one, "appProtocol"), app, "%s", text_qualified);
	}
}

static void cluster_ip(json_t *causes, const struct at *at, const json_t *spec)
{
	json_t *ip = json_object_get(spec, "clusterIP");
	const char *s = js_str_or(spec, "clusterIP", ""), *type = js_str_or(spec, "type", "ClusterIP");

	if (*s && !streq(s, "None") && !name_is_ipv4(s))
		fault_invalid(causes, AT(at, "clusterIP"), ip,
			      "must be empty, \"None\" or a valid IPv4 address");
	if (*s && streq(type, "ExternalName"))
		fault_forbidden(causes, AT(at, "clusterIP"), "may not be set when `type` is 'ExternalName'");
	if (streq(s, "None") && (streq(type, "NodePort") || streq(type, "LoadBalancer")))
		fault_invalid(causes, AT(at, "clusterIP"), ip, "may not be set to 'None' for %s services",
			      type);
}

static void families(json_t *causes, const struct at *at, const json_t *spec)
{
	static const char *const only[] = {"IPv4", NULL};
	const struct at *list = AT(at, "ipFamilies");
	json_t *f;
	size_t i;

	json_array_foreach (json_object_get(spec, "ipFamilies"), i, f)
		if (!streq(json_string_value(f), "IPv4"))
			fault_unsupported_value(causes, AT_INDEX(list, i), json_string_value(f), only);
	if (streq(js_str(spec, "ipFamilyPolicy"), "RequireDualStack"))
		fault_invalid(causes, AT(at, "ipFamilyPolicy"), json_object_get(spec, "ipFamilyPolicy"),
			      "this cluster is not configured for dual-stack services");
}

static void service_update(json_t *causes, const struct at *at, const json_t *now, const json_t *old)
{
	const char *was = js_str_or(old, "clusterIP", "");

	if (!*was || streq(js_str(old, "type"), "ExternalName") || streq(js_str(now, "type"), "ExternalName"))
		return;
	if (!streq(was, js_str_or(now, "clusterIP", "")))
		fault_invalid(causes, AT(at, "clusterIP"), json_object_get(now, "clusterIP"),
			      "field is immutable");
}

void validate_service(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "spec");
	json_t *spec = json_object_get(obj, "spec"),
	       *affinity = json_object_get(spec, "sessionAffinityConfig");
	const char *type = js_str_or(spec, "type", "ClusterIP");
	bool headless = streq(js_str(spec, "clusterIP"), "None"), alias = streq(type, "ExternalName");

	if (!json_array_size(json_object_get(spec, "ports")) && !headless && !alias)
		fault_required(causes, AT(at, "ports"), NULL);
	service_ports(causes, AT(at, "ports"), spec);
	cluster_ip(causes, at, spec);
	families(causes, at, spec);
	validate_labels(causes, AT(at, "selector"), json_object_get(spec, "selector"));
	if (alias && !*js_str_or(spec, "externalName", ""))
		fault_required(causes, AT(at, "externalName"), NULL);
	else if (alias && !model_subdomain_ok(js_str(spec, "externalName")))
		fault_invalid(causes, AT(at, "externalName"), json_object_get(spec, "externalName"), "%s",
			      text_subdomain);
	if (affinity && !streq(js_str(spec, "sessionAffinity"), "ClientIP"))
		fault_forbidden(causes, AT(at, "sessionAffinityConfig"),
				"must not be set when session affinity is None");
	if (*js_str_or(spec, "externalTrafficPolicy", "") && !streq(type, "NodePort") &&
	    !streq(type, "LoadBalancer"))
		fault_invalid(causes, AT(at, "externalTrafficPolicy"),
			      json_object_get(spec, "externalTrafficPolicy"),
			      "may only be set for externally-accessible services");
	if (old && spec && json_object_get(old, "spec"))
		service_update(causes, at, spec, json_object_get(old, "spec"));
}

/* ---- endpoint slices ---- */

static void slice_ports(json_t *causes, const struct at *at, const json_t *list)
{
	_cleanup_json_ json_t *names = json_object();
	json_t *p;
	size_t i;

	if (json_array_size(list) > PORTS_MAX)
		fault_too_many(causes, at, json_array_size(list), PORTS_MAX);
	json_array_foreach (list, i, p) {
		const struct at *one = AT_INDEX(at, i);
		const char *name = js_str_or(p, "name", "");

		if (*name && !model_name_ok(name))
			fault_invalid(causes, AT(one, "name"), json_object_get(p, "name"), "%s", text_label);
		if (json_object_get(names, name))
			fault_duplicate(causes, AT(one, "name"), json_object_get(p, "name"));
		json_object_set_new(names, name, json_true());
		if (json_object_get(p, "port"))
			validate_port_value(causes, AT(one, "port"), json_object_get(p, "port"));
	}
}

static void slice_addresses(json_t *causes, const struct at *at, const json_t *list, const char *type)
{
	json_t *a;
	size_t i;

	if (json_array_size(list) > ADDRESSES_MAX)
		fault_too_many(causes, at, json_array_size(list), ADDRESSES_MAX);
	json_array_foreach (list, i, a) {
		const char *s = json_string_value(a);

		if (streq(type, "IPv4") && !name_is_ipv4(s))
			fault_invalid(causes, AT_INDEX(at, i), a, "must be a valid IPv4 address");
		else if (streq(type, "IPv6") && !strchr(s, ':'))
			fault_invalid(causes, AT_INDEX(at, i), a, "must be a valid IPv6 address");
		else if (streq(type, "FQDN") && !model_subdomain_ok(s))
			fault_invalid(causes, AT_INDEX(at, i), a, "%s", text_subdomain);
	}
}

void validate_slice(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "endpoints");
	json_t *list = json_object_get(obj, "endpoints"), *e;
	size_t i;

	if (json_array_size(list) > ENDPOINTS_MAX)
		fault_too_many(causes, at, json_array_size(list), ENDPOINTS_MAX);
	json_array_foreach (list, i, e) {
		const struct at *one = AT_INDEX(at, i);
		json_t *host = json_object_get(e, "hostname");

		slice_addresses(causes, AT(one, "addresses"), json_object_get(e, "addresses"),
				js_str_or(obj, "addressType", ""));
		if (json_string_length(host) && !model_name_ok(json_string_value(host)))
			fault_invalid(causes, AT(one, "hostname"), host, "%s", text_label);
	}
	slice_ports(causes, AT(&root, "ports"), json_object_get(obj, "ports"));
}
