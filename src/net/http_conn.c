/* SPDX-License-Identifier: Apache-2.0 */
/* One client connection: bytes in (through TLS where set), request after request, bytes out. Loop thread only.
 *
 *   CONN_HEAD --head complete--> CONN_BODY --body complete--> CONN_ANSWER --answered--> CONN_HEAD
 *
 * While a request is being answered the connection is still read, so that a client that goes away is noticed at once; at
 * most PIPELINE_BYTES_MAX are read ahead, then reading pauses. After an end-of-file from the client a plain request is
 * still answered, a stream ends. Time-outs are looked at once a second. TLS runs over memory BIOs. */
#include "net/http_internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>

struct write {
	uv_write_t w;
	struct http_conn *conn;
	uint64_t stream_id; /* the request whose queue it counts for; 0 = none */
	size_t counted, len;
	char data[];
};

static void parse(struct http_conn *c);

static void on_closed(uv_handle_t *h)
{
	struct http_conn *c = h->data;
	struct http_server *s = c->server;

	SSL_free(c->ssl);
	buf_done(&c->in);
	free(c->cert_cn);
	strv_free(c->cert_orgs);
	free(c);
	http_server_unref(s);
}

void http_conn_close(struct http_conn *c)
{
	struct http_server *s = c->server;

	if (c->closing)
		return;
	c->closing = true;
	if (c->prev)
		c->prev->next = c->next;
	else
		s->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	s->n_conns--;
	if (c->req) {
		struct http_req *r = c->req;

		c->req = NULL;
		r->conn = NULL;
		http_req_client_gone(r);
	}
	uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void on_shut(uv_shutdown_t *s, int status)
{
	struct http_conn *c = s->handle->data;

	free(s);
	if (!c->closing && (status < 0 || c->eof))
		http_conn_close(c);
}

/* Everything has been sent: no more from us, and what the client still sends is dropped until it closes too (or for
 * LINGER_MS). Closing at once would let the kernel reset the connection and throw our answer away. */
static void say_goodbye(struct http_conn *c)
{
	uv_shutdown_t *s = xcalloc(1, sizeof(*s));

	c->deadline_ms = clock_ms() + LINGER_MS;
	if (uv_shutdown(s, (uv_stream_t *)&c->tcp, on_shut) < 0) {
		free(s);
		http_conn_close(c);
	}
}

static void on_written(uv_write_t *w, int status)
{
	struct write *wr = container_of(w, struct write, w);
	struct http_conn *c = wr->conn;

	c->unsent -= wr->len;
	c->progress_ms = clock_ms();
	if (wr->stream_id && c->req && c->req->id == wr->stream_id)
		c->req->queued -= wr->counted;
	free(wr);
	if (c->closing)
		return;
	if (status < 0)
		http_conn_close(c);
	else if (c->close_after && !c->unsent)
		say_goodbye(c);
}

static void write_raw(struct http_conn *c, const void *data, size_t len, struct http_req *stream,
		      size_t counted)
{
	struct write *wr = xrealloc(NULL, sizeof(*wr) + len);
	uv_buf_t b;

	wr->conn = c;
	wr->stream_id = stream ? stream->id : 0;
	wr->counted = counted;
	wr->len = len;
	memcpy(wr->data, data, len);
	b = uv_buf_init(wr->data, (unsigned)len);
	if (!c->unsent)
		c->progress_ms = clock_ms();
	c->unsent += len;
	if (uv_write(&wr->w, (uv_stream_t *)&c->tcp, &b, 1, on_written) < 0) {
		c->unsent -= len;
		free(wr);
		http_conn_close(c);
	}
}

/* What TLS wants to send goes out. */
static void tls_flush(struct http_conn *c, struct http_req *stream, size_t counted)
{
	char *data;
	long n = BIO_get_mem_data(c->net_out, &data);

	if (n > 0) {
		write_raw(c, data, (size_t)n, stream, counted);
		(void)BIO_reset(c->net_out);
	}
}

void http_conn_send(struct http_conn *c, const void *data, size_t len, struct http_req *stream)
{
	if (c->closing || !len)
		return;
	if (!c->ssl) {
		write_raw(c, data, len, stream, len);
		return;
	}
	ERR_clear_error();
	for (size_t at = 0; at < len;) {
		int n = SSL_write(c->ssl, (const char *)data + at, (int)MIN(len - at, (size_t)1 << 20));

		if (n <= 0) {
			http_conn_close(c);
			return;
		}
		at += (size_t)n;
	}
	tls_flush(c, stream, len);
}

/* Closes when what is on its way has been sent. */
static void linger(struct http_conn *c)
{
	if (c->closing || c->close_after)
		return;
	c->close_after = true;
	if (c->ssl && c->handshaken) {
		ERR_clear_error();
		(void)SSL_shutdown(c->ssl);
		tls_flush(c, NULL, 0);
	}
	if (!c->closing && !c->unsent)
		say_goodbye(c);
}

static void refuse(struct http_conn *c, int status, const char *text)
{
	const char *json = status == 413 ? c->server->o.too_large : NULL;
	char line[800];

	snprintf(line, sizeof(line),
		 "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: "
		 "close\r\n\r\n%s\n",
		 status, text, json ? "application/json" : "text/plain", strlen(json ? json : text) + 1,
		 json ? json : text);
	http_conn_send(c, line, strlen(line), NULL);
	if (!c->closing)
		linger(c);
}

static void read_more(struct http_conn *c);

void http_conn_answered(struct http_conn *c, bool keep_alive)
{
	struct http_server *s = c->server;

	c->req = NULL;
	if (c->closing)
		return;
	if (!keep_alive || s->closing || c->eof) {
		linger(c);
		return;
	}
	c->state = CONN_HEAD;
	c->deadline_ms = clock_ms() + (uint64_t)s->o.idle_timeout_ms;
	read_more(c);
}

/* The request is complete. */
static void dispatch(struct http_conn *c)
{
	struct http_server *s = c->server;
	struct http_req *r = c->req;

	c->state = CONN_ANSWER;
	c->deadline_ms = 0;
	r->dispatched = true;
	s->o.handle(s->o.ctx, r);
}

static struct http_req *req_new(struct http_conn *c, const struct http_head *h)
{
	struct http_req *r = xcalloc(1, sizeof(*r));

	r->server = c->server;
	r->server->refs++;
	r->conn = c;
	r->id = ++c->server->next_id;
	r->head = *h;
	r->body.limit = c->server->o.body_max;
	r->cert_cn = c->cert_cn ? xstrdup(c->cert_cn) : NULL;
	for (char **o = c->cert_orgs; o && *o; o++)
		r->cert_orgs = strv_add(r->cert_orgs, *o);
	memcpy(r->peer, c->peer, sizeof(r->peer));
	return r;
}

/* Returns false when more bytes are needed or the connection is done with. */
static bool parse_head(struct http_conn *c)
{
	struct http_head h;
	ssize_t n = c->in.len ? http_head_parse(c->in.data, c->in.len, &h) : 0;

	if (n == 0) {
		if (c->in.len && c->deadline_ms > clock_ms() + HEAD_TIMEOUT_MS)
			c->deadline_ms = clock_ms() + HEAD_TIMEOUT_MS;
		if (c->eof)
			linger(c);
		return false;
	}
	if (n < 0) {
		refuse(c,
		       n == -EMSGSIZE  ? 431
		       : n == -ENOTSUP ? 501
				       : 400,
		       n == -EMSGSIZE  ? "Request Header Fields Too Large"
		       : n == -ENOTSUP ? "Not Implemented"
				       : "Bad Request");
		return false;
	}
	buf_skip(&c->in, (size_t)n);
	c->req = req_new(c, &h);
	if (h.content_length > (int64_t)c->server->o.body_max) {
		refuse(c, 413, "Request Entity Too Large");
		return false;
	}
	c->state = CONN_BODY;
	c->chunks = (struct http_chunks){0};
	c->deadline_ms = clock_ms() + BODY_TIMEOUT_MS;
	if (h.expect_continue && h.minor == 1 && (h.chunked || h.content_length > 0))
		http_conn_send(c, "HTTP/1.1 100 Continue\r\n\r\n", 25, NULL);
	return !c->closing;
}

static bool parse_body(struct http_conn *c)
{
	struct http_req *r = c->req;
	bool done;

	if (r->head.chunked) {
		ssize_t n = http_chunks_feed(&c->chunks, c->in.data ? c->in.data : "", c->in.len, &r->body);

		if (n < 0) {
			refuse(c, n == -EMSGSIZE ? 413 : 400,
			       n == -EMSGSIZE ? "Request Entity Too Large" : "Bad Request");
			return false;
		}
		buf_skip(&c->in, (size_t)n);
		done = c->chunks.state == CHUNK_DONE;
	} else {
		size_t want = r->head.content_length > 0 ? (size_t)r->head.content_length - r->body.len : 0;
		size_t n = MIN(want, c->in.len);

		if (n)
			buf_add(&r->body, c->in.data, n);
		buf_skip(&c->in, n);
		done = n == want;
	}
	if (!done) {
		if (c->eof)
			http_conn_close(c);
		return false;
	}
	dispatch(c);
	return !c->closing && c->state == CONN_HEAD;
}

static void parse(struct http_conn *c)
{
	while (!c->closing && !c->close_after) {
		if (c->state == CONN_HEAD ? !parse_head(c) : c->state == CONN_BODY ? !parse_body(c) : true)
			return;
	}
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b);

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *b)
{
	static char area[65536]; /* one loop thread a process; emptied by on_read before the next read */

	(void)h, (void)size;
	*b = uv_buf_init(area, sizeof(area));
}

