/* SPDX-License-Identifier: Apache-2.0 */
/* repl_log: the end of a member's log as the protocol needs it: references of the records that are not known as committed (so that
 * whoever becomes primary can send them again), and the last sequence number of the newest epochs.
 *
 * Two logs agree on everything up to (epoch, seq) when both have that record: a record is made by its epoch's one primary and accepted only
 * behind the record that it followed there (prev_epoch). So of a log that ends at (e, s) it is enough to know where e ends in mine, l:
 * s <= l: it is a prefix; s > l: they agree up to l, and what is behind is cut. */
#include "core/repl/internal.h"

static struct record **slot(struct repl *r, uint64_t seq)
{
	return &r->ring[seq & (RING - 1)];
}

void log_epoch_add(struct repl *r, uint64_t epoch, uint64_t seq)
{
	struct epoch_end *last = r->n_epochs > 0 ? &r->epochs[r->n_epochs - 1] : NULL;

	if (last && last->epoch == epoch) {
		last->last = MAX(last->last, seq);
		return;
	}
	ensure(!last || last->epoch < epoch);
	if (r->n_epochs == EPOCHS) {
		memmove(r->epochs, r->epochs + 1, (EPOCHS - 1) * sizeof(r->epochs[0]));
		r->n_epochs--;
	}
	r->epochs[r->n_epochs++] = (struct epoch_end){epoch, seq};
}

bool log_epoch_last(const struct repl *r, uint64_t epoch, uint64_t *ret)
{
	for (uint32_t i = r->n_epochs; i-- > 0;)
		if (r->epochs[i].epoch == epoch) {
			*ret = r->epochs[i].last;
			return true;
		}
	return false;
}

uint64_t log_epoch_of(const struct repl *r, uint64_t seq)
{
	for (uint32_t i = r->n_epochs; i-- > 0;) {
		if (seq > r->epochs[i].last)
			return 0;
		if (seq == r->epochs[i].last || (i > 0 && seq > r->epochs[i - 1].last))
			return r->epochs[i].epoch;
	}
	return 0;
}

struct repl_pos log_agree(const struct repl *r, struct repl_pos pos, uint64_t commit)
{
	uint64_t last;

	if (pos.seq == 0)
		return (struct repl_pos){0, 0};
	if (log_epoch_last(r, pos.epoch, &last))
		return (struct repl_pos){pos.epoch, MIN(pos.seq, last)};
	/* An epoch that my log does not know, or no more. What the member knows as committed is in my log too, unless members that were unsure chose a
	 * primary without the rest since. */
	if (pos.epoch < r->view.fork)
		return (struct repl_pos){0, 0};
	/* All that it has is committed: then its end is a record of mine, whatever else I know of that epoch. */
	if (pos.seq <= MIN(commit, r->pos.seq))
		return pos;
	return (struct repl_pos){0, MIN(MIN(commit, pos.seq), r->pos.seq)};
}

/* Room in the ring is the caller's business (window). Negative: nothing was done. */
int log_append(struct repl *r, struct record *rec, bool live)
{
	int err = r->io.append(r->ctx, rec, live);

	if (err < 0)
		return err;
	r->live = (struct repl_pos){rec->epoch, rec->seq};
	if (live)
		return 0;
	ensure(rec->seq == r->pos.seq + 1 && rec->seq - r->ring_low <= RING);
	r->pos = r->live;
	*slot(r, rec->seq) = record_ref(rec);
	r->ring_bytes += rec->payload ? rec->payload->len : 0;
	log_epoch_add(r, rec->epoch, rec->seq);
	return 0;
}

struct record *log_get(struct repl *r, uint64_t seq)
{
	ensure(seq > 0);
	if (seq > r->pos.seq)
		return NULL;
	if (seq > r->ring_low && *slot(r, seq))
		return record_ref(*slot(r, seq));
	return r->io.fetch(r->ctx, seq);
}

bool log_has(struct repl *r, uint64_t seq)
{
	struct record *rec = log_get(r, seq);
	bool has = rec != NULL;

	record_unref(rec);
	return has;
}

static void drop(struct repl *r, uint64_t seq)
{
	struct record **at = slot(r, seq);

	if (*at && (*at)->payload)
		r->ring_bytes -= (*at)->payload->len;
	*at = record_unref(*at);
}

void log_release(struct repl *r, uint64_t upto)
{
	upto = MIN(upto, r->pos.seq);
	while (r->ring_low < upto)
		drop(r, ++r->ring_low);
}

void log_cut(struct repl *r, struct repl_pos pos)
{
	struct repl_pos now_at = {0, 0};
	uint64_t was = r->pos.seq;

	r->io.rollback(r->ctx, pos, &now_at);
	if (now_at.seq > pos.seq || (now_at.seq > 0 && now_at.epoch == 0))
		now_at = (struct repl_pos){0, 0};
	for (uint64_t seq = was; seq > MAX(r->ring_low, now_at.seq); seq--)
		drop(r, seq);
	r->pos = r->live = now_at;
	r->ring_low = MIN(r->ring_low, now_at.seq);
	r->committed = MIN(r->committed, now_at.seq);
	r->delivered = MIN(r->delivered, now_at.seq);
	while (r->n_epochs > 0 && r->epochs[r->n_epochs - 1].epoch > now_at.epoch)
		r->n_epochs--;
	if (r->n_epochs > 0 && r->epochs[r->n_epochs - 1].epoch == now_at.epoch)
		r->epochs[r->n_epochs - 1].last = now_at.seq;
	else if (now_at.seq > 0)
		log_epoch_add(r, now_at.epoch, now_at.seq);
	sync_cut(r);
}
