/* SPDX-License-Identifier: Apache-2.0 */
/* Shared structures of the node agent's parts. Loop thread only unless said otherwise. */
#pragma once

#include "csi/csi.h"
#include "io/io.h"
#include "kube/kube.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "node/env.h"
#include "node/fence.h"
#include "node/image.h"
#include "node/sandbox.h"

struct pod;
struct probe;
struct peers;
struct lease;
struct services;
struct node_object;
struct claim_volume;

struct node_settings {
	struct kube_settings kube;
	char *name, *zone, *address, *data, *image_store, *tls_cert, *tls_key, *client_ca, *listen,
		*service_cidr;
	char *cgroup_parent, *pod_cidr, *bridge;
	char **labels, **insecure_registries, **csi_endpoints;
	int64_t pool, mtu, heartbeat_port, pods_max, cpu_milli, memory_bytes;
};

struct agent {
	uv_loop_t *loop;
	struct node_settings s;
	int spawner_fd;
	char *run_dir, *pods_dir, *logs_dir, *events_dir, *crun_root, *fence_path;
	struct kube *kube;
	struct kube_cache *pod_cache, *config_maps, *secrets, *service_cache, *slices, *nodes;
	struct http_client *http; /* probes */
	struct http_server *server;
	struct strmap *pods; /* uid -> struct pod */
	struct csi_drivers *csi;
	struct strmap *staged; /* claim_volume.c */
	struct images *images;
	struct sandboxes *sandboxes;
	struct fence_page *fence;
	struct peers *peers;
	struct lease *lease;
	struct services *services;
	struct node_object *node;
	struct timer *tick, *fence_timer;
	uv_fs_event_t events;
	bool fenced;		 /* no valid lease: singletons are stopped */
	uint64_t fence_ended_ms; /* since when the lease has been valid without a gap */
	bool stopping;
	int64_t cpu_milli, memory_bytes; /* capacity */
	uint64_t starts, start_failures, restarts, fencings;
};

/* ---- containers (container.c) ---- */
enum container_state {
	CONTAINER_WAITING,   /* not running; reason says why */
	CONTAINER_PREPARING, /* image asked for */
	CONTAINER_CREATING,  /* monitor and crun are at work */
	CONTAINER_RUNNING,
	CONTAINER_EXITED,
};

struct container {
	struct pod *pod;
	char *name;
	bool init;
	enum container_state state;
	int attempt; /* number of the present one, from 0; -1 = none yet */
	int counted; /* attempt whose end is in backoff_ms */
	int64_t restarts;
	char *dir, *id, *cgroup, *log; /* of the present attempt */
	int pid, monitor;
	uint64_t pid_start, monitor_start;
	int64_t started_us, finished_us;
	int exit_code, exit_signal;
	bool oom, fenced, stopping;
	char *reason, *message;
	char *image_id;
	char *image_ref;
	json_t *last_state;   /* {"terminated": ...} or NULL */
	uint64_t backoff_ms;  /* next delay */
	uint64_t start_at_ms; /* not before */
	uint64_t creating_ms; /* begun */
	uint64_t kill_at_ms;  /* SIGKILL then; 0 = not stopping */
	int64_t stop_signal;
	struct probe *startup, *liveness, *readiness;
	bool started, ready;
};

struct container *container_new(struct pod *p, const char *name, bool init);
struct container *container_free(struct container *c);
/* What the API says of it; borrowed from the pod object. */
const json_t *container_spec(const struct container *c);
/* Begins a new attempt; state changes later call pod_sync. */
void container_start(struct container *c);
/* Looks at what the monitor has written; true when the state changed. Also finds monitors that died. */
bool container_refresh(struct container *c);
/* preStop, SIGTERM, SIGKILL after grace_ms. Again with a shorter grace: the shorter one counts. */
void container_stop(struct container *c, int64_t grace_ms);
void container_kill(struct container *c);
/* State of a former agent. */
void container_load(struct container *c);
void container_save(const struct container *c);
void container_set_reason(struct container *c, const char *reason, const char *message);
/* {"exitCode", "reason", ...} of an exited container; new reference. */
json_t *container_terminated_new(const struct container *c);
/* Delay before the next start after an exit: 0 the first time, then 10 s doubling to 300 s; a run of 10 minutes starts
 * anew. Pure; *backoff_ms is the delay used last. */
uint64_t container_backoff(uint64_t *backoff_ms, uint64_t ran_ms);
/* Runs a command inside; argv NULL-terminated. done as of proc_run. -ESRCH when it does not run. */
int container_exec(struct container *c, const json_t *command, uint64_t timeout_ms,
		   void (*done)(void *ctx, const struct proc_result *res), void *ctx, struct proc **ret);