static void read_more(struct http_conn *c)
{
	if (c->paused) {
		c->paused = false;
		uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
	}
	if (c->in.len || c->eof)
		parse(c);
}

static void take_plain(struct http_conn *c, const char *data, size_t len)
{
	if (c->close_after)
		return; /* what comes behind a refused request is dropped */
	if (buf_add(&c->in, data, len) < 0) {
		http_conn_close(c);
		return;
	}
	parse(c);
	if (!c->closing && c->state == CONN_ANSWER && c->in.len > PIPELINE_BYTES_MAX) {
		c->paused = true;
		uv_read_stop((uv_stream_t *)&c->tcp);
	}
}

static void at_eof(struct http_conn *c)
{
	c->eof = true;
	if (c->close_after)
		return;
	if (c->state != CONN_ANSWER || (c->req && c->req->stream))
		http_conn_close(c);
	else
		uv_read_stop((uv_stream_t *)&c->tcp);
}

static void tls_read(struct http_conn *c)
{
	char area[16384];

	for (;;) {
		int n;

		ERR_clear_error();
		n = SSL_read(c->ssl, area, sizeof(area));
		if (!c->handshaken && SSL_is_init_finished(c->ssl)) {
			c->handshaken = true;
			http_tls_peer_names(c->ssl, &c->cert_cn, &c->cert_orgs);
		}
		tls_flush(c, NULL, 0);
		if (c->closing)
			return;
		if (n > 0) {
			take_plain(c, area, (size_t)n);
			if (c->closing)
				return;
			continue;
		}
		n = SSL_get_error(c->ssl, n);
		if (n == SSL_ERROR_ZERO_RETURN)
			at_eof(c);
		else if (n != SSL_ERROR_WANT_READ && n != SSL_ERROR_WANT_WRITE)
			linger(c); /* an alert may be on its way out */
		return;
	}
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
	struct http_conn *c = h->data;

	if (c->closing || n == 0)
		return;
	if (c->close_after) { /* dropped; see say_goodbye */
		if (n < 0)
			http_conn_close(c);
	} else if (n == UV_EOF) {
		at_eof(c);
	} else if (n < 0) {
		http_conn_close(c);
	} else if (c->ssl) {
		if (BIO_write(c->net_in, b->base, (int)n) != n)
			http_conn_close(c);
		else
			tls_read(c);
	} else {
		take_plain(c, b->base, (size_t)n);
	}
}

