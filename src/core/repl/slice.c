/* SPDX-License-Identifier: Apache-2.0 */
/* slice: file data of one inode in one group and the checksums of its blocks, one S key a stripe.
 *
 * A block is whole (its checksum came with the record), or partly changed: then it is read, its old checksum must hold (else it is bad from here on), the
 * bytes are laid over it and the new checksum is kept and given out as a patch for the log. A hole's bytes on disk may be anything (of a record that was
 * cut): a partly written hole is written whole, with zeros around, and reading a hole never looks at the disk.
 *
 * While catching up, what a block's content was before is not known unless a live record or a pull of this session made it whole; the mask in S says
 * which those are. A partial change of any other block makes it bad: it is pulled later. */
#include "core/repl/state.h"

#define TAIL 12u /* of S: base8 session4, then the mask */

static uint32_t mask_len(const struct replica *r)
{
	return (r->scratch->blocks + 7) / 8;
}

size_t stripe_plain(const uint8_t *value, size_t len)
{
	size_t plain;

	if (len < PREFIX + 6)
		return 0;
	plain = PREFIX + 6 + 4 * (size_t)be16_get(value + PREFIX + 4);
	return plain <= len ? plain : 0;
}

static bool any_bad(const uint32_t *crc, uint32_t n)
{
	bool bad = false;

	for (uint32_t i = 0; i < n; i++)
		bad |= crc[i] == BLOCK_CRC_BAD;
	return bad;
}

int stripe_parse(struct replica *r, const uint8_t *value, size_t len, struct stripe *st)
{
	struct replica_scratch *s = r->scratch;
	size_t plain = stripe_plain(value, len);
	uint32_t n;

	if (plain == 0 || (len != plain && len != plain + TAIL + mask_len(r)))
		return -EIO;
	n = be16_get(value + PREFIX + 4);
	if (n > s->blocks)
		return -EIO;
	st->found = true;
	st->seq = st->base = be64_get(value);
	st->gen = be32_get(value + PREFIX);
	memcpy(s->crc, value + PREFIX + 6, n * sizeof(*s->crc));
	memset(s->crc + n, 0, (s->blocks - n) * sizeof(*s->crc));
	st->had_bad = any_bad(s->crc, n);
	if (len > plain) {
		st->live = r->catching && be32_get(value + plain + 8) == r->session;
		/* Over what an earlier session's delta brought, older live records may lie, and those that came behind them never arrived. */
		st->base = st->live ? be64_get(value + plain) : 0;
		if (st->live)
			memcpy(s->mask, value + plain + TAIL, mask_len(r));
	}
	return 0;
}

/* Z of an S or H key, of this session only. */
static bool session_tomb(struct replica *r, const uint8_t *key, size_t len, uint64_t *ret_seq,
			 uint64_t *ret_off)
{
	uint8_t z[KEY_ROOM];
	const void *value;
	size_t value_len;

	memcpy(z, key, 2);
	z[2] = 'Z';
	memcpy(z + 3, key + 2, len - 2);
	if (r->kv->get(r->kv, z, len + 1, &value, &value_len) < 0 || value_len != 20 ||
	    be32_get((const uint8_t *)value + 16) != r->session)
		return false;
	*ret_seq = be64_get(value);
	*ret_off = be64_get((const uint8_t *)value + 8);
	return true;
}

static int session_tomb_put(struct replica *r, const uint8_t *key, size_t len, uint64_t seq, uint64_t off)
{
	uint8_t z[KEY_ROOM], v[20];

	memcpy(z, key, 2);
	z[2] = 'Z';
	memcpy(z + 3, key + 2, len - 2);
	be64_put(v, seq);
	be64_put(v + 8, off);
	be32_put(v + 16, r->session);
	return r->kv->put(r->kv, z, len + 1, v, sizeof(v));
}

/* First touch of a stripe in a session: which of its blocks are known, because live records cut or punched them before. */
static void mask_start(struct replica *r, struct stripe *st)
{
	struct replica_scratch *s = r->scratch;
	uint8_t k[KEY_ROOM];
	uint64_t seq, off;

	st->live = true;
	memset(s->mask, 0, mask_len(r));
	if (session_tomb(r, k, stripe_key(r, 'S', &st->ino, st->index, k), &seq, &off))
		memset(s->mask, 0xff, mask_len(r));
	if (session_tomb(r, k, ino_key(r, 'H', &st->ino, k), &seq, &off))
		for (uint32_t i = 0; i < s->blocks; i++)
			if ((st->first + i) * VOL_BLOCK >= off) {
				s->crc[i] = bit_get(s->mask, i) ? s->crc[i] : BLOCK_CRC_HOLE;
				bit_set(s->mask, i);
			}
}

