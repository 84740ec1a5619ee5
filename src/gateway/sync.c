/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway's heart beat: ask the proxy what it has, compare with what is wanted, send the steps.
 *
 * Every 200 ms, and at once after a change in the API:
 *   exposures from the caches -> state of the proxy -> (frontends differ: new configuration, seamless reload)
 *                                                   -> (servers differ: add/drain/delete at the socket)
 *                                                   -> who serves now: timeline
 * Level-triggered: what did not work is simply wanted again at the next beat. Until the caches are complete nothing is changed:
 * a proxy that was taken up goes on with what it has. */
#include "gateway/internal.h"

#include <pwd.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>

#define COMMANDS_MAX 12000 /* bytes in one line, less than the proxy's buffer */

void gateway_kick(struct gateway *g)
{
	g->changed = true;
	if (!g->stopping)
		timer_start(g->tick, SETTLE_MS, POLL_MS);
}

static struct haproxy_options options(const struct gateway *g)
{
	return (struct haproxy_options){.address = g->s.address,
					.data = g->s.data,
					.threads = (int)g->s.threads,
					.drop_rights = geteuid() == 0 && getpwnam("haproxy")};
}

/* ---- what is wanted ---- */

static json_t *all_of(struct kube_cache *c)
{
	json_t *list = json_array(), *o;

	kube_cache_foreach(c, o) json_array_append(list, o);
	return list;
}

static bool port_is_free(const struct gateway *g, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	_cleanup_close_ int fd = -1;
	int one = 1;

	if (inet_pton(AF_INET, g->s.address, &a.sin_addr) != 1)
		return true; /* another family: the proxy finds out */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return true;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 || errno != EADDRINUSE;
}

/* The proxy refuses a whole configuration for one port that it cannot have, so a port that another program has is left out.
 * Ports that the proxy listens on, or is about to, are not asked about. */
static void drop_taken_ports(struct gateway *g, const struct exposures *before, struct exposures *now)
{
	bool ours = proxy_running(g->proxy) || proxy_starting(g->proxy);
	size_t n = 0;

	for (size_t i = 0; i < now->n; i++) {
		struct exposure *x = &now->v[i];
		bool had = ours && (strv_has(g->state.frontends, x->name) || exposures_find(before, x->name));

		if (!had && !port_is_free(g, x->port)) {
			_cleanup_free_ char *key = xasprintf("%s/%s", x->ns, x->service);
			_cleanup_free_ char *why = xasprintf("port %d of %s is in use by another program",
							     x->port, g->s.address);
			struct exposures one = {1, xcalloc(1, sizeof(*x))};

			json_object_set_new(g->denied, key, json_string(why));
			one.v[0] = *x;
			exposures_done(&one);
			continue;
		}
		now->v[n++] = *x;
	}
	now->n = n;
}

/* An event for each Service that newly cannot be exposed. */
static void tell_denied(struct gateway *g, const json_t *before)
{
	const char *key;
	json_t *why;

	json_object_foreach (g->denied, key, why) {
		_cleanup_strv_ char **part = strv_split(key, '/', true);
		json_t *service = kube_cache_get(g->services, part[0], part[1]);

		if (json_equal(json_object_get(before, key), why))
			continue;
		log_warn("Service %s: %s", key, json_string_value(why));
		if (service)
			kube_event(g->kube, service, "Warning", "PortConflict", "gateway %s: %s", g->s.node,
				   json_string_value(why));
	}
}

static void build(struct gateway *g)
{
	_cleanup_json_ json_t *services = all_of(g->services), *slices = all_of(g->slices),
			      *denied = g->denied;
	struct exposure_input in = {.zone = g->s.zone};
	struct exposures now;

	in.distances = gateways_distances(g->peers, &in.n_distances);
	exposures_build(services, slices, &in, &now, &g->denied);
	drop_taken_ports(g, &g->exposures, &now);
	exposures_done(&g->exposures);
	g->exposures = now;
	tell_denied(g, denied);
	g->changed = false;
	g->known = true;
	g->built_ms = clock_ms();
}

