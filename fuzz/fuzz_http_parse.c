/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP heads and chunked bodies: no byte sequence may break the parser, and feeding in pieces gives what feeding at once gives. */
#include "net/http_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf all = {.limit = 65536}, pieces = {.limit = 65536};
	struct http_chunks a = {0}, b = {0};
	const char *text = (const char *)data;
	struct http_head h;
	ssize_t n, m = 0;
	size_t at = 0;

	n = http_head_parse(text, size, &h);
	if (n > 0) {
		ensure((size_t)n <= size && h.path[0] == '/' && !(h.chunked && h.content_length >= 0));
		http_head_done(&h);
	}
	n = http_chunks_feed(&a, text, size, &all);
	while (at < size && b.state != CHUNK_DONE && (m = http_chunks_feed(&b, text + at, 1, &pieces)) > 0)
		at += (size_t)m;
	ensure((n < 0) == (m < 0));
	if (n >= 0)
		ensure((size_t)n == at && all.len == pieces.len &&
		       (!all.len || memcmp(all.data, pieces.data, all.len) == 0));
	return 0;
}
