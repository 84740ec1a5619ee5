/* SPDX-License-Identifier: Apache-2.0 */
/* client: a volume as its users' programs reach it, without a kernel: used by the mount (FUSE), by `kuayu volume where` and by tests.
 *
 * Threads: any number of callers, each with a slot of its own; a slot has one operation in flight and its own connections to the bricks it
 * talked to (a caller sends and receives on its own thread: no hand-over on the way). One more connection a brick, the session, is
 * served by a thread of the client: pings (every 300 ms), invalidations, orphan questions.
 *
 * An operation is sent to the primary of its group with the epoch the client knows; refused (-ESTALE, -EAGAIN, a broken connection, no
 * answer within op_try_ms) it is sent again with the same id, after a look at the views, until timeout_ms; then -EIO and the reason in the log. */
#pragma once

#include "volume/config.h"
#include "volume/proto.h"

struct vclient;
struct vclient_slot;

struct vclient_options {
	const char *store_uri;
	const struct store_options *store_options;
	struct store *store; /* one that is open already, instead of store_uri; borrowed */
	const char *volume;
	const char *
		domain; /* own domain: reads go to a member there when the volume's read-policy allows; NULL = primaries only */
	uint64_t timeout_ms; /* one operation; 0 = 30,000 */
	bool leases;	     /* keep a session and ask for caching leases */
	/* Called on threads of the client; none may call back into it. noted: a push has come (before it waits for a worker): answers to questions sent
	 * before now must not be kept; must not block. invalidate: drop it; the push is answered when it returns. */
	void (*noted)(void *ctx, const struct proto_push *p);
	void (*invalidate)(void *ctx, const struct proto_push *p);
	void (*reset)(
		void *ctx,
		uint32_t
			group); /* leases of the group ended (session or primary changed): drop what was kept */
	bool (*is_open)(void *ctx, const struct vol_ino *ino);
	void *ctx;
};

int vclient_open(const struct vclient_options *o, struct vclient **ret,
		 struct err *e); /* volume must be started; waits for the map */
struct vclient *vclient_close(struct vclient *c);
/* For a process that is about to end: operations that wait for an answer fail with -EIO within some 2 s, and so does what is asked afterwards. */
void vclient_give_up(struct vclient *c);
const struct vol_map *
vclient_map(struct vclient *c); /* of now; valid until vclient_close (old maps are kept) */
uint64_t vclient_id(struct vclient *c);
void vclient_options_get(struct vclient *c, const char *name, char *out,
			 size_t size); /* volume option or "" */

/* Do the leases of the group hold at this moment? Judged by the clock, so also right after this process stood still, before its own threads have noticed. */
bool vclient_leases_hold(struct vclient *c, uint32_t group);

struct vclient_slot *vclient_slot_new(struct vclient *c);
struct vclient_slot *vclient_slot_free(struct vclient_slot *s);

/* Executes op on the group that must (vfs_group), with retries; fills op->id itself. WRITE and READ may span stripes: split by the callee when the volume
 * is striped over several groups, sizes brought to the owner (VFS_EXTEND). payload of WRITE: op->payload. *ret_leased (may be NULL): the result may be
 * kept until invalidate or reset. Returns res->err or -EIO. READ verifies checksums end to end and turns to other members. */
int vclient_call(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, bool *ret_leased);
/* LOOKUP of op, and all bytes of a regular file of at most `room` (a multiple of VOL_BLOCK, at most VFS_LOOKUP_MAX) into data, when the group of the folder has
 * them: *ret_len, 0 = they did not come. They are those of res->attr.version, verified. Returns as vclient_call. */
int vclient_lookup(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, bool *ret_leased,
		   void *data, uint32_t room, uint32_t *ret_len);
/* Like READ but into the caller's memory; size: of the file, UINT64_MAX = not known. Returns bytes read (short at the end of the file) or -errno.
 * Fastest when off and len are multiples of VOL_BLOCK. *ret_leased as above: the bytes may be kept. */
int64_t vclient_read(struct vclient_slot *s, const struct vol_ino *ino, uint64_t size, uint64_t off,
		     void *data, uint32_t len, bool *ret_leased);
/* Lost writes: when all members of a group lose power at once, what was written but not synced may be gone, and the view's fork says so. A file's
 * forks are the sum of those of its groups: equal before a write and after the fsync that follows = nothing in between was lost.
 * vclient_forks_end: of the calls of this slot since vclient_forks_begin; UINT64_MAX when one was answered before the newest fork. */
void vclient_forks_begin(struct vclient_slot *s);
uint64_t vclient_forks_end(struct vclient_slot *s, const struct vol_ino *ino);
/* fsync of every group the file has stripes in. */
int vclient_fsync(struct vclient_slot *s, const struct vol_ino *ino);

/* ---- pipe: many writes in flight at once, all on one thread ----
 * For a writer that does not wait for each answer (the mount's write-behind). One connection a brick; a brick handles a connection's operations in
 * order. Every write has one try: whatever is not a final answer - a refusal, a broken or silent connection, a new primary - comes back as
 * `again`, and is asked again by vclient_write_again on any thread, with the same id, so nothing is done twice. Writes that overlap must
 * not be in flight together: they may land in any order. Not for volumes whose files lie in several groups (stripe above 1). */
struct vclient_pipe;

struct vclient_write {
	struct vfs_op op; /* VFS_WRITE, filled by the caller but for id; not VFS_APPEND */
	uint32_t group;	  /* vol_owner of the inode */
	const void *data; /* op.len bytes; unchanged until it comes back */
	void *ctx;
	/* when it comes back: */
	struct vfs_result res; /* the caller calls vfs_result_done */
	bool leased;	       /* as vclient_call's */
	uint64_t forks;	       /* as vclient_forks_end's */
	/* the pipe's: */
	uint32_t number; /* in ids; set by vclient_write_init */
	uint64_t count, request, resets;
	struct repl_view view;
	uint32_t brick;
	bool flying, tried; /* tried: it may have been done, under that view */
	struct buf head;    /* encoded head and body */
	size_t sent;
};

#define VCLIENT_PIPE_MAX 256 /* writes in flight */

struct vclient_pipe *vclient_pipe_new(struct vclient *c, void (*back)(struct vclient_write *w,
								      bool again)); /* NULL = no memory */
struct vclient_pipe *vclient_pipe_free(struct vclient_pipe *p); /* nothing may be in flight */
void vclient_write_init(struct vclient *c, struct vclient_write *w);
void vclient_write_done(struct vclient_write *w);
/* Puts it on its way; bytes go out with the next vclient_pipe_run. Else `again` at once: false. */
bool vclient_pipe_send(struct vclient_pipe *p, struct vclient_write *w);
/* Sends, and waits for answers at most timeout_ms (-1 = until something happens), or until `fd` (-1 = none) can be read or somebody calls
 * vclient_pipe_wake; calls `back`, which must not call the pipe. */
void vclient_pipe_run(struct vclient_pipe *p, int fd, int timeout_ms);
void vclient_pipe_wake(struct vclient_pipe *p); /* from any thread */
/* Once more, or for the first time (op.id all zero), with all tries, on the caller's slot. Returns res.err or -EIO. Any number of stripes. */
int vclient_write_again(struct vclient_slot *s, struct vclient_write *w);
