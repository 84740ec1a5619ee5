/* SPDX-License-Identifier: Apache-2.0 */
/* Pods of this node: one step of work at a time towards what the API wants.
 *
 *   seen in the API -> folder, volumes, sandbox -> init containers one by one -> containers, restarted by policy
 *   deletionTimestamp -> preStop, SIGTERM, grace, SIGKILL -> sandbox and volumes go -> last status -> DELETE with uid, grace 0
 *   object vanished -> SIGKILL at once -> all goes
 *
 * pod_sync() may be called at any time from any callback; it never blocks and arms a timer for the next thing that is due. What is
 * needed to take the pod over after a restart of the agent is in POD/pod.json and the containers' folders. Until the API has been heard, an
 * adopted pod is only watched: nothing of it is started or stopped.
 *
 * Singletons (fence.h): started only while the lease is valid, and only after a GET sent since then has found the pod: a watch that
 * lags behind must not start a pod that another node runs by now. */
#include "node/agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "node/cgroup.h"
#include "node/small.h"
#include "model/model.h"

#define POD_FILE_MAX	((size_t)4 << 20)
#define RETRY_MS	1000
#define PREDECESSOR_MS	20
#define FIRST_PATCH_MS	150 /* a status that only says "creating" waits so long for a better one */
#define PATCH_RETRY_MS	500
#define GRACE_DEFAULT_S 30

static const struct model_kind *pods_kind(void)
{
	return model_kind_by_plural("", "v1", "pods");
}

bool pod_is_stopping(const struct pod *p)
{
	return p->deleting || p->vanished;
}

static void on_timer(void *ctx)
{
	pod_sync(ctx);
}

static void make_containers(struct pod *p)
{
	json_t *inits = js_get(p->obj, "spec.initContainers"), *apps = js_get(p->obj, "spec.containers"), *c;
	size_t i;

	p->n_init = json_array_size(inits);
	p->c = xcalloc(p->n_init + json_array_size(apps) + 1, sizeof(*p->c));
	json_array_foreach (inits, i, c)
		p->c[p->n++] = container_new(p, js_str_or(c, "name", "x"), true);
	json_array_foreach (apps, i, c)
		p->c[p->n++] = container_new(p, js_str_or(c, "name", "x"), false);
}

static struct pod *pod_new(struct agent *a, json_t *obj)
{
	struct pod *p = xcalloc(1, sizeof(*p));

	p->a = a;
	p->obj = json_incref(obj);
	p->ns = xstrdup(js_str_or(obj, "metadata.namespace", "default"));
	p->name = xstrdup(js_str_or(obj, "metadata.name", ""));
	p->uid = xstrdup(js_str_or(obj, "metadata.uid", ""));
	p->dir = xasprintf("%s/%s", a->pods_dir, p->uid);
	p->log_dir = xasprintf("%s/%s_%s_%s", a->logs_dir, p->ns, p->name, p->uid);
	p->cgroup = xasprintf("%s/pod%s", a->s.cgroup_parent, p->uid);
	p->host_network = js_bool(obj, "spec.hostNetwork", false);
	p->singleton = fence_pod_is_singleton(obj);
	p->start_us = clock_wall_us();
	p->patch_at_ms = clock_ms() + FIRST_PATCH_MS;
	if (p->host_network)
		p->ip = xstrdup(a->s.address);
	p->timer = timer_new(a->loop, on_timer, p);
	make_containers(p);
	claim_volumes_init(p);
	strmap_set(a->pods, p->uid, p);
	return p;
}

static void remove_dirs(uv_work_t *w)
{
	char **dirs = w->data;

	for (size_t i = 0; dirs[i]; i++)
		(void)dir_remove(dirs[i], NULL);
}

static void remove_dirs_done(uv_work_t *w, int status)
{
	(void)status;
	strv_free(w->data);
	free(w);
}

