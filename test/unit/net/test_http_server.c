/* SPDX-License-Identifier: Apache-2.0 */
/* The server on a loop of its own thread, clients with plain sockets: replies from other threads, keep-alive, chunked
 * requests, streams, clients that go away, limits. */
#include "../test.h"
#include "net/http_server.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

static struct {
	uv_loop_t loop;
	struct http_server *server;
	struct mailbox *stop;
	pthread_t thread;
	_Atomic int closed;
} t;

static void *answer_later(void *arg)
{
	struct http_req *r = arg;

	usleep(20000);
	http_reply_text(r, 200, "later");
	return NULL;
}

static void *stream_some(void *arg)
{
	struct http_req *r = arg;

	http_stream_write(r, "one\n", 4);
	http_stream_write(r, "two\n", 4);
	http_stream_end(r);
	return NULL;
}

static void on_stream_closed(void *ctx)
{
	(void)ctx;
	t.closed++;
}

static void in_thread(void *(*fn)(void *), void *arg)
{
	pthread_t p;

	ensure(pthread_create(&p, NULL, fn, arg) == 0);
	pthread_detach(p);
}

static void handle(void *ctx, struct http_req *r)
{
	const char *path = http_req_path(r);

	(void)ctx;
	if (streq(path, "/later")) {
		in_thread(answer_later, r);
	} else if (streq(path, "/stream")) {
		http_stream_begin(r, 200, "text/plain", on_stream_closed, NULL);
		in_thread(stream_some, r);
	} else if (streq(path, "/endless")) {
		http_stream_begin(r, 200, "text/plain", on_stream_closed, NULL);
		http_stream_write(r, "x", 1);
	} else {
		size_t n;
		const char *body = http_req_body(r, &n);

		http_reply(r, 200, "text/plain", body, n, NULL);
	}
}

static void on_stop(void *arg)
{
	(void)arg;
	http_server_free(t.server);
	mailbox_close(t.stop);
}

static void *run_loop(void *arg)
{
	(void)arg;
	uv_run(&t.loop, UV_RUN_DEFAULT);
	return NULL;
}

static int setup(void)
{
	struct http_server_options o = {.address = "127.0.0.1", .body_max = 1000, .handle = handle};
	struct err e = {0};

	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&t.loop);
	t.stop = mailbox_new(&t.loop);
	t.server = http_server_new(&t.loop, &o, &e);
	return t.server ? 0 : -1;
}

static void *serve(void *arg)
{
	setup();
	*(_Atomic int *)arg = t.server ? 1 : -1;
	return run_loop(NULL);
}

static int start(void **state)
{
	static _Atomic int up;

	ensure(pthread_create(&t.thread, NULL, serve, &up) == 0);
	while (!up)
		usleep(1000);
	return up == 1 ? 0 : -1;
}

static int finish(void **state)
{
	mailbox_post(t.stop, on_stop, NULL);
	pthread_join(t.thread, NULL);
	return uv_loop_close(&t.loop);
}

static int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)http_server_port(t.server))};
	struct timeval limit = {.tv_sec = 5};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* Reads until `end` is the end of what came (or end of file). */
static char *talk(int fd, const char *request, const char *end)
{
	struct buf b = {0};
	char area[4096];
	ssize_t n;

	assert_int_equal(write(fd, request, strlen(request)), (ssize_t)strlen(request));
	while ((!b.data || !str_ends(b.data, end)) && (n = read(fd, area, sizeof(area))) > 0)
		buf_add(&b, area, (size_t)n);
	return buf_take(&b);
}

static void keep_alive(void **state)
{
	_cleanup_close_ int fd = dial();
	_cleanup_free_ char *a = talk(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n", "later");
	_cleanup_free_ char *b = talk(
		fd,
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: x\r\n"
		"Transfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n",
		"def");

	assert_non_null(strstr(a, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(a, "Content-Length: 5\r\n"));
	assert_non_null(strstr(b, "\r\n\r\nabcHTTP/1.1 200"));
}

static void streams(void **state)
{
	_cleanup_close_ int fd = dial(), gone = -1;
	_cleanup_free_ char *a = talk(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", "0\r\n\r\n");

	assert_non_null(strstr(a, "\r\n\r\n4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"));
	for (int i = 0; t.closed < 1 && i < 2000; i++)
		usleep(1000);
	assert_int_equal(t.closed, 1);
	gone = dial();
	free(talk(gone, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n", "x\r\n"));
	close(gone);
	gone = -1;
	for (int i = 0; t.closed < 2 && i < 2000; i++)
		usleep(1000);
	assert_int_equal(t.closed, 2);
}

static void limits(void **state)
{
	_cleanup_close_ int fd = dial(), fd2 = dial();
	_cleanup_free_ char *a =
		talk(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", "never");
	_cleanup_free_ char *b = talk(fd2, "nonsense\r\n\r\n", "never");

	assert_true(str_starts(a, "HTTP/1.1 413 "));
	assert_true(str_starts(b, "HTTP/1.1 400 "));
}

/* Answers that nobody waits for any more. */
static void abandoned(void **state)
{
	for (int i = 0; i < 20; i++) {
		int fd = dial();

		assert_true(write(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n", 33) == 33);
		close(fd);
	}
	usleep(100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(keep_alive), cmocka_unit_test(streams),
					   cmocka_unit_test(limits), cmocka_unit_test(abandoned)};

	return cmocka_run_group_tests_name("http_server", tests, start, finish);
}
