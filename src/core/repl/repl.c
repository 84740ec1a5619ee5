/* SPDX-License-Identifier: Apache-2.0 */
/* repl: life of a member, the functions of repl.h, and messages in and out.
 *
 * A message is judged in this order: is it well formed; is it of the newest life of its sender (a process that started anew forgot its leases, and
 * after a power loss also records); does it bring a newer view (then that is adopted first); is it of an older epoch (then its sender is told and the
 * rest is not looked at). What is left is of this epoch and goes to the role's function. */
#include "core/repl/internal.h"

void repl_config_default(struct repl_config *c)
{
	*c = (struct repl_config){.n = 1,
				  .write_quorum = 2,
				  .heartbeat_ms = 50,
				  .suspect_ms = 300,
				  .lease_ms = 200,
				  .skew_ms = 20,
				  .ack_timeout_ms = 1000,
				  .unsure_wait_ms = 10000,
				  .handback_ms = 10000,
				  .ahead_from = (64u << 10) + 1};
}

struct repl *repl_new(const struct repl_config *c, const struct repl_io *io, void *ctx)
{
	struct repl *r = calloc(1, sizeof(*r));

	ensure(c->n >= 1 && c->n <= VOL_MEMBERS_MAX && c->self < c->n);
	if (!r)
		return NULL;
	r->c = *c;
	r->c.write_quorum = CLAMP(c->write_quorum, 1, c->n);
	r->io = *io;
	r->ctx = ctx;
	r->whole = true;
	r->lost = c->lost;
	return r;
}

struct repl *repl_free(struct repl *r)
{
	if (!r)
		return NULL;
	for (uint32_t i = 0; i < RING; i++)
		record_unref(r->ring[i]);
	free(r);
	return NULL;
}

void repl_start(struct repl *r, struct repl_pos pos, uint64_t committed, bool sure, uint64_t now_ms)
{
	ensure(!r->started && !(sure && r->lost));
	r->started = true;
	r->start_ms = r->tick_ms = r->heard_ms = now_ms;
	r->last_stamp = r->cut_ok = now_ms << STAMP_SHIFT;
	r->pos = r->live = pos;
	r->ring_low = pos.seq;
	r->committed = r->delivered = MIN(committed, pos.seq);
	r->sure = sure;
	r->synced = r->sync_asked = 0;
	if (pos.seq > 0)
		log_epoch_add(r, pos.epoch, pos.seq);
	/* What an earlier life granted is not known: as if it were now. */
	if (r->c.n > 1) {
		r->grant_ms = now_ms;
		r->grant_until = now_ms + r->c.lease_ms + r->c.skew_ms;
		r->grant_to = UINT8_MAX;
	}
	r->io.changed(r->ctx, r->role, &r->view);
}

/* ---- out ---- */

static uint64_t next_stamp(struct repl *r, uint64_t now)
{
	r->last_stamp = MAX(now << STAMP_SHIFT, r->last_stamp + 1);
	return r->last_stamp;
}

void repl_send(struct repl *r, uint8_t to, struct repl_msg *m, uint64_t now)
{
	ensure(to < r->c.n && to != r->c.self);
	m->group = r->c.group;
	m->from = r->c.self;
	m->to = to;
	m->view = r->view;
	m->epoch = r->view.epoch;
	m->pos = r->role == REPL_CATCHING ? r->live : r->pos;
	m->commit = r->committed;
	m->stamp = next_stamp(r, now);
	if (m->echo == 0)
		m->echo = r->peer[to].stamp;
	m->life = r->c.life;
	m->sure = usable(r);
	m->failed = r->failed || r->leaving;
	m->lost = r->lost || (!r->whole && !in_set(r->view.isr, r->c.self));
	m->hears = is_self_primary(r) ||
		   (r->role == REPL_BACKUP && now - r->heard_ms < r->c.heartbeat_ms * 5 / 2);
	r->io.send(r->ctx, m);
}

void repl_send_type(struct repl *r, uint8_t to, enum repl_msg_type t, uint64_t now)
{
	struct repl_msg m = {.type = t};

	repl_send(r, to, &m, now);
}

