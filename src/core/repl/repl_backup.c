/* SPDX-License-Identifier: Apache-2.0 */
/* repl_backup: receiving. In the in-sync set a record is taken when it follows the newest one (seq and prev_epoch); everything else is answered
 * with the position, from which the primary sees what is missing or must be cut.
 *
 * A member that is out says HELLO until the primary answers with a CUT. Then records come that are committed already (so nothing that it takes out of
 * order can be lost by a failover), while a delta closes the gap; after that it is like a backup that does not count yet, says CAUGHT_UP
 * and waits for the view that has it.
 *
 * A CUT must answer a message sent after the log last changed: a repeated or delayed one must not cut what was acknowledged since. */
#include "core/repl/internal.h"

void backup_out(struct repl *r)
{
	r->read_until = 0;
	r->live = r->pos;
	r->matched = false;
	r->hello_ms = 0;
	repl_set_role(r, REPL_OUT);
}

/* While catching up, live records run ahead of what is complete here; the shell hears of each number once. */
void backup_tell(struct repl *r, uint64_t commit)
{
	if (commit <= r->delivered)
		return;
	r->delivered = commit;
	r->io.committed(r->ctx, commit);
}

void backup_commit(struct repl *r, uint64_t commit)
{
	if (!r->matched)
		return;
	commit = MIN(commit, r->pos.seq);
	if (commit <= r->committed)
		return;
	r->committed = commit;
	log_release(r, commit);
	backup_tell(r, commit);
}

static bool follows(const struct repl *r, const struct record *rec)
{
	return rec->seq == r->live.seq + 1 && rec->prev_epoch == r->live.epoch && rec->epoch >= r->live.epoch;
}

void backup_on_append(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	struct record *rec = m->record;
	bool live = r->role == REPL_CATCHING && !r->whole;

	if (r->failed || (r->role != REPL_BACKUP && r->role != REPL_CATCHING))
		return;
	/* Out of order only what is committed: a late copy from an earlier attempt, when this member was about to join, may not be. */
	if (follows(r, rec) && (!live || rec->seq <= m->commit)) {
		if (!live) {
			r->matched = true;
			backup_commit(r, m->commit);
		}
		if (!live && r->pos.seq - r->ring_low >= RING)
			return;
		if (log_append(r, rec, live) < 0) {
			repl_fail(r, now);
			return;
		}
		r->cut_ok = r->last_stamp;
		if (live)
			backup_tell(r, r->live.seq); /* only committed ones come */
	}
	backup_commit(r, m->commit);
	repl_send_type(r, m->from, REPL_MSG_ACK, now);
	sync_serve(r, now);
}

static bool sane_echo(const struct repl *r, uint64_t echo)
{
	return echo >= r->start_ms << STAMP_SHIFT && echo <= r->last_stamp;
}

void backup_on_heartbeat(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	struct repl_msg a = {.type = REPL_MSG_HEARTBEAT_ACK};

	backup_commit(r, m->commit);
	if (r->role == REPL_OUT) {
		if (now - r->hello_ms >= r->c.heartbeat_ms)
			repl_broadcast_hello(r, now);
		return;
	}
	if (r->role == REPL_BACKUP || (r->role == REPL_CATCHING && r->whole)) {
		a.lease = true;
		r->grant_ms = now;
		r->grant_until = now + r->c.lease_ms + r->c.skew_ms;
		r->grant_to = m->from;
		r->grant_epoch = m->epoch;
		if (m->lease && r->role == REPL_BACKUP && r->matched && sane_echo(r, m->echo))
			r->read_until = MAX(r->read_until, (m->echo >> STAMP_SHIFT) + r->c.lease_ms);
	}
	repl_send(r, m->from, &a, now);
}

/* Out of sync: the log is cut to where it agrees, then the gap (if any) is pulled. */
static void start_catching(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	r->cut_ok = r->last_stamp;
	r->matched = true;
	r->caught_seq = r->caught_ms = 0;
	r->live = r->pos;
	if (r->pos.seq == m->live.seq && r->whole) {
		repl_set_role(r, REPL_CATCHING);
		backup_caught_up(r, now);
		return;
	}
	if (m->live.epoch == 0)
		return; /* went back further than asked: a HELLO tells the new end */
	if (r->whole) {
		r->whole = false;
		r->gap_fork = r->view.fork;
	}
	if (r->sure)
		repl_set_sure(r, false);
	r->live = m->live;
	repl_set_role(r, REPL_CATCHING);
	/* What came live in an earlier attempt was committed, unless committed records were lost since. */
	r->io.pull(r->ctx, r->gap_fork == r->view.fork ? r->pos.seq : 0,
		   r->view.isr & (uint8_t)~bit(r->c.self));
}

void backup_on_cut(struct repl *r, const struct repl_msg *m, uint64_t now)
{
	if (r->failed || r->leaving || m->echo <= r->cut_ok || m->echo > r->last_stamp)
		return;
	if (m->live.seq == 0) {
		if (r->role == REPL_CATCHING)
			backup_out(r);
		return;
	}
	if (r->role != REPL_OUT && (r->role != REPL_BACKUP || r->matched))
		return;
	if (m->cut.seq < r->pos.seq) {
		log_cut(r, m->cut);
		r->cut_ok = r->last_stamp;
	}
	if (r->role == REPL_OUT) {
		start_catching(r, m, now);
	} else if (r->pos.seq < m->cut.seq) {
		/* The disk went back further than asked: not in sync any more. */
		r->whole = false;
		repl_set_sure(r, false);
		backup_out(r);
	} else {
		repl_send_type(r, m->from, REPL_MSG_ACK, now);
	}
}

/* Whole again: first durable (fsynced records must be here on stable storage before this member counts), then the primary is told. */
void backup_caught_up(struct repl *r, uint64_t now)
{
	struct repl_msg m = {.type = REPL_MSG_CAUGHT_UP};

	ensure(r->role == REPL_CATCHING && r->whole);
	if (r->caught_seq == 0)
		r->caught_seq = r->pos.seq;
	if (r->synced < r->caught_seq) {
		sync_local(r, r->caught_seq);
		if (r->synced < r->caught_seq)
			return;
	}
	r->caught_ms = now;
	m.live.seq = r->synced;
	repl_send(r, r->view.primary, &m, now);
}
