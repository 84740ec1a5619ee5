/* SPDX-License-Identifier: Apache-2.0 */
/* Causes of a Status 422 as Kubernetes words them: {reason, message, field}. */
#include "model/internal.h"

#include <stdarg.h>

#define VALUE_MAX 300 /* bytes of a value shown in a message */

void at_text(const struct at *at, struct buf *out)
{
	if (!at)
		return;
	at_text(at->up, out);
	if (at->key)
		buf_addf(out, "[%s]", at->key);
	else if (at->index >= 0)
		buf_addf(out, "[%lld]", (long long)at->index);
	else if (*at->name)
		buf_addf(out, "%s%s", out->len ? "." : "", at->name);
}

static void add(json_t *causes, const char *reason, const struct at *at, const char *message)
{
	_cleanup_buf_ struct buf path = {.limit = 4096};

	if (json_array_size(causes) >= FAULTS_MAX)
		return;
	at_text(at, &path);
	json_array_append_new(causes, json_pack("{s:s, s:s, s:s}", "reason", reason, "message", message,
						"field", path.data ? path.data : ""));
}

/* Compact JSON, cut at VALUE_MAX (between characters), dots included. */
static char *value_text(const json_t *v)
{
	char *s = js_text(v);
	size_t n = strlen(s);

	if (n > VALUE_MAX) {
		for (n = VALUE_MAX - 3; n && ((unsigned char)s[n] & 0xc0) == 0x80; n--)
			;
		strcpy(s + n, "...");
	}
	return s;
}

void fault_required(json_t *causes, const struct at *at, const char *detail)
{
	_cleanup_free_ char *m = xasprintf("Required value%s%s", detail ? ": " : "", detail ? detail : "");

	add(causes, "FieldValueRequired", at, m);
}

static char *format(const char *fmt, va_list ap)
{
	char *s;

	if (vasprintf(&s, fmt, ap) < 0)
		return xstrdup("");
	return s;
}

void fault_invalid(json_t *causes, const struct at *at, const json_t *value, const char *fmt, ...)
{
	_cleanup_free_ char *detail = NULL, *v = value_text(value), *m = NULL;
	va_list ap;

	va_start(ap, fmt);
	detail = format(fmt, ap);
	va_end(ap);
	m = xasprintf("Invalid value: %s: %s", v, detail);
	add(causes, "FieldValueInvalid", at, m);
}

void fault_unsupported_value(json_t *causes, const struct at *at, const char *value,
			     const char *const *allowed)
{
	_cleanup_buf_ struct buf b = {.limit = 4096};

	buf_addf(&b, "Unsupported value: \"%.200s\": supported values: ", value);
	for (; *allowed; allowed++)
		buf_addf(&b, "\"%s\"%s", *allowed, allowed[1] ? ", " : "");
	add(causes, "FieldValueNotSupported", at, b.data);
}

void fault_duplicate(json_t *causes, const struct at *at, const json_t *value)
{
	_cleanup_free_ char *v = value_text(value), *m = xasprintf("Duplicate value: %s", v);

	add(causes, "FieldValueDuplicate", at, m);
}

void fault_forbidden(json_t *causes, const struct at *at, const char *fmt, ...)
{
	_cleanup_free_ char *detail = NULL, *m = NULL;
	va_list ap;

	va_start(ap, fmt);
	detail = format(fmt, ap);
	va_end(ap);
	m = xasprintf("Forbidden: %s", detail);
	add(causes, "FieldValueForbidden", at, m);
}

void fault_not_found(json_t *causes, const struct at *at, const char *value)
{
	_cleanup_free_ char *m = xasprintf("Not found: \"%.200s\"", value);

	add(causes, "FieldValueNotFound", at, m);
}

void fault_type(json_t *causes, const struct at *at, const json_t *value, const char *wanted)
{
	_cleanup_free_ char *v = value_text(value),
			    *m = xasprintf("Invalid value: %s: must be %s", v, wanted);

	add(causes, "FieldValueTypeInvalid", at, m);
}

void fault_too_long(json_t *causes, const struct at *at, size_t most)
{
	_cleanup_free_ char *m = xasprintf("Too long: may not be more than %zu bytes", most);

	add(causes, "FieldValueTooLong", at, m);
}

void fault_too_many(json_t *causes, const struct at *at, size_t have, size_t most)
{
	_cleanup_free_ char *m = xasprintf("Too many: %zu: must have at most %zu items", have, most);

	add(causes, "FieldValueTooMany", at, m);
}
