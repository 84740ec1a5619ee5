/* SPDX-License-Identifier: Apache-2.0 */
/* The node agent's pure parts. */
#include "test.h"

#include "node/agent.h"
#include "node/grpc_probe.h"
#include "node/logfile.h"
#include "node/oci.h"
#include "node/rules.h"

static json_t *parse(const char *text)
{
	json_t *j = json_loads(text, 0, NULL);

	assert_non_null(j);
	return j;
}

static void fence_rules(void **state)
{
	uint64_t wait = 99;

	(void)state;
	assert_int_equal(fence_decide(10000, 0, &wait), FENCE_KILL); /* never renewed */
	assert_int_equal(wait, 0);
	assert_int_equal(fence_decide(10000, 10000, &wait), FENCE_RUN);
	assert_int_equal(wait, FENCE_AFTER_MS);
	assert_int_equal(fence_decide(12999, 10000, &wait), FENCE_RUN);
	assert_int_equal(wait, 1);
	assert_int_equal(fence_decide(13000, 10000, &wait), FENCE_KILL);
	assert_int_equal(fence_decide(9999, 10000, NULL), FENCE_KILL); /* a clock that ran backwards */
	assert_int_equal(fence_decide(UINT64_MAX, 10000, NULL), FENCE_KILL);
}

static bool singleton(const char *text)
{
	_cleanup_json_ json_t *pod = parse(text);

	return fence_pod_is_singleton(pod);
}

static void fence_singletons(void **state)
{
	(void)state;
	assert_false(singleton("{}"));
	assert_false(singleton("{\"metadata\":{\"ownerReferences\":[{\"kind\":\"ReplicaSet\"}]}}"));
	assert_true(singleton("{\"metadata\":{\"ownerReferences\":[{\"kind\":\"StatefulSet\"}]}}"));
	assert_true(singleton("{\"metadata\":{\"annotations\":{\"kuayu.io/singleton\":\"true\"}}}"));
	assert_false(singleton("{\"metadata\":{\"annotations\":{\"kuayu.io/singleton\":\"false\"}}}"));
	assert_false(singleton(
		"{\"metadata\":{\"ownerReferences\":[{\"kind\":\"StatefulSet\"}]},\"spec\":{\"tolerations\":"
		"[{\"key\":\"node.kubernetes.io/"
		"unreachable\",\"operator\":\"Exists\",\"effect\":\"NoExecute\"}]}}"));
	assert_true(singleton(
		"{\"metadata\":{\"ownerReferences\":[{\"kind\":\"StatefulSet\"}]},\"spec\":{\"tolerations\":"
		"[{\"key\":\"node.kubernetes.io/"
		"unreachable\",\"operator\":\"Exists\",\"effect\":\"NoExecute\","
		"\"tolerationSeconds\":5}]}}"));
	assert_true(singleton(
		"{\"metadata\":{\"ownerReferences\":[{\"kind\":\"StatefulSet\"}]},\"spec\":{\"tolerations\":"
		"[{\"key\":\"node.kubernetes.io/"
		"unreachable\",\"operator\":\"Exists\",\"effect\":\"NoSchedule\"}]}}"));
}

static void restart_backoff(void **state)
{
	uint64_t b = 0, want[] = {0, 10000, 20000, 40000, 80000, 160000, 300000, 300000};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		assert_int_equal(container_backoff(&b, 100), want[i]);
	assert_int_equal(container_backoff(&b, 600000), 0); /* ran ten minutes: anew */
	assert_int_equal(container_backoff(&b, 0), 10000);
}

static void expansion(void **state)
{
	_cleanup_json_ json_t *vars = parse("{\"A\":\"1\",\"B\":\"two\"}");
	const char *const cases[][2] = {{"$(A)-$(B)", "1-two"}, {"$$(A)", "$(A)"}, {"$(C)", "$(C)"},
					{"$(A", "$(A"},		{"$A", "$A"},	   {"", ""}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *t = env_expand(cases[i][0], vars);

		assert_string_equal(t, cases[i][1]);
	}
}

static json_t *objects; /* name -> ConfigMap or Secret */

static json_t *find(void *ctx, const char *ns, const char *name)
{
	(void)ctx;
	assert_string_equal(ns, "default");
	return json_object_get(objects, name);
}

