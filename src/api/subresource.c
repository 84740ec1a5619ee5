/* SPDX-License-Identifier: Apache-2.0 */
/* pods/binding and pods/eviction. (status, finalize and scale are in write.c.) */
#include "api/internal.h"

static void reply_created(struct call *c)
{
	_cleanup_json_ json_t *s = status_new(201, NULL, NULL);

	json_object_set_new(s, "code", json_integer(201));
	c->success = 201;
	c->output = OUTPUT_OBJECT;
	reply_object(c, s);
}

static void set_condition(json_t *obj, const char *type, const char *value)
{
	json_t *list = js_array(obj, "status.conditions"), *cond;
	char when[CLOCK_TEXT_MAX];
	size_t i;

	if (!list)
		return;
	clock_text(when, clock_wall_us(), 0);
	json_array_foreach (list, i, cond)
		if (streq(js_str(cond, "type"), type)) {
			json_array_remove(list, i);
			break;
		}
	json_array_append_new(
		list, json_pack("{ss ss ss}", "type", type, "status", value, "lastTransitionTime", when));
}

/* ctx: the Binding. A pod is bound once. */
static int change_bind(struct call *c, const json_t *cur, json_t **ret, void *ctx)
{
	const json_t *b = ctx;
	const char *node = js_str_or(b, "target.name", ""), *now = js_str_or(cur, "spec.nodeName", "");
	const char *uid = js_str_or(b, "metadata.uid", ""), *key;
	json_t *obj, *value;

	if (*uid && !streq(uid, js_str_or(cur, "metadata.uid", "")))
		return fail_conflict(
			c, "Precondition failed: UID in precondition differs from UID in object meta");
	if (js_str(cur, "metadata.deletionTimestamp"))
		return fail_conflict(c, "pod is being deleted, cannot be assigned to a host");
	if (*now)
		return fail(c, 409, REASON_CONFLICT,
			    "Operation cannot be fulfilled on pods/binding \"%s\": pod %s is already "
			    "assigned to node \"%s\"",
			    c->name, c->name, now);
	obj = json_deep_copy(cur);
	js_set_new(obj, "spec.nodeName", json_string(node));
	set_condition(obj, "PodScheduled", "True");
	json_object_foreach (js_get(b, "metadata.annotations"), key, value) {
		json_t *a = js_object(obj, "metadata.annotations");

		if (a)
			json_object_set(a, key, value);
	}
	*ret = obj;
	return 0;
}

void run_binding(struct call *c)
{
	_cleanup_json_ json_t *b = NULL, *pod = NULL;
	int r = parse_body(c, &b);

	if (r == 0 &&
	    (!*js_str_or(b, "target.name", "") || !streq(js_str_or(b, "target.kind", "Node"), "Node")))
		r = fail(c, 400, "BadRequest", "target: a Node with its name is wanted");
	if (r == 0)
		r = object_modify(c, change_bind, b, &pod);
	if (r < 0)
		reply_failure(c);
	else
		reply_created(c);
}

/* There are no PodDisruptionBudgets: an eviction is a deletion with the pod's grace. */
void run_eviction(struct call *c)
{
	_cleanup_json_ json_t *body = NULL, *pod = NULL;
	struct delete_options o = {.grace_s = -1};
	const json_t *grace, *dry;
	bool gone;
	int r = parse_body(c, &body);

	if (r == 0 && !streq(js_str_or(body, "metadata.name", c->name), c->name))
		r = fail(c, 400, "BadRequest", "name in URL does not match name in Eviction object");
	if (r < 0) {
		reply_failure(c);
		return;
	}
	grace = js_get(body, "deleteOptions.gracePeriodSeconds");
	dry = js_get(body, "deleteOptions.dryRun");
	if (json_is_integer(grace))
		o.grace_s = MAX(json_integer_value(grace), 0);
	c->dry_run |= json_array_size(dry) > 0;
	o.propagation = js_str(body, "deleteOptions.propagationPolicy");
	o.uid = js_str(body, "deleteOptions.preconditions.uid");
	o.rv = js_str(body, "deleteOptions.preconditions.resourceVersion");
	if (delete_one(c, &o, &pod, &gone) < 0)
		reply_failure(c);
	else
		reply_created(c);
}
