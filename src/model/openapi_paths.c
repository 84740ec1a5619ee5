/* SPDX-License-Identifier: Apache-2.0 */
/* Paths and operations of the OpenAPI documents: what kubectl reads there is which verbs a kind has and whether patch takes
 * dryRun and fieldValidation. */
#include "model/openapi.h"

static json_t *parameter_new(int version, const char *name, const char *in, const char *type,
			     const char *text)
{
	json_t *p = json_pack("{s:s, s:s, s:s}", "name", name, "in", in, "description", text);

	if (streq(in, "path"))
		json_object_set_new(p, "required", json_true());
	if (version == 3)
		json_object_set_new(p, "schema", json_pack("{s:s}", "type", type));
	else
		json_object_set_new(p, "type", json_string(type));
	return p;
}

static void write_parameters(json_t *list, int version)
{
	json_array_append_new(list, parameter_new(version, "dryRun", "query", "string",
						  "All = check and answer, but do not persist."));
	json_array_append_new(list, parameter_new(version, "fieldManager", "query", "string",
						  "Name of who makes the change."));
	json_array_append_new(list, parameter_new(version, "fieldValidation", "query", "string",
						  "Ignore, Warn or Strict: what happens to unknown fields."));
}

static void list_parameters(json_t *list, int version)
{
	static const char *const all[][3] = {
		{"labelSelector", "string", "Only objects with these labels."},
		{"fieldSelector", "string", "Only objects with these fields."},
		{"limit", "integer", "Most objects in one answer."},
		{"continue", "string", "Go on where a limited answer ended."},
		{"watch", "boolean", "Stream changes instead."},
		{"resourceVersion", "string", "Version of the store to start from."},
		{"allowWatchBookmarks", "boolean", "Send bookmarks in a watch."},
		{"timeoutSeconds", "integer", "Longest time of the call."},
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		json_array_append_new(list, parameter_new(version, all[i][0], "query", all[i][1], all[i][2]));
}

struct operation {
	const char *method; /* "get" */
	const char *action; /* "list"; x-kubernetes-action */
	const char *takes;  /* definition of the body, or NULL */
	const char *gives;  /* definition of the answer, or NULL */
};

static void body(json_t *op, json_t *parameters, int version, const struct operation *o)
{
	static const char *const patches[] = {"application/json-patch+json", "application/merge-patch+json",
					      "application/strategic-merge-patch+json"};
	bool patch = streq(o->method, "patch");
	json_t *content = json_object(), *types = json_array();
	size_t n = patch ? ARRAY_SIZE(patches) : 1;

	for (size_t i = 0; i < n; i++) {
		const char *type = patch ? patches[i] : "application/json";

		json_array_append_new(types, json_string(type));
		json_object_set_new(content, type,
				    json_pack("{s:o}", "schema", openapi_ref_new(version, o->takes)));
	}
	if (version == 3) {
		json_object_set_new(
			op, "requestBody",
			json_pack("{s:O, s:b}", "content", content, "required", !streq(o->method, "delete")));
	} else {
		json_object_set(op, "consumes", types);
		json_array_append_new(parameters, json_pack("{s:s, s:s, s:b, s:o}", "name", "body", "in",
							    "body", "required", !streq(o->method, "delete"),
							    "schema", openapi_ref_new(version, o->takes)));
	}
	json_decref(content);
	json_decref(types);
}

static json_t *operation_new(int version, const struct operation *o, const struct model_kind *k,
			     const char *id, const char *tag)
{
	json_t *parameters = json_array(), *answer = json_pack("{s:s}", "description", "OK"), *op;
	bool writes = !streq(o->method, "get");

	op = json_pack("{s:[s], s:s, s:s, s:s}", "tags", tag, "description", o->action, "operationId", id,
		       "x-kubernetes-action", o->action);
	json_object_set_new(op, "x-kubernetes-group-version-kind", openapi_gvk_new(k, ""));
	if (o->takes)
		body(op, parameters, version, o);
	if (writes)
		write_parameters(parameters, version);
	if (streq(o->action, "list") || streq(o->action, "deletecollection"))
		list_parameters(parameters, version);
	if (streq(o->action, "patch"))
		json_array_append_new(parameters, parameter_new(version, "force", "query", "boolean",
								"For apply patches only."));
	if (o->gives && version == 3)
		json_object_set_new(answer, "content",
				    json_pack("{s:{s:o}}", "application/json", "schema",
					      openapi_ref_new(version, o->gives)));
	else if (o->gives)
		json_object_set_new(answer, "schema", openapi_ref_new(version, o->gives));
	json_object_set_new(op, "responses", json_pack("{s:o}", "200", answer));
	if (version == 2)
		json_object_set_new(op, "produces", json_pack("[s]", "application/json"));
	json_object_set_new(op, "parameters", parameters);
	return op;
}

static void add(json_t *paths, int version, const struct model_kind *k, const char *path,
		const struct operation *ops, size_t n)
{
	json_t *item = json_object(), *parameters = json_array();
	_cleanup_free_ char *tag = xasprintf("%s_%s", *k->group ? k->group : "core", k->version);

	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *id = xasprintf("%s%s%s", ops[i].action, tag, path);

		for (char *p = id; *p; p++)
			if (strchr("/{}.-", *p))
				*p = '_';
		json_object_set_new(item, ops[i].method, operation_new(version, &ops[i], k, id, tag));
	}
	if (strstr(path, "{namespace}"))
		json_array_append_new(parameters,
				      parameter_new(version, "namespace", "path", "string", "Namespace."));
	if (strstr(path, "{name}"))
		json_array_append_new(parameters, parameter_new(version, "name", "path", "string", "Name."));
	json_object_set_new(item, "parameters", parameters);
	json_object_set_new(paths, path, item);
}

