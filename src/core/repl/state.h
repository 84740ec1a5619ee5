/* SPDX-License-Identifier: Apache-2.0 */
/* state: what the files of replica share: keys behind the group's number, one stripe's checksums in hand, pulls in flight. */
#pragma once

#include "base/bytes.h"
#include "core/repl/replica.h"

#define PREFIX		8u /* seq before a value */
#define INO_KEY		24u
#define KEY_ROOM	(KEY_MAX + 8)
#define PULL_ALIGN	(64u << 10)
#define SMALL_DATA	(64u << 10)
#define INDEX_ENTRY_MAX (16u << 10)

enum mode { MODE_NORMAL, MODE_REPLAY, MODE_LIVE };

/* Memory that one call at a time uses. */
struct replica_scratch {
	uint32_t blocks; /* a stripe has */
	uint8_t *value;	 /* VALUE_MAX and room: a value under construction */
	uint8_t *data;	 /* SMALL_DATA + 2 blocks, aligned */
	uint32_t *crc;	 /* blocks: of the stripe in hand */
	uint8_t *mask;	 /* a bit a block: content known from live records or pulls of this session */
	uint8_t index[INDEX_ENTRY_MAX];
	uint32_t index_len;
	uint16_t index_i;
	uint64_t index_seq;
	/* replay: patches not used yet */
	uint32_t patch_at;
	enum mode mode;
	uint32_t effect;
};

/* One stripe of one inode, in r->scratch. One at a time. */
struct stripe {
	struct vol_ino ino;
	uint32_t index;
	uint64_t first;	  /* block number in the file of crc[0] */
	bool found, live; /* live: mask belongs to this session */
	bool had_bad;
	uint64_t seq, base;
	uint32_t gen;
};

/* Blocks that somebody is fetching. */
struct replica_pull {
	struct replica_pull *next;
	struct vol_ino ino;
	uint64_t first, need; /* block; what the source must have applied */
	uint32_t n;
	uint8_t changed[]; /* a bit a block */
};

static inline bool bit_get(const uint8_t *m, uint32_t i)
{
	return m[i / 8] >> (i % 8) & 1;
}
static inline void bit_set(uint8_t *m, uint32_t i)
{
	m[i / 8] |= (uint8_t)(1u << i % 8);
}

/* replica.c */
size_t state_key(const struct replica *r, const void *key, size_t len,
		 uint8_t out[KEY_ROOM]); /* group before key */
size_t ino_key(const struct replica *r, uint8_t kind, const struct vol_ino *ino, uint8_t out[KEY_ROOM]);
size_t stripe_key(const struct replica *r, uint8_t kind, const struct vol_ino *ino, uint32_t index,
		  uint8_t out[KEY_ROOM]);
void ino_of_key(const uint8_t *key, struct vol_ino *ret); /* key with group */
/* seek among the keys that begin with the first `within` bytes of from: KIND for the group's of one kind, INO for one inode's of one kind. Keys with
 * their group. */
#define WITHIN_GROUP 2u
#define WITHIN_KIND  3u
#define WITHIN_INO   27u
int kind_seek(struct replica *r, const uint8_t *from, size_t len, bool after, size_t within,
	      const uint8_t **ret_key, size_t *ret_key_len, const uint8_t **ret, size_t *ret_len);
int key_put(struct replica *r, const uint8_t *key, size_t key_len, uint64_t seq, const void *value,
	    size_t len);
uint64_t key_seq(struct replica *r, const uint8_t *key, size_t len); /* of a key with prefix; 0 = not there */
uint64_t tomb_seq(struct replica *r, const uint8_t *key, size_t len); /* Z of it; 0 = none */
int tomb_put(struct replica *r, const uint8_t *key, size_t len, uint64_t seq);
int index_add(struct replica *r, const uint8_t *key,
	      size_t len); /* key with group; the record in hand changed it */
int index_flush(struct replica *r);
int index_item(struct replica *r, uint64_t seq, const uint8_t *key, size_t len); /* from a delta */
int group_put(struct replica *r, uint64_t committed);

/* slice.c */
int stripe_load(struct replica *r, const struct vol_ino *ino, uint32_t index, struct stripe *st);
uint64_t stripe_cut_seq(struct replica *r, const struct vol_ino *ino,
			uint32_t index); /* newest live record of this session that cut all of it; 0 = none */
int stripe_parse(struct replica *r, const uint8_t *value, size_t len, struct stripe *st); /* into scratch */
int stripe_store(struct replica *r, struct stripe *st, uint64_t seq);
int stripe_remove(struct replica *r, const struct vol_ino *ino, uint32_t index, bool bad);
size_t stripe_plain(const uint8_t *value,
		    size_t len); /* length without the catching-up part; 0 = malformed */
int slice_write(struct replica *r, const struct record *rec, const struct effect *f, uint64_t seq);
int slice_trim(struct replica *r, const struct effect *f, uint64_t seq);
int slice_punch(struct replica *r, const struct effect *f, uint64_t seq);
int slice_drop(struct replica *r, const struct effect *f, uint64_t seq);
/* Blocks [first, first + n) changed here: answers to fetches of them are void. */
void pulls_changed(struct replica *r, const struct vol_ino *ino, uint64_t first, uint64_t n);
