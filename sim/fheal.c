/* SPDX-License-Identifier: Apache-2.0 */
/* fheal: a member is brought up to date, and bad blocks are repaired (src/volume/brick/heal.c, source.c and repair.c, in short): pages of changed keys from the
 * primary, ranges of data from all in-sync members in turn, one question of each kind at a time; a question without answer is asked again. */
#include "sim/files.h"

#define ASK_MS	  150
#define SOURCE_MS 3000
#define FAILS_MAX 200
#define ITEMS_MAX 12
#define REPAIR_MS 100

static uint64_t now_ms(const struct member *m)
{
	return brick_ms(m->s, m->brick);
}

static uint64_t epoch_of(const struct member *m)
{
	struct repl_view v;

	repl_get_view(m->r, &v);
	return v.epoch;
}

/* ---- what a source gives ---- */

static void put_item(struct buf *b, const struct delta_item *it)
{
	uint32_t kn = (uint32_t)it->key_len, vn = it->deleted ? UINT32_MAX : (uint32_t)it->value_len;

	buf_add(b, &it->seq, 8);
	buf_add(b, &kn, 4);
	buf_add(b, &vn, 4);
	buf_add(b, it->key, it->key_len);
	if (!it->deleted)
		buf_add(b, it->value, it->value_len);
}

static void give_page(struct member *m, const struct fmsg *q)
{
	struct replica *r = &m->st.f->r;
	struct fmsg *a = fmsg_new(F_PAGE, m->brick, q->from, m->group);
	int err = 0;

	a->id = q->id;
	a->ask = q->ask;
	a->cursor = q->cursor;
	if (q->first)
		err = replica_delta_start(r, q->since, &a->cursor);
	a->full = a->cursor.full;
	for (int i = 0; i < ITEMS_MAX && err == 0; i++) {
		struct delta_item it;

		err = replica_delta_next(r, &a->cursor, &it);
		if (err == 0)
			put_item(&a->body, &it);
	}
	a->done = err == -ENOENT;
	a->end_epoch = r->epoch;
	a->seq = r->seq;
	if (err < 0 && err != -ENOENT) {
		a->status = err == -ESTALE ? -ERANGE : -EIO;
		fmsg_send(m->s, a);
		return;
	}
	fmember_hold(m, a, repl_pos(m->r).seq);
}

static void give_data(struct member *m, const struct fmsg *q)
{
	struct replica *r = &m->st.f->r;
	struct fmsg *a;
	uint32_t crcs[FSTRIPE / VOL_BLOCK], n = q->range.len / VOL_BLOCK;

	if (r->seq < q->range.seq)
		return; /* asked again, or somebody else */
	ensure(n <= ARRAY_SIZE(crcs));
	a = fmsg_new(F_DATA, m->brick, q->from, m->group);
	a->id = q->id;
	a->range = q->range;
	a->seq = r->seq;
	a->payload = payload_new(q->range.len);
	ensure(replica_crcs(r, &q->range.ino, q->range.off, q->range.len, crcs) == 0);
	ensure(r->blob->read(r->blob, m->group, &q->range.ino, q->range.off, a->payload->data,
			     q->range.len) == 0);
	buf_add(&a->body, crcs, n * sizeof(crcs[0]));
	fmember_hold(m, a, repl_pos(m->r).seq);
}

/* ---- catching up ---- */

void fheal_stop(struct member *m)
{
	m->f->pull.on = false;
}

void fheal_start(struct member *m, uint64_t since)
{
	struct fpull *p = &m->f->pull;
	struct replica *r = &m->st.f->r;
	uint64_t from = 0;

	memset(p, 0, sizeof(*p));
	ensure(replica_delta_begin(r, m->f->pull_epoch == epoch_of(m), &from) == 0);
	if (since == 0 && from > 0) {
		from = 0;
		ensure(replica_delta_wipe(r) == 0);
	}
	m->f->pull_epoch = epoch_of(m);
	p->on = p->first = true;
	p->id = ++m->s->next_try;
	p->since = from;
	p->full = from == 0;
	p->primary_ms = now_ms(m);
	m->st.mem.dirty = true;
	store_checkpoint(&m->st);
	m->s->count.deltas++;
	trace(m->s, "brick %u group %u: pulls what changed since %llu", m->brick, m->group,
	      (unsigned long long)from);
}

