/* SPDX-License-Identifier: Apache-2.0 */
/* one_primary_an_epoch: in each epoch one life of one brick at most acts as primary. */
#include "sim/sim.h"

void check_epoch(struct member *m, uint64_t epoch)
{
	struct sim *s = m->s;
	struct truth *t = &s->truth[m->group];
	size_t i = epoch % ARRAY_SIZE(t->epoch_owner);
	uint64_t life = s->brick[m->brick].life;

	if (t->epoch_owner_epoch[i] != epoch) {
		t->epoch_owner_epoch[i] = epoch;
		t->epoch_owner[i] = m->brick;
		t->epoch_life[i] = life;
		return;
	}
	if (t->epoch_owner[i] != m->brick || t->epoch_life[i] != life)
		violation(s, "one_primary_an_epoch",
			  "group %u epoch %llu: brick %u (life %llu) and brick %u (life %llu)", m->group,
			  (unsigned long long)epoch, t->epoch_owner[i], (unsigned long long)t->epoch_life[i],
			  m->brick, (unsigned long long)life);
}
