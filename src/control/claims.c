/* SPDX-License-Identifier: Apache-2.0 */
/* PersistentVolumeClaims: binding to a volume that is there, asking a CSI driver for a new one, growing, and the finalizer that keeps a
 * claim while a pod uses it.
 *
 * Binding takes small steps, each a compare-and-swap, so that a change of leader in between does no harm: the volume is given to the
 * claim (spec.claimRef), then the claim to the volume (spec.volumeName), then both say Bound. A new volume has the name pvc-UID, so
 * asking twice makes one.
 *
 * A class with WaitForFirstConsumer waits until the scheduler has chosen a node for a pod (annotation). Where the class' provisioner is not
 * one of our CSI drivers the claim is annotated for an external provisioner, as Kubernetes does. */
#include "control/reconcile.h"

#define BIND_COMPLETED	 "pv.kubernetes.io/bind-completed"
#define BOUND_BY_US	 "pv.kubernetes.io/bound-by-controller"
#define SELECTED_NODE	 "volume.kubernetes.io/selected-node"
#define PROVISIONER	 "volume.kubernetes.io/storage-provisioner"
#define PROVISIONER_BETA "volume.beta.kubernetes.io/storage-provisioner"
#define DEFAULT_CLASS	 "storageclass.kubernetes.io/is-default-class"
#define REMIND_MS	 30000 /* what waits for somebody else is said again */

int64_t storage_amount(const json_t *o, const char *path)
{
	int64_t milli = 0;

	(void)model_quantity_json(json_object_get(js_get(o, path), "storage"), &milli);
	return milli / 1000 + (milli % 1000 > 0);
}

bool pod_holds_claim(const json_t *pod, const char *claim)
{
	json_t *v;
	size_t i;

	if (pod_is_finished(pod) || !*js_str_or(pod, "spec.nodeName", ""))
		return false;
	json_array_foreach (js_get(pod, "spec.volumes"), i, v)
		if (streq(js_str(v, "persistentVolumeClaim.claimName"), claim))
			return true;
	return false;
}

void storage_drop_finalizer(struct plan *p, enum kind kind, json_t *obj, const char *name)
{
	json_t *left = json_array(), *f;
	size_t i;

	json_array_foreach (js_get(obj, "metadata.finalizers"), i, f)
		if (!streq(json_string_value(f), name))
			json_array_append(left, f);
	plan_patch(p, ACTION_PATCH_MERGE, kind, NULL, obj,
		   json_pack("{s:{s:s, s:o}}", "metadata", "resourceVersion",
			     js_str_or(obj, "metadata.resourceVersion", ""), "finalizers", left));
}

static bool in_use(const struct world *w, const json_t *claim)
{
	_cleanup_free_ json_t **pods = world_list(w, K_POD, obj_ns(claim), NULL);

	for (size_t i = 0; pods[i]; i++)
		if (pod_holds_claim(pods[i], obj_name(claim)))
			return true;
	return false;
}

bool volume_is_for(const json_t *pv, const json_t *claim)
{
	const char *uid = js_str_or(pv, "spec.claimRef.uid", "");

	return streq(js_str(pv, "spec.claimRef.name"), obj_name(claim)) &&
	       streq(js_str(pv, "spec.claimRef.namespace"), obj_ns(claim)) &&
	       (!*uid || streq(uid, obj_uid(claim)));
}

/* ---- finding a volume ---- */

static bool has_modes(const json_t *pv, const json_t *claim)
{
	json_t *want, *have;
	size_t i, k;

	json_array_foreach (js_get(claim, "spec.accessModes"), i, want) {
		bool found = false;

		json_array_foreach (js_get(pv, "spec.accessModes"), k, have)
			found |= streq(json_string_value(want), json_string_value(have));
		if (!found)
			return false;
	}
	return true;
}

static bool fits(const json_t *pv, const json_t *claim, const char *class)
{
	const json_t *selector = js_get(claim, "spec.selector");

	return !js_get(pv, "spec.claimRef") && !obj_deleting(pv) &&
	       streq(js_str_or(pv, "spec.storageClassName", ""), class) && has_modes(pv, claim) &&
	       storage_amount(pv, "spec.capacity") >= storage_amount(claim, "spec.resources.requests") &&
	       (!selector || model_labels_match(selector, js_get(pv, "metadata.labels")));
}

