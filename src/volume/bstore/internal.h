/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of bstore share. docs/protocol/brick-store.md has the formats; bstore.h the contract.
 *
 * Where state is, from newest to oldest:
 *   now		memory: keys changed since the last freeze (mem.h), uncommitted records included, with undo lists for those
 *   frozen	memory: what a checkpoint is just writing to LMDB; committed records only; nobody changes it
 *   LMDB		the last checkpoint, read through one read transaction that is renewed after each checkpoint
 * A key's newest answer counts. Freezing undoes what is not committed, hands the map over and does it again in a new one. So a checkpoint
 * never waits for commits and the loop thread never waits for a checkpoint; a rollback undoes in memory, nothing is replayed.
 *
 * Threads: the loop thread owns everything. Two threads of the store work on jobs that were handed to them whole (sync.c: fdatasync of log
 * and data; checkpoint.c: sync, LMDB transaction); they share file objects by reference count and nothing else. */
#pragma once

#include <dirent.h>
#include <lmdb.h>
#include <pthread.h>

#include "volume/bstore.h"
#include "volume/bstore/mem.h"

#define BSTORE_FORMAT	    1
#define SEGMENT_BYTES	    (64u << 20)
#define SEGMENT_BYTES_MIN   (8u << 20)
#define SEGMENT_HEAD	    64u
#define FRAME_HEAD	    48u
#define FRAME_MAGIC	    0x314c564bu /* "KVL1" */
#define LOG_PAYLOAD_MAX	    RECORD_LOGGED_MAX
#define LOG_BUFFER_MAX	    (8u << 20) /* bstore_append writes by itself beyond */
#define SPARE_SEGMENTS_MAX  6
#define NOW_BYTES_MAX	    (64u << 20)	 /* memory of `now` that starts a checkpoint */
#define NOW_BYTES_STOP	    (512u << 20) /* appends are refused (-ENOSPC) when checkpoints do not succeed */
#define RING_RECORDS	    1024       /* a group: newest records kept for bstore_fetch; as REPL_WINDOW_MAX */
#define RING_BYTES	    (8u << 20) /* all groups */
#define FILES_OPEN_MAX	    4096
#define LATER_BYTES	    (256u << 10) /* of small writes that are in the log and not yet in their files */
#define LATER_MAX	    64
#define WRITEBACK_BYTES	    (4u << 20) /* of large writes to one file before the disk is told to begin */
#define WRITEBACK_FILES	    32
#define SYNC_FILES_MAX	    256 /* beyond: one syncfs */
#define INLINE_SYNC_US	    20	/* syncs that take less on average are made on the loop thread */
#define INLINE_FILES_MAX    4
#define INLINE_LONG_US	    1000  /* one that took longer: */
#define INLINE_PAUSE_MS	    60000 /* none for so long */
#define CHECKPOINT_MS	    5000
#define CHECKPOINT_BYTES    (256ull << 20)
#define CHECKPOINT_RETRY_MS 1000
#define LOG_ROOM	    (1ull << 30) /* free; with less the log is kept short */
#define MAP_BYTES	    (64ull << 30)
#define META_KEY	    "\xff\xffM" /* behind every group: where the log starts */

/* ---- undo: what an uncommitted record changed ---- */
struct undo_op {
	struct mem_entry *entry;
	uint8_t *value; /* owned: the state to go back to (during a freeze: to go forward to) */
	uint32_t value_len;
	uint8_t state;
};
struct undo {
	struct record *rec; /* reference */
	uint64_t lsn;
	uint64_t floor, tombs, live_first, live_seq, live_epoch; /* of the replica, before */
	struct undo_op *op;
	uint32_t n, cap;
};
/* Uncommitted records of a group, oldest first: a ring. Places that are not in use keep memory for their list, and are zero otherwise. */
struct undo_ring {
	struct undo *u;
	uint32_t at, n, cap; /* cap: a power of two */
};

struct bgroup {
	bool member;
	struct replica replica;
	uint64_t committed;
	bool sure;
	bool changed; /* since the last freeze */
	struct undo_ring undo;
	struct record *ring[RING_RECORDS];
	uint8_t removed[KEY_MAX + 8]; /* no member any more: the last key that was removed */
	size_t removed_len;
};

