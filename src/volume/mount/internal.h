/* SPDX-License-Identifier: Apache-2.0 */
/* The mount's inside: how what the kernel keeps stays true.
 *
 * The kernel keeps entries, attributes and pages only under a caching lease of this client (client.h); without one every answer carries a time
 * of zero, and pages that were read are dropped right behind the answer. What a push names is dropped from the kernel before the push is answered.
 *
 * An answer on its way while a push comes: before a question is sent its objects' counters are read (tick_*); `noted` raises them the moment a
 * push is read from the socket. Counters that changed: the answer is given to the kernel, but with a time of zero. The look at the counters
 * and the reply are made inside the gate (read side); a push passes the gate (write side) before it tells the kernel, so it either was seen by
 * the reply or comes behind it. The kernel sorts out the rest by its own attr_version, page locks and epoch.
 *
 * Dropping may have to wait for locks of the kernel that belong to operations of this very mount, whose answers may wait for another client that
 * waits for us. So nothing waits without a bound: dentries are dropped all at once by FUSE_NOTIFY_INC_EPOCH, which takes no lock, when the folder
 * is busy or its lock does not come in time; pages of a file this mount is writing are dropped as soon as the write is through.
 *
 * Pages that nobody has asked for (--read-around) are given to the kernel behind the reply to another read, under the rules of fill.c.
 *
 * Threads: `threads` FUSE threads, each with a slot of the client; the client's session and push threads; two droppers; one that waits for
 * locks (F_SETLKW). Locks: nodes.lock (table), then node.lock (one at a time, never with a call to a brick or the kernel inside). */
#pragma once

#define FUSE_USE_VERSION 312
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "volume/client.h"
#include "volume/mount/around.h"
#include "volume/mount/wqueue.h"

#define NODES_CHUNK   1024
#define NODES_CHUNKS  65536 /* 67 million nodes */
#define TICKS	      8192
#define KEEP_S	      3600.0 /* under a lease */
#define IO_MAX	      (1u << 20)
#define NAMES_MAX     65536   /* names of a folder known completely */
#define NAMES_ALL_MAX 4000000 /* of all of them */
#define CONTENDED_MS  5000
#define STEADY_MIN    2	  /* equal numbers of writes between fsyncs, before the next fsync is foreseen */
#define CHANGERS_MAX  64  /* threads that have changed an inode since its fsync; beyond, they count as one */
#define BUSY_WAIT_MS  20  /* for the kernel, when this mount has something in flight there */
#define DROP_WAIT_MS  800 /* for the kernel otherwise; a push must be answered within the session's time */
#define FILL_SHARE    8	  /* part of the memory that read-around may fill */
#define HEADS	      128 /* small files whose bytes came with their lookup (head.c) */
#define HEAD_MAX      (16u << 10)

struct names { /* hashes (keyed) of the names in a folder; open addressing, 0 = free, 1 = removed */
	uint64_t *slot,
		*number; /* number: of the file born in this folder that the name leads to; 0 = not known */
	uint32_t cap, n, used;
};

struct changer {
	uint32_t tid; /* 0 = not known, or several */
	bool dirty, lost;
	uint64_t forks, written; /* as the node's: of its first change; at its newest */
};

