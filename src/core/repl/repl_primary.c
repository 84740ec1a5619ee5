/* SPDX-License-Identifier: Apache-2.0 */
/* repl_primary: sending records, counting acknowledgements, committing, leases, and who is in the in-sync set.
 *
 * Who counts for a commit: the view's in-sync set, and every member that a compare-and-swap of unknown outcome may have added to it (`maybe`). What the
 * swap may have *removed* counts on until the newer view is known, so either outcome is safe.
 *
 * A position from a member moves its `acked` only when its log is known to be a prefix of mine up to there (log_agree); else it is told where to cut.
 * A member that cannot be served from memory is taken out of the set and gets a delta.
 *
 * A large record is sent before it is appended here. Until then it is a record like any other that a primary made and did not live to append: it is on some members,
 * not committed (that takes this member too), nobody was told. Whoever is primary next has it and commits it, or has not and cuts it.
 *
 * The primary of epoch e that is also the primary of e + 1 (it removed or admitted a member) goes on without a stop: acknowledgements and leases stay
 * valid, as nobody else could change a log in between. */
#include "core/repl/internal.h"

static uint8_t others(const struct repl *r)
{
	return (r->view.isr | r->maybe) & (uint8_t)~bit(r->c.self);
}

/* Of everybody who is, or by a swap of unknown outcome may be, in the set: each of them could become primary. */
uint64_t primary_lease_end(const struct repl *r)
{
	uint64_t end = UINT64_MAX / 2;
	uint8_t set = others(r);

	for (uint8_t i = 0; i < r->c.n; i++)
		if (in_set(set, i))
			end = MIN(end, r->peer[i].lease_until);
	return end;
}

bool primary_leased(const struct repl *r, uint64_t now)
{
	return now < primary_lease_end(r);
}

uint64_t primary_join_floor(const struct repl *r)
{
	return MAX(r->durable, r->note_seq);
}

/* ---- sending ---- */

/* Where the records that were sent to this member begin to be not known as there. */
static uint64_t reached(const struct peer *p)
{
	return p->base ? p->base : p->acked;
}

/* Records that this member may have now: all of them in (or on its way into) the set, committed ones while it pulls a delta. */
static uint64_t limit(const struct repl *r, const struct peer *p)
{
	return p->st == PEER_LIVE ? MIN(r->committed, reached(p) + LIVE_AHEAD) : r->pos.seq;
}

static void restart_peer(struct repl *r, uint8_t i, uint64_t now)
{
	struct repl_msg m = {.type = REPL_MSG_CUT};

	r->peer[i].st = PEER_OUT;
	m.echo = r->peer[i].stamp;
	repl_send(r, i, &m, now);
}

static void pump(struct repl *r, uint8_t i, uint64_t now)
{
	struct peer *p = &r->peer[i];
	uint64_t end;

	if (p->st == PEER_OUT || !p->matched)
		return;
	end = limit(r, p);
	if (p->next <= end && reached(p) + 1 == p->next)
		p->lag_ms = now;
	while (p->next <= end) {
		struct repl_msg m = {.type = REPL_MSG_APPEND};
		struct record *rec = log_get(r, p->next);

		if (!rec) {
			if (in_set(others(r), i))
				p->bad = true; /* out of the set first, then a delta */
			else
				restart_peer(r, i, now);
			return;
		}
		m.record = rec;
		repl_send(r, i, &m, now);
		record_unref(rec);
		p->next++;
	}
}

/* The next record, to members that have been sent all before it. It counts as had here only when it is appended, which comes next: pos does not name it. */
void primary_send_ahead(struct repl *r, struct record *rec, uint64_t now)
{
	ensure(rec->seq == r->pos.seq + 1);
	for (uint8_t i = 0; i < r->c.n; i++) {
		struct repl_msg m = {.type = REPL_MSG_APPEND, .record = rec, .ahead = true};
		struct peer *p = &r->peer[i];

		if (i == r->c.self || p->st != PEER_ISR || !p->matched || p->next != rec->seq)
			continue;
		if (reached(p) + 1 == p->next)
			p->lag_ms = now;
		repl_send(r, i, &m, now);
		p->next++;
	}
}