/* Everything of it has ended and been taken down. */
static void pod_free(struct pod *p)
{
	uv_work_t *w = xcalloc(1, sizeof(*w));
	char **dirs = NULL;

	ensure(p->torn_down);
	log_info("%s/%s is gone", p->ns, p->name);
	dirs = strv_add(dirs, p->dir);
	dirs = strv_add(dirs, p->log_dir);
	w->data = dirs;
	if (uv_queue_work(p->a->loop, w, remove_dirs, remove_dirs_done) < 0)
		remove_dirs_done(w, 0);
	cgroup_remove_empty(p->cgroup);
	strmap_del(p->a->pods, p->uid);
	for (size_t i = 0; i < p->n; i++)
		container_free(p->c[i]);
	free(p->c);
	claim_volumes_free(p);
	timer_free(p->timer);
	json_decref(p->obj);
	json_decref(p->status);
	free(p->ns);
	free(p->name);
	free(p->uid);
	free(p->dir);
	free(p->log_dir);
	free(p->cgroup);
	free(p->ip);
	free(p->setup_reason);
	free(p->setup_message);
	free(p);
}

static void save_object(struct pod *p)
{
	_cleanup_free_ char *path = xasprintf("%s/pod.json", p->dir), *text = js_text(p->obj);

	(void)small_write(path, text, 0644);
}

static void save_sandbox(struct pod *p)
{
	_cleanup_free_ char *path = xasprintf("%s/sandbox", p->dir);

	(void)small_write(path, p->sandbox->name, 0644);
}

static void set_setup(struct pod *p, const char *reason, const char *message)
{
	if (reason && !streq(p->setup_reason, reason))
		kube_event(p->a->kube, p->obj, "Warning", reason, "%s", message);
	free(p->setup_reason);
	free(p->setup_message);
	p->setup_reason = reason ? xstrdup(reason) : NULL;
	p->setup_message = reason && message ? xstrdup(message) : NULL;
	p->setup_at_ms = reason ? clock_ms() + RETRY_MS : 0;
}

/* ---- sandbox ---- */

/* Sets the host name inside; a fork, because a process can leave a UTS namespace only for good. */
static void set_hostname(const char *ns_uts, const char *name)
{
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open(ns_uts, O_RDONLY | O_CLOEXEC);

		_exit(fd >= 0 && setns(fd, CLONE_NEWUTS) == 0 && sethostname(name, strlen(name)) == 0 ? 0
												      : 1);
	}
	if (pid > 0)
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
}

static void write_pod_files(struct pod *p)
{
	_cleanup_free_ char *hostname = xasprintf("%s/etc-hostname", p->dir),
			    *resolv = xasprintf("%s/etc-resolv.conf", p->dir);
	_cleanup_free_ char *name = xasprintf("%s\n", js_str_or(p->obj, "spec.hostname", p->name)),
			    *host = NULL;
	size_t len;

	if (!p->host_network)
		(void)small_write(hostname, name, 0644);
	if (file_read("/etc/resolv.conf", 65536, &host, &len, NULL) == 0)
		(void)small_write(resolv, host, 0644);
	hosts_write(p);
}

static bool uses_host_port(const struct pod *p)
{
	json_t *c, *port;
	size_t i, k;

	json_array_foreach (js_get(p->obj, "spec.containers"), i, c)
		json_array_foreach (json_object_get(c, "ports"), k, port)
			if (js_int(port, "hostPort", 0) > 0)
				return true;
	return false;
}

static void on_sandbox(void *ctx, struct sandbox *sb, const char *text)
{
	struct pod *p = ctx;

	p->sandbox_asked = false;
	if (!sb) {
		set_setup(p, "FailedCreatePodSandBox", text);
		pod_sync(p);
		return;
	}
	p->sandbox = sb;
	p->ip = xstrdup(sb->ip);
	save_sandbox(p);
	set_hostname(sb->ns_uts, js_str_or(p->obj, "spec.hostname", p->name));
	write_pod_files(p);
	if (uses_host_port(p))
		services_changed(p->a);
	pod_sync(p);
}

/* true when containers may be started. */
static bool pod_set_up(struct pod *p)
{
	struct err e = {0};

	if (p->setup_at_ms > clock_ms())
		return false;
	if (!p->volumes_ready) {
		if (dir_make(p->dir, 0755, &e) < 0 || volumes_write(p, &e) < 0) {
			set_setup(p, "FailedMount", e.text);
			return false;
		}
		save_object(p);
		p->volumes_ready = true;
		if (p->host_network)
			write_pod_files(p);
	}
	if (!claim_volumes_ready(p, &e)) {
		if (e.code)
			set_setup(p, "FailedMount", e.text);
		return false;
	}
	if (!p->host_network && !p->sandbox) {
		if (!sandboxes_started(p->a->sandboxes)) {
			set_setup(p, "FailedCreatePodSandBox",
				  "the node has no pod network yet (spec.podCIDR of its Node)");
			return false;
		}
		if (!p->sandbox_asked) {
			p->sandbox_asked = true;
			sandbox_take(p->a->sandboxes, on_sandbox, p);
		}
		if (!p->sandbox)
			return false;
	}
	if (p->setup_reason)
		set_setup(p, NULL, NULL);
	return true;
}

