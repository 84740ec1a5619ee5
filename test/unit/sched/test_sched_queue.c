/* SPDX-License-Identifier: Apache-2.0 */
/* Order, back-off and updates of waiting pods; the histogram. */
#include "test.h"

#include "sched/internal.h"

static json_t *pod(const char *name, int priority, const char *message)
{
	return json_pack("{s:{s:s, s:s, s:s}, s:{s:i}, s:{s:s}}", "metadata", "namespace", "default", "name",
			 name, "uid", name, "spec", "priority", priority, "status", "message", message);
}

static struct pending *pending(const char *name, int priority, uint64_t seen_us)
{
	_cleanup_json_ json_t *o = pod(name, priority, "");
	struct pending *p = sched_pending_new(name, o);

	p->seen_us = seen_us;
	return p;
}

static void order(void **state)
{
	struct pending *list[] = {pending("late", 0, 20), pending("early", 0, 10),
				  pending("urgent", 1000, 30), pending("also-early", 0, 10)};
	static const char *const want[] = {"urgent", "also-early", "early", "late"};

	(void)state;
	qsort(list, ARRAY_SIZE(list), sizeof(list[0]), sched_pending_compare);
	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		assert_string_equal(list[i]->key, want[i]);
		sched_pending_free(list[i]);
	}
}

static void backoff(void **state)
{
	(void)state;
	assert_int_equal(sched_pending_backoff_ms(1), BACKOFF_FIRST_MS);
	assert_int_equal(sched_pending_backoff_ms(2), 2 * BACKOFF_FIRST_MS);
	for (unsigned i = 1; i < 200; i++) {
		assert_true(sched_pending_backoff_ms(i) <= sched_pending_backoff_ms(i + 1));
		assert_true(sched_pending_backoff_ms(i) <= BACKOFF_MAX_MS);
	}
	assert_int_equal(sched_pending_backoff_ms(200), BACKOFF_MAX_MS);
}

/* A status written by ourselves does not try the pod again; a new spec does, at once. */
static void updates(void **state)
{
	struct pending *p = pending("x", 0, 1);
	_cleanup_json_ json_t *told = pod("x", 0, "told"), *changed = pod("x", 7, "told");

	(void)state;
	p->waiting = true;
	p->not_before_ms = 1000;
	sched_pending_update(p, told);
	assert_true(p->waiting);
	assert_int_equal(p->not_before_ms, 1000);
	assert_string_equal(js_str(p->pod, "status.message"), "told");
	sched_pending_update(p, changed);
	assert_false(p->waiting);
	assert_int_equal(p->not_before_ms, 0);
	assert_int_equal(p->compiled->priority, 7);
	sched_pending_free(p);
}

static void figures(void **state)
{
	struct metrics m = {.scheduled = 3};
	_cleanup_buf_ struct buf out = {0};

	(void)state;
	sched_histogram_add(&m.bound, 0.004);
	sched_histogram_add(&m.bound, 100);
	sched_metrics(&m, true, 1, 2, 3, &out);
	assert_non_null(strstr(out.data, "kuayu_scheduler_leader 1\n"));
	assert_non_null(strstr(out.data, "kuayu_scheduler_pod_seconds_bucket{le=\"0.0025\"} 0\n"));
	assert_non_null(strstr(out.data, "kuayu_scheduler_pod_seconds_bucket{le=\"0.005\"} 1\n"));
	assert_non_null(strstr(out.data, "kuayu_scheduler_pod_seconds_bucket{le=\"10\"} 1\n"));
	assert_non_null(strstr(out.data, "kuayu_scheduler_pod_seconds_bucket{le=\"+Inf\"} 2\n"));
	assert_non_null(strstr(out.data, "result=\"scheduled\"} 3\n"));
}

TEST_MAIN(cmocka_unit_test(order), cmocka_unit_test(backoff), cmocka_unit_test(updates),
	  cmocka_unit_test(figures))
