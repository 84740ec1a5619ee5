/* SPDX-License-Identifier: Apache-2.0 */
/* The proxy's admin socket: a connection a line of commands; the answer is all it sends until it closes. */
#include "gateway/internal.h"

#define CLI_TIMEOUT_MS 2000

struct proxy_call {
	uv_pipe_t pipe;
	uv_connect_t connect;
	uv_write_t write;
	uv_timer_t timer;
	struct buf line, answer;
	void (*done)(void *ctx, const char *text);
	void *ctx;
	bool finished;
	int open;
	char chunk[16384];
};

static void on_closed(uv_handle_t *h)
{
	struct proxy_call *c = h->data;

	if (--c->open)
		return;
	buf_done(&c->line);
	buf_done(&c->answer);
	free(c);
}

static void finish(struct proxy_call *c, bool ok)
{
	if (c->finished)
		return;
	c->finished = true;
	c->done(c->ctx, ok ? (c->answer.data ? c->answer.data : "") : NULL);
	uv_close((uv_handle_t *)&c->pipe, on_closed);
	uv_close((uv_handle_t *)&c->timer, on_closed);
}

static void on_timeout(uv_timer_t *t)
{
	finish(t->data, false);
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *ret)
{
	struct proxy_call *c = h->data;

	*ret = uv_buf_init(c->chunk, sizeof(c->chunk));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct proxy_call *c = s->data;

	if (n > 0 && buf_add(&c->answer, b->base, (size_t)n) < 0)
		finish(c, false);
	else if (n < 0)
		finish(c, n == UV_EOF);
}

static void on_write(uv_write_t *w, int status)
{
	if (status < 0)
		finish(w->data, false);
}

static void on_connect(uv_connect_t *r, int status)
{
	struct proxy_call *c = r->data;
	uv_buf_t b = uv_buf_init(c->line.data, (unsigned)c->line.len);

	if (c->finished)
		return;
	if (status < 0) {
		finish(c, false);
		return;
	}
	uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
	uv_write(&c->write, (uv_stream_t *)&c->pipe, &b, 1, on_write);
}

struct proxy_call *proxy_call(uv_loop_t *loop, const char *socket, const char *line,
			      void (*done)(void *ctx, const char *text), void *ctx)
{
	struct proxy_call *c = xcalloc(1, sizeof(*c));

	c->done = done;
	c->ctx = ctx;
	c->open = 2;
	buf_addf(&c->line, "%s\n", line);
	ensure(uv_pipe_init(loop, &c->pipe, 0) == 0 && uv_timer_init(loop, &c->timer) == 0);
	c->pipe.data = c->timer.data = c->connect.data = c->write.data = c;
	uv_timer_start(&c->timer, on_timeout, CLI_TIMEOUT_MS, 0);
	uv_pipe_connect(&c->connect, &c->pipe, socket, on_connect);
	return c;
}
