/* SPDX-License-Identifier: Apache-2.0 */
/* State reports: requests of a few milliseconds are gathered into one transaction, and each is answered when that has been
 * committed. (machine, seq) is the primary key: a report that comes again is ignored, so machines may send again as
 * often as they like. `machines` holds the newest state of each. */
#include "mes.h"

#define BATCH_WAIT_MS	40 /* a third of the commits of 10 ms, at 100 machines a second */
#define BATCHES_MAX	6  /* under way at once */
#define COMMIT_LIMIT_MS 4000

struct report {
	char machine[MES_NAME_MAX + 1], site[MES_NAME_MAX + 1], state[17];
	uint64_t seq;
	int64_t produced, at_ms;
};

struct waiting {
	struct mes_answer answer;
	size_t n;
};

struct batch {
	struct mes *m;
	struct report *reports;
	size_t n, cap;
	struct waiting *waiting;
	size_t n_waiting;
};

struct reports {
	struct mes *m;
	struct timer *timer;
	struct batch *open;
	size_t under_way;
	bool armed;
};

static void batch_free(struct batch *b)
{
	free(b->reports);
	free(b->waiting);
	free(b);
}

static void add_values(MYSQL *conn, struct buf *b, const struct report *r, bool first)
{
	buf_adds(b, first ? "(" : ",(");
	db_quote(conn, b, r->machine);
	buf_addf(b, ",%llu,", (unsigned long long)r->seq);
	db_quote(conn, b, r->state);
	buf_addf(b, ",%lld,FROM_UNIXTIME(%lld.%03d))", (long long)r->produced, (long long)(r->at_ms / 1000),
		 (int)(r->at_ms % 1000));
}

static void add_machine(MYSQL *conn, struct buf *b, const struct report *r, bool first)
{
	buf_adds(b, first ? "(" : ",(");
	db_quote(conn, b, r->machine);
	buf_adds(b, ",");
	db_quote(conn, b, r->site);
	buf_adds(b, ",");
	db_quote(conn, b, r->state);
	buf_addf(b, ",%llu,FROM_UNIXTIME(%lld.%03d))", (unsigned long long)r->seq,
		 (long long)(r->at_ms / 1000), (int)(r->at_ms % 1000));
}

/* Sorted by key: rows are locked in one order by every batch, so batches do not deadlock each other. */
static int by_key(const void *pa, const void *pb)
{
	const struct report *a = pa, *b = pb;
	int c = strcmp(a->machine, b->machine);

	return c ? c : a->seq < b->seq ? -1 : a->seq > b->seq;
}

static int store_rows(MYSQL *conn, void *arg)
{
	_cleanup_buf_ struct buf sql = {0}, newest = {0};
	struct batch *b = arg;
	bool first = true;
	int r;

	buf_adds(&sql, "INSERT IGNORE INTO reports (machine,seq,state,produced,machine_at) VALUES ");
	for (size_t i = 0; i < b->n; i++)
		add_values(conn, &sql, &b->reports[i], i == 0);
	r = db_exec(conn, sql.data, sql.len);
	if (r < 0)
		return r;
	buf_adds(&newest, "INSERT INTO machines (name,site,state,seq,seen_at) VALUES ");
	for (size_t i = 0; i < b->n; i++) {
		if (i + 1 < b->n && streq(b->reports[i].machine, b->reports[i + 1].machine))
			continue; /* only its newest */
		add_machine(conn, &newest, &b->reports[i], first);
		first = false;
	}
	buf_adds(&newest,
		 " ON DUPLICATE KEY UPDATE state=IF(VALUES(seq)>=seq,VALUES(state),state),"
		 "site=IF(VALUES(seq)>=seq,VALUES(site),site),"
		 "seen_at=IF(VALUES(seq)>=seq,VALUES(seen_at),seen_at),seq=GREATEST(seq,VALUES(seq))");
	return db_exec(conn, newest.data, newest.len);
}

static int job_store(MYSQL *conn, void *arg)
{
	return db_transaction(conn, store_rows, arg);
}

static void flush(struct reports *rs);

