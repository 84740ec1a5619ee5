/* SPDX-License-Identifier: Apache-2.0 */
/* A local copy of a collection, kept true by list and watch.
 *
 *   LISTING --answer--> WATCHING --ended, silent, server left--> WAITING --back-off--> WATCHING (from the last revision)
 *      ^                    | 410: that revision is gone                                   |
 *      +--------------------+--------------------------------------------------------------+
 *
 * Invariants: `changed` is called once for each difference, in order; what the cache holds is never older than what it
 * held (resourceVersions are compared as numbers, as etcd's revisions are); an object put in by kube_cache_apply is not
 * replaced by an older one from the watch; a write's answer that comes after the object's deletion was seen is not put in.
 * Bound: one line of a watch is at most 8 MiB, a list 64 MiB (http_client). */
#include "kube/internal.h"

#define LINE_MAX_BYTES ((size_t)8 << 20)

struct kube_cache {
	struct kube *k;
	struct kube_cache *next, *prev;
	const struct model_kind *kind;
	char *ns, *query;
	struct kube_cache_handler h;
	struct strmap *objects; /* "ns/name" -> json_t */
	uint64_t rv;		/* all changes up to here are in */
	char rv_text[32];
	bool listed; /* a list has succeeded, rv is valid */
	bool synced;
	struct http_call *call; /* list or watch */
	struct buf line;
	size_t server;
	struct timer *retry;
	unsigned failures;
	uint64_t heard_ms, bookmark_ms, started_ms;
	int in_handler;
	bool gone; /* the watch said 410 */
};

static void start(struct kube_cache *c);

static char *key_of(const json_t *obj)
{
	return xasprintf("%s/%s", js_str_or(obj, "metadata.namespace", ""),
			 js_str_or(obj, "metadata.name", ""));
}

static void tell(struct kube_cache *c, json_t *old, json_t *obj)
{
	if (!c->h.changed)
		return;
	c->in_handler++;
	c->h.changed(c->h.ctx, old, obj);
	c->in_handler--;
}

static void put(struct kube_cache *c, json_t *obj)
{
	_cleanup_free_ char *key = key_of(obj);
	_cleanup_json_ json_t *old = json_incref(strmap_get(c->objects, key)); /* incref accepts NULL */

	if (old && obj_rv(old) >= obj_rv(obj) && obj_rv(obj) != 0)
		return;
	json_decref(strmap_set(c->objects, key, json_incref(obj)));
	tell(c, old, obj);
}

static void drop(struct kube_cache *c, const char *key)
{
	_cleanup_json_ json_t *old = strmap_del(c->objects, key);

	if (old)
		tell(c, old, NULL);
}

static void advance(struct kube_cache *c, const json_t *obj)
{
	const char *text = js_str(obj, "metadata.resourceVersion");
	uint64_t rv = obj_rv(obj);

	if (rv >= c->rv && text) {
		c->rv = rv;
		snprintf(c->rv_text, sizeof(c->rv_text), "%s", text);
	}
}

static void retry_later(struct kube_cache *c)
{
	timer_start(c->retry, backoff_ms(c->failures), 0);
	if (c->failures < 10)
		c->failures++;
}

static bool timed_out(int status)
{
	return status == -ETIMEDOUT || status == -EHOSTUNREACH;
}

/* ---- list ---- */
static void take_list(struct kube_cache *c, const json_t *list)
{
	const json_t *items = json_object_get(list, "items");
	_cleanup_(json_decref_p) json_t *seen = json_object();
	json_t *old, *item;
	const char *key, *version = js_str(list, "apiVersion");
	size_t i;

	json_array_foreach (items, i, item) {
		_cleanup_free_ char *k = key_of(item);

		if (!json_object_get(item, "kind")) {
			json_object_set_new(item, "kind", json_string(c->kind->kind));
			if (version)
				json_object_set_new(item, "apiVersion", json_string(version));
		}
		json_object_set_new(seen, k, json_true());
	}
	strmap_foreach (c->objects, key, old) {
		/* What was put in by a write newer than the list stays. */
		if (!json_object_get(seen, key) && obj_rv(old) <= obj_rv(list)) {
			_cleanup_free_ char *copy = xstrdup(key);

			drop(c, copy);
		}
	}
	json_array_foreach (items, i, item)
		put(c, item);
	c->rv = 0;
	advance(c, list);
}

