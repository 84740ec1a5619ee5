/* SPDX-License-Identifier: Apache-2.0 */
/* core/repl/move: a group's way from where it lies to where it shall lie. Each step alone, then random worlds: members are lost and come back, the primary
 * changes, the map is changed again in the middle; at every step copies are in different domains but for the two of the move, no step takes a copy away
 * before its successor is there, and in the end the members are the map's. */
#include "test.h"
#include "core/repl/repl.h"

static const struct vol_id uuid = {{7, 2, 3}};
static uint64_t state_of_rng;

static uint32_t rnd(uint32_t n)
{
	state_of_rng = state_of_rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(state_of_rng >> 33) % n;
}

static struct vol_brick brick(const char *name)
{
	struct vol_brick b = {.weight = 100, .address = "127.0.0.1:1", .path = "/brick"};

	snprintf(b.name, sizeof(b.name), "%s", name);
	snprintf(b.domain, sizeof(b.domain), "%c", name[0]);
	return b;
}

static struct vol_map *map_of(const char *words, uint32_t replica)
{
	_cleanup_strv_ char **w = strv_split(words, ' ', false);
	struct vol_brick b[VOL_BRICKS_MAX];
	struct vol_map *m = NULL;
	uint32_t n = 0;

	for (; w[n]; n++)
		b[n] = brick(w[n]);
	assert_int_equal(vol_map_make("logs", &uuid, replica, 1, b, n, 0, replica == 1, &m, NULL), 0);
	return m;
}

static struct vol_map *expanded(const struct vol_map *m, const char *words)
{
	_cleanup_strv_ char **w = strv_split(words, ' ', false);
	struct vol_brick b[VOL_BRICKS_MAX];
	struct vol_map *to = NULL;
	uint32_t n = 0;

	for (; w[n]; n++)
		b[n] = brick(w[n]);
	assert_int_equal(vol_map_expand(m, b, n, &to, NULL), 0);
	return to;
}

static struct vol_map *replaced(const struct vol_map *m, const char *old, const char *by)
{
	struct vol_brick b = brick(by);
	struct vol_map *to = NULL;

	assert_int_equal(vol_map_replace(m, old, &b, &to, NULL), 0);
	return to;
}

static struct repl_view view_of(const struct vol_map *m, uint32_t g)
{
	struct repl_view v = {.epoch = 1, .isr = (uint8_t)((1u << m->replica) - 1)};

	repl_view_fill(m, g, &v);
	return v;
}

static bool has(const struct vol_map *m, uint32_t g, const struct repl_view *v, const char *name)
{
	return repl_view_slot(m, g, v, (uint32_t)vol_brick_find(m, name)) >= 0;
}

/* The pieces of one replacement, with the primary the one that leaves. */
static void one_by_one(void **state)
{
	struct vol_map *m = map_of("a1 b1 c1", 3), *to = replaced(m, "a1", "a2");
	struct repl_view v, next;
	uint32_t g = 0;

	while (!streq(m->brick[m->group[g].brick[0]].name, "a1"))
		g++;
	v = view_of(m, g);
	assert_int_equal(repl_move_next(m, g, &v, &next), REPL_MOVE_NONE);
	assert_int_equal(repl_move_next(to, g, &v, &next), REPL_MOVE_ADD);
	assert_int_equal(next.epoch, 2);
	assert_int_equal(next.isr, 7);
	assert_int_equal(next.members, 15);
	assert_true(next.joining == 4 && next.leaving == 1 && next.primary == 0);
	v = next;
	assert_int_equal(repl_move_next(to, g, &v, &next), REPL_MOVE_WAIT);
	v.isr = 15; /* it has caught up; both of domain a are one copy */
	assert_int_equal(repl_copies(&v, v.isr), 3);
	assert_int_equal(repl_copies(&v, 9), 1);
	assert_int_equal(repl_copies(&v, 6), 2);
	assert_int_equal(repl_move_next(to, g, &v, &next), REPL_MOVE_TURN);
	v.primary = 3;
	assert_int_equal(repl_move_next(to, g, &v, &next), REPL_MOVE_DROP);
	assert_true(next.members == 14 && next.isr == 14 && next.primary == 3 && !next.joining &&
		    !next.leaving);
	assert_false(has(to, g, &next, "a1"));
	v = next;
	assert_int_equal(repl_move_next(to, g, &v, &next), REPL_MOVE_NONE);
	vol_map_free(m);
	vol_map_free(to);
}

