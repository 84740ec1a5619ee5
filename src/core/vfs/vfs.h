/* SPDX-License-Identifier: Apache-2.0 */
/* vfs: the file system's operations, pure. An operation reads the group's keys (through a kv view, uncommitted records included) and writes
 * the effects of the whole operation into one record; the shell replicates it and answers when it is committed. Operations that touch two
 * groups leave an intent in the first one's record; the shell (whoever is primary of the group, also after a failover) then drives
 * vfs_intent_next / vfs_intent_done until the intent is gone. Every step is idempotent.
 *
 * Who owns what: a folder's group holds its entries (E), its own inode (I, number 0) and the inodes of the files born in it. A file moved
 * elsewhere keeps its inode where it was born. Permission checks (the sticky bit too) are the client's kernel's (mount option
 * default_permissions); vfs keeps the rules that need the truth: existence, emptiness, link counts, exclusive creation, lock conflicts.
 *
 * -EAGAIN in a result (VFS_LOCK excepted, where it is the answer) means that a name or an inode is in the middle of an operation over two groups:
 * the client tries again with the same id after a moment. It is not kept under D. Nobody waits while holding a name, so there is no deadlock. */
#pragma once

#include "core/repl/replica.h"

#define VFS_NAME_MAX	255
#define VFS_SYMLINK_MAX 4095
#define VFS_XATTR_MAX	65536
#define VFS_LINK_MAX	65000
#define VFS_SIZE_MAX	((uint64_t)1 << 46) /* 64 TiB a file */

enum vfs_op_type {
	VFS_LOOKUP =
		1, /* ino (folder), name -> attr of the entry; len: and, as READ gives it, all of a regular file that is not longer, when it is here and
			 * good */
	VFS_GETATTR, /* ino */
	VFS_SETATTR, /* ino, set, attr; a changed size truncates or extends */
	VFS_CREATE, /* ino (folder), name, attr.mode/uid/gid/rdev: regular file, fifo, socket, device; flags VFS_EXCL: -EEXIST with the entry */
	VFS_MKDIR, /* ino (parent), name, attr, target.folder = the new folder's id (random, chosen by the client) */
	VFS_SYMLINK,  /* ino, name, data = target */
	VFS_READLINK, /* ino -> data */
	VFS_UNLINK,   /* ino, name */
	VFS_RMDIR,    /* ino, name */
	VFS_RENAME, /* ino, name -> ino2, name2; flags VFS_NOREPLACE, VFS_EXCHANGE (within one folder's group; else -EINVAL), VFS_KNOWN */
	VFS_LINK,   /* target -> ino, name */
	VFS_READDIR, /* ino, cookie name in `name` (start behind it) -> data: entries with attributes; more = flag VFS_MORE */
	VFS_READ, /* ino, off, len -> payload of whole blocks from crc_off on, crcs, attr; flags VFS_FOREIGN: not bounded by the size, no attr */
	VFS_WRITE, /* ino, off (or flags VFS_APPEND: -ESTALE when a striped file's end is not in one stripe here, or reserved), payload, gen -> attr;
		    * flags VFS_FOREIGN: only data, the inode is elsewhere */
	VFS_EXTEND, /* ino, off, len, set = blocks of 512 that were holes, attr.blocks of the foreign writes' answers: the size is at least off + len; flags VFS_APPEND: the end is reserved for len bytes
		     * of this slot, from attr.size on when the answer has the flag, else to be asked again (append.c); VFS_RESERVED: they are there */
	VFS_TRIM, /* ino, off, gen, len = the group: foreign slice of a truncate, or with flags VFS_DROP of a removal (step of an intent) */
	VFS_FALLOCATE, /* ino, off, len, set = mode (FALLOC_FL_KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE); flags VFS_FOREIGN: the part in a foreign slice */
	VFS_FSYNC,     /* ino: no record; the shell's repl_sync */
	VFS_GETXATTR,  /* ino, name -> data */
	VFS_LISTXATTR, /* ino -> data: names, each zero-terminated */
	VFS_SETXATTR,  /* ino, name, data, flags XATTR_CREATE / XATTR_REPLACE */
	VFS_REMOVEXATTR, /* ino, name */
	VFS_LOCK,	 /* ino, lock; -EAGAIN and the conflicting lock when held; F_UNLCK releases */
	VFS_GETLOCK,	 /* ino, lock */
	VFS_UNLOCK_ALL, /* client (all its locks in this group: its session ended); lock.owner != 0: of this owner on ino, of lock.flock's
			 * kind. VFS_MORE: there are more, again. id.number may be 0 (the brick does it) */
	VFS_STATFS,	/* -> attr.size = bytes in all, attr.blocks = bytes free, attr.version = files free */
	VFS_SEEK,	/* ino, off, set = SEEK_DATA or SEEK_HOLE -> attr.size = offset */
	VFS_REAP, /* ino: an unlinked file that nobody has open any more; more of them in data (24 bytes each: folder, number little endian). Those that
		   * are not ripe are left. VFS_MORE: again. -EAGAIN: not yet. id.number 0 */
	VFS_WHERE, /* ino, off = first stripe -> data: {stripe4, seq8} little endian of the stripes here (kuayu volume where); VFS_MORE.
		      * VFS_FOREIGN: asked of the group of that stripe, which need not own the inode */
	VFS_SWEEP, /* name = key to go on behind (binary, "" = start): drops answers kept under D for longer than VFS_ANSWER_MS -> data = next key; VFS_MORE */
	VFS_DELEGATE, /* ino (folder): its names are the client's alone until VFS_UNDELEGATE -> attr of the folder, lock.start to lock.end = numbers for its new files.
		       * -EBUSY: another client's; -E2BIG: too many names to look through; -EAGAIN: a name is locked */
	VFS_UNDELEGATE, /* ino (folder): if it is the client's (id.client; id.number may be 0: the brick does it); else nothing */
	VFS_SETATTRS, /* ino (folder, the client's by a delegation, else -ESTALE), data = up to VFS_SETS_MAX vfs_set_encode of files born in it: all, or none with the
		       * error of one -> data: their attributes, in this order (not kept: a retry hears none); attr of the last */
	/* Steps of intents, between primaries only: */
	VFS_STEP_MAKE_FOLDER = 64,
	VFS_STEP_KILL_FOLDER,
	VFS_STEP_LINK_COUNT,
	VFS_STEP_PREPARE,
	VFS_STEP_FINISH,
	VFS_STEP_TOUCH, /* ctime of a renamed inode; a folder's parent */
	VFS_STEP_ASK	/* is this intent alive? intent true = yes: the shell drives it on */
};

