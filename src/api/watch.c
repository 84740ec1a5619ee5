/* SPDX-License-Identifier: Apache-2.0 */
/* Watches. Loop thread. A watcher reads the cache's event window at its own position; the cache tells (coalesced) that it has
 * moved, a timer looks after bookmarks, time limits and the store's health.
 * Bookmarks go out about every second, the first at once, so that clients can tell a quiet watch from a dead one. When the
 * store has not been heard of for 3 s every watch ends: its client goes to another server.
 * With a selector an object that comes to match is ADDED, one that no longer matches is DELETED, as Kubernetes does. */
#include "api/internal.h"

#define BATCH	      128
#define TICK_MS	      250
#define AHEAD_MS      3000 /* a client may be ahead of this server so long */
#define BOOKMARK_MS   1000
#define TIMEOUT_MIN_S 1800 /* of watches that name none; as Kubernetes, up to twice that */

struct watcher {
	struct watcher *prev, *next;
	struct watches *all;
	struct call *call;
	struct filter filter;
	uint64_t generation, seq;
	int64_t min_rev; /* events up to it are known to the client */
	int64_t sent_rev;
	bool bookmarks, initial, ended;
	uint64_t bookmark_at_ms, until_ms, ahead_until_ms;
};

struct watches {
	struct api *api;
	struct watcher *first;
	struct timer *tick;
	size_t n;
	_Atomic bool posted;
};

static const char *const type_names[] = {
	[EVENT_ADDED] = "ADDED", [EVENT_MODIFIED] = "MODIFIED", [EVENT_DELETED] = "DELETED"};

static void on_closed(void *ctx)
{
	struct watcher *w = ctx;

	if (w->prev)
		w->prev->next = w->next;
	else
		w->all->first = w->next;
	if (w->next)
		w->next->prev = w->prev;
	w->all->n--;
	metrics_count(w->call->api->metrics, w->call, 200, 0);
	filter_done(&w->filter);
	w->call->http = NULL;
	call_free(w->call);
	free(w);
}

static void end(struct watcher *w)
{
	if (!w->ended) {
		w->ended = true;
		http_stream_end(w->call->http);
	}
}

static void write_event(struct watcher *w, const char *type, const char *text, size_t len)
{
	_cleanup_buf_ struct buf b = {0};

	if (w->ended)
		return;
	buf_addf(&b, "{\"type\":\"%s\",\"object\":", type);
	buf_add(&b, text, len);
	buf_adds(&b, "}\n");
	if (http_stream_write(w->call->http, b.data, b.len) < 0)
		w->ended = true; /* too slow: the server cuts it off */
}

static void write_tree(struct watcher *w, const char *type, const json_t *obj)
{
	_cleanup_free_ char *text = js_text(obj);

	write_event(w, type, text, strlen(text));
}

static void write_error(struct watcher *w, int code, const char *reason, const char *text)
{
	_cleanup_json_ json_t *s = status_new(code, reason, text);

	write_tree(w, "ERROR", s);
	end(w);
}

/* An object in the form the watcher wants. */
static void write_object(struct watcher *w, const char *type, const json_t *json, const char *text,
			 size_t len)
{
	struct call *c = w->call;
	_cleanup_json_ json_t *j = NULL;

	if (c->output == OUTPUT_OBJECT && text) {
		write_event(w, type, text, len);
		return;
	}
	if (c->output == OUTPUT_TABLE) {
		j = model_table_new(c->kind, json, http_req_query(c->http, "includeObject"), clock_wall_us());
		js_set_new(j, "metadata.resourceVersion",
			   json_string(js_str_or(json, "metadata.resourceVersion", "")));
		js_set_new(j, "apiVersion", json_sprintf("meta.k8s.io/%s", c->table_version));
	} else if (c->output == OUTPUT_PARTIAL) {
		j = partial_new(json);
	} else {
		j = json_incref((json_t *)json);
	}
	write_tree(w, type, j);
}