/* A member whose disk failed speaks to the primary only, to be let go: others must not count on what it has. */
void repl_broadcast_hello(struct repl *r, uint64_t now)
{
	r->hello_ms = now;
	for (uint8_t i = 0; i < r->c.n; i++)
		if (i != r->c.self && is_member(r, i) && (!r->failed || i == r->view.primary))
			repl_send_type(r, i, REPL_MSG_HELLO, now);
}

void repl_set_role(struct repl *r, enum repl_role role)
{
	r->role = role;
	if (r->told_role == role && r->told_epoch == r->view.epoch)
		return;
	r->told_role = role;
	r->told_epoch = r->view.epoch;
	r->io.changed(r->ctx, role, &r->view);
}

void repl_set_sure(struct repl *r, bool sure)
{
	r->sure = sure;
	r->lost = r->lost && !sure;
	r->io.sure(r->ctx, sure);
}

/* ---- in ---- */

static bool well_formed(const struct repl *r, const struct repl_msg *m)
{
	if (m->group != r->c.group || m->from >= r->c.n || m->from == r->c.self ||
	    m->epoch != m->view.epoch || !view_well_formed(r, &m->view) ||
	    !in_set(repl_members(&m->view, r->c.n), m->from))
		return false;
	return m->type != REPL_MSG_APPEND ||
	       (m->record && m->record->group == r->c.group && m->record->seq > 0 &&
		m->record->epoch <= m->epoch && m->record->prev_epoch <= m->record->epoch);
}

/* A new life of the sender: what it said and had is to be heard again. Its lease to us holds on: it waits for its end itself. */
static void new_life(struct repl *r, struct peer *p, uint64_t life)
{
	p->life = life;
	p->stamp = 0;
	p->said = false;
	p->matched = false;
	p->acked = p->synced = p->sync_sent = p->base = p->attempt = 0;
	if (p->st == PEER_LIVE || p->st == PEER_JOINING)
		p->st = PEER_OUT;
}

/* False: an old message that must not be looked at. */
static bool note_sender(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	struct peer *p = &r->peer[m->from];
	bool news = m->type == REPL_MSG_HELLO || m->type == REPL_MSG_VIEW || m->type == REPL_MSG_CAUGHT_UP;

	if (m->life < p->life)
		return false;
	if (m->life > p->life)
		new_life(r, p, m->life);
	if (news && m->stamp <= p->stamp)
		return false;
	if (m->stamp > p->stamp) {
		p->stamp = m->stamp;
		p->stamp_ms = now;
	}
	p->down = false;
	return true;
}

static void note_said(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	struct peer *p = &r->peer[m->from];

	if (m->failed)
		return; /* nothing can be expected of it */
	p->said = true;
	p->said_ms = now;
	p->said_epoch = m->epoch;
	p->said_pos = m->pos;
	p->said_sure = m->sure;
	p->said_hears = m->hears;
	p->said_lost = m->lost;
}

/* Who lent its lease to an earlier primary need not wait for the end once that one knows a newer epoch. */
static void note_grant(struct repl *r, const struct repl_msg *m)
{
	if (r->grant_to == m->from && m->epoch > r->grant_epoch)
		r->grant_until = 0;
}

static void on_hello(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	note_said(r, m, now);
	if (is_self_primary(r)) {
		primary_on_hello(r, m->from, m, now);
		return;
	}
	repl_send_type(r, m->from, REPL_MSG_VIEW, now);
	/* The primary of this very view says that it cannot be it (it started anew). */
	if (r->view.epoch > 0 && m->from == r->view.primary && !m->sure && r->role == REPL_BACKUP)
		r->heard_ms = MIN(r->heard_ms, now - MIN(now, r->c.suspect_ms + 1));
}

static void dispatch_primary(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	switch (m->type) {
	case REPL_MSG_ACK:
	case REPL_MSG_HEARTBEAT_ACK:
	case REPL_MSG_SYNCED:
		primary_on_pos(r, m->from, m, now);
		break;
	case REPL_MSG_CAUGHT_UP:
		primary_on_caught_up(r, m->from, m, now);
		break;
	default:
		break;
	}
}

