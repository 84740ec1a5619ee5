/* SPDX-License-Identifier: Apache-2.0 */
/* What model.h promises and this build of the model does not have: answered as "not offered". Gone when it has. */
#include "api/internal.h"

#define WEAK __attribute__((weak))

WEAK json_t *model_table_new(const struct model_kind *k, const json_t *obj, const char *include,
			     int64_t now_us)
{
	json_t *rows = json_array(), *o;
	size_t i;

	(void)k, (void)include, (void)now_us;
	if (json_is_array(obj))
		json_array_foreach (obj, i, o)
			json_array_append_new(rows, json_pack("{s[O] sO}", "cells",
							      js_get(o, "metadata.name"), "object", o));
	else
		json_array_append_new(
			rows, json_pack("{s[O] sO}", "cells", js_get(obj, "metadata.name"), "object", obj));
	return json_pack("{ss ss s{} s[{ss ss ss ss si}] so}", "kind", "Table", "apiVersion",
			 "meta.k8s.io/v1", "metadata", "columnDefinitions", "name", "Name", "type", "string",
			 "format", "name", "description", "", "priority", 0, "rows", rows);
}

WEAK json_t *model_openapi_v3_index_new(void)
{
	return NULL;
}

WEAK json_t *model_openapi_v3_new(const char *group, const char *version)
{
	(void)group, (void)version;
	return NULL;
}

WEAK json_t *model_openapi_v2_new(void)
{
	return json_object();
}

WEAK int model_openapi_v2_protobuf(struct buf *out)
{
	(void)out;
	return -ENOTSUP;
}

WEAK int model_from_protobuf(const void *data, size_t len, json_t **ret, struct err *e)
{
	(void)data, (void)len, (void)ret;
	return err_set(e, -ENOTSUP, "protobuf");
}
