/* SPDX-License-Identifier: Apache-2.0 */
/* Calls to the API servers. One server is `current`; all calls and watches use it until it fails (no connection, no answer
 * in time, 503 or 504), then the next in the list, for everybody at once: that is what makes a dead domain cheap.
 *
 * A call is tried again on another server when nothing can have happened: reads always, writes when no connection was
 * made or the server said 503, and writes marked `again` (compare-and-swap: a second one is refused by its
 * resourceVersion). Else the caller learns -ETIMEDOUT and reads the state again. Bounds: one attempt a server and one
 * round, all inside the call's time limit. */
#include "kube/internal.h"

#define TIMEOUT_MS	5000
#define READ_ATTEMPT_MS 2000
#define ROUND_MS	300 /* the server is changed at most so often while all of them fail */

struct call {
	struct kube *k;
	struct call *next, *prev;
	struct http_call *http;
	struct timer *timer; /* hands out failures that need no server, later */
	char *method, *path, *content_type, *body;
	int64_t timeout_ms;
	uint64_t deadline, sent_ms /* this attempt */;
	struct call *next_waiting;
	bool waiting, urgent;
	int64_t attempt_ms;
	size_t server;
	unsigned attempts;
	bool again;
	int failed;
	kube_done_fn done;
	void *ctx;
};

uint64_t backoff_ms(unsigned failures)
{
	uint64_t base = failures >= 6 ? 2000 : (uint64_t)50 << failures;
	uint16_t r;

	random_bytes(&r, sizeof(r));
	return MIN(2000, base / 2 + base * r / 65536);
}

uint64_t obj_rv(const json_t *obj)
{
	const char *rv = js_str(obj, "metadata.resourceVersion");
	uint64_t n;

	return rv && str_u64(rv, &n) == 0 ? n : 0;
}

static void call_send(struct call *c);

static void send_waiting(struct kube *k)
{
	while (k->waiting && k->n_sent < SENT_MAX) {
		struct call *c = k->waiting;

		k->waiting = c->next_waiting;
		if (!k->waiting)
			k->waiting_end = &k->waiting;
		c->waiting = false;
		k->n_sent++;
		c->deadline = clock_ms() + (uint64_t)c->timeout_ms;
		call_send(c);
	}
}

/* Out of the waiting line, or room for the first in it. */
static void give_up_place(struct call *c)
{
	struct kube *k = c->k;

	if (c->waiting) {
		struct call **at = &k->waiting;

		while (*at != c)
			at = &(*at)->next_waiting;
		*at = c->next_waiting;
		if (!c->next_waiting)
			k->waiting_end = at;
	} else if (!c->urgent && !c->timer) {
		k->n_sent--;
	}
}

static void call_free(struct call *c)
{
	give_up_place(c);
	if (c->prev)
		c->prev->next = c->next;
	else
		c->k->calls = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->k->n_calls--;
	timer_free(c->timer);
	free(c->method);
	free(c->path);
	free(c->content_type);
	free(c->body);
	free(c);
}

static void call_end(struct call *c, int status, json_t *body)
{
	kube_done_fn done = c->done;
	struct kube *k = c->k;
	void *ctx = c->ctx;

	call_free(c);
	send_waiting(k);
	if (done)
		done(ctx, status, body);
}

void kube_heard(struct kube *k, size_t server)
{
	k->heard_ms = k->server_heard_ms[server] = clock_ms();
	k->unreached = 0;
}

int64_t kube_connect_ms(const struct kube *k)
{
	size_t rounds = k->unreached / MAX(1, k->n_servers);

	return MIN(CONNECT_TIMEOUT_MAX, CONNECT_TIMEOUT_MS << MIN(rounds, 4));
}

