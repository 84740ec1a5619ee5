/* SPDX-License-Identifier: Apache-2.0 */
/* create, update, patch of objects and of their status. Worker threads. */
#include "api/internal.h"

static void end(struct call *c, int r, json_t *obj)
{
	if (r < 0)
		reply_failure(c);
	else
		reply_object(c, obj);
}

/* ---- create ---- */

/* kind and apiVersion of a body must be those of the path; filled in when they are missing. */
static int check_type(struct call *c, json_t *obj)
{
	char want[128];
	const char *api_version = js_str_or(obj, "apiVersion", ""), *kind = js_str_or(obj, "kind", "");

	model_api_version(c->kind, want);
	if (*kind && !streq(kind, c->kind->kind))
		return fail(c, 400, "BadRequest",
			    "the kind of the object (%s) does not match the one expected here (%s)", kind,
			    c->kind->kind);
	if (*api_version && !streq(api_version, want))
		return fail(c, 400, "BadRequest",
			    "the API version in the data (%s) does not match the expected API version (%s)",
			    api_version, want);
	json_object_set_new(obj, "kind", json_string(c->kind->kind));
	json_object_set_new(obj, "apiVersion", json_string(want));
	return 0;
}

static int check_namespace_of(struct call *c, const json_t *obj)
{
	const char *ns = js_str_or(obj, "metadata.namespace", "");

	if (c->ns && *ns && !streq(ns, c->ns))
		return fail(c, 400, "BadRequest",
			    "the namespace of the provided object does not match the namespace sent on the "
			    "request");
	return 0;
}

/* The request's object, checked as far as that needs no other object. *ret may be set on failure too: the caller frees it. */
static int read_object(struct call *c, json_t **ret)
{
	int r = parse_body(c, ret);

	if (r == 0)
		r = check_type(c, *ret);
	if (r == 0)
		r = check_namespace_of(c, *ret);
	return r < 0 ? r : check_fields(c, *ret);
}

void run_create(struct call *c)
{
	_cleanup_json_ json_t *obj = NULL, *ret = NULL;
	int r = read_object(c, &obj);

	if (r == 0)
		r = object_create(c, obj, &ret);
	c->success = 201;
	end(c, r, ret);
}

/* ---- what a change may not touch ---- */

static void keep(const json_t *cur, json_t *obj, const char *path)
{
	json_t *v = js_get(cur, path);

	if (v)
		js_set_new(obj, path, json_deep_copy(v));
	else
		js_del(obj, path);
}

/* status: the current object with the new status; for pods and nodes their agents' labels and annotations too. */
static void only_status(const struct call *c, const json_t *cur, json_t *obj)
{
	_cleanup_json_ json_t *status = json_incref(json_object_get(obj, "status"));
	bool meta = streq(c->kind->plural, "pods") || streq(c->kind->plural, "nodes");
	_cleanup_json_ json_t *labels = json_incref(js_get(obj, "metadata.labels")),
			      *annotations = json_incref(js_get(obj, "metadata.annotations"));
	_cleanup_json_ json_t *copy = json_deep_copy(cur);

	json_object_clear(obj);
	json_object_update(obj, copy);
	if (json_is_object(status))
		json_object_set(obj, "status", status);
	else
		json_object_del(obj, "status");
	if (meta && json_is_object(labels))
		js_set_new(obj, "metadata.labels", json_incref(labels));
	if (meta && json_is_object(annotations))
		js_set_new(obj, "metadata.annotations", json_incref(annotations));
}

static void only_finalizers(const json_t *cur, json_t *obj)
{
	_cleanup_json_ json_t *f = json_incref(js_get(obj, "spec.finalizers")), *copy = json_deep_copy(cur);

	json_object_clear(obj);
	json_object_update(obj, copy);
	if (json_is_array(f))
		js_set_new(obj, "spec.finalizers", json_incref(f));
	else
		js_del(obj, "spec.finalizers");
}

static bool same_spec(const json_t *a, const json_t *b)
{
	_cleanup_json_ json_t *x = json_copy((json_t *)a), *y = json_copy((json_t *)b);

	json_object_del(x, "metadata");
	json_object_del(y, "metadata");
	json_object_del(x, "status");
	json_object_del(y, "status");
	return json_equal(x, y);
}