/* ---- singletons ---- */

struct confirm {
	struct agent *a;
	char *uid;
	uint64_t sent_ms;
};

static void on_confirmed(void *ctx, int status, json_t *body)
{
	struct confirm *cf = ctx;
	struct pod *p = strmap_get(cf->a->pods, cf->uid);

	if (p) {
		p->confirming = false;
		p->confirm_at_ms = clock_ms() + RETRY_MS / 2;
		if (status == 404 || (status == 200 && !streq(js_str(body, "metadata.uid"), p->uid))) {
			pod_vanished(cf->a, cf->uid);
		} else {
			if (status == 200)
				p->confirmed_ms = cf->sent_ms;
			pod_sync(p);
		}
	}
	free(cf->uid);
	free(cf);
}

static bool singleton_may_start(struct pod *p)
{
	struct agent *a = p->a;
	struct confirm *cf;

	if (!p->singleton)
		return true;
	if (a->fenced || fence_decide(clock_ms(), fence_last(a->fence), NULL) != FENCE_RUN)
		return false;
	if (p->confirmed_ms && p->confirmed_ms >= a->fence_ended_ms)
		return true;
	if (!p->confirming && clock_ms() >= p->confirm_at_ms) {
		cf = xcalloc(1, sizeof(*cf));
		cf->a = a;
		cf->uid = xstrdup(p->uid);
		cf->sent_ms = clock_ms();
		p->confirming = true;
		kube_get(a->kube, pods_kind(), p->ns, p->name, on_confirmed, cf);
	}
	return false;
}

/* ---- steps ---- */

/* Starts it if it is due; true when it has ended for good. */
static bool drive_container(struct pod *p, struct container *c)
{
	if (c->state == CONTAINER_EXITED && !pod_restarts(p, c))
		return true;
	if ((c->state == CONTAINER_WAITING || c->state == CONTAINER_EXITED) && clock_ms() >= c->start_at_ms &&
	    singleton_may_start(p))
		container_start(c);
	return false;
}

/* false: it is not all gone yet. */
static bool release_pod(struct pod *p)
{
	if (!claim_volumes_release(p))
		return false;
	sandbox_cancel(p->a->sandboxes, p);
	p->sandbox_asked = false;
	if (p->sandbox) {
		sandbox_release(p->a->sandboxes, p->sandbox);
		p->sandbox = NULL;
		if (uses_host_port(p))
			services_changed(p->a);
	}
	volumes_remove(p);
	return true;
}

static bool any_process(const struct pod *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->c[i]->state == CONTAINER_RUNNING || p->c[i]->state == CONTAINER_CREATING)
			return true;
	return false;
}

/* A pod of the same name that still has processes here: with a stable name comes stable data, which must not be opened twice. */
static bool has_predecessor(const struct pod *p)
{
	const char *uid;
	struct pod *o;

	strmap_foreach (p->a->pods, uid, o)
		if (o != p && streq(o->name, p->name) && streq(o->ns, p->ns) && !o->torn_down)
			return true;
	return false;
}

static void run_step(struct pod *p)
{
	const char *phase = pod_phase(p);

	if (streq(phase, "Succeeded") || streq(phase, "Failed")) {
		for (size_t i = 0; i < p->n; i++)
			container_kill(p->c[i]);
		if (!any_process(p) && (p->sandbox || p->n_claims))
			(void)release_pod(p);
		return;
	}
	if (!p->seen || p->a->stopping)
		return;
	if (has_predecessor(p)) {
		p->setup_at_ms = clock_ms() + PREDECESSOR_MS;
		return;
	}
	if (!pod_set_up(p))
		return;
	for (size_t i = 0; i < p->n_init; i++) {
		struct container *c = p->c[i];

		if (!drive_container(p, c) || c->exit_code != 0)
			return;
	}
	for (size_t i = p->n_init; i < p->n; i++) {
		struct container *c = p->c[i];

		if (c->init == false && streq(c->reason, "PodInitializing"))
			container_set_reason(c, "ContainerCreating", NULL);
		drive_container(p, c);
	}
}

