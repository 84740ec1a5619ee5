/* SPDX-License-Identifier: Apache-2.0 */
/* search: linearizability of one cell after Wing and Gong, in Lowe's way ("Testing for linearizability", 2016): time is walked from event to event with the set of
 * all states that are possible then - the cell's value, and which operations that have not answered yet took effect. When an operation answers, only
 * those states stay in which it has taken effect; others may take effect before it, in any order. One of unknown outcome never answers. */
#include "sim/search.h"

#define STATES_MAX 50000u
#define TABLE	   (1u << 17)

struct state {
	uint64_t mask, value;
};
struct search {
	const struct cell_op *slot[64];
	struct state *now, *next, *seen;
	uint32_t n_now, n_next;
	uint64_t used, *table_used;
	uint32_t *table, stamp;
	bool over;
};

static bool add(struct search *s, struct state x)
{
	uint64_t h = (x.mask * 0x9e3779b97f4a7c15u ^ x.value) * 0xbf58476d1ce4e5b9u;
	uint32_t at = (uint32_t)(h >> 40) % TABLE;

	for (uint32_t i = 0; i < TABLE; i++, at = (at + 1) % TABLE) {
		if (s->table[at] != s->stamp) {
			s->table[at] = s->stamp;
			s->seen[at] = x;
			return true;
		}
		if (s->seen[at].mask == x.mask && s->seen[at].value == x.value)
			return false;
	}
	return false;
}

static bool apply(const struct cell_op *o, uint64_t value, uint64_t *ret)
{
	*ret = value;
	if (o->pre == WAS) {
		if (value == CELL_SOME ? o->was == CELL_NONE : value != o->was)
			return false;
		*ret = o->was;
	} else if (o->pre == WAS_SOMETHING && value == CELL_NONE) {
		return false;
	}
	if (o->sets)
		*ret = o->to;
	return true;
}

/* Operation in slot i has answered. */
static bool answered(struct search *s, uint32_t i)
{
	uint64_t bit = 1ull << i;
	uint32_t n_done = 0;

	s->stamp++;
	for (uint32_t k = 0; k < s->n_now; k++)
		add(s, s->now[k]);
	for (uint32_t at = 0; at < s->n_now; at++) { /* grows while it is walked */
		struct state x = s->now[at];

		if (x.mask & bit) {
			s->next[n_done++] = (struct state){x.mask & ~bit, x.value};
			continue;
		}
		for (uint64_t left = s->used & ~x.mask; left; left &= left - 1) {
			uint32_t j = (uint32_t)__builtin_ctzll(left);
			struct state y = {.mask = x.mask | 1ull << j};

			if (!apply(s->slot[j], x.value, &y.value) || !add(s, y))
				continue;
			if (s->n_now == STATES_MAX) {
				s->over = true;
				return true;
			}
			s->now[s->n_now++] = y;
		}
	}
	memcpy(s->now, s->next, n_done * sizeof(*s->now));
	s->n_now = n_done;
	s->used &= ~bit;
	return n_done > 0;
}

static int by_start(const void *a, const void *b)
{
	const struct cell_op *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static bool run(struct search *s, const struct cell_op *ops, size_t n, uint32_t *ret_who)
{
	for (size_t i = 0;;) {
		uint32_t first = 64;

		for (uint64_t left = s->used; left; left &= left - 1) {
			uint32_t j = (uint32_t)__builtin_ctzll(left);

			if (s->slot[j]->end != UINT64_MAX &&
			    (first == 64 || s->slot[j]->end < s->slot[first]->end))
				first = j;
		}
		if (i < n && (first == 64 || ops[i].start <= s->slot[first]->end)) {
			uint32_t free_slot = s->used == UINT64_MAX ? 64 : (uint32_t)__builtin_ctzll(~s->used);

			if (free_slot == 64)
				return true;
			s->slot[free_slot] = &ops[i++];
			s->used |= 1ull << free_slot;
			continue;
		}
		if (first == 64)
			return true;
		*ret_who = s->slot[first]->who;
		if (!answered(s, first))
			return false;
		if (s->over)
			return true;
	}
}

bool cell_explained(struct cell_op *ops, size_t n, uint64_t initial, uint32_t *ret_who)
{
	static struct search s;

	if (!s.table) { /* kept from cell to cell */
		s.table = xcalloc(TABLE, sizeof(*s.table));
		s.seen = xcalloc(TABLE, sizeof(*s.seen));
		s.now = xcalloc(STATES_MAX, sizeof(*s.now));
		s.next = xcalloc(STATES_MAX, sizeof(*s.next));
	}
	s.over = false;
	s.used = 0;
	s.now[0] = (struct state){0, initial};
	s.n_now = 1;
	qsort(ops, n, sizeof(*ops), by_start);
	return run(&s, ops, n, ret_who);
}
