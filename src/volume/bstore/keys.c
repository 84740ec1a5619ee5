/* SPDX-License-Identifier: Apache-2.0 */
/* keys: the kv that replicas see: `now` over `frozen` over LMDB (internal.h), and undo lists.
 *
 * get asks the layers from newest to oldest. seek merges them: the smallest key of all layers, the newest layer's word for it; tombstones are
 * passed over. put and del change `now` only; while a record is applied (b->recording) the state before is kept in its undo list, so
 * that freezing can leave it out and a rollback can take it back. Nothing here touches the disk but LMDB's page faults. */
#include "volume/bstore/internal.h"

#define UNDO_OPS_KEPT 32 /* an undo list up to so long is used again, with its place in the ring */

/* ---- undo ---- */

static int undo_add(struct undo *u, struct mem_entry *e)
{
	if (u->n == u->cap) {
		uint32_t cap = u->cap ? u->cap * 2 : 16;
		struct undo_op *op = realloc(u->op, cap * sizeof(*op));

		if (!op)
			return -ENOMEM;
		u->op = op;
		u->cap = cap;
	}
	u->op[u->n++] = (struct undo_op){e, e->value, e->value_len, e->state};
	e->value = NULL;
	return 0;
}

static void swap_op(struct undo_op *op)
{
	struct mem_entry *e = op->entry;
	struct undo_op was = {e, e->value, e->value_len, e->state};

	e->value = op->value;
	e->value_len = op->value_len;
	e->state = op->state;
	*op = was;
}

/* Entries get the state before u; u keeps the one after. */
void undo_swap_back(struct undo *u)
{
	for (uint32_t i = u->n; i-- > 0;)
		swap_op(&u->op[i]);
}

/* The opposite, into another map: its entries get the state after u, u keeps what was there. */
int undo_swap_forward(struct undo *u, struct mem_map *m)
{
	for (uint32_t i = 0; i < u->n; i++) {
		struct mem_entry *e = mem_make(m, u->op[i].entry->key, u->op[i].entry->key_len);

		if (!e)
			return -ENOMEM;
		u->op[i].entry = e;
		swap_op(&u->op[i]);
		m->bytes += e->value_len;
	}
	return 0;
}

void undo_done(struct undo *u)
{
	for (uint32_t i = 0; i < u->n; i++)
		free(u->op[i].value);
	record_unref(u->rec);
	if (u->cap > UNDO_OPS_KEPT) {
		free(u->op);
		u->op = NULL;
		u->cap = 0;
	}
	*u = (struct undo){.op = u->op, .cap = u->cap};
}

void undo_ring_done(struct undo_ring *r)
{
	for (uint32_t i = 0; i < r->n; i++)
		undo_done(undo_at(r, i));
	for (uint32_t i = 0; i < r->cap; i++)
		free(r->u[i].op);
	free(r->u);
	*r = (struct undo_ring){0};
}

int keys_undo(struct bstore *b, struct undo *u)
{
	undo_swap_back(u);
	undo_done(u);
	return 0;
}

struct undo *undo_push(struct undo_ring *r, struct record *rec)
{
	struct undo *u;

	if (r->n == r->cap) {
		uint32_t cap = r->cap ? r->cap * 2 : 16;

		u = calloc(cap, sizeof(*u));
		if (!u)
			return NULL;
		for (uint32_t i = 0; i < r->n; i++)
			u[i] = *undo_at(r, i);
		free(r->u);
		r->u = u;
		r->at = 0;
		r->cap = cap;
	}
	u = undo_at(r, r->n++);
	u->rec = record_ref(rec);
	return u;
}

/* ---- the layers ---- */

static int base_get(struct bstore *b, const void *key, size_t len, const void **ret, size_t *ret_len)
{
	MDB_val k = {len, (void *)(uintptr_t)key}, v;
	int r = mdb_get(b->read, b->dbi, &k, &v);

	if (r == 0 && !env_value_ok(&k, &v))
		r = MDB_CORRUPTED;
	if (r != 0)
		return env_errno(b, r);
	*ret = v.mv_data;
	*ret_len = v.mv_size;
	return 0;
}

static int keys_get(struct kv *kv, const void *key, size_t len, const void **ret, size_t *ret_len)
{
	struct bstore *b = container_of(kv, struct bstore, kv);
	const struct mem_map *layer[2] = {b->now, b->frozen};

	for (int i = 0; i < 2; i++) {
		const struct mem_entry *e = layer[i] ? mem_find(layer[i], key, len) : NULL;

		if (!e || e->state == MEM_NONE)
			continue;
		if (e->state == MEM_GONE)
			return -ENOENT;
		*ret = e->value;
		*ret_len = e->value_len;
		return 0;
	}
	return base_get(b, key, len, ret, ret_len);
}

static int before_change(struct bstore *b, struct mem_entry *e)
{
	b->now->bytes -= e->value_len;
	if (b->recording)
		return undo_add(b->recording, e);
	free(e->value);
	e->value = NULL;
	return 0;
}

