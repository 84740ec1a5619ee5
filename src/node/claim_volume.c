/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes of a pod that somebody else provides: PersistentVolumeClaims (of a CSI driver, or a hostPath) and inline CSI volumes.
 *
 *   LOOK     the claim is read and must be bound, then its volume
 *   STAGE    NodeStageVolume, once for all pods of this node that use the volume (struct staged), when the driver wants it
 *   PUBLISH  NodePublishVolume to POD/volumes/NAME/mount; a record beside it says so, before and after
 *   SUB      sub-paths of the containers are made and resolved in a worker thread
 *   READY    containers may start
 *   LEAVE    NodeUnpublishVolume, and NodeUnstageVolume by the last pod; GONE
 *
 * One call at a time for each volume; each is bounded and comes again after a failure with a back-off, the text is the pod's FailedMount event.
 * When a driver does not take a volume away within LEAVE_MS it is unmounted here, so that a pod ends even when its driver has gone.
 *
 * The loop thread never touches a mounted volume: one that hangs would hang the node's lease with it. A new agent finds the records: what is
 * published and still mounted is taken over, everything else is done again. Staged volumes that nobody uses are found by their own
 * record and unstaged. */
#include "node/agent.h"

#include <dirent.h>
#include <limits.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "model/model.h"
#include "node/small.h"

#define RETRY_FIRST_MS 500
#define RETRY_MAX_MS   10000
#define CALL_MS	       30000
#define LEAVE_MS       40000
#define RECORD_MAX     ((size_t)1 << 20)
#define BIND_COMPLETED "pv.kubernetes.io/bind-completed"

enum step { STEP_LOOK, STEP_STAGE, STEP_PUBLISH, STEP_SUB, STEP_READY, STEP_LEAVE, STEP_GONE };

struct claim_volume {
	struct pod *pod;
	char *name;
	enum step step;
	bool busy, published; /* published: maybe; it has to be taken away */
	uint64_t retry_at_ms, backoff_ms, leave_by_ms;
	char *fault;
	/* what it is; known after LOOK */
	char *driver, *id, *fs_type, *target, *host_path;
	json_t *context, *modes, *options;
	bool read_only, is_inline;
	char *claim_uid;
	struct staged *staged; /* NULL = not held */
	json_t *subs;	       /* sub-path -> real path */
};

/* A volume that is staged on this node, or about to be. */
struct staged {
	struct agent *a;
	char *dir, *path; /* DIR/volume.json, DIR/globalmount */
	char *driver, *id;
	int users;
	bool done, busy;
	uint64_t retry_at_ms;
};

/* ---- small helpers ---- */

static char *volume_dir(const struct claim_volume *v)
{
	return xasprintf("%s/volumes/%s", v->pod->dir, v->name);
}

static char *record_path(const struct claim_volume *v)
{
	return xasprintf("%s/claims/%s.json", v->pod->dir, v->name);
}

static void save(const struct claim_volume *v)
{
	_cleanup_free_ char *path = record_path(v), *dir = xasprintf("%s/claims", v->pod->dir), *text = NULL;
	_cleanup_json_ json_t *o = json_pack(
		"{s:s*, s:s*, s:s*, s:s*, s:O*, s:O*, s:O*, s:b, s:b, s:b, s:s*}", "driver", v->driver, "id",
		v->id, "fsType", v->fs_type, "hostPath", v->host_path, "context", v->context, "accessModes",
		v->modes, "mountOptions", v->options, "readOnly", v->read_only, "inline", v->is_inline,
		"published", v->step >= STEP_SUB && v->step <= STEP_READY, "staging",
		v->staged ? v->staged->path : NULL);

	text = js_text(o);
	if (dir_make(dir, 0700, NULL) == 0)
		(void)small_write(path, text, 0600);
}

static void retry(struct claim_volume *v, const char *fmt, ...) _printf_(2, 3);
static void retry(struct claim_volume *v, const char *fmt, ...)
{
	char text[500];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	free(v->fault);
	v->fault = xasprintf("volume \"%s\": %s", v->name, text);
	v->backoff_ms = CLAMP(v->backoff_ms * 2, RETRY_FIRST_MS, RETRY_MAX_MS);
	v->retry_at_ms = clock_ms() + v->backoff_ms;
}

static void go(struct claim_volume *v, enum step step)
{
	v->step = step;
	v->backoff_ms = 0;
	v->retry_at_ms = 0;
	free(v->fault);
	v->fault = NULL;
}

