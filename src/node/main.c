/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu node: entry, settings, wiring of the parts.
 *
 * Order of the start matters: spawner first (a fork of a small process), then what is on disk (containers that ran on), then the API. When it ends by a
 * signal, pods run on; the next agent takes them over. */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "node/agent.h"
#include "node/monitor.h"
#include "node/node.h"

#define TICK_MS	   1000
#define AGENT_NICE -5
/* libuv's workers: some may wait for volumes that do not answer (claim_volume.c), the others have to go on. */
#define WORKERS "32"

static const struct setting table[] = {
	KUBE_SETTINGS(struct node_settings, kube),
	{"name", SETTING_STRING, offsetof(struct node_settings, name), NULL, 0, 0, "NAME",
	 "name of this node"},
	{"zone", SETTING_STRING, offsetof(struct node_settings, zone), NULL, 0, 0, "ZONE",
	 "domain it lies in (topology.kubernetes.io/zone)"},
	{"address", SETTING_STRING, offsetof(struct node_settings, address), NULL, 0, 0, "IP",
	 "its address for the other nodes"},
	{"data", SETTING_STRING, offsetof(struct node_settings, data), "/var/lib/kuayu/node", 0, 0, "DIR",
	 "pods, images, logs"},
	{"image-store", SETTING_STRING, offsetof(struct node_settings, image_store), NULL, 0, 0, "DIR",
	 "OCI layouts DIR/NAME that are used before any registry"},
	{"insecure-registry", SETTING_STRINGS, offsetof(struct node_settings, insecure_registries), NULL, 0,
	 0, "HOST:PORT,...", "registries without TLS"},
	{"tls-cert", SETTING_STRING, offsetof(struct node_settings, tls_cert), NULL, 0, 0, "FILE",
	 "certificate of the HTTPS server"},
	{"tls-key", SETTING_STRING, offsetof(struct node_settings, tls_key), NULL, 0, 0, "FILE", "its key"},
	{"client-ca", SETTING_STRING, offsetof(struct node_settings, client_ca), NULL, 0, 0, "FILE",
	 "CA of the clients that may read logs and metrics"},
	{"listen", SETTING_STRING, offsetof(struct node_settings, listen), "0.0.0.0:10250", 0, 0, "IP:PORT",
	 "HTTPS: logs, stats, metrics"},
	{"csi-endpoint", SETTING_STRINGS, offsetof(struct node_settings, csi_endpoints), NULL, 0, 0,
	 "unix://PATH,...", "CSI drivers of this node; each says itself who it is"},
	{"service-cidr", SETTING_STRING, offsetof(struct node_settings, service_cidr), "10.96.0.0/16", 0, 0,
	 "CIDR", "service addresses"},
	{"pod-cidr", SETTING_STRING, offsetof(struct node_settings, pod_cidr), NULL, 0, 0, "CIDR",
	 "pod network of this node, for clusters whose controller gives none"},
	{"cgroup-parent", SETTING_STRING, offsetof(struct node_settings, cgroup_parent), "/kuayu", 0, 0,
	 "PATH", "control group that holds the pods"},
	{"bridge", SETTING_STRING, offsetof(struct node_settings, bridge), "kuayu0", 0, 0, "NAME",
	 "bridge of the pods"},
	{"label", SETTING_STRINGS, offsetof(struct node_settings, labels), NULL, 0, 0, "KEY=VALUE,...",
	 "further labels of the node"},
	{"sandboxes", SETTING_INT, offsetof(struct node_settings, pool), "4", 1, 32, "COUNT",
	 "sandboxes kept ready for the next pods"},
	{"mtu", SETTING_INT, offsetof(struct node_settings, mtu), "1500", 576, 65535, "BYTES",
	 "of the pod network"},
	{"heartbeat-port", SETTING_INT, offsetof(struct node_settings, heartbeat_port), "10256", 1, 65535,
	 "PORT", "UDP, heartbeats between nodes"},
	{"max-pods", SETTING_INT, offsetof(struct node_settings, pods_max), "110", 1, 1000, "COUNT",
	 "pods at most"},
	{"cpu", SETTING_INT, offsetof(struct node_settings, cpu_milli), "0", 0, 10000000, "MILLICORES",
	 "capacity to report; 0 = the machine's"},
	{"memory", SETTING_INT, offsetof(struct node_settings, memory_bytes), "0", 0, (int64_t)1 << 50,
	 "BYTES", "capacity to report; 0 = the machine's"},
};