static void finish(struct member *m, int err)
{
	struct replica *r = &m->st.f->r;
	struct repl_pos at = {r->epoch, r->seq};

	m->f->pull.on = false;
	m->f->repair.on = false;
	if (err == 0) {
		m->st.mem.pos = at;
		m->st.mem.dirty = false;
		m->st.mem.committed = MAX(m->st.mem.committed, at.seq);
		store_forget_recent(&m->st, at.seq);
		store_checkpoint(&m->st);
	}
	repl_on_delta(m->r, err, at, now_ms(m));
}

static uint8_t some_source(struct member *m, bool primary)
{
	struct repl_view v;
	uint8_t to;

	repl_get_view(m->r, &v);
	if (primary)
		return brick_of(m->s, m->group, v.primary);
	do
		to = (uint8_t)rnd_below(m->s, m->s->o.n);
	while (!(v.isr >> to & 1));
	return brick_of(m->s, m->group, to);
}

static void ask(struct member *m, struct fmsg *q)
{
	q->epoch = epoch_of(m);
	q->id = m->f->pull.id;
	if (q->to == m->brick)
		fmsg_free(q);
	else
		fmsg_send(m->s, q);
}

static void ask_page(struct member *m)
{
	struct fpull *p = &m->f->pull;
	struct fmsg *q = fmsg_new(F_DELTA, m->brick, some_source(m, true), m->group);

	p->asked_ms = now_ms(m);
	q->ask = ++p->ask;
	q->first = p->first;
	q->since = p->since;
	q->cursor = p->cursor;
	ask(m, q);
}

static void ask_data(struct member *m)
{
	struct fpull *p = &m->f->pull;
	struct fmsg *q;

	if (p->fetching) /* lost: the next one */
		replica_pull_data(&m->st.f->r, &p->range, 0, NULL, NULL, 0);
	else
		p->range = p->queue[--p->n];
	p->fetching = replica_pull_begin(&m->st.f->r, &p->range) == 0;
	p->fetch_ms = now_ms(m);
	if (!p->fetching)
		return;
	q = fmsg_new(F_FETCH, m->brick, some_source(m, false), m->group);
	q->range = p->range;
	ask(m, q);
}

static void enqueue(struct fpull *p, const struct pull_range *ranges, size_t n)
{
	for (size_t i = 0; i < n && p->n < ARRAY_SIZE(p->queue); i++)
		p->queue[p->n++] = ranges[i];
}

static void try_end(struct member *m)
{
	struct fpull *p = &m->f->pull;
	struct pull_range ranges[PULL_RANGES_MAX];
	struct vol_ino ino = {0};
	uint64_t off = 0;
	size_t n = 0;
	int r;

	while (p->n < PULL_RANGES_MAX && replica_bad_next(&m->st.f->r, &ino, &off, ranges, &n) == 0 && n > 0)
		enqueue(p, ranges, n);
	if (p->n > 0) {
		p->fails++;
		p->wait_ms = now_ms(m) + 5;
		return;
	}
	r = replica_delta_end(&m->st.f->r, p->full, p->end_epoch, p->end_seq);
	if (r == -EAGAIN) {
		p->walked = false;
		p->wait_ms = now_ms(m) + 2;
	} else {
		if (r < 0)
			violation(m->s, "operations", "group %u: brick %u cannot end its catching up: %s",
				  m->group, m->brick, strerror(-r));
		finish(m, r);
	}
}

static void pump(struct member *m)
{
	struct fpull *p = &m->f->pull;
	uint64_t now = now_ms(m);

	if (!p->on || now < p->wait_ms)
		return;
	if ((p->fetching && now - p->fetch_ms > ASK_MS) || (!p->fetching && p->n > 0))
		ask_data(m);
	if (!p->walked && (p->asked_ms == 0 || now - p->asked_ms > ASK_MS) && p->n < PULL_RANGES_MAX)
		ask_page(m);
	if (p->walked && p->n == 0 && !p->fetching)
		try_end(m);
}

void fheal_tick(struct member *m)
{
	struct fpull *p = &m->f->pull;

	if (!p->on)
		return;
	if (m->role != REPL_CATCHING) {
		p->on = false;
		return;
	}
	if (p->fails >= FAILS_MAX || now_ms(m) - p->primary_ms > SOURCE_MS) {
		finish(m, -EIO);
		return;
	}
	pump(m);
}

