/* SPDX-License-Identifier: Apache-2.0 */
/* mes-server: orders, work orders and machine states over HTTP/JSON, kept in MariaDB. Any number of servers may run on one
 * database; none holds state that another needs.
 *
 *   POST /api/orders (header Idempotency-Key)   GET /api/orders   GET /api/summary
 *   GET /api/v1/shift-reports?domain=&line=&limit=   GET /api/v1/shift-reports/DOMAIN/LINE/NAME   (shift.c)
 *   POST /api/reports                           GET /api/machines/NAME/work-orders?wait=S&ack=ID,...
 *   gRPC: proto/mes.proto, rpc.c
 *   GET / (page)   /healthz   /readyz (database reachable)   /metrics */
#include "mes.h"

extern const char mes_page[];
extern const size_t mes_page_len;

struct server_settings {
	char *address, *grpc_address, *site, *db_host, *db_user, *db_password, *db_name, *shift_reports;
	int64_t port, db_port, db_threads, shift_length_ms;
};

#define S(field) offsetof(struct server_settings, field)
static const struct setting table[] = {
	{"address", SETTING_STRING, S(address), "0.0.0.0", 0, 0, "IP", "address to listen on"},
	{"port", SETTING_INT, S(port), "8080", 0, 65535, "PORT", "port to listen on"},
	{"grpc-address", SETTING_STRING, S(grpc_address), "0.0.0.0:9090", 0, 0, "IP:PORT",
	 "gRPC; empty = none"},
	{"site", SETTING_STRING, S(site), "mes", 0, 0, "NAME", "name shown on the page"},
	{"db-host", SETTING_STRING, S(db_host), "mariadb", 0, 0, "HOST", "database"},
	{"db-port", SETTING_INT, S(db_port), "3306", 1, 65535, "PORT", "its port"},
	{"db-user", SETTING_STRING, S(db_user), "mes", 0, 0, "USER",
	 "its user; password from $MES_DB_PASSWORD"},
	{"db-name", SETTING_STRING, S(db_name), "mes", 0, 0, "NAME", "its database"},
	{"shift-reports", SETTING_STRING, S(shift_reports), NULL, 0, 0, "DIR",
	 "folder, shared by all servers, for shift reports; none when missing"},
	{"shift-length", SETTING_DURATION, S(shift_length_ms), "60s", 1000, 86400000, "TIME",
	 "period of one shift report"},
	{"db-threads", SETTING_INT, S(db_threads), "6", 1, 64, "N", "connections"},
};

static void metrics(struct mes *m, struct http_req *req)
{
	struct db_stats s = db_stats(m->db);
	_cleanup_buf_ struct buf b = {0};

	buf_addf(&b,
		 "# TYPE mes_transactions_total counter\nmes_transactions_total{result=\"tried\"} %llu\n"
		 "mes_transactions_total{result=\"committed\"} "
		 "%llu\nmes_transactions_total{result=\"retried\"} %llu\n"
		 "mes_transactions_total{result=\"failed\"} %llu\n# TYPE mes_machines_waiting "
		 "gauge\nmes_machines_waiting %zu\n",
		 (unsigned long long)s.tried, (unsigned long long)s.committed, (unsigned long long)s.retried,
		 (unsigned long long)s.failed, dispatch_waiting(m->dispatch));
	shift_metrics(m->shift, &b);
	http_reply(req, 200, "text/plain; version=0.0.4", b.data, b.len, NULL);
}

static void on_http_answer(void *ctx, int status, json_t *j, const char *text)
{
	if (j)
		http_reply_json(ctx, status, j);
	else
		http_reply_text(ctx, status, text);
}

struct mes_answer http_answer(struct http_req *req)
{
	return (struct mes_answer){on_http_answer, req};
}

/* POST of a JSON body: orders and reports. */
static void post_json(struct mes *m, struct http_req *req, bool order)
{
	_cleanup_json_ json_t *body = NULL;
	struct err e = {0};
	size_t len;
	const char *text = http_req_body(req, &len);

	if (js_parse_new(text, len, &body, &e) < 0)
		http_reply_text(req, 400, e.text);
	else if (order)
		orders_create(m, http_req_header(req, "idempotency-key"), body, http_answer(req));
	else
		reports_add(m, body, http_answer(req));
}

static void get_work_orders(struct mes *m, struct http_req *req, const char *machine)
{
	const char *wait = http_req_query(req, "wait");
	int64_t wait_s = 0;

	if (wait && str_i64(wait, &wait_s) < 0)
		wait_s = -1; /* refused there */
	dispatch_wait(m, machine, http_req_query(req, "ack"), wait_s, http_answer(req));
}

