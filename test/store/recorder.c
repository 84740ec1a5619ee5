/* SPDX-License-Identifier: Apache-2.0 */
/* See recorder.h. The callbacks run on the store's threads, so they only note what is wrong; the test's thread fails. */
#include "recorder.h"

static void on_events(void *ctx, const struct store_event *ev, size_t n, int64_t rev)
{
	struct recorder *r = ctx;

	if (r->delay_us)
		usleep(r->delay_us);
	pthread_mutex_lock(&r->lock);
	if (!n) {
		r->progress++;
		if (rev < r->progress_rev)
			snprintf(r->wrong, sizeof(r->wrong), "progress fell from %lld to %lld",
				 (long long)r->progress_rev, (long long)rev);
		r->progress_rev = rev;
		r->last = MAX(r->last, rev);
	}
	for (size_t i = 0; i < n; i++) {
		const struct store_event *v = &ev[i];

		if (v->kv.mod_rev < r->from || v->kv.mod_rev <= r->last ||
		    (i && v->kv.mod_rev < ev[i - 1].kv.mod_rev))
			snprintf(r->wrong, sizeof(r->wrong), "event at %lld of %s, from %lld, after %lld",
				 (long long)v->kv.mod_rev, v->kv.key, (long long)r->from, (long long)r->last);
		if (r->n == r->cap) {
			r->cap = r->cap ? r->cap * 2 : 64;
			r->seen = xrealloc(r->seen, r->cap * sizeof(*r->seen));
		}
		r->seen[r->n++] =
			(struct seen){.key = xstrdup(v->kv.key),
				      .value = v->type == STORE_EVENT_PUT ? xstrdup(v->kv.value) : NULL,
				      .prev = v->prev.key ? xstrdup(v->prev.value) : NULL,
				      .prev_rev = v->prev.mod_rev,
				      .type = (int)v->type,
				      .rev = v->kv.mod_rev};
	}
	if (n) {
		r->last = ev[n - 1].kv.mod_rev;
		if (rev < r->last)
			snprintf(r->wrong, sizeof(r->wrong), "call for revision %lld holds %lld",
				 (long long)rev, (long long)r->last);
		r->last = MAX(r->last, rev);
	}
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static void on_ended(void *ctx, int why)
{
	struct recorder *r = ctx;

	pthread_mutex_lock(&r->lock);
	r->ended = why;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

void recorder_start(struct recorder *r, struct store *s, const char *prefix, int64_t from)
{
	recorder_start_slow(r, s, prefix, from, 0);
}

void recorder_start_slow(struct recorder *r, struct store *s, const char *prefix, int64_t from,
			 unsigned delay_us)
{
	struct store_watch_handler h = {.events = on_events, .ended = on_ended, .ctx = r};
	struct err e = {0};

	*r = (struct recorder){.from = from, .last = from - 1, .delay_us = delay_us};
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	if (store_watch(s, prefix, from, &h, &r->watch, &e) < 0)
		fail_msg("watch: %s", e.text);
}

void recorder_stop(struct recorder *r)
{
	r->watch = store_watch_free(r->watch);
	if (*r->wrong)
		fail_msg("%s", r->wrong);
}

void recorder_done(struct recorder *r)
{
	recorder_stop(r);
	for (size_t i = 0; i < r->n; i++) {
		free(r->seen[i].key);
		free(r->seen[i].value);
		free(r->seen[i].prev);
	}
	free(r->seen);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
}

/* Under the lock; false at the deadline (wall clock: condition variables' default). */
static bool wait_change(struct recorder *r, int64_t until_ms)
{
	struct timespec ts = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};

	return pthread_cond_timedwait(&r->changed, &r->lock, &ts) == 0;
}

void recorder_wait_events(struct recorder *r, size_t n, int64_t timeout_ms)
{
	int64_t until = clock_wall_ms() + timeout_ms;
	size_t have;

	pthread_mutex_lock(&r->lock);
	while (r->n < n && !r->ended && wait_change(r, until))
		;
	have = r->n;
	pthread_mutex_unlock(&r->lock);
	if (have < n)
		fail_msg("%zu events of %zu after %lld ms (ended: %d)", have, n, (long long)timeout_ms,
			 r->ended);
}

void recorder_wait_progress(struct recorder *r, int64_t rev, int64_t timeout_ms)
{
	int64_t until = clock_wall_ms() + timeout_ms;
	int64_t have;

	pthread_mutex_lock(&r->lock);
	while ((!r->progress || r->progress_rev < rev) && !r->ended && wait_change(r, until))
		;
	have = r->progress_rev;
	pthread_mutex_unlock(&r->lock);
	if (have < rev)
		fail_msg("progress up to %lld, not %lld, after %lld ms", (long long)have, (long long)rev,
			 (long long)timeout_ms);
}

int recorder_wait_ended(struct recorder *r, int64_t timeout_ms)
{
	int64_t until = clock_wall_ms() + timeout_ms;
	int ended;

	pthread_mutex_lock(&r->lock);
	while (!r->ended && wait_change(r, until))
		;
	ended = r->ended;
	pthread_mutex_unlock(&r->lock);
	return ended;
}
