/* SPDX-License-Identifier: Apache-2.0 */
/* walk: is the metadata store's file one that LMDB could have written?
 *
 * LMDB's own cursor cannot say it: it goes along the leaves, so it does not see a branch that leads a search for a key past its leaf, a leaf whose
 * number of keys is too small, or a list of free pages that names one in use, which the next checkpoint would overwrite. Therefore the pages are
 * read here as data version 1 (LMDB 0.9) has them, each once: bounds, kind and own number, keys in order and between those of the branch above, the
 * number of keys against the head's, a value's checksum, free pages against those in use.
 *
 *   head page	0 and 1; [16]: magic4 version4 address8 mapsize8 db48[2] last_page8 txnid8; the larger txnid counts
 *   db		pad4 (page size) flags2 depth2 branches8 leaves8 overflows8 entries8 root8; db[0] is the list of free pages
 *   page	number8 pad2 flags2 lower2 upper2, then a 2-byte offset a node up to lower
 *   node	low2 high2 flags2 key_len2 key, value; a leaf's low and high are the value's length, a branch's low, high and flags the child's number
 *   large value	flags BIG: the value is the number8 of the first of its pages, which follow each other behind one 16-byte header
 * Runs in a process of its own (env.c) and may end by a signal when the disk fails under the map. All in the machine's byte order, as LMDB. */
#include "volume/bstore/internal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MAGIC	     0xBEEFC0DEu
#define DATA_VERSION 1u
#define HEADER	     16u
#define NODE	     8u
#define NONE	     UINT64_MAX
#define DEPTH	     32 /* as LMDB's cursors */
#define TXN_PAGES \
	131072 /* one transaction's at most: so far may the last page's number be beyond what was written */
enum { BRANCH = 1, LEAF = 2, OVERFLOW = 4, BIG = 1 }; /* further flags are for memory only */

struct walk {
	const uint8_t *map;
	uint64_t n_pages, last, size; /* of the file; the last one that is in use or free; bytes of a page */
	uint8_t *used;		      /* a bit a page */
	uint64_t entries, visited, end_ms;
	bool free_list; /* which tree */
};

struct key {
	const uint8_t *p; /* NULL: no bound */
	size_t len;
};

static uint16_t get16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t get32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t get64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* ---- pages ---- */

static bool take_page(struct walk *w, uint64_t no)
{
	if (no < 2 || no > w->last || w->used[no / 8] & 1u << no % 8)
		return false;
	w->used[no / 8] |= (uint8_t)(1u << no % 8);
	return true;
}

/* NULL: not such a page, or it was taken before. */
static const uint8_t *take(struct walk *w, uint64_t no)
{
	const uint8_t *p;

	if (no >= w->n_pages || !take_page(w, no))
		return NULL;
	p = w->map + no * w->size;
	return get64(p) == no ? p : NULL;
}

static int cmp_keys(const struct walk *w, struct key a, struct key b)
{
	int r;

	if (w->free_list) /* numbers of transactions */
		return get64(a.p) < get64(b.p) ? -1 : get64(a.p) > get64(b.p);
	r = memcmp(a.p, b.p, MIN(a.len, b.len));
	return r ? r : a.len < b.len ? -1 : a.len > b.len;
}

/* ---- leaves ---- */

static const uint8_t *large_value(struct walk *w, uint64_t first, uint64_t len)
{
	const uint8_t *p = take(w, first);
	uint64_t need = (HEADER + len + w->size - 1) / w->size, n = p ? get32(p + 12) : 0;

	/* More pages than it needs: the value was written twice in a transaction, the second time smaller, as those of the list of free pages are. */
	if (!p || get16(p + 10) != OVERFLOW || n < need || n > w->n_pages - first)
		return NULL;
	for (uint64_t i = 1; i < n; i++)
		if (!take_page(w, first + i))
			return NULL;
	return p + HEADER;
}

static bool free_pages(struct walk *w, const uint8_t *value, uint64_t len)
{
	uint64_t n = len < 8 ? 0 : get64(value);

	if (len < 8 || n > len / 8 - 1)
		return false;
	for (uint64_t i = 1; i <= n; i++)
		if (!take_page(w, get64(value + i * 8)))
			return false;
	return true;
}

static bool leaf_node(struct walk *w, const uint8_t *node, struct key key, const uint8_t *end)
{
	uint64_t len = get16(node) | (uint64_t)get16(node + 2) << 16;
	const uint8_t *value = key.p + key.len;
	unsigned flags = get16(node + 4);
	MDB_val k = {key.len, (void *)(uintptr_t)key.p}, v;

	w->entries++;
	if (flags != 0 && flags != BIG)
		return false;
	if ((flags == BIG ? 8 : len) > (uint64_t)(end - value))
		return false;
	if (flags == BIG)
		value = large_value(w, get64(value), len);
	if (!value || w->free_list)
		return value && free_pages(w, value, len);
	v = (MDB_val){len, (void *)(uintptr_t)value};
	return env_value_ok(&k, &v);
}

