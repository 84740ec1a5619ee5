/* SPDX-License-Identifier: Apache-2.0 */
/* mem: a skip list for keys, a hash of pages for data. One owner, one thread. Lack of memory ends the process: tests only.
 *
 * Unsynced data: a page remembers the content it had at the last sync when it is first changed afterwards; sync forgets it, a power loss
 * chooses between the two sector by sector. Pages are never taken out of the table while they may have an older content. */
#include "sim/mem.h"

#define LEVELS 20
#define SECTOR 512u

/* ---- keys ---- */

struct knode {
	uint8_t *key, *value;
	size_t key_len, value_len;
	int levels;
	struct knode *next[];
};

struct mem_kv {
	struct kv table;
	struct knode *head;
	size_t n;
	uint64_t seed, left;
	int err;
	struct mem_kv_calls calls;
};

static struct mem_kv *kv_of(struct kv *kv)
{
	return container_of(kv, struct mem_kv, table);
}

static int key_cmp(const struct knode *n, const void *key, size_t len)
{
	int c = memcmp(n->key, key, MIN(n->key_len, len));

	return c != 0 ? c : n->key_len < len ? -1 : n->key_len > len;
}

/* The last node before key on each level. */
static void find(struct mem_kv *m, const void *key, size_t len, struct knode *before[LEVELS])
{
	struct knode *n = m->head;

	for (int l = LEVELS - 1; l >= 0; l--) {
		while (n->next[l] && key_cmp(n->next[l], key, len) < 0)
			n = n->next[l];
		before[l] = n;
	}
}

static struct knode *find_eq(struct mem_kv *m, const void *key, size_t len, struct knode *before[LEVELS])
{
	struct knode *n;

	find(m, key, len, before);
	n = before[0]->next[0];
	return n && key_cmp(n, key, len) == 0 ? n : NULL;
}

static int kv_get(struct kv *kv, const void *key, size_t len, const void **ret, size_t *ret_len)
{
	struct knode *before[LEVELS], *n = find_eq(kv_of(kv), key, len, before);

	kv_of(kv)->calls.get++;
	if (!n)
		return -ENOENT;
	*ret = n->value;
	*ret_len = n->value_len;
	return 0;
}

/* Moves what memory kept of a changed map, so that a pointer used too long is seen by the address sanitizer. */
static void set_value(struct knode *n, const void *value, size_t len)
{
	uint8_t *v = xcalloc(1, len + 1);

	if (len > 0)
		memcpy(v, value, len);
	free(n->value);
	n->value = v;
	n->value_len = len;
}

static struct knode *knode_new(const void *key, size_t len, int levels)
{
	struct knode *n = xcalloc(1, sizeof(*n) + (size_t)levels * sizeof(n->next[0]));

	n->levels = levels;
	n->key = xcalloc(1, len + 1);
	if (len > 0)
		memcpy(n->key, key, len);
	n->key_len = len;
	return n;
}

static bool spent(uint64_t *left)
{
	if (*left == UINT64_MAX)
		return false;
	if (*left == 0)
		return true;
	(*left)--;
	return false;
}

static int kv_put(struct kv *kv, const void *key, size_t len, const void *value, size_t value_len)
{
	struct mem_kv *m = kv_of(kv);
	struct knode *before[LEVELS], *n = find_eq(m, key, len, before);
	int levels = 1;

	m->calls.put++;
	if (spent(&m->left))
		return m->err;
	if (n) {
		set_value(n, value, value_len);
		return 0;
	}
	m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
	for (uint64_t r = m->seed >> 20; (r & 3) == 0 && levels < LEVELS; r >>= 2)
		levels++;
	n = knode_new(key, len, levels);
	set_value(n, value, value_len);
	for (int l = 0; l < levels; l++) {
		n->next[l] = before[l]->next[l];
		before[l]->next[l] = n;
	}
	m->n++;
	return 0;
}

static void knode_free(struct knode *n)
{
	free(n->key);
	free(n->value);
	free(n);
}

static int kv_del(struct kv *kv, const void *key, size_t len)
{
	struct mem_kv *m = kv_of(kv);
	struct knode *before[LEVELS], *n = find_eq(m, key, len, before);

	m->calls.del++;
	if (spent(&m->left))
		return m->err;
	if (!n)
		return 0;
	for (int l = 0; l < n->levels; l++)
		before[l]->next[l] = n->next[l];
	knode_free(n);
	m->n--;
	return 0;
}

