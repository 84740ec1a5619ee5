/* SPDX-License-Identifier: Apache-2.0 */
/* fenced: a member that has shown that it knows an epoch takes nothing from a message of an older one. */
#include "sim/sim.h"

void check_fenced(struct member *m, const char *what)
{
	if (m->in_message && m->in_message_epoch < m->known_epoch)
		violation(m->s, "fenced", "brick %u group %u knows epoch %llu and took an %s of epoch %llu",
			  m->brick, m->group, (unsigned long long)m->known_epoch, what,
			  (unsigned long long)m->in_message_epoch);
}