static void stop_step(struct pod *p)
{
	uint64_t now = clock_ms();
	int64_t grace = p->vanished || now >= p->deadline_ms ? 0 : (int64_t)(p->deadline_ms - now);

	for (size_t i = 0; i < p->n; i++) {
		struct container *c = p->c[i];

		if (c->state == CONTAINER_PREPARING) {
			images_cancel(p->a->images, c);
			c->state = CONTAINER_WAITING;
		}
		if (!c->stopping || grace == 0)
			container_stop(c, grace);
	}
	if (any_process(p))
		return;
	p->torn_down = release_pod(p);
}

static void kill_due(struct pod *p)
{
	uint64_t now = clock_ms();

	for (size_t i = 0; i < p->n; i++) {
		struct container *c = p->c[i];

		if (c->state == CONTAINER_RUNNING && c->kill_at_ms && now >= c->kill_at_ms)
			container_kill(c);
		if (c->state == CONTAINER_RUNNING && p->singleton && p->a->fenced) {
			c->fenced = true;
			container_kill(c); /* its monitor does so too: whoever is first */
		}
	}
}

/* ---- status and deletion ---- */

struct patch {
	struct agent *a;
	char *uid;
	json_t *status;
};

static void on_patched(void *ctx, int status, json_t *body)
{
	struct patch *pt = ctx;
	struct pod *p = strmap_get(pt->a->pods, pt->uid);

	(void)body;
	if (p) {
		p->patching = false;
		if (status == 200) {
			json_decref(p->status);
			p->status = json_incref(pt->status);
			p->failures = 0;
			p->patch_at_ms = 0;
		} else {
			p->failures++;
			p->patch_at_ms =
				clock_ms() + MIN((uint64_t)PATCH_RETRY_MS * (uint64_t)p->failures, 5000);
			log_warn("status of %s/%s: API answered %d", p->ns, p->name, status);
		}
		pod_sync(p);
	}
	json_decref(pt->status);
	free(pt->uid);
	free(pt);
}

/* "Nothing has begun yet" can wait a moment for better news. */
static bool worth_telling(const struct pod *p)
{
	if (p->status || p->setup_reason)
		return true;
	for (size_t i = 0; i < p->n; i++)
		if (p->c[i]->state == CONTAINER_RUNNING || p->c[i]->state == CONTAINER_EXITED)
			return true;
	return false;
}

static void push_status(struct pod *p)
{
	_cleanup_json_ json_t *now = NULL, *patch = NULL;
	struct patch *pt;

	if (!p->seen || p->vanished || p->patching || p->a->stopping)
		return;
	if (clock_ms() < p->patch_at_ms && !(p->failures == 0 && worth_telling(p)))
		return;
	now = pod_status_new(p, clock_wall_us());
	if (p->status && json_equal(now, p->status))
		return;
	patch = json_pack("{s:{s:s},s:O}", "metadata", "uid", p->uid, "status", now);
	pt = xcalloc(1, sizeof(*pt));
	pt->a = p->a;
	pt->uid = xstrdup(p->uid);
	pt->status = json_incref(now);
	p->patching = true;
	kube_patch(p->a->kube, pods_kind(), p->ns, p->name, "status", KUBE_PATCH_MERGE, patch, on_patched,
		   pt);
}

static void on_deleted(void *ctx, int status, json_t *body)
{
	struct patch *pt = ctx;
	struct pod *p = strmap_get(pt->a->pods, pt->uid);

	(void)body;
	if (p) {
		p->delete_sent = status == 200 || status == 202 || status == 404 || status == 409;
		p->delete_at_ms = clock_ms() + RETRY_MS;
		if (status == 404 || status == 409 || status == 200)
			p->vanished = true;
		pod_sync(p);
	}
	free(pt->uid);
	free(pt);
}

