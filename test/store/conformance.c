/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance: what src/store/store.h promises, asked of any store. Each test uses a prefix of its own, so all share one
 * store; the counts of threads and turns are small enough for an etcd with real fsync. */
#include "conformance.h"

#define WAIT_MS	  10000
#define WRITERS	  4
#define PUTS	  60
#define COUNTS	  30
#define MODEL_OPS 300

static struct store *store;

/* ---- short forms ---- */

static int64_t put_cmp(const char *key, const char *value, const struct store_cmp *cmp, int *ret)
{
	struct store_op op = {.type = STORE_PUT, .key = key, .value = value, .value_len = strlen(value)};
	struct err e = {0};
	int64_t rev = 0;
	int r = store_txn(store, cmp, cmp ? 1 : 0, &op, 1, &rev, &e);

	if (ret)
		*ret = r;
	else if (r < 0)
		fail_msg("put %s: %s", key, e.text);
	return rev;
}

static int64_t put(const char *key, const char *value)
{
	return put_cmp(key, value, NULL, NULL);
}

static int64_t del(const char *key)
{
	struct store_op op = {.type = STORE_DELETE, .key = key};
	struct err e = {0};
	int64_t rev = 0;

	if (store_txn(store, NULL, 0, &op, 1, &rev, &e) < 0)
		fail_msg("delete %s: %s", key, e.text);
	return rev;
}

/* The value at rev; NULL = not there. Caller frees. */
static char *value_at(const char *key, int64_t rev)
{
	struct store_kv kv;
	struct err e = {0};
	char *v;
	int r = store_get(store, key, rev, &kv, NULL, &e);

	if (r == -ENOENT)
		return NULL;
	if (r < 0)
		fail_msg("get %s: %s", key, e.text);
	v = xstrdup(kv.value);
	store_kv_done(&kv);
	return v;
}

static void check_value(const char *key, int64_t rev, const char *want)
{
	_cleanup_free_ char *v = value_at(key, rev);

	if (!streq(v, want))
		fail_msg("%s at %lld is '%s', not '%s'", key, (long long)rev, v ? v : "(none)",
			 want ? want : "(none)");
}

static int64_t current(void)
{
	struct store_list l;
	int64_t rev;

	assert_int_equal(store_range(store, "/none/", NULL, 0, 0, &l, NULL), 0);
	rev = l.rev;
	store_list_done(&l);
	return rev;
}

/* ---- keys and values ---- */

static void test_crud(void **state)
{
	static const char binary[] = {'a', 0, 'b', (char)0xff, 0};
	struct store_op op = {
		.type = STORE_PUT, .key = "/crud/bin", .value = binary, .value_len = sizeof(binary)};
	struct store_kv kv;
	int64_t one, two, gone, at;

	assert_int_equal(store_get(store, "/crud/a", 0, &kv, NULL, NULL), -ENOENT);
	one = put("/crud/a", "1");
	two = put("/crud/a", "22");
	assert_true(two > one);
	assert_int_equal(store_get(store, "/crud/a", 0, &kv, &at, NULL), 0);
	assert_string_equal(kv.key, "/crud/a");
	assert_string_equal(kv.value, "22");
	assert_int_equal(kv.value_len, 2);
	assert_int_equal(kv.create_rev, one);
	assert_int_equal(kv.mod_rev, two);
	assert_int_equal(kv.version, 2);
	assert_int_equal(kv.lease, 0);
	assert_true(at >= two);
	store_kv_done(&kv);

	gone = del("/crud/a");
	assert_true(gone > two);
	check_value("/crud/a", 0, NULL);
	check_value("/crud/a", one, "1");
	check_value("/crud/a", two, "22");
	check_value("/crud/a", gone, NULL);
	put("/crud/a", "");
	assert_int_equal(store_get(store, "/crud/a", 0, &kv, NULL, NULL), 0);
	assert_int_equal(kv.version, 1);
	assert_int_equal(kv.value_len, 0);
	assert_string_equal(kv.value, "");
	store_kv_done(&kv);

	assert_int_equal(store_txn(store, NULL, 0, &op, 1, NULL, NULL), 0);
	assert_int_equal(store_get(store, "/crud/bin", 0, &kv, NULL, NULL), 0);
	assert_int_equal(kv.value_len, sizeof(binary));
	assert_memory_equal(kv.value, binary, sizeof(binary));
	store_kv_done(&kv);
}

