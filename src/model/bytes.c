/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 of RFC 4648 as Go reads it: padding is needed, line breaks are skipped. */
#include "model/internal.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool bytes_ok(const char *s)
{
	size_t n = 0, pad = 0;

	for (; *s; s++) {
		if (*s == '\n' || *s == '\r')
			continue;
		if (*s == '=')
			pad++;
		else if (pad || !strchr(alphabet, *s))
			return false;
		n++;
	}
	return n % 4 == 0 && pad <= 2;
}

json_t *bytes_json_new(const void *data, size_t len)
{
	_cleanup_free_ char *out = xcalloc(len / 3 * 4 + 5, 1);
	const unsigned char *p = data;
	size_t o = 0;

	for (size_t i = 0; i < len; i += 3) {
		size_t have = MIN(len - i, (size_t)3);
		uint32_t v = (uint32_t)p[i] << 16;

		if (have > 1)
			v |= (uint32_t)p[i + 1] << 8;
		if (have > 2)
			v |= p[i + 2];
		out[o++] = alphabet[v >> 18];
		out[o++] = alphabet[(v >> 12) & 63];
		out[o++] = have > 1 ? alphabet[(v >> 6) & 63] : '=';
		out[o++] = have > 2 ? alphabet[v & 63] : '=';
	}
	return json_stringn(out, o);
}
