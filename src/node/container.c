/* SPDX-License-Identifier: Apache-2.0 */
/* One container of a pod: its attempts, from image to exit.
 *
 *   WAITING --start--> PREPARING (image) --> CREATING (monitor, crun) --> RUNNING --> EXITED --start--> ...
 *      ^-----------------+ image or configuration missing, crun failed
 *
 * An attempt has a folder POD/containers/NAME/N with config.json, monitor.json, the upper layer and what the monitor writes. state.json
 * beside it survives the agent: number of the attempt, restarts, last state. The pid alone never identifies a process: the start
 * time goes with it. Loop thread only. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/openat2.h>

#include "node/agent.h"
#include "node/cgroup.h"
#include "node/logfile.h"
#include "node/monitor.h"
#include "node/oci.h"
#include "node/small.h"

#define BACKOFF_FIRST_MS 10000
#define BACKOFF_MAX_MS	 300000
#define BACKOFF_RESET_MS 600000
#define RETRY_MS	 1000 /* after a missing image, ConfigMap ... */
#define CREATE_LIMIT_MS	 45000
#define STATE_MAX	 ((size_t)256 << 10)
#define PASSWD_MAX	 ((size_t)256 << 10)
#define MESSAGE_MAX	 4096 /* bytes of a termination message */
#define MESSAGE_LOG_MAX	 2048 /* of one that is the end of the log, and its lines: as Kubernetes */
#define MESSAGE_LINES	 80
#define NICE_BACK	 "5" /* AGENT_NICE the other way */
#define POST_START_MS	 60000

uint64_t container_backoff(uint64_t *backoff_ms, uint64_t ran_ms)
{
	uint64_t delay;

	if (ran_ms >= BACKOFF_RESET_MS)
		*backoff_ms = 0;
	delay = *backoff_ms;
	*backoff_ms = delay ? MIN(delay * 2, BACKOFF_MAX_MS) : BACKOFF_FIRST_MS;
	return delay;
}

struct container *container_new(struct pod *p, const char *name, bool init)
{
	struct container *c = xcalloc(1, sizeof(*c));

	c->pod = p;
	c->name = xstrdup(name);
	c->init = init;
	c->attempt = c->counted = -1;
	c->reason = xstrdup(init ? "PodInitializing" : "ContainerCreating");
	return c;
}

struct container *container_free(struct container *c)
{
	if (!c)
		return NULL;
	probes_stop(c);
	images_cancel(c->pod->a->images, c);
	json_decref(c->last_state);
	free(c->name);
	free(c->dir);
	free(c->id);
	free(c->cgroup);
	free(c->log);
	free(c->reason);
	free(c->message);
	free(c->image_id);
	free(c->image_ref);
	free(c);
	return NULL;
}

const json_t *container_spec(const struct container *c)
{
	return pod_container(c->pod->obj, c->name);
}

void container_set_reason(struct container *c, const char *reason, const char *message)
{
	free(c->reason);
	free(c->message);
	c->reason = reason ? xstrdup(reason) : NULL;
	c->message = message && *message ? xstrdup(message) : NULL;
}

static void set_attempt(struct container *c, int attempt)
{
	struct pod *p = c->pod;

	c->attempt = attempt;
	free(c->dir);
	free(c->id);
	free(c->cgroup);
	free(c->log);
	c->dir = xasprintf("%s/containers/%s/%d", p->dir, c->name, attempt);
	c->id = xasprintf("%s-%s-%d", p->uid, c->name, attempt);
	c->cgroup = xasprintf("%s/%s-%d", p->cgroup, c->name, attempt);
	c->log = xasprintf("%s/%s/%d.log", p->log_dir, c->name, attempt);
}

/* ---- state on disk ---- */

static char *state_path(const struct container *c)
{
	return xasprintf("%s/containers/%s/state.json", c->pod->dir, c->name);
}

