/* SPDX-License-Identifier: Apache-2.0 */
/* Hub: the watches of one store. The driver publishes every revision once, in order; the hub keeps the newest ones in a
 * ring and each watch, a thread of its own, reads the ring from where it is. So a slow callback delays nobody else, and a
 * watch that fell behind the ring asks the driver for history and then goes on in the ring: no event is skipped or
 * doubled because `next`, the first revision not yet looked at, only ever rises by what was looked at.
 *
 * Threads: hub_publish from the driver's committing thread (commits are serial); everything else from any thread.
 * One lock a hub; callbacks and history run without it. A publish wakes only watches whose prefix matches; the others
 * are moved on in place and tell progress: within MOVED_MS of a revision that was not theirs (a reader may wait for it), and
 * once a second in any case.
 *
 * Bounds: RING_REVS revisions and RING_BYTES bytes in the ring (less where the driver has older history), WATCHES_MAX watches, CHUNK_EVENTS events a call (more only
 * when one revision has more). */
#include "store/internal.h"

#define RING_REVS	(STORE_HISTORY_REVS * 2)
#define RING_BYTES	((size_t)64 << 20)
#define CACHE_REVS	2048 /* the same where the driver has history: the ring is then only a cache */
#define CACHE_BYTES	((size_t)8 << 20)
#define WATCHES_MAX	1024
#define CHUNK_EVENTS	1000
#define CHUNK_BATCHES	256
#define PROGRESS_MS	1000
#define MOVED_MS	50
#define HISTORY_WAIT_MS 200 /* after history was not to be had for now */
#define WATCH_STACK	((size_t)256 << 10)

struct store_watch {
	struct hub *hub;
	struct store_watch *next_watch;
	struct store_watch_handler handler;
	char *prefix;
	size_t prefix_len;
	int64_t next; /* first revision not looked at */
	bool dirty;   /* there may be something at or behind next */
	bool moved;   /* next has risen since the last call */
	bool closing; /* read without the lock by history(): only ever set */
	int ended;    /* 0, or why the hub ended it */
	uint64_t told_ms;
	pthread_cond_t wake;
	pthread_t thread;
};

struct hub {
	struct hub_source src;
	pthread_mutex_t lock;
	struct hub_batch *ring[RING_REVS];
	size_t first, n; /* oldest, count */
	size_t bytes, revs_max, bytes_max;
	int64_t last;	   /* newest revision known */
	int64_t from;	   /* the ring is complete from here on */
	int64_t compacted; /* below this nothing can be watched */
	bool reachable;
	struct store_watch *watches;
	size_t n_watches;
};

struct hub_batch *hub_batch_new(int64_t rev, size_t n)
{
	struct hub_batch *b = xcalloc(1, sizeof(*b) + n * sizeof(b->ev[0]));

	b->refs = 1;
	b->rev = rev;
	b->n = n;
	return b;
}

