/* SPDX-License-Identifier: Apache-2.0 */
/* Strategic merge patch (design-proposals/cli/preserve-order-in-strategic-merge-patch and api-conventions of Kubernetes).
 * Objects are merged by name, null removes. Arrays are replaced unless the schema marks them with the strategy merge:
 * then objects in them are matched by their merge key and plain values form a set. Directives:
 *   $patch: replace|delete (in an object, or in an element of a merged array), $deleteFromPrimitiveList/NAME,
 *   $setElementOrder/NAME (wanted order; elements only the server knows keep their place beside their neighbours),
 *   $retainKeys (names not listed are removed).
 * Works in place on deep copies of object and patch. Depth is bounded by JSON_DEPTH_MAX of the parser; merging two arrays of n
 * and m elements takes some n * m comparisons, so their number is bounded. */
#include "model/schema.h"

#define COMPARISONS_MAX 20000000 /* in one patch; about half a second */

#define DELETE_PREFIX "$deleteFromPrimitiveList/"
#define ORDER_PREFIX  "$setElementOrder/"

struct merge {
	struct err *e;
	uint64_t
		left; /* comparisons; once 0, nothing is found any more and the patch is refused at its end */
};

static int merge_map(json_t *original, json_t *patch, const struct model_object *o, json_t **ret,
		     struct merge *m);

/* Drops nulls and directives of a value that is taken over as it stands; false = the value itself is to be dropped. */
static bool clean(json_t *j)
{
	const char *name;
	void *tmp;
	json_t *v;

	if (json_is_object(j)) {
		if (json_is_string(json_object_get(j, "$patch")) &&
		    streq(json_string_value(json_object_get(j, "$patch")), "delete"))
			return false;
		json_object_foreach_safe (j, tmp, name, v) {
			bool directive = streq(name, "$patch") || streq(name, "$retainKeys") ||
					 str_starts(name, DELETE_PREFIX) || str_starts(name, ORDER_PREFIX);

			if (directive || json_is_null(v) || !clean(v))
				json_object_del(j, name);
		}
	} else if (json_is_array(j)) {
		for (size_t i = 0; i < json_array_size(j);) {
			if (clean(json_array_get(j, i)))
				i++;
			else
				json_array_remove(j, i);
		}
	}
	return true;
}

static void take_over(json_t *original, const char *name, json_t *v)
{
	if (clean(v))
		json_object_set(original, name, v);
	else
		json_object_del(original, name);
}

static int bad(struct merge *m, const char *name)
{
	return err_set(m->e, -EINVAL, "the value of directive %s has the wrong type", name);
}

/* The element of `list` that is the same as v: by merge key, or by value when key is NULL. -1 when there is none. */
static ssize_t find(struct merge *m, const json_t *list, const json_t *v, const char *key)
{
	json_t *w, *a = key ? json_object_get(v, key) : (json_t *)v;
	size_t i;

	if (!a || m->left < json_array_size(list)) {
		m->left = a ? 0 : m->left;
		return -1;
	}
	m->left -= json_array_size(list);
	json_array_foreach (list, i, w)
		if (json_equal(a, key ? json_object_get(w, key) : w))
			return (ssize_t)i;
	return -1;
}

static int keys_present(const json_t *list, const char *key, struct merge *m)
{
	json_t *v;
	size_t i;

	json_array_foreach (list, i, v)
		if (!json_object_get(v, key))
			return err_set(m->e, -EINVAL, "an element of the patch lacks the merge key %s", key);
	return 0;
}

/* Stable insertion sort by position in `order`; elements that are not there stay behind their predecessor. */
static json_t *sorted_new(struct merge *m, const json_t *list, const json_t *order, const char *key)
{
	_cleanup_free_ ssize_t *places = xcalloc(json_array_size(list) + 1, sizeof(*places));
	json_t *out = json_array(), *v;
	size_t i;

	json_array_foreach (list, i, v) {
		ssize_t want = find(m, order, v, key);
		size_t at = i;

		while (want >= 0 && at > 0 && places[at - 1] > want)
			at--;
		memmove(places + at + 1, places + at, (i - at) * sizeof(*places));
		places[at] = want;
		json_array_insert(out, at, v);
	}
	return out;
}

