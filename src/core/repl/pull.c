/* SPDX-License-Identifier: Apache-2.0 */
/* pull: fetching single blocks from other members, and finding those that must be: verification of what lies on the disk (scrub, recovery, blocks of
 * records that were cut). Changes checksums outside records: the sequence numbers of stripes stay, nothing goes into the index. */
#include "core/repl/state.h"

int replica_pull_begin(struct replica *r, struct pull_range *range)
{
	uint32_t n = range->len / VOL_BLOCK;
	struct replica_pull *p;

	if (n == 0 || range->len > RECORD_PAYLOAD_MAX || range->off % VOL_BLOCK != 0)
		return -EINVAL;
	for (p = r->pulls; p; p = p->next)
		if (vol_ino_eq(&p->ino, &range->ino) && p->first < range->off / VOL_BLOCK + n &&
		    range->off / VOL_BLOCK < p->first + p->n)
			return -EBUSY;
	p = calloc(1, sizeof(*p) + n / 8 + 1);
	if (!p)
		return -ENOMEM;
	p->ino = range->ino;
	p->first = range->off / VOL_BLOCK;
	p->n = n;
	p->need = range->seq = MAX(MAX(r->seq, r->item_seq), r->live_seq);
	p->next = r->pulls;
	r->pulls = p;
	return 0;
}

static struct replica_pull *pull_take(struct replica *r, const struct pull_range *range)
{
	for (struct replica_pull **at = &r->pulls; *at; at = &(*at)->next) {
		struct replica_pull *p = *at;

		if (p->first == range->off / VOL_BLOCK && p->n == range->len / VOL_BLOCK &&
		    vol_ino_eq(&p->ino, &range->ino)) {
			*at = p->next;
			return p;
		}
	}
	return NULL;
}

/* Block b of the pull, i of the stripe; true: its bytes are to be written. */
static int take_block(struct replica *r, struct stripe *st, uint32_t i, uint32_t crc, const uint8_t *bytes,
		      bool known, bool *ret_write)
{
	struct replica_scratch *s = r->scratch;
	int err = 0;

	*ret_write = false;
	if (s->crc[i] != BLOCK_CRC_BAD || crc == BLOCK_CRC_BAD)
		return 0;
	if (crc == BLOCK_CRC_HOLE)
		err = r->blob->punch(r->blob, r->group, &st->ino, (st->first + i) * VOL_BLOCK, VOL_BLOCK);
	else if (block_crc(bytes) != crc)
		return 0;
	else
		*ret_write = true;
	s->crc[i] = crc;
	if (known)
		bit_set(s->mask, i);
	return err;
}

static int take(struct replica *r, const struct replica_pull *p, struct stripe *st, uint64_t source_seq,
		const uint32_t *crcs, const uint8_t *data)
{
	/* With all that came before the live records, and they tell the rest. */
	bool known = st->live && r->live_first > 0 && source_seq + 1 >= r->live_first;
	uint32_t run = 0, at;
	int err = 0;

	for (at = 0; at < p->n && err == 0; at++) {
		bool write = false;

		if (!bit_get(p->changed, at))
			err = take_block(r, st, (uint32_t)(p->first + at - st->first), crcs[at],
					 data + (size_t)at * VOL_BLOCK, known, &write);
		if (write) {
			run++;
			continue;
		}
		if (run > 0 && err == 0)
			err = r->blob->write(r->blob, r->group, &p->ino, (p->first + at - run) * VOL_BLOCK,
					     data + (size_t)(at - run) * VOL_BLOCK, run * VOL_BLOCK);
		run = 0;
	}
	if (run > 0 && err == 0)
		err = r->blob->write(r->blob, r->group, &p->ino, (p->first + at - run) * VOL_BLOCK,
				     data + (size_t)(at - run) * VOL_BLOCK, run * VOL_BLOCK);
	return err < 0 ? err : stripe_store(r, st, st->seq);
}

int replica_pull_data(struct replica *r, const struct pull_range *range, uint64_t source_seq,
		      const uint32_t *crcs, const void *data, uint32_t len)
{
	_cleanup_free_ struct replica_pull *p = pull_take(r, range);
	struct stripe st;
	int err;

	if (!p || !data)
		return 0;
	if (len != range->len || source_seq < p->need)
		return -EBADMSG;
	if (!r->catching && source_seq > r->seq)
		return -EAGAIN;
	if (p->first / r->scratch->blocks != (p->first + p->n - 1) / r->scratch->blocks)
		return -EINVAL;
	err = stripe_load(r, &p->ino, (uint32_t)(p->first / r->scratch->blocks), &st);
	if (err < 0 || !st.found)
		return err;
	r->content_seq = MAX(r->content_seq, source_seq);
	return take(r, p, &st, source_seq, crcs, data);
}

