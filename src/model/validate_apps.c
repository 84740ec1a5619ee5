/* SPDX-License-Identifier: Apache-2.0 */
/* Deployment, ReplicaSet, StatefulSet, ControllerRevision. Types are known to be right here. */
#include "model/internal.h"

static void selector_and_template(json_t *causes, const struct at *at, const json_t *spec, const char *kind)
{
	json_t *selector = json_object_get(spec, "selector");

	if (json_is_object(selector)) {
		validate_label_selector(causes, AT(at, "selector"), selector);
		if (!json_object_size(json_object_get(selector, "matchLabels")) &&
		    !json_array_size(json_object_get(selector, "matchExpressions")))
			fault_invalid(causes, AT(at, "selector"), selector,
				      "empty selector is invalid for %s", kind);
	}
	validate_template(causes, AT(at, "template"), json_object_get(spec, "template"), selector);
}

/* A count or a percentage. *ret: the number, -1 when it is wrong or missing. */
static void count_or_percent(json_t *causes, const struct at *at, const json_t *v, bool at_most_100,
			     int64_t *ret)
{
	const char *s = json_string_value(v);
	size_t n = s ? strlen(s) : 0;
	_cleanup_free_ char *digits = n ? xstrndup(s, n - 1) : NULL;

	*ret = -1;
	if (!v)
		return;
	if (json_is_integer(v)) {
		*ret = json_integer_value(v);
		if (*ret < 0)
			fault_invalid(causes, at, v, "must be greater than or equal to 0");
		return;
	}
	if (n < 2 || n > 10 || s[n - 1] != '%' || strspn(digits, "0123456789") != n - 1 ||
	    str_i64(digits, ret) < 0)
		fault_invalid(causes, at, v,
			      "a valid percent string must be a numeric followed by an ending '%%' (e.g. "
			      "'1%%',  or "
			      "'93%%', regex used for validation is '[0-9]+%%')");
	else if (at_most_100 && *ret > 100)
		fault_invalid(causes, at, v, "must not be greater than 100%%");
}

static void rolling_update(json_t *causes, const struct at *at, const json_t *r)
{
	int64_t unavailable, surge;

	count_or_percent(causes, AT(at, "maxUnavailable"), json_object_get(r, "maxUnavailable"), true,
			 &unavailable);
	count_or_percent(causes, AT(at, "maxSurge"), json_object_get(r, "maxSurge"), false, &surge);
	if (unavailable == 0 && surge == 0)
		fault_invalid(causes, AT(at, "maxUnavailable"), json_object_get(r, "maxUnavailable"),
			      "may not be 0 when `maxSurge` is 0");
}

void validate_deployment(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "spec"), *strategy = AT(at, "strategy");
	json_t *spec = json_object_get(obj, "spec"), *rolling = js_get(spec, "strategy.rollingUpdate");
	json_t *deadline = json_object_get(spec, "progressDeadlineSeconds");

	if (!spec) {
		fault_required(causes, AT(at, "selector"), NULL);
		return;
	}
	selector_and_template(causes, at, spec, "deployment");
	if (rolling && streq(js_str(spec, "strategy.type"), "Recreate"))
		fault_forbidden(causes, AT(strategy, "rollingUpdate"),
				"may not be specified when strategy `type` is 'Recreate'");
	else if (rolling)
		rolling_update(causes, AT(strategy, "rollingUpdate"), rolling);
	if (deadline && json_integer_value(deadline) <= js_int(spec, "minReadySeconds", 0))
		fault_invalid(causes, AT(at, "progressDeadlineSeconds"), deadline,
			      "must be greater than minReadySeconds");
}

void validate_replica_set(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "spec");
	json_t *spec = json_object_get(obj, "spec");

	if (!spec)
		fault_required(causes, AT(at, "selector"), NULL);
	else
		selector_and_template(causes, at, spec, "replicaset");
}

