/* SPDX-License-Identifier: Apache-2.0 */
/* Pods and pod templates: volumes, the set of containers, hosts, security; and what may change in a pod. Types are known to be
 * right here. */
#include "model/internal.h"

#define TOLERATIONS_MAX 200 /* more cannot be changed in a pod: comparing them takes n * n steps */

/* ---- volumes ---- */

static void volume_items(json_t *causes, const struct at *at, const json_t *source)
{
	json_t *item;
	size_t i;

	json_array_foreach (json_object_get(source, "items"), i, item) {
		const struct at *list = AT(at, "items"), *one = AT_INDEX(list, i);

		validate_relative_path(causes, AT(one, "path"), json_object_get(item, "path"));
	}
}

static void downward_items(json_t *causes, const struct at *at, const json_t *source)
{
	static const char *const fields[] = {"metadata.name",	"metadata.namespace",	"metadata.uid",
					     "metadata.labels", "metadata.annotations", NULL};
	const struct at *list = AT(at, "items");
	json_t *item;
	size_t i;

	json_array_foreach (json_object_get(source, "items"), i, item) {
		const struct at *one = AT_INDEX(list, i);
		json_t *field = json_object_get(item, "fieldRef"),
		       *resource = json_object_get(item, "resourceFieldRef");
		const char *path = js_str_or(field, "fieldPath", "");

		if (!field && !resource)
			fault_required(causes, one, "one of fieldRef and resourceFieldRef is required");
		else if (field && resource)
			fault_forbidden(causes, one,
					"fieldRef and resourceFieldRef can not be specified simultaneously");
		else if (resource && !*js_str_or(resource, "containerName", ""))
			fault_required(causes, AT(AT(one, "resourceFieldRef"), "containerName"), NULL);
		else if (resource)
			validate_resource_ref(causes, AT(one, "resourceFieldRef"), resource);
		else if (*path && !field_path_ok(path, fields))
			fault_invalid(causes, AT(AT(one, "fieldRef"), "fieldPath"),
				      json_object_get(field, "fieldPath"),
				      "field label not supported in a volume: %s", path);
	}
}

static void volume(json_t *causes, const struct at *at, const json_t *v)
{
	static const char *const needs_name[][2] = {{"configMap", "name"}, {"secret", "secretName"}};
	bool first = true;
	const char *name;
	json_t *source;

	json_object_foreach ((json_t *)v, name, source) {
		if (streq(name, "name"))
			continue;
		if (!first)
			fault_forbidden(causes, AT(at, name), "may not specify more than 1 volume type");
		first = false;
		volume_items(causes, AT(at, name), source);
		if (streq(name, "downwardAPI"))
			downward_items(causes, AT(at, name), source);
		for (size_t i = 0; i < ARRAY_SIZE(needs_name); i++)
			if (streq(name, needs_name[i][0]) && !*js_str_or(source, needs_name[i][1], ""))
				fault_required(causes, AT(AT(at, name), needs_name[i][1]), NULL);
	}
	if (path_climbs(js_str_or(v, "hostPath.path", "")))
		fault_invalid(causes, AT(AT(at, "hostPath"), "path"), js_get(v, "hostPath.path"),
			      "must not contain '..'");
}

/* Fills `names` with the volumes' names. */
static void volumes(json_t *causes, const struct at *at, const json_t *list, json_t *names)
{
	json_t *v;
	size_t i;

	json_array_foreach (list, i, v) {
		const struct at *one = AT_INDEX(at, i);
		json_t *name = json_object_get(v, "name");
		const char *s = json_string_value(name);

		if (s && *s && !model_name_ok(s))
			fault_invalid(causes, AT(one, "name"), name, "%s", text_label);
		else if (s && json_object_get(names, s))
			fault_duplicate(causes, AT(one, "name"), name);
		if (s)
			json_object_set_new(names, s, json_true());
		volume(causes, one, v);
	}
}

/* ---- containers ---- */

static void containers(json_t *causes, const struct at *at, const json_t *spec, const char *list,
		       const struct pod_rules *rules, json_t *names)
{
	json_t *c;
	size_t i;

	json_array_foreach (json_object_get(spec, list), i, c) {
		const struct at *all = AT(at, list), *one = AT_INDEX(all, i);
		json_t *name = json_object_get(c, "name");

		validate_container(causes, one, c, rules, streq(list, "initContainers"));
		if (!json_string_length(name))
			continue;
		if (json_object_get(names, json_string_value(name)))
			fault_duplicate(causes, AT(one, "name"), name);
		json_object_set_new(names, json_string_value(name), json_true());
	}
}

/* ---- the rest ---- */

static void name_field(json_t *causes, const struct at *at, const json_t *spec, const char *field, bool label)
{
	json_t *v = json_object_get(spec, field);
	const char *s = json_string_value(v);

	if (s && *s && !(label ? model_name_ok(s) : model_subdomain_ok(s)))
		fault_invalid(causes, AT(at, field), v, "%s", label ? text_label : text_subdomain);
}

