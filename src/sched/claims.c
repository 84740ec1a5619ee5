/* SPDX-License-Identifier: Apache-2.0 */
/* The PersistentVolumeClaims of a pod. Volumes here are reachable from every node, so a bound claim does not limit where its pod may
 * run; the pod only waits until all are bound. Claims of a class with WaitForFirstConsumer are made when a pod that needs them has a node in view:
 * the node is written to the claim (annotation volume.kubernetes.io/selected-node), which is how Kubernetes' provisioners are told, and the
 * pod goes on waiting. */
#include "sched/internal.h"

#define BIND_COMPLETED "pv.kubernetes.io/bind-completed"
#define SELECTED_NODE  "volume.kubernetes.io/selected-node"

static const char *annotation(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(js_get(o, "metadata.annotations"), key));
}

static bool is_bound(const json_t *claim)
{
	return *js_str_or(claim, "spec.volumeName", "") && annotation(claim, BIND_COMPLETED);
}

bool sched_claim_matters(const json_t *old, const json_t *now)
{
	return !old || !now || is_bound(old) != is_bound(now) ||
	       !js_get(old, "metadata.deletionTimestamp") != !js_get(now, "metadata.deletionTimestamp") ||
	       !sched_same_json(old, now, "spec.storageClassName");
}

static bool waits_for_pod(const struct scheduler *s, const json_t *claim)
{
	const json_t *class = kube_cache_get(s->classes, "", js_str_or(claim, "spec.storageClassName", ""));

	return streq(js_str(class, "volumeBindingMode"), "WaitForFirstConsumer");
}

enum sched_claims sched_claims_look(const struct scheduler *s, const json_t *pod, struct buf *text)
{
	enum sched_claims found = CLAIMS_READY;
	json_t *v;
	size_t i;

	json_array_foreach (js_get(pod, "spec.volumes"), i, v) {
		const char *name = js_str(v, "persistentVolumeClaim.claimName");
		const json_t *claim =
			name ? kube_cache_get(s->claims, js_str_or(pod, "metadata.namespace", ""), name)
			     : NULL;
		const char *fault = NULL;

		if (!name)
			continue;
		if (!claim)
			fault = "not found";
		else if (js_get(claim, "metadata.deletionTimestamp"))
			fault = "is being deleted";
		if (fault) {
			(void)buf_addf(text, "persistentvolumeclaim \"%.253s\" %s", name, fault);
			return CLAIMS_WAIT;
		}
		if (is_bound(claim))
			continue;
		if (!waits_for_pod(s, claim)) {
			(void)buf_adds(text, "pod has unbound immediate PersistentVolumeClaims");
			return CLAIMS_WAIT;
		}
		if (!annotation(claim, SELECTED_NODE))
			found = CLAIMS_CHOOSE;
		else if (found == CLAIMS_READY)
			found = CLAIMS_WAIT;
	}
	if (found == CLAIMS_WAIT)
		(void)buf_adds(text, "waiting for the volumes of its PersistentVolumeClaims to be made");
	return found;
}

void sched_claims_choose(struct scheduler *s, const json_t *pod, const char *node)
{
	const struct model_kind *kind = model_kind_by_plural("", "v1", "persistentvolumeclaims");
	const char *ns = js_str_or(pod, "metadata.namespace", "");
	_cleanup_json_ json_t *patch =
		json_pack("{s:{s:{s:s}}}", "metadata", "annotations", SELECTED_NODE, node);
	json_t *v;
	size_t i;

	json_array_foreach (js_get(pod, "spec.volumes"), i, v) {
		const char *name = js_str(v, "persistentVolumeClaim.claimName");
		const json_t *claim = name ? kube_cache_get(s->claims, ns, name) : NULL;

		/* Should the write fail, the flush looks again. */
		if (claim && !is_bound(claim) && !annotation(claim, SELECTED_NODE) && waits_for_pod(s, claim))
			kube_patch(s->kube, kind, ns, name, NULL, KUBE_PATCH_MERGE, patch, NULL, NULL);
	}
}
