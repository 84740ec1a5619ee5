/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC server. One completion queue; a fixed number of threads take events from it and run the handlers in place, so a
 * handler may block, and as many run at once as there are threads.
 *
 * A request goes: NEW (a call has come) -> RECV (its one message is there) -> handler -> for unary calls one batch FINISH;
 * for streams WRITE batches, one at a time, fed from a queue, then FINISH. CLOSED comes once for each call, when it is over
 * or the client has gone.
 *
 * Life of a request: one reference for each batch in flight, and one of the handler until rpc_out_finish. After CLOSED (or
 * when a batch cannot be started) it is `dead`: no more batches are started, so the server can be freed while a slow user
 * still holds an rpc_out. `open` counts requests waited for or not closed yet, and one for the server itself: the queue is
 * shut down when it is 0, because the library aborts on a batch that is started after that.
 *
 * Bounds: CALLS_MAX requests at once (more are refused with RESOURCE_EXHAUSTED), QUEUE_BYTES waiting on a stream. */
#include "net/grpc_internal.h"

#include <pthread.h>

#include "net/grpc_server.h"

#define THREADS		  4
#define THREADS_MAX	  64
#define KEEPALIVE_MS	  5000
#define KEEPALIVE_WAIT_MS 3000
#define CALLS_MAX	  1024
#define QUEUE_BYTES	  ((size_t)16 << 20)

enum tag_kind { TAG_NEW, TAG_RECV, TAG_CLOSED, TAG_WRITE, TAG_FINISH };

struct tag {
	enum tag_kind kind;
	struct rpc_out *call;
};

struct waiting {
	struct waiting *next;
	grpc_byte_buffer *bytes;
	size_t len;
};

struct rpc_server {
	grpc_server *server;
	grpc_completion_queue *cq;
	int port;
	int n_threads;
	pthread_t threads[THREADS_MAX];
	struct rpc_method *methods;
	size_t n_methods;
	struct rpc_health health;
	int open; /* atomic */
};

/* One request; public as rpc_out once it is a stream. */
struct rpc_out {
	struct rpc_server *server;
	pthread_mutex_t lock;
	int refs;
	grpc_call *call;
	grpc_call_details details;
	grpc_metadata_array meta;
	grpc_byte_buffer *in;
	int cancelled;
	struct tag tags[TAG_FINISH + 1];
	/* under lock */
	bool dead, head_sent, writing, finishing;
	struct waiting *first, **last;
	size_t bytes;
	int code;
	char *text;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static void call_unref(struct rpc_out *o)
{
	if (__atomic_sub_fetch(&o->refs, 1, __ATOMIC_ACQ_REL))
		return;
	while (o->first) {
		struct waiting *w = o->first;

		o->first = w->next;
		grpc_byte_buffer_destroy(w->bytes);
		free(w);
	}
	if (o->in)
		grpc_byte_buffer_destroy(o->in);
	if (o->call)
		grpc_call_unref(o->call);
	grpc_call_details_destroy(&o->details);
	grpc_metadata_array_destroy(&o->meta);
	pthread_mutex_destroy(&o->lock);
	free(o->text);
	free(o);
}

/* Starts a batch, which holds a reference until its tag comes back. */
static int start(struct rpc_out *o, enum tag_kind kind, const grpc_op *ops, size_t n)
{
	__atomic_add_fetch(&o->refs, 1, __ATOMIC_RELAXED);
	if (grpc_call_start_batch(o->call, ops, n, &o->tags[kind], NULL) == GRPC_CALL_OK)
		return 0;
	__atomic_sub_fetch(&o->refs, 1, __ATOMIC_RELAXED); /* the caller has one */
	return -EIO;
}

static void open_drop(struct rpc_server *s)
{
	if (__atomic_sub_fetch(&s->open, 1, __ATOMIC_ACQ_REL) == 0)
		grpc_completion_queue_shutdown(s->cq);
}

static void accept_next(struct rpc_server *s)
{
	struct rpc_out *o = xcalloc(1, sizeof(*o));

	o->server = s;
	o->refs = 1;
	o->last = &o->first;
	pthread_mutex_init(&o->lock, NULL);
	grpc_call_details_init(&o->details);
	grpc_metadata_array_init(&o->meta);
	for (int k = 0; k <= TAG_FINISH; k++)
		o->tags[k] = (struct tag){.kind = (enum tag_kind)k, .call = o};
	__atomic_add_fetch(&s->open, 1, __ATOMIC_RELAXED);
	if (grpc_server_request_call(s->server, &o->call, &o->details, &o->meta, s->cq, s->cq,
				     &o->tags[TAG_NEW]) != GRPC_CALL_OK) {
		open_drop(s);
		call_unref(o);
	}
}

/* ---- answers ---- */

/* Under the lock. Head (if not sent yet), the message if there is one, and the status. */
static void send_finish(struct rpc_out *o, int code, const char *text, grpc_byte_buffer *message)
{
	grpc_op ops[3] = {0};
	grpc_slice details = grpc_slice_from_copied_string(text ? text : "");
	size_t n = 0;

	if (!o->head_sent)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (message) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = message;
	}
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = (grpc_status_code)code;
	ops[n++].data.send_status_from_server.status_details = &details;
	o->head_sent = true;
	if (start(o, TAG_FINISH, ops, n) < 0)
		o->dead = true;
	grpc_slice_unref(details);
}

