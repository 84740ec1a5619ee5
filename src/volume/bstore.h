/* SPDX-License-Identifier: Apache-2.0 */
/* bstore: what one brick keeps on its disk for one volume: an LMDB environment (keys), plain sparse files (data) and a log.
 *   DIR/brick.json		format, volume uuid, node name
 *   DIR/meta/			LMDB: the last checkpoint
 *   DIR/log/NNNNNNNN.log	records since the checkpoint; payloads up to 64 KiB are in it, larger ones are in the data files only
 *   DIR/data/GGG/XX/FOLDER.NUM	the slice of an inode in a group, stripes at their natural offsets
 *   RUN/…			a file that a power loss takes away (tmpfs): tells a restart after a crash from one after a power loss
 *
 * Owner: the brick's loop thread calls everything; syncs and checkpoints run on threads of the store, callbacks come by mailbox.
 * Keys that changed since the checkpoint are in memory, over LMDB; uncommitted records have undo lists. So a checkpoint (every checkpoint_ms or
 * checkpoint_bytes of log) takes only what is committed and stops nobody, and a rollback is a walk back in memory.
 * Recovery: last checkpoint + the log's whole records; a torn end is cut. Formats and what survives what: docs/protocol/brick-store.md. */
#pragma once

#include "core/repl/replica.h"
#include "io/io.h"

struct bstore;

struct bstore_options {
	const char *dir, *run_dir; /* run_dir: on a tmpfs; NULL = sure is never true after a restart */
	struct vol_id uuid;	   /* of the volume; a directory of another one is refused (-EEXIST) */
	const char *node;
	uint32_t n_groups, stripe_size;
	bool *member;		   /* n_groups: groups this brick is a member of */
	uint64_t map_bytes;	   /* LMDB map size; 0 = 64 GiB (address space only) */
	uint32_t checkpoint_ms;	   /* 0 = 5,000 */
	uint64_t checkpoint_bytes; /* 0 = 256 MiB */
	uv_loop_t *loop;
	bool turns; /* the owner calls bstore_turn and bstore_settle_data; else a posted call begins syncs, one loop turn later, and data is put into its
		       file at once */
};

/* Opens or creates, recovers. -EEXIST another volume's or node's, -EBUSY another process has it, -EPROTONOSUPPORT newer format, -EBADMSG damaged (the text
 * says what to do), -ENOSPC. */
int bstore_open(const struct bstore_options *o, struct bstore **ret, struct err *e);
/* Clean: checkpoint and sync. The loop must run once more for its handles. Waiting syncs are answered -ECANCELED. */
struct bstore *bstore_close(struct bstore *b);

/* Which folder this is: a random number made with it, how often it had been opened before (in this format), and with this time. An old copy of it says less. */
void bstore_identity(struct bstore *b, struct vol_id *ret_instance, uint64_t *ret_before, uint64_t *ret_now);
struct replica *bstore_replica(struct bstore *b, uint32_t group); /* NULL: not a member */
/* Groups that come and go while the store is open. join: as recovery finds it, which is empty for one that was never here, or that was removed and settled
 * since. leave: not a member from now on; borrowed pointers are void. remove: up to `keys` of what it left, with their files: 1 = call again, 0 = nothing is
 * left (then bstore_settle, then bstore_removed), or -errno. left_over: of a group that is no member here something is left. */
int bstore_join(struct bstore *b, uint32_t group);
int bstore_leave(struct bstore *b, uint32_t group);
int bstore_remove(struct bstore *b, uint32_t group, uint32_t keys);
void bstore_removed(struct bstore *b, uint32_t group);
bool bstore_left_over(struct bstore *b, uint32_t group);
/* Removes data files of a member's group that no key speaks of; not while it catches up. Looks at so many: 1 = call again, 0 = all were seen, or -errno. */
int bstore_strays(struct bstore *b, uint32_t group, uint32_t entries, uint64_t *ret_removed);
uint64_t bstore_committed(struct bstore *b, uint32_t group);
/* No acknowledged record of the group can be missing: the last bstore_set_sure said true, and since then there was no power loss, damage or failed
 * sync; a crash or a clean stop (even with a power loss behind it) is none. A new folder: false. */
