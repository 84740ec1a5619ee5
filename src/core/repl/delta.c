/* SPDX-License-Identifier: Apache-2.0 */
/* delta: bringing a member that was away up to date.
 *
 * Source: walks the index from the member's newest record on and names each key's newest state; below its floor it walks all keys, then the index from
 * where it was at the start. At the end of the walk the receiver's keys are the source's of that moment.
 *
 * Receiver: delta_begin, then items and live records in any order, pulls of blocks that differ, delta_end. Sequence numbers decide between a key's
 * states; stripes are merged block by block (slice.c). An unfinished catching up leaves `dirty`: what live records brought may never have been committed,
 * so with another primary everything is compared anew: the keys are wiped and come again, checksums are kept aside (J) so that data that fits is not
 * fetched again. */
#include "core/repl/state.h"

/* Kinds that a delta carries. */
static bool carried(uint8_t kind)
{
	return kind && memchr("DEHILNOSTX", kind, 10) != NULL;
}

/* ---- source ---- */

int replica_delta_start(struct replica *source, uint64_t since, struct delta_cursor *ret)
{
	*ret = (struct delta_cursor){.full = since == 0 || since < source->floor};
	ret->seq = ret->full ? source->seq : since + 1;
	return 0;
}

/* What the key is now; ret->deleted when it is gone. The key is in scratch memory. */
static int item_of(struct replica *r, const uint8_t *key, size_t len, struct delta_item *ret)
{
	const void *value;
	size_t value_len;
	int err = r->kv->get(r->kv, key, len, &value, &value_len);

	*ret = (struct delta_item){.key = key + 2, .key_len = len - 2};
	if (err == -ENOENT) {
		ret->deleted = true;
		return 0;
	}
	if (err == 0 && key[2] == 'S')
		value_len = stripe_plain(value, value_len);
	if (err < 0 || value_len < PREFIX)
		return err < 0 ? err : -EIO;
	ret->seq = be64_get(value);
	ret->value = (const uint8_t *)value + PREFIX;
	ret->value_len = value_len - PREFIX;
	return 0;
}

static int next_key(struct replica *r, struct delta_cursor *c, struct delta_item *ret)
{
	uint8_t *k = r->scratch->index;
	size_t n = state_key(r, c->key, c->key_len, k);
	bool after = c->key_len > 0;

	for (int jump = 0; jump < 256; jump++) { /* hidden kinds are jumped over */
		const void *key, *value;
		size_t key_len, len;
		int err = r->kv->seek(r->kv, k, n, after, WITHIN_GROUP, &key, &key_len, &value, &len);

		if (err < 0)
			return err;
		if (key_len < 3)
			return -ENOENT;
		if (key_len > KEY_MAX + 2)
			return -EIO;
		memcpy(k, key, key_len);
		if (carried(k[2])) {
			c->key_len = key_len - 2;
			memcpy(c->key, k + 2, c->key_len);
			return item_of(r, k, key_len, ret);
		}
		if (k[2] == 0xff)
			return -ENOENT;
		k[2]++;
		n = 3;
		after = false;
	}
	return -ENOENT;
}

/* The key at c in an index entry; false at its end. c moves behind it. */
static int entry_key(struct replica *r, struct delta_cursor *c, const uint8_t *entry, size_t len,
		     size_t *ret_len)
{
	size_t at = c->key_len == 2 ? be16_get(c->key) : 0, n;

	if (at >= len)
		return -ENOENT;
	n = at + 2 <= len ? be16_get(entry + at) : 0;
	if (n == 0 || n > KEY_MAX || at + 2 + n > len)
		return -EIO;
	*ret_len = state_key(r, entry + at + 2, n, r->scratch->index);
	be16_put(c->key, (uint16_t)(at + 2 + n));
	c->key_len = 2;
	return 0;
}