static int kv_seek(struct kv *kv, const void *from, size_t len, bool after, size_t within,
		   const void **ret_key, size_t *ret_key_len, const void **ret, size_t *ret_len)
{
	struct knode *before[LEVELS], *n;

	ensure(within <= len);
	kv_of(kv)->calls.seek++;
	find(kv_of(kv), from, len, before);
	n = before[0]->next[0];
	if (n && after && key_cmp(n, from, len) == 0)
		n = n->next[0];
	if (!n || n->key_len < within || memcmp(n->key, from, within) != 0)
		return -ENOENT;
	*ret_key = n->key;
	*ret_key_len = n->key_len;
	*ret = n->value;
	*ret_len = n->value_len;
	return 0;
}

struct mem_kv *mem_kv_new(void)
{
	struct mem_kv *m = xcalloc(1, sizeof(*m));

	m->table = (struct kv){kv_get, kv_put, kv_del, kv_seek};
	m->head = knode_new("", 0, LEVELS);
	m->left = UINT64_MAX;
	m->seed = 1;
	return m;
}

struct mem_kv *mem_kv_free(struct mem_kv *m)
{
	struct knode *next;

	if (!m)
		return NULL;
	for (struct knode *n = m->head; n; n = next) {
		next = n->next[0];
		knode_free(n);
	}
	free(m);
	return NULL;
}

struct kv *mem_kv_table(struct mem_kv *m)
{
	return &m->table;
}

struct mem_kv *mem_kv_clone(const struct mem_kv *m)
{
	struct mem_kv *c = mem_kv_new();

	struct knode *last[LEVELS];

	for (int l = 0; l < LEVELS; l++)
		last[l] = c->head;
	for (const struct knode *n = m->head->next[0]; n; n = n->next[0]) {
		struct knode *copy = knode_new(n->key, n->key_len, n->levels);

		set_value(copy, n->value, n->value_len);
		for (int l = 0; l < n->levels; l++) {
			last[l]->next[l] = copy;
			last[l] = copy;
		}
	}
	c->n = m->n;
	c->seed = m->seed;
	c->left = m->left;
	c->err = m->err;
	return c;
}

size_t mem_kv_len(const struct mem_kv *m)
{
	return m->n;
}

bool mem_kv_eq(const struct mem_kv *a, const struct mem_kv *b)
{
	const struct knode *x = a->head->next[0], *y = b->head->next[0];

	for (; x && y; x = x->next[0], y = y->next[0])
		if (key_cmp(x, y->key, y->key_len) != 0 || x->value_len != y->value_len ||
		    memcmp(x->value, y->value, x->value_len) != 0)
			return false;
	return !x && !y;
}

void mem_kv_fail(struct mem_kv *m, uint64_t n, int err)
{
	m->left = n;
	m->err = err;
}

struct mem_kv_calls mem_kv_calls(struct mem_kv *m, bool reset)
{
	struct mem_kv_calls c = m->calls;

	if (reset)
		m->calls = (struct mem_kv_calls){0};
	return c;
}

/* ---- data ---- */

struct page {
	struct page *next;
	uint32_t group;
	struct vol_ino ino;
	uint64_t index;
	bool here, dirty,
		was; /* here: has data now; dirty: changed since the last sync; was: had data then */
	uint8_t now[VOL_BLOCK], *old;
};

struct mem_blob {
	struct blob table;
	struct page **bucket;
	size_t n_buckets, n;
	uint64_t left;
	int err, read_err;
};

static struct mem_blob *blob_of(struct blob *b)
{
	return container_of(b, struct mem_blob, table);
}

static uint64_t page_hash(uint32_t group, const struct vol_ino *ino, uint64_t index)
{
	uint64_t h = hash_fnv64(ino->folder.b, sizeof(ino->folder.b));

	h = (h ^ ino->num) * 0x9e3779b97f4a7c15u;
	h = (h ^ index ^ (uint64_t)group << 40) * 0xbf58476d1ce4e5b9u;
	return h ^ h >> 29;
}

static struct page *page_find(const struct mem_blob *m, uint32_t group, const struct vol_ino *ino,
			      uint64_t index)
{
	struct page *p = m->bucket[page_hash(group, ino, index) % m->n_buckets];

	while (p && !(p->index == index && p->group == group && vol_ino_eq(&p->ino, ino)))
		p = p->next;
	return p;
}