static void test_cas(void **state)
{
	struct store_cmp absent = {.key = "/cas/a"}, at = {.key = "/cas/a"};
	struct store_cmp both[2] = {{.key = "/cas/a"}, {.key = "/cas/b"}};
	struct store_op ops[3] = {{.type = STORE_PUT, .key = "/cas/b", .value = "B", .value_len = 1},
				  {.type = STORE_PUT, .key = "/cas/c", .value = "C", .value_len = 1},
				  {.type = STORE_DELETE, .key = "/cas/a"}};
	int64_t rev, before;
	struct store_list l;
	int r;

	at.mod_rev = put_cmp("/cas/a", "1", &absent, &r);
	assert_int_equal(r, 0);
	put_cmp("/cas/a", "x", &absent, &r);
	assert_int_equal(r, -EEXIST);
	both[0].mod_rev = put_cmp("/cas/a", "2", &at, &r);
	assert_int_equal(r, 0);
	put_cmp("/cas/a", "x", &at, &r);
	assert_int_equal(r, -EEXIST);
	check_value("/cas/a", 0, "2");

	/* one of two compares fails: nothing is done, and no revision passes */
	before = current();
	both[1].mod_rev = before;
	assert_int_equal(store_txn(store, both, 2, ops, 3, &rev, NULL), -EEXIST);
	assert_int_equal(current(), before);
	check_value("/cas/b", 0, NULL);
	both[1].mod_rev = 0;
	assert_int_equal(store_txn(store, both, 2, ops, 3, &rev, NULL), 0);
	assert_int_equal(rev, before + 1);
	assert_int_equal(store_range(store, "/cas/", NULL, 0, 0, &l, NULL), 0);
	assert_int_equal(l.n, 2);
	assert_int_equal(l.kv[0].mod_rev, rev);
	assert_int_equal(l.kv[1].mod_rev, rev);
	store_list_done(&l);
	/* a compare with a key that is gone fails */
	put_cmp("/cas/a", "x", &both[0], &r);
	assert_int_equal(r, -EEXIST);
}

/* May pass a revision, but without an event. */
static void test_delete_nothing(void **state)
{
	int64_t before = put("/nothing/a", "1"), after;
	struct recorder r;

	recorder_start(&r, store, "/nothing/", before + 1);
	after = del("/nothing/none");
	assert_in_range(after, before, before + 1);
	assert_int_equal(current(), after);
	recorder_wait_progress(&r, after, WAIT_MS);
	recorder_stop(&r);
	assert_int_equal(r.n, 0);
	recorder_done(&r);
}

static void check_range(const char *begin, const char *end, size_t limit, int64_t rev, size_t n,
			int64_t count, const char *first)
{
	struct store_list l;
	struct err e = {0};

	if (store_range(store, begin, end, limit, rev, &l, &e) < 0)
		fail_msg("range %s: %s", begin, e.text);
	if (l.n != n || l.count != count || l.more != (l.count > (int64_t)l.n))
		fail_msg("range %s limit %zu: n %zu, count %lld, more %d", begin, limit, l.n,
			 (long long)l.count, l.more);
	for (size_t i = 1; i < l.n; i++)
		assert_true(strcmp(l.kv[i - 1].key, l.kv[i].key) < 0);
	if (first)
		assert_string_equal(l.kv[0].key, first);
	store_list_done(&l);
}