void kube_leave(struct kube *k, size_t from, uint64_t since_ms, const char *why)
{
	struct kube_cache *next;
	uint64_t now = clock_ms();
	bool all;

	if (since_ms && k->server_heard_ms[from] > since_ms)
		return;
	k->unreached++;
	all = k->unreached > k->n_servers;
	if (from != k->current || k->n_servers < 2 || (all && now - k->left_ms < ROUND_MS))
		return;
	k->left_ms = now;
	k->current = (from + 1) % k->n_servers;
	log_write(all ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "API server %s: %s; using %s", k->servers[from],
		  why, k->servers[k->current]);
	for (struct kube_cache *c = k->caches; c; c = next) {
		next = cache_next(c);
		cache_server_left(c, from);
	}
}

/* May this answer be from a server that could not do the work? */
static bool server_failed(int status)
{
	return status == 503 || status == 504 || (status < 0 && status != -EMSGSIZE && status != -EINVAL);
}

static bool may_retry(const struct call *c, int status)
{
	bool read = streq(c->method, "GET");
	bool not_sent =
		status == -ECONNREFUSED || status == -EHOSTUNREACH || status == -EPROTO || status == 503;

	if (c->attempts >= MAX(2, c->k->n_servers) || clock_ms() + 50 >= c->deadline)
		return false;
	return read || not_sent || c->again;
}

static void on_done(void *ctx, int status, const char *data, size_t len, const char *text)
{
	struct call *c = ctx;
	struct kube *k = c->k;
	_cleanup_json_ json_t *body = NULL;
	struct err e = {0};

	c->http = NULL;
	if (status > 0 && !server_failed(status))
		kube_heard(k, c->server);
	if (server_failed(status)) {
		char why[200];

		if (status > 0)
			snprintf(why, sizeof(why), "answered %d", status);
		else
			snprintf(why, sizeof(why), "%s", text && *text ? text : strerror(-status));
		kube_leave(k, c->server, status == -ETIMEDOUT || status == -EHOSTUNREACH ? c->sent_ms : 0,
			   why);
		if (may_retry(c, status)) {
			call_send(c);
			return;
		}
	}
	if (status > 0 && len > 0 && js_parse_new(data, len, &body, &e) < 0) {
		if (status < 300) {
			log_debug("%s %s: answer is no JSON: %s", c->method, c->path, e.text);
			status = -EBADMSG;
		}
	}
	call_end(c, status, body);
}

static void call_send(struct call *c)
{
	struct kube *k = c->k;
	_cleanup_free_ char *url = NULL, *type = NULL;
	const char *headers[4] = {"Accept: application/json", k->user_agent, NULL, NULL};
	uint64_t now = clock_ms();
	int64_t left = c->deadline > now ? (int64_t)(c->deadline - now) : 1;

	c->attempts++;
	c->sent_ms = now;
	c->server = k->current;
	url = xasprintf("%s%s", k->servers[c->server], c->path);
	if (c->body) {
		type = xasprintf("Content-Type: %s", c->content_type);
		headers[2] = type;
	}
	c->http = http_call_new(c->urgent ? k->urgent : k->http,
				&(struct http_call_options){
					.method = c->method,
					.url = url,
					.headers = headers,
					.body = c->body,
					.body_len = c->body ? strlen(c->body) : 0,
					.timeout_ms = MAX(1, MIN(left, c->attempt_ms)),
					.connect_timeout_ms = kube_connect_ms(k),
					.done = on_done,
					.ctx = c,
				});
}

static void on_refused(void *ctx)
{
	struct call *c = ctx;

	call_end(c, c->failed, NULL);
}

