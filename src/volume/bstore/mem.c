/* SPDX-License-Identifier: Apache-2.0 */
/* mem: a B+ tree of entry pointers for order, and a hash table over the same entries for exact lookups, which are most. Nothing is
 * ever taken out (mem.h), so the tree only grows: an insert splits full nodes on its way down, and leaves are chained for walks. Ascending
 * inserts (change indexes, numbered files) split at the end, so that such leaves stay full.
 * New entries wait for their place in the tree until somebody asks for an order, or LATE_MAX of them are there: sorted first, most of them go
 * into the leaf that the one before went into, while a single descent for each meets cold memory at every comparison. */
#include "volume/bstore/mem.h"

struct mem_node {
	uint16_t n;
	bool leaf;
	struct mem_node *next; /* of leaves */
	struct mem_entry
		*entry[MEM_NODE]; /* leaf: entries. inner: smallest entry of child i; [0] is not looked at */
	struct mem_node *child[]; /* inner only: MEM_NODE of them */
};

#define LEAF_SIZE  sizeof(struct mem_node)
#define INNER_SIZE (LEAF_SIZE + MEM_NODE * sizeof(struct mem_node *))
#define SLOTS_MIN  1024
#define LATE_MAX   512 /* entries; putting them into the tree takes some 100 us */

static uint32_t hash_of(const uint8_t *p, size_t len)
{
	uint64_t h = len * 0x9e3779b97f4a7c15ull, w;

	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&w, p, 8);
		h = (h ^ w) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	if (len) {
		w = 0;
		memcpy(&w, p, len);
		h = (h ^ w) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	h *= 0xc4ceb9fe1a85ec53ull;
	return (uint32_t)(h >> 32);
}

int mem_cmp(const void *a, size_t a_len, const void *b, size_t b_len)
{
	int c = memcmp(a, b, MIN(a_len, b_len));

	return c ? c : a_len < b_len ? -1 : a_len > b_len;
}

static int cmp_entries(const void *a, const void *b)
{
	const struct mem_entry *x = *(struct mem_entry *const *)a, *y = *(struct mem_entry *const *)b;

	return mem_cmp(x->key, x->key_len, y->key, y->key_len);
}

static int cmp(const struct mem_entry *e, const void *key, size_t len)
{
	return mem_cmp(e->key, e->key_len, key, len);
}

struct mem_map *mem_new(const struct mem_map *like)
{
	size_t slots = SLOTS_MIN;
	struct mem_map *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	while (like && slots < 2 * like->n)
		slots *= 2;
	m->root = calloc(1, LEAF_SIZE);
	m->slot = calloc(slots, sizeof(*m->slot));
	m->late = malloc(LATE_MAX * sizeof(*m->late));
	if (!m->root || !m->slot || !m->late) {
		free(m->root);
		free(m->slot);
		free(m->late);
		free(m);
		return NULL;
	}
	m->root->leaf = true;
	m->mask = slots - 1;
	return m;
}

static void free_nodes(struct mem_node *n)
{
	if (!n->leaf)
		for (unsigned i = 0; i < n->n; i++)
			free_nodes(n->child[i]);
	free(n);
}

struct mem_map *mem_free(struct mem_map *m)
{
	if (!m)
		return NULL;
	for (size_t i = 0; i <= m->mask; i++)
		if (m->slot[i].entry) {
			free(m->slot[i].entry->value);
			free(m->slot[i].entry);
		}
	free_nodes(m->root);
	free(m->slot);
	free(m->late);
	free(m);
	return NULL;
}

static struct mem_entry *find(const struct mem_map *m, uint32_t h, const void *key, size_t len)
{
	for (size_t i = h & m->mask; m->slot[i].entry; i = (i + 1) & m->mask) {
		struct mem_entry *e = m->slot[i].entry;

		if (m->slot[i].hash == h && e->key_len == len && memcmp(e->key, key, len) == 0)
			return e;
	}
	return NULL;
}

struct mem_entry *mem_find(const struct mem_map *m, const void *key, size_t len)
{
	return find(m, hash_of(key, len), key, len);
}

static int grow_slots(struct mem_map *m)
{
	size_t mask = m->mask * 2 + 1;
	struct mem_slot *slot = calloc(mask + 1, sizeof(*slot));

	if (!slot)
		return -ENOMEM;
	for (size_t i = 0; i <= m->mask; i++) {
		size_t at;

		if (!m->slot[i].entry)
			continue;
		for (at = m->slot[i].hash & mask; slot[at].entry; at = (at + 1) & mask)
			;
		slot[at] = m->slot[i];
	}
	free(m->slot);
	m->slot = slot;
	m->mask = mask;
	return 0;
}

/* Number of entries of a leaf (children of an inner node, less one) whose key is < key (<= when after). */
static unsigned below(const struct mem_node *n, const void *key, size_t len, bool after)
{
	unsigned lo = n->leaf ? 0 : 1, hi = n->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		int c = cmp(n->entry[mid], key, len);

		if (c < 0 || (after && c == 0))
			lo = mid + 1;
		else
			hi = mid;
	}
	return n->leaf ? lo : lo - 1;
}