static void dispatch_backup(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	if (m->from != r->view.primary)
		return;
	switch (m->type) {
	case REPL_MSG_APPEND:
		r->heard_ms = now;
		backup_on_append(r, m, now);
		break;
	case REPL_MSG_HEARTBEAT:
		r->heard_ms = now;
		backup_on_heartbeat(r, m, now);
		break;
	case REPL_MSG_CUT:
		r->heard_ms = now;
		backup_on_cut(r, m, now);
		break;
	case REPL_MSG_SYNC:
		r->sync_want = MAX(r->sync_want, m->live.seq);
		sync_serve(r, now);
		break;
	default:
		break;
	}
}

void repl_on_msg(struct repl *r, const struct repl_msg *m, uint64_t now_ms)
{
	if (!r->started || r->gone || !well_formed(r, m))
		return;
	if (!same_member(r, &r->view, &m->view, m->from)) { /* the slot's member of now is another one */
		if (m->view.epoch <= r->view.epoch)
			return;
		view_adopt(r, &m->view, false, now_ms);
	}
	if (r->gone || !note_sender(r, m, now_ms))
		return;
	note_grant(r, m);
	if (m->view.epoch > r->view.epoch)
		view_adopt(r, &m->view, false, now_ms);
	if (m->epoch < r->view.epoch && m->type != REPL_MSG_VIEW) {
		repl_send_type(r, m->from, REPL_MSG_VIEW, now_ms);
		return;
	}
	if (r->gone || m->epoch != r->view.epoch)
		return;
	if (m->type == REPL_MSG_HELLO) {
		on_hello(r, m, now_ms);
		view_tick(r, now_ms);
	} else if (m->type == REPL_MSG_VIEW) {
		note_said(r, m, now_ms);
		view_tick(r, now_ms);
	} else if (is_self_primary(r)) {
		dispatch_primary(r, m, now_ms);
	} else if (r->view.epoch > 0) {
		dispatch_backup(r, m, now_ms);
	}
}

/* ---- the shell's side ---- */

static int submit(struct repl *r, struct record *rec, bool own, uint64_t now_ms)
{
	int err;

	ensure(rec->group == r->c.group);
	if (r->role != REPL_PRIMARY || r->handing || r->leaving ||
	    now_ms > primary_lease_end(r) + r->c.ack_timeout_ms)
		return -EAGAIN;
	if (r->failed)
		return -EIO;
	if (!own && !set_role_quorum(r, r->view.isr))
		return -EROFS;
	if (r->pos.seq - r->committed >= REPL_WINDOW_MAX || r->ring_bytes >= REPL_WINDOW_BYTES)
		return -EBUSY;
	rec->epoch = r->view.epoch;
	rec->seq = r->pos.seq + 1;
	rec->prev_epoch = r->pos.epoch;
	if (rec->payload_len >= r->c.ahead_from)
		primary_send_ahead(r, rec, now_ms);
	err = log_append(r, rec, false);
	if (err < 0) {
		/* Members may have it: it is committed or cut by whoever is primary next, and this life of this process makes no other one of its number. */
		repl_fail(r, now_ms);
		return -EIO;
	}
	primary_advance(r, now_ms);
	return 0;
}

int repl_submit(struct repl *r, struct record *rec, uint64_t now_ms)
{
	return submit(r, rec, false, now_ms);
}

int repl_submit_own(struct repl *r, struct record *rec, uint64_t now_ms)
{
	return submit(r, rec, true, now_ms);
}

void repl_fail(struct repl *r, uint64_t now)
{
	if (r->failed)
		return;
	r->failed = true;
	sync_fail_all(r, -EIO);
	if (!is_self_primary(r)) {
		backup_out(r);
		repl_broadcast_hello(r, now);
	}
}

void repl_on_disk_error(struct repl *r, uint64_t now_ms)
{
	repl_fail(r, now_ms);
}

