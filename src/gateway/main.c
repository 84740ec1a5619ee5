/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu gateway: the door of a domain. Runs one HAProxy and keeps it true to the Services of type LoadBalancer and their
 * endpoints: own zone first, the nearest other one at once when the own is dead. The proxy does the failover by itself; the
 * gateway only tells it what there is, so traffic goes on while the gateway, or the API, is away. */
#include "gateway/gateway.h"
#include "gateway/internal.h"

static const struct setting table[] = {
	KUBE_SETTINGS(struct settings, kube),
	{"node", SETTING_STRING, offsetof(struct settings, node), NULL, 0, 0, "NAME", "name of this node"},
	{"zone", SETTING_STRING, offsetof(struct settings, zone), "", 0, 0, "ZONE",
	 "zone (domain) of this node"},
	{"address", SETTING_STRING, offsetof(struct settings, address), NULL, 0, 0, "IP",
	 "where clients enter; told to them in status.loadBalancer"},
	{"data", SETTING_STRING, offsetof(struct settings, data), "/var/lib/kuayu/gateway", 0, 0, "DIR",
	 "the proxy's configuration and socket"},
	{"distances", SETTING_STRINGS, offsetof(struct settings, distances), NULL, 0, 0, "ZONE:MS,...",
	 "how far the other zones are; default: measured"},
	{"haproxy", SETTING_STRING, offsetof(struct settings, proxy), "/usr/sbin/haproxy", 0, 0, "FILE",
	 "the HAProxy program, 2.6 or later"},
	{"threads", SETTING_INT, offsetof(struct settings, threads), "2", 1, 64, "N", "threads of the proxy"},
	{"keep-proxy", SETTING_BOOL, offsetof(struct settings, keep_proxy), "false", 0, 0, NULL,
	 "leave the proxy running on SIGTERM; the next gateway takes it up"},
	{"health-port", SETTING_INT, offsetof(struct settings, port), "10260", 0, 65535, "PORT",
	 "/healthz and /metrics on 127.0.0.1; 0 = any free one"},
};

static void on_http(void *ctx, struct http_req *req)
{
	struct gateway *g = ctx;
	_cleanup_buf_ struct buf out = {0};

	if (streq(http_req_path(req), "/healthz") || streq(http_req_path(req), "/readyz")) {
		bool ok = g->known && proxy_running(g->proxy);

		http_reply_text(req, ok ? 200 : 503,
				ok	    ? "ok"
				: !g->known ? "Services are not known yet"
					    : "the proxy does not run");
	} else if (streq(http_req_path(req), "/livez")) {
		http_reply_text(req, 200, "ok");
	} else if (streq(http_req_path(req), "/metrics")) {
		gateway_metrics(g, &out);
		http_reply(req, 200, "text/plain; version=0.0.4", out.data, out.len, NULL);
	} else {
		http_reply_text(req, 404, "there are /healthz, /livez and /metrics");
	}
}

static void on_service(void *ctx, json_t *old, json_t *obj)
{
	struct gateway *g = ctx;

	gateways_services_changed(g->peers);
	gateway_kick(g);
}

static void on_slice(void *ctx, json_t *old, json_t *obj)
{
	gateway_kick(ctx);
}

static void on_synced(void *ctx)
{
	gateway_kick(ctx);
}

static struct kube_cache *watch(struct gateway *g, const char *group, const char *plural,
				void (*changed)(void *ctx, json_t *old, json_t *obj))
{
	const struct model_kind *kind = model_kind_by_plural(group, "v1", plural);
	struct kube_cache_handler h = {changed, on_synced, g};

	ensure(kind);
	return kube_cache_new(g->kube, kind, NULL, NULL, &h);
}

