/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance suite over the memory store and over SQLite, and what only SQLite has: a file that is there after a
 * restart or a kill -9, one process at a time, bounded history. */
#include <signal.h>
#include <sys/wait.h>

#include "conformance.h"

static char dir[64];

static struct store *open_or_die(const char *uri)
{
	struct store *s;
	struct err e = {0};

	if (store_open(uri, NULL, &s, &e) < 0) {
		fprintf(stderr, "%s: %s\n", uri, e.text);
		exit(1);
	}
	return s;
}

static char *uri_of(const char *file)
{
	return xasprintf("sqlite:%s/%s", dir, file);
}

static int put(struct store *s, const char *key, int64_t lease, int64_t *ret_rev)
{
	struct store_op op = {.type = STORE_PUT, .key = key, .value = "v", .value_len = 1, .lease = lease};

	return store_txn(s, NULL, 0, &op, 1, ret_rev, NULL);
}

static void test_uris(void **state)
{
	struct store *s;
	struct err e = {0};

	assert_int_equal(store_open("mem:x", NULL, &s, &e), -EINVAL);
	assert_int_equal(store_open("sqlite:", NULL, &s, &e), -EINVAL);
	assert_int_equal(store_open("what:ever", NULL, &s, &e), -EINVAL);
	assert_true(store_open("sqlite:/proc/none/x", NULL, &s, &e) < 0);
	assert_non_null(strstr(e.text, "/proc/none/x"));
}

static void test_sqlite_restart(void **state)
{
	_cleanup_free_ char *uri = uri_of("restart.db");
	struct store *s = open_or_die(uri), *other;
	struct store_kv kv;
	struct recorder r;
	int64_t id, one, rev;

	assert_int_equal(store_open(uri, NULL, &other, NULL), -EBUSY);
	assert_int_equal(store_lease_grant(s, 1, &id, NULL), 0);
	assert_int_equal(put(s, "/a", 0, &one), 0);
	assert_int_equal(put(s, "/leased", id, &rev), 0);
	assert_int_equal(put(s, "/a", 0, &rev), 0);
	store_free(s);

	s = open_or_die(uri);
	assert_int_equal(store_get(s, "/a", 0, &kv, NULL, NULL), 0);
	assert_int_equal(kv.version, 2);
	assert_int_equal(kv.mod_rev, rev);
	store_kv_done(&kv);
	recorder_start(&r, s, "/", one); /* history is still there, and the lease's end comes on top */
	recorder_wait_events(&r, 4, 10000);
	recorder_stop(&r);
	assert_int_equal(r.seen[3].type, STORE_EVENT_DELETE);
	assert_string_equal(r.seen[3].key, "/leased");
	recorder_done(&r);
	store_free(s);
}

/* A child writes and says each acknowledged number through a pipe; it is killed in the middle. */
static void test_sqlite_kill(void **state)
{
	_cleanup_free_ char *uri = uri_of("kill.db");
	struct store *s;
	int said[2], n, last = -1;
	pid_t child;

	assert_int_equal(pipe(said), 0);
	child = fork();
	if (child == 0) {
		s = open_or_die(uri);
		for (int i = 0;; i++) {
			char key[32];

			snprintf(key, sizeof(key), "/k/%06d", i);
			if (put(s, key, 0, NULL) < 0 || write(said[1], &i, sizeof(i)) != sizeof(i))
				_exit(1);
		}
	}
	close(said[1]);
	while (read(said[0], &n, sizeof(n)) == sizeof(n)) {
		last = n;
		if (last == 200)
			kill(child, SIGKILL);
	}
	close(said[0]);
	waitpid(child, &n, 0);
	assert_true(last >= 200);

	struct store_list l;

	s = open_or_die(uri);
	assert_int_equal(store_range(s, "/k/", NULL, 0, 0, &l, NULL), 0);
	assert_true(l.n == (size_t)last + 1 || l.n == (size_t)last + 2); /* one may not have been said */
	assert_int_equal(atoi(l.kv[l.n - 1].key + 3), l.n - 1);
	store_list_done(&l);
	store_free(s);
}

/* History stays bounded by itself, and a watch from before it is told so. */
static void bounded_history(const char *uri)
{
	struct store *s = open_or_die(uri);
	struct store_list l;
	struct recorder r;
	int64_t rev = 0;

	for (int i = 0; i < 10000; i++)
		assert_int_equal(put(s, i % 2 ? "/h/a" : "/h/b", 0, &rev), 0);
	assert_int_equal(store_range(s, "/h/", NULL, 0, 2, &l, NULL), -ESTALE);
	recorder_start(&r, s, "/h/", 2);
	assert_int_equal(recorder_wait_ended(&r, 10000), -ESTALE);
	recorder_done(&r);
	recorder_start(&r, s, "/h/", rev - 8000);
	recorder_wait_events(&r, 8001, 10000);
	recorder_done(&r);
	store_free(s);
}

static void test_bounded_history(void **state)
{
	_cleanup_free_ char *uri = uri_of("bounded.db");

	bounded_history("mem:");
	bounded_history(uri);
}

static int run_memory(void)
{
	struct store *s = open_or_die("mem:");
	int bad = conformance_run("memory", s);

	store_free(s);
	return bad;
}

static int run_sqlite(void)
{
	const struct CMUnitTest own[] = {
		cmocka_unit_test(test_uris),
		cmocka_unit_test(test_sqlite_restart),
		cmocka_unit_test(test_sqlite_kill),
		cmocka_unit_test(test_bounded_history),
	};
	_cleanup_free_ char *uri = NULL;
	struct store *s;
	int bad;

	/* ten thousand commits with fsync: in memory where that is possible */
	snprintf(dir, sizeof(dir), "%s/kuayu-store-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(dir))
		return 1;
	uri = uri_of("conformance.db");
	s = open_or_die(uri);
	bad = conformance_run("sqlite", s);
	store_free(s);
	bad += cmocka_run_group_tests_name("local stores", own, NULL, NULL);
	dir_remove(dir, NULL);
	return bad;
}

/* Which one: memory or sqlite. */
int main(int argc, char **argv)
{
	return (argc == 2 && streq(argv[1], "memory") ? run_memory() : run_sqlite()) != 0;
}
