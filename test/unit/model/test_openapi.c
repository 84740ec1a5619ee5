/* SPDX-License-Identifier: Apache-2.0 */
/* model: kinds, OpenAPI documents, protobuf requests (as kubectl 1.32 sent them; fuzz/corpus/protobuf). */
#include "test.h"

#include "model/model.h"

static void kinds(void **state)
{
	char text[128];
	size_t n;
	const struct model_kind *all = model_kinds(&n);

	(void)state;
	assert_true(n >= 15);
	for (size_t i = 0; i < n; i++) {
		assert_ptr_equal(model_kind_by_plural(all[i].group, all[i].version, all[i].plural), &all[i]);
		assert_ptr_equal(model_kind_by_plural(all[i].group, NULL, all[i].plural), &all[i]);
		assert_ptr_equal(model_kind_by_kind(model_api_version(&all[i], text), all[i].kind), &all[i]);
	}
	assert_null(model_kind_by_plural("", "v1", "deployments"));
	assert_null(model_kind_by_kind("v1", "Deployment"));
	assert_null(model_kind_by_kind(NULL, NULL));
	assert_non_null(model_kind_by_kind("policy/v1", "Eviction"));
	assert_string_equal(model_api_version(model_kind_by_kind("apps/v1", "Deployment"), text), "apps/v1");
}

/* Every $ref leads to a definition. */
static void refs(const json_t *j, const json_t *definitions, const char *prefix)
{
	const char *name, *ref = js_str(j, "$ref");
	json_t *v;
	size_t i;

	if (ref) {
		assert_true(str_starts(ref, prefix));
		if (!json_object_get(definitions, ref + strlen(prefix)))
			fail_msg("%s leads nowhere", ref);
	}
	json_object_foreach ((json_t *)j, name, v)
		refs(v, definitions, prefix);
	json_array_foreach (j, i, v)
		refs(v, definitions, prefix);
}

static void openapi_v3(void **state)
{
	_cleanup_json_ json_t *index = model_openapi_v3_index_new(), *again = model_openapi_v3_index_new();
	json_t *paths = json_object_get(index, "paths"), *v;
	const char *name;

	(void)state;
	assert_true(json_equal(index, again)); /* the hash is stable */
	assert_int_equal(json_object_size(paths), 5);
	assert_true(str_starts(js_str(json_object_get(paths, "apis/apps/v1"), "serverRelativeURL"),
			       "/openapi/v3/apis/apps/v1?hash="));
	json_object_foreach (paths, name, v) {
		_cleanup_free_ char *group = xstrdup(str_starts(name, "apis/") ? name + 5 : "");
		_cleanup_json_ json_t *doc = NULL;

		if (*group)
			*strchr(group, '/') = 0;
		doc = model_openapi_v3_new(group, "v1");
		assert_non_null(doc);
		refs(doc, js_get(doc, "components.schemas"), "#/components/schemas/");
	}
	assert_null(model_openapi_v3_new("nothing", "v1"));
	assert_null(model_openapi_v3_new("", "v2"));
}

static void openapi_pod(void **state)
{
	_cleanup_json_ json_t *doc = model_openapi_v3_new("", "v1");
	json_t *schemas = js_get(doc, "components.schemas");
	json_t *spec = json_object_get(schemas, "io.k8s.api.core.v1.PodSpec");
	json_t *paths = json_object_get(doc, "paths"), *p, *parameters;
	bool dry_run = false, validation = false;
	size_t i;

	(void)state;
	assert_string_equal(js_str(js_get(spec, "properties.containers"), "x-kubernetes-patch-merge-key"),
			    "name");
	assert_string_equal(js_str(js_get(spec, "properties.volumes"), "x-kubernetes-patch-strategy"),
			    "merge,retainKeys");
	parameters = js_get(json_object_get(paths, "/api/v1/namespaces/{namespace}/pods/{name}"),
			    "patch.parameters");
	json_array_foreach (parameters, i, p) {
		dry_run |= streq(js_str(p, "name"), "dryRun");
		validation |= streq(js_str(p, "name"), "fieldValidation");
	}
	assert_true(dry_run && validation);
}