void kube_call(struct kube *k, const struct kube_request *r)
{
	struct call *c = xcalloc(1, sizeof(*c));
	int64_t timeout_ms = r->timeout_ms > 0 ? r->timeout_ms : TIMEOUT_MS;

	c->k = k;
	c->next = k->calls;
	if (k->calls)
		k->calls->prev = c;
	k->calls = c;
	c->method = xstrdup(r->method ? r->method : "GET");
	c->path = xstrdup(r->path);
	if (r->body) {
		c->body = js_text(r->body);
		c->content_type = xstrdup(r->content_type ? r->content_type : "application/json");
	}
	c->timeout_ms = timeout_ms;
	c->urgent = strstr(c->path, "/leases/");
	c->attempt_ms = r->attempt_ms > 0	  ? r->attempt_ms
			: streq(c->method, "GET") ? READ_ATTEMPT_MS
						  : timeout_ms;
	c->again = r->again;
	c->done = r->done;
	c->ctx = r->ctx;
	if (k->n_calls++ >= CALLS_MAX && !c->urgent) {
		c->failed = -ENOBUFS;
		c->timer = timer_new(k->loop, on_refused, c);
		timer_start(c->timer, 0, 0);
	} else if (c->urgent) {
		c->deadline = clock_ms() + (uint64_t)timeout_ms;
		call_send(c);
	} else {
		c->waiting = true;
		*k->waiting_end = c;
		k->waiting_end = &c->next_waiting;
		send_waiting(k);
	}
}

void kube_cancel(struct kube *k, const void *ctx)
{
	struct call *next;

	for (struct call *c = k->calls; c; c = next) {
		next = c->next;
		if (c->ctx != ctx)
			continue;
		if (c->http)
			http_call_cancel(c->http);
		call_free(c);
	}
	send_waiting(k);
}

static void add_escaped(struct buf *b, const char *s)
{
	for (; *s; s++)
		if ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
		    strchr("-._~:", *s))
			buf_add(b, s, 1);
		else
			buf_addf(b, "%%%02X", (unsigned char)*s);
}

char *kube_path(const struct model_kind *kind, const char *ns, const char *name, const char *subresource)
{
	struct buf b = {0};

	if (kind->group && *kind->group)
		buf_addf(&b, "/apis/%s/%s", kind->group, kind->version);
	else
		buf_addf(&b, "/api/%s", kind->version);
	if (ns && kind->namespaced) {
		buf_adds(&b, "/namespaces/");
		add_escaped(&b, ns);
	}
	buf_addf(&b, "/%s", kind->plural);
	if (name) {
		buf_adds(&b, "/");
		add_escaped(&b, name);
	}
	if (subresource)
		buf_addf(&b, "/%s", subresource);
	return buf_take(&b);
}

static void simple(struct kube *k, const char *method, const char *path, const char *content_type,
		   const json_t *body, kube_done_fn done, void *ctx)
{
	kube_call(k, &(struct kube_request){.method = method,
					    .path = path,
					    .content_type = content_type,
					    .body = body,
					    .done = done,
					    .ctx = ctx});
}

void kube_get(struct kube *k, const struct model_kind *kind, const char *ns, const char *name,
	      kube_done_fn done, void *ctx)
{
	_cleanup_free_ char *path = kube_path(kind, ns, name, NULL);

	simple(k, "GET", path, NULL, NULL, done, ctx);
}

void kube_list(struct kube *k, const struct model_kind *kind, const char *ns, const char *query,
	       kube_done_fn done, void *ctx)
{
	_cleanup_free_ char *path = kube_path(kind, ns, NULL, NULL);
	_cleanup_free_ char *full = xasprintf("%s%s%s", path, query ? "?" : "", query ? query : "");

	simple(k, "GET", full, NULL, NULL, done, ctx);
}

void kube_create(struct kube *k, const struct model_kind *kind, const char *ns, const json_t *obj,
		 kube_done_fn done, void *ctx)
{
	_cleanup_free_ char *path = kube_path(kind, ns, NULL, NULL);

	simple(k, "POST", path, NULL, obj, done, ctx);
}

void kube_update(struct kube *k, const struct model_kind *kind, const char *subresource, const json_t *obj,
		 kube_done_fn done, void *ctx)
{
	_cleanup_free_ char *path = kube_path(kind, js_str(obj, "metadata.namespace"),
					      js_str_or(obj, "metadata.name", ""), subresource);

	simple(k, "PUT", path, NULL, obj, done, ctx);
}