/* One that is kept for the claim, else (any_fits) the smallest one that fits. */
static json_t *find_volume(const struct world *w, const json_t *claim, const char *class, bool any_fits)
{
	_cleanup_free_ json_t **all = world_list(w, K_VOLUME, NULL, NULL);
	json_t *best = NULL;

	for (size_t i = 0; all[i]; i++) {
		if (volume_is_for(all[i], claim) && !obj_deleting(all[i]))
			return all[i];
		if (any_fits && fits(all[i], claim, class) &&
		    (!best ||
		     storage_amount(all[i], "spec.capacity") < storage_amount(best, "spec.capacity")))
			best = all[i];
	}
	return best;
}

/* The newest class that says so. */
static const json_t *default_class(const struct world *w)
{
	_cleanup_free_ json_t **all = world_list(w, K_STORAGECLASS, NULL, NULL);
	const json_t *best = NULL;

	for (size_t i = 0; all[i]; i++)
		if (streq(obj_annotation(all[i], DEFAULT_CLASS), "true") &&
		    (!best || obj_time_us(all[i], "metadata.creationTimestamp") >
				      obj_time_us(best, "metadata.creationTimestamp")))
			best = all[i];
	return best;
}

/* ---- binding ---- */

/* The volume is given to the claim. */
static void take_volume(json_t *claim, json_t *pv, struct plan *p)
{
	_cleanup_json_ json_t *kept = json_incref(js_get(pv, "spec.claimRef"));
	json_t *copy = json_deep_copy(pv);

	js_set_new(copy, "spec.claimRef",
		   json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "apiVersion", "v1", "kind",
			     "PersistentVolumeClaim", "namespace", obj_ns(claim), "name", obj_name(claim),
			     "uid", obj_uid(claim), "resourceVersion",
			     js_str_or(claim, "metadata.resourceVersion", "")));
	if (!kept)
		json_object_set_new(js_object(copy, "metadata.annotations"), BOUND_BY_US, json_string("yes"));
	plan_update(p, K_VOLUME, NULL, copy);
}

/* The claim is given to the volume. */
static void take_claim(json_t *claim, const json_t *pv, struct plan *p)
{
	plan_patch(p, ACTION_PATCH_MERGE, K_CLAIM, NULL, claim,
		   json_pack("{s:{s:s, s:{s:s, s:s}}, s:{s:s}}", "metadata", "resourceVersion",
			     js_str_or(claim, "metadata.resourceVersion", ""), "annotations", BIND_COMPLETED,
			     "yes", BOUND_BY_US, "yes", "spec", "volumeName", obj_name(pv)));
}

static void bind_to(json_t *claim, json_t *pv, struct plan *p)
{
	if (!*js_str_or(pv, "spec.claimRef.uid", ""))
		take_volume(claim, pv, p);
	else
		take_claim(claim, pv, p);
}

static void set_status(json_t *claim, const json_t *pv, const char *phase, struct plan *p)
{
	json_t *st = json_pack("{s:s}", "phase", phase);

	if (pv) {
		json_object_set(st, "accessModes", js_get(pv, "spec.accessModes"));
		json_object_set(st, "capacity", js_get(pv, "spec.capacity"));
	}
	if (js_get(claim, "status.conditions"))
		json_object_set(st, "conditions", js_get(claim, "status.conditions"));
	plan_status(p, K_CLAIM, claim, st);
}

/* ---- a claim with a volume ---- */

static void grow(const struct world *w, json_t *claim, json_t *pv, struct plan *p)
{
	const char *class = js_str_or(claim, "spec.storageClassName", "");
	const json_t *sc = world_get(w, K_STORAGECLASS, "", class);
	const char *driver = js_str_or(pv, "spec.csi.driver", "");

	if (storage_amount(claim, "spec.resources.requests") <= storage_amount(pv, "spec.capacity"))
		return;
	if (!js_bool(sc, "allowVolumeExpansion", false))
		plan_event(p, claim, "Warning", "VolumeResizeFailed",
			   "storage class \"%s\" does not allow volumes to grow", class);
	else if (world_provisioner(w, driver))
		plan_csi(p, ACTION_CSI_EXPAND, K_CLAIM, claim, json_pack("{s:O}", "volume", pv));
	else
		plan_event(p, claim, "Normal", "ExternalExpanding",
			   "waiting for an external controller to expand this PVC");
}