/* An index entry of the very record that is being applied cannot be in any older layer. */
static bool is_new_index(const struct bstore *b, const uint8_t *key, size_t len)
{
	uint64_t seq = 0;

	if (!b->recording_seq || len < 11 || key[2] != 'C')
		return false;
	for (int i = 0; i < 8; i++)
		seq = seq << 8 | key[3 + i];
	return seq == b->recording_seq;
}

static int keys_put(struct kv *kv, const void *key, size_t len, const void *value, size_t value_len)
{
	struct bstore *b = container_of(kv, struct bstore, kv);
	uint8_t *copy = malloc(value_len ? value_len : 1);
	struct mem_entry *e;

	if (copy && value_len)
		memcpy(copy, value, value_len);
	e = copy ? mem_make(b->now, key, len) : NULL;
	if (!e || before_change(b, e) < 0) {
		free(copy);
		return -ENOMEM;
	}
	if (e->state == MEM_NONE && is_new_index(b, key, len))
		e->fresh = true;
	e->value = copy;
	e->value_len = (uint32_t)value_len;
	e->state = MEM_VALUE;
	b->now->bytes += value_len;
	return 0;
}

static int keys_del(struct kv *kv, const void *key, size_t len)
{
	struct bstore *b = container_of(kv, struct bstore, kv);
	struct mem_entry *e = mem_make(b->now, key, len);

	if (!e || before_change(b, e) < 0)
		return -ENOMEM;
	e->value = NULL;
	e->value_len = 0;
	e->state = e->fresh ? MEM_NONE : MEM_GONE;
	return 0;
}

static int base_seek(struct bstore *b, const void *from, size_t len, bool after, MDB_val *k, MDB_val *v)
{
	int r;

	*k = (MDB_val){len, (void *)(uintptr_t)from};
	r = mdb_cursor_get(b->cursor, k, v, MDB_SET_RANGE);
	if (r == 0 && after && k->mv_size == len && memcmp(k->mv_data, from, len) == 0)
		r = mdb_cursor_get(b->cursor, k, v, MDB_NEXT);
	if (r == 0 && !env_value_ok(k, v))
		r = MDB_CORRUPTED;
	return env_errno(b, r);
}

static int base_next(struct bstore *b, MDB_val *k, MDB_val *v)
{
	int r = mdb_cursor_get(b->cursor, k, v, MDB_NEXT);

	if (r == 0 && !env_value_ok(k, v))
		r = MDB_CORRUPTED;
	return env_errno(b, r);
}

/* Everything deleted between from and the next key is passed on the way: by steps along the leaves, not by a search for each. */
static int keys_seek(struct kv *kv, const void *from, size_t len, bool after, size_t within,
		     const void **ret_key, size_t *ret_key_len, const void **ret, size_t *ret_len)
{
	struct bstore *b = container_of(kv, struct bstore, kv);
	struct mem_pos now, frozen = {0};
	const struct mem_entry *a, *f = NULL;
	MDB_val k, v;
	int r;

	ensure(within <= len);
	if (mem_settle(b->now) < 0 || (b->frozen && mem_settle(b->frozen) < 0))
		return -ENOMEM;
	a = mem_seek(b->now, from, len, after, &now);
	if (b->frozen)
		f = mem_seek(b->frozen, from, len, after, &frozen);
	r = base_seek(b, from, len, after, &k, &v);
	/* Bounded: each turn passes one tombstone. */
	for (;;) {
		/* The smallest key of both memory layers; the newer one's entry where both have it. */
		int c = !f ? -1 : !a ? 1 : mem_cmp(a->key, a->key_len, f->key, f->key_len);
		const struct mem_entry *e = c <= 0 ? a : f;
		int d;

		if (r < 0 && r != -ENOENT)
			return r;
		if (!e && r == -ENOENT)
			return -ENOENT;
		d = !e ? 1 : r == -ENOENT ? -1 : mem_cmp(e->key, e->key_len, k.mv_data, k.mv_size);
		if (d > 0) {
			*ret_key = k.mv_data;
			*ret_key_len = k.mv_size;
			*ret = v.mv_data;
			*ret_len = v.mv_size;
		} else {
			*ret_key = e->key;
			*ret_key_len = e->key_len;
			*ret = e->value;
			*ret_len = e->value_len;
		}
		if (*ret_key_len < within || memcmp(*ret_key, from, within) != 0)
			return -ENOENT;
		if (d > 0 || e->state == MEM_VALUE)
			return 0;
		if (c <= 0)
			a = mem_next(&now);
		if (c >= 0)
			f = mem_next(&frozen);
		if (d == 0)
			r = base_next(b, &k, &v);
	}
}

void keys_init(struct bstore *b)
{
	b->kv = (struct kv){.get = keys_get, .put = keys_put, .del = keys_del, .seek = keys_seek};
}
