/* SPDX-License-Identifier: Apache-2.0 */
/* Failures as Kubernetes Status objects, warnings, and answers in the form the client asked for (object, Table,
 * PartialObjectMetadata). Reasons, codes and texts follow k8s.io/apimachinery/pkg/api/errors. */
#include <stdarg.h>

#include "api/internal.h"

#define WARNINGS_MAX 20

json_t *status_new(int code, const char *reason, const char *message)
{
	json_t *s = json_object();

	json_object_set_new(s, "kind", json_string("Status"));
	json_object_set_new(s, "apiVersion", json_string("v1"));
	json_object_set_new(s, "metadata", json_object());
	json_object_set_new(s, "status", json_string(code < 400 ? "Success" : "Failure"));
	if (message)
		json_object_set_new(s, "message", json_string(message));
	if (reason)
		json_object_set_new(s, "reason", json_string(reason));
	if (code >= 400)
		json_object_set_new(s, "code", json_integer(code));
	return s;
}

static void describe(const struct call *c, json_t *status)
{
	json_t *d = json_object();

	if (c->name)
		json_object_set_new(d, "name", json_string(c->name));
	if (c->kind) {
		if (*c->kind->group)
			json_object_set_new(d, "group", json_string(c->kind->group));
		json_object_set_new(d, "kind", json_string(c->kind->plural));
	}
	json_object_set_new(status, "details", d);
}

int fail(struct call *c, int code, const char *reason, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	json_decref(c->status);
	c->code = code;
	c->status = status_new(code, reason, text);
	describe(c, c->status);
	if (code == 429 || code == 503 || code == 504)
		js_set_new(c->status, "details.retryAfterSeconds", json_integer(1));
	return -1;
}

/* "pods" or "deployments.apps" */
static const char *resource_text(const struct model_kind *k, char out[160])
{
	snprintf(out, 160, "%s%s%s", k->plural, *k->group ? "." : "", k->group);
	return out;
}

int fail_not_found(struct call *c)
{
	char r[160];

	return fail(c, 404, "NotFound", "%s \"%s\" not found", resource_text(c->kind, r),
		    c->name ? c->name : "");
}

int fail_conflict(struct call *c, const char *why)
{
	char r[160];

	return fail(c, 409, REASON_CONFLICT, "Operation cannot be fulfilled on %s \"%s\": %s",
		    resource_text(c->kind, r), c->name ? c->name : "",
		    why ? why
			: "the object has been modified; please apply your changes to the latest version and "
			  "try again");
}

int fail_invalid(struct call *c, json_t *causes)
{
	_cleanup_buf_ struct buf text = {0};
	size_t n = json_array_size(causes), i;
	json_t *cause;

	json_array_foreach (causes, i, cause) {
		const char *reason = js_str_or(cause, "reason", ""),
			   *message = js_str_or(cause, "message", "");

		(void)reason;
		buf_addf(&text, "%s%s: %s", i ? ", " : "", js_str_or(cause, "field", ""), message);
	}
	fail(c, 422, "Invalid", n > 1 ? "%s%s%s \"%s\" is invalid: [%s]" : "%s%s%s \"%s\" is invalid: %s",
	     c->kind->kind, *c->kind->group ? "." : "", c->kind->group, c->name ? c->name : "",
	     text.data ? text.data : "");
	js_set_new(c->status, "details.kind", json_string(c->kind->kind));
	js_set_new(c->status, "details.causes", causes);
	return -1;
}

int fail_store(struct call *c, int r, const struct err *e)
{
	switch (r) {
	case -ESTALE:
		return fail(c, 410, "Expired", "The resourceVersion for the provided list is too old.");
	case -ETIMEDOUT:
		return fail(c, 504, "Timeout", "the store did not answer in time; the outcome is unknown: %s",
			    e->text);
	case -EMSGSIZE:
	case -EFBIG:
	case -E2BIG:
		return fail(c, 413, "RequestEntityTooLarge", "the object is too large to be stored: %s",
			    e->text);
	case -EAGAIN:
	case -ECONNREFUSED:
	case -EHOSTUNREACH:
		return fail(c, 503, "ServiceUnavailable", "the store is not reachable: %s", e->text);
	default:
		return fail(c, 500, "InternalError", "Internal error occurred: %s", e->text);
	}
}

