/* SPDX-License-Identifier: Apache-2.0 */
/* brick: what `kuayu brick` does with the core, in short: executes clients' operations on the group's state, holds answers until they may go, serves
 * and pulls deltas. The rules of repl.h for shells are kept here as a brick must keep them. */
#include "sim/files.h"

#define TICK_MS	    20
#define PULL_TRY_MS 150
#define BATCH_MAX   4
#define DIES_AHEAD  2000 /* ppm */

static const struct repl_io io;

uint8_t brick_of(const struct sim *s, uint8_t group, uint8_t index)
{
	return (uint8_t)((index + group) % s->o.n);
}

struct member *member_at(struct sim *s, uint8_t group, uint8_t index)
{
	return &s->brick[brick_of(s, group, index)].m[group];
}

uint64_t brick_ms(const struct sim *s, uint8_t b)
{
	const struct brick *k = &s->brick[b];

	return (uint64_t)((int64_t)(s->now / 1000 * k->clock_ppm / 1000000) + k->clock_offset);
}

const char *role_name(enum repl_role r)
{
	return (const char *[]){"out", "catching", "backup", "promoting", "primary"}[r];
}

/* ---- answers that wait ---- */

static void drop_answers(struct member *m)
{
	for (uint32_t i = 0; i < m->n_held; i++)
		free(m->held[i].answer);
	m->n_held = 0;
}

static void answer_ready(struct member *m, uint64_t delivered)
{
	uint32_t kept = 0;
	uint64_t seen = repl_committed(m->r);

	for (uint32_t i = 0; i < m->n_pending; i++) {
		struct pending *p = &m->pending[i];

		if (p->type == OP_SYNC || p->seq > (p->type == OP_READ ? seen : delivered)) {
			m->pending[kept++] = *p;
			continue;
		}
		client_answer(m->s, m->brick, p->client, p->try_id, 0, p->value);
	}
	m->n_pending = kept;
}

static void refuse_all(struct member *m)
{
	for (uint32_t i = 0; i < m->n_pending; i++)
		if (m->pending[i].type != OP_SYNC)
			client_answer(m->s, m->brick, m->pending[i].client, m->pending[i].try_id, -EAGAIN, 0);
	m->n_pending = 0;
}

static int hold(struct member *m, const struct question *q, uint64_t seq, uint64_t value)
{
	if (m->n_pending == PENDING_MAX)
		return -EAGAIN;
	m->pending[m->n_pending++] = (struct pending){q->client, q->type, q->try_id, seq, value};
	return 0;
}

/* ---- clients' operations ---- */

static int do_read(struct member *m, const struct question *q)
{
	struct cell *c = &m->st.mem.reg[q->reg];

	if (!repl_may_read(m->r, brick_ms(m->s, m->brick)))
		return -EAGAIN;
	if (m->role == REPL_BACKUP && c->seq > repl_committed(m->r))
		return -EAGAIN; /* not known as committed: ask the primary */
	return hold(m, q, c->seq, c->value);
}

static int do_write(struct member *m, const struct question *q)
{
	struct cell *done = &m->st.mem.done[q->client];
	struct record *rec;
	uint8_t key[2] = {'E', q->reg}, dkey[2] = {'D', q->client};
	int err;

	if (m->role != REPL_PRIMARY)
		return -EAGAIN;
	if (q->number < done->value)
		return -ESTALE; /* the client has gone on */
	if (q->number == done->value)
		return hold(m, q, done->seq, 0); /* a retry: the same answer, when it may go */
	rec = record_new(m->group);
	ensure(rec && record_put(rec, key, 2, &q->value, 8) == 0 &&
	       record_put(rec, dkey, 2, &q->number, 8) == 0);
	err = m->n_pending == PENDING_MAX || m->records > LOG_MAX / 2
		      ? -EAGAIN
		      : repl_submit(m->r, rec, brick_ms(m->s, m->brick));
	if (err == 0) {
		m->records++;
		err = hold(m, q, rec->seq, 0);
	}
	record_unref(rec);
	return err;
}