/* ---- data files ---- */
struct bfile { /* one slice's file. The loop thread has one reference as long as it is in the table */
	_Atomic int refs;
	int fd;
	uint32_t group;
	struct vol_ino ino;
	struct bfile *hash_next, *lru_prev, *lru_next;
	/* loop thread only: */
	bool dirty;	  /* written since it was last handed to a checkpoint */
	bool dirty_large; /* has writes that are not in the log, since it was last handed to a sync */
	uint32_t written; /* bytes of large writes since write-back was last begun */
	bool new_for_sync, new_for_checkpoint; /* made here: its folder entry may not be durable */
};
struct files {
	int data_fd; /* DIR/data */
	struct bfile **bucket;
	size_t n, mask, n_dirty, n_large, n_max;
	bool evicted_dirty, evicted_large; /* closed while dirty: the next checkpoint, sync does a syncfs */
	struct bfile lru;		   /* head */
	struct blob blob;
	struct bstore *b;
	struct bfile *begin
		[WRITEBACK_FILES]; /* references: whose write-back is to begin; while the thread works they are its */
	uint32_t n_begin;
	/* Small writes of this turn, oldest first; those before `later_at` are done. later_on: the owner calls bstore_settle_data. */
	bool later_on;
	uint8_t *later_data;
	struct later {
		uint32_t group, at, len; /* at: in later_data */
		struct vol_ino ino;
		uint64_t off;
	} later[LATER_MAX];
	uint32_t later_at, later_n, later_bytes;
	/* recovery */
	bool frozen; /* blob calls that change answer 0 and do nothing: recovery has put the data in place before */
};

/* ---- log ---- */
struct log {
	int dir_fd, fd;
	uint8_t uuid[16];
	uint32_t life; /* random, of this opening */
	bool broken;   /* a write failed: the next frame begins a new segment */
	uint64_t seg_no, seg_bytes;
	uint64_t at;		       /* offset in the segment of the end of what is written */
	struct buf buf;		       /* frames that are not written yet */
	uint64_t oldest_seg;	       /* first one that still exists */
	int spare[SPARE_SEGMENTS_MAX]; /* numbers of the files spare-N, for reuse */
	uint32_t n_spare;
	int unsynced_fd[64]; /* earlier segments whose end is not synced, owned */
	uint32_t n_unsynced;
	uint64_t synced;		  /* LSN: the log is durable up to here */
	uint64_t dir_changes, dir_synced; /* counts of segments made: those whose names are durable */
};
static inline uint64_t lsn_make(uint64_t seg, uint64_t off)
{
	return seg << 32 | off;
}

/* A frame found in the log. */
struct frame {
	uint8_t type, flags;
	uint64_t lsn, next_lsn, committed, synced;
	struct record *rec;	     /* RECORD: decoded, with payload when that is in the log */
	struct replica_patch *patch; /* malloc'ed */
	uint32_t n_patches;
	uint32_t group; /* CUT */
	uint64_t epoch, seq;
};
enum { FRAME_RECORD = 1, FRAME_CUT };
#define FRAME_PAYLOAD 1u /* flags: the payload is here */
#define FRAME_CHUNKS  2u /* the chunks' checksums are here */
#define FRAME_LIVE    4u /* applied while catching up */
int log_open(struct log *l, int dir_fd, const uint8_t uuid[16], uint64_t seg_bytes, uint64_t seg_no,
	     uint64_t prev_end, struct err *e);
void log_close(struct log *l);
int log_record(struct log *l, const struct record *rec, uint64_t committed, uint8_t flags,
	       const struct replica_patch *patch, uint32_t n, uint64_t *ret_lsn);
int log_cut_mark(struct log *l, uint32_t group, uint64_t epoch, uint64_t seq);
int log_flush(struct log *l);	       /* on failure nothing of the buffer is in the log */
uint64_t log_end(const struct log *l); /* LSN behind everything appended */
uint64_t log_bytes(const struct log *l, uint64_t since);
void log_forget(struct log *l, uint64_t lsn); /* segments wholly before lsn are not needed any more */
/* Reading. fn gets every whole frame from `from` on, in order. */
struct log_scan {
	uint64_t end;		      /* LSN behind the last whole frame */
	uint64_t synced;	      /* newest position that a frame says was durable */
	uint64_t last_seg, first_seg; /* numbers in use; 0 = none */
	bool torn;		      /* bytes that are no frame lie behind the end */
	char why[120];
};
int log_scan(int dir_fd, const uint8_t uuid[16], uint64_t from, int (*fn)(void *ctx, struct frame *f),
	     void *ctx, struct log_scan *ret, struct err *e);