static void name_peer(struct http_conn *c)
{
	struct sockaddr_storage a;
	char ip[50] = "?";
	int len = sizeof(a), port = 0;

	if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&a, &len) == 0) {
		if (a.ss_family == AF_UNIX) {
			strcpy(ip, "unix");
		} else if (a.ss_family == AF_INET6) {
			uv_ip6_name((struct sockaddr_in6 *)&a, ip, sizeof(ip));
			port = ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
		} else {
			uv_ip4_name((struct sockaddr_in *)&a, ip, sizeof(ip));
			port = ntohs(((struct sockaddr_in *)&a)->sin_port);
		}
	}
	snprintf(c->peer, sizeof(c->peer), "%s:%d", ip, port);
}

void http_conn_accept(struct http_server *s)
{
	struct http_conn *c = xcalloc(1, sizeof(*c));
	int fd, stall_ms = WRITE_STALL_MS;

	c->server = s;
	ensure(uv_tcp_init(s->loop, &c->tcp) == 0);
	c->tcp.data = c;
	s->refs++;
	c->next = s->conns;
	if (c->next)
		c->next->prev = c;
	s->conns = c;
	s->n_conns++;
	if (uv_accept((uv_stream_t *)&s->listener, (uv_stream_t *)&c->tcp) < 0 ||
	    s->n_conns > s->o.connections_max) {
		http_conn_close(c);
		return;
	}
	uv_tcp_nodelay(&c->tcp, 1);
	uv_tcp_keepalive(&c->tcp, 1, 15);
	if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stall_ms, sizeof(stall_ms));
	name_peer(c);
	c->deadline_ms = clock_ms() + HEAD_TIMEOUT_MS;
	if (s->tls) {
		c->ssl = SSL_new(s->tls);
		c->net_in = BIO_new(BIO_s_mem());
		c->net_out = BIO_new(BIO_s_mem());
		ensure(c->ssl && c->net_in && c->net_out);
		SSL_set_bio(c->ssl, c->net_in, c->net_out);
		SSL_set_accept_state(c->ssl);
	}
	uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

void http_conn_sweep(struct http_conn *c, uint64_t now)
{
	if ((c->deadline_ms && now > c->deadline_ms) ||
	    (c->unsent && now > c->progress_ms + WRITE_STALL_MS) || (c->req && c->req->cut))
		http_conn_close(c);
}