static void test_range(void **state)
{
	int64_t before = current(), all;
	char key[64];

	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "/range/a/%02d", i);
		put(key, key);
	}
	put("/range/a", "short");
	put("/range/a0", "behind");
	put("/range/\xff", "high");
	all = put("/range/\xff\xff", "higher");
	check_range("/range/", NULL, 0, 0, 24, 24, "/range/a");
	check_range("/range/a/", NULL, 0, 0, 20, 20, "/range/a/00");
	check_range("/range/a/", NULL, 5, 0, 5, 20, "/range/a/00");
	check_range("/range/a/", NULL, 20, 0, 20, 20, "/range/a/00");
	check_range("/range/a/05", "/range/a/10", 0, 0, 5, 5, "/range/a/05");
	check_range("/range/a/05", "/range/a/10", 2, 0, 2, 5, "/range/a/05");
	check_range("/range/\xff", NULL, 0, 0, 2, 2, "/range/\xff");
	check_range("/range/b", "/range/a", 0, 0, 0, 0, NULL);
	check_range("/range/", NULL, 0, before, 0, 0, NULL);
	del("/range/a/00");
	put("/range/a/new", "");
	check_range("/range/a/", NULL, 3, all, 3, 20, "/range/a/00");
	check_range("/range/a/", NULL, 3, 0, 3, 20, "/range/a/01");
	check_range("/range/a/", NULL, 0, all + 1, 19, 19, "/range/a/01");
}

static void test_revisions(void **state)
{
	struct store_list l;
	int64_t last = current();

	for (int i = 0; i < 20; i++) {
		int64_t rev = i % 3 == 2 ? del("/rev/a") : put("/rev/a", "x");

		assert_int_equal(rev, last + 1);
		last = rev;
	}
	assert_int_equal(current(), last);
	assert_int_equal(store_range(store, "/rev/", NULL, 0, last + 1000, &l, NULL), -EINVAL);
}

/* All keys of a small set against a plain array, through creates, updates and deletes. */
static void test_model(void **state)
{
	char want[16][16] = {0};
	unsigned seed = 4711;

	for (int i = 0; i < MODEL_OPS; i++) {
		unsigned k = (seed = seed * 1103515245 + 12345) >> 16 & 15;
		char key[32];

		snprintf(key, sizeof(key), "/model/%02u", k);
		if ((seed >> 8 & 3) == 0) {
			del(key);
			want[k][0] = 0;
		} else {
			snprintf(want[k], sizeof(want[k]), "v%d", i);
			put(key, want[k]);
		}
		if (i % 25 == 0) {
			struct store_list l;
			size_t n = 0;

			assert_int_equal(store_range(store, "/model/", NULL, 0, 0, &l, NULL), 0);
			for (size_t j = 0; j < 16; j++) {
				if (!want[j][0])
					continue;
				assert_true(n < l.n);
				assert_int_equal(atoi(l.kv[n].key + 7), j);
				assert_string_equal(l.kv[n++].value, want[j]);
			}
			assert_int_equal(n, l.n);
			store_list_done(&l);
		}
	}
}

/* ---- watches ---- */

struct writer {
	pthread_t thread;
	int id;
	int64_t revs[PUTS];
};

static void *write_many(void *arg)
{
	struct writer *w = arg;

	for (int i = 0; i < PUTS; i++) {
		char key[32], value[32];

		snprintf(key, sizeof(key), "/order/%d/%d", w->id, i % 7);
		snprintf(value, sizeof(value), "%d", i);
		w->revs[i] = put(key, value);
	}
	return NULL;
}

