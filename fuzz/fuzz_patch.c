/* SPDX-License-Identifier: Apache-2.0 */
/* Patches of all three kinds. Input: one byte that chooses kind and way, the object's JSON, a line feed, the patch's JSON. */
#include "model/model.h"

#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const names[][2] = {
		{"v1", "Pod"}, {"apps/v1", "Deployment"}, {"v1", "Service"}, {"v1", "Node"}};
	_cleanup_json_ json_t *obj = NULL, *patch = NULL, *obj_was = NULL, *patch_was = NULL, *out = NULL;
	const uint8_t *cut = len > 1 ? memchr(data + 1, '\n', len - 1) : NULL;
	const struct model_kind *k;
	struct err e;
	int r;

	if (!cut || js_parse_new((const char *)data + 1, (size_t)(cut - data - 1), &obj, NULL) < 0 ||
	    js_parse_new((const char *)cut + 1, len - (size_t)(cut - data) - 1, &patch, NULL) < 0)
		return 0;
	obj_was = json_deep_copy(obj);
	patch_was = json_deep_copy(patch);
	k = model_kind_by_kind(names[data[0] % 4][0], names[data[0] % 4][1]);
	switch (data[0] / 4 % 3) {
	case 0:
		r = model_patch_strategic(k, obj, patch, &out, &e);
		break;
	case 1:
		r = model_patch_merge(obj, patch, &out, &e);
		break;
	default:
		r = model_patch_json(obj, patch, &out, &e);
	}
	ensure(r == 0 || (r == -EINVAL && e.text[0]));
	ensure(json_equal(obj, obj_was) && json_equal(patch, patch_was));
	return 0;
}
