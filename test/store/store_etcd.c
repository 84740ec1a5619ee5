/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance suite over a real etcd cluster of three with TLS, then faults: members are killed, the leader and the one in
 * use among them, frozen, powered off, or cut off from the others, while writers compare and swap and watchers follow through different members. After it:
 * every acknowledged write is there at the revision told, a counter raised by many is exactly the sum, and each watcher saw
 * each event once, in order. */
#include "cluster.h"
#include "conformance.h"

#define WRITERS	   3
#define WATCHERS   3
#define WRITES_MAX 20000
#define STEP_MS	   2200 /* a fault lasts */
#define REST_MS	   1300 /* between two */
#define RECOVER_MS 20000

static struct cluster cluster;

static struct store *open_store(int first, int64_t timeout_ms)
{
	struct store_options o = {.ca_file = cluster.ca,
				  .cert_file = cluster.cert,
				  .key_file = cluster.key,
				  .timeout_ms = timeout_ms};
	_cleanup_free_ char *uri = cluster_uri(&cluster, first);
	struct store *s;
	struct err e = {0};

	if (store_open(uri, &o, &s, &e) < 0) {
		fprintf(stderr, "%s: %s\n", uri, e.text);
		exit(1);
	}
	return s;
}

static int64_t newest(struct store *s)
{
	struct store_list l;
	struct err e = {0};
	int64_t rev;

	if (store_range(s, "/none/", NULL, 0, 0, &l, &e) < 0)
		fail_msg("%s", e.text);
	rev = l.rev;
	store_list_done(&l);
	return rev;
}

/* ---- writers ---- */

struct writer {
	pthread_t thread;
	struct store *s;
	int id;
	bool stop;
	int64_t rev[WRITES_MAX]; /* of each acknowledged write of /fault/w/ID/N; 0 = unknown outcome */
	int n;
	int counted, unknown; /* raises of the shared counter */
	uint64_t longest_ms;  /* between two successes */
	char wrong[200];
};

static int put_new(struct writer *w, const char *key, int64_t *ret_rev, struct err *e)
{
	struct store_cmp cmp = {.key = key};
	struct store_op op = {.type = STORE_PUT, .key = key, .value = key, .value_len = strlen(key)};

	return store_txn(w->s, &cmp, 1, &op, 1, ret_rev, e);
}

/* 1 = raised, 0 = another was first or nothing known, -1 = unknown outcome */
static int raise_counter(struct writer *w)
{
	struct store_cmp cmp = {.key = "/fault/counter"};
	struct store_op op = {.type = STORE_PUT, .key = cmp.key};
	struct store_kv kv;
	char text[24];
	int r;

	if (store_get(w->s, cmp.key, 0, &kv, NULL, NULL) < 0)
		return 0;
	cmp.mod_rev = kv.mod_rev;
	snprintf(text, sizeof(text), "%d", atoi(kv.value) + 1);
	store_kv_done(&kv);
	op.value = text;
	op.value_len = strlen(text);
	r = store_txn(w->s, &cmp, 1, &op, 1, NULL, NULL);
	return r == 0 ? 1 : r == -EEXIST ? 0 : -1;
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint64_t good = clock_ms();

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED) && w->n < WRITES_MAX) {
		struct err e = {0};
		char key[48];
		int64_t rev = 0;
		int r;

		snprintf(key, sizeof(key), "/fault/w/%d/%06d", w->id, w->n);
		r = put_new(w, key, &rev, &e);
		if (r == -EEXIST) /* the key is new, so this would be our own write taken for another's */
			snprintf(w->wrong, sizeof(w->wrong), "%s: conflict with nobody", key);
		w->rev[w->n++] = r == 0 ? rev : 0;
		if (r == 0) {
			w->longest_ms = MAX(w->longest_ms, clock_ms() - good);
			good = clock_ms();
		}
		r = raise_counter(w);
		w->counted += r > 0;
		w->unknown += r < 0;
	}
	return NULL;
}

/* ---- the faults ---- */

enum fault { KILL, FREEZE, POWER_OFF, CUT };

static void do_fault(uint64_t begin, enum fault f, int member, const char *who)
{
	static const char *const names[] = {"kill -9", "freeze", "power off", "cut off from the others"};

	if (member < 0 || (f == CUT && !cluster.apart))
		return;
	print_message("    %5.1f s  %s: m%d%s\n", (double)(clock_ms() - begin) / 1000, names[f], member, who);
	if (f == KILL)
		cluster_kill(&cluster, member);
	else if (f == FREEZE)
		cluster_freeze(&cluster, member, true);
	else if (f == POWER_OFF)
		cluster_power(&cluster, member, false);
	else
		cluster_cut(&cluster, member, true);
	usleep(STEP_MS * 1000);
	if (f == KILL)
		cluster_restart(&cluster, member);
	else if (f == FREEZE)
		cluster_freeze(&cluster, member, false);
	else if (f == POWER_OFF)
		cluster_power(&cluster, member, true);
	else
		cluster_cut(&cluster, member, false);
	usleep(REST_MS * 1000);
}

