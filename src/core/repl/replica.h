/* SPDX-License-Identifier: Apache-2.0 */
/* replica: the state of one member: ordered keys and file data, changed by applying records; and the index of what changed since
 * when, from which a member that was away is brought up to date. Pure: keys and data are behind two tables of functions (LMDB and
 * plain files in a brick, memory in the simulator).
 *
 * Keys (first byte = kind, numbers big endian so that they sort; values begin with the 8-byte sequence number of their last change, put
 * there by replica_apply: what EFFECT_PUT carries and kv readers of core/vfs see is the rest):
 *   I folder16 num8		inode (core/vfs)		E folder16 name		entry (core/vfs)
 *   X folder16 num8 name	extended attribute		T id16			intent (core/vfs)
 *   L folder16 num8 ...	lock (core/vfs)			D client8 slot4		newest answer to a client's slot (exactly once)
 *   O folder16 num8		inode without a name, still open	N folder16		next file number
 *   S folder16 num8 stripe4	stripe: gen4, count2, then a 4-byte checksum a block (0 hole, 1 bad); written by replica_apply only
 *   G			group's own: epoch8 seq8 committed8 floor8 (not indexed)
 *   C seq8 i2		index: the key that changed in record seq (its newest change only; older index entries are removed)
 *   Z key			tombstone: seq8 of the deletion; kept until every member is past it, or more than REPLICA_TOMBS_MAX
 * Every key is stored behind the group's number (group2), so one database holds all groups of a brick. */
#pragma once

#include "core/repl/record.h"

#define REPLICA_TOMBS_MAX \
	1000000u /* a group; the oldest go and `floor` rises: who is older than floor compares everything */

/* One ordered map. Pointers that get and next return are valid until the next change of the map. */
struct kv {
	int (*get)(struct kv *kv, const void *key, size_t len, const void **ret,
		   size_t *ret_len); /* -ENOENT */
	int (*put)(struct kv *kv, const void *key, size_t len, const void *value, size_t value_len);
	int (*del)(struct kv *kv, const void *key, size_t len); /* 0 also when it is not there */
	/* First key >= from (> from when after). -ENOENT at the end. */
	int (*seek)(struct kv *kv, const void *from, size_t len, bool after, const void **ret_key,
		    size_t *ret_key_len, const void **ret, size_t *ret_len);
};

/* File data of the inodes that have stripes here; one slice an inode and group. Holes and what is behind the end read as zeros. */
struct blob {
	int (*write)(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off,
		     const void *data, uint32_t len);
	int (*read)(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off, void *data,
		    uint32_t len);
	int (*trim)(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off);
	int (*punch)(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off, uint64_t len);
	int (*drop)(struct blob *b, uint32_t group, const struct vol_ino *ino);
};

struct replica {
	uint32_t group, stripe_size;
	struct kv *kv;
	struct blob *blob;
	uint64_t epoch, seq; /* newest record applied */
	uint64_t floor;	     /* tombstones up to here may be gone */
	uint64_t tombs;
	/* Blocks that live writes changed while a pull of the same stripe was on its way (replica_pull_*); bounded by the pulls in flight. */
	struct replica_pull *pulls;
};

/* Reads G and counts tombstones. */
int replica_init(struct replica *r, uint32_t group, uint32_t stripe_size, struct kv *kv, struct blob *blob);
void replica_done(struct replica *r);
int replica_save(struct replica *r,
		 uint64_t committed); /* writes G; a shell calls it before it makes a checkpoint */

/* A view of the group's keys for core/vfs: get and seek hide the group number, the sequence number and Z, C, G, S. */
void replica_view(struct replica *r, struct kv *ret_view);

/* Applies record r->seq + 1. replay: the data of WRITE effects without payload is in place already (log recovery); checksums of its
 * blocks are computed from what is there, and blocks whose payload CRC does not hold are marked bad. Errors: -EIO, -ENOSPC from kv
 * or blob (the member must leave the in-sync set and roll back), -EBADMSG when seq does not follow. */
int replica_apply(struct replica *r, const struct record *rec, bool replay);
/* A member that is catching up: a put or delete is skipped where the key's own change is newer; seq may run ahead of the delta. */
int replica_apply_live(struct replica *r, const struct record *rec);

/* ---- reading with checksums ---- */
/* Verified. Blocks that are holes are zeros. -EIO + *ret_bad (first bad block's offset) when a checksum does not hold; len <=
 * RECORD_PAYLOAD_MAX, off need not be aligned. */
int replica_read(struct replica *r, const struct vol_ino *ino, uint64_t off, void *data, uint32_t len,
		 uint64_t *ret_bad);
/* The checksums of the blocks that [off, off + len) touches, one each (0 = hole): a brick that answers a client sends them along with the bytes
 * and the client verifies, end to end; when one does not hold it reads from another member and reports the block. */
int replica_crcs(struct replica *r, const struct vol_ino *ino, uint64_t off, uint32_t len, uint32_t *out);
/* Next offset >= off with data (or hole); -ENXIO when none. */
int replica_seek_data(struct replica *r, const struct vol_ino *ino, uint64_t off, bool hole, uint64_t *ret);

/* ---- delta: bringing a member up to date ---- */
/* One key's newest state, in order of change. A source (any in-sync member) walks changes since `since`; below its floor: since = 0
 * walks every key, and the receiver drops keys it has that were not named (replica_delta_end). */
struct delta_item {
	uint64_t seq; /* of the change; 0 in a full walk */
	const void *key, *value;
	size_t key_len, value_len;
	bool deleted;
};
struct delta_cursor {
	bool full;
	uint64_t seq; /* next index position */
	uint16_t i;
	uint8_t key[KEY_MAX + 16]; /* full walk: last key */
	size_t key_len;
};
int replica_delta_start(struct replica *source, uint64_t since, struct delta_cursor *ret);
/* -ENOENT at the end. */
int replica_delta_next(struct replica *source, struct delta_cursor *c, struct delta_item *ret);
/* Receiver: keeps what is newer. For an S key that differs the blocks to fetch are reported: *ret_pull true, then
 * replica_pull_begin ... replica_pull_data. */
struct pull_range {
	struct vol_ino ino;
	uint64_t off; /* multiple of 64 KiB */
	uint32_t len; /* multiple of 64 KiB, at most the stripe */
};
#define PULL_RANGES_MAX 64
int replica_delta_apply(struct replica *r, const struct delta_item *item, struct pull_range *ret_ranges,
			size_t *ret_n);
int replica_delta_end(struct replica *r, bool full, uint64_t epoch, uint64_t seq);
/* Data for a pull_range arrived, read at the source with replica_read (checksums verified by the receiver against the source's crcs); blocks
 * that a live write changed since replica_delta_apply reported the range are left alone. */
int replica_pull_data(struct replica *r, const struct pull_range *range, const uint32_t *crcs,
		      const void *data, uint32_t len);
/* Marks every block that rec's WRITE touched bad, so that it is fetched: for records that were cut from a divergent tail. */
int replica_distrust(struct replica *r, const struct record *rec);
/* Drops tombstones of changes up to seq (all members are past it). */
int replica_forget(struct replica *r, uint64_t seq);