static int do_sync(struct member *m, const struct question *q)
{
	uint64_t upto = repl_pos(m->r).seq;
	int err = m->n_pending == PENDING_MAX ? -EAGAIN : 0;

	if (err == 0)
		err = hold(m, q, upto, 0);
	if (err == 0) {
		err = repl_sync(m->r, q->try_id, brick_ms(m->s, m->brick));
		if (err < 0)
			m->n_pending--;
	}
	return err;
}

void brick_question(struct sim *s, uint8_t b, const struct question *q)
{
	struct member *m = &s->brick[b].m[q->group];
	int err = q->type == OP_READ ? do_read(m, q) : q->type == OP_WRITE ? do_write(m, q) : do_sync(m, q);

	if (err < 0)
		client_answer(s, b, q->client, q->try_id, err, 0);
	else
		answer_ready(m, m->st.mem.committed);
	member_deltas(m);
}

/* ---- what the core asks ---- */

static void io_send(void *ctx, const struct repl_msg *msg)
{
	struct member *m = ctx;
	uint8_t to = brick_of(m->s, m->group, msg->to);

	if (m->s->brick[m->brick].dying)
		return;
	m->ahead |= msg->ahead;
	m->known_epoch = MAX(m->known_epoch, msg->view.epoch);
	net_send(m->s, msg, m->brick, to);
}

static int io_append(void *ctx, struct record *rec, bool live)
{
	struct member *m = ctx;
	bool ahead = m->ahead;

	m->ahead = false;
	if (ahead && !m->s->calm && rnd_in(m->s, DIES_AHEAD)) {
		fault_crash(m->s, m->brick);
		return -EIO;
	}
	if (m->bad_disk)
		return -EIO;
	check_fenced(m, "append");
	ensure(rec->seq < LOG_MAX - 1);
	if (live)
		m->live_seq = rec->seq;
	return store_append(&m->st, rec, live);
}

static void io_committed(void *ctx, uint64_t seq)
{
	struct member *m = ctx;

	ensure(seq >= m->st.mem.committed);
	if (m->role == REPL_PRIMARY || m->role == REPL_PROMOTING)
		m->s->count.commits += seq - m->st.mem.committed;
	m->st.mem.committed = seq;
}

static void io_rollback(void *ctx, struct repl_pos pos, struct repl_pos *ret)
{
	struct member *m = ctx;

	*ret = store_rollback(&m->st, pos);
	m->rollbacks++;
	m->s->count.cuts++;
	drop_answers(m);
	refuse_all(m);
	if (m->f)
		fmember_rolled_back(m);
	trace(m->s, "brick %u group %u: cuts its log to %llu/%llu, is at %llu/%llu", m->brick, m->group,
	      (unsigned long long)pos.epoch, (unsigned long long)pos.seq, (unsigned long long)ret->epoch,
	      (unsigned long long)ret->seq);
}

static void synced_now(struct sim *s, struct event *e)
{
	struct member *m = &s->brick[e->brick].m[e->a];

	store_synced(&m->st, (uint32_t)e->b, (uint32_t)e->v);
	repl_on_local_sync(m->r, e->u, m->bad_disk ? -EIO : 0, brick_ms(s, e->brick));
	member_deltas(m);
}

static void io_sync(void *ctx, uint64_t seq)
{
	struct member *m = ctx;
	struct sim *s = m->s;
	struct brick *b = &s->brick[m->brick];
	uint64_t at = s->now + rnd_us(s, 500) + s->slow_disk[m->brick];
	struct event *e;

	/* In order: a later sync is never ready before an earlier one. */
	at = MAX(at, m->sync_at + 1);
	m->sync_at = at;
	e = event_new(s, at - s->now, synced_now);
	s->count.syncs++;
	e->brick = m->brick;
	e->life = b->life;
	e->a = m->group;
	e->b = m->st.n;
	e->v = m->st.cuts;
	e->u = seq;
}

