/* SPDX-License-Identifier: Apache-2.0 */
/* The gRPC client against our own server: unary calls, errors, deadlines, streams, cancelling, many at once, TLS with client
 * certificates, the health service, and stopping while streams run. */
#include <pthread.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>

#include "net/grpc.h"
#include "test.h"

#define WAIT_MS 5000

static struct rpc_server *server;
static struct rpc_channel *channel;
static char target[64];

/* ---- the service under test ---- */

static int echo(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	if (len == 4 && memcmp(request, "fail", 4) == 0) {
		err_set(e, -EPERM, "told to fail");
		return RPC_FAILED_PRECONDITION;
	}
	if (len == 4 && memcmp(request, "slow", 4) == 0)
		usleep(300000);
	return buf_add(reply, request, len) < 0 ? RPC_INTERNAL : RPC_OK;
}

struct count {
	struct rpc_out *out;
	int n;
};

static void *count_thread(void *arg)
{
	struct count *c = arg;

	for (int i = 0; i < c->n; i++) {
		char text[16];

		snprintf(text, sizeof(text), "%d", i);
		if (rpc_out_write(c->out, text, strlen(text)) < 0)
			break;
	}
	rpc_out_finish(c->out, RPC_ABORTED, "counted");
	free(c);
	return NULL;
}

/* Counts up to the number asked for, from a thread of its own, then ends with ABORTED. */
static void count_up(void *ctx, struct rpc_out *out, const void *request, size_t len)
{
	struct count *c = xcalloc(1, sizeof(*c));
	_cleanup_free_ char *text = xstrndup(request, len);
	pthread_t t;

	*c = (struct count){.out = out, .n = atoi(text)};
	pthread_create(&t, NULL, count_thread, c);
	pthread_detach(t);
}

static int closed_streams;

static void on_closed(void *ctx)
{
	__atomic_add_fetch(&closed_streams, 1, __ATOMIC_RELAXED);
	rpc_out_finish(ctx, RPC_CANCELLED, NULL);
}

/* Says one word and stays open until the client goes. */
static void linger(void *ctx, struct rpc_out *out, const void *request, size_t len)
{
	rpc_out_write(out, "hello", 5);
	rpc_out_on_closed(out, on_closed, out);
}

static void begin(const struct rpc_server_options *more, const struct rpc_channel_options *client)
{
	static const struct rpc_method methods[] = {{.path = "/t.T/Echo", .unary = echo},
						    {.path = "/t.T/Count", .stream = count_up},
						    {.path = "/t.T/Linger", .stream = linger}};
	struct rpc_server_options so = more ? *more : (struct rpc_server_options){0};
	struct rpc_channel_options co = client ? *client : (struct rpc_channel_options){0};
	struct err e = {0};

	so.address = "127.0.0.1:0";
	so.methods = methods;
	so.n_methods = ARRAY_SIZE(methods);
	if (rpc_server_new(&so, &server, &e) < 0)
		fail_msg("%s", e.text);
	snprintf(target, sizeof(target), "127.0.0.1:%d", rpc_server_port(server));
	co.target = target;
	if (rpc_channel_new(&co, &channel, &e) < 0)
		fail_msg("%s", e.text);
}

static int setup(void **state)
{
	begin(NULL, NULL);
	return 0;
}

static int teardown(void **state)
{
	channel = rpc_channel_free(channel);
	server = rpc_server_free(server);
	return 0;
}

static int call(const char *method, const void *data, size_t len, int64_t timeout_ms, struct rpc_reply *r,
		struct err *e)
{
	return rpc_call(channel, method, NULL, 0, data, len, timeout_ms, r, e);
}

/* ---- tests ---- */

static void test_unary(void **state)
{
	struct rpc_reply r;
	struct err e = {0};

	assert_int_equal(call("/t.T/Echo", "hi", 2, WAIT_MS, &r, &e), 0);
	assert_int_equal(r.len, 2);
	assert_string_equal(r.data, "hi");
	rpc_reply_done(&r);
	assert_int_equal(call("/t.T/Echo", NULL, 0, WAIT_MS, &r, &e), 0);
	assert_int_equal(r.len, 0);
	rpc_reply_done(&r);
	assert_int_equal(call("/t.T/Echo", "fail", 4, WAIT_MS, &r, &e), -EPERM);
	assert_int_equal(r.code, RPC_FAILED_PRECONDITION);
	assert_non_null(strstr(e.text, "told to fail"));
	assert_int_equal(call("/t.T/None", "x", 1, WAIT_MS, &r, &e), -EOPNOTSUPP);
	assert_int_equal(call("/t.T/Echo", "slow", 4, 50, &r, &e), -ETIMEDOUT);
	assert_int_equal(r.code, RPC_DEADLINE_EXCEEDED);
}

