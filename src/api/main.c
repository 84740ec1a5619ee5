/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu api: the Kubernetes REST API over the store. Any number of servers on one store, all alike.
 *
 * Threads: the loop thread reads requests, authenticates, serves watches and what comes from the watch cache; a pool of worker
 * threads (libuv's) runs calls that ask the store, in straight lines, one call a thread; the cache follows the store on a thread of
 * its own; the keeper has two more. An answer goes back through http_reply, which any thread may call.
 * Everything in the store is the store's: a server that dies loses nothing, another one serves the next request. */
#include <sys/resource.h>

#include "api/api.h"
#include "api/internal.h"

#define BODY_MAX 3145728 /* bytes of a request */
#define IDLE_MS \
	240000 /* longer than clients keep idle connections (Go: 90 s), so that it is they who close */

#define AT(m) offsetof(struct api_settings, m)

static const struct setting settings[] = {
	{"store", SETTING_STRING, AT(store), NULL, 0, 0, "URI", "etcd:URL,URL,... or sqlite:PATH or mem:"},
	{"store-ca", SETTING_STRING, AT(store_ca), NULL, 0, 0, "FILE", "CA certificates of etcd"},
	{"store-cert", SETTING_STRING, AT(store_cert), NULL, 0, 0, "FILE", "client certificate for etcd"},
	{"store-key", SETTING_STRING, AT(store_key), NULL, 0, 0, "FILE", "its key"},
	{"store-timeout", SETTING_DURATION, AT(store_timeout_ms), "8s", 200, 60000, "TIME",
	 "one call to the store, retries included"},
	{"listen", SETTING_STRING, AT(listen), "0.0.0.0:6443", 0, 0, "ADDRESS:PORT", "HTTPS address"},
	{"advertise", SETTING_STRING, AT(advertise), "127.0.0.1", 0, 0, "IP",
	 "own address, as pods and nodes reach it"},
	{"tls-cert", SETTING_STRING, AT(tls_cert), NULL, 0, 0, "FILE", "server certificate"},
	{"tls-key", SETTING_STRING, AT(tls_key), NULL, 0, 0, "FILE", "its key"},
	{"client-ca", SETTING_STRING, AT(client_ca), NULL, 0, 0, "FILE", "CA of client certificates"},
	{"token-file", SETTING_STRING, AT(token_file), NULL, 0, 0, "FILE",
	 "lines of token,user,uid,\"groups\""},
	{"service-cidr", SETTING_STRING, AT(service_cidr), "10.96.0.0/16", 0, 0, "NET/BITS",
	 "addresses of Services"},
	{"node-cert", SETTING_STRING, AT(node_cert), NULL, 0, 0, "FILE",
	 "client certificate towards node agents (logs)"},
	{"node-key", SETTING_STRING, AT(node_key), NULL, 0, 0, "FILE", "its key"},
	{"node-ca", SETTING_STRING, AT(node_ca), NULL, 0, 0, "FILE", "CA of the node agents"},
	{"event-window", SETTING_INT, AT(event_window), "10000", 100, 1000000, "N",
	 "changes kept for watches that resume"},
	{"event-ttl", SETTING_DURATION, AT(event_ttl_ms), "1h", 10000, 0, "TIME", "how long Events are kept"},
	{"compact-every", SETTING_DURATION, AT(compact_ms), "5m", 1000, 0, "TIME",
	 "history of the store that is kept, at least"},
	{"workers", SETTING_INT, AT(workers), "32", 4, 512, "N", "threads for calls that ask the store"},
	{"anonymous", SETTING_BOOL, AT(anonymous), NULL, 0, 0, NULL,
	 "serve clients without certificate or token too (for trying out only)"},
};

static int listen_parse(const struct api_settings *s, char **ret_address, int *ret_port, struct err *e)
{
	const char *colon = strrchr(s->listen, ':');
	int64_t port;

	if (!colon || str_i64(colon + 1, &port) < 0 || port < 0 || port > 65535)
		return err_set(e, -EINVAL, "--listen: '%s' is not ADDRESS:PORT", s->listen);
	if (*s->listen == '[' && colon[-1] == ']') /* [::]:6443 */
		*ret_address = xstrndup(s->listen + 1, (size_t)(colon - s->listen) - 2);
	else
		*ret_address = xstrndup(s->listen, (size_t)(colon - s->listen));
	*ret_port = (int)port;
	return 0;
}

static int check(const struct api_settings *s, struct err *e)
{
	if (!s->store)
		return err_set(e, -EINVAL, "--store is missing: etcd:URL,... or sqlite:PATH");
	if (!s->tls_cert != !s->tls_key)
		return err_set(e, -EINVAL, "--tls-cert and --tls-key belong together");
	if (!s->tls_cert && !s->anonymous)
		return err_set(e, -EINVAL,
			       "--tls-cert and --tls-key are missing (kuayu pki issue makes them)");
	return 0;
}

static int open_store(struct api *api, struct err *e)
{
	const struct store_options o = {
		.ca_file = api->s.store_ca,
		.cert_file = api->s.store_cert,
		.key_file = api->s.store_key,
		.timeout_ms = api->s.store_timeout_ms,
	};
	int r = store_open(api->s.store, &o, &api->store, e);

	return r < 0 ? err_wrap(e, "--store") : 0;
}

static int open_nodes(struct api *api, struct err *e)
{
	const struct http_client_options o = {
		.ca_file = api->s.node_ca,
		.cert_file = api->s.node_cert,
		.key_file = api->s.node_key,
		.connections_max = 512,
	};

	if (!api->s.node_ca)
		return 0;
	api->nodes = http_client_new(&api->loop, &o, e);
	return api->nodes ? 0 : -EINVAL;
}

static int start(struct api *api, struct err *e)
{
	_cleanup_free_ char *address = NULL;
	struct http_server_options o = {
		.cert_file = api->s.tls_cert,
		.key_file = api->s.tls_key,
		.client_ca_file = api->s.client_ca,
		.body_max = BODY_MAX,
		.too_large =
			"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\","
			"\"message\":\"Request entity too large: limit is 3145728\",\"reason\":"
			"\"RequestEntityTooLarge\",\"code\":413}",
		.handle = route,
		.ctx = api,
		.connections_max = 10000,
		.idle_timeout_ms = IDLE_MS,
	};
	int r = listen_parse(&api->s, &address, &api->port, e);

	if (r == 0)
		r = service_net_parse(api, e);
	if (r == 0)
		r = tokens_load(api->s.token_file, &api->tokens, e);
	if (r == 0)
		r = open_nodes(api, e);
	if (r == 0)
		r = open_store(api, e);
	if (r < 0)
		return r;
	o.address = address;
	o.port = api->port;
	api->mailbox = mailbox_new(&api->loop);
	api->metrics = metrics_new();
	api->watches = watches_new(api);
	api->cache = cache_new(api->store, api, (size_t)api->s.event_window, watches_changed, api);
	api->http = http_server_new(&api->loop, &o, e);
	if (!api->http)
		return -EINVAL;
	api->port = http_server_port(api->http);
	api->keeper = keeper_new(api);
	return 0;
}

static void on_stop(void *ctx)
{
	struct api *api = ctx;

	if (api->stopping)
		return;
	api->stopping = true;
	log_info("stopping");
	watches_free(api->watches);
	api->http = http_server_free(api->http);
	api->nodes = http_client_free(api->nodes);
	uv_stop(&api->loop);
}

/* After the loop: no request is served any more. Workers that still run end within the store's time limit. */
static void finish(struct api *api)
{
	for (int i = 0; i < 2000 && api->in_flight; i++) {
		uv_run(&api->loop, UV_RUN_NOWAIT);
		usleep(5000);
	}
	keeper_free(api->keeper);
	cache_free(api->cache);
	store_free(api->store);
	tokens_free(api->tokens);
	settings_done(settings, ARRAY_SIZE(settings), &api->s);
}

/* A connection is a descriptor: as many as the system lets us have. */
static void raise_descriptors(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &l);
	}
}

int cmd_api(int argc, char **argv)
{
	static struct api api;
	struct err e = {0};
	char threads[16];
	int r;

	log_init("api", LOG_LEVEL_INFO);
	r = settings_parse("api", "Kubernetes REST API over etcd, SQLite or memory", settings,
			   ARRAY_SIZE(settings), argc, argv, &api.s, NULL, &e);
	if (r > 0)
		return 0;
	if (r == 0)
		r = check(&api.s, &e);
	if (r < 0) {
		fprintf(stderr, "kuayu api: %s\n", e.text);
		return 2;
	}
	snprintf(threads, sizeof(threads), "%lld", (long long)api.s.workers);
	setenv("UV_THREADPOOL_SIZE", threads, 1);
	json_object_seed(0);
	raise_descriptors();
	pthread_mutex_init(&api.event_lease_lock, NULL);
	ensure(uv_loop_init(&api.loop) == 0);
	r = start(&api, &e);
	if (r < 0) {
		log_error("%s", e.text);
		return 1;
	}
	stop_signals(&api.loop, on_stop, &api);
	log_info("listening on %s, store %s", api.s.listen, api.s.store);
	uv_run(&api.loop, UV_RUN_DEFAULT);
	finish(&api);
	return 0;
}
