/* SPDX-License-Identifier: Apache-2.0 */
/* repl_view: views. One function adopts a newer view, wherever it was heard of; what this member is then follows from the view alone, so it does not
 * matter who proposed it or whether the proposer learned the outcome.
 *
 * Proposals are compare-and-swaps that expect the epoch known here: a fact that a proposal rests on was true in that epoch, and a swap that comes late
 * finds a newer epoch and fails.
 *
 * Elections. A backup that does not hear its primary for suspect_ms asks the others (HELLO; they answer VIEW): somebody who hears the primary makes it wait
 * (the primary will remove this member, or learns that it cannot); else the first sure in-sync member in member order that answers goes first and the others
 * wait for their turn. Members that are unsure elect only when no sure one can be there (repl.h). When everybody in the set has lost what it had, the others
 * elect (elect_outside). The swap decides in any case. */
#include "core/repl/internal.h"

#define CAS_DELAY_MIN_MS 50u
#define CAS_DELAY_MAX_MS 1000u
#define FRESH_MS	 1000u

static void become_backup(struct repl *r, uint64_t now)
{
	r->heard_ms = now;
	r->matched = r->pos.epoch == r->view.epoch;
	r->sync_want = 0;
	r->live = r->pos;
	repl_set_role(r, REPL_BACKUP);
}

bool view_well_formed(const struct repl *r, const struct repl_view *v)
{
	uint8_t members = repl_members(v, r->c.n);

	if (members >> r->c.n || !v->joining != !v->leaving)
		return false;
	if (v->joining &&
	    (v->joining > r->c.n || v->leaving > r->c.n || !in_set(members, (uint8_t)(v->joining - 1)) ||
	     !in_set(members, (uint8_t)(v->leaving - 1))))
		return false;
	return v->epoch == 0 ||
	       (v->primary < r->c.n && !(v->isr & (uint8_t)~members) && in_set(v->isr, v->primary));
}

/* Slots that have another member now: nothing is known of it. What this one lent to the old member runs to its end. */
static void note_members(struct repl *r, const struct repl_view *v)
{
	for (uint8_t i = 0; i < r->c.n; i++) {
		if (i == r->c.self || !in_set(repl_members(v, r->c.n), i) || same_member(r, &r->view, v, i))
			continue;
		r->peer[i] = (struct peer){0};
		if (r->grant_to == i)
			r->grant_to = UINT8_MAX;
	}
	if (v->members && (!in_set(v->members, r->c.self) || v->brick[r->c.self] != r->c.brick))
		r->gone = true;
}

/* Epoch 1 was made in this life of the process and its log is empty: nothing can be missing. */
static bool is_first(const struct repl *r, const struct repl_view *old, const struct repl_view *v)
{
	return r->view_known && old->epoch == 0 && v->epoch == 1 && r->pos.seq == 0 &&
	       in_set(v->isr, r->c.self);
}

/* confirmed: this life's own swap succeeded. Without that a member does not begin to serve as primary: the view may be from an earlier life of it, which
 * made records in that epoch that a power loss took away. It asks for an epoch of its own first (elect_sure). */
void view_adopt(struct repl *r, const struct repl_view *v, bool confirmed, uint64_t now)
{
	struct repl_view old = r->view;
	bool was_primary = is_self_primary(r), next = r->view_known && v->epoch == old.epoch + 1;
	bool same = next && old.epoch > 0 && v->primary == old.primary && v->fork == old.fork, mine;

	ensure(v->epoch > old.epoch);
	note_members(r, v);
	mine = v->primary == r->c.self && !r->gone;
	if (!r->sure && !r->failed && (is_first(r, &old, v) || (mine && confirmed && r->unsure_bid)))
		repl_set_sure(r, true);
	if (v->epoch != r->proposed.epoch)
		r->unsure_bid = false;
	r->view = *v;
	r->view_known = true;
	r->view_ms = now;
	r->suspect_ms = 0;
	r->read_until = 0;
	r->cas_delay = 0;
	r->heard_ms = now;
	r->sync_want = 0;
	if (mine && was_primary && same) {
		primary_begin(r, true, old.isr, now);
		return;
	}
	if (was_primary)
		primary_end(r);
	if (r->gone) {
		backup_out(r);
		return;
	}
	if (mine && confirmed && usable(r)) {
		primary_begin(r, false, old.isr, now);
		return;
	}
	if (in_set(v->isr, r->c.self) && r->whole && !r->failed && !r->leaving &&
	    (r->sure || r->role == REPL_CATCHING)) {
		if (!r->sure)
			repl_set_sure(r, true); /* it joins: caught up, and durable */
		become_backup(r, now);
		if (was_primary && !mine) /* a hand-over: the sooner it knows the better */
			repl_send_type(r, v->primary, REPL_MSG_VIEW, now);
		return;
	}
	/* A continuing primary goes on serving a member that catches up. */
	if (r->role == REPL_CATCHING && same && !mine) {
		repl_set_role(r, REPL_CATCHING);
		return;
	}
	backup_out(r);
}

