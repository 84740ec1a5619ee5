/* SPDX-License-Identifier: Apache-2.0 */
/* The watch cache: every object, kept true by one watch of the store below /registry/, and the last events in order.
 *
 * Threads: one of its own loads and follows the store (the store calls back on another); readers come from any thread and take
 * references under the lock. Objects never change once they are in.
 * Invariants: `rev` is the revision up to which objects and events are complete; events are in revision order; the window holds
 * every event with a revision > window_rev.
 * When the watch ends (history compacted away, or any other reason) everything is read anew under a new generation; watchers
 * of the old one are ended and list again.
 * A stored value is the object without its resourceVersion; the revision is put in here. */
#include <pthread.h>

#include "api/internal.h"

#define LOAD_PAGE 500
#define WINDOW_BYTES_MAX \
	((size_t)16 << 20) /* of serialized objects; their trees take about five times that */
#define DUMB_MS		15000
#define RELOAD_PAUSE_MS 200

struct kind_index {
	const struct model_kind *kind;
	struct obj **v; /* by key */
	size_t n, cap;
	int64_t rev;
};

struct cache {
	struct store *store;
	struct api *api;
	void (*changed)(void *ctx);
	void *ctx;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t moved; /* rev, ready or ended have changed */
	struct kind_index *kinds;
	size_t n_kinds, n_objects;
	struct strmap *raw; /* keys that are no objects */
	struct event *ring;
	size_t window, window_bytes;
	uint64_t first_seq, next_seq; /* events in the ring: [first_seq, next_seq) */
	uint64_t generation;
	int64_t rev, window_rev;
	bool ready, ended, stopping;
	_Atomic uint64_t heard_ms;
};

/* ---- objects ---- */

struct obj *obj_ref(struct obj *o)
{
	o->refs++;
	return o;
}

void obj_unref(struct obj *o)
{
	if (!o || --o->refs > 0)
		return;
	json_decref(o->json);
	free(o->key);
	free(o->ns);
	free(o->text);
	free(o);
}

static struct obj *obj_of(const struct model_kind *k, const char *key, json_t *json, int64_t rev)
{
	struct obj *o = xcalloc(1, sizeof(*o));
	const char *slash = k->namespaced ? strchr(key, '/') : NULL;
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)rev);
	js_set_new(json, "metadata.resourceVersion", json_string(text));
	o->refs = 1;
	o->kind = k;
	o->key = xstrdup(key);
	o->ns = slash ? xstrndup(key, (size_t)(slash - key)) : NULL;
	o->rev = rev;
	o->json = json;
	o->text = js_text(json);
	o->text_len = strlen(o->text);
	return o;
}

struct obj *obj_new(const struct model_kind *k, const char *key, const char *value, size_t len, int64_t rev)
{
	struct err e;
	json_t *json;

	if (js_parse_new(value, len, &json, &e) < 0 || !json_is_object(json)) {
		log_error("the stored value of %s %s is no object and is left out", k->plural, key);
		return NULL;
	}
	return obj_of(k, key, json, rev);
}

void event_done(struct event *e)
{
	obj_unref(e->obj);
	obj_unref(e->old);
	*e = (struct event){0};
}

void obj_list_done(struct obj_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		obj_unref(l->v[i]);
	free(l->v);
	*l = (struct obj_list){0};
}

/* ---- index, under the lock ---- */

static struct kind_index *index_of(const struct cache *c, const struct model_kind *k)
{
	for (size_t i = 0; i < c->n_kinds; i++)
		if (c->kinds[i].kind == k)
			return &c->kinds[i];
	return NULL;
}

/* "/registry/pods/ns/name" -> pods, "ns/name" */
static struct kind_index *index_of_key(const struct cache *c, const char *key, const char **ret_rest)
{
	const char *plural = key + strlen(REGISTRY), *slash = strchr(plural, '/');

	for (size_t i = 0; slash && i < c->n_kinds; i++) {
		const char *p = c->kinds[i].kind->plural;

		if (strlen(p) == (size_t)(slash - plural) && strncmp(p, plural, strlen(p)) == 0) {
			*ret_rest = slash + 1;
			return &c->kinds[i];
		}
	}
	return NULL;
}