#define PATCH "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"

void openapi_paths(json_t *paths, int version, const struct model_kind *k)
{
	const char *one = k->schema->object->name;
	_cleanup_free_ char *list = xasprintf("%sList", one);
	_cleanup_free_ char *root = xasprintf("%s%s/%s", *k->group ? "/apis/" : "/api", k->group, k->version);
	_cleanup_free_ char *all = xasprintf("%s/%s", root, k->plural);
	_cleanup_free_ char *in =
		xasprintf("%s%s/%s", root, k->namespaced ? "/namespaces/{namespace}" : "", k->plural);
	_cleanup_free_ char *item = xasprintf("%s/{name}", in), *sub = xasprintf("%s/status", item);
	_cleanup_free_ char *scale = xasprintf("%s/scale", item);
	const char *options = schema_delete_options.name, *status = schema_status.name;
	const struct operation many[] = {{"get", "list", NULL, list},
					 {"post", "post", one, one},
					 {"delete", "deletecollection", options, status}};
	const struct operation single[] = {{"get", "get", NULL, one},
					   {"put", "put", one, one},
					   {"patch", "patch", PATCH, one},
					   {"delete", "delete", options, status}};
	const struct operation scales[] = {{"get", "get", NULL, schema_scale.name},
					   {"put", "put", schema_scale.name, schema_scale.name},
					   {"patch", "patch", PATCH, schema_scale.name}};
	const struct operation binding[] = {{"post", "post", schema_binding.name, schema_binding.name}};
	const struct operation eviction[] = {{"post", "post", schema_eviction.name, schema_eviction.name}};
	const struct operation log[] = {{"get", "get", NULL, NULL}};

	if (k->namespaced)
		add(paths, version, k, all, many, 1);
	add(paths, version, k, in, many, ARRAY_SIZE(many));
	add(paths, version, k, item, single, ARRAY_SIZE(single));
	if (k->has_status)
		add(paths, version, k, sub, single, 3);
	if (k->has_scale)
		add(paths, version, model_kind_by_kind("autoscaling/v1", "Scale"), scale, scales,
		    ARRAY_SIZE(scales));
	if (!streq(k->kind, "Pod"))
		return;
	add(paths, version, model_kind_by_kind("v1", "Binding"),
	    "/api/v1/namespaces/{namespace}/pods/{name}/binding", binding, 1);
	add(paths, version, model_kind_by_kind("policy/v1", "Eviction"),
	    "/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction, 1);
	add(paths, version, k, "/api/v1/namespaces/{namespace}/pods/{name}/log", log, 1);
}
