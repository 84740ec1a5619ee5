/* SPDX-License-Identifier: Apache-2.0 */
/* mes-machines: sewing machines on a factory floor. Each takes a sample of its state once a second, writes it to its own
 * journal and sends what is not acknowledged yet, oldest first, under the key (machine, seq); and it keeps a long poll open for work
 * orders, which it journals before it acknowledges them. When its gateway does not answer it goes to the next one, with
 * growing waits, and tries its own domain's again every few seconds. A restart reads the journals and goes on.
 *
 * --no-buffer plays a machine of the traditional kind: a sample that could not be delivered within its time-out is gone.
 *
 * Events (--events, JSON lines, t in ms): report {m, seq, at, tries} acknowledged; dropped {m, seq, at}; order {m, id, key} received for the
 * first time; order-again {m, id, key}; gateway {m, to}; end {m, sent, acked, pending}. */
#include "floor.h"

#include <fcntl.h>

#define NO_BUFFER_MS 1200 /* limit of a machine that does not keep its samples */
#define POLL_WAIT_S  20
#define PENDING_MAX  86400 /* one day of samples */
#define SEND_MAX     60	   /* reports a request */
#define ACKS_MAX     50
#define JOURNAL_MAX  ((size_t)64 << 20)

struct sample {
	uint64_t seq;
	int64_t at_ms;
	int produced;
	char state[12];
	unsigned tries;
};

struct machine {
	struct floor *f;
	struct plant *plant;
	char name[33];
	int journal;
	struct timer *sample_timer, *retry_timer, *poll_timer, *home_timer;
	uint64_t seq, acked;
	struct sample *pending; /* oldest first */
	size_t n_pending, cap_pending, n_sending;
	size_t gateway;
	unsigned failures, poll_failures;
	struct http_call *report, *poll, *probe;
	struct strmap *orders; /* ids received */
	char **acks;	       /* ids to acknowledge */
	size_t acks_sent;
};

struct plant {
	struct floor f;
	struct machine *machines;
	int64_t count, interval_ms, duration_ms, drain_ms, home_ms;
	char *prefix, *site, *journal_dir, *events;
	char **gateways;
	bool buffer;
	bool sampling;
	uint64_t ends_at;
};

static void send_reports(struct machine *m);
static void start_poll(struct machine *m);

static void journal_write(struct machine *m, const char *line)
{
	if (m->journal >= 0 && write(m->journal, line, strlen(line)) < 0)
		log_error("%s: cannot write the journal: %s", m->name, strerror(errno));
}

static void wait_for_home(struct machine *m)
{
	timer_start(m->home_timer, floor_spread(m->plant->home_ms), 0);
}

static void next_gateway(struct machine *m, size_t to)
{
	if (m->f->n_gateways < 2 || to == m->gateway)
		return;
	m->gateway = to;
	floor_event(m->f, "gateway", json_pack("{s:s,s:I}", "m", m->name, "to", (json_int_t)to));
	if (to)
		wait_for_home(m);
	if (m->poll) { /* it hangs on the gateway that did not answer */
		http_call_cancel(m->poll);
		m->poll = NULL;
		timer_start(m->poll_timer, 1, 0);
	}
}

static void on_home_answer(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct machine *m = ctx;

	(void)body, (void)len, (void)text;
	m->probe = NULL;
	if (status == 200)
		next_gateway(m, 0);
	else if (m->gateway)
		wait_for_home(m);
}

/* Asks the own domain's gateway before going back to it: samples and orders do not wait for one that is still dead. */
static void on_home(void *ctx)
{
	_cleanup_free_ char *url = NULL;
	struct machine *m = ctx;

	if (!m->gateway || m->probe)
		return;
	url = xasprintf("%s/readyz", m->f->gateways[0]);
	m->probe = http_call_new(m->f->http, &(struct http_call_options){
						     .method = "GET",
						     .url = url,
						     .timeout_ms = FLOOR_ANSWER_MS,
						     .connect_timeout_ms = FLOOR_CONNECT_MS,
						     .new_connection = true,
						     .done = on_home_answer,
						     .ctx = m,
					     });
}

/* ---- reports ---- */
static void drop_first(struct machine *m, size_t n)
{
	m->n_pending -= n;
	memmove(m->pending, m->pending + n, m->n_pending * sizeof(*m->pending));
}

