/* SPDX-License-Identifier: Apache-2.0 */
/* replica: a member's keys: applying records to them, the index of changes, the view for core/vfs. File data is in slice.c, bringing a member
 * up to date in delta.c. One owner, one thread; no allocation while a record is applied.
 *
 * A put costs one put of the key, and a record one more of its index entry (C seq -> keys): index entries of older changes of the same key stay and
 * are skipped by the walk. So the index holds what changed since `floor` plus stale entries; replica_forget drops what every member is past.
 *
 * While catching up, live records and the delta come at the same time, and the newer change of a key wins by its sequence number; a deletion leaves
 * its number under Z so that an older put that comes later loses. Outside of that there are no Z keys and no comparison. */
#include "core/repl/state.h"

#define G_LEN	   45u
#define FORGET_MAX 4096

/* ---- keys ---- */

size_t state_key(const struct replica *r, const void *key, size_t len, uint8_t out[KEY_ROOM])
{
	be16_put(out, (uint16_t)r->group);
	memcpy(out + 2, key, len);
	return len + 2;
}

size_t ino_key(const struct replica *r, uint8_t kind, const struct vol_ino *ino, uint8_t out[KEY_ROOM])
{
	be16_put(out, (uint16_t)r->group);
	out[2] = kind;
	memcpy(out + 3, ino->folder.b, 16);
	be64_put(out + 19, ino->num);
	return 27;
}

size_t stripe_key(const struct replica *r, uint8_t kind, const struct vol_ino *ino, uint32_t index,
		  uint8_t out[KEY_ROOM])
{
	size_t n = ino_key(r, kind, ino, out);

	be32_put(out + n, index);
	return n + 4;
}

void ino_of_key(const uint8_t *key, struct vol_ino *ret)
{
	memcpy(ret->folder.b, key + 3, 16);
	ret->num = be64_get(key + 19);
}

int kind_seek(struct replica *r, const uint8_t *from, size_t len, bool after, size_t within,
	      const uint8_t **ret_key, size_t *ret_key_len, const uint8_t **ret, size_t *ret_len)
{
	const void *key, *value;
	size_t key_len, value_len;
	int err = r->kv->seek(r->kv, from, len, after, within, &key, &key_len, &value, &value_len);

	if (err < 0)
		return err;
	*ret_key = key;
	*ret_key_len = key_len;
	*ret = value;
	*ret_len = value_len;
	return 0;
}

int key_put(struct replica *r, const uint8_t *key, size_t key_len, uint64_t seq, const void *value,
	    size_t len)
{
	uint8_t *v = r->scratch->value;

	be64_put(v, seq);
	if (len > 0)
		memcpy(v + PREFIX, value, len);
	return r->kv->put(r->kv, key, key_len, v, PREFIX + len);
}

uint64_t key_seq(struct replica *r, const uint8_t *key, size_t len)
{
	const void *value;
	size_t value_len;

	if (r->kv->get(r->kv, key, len, &value, &value_len) < 0 || value_len < PREFIX)
		return 0;
	return be64_get(value);
}

/* Z is put between the group and the key. */
static size_t tomb_key(const uint8_t *key, size_t len, uint8_t out[KEY_ROOM])
{
	memcpy(out, key, 2);
	out[2] = 'Z';
	memcpy(out + 3, key + 2, len - 2);
	return len + 1;
}

uint64_t tomb_seq(struct replica *r, const uint8_t *key, size_t len)
{
	uint8_t z[KEY_ROOM];

	return key_seq(r, z, tomb_key(key, len, z));
}

int tomb_put(struct replica *r, const uint8_t *key, size_t len, uint64_t seq)
{
	uint8_t z[KEY_ROOM], v[8];

	be64_put(v, seq);
	return r->kv->put(r->kv, z, tomb_key(key, len, z), v, sizeof(v));
}

/* ---- G ---- */

static int get_group(struct replica *r, const uint8_t **ret)
{
	uint8_t k[3];
	const void *value;
	size_t len;
	int err;

	be16_put(k, (uint16_t)r->group);
	k[2] = 'G';
	err = r->kv->get(r->kv, k, sizeof(k), &value, &len);
	if (err < 0)
		return err;
	*ret = value;
	return len == G_LEN ? 0 : -EBADMSG;
}

