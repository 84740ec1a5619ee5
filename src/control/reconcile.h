/* SPDX-License-Identifier: Apache-2.0 */
/* reconcile: the controllers' pure functions; each looks at one object (by name) and what belongs to it. */
#pragma once

#include "control/plan.h"
#include "control/pods.h"

typedef void (*reconcile_fn)(const struct world *w, const char *ns, const char *name, struct plan *p);

void replicaset_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p);
void deployment_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p);
void statefulset_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p);
void endpoints_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p);
/* name = "KIND/NAME", KIND a number of enum kind. */
void gc_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p);
/* All nodes without a pod CIDR get one of `range` ("10.78.0.0/16"); false when the range is no IPv4 /8 to /24. */
void podcidr_reconcile(const struct world *w, const char *range, struct plan *p);
bool podcidr_range_ok(const char *range);
/* Pods whose node does not exist, and finished pods beyond a bound. */
void podgc_reconcile(const struct world *w, struct plan *p);

/* ---- claims.c, volumes.c ---- */
#define CLAIM_FINALIZER	 "kubernetes.io/pvc-protection"
#define VOLUME_FINALIZER "kubernetes.io/pv-protection"
void claim_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p);
void volume_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p);
/* Bytes of `storage` in the amounts at path, rounded up; 0 when missing. */
int64_t storage_amount(const json_t *o, const char *path);
/* One that is placed nowhere holds nothing yet: the scheduler does not place it while the claim is being deleted. */
bool pod_holds_claim(const json_t *pod, const char *claim);
/* Kept for it, or bound to it. */
bool volume_is_for(const json_t *pv, const json_t *claim);
void storage_drop_finalizer(struct plan *p, enum kind kind, json_t *obj, const char *name);

/* ---- set_claims.c: claims of a StatefulSet ---- */
/* Makes those of an ordinal that are missing; false: one is being deleted, its pod has to wait. */
bool set_claims_make(const struct world *w, json_t *set, int64_t ordinal, struct plan *p);
/* Puts the volumes into a new pod. */
void set_claims_mount(const json_t *set, json_t *pod, int64_t ordinal);
/* The retention policy. */
void set_claims_keep(const struct world *w, json_t *set, int64_t start, int64_t replicas, struct plan *p);

/* ---- deployment.c, rollout.c and rollout_status.c ---- */
struct rollout {
	const struct world *w;
	json_t *d;
	struct plan *p;
	json_t **sets; /* all ReplicaSets it controls, oldest first */
	size_t n;
	json_t *newest; /* of these, the one with the current template; NULL = none yet */
	int64_t replicas, surge, unavailable;
	const char *news; /* reason for the Progressing condition: a set was created or found; NULL */
};
/* One step each reconcile; the next one follows when the step is seen. */
void rollout_rolling(struct rollout *r);
void rollout_recreate(struct rollout *r);
/* Spreads a changed spec.replicas over the sets in proportion; true when something was scaled. */
bool rollout_scale(struct rollout *r);
/* With the Available and Progressing conditions. */
void rollout_status(struct rollout *r, int64_t collisions);
bool rollout_complete(const struct rollout *r);
void rollout_scale_set(struct rollout *r, json_t *rs, int64_t to);
/* Sum of a number over the sets. */
int64_t rollout_sum(const struct rollout *r, const char *path, bool old_only);
