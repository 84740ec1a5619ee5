/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by http_server.c (requests, answers, the listener) and http_conn.c (bytes and TLS). */
#pragma once

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "net/http_parse.h"
#include "net/http_server.h"

#define WRITE_STALL_MS	   30000 /* nothing could be sent for so long: the client is gone */
#define HEAD_TIMEOUT_MS	   20000 /* TLS handshake and head */
#define LINGER_MS	   2000
#define BODY_TIMEOUT_MS	   60000
#define STREAM_QUEUE_MAX   ((size_t)16 << 20)
#define PIPELINE_BYTES_MAX ((size_t)64 << 10) /* read ahead while a request is being answered */

struct http_server {
	uv_loop_t *loop;
	uv_thread_t thread;
	uv_tcp_t listener;
	uv_timer_t sweep;
	struct mailbox *mailbox;
	SSL_CTX *tls;
	struct http_server_options o;
	int port;
	struct http_conn *conns; /* doubly linked */
	int n_conns;
	uint64_t next_id;
	size_t refs; /* handles open + requests not ended; loop thread only */
	bool closing;
};

struct http_conn {
	uv_tcp_t tcp;
	struct http_server *server;
	struct http_conn *prev, *next;
	SSL *ssl;
	BIO *net_in, *net_out; /* owned by ssl */
	struct buf in;	       /* plain bytes not yet parsed */
	struct http_req *req;  /* being read or answered */
	struct http_chunks chunks;
	enum { CONN_HEAD, CONN_BODY, CONN_ANSWER } state;
	uint64_t deadline_ms; /* 0 = none */
	uint64_t progress_ms; /* when bytes last left */
	size_t unsent;	      /* bytes with the kernel's queue */
	bool eof, close_after, closing, paused, handshaken;
	char peer[64];
	char *cert_cn;
	char **cert_orgs;
};

struct http_req {
	struct http_server *server;
	struct http_conn *conn; /* NULL = the client has gone */
	struct http_head head;
	struct buf body;
	char peer[64];
	char *cert_cn;
	char **cert_orgs;
	uint64_t id;
	bool dispatched, stream, finished;
	void (*closed)(void *ctx);
	void *closed_ctx;
	_Atomic size_t queued;	/* stream bytes not yet sent */
	_Atomic size_t letters; /* posted to the loop and not yet run */
	_Atomic bool cut;	/* too slow */
};

/* http_conn.c */
void http_conn_accept(struct http_server *s);
/* Sends (copies); the stream's queue counts n until it has left. */
void http_conn_send(struct http_conn *c, const void *data, size_t len, struct http_req *stream);
/* The request has been answered (it is no longer the connection's): go on with the next one, or close. */
void http_conn_answered(struct http_conn *c, bool keep_alive);
void http_conn_close(struct http_conn *c);
void http_conn_sweep(struct http_conn *c, uint64_t now);

/* http_server.c */
void http_req_free(struct http_req *r);
/* r->conn is NULL from now on. Frees a request that its handler has not seen. */
void http_req_client_gone(struct http_req *r);
void http_server_unref(struct http_server *s);

/* tls.c */
int http_tls_server_new(const struct http_server_options *o, SSL_CTX **ret, struct err *e);
void http_tls_peer_names(SSL *ssl, char **ret_cn, char ***ret_orgs);