static int check_settings(struct node_settings *s, struct err *e)
{
	uint32_t net;
	int bits;

	if (!s->name || !model_subdomain_ok(s->name))
		return err_set(e, -EINVAL, "--name is missing or no valid node name");
	if (!s->address)
		return err_set(e, -EINVAL, "--address is missing");
	if (s->data[0] != '/' || strpbrk(s->data, ":,\\ "))
		return err_set(e, -EINVAL,
			       "--data must be an absolute path without blanks, ':', ',' and '\\'");
	if (s->cgroup_parent[0] != '/' || !s->cgroup_parent[1] || strstr(s->cgroup_parent, "..") ||
	    str_ends(s->cgroup_parent, "/"))
		return err_set(e, -EINVAL, "--cgroup-parent must be a path such as /kuayu");
	if (s->pod_cidr && cidr_parse(s->pod_cidr, &net, &bits) < 0)
		return err_set(e, -EINVAL, "--pod-cidr \"%s\" is no network", s->pod_cidr);
	if (cidr_parse(s->service_cidr, &net, &bits) < 0)
		return err_set(e, -EINVAL, "--service-cidr \"%s\" is no network", s->service_cidr);
	if (!s->tls_cert != !s->tls_key)
		return err_set(e, -EINVAL, "--tls-cert and --tls-key belong together");
	return geteuid() == 0 ? 0 : err_set(e, -EPERM, "the node agent needs root");
}

static int make_folders(struct agent *a, struct err *e)
{
	a->run_dir = xasprintf("%s/run", a->s.data);
	a->pods_dir = xasprintf("%s/pods", a->s.data);
	a->logs_dir = xasprintf("%s/logs", a->s.data);
	a->events_dir = xasprintf("%s/run/events", a->s.data);
	a->crun_root = xasprintf("%s/run/crun", a->s.data);
	a->fence_path = xasprintf("%s/run/fence", a->s.data);
	if (dir_make(a->pods_dir, 0711, e) < 0 || dir_make(a->logs_dir, 0711, e) < 0 ||
	    dir_make(a->events_dir, 0700, e) < 0 || dir_make(a->crun_root, 0700, e) < 0)
		return -EIO;
	a->fence = fence_map(a->fence_path, true, e);
	return a->fence ? 0 : -EIO;
}

/* ---- events of monitors ---- */

static void on_event(uv_fs_event_t *ev, const char *name, int events, int status)
{
	struct agent *a = ev->data;
	_cleanup_free_ char *path = NULL, *uid = NULL;
	struct pod *p;

	(void)events;
	if (status < 0 || !name || !strchr(name, '.'))
		return;
	path = xasprintf("%s/%s", a->events_dir, name);
	if (unlink(path) < 0)
		return; /* the same file is told of twice: made, written */
	uid = xstrndup(name, strcspn(name, "."));
	p = strmap_get(a->pods, uid);
	if (p)
		pod_sync(p);
}

static int watch_events(struct agent *a, struct err *e)
{
	int r;

	(void)dir_remove(a->events_dir, NULL);
	r = dir_make(a->events_dir, 0700, e);
	if (r < 0)
		return r;
	uv_fs_event_init(a->loop, &a->events);
	a->events.data = a;
	r = uv_fs_event_start(&a->events, on_event, a->events_dir, 0);
	return r < 0 ? err_set(e, r, "watching %s: %s", a->events_dir, uv_strerror(r)) : 0;
}

/* ---- caches ---- */