/* ---- configuration ---- */

static void reload(struct gateway *g, const struct haproxy_options *o, const char *hash)
{
	_cleanup_buf_ struct buf text = {0};
	struct err e = {0};
	const char *saved = g->state.saved ? g->state.saved : "1\n";

	haproxy_config(&g->exposures, o, hash, &text);
	if (file_write_atomic(g->config_file, text.data, text.len, 0600, &e) < 0 ||
	    file_write_atomic(g->state_file, saved, strlen(saved), 0600, &e) < 0) {
		log_error("%s", e.text);
		return;
	}
	g->reloaded_ms = clock_ms();
	log_info("proxy: %s with %zu ports", proxy_running(g->proxy) ? "reload" : "start", g->exposures.n);
	proxy_start(g->proxy, hash);
}

/* Starts or reloads if the frontends are not the running ones. Returns whether the running configuration is the wanted one. */
static bool config_sync(struct gateway *g)
{
	struct haproxy_options o = options(g);
	char hash[17];

	haproxy_hash(&g->exposures, &o, hash);
	if (streq(proxy_config(g->proxy), hash))
		return true;
	if (!proxy_starting(g->proxy) && proxy_wait_ms(g->proxy) == 0 &&
	    clock_ms() - g->reloaded_ms >= RELOAD_MS)
		reload(g, &o, hash);
	return false;
}

/* ---- servers ---- */

static int64_t draining_ms(struct gateway *g, const struct server_stat *s)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", s->backend, s->o.name);
	uint64_t *since = strmap_get(g->draining, key);

	if (s->o.admin == ROUTE_READY) {
		free(strmap_del(g->draining, key));
		return 0;
	}
	if (!since) {
		since = xcalloc(1, sizeof(*since));
		*since = clock_ms();
		strmap_set(g->draining, key, since);
	}
	return (int64_t)(clock_ms() - *since);
}

static size_t observed(struct gateway *g, const struct exposure *x, struct route_observed *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < g->state.n; i++) {
		struct server_stat *s = &g->state.v[i];

		if (!streq(s->backend, x->name))
			continue;
		s->o.draining_ms = draining_ms(g, s);
		ret[n++] = s->o;
	}
	return n;
}

static void add_command(const struct exposure *x, const struct route_step *step, struct buf *out)
{
	const struct route_server *r = step->server;
	const char *b = x->name, *n = step->name;

	switch (step->kind) {
	case ROUTE_ADD:
		buf_addf(out, "add server %s/%s %s:%d ", b, n, r->address, r->port);
		haproxy_server(x, r, out);
		buf_addf(out, ";enable health %s/%s;set server %s/%s state %s;", b, n, b, n,
			 r->drain ? "drain" : "ready");
		break;
	case ROUTE_SET_READY:
		buf_addf(out, "set server %s/%s state ready;", b, n);
		break;
	case ROUTE_SET_DRAIN:
		buf_addf(out, "set server %s/%s state drain;", b, n);
		break;
	case ROUTE_SET_WEIGHT:
		buf_addf(out, "set server %s/%s weight %d;", b, n, r->weight);
		break;
	case ROUTE_SET_MAINT:
		buf_addf(out, "set server %s/%s state maint;shutdown sessions server %s/%s;", b, n, b, n);
		break;
	case ROUTE_DELETE:
		buf_addf(out, "del server %s/%s;", b, n);
		break;
	}
}

