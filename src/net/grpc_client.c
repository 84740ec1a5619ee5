/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC client. Every call and every stream has a completion queue of its own, plucked by the thread that waits for it: the
 * library does its network work inside those waits, so a call costs no hand-over between threads.
 *
 * A stream has four kinds of batches in flight, each at most once, told apart by their tags: START (send the head, receive
 * the head), RECV, SEND, STATUS. Freeing cancels the call and plucks all that are still out, which is then quick.
 *
 * Retries of the library are off: only the caller knows what may be sent twice. */
#include "net/grpc_internal.h"

#include <arpa/inet.h>
#include <pthread.h>

#define META_MAX 8
#define WATCH_MS 250

struct rpc_channel {
	grpc_channel *ch;
	char *target;
	bool kept;
	pthread_t keeper;
	pthread_mutex_t lock; /* with a keeper: stopping, and ch until then */
	bool stopping;
};

/* Asks to be told of the next change. False: the channel is gone. */
static bool watch_state(struct rpc_channel *ch, grpc_completion_queue *cq)
{
	bool goes_on;

	pthread_mutex_lock(&ch->lock);
	goes_on = !ch->stopping;
	if (goes_on) {
		grpc_connectivity_state now = grpc_channel_check_connectivity_state(ch->ch, 1);

		grpc_channel_watch_connectivity_state(ch->ch, now, rpc_deadline(WATCH_MS), cq, NULL);
	}
	pthread_mutex_unlock(&ch->lock);
	return goes_on;
}

/* Keeps a channel connected: waiting for a change of its state drives its connection attempts. The channel's end is a change, too, so this thread
 * ends at once with it. */
static void *run_keeper(void *arg)
{
	struct rpc_channel *ch = arg;
	grpc_completion_queue *cq = grpc_completion_queue_create_for_next(NULL);

	while (watch_state(ch, cq))
		(void)grpc_completion_queue_next(cq, rpc_deadline(-1), NULL);
	grpc_completion_queue_shutdown(cq);
	while (grpc_completion_queue_next(cq, rpc_deadline(-1), NULL).type != GRPC_QUEUE_SHUTDOWN)
		;
	grpc_completion_queue_destroy(cq);
	return NULL;
}

static char *target_uri(const char *target)
{
	unsigned char ip[16];
	_cleanup_free_ char *host = xstrdup(target);
	char *colon = strrchr(host, ':');

	if (str_starts(target, "unix:"))
		return xstrdup(target);
	if (*target == '[')
		return xasprintf("ipv6:%s", target);
	if (colon)
		*colon = 0;
	/* numbers need no resolver, and so no waiting for one */
	if (inet_pton(AF_INET, host, ip) == 1)
		return xasprintf("ipv4:%s", target);
	return xasprintf("dns:///%s", target);
}

static int make_credentials(const struct rpc_channel_options *o, grpc_channel_credentials **ret,
			    struct err *e)
{
	struct rpc_pem pem;
	grpc_ssl_pem_key_cert_pair pair;
	int r;

	if (!o->tls) {
		*ret = grpc_insecure_credentials_create();
		return 0;
	}
	r = rpc_pem_read(&pem, o->ca_file, o->cert_file, o->key_file, e);
	if (r < 0)
		return r;
	pair = (grpc_ssl_pem_key_cert_pair){.private_key = pem.key, .cert_chain = pem.cert};
	*ret = grpc_ssl_credentials_create_ex(pem.ca, pem.cert ? &pair : NULL, NULL, NULL);
	rpc_pem_done(&pem);
	return *ret ? 0 : err_set(e, -EINVAL, "the TLS files for %s are not usable", o->target);
}