static int next_change(struct replica *r, struct delta_cursor *c, struct delta_item *ret)
{
	if (c->seq <= r->floor)
		return -ESTALE;
	for (;;) { /* each turn moves the cursor on */
		uint8_t k[KEY_ROOM];
		const uint8_t *key, *value;
		size_t key_len, len, n;
		uint64_t seq;
		int err;

		be16_put(k, (uint16_t)r->group);
		k[2] = 'C';
		be64_put(k + 3, c->seq);
		be16_put(k + 11, c->i);
		err = kind_seek(r, k, 13, false, WITHIN_KIND, &key, &key_len, &value, &len);
		if (err == -ENOENT) {
			c->seq = MAX(c->seq, r->seq + 1);
			c->i = 0;
			c->key_len = 0;
		}
		if (err < 0)
			return err;
		if (key_len != 13)
			return -EIO;
		seq = be64_get(key + 3);
		if (seq != c->seq || be16_get(key + 11) != c->i)
			c->key_len = 0;
		c->seq = seq;
		c->i = be16_get(key + 11);
		err = entry_key(r, c, value, len, &n);
		if (err == -ENOENT) {
			c->seq += c->i == UINT16_MAX;
			c->i++;
			c->key_len = 0;
			continue;
		}
		if (err == 0)
			err = item_of(r, r->scratch->index, n, ret);
		if (err < 0)
			return err;
		if (!ret->deleted && ret->seq > seq)
			continue; /* changed since: named there */
		ret->seq = seq;
		return 0;
	}
}

int replica_delta_next(struct replica *source, struct delta_cursor *c, struct delta_item *ret)
{
	int err;

	if (c->key_len > KEY_MAX)
		return -EBADMSG;
	if (!c->full)
		return next_change(source, c, ret);
	err = next_key(source, c, ret);
	if (err != -ENOENT)
		return err;
	c->full = false;
	c->seq++;
	c->i = 0;
	c->key_len = 0;
	return next_change(source, c, ret);
}

/* ---- receiver: begin ---- */

/* A stripe's checksums become a hint (J); blocks that live records of this session made stay. */
static int wipe_stripe(struct replica *r, const uint8_t *key, size_t key_len, const uint8_t *value,
		       size_t len)
{
	struct replica_scratch *s = r->scratch;
	uint8_t j[KEY_ROOM];
	struct stripe st = {0};
	size_t plain = stripe_plain(value, len);
	int err;

	if (plain == 0 || key_len != 31)
		return -EIO;
	memcpy(j, key, key_len);
	j[2] = 'J';
	ino_of_key(key, &st.ino);
	st.index = be32_get(key + 27);
	err = stripe_parse(r, value, len, &st);
	memcpy(s->value, value, plain);
	if (err == 0)
		err = r->kv->put(r->kv, j, key_len, s->value, plain);
	if (err < 0)
		return err;
	if (!st.live)
		return stripe_remove(r, &st.ino, st.index, st.had_bad);
	for (uint32_t i = 0; i < s->blocks; i++)
		if (!bit_get(s->mask, i) && s->crc[i] != BLOCK_CRC_BAD)
			s->crc[i] = BLOCK_CRC_HOLE;
	st.base = 0;
	return stripe_store(r, &st, st.seq);
}

static bool kept_by_wipe(const struct replica *r, const uint8_t *key, const uint8_t *value, size_t len)
{
	uint64_t seq;

	if (key[2] == 'G' || key[2] == 'J' || key[2] == 'B')
		return true;
	if (key[2] == 'Z' && len == 20)
		return be32_get(value + 16) == r->session;
	seq = key[2] == 'C' ? be64_get(key + 3) : len >= PREFIX ? be64_get(value) : 0;
	return r->live_first > 0 && seq >= r->live_first;
}

