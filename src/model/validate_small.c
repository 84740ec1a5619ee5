/* SPDX-License-Identifier: Apache-2.0 */
/* ConfigMap, Secret, Node, Event, Binding. Types are known to be right here. */
#include "model/internal.h"

#define DATA_MAX ((size_t)1 << 20) /* bytes in a config map or secret */

/* ---- data ---- */

/* Checks the keys; returns the bytes of the values. */
static size_t data_keys(json_t *causes, const struct at *at, const json_t *data, bool base64)
{
	size_t total = 0;
	const char *key;
	json_t *v;

	json_object_foreach ((json_t *)data, key, v) {
		_cleanup_json_ json_t *k = json_string(key);

		if (!name_is_config_key(key))
			fault_invalid(causes, AT_KEY(at, key), k, "%s",
				      strlen(key) > 253 ? "must be no more than 253 characters"
							: text_config_key);
		total += base64 ? json_string_length(v) / 4 * 3 : json_string_length(v);
	}
	return total;
}

static void frozen(json_t *causes, const struct at *at, const json_t *obj, const json_t *old,
		   const char *const *fields)
{
	if (!js_bool(old, "immutable", false))
		return;
	if (!js_bool(obj, "immutable", false))
		fault_forbidden(causes, AT(at, "immutable"), "field is immutable when `immutable` is set");
	for (; *fields; fields++) {
		json_t *a = json_object_get(obj, *fields), *b = json_object_get(old, *fields);

		if (json_object_size(a) != json_object_size(b) || (a && b && !json_equal(a, b)))
			fault_forbidden(causes, AT(at, *fields),
					"field is immutable when `immutable` is set");
	}
}

void validate_config_map(json_t *causes, const json_t *obj, const json_t *old)
{
	static const char *const fields[] = {"data", "binaryData", NULL};
	const struct at root = AT_ROOT;
	json_t *data = json_object_get(obj, "data"), *binary = json_object_get(obj, "binaryData"), *v;
	size_t total = data_keys(causes, AT(&root, "data"), data, false) +
		       data_keys(causes, AT(&root, "binaryData"), binary, true);
	const char *key;

	json_object_foreach (binary, key, v)
		if (json_object_get(data, key)) {
			const struct at *at = AT(&root, "binaryData");
			_cleanup_json_ json_t *k = json_string(key);

			fault_invalid(causes, AT_KEY(at, key), k, "duplicate of key present in data");
		}
	if (total > DATA_MAX)
		fault_too_long(causes, &root, DATA_MAX);
	if (old)
		frozen(causes, &root, obj, old, fields);
}

static void secret_type(json_t *causes, const struct at *at, const json_t *obj)
{
	static const char *const needed[][2] = {
		{"kubernetes.io/tls", "tls.crt"},
		{"kubernetes.io/tls", "tls.key"},
		{"kubernetes.io/dockerconfigjson", ".dockerconfigjson"},
		{"kubernetes.io/dockercfg", ".dockercfg"},
		{"kubernetes.io/ssh-auth", "ssh-privatekey"},
	};
	const char *type = js_str_or(obj, "type", "");
	json_t *data = json_object_get(obj, "data");

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (streq(type, needed[i][0]) && !json_object_get(data, needed[i][1]))
			fault_required(causes, AT_KEY(AT(at, "data"), needed[i][1]), NULL);
	if (streq(type, "kubernetes.io/basic-auth") && !json_object_get(data, "username") &&
	    !json_object_get(data, "password")) {
		fault_required(causes, AT_KEY(AT(at, "data"), "username"), NULL);
		fault_required(causes, AT_KEY(AT(at, "data"), "password"), NULL);
	}
	if (streq(type, "kubernetes.io/service-account-token") &&
	    !json_object_get(js_get(obj, "metadata.annotations"), "kubernetes.io/service-account.name"))
		fault_required(
			causes,
			AT_KEY(AT(AT(at, "metadata"), "annotations"), "kubernetes.io/service-account.name"),
			NULL);
}

void validate_secret(json_t *causes, const json_t *obj, const json_t *old)
{
	static const char *const fields[] = {"data", NULL};
	const struct at root = AT_ROOT;

	if (data_keys(causes, AT(&root, "data"), json_object_get(obj, "data"), true) > DATA_MAX)
		fault_too_long(causes, AT(&root, "data"), DATA_MAX);
	secret_type(causes, &root, obj);
	if (old)
		frozen(causes, &root, obj, old, fields);
}

/* ---- nodes ---- */

void validate_node(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *spec = AT(&root, "spec"), *taints = AT(spec, "taints");
	const char *was = js_str_or(old, "spec.podCIDR", "");
	_cleanup_json_ json_t *seen = json_object();
	json_t *t;
	size_t i;

	json_array_foreach (js_get(obj, "spec.taints"), i, t) {
		const struct at *one = AT_INDEX(taints, i);
		json_t *key = json_object_get(t, "key"), *value = json_object_get(t, "value");
		_cleanup_free_ char *id =
			xasprintf("%s:%s", js_str_or(t, "key", ""), js_str_or(t, "effect", ""));

		if (json_string_length(key) && !name_is_qualified(json_string_value(key)))
			fault_invalid(causes, AT(one, "key"), key, "%s", text_qualified);
		if (json_string_length(value) && !name_is_label_value(json_string_value(value)))
			fault_invalid(causes, AT(one, "value"), value, "%s", text_label_value);
		if (json_object_get(seen, id))
			fault_duplicate(causes, one, t);
		json_object_set_new(seen, id, json_true());
	}
	if (*was && !streq(was, js_str_or(obj, "spec.podCIDR", "")))
		fault_forbidden(causes, AT(spec, "podCIDR"),
				"node updates may not change podCIDR except from \"\" to valid");
}

/* ---- events and bindings ---- */

void validate_event(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *involved = AT(&root, "involvedObject");
	const char *ns = js_str_or(obj, "metadata.namespace", ""),
		   *of = js_str_or(obj, "involvedObject.namespace", "");
	bool cluster = !*of && (!*ns || streq(ns, "default"));

	if (!old && !cluster && !streq(ns, of))
		fault_invalid(causes, AT(involved, "namespace"), js_get(obj, "involvedObject.namespace"),
			      "does not match event.namespace");
}

void validate_binding(json_t *causes, const json_t *obj, const json_t *old)
{
	static const char *const only[] = {"Node", "<empty>", NULL};
	const struct at root = AT_ROOT, *target = AT(&root, "target");
	const char *kind = js_str_or(obj, "target.kind", "");

	if (*kind && !streq(kind, "Node"))
		fault_unsupported_value(causes, AT(target, "kind"), kind, only);
	if (!*js_str_or(obj, "target.name", ""))
		fault_required(causes, AT(target, "name"), NULL);
}
