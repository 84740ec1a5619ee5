/* SPDX-License-Identifier: Apache-2.0 */
/* db without MariaDB and network: my.cnf, who the members are, and votes: given once an epoch, durable before they are given. */
#include "test.h"
#include "db/internal.h"

static char dir[] = "/tmp/kuayu-test-db-XXXXXX";

static struct db member(const char *name, char **peers)
{
	struct db d = {.s = {.name = xstrdup(name),
			     .address = xstrdup("10.0.0.1"),
			     .data = xasprintf("%s/%s", dir, name),
			     .run_dir = xasprintf("%s/%s/run", dir, name),
			     .cluster = xstrdup("test"),
			     .user = xstrdup("root"),
			     .peers = peers,
			     .members = 3,
			     .port = 3306,
			     .status_port = 9104,
			     .buffer_pool_mb = 64,
			     .log_file_mb = 48,
			     .gcache_mb = 32,
			     .connections = 50,
			     .keepalive_ms = 200,
			     .suspect_ms = 2000,
			     .inactive_ms = 4000}};

	d.loop = uv_default_loop();
	return d;
}

static void start(struct db *d)
{
	struct err e = {0};

	setenv("KUAYU_DB_SST_PASSWORD", "0123456789", 1);
	assert_int_equal(config_init(d, &e), 0);
	assert_int_equal(peers_init(d, &e), 0);
	assert_int_equal(state_load(d, &e), 0);
}

static void finish(struct db *d)
{
	peers_done(d);
	uv_run(d->loop, UV_RUN_DEFAULT);
	free(d->s.name);
	free(d->s.address);
	free(d->s.data);
	free(d->s.run_dir);
	free(d->s.cluster);
	free(d->s.user);
	free(d->sst_password);
	free(d->data_dir);
	free(d->cnf);
	free(d->socket);
}

static void heard(struct db *d, size_t i, enum galera_phase phase, int64_t seqno)
{
	struct galera_member *m = &d->peers[i].m;

	m->phase = phase;
	m->seqno = seqno;
	snprintf(m->uuid, sizeof(m->uuid), "d6d91d0b-e2b8-11f0-9f6b-4f3a2fb1a6c1");
	d->peers[i].heard_ms = clock_ms();
}

static bool ask(struct db *d, const char *candidate, int epoch, char reason[GALERA_REASON_MAX])
{
	_cleanup_free_ char *text = xasprintf("{\"candidate\":\"%s\",\"epoch\":%d}", candidate, epoch);
	_cleanup_json_ json_t *j = NULL;
	bool granted;

	assert_int_equal(js_parse_new(text, strlen(text), &j, NULL), 0);
	assert_int_equal(peers_vote(d, j, &granted, reason), 0);
	return granted;
}

static void votes_are_durable(void **state)
{
	char *peers[] = {"a=10.0.0.1", "b=10.0.0.2", "c=c.members", NULL};
	char reason[GALERA_REASON_MAX];
	struct db d = member("a", peers);

	(void)state;
	start(&d);
	for (size_t i = 0; i < 3; i++)
		heard(&d, i, GALERA_STOPPED, (int64_t)(10 + i));
	assert_false(ask(&d, "b", 1, reason));
	assert_string_equal(reason, "no: c comes first");
	assert_true(ask(&d, "c", 1, reason));
	finish(&d);

	d = member("a", peers); /* started again */
	start(&d);
	assert_int_equal(d.promised_epoch, 1);
	assert_string_equal(d.promised_to, "c");
	for (size_t i = 0; i < 3; i++)
		heard(&d, i, GALERA_STOPPED, i == 1 ? 20 : 10);
	assert_false(ask(&d, "b", 1, reason));
	assert_string_equal(reason, "no: epoch 1 is taken");
	assert_true(ask(&d, "b", 2, reason));
	finish(&d);
}

static void bad_votes_are_refused(void **state)
{
	char *peers[] = {"a=10.0.0.1", NULL};
	struct db d = member("a", peers);
	const char *texts[] = {"{}",
			       "[]",
			       "{\"candidate\":\"x\",\"epoch\":1}",
			       "{\"candidate\":\"a\",\"epoch\":0}",
			       "{\"candidate\":\"a\",\"epoch\":-1}",
			       "{\"candidate\":1,\"epoch\":1}"};
	char reason[GALERA_REASON_MAX];
	bool granted;

	(void)state;
	start(&d);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_json_ json_t *j = NULL;

		assert_int_equal(js_parse_new(texts[i], strlen(texts[i]), &j, NULL), 0);
		assert_int_equal(peers_vote(&d, j, &granted, reason), -EINVAL);
	}
	finish(&d);
}

static void configuration(void **state)
{
	char *peers[] = {"a=10.0.0.1", "b=10.0.0.2", "c=c.members", NULL};
	struct db d = member("a", peers);
	_cleanup_free_ char *text = NULL, *again = NULL;
	struct err e = {0};

	(void)state;
	start(&d);
	assert_int_equal(config_write(&d, &e), 0);
	assert_int_equal(file_read(d.cnf, 1 << 16, &text, NULL, NULL), 0);
	assert_non_null(strstr(text, "innodb_flush_log_at_trx_commit=1\n"));
	assert_non_null(
		strstr(text, "wsrep_cluster_address=gcomm://10.0.0.1,10.0.0.2\n")); /* c is not known yet */
	assert_non_null(strstr(text, "evs.suspect_timeout=PT2.000S;"));
	peers_address(&d.peers[2], "10.0.0.3");
	assert_int_equal(config_write(&d, &e), 0);
	assert_int_equal(file_read(d.cnf, 1 << 16, &again, NULL, NULL), 0);
	assert_non_null(strstr(again, "gcomm://10.0.0.1,10.0.0.2,10.0.0.3\n"));
	finish(&d);

	d = member("a", peers); /* the address of c is remembered */
	start(&d);
	assert_string_equal(d.peers[2].address, "10.0.0.3");
	finish(&d);
}

static void members_of_a_stateful_set(void **state)
{
	struct db d = member("mariadb-1", NULL), e = member("mariadb-5", NULL);
	struct err err = {0};

	(void)state;
	d.s.service = xstrdup("members");
	start(&d);
	assert_int_equal(d.n, 3);
	assert_int_equal(d.self, 1);
	assert_string_equal(d.peers[2].host, "mariadb-2.members");
	free(d.s.service);
	finish(&d);
	assert_int_equal(config_init(&e, &err), 0);
	assert_true(peers_init(&e, &err) < 0);
	assert_non_null(strstr(err.text, "not one of the members"));
	finish(&e);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return dir_remove(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(votes_are_durable), cmocka_unit_test(bad_votes_are_refused),
		cmocka_unit_test(configuration), cmocka_unit_test(members_of_a_stateful_set)};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
