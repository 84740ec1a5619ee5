/* SPDX-License-Identifier: Apache-2.0 */
/* JSON merge patch, RFC 7386: objects are merged, null removes, everything else replaces. */
#include "model/model.h"

/* New reference. Depth is bounded by JSON_DEPTH_MAX of the parser. */
static json_t *merge_new(const json_t *target, const json_t *patch)
{
	const char *name;
	json_t *v, *out;

	if (!json_is_object(patch))
		return json_deep_copy(patch);
	out = json_is_object(target) ? json_copy((json_t *)target) : json_object();
	json_object_foreach ((json_t *)patch, name, v) {
		if (json_is_null(v))
			json_object_del(out, name);
		else
			json_object_set_new(out, name, merge_new(json_object_get(out, name), v));
	}
	return out;
}

int model_patch_merge(const json_t *obj, const json_t *patch, json_t **ret, struct err *e)
{
	json_t *shared;

	if (!json_is_object(patch))
		return err_set(e, -EINVAL, "a merge patch must be a JSON object");
	shared = merge_new(obj, patch);
	*ret = json_deep_copy(shared); /* merge_new shares what it did not touch with obj */
	json_decref(shared);
	return 0;
}
