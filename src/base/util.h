/* SPDX-License-Identifier: Apache-2.0 */
/* Clean-up attributes, assertions and small macros. Cold control code frees through these; data paths use pools. */
#pragma once

#include <stdlib.h>
#include <sys/param.h> /* MIN, MAX */
#include <unistd.h>

#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define CLAMP(x, lo, hi)		((x) < (lo) ? (lo) : (x) > (hi) ? (hi) : (x))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define _printf_(fmt, args)		__attribute__((format(printf, fmt, args)))

#define _cleanup_(fn)	__attribute__((cleanup(fn)))
#define _cleanup_free_	_cleanup_(cleanup_free_p)
#define _cleanup_close_ _cleanup_(cleanup_close_p)

static inline void cleanup_free_p(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close_p(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* Hand a pointer over and forget it, so that its clean-up does nothing. */
#define take_ptr(p)                       \
	({                                \
		__typeof__(p) _taken = p; \
		p = NULL;                 \
		_taken;                   \
	})

/* Programmer errors only: stays on in release builds. Never for peer bytes, disk bytes, user input or lack of memory. */
#define ensure(cond) ((cond) ? (void)0 : ensure_failed(#cond, __FILE__, __LINE__))
_Noreturn void ensure_failed(const char *cond, const char *file, int line);

/* Cold code allocates with these: lack of memory for a few bytes ends the process with a message, and the
 * supervisor starts it again. Never for sizes that come from outside. */
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
