/* SPDX-License-Identifier: Apache-2.0 */
/* repl_sync: fsync of a group. A call waits for a sequence number; it is durable when the primary and every in-sync member (and every member that
 * may be in the set) made their logs durable up to it, and it is committed. Calls share what is on its way: nothing new is asked for a number that
 * was asked for already. A member that joins first makes durable what any call was told to be (primary_on_caught_up). */
#include "core/repl/internal.h"

void sync_local(struct repl *r, uint64_t upto)
{
	if (r->sync_asked >= upto || r->failed)
		return;
	r->sync_asked = upto;
	r->sync_out++;
	r->io.sync(r->ctx, upto);
}

/* The log was cut: what is on its way speaks of other records. */
void sync_cut(struct repl *r)
{
	r->sync_skip = r->sync_out;
	r->sync_want = 0;
	r->synced = MIN(r->synced, r->pos.seq);
	r->sync_asked = r->synced;
}

void sync_fail_all(struct repl *r, int err)
{
	while (r->sync_n > 0) {
		uint64_t cookie = r->syncs[r->sync_head].cookie;

		r->sync_head = (r->sync_head + 1) % REPL_SYNCS_MAX;
		r->sync_n--;
		r->io.synced(r->ctx, cookie, err);
	}
}

static uint8_t counted(const struct repl *r)
{
	return (r->view.isr | r->maybe) & (uint8_t)~bit(r->c.self);
}

void sync_answer(struct repl *r)
{
	uint64_t d = MIN(r->synced, r->committed);
	uint8_t set = counted(r);

	for (uint8_t i = 0; i < r->c.n; i++)
		if (in_set(set, i))
			d = MIN(d, r->peer[i].matched ? MIN(r->peer[i].synced, r->peer[i].acked) : 0);
	r->durable = MAX(r->durable, d);
	while (r->sync_n > 0 && r->syncs[r->sync_head].seq <= r->durable) {
		uint64_t cookie = r->syncs[r->sync_head].cookie;

		r->sync_head = (r->sync_head + 1) % REPL_SYNCS_MAX;
		r->sync_n--;
		r->io.synced(r->ctx, cookie, 0);
	}
}

static void ask_peers(struct repl *r, uint64_t upto, uint64_t now)
{
	for (uint8_t i = 0; i < r->c.n; i++) {
		struct peer *p = &r->peer[i];
		struct repl_msg m = {.type = REPL_MSG_SYNC, .live.seq = upto};

		if (i == r->c.self || (p->st != PEER_ISR && p->st != PEER_JOINING) || !p->matched ||
		    p->sync_sent >= upto || p->synced >= upto)
			continue;
		if (p->synced >= p->sync_sent)
			p->sync_ms = now;
		p->sync_sent = upto;
		repl_send(r, i, &m, now);
	}
}

int repl_sync(struct repl *r, uint64_t cookie, uint64_t now_ms)
{
	uint64_t upto = r->pos.seq;

	if (r->role != REPL_PRIMARY || r->leaving || now_ms > primary_lease_end(r) + r->c.ack_timeout_ms)
		return -EAGAIN;
	if (r->failed)
		return -EIO;
	if (r->sync_n == REPL_SYNCS_MAX)
		return -EBUSY;
	r->syncs[(r->sync_head + r->sync_n++) % REPL_SYNCS_MAX].seq = upto;
	r->syncs[(r->sync_head + r->sync_n - 1) % REPL_SYNCS_MAX].cookie = cookie;
	ask_peers(r, upto, now_ms);
	sync_local(r, upto);
	sync_answer(r);
	return 0;
}

void repl_on_local_sync(struct repl *r, uint64_t seq, int err, uint64_t now_ms)
{
	if (r->sync_out > 0)
		r->sync_out--;
	if (r->sync_skip > 0) {
		r->sync_skip--;
		return;
	}
	if (err < 0) {
		repl_fail(r, now_ms);
		return;
	}
	r->synced = MAX(r->synced, MIN(seq, r->pos.seq));
	if (is_self_primary(r)) {
		sync_answer(r);
		return;
	}
	if (r->role == REPL_CATCHING && r->whole && r->caught_ms == 0)
		backup_caught_up(r, now_ms);
	sync_serve(r, now_ms);
}

/* A backup: what the primary wants durable is here and durable: say so; here and not durable: make it. */
void sync_serve(struct repl *r, uint64_t now)
{
	struct repl_msg m = {.type = REPL_MSG_SYNCED};

	if (r->sync_want == 0 || r->sync_want > r->pos.seq || !r->matched ||
	    (r->role != REPL_BACKUP && (r->role != REPL_CATCHING || !r->whole)))
		return;
	if (r->synced < r->sync_want) {
		sync_local(r, r->sync_want);
		return;
	}
	m.live.seq = r->synced;
	r->sync_want = 0;
	repl_send(r, r->view.primary, &m, now);
}

/* Messages may be lost. */
void sync_tick(struct repl *r, uint64_t now)
{
	uint64_t upto = MAX(primary_join_floor(r), r->sync_asked);

	if (!is_self_primary(r) || now - r->sync_ms < RESEND_MS)
		return;
	r->sync_ms = now;
	for (uint8_t i = 0; i < r->c.n; i++) {
		struct peer *p = &r->peer[i];

		if (i != r->c.self && p->matched && p->synced < p->sync_sent) {
			struct repl_msg m = {.type = REPL_MSG_SYNC, .live.seq = p->sync_sent};

			repl_send(r, i, &m, now);
		}
	}
	if (upto > 0)
		ask_peers(r, upto, now);
}