static void finish_now(struct rpc_out *o, int code, const char *text, grpc_byte_buffer *message)
{
	pthread_mutex_lock(&o->lock);
	if (!o->dead)
		send_finish(o, code, text, message);
	pthread_mutex_unlock(&o->lock);
	if (message)
		grpc_byte_buffer_destroy(message);
}

/* Under the lock: starts the next write, or the end when all is written. */
static void send_next(struct rpc_out *o)
{
	struct waiting *w = o->first;
	grpc_op ops[2] = {0};
	size_t n = 0;

	if (o->dead || o->writing)
		return;
	if (!w) {
		if (o->finishing) {
			o->finishing = false;
			send_finish(o, o->code, o->text, NULL);
		}
		return;
	}
	o->first = w->next;
	if (!o->first)
		o->last = &o->first;
	o->bytes -= w->len;
	if (!o->head_sent)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n++].data.send_message.send_message = w->bytes;
	o->head_sent = true;
	if (start(o, TAG_WRITE, ops, n) < 0)
		o->dead = true;
	else
		o->writing = true;
	grpc_byte_buffer_destroy(w->bytes);
	free(w);
}

int rpc_out_write(struct rpc_out *o, const void *data, size_t len)
{
	int r = 0;

	pthread_mutex_lock(&o->lock);
	if (o->dead) {
		r = -EPIPE;
	} else if (o->bytes + len > QUEUE_BYTES) {
		r = -ENOBUFS;
		grpc_call_cancel(o->call, NULL);
	} else {
		struct waiting *w = xcalloc(1, sizeof(*w));

		w->bytes = rpc_bytes(data, len);
		w->len = len;
		*o->last = w;
		o->last = &w->next;
		o->bytes += len;
		send_next(o);
	}
	pthread_mutex_unlock(&o->lock);
	return r;
}

void rpc_out_on_closed(struct rpc_out *o, void (*closed)(void *ctx), void *ctx)
{
	bool now;

	pthread_mutex_lock(&o->lock);
	now = o->dead;
	if (!now) {
		o->closed = closed;
		o->closed_ctx = ctx;
	}
	pthread_mutex_unlock(&o->lock);
	if (now)
		closed(ctx);
}

void rpc_out_finish(struct rpc_out *o, int code, const char *text)
{
	pthread_mutex_lock(&o->lock);
	o->closed = NULL;
	o->finishing = true;
	o->code = code;
	o->text = text ? xstrdup(text) : NULL;
	send_next(o);
	pthread_mutex_unlock(&o->lock);
	call_unref(o); /* the handler's */
}

/* ---- events ---- */

static const struct rpc_method *find_method(const struct rpc_server *s, grpc_slice path)
{
	for (size_t i = 0; i < s->n_methods; i++)
		if (grpc_slice_str_cmp(path, s->methods[i].path) == 0)
			return &s->methods[i];
	return NULL;
}