static void io_synced(void *ctx, uint64_t cookie, int err)
{
	struct member *m = ctx;

	if (m->f)
		fmember_synced(m, cookie, err);
	for (uint32_t i = 0; i < m->n_pending; i++) {
		struct pending *p = &m->pending[i];

		if (p->type != OP_SYNC || p->try_id != cookie)
			continue;
		if (err == 0)
			check_synced(m, p->seq);
		client_answer(m->s, m->brick, p->client, p->try_id, err, 0);
		*p = m->pending[--m->n_pending];
		return;
	}
}

static void io_propose(void *ctx, uint64_t expect, const struct repl_view *next)
{
	etcd_propose(ctx, expect, next);
}

static void io_pull(void *ctx, uint64_t since, uint8_t sources)
{
	struct member *m = ctx;
	struct regs *g = &m->st.mem;

	if (m->f) {
		fheal_start(m, since);
		return;
	}
	/* A catching up that an earlier life did not finish: what it brought cannot be judged; everything is compared. */
	if (g->dirty && !m->caught_before)
		since = 0;
	m->caught_before = true;
	if (since == 0) {
		memset(g->reg, 0, sizeof(g->reg));
		memset(g->done, 0, sizeof(g->done));
	}
	g->dirty = true;
	m->pull_id = ++m->s->next_try;
	m->pull_since = m->pull_cursor = since;
	m->pull_sources = sources;
	m->live_seq = 0;
	m->pull_asked = 0;
	m->s->count.deltas++;
	trace(m->s, "brick %u group %u: pulls what changed since %llu", m->brick, m->group,
	      (unsigned long long)since);
}

static void io_changed(void *ctx, enum repl_role role, const struct repl_view *view)
{
	struct member *m = ctx;
	enum repl_role was = m->role;

	m->known_epoch = MAX(m->known_epoch, view->epoch);
	m->role = role;
	if (role != was)
		trace(m->s, "brick %u group %u: %s in epoch %llu", m->brick, m->group, role_name(role),
		      (unsigned long long)view->epoch);
	if (role == REPL_PRIMARY || role == REPL_PROMOTING)
		check_epoch(m, view->epoch);
	if (role != was)
		m->new_primary = role == REPL_PRIMARY; /* judged when it may serve */
	if (role != was) {
		drop_answers(m);
		refuse_all(m);
	}
	if (role != REPL_CATCHING)
		m->pull_id = 0;
	if (m->f)
		fmember_changed(m);
}

static struct record *io_fetch(void *ctx, uint64_t seq)
{
	struct member *m = ctx;

	return seq < LOG_MAX ? record_ref(m->st.recent[seq]) : NULL;
}

static void io_sure(void *ctx, bool sure)
{
	struct member *m = ctx;

	m->st.sure = sure;
	if (sure)
		m->lost_power = false;
}

static const struct repl_io io = {io_send,    io_append, io_committed, io_rollback, io_sync, io_synced,
				  io_propose, io_pull,	 io_changed,   io_fetch,    io_sure};

/* ---- deltas ---- */

struct delta_ask {
	uint64_t id, cursor, epoch;
	uint8_t from, group;
};
struct delta_answer {
	uint64_t id, epoch, cursor, next; /* cursor: which question; next: where to go on */
	uint8_t to, group, n;
	bool end;
	struct repl_pos at; /* end: the source's position */
	struct {
		bool done; /* else reg */
		uint8_t i;
		struct cell c;
	} item[BATCH_MAX];
};

static uint64_t next_change(const struct regs *g, uint64_t behind)
{
	uint64_t best = UINT64_MAX;

	for (uint8_t i = 0; i < REGS; i++)
		if (g->reg[i].seq > behind)
			best = MIN(best, g->reg[i].seq);
	for (uint8_t i = 0; i < CLIENTS_MAX; i++)
		if (g->done[i].seq > behind)
			best = MIN(best, g->done[i].seq);
	return best;
}