static const struct csi_driver *driver_of(struct claim_volume *v)
{
	const struct csi_driver *d = csi_drivers_find(v->pod->a->csi, v->driver);

	if (!d)
		retry(v, "CSI driver %s is not there (yet) on this node", v->driver ? v->driver : "");
	return d;
}

static struct csi_request request(struct claim_volume *v, enum csi_method m,
				  void (*done)(void *ctx, const struct csi_result *r))
{
	return (struct csi_request){.method = m,
				    .volume_id = v->id,
				    .staging = v->staged ? v->staged->path : NULL,
				    .target = v->target,
				    .context = v->context,
				    .access_modes = v->modes,
				    .mount_options = v->options,
				    .fs_type = v->fs_type,
				    .read_only = v->read_only,
				    .timeout_ms = CALL_MS,
				    .done = done,
				    .ctx = v};
}

/* ---- LOOK ---- */

static json_t *copy_of(const json_t *o, const char *path)
{
	return js_get(o, path) ? json_deep_copy(js_get(o, path)) : NULL;
}

static void is_known(struct claim_volume *v, const char *driver, const char *id, const char *fs_type)
{
	_cleanup_free_ char *dir = volume_dir(v);

	free(v->driver);
	free(v->id);
	free(v->fs_type);
	free(v->target);
	v->driver = xstrdup(driver);
	v->id = xstrdup(id);
	v->fs_type = fs_type && *fs_type ? xstrdup(fs_type) : NULL;
	v->target = xasprintf("%s/mount", dir);
}

static void on_volume(void *ctx, int status, json_t *pv)
{
	struct claim_volume *v = ctx;

	v->busy = false;
	if (status != 200) {
		retry(v, "its PersistentVolume cannot be read: %d %s", status, js_str_or(pv, "message", ""));
	} else if (!streq(js_str(pv, "spec.claimRef.uid"), v->claim_uid)) {
		retry(v, "PersistentVolume %s belongs to another claim", js_str_or(pv, "metadata.name", ""));
	} else if (js_get(pv, "spec.hostPath")) {
		free(v->host_path);
		v->host_path = xstrdup(js_str_or(pv, "spec.hostPath.path", "/nowhere"));
		go(v, STEP_SUB);
		save(v);
	} else {
		v->read_only |= js_bool(pv, "spec.csi.readOnly", false);
		json_decref(v->context);
		json_decref(v->modes);
		json_decref(v->options);
		v->context = copy_of(pv, "spec.csi.volumeAttributes");
		v->modes = copy_of(pv, "spec.accessModes");
		v->options = copy_of(pv, "spec.mountOptions");
		is_known(v, js_str_or(pv, "spec.csi.driver", ""), js_str_or(pv, "spec.csi.volumeHandle", ""),
			 js_str(pv, "spec.csi.fsType"));
		go(v, STEP_STAGE);
	}
	pod_sync(v->pod);
}

static void on_claim(void *ctx, int status, json_t *claim)
{
	struct claim_volume *v = ctx;
	const char *name = js_str_or(claim, "spec.volumeName", "");

	if (status != 200)
		retry(v, "its PersistentVolumeClaim cannot be read: %d %s", status,
		      js_str_or(claim, "message", ""));
	else if (!*name || !json_object_get(js_get(claim, "metadata.annotations"), BIND_COMPLETED))
		retry(v, "PersistentVolumeClaim %s is not bound", js_str_or(claim, "metadata.name", ""));
	else {
		free(v->claim_uid);
		v->claim_uid = xstrdup(js_str_or(claim, "metadata.uid", ""));
		kube_get(v->pod->a->kube, model_kind_by_plural("", "v1", "persistentvolumes"), NULL, name,
			 on_volume, v);
		return;
	}
	v->busy = false;
	pod_sync(v->pod);
}

/* The pod itself says what it is. */
static void look_inline(struct claim_volume *v, const json_t *csi)
{
	struct pod *p = v->pod;
	_cleanup_free_ char *id = xasprintf("csi-%s-%s", p->uid, v->name);

	v->is_inline = true;
	json_decref(v->context);
	v->context = json_object_get(csi, "volumeAttributes")
			     ? json_deep_copy(json_object_get(csi, "volumeAttributes"))
			     : json_object();
	json_object_set_new(v->context, "csi.storage.k8s.io/ephemeral", json_string("true"));
	json_object_set_new(v->context, "csi.storage.k8s.io/pod.name", json_string(p->name));
	json_object_set_new(v->context, "csi.storage.k8s.io/pod.namespace", json_string(p->ns));
	json_object_set_new(v->context, "csi.storage.k8s.io/pod.uid", json_string(p->uid));
	is_known(v, js_str_or(csi, "driver", ""), id, js_str(csi, "fsType"));
	go(v, STEP_STAGE);
}