struct node {
	uint32_t index, next; /* of the table */
	uint32_t generation;
	struct vol_ino ino;
	uint64_t lookups; /* the kernel's; under nodes.lock */
	uint32_t pins;	  /* our own threads'; likewise */
	_Atomic uint32_t opens, writing, naming;
	_Atomic bool direct;	/* open since it was made, for writing only: past the page cache */
	_Atomic bool retired;	/* moved.c */
	_Atomic bool looked_up; /* and not read since; head.c */
	_Atomic uint64_t named_ms;
	pthread_mutex_t lock;
	/* under lock: */
	struct vfs_attr attr;
	bool attr_known;   /* attr is what the owner last said */
	bool leased;	   /* and may be kept */
	struct held *held; /* fcntl locks that were taken through here: lock.c */
	bool no_xattrs;	   /* under the lease: it has none */
	bool complete, fresh, build;
	uint8_t misses;
	struct names names;
	uint64_t place, placed_from,
		placed_ms;	 /* of a folder, moved.c: its parent, the one before, since when */
	uint64_t changes;	 /* own changes of the folder's names */
	bool dirty;		 /* written or changed through here since the newest fsync */
	uint64_t forks, written; /* of the first such write (vclient_forks_end); writes so far */
	struct changer *changer; /* who did, since then; and who is still to be told that it may be gone */
	uint8_t n_changers;
	uint64_t durable; /* version whose data is on stable storage, while not dirty; 0 = none */
	uint16_t since_sync, sync_every; /* writes since the newest fsync; between the two newest */
	uint8_t steady;			 /* times in a row that it was so many */
	uint64_t touched_us, touched; /* newest SETATTR through here: when it was sent, the version it made */
	uint64_t contended_until;     /* written by others while it was written here */
	_Atomic uint32_t doubt; /* drops of its pages that have not come to their end; more under lock only */
	uint64_t zeros_from; /* end.c: the kernel's pages may be zeros from here on; UINT64_MAX = nowhere */
	uint64_t
		size_told; /* the size that the kernel knows, or less; UINT64_MAX = it does not know the file */
	struct drop *end_drop;	  /* of all pages from there on, queued or running */
	uint32_t writers;	  /* open for writing here, or its size is being changed: no fill begins */
	struct put_aside *aside;  /* they wait for fills to end */
	_Atomic uint32_t filling; /* fills in flight (fill.c); more under lock only */
	struct behind_file *_Atomic behind; /* NULL until something was written behind */
	struct errand *_Atomic errand; /* delegate.c: what is still to be told of it; set under delegs.lock */
	_Atomic int late_err;	       /* an errand failed after it was answered; told once, then 0 */
	uint8_t name_score; /* of a folder: own changes of names, each soon behind the one before */
	uint64_t name_score_ms, deleg_not_before;
};

struct nodes {
	pthread_mutex_t lock;
	struct node *_Atomic chunk[NODES_CHUNKS];
	uint32_t used, free; /* free: list by next, 0 = none (index 0 is the root) */
	uint32_t *bucket, n_buckets, n;
};

struct mount_settings {
	char *volume, *dir, *store, *store_ca, *store_cert, *store_key, *domain, *log;
	int64_t timeout_ms, threads, readahead_kb, around_kb, behind_kb;
	bool foreground, leases, read_only, allow_other, awake, delegations;
	char *fuse_options; /* for the kernel: "ro,nosuid,..." */
};

struct drop {
	struct drop *next;
	struct drop *end_next;
	uint64_t zeros_since; /* as zeros_from, of pages that came since it was queued */
	uint64_t size;	      /* what the kernel is told then; 0 = nothing */
	int refs;
	bool done, to_end;
	uint64_t id; /* fuse id */
	bool entry;
	int64_t off, len; /* off < 0 (UINT64_MAX asked for): no page goes */
	char name[VFS_NAME_MAX + 1];
};

struct kernel_head { /* fuse_out_header */
	uint32_t len;
	int32_t error;
	uint64_t unique;
};

struct waiter;
struct delegs;
struct errand;
struct behind;
struct head;

struct mount {
	struct mount_settings s;
	struct vclient *c;
	struct fuse_session *se;
	struct nodes nodes;
	_Atomic uint64_t tick[TICKS], pushes;
	pthread_rwlock_t gate;
	_Atomic uint32_t growing; /* threads in end.c that wait for pages to go */
	void *nowhere;		  /* an address that cannot be read */
	_Atomic bool epoch_works, direct_mmap, killpriv, stopping;
	_Atomic uint32_t names_all;
	_Atomic uint32_t renames;   /* over two folders, in flight */
	_Atomic uint64_t moving_ms; /* the newest begin or end of one */
	uint64_t name_key[2];
	/* droppers */
	pthread_mutex_t drop_lock;
	pthread_cond_t drop_changed;
	struct drop *drop_first, **drop_last;
	pthread_t dropper[2];
	/* lock.c */
	pthread_mutex_t wait_lock;
	pthread_cond_t wait_changed;
	struct waiter *waiters;
	uint32_t n_waiters;
	bool unlocked;
	pthread_t locker;
	/* serve.c */
	struct awake awake;
	pthread_t waker;
	bool waking;
	_Atomic uint64_t requests; /* of the kernel, counted while awake is on */
	struct behind *behind;	   /* NULL = every write goes through */
	struct delegs *delegs;	   /* NULL = no folder is delegated */
	_Atomic uint32_t n_delegs;
	/* fill.c */
	struct around *around; /* NULL = nothing is read around; under fill_lock */
	pthread_mutex_t fill_lock;
	pthread_cond_t fill_ended;
	/* head.c */
	struct head *heads;
	pthread_mutex_t head_lock;
	_Atomic int head_points;
};