/* /api/machines/NAME/work-orders */
static bool machine_path(const char *path, char name[MES_NAME_MAX + 1])
{
	const char *p = path + strlen("/api/machines/"), *slash;

	if (!str_starts(path, "/api/machines/") || !(slash = strchr(p, '/')) ||
	    !streq(slash, "/work-orders") || slash - p > MES_NAME_MAX)
		return false;
	memcpy(name, p, (size_t)(slash - p));
	name[slash - p] = 0;
	return mes_name_ok(name);
}

#define SHIFT_PATH "/api/v1/shift-reports"

static void route(void *ctx, struct http_req *req)
{
	const char *path = http_req_path(req), *method = http_req_method(req);
	bool get = streq(method, "GET"), post = streq(method, "POST");
	char name[MES_NAME_MAX + 1];
	struct mes *m = ctx;

	if (post && streq(path, "/api/reports"))
		post_json(m, req, false);
	else if (post && streq(path, "/api/orders"))
		post_json(m, req, true);
	else if (get && streq(path, "/api/orders"))
		orders_get(m, req);
	else if (get && streq(path, "/api/summary"))
		summary_get(m, req);
	else if (get && str_starts(path, SHIFT_PATH) && strchr("/", path[strlen(SHIFT_PATH)]))
		shift_get(m, req, path + strlen(SHIFT_PATH));
	else if (get && machine_path(path, name))
		get_work_orders(m, req, name);
	else if (get && streq(path, "/"))
		http_reply(req, 200, "text/html; charset=utf-8", mes_page, mes_page_len, NULL);
	else if (get && streq(path, "/healthz"))
		http_reply_text(req, 200, "ok\n");
	else if (get && streq(path, "/readyz"))
		http_reply_text(req, db_ready(m->db) ? 200 : 503,
				db_ready(m->db) ? "ok\n" : "database not reachable\n");
	else if (get && streq(path, "/metrics"))
		metrics(m, req);
	else
		http_reply_text(req, get || post ? 404 : 405, "no such page\n");
}

static void on_stop(void *ctx)
{
	(void)ctx;
	_exit(0); /* what was answered is committed; what was not is sent again */
}

static int job_schema(MYSQL *conn, void *arg)
{
	(void)arg;
	return db_schema(conn);
}

static void on_schema(void *arg, int result)
{
	struct mes *m = arg;

	if (result == 0)
		log_info("tables are there");
	else if (db_submit(m->db, job_schema, on_schema, m, 60000) < 0)
		log_error("cannot make the tables: too many jobs wait");
}

int main(int argc, char **argv)
{
	struct server_settings s = {0};
	const char *password = getenv("MES_DB_PASSWORD");
	struct err e = {0};
	struct mes m = {.loop = uv_default_loop()};
	int r = settings_parse("mes-server", "The example MES.", table, ARRAY_SIZE(table), argc, argv, &s,
			       NULL, &e);

	if (r) {
		if (r < 0)
			fprintf(stderr, "mes-server: %s\n", e.text);
		return r < 0 ? 2 : 0;
	}
	log_init("mes", LOG_LEVEL_INFO);
	mysql_library_init(0, NULL, NULL);
	stop_signals(m.loop, on_stop, NULL);
	m.site = s.site;
	m.db_options = (struct db_options){s.db_host, s.db_user, password ? password : "",
					   s.db_name, s.db_port, s.db_threads};
	m.box = mailbox_new(m.loop);
	m.db = db_new(m.loop, m.box, &m.db_options);
	m.reports = reports_new(&m);
	m.dispatch = dispatch_new(&m);
	if (s.shift_reports && shift_new(&m, s.shift_reports, s.shift_length_ms, &m.shift, &e) < 0) {
		log_error("%s", e.text);
		return 2;
	}
	on_schema(&m, -EAGAIN);
	m.http = http_server_new(m.loop,
				 &(struct http_server_options){.address = s.address,
							       .port = (int)s.port,
							       .handle = route,
							       .ctx = &m,
							       .connections_max = 4000},
				 &e);
	if (!m.http) {
		log_error("%s", e.text);
		return 1;
	}
	if (*s.grpc_address && rpc_serve(&m, s.grpc_address, &e) < 0) {
		log_error("%s", e.text);
		return 1;
	}
	log_info("listening on %s:%d, database %s:%d", s.address, http_server_port(m.http), s.db_host,
		 (int)s.db_port);
	uv_run(m.loop, UV_RUN_DEFAULT);
	return 0;
}