static void environment(void **state)
{
	_cleanup_json_ json_t *objs = parse(
		"{\"cm\":{\"data\":{\"K\":\"v\",\"L\":\"w\"}},\"sec\":{\"data\":{\"P\":\"aGVsbG8=\"}}}");
	_cleanup_json_ json_t *pod =
		parse("{\"metadata\":{\"name\":\"p\",\"namespace\":\"default\",\"labels\":{\"a/b\":\"x\"}}}");
	_cleanup_json_ json_t *c = parse(
		"{\"resources\":{\"limits\":{\"memory\":\"64Mi\"}},"
		"\"envFrom\":[{\"configMapRef\":{\"name\":\"cm\"},\"prefix\":\"X_\"},{\"secretRef\":{"
		"\"name\":\"no\",\"optional\":true}}],"
		"\"env\":[{\"name\":\"A\",\"value\":\"$(X_K)!\"},"
		"{\"name\":\"S\",\"valueFrom\":{\"secretKeyRef\":{\"name\":\"sec\",\"key\":\"P\"}}},"
		"{\"name\":\"F\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.labels['a/b']\"}}},"
		"{\"name\":\"I\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"status.podIP\"}}},"
		"{\"name\":\"M\",\"valueFrom\":{\"resourceFieldRef\":{\"resource\":\"limits.memory\","
		"\"divisor\":\"1Mi\"}}}]}");
	_cleanup_json_ json_t *bad = parse("{\"env\":[{\"name\":\"S\",\"valueFrom\":{\"secretKeyRef\":{"
					   "\"name\":\"sec\",\"key\":\"Q\"}}}]}");
	_cleanup_json_ json_t *vars = NULL;
	struct env_sources s = {.pod = pod, .pod_ip = "10.78.1.5", .config_map = find, .secret = find};
	json_t *none = NULL;
	struct err e = {0};

	(void)state;
	objects = objs;
	assert_int_equal(env_resolve(&s, c, &vars, &e), 0);
	assert_string_equal(js_str(vars, "X_K"), "v");
	assert_string_equal(js_str(vars, "X_L"), "w");
	assert_string_equal(js_str(vars, "A"), "v!");
	assert_string_equal(js_str(vars, "S"), "hello");
	assert_string_equal(js_str(vars, "F"), "x");
	assert_string_equal(js_str(vars, "I"), "10.78.1.5");
	assert_string_equal(js_str(vars, "M"), "64");
	assert_int_equal(env_resolve(&s, bad, &none, &e), -ENOENT);
	assert_non_null(strstr(e.text, "couldn't find key Q"));
}

static void base64(void **state)
{
	size_t n;
	_cleanup_free_ char *a = base64_decode("AAECAw==", &n);

	(void)state;
	assert_int_equal(n, 4);
	assert_memory_equal(a, "\0\1\2\3", 4);
	assert_null(base64_decode("a*b=", &n));
}

static struct oci_input oci_case(const json_t *pod, const json_t *c, const json_t *img, const json_t *env)
{
	return (struct oci_input){.pod = pod,
				  .container = c,
				  .image = img,
				  .env = env,
				  .rootfs = "/r",
				  .passwd = "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\n",
				  .cgroup = "/k/p/c",
				  .hostname = "h",
				  .ns_net = "/n"};
}

static void oci_command(void **state)
{
	_cleanup_json_ json_t *pod = parse("{}"), *env = parse("{\"A\":\"1\"}");
	_cleanup_json_ json_t *img = parse("{\"Entrypoint\":[\"/e\"],\"Cmd\":[\"c\"],\"Env\":[\"PATH=/"
					   "x\"],\"User\":\"web\",\"WorkingDir\":\"/w\"}");
	const char *const cases[][2] = {{"{}", "[\"/e\",\"c\"]"},
					{"{\"command\":[\"/b\"]}", "[\"/b\"]"},
					{"{\"args\":[\"$(A)\"]}", "[\"/e\",\"1\"]"},
					{"{\"command\":[\"/b\"],\"args\":[\"y\"]}", "[\"/b\",\"y\"]"}};
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_json_ json_t *c = parse(cases[i][0]), *cfg = NULL, *want = parse(cases[i][1]);
		struct oci_input in = oci_case(pod, c, img, env);

		assert_int_equal(oci_config_new(&in, &cfg, &e), 0);
		assert_true(json_equal(js_get(cfg, "process.args"), want));
		assert_int_equal(js_int(cfg, "process.user.uid", -1), 33);
		assert_int_equal(js_int(cfg, "process.user.gid", -1), 44);
		assert_string_equal(js_str(cfg, "process.cwd"), "/w");
	}
}