static int compare_i64(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void test_watch_order(void **state)
{
	struct writer w[WRITERS] = {0};
	struct recorder all, one, slow;
	int64_t from = current() + 1, revs[WRITERS * PUTS];

	recorder_start(&all, store, "/order/", from);
	recorder_start(&one, store, "/order/1/", from);
	recorder_start_slow(&slow, store, "/order/", from, 2000);
	for (int i = 0; i < WRITERS; i++) {
		w[i].id = i;
		pthread_create(&w[i].thread, NULL, write_many, &w[i]);
	}
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(w[i].thread, NULL);
		memcpy(&revs[i * PUTS], w[i].revs, sizeof(w[i].revs));
	}
	recorder_wait_events(&all, WRITERS * PUTS, WAIT_MS);
	recorder_wait_events(&one, PUTS, WAIT_MS);
	recorder_wait_events(&slow, WRITERS * PUTS, WAIT_MS);
	usleep(50000);
	recorder_stop(&all);
	recorder_stop(&one);
	recorder_stop(&slow);
	assert_int_equal(all.n, WRITERS * PUTS);
	assert_int_equal(one.n, PUTS);
	assert_int_equal(slow.n, WRITERS * PUTS);
	qsort(revs, WRITERS * PUTS, sizeof(revs[0]), compare_i64);
	for (size_t i = 0; i < all.n; i++) {
		assert_int_equal(all.seen[i].rev, revs[i]);
		assert_int_equal(slow.seen[i].rev, revs[i]);
	}
	recorder_done(&all);
	recorder_done(&one);
	recorder_done(&slow);
}

static void test_watch_old(void **state)
{
	int64_t one = put("/old/a", "1"), two, three, four;
	struct recorder r;

	two = put("/old/a", "2");
	put("/other/a", "x");
	three = del("/old/a");
	four = put("/old/b", "b");
	recorder_start(&r, store, "/old/", one);
	recorder_wait_events(&r, 4, WAIT_MS);
	put("/old/c", "new");
	recorder_wait_events(&r, 5, WAIT_MS);
	recorder_stop(&r);
	assert_int_equal(r.n, 5);
	assert_int_equal(r.seen[0].rev, one);
	assert_null(r.seen[0].prev);
	assert_int_equal(r.seen[1].rev, two);
	assert_string_equal(r.seen[1].prev, "1");
	assert_int_equal(r.seen[1].prev_rev, one);
	assert_int_equal(r.seen[2].rev, three);
	assert_int_equal(r.seen[2].type, STORE_EVENT_DELETE);
	assert_string_equal(r.seen[2].prev, "2");
	assert_int_equal(r.seen[3].rev, four);
	assert_string_equal(r.seen[4].value, "new");
	recorder_done(&r);

	recorder_start(&r, store, "/old/", two + 1);
	recorder_wait_events(&r, 3, WAIT_MS);
	recorder_stop(&r);
	assert_int_equal(r.seen[0].rev, three);
	recorder_done(&r);
}

/* A transaction's events come in one call (the recorder checks) and in a start in the future only what is due. */
static void test_watch_txn(void **state)
{
	struct store_op ops[8];
	char keys[8][32];
	struct recorder r, later;
	int64_t now = current(), rev;

	recorder_start(&r, store, "/txn/", now + 1);
	recorder_start(&later, store, "/txn/", now + 2);
	for (int i = 0; i < 8; i++) {
		snprintf(keys[i], sizeof(keys[i]), "/txn/%d", i);
		ops[i] = (struct store_op){.type = STORE_PUT, .key = keys[i], .value = "v", .value_len = 1};
	}
	assert_int_equal(store_txn(store, NULL, 0, ops, 8, &rev, NULL), 0);
	assert_int_equal(rev, now + 1);
	rev = put("/txn/last", "x");
	recorder_wait_events(&r, 9, WAIT_MS);
	recorder_wait_events(&later, 1, WAIT_MS);
	recorder_stop(&r);
	recorder_stop(&later);
	assert_int_equal(r.n, 9);
	assert_int_equal(later.n, 1);
	assert_int_equal(later.seen[0].rev, rev);
	recorder_done(&r);
	recorder_done(&later);
}

static void test_watch_progress(void **state)
{
	struct recorder r;
	int64_t rev;

	recorder_start(&r, store, "/idle/", current() + 1);
	rev = put("/busy/a", "1");
	recorder_wait_progress(&r, rev, WAIT_MS);
	for (int i = 0; i < 20; i++) {
		rev = put("/busy/a", "2");
		recorder_wait_progress(&r, rev, WAIT_MS);
	}
	put("/idle/a", "1");
	recorder_wait_events(&r, 1, WAIT_MS);
	recorder_done(&r);
}

