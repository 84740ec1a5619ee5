/* SPDX-License-Identifier: Apache-2.0 */
/* mem: an ordered map in memory, the changes since a checkpoint (an LSM tree's memtable). Keys sort by memcmp, then by length, as LMDB's do.
 *
 * An entry, once made, stays where it is until the map is freed, so that undo lists may point at it; what changes is its state: NONE (as
 * if it were not here: look below), VALUE, or GONE (a tombstone: deleted, whatever lies below). Values are malloc'ed, one owner each.
 * Threads: one writer; once nobody writes any more (a frozen map), any number of readers. */
#pragma once

#include "base/base.h"

#define MEM_NODE 64 /* children or entries a node */

enum mem_state { MEM_NONE, MEM_VALUE, MEM_GONE };

struct mem_entry {
	uint8_t *value; /* owned; NULL when not VALUE or empty */
	uint32_t value_len;
	uint16_t key_len;
	uint8_t state;
	bool fresh; /* nothing of this key can lie below: deleting it leaves NONE instead of GONE */
	uint8_t key[];
};

struct mem_node;
struct mem_map {
	struct mem_node *root;
	struct mem_slot { /* hash table of all entries, open addressing; hash: so that few entries are looked at in vain */
		struct mem_entry *entry;
		uint32_t hash;
	} * slot;
	size_t n, mask;
	size_t bytes;		 /* of memory, about */
	struct mem_entry **late; /* not in the tree yet */
	uint32_t n_late;
};

struct mem_pos { /* behind what mem_seek or mem_next returned */
	const struct mem_node *node;
	unsigned at;
};

/* like: room for as many entries as that one has (NULL = small), so that it need not grow in the middle of the work. */
struct mem_map *mem_new(const struct mem_map *like);
struct mem_map *mem_free(struct mem_map *m); /* accepts NULL, returns NULL */
/* NULL when there is none. */
struct mem_entry *mem_find(const struct mem_map *m, const void *key, size_t len);
/* The entry, made (NONE) when it is not there. NULL = no memory. */
struct mem_entry *mem_make(struct mem_map *m, const void *key, size_t len);
/* Puts the newest entries in order. -ENOMEM: some of them are not, and it may be tried again. */
int mem_settle(struct mem_map *m);
/* These two: of a settled map. First entry with key >= from (> when after) that is not NONE; NULL at the end. */
struct mem_entry *mem_seek(const struct mem_map *m, const void *from, size_t len, bool after,
			   struct mem_pos *ret_pos);
struct mem_entry *mem_next(struct mem_pos *pos); /* the next one, as long as the map has not changed */
/* All entries in order, also NONE ones; fn stops the walk by a value other than 0, which is returned. */
int mem_walk(const struct mem_map *m, int (*fn)(void *ctx, struct mem_entry *e), void *ctx);
int mem_cmp(const void *a, size_t a_len, const void *b, size_t b_len);
