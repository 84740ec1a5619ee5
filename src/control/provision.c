/* SPDX-License-Identifier: Apache-2.0 */
/* The CSI drivers that the controllers call, and the carrying out of ACTION_CSI_*: first the driver, then what follows in the API; and
 * of a claim's release: no pod may use it, says the API, not a cache. Every step may be repeated, by us or by the next leader: the
 * drivers' calls are idempotent, volumes have names that follow from the claim. */
#include "control/provision.h"

#define CREATE_MS 60000
#define DELETE_MS 60000
#define TEXT_MAX  400

struct provision {
	struct csi_drivers *drivers;
};

struct job {
	struct manager *m;
	enum action_type type;
	json_t *obj, *body;
	provision_done_fn done;
	void *ctx;
};

static void on_seen(void *ctx, const struct csi_driver *d)
{
	struct manager *m = ctx;

	if (!d->controller)
		return;
	world_set_provisioner(m->world, d->name);
	triggers_storage(m);
}

int provision_new(struct manager *m, char *const *endpoints, struct provision **ret, struct err *e)
{
	struct provision *p = xcalloc(1, sizeof(*p));
	int r = csi_drivers_new(m->loop, endpoints, on_seen, m, &p->drivers, e);

	if (r < 0) {
		free(p);
		return err_wrap(e, "--csi-endpoint");
	}
	*ret = p;
	return 0;
}

struct provision *provision_free(struct provision *p)
{
	if (p) {
		csi_drivers_free(p->drivers);
		free(p);
	}
	return NULL;
}

/* ---- jobs ---- */

static void finish(struct job *j, bool ok)
{
	j->done(j->ctx, ok);
	json_decref(j->obj);
	json_decref(j->body);
	free(j);
}

static void failed(struct job *j, const char *reason, const char *text)
{
	kube_event(j->m->kube, j->obj, "Warning", reason, "%.*s", TEXT_MAX, text);
	log_warn("%s/%s: %s: %s", obj_ns(j->obj), obj_name(j->obj), reason, text);
	finish(j, false);
}

static void call_driver(struct job *j, const char *driver, struct csi_request *r, const char *reason)
{
	const struct csi_driver *d = csi_drivers_find(j->m->provision->drivers, driver);

	if (!d) { /* it was there when the plan was made */
		failed(j, reason, "the CSI driver is not known any more");
		return;
	}
	r->ctx = j;
	csi_call(d->csi, r);
}

static json_t *amount_new(const json_t *asked, int64_t bytes)
{
	int64_t milli;

	/* As it was written when it is the same. */
	if (asked && model_quantity_json(asked, &milli) == 0 && (milli / 1000 == bytes || !bytes))
		return json_deep_copy(asked);
	return json_sprintf("%lld", (long long)bytes);
}

/* ---- create ---- */

static void on_volume_made(void *ctx, int status, json_t *body)
{
	struct job *j = ctx;

	if (status != 201 && status != 409) { /* 409: an earlier leader has written it */
		failed(j, "ProvisioningFailed",
		       body ? js_str_or(body, "message", "the API refused the volume")
			    : "no answer of the API");
		return;
	}
	if (status == 201) {
		kube_cache_apply(j->m->caches[K_VOLUME], body);
		kube_event(j->m->kube, j->obj, "Normal", "ProvisioningSucceeded",
			   "Successfully provisioned volume %s", obj_name(body));
	}
	finish(j, true);
}

static json_t *volume_new(const struct job *j, const struct csi_result *r)
{
	const json_t *sc = json_object_get(j->body, "class"), *claim = j->obj;
	const char *driver = js_str_or(sc, "provisioner", "");
	json_t *csi = json_pack("{s:s, s:s}", "driver", driver, "volumeHandle", r->volume_id);
	json_t *spec = json_pack(
		"{s:{s:o}, s:O, s:{s:s, s:s, s:s, s:s, s:s}, s:s, s:s, s:s, s:o}", "capacity", "storage",
		amount_new(json_object_get(js_get(claim, "spec.resources.requests"), "storage"), r->bytes),
		"accessModes", js_get(claim, "spec.accessModes"), "claimRef", "apiVersion", "v1", "kind",
		"PersistentVolumeClaim", "namespace", obj_ns(claim), "name", obj_name(claim), "uid",
		obj_uid(claim), "persistentVolumeReclaimPolicy", js_str_or(sc, "reclaimPolicy", "Delete"),
		"storageClassName", obj_name(sc), "volumeMode", "Filesystem", "csi", csi);

	if (json_object_size(r->context))
		json_object_set_new(csi, "volumeAttributes", json_deep_copy(r->context));
	if (json_array_size(json_object_get(sc, "mountOptions")))
		json_object_set(spec, "mountOptions", json_object_get(sc, "mountOptions"));
	return json_pack("{s:s, s:s, s:{s:o, s:{s:s}}, s:o}", "apiVersion", "v1", "kind", "PersistentVolume",
			 "metadata", "name", json_sprintf("pvc-%s", obj_uid(claim)), "annotations",
			 "pv.kubernetes.io/provisioned-by", driver, "spec", spec);
}