static int take_items(struct member *m, const struct fmsg *a)
{
	struct fpull *p = &m->f->pull;
	int err = 0;

	for (size_t at = 0; at < a->body.len && err == 0;) {
		struct pull_range ranges[PULL_RANGES_MAX];
		const uint8_t *d = (const uint8_t *)a->body.data + at;
		struct delta_item it = {.key = d + 16};
		uint32_t kn, vn;
		size_t n = 0;

		memcpy(&it.seq, d, 8);
		memcpy(&kn, d + 8, 4);
		memcpy(&vn, d + 12, 4);
		it.key_len = kn;
		it.deleted = vn == UINT32_MAX;
		it.value = it.deleted ? NULL : d + 16 + kn;
		it.value_len = it.deleted ? 0 : vn;
		at += 16 + kn + it.value_len;
		err = replica_delta_apply(&m->st.f->r, &it, ranges, &n);
		if (err == 0)
			enqueue(p, ranges, n);
	}
	return err;
}

static void take_page(struct member *m, const struct fmsg *a)
{
	struct fpull *p = &m->f->pull;
	int err = a->status;

	if (!p->on || a->id != p->id || a->ask != p->ask || p->asked_ms == 0)
		return;
	p->asked_ms = 0;
	p->primary_ms = now_ms(m);
	if (err == 0 && a->full && !p->full && p->first) {
		err = replica_delta_wipe(&m->st.f->r);
		p->full = true;
	}
	if (err == 0)
		err = take_items(m, a);
	if (err < 0) {
		p->fails += err == -ERANGE ? FAILS_MAX : 1;
		if (err == -ERANGE)
			m->f->pull_epoch = 0;
		p->wait_ms = now_ms(m) + 20;
		if (err != -ERANGE && err != -ESTALE && err != -EAGAIN)
			violation(m->s, "operations", "group %u: brick %u: a delta cannot be applied: %s",
				  m->group, m->brick, strerror(-err));
		return;
	}
	p->first = false;
	p->cursor = a->cursor;
	p->end_epoch = a->end_epoch;
	p->end_seq = a->seq;
	p->walked = a->done;
	if (rnd_in(m->s, 100000) && m->st.mem.pos.seq <= repl_committed(m->r))
		store_checkpoint(&m->st);
	pump(m);
}

static void take_data(struct member *m, const struct fmsg *a)
{
	struct fpull *p = &m->f->pull;
	int err;

	if (!p->on || a->id != p->id || !p->fetching || a->range.off != p->range.off ||
	    a->range.seq != p->range.seq || !vol_ino_eq(&a->range.ino, &p->range.ino) || a->status < 0)
		return;
	p->fetching = false;
	err = replica_pull_data(&m->st.f->r, &p->range, a->seq, (const uint32_t *)(const void *)a->body.data,
				a->payload->data, p->range.len);
	if (err < 0) {
		p->fails++;
		enqueue(p, &p->range, 1);
		p->wait_ms = now_ms(m) + 5;
	}
	pump(m);
}

/* ---- repair of bad blocks ---- */

static bool bad_here(struct member *m, const struct pull_range *range, uint32_t *ret_first)
{
	uint32_t crcs[FSTRIPE / VOL_BLOCK];

	ensure(replica_crcs(&m->st.f->r, &range->ino, range->off, range->len, crcs) == 0);
	for (*ret_first = 0; *ret_first < range->len / VOL_BLOCK; (*ret_first)++)
		if (crcs[*ret_first] == BLOCK_CRC_BAD)
			return true;
	return false;
}

/* No member has it: what lies here becomes the truth by a write of the primary. */
static void adopt(struct member *m, const struct pull_range *range, uint32_t block)
{
	struct replica *r = &m->st.f->r;
	struct record *rec = record_new(m->group);
	struct payload *p = payload_new(VOL_BLOCK);
	uint64_t off = range->off + (uint64_t)block * VOL_BLOCK;
	uint32_t gen = 0;

	ensure(r->blob->read(r->blob, m->group, &range->ino, off, p->data, VOL_BLOCK) == 0);
	ensure(replica_slice_gen(r, &range->ino, &gen) == 0);
	ensure(record_write(rec, &range->ino, gen, off, p) == 0);
	payload_unref(p);
	if (m->records < LOG_MAX / 2 && repl_submit_own(m->r, rec, now_ms(m)) == 0) {
		m->records++;
		trace(m->s, "brick %u group %u: adopts a block that no member has", m->brick, m->group);
		m->s->files->adopted++;
	}
	record_unref(rec);
}