void container_save(const struct container *c)
{
	_cleanup_free_ char *path = state_path(c), *text = NULL;
	_cleanup_json_ json_t *j = json_pack(
		"{s:i,s:i,s:I,s:I,s:I,s:s,s:s,s:b}", "attempt", c->attempt, "counted", c->counted, "restarts",
		(json_int_t)c->restarts, "backoff_ms", (json_int_t)c->backoff_ms, "stop_signal",
		(json_int_t)c->stop_signal, "image_id", c->image_id ? c->image_id : "", "image_ref",
		c->image_ref ? c->image_ref : "", "started", c->started);

	if (c->last_state)
		json_object_set(j, "last_state", c->last_state);
	text = js_text(j);
	(void)small_write(path, text, 0600);
}

static json_t *read_state(const char *dir, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name), *text = NULL;
	json_t *j = NULL;
	size_t len;

	if (file_read(path, STATE_MAX, &text, &len, NULL) == 0)
		(void)js_parse_new(text, len, &j, NULL);
	return j;
}

static void monitor_lost(struct container *c);

void container_load(struct container *c)
{
	_cleanup_free_ char *path = state_path(c), *text = NULL;
	_cleanup_json_ json_t *j = NULL;
	size_t len;

	if (file_read(path, STATE_MAX, &text, &len, NULL) < 0 || js_parse_new(text, len, &j, NULL) < 0)
		return;
	c->restarts = js_int(j, "restarts", 0);
	c->counted = (int)js_int(j, "counted", -1);
	c->backoff_ms = (uint64_t)js_int(j, "backoff_ms", 0);
	c->stop_signal = js_int(j, "stop_signal", SIGTERM);
	c->image_id = xstrdup(js_str_or(j, "image_id", ""));
	c->image_ref = xstrdup(js_str_or(j, "image_ref", ""));
	c->last_state = json_incref(js_get(j, "last_state"));
	if (js_int(j, "attempt", -1) < 0)
		return;
	set_attempt(c, (int)js_int(j, "attempt", 0));
	c->state = CONTAINER_CREATING;
	c->creating_ms = clock_ms();
	c->started = js_bool(j, "started", false);
	(void)container_refresh(c);
	if (c->state == CONTAINER_CREATING && !monitor_lives(c->dir))
		monitor_lost(c); /* the machine lost power: nothing runs, and "pid" was not on the disk yet */
	if (c->state == CONTAINER_EXITED && streq(c->reason, "ContainerStatusUnknown")) {
		/* The machine was restarted: no fault of the container, no back-off. */
		c->backoff_ms = 0;
		c->start_at_ms = 0;
		container_save(c);
	}
}

/* ---- what the monitor wrote ---- */

static void become_exited(struct container *c, int code, int sig, int64_t finished_us, const char *reason,
			  const char *message)
{
	uint64_t ran_ms = c->started_us && finished_us > c->started_us
				  ? (uint64_t)(finished_us - c->started_us) / 1000
				  : 0;

	probes_stop(c);
	c->state = CONTAINER_EXITED;
	c->exit_code = code;
	c->exit_signal = sig;
	c->finished_us = finished_us;
	c->pid = 0;
	c->ready = c->started = false;
	c->kill_at_ms = 0;
	c->stopping = false;
	container_set_reason(c, reason, message);
	if (c->counted != c->attempt) /* else a former agent has counted it */
		c->start_at_ms = clock_ms() + container_backoff(&c->backoff_ms, ran_ms);
	else
		c->start_at_ms = clock_ms() + (c->backoff_ms > BACKOFF_FIRST_MS ? c->backoff_ms / 2 : 0);
	c->counted = c->attempt;
	container_save(c);
	log_info("%s/%s container %s ended: %s, status %d", c->pod->ns, c->pod->name, c->name, reason, code);
}

static void take_pid(struct container *c, const json_t *j)
{
	c->pid = (int)js_int(j, "pid", 0);
	c->pid_start = (uint64_t)js_int(j, "start", 0);
	c->monitor = (int)js_int(j, "monitor", 0);
	c->monitor_start = (uint64_t)js_int(j, "monitor_start", 0);
	c->started_us = js_int(j, "started_us", 0);
}

