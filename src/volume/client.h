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
const struct vol_map *
vclient_map(struct vclient *c); /* of now; valid until vclient_close (old maps are kept) */
uint64_t vclient_id(struct vclient *c);
void vclient_options_get(struct vclient *c, const char *name, char *out,
			 size_t size); /* volume option or "" */

struct vclient_slot *vclient_slot_new(struct vclient *c);
struct vclient_slot *vclient_slot_free(struct vclient_slot *s);

/* Executes op on the group that must (vfs_group), with retries; fills op->id itself. WRITE and READ may span stripes: split by the callee when the volume
 * is striped over several groups, sizes brought to the owner (VFS_EXTEND). payload of WRITE: op->payload. *ret_leased (may be NULL): the result may be
 * kept until invalidate or reset. Returns res->err or -EIO. READ verifies checksums end to end and turns to other members. */
int vclient_call(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, bool *ret_leased);
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
