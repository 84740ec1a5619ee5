/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP client: libcurl's multi interface driven by a libuv loop, one uv_poll_t a socket and one timer for curl.
 *
 * Loop thread only. curl forbids that handles are added or removed while it runs (`in_curl`), and callbacks may make and
 * cancel calls or free the client, so all that is put off until curl has returned: a new call waits, a cancelled one is
 * marked and swept, a freed client goes when its last uv handle has closed. Order of a call: new -> data ... -> done, or cancel.
 *
 * A peer that lost its power answers nothing, not even a reset: TCP_USER_TIMEOUT ends connections whose bytes stay
 * unacknowledged, and a stream's silence time-out ends those that only listen. */
#include "net/http_client.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define ANSWER_MAX_DEFAULT ((size_t)64 << 20)

struct http_client {
	uv_loop_t *loop;
	CURLM *multi;
	uv_timer_t timer;
	struct http_call *calls; /* doubly linked */
	char *ca_file, *cert_file, *key_file, *ca_pem, *cert_pem, *key_pem, *auth;
	bool insecure, closing;
	int64_t unacked_max_ms;
	int busy;     /* > 0: curl or a callback is on the stack */
	bool in_curl; /* curl is on the stack: nothing may be added or removed */
	int handles;  /* open uv handles */
};

struct http_call {
	struct http_client *c;
	struct http_call *next, *prev;
	CURL *easy;
	struct curl_slist *headers;
	struct timer *silence;
	struct buf body;
	int64_t silence_ms;
	char text[CURL_ERROR_SIZE];
	bool waiting; /* made while curl was on the stack; added when it has returned */
	bool cancelled, silent, too_long;
	void (*data)(void *ctx, const char *data, size_t len);
	void (*done)(void *ctx, int status, const char *body, size_t len, const char *text);
	void *ctx;
};

struct sock {
	uv_poll_t poll;
	struct http_client *c;
	curl_socket_t fd;
};

static void client_unref(struct http_client *c)
{
	if (--c->handles > 0)
		return;
	free(c->ca_file);
	free(c->cert_file);
	free(c->key_file);
	free(c->ca_pem);
	free(c->cert_pem);
	free(c->key_pem);
	free(c->auth);
	free(c);
}

static void call_free(struct http_call *call)
{
	struct http_client *c = call->c;

	if (call->prev)
		call->prev->next = call->next;
	else
		c->calls = call->next;
	if (call->next)
		call->next->prev = call->prev;
	if (call->easy) {
		if (c->multi)
			curl_multi_remove_handle(c->multi, call->easy);
		curl_easy_cleanup(call->easy);
	}
	curl_slist_free_all(call->headers);
	timer_free(call->silence);
	buf_done(&call->body);
	free(call);
}

/* The transport's error as errno: what kube needs to tell "not sent" from "outcome unknown". */
static int errno_of(CURLcode code, const struct http_call *call)
{
	if (call->silent)
		return -ETIMEDOUT;
	if (call->too_long)
		return -EMSGSIZE;
	switch (code) {
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return -ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT: {
		curl_off_t connected = 0;

		curl_easy_getinfo(call->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
		return connected > 0 ? -ETIMEDOUT : -EHOSTUNREACH; /* never connected: nothing was sent */
	}
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
		return -EPROTO;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return -EINVAL;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	default:
		return -ECONNRESET;
	}
}

static void call_finish(struct http_call *call, CURLcode code)
{
	long http = 0;
	int status;
	const char *text = "";

	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &http);
	if (code == CURLE_OK) {
		status = (int)http;
	} else {
		status = errno_of(code, call);
		text = call->silent  ? "silent for too long"
		       : *call->text ? call->text
				     : curl_easy_strerror(code);
	}
	/* The handle leaves the multi first, so that done may start the next call on this connection. */
	curl_multi_remove_handle(call->c->multi, call->easy);
	if (call->done && !call->cancelled)
		call->done(call->ctx, status, call->body.data ? call->body.data : "", call->body.len, text);
	call->cancelled = true; /* swept */
}

static void sweep(struct http_client *c)
{
	struct http_call *next;

	for (struct http_call *call = c->calls; call; call = next) {
		next = call->next;
		if (call->cancelled)
			call_free(call);
	}
}

static void on_handle_closed(uv_handle_t *h)
{
	client_unref(h->data);
}

static void client_close(struct http_client *c)
{
	CURLM *multi = c->multi;

	while (c->calls)
		call_free(c->calls);
	c->multi = NULL;
	curl_multi_cleanup(multi); /* calls on_socket with CURL_POLL_REMOVE for kept connections */
	uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

/* After curl has returned: reports what ended, then does what callbacks had asked for. */
static void settle(struct http_client *c)
{
	CURLMsg *msg;
	int left;

	for (struct http_call *call = c->calls; call && !c->closing; call = call->next) {
		if (call->waiting && !call->cancelled)
			ensure(curl_multi_add_handle(c->multi, call->easy) == CURLM_OK);
		call->waiting = false;
	}
	while (!c->closing && (msg = curl_multi_info_read(c->multi, &left))) {
		struct http_call *call;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &call);
		call_finish(call, msg->data.result);
	}
	if (--c->busy > 0)
		return;
	sweep(c);
	if (c->closing)
		client_close(c);
}

