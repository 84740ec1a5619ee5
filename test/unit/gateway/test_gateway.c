/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway's pure parts: API objects -> exposures -> haproxy.cfg (which HAProxy itself must accept), and the proxy's answers. The
 * whole with a running proxy is in test/gateway. */
#include "test.h"

#include "gateway/internal.h"
#include "io/io.h"

static json_t *parse(const char *text)
{
	json_t *j;
	struct err e;

	if (js_parse_new(text, strlen(text), &j, &e) < 0)
		fail_msg("%s", e.text);
	return j;
}

static const char services[] =
	"[{\"metadata\": {\"name\": \"mes\", \"namespace\": \"default\", \"creationTimestamp\": "
	"\"2026-11-22T10:00:00Z\","
	"  \"annotations\": {\"kuayu.io/health-path\": \"/healthz\", \"kuayu.io/response-timeout\": \"2s\"}},"
	"  \"spec\": {\"type\": \"LoadBalancer\", \"ports\": ["
	"    {\"name\": \"http\", \"port\": 8080, \"appProtocol\": \"http\"},"
	"    {\"name\": \"grpc\", \"port\": 9090, \"appProtocol\": \"grpc\"},"
	"    {\"name\": \"dns\", \"port\": 53, \"protocol\": \"UDP\"}]}},"
	" {\"metadata\": {\"name\": \"late\", \"namespace\": \"default\", \"creationTimestamp\": "
	"\"2026-11-22T11:00:00Z\","
	"  \"annotations\": {\"kuayu.io/health-path\": \"/x\\n\\tserver evil 1.2.3.4:80\"}},"
	"  \"spec\": {\"type\": \"LoadBalancer\", \"sessionAffinity\": \"ClientIP\", \"ports\": [{\"port\": "
	"8080}, {\"port\": 8081}]}},"
	" {\"metadata\": {\"name\": \"inner\", \"namespace\": \"default\"}, \"spec\": {\"type\": "
	"\"ClusterIP\", \"ports\": [{\"port\": 99}]}},"
	" {\"metadata\": {\"name\": \"foreign\", \"namespace\": \"default\"}, \"spec\": {\"type\": "
	"\"LoadBalancer\","
	"  \"loadBalancerClass\": \"example.com/other\", \"ports\": [{\"port\": 98}]}}]";

static const char slices[] =
	"[{\"metadata\": {\"name\": \"mes-1\", \"namespace\": \"default\", \"labels\": "
	"{\"kubernetes.io/service-name\": \"mes\"}},"
	"  \"ports\": [{\"name\": \"http\", \"port\": 80}, {\"name\": \"grpc\", \"port\": 90}],"
	"  \"endpoints\": [{\"addresses\": [\"10.78.1.2\"], \"zone\": \"a\", \"conditions\": {\"ready\": "
	"true}},"
	"    {\"addresses\": [\"10.78.2.2\"], \"zone\": \"b\"},"
	"    {\"addresses\": [\"10.78.3.2\"], \"zone\": \"c\", \"conditions\": {\"ready\": false}},"
	"    {\"addresses\": [\"evil name\"], \"zone\": \"c\"}]},"
	" {\"metadata\": {\"name\": \"mes-2\", \"namespace\": \"other\", \"labels\": "
	"{\"kubernetes.io/service-name\": \"mes\"}},"
	"  \"ports\": [{\"name\": \"http\", \"port\": 80}], \"endpoints\": [{\"addresses\": [\"10.78.9.9\"], "
	"\"zone\": \"a\"}]}]";

static void build(struct exposures *x, json_t **denied)
{
	_cleanup_json_ json_t *s = parse(services), *e = parse(slices);
	struct exposure_input in = {.zone = "a"};

	exposures_build(s, e, &in, x, denied);
}

static void exposures(void **state)
{
	struct exposures x;
	_cleanup_json_ json_t *denied = NULL;
	const struct exposure *http, *grpc, *late;

	(void)state;
	build(&x, &denied);
	assert_int_equal(x.n, 3);
	http = exposures_find(&x, "default_mes_8080");
	grpc = exposures_find(&x, "default_mes_9090");
	late = exposures_find(&x, "default_late_8081");
	assert_true(http && grpc && late);
	assert_int_equal(http->protocol, PROTOCOL_HTTP);
	assert_int_equal(http->response_timeout_ms, 2000);
	assert_string_equal(http->health_path, "/healthz");
	assert_int_equal(http->plan.n, 3);
	assert_string_equal(http->plan.v[0].name, "a_10.78.1.2_80");
	assert_false(http->plan.v[0].backup);
	assert_true(http->plan.v[1].backup && !http->plan.v[1].drain && http->plan.v[2].drain);
	assert_int_equal(grpc->protocol, PROTOCOL_H2);
	assert_int_equal(grpc->plan.v[0].port, 90);
	assert_int_equal(late->protocol, PROTOCOL_TCP);
	assert_true(late->affinity);
	assert_null(late->health_path); /* would have left its line */
	assert_non_null(json_object_get(denied, "default/late"));
	assert_int_equal(json_object_size(denied), 1);
	exposures_done(&x);
}