/* Watches come and go while others follow; freeing one in the middle of its events is safe. */
static void test_watch_many(void **state)
{
	struct recorder r[24], gone;
	int64_t from = current() + 1;

	for (size_t i = 0; i < ARRAY_SIZE(r); i++)
		recorder_start(&r[i], store, "/many/", from);
	for (int i = 0; i < 40; i++) {
		char value[16];

		recorder_start(&gone, store, "/many/", from);
		snprintf(value, sizeof(value), "%d", i);
		put("/many/a", value);
		recorder_done(&gone);
	}
	for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
		recorder_wait_events(&r[i], 40, WAIT_MS);
		recorder_done(&r[i]);
	}
}

/* ---- leases ---- */

static int64_t put_leased(const char *key, int64_t lease)
{
	struct store_op op = {.type = STORE_PUT, .key = key, .value = "x", .value_len = 1, .lease = lease};
	struct err e = {0};
	int64_t rev = 0;

	if (store_txn(store, NULL, 0, &op, 1, &rev, &e) < 0)
		fail_msg("put %s with lease: %s", key, e.text);
	return rev;
}

static void test_lease_expiry(void **state)
{
	struct recorder r;
	struct store_kv kv;
	struct store_op op = {.type = STORE_PUT, .key = "/lease/x", .value = "x", .value_len = 1};
	int64_t id, from = current() + 1;
	uint64_t begin;

	recorder_start(&r, store, "/lease/", from);
	assert_int_equal(store_lease_grant(store, 2, &id, NULL), 0);
	assert_true(id > 0);
	put_leased("/lease/a", id);
	put_leased("/lease/b", id);
	put("/lease/keep", "k");
	put_leased("/lease/freed", id);
	put("/lease/freed", "no lease any more");
	assert_int_equal(store_get(store, "/lease/a", 0, &kv, NULL, NULL), 0);
	assert_int_equal(kv.lease, id);
	store_kv_done(&kv);
	begin = clock_ms();
	for (int i = 0; i < 4; i++) { /* kept alive for longer than it lasts */
		usleep(700000);
		assert_int_equal(store_lease_keepalive(store, id, NULL), 0);
	}
	assert_true(clock_ms() - begin > 2000);
	check_value("/lease/a", 0, "x");
	recorder_wait_events(&r, 7, WAIT_MS);
	recorder_stop(&r);
	assert_int_equal(r.n, 7);
	assert_int_equal(r.seen[5].type, STORE_EVENT_DELETE);
	assert_int_equal(r.seen[6].type, STORE_EVENT_DELETE);
	assert_int_equal(r.seen[5].rev, r.seen[6].rev);
	check_value("/lease/a", 0, NULL);
	check_value("/lease/keep", 0, "k");
	check_value("/lease/freed", 0, "no lease any more");
	assert_int_equal(store_lease_keepalive(store, id, NULL), -ENOENT);
	op.lease = id;
	assert_int_equal(store_txn(store, NULL, 0, &op, 1, NULL, NULL), -ENOENT);
	recorder_done(&r);
}

static void test_lease_revoke(void **state)
{
	int64_t id;

	assert_int_equal(store_lease_grant(store, 60, &id, NULL), 0);
	put_leased("/revoke/a", id);
	assert_int_equal(store_lease_revoke(store, id, NULL), 0);
	check_value("/revoke/a", 0, NULL);
	assert_int_equal(store_lease_revoke(store, id, NULL), -ENOENT);
	assert_int_equal(store_lease_keepalive(store, id, NULL), -ENOENT);
	assert_int_equal(store_lease_grant(store, 0, &id, NULL), -EINVAL);
}

/* ---- limits, contention, compaction ---- */