#define VFS_EXCL      1u
#define VFS_NOREPLACE 2u
#define VFS_EXCHANGE  4u
#define VFS_APPEND    8u
#define VFS_FOREIGN   16u
#define VFS_MORE      32u
#define VFS_NO_ATTR \
	64u /* result: attr has only ino and the type bits of mode: the inode lives in another group */
#define VFS_EXISTED 128u /* result of CREATE without VFS_EXCL: it was there */
#define VFS_DROP    256u
#define VFS_DURABLE \
	512u /* WRITE, EXTEND: answered when the group's log up to here is on stable storage everywhere; result: it is */
#define VFS_KNOWN \
	1024u /* RENAME: `name` leads to `target` (EXCHANGE: and name2 to attr.ino), or -ESTALE: the client looked before, took a lock, \
	       * and something else may be there now. UNLINK: likewise, name leads to target */
#define VFS_NUMBERED \
	4096u /* CREATE: the file's number is target.num, one of those of the client's delegation, else -ESTALE; attr.ctime_ns is the time of all. payload: its first bytes \
	       * (at most VFS_BORN_MAX; stripe 0 lies in the folder's group, else -EINVAL) */
#define VFS_TIMED \
	8192u /* UNLINK, SETATTR: attr.ctime_ns is the time of the change, which was answered before: -ESTALE unless the folder (of UNLINK: the name's) is delegated to the client */

#define VFS_RESERVED \
	2048u /* WRITE, EXTEND: part of, and the end of, an append under a reservation of this slot; -ESTALE when that is not there any more */