uint64_t stripe_cut_seq(struct replica *r, const struct vol_ino *ino, uint32_t index)
{
	uint8_t k[KEY_ROOM];
	uint64_t seq, off, newest = 0;

	if (session_tomb(r, k, stripe_key(r, 'S', ino, index, k), &seq, &off))
		newest = seq;
	if (session_tomb(r, k, ino_key(r, 'H', ino, k), &seq, &off) &&
	    off <= (uint64_t)index * r->stripe_size)
		newest = MAX(newest, seq);
	return newest;
}

int stripe_load(struct replica *r, const struct vol_ino *ino, uint32_t index, struct stripe *st)
{
	uint8_t k[KEY_ROOM];
	const void *value;
	size_t len;
	int err;

	*st = (struct stripe){.ino = *ino, .index = index, .first = (uint64_t)index * r->scratch->blocks};
	err = r->kv->get(r->kv, k, stripe_key(r, 'S', ino, index, k), &value, &len);
	if (err == -ENOENT)
		memset(r->scratch->crc, 0, r->scratch->blocks * sizeof(uint32_t));
	else
		err = err < 0 ? err : stripe_parse(r, value, len, st);
	if (err < 0 && err != -ENOENT)
		return err;
	if (r->catching && !st->live)
		mask_start(r, st);
	return 0;
}

static int bad_mark(struct replica *r, const struct stripe *st, bool bad)
{
	uint8_t k[KEY_ROOM];
	size_t n = stripe_key(r, 'B', &st->ino, st->index, k);

	return bad ? r->kv->put(r->kv, k, n, "", 0) : r->kv->del(r->kv, k, n);
}

int stripe_store(struct replica *r, struct stripe *st, uint64_t seq)
{
	struct replica_scratch *s = r->scratch;
	uint8_t k[KEY_ROOM], *v = s->value;
	size_t n = stripe_key(r, 'S', &st->ino, st->index, k), len;
	uint32_t count = s->blocks;
	bool bad;
	int err = 0;

	while (count > 0 && s->crc[count - 1] == BLOCK_CRC_HOLE)
		count--;
	bad = any_bad(s->crc, count);
	if (bad != st->had_bad)
		err = bad_mark(r, st, bad);
	st->had_bad = bad;
	if (err < 0)
		return err;
	if (count == 0 && !st->live)
		return r->kv->del(r->kv, k, n);
	be64_put(v, seq);
	be32_put(v + PREFIX, st->gen);
	be16_put(v + PREFIX + 4, (uint16_t)count);
	memcpy(v + PREFIX + 6, s->crc, count * sizeof(*s->crc));
	len = PREFIX + 6 + count * sizeof(*s->crc);
	if (st->live) {
		be64_put(v + len, st->base);
		be32_put(v + len + 8, r->session);
		memcpy(v + len + TAIL, s->mask, mask_len(r));
		len += TAIL + mask_len(r);
	}
	return r->kv->put(r->kv, k, n, v, len);
}

int stripe_remove(struct replica *r, const struct vol_ino *ino, uint32_t index, bool bad)
{
	uint8_t k[KEY_ROOM];
	struct stripe st = {.ino = *ino, .index = index};
	int err = bad ? bad_mark(r, &st, false) : 0;

	return err < 0 ? err : r->kv->del(r->kv, k, stripe_key(r, 'S', ino, index, k));
}

/* Stored and in the index. */
static int stripe_changed(struct replica *r, struct stripe *st, uint64_t seq)
{
	uint8_t k[KEY_ROOM];
	int err = stripe_store(r, st, seq);

	return err < 0 ? err : index_add(r, k, stripe_key(r, 'S', &st->ino, st->index, k));
}

/* ---- pulls in flight ---- */

void pulls_changed(struct replica *r, const struct vol_ino *ino, uint64_t first, uint64_t n)
{
	for (struct replica_pull *p = r->pulls; p; p = p->next) {
		uint64_t from = MAX(first, p->first), to = MIN(first + n, p->first + p->n);

		if (from < to && vol_ino_eq(&p->ino, ino))
			for (uint64_t b = from; b < to; b++)
				bit_set(p->changed, (uint32_t)(b - p->first));
	}
}