static const json_t *spec_of(const struct claim_volume *v)
{
	json_t *s;
	size_t i;

	json_array_foreach (js_get(v->pod->obj, "spec.volumes"), i, s)
		if (streq(js_str(s, "name"), v->name))
			return s;
	return NULL;
}

static void look(struct claim_volume *v)
{
	const json_t *s = spec_of(v), *csi = json_object_get(s, "csi");

	v->read_only = js_bool(s, csi ? "csi.readOnly" : "persistentVolumeClaim.readOnly", false);
	if (csi) {
		look_inline(v, csi);
		return;
	}
	v->busy = true;
	kube_get(v->pod->a->kube, model_kind_by_plural("", "v1", "persistentvolumeclaims"), v->pod->ns,
		 js_str_or(s, "persistentVolumeClaim.claimName", ""), on_claim, v);
}

/* ---- STAGE ---- */

static struct staged *staged_get(struct agent *a, const char *driver, const char *id)
{
	_cleanup_free_ char *both = xasprintf("%s\n%s", driver, id);
	char name[17];
	struct staged *s;

	snprintf(name, sizeof(name), "%016llx", (unsigned long long)hash_fnv64(both, strlen(both)));
	s = strmap_get(a->staged, name);
	if (s)
		return streq(s->driver, driver) && streq(s->id, id) ? s : NULL;
	s = xcalloc(1, sizeof(*s));
	s->a = a;
	s->dir = xasprintf("%s/csi/%s", a->s.data, name);
	s->path = xasprintf("%s/globalmount", s->dir);
	s->driver = xstrdup(driver);
	s->id = xstrdup(id);
	strmap_set(a->staged, name, s);
	return s;
}

static void staged_free(struct staged *s)
{
	_cleanup_free_ char *record = xasprintf("%s/volume.json", s->dir);

	(void)rmdir(s->path);
	(void)unlink(record);
	(void)rmdir(s->dir);
	strmap_del(s->a->staged, strrchr(s->dir, '/') + 1);
	free(s->dir);
	free(s->path);
	free(s->driver);
	free(s->id);
	free(s);
}

/* Written before the driver is called: whatever happens, it will be unstaged. */
static int staged_record(struct staged *s, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/volume.json", s->dir), *text = NULL;
	_cleanup_json_ json_t *o = json_pack("{s:s, s:s}", "driver", s->driver, "id", s->id);
	int r = dir_make(s->dir, 0700, e);

	if (r == 0 && mkdir(s->path, 0700) < 0 && errno != EEXIST)
		r = err_errno(e, -errno, "%s", s->path);
	if (r < 0)
		return r;
	text = js_text(o);
	return small_write(path, text, 0600);
}

static void on_staged(void *ctx, const struct csi_result *r)
{
	struct claim_volume *v = ctx;

	v->busy = false;
	v->staged->busy = false;
	if (r->code == RPC_OK) {
		v->staged->done = true;
		go(v, STEP_PUBLISH);
	} else {
		retry(v, "NodeStageVolume: %s", r->text);
	}
	pods_kick(v->pod->a); /* others may have waited for it */
}

static void stage(struct claim_volume *v)
{
	const struct csi_driver *d = driver_of(v);
	struct csi_request r;
	struct err e = {0};

	if (!d)
		return;
	if (v->is_inline || !d->stage) {
		go(v, STEP_PUBLISH);
		return;
	}
	if (!v->staged) {
		v->staged = staged_get(v->pod->a, v->driver, v->id);
		if (!v->staged) {
			retry(v, "two volumes with the same hash");
			return;
		}
		v->staged->users++;
	}
	if (v->staged->busy)
		return;
	if (v->staged->done) {
		go(v, STEP_PUBLISH);
		return;
	}
	if (staged_record(v->staged, &e) < 0) {
		retry(v, "%s", e.text);
		return;
	}
	v->busy = v->staged->busy = true;
	r = request(v, CSI_NODE_STAGE, on_staged);
	csi_call(d->csi, &r);
}

static void on_unstaged(void *ctx, const struct csi_result *r)
{
	struct staged *s = ctx;
	struct agent *a = s->a;

	s->busy = false;
	if (r->code == RPC_OK || r->code == RPC_NOT_FOUND) {
		s->done = false;
		if (!s->users)
			staged_free(s);
	} else {
		log_warn("NodeUnstageVolume %s: %s", s->id, r->text);
		s->retry_at_ms = clock_ms() + RETRY_MAX_MS;
	}
	pods_kick(a);
}

