/* SPDX-License-Identifier: Apache-2.0 */
/* exactly_once: in the truth of a group each operation stands once, a client's in the order in which it asked, and everything that was acknowledged
 * is there. */
#include "sim/sim.h"

static bool number_of(const struct record *rec, uint8_t *ret_client, uint64_t *ret)
{
	for (uint32_t i = 0; i < rec->n; i++)
		if (rec->effect[i].type == EFFECT_PUT && rec->effect[i].key[0] == 'D') {
			*ret_client = rec->effect[i].key[1];
			memcpy(ret, rec->effect[i].value, 8);
			return true;
		}
	return false;
}

void check_exactly_once(struct sim *s, uint8_t group)
{
	struct truth *t = &s->truth[group];
	uint64_t newest[CLIENTS_MAX] = {0}, number;
	bool *there = xcalloc(s->next_value + 2, sizeof(*there));
	uint8_t client;

	for (uint64_t seq = 1; seq <= t->len; seq++) {
		uint64_t value;

		if (!number_of(t->rec[seq], &client, &number))
			continue;
		if (number <= newest[client])
			violation(s, "exactly_once",
				  "group %u: operation %llu of client %u stands again in record %llu", group,
				  (unsigned long long)number, client, (unsigned long long)seq);
		newest[client] = number;
		memcpy(&value, t->rec[seq]->effect[0].value, 8);
		there[value] = true;
	}
	for (size_t i = 0; i < s->n_ops && t->lost == 0; i++) {
		const struct op *op = &s->op[i];

		if (op->group == group && op->type == OP_WRITE && op->done && !there[op->value])
			violation(s, "exactly_once",
				  "group %u: operation %llu of client %u was acknowledged and is not there",
				  group, (unsigned long long)op->number, op->client);
	}
	free(there);
}