/* Splits the full child i of n (which has room). Where the new key goes behind everything, the left part stays full. */
static int split(struct mem_map *m, struct mem_node *n, unsigned i, const void *key, size_t len)
{
	struct mem_node *left = n->child[i], *right = malloc(left->leaf ? LEAF_SIZE : INNER_SIZE);
	unsigned keep = cmp(left->entry[MEM_NODE - 1], key, len) < 0 ? MEM_NODE - 1 : MEM_NODE / 2;

	if (!right)
		return -ENOMEM;
	right->leaf = left->leaf;
	right->n = (uint16_t)(MEM_NODE - keep);
	memcpy(right->entry, left->entry + keep, right->n * sizeof(right->entry[0]));
	if (left->leaf) {
		right->next = left->next;
		left->next = right;
	} else {
		right->next = NULL;
		memcpy(right->child, left->child + keep, right->n * sizeof(right->child[0]));
	}
	left->n = (uint16_t)keep;
	memmove(n->entry + i + 2, n->entry + i + 1, (n->n - i - 1) * sizeof(n->entry[0]));
	memmove(n->child + i + 2, n->child + i + 1, (n->n - i - 1) * sizeof(n->child[0]));
	n->entry[i + 1] = right->entry[0];
	n->child[i + 1] = right;
	n->n++;
	m->bytes += INNER_SIZE;
	return 0;
}

/* *leaf: where the entry before, a smaller one, went; NULL = none. */
static int insert(struct mem_map *m, struct mem_entry *e, struct mem_node **leaf)
{
	struct mem_node *n = *leaf;
	unsigned at;

	/* Between what is in that leaf and the next leaf's first: there, without a descent. */
	if (!n || n->n == MEM_NODE || (n->next && cmp(n->next->entry[0], e->key, e->key_len) <= 0))
		n = m->root;
	if (n == m->root && n->n == MEM_NODE) {
		struct mem_node *root = calloc(1, INNER_SIZE);

		if (!root)
			return -ENOMEM;
		root->n = 1;
		root->entry[0] = n->entry[0];
		root->child[0] = n;
		m->root = n = root;
	}
	while (!n->leaf) {
		at = below(n, e->key, e->key_len, true);
		if (n->child[at]->n == MEM_NODE) {
			if (split(m, n, at, e->key, e->key_len) < 0)
				return -ENOMEM;
			at += cmp(n->entry[at + 1], e->key, e->key_len) <= 0;
		}
		n = n->child[at];
	}
	at = below(n, e->key, e->key_len, false);
	memmove(n->entry + at + 1, n->entry + at, (n->n - at) * sizeof(n->entry[0]));
	n->entry[at] = e;
	n->n++;
	*leaf = n;
	return 0;
}

int mem_settle(struct mem_map *m)
{
	struct mem_node *leaf = NULL;
	uint32_t i = 0;
	int r = 0;

	if (m->n_late > 1)
		qsort(m->late, m->n_late, sizeof(struct mem_entry *), cmp_entries);
	for (; i < m->n_late && r == 0; i++)
		r = insert(m, m->late[i], &leaf);
	i -= r < 0;
	m->n_late -= i;
	memmove(m->late, m->late + i, m->n_late * sizeof(struct mem_entry *));
	return r;
}

struct mem_entry *mem_make(struct mem_map *m, const void *key, size_t len)
{
	uint32_t h = hash_of(key, len);
	struct mem_entry *e = find(m, h, key, len);
	size_t at;

	if (e)
		return e;
	ensure(len > 0 && len <= UINT16_MAX);
	if (m->n * 2 > m->mask && grow_slots(m) < 0)
		return NULL;
	if (m->n_late == LATE_MAX && mem_settle(m) < 0)
		return NULL;
	e = malloc(sizeof(*e) + len);
	if (!e)
		return NULL;
	*e = (struct mem_entry){.key_len = (uint16_t)len, .state = MEM_NONE};
	memcpy(e->key, key, len);
	m->late[m->n_late++] = e;
	for (at = h & m->mask; m->slot[at].entry; at = (at + 1) & m->mask)
		;
	m->slot[at] = (struct mem_slot){e, h};
	m->n++;
	m->bytes += sizeof(*e) + len + 64;
	return e;
}

struct mem_entry *mem_next(struct mem_pos *pos)
{
	for (; pos->node; pos->node = pos->node->next, pos->at = 0)
		while (pos->at < pos->node->n) {
			struct mem_entry *e = pos->node->entry[pos->at++];

			if (e->state != MEM_NONE)
				return e;
		}
	return NULL;
}

struct mem_entry *mem_seek(const struct mem_map *m, const void *from, size_t len, bool after,
			   struct mem_pos *ret_pos)
{
	const struct mem_node *n = m->root;

	ensure(m->n_late == 0);
	while (!n->leaf)
		n = n->child[below(n, from, len, true)];
	*ret_pos = (struct mem_pos){n, below(n, from, len, after)};
	return mem_next(ret_pos);
}

int mem_walk(const struct mem_map *m, int (*fn)(void *ctx, struct mem_entry *e), void *ctx)
{
	const struct mem_node *n = m->root;

	ensure(m->n_late == 0);
	while (!n->leaf)
		n = n->child[0];
	for (; n; n = n->next)
		for (unsigned i = 0; i < n->n; i++) {
			int r = fn(ctx, n->entry[i]);

			if (r != 0)
				return r;
		}
	return 0;
}