/* New array: the elements of `merged` that the patch speaks of in the patch's order, the others put between them by the order
 * they had in the original. */
static json_t *ordered_new(struct merge *m, const json_t *merged, const json_t *patch_order,
			   const json_t *server_order, const char *key)
{
	_cleanup_json_ json_t *ours = json_array(), *theirs = json_array();
	_cleanup_json_ json_t *left = NULL, *right = NULL;
	json_t *out = json_array(), *v;
	size_t i, j = 0;

	json_array_foreach (merged, i, v)
		json_array_append(find(m, patch_order, v, key) >= 0 ? ours : theirs, v);
	left = sorted_new(m, theirs, server_order, key);
	right = sorted_new(m, ours, patch_order, key);
	for (i = 0; i < json_array_size(left) || j < json_array_size(right);) {
		json_t *l = json_array_get(left, i), *r = json_array_get(right, j);
		ssize_t li = l ? find(m, server_order, l, key) : -1,
			ri = r ? find(m, server_order, r, key) : -1;

		if (!r || (l && li >= 0 && ri >= 0 && li < ri)) {
			json_array_append(out, l);
			i++;
		} else {
			json_array_append(out, r);
			j++;
		}
	}
	return out;
}

/* Takes the elements with $patch out of `patch` and carries them out on `original`. */
static int special_elements(json_t *original, json_t *patch, const char *key, struct merge *m)
{
	bool replace = false;

	for (size_t i = 0; i < json_array_size(patch);) {
		json_t *v = json_array_get(patch, i), *d = json_object_get(v, "$patch");
		const char *what = json_string_value(d);
		ssize_t at;

		if (!d) {
			i++;
			continue;
		}
		if (streq(what, "delete")) {
			if (!json_object_get(v, key))
				return err_set(m->e, -EINVAL, "$patch: delete needs the merge key %s", key);
			while ((at = find(m, original, v, key)) >= 0)
				json_array_remove(original, (size_t)at);
		} else if (streq(what, "replace")) {
			replace = true;
		} else {
			return err_set(m->e, -EINVAL, "unknown $patch \"%s\" in a list", what ? what : "");
		}
		json_array_remove(patch, i);
	}
	if (!replace)
		return 0;
	json_array_clear(original);
	json_array_extend(original, patch);
	json_array_clear(patch);
	return 0;
}

static int merge_objects(json_t *original, json_t *patch, const char *key, const struct model_object *o,
			 struct merge *m)
{
	json_t *v;
	size_t i;
	int r = keys_present(patch, key, m);

	if (r < 0)
		return r;
	json_array_foreach (patch, i, v) {
		ssize_t at = find(m, original, v, key);
		json_t *merged;

		if (at < 0) {
			if (clean(v))
				json_array_append(original, v);
			continue;
		}
		r = merge_map(json_array_get(original, (size_t)at), v, o, &merged, m);
		if (r < 0)
			return r;
		json_array_set_new(original, (size_t)at, merged);
	}
	return 0;
}

static void merge_values(struct merge *m, json_t *original, const json_t *patch)
{
	json_t *v;
	size_t i;

	json_array_foreach (patch, i, v)
		if (find(m, original, v, NULL) < 0)
			json_array_append(original, v);
}

static bool holds_objects(const json_t *list)
{
	return json_is_object(json_array_get(list, 0));
}

static int same_types(const json_t *a, const json_t *b, bool objects, struct merge *m)
{
	json_t *v;
	size_t i;

	json_array_foreach (a, i, v)
		if (json_is_object(v) != objects || json_is_array(v))
			return err_set(m->e, -EINVAL, "a merged list must hold elements of one type");
	return b ? same_types(b, NULL, objects, m) : 0;
}

