/* SPDX-License-Identifier: Apache-2.0 */
/* One object in the store: load, create, change by compare-and-swap, remove. Worker threads. Every way an object gets into the
 * store passes through here, the server's own objects included. */
#include "api/internal.h"

#define GENERATE_TRIES_MAX 8
#define GENERATE_NAME_MAX  58 /* as Kubernetes: 63 - 5 random characters */

char *object_key(const struct model_kind *k, const char *ns, const char *name)
{
	return ns ? xasprintf(REGISTRY "%s/%s/%s", k->plural, ns, name)
		  : xasprintf(REGISTRY "%s/%s", k->plural, name);
}

int object_load(struct call *c, json_t **ret, int64_t *ret_rev)
{
	_cleanup_free_ char *key = object_key(c->kind, c->ns, c->name);
	struct store_kv kv = {0};
	struct err e = {0};
	json_t *obj;
	int r = store_get(c->api->store, key, 0, &kv, NULL, &e);

	if (r == -ENOENT)
		return fail_not_found(c);
	if (r < 0)
		return fail_store(c, r, &e);
	r = js_parse_new(kv.value, kv.value_len, &obj, &e);
	if (r == 0) {
		js_set_new(obj, "metadata.resourceVersion", json_sprintf("%lld", (long long)kv.mod_rev));
		*ret = obj;
		*ret_rev = kv.mod_rev;
	} else {
		r = fail(c, 500, "InternalError", "the stored object cannot be read: %s", e.text);
	}
	store_kv_done(&kv);
	return r;
}

/* What the cache has: mostly the newest, and the transaction tells when it is not. Saves a round trip to the store, which
 * between domains is what a write costs most. */
int object_guess(struct call *c, json_t **ret, int64_t *ret_rev)
{
	_cleanup_free_ char *key = c->ns ? xasprintf("%s/%s", c->ns, c->name) : xstrdup(c->name);
	struct obj *o = cache_get(c->api->cache, c->kind, key);

	if (!o)
		return -ENOENT;
	*ret = json_deep_copy(o->json);
	*ret_rev = o->rev;
	obj_unref(o);
	return 0;
}

static bool is_kind(const struct call *c, const char *plural)
{
	return streq(c->kind->plural, plural);
}

static int put(struct call *c, const char *key, const json_t *obj, int64_t expect, const struct commit *o,
	       int64_t *ret_rev)
{
	_cleanup_free_ char *text = js_text(obj);
	struct store_cmp cmp[STORE_TXN_OPS_MAX] = {{key, expect}};
	struct store_op ops[STORE_TXN_OPS_MAX] = {
		{.type = STORE_PUT, .key = key, .value = text, .value_len = strlen(text)}};
	size_t n_cmp = 1, n_ops = 1;
	struct err e = {0};
	int64_t lease = o ? o->lease : 0;
	int r;

	if (ops[0].value_len > STORE_VALUE_MAX)
		return fail(c, 413, "RequestEntityTooLarge", "Request entity too large: limit is %zu",
			    STORE_VALUE_MAX);
	if (is_kind(c, "events") && !lease) {
		r = event_lease(c->api, &lease, &e);
		if (r < 0)
			return fail_store(c, r, &e);
	}
	ops[0].lease = lease;
	for (size_t i = 0; o && i < o->n_cmp; i++)
		cmp[n_cmp++] = o->cmp[i];
	for (size_t i = 0; o && i < o->n_more; i++)
		ops[n_ops++] = o->more[i];
	r = store_txn(c->api->store, cmp, n_cmp, ops, n_ops, ret_rev, &e);
	if (r == -EEXIST)
		return r;
	return r < 0 ? fail_store(c, r, &e) : 0;
}

int object_commit(struct call *c, const char *key, json_t *obj, int64_t expect, const struct commit *o)
{
	int64_t rev = expect;
	int r = 0;

	js_del(obj, "metadata.resourceVersion");
	tidy_meta(obj);
	if (!c->dry_run)
		r = put(c, key, obj, expect, o, &rev);
	if (r == 0 && rev)
		js_set_new(obj, "metadata.resourceVersion", json_sprintf("%lld", (long long)rev));
	return r;
}

int object_remove(struct call *c, const char *key, const json_t *obj, int64_t expect)
{
	struct store_cmp cmp = {key, expect};
	struct store_op ops[1 + SERVICE_HOLDS_MAX] = {{.type = STORE_DELETE, .key = key}};
	struct err e = {0};
	size_t n = 1;
	int64_t rev;
	int r;

	if (c->dry_run)
		return 0;
	if (is_kind(c, "services"))
		n += service_release(obj, ops + 1, SERVICE_HOLDS_MAX);
	r = store_txn(c->api->store, &cmp, 1, ops, n, &rev, &e);
	for (size_t i = 1; i < n; i++)
		free((char *)ops[i].key);
	if (r == -EEXIST)
		return r;
	return r < 0 ? fail_store(c, r, &e) : 0;
}