/* ---- partly changed blocks ---- */

static uint32_t patch_take(struct replica *r, uint64_t block)
{
	struct replica_scratch *s = r->scratch;

	while (s->patch_at < r->n_patches && r->patch[s->patch_at].effect < s->effect)
		s->patch_at++;
	if (s->patch_at < r->n_patches && r->patch[s->patch_at].effect == s->effect &&
	    r->patch[s->patch_at].block == block)
		return r->patch[s->patch_at++].crc;
	return BLOCK_CRC_BAD; /* not kept: let it be fetched */
}

static void patch_give(struct replica *r, uint64_t block, uint32_t crc)
{
	if (r->scratch->mode != MODE_REPLAY && r->n_patches < REPLICA_PATCHES_MAX)
		r->patch[r->n_patches++] = (struct replica_patch){r->scratch->effect, crc, block};
}

/* The checksum of a block with data after [from, to) of it became part (NULL = zeros). */
static int overlay(struct replica *r, const struct stripe *st, uint32_t i, uint32_t from, uint32_t to,
		   const uint8_t *part, uint32_t *ret)
{
	struct replica_scratch *s = r->scratch;
	uint8_t *d = s->data;
	int err;

	if (s->crc[i] == BLOCK_CRC_HOLE) {
		memset(d, 0, VOL_BLOCK);
	} else {
		err = r->blob->read(r->blob, r->group, &st->ino, (st->first + i) * VOL_BLOCK, d, VOL_BLOCK);
		if (err < 0)
			return err;
		if (block_crc(d) != s->crc[i]) {
			*ret = BLOCK_CRC_BAD;
			return 0;
		}
	}
	if (part)
		memcpy(d + from, part, to - from);
	else
		memset(d + from, 0, to - from);
	*ret = block_crc(d);
	return 0;
}

/* Block i of the stripe is changed in part. *ret_fresh (may be NULL): its rest must be written as zeros: it was a known hole, or it cannot be read (a bad sector):
 * then it is bad, and a disk takes it only whole. */
static int partial(struct replica *r, struct stripe *st, uint32_t i, uint32_t from, uint32_t to,
		   const uint8_t *part, bool zeros, bool *ret_fresh)
{
	struct replica_scratch *s = r->scratch;
	bool known = s->mode != MODE_LIVE || bit_get(s->mask, i), hole = known && s->crc[i] == BLOCK_CRC_HOLE;
	uint64_t off = (st->first + i) * VOL_BLOCK;
	uint32_t crc = BLOCK_CRC_BAD;
	int err = 0;

	if (hole && zeros)
		return 0;
	if (s->mode == MODE_REPLAY)
		crc = patch_take(r, st->first + i); /* the bytes come another way */
	else if (known && s->crc[i] != BLOCK_CRC_BAD)
		err = overlay(r, st, i, from, to, zeros ? NULL : part, &crc);
	else
		err = r->blob->read(r->blob, r->group, &st->ino, off, s->data, VOL_BLOCK);
	if (ret_fresh)
		*ret_fresh = hole || err == -EIO;
	if (err == -EIO) {
		memset(s->data, 0, VOL_BLOCK);
		err = ret_fresh ? 0 : r->blob->write(r->blob, r->group, &st->ino, off, s->data, VOL_BLOCK);
		crc = BLOCK_CRC_BAD;
	}
	if (err < 0)
		return err;
	s->crc[i] = crc;
	if (known)
		patch_give(r, st->first + i, crc);
	return 0;
}

static void whole(struct replica *r, struct stripe *st, uint32_t i, uint32_t crc)
{
	r->scratch->crc[i] = crc;
	if (st->live)
		bit_set(r->scratch->mask, i);
}

/* ---- writing ---- */

