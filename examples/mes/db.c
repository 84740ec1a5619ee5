/* SPDX-License-Identifier: Apache-2.0 */
/* Database threads of the MES: each holds one connection and takes jobs from a bounded queue. A job is run again after a
 * certification conflict (1213, 1205), a member that is not ready (1047) or a lost connection, with small waits, until its deadline;
 * jobs are written so that running twice does no harm (idempotency keys). Statements of a transaction are never sent together in one packet: Galera may
 * abort a transaction at any moment for one that was certified before it, and between two statements of one packet MariaDB (10.11.19)
 * lets that pass unseen: what follows is committed alone, or nothing is, and COMMIT says yes. After 1047 or a lost connection the
 * thread connects anew: the service address then leads to another member. A silent member (power cut) is noticed by
 * TCP_USER_TIMEOUT and the read time-out. */
#include "mes.h"

#include <errmsg.h>
#include <mysqld_error.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/socket.h>

#define DB_QUEUE_MAX	   4096
#define DB_CONNECT_S	   1
#define DB_READ_S	   5 /* a Galera view change may hold a commit this long */
#define DB_USER_TIMEOUT_MS 1500
#define DB_RETRY_MS	   20
#define DB_AGE_MS	   10000 /* then connect anew: the service address may lead to a nearer member by now */
#define DB_SESSION	   "SET SESSION idle_transaction_timeout=3, innodb_lock_wait_timeout=3"
#define DB_RETRY_MS_MAX	   250

struct job {
	struct job *next;
	db_job_fn run;
	db_done_fn done;
	void *arg;
	uint64_t deadline;
	int result;
};

struct db {
	struct db_options o;
	struct mailbox *box;
	uv_mutex_t lock;
	uv_cond_t wake;
	struct job *first, **last;
	size_t waiting;
	bool ready;
	struct db_stats stats;
};

MYSQL *db_connect(const struct db_options *o, struct err *e)
{
	unsigned connect_s = DB_CONNECT_S, io_s = DB_READ_S, user_ms = DB_USER_TIMEOUT_MS;
	MYSQL *c = mysql_init(NULL);
	int fd;

	ensure(c);
	mysql_optionsv(c, MYSQL_OPT_CONNECT_TIMEOUT, &connect_s);
	mysql_optionsv(c, MYSQL_OPT_READ_TIMEOUT, &io_s);
	mysql_optionsv(c, MYSQL_OPT_WRITE_TIMEOUT, &io_s);
	if (!mysql_real_connect(c, o->host, o->user, o->password, o->database, (unsigned)o->port, NULL, 0)) {
		err_set(e, -ENOTCONN, "database %s:%d: %s", o->host, (int)o->port, mysql_error(c));
		mysql_close(c);
		return NULL;
	}
	/* Should this process vanish in the middle of a transaction, its locks go soon. */
	if (db_exec(c, DB_SESSION, strlen(DB_SESSION)) < 0) {
		err_set(e, -ENOTCONN, "database %s:%d: %s", o->host, (int)o->port, mysql_error(c));
		mysql_close(c);
		return NULL;
	}
	if (mariadb_get_infov(c, MARIADB_CONNECTION_SOCKET, &fd) == 0)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof(user_ms));
	return c;
}

static int db_error(MYSQL *conn)
{
	unsigned code = mysql_errno(conn);

	switch (code) {
	case ER_LOCK_DEADLOCK:
	case ER_LOCK_WAIT_TIMEOUT:
	case ER_ERROR_DURING_COMMIT:
	case ER_QUERY_INTERRUPTED:
		return -EAGAIN;
	case ER_DUP_ENTRY:
		return -EEXIST;
	case ER_UNKNOWN_COM_ERROR: /* 1047: WSREP has not yet prepared node for application use */
	case ER_SERVER_SHUTDOWN:
	case ER_CONNECTION_KILLED:
	case ER_OPTION_PREVENTS_STATEMENT: /* read only */
		return -ENOTCONN;
	default:
		if (code >= CR_MIN_ERROR && code <= CR_MAX_ERROR)
			return -ENOTCONN;
		log_warn("database refused a statement: %u %s", code, mysql_error(conn));
		return -EIO;
	}
}

int db_exec(MYSQL *conn, const char *sql, size_t len)
{
	return mysql_real_query(conn, sql, len) == 0 ? 0 : db_error(conn);
}

int db_execf(MYSQL *conn, const char *fmt, ...)
{
	_cleanup_free_ char *sql = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&sql, fmt, ap);
	va_end(ap);
	ensure(n >= 0);
	return db_exec(conn, sql, (size_t)n);
}

int db_transaction(MYSQL *conn, db_job_fn body, void *arg)
{
	int r = db_exec(conn, "START TRANSACTION", 17);

	if (r == 0)
		r = body(conn, arg);
	return r == 0 ? db_exec(conn, "COMMIT", 6) : r;
}

void db_quote(MYSQL *conn, struct buf *b, const char *text)
{
	size_t n = strlen(text);
	_cleanup_free_ char *out = xcalloc(2 * n + 1, 1);

	mysql_real_escape_string(conn, out, text, n);
	buf_addf(b, "'%s'", out);
}

