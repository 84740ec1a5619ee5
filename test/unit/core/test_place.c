/* SPDX-License-Identifier: Apache-2.0 */
/* core/place: layouts that fit and those that do not, how evenly folders and primaries spread, that expanding moves whole groups only and no
 * folder's owner, and the map's JSON with what is wrong in it. */
#include "test.h"
#include "core/place/place.h"

static const struct vol_id uuid = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

/* "a1 b1 c1": a brick a word, its domain the first letter. */
static uint32_t bricks(const char *words, struct vol_brick *out)
{
	_cleanup_strv_ char **w = strv_split(words, ' ', false);
	uint32_t n = 0;

	for (; w[n]; n++) {
		out[n] = (struct vol_brick){.weight = 100};
		snprintf(out[n].name, sizeof(out[n].name), "%s", w[n]);
		snprintf(out[n].domain, sizeof(out[n].domain), "%c", w[n][0]);
		snprintf(out[n].address, sizeof(out[n].address), "127.0.0.1:%u", 7000 + n);
		snprintf(out[n].path, sizeof(out[n].path), "/brick");
	}
	return n;
}

static struct vol_map *make(const char *words, uint32_t replica, uint32_t stripe, bool without, struct err *e)
{
	struct vol_brick b[VOL_BRICKS_MAX];
	struct vol_map *m = NULL;
	uint32_t n = bricks(words, b);

	return vol_map_make("logs", &uuid, replica, stripe, b, n, 0, without, &m, e) == 0 ? m : NULL;
}

static void check_map(const struct vol_map *m)
{
	for (uint32_t g = 0; g < m->n_groups; g++)
		for (uint32_t i = 0; i < m->replica; i++)
			for (uint32_t j = 0; j < i; j++)
				assert_string_not_equal(m->brick[m->group[g].brick[i]].domain,
							m->brick[m->group[g].brick[j]].domain);
}

static void test_kinds(void **state)
{
	static const struct {
		const char *bricks;
		uint32_t replica, stripe;
		bool without;
		const char *kind; /* NULL = refused, with `text` in it */
		const char *text;
	} cases[] = {
		{"a1 b1 c1", 3, 1, false, "replicated", NULL},
		{"a1 b1", 2, 1, false, "replicated", NULL},
		{"a1 b1 c1 a2 b2 c2", 3, 2, false, "distributed-striped-replicated", NULL},
		{"a1 b1 c1 a2 b2 c2", 3, 1, false, "distributed-striped-replicated", NULL},
		{"a1 a2 b1 b2 c1 c2", 3, 1, false, "distributed-striped-replicated", NULL},
		{"a1 b1 c1", 1, 3, true, "striped", NULL},
		{"a1 b1 c1", 1, 3, false, NULL, "--without-copies"},
		{"a1", 1, 1, false, NULL, "without copies"},
		{"a1", 1, 1, true, "striped", NULL},
		{"a1 b1", 3, 1, false, NULL, "3 make a replicated volume; 3, 6 or 9 fit"},
		{"a1 b1 c1 a2 b2", 3, 2, false, NULL, "6, 12 or 18 fit"},
		{"a1 b1 c1 a2 b2 c2 a3", 3, 2, false, NULL, "6, 12 or 18 fit"},
		{"a1 b1 c1", 3, 2, false, NULL, "3 without stripe make a replicated volume"},
		{"a1 a2 b1", 3, 1, false, NULL, "3 different domains, these are in 2"},
		{"a1 a2 a3 b1 c1 d1", 3, 1, false, NULL, "domain a has 3 of 6 bricks"},
		{"a1 b1 c1", 6, 1, false, NULL, "replica 6"},
		{"a1 b1 a1", 3, 1, false, NULL, "a1 is named twice"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err e = {0};
		struct vol_map *m =
			make(cases[i].bricks, cases[i].replica, cases[i].stripe, cases[i].without, &e);

		if (!cases[i].kind) {
			assert_null(m);
			if (!strstr(e.text, cases[i].text))
				fail_msg("%s: '%s' does not say '%s'", cases[i].bricks, e.text,
					 cases[i].text);
			continue;
		}
		if (!m)
			fail_msg("%s: %s", cases[i].bricks, e.text);
		assert_string_equal(vol_kind_text(vol_map_kind(m)), cases[i].kind);
		check_map(m);
		vol_map_free(m);
	}
}

/* Every brick leads its share of groups, and no more than 2 n / replica different sets are in use. */
static void test_spread(void **state)
{
	static const char *const layouts[] = {"a1 b1 c1", "a1 b1 c1 a2 b2 c2",
					      "a1 b1 c1 a2 b2 c2 a3 b3 c3 a4 b4 c4",
					      "a1 a2 a3 a4 b1 b2 b3 b4 c1 c2 c3 c4 d1 d2 d3 e1 f1 g1"};

	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct vol_map *m = make(layouts[i], 3, 1, false, NULL);
		uint32_t lead[VOL_BRICKS_MAX] = {0}, member[VOL_BRICKS_MAX] = {0}, sets = 0;

		assert_non_null(m);
		check_map(m);
		for (uint32_t g = 0; g < m->n_groups; g++) {
			bool known = false;

			lead[m->group[g].brick[0]]++;
			for (uint32_t j = 0; j < 3; j++)
				member[m->group[g].brick[j]]++;
			for (uint32_t h = 0; h < g && !known; h++) {
				known = true;
				for (uint32_t j = 0; j < 3; j++)
					known = known && vol_group_member(m, h, m->group[g].brick[j]) >= 0;
			}
			sets += !known;
		}
		assert_in_range(sets, 1, 2 * m->n_bricks / 3);
		for (uint32_t b = 0; b < m->n_bricks; b++) {
			uint32_t fair = m->n_groups * 3 / m->n_bricks;

			assert_in_range(member[b], fair - fair / 4 - 1, fair + fair / 4 + 2);
			assert_in_range(lead[b], 1, fair / 3 * 2 + 2);
		}
		vol_map_free(m);
	}
}