int replica_delta_wipe(struct replica *r)
{
	uint8_t k[KEY_ROOM];
	size_t n = 2;
	bool after = false;
	uint64_t committed, kept = 0;
	int err = replica_saved_committed(r, &committed);

	if (!r->catching)
		return -EINVAL;
	be16_put(k, (uint16_t)r->group);
	while (err == 0) { /* one turn a key of the group */
		const void *key, *value;
		size_t len, key_len;

		err = r->kv->seek(r->kv, k, n, after, WITHIN_GROUP, &key, &key_len, &value, &len);
		if (err == -ENOENT || (err == 0 && key_len < 3))
			break;
		if (err < 0 || key_len > sizeof(k))
			return err < 0 ? err : -EIO;
		memcpy(k, key, key_len);
		n = key_len;
		after = true;
		if (k[2] == 'S')
			err = wipe_stripe(r, k, n, value, len);
		else if (!kept_by_wipe(r, k, value, len))
			err = r->kv->del(r->kv, k, n);
		else
			kept += k[2] == 'C';
	}
	if (err < 0 && err != -ENOENT)
		return err;
	r->tombs = kept;
	r->epoch = r->seq = 0;
	r->full = true;
	return group_put(r, committed);
}

static void pulls_drop(struct replica *r)
{
	struct replica_pull *next;

	for (struct replica_pull *p = r->pulls; p; p = next) {
		next = p->next;
		free(p);
	}
	r->pulls = NULL;
}

int replica_delta_begin(struct replica *r, bool continued, uint64_t *ret_since)
{
	bool full = r->seq == 0 || (r->dirty && !continued);
	uint64_t committed;
	int err = replica_saved_committed(r, &committed);

	if (err < 0)
		return err;
	pulls_drop(r);
	r->catching = r->dirty = true;
	r->full = full;
	r->session++;
	r->live_first = r->live_seq = r->live_epoch = r->content_seq = r->item_seq = 0;
	err = full ? replica_delta_wipe(r) : group_put(r, committed);
	*ret_since = r->seq;
	return err;
}

/* ---- receiver: items ---- */

/* The bad blocks of the stripe in scratch as ranges: what lies between the first and the last one of each 64 KiB, joined where they touch, at most
 * 1 MiB. What does not go in is found by replica_bad_next. */
static size_t bad_ranges(struct replica *r, const struct stripe *st, struct pull_range *out)
{
	uint32_t per = PULL_ALIGN / VOL_BLOCK, blocks = r->scratch->blocks;
	size_t n = 0;

	for (uint32_t i = 0; i < blocks; i += per) {
		uint32_t stop = MIN(i + per, blocks), first = i, last = stop;
		uint64_t off;

		while (first < stop && r->scratch->crc[first] != BLOCK_CRC_BAD)
			first++;
		if (first == stop)
			continue;
		while (r->scratch->crc[last - 1] != BLOCK_CRC_BAD)
			last--;
		off = (st->first + first) * VOL_BLOCK;
		if (n > 0 && out[n - 1].off + out[n - 1].len == off &&
		    out[n - 1].len <= (1u << 20) - PULL_ALIGN) {
			out[n - 1].len += (last - first) * VOL_BLOCK;
			continue;
		}
		if (n == PULL_RANGES_MAX)
			break;
		out[n++] = (struct pull_range){.ino = st->ino, .off = off, .len = (last - first) * VOL_BLOCK};
	}
	return n;
}

static int punch_blocks(struct replica *r, const struct stripe *st, uint32_t i, uint32_t n)
{
	if (n == 0)
		return 0;
	return r->blob->punch(r->blob, r->group, &st->ino, (st->first + i) * VOL_BLOCK,
			      (uint64_t)n * VOL_BLOCK);
}

/* Block i takes what the source has, unless it is known better here. *ret_punch: it was data and is a hole now. */
static void merge_block(struct replica *r, uint32_t i, uint32_t want, uint32_t hint, bool *ret_punch)
{
	struct replica_scratch *s = r->scratch;

	*ret_punch = false;
	if (bit_get(s->mask, i) || (want == s->crc[i] && want != BLOCK_CRC_BAD))
		return;
	*ret_punch = want == BLOCK_CRC_HOLE;
	if (want != BLOCK_CRC_HOLE && (s->crc[i] == BLOCK_CRC_BAD || want != hint))
		want = BLOCK_CRC_BAD; /* until it is fetched */
	s->crc[i] = want;
}