static void configuration(void **state)
{
	struct exposures x;
	_cleanup_json_ json_t *denied = NULL;
	_cleanup_buf_ struct buf text = {0};
	_cleanup_free_ char *messages = NULL;
	char folder[] = "/tmp/kuayu-unit-gateway-XXXXXX", file[64], hash[17], again[17];
	struct haproxy_options o = {.address = "127.0.0.1", .data = folder, .threads = 1};
	const char *const argv[] = {"haproxy", "-c", "-q", "-f", file, NULL};

	(void)state;
	build(&x, &denied);
	assert_non_null(mkdtemp(folder));
	snprintf(file, sizeof(file), "%s/haproxy.cfg", folder);
	haproxy_hash(&x, &o, hash);
	haproxy_config(&x, &o, hash, &text);
	assert_int_equal(file_write_atomic(file, text.data, text.len, 0600, NULL), 0);
	assert_non_null(strstr(text.data, "setenv KUAYU_CONFIG"));
	assert_null(strstr(text.data, "evil"));
	if (proc_run_wait(&(struct proc_options){.argv = argv, .timeout_ms = 5000}, NULL, &messages) != 0)
		fail_msg("HAProxy refuses:\n%s\n%s", messages, text.data);
	/* servers come and go without a reload, ports do not */
	x.v[0].plan.n = 0;
	haproxy_hash(&x, &o, again);
	assert_string_equal(hash, again);
	x.v[0].port++;
	haproxy_hash(&x, &o, again);
	assert_string_not_equal(hash, again);
	exposures_done(&x);
	dir_remove(folder, NULL);
}

static const char answer[] =
	"KUAYU_CONFIG=0123456789abcdef\n\nName: HAProxy\nPid: 4711\nUptime: 0d\n\n1\n"
	"# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
	"srv_time srv_port\n"
	"3 be1 1 a_10.78.1.2_80 10.78.1.2 2 0 100 100 6 80\n"
	"3 be1 2 b_10.78.2.2_80 10.78.2.2 0 8 256 256 6 80\n"
	"3 be1 3 c_10.78.3.2_80 10.78.3.2 0 1 1 1 6 80\n\n"
	"# pxname,svname,scur,stot,bck,wretr,\n"
	"fe1,FRONTEND,1,2,,,\nbe1,a_10.78.1.2_80,7,100,0,3,\nbe1,b_10.78.2.2_80,2,5,1,0,\n\n";

static void proxy_answer(void **state)
{
	struct proxy_state p;
	_cleanup_buf_ struct buf commands = {0};
	struct err e;

	(void)state;
	assert_int_equal(proxy_state_parse(answer, &p, &e), 0);
	assert_string_equal(p.config, "0123456789abcdef");
	assert_int_equal(p.pid, 4711);
	assert_int_equal(p.n, 3);
	assert_true(strv_has(p.frontends, "fe1"));
	assert_int_equal(p.v[0].o.sessions, 7);
	assert_int_equal(p.v[0].retries, 3);
	assert_int_equal(p.v[0].o.health, ROUTE_UP);
	assert_int_equal(p.v[1].o.health, ROUTE_DOWN);
	assert_int_equal(p.v[1].o.admin, ROUTE_DRAIN);
	assert_true(p.v[1].o.backup);
	assert_int_equal(p.v[2].o.admin, ROUTE_MAINT);
	assert_true(str_starts(p.saved, "1\n# be_id") && str_ends(p.saved, " 80\n"));
	/* only what is connected to a dead server is ended */
	assert_true(sessions_waiting(&p));
	assert_int_equal(
		sessions_to_end(
			"0x1: proto=tcpv4 fe=fe1 be=be1 srv=a_10.78.1.2_80 scf=[8,0h,fd=1] scb=[8,1h,fd=2]\n"
			"0x2: proto=tcpv4 fe=fe1 be=be1 srv=b_10.78.2.2_80 scf=[8,0h,fd=1] scb=[5,1h,fd=2]\n"
			"0x3: proto=tcpv4 fe=fe1 be=be1 srv=b_10.78.2.2_80 scf=[8,0h,fd=1] scb=[8,1h,fd=2]\n"
			"0x4: proto=unix fe=GLOBAL be=<NONE> srv=<none> scf=[8,0h] scb=[8,1h]\n",
			&p, &commands),
		1);
	assert_string_equal(commands.data, "shutdown session 0x3;");
	proxy_state_done(&p);
	assert_int_equal(proxy_state_parse("Unknown command\n", &p, &e), -EBADMSG);
	assert_int_equal(proxy_state_parse("#", &p, &e),
			 -EBADMSG); /* a head line with nothing in it, at the very end */
}

TEST_MAIN(cmocka_unit_test(exposures), cmocka_unit_test(configuration), cmocka_unit_test(proxy_answer))
