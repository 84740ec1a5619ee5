/* SPDX-License-Identifier: Apache-2.0 */
/* model: patches. Golden cases are files in test/golden/model/{strategic,json,merge}: {"cases": [{about, kind?, object, patch,
 * result | error}]}. An error is a part of the text that must appear. */
#include "golden.h"

static int apply(const char *how, const json_t *c, json_t **ret, struct err *e)
{
	const json_t *object = json_object_get(c, "object"), *patch = json_object_get(c, "patch");
	const struct model_kind *k =
		model_kind_by_kind(js_str_or(c, "apiVersion", "v1"), js_str_or(c, "kind", "Pod"));

	assert_non_null(k);
	if (streq(how, "json"))
		return model_patch_json(object, patch, ret, e);
	if (streq(how, "merge"))
		return model_patch_merge(object, patch, ret, e);
	return model_patch_strategic(k, object, patch, ret, e);
}

static void one(const char *file, const char *how, const json_t *c)
{
	_cleanup_json_ json_t *got = NULL, *object = json_deep_copy(json_object_get(c, "object"));
	_cleanup_json_ json_t *patch = json_deep_copy(json_object_get(c, "patch"));
	const char *error = js_str(c, "error");
	struct err e = {0};
	int r = apply(how, c, &got, &e);

	if (error) {
		if (r != -EINVAL || !strstr(e.text, error))
			fail_msg("%s: %s: wanted error %s, got %d %s", file, js_str(c, "about"), error, r,
				 e.text);
	} else if (r < 0 || !json_equal(got, json_object_get(c, "result"))) {
		_cleanup_free_ char *text = js_text(got);

		fail_msg("%s: %s: got %d %s %s", file, js_str(c, "about"), r, e.text, text);
	}
	/* Inputs are never changed. */
	assert_true(json_equal(object, json_object_get(c, "object")));
	assert_true(json_equal(patch, json_object_get(c, "patch")));
}

static void strategic(void **state)
{
	(void)state;
	golden_run("strategic", one);
}

static void rfc6902(void **state)
{
	(void)state;
	golden_run("json", one);
}

static void rfc7386(void **state)
{
	(void)state;
	golden_run("merge", one);
}

TEST_MAIN(cmocka_unit_test(strategic), cmocka_unit_test(rfc6902), cmocka_unit_test(rfc7386))