/* The bytes, with zeros around them where a hole is partly written. */
static int put_data(struct replica *r, const struct effect *f, const struct payload *p, uint32_t before,
		    uint32_t behind)
{
	struct blob *b = r->blob;
	uint8_t *d = r->scratch->data;
	int err;

	if (before + behind == 0)
		return b->write(b, r->group, &f->ino, f->off, p->data, p->len);
	if (p->len <= SMALL_DATA) {
		memset(d, 0, before);
		memcpy(d + before, p->data, p->len);
		memset(d + before + p->len, 0, behind);
		return b->write(b, r->group, &f->ino, f->off - before, d, before + p->len + behind);
	}
	err = b->write(b, r->group, &f->ino, f->off, p->data, p->len);
	memset(d, 0, VOL_BLOCK);
	if (err == 0 && before > 0)
		err = b->write(b, r->group, &f->ino, f->off - before, d, before);
	if (err == 0 && behind > 0)
		err = b->write(b, r->group, &f->ino, f->off + f->len, d, behind);
	return err;
}

/* Blocks [first, last] of one stripe. */
static int write_stripe(struct replica *r, const struct record *rec, const struct effect *f, uint32_t index,
			uint64_t seq, uint32_t *before, uint32_t *behind)
{
	struct replica_scratch *s = r->scratch;
	uint64_t b0 = f->off / VOL_BLOCK, b1 = (f->off + f->len - 1) / VOL_BLOCK;
	const uint8_t *data = rec->payload ? rec->payload->data : NULL;
	struct stripe st;
	int err = stripe_load(r, &f->ino, index, &st);

	if (err < 0)
		return err;
	st.gen = MAX(st.gen, f->gen);
	for (uint64_t b = MAX(b0, st.first); b <= MIN(b1, st.first + s->blocks - 1); b++) {
		uint32_t from = b == b0 ? f->off % VOL_BLOCK : 0;
		uint32_t to = b == b1 ? (uint32_t)(f->off + f->len - b * VOL_BLOCK) : VOL_BLOCK;
		bool fresh = false;

		if (from == 0 && to == VOL_BLOCK) {
			whole(r, &st, (uint32_t)(b - st.first),
			      b - b0 < rec->n_chunks ? rec->chunk_crc[b - b0] : BLOCK_CRC_BAD);
			continue;
		}
		err = partial(r, &st, (uint32_t)(b - st.first), from, to,
			      data ? data + (b * VOL_BLOCK + from - f->off) : NULL, false, &fresh);
		if (err < 0)
			return err;
		if (fresh && b == b0)
			*before = from;
		if (fresh && b == b1)
			*behind = VOL_BLOCK - to;
	}
	return stripe_changed(r, &st, seq);
}

int slice_write(struct replica *r, const struct record *rec, const struct effect *f, uint64_t seq)
{
	uint64_t end = f->off + f->len;
	uint32_t before = 0, behind = 0;

	if (!rec->payload && r->scratch->mode != MODE_REPLAY)
		return -EBADMSG;
	if (f->off / r->stripe_size > UINT32_MAX)
		return -EBADMSG;
	for (uint64_t i = f->off / r->stripe_size; i <= (end - 1) / r->stripe_size; i++) {
		int err = write_stripe(r, rec, f, (uint32_t)i, seq, &before, &behind);

		if (err < 0)
			return err;
	}
	pulls_changed(r, &f->ino, f->off / VOL_BLOCK, (end - 1) / VOL_BLOCK - f->off / VOL_BLOCK + 1);
	return r->scratch->mode == MODE_REPLAY ? 0 : put_data(r, f, rec->payload, before, behind);
}

/* ---- making holes ---- */

/* [from, to) of the file within one stripe becomes zeros. */
static int clear_stripe(struct replica *r, const struct vol_ino *ino, uint32_t index, uint64_t from,
			uint64_t to, uint32_t gen, uint64_t seq)
{
	struct replica_scratch *s = r->scratch;
	struct stripe st;
	uint64_t start, stop;
	int err = stripe_load(r, ino, index, &st);

	if (err < 0)
		return err;
	if (!st.found && s->mode != MODE_LIVE)
		return 0;
	st.gen = MAX(st.gen, gen);
	start = st.first * VOL_BLOCK;
	stop = start + r->stripe_size;
	from = MAX(from, start);
	to = MIN(to, stop);
	for (uint64_t b = from / VOL_BLOCK; b * VOL_BLOCK < to; b++) {
		uint32_t at = (uint32_t)(MAX(from, b * VOL_BLOCK) - b * VOL_BLOCK);
		uint32_t end = (uint32_t)(MIN(to, (b + 1) * VOL_BLOCK) - b * VOL_BLOCK);

		if (at == 0 && end == VOL_BLOCK)
			whole(r, &st, (uint32_t)(b - st.first), BLOCK_CRC_HOLE);
		else
			err = partial(r, &st, (uint32_t)(b - st.first), at, end, NULL, true, NULL);
		if (err < 0)
			return err;
	}
	return stripe_changed(r, &st, seq);
}