/* ---- compare-and-swap ---- */

bool view_may_propose(const struct repl *r, uint64_t now)
{
	return r->view_known && !r->cas_busy && now >= r->cas_next;
}

void view_propose(struct repl *r, uint8_t primary, uint8_t isr, uint64_t fork, uint64_t now)
{
	struct repl_view next = r->view;

	next.epoch++;
	next.primary = primary;
	next.isr = isr;
	next.fork = fork;
	view_propose_move(r, &next, now);
}

void view_propose_move(struct repl *r, const struct repl_view *next, uint64_t now)
{
	ensure(!r->cas_busy && in_set(next->isr, next->primary) && next->epoch == r->view.epoch + 1);
	r->proposed = *next;
	r->cas_busy = true;
	if (is_self_primary(r))
		r->maybe |= next->isr & (uint8_t)~r->view.isr;
	r->io.propose(r->ctx, r->view.epoch, &r->proposed);
}

void repl_on_cas(struct repl *r, int err, const struct repl_view *now_there, uint64_t now_ms)
{
	const struct repl_view *v = err == 0 ? &r->proposed : err == -EEXIST ? now_there : NULL;

	ensure(r->cas_busy);
	r->cas_busy = false;
	r->cas_next = 0;
	if (v && v->epoch > r->view.epoch) {
		view_adopt(r, v, err == 0, now_ms);
		view_tick(r, now_ms);
		return;
	}
	if (err == 0 && r->view.epoch == r->proposed.epoch && r->proposed.primary == r->c.self &&
	    !is_self_primary(r)) {
		/* The watch was faster. */
		if (!r->sure && !r->failed && r->unsure_bid)
			repl_set_sure(r, true);
		if (usable(r))
			primary_begin(r, false, r->view.isr, now_ms);
	}
	if (r->view.epoch >= r->proposed.epoch)
		return;
	/* Not known: it may be in force, or come into force later. Nothing here relies on either; ask again after a while. */
	r->cas_delay = CLAMP(r->cas_delay * 2, CAS_DELAY_MIN_MS, CAS_DELAY_MAX_MS);
	r->cas_next = now_ms + r->cas_delay;
	r->handing = false;
	r->handback_next = now_ms + r->c.handback_ms;
}

void repl_on_view(struct repl *r, const struct repl_view *v, uint64_t now_ms)
{
	if (!r->started || !view_well_formed(r, v))
		return;
	if (v->epoch > r->view.epoch) {
		view_adopt(r, v, false, now_ms);
		view_tick(r, now_ms);
	} else if (v->epoch == 0) {
		r->view_known = true;
		if (r->view.epoch == 0) {
			note_members(r, v);
			r->view = *v;
		}
	}
}

/* ---- elections ---- */

static bool fresh(const struct repl *r, uint8_t i, uint64_t since)
{
	const struct peer *p = &r->peer[i];

	return p->said && p->said_epoch == r->view.epoch && p->said_ms >= since;
}

/* The group's first view: the preferred primary takes all that are there and empty; others only when it does not come. */
static void elect_first(struct repl *r, uint64_t now)
{
	uint64_t waited = now - r->start_ms, since = now - MIN(now, FRESH_MS);
	uint8_t set = bit(r->c.self);

	if (r->pos.seq > 0 || r->failed)
		return;
	for (uint8_t i = 0; i < r->c.n; i++)
		if (i != r->c.self && is_member(r, i) && fresh(r, i, since) && r->peer[i].said_pos.seq == 0)
			set |= bit(i);
	if (set != repl_members(&r->view, r->c.n) || r->c.self != 0)
		if (!set_role_quorum(r, set) || waited < FRESH_MS * (1u + r->c.self))
			return;
	view_propose(r, r->c.self, set, 0, now);
}

