/* SPDX-License-Identifier: Apache-2.0 */
/* Containers: names, ports, environment, mounts, resources, probes, hooks. Types are known to be right here. */
#include "model/internal.h"

const char text_config_key[] = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
			       "(e.g. 'key.name',  or 'KEY_NAME',  or "
			       "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/* How many of the names obj has; *ret_last is the last one found. */
static int count_of(const json_t *obj, const char *const *names, const char **ret_last)
{
	int n = 0;

	for (; *names; names++)
		if (json_object_get(obj, *names)) {
			*ret_last = *names;
			n++;
		}
	return n;
}

void validate_port_value(json_t *causes, const struct at *at, const json_t *port)
{
	const char *fault;

	if (json_is_integer(port)) {
		if (json_integer_value(port) < 1 || json_integer_value(port) > 65535)
			fault_invalid(causes, at, port, "must be between 1 and 65535, inclusive");
		return;
	}
	fault = json_is_string(port) ? name_port_fault(json_string_value(port)) : NULL;
	if (fault)
		fault_invalid(causes, at, port, "%s", fault);
}

/* ---- ports ---- */

static void ports(json_t *causes, const struct at *at, const json_t *list, const struct pod_rules *rules)
{
	_cleanup_json_ json_t *names = json_object();
	json_t *p;
	size_t i;

	json_array_foreach (list, i, p) {
		const struct at *one = AT_INDEX(at, i);
		json_t *name = json_object_get(p, "name");
		int64_t host = js_int(p, "hostPort", 0);
		const char *fault =
			json_string_length(name) ? name_port_fault(json_string_value(name)) : NULL;

		if (fault)
			fault_invalid(causes, AT(one, "name"), name, "%s", fault);
		else if (json_string_length(name) && json_object_get(names, json_string_value(name)))
			fault_duplicate(causes, AT(one, "name"), name);
		else if (json_string_length(name))
			json_object_set_new(names, json_string_value(name), json_true());
		if (host && rules->host_network && host != js_int(p, "containerPort", 0))
			fault_invalid(causes, AT(one, "containerPort"), json_object_get(p, "containerPort"),
				      "must match `hostPort` when `hostNetwork` is true");
	}
}

/* ---- environment ---- */

bool field_path_ok(const char *path, const char *const *known)
{
	for (; *known; known++)
		if (streq(*known, path))
			return true;
	return (str_starts(path, "metadata.labels['") || str_starts(path, "metadata.annotations['")) &&
	       str_ends(path, "']");
}

void validate_resource_ref(json_t *causes, const struct at *at, const json_t *ref)
{
	static const char *const known[] = {"limits.cpu",
					    "limits.memory",
					    "limits.ephemeral-storage",
					    "requests.cpu",
					    "requests.memory",
					    "requests.ephemeral-storage",
					    NULL};
	const char *resource = js_str_or(ref, "resource", "");

	if (!*resource || str_starts(resource, "limits.hugepages-") ||
	    str_starts(resource, "requests.hugepages-"))
		return;
	for (const char *const *k = known; *k; k++)
		if (streq(*k, resource))
			return;
	fault_unsupported_value(causes, AT(at, "resource"), resource, known);
}

static void key_reference(json_t *causes, const struct at *at, const json_t *ref)
{
	json_t *key = json_object_get(ref, "key");

	if (!*js_str_or(ref, "name", ""))
		fault_required(causes, AT(at, "name"), NULL);
	if (json_string_length(key) && !name_is_config_key(json_string_value(key)))
		fault_invalid(causes, AT(at, "key"), key, "%s", text_config_key);
}

static void env_source(json_t *causes, const struct at *at, const json_t *from)
{
	static const char *const names[] = {"fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef",
					    NULL};
	static const char *const fields[] = {"metadata.name",  "metadata.namespace",
					     "metadata.uid",   "spec.nodeName",
					     "status.hostIP",  "spec.serviceAccountName",
					     "status.hostIPs", "status.podIP",
					     "status.podIPs",  NULL};
	const char *last = NULL, *path = js_str(from, "fieldRef.fieldPath");
	int n = count_of(from, names, &last);
	_cleanup_json_ json_t *none = json_string("");

	if (n == 0)
		fault_invalid(causes, at, none,
			      "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or "
			      "`secretKeyRef`");
	else if (n > 1)
		fault_invalid(causes, at, none, "may not have more than one field specified at a time");
	if (path && *path && !field_path_ok(path, fields))
		fault_invalid(causes, AT(AT(at, "fieldRef"), "fieldPath"), js_get(from, "fieldRef.fieldPath"),
			      "error converting fieldPath: field label not supported: %s", path);
	if (json_object_get(from, "resourceFieldRef"))
		validate_resource_ref(causes, AT(at, "resourceFieldRef"),
				      json_object_get(from, "resourceFieldRef"));
	if (json_object_get(from, "configMapKeyRef"))
		key_reference(causes, AT(at, "configMapKeyRef"), json_object_get(from, "configMapKeyRef"));
	if (json_object_get(from, "secretKeyRef"))
		key_reference(causes, AT(at, "secretKeyRef"), json_object_get(from, "secretKeyRef"));
}

