/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps the node's network true to the API: the nftables table (rules.c), routes to other nodes' pod networks, one route that gives service
 * addresses a source address, /etc/hosts of pods.
 *
 * Changes are collected for a few milliseconds, then one worker thread runs the whole transaction through libnftables (never two at a
 * time); a failure is tried again each second. Routes go through `ip -batch`. Reads the caches on the loop thread only. */
#include "node/agent.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <nftables/libnftables.h>

#include "node/rules.h"

#define COLLECT_MS 10
#define RETRY_MS   1000

struct services {
	struct agent *a;
	struct timer *timer;
	uv_work_t work;
	bool running, again, retry;
	struct nft_ctx *nft; /* used by the one worker */
	char *text, *last;   /* being applied; in force */
	char *why;
	char *routes; /* in force */
};

static const char *internal_ip(const json_t *node)
{
	json_t *x;
	size_t i;

	json_array_foreach (js_get(node, "status.addresses"), i, x)
		if (streq(js_str(x, "type"), "InternalIP"))
			return js_str(x, "address");
	return NULL;
}

/* ---- routes ---- */

static void on_routes(void *ctx, const struct proc_result *res)
{
	struct services *s = ctx;

	if (res->status == 0)
		return;
	log_warn("routes: %s", res->err_text);
	free(take_ptr(s->routes)); /* again with the next change or the retry */
	timer_start(s->timer, RETRY_MS, 0);
}

static bool cidr_text_ok(const char *cidr)
{
	uint32_t net;
	int bits;

	return cidr && cidr_parse(cidr, &net, &bits) == 0;
}

static void set_routes(struct services *s)
{
	struct agent *a = s->a;
	_cleanup_buf_ struct buf b = {0};
	const char *argv[] = {"ip", "-force", "-batch", "-", NULL};
	struct proc_options o = {.argv = argv, .timeout_ms = 5000};
	struct in_addr addr;
	json_t *node;

	if (cidr_text_ok(a->s.service_cidr))
		(void)buf_addf(&b, "route replace %s dev %s src %s\n", a->s.service_cidr, a->s.bridge,
			       a->s.address);
	kube_cache_foreach(a->nodes, node)
	{
		const char *ip = internal_ip(node), *cidr = js_str(node, "spec.podCIDR");

		if (!ip || inet_pton(AF_INET, ip, &addr) != 1 || !cidr_text_ok(cidr) ||
		    streq(js_str(node, "metadata.name"), a->s.name) || streq(ip, a->s.address))
			continue;
		(void)buf_addf(&b, "route replace %s via %s\n", cidr, ip);
	}
	if (!b.len || streq(b.data, s->routes))
		return;
	free(s->routes);
	s->routes = xstrdup(b.data);
	o.input = s->routes;
	proc_run(a->loop, &o, on_routes, s);
}

/* ---- rules ---- */

static json_t *array_of(struct kube_cache *c)
{
	json_t *list = json_array(), *o;

	kube_cache_foreach(c, o) json_array_append(list, o);
	return list;
}

static void apply(uv_work_t *w)
{
	struct services *s = w->data;

	if (!s->nft) {
		s->nft = nft_ctx_new(NFT_CTX_DEFAULT);
		nft_ctx_buffer_output(s->nft);
		nft_ctx_buffer_error(s->nft);
	}
	if (nft_run_cmd_from_buffer(s->nft, s->text) != 0) {
		const char *why = nft_ctx_get_error_buffer(s->nft);

		s->why = xstrndup(why ? why : "", MIN(strlen(why ? why : ""), 400));
	}
}

static void applied(uv_work_t *w, int status)
{
	struct services *s = w->data;

	(void)status;
	s->running = false;
	if (s->why) {
		log_error("service rules: %s", s->why);
		free(take_ptr(s->why));
		free(take_ptr(s->text));
		timer_start(s->timer, RETRY_MS, 0);
		return;
	}
	free(s->last);
	s->last = take_ptr(s->text);
	if (s->again)
		services_changed(s->a);
}

static json_t *host_ports_new(struct agent *a)
{
	json_t *list = json_array();
	const char *uid;
	struct pod *p;

	strmap_foreach (a->pods, uid, p) {
		if (p->host_network || !p->ip || p->torn_down)
			continue;
		for (size_t i = p->n_init; i < p->n; i++) {
			json_t *port;
			size_t k;

			json_array_foreach (js_get(container_spec(p->c[i]), "ports"), k, port) {
				const char *proto = js_str_or(port, "protocol", "TCP");

				if (js_int(port, "hostPort", 0) > 0)
					json_array_append_new(
						list,
						json_pack("[s,I,s,I]",
							  streq(proto, "UDP")	 ? "udp"
							  : streq(proto, "SCTP") ? "sctp"
										 : "tcp",
							  (json_int_t)js_int(port, "hostPort", 0), p->ip,
							  (json_int_t)js_int(port, "containerPort", 0)));
			}
		}
	}
	return list;
}

static void hosts_of_all(struct agent *a)
{
	const char *uid;
	struct pod *p;

	strmap_foreach (a->pods, uid, p)
		if (p->volumes_ready && !p->torn_down)
			hosts_write(p);
}

static void start_apply(void *ctx)
{
	struct services *s = ctx;
	struct agent *a = s->a;
	_cleanup_json_ json_t *services = NULL, *slices = NULL, *host_ports = host_ports_new(a);
	_cleanup_strv_ char **cidrs = NULL;
	_cleanup_buf_ struct buf b = {0};
	struct rules_input in = {.node = a->s.name, .zone = a->s.zone, .service_cidr = a->s.service_cidr};
	json_t *node, *own;

	if (s->running) {
		s->again = true;
		return;
	}
	s->again = false;
	if (!kube_cache_synced(a->service_cache) || !kube_cache_synced(a->slices) ||
	    !kube_cache_synced(a->nodes))
		return; /* what is in force stays until the whole picture is known */
	own = kube_cache_get(a->nodes, NULL, a->s.name);
	in.services = services = array_of(a->service_cache);
	in.slices = slices = array_of(a->slices);
	in.pod_cidr = js_str(own, "spec.podCIDR");
	kube_cache_foreach(a->nodes, node) if (js_str(node, "spec.podCIDR")) cidrs =
		strv_add(cidrs, js_str(node, "spec.podCIDR"));
	in.cluster_cidrs = cidrs;
	in.host_ports = host_ports;
	if (sandboxes_started(a->sandboxes))
		set_routes(s);
	hosts_of_all(a);
	if (rules_text(&in, &b) < 0) {
		log_error("service rules: more than %d MiB of text", 64);
		return;
	}
	if (streq(b.data, s->last))
		return;
	s->text = buf_take(&b);
	s->running = true;
	s->work.data = s;
	if (uv_queue_work(a->loop, &s->work, apply, applied) < 0)
		s->running = false;
}

void services_changed(struct agent *a)
{
	if (a->services)
		timer_start(a->services->timer, COLLECT_MS, 0);
}

struct services *services_new(struct agent *a)
{
	struct services *s = xcalloc(1, sizeof(*s));

	s->a = a;
	s->timer = timer_new(a->loop, start_apply, s);
	return s;
}