void repl_leave(struct repl *r, uint64_t now_ms)
{
	if (r->leaving)
		return;
	r->leaving = true;
	if (is_self_primary(r))
		return; /* primary_tick hands over */
	r->read_until = 0;
	if (in_set(r->view.isr, r->c.self) && r->view.isr != bit(r->c.self))
		repl_broadcast_hello(r, now_ms);
	else
		repl_set_role(r, REPL_OUT);
}

void repl_on_peer_down(struct repl *r, uint8_t member, uint64_t now_ms)
{
	struct peer *p = &r->peer[member];

	ensure(member < r->c.n && member != r->c.self);
	p->said = false;
	if (is_self_primary(r)) {
		p->down = true;
		p->heard_ms = MIN(p->heard_ms, now_ms - MIN(now_ms, r->c.suspect_ms + 1));
		primary_tick(r, now_ms);
	} else if (member == r->view.primary) {
		r->heard_ms = MIN(r->heard_ms, now_ms - MIN(now_ms, r->c.suspect_ms + 1));
		view_tick(r, now_ms);
	}
}

void repl_on_delta(struct repl *r, int err, struct repl_pos at, uint64_t now_ms)
{
	if (r->role != REPL_CATCHING || r->whole)
		return;
	if (err < 0 || at.seq < r->live.seq || at.epoch < r->pos.epoch) {
		backup_out(r); /* says HELLO and begins again; what came stays useful */
		return;
	}
	r->pos = r->live = at;
	r->ring_low = at.seq;
	r->whole = true;
	log_epoch_add(r, r->pos.epoch, r->pos.seq);
	r->committed = MAX(r->committed, at.seq); /* a source answers with what is committed only */
	backup_tell(r, r->committed);
	backup_caught_up(r, now_ms);
}

/* Was this process stopped for a while? Then others were not silent: their messages are still waiting to be read. */
static void forgive_gap(struct repl *r, uint64_t now)
{
	uint64_t gap = now - r->tick_ms;

	if (gap > r->c.suspect_ms / 2) {
		r->heard_ms = MIN(now, r->heard_ms + gap);
		for (uint8_t i = 0; i < r->c.n; i++)
			r->peer[i].heard_ms = MIN(now, r->peer[i].heard_ms + gap);
	}
	r->tick_ms = now;
}

void repl_tick(struct repl *r, uint64_t now_ms)
{
	if (!r->started || r->gone)
		return;
	forgive_gap(r, now_ms);
	if (is_self_primary(r))
		primary_tick(r, now_ms);
	else if (r->role == REPL_CATCHING && r->whole && now_ms - r->caught_ms >= RESEND_MS)
		backup_caught_up(r, now_ms);
	view_tick(r, now_ms);
	sync_tick(r, now_ms);
}

void repl_plan(struct repl *r, const struct vol_map *m, bool may_begin)
{
	r->map = m;
	r->may_begin = may_begin;
}

/* ---- questions ---- */

bool repl_lost(const struct repl *r)
{
	return r->lost;
}

bool repl_gone(const struct repl *r)
{
	return r->gone;
}

bool repl_is_primary(const struct repl *r, uint64_t now_ms)
{
	return r->role == REPL_PRIMARY && primary_leased(r, now_ms);
}

bool repl_may_write(const struct repl *r)
{
	return r->role == REPL_PRIMARY && !r->failed && !r->leaving && set_role_quorum(r, r->view.isr);
}

bool repl_may_read(const struct repl *r, uint64_t now_ms)
{
	return repl_is_primary(r, now_ms) || (r->role == REPL_BACKUP && !r->failed && now_ms < r->read_until);
}

enum repl_role repl_role(const struct repl *r)
{
	return r->role;
}

void repl_get_view(const struct repl *r, struct repl_view *ret)
{
	*ret = r->view;
}

struct repl_pos repl_pos(const struct repl *r)
{
	return r->pos;
}

uint64_t repl_committed(const struct repl *r)
{
	return r->committed;
}

uint64_t repl_member_seq(const struct repl *r, uint8_t member)
{
	ensure(member < r->c.n);
	return member == r->c.self ? r->pos.seq : is_self_primary(r) ? r->peer[member].acked : 0;
}