static int check(const struct settings *s, struct err *e)
{
	if (!s->node || !s->address)
		return err_set(e, -EINVAL, "--node and --address are needed");
	if (strspn(s->address, "0123456789abcdefABCDEF.:") != strlen(s->address))
		return err_set(e, -EINVAL, "--address: '%s' is not an IP address", s->address);
	if (strlen(s->zone) >= ROUTE_ZONE_MAX || strlen(s->data) > 80 || strpbrk(s->data, " \t\"'\\#"))
		return err_set(
			e, -EINVAL,
			"--zone is too long, or --data is longer than 80 characters or has blanks or quotes");
	return 0;
}

static int start(struct gateway *g, struct err *e)
{
	struct http_server_options http = {
		.address = "127.0.0.1", .port = (int)g->s.port, .handle = on_http, .ctx = g};
	int r = dir_make(g->s.data, 0700, e);

	if (r == 0)
		r = kube_new(g->loop, &g->s.kube, "kuayu-gateway", &g->kube, e);
	if (r < 0)
		return r;
	snprintf(g->socket, sizeof(g->socket), "%s/haproxy.sock", g->s.data);
	snprintf(g->config_file, sizeof(g->config_file), "%s/haproxy.cfg", g->s.data);
	snprintf(g->state_file, sizeof(g->state_file), "%s/servers.state", g->s.data);
	g->serving = strmap_new();
	g->draining = strmap_new();
	g->denied = json_object();
	g->proxy = proxy_new(g->loop, g->s.proxy, g->s.data);
	g->tick = timer_new(g->loop, gateway_tick, g);
	g->services = watch(g, "", "services", on_service);
	g->slices = watch(g, "discovery.k8s.io", "endpointslices", on_slice);
	g->peers = gateways_new(g);
	timer_start(g->tick, 0, POLL_MS);
	g->http = http_server_new(g->loop, &http, e);
	return g->http ? 0 : e->code ? e->code : -EIO;
}

static void on_stop(void *ctx)
{
	struct gateway *g = ctx;

	g->stopping = true;
	uv_stop(g->loop);
}

/* Closed handles and last calls get a moment, bounded. */
static void drain_loop(uv_loop_t *loop, uint64_t ms)
{
	uint64_t until = clock_ms() + ms;

	while (clock_ms() < until && uv_run(loop, UV_RUN_NOWAIT))
		uv_sleep(5);
}

static void done(struct gateway *g)
{
	timer_free(g->tick);
	g->peers = gateways_free(g->peers);
	drain_loop(g->loop, 200);
	proxy_free(g->proxy, g->s.keep_proxy);
	kube_cache_free(g->services);
	kube_cache_free(g->slices);
	http_server_free(g->http);
	kube_free(g->kube);
	exposures_done(&g->exposures);
	proxy_state_done(&g->state);
	strmap_free(g->serving, free);
	strmap_free(g->draining, free);
	json_decref(g->denied);
}

int cmd_gateway(int argc, char **argv)
{
	struct gateway g = {.loop = uv_default_loop()};
	struct err e = {0};
	int r;

	r = settings_parse(
		"gateway",
		"Lets clients in: one HAProxy, own zone first, the nearest other one when it is dead.", table,
		ARRAY_SIZE(table), argc, argv, &g.s, NULL, &e);
	if (r == 1)
		return 0;
	if (r == 0)
		r = check(&g.s, &e);
	if (r < 0) {
		fprintf(stderr, "kuayu gateway: %s\n", e.text);
		return 2;
	}
	log_init("gateway", LOG_LEVEL_INFO);
	stop_signals(g.loop, on_stop, &g);
	r = start(&g, &e);
	if (r < 0) {
		log_error("%s", e.text);
		return 1;
	}
	log_info("node %s, zone %s, clients enter at %s, health on 127.0.0.1:%d", g.s.node, g.s.zone,
		 g.s.address, http_server_port(g.http));
	uv_run(g.loop, UV_RUN_DEFAULT);
	done(&g);
	settings_done(table, ARRAY_SIZE(table), &g.s);
	return 0;
}
