/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest HTTP/2 client that can make one gRPC health call (RFC 9113, RFC 7541, grpc PROTOCOL-HTTP2): preface, SETTINGS,
 * one HEADERS with literal fields, one DATA. Of the answer only the DATA frame matters: 5 bytes of gRPC prefix, then HealthCheckResponse, field
 * 1 = status (1 = SERVING). A refusal comes as HEADERS with END_STREAM and no DATA. A probe needs no more, and this costs no thread and no
 * library state, unlike a gRPC channel. Loop thread; everything bounded by the time limit and 64 KiB of input. */
#include "node/grpc_probe.h"

#define INPUT_MAX   65536
#define FRAME_HEAD  9
#define SERVICE_MAX 100

enum {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_RST = 3,
	FRAME_SETTINGS = 4,
	FRAME_PING = 6,
	FRAME_GOAWAY = 7
};
#define FLAG_END_STREAM 1
#define FLAG_ACK	1
#define FLAG_PADDED	8

struct grpc_probe {
	uv_tcp_t tcp;
	uv_timer_t limit;
	uv_connect_t connect;
	struct buf in;
	char service[SERVICE_MAX + 1];
	char chunk[4096];
	int handles;
	bool over;
	void (*done)(void *ctx, bool ok, const char *text);
	void *ctx;
};

struct send {
	uv_write_t w;
	struct buf b;
};

static void put_frame(struct buf *b, int type, int flags, int stream, const void *data, size_t len)
{
	unsigned char h[FRAME_HEAD] = {(unsigned char)(len >> 16),
				       (unsigned char)(len >> 8),
				       (unsigned char)len,
				       (unsigned char)type,
				       (unsigned char)flags,
				       0,
				       0,
				       0,
				       (unsigned char)stream};

	(void)buf_add(b, h, sizeof(h));
	(void)buf_add(b, data, len);
}

/* Literal without indexing, new name; both shorter than 127 bytes. */
static void put_header(struct buf *b, const char *name, const char *value)
{
	unsigned char n = (unsigned char)strlen(name), v = (unsigned char)strlen(value), zero = 0;

	(void)buf_add(b, &zero, 1);
	(void)buf_add(b, &n, 1);
	(void)buf_adds(b, name);
	(void)buf_add(b, &v, 1);
	(void)buf_adds(b, value);
}

static void put_request(struct buf *b, const char *service)
{
	_cleanup_buf_ struct buf headers = {0};
	size_t n = strlen(service);
	unsigned char message[7 + SERVICE_MAX] = {
		0, 0, 0, 0, (unsigned char)(n ? n + 2 : 0), 0x0a, (unsigned char)n};

	memcpy(message + 7, service, n);
	put_header(&headers, ":method", "POST");
	put_header(&headers, ":scheme", "http");
	put_header(&headers, ":path", "/grpc.health.v1.Health/Check");
	put_header(&headers, ":authority", "localhost");
	put_header(&headers, "content-type", "application/grpc");
	put_header(&headers, "te", "trailers");
	(void)buf_adds(b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	put_frame(b, FRAME_SETTINGS, 0, 0, "", 0);
	put_frame(b, FRAME_HEADERS, 4 /* END_HEADERS */, 1, headers.data, headers.len);
	put_frame(b, FRAME_DATA, FLAG_END_STREAM, 1, message, n ? 7 + n : 5);
}

/* 1 when the message says SERVING, else -ENODATA. */
static int read_message(const unsigned char *p, size_t len, int flags)
{
	if (flags & FLAG_PADDED) {
		if (len < 1 || (size_t)p[0] + 1 > len)
			return -EPROTO;
		len -= (size_t)p[0] + 1;
		p++;
	}
	return len >= 7 && p[0] == 0 && p[5] == 0x08 && p[6] == 1 ? 1 : -ENODATA;
}

int grpc_probe_parse(const unsigned char *data, size_t len, size_t *used, struct buf *ret_answer)
{
	*used = 0;
	while (len - *used >= FRAME_HEAD) {
		const unsigned char *f = data + *used;
		size_t n = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];
		int type = f[3], flags = f[4];

		if (n > INPUT_MAX - FRAME_HEAD)
			return -EPROTO;
		if (len - *used < FRAME_HEAD + n)
			return 0;
		if (type == FRAME_DATA && n > 0)
			return read_message(f + FRAME_HEAD, n, flags);
		if (type == FRAME_RST || type == FRAME_GOAWAY ||
		    (type == FRAME_HEADERS && flags & FLAG_END_STREAM))
			return -EPROTO;
		if (type == FRAME_SETTINGS && !(flags & FLAG_ACK))
			put_frame(ret_answer, FRAME_SETTINGS, FLAG_ACK, 0, "", 0);
		if (type == FRAME_PING && !(flags & FLAG_ACK) && n == 8)
			put_frame(ret_answer, FRAME_PING, FLAG_ACK, 0, f + FRAME_HEAD, n);
		*used += FRAME_HEAD + n;
	}
	return 0;
}

