/* SPDX-License-Identifier: Apache-2.0 */
/* proto: frames between clients and bricks and between bricks, over TCP (port 7710 by default). Byte tables: docs/protocol/volume.md.
 * A frame is a head of 48 bytes, a body and a payload (file data). All numbers little endian. Every decoder bounds every length. */
#pragma once

#include "core/repl/repl.h"
#include "core/vfs/vfs.h"

#define PROTO_PORT	  7710
#define PROTO_VERSION	  1
#define PROTO_HEAD	  48
#define PROTO_MAGIC	  0x3142564bu /* "KVB1" */
#define PROTO_BODY_MAX	  (4u << 20)
#define PROTO_PAYLOAD_MAX RECORD_PAYLOAD_MAX

enum frame_type {
	FRAME_HELLO = 1, /* first on every connection. body: struct proto_hello. Answer: HELLO, status */
	FRAME_OP, /* body: vfs_op; payload: WRITE. Answer: OP, status, body: vfs_result (status 0) or refusal */
	FRAME_REPL, /* brick to brick: repl_msg (+ record head and body; payload). No answer */
	FRAME_DELTA, /* pull: body: since, cursor. Answer: items, cursor, done flag, the source's (epoch, seq) at its start */
	FRAME_FETCH, /* pull: body: ino, off, len. Answer: body crcs, payload bytes */
	FRAME_PUSH, /* brick -> client on a session connection: invalidate / orphan question. Answer: PUSH, status */
	FRAME_PING,  /* client -> brick on a session: keeps session and caching leases. Answer: PING */
	FRAME_ADMIN, /* body: JSON {"verb":"status"|"heal"|"scrub"|"top"|"where", ...}. Answer: body JSON */
	FRAME_BAD_BLOCK, /* client -> the member: body struct proto_bad: a checksum did not hold; the brick verifies and repairs. No answer */
	FRAME_EARLY, /* brick to brick: bytes of a payload whose record is not made yet. body: struct proto_early. No answer */
	FRAME_LAST = FRAME_EARLY
};
/* head.flags */
#define FRAME_ANSWER	 1u
#define FRAME_WANT_LEASE 2u /* OP: caching lease wanted on the objects of the result */
#define FRAME_LEASED \
	4u /* answer: granted: entries and attributes of the result may be kept until a PUSH or the session's end */
#define FRAME_DONE	 8u  /* DELTA: last */
#define FRAME_ANY_MEMBER 16u /* OP, a read: a backup may answer it (else -ESTALE) */
#define FRAME_TAKEN	 32u /* refusal of an OP that had been taken: it may have been done */

struct proto_head {
	uint16_t type, flags;
	uint32_t body_len, payload_len;
	uint64_t request; /* chosen by the asker, returned */
	uint32_t volume;  /* low 32 bits of FNV-1a of the volume's uuid: a brick serves several volumes */
	uint32_t group;
	int32_t status; /* answers: 0, or -errno: -ESTALE (not the one to ask / old epoch; body: proto_view), -EAGAIN (try again in a moment; body: text),
			 * -EROFS (below the write quorum; text), -ENODEV (volume or group not here) */
	uint64_t epoch; /* of the group, as the sender knows it */
	uint32_t body_crc; /* CRC32C of the body */
	/* WRITE, FETCH: as in a record: CRC32C of the chunks' CRCs. READ: 0; the result carries the blocks' own checksums. 0 without payload. */
	uint32_t payload_crc;
};
uint32_t proto_volume_tag(const struct vol_id *uuid); /* proto_head.volume */
void proto_head_encode(const struct proto_head *h, uint8_t out[PROTO_HEAD]);
int proto_head_decode(
	const uint8_t in[PROTO_HEAD],
	struct proto_head *ret); /* -EBADMSG, -EMSGSIZE; lengths are within the bounds after 0 */

enum proto_role {
	PROTO_CLIENT = 1,
	PROTO_SESSION,
	PROTO_PEER, /* between two bricks, one connection: the one with the smaller name dials; both sides ask and answer */
	PROTO_ADMIN,
	PROTO_PULL /* brick to brick: DELTA and FETCH, apart from the live traffic */
};
struct proto_hello {
	uint32_t version;
	enum proto_role role;
	struct vol_id volume; /* uuid; all zero for ADMIN of the whole brick */
	uint64_t client;      /* CLIENT, SESSION */
	uint64_t incarnation; /* PEER: of the sending process */
	char name[64];	      /* who: "a1", or the client's host name */
	char domain[64];
};
int proto_hello_encode(const struct proto_hello *h, struct buf *b);
int proto_hello_decode(const void *data, size_t len, struct proto_hello *ret);

