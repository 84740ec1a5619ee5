/* SPDX-License-Identifier: Apache-2.0 */
/* crc32c: the Castagnoli checksum (RFC 3720 appendix B.4; polynomial 0x1EDC6F41, kept bit-reversed as 0x82F63B78).
 *
 * x86's crc32 instruction takes 8 bytes a cycle but answers after three, so three independent streams run side by side: three blocks of one
 * payload where there are three, else three thirds of one buffer. The registers of the thirds are joined by one carry-less
 * multiplication each: shifting a register over n bytes is a multiplication by x^(8n), and since the crc32 instruction itself multiplies a
 * 64-bit product of two reversed 32-bit polynomials by x^33, the constant is x^(8n - 33) mod P. Constants are worked out at start.
 *
 * Where carry-less multiplication works on 64 bytes at once (AVX-512 with VPCLMULQDQ), whole blocks are folded instead (Gopal 2009, "Fast CRC Computation
 * Using PCLMULQDQ"): 16 bytes whose bit m stands for x^(127 - m) are moved D bits on by multiplying their first half by x^(D + 64) and their second by x^D; the
 * constants have the same 33 taken off. What is left at the end, 16 bytes with the same remainder, goes through the crc32 instruction.
 *
 * Without the instructions: tables, eight bytes a step. Chosen once before main; no locks. */
#include "core/repl/record.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define POLY 0x82F63B78u

static uint32_t table[8][256];
static uint32_t (*update)(uint32_t reg, const uint8_t *p, size_t len);

static void table_fill(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = (c >> 1) ^ (c & 1 ? POLY : 0);
		table[0][i] = c;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int k = 1; k < 8; k++)
			table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 255];
}

static uint32_t update_table(uint32_t reg, const uint8_t *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8) {
		uint32_t lo =
			reg ^ (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);

		reg = table[7][lo & 255] ^ table[6][lo >> 8 & 255] ^ table[5][lo >> 16 & 255] ^
		      table[4][lo >> 24] ^ table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
	}
	for (; len > 0; p++, len--)
		reg = (reg >> 8) ^ table[0][(reg ^ *p) & 255];
	return reg;
}

uint32_t crc32c_soft(uint32_t crc, const void *data, size_t len)
{
	return ~update_table(~crc, data, len);
}

#if defined(__x86_64__)
#define HW	    __attribute__((target("sse4.2,pclmul")))
#define THIRD_BIG   1360u /* three of them are a block but for 16 bytes */
#define THIRD_SMALL 168u

static uint64_t shift_big[2], shift_small[2]; /* over two thirds, over one */

/* x^n mod P, bit-reversed. */
static uint64_t power_of_x(uint32_t n)
{
	uint32_t v = 0x80000000u;

	for (; n > 0; n--)
		v = (v >> 1) ^ (v & 1 ? POLY : 0);
	return v;
}

HW static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

HW static inline uint64_t times(uint32_t reg, uint64_t constant)
{
	return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)reg),
								_mm_cvtsi64_si128((int64_t)constant), 0));
}

/* Three thirds of n bytes (a multiple of 8) each. */
HW static inline uint32_t thirds(uint32_t reg, const uint8_t *p, size_t n, const uint64_t shift[2])
{
	uint64_t a = reg, b = 0, c = 0;

	for (size_t i = 0; i < n - 8; i += 8) {
		a = _mm_crc32_u64(a, load64(p + i));
		b = _mm_crc32_u64(b, load64(p + n + i));
		c = _mm_crc32_u64(c, load64(p + 2 * n + i));
	}
	a = _mm_crc32_u64(a, load64(p + n - 8));
	b = _mm_crc32_u64(b, load64(p + 2 * n - 8));
	return (uint32_t)_mm_crc32_u64(c, load64(p + 3 * n - 8) ^ times((uint32_t)a, shift[0]) ^
						  times((uint32_t)b, shift[1]));
}

HW static uint32_t update_hw(uint32_t reg, const uint8_t *p, size_t len)
{
	uint64_t r;

	for (; len >= 3 * THIRD_BIG; p += 3 * THIRD_BIG, len -= 3 * THIRD_BIG)
		reg = thirds(reg, p, THIRD_BIG, shift_big);
	for (; len >= 3 * THIRD_SMALL; p += 3 * THIRD_SMALL, len -= 3 * THIRD_SMALL)
		reg = thirds(reg, p, THIRD_SMALL, shift_small);
	r = reg;
	for (; len >= 8; p += 8, len -= 8)
		r = _mm_crc32_u64(r, load64(p));
	reg = (uint32_t)r;
	for (; len > 0; p++, len--)
		reg = _mm_crc32_u8(reg, *p);
	return reg;
}

/* Three blocks at once, no joining. */
HW static void three_blocks_hw(const uint8_t *p, uint32_t out[3])
{
	uint64_t a = ~0u, b = ~0u, c = ~0u;

	for (size_t i = 0; i < VOL_BLOCK; i += 8) {
		a = _mm_crc32_u64(a, load64(p + i));
		b = _mm_crc32_u64(b, load64(p + VOL_BLOCK + i));
		c = _mm_crc32_u64(c, load64(p + 2 * VOL_BLOCK + i));
	}
	out[0] = ~(uint32_t)a;
	out[1] = ~(uint32_t)b;
	out[2] = ~(uint32_t)c;
}

