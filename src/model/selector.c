/* SPDX-License-Identifier: Apache-2.0 */
/* Label selectors, from text (kubectl -l) and from JSON (LabelSelector, or a plain map as in a Service). A selector is a list of
 * requirements that must all hold; an empty one matches everything. */
#include "model/internal.h"

#define REQUIREMENTS_MAX 1000
#define VALUES_MAX	 10000

enum op { OP_IN, OP_NOT_IN, OP_EXISTS, OP_NOT_EXISTS, OP_GREATER, OP_LESS };

struct requirement {
	char *key;
	enum op op;
	char **values;
};

struct model_selector {
	struct requirement *reqs;
	size_t n;
};

struct model_selector *model_selector_free(struct model_selector *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n; i++) {
		free(s->reqs[i].key);
		strv_free(s->reqs[i].values);
	}
	free(s->reqs);
	free(s);
	return NULL;
}

static void selector_free_p(struct model_selector **s)
{
	model_selector_free(*s);
}

/* Takes values over. */
static int add(struct model_selector *s, const char *key, enum op op, char **values, struct err *e)
{
	const char *fault = NULL;
	int64_t number;

	if (!name_is_qualified(key))
		fault = "is not a valid label key";
	else if (s->n >= REQUIREMENTS_MAX)
		fault = "is one requirement too many";
	else if ((op == OP_IN || op == OP_NOT_IN) && strv_len(values) == 0)
		fault = "needs values with in and notin";
	else if ((op == OP_GREATER || op == OP_LESS) && str_i64(values[0], &number) < 0)
		fault = "needs a number with > and <";
	for (char **v = values; v && *v && !fault; v++)
		if (!name_is_label_value(*v))
			fault = "has a value that is no valid label value";
	if (fault) {
		strv_free(values);
		return err_set(e, -EINVAL, "selector: key \"%.100s\" %s", key, fault);
	}
	s->reqs = xrealloc(s->reqs, (s->n + 1) * sizeof(*s->reqs));
	s->reqs[s->n++] = (struct requirement){xstrdup(key), op, values};
	return 0;
}

/* ---- text ---- */

struct lex {
	const char *p;
	char word[320];
};

static void spaces(struct lex *x)
{
	while (*x->p == ' ' || *x->p == '\t' || *x->p == '\n' || *x->p == '\r')
		x->p++;
}

/* A run of characters that are no operators; may be empty. */
static int word(struct lex *x)
{
	size_t n;

	spaces(x);
	n = strcspn(x->p, " \t\r\n,()=!<>");
	if (n >= sizeof(x->word))
		return -EINVAL;
	memcpy(x->word, x->p, n);
	x->word[n] = 0;
	x->p += n;
	spaces(x);
	return 0;
}

static bool take(struct lex *x, const char *text)
{
	if (!str_starts(x->p, text))
		return false;
	x->p += strlen(text);
	return true;
}

static int bad(struct lex *x, const char *text, struct err *e)
{
	return err_set(e, -EINVAL, "unable to parse requirement: selector \"%.200s\" is wrong at \"%.40s\"",
		       text, x->p);
}

/* "(a,b,)" -> values */
static int values_read(struct lex *x, char ***ret)
{
	_cleanup_strv_ char **v = NULL;
	size_t n = 0;

	if (!take(x, "("))
		return -EINVAL;
	do {
		if (++n > VALUES_MAX || word(x) < 0)
			return -EINVAL;
		v = strv_put(v, n - 1, x->word);
	} while (take(x, ","));
	if (!take(x, ")"))
		return -EINVAL;
	*ret = take_ptr(v);
	return 0;
}

static int one(struct lex *x, const char *text, struct model_selector *s, struct err *e)
{
	_cleanup_free_ char *key = NULL;
	char **values = NULL;
	enum op op;
	bool not ;

	spaces(x);
	not = take(x, "!");
	if (word(x) < 0 || !x->word[0])
		return bad(x, text, e);
	key = xstrdup(x->word);
	if (!*x->p || *x->p == ',')
		return add(s, key, not ? OP_NOT_EXISTS : OP_EXISTS, NULL, e);
	if (not )
		return bad(x, text, e);
	if (take(x, "=="))
		op = OP_IN;
	else if (take(x, "!="))
		op = OP_NOT_IN;
	else if (take(x, "="))
		op = OP_IN;
	else if (take(x, ">"))
		op = OP_GREATER;
	else if (take(x, "<"))
		op = OP_LESS;
	else {
		const char *here = x->p;

		if (word(x) < 0 || (!streq(x->word, "in") && !streq(x->word, "notin"))) {
			x->p = here;
			return bad(x, text, e);
		}
		op = streq(x->word, "in") ? OP_IN : OP_NOT_IN;
		if (values_read(x, &values) < 0)
			return bad(x, text, e);
		return add(s, key, op, values, e);
	}
	if (word(x) < 0)
		return bad(x, text, e);
	return add(s, key, op, strv_add(NULL, x->word), e);
}