static void run_faults(void)
{
	uint64_t begin = clock_ms();

	usleep(REST_MS * 1000);
	do_fault(begin, KILL, 0, ""); /* the first writer's and watcher's own */
	do_fault(begin, KILL, cluster_leader(&cluster), ", the leader");
	do_fault(begin, FREEZE, cluster_leader(&cluster), ", the leader");
	do_fault(begin, POWER_OFF, cluster_leader(&cluster), ", the leader");
	do_fault(begin, POWER_OFF, 1, "");
	do_fault(begin, CUT, cluster_leader(&cluster), ", the leader");
	do_fault(begin, CUT, 2, "");
}

/* ---- after them ---- */

static void check_writes(struct store *s, const struct writer *w, int64_t *ret_writes)
{
	struct store_list l;
	struct err e = {0};
	char prefix[32];
	size_t at = 0;

	snprintf(prefix, sizeof(prefix), "/fault/w/%d/", w->id);
	if (store_range(s, prefix, NULL, 0, 0, &l, &e) < 0)
		fail_msg("%s", e.text);
	for (int i = 0; i < w->n; i++) {
		bool there = at < l.n && atoi(l.kv[at].key + strlen(prefix)) == i;

		if (w->rev[i] && !there)
			fail_msg("acknowledged write %s%06d is lost", prefix, i);
		if (w->rev[i] && l.kv[at].mod_rev != w->rev[i])
			fail_msg("%s: at %lld, told %lld", l.kv[at].key, (long long)l.kv[at].mod_rev,
				 (long long)w->rev[i]);
		*ret_writes += w->rev[i] != 0;
		at += there;
	}
	assert_int_equal(at, l.n);
	store_list_done(&l);
}

/* All watchers against a replay of the whole history from the first revision on. */
static void check_watchers(struct store *s, struct recorder *watch, int64_t from)
{
	struct recorder replay;
	int64_t end = newest(s);

	recorder_start(&replay, s, "/fault/", from);
	recorder_wait_progress(&replay, end, RECOVER_MS);
	recorder_stop(&replay);
	for (int i = 0; i < WATCHERS; i++) {
		recorder_wait_progress(&watch[i], end, RECOVER_MS);
		recorder_stop(&watch[i]);
		assert_int_equal(watch[i].ended, 0);
		assert_int_equal(watch[i].n, replay.n);
		for (size_t j = 0; j < replay.n; j++) {
			assert_int_equal(watch[i].seen[j].rev, replay.seen[j].rev);
			assert_string_equal(watch[i].seen[j].key, replay.seen[j].key);
		}
		recorder_done(&watch[i]);
	}
	print_message("    %zu events, each seen once by %d watchers\n", replay.n, WATCHERS);
	recorder_done(&replay);
}

static void test_faults(void **state)
{
	static struct writer w[WRITERS];
	struct recorder watch[WATCHERS];
	struct store *s[MAX(WRITERS, WATCHERS)];
	struct store_op zero = {.type = STORE_PUT, .key = "/fault/counter", .value = "0", .value_len = 1};
	int64_t from, writes = 0;
	int counted = 0, unknown = 0, value;
	struct store_kv kv;

	for (int i = 0; i < WRITERS; i++)
		s[i] = open_store(i, 8000);
	from = newest(s[0]) + 1;
	assert_int_equal(store_txn(s[0], NULL, 0, &zero, 1, NULL, NULL), 0);
	for (int i = 0; i < WATCHERS; i++)
		recorder_start(&watch[i], s[i], "/fault/", from);
	for (int i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){.s = s[i], .id = i};
		pthread_create(&w[i].thread, NULL, writer_main, &w[i]);
	}
	run_faults();
	for (int i = 0; i < WRITERS; i++)
		__atomic_store_n(&w[i].stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(w[i].thread, NULL);
		if (*w[i].wrong)
			fail_msg("%s", w[i].wrong);
		check_writes(s[i], &w[i], &writes);
		counted += w[i].counted;
		unknown += w[i].unknown;
		print_message("    writer %d: %d writes, longest pause %llu ms\n", i, w[i].n,
			      (unsigned long long)w[i].longest_ms);
	}
	assert_int_equal(store_get(s[0], "/fault/counter", 0, &kv, NULL, NULL), 0);
	value = atoi(kv.value);
	store_kv_done(&kv);
	print_message("    %lld writes acknowledged; counter %d, raised %d, unknown %d\n", (long long)writes,
		      value, counted, unknown);
	assert_in_range(value, counted, counted + unknown);
	assert_true(writes > 200);
	check_watchers(s[0], watch, from);
	for (int i = 0; i < WRITERS; i++)
		store_free(s[i]);
}