struct proto_view {
	struct repl_view view;
	char primary_address[64]; /* "" = none */
};
bool proto_view_ok(const struct repl_view *v); /* every number in its bounds */
int proto_view_encode(const struct proto_view *v, struct buf *b);
int proto_view_decode(const void *data, size_t len, struct proto_view *ret);

/* The record of an APPEND: head and body after the message's fixed part; its payload is the frame's. */
int proto_repl_encode(const struct repl_msg *m, struct buf *b);
int proto_repl_decode(const void *data, size_t len, struct payload *payload, struct repl_msg *ret,
		      struct record **ret_record);

/* Bytes of a large WRITE that a primary sends on while the rest is still coming to it. `at` begins at 0 and goes on without a gap. An APPEND whose head has
 * request = id takes the payload (and has none of its own); a frame without payload drops it. */
struct proto_early {
	uint64_t id;	/* rises by the sender's choice; of the connection */
	uint32_t total; /* bytes of the whole payload */
	uint32_t at;	/* of this frame's */
	uint16_t
		phase; /* of the payload in its file, modulo VOL_BLOCK: for checksums ahead; a wrong one costs time only */
};
int proto_early_encode(const struct proto_early *e, struct buf *b);
int proto_early_decode(const void *data, size_t len, uint32_t payload_len, struct proto_early *ret);

enum push_type {
	PUSH_INODE = 1, /* ino: attributes and data of it changed, or are about to */
	PUSH_ENTRY,	/* ino (folder), name: the entry changed; name empty = all entries */
	PUSH_ORPHAN,	/* ino has no name left: answer 1 while it is open here, else 0 */
	PUSH_UNLOCKED,	/* ino: a lock was released (a blocked locker tries again) */
	PUSH_RESET, /* head.group has a new primary, the sender: drop all that was kept of the group, then answer */
	PUSH_RECALL /* ino (folder): others want it: send what waits, then VFS_UNDELEGATE, then answer */
};
struct proto_push {
	enum push_type type;
	struct vol_ino ino;
	char name[VFS_NAME_MAX + 1];
};
int proto_push_encode(const struct proto_push *p, struct buf *b);
int proto_push_decode(const void *data, size_t len, struct proto_push *ret);

struct proto_bad {
	struct vol_ino ino;
	uint64_t off;	/* of the block; a multiple of VOL_BLOCK */
	uint8_t member; /* whose copy it was */
};
int proto_bad_encode(const struct proto_bad *p, struct buf *b);
int proto_bad_decode(const void *data, size_t len, struct proto_bad *ret);

struct proto_delta_ask {
	uint64_t since;
	struct delta_cursor cursor;
	bool first;
	uint32_t limit;
};
int proto_delta_ask_encode(const struct proto_delta_ask *a, struct buf *b);
int proto_delta_ask_decode(const void *data, size_t len, struct proto_delta_ask *ret);
/* Answer body: (epoch, seq, floor, full), next cursor, then items; proto_item_* one at a time. */
struct proto_delta {
	uint64_t epoch, seq, floor;
	bool full;
	struct delta_cursor cursor;
};
int proto_delta_encode(const struct proto_delta *d, struct buf *b);
int proto_delta_decode(const void *data, size_t len, size_t *at, struct proto_delta *ret);
int proto_item_encode(const struct delta_item *i, struct buf *b);
int proto_item_decode(const void *data, size_t len, size_t *at,
		      struct delta_item *ret); /* -ENOENT at the end */
int proto_fetch_encode(const struct pull_range *r, struct buf *b);
int proto_fetch_decode(const void *data, size_t len, struct pull_range *ret);
/* Answer body of FETCH: where the source was when it read, and a checksum a block. */
int proto_fetched_encode(uint64_t source_seq, const uint32_t *crcs, uint32_t n, struct buf *b);
int proto_fetched_decode(const void *data, size_t len, uint32_t n, uint64_t *ret_source_seq,
			 uint32_t *ret_crcs);
/* Congestion control of a socket (tcp.c): before it connects or listens, and when it is connected. */
void proto_tcp_new(int fd);
void proto_tcp_connected(int fd);
