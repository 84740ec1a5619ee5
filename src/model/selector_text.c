/* SPDX-License-Identifier: Apache-2.0 */
/* Selectors written out: "a=b,c in (d,e),!f", keys sorted, as kubectl shows them and as Scale.status.selector has them. */
#include "model/internal.h"

char **strv_put(char **v, size_t n, const char *s)
{
	if ((n & (n + 1)) == 0) /* room for n + 1 strings and the end, doubled at 0, 1, 3, 7, ... */
		v = xrealloc(v, (2 * n + 2) * sizeof(*v));
	v[n] = xstrdup(s);
	v[n + 1] = NULL;
	return v;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sorted(struct buf *b, char **parts)
{
	if (parts)
		qsort(parts, strv_len(parts), sizeof(*parts), compare);
	for (char **p = parts; p && *p; p++)
		buf_addf(b, "%s%s", b->len ? "," : "", *p);
}

static char **labels_parts(char **parts, size_t *n, const json_t *labels)
{
	const char *key;
	json_t *v;

	json_object_foreach ((json_t *)labels, key, v) {
		_cleanup_free_ char *part =
			xasprintf("%s=%s", key, json_is_string(v) ? json_string_value(v) : "");

		parts = strv_put(parts, (*n)++, part);
	}
	return parts;
}

void labels_text(struct buf *b, const json_t *labels)
{
	size_t n = 0;
	_cleanup_strv_ char **parts = labels_parts(NULL, &n, labels);

	sorted(b, parts);
}

static char *expression_text(const json_t *x)
{
	_cleanup_buf_ struct buf values = {.limit = 65536};
	const char *key = js_str_or(x, "key", ""), *op = js_str_or(x, "operator", "");
	_cleanup_strv_ char **sorted_values = NULL;
	json_t *v;
	size_t i;

	if (streq(op, "Exists"))
		return xstrdup(key);
	if (streq(op, "DoesNotExist"))
		return xasprintf("!%s", key);
	json_array_foreach (json_object_get(x, "values"), i, v)
		sorted_values = strv_put(sorted_values, i, json_is_string(v) ? json_string_value(v) : "");
	sorted(&values, sorted_values);
	return xasprintf("%s %s (%s)", key, streq(op, "In") ? "in" : "notin", values.data ? values.data : "");
}

void label_selector_text(struct buf *b, const json_t *selector)
{
	size_t i, n = 0;
	_cleanup_strv_ char **parts = labels_parts(NULL, &n, json_object_get(selector, "matchLabels"));
	json_t *x;

	json_array_foreach (json_object_get(selector, "matchExpressions"), i, x) {
		_cleanup_free_ char *text = expression_text(x);

		parts = strv_put(parts, n++, text);
	}
	sorted(b, parts);
}

char *model_selector_text(const json_t *label_selector)
{
	struct buf b = {.limit = 65536};

	label_selector_text(&b, label_selector);
	return buf_take(&b);
}
