/* SPDX-License-Identifier: Apache-2.0 */
/* Validation of a whole object: the schema's checks, metadata, then the checks of the kind (validate_*.c). */
#include "model/internal.h"

static bool has_type_fault(const json_t *causes)
{
	json_t *c;
	size_t i;

	json_array_foreach (causes, i, c)
		if (streq(js_str(c, "reason"), "FieldValueTypeInvalid"))
			return true;
	return false;
}

int model_validate(const struct model_kind *k, const json_t *obj, const json_t *old, json_t **ret_causes)
{
	json_t *causes = json_array();

	if (!json_is_object(obj))
		fault_type(causes, &AT_ROOT, obj, "an object");
	else
		check_schema(causes, &AT_ROOT, k->schema->object, obj);
	if (!has_type_fault(causes)) {
		validate_meta(causes, k, obj, old);
		if (old)
			check_immutable(causes, &AT_ROOT, k->schema->object, obj, old);
	}
	*ret_causes = causes;
	return json_array_size(causes) ? -EINVAL : 0;
}
