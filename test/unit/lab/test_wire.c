/* SPDX-License-Identifier: Apache-2.0 */
/* Links of the lab's wire: time, order, cuts, loss, bounds, and the words of its control socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"
#include "lab/wire_control.h"
#include "lab/wire_link.h"

static struct wire_net net;

static int fresh(void **state)
{
	wire_net_done(&net);
	memset(&net, 0, sizeof net);
	assert_int_equal(wire_site(&net, "a", true), 0);
	assert_int_equal(wire_site(&net, "b", true), 1);
	assert_int_equal(wire_site(&net, "c", true), 2);
	return 0;
}

static int drained(void **state)
{
	wire_net_done(&net);
	return 0;
}

static int command(const char *text)
{
	char line[200], *words[WIRE_WORDS_MAX];
	struct err e = {.code = 0};

	snprintf(line, sizeof line, "%s", text);
	return wire_link_command(&net, words, wire_words(line, words), &e);
}

static bool send_frame(int from, int to, char mark, uint64_t now, uint64_t random)
{
	struct frame *f = frame_new(&mark, 1);
	bool sent = wire_send(&net, from, to, to, f, now, random);

	frame_unref(f);
	return sent;
}

static char receive(uint64_t now)
{
	int port;
	struct frame *f = wire_next(&net, now, &port);
	char mark = f ? (char)f->data[0] : 0;

	frame_unref(f);
	return mark;
}

static void test_delay(void **state)
{
	assert_int_equal(command("delay a b 5ms"), 0);
	assert_true(send_frame(0, 1, 'x', 1000, 77));
	assert_int_equal(wire_due_us(&net), 6000);
	assert_int_equal(receive(5999), 0);
	assert_int_equal(receive(6000), 'x');
	assert_int_equal(wire_due_us(&net), 0);
	assert_int_equal(net.link[0][1].passed, 1);
}

static void test_jitter_keeps_order(void **state)
{
	assert_int_equal(command("delay a b 5ms 1ms"), 0);
	assert_true(send_frame(0, 1, '1', 0, 2000)); /* the latest: 6 ms */
	assert_true(send_frame(0, 1, '2', 1, 0));    /* the earliest would be 4 ms: waits behind the first */
	assert_int_equal(wire_due_us(&net), 6000);
	assert_int_equal(receive(6000), '1');
	assert_int_equal(receive(6000), '2');
	for (uint64_t r = 0; r < 10000; r++) {
		uint64_t due;
		net.link[0][1].last_due_us = 0;
		assert_true(send_frame(0, 1, 'x', 100000, r));
		due = wire_due_us(&net);
		assert_in_range(due, 104000, 106000);
		assert_int_equal(receive(due), 'x');
	}
}

static void test_links_merge_in_time(void **state)
{
	assert_int_equal(command("delay a c 9ms"), 0);
	assert_int_equal(command("delay b c 2ms"), 0);
	assert_true(send_frame(0, 2, 's', 0, 0));
	assert_true(send_frame(1, 2, 'f', 1, 0));
	assert_int_equal(receive(20000), 'f');
	assert_int_equal(receive(20000), 's');
}

static void test_cut_and_heal(void **state)
{
	assert_int_equal(command("delay a b 5ms"), 0);
	assert_true(send_frame(0, 1, 'w', 0, 0));
	assert_int_equal(command("cut a b"), 0);
	assert_false(send_frame(0, 1, 'x', 1, 0));
	assert_false(send_frame(1, 0, 'x', 1, 0));
	assert_true(send_frame(0, 2, 'y', 1, 0));
	assert_int_equal(net.link[0][1].refused, 1);
	assert_int_equal(receive(9000), 'y');
	assert_int_equal(receive(9000), 'w'); /* was on the way already */
	assert_int_equal(command("heal a b"), 0);
	assert_true(send_frame(1, 0, 'z', 2, 0));
	assert_int_equal(receive(9000), 'z');
	assert_int_equal(command("cut a>b"), 0); /* one direction */
	assert_false(send_frame(0, 1, 'x', 1, 0));
	assert_true(send_frame(1, 0, 'z', 2, 0));
}

static void test_isolate(void **state)
{
	assert_int_equal(wire_site(&net, "floor-a", true), 3);
	assert_int_equal(command("isolate a except floor-a,nobody"), 0);
	assert_true(net.link[0][1].cut && net.link[1][0].cut && net.link[0][2].cut);
	assert_false(net.link[0][3].cut || net.link[3][0].cut || net.link[1][2].cut);
	assert_int_equal(command("heal-all"), 0);
	assert_false(net.link[0][1].cut || net.link[2][0].cut);
}

static void test_loss(void **state)
{
	int lost = 0;

	assert_int_equal(command("loss a b 25%"), 0);
	assert_int_equal(net.link[0][1].loss_ppm, 250000);
	for (uint64_t i = 0; i < 1000; i++)
		lost += !send_frame(0, 1, 'x', i, (i * 1000) << 32);
	assert_int_equal(lost, 250);
	assert_int_equal(net.link[0][1].lost, 250);
}

static void test_full(void **state)
{
	static char big[65536];
	struct frame *f = frame_new(big, sizeof big);
	unsigned sent = 0;

	for (int i = 0; i < 1000; i++)
		sent += wire_send(&net, 0, 1, 1, f, 0, 0);
	assert_int_equal(sent, WIRE_LINK_BYTES_MAX / sizeof big);
	assert_int_equal(net.link[0][1].overflowed, 1000 - sent);
	frame_unref(f);
	wire_net_done(&net);
	assert_int_equal(net.link[0][1].queued_bytes, 0);
	for (int i = 0; i < WIRE_LINK_FRAMES_MAX; i++)
		assert_true(send_frame(0, 1, 'x', 0, 0));
	assert_false(send_frame(0, 1, 'x', 0, 0));
}

static void test_refused_words(void **state)
{
	static const char *const bad[] = {"delay a b",
					  "delay a b 5",
					  "delay a b 5ms 1ms 1ms",
					  "delay a b -5ms",
					  "delay a b 61s",
					  "delay a b nan",
					  "loss a b 101%",
					  "loss a b 5",
					  "loss a b",
					  "cut a",
					  "cut",
					  "cut a b c",
					  "heal a",
					  "isolate nobody",
					  "isolate a except",
					  "cut a b/c",
					  "cut a 1234567890123456"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (command(bad[i]) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
	assert_int_equal(command("dance"), -ENOSYS);
	assert_false(net.link[0][1].cut);
	for (int i = 0; i < 40; i++) {
		char name[8];
		snprintf(name, sizeof name, "s%d", i);
		assert_int_equal(wire_site(&net, name, true), i + 3 < WIRE_SITES_MAX ? i + 3 : -ENOSPC);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_delay, fresh, drained),
		cmocka_unit_test_setup_teardown(test_jitter_keeps_order, fresh, drained),
		cmocka_unit_test_setup_teardown(test_links_merge_in_time, fresh, drained),
		cmocka_unit_test_setup_teardown(test_cut_and_heal, fresh, drained),
		cmocka_unit_test_setup_teardown(test_isolate, fresh, drained),
		cmocka_unit_test_setup_teardown(test_loss, fresh, drained),
		cmocka_unit_test_setup_teardown(test_full, fresh, drained),
		cmocka_unit_test_setup_teardown(test_refused_words, fresh, drained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