/* Those that nobody uses; again and again until their driver takes them. */
void claim_volumes_sweep(struct agent *a)
{
	const char *key;
	struct staged *s;

	strmap_foreach (a->staged, key, s) {
		const struct csi_driver *d = csi_drivers_find(a->csi, s->driver);

		if (s->users || s->busy || !d || clock_ms() < s->retry_at_ms)
			continue;
		s->busy = true;
		csi_call(d->csi, &(struct csi_request){.method = CSI_NODE_UNSTAGE,
						       .volume_id = s->id,
						       .staging = s->path,
						       .timeout_ms = CALL_MS,
						       .done = on_unstaged,
						       .ctx = s});
	}
}

/* ---- PUBLISH ---- */

static void on_published(void *ctx, const struct csi_result *r)
{
	struct claim_volume *v = ctx;

	v->busy = false;
	if (r->code == RPC_OK) {
		go(v, STEP_SUB);
		save(v);
	} else {
		if (r->code == RPC_FAILED_PRECONDITION && v->staged) {
			v->staged->done = false; /* the node was started anew: staged again */
			v->step = STEP_STAGE;
		}
		retry(v, "NodePublishVolume: %s", r->text);
	}
	pod_sync(v->pod);
}

static void publish(struct claim_volume *v)
{
	const struct csi_driver *d = driver_of(v);
	_cleanup_free_ char *dir = volume_dir(v);
	struct csi_request r;
	struct err e = {0};

	if (!d)
		return;
	if (dir_make(dir, 0750, &e) < 0) {
		retry(v, "%s", e.text);
		return;
	}
	v->published = true;
	save(v);
	v->busy = true;
	r = request(v, CSI_NODE_PUBLISH, on_published);
	csi_call(d->csi, &r);
}

/* ---- SUB: in a worker thread, which may wait for the volume's file system ---- */

struct sub_work {
	uv_work_t work;
	struct claim_volume *v;
	char *root;
	bool writable, make;	/* make: a folder of the node, made when it is missing */
	json_t *wanted, *found; /* array of texts; text -> real path */
	struct err e;
};

static int resolve(struct sub_work *w, const char *sub)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", w->root, sub);
	char root[PATH_MAX], real[PATH_MAX];
	size_t n;

	if (!realpath(w->root, root))
		return err_errno(&w->e, -errno, "%s", w->root);
	if (access(path, F_OK) < 0 && w->writable && dir_make(path, 0777, &w->e) < 0)
		return -EIO;
	if (!realpath(path, real))
		return err_errno(&w->e, -errno, "subPath %s", sub);
	n = strlen(root);
	if (strncmp(real, root, n) != 0 || (real[n] && real[n] != '/'))
		return err_set(&w->e, -EINVAL, "subPath \"%s\" leads out of its volume", sub);
	json_object_set_new(w->found, sub, json_string(real));
	return 0;
}

static void run_sub(uv_work_t *work)
{
	struct sub_work *w = container_of(work, struct sub_work, work);
	struct stat st;
	json_t *s;
	size_t i;

	if (w->make && access(w->root, F_OK) < 0)
		(void)dir_make(w->root, 0755, &w->e);
	if (w->e.code == 0 && stat(w->root, &st) < 0)
		err_errno(&w->e, -errno, "%s", w->root);
	json_array_foreach (w->wanted, i, s)
		if (w->e.code == 0)
			(void)resolve(w, json_string_value(s));
}

static void on_sub(uv_work_t *work, int status)
{
	struct sub_work *w = container_of(work, struct sub_work, work);
	struct claim_volume *v = w->v;

	(void)status;
	v->busy = false;
	if (w->e.code == 0) {
		json_object_update(v->subs, w->found);
		go(v, STEP_READY);
	} else {
		retry(v, "%s", w->e.text);
	}
	json_decref(w->wanted);
	json_decref(w->found);
	free(w->root);
	free(w);
	pod_sync(v->pod);
}

