/* SPDX-License-Identifier: Apache-2.0 */
/* Speaks gRPC to a MES server as a machine and an office would: rpc_client HOST:PORT. Exit status 0 and "ok" when every
 * answer was right; otherwise it says which was not. Used by test_mes.py. */
#include "base/base.h"
#include "mes.pb-c.h"
#include "net/grpc.h"

#define MUST(cond, ...)                               \
	do {                                          \
		if (!(cond)) {                        \
			printf("wrong: %s ", #cond);  \
			printf("%s", "" __VA_ARGS__); \
			puts("");                     \
			exit(1);                      \
		}                                     \
	} while (0)

static struct rpc_channel *ch;

static int call(const char *method, const ProtobufCMessage *msg, struct rpc_reply *reply)
{
	_cleanup_free_ char *path = xasprintf("/kuayu.mes.v1.Mes/%s", method);
	_cleanup_free_ uint8_t *data = xcalloc(1, protobuf_c_message_get_packed_size(msg));

	rpc_call(ch, path, NULL, 0, data, protobuf_c_message_pack(msg, data), 8000, reply, NULL);
	return reply->code;
}

static uint64_t create(const char *key, uint32_t quantity, bool existed, int want)
{
	char *machines[] = {"grpc-1"};
	Kuayu__Mes__V1__CreateOrderRequest q = KUAYU__MES__V1__CREATE_ORDER_REQUEST__INIT;
	Kuayu__Mes__V1__Order *o;
	struct rpc_reply r;
	uint64_t id;

	q.key = (char *)key;
	q.product = "coat";
	q.quantity = quantity;
	q.source = "rpc";
	q.machines = machines;
	q.n_machines = 1;
	MUST(call("CreateOrder", &q.base, &r) == want);
	if (want != RPC_OK)
		return 0;
	o = kuayu__mes__v1__order__unpack(NULL, r.len, (uint8_t *)r.data);
	MUST(o && o->id && o->existed == existed && streq(o->key, key));
	id = o->id;
	kuayu__mes__v1__order__free_unpacked(o, NULL);
	rpc_reply_done(&r);
	return id;
}

static void report(void)
{
	Kuayu__Mes__V1__MachineReport m = KUAYU__MES__V1__MACHINE_REPORT__INIT, *list[] = {&m};
	Kuayu__Mes__V1__ReportRequest q = KUAYU__MES__V1__REPORT_REQUEST__INIT;
	struct rpc_reply r;

	m.machine = "grpc-1";
	m.site = "g";
	m.seq = 7;
	m.state = "sewing";
	m.at_ms = clock_wall_ms();
	q.reports = list;
	q.n_reports = 1;
	for (int i = 0; i < 2; i++) { /* the second is a repetition */
		MUST(call("Report", &q.base, &r) == RPC_OK);
		rpc_reply_done(&r);
	}
	m.state = "";
	MUST(call("Report", &q.base, &r) == RPC_INVALID_ARGUMENT);
}

static void work_orders(const char *key)
{
	Kuayu__Mes__V1__WorkOrdersRequest q = KUAYU__MES__V1__WORK_ORDERS_REQUEST__INIT;
	Kuayu__Mes__V1__AckRequest a = KUAYU__MES__V1__ACK_REQUEST__INIT;
	Kuayu__Mes__V1__WorkOrder *w;
	struct rpc_stream *s;
	struct rpc_reply r;
	uint8_t data[64];
	size_t len;

	q.machine = "grpc-1";
	len = kuayu__mes__v1__work_orders_request__pack(&q, data);
	MUST(rpc_stream_new(ch, "/kuayu.mes.v1.Mes/WorkOrders", NULL, 0, &s, NULL) == 0);
	MUST(rpc_stream_send(s, data, len, 3000) == 0 && rpc_stream_send_end(s, 3000) == 0);
	MUST(rpc_stream_recv(s, 8000, &r, NULL) == 0);
	w = kuayu__mes__v1__work_order__unpack(NULL, r.len, (uint8_t *)r.data);
	MUST(w && streq(w->key, key) && streq(w->product, "coat") && w->quantity == 3);
	a.machine = "grpc-1";
	a.ids = &w->id;
	a.n_ids = 1;
	rpc_reply_done(&r);
	MUST(call("AckWorkOrders", &a.base, &r) == RPC_OK);
	rpc_reply_done(&r);
	kuayu__mes__v1__work_order__free_unpacked(w, NULL);
	MUST(rpc_stream_recv(s, 2500, &r, NULL) == -ETIMEDOUT, "(an acknowledged work order came again)");
	rpc_stream_free(s);
}

int main(int argc, char **argv)
{
	uint64_t first;
	char key[64];

	MUST(argc == 2);
	snprintf(key, sizeof(key), "rpc-%lld", (long long)clock_wall_us());
	MUST(rpc_channel_new(&(struct rpc_channel_options){.target = argv[1], .keep_connected = true}, &ch,
			     NULL) == 0);
	MUST(rpc_health_check(argv[1], NULL, "", 3000, NULL) == 0);
	first = create(key, 3, false, RPC_OK);
	MUST(create(key, 3, true, RPC_OK) == first);
	create("bad", 0, false, RPC_INVALID_ARGUMENT);
	report();
	work_orders(key);
	rpc_channel_free(ch);
	puts("ok");
	return 0;
}
