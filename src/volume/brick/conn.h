/* SPDX-License-Identifier: Apache-2.0 */
/* conn: one TCP connection that carries frames, on the loop thread. See conn.c. */
#pragma once

#include "io/io.h"
#include "volume/proto.h"

struct conn;
struct engine;

/* What the owner of the connections does with what comes. */
struct conn_events {
	/* A whole frame. body is valid during the call only; payload is borrowed (may be NULL). Negative: the connection is closed, with `why`
	 * in the log when it is not NULL. */
	int (*frame)(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
		     const char **why);
	void (*opened)(struct conn *c); /* dialled, and connected */
	void (*closed)(struct conn *c, int err,
		       const char *why); /* last call for c; err 0 = closed in order by the other side */
	/* End of a turn, before anything is sent: makes what was done in this turn safe. Negative: nothing of this turn may go out; 1: there is more to do, call
	 * again when all was sent. */
	int (*turn_end)(void *ctx);
	void *ctx;
	/* All may be NULL. What a turn had to say was sent. */
	void (*turn_sent)(void *ctx);
	/* Of the payload of a FRAME_OP, of at least CONN_PART_MIN bytes, more came: got of them are there; also when all are, just before frame(). */
	void (*part)(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
		     uint32_t got);
	/* A FRAME_EARLY begins: the payload that its bytes belong to (borrowed), and where in it. NULL: the connection is closed. */
	struct payload *(*place)(struct conn *c, const struct proto_head *h, const uint8_t *body,
				 uint32_t *ret_at, const char **why);
};
#define CONN_PART_MIN (128u << 10)

struct engine_options {
	uv_loop_t *loop;
	struct conn_events events;
	uint32_t connections_max;
};
struct engine *engine_new(const struct engine_options *o);
/* Closes every connection and the listener; the memory goes with the loop's last handle. */
struct engine *engine_free(struct engine *en);
int engine_listen(struct engine *en, const char *address, int port, struct err *e); /* returns the port */
struct conn *engine_dial(struct engine *en, const char *address, void *owner, struct err *e); /* "ip:port" */
/* Runs turn_end and sends what is queued. The loop does it by itself at the end of each turn. */
void engine_turn(struct engine *en);
void *engine_ctx(const struct engine *en);	    /* events.ctx */
struct conn *engine_first(const struct engine *en); /* then by ->next */
uint64_t engine_activity(const struct engine *en);  /* frames received so far */

/* Fields an owner may use. */
struct conn {
	struct engine *en;
	void *owner;		  /* the owner's; NULL at first for accepted ones */
	struct proto_hello hello; /* role 0: not yet */
	char peer[64];		  /* "ip:port", for the log */
	bool dialled, gone;	  /* gone: closed; kept for references only */
	uint32_t waiting;	  /* the owner's count of operations not yet answered */
	uint32_t body_limit;	  /* bytes; small until HELLO */
	uint32_t pause_above;	  /* bytes queued; while more wait it is not read from. 0 = never */
	uint32_t out_limit;	  /* bytes queued; more: closed with -ENOBUFS */
	uint64_t since_ms;	  /* uv_now when it was made */
	struct conn *next, *prev;
	/* the rest is conn.c's */
	struct conn_inside *in;
	int refs;
};
struct conn *bconn_ref(struct conn *c);
struct conn *bconn_unref(struct conn *c); /* accepts NULL, returns NULL */
void bconn_close(struct conn *c, int err, const char *why);
/* Stops and starts reading: a client with too much in flight. */
void bconn_pause(struct conn *c, bool paused);
size_t bconn_queued(const struct conn *c); /* bytes */

/* A frame: bconn_begin, then the body is added to the buffer, then bconn_end (which fills lengths and the body's CRC; h->payload_crc is the
 * caller's). Takes a reference of payload. On a connection that is gone both do nothing useful, harmlessly. */
struct buf *bconn_begin(struct conn *c);
void bconn_end(struct conn *c, struct proto_head *h, struct payload *payload);
/* The same with len bytes of payload from `from` on; the rest of it may still be on its way. The frame may leave before the end of the turn. */
void bconn_end_part(struct conn *c, struct proto_head *h, struct payload *payload, uint32_t from,
		    uint32_t len);
/* Sends what is queued now, unless a frame among it has to wait for the end of the turn. Closes nothing: errors show then. */
void bconn_push(struct conn *c);
/* The whole at once. */
void bconn_send(struct conn *c, struct proto_head *h, const void *body, size_t len, struct payload *payload);
