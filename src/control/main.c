/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu controller: the controllers of Deployments, ReplicaSets, StatefulSets, EndpointSlices, nodes, pod address ranges
 * and garbage, one process a domain; one of them leads (Lease kube-system/kuayu-controller), the others stand by with
 * warm caches. State is only in the API. */
#include "control/control.h"
#include "control/manager.h"
#include "net/http_server.h"

struct controller_settings {
	struct kube_settings kube;
	char *identity, *pod_cidr, *listen;
	char **csi_endpoints;
	int64_t port;
};

#define S(member) offsetof(struct controller_settings, member)
static const struct setting settings[] = {
	KUBE_SETTINGS(struct controller_settings, kube),
	{"identity", SETTING_STRING, S(identity), NULL, 0, 0, "NAME",
	 "name of this one in the leader election (default: host name)"},
	{"pod-cidr", SETTING_STRING, S(pod_cidr), "10.78.0.0/16", 0, 0, "CIDR",
	 "range that nodes get a /24 each from"},
	{"csi-endpoint", SETTING_STRINGS, S(csi_endpoints), NULL, 0, 0, "unix://PATH,...",
	 "CSI drivers that make volumes for claims; each says itself which provisioner it is"},
	{"listen", SETTING_STRING, S(listen), "127.0.0.1", 0, 0, "ADDRESS",
	 "address of /healthz and /metrics"},
	{"port", SETTING_INT, S(port), "10257", 0, 65535, "PORT", "port of /healthz and /metrics; 0 = none"},
};

struct role {
	uv_loop_t loop;
	struct manager *m;
	struct http_server *http;
	struct kube *kube;
	struct timer *end;
};

/* The lease is given up in the last moments. */
static void on_end(void *ctx)
{
	struct role *r = ctx;

	r->end = timer_free(r->end);
	r->kube = kube_free(r->kube);
}

static void on_stop(void *ctx)
{
	struct role *r = ctx;

	r->m = manager_free(r->m);
	if (r->http)
		r->http = http_server_free(r->http);
	r->end = timer_new(&r->loop, on_end, r);
	timer_start(r->end, 300, 0);
}

static int run(void *ctx, struct err *e)
{
	const struct controller_settings *s = ctx;
	struct role r = {0};
	char host[256] = "controller";
	int status;

	if (!podcidr_range_ok(s->pod_cidr))
		return err_set(e, -EINVAL, "--pod-cidr=%s: must be an IPv4 range from /8 to /24",
			       s->pod_cidr);
	gethostname(host, sizeof(host) - 1);
	uv_loop_init(&r.loop);
	status = kube_new(&r.loop, &s->kube, "kuayu-controller", &r.kube, e);
	if (status < 0)
		return status;
	r.m = manager_new(&r.loop, r.kube, s->identity ? s->identity : host, s->pod_cidr);
	status = manager_csi(r.m, s->csi_endpoints, e);
	if (status < 0)
		return status;
	if (s->port) {
		r.http = metrics_serve(r.m, s->listen, (int)s->port, e);
		if (!r.http)
			return err_wrap(e, "metrics on %s:%lld", s->listen, (long long)s->port);
	}
	stop_signals(&r.loop, on_stop, &r);
	log_info("started as %s", s->identity ? s->identity : host);
	uv_run(&r.loop, UV_RUN_DEFAULT);
	uv_loop_close(&r.loop);
	return 0;
}

int cmd_controller(int argc, char **argv)
{
	struct controller_settings s = {0};

	return settings_main("controller", "runs the controllers of the cluster; one of several leads",
			     settings, ARRAY_SIZE(settings), argc, argv, &s, run);
}