/* Sure members: who goes first, and when. */
static void elect_sure(struct repl *r, uint64_t now)
{
	uint8_t set = r->view.isr & (uint8_t) ~(bit(r->c.self) | bit(r->view.primary)), reach = 1, rank = 0;
	uint64_t silent = now - r->heard_ms, wait = r->c.suspect_ms;
	bool all = true, hears = false;

	if (r->view.primary == r->c.self) {
		/* It was the primary before it started anew. Nobody else can be it in this epoch. */
		view_propose(r, r->c.self, r->view.isr, r->view.fork, now);
		return;
	}
	for (uint8_t i = 0; i < r->c.n; i++) {
		if (!in_set(set, i))
			continue;
		if (!fresh(r, i, r->suspect_ms)) {
			all = false;
			continue;
		}
		hears = hears || r->peer[i].said_hears;
		if (r->peer[i].said_sure) {
			reach++;
			if (i < r->c.self)
				rank++;
		}
	}
	if (!all && now - r->suspect_ms < r->c.heartbeat_ms)
		return; /* answers may be on their way */
	wait += rank * r->c.suspect_ms / 2;
	if (reach < r->c.write_quorum)
		wait = MAX(wait, 2 * r->c.suspect_ms);
	if (hears)
		wait = MAX(wait, 4 * r->c.suspect_ms);
	if (silent > wait)
		view_propose(r, r->c.self, r->view.isr & (uint8_t)~bit(r->view.primary), r->view.fork, now);
}

/* Members that may have lost the end of their logs. */
static void elect_unsure(struct repl *r, uint64_t now)
{
	uint8_t set = r->view.isr & (uint8_t)~bit(r->c.self), heard = 1;
	uint64_t since = now - MIN(now, FRESH_MS);
	bool all = true;

	for (uint8_t i = 0; i < r->c.n; i++) {
		const struct peer *p = &r->peer[i];
		int c;

		if (!in_set(set, i))
			continue;
		if (!fresh(r, i, since)) {
			all = false;
			continue;
		}
		if (p->said_sure || p->said_hears)
			return; /* its turn, or it follows somebody */
		if (p->said_lost)
			continue;
		c = pos_cmp(p->said_pos, r->pos);
		if (c > 0 || (c == 0 && i < r->c.self))
			return;
		heard++;
	}
	if (!all && (now - r->start_ms < r->c.unsure_wait_ms || heard < r->c.write_quorum))
		return;
	r->unsure_bid = true;
	view_propose(r, r->c.self, bit(r->c.self), r->view.epoch + 1, now);
}

/* Everybody in the set says that it has lost what it had (new disks, old copies). A record that was acknowledged is on as many members as the write quorum, so
 * with the set gone the newest of the others has all of them, when all others are heard (or enough of them, after a while: as among unsure ones). */
static void elect_outside(struct repl *r, uint64_t now)
{
	uint64_t since = now - MIN(now, FRESH_MS);
	uint8_t heard = 1;
	bool all = true;

	if (r->pos.seq == 0) /* nothing here, or a catching up that was not finished */
		return;
	for (uint8_t i = 0; i < r->c.n; i++) {
		const struct peer *p = &r->peer[i];
		int c;

		if (i == r->c.self || !is_member(r, i))
			continue;
		if (!fresh(r, i, since)) {
			if (in_set(r->view.isr, i))
				return;
			all = false;
			continue;
		}
		if (p->said_hears || (in_set(r->view.isr, i) && !p->said_lost))
			return;
		if (p->said_lost)
			continue;
		c = pos_cmp(p->said_pos, r->pos);
		if (c > 0 || (c == 0 && i < r->c.self))
			return;
		heard++;
	}
	if (!all && (now - r->start_ms < r->c.unsure_wait_ms || heard < r->c.write_quorum))
		return;
	r->unsure_bid = true;
	view_propose(r, r->c.self, bit(r->c.self), r->view.epoch + 1, now);
}

void view_tick(struct repl *r, uint64_t now)
{
	bool mine = r->view.primary == r->c.self && r->view.epoch > 0;

	if (is_self_primary(r) || !r->started || r->gone)
		return;
	if (r->role == REPL_BACKUP && now - r->heard_ms > r->c.suspect_ms) {
		if (r->suspect_ms == 0) {
			r->suspect_ms = now;
			repl_broadcast_hello(r, now);
		}
	} else {
		r->suspect_ms = 0;
	}
	if ((r->role == REPL_OUT || r->suspect_ms > 0) && now - r->hello_ms >= 2 * r->c.heartbeat_ms)
		repl_broadcast_hello(r, now);
	if (!view_may_propose(r, now) || r->failed || r->leaving || !r->whole || r->lost)
		return;
	if (r->view.epoch == 0) {
		elect_first(r, now);
	} else if (!in_set(r->view.isr, r->c.self)) {
		if (now - r->view_ms > r->c.suspect_ms) /* a primary has had time to be heard */
			elect_outside(r, now);
	} else if (usable(r)) {
		if (mine || r->suspect_ms > 0)
			elect_sure(r, now);
	} else if (mine || now - r->heard_ms > r->c.suspect_ms) {
		elect_unsure(r, now);
	}
}
