/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP client: what callers may do inside their callbacks (new calls, cancel, free the client), and how calls end: silence, limits,
 * no server. */
#include "test.h"
#include "../kube/fake.h"
#include "net/http_client.h"

struct scene {
	uv_loop_t loop;
	struct fake *f;
	struct http_client *c;
	struct http_call *call;
	char *url;
	int seen, done, status, pieces;
	enum { NOTHING, CANCEL, FREE, AGAIN } then;
};

static void serve(void *ctx, const struct fake_req *r)
{
	struct scene *s = ctx;

	s->seen++;
	if (strstr(r->path, "/stream")) {
		fake_stream(r->conn);
		fake_write(r->conn, "one");
		fake_write(r->conn, "two");
	} else if (strstr(r->path, "/silent")) {
		return;
	} else {
		fake_reply(r->conn, 200, "hello");
	}
}

static void on_done(void *ctx, int status, const char *body, size_t len, const char *text);
static void on_data(void *ctx, const char *data, size_t len);

static struct http_call *call(struct scene *s, const char *path, struct http_call_options o)
{
	_cleanup_free_ char *url = xasprintf("%s%s", s->url, path);

	o.method = "GET";
	o.url = url;
	o.done = on_done;
	o.ctx = s;
	return http_call_new(s->c, &o);
}

static void act(struct scene *s)
{
	int then = s->then;

	s->then = NOTHING;
	if (then == CANCEL)
		http_call_cancel(s->call);
	else if (then == FREE)
		s->c = http_client_free(s->c);
	else if (then == AGAIN)
		call(s, "/again", (struct http_call_options){0});
}

static void on_data(void *ctx, const char *data, size_t len)
{
	struct scene *s = ctx;

	(void)data, (void)len;
	s->pieces++;
	act(s);
}

static void on_done(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct scene *s = ctx;

	(void)body, (void)len, (void)text;
	s->done++;
	s->status = status;
	act(s);
}

static void open_scene(struct scene *s)
{
	*s = (struct scene){0};
	uv_loop_init(&s->loop);
	s->f = fake_new(&s->loop, serve, s);
	s->url = xasprintf("http://127.0.0.1:%d", fake_port(s->f));
	s->c = http_client_new(&s->loop, NULL, NULL);
	assert_non_null(s->c);
}

static void close_scene(struct scene *s)
{
	http_client_free(s->c);
	fake_free(s->f);
	for (int i = 0; i < 100 && uv_loop_alive(&s->loop); i++)
		uv_run(&s->loop, UV_RUN_ONCE);
	assert_int_equal(uv_loop_close(&s->loop), 0);
	free(s->url);
}

static void ends(void **state)
{
	struct scene s;

	(void)state;
	open_scene(&s);
	call(&s, "/x", (struct http_call_options){0});
	assert_true(run_until(&s.loop, &s.done, 1, 3000));
	assert_int_equal(s.status, 200);
	call(&s, "/x", (struct http_call_options){.answer_max = 3});
	assert_true(run_until(&s.loop, &s.done, 2, 3000));
	assert_int_equal(s.status, -EMSGSIZE);
	call(&s, "/silent", (struct http_call_options){.timeout_ms = 100});
	assert_true(run_until(&s.loop, &s.done, 3, 3000));
	assert_int_equal(s.status, -ETIMEDOUT);
	call(&s, "/stream",
	     (struct http_call_options){.timeout_ms = -1, .silence_timeout_ms = 100, .data = on_data});
	assert_true(run_until(&s.loop, &s.done, 4, 3000));
	assert_int_equal(s.status, -ETIMEDOUT);
	assert_true(s.pieces > 0);
	fake_stop(s.f);
	call(&s, "/x", (struct http_call_options){0});
	assert_true(run_until(&s.loop, &s.done, 5, 3000));
	assert_int_equal(s.status, -ECONNREFUSED);
	close_scene(&s);
}

static void inside_data(void **state)
{
	struct scene s;
	int never = 0;

	(void)state;
	open_scene(&s);
	s.then = CANCEL;
	s.call = call(&s, "/stream", (struct http_call_options){.timeout_ms = -1, .data = on_data});
	assert_true(run_until(&s.loop, &s.pieces, 1, 3000));
	run_until(&s.loop, &never, 1, 100);
	assert_int_equal(s.done, 0);
	s.then = AGAIN;
	s.call = call(&s, "/stream", (struct http_call_options){.timeout_ms = -1, .data = on_data});
	assert_true(run_until(&s.loop, &s.done, 1, 3000));
	assert_int_equal(s.status, 200);
	s.pieces = 0;
	s.then = FREE;
	call(&s, "/stream", (struct http_call_options){.timeout_ms = -1, .data = on_data});
	assert_true(run_until(&s.loop, &s.pieces, 1, 3000));
	run_until(&s.loop, &never, 1, 50);
	assert_null(s.c);
	assert_int_equal(s.done, 1);
	close_scene(&s);
}

static void inside_done(void **state)
{
	struct scene s;
	int never = 0;

	(void)state;
	open_scene(&s);
	s.then = AGAIN;
	call(&s, "/x", (struct http_call_options){0});
	assert_true(run_until(&s.loop, &s.done, 2, 3000));
	call(&s, "/silent", (struct http_call_options){0}); /* still on its way when the client goes */
	s.then = FREE;
	call(&s, "/x", (struct http_call_options){0});
	assert_true(run_until(&s.loop, &s.done, 3, 3000));
	run_until(&s.loop, &never, 1, 50);
	assert_int_equal(s.done, 3);
	close_scene(&s);
}

TEST_MAIN(cmocka_unit_test(ends), cmocka_unit_test(inside_data), cmocka_unit_test(inside_done))