static void heartbeats(struct repl *r, uint64_t now)
{
	bool may_grant = r->c.backup_reads && repl_is_primary(r, now);

	r->heartbeat_ms = now;
	for (uint8_t i = 0; i < r->c.n; i++) {
		struct repl_msg m = {.type = REPL_MSG_HEARTBEAT};

		if (i == r->c.self || !is_member(r, i))
			continue;
		m.lease = may_grant && in_set(r->view.isr, i) && r->peer[i].matched;
		if (m.lease)
			r->peer[i].granted_ms = now;
		repl_send(r, i, &m, now);
	}
}

/* ---- commit ---- */

static void become_primary(struct repl *r, uint64_t now)
{
	repl_set_role(r, REPL_PRIMARY);
}

/* Nothing is committed before: an earlier primary, or members that were removed, may still read by leases. */
static uint64_t hold_end(const struct repl *r)
{
	return MAX(r->hold_until, r->grant_until);
}

void primary_advance(struct repl *r, uint64_t now)
{
	uint64_t c = r->pos.seq;
	uint8_t set = others(r);

	for (uint8_t i = 0; i < r->c.n; i++) {
		if (i == r->c.self)
			continue;
		if (in_set(set, i))
			c = MIN(c, r->peer[i].matched ? r->peer[i].acked : 0);
	}
	if (c > r->committed && now >= hold_end(r) && !r->failed) {
		r->committed = c;
		log_release(r, c);
	}
	if (r->role == REPL_PROMOTING && now >= hold_end(r) && r->committed >= r->note_seq)
		become_primary(r, now);
	if (r->committed > r->delivered && set_role_quorum(r, r->view.isr)) {
		r->delivered = r->committed;
		r->io.committed(r->ctx, r->committed);
	}
	for (uint8_t i = 0; i < r->c.n; i++)
		if (i != r->c.self)
			pump(r, i, now);
	if (r->sync_n > 0)
		sync_answer(r);
}

/* ---- an epoch begins or ends ---- */

static void note(struct repl *r, uint64_t now)
{
	struct record *rec;

	r->note_seq = r->pos.seq;
	if (r->pos.seq - r->ring_low >= RING || r->failed)
		return; /* a ring full of uncommitted records: they are committed first, without a note */
	rec = record_new(r->c.group);
	if (!rec || record_note(rec) < 0) {
		record_unref(rec);
		return;
	}
	rec->epoch = r->view.epoch;
	rec->seq = r->pos.seq + 1;
	rec->prev_epoch = r->pos.epoch;
	if (log_append(r, rec, false) < 0)
		repl_fail(r, now);
	else
		r->note_seq = rec->seq;
	record_unref(rec);
}

/* How long members that are no more in the set may go on reading by leases that I, or an earlier primary, granted. */
static void hold_for_removed(struct repl *r, uint8_t removed)
{
	uint32_t lease = r->c.lease_ms + r->c.skew_ms;

	if (!removed)
		return;
	for (uint8_t i = 0; i < r->c.n; i++)
		if (in_set(removed, i) && r->peer[i].granted_ms > 0)
			r->hold_until = MAX(r->hold_until, r->peer[i].granted_ms + lease);
	if (r->grant_ms > 0)
		r->hold_until = MAX(r->hold_until, r->grant_ms + 2 * lease);
}

/* again: the primary of the epoch before is this one too. before: the in-sync set then. */
void primary_begin(struct repl *r, bool again, uint8_t before, uint64_t now)
{
	uint8_t isr = r->view.isr;

	r->handing = false;
	r->maybe = 0;
	for (uint8_t i = 0; i < r->c.n; i++) {
		struct peer *p = &r->peer[i];
		bool in = in_set(isr, i);

		if (i == r->c.self)
			continue;
		if (!again) {
			p->matched = p->bad = false;
			p->base = p->attempt = 0;
			p->acked = p->synced = p->sync_sent = p->lease_until = p->granted_ms = 0;
			p->st = in ? PEER_ISR : PEER_OUT;
			p->heard_ms = p->lag_ms = now;
		} else if (in && p->st != PEER_ISR) {
			if (p->st != PEER_JOINING)
				p->matched = false; /* it started anew meanwhile */
			p->st = PEER_ISR;
			p->heard_ms = p->lag_ms = now;
		} else if (!in && (p->st == PEER_ISR || p->bad)) {
			p->st = PEER_OUT;
			p->bad = false;
		}
	}
	if (again) {
		hold_for_removed(r, before & (uint8_t)~isr);
	} else {
		r->matched = true;
		r->sync_want = 0;
		r->durable = 0;
		r->hold_until = 0;
		r->read_until = 0;
		r->alone_ms = 0;
		repl_set_role(r, REPL_PROMOTING);
	}
	note(r, now);
	repl_set_role(r, r->role); /* tells the new epoch */
	heartbeats(r, now);
	primary_advance(r, now);
}

