/* SPDX-License-Identifier: Apache-2.0 */
/* io: child processes (output, limits, time-out, missing program) and the mailbox from other threads. */
#include "test.h"
#include "io/io.h"

static void proc_output(void **state)
{
	_cleanup_free_ char *out = NULL, *err = NULL;
	struct proc_options o = {.argv = (const char *[]){"sh", "-c", "cat; echo bad >&2; exit 3", NULL},
				 .input = "in"};

	(void)state;
	assert_int_equal(proc_run_wait(&o, &out, &err), 3);
	assert_string_equal(out, "in");
	assert_string_equal(err, "bad\n");
}

static void proc_limits(void **state)
{
	_cleanup_free_ char *out = NULL;
	struct proc_options big = {.argv = (const char *[]){"head", "-c", "300000", "/dev/zero", NULL},
				   .out_limit = 1000};
	struct proc_options slow = {.argv = (const char *[]){"sleep", "30", NULL}, .timeout_ms = 50};
	struct proc_options none = {.argv = (const char *[]){"/no/such/program", NULL}};

	(void)state;
	assert_int_equal(proc_run_wait(&big, NULL, NULL), 0);
	assert_int_equal(proc_run_wait(&slow, NULL, NULL), -ETIMEDOUT);
	assert_int_equal(proc_run_wait(&none, NULL, &out), -ENOENT);
	assert_non_null(strstr(out, "/no/such/program"));
}

static void proc_pipe_kept_open(void **state)
{
	struct proc_options o = {.argv = (const char *[]){"sh", "-c", "sleep 5 & exit 0", NULL}};
	uint64_t start = clock_ms();

	(void)state;
	assert_int_equal(proc_run_wait(&o, NULL, NULL), 0);
	assert_true(clock_ms() - start < 4000);
}

struct count {
	struct mailbox *box;
	int next[2];
	bool in_order;
	int sum;
};

struct letter {
	struct count *c;
	int from, number;
};

static void on_letter(void *arg)
{
	struct letter *l = arg;

	if (l->c->next[l->from]++ != l->number)
		l->c->in_order = false;
	if (++l->c->sum == 2000)
		mailbox_close(l->c->box);
	free(l);
}

static void send_letters(struct count *c, int from)
{
	for (int i = 0; i < 1000; i++) {
		struct letter *l = xcalloc(1, sizeof(*l));

		*l = (struct letter){c, from, i};
		assert_int_equal(mailbox_post(c->box, on_letter, l), 0);
	}
}

static void thread_0(void *arg)
{
	send_letters(arg, 0);
}

static void thread_1(void *arg)
{
	send_letters(arg, 1);
}

static void mailbox_threads(void **state)
{
	struct count c = {.in_order = true};
	uv_thread_t t[2];
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	c.box = mailbox_new(&loop);
	uv_thread_create(&t[0], thread_0, &c);
	uv_thread_create(&t[1], thread_1, &c);
	uv_thread_join(&t[0]);
	uv_thread_join(&t[1]);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(c.sum, 2000);
	assert_true(c.in_order);
	assert_int_equal(uv_loop_close(&loop), 0);
}

TEST_MAIN(cmocka_unit_test(proc_output), cmocka_unit_test(proc_limits), cmocka_unit_test(proc_pipe_kept_open),
	  cmocka_unit_test(mailbox_threads))