/* Whole stripes of ino with first <= index <= last are gone. */
static int remove_stripes(struct replica *r, const struct vol_ino *ino, uint32_t first, uint32_t last)
{
	uint8_t k[KEY_ROOM];
	size_t n = stripe_key(r, 'S', ino, first, k);

	for (uint64_t i = 0; i <= UINT32_MAX; i++) { /* one a stripe that is there */
		const uint8_t *key, *value;
		size_t key_len, len, plain;
		bool bad;
		int err = kind_seek(r, k, n, i > 0, WITHIN_INO, &key, &key_len, &value, &len);

		if (err == -ENOENT)
			return 0;
		if (err < 0)
			return err;
		if (key_len != n || be32_get(key + 27) > last)
			return 0;
		plain = stripe_plain(value, len);
		if (plain == 0)
			return -EIO;
		memcpy(k, key, n);
		bad = false;
		for (size_t at = PREFIX + 6; at < plain && !bad; at += 4)
			bad = value[at] == BLOCK_CRC_BAD && value[at + 1] == 0 && value[at + 2] == 0 &&
			      value[at + 3] == 0;
		err = stripe_remove(r, ino, be32_get(k + 27), bad);
		if (err == 0)
			err = index_add(r, k, n);
		if (err < 0)
			return err;
	}
	return 0;
}

/* While catching up: blocks from off on that come by the delta are older than this cut. */
static int cut_tomb(struct replica *r, const struct vol_ino *ino, uint64_t off, uint64_t seq)
{
	uint8_t k[KEY_ROOM];
	size_t n = ino_key(r, 'H', ino, k);
	uint64_t was_seq, was_off;

	if (r->scratch->mode != MODE_LIVE)
		return 0;
	if (session_tomb(r, k, n, &was_seq, &was_off))
		off = MIN(off, was_off);
	return session_tomb_put(r, k, n, seq, off);
}

int slice_trim(struct replica *r, const struct effect *f, uint64_t seq)
{
	uint64_t stripe = f->off / r->stripe_size, next = stripe + (f->off % r->stripe_size != 0);
	uint8_t k[KEY_ROOM], gen[4];
	size_t n = ino_key(r, 'H', &f->ino, k);
	int err = 0;

	if (next > UINT32_MAX)
		return -EBADMSG;
	if (f->gen > 0) {
		be32_put(gen, f->gen);
		err = key_put(r, k, n, seq, gen, sizeof(gen));
		if (err == 0)
			err = index_add(r, k, n);
	}
	if (err == 0 && next != stripe)
		err = clear_stripe(r, &f->ino, (uint32_t)stripe, f->off, UINT64_MAX, f->gen, seq);
	if (err == 0)
		err = remove_stripes(r, &f->ino, (uint32_t)next, UINT32_MAX);
	if (err == 0)
		err = cut_tomb(r, &f->ino, (f->off + VOL_BLOCK - 1) / VOL_BLOCK * VOL_BLOCK, seq);
	if (err < 0)
		return err;
	pulls_changed(r, &f->ino, f->off / VOL_BLOCK, UINT64_MAX / VOL_BLOCK);
	return r->scratch->mode == MODE_REPLAY ? 0 : r->blob->trim(r->blob, r->group, &f->ino, f->off);
}

/* Catching up: stripes that are not known here yet are cleared too. */
static int punch_live(struct replica *r, const struct effect *f, uint32_t first, uint32_t last, uint64_t seq)
{
	uint8_t k[KEY_ROOM];

	if (last - first > 65536)
		return -E2BIG; /* the member starts anew */
	for (uint32_t i = first; i < last; i++) {
		int err = session_tomb_put(r, k, stripe_key(r, 'S', &f->ino, i, k), seq, 0);

		if (err < 0)
			return err;
	}
	return 0;
}