static void grow(struct mem_blob *m)
{
	size_t n = m->n_buckets * 4;
	struct page **bucket = xcalloc(n, sizeof(*bucket)), *next;

	for (size_t i = 0; i < m->n_buckets; i++)
		for (struct page *p = m->bucket[i]; p; p = next) {
			struct page **at = &bucket[page_hash(p->group, &p->ino, p->index) % n];

			next = p->next;
			p->next = *at;
			*at = p;
		}
	free(m->bucket);
	m->bucket = bucket;
	m->n_buckets = n;
}

static struct page *page_make(struct mem_blob *m, uint32_t group, const struct vol_ino *ino, uint64_t index)
{
	struct page *p = page_find(m, group, ino, index), **at;

	if (p)
		return p;
	if (m->n > m->n_buckets)
		grow(m);
	p = xcalloc(1, sizeof(*p));
	p->group = group;
	p->ino = *ino;
	p->index = index;
	at = &m->bucket[page_hash(group, ino, index) % m->n_buckets];
	p->next = *at;
	*at = p;
	m->n++;
	return p;
}

/* Before its first change since the last sync: keep what it was. */
static void page_touch(struct page *p)
{
	if (p->dirty)
		return;
	p->dirty = true;
	p->was = p->here;
	if (p->here) {
		p->old = xcalloc(1, VOL_BLOCK);
		memcpy(p->old, p->now, VOL_BLOCK);
	}
}

static int blob_write(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off,
		      const void *data, uint32_t len)
{
	struct mem_blob *m = blob_of(b);
	const uint8_t *from = data;

	if (spent(&m->left))
		return m->err;
	while (len > 0) {
		uint32_t at = off % VOL_BLOCK, part = MIN(len, VOL_BLOCK - at);
		struct page *p = page_make(m, group, ino, off / VOL_BLOCK);

		page_touch(p);
		memcpy(p->now + at, from, part);
		p->here = true;
		from += part;
		off += part;
		len -= part;
	}
	return 0;
}

static int blob_read(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off, void *data,
		     uint32_t len)
{
	struct mem_blob *m = blob_of(b);
	uint8_t *to = data;

	if (m->read_err < 0)
		return m->read_err;
	while (len > 0) {
		uint32_t at = off % VOL_BLOCK, part = MIN(len, VOL_BLOCK - at);
		const struct page *p = page_find(m, group, ino, off / VOL_BLOCK);

		if (p && p->here)
			memcpy(to, p->now + at, part);
		else
			memset(to, 0, part);
		to += part;
		off += part;
		len -= part;
	}
	return 0;
}

/* Zeros [off, end) of one page; a page that is all inside loses its data. */
static void page_clear(struct page *p, uint64_t off, uint64_t end)
{
	uint64_t start = p->index * VOL_BLOCK, stop = start + VOL_BLOCK;

	if (!p->here || end <= start || off >= stop)
		return;
	page_touch(p);
	off = MAX(off, start);
	end = MIN(end, stop);
	memset(p->now + (off - start), 0, end - off);
	if (off == start && end == stop)
		p->here = false;
}

static int clear(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off, uint64_t end)
{
	struct mem_blob *m = blob_of(b);

	if (spent(&m->left))
		return m->err;
	if (end - off <= 64 * VOL_BLOCK) {
		for (uint64_t i = off / VOL_BLOCK; i * VOL_BLOCK < end; i++) {
			struct page *p = page_find(m, group, ino, i);

			if (p)
				page_clear(p, off, end);
		}
		return 0;
	}
	for (size_t i = 0; i < m->n_buckets; i++)
		for (struct page *p = m->bucket[i]; p; p = p->next)
			if (p->group == group && vol_ino_eq(&p->ino, ino))
				page_clear(p, off, end);
	return 0;
}

static int blob_trim(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off)
{
	return clear(b, group, ino, off, UINT64_MAX);
}

static int blob_punch(struct blob *b, uint32_t group, const struct vol_ino *ino, uint64_t off, uint64_t len)
{
	return clear(b, group, ino, off, off + len);
}

static int blob_drop(struct blob *b, uint32_t group, const struct vol_ino *ino)
{
	return clear(b, group, ino, 0, UINT64_MAX);
}

struct mem_blob *mem_blob_new(void)
{
	struct mem_blob *m = xcalloc(1, sizeof(*m));

	m->table = (struct blob){blob_write, blob_read, blob_trim, blob_punch, blob_drop};
	m->n_buckets = 256;
	m->bucket = xcalloc(m->n_buckets, sizeof(*m->bucket));
	m->left = UINT64_MAX;
	return m;
}

struct mem_blob *mem_blob_free(struct mem_blob *m)
{
	struct page *next;

