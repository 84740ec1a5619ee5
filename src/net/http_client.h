/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous HTTP client over libcurl's multi interface on a libuv loop: keep-alive, TLS with client certificates, streams.
 * Loop thread only. */
#pragma once

#include "io/io.h"

struct http_client;
struct http_call;

struct http_client_options {
	const char *ca_file, *cert_file,
		*key_file; /* NULL = none; without ca_file https is not verified only if insecure is set */
	const char *ca_pem, *cert_pem, *key_pem; /* the same as PEM texts (copied); they win over the files */
	bool insecure;
	const char *bearer_token; /* copied */
	int connections_max;	  /* 0 = 64; calls beyond wait for one */
	int64_t unacked_max_ms; /* a connection whose bytes are not acknowledged for so long is given up; 0 = 3,000 */
};

struct http_call_options {
	const char *method; /* "GET" */
	const char *url;
	const char *const *headers; /* "Name: value", NULL-terminated, may be NULL */
	const void *body;	    /* copied */
	size_t body_len;
	int64_t timeout_ms;	    /* whole call; 0 = 10,000; streams: < 0 = none */
	int64_t connect_timeout_ms; /* 0 = 1,000 */
	int64_t silence_timeout_ms; /* streams: ended with -ETIMEDOUT after so long without a byte; 0 = none */
	size_t answer_max;	    /* bytes; 0 = 64 MiB */
	bool new_connection;	    /* no keep-alive: probes */
	bool follow_redirects;
	/* Stream: called for every piece of a 2xx answer; done then gets an empty body. NULL = collect. */
	void (*data)(void *ctx, const char *data, size_t len);
	/* Once, never from inside http_call_new. status = HTTP status, or negative errno (text says why). */
	void (*done)(void *ctx, int status, const char *body, size_t len, const char *text);
	void *ctx;
};

struct http_client *http_client_new(uv_loop_t *loop, const struct http_client_options *o, struct err *e);
struct http_client *http_client_free(struct http_client *c); /* ends its calls without calling done */
struct http_call *http_call_new(struct http_client *c, const struct http_call_options *o);
/* A stream whose reader is slow: no more data until it goes on. From inside data too; not after done. */
void http_call_pause(struct http_call *call, bool on);
/* done is not called any more. Not after done. */
void http_call_cancel(struct http_call *call);