static int merge(struct replica *r, struct stripe *st, const struct delta_item *item, const uint8_t *hint,
		 size_t hint_len)
{
	const uint8_t *v = item->value;
	uint32_t n = item->deleted ? 0 : be16_get(v + 4), n_hint = 0, run = 0;

	if (hint && stripe_plain(hint, hint_len) == hint_len)
		n_hint = be16_get(hint + PREFIX + 4);
	for (uint32_t i = 0; i < r->scratch->blocks; i++) {
		uint32_t want = BLOCK_CRC_HOLE, old = BLOCK_CRC_HOLE;
		bool punch;

		if (i < n)
			memcpy(&want, v + 6 + 4 * i, 4);
		if (i < n_hint)
			memcpy(&old, hint + PREFIX + 6 + 4 * i, 4);
		merge_block(r, i, want, old, &punch);
		if (punch) {
			run++;
			continue;
		}
		if (run > 0) {
			int err = punch_blocks(r, st, i - run, run);

			if (err < 0)
				return err;
		}
		run = 0;
	}
	return punch_blocks(r, st, r->scratch->blocks - run, run);
}

static bool all_known(const struct replica *r)
{
	for (uint32_t i = 0; i < r->scratch->blocks; i++)
		if (!bit_get(r->scratch->mask, i))
			return false;
	return true;
}

static int apply_stripe(struct replica *r, const struct delta_item *item, const uint8_t *key, size_t key_len,
			struct pull_range *ret_ranges, size_t *ret_n)
{
	uint8_t j[KEY_ROOM];
	const void *hint = NULL;
	size_t hint_len = 0;
	struct vol_ino ino;
	struct stripe st;
	int err;

	if (key_len != 31 ||
	    (!item->deleted &&
	     (item->value_len < 6 || be16_get((const uint8_t *)item->value + 4) > r->scratch->blocks ||
	      item->value_len != 6 + 4u * be16_get((const uint8_t *)item->value + 4))))
		return -EBADMSG;
	ino_of_key(key, &ino);
	err = stripe_load(r, &ino, be32_get(key + 27), &st);
	if (err < 0)
		return err;
	if (st.found && item->seq <= st.base)
		return 0;
	/* A live record cut it before it was known here, so the index does not say yet that it changed: who asks this member later must hear of it. */
	if (!st.found && all_known(r))
		return index_item(r, MAX(item->seq, stripe_cut_seq(r, &ino, st.index)), key, key_len);
	memcpy(j, key, key_len);
	j[2] = 'J';
	if (r->kv->get(r->kv, j, key_len, &hint, &hint_len) < 0)
		hint = NULL;
	err = merge(r, &st, item, hint, hint_len);
	if (err < 0)
		return err;
	if (hint)
		err = r->kv->del(r->kv, j, key_len);
	st.base = item->seq;
	st.seq = MAX(st.seq, item->seq);
	if (!item->deleted)
		st.gen = MAX(st.gen, be32_get(item->value));
	pulls_changed(r, &ino, st.first, r->scratch->blocks);
	*ret_n = bad_ranges(r, &st, ret_ranges);
	if (err == 0)
		err = stripe_store(r, &st, st.seq);
	return err < 0 ? err : index_item(r, item->seq, key, key_len);
}

int replica_delta_apply(struct replica *r, const struct delta_item *item, struct pull_range *ret_ranges,
			size_t *ret_n)
{
	uint8_t k[KEY_ROOM];
	size_t n;
	int err;

	*ret_n = 0;
	if (!r->catching)
		return -EINVAL;
	if (item->key_len == 0 || item->key_len > KEY_MAX || item->value_len > VALUE_MAX || item->seq == 0 ||
	    !carried(*(const uint8_t *)item->key))
		return -EBADMSG;
	r->item_seq = MAX(r->item_seq, item->seq);
	n = state_key(r, item->key, item->key_len, k);
	if (k[2] == 'S')
		return apply_stripe(r, item, k, n, ret_ranges, ret_n);
	if (MAX(key_seq(r, k, n), tomb_seq(r, k, n)) >= item->seq)
		return 0;
	if (item->deleted) {
		err = k[2] == 'H' ? 0 : tomb_put(r, k, n, item->seq);
		if (err == 0)
			err = r->kv->del(r->kv, k, n);
	} else {
		err = key_put(r, k, n, item->seq, item->value, item->value_len);
	}
	return err < 0 ? err : index_item(r, item->seq, k, n);
}

