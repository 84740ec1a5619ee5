/* SPDX-License-Identifier: Apache-2.0 */
/* model: tables. Golden cases in test/golden/model/table: {about, object, cells: [...]}; "now" is 2026-11-22T12:00:00Z. */
#include "golden.h"

#define NOW_TEXT "2026-11-22T12:00:00Z"

static int64_t now(void)
{
	int64_t us = 0;

	assert_int_equal(clock_parse(NOW_TEXT, &us), 0);
	return us;
}

static void one(const char *file, const char *folder, const json_t *c)
{
	const struct model_kind *k = golden_kind(file, c);
	_cleanup_json_ json_t *t = model_table_new(k, json_object_get(c, "object"), NULL, now());
	json_t *row = json_array_get(json_object_get(t, "rows"), 0), *cells = json_object_get(row, "cells");

	(void)folder;
	assert_int_equal(json_array_size(json_object_get(t, "columnDefinitions")), json_array_size(cells));
	assert_string_equal(js_str(row, "object.kind"), "PartialObjectMetadata");
	if (!json_equal(cells, json_object_get(c, "cells"))) {
		_cleanup_free_ char *text = js_text(cells);

		fail_msg("%s: %s: got %s", file, js_str(c, "about"), text);
	}
}

static void golden(void **state)
{
	(void)state;
	golden_run("table", one);
}

static void ages(void **state)
{
	static const struct {
		const char *created, *age;
	} cases[] = {
		{NULL, "<unknown>"},
		{"2026-11-22T12:00:05Z", "<invalid>"},
		{"2026-11-22T12:00:01Z", "0s"},
		{"2026-11-22T12:00:00Z", "0s"},
		{"2026-11-22T11:58:01Z", "119s"},
		{"2026-11-22T11:58:00Z", "2m"},
		{"2026-11-22T11:56:59Z", "3m1s"},
		{"2026-11-22T11:50:00Z", "10m"},
		{"2026-11-22T09:00:01Z", "179m"},
		{"2026-11-22T09:00:00Z", "3h"},
		{"2026-11-22T08:30:00Z", "3h30m"},
		{"2026-11-22T04:00:00Z", "8h"},
		{"2026-11-20T12:00:01Z", "47h"},
		{"2026-11-20T12:00:00Z", "2d"},
		{"2026-11-20T09:00:00Z", "2d3h"},
		{"2026-11-14T12:00:00Z", "8d"},
		{"2024-11-23T12:00:00Z", "729d"},
		{"2024-11-22T12:00:00Z", "2y"},
		{"2024-11-20T12:00:00Z", "2y2d"},
		{"2010-11-22T12:00:00Z", "16y"},
	};
	const struct model_kind *k = model_kind_by_kind("v1", "Namespace");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_json_ json_t *obj =
			json_pack("{s:{s:s*}}", "metadata", "creationTimestamp", cases[i].created);
		_cleanup_json_ json_t *t = model_table_new(k, obj, "None", now());
		json_t *row = json_array_get(json_object_get(t, "rows"), 0);

		assert_string_equal(json_string_value(json_array_get(json_object_get(row, "cells"), 2)),
				    cases[i].age);
		assert_null(json_object_get(row, "object"));
	}
}

static void lists(void **state)
{
	const struct model_kind *k = model_kind_by_kind("v1", "Pod");
	_cleanup_json_ json_t *list = json_pack("[{s:{s:s}}, {s:{s:s}, s:{s:s}}]", "metadata", "name", "a",
						"metadata", "name", "b", "status", "phase", "Succeeded");
	_cleanup_json_ json_t *t = model_table_new(k, list, "Object", now());
	json_t *rows = json_object_get(t, "rows");

	(void)state;
	assert_string_equal(js_str(t, "kind"), "Table");
	assert_string_equal(js_str(t, "apiVersion"), "meta.k8s.io/v1");
	assert_int_equal(json_array_size(rows), 2);
	assert_string_equal(js_str(json_array_get(rows, 0), "object.kind"), "Pod");
	assert_string_equal(
		js_str(json_array_get(json_object_get(json_array_get(rows, 1), "conditions"), 0), "reason"),
		"Succeeded");
}

TEST_MAIN(cmocka_unit_test(golden), cmocka_unit_test(ages), cmocka_unit_test(lists))
