/* SPDX-License-Identifier: Apache-2.0 */
/* bstore: what one brick keeps on its disk for one volume: an LMDB environment (keys), plain sparse files (data) and a log.
 *   DIR/brick.json		format, volume uuid, node name
 *   DIR/meta/			LMDB; only checkpoints are committed (one long write transaction in between)
 *   DIR/log/NNNNNNNN.log	records since the checkpoint; payloads up to 64 KiB are in it, larger ones are in the data files only
 *   DIR/data/GGG/XX/FOLDER.NUM	the slice of an inode in a group, stripes at their natural offsets
 *   RUN/…			a file that a power loss takes away (tmpfs): tells a restart after a crash from one after a power loss
 *
 * Owner: the brick's loop thread calls everything; fsync runs on a thread of the store and its callback comes by mailbox.
 * Recovery: last checkpoint + replay of the log's whole records (replica_apply with replay); a torn end is cut. A rollback drops the open
 * transaction and replays up to the position given. A checkpoint holds committed records only, and is made every checkpoint_ms or
 * checkpoint_bytes of log: data files and log are synced, then the transaction is committed, then old log files go. */
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
};

/* Opens or creates, recovers. -EEXIST another volume's, -EBADMSG with what to do, -ENOSPC. */
int bstore_open(const struct bstore_options *o, struct bstore **ret, struct err *e);
/* Clean: checkpoint and sync. */
struct bstore *bstore_close(struct bstore *b);

struct replica *bstore_replica(struct bstore *b, uint32_t group); /* NULL: not a member */
uint64_t bstore_committed(struct bstore *b, uint32_t group);
bool bstore_sure(
	struct bstore *
		b); /* no acknowledged record can be missing: crash or clean stop, not power loss; false also after corruption */

/* Log + apply. Buffered in memory until bstore_flush; nothing may be acknowledged before that returned 0. */
int bstore_append(struct bstore *b, struct record *rec, bool live);
int bstore_flush(struct bstore *b); /* one write(2) for all records of a loop turn */
void bstore_set_committed(struct bstore *b, uint32_t group, uint64_t seq);
int bstore_rollback(struct bstore *b, uint32_t group, uint64_t epoch, uint64_t seq);
/* A record still in memory (the newest few thousand, bounded in bytes), to send it again. */
struct record *bstore_fetch(struct bstore *b, uint32_t group, uint64_t seq);
/* Everything appended so far becomes durable; calls that wait share one sync. done runs on the loop thread. */
void bstore_sync(struct bstore *b, void (*done)(void *ctx, int err), void *ctx);
/* Changes outside records (delta, pulls, repairs): they are durable with the next checkpoint; bstore_mark_dirty makes sure there is one. */
void bstore_mark_dirty(struct bstore *b);
int bstore_checkpoint(struct bstore *b, struct err *e); /* now; also by bstore_tick */
void bstore_tick(struct bstore *b);

struct bstore_stats {
	uint64_t bytes_total, bytes_free, files_free; /* statvfs */
	uint64_t log_bytes, checkpoints, syncs, records, replayed, torn;
	uint64_t sync_us_last, sync_us_max;
	int error; /* first EIO/ENOSPC seen since the last successful checkpoint; 0 = fine */
};
void bstore_get_stats(struct bstore *b, struct bstore_stats *ret);
/* Zero-copy reading: descriptor of a slice's file (borrowed, valid until the next call); -ENOENT = all holes. */
int bstore_fd(struct bstore *b, uint32_t group, const struct vol_ino *ino);