static void on_pod(void *ctx, json_t *old, json_t *obj)
{
	/* Gone, or another pod of the same name took its place while the watch was away. */
	if (old && (!obj || !streq(js_str(old, "metadata.uid"), js_str(obj, "metadata.uid"))))
		pod_vanished(ctx, js_str_or(old, "metadata.uid", ""));
	if (obj)
		pod_changed(ctx, obj);
}

static void on_pods_synced(void *ctx)
{
	pods_reconcile(ctx);
}

static void on_config(void *ctx, json_t *old, json_t *obj)
{
	struct agent *a = ctx;
	const char *uid, *ns = js_str_or(obj ? obj : old, "metadata.namespace", "");
	struct pod *p;

	strmap_foreach (a->pods, uid, p) {
		struct err e = {0};

		if (!streq(p->ns, ns) || !p->volumes_ready || pod_is_stopping(p))
			continue;
		if (volumes_write(p, &e) < 0 && e.code != -ENOENT)
			log_warn("%s/%s: %s", p->ns, p->name, e.text);
	}
	pods_kick(a);
}

static void on_service(void *ctx, json_t *old, json_t *obj)
{
	(void)old, (void)obj;
	services_changed(ctx);
}

static void on_services_synced(void *ctx)
{
	services_changed(ctx);
}

static void on_node(void *ctx, json_t *old, json_t *obj)
{
	struct agent *a = ctx;

	if (obj && streq(js_str(obj, "metadata.name"), a->s.name))
		node_object_seen(a, obj);
	/* Status changes of others every few seconds do not matter here. */
	if (!old || !obj || !json_equal(js_get(old, "spec"), js_get(obj, "spec")) ||
	    !json_equal(js_get(old, "status.addresses"), js_get(obj, "status.addresses")))
		services_changed(a);
}

static struct kube_cache *cache(struct agent *a, const char *group, const char *plural, const char *query,
				void (*changed)(void *, json_t *, json_t *), void (*synced)(void *))
{
	struct kube_cache_handler h = {.changed = changed, .synced = synced, .ctx = a};
	const struct model_kind *k = model_kind_by_plural(group, NULL, plural);

	ensure(k != NULL);
	return kube_cache_new(a->kube, k, NULL, query, &h);
}

static void start_caches(struct agent *a)
{
	_cleanup_free_ char *query = xasprintf("fieldSelector=spec.nodeName=%s", a->s.name);

	a->nodes = cache(a, "", "nodes", NULL, on_node, on_services_synced);
	a->config_maps = cache(a, "", "configmaps", NULL, on_config, NULL);
	a->secrets = cache(a, "", "secrets", NULL, on_config, NULL);
	a->service_cache = cache(a, "", "services", NULL, on_service, on_services_synced);
	a->slices = cache(a, "discovery.k8s.io", "endpointslices", NULL, on_service, on_services_synced);
	a->pod_cache = cache(a, "", "pods", query, on_pod, on_pods_synced);
}

/* ---- timers ---- */

/* Monitors that died, probes of time: once a second over all pods. */
static void on_tick(void *ctx)
{
	pods_kick(ctx);
	claim_volumes_sweep(ctx);
}

static void on_csi_driver(void *ctx, const struct csi_driver *d)
{
	(void)d;
	pods_kick(ctx);
}

/* The agent's own look at the lease. Monitors of singletons look for themselves. */
static void on_fence(void *ctx)
{
	struct agent *a = ctx;
	uint64_t wait_ms;

	if (fence_decide(clock_ms(), fence_last(a->fence), &wait_ms) == FENCE_RUN) {
		timer_start(a->fence_timer, wait_ms + 1, 0);
		return;
	}
	if (!a->fenced) {
		log_warn("no lease renewal for %d ms: singleton pods are stopped", FENCE_AFTER_MS);
		a->fenced = true;
		pods_kick(a);
	}
	timer_start(a->fence_timer, 100, 0);
}