#define VFS_INTENTS_MAX 1024 /* at once, a group; -EAGAIN beyond */
#define VFS_LOCKS_MAX	1024 /* ranges of one owner on one inode; -ENOLCK beyond */
#define VFS_XATTRS_MAX	256  /* names of one inode; -ENOSPC beyond */
#define VFS_APPEND_MS \
	3000 /* an append over several groups that is not done by then is given up when another one wants the end */
#define VFS_ANSWER_MS	3600000	    /* a client's newest answer is kept at least so long */
#define VFS_BORN_MAX	(64u << 10) /* bytes that a file is made with */
#define VFS_NUMBERS	65536u	    /* of a delegation */
#define VFS_SETS_MAX	32u	    /* files of a VFS_SETATTRS */
#define VFS_SET_BYTES	40u
#define VFS_LOOKUP_MAX	(64u << 10) /* bytes of a file that come along with its attributes */
#define VFS_READDIR_MAX (1u << 20)  /* bytes of an answer; op.len chooses less, 0 = 64 KiB */

struct vfs_attr {
	struct vol_ino ino;
	uint64_t size, blocks; /* blocks of 512 */
	int64_t atime_ns, mtime_ns, ctime_ns;
	uint32_t mode, nlink, uid, gid, rdev;
	uint32_t gen;	  /* truncate generation */
	uint64_t version; /* seq of the last change of data or attributes */
	uint8_t home;	  /* home hint for folders made in here; 0 = none (VFS_HOME_XATTR) */
	struct vol_id up; /* of a folder: the folder it lies in (the root: itself) */
};
enum {
	VFS_SET_MODE = 1,
	VFS_SET_UID = 2,
	VFS_SET_GID = 4,
	VFS_SET_SIZE = 8,
	VFS_SET_ATIME = 16,
	VFS_SET_MTIME = 32,
	VFS_SET_ATIME_NOW = 64,
	VFS_SET_MTIME_NOW = 128,
	VFS_SET_CTIME = 256,
	VFS_SETS_MASK = VFS_SET_MODE | VFS_SET_ATIME | VFS_SET_MTIME /* what VFS_SETATTRS can set */
};

struct vfs_lock {
	uint64_t start, end; /* inclusive */
	uint64_t owner;
	uint32_t pid;
	uint8_t type; /* F_RDLCK, F_WRLCK, F_UNLCK */
	bool flock;   /* flock(2), else fcntl(2) */
};

/* Exactly once: (client, slot, number). A slot has one operation in flight; its newest answer is kept under D. */
struct vfs_opid {
	uint64_t client; /* random, a mount's */
	uint32_t slot;
	uint64_t number; /* 0 = none: reads */
};

struct vfs_op {
	enum vfs_op_type type;
	struct vfs_opid id;
	struct vol_ino ino, ino2, target;
	const char *name, *name2; /* not terminated; bounded by VFS_NAME_MAX (+1 is -ENAMETOOLONG) */
	uint16_t name_len, name2_len;
	uint32_t flags, set, gen;
	uint64_t off, len;
	struct vfs_attr attr;
	struct vfs_lock lock;
	uint32_t uid, gid, pid; /* caller */
	const void *data;	/* symlink target, xattr value */
	uint32_t data_len;
	struct payload *payload; /* WRITE: borrowed; vfs takes its own reference */
};

/* Folders made in a folder from then on are at home in the domain that this attribute of it names. */
#define VFS_HOME_XATTR "user.kuayu.home"
static inline bool vfs_names_home(const struct vfs_op *op)
{
	return op->name_len == strlen(VFS_HOME_XATTR) && memcmp(op->name, VFS_HOME_XATTR, op->name_len) == 0;
}

struct vfs_result {
	int err; /* 0 or -errno */
	uint32_t flags;
	struct vfs_attr attr; /* of what was looked up, made, changed */
	struct vfs_attr
		parent; /* of ino (a folder) after the operation, where it changed; mode 0 = not set */
	struct vfs_attr
		gone; /* what UNLINK, RMDIR or RENAME took the last name of or unlinked; an exchange: ino and type of the other one; mode 0 = nothing */
	struct vfs_lock lock;
	struct buf data;	 /* READDIR, READLINK, xattrs */
	struct payload *payload; /* READ */
	uint64_t crc_off;	 /* READ: file offset of the payload: a multiple of VOL_BLOCK */
	uint32_t *crcs, n_crcs;	 /* READ; heap */
	bool intent;		 /* the answer comes when intent_id is done */
	uint8_t intent_id
		[16]; /* with -EAGAIN: who holds the name (0 = unknown): an intent of group vfs_intent_group() */
};
void vfs_result_done(struct vfs_result *r);

