/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP server: listener, requests and their answers. Bytes are in http_conn.c, parsing in http_parse.c.
 *
 * Threads: requests come in on the loop thread; answers may be given on any thread and travel by mailbox (on the loop thread
 * itself at once, unless letters of the same request are still on their way, so that the order stays).
 * Life of a request: made when its head has been read; ends when its reply has been handed to the connection, or, for a stream,
 * when `closed` has run. A client that goes away early leaves the request without a connection; its answer is dropped.
 * Why not libwebsockets: docs/decisions/2026-11-22-http-server.md. */
#include "net/http_internal.h"

#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

struct letter {
	struct http_req *req;
	enum { LETTER_REPLY, LETTER_BEGIN, LETTER_WRITE, LETTER_END, LETTER_FINISH } type;
	void (*closed)(void *ctx);
	void *ctx;
	size_t len;
	char data[];
};

/* ---- life ---- */

static void on_last_handle(uv_handle_t *h)
{
	http_server_unref(h->data);
}

void http_server_unref(struct http_server *s)
{
	ensure(s->refs > 0);
	if (--s->refs)
		return;
	mailbox_close(s->mailbox);
	SSL_CTX_free(s->tls);
	free(s);
}

static void on_connection(uv_stream_t *l, int status)
{
	struct http_server *s = l->data;

	if (status == 0 && !s->closing)
		http_conn_accept(s);
}

static void on_sweep(uv_timer_t *t)
{
	struct http_server *s = t->data;
	uint64_t now = clock_ms();

	for (struct http_conn *c = s->conns, *next; c; c = next) {
		next = c->next;
		http_conn_sweep(c, now);
	}
}

/* libuv's TCP handles take any stream socket. What is left of a former server is removed. */
static int listen_on_path(struct http_server *s, const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd, r = 0;

	if (*path != '/' || strlen(path) >= sizeof(a.sun_path))
		return err_set(e, -EINVAL, "'%s' cannot be the path of a socket", path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, -errno, "a socket");
	(void)unlink(path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, 0600) < 0)
		r = -errno;
	if (r == 0)
		r = uv_tcp_open(&s->listener, fd);
	if (r < 0) {
		close(fd);
		return err_errno(e, r, "listening on %s", path);
	}
	r = uv_listen((uv_stream_t *)&s->listener, 512, on_connection);
	return r < 0 ? err_errno(e, r, "listening on %s", path) : 0;
}

static int listen_on(struct http_server *s, struct err *e)
{
	struct sockaddr_storage a = {0};
	const char *address = s->o.address ? s->o.address : "0.0.0.0";
	int r, len = sizeof(a);

	if (str_starts(address, "unix:"))
		return listen_on_path(s, address + strlen("unix:"), e);
	if (strchr(address, ':'))
		r = uv_ip6_addr(address, s->o.port, (struct sockaddr_in6 *)&a);
	else
		r = uv_ip4_addr(address, s->o.port, (struct sockaddr_in *)&a);
	if (r < 0)
		return err_set(e, r, "'%s' is no IP address", address);
	r = uv_tcp_bind(&s->listener, (struct sockaddr *)&a, 0);
	if (r == 0)
		r = uv_listen((uv_stream_t *)&s->listener, 512, on_connection);
	if (r == 0)
		r = uv_tcp_getsockname(&s->listener, (struct sockaddr *)&a, &len);
	if (r < 0)
		return err_errno(e, r, "listening on %s port %d", address, s->o.port);
	s->port = ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
						: ((struct sockaddr_in *)&a)->sin_port);
	return 0;
}

struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_options *o, struct err *e)
{
	struct http_server *s;
	SSL_CTX *tls = NULL;

	if (o->cert_file && http_tls_server_new(o, &tls, e) < 0)
		return NULL;
	s = xcalloc(1, sizeof(*s));
	s->loop = loop;
	s->thread = uv_thread_self();
	s->o = *o;
	s->tls = tls;
	s->o.body_max = o->body_max ? o->body_max : (size_t)3 << 20;
	s->o.connections_max = o->connections_max ? o->connections_max : 2000;
	s->o.idle_timeout_ms = o->idle_timeout_ms ? o->idle_timeout_ms : 90000;
	s->mailbox = mailbox_new(loop);
	ensure(uv_tcp_init(loop, &s->listener) == 0 && uv_timer_init(loop, &s->sweep) == 0);
	s->listener.data = s->sweep.data = s;
	s->refs = 2;
	if (listen_on(s, e) < 0)
		return http_server_free(s);
	uv_timer_start(&s->sweep, on_sweep, 1000, 1000);
	return s;
}

