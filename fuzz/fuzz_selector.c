/* SPDX-License-Identifier: Apache-2.0 */
/* Label and field selectors as text, quantities. A label selector that parses must match a set of labels or its opposite
 * twice alike. */
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_free_ char *text = xstrndup((const char *)data, len);
	_cleanup_json_ json_t *labels = json_pack("{s:s, s:s}", "app", "db", "kuayu.io/zone", "a");
	_cleanup_json_ json_t *pod =
		json_pack("{s:{s:s}, s:{s:s}}", "metadata", "name", "x", "spec", "nodeName", "a1");
	const struct model_kind *k = model_kind_by_kind("v1", "Pod");
	struct model_selector *s = NULL;
	struct model_field_selector *f = NULL;
	int64_t milli;
	int r;

	if (model_selector_parse(text, &s, NULL) == 0)
		ensure(model_selector_match(s, labels) == model_selector_match(s, labels));
	if (model_field_selector_parse(k, text, &f, NULL) == 0)
		ensure(model_field_selector_match(f, pod) == model_field_selector_match(f, pod));
	r = model_quantity_milli(text, &milli);
	ensure(r == 0 || r == -EINVAL || r == -ERANGE);
	model_selector_free(s);
	model_field_selector_free(f);
	return 0;
}
