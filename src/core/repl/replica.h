/* SPDX-License-Identifier: Apache-2.0 */
/* replica: the state of one member: ordered keys and file data, changed by applying records; and the index of what changed since
 * when, from which a member that was away is brought up to date. Pure: keys and data are behind two tables of functions (LMDB and
 * plain files in a brick, memory in the simulator).
 *
 * Keys (first byte = kind, numbers big endian so that they sort; values of the kinds I..S begin with the 8-byte sequence number of their last
 * change, put there by replica_apply: what EFFECT_PUT carries and kv readers of core/vfs see is the rest):
 *   I folder16 num8		inode (core/vfs)		E folder16 name		entry (core/vfs)
 *   X folder16 num8 name	extended attribute		T id16			intent (core/vfs)
 *   L folder16 num8 ...	lock (core/vfs)			D client8 slot4		newest answer to a client's slot (exactly once)
 *   O folder16 num8		inode without a name, still open	N folder16		delegation (core/vfs)
 *   S folder16 num8 stripe4	stripe: gen4, count2, then a 4-byte checksum a block (little endian; 0 hole, 1 bad; what is missing is a hole);
 *				written by replica_apply only. While catching up and until the next change: seq8 base, session4, a bit a block
 *   H folder16 num8		slice of an inode: gen4 of its last truncate; gone with EFFECT_DROP
 * Not indexed, a member's own:
 *   G			epoch8 seq8 committed8 floor8 index8 session4 dirty1
 *   C seq8 i2		index: keys that record seq changed, each len2 key. An entry is stale where the key has changed since: the walk skips it, so
 *			that a change costs one put a record and no search. Entries up to `floor` are gone
 *   B folder16 num8 stripe4	the stripe has bad blocks: to be fetched from another member
 *   Z key			catching up only: seq8 of a deletion (of H: seq8, off8: cut from there on)
 *   J folder16 num8 stripe4	full delta only: the checksums there were before
 * Every key is stored behind the group's number (group2), so one database holds all groups of a brick. */
#pragma once

#include "core/repl/record.h"

#define REPLICA_INDEX_MAX \
	1000000u /* C entries of a group; the oldest go and `floor` rises: who is older than floor compares everything */

