/* SPDX-License-Identifier: Apache-2.0 */
/* fsync_durable: when an fsync is answered, what was written before is on the stable storage of every in-sync member; and no later election loses it
 * (check_primary). */
#include "sim/sim.h"

static uint64_t durable_seq(const struct store *st)
{
	uint64_t seq = st->ckpt.pos.seq;

	for (uint32_t i = 0; i < st->durable; i++)
		if (!st->log[i].live)
			seq = MAX(seq, st->log[i].rec->seq);
	return seq;
}

void check_synced(struct member *m, uint64_t upto)
{
	struct sim *s = m->s;
	struct truth *t = &s->truth[m->group];
	struct repl_view v;

	repl_get_view(m->r, &v);
	check_committed(m, repl_committed(m->r));
	for (uint8_t i = 0; i < s->o.n; i++) {
		struct member *x = member_at(s, m->group, i);

		if ((v.isr >> i & 1) && s->etcd[m->group].view.epoch == v.epoch &&
		    durable_seq(&x->st) < upto && x->st.sure)
			violation(s, "fsync_durable",
				  "group %u: fsync of %llu is answered, in-sync brick %u has %llu on stable "
				  "storage",
				  m->group, (unsigned long long)upto, x->brick,
				  (unsigned long long)durable_seq(&x->st));
	}
	t->synced = MAX(t->synced, MIN(upto, t->len));
}
