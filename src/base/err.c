/* SPDX-License-Identifier: Apache-2.0 */
/* Error texts, assertions and the allocations of cold code. Long texts are cut, never overflowed. */
#include "base/base.h"

#include <stdarg.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	ensure(code < 0);
	if (!e)
		return code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return code;
}

int err_errno(struct err *e, int code, const char *fmt, ...)
{
	char why[160];
	va_list ap;
	size_t n;

	ensure(code < 0);
	if (!e)
		return code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	snprintf(e->text + n, sizeof(e->text) - n, ": %s", strerror_r(-code, why, sizeof(why)));
	return code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char before[sizeof(e->text)];
	va_list ap;
	size_t n;

	if (!e)
		return -EIO;
	memcpy(before, e->text, sizeof(before));
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	snprintf(e->text + n, sizeof(e->text) - n, ": %s", before);
	return e->code ? e->code : -EIO;
}

_Noreturn void ensure_failed(const char *cond, const char *file, int line)
{
	fprintf(stderr, "kuayu: programmer error: %s at %s:%d\n", cond, file, line);
	abort();
}

static void *no_memory(void)
{
	fputs("kuayu: out of memory\n", stderr);
	abort();
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	return p ? p : no_memory();
}

void *xrealloc(void *p, size_t size)
{
	void *q = realloc(p, size ? size : 1);

	return q ? q : no_memory();
}

char *xstrdup(const char *s)
{
	char *p = strdup(s ? s : "");

	return p ? p : no_memory();
}

char *xstrndup(const char *s, size_t n)
{
	char *p = strndup(s, n);

	return p ? p : no_memory();
}

char *xasprintf(const char *fmt, ...)
{
	char *p = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&p, fmt, ap) < 0)
		p = NULL;
	va_end(ap);
	return p ? p : no_memory();
}