	if (!m)
		return NULL;
	for (size_t i = 0; i < m->n_buckets; i++)
		for (struct page *p = m->bucket[i]; p; p = next) {
			next = p->next;
			free(p->old);
			free(p);
		}
	free(m->bucket);
	free(m);
	return NULL;
}

struct blob *mem_blob_table(struct mem_blob *m)
{
	return &m->table;
}

struct mem_blob *mem_blob_clone(const struct mem_blob *m)
{
	struct mem_blob *c = mem_blob_new();

	for (size_t i = 0; i < m->n_buckets; i++)
		for (const struct page *p = m->bucket[i]; p; p = p->next) {
			struct page *copy = page_make(c, p->group, &p->ino, p->index);

			copy->here = p->here;
			copy->dirty = p->dirty;
			copy->was = p->was;
			memcpy(copy->now, p->now, VOL_BLOCK);
			if (p->old) {
				copy->old = xcalloc(1, VOL_BLOCK);
				memcpy(copy->old, p->old, VOL_BLOCK);
			}
		}
	c->left = m->left;
	c->err = m->err;
	c->read_err = m->read_err;
	return c;
}

/* Calls fn for every page and frees those that are neither there nor changed. */
static void each_page(struct mem_blob *m, void (*fn)(struct page *p, void *ctx), void *ctx)
{
	for (size_t i = 0; i < m->n_buckets; i++)
		for (struct page **at = &m->bucket[i]; *at;) {
			struct page *p = *at;

			fn(p, ctx);
			if (p->here || p->dirty) {
				at = &p->next;
				continue;
			}
			*at = p->next;
			free(p->old);
			free(p);
			m->n--;
		}
}

static void settle(struct page *p)
{
	p->dirty = false;
	free(p->old);
	p->old = NULL;
}

static void sync_page(struct page *p, void *ctx)
{
	settle(p);
}

void mem_blob_sync(struct mem_blob *m)
{
	each_page(m, sync_page, NULL);
}

struct dice {
	uint64_t (*random)(void *ctx);
	void *ctx;
};

static void lose_page(struct page *p, void *ctx)
{
	struct dice *d = ctx;
	uint64_t r;
	static const uint8_t zeros[VOL_BLOCK];
	const uint8_t *old = p->old ? p->old : zeros;

	if (!p->dirty)
		return;
	r = d->random(d->ctx);
	switch (r & 3) {
	case 0: /* the new content reached the disk */
		break;
	case 1: /* torn */
		for (uint32_t s = 0; s < VOL_BLOCK / SECTOR; s++)
			if (r >> (8 + s) & 1)
				memcpy(p->now + s * SECTOR, old + s * SECTOR, SECTOR);
		p->here = p->here || p->was;
		break;
	default:
		memcpy(p->now, old, VOL_BLOCK);
		p->here = p->was;
	}
	if (!p->here)
		memset(p->now, 0, VOL_BLOCK);
	settle(p);
}

void mem_blob_power_loss(struct mem_blob *m, uint64_t (*random)(void *ctx), void *ctx)
{
	struct dice d = {random, ctx};

	each_page(m, lose_page, &d);
}

bool mem_blob_rot(struct mem_blob *m, uint32_t group, const struct vol_ino *ino, uint64_t off)
{
	struct page *p = page_find(m, group, ino, off / VOL_BLOCK);

	if (!p || !p->here)
		return false;
	p->now[off % VOL_BLOCK] ^= 0x10;
	return true;
}

void mem_blob_fail(struct mem_blob *m, uint64_t n, int err)
{
	m->left = n;
	m->err = err;
}

void mem_blob_fail_reads(struct mem_blob *m, int err)
{
	m->read_err = err;
}

static bool covers(const struct mem_blob *a, const struct mem_blob *b)
{
	static const uint8_t zeros[VOL_BLOCK];

	for (size_t i = 0; i < a->n_buckets; i++)
		for (const struct page *p = a->bucket[i]; p; p = p->next) {
			const struct page *q = page_find(b, p->group, &p->ino, p->index);

			if (p->here && memcmp(p->now, q && q->here ? q->now : zeros, VOL_BLOCK) != 0)
				return false;
		}
	return true;
}

bool mem_blob_eq(const struct mem_blob *a, const struct mem_blob *b)
{
	return covers(a, b) && covers(b, a);
}

size_t mem_blob_pages(const struct mem_blob *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_buckets; i++)
		for (const struct page *p = m->bucket[i]; p; p = p->next)
			n += p->here;
	return n;
}