static int check_preconditions(struct call *c, const json_t *cur, const json_t *obj)
{
	const char *name = js_str_or(obj, "metadata.name", c->name),
		   *ns = js_str_or(obj, "metadata.namespace", "");
	const char *uid = js_str_or(obj, "metadata.uid", ""),
		   *rev = js_str_or(obj, "metadata.resourceVersion", "");

	if (!streq(name, c->name))
		return fail(c, 400, "BadRequest",
			    "the name of the object (%s) does not match the name on the URL (%s)", name,
			    c->name);
	if (c->ns && *ns && !streq(ns, c->ns))
		return fail(c, 400, "BadRequest",
			    "the namespace of the object (%s) does not match the namespace on the URL (%s)",
			    ns, c->ns);
	if (*uid && !streq(uid, js_str_or(cur, "metadata.uid", "")))
		return fail_conflict(
			c, "Precondition failed: UID in precondition differs from UID in object meta");
	if (*rev && !streq(rev, js_str_or(cur, "metadata.resourceVersion", "")))
		return fail_conflict(c, NULL);
	return 0;
}

static void keep_meta(const json_t *cur, json_t *obj)
{
	static const char *const server_side[] = {"metadata.name",
						  "metadata.namespace",
						  "metadata.uid",
						  "metadata.creationTimestamp",
						  "metadata.generation",
						  "metadata.deletionTimestamp",
						  "metadata.deletionGracePeriodSeconds",
						  "metadata.generateName",
						  "metadata.resourceVersion"};

	for (size_t i = 0; i < ARRAY_SIZE(server_side); i++)
		keep(cur, obj, server_side[i]);
	tidy_meta(obj);
}

int prepare_update(struct call *c, const json_t *cur, json_t *obj)
{
	json_t *causes = NULL;

	if (!js_object(obj, "metadata"))
		return fail(c, 400, "BadRequest", "metadata is no object");
	if (check_preconditions(c, cur, obj) < 0)
		return -1;
	if (streq(c->sub, "status"))
		only_status(c, cur, obj);
	else if (streq(c->sub, "finalize"))
		only_finalizers(cur, obj);
	else if (c->kind->has_status)
		keep(cur, obj, "status");
	keep_meta(cur, obj);
	model_default(c->kind, obj);
	if (!c->sub)
		strategy_update(c, cur, obj);
	if (js_get(cur, "metadata.generation") && !same_spec(cur, obj))
		js_set_new(obj, "metadata.generation",
			   json_integer(js_int(cur, "metadata.generation", 0) + 1));
	if (model_validate(c->kind, obj, cur, &causes) < 0)
		return fail_invalid(c, causes);
	json_decref(causes);
	if (c->http && !same_spec(cur, obj))
		warn_of(c, obj);
	return 0;
}

/* ---- update ---- */

static int change_replace(struct call *c, const json_t *cur, json_t **ret, void *ctx)
{
	_cleanup_json_ json_t *obj = json_deep_copy(ctx);

	if (prepare_update(c, cur, obj) < 0)
		return -1;
	*ret = take_ptr(obj);
	return 0;
}

void run_update(struct call *c)
{
	_cleanup_json_ json_t *obj = NULL, *ret = NULL;
	int r = read_object(c, &obj);

	if (r == 0)
		r = object_modify(c, change_replace, obj, &ret);
	if (r < 0 && c->code == 404 && !c->sub && streq(c->kind->plural, "leases") &&
	    !*js_str_or(obj, "metadata.resourceVersion", "")) {
		js_set_new(obj, "metadata.name", json_string(c->name));
		c->success = 201;
		r = object_create(c, obj, &ret);
	}
	end(c, r, ret);
}

/* ---- patch ---- */

enum patch_type { PATCH_STRATEGIC, PATCH_MERGE, PATCH_JSON };

struct patch {
	enum patch_type type;
	json_t *body;
};