static void on_closed(uv_handle_t *h)
{
	struct grpc_probe *g = h->data;

	if (--g->handles > 0)
		return;
	buf_done(&g->in);
	free(g);
}

static void finish(struct grpc_probe *g, bool ok, const char *text)
{
	if (g->over)
		return;
	g->over = true;
	if (g->done)
		g->done(g->ctx, ok, text);
	uv_close((uv_handle_t *)&g->tcp, on_closed);
	uv_close((uv_handle_t *)&g->limit, on_closed);
}

static void on_limit(uv_timer_t *t)
{
	finish(t->data, false, "the gRPC health check timed out or could not connect");
}

static void on_sent(uv_write_t *w, int status)
{
	struct send *s = container_of(w, struct send, w);

	(void)status; /* a lost connection shows when reading */
	buf_done(&s->b);
	free(s);
}

/* Takes over what is in b. */
static void send_bytes(struct grpc_probe *g, struct buf *b)
{
	struct send *s = xcalloc(1, sizeof(*s));
	uv_buf_t u;

	s->b = *b;
	*b = (struct buf){0};
	u = uv_buf_init(s->b.data, (unsigned)s->b.len);
	if (uv_write(&s->w, (uv_stream_t *)&g->tcp, &u, 1, on_sent) < 0)
		on_sent(&s->w, 0);
}

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *b)
{
	struct grpc_probe *g = h->data;

	(void)size;
	*b = uv_buf_init(g->chunk, sizeof(g->chunk));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct grpc_probe *g = s->data;
	_cleanup_buf_ struct buf answer = {0};
	size_t used;
	int r;

	if (n < 0 || buf_add(&g->in, b->base, (size_t)n) < 0) {
		finish(g, false, "the server ended the connection");
		return;
	}
	r = g->in.data ? grpc_probe_parse((unsigned char *)g->in.data, g->in.len, &used, &answer) : 0;
	if (r != 0) {
		finish(g, r == 1, r == -ENODATA ? "service is not SERVING" : "no gRPC health service there");
		return;
	}
	if (g->in.data)
		buf_skip(&g->in, used);
	if (answer.len)
		send_bytes(g, &answer);
}

static void on_connected(uv_connect_t *c, int status)
{
	struct grpc_probe *g = c->data;
	struct buf b = {0};

	if (status < 0 || g->over) {
		finish(g, false, status < 0 ? uv_strerror(status) : "");
		return;
	}
	put_request(&b, g->service);
	send_bytes(g, &b);
	uv_read_start((uv_stream_t *)&g->tcp, on_alloc, on_read);
}

struct grpc_probe *grpc_probe_new(uv_loop_t *loop, const char *ip, int port, const char *service,
				  int64_t timeout_ms, void (*done)(void *ctx, bool ok, const char *text),
				  void *ctx)
{
	struct grpc_probe *g = xcalloc(1, sizeof(*g));
	struct sockaddr_in to;

	g->done = done;
	g->ctx = ctx;
	g->handles = 2;
	g->in.limit = INPUT_MAX;
	snprintf(g->service, sizeof(g->service), "%s", service);
	uv_tcp_init(loop, &g->tcp);
	uv_timer_init(loop, &g->limit);
	g->tcp.data = g->limit.data = g->connect.data = g;
	uv_timer_start(&g->limit, on_limit, (uint64_t)timeout_ms, 0);
	if (uv_ip4_addr(ip, port, &to) < 0 ||
	    uv_tcp_connect(&g->connect, &g->tcp, (struct sockaddr *)&to, on_connected) < 0)
		uv_timer_start(&g->limit, on_limit, 0, 0);
	return g;
}

void grpc_probe_cancel(struct grpc_probe *g)
{
	g->done = NULL;
	finish(g, false, "");
}