static struct job *take(struct db *db)
{
	struct job *j;

	uv_mutex_lock(&db->lock);
	while (!db->first)
		uv_cond_wait(&db->wake, &db->lock);
	j = db->first;
	db->first = j->next;
	if (!db->first)
		db->last = &db->first;
	db->waiting--;
	uv_mutex_unlock(&db->lock);
	return j;
}

static void note(struct db *db, uint64_t *counter, bool ready)
{
	uv_mutex_lock(&db->lock);
	if (counter)
		(*counter)++;
	db->ready = ready;
	uv_mutex_unlock(&db->lock);
}

/* One attempt. Leaves *conn NULL when the connection is of no more use. */
static int attempt(struct db *db, MYSQL **conn, struct job *j)
{
	struct err e = {0};
	int r;

	if (!*conn && !(*conn = db_connect(&db->o, &e))) {
		log_debug("%s", e.text);
		return -ENOTCONN;
	}
	r = j->run(*conn, j->arg);
	if (r == -EAGAIN || (r < 0 && r != -ENOTCONN))
		mysql_real_query(*conn, "ROLLBACK", 8);
	if (r == -ENOTCONN) {
		mysql_close(*conn);
		*conn = NULL;
	}
	return r;
}

static void on_job_done(void *arg)
{
	struct job *j = arg;

	j->done(j->arg, j->result);
	free(j);
}

static void run_job(struct db *db, MYSQL **conn, struct job *j)
{
	unsigned wait = DB_RETRY_MS;
	int r;

	note(db, &db->stats.tried, db->ready);
	for (;;) {
		r = attempt(db, conn, j);
		if (r != -EAGAIN && r != -ENOTCONN)
			break;
		note(db, &db->stats.retried, r == -EAGAIN);
		if (clock_ms() + wait >= j->deadline) {
			r = -ETIMEDOUT;
			break;
		}
		usleep(wait * 1000);
		wait = MIN(wait * 2, DB_RETRY_MS_MAX);
	}
	note(db, r == 0 ? &db->stats.committed : &db->stats.failed, r != -ETIMEDOUT);
	j->result = r;
	while (mailbox_post(db->box, on_job_done, j) < 0)
		usleep(1000); /* the loop is behind; it takes its letters in turn */
}

static void worker(void *arg)
{
	struct db *db = arg;
	MYSQL *conn = NULL;
	uint64_t until = 0;

	mysql_thread_init();
	for (;;) {
		struct job *j = take(db);

		if (conn && clock_ms() >= until) {
			mysql_close(conn);
			conn = NULL;
		}
		if (!conn)
			until = clock_ms() + DB_AGE_MS;
		run_job(db, &conn, j);
	}
}

static int job_ping(MYSQL *conn, void *arg)
{
	int r = db_exec(conn, "SELECT 1", 8);

	(void)arg;
	if (r == 0)
		mysql_free_result(mysql_store_result(conn));
	return r;
}

static void on_pinged(void *arg, int result)
{
	(void)arg, (void)result; /* run_job has noted it */
}

static void on_ping_timer(void *ctx)
{
	db_submit(ctx, job_ping, on_pinged, ctx, 1000);
}

struct db *db_new(uv_loop_t *loop, struct mailbox *box, const struct db_options *o)
{
	struct db *db = xcalloc(1, sizeof(*db));
	uv_thread_t t;

	db->o = *o;
	db->box = box;
	db->last = &db->first;
	uv_mutex_init(&db->lock);
	uv_cond_init(&db->wake);
	for (int64_t i = 0; i < o->threads; i++)
		ensure(uv_thread_create(&t, worker, db) == 0);
	timer_start(timer_new(loop, on_ping_timer, db), 0, 1000);
	return db;
}

int db_submit(struct db *db, db_job_fn run, db_done_fn done, void *arg, int64_t deadline_ms)
{
	struct job *j = xcalloc(1, sizeof(*j));

	*j = (struct job){
		.run = run, .done = done, .arg = arg, .deadline = clock_ms() + (uint64_t)deadline_ms};
	uv_mutex_lock(&db->lock);
	if (db->waiting >= DB_QUEUE_MAX) {
		uv_mutex_unlock(&db->lock);
		free(j);
		return -ENOBUFS;
	}
	*db->last = j;
	db->last = &j->next;
	db->waiting++;
	uv_cond_signal(&db->wake);
	uv_mutex_unlock(&db->lock);
	return 0;
}

bool db_ready(const struct db *db)
{
	return db->ready;
}

struct db_stats db_stats(const struct db *db)
{
	return db->stats;
}

/* Statements of schema.sql, split at ";\n". IF NOT EXISTS throughout: several servers may start at once. */
int db_schema(MYSQL *conn)
{
	extern const char mes_schema[];
	const char *p = mes_schema;

	while (*p) {
		const char *end = strstr(p, ";\n");
		size_t n = end ? (size_t)(end - p) : strlen(p);
		int r = 0;

		if (strspn(p, " \n") < n)
			r = db_exec(conn, p, n);
		if (r < 0)
			return r;
		p += n + (end ? 2 : 0);
	}
	return 0;
}
