/* SPDX-License-Identifier: Apache-2.0 */
/* A record as a peer or a log may hold it. The checksum of head and body is put right first, else nothing behind it would ever be reached; what is
 * taken must encode to the same bytes again. */
#include "core/repl/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct record *r, const uint8_t *head)
{
	uint8_t again[RECORD_HEAD];
	size_t seen = 0;

	record_encode_head(r, again);
	ensure(memcmp(again, head, RECORD_HEAD) == 0);
	for (uint32_t i = 0; i < r->n; i++) {
		const struct effect *f = &r->effect[i];

		ensure(f->off + f->len <= RECORD_OFF_MAX);
		seen += f->key_len > 0 ? f->key[f->key_len - 1] : 0;
		seen += f->value_len > 0 ? f->value[f->value_len - 1] : 0;
		ensure(f->type != EFFECT_WRITE || f->len == r->payload_len);
	}
	ensure(seen < SIZE_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t head[RECORD_HEAD];
	uint32_t body_len, payload_len, crc;
	struct payload *p = NULL;
	struct record *r = NULL;

	if (size < RECORD_HEAD || size > (1u << 20))
		return 0;
	memcpy(head, data, RECORD_HEAD);
	if (record_decode_head(head, &body_len, &payload_len) < 0 || body_len > size - RECORD_HEAD)
		return 0;
	crc = crc32c(crc32c(0, head, 60), data + RECORD_HEAD, body_len);
	memcpy(head + 60, &crc, 4);
	if (payload_len > 0 && payload_len <= size - RECORD_HEAD - body_len) {
		p = payload_new(payload_len);
		memcpy(p->data, data + RECORD_HEAD + body_len, payload_len);
	}
	if (record_decode(head, data + RECORD_HEAD, p, &r, NULL) == 0)
		check(r, head);
	r = record_unref(r);
	if (record_decode(head, data + RECORD_HEAD, NULL, &r, NULL) == 0)
		check(r, head);
	record_unref(r);
	payload_unref(p);
	return 0;
}
