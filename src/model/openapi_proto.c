/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenAPI v2 document as protobuf, message openapi.v2.Document of gnostic's OpenAPIv2.proto, which kubectl 1.20 asks
 * for. A small writer: nested messages are built in their own buffers and put in with their length. Field numbers are
 * in each function. */
#include "model/openapi.h"

#define DOCUMENT_MAX ((size_t)16 << 20)

static void varint(struct buf *b, uint64_t v)
{
	uint8_t bytes[10];
	size_t n = 0;

	do {
		bytes[n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
		v >>= 7;
	} while (v);
	ensure(buf_add(b, bytes, n) == 0); /* the document is our own; far below the limit */
}

static void bytes(struct buf *b, unsigned field, const void *data, size_t len)
{
	varint(b, field << 3 | 2);
	varint(b, len);
	ensure(buf_add(b, data, len) == 0);
}

static void text(struct buf *b, unsigned field, const json_t *s)
{
	if (json_is_string(s))
		bytes(b, field, json_string_value(s), json_string_length(s));
}

static void texts(struct buf *b, unsigned field, const json_t *list)
{
	json_t *v;
	size_t i;

	json_array_foreach (list, i, v)
		text(b, field, v);
}

static void flag(struct buf *b, unsigned field, const json_t *v)
{
	if (!json_is_true(v))
		return;
	varint(b, field << 3);
	varint(b, 1);
}

typedef void writer(struct buf *b, const json_t *j);

static void nested(struct buf *b, unsigned field, writer *fn, const json_t *j)
{
	_cleanup_buf_ struct buf inner = {.limit = DOCUMENT_MAX};

	if (!j)
		return;
	fn(&inner, j);
	bytes(b, field, inner.data ? inner.data : "", inner.len);
}

/* Named* {name = 1, value = 2} for every member */
static void named(struct buf *b, unsigned field, writer *fn, const json_t *members)
{
	const char *name;
	json_t *v;

	json_object_foreach ((json_t *)members, name, v) {
		_cleanup_buf_ struct buf inner = {.limit = DOCUMENT_MAX};

		bytes(&inner, 1, name, strlen(name));
		nested(&inner, 2, fn, v);
		bytes(b, field, inner.data, inner.len);
	}
}

/* Any {yaml = 2}; JSON is YAML */
static void any(struct buf *b, const json_t *j)
{
	_cleanup_free_ char *yaml = js_text(j);

	bytes(b, 2, yaml, strlen(yaml));
}

/* The members whose names start with "x-". */
static void extensions(struct buf *b, unsigned field, const json_t *j)
{
	_cleanup_json_ json_t *members = json_object();
	const char *name;
	json_t *v;

	json_object_foreach ((json_t *)j, name, v)
		if (str_starts(name, "x-"))
			json_object_set(members, name, v);
	named(b, field, any, members);
}

static void schema(struct buf *b, const json_t *j);

/* AdditionalPropertiesItem {schema = 1} and ItemsItem {schema = 1} */
static void item(struct buf *b, const json_t *j)
{
	nested(b, 1, schema, j);
}

/* TypeItem {value = 1} */
static void type_item(struct buf *b, const json_t *j)
{
	text(b, 1, j);
}

/* Properties {additional_properties = 1} and Definitions the same */
static void properties(struct buf *b, const json_t *j)
{
	named(b, 1, schema, j);
}

static void schema(struct buf *b, const json_t *j)
{
	json_t *v;
	size_t i;

	text(b, 1, json_object_get(j, "$ref"));
	text(b, 2, json_object_get(j, "format"));
	text(b, 4, json_object_get(j, "description"));
	nested(b, 5, any, json_object_get(j, "default"));
	texts(b, 19, json_object_get(j, "required"));
	json_array_foreach (json_object_get(j, "enum"), i, v)
		nested(b, 20, any, v);
	nested(b, 21, item, json_object_get(j, "additionalProperties"));
	nested(b, 22, type_item, json_object_get(j, "type"));
	nested(b, 23, item, json_object_get(j, "items"));
	nested(b, 25, properties, json_object_get(j, "properties"));
	extensions(b, 31, j);
}

/* BodyParameter */
static void body_parameter(struct buf *b, const json_t *j)
{
	text(b, 2, json_object_get(j, "name"));
	text(b, 3, json_object_get(j, "in"));
	flag(b, 4, json_object_get(j, "required"));
	nested(b, 5, schema, json_object_get(j, "schema"));
}

/* QueryParameterSubSchema and PathParameterSubSchema differ in where type stands. */
static void query_parameter(struct buf *b, const json_t *j)
{
	text(b, 2, json_object_get(j, "in"));
	text(b, 3, json_object_get(j, "description"));
	text(b, 4, json_object_get(j, "name"));
	text(b, 6, json_object_get(j, "type"));
}

static void path_parameter(struct buf *b, const json_t *j)
{
	flag(b, 1, json_object_get(j, "required"));
	text(b, 2, json_object_get(j, "in"));
	text(b, 3, json_object_get(j, "description"));
	text(b, 4, json_object_get(j, "name"));
	text(b, 5, json_object_get(j, "type"));
}

/* NonBodyParameter {query = 3, path = 4} */
static void non_body_parameter(struct buf *b, const json_t *j)
{
	if (streq(js_str(j, "in"), "path"))
		nested(b, 4, path_parameter, j);
	else
		nested(b, 3, query_parameter, j);
}

/* Parameter {body = 1, non_body = 2} */
static void parameter(struct buf *b, const json_t *j)
{
	if (streq(js_str(j, "in"), "body"))
		nested(b, 1, body_parameter, j);
	else
		nested(b, 2, non_body_parameter, j);
}

/* ParametersItem {parameter = 1} */
static void parameters_item(struct buf *b, const json_t *j)
{
	nested(b, 1, parameter, j);
}

static void parameters(struct buf *b, unsigned field, const json_t *list)
{
	json_t *v;
	size_t i;

	json_array_foreach (list, i, v)
		nested(b, field, parameters_item, v);
}

/* SchemaItem {schema = 1} */
static void response(struct buf *b, const json_t *j)
{
	text(b, 1, json_object_get(j, "description"));
	nested(b, 2, item, json_object_get(j, "schema"));
}

/* ResponseValue {response = 1} */
static void response_value(struct buf *b, const json_t *j)
{
	nested(b, 1, response, j);
}

static void responses(struct buf *b, const json_t *j)
{
	named(b, 1, response_value, j);
}

static void operation(struct buf *b, const json_t *j)
{
	texts(b, 1, json_object_get(j, "tags"));
	text(b, 3, json_object_get(j, "description"));
	text(b, 5, json_object_get(j, "operationId"));
	texts(b, 6, json_object_get(j, "produces"));
	texts(b, 7, json_object_get(j, "consumes"));
	parameters(b, 8, json_object_get(j, "parameters"));
	nested(b, 9, responses, json_object_get(j, "responses"));
	extensions(b, 13, j);
}

static void path_item(struct buf *b, const json_t *j)
{
	nested(b, 2, operation, json_object_get(j, "get"));
	nested(b, 3, operation, json_object_get(j, "put"));
	nested(b, 4, operation, json_object_get(j, "post"));
	nested(b, 5, operation, json_object_get(j, "delete"));
	nested(b, 8, operation, json_object_get(j, "patch"));
	parameters(b, 9, json_object_get(j, "parameters"));
}

static void paths(struct buf *b, const json_t *j)
{
	named(b, 2, path_item, j);
}

static void info(struct buf *b, const json_t *j)
{
	text(b, 1, json_object_get(j, "title"));
	text(b, 2, json_object_get(j, "version"));
}

int model_openapi_v2_protobuf(struct buf *out)
{
	_cleanup_json_ json_t *doc = model_openapi_v2_new();
	_cleanup_buf_ struct buf b = {.limit = DOCUMENT_MAX};

	text(&b, 1, json_object_get(doc, "swagger"));
	nested(&b, 2, info, json_object_get(doc, "info"));
	nested(&b, 8, paths, json_object_get(doc, "paths"));
	nested(&b, 9, properties, json_object_get(doc, "definitions"));
	return buf_add(out, b.data, b.len);
}