/* The one to be replaced is dead: nothing is waited for but the new one. */
static void dead_for_good(void **state)
{
	struct vol_map *m = map_of("a1 b1 c1", 3), *to = replaced(m, "b1", "b2");
	struct repl_view v = view_of(m, 0), next;
	int b1 = repl_view_slot(m, 0, &v, 1);

	v.primary = (uint8_t)((b1 + 1) % 3);
	v.isr = (uint8_t)(7 & ~(1u << b1));
	assert_int_equal(repl_move_next(to, 0, &v, &next), REPL_MOVE_ADD);
	assert_int_equal(next.leaving, b1 + 1);
	v = next;
	v.isr |= 8;
	assert_int_equal(repl_copies(&v, v.isr), 3);
	assert_int_equal(repl_move_next(to, 0, &v, &next), REPL_MOVE_DROP);
	assert_true(__builtin_popcount(next.isr) == 3 && !has(to, 0, &next, "b1") && has(to, 0, &next, "b2"));
	vol_map_free(m);
	vol_map_free(to);
}

/* While a2 joins for a1 the operator names a3 instead: a2, not yet in sync, goes; in sync, it is what a3 replaces. */
static void changed_again(void **state)
{
	struct vol_map *m = map_of("a1 b1 c1", 3), *to = replaced(m, "a1", "a2"),
		       *then = replaced(to, "a2", "a3");
	struct repl_view v = view_of(m, 0), next;

	v.primary = (uint8_t)repl_view_slot(m, 0, &v, 1);
	assert_int_equal(repl_move_next(to, 0, &v, &next), REPL_MOVE_ADD);
	v = next;
	assert_int_equal(repl_move_next(then, 0, &v, &next), REPL_MOVE_DROP);
	assert_true(!has(then, 0, &next, "a2") && has(then, 0, &next, "a1") && next.isr == 7);
	v.isr = 15;
	assert_int_equal(repl_move_next(then, 0, &v, &next), REPL_MOVE_DROP);
	assert_true(has(then, 0, &next, "a2") && !has(then, 0, &next, "a1"));
	assert_int_equal(__builtin_popcount(next.isr), 3);
	v = next;
	assert_int_equal(repl_move_next(then, 0, &v, &next), REPL_MOVE_ADD);
	assert_true(has(then, 0, &next, "a3"));
	/* a view of a newer map than ours is left alone */
	assert_int_equal(repl_move_next(m, 0, &next, &v), REPL_MOVE_WAIT);
	vol_map_free(m);
	vol_map_free(to);
	vol_map_free(then);
}

/* ---- random worlds ---- */

/* No two members share a domain, but the two of a move. */
static void check_domains(const struct vol_map *m, const struct repl_view *v)
{
	for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++)
		for (uint32_t j = 0; j < i; j++) {
			if (!(v->members >> i & 1) || !(v->members >> j & 1))
				continue;
			if (v->joining && (i + 1 == v->joining || j + 1 == v->joining) &&
			    (i + 1 == v->leaving || j + 1 == v->leaving))
				continue;
			assert_string_not_equal(m->brick[v->brick[i]].domain, m->brick[v->brick[j]].domain);
		}
}

/* What a swap has to keep: the primary stays, nobody joins the set by it, and copies that count do not get fewer. */
static void check_step(const struct repl_view *v, const struct repl_view *next)
{
	assert_int_equal(next->epoch, v->epoch + 1);
	assert_int_equal(next->primary, v->primary);
	assert_int_equal(next->isr & ~v->isr, 0);
	assert_int_equal(next->isr & ~next->members, 0);
	assert_true(next->isr >> next->primary & 1);
	assert_true(repl_copies(next, next->isr) >= MIN(repl_copies(v, v->isr), 3u));
	for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++) /* who stays keeps its slot */
		if (v->members >> i & next->members >> i & 1)
			assert_int_equal(v->brick[i], next->brick[i]);
}

