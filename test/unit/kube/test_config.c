/* SPDX-License-Identifier: Apache-2.0 */
/* kube: kubeconfig and YAML parsing. */
#include "test.h"
#include "kube/internal.h"

static const char *good = "apiVersion: v1\nkind: Config\ncurrent-context: lab\n"
			  "clusters:\n- name: c1\n  cluster:\n    server: https://10.77.1.1:6443\n"
			  "    certificate-authority: pki/ca.crt\n"
			  "contexts:\n- name: other\n  context: {cluster: none}\n"
			  "- name: lab\n  context:\n    cluster: c1\n    user: admin\n"
			  "users:\n- name: admin\n  user:\n    client-certificate-data: SGFsbG8=\n"
			  "    client-key: /abs/key.pem\n    token: \"123\"\n";

static void kubeconfig(void **state)
{
	_cleanup_(config_done) struct kube_config c = {0};
	struct err e = {0};

	(void)state;
	assert_int_equal(config_parse(good, strlen(good), "/etc/x", &c, &e), 0);
	assert_string_equal(c.servers[0], "https://10.77.1.1:6443");
	assert_string_equal(c.ca_file, "/etc/x/pki/ca.crt");
	assert_string_equal(c.cert_pem, "Hallo");
	assert_string_equal(c.key_file, "/abs/key.pem");
	assert_string_equal(c.token, "123");
	assert_false(c.insecure);
}

static void refused(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"current-context: x\n",
		"a: [b\n",
		"a: &x 1\nb: *x\n",
		"current-context: l\ncontexts: [{name: l, context: {cluster: c}}]\nclusters: [{name: c, "
		"cluster: {}}]\n",
		"current-context: l\ncontexts: [{name: l, context: {cluster: c}}]\n"
		"clusters: [{name: c, cluster: {server: 'https://x', certificate-authority-data: '!!!!'}}]\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_(config_done) struct kube_config c = {0};
		struct err e = {0};

		assert_true(config_parse(bad[i], strlen(bad[i]), NULL, &c, &e) < 0);
		assert_true(*e.text);
	}
}

static void yaml(void **state)
{
	_cleanup_json_ json_t *j = NULL;
	static const char *text = "a: 1\nb: [true, null, 'true', \"7\", x]\nc:\n  d: |\n    two\n    lines\n";

	(void)state;
	assert_int_equal(yaml_parse_new(text, strlen(text), &j, NULL), 0);
	_cleanup_free_ char *out = js_text(j);

	assert_string_equal(
		out, "{\"a\":1,\"b\":[true,null,\"true\",\"7\",\"x\"],\"c\":{\"d\":\"two\\nlines\\n\"}}");
}

TEST_MAIN(cmocka_unit_test(kubeconfig), cmocka_unit_test(refused), cmocka_unit_test(yaml))