static void on_created(void *ctx, const struct csi_result *r)
{
	struct job *j = ctx;
	_cleanup_json_ json_t *pv = NULL;

	if (r->code != RPC_OK) {
		failed(j, "ProvisioningFailed", r->text);
		return;
	}
	pv = volume_new(j, r);
	if (pv)
		kube_create(j->m->kube, &control_kinds[K_VOLUME], NULL, pv, on_volume_made, j);
	else
		failed(j, "ProvisioningFailed", "the driver's answer is no text");
}

static void create(struct job *j)
{
	const json_t *sc = json_object_get(j->body, "class");
	_cleanup_free_ char *name = xasprintf("pvc-%s", obj_uid(j->obj));
	struct csi_request r = {.method = CSI_CREATE_VOLUME,
				.name = name,
				.bytes = storage_amount(j->obj, "spec.resources.requests"),
				.parameters = json_object_get(sc, "parameters"),
				.access_modes = js_get(j->obj, "spec.accessModes"),
				.mount_options = json_object_get(sc, "mountOptions"),
				.timeout_ms = CREATE_MS,
				.done = on_created};

	call_driver(j, js_str(sc, "provisioner"), &r, "ProvisioningFailed");
}

/* ---- delete ---- */

static void on_volume_gone(void *ctx, int status, json_t *body)
{
	struct job *j = ctx;

	if (status == 200 || status == 404)
		world_bury(j->m->world, K_VOLUME, j->obj);
	finish(j, status == 200 || status == 202 || status == 404 || status == 409);
}

static void on_unprotected(void *ctx, int status, json_t *body)
{
	struct job *j = ctx;

	if (status == 200)
		kube_delete(j->m->kube, &control_kinds[K_VOLUME], NULL, obj_name(j->obj), obj_uid(j->obj), -1,
			    on_volume_gone, j);
	else
		finish(j, status == 404);
}

static void on_removed(void *ctx, const struct csi_result *r)
{
	struct job *j = ctx;
	_cleanup_json_ json_t *left = json_array(), *patch = NULL;
	json_t *f;
	size_t i;

	if (r->code != RPC_OK) {
		patch = json_pack("{s:{s:s, s:s, s:s}}", "status", "phase", "Failed", "message", r->text,
				  "reason", "VolumeFailedDelete");
		kube_patch(j->m->kube, &control_kinds[K_VOLUME], NULL, obj_name(j->obj), "status",
			   KUBE_PATCH_MERGE, patch, NULL, NULL);
		failed(j, "VolumeFailedDelete", r->text);
		return;
	}
	json_array_foreach (js_get(j->obj, "metadata.finalizers"), i, f)
		if (!streq(json_string_value(f), VOLUME_FINALIZER))
			json_array_append(left, f);
	patch = json_pack("{s:{s:s, s:O}}", "metadata", "uid", obj_uid(j->obj), "finalizers", left);
	kube_patch(j->m->kube, &control_kinds[K_VOLUME], NULL, obj_name(j->obj), NULL, KUBE_PATCH_MERGE,
		   patch, on_unprotected, j);
}

/* Data goes only when the API itself says that nobody claims the volume. */
static void on_claim_read(void *ctx, int status, json_t *body)
{
	struct job *j = ctx;
	bool same = status == 200 && streq(obj_uid(body), js_str(j->obj, "spec.claimRef.uid"));
	bool elsewhere = same && *js_str_or(body, "spec.volumeName", "") &&
			 !streq(js_str(body, "spec.volumeName"), obj_name(j->obj));
	struct csi_request r = {.method = CSI_DELETE_VOLUME,
				.volume_id = js_str_or(j->obj, "spec.csi.volumeHandle", ""),
				.timeout_ms = DELETE_MS,
				.done = on_removed};

	if (status == 404 || (status == 200 && (!same || elsewhere)))
		call_driver(j, js_str(j->obj, "spec.csi.driver"), &r, "VolumeFailedDelete");
	else
		finish(j, false); /* it is there, or nobody can tell: look again */
}