static void host_aliases(json_t *causes, const struct at *at, const json_t *list)
{
	json_t *alias, *name;
	size_t i, j;

	json_array_foreach (list, i, alias) {
		const struct at *one = AT_INDEX(at, i), *names = AT(one, "hostnames");
		json_t *ip = json_object_get(alias, "ip");

		if (json_string_length(ip) && !name_is_ipv4(json_string_value(ip)) &&
		    !strchr(json_string_value(ip), ':'))
			fault_invalid(causes, AT(one, "ip"), ip,
				      "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
		json_array_foreach (json_object_get(alias, "hostnames"), j, name)
			if (!model_subdomain_ok(json_string_value(name)))
				fault_invalid(causes, AT_INDEX(names, j), name, "%s", text_subdomain);
	}
}

void validate_pod_spec(json_t *causes, const struct at *at, const json_t *spec)
{
	_cleanup_json_ json_t *volume_names = json_object(), *names = json_object();
	struct pod_rules rules = {.volumes = volume_names,
				  .host_network = js_bool(spec, "hostNetwork", false)};
	json_t *grace = json_object_get(spec, "terminationGracePeriodSeconds");

	if (!spec)
		return;
	volumes(causes, AT(at, "volumes"), json_object_get(spec, "volumes"), volume_names);
	containers(causes, at, spec, "containers", &rules, names);
	containers(causes, at, spec, "initContainers", &rules, names);
	if (json_integer_value(grace) < 0)
		fault_invalid(causes, AT(at, "terminationGracePeriodSeconds"), grace,
			      "must be greater than or equal to 0");
	if (streq(js_str(spec, "dnsPolicy"), "None"))
		fault_required(causes, AT(AT(at, "dnsConfig"), "nameservers"),
			       "must provide at least one DNS nameserver when `dnsPolicy` is None");
	if (streq(js_str(spec, "os.name"), "windows"))
		fault_forbidden(causes, AT(AT(at, "os"), "name"), "only linux is supported by kuayu");
	name_field(causes, at, spec, "hostname", true);
	name_field(causes, at, spec, "subdomain", true);
	name_field(causes, at, spec, "nodeName", false);
	name_field(causes, at, spec, "serviceAccountName", false);
	host_aliases(causes, AT(at, "hostAliases"), json_object_get(spec, "hostAliases"));
	validate_placement(causes, at, spec);
}

void validate_template(json_t *causes, const struct at *at, const json_t *template, const json_t *selector)
{
	const struct at *meta = AT(at, "metadata");
	json_t *labels = js_get(template, "metadata.labels"),
	       *policy = js_get(template, "spec.restartPolicy");
	_cleanup_json_ json_t *none = json_object();

	if (!template)
		return;
	validate_labels(causes, AT(meta, "labels"), labels);
	if (json_is_object(selector) && !model_labels_match(selector, labels ? labels : none))
		fault_invalid(causes, AT(meta, "labels"), labels ? labels : none,
			      "`selector` does not match template `labels`");
	if (!json_object_get(template, "spec"))
		fault_required(causes, AT(AT(at, "spec"), "containers"), NULL);
	validate_pod_spec(causes, AT(at, "spec"), json_object_get(template, "spec"));
	if (json_is_string(policy) && !streq(json_string_value(policy), "Always")) {
		static const char *const only[] = {"Always", NULL};

		fault_unsupported_value(causes, AT(AT(at, "spec"), "restartPolicy"),
					json_string_value(policy), only);
	}
}

/* ---- updates ---- */

/* Every toleration of old is still there (its tolerationSeconds may have changed). */
static bool tolerations_kept(const json_t *now, const json_t *old)
{
	json_t *a, *b;
	size_t i, j;

	if (json_array_size(now) > TOLERATIONS_MAX || json_array_size(old) > TOLERATIONS_MAX)
		return json_equal((json_t *)now, (json_t *)old);
	json_array_foreach (old, i, a) {
		bool found = false;

		json_array_foreach (now, j, b) {
			_cleanup_json_ json_t *x = json_copy(a), *y = json_copy(b);

			json_object_del(x, "tolerationSeconds");
			json_object_del(y, "tolerationSeconds");
			found |= json_equal(x, y) != 0;
		}
		if (!found)
			return false;
	}
	return true;
}

/* Copies what may change from old to the copy of the new spec, so that the rest can be compared. */
static void level(json_t *spec, const json_t *old, const char *list)
{
	json_t *c, *was;
	size_t i;

	json_array_foreach (json_object_get(spec, list), i, c) {
		was = json_array_get(json_object_get(old, list), i);
		if (json_object_get(c, "image") && json_object_get(was, "image"))
			json_object_set(c, "image", json_object_get(was, "image"));
	}
}

static void level_field(json_t *spec, const json_t *old, const char *field)
{
	json_t *was = json_object_get(old, field);

	if (was)
		json_object_set(spec, field, was);
	else
		json_object_del(spec, field);
}

static void pod_update(json_t *causes, const struct at *at, const json_t *now, const json_t *old)
{
	_cleanup_json_ json_t *spec = json_deep_copy(now);

	level(spec, old, "containers");
	level(spec, old, "initContainers");
	if (!*js_str_or(old, "nodeName", "")) /* the binding */
		level_field(spec, old, "nodeName");
	if (tolerations_kept(json_object_get(now, "tolerations"), json_object_get(old, "tolerations")))
		level_field(spec, old, "tolerations");
	if (js_int(old, "terminationGracePeriodSeconds", 0) < 0 &&
	    js_int(now, "terminationGracePeriodSeconds", 0) == 1)
		level_field(spec, old, "terminationGracePeriodSeconds");
	if (json_equal(spec, (json_t *)old))
		return;
	fault_forbidden(causes, at,
			"pod updates may not change fields other than `spec.containers[*].image`,"
			"`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
			"(only additions to "
			"existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 "
			"if it was "
			"previously negative)");
}

void validate_pod(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "spec");
	json_t *spec = json_object_get(obj, "spec");

	if (!spec)
		fault_required(causes, AT(at, "containers"), NULL);
	else
		validate_pod_spec(causes, at, spec);
	if (old && spec && json_object_get(old, "spec"))
		pod_update(causes, at, spec, json_object_get(old, "spec"));
}
