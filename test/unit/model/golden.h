/* SPDX-License-Identifier: Apache-2.0 */
/* Golden cases: every *.json in test/golden/model/FOLDER is {"cases": [{about, ...}]}. */
#pragma once

#include "test.h"

#include "model/model.h"

#include <dirent.h>

typedef void golden_fn(const char *file, const char *folder, const json_t *c);

static inline void golden_file(const char *folder, const char *path, golden_fn *fn, size_t *n)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_json_ json_t *j = NULL;
	struct err e = {0};
	size_t i, len;
	json_t *c;

	assert_int_equal(file_read(path, 1 << 20, &text, &len, &e), 0);
	if (js_parse_new(text, len, &j, &e) < 0)
		fail_msg("%s: %s", path, e.text);
	json_array_foreach (json_object_get(j, "cases"), i, c) {
		fn(strrchr(path, '/') + 1, folder, c);
		++*n;
	}
}

static inline void golden_run(const char *folder, golden_fn *fn)
{
	const char *root = getenv("KUAYU_SOURCE");
	_cleanup_free_ char *dir = xasprintf("%s/test/golden/model/%s", root ? root : ".", folder);
	DIR *d = opendir(dir);
	struct dirent *ent;
	size_t n = 0;

	assert_non_null(d);
	while ((ent = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, ent->d_name);

		if (str_ends(ent->d_name, ".json"))
			golden_file(folder, path, fn, &n);
	}
	closedir(d);
	assert_true(n > 0);
}

/* The kind of object c.object, by its own apiVersion and kind. */
static inline const struct model_kind *golden_kind(const char *file, const json_t *c)
{
	const struct model_kind *k =
		model_kind_by_kind(js_str(c, "object.apiVersion"), js_str(c, "object.kind"));

	if (!k)
		fail_msg("%s: %s: unknown kind", file, js_str_or(c, "about", ""));
	return k;
}
