/* SPDX-License-Identifier: Apache-2.0 */
/* What the schema tables alone can check: unknown and unsupported fields, types, required fields, allowed values, limits,
 * fields that may not change. Recursion is bounded by the depth of the tables (they have no cycle). */
#include "model/internal.h"

/* Empty, zero or false: a field that kuayu does not support may be there so. */
static bool is_nothing(const json_t *v)
{
	const char *name;
	json_t *w;

	switch (json_typeof(v)) {
	case JSON_NULL:
	case JSON_FALSE:
		return true;
	case JSON_STRING:
		return json_string_length(v) == 0;
	case JSON_INTEGER:
		return json_integer_value(v) == 0;
	case JSON_ARRAY:
		return json_array_size(v) == 0;
	case JSON_OBJECT:
		json_object_foreach ((json_t *)v, name, w)
			if (!is_nothing(w))
				return false;
		return true;
	default:
		return false;
	}
}

/* ---- unknown and unsupported ---- */

struct unknown {
	json_t *found; /* array of texts, or NULL */
	bool prune;
};

static void unknown_object(const struct unknown *u, const struct at *at, const struct model_object *o,
			   json_t *obj);

static void unknown_report(const struct unknown *u, const struct at *at, const char *fmt)
{
	_cleanup_buf_ struct buf path = {.limit = 4096};
	_cleanup_free_ char *text = NULL;

	if (!u->found || json_array_size(u->found) >= FAULTS_MAX)
		return;
	at_text(at, &path);
	text = xasprintf("%s \"%s\"%s", str_starts(fmt, "unknown") ? "unknown field" : "field",
			 path.data ? path.data : "", str_starts(fmt, "unknown") ? "" : " is not supported");
	json_array_append_new(u->found, json_string(text));
}

static void unknown_member(const struct unknown *u, const struct at *at, const struct model_field *f,
			   json_t *v)
{
	const char *key;
	json_t *w;
	size_t i;

	if (f->flags & MODEL_UNSUPPORTED) {
		if (!is_nothing(v))
			unknown_report(u, at, "unsupported");
		return;
	}
	if (f->type != MODEL_OBJECT)
		return;
	if (f->shape == MODEL_ONE)
		unknown_object(u, at, f->object, v);
	else if (f->shape == MODEL_ARRAY)
		json_array_foreach (v, i, w)
			unknown_object(u, AT_INDEX(at, i), f->object, w);
	else
		json_object_foreach (v, key, w)
			unknown_object(u, AT_KEY(at, key), f->object, w);
}

static void unknown_object(const struct unknown *u, const struct at *at, const struct model_object *o,
			   json_t *obj)
{
	const char *name;
	void *tmp;
	json_t *v;

	json_object_foreach_safe (obj, tmp, name, v) {
		const struct model_field *f = schema_field(o, name);

		if (f) {
			unknown_member(u, AT(at, name), f, v);
			continue;
		}
		unknown_report(u, AT(at, name), "unknown");
		if (u->prune)
			json_object_del(obj, name);
	}
}

json_t *model_unknown_fields_new(const struct model_kind *k, const json_t *obj)
{
	struct unknown u = {.found = json_array()};

	unknown_object(&u, &AT_ROOT, k->schema->object, (json_t *)obj);
	return u.found;
}

void model_prune(const struct model_kind *k, json_t *obj)
{
	struct unknown u = {.prune = true};

	unknown_object(&u, &AT_ROOT, k->schema->object, obj);
}

/* ---- types, required, allowed, limits ---- */

/* What a value should have been, or NULL when it is right. */
static const char *type_fault(const struct model_field *f, const json_t *v)
{
	int64_t number;

	switch (f->type) {
	case MODEL_STRING:
		return json_is_string(v) ? NULL : "a string";
	case MODEL_INT:
		return json_is_integer(v) && json_integer_value(v) >= INT32_MIN &&
				       json_integer_value(v) <= INT32_MAX
			       ? NULL
			       : "a number of 32 bits";
	case MODEL_INT64:
		return json_is_integer(v) ? NULL : "a number";
	case MODEL_BOOL:
		return json_is_boolean(v) ? NULL : "true or false";
	case MODEL_BYTES:
		return json_is_string(v) && bytes_ok(json_string_value(v)) ? NULL : "base64 text";
	case MODEL_QUANTITY:
		if (!json_is_string(v) && !json_is_number(v))
			return "a quantity, text or number";
		return model_quantity_json(v, &number) == -EINVAL
			       ? "a quantity such as 500m, 2 or 1Gi: quantities must match the regular "
				 "expression "
				 "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
			       : NULL;
	case MODEL_INT_OR_STRING:
		return json_is_integer(v) || json_is_string(v) ? NULL : "a number or a string";
	case MODEL_TIME:
	case MODEL_MICRO_TIME:
		return json_is_string(v) && clock_parse(json_string_value(v), &number) == 0
			       ? NULL
			       : "a time in RFC 3339";
	case MODEL_OBJECT:
		return json_is_object(v) ? NULL : "an object";
	case MODEL_RAW:
		return NULL;
	}
	return NULL;
}

