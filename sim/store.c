/* SPDX-License-Identifier: Apache-2.0 */
/* store: a member's disk, modelled after src/volume/bstore: a checkpoint that is durable and holds committed records only, a log since then of which a
 * part is durable, and the state in memory. A crash keeps the log; a power loss keeps a random part of it that contains what was synced (and may bring
 * back what was cut since the last sync). */
#include "sim/files.h"

static void cell_set(struct cell *c, uint64_t value, uint64_t seq, bool live)
{
	if (live && c->seq >= seq)
		return;
	c->value = value;
	c->seq = seq;
}

void regs_apply(struct regs *s, const struct record *rec, bool live)
{
	for (uint32_t i = 0; i < rec->n; i++) {
		const struct effect *f = &rec->effect[i];
		uint64_t v;

		if (f->type != EFFECT_PUT)
			continue;
		memcpy(&v, f->value, 8);
		if (f->key[0] == 'E')
			cell_set(&s->reg[f->key[1]], v, rec->seq, live);
		else if (f->key[0] == 'D')
			cell_set(&s->done[f->key[1]], v, rec->seq, live);
	}
	if (!live)
		s->pos = (struct repl_pos){rec->epoch, rec->seq};
}

void store_init(struct store *s, bool files, uint32_t group)
{
	memset(s, 0, sizeof(*s));
	s->f = files ? fstate_new(group) : NULL;
	s->log = xcalloc(LOG_MAX, sizeof(*s->log));
	s->ghost = xcalloc(LOG_MAX, sizeof(*s->ghost));
	s->recent = xcalloc(LOG_MAX, sizeof(struct record *));
}

static void drop_list(struct logent *l, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		free(l[i].patch);
		record_unref(l[i].rec);
		l[i] = (struct logent){0};
	}
}

void store_forget_recent(struct store *s, uint64_t upto)
{
	upto = MIN(upto, LOG_MAX - 1);
	for (; s->recent_low < upto; s->recent_low++)
		s->recent[s->recent_low + 1] = record_unref(s->recent[s->recent_low + 1]);
}

void store_done(struct store *s)
{
	drop_list(s->log, 0, s->n);
	drop_list(s->ghost, 0, s->n_ghost);
	for (uint32_t i = 0; i < LOG_MAX; i++)
		record_unref(s->recent[i]);
	free(s->log);
	free(s->ghost);
	free(s->recent);
	s->f = fstate_free(s->f);
}

static void remember(struct store *s, struct record *rec)
{
	if (rec->seq <= s->recent_low)
		return;
	record_unref(s->recent[rec->seq]);
	s->recent[rec->seq] = record_ref(rec);
}

int store_append(struct store *s, struct record *rec, bool live)
{
	struct logent *e = &s->log[s->n];

	ensure(live || rec->seq == s->mem.pos.seq + 1);
	ensure(s->n < LOG_MAX && rec->seq < LOG_MAX);
	*e = (struct logent){.rec = rec, .live = live};
	if (s->f) {
		int err = fstate_append(s->f, rec, live);

		if (err < 0)
			return err;
		e->n_patches = s->f->r.n_patches;
		e->patch = xcalloc(e->n_patches + 1, sizeof(*e->patch));
		memcpy(e->patch, s->f->r.patch, e->n_patches * sizeof(*e->patch));
		if (!live)
			s->mem.pos = (struct repl_pos){rec->epoch, rec->seq};
	} else {
		regs_apply(&s->mem, rec, live);
	}
	record_ref(rec);
	s->n++;
	if (live)
		s->mem.dirty = true;
	else
		remember(s, rec);
	return 0;
}

/* The state that checkpoint and log give, up to pos. Entries that came out of order (live) are behind a gap that was not closed: they are left out. */
static void replay(struct store *s, uint64_t upto, bool keep_recent, bool redo)
{
	struct record **cut = s->f ? xcalloc(s->n + 1, sizeof(struct record *)) : NULL;
	uint32_t kept = 0, n_cut = 0;

	s->mem = s->ckpt;
	for (uint32_t i = 0; i < s->n; i++) {
		struct record *rec = s->log[i].rec;

		if (s->log[i].live || rec->seq != s->mem.pos.seq + 1 || rec->seq > upto) {
			if (cut)
				cut[n_cut++] = record_ref(rec);
			drop_list(s->log, i, i + 1);
			continue;
		}
		if (s->f)
			s->mem.pos = (struct repl_pos){rec->epoch, rec->seq};
		else
			regs_apply(&s->mem, rec, false);
		if (keep_recent)
			remember(s, rec);
		s->log[kept++] = s->log[i];
	}
	memset(s->log + kept, 0, (s->n - kept) * sizeof(*s->log));
	s->n = kept;
	if (s->f)
		fstate_restore(s->f, s->log, s->n, cut, n_cut, redo);
	while (n_cut > 0)
		record_unref(cut[--n_cut]);
	free(cut);
}