static void oci_limits(void **state)
{
	_cleanup_json_ json_t *pod =
		parse("{\"spec\":{\"securityContext\":{\"runAsUser\":7,\"runAsNonRoot\":true}}}");
	_cleanup_json_ json_t *env = parse("{}"),
			      *root = parse("{\"securityContext\":{\"runAsUser\":0},\"command\":[\"x\"]}");
	_cleanup_json_ json_t *c =
		parse("{\"command\":[\"x\"],\"resources\":{\"requests\":{\"cpu\":\"250m\"},"
		      "\"limits\":{\"cpu\":\"1500m\",\"memory\":\"64Mi\"}},"
		      "\"securityContext\":{\"capabilities\":{\"add\":[\"NET_ADMIN\"],\"drop\":[\"ALL\"]}}}");
	_cleanup_json_ json_t *cfg = NULL, *none = NULL;
	struct oci_input in = oci_case(pod, c, NULL, env);
	struct err e = {0};

	(void)state;
	assert_int_equal(oci_config_new(&in, &cfg, &e), 0);
	assert_int_equal(js_int(cfg, "linux.resources.cpu.shares", 0), 256);
	assert_int_equal(js_int(cfg, "linux.resources.cpu.quota", 0), 150000);
	assert_int_equal(js_int(cfg, "linux.resources.memory.limit", 0), 64 << 20);
	assert_int_equal(js_int(cfg, "process.user.uid", -1), 7);
	assert_int_equal(json_array_size(js_get(cfg, "process.capabilities.effective")), 1);
	in.container = root;
	assert_int_equal(oci_config_new(&in, &none, &e), -EINVAL);
	assert_non_null(strstr(e.text, "runAsNonRoot"));
	in.container = env;
	assert_int_equal(oci_config_new(&in, &none, &e), -EINVAL); /* nothing to run */
}

static void image_references(void **state)
{
	const char *const good[][3] = {{"busybox", "busybox", "latest"},
				       {"busybox:1", "busybox", "1"},
				       {"10.0.0.1:5000/a/b", "10.0.0.1:5000/a/b", "latest"},
				       {"10.0.0.1:5000/a/b:2", "10.0.0.1:5000/a/b", "2"},
				       {"a@sha256:00", "a", "sha256:00"}};
	const char *const bad[] = {"", "/etc/x", "../x", "a/../b", "a b", "a:", "a;b"};
	char *name, *tag;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(image_ref_split(good[i][0], &name, &tag), 0);
		assert_string_equal(name, good[i][1]);
		assert_string_equal(tag, good[i][2]);
		free(name);
		free(tag);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(image_ref_split(bad[i], &name, &tag), -EINVAL);
}

static void log_format(void **state)
{
	struct log_options o = {.tail_lines = -1, .limit_bytes = -1};
	_cleanup_buf_ struct buf b = {0};
	const char *rec = "2026-11-22T12:00:00.123456Z stdout F hello",
		   *part = "2026-11-22T12:00:00Z stderr P par";

	(void)state;
	assert_true(log_record_format(rec, strlen(rec), &o, &b));
	assert_true(log_record_format(part, strlen(part), &o, &b));
	assert_string_equal(b.data, "hello\npar");
	assert_false(log_record_format("x", 1, &o, &b));
	assert_false(log_record_format("2026-11-22T12:00:00Z stdout X y", 31, &o, &b));
	o.since_us = INT64_MAX;
	assert_true(log_record_format(rec, strlen(rec), &o, &b));
	assert_string_equal(b.data, "hello\npar"); /* too old */
}