int http_server_port(const struct http_server *s)
{
	return s->port;
}

struct http_server *http_server_free(struct http_server *s)
{
	if (!s)
		return NULL;
	s->closing = true;
	while (s->conns)
		http_conn_close(s->conns);
	uv_close((uv_handle_t *)&s->listener, on_last_handle);
	uv_close((uv_handle_t *)&s->sweep, on_last_handle);
	return NULL;
}

void http_req_free(struct http_req *r)
{
	struct http_server *s = r->server;

	http_head_done(&r->head);
	buf_done(&r->body);
	free(r->cert_cn);
	strv_free(r->cert_orgs);
	free(r);
	http_server_unref(s);
}

static void on_letter(void *arg);

static void post(struct letter *l)
{
	struct http_req *r = l->req;

	r->letters++;
	if (mailbox_post(r->server->mailbox, on_letter, l) < 0) {
		/* Tens of thousands of answers wait: the process is beyond help, and a lost answer would be worse. */
		log_error("http: more than the mailbox holds waits to be sent; stopping");
		abort();
	}
}

static struct letter *letter_new(struct http_req *r, int type, size_t len)
{
	struct letter *l = xcalloc(1, sizeof(*l) + len);

	l->req = r;
	l->type = type;
	l->len = len;
	return l;
}

void http_req_client_gone(struct http_req *r)
{
	if (!r->dispatched)
		http_req_free(r);
	else if (r->stream)
		post(letter_new(r, LETTER_FINISH, 0));
	/* else: the handler has it; its answer ends it */
}

/* ---- the request ---- */

const char *http_req_method(const struct http_req *r)
{
	return r->head.method;
}

const char *http_req_path(const struct http_req *r)
{
	return r->head.path;
}

const char *http_req_query(const struct http_req *r, const char *name)
{
	for (size_t i = 0; i < r->head.n_query; i++)
		if (streq(r->head.query[i].name, name))
			return r->head.query[i].value;
	return NULL;
}

const char *http_req_header(const struct http_req *r, const char *name)
{
	return http_head_field(&r->head, name);
}

const char *http_req_body(const struct http_req *r, size_t *ret_len)
{
	if (ret_len)
		*ret_len = r->body.len;
	return r->body.data ? r->body.data : "";
}

const char *http_req_peer(const struct http_req *r)
{
	return r->peer;
}

const char *http_req_cert_cn(const struct http_req *r)
{
	return r->cert_cn;
}

char *const *http_req_cert_orgs(const struct http_req *r)
{
	return r->cert_orgs;
}

/* ---- answers, loop thread ---- */