static void push_delete(struct pod *p)
{
	struct patch *pt;

	if (p->vanished || p->delete_sent || p->patching || clock_ms() < p->delete_at_ms)
		return;
	pt = xcalloc(1, sizeof(*pt));
	pt->a = p->a;
	pt->uid = xstrdup(p->uid);
	p->delete_sent = true;
	kube_delete(p->a->kube, pods_kind(), p->ns, p->name, p->uid, 0, on_deleted, pt);
}

/* ---- the step ---- */

static void earlier(uint64_t *at, uint64_t candidate)
{
	if (candidate && (!*at || candidate < *at))
		*at = candidate;
}

static void arm(struct pod *p)
{
	uint64_t at = 0, now = clock_ms();

	earlier(&at, p->setup_at_ms);
	if (p->deleting && !p->torn_down)
		earlier(&at, p->deadline_ms);
	if (!p->patching && p->patch_at_ms)
		earlier(&at, p->patch_at_ms);
	if (p->torn_down)
		earlier(&at, p->delete_at_ms);
	if (p->singleton && !p->confirming)
		earlier(&at, p->confirm_at_ms > now ? p->confirm_at_ms : 0);
	for (size_t i = 0; i < p->n; i++) {
		const struct container *c = p->c[i];

		if (c->state == CONTAINER_RUNNING)
			earlier(&at, c->kill_at_ms);
		if ((c->state == CONTAINER_WAITING || c->state == CONTAINER_EXITED) && c->start_at_ms > now)
			earlier(&at, c->start_at_ms);
	}
	if (at)
		timer_start(p->timer, at > now ? at - now : 100, 0);
	else
		timer_stop(p->timer);
}

static void one_round(struct pod *p)
{
	for (size_t i = 0; i < p->n; i++)
		(void)container_refresh(p->c[i]);
	if (!p->torn_down) {
		kill_due(p);
		if (pod_is_stopping(p))
			stop_step(p);
		else
			run_step(p);
	}
}

void pod_sync(struct pod *p)
{
	if (p->syncing) {
		p->again = true;
		return;
	}
	p->syncing = true;
	for (int rounds = 0; rounds < 8; rounds++) {
		p->again = false;
		one_round(p);
		if (!p->again)
			break;
	}
	p->syncing = false;
	push_status(p);
	if (p->torn_down && p->deleting && p->seen)
		push_delete(p);
	if (p->torn_down && p->vanished) {
		pod_free(p);
		return;
	}
	arm(p);
}

/* ---- from the API ---- */

static void begin_delete(struct pod *p)
{
	int64_t grace = js_int(p->obj, "metadata.deletionGracePeriodSeconds",
			       js_int(p->obj, "spec.terminationGracePeriodSeconds", GRACE_DEFAULT_S));
	uint64_t deadline = clock_ms() + (uint64_t)CLAMP(grace, 0, 86400) * 1000;

	if (!p->deleting)
		log_info("%s/%s is to stop within %lld s", p->ns, p->name, (long long)grace);
	p->deadline_ms = p->deleting ? MIN(p->deadline_ms, deadline) : deadline;
	p->deleting = true;
	for (size_t i = 0; i < p->n; i++)
		if (p->c[i]->stopping)
			container_stop(p->c[i], (int64_t)(p->deadline_ms - MIN(p->deadline_ms, clock_ms())));
}

void pod_changed(struct agent *a, json_t *obj)
{
	const char *uid = js_str_or(obj, "metadata.uid", "");
	struct pod *p = strmap_get(a->pods, uid);
	bool fresh = !p, spec_changed;

	if (!*uid || strchr(uid, '/') || *uid == '.')
		return;
	if (fresh) {
		const char *phase = js_str_or(obj, "status.phase", "Pending");

		if (streq(phase, "Succeeded") || streq(phase, "Failed")) {
			if (!js_get(obj, "metadata.deletionTimestamp"))
				return; /* over already; nothing of it is here */
		}
		p = pod_new(a, obj);
		log_info("%s/%s is to run here", p->ns, p->name);
	}
	spec_changed = !json_equal(json_object_get(p->obj, "spec"), json_object_get(obj, "spec")) ||
		       !json_equal(json_object_get(p->obj, "metadata"), json_object_get(obj, "metadata"));
	json_incref(obj);
	json_decref(p->obj);
	p->obj = obj;
	p->seen = true;
	if (js_get(obj, "metadata.deletionTimestamp"))
		begin_delete(p);
	if (spec_changed && p->volumes_ready) {
		save_object(p);
		(void)volumes_write(p, NULL); /* labels in downward API volumes */
	}
	pod_sync(p);
}