/* ---- node.c ---- */
int nodes_init(struct nodes *t);
void nodes_done(struct nodes *t);
struct node *node_of(struct mount *m, fuse_ino_t id); /* the kernel knows it */
fuse_ino_t node_id(const struct node *n);
struct node *node_lookup(struct mount *m,
			 const struct vol_ino *ino); /* finds or makes; lookups + 1. NULL = no memory */
struct node *node_find(struct mount *m, const struct vol_ino *ino); /* pinned, or NULL */
struct node *node_pin(struct mount *m, uint32_t index); /* pinned, or NULL when it is not in use */
void node_forget(struct mount *m, struct node *n, uint64_t lookups);
void node_unpin(struct mount *m, struct node *n);
bool node_retire(struct mount *m, struct node *n); /* out of the table; false: it was */
uint64_t ino_hash(const struct vol_ino *ino);
uint64_t ino_number(const struct vol_ino *ino); /* st_ino */

/* ---- names.c ---- */
uint64_t name_hash(struct mount *m, const char *name, size_t len);
int names_add(struct mount *m, struct names *s, uint64_t hash,
	      uint64_t number); /* also of one that is there, which gets the number; -ENOSPC: too many */
void names_del(struct mount *m, struct names *s, uint64_t hash);
bool names_has(const struct names *s, uint64_t hash);
uint64_t names_number(const struct names *s, uint64_t hash); /* 0 = not there, or not known */
void names_done(struct mount *m, struct names *s);
/* Node locked: an own operation changed this name. done: it is there (made) or not (removed); unsure: nobody knows. */
void folder_changed(struct mount *m, struct node *folder, const char *name, bool there, bool unsure);
void folder_made(struct mount *m, struct node *folder, const char *name, uint64_t number);
void folder_unsure(struct mount *m, struct node *folder); /* its names are not known any more; under lock */
bool folder_lacks(struct mount *m, struct node *folder, const char *name); /* surely not there */

/* ---- cache.c ---- */
struct tick {
	uint64_t a, b;
	const struct vol_ino *ia, *ib;
};
struct tick tick_of(struct mount *m, const struct vol_ino *a, const struct vol_ino *b); /* b may be NULL */
bool tick_same(struct mount *m, const struct tick *t);
void cache_noted(void *ctx, const struct proto_push *p);
void cache_invalidate(void *ctx, const struct proto_push *p);
void cache_reset(void *ctx, uint32_t group);
bool cache_is_open(void *ctx, const struct vol_ino *ino);
int cache_start(struct mount *m);
void cache_stop(struct mount *m);
void cache_inc_epoch(struct mount *m);
/* Behind a reply that must not be kept: pages of the range go. */
void cache_drop_behind(struct mount *m, struct node *n, uint64_t off, uint64_t len);
/* Pages of the range (len 0: to the end) go, and are gone when this returns, unless somebody holds them for wait_ms, or BUSY_WAIT_MS when this mount is
 * changing the file. Not for who writes through the page cache. */
void cache_drop(struct mount *m, struct node *n, uint64_t off, uint64_t len, uint64_t wait_ms);
/* Takes what an answer said of the node (newer versions only; NULL = nothing); keep: under a lease. *ret (may be NULL): what to tell the kernel.
 * True: it may keep it. Inside the gate, until the reply is given. */
bool cache_learn(struct mount *m, struct node *n, const struct vfs_attr *a, bool keep, struct vfs_attr *ret);
/* As cache_drop of all pages from off on (UINT64_MAX: none); then the kernel knows this size, when that is right (end_raise). wait_ms 0: done by this
 * thread, which may wait for reads and writes on their way, so some must be left for them. */
void cache_grow(struct mount *m, struct node *n, uint64_t off, uint64_t size, uint64_t wait_ms);
void cache_retired(struct mount *m, struct node *n);	    /* nothing is kept of it any more */
void cache_folder_changed(struct mount *m, struct node *n); /* as if another mount had changed it */
void cache_keep(struct node *n);			    /* under lock: under a lease from now on */
void cache_older(struct mount *m,
		 struct node *n);  /* attributes are not known, and answers on their way are not kept */
