/* SPDX-License-Identifier: Apache-2.0 */
/* Claims of a StatefulSet's volumeClaimTemplates: TEMPLATE-SET-ORDINAL, made with the pod, and kept when it goes, unless
 * persistentVolumeClaimRetentionPolicy says otherwise: whenDeleted=Delete makes the set their owner (gc.c does the rest), whenScaled=Delete
 * deletes those of ordinals that are not wanted and have no pod. */
#include "control/reconcile.h"

static char *claim_name(const json_t *set, const json_t *template, int64_t ordinal)
{
	return xasprintf("%s-%s-%lld", js_str_or(template, "metadata.name", ""), obj_name(set),
			 (long long)ordinal);
}

static bool owned(const json_t *claim, const json_t *set)
{
	json_t *ref;
	size_t i;

	json_array_foreach (js_get(claim, "metadata.ownerReferences"), i, ref)
		if (streq(js_str(ref, "uid"), obj_uid(set)))
			return true;
	return false;
}

static bool goes_with_set(const json_t *set)
{
	return streq(js_str(set, "spec.persistentVolumeClaimRetentionPolicy.whenDeleted"), "Delete");
}

static json_t *claim_new(const json_t *set, const json_t *template, const char *name)
{
	const json_t *from = json_object_get(template, "metadata"),
		     *notes = json_object_get(from, "annotations");
	json_t *labels = json_object(), *meta;

	if (json_object_get(from, "labels"))
		json_object_update(labels, json_object_get(from, "labels"));
	if (js_get(set, "spec.selector.matchLabels"))
		json_object_update(labels, js_get(set, "spec.selector.matchLabels"));
	meta = json_pack("{s:s, s:s, s:o}", "name", name, "namespace", obj_ns(set), "labels", labels);
	if (notes)
		json_object_set_new(meta, "annotations", json_deep_copy(notes));
	if (goes_with_set(set))
		json_object_set_new(meta, "ownerReferences",
				    json_pack("[o]", owner_ref_new(set, K_STATEFULSET, false)));
	return json_pack("{s:s, s:s, s:o, s:O}", "apiVersion", "v1", "kind", "PersistentVolumeClaim",
			 "metadata", meta, "spec", json_object_get(template, "spec"));
}

bool set_claims_make(const struct world *w, json_t *set, int64_t ordinal, struct plan *p)
{
	bool ready = true;
	json_t *t;
	size_t i;

	json_array_foreach (js_get(set, "spec.volumeClaimTemplates"), i, t) {
		_cleanup_free_ char *name = claim_name(set, t, ordinal);
		const json_t *there = world_get(w, K_CLAIM, obj_ns(set), name);

		if (there && obj_deleting(there)) {
			ready = false; /* its end is seen */
		} else if (!there && json_object_get(t, "spec")) {
			plan_event(p, set, "Normal", "SuccessfulCreate",
				   "create Claim %s Pod %s-%lld in StatefulSet %s success", name,
				   obj_name(set), (long long)ordinal, obj_name(set));
			plan_create(p, K_CLAIM, claim_new(set, t, name));
		}
	}
	return ready;
}

void set_claims_mount(const json_t *set, json_t *pod, int64_t ordinal)
{
	json_t *volumes, *t, *v;
	size_t i, k;

	if (!json_array_size(js_get(set, "spec.volumeClaimTemplates")))
		return;
	volumes = js_array(pod, "spec.volumes");
	json_array_foreach (js_get(set, "spec.volumeClaimTemplates"), i, t) {
		const char *name = js_str_or(t, "metadata.name", "");
		_cleanup_free_ char *claim = claim_name(set, t, ordinal);

		json_array_foreach (volumes, k, v) /* the template's wins over the pod's */
			if (streq(js_str(v, "name"), name)) {
				json_array_remove(volumes, k);
				break;
			}
		json_array_append_new(volumes, json_pack("{s:s, s:{s:s}}", "name", name,
							 "persistentVolumeClaim", "claimName", claim));
	}
}

/* The ordinal in a claim's name; -1: not one of the set's. */
static int64_t ordinal_of(const json_t *set, const json_t *claim)
{
	json_t *t;
	size_t i;

	json_array_foreach (js_get(set, "spec.volumeClaimTemplates"), i, t) {
		_cleanup_free_ char *prefix =
			xasprintf("%s-%s-", js_str_or(t, "metadata.name", ""), obj_name(set));
		int64_t n;

		if (str_starts(obj_name(claim), prefix) &&
		    str_i64(obj_name(claim) + strlen(prefix), &n) == 0 && n >= 0)
			return n;
	}
	return -1;
}

static void set_owner(const json_t *set, json_t *claim, struct plan *p)
{
	json_t *refs = json_array(), *ref;
	size_t i;

	json_array_foreach (js_get(claim, "metadata.ownerReferences"), i, ref)
		if (!streq(js_str(ref, "uid"), obj_uid(set)))
			json_array_append(refs, ref);
	if (goes_with_set(set))
		json_array_append_new(refs, owner_ref_new(set, K_STATEFULSET, false));
	plan_patch(p, ACTION_PATCH_MERGE, K_CLAIM, NULL, claim,
		   json_pack("{s:{s:s, s:o}}", "metadata", "resourceVersion",
			     js_str_or(claim, "metadata.resourceVersion", ""), "ownerReferences", refs));
}

void set_claims_keep(const struct world *w, json_t *set, int64_t start, int64_t replicas, struct plan *p)
{
	bool scaled = streq(js_str(set, "spec.persistentVolumeClaimRetentionPolicy.whenScaled"), "Delete");
	_cleanup_free_ json_t **all = NULL;

	if (!json_array_size(js_get(set, "spec.volumeClaimTemplates")))
		return;
	all = world_list(w, K_CLAIM, obj_ns(set), NULL);
	for (size_t i = 0; all[i]; i++) {
		int64_t n = ordinal_of(set, all[i]);
		_cleanup_free_ char *pod = xasprintf("%s-%lld", obj_name(set), (long long)n);

		if (n < 0 || obj_deleting(all[i]) ||
		    !model_labels_match(js_get(set, "spec.selector"), js_get(all[i], "metadata.labels")))
			continue;
		if (scaled && (n < start || n >= start + replicas) && !world_get(w, K_POD, obj_ns(set), pod))
			plan_delete(p, K_CLAIM, all[i], -1);
		else if (owned(all[i], set) != goes_with_set(set))
			set_owner(set, all[i], p);
	}
}