static int patch_parse(struct call *c, struct patch *p)
{
	const char *type = http_req_header(c->http, "content-type"), *body;
	struct err e = {0};
	size_t n;

	type = type ? type : "";
	if (str_starts(type, "application/strategic-merge-patch+json"))
		p->type = PATCH_STRATEGIC;
	else if (str_starts(type, "application/merge-patch+json"))
		p->type = PATCH_MERGE;
	else if (str_starts(type, "application/json-patch+json"))
		p->type = PATCH_JSON;
	else if (str_starts(type, "application/apply-patch"))
		return fail(c, 415, "UnsupportedMediaType",
			    "server-side apply is not offered by this server; use client-side apply (kubectl "
			    "apply without --server-side)");
	else
		return fail(c, 415, "UnsupportedMediaType",
			    "the body of the request was in an unknown format - accepted media types "
			    "include: application/json-patch+json, "
			    "application/merge-patch+json, application/strategic-merge-patch+json");
	body = http_req_body(c->http, &n);
	if (js_parse_new(body, n, &p->body, &e) < 0)
		return fail(c, 400, "BadRequest", "error decoding patch: %s", e.text);
	if (p->type == PATCH_JSON ? !json_is_array(p->body) : !json_is_object(p->body)) {
		json_decref(p->body);
		p->body = NULL;
		return fail(c, 400, "BadRequest", "error decoding patch: it is no JSON %s",
			    p->type == PATCH_JSON ? "array" : "object");
	}
	return 0;
}

static int patch_apply(struct call *c, const struct patch *p, const json_t *cur, json_t **ret)
{
	struct err e = {0};
	int r;

	switch (p->type) {
	case PATCH_STRATEGIC:
		r = model_patch_strategic(c->kind, cur, p->body, ret, &e);
		return r < 0 ? fail(c, 400, "BadRequest", "the patch cannot be applied: %s", e.text) : 0;
	case PATCH_MERGE:
		r = model_patch_merge(cur, p->body, ret, &e);
		return r < 0 ? fail(c, 400, "BadRequest", "the patch cannot be applied: %s", e.text) : 0;
	default:
		r = model_patch_json(cur, p->body, ret, &e);
		return r < 0 ? fail(c, 422, "Invalid",
				    "the server rejected our request due to an error in our request: %s",
				    e.text)
			     : 0;
	}
}

static int change_patch(struct call *c, const json_t *cur, json_t **ret, void *ctx)
{
	_cleanup_json_ json_t *obj = NULL;

	json_decref(c->warnings);
	c->warnings = NULL;
	if (patch_apply(c, ctx, cur, &obj) < 0)
		return -1;
	if (!json_is_object(obj))
		return fail(c, 422, "Invalid", "the patch leaves no object");
	if (check_type(c, obj) < 0 || check_fields(c, obj) < 0 || prepare_update(c, cur, obj) < 0)
		return -1;
	*ret = take_ptr(obj);
	return 0;
}

void run_patch(struct call *c)
{
	_cleanup_json_ json_t *ret = NULL;
	struct patch p = {0};
	int r = patch_parse(c, &p);

	if (r == 0)
		r = object_modify(c, change_patch, &p, &ret);
	json_decref(p.body);
	end(c, r, ret);
}

/* ---- scale ---- */

static void add_requirement(struct buf *b, const char *key, const char *op, const json_t *values)
{
	const json_t *v;
	size_t i;

	buf_addf(b, "%s%s%s", b->len ? "," : "", streq(op, "DoesNotExist") ? "!" : "", key);
	if (!streq(op, "In") && !streq(op, "NotIn"))
		return;
	buf_adds(b, streq(op, "In") ? " in (" : " notin (");
	json_array_foreach (values, i, v)
		buf_addf(b, "%s%s", i ? "," : "", json_string_value(v) ? json_string_value(v) : "");
	buf_adds(b, ")");
}

