/* SPDX-License-Identifier: Apache-2.0 */
/* The controllers' picture of the cluster: one map a kind, references shared with the caches, and an index from an
 * owner's uid to what names it as an owner. */
#include "control/world.h"

struct world {
	struct strmap *objects[KINDS];
	struct strmap *dependents; /* uid of an owner -> map of "kind/ns/name" -> json_t (borrowed) */
	struct strmap
		*buried[KINDS]; /* "ns/name" -> uid of an object deleted by us, until its deletion is seen */
	struct strmap *provisioners; /* name -> anything */
};

const struct model_kind control_kinds[KINDS] = {
	[K_NAMESPACE] = {.group = "", .version = "v1", .kind = "Namespace", .plural = "namespaces"},
	[K_NODE] = {.group = "", .version = "v1", .kind = "Node", .plural = "nodes"},
	[K_POD] = {.group = "", .version = "v1", .kind = "Pod", .plural = "pods", .namespaced = true},
	[K_REPLICASET] = {.group = "apps",
			  .version = "v1",
			  .kind = "ReplicaSet",
			  .plural = "replicasets",
			  .namespaced = true},
	[K_DEPLOYMENT] = {.group = "apps",
			  .version = "v1",
			  .kind = "Deployment",
			  .plural = "deployments",
			  .namespaced = true},
	[K_STATEFULSET] = {.group = "apps",
			   .version = "v1",
			   .kind = "StatefulSet",
			   .plural = "statefulsets",
			   .namespaced = true},
	[K_SERVICE] =
		{.group = "", .version = "v1", .kind = "Service", .plural = "services", .namespaced = true},
	[K_ENDPOINTSLICE] = {.group = "discovery.k8s.io",
			     .version = "v1",
			     .kind = "EndpointSlice",
			     .plural = "endpointslices",
			     .namespaced = true},
	[K_LEASE] = {.group = "coordination.k8s.io",
		     .version = "v1",
		     .kind = "Lease",
		     .plural = "leases",
		     .namespaced = true},
	[K_CONFIGMAP] = {.group = "",
			 .version = "v1",
			 .kind = "ConfigMap",
			 .plural = "configmaps",
			 .namespaced = true},
	[K_SECRET] =
		{.group = "", .version = "v1", .kind = "Secret", .plural = "secrets", .namespaced = true},
	[K_CLAIM] = {.group = "",
		     .version = "v1",
		     .kind = "PersistentVolumeClaim",
		     .plural = "persistentvolumeclaims",
		     .namespaced = true},
	[K_VOLUME] = {.group = "",
		      .version = "v1",
		      .kind = "PersistentVolume",
		      .plural = "persistentvolumes"},
	[K_STORAGECLASS] = {.group = "storage.k8s.io",
			    .version = "v1",
			    .kind = "StorageClass",
			    .plural = "storageclasses"},
	[K_ENDPOINTS] = {.group = "",
			 .version = "v1",
			 .kind = "Endpoints",
			 .plural = "endpoints",
			 .namespaced = true},
};

enum kind kind_of(const char *api_version, const char *kind_name)
{
	for (int k = 0; k < KINDS; k++) {
		char v[128];

		if (!streq(control_kinds[k].kind, kind_name))
			continue;
		if (!api_version || streq(model_api_version(&control_kinds[k], v), api_version))
			return (enum kind)k;
	}
	return KINDS;
}

struct world *world_new(void)
{
	struct world *w = xcalloc(1, sizeof(*w));

	w->dependents = strmap_new();
	w->provisioners = strmap_new();
	for (int k = 0; k < KINDS; k++) {
		w->objects[k] = strmap_new();
		w->buried[k] = strmap_new();
	}
	return w;
}

static void drop_ref(void *o)
{
	json_decref(o);
}

static void drop_map(void *m)
{
	strmap_free(m, NULL);
}