int group_put(struct replica *r, uint64_t committed)
{
	uint8_t k[3], v[G_LEN];

	be16_put(k, (uint16_t)r->group);
	k[2] = 'G';
	be64_put(v, r->epoch);
	be64_put(v + 8, r->seq);
	be64_put(v + 16, committed);
	be64_put(v + 24, r->floor);
	be64_put(v + 32, r->tombs);
	be32_put(v + 40, r->session);
	v[44] = r->dirty;
	return r->kv->put(r->kv, k, sizeof(k), v, sizeof(v));
}

int replica_save(struct replica *r, uint64_t committed)
{
	return group_put(r, committed);
}

int replica_saved_committed(struct replica *r, uint64_t *ret)
{
	const uint8_t *v;
	int err = get_group(r, &v);

	*ret = 0;
	if (err == 0)
		*ret = be64_get(v + 16);
	return err == -ENOENT ? 0 : err;
}

int replica_init(struct replica *r, uint32_t group, uint32_t stripe_size, struct kv *kv, struct blob *blob)
{
	uint32_t blocks = stripe_size / VOL_BLOCK;
	struct replica_scratch *s;
	const uint8_t *v;
	int err;

	memset(r, 0, sizeof(*r));
	r->group = group;
	r->stripe_size = stripe_size;
	r->kv = kv;
	r->blob = blob;
	s = r->scratch = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->blocks = blocks;
	s->value = malloc(VALUE_MAX + 8192);
	s->data = aligned_alloc(VOL_BLOCK, SMALL_DATA + 2 * VOL_BLOCK);
	s->crc = calloc(blocks, sizeof(*s->crc));
	s->mask = calloc(1, blocks / 8 + 1);
	if (!s->value || !s->data || !s->crc || !s->mask) {
		replica_done(r);
		return -ENOMEM;
	}
	err = get_group(r, &v);
	if (err == 0) {
		r->epoch = be64_get(v);
		r->seq = be64_get(v + 8);
		r->floor = be64_get(v + 24);
		r->tombs = be64_get(v + 32);
		r->session = be32_get(v + 40);
		r->dirty = v[44] != 0;
	}
	if (err < 0 && err != -ENOENT)
		replica_done(r);
	return err == -ENOENT ? 0 : err;
}

void replica_done(struct replica *r)
{
	struct replica_pull *next;

	for (struct replica_pull *p = r->pulls; p; p = next) {
		next = p->next;
		free(p);
	}
	r->pulls = NULL;
	if (!r->scratch)
		return;
	free(r->scratch->value);
	free(r->scratch->data);
	free(r->scratch->crc);
	free(r->scratch->mask);
	free(r->scratch);
	r->scratch = NULL;
}

/* ---- the view ---- */

static bool visible(uint8_t kind)
{
	return kind && memchr("DEILNOTX", kind, 8) != NULL;
}

static int view_get(struct kv *kv, const void *key, size_t len, const void **ret, size_t *ret_len)
{
	struct replica *r = kv->ctx;
	uint8_t k[KEY_ROOM];
	const void *value;
	size_t value_len;
	int err;

	if (len == 0 || len > KEY_MAX || !visible(*(const uint8_t *)key))
		return -ENOENT;
	err = r->kv->get(r->kv, k, state_key(r, key, len, k), &value, &value_len);
	if (err < 0)
		return err;
	if (value_len < PREFIX)
		return -EIO;
	*ret = (const uint8_t *)value + PREFIX;
	*ret_len = value_len - PREFIX;
	return 0;
}

static int view_change(struct kv *kv, const void *key, size_t len, const void *value, size_t value_len)
{
	return -EPERM; /* changes are records */
}

static int view_del(struct kv *kv, const void *key, size_t len)
{
	return -EPERM;
}

static int view_seek(struct kv *kv, const void *from, size_t len, bool after, size_t within,
		     const void **ret_key, size_t *ret_key_len, const void **ret, size_t *ret_len)
{
	struct replica *r = kv->ctx;
	uint8_t k[KEY_ROOM];
	const void *key, *value;
	size_t n, key_len, value_len;

	if (len > KEY_MAX)
		return -EINVAL;
	n = state_key(r, from, len, k);
	for (int jump = 0; jump < 16; jump++) { /* at most one a hidden kind */
		int err = r->kv->seek(r->kv, k, n, after, WITHIN_GROUP + within, &key, &key_len, &value,
				      &value_len);
		uint8_t kind;

		if (err < 0)
			return err;
		if (key_len < 3)
			return -ENOENT;
		kind = ((const uint8_t *)key)[2];
		if (visible(kind)) {
			if (value_len < PREFIX)
				return -EIO;
			*ret_key = (const uint8_t *)key + 2;
			*ret_key_len = key_len - 2;
			*ret = (const uint8_t *)value + PREFIX;
			*ret_len = value_len - PREFIX;
			return 0;
		}
		if (within > 0)
			return -ENOENT; /* all of them are hidden */
		k[2] = (uint8_t)(kind + 1);
		n = 3;
		after = false;
	}
	return -ENOENT;
}