static void on_poll(uv_poll_t *p, int status, int events)
{
	struct sock *s = p->data;
	struct http_client *c = s->c;
	curl_socket_t fd = s->fd; /* curl may close it, and s with it */
	int running, flags = 0;

	if (status < 0)
		flags = CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	c->busy++;
	c->in_curl = true;
	curl_multi_socket_action(c->multi, fd, flags, &running);
	c->in_curl = false;
	settle(c);
}

static void on_curl_timer(uv_timer_t *t)
{
	struct http_client *c = t->data;
	int running;

	c->busy++;
	c->in_curl = true;
	curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	c->in_curl = false;
	settle(c);
}

static int on_timer_wanted(CURLM *multi, long timeout_ms, void *ctx)
{
	struct http_client *c = ctx;

	(void)multi;
	if (timeout_ms < 0)
		uv_timer_stop(&c->timer);
	else /* 0 too: never from inside http_call_new */
		uv_timer_start(&c->timer, on_curl_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

static void on_sock_closed(uv_handle_t *h)
{
	struct sock *s = h->data;
	struct http_client *c = s->c;

	free(s);
	client_unref(c);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *sock)
{
	struct http_client *c = ctx;
	struct sock *s = sock;
	int events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (s) {
			uv_poll_stop(&s->poll);
			uv_close((uv_handle_t *)&s->poll, on_sock_closed);
			if (c->multi)
				curl_multi_assign(c->multi, fd, NULL);
		}
		return 0;
	}
	if (!s) {
		s = xcalloc(1, sizeof(*s));
		s->c = c;
		s->fd = fd;
		if (uv_poll_init_socket(c->loop, &s->poll, fd) < 0) {
			free(s);
			return -1;
		}
		s->poll.data = s;
		c->handles++;
		curl_multi_assign(c->multi, fd, s);
	}
	if (what & CURL_POLL_IN)
		events |= UV_READABLE;
	if (what & CURL_POLL_OUT)
		events |= UV_WRITABLE;
	return uv_poll_start(&s->poll, events, on_poll) < 0 ? -1 : 0;
}

static void set_text(char **field, const char *text)
{
	*field = text ? xstrdup(text) : NULL;
}

struct http_client *http_client_new(uv_loop_t *loop, const struct http_client_options *o, struct err *e)
{
	static const struct http_client_options none;
	struct http_client *c;
	long conns;

	if (!o)
		o = &none;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		err_set(e, -ENOMEM, "libcurl does not start");
		return NULL;
	}
	c = xcalloc(1, sizeof(*c));
	c->loop = loop;
	c->multi = curl_multi_init();
	ensure(c->multi);
	c->insecure = o->insecure;
	c->unacked_max_ms = o->unacked_max_ms ? o->unacked_max_ms : 3000;
	set_text(&c->ca_file, o->ca_file);
	set_text(&c->cert_file, o->cert_file);
	set_text(&c->key_file, o->key_file);
	set_text(&c->ca_pem, o->ca_pem);
	set_text(&c->cert_pem, o->cert_pem);
	set_text(&c->key_pem, o->key_pem);
	if (o->bearer_token)
		c->auth = xasprintf("Authorization: Bearer %s", o->bearer_token);
	uv_timer_init(loop, &c->timer);
	c->timer.data = c;
	c->handles = 1;
	conns = o->connections_max > 0 ? o->connections_max : 64;
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, conns);
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, conns);
	return c;
}

struct http_client *http_client_free(struct http_client *c)
{
	if (!c)
		return NULL;
	c->closing = true;
	for (struct http_call *call = c->calls; call; call = call->next)
		call->cancelled = true;
	if (!c->busy)
		client_close(c);
	return NULL;
}

static void on_silence(void *ctx)
{
	struct http_call *call = ctx;
	struct http_client *c = call->c;

	call->silent = true;
	c->busy++;
	if (!call->cancelled)
		call_finish(call, CURLE_OPERATION_TIMEDOUT);
	settle(c);
}

static size_t on_data(char *data, size_t size, size_t n, void *ctx)
{
	struct http_call *call = ctx;
	size_t len = size * n;
	long http = 0;

	if (call->cancelled)
		return 0; /* ends the transfer */
	if (call->silence)
		timer_start(call->silence, (uint64_t)call->silence_ms, 0);
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &http);
	if (call->data && http >= 200 && http < 300) {
		call->data(call->ctx, data, len);
		return call->cancelled ? 0 : len;
	}
	if (buf_add(&call->body, data, len) < 0) {
		call->too_long = true;
		return 0;
	}
	return len;
}

