/* SPDX-License-Identifier: Apache-2.0 */
/* model: label selectors, field selectors, quantities. */
#include "test.h"

#include "model/model.h"

static const struct {
	const char *text;
	const char *labels;
	int match; /* -1 = refused */
} label_cases[] = {
	{"", "{}", 1},
	{"a=b", "{\"a\":\"b\"}", 1},
	{"a==b", "{\"a\":\"b\"}", 1},
	{"a=b", "{\"a\":\"c\"}", 0},
	{"a=b", "null", 0},
	{"a!=b", "null", 1},
	{"a!=b", "{\"a\":\"b\"}", 0},
	{"a", "{\"a\":\"\"}", 1},
	{"!a", "{\"a\":\"\"}", 0},
	{"!a", "{}", 1},
	{"a in (x, y)", "{\"a\":\"y\"}", 1},
	{"a in (x,y),b notin (z)", "{\"a\":\"y\",\"b\":\"z\"}", 0},
	{"a notin (x)", "{}", 1},
	{"a in (x,)", "{\"a\":\"\"}", 1},
	{"a=", "{\"a\":\"\"}", 1},
	{" kuayu.io/peer = x , b ", "{\"kuayu.io/peer\":\"x\",\"b\":\"1\"}", 1},
	{"a>5", "{\"a\":\"6\"}", 1},
	{"a<5", "{\"a\":\"6\"}", 0},
	{"a>x", "{}", -1},
	{"a in x", "{}", -1},
	{"a in (x", "{}", -1},
	{"a=b c", "{}", -1},
	{"a,,b", "{}", -1},
	{"a,", "{}", -1},
	{"-a=b", "{}", -1},
	{"a=b!", "{}", -1},
	{"!a=b", "{}", -1},
	{"a=-", "{}", -1},
	{"a=b)", "{}", -1},
};

static void labels_text(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(label_cases); i++) {
		struct model_selector *s = NULL;
		_cleanup_json_ json_t *l = json_loads(label_cases[i].labels, JSON_DECODE_ANY, NULL);
		struct err e = {0};
		int r = model_selector_parse(label_cases[i].text, &s, &e);

		if (label_cases[i].match < 0 ? r != -EINVAL || !*e.text
					     : r < 0 || model_selector_match(s, l) != label_cases[i].match)
			fail_msg("selector \"%s\" on %s: %d %s", label_cases[i].text, label_cases[i].labels,
				 r, e.text);
		model_selector_free(s);
	}
}

static void labels_json(void **state)
{
	_cleanup_json_ json_t *labels = json_loads("{\"app\":\"db\",\"zone\":\"a\"}", 0, NULL);
	_cleanup_json_ json_t *empty = json_object();
	static const struct {
		const char *selector;
		bool match;
	} cases[] = {
		{"{\"matchLabels\":{\"app\":\"db\"}}", true},
		{"{\"matchLabels\":{\"app\":\"web\"}}", false},
		{"{\"app\":\"db\",\"zone\":\"a\"}", true},
		{"{\"app\":\"db\",\"zone\":\"b\"}", false},
		{"{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"In\",\"values\":[\"a\",\"b\"]}]}",
		 true},
		{"{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"NotIn\",\"values\":[\"a\",\"b\"]}]"
		 "}",
		 false},
		{"{\"matchExpressions\":[{\"key\":\"x\",\"operator\":\"DoesNotExist\"}]}", true},
		{"{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"Exists\"}],\"matchLabels\":{"
		 "\"app\":\"x\"}}",
		 false},
		{"{\"matchLabels\":null,\"matchExpressions\":null}", true},
		{"{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"Exists\",\"values\":[\"a\"]}]}",
		 false},
		{"{\"matchExpressions\":[{\"key\":\"zone\",\"operator\":\"In\"}]}", false},
	};

	(void)state;
	assert_true(model_labels_match(empty, labels));
	assert_false(model_labels_match(NULL, labels));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_json_ json_t *s = json_loads(cases[i].selector, 0, NULL);

		assert_non_null(s);
		if (model_labels_match(s, labels) != cases[i].match)
			fail_msg("%s", cases[i].selector);
	}
}

