/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 server with TLS over libwebsockets on a libuv loop. Used by the API server, the node agent's port 10250, metrics
 * and health of every role, and the MES. Handlers run on the loop thread with the whole body; the answer may come later and from
 * any thread. */
#pragma once

#include "io/io.h"

struct http_server;
struct http_req;

struct http_server_options {
	const char *address; /* "0.0.0.0"; "unix:/run/x.sock": a socket left there goes, mode 0600, no port */
	int port;	     /* 0 = any free one, see http_server_port() */
	/* TLS when cert_file is set. client_ca_file: client certificates are asked for and, when given, must verify. */
	const char *cert_file, *key_file, *client_ca_file;
	bool client_cert_required;
	size_t body_max;	 /* bytes; 0 = 3 MiB; more is answered 413 */
	const char *too_large;	 /* JSON of that answer, at most 500 bytes; NULL = plain text */
	int connections_max;	 /* 0 = 2,000 */
	int64_t idle_timeout_ms; /* 0 = 90,000; streams have none */
	void (*handle)(void *ctx, struct http_req *req);
	void *ctx;
};

struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_options *o, struct err *e);
int http_server_port(const struct http_server *s);
/* Loop thread. Closes all connections; open requests get their close callback. */
struct http_server *http_server_free(struct http_server *s);

/* ---- request: valid until the answer has ended ---- */
const char *http_req_method(const struct http_req *r);
const char *http_req_path(const struct http_req *r); /* decoded, without query */
const char *http_req_query(const struct http_req *r,
			   const char *name); /* decoded; NULL = not there, "" = no value */
const char *http_req_header(const struct http_req *r,
			    const char *name); /* lower case name; NULL = not there */
const char *http_req_body(const struct http_req *r, size_t *ret_len);
const char *http_req_peer(const struct http_req *r);	   /* "10.77.1.1:50000" */
const char *http_req_cert_cn(const struct http_req *r);	   /* client certificate's CN; NULL = none */
char *const *http_req_cert_orgs(const struct http_req *r); /* its O fields; NULL = none */

/* ---- answer; thread-safe; each request exactly one reply, or stream ... end ---- */
/* headers: "Name: value" lines, NULL-terminated, may be NULL. Copies data. */
void http_reply(struct http_req *r, int status, const char *content_type, const void *data, size_t len,
		const char *const *headers);
void http_reply_text(struct http_req *r, int status, const char *text);
void http_reply_json(struct http_req *r, int status, const json_t *j); /* borrowed */

/* Streams (watch, log follow). closed runs on the loop thread once, when the client has gone or after http_stream_end. After it the
 * request must not be touched. */
void http_stream_begin(struct http_req *r, int status, const char *content_type, void (*closed)(void *ctx),
		       void *ctx);
/* Copies data. -ENOBUFS when more than 16 MiB wait: the slow client is then cut off. */
int http_stream_write(struct http_req *r, const void *data, size_t len);
void http_stream_end(struct http_req *r);
size_t http_stream_queued(const struct http_req *r); /* bytes that the client has not taken yet */
/* Instead of http_stream_end: the connection breaks within a second, so that the client sees that something is missing. */
void http_stream_cut(struct http_req *r);
