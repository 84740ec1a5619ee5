/* SPDX-License-Identifier: Apache-2.0 */
/* Where pods may go: node selectors, affinity, tolerations, topology spread. Types are known to be right here. */
#include "model/internal.h"

void validate_label_selector(json_t *causes, const struct at *at, const json_t *selector)
{
	json_t *x, *v;
	size_t i, j;

	validate_labels(causes, AT(at, "matchLabels"), json_object_get(selector, "matchLabels"));
	json_array_foreach (json_object_get(selector, "matchExpressions"), i, x) {
		const struct at *list = AT(at, "matchExpressions"), *one = AT_INDEX(list, i);
		const char *op = js_str_or(x, "operator", "");
		json_t *values = json_object_get(x, "values"), *key = json_object_get(x, "key");
		bool exists = streq(op, "Exists") || streq(op, "DoesNotExist");

		if (json_string_length(key) && !name_is_qualified(json_string_value(key)))
			fault_invalid(causes, AT(one, "key"), key, "%s", text_qualified);
		if (exists && json_array_size(values))
			fault_forbidden(causes, AT(one, "values"),
					"may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
		if (!exists && !json_array_size(values))
			fault_required(causes, AT(one, "values"),
				       "must be specified when `operator` is 'In' or 'NotIn'");
		json_array_foreach (values, j, v) {
			const struct at *all = AT(one, "values");

			if (!name_is_label_value(json_string_value(v)))
				fault_invalid(causes, AT_INDEX(all, j), v, "%s", text_label_value);
		}
	}
}

/* ---- nodes ---- */

static void node_requirements(json_t *causes, const struct at *at, const json_t *list, bool fields)
{
	json_t *x;
	size_t i;

	json_array_foreach (list, i, x) {
		const struct at *one = AT_INDEX(at, i);
		const char *op = js_str_or(x, "operator", "");
		json_t *key = json_object_get(x, "key");
		size_t n = json_array_size(json_object_get(x, "values"));
		bool set = streq(op, "In") || streq(op, "NotIn"), number = streq(op, "Gt") || streq(op, "Lt");

		if (set && !n)
			fault_required(causes, AT(one, "values"),
				       "must be specified when `operator` is 'In' or 'NotIn'");
		if (number && n != 1)
			fault_required(causes, AT(one, "values"),
				       "must be specified single value when `operator` is 'Lt' or 'Gt'");
		if (!set && !number && n)
			fault_forbidden(causes, AT(one, "values"),
					"may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
		if (fields && !streq(js_str(x, "key"), "metadata.name"))
			fault_invalid(causes, AT(one, "key"), key, "not a valid field selector key");
		else if (!fields && json_string_length(key) && !name_is_qualified(json_string_value(key)))
			fault_invalid(causes, AT(one, "key"), key, "%s", text_qualified);
	}
}

static void node_term(json_t *causes, const struct at *at, const json_t *term)
{
	node_requirements(causes, AT(at, "matchExpressions"), json_object_get(term, "matchExpressions"),
			  false);
	node_requirements(causes, AT(at, "matchFields"), json_object_get(term, "matchFields"), true);
}

static void node_affinity(json_t *causes, const struct at *at, const json_t *a)
{
	static const char required[] = "requiredDuringSchedulingIgnoredDuringExecution";
	static const char preferred[] = "preferredDuringSchedulingIgnoredDuringExecution";
	const struct at *terms = AT(AT(at, required), "nodeSelectorTerms"), *weighted = AT(at, preferred);
	json_t *t;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(a, required), "nodeSelectorTerms"), i, t)
		node_term(causes, AT_INDEX(terms, i), t);
	json_array_foreach (json_object_get(a, preferred), i, t)
		node_term(causes, AT(AT_INDEX(weighted, i), "preference"), json_object_get(t, "preference"));
}

/* ---- pods ---- */

static void pod_term(json_t *causes, const struct at *at, const json_t *term)
{
	json_t *key = json_object_get(term, "topologyKey");

	if (json_string_length(key) && !name_is_qualified(json_string_value(key)))
		fault_invalid(causes, AT(at, "topologyKey"), key, "%s", text_qualified);
	validate_label_selector(causes, AT(at, "labelSelector"), json_object_get(term, "labelSelector"));
	validate_label_selector(causes, AT(at, "namespaceSelector"),
				json_object_get(term, "namespaceSelector"));
}

