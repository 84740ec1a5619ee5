/* SPDX-License-Identifier: Apache-2.0 */
/* Field selectors: "metadata.name=x,spec.nodeName!=y". Which fields a kind offers is Kubernetes' list. Values may hold
 * \, \= and \\ . */
#include "model/internal.h"

#define TERMS_MAX 100

struct offered {
	const char *kind;
	const char *field;
	const char *otherwise; /* value where the object has none */
	const char *alias;     /* path in the object if it is not the field itself */
};

static const struct offered offered[] = {
	{"Pod", "spec.nodeName", "", NULL},
	{"Pod", "spec.restartPolicy", "", NULL},
	{"Pod", "spec.schedulerName", "", NULL},
	{"Pod", "spec.serviceAccountName", "", NULL},
	{"Pod", "spec.hostNetwork", "false", NULL},
	{"Pod", "status.phase", "", NULL},
	{"Pod", "status.podIP", "", NULL},
	{"Pod", "status.nominatedNodeName", "", NULL},
	{"Node", "spec.unschedulable", "false", NULL},
	{"Namespace", "status.phase", "", NULL},
	{"Secret", "type", "", NULL},
	{"Service", "spec.clusterIP", "", NULL},
	{"Service", "spec.type", "", NULL},
	{"ReplicaSet", "status.replicas", "0", NULL},
	{"Event", "involvedObject.kind", "", NULL},
	{"Event", "involvedObject.namespace", "", NULL},
	{"Event", "involvedObject.name", "", NULL},
	{"Event", "involvedObject.uid", "", NULL},
	{"Event", "involvedObject.apiVersion", "", NULL},
	{"Event", "involvedObject.resourceVersion", "", NULL},
	{"Event", "involvedObject.fieldPath", "", NULL},
	{"Event", "reason", "", NULL},
	{"Event", "reportingComponent", "", NULL},
	{"Event", "source", "", "source.component"},
	{"Event", "type", "", NULL},
};

struct term {
	const char *path, *otherwise;
	char *value;
	bool not_equal;
};

struct model_field_selector {
	struct term *terms;
	size_t n;
};

struct model_field_selector *model_field_selector_free(struct model_field_selector *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n; i++)
		free(s->terms[i].value);
	free(s->terms);
	free(s);
	return NULL;
}

static void field_selector_free_p(struct model_field_selector **s)
{
	model_field_selector_free(*s);
}

static bool field_find(const struct model_kind *k, const char *field, struct term *t)
{
	t->otherwise = "";
	if (streq(field, "metadata.name"))
		t->path = "metadata.name";
	else if (streq(field, "metadata.namespace"))
		t->path = "metadata.namespace";
	else
		for (size_t i = 0; i < ARRAY_SIZE(offered); i++)
			if (streq(offered[i].kind, k->kind) && streq(offered[i].field, field)) {
				t->path = offered[i].alias ? offered[i].alias : offered[i].field;
				t->otherwise = offered[i].otherwise;
			}
	return t->path;
}

/* One term: up to the next comma that is not escaped. Returns where it ends, NULL when the syntax is wrong. */
static const char *term_split(const char *p, struct buf *field, struct buf *value, bool *ret_not)
{
	const char *op = p + strcspn(p, "=!,");

	if (*op == '!' && op[1] == '=') {
		*ret_not = true;
		buf_add(field, p, (size_t)(op - p));
		p = op + 2;
	} else if (*op == '=') {
		buf_add(field, p, (size_t)(op - p));
		p = op + (op[1] == '=' ? 2 : 1);
	} else {
		return NULL;
	}
	for (; *p && *p != ','; p++) {
		if (*p == '=')
			return NULL;
		if (*p == '\\' && (!*++p || !strchr("\\,=", *p)))
			return NULL;
		buf_add(value, p, 1);
	}
	return p;
}

static int term_add(const struct model_kind *k, struct model_field_selector *s, const char **p, struct err *e)
{
	_cleanup_buf_ struct buf field = {.limit = 256}, value = {.limit = 4096};
	struct term t = {0};
	const char *end = term_split(*p, &field, &value, &t.not_equal);

	if (!end)
		return err_set(e, -EINVAL, "invalid selector: '%.200s'; can't understand '%.100s'", *p, *p);
	if (!field_find(k, field.data ? field.data : "", &t))
		return err_set(e, -EINVAL, "field label not supported: %.200s", field.data ? field.data : "");
	if (s->n >= TERMS_MAX)
		return err_set(e, -EINVAL, "a field selector may have at most %d terms", TERMS_MAX);
	t.value = buf_take(&value);
	s->terms = xrealloc(s->terms, (s->n + 1) * sizeof(*s->terms));
	s->terms[s->n++] = t;
	*p = end;
	return 0;
}

int model_field_selector_parse(const struct model_kind *k, const char *text,
			       struct model_field_selector **ret, struct err *e)
{
	_cleanup_(field_selector_free_p) struct model_field_selector *s = xcalloc(1, sizeof(*s));

	while (*text) {
		int r = term_add(k, s, &text, e);

		if (r < 0)
			return r;
		if (*text == ',')
			text++;
	}
	*ret = take_ptr(s);
	return 0;
}

static const char *value_text(const json_t *j, const char *otherwise, char number[32])
{
	if (json_is_string(j))
		return json_string_value(j);
	if (json_is_boolean(j))
		return json_is_true(j) ? "true" : "false";
	if (!json_is_integer(j))
		return otherwise;
	snprintf(number, 32, "%lld", (long long)json_integer_value(j));
	return number;
}

bool model_field_selector_match(const struct model_field_selector *s, const json_t *obj)
{
	char number[32];

	for (size_t i = 0; i < s->n; i++) {
		const struct term *t = &s->terms[i];
		const char *have = value_text(js_get(obj, t->path), t->otherwise, number);

		if (streq(have, t->value) == t->not_equal)
			return false;
	}
	return true;
}
