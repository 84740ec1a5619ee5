/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata: names, labels, annotations, owners, finalizers. */
#include "model/internal.h"

#define ANNOTATIONS_MAX ((size_t)256 << 10) /* bytes of all keys and values */

const char text_subdomain[] =
	"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
	"must start "
	"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
	"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const char text_label[] =
	"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
	"start and end "
	"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
	"'[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const char text_rfc1035[] =
	"a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
	"alphabetic character, "
	"and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
	"'[a-z]([-a-z0-9]*[a-z0-9])?')";
const char text_qualified[] =
	"name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
	"alphanumeric "
	"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
	"'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const char text_label_value[] = "a valid label must be an empty string or consist of alphanumeric "
				"characters, '-', '_' or '.', and must start and "
				"end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
				"'12345', regex used for validation is "
				"'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

void validate_labels(json_t *causes, const struct at *at, const json_t *labels)
{
	const char *key;
	json_t *v;

	json_object_foreach ((json_t *)labels, key, v) {
		_cleanup_json_ json_t *k = json_string(key);

		if (!name_is_qualified(key))
			fault_invalid(causes, at, k, "%s", text_qualified);
		if (!name_is_label_value(json_string_value(v)))
			fault_invalid(causes, at, v, "%s", text_label_value);
	}
}

static void validate_annotations(json_t *causes, const struct at *at, const json_t *annotations)
{
	size_t total = 0;
	const char *key;
	json_t *v;

	json_object_foreach ((json_t *)annotations, key, v) {
		_cleanup_free_ char *lower = xstrdup(key);
		_cleanup_json_ json_t *k = json_string(key);

		for (char *p = lower; *p; p++)
			*p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
		if (!name_is_qualified(lower))
			fault_invalid(causes, at, k, "%s", text_qualified);
		total += strlen(key) + json_string_length(v);
	}
	if (total > ANNOTATIONS_MAX)
		fault_too_long(causes, at, ANNOTATIONS_MAX);
}

static void validate_owners(json_t *causes, const struct at *at, const json_t *owners)
{
	const char *controller = NULL;
	json_t *o;
	size_t i;

	json_array_foreach (owners, i, o) {
		if (!js_bool(o, "controller", false))
			continue;
		if (controller)
			fault_invalid(causes, at, owners,
				      "Only one reference can have Controller set to true. Found \"true\" in "
				      "references for %s and %s",
				      controller, js_str_or(o, "name", ""));
		controller = js_str_or(o, "name", "");
	}
}

static void validate_finalizers(json_t *causes, const struct at *at, const json_t *finalizers)
{
	json_t *f;
	size_t i;

	json_array_foreach (finalizers, i, f)
		if (!name_is_qualified(json_string_value(f)))
			fault_invalid(causes, AT_INDEX(at, i), f, "%s", text_qualified);
}

enum name_rule { NAME_SUBDOMAIN, NAME_LABEL, NAME_RFC1035, NAME_PATH };

static enum name_rule name_rule(const struct model_kind *k)
{
	if (streq(k->kind, "Namespace"))
		return NAME_LABEL;
	if (streq(k->kind, "Service"))
		return NAME_RFC1035;
	return NAME_SUBDOMAIN;
}

static void validate_name(json_t *causes, const struct at *at, enum name_rule rule, const json_t *name)
{
	const char *s = json_string_value(name);

	switch (rule) {
	case NAME_LABEL:
		if (!model_name_ok(s))
			fault_invalid(causes, at, name, "%s",
				      strlen(s) > 63 ? "must be no more than 63 characters" : text_label);
		break;
	case NAME_RFC1035:
		if (!name_is_rfc1035(s))
			fault_invalid(causes, at, name, "%s",
				      strlen(s) > 63 ? "must be no more than 63 characters" : text_rfc1035);
		break;
	default:
		if (!model_subdomain_ok(s))
			fault_invalid(causes, at, name, "%s",
				      strlen(s) > 253 ? "must be no more than 253 characters"
						      : text_subdomain);
	}
}

void validate_meta(json_t *causes, const struct model_kind *k, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "metadata");
	const json_t *m = json_object_get(obj, "metadata"), *name = json_object_get(m, "name");
	const char *ns = js_str(m, "namespace");

	if (json_string_length(name) && !old)
		validate_name(causes, AT(at, "name"), name_rule(k), name);
	else if (!json_string_length(name) && !*js_str_or(m, "generateName", ""))
		fault_required(causes, AT(at, "name"), "name or generateName is required");
	if (ns && *ns && !k->namespaced)
		fault_forbidden(causes, AT(at, "namespace"), "not allowed on this type");
	else if (ns && *ns && !model_name_ok(ns))
		fault_invalid(causes, AT(at, "namespace"), json_object_get(m, "namespace"), "%s", text_label);
	validate_labels(causes, AT(at, "labels"), json_object_get(m, "labels"));
	validate_annotations(causes, AT(at, "annotations"), json_object_get(m, "annotations"));
	validate_owners(causes, AT(at, "ownerReferences"), json_object_get(m, "ownerReferences"));
	validate_finalizers(causes, AT(at, "finalizers"), json_object_get(m, "finalizers"));
}
