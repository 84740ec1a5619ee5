/* SPDX-License-Identifier: Apache-2.0 */
/* HTTPS server of the node agent: what the API server fetches for `kubectl logs`, what Prometheus and people read.
 *
 *   GET /containerLogs/NS/POD/CONTAINER?follow&tailLines&sinceSeconds&sinceTime&timestamps&previous&limitBytes
 *   GET /pods  /stats/summary  /metrics  /healthz
 *
 * A client certificate of --client-ca is demanded for everything but /healthz. Following readers look for more every 100 ms; for one that
 * is slow no more is read than waits for it. */
#include "node/agent.h"

#include "node/logfile.h"

#define FOLLOW_MS     100
#define FOLLOWERS_MAX 200
#define QUEUE_MAX     ((size_t)4 << 20) /* so much may wait for a slow reader, who then gets the rest later */
#define PIECE_MAX     ((size_t)256 << 10)

struct follower {
	struct agent *a;
	struct http_req *req;
	struct timer *timer;
	struct log_options o;
	char *path, *uid, *name;
	int attempt;
	struct log_tail tail;
	struct buf rest; /* read, not sent yet, from rest_at on */
	size_t rest_at;
	int64_t sent;
	bool last; /* nothing comes behind rest */
	bool ended;
};

static int followers;

static bool flag(const struct http_req *r, const char *name)
{
	const char *v = http_req_query(r, name);

	return v && !streq(v, "false") && !streq(v, "0");
}

static int64_t number(const struct http_req *r, const char *name, int64_t otherwise)
{
	const char *v = http_req_query(r, name);
	int64_t n;

	return v && str_i64(v, &n) == 0 && n >= 0 ? n : otherwise;
}

static void follower_closed(void *ctx)
{
	struct follower *f = ctx;

	followers--;
	timer_free(f->timer);
	log_tail_done(&f->tail);
	buf_done(&f->rest);
	free(f->path);
	free(f->uid);
	free(f->name);
	free(f);
}

static bool still_writing(const struct follower *f)
{
	struct pod *p = strmap_get(f->a->pods, f->uid);

	for (size_t i = 0; p && i < p->n; i++)
		if (streq(p->c[i]->name, f->name))
			return p->c[i]->attempt == f->attempt &&
			       (p->c[i]->state == CONTAINER_RUNNING || p->c[i]->state == CONTAINER_CREATING);
	return false;
}

static void end_follow(struct follower *f)
{
	f->ended = true;
	timer_stop(f->timer);
	http_stream_end(f->req);
}

/* As much of the rest as the reader takes; true when nothing is left. */
static bool send_rest(struct follower *f)
{
	while (f->rest_at < f->rest.len) {
		size_t n = MIN(f->rest.len - f->rest_at, PIECE_MAX);

		if (http_stream_queued(f->req) > QUEUE_MAX)
			return false;
		if (http_stream_write(f->req, f->rest.data + f->rest_at, n) < 0) {
			end_follow(f);
			return false;
		}
		f->rest_at += n;
	}
	buf_done(&f->rest);
	f->rest = (struct buf){0};
	f->rest_at = 0;
	return true;
}

static void on_follow(void *ctx)
{
	struct follower *f = ctx;

	if (f->ended || !send_rest(f))
		return;
	if (!f->last) {
		f->last = !still_writing(f);
		log_read_more(f->path, &f->o, &f->rest, &f->tail);
		if (f->o.limit_bytes >= 0 && (int64_t)f->rest.len > f->o.limit_bytes - f->sent) {
			f->rest.len = (size_t)(f->o.limit_bytes - f->sent);
			f->last = true;
		}
		f->sent += (int64_t)f->rest.len;
		if (!send_rest(f))
			return;
	}
	if (f->last)
		end_follow(f);
}

static void follow(struct agent *a, struct http_req *r, const struct container *c,
		   const struct log_options *o, const char *path, struct log_tail tail, struct buf *first)
{
	struct follower *f;

	if (followers >= FOLLOWERS_MAX) {
		log_tail_done(&tail);
		http_reply_text(r, 429, "too many readers follow logs\n");
		return;
	}
	followers++;
	f = xcalloc(1, sizeof(*f));
	f->a = a;
	f->req = r;
	f->o = *o;
	f->path = xstrdup(path);
	f->uid = xstrdup(c->pod->uid);
	f->name = xstrdup(c->name);
	f->attempt = c->attempt;
	f->tail = tail;
	f->rest = *first;
	*first = (struct buf){0};
	f->sent = (int64_t)f->rest.len;
	f->timer = timer_new(a->loop, on_follow, f);
	http_stream_begin(r, 200, "text/plain; charset=utf-8", follower_closed, f);
	timer_start(f->timer, FOLLOW_MS, FOLLOW_MS);
	(void)send_rest(f);
}

static struct container *find_container(struct agent *a, const char *path)
{
	_cleanup_strv_ char **part = strv_split(path, '/', false);
	struct pod *p = strv_len(part) == 4 ? pod_find(a, part[1], part[2]) : NULL;

