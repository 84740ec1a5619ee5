/* SPDX-License-Identifier: Apache-2.0 */
/* A log segment's frames as a disk may give them back. Checksums are put right first where the lengths allow it, else nothing behind them would ever be
 * reached. The first 8 bytes of the input are a segment head's beginning in disguise: life and position. */
#include "volume/bstore/internal.h"

#include "base/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Magic, life, position and checksums of the frame at p. */
static void mend(uint8_t *p, size_t len, uint64_t lsn, uint32_t life)
{
	size_t flen = le32_get(p + 8), patches = (size_t)(p[6] | p[7] << 8) * sizeof(struct replica_patch),
	       body;

	le32_put(p, FRAME_MAGIC);
	le32_put(p + 12, life);
	le32_put(p + 16, (uint32_t)lsn);
	le32_put(p + 20, (uint32_t)(lsn >> 32));
	le32_put(p + 40, 0);
	if (flen > len || flen < FRAME_HEAD + patches)
		return;
	if (p[4] == FRAME_CUT && flen == FRAME_HEAD + 24)
		le32_put(p + 44, crc32c(crc32c(0, p, 44), p + FRAME_HEAD, 24));
	else
		le32_put(p + 44, crc32c(crc32c(0, p, 44), p + flen - patches, patches));
	if (flen < FRAME_HEAD + RECORD_HEAD + patches)
		return;
	body = le32_get(p + FRAME_HEAD + 32);
	if (body <= flen - FRAME_HEAD - RECORD_HEAD - patches)
		le32_put(p + FRAME_HEAD + 60,
			 crc32c(crc32c(0, p + FRAME_HEAD, 60), p + FRAME_HEAD + RECORD_HEAD, body));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ uint8_t *p = NULL;
	uint8_t uuid[16] = {0};
	uint64_t prev_end;
	uint32_t life;
	size_t at = 8;

	if (size < 8 + FRAME_HEAD || size > (1u << 20))
		return 0;
	segment_parse(data, size, uuid, 1, &life, &prev_end);
	p = malloc(size);
	if (!p)
		return 0;
	memcpy(p, data, size);
	life = le32_get(p);
	while (size - at >= FRAME_HEAD) {
		struct frame f;
		const char *why;
		int n;

		mend(p + at, size - at, at, life);
		n = frame_parse(p + at, size - at, at, life, &f, &why);
		if (n <= 0)
			break;
		ensure((size_t)n <= size - at && f.next_lsn == at + (size_t)n);
		ensure(f.type == FRAME_CUT ||
		       (f.rec && f.rec->seq > 0 &&
			(!f.rec->payload || f.rec->payload->len == f.rec->payload_len)));
		ensure(f.n_patches == 0 || f.patch);
		frame_done(&f);
		at += (size_t)n;
	}
	return 0;
}
