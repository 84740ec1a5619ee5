/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu csi: the CSI driver. Identity, controller and node service on one unix socket, for `kuayu node` and `kuayu controller`
 * as well as for the kubelet and the sidecars of a stock Kubernetes. State is on the volume itself (catalog.h) and, for what is bound on
 * this node, in --state. When it ends the mounts stay; the next one takes them over. */
#include "io/io.h"
#include "volume/csi/csi_driver.h"
#include "volume/csi/driver.h"

#include <sys/stat.h>

#define STOP_S 5

struct csi_settings {
	char *endpoint, *node_id, *name, *store, *state, *mount_command, *volume;
	char **mount_options;
	int64_t mount_timeout_ms, threads;
	bool inline_volumes;
};

#define S(member) offsetof(struct csi_settings, member)
static const struct setting settings[] = {
	{"endpoint", SETTING_STRING, S(endpoint), "unix:///run/kuayu/csi.sock", 0, 0, "unix://PATH",
	 "socket to serve on"},
	{"node-id", SETTING_STRING, S(node_id), NULL, 0, 0, "NAME", "name of this node (default: host name)"},
	{"driver-name", SETTING_STRING, S(name), "csi.kuayu.io", 0, 0, "NAME", "name of the driver"},
	{"store", SETTING_STRING, S(store), "$KUAYU_STORE", 0, 0, "URI",
	 "store of the volumes, handed to the mount command"},
	{"volume", SETTING_STRING, S(volume), NULL, 0, 0, "NAME",
	 "kuayu volume for classes that name none; ListVolumes lists it"},
	{"state", SETTING_STRING, S(state), "/var/lib/kuayu/csi", 0, 0, "DIR",
	 "folder for what is bound on this node and for the mounts"},
	{"mount-command", SETTING_STRING, S(mount_command), NULL, 0, 0, "WORDS",
	 "called as WORDS VOLUME DIR --store URI --foreground (default: kuayu mount)"},
	{"mount-option", SETTING_STRINGS, S(mount_options), NULL, 0, 0, "WORD,...",
	 "further words for the mount command"},
	{"mount-timeout", SETTING_DURATION, S(mount_timeout_ms), "20s", 100, 600000, "TIME",
	 "how long a mount may take"},
	{"threads", SETTING_INT, S(threads), "16", 2, 64, "N", "calls at once"},
	{"inline", SETTING_BOOL, S(inline_volumes), "true", 0, 0, NULL,
	 "pods may name a folder of a volume themselves (inline volumes)"},
};

struct role {
	uv_loop_t loop;
	struct driver d;
	pthread_t checker;
	struct mailbox *stay; /* keeps the loop running until it is told to stop */
};

static void on_stop(void *ctx)
{
	struct role *r = ctx;

	alarm(STOP_S); /* a call that waits for a volume must not keep us; nothing here is lost with the process */
	r->d.stopping = true;
	r->d.server = rpc_server_free(r->d.server);
	mailbox_close(r->stay);
}

/* What was bound when the last process ended. A thread: it may wait for mounts. */
static void *run_check(void *arg)
{
	bound_check(arg);
	return NULL;
}

static int prepare_socket(const char *endpoint, struct err *e)
{
	_cleanup_free_ char *dir = NULL;
	char *slash;

	if (!str_starts(endpoint, "unix:///"))
		return str_starts(endpoint, "unix:") ? err_set(e, -EINVAL, "--endpoint must be unix:///PATH")
						     : 0;
	dir = xstrdup(endpoint + strlen("unix://"));
	slash = strrchr(dir, '/');
	*slash = 0;
	return *dir ? dir_make(dir, 0755, e) : 0;
}

static int serve(const struct csi_settings *s, struct driver *d, struct err *e)
{
	_cleanup_free_ struct rpc_method *methods = xcalloc(driver_n_methods, sizeof(*methods));
	struct rpc_server_options o = {.address = s->endpoint,
				       .threads = (int)s->threads,
				       .methods = methods,
				       .n_methods = driver_n_methods};
	int r = prepare_socket(s->endpoint, e);

	for (size_t i = 0; i < driver_n_methods; i++) {
		methods[i] = driver_methods[i];
		methods[i].ctx = d;
	}
	if (r == 0)
		r = rpc_server_new(&o, &d->server, e);
	if (r == 0 && str_starts(s->endpoint, "unix://"))
		(void)chmod(s->endpoint + strlen("unix://"), 0600);
	return r;
}

static int start(const struct csi_settings *s, struct role *role, struct err *e)
{
	struct driver *d = &role->d;
	_cleanup_free_ char *mounts = xasprintf("%s/mounts", s->state);
	struct mounts_options o = {.dir = mounts,
				   .command = s->mount_command,
				   .store = s->store,
				   .options = s->mount_options,
				   .timeout_ms = s->mount_timeout_ms,
				   .again = bound_again,
				   .ctx = d};
	int r;

	pthread_mutex_init(&d->lock, NULL);
	d->bound_file = xasprintf("%s/bound.json", s->state);
	d->inline_volumes = s->inline_volumes;
	r = dir_make(s->state, 0700, e);
	if (r == 0)
		r = bound_load(d, e);
	if (r == 0)
		r = mounts_new(&o, &d->mounts, e);
	if (r == 0 && pthread_create(&role->checker, NULL, run_check, d) != 0)
		r = err_set(e, -EAGAIN, "cannot start a thread");
	return r < 0 ? r : serve(s, d, e);
}

static int run(void *ctx, struct err *e)
{
	const struct csi_settings *s = ctx;
	static struct role role; /* threads may outlive run() when it fails */
	char host[256] = "node";
	int r;

	gethostname(host, sizeof(host) - 1);
	role.d.name = s->name;
	role.d.node_id = s->node_id ? s->node_id : host;
	role.d.volume = s->volume;
	if (s->volume && !mounts_name_ok(s->volume))
		return err_set(e, -EINVAL, "--volume=%s is no name of a volume", s->volume);
	r = start(s, &role, e);
	if (r < 0)
		return r;
	uv_loop_init(&role.loop);
	role.stay = mailbox_new(&role.loop);
	stop_signals(&role.loop, on_stop, &role);
	log_info("serving %s on %s as node %s", role.d.name, s->endpoint, role.d.node_id);
	uv_run(&role.loop, UV_RUN_DEFAULT);
	pthread_join(role.checker, NULL);
	mounts_free(role.d.mounts);
	bound_done(&role.d);
	free(role.d.bound_file);
	uv_loop_close(&role.loop);
	return 0;
}

int cmd_csi(int argc, char **argv)
{
	struct csi_settings s = {0};

	return settings_main("csi", "serves kuayu volumes to Kubernetes by the Container Storage Interface",
			     settings, ARRAY_SIZE(settings), argc, argv, &s, run);
}
