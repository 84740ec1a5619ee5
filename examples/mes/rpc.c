/* SPDX-License-Identifier: Apache-2.0 */
/* The MES over gRPC. Handlers run on the gRPC server's threads: they turn the message into the JSON form of the HTTP
 * interface, hand it to the loop thread and wait for its answer, so that both interfaces share every check and every
 * transaction. A stream of work orders is a machine that polls again and again by itself, until its client has gone. */
#include "mes.h"

#include "mes.pb-c.h"
#include "net/grpc.h"

#define RPC_THREADS   8
#define STREAM_WAIT_S 20

/* ---- a call that waits for the loop thread ---- */
struct call {
	struct mes *m;
	enum { CALL_ORDER, CALL_REPORT, CALL_ACK } what;
	const char *key; /* or the machine */
	const char *ack;
	json_t *body;
	uv_sem_t answered;
	int status;
	json_t *reply;
	char *text;
};

static void on_answer(void *ctx, int status, json_t *j, const char *text)
{
	struct call *c = ctx;

	c->status = status;
	c->reply = json_incref(j);
	c->text = text ? xstrdup(text) : NULL;
	uv_sem_post(&c->answered);
}

static void on_loop(void *arg)
{
	struct call *c = arg;
	struct mes_answer a = {on_answer, c};

	if (c->what == CALL_ORDER)
		orders_create(c->m, c->key, c->body, a);
	else if (c->what == CALL_REPORT)
		reports_add(c->m, c->body, a);
	else
		dispatch_wait(c->m, c->key, c->ack, 0, a);
}

/* Every operation answers within its own time limit, so this wait is bounded. Returns a gRPC code. */
static int call_wait(struct call *c, struct err *e)
{
	int code = RPC_OK;

	uv_sem_init(&c->answered, 0);
	if (mailbox_post(c->m->box, on_loop, c) < 0) {
		uv_sem_destroy(&c->answered);
		err_set(e, -ENOBUFS, "too many calls wait");
		return RPC_RESOURCE_EXHAUSTED;
	}
	uv_sem_wait(&c->answered);
	uv_sem_destroy(&c->answered);
	if (c->status >= 300) {
		err_set(e, -EIO, "%s", c->text ? c->text : "failed");
		code = c->status == 400	  ? RPC_INVALID_ARGUMENT
		       : c->status == 503 ? RPC_UNAVAILABLE
					  : RPC_INTERNAL;
	}
	free(take_ptr(c->text));
	return code;
}

static int pack(const ProtobufCMessage *msg, struct buf *reply)
{
	_cleanup_free_ uint8_t *data = xcalloc(1, protobuf_c_message_get_packed_size(msg));

	return buf_add(reply, data, protobuf_c_message_pack(msg, data)) < 0 ? RPC_INTERNAL : RPC_OK;
}

static int unreadable(struct err *e)
{
	err_set(e, -EINVAL, "the message cannot be read");
	return RPC_INVALID_ARGUMENT;
}

/* ---- unary ---- */
static int create_order(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Kuayu__Mes__V1__CreateOrderRequest *q =
		kuayu__mes__v1__create_order_request__unpack(NULL, len, request);
	Kuayu__Mes__V1__Order out = KUAYU__MES__V1__ORDER__INIT;
	struct call c = {.m = ctx, .what = CALL_ORDER};
	json_t *machines = json_array();
	int code;

	if (!q) {
		json_decref(machines);
		return unreadable(e);
	}
	for (size_t i = 0; i < q->n_machines; i++)
		json_array_append_new(machines, json_string(q->machines[i]));
	c.key = q->key;
	c.body = json_pack("{s:s,s:I,s:s,s:o}", "product", q->product, "quantity", (json_int_t)q->quantity,
			   "source", *q->source ? q->source : "unknown", "machines", machines);
	code = call_wait(&c, e);
	if (code == RPC_OK) {
		out.id = (uint64_t)js_int(c.reply, "id", 0);
		out.key = q->key;
		out.existed = c.status == 200;
		code = pack(&out.base, reply);
	}
	json_decref(c.reply);
	json_decref(c.body);
	kuayu__mes__v1__create_order_request__free_unpacked(q, NULL);
	return code;
}

static int report(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Kuayu__Mes__V1__ReportRequest *q = kuayu__mes__v1__report_request__unpack(NULL, len, request);
	Kuayu__Mes__V1__ReportReply out = KUAYU__MES__V1__REPORT_REPLY__INIT;
	struct call c = {.m = ctx, .what = CALL_REPORT};
	int code;

	if (!q)
		return unreadable(e);
	c.body = json_array();
	for (size_t i = 0; i < q->n_reports; i++) {
		Kuayu__Mes__V1__MachineReport *r = q->reports[i];

		json_array_append_new(c.body, json_pack("{s:s,s:s,s:I,s:s,s:I,s:I}", "machine", r->machine,
							"site", r->site, "seq", (json_int_t)r->seq, "state",
							r->state, "produced", (json_int_t)r->produced,
							"at_ms", (json_int_t)r->at_ms));
	}
	code = call_wait(&c, e);
	if (code == RPC_OK) {
		out.stored = (uint32_t)js_int(c.reply, "stored", 0);
		code = pack(&out.base, reply);
	}
	json_decref(c.reply);
	json_decref(c.body);
	kuayu__mes__v1__report_request__free_unpacked(q, NULL);
	return code;
}