static void openapi_v2(void **state)
{
	_cleanup_json_ json_t *doc = model_openapi_v2_new();
	_cleanup_buf_ struct buf b = {0};

	(void)state;
	refs(doc, json_object_get(doc, "definitions"), "#/definitions/");
	assert_int_equal(model_openapi_v2_protobuf(&b), 0);
	/* Document.swagger = "2.0", then Info */
	assert_memory_equal(b.data,
			    "\x0a\x03"
			    "2.0\x12",
			    6);
}

static void protobuf_one(const char *name, const char *want)
{
	const char *root = getenv("KUAYU_SOURCE");
	_cleanup_free_ char *path = xasprintf("%s/fuzz/corpus/protobuf/%s", root ? root : ".", name),
			    *data = NULL;
	_cleanup_json_ json_t *expected = json_loads(want, 0, NULL), *got = NULL;
	struct err e = {0};
	size_t len;

	assert_non_null(expected);
	assert_int_equal(file_read(path, 1 << 20, &data, &len, &e), 0);
	if (model_from_protobuf(data, len, &got, &e) < 0)
		fail_msg("%s: %s", name, e.text);
	if (!json_equal(got, expected)) {
		_cleanup_free_ char *text = js_text(got);

		fail_msg("%s: %s", name, text);
	}
	for (size_t cut = 0; cut < len; cut++) { /* no prefix crashes; asan watches */
		_cleanup_free_ char *part = xcalloc(cut + 1, 1);
		json_t *j = NULL;

		memcpy(part, data, cut);
		if (model_from_protobuf(part, cut, &j, NULL) == 0)
			json_decref(j);
	}
}

static void protobuf(void **state)
{
	struct err e = {0};
	json_t *j;

	(void)state;
	protobuf_one("configmap",
		     "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"},"
		     "\"data\":{\"a\":\"b\"}}");
	protobuf_one("secret", "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"s\"},"
			       "\"data\":{\"p\":\"cQ==\"}}");
	protobuf_one("namespace",
		     "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"foo\"},"
		     "\"spec\":{},\"status\":{}}");
	protobuf_one(
		"nodeport",
		"{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"svc\",\"labels\":{"
		"\"app\":"
		"\"svc\"}},\"spec\":{\"ports\":[{\"name\":\"80-http\",\"protocol\":\"TCP\",\"port\":80,"
		"\"targetPort\":\"http\"}],\"selector\":{\"app\":\"svc\"},\"type\":\"NodePort\"},\"status\":{"
		"\"loadBalancer\":{}}}");
	protobuf_one(
		"deployment",
		"{\"apiVersion\":\"apps/"
		"v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"web\",\"labels\":{"
		"\"app\":\"web\"}},\"spec\":{\"replicas\":3,\"selector\":{\"matchLabels\":{\"app\":\"web\"}},"
		"\"template\":{\"metadata\":{\"labels\":{\"app\":\"web\"}},\"spec\":{\"containers\":[{"
		"\"name\":"
		"\"nginx\",\"image\":\"nginx:1\",\"ports\":[{\"containerPort\":80}],\"resources\":{}}]}},"
		"\"strategy\":{}},\"status\":{}}");
	/* DeleteOptions of any group: gracePeriodSeconds 0 is not the same as none */
	assert_int_equal(model_from_protobuf("k8s\0\x0a\x18\x0a\x07"
					     "apps/v1\x12\x0d"
					     "DeleteOptions\x12\x02\x08\x00",
					     34, &j, &e),
			 0);
	assert_int_equal(js_int(j, "gracePeriodSeconds", -1), 0);
	json_decref(j);
	assert_int_equal(model_from_protobuf("k8s", 3, &j, &e), -EINVAL);
	assert_int_equal(model_from_protobuf("{\"a\":1}", 7, &j, &e), -EINVAL);
	assert_int_equal(model_from_protobuf("k8s\0\x0a\x07\x0a\x02v1\x12\x01Z", 13, &j, &e), -ENOTSUP);
}

TEST_MAIN(cmocka_unit_test(kinds), cmocka_unit_test(openapi_v3), cmocka_unit_test(openapi_pod),
	  cmocka_unit_test(openapi_v2), cmocka_unit_test(protobuf))