	for (size_t i = 0; p && i < p->n; i++)
		if (streq(p->c[i]->name, part[3]))
			return p->c[i];
	return NULL;
}

static void serve_logs(struct agent *a, struct http_req *r)
{
	struct container *c = find_container(a, http_req_path(r));
	struct log_options o = {.tail_lines = number(r, "tailLines", -1),
				.limit_bytes = number(r, "limitBytes", -1),
				.timestamps = flag(r, "timestamps")};
	_cleanup_free_ char *path = NULL;
	_cleanup_buf_ struct buf b = {0};
	const char *since = http_req_query(r, "sinceTime");
	bool previous = flag(r, "previous"), follows = flag(r, "follow") && !previous;
	struct log_tail tail = {.fd = -1};

	if (number(r, "sinceSeconds", -1) >= 0)
		o.since_us = clock_wall_us() - number(r, "sinceSeconds", 0) * 1000000;
	if (since && clock_parse(since, &o.since_us) < 0) {
		http_reply_text(r, 400, "sinceTime is no RFC 3339 time\n");
		return;
	}
	if (!c) {
		http_reply_text(r, 404, "no such pod or container on this node\n");
		return;
	}
	if (c->attempt - previous < 0) {
		_cleanup_free_ char *text =
			previous ? xasprintf("previous terminated container \"%s\" in pod \"%s\" not found\n",
					     c->name, c->pod->name)
				 : xasprintf("container \"%s\" in pod \"%s\" is waiting to start: %s\n",
					     c->name, c->pod->name,
					     c->reason ? c->reason : "ContainerCreating");

		http_reply_text(r, previous ? 400 : 404, text);
		return;
	}
	path = xasprintf("%s/%s/%d.log", c->pod->log_dir, c->name, c->attempt - previous);
	if (log_read(path, &o, &b, follows ? &tail : NULL) < 0)
		http_reply_text(r, 500, "the log cannot be read\n");
	else if (follows)
		follow(a, r, c, &o, path, tail, &b);
	else
		http_reply(r, 200, "text/plain; charset=utf-8", b.data ? b.data : "", b.len, NULL);
}

static void serve_pods(struct agent *a, struct http_req *r)
{
	_cleanup_json_ json_t *list =
		json_pack("{s:s,s:s,s:{},s:[]}", "kind", "PodList", "apiVersion", "v1", "metadata", "items");
	const char *uid;
	struct pod *p;

	strmap_foreach (a->pods, uid, p) {
		json_t *o = json_copy(p->obj);

		json_object_set_new(o, "status", pod_status_new(p, clock_wall_us()));
		json_array_append_new(json_object_get(list, "items"), o);
	}
	http_reply_json(r, 200, list);
}

static void handle(void *ctx, struct http_req *r)
{
	struct agent *a = ctx;
	const char *path = http_req_path(r);

	if (!streq(http_req_method(r), "GET")) {
		http_reply_text(r, 405, "only GET is served here\n");
	} else if (streq(path, "/healthz")) {
		http_reply_text(r, 200, "ok");
	} else if (a->s.client_ca && !http_req_cert_cn(r)) {
		http_reply_text(r, 401, "a client certificate is needed\n");
	} else if (str_starts(path, "/containerLogs/")) {
		serve_logs(a, r);
	} else if (streq(path, "/pods")) {
		serve_pods(a, r);
	} else if (streq(path, "/stats/summary")) {
		_cleanup_json_ json_t *s = stats_summary_new(a);

		http_reply_json(r, 200, s);
	} else if (streq(path, "/metrics")) {
		_cleanup_buf_ struct buf b = {0};

		stats_metrics(a, &b);
		http_reply(r, 200, "text/plain; version=0.0.4", b.data ? b.data : "", b.len, NULL);
	} else {
		http_reply_text(r, 404, "not found\n");
	}
}

int node_server_start(struct agent *a, struct err *e)
{
	_cleanup_free_ char *address = xstrndup(a->s.listen, strcspn(a->s.listen, ":"));
	const char *colon = strchr(a->s.listen, ':');
	struct http_server_options o = {.address = address,
					.cert_file = a->s.tls_cert,
					.key_file = a->s.tls_key,
					.client_ca_file = a->s.client_ca,
					.handle = handle,
					.ctx = a};
	int64_t port;

	if (!colon || str_i64(colon + 1, &port) < 0 || port < 0 || port > 65535)
		return err_set(e, -EINVAL, "--listen \"%s\" is no IP:PORT", a->s.listen);
	if (!a->s.client_ca)
		return err_set(e, -EINVAL,
			       "--client-ca is needed with --tls-cert: logs are not for everybody");
	o.port = (int)port;
	a->server = http_server_new(a->loop, &o, e);
	return a->server ? 0 : -EIO;
}

void node_server_stop(struct agent *a)
{
	if (a->server)
		a->server = http_server_free(a->server);
}