/* Texts that are fixed; those with variables are resolved when the container has its environment. */
static json_t *sub_paths_new(const struct claim_volume *v)
{
	static const char *const lists[] = {"spec.initContainers", "spec.containers"};
	json_t *out = json_array(), *c, *m;
	size_t i, k;

	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		json_array_foreach (js_get(v->pod->obj, lists[l]), i, c)
			json_array_foreach (json_object_get(c, "volumeMounts"), k, m)
				if (streq(js_str(m, "name"), v->name) && *js_str_or(m, "subPath", "") &&
				    !json_object_get(v->subs, js_str_or(m, "subPath", "")))
					json_array_append_new(out, json_string(js_str(m, "subPath")));
	return out;
}

/* Takes wanted over. */
static void start_sub(struct claim_volume *v, json_t *wanted)
{
	struct sub_work *w = xcalloc(1, sizeof(*w));

	w->v = v;
	w->root = xstrdup(v->host_path ? v->host_path : v->target);
	w->writable = !v->read_only;
	w->make = v->host_path != NULL;
	w->wanted = wanted;
	w->found = json_object();
	v->busy = true;
	if (uv_queue_work(v->pod->a->loop, &w->work, run_sub, on_sub) < 0) {
		(void)err_set(&w->e, -EAGAIN, "no worker thread");
		on_sub(&w->work, 0);
	}
}

/* ---- LEAVE ---- */

static void gone(struct claim_volume *v)
{
	_cleanup_free_ char *path = record_path(v);
	struct agent *a = v->pod->a;

	if (v->staged) {
		v->staged->users--;
		v->staged = NULL;
		claim_volumes_sweep(a);
	}
	v->published = false;
	(void)unlink(path);
	go(v, STEP_GONE);
}

static void on_unpublished(void *ctx, const struct csi_result *r)
{
	struct claim_volume *v = ctx;

	v->busy = false;
	if (r->code == RPC_OK || r->code == RPC_NOT_FOUND)
		gone(v);
	else
		retry(v, "NodeUnpublishVolume: %s", r->text);
	pod_sync(v->pod);
}

static void leave(struct claim_volume *v)
{
	const struct csi_driver *d;
	struct csi_request r;

	if (!v->published) {
		gone(v);
		return;
	}
	if (clock_ms() >= v->leave_by_ms) {
		log_error("%s/%s: %s; unmounted without its driver", v->pod->ns, v->pod->name,
			  v->fault ? v->fault : v->name);
		while (mount_is_point(v->target) && umount2(v->target, UMOUNT_NOFOLLOW | MNT_DETACH) == 0)
			continue;
		gone(v);
		return;
	}
	d = driver_of(v);
	if (!d)
		return;
	v->busy = true;
	r = request(v, CSI_NODE_UNPUBLISH, on_unpublished);
	csi_call(d->csi, &r);
}

/* ---- a pod's ---- */

static void step(struct claim_volume *v)
{
	if (v->busy || clock_ms() < v->retry_at_ms)
		return;
	if (v->step == STEP_LOOK) /* each may lead to the next at once */
		look(v);
	if (!v->busy && v->step == STEP_STAGE && clock_ms() >= v->retry_at_ms)
		stage(v);
	if (!v->busy && v->step == STEP_PUBLISH && clock_ms() >= v->retry_at_ms)
		publish(v);
	if (!v->busy && v->step == STEP_SUB && clock_ms() >= v->retry_at_ms)
		start_sub(v, sub_paths_new(v));
}

int claim_volumes_ready(struct pod *p, struct err *e)
{
	bool ready = true;

	for (size_t i = 0; i < p->n_claims; i++) {
		struct claim_volume *v = p->claims[i];

		if (v->step != STEP_READY)
			step(v);
		ready &= v->step == STEP_READY;
		if (v->fault && e && !e->code)
			(void)err_set(e, -EAGAIN, "%s", v->fault);
	}
	return ready;
}

bool claim_volumes_release(struct pod *p)
{
	bool all = true;

	for (size_t i = 0; i < p->n_claims; i++) {
		struct claim_volume *v = p->claims[i];

		if (!v->busy && v->step < STEP_LEAVE) {
			go(v, STEP_LEAVE);
			v->leave_by_ms = clock_ms() + LEAVE_MS;
		}
		if (!v->busy && v->step == STEP_LEAVE && clock_ms() >= v->retry_at_ms)
			leave(v);
		all &= v->step == STEP_GONE;
	}
	return all;
}

void claim_volumes_free(struct pod *p)
{
	for (size_t i = 0; i < p->n_claims; i++) {
		struct claim_volume *v = p->claims[i];

		ensure(!v->busy);
		free(v->name);
		free(v->fault);
		free(v->driver);
		free(v->id);
		free(v->fs_type);
		free(v->target);
		free(v->host_path);
		free(v->claim_uid);
		json_decref(v->context);
		json_decref(v->modes);
		json_decref(v->options);
		json_decref(v->subs);
		free(v);
	}
	free(p->claims);
	p->claims = NULL;
	p->n_claims = 0;
}

