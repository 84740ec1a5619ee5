/* SPDX-License-Identifier: Apache-2.0 */
/* db: a thread that asks MariaDB, through its local socket as root, for the wsrep state four times a second, and runs the few
 * statements the supervisor needs (first users, pc.bootstrap). libmariadb blocks, so it stays off the loop thread; each answer
 * goes there by mailbox. A server that hangs gives no answer, and readiness ends when the last one is too old. */
#include "db/internal.h"

#include <mysql.h>
#include <time.h>

#define INTERVAL_MS	   250
#define PC_BOOTSTRAP_MS	   5000
#define ANSWER_SECONDS_MAX 3

struct db_watch {
	struct db *d;
	uv_thread_t thread;
	uv_mutex_t lock;
	uv_cond_t wake;
	/* under lock */
	bool quit, running, make_users, pc_bootstrap;
	uint64_t pc_bootstrap_ms; /* when it was decided; soon it is not valid any more */
	unsigned generation;
	/* thread only */
	MYSQL *db;
	unsigned db_generation;
};

struct report {
	struct db_watch *w;
	struct db_sample sample;
};

static void on_report(void *arg)
{
	struct report *r = arg;
	struct db *d = r->w->d;
	struct galera_member *own = db_own(d);
	const struct db_sample *s = &r->sample;

	if (!process_running(d) || s->generation != process_generation(d)) {
		free(r);
		return;
	}
	if (s->users_made)
		log_info("users and database are there");
	if (!s->ok) {
		snprintf(d->sample.error, sizeof(d->sample.error), "%s", s->error);
		free(r);
		return;
	}
	d->sample = *s;
	d->sample_ms = clock_ms();
	own->component = s->cluster_size;
	if (s->uuid[0] && s->seqno >= 0) {
		snprintf(own->uuid, sizeof(own->uuid), "%s", s->uuid);
		own->seqno = s->seqno;
	}
	if (s->primary && own->phase != GALERA_PRIMARY) {
		if (own->phase == GALERA_STARTING)
			process_flush(d);
		own->bootstrapping = false;
		peers_vote_used(d);
		db_set_phase(d, GALERA_PRIMARY);
	} else if (!s->primary && own->phase == GALERA_PRIMARY)
		db_set_phase(d, GALERA_NON_PRIMARY);
	free(r);
}