/* Two of three silent: calls end by their deadline, nothing is acknowledged, and it goes on when they are back. */
static void test_no_quorum(void **state)
{
	struct store *s = open_store(0, 2000);
	struct store_op op = {.type = STORE_PUT, .key = "/quorum/a", .value = "1", .value_len = 1};
	struct recorder r;
	struct store_kv kv;
	uint64_t begin;
	int64_t rev;
	int result;

	recorder_start(&r, s, "/quorum/", newest(s) + 1);
	cluster_freeze(&cluster, 1, true);
	cluster_freeze(&cluster, 2, true);
	begin = clock_ms();
	assert_int_equal(store_txn(s, NULL, 0, &op, 1, &rev, NULL), -ETIMEDOUT);
	assert_int_equal(store_get(s, "/quorum/a", 0, &kv, NULL, NULL), -ETIMEDOUT);
	assert_true(clock_ms() - begin < 6000);
	cluster_freeze(&cluster, 1, false);
	cluster_freeze(&cluster, 2, false);
	op.key = "/quorum/b";
	begin = clock_ms();
	while ((result = store_txn(s, NULL, 0, &op, 1, &rev, NULL)) < 0 && clock_ms() - begin < RECOVER_MS)
		;
	assert_int_equal(result, 0);
	recorder_wait_progress(&r, rev, RECOVER_MS);
	recorder_stop(&r);
	assert_string_equal(r.seen[r.n - 1].key, "/quorum/b");
	recorder_done(&r);
	store_free(s);
}

/* All members come back without their data: a watch would wait for revisions that may come in years, and misses what is written meanwhile. */
static void test_data_lost(void **state)
{
	struct store *s = open_store(0, 8000);
	struct store_op op = {.type = STORE_PUT, .key = "/lost/a", .value = "1", .value_len = 1};
	struct recorder r;
	int64_t before = newest(s), rev;

	recorder_start(&r, s, "/lost/", before + 1);
	recorder_wait_progress(&r, before, RECOVER_MS);
	assert_int_equal(store_compact(s, before - 1, NULL),
			 0); /* which says nothing of the revisions of the next store */
	for (int i = 0; i < CLUSTER_MEMBERS; i++)
		cluster_kill(&cluster, i);
	for (int i = 0; i < CLUSTER_MEMBERS; i++)
		cluster_lose(&cluster, i);
	for (int i = 0; i < CLUSTER_MEMBERS; i++)
		cluster_restart(&cluster, i);
	assert_int_equal(recorder_wait_ended(&r, RECOVER_MS), -ESTALE);
	recorder_stop(&r);
	recorder_done(&r);
	rev = newest(s);
	assert_true(rev < before);
	recorder_start(&r, s, "/lost/", rev + 1);
	assert_int_equal(store_txn(s, NULL, 0, &op, 1, NULL, NULL), 0);
	recorder_wait_events(&r, 1, RECOVER_MS);
	recorder_stop(&r);
	assert_int_equal(r.ended, 0);
	recorder_done(&r);
	store_free(s);
}

static void test_uris(void **state)
{
	struct store *s;

	assert_int_equal(store_open("etcd:", NULL, &s, NULL), -EINVAL);
	assert_int_equal(store_open("etcd:127.0.0.1:1", NULL, &s, NULL), -EINVAL);
	assert_int_equal(store_open("etcd:https://a:1,http://b:1", NULL, &s, NULL), -EINVAL);
	assert_int_equal(store_open("etcd:https://a:0", NULL, &s, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest faults[] = {
		cmocka_unit_test(test_uris), cmocka_unit_test(test_faults), cmocka_unit_test(test_no_quorum),
		cmocka_unit_test(test_data_lost), /* the last one */
	};
	struct store *s;
	int bad;

	if (!cluster_start(&cluster))
		return 1;
	s = open_store(0, 0);
	bad = conformance_run("etcd", s);
	store_free(s);
	bad += cmocka_run_group_tests_name("etcd faults", faults, NULL, NULL);
	cluster_stop(&cluster);
	return bad != 0;
}