static void on_list(void *ctx, int status, const char *data, size_t len, const char *text)
{
	struct kube_cache *c = ctx;
	_cleanup_json_ json_t *list = NULL;
	struct err e = {0};

	c->call = NULL;
	if (status == 200 &&
	    (js_parse_new(data, len, &list, &e) < 0 || !js_str(list, "metadata.resourceVersion"))) {
		status = -EBADMSG;
		text = *e.text ? e.text : "no resourceVersion";
	}
	if (status != 200) {
		log_debug("list of %s: %d %s", c->kind->plural, status, text);
		retry_later(c);
		if (status < 0 || status >= 500)
			kube_leave(c->k, c->server, timed_out(status) ? c->started_ms : 0,
				   status < 0 ? text : "cannot list");
		return;
	}
	kube_heard(c->k, c->server);
	c->heard_ms = clock_ms();
	take_list(c, list);
	c->listed = c->synced = true;
	c->failures = 0;
	start(c);
	if (c->h.synced) {
		c->in_handler++;
		c->h.synced(c->h.ctx);
		c->in_handler--;
	}
}

/* ---- watch ---- */
static void on_bookmark(struct kube_cache *c)
{
	uint64_t now = clock_ms();

	if (c->bookmark_ms && now - c->bookmark_ms < 2500) {
		c->k->bookmarks = true;
		c->k->watch_silence_ms = WATCH_SILENCE_MS;
	}
	c->bookmark_ms = now;
}

static void on_line(struct kube_cache *c, const char *data, size_t len)
{
	_cleanup_json_ json_t *ev = NULL;
	struct err e = {0};
	json_t *obj;
	const char *type;

	if (js_parse_new(data, len, &ev, &e) < 0) {
		log_warn("watch of %s: %s", c->kind->plural, e.text);
		c->gone = true; /* what was lost is not known: list again */
		return;
	}
	type = js_str_or(ev, "type", "");
	obj = json_object_get(ev, "object");
	if (streq(type, "ADDED") || streq(type, "MODIFIED")) {
		put(c, obj);
	} else if (streq(type, "DELETED")) {
		_cleanup_free_ char *key = key_of(obj);
		const json_t *old = strmap_get(c->objects, key);

		if (old && obj_rv(old) <= obj_rv(obj))
			drop(c, key);
	} else if (streq(type, "BOOKMARK")) {
		on_bookmark(c);
	} else if (streq(type, "ERROR")) {
		log_debug("watch of %s: %s", c->kind->plural, js_str_or(obj, "message", "error"));
		/* Too old for this server, or newer than its store (which was reset): listed again. */
		if (js_int(obj, "code", 0) == 410 || js_int(obj, "code", 0) == 504)
			c->gone = true;
		return;
	}
	advance(c, obj);
}

static void on_data(void *ctx, const char *data, size_t len)
{
	struct kube_cache *c = ctx;
	size_t from = 0;

	kube_heard(c->k, c->server);
	c->heard_ms = clock_ms();
	c->failures = 0;
	if (buf_add(&c->line, data, len) < 0) {
		c->gone = true;
		buf_done(&c->line);
	}
	while (!c->gone && from < c->line.len) {
		const char *at = c->line.data + from, *nl = memchr(at, '\n', c->line.len - from);

		if (!nl)
			break;
		if (nl > at)
			on_line(c, at, (size_t)(nl - at));
		from += (size_t)(nl - at) + 1;
	}
	buf_skip(&c->line, MIN(from, c->line.len));
	if (c->gone && c->call) {
		http_call_cancel(c->call);
		c->call = NULL;
		c->listed = false;
		retry_later(c);
	}
}

static void on_watch_end(void *ctx, int status, const char *data, size_t len, const char *text)
{
	struct kube_cache *c = ctx;
	bool silent = status == -ETIMEDOUT;

	(void)data, (void)len;
	c->call = NULL;
	log_debug("watch of %s ended: %d %s", c->kind->plural, status, text);
	if (status == 410)
		c->listed = false;
	if (silent && !c->k->bookmarks)
		c->k->watch_silence_ms = MIN(WATCH_SILENCE_MAX, c->k->watch_silence_ms * 2);
	retry_later(c);
	/* A stream that broke off may be the server stopping or only its connection: the next attempt will tell. */
	if ((status < 0 && status != -ECONNRESET && (!silent || c->k->bookmarks)) || status == 503 ||
	    status == 504)
		kube_leave(c->k, c->server, timed_out(status) && !silent ? c->started_ms : 0,
			   silent	? "its watch is silent"
			   : status < 0 ? text
					: "refuses to watch");
}