void claim_volumes_init(struct pod *p)
{
	json_t *list = js_get(p->obj, "spec.volumes"), *s;
	size_t i;

	p->claims = xcalloc(json_array_size(list) + 1, sizeof(*p->claims));
	json_array_foreach (list, i, s) {
		struct claim_volume *v;
		const char *name = js_str_or(s, "name", "");

		if ((!json_object_get(s, "persistentVolumeClaim") && !json_object_get(s, "csi")) ||
		    !model_name_ok(name))
			continue;
		v = xcalloc(1, sizeof(*v));
		v->pod = p;
		v->name = xstrdup(name);
		v->subs = json_object();
		p->claims[p->n_claims++] = v;
	}
}

/* ---- taking over ---- */

/* What the record of a former agent says; true when it is mounted still. */
static bool load(struct claim_volume *v)
{
	_cleanup_free_ char *path = record_path(v), *text = NULL;
	_cleanup_json_ json_t *o = NULL;
	size_t len;

	if (file_read(path, RECORD_MAX, &text, &len, NULL) < 0 || js_parse_new(text, len, &o, NULL) < 0)
		return false;
	v->read_only = js_bool(o, "readOnly", false);
	v->is_inline = js_bool(o, "inline", false);
	v->context = copy_of(o, "context");
	v->modes = copy_of(o, "accessModes");
	v->options = copy_of(o, "mountOptions");
	if (js_str(o, "hostPath")) {
		v->host_path = xstrdup(js_str(o, "hostPath"));
		return true;
	}
	is_known(v, js_str_or(o, "driver", ""), js_str_or(o, "id", ""), js_str(o, "fsType"));
	v->published = true;
	if (js_str(o, "staging")) {
		v->staged = staged_get(v->pod->a, v->driver, v->id);
		if (v->staged) {
			v->staged->users++;
			v->staged->done = mount_is_point(v->staged->path);
		}
	}
	return js_bool(o, "published", false) && mount_is_point(v->target) && (!v->staged || v->staged->done);
}

void claim_volumes_load(struct pod *p)
{
	for (size_t i = 0; i < p->n_claims; i++) {
		struct claim_volume *v = p->claims[i];
		bool mounted = load(v);

		v->step = mounted ? STEP_SUB : v->driver ? STEP_STAGE : STEP_LOOK;
	}
}

void claim_volumes_find_staged(struct agent *a)
{
	_cleanup_free_ char *dir = xasprintf("%s/csi", a->s.data);
	struct dirent *de;
	DIR *d = opendir(dir);

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s/volume.json", dir, de->d_name), *text = NULL;
		_cleanup_json_ json_t *o = NULL;
		size_t len;

		if (de->d_name[0] == '.' || file_read(path, RECORD_MAX, &text, &len, NULL) < 0 ||
		    js_parse_new(text, len, &o, NULL) < 0 || !js_str(o, "driver") || !js_str(o, "id"))
			continue;
		(void)staged_get(a, js_str(o, "driver"), js_str(o, "id"));
	}
	if (d)
		closedir(d);
}

/* ---- for containers ---- */

static struct claim_volume *find(const struct pod *p, const char *name)
{
	for (size_t i = 0; i < p->n_claims; i++)
		if (streq(p->claims[i]->name, name))
			return p->claims[i];
	return NULL;
}

bool claim_volume_is(const struct pod *p, const char *name)
{
	return find(p, name) != NULL;
}

int claim_volume_source(struct pod *p, const char *name, const char *sub, char **ret, bool *ret_read_only,
			struct err *e)
{
	struct claim_volume *v = find(p, name);
	const char *real;

	if (v->step != STEP_READY)
		return err_set(e, -EAGAIN, "volume \"%s\" is not ready", name);
	*ret_read_only = v->read_only;
	if (!*sub) {
		*ret = xstrdup(v->host_path ? v->host_path : v->target);
		return 0;
	}
	real = json_string_value(json_object_get(v->subs, sub));
	if (!real) { /* with variables: made now, the container's next try finds it */
		start_sub(v, json_pack("[s]", sub));
		v->step = STEP_SUB;
		return err_set(e, -EAGAIN, "subPath \"%s\" of volume \"%s\" is being made", sub, name);
	}
	*ret = xstrdup(real);
	return 0;
}