static void on_stored(void *arg, int result)
{
	struct batch *b = arg;

	for (size_t i = 0; i < b->n_waiting; i++) {
		struct waiting *w = &b->waiting[i];
		_cleanup_json_ json_t *j = json_pack("{s:I}", "stored", (json_int_t)w->n);

		if (result == 0)
			answer_json(&w->answer, 200, j);
		else
			answer_text(&w->answer, 503, "database not reachable; send the same reports again\n");
	}
	for (size_t i = 0; result == 0 && i < b->n; i++)
		shift_count(b->m->shift, b->reports[i].site, b->reports[i].state, b->reports[i].produced);
	b->m->reports->under_way--;
	if (b->m->reports->open && !b->m->reports->armed)
		flush(b->m->reports);
	batch_free(b);
}

static void flush(struct reports *rs)
{
	struct batch *b = rs->open;

	rs->armed = false;
	if (!b || rs->under_way >= BATCHES_MAX)
		return; /* on_stored comes back here */
	rs->open = NULL;
	qsort(b->reports, b->n, sizeof(*b->reports), by_key);
	rs->under_way++;
	if (db_submit(rs->m->db, job_store, on_stored, b, COMMIT_LIMIT_MS) < 0)
		on_stored(b, -ENOBUFS);
}

static void on_timer(void *ctx)
{
	flush(ctx);
}

struct reports *reports_new(struct mes *m)
{
	struct reports *rs = xcalloc(1, sizeof(*rs));

	rs->m = m;
	rs->timer = timer_new(m->loop, on_timer, rs);
	return rs;
}

static int read_report(const json_t *j, struct report *r)
{
	const char *machine = js_str(j, "machine"), *state = js_str(j, "state"),
		   *site = js_str_or(j, "site", "");
	int64_t seq = js_int(j, "seq", -1);

	r->produced = js_int(j, "produced", 0);
	r->at_ms = js_int(j, "at_ms", -1);
	if (!machine || !mes_name_ok(machine) || !state || !mes_name_ok(state) || strlen(state) > 16 ||
	    seq < 0 || r->produced < 0 || r->produced > 1000000 || r->at_ms < 0 || r->at_ms > 4000000000000 ||
	    (*site && !mes_name_ok(site)))
		return -EINVAL;
	strcpy(r->machine, machine);
	strcpy(r->state, state);
	strcpy(r->site, site);
	r->seq = (uint64_t)seq;
	return 0;
}

static struct batch *open_batch(struct reports *rs, size_t more)
{
	struct batch *b = rs->open;

	if (b && b->n + more > MES_BATCH_MAX && rs->under_way < BATCHES_MAX)
		flush(rs), b = NULL;
	if (b && b->n + more > 20 * MES_BATCH_MAX)
		return NULL; /* the database is far behind */
	if (!b) {
		b = rs->open = xcalloc(1, sizeof(*b));
		b->m = rs->m;
	}
	if (b->n + more > b->cap) {
		b->cap = MAX(b->cap * 2, b->n + more);
		b->reports = xrealloc(b->reports, b->cap * sizeof(*b->reports));
	}
	return b;
}

void reports_add(struct mes *m, const json_t *list, struct mes_answer a)
{
	struct reports *rs = m->reports;
	size_t n = json_array_size(list), i; /* 0 when it is no array */
	struct batch *b;
	json_t *j;

	if (!n || n > MES_BATCH_MAX) {
		answer_text(&a, 400, "an array of 1 to 500 reports is needed\n");
		return;
	}
	b = open_batch(rs, n);
	if (!b) {
		answer_text(&a, 503, "too many reports wait for the database; send them again later\n");
		return;
	}
	json_array_foreach (list, i, j) {
		if (read_report(j, &b->reports[b->n + i]) < 0) {
			answer_text(&a, 400,
				    "a report needs machine, seq, state, at_ms; nothing was stored\n");
			return;
		}
	}
	b->n += n;
	b->waiting = xrealloc(b->waiting, (b->n_waiting + 1) * sizeof(*b->waiting));
	b->waiting[b->n_waiting++] = (struct waiting){a, n};
	if (!rs->armed) {
		rs->armed = true;
		timer_start(rs->timer, BATCH_WAIT_MS, 0);
	}
}