/* First position whose key is >= key. */
static size_t lower_bound(const struct kind_index *x, const char *key)
{
	size_t lo = 0, hi = x->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (strcmp(x->v[mid]->key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct obj *find(const struct kind_index *x, const char *key)
{
	size_t at = lower_bound(x, key);

	return at < x->n && streq(x->v[at]->key, key) ? x->v[at] : NULL;
}

/* Takes over o; returns the reference of what was there. o NULL = remove. */
static struct obj *replace(struct cache *c, struct kind_index *x, const char *key, struct obj *o)
{
	size_t at = lower_bound(x, key);
	struct obj *old = at < x->n && streq(x->v[at]->key, key) ? x->v[at] : NULL;

	if (old && o) {
		x->v[at] = o;
	} else if (old) {
		memmove(&x->v[at], &x->v[at + 1], (x->n - at - 1) * sizeof(*x->v));
		x->n--;
		c->n_objects--;
	} else if (o) {
		if (x->n == x->cap) {
			x->cap = x->cap ? x->cap * 2 : 64;
			x->v = xrealloc(x->v, x->cap * sizeof(*x->v));
		}
		memmove(&x->v[at + 1], &x->v[at], (x->n - at) * sizeof(*x->v));
		x->v[at] = o;
		x->n++;
		c->n_objects++;
	}
	return old;
}

static void forget_first(struct cache *c)
{
	struct event *first = &c->ring[c->first_seq % c->window];

	c->window_rev = first->rev;
	c->window_bytes -= first->obj->text_len;
	event_done(first);
	c->first_seq++;
}

/* Takes over the references. */
static void push_event(struct cache *c, struct event ev)
{
	while (c->next_seq > c->first_seq && (c->next_seq - c->first_seq == c->window ||
					      c->window_bytes + ev.obj->text_len > WINDOW_BYTES_MAX))
		forget_first(c);
	c->ring[c->next_seq++ % c->window] = ev;
	c->window_bytes += ev.obj->text_len;
}

static void apply(struct cache *c, const struct store_event *ev)
{
	const char *rest;
	struct kind_index *x = index_of_key(c, ev->kv.key, &rest);
	struct obj *o = NULL, *old;

	if (!x) {
		if (ev->type == STORE_EVENT_PUT)
			strmap_set(c->raw, ev->kv.key, c);
		else
			strmap_del(c->raw, ev->kv.key);
		return;
	}
	x->rev = ev->kv.mod_rev;
	if (ev->type == STORE_EVENT_PUT) {
		o = obj_new(x->kind, rest, ev->kv.value, ev->kv.value_len, ev->kv.mod_rev);
		if (!o)
			return;
		old = replace(c, x, rest, obj_ref(o));
		push_event(c, (struct event){.rev = o->rev,
					     .type = old ? EVENT_MODIFIED : EVENT_ADDED,
					     .obj = o,
					     .old = old});
		return;
	}
	old = replace(c, x, rest, NULL);
	if (old) {
		json_t *last = json_copy(old->json);

		json_object_set_new(last, "metadata", json_copy(js_get(old->json, "metadata")));
		o = obj_of(x->kind, rest, last, ev->kv.mod_rev);
		push_event(c, (struct event){.rev = o->rev, .type = EVENT_DELETED, .obj = o, .old = old});
	}
}

/* ---- following the store ---- */

static void on_events(void *ctx, const struct store_event *ev, size_t n, int64_t rev)
{
	struct cache *c = ctx;

	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < n; i++)
		apply(c, &ev[i]);
	if (rev > c->rev)
		c->rev = rev;
	c->heard_ms = clock_ms();
	pthread_cond_broadcast(&c->moved);
	pthread_mutex_unlock(&c->lock);
	if (n)
		c->changed(c->ctx);
}

static void on_ended(void *ctx, int why)
{
	struct cache *c = ctx;

	log_warn("the store's watch has ended: %s; everything is read anew", strerror(-why));
	pthread_mutex_lock(&c->lock);
	c->ended = true;
	pthread_cond_broadcast(&c->moved);
	pthread_mutex_unlock(&c->lock);
}

static void clear(struct cache *c)
{
	const char *key;
	void *value;

	for (size_t i = 0; i < c->n_kinds; i++) {
		for (size_t j = 0; j < c->kinds[i].n; j++)
			obj_unref(c->kinds[i].v[j]);
		c->kinds[i].n = 0;
	}
	while (c->first_seq < c->next_seq)
		forget_first(c);
	strmap_foreach (c->raw, key, value)
		strmap_del(c->raw, key);
	c->n_objects = 0;
	c->generation++;
	c->ready = false;
}

/* Everything at one revision, page by page. */
static int load(struct cache *c, int64_t *ret_rev, struct err *e)
{
	_cleanup_free_ char *begin = xstrdup(REGISTRY);
	int64_t rev = 0;
	bool more = true;

	while (more) {
		struct store_list l = {0};
		int r = store_range(c->store, begin, "/registry0", LOAD_PAGE, rev, &l, e);

		if (r < 0)
			return r;
		rev = rev ? rev : l.rev;
		pthread_mutex_lock(&c->lock);
		for (size_t i = 0; i < l.n; i++) {
			const char *rest;
			struct kind_index *x = index_of_key(c, l.kv[i].key, &rest);
			struct obj *o =
				x ? obj_new(x->kind, rest, l.kv[i].value, l.kv[i].value_len, l.kv[i].mod_rev)
				  : NULL;

			if (o)
				obj_unref(replace(c, x, rest, o));
			else if (!x)
				strmap_set(c->raw, l.kv[i].key, c);
			if (x)
				x->rev = MAX(x->rev, l.kv[i].mod_rev);
		}
		pthread_mutex_unlock(&c->lock);
		more = l.more && l.n;
		if (more) {
			free(begin);
			begin = xasprintf("%s%c", l.kv[l.n - 1].key, 1);
		}
		store_list_done(&l);
	}
	*ret_rev = rev;
	return 0;
}

/* Sleeps a second; false when the watch has ended, or is dumb although the store answers reads. */
static bool following(struct cache *c)
{
	struct timespec until;
	bool on;

	until = clock_after(1000);
	pthread_mutex_lock(&c->lock);
	while (!c->ended && !c->stopping && pthread_cond_timedwait(&c->moved, &c->lock, &until) == 0)
		;
	on = !c->ended && !c->stopping;
	pthread_mutex_unlock(&c->lock);
	if (on && cache_silent_ms(c) > DUMB_MS && c->api && c->api->store_heard_ms + 1000 > clock_ms()) {
		log_warn(
			"the store answers, but its watch has told nothing for %d s; everything is read anew",
			DUMB_MS / 1000);
		return false;
	}
	return on;
}

/* One generation: read all, then follow until the watch ends. */
static void follow(struct cache *c)
{
	const struct store_watch_handler h = {.events = on_events, .ended = on_ended, .ctx = c};
	struct store_watch *w = NULL;
	struct err e = {0};
	int64_t rev;
	int r;

	pthread_mutex_lock(&c->lock);
	clear(c);
	c->ended = false;
	pthread_mutex_unlock(&c->lock);
	c->changed(c->ctx);
	r = load(c, &rev, &e);
	if (r == 0) {
		pthread_mutex_lock(&c->lock);
		c->rev = c->window_rev = rev;
		c->ready = true;
		c->heard_ms = clock_ms();
		pthread_cond_broadcast(&c->moved);
		pthread_mutex_unlock(&c->lock);
		r = store_watch(c->store, REGISTRY, rev + 1, &h, &w, &e);
	}
	if (r < 0) {
		log_warn("reading the store: %s", e.text);
		return;
	}
	while (following(c))
		;
	store_watch_free(w);
}

static void *run(void *arg)
{
	struct cache *c = arg;

	while (!c->stopping) {
		follow(c);
		if (!c->stopping)
			usleep(RELOAD_PAUSE_MS * 1000);
	}
	return NULL;
}

struct cache *cache_new(struct store *s, struct api *api, size_t window, void (*changed)(void *ctx),
			void *ctx)
{
	struct cache *c = xcalloc(1, sizeof(*c));
	const struct model_kind *k = model_kinds(&c->n_kinds);
	pthread_condattr_t a;

	c->store = s;
	c->api = api;
	c->changed = changed;
	c->ctx = ctx;
	c->window = window;
	c->ring = xcalloc(window, sizeof(*c->ring));
	c->raw = strmap_new();
	c->kinds = xcalloc(c->n_kinds, sizeof(*c->kinds));
	for (size_t i = 0; i < c->n_kinds; i++)
		c->kinds[i].kind = &k[i];
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->moved, &a);
	ensure(pthread_create(&c->thread, NULL, run, c) == 0);
	return c;
}

struct cache *cache_free(struct cache *c)
{
	if (!c)
		return NULL;
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_broadcast(&c->moved);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	clear(c);
	for (size_t i = 0; i < c->n_kinds; i++)
		free(c->kinds[i].v);
	free(c->kinds);
	free(c->ring);
	strmap_free(c->raw, NULL);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->moved);
	free(c);
	return NULL;
}