void primary_end(struct repl *r)
{
	r->handing = false;
	r->maybe = 0;
	r->hold_until = 0;
	sync_fail_all(r, -EAGAIN);
	for (uint8_t i = 0; i < r->c.n; i++) {
		r->peer[i].st = PEER_OUT;
		r->peer[i].matched = false;
	}
}

/* ---- hearing from members ---- */

static bool sane_echo(const struct repl *r, uint64_t echo)
{
	return echo >= r->start_ms << STAMP_SHIFT && echo <= r->last_stamp;
}

static void cut_peer(struct repl *r, uint8_t i, const struct repl_msg *m, struct repl_pos at, uint64_t now)
{
	struct repl_msg cut = {.type = REPL_MSG_CUT, .cut = at, .live = at, .echo = m->stamp};

	/* Only what I surely do not have may be cut from a member of the set: it may be the one that has a committed record when I am gone. Where the logs
	 * agree at least up to is not enough: it leaves the set first, then it is cut. */
	if (at.epoch == 0) {
		r->peer[i].bad = true;
		return;
	}
	repl_send(r, i, &cut, now);
}

void primary_on_pos(struct repl *r, uint8_t from, const struct repl_msg *m, uint64_t now)
{
	struct peer *p = &r->peer[from];
	struct repl_pos at;

	p->heard_ms = now;
	if (m->type == REPL_MSG_HEARTBEAT_ACK && m->lease && sane_echo(r, m->echo))
		p->lease_until = MAX(p->lease_until, (m->echo >> STAMP_SHIFT) + r->c.lease_ms);
	if (p->st == PEER_OUT) {
		if (m->type == REPL_MSG_HEARTBEAT_ACK)
			restart_peer(r, from, now); /* it believes that it is served */
		return;
	}
	at = log_agree(r, m->pos, m->commit);
	if (at.seq != m->pos.seq) {
		if (p->st == PEER_ISR && !p->matched)
			cut_peer(r, from, m, at, now);
		else if (p->st != PEER_ISR && p->st != PEER_JOINING)
			restart_peer(r, from, now);
		return;
	}
	if (m->stamp < p->attempt)
		return;
	if (!p->matched || p->base > 0) {
		p->matched = true;
		p->base = 0;
		p->acked = at.seq;
		p->next = at.seq + 1;
		p->lag_ms = now;
	} else if (at.seq > p->acked) {
		p->acked = at.seq;
		p->next = MAX(p->next, at.seq + 1);
		p->lag_ms = now;
	}
	if (m->type == REPL_MSG_SYNCED) {
		p->synced = MAX(p->synced, MIN(m->live.seq, p->acked));
		p->sync_ms = now;
	}
	primary_advance(r, now);
	if (m->type == REPL_MSG_SYNCED)
		sync_answer(r);
}

/* A member that is out: where its log agrees, and from where on records come. */
void primary_on_hello(struct repl *r, uint8_t from, const struct repl_msg *m, uint64_t now)
{
	struct peer *p = &r->peer[from];
	struct repl_msg cut = {.type = REPL_MSG_CUT, .echo = m->stamp};

	if (in_set(others(r), from)) {
		struct repl_msg hb = {.type = REPL_MSG_HEARTBEAT};

		if (!m->sure || !in_set(r->view.isr, from)) {
			p->bad = true;
			primary_tick(r, now);
		} else {
			repl_send(r, from, &hb, now);
		}
		return;
	}
	if (r->role != REPL_PRIMARY || r->failed || m->failed || r->committed == 0)
		return;
	p->heard_ms = now;
	cut.cut = log_agree(r, m->pos, m->commit);
	cut.live = cut.cut;
	if (cut.cut.seq < r->committed && !log_has(r, cut.cut.seq + 1)) {
		cut.live = (struct repl_pos){log_epoch_of(r, r->committed), r->committed};
	} else if (cut.cut.seq == 0) {
		/* An empty log: always a delta, records from the newest committed one on. */
		cut.live = (struct repl_pos){log_epoch_of(r, r->committed), r->committed};
	}
	if (cut.live.seq > cut.cut.seq && cut.live.epoch == 0)
		return; /* not known any more; with the next commit it is */
	p->st = PEER_LIVE;
	p->matched = true;
	p->bad = false;
	p->acked = cut.cut.seq;
	p->base = cut.live.seq > cut.cut.seq ? cut.live.seq : 0;
	p->attempt = m->stamp;
	p->next = cut.live.seq + 1;
	p->synced = p->sync_sent = 0;
	p->lag_ms = now;
	repl_send(r, from, &cut, now);
}

