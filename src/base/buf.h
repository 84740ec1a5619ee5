/* SPDX-License-Identifier: Apache-2.0 */
/* A growing byte buffer, always zero-terminated behind its length, with an upper limit. */
#pragma once

#include <stddef.h>

struct buf {
	char *data;
	size_t len, cap;
	size_t limit; /* bytes; 0 = 64 MiB */
};

#define _cleanup_buf_ _cleanup_(buf_done)

/* All return 0 or -EMSGSIZE when the limit would be passed (nothing is added then). */
int buf_add(struct buf *b, const void *data, size_t len);
int buf_adds(struct buf *b, const char *s);
int buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first n bytes. */
void buf_skip(struct buf *b, size_t n);
void buf_done(struct buf *b);
/* Hands over the memory (malloc; never NULL) and leaves the buffer empty. */
char *buf_take(struct buf *b);