static void start(struct kube_cache *c)
{
	struct kube *k = c->k;
	_cleanup_free_ char *path = kube_path(c->kind, c->ns, NULL, NULL), *url = NULL;
	const char *headers[] = {"Accept: application/json", k->user_agent, NULL};
	struct http_call_options o = {.headers = headers, .connect_timeout_ms = kube_connect_ms(k), .ctx = c};

	ensure(!c->call);
	c->started_ms = clock_ms();
	timer_stop(c->retry);
	c->server = k->current;
	c->gone = false;
	c->bookmark_ms = 0;
	buf_done(&c->line);
	c->line.limit = LINE_MAX_BYTES;
	if (c->listed) {
		url = xasprintf("%s%s?watch=true&allowWatchBookmarks=true&resourceVersion=%s%s%s",
				k->servers[c->server], path, c->rv_text, c->query ? "&" : "",
				c->query ? c->query : "");
		o.timeout_ms = -1;
		o.silence_timeout_ms = k->watch_silence_ms;
		o.data = on_data;
		o.done = on_watch_end;
	} else {
		url = xasprintf("%s%s%s%s", k->servers[c->server], path, c->query ? "?" : "",
				c->query ? c->query : "");
		o.timeout_ms = 5000;
		o.silence_timeout_ms = 2500;
		o.done = on_list;
	}
	o.url = url;
	c->call = http_call_new(k->http, &o);
}

static void on_retry(void *ctx)
{
	struct kube_cache *c = ctx;

	if (!c->call)
		start(c);
}

void cache_server_left(struct kube_cache *c, size_t server)
{
	if (!c->call || c->server != server)
		return;
	http_call_cancel(c->call);
	c->call = NULL;
	timer_start(c->retry, backoff_ms((unsigned)MIN(6, c->k->unreached / MAX(1, c->k->n_servers))), 0);
}

struct kube_cache *cache_next(struct kube_cache *c)
{
	return c->next;
}

struct kube_cache *kube_cache_new(struct kube *k, const struct model_kind *kind, const char *ns,
				  const char *query, const struct kube_cache_handler *h)
{
	struct kube_cache *c = xcalloc(1, sizeof(*c));

	c->k = k;
	c->kind = kind;
	c->ns = ns ? xstrdup(ns) : NULL;
	c->query = query && *query ? xstrdup(query) : NULL;
	if (h)
		c->h = *h;
	c->objects = strmap_new();
	c->retry = timer_new(k->loop, on_retry, c);
	c->heard_ms = clock_ms();
	c->next = k->caches;
	if (k->caches)
		k->caches->prev = c;
	k->caches = c;
	timer_start(c->retry, 0, 0);
	return c;
}

static void free_object(void *obj)
{
	json_decref(obj);
}

struct kube_cache *kube_cache_free(struct kube_cache *c)
{
	if (!c)
		return NULL;
	ensure(!c->in_handler);
	if (c->prev)
		c->prev->next = c->next;
	else
		c->k->caches = c->next;
	if (c->next)
		c->next->prev = c->prev;
	if (c->call)
		http_call_cancel(c->call);
	timer_free(c->retry);
	strmap_free(c->objects, free_object);
	buf_done(&c->line);
	free(c->ns);
	free(c->query);
	free(c);
	return NULL;
}

bool kube_cache_synced(const struct kube_cache *c)
{
	return c->synced;
}

uint64_t kube_cache_silent_ms(const struct kube_cache *c)
{
	return clock_ms() - c->heard_ms;
}

json_t *kube_cache_get(const struct kube_cache *c, const char *ns, const char *name)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", ns && c->kind->namespaced ? ns : "", name ? name : "");

	return strmap_get(c->objects, key);
}

json_t *kube_cache_next(const struct kube_cache *c, size_t *pos)
{
	const char *key;
	void *obj;

	return strmap_next(c->objects, pos, &key, &obj) ? obj : NULL;
}

size_t kube_cache_len(const struct kube_cache *c)
{
	return strmap_len(c->objects);
}

void kube_cache_resync(struct kube_cache *c)
{
	if (c->call)
		http_call_cancel(c->call);
	c->call = NULL;
	c->listed = c->synced = false;
	timer_start(c->retry, 0, 0);
}

void kube_cache_apply(struct kube_cache *c, json_t *obj)
{
	_cleanup_free_ char *key = NULL;

	if (!streq(js_str(obj, "kind"), c->kind->kind) || !js_str(obj, "metadata.uid"))
		return; /* a Status, say */
	key = key_of(obj);
	if (!strmap_get(c->objects, key) && obj_rv(obj) <= c->rv)
		return; /* its deletion has been seen */
	put(c, obj);
}