static void run_unary(struct rpc_out *o, const struct rpc_method *m, const char *data, size_t len)
{
	_cleanup_buf_ struct buf reply = {0};
	struct err e = {0};
	int code = m->unary(m->ctx, data, len, &reply, &e);

	finish_now(o, code, code == RPC_OK ? NULL : e.text,
		   code == RPC_OK ? rpc_bytes(reply.data, reply.len) : NULL);
}

static void on_request(struct rpc_out *o)
{
	const struct rpc_method *m = find_method(o->server, o->details.method);
	_cleanup_free_ char *data = NULL;
	size_t len;

	if (!m) {
		finish_now(o, RPC_UNIMPLEMENTED, "no such method", NULL);
	} else if (!o->in || rpc_bytes_copy(o->in, &data, &len) < 0) {
		finish_now(o, RPC_INVALID_ARGUMENT, "no message", NULL);
	} else if (m->unary) {
		run_unary(o, m, data, len);
	} else {
		__atomic_add_fetch(&o->refs, 1, __ATOMIC_RELAXED); /* the handler's, until rpc_out_finish */
		m->stream(m->ctx, o, data, len);
	}
}

static void on_new(struct rpc_out *o)
{
	struct rpc_server *s = o->server;
	grpc_op closed = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
			  .data.recv_close_on_server.cancelled = &o->cancelled};
	grpc_op recv = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &o->in};

	accept_next(s);
	if (start(o, TAG_CLOSED, &closed, 1) < 0) {
		o->dead = true;
		open_drop(s);
	} else if (__atomic_load_n(&s->open, __ATOMIC_RELAXED) > CALLS_MAX) {
		finish_now(o, RPC_RESOURCE_EXHAUSTED, "too many calls at once", NULL);
	} else {
		start(o, TAG_RECV, &recv, 1);
	}
}

/* The call is over: nothing may be started on it any more, and its user is told. */
static void on_closed(struct rpc_out *o)
{
	void (*closed)(void *ctx);

	pthread_mutex_lock(&o->lock);
	o->dead = true;
	closed = o->closed;
	o->closed = NULL;
	pthread_mutex_unlock(&o->lock);
	if (closed)
		closed(o->closed_ctx);
	open_drop(o->server);
}

static void on_event(struct tag *t, bool success)
{
	struct rpc_out *o = t->call;

	switch (t->kind) {
	case TAG_NEW:
		if (success)
			on_new(o);
		else /* the server stops */
			open_drop(o->server);
		break;
	case TAG_RECV:
		on_request(o);
		break;
	case TAG_CLOSED:
		on_closed(o);
		break;
	case TAG_WRITE:
		pthread_mutex_lock(&o->lock);
		o->writing = false;
		if (!success)
			o->dead = true;
		send_next(o);
		pthread_mutex_unlock(&o->lock);
		break;
	case TAG_FINISH:
		break;
	}
	call_unref(o);
}

