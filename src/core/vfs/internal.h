/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of core/vfs share: one operation at work (struct tx), the records behind the keys (inode, entry, intent) and little
 * endian packing. Byte tables: docs/volume-files.md.
 *
 * Rule of every handler: it reads and checks first, then adds effects; so a failure leaves the record empty. A handler returns 0 or the -errno of
 * the answer; what the operation cannot answer (kv failed, a record's bound was passed) is put into tx.hard and ends vfs_exec. */
#pragma once

#include <endian.h>
#include <sys/stat.h>

#include "core/vfs/vfs.h"

struct tx {
	struct vfs *v;
	const struct vfs_op *op;
	int64_t now; /* ns, wall clock of the primary */
	struct record *rec;
	struct vfs_result *res;
	uint64_t seq; /* that rec will get */
	int hard;     /* negative: kv failed or a bound was passed */
};

/* ---- packing ---- */
struct packer {
	uint8_t *p;
	size_t n, cap;
	bool over;
};
struct unpacker {
	const uint8_t *p;
	size_t n, at;
	bool bad;
};
void pack(struct packer *w, uint64_t v, unsigned bytes);
void pack_raw(struct packer *w, const void *data, size_t len);
uint64_t unpack(struct unpacker *r, unsigned bytes);
const uint8_t *unpack_raw(struct unpacker *r, size_t len); /* NULL and bad when there is less */
void pack_ino(struct packer *w, const struct vol_ino *ino);
void unpack_ino(struct unpacker *r, struct vol_ino *ret);
#define VFS_ATTR_MAX	   128
#define VFS_RESULT_FIX_MAX (4 * VFS_ATTR_MAX + 128) /* of a result without data and crcs */
void pack_attr(struct packer *w, const struct vfs_attr *a);
void unpack_attr(struct unpacker *r, struct vfs_attr *ret);
void pack_result(struct packer *w, const struct vfs_result *res); /* without data, payload and crcs */

/* ---- keys ---- */
#define KEY_INO 25 /* kind, folder, number big endian */
size_t key_ino(uint8_t *k, char kind, const struct vol_ino *ino);
size_t key_entry(uint8_t *k, const struct vol_id *folder, const char *name, size_t len);
size_t key_xattr(uint8_t *k, const struct vol_ino *ino, const char *name, size_t len);
size_t key_intent(uint8_t *k, const uint8_t id[16]);
size_t key_answer(uint8_t *k, uint64_t client, uint32_t slot);
int kv_get(struct tx *t, const void *key, size_t len, const void **ret,
	   size_t *ret_len); /* -ENOENT, or hard */
/* First key behind `from` (or at it) that begins with prefix, as from does. -ENOENT, or hard. */
int kv_seek(struct tx *t, const void *prefix, size_t prefix_len, const void *from, size_t len, bool after,
	    const void **ret_key, size_t *ret_key_len, const void **ret, size_t *ret_len);
int put_key(struct tx *t, const void *key, size_t len, const void *value, size_t value_len);
int del_key(struct tx *t, const void *key, size_t len);
int hard(struct tx *t, int r); /* keeps r < 0 as tx.hard, returns it */

/* ---- inodes ---- */
#define RESERVATION_LEN 36
#define INODE_SPARSE	1u /* has, or may have, holes below its size */
#define INODE_TRIMMING	2u /* a truncate over several groups is on its way: nothing may grow */
#define INODE_RESERVED	4u /* somebody appends; the tail says who and where */
struct inode {
	struct vfs_attr a;
	uint64_t next; /* of a folder: number for the next file born in it */
	uint16_t xattrs;
	uint8_t flags;
	const uint8_t *
		tail; /* symlink's target, a file's reservation; points into kv, valid until the next change */
	uint32_t tail_len;
};
int inode_get(struct tx *t, const struct vol_ino *ino, struct inode *ret); /* -ENOENT */
int inode_put(struct tx *t, struct inode *in);				   /* sets version */
int inode_decode(const void *value, size_t len, const struct vol_ino *ino, struct inode *ret);
int folder_get(struct tx *t, const struct vol_ino *ino,
	       struct inode *ret); /* -ENOENT also when dead, -ENOTDIR */
/* One link less at `now`; at zero it goes under O. Puts it. */
int inode_unlink(struct tx *t, struct inode *in);
int orphan_put(struct tx *t, const struct vol_ino *ino);
void touch(struct tx *t, struct inode *in, bool data); /* ctime, and mtime when data */
void inherit(struct inode *in, const struct inode *folder);
/* Truncate generation of a slice whose inode lives elsewhere. */
int slice_get(struct tx *t, const struct vol_ino *ino, uint32_t *ret_gen);
int slice_put(struct tx *t, const struct vol_ino *ino, uint32_t gen);
bool is_local(const struct tx *t, const struct vol_ino *ino);
uint32_t stripe_groups(const struct vfs *v, const struct vol_ino *ino,
		       uint32_t *ret); /* distinct, the owner's first */

/* ---- entries ---- */
#define ENTRY_HIDDEN 1u /* reserved: not seen by anybody */
#define ENTRY_LOCKED 2u /* by `intent`: no change */
#define ENTRY_PREPARED \
	4u /* the intent is another group's: whether it is there is decided there, nobody may look */
struct entry {
	struct vol_ino ino;
	uint32_t type; /* S_IFMT bits */
	uint8_t flags;
	uint8_t intent[16];
};
int name_check(const char *name, size_t len); /* of op->name */
int entry_decode(const void *value, size_t len, struct entry *ret);
int entry_find(struct tx *t, const struct vol_id *folder, const char *name, size_t len,
	       struct entry *ret); /* -ENOENT */
int entry_put(struct tx *t, const struct vol_id *folder, const char *name, size_t len, const struct entry *e);
int entry_del(struct tx *t, const struct vol_id *folder, const char *name, size_t len);
/* As entry_find for an operation that will change the name: -EAGAIN when an intent holds it. */
int entry_claim(struct tx *t, const struct vol_id *folder, const char *name, size_t len, struct entry *ret);
/* 0, -ENOSPC; -EAGAIN: maybe, it is being measured. */
int no_room(const struct tx *t, uint64_t len);
int folder_empty(struct tx *t, const struct vol_id *folder); /* 0, -ENOTEMPTY, -EAGAIN: only reserved names */
void type_only(struct vfs_attr *a, const struct entry *e);

/* ---- delegations ---- */
#define KEY_DELEGATION 17 /* kind, folder */
struct delegation {
	uint64_t client, from, to; /* numbers of its new files, inclusive */
};
int delegation_get(struct tx *t, const struct vol_id *folder, struct delegation *ret); /* -ENOENT */
int delegation_drop(struct tx *t, const struct vol_id *folder); /* 0 also when there is none */
/* VFS_TIMED: t->now becomes the operation's time; vfs_exec takes it back. -ESTALE when the folder is not its client's. */
int delegation_time(struct tx *t, const struct vol_id *folder);
int delegation_check(struct tx *t,
		     const struct vol_id *folder);	  /* 0 when it is the operation's client's; -ESTALE */
int delegation_number(struct tx *t, struct vol_ino *ret); /* VFS_NUMBERED: the file to be made; -ESTALE */
uint64_t numbers_take(const struct tx *t, struct inode *folder, uint64_t n); /* the first of n */

/* ---- intents ---- */
struct intent {
	uint8_t id[16];
	uint8_t state;
	bool dst_here;		      /* RENAME: destination in this group too */
	int64_t when;		      /* ns, of the last change of state */
	int err;		      /* RENAME: what it ends with after the destination was let go */
	struct vfs_op op;	      /* pointers into kv, or the caller's */
	struct entry moved, replaced; /* replaced.type 0 = nothing */
	struct vfs_result res;	      /* the answer so far */
};
int intent_new(struct tx *t, struct intent *in);   /* gives it an id; -EAGAIN: too many */
int intent_begin(struct tx *t, struct intent *in); /* puts it; the operation's answer comes later */
int intent_put(struct tx *t, struct intent *in);
int intent_finish(struct tx *t, struct intent *in,
		  int err); /* deletes it; its answer goes into t->res and under D */
void entry_lock(struct entry *e, const struct intent *in);
/* rename.c: what a step's answer leads to. *ret_finished as vfs_intent_done. */
int rename_stepped(struct tx *t, struct intent *in, const struct vfs_result *step, bool *ret_finished);
int rename_step(struct vfs *v, const struct intent *in, struct vfs_op *ret);
int answer_pending(struct tx *t, const uint8_t id[16]);
int answer_save(struct tx *t, const struct vfs_opid *id, const struct vfs_result *res, bool only_newest);
bool answer_find(struct tx *t);				  /* true: res is filled */
int answer_undo(struct tx *t, const struct vfs_opid *id); /* no answer: a retry is worked out anew */

/* ---- operations ---- */
int do_lookup(struct tx *t);
int do_getattr(struct tx *t);
int do_setattr(struct tx *t);
int do_readlink(struct tx *t);
int do_statfs(struct tx *t);
int do_where(struct tx *t);
int do_create(struct tx *t);
int do_mkdir(struct tx *t);
int do_symlink(struct tx *t);
int do_link(struct tx *t);
int do_unlink(struct tx *t);
int do_rmdir(struct tx *t);
int do_reap(struct tx *t);
int do_rename(struct tx *t);
int do_readdir(struct tx *t);
int do_read(struct tx *t);
int take_all(struct tx *t, const struct inode *in); /* LOOKUP: its bytes, when they are asked for and fit */
int do_write(struct tx *t);
int write_born(struct tx *t, struct inode *in); /* CREATE's payload into the new file; its size, blocks */
int do_extend(struct tx *t);
/* append.c. holds_end: the operation's slot has the end of the file reserved since op->off, or before when it is part of it. */
bool holds_end(const struct tx *t, const struct inode *in);
void drop_reservation(struct inode *in);
int reserve_end(struct tx *t, struct inode *in, uint8_t store[RESERVATION_LEN]); /* puts the inode */
int do_trim(struct tx *t);
int do_fallocate(struct tx *t);
int do_seek(struct tx *t);
int do_getxattr(struct tx *t);
int do_listxattr(struct tx *t);
int do_setxattr(struct tx *t);
int do_removexattr(struct tx *t);
int drop_capability(struct tx *t,
		    struct inode *in); /* security.capability, when it has one; the caller puts the inode */
int do_lock(struct tx *t);
int do_getlock(struct tx *t);
int do_unlock_all(struct tx *t);
int do_sweep(struct tx *t);
int do_delegate(struct tx *t);
int do_undelegate(struct tx *t);
int do_setattrs(struct tx *t);
int do_step_make_folder(struct tx *t);
int do_step_kill_folder(struct tx *t);
int do_step_link_count(struct tx *t);
int do_step_prepare(struct tx *t);
int do_step_finish(struct tx *t);
int do_step_touch(struct tx *t);
int do_step_ask(struct tx *t);
/* Used by both the direct and the intent's way. */
int truncate_local(struct tx *t, struct inode *in, uint64_t size, bool *ret_foreign);
int reap_local(struct tx *t, const struct vol_ino *ino, unsigned *room);
