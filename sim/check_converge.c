/* SPDX-License-Identifier: Apache-2.0 */
/* replicas_converge: when nothing fails any more, all members are in sync within bounded time, and have the same records and the same state: the truth's. */
#include "sim/files.h"

static bool group_converged(struct sim *s, uint8_t group, char why[256])
{
	const struct repl_view *v = &s->etcd[group].view;
	struct member *p;
	struct repl_pos pos;

	if (v->epoch == 0 || v->isr != (1u << s->o.n) - 1) {
		snprintf(why, 256, "group %u epoch %llu: in sync are %x", group, (unsigned long long)v->epoch,
			 v->isr);
		return false;
	}
	for (uint8_t i = 0; i < s->o.n; i++)
		if (!member_at(s, group, i)->r) {
			snprintf(why, 256, "brick %u is down", brick_of(s, group, i));
			return false;
		}
	p = member_at(s, group, v->primary);
	pos = repl_pos(p->r);
	for (uint8_t i = 0; i < s->o.n; i++) {
		struct member *m = member_at(s, group, i);
		struct repl_view mv;

		repl_get_view(m->r, &mv);
		if (mv.epoch != v->epoch || m->role != (i == v->primary ? REPL_PRIMARY : REPL_BACKUP) ||
		    repl_pos(m->r).seq != pos.seq || repl_committed(m->r) != pos.seq) {
			snprintf(why, 256,
				 "group %u: brick %u is %s in epoch %llu at %llu, committed %llu; the view "
				 "is %llu, its primary at %llu",
				 group, m->brick, role_name(m->role), (unsigned long long)mv.epoch,
				 (unsigned long long)repl_pos(m->r).seq,
				 (unsigned long long)repl_committed(m->r), (unsigned long long)v->epoch,
				 (unsigned long long)pos.seq);
			return false;
		}
	}
	return true;
}

bool is_converged(struct sim *s, char why[256])
{
	for (uint8_t g = 0; g < s->o.groups; g++)
		if (!group_converged(s, g, why))
			return false;
	return true;
}

void check_converged(struct sim *s)
{
	for (uint8_t g = 0; g < s->o.groups; g++) {
		struct truth *t = &s->truth[g];

		for (uint8_t i = 0; i < s->o.n; i++) {
			struct member *m = member_at(s, g, i);
			char why[160];

			if (t->f) {
				if (m->st.mem.pos.seq == t->len && fstate_same(m->st.f, t->f, true, why))
					continue;
				violation(s, "replicas_converge",
					  "group %u: brick %u at %llu differs from the truth at %llu: %s", g,
					  m->brick, (unsigned long long)m->st.mem.pos.seq,
					  (unsigned long long)t->len, m->st.mem.pos.seq == t->len ? why : "");
				return;
			}
			if (m->st.mem.pos.seq != t->len ||
			    m->st.mem.pos.epoch != (t->len ? t->rec[t->len]->epoch : 0) ||
			    memcmp(m->st.mem.reg, t->regs.reg, sizeof(t->regs.reg)) != 0 ||
			    memcmp(m->st.mem.done, t->regs.done, sizeof(t->regs.done)) != 0) {
				check_difference(s, &m->st.mem, &t->regs);
				violation(s, "replicas_converge",
					  "group %u: brick %u at %llu/%llu differs from the truth at %llu", g,
					  m->brick, (unsigned long long)m->st.mem.pos.epoch,
					  (unsigned long long)m->st.mem.pos.seq, (unsigned long long)t->len);
				return;
			}
		}
	}
}
