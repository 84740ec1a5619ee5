/* SPDX-License-Identifier: Apache-2.0 */
/* model: defaults, validation, unknown fields. Golden cases:
 *   test/golden/model/validate: {about, object, old?, causes: ["field: message", ...]}; object gets defaults first. A cause
 *   given with a final "..." is compared up to there.
 *   test/golden/model/default: {about, object, result}. */
#include "golden.h"

static bool same_cause(const char *want, const char *got)
{
	size_t n = strlen(want);

	return str_ends(want, "...") ? strncmp(want, got, n - 3) == 0 : streq(want, got);
}

static void compare(const char *file, const json_t *c, const json_t *got)
{
	json_t *want = json_object_get(c, "causes"), *g;
	size_t i;

	json_array_foreach (got, i, g) {
		_cleanup_free_ char *text = xasprintf("%s: %s", js_str(g, "field"), js_str(g, "message"));
		const char *w = json_string_value(json_array_get(want, i));

		if (!w || !same_cause(w, text))
			fail_msg("%s: %s:\n  got  %s\n  want %s", file, js_str(c, "about"), text,
				 w ? w : "nothing");
	}
	if (json_array_size(want) != json_array_size(got))
		fail_msg("%s: %s: missing %s", file, js_str(c, "about"),
			 json_string_value(json_array_get(want, json_array_size(got))));
}

static void validate_one(const char *file, const char *folder, const json_t *c)
{
	const struct model_kind *k = golden_kind(file, c);
	_cleanup_json_ json_t *obj = json_deep_copy(json_object_get(c, "object")), *causes = NULL,
			      *old = NULL;
	int r;

	(void)folder;
	model_default(k, obj);
	r = model_validate(k, obj, json_object_get(c, "old"), &causes);
	compare(file, c, causes);
	assert_int_equal(r, json_array_size(causes) ? -EINVAL : 0);
}

static void validate(void **state)
{
	(void)state;
	golden_run("validate", validate_one);
}

static void default_one(const char *file, const char *folder, const json_t *c)
{
	const struct model_kind *k = golden_kind(file, c);
	_cleanup_json_ json_t *obj = json_deep_copy(json_object_get(c, "object"));

	(void)folder;
	for (int again = 0; again < 2; again++) { /* the second time changes nothing */
		model_default(k, obj);
		if (!json_equal(obj, json_object_get(c, "result"))) {
			_cleanup_free_ char *text = json_dumps(obj, JSON_INDENT(1));

			fail_msg("%s: %s: got %s", file, js_str(c, "about"), text);
		}
	}
}

static void defaults(void **state)
{
	(void)state;
	golden_run("default", default_one);
}

static void unknown(void **state)
{
	const struct model_kind *k = model_kind_by_kind("apps/v1", "Deployment");
	_cleanup_json_ json_t *obj =
		json_loads("{\"apiVersion\":\"apps/"
			   "v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"x\",\"lables\":{}},"
			   "\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"a\",\"imagee\":"
			   "\"b\",\"tty\":true}],"
			   "\"hostIPC\":true,\"dnsConfig\":{}}}},\"stat\":1}",
			   0, NULL);
	_cleanup_json_ json_t *want =
		json_loads("[\"unknown field \\\"metadata.lables\\\"\","
			   "\"unknown field \\\"spec.template.spec.containers[0].imagee\\\"\","
			   "\"field \\\"spec.template.spec.containers[0].tty\\\" is not supported\","
			   "\"field \\\"spec.template.spec.hostIPC\\\" is not supported\","
			   "\"unknown field \\\"stat\\\"\"]",
			   0, NULL);
	_cleanup_json_ json_t *got = NULL, *left = NULL;

	(void)state;
	assert_non_null(obj);
	got = model_unknown_fields_new(k, obj);
	if (!json_equal(got, want)) {
		_cleanup_free_ char *text = js_text(got);

		fail_msg("%s", text);
	}
	model_prune(k, obj);
	left = model_unknown_fields_new(k, obj);
	assert_int_equal(json_array_size(left), 2);
	assert_null(js_get(obj, "stat"));
}

/* Many faults: the list is bounded and nothing crashes on values of wrong types. */
static void wrong_types(void **state)
{
	size_t n;
	const struct model_kind *kinds = model_kinds(&n);
	static const char *const values[] = {
		"1",	"\"x\"",
		"[]",	"{}",
		"[1]",	"[\"\"]",
		"[{}]", "{\"a\":1}",
		"true", "{\"ports\":1,\"template\":[],\"containers\":{},\"metadata\":1}"};

	(void)state;
	for (size_t i = 0; i < n; i++)
		for (size_t v = 0; v < ARRAY_SIZE(values); v++) {
			_cleanup_json_ json_t *obj = json_object(), *causes = NULL, *old = NULL;

			for (const char *const *f =
				     (const char *const[]){"metadata", "spec", "status", "data", "type",
							   "ports", "endpoints", "stringData", NULL};
			     *f; f++)
				json_object_set_new(obj, *f, json_loads(values[v], JSON_DECODE_ANY, NULL));
			old = json_deep_copy(obj);
			model_default(&kinds[i], obj);
			model_prune(&kinds[i], obj);
			assert_int_equal(model_validate(&kinds[i], obj, old, &causes), -EINVAL);
		}
}

TEST_MAIN(cmocka_unit_test(validate), cmocka_unit_test(defaults), cmocka_unit_test(unknown),
	  cmocka_unit_test(wrong_types))