static const char *status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} texts[] = {
		{200, "OK"},
		{201, "Created"},
		{202, "Accepted"},
		{204, "No Content"},
		{206, "Partial Content"},
		{301, "Moved Permanently"},
		{302, "Found"},
		{304, "Not Modified"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{406, "Not Acceptable"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{410, "Gone"},
		{413, "Request Entity Too Large"},
		{415, "Unsupported Media Type"},
		{422, "Unprocessable Entity"},
		{429, "Too Many Requests"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].status == status)
			return texts[i].text;
	return "Status";
}

static void send_reply(struct http_req *r, const struct letter *l)
{
	struct http_conn *c = r->conn;

	if (c)
		http_conn_send(c, l->data, l->len, NULL);
	c = r->conn; /* sending may have found it dead */
	if (c) {
		r->conn = NULL;
		http_conn_answered(c, r->head.keep_alive);
	}
	http_req_free(r);
}

static void end_stream(struct http_req *r)
{
	struct http_conn *c = r->conn;

	if (!c)
		return; /* the client was first: its letter is on the way */
	if (r->head.minor == 1)
		http_conn_send(c, "0\r\n\r\n", 5, NULL);
	c = r->conn;
	if (!c)
		return;
	r->conn = NULL;
	post(letter_new(r, LETTER_FINISH, 0));
	http_conn_answered(c, r->head.keep_alive && r->head.minor == 1);
}

static void run_letter(struct http_req *r, const struct letter *l)
{
	switch (l->type) {
	case LETTER_REPLY:
		send_reply(r, l);
		break;
	case LETTER_BEGIN:
		r->stream = true;
		r->closed = l->closed;
		r->closed_ctx = l->ctx;
		if (r->conn)
			http_conn_send(r->conn, l->data, l->len, NULL);
		else
			post(letter_new(r, LETTER_FINISH, 0));
		break;
	case LETTER_WRITE:
		if (r->conn)
			http_conn_send(r->conn, l->data, l->len, r);
		break;
	case LETTER_END:
		end_stream(r);
		break;
	case LETTER_FINISH:
		r->finished = true;
		if (r->closed)
			r->closed(r->closed_ctx);
		if (r->letters == 0)
			http_req_free(r);
		break;
	}
}

static void on_letter(void *arg)
{
	struct letter *l = arg;
	struct http_req *r = l->req;

	if (!r->finished) {
		r->letters--;
		run_letter(r, l);
	} else if (--r->letters == 0) {
		http_req_free(r);
	}
	free(l);
}

/* At once on the loop thread, unless letters of this request are under way. */
static void deliver(struct letter *l)
{
	struct http_req *r = l->req;
	uv_thread_t self = uv_thread_self();

	if (r->letters == 0 && uv_thread_equal(&self, &r->server->thread)) {
		run_letter(r, l);
		free(l);
	} else {
		post(l);
	}
}

/* ---- answers, any thread ---- */

/* RFC 9110 6.6.1 */
static void add_date(struct buf *b)
{
	static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t now = (time_t)(clock_wall_ms() / 1000);
	struct tm t;

	gmtime_r(&now, &t);
	buf_addf(b, "Date: %s, %02d %s %d %02d:%02d:%02d GMT\r\n", days[t.tm_wday], t.tm_mday,
		 months[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

static void head_add(struct buf *b, const struct http_req *r, int status, const char *content_type,
		     const char *const *headers)
{
	buf_addf(b, "HTTP/1.1 %d %s\r\n", status, status_text(status));
	add_date(b);
	if (content_type)
		buf_addf(b, "Content-Type: %s\r\n", content_type);
	for (; headers && *headers; headers++)
		buf_addf(b, "%s\r\n", *headers);
	if (!r->head.keep_alive)
		buf_adds(b, "Connection: close\r\n");
}

void http_reply(struct http_req *r, int status, const char *content_type, const void *data, size_t len,
		const char *const *headers)
{
	_cleanup_buf_ struct buf head = {0};
	bool no_body = streq(r->head.method, "HEAD") || status == 204 || status == 304;
	struct letter *l;

	head_add(&head, r, status, content_type, headers);
	if (status != 204)
		buf_addf(&head, "Content-Length: %zu\r\n", len);
	buf_adds(&head, "\r\n");
	if (no_body)
		len = 0;
	l = letter_new(r, LETTER_REPLY, head.len + len);
	memcpy(l->data, head.data, head.len);
	if (len)
		memcpy(l->data + head.len, data, len);
	deliver(l);
}

void http_reply_text(struct http_req *r, int status, const char *text)
{
	http_reply(r, status, "text/plain; charset=utf-8", text, strlen(text), NULL);
}

void http_reply_json(struct http_req *r, int status, const json_t *j)
{
	_cleanup_free_ char *text = js_text(j);

	http_reply(r, status, "application/json", text, strlen(text), NULL);
}

void http_stream_begin(struct http_req *r, int status, const char *content_type, void (*closed)(void *ctx),
		       void *ctx)
{
	_cleanup_buf_ struct buf head = {0};
	struct letter *l;

	head_add(&head, r, status, content_type, NULL);
	buf_adds(&head, r->head.minor == 1 ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
	l = letter_new(r, LETTER_BEGIN, head.len);
	memcpy(l->data, head.data, head.len);
	l->closed = closed;
	l->ctx = ctx;
	deliver(l);
}

int http_stream_write(struct http_req *r, const void *data, size_t len)
{
	char size[24] = "";
	size_t n = 0;
	struct letter *l;

	if (!len)
		return 0;
	if (r->cut || r->queued + len > STREAM_QUEUE_MAX) {
		r->cut = true; /* the next sweep closes it */
		return -ENOBUFS;
	}
	if (r->head.minor == 1)
		n = (size_t)snprintf(size, sizeof(size), "%zx\r\n", len);
	l = letter_new(r, LETTER_WRITE, n + len + (n ? 2 : 0));
	memcpy(l->data, size, n);
	memcpy(l->data + n, data, len);
	if (n)
		memcpy(l->data + n + len, "\r\n", 2);
	r->queued += l->len;
	deliver(l);
	return 0;
}

void http_stream_end(struct http_req *r)
{
	deliver(letter_new(r, LETTER_END, 0));
}

size_t http_stream_queued(const struct http_req *r)
{
	return r->queued;
}

void http_stream_cut(struct http_req *r)
{
	r->cut = true;
}