void replica_view(struct replica *r, struct kv *ret_view)
{
	*ret_view = (struct kv){
		.get = view_get, .put = view_change, .del = view_del, .seek = view_seek, .ctx = r};
}

/* ---- index ---- */

static size_t index_key(const struct replica *r, uint64_t seq, uint16_t i, uint8_t out[KEY_ROOM])
{
	be16_put(out, (uint16_t)r->group);
	out[2] = 'C';
	be64_put(out + 3, seq);
	be16_put(out + 11, i);
	return 13;
}

/* Beyond the bound the oldest entry goes and floor rises. */
static int index_bound(struct replica *r)
{
	uint8_t k[KEY_ROOM];
	const uint8_t *key, *value;
	size_t key_len, len, n;
	int err;

	if (r->tombs <= REPLICA_INDEX_MAX)
		return 0;
	n = index_key(r, r->floor, 0, k);
	err = kind_seek(r, k, n, false, WITHIN_KIND, &key, &key_len, &value, &len);
	if (err < 0)
		return err == -ENOENT ? 0 : err;
	if (key_len != 13)
		return -EIO;
	memcpy(k, key, key_len);
	r->floor = MAX(r->floor, be64_get(k + 3));
	err = r->kv->del(r->kv, k, key_len);
	if (err == 0)
		r->tombs--;
	return err;
}

static int index_put(struct replica *r, uint64_t seq, uint16_t i, const void *keys, size_t len)
{
	uint8_t k[KEY_ROOM];
	int err = r->kv->put(r->kv, k, index_key(r, seq, i, k), keys, len);

	if (err < 0)
		return err;
	r->tombs++;
	return index_bound(r);
}

int index_flush(struct replica *r)
{
	struct replica_scratch *s = r->scratch;
	int err;

	if (s->index_len == 0)
		return 0;
	err = index_put(r, s->index_seq, s->index_i, s->index, s->index_len);
	s->index_len = 0;
	s->index_i++; /* only a drop of thousands of stripes comes here again; more than 32,768 entries would need 1.6e7 stripes */
	return err;
}

int index_add(struct replica *r, const uint8_t *key, size_t len)
{
	struct replica_scratch *s = r->scratch;
	int err;

	key += 2; /* without the group */
	len -= 2;
	if (s->index_len + 2 + len > INDEX_ENTRY_MAX) {
		err = index_flush(r);
		if (err < 0)
			return err;
	}
	be16_put(s->index + s->index_len, (uint16_t)len);
	memcpy(s->index + s->index_len + 2, key, len);
	s->index_len += 2 + (uint32_t)len;
	return 0;
}

/* A change that came by a delta gets an entry of its own; entries of one record are numbered from a hash on, to the first free one. */
int index_item(struct replica *r, uint64_t seq, const uint8_t *key, size_t len)
{
	uint8_t k[KEY_ROOM], v[KEY_ROOM];
	uint16_t i = (uint16_t)(0x8000u | (hash_fnv32(key, len) & 0x7fffu));
	const void *value;
	size_t value_len;

	be16_put(v, (uint16_t)(len - 2));
	memcpy(v + 2, key + 2, len - 2);
	for (int probe = 0; probe < 4096; probe++) {
		int err = r->kv->get(r->kv, k, index_key(r, seq, i, k), &value, &value_len);

		if (err == -ENOENT)
			return index_put(r, seq, i, v, len);
		if (err < 0)
			return err;
		if (value_len == len && memcmp(value, v, len) == 0)
			return 0; /* named twice */
		i = (uint16_t)(0x8000u | ((i + 1u) & 0x7fffu));
	}
	return -E2BIG;
}