static void add_item(struct delta_answer *a, bool done, uint8_t i, struct cell c)
{
	a->item[a->n].done = done;
	a->item[a->n].i = i;
	a->item[a->n++].c = c;
}

/* The changes behind cursor, in order of their sequence number, a few at a time. A record changes two cells: both or none. */
static void gather(struct member *m, struct delta_answer *a, uint64_t cursor)
{
	const struct regs *g = &m->st.mem;

	a->next = cursor;
	for (a->n = 0; a->n + 2 <= BATCH_MAX;) {
		uint64_t seq = next_change(g, a->next);

		if (seq == UINT64_MAX) {
			a->end = true;
			a->at = g->pos;
			return;
		}
		for (uint8_t i = 0; i < REGS; i++)
			if (g->reg[i].seq == seq)
				add_item(a, false, i, g->reg[i]);
		for (uint8_t i = 0; i < CLIENTS_MAX; i++)
			if (g->done[i].seq == seq)
				add_item(a, true, i, g->done[i]);
		a->next = seq;
	}
}

static void take_answer(struct sim *s, struct event *e)
{
	struct delta_answer *a = e->p;
	struct member *m = &s->brick[e->brick].m[a->group];
	struct regs *g = &m->st.mem;

	if (a->id != m->pull_id || m->pull_id == 0 || a->cursor != m->pull_cursor)
		return;
	for (uint8_t i = 0; i < a->n; i++) {
		struct cell *c = a->item[i].done ? &g->done[a->item[i].i] : &g->reg[a->item[i].i];

		if (a->item[i].c.seq > c->seq)
			*c = a->item[i].c;
	}
	m->pull_cursor = a->next;
	m->pull_asked = 0;
	/* What came is committed: a checkpoint may hold it. */
	if (rnd_in(s, 200000) && m->st.mem.pos.seq <= repl_committed(m->r))
		store_checkpoint(&m->st);
	if (!a->end)
		return;
	if (a->at.seq < m->live_seq) { /* live records are ahead of that source: walk on */
		m->pull_asked = brick_ms(s, e->brick);
		return;
	}
	g->pos = a->at;
	g->dirty = false;
	g->committed = MAX(g->committed, a->at.seq);
	store_forget_recent(&m->st, a->at.seq);
	store_checkpoint(&m->st);
	m->pull_id = 0;
	m->caught_before = false;
	repl_on_delta(m->r, 0, a->at, brick_ms(s, e->brick));
	member_deltas(m);
}

static void send_answer(struct sim *s, uint8_t from, struct delta_answer *a)
{
	uint64_t delay;
	struct event *e;

	if (!net_reach(s, from, a->to, &delay)) {
		free(a);
		return;
	}
	e = event_new(s, delay, take_answer);
	e->brick = a->to;
	e->p = a;
	e->drop = free;
}

static void take_ask(struct sim *s, struct event *e)
{
	struct delta_ask *q = e->p;
	struct member *m = &s->brick[e->brick].m[q->group];
	struct repl_view v;
	struct delta_answer *a;

	repl_get_view(m->r, &v);
	if ((m->role != REPL_BACKUP && m->role != REPL_PRIMARY) || v.epoch != q->epoch ||
	    m->n_held == ARRAY_SIZE(m->held))
		return;
	a = xcalloc(1, sizeof(*a));
	a->id = q->id;
	a->cursor = q->cursor;
	a->to = q->from;
	a->group = q->group;
	gather(m, a, q->cursor);
	/* Held until what it contains is committed. */
	m->held[m->n_held].seq = repl_pos(m->r).seq;
	m->held[m->n_held++].answer = a;
	member_deltas(m);
}