/* The end of its log: what a container that failed says by terminationMessagePolicy FallbackToLogsOnError. Malloc'ed or NULL. */
static char *last_words(const struct container *c)
{
	_cleanup_buf_ struct buf b = {0};
	size_t from;

	if (log_read_end(c->log, MESSAGE_LINES, &b) < 0 || !b.len)
		return NULL;
	from = b.len > MESSAGE_LOG_MAX ? b.len - MESSAGE_LOG_MAX : 0;
	while (from < b.len && ((unsigned char)b.data[from] & 0xc0) == 0x80)
		from++; /* not into a UTF-8 character */
	return xstrndup(b.data + from, b.len - from);
}

/* What the container wrote to its termination message file, or its last words; malloc'ed or NULL. */
static char *termination_message(const struct container *c, bool failed)
{
	_cleanup_free_ char *path = xasprintf("%s/termination-log", c->dir), *text = NULL;
	size_t len;

	if (file_read(path, MESSAGE_MAX, &text, &len, NULL) < 0)
		len = 0;
	if (!len && failed &&
	    streq(js_str(container_spec(c), "terminationMessagePolicy"), "FallbackToLogsOnError")) {
		free(text);
		text = last_words(c);
		len = text ? strlen(text) : 0;
	}
	for (size_t i = 0; i < len; i++)
		if (!text[i])
			text[i] = ' ';
	return take_ptr(text);
}

static void take_exit(struct container *c, const json_t *j)
{
	_cleanup_free_ char *message = NULL;
	int code = (int)js_int(j, "code", 255), sig = (int)js_int(j, "signal", 0);
	bool oom = js_bool(j, "oom", false), fenced = c->fenced || js_bool(j, "fenced", false);
	const char *reason = oom ? "OOMKilled" : fenced ? "Fenced" : code == 0 ? "Completed" : "Error";

	if (fenced)
		c->pod->a->fencings++;
	c->oom = oom;
	c->fenced = fenced;
	message = termination_message(c, code != 0);
	become_exited(
		c, code, sig, js_int(j, "finished_us", clock_wall_us()), reason,
		message && *message ? message
		: fenced ? "the node could not renew its lease for 3 s: singleton stopped before another "
			   "node starts it"
			 : NULL);
}

/* It could not be started: waits, as Kubernetes shows it. */
static void take_failure(struct container *c)
{
	_cleanup_free_ char *path = xasprintf("%s/fail", c->dir), *text = NULL;
	size_t len;

	if (file_read(path, STATE_MAX, &text, &len, NULL) < 0)
		return;
	c->pod->a->start_failures++;
	c->started_us = 0;
	become_exited(c, 128, 0, clock_wall_us(), "StartError", text);
	c->start_at_ms = MAX(c->start_at_ms, clock_ms() + RETRY_MS);
	kube_event(c->pod->a->kube, c->pod->obj, "Warning", "Failed", "Error: %s", text);
}

/* The monitor died without a word: nobody holds the log and the exit status any more. */
static void monitor_lost(struct container *c)
{
	if (proc_alive(c->pid, c->pid_start))
		kill(c->pid, SIGKILL);
	cgroup_kill(c->cgroup);
	cgroup_remove(c->cgroup);
	cgroup_remove_empty(c->pod->cgroup);
	become_exited(c, 137, SIGKILL, clock_wall_us(), "ContainerStatusUnknown",
		      "the container's monitor is gone: its exit status is not known");
}

/* A postStart or preStop command under way; its container may be gone when it ends. */
struct hook {
	struct agent *a;
	char *uid, *name;
	int attempt;
};

static struct hook *hook_new(const struct container *c)
{
	struct hook *h = xcalloc(1, sizeof(*h));

	h->a = c->pod->a;
	h->uid = xstrdup(c->pod->uid);
	h->name = xstrdup(c->name);
	h->attempt = c->attempt;
	return h;
}

static void hook_free(struct hook *h)
{
	free(h->uid);
	free(h->name);
	free(h);
}