/* Somebody is lost or catches up, or leads. At least one is left, and the primary is in the set. */
static void happens(struct repl_view *v, bool calm)
{
	uint32_t i = rnd(VOL_MEMBERS_MAX);

	if (!(v->members >> i & 1))
		return;
	if (calm || rnd(3) > 0) {
		v->isr |= (uint8_t)(1u << i);
	} else if (v->primary != i) {
		v->isr &= (uint8_t) ~(1u << i);
	} else if (v->isr != 1u << i) {
		v->isr &= (uint8_t) ~(1u << i);
		v->primary = (uint8_t)__builtin_ctz(v->isr);
	}
	v->epoch++;
}

static void arrives(const struct vol_map *m, uint32_t g, const struct repl_view *v)
{
	assert_int_equal(v->joining, 0);
	assert_int_equal(__builtin_popcount(v->members), m->replica);
	for (uint32_t j = 0; j < m->replica; j++)
		assert_true(repl_view_slot(m, g, v, m->group[g].brick[j]) >= 0);
}

static void walk(const struct vol_map *maps[], uint32_t n_maps, uint32_t g)
{
	struct repl_view v = view_of(maps[0], g), next;
	uint32_t at = 1, steps = 0;

	for (; steps < 2000; steps++) {
		bool calm = steps > 300;
		enum repl_move step;

		if (at + 1 < n_maps && rnd(20) == 0)
			at++; /* changed again */
		step = repl_move_next(maps[at], g, &v, &next);
		if (step == REPL_MOVE_NONE && (uint32_t)__builtin_popcount(v.isr) == maps[0]->replica &&
		    at + 1 == n_maps)
			break;
		if (step == REPL_MOVE_ADD || step == REPL_MOVE_DROP) {
			check_step(&v, &next);
			v = next;
		} else if (step == REPL_MOVE_TURN) {
			uint8_t others = (uint8_t)(v.isr & ~(1u << v.primary));

			assert_true(others != 0);
			v.primary = (uint8_t)__builtin_ctz(others);
			v.epoch++;
		}
		check_domains(maps[at], &v);
		assert_true((uint32_t)__builtin_popcount(v.members) <= maps[0]->replica + 1);
		happens(&v, calm);
	}
	assert_true(steps < 2000);
	arrives(maps[at], g, &v);
}

static void worlds(void **state)
{
	struct vol_map *a = map_of("a1 b1 c1", 3), *b = expanded(a, "a2 b2 c2"), *c = replaced(b, "b1", "b3"),
		       *d = replaced(c, "a2", "a4"), *f = expanded(d, "c5 b5 a5");
	struct vol_map *p = map_of("a1 b1 c1 d1 e1 f1", 3), *q = expanded(p, "d2 e2 f2 a2 b2 c2");
	struct vol_map *one = map_of("a1 a2", 1), *two = expanded(one, "b1 b2");
	const struct vol_map *ways[][5] = {{a, b}, {a, b, c, d, f}, {b, d, f}, {a, c}, {p, q}, {one, two}};
	const uint32_t n[] = {2, 5, 3, 2, 2, 2};

	for (uint32_t seed = 1; seed <= 400; seed++) {
		uint32_t w = seed % ARRAY_SIZE(ways);

		state_of_rng = seed * 977;
		for (uint32_t g = 0; g < ways[w][0]->n_groups; g++)
			walk(ways[w], n[w], g);
	}
	struct vol_map *all[] = {a, b, c, d, f, p, q, one, two};
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		vol_map_free(all[i]);
}

TEST_MAIN(cmocka_unit_test(one_by_one), cmocka_unit_test(dead_for_good), cmocka_unit_test(changed_again),
	  cmocka_unit_test(worlds))