/* ---- readers ---- */

static int wait_for(struct cache *c, int64_t rev, uint64_t timeout_ms)
{
	struct timespec until;
	int r = 0;

	until = clock_after(timeout_ms);
	pthread_mutex_lock(&c->lock);
	while ((!c->ready || c->rev < rev) && !c->stopping && r == 0)
		r = pthread_cond_timedwait(&c->moved, &c->lock, &until);
	r = c->ready && c->rev >= rev ? 0 : -ETIMEDOUT;
	pthread_mutex_unlock(&c->lock);
	return r;
}

int cache_wait_ready(struct cache *c, uint64_t timeout_ms)
{
	return wait_for(c, 0, timeout_ms);
}

int cache_wait_rev(struct cache *c, int64_t rev, uint64_t timeout_ms)
{
	return wait_for(c, rev, timeout_ms);
}

bool cache_ready(struct cache *c)
{
	bool r;

	pthread_mutex_lock(&c->lock);
	r = c->ready;
	pthread_mutex_unlock(&c->lock);
	return r;
}

int64_t cache_rev(struct cache *c)
{
	int64_t r;

	pthread_mutex_lock(&c->lock);
	r = c->rev;
	pthread_mutex_unlock(&c->lock);
	return r;
}

uint64_t cache_silent_ms(struct cache *c)
{
	uint64_t now = clock_ms(), heard = c->heard_ms;

	return now > heard ? now - heard : 0;
}