static struct container *hook_container(const struct hook *h)
{
	struct pod *p = strmap_get(h->a->pods, h->uid);

	for (size_t i = 0; p && i < p->n; i++)
		if (streq(p->c[i]->name, h->name) && p->c[i]->attempt == h->attempt)
			return p->c[i];
	return NULL;
}

static void on_post_start(void *ctx, const struct proc_result *res)
{
	struct hook *h = ctx;
	struct container *c = hook_container(h);

	if (c && res->status != 0 && c->state == CONTAINER_RUNNING) {
		kube_event(h->a->kube, c->pod->obj, "Warning", "FailedPostStartHook",
			   "postStart of %s ended with status %d: %.200s", c->name, res->status,
			   *res->err_text ? res->err_text : res->out);
		container_stop(c, js_int(c->pod->obj, "spec.terminationGracePeriodSeconds", 30) * 1000);
	}
	hook_free(h);
}

static void run_post_start(struct container *c)
{
	const json_t *command = js_get(container_spec(c), "lifecycle.postStart.exec.command");
	struct hook *h;

	if (!command)
		return;
	h = hook_new(c);
	if (container_exec(c, command, POST_START_MS, on_post_start, h, NULL) < 0)
		hook_free(h);
}

/* As Kubernetes does: a pod counts for what its containers ask for, and all pods together for the machine's processors, so that they get their
 * part beside the machine's own processes, of which each counts for one. */
static void weigh(const struct pod *p)
{
	const json_t *container;
	int64_t millis = 0;
	size_t i;

	json_array_foreach (js_get(p->obj, "spec.containers"), i, container)
		millis += oci_cpu_millis(container);
	cgroup_set_shares(p->cgroup, oci_shares(millis));
	cgroup_set_shares(p->a->s.cgroup_parent, oci_shares(1000 * MAX(sysconf(_SC_NPROCESSORS_ONLN), 1)));
}

bool container_refresh(struct container *c)
{
	enum container_state before = c->state;
	_cleanup_json_ json_t *j = NULL;

	if (c->state != CONTAINER_CREATING && c->state != CONTAINER_RUNNING)
		return false;
	if (c->state == CONTAINER_CREATING) {
		j = read_state(c->dir, "pid");
		if (j) {
			take_pid(c, j);
			c->state = CONTAINER_RUNNING;
			container_set_reason(c, NULL, NULL);
			c->pod->a->starts++;
			weigh(c->pod);
			if (!js_get(container_spec(c), "startupProbe"))
				c->started = true;
			container_save(c);
		} else {
			take_failure(c);
			if (c->state == CONTAINER_CREATING && clock_ms() - c->creating_ms > CREATE_LIMIT_MS)
				monitor_lost(c);
		}
	}
	if (c->state == CONTAINER_RUNNING) {
		_cleanup_json_ json_t *x = read_state(c->dir, "exit");

		if (x) {
			take_exit(c, x);
		} else if (!proc_alive(c->monitor, c->monitor_start)) {
			x = read_state(c->dir, "exit"); /* it may have ended between the two looks */
			if (x)
				take_exit(c, x);
			else
				monitor_lost(c);
		}
	}
	if (before == CONTAINER_CREATING && c->state == CONTAINER_RUNNING) {
		probes_start(c);
		run_post_start(c);
	}
	return c->state != before;
}

/* ---- start ---- */

/* A file of the image as a process inside it would find it; malloc'ed or NULL. */
static char *image_file(const char *rootfs, const char *path)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
	_cleanup_close_ int root = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int fd = root < 0 ? -1 : (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	_cleanup_free_ char *self = xasprintf("/proc/self/fd/%d", fd);
	char *text = NULL;
	size_t len;

	return fd < 0 || file_read(self, PASSWD_MAX, &text, &len, NULL) < 0 ? NULL : text;
}

static int write_json_file(const char *dir, const char *name, const json_t *j)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name), *text = js_text(j);

	return small_write(path, text, 0600);
}

