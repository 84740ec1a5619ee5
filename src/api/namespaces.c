/* SPDX-License-Identifier: Apache-2.0 */
/* Ends namespaces: what is in a namespace that is being deleted is deleted, and when nothing is left its finalizer
 * "kubernetes" is taken away, which removes it. Any server may do it, several at once do no harm: every step is a
 * compare-and-swap. It is here and not in a controller because only the server knows every kind there is. Keeper thread. */
#include "api/internal.h"

/* Deletes what is there of one kind; *ret_left counts what remains (pods that stop, finalizers). */
static void empty_kind(struct api *api, const struct model_kind *k, const char *ns, size_t *ret_left)
{
	struct delete_options o = {.grace_s = -1, .propagation = "Background"};
	struct obj_list l;

	if (cache_list(api->cache, k, ns, &l) < 0) {
		++*ret_left; /* not known: another round */
		return;
	}
	for (size_t i = 0; i < l.n; i++) {
		struct call *c = call_of(api, k, ns, js_str_or(l.v[i]->json, "metadata.name", ""));
		json_t *obj = NULL;
		bool gone = false;

		if (js_str(l.v[i]->json, "metadata.deletionTimestamp"))
			++*ret_left; /* under way */
		else if (delete_one(c, &o, &obj, &gone) < 0)
			*ret_left += c->code != 404;
		else
			*ret_left += !gone;
		json_decref(obj);
		call_free(c);
	}
	obj_list_done(&l);
}

static int change_release(struct call *c, const json_t *cur, json_t **ret, void *ctx)
{
	json_t *obj = json_deep_copy(cur), *f = js_get(obj, "spec.finalizers");
	size_t i = json_array_size(f);

	(void)c, (void)ctx;
	while (i-- > 0)
		if (streq(json_string_value(json_array_get(f, i)), "kubernetes"))
			json_array_remove(f, i);
	*ret = obj;
	return 0;
}

/* Nothing may be left in the store, not only in the cache, before the namespace goes. */
static void release(struct api *api, const struct model_kind *k, const char *name)
{
	struct call *c = call_of(api, k, NULL, name);
	size_t n, left = 0;
	const struct model_kind *kinds = model_kinds(&n);
	json_t *obj = NULL;

	for (size_t i = 0; i < n && !left; i++) {
		struct obj_list l;

		if (!kinds[i].namespaced)
			continue;
		if (list_now(c, &kinds[i], name, &l) < 0)
			left = 1;
		else
			left = l.n;
		if (!c->status)
			obj_list_done(&l);
	}
	if (!left && object_modify(c, change_release, NULL, &obj) < 0 && c->code != 404)
		log_warn("namespace %s: %s", name, js_str_or(c->status, "message", ""));
	json_decref(obj);
	call_free(c);
}

void namespaces_end(struct api *api)
{
	const struct model_kind *k = model_kind_by_plural("", "v1", "namespaces");
	size_t n;
	const struct model_kind *kinds = model_kinds(&n);
	struct obj_list l;

	if (cache_list(api->cache, k, NULL, &l) < 0)
		return;
	for (size_t i = 0; i < l.n; i++) {
		const char *name = js_str_or(l.v[i]->json, "metadata.name", "");
		size_t left = 0;

		if (!js_str(l.v[i]->json, "metadata.deletionTimestamp") ||
		    !json_array_size(js_get(l.v[i]->json, "spec.finalizers")))
			continue;
		for (size_t j = 0; j < n; j++)
			if (kinds[j].namespaced)
				empty_kind(api, &kinds[j], name, &left);
		if (!left)
			release(api, k, name);
	}
	obj_list_done(&l);
}