static void test_big(void **state)
{
	size_t len = (size_t)3 << 20;
	_cleanup_free_ char *data = xcalloc(1, len + ((size_t)2 << 20));
	struct rpc_reply r;

	memset(data, 'b', len);
	assert_int_equal(call("/t.T/Echo", data, len, WAIT_MS, &r, NULL), 0);
	assert_int_equal(r.len, len);
	assert_memory_equal(r.data, data, len);
	rpc_reply_done(&r);
	assert_int_equal(call("/t.T/Echo", data, len + ((size_t)2 << 20), WAIT_MS, &r, NULL), -ENOBUFS);
}

static void test_stream(void **state)
{
	struct rpc_stream *s;
	struct rpc_reply r;
	struct err e = {0};
	int n = 0, code;

	assert_int_equal(rpc_stream_new(channel, "/t.T/Count", NULL, 0, &s, &e), 0);
	assert_int_equal(rpc_stream_send(s, "500", 3, WAIT_MS), 0);
	assert_int_equal(rpc_stream_send_end(s, WAIT_MS), 0);
	while ((code = rpc_stream_recv(s, WAIT_MS, &r, &e)) == 0) {
		assert_int_equal(atoi(r.data), n++);
		rpc_reply_done(&r);
	}
	assert_int_equal(n, 500);
	assert_int_equal(r.code, RPC_ABORTED);
	assert_non_null(strstr(e.text, "counted"));
	assert_int_equal(rpc_stream_recv(s, WAIT_MS, &r, &e), code); /* it stays ended */
	rpc_stream_free(s);
}

static struct rpc_stream *lingering(void)
{
	struct rpc_stream *s;
	struct rpc_reply r;

	assert_int_equal(rpc_stream_new(channel, "/t.T/Linger", NULL, 0, &s, NULL), 0);
	assert_int_equal(rpc_stream_send(s, "x", 1, WAIT_MS), 0);
	assert_int_equal(rpc_stream_recv(s, WAIT_MS, &r, NULL), 0);
	assert_string_equal(r.data, "hello");
	rpc_reply_done(&r);
	return s;
}

static void wait_closed(int n)
{
	for (int i = 0; i < 500 && __atomic_load_n(&closed_streams, __ATOMIC_RELAXED) < n; i++)
		usleep(10000);
	assert_int_equal(closed_streams, n);
}

static void test_stream_cancel(void **state)
{
	struct rpc_stream *s = lingering(), *other = lingering();
	struct rpc_reply r;

	closed_streams = 0;
	assert_int_equal(rpc_stream_recv(s, 50, &r, NULL), -ETIMEDOUT);
	assert_int_equal(r.code, RPC_OK); /* still alive */
	rpc_stream_cancel(s);
	assert_int_equal(rpc_stream_recv(s, WAIT_MS, &r, NULL), -ECANCELED);
	rpc_stream_free(s);
	rpc_stream_free(other);
	wait_closed(2);
}

static void test_stop_with_streams(void **state)
{
	struct rpc_stream *s[8];
	struct rpc_reply r;

	closed_streams = 0;
	for (size_t i = 0; i < ARRAY_SIZE(s); i++)
		s[i] = lingering();
	server = rpc_server_free(server);
	assert_int_equal(closed_streams, ARRAY_SIZE(s));
	for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
		assert_true(rpc_stream_recv(s[i], WAIT_MS, &r, NULL) < 0);
		rpc_stream_free(s[i]);
	}
	assert_int_equal(call("/t.T/Echo", "hi", 2, 300, &r, NULL) < 0, 1);
}

static void *many_calls(void *arg)
{
	for (int i = 0; i < 100; i++) {
		struct rpc_reply r;
		char text[32];
		int n;

		n = snprintf(text, sizeof(text), "%p-%d", arg, i);
		if (call("/t.T/Echo", text, (size_t)n, WAIT_MS, &r, NULL) < 0 || !streq(r.data, text))
			return (void *)1;
		rpc_reply_done(&r);
	}
	return NULL;
}

static void test_many(void **state)
{
	pthread_t t[8];
	char marks[8];
	void *bad;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		pthread_create(&t[i], NULL, many_calls, &marks[i]);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
}