static json_t *scale_new(const json_t *obj)
{
	_cleanup_buf_ struct buf selector = {0};
	const char *key;
	json_t *value, *scale = json_pack("{ss ss s{} s{} s{}}", "kind", "Scale", "apiVersion",
					  "autoscaling/v1", "metadata", "spec", "status");
	static const char *const meta[] = {"name", "namespace", "uid", "resourceVersion",
					   "creationTimestamp"};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(meta); i++)
		if (json_object_get(js_get(obj, "metadata"), meta[i]))
			json_object_set(json_object_get(scale, "metadata"), meta[i],
					json_object_get(js_get(obj, "metadata"), meta[i]));
	json_object_foreach (js_get(obj, "spec.selector.matchLabels"), key, value)
		buf_addf(&selector, "%s%s=%s", selector.len ? "," : "", key,
			 json_string_value(value) ? json_string_value(value) : "");
	json_array_foreach (js_get(obj, "spec.selector.matchExpressions"), i, value)
		add_requirement(&selector, js_str_or(value, "key", ""), js_str_or(value, "operator", ""),
				json_object_get(value, "values"));
	js_set_new(scale, "spec.replicas", json_integer(js_int(obj, "spec.replicas", 0)));
	js_set_new(scale, "status.replicas", json_integer(js_int(obj, "status.replicas", 0)));
	if (selector.len)
		js_set_new(scale, "status.selector", json_string(selector.data));
	return scale;
}

/* ctx: a Scale (PUT) or a patch of one. */
struct scale_change {
	json_t *scale;
	struct patch *patch;
};

static int change_scale(struct call *c, const json_t *cur, json_t **ret, void *ctx)
{
	const struct scale_change *s = ctx;
	_cleanup_json_ json_t *now = scale_new(cur), *want = NULL, *obj = json_deep_copy(cur);
	struct err e = {0};
	const json_t *value;
	const char *rev;
	int64_t n;
	int r = 0;

	if (!s->patch)
		want = json_incref(s->scale);
	else if (s->patch->type == PATCH_JSON)
		r = model_patch_json(now, s->patch->body, &want, &e);
	else
		r = model_patch_merge(now, s->patch->body, &want, &e);
	if (r < 0)
		return fail(c, 422, "Invalid", "the patch cannot be applied: %s", e.text);
	if (!json_is_object(want))
		return fail(c, 422, "Invalid", "the patch leaves no object");
	rev = js_str_or(want, "metadata.resourceVersion", "");
	if (*rev && !streq(rev, js_str_or(cur, "metadata.resourceVersion", "")))
		return fail_conflict(c, NULL);
	value = js_get(want, "spec.replicas"); /* missing = 0: clients leave zeros out */
	if (value && !json_is_integer(value)) {
		_cleanup_free_ char *text = js_text(value);

		return fail_invalid(
			c, json_pack("[{ss so ss}]", "reason", "FieldValueTypeInvalid", "message",
				     json_sprintf("Invalid value: %s: must be a number of 32 bits", text),
				     "field", "spec.replicas"));
	}
	n = js_int(want, "spec.replicas", 0);
	if (n < 0 || n > INT32_MAX)
		return fail_invalid(c, json_pack("[{ss ss ss}]", "reason", "FieldValueInvalid", "message",
						 "Invalid value: must be greater than or equal to 0", "field",
						 "spec.replicas"));
	js_set_new(obj, "spec.replicas", json_integer(n));
	free(c->sub); /* from here on it is an update of the object itself */
	c->sub = NULL;
	if (prepare_update(c, cur, obj) < 0)
		return -1;
	*ret = take_ptr(obj);
	return 0;
}

void run_scale(struct call *c)
{
	_cleanup_json_ json_t *obj = NULL, *body = NULL, *scale = NULL;
	struct patch p = {0};
	struct scale_change s = {0};
	int64_t rev;
	int r;

	if (c->verb == VERB_GET) {
		r = object_load(c, &obj, &rev);
	} else {
		r = c->verb == VERB_PATCH ? patch_parse(c, &p) : parse_body(c, &body);
		s = (struct scale_change){body, c->verb == VERB_PATCH ? &p : NULL};
		if (r == 0)
			r = object_modify(c, change_scale, &s, &obj);
		json_decref(p.body);
	}
	c->output = OUTPUT_OBJECT;
	scale = r < 0 ? NULL : scale_new(obj);
	end(c, r, scale);
}
