/* SPDX-License-Identifier: Apache-2.0 */
/* /healthz and /metrics (Prometheus text) over plain HTTP on the loopback address. Healthy: the process runs and hears an
 * API server; a standby is healthy too. */
#include "control/manager.h"
#include "net/http_server.h"

#define SILENT_MAX_MS 10000

static void metrics(struct manager *m, struct http_req *r)
{
	struct buf b = {0};

	buf_addf(&b, "# TYPE kuayu_controller_leader gauge\nkuayu_controller_leader %d\n", m->leading);
	buf_addf(&b, "# TYPE kuayu_controller_terms_total counter\nkuayu_controller_terms_total %llu\n",
		 (unsigned long long)m->terms);
	buf_adds(&b, "# TYPE kuayu_controller_reconciles_total counter\n");
	for (int c = 0; c < CONTROLLERS; c++)
		buf_addf(&b, "kuayu_controller_reconciles_total{controller=\"%s\"} %llu\n",
			 controller_name((enum controller)c), (unsigned long long)m->reconciles[c]);
	buf_addf(&b,
		 "# TYPE kuayu_controller_writes_total counter\nkuayu_controller_writes_total %llu\n"
		 "# TYPE kuayu_controller_conflicts_total counter\nkuayu_controller_conflicts_total %llu\n"
		 "# TYPE kuayu_controller_failures_total counter\nkuayu_controller_failures_total %llu\n"
		 "# TYPE kuayu_controller_reconcile_longest_us gauge\nkuayu_controller_reconcile_longest_us "
		 "%llu\n"
		 "# TYPE kuayu_controller_waiting gauge\nkuayu_controller_waiting %zu\n",
		 (unsigned long long)m->writes, (unsigned long long)m->conflicts,
		 (unsigned long long)m->failures, (unsigned long long)m->longest_us, manager_waiting(m));
	nodes_metrics(m->nodes, &b);
	http_reply(r, 200, "text/plain; version=0.0.4", b.data, b.len, NULL);
	buf_done(&b);
}

static void handle(void *ctx, struct http_req *r)
{
	struct manager *m = ctx;
	const char *path = http_req_path(r);

	if (!streq(http_req_method(r), "GET"))
		http_reply_text(r, 405, "GET only\n");
	else if (streq(path, "/healthz") || streq(path, "/livez") || streq(path, "/readyz"))
		http_reply_text(r, kube_silent_ms(m->kube) < SILENT_MAX_MS ? 200 : 503,
				kube_silent_ms(m->kube) < SILENT_MAX_MS ? "ok" : "no API server is heard");
	else if (streq(path, "/metrics"))
		metrics(m, r);
	else
		http_reply_text(r, 404, "there are /healthz and /metrics\n");
}

struct http_server *metrics_serve(struct manager *m, const char *address, int port, struct err *e)
{
	struct http_server_options o = {
		.address = address, .port = port, .connections_max = 50, .handle = handle, .ctx = m};

	return http_server_new(m->loop, &o, e);
}