/* ---- the tree ---- */

static struct key node_key(const uint8_t *page, unsigned i)
{
	const uint8_t *node = page + get16(page + HEADER + 2 * i);

	return (struct key){node + NODE, get16(node + 6)};
}

/* The page's own form: where nodes lie, their order and that they are within [from, to). A branch's first key is not one. */
static bool page_form(const struct walk *w, const uint8_t *page, struct key from, struct key to, bool branch)
{
	unsigned lower = get16(page + 12), upper = get16(page + 14);

	if (lower <= HEADER || lower % 2 != 0 || lower > upper || upper > w->size)
		return false;
	for (unsigned i = 0; i < (lower - HEADER) / 2; i++) {
		unsigned at = get16(page + HEADER + 2 * i);
		struct key key;

		if (at < upper || at + NODE > w->size)
			return false;
		key = node_key(page, i);
		if (key.len > w->size - at - NODE)
			return false;
		if (branch && i == 0)
			continue;
		if (w->free_list && key.len != 8)
			return false;
		if (from.p && cmp_keys(w, key, from) < 0)
			return false;
		if (to.p && cmp_keys(w, key, to) >= 0)
			return false;
		if (i > branch && cmp_keys(w, node_key(page, i - 1), key) >= 0)
			return false;
	}
	return true;
}

/* Bounded: each page is taken once, and the depth. true also when the time is over. */
static bool tree(struct walk *w, uint64_t no, struct key from, struct key to, int depth)
{
	const uint8_t *page;
	unsigned kind, n;

	if (w->visited++ % 64 == 0 && clock_ms() > w->end_ms)
		w->end_ms = 0;
	if (w->end_ms == 0)
		return true;
	page = depth < DEPTH ? take(w, no) : NULL;
	kind = page ? get16(page + 10) : 0;
	if ((kind != BRANCH && kind != LEAF) || !page_form(w, page, from, to, kind == BRANCH))
		return false;
	n = (get16(page + 12) - HEADER) / 2;
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *node = page + get16(page + HEADER + 2 * i);

		if (kind == LEAF ? !leaf_node(w, node, node_key(page, i), page + w->size)
				 : !tree(w,
					 get16(node) | (uint64_t)get16(node + 2) << 16 |
						 (uint64_t)get16(node + 4) << 32,
					 i > 0 ? node_key(page, i) : from,
					 i + 1 < n ? node_key(page, i + 1) : to, depth + 1))
			return false;
	}
	return true;
}

static bool db(struct walk *w, const uint8_t *head, bool free_list)
{
	uint64_t root = get64(head + 40);

	w->free_list = free_list;
	w->entries = 0;
	if (root != NONE && !tree(w, root, (struct key){0}, (struct key){0}, 0))
		return false;
	return w->end_ms == 0 || (w->entries == get64(head + 32) && (free_list || get16(head + 4) == 0));
}

static bool walk_map(struct walk *w, uint64_t bytes)
{
	const uint8_t *head[2], *newest;

	for (int i = 0; i < 2; i++) {
		head[i] = w->map + (i == 0 ? 0 : w->size) + HEADER;
		if (bytes < 2 * w->size || get32(head[i]) != MAGIC || get32(head[i] + 4) != DATA_VERSION)
			return false;
		w->size = get32(head[i] + 24);
		if (w->size < 512 || w->size > 65536 || (w->size & (w->size - 1)) != 0)
			return false;
	}
	newest = get64(head[0] + 128) < get64(head[1] + 128) ? head[1] : head[0];
	w->n_pages = bytes / w->size;
	w->last = get64(newest + 120);
	if (w->last >= w->n_pages + TXN_PAGES)
		return false;
	w->used = calloc(w->last / 8 + 1, 1);
	/* The tree first: what it has is in use, and must not be free. */
	return !w->used || (db(w, newest + 72, false) && db(w, newest + 24, true));
}

bool walk_ok(const char *path, uint64_t end_ms)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct walk w = {.size = 4096, .end_ms = end_ms};
	struct stat st;
	bool ok;

	/* What the system says here, the opening itself will meet; an empty file is one that LMDB has not begun. */
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
		return true;
	w.map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (w.map == MAP_FAILED)
		return true;
	ok = walk_map(&w, (uint64_t)st.st_size);
	free(w.used);
	munmap((void *)(uintptr_t)w.map, (size_t)st.st_size);
	return ok;
}
