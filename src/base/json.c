/* SPDX-License-Identifier: Apache-2.0 */
/* JSON paths over jansson. jansson itself bounds nesting at 2048; depth is checked again here at 100. */
#include "base/base.h"

static json_t *step(const json_t *o, const char **path)
{
	const char *dot = strchr(*path, '.');
	size_t n = dot ? (size_t)(dot - *path) : strlen(*path);
	char name[128];

	if (!json_is_object(o) || n >= sizeof(name))
		return NULL;
	memcpy(name, *path, n);
	name[n] = 0;
	*path += n + (dot ? 1 : 0);
	return json_object_get(o, name);
}

json_t *js_get(const json_t *o, const char *path)
{
	json_t *j = (json_t *)o;

	while (j && *path)
		j = step(j, &path);
	return j;
}

const char *js_str(const json_t *o, const char *path)
{
	return json_string_value(js_get(o, path));
}

const char *js_str_or(const json_t *o, const char *path, const char *otherwise)
{
	const char *s = js_str(o, path);

	return s ? s : otherwise;
}

int64_t js_int(const json_t *o, const char *path, int64_t otherwise)
{
	json_t *j = js_get(o, path);

	return json_is_integer(j) ? json_integer_value(j) : otherwise;
}

bool js_bool(const json_t *o, const char *path, bool otherwise)
{
	json_t *j = js_get(o, path);

	return json_is_boolean(j) ? json_is_true(j) : otherwise;
}

/* The object that holds the last name of path, made on the way when make is set; *ret_last points into path. */
static json_t *parent(json_t *o, const char *path, bool make, const char **ret_last)
{
	const char *dot;

	while ((dot = strchr(path, '.'))) {
		char name[128];
		json_t *next;

		if (!json_is_object(o) || (size_t)(dot - path) >= sizeof(name))
			return NULL;
		memcpy(name, path, (size_t)(dot - path));
		name[dot - path] = 0;
		next = json_object_get(o, name);
		if ((!next || json_is_null(next)) && make) {
			json_object_set_new(o, name, json_object());
			next = json_object_get(o, name);
		}
		o = next;
		path = dot + 1;
	}
	*ret_last = path;
	return json_is_object(o) ? o : NULL;
}

int js_set_new(json_t *o, const char *path, json_t *value)
{
	const char *last;
	json_t *p = parent(o, path, true, &last);

	if (!p || !value) {
		json_decref(value);
		return -EINVAL;
	}
	return json_object_set_new(p, last, value) < 0 ? -ENOMEM : 0;
}

void js_del(json_t *o, const char *path)
{
	const char *last;
	json_t *p = parent(o, path, false, &last);

	if (p)
		json_object_del(p, last);
}

static json_t *member(json_t *o, const char *path, json_t *(*make)(void), bool object)
{
	const char *last;
	json_t *p = parent(o, path, true, &last), *j;

	if (!p)
		return NULL;
	j = json_object_get(p, last);
	if (!j || json_is_null(j)) {
		json_object_set_new(p, last, make());
		j = json_object_get(p, last);
	}
	return (object ? json_is_object(j) : json_is_array(j)) ? j : NULL;
}

json_t *js_object(json_t *o, const char *path)
{
	return member(o, path, json_object, true);
}

json_t *js_array(json_t *o, const char *path)
{
	return member(o, path, json_array, false);
}

static bool deeper_than(const json_t *j, int left)
{
	const char *k;
	json_t *v;
	size_t i;

	if (!json_is_object(j) && !json_is_array(j))
		return false;
	if (!left)
		return true;
	json_object_foreach ((json_t *)j, k, v)
		if (deeper_than(v, left - 1))
			return true;
	json_array_foreach (j, i, v)
		if (deeper_than(v, left - 1))
			return true;
	return false;
}

int js_parse_new(const char *text, size_t len, json_t **ret, struct err *e)
{
	json_error_t je;
	json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);

	if (!j)
		return err_set(e, -EINVAL, "not valid JSON: %s (line %d, column %d)", je.text, je.line,
			       je.column);
	if (deeper_than(j, JSON_DEPTH_MAX)) {
		json_decref(j);
		return err_set(e, -EINVAL, "JSON is nested deeper than %d", JSON_DEPTH_MAX);
	}
	*ret = j;
	return 0;
}

char *js_text(const json_t *o)
{
	char *s = o ? json_dumps(o, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

	return s ? s : xstrdup("null");
}