static void test_health(void **state)
{
	struct rpc_stream *s;
	struct rpc_reply r;
	struct err e = {0};

	assert_int_equal(rpc_health_check(target, NULL, "", WAIT_MS, &e), 0);
	assert_int_equal(rpc_health_check(target, NULL, "mes", WAIT_MS, &e), -ENOENT);
	rpc_server_set_health(server, "mes", false);
	assert_int_equal(rpc_health_check(target, NULL, "mes", WAIT_MS, &e), -EHOSTDOWN);

	/* Watch: state now, then each change. Request: field 1 = "mes"; answer: field 1 = 1 serving, 2 not */
	assert_int_equal(rpc_stream_new(channel, "/grpc.health.v1.Health/Watch", NULL, 0, &s, NULL), 0);
	assert_int_equal(rpc_stream_send(s, "\x0a\x03mes", 5, WAIT_MS), 0);
	assert_int_equal(rpc_stream_recv(s, WAIT_MS, &r, NULL), 0);
	assert_memory_equal(r.data, "\x08\x02", 2);
	rpc_reply_done(&r);
	rpc_server_set_health(server, "mes", true);
	assert_int_equal(rpc_stream_recv(s, WAIT_MS, &r, NULL), 0);
	assert_memory_equal(r.data, "\x08\x01", 2);
	rpc_reply_done(&r);
	rpc_stream_free(s);
	assert_int_equal(rpc_health_check(target, NULL, "mes", WAIT_MS, &e), 0);
}

/* Nobody there: refused at once. Somebody who never speaks: by the deadline. */
static void test_unreachable(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct err e = {0};
	uint64_t start;
	char there[64];

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	snprintf(there, sizeof(there), "127.0.0.1:%d", ntohs(a.sin_port));
	assert_int_equal(rpc_health_check(there, NULL, "", 1000, &e), -EAGAIN);
	assert_int_equal(listen(fd, 5), 0);
	start = clock_ms();
	assert_true(rpc_health_check(there, NULL, "", 300, &e) < 0);
	assert_true(clock_ms() - start < 3000);
	close(fd);
}

static char *make_certificates(void)
{
	char dir[] = "/tmp/kuayu-grpc-XXXXXX";
	_cleanup_free_ char *cmd = NULL;

	assert_non_null(mkdtemp(dir));
	cmd = xasprintf(
		"cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
		"-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout key -out crt >log 2>&1",
		dir);
	assert_int_equal(system(cmd), 0);
	return xstrdup(dir);
}

static void test_tls(void **state)
{
	_cleanup_free_ char *dir = make_certificates(), *crt = xasprintf("%s/crt", dir),
			    *key = xasprintf("%s/key", dir);
	struct rpc_server_options so = {.cert_file = crt, .key_file = key, .client_ca_file = crt};
	struct rpc_channel_options co = {.tls = true, .ca_file = crt, .cert_file = crt, .key_file = key};
	struct rpc_channel_options bare = {.tls = true, .ca_file = crt};
	struct rpc_channel_options half = {.target = "x:1", .tls = true, .ca_file = crt, .cert_file = crt};
	struct rpc_channel *none;
	struct rpc_reply r;
	struct err e = {0};

	begin(&so, &co);
	assert_int_equal(call("/t.T/Echo", "hi", 2, WAIT_MS, &r, &e), 0);
	rpc_reply_done(&r);
	assert_int_equal(rpc_health_check(target, &co, "", WAIT_MS, &e), 0);
	assert_true(rpc_health_check(target, &bare, "", 500, &e) < 0); /* no client certificate */
	assert_true(rpc_health_check(target, NULL, "", 500, &e) < 0);  /* no TLS */
	assert_int_equal(rpc_channel_new(&half, &none, &e), -EINVAL);
	teardown(NULL);
	dir_remove(dir, NULL);
}

static void test_server_errors(void **state)
{
	struct rpc_server_options so = {.address = target};
	struct rpc_server *s;
	struct err e = {0};

	assert_int_equal(rpc_server_new(&so, &s, &e), -EADDRINUSE);
	so = (struct rpc_server_options){
		.address = "127.0.0.1:0", .cert_file = "/nonexistent", .key_file = "/none"};
	assert_int_equal(rpc_server_new(&so, &s, &e), -ENOENT);
}

#define with_server(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

TEST_MAIN(with_server(test_unary), with_server(test_big), with_server(test_stream),
	  with_server(test_stream_cancel), with_server(test_stop_with_streams), with_server(test_many),
	  with_server(test_health), cmocka_unit_test(test_unreachable), cmocka_unit_test(test_tls),
	  with_server(test_server_errors))