/* ---- verification ---- */

/* Blocks [i, i + n) of the stripe in scratch, all with data; n as many as fit into scratch. True: some became bad. */
static bool verify_run(struct replica *r, const struct stripe *st, uint32_t i, uint32_t n)
{
	struct replica_scratch *s = r->scratch;
	uint64_t off = (st->first + i) * VOL_BLOCK;
	bool whole = r->blob->read(r->blob, r->group, &st->ino, off, s->data, n * VOL_BLOCK) == 0,
	     found = false;

	for (uint32_t k = 0; k < n; k++) {
		uint8_t *d = s->data + (size_t)k * VOL_BLOCK;

		/* a read that failed is tried block by block: one bad sector is one bad block */
		if (!whole && r->blob->read(r->blob, r->group, &st->ino, off + (uint64_t)k * VOL_BLOCK, d,
					    VOL_BLOCK) < 0)
			s->crc[i + k] = BLOCK_CRC_BAD;
		else if (block_crc(d) != s->crc[i + k])
			s->crc[i + k] = BLOCK_CRC_BAD;
		found = found || s->crc[i + k] == BLOCK_CRC_BAD;
	}
	return found;
}

static int verify_stripe(struct replica *r, struct stripe *st, uint64_t from, uint64_t to, uint32_t *bad)
{
	struct replica_scratch *s = r->scratch;
	uint32_t stop = (uint32_t)(MIN(to, st->first + s->blocks) - st->first), was = 0, now = 0;
	bool found = false;

	for (uint32_t i = 0; i < s->blocks; i++)
		was += s->crc[i] == BLOCK_CRC_BAD;
	for (uint32_t i = (uint32_t)(MAX(from, st->first) - st->first), n; i < stop; i += n) {
		n = 1;
		if (s->crc[i] < 2)
			continue;
		while (i + n < stop && n < SMALL_DATA / VOL_BLOCK && s->crc[i + n] >= 2)
			n++;
		found |= verify_run(r, st, i, n);
	}
	for (uint32_t i = 0; i < s->blocks; i++)
		now += s->crc[i] == BLOCK_CRC_BAD;
	*bad += now;
	return found && now > was ? stripe_store(r, st, st->seq) : 0;
}

int replica_stripe_next(struct replica *r, struct vol_ino *ino, uint64_t *off)
{
	uint8_t k[KEY_ROOM];
	const uint8_t *key, *value;
	uint64_t index = (*off + r->stripe_size - 1) / r->stripe_size;
	size_t key_len, len, n = stripe_key(r, 'S', ino, (uint32_t)MIN(index, (uint64_t)UINT32_MAX), k);
	int err = kind_seek(r, k, n, index > UINT32_MAX, WITHIN_KIND, &key, &key_len, &value, &len);

	if (err < 0 || key_len != n)
		return err < 0 ? err : -EIO;
	ino_of_key(key, ino);
	*off = (uint64_t)be32_get(key + 27) * r->stripe_size;
	return 0;
}

int replica_verify(struct replica *r, const struct vol_ino *ino, uint64_t off, uint64_t len,
		   uint32_t *ret_bad)
{
	uint64_t end = len > RECORD_OFF_MAX || off > RECORD_OFF_MAX - len ? RECORD_OFF_MAX : off + len;
	uint64_t at = off / r->stripe_size * r->stripe_size;
	uint32_t bad = 0;
	int err = 0;

	while (err == 0 && at < end) { /* one turn a stripe that has data */
		struct vol_ino found = *ino;
		struct stripe st;

		err = replica_stripe_next(r, &found, &at);
		if (err < 0 || !vol_ino_eq(&found, ino) || at >= end)
			break;
		err = stripe_load(r, ino, (uint32_t)(at / r->stripe_size), &st);
		if (err == 0)
			err = verify_stripe(r, &st, off / VOL_BLOCK, (end + VOL_BLOCK - 1) / VOL_BLOCK, &bad);
		at += r->stripe_size;
	}
	if (ret_bad)
		*ret_bad = bad;
	return err == -ENOENT ? 0 : err;
}

int replica_distrust(struct replica *r, const struct record *rec)
{
	int err = 0;

	for (uint32_t i = 0; i < rec->n && err == 0; i++) {
		const struct effect *f = &rec->effect[i];

		if (f->type == EFFECT_WRITE || f->type == EFFECT_PUNCH)
			err = replica_verify(r, &f->ino, f->off, f->len, NULL);
		else if (f->type == EFFECT_TRIM || f->type == EFFECT_DROP)
			err = replica_verify(r, &f->ino, f->off, RECORD_OFF_MAX, NULL);
	}
	return err;
}
