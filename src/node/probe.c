/* SPDX-License-Identifier: Apache-2.0 */
/* Probes: exec (crun exec), HTTP, TCP, gRPC, by the rules of the Kubernetes API (Probe v1): initialDelaySeconds, periodSeconds, timeoutSeconds,
 * successThreshold, failureThreshold. Liveness and readiness wait for the startup probe. One check at a time per probe; a check belongs
 * to one attempt of a container: stopping the probe cancels it. Connections come from the node's address through the pod's bridge. */
#include "node/agent.h"

#include <arpa/inet.h>

#include "node/grpc_probe.h"

#define ANSWER_MAX 10240

struct probe {
	struct container *c;
	enum probe_kind kind;
	const json_t *spec; /* borrowed from a copy held in `hold` */
	json_t *hold;
	struct timer *timer;
	int64_t period_ms, timeout_ms, success_min, failure_min;
	int64_t good, bad; /* in a row */
	struct check *check;
};

/* One check under way; outlives its probe when that is stopped (p = NULL then). */
struct check {
	struct probe *p;
	struct http_call *call;
	struct grpc_probe *grpc;
	uv_tcp_t tcp;
	uv_connect_t connect;
	uv_timer_t limit;
	int handles;
	bool is_tcp, over;
};

static const char *const names[] = {"Startup", "Liveness", "Readiness"};
static const char *const fields[] = {"startupProbe", "livenessProbe", "readinessProbe"};

static void fail_container(struct container *c, enum probe_kind kind)
{
	int64_t grace = js_int(js_get(container_spec(c), fields[kind]), "terminationGracePeriodSeconds",
			       js_int(c->pod->obj, "spec.terminationGracePeriodSeconds", 30));

	kube_event(c->pod->a->kube, c->pod->obj, "Normal", "Killing",
		   "Container %s failed %s probe, will be restarted", c->name,
		   kind == PROBE_STARTUP ? "startup" : "liveness");
	container_stop(c, grace * 1000);
}

static void passed(struct probe *p)
{
	struct container *c = p->c;

	switch (p->kind) {
	case PROBE_STARTUP:
		c->started = true;
		container_save(c);
		timer_stop(p->timer);
		if (!c->readiness)
			c->ready = true;
		break;
	case PROBE_READINESS:
		c->ready = !c->stopping;
		break;
	case PROBE_LIVENESS:
		return;
	}
	pod_sync(c->pod);
}

static void result(struct probe *p, bool ok, const char *text)
{
	struct container *c = p->c;

	if (ok) {
		p->bad = 0;
		if (++p->good >= p->success_min && (p->kind != PROBE_READINESS || !c->ready))
			passed(p);
		return;
	}
	p->good = 0;
	if (p->bad++ == 0 || p->bad == p->failure_min)
		kube_event(c->pod->a->kube, c->pod->obj, "Warning", "Unhealthy", "%s probe failed: %s",
			   names[p->kind], text);
	if (p->bad < p->failure_min)
		return;
	if (p->kind == PROBE_READINESS) {
		if (c->ready) {
			c->ready = false;
			pod_sync(c->pod);
		}
		return;
	}
	p->bad = 0;
	timer_stop(p->timer);
	fail_container(c, p->kind);
	pod_sync(c->pod);
}

/* The check has a result. */
static void check_end(struct check *k, bool ok, const char *text)
{
	struct probe *p = k->p;

	if (k->over)
		return;
	k->over = true;
	if (p) {
		p->check = NULL;
		k->p = NULL;
		result(p, ok, text);
	}
	if (!k->is_tcp)
		free(k);
}

/* ---- HTTP ---- */

static void on_http(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct check *k = ctx;
	char why[160];

	(void)body, (void)len;
	k->call = NULL;
	if (status > 0)
		snprintf(why, sizeof(why), "HTTP probe failed with statuscode: %d", status);
	else
		snprintf(why, sizeof(why), "%s", text ? text : strerror(-status));
	check_end(k, status >= 200 && status < 400, why);
}

static int64_t port_of(const struct container *c, const json_t *port)
{
	json_t *item;
	size_t i;

	if (json_is_integer(port))
		return json_integer_value(port);
	json_array_foreach (js_get(container_spec(c), "ports"), i, item)
		if (json_is_string(port) && streq(js_str(item, "name"), json_string_value(port)))
			return js_int(item, "containerPort", 0);
	return 0;
}

static void http_check(struct probe *p, struct check *k, const json_t *get)
{
	const char *host = js_str_or(get, "host", p->c->pod->ip ? p->c->pod->ip : "127.0.0.1");
	const char *scheme = js_str_or(get, "scheme", "HTTP"), *path = js_str_or(get, "path", "/");
	_cleanup_free_ char *url = xasprintf("%s://%s:%lld%s%s", streq(scheme, "HTTPS") ? "https" : "http",
					     host, (long long)port_of(p->c, json_object_get(get, "port")),
					     *path == '/' ? "" : "/", path);
	_cleanup_strv_ char **headers = strv_add(NULL, "User-Agent: kuayu-probe/1");
	struct http_call_options o = {.method = "GET",
				      .url = url,
				      .timeout_ms = p->timeout_ms,
				      .connect_timeout_ms = p->timeout_ms,
				      .answer_max = ANSWER_MAX * 100,
				      .new_connection = true,
				      .done = on_http,
				      .ctx = k};
	json_t *h;
	size_t i;

	json_array_foreach (json_object_get(get, "httpHeaders"), i, h) {
		_cleanup_free_ char *line =
			xasprintf("%s: %s", js_str_or(h, "name", "X"), js_str_or(h, "value", ""));

		headers = strv_add(headers, line);
	}
	o.headers = (const char *const *)headers;
	k->call = http_call_new(p->c->pod->a->http, &o);
}