void pod_vanished(struct agent *a, const char *uid)
{
	struct pod *p = strmap_get(a->pods, uid);

	if (!p)
		return;
	if (!p->torn_down)
		log_info("%s/%s has gone from the API: killed", p->ns, p->name);
	p->vanished = true;
	pod_sync(p);
}

struct pod *pod_find(struct agent *a, const char *ns, const char *name)
{
	const char *key;
	struct pod *p;

	strmap_foreach (a->pods, key, p)
		if (streq(p->name, name) && streq(p->ns, ns))
			return p;
	return NULL;
}

void pods_kick(struct agent *a)
{
	_cleanup_strv_ char **uids = NULL;
	const char *key;
	struct pod *p;

	strmap_foreach (a->pods, key, p)
		uids = strv_add(uids, key);
	for (size_t i = 0; uids && uids[i]; i++) {
		p = strmap_get(a->pods, uids[i]);
		if (p)
			pod_sync(p);
	}
}

/* ---- adoption ---- */

static void load_one(struct agent *a, const char *uid)
{
	_cleanup_free_ char *path = xasprintf("%s/%s/pod.json", a->pods_dir, uid), *text = NULL;
	_cleanup_free_ char *sb_path = xasprintf("%s/%s/sandbox", a->pods_dir, uid), *sb_name = NULL;
	_cleanup_json_ json_t *obj = NULL;
	struct pod *p;
	size_t len, live = 0;

	if (file_read(path, POD_FILE_MAX, &text, &len, NULL) < 0 || js_parse_new(text, len, &obj, NULL) < 0 ||
	    !streq(js_str(obj, "metadata.uid"), uid)) {
		_cleanup_free_ char *dir = xasprintf("%s/%s", a->pods_dir, uid);

		log_warn("%s holds no pod: removed", dir);
		(void)dir_remove(dir, NULL);
		return;
	}
	p = pod_new(a, obj);
	if (!p->host_network && file_read(sb_path, 200, &sb_name, &len, NULL) == 0) {
		p->sandbox = sandboxes_adopt(a->sandboxes, sb_name);
		if (p->sandbox)
			p->ip = xstrdup(p->sandbox->ip);
	}
	p->volumes_ready = p->host_network || p->sandbox;
	claim_volumes_load(p);
	for (size_t i = 0; i < p->n; i++) {
		container_load(p->c[i]);
		live += p->c[i]->state == CONTAINER_RUNNING;
	}
	log_info("%s/%s adopted, %zu of %zu containers run", p->ns, p->name, live, p->n);
}

void pods_load(struct agent *a)
{
	DIR *d = opendir(a->pods_dir);
	struct dirent *de;

	while (d && (de = readdir(d)))
		if (de->d_name[0] != '.')
			load_one(a, de->d_name);
	if (d)
		closedir(d);
}

void pods_reconcile(struct agent *a)
{
	_cleanup_strv_ char **gone = NULL;
	const char *uid;
	struct pod *p;

	strmap_foreach (a->pods, uid, p)
		if (!p->seen)
			gone = strv_add(gone, uid);
	for (size_t i = 0; gone && gone[i]; i++)
		pod_vanished(a, gone[i]);
}

/* ---- sources of environment and volumes ---- */

static json_t *find_config_map(void *ctx, const char *ns, const char *name)
{
	return kube_cache_get(((struct agent *)ctx)->config_maps, ns, name);
}

static json_t *find_secret(void *ctx, const char *ns, const char *name)
{
	return kube_cache_get(((struct agent *)ctx)->secrets, ns, name);
}

void pod_env_sources(struct pod *p, struct env_sources *s)
{
	*s = (struct env_sources){.pod = p->obj,
				  .pod_ip = p->ip,
				  .host_ip = p->a->s.address,
				  .node_name = p->a->s.name,
				  .config_map = find_config_map,
				  .secret = find_secret,
				  .ctx = p->a,
				  .node_cpu_milli = p->a->cpu_milli,
				  .node_memory_bytes = p->a->memory_bytes};
}