static void pod_affinity(json_t *causes, const struct at *at, const json_t *a)
{
	static const char required[] = "requiredDuringSchedulingIgnoredDuringExecution";
	static const char preferred[] = "preferredDuringSchedulingIgnoredDuringExecution";
	const struct at *terms = AT(at, required), *weighted = AT(at, preferred);
	json_t *t;
	size_t i;

	json_array_foreach (json_object_get(a, required), i, t)
		pod_term(causes, AT_INDEX(terms, i), t);
	json_array_foreach (json_object_get(a, preferred), i, t)
		pod_term(causes, AT(AT_INDEX(weighted, i), "podAffinityTerm"),
			 json_object_get(t, "podAffinityTerm"));
}

/* ---- tolerations and spread ---- */

static void toleration(json_t *causes, const struct at *at, const json_t *t)
{
	json_t *key = json_object_get(t, "key"), *op = json_object_get(t, "operator"), *value;
	bool exists = streq(json_string_value(op), "Exists");

	value = json_object_get(t, "value");
	if (json_string_length(key) && !name_is_qualified(json_string_value(key)))
		fault_invalid(causes, AT(at, "key"), key, "%s", text_qualified);
	if (!json_string_length(key) && !exists)
		fault_invalid(
			causes, AT(at, "operator"), op,
			"operator must be Exists when `key` is empty, which means \"match all values and all "
			"keys\"");
	if (json_object_get(t, "tolerationSeconds") && !streq(js_str(t, "effect"), "NoExecute"))
		fault_invalid(causes, AT(at, "effect"), json_object_get(t, "effect"),
			      "effect must be 'NoExecute' when `tolerationSeconds` is set");
	if (exists && json_string_length(value))
		fault_invalid(causes, AT(at, "operator"), value,
			      "value must be empty when `operator` is 'Exists'");
	else if (json_string_length(value) && !name_is_label_value(json_string_value(value)))
		fault_invalid(causes, AT(at, "operator"), value, "%s", text_label_value);
}

static void spread(json_t *causes, const struct at *at, const json_t *list)
{
	_cleanup_json_ json_t *seen = json_object();
	json_t *c;
	size_t i;

	json_array_foreach (list, i, c) {
		const struct at *one = AT_INDEX(at, i);
		_cleanup_free_ char *text = xasprintf("{%s, %s}", js_str_or(c, "topologyKey", ""),
						      js_str_or(c, "whenUnsatisfiable", ""));
		_cleanup_json_ json_t *pair = json_string(text);

		if (json_object_get(seen, text))
			fault_duplicate(causes, AT(one, "{topologyKey, whenUnsatisfiable}"), pair);
		json_object_set_new(seen, text, json_true());
		if (json_object_get(c, "minDomains") &&
		    !streq(js_str(c, "whenUnsatisfiable"), "DoNotSchedule"))
			fault_invalid(causes, AT(one, "minDomains"), json_object_get(c, "minDomains"),
				      "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %s",
				      js_str_or(c, "whenUnsatisfiable", ""));
		validate_label_selector(causes, AT(one, "labelSelector"),
					json_object_get(c, "labelSelector"));
	}
}

void validate_placement(json_t *causes, const struct at *at, const json_t *spec)
{
	const struct at *affinity = AT(at, "affinity"), *tolerations = AT(at, "tolerations");
	json_t *t;
	size_t i;

	validate_labels(causes, AT(at, "nodeSelector"), json_object_get(spec, "nodeSelector"));
	node_affinity(causes, AT(affinity, "nodeAffinity"), js_get(spec, "affinity.nodeAffinity"));
	pod_affinity(causes, AT(affinity, "podAffinity"), js_get(spec, "affinity.podAffinity"));
	pod_affinity(causes, AT(affinity, "podAntiAffinity"), js_get(spec, "affinity.podAntiAffinity"));
	json_array_foreach (json_object_get(spec, "tolerations"), i, t)
		toleration(causes, AT_INDEX(tolerations, i), t);
	spread(causes, AT(at, "topologySpreadConstraints"),
	       json_object_get(spec, "topologySpreadConstraints"));
}