static void take(struct db_sample *s, const char *name, const char *value)
{
	static const struct {
		const char *name;
		size_t offset;
	} numbers[] = {
		{"wsrep_last_committed", offsetof(struct db_sample, seqno)},
		{"wsrep_cluster_size", offsetof(struct db_sample, cluster_size)},
		{"wsrep_local_recv_queue", offsetof(struct db_sample, recv_queue)},
		{"wsrep_local_send_queue", offsetof(struct db_sample, send_queue)},
		{"wsrep_local_cert_failures", offsetof(struct db_sample, cert_failures)},
		{"wsrep_local_bf_aborts", offsetof(struct db_sample, bf_aborts)},
		{"wsrep_replicated", offsetof(struct db_sample, replicated)},
		{"wsrep_received", offsetof(struct db_sample, received)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (streq(name, numbers[i].name))
			str_i64(value, (int64_t *)(void *)((char *)s + numbers[i].offset));
	if (streq(name, "wsrep_cluster_status"))
		s->primary = streq(value, "Primary");
	else if (streq(name, "wsrep_ready"))
		s->ready = streq(value, "ON");
	else if (streq(name, "wsrep_local_state"))
		s->local_state = atoi(value);
	else if (streq(name, "wsrep_local_state_comment"))
		snprintf(s->state_text, sizeof(s->state_text), "%s", value);
	else if (streq(name, "wsrep_local_state_uuid") && strlen(value) == GALERA_UUID_LEN &&
		 !streq(value, GALERA_NO_UUID))
		memcpy(s->uuid, value, GALERA_UUID_LEN + 1);
	else if (streq(name, "wsrep_flow_control_paused"))
		s->flow_paused = atof(value);
}

static bool run_sql(struct db_watch *w, const char *sql, struct db_sample *s)
{
	if (mysql_query(w->db, sql) == 0)
		return true;
	snprintf(s->error, sizeof(s->error), "%s", mysql_error(w->db));
	return false;
}

/* The user of the state transfer (local to each member) and the application's. Can be run again. */
static bool make_users(struct db_watch *w, struct db_sample *s)
{
	const struct db *d = w->d;
	char user[200] = "", password[600] = "", database[200] = "";
	_cleanup_free_ char *sst =
		xasprintf("CREATE USER IF NOT EXISTS sst@localhost IDENTIFIED BY '%s'", d->sst_password);

	if (!run_sql(w, sst, s) || !run_sql(w,
					    "GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR, REPLICA "
					    "MONITOR ON *.* TO sst@localhost",
					    s))
		return false;
	if (d->app_database && strlen(d->app_database) < 64) {
		_cleanup_free_ char *sql = NULL;

		mysql_real_escape_string(w->db, database, d->app_database, strlen(d->app_database));
		if (strchr(database, '`'))
			return true;
		sql = xasprintf("CREATE DATABASE IF NOT EXISTS `%s`", database);
		if (!run_sql(w, sql, s))
			return false;
	}
	if (d->app_user && strlen(d->app_user) < 80 && strlen(d->app_password) < 256) {
		_cleanup_free_ char *sql = NULL, *grant = NULL;

		mysql_real_escape_string(w->db, user, d->app_user, strlen(d->app_user));
		mysql_real_escape_string(w->db, password, d->app_password, strlen(d->app_password));
		sql = xasprintf("CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s'", user, password);
		grant = xasprintf("GRANT ALL ON `%s`.* TO '%s'@'%%'", database[0] ? database : "%", user);
		if (!run_sql(w, sql, s) || !run_sql(w, grant, s))
			return false;
	}
	return true;
}

static void disconnect(struct db_watch *w)
{
	if (w->db)
		mysql_close(w->db);
	w->db = NULL;
}

static bool connect_to(struct db_watch *w, unsigned generation, struct db_sample *s)
{
	unsigned seconds = ANSWER_SECONDS_MAX;

	if (w->db && w->db_generation == generation)
		return true;
	disconnect(w);
	w->db = mysql_init(NULL);
	if (!w->db)
		return false;
	mysql_options(w->db, MYSQL_OPT_CONNECT_TIMEOUT, &seconds);
	mysql_options(w->db, MYSQL_OPT_READ_TIMEOUT, &seconds);
	mysql_options(w->db, MYSQL_OPT_WRITE_TIMEOUT, &seconds);
	if (!mysql_real_connect(w->db, NULL, "root", NULL, NULL, 0, w->d->socket, 0)) {
		snprintf(s->error, sizeof(s->error), "%s", mysql_error(w->db));
		disconnect(w);
		return false;
	}
	w->db_generation = generation;
	return true;
}

static bool read_status(struct db_watch *w, struct db_sample *s)
{
	MYSQL_RES *res;
	MYSQL_ROW row;

	if (!run_sql(w, "SHOW GLOBAL STATUS LIKE 'wsrep_%'", s) || !(res = mysql_store_result(w->db)))
		return false;
	s->seqno = -1;
	while ((row = mysql_fetch_row(res)))
		if (row[0] && row[1])
			take(s, row[0], row[1]);
	mysql_free_result(res);
	return true;
}

static void look(struct db_watch *w, unsigned generation)
{
	struct report *r = xcalloc(1, sizeof(*r));
	struct db_sample *s = &r->sample;
	bool users, pc;

	r->w = w;
	s->generation = generation;
	s->ok = connect_to(w, generation, s) && read_status(w, s);
	if (w->db && !s->ok)
		disconnect(w);
	uv_mutex_lock(&w->lock);
	users = w->make_users;
	pc = w->pc_bootstrap && clock_ms() - w->pc_bootstrap_ms < PC_BOOTSTRAP_MS;
	w->pc_bootstrap = w->pc_bootstrap && !s->ok;
	uv_mutex_unlock(&w->lock);
	if (s->ok && pc && !s->primary)
		run_sql(w, "SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'", s);
	if (s->ok && users && s->primary && s->ready && make_users(w, s)) {
		s->users_made = true;
		uv_mutex_lock(&w->lock);
		w->make_users = false;
		uv_mutex_unlock(&w->lock);
	}
	if (mailbox_post(w->d->box, on_report, r) < 0)
		free(r);
}

static void watch_thread(void *arg)
{
	struct db_watch *w = arg;

	uv_mutex_lock(&w->lock);
	while (!w->quit) {
		unsigned generation = w->generation;
		bool running = w->running;

		uv_mutex_unlock(&w->lock);
		if (running)
			look(w, generation);
		else
			disconnect(w);
		uv_mutex_lock(&w->lock);
		if (!w->quit)
			uv_cond_timedwait(&w->wake, &w->lock, INTERVAL_MS * 1000000ull);
	}
	uv_mutex_unlock(&w->lock);
	disconnect(w);
	mysql_thread_end();
}

void watch_init(struct db *d)
{
	struct db_watch *w = xcalloc(1, sizeof(*w));

	w->d = d;
	d->watch = w;
	uv_mutex_init(&w->lock);
	uv_cond_init(&w->wake);
	mysql_library_init(0, NULL, NULL);
	uv_thread_create(&w->thread, watch_thread, w);
}

static void change(struct db *d, bool *flag)
{
	uv_mutex_lock(&d->watch->lock);
	*flag = true;
	uv_cond_signal(&d->watch->wake);
	uv_mutex_unlock(&d->watch->lock);
}

void watch_follow(struct db *d, bool running, unsigned generation)
{
	uv_mutex_lock(&d->watch->lock);
	d->watch->running = running;
	d->watch->generation = generation;
	if (!running)
		d->watch->pc_bootstrap = d->watch->make_users = false;
	uv_mutex_unlock(&d->watch->lock);
}

void watch_make_users(struct db *d)
{
	change(d, &d->watch->make_users);
}

void watch_pc_bootstrap(struct db *d)
{
	uv_mutex_lock(&d->watch->lock);
	d->watch->pc_bootstrap_ms = clock_ms();
	uv_mutex_unlock(&d->watch->lock);
	change(d, &d->watch->pc_bootstrap);
}

void watch_done(struct db *d)
{
	if (!d->watch)
		return;
	change(d, &d->watch->quit);
	uv_thread_join(&d->watch->thread);
	uv_cond_destroy(&d->watch->wake);
	uv_mutex_destroy(&d->watch->lock);
	free(d->watch);
	d->watch = NULL;
}