static int signal_number(const char *name)
{
	static const struct {
		const char *name;
		int sig;
	} table[] = {{"TERM", SIGTERM}, {"QUIT", SIGQUIT}, {"INT", SIGINT},   {"HUP", SIGHUP},
		     {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"KILL", SIGKILL}, {"WINCH", SIGWINCH}};
	int64_t n;

	if (!name || !*name)
		return SIGTERM;
	if (str_i64(name, &n) == 0 && n > 0 && n < 65)
		return (int)n;
	if (str_starts(name, "SIG"))
		name += 3;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (streq(name, table[i].name))
			return table[i].sig;
	return SIGTERM;
}

static int make_config(struct container *c, const struct image *img, json_t **ret, struct err *e)
{
	struct pod *p = c->pod;
	_cleanup_free_ char *passwd = image_file(img->rootfs, "/etc/passwd"),
			    *group = image_file(img->rootfs, "/etc/group");
	_cleanup_free_ char *rootfs = xasprintf("%s/rootfs", c->dir);
	_cleanup_json_ json_t *env = NULL,
			      *services = services_env_new(p->a, p->ns,
							   js_bool(p->obj, "spec.enableServiceLinks", true));
	struct env_sources src;
	struct oci_input in = {.pod = p->obj,
			       .container = container_spec(c),
			       .image = img->config,
			       .rootfs = rootfs,
			       .passwd = passwd,
			       .group = group,
			       .cgroup = c->cgroup,
			       .hostname = js_str_or(p->obj, "spec.hostname", p->name)};
	struct oci_mount *mounts;
	int r;

	pod_env_sources(p, &src);
	src.services = services;
	r = env_resolve(&src, in.container, &env, e);
	if (r < 0)
		return r;
	in.env = env;
	if (p->sandbox) {
		in.ns_net = p->sandbox->ns_net;
		in.ns_uts = p->sandbox->ns_uts;
		in.ns_ipc = p->sandbox->ns_ipc;
	}
	r = volumes_mounts(c, in.container, env, &mounts, &in.n_mounts, e);
	if (r < 0)
		return r;
	in.mounts = mounts;
	r = oci_config_new(&in, ret, e);
	volumes_free_mounts(mounts, in.n_mounts);
	return r;
}

static int make_folders(struct container *c, struct err *e)
{
	_cleanup_free_ char *message = xasprintf("%s/termination-log", c->dir);
	int fd;

	static const char *const names[] = {"upper", "work", "rootfs"};
	_cleanup_free_ char *log = xstrdup(c->log);

	*strrchr(log, '/') = 0;
	if (dir_make(log, 0755, e) < 0)
		return -EIO;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", c->dir, names[i]);

		if (dir_make(path, 0755, e) < 0)
			return -EIO;
	}
	fd = open(message, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || fchmod(fd, 0666) < 0)
		return err_errno(e, -errno, "termination message file");
	close(fd);
	return 0;
}

static json_t *monitor_config_new(struct container *c, const struct image *img)
{
	struct agent *a = c->pod->a;
	_cleanup_free_ char *rootfs = xasprintf("%s/rootfs", c->dir);

	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:b,s:s}", "id", c->id, "crun_root", a->crun_root,
			 "rootfs", rootfs, "lower", img->rootfs, "log", c->log, "events", a->events_dir,
			 "event", c->pod->uid, "cgroup", c->cgroup, "singleton", c->pod->singleton, "fence",
			 a->fence_path);
}

static int launch(struct container *c, const struct image *img, struct err *e)
{
	_cleanup_json_ json_t *config = NULL, *mon = NULL;
	int r;

	set_attempt(c, c->attempt + 1);
	r = make_folders(c, e);
	if (r == 0)
		r = make_config(c, img, &config, e);
	if (r == 0) {
		mon = monitor_config_new(c, img);
		r = write_json_file(c->dir, "config.json", config);
	}
	if (r == 0)
		r = write_json_file(c->dir, "monitor.json", mon);
	if (r == 0) {
		r = spawner_run(c->pod->a->spawner_fd, c->dir);
		if (r == -EPIPE || r == -ECONNRESET) {
			log_error("the spawner has died: the agent ends, to be started again; pods run on");
			exit(1);
		}
	}
	if (r < 0) {
		if (e->code == 0)
			err_errno(e, r, "cannot start the container's monitor");
		(void)dir_remove(c->dir, NULL);
		c->attempt--;
		return r;
	}
	c->stop_signal = signal_number(js_str(img->config, "StopSignal"));
	c->state = CONTAINER_CREATING;
	c->creating_ms = clock_ms();
	c->started_us = c->finished_us = 0;
	c->oom = c->fenced = false;
	container_save(c);
	return 0;
}

