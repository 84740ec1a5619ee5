/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian numbers in and out of bodies. A reader never passes its end: the first short read sets `bad`, and everything after it
 * reads as zero, so a decoder checks once, at its end. */
#pragma once

#include "base/base.h"
#include "core/place/place.h"

struct wire_in {
	const uint8_t *p, *end;
	bool bad;
};

static inline struct wire_in wire_in(const void *data, size_t len)
{
	return (struct wire_in){.p = data, .end = (const uint8_t *)data + len};
}

static inline const void *wire_take(struct wire_in *in, size_t len)
{
	const uint8_t *p = in->p;

	if (in->bad || (size_t)(in->end - in->p) < len) {
		in->bad = true;
		return NULL;
	}
	in->p += len;
	return p;
}

static inline uint64_t wire_num(struct wire_in *in, size_t len)
{
	uint64_t v = 0;
	const void *p = wire_take(in, len);

	if (p)
		memcpy(&v, p, len); /* the host is little endian: static_assert in head.c */
	return v;
}

static inline uint8_t wire_u8(struct wire_in *in)
{
	return (uint8_t)wire_num(in, 1);
}
static inline uint16_t wire_u16(struct wire_in *in)
{
	return (uint16_t)wire_num(in, 2);
}
static inline uint32_t wire_u32(struct wire_in *in)
{
	return (uint32_t)wire_num(in, 4);
}
static inline uint64_t wire_u64(struct wire_in *in)
{
	return wire_num(in, 8);
}
static inline bool wire_bool(struct wire_in *in)
{
	uint8_t v = wire_u8(in);

	if (v > 1)
		in->bad = true;
	return v == 1;
}
static inline void wire_id(struct wire_in *in, struct vol_id *ret)
{
	const void *p = wire_take(in, sizeof(ret->b));

	memset(ret, 0, sizeof(*ret));
	if (p)
		memcpy(ret->b, p, sizeof(ret->b));
}
static inline void wire_ino(struct wire_in *in, struct vol_ino *ret)
{
	wire_id(in, &ret->folder);
	ret->num = wire_u64(in);
}
/* A string with a length byte, into an array that also holds the zero; zeros inside are refused. */
static inline void wire_str(struct wire_in *in, char *out, size_t size)
{
	size_t len = wire_u8(in);
	const void *p = wire_take(in, len);

	memset(out, 0, size);
	if (!p || len >= size || memchr(p, 0, len)) {
		in->bad = true;
		return;
	}
	memcpy(out, p, len);
}
/* 0 when everything was read and nothing was short. */
static inline int wire_end(const struct wire_in *in)
{
	return in->bad || in->p != in->end ? -EBADMSG : 0;
}

static inline uint8_t *wire_put(uint8_t *p, uint64_t v, size_t len)
{
	memcpy(p, &v, len);
	return p + len;
}
static inline int wire_add(struct buf *b, uint64_t v, size_t len)
{
	return buf_add(b, &v, len);
}
static inline int wire_add_ino(struct buf *b, const struct vol_ino *ino)
{
	int r = buf_add(b, ino->folder.b, sizeof(ino->folder.b));

	return r < 0 ? r : wire_add(b, ino->num, 8);
}
static inline int wire_add_str(struct buf *b, const char *s)
{
	size_t len = strlen(s);
	int r = len > 255 ? -EINVAL : wire_add(b, len, 1);

	return r < 0 ? r : buf_add(b, s, len);
}
