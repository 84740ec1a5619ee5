/* SPDX-License-Identifier: Apache-2.0 */
/* Dispatch: a machine asks for its work orders with a long poll; a poller thread reads from the nearest database member, every few
 * milliseconds, the new work orders of the machines that wait here. Galera has brought them there from whatever domain the
 * order was placed in, so MES servers need not know each other.
 *
 * A work order is 'new' until the machine says that it has it (ack in its next poll), so it may be sent more than once; the
 * machine drops doubles by id. It is sent again to the same machine only after RESEND_MS. */
#include "mes.h"

#define POLL_MS	     12
#define POLL_IDLE_MS 50
#define AGE_MS	     10000 /* then connect anew: a nearer member may be there by now */
#define WAIT_S_MAX   60
#define RESEND_MS    1500
#define SENT_MAX     256 /* remembered a machine */
#define WAITERS_MAX  5000
#define ACK_LIMIT_MS 4000
#define ROWS_MAX     2000
#define FEW_MAX	     100 /* new work orders of all machines, up to which they are read without naming machines */

struct sent {
	uint64_t id, at;
};

struct machine {
	char name[MES_NAME_MAX + 1];
	bool waits;
	struct mes_answer answer; /* to whom, while it waits */
	uint64_t until;
	struct sent sent[SENT_MAX];
	size_t n_sent;
};

struct row {
	uint64_t id, order_id;
	int64_t quantity;
	char machine[MES_NAME_MAX + 1], key[MES_KEY_MAX + 1], product[MES_NAME_MAX + 1];
};

struct rows {
	struct dispatch *d;
	struct row *row;
	size_t n;
};

struct dispatch {
	struct mes *m;
	struct strmap *machines; /* name -> struct machine, those seen since the start; bound WAITERS_MAX */
	size_t waiting;
	uv_mutex_t lock;
	char *names; /* 'a','b',...: who waits; under lock */
	bool names_stale;
};

struct ack {
	struct mes *m;
	struct mes_answer answer;
	char machine[MES_NAME_MAX + 1];
	char ids[2048];
	int64_t wait_s;
};

/* ---- poller thread ---- */
static char *names_copy(struct dispatch *d)
{
	char *s;

	uv_mutex_lock(&d->lock);
	s = d->names ? xstrdup(d->names) : NULL;
	uv_mutex_unlock(&d->lock);
	return s;
}

#define NEW_WORK_ORDERS                                                                        \
	"SELECT w.id,w.order_id,w.quantity,w.machine,o.idem_key,o.product FROM work_orders w " \
	"JOIN orders o ON o.id=w.order_id WHERE w.state=0"

/* Mostly there are few new work orders at all, and to ask for those of a hundred machines by name costs many times as much. */
static int ask(MYSQL *conn, const char *names, MYSQL_RES **ret)
{
	int e = db_execf(conn, NEW_WORK_ORDERS " ORDER BY w.id LIMIT %d", FEW_MAX + 1);

	*ret = e == 0 ? mysql_store_result(conn) : NULL;
	if (*ret && mysql_num_rows(*ret) > FEW_MAX) {
		mysql_free_result(*ret);
		e = db_execf(conn, NEW_WORK_ORDERS " AND w.machine IN (%s) ORDER BY w.id LIMIT %d", names,
			     ROWS_MAX);
		*ret = e == 0 ? mysql_store_result(conn) : NULL;
	}
	return e;
}

static int read_rows(MYSQL *conn, const char *names, struct rows *rows)
{
	MYSQL_RES *res;
	MYSQL_ROW r;
	int e = ask(conn, names, &res);

	if (e < 0)
		return e;
	if (!res)
		return -ENOTCONN;
	rows->row = xcalloc((size_t)mysql_num_rows(res), sizeof(*rows->row));
	while ((r = mysql_fetch_row(res))) {
		struct row *w = &rows->row[rows->n];

		if (str_u64(r[0], &w->id) < 0 || str_u64(r[1], &w->order_id) < 0 ||
		    str_i64(r[2], &w->quantity) < 0)
			continue;
		snprintf(w->machine, sizeof(w->machine), "%s", r[3]);
		snprintf(w->key, sizeof(w->key), "%s", r[4]);
		snprintf(w->product, sizeof(w->product), "%s", r[5]);
		rows->n++;
	}
	mysql_free_result(res);
	return 0;
}