/* ---- expand ---- */

static void on_capacity(void *ctx, int status, json_t *body)
{
	struct job *j = ctx;

	if (status == 200)
		kube_cache_apply(j->m->caches[K_VOLUME], body);
	finish(j, status == 200);
}

static void on_expanded(void *ctx, const struct csi_result *r)
{
	struct job *j = ctx;
	const json_t *pv = json_object_get(j->body, "volume");
	_cleanup_json_ json_t *patch = NULL;

	if (r->code != RPC_OK) {
		failed(j, "VolumeResizeFailed", r->text);
		return;
	}
	patch = json_pack(
		"{s:{s:s}, s:{s:{s:o}}}", "metadata", "uid", obj_uid(pv), "spec", "capacity", "storage",
		amount_new(json_object_get(js_get(j->obj, "spec.resources.requests"), "storage"), r->bytes));
	kube_event(j->m->kube, j->obj, "Normal", "VolumeResizeSuccessful", "Resize volume %s succeeded",
		   obj_name(pv));
	kube_patch(j->m->kube, &control_kinds[K_VOLUME], NULL, obj_name(pv), NULL, KUBE_PATCH_MERGE, patch,
		   on_capacity, j);
}

static void expand(struct job *j)
{
	const json_t *pv = json_object_get(j->body, "volume");
	struct csi_request r = {.method = CSI_EXPAND_VOLUME,
				.volume_id = js_str_or(pv, "spec.csi.volumeHandle", ""),
				.bytes = storage_amount(j->obj, "spec.resources.requests"),
				.timeout_ms = CREATE_MS,
				.done = on_expanded};

	call_driver(j, js_str(pv, "spec.csi.driver"), &r, "VolumeResizeFailed");
}

/* ---- release of a claim ---- */

static void on_released(void *ctx, int status, json_t *body)
{
	struct job *j = ctx;

	if (status == 200 && json_array_size(js_get(body, "metadata.finalizers")))
		kube_cache_apply(j->m->caches[K_CLAIM], body);
	else if (status == 200)
		world_bury(j->m->world, K_CLAIM, j->obj);
	finish(j, status == 200 || status == 404);
}

/* The caches may not know yet of a pod that has just got its node. */
static void on_pods(void *ctx, int status, json_t *body)
{
	struct job *j = ctx;
	_cleanup_json_ json_t *left = json_array(), *patch = NULL;
	json_t *o;
	size_t i;

	json_array_foreach (json_object_get(body, "items"), i, o)
		if (pod_holds_claim(o, obj_name(j->obj)))
			status = 0;
	if (status != 200) {
		finish(j, false);
		return;
	}
	json_array_foreach (js_get(j->obj, "metadata.finalizers"), i, o)
		if (!streq(json_string_value(o), CLAIM_FINALIZER))
			json_array_append(left, o);
	patch = json_pack("{s:{s:s, s:s, s:O}}", "metadata", "uid", obj_uid(j->obj), "resourceVersion",
			  js_str_or(j->obj, "metadata.resourceVersion", ""), "finalizers", left);
	kube_patch(j->m->kube, &control_kinds[K_CLAIM], obj_ns(j->obj), obj_name(j->obj), NULL,
		   KUBE_PATCH_MERGE, patch, on_released, j);
}

void provision_carry_out(struct manager *m, const struct action *a, provision_done_fn done, void *ctx)
{
	struct job *j = xcalloc(1, sizeof(*j));

	*j = (struct job){.m = m,
			  .type = a->type,
			  .obj = json_incref(a->obj),
			  .body = json_incref(a->body),
			  .done = done,
			  .ctx = ctx};
	if (a->type == ACTION_CSI_CREATE)
		create(j);
	else if (a->type == ACTION_CSI_EXPAND)
		expand(j);
	else if (a->type == ACTION_CLAIM_RELEASE)
		kube_list(m->kube, &control_kinds[K_POD], obj_ns(j->obj), NULL, on_pods, j);
	else
		kube_get(m->kube, &control_kinds[K_CLAIM], js_str_or(j->obj, "spec.claimRef.namespace", ""),
			 js_str_or(j->obj, "spec.claimRef.name", ""), on_claim_read, j);
}
