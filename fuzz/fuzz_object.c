/* SPDX-License-Identifier: Apache-2.0 */
/* Objects as JSON: pruning, defaults, validation on create and update, tables. Input: one byte that chooses the kind,
 * the object, a line feed, the old object. */
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_json_ json_t *obj = NULL, *old = NULL, *causes = NULL, *causes2 = NULL, *table = NULL,
			      *unknown = NULL;
	const uint8_t *cut = len > 1 ? memchr(data + 1, '\n', len - 1) : NULL;
	size_t n;
	const struct model_kind *kinds = model_kinds(&n), *k;

	if (!cut || js_parse_new((const char *)data + 1, (size_t)(cut - data - 1), &obj, NULL) < 0 ||
	    js_parse_new((const char *)cut + 1, len - (size_t)(cut - data) - 1, &old, NULL) < 0)
		return 0;
	k = &kinds[data[0] % n];
	table = model_table_new(k, obj, "Object", 0);
	unknown = model_unknown_fields_new(k, obj);
	model_prune(k, obj);
	model_default(k, obj);
	model_validate(k, obj, NULL, &causes);
	model_validate(k, obj, old, &causes2);
	return 0;
}