static void repair_next(struct member *m)
{
	struct frepair *w = &m->f->repair;
	struct repl_view v;
	uint32_t block;

	repl_get_view(m->r, &v);
	replica_pull_data(&m->st.f->r, &w->range, 0, NULL, NULL, 0);
	if (!bad_here(m, &w->range, &block)) {
		w->on = false;
		return;
	}
	for (uint8_t i = 0; i < m->s->o.n; i++) {
		struct fmsg *q;

		if (i == m->index || w->tried >> i & 1 || !(v.isr >> i & 1))
			continue;
		w->tried |= (uint8_t)(1u << i);
		if (replica_pull_begin(&m->st.f->r, &w->range) < 0) {
			w->on = false;
			return;
		}
		w->id = ++m->s->next_try;
		w->sent_ms = now_ms(m);
		q = fmsg_new(F_FETCH, m->brick, brick_of(m->s, m->group, i), m->group);
		q->epoch = v.epoch;
		q->id = w->id;
		q->range = w->range;
		fmsg_send(m->s, q);
		return;
	}
	w->on = false;
	if (w->all_bad && repl_is_primary(m->r, now_ms(m)))
		adopt(m, &w->range, block);
}

static void repair_data(struct member *m, const struct fmsg *a)
{
	struct frepair *w = &m->f->repair;
	uint32_t crcs[FSTRIPE / VOL_BLOCK], mine[FSTRIPE / VOL_BLOCK], n = w->range.len / VOL_BLOCK;

	if (!w->on || a->id != w->id || a->status < 0)
		return;
	memcpy(crcs, a->body.data, n * sizeof(crcs[0]));
	for (uint32_t i = 0; i < n; i++)
		if (crcs[i] > BLOCK_CRC_BAD && block_crc(a->payload->data + (size_t)i * VOL_BLOCK) != crcs[i])
			crcs[i] = BLOCK_CRC_BAD;
	replica_pull_data(&m->st.f->r, &w->range, a->seq, crcs, a->payload->data, w->range.len);
	m->s->files->repaired++;
	ensure(replica_crcs(&m->st.f->r, &w->range.ino, w->range.off, w->range.len, mine) == 0);
	for (uint32_t i = 0; i < n; i++)
		w->all_bad = w->all_bad && (mine[i] != BLOCK_CRC_BAD || crcs[i] == BLOCK_CRC_BAD);
	repair_next(m);
}

void frepair_tick(struct member *m)
{
	struct frepair *w = &m->f->repair;
	struct pull_range ranges[PULL_RANGES_MAX];
	struct vol_ino ino = {0};
	uint64_t off = 0, now = now_ms(m);
	size_t n = 0;

	if (m->role != REPL_PRIMARY && m->role != REPL_BACKUP) {
		if (w->on)
			replica_pull_data(&m->st.f->r, &w->range, 0, NULL, NULL, 0);
		w->on = false;
		return;
	}
	if (w->on) {
		if (now - w->sent_ms > ASK_MS) {
			w->all_bad = false;
			repair_next(m);
		}
		return;
	}
	if (now < w->look_ms)
		return;
	w->look_ms = now + REPAIR_MS;
	if (replica_bad_next(&m->st.f->r, &ino, &off, ranges, &n) < 0 || n == 0)
		return;
	*w = (struct frepair){.on = true, .all_bad = true, .look_ms = w->look_ms, .range = ranges[0]};
	repair_next(m);
}

/* ---- in ---- */

void fheal_msg(struct member *m, struct fmsg *q)
{
	bool source = m->role == REPL_PRIMARY || m->role == REPL_BACKUP;

	if (q->type == F_PAGE)
		take_page(m, q);
	else if (q->type == F_DATA && m->f->pull.on && q->id == m->f->pull.id)
		take_data(m, q);
	else if (q->type == F_DATA)
		repair_data(m, q);
	else if (source && epoch_of(m) == q->epoch && q->type == F_DELTA)
		give_page(m, q);
	else if (source && epoch_of(m) == q->epoch)
		give_data(m, q);
}