struct repl_pos store_rollback(struct store *s, struct repl_pos pos)
{
	uint32_t durable = s->durable;

	s->cuts++;
	for (uint64_t q = MAX(pos.seq, s->recent_low) + 1; q < LOG_MAX && s->recent[q]; q++)
		s->recent[q] = record_unref(s->recent[q]);
	s->recent_low = MIN(s->recent_low, pos.seq);
	if (pos.seq < s->ckpt.pos.seq) {
		drop_list(s->log, 0, s->n);
		s->n = s->durable = 0;
		memset(&s->mem, 0, sizeof(s->mem));
		s->ckpt = s->mem;
		if (s->f)
			fstate_start_over(s->f);
		s->recent_low = 0;
		for (uint32_t i = 0; i < LOG_MAX; i++)
			s->recent[i] = record_unref(s->recent[i]);
		return s->mem.pos;
	}
	/* What was durable and is cut now may come back with a power loss. */
	drop_list(s->ghost, 0, s->n_ghost);
	s->n_ghost = 0;
	for (uint32_t i = 0; i < durable; i++) {
		struct logent *g = &s->ghost[s->n_ghost++];

		*g = s->log[i];
		record_ref(g->rec);
		if (g->patch)
			g->patch = memcpy(xcalloc(g->n_patches + 1, sizeof(*g->patch)), g->patch,
					  g->n_patches * sizeof(*g->patch));
	}
	replay(s, pos.seq, true, false);
	if (s->n >= durable) {
		drop_list(s->ghost, 0, s->n_ghost);
		s->n_ghost = 0;
	}
	s->durable = MIN(s->n, durable);
	return s->mem.pos;
}

void store_checkpoint(struct store *s)
{
	s->ckpt = s->mem;
	if (s->f)
		fstate_checkpoint(s->f, s->mem.committed);
	drop_list(s->log, 0, s->n);
	drop_list(s->ghost, 0, s->n_ghost);
	s->n = s->durable = s->n_ghost = 0;
	s->cuts++; /* syncs on their way speak of another log; they report all the same */
}

void store_synced(struct store *s, uint32_t n, uint32_t cuts)
{
	if (cuts != s->cuts)
		return;
	s->durable = MAX(s->durable, MIN(n, s->n));
	drop_list(s->ghost, 0, s->n_ghost);
	s->n_ghost = 0;
}

void store_crash(struct sim *sim, struct store *s, bool power)
{
	uint32_t keep;

	for (uint32_t i = 0; i < LOG_MAX; i++)
		s->recent[i] = record_unref(s->recent[i]);
	if (!power)
		return;
	s->sure = false;
	s->lost_power = true;
	if (s->f)
		fstate_power_loss(sim, s->f);
	if (s->n_ghost > 0 && rnd_in(sim, 500000)) {
		struct logent *l = s->log;

		drop_list(s->log, 0, s->n);
		s->log = s->ghost;
		s->ghost = l;
		s->n = s->durable = s->n_ghost;
		s->n_ghost = 0;
		return;
	}
	keep = s->durable + (uint32_t)rnd_below(sim, s->n - s->durable + 1);
	drop_list(s->log, keep, s->n);
	s->n = keep;
	drop_list(s->ghost, 0, s->n_ghost);
	s->n_ghost = 0;
}

void store_recover(struct store *s, bool keep_recent)
{
	s->cuts++;
	s->recent_low = keep_recent ? s->ckpt.pos.seq : UINT64_MAX;
	replay(s, UINT64_MAX, keep_recent, s->lost_power);
	s->lost_power = false;
	s->recent_low = keep_recent ? s->ckpt.pos.seq : s->mem.pos.seq;
	s->durable = MIN(s->durable, s->n);
	s->mem.committed = MIN(s->mem.committed, s->mem.pos.seq);
}