static void on_stop(void *ctx)
{
	struct agent *a = ctx;

	log_info("stopping; pods run on");
	a->stopping = true;
	uv_stop(a->loop);
}

static int start(struct agent *a, struct err *e)
{
	struct images_options io = {.store = a->s.image_store, .insecure = a->s.insecure_registries};
	struct sandboxes_options so = {.bridge = a->s.bridge, .ready = (int)a->s.pool, .mtu = (int)a->s.mtu};
	struct http_client_options ho = {.insecure = true, .connections_max = 64};
	_cleanup_free_ char *images = xasprintf("%s/images", a->s.data),
			    *sandboxes = xasprintf("%s/sandboxes", a->s.data);

	io.dir = images;
	so.dir = sandboxes;
	if (node_capacity(a) < 0)
		return err_set(e, -EIO, "the machine's memory is not known");
	a->images = images_new(a->loop, &io, e);
	a->http = http_client_new(a->loop, &ho, e);
	if (!a->images || !a->http ||
	    kube_new(a->loop, &a->s.kube, "kuayu-node/" KUAYU_VERSION, &a->kube, e) < 0)
		return -EIO;
	a->sandboxes = sandboxes_new(a->loop, &so);
	/* A quick restart of the agent: the last renewal of the former one still holds. */
	a->fenced = fence_decide(clock_ms(), fence_last(a->fence), NULL) != FENCE_RUN;
	a->fence_ended_ms = clock_ms();
	a->peers = peers_new(a, e);
	if (!a->peers || watch_events(a, e) < 0)
		return -EIO;
	if (csi_drivers_new(a->loop, a->s.csi_endpoints, on_csi_driver, a, &a->csi, e) < 0)
		return err_wrap(e, "--csi-endpoint");
	start_caches(a);
	pods_load(a);
	claim_volumes_find_staged(a);
	a->services = services_new(a);
	a->node = node_object_new(a);
	a->lease = lease_new(a);
	a->tick = timer_new(a->loop, on_tick, a);
	timer_start(a->tick, TICK_MS, TICK_MS);
	a->fence_timer = timer_new(a->loop, on_fence, a);
	timer_start(a->fence_timer, 100, 0);
	if (a->s.tls_cert && node_server_start(a, e) < 0)
		return -EIO;
	return 0;
}

static int run(int argc, char **argv, struct err *e)
{
	struct agent *a = xcalloc(1, sizeof(*a));
	int r = settings_parse("node", "Node agent: runs the pods that are bound to this node.", table,
			       ARRAY_SIZE(table), argc, argv, &a->s, NULL, e);

	if (r != 0)
		return r;
	r = check_settings(&a->s, e);
	if (r < 0)
		return r;
	umask(022);
	r = make_folders(a, e);
	if (r < 0)
		return r;
	a->spawner_fd = spawner_start(argc, argv);
	if (a->spawner_fd < 0)
		return err_errno(e, a->spawner_fd, "spawner");
	/* Heartbeats, renewals and fencing go before the pods' own work; monitors and containers come from the spawner, unraised. */
	if (setpriority(PRIO_PROCESS, 0, AGENT_NICE) < 0)
		log_warn("priority: %s", strerror(errno));
	setenv("UV_THREADPOOL_SIZE", WORKERS, 0);
	a->loop = uv_default_loop();
	a->pods = strmap_new();
	a->staged = strmap_new();
	stop_signals(a->loop, on_stop, a);
	r = start(a, e);
	if (r < 0)
		return r;
	log_info("node %s at %s, data in %s", a->s.name, a->s.address, a->s.data);
	uv_run(a->loop, UV_RUN_DEFAULT);
	node_server_stop(a);
	return 0; /* the rest goes with the process; containers and their monitors stay */
}

int cmd_node(int argc, char **argv)
{
	struct err e = {0};
	int r;

	log_init("node", LOG_LEVEL_INFO);
	r = run(argc, argv, &e);
	if (r < 0)
		log_error("%s", e.text);
	return r < 0 ? 1 : 0;
}
