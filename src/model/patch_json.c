/* SPDX-License-Identifier: Apache-2.0 */
/* JSON patch, RFC 6902, with JSON pointers of RFC 6901: add, remove, replace, move, copy, test; all or nothing.
 * "copy" could blow an object up exponentially, so operations and the total size copied are bounded. */
#include "model/model.h"

#define OPS_MAX	   10000	     /* as Kubernetes */
#define COPIED_MAX ((size_t)3 << 20) /* bytes, as Kubernetes' limit of a request */
#define TOKEN_MAX  1024

/* One pointer resolved down to its last token. */
struct place {
	json_t *parent;	       /* borrowed; NULL = the whole document is meant */
	char token[TOKEN_MAX]; /* unescaped */
};

static int token_read(const char **p, char out[TOKEN_MAX])
{
	const char *s = *p;
	size_t n = 0;

	for (; *s && *s != '/'; s++) {
		char c = *s;

		if (c == '~') {
			s++;
			if (*s != '0' && *s != '1')
				return -EINVAL;
			c = *s == '0' ? '~' : '/';
		}
		if (n + 1 >= TOKEN_MAX)
			return -EINVAL;
		out[n++] = c;
	}
	out[n] = 0;
	*p = s;
	return 0;
}

/* Array index without leading zeros; limit is one past the largest allowed. */
static bool index_read(const char *t, size_t limit, size_t *ret)
{
	int64_t i;

	if ((t[0] == '0' && t[1]) || t[0] == '+' || t[0] == '-' || str_i64(t, &i) < 0 || (uint64_t)i >= limit)
		return false;
	*ret = (size_t)i;
	return true;
}

static json_t *child(json_t *j, const char *token)
{
	size_t i;

	if (json_is_object(j))
		return json_object_get(j, token);
	if (json_is_array(j) && index_read(token, json_array_size(j), &i))
		return json_array_get(j, i);
	return NULL;
}

static int place_find(json_t *doc, const char *path, struct place *ret, struct err *e)
{
	const char *p = path;

	ret->parent = NULL;
	if (!*p)
		return 0;
	if (*p != '/')
		return err_set(e, -EINVAL, "path \"%s\" does not start with '/'", path);
	for (ret->parent = doc;;) {
		p++;
		if (token_read(&p, ret->token) < 0)
			return err_set(e, -EINVAL, "path \"%s\" is not a valid JSON pointer", path);
		if (!*p)
			return 0;
		ret->parent = child(ret->parent, ret->token);
		if (!ret->parent)
			return err_set(e, -EINVAL, "path \"%s\" does not exist: nothing at \"%.*s\"", path,
				       (int)(p - path), path);
	}
}

static json_t *place_get(json_t *doc, const struct place *at)
{
	return at->parent ? child(at->parent, at->token) : doc;
}

/* Takes value over. */
static int op_add(json_t **doc, const char *path, json_t *value, struct err *e)
{
	struct place at;
	size_t i;
	int r = place_find(*doc, path, &at, e);

	if (r < 0)
		goto fail;
	if (!at.parent) {
		json_decref(*doc);
		*doc = value;
		return 0;
	}
	if (json_is_object(at.parent)) {
		json_object_set_new(at.parent, at.token, value);
		return 0;
	}
	if (json_is_array(at.parent) && streq(at.token, "-")) {
		json_array_append_new(at.parent, value);
		return 0;
	}
	if (json_is_array(at.parent) && index_read(at.token, json_array_size(at.parent) + 1, &i)) {
		json_array_insert_new(at.parent, i, value);
		return 0;
	}
	r = err_set(e, -EINVAL, "path \"%s\": \"%s\" is no place to add to", path, at.token);
fail:
	json_decref(value);
	return r;
}

static int op_remove(json_t **doc, const char *path, struct err *e)
{
	struct place at;
	size_t i;
	int r = place_find(*doc, path, &at, e);

	if (r < 0)
		return r;
	if (!at.parent)
		return err_set(e, -EINVAL, "the whole document cannot be removed");
	if (!child(at.parent, at.token))
		return err_set(e, -EINVAL, "remove: path \"%s\" does not exist", path);
	if (json_is_object(at.parent))
		json_object_del(at.parent, at.token);
	else if (index_read(at.token, json_array_size(at.parent), &i))
		json_array_remove(at.parent, i);
	return 0;
}