static void fields(void **state)
{
	const struct model_kind *pod = model_kind_by_kind("v1", "Pod"),
				*cm = model_kind_by_kind("v1", "ConfigMap");
	const struct model_kind *node = model_kind_by_kind("v1", "Node");
	_cleanup_json_ json_t *p =
		json_loads("{\"metadata\":{\"name\":\"p\",\"namespace\":\"n\"},"
			   "\"spec\":{\"nodeName\":\"a1\"},\"status\":{\"phase\":\"Running\"}}",
			   0, NULL);
	_cleanup_json_ json_t *n = json_loads("{\"metadata\":{\"name\":\"a1\"},\"spec\":{}}", 0, NULL);
	static const struct {
		const char *text;
		int match;
	} cases[] = {
		{"", 1},
		{"spec.nodeName=a1", 1},
		{"spec.nodeName==a1,status.phase!=Succeeded,status.phase!=Failed", 1},
		{"spec.nodeName=", 0},
		{"status.podIP=", 1},
		{"metadata.name=p,metadata.namespace=n", 1},
		{"metadata.name=a\\,b", 0},
		{"spec.image=x", -1},
		{"spec.nodeName", -1},
		{"spec.nodeName=a=b", -1},
	};
	struct model_field_selector *s;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r;

		s = NULL;
		r = model_field_selector_parse(pod, cases[i].text, &s, NULL);
		if (cases[i].match < 0 ? r != -EINVAL
				       : r < 0 || model_field_selector_match(s, p) != cases[i].match)
			fail_msg("%s", cases[i].text);
		model_field_selector_free(s);
	}
	assert_int_equal(model_field_selector_parse(cm, "spec.nodeName=x", &s, NULL), -EINVAL);
	assert_int_equal(model_field_selector_parse(node, "spec.unschedulable=false", &s, NULL), 0);
	assert_true(model_field_selector_match(s, n));
	model_field_selector_free(s);
}

static void quantities(void **state)
{
	static const struct {
		const char *text;
		int result;
		int64_t milli;
	} cases[] = {
		{"0", 0, 0},
		{"500m", 0, 500},
		{"2", 0, 2000},
		{"1Gi", 0, 1073741824000},
		{"1.5", 0, 1500},
		{".5", 0, 500},
		{"5.", 0, 5000},
		{"1.5Gi", 0, 1610612736000},
		{"-1", 0, -1000},
		{"+1", 0, 1000},
		{"1k", 0, 1000000},
		{"1e3", 0, 1000000},
		{"1E3", 0, 1000000},
		{"12e-1", 0, 1200},
		{"1u", 0, 1},
		{"1n", 0, 1},
		{"100Mi", 0, 104857600000},
		{"0.0000001", 0, 1},
		{"9223372036854775", 0, 9223372036854775000},
		{"9223372036854776", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"m", -EINVAL, 0},
		{"1K", -EINVAL, 0},
		{"1 Gi", -EINVAL, 0},
		{"1.2.3", -EINVAL, 0},
		{"1e", -EINVAL, 0},
		{"1e+", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"1Ei", -ERANGE, 0},
		{"1E", -ERANGE, 0},
		{"0.000000000000000000000000000000000000000001Ei", 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t v = 0;
		int want = cases[i].result;
		int r = model_quantity_milli(cases[i].text, &v);

		if (r != want || (r == 0 && v != cases[i].milli))
			fail_msg("\"%s\": %d, %lld", cases[i].text, r, (long long)v);
	}
}

TEST_MAIN(cmocka_unit_test(labels_text), cmocka_unit_test(labels_json), cmocka_unit_test(fields),
	  cmocka_unit_test(quantities))
