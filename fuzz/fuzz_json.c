/* SPDX-License-Identifier: Apache-2.0 */
/* js_parse_new: whatever is accepted comes back the same after printing and parsing again. */
#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_json_ json_t *a = NULL, *b = NULL;
	_cleanup_free_ char *text = NULL;
	struct err e;

	if (js_parse_new((const char *)data, size, &a, &e) < 0)
		return 0;
	text = js_text(a);
	ensure(js_parse_new(text, strlen(text), &b, &e) == 0);
	js_get(b, "a.b.c");
	return 0;
}