static int on_open_socket(void *ctx, curl_socket_t fd, curlsocktype purpose)
{
	const struct http_client *c = ctx;
	int ms = (int)c->unacked_max_ms, one = 1, idle_s = 2, interval_s = 1, probes = 3;

	(void)purpose;
	/* Best effort: the socket works without. */
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	return CURL_SOCKOPT_OK;
}

static void set_pem(CURL *easy, CURLoption blob_option, CURLoption file_option, char *pem, const char *file)
{
	struct curl_blob blob = {.data = pem, .len = pem ? strlen(pem) : 0, .flags = CURL_BLOB_NOCOPY};

	if (pem)
		curl_easy_setopt(easy, blob_option, &blob);
	else if (file)
		curl_easy_setopt(easy, file_option, file);
}

static void set_tls(struct http_client *c, CURL *easy)
{
	set_pem(easy, CURLOPT_CAINFO_BLOB, CURLOPT_CAINFO, c->ca_pem, c->ca_file);
	set_pem(easy, CURLOPT_SSLCERT_BLOB, CURLOPT_SSLCERT, c->cert_pem, c->cert_file);
	set_pem(easy, CURLOPT_SSLKEY_BLOB, CURLOPT_SSLKEY, c->key_pem, c->key_file);
	if (c->insecure && !c->ca_pem && !c->ca_file) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
}

static void set_request(struct http_call *call, const struct http_call_options *o)
{
	CURL *easy = call->easy;
	const char *method = o->method ? o->method : "GET";

	curl_easy_setopt(easy, CURLOPT_URL, o->url);
	if (o->body) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)o->body_len);
		curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, o->body);
		call->headers = curl_slist_append(call->headers, "Expect:");
	}
	if (streq(method, "HEAD"))
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	for (size_t i = 0; o->headers && o->headers[i]; i++)
		call->headers = curl_slist_append(call->headers, o->headers[i]);
	if (call->c->auth)
		call->headers = curl_slist_append(call->headers, call->c->auth);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
	if (o->timeout_ms >= 0)
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(o->timeout_ms ? o->timeout_ms : 10000));
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(o->connect_timeout_ms ? o->connect_timeout_ms : 1000));
	if (o->new_connection) {
		curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
	}
	if (o->follow_redirects) {
		curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
		curl_easy_setopt(easy, CURLOPT_MAXREDIRS, 5L);
	}
}

struct http_call *http_call_new(struct http_client *c, const struct http_call_options *o)
{
	struct http_call *call = xcalloc(1, sizeof(*call));

	ensure(!c->closing);
	ensure(o->url);
	call->c = c;
	call->data = o->data;
	call->done = o->done;
	call->ctx = o->ctx;
	call->body.limit = o->answer_max ? o->answer_max : ANSWER_MAX_DEFAULT;
	call->easy = curl_easy_init();
	ensure(call->easy);
	call->next = c->calls;
	if (c->calls)
		c->calls->prev = call;
	c->calls = call;
	curl_easy_setopt(call->easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(call->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(call->easy, CURLOPT_PROXY,
			 ""); /* the platform's own traffic never goes by a proxy */
	curl_easy_setopt(call->easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(call->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(call->easy, CURLOPT_PIPEWAIT, 0L);
	curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, call->text);
	curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(call->easy, CURLOPT_SOCKOPTFUNCTION, on_open_socket);
	curl_easy_setopt(call->easy, CURLOPT_SOCKOPTDATA, c);
	set_tls(c, call->easy);
	set_request(call, o);
	if (o->silence_timeout_ms > 0) {
		call->silence_ms = o->silence_timeout_ms;
		call->silence = timer_new(c->loop, on_silence, call);
		timer_start(call->silence, (uint64_t)call->silence_ms, 0);
	}
	call->waiting = c->in_curl;
	if (!call->waiting)
		ensure(curl_multi_add_handle(c->multi, call->easy) == CURLM_OK);
	return call;
}

void http_call_cancel(struct http_call *call)
{
	struct http_client *c = call->c;

	call->cancelled = true;
	if (!c->busy)
		call_free(call);
}

void http_call_pause(struct http_call *call, bool on)
{
	struct http_client *c = call->c;
	bool inside = c->in_curl;

	if (call->cancelled || call->waiting)
		return;
	if (on) {
		curl_easy_pause(call->easy, CURLPAUSE_RECV);
		return;
	}
	c->busy++; /* what curl has kept is delivered at once */
	c->in_curl = true;
	curl_easy_pause(call->easy, CURLPAUSE_CONT);
	c->in_curl = inside;
	settle(c);
}