void kube_patch(struct kube *k, const struct model_kind *kind, const char *ns, const char *name,
		const char *subresource, enum kube_patch type, const json_t *patch, kube_done_fn done,
		void *ctx)
{
	static const char *const types[] = {
		[KUBE_PATCH_STRATEGIC] = "application/strategic-merge-patch+json",
		[KUBE_PATCH_MERGE] = "application/merge-patch+json",
		[KUBE_PATCH_JSON] = "application/json-patch+json",
	};
	_cleanup_free_ char *path = kube_path(kind, ns, name, subresource);

	simple(k, "PATCH", path, types[type], patch, done, ctx);
}

void kube_delete(struct kube *k, const struct model_kind *kind, const char *ns, const char *name,
		 const char *uid, int64_t grace_s, kube_done_fn done, void *ctx)
{
	_cleanup_free_ char *path = kube_path(kind, ns, name, NULL);
	_cleanup_json_ json_t *body = json_pack("{s:s, s:s}", "kind", "DeleteOptions", "apiVersion", "v1");

	if (grace_s >= 0)
		json_object_set_new(body, "gracePeriodSeconds", json_integer(grace_s));
	if (uid)
		json_object_set_new(body, "preconditions", json_pack("{s:s}", "uid", uid));
	simple(k, "DELETE", path, NULL, body, done, ctx);
}

void kube_raw(struct kube *k, const char *method, const char *path, const char *content_type,
	      const json_t *body, kube_done_fn done, void *ctx)
{
	simple(k, method, path, content_type, body, done, ctx);
}

uint64_t kube_silent_ms(const struct kube *k)
{
	return clock_ms() - k->heard_ms;
}

uv_loop_t *kube_loop(const struct kube *k)
{
	return k->loop;
}

int kube_new(uv_loop_t *loop, const struct kube_settings *s, const char *user_agent, struct kube **ret,
	     struct err *e)
{
	_cleanup_(config_done) struct kube_config cfg = {0};
	struct http_client_options http_options;
	struct http_client *http, *urgent;
	struct kube *k;
	int r = config_load(s, &cfg, e);

	if (r < 0)
		return r;
	if (strv_len(cfg.servers) > SERVERS_MAX)
		return err_set(e, -E2BIG, "more than %d API servers", SERVERS_MAX);
	http_options = (struct http_client_options){.ca_file = cfg.ca_file,
						    .cert_file = cfg.cert_file,
						    .key_file = cfg.key_file,
						    .ca_pem = cfg.ca_pem,
						    .cert_pem = cfg.cert_pem,
						    .key_pem = cfg.key_pem,
						    .bearer_token = cfg.token,
						    .insecure = cfg.insecure,
						    .connections_max = SENT_MAX + WATCHES_MAX};
	http = http_client_new(loop, &http_options, e);
	urgent = http ? http_client_new(loop, &http_options, e) : NULL;
	if (!urgent) {
		http_client_free(http);
		return -EIO;
	}
	k = xcalloc(1, sizeof(*k));
	k->loop = loop;
	k->http = http;
	k->urgent = urgent;
	k->waiting_end = &k->waiting;
	for (char **u = cfg.servers; *u; u++) {
		size_t len = strlen(*u);

		k->servers[k->n_servers++] = xstrndup(*u, (*u)[len - 1] == '/' ? len - 1 : len);
	}
	k->component = user_agent;
	k->user_agent = xasprintf("User-Agent: %s", user_agent);
	k->watch_silence_ms = WATCH_SILENCE_MS;
	k->heard_ms = clock_ms();
	k->recorder = recorder_new(k);
	k->home = kube_home_new(k);
	*ret = k;
	return 0;
}

struct kube *kube_free(struct kube *k)
{
	if (!k)
		return NULL;
	while (k->caches)
		kube_cache_free(k->caches);
	k->recorder = recorder_free(k->recorder);
	k->home = kube_home_free(k->home);
	http_client_free(k->http);
	http_client_free(k->urgent);
	while (k->calls)
		call_free(k->calls);
	for (size_t i = 0; i < k->n_servers; i++)
		free(k->servers[i]);
	free(k->user_agent);
	free(k);
	return NULL;
}
