/* SPDX-License-Identifier: Apache-2.0 */
/* Strings: tests, splitting and strict numbers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool streq(const char *a, const char *b)
{
	return a && b ? __builtin_strcmp(a, b) == 0 : a == b;
}

bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* Strict decimal; 0, -EINVAL (not a number, or more behind it) or -ERANGE. */
int str_i64(const char *s, int64_t *ret);
int str_u64(const char *s, uint64_t *ret);
/* "250ms", "1.5s", "2m", "1h"; a bare number is seconds. Milliseconds out. */
int str_duration_ms(const char *s, int64_t *ret_ms);

/* A NULL-terminated array of strings. */
char **strv_split(const char *s, char sep, bool keep_empty); /* malloc, free with strv_free */
size_t strv_len(char *const *v);
char **strv_free(char **v);
bool strv_has(char *const *v, const char *s);
char **strv_add(char **v, const char *s); /* returns the new array */

static inline void strv_free_p(char ***v)
{
	strv_free(*v);
}
#define _cleanup_strv_ _cleanup_(strv_free_p)