size_t cache_objects(struct cache *c)
{
	return c->n_objects;
}

struct obj *cache_get(struct cache *c, const struct model_kind *k, const char *key)
{
	struct kind_index *x;
	struct obj *o;

	pthread_mutex_lock(&c->lock);
	x = index_of(c, k);
	o = x ? find(x, key) : NULL;
	if (o)
		obj_ref(o);
	pthread_mutex_unlock(&c->lock);
	return o;
}

int cache_list(struct cache *c, const struct model_kind *k, const char *ns, struct obj_list *ret)
{
	_cleanup_free_ char *prefix = ns ? xasprintf("%s/", ns) : NULL;
	struct kind_index *x;
	size_t from = 0, to;

	*ret = (struct obj_list){0};
	pthread_mutex_lock(&c->lock);
	if (!c->ready) {
		pthread_mutex_unlock(&c->lock);
		return -EAGAIN;
	}
	x = index_of(c, k);
	ret->rev = c->rev;
	to = x ? x->n : 0;
	if (x && prefix) {
		from = lower_bound(x, prefix);
		prefix[strlen(prefix) - 1] = '/' + 1; /* behind every key of the namespace */
		to = lower_bound(x, prefix);
	}
	ret->n = to - from;
	if (ret->n) {
		ret->v = xcalloc(ret->n, sizeof(*ret->v));
		for (size_t i = 0; i < ret->n; i++)
			ret->v[i] = obj_ref(x->v[from + i]);
	}
	pthread_mutex_unlock(&c->lock);
	return 0;
}

int64_t cache_kind_rev(struct cache *c, const struct model_kind *k)
{
	struct kind_index *x;
	int64_t r;

	pthread_mutex_lock(&c->lock);
	x = index_of(c, k);
	r = x ? x->rev : 0;
	pthread_mutex_unlock(&c->lock);
	return r;
}

bool cache_has_raw(struct cache *c, const char *key)
{
	bool r;

	pthread_mutex_lock(&c->lock);
	r = strmap_get(c->raw, key) != NULL;
	pthread_mutex_unlock(&c->lock);
	return r;
}

int cache_event_at(struct cache *c, int64_t rev, uint64_t *ret_seq, uint64_t *ret_generation)
{
	int r = 0;

	pthread_mutex_lock(&c->lock);
	*ret_generation = c->generation;
	if (!c->ready || rev < c->window_rev) {
		r = -ESTALE;
	} else {
		uint64_t lo = c->first_seq, hi = c->next_seq;

		while (lo < hi) {
			uint64_t mid = (lo + hi) / 2;

			if (c->ring[mid % c->window].rev <= rev)
				lo = mid + 1;
			else
				hi = mid;
		}
		*ret_seq = lo;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

int cache_events(struct cache *c, uint64_t generation, uint64_t seq, struct event *ret, size_t max,
		 size_t *ret_n, int64_t *ret_rev)
{
	size_t n = 0;
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (generation != c->generation || seq < c->first_seq || !c->ready)
		r = -ESTALE;
	for (; r == 0 && n < max && seq + n < c->next_seq; n++) {
		ret[n] = c->ring[(seq + n) % c->window];
		obj_ref(ret[n].obj);
		if (ret[n].old)
			obj_ref(ret[n].old);
	}
	*ret_n = n;
	*ret_rev = c->rev;
	pthread_mutex_unlock(&c->lock);
	return r;
}