static void bound(const struct world *w, json_t *claim, struct plan *p)
{
	const char *name = js_str(claim, "spec.volumeName");
	json_t *pv = world_get(w, K_VOLUME, "", name);
	const char *phase = js_str_or(claim, "status.phase", "Pending");

	if (!pv) {
		if (streq(phase, "Bound")) {
			plan_event(p, claim, "Warning", "ClaimLost",
				   "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
			set_status(claim, NULL, "Lost", p);
		}
		return; /* its coming is seen */
	}
	if (js_get(pv, "spec.claimRef") && !volume_is_for(pv, claim)) {
		plan_event(p, claim, "Warning", "FailedBinding",
			   "volume \"%s\" already bound to a different claim.", name);
		if (streq(phase, "Bound"))
			set_status(claim, NULL, "Lost", p);
		return;
	}
	if (!*js_str_or(pv, "spec.claimRef.uid", "")) {
		take_volume(claim, pv, p);
		return;
	}
	if (!obj_annotation(claim, BIND_COMPLETED)) {
		take_claim(claim, pv, p);
		return;
	}
	set_status(claim, pv, "Bound", p);
	grow(w, claim, pv, p);
}

/* ---- a claim without one ---- */

static void external(json_t *claim, const char *provisioner, struct plan *p)
{
	if (!streq(obj_annotation(claim, PROVISIONER), provisioner))
		plan_patch(p, ACTION_PATCH_MERGE, K_CLAIM, NULL, claim,
			   json_pack("{s:{s:{s:s, s:s}}}", "metadata", "annotations", PROVISIONER,
				     provisioner, PROVISIONER_BETA, provisioner));
	plan_event(p, claim, "Normal", "ExternalProvisioning",
		   "Waiting for a volume to be created either by the external provisioner '%s' or manually "
		   "by the "
		   "system administrator.",
		   provisioner);
}

static void provision(const struct world *w, json_t *claim, const char *class, struct plan *p)
{
	json_t *sc = *class ? world_get(w, K_STORAGECLASS, "", class) : NULL;
	const char *provisioner = js_str_or(sc, "provisioner", "");

	if (!*class)
		plan_event(p, claim, "Normal", "FailedBinding",
			   "no persistent volumes available for this claim and no storage class is set");
	else if (!sc)
		plan_event(p, claim, "Warning", "ProvisioningFailed",
			   "storageclass.storage.k8s.io \"%s\" not found", class);
	else if (js_get(claim, "spec.selector"))
		plan_event(p, claim, "Warning", "ProvisioningFailed",
			   "claim.spec.selector is not supported for volumes that are made for a claim");
	else if (streq(provisioner, "kubernetes.io/no-provisioner"))
		plan_event(p, claim, "Normal", "FailedBinding",
			   "no persistent volumes available for this claim");
	else if (world_provisioner(w, provisioner))
		plan_csi(p, ACTION_CSI_CREATE, K_CLAIM, claim, json_pack("{s:O}", "class", sc));
	else
		external(claim, provisioner, p);
	plan_again(p, REMIND_MS);
}

static void unbound(const struct world *w, json_t *claim, struct plan *p)
{
	const json_t *sc;
	const char *class = js_str(claim, "spec.storageClassName");
	bool waits;
	json_t *pv;

	if (!class && (sc = default_class(w))) {
		plan_patch(p, ACTION_PATCH_MERGE, K_CLAIM, NULL, claim,
			   json_pack("{s:{s:s}, s:{s:s}}", "metadata", "resourceVersion",
				     js_str_or(claim, "metadata.resourceVersion", ""), "spec",
				     "storageClassName", obj_name(sc)));
		return;
	}
	class = class ? class : "";
	sc = world_get(w, K_STORAGECLASS, "", class);
	waits = streq(js_str(sc, "volumeBindingMode"), "WaitForFirstConsumer") &&
		!obj_annotation(claim, SELECTED_NODE);
	pv = find_volume(w, claim, class, !waits);
	if (pv)
		bind_to(claim, pv, p);
	else if (waits)
		plan_event(p, claim, "Normal", "WaitForFirstConsumer",
			   "waiting for first consumer to be created before binding");
	else
		provision(w, claim, class, p);
}

void claim_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p)
{
	json_t *claim = world_get(w, K_CLAIM, ns, name);

	if (!claim)
		return;
	if (obj_deleting(claim)) {
		if (obj_has_finalizer(claim, CLAIM_FINALIZER) && !in_use(w, claim))
			plan_csi(p, ACTION_CLAIM_RELEASE, K_CLAIM, claim, json_object());
		return;
	}
	if (*js_str_or(claim, "spec.volumeName", ""))
		bound(w, claim, p);
	else
		unbound(w, claim, p);
}
