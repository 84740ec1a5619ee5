/* SPDX-License-Identifier: Apache-2.0 */
/* YAML to JSON with libyaml's event parser, for kubeconfig files. Bounds: depth JSON_DEPTH_MAX, aliases refused (no
 * billion laughs). Quoted scalars stay text; plain ones become null, booleans or integers as YAML 1.2's core schema says. */
#include "kube/internal.h"

#include <yaml.h>

static int next_event(yaml_parser_t *p, yaml_event_t *ev, struct err *e)
{
	if (yaml_parser_parse(p, ev))
		return 0;
	return err_set(e, -EINVAL, "line %zu: %s", p->problem_mark.line + 1,
		       p->problem ? p->problem : "no valid YAML");
}

static json_t *scalar_new(const yaml_event_t *ev)
{
	const char *s = (const char *)ev->data.scalar.value;
	int64_t n;

	if (ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
		if (!*s || streq(s, "~") || streq(s, "null"))
			return json_null();
		if (streq(s, "true") || streq(s, "false"))
			return json_boolean(s[0] == 't');
		if (str_i64(s, &n) == 0)
			return json_integer(n);
	}
	return json_stringn(s, ev->data.scalar.length); /* NULL when it is no UTF-8 */
}

static int value_of(yaml_parser_t *p, yaml_event_t *ev, int depth, json_t **ret, struct err *e);

static int sequence(yaml_parser_t *p, int depth, json_t **ret, struct err *e)
{
	_cleanup_json_ json_t *a = json_array();

	for (;;) {
		_cleanup_(yaml_event_delete) yaml_event_t ev = {0};
		json_t *item = NULL;
		int r = next_event(p, &ev, e);

		if (r < 0)
			return r;
		if (ev.type == YAML_SEQUENCE_END_EVENT)
			break;
		r = value_of(p, &ev, depth + 1, &item, e);
		if (r < 0)
			return r;
		json_array_append_new(a, item);
	}
	*ret = take_ptr(a);
	return 0;
}

static int mapping(yaml_parser_t *p, int depth, json_t **ret, struct err *e)
{
	_cleanup_json_ json_t *o = json_object();

	for (;;) {
		_cleanup_(yaml_event_delete) yaml_event_t key = {0}, ev = {0};
		json_t *value = NULL;
		int r = next_event(p, &key, e);

		if (r < 0)
			return r;
		if (key.type == YAML_MAPPING_END_EVENT)
			break;
		if (key.type != YAML_SCALAR_EVENT)
			return err_set(e, -EINVAL, "line %zu: a key must be a word", key.start_mark.line + 1);
		r = next_event(p, &ev, e);
		if (r == 0)
			r = value_of(p, &ev, depth + 1, &value, e);
		if (r < 0)
			return r;
		if (json_object_set_new(o, (const char *)key.data.scalar.value, value) < 0)
			return err_set(e, -EINVAL, "line %zu: bad key", key.start_mark.line + 1);
	}
	*ret = take_ptr(o);
	return 0;
}

static int value_of(yaml_parser_t *p, yaml_event_t *ev, int depth, json_t **ret, struct err *e)
{
	if (depth > JSON_DEPTH_MAX)
		return err_set(e, -EINVAL, "line %zu: nested too deeply", ev->start_mark.line + 1);
	switch (ev->type) {
	case YAML_SCALAR_EVENT:
		*ret = scalar_new(ev);
		if (!*ret)
			return err_set(e, -EINVAL, "line %zu: no valid UTF-8", ev->start_mark.line + 1);
		return 0;
	case YAML_SEQUENCE_START_EVENT:
		return sequence(p, depth, ret, e);
	case YAML_MAPPING_START_EVENT:
		return mapping(p, depth, ret, e);
	default:
		return err_set(e, -EINVAL, "line %zu: aliases are not understood here",
			       ev->start_mark.line + 1);
	}
}

static int document(yaml_parser_t *p, json_t **ret, struct err *e)
{
	for (;;) {
		_cleanup_(yaml_event_delete) yaml_event_t ev = {0};
		int r = next_event(p, &ev, e);

		if (r < 0)
			return r;
		if (ev.type == YAML_STREAM_START_EVENT || ev.type == YAML_DOCUMENT_START_EVENT)
			continue;
		if (ev.type == YAML_STREAM_END_EVENT)
			return err_set(e, -EINVAL, "the file is empty");
		return value_of(p, &ev, 0, ret, e);
	}
}

int yaml_parse_new(const char *text, size_t len, json_t **ret, struct err *e)
{
	yaml_parser_t p;
	int r;

	if (!yaml_parser_initialize(&p))
		return err_set(e, -ENOMEM, "libyaml does not start");
	yaml_parser_set_input_string(&p, (const unsigned char *)text, len);
	r = document(&p, ret, e);
	yaml_parser_delete(&p);
	return r;
}
