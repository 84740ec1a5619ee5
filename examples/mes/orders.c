/* SPDX-License-Identifier: Apache-2.0 */
/* Orders: created once per Idempotency-Key, together with one work order a machine, in one transaction. A second request
 * with the same key gets the first one's answer with 200 instead of 201. Also the figures for the page. */
#include "mes.h"

#define COMMIT_LIMIT_MS 6000
#define READ_LIMIT_MS	3000
#define LIST_MAX	500

bool mes_name_ok(const char *s)
{
	size_t n = s ? strlen(s) : 0;

	return n >= 1 && n <= MES_NAME_MAX &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

static bool key_ok(const char *s)
{
	size_t n = s ? strlen(s) : 0;

	return n >= 1 && n <= MES_KEY_MAX &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") == n;
}

struct order {
	struct mes_answer answer;
	char key[MES_KEY_MAX + 1], product[MES_NAME_MAX + 1], source[MES_NAME_MAX + 1];
	char machines[MES_ORDER_MACHINES_MAX][MES_NAME_MAX + 1];
	size_t n_machines;
	int64_t quantity;
	uint64_t id;
	bool existed;
};

static int find_by_key(MYSQL *conn, struct order *o)
{
	MYSQL_RES *res;
	MYSQL_ROW row;
	int r = db_execf(conn, "SELECT id FROM orders WHERE idem_key='%s'",
			 o->key); /* key_ok: nothing to escape */

	if (r < 0)
		return r;
	res = mysql_store_result(conn);
	if (!res)
		return -ENOTCONN;
	row = mysql_fetch_row(res);
	r = row ? str_u64(row[0], &o->id) : -ENOENT;
	mysql_free_result(res);
	return r;
}

static int insert_rows(MYSQL *conn, void *arg)
{
	_cleanup_buf_ struct buf sql = {0};
	struct order *o = arg;
	/* key_ok, mes_name_ok: nothing to escape */
	int r = db_execf(conn,
			 "INSERT INTO orders (idem_key,product,quantity,source) VALUES ('%s','%s',%lld,'%s')",
			 o->key, o->product, (long long)o->quantity, o->source);

	if (r < 0)
		return r;
	o->id = mysql_insert_id(conn);
	buf_adds(&sql, "INSERT INTO work_orders (order_id,machine,quantity) VALUES ");
	for (size_t i = 0; i < o->n_machines; i++)
		buf_addf(&sql, "%s(%llu,'%s',%lld)", i ? "," : "", (unsigned long long)o->id, o->machines[i],
			 (long long)o->quantity);
	return db_exec(conn, sql.data, sql.len);
}

/* May run again after an attempt whose outcome is unknown: then the key finds what that one committed. */
static int job_create(MYSQL *conn, void *arg)
{
	struct order *o = arg;
	int r = db_transaction(conn, insert_rows, o);

	if (r != -EEXIST)
		return r;
	r = db_exec(conn, "ROLLBACK", 8);
	if (r == 0)
		r = find_by_key(conn, o);
	o->existed = r == 0;
	return r == -ENOENT ? -EAGAIN : r; /* the other one has rolled back meanwhile */
}

static void on_created(void *arg, int result)
{
	_cleanup_json_ json_t *j = NULL;
	struct order *o = arg;

	if (result == 0) {
		j = json_pack("{s:I,s:s,s:I}", "id", (json_int_t)o->id, "key", o->key, "workOrders",
			      (json_int_t)o->n_machines);
		answer_json(&o->answer, o->existed ? 200 : 201, j);
	} else {
		answer_text(&o->answer, result == -EIO ? 500 : 503,
			    "not known to be stored; send it again with the same Idempotency-Key\n");
	}
	free(o);
}

static const char *read_machines(const json_t *body, struct order *o)
{
	json_t *list = json_object_get(body, "machines"), *j;
	size_t i;

	if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > MES_ORDER_MACHINES_MAX)
		return "machines: 1 to 64 machine names\n";
	json_array_foreach (list, i, j) {
		if (!mes_name_ok(json_string_value(j)))
			return "machines: a name has 1 to 32 letters, digits, '-', '_', '.'\n";
		strcpy(o->machines[i], json_string_value(j));
	}
	o->n_machines = i;
	return NULL;
}

static const char *read_order(const char *key, const json_t *body, struct order *o)
{
	const char *product = js_str_or(body, "product", ""), *source = js_str_or(body, "source", "unknown");

	if (!json_is_object(body))
		return "body: a JSON object {product, quantity, source, machines}\n";
	if (!key_ok(key))
		return "Idempotency-Key: 1 to 64 letters, digits, '-', '_', '.', ':'\n";
	o->quantity = js_int(body, "quantity", 0);
	if (!mes_name_ok(product) || !mes_name_ok(source))
		return "product, source: 1 to 32 letters, digits, '-', '_', '.'\n";
	if (o->quantity < 1 || o->quantity > 1000000)
		return "quantity: 1 to 1000000\n";
	strcpy(o->key, key);
	strcpy(o->product, product);
	strcpy(o->source, source);
	return read_machines(body, o);
}