static void *server_thread(void *arg)
{
	struct rpc_server *s = arg;

	for (;;) {
		grpc_event ev = grpc_completion_queue_next(s->cq, rpc_deadline(-1), NULL);

		if (ev.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (ev.type == GRPC_OP_COMPLETE && ev.tag != s)
			on_event(ev.tag, ev.success);
		else if (ev.type == GRPC_OP_COMPLETE)
			open_drop(s); /* the server's own */
	}
}

/* ---- life ---- */

static int make_credentials(const struct rpc_server_options *o, grpc_server_credentials **ret, struct err *e)
{
	struct rpc_pem pem;
	grpc_ssl_pem_key_cert_pair pair;
	int r;

	if (!o->cert_file) {
		*ret = grpc_insecure_server_credentials_create();
		return 0;
	}
	r = rpc_pem_read(&pem, o->client_ca_file, o->cert_file, o->key_file, e);
	if (r < 0)
		return r;
	pair = (grpc_ssl_pem_key_cert_pair){.private_key = pem.key, .cert_chain = pem.cert};
	*ret = grpc_ssl_server_credentials_create_ex(
		pem.ca, &pair, 1,
		pem.ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
		       : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
		NULL);
	rpc_pem_done(&pem);
	return *ret ? 0 : err_set(e, -EINVAL, "the server's TLS files are not usable");
}

static void copy_methods(struct rpc_server *s, const struct rpc_server_options *o)
{
	s->methods = xcalloc(o->n_methods + 2, sizeof(*s->methods));
	if (o->n_methods)
		memcpy(s->methods, o->methods, o->n_methods * sizeof(*s->methods));
	s->n_methods = o->n_methods;
	s->methods[s->n_methods++] = (struct rpc_method){
		.path = "/grpc.health.v1.Health/Check", .unary = rpc_health_unary, .ctx = &s->health};
	s->methods[s->n_methods++] = (struct rpc_method){
		.path = "/grpc.health.v1.Health/Watch", .stream = rpc_health_watch, .ctx = &s->health};
	for (size_t i = 0; i < s->n_methods; i++) {
		ensure(!s->methods[i].unary != !s->methods[i].stream);
		s->methods[i].path = xstrdup(s->methods[i].path);
	}
}

static void server_discard(struct rpc_server *s)
{
	rpc_health_done(&s->health);
	for (size_t i = 0; i < s->n_methods; i++)
		free((char *)s->methods[i].path);
	free(s->methods);
	free(s);
}

static struct rpc_server *server_make(const struct rpc_server_options *o)
{
	struct rpc_server *s = xcalloc(1, sizeof(*s));
	grpc_arg args[] = {
		rpc_arg_int(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
			    (int64_t)(o->message_max ? o->message_max : RPC_MESSAGE_MAX)),
		rpc_arg_int(GRPC_ARG_ALLOW_REUSEPORT, 0),
		/* clients may ping each second */
		rpc_arg_int(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500),
		/* a client whose machine lost power sends no goodbye */
		rpc_arg_int(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
		rpc_arg_int(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_WAIT_MS),
		rpc_arg_int(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
	};
	grpc_channel_args list = {.num_args = ARRAY_SIZE(args), .args = args};

	s->open = 1;
	rpc_health_init(&s->health);
	rpc_health_set(&s->health, "", true);
	copy_methods(s, o);
	s->n_threads = CLAMP(o->threads ? o->threads : THREADS, 1, THREADS_MAX);
	s->cq = grpc_completion_queue_create_for_next(NULL);
	s->server = grpc_server_create(&list, NULL);
	grpc_server_register_completion_queue(s->server, s->cq, NULL);
	return s;
}

int rpc_server_new(const struct rpc_server_options *o, struct rpc_server **ret, struct err *e)
{
	grpc_server_credentials *creds = NULL;
	struct rpc_server *s;
	int r;

	rpc_init();
	r = make_credentials(o, &creds, e);
	if (r < 0)
		return r;
	s = server_make(o);
	s->port = grpc_server_add_http2_port(s->server, o->address, creds);
	grpc_server_credentials_release(creds);
	if (!s->port)
		r = err_set(e, -EADDRINUSE, "cannot listen on %s", o->address);
	grpc_server_start(s->server);
	for (int i = 0; i < s->n_threads; i++) {
		if (pthread_create(&s->threads[i], NULL, server_thread, s) == 0)
			continue;
		s->n_threads = i;
		r = err_set(e, -EAGAIN, "cannot start a thread");
		break;
	}
	for (int i = 0; r == 0 && i < 2 * s->n_threads; i++)
		accept_next(s);
	if (r < 0) {
		rpc_server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int rpc_server_port(const struct rpc_server *s)
{
	return s->port;
}

void rpc_server_set_health(struct rpc_server *s, const char *service, bool serving)
{
	rpc_health_set(&s->health, service, serving);
}

struct rpc_server *rpc_server_free(struct rpc_server *s)
{
	if (!s)
		return NULL;
	grpc_server_shutdown_and_notify(s->server, s->cq, s);
	grpc_server_cancel_all_calls(s->server);
	if (!s->n_threads)
		server_thread(s); /* drains the queue */
	for (int i = 0; i < s->n_threads; i++)
		pthread_join(s->threads[i], NULL);
	grpc_server_destroy(s->server);
	grpc_completion_queue_destroy(s->cq);
	server_discard(s);
	return NULL;
}