static void environment(json_t *causes, const struct at *at, const json_t *container)
{
	static const char *const sources[] = {"configMapRef", "secretRef", NULL};
	_cleanup_json_ json_t *none = json_string("");
	json_t *e;
	size_t i;

	json_array_foreach (json_object_get(container, "env"), i, e) {
		const struct at *list = AT(at, "env"), *one = AT_INDEX(list, i);
		json_t *name = json_object_get(e, "name"), *from = json_object_get(e, "valueFrom");

		if (json_string_length(name) && !name_is_env(json_string_value(name)))
			fault_invalid(causes, AT(one, "name"), name,
				      "a valid environment variable name must consist only of printable "
				      "ASCII characters "
				      "other than '='");
		if (from && json_string_length(json_object_get(e, "value")))
			fault_invalid(causes, AT(one, "valueFrom"), none,
				      "may not be specified when `value` is not empty");
		else if (from)
			env_source(causes, AT(one, "valueFrom"), from);
	}
	json_array_foreach (json_object_get(container, "envFrom"), i, e) {
		const struct at *list = AT(at, "envFrom"), *one = AT_INDEX(list, i);
		const char *last = NULL;
		int n = count_of(e, sources, &last);

		if (n != 1)
			fault_invalid(causes, one, none,
				      n ? "may not have more than one field specified at a time"
					: "must specify one of: `configMapRef` or `secretRef`");
		else if (!*js_str_or(json_object_get(e, last), "name", ""))
			fault_required(causes, AT(AT(one, last), "name"), NULL);
	}
}

/* ---- mounts ---- */

