/* SPDX-License-Identifier: Apache-2.0 */
/* Growing buffer: doubles its capacity, keeps one byte for the terminator. */
#include "base/base.h"

#include <stdarg.h>

#define BUF_LIMIT_DEFAULT ((size_t)64 << 20)

static int buf_room(struct buf *b, size_t more)
{
	size_t limit = b->limit ? b->limit : BUF_LIMIT_DEFAULT;
	size_t cap = b->cap ? b->cap : 64;

	if (more > limit || b->len > limit - more)
		return -EMSGSIZE;
	while (cap < b->len + more + 1)
		cap *= 2;
	if (cap != b->cap) {
		b->data = xrealloc(b->data, cap);
		b->cap = cap;
	}
	return 0;
}

int buf_add(struct buf *b, const void *data, size_t len)
{
	int r = buf_room(b, len);

	if (r < 0)
		return r;
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = 0;
	return 0;
}

int buf_adds(struct buf *b, const char *s)
{
	return buf_add(b, s, strlen(s));
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -EINVAL;
	r = buf_room(b, (size_t)n);
	if (r < 0)
		return r;
	va_start(ap, fmt);
	vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
	return 0;
}

void buf_skip(struct buf *b, size_t n)
{
	ensure(n <= b->len);
	if (!n)
		return;
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
	b->data[b->len] = 0;
}

void buf_done(struct buf *b)
{
	free(b->data);
	*b = (struct buf){.limit = b->limit};
}

char *buf_take(struct buf *b)
{
	char *p = b->data ? b->data : xstrdup("");

	*b = (struct buf){.limit = b->limit};
	return p;
}