/* One frame at p; its length, 0 at a zero tail, -EBADMSG with the reason in why. For log_scan and the fuzz target. */
int frame_parse(const uint8_t *p, size_t len, uint64_t lsn, uint32_t life, struct frame *ret,
		const char **why);
int segment_parse(const uint8_t *p, size_t len, const uint8_t uuid[16], uint64_t no, uint32_t *ret_life,
		  uint64_t *ret_prev_end);
void frame_done(struct frame *f);

/* ---- threads ---- */
struct sync_wait {
	void (*done)(void *ctx, int err);
	void *ctx;
	uint64_t lsn;	  /* must be durable */
	uint64_t data;	  /* and this sync must have ended; 0 = none */
	uint64_t outside; /* and changes outside records up to this count; 0 = not asked for */
	int err;
	struct sync_wait *next;
};
struct sync_job {
	int log_fd[65];
	uint32_t n_log;
	uint64_t lsn;
	struct sync_file {
		struct bfile *file;
		bool is_new;
	} * file;
	size_t n_files;
	bool whole;   /* syncfs instead of single files */
	uint64_t dir; /* the log's folder too, up to this change; 0 = not */
	int err;
	uint64_t us;
};
struct checkpoint_job {
	struct mem_map *garbage; /* when set, freeing it is the whole job */
	struct mem_map *map;
	uint64_t start_lsn,
		freeze_lsn; /* replay starts here; the state holds everything before that, except what was not committed */
	uint64_t outside, count;
	struct sync_job sync;
	int err;
	char err_text[200];
};
enum job_state { JOB_NONE, JOB_GIVEN, JOB_DONE };
struct worker { /* one thread, one job at a time */
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	enum job_state state;
	bool stop;
	void (*run)(struct bstore *b), (*reap)(struct bstore *b);
	struct bstore *b;
};
/* reap is called on the loop when a job is over (and can be taken); NULL: somebody looks. */
int worker_start(struct worker *w, struct bstore *b, void (*run)(struct bstore *b),
		 void (*reap)(struct bstore *b));
void worker_give(struct worker *w);
bool worker_busy(struct worker *w);
bool worker_take(struct worker *w, bool wait); /* true: a job was done and is the loop's again */
void worker_stop(struct worker *w);	       /* lets a job end first */

struct run_page;

struct bstripe {
	uint32_t group;
	struct vol_ino ino;
	uint64_t stripe; /* UINT64_MAX: all of them */
};

struct bstore {
	struct bstore_options o;
	char *dir;
	int dir_fd, lock_fd;
	uint8_t instance[16];		/* of the folder, random, from brick.json */
	uint64_t opened_before, opened; /* how often, as brick.json says; now */
	struct bgroup *group;

	struct kv kv;
	struct mem_map *now, *frozen;
	struct undo *
		recording; /* the undo list of the record that is being applied; NULL = changes outside records */
	uint64_t recording_seq;
	bool recording_large; /* its payload is not in the log */
	struct buf key_out;   /* memory behind what seek returns */

	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *read;
	MDB_cursor *cursor;

	struct files files;
	struct log log;
	uint64_t ring_bytes;
	struct ring_pos {
		uint32_t group;
		uint64_t seq;
	} * fifo; /* records in rings, oldest first */
	size_t fifo_at, fifo_n, fifo_cap;

	struct mailbox *mailbox;
	struct worker syncer, checkpointer, writeback;
	struct sync_job sync;
	struct checkpoint_job checkpoint;
	struct sync_wait *wait_first, **wait_last;
	uint64_t sync_started, sync_done; /* counts */
	bool sync_posted;
	uint32_t sync_avg_us;	 /* of the newest ones */
	uint64_t sync_inline_ms; /* none on the loop thread before: one there took long */
	uint64_t outside,
		outside_durable, /* count of bstore_mark_dirty; and what the last checkpoint holds */
		outside_wanted;	 /* newest that somebody waits for */
	uint64_t checkpoint_lsn; /* where the log is needed from */
	uint64_t checkpoint_count;
	uint64_t checkpoint_at_ms, checkpoint_failed_ms, statvfs_at_ms;

	struct strays {
		bool on;
		uint32_t group, folder; /* the next one */
		DIR *dir;		/* NULL: between two */
	} strays;
	/* Stripes in which recovery found blocks bad: as many as the log had large writes at most. */
	struct bstripe *torn;
	size_t n_torn;