static void pull_tick(struct member *m)
{
	struct sim *s = m->s;
	uint64_t now = brick_ms(s, m->brick), delay;
	struct delta_ask *q;
	struct repl_view v;
	struct event *e;
	uint8_t to;

	if (m->pull_id == 0 || (m->pull_asked > 0 && now - m->pull_asked < PULL_TRY_MS))
		return;
	repl_get_view(m->r, &v);
	m->pull_asked = now;
	do
		to = (uint8_t)rnd_below(s, s->o.n);
	while (!(v.isr >> to & 1));
	to = brick_of(s, m->group, to);
	if (to == m->brick || !net_reach(s, m->brick, to, &delay))
		return;
	q = xcalloc(1, sizeof(*q));
	*q = (struct delta_ask){m->pull_id, m->pull_cursor, v.epoch, m->brick, m->group};
	e = event_new(s, delay, take_ask);
	e->brick = to;
	e->p = q;
	e->drop = free;
}

/* After every call of the core: what it did may let answers go. */
void member_deltas(struct member *m)
{
	uint32_t kept = 0;
	struct repl_view v;
	uint64_t seen;

	if (!m->r)
		return;
	seen = repl_committed(m->r);
	repl_get_view(m->r, &v);
	if (m->new_primary && ((m->s->truth[m->group].excuse && v.epoch == m->s->etcd[m->group].view.epoch) ||
			       repl_is_primary(m->r, brick_ms(m->s, m->brick)))) {
		m->new_primary = false;
		check_primary(m);
	}
	if (m->role == REPL_PRIMARY || (m->role == REPL_PROMOTING && !m->s->truth[m->group].excuse))
		check_committed(m, seen);
	for (uint32_t i = 0; i < m->n_held; i++)
		if (m->held[i].seq <= seen)
			send_answer(m->s, m->brick, m->held[i].answer);
		else
			m->held[kept++] = m->held[i];
	m->n_held = kept;
	if (m->f) {
		fmember_turn(m);
		return;
	}
	answer_ready(m, m->st.mem.committed);
	if (m->pull_id > 0 && m->pull_asked == 0)
		pull_tick(m);
}

/* ---- life ---- */

static void maybe_checkpoint(struct member *m)
{
	if (m->st.mem.pos.seq <= m->st.mem.committed && rnd_in(m->s, 20000))
		store_checkpoint(&m->st);
	if (rnd_in(m->s, 20000))
		store_forget_recent(&m->st, m->st.mem.committed);
}

static void tick(struct sim *s, struct event *e)
{
	struct brick *b = &s->brick[e->brick];

	for (uint8_t g = 0; g < s->o.groups; g++) {
		struct member *m = &b->m[g];

		repl_tick(m->r, brick_ms(s, b->id));
		if (m->f)
			fmember_tick(m);
		else
			pull_tick(m);
		member_deltas(m);
		maybe_checkpoint(m);
	}
	e = event_new(s, TICK_MS * MS, tick);
	e->brick = b->id;
	e->life = b->life;
}

static void start_member(struct sim *s, struct member *m)
{
	struct repl_config c;

	repl_config_default(&c);
	c.group = m->group;
	c.self = m->index;
	c.n = s->o.n;
	c.write_quorum = s->o.write_quorum;
	c.backup_reads = s->o.backup_reads;
	c.life = s->brick[m->brick].life;
	c.handback_ms = s->o.handback_ms;
	c.ahead_from = s->o.ahead ? 0 : UINT32_MAX;
	c.unsure_wait_ms = s->o.strict_unsure ? 1000000000 : 2000;
	store_recover(&m->st, s->o.keep_recent);
	m->n_pending = m->n_held = 0;
	m->pull_id = 0;
	m->caught_before = false;
	m->known_epoch = 0;
	m->new_primary = false;
	m->role = REPL_OUT;
	m->cas_id = 0;
	m->bad_disk = m->ahead = false;
	m->sync_at = 0;
	if (m->f)
		fmember_init(m);
	m->r = repl_new(&c, &io, m);
	if (m->st.mem.dirty) {
		m->st.mem.pos = (struct repl_pos){0, 0};
		m->st.mem.committed = 0;
	}
	repl_start(m->r, m->st.mem.pos, m->st.mem.committed, m->st.sure, brick_ms(s, m->brick));
	trace(s, "brick %u group %u: starts at %llu/%llu, committed %llu%s", m->brick, m->group,
	      (unsigned long long)m->st.mem.pos.epoch, (unsigned long long)m->st.mem.pos.seq,
	      (unsigned long long)m->st.mem.committed, m->st.sure ? "" : ", unsure");
}

