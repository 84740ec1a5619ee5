/* SPDX-License-Identifier: Apache-2.0 */
/* plan: what a reconcile function wants done. Reconcile functions are pure: world and time in, plan out. */
#pragma once

#include "control/world.h"

enum action_type {
	ACTION_CREATE,
	ACTION_UPDATE, /* body with its resourceVersion: refused when somebody was faster */
	ACTION_PATCH_MERGE,
	ACTION_PATCH_STRATEGIC,
	ACTION_DELETE,
	ACTION_DELETE_IF_OWNER_GONE, /* body = the ownerReference; the owner is read from the API first */
	ACTION_DELETE_IF_NODE_GONE,  /* the node that the pod names, likewise */
	ACTION_EVENT,		     /* body = {type, reason, message} */
	ACTION_CSI_CREATE,	     /* obj = claim, body = {class} */
	ACTION_CSI_DELETE,	     /* obj = volume */
	ACTION_CSI_EXPAND,	     /* obj = claim, body = {volume} */
	ACTION_CLAIM_RELEASE, /* obj = claim: its finalizer goes, if the API itself knows no pod that uses it */
};

struct action {
	enum action_type type;
	enum kind kind;
	const char *subresource; /* a literal; NULL */
	json_t *obj;		 /* the object meant (ours); NULL for CREATE */
	json_t *body;
	int64_t grace_s; /* DELETE; < 0 = the object's own */
};

#define PLAN_ACTIONS_MAX 2000 /* a reconcile; the rest follows in the next one */

struct plan {
	int64_t now_us; /* wall clock, for time stamps */
	struct action *actions;
	size_t n, cap;
	int64_t again_ms;     /* < 0 = not needed */
	uint32_t fixed_names; /* tests: > 0 = names are counted instead of drawn */
};

void plan_init(struct plan *p, int64_t now_us);
void plan_done(struct plan *p);
/* body is taken over in all of these; obj is borrowed. */
void plan_create(struct plan *p, enum kind kind, json_t *body);
void plan_update(struct plan *p, enum kind kind, const char *subresource, json_t *body);
void plan_patch(struct plan *p, enum action_type type, enum kind kind, const char *subresource, json_t *obj,
		json_t *body);
void plan_delete(struct plan *p, enum kind kind, json_t *obj, int64_t grace_s);
void plan_delete_if_owner_gone(struct plan *p, enum kind kind, json_t *obj, const json_t *ref);
void plan_delete_if_node_gone(struct plan *p, json_t *pod);
/* One of ACTION_CSI_*, or ACTION_CLAIM_RELEASE. */
void plan_csi(struct plan *p, enum action_type type, enum kind kind, json_t *obj, json_t *body);
void plan_event(struct plan *p, json_t *obj, const char *type, const char *reason, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void plan_again(struct plan *p, int64_t in_ms); /* the earliest one counts */
bool plan_full(const struct plan *p);
/* "base-xxxxx" */
char *plan_name(struct plan *p, const char *base);
/* Now as RFC 3339 with whole seconds. */
json_t *plan_time(const struct plan *p);
/* Copies obj, sets status; an update of the status when it differs from what is there. */
void plan_status(struct plan *p, enum kind kind, json_t *obj, json_t *status);
/* Puts a condition into status.conditions; the transition time changes only with `condition_status`. */
void status_condition(const struct plan *p, json_t *status, const char *type, const char *condition_status,
		      const char *reason, const char *message);
