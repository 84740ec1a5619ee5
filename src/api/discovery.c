/* SPDX-License-Identifier: Apache-2.0 */
/* What the server offers: /api, /apis, resource lists, /version, OpenAPI. Legacy form (not aggregated): every kubectl knows it.
 * OpenAPI documents are made once, at the first request for them. Loop thread. */
#include "api/internal.h"

#define GROUPS_MAX 32

struct group_version {
	const char *group, *version;
};

static size_t groups(struct group_version out[GROUPS_MAX])
{
	size_t n, count = 0;
	const struct model_kind *k = model_kinds(&n);

	for (size_t i = 0; i < n; i++) {
		size_t j = 0;

		while (j < count && !(streq(out[j].group, k[i].group) && streq(out[j].version, k[i].version)))
			j++;
		if (j == count && count < GROUPS_MAX - 1)
			out[count++] = (struct group_version){k[i].group, k[i].version};
	}
	out[count++] = (struct group_version){"policy", "v1"}; /* drain looks for it before it evicts */
	return count;
}

static json_t *list_new(const char *kind)
{
	json_t *j = json_object();

	json_object_set_new(j, "kind", json_string(kind));
	json_object_set_new(j, "apiVersion", json_string("v1"));
	return j;
}

static json_t *group_new(const struct group_version *g)
{
	char text[128];
	json_t *v;

	snprintf(text, sizeof(text), "%s/%s", g->group, g->version);
	v = json_pack("{ss ss}", "groupVersion", text, "version", g->version);
	return json_pack("{ss s[O] so}", "name", g->group, "versions", v, "preferredVersion", v);
}

static json_t *group_list_new(void)
{
	struct group_version g[GROUPS_MAX];
	size_t n = groups(g);
	json_t *list = list_new("APIGroupList"), *a = json_array();

	for (size_t i = 0; i < n; i++)
		if (*g[i].group)
			json_array_append_new(a, group_new(&g[i]));
	json_object_set_new(list, "groups", a);
	return list;
}

static json_t *strings_new(const char *const *v)
{
	json_t *a = json_array();

	for (; v && *v; v++)
		json_array_append_new(a, json_string(*v));
	return a;
}

static void add_sub(json_t *list, const struct model_kind *k, const char *sub, const char *kind,
		    const char *group, const char *version, const char *const *verbs)
{
	json_t *r = json_pack("{s:s++, s:s, s:b, s:s, s:o}", "name", k->plural, "/", sub, "singularName", "",
			      "namespaced", k->namespaced, "kind", kind, "verbs", strings_new(verbs));

	if (group) {
		json_object_set_new(r, "group", json_string(group));
		json_object_set_new(r, "version", json_string(version));
	}
	json_array_append_new(list, r);
}

static void add_kind(json_t *list, const struct model_kind *k)
{
	static const char *const all[] = {
		"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch", NULL};
	static const char *const change[] = {"get", "patch", "update", NULL},
				 *const create[] = {"create", NULL}, *const get[] = {"get", NULL},
				 *const update[] = {"update", NULL};
	static const char *const no_collection[] = {"create", "delete", "get",	 "list",
						    "patch",  "update", "watch", NULL};
	bool core = !*k->group, namespaces = core && streq(k->plural, "namespaces");
	json_t *r = json_pack("{ss ss sb ss so}", "name", k->plural, "singularName",
			      k->singular ? k->singular : "", "namespaced", k->namespaced, "kind", k->kind,
			      "verbs", strings_new(namespaces ? no_collection : all));

	if (k->short_names)
		json_object_set_new(r, "shortNames", strings_new(k->short_names));
	if (k->categories)
		json_object_set_new(r, "categories", strings_new(k->categories));
	json_array_append_new(list, r);
	if (k->has_status)
		add_sub(list, k, "status", k->kind, NULL, NULL, change);
	if (k->has_scale)
		add_sub(list, k, "scale", "Scale", "autoscaling", "v1", change);
	if (core && streq(k->plural, "pods")) {
		add_sub(list, k, "binding", "Binding", NULL, NULL, create);
		add_sub(list, k, "eviction", "Eviction", "policy", "v1", create);
		add_sub(list, k, "log", "Pod", NULL, NULL, get);
	}
	if (namespaces)
		add_sub(list, k, "finalize", "Namespace", NULL, NULL, update);
}

/* NULL when there is no such group-version. */
static json_t *resources_new(const char *group, const char *version)
{
	struct group_version g[GROUPS_MAX];
	size_t n = groups(g), n_kinds, i = 0;
	const struct model_kind *k = model_kinds(&n_kinds);
	json_t *list, *a;

	while (i < n && !(streq(g[i].group, group) && streq(g[i].version, version)))
		i++;
	if (i == n)
		return NULL;
	list = list_new("APIResourceList");
	a = json_array();
	json_object_set_new(list, "groupVersion",
			    *group ? json_sprintf("%s/%s", group, version) : json_string(version));
	json_object_set_new(list, "resources", a);
	if (streq(group,
		  "policy")) /* clients take an empty list for a failure; without verbs it is listed nowhere */
		json_array_append_new(a, json_pack("{ss ss sb ss s[]}", "name", "poddisruptionbudgets",
						   "singularName", "poddisruptionbudget", "namespaced", 1,
						   "kind", "PodDisruptionBudget", "verbs"));
	for (i = 0; i < n_kinds; i++)
		if (streq(k[i].group, group) && streq(k[i].version, version))
			add_kind(a, &k[i]);
	return list;
}

