/* SPDX-License-Identifier: Apache-2.0 */
/* One error text with context, for operators. Functions return 0 or -errno and fill a last `struct err *` that may be
 * NULL. A library returns; the owner logs, once. */
#pragma once

struct err {
	int code;	/* negative errno, 0 = none */
	char text[500]; /* one sentence; says what to do next where that is known */
};

/* Sets e (may be NULL) and returns code, which must be negative. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* As err_set with ": strerror(-code)" appended. */
int err_errno(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "context: " before the text already there; returns e->code (or -EIO if e is NULL). */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
