/* SPDX-License-Identifier: Apache-2.0 */
/* record: what one operation changes in one group, as physical effects. The primary works an operation out once (core/vfs) and
 * everybody - backups, members that are catching up, recovery from the log - applies the same effects blindly, so members cannot
 * come to differ by computing differently. A record is applied whole or not at all.
 *
 * The encoded form is the same on the wire and in the log: docs/protocol/volume.md, "record". */
#pragma once

#include "core/place/place.h"

#define RECORD_EFFECTS_MAX 64	      /* effects a record */
#define RECORD_BODY_MAX	   (1u << 20) /* bytes, without payload */
#define RECORD_PAYLOAD_MAX (4u << 20) /* bytes of file data */
#define RECORD_LOGGED_MAX \
	(64u << 10)		/* data up to here is in the log with its record; more only in its file */
#define KEY_MAX		    400 /* bytes: 1 + 16 + 8 + 255 and room */
#define VALUE_MAX	    (68u << 10)		    /* bytes: an xattr of 64 KiB and room */
#define RECORD_OFF_MAX	    ((uint64_t)1 << 46)	    /* no data at or behind this offset of a file */
#define PAYLOAD_CHUNKS(len) ((len) / VOL_BLOCK + 2) /* room that is always enough for payload_chunks */

/* File data, shared by the connection it came from, the log, and the sends to backups. Frees itself with the last reference. */
struct payload {
	_Atomic int refs;
	uint32_t len, room; /* room: bytes of memory at data */
	uint8_t *data;
	void (*release)(struct payload *p); /* called at zero; NULL = free(data); free(p). owner is its own */
	void *owner;
	/* payload_sum's result, so that checking a frame and building a record read the data once. Zero in a payload that somebody else made. */
	uint32_t *chunk_crc, n_chunks, sum,
		phase; /* chunk_crc NULL = not worked out yet; malloc'ed; phase = off % VOL_BLOCK */
	bool summed;   /* else only the first n_chunks are there */
};
struct payload *payload_new(uint32_t len); /* data allocated, 4,096-aligned; NULL = no memory */
/* The CRC32C of the chunks' CRCs for data at file offset off (as record.payload_crc), worked out at first use and kept: the data must not change any
 * more. One thread at a time. Later record_write and record_decode at the same offset (mod VOL_BLOCK) do not read the data again. */
uint32_t payload_sum(struct payload *p, uint64_t off);
/* While a payload arrives: works out what it can of the first `got` bytes, which do not change any more, so that payload_sum at the same offset has the rest
 * to do only. */
void payload_sum_ahead(struct payload *p, uint64_t off, uint32_t got);
struct payload *payload_ref(struct payload *p);
struct payload *payload_unref(struct payload *p); /* accepts NULL, returns NULL */

enum effect_type {
	EFFECT_PUT = 1, /* key, value */
	EFFECT_DEL,	/* key */
	EFFECT_WRITE,	/* ino, gen, off, len: the record's payload; at most one a record */
	EFFECT_TRIM,	/* ino, gen, off: no data at or behind off; the slice's generation becomes gen */
	EFFECT_PUNCH,	/* ino, off, len: zeros */
	EFFECT_DROP,	/* ino: all its data in this group */
	EFFECT_NOTE	/* nothing: fills a sequence number (a new primary's first record) */
};

struct effect {
	enum effect_type type;
	const uint8_t *key, *value;
	uint32_t key_len, value_len;
	struct vol_ino ino;
	uint32_t gen; /* truncate generation */
	uint64_t off, len;
};

struct record {
	uint32_t group;
	uint64_t epoch, seq; /* seq starts at 1, has no gap, never starts anew; (epoch, seq) names a record */
	uint64_t prev_epoch; /* epoch of record seq - 1 */
	uint32_t n;
	struct effect effect[RECORD_EFFECTS_MAX];
	struct payload *payload; /* NULL = none; a reference */
	uint8_t *body;		 /* encoded effects, which keys and values point into; owned */
	uint32_t body_len;
	/* The payload is cut at multiples of VOL_BLOCK of the *file's* offset; one block_crc-like checksum a chunk (CRC32C, never 0 or 1). A whole
	 * chunk's is its block's checksum, so data is read once for both. payload_crc is the CRC32C of that array (little endian). */
	uint32_t *chunk_crc,
		n_chunks; /* owned; filled by record_write, record_decode with a payload, and record_set_chunks */
	uint32_t payload_crc, payload_len;
	_Atomic int refs;
};

/* Building: effects are copied into the body. -E2BIG when a bound would be passed (the operation is refused then). */
struct record *record_new(uint32_t group); /* NULL = no memory */
int record_put(struct record *r, const void *key, size_t key_len, const void *value, size_t value_len);
int record_del(struct record *r, const void *key, size_t key_len);
int record_write(struct record *r, const struct vol_ino *ino, uint32_t gen, uint64_t off,
		 struct payload *p); /* takes a reference */
int record_trim(struct record *r, const struct vol_ino *ino, uint32_t gen, uint64_t off);
int record_punch(struct record *r, const struct vol_ino *ino, uint64_t off, uint64_t len);
int record_drop(struct record *r, const struct vol_ino *ino);
int record_note(struct record *r);
struct record *record_ref(struct record *r);
struct record *record_unref(struct record *r); /* accepts NULL, returns NULL */

/* The encoded head (fixed, RECORD_HEAD bytes, with a CRC32C over head and body) goes before body and payload. The payload has its own
 * CRC, so that a log may leave it out. */
#define RECORD_HEAD 64
void record_encode_head(const struct record *r, uint8_t out[RECORD_HEAD]);
/* Lengths that a head announces; -EBADMSG when it is no head. Bounded by the limits above. */
int record_decode_head(const uint8_t head[RECORD_HEAD], uint32_t *ret_body_len, uint32_t *ret_payload_len);
/* Checks everything (CRC, bounds, effects); takes a reference of payload (may be NULL when the payload is elsewhere). */
int record_decode(const uint8_t head[RECORD_HEAD], const uint8_t *body, struct payload *payload,
		  struct record **ret, struct err *e);

/* A log that leaves a payload out keeps the chunks' checksums instead: recovery gives them back here, so that each block can be judged for itself.
 * -EBADMSG when they do not belong to the record (n, payload_crc). crcs is copied. */
int record_set_chunks(struct record *r, const uint32_t *crcs, uint32_t n);

/* Fills out (chunks of len bytes at file offset off; at most len / VOL_BLOCK + 2) and returns their number; *ret_crc = payload_crc. */
uint32_t payload_chunks(uint64_t off, const void *data, uint32_t len, uint32_t *out, uint32_t *ret_crc);
uint32_t crc32c(uint32_t crc, const void *data, size_t len); /* hardware where there is one; start with 0 */
uint32_t crc32c_soft(uint32_t crc, const void *data,
		     size_t len); /* tables only: for machines without, and to test against */
/* The checksum of one block as it is kept: never 0 (0 = no data: zeros) and never 1 (1 = known bad). */
uint32_t block_crc(const uint8_t block[VOL_BLOCK]);
#define BLOCK_CRC_HOLE 0u
#define BLOCK_CRC_BAD  1u