/* One ordered map. Pointers that get and next return are valid until the next change of the map. */
struct kv {
	int (*get)(struct kv *kv, const void *key, size_t len, const void **ret,
		   size_t *ret_len); /* -ENOENT */
	int (*put)(struct kv *kv, const void *key, size_t len, const void *value, size_t value_len);
	int (*del)(struct kv *kv, const void *key, size_t len); /* 0 also when it is not there */
	/* First key >= from (> from when after) that begins with the first `within` bytes of from. -ENOENT: there is none. (A bound that the caller checked
	 * himself would make it look at everything deleted between there and the next key.) */
	int (*seek)(struct kv *kv, const void *from, size_t len, bool after, size_t within,
		    const void **ret_key, size_t *ret_key_len, const void **ret, size_t *ret_len);
	void *ctx; /* of a view: its replica */
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

/* Checksum that a partly changed block has after effect number `effect`: see replica_apply. */
struct replica_patch {
	uint32_t effect, crc;
	uint64_t block; /* number in the file */
};
#define REPLICA_PATCHES_MAX (2 * RECORD_EFFECTS_MAX)

struct replica {
	uint32_t group, stripe_size;
	struct kv *kv;
	struct blob *blob;
	uint64_t epoch,
		seq; /* newest record applied in sequence; while catching up: where the catching up began */
	uint64_t floor; /* changes up to here are not in the index (any more) */
	uint64_t tombs; /* C entries */
	/* replica_apply's results, and with replay its input, for partly changed blocks: their content cannot be worked out in a replay, when data of later
	 * records is in place already. A log keeps them beside the record. Ascending by effect, then block. */
	struct replica_patch patch[REPLICA_PATCHES_MAX];
	uint32_t n_patches;
	/* Catching up (replica_delta_begin .. replica_delta_end): */
	bool catching;
	bool full;	  /* of everything */
	bool dirty;	  /* a catching up was not finished: keys may hold more than `seq` says */
	uint32_t session; /* number of the last catching up */
	uint64_t live_first, live_seq, live_epoch; /* records applied meanwhile; 0 = none */
	uint64_t content_seq;			   /* newest source position of pulled data */
	uint64_t item_seq;			   /* newest change that a delta named */
	/* Pulls in flight: live changes of their blocks make the answer void for those. */
	struct replica_pull *pulls;
	struct replica_scratch *scratch;
};

/* Reads G. */
int replica_init(struct replica *r, uint32_t group, uint32_t stripe_size, struct kv *kv, struct blob *blob);
void replica_done(struct replica *r);
int replica_save(struct replica *r,
		 uint64_t committed); /* writes G; a shell calls it before it makes a checkpoint */
/* As saved; 0 when there is no G. */
int replica_saved_committed(struct replica *r, uint64_t *ret);

/* A view of the group's keys for core/vfs: get and seek hide the group number, the sequence number and B, C, G, H, J, S, Z. */
void replica_view(struct replica *r, struct kv *ret_view);

/* Applies record r->seq + 1 and leaves r->patch. While catching up: as replica_apply_live. replay (log recovery): data is in place already as far as it will
 * be (the shell rewrote what the log has), so nothing is read or written but keys; checksums of whole blocks are the record's, those of partly changed
 * blocks are r->patch as kept with the record; what does not fit is found by replica_distrust or on reading. Errors: -EIO, -ENOSPC from kv
 * or blob (the member must leave the in-sync set and roll back), -EBADMSG when seq does not follow (a gap behind an unfinished catching up,
 * r->dirty, is normal: recovery leaves out what was applied live there). */
int replica_apply(struct replica *r, const struct record *rec, bool replay);
/* A member that is catching up: records without a gap among themselves; what a key or block has from a newer change stays. -EBADMSG when one is left out.
 * A partly changed block whose content is not known yet becomes bad (and is pulled). Records that the state holds already are left out. */
int replica_apply_live(struct replica *r, const struct record *rec);

/* ---- reading with checksums ---- */
/* Verified. Blocks that are holes are zeros. -EIO + *ret_bad (first bad block's offset) when a checksum does not hold; len <=
 * RECORD_PAYLOAD_MAX, off need not be aligned. */
int replica_read(struct replica *r, const struct vol_ino *ino, uint64_t off, void *data, uint32_t len,
		 uint64_t *ret_bad);
/* The checksums of the blocks that [off, off + len) touches, one each (0 = hole): a brick that answers a client sends them along with the bytes
 * and the client verifies, end to end; when one does not hold it reads from another member and reports the block. */
int replica_crcs(struct replica *r, const struct vol_ino *ino, uint64_t off, uint32_t len, uint32_t *out);
/* Next offset >= off with data (or hole); -ENXIO when none (only for data: behind everything is a hole). */
int replica_seek_data(struct replica *r, const struct vol_ino *ino, uint64_t off, bool hole, uint64_t *ret);
/* Generation of the slice's last truncate; 0 = none. */
int replica_slice_gen(struct replica *r, const struct vol_ino *ino, uint32_t *ret);

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
	uint64_t
		seq; /* next index position; full: where the source was at the start: the index is walked from there when the keys have ended */
	uint16_t i;  /* index entries of seq that were walked; keys of the present entry in `at` */
	uint8_t key[KEY_MAX + 16]; /* full walk: last key; else: position in the entry (2 bytes) */
	size_t key_len;
};
/* since 0 or below the source's floor: a full walk (ret->full). */
int replica_delta_start(struct replica *source, uint64_t since, struct delta_cursor *ret);
/* -ENOENT at the end; -ESTALE: the index has been cut behind the cursor: start anew with since 0. At the end: item and cursor are consistent then with the source's present (epoch, seq), and a later call goes on from there. */
int replica_delta_next(struct replica *source, struct delta_cursor *c, struct delta_item *ret);

