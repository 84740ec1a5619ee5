/* SPDX-License-Identifier: Apache-2.0 */
/* OpenAPI definitions out of the schema tables, in the forms of version 2 and version 3. They differ in where
 * definitions live, in how a reference carries a description, and in quantities. */
#include "model/openapi.h"

#define QUANTITY      "io.k8s.apimachinery.pkg.api.resource.Quantity"
#define INT_OR_STRING "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
#define TIME	      "io.k8s.apimachinery.pkg.apis.meta.v1.Time"
#define MICRO_TIME    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"

json_t *openapi_ref_new(int version, const char *name)
{
	_cleanup_free_ char *path =
		xasprintf("#/%s/%s", version == 3 ? "components/schemas" : "definitions", name);

	return json_pack("{s:s}", "$ref", path);
}

static const char *ref_name(const struct model_field *f)
{
	switch (f->type) {
	case MODEL_OBJECT:
		return f->object->name;
	case MODEL_QUANTITY:
		return QUANTITY;
	case MODEL_INT_OR_STRING:
		return INT_OR_STRING;
	case MODEL_TIME:
		return TIME;
	case MODEL_MICRO_TIME:
		return MICRO_TIME;
	default:
		return NULL;
	}
}

/* The schema of one value. */
static json_t *value_new(int version, const struct model_field *f, bool described)
{
	static const char *const formats[][2] = {
		[MODEL_STRING] = {"string", NULL},    [MODEL_INT] = {"integer", "int32"},
		[MODEL_INT64] = {"integer", "int64"}, [MODEL_BOOL] = {"boolean", NULL},
		[MODEL_BYTES] = {"string", "byte"},   [MODEL_RAW] = {"object", NULL},
	};
	const char *name = ref_name(f);
	json_t *s;

	if (name && version == 3 && described)
		return json_pack("{s:[o]}", "allOf", openapi_ref_new(version, name));
	if (name)
		return openapi_ref_new(version, name);
	s = json_pack("{s:s}", "type", formats[f->type][0]);
	if (formats[f->type][1])
		json_object_set_new(s, "format", json_string(formats[f->type][1]));
	if (f->allowed && f->shape == MODEL_ONE) {
		json_t *list = json_array();

		for (const char *const *a = f->allowed; *a; a++)
			json_array_append_new(list, json_string(*a));
		json_object_set_new(s, "enum", list);
	}
	return s;
}

static json_t *property_new(int version, const struct model_field *f)
{
	json_t *s;

	if (f->shape == MODEL_ARRAY)
		s = json_pack("{s:s, s:o}", "type", "array", "items", value_new(version, f, false));
	else if (f->shape == MODEL_MAP)
		s = json_pack("{s:s, s:o}", "type", "object", "additionalProperties",
			      value_new(version, f, false));
	else
		s = value_new(version, f, true);
	json_object_set_new(s, "description", json_string(f->text));
	if (f->initial && version == 3)
		json_object_set_new(s, "default", json_loads(f->initial, JSON_DECODE_ANY, NULL));
	if (f->flags & (MODEL_MERGE | MODEL_RETAIN_KEYS))
		json_object_set_new(s, "x-kubernetes-patch-strategy",
				    json_string(!(f->flags & MODEL_RETAIN_KEYS) ? "merge"
						: f->flags & MODEL_MERGE	? "merge,retainKeys"
										: "retainKeys"));
	if (f->merge_key)
		json_object_set_new(s, "x-kubernetes-patch-merge-key", json_string(f->merge_key));
	return s;
}

static json_t *object_new(int version, const struct model_object *o)
{
	json_t *properties = json_object(), *required = json_array();

	for (const struct model_field *f = o->fields; f->name; f++) {
		json_object_set_new(properties, f->name, property_new(version, f));
		if (f->flags & MODEL_REQUIRED)
			json_array_append_new(required, json_string(f->name));
	}
	if (json_array_size(required))
		return json_pack("{s:s, s:s, s:o, s:o}", "type", "object", "description", o->text,
				 "properties", properties, "required", required);
	json_decref(required);
	return json_pack("{s:s, s:s, s:o}", "type", "object", "description", o->text, "properties",
			 properties);
}

