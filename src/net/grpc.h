/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC over the C core library: channels, blocking unary calls and streams, a server, and the standard health service
 * (grpc.health.v1). Messages are bytes; callers pack and unpack them with protobuf-c.
 *
 * Client calls block and end by their deadline: worker threads only. Each call polls for itself, so there is no hidden
 * thread of ours; one stream is read by one thread at a time (another may send). */
#pragma once

#include "base/base.h"

/* Status codes of gRPC that callers look at (doc/statuscodes.md of gRPC). */
enum rpc_code {
	RPC_OK = 0,
	RPC_CANCELLED = 1,
	RPC_UNKNOWN = 2,
	RPC_INVALID_ARGUMENT = 3,
	RPC_DEADLINE_EXCEEDED = 4,
	RPC_NOT_FOUND = 5,
	RPC_ALREADY_EXISTS = 6,
	RPC_PERMISSION_DENIED = 7,
	RPC_RESOURCE_EXHAUSTED = 8,
	RPC_FAILED_PRECONDITION = 9,
	RPC_ABORTED = 10,
	RPC_OUT_OF_RANGE = 11,
	RPC_UNIMPLEMENTED = 12,
	RPC_INTERNAL = 13,
	RPC_UNAVAILABLE = 14,
	RPC_UNAUTHENTICATED = 16,
};

/* ---- client ---- */
struct rpc_channel;
struct rpc_stream;

struct rpc_channel_options {
	const char *target; /* "10.77.1.1:2379", "localhost:50051", "[::1]:50051", "unix:///run/x.sock" */
	bool tls;	    /* verified against ca_file (NULL = the system's) */
	const char *ca_file, *cert_file, *key_file;
	const char *server_name;    /* name in the server's certificate; NULL = the target's host */
	int64_t connect_timeout_ms; /* 0 = 1,000 */
	int64_t keepalive_ms; /* HTTP/2 ping while calls run; 0 = none. The server must allow the rate */
	int64_t silence_ms; /* with keepalive: given up when a ping, or sent data, stays unanswered; 0 = 1,500 */
	size_t message_max; /* bytes of an answer; 0 = 4 MiB */
	/* A thread keeps the channel connected between calls. Without it nobody drives a connection attempt while no call
	 * waits, so that after a server's restart short calls may fail for long. */
	bool keep_connected;
};

struct rpc_meta {
	const char *name, *value; /* lower case name */
};

struct rpc_reply {
	int code;   /* enum rpc_code */
	char *data; /* malloc'ed; zero-terminated behind len; NULL unless RPC_OK */
	size_t len;
};

/* Does not connect yet. */
int rpc_channel_new(const struct rpc_channel_options *o, struct rpc_channel **ret, struct err *e);
struct rpc_channel *rpc_channel_free(struct rpc_channel *ch); /* after its calls and streams have ended */

/* method: "/package.Service/Method". 0, or the status as errno (see rpc_errno), its text in e. ret->code is always set. */
int rpc_call(struct rpc_channel *ch, const char *method, const struct rpc_meta *meta, size_t n_meta,
	     const void *request, size_t len, int64_t timeout_ms, struct rpc_reply *ret, struct err *e);
void rpc_reply_done(struct rpc_reply *r);

/* A call with any number of messages each way; no deadline of its own. */
int rpc_stream_new(struct rpc_channel *ch, const char *method, const struct rpc_meta *meta, size_t n_meta,
		   struct rpc_stream **ret, struct err *e);
/* -ETIMEDOUT: not taken over by the connection in time; the stream is then cancelled. */
int rpc_stream_send(struct rpc_stream *s, const void *data, size_t len, int64_t timeout_ms);
/* No more will be sent. */
int rpc_stream_send_end(struct rpc_stream *s, int64_t timeout_ms);
/* 0 and one message; -ETIMEDOUT: none so far, ask again (ret->code is RPC_OK then); else the stream has ended: -ENODATA
 * with RPC_OK, otherwise the status as errno. */
int rpc_stream_recv(struct rpc_stream *s, int64_t timeout_ms, struct rpc_reply *ret, struct err *e);
void rpc_stream_cancel(struct rpc_stream *s);		  /* any thread; recv returns soon */
struct rpc_stream *rpc_stream_free(struct rpc_stream *s); /* cancels; accepts NULL, returns NULL */
/* UNAVAILABLE -EAGAIN, DEADLINE_EXCEEDED -ETIMEDOUT, NOT_FOUND -ENOENT, ... else -EIO. */
int rpc_errno(int code);

/* ---- server ---- */
struct rpc_server;
struct rpc_out; /* one answer stream */

struct rpc_method {
	const char *path; /* "/package.Service/Method" */
	/* One of the two. They run on the server's threads and may block.
	 * unary: RPC_OK and the answer in reply, or another code with its text in e. */
	int (*unary)(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e);
	/* stream: answers with rpc_out_write and must call rpc_out_finish once, now or later, from any thread. */
	void (*stream)(void *ctx, struct rpc_out *out, const void *request, size_t len);
	void *ctx;
};

struct rpc_server_options {
	const char *
		address; /* "0.0.0.0:50051"; port 0 = any free one; "unix:///run/x.sock": a socket left there goes */
	const char *cert_file, *key_file; /* TLS when set */
	const char *client_ca_file;	  /* clients need a certificate of this CA */
	int threads;			  /* 0 = 4, at most 64 */
	size_t message_max;		  /* bytes of a request; 0 = 4 MiB */
	const struct rpc_method *methods; /* copied */
	size_t n_methods;
};

/* Serves until freed. grpc.health.v1.Health is always there too. */
int rpc_server_new(const struct rpc_server_options *o, struct rpc_server **ret, struct err *e);
int rpc_server_port(const struct rpc_server *s);
/* Cancels what runs; waits for handlers. Answer streams get their closed call and must be finished by then or later. */
struct rpc_server *rpc_server_free(struct rpc_server *s);
/* service "" = the server as a whole, which is serving from the start. */
void rpc_server_set_health(struct rpc_server *s, const char *service, bool serving);

/* Copies data. -EPIPE: the client has gone; -ENOBUFS: more than 16 MiB wait, the stream is cut off. */
int rpc_out_write(struct rpc_out *o, const void *data, size_t len);
/* Called once from a server thread when the client has gone or the stream is over; not after rpc_out_finish. Set it
 * inside the handler. */
void rpc_out_on_closed(struct rpc_out *o, void (*closed)(void *ctx), void *ctx);
/* The stream's last call; o is invalid after it. */
void rpc_out_finish(struct rpc_out *o, int code, const char *text);

/* ---- health check ---- */
/* Blocking; any thread. 0 = serving; -EHOSTDOWN = not serving; -ENOENT = the service is not known there; -EOPNOTSUPP = no health
 * service; -EAGAIN, -ETIMEDOUT = not reachable. tls may be NULL (plain); its target is not used. */
int rpc_health_check(const char *target, const struct rpc_channel_options *tls, const char *service,
		     int64_t timeout_ms, struct err *e);