struct world *world_free(struct world *w)
{
	if (!w)
		return NULL;
	for (int k = 0; k < KINDS; k++) {
		strmap_free(w->objects[k], drop_ref);
		strmap_free(w->buried[k], free);
	}
	strmap_free(w->dependents, drop_map);
	strmap_free(w->provisioners, NULL);
	free(w);
	return NULL;
}

static char *key_of(const char *ns, const char *name)
{
	return xasprintf("%s/%s", ns ? ns : "", name ? name : "");
}

static void index_refs(struct world *w, enum kind kind, json_t *obj, bool add)
{
	_cleanup_free_ char *id = NULL;
	json_t *ref;
	size_t i;

	json_array_foreach (js_get(obj, "metadata.ownerReferences"), i, ref) {
		const char *uid = js_str_or(ref, "uid", "");
		struct strmap *m = strmap_get(w->dependents, uid);

		if (!id)
			id = xasprintf("%d/%s/%s", (int)kind, obj_ns(obj), obj_name(obj));
		if (add) {
			if (!m)
				strmap_set(w->dependents, uid, m = strmap_new());
			strmap_set(m, id, obj);
		} else if (m) {
			strmap_del(m, id);
			if (!strmap_len(m))
				drop_map(strmap_del(w->dependents, uid));
		}
	}
}

/* Takes the object with this key out; everything leaves by here. */
static void take_out(struct world *w, enum kind kind, const char *key)
{
	json_t *old = strmap_del(w->objects[kind], key);

	if (old)
		index_refs(w, kind, old, false);
	json_decref(old);
}

void world_put(struct world *w, enum kind kind, json_t *obj)
{
	_cleanup_free_ char *key = key_of(obj_ns(obj), obj_name(obj));
	const char *uid = strmap_get(w->buried[kind], key);

	if (uid && streq(uid, obj_uid(obj)))
		return;
	free(strmap_del(w->buried[kind], key)); /* the name has a new owner */
	json_incref(obj);
	take_out(w, kind, key);
	strmap_set(w->objects[kind], key, obj);
	index_refs(w, kind, obj, true);
}

void world_del(struct world *w, enum kind kind, const char *ns, const char *name)
{
	_cleanup_free_ char *key = key_of(ns, name);

	free(strmap_del(w->buried[kind], key));
	take_out(w, kind, key);
}

void world_bury(struct world *w, enum kind kind, const json_t *obj)
{
	_cleanup_free_ char *key = key_of(obj_ns(obj), obj_name(obj)), *uid = xstrdup(obj_uid(obj));
	json_t *there = strmap_get(w->objects[kind], key);

	if (!there || !streq(obj_uid(there), uid))
		return;
	take_out(w, kind, key);
	free(strmap_set(w->buried[kind], key, take_ptr(uid)));
}

json_t *world_get(const struct world *w, enum kind kind, const char *ns, const char *name)
{
	_cleanup_free_ char *key = key_of(control_kinds[kind].namespaced ? ns : "", name);

	return strmap_get(w->objects[kind], key);
}

struct named {
	const char *ns, *name;
	json_t *obj;
};

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int r = strcmp(x->ns, y->ns);

	return r ? r : strcmp(x->name, y->name);
}

json_t **world_list(const struct world *w, enum kind kind, const char *ns, const char *owner_uid)
{
	const struct strmap *from = owner_uid ? strmap_get(w->dependents, owner_uid) : w->objects[kind];
	size_t cap = from ? strmap_len(from) : 0, n = 0;
	_cleanup_free_ struct named *v = xcalloc(cap + 1, sizeof(*v));
	json_t **out = xcalloc(cap + 1, sizeof(*out)), *obj;
	const char *key;

	if (!from)
		return out;
	strmap_foreach (from, key, obj) {
		if (owner_uid && ((enum kind)atoi(key) != kind || !obj_controlled_by(obj, owner_uid)))
			continue;
		v[n] = (struct named){obj_ns(obj), obj_name(obj), obj};
		n += !ns || streq(v[n].ns, ns);
	}
	qsort(v, n, sizeof(*v), by_name);
	for (size_t i = 0; i < n; i++)
		out[i] = v[i].obj;
	return out;
}

