/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway's numbers, with the proxy's, for Prometheus. */
#include "gateway/internal.h"

static void own(const struct gateway *g, struct buf *out)
{
	buf_addf(out, "# TYPE kuayu_gateway_proxy_up gauge\nkuayu_gateway_proxy_up %d\n",
		 proxy_running(g->proxy));
	buf_addf(out,
		 "# TYPE kuayu_gateway_proxy_starts_total counter\nkuayu_gateway_proxy_starts_total %llu\n",
		 (unsigned long long)proxy_starts(g->proxy));
	buf_addf(out, "# TYPE kuayu_gateway_leader gauge\nkuayu_gateway_leader %d\n",
		 gateways_leading(g->peers));
	buf_addf(out, "# TYPE kuayu_gateway_ports gauge\nkuayu_gateway_ports %zu\n", g->exposures.n);
	buf_addf(out, "# TYPE kuayu_gateway_denied_services gauge\nkuayu_gateway_denied_services %zu\n",
		 json_object_size(g->denied));
	buf_addf(out, "# TYPE kuayu_gateway_failovers_total counter\nkuayu_gateway_failovers_total %llu\n",
		 (unsigned long long)g->failovers);
	buf_addf(out, "# TYPE kuayu_gateway_commands_total counter\nkuayu_gateway_commands_total %llu\n",
		 (unsigned long long)g->commands);
	buf_addf(out,
		 "# TYPE kuayu_gateway_command_errors_total counter\nkuayu_gateway_command_errors_total "
		 "%llu\n",
		 (unsigned long long)g->command_errors);
}

struct column {
	const char *name, *type;
	size_t offset;
};

static const struct column columns[] = {
	{"sessions", "gauge", offsetof(struct server_stat, o.sessions)},
	{"sessions_total", "counter", offsetof(struct server_stat, total)},
	{"bytes_in_total", "counter", offsetof(struct server_stat, bytes_in)},
	{"bytes_out_total", "counter", offsetof(struct server_stat, bytes_out)},
	{"errors_total", "counter", offsetof(struct server_stat, errors)},
	{"retries_total", "counter", offsetof(struct server_stat, retries)},
	{"redispatches_total", "counter", offsetof(struct server_stat, redispatches)},
	{"answers_5xx_total", "counter", offsetof(struct server_stat, answers_5xx)},
};

void gateway_metrics(const struct gateway *g, struct buf *out)
{
	size_t n = 0;
	const struct route_distance *d = gateways_distances(g->peers, &n);

	own(g, out);
	buf_adds(out, "# TYPE kuayu_gateway_zone_distance_seconds gauge\n");
	for (size_t i = 0; i < n; i++)
		buf_addf(out, "kuayu_gateway_zone_distance_seconds{zone=\"%s\"} %.6f\n", d[i].zone,
			 d[i].ms / 1000);
	buf_adds(out, "# TYPE kuayu_gateway_server_up gauge\n");
	for (size_t i = 0; i < g->state.n; i++)
		buf_addf(out, "kuayu_gateway_server_up{backend=\"%s\",server=\"%s\"} %d\n",
			 g->state.v[i].backend, g->state.v[i].o.name, g->state.v[i].o.health == ROUTE_UP);
	for (size_t k = 0; k < ARRAY_SIZE(columns); k++) {
		buf_addf(out, "# TYPE kuayu_gateway_server_%s %s\n", columns[k].name, columns[k].type);
		for (size_t i = 0; i < g->state.n; i++)
			buf_addf(out, "kuayu_gateway_server_%s{backend=\"%s\",server=\"%s\"} %lld\n",
				 columns[k].name, g->state.v[i].backend, g->state.v[i].o.name,
				 (long long)*(const int64_t *)((const char *)&g->state.v[i] +
							       columns[k].offset));
	}
}
