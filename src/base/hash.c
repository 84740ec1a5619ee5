/* SPDX-License-Identifier: Apache-2.0 */
/* FNV-1a hashes, random names and UUIDs. */
#include "base/base.h"

#include <sys/random.h>

uint32_t hash_fnv32(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 16777619u;
	return h;
}

uint64_t hash_fnv64(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 1099511628211u;
	return h;
}

void random_bytes(void *out, size_t len)
{
	uint8_t *p = out;

	while (len) {
		ssize_t n = getrandom(p, MIN(len, (size_t)256), 0);

		if (n < 0 && errno == EINTR)
			continue;
		ensure(n > 0);
		p += n;
		len -= (size_t)n;
	}
}

void random_name(char *out, size_t n)
{
	static const char set[] = "bcdfghjklmnpqrstvwxz2456789";

	random_bytes(out, n);
	for (size_t i = 0; i < n; i++)
		out[i] = set[(uint8_t)out[i] % (sizeof(set) - 1)];
	out[n] = 0;
}

void random_uuid(char out[37])
{
	uint8_t b[16];

	random_bytes(b, sizeof(b));
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		 b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}