int slice_punch(struct replica *r, const struct effect *f, uint64_t seq)
{
	uint64_t end = f->off + f->len, first = f->off / r->stripe_size, last = end / r->stripe_size;
	uint64_t inner = first + (f->off % r->stripe_size != 0);
	int err = 0;

	if (last > UINT32_MAX)
		return -EBADMSG;
	if (inner != first || first == last)
		err = clear_stripe(r, &f->ino, (uint32_t)first, f->off, end, 0, seq);
	if (err == 0 && inner < last && r->scratch->mode == MODE_LIVE)
		err = punch_live(r, f, (uint32_t)inner, (uint32_t)last, seq);
	if (err == 0 && inner < last)
		err = remove_stripes(r, &f->ino, (uint32_t)inner, (uint32_t)(last - 1));
	if (err == 0 && last > first && end % r->stripe_size != 0)
		err = clear_stripe(r, &f->ino, (uint32_t)last, f->off, end, 0, seq);
	if (err < 0)
		return err;
	pulls_changed(r, &f->ino, f->off / VOL_BLOCK, f->len / VOL_BLOCK + 2);
	return r->scratch->mode == MODE_REPLAY ? 0
					       : r->blob->punch(r->blob, r->group, &f->ino, f->off, f->len);
}

int slice_drop(struct replica *r, const struct effect *f, uint64_t seq)
{
	uint8_t k[KEY_ROOM];
	size_t n = ino_key(r, 'H', &f->ino, k), len;
	const void *value;
	int err = remove_stripes(r, &f->ino, 0, UINT32_MAX);

	if (err == 0 && r->kv->get(r->kv, k, n, &value, &len) == 0) {
		err = r->kv->del(r->kv, k, n);
		if (err == 0)
			err = index_add(r, k, n);
	}
	if (err == 0)
		err = cut_tomb(r, &f->ino, 0, seq);
	if (err < 0)
		return err;
	pulls_changed(r, &f->ino, 0, UINT64_MAX / VOL_BLOCK);
	return r->scratch->mode == MODE_REPLAY ? 0 : r->blob->drop(r->blob, r->group, &f->ino);
}

int replica_slice_gen(struct replica *r, const struct vol_ino *ino, uint32_t *ret)
{
	uint8_t k[KEY_ROOM];
	const void *value;
	size_t len;
	int err = r->kv->get(r->kv, k, ino_key(r, 'H', ino, k), &value, &len);

	*ret = 0;
	if (err == -ENOENT)
		return 0;
	if (err < 0 || len != PREFIX + 4)
		return err < 0 ? err : -EIO;
	*ret = be32_get((const uint8_t *)value + PREFIX);
	return 0;
}

/* ---- reading ---- */

/* The checksums only, without what catching up keeps beside them. */
static int load_crcs(struct replica *r, const struct vol_ino *ino, uint64_t index)
{
	uint8_t k[KEY_ROOM];
	struct stripe st = {.ino = *ino};
	const void *value;
	size_t len;
	int err = index > UINT32_MAX
			  ? -ENOENT
			  : r->kv->get(r->kv, k, stripe_key(r, 'S', ino, (uint32_t)index, k), &value, &len);

	if (err == 0)
		return stripe_parse(r, value, len, &st);
	if (err == -ENOENT)
		memset(r->scratch->crc, 0, r->scratch->blocks * sizeof(uint32_t));
	return err == -ENOENT ? 0 : err;
}

/* n whole blocks with data from block i of the stripe on. */
static int read_run(struct replica *r, const struct vol_ino *ino, uint64_t off, uint32_t i, uint32_t n,
		    uint8_t *to, uint64_t *ret_bad)
{
	uint32_t crc[64], sum;
	int err = r->blob->read(r->blob, r->group, ino, off, to, n * VOL_BLOCK);

	for (uint32_t at = 0; at < n && err == 0; at += 62) {
		uint32_t part = payload_chunks(0, to + (size_t)at * VOL_BLOCK, MIN(n - at, 62u) * VOL_BLOCK,
					       crc, &sum);

		for (uint32_t j = 0; j < part; j++)
			if (crc[j] != r->scratch->crc[i + at + j]) {
				*ret_bad = off + (uint64_t)(at + j) * VOL_BLOCK;
				return -EIO;
			}
	}
	if (err < 0)
		*ret_bad = off;
	return err;
}

