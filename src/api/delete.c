/* SPDX-License-Identifier: Apache-2.0 */
/* Deletion: preconditions, grace, finalizers, propagation. An object goes at once when nothing holds it; otherwise it gets its
 * deletionTimestamp and waits for the node agent (pods) or for whoever owns its finalizers. */
#include "api/internal.h"

#define FINALIZER_ORPHAN     "orphan"
#define FINALIZER_FOREGROUND "foregroundDeletion"

int delete_options_parse(struct call *c, struct delete_options *o)
{
	const char *grace = http_req_query(c->http, "gracePeriodSeconds"),
		   *p = http_req_query(c->http, "propagationPolicy");
	const json_t *v;
	size_t n;

	*o = (struct delete_options){.grace_s = -1};
	http_req_body(c->http, &n);
	if (n && parse_body(c, &o->body) < 0)
		return -1;
	if (grace && *grace && (str_i64(grace, &o->grace_s) < 0 || o->grace_s < 0))
		return fail(c, 400, "BadRequest", "gracePeriodSeconds: '%s' is not a number", grace);
	v = json_object_get(o->body, "gracePeriodSeconds");
	if (json_is_integer(v))
		o->grace_s = MAX(json_integer_value(v), 0);
	o->propagation = js_str_or(o->body, "propagationPolicy", p && *p ? p : NULL);
	if (js_bool(o->body, "orphanDependents", query_true(c, "orphanDependents")))
		o->propagation = "Orphan";
	if (o->propagation && !streq(o->propagation, "Orphan") && !streq(o->propagation, "Foreground") &&
	    !streq(o->propagation, "Background"))
		return fail(c, 422, "Invalid",
			    "DeleteOptions is invalid: propagationPolicy: Unsupported value: \"%s\"",
			    o->propagation);
	o->uid = js_str(o->body, "preconditions.uid");
	o->rv = js_str(o->body, "preconditions.resourceVersion");
	v = json_object_get(o->body, "dryRun");
	if (json_array_size(v))
		c->dry_run = true;
	return 0;
}

static void set_finalizer(json_t *obj, const char *name, bool there)
{
	json_t *list = js_array(obj, "metadata.finalizers");
	size_t i = json_array_size(list);
	bool found = false;

	while (list && i-- > 0)
		if (streq(json_string_value(json_array_get(list, i)), name)) {
			found = true;
			if (!there)
				json_array_remove(list, i);
		}
	if (list && there && !found)
		json_array_append_new(list, json_string(name));
	if (list && !json_array_size(list))
		js_del(obj, "metadata.finalizers");
}

/* What the object looks like when its deletion has begun. */
static void begin_deletion(const struct call *c, json_t *obj, int64_t grace_s)
{
	char when[CLOCK_TEXT_MAX];
	bool before = js_str(obj, "metadata.deletionTimestamp") != NULL;

	if (before && js_int(obj, "metadata.deletionGracePeriodSeconds", 0) <= grace_s)
		return; /* a deletion is never put off */
	if (!before && js_get(obj, "metadata.generation"))
		js_set_new(obj, "metadata.generation",
			   json_integer(js_int(obj, "metadata.generation", 0) + 1));
	js_set_new(obj, "metadata.deletionTimestamp",
		   json_string(clock_text(when, clock_wall_us() + grace_s * 1000000, 0)));
	js_set_new(obj, "metadata.deletionGracePeriodSeconds", json_integer(grace_s));
	if (streq(c->kind->plural, "namespaces"))
		js_set_new(obj, "status.phase", json_string("Terminating"));
}

static int check_preconditions(struct call *c, const struct delete_options *o, const json_t *cur)
{
	const char *uid = js_str_or(cur, "metadata.uid", ""),
		   *rev = js_str_or(cur, "metadata.resourceVersion", "");

	if (o->uid && !streq(o->uid, uid))
		return fail(c, 409, REASON_CONFLICT,
			    "Operation cannot be fulfilled on %s \"%s\": Precondition failed: UID in "
			    "precondition: %s, UID in object meta: %s",
			    c->kind->plural, c->name, o->uid, uid);
	if (o->rv && !streq(o->rv, rev))
		return fail(c, 409, REASON_CONFLICT,
			    "Operation cannot be fulfilled on %s \"%s\": Precondition failed: "
			    "ResourceVersion in precondition: %s, ResourceVersion "
			    "in object meta: %s",
			    c->kind->plural, c->name, o->rv, rev);
	return 0;
}