static void reports_acked(struct machine *m)
{
	char line[64];

	for (size_t i = 0; i < m->n_sending; i++) {
		struct sample *s = &m->pending[i];

		floor_event(m->f, "report",
			    json_pack("{s:s,s:I,s:I,s:i}", "m", m->name, "seq", (json_int_t)s->seq, "at",
				      (json_int_t)s->at_ms, "tries", (int)s->tries));
		m->acked = s->seq;
	}
	snprintf(line, sizeof(line), "A %llu\n", (unsigned long long)m->acked);
	journal_write(m, line);
	drop_first(m, m->n_sending);
	m->failures = 0;
}

static void reports_failed(struct machine *m)
{
	if (!m->plant->buffer) {
		for (size_t i = 0; i < m->n_sending; i++)
			floor_event(m->f, "dropped",
				    json_pack("{s:s,s:I,s:I}", "m", m->name, "seq",
					      (json_int_t)m->pending[i].seq, "at",
					      (json_int_t)m->pending[i].at_ms));
		drop_first(m, m->n_sending);
	}
	m->failures++;
	next_gateway(m, (m->gateway + 1) % m->f->n_gateways);
}

static void on_report(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct machine *m = ctx;

	(void)body, (void)len;
	m->report = NULL;
	if (status == 200) {
		reports_acked(m);
	} else {
		log_debug("%s: reports not taken by %s: %d %s", m->name, m->f->gateways[m->gateway], status,
			  text ? text : "");
		reports_failed(m);
	}
	m->n_sending = 0;
	if (m->n_pending)
		timer_start(m->retry_timer, m->failures ? floor_backoff(m->failures - 1) : 1, 0);
}

static void on_retry(void *ctx)
{
	send_reports(ctx);
}

static void send_reports(struct machine *m)
{
	_cleanup_free_ char *url = NULL, *body = NULL, *key = NULL;
	_cleanup_json_ json_t *list = json_array();

	if (m->report || !m->n_pending)
		return;
	m->n_sending = MIN(m->n_pending, (size_t)SEND_MAX);
	for (size_t i = 0; i < m->n_sending; i++) {
		struct sample *s = &m->pending[i];

		s->tries++;
		json_array_append_new(list,
				      json_pack("{s:s,s:s,s:I,s:s,s:i,s:I}", "machine", m->name, "site",
						m->plant->site, "seq", (json_int_t)s->seq, "state", s->state,
						"produced", s->produced, "at_ms", (json_int_t)s->at_ms));
	}
	url = xasprintf("%s/api/reports", m->f->gateways[m->gateway]);
	body = js_text(list);
	/* Each report carries its key; the header tells the gateway that it may send the request again. */
	key = xasprintf("Idempotency-Key: %s-%llu", m->name, (unsigned long long)m->pending[0].seq);
	m->report = http_call_new(
		m->f->http, &(struct http_call_options){
				    .method = "POST",
				    .url = url,
				    .body = body,
				    .body_len = strlen(body),
				    .headers = (const char *[]){"Content-Type: application/json", key, NULL},
				    .timeout_ms = m->plant->buffer ? FLOOR_ANSWER_MS : NO_BUFFER_MS,
				    .connect_timeout_ms = FLOOR_CONNECT_MS,
				    .done = on_report,
				    .ctx = m,
			    });
}

static struct sample *add_pending(struct machine *m)
{
	if (m->n_pending == PENDING_MAX) {
		log_error("%s: a day of samples waits; the oldest is dropped", m->name);
		drop_first(m, 1);
		m->n_sending -= m->n_sending > 0;
	}
	if (m->n_pending == m->cap_pending) {
		m->cap_pending = m->cap_pending ? 2 * m->cap_pending : 16;
		m->pending = xrealloc(m->pending, m->cap_pending * sizeof(*m->pending));
	}
	return &m->pending[m->n_pending++];
}

static const char *machine_state(struct machine *m)
{
	uint8_t r;

	random_bytes(&r, 1);
	return strmap_len(m->orders) == 0 ? "idle" : r < 4 ? "fault" : r < 12 ? "thread-out" : "sewing";
}

static void on_sample(void *ctx)
{
	struct machine *m = ctx;
	struct sample *s;
	char line[96];

	if (!m->plant->sampling)
		return;
	s = add_pending(m);
	*s = (struct sample){.seq = ++m->seq, .at_ms = clock_wall_ms()};
	snprintf(s->state, sizeof(s->state), "%s", machine_state(m));
	s->produced = streq(s->state, "sewing") ? 1 : 0;
	snprintf(line, sizeof(line), "S %llu %lld %d %s\n", (unsigned long long)s->seq, (long long)s->at_ms,
		 s->produced, s->state);
	journal_write(m, line);
	if (!m->failures || !m->plant->buffer)
		send_reports(m);
}

