/* SPDX-License-Identifier: Apache-2.0 */
/* db: HTTP on the pod's address. For Kubernetes and Prometheus /readyz, /healthz, /metrics; for the other supervisors /state and
 * /vote; for the operator /override. /vote and /override want the token made from the cluster's secret. */
#include "db/internal.h"

#define SAMPLE_AGE_MAX_MS 4000
#define OVERRIDE_MS	  120000
#define BODY_MAX	  ((size_t)65536)

const char *status_unready(struct db *d)
{
	static char text[GALERA_REASON_MAX + 100];
	const struct galera_member *own = db_own(d);

	if (d->stopping)
		return "stopping";
	if (own->phase != GALERA_PRIMARY) {
		snprintf(text, sizeof(text), "%s: %s", galera_phase_name(own->phase), d->decision.reason);
		return text;
	}
	if (clock_ms() - d->sample_ms > SAMPLE_AGE_MAX_MS) {
		snprintf(text, sizeof(text), "mariadbd does not answer: %s", d->sample.error);
		return text;
	}
	if (!d->sample.ready || (d->sample.local_state != 4 && d->sample.local_state != 2)) {
		snprintf(text, sizeof(text), "not in step yet: %s", d->sample.state_text);
		return text;
	}
	return NULL;
}

static void gauge(struct buf *b, const char *name, const char *type, const char *help, double value)
{
	buf_addf(b, "# HELP kuayu_db_%s %s\n# TYPE kuayu_db_%s %s\nkuayu_db_%s %.10g\n", name, help, name,
		 type, name, value);
}

static void reply_metrics(struct db *d, struct http_req *req)
{
	_cleanup_buf_ struct buf b = {0};
	const struct db_sample *s = &d->sample;

	gauge(&b, "ready", "gauge", "1 when the member takes reads and writes", !status_unready(d));
	buf_adds(&b, "# HELP kuayu_db_phase 1 for the phase the member is in\n# TYPE kuayu_db_phase gauge\n");
	for (int p = GALERA_UNKNOWN; p <= GALERA_PRIMARY; p++)
		buf_addf(&b, "kuayu_db_phase{phase=\"%s\"} %d\n", galera_phase_name((enum galera_phase)p),
			 db_own(d)->phase == (enum galera_phase)p);
	gauge(&b, "cluster_size", "gauge", "members in the component", (double)s->cluster_size);
	gauge(&b, "last_committed", "gauge", "last transaction", (double)db_own(d)->seqno);
	gauge(&b, "local_state", "gauge", "wsrep_local_state: 1 joining, 2 donor, 3 joined, 4 synced",
	      s->local_state);
	gauge(&b, "flow_control_paused", "gauge", "share of time paused by flow control", s->flow_paused);
	gauge(&b, "receive_queue", "gauge", "write sets waiting to be applied", (double)s->recv_queue);
	gauge(&b, "send_queue", "gauge", "write sets waiting to be sent", (double)s->send_queue);
	gauge(&b, "certification_failures_total", "counter", "transactions refused by a conflict",
	      (double)s->cert_failures);
	gauge(&b, "brute_force_aborts_total", "counter", "local transactions aborted by remote ones",
	      (double)s->bf_aborts);
	gauge(&b, "replicated_total", "counter", "write sets sent", (double)s->replicated);
	gauge(&b, "received_total", "counter", "write sets received", (double)s->received);
	gauge(&b, "epoch", "counter", "highest epoch this member voted in", (double)d->promised_epoch);
	gauge(&b, "elections_total", "counter", "times this member asked for votes", (double)d->elections);
	gauge(&b, "bootstraps_total", "counter", "starts as founder", (double)d->founded);
	gauge(&b, "joins_total", "counter", "starts as joiner", (double)d->joined);
	gauge(&b, "ends_total", "counter", "ends of mariadbd that nobody asked for", (double)d->crashed);
	http_reply(req, 200, "text/plain; version=0.0.4", b.data, b.len, NULL);
}

/* Compares all bytes whatever differs. */
static bool has_token(struct db *d, struct http_req *req)
{
	const char *h = http_req_header(req, "authorization");
	unsigned char differs = 0;

	if (!h || !str_starts(h, "Bearer ") || strlen(h + 7) != strlen(d->token))
		return false;
	for (size_t i = 0; d->token[i]; i++)
		differs |= (unsigned char)(h[7 + i] ^ d->token[i]);
	return !differs;
}

static void reply_vote(struct db *d, struct http_req *req)
{
	_cleanup_json_ json_t *j = NULL, *answer = json_object();
	char reason[GALERA_REASON_MAX];
	size_t len;
	const char *body = http_req_body(req, &len);
	bool granted;

	if (!body || js_parse_new(body, len, &j, NULL) < 0 || peers_vote(d, j, &granted, reason) < 0) {
		http_reply_text(req, 400, "wants {candidate, epoch}\n");
		return;
	}
	json_object_set_new(answer, "granted", json_boolean(granted));
	json_object_set_new(answer, "reason", json_string(reason));
	http_reply_json(req, 200, answer);
}

static void handle(void *ctx, struct http_req *req)
{
	struct db *d = ctx;
	const char *path = http_req_path(req), *why;
	bool post = streq(http_req_method(req), "POST");

	if (streq(path, "/readyz")) {
		why = status_unready(d);
		http_reply_text(req, why ? 503 : 200, why ? why : "ok");
	} else if (streq(path, "/healthz"))
		http_reply_text(req, 200, "ok");
	else if (streq(path, "/metrics"))
		reply_metrics(d, req);
	else if (streq(path, "/state")) {
		_cleanup_json_ json_t *j = peers_state_new(d);

		http_reply_json(req, 200, j);
	} else if (!post || (!streq(path, "/vote") && !streq(path, "/override")))
		http_reply_text(req, 404, "not found\n");
	else if (!has_token(d, req))
		http_reply_text(req, 401, "wants the cluster's token\n");
	else if (streq(path, "/vote"))
		reply_vote(d, req);
	else {
		d->override_until_ms = clock_ms() + OVERRIDE_MS;
		log_warn("override by the operator: for %d s a majority is enough to go on",
			 OVERRIDE_MS / 1000);
		http_reply_text(req, 200, "going on without missing members, if a majority is there\n");
	}
}

int status_init(struct db *d, struct err *e)
{
	struct http_server_options o = {.address = "0.0.0.0",
					.port = (int)d->s.status_port,
					.body_max = BODY_MAX,
					.connections_max = 200,
					.handle = handle,
					.ctx = d};

	d->server = http_server_new(d->loop, &o, e);
	return d->server ? 0 : e->code < 0 ? e->code : -EIO;
}

void status_done(struct db *d)
{
	d->server = http_server_free(d->server);
}