int model_selector_parse(const char *text, struct model_selector **ret, struct err *e)
{
	_cleanup_(selector_free_p) struct model_selector *s = xcalloc(1, sizeof(*s));
	struct lex x = {.p = text};

	spaces(&x);
	if (!*x.p) {
		*ret = take_ptr(s);
		return 0;
	}
	do {
		int r = one(&x, text, s, e);

		if (r < 0)
			return r;
		spaces(&x);
	} while (take(&x, ","));
	if (*x.p)
		return bad(&x, text, e);
	*ret = take_ptr(s);
	return 0;
}

/* ---- JSON ---- */

static int labels_add(struct model_selector *s, const json_t *labels, struct err *e)
{
	const char *key;
	json_t *v;

	if (labels && !json_is_null(labels) && !json_is_object(labels))
		return err_set(e, -EINVAL, "selector: labels must be an object");
	json_object_foreach ((json_t *)labels, key, v) {
		int r;

		if (!json_is_string(v))
			return err_set(e, -EINVAL, "selector: the value of \"%.100s\" must be a string", key);
		r = add(s, key, OP_IN, strv_add(NULL, json_string_value(v)), e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int expression_add(struct model_selector *s, const json_t *x, struct err *e)
{
	static const char *const names[] = {"In", "NotIn", "Exists", "DoesNotExist"};
	const char *key = js_str(x, "key"), *op = js_str(x, "operator");
	json_t *values = json_object_get(x, "values"), *v;
	char **strv = NULL;
	size_t i;

	if (!key || !op)
		return err_set(e, -EINVAL, "selector: an expression needs key and operator");
	if (json_array_size(values) > VALUES_MAX)
		return err_set(e, -EINVAL, "selector: too many values");
	json_array_foreach (values, i, v)
		strv = strv_put(strv, i, json_is_string(v) ? json_string_value(v) : "");
	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (streq(op, names[i])) {
			if (i >= OP_EXISTS && strv_len(strv))
				break;
			return add(s, key, (enum op)i, strv, e);
		}
	strv_free(strv);
	return err_set(e, -EINVAL, "selector: operator \"%.100s\" of key \"%.100s\" is not valid here", op,
		       key);
}

int model_selector_from_json(const json_t *j, struct model_selector **ret, struct err *e)
{
	_cleanup_(selector_free_p) struct model_selector *s = xcalloc(1, sizeof(*s));
	json_t *labels = json_object_get(j, "matchLabels"), *xs = json_object_get(j, "matchExpressions"), *x;
	size_t i;
	int r;

	/* A label may be called matchLabels, but its value is then a string. */
	if (!json_is_object(labels) && !json_is_array(xs))
		r = json_object_size(j) && (json_is_null(labels) || json_is_null(xs)) ? 0
										      : labels_add(s, j, e);
	else
		r = labels_add(s, labels, e);
	if (r < 0)
		return r;
	json_array_foreach (xs, i, x) {
		r = expression_add(s, x, e);
		if (r < 0)
			return r;
	}
	*ret = take_ptr(s);
	return 0;
}

/* ---- match ---- */

static bool requirement_match(const struct requirement *q, const json_t *labels)
{
	const char *have = json_string_value(json_object_get(labels, q->key));
	int64_t a, b;

	switch (q->op) {
	case OP_IN:
		return have && strv_has(q->values, have);
	case OP_NOT_IN:
		return !have || !strv_has(q->values, have);
	case OP_EXISTS:
		return have;
	case OP_NOT_EXISTS:
		return !have;
	case OP_GREATER:
	case OP_LESS:
		if (!have || str_i64(have, &a) < 0 || str_i64(q->values[0], &b) < 0)
			return false;
		return q->op == OP_GREATER ? a > b : a < b;
	}
	return false;
}

bool model_selector_match(const struct model_selector *s, const json_t *labels)
{
	for (size_t i = 0; i < s->n; i++)
		if (!requirement_match(&s->reqs[i], labels))
			return false;
	return true;
}

bool model_labels_match(const json_t *label_selector, const json_t *labels)
{
	_cleanup_(selector_free_p) struct model_selector *s = NULL;

	if (!label_selector || json_is_null(label_selector) ||
	    model_selector_from_json(label_selector, &s, NULL) < 0)
		return false;
	return model_selector_match(s, labels);
}