static int ack_work_orders(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Kuayu__Mes__V1__AckRequest *q = kuayu__mes__v1__ack_request__unpack(NULL, len, request);
	Kuayu__Mes__V1__AckReply out = KUAYU__MES__V1__ACK_REPLY__INIT;
	struct call c = {.m = ctx, .what = CALL_ACK};
	_cleanup_buf_ struct buf ids = {.limit = 2000};
	int code;

	if (!q)
		return unreadable(e);
	for (size_t i = 0; i < q->n_ids; i++)
		if (buf_addf(&ids, "%s%llu", i ? "," : "", (unsigned long long)q->ids[i]) < 0)
			break; /* the rest is sent again, and acknowledged then */
	c.key = q->machine;
	c.ack = ids.data ? ids.data : "";
	code = call_wait(&c, e);
	if (code == RPC_OK)
		code = pack(&out.base, reply);
	json_decref(c.reply);
	kuayu__mes__v1__ack_request__free_unpacked(q, NULL);
	return code;
}

/* ---- stream: shared by a gRPC thread (closed) and the loop thread (all else) ---- */
struct stream {
	struct mes *m;
	struct rpc_out *out;
	char machine[MES_NAME_MAX + 1];
	uv_mutex_t lock;
	bool closed, again;
	uint64_t opened_ms;
};

static void on_closed(void *ctx)
{
	struct stream *s = ctx;

	uv_mutex_lock(&s->lock);
	s->closed = true;
	uv_mutex_unlock(&s->lock);
}

static void stream_end(struct stream *s, int code, const char *text)
{
	rpc_out_finish(s->out, code, text);
	uv_mutex_destroy(&s->lock);
	free(s);
}

static int stream_write(struct stream *s, const json_t *w)
{
	Kuayu__Mes__V1__WorkOrder out = KUAYU__MES__V1__WORK_ORDER__INIT;
	_cleanup_buf_ struct buf b = {0};

	out.id = (uint64_t)js_int(w, "id", 0);
	out.order_id = (uint64_t)js_int(w, "orderId", 0);
	out.key = (char *)js_str_or(w, "key", "");
	out.product = (char *)js_str_or(w, "product", "");
	out.quantity = (uint32_t)js_int(w, "quantity", 0);
	pack(&out.base, &b);
	return rpc_out_write(s->out, b.data ? b.data : "", b.len);
}

static void stream_wait(void *arg);

static void on_work_orders(void *ctx, int status, json_t *j, const char *text)
{
	struct stream *s = ctx;
	bool closed;
	json_t *w;
	size_t i;

	uv_mutex_lock(&s->lock);
	closed = s->closed;
	uv_mutex_unlock(&s->lock);
	json_array_foreach (json_object_get(j, "workOrders"), i, w)
		closed = closed || stream_write(s, w) < 0;
	if (status != 200)
		stream_end(s, status == 400 ? RPC_INVALID_ARGUMENT : RPC_UNAVAILABLE, text);
	else if (closed)
		stream_end(s, RPC_CANCELLED, "the client has gone");
	else if (!json_array_size(json_object_get(j, "workOrders")) &&
		 clock_ms() - s->opened_ms < STREAM_WAIT_S * 1000)
		stream_end(s, RPC_ABORTED, "a newer stream of this machine has been opened");
	else if (mailbox_post(s->m->box, stream_wait, s) < 0)
		stream_end(s, RPC_RESOURCE_EXHAUSTED, "the server is overloaded");
}

static void stream_wait(void *arg)
{
	struct stream *s = arg;

	const char *ack = s->again ? "" : NULL;

	s->again = true;
	s->opened_ms = clock_ms();
	dispatch_wait(s->m, s->machine, ack, STREAM_WAIT_S, (struct mes_answer){on_work_orders, s});
}

static void work_orders(void *ctx, struct rpc_out *out, const void *request, size_t len)
{
	Kuayu__Mes__V1__WorkOrdersRequest *q =
		kuayu__mes__v1__work_orders_request__unpack(NULL, len, request);
	struct stream *s;

	if (!q || !mes_name_ok(q->machine)) {
		rpc_out_finish(out, RPC_INVALID_ARGUMENT, "machine: a name is needed");
	} else {
		s = xcalloc(1, sizeof(*s));
		s->m = ctx;
		s->out = out;
		strcpy(s->machine, q->machine);
		uv_mutex_init(&s->lock);
		rpc_out_on_closed(out, on_closed, s);
		if (mailbox_post(s->m->box, stream_wait, s) < 0)
			stream_end(s, RPC_RESOURCE_EXHAUSTED, "the server is overloaded");
	}
	if (q)
		kuayu__mes__v1__work_orders_request__free_unpacked(q, NULL);
}

int rpc_serve(struct mes *m, const char *address, struct err *e)
{
	struct rpc_method methods[] = {
		{.path = "/kuayu.mes.v1.Mes/CreateOrder", .unary = create_order, .ctx = m},
		{.path = "/kuayu.mes.v1.Mes/Report", .unary = report, .ctx = m},
		{.path = "/kuayu.mes.v1.Mes/AckWorkOrders", .unary = ack_work_orders, .ctx = m},
		{.path = "/kuayu.mes.v1.Mes/WorkOrders", .stream = work_orders, .ctx = m},
	};
	struct rpc_server *s;

	return rpc_server_new(&(struct rpc_server_options){.address = address,
							   .threads = RPC_THREADS,
							   .methods = methods,
							   .n_methods = ARRAY_SIZE(methods)},
			      &s, e);
}
