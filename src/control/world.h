/* SPDX-License-Identifier: Apache-2.0 */
/* world: what the controllers know of the cluster, by kind. Filled from the caches (or by a test), read by reconcile
 * functions. Objects are borrowed from here and must not be changed. */
#pragma once

#include "base/base.h"
#include "model/model.h"

enum kind {
	K_NAMESPACE,
	K_NODE,
	K_POD,
	K_REPLICASET,
	K_DEPLOYMENT,
	K_STATEFULSET,
	K_SERVICE,
	K_ENDPOINTSLICE,
	K_LEASE,
	K_CONFIGMAP,
	K_SECRET,
	K_CLAIM,
	K_VOLUME,
	K_STORAGECLASS,
	K_ENDPOINTS,
	KINDS,
};

extern const struct model_kind control_kinds[KINDS];
/* KINDS when it is none of ours; api_version NULL = any. */
enum kind kind_of(const char *api_version, const char *kind_name);

struct world;
struct world *world_new(void);
struct world *world_free(struct world *w);
void world_put(struct world *w, enum kind kind, json_t *obj); /* takes a reference */
void world_del(struct world *w, enum kind kind, const char *ns, const char *name);
/* An object that was deleted at once: it stays away although a cache may still show it. */
void world_bury(struct world *w, enum kind kind, const json_t *obj);
json_t *world_get(const struct world *w, enum kind kind, const char *ns, const char *name);
/* NULL-terminated, by name; ns NULL = all; owner_uid NULL = any, else those it controls. Free the array. */
json_t **world_list(const struct world *w, enum kind kind, const char *ns, const char *owner_uid);
struct dependent {
	enum kind kind;
	json_t *obj;
};
/* All that names it as an owner. Free the array. */
size_t world_dependents(const struct world *w, const char *owner_uid, struct dependent **ret);
/* A provisioner whose CSI driver the controllers can call. */
void world_set_provisioner(struct world *w, const char *name);
bool world_provisioner(const struct world *w, const char *name);
size_t world_len(const struct world *w, enum kind kind);

/* ---- what objects say ---- */
const char *obj_name(const json_t *o);
const char *obj_ns(const json_t *o); /* "" when cluster-scoped */
const char *obj_uid(const json_t *o);
const char *obj_label(const json_t *o, const char *key);
const char *obj_annotation(const json_t *o, const char *key);
bool obj_deleting(const json_t *o);
bool obj_has_finalizer(const json_t *o, const char *name);
const json_t *obj_controller(const json_t *o); /* the ownerReference with controller: true; NULL */
bool obj_controlled_by(const json_t *o, const char *uid);
json_t *owner_ref_new(const json_t *owner, enum kind kind, bool controller);
const json_t *obj_condition(const json_t *o, const char *type);
const char *obj_condition_status(const json_t *o, const char *type); /* "Unknown" when missing */
int64_t obj_time_us(const json_t *o, const char *path);		     /* 0 when missing */
/* Canonical hash of a value: same content, same hash; 10 characters that are good in names. */
void json_hash(const json_t *o, uint32_t salt, char out[11]);