static json_t *version_new(void)
{
	return json_pack("{ss ss ss ss ss ss ss ss ss}", "major", "1", "minor", "32", "gitVersion",
			 "v1.32.0+kuayu-" KUAYU_VERSION, "gitCommit", "", "gitTreeState", "clean",
			 "buildDate", "2026-01-01T00:00:00Z", "goVersion", "none", "compiler", "gcc",
			 "platform", "linux/amd64");
}

static json_t *api_versions_new(struct api *api)
{
	json_t *j = json_pack("{ss s[s] s[{ss ss}]}", "kind", "APIVersions", "versions", "v1",
			      "serverAddressByClientCIDRs", "clientCIDR", "0.0.0.0/0", "serverAddress", "");

	js_set_new(json_array_get(json_object_get(j, "serverAddressByClientCIDRs"), 0), "serverAddress",
		   json_sprintf("%s:%d", api->s.advertise, api->port));
	return j;
}

/* ---- OpenAPI ---- */

static void reply_openapi_v2(struct http_req *r)
{
	static struct buf protobuf;
	static char *json;
	const char *accept = http_req_header(r, "accept");

	if (accept && strstr(accept, "com.github.proto-openapi")) {
		if (!protobuf.len)
			(void)model_openapi_v2_protobuf(&protobuf);
		http_reply(r, 200, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
			   protobuf.data, protobuf.len, NULL);
		return;
	}
	if (!json) {
		_cleanup_json_ json_t *j = model_openapi_v2_new();

		json = js_text(j);
	}
	http_reply(r, 200, "application/json", json, strlen(json), NULL);
}

/* path behind /openapi/v3: "", "/api/v1", "/apis/GROUP/VERSION" */
static void reply_openapi_v3(struct http_req *r, const char *path)
{
	static struct strmap *texts;
	const char *accept = http_req_header(r, "accept");
	char *text;

	if (accept && strstr(accept, "proto-openapi") && !strstr(accept, "json")) {
		http_reply_text(r, 406, "only application/json is offered here");
		return;
	}
	if (!texts)
		texts = strmap_new();
	text = strmap_get(texts, path);
	if (!text) {
		_cleanup_strv_ char **p = strv_split(path, '/', false);
		_cleanup_json_ json_t *j = NULL;
		size_t n = strv_len(p);

		if (n == 0)
			j = model_openapi_v3_index_new();
		else if (n == 2 && streq(p[0], "api"))
			j = model_openapi_v3_new("", p[1]);
		else if (n == 3 && streq(p[0], "apis"))
			j = model_openapi_v3_new(p[1], p[2]);
		if (!j) {
			http_reply_text(r, 404, "404 page not found");
			return;
		}
		text = js_text(j);
		strmap_set(texts, path, text);
	}
	http_reply(r, 200, "application/json", text, strlen(text), NULL);
}

static json_t *document_new(struct api *api, const char *path)
{
	_cleanup_strv_ char **p = strv_split(path, '/', false);
	size_t n = strv_len(p);

	if (n == 0)
		return json_pack("{s[ssssssss]}", "paths", "/api", "/apis", "/healthz", "/livez", "/metrics",
				 "/openapi/v2", "/openapi/v3", "/version");
	if (streq(p[0], "version") && n == 1)
		return version_new();
	if (streq(p[0], "api") && n == 1)
		return api_versions_new(api);
	if (streq(p[0], "api") && n == 2)
		return resources_new("", p[1]);
	if (!streq(p[0], "apis") || n > 3)
		return NULL;
	if (n == 1)
		return group_list_new();
	if (n == 3)
		return resources_new(p[1], p[2]);
	{
		struct group_version g[GROUPS_MAX];
		size_t count = groups(g);

		for (size_t i = 0; i < count; i++)
			if (*g[i].group && streq(g[i].group, p[1])) {
				json_t *j = group_new(&g[i]);

				json_object_set_new(j, "kind", json_string("APIGroup"));
				json_object_set_new(j, "apiVersion", json_string("v1"));
				return j;
			}
	}
	return NULL;
}

bool discovery(struct api *api, struct http_req *r)
{
	const char *path = http_req_path(r);
	_cleanup_json_ json_t *j = NULL;

	if (!streq(http_req_method(r), "GET") && !streq(http_req_method(r), "HEAD"))
		return false;
	if (streq(path, "/openapi/v2")) {
		reply_openapi_v2(r);
		return true;
	}
	if (str_starts(path, "/openapi/v3")) {
		reply_openapi_v3(r, path + strlen("/openapi/v3"));
		return true;
	}
	j = document_new(api, path);
	if (j)
		http_reply_json(r, 200, j);
	return j != NULL;
}