static void log_files(void **state)
{
	char dir[] = "/tmp/kuayu-test-log-XXXXXX";
	struct log_file f = {0};
	struct log_stream *s = xcalloc(1, sizeof(*s));
	struct log_options o = {.tail_lines = 2, .limit_bytes = -1};
	_cleanup_buf_ struct buf all = {0}, more = {0}, end = {0};
	_cleanup_free_ char *path = NULL, *big = xcalloc(1, LOG_LINE_MAX + 10);
	struct log_tail tail;

	(void)state;
	assert_non_null(mkdtemp(dir));
	path = xasprintf("%s/0.log", dir);
	s->name = "stdout";
	assert_int_equal(log_file_open(&f, path), 0);
	log_file_put(&f, s, "a\nb\nc\nunfin", 11);
	log_file_flush(&f);
	assert_int_equal(log_read(path, &o, &all, &tail), 0);
	assert_string_equal(all.data, "b\nc\n");
	log_file_put(&f, s, "ished\n", 6);
	memset(big, 'x', LOG_LINE_MAX + 9);
	big[LOG_LINE_MAX + 8] = '\n';
	log_file_put(&f, s, big, LOG_LINE_MAX + 9);
	log_file_flush(&f);
	o.tail_lines = -1;
	log_read_more(path, &o, &more, &tail);
	assert_int_equal(more.len, strlen("unfinished\n") + LOG_LINE_MAX + 9);
	/* Rotation: a follower loses nothing. */
	buf_skip(&more, more.len);
	f.size = LOG_FILE_MAX;
	log_file_put(&f, s, "last\n", 5);
	log_file_flush(&f);
	log_file_put(&f, s, "first\n", 6);
	log_file_flush(&f);
	log_read_more(path, &o, &more, &tail);
	assert_string_equal(more.data, "last\nfirst\n");
	/* The end of a file that is longer than what is looked at: whole lines only. */
	for (int i = 0; i < 8; i++)
		log_file_put(&f, s, big, LOG_LINE_MAX + 9);
	log_file_put(&f, s, "x\ny\n", 4);
	log_file_flush(&f);
	assert_int_equal(log_read_end(path, 2, &end), 0);
	assert_string_equal(end.data, "x\ny\n");
	buf_skip(&end, end.len);
	assert_int_equal(log_read_end(path, 1000, &end), 0);
	assert_true(end.len > LOG_LINE_MAX && end.len <= LOG_END_MAX);
	assert_true(end.data[0] == 'x' && log_read_end("/nowhere/0.log", 1, &end) < 0);
	close(f.fd);
	log_tail_done(&tail);
	buf_done(&f.out);
	free(s);
	assert_int_equal(dir_remove(dir, NULL), 0);
}

static void grpc_answers(void **state)
{
	const unsigned char serving[] = {0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 7, 0,
					 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 8, 1};
	unsigned char not [sizeof(serving)];
	const unsigned char refused[] = {0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88};
	_cleanup_buf_ struct buf answer = {0};
	size_t used;

	(void)state;
	assert_int_equal(grpc_probe_parse(serving, sizeof(serving), &used, &answer), 1);
	assert_int_equal(answer.len, 9); /* SETTINGS acknowledged */
	memcpy(not, serving, sizeof(not ));
	not [sizeof(not ) - 1] = 2;
	assert_int_equal(grpc_probe_parse(not, sizeof(not ), &used, &answer), -ENODATA);
	assert_int_equal(grpc_probe_parse(refused, sizeof(refused), &used, &answer), -EPROTO);
	assert_int_equal(grpc_probe_parse(serving, 12, &used, &answer), 0);
	assert_int_equal(used, 9);
	assert_int_equal(grpc_probe_parse((const unsigned char *)"HTTP/1.1 400 Bad", 16, &used, &answer),
			 -EPROTO);
}