void warn(struct call *c, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list ap;
	json_t *w;
	size_t i;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (!c->warnings)
		c->warnings = json_array();
	json_array_foreach (c->warnings, i, w)
		if (streq(json_string_value(w), text))
			return; /* a write that was tried again */
	if (text && json_array_size(c->warnings) < WARNINGS_MAX)
		json_array_append_new(c->warnings, json_string(text));
}

void warn_of(struct call *c, const json_t *obj)
{
	_cleanup_json_ json_t *texts = model_warnings_new(c->kind, obj);
	json_t *t;
	size_t i;

	json_array_foreach (texts, i, t)
		warn(c, "%s", json_string_value(t));
}

/* ---- answers ---- */

/* RFC 7234 5.5: 299 - "text", quotes and backslashes escaped, no control characters. */
static char *warning_line(const char *text)
{
	struct buf b = {0};

	buf_adds(&b, "Warning: 299 - \"");
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			buf_add(&b, "\\", 1);
		buf_add(&b, (unsigned char)*text < ' ' ? " " : text, 1);
	}
	buf_adds(&b, "\"");
	return buf_take(&b);
}

static void finish(struct call *c, int code)
{
	metrics_count(c->api->metrics, c, code, clock_us() - c->started_us);
}

void reply_raw_text(struct call *c, int status, const char *text, size_t len)
{
	_cleanup_strv_ char **headers = NULL;
	json_t *w;
	size_t i;

	json_array_foreach (c->warnings, i, w) {
		_cleanup_free_ char *line = warning_line(json_string_value(w));

		headers = strv_add(headers, line);
	}
	if (status == 429 || status == 503)
		headers = strv_add(headers, "Retry-After: 1");
	finish(c, status);
	http_reply(c->http, status, "application/json", text, len, (const char *const *)headers);
	c->http = NULL;
}

static void reply_tree(struct call *c, int status, const json_t *j)
{
	_cleanup_free_ char *text = js_text(j);

	reply_raw_text(c, status, text, strlen(text));
}

void reply_failure(struct call *c)
{
	if (!c->status)
		fail(c, 500, "InternalError", "Internal error occurred");
	reply_tree(c, c->code, c->status);
}

json_t *partial_new(const json_t *obj)
{
	json_t *p = json_object();

	json_object_set_new(p, "kind", json_string("PartialObjectMetadata"));
	json_object_set_new(p, "apiVersion", json_string("meta.k8s.io/v1"));
	json_object_set(p, "metadata", json_object_get(obj, "metadata"));
	return p;
}

void reply_object(struct call *c, json_t *obj)
{
	int status = c->success ? c->success : 200;

	if (c->output == OUTPUT_OBJECT || streq(js_str(obj, "kind"), "Status")) {
		reply_tree(c, status, obj);
	} else if (c->output == OUTPUT_PARTIAL) {
		_cleanup_json_ json_t *p = partial_new(obj);

		reply_tree(c, status, p);
	} else {
		_cleanup_json_ json_t *t = model_table_new(
			c->kind, obj, http_req_query(c->http, "includeObject"), clock_wall_us());

		js_set_new(t, "metadata.resourceVersion",
			   json_string(js_str_or(obj, "metadata.resourceVersion", "")));
		js_set_new(t, "apiVersion", json_sprintf("meta.k8s.io/%s", c->table_version));
		reply_tree(c, status, t);
	}
}

/* The first form in the Accept header that is known here; what is not known is passed over. */
void negotiate(struct call *c)
{
	const char *accept = http_req_header(c->http, "accept");
	_cleanup_strv_ char **forms = accept ? strv_split(accept, ',', false) : NULL;

	for (char **f = forms; f && *f; f++) {
		const char *form = *f + strspn(*f, " ");

		if (str_starts(form, "application/json") || str_starts(form, "*/*") ||
		    str_starts(form, "application/*")) {
			if (strstr(form, "as=Table")) {
				c->output = OUTPUT_TABLE;
				c->table_version = strstr(form, "v=v1beta1") ? "v1beta1" : "v1";
			} else if (strstr(form, "as=PartialObjectMetadata")) {
				c->output = OUTPUT_PARTIAL;
			} else if (strstr(form, "as=")) {
				continue;
			}
			return;
		}
	}
}