void cache_unsure(struct node *n); /* attributes are not known any more */
void gate_in(struct mount *m);
void gate_out(struct mount *m);

/* ---- end.c ---- */
void end_start(struct mount *m);
/* Inside the gate, until the reply is given: may this answer, so many of len bytes, fill pages? False: it is of a shorter file than is known by now. last: it is
 * not asked for again. */
bool end_fits(struct node *n, uint64_t off, uint32_t len, uint32_t got, bool last);
/* A drop of pages from off to the end, if it is one, begins; has ended. */
void end_drop_begins(struct node *n, struct drop *d);
void end_drop_ends(struct node *n, struct drop *d);
/* Waits for pages: the kernel knows this size when it returns, unless there are pages that end in zeros before it. */
void end_raise(struct mount *m, struct node *n, uint64_t size);
/* cache_learn of the answer to a change of the file made here; true: it may be kept. Pages that the kernel should not have any more are gone. */
bool end_changed(struct mount *m, struct node *n, const struct vfs_attr *a, bool keep);
/* Node locked: the kernel knows this size, or does not know the file. */
bool end_known(const struct node *n, const struct vfs_attr *a);
/* Inside the gate: may the kernel be told these attributes at once? Then it is. */
bool end_may_tell(struct node *n, const struct vfs_attr *a);
/* What to tell the kernel of the node, when it may be. True: it may keep it. Inside the gate, which is left and entered again when pages have to go first. */
bool end_tell(struct mount *m, struct node *n, struct vfs_attr *ret);

/* ---- delegate.c ---- */
int deleg_start(struct mount *m);
/* All is sent and given back, unless that takes longer; no more is asked for. */
void deleg_flush(struct mount *m, uint64_t ms);
void deleg_stop(struct mount *m); /* at most as long as operations may take */
void deleg_done(struct mount *m); /* behind the last push */
/* The errands of the folder, of one file, of what the operation is about, have been answered by a brick. */
void deleg_wait(struct mount *m, const struct vol_id *folder);
void deleg_wait_node(struct mount *m, struct node *n);
void deleg_wait_op(struct mount *m, const struct vfs_op *op);
int deleg_error(struct node *n); /* -errno of an errand of the file, or of the folder's names; once */
/* True: answered here. op: as it would be asked of a brick; times of SETATTR become those that were answered. */
bool deleg_create(fuse_req_t req, struct mount *m, struct node *folder, const char *name,
		  const struct vfs_op *op, struct fuse_file_info *fi);
bool deleg_unlink(fuse_req_t req, struct mount *m, struct node *folder, const char *name,
		  const struct vfs_op *op);
bool deleg_setattr(fuse_req_t req, struct mount *m, struct node *n, struct vfs_op *op);
/* A chmod or chown of a file whose times are still to be sent may go with them: true, and *ret is the outcome. */
bool deleg_with_times(struct mount *m, struct node *n, const struct vfs_op *op, struct vfs_result *res,
		      bool *ret_leased, int *ret);
/* A write to a file that is not made yet may make it with its bytes: true, and *ret is the outcome. */
bool deleg_write(struct mount *m, struct node *n, struct vfs_op *op, struct vfs_result *res, bool *ret_leased,
		 int *ret);
void deleg_made(struct mount *m, struct node *n); /* the file is on the bricks, or deleg_error says why not */
void deleg_fresh(struct node *folder);		  /* under lock: made here, so it will be filled */
void deleg_named(struct mount *m,
		 struct node *folder); /* a name of it was changed by a question: worth asking for? */
void deleg_careful(struct mount *m, const struct node *n);	 /* fsync or lock of a file or folder */
void deleg_end_empty(struct mount *m);				 /* before a folder is removed */
void deleg_recall(struct mount *m, const struct vol_id *folder); /* does not wait */
void deleg_reset(struct mount *m, uint32_t group);