json_t *openapi_gvk_new(const struct model_kind *k, const char *suffix)
{
	_cleanup_free_ char *kind = xasprintf("%s%s", k->kind, suffix);

	return json_pack("{s:s, s:s, s:s}", "group", k->group, "kind", kind, "version", k->version);
}

struct collect {
	int version;
	json_t *definitions;
};

static int collect_one(void *ctx, const struct model_object *o)
{
	struct collect *c = ctx;

	if (!json_object_get(c->definitions, o->name))
		json_object_set_new(c->definitions, o->name, object_new(c->version, o));
	return 0;
}

void openapi_define(json_t *definitions, int version, const struct model_object *o)
{
	struct collect c = {version, definitions};

	schema_walk(o, collect_one, &c);
}

static void add_gvk(json_t *definition, const struct model_kind *k, const char *suffix)
{
	json_t *list = json_object_get(definition, "x-kubernetes-group-version-kind");

	if (!list) {
		list = json_array();
		json_object_set_new(definition, "x-kubernetes-group-version-kind", list);
	}
	json_array_append_new(list, openapi_gvk_new(k, suffix));
}

void openapi_define_kind(json_t *definitions, int version, const struct model_kind *k, bool with_list)
{
	const struct model_object *o = k->schema->object;
	_cleanup_free_ char *list = xasprintf("%sList", o->name), *about = NULL;
	json_t *definition;

	openapi_define(definitions, version, o);
	add_gvk(json_object_get(definitions, o->name), k, "");
	if (!with_list)
		return;
	openapi_define(definitions, version, &schema_list_meta);
	about = xasprintf("A list of objects of kind %s.", k->kind);
	definition =
		json_pack("{s:s, s:s, s:{s:{s:s, s:s}, s:{s:s, s:s}, s:{s:s, s:s, s:o}, s:o}, s:[s]}", "type",
			  "object", "description", about, "properties", "apiVersion", "type", "string",
			  "description", "Version of this form of the list, GROUP/VERSION.", "kind", "type",
			  "string", "description", "Kind of the list.", "items", "type", "array",
			  "description", "The objects.", "items", openapi_ref_new(version, o->name),
			  "metadata", openapi_ref_new(version, schema_list_meta.name), "required", "items");
	json_object_set_new(definitions, list, definition);
	add_gvk(definition, k, "List");
}

void openapi_define_scalars(json_t *definitions, int version)
{
	json_object_set_new(definitions, TIME,
			    json_pack("{s:s, s:s, s:s}", "type", "string", "format", "date-time",
				      "description", "Time in RFC 3339."));
	json_object_set_new(definitions, MICRO_TIME,
			    json_pack("{s:s, s:s, s:s}", "type", "string", "format", "date-time",
				      "description", "Time in RFC 3339 with microseconds."));
	if (version == 3) {
		json_object_set_new(definitions, QUANTITY,
				    json_pack("{s:[{s:s},{s:s}], s:s}", "oneOf", "type", "string", "type",
					      "number", "description",
					      "A number with a suffix such as m, k, M, Ki, Mi."));
		json_object_set_new(definitions, INT_OR_STRING,
				    json_pack("{s:[{s:s},{s:s}], s:s, s:s}", "oneOf", "type", "integer",
					      "type", "string", "format", "int-or-string", "description",
					      "A number or a text."));
		return;
	}
	json_object_set_new(definitions, QUANTITY,
			    json_pack("{s:s, s:s}", "type", "string", "description",
				      "A number with a suffix such as m, k, M, Ki, Mi."));
	json_object_set_new(definitions, INT_OR_STRING,
			    json_pack("{s:s, s:s, s:s}", "type", "string", "format", "int-or-string",
				      "description", "A number or a text."));
}