static void one_backend(struct gateway *g, const struct exposure *x, struct buf *out)
{
	_cleanup_free_ struct route_observed *have = xcalloc(g->state.n + 1, sizeof(have[0]));
	_cleanup_free_ struct route_step *steps = NULL;
	char serving[SERVING_MAX];
	size_t n_have = observed(g, x, have), n;

	steps = xcalloc(2 * (n_have + x->plan.n) + 1, sizeof(steps[0]));
	n = route_steps(&x->plan, have, n_have, DRAIN_MS, steps);
	for (size_t i = 0; i < n && out->len < COMMANDS_MAX; i++) {
		if (steps[i].kind == ROUTE_ADD || steps[i].kind == ROUTE_DELETE)
			log_info(
				"%s: %s %s", x->name,
				steps[i].kind == ROUTE_ADD ? "new server" : "server removed:", steps[i].name);
		add_command(x, &steps[i], out);
		g->commands++;
	}
	route_serving(&x->plan, have, n_have, serving, sizeof(serving));
	gateway_timeline_serving(g, x, serving);
}

/* ---- the beat ---- */

static void on_commands(void *ctx, const char *text)
{
	static const char *const fine[] = {"New server registered.", "Server deleted.", ""};
	struct gateway *g = ctx;
	_cleanup_strv_ char **lines = strv_split(text ? text : "no answer", '\n', false);

	g->busy = false;
	for (size_t i = 0; lines[i]; i++) {
		bool ok = false;

		for (size_t k = 0; k < ARRAY_SIZE(fine); k++)
			ok |= streq(lines[i], fine[k]);
		if (!ok) {
			g->command_errors++;
			log_debug("proxy: %s", lines[i]);
		}
	}
}

static void on_sessions(void *ctx, const char *text)
{
	struct gateway *g = ctx;
	_cleanup_buf_ struct buf commands = {.limit = COMMANDS_MAX};
	size_t n = text ? sessions_to_end(text, &g->state, &commands) : 0;

	g->busy = false;
	if (!n)
		return;
	log_info("proxy: %zu sessions with dead servers are ended", n);
	g->ended += n;
	g->busy = true;
	proxy_call(g->loop, g->socket, commands.data, on_commands, g);
}

static void on_state(void *ctx, const char *text)
{
	struct gateway *g = ctx;
	struct proxy_state now;
	_cleanup_buf_ struct buf commands = {0};
	struct err e = {0};

	g->busy = false;
	g->looked = true;
	if (!text || proxy_state_parse(text, &now, &e) < 0) {
		if (*e.text)
			log_error("%s", e.text);
		proxy_silent(g->proxy);
		if (!proxy_running(g->proxy) && !proxy_starting(g->proxy) && g->known) {
			build(g); /* what is free now is known anew */
			config_sync(g);
		}
		return;
	}
	proxy_state_done(&g->state);
	g->state = now;
	proxy_observed(g->proxy, now.pid, now.config);
	if (!g->known || !config_sync(g))
		return;
	for (size_t i = 0; i < g->exposures.n && commands.len < COMMANDS_MAX; i++)
		one_backend(g, &g->exposures.v[i], &commands);
	if (commands.len) {
		g->busy = true;
		proxy_call(g->loop, g->socket, commands.data, on_commands, g);
	} else if (sessions_waiting(&g->state)) {
		g->busy = true;
		proxy_call(g->loop, g->socket, "show sess", on_sessions, g);
	}
}

void gateway_tick(void *ctx)
{
	struct gateway *g = ctx;

	if (g->stopping)
		return;
	if (json_object_size(g->denied) && clock_ms() - g->built_ms >= AGAIN_MS)
		g->changed = true;
	if (g->looked && kube_cache_synced(g->services) && kube_cache_synced(g->slices) &&
	    (g->changed || !g->known))
		build(g);
	if (g->busy)
		return;
	if (!proxy_running(g->proxy) && !proxy_starting(g->proxy) && g->known &&
	    access(g->socket, F_OK) < 0) {
		config_sync(g);
		return;
	}
	g->busy = true;
	proxy_call(g->loop, g->socket, PROXY_STATE_COMMAND, on_state, g);
}