/* Empty maps and lists of the metadata are left out, as Kubernetes does. */
void tidy_meta(json_t *obj)
{
	static const char *const names[] = {"labels", "annotations", "finalizers", "ownerReferences"};
	json_t *meta = json_object_get(obj, "metadata");

	json_object_del(meta, "managedFields");
	json_object_del(meta, "selfLink");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const json_t *v = json_object_get(meta, names[i]);

		if (v && !json_object_size(v) && !json_array_size(v) && !json_is_string(v))
			json_object_del(meta, names[i]);
	}
}

/* ---- request bodies ---- */

int parse_body(struct call *c, json_t **ret)
{
	const char *type = http_req_header(c->http, "content-type"), *body;
	struct err e = {0};
	size_t n;
	int r;

	body = http_req_body(c->http, &n);
	if (type && str_starts(type, "application/vnd.kubernetes.protobuf")) {
		r = model_from_protobuf(body, n, ret, &e);
		if (r == -ENOTSUP)
			return fail(c, 415, "UnsupportedMediaType",
				    "objects of this kind are accepted as application/json, not as "
				    "application/vnd.kubernetes.protobuf: %s",
				    e.text);
	} else if (!type || !*type || str_starts(type, "application/json") ||
		   str_starts(type, "text/plain")) {
		r = js_parse_new(body, n, ret, &e);
	} else {
		return fail(c, 415, "UnsupportedMediaType",
			    "the body of the request was in an unknown format - accepted media types "
			    "include: application/json, "
			    "application/vnd.kubernetes.protobuf");
	}
	if (r < 0)
		return fail(c, 400, "BadRequest", "the object provided is unrecognized: %s", e.text);
	if (!json_is_object(*ret)) {
		json_decref(*ret);
		return fail(c, 400, "BadRequest",
			    "the object provided is unrecognized: it is no JSON object");
	}
	return 0;
}

/* Unknown fields: refused (Strict), warned of and dropped (Warn), or dropped. */
int check_fields(struct call *c, json_t *obj)
{
	_cleanup_json_ json_t *texts = model_unknown_fields_new(c->kind, obj);
	_cleanup_buf_ struct buf all = {0};
	json_t *t;
	size_t i;

	json_array_foreach (texts, i, t) {
		const char *text = json_string_value(t);

		if (!str_starts(text, "unknown") && !str_starts(text, "duplicate"))
			continue; /* known to Kubernetes, not supported here: validation refuses it */
		if (c->strict)
			buf_addf(&all, "%s%s", all.len ? ", " : "", text);
		else if (c->warn && c->http)
			warn(c, "%s", text);
	}
	if (all.len)
		return fail(c, 400, "BadRequest",
			    "%s in version \"%s\" cannot be handled as a %s: strict decoding error: %s",
			    c->kind->kind, c->kind->version, c->kind->kind, all.data);
	model_prune(c->kind, obj);
	return 0;
}

/* ---- create ---- */

/* Takes over what went wrong in a call of our own. */
static int fail_as(struct call *c, struct call *other)
{
	json_decref(c->status);
	c->code = other->code;
	c->status = json_incref(other->status);
	return -1;
}

/* The namespace must be there and not on its way out. */
static int check_namespace(struct call *c)
{
	const struct model_kind *k = model_kind_by_plural("", "v1", "namespaces");
	struct obj *o = c->ns ? cache_get(c->api->cache, k, c->ns) : NULL;
	struct call *get;
	_cleanup_json_ json_t *stored = NULL;
	int64_t rev;
	int r = 0;

	if (!c->ns)
		return 0;
	get = call_of(c->api, k, NULL, c->ns);
	if (!o && object_load(get, &stored, &rev) < 0)
		r = fail_as(c, get);
	else if (js_str(o ? o->json : stored, "metadata.deletionTimestamp"))
		r = fail(c, 403, "Forbidden",
			 "%s \"%s\" is forbidden: unable to create new content in namespace %s because it is "
			 "being terminated",
			 c->kind->plural, c->name ? c->name : "", c->ns);
	obj_unref(o);
	call_free(get);
	return r;
}

static void set_name(struct call *c, json_t *obj)
{
	const char *base = js_str(obj, "metadata.generateName");
	char tail[6];

	random_name(tail, 5);
	free(c->name);
	c->name = xasprintf("%.*s%s", GENERATE_NAME_MAX, base, tail);
	js_set_new(obj, "metadata.name", json_string(c->name));
}