/* Takes value over. */
static int op_replace(json_t **doc, const char *path, json_t *value, struct err *e)
{
	struct place at;
	size_t i;
	int r = place_find(*doc, path, &at, e);

	if (r >= 0 && at.parent && !child(at.parent, at.token))
		r = err_set(e, -EINVAL, "replace: path \"%s\" does not exist", path);
	if (r < 0) {
		json_decref(value);
		return r;
	}
	if (!at.parent) {
		json_decref(*doc);
		*doc = value;
	} else if (json_is_object(at.parent)) {
		json_object_set_new(at.parent, at.token, value);
	} else if (index_read(at.token, json_array_size(at.parent), &i)) {
		json_array_set_new(at.parent, i, value);
	}
	return 0;
}

/* New reference to a copy of what is at `from`; its size is taken off *budget. */
static int from_new(json_t *doc, const char *from, size_t *budget, json_t **ret, struct err *e)
{
	struct place at;
	_cleanup_free_ char *text = NULL;
	json_t *j;
	int r = place_find(doc, from, &at, e);

	if (r < 0)
		return r;
	j = place_get(doc, &at);
	if (!j)
		return err_set(e, -EINVAL, "from \"%s\" does not exist", from);
	text = js_text(j);
	if (strlen(text) > *budget)
		return err_set(e, -EINVAL, "the patch copies more than %zu bytes", COPIED_MAX);
	*budget -= strlen(text);
	*ret = json_deep_copy(j);
	return 0;
}

static int op_move(json_t **doc, const char *from, const char *path, size_t *budget, struct err *e)
{
	size_t n = strlen(from);
	json_t *v = NULL;
	int r;

	if (strncmp(path, from, n) == 0 && path[n] == '/')
		return err_set(e, -EINVAL, "cannot move \"%s\" into itself", from);
	r = from_new(*doc, from, budget, &v, e);
	if (r < 0 || streq(from, path)) {
		json_decref(v);
		return r;
	}
	r = op_remove(doc, from, e);
	if (r < 0) {
		json_decref(v);
		return r;
	}
	return op_add(doc, path, v, e);
}

/* As json_equal, but 1 equals 1.0. */
static bool same(const json_t *a, const json_t *b)
{
	if (json_is_number(a) && json_is_number(b) && json_typeof(a) != json_typeof(b))
		return json_number_value(a) == json_number_value(b);
	return json_equal((json_t *)a, (json_t *)b);
}

static int op_test(json_t *doc, const char *path, const json_t *value, struct err *e)
{
	struct place at;
	json_t *j;
	int r = place_find(doc, path, &at, e);

	if (r < 0)
		return r;
	j = place_get(doc, &at);
	if (j ? same(j, value) : json_is_null(value))
		return 0;
	return err_set(e, -EINVAL, "testing value %s failed", path);
}

static int apply(json_t **doc, const json_t *op, size_t *budget, struct err *e)
{
	const char *name = js_str(op, "op"), *path = js_str(op, "path"), *from = js_str(op, "from");
	json_t *value = json_object_get(op, "value"), *copy = NULL;
	int r;

	if (!name || !path)
		return err_set(e, -EINVAL, "an operation needs \"op\" and \"path\"");
	if ((streq(name, "add") || streq(name, "replace") || streq(name, "test")) && !value)
		return err_set(e, -EINVAL, "operation \"%s\" at \"%s\" needs \"value\"", name, path);
	if ((streq(name, "move") || streq(name, "copy")) && !from)
		return err_set(e, -EINVAL, "operation \"%s\" at \"%s\" needs \"from\"", name, path);
	if (streq(name, "add"))
		return op_add(doc, path, json_deep_copy(value), e);
	if (streq(name, "remove"))
		return op_remove(doc, path, e);
	if (streq(name, "replace"))
		return op_replace(doc, path, json_deep_copy(value), e);
	if (streq(name, "move"))
		return op_move(doc, from, path, budget, e);
	if (streq(name, "test"))
		return op_test(*doc, path, value, e);
	if (!streq(name, "copy"))
		return err_set(e, -EINVAL, "unknown operation \"%s\"", name);
	r = from_new(*doc, from, budget, &copy, e);
	return r < 0 ? r : op_add(doc, path, copy, e);
}

int model_patch_json(const json_t *obj, const json_t *patch, json_t **ret, struct err *e)
{
	_cleanup_json_ json_t *doc = NULL;
	size_t i, budget = COPIED_MAX;
	json_t *op;

	if (!json_is_array(patch))
		return err_set(e, -EINVAL, "a JSON patch must be an array of operations");
	if (json_array_size(patch) > OPS_MAX)
		return err_set(e, -EINVAL, "a JSON patch may have at most %d operations", OPS_MAX);
	doc = json_deep_copy(obj);
	json_array_foreach (patch, i, op) {
		int r = apply(&doc, op, &budget, e);

		if (r < 0)
			return r;
	}
	*ret = take_ptr(doc);
	return 0;
}
