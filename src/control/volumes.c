/* SPDX-License-Identifier: Apache-2.0 */
/* PersistentVolumes: their phase, and what happens when the claim has gone. Available -> Bound -> Released; a volume with
 * policy Delete that one of our CSI drivers made is then deleted with its data: only after the API itself has said that the claim is gone
 * (provision.c), because a cache may lag. The finalizer keeps a volume while it is bound. */
#include "control/reconcile.h"

#define PROVISIONED_BY "pv.kubernetes.io/provisioned-by"

static void set_phase(json_t *pv, const char *phase, struct plan *p)
{
	json_t *st;

	if (streq(js_str(pv, "status.phase"), phase))
		return;
	st = json_pack("{s:s, s:o}", "phase", phase, "lastPhaseTransitionTime", plan_time(p));
	plan_status(p, K_VOLUME, pv, st);
}

static bool ours(const struct world *w, const json_t *pv)
{
	const char *by = obj_annotation(pv, PROVISIONED_BY);

	return by && streq(by, js_str(pv, "spec.csi.driver")) && world_provisioner(w, by);
}

static void unprotect(json_t *pv, struct plan *p)
{
	if (obj_deleting(pv) && obj_has_finalizer(pv, VOLUME_FINALIZER))
		storage_drop_finalizer(p, K_VOLUME, pv, VOLUME_FINALIZER);
}

/* The claim has gone, or is bound to another volume. */
static void released(const struct world *w, json_t *pv, struct plan *p)
{
	bool erase = streq(js_str(pv, "spec.persistentVolumeReclaimPolicy"), "Delete") && ours(w, pv);

	if (!streq(js_str(pv, "status.phase"), "Failed"))
		set_phase(pv, "Released", p);
	if (erase)
		plan_csi(p, ACTION_CSI_DELETE, K_VOLUME, pv, json_object());
	else
		unprotect(pv, p);
}

void volume_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p)
{
	json_t *pv = world_get(w, K_VOLUME, "", name), *claim;
	const char *at;

	if (!pv)
		return;
	if (!*js_str_or(pv, "spec.claimRef.uid", "")) { /* free, or kept for a claim that has not come */
		set_phase(pv, "Available", p);
		unprotect(pv, p);
		return;
	}
	claim = world_get(w, K_CLAIM, js_str_or(pv, "spec.claimRef.namespace", ""),
			  js_str_or(pv, "spec.claimRef.name", ""));
	if (!claim || !volume_is_for(pv, claim)) {
		released(w, pv, p);
		return;
	}
	at = js_str_or(claim, "spec.volumeName", "");
	if (streq(at, name))
		set_phase(pv, "Bound", p);
	else if (*at)
		released(w, pv, p);
	/* else the claim is about to take it */
}