static void write_bookmark(struct watcher *w, bool initial_end)
{
	char api_version[128];
	_cleanup_json_ json_t *o = json_pack("{ss ss s{ss% sn}}", "kind", w->call->kind->kind, "apiVersion",
					     model_api_version(w->call->kind, api_version), "metadata",
					     "resourceVersion", "0", (size_t)1, "creationTimestamp");

	js_set_new(o, "metadata.resourceVersion", json_sprintf("%lld", (long long)w->sent_rev));
	if (initial_end)
		js_set_new(o, "metadata.annotations", json_pack("{ss}", "k8s.io/initial-events-end", "true"));
	if (w->call->output == OUTPUT_TABLE)
		json_object_set_new(o, "kind", json_string("Table")),
			json_object_set_new(o, "apiVersion",
					    json_sprintf("meta.k8s.io/%s", w->call->table_version)),
			json_object_set_new(o, "rows", json_array()),
			json_object_set_new(o, "columnDefinitions", json_array());
	write_tree(w, "BOOKMARK", o);
	w->bookmark_at_ms = clock_ms() + BOOKMARK_MS;
}

/* ---- events ---- */

static bool concerns(const struct watcher *w, const struct obj *o)
{
	const struct call *c = w->call;

	return o->kind == c->kind && (!c->ns || streq(c->ns, o->ns)) &&
	       (!c->name || streq(c->name, js_str_or(o->json, "metadata.name", "")));
}

static void send_event(struct watcher *w, const struct event *ev)
{
	bool now, before;
	_cleanup_json_ json_t *left = NULL;

	if (ev->rev <= w->min_rev || !concerns(w, ev->obj))
		return;
	now = ev->type != EVENT_DELETED && filter_match(&w->filter, ev->obj->json);
	before = ev->old && filter_match(&w->filter, ev->old->json);
	if (now) {
		write_object(w, type_names[before ? EVENT_MODIFIED : EVENT_ADDED], ev->obj->json,
			     ev->obj->text, ev->obj->text_len);
	} else if (before && ev->type == EVENT_DELETED) {
		write_object(w, "DELETED", ev->obj->json, ev->obj->text, ev->obj->text_len);
	} else if (before) { /* its last matching state, at the revision of the change */
		left = json_copy(ev->old->json);
		json_object_set_new(left, "metadata", json_copy(js_get(left, "metadata")));
		js_set_new(left, "metadata.resourceVersion", json_sprintf("%lld", (long long)ev->rev));
		write_object(w, "DELETED", left, NULL, 0);
	}
}

static void pump(struct watcher *w)
{
	struct event ev[BATCH];
	size_t n = BATCH;
	int64_t rev;

	while (n == BATCH && !w->ended) {
		if (cache_events(w->all->api->cache, w->generation, w->seq, ev, BATCH, &n, &rev) < 0) {
			write_error(w, 410, "Expired",
				    "too old resource version: the watch fell behind the event window");
			return;
		}
		for (size_t i = 0; i < n; i++) {
			send_event(w, &ev[i]);
			event_done(&ev[i]);
		}
		w->seq += n;
		if (n < BATCH)
			w->sent_rev = MAX(rev, w->min_rev);
	}
}

static void on_moved(void *arg)
{
	struct watches *all = arg;

	all->posted = false;
	for (struct watcher *w = all->first; w; w = w->next)
		if (!w->ended)
			pump(w);
}

void watches_changed(void *ctx)
{
	struct api *api = ctx;

	if (api->watches && !atomic_exchange(&api->watches->posted, true) &&
	    mailbox_post(api->mailbox, on_moved, api->watches) < 0)
		api->watches->posted = false; /* the timer pumps too */
}

/* The client has seen what this server's store never had (it was reset): it would wait for ever. */
static void too_large(struct watcher *w, int64_t rev)
{
	char text[128];

	snprintf(text, sizeof(text), "Too large resource version: %lld, current: %lld", (long long)w->min_rev,
		 (long long)rev);
	write_error(w, 504, "Timeout", text);
}

static void on_tick(void *ctx)
{
	struct watches *all = ctx;
	bool alive = api_store_alive(all->api);
	bool fresh = alive && cache_silent_ms(all->api->cache) < 2 * BOOKMARK_MS + TICK_MS;
	int64_t rev = cache_rev(all->api->cache);
	uint64_t now = clock_ms();

	for (struct watcher *w = all->first; w; w = w->next) {
		if (w->ended)
			continue;
		if (!alive || now > w->until_ms) {
			end(w);
			continue;
		}
		pump(w);
		if (!w->ended && fresh && now > w->ahead_until_ms && w->min_rev > rev)
			too_large(w, rev);
		if (!w->ended && w->bookmarks && fresh && now >= w->bookmark_at_ms)
			write_bookmark(w, false);
	}
}

/* ---- begin ---- */