static bool allowed(const struct model_field *f, const char *s)
{
	for (const char *const *a = f->allowed; *a; a++)
		if (streq(*a, s))
			return true;
	return false;
}

static void check_limits(json_t *causes, const struct at *at, const struct model_field *f, const json_t *v)
{
	int64_t n = json_integer_value(v);

	if (n >= f->min && n <= f->max)
		return;
	if (f->max == INT64_MAX && f->min == 0)
		fault_invalid(causes, at, v, "must be greater than or equal to 0");
	else if (f->max == INT64_MAX)
		fault_invalid(causes, at, v, "must be greater than or equal to %lld", (long long)f->min);
	else
		fault_invalid(causes, at, v, "must be between %lld and %lld, inclusive", (long long)f->min,
			      (long long)f->max);
}

static void check_value(json_t *causes, const struct at *at, const struct model_field *f, const json_t *v)
{
	const char *wanted = type_fault(f, v);

	if (wanted) {
		fault_type(causes, at, v, wanted);
		return;
	}
	if (f->type == MODEL_OBJECT)
		check_schema(causes, at, f->object, v);
	else if (f->allowed && (json_string_length(v) || (f->flags & MODEL_REQUIRED)) &&
		 !allowed(f, json_string_value(v)))
		fault_unsupported_value(causes, at, json_string_value(v), f->allowed);
	else if (f->limited && json_is_integer(v))
		check_limits(causes, at, f, v);
}

static void check_field(json_t *causes, const struct at *at, const struct model_field *f, const json_t *v)
{
	const char *key;
	json_t *w;
	size_t i;

	if (f->flags & MODEL_UNSUPPORTED) {
		if (!is_nothing(v))
			fault_forbidden(causes, at, "not supported by kuayu");
		return;
	}
	if (f->shape == MODEL_ONE) {
		check_value(causes, at, f, v);
	} else if (f->shape == MODEL_ARRAY) {
		if (!json_is_array(v))
			fault_type(causes, at, v, "a list");
		json_array_foreach (v, i, w)
			check_value(causes, AT_INDEX(at, i), f, w);
	} else {
		if (!json_is_object(v))
			fault_type(causes, at, v, "an object");
		json_object_foreach ((json_t *)v, key, w)
			check_value(causes, AT_KEY(at, key), f, w);
	}
}

static bool is_missing(const struct model_field *f, const json_t *v)
{
	if (!v || json_is_null(v))
		return true;
	if (f->shape == MODEL_ARRAY)
		return json_is_array(v) && json_array_size(v) == 0;
	return json_is_string(v) && json_string_length(v) == 0;
}

void check_schema(json_t *causes, const struct at *at, const struct model_object *o, const json_t *obj)
{
	for (const struct model_field *f = o->fields; f->name; f++) {
		json_t *v = json_object_get(obj, f->name);

		if ((f->flags & MODEL_REQUIRED) && is_missing(f, v))
			fault_required(causes, AT(at, f->name), NULL);
		else if (v && !json_is_null(v))
			check_field(causes, AT(at, f->name), f, v);
	}
}

/* ---- fields that may not change ---- */

static bool same(const json_t *a, const json_t *b)
{
	if (!a || !b)
		return a == b;
	return json_equal((json_t *)a, (json_t *)b);
}

void check_immutable(json_t *causes, const struct at *at, const struct model_object *o, const json_t *obj,
		     const json_t *old)
{
	bool meta = o == &schema_object_meta;

	for (const struct model_field *f = o->fields; f->name; f++) {
		json_t *v = json_object_get(obj, f->name), *was = json_object_get(old, f->name);

		if (f->type == MODEL_OBJECT && f->shape == MODEL_ONE && !(f->flags & MODEL_IMMUTABLE)) {
			if (json_is_object(v) && json_is_object(was))
				check_immutable(causes, AT(at, f->name), f->object, v, was);
			continue;
		}
		if (!(f->flags & MODEL_IMMUTABLE) || same(v, was))
			continue;
		if (meta && (!v || !was)) /* left out in an update: the server puts it back */
			continue;
		fault_invalid(causes, AT(at, f->name), v, "field is immutable");
	}
}