#define WIDE	   __attribute__((target("avx512f,avx512vl,avx512dq,vpclmulqdq,pclmul,sse4.2")))
#define WIDE_STEPS (VOL_BLOCK / 256) /* 256 bytes each, in four registers */

static uint64_t fold_steps[2], fold_regs[6], fold_lanes[8]; /* see wide_constants */

/* by: pairs of x^(D + 64) and x^D, one a lane of 16 bytes. */
WIDE static inline __m512i fold(__m512i a, __m512i by, __m512i onto)
{
	return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(a, by, 0x00),
					 _mm512_clmulepi64_epi128(a, by, 0x11), onto,
					 0x96); /* xor of three */
}

WIDE static inline __m512i four_times(const uint64_t pair[2])
{
	return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)pair));
}

/* Four registers to one, its four lanes to one, and that to the checksum. */
WIDE static inline uint32_t fold_down(const __m512i r[4])
{
	__m512i all =
		fold(r[0], four_times(fold_regs),
		     fold(r[1], four_times(fold_regs + 2), fold(r[2], four_times(fold_regs + 4), r[3])));
	__m512i moved = fold(all, _mm512_loadu_si512(fold_lanes), _mm512_setzero_si512());
	__m128i x = _mm512_extracti32x4_epi32(all, 3);

	x = _mm_xor_si128(x, _mm512_castsi512_si128(moved));
	x = _mm_xor_si128(x, _mm512_extracti32x4_epi32(moved, 1));
	x = _mm_xor_si128(x, _mm512_extracti32x4_epi32(moved, 2));
	return ~(uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(x)),
					(uint64_t)_mm_extract_epi64(x, 1));
}

WIDE static uint32_t one_block_wide(const uint8_t *p)
{
	const __m512i by = four_times(fold_steps), first = _mm512_zextsi128_si512(_mm_cvtsi32_si128(-1));
	__m512i r[4];

	for (int k = 0; k < 4; k++)
		r[k] = _mm512_loadu_si512(p + 64 * k);
	r[0] = _mm512_xor_si512(r[0], first);
	for (uint32_t i = 1; i < WIDE_STEPS; i++)
		for (int k = 0; k < 4; k++)
			r[k] = fold(r[k], by, _mm512_loadu_si512(p + 256 * i + 64 * k));
	return fold_down(r);
}

static void pair_of(uint64_t pair[2], uint32_t bits)
{
	pair[0] = power_of_x(bits + 64 - 33);
	pair[1] = power_of_x(bits - 33);
}

static bool wide_constants(void)
{
	if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl") ||
	    !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("vpclmulqdq"))
		return false;
	pair_of(fold_steps, 8 * 256);
	for (uint32_t k = 0; k < 3; k++) {
		pair_of(fold_regs + 2 * k, 512 * (3 - k));
		pair_of(fold_lanes + 2 * k, 128 * (3 - k));
	}
	return true; /* the last lane stays where it is: its pair is 0 */
}
#endif

static bool hw, wide;

__attribute__((constructor)) static void choose(void)
{
	table_fill();
	update = update_table;
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("pclmul"))
		return;
	shift_big[0] = power_of_x(8 * 2 * THIRD_BIG - 33);
	shift_big[1] = power_of_x(8 * THIRD_BIG - 33);
	shift_small[0] = power_of_x(8 * 2 * THIRD_SMALL - 33);
	shift_small[1] = power_of_x(8 * THIRD_SMALL - 33);
	update = update_hw;
	hw = true;
	wide = wide_constants();
#endif
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	return ~update(~crc, data, len);
}

/* 0 and 1 mean "hole" and "bad". */
static inline uint32_t kept(uint32_t crc)
{
	return crc < 2 ? crc + 2 : crc;
}

uint32_t block_crc(const uint8_t block[VOL_BLOCK])
{
#if defined(__x86_64__)
	if (wide)
		return kept(one_block_wide(block));
#endif
	return kept(crc32c(0, block, VOL_BLOCK));
}

uint32_t payload_chunks(uint64_t off, const void *data, uint32_t len, uint32_t *out, uint32_t *ret_crc)
{
	const uint8_t *p = data, *end = p + len;
	uint32_t n = 0, first = (uint32_t)MIN((uint64_t)len, VOL_BLOCK - off % VOL_BLOCK);

	if (first < VOL_BLOCK && len > 0) {
		out[n++] = kept(crc32c(0, p, first));
		p += first;
	}
#if defined(__x86_64__)
	for (; wide && end - p >= (ptrdiff_t)VOL_BLOCK; p += VOL_BLOCK)
		out[n++] = kept(one_block_wide(p));
	for (; hw && end - p >= 3 * (ptrdiff_t)VOL_BLOCK; p += 3 * VOL_BLOCK, n += 3) {
		three_blocks_hw(p, out + n);
		for (uint32_t i = n; i < n + 3; i++)
			out[i] = kept(out[i]);
	}
#endif
	for (; end - p >= (ptrdiff_t)VOL_BLOCK; p += VOL_BLOCK)
		out[n++] = kept(crc32c(0, p, VOL_BLOCK));
	if (p < end)
		out[n++] = kept(crc32c(0, p, (size_t)(end - p)));
	/* the array's bytes as they lie in memory: little endian on every machine this runs on */
	_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checksums of arrays are little endian");
	*ret_crc = crc32c(0, out, n * sizeof(*out));
	return n;
}
