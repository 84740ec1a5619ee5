/* SPDX-License-Identifier: Apache-2.0 */
/* `kuayu gateway`: what its files share. One loop thread. */
#pragma once

#include "core/route/route.h"
#include "kube/kube.h"
#include "net/http_server.h"

#define POLL_MS	      200   /* the proxy is asked for its state so often */
#define AGAIN_MS      10000 /* a port that was taken is tried again so often */
#define SETTLE_MS     20    /* changes that come together are taken together */
#define RELOAD_MS     500   /* at most one reload in so long */
#define DRAIN_MS      30000 /* a server that has gone keeps its sessions so long */
#define STOP_MS	      120 /* seconds an old proxy process keeps its connections after a reload (hard-stop-after) */
#define EXPOSURES_MAX 500
#define SERVING_MAX   200

/* ---- settings ---- */
struct settings {
	struct kube_settings kube;
	char *node, *zone, *address, *data, *proxy;
	char **distances; /* "b:5" */
	int64_t port, threads;
	bool keep_proxy;
};

/* ---- one port of one Service of type LoadBalancer ---- */
enum protocol { PROTOCOL_TCP, PROTOCOL_HTTP, PROTOCOL_H2 };

struct exposure {
	char *name; /* of the proxy's frontend and backend: NAMESPACE_SERVICE_PORT */
	char *ns, *service;
	int port;
	enum protocol protocol;
	bool affinity, local_only;
	char *health_path;	     /* annotation kuayu.io/health-path; NULL = connect only */
	int64_t response_timeout_ms; /* annotation kuayu.io/response-timeout; 0 = streams and long polls are expected */
	char *created;		     /* who came first gets a port that two want */
	struct route_plan plan;
};

struct exposures {
	size_t n;
	struct exposure *v; /* in order of name */
};

/* ---- exposures.c: API objects -> exposures. Pure. ---- */
struct exposure_input {
	const char *zone;
	const struct route_distance *distances;
	size_t n_distances;
};
/* services and slices: arrays of objects. Conflicts over a port go to the older Service; the others are in *ret_denied (texts "ns/name"
 * -> sentence; new reference). */
void exposures_build(const json_t *services, const json_t *slices, const struct exposure_input *in,
		     struct exposures *ret, json_t **ret_denied);
void exposures_done(struct exposures *x);
struct exposure *exposures_find(const struct exposures *x, const char *name);
/* Is this Service ours to expose? */
bool service_is_ours(const json_t *service);

/* ---- config.c: exposures -> haproxy.cfg. Pure. ---- */
struct haproxy_options {
	const char *address, *data;
	int threads;
	bool drop_rights; /* run as user haproxy */
};
/* All but the servers: what needs a reload when it changes. Returns its hash as text in ret_hash. */
void haproxy_hash(const struct exposures *x, const struct haproxy_options *o, char ret_hash[17]);
void haproxy_config(const struct exposures *x, const struct haproxy_options *o, const char *hash,
		    struct buf *out);
/* "weight 100 check ...": the same words for the file and for `add server`. */
void haproxy_server(const struct exposure *x, const struct route_server *r, struct buf *out);

/* ---- stat.c: the proxy's answers. Pure. ---- */
struct server_stat {
	char *backend;
	struct route_observed o;
	int64_t total, bytes_in, bytes_out, errors, retries, redispatches, answers_5xx;
};

struct proxy_state {
	char config[17]; /* KUAYU_CONFIG of the running process */
	int64_t pid;
	size_t n;
	struct server_stat *v;
	char **frontends; /* names */
	char *saved;	  /* the text of `show servers state`, for the next process */
};
#define PROXY_STATE_COMMAND "show env KUAYU_CONFIG;show info;show servers state;show stat -1 5 -1"
int proxy_state_parse(const char *text, struct proxy_state *ret, struct err *e);
void proxy_state_done(struct proxy_state *p);

/* ---- sessions.c: requests that wait for a dead server. Pure. ---- */
bool sessions_waiting(const struct proxy_state *state);
/* Answer of `show sess` -> commands that end them; returns how many. */
size_t sessions_to_end(const char *text, const struct proxy_state *state, struct buf *out);

/* ---- cli.c: one line to the proxy's socket, the whole answer back ---- */
struct proxy_call;
/* done: text NULL = failed. Never from inside. 2 s at most. */
struct proxy_call *proxy_call(uv_loop_t *loop, const char *socket, const char *line,
			      void (*done)(void *ctx, const char *text), void *ctx);

/* ---- proxy.c: the process ---- */
struct proxy;
struct proxy *proxy_new(uv_loop_t *loop, const char *program, const char *data);
/* Starts one with the file DATA/haproxy.cfg, taking over the sockets and the work of the one that runs, if any. */
void proxy_start(struct proxy *p, const char *hash);
/* The process that answers at the socket, as just observed; promotes the one being started. */
void proxy_observed(struct proxy *p, int64_t pid, const char *config);
/* The socket did not answer. */
void proxy_silent(struct proxy *p);
bool proxy_running(const struct proxy *p);
bool proxy_starting(const struct proxy *p);
/* Milliseconds to wait before the next start, after failures. */
uint64_t proxy_wait_ms(const struct proxy *p);
/* What runs now ("" = nothing). */
const char *proxy_config(const struct proxy *p);
uint64_t proxy_starts(const struct proxy *p);
/* keep: leaves the process running, to be taken up again; else it is ended. */
struct proxy *proxy_free(struct proxy *p, bool keep);

/* ---- the gateway ---- */
struct peers;

struct gateway {
	uv_loop_t *loop;
	struct settings s;
	struct kube *kube;
	struct kube_cache *services, *slices;
	struct http_server *http;
	struct proxy *proxy;
	struct peers *peers;
	struct timer *tick;
	struct exposures exposures;
	struct strmap *serving;	 /* exposure name -> char*, for the timeline */
	struct strmap *draining; /* "backend/server" -> uint64_t* since */
	json_t *denied;
	struct proxy_state state;
	bool changed, busy, known, looked, stopping;
	char socket[108], config_file[4096], state_file[4096];
	uint64_t built_ms, reloaded_ms, failovers, commands, command_errors, ended;
};

/* ---- sync.c: what is wanted against what the proxy has ---- */
void gateway_tick(void *gateway);
/* Something has changed: look soon. */
void gateway_kick(struct gateway *g);

/* ---- timeline.c ---- */
void gateway_timeline_serving(struct gateway *g, const struct exposure *x, const char *serving);
void gateway_timeline_line(
	struct gateway *g,
	json_t *line); /* steals line; adds time and gateway, writes it to standard output */

/* ---- peers.c: leases of all gateways, distances, status of Services ---- */
struct peers *gateways_new(struct gateway *g);
struct peers *gateways_free(struct peers *p);
/* As route_plan wants it. */
const struct route_distance *gateways_distances(const struct peers *p, size_t *ret_n);
bool gateways_leading(const struct peers *p);
/* Services have changed: the leader looks at their status. */
void gateways_services_changed(struct peers *p);

/* ---- metrics.c ---- */
void gateway_metrics(const struct gateway *g, struct buf *out);