/* ---- pods (pod.c) ---- */
struct pod {
	struct agent *a;
	char *ns, *name, *uid;
	json_t *obj; /* newest seen */
	char *dir, *log_dir, *cgroup;
	struct sandbox *sandbox;
	char *ip;
	bool host_network, singleton, sandbox_asked, volumes_ready, deleting, vanished, torn_down,
		delete_sent;
	bool seen;		/* in the API since this agent started */
	bool confirming;	/* a GET is under way */
	uint64_t confirmed_ms;	/* sending of the last GET that found it; singletons start only after one */
	uint64_t confirm_at_ms; /* next try */
	uint64_t delete_at_ms;
	char *setup_reason, *setup_message;
	uint64_t setup_at_ms; /* next try */
	struct container **c; /* init containers first */
	size_t n_init, n;
	struct claim_volume **claims;
	size_t n_claims;
	uint64_t deadline_ms; /* of a graceful stop */
	int64_t start_us;
	json_t *status; /* last one the API acknowledged or has been sent */
	bool patching, final_sent;
	uint64_t patch_at_ms;
	int failures; /* status patches in a row */
	struct timer *timer;
	bool syncing, again;
};

void pod_changed(struct agent *a, json_t *obj);
/* Its API object has gone: everything is killed at once. */
void pod_vanished(struct agent *a, const char *uid);
/* One step towards what the API wants; cheap, may be called any time. */
void pod_sync(struct pod *p);
void pods_load(struct agent *a);
/* After the first complete list: what is on disk but not in the API is killed. */
void pods_reconcile(struct agent *a);
bool pod_is_stopping(const struct pod *p);
/* Will a container that has ended be started again? Pure. */
bool pod_restarts(const struct pod *p, const struct container *c);
/* Runs pod_sync on all, for configuration or lease changes. */
void pods_kick(struct agent *a);
/* Sources for env.h. */
void pod_env_sources(struct pod *p, struct env_sources *s);
struct pod *pod_find(struct agent *a, const char *ns, const char *name);

/* ---- status (status.c): pure ---- */
json_t *pod_status_new(const struct pod *p, int64_t now_us);
const char *pod_phase(const struct pod *p);
const char *pod_status_qos(const json_t *pod);
bool pod_ready(const struct pod *p);

/* ---- volumes (volume.c) ---- */
/* Makes or updates what the pod's volumes show. -ENOENT: a ConfigMap, Secret or key is missing (try again later). */
int volumes_write(struct pod *p, struct err *e);
void volumes_remove(struct pod *p);
struct oci_mount;
/* Mounts of a container; *ret_mounts is freed with volumes_free_mounts. */
int volumes_mounts(struct container *c, const json_t *container, const json_t *env,
		   struct oci_mount **ret_mounts, size_t *ret_n, struct err *e);
void volumes_free_mounts(struct oci_mount *m, size_t n);

/* ---- claims and CSI volumes (claim_volume.c) ---- */
void claim_volumes_init(struct pod *p);
/* The state of a former agent. */
void claim_volumes_load(struct pod *p);
/* All there? Works towards it; e (code 0 before) gets the reason why not, where there is one. */
int claim_volumes_ready(struct pod *p, struct err *e);
/* All gone? Works towards it. */
bool claim_volumes_release(struct pod *p);
void claim_volumes_free(struct pod *p);
bool claim_volume_is(const struct pod *p, const char *name);
/* Where it is mounted (with its sub-path, "" = none); malloc'ed. -EAGAIN: a sub-path is being made, try again. */
int claim_volume_source(struct pod *p, const char *name, const char *sub, char **ret, bool *ret_read_only,
			struct err *e);
/* What former agents staged, after their pods are loaded. */
void claim_volumes_find_staged(struct agent *a);
/* Unstages what nobody uses. */
void claim_volumes_sweep(struct agent *a);

/* ---- probes (probe.c) ---- */
enum probe_kind { PROBE_STARTUP, PROBE_LIVENESS, PROBE_READINESS };
/* Starts the probes that the container has; results change its started/ready or stop it, then pod_sync. */
void probes_start(struct container *c);
void probes_stop(struct container *c);

/* ---- node, lease, peers ---- */
struct node_object *node_object_new(struct agent *a);
void node_object_seen(struct agent *a, json_t *node);
int node_capacity(struct agent *a);
struct lease *lease_new(struct agent *a);
/* At once, for changes of the peers' view. */
void lease_renew(struct agent *a);
struct peers *peers_new(struct agent *a, struct err *e);
/* {"b1": ms since heard, ...}; new reference. */
json_t *peers_view_new(const struct peers *p);
/* Peers silent for longer than this are told of at once. */
#define PEER_SILENT_MS 800

/* ---- services, routes, hosts ---- */
struct services *services_new(struct agent *a);
void services_changed(struct agent *a); /* coalesced */
/* Lines of /etc/hosts for pods of a namespace; malloc'ed. */
char *services_hosts(struct agent *a, const char *ns);
/* FOO_SERVICE_HOST, FOO_SERVICE_PORT ...; new reference. */
json_t *services_env_new(struct agent *a, const char *ns, bool all); /* all = not only the API's */
/* Rewrites /etc/hosts of a pod if it differs. */
void hosts_write(struct pod *p);

/* ---- HTTPS server (server.c, stats.c) ---- */
int node_server_start(struct agent *a, struct err *e);
void node_server_stop(struct agent *a);
json_t *stats_summary_new(struct agent *a);
void stats_metrics(struct agent *a, struct buf *out);