static void remove_work(uv_work_t *w)
{
	(void)dir_remove(w->data, NULL);
}

static void remove_done(uv_work_t *w, int status)
{
	(void)status;
	free(w->data);
	free(w);
}

/* The attempt before the last one; its log stays for --previous one attempt longer. */
static void remove_old(struct container *c)
{
	_cleanup_free_ char *log = NULL;
	uv_work_t *w;

	if (c->attempt < 1)
		return;
	w = xcalloc(1, sizeof(*w));
	w->data = xasprintf("%s/containers/%s/%d", c->pod->dir, c->name, c->attempt - 1);
	if (uv_queue_work(c->pod->a->loop, w, remove_work, remove_done) < 0)
		remove_done(w, 0);
	if (c->attempt < 2)
		return;
	log = xasprintf("%s/%s/%d.log", c->pod->log_dir, c->name, c->attempt - 2);
	(void)unlink(log);
	for (int i = 1; i < 5; i++) {
		_cleanup_free_ char *old = xasprintf("%s.%d", log, i);

		(void)unlink(old);
	}
}

json_t *container_terminated_new(const struct container *c)
{
	char from[CLOCK_TEXT_MAX], to[CLOCK_TEXT_MAX];
	json_t *t =
		json_pack("{s:i,s:s,s:s}", "exitCode", c->exit_code, "reason",
			  c->reason ? c->reason : "Error", "finishedAt", clock_text(to, c->finished_us, 0));

	json_object_set_new(t, "startedAt",
			    json_string(clock_text(from, c->started_us ? c->started_us : c->finished_us, 0)));
	if (c->exit_signal)
		json_object_set_new(t, "signal", json_integer(c->exit_signal));
	if (c->id) {
		_cleanup_free_ char *id = xasprintf("kuayu://%s", c->id);

		json_object_set_new(t, "containerID", json_string(id));
	}
	if (c->message)
		json_object_set_new(t, "message", json_string(c->message));
	return t;
}

static void keep_last_state(struct container *c)
{
	json_decref(c->last_state);
	c->last_state = json_pack("{s:o}", "terminated", container_terminated_new(c));
}

static void wait_with(struct container *c, const char *reason, const char *text)
{
	c->state = CONTAINER_WAITING;
	c->start_at_ms = clock_ms() + RETRY_MS;
	if (!streq(c->reason, reason))
		kube_event(c->pod->a->kube, c->pod->obj, "Warning", "Failed", "Error: %s: %s", reason, text);
	container_set_reason(c, reason, text);
}

static void on_image(void *ctx, const struct image *img, const char *why, const char *text)
{
	struct container *c = ctx;
	struct err e = {0};
	bool again = c->attempt >= 0;

	if (c->state != CONTAINER_PREPARING)
		return;
	if (pod_is_stopping(c->pod)) {
		c->state = CONTAINER_WAITING;
		pod_sync(c->pod);
		return;
	}
	if (!img) {
		wait_with(c, why, text);
		pod_sync(c->pod);
		return;
	}
	free(c->image_id);
	c->image_id = xstrdup(img->id);
	if (launch(c, img, &e) < 0) {
		wait_with(c,
			  e.code == -EINVAL && strstr(e.text, "runAsNonRoot") ? "CreateContainerConfigError"
			  : e.code == -ENOENT || e.code == -EINVAL	      ? "CreateContainerConfigError"
									      : "RunContainerError",
			  e.text);
	} else {
		if (again) {
			c->restarts++;
			c->pod->a->restarts++;
			container_save(c);
		}
		container_set_reason(c, "ContainerCreating", NULL);
		remove_old(c);
	}
	pod_sync(c->pod);
}