	struct run_page *run;
	char *run_path;
	int lost; /* the buffer could not be written in the middle of a turn: the next bstore_flush says so */
	int failed; /* sticky: EIO from a sync or a write; only a restart (recovery) may trust the disk again */
	struct bstore_stats stats;
};

/* keys.c */
void keys_init(struct bstore *b);
int keys_undo(struct bstore *b, struct undo *u); /* state back to before it; frees what it kept */
void undo_done(struct undo *u);			 /* committed: forget */
void undo_ring_done(struct undo_ring *r);
void undo_swap_back(struct undo *u);
int undo_swap_forward(struct undo *u, struct mem_map *m);
struct undo *undo_push(struct undo_ring *r, struct record *rec);
static inline struct undo *undo_at(const struct undo_ring *r, uint32_t i)
{
	return &r->u[(r->at + i) & (r->cap - 1)];
}
/* env.c */
int env_open(struct bstore *b, struct err *e);
void env_close(struct bstore *b);
int env_refresh(struct bstore *b); /* read transaction on the newest checkpoint */
int env_room(struct bstore *b);	   /* grows the map when it is more than half full; no job may be running */
int mdb_errno(int r);
int env_errno(struct bstore *b, int r);
bool env_value_ok(const MDB_val *k, MDB_val *v);
int env_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *k, const void *data, size_t len);

/* walk.c: false when the file (PATH of data.mdb) is damaged; true also when it could not be read, or end_ms (clock_ms) came before its end. */
bool walk_ok(const char *path, uint64_t end_ms);

/* files.c */
int files_open(struct files *f, struct bstore *b, int dir_fd, struct err *e);
void files_close(struct files *f);
struct bfile *bfile_unref(struct bfile *f);
/* strays.c */
void strays_end(struct bstore *b);
void files_take_dirty(struct files *f, bool large, struct sync_job *j);
void files_give_back(struct files *f, struct sync_job *j, bool ok, bool large);
void writeback_thread(struct bstore *b);
void files_begin_writeback(struct files *f);
int files_sync_folder(int data_fd, const struct bfile *f);
enum files_open { FILES_THERE, FILES_MAKE, FILES_NEW }; /* NEW: as MAKE, and probably not there */
/* A file that was removed or replaced behind the store's back while it is open here: it is opened anew when it is needed. */
int files_look(struct files *f, uint32_t group, const struct vol_ino *ino);
int files_fd(struct files *f, uint32_t group, const struct vol_ino *ino, enum files_open how,
	     struct bfile **ret);
/* Writes that wait are put into their files. What fails waits on and is tried again by the next call. */
int files_settle(struct files *f);

/* sync.c, checkpoint.c */
int sync_run(struct bstore *b, struct sync_job *j); /* any thread */
int sync_take_log(struct bstore *b, struct sync_job *j);
void sync_give_back_log(struct bstore *b, struct sync_job *j);
void sync_start(struct bstore *b);
void sync_reap(struct bstore *b);
void sync_answer_all(struct bstore *b, int err);
void sync_thread(struct bstore *b);
void checkpoint_thread(struct bstore *b);
int checkpoint_start(struct bstore *b);
void checkpoint_reap(struct bstore *b);
struct meta { /* value of META_KEY */
	uint64_t start_lsn, freeze_lsn, count;
};
int meta_read(struct bstore *b, struct meta *ret, struct err *e); /* zeros when there was no checkpoint yet */

/* dir.c */
int dir_open(struct bstore *b, bool *ret_fresh, struct err *e);
struct run_state {
	bool same; /* the page is of this folder and since the machine's last start, and no sync failed */
	uint64_t flushed; /* LSN: everything up to here was in the log file */
	uint8_t sure[VOL_GROUPS_MAX];
};
void run_read(struct bstore *b,
	      struct run_state
		      *ret); /* of the page, or of a clean stop; the latter's mark is taken away, durably */
int run_open(struct bstore *b, struct err *e); /* a new page, from now on kept up to date */
void run_set(struct bstore *b);
void run_set_failed(struct bstore *b);
void run_close(struct bstore *b);
int clean_set(struct bstore *b);

/* recover.c */
int recover(struct bstore *b, struct err *e);

/* bstore.c */
void bstore_fail(struct bstore *b, int err, const char *what);
int apply_record(struct bstore *b, struct record *rec, bool live,
		 bool replay); /* with an undo list, its lsn 0 */
void ring_put(struct bstore *b, struct record *rec);
void ring_drop(struct bstore *b, uint32_t group, uint64_t after);