void orders_create(struct mes *m, const char *key, const json_t *body, struct mes_answer a)
{
	struct order *o = xcalloc(1, sizeof(*o));
	const char *wrong = read_order(key, body, o);

	o->answer = a;
	if (wrong) {
		answer_text(&a, 400, wrong);
		free(o);
		return;
	}
	if (db_submit(m->db, job_create, on_created, o, COMMIT_LIMIT_MS) < 0)
		on_created(o, -ENOBUFS);
}

/* ---- reads: one statement, rows as JSON ---- */
struct query {
	struct http_req *req;
	const char *site; /* named in the answer; NULL = not */
	const char *sql[4], *name[4];
	char text[400];
	size_t n;
	json_t *answer;
};

static json_t *rows_new(MYSQL_RES *res)
{
	unsigned n = mysql_num_fields(res);
	MYSQL_FIELD *f = mysql_fetch_fields(res);
	json_t *rows = json_array();
	MYSQL_ROW row;

	while ((row = mysql_fetch_row(res))) {
		json_t *o = json_object();

		for (unsigned i = 0; i < n; i++) {
			int64_t v;

			if (row[i] && IS_NUM(f[i].type) && str_i64(row[i], &v) == 0)
				json_object_set_new(o, f[i].name, json_integer(v));
			else
				json_object_set_new(o, f[i].name, row[i] ? json_string(row[i]) : json_null());
		}
		json_array_append_new(rows, o);
	}
	return rows;
}

static int job_query(MYSQL *conn, void *arg)
{
	struct query *q = arg;

	json_object_clear(q->answer);
	for (size_t i = 0; i < q->n; i++) {
		MYSQL_RES *res;
		int r = db_exec(conn, q->sql[i], strlen(q->sql[i]));

		if (r < 0)
			return r;
		res = mysql_store_result(conn);
		if (!res)
			return -ENOTCONN;
		json_object_set_new(q->answer, q->name[i], rows_new(res));
		mysql_free_result(res);
	}
	return 0;
}

static void on_queried(void *arg, int result)
{
	struct query *q = arg;

	if (q->site)
		json_object_set_new(q->answer, "site", json_string(q->site));
	if (result == 0)
		http_reply_json(q->req, 200, q->answer);
	else
		http_reply_text(q->req, 503, "database not reachable\n");
	json_decref(q->answer);
	free(q);
}

static struct query *query_new(struct http_req *req)
{
	struct query *q = xcalloc(1, sizeof(*q));

	q->req = req;
	q->answer = json_object();
	return q;
}

static void query_add(struct query *q, const char *name, const char *sql)
{
	ensure(q->n < ARRAY_SIZE(q->sql));
	q->name[q->n] = name;
	q->sql[q->n++] = sql;
}

static void query_run(struct mes *m, struct query *q)
{
	if (db_submit(m->db, job_query, on_queried, q, READ_LIMIT_MS) < 0)
		on_queried(q, -ENOBUFS);
}

/* GET /api/orders[?key=K | ?limit=N], newest first */
void orders_get(struct mes *m, struct http_req *req)
{
	const char *key = http_req_query(req, "key"), *limit = http_req_query(req, "limit");
	struct query *q;
	int64_t n = 50;

	if ((key && !key_ok(key)) || (limit && (str_i64(limit, &n) < 0 || n < 1 || n > LIST_MAX))) {
		http_reply_text(req, 400, "key: as in Idempotency-Key; limit: 1 to 500\n");
		return;
	}
	q = query_new(req);
	if (key)
		snprintf(q->text, sizeof(q->text),
			 "SELECT o.id,o.idem_key,o.product,o.quantity,o.source,o.created_at,COUNT(w.id) AS "
			 "work_orders,"
			 "SUM(w.state) AS received FROM orders o LEFT JOIN work_orders w ON w.order_id=o.id "
			 "WHERE o.idem_key='%s' "
			 "GROUP BY o.id",
			 key);
	else
		snprintf(q->text, sizeof(q->text),
			 "SELECT id,idem_key,product,quantity,source,created_at FROM orders ORDER BY id DESC "
			 "LIMIT %d",
			 (int)n);
	query_add(q, "orders", q->text);
	query_run(m, q);
}

/* GET /api/summary: what the page shows */
void summary_get(struct mes *m, struct http_req *req)
{
	struct query *q = query_new(req);

	query_add(q, "machines",
		  "SELECT name,site,state,seq,TIMESTAMPDIFF(SECOND,seen_at,NOW(3)) AS silent_s FROM machines "
		  "ORDER BY name LIMIT 1000");
	query_add(q, "orders",
		  "SELECT o.id,o.product,o.quantity,o.source,o.created_at,COUNT(w.id) AS "
		  "work_orders,SUM(w.state) AS received "
		  "FROM (SELECT * FROM orders ORDER BY id DESC LIMIT 12) o LEFT JOIN work_orders w ON "
		  "w.order_id=o.id GROUP BY o.id "
		  "ORDER BY o.id DESC");
	query_add(q, "members",
		  "SELECT VARIABLE_NAME AS name,VARIABLE_VALUE AS value FROM "
		  "information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN "
		  "('wsrep_cluster_size','wsrep_cluster_status','wsrep_local_state_comment')");
	q->site = m->site;
	query_add(q, "totals",
		  "SELECT (SELECT COUNT(*) FROM orders) AS orders,(SELECT COUNT(*) FROM work_orders WHERE "
		  "state=0) AS waiting");
	query_run(m, q);
}