int rpc_channel_new(const struct rpc_channel_options *o, struct rpc_channel **ret, struct err *e)
{
	_cleanup_free_ char *uri = target_uri(o->target);
	int64_t connect_ms = o->connect_timeout_ms ? o->connect_timeout_ms : 1000;
	grpc_channel_credentials *creds = NULL;
	grpc_arg args[16];
	grpc_channel_args list = {.args = args};
	struct rpc_channel *ch;
	int r;

	rpc_init();
	r = make_credentials(o, &creds, e);
	if (r < 0)
		return r;
	args[list.num_args++] = rpc_arg_int(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
					    (int64_t)(o->message_max ? o->message_max : RPC_MESSAGE_MAX));
	args[list.num_args++] = rpc_arg_int(GRPC_ARG_ENABLE_RETRIES, 0);
	args[list.num_args++] = rpc_arg_int(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
	args[list.num_args++] = rpc_arg_int(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
	/* the library takes the least back-off as the limit of one connection attempt as well */
	args[list.num_args++] = rpc_arg_int(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, connect_ms);
	args[list.num_args++] = rpc_arg_int(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
	args[list.num_args++] = rpc_arg_int(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
	if (o->keepalive_ms) {
		args[list.num_args++] = rpc_arg_int(GRPC_ARG_KEEPALIVE_TIME_MS, o->keepalive_ms);
		args[list.num_args++] =
			rpc_arg_int(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, o->silence_ms ? o->silence_ms : 1500);
		args[list.num_args++] = rpc_arg_int(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
	}
	if (o->tls && o->server_name) {
		args[list.num_args++] = (grpc_arg){.type = GRPC_ARG_STRING,
						   .key = (char *)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
						   .value.string = (char *)o->server_name};
	}
	ch = xcalloc(1, sizeof(*ch));
	ch->target = xstrdup(o->target);
	ch->ch = grpc_channel_create(uri, creds, &list);
	grpc_channel_credentials_release(creds);
	if (o->keep_connected) {
		pthread_mutex_init(&ch->lock, NULL);
		ensure(pthread_create(&ch->keeper, NULL, run_keeper, ch) == 0);
		ch->kept = true;
	}
	*ret = ch;
	return 0;
}

struct rpc_channel *rpc_channel_free(struct rpc_channel *ch)
{
	if (!ch)
		return NULL;
	if (ch->kept)
		pthread_mutex_lock(&ch->lock);
	ch->stopping = true;
	grpc_channel_destroy(ch->ch);
	if (ch->kept) {
		pthread_mutex_unlock(&ch->lock);
		pthread_join(ch->keeper, NULL);
		pthread_mutex_destroy(&ch->lock);
	}
	free(ch->target);
	free(ch);
	return NULL;
}

static size_t fill_meta(grpc_metadata out[META_MAX], const struct rpc_meta *meta, size_t n)
{
	ensure(n <= META_MAX);
	for (size_t i = 0; i < n; i++) {
		out[i] = (grpc_metadata){0};
		out[i].key = grpc_slice_from_copied_string(meta[i].name);
		out[i].value = grpc_slice_from_copied_string(meta[i].value);
	}
	return n;
}

static void drop_meta(grpc_metadata *m, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		grpc_slice_unref(m[i].key);
		grpc_slice_unref(m[i].value);
	}
}

static grpc_call *make_call(struct rpc_channel *ch, grpc_completion_queue *cq, const char *method,
			    int64_t timeout_ms)
{
	grpc_slice path = grpc_slice_from_copied_string(method);
	grpc_call *call = grpc_channel_create_call(ch->ch, NULL, GRPC_PROPAGATE_DEFAULTS, cq, path, NULL,
						   rpc_deadline(timeout_ms), NULL);

	grpc_slice_unref(path);
	return call;
}

/* The status of a call that has ended, as errno with text. */
static int status_to_err(const struct rpc_channel *ch, int code, grpc_slice details, struct err *e)
{
	int n = (int)MIN(GRPC_SLICE_LENGTH(details), (size_t)300);

	return err_set(e, rpc_errno(code), "%s: gRPC status %d: %.*s", ch->target, code, n,
		       (const char *)GRPC_SLICE_START_PTR(details));
}

/* Takes the message over; destroys it. */
static int take_message(grpc_byte_buffer *b, struct rpc_reply *ret, struct err *e)
{
	int r = rpc_bytes_copy(b, &ret->data, &ret->len);

	grpc_byte_buffer_destroy(b);
	return r < 0 ? err_errno(e, r, "cannot read a gRPC message") : 0;
}

int rpc_call(struct rpc_channel *ch, const char *method, const struct rpc_meta *meta, size_t n_meta,
	     const void *request, size_t len, int64_t timeout_ms, struct rpc_reply *ret, struct err *e)
{
	grpc_completion_queue *cq = grpc_completion_queue_create_for_pluck(NULL);
	grpc_call *call = make_call(ch, cq, method, timeout_ms);
	grpc_byte_buffer *out = rpc_bytes(request, len), *in = NULL;
	grpc_metadata md[META_MAX];
	grpc_metadata_array head, trail;
	grpc_status_code code = GRPC_STATUS_UNKNOWN;
	grpc_slice details = grpc_empty_slice();
	grpc_op ops[6] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
			  {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = out},
			  {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
			  {.op = GRPC_OP_RECV_INITIAL_METADATA,
			   .data.recv_initial_metadata.recv_initial_metadata = &head},
			  {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &in},
			  {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
			   .data.recv_status_on_client = {.trailing_metadata = &trail,
							  .status = &code,
							  .status_details = &details}}};
	int r;

	*ret = (struct rpc_reply){0};
	grpc_metadata_array_init(&head);
	grpc_metadata_array_init(&trail);
	ops[0].data.send_initial_metadata.count = fill_meta(md, meta, n_meta);
	ops[0].data.send_initial_metadata.metadata = md;
	ensure(grpc_call_start_batch(call, ops, 6, call, NULL) == GRPC_CALL_OK);
	/* ends by the call's own deadline */
	ensure(grpc_completion_queue_pluck(cq, call, rpc_deadline(-1), NULL).type == GRPC_OP_COMPLETE);

	ret->code = (int)code;
	if (code == GRPC_STATUS_OK && in)
		r = take_message(take_ptr(in), ret, e);
	else if (code == GRPC_STATUS_OK)
		r = err_set(e, -EBADMSG, "%s: no answer to %s", ch->target, method);
	else
		r = status_to_err(ch, (int)code, details, e);
	if (in)
		grpc_byte_buffer_destroy(in);
	grpc_byte_buffer_destroy(out);
	grpc_slice_unref(details);
	grpc_metadata_array_destroy(&head);
	grpc_metadata_array_destroy(&trail);
	drop_meta(md, n_meta);
	grpc_call_unref(call);
	grpc_completion_queue_destroy(cq);
	return r;
}

void rpc_reply_done(struct rpc_reply *r)
{
	free(r->data);
	*r = (struct rpc_reply){0};
}

/* ---- streams ---- */

enum tag { TAG_START, TAG_RECV, TAG_SEND, TAG_STATUS, TAGS };

struct rpc_stream {
	struct rpc_channel *ch;
	grpc_completion_queue *cq;
	grpc_call *call;
	bool out[TAGS]; /* batch in flight; RECV and STATUS belong to the reader, SEND to the sender */
	grpc_byte_buffer *in;
	grpc_metadata md[META_MAX];
	size_t n_md;
	grpc_metadata_array head, trail;
	grpc_status_code code;
	grpc_slice details;
	bool ended;
};

static void *tag_of(struct rpc_stream *s, enum tag t)
{
	return &s->out[t];
}

static int start(struct rpc_stream *s, enum tag t, const grpc_op *ops, size_t n)
{
	if (grpc_call_start_batch(s->call, ops, n, tag_of(s, t), NULL) != GRPC_CALL_OK)
		return -EIO;
	s->out[t] = true;
	return 0;
}

/* -ETIMEDOUT: still in flight. */
static int pluck(struct rpc_stream *s, enum tag t, int64_t timeout_ms)
{
	grpc_event ev = grpc_completion_queue_pluck(s->cq, tag_of(s, t), rpc_deadline(timeout_ms), NULL);

	if (ev.type != GRPC_OP_COMPLETE)
		return -ETIMEDOUT;
	s->out[t] = false;
	return ev.success ? 0 : -EPIPE;
}

int rpc_stream_new(struct rpc_channel *ch, const char *method, const struct rpc_meta *meta, size_t n_meta,
		   struct rpc_stream **ret, struct err *e)
{
	struct rpc_stream *s = xcalloc(1, sizeof(*s));
	grpc_op begin[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
			    {.op = GRPC_OP_RECV_INITIAL_METADATA,
			     .data.recv_initial_metadata.recv_initial_metadata = &s->head}};
	grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
			  .data.recv_status_on_client = {.trailing_metadata = &s->trail,
							 .status = &s->code,
							 .status_details = &s->details}};
	int r;

	s->ch = ch;
	s->cq = grpc_completion_queue_create_for_pluck(NULL);
	s->call = make_call(ch, s->cq, method, -1);
	s->details = grpc_empty_slice();
	grpc_metadata_array_init(&s->head);
	grpc_metadata_array_init(&s->trail);
	s->n_md = fill_meta(s->md, meta, n_meta);
	begin[0].data.send_initial_metadata.count = s->n_md;
	begin[0].data.send_initial_metadata.metadata = s->md;
	r = start(s, TAG_START, begin, 2);
	if (r == 0)
		r = start(s, TAG_STATUS, &status, 1);
	if (r < 0) {
		rpc_stream_free(s);
		return err_set(e, r, "%s: cannot start %s", ch->target, method);
	}
	*ret = s;
	return 0;
}

static int send_batch(struct rpc_stream *s, const grpc_op *op, int64_t timeout_ms)
{
	int r = start(s, TAG_SEND, op, 1);

	if (r == 0)
		r = pluck(s, TAG_SEND, timeout_ms);
	if (r == -ETIMEDOUT) {
		rpc_stream_cancel(s);
		pluck(s, TAG_SEND, -1); /* at once: cancelled */
	}
	return r;
}

int rpc_stream_send(struct rpc_stream *s, const void *data, size_t len, int64_t timeout_ms)
{
	grpc_byte_buffer *b = rpc_bytes(data, len);
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = b};
	int r = send_batch(s, &op, timeout_ms);

	grpc_byte_buffer_destroy(b);
	return r;
}

int rpc_stream_send_end(struct rpc_stream *s, int64_t timeout_ms)
{
	grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

	return send_batch(s, &op, timeout_ms);
}

/* The stream has no more messages: its status, as errno. */
static int stream_end(struct rpc_stream *s, struct rpc_reply *ret, struct err *e)
{
	if (!s->ended)
		pluck(s, TAG_STATUS, -1);
	s->ended = true;
	ret->code = (int)s->code;
	if (s->code == GRPC_STATUS_OK)
		return err_set(e, -ENODATA, "%s: the stream has ended", s->ch->target);
	return status_to_err(s->ch, (int)s->code, s->details, e);
}

int rpc_stream_recv(struct rpc_stream *s, int64_t timeout_ms, struct rpc_reply *ret, struct err *e)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &s->in};
	int r;

	*ret = (struct rpc_reply){0};
	if (s->ended)
		return stream_end(s, ret, e);
	if (!s->out[TAG_RECV] && start(s, TAG_RECV, &op, 1) < 0)
		return stream_end(s, ret, e);
	r = pluck(s, TAG_RECV, timeout_ms);
	if (r == -ETIMEDOUT)
		return err_set(e, -ETIMEDOUT, "%s: no message within %lld ms", s->ch->target,
			       (long long)timeout_ms);
	if (!s->in)
		return stream_end(s, ret, e);
	return take_message(take_ptr(s->in), ret, e);
}

void rpc_stream_cancel(struct rpc_stream *s)
{
	grpc_call_cancel(s->call, NULL);
}

struct rpc_stream *rpc_stream_free(struct rpc_stream *s)
{
	if (!s)
		return NULL;
	grpc_call_cancel(s->call, NULL);
	for (int t = 0; t < TAGS; t++)
		if (s->out[t])
			pluck(s, (enum tag)t, -1);
	if (s->in)
		grpc_byte_buffer_destroy(s->in);
	drop_meta(s->md, s->n_md);
	grpc_metadata_array_destroy(&s->head);
	grpc_metadata_array_destroy(&s->trail);
	grpc_slice_unref(s->details);
	grpc_call_unref(s->call);
	grpc_completion_queue_destroy(s->cq);
	free(s);
	return NULL;
}