/* 0, -EEXIST (again), or failed. guess: as in object_modify. */
static int delete_once(struct call *c, const struct delete_options *o, bool guess, json_t **ret,
		       bool *ret_gone)
{
	_cleanup_free_ char *key = object_key(c->kind, c->ns, c->name);
	_cleanup_json_ json_t *cur = NULL, *obj = NULL;
	int64_t rev, grace_s;
	int r;

	r = guess ? object_guess(c, &cur, &rev) : object_load(c, &cur, &rev);
	if (r == 0)
		r = check_preconditions(c, o, cur);
	if (r < 0)
		return guess ? -EEXIST : -1;
	obj = json_deep_copy(cur);
	grace_s = strategy_grace(c->kind, obj, o->grace_s);
	if (o->propagation) {
		set_finalizer(obj, FINALIZER_ORPHAN, streq(o->propagation, "Orphan"));
		set_finalizer(obj, FINALIZER_FOREGROUND, streq(o->propagation, "Foreground"));
	}
	*ret_gone =
		grace_s == 0 && !json_array_size(js_get(obj, "metadata.finalizers")) &&
		!(streq(c->kind->plural, "namespaces") && json_array_size(js_get(obj, "spec.finalizers")));
	if (*ret_gone) {
		r = object_remove(c, key, cur, rev);
	} else {
		begin_deletion(c, obj, grace_s);
		r = !json_equal(obj, cur) ? object_commit(c, key, obj, rev, NULL) : guess ? -EEXIST : 0;
	}
	if (r == 0)
		*ret = take_ptr(obj);
	return r;
}

int delete_one(struct call *c, const struct delete_options *o, json_t **ret, bool *ret_gone)
{
	if (strategy_protected(c->kind, c->name))
		return fail(c, 403, "Forbidden", "%s \"%s\" is forbidden: this %s may not be deleted",
			    c->kind->plural, c->name, c->kind->singular);
	for (int i = 0; i < CAS_TRIES_MAX; i++) {
		int r = delete_once(c, o, i == 0 && !c->dry_run, ret, ret_gone);

		if (r != -EEXIST)
			return r;
	}
	return fail_conflict(c, "too many others change it at the same time");
}

void run_delete(struct call *c)
{
	_cleanup_json_ json_t *obj = NULL, *status = NULL;
	struct delete_options o;
	bool gone = false;
	int r = delete_options_parse(c, &o);

	if (r == 0)
		r = delete_one(c, &o, &obj, &gone);
	json_decref(o.body);
	if (r < 0) {
		reply_failure(c);
	} else if (!gone || streq(c->kind->plural, "pods") || streq(c->kind->plural, "services")) {
		reply_object(c, obj);
	} else {
		status = status_new(200, NULL, NULL);
		js_set_new(status, "details.name", json_string(c->name));
		if (*c->kind->group)
			js_set_new(status, "details.group", json_string(c->kind->group));
		js_set_new(status, "details.kind", json_string(c->kind->plural));
		js_set_new(status, "details.uid", json_string(js_str_or(obj, "metadata.uid", "")));
		reply_object(c, status);
	}
}

/* Those that match now, one by one; what vanishes meanwhile counts as deleted. */
static int delete_matching(struct call *c, const struct filter *f, const struct delete_options *o,
			   json_t *items, int64_t *ret_rev)
{
	struct obj_list l;
	int r = list_now(c, c->kind, c->ns, &l);

	if (r < 0)
		return r;
	*ret_rev = l.rev;
	for (size_t i = 0; i < l.n && r == 0; i++) {
		struct call *one;
		json_t *obj = NULL;
		bool gone;

		if (!filter_match(f, l.v[i]->json))
			continue;
		one = call_of(c->api, c->kind, l.v[i]->ns, js_str_or(l.v[i]->json, "metadata.name", ""));
		one->dry_run = c->dry_run;
		if (delete_one(one, o, &obj, &gone) == 0) {
			json_array_append_new(items, obj);
		} else if (one->code != 404) {
			c->code = one->code;
			json_decref(c->status);
			c->status = json_incref(one->status);
			r = -1;
		}
		call_free(one);
	}
	obj_list_done(&l);
	return r;
}

void run_deletecollection(struct call *c)
{
	_cleanup_json_ json_t *items = json_array(), *list = NULL;
	struct delete_options o = {0};
	struct filter f = {0};
	char api_version[128];
	int64_t rev = 0;
	int r = delete_options_parse(c, &o);

	if (r == 0)
		r = filter_init(c, &f);
	if (r == 0)
		r = delete_matching(c, &f, &o, items, &rev);
	filter_done(&f);
	json_decref(o.body);
	c->output = OUTPUT_OBJECT;
	if (r < 0) {
		reply_failure(c);
		return;
	}
	list = json_pack("{s:s+, s:s, s:{s:o}, s:O}", "kind", c->kind->kind, "List", "apiVersion",
			 model_api_version(c->kind, api_version), "metadata", "resourceVersion",
			 json_sprintf("%lld", (long long)rev), "items", items);
	reply_object(c, list);
}