bool bstore_group_sure(struct bstore *b, uint32_t group);
/* Did recovery find blocks bad in this stripe: of a write that was not durable, or of one whose record did not stay? Until the store is opened anew. */
bool bstore_torn(struct bstore *b, uint32_t group, const struct vol_ino *ino, uint64_t off);
void bstore_set_sure(struct bstore *b, uint32_t group, bool sure);

/* Apply + log. Buffered in memory until bstore_flush; nothing may be acknowledged before that returned 0. When one of the two fails, what was not
 * written is taken back (look at bstore_replica()->seq): -ENOSPC may pass, after -EIO only a restart helps. */
int bstore_append(struct bstore *b, struct record *rec, bool live);
int bstore_flush(struct bstore *b); /* one write(2) for all records of a loop turn */
/* The same in the middle of a turn: what was appended is in the log file when it returns 0. Else it was taken back, and the next bstore_flush fails, too. */
int bstore_write_log(struct bstore *b);
void bstore_set_committed(struct bstore *b, uint32_t group, uint64_t seq);
/* State and log go back to seq, data of the cut records is distrusted (bad blocks). Afterwards bstore_replica()->epoch, seq are where it is.
 * -ERANGE: seq is older than what is known as committed, or its epoch is another: the position is 0 now (full delta). */
int bstore_rollback(struct bstore *b, uint32_t group, uint64_t epoch, uint64_t seq);
/* A record still in memory (the newest 1,024 a group, 64 MiB in all; after a restart those that were not known as committed), to send it again.
 * Borrowed: take a reference. */
struct record *bstore_fetch(struct bstore *b, uint32_t group, uint64_t seq);
/* Everything appended so far becomes durable; calls that wait share one sync. done runs on the loop thread, never from inside the call. Flushes. */
void bstore_sync(struct bstore *b, void (*done)(void *ctx, int err), void *ctx);
/* With `turns`: once a loop turn, behind its last bstore_sync. Begins the sync that is waited for. When syncs have been quicker lately than the way to a
 * thread and back, it is made right here and done is called. True: again, done has led to another bstore_sync. */
bool bstore_turn(struct bstore *b);
/* With `turns`: when the turn's answers have been sent. Data of small writes, which the log has, is put into its files. 0 or -errno: as a failed append,
 * for the whole store. */
int bstore_settle_data(struct bstore *b);
/* Changes outside records (delta, pulls, repairs) are in no log: they are durable with the next checkpoint, which bstore_mark_dirty makes sure of.
 * bstore_settle: all of them so far, and all records, durable; before a member says that it has caught up. */
void bstore_mark_dirty(struct bstore *b);
void bstore_settle(struct bstore *b, void (*done)(void *ctx, int err), void *ctx);
int bstore_checkpoint(struct bstore *b, struct err *e); /* now, waits; else by bstore_tick */
void bstore_tick(struct bstore *b);			/* every 10..100 ms */

struct bstore_stats {
	uint64_t bytes_total, bytes_free, files_total, files_free; /* statvfs; files_total 0: not limited */
	uint64_t log_bytes, checkpoints, syncs, records;
	uint64_t replayed, dropped, torn,
		bad_blocks; /* of recovery: records applied, cut or without their predecessors; 1 = torn end; blocks marked bad (also by rollbacks) */
	uint64_t sync_us_last, sync_us_max;
	int error; /* EIO/ENOSPC seen since the last successful checkpoint; 0 = fine */
};
void bstore_get_stats(struct bstore *b, struct bstore_stats *ret); /* statvfs: at most 500 ms old */
void bstore_measure(struct bstore *b);				   /* statvfs now */
/* Zero-copy reading: descriptor of a slice's file (borrowed, valid until the next call); -ENOENT = all holes. */
int bstore_fd(struct bstore *b, uint32_t group, const struct vol_ino *ino);
/* Before a scrub reads the slice: what is read is the file of that name, not one that was removed while it was open. */
int bstore_look(struct bstore *b, uint32_t group, const struct vol_ino *ino);