bool path_climbs(const char *path)
{
	for (const char *p = path; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
		if (p[0] == '.' && p[1] == '.' && (!p[2] || p[2] == '/'))
			return true;
	return false;
}

void validate_relative_path(json_t *causes, const struct at *at, const json_t *path)
{
	const char *s = json_string_value(path);

	if (s && *s == '/')
		fault_invalid(causes, at, path, "must be a relative path");
	else if (s && path_climbs(s))
		fault_invalid(causes, at, path, "must not contain '..'");
}

static void mounts(json_t *causes, const struct at *at, const json_t *list, const struct pod_rules *rules)
{
	_cleanup_json_ json_t *seen = json_object();
	json_t *m;
	size_t i;

	json_array_foreach (list, i, m) {
		const struct at *one = AT_INDEX(at, i);
		json_t *path = json_object_get(m, "mountPath");
		const char *name = js_str_or(m, "name", ""), *s = js_str_or(m, "mountPath", "");

		if (*name && !json_object_get(rules->volumes, name))
			fault_not_found(causes, AT(one, "name"), name);
		if (*s && json_object_get(seen, s))
			fault_invalid(causes, AT(one, "mountPath"), path, "must be unique");
		if (strchr(s, ':'))
			fault_invalid(causes, AT(one, "mountPath"), path, "must not contain ':'");
		if (*s)
			json_object_set_new(seen, s, json_true());
		validate_relative_path(causes, AT(one, "subPath"), json_object_get(m, "subPath"));
		validate_relative_path(causes, AT(one, "subPathExpr"), json_object_get(m, "subPathExpr"));
		if (*js_str_or(m, "subPath", "") && *js_str_or(m, "subPathExpr", ""))
			fault_invalid(causes, AT(one, "subPathExpr"), json_object_get(m, "subPathExpr"),
				      "subPathExpr and subPath are mutually exclusive");
	}
}

/* ---- resources ---- */

static bool resource_name_ok(const char *name)
{
	static const char *const standard[] = {"cpu", "memory", "ephemeral-storage"};

	for (size_t i = 0; i < ARRAY_SIZE(standard); i++)
		if (streq(standard[i], name))
			return true;
	return str_starts(name, "hugepages-") || (strchr(name, '/') && name_is_qualified(name));
}

static void quantities(json_t *causes, const struct at *at, const json_t *map)
{
	const char *name;
	int64_t milli;
	json_t *v;

	json_object_foreach ((json_t *)map, name, v) {
		_cleanup_json_ json_t *key = json_string(name);

		if (!resource_name_ok(name))
			fault_invalid(causes, AT_KEY(at, name), key,
				      "must be a standard resource type or fully qualified");
		if (model_quantity_json(v, &milli) == -ERANGE)
			fault_invalid(causes, AT_KEY(at, name), v, "is too large");
		else if (milli < 0)
			fault_invalid(causes, AT_KEY(at, name), v, "must be greater than or equal to 0");
	}
}

static void resources(json_t *causes, const struct at *at, const json_t *r)
{
	json_t *limits = json_object_get(r, "limits"), *requests = json_object_get(r, "requests"), *v;
	int64_t need, most;
	const char *name;

	quantities(causes, AT(at, "limits"), limits);
	quantities(causes, AT(at, "requests"), requests);
	json_object_foreach (requests, name, v) {
		json_t *limit = json_object_get(limits, name);
		_cleanup_free_ char *text = NULL;

		if (!limit || model_quantity_json(v, &need) < 0 || model_quantity_json(limit, &most) < 0 ||
		    need <= most)
			continue;
		text = json_is_string(limit) ? xstrdup(json_string_value(limit)) : js_text(limit);
		fault_invalid(causes, AT(at, "requests"), v, "must be less than or equal to %s limit of %s",
			      name, text);
	}
}

/* ---- probes and hooks ---- */

static void handler(json_t *causes, const struct at *at, const json_t *h)
{
	static const char *const names[] = {"exec", "httpGet", "tcpSocket", "grpc", NULL};
	const char *last = NULL;
	int n = count_of(h, names, &last);

	if (n == 0)
		fault_required(causes, at, "must specify a handler type");
	if (n > 1)
		fault_forbidden(causes, AT(at, last), "may not specify more than 1 handler type");
	if (json_object_get(h, "exec") && !json_array_size(js_get(h, "exec.command")))
		fault_required(causes, AT(AT(at, "exec"), "command"), NULL);
	if (js_get(h, "httpGet.port"))
		validate_port_value(causes, AT(AT(at, "httpGet"), "port"), js_get(h, "httpGet.port"));
	if (js_get(h, "tcpSocket.port"))
		validate_port_value(causes, AT(AT(at, "tcpSocket"), "port"), js_get(h, "tcpSocket.port"));
}

static void probes(json_t *causes, const struct at *at, const json_t *c, bool init)
{
	static const char *const names[] = {"livenessProbe", "readinessProbe", "startupProbe"};
	static const char *const hooks[] = {"lifecycle.postStart", "lifecycle.preStop"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		json_t *p = json_object_get(c, names[i]);

		if (!p)
			continue;
		if (init) {
			fault_forbidden(causes, AT(at, names[i]),
					"may not be set for init containers without restartPolicy=Always");
			continue;
		}
		handler(causes, AT(at, names[i]), p);
		if (!streq(names[i], "readinessProbe") && js_int(p, "successThreshold", 1) != 1)
			fault_invalid(causes, AT(AT(at, names[i]), "successThreshold"),
				      json_object_get(p, "successThreshold"), "must be 1");
		if (streq(names[i], "readinessProbe") && json_object_get(p, "terminationGracePeriodSeconds"))
			fault_invalid(causes, AT(AT(at, names[i]), "terminationGracePeriodSeconds"),
				      json_object_get(p, "terminationGracePeriodSeconds"),
				      "must not be set for readinessProbes");
	}
	if (init && json_object_size(json_object_get(c, "lifecycle")))
		fault_forbidden(causes, AT(at, "lifecycle"),
				"may not be set for init containers without restartPolicy=Always");
	for (size_t i = 0; i < ARRAY_SIZE(hooks) && !init; i++)
		if (js_get(c, hooks[i]))
			handler(causes, AT(AT(at, "lifecycle"), hooks[i] + strlen("lifecycle.")),
				js_get(c, hooks[i]));
}

static void security(json_t *causes, const struct at *at, const json_t *s)
{
	json_t *escalate = json_object_get(s, "allowPrivilegeEscalation");

	if (json_is_false(escalate) && js_bool(s, "privileged", false))
		fault_invalid(causes, at, s,
			      "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
}

void validate_container(json_t *causes, const struct at *at, const json_t *c, const struct pod_rules *rules,
			bool init)
{
	json_t *name = json_object_get(c, "name"), *image = json_object_get(c, "image");
	const char *s = js_str_or(c, "image", "");

	if (json_string_length(name) && !model_name_ok(json_string_value(name)))
		fault_invalid(causes, AT(at, "name"), name, "%s", text_label);
	if (!*s)
		fault_required(causes, AT(at, "image"), NULL);
	else if (*s == ' ' || s[strlen(s) - 1] == ' ')
		fault_invalid(causes, AT(at, "image"), image, "must not have leading or trailing whitespace");
	ports(causes, AT(at, "ports"), json_object_get(c, "ports"), rules);
	environment(causes, at, c);
	mounts(causes, AT(at, "volumeMounts"), json_object_get(c, "volumeMounts"), rules);
	resources(causes, AT(at, "resources"), json_object_get(c, "resources"));
	probes(causes, at, c, init);
	security(causes, AT(at, "securityContext"), json_object_get(c, "securityContext"));
}