static void send_current(struct watcher *w)
{
	struct obj_list l;

	if (cache_list(w->all->api->cache, w->call->kind, w->call->ns, &l) < 0) {
		w->min_rev = 0; /* too old: the watch ends with 410 */
		return;
	}
	for (size_t i = 0; i < l.n; i++)
		if (concerns(w, l.v[i]) && filter_match(&w->filter, l.v[i]->json))
			write_object(w, "ADDED", l.v[i]->json, l.v[i]->text, l.v[i]->text_len);
	w->min_rev = l.rev;
	obj_list_done(&l);
}

static uint64_t time_limit_ms(const struct call *c)
{
	const char *text = http_req_query(c->http, "timeoutSeconds");
	uint32_t random;
	int64_t s;

	if (text && str_i64(text, &s) == 0 && s > 0)
		return (uint64_t)MIN(s, (int64_t)86400) * 1000;
	random_bytes(&random, sizeof(random));
	return (TIMEOUT_MIN_S + random % TIMEOUT_MIN_S) * 1000ULL;
}

/* rev -1 = from the current state. */
static void begin(struct call *c, int64_t rev, bool current)
{
	struct watches *all = c->api->watches;
	struct watcher *w = xcalloc(1, sizeof(*w));

	w->all = all;
	w->call = c;
	if (filter_init(c, &w->filter) < 0) {
		free(w);
		reply_failure(c);
		call_free(c);
		return;
	}
	w->bookmarks = query_true(c, "allowWatchBookmarks");
	w->initial = query_true(c, "sendInitialEvents");
	w->until_ms = clock_ms() + time_limit_ms(c);
	w->ahead_until_ms = clock_ms() + AHEAD_MS;
	w->next = all->first;
	if (w->next)
		w->next->prev = w;
	all->first = w;
	all->n++;
	http_stream_begin(c->http, 200, "application/json", on_closed, w);
	if (current || w->initial)
		send_current(w);
	else
		w->min_rev = rev;
	w->sent_rev = w->min_rev;
	if (cache_event_at(all->api->cache, w->min_rev, &w->seq, &w->generation) < 0) {
		char text[128];

		snprintf(text, sizeof(text), "too old resource version: %lld", (long long)w->min_rev);
		write_error(w, 410, "Expired", text);
		return;
	}
	pump(w);
	if (w->bookmarks && !w->ended)
		write_bookmark(w, w->initial);
}

/* The most recent state is asked for: first the cache must have seen what is acknowledged now. */
static void begin_current(void *arg)
{
	begin(arg, 0, true);
}

struct catch_up {
	uv_work_t work;
	struct call *call;
	int r;
};

static void on_catch_up(uv_work_t *work)
{
	struct catch_up *u = work->data;
	int64_t rev;

	u->r = current_rev(u->call, &rev);
	if (u->r == 0 && cache_wait_rev(u->call->api->cache, rev, 3000) < 0)
		u->r = fail(u->call, 504, "Timeout", "the watch cache is behind the store");
}

static void on_caught_up(uv_work_t *work, int status)
{
	struct catch_up *u = work->data;
	struct call *c = u->call;

	(void)status;
	c->api->in_flight--;
	if (u->r == 0) {
		begin_current(c);
	} else {
		reply_failure(c);
		call_free(c);
	}
	free(u);
}

void watch_begin(struct call *c)
{
	const char *text = http_req_query(c->http, "resourceVersion");
	struct catch_up *u;
	int64_t rev = 0;

	if (text && *text && (str_i64(text, &rev) < 0 || rev < 0)) {
		fail(c, 400, "BadRequest", "resourceVersion: Invalid value: \"%s\": not a number", text);
		reply_failure(c);
		call_free(c);
	} else if (text && *text) {
		begin(c, rev, rev == 0);
	} else {
		u = xcalloc(1, sizeof(*u));
		u->call = c;
		u->work.data = u;
		c->api->in_flight++;
		ensure(uv_queue_work(&c->api->loop, &u->work, on_catch_up, on_caught_up) == 0);
	}
}

struct watches *watches_new(struct api *api)
{
	struct watches *all = xcalloc(1, sizeof(*all));

	all->api = api;
	all->tick = timer_new(&api->loop, on_tick, all);
	timer_start(all->tick, TICK_MS, TICK_MS);
	return all;
}

struct watches *watches_free(struct watches *all)
{
	if (!all)
		return NULL;
	timer_free(all->tick);
	all->tick = NULL;
	for (struct watcher *w = all->first; w; w = w->next)
		end(w);
	return NULL;
}

size_t watches_count(const struct watches *w)
{
	return w->n;
}