void primary_on_caught_up(struct repl *r, uint8_t from, const struct repl_msg *m, uint64_t now)
{
	struct peer *p = &r->peer[from];
	struct repl_pos at = log_agree(r, m->pos, m->commit);

	if ((p->st != PEER_LIVE && p->st != PEER_JOINING) || at.seq != m->pos.seq)
		return;
	p->heard_ms = now;
	if (p->st == PEER_LIVE) {
		if (m->stamp < p->attempt)
			return;
		p->st = PEER_JOINING;
		p->lag_ms = now;
		p->attempt = m->stamp;
		p->base = 0;
		p->synced = 0;
		p->acked = at.seq;
		p->next = at.seq + 1;
	} else if (at.seq > p->acked) {
		p->acked = at.seq;
		p->next = MAX(p->next, at.seq + 1);
	}
	p->synced = MAX(p->synced, MIN(m->live.seq, p->acked));
	primary_advance(r, now);
	primary_tick(r, now);
}

/* ---- the set ---- */

static uint8_t to_remove(struct repl *r, uint64_t now)
{
	uint8_t set = others(r), out = 0;

	for (uint8_t i = 0; i < r->c.n; i++) {
		struct peer *p = &r->peer[i];
		bool lags =
			p->matched && ((p->acked + 1 < p->next && now - p->lag_ms > r->c.ack_timeout_ms) ||
				       (p->synced < p->sync_sent && now - p->sync_ms > SYNC_TIMEOUT_MS));

		if (i != r->c.self && in_set(set, i) &&
		    (p->bad || lags || now - p->heard_ms > r->c.suspect_ms))
			out |= bit(i);
	}
	return out;
}

/* Are so many silent at once that the rest is below the write quorum, and nothing says that they have ended? Then it may be this member that does not hear, or is not
 * heard, while the others could go on. So it is quiet itself for a while (no heartbeats, no proposal): long enough for them to elect one of theirs. */
static bool alone(struct repl *r, uint8_t out, uint64_t now)
{
	uint8_t silent = 0;

	for (uint8_t i = 0; i < r->c.n; i++)
		if (in_set(out, i) && !r->peer[i].bad && !r->peer[i].down)
			silent |= bit(i);
	if (!silent || !set_role_quorum(r, r->view.isr) || set_role_quorum(r, r->view.isr & (uint8_t)~out))
		r->alone_ms = 0;
	else if (r->alone_ms == 0)
		r->alone_ms = now;
	return r->alone_ms > 0 && now - r->alone_ms < ALONE_SUSPECTS * r->c.suspect_ms;
}

/* A member that joins has granted its lease already, so reads go on while the swap is on its way. */
static uint8_t to_join(const struct repl *r, uint64_t now)
{
	uint8_t in = 0;

	if (r->role != REPL_PRIMARY)
		return 0;
	for (uint8_t i = 0; i < r->c.n; i++) {
		const struct peer *p = &r->peer[i];

		if (i != r->c.self && p->st == PEER_JOINING && p->acked >= r->committed &&
		    p->lease_until > now && p->synced >= primary_join_floor(r))
			in |= bit(i);
	}
	return in;
}

/* Members come and go when all else is as it should be. */
static void change_members(struct repl *r, uint64_t now)
{
	struct repl_view next;
	enum repl_move step;

	if (!r->map || r->role != REPL_PRIMARY || r->failed || r->leaving)
		return;
	step = repl_move_next(r->map, r->c.group, &r->view, &next);
	if (step == REPL_MOVE_DROP || (step == REPL_MOVE_ADD && r->may_begin))
		view_propose_move(r, &next, now);
}

static void change_set(struct repl *r, uint64_t now)
{
	uint8_t out, in;

	if (!view_may_propose(r, now) || r->handing)
		return;
	out = to_remove(r, now);
	if (alone(r, out, now))
		return;
	in = out ? 0 : to_join(r, now) & (uint8_t)~r->view.isr;
	if (!out && !in)
		change_members(r, now);
	else
		view_propose(r, r->c.self, (r->view.isr & (uint8_t)~out) | in, r->view.fork, now);
}