/* ---- serve.c ---- */
/* vclient_call on this thread's slot, behind the errands of the folders that op is about. */
int ask_brick(struct mount *m, struct vfs_op *op, struct vfs_result *res, bool *ret_leased);
struct vclient_slot *slot_of(struct mount *m); /* of this thread */
struct mount *mount_of(fuse_req_t req);
/* Threads of programs that were told of something: a table by thread id; of two that meet the later one is known. */
struct told {
	_Atomic uint64_t at[256]; /* thread id << 32 | time in ms */
};
/* Was this request's thread told within the last ms? It is now; but who was and is not to be `still` counts as never told. */
bool told_again(struct told *t, fuse_req_t req, uint64_t ms, bool still);
void op_init(struct vfs_op *op, enum vfs_op_type type, fuse_req_t req, const struct node *n);
void op_name(struct vfs_op *op, const char *name);
void to_stat(struct mount *m, const struct vfs_attr *a, struct stat *st);
int serve(struct mount *m, void (*ready)(void *ctx), void *ctx); /* until unmounted */
void waker_start(struct mount *m); /* unless --no-awake; an error is logged, and it is as with that */
void waker_stop(struct mount *m);  /* `stopping` is set */

/* ---- name.c ---- */
void ll_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ll_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void ll_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *f);
void ll_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ll_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ll_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ll_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void ll_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void ll_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void ll_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);

/* ---- rename.c ---- */
void ll_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
	       unsigned int flags);

/* ---- moved.c ---- */
/* node_lookup for an answer with an entry of the parent. */
struct node *moved_lookup(struct mount *m, fuse_req_t req, struct node *parent, const struct vol_ino *ino);
void moved_listed(struct node *n, const struct node *parent); /* the kernel puts it there when it can */
void moved_here(struct mount *m, const struct vol_ino *ino,
		const struct node *parent);		  /* by a rename of this mount */
void moved_changed(struct mount *m, struct node *folder); /* through here: before the reply */
void naming_begin(struct node *folder);			  /* a change of its names is on its way */
void naming_end(struct node *folder);

/* ---- dir.c ---- */
void ll_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ll_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ll_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
uint64_t changes_of(struct node *n);			/* own changes of the folder's names so far */
void folder_list(struct mount *m, struct node *folder); /* tries to know all its names */

/* ---- meta.c ---- */
int meta_refresh(struct mount *m, fuse_req_t req, struct node *n, struct vfs_attr *ret, bool *ret_keep);
int meta_gone(fuse_req_t req); /* ESTALE or ENOENT */
void ll_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void ll_readlink(fuse_req_t req, fuse_ino_t ino);
void ll_statfs(fuse_req_t req, fuse_ino_t ino);
void ll_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ll_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void ll_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void ll_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ---- home.c ---- */
/* Moves the folder to its home domain (attr.home) when it is empty and lies elsewhere. -ENOTEMPTY: it stays; other errors: it stays, too. */
int home_move(struct mount *m, const struct vfs_attr *a);

/* ---- behind.c ---- */
int behind_start(struct mount *m);
/* What is waiting is sent, at most as long as operations may take. False, and said: bytes are lost. */
bool behind_flush(struct mount *m);
void behind_stop(struct mount *m);
void behind_file_free(struct node *n);
/* 0: the bytes are taken. -ENOTSUP: not for this write; it goes through, behind what was taken before. Else what write(2) has to say. */
int behind_write(struct mount *m, struct node *n, const struct vfs_op *op, const struct fuse_file_info *fi,
		 const char *data);
bool behind_busy(struct node *n);
/* Everything taken of the file before now has landed, or failed (behind_error tells). */
void behind_drain(struct mount *m, struct node *n);
void behind_drain_all(struct mount *m);
void behind_opened(struct mount *m, struct node *n, struct fuse_file_info *fi);
void behind_closed(struct fuse_file_info *fi);
int behind_error(struct mount *m, struct node *n,
		 const struct fuse_file_info *fi); /* for fsync and close; once */

/* ---- fill.c ---- */
struct put_aside { /* a request that waits for fills to end */
	struct put_aside *next;
	void (*go_on)(struct put_aside *p);
	fuse_req_t req;
	fuse_ino_t ino;
	struct fuse_file_info fi; /* of OPEN */
	struct stat st;		  /* of SETATTR */
	int to_set;
};
int fill_start(struct mount *m);
void fill_stop(struct mount *m);
bool fill_may(const struct mount *m, size_t len);	  /* blocks are read around reads of so many bytes */
void fill_took(struct mount *m, bool whole, uint64_t us); /* a question of a block, or such a read */
/* Behind the reply to a read whose pages were kept, outside the gate; node pinned. room: the thread's, of a block at least. */
void fill_around(struct mount *m, struct node *n, uint64_t off, uint32_t len, uint8_t *room);
void fill_wait(struct mount *m, struct node *n); /* until none of the node is in flight */
/* No fill of the node begins until fill_unbar. True: one is in flight; a copy of p is gone on with when it has ended. p NULL: waits for it instead, for who
 * is sure that nobody else has pages of it locked. */