/* Receiver: before a pull. continued: from the same primary that the last catching up of this process was with (a link that broke); else an unfinished one's
 * state may hold records that were never committed, and everything is compared. *ret_since: what to ask for (replica_delta_start there). */
int replica_delta_begin(struct replica *r, bool continued, uint64_t *ret_since);
/* The source answers with a full walk: forget the keys (data stays and is compared), except what live records changed meanwhile. Also done by
 * replica_delta_begin when *ret_since is 0. */
int replica_delta_wipe(struct replica *r);

/* Keeps what is newer. For an S key that differs the blocks to fetch are reported; they are bad here until replica_pull_data brings them. */
struct pull_range {
	struct vol_ino ino;
	uint64_t off; /* multiple of VOL_BLOCK */
	uint32_t len; /* multiple of VOL_BLOCK, at most 1 MiB, within one stripe */
	uint64_t
		seq; /* set by replica_pull_begin: the source must have applied this much before it reads (else it answers -EAGAIN) */
};
#define PULL_RANGES_MAX 64
int replica_delta_apply(struct replica *r, const struct delta_item *item, struct pull_range *ret_ranges,
			size_t *ret_n);
/* The walk ended with the source at (epoch, seq) and nothing is bad any more (replica_bad_next). 0: r->seq is where this member is now (>= seq), and
 * records follow from there; -EAGAIN: live records up to seq, or up to where pulled data was read, have not all come yet, or they began behind seq: walk on
 * from the cursor, then call again. full: what was not named is gone then. */
int replica_delta_end(struct replica *r, bool full, uint64_t epoch, uint64_t seq);

/* ---- fetching blocks (delta, repair of bad blocks) ---- */
/* Announces a fetch; call just before it is sent: sets range->seq. -ENOMEM; -EBUSY: one for these blocks is on its way. */
int replica_pull_begin(struct replica *r, struct pull_range *range);
/* The answer: bytes read at the source at source_seq (blocks whose bytes do not fit the source's crcs stay bad). Blocks that are not bad here, or that
 * changed here since replica_pull_begin, are left alone. data NULL: the fetch failed; only ends it. -EAGAIN (not while catching up): the source was ahead; try
 * again. Changes outside records: bstore_mark_dirty. */
int replica_pull_data(struct replica *r, const struct pull_range *range, uint64_t source_seq,
		      const uint32_t *crcs, const void *data, uint32_t len);
/* The next ranges with bad blocks from stripe (ino, off) on; *ino and *off move behind them. Zeroed ino and off 0 = from the start. 0 with *ret_n 0 = no more. */
int replica_bad_next(struct replica *r, struct vol_ino *ino, uint64_t *off, struct pull_range *ret_ranges,
		     size_t *ret_n);
/* Reads the blocks of [off, off + len) and marks those bad whose checksum does not hold; *ret_bad (may be NULL): how many are bad now. For scrub,
 * recovery after a power loss, reports by clients. */
int replica_verify(struct replica *r, const struct vol_ino *ino, uint64_t off, uint64_t len,
		   uint32_t *ret_bad);
/* replica_verify of every block that rec's effects touched: for records that were cut from a divergent tail. */
int replica_distrust(struct replica *r, const struct record *rec);
/* The first stripe with data at or behind (ino, off), for scrub; its place goes to *ino and *off (call again with off + stripe_size). -ENOENT at the end. */
int replica_stripe_next(struct replica *r, struct vol_ino *ino, uint64_t *off);
/* Drops index entries of changes up to seq (all members are past it, durably): a bounded number a call, 0 or 1 = call again. */
int replica_forget(struct replica *r, uint64_t seq);