static void test_place(void **state)
{
	struct vol_map *m = make("a1 b1 c1 a2 b2 c2", 3, 2, false, NULL),
		       *again = make("a1 b1 c1 a2 b2 c2", 3, 2, false, NULL);
	uint32_t count[16] = {0}, home = 0;

	assert_non_null(m);
	assert_int_equal(m->n_groups, 16);
	for (uint32_t i = 0; i < 4000; i++) {
		struct vol_id f = {{0}};
		struct vol_ino ino;
		uint32_t a[VOL_STRIPE_MAX], b[VOL_STRIPE_MAX];

		random_bytes(f.b + 1, 15);
		vol_place(m, &f, a);
		vol_place(again, &f, b);
		assert_memory_equal(a, b, 2 * sizeof(a[0]));
		assert_int_equal(a[0], vol_owner(m, &f));
		/* the second stripe lies on other bricks */
		for (uint32_t j = 0; j < 3; j++)
			assert_int_equal(vol_group_member(m, a[1], m->group[a[0]].brick[j]), -1);
		ino = (struct vol_ino){f, 7};
		assert_int_equal(vol_group_of_stripe(m, &ino, 4), a[0]);
		assert_int_equal(vol_group_of_stripe(m, &ino, 5), a[1]);
		count[a[0]]++;
		f.b[0] = 2; /* at home in b */
		home += streq(m->brick[m->group[vol_owner(m, &f)].brick[0]].domain, "b");
	}
	for (uint32_t g = 0; g < 16; g++)
		assert_in_range(count[g], 150, 360);
	assert_int_equal(home, 4000);
	vol_map_free(m);
	vol_map_free(again);
}

/* The same numbers for ever: data would not be found else. */
static void test_fixed(void **state)
{
	struct vol_map *m = make("a1 b1 c1", 3, 1, false, NULL);
	struct vol_id f = {{0, 17, 34, 51}};
	uint32_t root = vol_owner(m, &vol_root), other = vol_owner(m, &f);

	assert_int_equal(root, 6);
	assert_int_equal(other, 11);
	vol_map_free(m);
}