void hub_batch_unref(struct hub_batch *b)
{
	if (__atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (size_t i = 0; i < b->n; i++) {
		store_kv_done(&b->ev[i].kv);
		store_kv_done(&b->ev[i].prev);
	}
	free(b);
}

struct store_event *hub_events_add(struct hub_events *v)
{
	if (v->n == v->cap) {
		v->cap = v->cap ? v->cap * 2 : 16;
		v->ev = xrealloc(v->ev, v->cap * sizeof(*v->ev));
	}
	v->ev[v->n] = (struct store_event){0};
	return &v->ev[v->n++];
}

void hub_events_done(struct hub_events *v)
{
	for (size_t i = 0; i < v->n; i++) {
		store_kv_done(&v->ev[i].kv);
		store_kv_done(&v->ev[i].prev);
	}
	free(v->ev);
	*v = (struct hub_events){0};
}

struct hub *hub_new(const struct hub_source *src, int64_t rev, bool reachable)
{
	struct hub *h = xcalloc(1, sizeof(*h));

	h->src = *src;
	h->revs_max = src->history ? CACHE_REVS : RING_REVS;
	h->bytes_max = src->history ? CACHE_BYTES : RING_BYTES;
	h->last = rev;
	h->from = rev + 1;
	h->reachable = reachable;
	pthread_mutex_init(&h->lock, NULL);
	return h;
}

static struct hub_batch *ring_at(struct hub *h, size_t i)
{
	return h->ring[(h->first + i) % RING_REVS];
}

static void ring_drop_oldest(struct hub *h)
{
	struct hub_batch *b = ring_at(h, 0);

	h->from = b->rev + 1;
	h->bytes -= b->bytes;
	h->first = (h->first + 1) % RING_REVS;
	h->n--;
	hub_batch_unref(b);
}

struct hub *hub_free(struct hub *h)
{
	if (!h)
		return NULL;
	while (h->watches)
		store_watch_free(h->watches);
	while (h->n)
		ring_drop_oldest(h);
	pthread_mutex_destroy(&h->lock);
	free(h);
	return NULL;
}

static bool batch_matches(const struct hub_batch *b, const struct store_watch *w)
{
	for (size_t i = 0; i < b->n; i++)
		if (strncmp(b->ev[i].kv.key, w->prefix, w->prefix_len) == 0)
			return true;
	return false;
}

void hub_publish(struct hub *h, struct hub_batch *b)
{
	b->bytes = sizeof(*b);
	for (size_t i = 0; i < b->n; i++)
		b->bytes += sizeof(b->ev[i]) + b->ev[i].kv.value_len + b->ev[i].prev.value_len + 128;
	pthread_mutex_lock(&h->lock);
	ensure(b->rev > h->last);
	h->last = b->rev;
	while (h->n && (h->n == h->revs_max || h->bytes + b->bytes > h->bytes_max))
		ring_drop_oldest(h);
	h->ring[(h->first + h->n++) % RING_REVS] = b;
	h->bytes += b->bytes;
	for (struct store_watch *w = h->watches; w; w = w->next_watch) {
		if (w->dirty || b->rev < w->next)
			continue;
		if (batch_matches(b, w)) {
			w->dirty = true;
			pthread_cond_signal(&w->wake);
		} else {
			w->next = b->rev + 1;
			if (!w->moved)
				pthread_cond_signal(&w->wake);
			w->moved = true;
		}
	}
	pthread_mutex_unlock(&h->lock);
}

void hub_compact(struct hub *h, int64_t rev)
{
	pthread_mutex_lock(&h->lock);
	h->compacted = MAX(h->compacted, rev);
	while (h->n && ring_at(h, 0)->rev < rev)
		ring_drop_oldest(h);
	pthread_mutex_unlock(&h->lock);
}

void hub_reset(struct hub *h, int64_t rev, int why)
{
	pthread_mutex_lock(&h->lock);
	while (h->n)
		ring_drop_oldest(h);
	h->last = rev;
	h->from = rev + 1;
	if (rev < h->compacted)
		h->compacted = 0; /* of the store that is gone */
	for (struct store_watch *w = h->watches; w; w = w->next_watch) {
		w->ended = why;
		w->dirty = true;
		pthread_cond_signal(&w->wake);
	}
	pthread_mutex_unlock(&h->lock);
}

void hub_set_reachable(struct hub *h, bool reachable)
{
	pthread_mutex_lock(&h->lock);
	h->reachable = reachable;
	pthread_mutex_unlock(&h->lock);
}

int64_t hub_rev(struct hub *h)
{
	int64_t rev;

	pthread_mutex_lock(&h->lock);
	rev = h->last;
	pthread_mutex_unlock(&h->lock);
	return rev;
}

/* What one turn of a watch found. */
struct turn {
	enum { TURN_NONE, TURN_EVENTS, TURN_PROGRESS, TURN_HISTORY, TURN_ENDED } what;
	int64_t rev; /* looked at up to here */
	struct hub_batch *batch[CHUNK_BATCHES];
	size_t n_batch;
};

/* Index of the first batch with revision >= rev. */
static size_t ring_find(struct hub *h, int64_t rev)
{
	size_t lo = 0, hi = h->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (ring_at(h, mid)->rev < rev)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Under the lock: takes references to what matches from w->next on, and moves w->next behind it. */
static void turn_collect(struct hub *h, struct store_watch *w, struct turn *t)
{
	size_t events = 0;

	t->what = TURN_NONE;
	for (size_t i = ring_find(h, w->next); i < h->n; i++) {
		struct hub_batch *b = ring_at(h, i);

		if (t->n_batch == CHUNK_BATCHES || events >= CHUNK_EVENTS) {
			t->rev = w->next - 1;
			return;
		}
		w->next = b->rev + 1;
		if (!batch_matches(b, w))
			continue;
		__atomic_add_fetch(&b->refs, 1, __ATOMIC_RELAXED);
		t->batch[t->n_batch++] = b;
		t->what = TURN_EVENTS;
		events += b->n;
	}
	w->dirty = false;
	w->next = MAX(w->next, h->last + 1);
	t->rev = h->last;
}

/* When w has to tell progress next. */
static uint64_t progress_due(const struct store_watch *w)
{
	return w->told_ms + (w->moved ? MOVED_MS : PROGRESS_MS);
}

/* Under the lock: decides what w does now. */
static void turn_decide(struct hub *h, struct store_watch *w, struct turn *t, uint64_t now)
{
	t->what = TURN_NONE;
	t->n_batch = 0;
	if (w->ended) {
		t->what = TURN_ENDED;
		return;
	}
	if (w->dirty) {
		if (w->next < h->compacted) {
			w->ended = -ESTALE;
			t->what = TURN_ENDED;
		} else if (w->next < h->from && w->next <= h->last) {
			t->what = TURN_HISTORY;
			t->rev = h->last;
		} else {
			turn_collect(h, w, t);
		}
	}
	if (t->what == TURN_EVENTS) {
		w->moved = false;
		w->told_ms = now;
	} else if (t->what == TURN_NONE && now >= progress_due(w)) {
		w->moved = false;
		w->told_ms = now;
		if (h->reachable && !w->dirty && w->next <= h->last + 1) {
			t->what = TURN_PROGRESS;
			t->rev = h->last;
		}
	}
}

/* Without the lock: calls back with the events of the batches that match. */
static void turn_deliver(struct store_watch *w, struct turn *t)
{
	struct hub_events v = {0};

	for (size_t i = 0; i < t->n_batch; i++)
		for (size_t j = 0; j < t->batch[i]->n; j++) {
			const struct store_event *ev = &t->batch[i]->ev[j];

			if (strncmp(ev->kv.key, w->prefix, w->prefix_len) == 0)
				*hub_events_add(&v) = *ev;
		}
	w->handler.events(w->handler.ctx, v.ev, v.n, t->rev);
	free(v.ev); /* the strings are the batches' */
	for (size_t i = 0; i < t->n_batch; i++)
		hub_batch_unref(t->batch[i]);
}

/* Without the lock: events older than the ring. Only this thread moves w->next while w is dirty. */
static int turn_history(struct hub *h, struct store_watch *w, struct turn *t)
{
	struct hub_events v = {0};
	int64_t next = w->next;
	int r = -ESTALE;

	if (h->src.history)
		r = h->src.history(h->src.ctx, w->prefix, w->next, t->rev, &w->closing, &v, &next);
	if (r == 0) {
		ensure(next > w->next);
		if (v.n)
			w->handler.events(w->handler.ctx, v.ev, v.n, next - 1);
		w->next = next;
	}
	hub_events_done(&v);
	return r;
}

static void wait_until(struct store_watch *w, uint64_t until_ms)
{
	struct timespec ts = {.tv_sec = (time_t)(until_ms / 1000),
			      .tv_nsec = (long)(until_ms % 1000) * 1000000};

	pthread_cond_timedwait(&w->wake, &w->hub->lock, &ts);
}

static void *watch_thread(void *arg)
{
	struct store_watch *w = arg;
	struct hub *h = w->hub;
	struct turn t;
	int r;

	pthread_mutex_lock(&h->lock);
	while (!w->closing) {
		turn_decide(h, w, &t, clock_ms());
		if (t.what == TURN_NONE) {
			wait_until(w, progress_due(w));
			continue;
		}
		if (t.what == TURN_ENDED)
			break;
		pthread_mutex_unlock(&h->lock);
		r = 0;
		if (t.what == TURN_EVENTS)
			turn_deliver(w, &t);
		else if (t.what == TURN_PROGRESS)
			w->handler.events(w->handler.ctx, NULL, 0, t.rev);
		else
			r = turn_history(h, w, &t);
		pthread_mutex_lock(&h->lock);
		if (r == -ESTALE && !w->ended)
			w->ended = -ESTALE;
		else if (r < 0 && !w->closing)
			wait_until(w, clock_ms() + HISTORY_WAIT_MS);
	}
	r = w->closing ? 0 : w->ended;
	pthread_mutex_unlock(&h->lock);
	if (r < 0)
		w->handler.ended(w->handler.ctx, r);
	return NULL;
}

static int start_thread(struct store_watch *w)
{
	pthread_attr_t attr;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WATCH_STACK);
	r = pthread_create(&w->thread, &attr, watch_thread, w);
	pthread_attr_destroy(&attr);
	return -r;
}

static struct store_watch *watch_discard(struct store_watch *w)
{
	pthread_cond_destroy(&w->wake);
	free(w->prefix);
	free(w);
	return NULL;
}

int hub_watch(struct hub *h, const char *prefix, int64_t from_rev, const struct store_watch_handler *handler,
	      struct store_watch **ret, struct err *e)
{
	struct store_watch *w = xcalloc(1, sizeof(*w));
	pthread_condattr_t ca;
	int r;

	w->hub = h;
	w->handler = *handler;
	w->prefix = xstrdup(prefix);
	w->prefix_len = strlen(prefix);
	w->next = from_rev;
	w->dirty = true;
	w->told_ms = clock_ms();
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wake, &ca);
	pthread_condattr_destroy(&ca);

	pthread_mutex_lock(&h->lock);
	r = h->n_watches >= WATCHES_MAX ? -ENOSPC : start_thread(w);
	if (r == 0) {
		w->next_watch = h->watches;
		h->watches = w;
		h->n_watches++;
		*ret = w;
	}
	pthread_mutex_unlock(&h->lock);
	if (r < 0) {
		watch_discard(w);
		return err_errno(e, r, "cannot start a watch on %s (%d are the limit)", prefix, WATCHES_MAX);
	}
	return 0;
}

struct store_watch *store_watch_free(struct store_watch *w)
{
	struct hub *h;

	if (!w)
		return NULL;
	h = w->hub;
	pthread_mutex_lock(&h->lock);
	__atomic_store_n(&w->closing, true, __ATOMIC_RELAXED);
	for (struct store_watch **p = &h->watches; *p; p = &(*p)->next_watch)
		if (*p == w) {
			*p = w->next_watch;
			h->n_watches--;
			break;
		}
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&h->lock);
	ensure(!pthread_equal(w->thread, pthread_self()));
	pthread_join(w->thread, NULL);
	return watch_discard(w);
}
