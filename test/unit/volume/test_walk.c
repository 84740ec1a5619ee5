/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever LMDB itself has written is a file without damage: random transactions, with values of many pages, written again in the same transaction, and
 * deletions that make long lists of free pages. */
#include "../test.h"

#include "volume/bstore/internal.h"

#define KEYS  3000u
#define LONG  30000u
#define SEEDS 8

static uint32_t seed;

static uint32_t pick(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static void change(MDB_txn *t, MDB_dbi dbi, unsigned what)
{
	static uint8_t data[LONG];
	char name[16];
	MDB_val k = {0, name};

	k.mv_size = (size_t)snprintf(name, sizeof(name), "key %u", pick(KEYS));
	if (what == 0) {
		int r = mdb_del(t, dbi, &k, NULL);

		assert_true(r == 0 || r == MDB_NOTFOUND);
		return;
	}
	assert_int_equal(env_put(t, dbi, &k, data, pick(what == 1 ? 200 : LONG)), 0);
	if (what == 3) /* shorter, in the same pages */
		assert_int_equal(env_put(t, dbi, &k, data, pick(3000)), 0);
}

static void one(uint32_t from)
{
	char dir[] = "/tmp/walk-test-XXXXXX", file[64];
	MDB_env *env;

	seed = from;
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/data.mdb", dir);
	assert_int_equal(mdb_env_create(&env), 0);
	assert_int_equal(mdb_env_set_mapsize(env, 1u << 30), 0);
	assert_int_equal(mdb_env_open(env, dir, MDB_NOSYNC, 0600), 0);
	for (unsigned i = 0; i < 120; i++) {
		/* a third of them mostly deletes, so that thousands of pages get free at once */
		unsigned changes = 1 + pick(i % 3 == 2 ? 3000 : 400);
		MDB_txn *t;
		MDB_dbi dbi;

		assert_int_equal(mdb_txn_begin(env, NULL, 0, &t), 0);
		assert_int_equal(mdb_dbi_open(t, NULL, 0, &dbi), 0);
		for (unsigned n = 0; n < changes; n++)
			change(t, dbi, i % 3 == 2 && pick(8) ? 0 : pick(4));
		assert_int_equal(mdb_txn_commit(t), 0);
		if (!walk_ok(file, clock_ms() + 60000))
			fail_msg("seed %u, transaction %u: a file that LMDB has written is called damaged",
				 from, i);
	}
	mdb_env_close(env);
	remove(file);
	snprintf(file, sizeof(file), "%s/lock.mdb", dir);
	remove(file);
	remove(dir);
}

static void healthy_files(void **state)
{
	(void)state;
	for (uint32_t from = 1; from <= SEEDS; from++)
		one(from);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(healthy_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
