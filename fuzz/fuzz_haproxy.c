/* SPDX-License-Identifier: Apache-2.0 */
/* What the proxy answers at its socket, as text of any kind. */
#include "gateway/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = xstrndup((const char *)data, size);
	_cleanup_buf_ struct buf out = {.limit = 1 << 16};
	struct proxy_state p;
	struct err e;

	if (proxy_state_parse(text, &p, &e) < 0)
		return 0;
	ensure(p.pid > 0);
	sessions_to_end(text, &p, &out);
	proxy_state_done(&p);
	return 0;
}
