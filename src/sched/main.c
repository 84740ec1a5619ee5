/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu scheduler: gives pods their nodes. One process a master; the one that holds the Lease kube-system/kuayu-scheduler decides,
 * the others keep the same picture and wait. All decisions are core/sched's. */
#include "sched/internal.h"
#include "sched/sched.h"

static const struct setting table[] = {
	KUBE_SETTINGS(struct settings, kube),
	{"identity", SETTING_STRING, offsetof(struct settings, identity), NULL, 0, 0, "NAME",
	 "name in the election, unique; default: host name"},
	{"scheduler-name", SETTING_STRING, offsetof(struct settings, name), "default-scheduler", 0, 0, "NAME",
	 "pods with this schedulerName are ours"},
	{"reserve", SETTING_BOOL, offsetof(struct settings, reserve), "false", 0, 0, NULL,
	 "keep room: any one node or zone fails and all critical pods still fit"},
	{"leader-elect", SETTING_BOOL, offsetof(struct settings, elect), "true", 0, 0, NULL,
	 "decide only while holding the Lease"},
	{"health-port", SETTING_INT, offsetof(struct settings, port), "10259", 0, 65535, "PORT",
	 "/healthz and /metrics on 127.0.0.1; 0 = any free one"},
};

static void on_http(void *ctx, struct http_req *req)
{
	struct scheduler *s = ctx;
	_cleanup_buf_ struct buf out = {0};

	if (streq(http_req_path(req), "/healthz") || streq(http_req_path(req), "/livez")) {
		http_reply_text(req, 200, "ok");
	} else if (streq(http_req_path(req), "/readyz")) {
		bool ready = sched_synced(s);

		http_reply_text(req, ready ? 200 : 503,
				ready ? "ok" : "the picture of the cluster is not complete yet");
	} else if (streq(http_req_path(req), "/metrics")) {
		sched_metrics(&s->metrics, s->leading, strmap_len(s->queue), sched_nodes(s->state),
			      sched_pods(s->state), &out);
		http_reply(req, 200, "text/plain; version=0.0.4", out.data, out.len, NULL);
	} else {
		http_reply_text(req, 404, "there are /healthz, /readyz and /metrics");
	}
}

static void on_started(void *ctx)
{
	struct scheduler *s = ctx;

	s->leading = true;
	sched_queue_wake(s);
}

static void on_stopped(void *ctx)
{
	struct scheduler *s = ctx;

	s->leading = false;
	sched_forget(s);
}

static void on_flush(void *ctx)
{
	sched_queue_wake(ctx);
}

static void on_stop(void *ctx)
{
	struct scheduler *s = ctx;

	s->leading = false;
	s->leader = kube_leader_free(s->leader);
	/* A moment for the call that gives the Lease up. */
	timer_start(s->flush, 200, 0);
	uv_stop(s->loop);
}

static int start(struct scheduler *s, struct err *e)
{
	struct http_server_options http = {
		.address = "127.0.0.1", .port = (int)s->s.port, .handle = on_http, .ctx = s};
	struct kube_leader_options leader = {.ns = "kube-system",
					     .name = "kuayu-scheduler",
					     .identity = s->s.identity,
					     .started = on_started,
					     .stopped = on_stopped,
					     .ctx = s};
	int r = kube_new(s->loop, &s->s.kube, "kuayu-scheduler", &s->kube, e);

	if (r < 0)
		return r;
	s->http = http_server_new(s->loop, &http, e);
	if (!s->http)
		return e->code ? e->code : -EIO;
	s->pod_kind = model_kind_by_plural("", "v1", "pods");
	s->state = sched_state_new();
	s->queue = strmap_new();
	s->run = timer_new(s->loop, sched_run, s);
	s->flush = timer_new(s->loop, on_flush, s);
	timer_start(s->flush, FLUSH_MS, FLUSH_MS);
	sched_watch(s);
	if (s->s.elect)
		s->leader = kube_leader_new(s->kube, &leader);
	else
		s->leading = true;
	return 0;
}

/* The loop runs a little longer, bounded, so that the Lease is given up and closed handles are let go. */
static void drain_loop(uv_loop_t *loop)
{
	uint64_t until = clock_ms() + 300;

	while (clock_ms() < until && uv_run(loop, UV_RUN_ONCE))
		;
}

static void done(struct scheduler *s)
{
	drain_loop(s->loop);
	sched_unwatch(s);
	timer_free(s->run);
	timer_free(s->flush);
	s->http = http_server_free(s->http);
	s->kube = kube_free(s->kube);
	strmap_free(s->queue, sched_pending_free);
	sched_state_free(s->state);
}

int cmd_scheduler(int argc, char **argv)
{
	struct scheduler s = {.loop = uv_default_loop()};
	char host[256] = "scheduler";
	struct err e = {0};
	int r;

	r = settings_parse("scheduler", "Gives pods their nodes.", table, ARRAY_SIZE(table), argc, argv, &s.s,
			   NULL, &e);
	if (r != 0) {
		if (r < 0)
			fprintf(stderr, "kuayu scheduler: %s\n", e.text);
		return r < 0 ? 2 : 0;
	}
	log_init("scheduler", LOG_LEVEL_INFO);
	if (!s.s.identity) {
		gethostname(host, sizeof(host) - 1);
		s.s.identity = xstrdup(host);
	}
	stop_signals(s.loop, on_stop, &s);
	r = start(&s, &e);
	if (r < 0) {
		log_error("%s", e.text);
		return 1;
	}
	log_info("ready as %s, health on 127.0.0.1:%d", s.s.identity, http_server_port(s.http));
	uv_run(s.loop, UV_RUN_DEFAULT);
	done(&s);
	settings_done(table, ARRAY_SIZE(table), &s.s);
	return 0;
}