/* ---- TCP ---- */

static void on_tcp_closed(uv_handle_t *h)
{
	struct check *k = h->data;

	if (--k->handles == 0)
		free(k);
}

static void tcp_end(struct check *k, bool ok, const char *text)
{
	if (k->over)
		return;
	check_end(k, ok, text);
	uv_close((uv_handle_t *)&k->tcp, on_tcp_closed);
	uv_close((uv_handle_t *)&k->limit, on_tcp_closed);
}

static void on_connected(uv_connect_t *r, int status)
{
	tcp_end(r->data, status == 0, status < 0 ? uv_strerror(status) : "");
}

static void on_tcp_limit(uv_timer_t *t)
{
	tcp_end(t->data, false, "connect timed out");
}

static void tcp_check(struct probe *p, struct check *k, const json_t *tcp)
{
	uv_loop_t *loop = p->c->pod->a->loop;
	struct sockaddr_in to = {0};
	const char *host = js_str_or(tcp, "host", p->c->pod->ip ? p->c->pod->ip : "127.0.0.1");

	k->is_tcp = true;
	k->handles = 2;
	uv_tcp_init(loop, &k->tcp);
	uv_timer_init(loop, &k->limit);
	k->tcp.data = k->limit.data = k->connect.data = k;
	uv_timer_start(&k->limit, on_tcp_limit, (uint64_t)p->timeout_ms, 0);
	if (uv_ip4_addr(host, (int)port_of(p->c, json_object_get(tcp, "port")), &to) < 0 ||
	    uv_tcp_connect(&k->connect, &k->tcp, (struct sockaddr *)&to, on_connected) < 0)
		uv_timer_start(&k->limit, on_tcp_limit, 0, 0);
}

/* ---- exec ---- */

static void on_exec(void *ctx, const struct proc_result *res)
{
	char why[200];

	snprintf(why, sizeof(why), "%s%.150s", res->timed_out ? "command timed out: " : "",
		 *res->out ? res->out : res->err_text);
	check_end(ctx, res->status == 0 && !res->timed_out, why);
}

static void on_grpc(void *ctx, bool ok, const char *text)
{
	struct check *k = ctx;

	k->grpc = NULL;
	check_end(k, ok, text);
}

static void on_due(void *ctx)
{
	struct probe *p = ctx;
	struct check *k;
	json_t *how;

	if (p->check || p->c->state != CONTAINER_RUNNING || p->c->stopping)
		return;
	if (p->kind != PROBE_STARTUP && !p->c->started)
		return;
	k = xcalloc(1, sizeof(*k));
	k->p = p;
	p->check = k;
	if ((how = json_object_get(p->spec, "exec"))) {
		if (container_exec(p->c, json_object_get(how, "command"), (uint64_t)p->timeout_ms, on_exec, k,
				   NULL) < 0)
			check_end(k, false, "the command cannot be run");
	} else if ((how = json_object_get(p->spec, "httpGet"))) {
		http_check(p, k, how);
	} else if ((how = json_object_get(p->spec, "tcpSocket"))) {
		tcp_check(p, k, how);
	} else if ((how = json_object_get(p->spec, "grpc"))) {
		k->grpc = grpc_probe_new(p->c->pod->a->loop, p->c->pod->ip ? p->c->pod->ip : "127.0.0.1",
					 (int)port_of(p->c, json_object_get(how, "port")),
					 js_str_or(how, "service", ""), p->timeout_ms, on_grpc, k);
	} else {
		check_end(k, true, "");
	}
}

static struct probe *probe_new(struct container *c, enum probe_kind kind)
{
	json_t *spec = js_get(container_spec(c), fields[kind]);
	struct probe *p;
	int64_t delay_ms;

	if (!spec)
		return NULL;
	p = xcalloc(1, sizeof(*p));
	p->c = c;
	p->kind = kind;
	p->hold = json_deep_copy(spec);
	p->spec = p->hold;
	p->period_ms = MAX(js_int(spec, "periodSeconds", 10), 1) * 1000;
	p->timeout_ms = MAX(js_int(spec, "timeoutSeconds", 1), 1) * 1000;
	p->success_min = kind == PROBE_READINESS ? MAX(js_int(spec, "successThreshold", 1), 1) : 1;
	p->failure_min = MAX(js_int(spec, "failureThreshold", 3), 1);
	p->timer = timer_new(c->pod->a->loop, on_due, p);
	delay_ms = js_int(spec, "initialDelaySeconds", 0) * 1000;
	/* Without a delay the first check comes at once: 20 ms for the process to come up. */
	timer_start(p->timer, delay_ms ? (uint64_t)delay_ms : 20, (uint64_t)p->period_ms);
	return p;
}

static struct probe *probe_free(struct probe *p)
{
	if (!p)
		return NULL;
	if (p->check) {
		struct check *k = p->check;

		k->p = NULL;
		if (k->call) {
			http_call_cancel(k->call);
			free(k);
		} else if (k->grpc) {
			grpc_probe_cancel(k->grpc);
			free(k);
		} else if (k->is_tcp) {
			tcp_end(k, false, "");
		} /* exec: ends by its own time limit and frees the check then */
	}
	timer_free(p->timer);
	json_decref(p->hold);
	free(p);
	return NULL;
}

void probes_start(struct container *c)
{
	if (c->init)
		return;
	c->startup = probe_new(c, PROBE_STARTUP);
	c->liveness = probe_new(c, PROBE_LIVENESS);
	c->readiness = probe_new(c, PROBE_READINESS);
	if (c->started && !c->readiness)
		c->ready = true;
}

void probes_stop(struct container *c)
{
	c->startup = probe_free(c->startup);
	c->liveness = probe_free(c->liveness);
	c->readiness = probe_free(c->readiness);
}