static void test_expand(void **state)
{
	struct vol_map *m = make("a1 b1 c1 a2 b2 c2", 3, 1, false, NULL), *x = NULL;
	struct vol_brick more[8];
	uint32_t n = bricks("a3 b3 c3", more), moved = 0;
	struct err e = {0};

	assert_int_equal(vol_map_expand(m, more, 2, &x, &e), -EINVAL);
	assert_non_null(strstr(e.text, "add 3, 6 or 9"));
	assert_int_equal(vol_map_expand(m, m->brick, 3, &x, &e), -EINVAL);
	assert_non_null(strstr(e.text, "named twice"));
	assert_int_equal(vol_map_expand(m, more, n, &x, &e), 0);
	assert_int_equal(x->generation, m->generation + 1);
	assert_int_equal(x->n_bricks, 9);
	check_map(x);
	for (uint32_t g = 0; g < m->n_groups; g++) {
		bool same = memcmp(m->group[g].brick, x->group[g].brick, sizeof(m->group[g].brick)) == 0;

		moved += !same;
		for (uint32_t j = 0; j < 3 && !same; j++)
			assert_true(x->group[g].brick[j] >= 6);
		/* primaries stay in their domain */
		assert_string_equal(m->brick[m->group[g].brick[0]].domain,
				    x->brick[x->group[g].brick[0]].domain);
	}
	assert_in_range(moved, 5, 6); /* a third of 16 */
	for (uint32_t i = 0; i < 500; i++) {
		struct vol_id f;

		random_bytes(f.b, 16);
		f.b[0] = (uint8_t)(i % 4);
		assert_int_equal(vol_owner(m, &f), vol_owner(x, &f));
	}
	vol_map_free(m);
	vol_map_free(x);
}

static void test_json(void **state)
{
	struct vol_map *m = make("a1 b1 c1 a2 b2 c2", 3, 2, false, NULL), *back = NULL;
	_cleanup_json_ json_t *o = vol_map_to_json(m);
	json_t *again;
	struct err e = {0};
	static const struct {
		const char *path, *value;
	} wrong[] = {
		{"replica", "0"},
		{"replica", "4"},
		{"replica", "\"3\""},
		{"stripe", "17"},
		{"stripe_size", "65537"},
		{"stripe_size", "-1"},
		{"write_quorum", "4"},
		{"uuid", "\"12\""},
		{"name", "\"A\""},
		{"name", "null"},
		{"bricks", "[]"},
		{"bricks", "[{}]"},
		{"groups", "[[0,1,2],[0,1,2],[0,1,2]]"},
		{"groups", "[[0,1,2],[0,1,6]]"},
		{"groups", "[[0,1,2],[0,1,3]]"},
		{"groups", "[[0,1],[0,1]]"},
		{"groups", "[[0,1,2],[0,1,-1]]"},
		{"origins", "[[0,1,2]]"},
		{"generation", "-5"},
	};

	assert_int_equal(vol_map_from_json(o, &back, &e), 0);
	assert_memory_equal(m->group, back->group, m->n_groups * sizeof(*m->group));
	assert_memory_equal(m->brick, back->brick, m->n_bricks * sizeof(*m->brick));
	again = vol_map_to_json(back);
	assert_true(json_equal(o, again));
	json_decref(again);
	vol_map_free(back);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		_cleanup_json_ json_t *bad = json_deep_copy(o);

		json_object_set_new(bad, wrong[i].path, json_loads(wrong[i].value, JSON_DECODE_ANY, NULL));
		back = NULL;
		if (vol_map_from_json(bad, &back, &e) == 0)
			fail_msg("%s = %s was taken", wrong[i].path, wrong[i].value);
		assert_null(back);
	}
	vol_map_free(m);
}

static void test_id(void **state)
{
	struct vol_id id;
	char text[33];

	vol_id_text(&uuid, text);
	assert_string_equal(text, "0102030405060708090a0b0c0d0e0f10");
	assert_int_equal(vol_id_parse(text, &id), 0);
	assert_true(vol_id_eq(&id, &uuid));
	assert_int_equal(vol_id_parse("0102030405060708090a0b0c0d0e0f1g", &id), -EINVAL);
	assert_int_equal(vol_id_parse("01", &id), -EINVAL);
}

TEST_MAIN(cmocka_unit_test(test_kinds), cmocka_unit_test(test_spread), cmocka_unit_test(test_place),
	  cmocka_unit_test(test_fixed), cmocka_unit_test(test_expand), cmocka_unit_test(test_json),
	  cmocka_unit_test(test_id))
