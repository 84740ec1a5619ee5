/* SPDX-License-Identifier: Apache-2.0 */
/* The MES server's inner interface. One loop thread owns HTTP, waiting machines and report batches; a few database threads run
 * jobs; one more polls for new work orders. Nothing is kept in memory that a restart could lose: what was acknowledged is in the
 * database. */
#pragma once

#include <mysql.h>

#include "io/io.h"
#include "net/http_server.h"

#define MES_NAME_MAX	       32  /* bytes of a machine's, product's name */
#define MES_KEY_MAX	       64  /* bytes of an idempotency key */
#define MES_BATCH_MAX	       500 /* reports in one transaction, and in one request */
#define MES_ORDER_MACHINES_MAX 64
#define MES_WORK_ORDERS_MAX    100 /* in one answer to a machine */

/* ---- db.c: connections and jobs ---- */
struct db;

struct db_options {
	const char *host, *user, *password, *database;
	int64_t port, threads;
};

/* 0, or -EAGAIN (conflict or member not ready: run again), -ENOTCONN (connection lost: reconnect, run again),
 * or another negative errno (given to done as it is). Runs on a database thread; must be safe to run again. */
typedef int (*db_job_fn)(MYSQL *conn, void *arg);
typedef void (*db_done_fn)(void *arg, int result); /* loop thread */

struct db *db_new(uv_loop_t *loop, struct mailbox *box, const struct db_options *o);
/* Tried again until deadline_ms from now, then done gets -ETIMEDOUT (outcome unknown). -ENOBUFS when 4,096 jobs wait. */
int db_submit(struct db *db, db_job_fn run, db_done_fn done, void *arg, int64_t deadline_ms);
bool db_ready(const struct db *db); /* the last job or ping went well */
MYSQL *db_connect(const struct db_options *o, struct err *e);
/* Runs one statement; maps server errors to the codes of db_job_fn. */
int db_exec(MYSQL *conn, const char *sql, size_t len);
/* A transaction of what body does, one statement after the other; an error of it or of COMMIT comes back, and db_submit's thread rolls back. */
int db_transaction(MYSQL *conn, db_job_fn body, void *arg);
int db_execf(MYSQL *conn, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Appends 'text' escaped and quoted. */
void db_quote(MYSQL *conn, struct buf *b, const char *text);
int db_schema(MYSQL *conn);
struct db_stats {
	uint64_t tried, committed, retried, failed;
};
struct db_stats db_stats(const struct db *db);

/* ---- server state ---- */
struct mes {
	uv_loop_t *loop;
	struct mailbox *box;
	struct db *db;
	struct http_server *http;
	struct reports *reports;
	struct dispatch *dispatch;
	struct shift *shift; /* NULL = no folder for shift reports */
	struct db_options db_options;
	const char *site;
};

bool mes_name_ok(const char *s);

/* ---- answers: the operations do not know whether HTTP or gRPC asked ---- */
struct mes_answer {
	/* Once, on the loop thread. status as in HTTP: 200, 201, 400, 503 ...; j (borrowed) on success, else text. */
	void (*done)(void *ctx, int status, json_t *j, const char *text);
	void *ctx;
};
struct mes_answer http_answer(struct http_req *req); /* server.c */

static inline void answer_json(const struct mes_answer *a, int status, json_t *j)
{
	a->done(a->ctx, status, j, NULL);
}

static inline void answer_text(const struct mes_answer *a, int status, const char *text)
{
	a->done(a->ctx, status, NULL, text);
}

/* ---- orders.c ---- */
/* key may be NULL (refused). body: {product, quantity, source, machines: [NAME, ...]} -> 201 or 200 {id, key, workOrders} */
void orders_create(struct mes *m, const char *key, const json_t *body, struct mes_answer a);
void orders_get(struct mes *m, struct http_req *req);
void summary_get(struct mes *m, struct http_req *req);

/* ---- reports.c ---- */
struct reports *reports_new(struct mes *m);
/* list: [{machine, site, seq, state, produced, at_ms}, ...], 1 to 500; answered when they are committed: {stored} */
void reports_add(struct mes *m, const json_t *list, struct mes_answer a);

/* ---- shift.c: a file a domain, line and period in a shared folder ---- */
int shift_new(struct mes *m, const char *dir, int64_t length_ms, struct shift **ret, struct err *e);
/* A committed state report. s may be NULL. */
void shift_count(struct shift *s, const char *site, const char *state, int64_t produced);
/* rest: what follows /api/v1/shift-reports, "" or "/DOMAIN/LINE/NAME". */
void shift_get(struct mes *m, struct http_req *req, const char *rest);
void shift_metrics(struct shift *s, struct buf *out);

/* ---- dispatch.c ---- */
struct dispatch *dispatch_new(struct mes *m);
/* Answers {workOrders: [...]}, at the latest after wait_s (0 to 60). ack: "ID,ID": these are received, said first;
 * "": as before; NULL: a new connection, what was sent before may not have arrived. */
void dispatch_wait(struct mes *m, const char *machine, const char *ack, int64_t wait_s, struct mes_answer a);
size_t dispatch_waiting(const struct dispatch *d);

/* ---- rpc.c: the same over gRPC (proto/mes.proto) ---- */
int rpc_serve(struct mes *m, const char *address, struct err *e);
