/* SPDX-License-Identifier: Apache-2.0 */
/* committed_never_lost: the first time a primary commits a record, it becomes part of the truth; every later primary has the whole truth, record by
 * record, and its state is what the truth gives. Only after an election among members that all lost power may the end of it be gone, and never what
 * was synced (fsync_durable). Also judged: nobody who may have lost records is elected while somebody sure could be. */
#include "sim/files.h"

static struct record *find(struct member *m, uint64_t seq)
{
	if (m->st.recent[seq])
		return m->st.recent[seq];
	for (uint32_t i = m->st.n; i-- > 0;)
		if (m->st.log[i].rec->seq == seq && !m->st.log[i].live)
			return m->st.log[i].rec;
	return NULL;
}

static void truth_apply(struct truth *t, struct record *rec)
{
	if (t->f)
		ensure(fstate_append(t->f, rec, false) == 0);
	else
		regs_apply(&t->regs, rec, false);
}

static void truth_cut(struct sim *s, uint8_t group, uint64_t len)
{
	struct truth *t = &s->truth[group];

	t->lost += t->len - len;
	s->count.lost += t->len - len;
	for (; t->len > len; t->len--)
		t->rec[t->len] = record_unref(t->rec[t->len]);
	memset(&t->regs, 0, sizeof(t->regs));
	if (t->f) {
		s->files->lost = true;
		fstate_free(t->f);
		t->f = fstate_new(group);
	}
	for (uint64_t i = 1; i <= len; i++)
		truth_apply(t, t->rec[i]);
}

void check_committed(struct member *m, uint64_t upto)
{
	struct sim *s = m->s;
	struct truth *t = &s->truth[m->group];
	struct repl_view v;

	repl_get_view(m->r, &v);
	if (t->len > 0 && v.epoch < t->rec[t->len]->epoch)
		return; /* an old primary, which commits nothing new (what it would is judged by what clients see) */
	while (t->len < upto && !s->failed) {
		struct record *rec = find(m, t->len + 1);

		if (!rec) {
			violation(s, "committed_never_lost",
				  "brick %u group %u commits %llu without having it", m->brick, m->group,
				  (unsigned long long)t->len + 1);
			return;
		}
		if (rec->prev_epoch != (t->len ? t->rec[t->len]->epoch : 0)) {
			violation(s, "committed_never_lost",
				  "brick %u group %u commits %llu/%llu behind %llu, which was not there",
				  m->brick, m->group, (unsigned long long)rec->epoch,
				  (unsigned long long)rec->seq, (unsigned long long)rec->prev_epoch);
			return;
		}
		t->rec[++t->len] = record_ref(rec);
		if (t->f)
			check_record(s, m->group, rec);
		truth_apply(t, rec);
	}
}

/* What differs between a member's state and the truth, for people. */
void check_difference(struct sim *s, const struct regs *a, const struct regs *t)
{
	for (int i = 0; i < REGS; i++)
		if (memcmp(&a->reg[i], &t->reg[i], sizeof(a->reg[i])) != 0)
			trace(s, "  register %d: %llu of record %llu, in truth %llu of %llu", i,
			      (unsigned long long)a->reg[i].value, (unsigned long long)a->reg[i].seq,
			      (unsigned long long)t->reg[i].value, (unsigned long long)t->reg[i].seq);
	for (int i = 0; i < CLIENTS_MAX; i++)
		if (memcmp(&a->done[i], &t->done[i], sizeof(a->done[i])) != 0)
			trace(s, "  client %d: %llu of record %llu, in truth %llu of %llu", i,
			      (unsigned long long)a->done[i].value, (unsigned long long)a->done[i].seq,
			      (unsigned long long)t->done[i].value, (unsigned long long)t->done[i].seq);
}

static bool same_cells(const struct regs *a, const struct regs *b)
{
	return memcmp(a->reg, b->reg, sizeof(a->reg)) == 0 && memcmp(a->done, b->done, sizeof(a->done)) == 0;
}

/* A member has just become primary: its whole log is committed. */
void check_primary(struct member *m)
{
	struct sim *s = m->s;
	struct truth *t = &s->truth[m->group];
	uint64_t have = MIN(t->len, m->st.mem.pos.seq), seq;

	for (seq = 1; seq <= have; seq++) {
		struct record *rec = find(m, seq);

		if (rec && rec->epoch != t->rec[seq]->epoch)
			break;
	}
	seq--;
	if (seq < t->len && t->excuse) {
		if (seq < t->synced) {
			violation(s, "fsync_durable",
				  "group %u: synced up to %llu, the new primary %u has only %llu", m->group,
				  (unsigned long long)t->synced, m->brick, (unsigned long long)seq);
			return;
		}
		trace(s, "group %u: %llu records that were not synced are lost with the power", m->group,
		      (unsigned long long)(t->len - seq));
		truth_cut(s, m->group, seq);
	}
	if (seq < t->len) {
		violation(s, "committed_never_lost",
			  "group %u: %llu were committed, the new primary %u has only %llu of them", m->group,
			  (unsigned long long)t->len, m->brick, (unsigned long long)seq);
		return;
	}
	t->excuse = false;
	check_committed(m, repl_committed(m->r));
	if (t->f) {
		char why[160];

		if (!s->failed && m->st.mem.pos.seq == t->len && !fstate_same(m->st.f, t->f, false, why))
			violation(
				s, "committed_never_lost",
				"group %u: the state of the new primary %u is not what the records give: %s",
				m->group, m->brick, why);
		return;
	}
	if (!s->failed && m->st.mem.pos.seq == t->len && !same_cells(&m->st.mem, &t->regs)) {
		check_difference(s, &m->st.mem, &t->regs);
		violation(s, "committed_never_lost",
			  "group %u: the state of the new primary %u is not what the records give", m->group,
			  m->brick);
	}
}

/* m, unsure when it proposed, has become the primary by that. */
void check_election(struct member *m, const struct repl_view *old, const struct repl_view *next)
{
	struct sim *s = m->s;
	bool waited = !s->o.strict_unsure && brick_ms(s, m->brick) - s->brick[m->brick].started_ms >= 2000;

	if (old->epoch == 0)
		return;
	s->count.unsure++;
	s->truth[m->group].excuse = true;
	for (uint8_t i = 0; i < s->o.n; i++) {
		struct member *x = member_at(s, m->group, i);

		if (i == m->index || !(old->isr >> i & 1) || !x->st.sure || waited)
			continue;
		violation(s, "committed_never_lost",
			  "group %u: brick %u, which lost power, is elected although %u has everything",
			  m->group, m->brick, x->brick);
	}
}