void container_start(struct container *c)
{
	const json_t *spec = container_spec(c);

	ensure(c->state == CONTAINER_WAITING || c->state == CONTAINER_EXITED);
	if (c->state == CONTAINER_EXITED)
		keep_last_state(c);
	c->state = CONTAINER_PREPARING;
	free(c->image_ref);
	c->image_ref = xstrdup(js_str_or(spec, "image", ""));
	images_get(c->pod->a->images, c->image_ref, js_str(spec, "imagePullPolicy"), on_image, c);
}

/* ---- stop, kill, exec ---- */

void container_kill(struct container *c)
{
	if (c->state == CONTAINER_RUNNING && proc_alive(c->pid, c->pid_start))
		kill(c->pid, SIGKILL);
}

static void send_stop(struct container *c)
{
	if (c->state == CONTAINER_RUNNING && proc_alive(c->pid, c->pid_start))
		kill(c->pid, c->stop_signal ? (int)c->stop_signal : SIGTERM);
}

static void on_prestop(void *ctx, const struct proc_result *res)
{
	struct hook *h = ctx;
	struct container *c = hook_container(h);

	if (c && res->status != 0)
		kube_event(h->a->kube, c->pod->obj, "Warning", "FailedPreStopHook",
			   "preStop of %s ended with status %d", c->name, res->status);
	if (c)
		send_stop(c);
	hook_free(h);
}

static bool run_prestop(struct container *c, int64_t grace_ms)
{
	const json_t *command = js_get(container_spec(c), "lifecycle.preStop.exec.command");
	struct hook *h;

	if (!command || grace_ms <= 0)
		return false;
	h = hook_new(c);
	if (container_exec(c, command, (uint64_t)grace_ms, on_prestop, h, NULL) == 0)
		return true;
	hook_free(h);
	return false;
}

void container_stop(struct container *c, int64_t grace_ms)
{
	uint64_t at = clock_ms() + (uint64_t)MAX(grace_ms, 0);

	if (c->state != CONTAINER_RUNNING)
		return;
	if (c->stopping) {
		c->kill_at_ms = MIN(c->kill_at_ms, MAX(at, 1));
		return;
	}
	c->stopping = true;
	c->kill_at_ms = MAX(at, 1);
	c->ready = false;
	if (grace_ms <= 0)
		container_kill(c);
	else if (!run_prestop(c, grace_ms))
		send_stop(c);
}

int container_exec(struct container *c, const json_t *command, uint64_t timeout_ms,
		   void (*done)(void *ctx, const struct proc_result *res), void *ctx, struct proc **ret)
{
	_cleanup_free_ char *ns = xasprintf("--mount=/proc/%d/ns/mnt", c->monitor);
	/* nice: takes back the agent's own raised priority. */
	const char *argv[64] = {"nice",
				"-n",
				NICE_BACK,
				"nsenter",
				ns,
				"--",
				"crun",
				"--root",
				c->pod->a->crun_root,
				"--cgroup-manager=cgroupfs",
				"exec",
				c->id};
	struct proc_options o = {.argv = argv, .timeout_ms = timeout_ms, .out_limit = 16384};
	size_t n = 12, i;
	struct proc *proc;
	json_t *arg;

	if (c->state != CONTAINER_RUNNING || !proc_alive(c->monitor, c->monitor_start))
		return -ESRCH;
	if (json_array_size(command) == 0 || json_array_size(command) > ARRAY_SIZE(argv) - n - 1)
		return -EINVAL;
	json_array_foreach ((json_t *)command, i, arg)
		argv[n++] = json_string_value(arg) ? json_string_value(arg) : "";
	proc = proc_run(c->pod->a->loop, &o, done, ctx);
	if (ret)
		*ret = proc;
	return 0;
}
