/* SPDX-License-Identifier: Apache-2.0 */
/* A list of actions, built by reconcile functions and carried out by the manager. */
#include "control/plan.h"

void plan_init(struct plan *p, int64_t now_us)
{
	*p = (struct plan){.now_us = now_us, .again_ms = -1};
}

void plan_done(struct plan *p)
{
	for (size_t i = 0; i < p->n; i++) {
		json_decref(p->actions[i].obj);
		json_decref(p->actions[i].body);
	}
	free(p->actions);
	*p = (struct plan){0};
}

bool plan_full(const struct plan *p)
{
	return p->n >= PLAN_ACTIONS_MAX;
}

static void add(struct plan *p, struct action a)
{
	ensure(a.type != ACTION_CREATE || a.body);
	if (plan_full(p)) {
		json_decref(a.obj);
		json_decref(a.body);
		plan_again(p, 0);
		return;
	}
	if (p->n == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 8;
		p->actions = xrealloc(p->actions, p->cap * sizeof(*p->actions));
	}
	p->actions[p->n++] = a;
}

void plan_create(struct plan *p, enum kind kind, json_t *body)
{
	add(p, (struct action){.type = ACTION_CREATE, .kind = kind, .body = body});
}

void plan_update(struct plan *p, enum kind kind, const char *subresource, json_t *body)
{
	add(p, (struct action){.type = ACTION_UPDATE,
			       .kind = kind,
			       .subresource = subresource,
			       .obj = json_incref(body),
			       .body = body});
}

void plan_patch(struct plan *p, enum action_type type, enum kind kind, const char *subresource, json_t *obj,
		json_t *body)
{
	ensure(type == ACTION_PATCH_MERGE || type == ACTION_PATCH_STRATEGIC);
	add(p, (struct action){.type = type,
			       .kind = kind,
			       .subresource = subresource,
			       .obj = json_incref(obj),
			       .body = body});
}

void plan_delete(struct plan *p, enum kind kind, json_t *obj, int64_t grace_s)
{
	add(p, (struct action){
		       .type = ACTION_DELETE, .kind = kind, .obj = json_incref(obj), .grace_s = grace_s});
}

void plan_delete_if_owner_gone(struct plan *p, enum kind kind, json_t *obj, const json_t *ref)
{
	add(p, (struct action){.type = ACTION_DELETE_IF_OWNER_GONE,
			       .kind = kind,
			       .obj = json_incref(obj),
			       .body = json_deep_copy(ref),
			       .grace_s = -1});
}

void plan_delete_if_node_gone(struct plan *p, json_t *pod)
{
	add(p, (struct action){.type = ACTION_DELETE_IF_NODE_GONE, .kind = K_POD, .obj = json_incref(pod)});
}

void plan_csi(struct plan *p, enum action_type type, enum kind kind, json_t *obj, json_t *body)
{
	ensure(type == ACTION_CSI_CREATE || type == ACTION_CSI_DELETE || type == ACTION_CSI_EXPAND ||
	       type == ACTION_CLAIM_RELEASE);
	add(p, (struct action){.type = type, .kind = kind, .obj = json_incref(obj), .body = body});
}

void plan_event(struct plan *p, json_t *obj, const char *type, const char *reason, const char *fmt, ...)
{
	char text[500];
	json_t *body;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	body = json_pack("{s:s, s:s, s:s}", "type", type, "reason", reason, "message", text);
	if (body)
		add(p, (struct action){.type = ACTION_EVENT, .obj = json_incref(obj), .body = body});
}

void plan_again(struct plan *p, int64_t in_ms)
{
	in_ms = MAX(0, in_ms);
	p->again_ms = p->again_ms < 0 ? in_ms : MIN(p->again_ms, in_ms);
}

char *plan_name(struct plan *p, const char *base)
{
	char tail[6];

	if (p->fixed_names)
		snprintf(tail, sizeof(tail), "n%04u", p->fixed_names++ % 10000);
	else
		random_name(tail, 5);
	return xasprintf("%.57s-%s", base, tail);
}

json_t *plan_time(const struct plan *p)
{
	char text[CLOCK_TEXT_MAX];

	return json_string(clock_text(text, p->now_us, 0));
}

void plan_status(struct plan *p, enum kind kind, json_t *obj, json_t *status)
{
	json_t *copy;

	if (json_equal(status, json_object_get(obj, "status"))) {
		json_decref(status);
		return;
	}
	copy = json_copy(obj);
	json_object_set_new(copy, "status", status);
	plan_update(p, kind, "status", copy);
}

void status_condition(const struct plan *p, json_t *status, const char *type, const char *condition_status,
		      const char *reason, const char *message)
{
	json_t *list = json_object_get(status, "conditions"), *c, *old = NULL;
	bool same, same_status;
	size_t i;

	if (!list) {
		list = json_array();
		json_object_set_new(status, "conditions", list);
	}
	json_array_foreach (list, i, c)
		if (streq(js_str(c, "type"), type)) {
			old = c;
			break;
		}
	same_status = old && streq(js_str(old, "status"), condition_status);
	same = same_status && streq(js_str(old, "reason"), reason) && streq(js_str(old, "message"), message);
	if (same)
		return;
	c = json_pack("{s:s, s:s, s:s, s:s, s:o}", "type", type, "status", condition_status, "reason", reason,
		      "message", message, "lastUpdateTime", plan_time(p));
	ensure(c);
	json_object_set_new(c, "lastTransitionTime",
			    same_status && js_str(old, "lastTransitionTime")
				    ? json_string(js_str(old, "lastTransitionTime"))
				    : plan_time(p));
	if (old)
		json_array_set_new(list, i, c);
	else
		json_array_append_new(list, c);
}