static void deliver(void *arg);

static int poll_once(struct dispatch *d, MYSQL *conn, unsigned *ret_wait_ms)
{
	_cleanup_free_ char *names = names_copy(d);
	struct rows *rows;
	int r;

	*ret_wait_ms = names ? POLL_MS : POLL_IDLE_MS;
	if (!names)
		return 0;
	rows = xcalloc(1, sizeof(*rows));
	rows->d = d;
	r = read_rows(conn, names, rows);
	if (r == 0 && rows->n && mailbox_post(d->m->box, deliver, rows) == 0)
		return 0;
	free(rows->row);
	free(rows);
	return r;
}

static void poller(void *arg)
{
	struct dispatch *d = arg;
	MYSQL *conn = NULL;
	uint64_t until = 0;

	mysql_thread_init();
	for (;;) {
		unsigned wait_ms = POLL_IDLE_MS;

		if (!conn) {
			conn = db_connect(&d->m->db_options, NULL);
			until = clock_ms() + AGE_MS;
		}
		if (conn && (poll_once(d, conn, &wait_ms) == -ENOTCONN || clock_ms() >= until)) {
			mysql_close(conn);
			conn = NULL;
		}
		usleep(wait_ms * 1000);
	}
}

/* ---- loop thread ---- */
static void refresh_names(struct dispatch *d)
{
	_cleanup_buf_ struct buf b = {0};
	struct machine *mc;
	const char *name;

	if (!d->names_stale)
		return;
	d->names_stale = false;
	strmap_foreach (d->machines, name, mc)
		if (mc->waits)
			buf_addf(&b, "%s'%s'", b.len ? "," : "", name);
	uv_mutex_lock(&d->lock);
	free(d->names);
	d->names = b.len ? buf_take(&b) : NULL;
	uv_mutex_unlock(&d->lock);
}

static void set_waiting(struct dispatch *d, struct machine *mc, bool waits)
{
	if (mc->waits != waits)
		d->waiting += waits ? 1 : (size_t)-1;
	mc->waits = waits;
	d->names_stale = true;
}

/* Has this work order been sent lately? If not, remembers that it is now. The oldest entry makes room. */
static bool sent_lately(struct machine *mc, uint64_t id, uint64_t now)
{
	struct sent *oldest = &mc->sent[0];

	for (size_t i = 0; i < mc->n_sent; i++) {
		if (mc->sent[i].id == id) {
			if (now - mc->sent[i].at < RESEND_MS)
				return true;
			mc->sent[i].at = now;
			return false;
		}
		if (mc->sent[i].at < oldest->at)
			oldest = &mc->sent[i];
	}
	if (mc->n_sent < SENT_MAX)
		oldest = &mc->sent[mc->n_sent++];
	*oldest = (struct sent){id, now};
	return false;
}

static void answer(struct dispatch *d, struct machine *mc, json_t *list)
{
	_cleanup_json_ json_t *j = json_pack("{s:o}", "workOrders", list);

	set_waiting(d, mc, false);
	answer_json(&mc->answer, 200, j);
}

static void deliver(void *arg)
{
	struct rows *rows = arg;
	struct dispatch *d = rows->d;
	struct strmap *lists = strmap_new();
	uint64_t now = clock_ms();
	struct machine *mc;
	const char *name;
	json_t *list;

	for (size_t i = 0; i < rows->n; i++) {
		struct row *w = &rows->row[i];

		mc = strmap_get(d->machines, w->machine);
		if (!mc || !mc->waits || sent_lately(mc, w->id, now))
			continue;
		list = strmap_get(lists, w->machine);
		if (!list)
			strmap_set(lists, w->machine, list = json_array());
		if (json_array_size(list) < MES_WORK_ORDERS_MAX)
			json_array_append_new(
				list, json_pack("{s:I,s:I,s:s,s:s,s:I}", "id", (json_int_t)w->id, "orderId",
						(json_int_t)w->order_id, "key", w->key, "product", w->product,
						"quantity", (json_int_t)w->quantity));
	}
	strmap_foreach (lists, name, list)
		answer(d, strmap_get(d->machines, name), list);
	strmap_free(lists, NULL);
	free(rows->row);
	free(rows);
	refresh_names(d);
}