/* The slot of who leads by the map; UINT8_MAX = it is no member yet. */
static uint8_t preferred(const struct repl *r)
{
	int slot =
		r->map ? repl_view_slot(r->map, r->c.group, &r->view, r->map->group[r->c.group].brick[0]) : 0;

	return slot < 0 ? UINT8_MAX : (uint8_t)slot;
}

/* The primary itself is to leave: who has it all already takes over. */
static bool must_turn(const struct repl *r, uint64_t now)
{
	struct repl_view next;

	return r->map && r->role == REPL_PRIMARY && now >= r->handback_next &&
	       repl_move_next(r->map, r->c.group, &r->view, &next) == REPL_MOVE_TURN;
}

/* The member that can take over without a pause (`only` that one; UINT8_MAX: any), best: has everything. UINT8_MAX = none. */
static uint8_t successor(const struct repl *r, uint64_t now, uint8_t only)
{
	uint8_t best = UINT8_MAX;

	for (uint8_t i = 0; i < r->c.n; i++) {
		const struct peer *p = &r->peer[i];

		if (i == r->c.self || !in_set(r->view.isr, i) || !p->matched || p->bad ||
		    now - p->heard_ms > r->c.suspect_ms || (only != UINT8_MAX && i != only))
			continue;
		if (best == UINT8_MAX || p->acked > r->peer[best].acked)
			best = i;
	}
	return best;
}

/* Planned: intake stops, what is on its way is committed, then the swap. Forced (disk error, stop): without waiting for long. While the store does not answer, intake
 * goes on after a moment: should the swap be in force, the new primary cuts what it does not have, as after any swap whose answer is lost. */
static void hand_over(struct repl *r, uint64_t now)
{
	uint8_t first = preferred(r), to;
	bool forced = r->failed || r->leaving, turn = !forced && must_turn(r, now),
	     back = r->c.handback_ms > 0 && first != UINT8_MAX && r->c.self != first &&
		    in_set(r->view.isr, first) && r->role == REPL_PRIMARY &&
		    now - r->view_ms >= r->c.handback_ms && now >= r->handback_next;

	to = successor(r, now, forced ? UINT8_MAX : first);
	if (turn && to == UINT8_MAX)
		to = successor(r, now, UINT8_MAX);
	if (r->cas_busy) {
		if (!forced && r->handing && now - r->handing_ms > HAND_WAIT_MS)
			r->handing = false;
		return;
	}
	if ((!forced && !back && !turn) || to == UINT8_MAX) {
		r->handing = false;
		if (r->leaving && r->view.isr == bit(r->c.self)) {
			primary_end(r);
			backup_out(r);
		}
		return;
	}
	if (!r->handing) {
		r->handing = true;
		r->handing_ms = now;
		r->handing_to = to;
	}
	if (r->committed == r->pos.seq || r->failed || (r->leaving && now - r->handing_ms > RESEND_MS)) {
		if (view_may_propose(r, now))
			view_propose(r, to, forced ? r->view.isr & (uint8_t)~bit(r->c.self) : r->view.isr,
				     r->view.fork, now);
	} else if (now - r->handing_ms > RESEND_MS && !forced) {
		r->handing = false;
		r->handback_next = now + 10 * RESEND_MS;
	}
}

static void resend(struct repl *r, uint64_t now)
{
	for (uint8_t i = 0; i < r->c.n; i++) {
		struct peer *p = &r->peer[i];

		if (i == r->c.self || p->st == PEER_OUT || !p->matched)
			continue;
		if (reached(p) + 1 < p->next && now - p->lag_ms >= RESEND_MS &&
		    now - p->resend_ms >= RESEND_MS && now - p->heard_ms <= r->c.suspect_ms) {
			p->next = reached(p) + 1;
			p->resend_ms = now;
		}
		pump(r, i, now);
	}
}

void primary_tick(struct repl *r, uint64_t now)
{
	if (now - r->heartbeat_ms >= r->c.heartbeat_ms &&
	    (r->alone_ms == 0 || now - r->alone_ms >= ALONE_SUSPECTS * r->c.suspect_ms))
		heartbeats(r, now);
	resend(r, now);
	change_set(r, now);
	hand_over(r, now);
	if (is_self_primary(r))
		primary_advance(r, now);
}