size_t world_dependents(const struct world *w, const char *owner_uid, struct dependent **ret)
{
	struct strmap *m = strmap_get(w->dependents, owner_uid);
	size_t n = 0;
	const char *key;
	json_t *obj;

	*ret = xcalloc((m ? strmap_len(m) : 0) + 1, sizeof(**ret));
	if (m)
		strmap_foreach (m, key, obj)
			(*ret)[n++] = (struct dependent){(enum kind)atoi(key), obj};
	return n;
}

void world_set_provisioner(struct world *w, const char *name)
{
	strmap_set(w->provisioners, name, w);
}

bool world_provisioner(const struct world *w, const char *name)
{
	return strmap_get(w->provisioners, name) != NULL;
}

size_t world_len(const struct world *w, enum kind kind)
{
	return strmap_len(w->objects[kind]);
}

/* ---- objects ---- */
const char *obj_name(const json_t *o)
{
	return js_str_or(o, "metadata.name", "");
}

const char *obj_ns(const json_t *o)
{
	return js_str_or(o, "metadata.namespace", "");
}

const char *obj_uid(const json_t *o)
{
	return js_str_or(o, "metadata.uid", "");
}

const char *obj_label(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(js_get(o, "metadata.labels"), key));
}

const char *obj_annotation(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(js_get(o, "metadata.annotations"), key));
}

bool obj_deleting(const json_t *o)
{
	return js_str(o, "metadata.deletionTimestamp");
}

bool obj_has_finalizer(const json_t *o, const char *name)
{
	json_t *f;
	size_t i;

	json_array_foreach (js_get(o, "metadata.finalizers"), i, f)
		if (streq(json_string_value(f), name))
			return true;
	return false;
}

const json_t *obj_controller(const json_t *o)
{
	json_t *ref;
	size_t i;

	json_array_foreach (js_get(o, "metadata.ownerReferences"), i, ref)
		if (js_bool(ref, "controller", false))
			return ref;
	return NULL;
}

bool obj_controlled_by(const json_t *o, const char *uid)
{
	const json_t *ref = obj_controller(o);

	return ref && streq(js_str(ref, "uid"), uid);
}

json_t *owner_ref_new(const json_t *owner, enum kind kind, bool controller)
{
	char v[128];

	return json_pack("{s:s, s:s, s:s, s:s, s:b, s:b}", "apiVersion",
			 model_api_version(&control_kinds[kind], v), "kind", control_kinds[kind].kind, "name",
			 obj_name(owner), "uid", obj_uid(owner), "controller", controller,
			 "blockOwnerDeletion", true);
}

const json_t *obj_condition(const json_t *o, const char *type)
{
	json_t *c;
	size_t i;

	json_array_foreach (js_get(o, "status.conditions"), i, c)
		if (streq(js_str(c, "type"), type))
			return c;
	return NULL;
}

const char *obj_condition_status(const json_t *o, const char *type)
{
	const json_t *c = obj_condition(o, type);

	return c ? js_str_or(c, "status", "Unknown") : "Unknown";
}

int64_t obj_time_us(const json_t *o, const char *path)
{
	const char *text = js_str(o, path);
	int64_t us;

	return text && clock_parse(text, &us) == 0 ? us : 0;
}

void json_hash(const json_t *o, uint32_t salt, char out[11])
{
	static const char letters[] = "bcdfghjklmnpqrstvwxz2456789";
	_cleanup_free_ char *text = json_dumps(o, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY);
	uint64_t h;

	ensure(text);
	h = hash_fnv64(text, strlen(text)) ^ ((uint64_t)salt * 0x9e3779b97f4a7c15u);
	for (int i = 0; i < 10; i++) {
		out[i] = letters[h % (sizeof(letters) - 1)];
		h /= sizeof(letters) - 1;
	}
	out[10] = 0;
}