static void first_view(struct sim *s, struct event *e)
{
	struct brick *b = &s->brick[e->brick];

	if (s->etcd_away || s->cut_etcd[b->id]) {
		e = event_new(s, 100 * MS, first_view);
		e->brick = b->id;
		e->life = b->life;
		return;
	}
	for (uint8_t g = 0; g < s->o.groups; g++) {
		repl_on_view(b->m[g].r, &s->etcd[g].view, brick_ms(s, b->id));
		member_deltas(&b->m[g]);
	}
}

void brick_up(struct sim *s, uint8_t id)
{
	struct brick *b = &s->brick[id];
	struct event *e;

	if (b->up)
		return;
	b->up = true;
	b->leaving = b->dying = false;
	b->life++;
	b->started_ms = brick_ms(s, id);
	for (uint8_t g = 0; g < s->o.groups; g++)
		start_member(s, &b->m[g]);
	e = event_new(s, rnd_us(s, s->o.etcd_delay_us), first_view);
	e->brick = id;
	e->life = b->life;
	e = event_new(s, rnd_below(s, TICK_MS * MS), tick);
	e->brick = id;
	e->life = b->life;
}

void brick_down(struct sim *s, uint8_t id, bool power)
{
	struct brick *b = &s->brick[id];

	if (!b->up)
		return;
	brick_cont(s, id);
	b->up = false;
	trace(s, "brick %u: %s", id, power ? "loses power" : "crashes");
	for (uint8_t g = 0; g < s->o.groups; g++) {
		struct member *m = &b->m[g];

		drop_answers(m);
		m->n_pending = 0;
		if (m->f)
			fmember_down(m);
		m->r = repl_free(m->r);
		m->role = REPL_OUT;
		store_crash(s, &m->st, power);
		if (power)
			m->lost_power = true;
	}
}

void brick_stop(struct sim *s, uint8_t id)
{
	if (s->brick[id].up && !s->brick[id].stopped) {
		s->brick[id].stopped = true;
		trace(s, "brick %u: is stopped", id);
	}
}

/* What came while it was stopped is there at once, in order. */
void brick_cont(struct sim *s, uint8_t id)
{
	struct brick *b = &s->brick[id];

	if (!b->stopped)
		return;
	b->stopped = false;
	trace(s, "brick %u: goes on", id);
	for (uint32_t i = 0; i < b->n_waiting; i++) {
		struct event *w = b->waiting[i], *e = event_new(s, 1, w->fn);
		uint64_t n = e->n, at = e->at;

		*e = *w;
		e->n = n;
		e->at = at;
		w->drop = NULL;
		w->p = s->free_events;
		s->free_events = w;
	}
	b->n_waiting = 0;
}

void brick_init(struct sim *s)
{
	for (uint8_t i = 0; i < s->o.n; i++) {
		struct brick *b = &s->brick[i];

		b->id = i;
		b->clock_offset = (int64_t)rnd_below(s, 100000);
		b->clock_ppm = (uint32_t)(960000 + rnd_below(s, 80001));
		for (uint8_t g = 0; g < s->o.groups; g++) {
			struct member *m = &b->m[g];

			m->s = s;
			m->brick = i;
			m->group = g;
			m->index = (uint8_t)((i + s->o.n - g % s->o.n) % s->o.n);
			store_init(&m->st, s->o.files, g);
			if (s->o.files)
				m->f = xcalloc(1, sizeof(*m->f));
		}
	}
	for (uint8_t i = 0; i < s->o.n; i++)
		brick_up(s, i);
	etcd_watch_tick(s);
}