struct vfs {
	struct replica *replica;
	struct kv view;
	const struct vol_map *map;		      /* may be replaced by the shell when it changes */
	uint64_t bytes_free, bytes_total, files_free; /* STATFS; refreshed by the shell */
	uint64_t reserve;			      /* bytes: WRITE answers -ENOSPC when less is free */
	uint64_t files_reserve;			      /* the same of files_free */
	uint64_t
		bytes_taken; /* may have been taken since bytes_free was measured; when that matters: -EAGAIN */
};
int vfs_init(struct vfs *v, struct replica *r, const struct vol_map *map);

/* Does op change anything (needs the primary and a record)? */
bool vfs_changes(enum vfs_op_type t);
/* Which group must execute op (the folder's owner, or the stripe's group). */
uint32_t vfs_group(const struct vol_map *m, const struct vfs_op *op);

/* Works op out. now_ns: wall clock of the primary. rec: empty; effects are added (none for reads and failures); it carries the D key too,
 * failures of changing operations included (so that a retry hears the same). Answers a repeated id from D without any effect.
 * What it read may not be committed yet: the answer goes when everything that was submitted before it is. rec may be NULL for reads.
 * 0 and res->err; negative only when kv failed (-EIO) or a bound was passed. */
int vfs_exec(struct vfs *v, const struct vfs_op *op, int64_t now_ns, struct record *rec,
	     struct vfs_result *res);

/* ---- operations over two groups ---- */
/* What an intent needs next: *ret_group and *ret_op (memory in *store, caller's) to be executed there under its id until it answers; or 0
 * with *ret_local true: vfs_intent_done can be called at once. -ENOENT: no such intent. */
int vfs_intent_next(struct vfs *v, const uint8_t id[16], uint32_t *ret_group, struct vfs_op *ret_op,
		    struct buf *store, bool *ret_local);
/* The step answered `step` (NULL when local). Effects into rec; *ret_finished: the intent is gone with this record, and res answers the client
 * (and is kept under D). Else: call vfs_intent_next again after the record is committed. */
int vfs_intent_done(struct vfs *v, const uint8_t id[16], const struct vfs_result *step, int64_t now_ns,
		    struct record *rec, struct vfs_result *res, bool *ret_finished);
/* Intents of the group, for a new primary: the first with id > after (NULL = first). -ENOENT at the end. */
int vfs_intent_iter(struct vfs *v, const uint8_t *after, uint8_t ret[16]);
/* The group that drives it (STEP_ASK goes there with the id in target.folder). */
uint32_t vfs_intent_group(const uint8_t id[16]);
/* The driver of one intent, at the primary of the intent's group: what to do when, without doing it.
 *   COMMITTING  its newest record is on its way; when it is committed -> the step
 *   STEPPING    the step was sent to the primary of the step's group
 *   PAUSED      refused or lost: again after a pause (VFS_PAUSE_MIN_MS, doubled up to _MAX_)
 * The shell calls vfs_drive_next when vfs_drive_due says so, and sends the step; its answer goes to vfs_drive_answer, the record that comes of that is
 * submitted and the outcome told (vfs_drive_submitted). A lost answer is a status < 0: somebody must tell in bounded time. Never given up while this
 * member is primary; a new primary begins with vfs_drive_init(its newest record) for each vfs_intent_iter. */