/* ---- work orders ---- */
static void take_order(struct machine *m, const json_t *w)
{
	char id[24], line[48];

	snprintf(id, sizeof(id), "%lld", (long long)js_int(w, "id", 0));
	if (strmap_get(m->orders, id)) {
		floor_event(
			m->f, "order-again",
			json_pack("{s:s,s:s,s:s}", "m", m->name, "id", id, "key", js_str_or(w, "key", "")));
	} else {
		snprintf(line, sizeof(line), "W %s\n", id);
		journal_write(m, line);
		strmap_set(m->orders, id, m);
		floor_event(
			m->f, "order",
			json_pack("{s:s,s:s,s:s}", "m", m->name, "id", id, "key", js_str_or(w, "key", "")));
	}
	if (!strv_has(m->acks, id))
		m->acks = strv_add(m->acks, id);
}

static void acks_done(struct machine *m)
{
	size_t n = strv_len(m->acks);

	for (size_t i = 0; i < m->acks_sent; i++)
		free(m->acks[i]);
	if (m->acks_sent)
		memmove(m->acks, m->acks + m->acks_sent, (n - m->acks_sent + 1) * sizeof(*m->acks));
	m->acks_sent = 0;
}

static void on_poll(void *ctx, int status, const char *body, size_t len, const char *text)
{
	_cleanup_json_ json_t *j = NULL;
	struct machine *m = ctx;
	json_t *w;
	size_t i;

	m->poll = NULL;
	if (status != 200 || js_parse_new(body, len, &j, NULL) < 0) {
		log_debug("%s: poll failed: %d %s", m->name, status, text ? text : "");
		timer_start(m->poll_timer, floor_backoff(m->poll_failures++), 0);
		return;
	}
	m->poll_failures = 0;
	acks_done(m);
	json_array_foreach (json_object_get(j, "workOrders"), i, w)
		take_order(m, w);
	start_poll(m);
}

static void start_poll(struct machine *m)
{
	_cleanup_buf_ struct buf url = {0};

	if (m->poll)
		return;
	/* Acknowledgements go with a poll that does not wait, so that their fate is known at once. */
	m->acks_sent = MIN(strv_len(m->acks), (size_t)ACKS_MAX);
	buf_addf(&url, "%s/api/machines/%s/work-orders?wait=%d", m->f->gateways[m->gateway], m->name,
		 m->acks_sent ? 0 : POLL_WAIT_S);
	for (size_t i = 0; i < m->acks_sent; i++)
		buf_addf(&url, "%s%s", i ? "," : "&ack=", m->acks[i]);
	m->poll = http_call_new(
		m->f->http, &(struct http_call_options){
				    .url = url.data,
				    .timeout_ms = m->acks_sent ? FLOOR_ANSWER_MS : POLL_WAIT_S * 1000 + 5000,
				    .connect_timeout_ms = FLOOR_CONNECT_MS,
				    .done = on_poll,
				    .ctx = m,
			    });
}

static void on_poll_timer(void *ctx)
{
	start_poll(ctx);
}

/* ---- life ---- */
static void journal_line(struct machine *m, const char *line)
{
	unsigned long long seq;
	struct sample s = {0};
	long long at;
	char id[24];

	if (sscanf(line, "S %llu %lld %d %11s", &seq, &at, &s.produced, s.state) == 4) {
		s.seq = seq;
		s.at_ms = at;
		m->seq = seq;
		*add_pending(m) = s;
	} else if (sscanf(line, "A %llu", &seq) == 1) {
		size_t n = 0;

		while (n < m->n_pending && m->pending[n].seq <= seq)
			n++;
		drop_first(m, n);
		m->acked = seq;
	} else if (sscanf(line, "W %23[0-9]", id) == 1) {
		strmap_set(m->orders, id, m);
	}
}

static int journal_open(struct machine *m, const char *dir, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s.journal", dir, m->name), *text = NULL;
	int r;

	if (access(path, F_OK) == 0) {
		_cleanup_strv_ char **lines = NULL;

		r = file_read(path, JOURNAL_MAX, &text, NULL, e);
		if (r < 0)
			return r;
		lines = strv_split(text, '\n', false);
		for (size_t i = 0; lines[i]; i++)
			journal_line(m, lines[i]);
	}
	m->journal = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	return m->journal < 0 ? err_errno(e, -errno, "cannot open %s", path) : 0;
}

