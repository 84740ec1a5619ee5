/* SPDX-License-Identifier: Apache-2.0 */
/* move: a group's members come and go, one at a time (repl.h). Pure: a view and the map in, the next view out; who may act upon it is the primary's affair
 * (repl_primary.c), and whether it happens etcd's. The map says where the group shall lie, the view where it lies and who is on the way, so any later
 * primary goes on from what etcd has, whatever died in between.
 *
 * Who is replaced by whom: the same domain's if there is one, so that no two members but the two of the move ever share a domain; else one whose domain no
 * other member that is still to come needs. Lost ones first (the group is short of a copy), the primary last (it costs a hand-over). */
#include "core/repl/repl.h"

uint32_t repl_copies(const struct repl_view *v, uint8_t set)
{
	uint32_t n = (uint32_t)__builtin_popcount(set);

	if (v->joining && v->leaving && set >> (v->joining - 1) & 1 && set >> (v->leaving - 1) & 1)
		n--;
	return n;
}

int repl_view_brick(const struct vol_map *m, uint32_t group, const struct repl_view *v, uint32_t slot)
{
	uint32_t brick;

	if (!v->members)
		return slot < m->replica ? m->group[group].brick[slot] : -1;
	if (slot >= VOL_MEMBERS_MAX || !(v->members >> slot & 1))
		return -1;
	brick = v->brick[slot];
	return brick < m->n_bricks ? (int)brick : -1;
}

int repl_view_slot(const struct vol_map *m, uint32_t group, const struct repl_view *v, uint32_t brick)
{
	for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++)
		if (repl_view_brick(m, group, v, i) == (int)brick)
			return (int)i;
	return -1;
}

void repl_view_fill(const struct vol_map *m, uint32_t group, struct repl_view *v)
{
	if (v->members)
		return;
	v->members = (uint8_t)((1u << m->replica) - 1);
	memcpy(v->brick, m->group[group].brick, m->replica * sizeof(v->brick[0]));
}

static bool taken(const struct repl_view *v, uint32_t slot)
{
	return v->members >> slot & 1;
}

static bool in_sync(const struct repl_view *v, uint32_t slot)
{
	return v->isr >> slot & 1;
}

/* The member in this slot is to stay, or to come. */
static bool wanted(const struct vol_map *m, uint32_t group, const struct repl_view *v, uint32_t slot)
{
	return vol_group_member(m, group, v->brick[slot]) >= 0;
}

static enum repl_move drop(struct repl_view *v, uint32_t slot)
{
	v->members = (uint8_t)(v->members & ~(1u << slot));
	v->isr = (uint8_t)(v->isr & ~(1u << slot));
	v->brick[slot] = 0;
	v->joining = v->leaving = 0;
	return REPL_MOVE_DROP;
}

/* More members than copies, and no move: one that was cancelled. What is lost goes first; what is in sync only when enough others are. */
static enum repl_move surplus(const struct vol_map *m, uint32_t group, struct repl_view *v)
{
	bool enough = (uint32_t)__builtin_popcount(v->isr) > m->replica;
	enum repl_move step = REPL_MOVE_WAIT;

	for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++)
		if (taken(v, i) && !wanted(m, group, v, i) && !in_sync(v, i))
			return drop(v, i);
	for (uint32_t i = 0; i < VOL_MEMBERS_MAX && enough; i++) {
		if (!taken(v, i) || wanted(m, group, v, i))
			continue;
		if (v->primary != i)
			return drop(v, i);
		step = REPL_MOVE_TURN;
	}
	return step;
}

/* The map was changed again while t joins for l: a t that is not in sync goes at once. One that is stays in l's stead, and is replaced next, unless l is
 * to stay after all; when both are to stay, it is somebody else who is one too many. */
static enum repl_move changed(const struct vol_map *m, uint32_t group, struct repl_view *v, uint32_t t,
			      uint32_t l)
{
	if (!in_sync(v, t))
		return drop(v, t);
	if (!wanted(m, group, v, l))
		return v->primary == l ? REPL_MOVE_TURN : drop(v, l);
	if (wanted(m, group, v, t)) {
		v->joining = v->leaving = 0;
		return REPL_MOVE_DROP;
	}
	if (!in_sync(v, l))
		return REPL_MOVE_WAIT;
	return v->primary == t ? REPL_MOVE_TURN : drop(v, t);
}

static bool shares_domain(const struct vol_map *m, uint32_t a, uint32_t b)
{
	return streq(m->brick[a].domain, m->brick[b].domain);
}

/* Another member that is still to come has nobody else to replace but the one in this slot. */
static bool reserved(const struct vol_map *m, uint32_t group, const struct repl_view *v, uint32_t slot)
{
	for (uint32_t j = 0; j < m->replica; j++) {
		uint32_t t = m->group[group].brick[j];

		if (repl_view_slot(m, group, v, t) < 0 && shares_domain(m, t, v->brick[slot]))
			return true;
	}
	return false;
}

/* How well brick t replaces the member in this slot; 0 = not at all. */
static int pair_fit(const struct vol_map *m, uint32_t group, const struct repl_view *v, uint32_t t,
		    uint32_t slot)
{
	bool same = shares_domain(m, t, v->brick[slot]);

	if (!taken(v, slot) || wanted(m, group, v, slot) || (!same && reserved(m, group, v, slot)))
		return 0;
	for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++)
		if (taken(v, i) && i != slot && m->replica > 1 && shares_domain(m, t, v->brick[i]))
			return 0;
	return 1 + (v->primary != slot) + 2 * !in_sync(v, slot);
}

static enum repl_move begin(const struct vol_map *m, uint32_t group, struct repl_view *v)
{
	uint32_t joining = 0, leaving = 0, slot = 0;
	int best = 0;

	for (uint32_t j = 0; j < m->replica; j++) {
		uint32_t t = m->group[group].brick[j];

		if (repl_view_slot(m, group, v, t) >= 0)
			continue;
		for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++) {
			int fit = pair_fit(m, group, v, t, i);

			if (fit > best) {
				best = fit;
				joining = t;
				leaving = i;
			}
		}
	}
	if (best == 0)
		return REPL_MOVE_NONE;
	while (taken(v, slot))
		slot++;
	v->members = (uint8_t)(v->members | 1u << slot);
	v->brick[slot] = (uint16_t)joining;
	v->joining = (uint8_t)(slot + 1);
	v->leaving = (uint8_t)(leaving + 1);
	return REPL_MOVE_ADD;
}

enum repl_move repl_move_next(const struct vol_map *m, uint32_t group, const struct repl_view *v,
			      struct repl_view *ret)
{
	*ret = *v;
	ret->epoch++;
	if (v->epoch == 0 || !v->members)
		return REPL_MOVE_NONE;
	for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++)
		if (taken(v, i) && v->brick[i] >= m->n_bricks)
			return REPL_MOVE_WAIT; /* the view is of a newer map */
	if (v->joining && v->leaving) {
		uint32_t t = v->joining - 1u, l = v->leaving - 1u;

		if (!wanted(m, group, v, t) || wanted(m, group, v, l))
			return changed(m, group, ret, t, l);
		if (!in_sync(v, t))
			return REPL_MOVE_WAIT;
		return v->primary == l ? REPL_MOVE_TURN : drop(ret, l);
	}
	if ((uint32_t)__builtin_popcount(v->members) > m->replica)
		return surplus(m, group, ret);
	return begin(m, group, ret);
}
