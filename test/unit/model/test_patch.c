/* SPDX-License-Identifier: Apache-2.0 */
/* model: patches. Golden cases are files in test/golden/model/{strategic,json,merge}: {"cases": [{about, kind?, object, patch,
 * result | error}]}. An error is a part of the text that must appear. */
#include "test.h"

#include "model/model.h"

#include <dirent.h>

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

static void folder(const char *how)
{
	_cleanup_free_ char *dir = xasprintf("%s/test/golden/model/%s", getenv("KUAYU_SOURCE"), how);
	DIR *d = opendir(dir);
	struct dirent *ent;
	size_t n = 0;

	assert_non_null(d);
	while ((ent = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, ent->d_name), *text = NULL;
		_cleanup_json_ json_t *j = NULL;
		json_t *c;
		size_t i, len;
		struct err e = {0};

		if (!str_ends(ent->d_name, ".json"))
			continue;
		assert_int_equal(file_read(path, 1 << 20, &text, &len, &e), 0);
		if (js_parse_new(text, len, &j, &e) < 0)
			fail_msg("%s: %s", path, e.text);
		json_array_foreach (json_object_get(j, "cases"), i, c) {
			one(ent->d_name, how, c);
			n++;
		}
	}
	closedir(d);
	assert_true(n > 0);
}

static void strategic(void **state)
{
	(void)state;
	folder("strategic");
}

static void rfc6902(void **state)
{
	(void)state;
	folder("json");
}

static void rfc7386(void **state)
{
	(void)state;
	folder("merge");
}

TEST_MAIN(cmocka_unit_test(strategic), cmocka_unit_test(rfc6902), cmocka_unit_test(rfc7386))
