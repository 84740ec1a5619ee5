/* SPDX-License-Identifier: Apache-2.0 */
/* Garbage collection by ownerReferences, as Kubernetes does it:
 *   background  an object whose owners are all gone is deleted; that they are gone is asked of the API first, because
 *               two caches may show dependents before their owner;
 *   foreground  an owner with the finalizer foregroundDeletion goes when its dependents have gone; those that have another
 *               owner too stay, and forget this one;
 *   orphan      an owner with the finalizer orphan goes when its dependents have forgotten it.
 * An owner of a kind that is not watched here keeps its dependents. Beside that: pods whose node does not exist any
 * more, and finished pods beyond FINISHED_MAX, oldest first. */
#include "control/reconcile.h"

#define FINISHED_MAX 1000

static json_t *ref_to(const json_t *obj, const char *uid)
{
	json_t *ref;
	size_t i;

	json_array_foreach (js_get(obj, "metadata.ownerReferences"), i, ref)
		if (streq(js_str(ref, "uid"), uid))
			return ref;
	return NULL;
}

/* The owner of kind k that ref of obj names, if it is there and still the same one; else NULL. */
static const json_t *owner_of(const struct world *w, enum kind k, const json_t *obj, const json_t *ref)
{
	const json_t *owner = world_get(w, k, obj_ns(obj), js_str_or(ref, "name", ""));

	return owner && streq(obj_uid(owner), js_str(ref, "uid")) ? owner : NULL;
}

static void drop_finalizer(struct plan *p, enum kind kind, json_t *obj, const char *name)
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

static void forget_owner(struct plan *p, enum kind kind, json_t *obj, const char *uid)
{
	json_t *left = json_array(), *ref;
	size_t i;

	json_array_foreach (js_get(obj, "metadata.ownerReferences"), i, ref)
		if (!streq(js_str(ref, "uid"), uid))
			json_array_append(left, ref);
	plan_patch(p, ACTION_PATCH_MERGE, kind, NULL, obj,
		   json_pack("{s:{s:s, s:o}}", "metadata", "resourceVersion",
			     js_str_or(obj, "metadata.resourceVersion", ""), "ownerReferences", left));
}

/* An owner that stays: the object only forgets the one that goes. */
static bool has_other_owner(const struct world *w, const json_t *obj, const char *uid)
{
	json_t *ref;
	size_t i;

	json_array_foreach (js_get(obj, "metadata.ownerReferences"), i, ref) {
		enum kind k = kind_of(js_str(ref, "apiVersion"), js_str(ref, "kind"));
		const json_t *owner;

		if (streq(js_str(ref, "uid"), uid))
			continue;
		if (k == KINDS)
			return true;
		owner = owner_of(w, k, obj, ref);
		if (owner && !(obj_deleting(owner) && obj_has_finalizer(owner, "foregroundDeletion")))
			return true;
	}
	return false;
}

static void collect_owner(const struct world *w, enum kind owner_kind, json_t *owner, bool orphan,
			  struct plan *p)
{
	_cleanup_free_ struct dependent *all = NULL;
	size_t n = world_dependents(w, obj_uid(owner), &all), left = 0;

	for (size_t i = 0; i < n; i++) {
		const json_t *ref = ref_to(all[i].obj, obj_uid(owner));

		if (orphan) {
			left++;
			forget_owner(p, all[i].kind, all[i].obj, obj_uid(owner));
			continue;
		}
		left += js_bool(ref, "blockOwnerDeletion", false);
		if (has_other_owner(w, all[i].obj, obj_uid(owner)))
			forget_owner(p, all[i].kind, all[i].obj, obj_uid(owner));
		else if (!obj_deleting(all[i].obj))
			plan_delete(p, all[i].kind, all[i].obj, -1);
	}
	if (left == 0)
		drop_finalizer(p, owner_kind, owner, orphan ? "orphan" : "foregroundDeletion");
	else
		plan_again(p, 1000); /* each dependent's end is an event too; this is for the unforeseen */
}

static void collect_dependent(const struct world *w, enum kind kind, json_t *obj, struct plan *p)
{
	const json_t *gone = NULL;
	json_t *ref;
	size_t i;

	json_array_foreach (js_get(obj, "metadata.ownerReferences"), i, ref) {
		enum kind k = kind_of(js_str(ref, "apiVersion"), js_str(ref, "kind"));

		if (k == KINDS || owner_of(w, k, obj, ref))
			return;
		gone = ref;
	}
	if (gone)
		plan_delete_if_owner_gone(p, kind, obj, gone);
}

void gc_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p)
{
	char *rest;
	unsigned long k = strtoul(name, &rest, 10);
	json_t *obj;

	ensure(k < KINDS && *rest == '/');
	obj = world_get(w, (enum kind)k, ns, rest + 1);
	if (!obj)
		return;
	if (obj_deleting(obj)) {
		if (obj_has_finalizer(obj, "orphan"))
			collect_owner(w, (enum kind)k, obj, true, p);
		else if (obj_has_finalizer(obj, "foregroundDeletion"))
			collect_owner(w, (enum kind)k, obj, false, p);
	} else {
		collect_dependent(w, (enum kind)k, obj, p);
	}
}

static int oldest_first(const void *a, const void *b)
{
	int64_t x = obj_time_us(*(json_t *const *)a, "metadata.creationTimestamp");
	int64_t y = obj_time_us(*(json_t *const *)b, "metadata.creationTimestamp");

	return x < y ? -1 : x > y;
}

void podgc_reconcile(const struct world *w, struct plan *p)
{
	_cleanup_free_ json_t **pods = world_list(w, K_POD, NULL, NULL);
	size_t finished = 0;

	for (size_t i = 0; pods[i]; i++) {
		const char *node = js_str(pods[i], "spec.nodeName");

		if (node && *node && !world_get(w, K_NODE, "", node))
			plan_delete_if_node_gone(p, pods[i]);
		else if (pod_is_finished(pods[i]) && !obj_deleting(pods[i]))
			pods[finished++] = pods[i];
	}
	if (finished <= FINISHED_MAX)
		return;
	qsort(pods, finished, sizeof(*pods), oldest_first);
	for (size_t i = 0; i < finished - FINISHED_MAX; i++)
		plan_delete(p, K_POD, pods[i], 0);
}