/* original and patch are arrays; *ret is new. */
static int merge_list(json_t *original, json_t *patch, const struct model_field *f, json_t **ret,
		      struct merge *m)
{
	bool merge = f && (f->flags & MODEL_MERGE), objects = holds_objects(original) || holds_objects(patch);
	_cleanup_json_ json_t *before = NULL;
	int r;

	if (!merge) {
		clean(patch);
		*ret = json_incref(patch);
		return 0;
	}
	r = same_types(original, patch, objects, m);
	if (r < 0)
		return r;
	before = json_copy(original);
	if (!objects) {
		merge_values(m, original, patch);
	} else {
		if (!f->merge_key)
			return err_set(m->e, -EINVAL, "%s has no merge key", f->name);
		r = special_elements(original, patch, f->merge_key, m);
		if (r >= 0)
			r = merge_objects(original, patch, f->merge_key, f->object, m);
		if (r < 0)
			return r;
	}
	*ret = ordered_new(m, original, patch, before, objects ? f->merge_key : NULL);
	return 0;
}

/* Elements of the patch's list must come in the order that $setElementOrder gives. */
static int order_check(const json_t *list, const json_t *order, const char *key, const char *name,
		       struct merge *m)
{
	ssize_t last = -1;
	json_t *v;
	size_t i;

	json_array_foreach (list, i, v) {
		ssize_t at;

		if (json_object_get(v, "$patch"))
			continue;
		at = find(m, order, v, key);
		if (at < 0 || at <= last)
			return err_set(
				m->e, -EINVAL,
				"The order in patch list: element %zu of %s doesn't match $setElementOrder",
				i, name);
		last = at;
	}
	return 0;
}

/* Carries out one $setElementOrder; takes it and its list out of the patch. */
static int order_one(json_t *original, json_t *patch, const char *directive, const struct model_object *o,
		     struct merge *m)
{
	_cleanup_json_ json_t *order = json_incref(json_object_get(patch, directive));
	const char *name = directive + strlen(ORDER_PREFIX);
	const struct model_field *f = schema_field(o, name);
	json_t *have = json_object_get(original, name);
	_cleanup_json_ json_t *want = json_incref(json_object_get(patch, name)), *merged = NULL;
	_cleanup_json_ json_t *before = NULL;
	const char *key = f ? f->merge_key : NULL;
	int r = 0;

	if (!json_is_array(order) || (have && !json_is_array(have)) || (want && !json_is_array(want)))
		return bad(m, directive);
	if (!have && !want)
		return 0;
	r = want ? order_check(want, order, key, name, m) : 0;
	if (r < 0)
		return r;
	if (have && want) {
		size_t n = json_array_size(have);

		r = merge_list(have, want, f, &merged, m);
		if (r < 0)
			return r;
		/* New elements that took the places of deleted ones count as known to the server: so it is in Kubernetes. */
		before = json_copy(have);
		while (json_array_size(before) > n)
			json_array_remove(before, json_array_size(before) - 1);
	} else {
		before = have ? json_copy(have) : json_array();
		if (want)
			clean(want);
		merged = json_incref(have ? have : want);
	}
	json_object_set_new(original, name, ordered_new(m, merged, order, before, key));
	json_object_del(patch, name);
	return 0;
}

static int order_all(json_t *original, json_t *patch, const struct model_object *o, struct merge *m)
{
	_cleanup_json_ json_t *directives = json_array();
	const char *name;
	json_t *v;
	size_t i;

	json_object_foreach (patch, name, v)
		if (str_starts(name, ORDER_PREFIX))
			json_array_append_new(directives, json_string(name));
	json_array_foreach (directives, i, v) {
		int r = order_one(original, patch, json_string_value(v), o, m);

		if (r < 0)
			return r;
		json_object_del(patch, json_string_value(v));
	}
	return 0;
}

