/* SPDX-License-Identifier: Apache-2.0 */
/* The list of kinds and walks over their schema. Request bodies (Binding, Eviction, Scale, DeleteOptions) have a schema
 * too but are no resources of their own: found by kind, not listed. */
#include "model/schema.h"

#include "model/internal.h"

#define NAMES(...)                \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}
#define SCHEMA(o)                                \
	&(const struct model_field)              \
	{                                        \
		"", MODEL_OBJECT, .object = &(o) \
	}

static const struct model_kind kinds[] = {
	{"", "v1", "ConfigMap", "configmaps", "configmap", NAMES("cm"), true,
	 .schema = SCHEMA(schema_config_map)},
	{"", "v1", "Endpoints", "endpoints", "endpoints", NAMES("ep"), true,
	 .schema = SCHEMA(schema_endpoints)},
	{"", "v1", "Event", "events", "event", NAMES("ev"), true, .schema = SCHEMA(schema_event)},
	{"", "v1", "Namespace", "namespaces", "namespace", NAMES("ns"), false, .has_status = true,
	 .schema = SCHEMA(schema_namespace)},
	{"", "v1", "Node", "nodes", "node", NAMES("no"), false, .has_status = true,
	 .schema = SCHEMA(schema_node)},
	{"", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim", NAMES("pvc"),
	 true, .has_status = true, .schema = SCHEMA(schema_persistent_volume_claim)},
	{"", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume", NAMES("pv"), false,
	 .has_status = true, .schema = SCHEMA(schema_persistent_volume)},
	{"", "v1", "Pod", "pods", "pod", NAMES("po"), true, .has_status = true, .categories = NAMES("all"),
	 .schema = SCHEMA(schema_pod)},
	{"", "v1", "Secret", "secrets", "secret", NULL, true, .schema = SCHEMA(schema_secret)},
	{"", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", NAMES("sa"), true,
	 .schema = SCHEMA(schema_service_account)},
	{"", "v1", "Service", "services", "service", NAMES("svc"), true, .has_status = true,
	 .categories = NAMES("all"), .schema = SCHEMA(schema_service)},
	{"apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision", NULL, true,
	 .schema = SCHEMA(schema_controller_revision)},
	{"apps", "v1", "Deployment", "deployments", "deployment", NAMES("deploy"), true, .has_status = true,
	 .has_scale = true, .categories = NAMES("all"), .schema = SCHEMA(schema_deployment)},
	{"apps", "v1", "ReplicaSet", "replicasets", "replicaset", NAMES("rs"), true, .has_status = true,
	 .has_scale = true, .categories = NAMES("all"), .schema = SCHEMA(schema_replica_set)},
	{"apps", "v1", "StatefulSet", "statefulsets", "statefulset", NAMES("sts"), true, .has_status = true,
	 .has_scale = true, .categories = NAMES("all"), .schema = SCHEMA(schema_stateful_set)},
	{"coordination.k8s.io", "v1", "Lease", "leases", "lease", NULL, true, .schema = SCHEMA(schema_lease)},
	{"discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", NULL, true,
	 .schema = SCHEMA(schema_endpoint_slice)},
	{"storage.k8s.io", "v1", "CSIDriver", "csidrivers", "csidriver", NULL, false,
	 .schema = SCHEMA(schema_csi_driver)},
	{"storage.k8s.io", "v1", "CSINode", "csinodes", "csinode", NULL, false,
	 .schema = SCHEMA(schema_csi_node)},
	{"storage.k8s.io", "v1", "StorageClass", "storageclasses", "storageclass", NAMES("sc"), false,
	 .schema = SCHEMA(schema_storage_class)},
};

static const struct model_kind bodies[] = {
	{"", "v1", "Binding", "bindings", "binding", NULL, true, .schema = SCHEMA(schema_binding)},
	{"policy", "v1", "Eviction", "evictions", "eviction", NULL, true, .schema = SCHEMA(schema_eviction)},
	{"autoscaling", "v1", "Scale", "scales", "scale", NULL, true, .schema = SCHEMA(schema_scale)},
	{"", "v1", "DeleteOptions", "deleteoptions", "deleteoptions", NULL, false,
	 .schema = SCHEMA(schema_delete_options)},
};

const struct model_kind *model_kinds(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(kinds);
	return kinds;
}

const struct model_kind *model_bodies(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(bodies);
	return bodies;
}

const struct model_kind *model_kind_by_plural(const char *group, const char *version, const char *plural)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (streq(kinds[i].plural, plural) && streq(kinds[i].group, group) &&
		    (!version || streq(kinds[i].version, version)))
			return &kinds[i];
	return NULL;
}

/* DeleteOptions are known in every group. */
static bool kind_is(const struct model_kind *k, const char *api_version, const char *kind)
{
	char text[128];

	return streq(k->kind, kind) &&
	       (streq(kind, "DeleteOptions") || streq(model_api_version(k, text), api_version));
}

const struct model_kind *model_kind_by_kind(const char *api_version, const char *kind)
{
	if (!api_version || !kind)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kind_is(&kinds[i], api_version, kind))
			return &kinds[i];
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
		if (kind_is(&bodies[i], api_version, kind))
			return &bodies[i];
	return NULL;
}

const char *model_api_version(const struct model_kind *k, char out[128])
{
	snprintf(out, 128, "%s%s%s", k->group, *k->group ? "/" : "", k->version);
	return out;
}

const struct model_field *schema_field(const struct model_object *o, const char *name)
{
	if (!o || !name)
		return NULL;
	for (const struct model_field *f = o->fields; f->name; f++)
		if (streq(f->name, name))
			return f;
	return NULL;
}

#define WALK_MAX 256 /* object types in all; the tables have about 130 */

struct walk {
	const struct model_object *seen[WALK_MAX];
	size_t n;
};

static void walk_collect(struct walk *w, const struct model_object *o)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->seen[i] == o)
			return;
	ensure(w->n < WALK_MAX);
	w->seen[w->n++] = o;
	for (const struct model_field *f = o->fields; f->name; f++)
		if (f->type == MODEL_OBJECT)
			walk_collect(w, f->object);
}

int schema_walk(const struct model_object *o, int (*fn)(void *ctx, const struct model_object *o), void *ctx)
{
	struct walk w = {.n = 0};

	walk_collect(&w, o);
	for (size_t i = 0; i < w.n; i++) {
		int r = fn(ctx, w.seen[i]);

		if (r)
			return r;
	}
	return 0;
}