static void on_tick(void *ctx)
{
	struct dispatch *d = ctx;
	uint64_t now = clock_ms();
	struct machine *mc;
	const char *name;

	strmap_foreach (d->machines, name, mc)
		if (mc->waits && now >= mc->until)
			answer(d, mc, json_array());
	refresh_names(d);
}

struct dispatch *dispatch_new(struct mes *m)
{
	struct dispatch *d = xcalloc(1, sizeof(*d));
	uv_thread_t t;

	d->m = m;
	d->machines = strmap_new();
	uv_mutex_init(&d->lock);
	ensure(uv_thread_create(&t, poller, d) == 0);
	timer_start(timer_new(m->loop, on_tick, d), 100, 100);
	return d;
}

static void wait_for(struct dispatch *d, struct mes_answer a, const char *name, int64_t wait_s, bool acks)
{
	struct machine *mc = strmap_get(d->machines, name);

	if (!mc && wait_s) {
		if (strmap_len(d->machines) >= WAITERS_MAX) {
			answer_text(&a, 503, "too many machines on this server\n");
			return;
		}
		mc = xcalloc(1, sizeof(*mc));
		strcpy(mc->name, name);
		strmap_set(d->machines, name, mc);
	}
	if (!wait_s) {
		_cleanup_json_ json_t *j = json_pack("{s:[]}", "workOrders");

		answer_json(&a, 200, j);
		return;
	}
	if (mc->waits) /* an older poll of the same machine, maybe of a connection that is dead */
		answer(d, mc, json_array());
	if (!acks)
		mc->n_sent = 0; /* what was sent on an older poll may not have arrived */
	mc->answer = a;
	mc->until = clock_ms() + (uint64_t)wait_s * 1000;
	set_waiting(d, mc, true);
	refresh_names(d);
}

static int job_ack(MYSQL *conn, void *arg)
{
	struct ack *a = arg;

	return db_execf(conn,
			"UPDATE work_orders SET state=1,received_at=NOW(3) WHERE id IN (%s) AND machine='%s' "
			"AND state=0",
			a->ids, a->machine);
}

static void on_acked(void *arg, int result)
{
	struct ack *a = arg;

	if (result == 0)
		wait_for(a->m->dispatch, a->answer, a->machine, a->wait_s, true);
	else
		answer_text(&a->answer, 503, "database not reachable; ask again with the same ack\n");
	free(a);
}

static bool ids_ok(const char *s)
{
	size_t n = strlen(s);

	return n && n < 2048 && strspn(s, "0123456789,") == n && s[0] != ',' && s[n - 1] != ',' &&
	       !strstr(s, ",,");
}

void dispatch_wait(struct mes *m, const char *machine, const char *ack, int64_t wait_s,
		   struct mes_answer answer_to)
{
	struct ack *a;

	if (!mes_name_ok(machine) || wait_s < 0 || wait_s > WAIT_S_MAX || (ack && *ack && !ids_ok(ack))) {
		answer_text(
			&answer_to, 400,
			"machine: a name; wait: 0 to 60 seconds; ack: work order ids, separated by commas\n");
		return;
	}
	if (!ack || !*ack) {
		wait_for(m->dispatch, answer_to, machine, wait_s, ack != NULL);
		return;
	}
	a = xcalloc(1, sizeof(*a));
	a->m = m;
	a->answer = answer_to;
	a->wait_s = wait_s;
	strcpy(a->machine, machine);
	strcpy(a->ids, ack);
	if (db_submit(m->db, job_ack, on_acked, a, ACK_LIMIT_MS) < 0)
		on_acked(a, -ENOBUFS);
}

size_t dispatch_waiting(const struct dispatch *d)
{
	return d->waiting;
}
