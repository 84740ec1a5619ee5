/* SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

struct fake_conn {
	uv_tcp_t tcp;
	struct fake *f;
	struct fake_conn *next, *prev;
	struct buf in;
	bool closing;
};

struct fake {
	uv_tcp_t tcp;
	uv_loop_t *loop;
	struct fake_conn *conns;
	void (*handle)(void *ctx, const struct fake_req *r);
	void *ctx;
	int port;
	bool stopped;
};

static void on_conn_closed(uv_handle_t *h)
{
	struct fake_conn *c = h->data;

	buf_done(&c->in);
	free(c);
}

static void conn_close(struct fake_conn *c)
{
	if (c->closing)
		return;
	c->closing = true;
	if (c->prev)
		c->prev->next = c->next;
	else
		c->f->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	uv_close((uv_handle_t *)&c->tcp, on_conn_closed);
}

static void on_alloc(uv_handle_t *h, size_t want, uv_buf_t *b)
{
	(void)h;
	*b = uv_buf_init(xcalloc(1, want), (unsigned)want);
}

/* Takes one whole request off the input; false when there is none yet. */
static bool take_request(struct fake_conn *c)
{
	char *end = c->in.data ? strstr(c->in.data, "\r\n\r\n") : NULL, *length, *space;
	size_t body_len = 0, head_len;
	char method[16], path[2048];

	if (!end)
		return false;
	head_len = (size_t)(end - c->in.data) + 4;
	length = strcasestr(c->in.data, "\r\ncontent-length:");
	if (length && length < end)
		body_len = strtoul(length + 17, NULL, 10);
	if (c->in.len < head_len + body_len)
		return false;
	space = strchr(c->in.data, ' ');
	snprintf(method, sizeof(method), "%.*s", (int)(space - c->in.data), c->in.data);
	snprintf(path, sizeof(path), "%.*s", (int)strcspn(space + 1, " "), space + 1);
	_cleanup_free_ char *body = xstrndup(c->in.data + head_len, body_len);
	_cleanup_free_ char *head = xstrndup(c->in.data, head_len);

	buf_skip(&c->in, head_len + body_len);
	c->f->handle(c->f->ctx, &(struct fake_req){c, method, path, body, head});
	return !c->closing;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct fake_conn *c = s->data;

	if (n > 0)
		buf_add(&c->in, b->base, (size_t)n);
	free(b->base);
	if (n < 0)
		conn_close(c);
	else
		while (take_request(c))
			;
}

static void on_connection(uv_stream_t *s, int status)
{
	struct fake *f = s->data;
	struct fake_conn *c;

	ensure(status == 0);
	c = xcalloc(1, sizeof(*c));
	c->f = f;
	uv_tcp_init(f->loop, &c->tcp);
	c->tcp.data = c;
	ensure(uv_accept(s, (uv_stream_t *)&c->tcp) == 0);
	c->next = f->conns;
	if (f->conns)
		f->conns->prev = c;
	f->conns = c;
	uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

struct fake *fake_new(uv_loop_t *loop, void (*handle)(void *ctx, const struct fake_req *r), void *ctx)
{
	struct fake *f = xcalloc(1, sizeof(*f));
	struct sockaddr_in addr;
	int len = sizeof(addr);

	f->loop = loop;
	f->handle = handle;
	f->ctx = ctx;
	uv_tcp_init(loop, &f->tcp);
	f->tcp.data = f;
	uv_ip4_addr("127.0.0.1", 0, &addr);
	ensure(uv_tcp_bind(&f->tcp, (struct sockaddr *)&addr, 0) == 0);
	ensure(uv_listen((uv_stream_t *)&f->tcp, 64, on_connection) == 0);
	uv_tcp_getsockname(&f->tcp, (struct sockaddr *)&addr, &len);
	f->port = ntohs(addr.sin_port);
	return f;
}

int fake_port(const struct fake *f)
{
	return f->port;
}

void fake_stop(struct fake *f)
{
	if (f->stopped)
		return;
	f->stopped = true;
	while (f->conns)
		conn_close(f->conns);
	uv_close((uv_handle_t *)&f->tcp, NULL);
}

void fake_free(struct fake *f)
{
	fake_stop(f);
	uv_run(f->loop, UV_RUN_NOWAIT);
	uv_run(f->loop, UV_RUN_NOWAIT);
	free(f);
}

struct write_req {
	uv_write_t req;
	char *data;
};

static void on_written(uv_write_t *req, int status)
{
	struct write_req *w = req->data;

	(void)status;
	free(w->data);
	free(w);
}

static void send_text(struct fake_conn *c, char *text)
{
	struct write_req *w = xcalloc(1, sizeof(*w));
	uv_buf_t b = uv_buf_init(text, (unsigned)strlen(text));

	w->data = text;
	w->req.data = w;
	ensure(uv_write(&w->req, (uv_stream_t *)&c->tcp, &b, 1, on_written) == 0);
}

void fake_reply(struct fake_conn *c, int status, const char *body)
{
	send_text(
		c,
		xasprintf("HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			  status, strlen(body), body));
}

void fake_stream(struct fake_conn *c)
{
	send_text(c, xstrdup("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: "
			     "chunked\r\n\r\n"));
}

void fake_write(struct fake_conn *c, const char *line)
{
	send_text(c, xasprintf("%zx\r\n%s\n\r\n", strlen(line) + 1, line));
}

void fake_end(struct fake_conn *c)
{
	send_text(c, xstrdup("0\r\n\r\n"));
}

static void on_tick(uv_timer_t *t)
{
	(void)t;
}

bool run_until(uv_loop_t *loop, const int *flag, int want, uint64_t ms)
{
	uint64_t end = clock_ms() + ms;
	uv_timer_t t;

	uv_timer_init(loop, &t);
	uv_timer_start(&t, on_tick, 5, 5);
	while (*flag < want && clock_ms() < end)
		uv_run(loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&t, NULL);
	uv_run(loop, UV_RUN_NOWAIT);
	return *flag >= want;
}
