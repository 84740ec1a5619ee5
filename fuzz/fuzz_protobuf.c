/* SPDX-License-Identifier: Apache-2.0 */
/* Requests in Kubernetes' protobuf; what is decoded must survive defaults, validation and printing. */
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_json_ json_t *obj = NULL, *causes = NULL, *unknown = NULL;
	const struct model_kind *k;
	struct err e;
	int r = model_from_protobuf(data, len, &obj, &e);

	ensure(r == 0 || ((r == -EINVAL || r == -ENOTSUP) && e.text[0]));
	if (r < 0)
		return 0;
	k = model_kind_by_kind(js_str(obj, "apiVersion"), js_str(obj, "kind"));
	ensure(k);
	unknown = model_unknown_fields_new(k, obj);
	model_default(k, obj);
	model_validate(k, obj, NULL, &causes);
	return 0;
}