static int retain_keys(json_t *original, json_t *patch, struct merge *m)
{
	_cleanup_json_ json_t *keep = json_incref(json_object_get(patch, "$retainKeys")), *text = NULL;
	const char *name;
	void *tmp;
	json_t *v;

	if (!keep)
		return 0;
	if (!json_is_array(keep))
		return bad(m, "$retainKeys");
	json_object_del(patch, "$retainKeys");
	json_object_foreach (patch, name, v) {
		if (json_is_null(v) || str_starts(name, DELETE_PREFIX) || str_starts(name, ORDER_PREFIX))
			continue;
		json_decref(text);
		text = json_string(name);
		if (find(m, keep, text, NULL) < 0)
			return err_set(m->e, -EINVAL, "%s is in the patch but not in its $retainKeys", name);
	}
	json_object_foreach_safe (original, tmp, name, v) {
		json_decref(text);
		text = json_string(name);
		if (find(m, keep, text, NULL) < 0)
			json_object_del(original, name);
	}
	return 0;
}

static void delete_values(struct merge *m, json_t *original, const json_t *values)
{
	json_t *v;
	size_t i;

	json_array_foreach (values, i, v) {
		ssize_t at;

		while ((at = find(m, original, v, NULL)) >= 0)
			json_array_remove(original, (size_t)at);
	}
}

/* One member of the patch that is no directive of the whole object. */
static int merge_member(json_t *original, const char *name, json_t *v, const struct model_object *o,
			struct merge *m)
{
	const struct model_field *f;
	json_t *have, *merged = NULL;
	int r;

	if (str_starts(name, DELETE_PREFIX)) {
		if (!json_is_array(v))
			return bad(m, name);
		delete_values(m, json_object_get(original, name + strlen(DELETE_PREFIX)), v);
		return 0;
	}
	if (json_is_null(v)) {
		json_object_del(original, name);
		return 0;
	}
	have = json_object_get(original, name);
	f = schema_field(o, name);
	if (json_is_object(have) && json_is_object(v))
		r = merge_map(have, v, f && f->shape == MODEL_ONE ? f->object : NULL, &merged, m);
	else if (json_is_array(have) && json_is_array(v))
		r = merge_list(have, v, f, &merged, m);
	else
		return take_over(original, name, v), 0;
	if (r < 0)
		return r;
	json_object_set_new(original, name, merged);
	return 0;
}

/* *ret is a new reference, maybe to `original` itself. */
static int merge_map(json_t *original, json_t *patch, const struct model_object *o, json_t **ret,
		     struct merge *m)
{
	json_t *d = json_object_get(patch, "$patch"), *v;
	const char *name;
	int r;

	if (d && streq(json_string_value(d), "replace")) {
		json_object_del(patch, "$patch");
		clean(patch);
		*ret = json_incref(patch);
		return 0;
	}
	if (d && streq(json_string_value(d), "delete")) {
		*ret = json_object();
		return 0;
	}
	if (d)
		return err_set(m->e, -EINVAL, "unknown $patch in an object; known are replace and delete");
	r = retain_keys(original, patch, m);
	if (r >= 0)
		r = order_all(original, patch, o, m);
	if (r < 0)
		return r;
	json_object_foreach (patch, name, v) {
		r = merge_member(original, name, v, o, m);
		if (r < 0)
			return r;
	}
	*ret = json_incref(original);
	return 0;
}

int model_patch_strategic(const struct model_kind *k, const json_t *obj, const json_t *patch, json_t **ret,
			  struct err *e)
{
	_cleanup_json_ json_t *original = NULL, *copy = NULL, *merged = NULL;
	struct merge m = {e, COMPARISONS_MAX};
	int r;

	if (!json_is_object(patch) || !json_is_object(obj))
		return err_set(e, -EINVAL, "a strategic merge patch must be a JSON object");
	original = json_deep_copy(obj);
	copy = json_deep_copy(patch);
	r = merge_map(original, copy, k->schema->object, &merged, &m);
	if (r < 0)
		return r;
	if (!m.left)
		return err_set(e, -EINVAL, "the lists of the patch are too long to merge");
	*ret = take_ptr(merged);
	return 0;
}
