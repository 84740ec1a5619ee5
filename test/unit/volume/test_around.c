/* SPDX-License-Identifier: Apache-2.0 */
/* Which small reads ask for their whole block: how much must have been read, what they ask for, and what ends it. */
#include "test.h"

#include "volume/mount/around.h"

#define BLOCK (64u << 10)
#define ZONE  ((uint64_t)BLOCK * AROUND_BLOCKS)
#define FULL  (AROUND_BLOCKS / 2) /* reads of a whole zone before blocks are worth it */

static uint64_t off_got;
static uint32_t len_got;

static bool ask(struct around *a, uint64_t file, uint64_t version, uint64_t size, uint64_t off, uint64_t ms)
{
	off_got = len_got = 0;
	if (!around_ask(a, file, version, size, off, 4096, ms, &off_got, &len_got))
		return false;
	around_done(a, file, version, off_got, true);
	return true;
}

/* Reads of the first page of blocks of the zone at `from`, until one is answered with a whole block: how many were not. */
static uint32_t reads_until(struct around *a, uint64_t file, uint64_t version, uint64_t size, uint64_t from,
			    uint64_t ms)
{
	for (uint32_t i = 0; i < 8 * AROUND_BLOCKS; i++)
		if (ask(a, file, version, size, from + (uint64_t)(i % AROUND_BLOCKS) * BLOCK, ms))
			return i;
	return UINT32_MAX;
}

static void a_place_that_is_read_much(void **s)
{
	struct around *a = around_new(BLOCK, 64 * ZONE);

	(void)s;
	assert_int_equal(reads_until(a, 1, 1, 4 * ZONE, ZONE, 1), FULL);
	assert_int_equal(off_got, ZONE + (uint64_t)FULL * BLOCK);
	assert_int_equal(len_got, BLOCK);
	assert_true(
		ask(a, 1, 1, 4 * ZONE, ZONE + BLOCK + 8192, 1)); /* the block around a page in its middle */
	assert_int_equal(off_got, ZONE + BLOCK);
	assert_false(ask(a, 1, 1, 4 * ZONE, 0, 1));    /* another zone */
	assert_false(ask(a, 2, 1, 4 * ZONE, ZONE, 1)); /* another file */
	around_free(a);
}

static void what_is_asked_for_lies_in_the_file(void **s)
{
	struct around *a = around_new(BLOCK, 64 * ZONE);
	uint64_t size = 2 * BLOCK + 3 * 4096 + 100;

	(void)s;
	for (uint32_t i = 0; i < AROUND_NEED_MIN; i++) /* a small file: few are enough */
		assert_false(ask(a, 1, 1, size, 4096 * i, 1));
	assert_true(ask(a, 1, 1, size, 2 * BLOCK + 4096, 1));
	assert_int_equal(off_got, 2 * BLOCK);
	assert_int_equal(len_got, 3 * 4096);			   /* whole pages */
	assert_false(ask(a, 1, 1, size, 2 * BLOCK + 3 * 4096, 1)); /* the last, torn page */
	assert_false(ask(a, 1, 1, size, 3 * BLOCK, 1));
	assert_false(ask(a, 1, 1, size, UINT64_MAX - 4095, 1));
	assert_false(around_ask(a, 1, 1, size, 100, 4096, 1, &off_got, &len_got));
	assert_false(around_ask(a, 1, 1, size, 0, 0, 1, &off_got, &len_got));
	assert_false(around_ask(a, 1, 1, size, 0, BLOCK, 1, &off_got, &len_got));
	assert_false(around_ask(a, 1, 1, size, BLOCK - 4096, 8192, 1, &off_got, &len_got)); /* two blocks */
	assert_true(around_ask(a, 1, 1, size, 8192, 16384, 1, &off_got, &len_got));
	assert_int_equal(len_got, BLOCK);
	around_free(a);
}