static void test_limits(void **state)
{
	static char big[STORE_VALUE_MAX + 1];
	char key[STORE_KEY_MAX + 2];
	struct store_op ops[STORE_TXN_OPS_MAX + 1] = {{.type = STORE_PUT, .key = "/limit/a", .value = big}};
	struct store_list l;
	struct store_kv kv;

	ops[0].value_len = sizeof(big);
	assert_int_equal(store_txn(store, NULL, 0, ops, 1, NULL, NULL), -EMSGSIZE);
	ops[0].value_len = 1;
	assert_int_equal(store_txn(store, NULL, 0, ops, 0, NULL, NULL), -EINVAL);
	assert_int_equal(store_txn(store, NULL, 0, ops, ARRAY_SIZE(ops), NULL, NULL), -EINVAL);
	ops[1] = ops[0];
	assert_int_equal(store_txn(store, NULL, 0, ops, 2, NULL, NULL), -EINVAL); /* the same key twice */
	ops[1].key = "/limit/b";
	ops[0].value_len = ops[1].value_len = STORE_VALUE_MAX;
	assert_int_equal(store_txn(store, NULL, 0, ops, 2, NULL, NULL), -EMSGSIZE);
	ops[0] = (struct store_op){.type = STORE_PUT, .key = ""};
	assert_int_equal(store_txn(store, NULL, 0, ops, 1, NULL, NULL), -EINVAL);
	ops[0].key = "\x01mine";
	assert_int_equal(store_txn(store, NULL, 0, ops, 1, NULL, NULL), -EINVAL);
	memset(key, 'k', sizeof(key));
	key[STORE_KEY_MAX + 1] = 0;
	ops[0].key = key;
	assert_int_equal(store_txn(store, NULL, 0, ops, 1, NULL, NULL), -EINVAL);
	assert_int_equal(store_get(store, key, 0, &kv, NULL, NULL), -EINVAL);
	key[STORE_KEY_MAX] = 0;
	assert_int_equal(store_txn(store, NULL, 0, ops, 1, NULL, NULL), 0);
	check_range("k", NULL, 0, 0, 1, 1, key);
	del(key);
	/* as many operations as allowed */
	for (size_t i = 0; i < STORE_TXN_OPS_MAX; i++)
		ops[i] = (struct store_op){.type = STORE_PUT, .key = xasprintf("/limit/%03zu", i)};
	assert_int_equal(store_txn(store, NULL, 0, ops, STORE_TXN_OPS_MAX, NULL, NULL), 0);
	check_range("/limit/", NULL, 0, 0, STORE_TXN_OPS_MAX, STORE_TXN_OPS_MAX, NULL);
	for (size_t i = 0; i < STORE_TXN_OPS_MAX; i++)
		free((char *)ops[i].key);
	/* the whole store: nothing of its own is shown */
	assert_int_equal(store_range(store, "", NULL, 0, 0, &l, NULL), 0);
	for (size_t i = 0; i < l.n; i++)
		assert_true((unsigned char)l.kv[i].key[0] > 1);
	assert_int_equal((int64_t)l.n, l.count);
	store_list_done(&l);
}

static void test_big_values(void **state)
{
	_cleanup_free_ char *big = xcalloc(1, STORE_VALUE_MAX + 1);
	struct store_op op = {.type = STORE_PUT, .value = big, .value_len = STORE_VALUE_MAX};
	struct store_list l;
	struct recorder r;

	for (size_t i = 0; i < STORE_VALUE_MAX; i++)
		big[i] = (char)('a' + i * 7 % 26);
	recorder_start(&r, store, "/big/", current() + 1);
	for (int i = 0; i < 6; i++) {
		char key[16];

		snprintf(key, sizeof(key), "/big/%d", i);
		op.key = key;
		assert_int_equal(store_txn(store, NULL, 0, &op, 1, NULL, NULL), 0);
	}
	assert_int_equal(store_range(store, "/big/", NULL, 0, 0, &l, NULL), 0);
	assert_int_equal(l.n, 6);
	for (size_t i = 0; i < l.n; i++)
		assert_true(l.kv[i].value_len == STORE_VALUE_MAX && streq(l.kv[i].value, big));
	store_list_done(&l);
	recorder_wait_events(&r, 6, WAIT_MS);
	recorder_stop(&r);
	for (size_t i = 0; i < r.n; i++)
		assert_true(streq(r.seen[i].value, big));
	recorder_done(&r);
}