int replica_forget(struct replica *r, uint64_t seq)
{
	uint8_t k[KEY_ROOM];

	for (int n = 0; n < FORGET_MAX; n++) {
		const uint8_t *key, *value;
		size_t key_len, len;
		int err = kind_seek(r, k, index_key(r, r->floor, 0, k), false, WITHIN_KIND, &key, &key_len,
				    &value, &len);

		if (err == -ENOENT || (err == 0 && be64_get(key + 3) > seq)) {
			if (r->floor < MIN(seq, r->seq))
				r->floor = MIN(seq, r->seq);
			return 0;
		}
		if (err < 0)
			return err;
		memcpy(k, key, 13);
		r->floor = MAX(r->floor, be64_get(k + 3));
		err = r->kv->del(r->kv, k, 13);
		if (err < 0)
			return err;
		r->tombs -= r->tombs > 0;
	}
	return 1;
}

/* ---- applying ---- */

static int apply_put(struct replica *r, const struct effect *f, uint64_t seq)
{
	uint8_t k[KEY_ROOM];
	size_t n = state_key(r, f->key, f->key_len, k);
	int err;

	if (r->scratch->mode == MODE_LIVE && MAX(key_seq(r, k, n), tomb_seq(r, k, n)) > seq)
		return 0;
	err = key_put(r, k, n, seq, f->value, f->value_len);
	return err < 0 ? err : index_add(r, k, n);
}

static int apply_del(struct replica *r, const struct effect *f, uint64_t seq)
{
	uint8_t k[KEY_ROOM];
	size_t n = state_key(r, f->key, f->key_len, k);
	int err;

	if (r->scratch->mode == MODE_LIVE) {
		if (MAX(key_seq(r, k, n), tomb_seq(r, k, n)) > seq)
			return 0;
		err = tomb_put(r, k, n, seq);
		if (err < 0)
			return err;
	}
	err = r->kv->del(r->kv, k, n);
	return err < 0 ? err : index_add(r, k, n);
}

static int apply_effect(struct replica *r, const struct record *rec, const struct effect *f)
{
	switch (f->type) {
	case EFFECT_PUT:
		return apply_put(r, f, rec->seq);
	case EFFECT_DEL:
		return apply_del(r, f, rec->seq);
	case EFFECT_WRITE:
		return slice_write(r, rec, f, rec->seq);
	case EFFECT_TRIM:
		return slice_trim(r, f, rec->seq);
	case EFFECT_PUNCH:
		return slice_punch(r, f, rec->seq);
	case EFFECT_DROP:
		return slice_drop(r, f, rec->seq);
	case EFFECT_NOTE:
		return 0;
	}
	return -EBADMSG;
}

static int apply(struct replica *r, const struct record *rec, enum mode mode)
{
	struct replica_scratch *s = r->scratch;

	s->mode = mode;
	s->index_len = 0;
	s->index_i = 0;
	s->index_seq = rec->seq;
	s->patch_at = 0;
	if (mode != MODE_REPLAY)
		r->n_patches = 0;
	for (s->effect = 0; s->effect < rec->n; s->effect++) {
		int err = apply_effect(r, rec, &rec->effect[s->effect]);

		if (err < 0)
			return err;
	}
	return index_flush(r);
}

int replica_apply(struct replica *r, const struct record *rec, bool replay)
{
	int err;

	if (r->catching)
		return replica_apply_live(r, rec);
	if (rec->group != r->group || rec->seq != r->seq + 1 || rec->epoch < r->epoch)
		return -EBADMSG;
	err = apply(r, rec, replay ? MODE_REPLAY : MODE_NORMAL);
	if (err < 0)
		return err;
	r->seq = rec->seq;
	r->epoch = rec->epoch;
	return 0;
}

int replica_apply_live(struct replica *r, const struct record *rec)
{
	int err;

	if (!r->catching)
		return rec->group == r->group && rec->seq <= r->seq ? 0 : replica_apply(r, rec, false);
	if (rec->group != r->group || rec->epoch < r->live_epoch ||
	    (r->live_first > 0 ? rec->seq != r->live_seq + 1 : rec->seq == 0))
		return -EBADMSG;
	err = apply(r, rec, MODE_LIVE);
	if (err < 0)
		return err;
	if (r->live_first == 0)
		r->live_first = rec->seq;
	r->live_seq = rec->seq;
	r->live_epoch = rec->epoch;
	return 0;
}
