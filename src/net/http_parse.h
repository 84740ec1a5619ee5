/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 requests from bytes (RFC 9112), strict: what is ambiguous is refused, so that no proxy before us can read a
 * request differently. Pure; fuzzed by fuzz/fuzz_http_parse.c. */
#pragma once

#include "base/base.h"

#define HTTP_HEAD_MAX	((size_t)64 << 10) /* bytes of request line and fields */
#define HTTP_FIELDS_MAX 100
#define HTTP_QUERY_MAX	64

struct http_field {
	const char *name; /* lower case (fields) or decoded (query) */
	const char *value;
};

struct http_head {
	char *text; /* owns the bytes all pointers point into */
	const char *method;
	char *path; /* decoded */
	int minor;  /* HTTP/1.minor */
	bool keep_alive, chunked, expect_continue;
	int64_t content_length; /* -1 = none */
	struct http_field fields[HTTP_FIELDS_MAX];
	size_t n_fields;
	struct http_field query[HTTP_QUERY_MAX];
	size_t n_query;
};

/* > 0: bytes the head takes, *ret is filled (free with http_head_done); 0: more bytes are needed; -EBADMSG, -EMSGSIZE (too
 * long), -ENOTSUP (a transfer coding other than chunked). */
ssize_t http_head_parse(const char *data, size_t len, struct http_head *ret);
void http_head_done(struct http_head *h);
/* NULL = not there. Several fields of one name: the first. */
const char *http_head_field(const struct http_head *h, const char *lower_name);

/* Decodes a chunked body piece by piece. */
struct http_chunks {
	enum {
		CHUNK_SIZE,
		CHUNK_EXT,
		CHUNK_SIZE_LF,
		CHUNK_DATA,
		CHUNK_CR,
		CHUNK_LF,
		CHUNK_TRAILER,
		CHUNK_DONE
	} state;
	uint64_t left;
	unsigned digits, line, trailers;
};
/* Bytes taken from data; out grows by at most its own limit. -EBADMSG, -EMSGSIZE. */
ssize_t http_chunks_feed(struct http_chunks *c, const char *data, size_t len, struct buf *out);

/* Percent decoding in place; plus: '+' is a space. -EBADMSG on a bad escape or a zero byte. */
int http_decode(char *s, bool plus);