/* [off, off + len) within one stripe whose checksums are loaded. */
static int read_stripe(struct replica *r, const struct vol_ino *ino, uint64_t off, uint8_t *to, uint32_t len,
		       uint64_t *ret_bad)
{
	const uint32_t *crc = r->scratch->crc;
	uint64_t end = off + len, start = off / r->stripe_size * r->stripe_size;

	while (off < end) {
		uint32_t i = (uint32_t)((off - start) / VOL_BLOCK), at = off % VOL_BLOCK;
		uint32_t part = (uint32_t)MIN(end - off, VOL_BLOCK - at), n = 1;
		int err = 0;

		if (crc[i] == BLOCK_CRC_HOLE) {
			memset(to, 0, part);
		} else if (part < VOL_BLOCK) {
			err = read_run(r, ino, off - at, i, 1, r->scratch->data, ret_bad);
			memcpy(to, r->scratch->data + at, part);
		} else {
			while ((off + (n + 1) * (uint64_t)VOL_BLOCK) <= end && crc[i + n] != BLOCK_CRC_HOLE)
				n++;
			err = read_run(r, ino, off, i, n, to, ret_bad);
			part = n * VOL_BLOCK;
		}
		if (err < 0)
			return err;
		to += part;
		off += part;
	}
	return 0;
}

int replica_read(struct replica *r, const struct vol_ino *ino, uint64_t off, void *data, uint32_t len,
		 uint64_t *ret_bad)
{
	uint8_t *to = data;
	uint64_t bad = 0;

	if (len > RECORD_PAYLOAD_MAX || off > RECORD_OFF_MAX)
		return -EINVAL;
	while (len > 0) {
		uint32_t part = (uint32_t)MIN((uint64_t)len, r->stripe_size - off % r->stripe_size);
		int err = load_crcs(r, ino, off / r->stripe_size);

		if (err == 0)
			err = read_stripe(r, ino, off, to, part, &bad);
		if (err < 0) {
			if (ret_bad)
				*ret_bad = bad;
			return err;
		}
		to += part;
		off += part;
		len -= part;
	}
	return 0;
}

int replica_crcs(struct replica *r, const struct vol_ino *ino, uint64_t off, uint32_t len, uint32_t *out)
{
	uint64_t b = off / VOL_BLOCK, end = (off + len + VOL_BLOCK - 1) / VOL_BLOCK;

	while (len > 0 && b < end) {
		uint32_t i = (uint32_t)(b % r->scratch->blocks),
			 n = (uint32_t)MIN(end - b, r->scratch->blocks - i);
		int err = load_crcs(r, ino, b / r->scratch->blocks);

		if (err < 0)
			return err;
		memcpy(out, r->scratch->crc + i, n * sizeof(*out));
		out += n;
		b += n;
	}
	return 0;
}

/* First stripe of ino from index on; -ENOENT. Its checksums are in scratch then. */
static int next_stripe(struct replica *r, const struct vol_ino *ino, uint32_t index, uint32_t *ret)
{
	uint8_t k[KEY_ROOM];
	const uint8_t *key, *value;
	size_t key_len, len, n = stripe_key(r, 'S', ino, index, k);
	struct stripe st = {.ino = *ino};
	int err = kind_seek(r, k, n, false, WITHIN_INO, &key, &key_len, &value, &len);

	if (err < 0)
		return err;
	if (key_len != n)
		return -ENOENT;
	*ret = be32_get(key + 27);
	return stripe_parse(r, value, len, &st);
}

int replica_seek_data(struct replica *r, const struct vol_ino *ino, uint64_t off, bool hole, uint64_t *ret)
{
	uint32_t blocks = r->scratch->blocks, i = (uint32_t)(off / VOL_BLOCK % blocks), found;
	uint64_t index = off / r->stripe_size;

	for (; index <= UINT32_MAX; index++, i = 0) { /* data: one a stripe; hole: until the first one */
		int err = next_stripe(r, ino, (uint32_t)index, &found);

		if (err == -ENOENT) {
			*ret = MAX(off, index * r->stripe_size);
			return hole ? 0 : -ENXIO;
		}
		if (err < 0)
			return err;
		if (found != index && hole) {
			*ret = MAX(off, index * r->stripe_size);
			return 0;
		}
		if (found != index)
			i = 0;
		index = found;
		for (; i < blocks; i++)
			if ((r->scratch->crc[i] == BLOCK_CRC_HOLE) == hole) {
				*ret = MAX(off, (index * blocks + i) * VOL_BLOCK);
				return 0;
			}
	}
	return -ENXIO;
}