static void close_endpoints(void **state)
{
	_cleanup_json_ json_t *slices =
		parse("[{\"metadata\":{\"namespace\":\"d\",\"labels\":{\"kubernetes.io/"
		      "service-name\":\"s\"}},\"addressType\":\"IPv4\","
		      "\"ports\":[{\"name\":\"\",\"port\":80,\"protocol\":\"TCP\"}],\"endpoints\":["
		      "{\"addresses\":[\"10.0.0.1\"],\"nodeName\":\"a1\",\"zone\":\"a\",\"conditions\":{"
		      "\"ready\":true}},"
		      "{\"addresses\":[\"10.0.0.2\"],\"nodeName\":\"a2\",\"zone\":\"a\",\"conditions\":{"
		      "\"ready\":true}},"
		      "{\"addresses\":[\"10.0.0.3\"],\"nodeName\":\"b1\",\"zone\":\"b\",\"conditions\":{"
		      "\"ready\":true}},"
		      "{\"addresses\":[\"10.0.0.4\"],\"nodeName\":\"b1\",\"zone\":\"b\",\"conditions\":{"
		      "\"ready\":false}},"
		      "{\"addresses\":[\"10.0.0.9; "
		      "drop\"],\"nodeName\":\"b1\",\"conditions\":{\"ready\":true}}]}]");
	_cleanup_json_ json_t *svc = parse(
		"{\"metadata\":{\"name\":\"s\",\"namespace\":\"d\"},\"spec\":{\"clusterIP\":\"10.96.0.9\","
		"\"trafficDistribution\":\"PreferClose\",\"ports\":[{\"port\":80}]}}");
	_cleanup_json_ json_t *none = parse(
		"{\"metadata\":{\"name\":\"n\",\"namespace\":\"d\"},\"spec\":{\"clusterIP\":\"10.96.0.8\","
		"\"ports\":[{\"port\":81,\"protocol\":\"UDP\"}]}}");
	_cleanup_json_ json_t *services = json_pack("[O,O]", svc, none);
	struct rules_input in = {.services = services,
				 .slices = slices,
				 .pod_cidr = "10.78.1.0/24",
				 .service_cidr = "10.96.0.0/16"};
	const struct {
		const char *node, *zone;
		size_t n;
	} cases[] = {{"a1", "a", 1}, {"a3", "a", 2}, {"b1", "b", 1}, {"c1", "c", 3}};
	_cleanup_buf_ struct buf b = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_json_ json_t *eps = NULL;

		in.node = cases[i].node;
		in.zone = cases[i].zone;
		eps = rules_endpoints_new(&in, svc, json_array_get(js_get(svc, "spec.ports"), 0));
		assert_int_equal(json_array_size(eps), cases[i].n);
	}
	assert_int_equal(rules_text(&in, &b), 0);
	assert_non_null(strstr(b.data, "10.96.0.9 . tcp . 80 : goto s0"));
	assert_non_null(strstr(
		b.data,
		"numgen random mod 3 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 80, 2 : 10.0.0.3 . 80 }"));
	assert_non_null(strstr(b.data, "elements = { 10.96.0.8 . udp . 81 }"));
	assert_non_null(strstr(b.data, "ip daddr 10.96.0.0/16 jump refused_now"));
	assert_null(strstr(b.data, "drop"));
}

static void networks(void **state)
{
	uint32_t net;
	int bits;

	(void)state;
	assert_int_equal(cidr_parse("10.78.1.7/24", &net, &bits), 0);
	assert_int_equal(net, 0x0a4e0100);
	assert_int_equal(bits, 24);
	assert_int_equal(cidr_parse("10.78.1.0", &net, &bits), -EINVAL);
	assert_int_equal(cidr_parse("10.78.1.0/33", &net, &bits), -EINVAL);
	assert_int_equal(cidr_parse("fd00::/64", &net, &bits), -EINVAL);
}

static void qos(void **state)
{
	const char *const cases[][2] = {
		{"{\"spec\":{\"containers\":[{}]}}", "BestEffort"},
		{"{\"spec\":{\"containers\":[{\"resources\":{\"requests\":{\"cpu\":\"1\"}}}]}}", "Burstable"},
		{"{\"spec\":{\"containers\":[{\"resources\":{\"limits\":{\"cpu\":\"1\",\"memory\":\"1Gi\"}}}]"
		 "}}",
		 "Guaranteed"},
		{"{\"spec\":{\"containers\":[{\"resources\":{\"limits\":{\"cpu\":\"1\",\"memory\":\"1Gi\"}}},"
		 "{}]}}",
		 "Burstable"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_json_ json_t *pod = parse(cases[i][0]);

		assert_string_equal(pod_status_qos(pod), cases[i][1]);
	}
}

TEST_MAIN(cmocka_unit_test(fence_rules), cmocka_unit_test(fence_singletons),
	  cmocka_unit_test(restart_backoff), cmocka_unit_test(expansion), cmocka_unit_test(environment),
	  cmocka_unit_test(base64), cmocka_unit_test(oci_command), cmocka_unit_test(oci_limits),
	  cmocka_unit_test(image_references), cmocka_unit_test(log_format), cmocka_unit_test(log_files),
	  cmocka_unit_test(grpc_answers), cmocka_unit_test(close_endpoints), cmocka_unit_test(networks),
	  cmocka_unit_test(qos))