bool fill_bar(struct mount *m, struct node *n, const struct put_aside *p);
void fill_unbar(struct node *n);

/* ---- head.c ---- */
int head_start(struct mount *m);
void head_stop(struct mount *m);
uint8_t *
head_room(struct mount *m); /* HEAD_MAX bytes of this thread, when it is worth asking for them; else NULL */
void head_looked_up(struct mount *m, struct node *n, const struct vfs_attr *a); /* before the reply */
void head_read(struct mount *m, struct node *n);
/* Inside the gate, attributes of this version were just learned under a lease: these are all its bytes. */
void head_put(struct mount *m, struct node *n, uint64_t version, const uint8_t *data, uint32_t len);
/* Inside the gate, until the reply is given, which may be kept: the bytes of the file, once; -1 = ask a brick. */
int64_t head_take(struct mount *m, struct node *n, uint64_t off, uint8_t *to, uint32_t len);
void head_forget_all(struct mount *m);

/* ---- file.c ---- */
static inline bool opened_to_write(const struct fuse_file_info *fi)
{
	return (fi->flags & O_ACCMODE) != O_RDONLY;
}
void file_opened(struct mount *m, struct node *n, struct fuse_file_info *fi);
void never_opened(struct node *n, struct fuse_file_info *fi); /* the kernel did not take the reply */
void file_wrote(
	struct node *n, uint64_t forks,
	uint32_t tid); /* something is written, by that thread (0 = not known); forks: vclient_forks_end */
/* Node locked, an fsync asked for by thread tid has ended that covers what was written up to `written`. True: to be answered -EIO, once: all copies lost power
 * after it was changed, and nobody was told yet, or not this thread, which had changed it. */
bool node_synced(struct node *n, uint64_t written, uint64_t forks, uint32_t tid);
void node_changers_done(struct node *n);
/* vclient_call of an operation that changes inode n, and n2 (NULL: none) with it: file_wrote of both, so that a later fsync of one of them tells when
 * a power loss of all copies may have taken the change. */
int change_call(struct mount *m, struct node *n, struct node *n2, struct vfs_op *op, struct vfs_result *res,
		bool *ret_leased);
/* The same without waiting for errands. */
int change_now(struct mount *m, struct node *n, struct node *n2, struct vfs_op *op, struct vfs_result *res,
	       bool *ret_leased);
/* The same of several, each changed for a thread. */
int change_many(struct mount *m, struct node *const *n, const uint32_t *pid, uint32_t count,
		struct vfs_op *op, struct vfs_result *res, bool *ret_leased);
/* fsync of an inode, whose buffered writes are out, by thread tid: 0, -errno, or -EIO as node_synced says. */
int node_sync(struct mount *m, struct node *n, uint32_t tid);
/* READ of the thread's own: bytes that came, or -errno. */
int64_t file_ask(struct mount *m, struct node *n, uint64_t off, uint8_t *to, uint32_t len, bool *ret_leased);
void ll_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ll_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	      struct fuse_file_info *fi);
void ll_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ll_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void ll_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);

/* ---- lock.c ---- */
int lock_start(struct mount *m);
void lock_stop(struct mount *m);
void lock_wake(struct mount *m);
void ll_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void ll_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep);
void ll_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);
/* Locks of an owner end: all of its flock lock or, as close(2) of any descriptor of the file does it, of its fcntl locks. */
int lock_release_flock(struct mount *m, struct node *n, uint64_t owner);
int lock_flushed(struct mount *m, struct node *n, uint64_t owner);
/* Nobody has this open file any more: its OFD locks end. */
void lock_released(struct mount *m, struct node *n, uint64_t fh);
void lock_forget(struct node *n); /* node locked, or nobody else knows it */

/* ---- options.c ---- */
int options_parse(int argc, char **argv, struct mount_settings *s, struct err *e); /* 1: --help was printed */
void options_done(struct mount_settings *s);