/* ---- receiver: end ---- */

/* Checksums of data that the source does not have: it goes. */
static int hint_done(struct replica *r, const uint8_t *key, size_t len)
{
	struct vol_ino ino;
	const void *value;
	size_t value_len;
	uint8_t k[KEY_ROOM];

	if (len != 31)
		return -EIO;
	memcpy(k, key, len);
	k[2] = 'S';
	if (r->kv->get(r->kv, k, len, &value, &value_len) == 0)
		return 0;
	ino_of_key(key, &ino);
	return r->blob->punch(r->blob, r->group, &ino, (uint64_t)be32_get(key + 27) * r->stripe_size,
			      r->stripe_size);
}

static int drop_kind(struct replica *r, uint8_t kind)
{
	uint8_t k[KEY_ROOM];
	size_t n = 3;
	int err = 0;

	be16_put(k, (uint16_t)r->group);
	k[2] = kind;
	while (err == 0) { /* one turn a key of the kind */
		const uint8_t *key, *value;
		size_t key_len, len;

		err = kind_seek(r, k, n, n > 3, WITHIN_KIND, &key, &key_len, &value, &len);
		if (err == -ENOENT)
			return 0;
		if (err < 0 || key_len > sizeof(k))
			return err < 0 ? err : -EIO;
		memcpy(k, key, key_len);
		n = key_len;
		if (kind == 'J')
			err = hint_done(r, k, n);
		if (err == 0)
			err = r->kv->del(r->kv, k, n);
	}
	return err;
}

int replica_delta_end(struct replica *r, bool full, uint64_t epoch, uint64_t seq)
{
	uint64_t committed;
	bool ahead = r->live_first > 0 && r->live_seq >= MAX(seq, r->content_seq);
	int err;

	if (!r->catching || seq < r->seq)
		return -EINVAL;
	/* Live records are laid over what the delta brought, older ones too, so the state is whole only when the last of them has come. */
	if (r->live_first > 0 ? !ahead || r->live_first > seq + 1 : r->content_seq > seq)
		return -EAGAIN;
	if ((err = drop_kind(r, 'J')) < 0 || (err = drop_kind(r, 'Z')) < 0 ||
	    (err = replica_saved_committed(r, &committed)) < 0)
		return err;
	r->seq = ahead ? r->live_seq : seq;
	r->epoch = ahead ? r->live_epoch : epoch;
	if (r->full || full)
		r->floor = r->seq;
	r->catching = r->dirty = r->full = false;
	r->live_first = r->live_seq = r->live_epoch = r->item_seq = 0;
	pulls_drop(r);
	return group_put(r, committed);
}

/* ---- bad blocks ---- */

int replica_bad_next(struct replica *r, struct vol_ino *ino, uint64_t *off, struct pull_range *ret_ranges,
		     size_t *ret_n)
{
	uint8_t k[KEY_ROOM];
	size_t n = stripe_key(r, 'B', ino, (uint32_t)MIN(*off / r->stripe_size, (uint64_t)UINT32_MAX), k);

	*ret_n = 0;
	for (bool after = false;; after = true) { /* one turn a B key */
		const uint8_t *key, *value;
		size_t key_len, len;
		struct stripe st;
		int err = kind_seek(r, k, n, after, WITHIN_KIND, &key, &key_len, &value, &len);

		if (err == -ENOENT)
			return 0;
		if (err < 0 || key_len != n)
			return err < 0 ? err : -EIO;
		memcpy(k, key, n);
		ino_of_key(k, ino);
		err = stripe_load(r, ino, be32_get(k + 27), &st);
		if (err < 0)
			return err;
		*off = (uint64_t)(be32_get(k + 27) + 1ull) * r->stripe_size;
		*ret_n = bad_ranges(r, &st, ret_ranges);
		if (*ret_n > 0)
			return 0;
		err = r->kv->del(r->kv, k, n); /* left behind */
		if (err < 0)
			return err;
	}
}
