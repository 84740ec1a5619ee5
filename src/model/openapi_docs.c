/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenAPI documents: v3 index, one v3 document a group-version, one v2 document of everything. */
#include "model/openapi.h"

#define PATCH "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"

static json_t *info_new(void)
{
	return json_pack("{s:s, s:s}", "title", "Kubernetes", "version", "v1.32.0");
}

static void define_bodies(json_t *definitions, int version)
{
	size_t n;
	const struct model_kind *bodies = model_bodies(&n);

	for (size_t i = 0; i < n; i++)
		openapi_define_kind(definitions, version, &bodies[i], false);
}

static void define_common(json_t *definitions, int version)
{
	openapi_define_scalars(definitions, version);
	openapi_define(definitions, version, &schema_status);
	json_object_set_new(
		definitions, PATCH,
		json_pack("{s:s, s:s}", "type", "object", "description", "A patch of an object."));
	define_bodies(definitions, version);
}

json_t *model_openapi_v3_new(const char *group, const char *version)
{
	json_t *paths = json_object(), *definitions = json_object();
	size_t n, found = 0;
	const struct model_kind *kinds = model_kinds(&n);

	define_common(definitions, 3);
	for (size_t i = 0; i < n; i++) {
		if (!streq(kinds[i].group, group) || !streq(kinds[i].version, version))
			continue;
		openapi_define_kind(definitions, 3, &kinds[i], true);
		openapi_paths(paths, 3, &kinds[i]);
		found++;
	}
	if (!found) {
		json_decref(paths);
		json_decref(definitions);
		return NULL;
	}
	return json_pack("{s:s, s:o, s:o, s:{s:o}}", "openapi", "3.0.0", "info", info_new(), "paths", paths,
			 "components", "schemas", definitions);
}

json_t *model_openapi_v3_index_new(void)
{
	json_t *paths = json_object();
	size_t n;
	const struct model_kind *kinds = model_kinds(&n);

	for (size_t i = 0; i < n; i++) {
		const struct model_kind *k = &kinds[i];
		_cleanup_free_ char *name =
			xasprintf("%s%s/%s", *k->group ? "apis/" : "api", k->group, k->version);
		_cleanup_json_ json_t *doc = NULL;
		_cleanup_free_ char *text = NULL, *url = NULL;

		if (json_object_get(paths, name))
			continue;
		doc = model_openapi_v3_new(k->group, k->version);
		text = js_text(doc);
		url = xasprintf("/openapi/v3/%s?hash=%016llX", name,
				(unsigned long long)hash_fnv64(text, strlen(text)));
		json_object_set_new(paths, name, json_pack("{s:s}", "serverRelativeURL", url));
	}
	return json_pack("{s:o}", "paths", paths);
}

json_t *model_openapi_v2_new(void)
{
	json_t *paths = json_object(), *definitions = json_object();
	size_t n;
	const struct model_kind *kinds = model_kinds(&n);

	define_common(definitions, 2);
	for (size_t i = 0; i < n; i++) {
		openapi_define_kind(definitions, 2, &kinds[i], true);
		openapi_paths(paths, 2, &kinds[i]);
	}
	return json_pack("{s:s, s:o, s:o, s:o}", "swagger", "2.0", "info", info_new(), "paths", paths,
			 "definitions", definitions);
}
