/* SPDX-License-Identifier: Apache-2.0 */
/* move: groups that come to this brick and go (docs/volume-internals.md "Moving groups"). Views say which groups are here (core/repl/move.c decides, a group's primary
 * proposes, etcd keeps it); here is what follows for this brick's disk:
 *   a view has this brick as a new member	-> bstore_join, a group is made; it has nothing and catches up as any member that was away
 *   a view has it no more			-> the group is freed; its keys and files are removed, KEYS_STEP of one group a tick, then that is settled
 * A group that comes back while it is being removed waits. What a crash left behind is found when the volume is opened.
 *
 * Bounds: MOVES_MAX groups that this brick leads are on the move at once (and a brick that catches up pulls a few groups at once, heal.c). */
#include "volume/brick/internal.h"

#define MOVES_MAX 2
#define MOVES_MS  50
#define KEYS_STEP 256

bool moves_views_known(const struct vol *v)
{
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
		if (!v->have_view[i])
			return false;
	return true;
}

static bool is_member(const struct vol *v, uint32_t group)
{
	return repl_view_slot(v->doc.map, group, &v->views[group], v->self) >= 0;
}

bool moves_retired(const struct vol *v)
{
	if (!v->doc.map || v->self >= v->doc.map->n_bricks || !v->doc.map->brick[v->self].retired)
		return false;
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
		if (!v->have_view[i] || is_member(v, i) || (v->grp && v->grp[i]) || v->leaving[i] == SETTLING)
			return false;
	return true;
}

void moves_opened(struct vol *v)
{
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++) {
		v->leaving[i] = (uint8_t)(!v->grp[i] && bstore_left_over(v->store, i) ? REMOVING : STAYS);
		if (v->leaving[i])
			log_info(
				"volume %s, group %u: lies elsewhere now: what is left of it here is removed",
				v->name, i);
	}
}

/* ---- going ---- */

struct settled {
	struct vol *v;
	uint32_t group;
	const struct bstore *store; /* of this opening */
};

static void on_settled(void *ctx, int err)
{
	struct settled *s = ctx;
	struct vol *v = s->v;

	if (v->open && !v->closing && v->store == s->store && v->leaving[s->group] == SETTLING) {
		v->leaving[s->group] = (uint8_t)(err < 0 ? REMOVING : STAYS);
		if (err == 0) {
			bstore_removed(v->store, s->group);
			log_info("volume %s, group %u: its data is removed here", v->name, s->group);
		}
	}
	vol_unref(v);
	free(s);
}

static void settle(struct vol *v, uint32_t group)
{
	struct settled *s = xcalloc(1, sizeof(*s));

	*s = (struct settled){v, group, v->store};
	v->refs++;
	v->leaving[group] = SETTLING;
	bstore_settle(v->store, on_settled, s);
}

static void leave(struct vol *v, struct grp *g)
{
	uint32_t group = g->idx;
	int r;

	log_info("volume %s, group %u: lies on other bricks now: its data is removed here", v->name, group);
	if (g->view.epoch > v->views[group].epoch) /* heard of before the store's watch said it */
		v->views[group] = g->view;
	lease_end_group(v, group);
	v->grp[group] = grp_free(g);
	v->leaving[group] = REMOVING;
	r = bstore_leave(v->store, group);
	if (r < 0)
		vol_failed(v, r, "cannot forget a group");
}

/* One group a tick. */
static void remove_some(struct vol *v)
{
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++) {
		int r;

		if (v->leaving[i] != REMOVING)
			continue;
		r = bstore_remove(v->store, i, KEYS_STEP);
		if (r == 0)
			settle(v, i);
		else if (r < 0 && !v->error)
			vol_failed(v, r, "cannot remove a group's data");
		return;
	}
}

/* ---- coming ---- */

static void join(struct vol *v, uint32_t group)
{
	int r = bstore_join(v->store, group);

	if (r < 0) {
		vol_failed(v, r, "cannot take a group");
		return;
	}
	log_info("volume %s, group %u: comes to this brick", v->name, group);
	v->grp[group] = grp_new(v, group);
	space_measure(v);
	grp_start(v->grp[group]);
}

/* ---- who may begin ---- */

static void plan(struct vol *v)
{
	const struct vol_map *m = v->doc.map;
	struct repl_view next;
	uint32_t moving = 0;

	for (uint32_t i = 0; i < m->n_groups; i++)
		moving += v->grp[i] && v->grp[i]->role == REPL_PRIMARY && v->grp[i]->view.joining;
	for (uint32_t i = 0; i < m->n_groups; i++) {
		struct grp *g = v->grp[i];
		bool may = g && g->role == REPL_PRIMARY && moving < MOVES_MAX &&
			   repl_move_next(m, i, &g->view, &next) == REPL_MOVE_ADD;

		moving += may;
		if (g)
			repl_plan(g->repl, m, may);
	}
}

void moves_tick(struct vol *v, uint64_t now)
{
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++) {
		struct grp *g = v->grp[i];

		if (g && repl_gone(g->repl))
			leave(v, g);
		else if (!g && v->leaving[i] == STAYS && !v->error && is_member(v, i))
			join(v, i);
	}
	remove_some(v);
	if (now < v->moves_ms)
		return;
	v->moves_ms = now + MOVES_MS;
	plan(v);
}
