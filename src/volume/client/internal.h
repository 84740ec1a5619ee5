/* SPDX-License-Identifier: Apache-2.0 */
/* The client's inside.
 *
 * Locks: `lock` guards views, options, the list of slots and the sessions' table; nothing blocks under it. A slot belongs to the thread
 * that called; only `kick` of it is touched by others (to wake it when its primary was replaced). Maps are never freed before the end, so a
 * pointer from vclient_map stays good. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "volume/client.h"

#define OP_TRY_MS 2000 /* one question to one brick */
#define SILENT_MS \
	5000 /* bytes that nobody acknowledges for so long: the connection is given up, as the brick's */
#define DIAL_MS	      1000  /* one connect and its HELLO */
#define OP_TIMEOUT_MS 30000 /* one operation with all its tries */
#define WAIT_SAID_MS  1000  /* a longer wait is logged */
#define WAIT_SAID_MAX 4	    /* so many different reasons of one wait */
#define PING_MS	      300   /* between two pings */
#define SESSION_MS    900   /* leases end so long after the sending of the newest ping that was answered */
#define MAPS_MAX      4096  /* replaced maps that are kept */
#define PUSHES_MAX    65536 /* waiting pushes; beyond, the session is dropped (and all leases with it) */
#define PUSH_WORKERS  3
#define ANSWER_ROOM \
	(32u        \
	 << 10) /* first part of a slot's receive buffer; grows to PROTO_BODY_MAX when an answer needs it */
#define GEN_TRIES 8 /* a write that meets a newer truncate generation */

struct group_state {
	struct repl_view view;
	bool known;
	uint64_t resets;  /* raised when the leases of the group end */
	bool leases_hold; /* sessions with all in-sync members are alive */
	int leases_from;  /* brick of the primary they are of */
	uint8_t said; /* "waiting" was logged so often, each time for another reason, and "goes on" was not */
	uint32_t said_reason; /* its checksum */
	uint64_t waiting_since, said_at;
};

struct vclient_slot {
	struct vclient *c;
	struct vclient_slot *next; /* in c->slots */
	uint32_t number;	   /* in opids */
	uint64_t op;		   /* number of the newest operation */
	uint64_t request;
	int *fd; /* a connection a brick; -1 = none */
	uint32_t n_fd;
	struct buf body;
	uint8_t *in; /* answers */
	size_t in_cap;
	uint32_t *crc;	 /* PAYLOAD_CHUNKS(RECORD_PAYLOAD_MAX) */
	uint8_t *bounce; /* READs that are not at block bounds; allocated at first use */
	pthread_mutex_t kick;
	int busy_fd; /* waiting on it now, else -1 */
	uint32_t busy_group, busy_brick;
	bool forked; /* an answer since vclient_forks_begin is of a view before the newest fork */
};

struct session {
	uint32_t brick;
	int fd;
	bool up; /* HELLO was answered */
	bool connecting;
	uint64_t serial; /* of the connection: an answer goes to the one its push came on */
	uint64_t dial_at, dialled_at, pinged_at;
	uint64_t refused_at; /* first HELLO since it was up that the brick did not take; 0 = none */
	bool complained;     /* since it was up, in the log */
	uint64_t alive_from; /* sending time of the newest ping (or HELLO) that was answered; 0 = none */
	uint8_t *in;
	size_t in_len, in_cap;
};

struct push_job {
	struct push_job *next;
	struct session *session; /* NULL = reset of `group` */
	uint64_t serial, request;
	uint32_t group;
	struct proto_push push;
};

struct sessions {
	pthread_t thread, worker[PUSH_WORKERS];
	bool started;
	int wake; /* eventfd */
	struct session *session;
	uint32_t n;
	pthread_mutex_t queue_lock;
	pthread_cond_t queue_changed;
	struct push_job *first, **last;
	uint32_t waiting;
};

struct vclient {
	struct vclient_options o;
	char *volume, *domain;
	struct store *store;
	struct volcfg_watch *watch;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* view, map or state changed */
	_Atomic(struct vol_map *) map;
	struct vol_map *maps[MAPS_MAX];
	uint32_t n_maps;
	json_t *options;
	bool started, deleted;
	_Atomic bool closing, read_local;
	struct group_state group[VOL_GROUPS_MAX];
	uint64_t id;
	uint32_t next_slot;
	struct vclient_slot *slots;
	struct sessions sessions;
	uint64_t timeout_ms;
	_Atomic int pipe_wake; /* eventfd of the pipe, told of new primaries; -1 = none */
};

/* ---- conn.c: one blocking connection ---- */
struct answer {
	struct proto_head head;
	const uint8_t *body; /* in the slot's buffer */
	uint32_t payload_len;
};
int conn_dial(const char *address,
	      uint64_t timeout_ms); /* descriptor or -errno; not blocking until conn_block */
int conn_block(int fd, uint64_t timeout_ms);
int conn_hello(struct vclient *c, struct buf *out, enum proto_role role);
int conn_send(int fd, const struct proto_head *h, const void *body, const void *payload);
/* The answer to `request`: body into the slot's buffer, payload into data (at most len bytes). -ETIMEDOUT, -EPIPE, -EBADMSG: close it. */
int conn_answer(struct vclient_slot *s, int fd, uint64_t request, void *data, uint32_t len,
		struct answer *ret);
int slot_connect(struct vclient_slot *s, uint32_t brick); /* descriptor or -errno */
void slot_disconnect(struct vclient_slot *s, uint32_t brick);

/* ---- client.c ---- */
void client_view_hint(struct vclient *c, uint32_t group, const struct repl_view *v);
bool client_view(struct vclient *c, uint32_t group, struct repl_view *ret);
void client_wait(struct vclient *c, uint64_t ms); /* until something changed, at most so long */

/* ---- call.c ---- */
struct call {
	uint32_t group;
	const void *data; /* WRITE */
	void *into;	  /* READ: room for `room` bytes */
	uint32_t room;
	uint32_t got;	     /* READ: bytes that came */
	int member;	     /* READ from this member only; -1 = as the view says */
	int from;	     /* READ: the member that answered */
	uint32_t from_brick; /* where */
	uint8_t others;	     /* in sync then, too */
	bool want_lease, leased;
	bool keep_id; /* op->id is of an earlier try; false after the first call */
	bool tried;   /* with keep_id: which may have been done, under a view with that fork */
	uint64_t tried_fork;
	bool again_is_answer; /* VFS_LOCK: -EAGAIN is what the caller wants to know */
};
int call_group(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, struct call *k);

/* ---- data.c ---- */
/* One piece, in one group. -ESTALE: truncated meanwhile; the generation is read again. */
int write_piece(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, struct call *k);
int data_write(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, bool *ret_leased);
int64_t data_read(struct vclient_slot *s, const struct vol_ino *ino, uint64_t size, uint64_t off, void *data,
		  uint32_t len, bool *ret_leased);
int data_fsync(struct vclient_slot *s, const struct vol_ino *ino);
int data_seek(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res);
int data_statfs(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res);

/* ---- pipe.c ---- */
void pipe_kick(struct vclient *c); /* a group has a new primary */

/* ---- session.c ---- */
int sessions_start(struct vclient *c, struct err *e);
void sessions_stop(struct vclient *c);
void sessions_wake(struct vclient *c);
bool session_alive(const struct session *x, uint64_t now);