static int machine_init(struct machine *m, struct plant *p, int64_t i, struct err *e)
{
	m->plant = p;
	m->f = &p->f;
	m->journal = -1;
	m->orders = strmap_new();
	snprintf(m->name, sizeof(m->name), "%s%03d", p->prefix, (int)i + 1);
	m->sample_timer = timer_new(p->f.loop, on_sample, m);
	m->retry_timer = timer_new(p->f.loop, on_retry, m);
	m->poll_timer = timer_new(p->f.loop, on_poll_timer, m);
	m->home_timer = timer_new(p->f.loop, on_home, m);
	if (p->journal_dir && p->buffer) {
		int r = journal_open(m, p->journal_dir, e);

		if (r < 0)
			return r;
	}
	/* The machines' seconds do not begin together. */
	timer_start(m->sample_timer, (uint64_t)(i * p->interval_ms / p->count), (uint64_t)p->interval_ms);
	timer_start(m->poll_timer, (uint64_t)(i * 5), 0);
	return 0;
}

static void finish(struct plant *p)
{
	for (int64_t i = 0; i < p->count; i++) {
		struct machine *m = &p->machines[i];

		floor_event(&p->f, "end",
			    json_pack("{s:s,s:I,s:I,s:I}", "m", m->name, "sent", (json_int_t)m->seq, "acked",
				      (json_int_t)m->acked, "pending", (json_int_t)m->n_pending));
	}
	if (p->f.events)
		fclose(p->f.events);
	exit(0);
}

static void on_stop(void *ctx)
{
	struct plant *p = ctx;

	p->sampling = false;
	p->ends_at = clock_ms() + (uint64_t)p->drain_ms;
}

static void on_tick(void *ctx)
{
	struct plant *p = ctx;
	size_t pending = 0;

	if (p->sampling && p->ends_at && clock_ms() >= p->ends_at)
		on_stop(p);
	if (p->sampling)
		return;
	for (int64_t i = 0; i < p->count; i++)
		pending += p->machines[i].n_pending + strv_len(p->machines[i].acks);
	if (!pending || clock_ms() >= p->ends_at)
		finish(p);
}

#define S(field) offsetof(struct plant, field)
static const struct setting table[] = {
	{"gateways", SETTING_STRINGS, S(gateways), NULL, 0, 0, "URL,...", "gateways, the own domain's first"},
	{"count", SETTING_INT, S(count), "100", 1, 2000, "N", "machines"},
	{"prefix", SETTING_STRING, S(prefix), "m-", 0, 0, "TEXT", "their names are TEXT001, TEXT002 ..."},
	{"site", SETTING_STRING, S(site), "a", 0, 0, "NAME", "the floor they stand on"},
	{"interval", SETTING_DURATION, S(interval_ms), "1s", 10, 3600000, "TIME", "one sample each"},
	{"duration", SETTING_DURATION, S(duration_ms), "0", 0, 0, "TIME",
	 "stop by itself after so long; 0 = on SIGTERM"},
	{"drain", SETTING_DURATION, S(drain_ms), "20s", 0, 3600000, "TIME",
	 "then wait so long for what is not acknowledged"},
	{"home-retry", SETTING_DURATION, S(home_ms), "5s", 100, 3600000, "TIME",
	 "try the own domain's gateway again after"},
	{"journal", SETTING_STRING, S(journal_dir), NULL, 0, 0, "DIR", "folder of the machines' journals"},
	{"events", SETTING_STRING, S(events), NULL, 0, 0, "FILE", "append what happens, as JSON lines"},
	{"buffer", SETTING_BOOL, S(buffer), "true", 0, 0, NULL,
	 "keep and send again what was not acknowledged"},
};

int main(int argc, char **argv)
{
	struct plant p = {0};
	struct err e = {0};
	int r = settings_parse("mes-machines", "Sewing machines that report to the MES.", table,
			       ARRAY_SIZE(table), argc, argv, &p, NULL, &e);

	if (r > 0)
		return 0;
	log_init("machines", LOG_LEVEL_INFO);
	if (r == 0 && p.journal_dir)
		r = dir_make(p.journal_dir, 0755, &e);
	if (r == 0)
		r = floor_init(&p.f, p.gateways, p.events, (int)p.count * 4, &e);
	if (r == 0)
		p.machines = xcalloc((size_t)p.count, sizeof(*p.machines));
	for (int64_t i = 0; r == 0 && i < p.count; i++)
		r = machine_init(&p.machines[i], &p, i, &e);
	if (r < 0) {
		fprintf(stderr, "mes-machines: %s\n", e.text);
		return 2;
	}
	p.sampling = true;
	p.ends_at = p.duration_ms ? clock_ms() + (uint64_t)p.duration_ms : 0;
	stop_signals(p.f.loop, on_stop, &p);
	timer_start(timer_new(p.f.loop, on_tick, &p), 100, 100);
	return uv_run(p.f.loop, UV_RUN_DEFAULT);
}