static void set_new_meta(struct call *c, json_t *obj)
{
	char when[CLOCK_TEXT_MAX], uid[37];
	static const char *const server_side[] = {"metadata.resourceVersion", "metadata.deletionTimestamp",
						  "metadata.deletionGracePeriodSeconds", "metadata.selfLink",
						  "metadata.managedFields"};

	for (size_t i = 0; i < ARRAY_SIZE(server_side); i++)
		js_del(obj, server_side[i]);
	random_uuid(uid);
	js_set_new(obj, "metadata.uid", json_string(uid));
	js_set_new(obj, "metadata.creationTimestamp", json_string(clock_text(when, clock_wall_us(), 0)));
	if (c->ns)
		js_set_new(obj, "metadata.namespace", json_string(c->ns));
	else
		js_del(obj, "metadata.namespace");
}

/* Names the object and fills in what the server decides. */
static int prepare_create(struct call *c, json_t *obj)
{
	const char *name;
	json_t *causes = NULL;

	if (!js_object(obj, "metadata"))
		return fail(c, 400, "BadRequest", "metadata is no object");
	name = js_str_or(obj, "metadata.name", "");
	if (*name) {
		free(c->name);
		c->name = xstrdup(name);
	} else if (*js_str_or(obj, "metadata.generateName", "")) {
		set_name(c, obj);
	}
	if (*js_str_or(obj, "metadata.resourceVersion", "") && !c->dry_run)
		return fail(c, 400, "BadRequest",
			    "resourceVersion should not be set on objects to be created");
	set_new_meta(c, obj);
	model_default(c->kind, obj);
	strategy_create(c, obj);
	if (model_validate(c->kind, obj, NULL, &causes) < 0)
		return fail_invalid(c, causes);
	json_decref(causes);
	if (c->http)
		warn_of(c, obj);
	return 0;
}

static int fail_exists(struct call *c)
{
	return fail(c, 409, "AlreadyExists", "%s%s%s \"%s\" already exists", c->kind->plural,
		    *c->kind->group ? "." : "", c->kind->group, c->name);
}

static int commit_create(struct call *c, json_t *obj)
{
	_cleanup_free_ char *key = object_key(c->kind, c->ns, c->name);

	if (c->dry_run) {
		struct err e = {0};
		struct store_kv kv = {0};
		int r = store_get(c->api->store, key, 0, &kv, NULL, &e);

		store_kv_done(&kv);
		return r == 0 ? -EEXIST : r == -ENOENT ? 0 : fail_store(c, r, &e);
	}
	if (is_kind(c, "services"))
		return service_commit(c, key, NULL, obj, 0);
	return object_commit(c, key, obj, 0, NULL);
}

int object_create(struct call *c, json_t *obj, json_t **ret)
{
	bool generated =
		!*js_str_or(obj, "metadata.name", "") && *js_str_or(obj, "metadata.generateName", "");
	int r;

	if (prepare_create(c, obj) < 0 || check_namespace(c) < 0)
		return -1;
	for (int i = 0; i < GENERATE_TRIES_MAX; i++) {
		r = commit_create(c, obj);
		if (r != -EEXIST) {
			if (r == 0)
				*ret = json_incref(obj);
			return r;
		}
		if (!generated)
			return fail_exists(c);
		set_name(c, obj);
	}
	return fail_exists(c);
}

/* ---- change ---- */

/* Deleted, and nothing holds it any more. */
static bool released(const struct call *c, const json_t *obj)
{
	return js_str(obj, "metadata.deletionTimestamp") &&
	       json_array_size(js_get(obj, "metadata.finalizers")) == 0 &&
	       js_int(obj, "metadata.deletionGracePeriodSeconds", 0) == 0 &&
	       !(is_kind(c, "namespaces") && json_array_size(js_get(obj, "spec.finalizers")));
}

/* 0, -EEXIST (again), or failed. guess: from the cache; what does not end in a write is then decided anew on fresh data. */
static int modify_once(struct call *c, change_fn change, void *ctx, bool guess, json_t **ret)
{
	_cleanup_free_ char *key = object_key(c->kind, c->ns, c->name);
	_cleanup_json_ json_t *cur = NULL, *obj = NULL;
	int64_t rev;
	int r = guess ? object_guess(c, &cur, &rev) : object_load(c, &cur, &rev);

	if (r == 0)
		r = change(c, cur, &obj, ctx);
	if (r < 0)
		return guess ? -EEXIST : r;
	if (released(c, obj))
		r = object_remove(c, key, cur, rev);
	else if (!json_equal(cur, obj))
		r = is_kind(c, "services") ? service_commit(c, key, cur, obj, rev)
					   : object_commit(c, key, obj, rev, NULL);
	else
		r = guess ? -EEXIST : 0;
	if (r == 0)
		*ret = take_ptr(obj);
	return r;
}

int object_modify(struct call *c, change_fn change, void *ctx, json_t **ret)
{
	for (int i = 0; i < CAS_TRIES_MAX; i++) {
		int r = modify_once(c, change, ctx, i == 0 && !c->dry_run, ret);

		if (r != -EEXIST)
			return r;
	}
	return fail_conflict(c, "too many others change it at the same time");
}