#define VFS_PAUSE_MIN_MS 10u
#define VFS_PAUSE_MAX_MS 500u
enum vfs_drive_state { VFS_COMMITTING, VFS_STEPPING, VFS_PAUSED };
enum vfs_drive_do {
	VFS_DRIVE_WAIT,
	VFS_DRIVE_SEND,	  /* the step, with number d->try */
	VFS_DRIVE_SUBMIT, /* rec */
	VFS_DRIVE_GONE	  /* the intent is no more: forget it; clients that wait ask again */
};
struct vfs_drive {
	uint8_t id[16];
	enum vfs_drive_state state;
	uint64_t seq; /* COMMITTING: of its newest record */
	uint64_t again_ms, pause_ms, try;
	int err; /* of the last vfs_intent_done, for a log; < 0 = it failed */
};
void vfs_drive_init(struct vfs_drive *d, const uint8_t id[16], uint64_t seq);
/* safe: newest committed record that may be acted upon. */
bool vfs_drive_due(const struct vfs_drive *d, uint64_t safe, uint64_t now_ms);
void vfs_drive_pause(struct vfs_drive *d, uint64_t now_ms);
enum vfs_drive_do vfs_drive_next(struct vfs *v, struct vfs_drive *d, uint64_t now_ms, uint32_t *ret_group,
				 struct vfs_op *ret_op, struct buf *store);
/* The answer to step number `try` (status < 0: refused or lost; answer and rec may be NULL then). *ret_finished: with rec the intent ends, and *ret_res
 * answers the client when rec is committed. */
enum vfs_drive_do vfs_drive_answer(struct vfs *v, struct vfs_drive *d, uint64_t try, int status,
				   const struct vfs_result *answer, uint64_t now_ms, int64_t now_ns,
				   struct record *rec, struct vfs_result *ret_res, bool *ret_finished);
void vfs_drive_submitted(struct vfs_drive *d, int err, uint64_t seq, uint64_t now_ms);
/* Unlinked files and folders still kept (O keys), likewise; *ret_since_ns: when the last name went. */
int vfs_orphan_iter(struct vfs *v, const struct vol_ino *after, struct vol_ino *ret, int64_t *ret_since_ns);
/* Whose the folder is: *ret_client. -ENOENT: nobody's. And all of the group's, for a new primary: the first behind `after` (NULL = first); -ENOENT at the end. */
int vfs_delegation(struct vfs *v, const struct vol_id *folder, uint64_t *ret_client);
int vfs_delegation_iter(struct vfs *v, const struct vol_id *after, struct vol_id *ret, uint64_t *ret_client);
/* The inode that a name leads to, whatever holds the name. -ENOENT. */
int vfs_name(struct vfs *v, const struct vol_id *folder, const char *name, size_t len, struct vol_ino *ret);
/* The inode's attributes without an operation. -ENOENT. */
int vfs_stat(struct vfs *v, const struct vol_ino *ino, struct vfs_attr *ret);

/* One file of VFS_SETATTRS: modes and times, and the time of the change. */
struct vfs_set {
	uint64_t num; /* of the file; != 0 */
	uint32_t set; /* of VFS_SETS_MASK */
	uint32_t mode;
	int64_t atime_ns, mtime_ns, ctime_ns;
};
int vfs_attr_decode(const void *data, size_t len, size_t *at,
		    struct vfs_attr *ret); /* of its answer's data: 0, -ENOENT at the end, -EBADMSG */
int vfs_set_encode(const struct vfs_set *s, struct buf *b); /* appends VFS_SET_BYTES; -ENOMEM */

/* ---- wire form of operations and results (docs/protocol/volume.md) ---- */
int vfs_op_encode(const struct vfs_op *op, struct buf *b);
int vfs_op_decode(const void *data, size_t len, struct payload *payload,
		  struct vfs_op *ret); /* pointers into data; -EBADMSG */
int vfs_result_encode(const struct vfs_result *res, struct buf *b);
int vfs_result_decode(const void *data, size_t len, struct payload *payload, struct vfs_result *ret);
/* READDIR data, one entry at a time: 0, -ENOENT at the end, -EBADMSG. has_attr false: the inode lives in another group. */
struct vfs_entry {
	const char *name;
	uint16_t name_len;
	struct vol_ino ino;
	uint32_t mode; /* type bits */
	bool has_attr;
	struct vfs_attr attr;
};
int vfs_entry_decode(const void *data, size_t len, size_t *at, struct vfs_entry *ret);