static void few_are_on_their_way_and_none_twice(void **s)
{
	struct around *a = around_new(BLOCK, 64 * ZONE);

	(void)s;
	assert_int_equal(reads_until(a, 1, 1, ZONE, 0, 1), FULL);
	for (uint64_t i = 0; i < AROUND_ASKED; i++) {
		assert_true(around_ask(a, 1, 1, ZONE, i * BLOCK, 4096, 1, &off_got, &len_got));
		assert_false(around_ask(a, 1, 1, ZONE, i * BLOCK + 8192, 4096, 1, &off_got, &len_got));
	}
	assert_false(around_ask(a, 1, 1, ZONE, 100 * BLOCK, 4096, 1, &off_got, &len_got));
	around_done(a, 1, 1, BLOCK, false); /* it was not given: may be asked for once more */
	assert_true(around_ask(a, 1, 1, ZONE, BLOCK, 4096, 1, &off_got, &len_got));
	around_done(a, 1, 2, BLOCK, true); /* changed meanwhile */
	assert_true(around_ask(a, 1, 1, ZONE, BLOCK, 4096, 1, &off_got, &len_got));
	around_free(a);
}

static void a_change_and_a_pause_begin_anew(void **s)
{
	struct around *a = around_new(BLOCK, 64 * ZONE);

	(void)s;
	assert_int_equal(reads_until(a, 1, 1, ZONE, 0, 1), FULL);
	assert_int_equal(reads_until(a, 1, 2, ZONE, 0, 2), FULL);
	assert_int_equal(reads_until(a, 1, 2, ZONE, 0, 3 + AROUND_IDLE_MS), FULL);
	around_free(a);
}

static void pages_that_do_not_stay_end_it(void **s)
{
	struct around *a = around_new(BLOCK, 64 * ZONE);
	uint32_t whole = 0, reads = 100 * AROUND_BLOCKS;

	(void)s;
	for (uint32_t i = 0; i < reads; i++) /* the kernel asks for each block again and again */
		whole += ask(a, 1, 1, ZONE, (uint64_t)(i % AROUND_BLOCKS) * BLOCK, 1);
	assert_true(whole < reads / 8);
	around_free(a);
}

static void what_a_block_costs_is_measured(void **s)
{
	struct around *a = around_new(BLOCK, 64 * ZONE);

	(void)s;
	for (int i = 0; i < 100; i++) {
		around_took(a, false, 100);
		around_took(a, true, 110);
	}
	assert_int_equal(reads_until(a, 1, 1, ZONE, 0, 1), FULL); /* never less */
	for (int i = 0; i < 200; i++)
		around_took(a, true, 700); /* 6 small ones longer, for 3 times as many reads */
	assert_in_range(reads_until(a, 2, 1, ZONE, 0, 1), 3 * FULL, 4 * FULL); /* two reads a block */
	around_took(a, true, 1000000);					       /* something had to wait */
	assert_in_range(reads_until(a, 3, 1, ZONE, 0, 1), 3 * FULL, 6 * FULL);
	around_free(a);
}

static void a_large_file_that_is_read_thinly(void **s)
{
	struct around *a = around_new(BLOCK, 64 * ZONE);
	uint64_t zones = 512;

	(void)s;
	for (uint64_t i = 0; i < zones * FULL * 2;
	     i++) /* 64 zones are kept: each has gone when it is read again */
		assert_false(ask(a, 1, 1, zones * ZONE, i % zones * ZONE + i / zones * BLOCK, 1 + i));
	/* one that fits */
	zones = 64;
	for (uint64_t i = 0; i < zones * FULL; i++)
		assert_false(
			ask(a, 2, 1, zones * ZONE, i % zones * ZONE + i / zones * BLOCK, (1u << 20) + i));
	for (uint64_t i = 0; i < zones; i++)
		assert_true(ask(a, 2, 1, zones * ZONE, i * ZONE + (uint64_t)FULL * BLOCK,
				(1u << 20) + zones * FULL));
	around_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_place_that_is_read_much),
		cmocka_unit_test(what_is_asked_for_lies_in_the_file),
		cmocka_unit_test(few_are_on_their_way_and_none_twice),
		cmocka_unit_test(a_change_and_a_pause_begin_anew),
		cmocka_unit_test(pages_that_do_not_stay_end_it),
		cmocka_unit_test(what_a_block_costs_is_measured),
		cmocka_unit_test(a_large_file_that_is_read_thinly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