static void *count_up(void *arg)
{
	for (int i = 0; i < COUNTS;) {
		struct store_kv kv;
		struct store_cmp cmp = {.key = "/count/n"};
		char value[24];
		int r;

		assert_int_equal(store_get(store, cmp.key, 0, &kv, NULL, NULL), 0);
		cmp.mod_rev = kv.mod_rev;
		snprintf(value, sizeof(value), "%d", atoi(kv.value) + 1);
		store_kv_done(&kv);
		put_cmp(cmp.key, value, &cmp, &r);
		if (r == 0)
			i++;
		else if (r != -EEXIST)
			return (void *)1;
	}
	return NULL;
}

static void test_counters(void **state)
{
	pthread_t t[WRITERS];
	char want[24];
	void *bad;

	put("/count/n", "0");
	for (int i = 0; i < WRITERS; i++)
		pthread_create(&t[i], NULL, count_up, NULL);
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	snprintf(want, sizeof(want), "%d", WRITERS * COUNTS);
	check_value("/count/n", 0, want);
}

static void test_compaction(void **state)
{
	int64_t one = put("/compact/a", "1"), two, three;
	struct recorder r, live;
	struct store_list l;
	struct store_kv kv;

	put("/compact/still", "s");
	put("/compact/gone", "g");
	del("/compact/gone");
	two = put("/compact/a", "2");
	recorder_start(&live, store, "/compact/", two);
	recorder_wait_events(&live, 1, WAIT_MS);
	three = put("/compact/a", "3");
	assert_int_equal(store_compact(store, two, NULL), 0);
	assert_int_equal(store_get(store, "/compact/a", one, &kv, NULL, NULL), -ESTALE);
	assert_int_equal(store_range(store, "/compact/", NULL, 0, one, &l, NULL), -ESTALE);
	check_value("/compact/a", two, "2");
	check_value("/compact/a", three, "3");
	check_value("/compact/still", 0, "s");
	check_value("/compact/still", two, "s");
	check_value("/compact/gone", two, NULL);

	recorder_start(&r, store, "/compact/", one);
	assert_int_equal(recorder_wait_ended(&r, WAIT_MS), -ESTALE);
	assert_int_equal(r.n, 0);
	recorder_done(&r);
	recorder_start(&r, store, "/compact/", two);
	recorder_wait_events(&r, 2, WAIT_MS);
	assert_int_equal(r.seen[0].rev, two);
	assert_int_equal(r.seen[1].rev, three);
	recorder_done(&r);
	/* a watch that was there before goes on */
	put("/compact/a", "4");
	recorder_wait_events(&live, 3, WAIT_MS);
	recorder_done(&live);
	assert_int_equal(store_compact(store, two - 1, NULL), -ESTALE);
	assert_int_equal(store_compact(store, current() + 1000, NULL), -EINVAL);
}

int conformance_run(const char *name, struct store *s)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crud),	       cmocka_unit_test(test_cas),
		cmocka_unit_test(test_delete_nothing), cmocka_unit_test(test_range),
		cmocka_unit_test(test_revisions),      cmocka_unit_test(test_model),
		cmocka_unit_test(test_watch_order),    cmocka_unit_test(test_watch_old),
		cmocka_unit_test(test_watch_txn),      cmocka_unit_test(test_watch_progress),
		cmocka_unit_test(test_watch_many),     cmocka_unit_test(test_lease_expiry),
		cmocka_unit_test(test_lease_revoke),   cmocka_unit_test(test_limits),
		cmocka_unit_test(test_big_values),     cmocka_unit_test(test_counters),
		cmocka_unit_test(test_compaction),
	};

	store = s;
	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}