static void stateful_set_update(json_t *causes, const struct at *at, const json_t *now, const json_t *old)
{
	static const char *const may_change[] = {"replicas",
						 "ordinals",
						 "template",
						 "updateStrategy",
						 "persistentVolumeClaimRetentionPolicy",
						 "minReadySeconds",
						 "revisionHistoryLimit"};
	_cleanup_json_ json_t *a = json_copy((json_t *)now), *b = json_copy((json_t *)old);

	for (size_t i = 0; i < ARRAY_SIZE(may_change); i++) {
		json_object_del(a, may_change[i]);
		json_object_del(b, may_change[i]);
	}
	if (!json_equal(a, b))
		fault_forbidden(causes, at,
				"updates to statefulset spec for fields other than 'replicas', 'ordinals', "
				"'template', "
				"'updateStrategy', 'revisionHistoryLimit', "
				"'persistentVolumeClaimRetentionPolicy' and "
				"'minReadySeconds' are forbidden");
}

static void claim_templates(json_t *causes, const struct at *at, const json_t *list)
{
	_cleanup_json_ json_t *seen = json_object();
	json_t *claim;
	size_t i;

	json_array_foreach (list, i, claim) {
		const struct at *one = AT_INDEX(at, i), *meta = AT(one, "metadata");
		json_t *name = js_get(claim, "metadata.name");

		if (!json_string_length(name))
			fault_required(causes, AT(meta, "name"), NULL);
		else if (!model_name_ok(json_string_value(name)))
			fault_invalid(causes, AT(meta, "name"), name, "%s", text_label);
		else if (json_object_get(seen, json_string_value(name)))
			fault_duplicate(causes, AT(meta, "name"), name);
		else
			json_object_set_new(seen, json_string_value(name), json_true());
		validate_claim_spec(causes, AT(one, "spec"), json_object_get(claim, "spec"));
	}
}

/* The set's spec with a volume in the template for every claim template: what the pods will look like. */
static json_t *with_claims_new(const json_t *spec)
{
	json_t *copy = json_deep_copy(spec), *claim, *list;
	size_t i, k;

	list = json_is_object(js_get(copy, "template.spec")) ? js_array(copy, "template.spec.volumes") : NULL;
	json_array_foreach (list ? json_object_get(spec, "volumeClaimTemplates") : NULL, i, claim) {
		const char *name = js_str(claim, "metadata.name");
		bool there = !name || !*name;
		json_t *v;

		json_array_foreach (list, k, v)
			there |= streq(js_str(v, "name"), name);
		if (!there)
			json_array_append_new(list, json_pack("{s:s, s:{}}", "name", name, "emptyDir"));
	}
	return copy;
}

void validate_stateful_set(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "spec"), *strategy = AT(at, "updateStrategy");
	json_t *spec = json_object_get(obj, "spec"), *rolling = js_get(spec, "updateStrategy.rollingUpdate");
	_cleanup_json_ json_t *claimed = NULL;

	if (!spec) {
		fault_required(causes, AT(at, "selector"), NULL);
		return;
	}
	claimed = with_claims_new(spec);
	selector_and_template(causes, at, claimed, "statefulset");
	claim_templates(causes, AT(at, "volumeClaimTemplates"),
			json_object_get(spec, "volumeClaimTemplates"));
	if (rolling && streq(js_str(spec, "updateStrategy.type"), "OnDelete"))
		fault_invalid(causes, AT(strategy, "rollingUpdate"), rolling,
			      "only allowed for updateStrategy 'RollingUpdate'");
	if (old && json_object_get(old, "spec"))
		stateful_set_update(causes, at, spec, json_object_get(old, "spec"));
}

void validate_revision(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT;
	json_t *revision = json_object_get(obj, "revision"), *data = json_object_get(obj, "data");

	if (json_integer_value(revision) < 0)
		fault_invalid(causes, AT(&root, "revision"), revision, "must be greater than or equal to 0");
	if (!data)
		fault_required(causes, AT(&root, "data"), "data is mandatory");
	if (old && data && json_object_get(old, "data") && !json_equal(data, json_object_get(old, "data")))
		fault_invalid(causes, AT(&root, "data"), data, "field is immutable");
}
