/* SPDX-License-Identifier: Apache-2.0 */
/* Leases of the stores that keep time themselves (memory, SQLite): id -> time to live and end by the monotonic clock. One
 * thread sleeps until the next end; it starts with the first lease. A lease is taken out of the table before `expired`
 * runs, so nothing new can be bound to it while its keys go. Lock order: the driver's lock, then this one; `expired` is
 * called with neither. */
#include "base/hash.h"
#include "store/internal.h"

#define LEASES_MAX 100000

struct lease {
	struct lease *next;
	int64_t id, ttl_ms;
	uint64_t end_ms;
};

struct leases {
	void (*expired)(void *ctx, int64_t id);
	void *ctx;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool running, closing;
	struct lease *first;
	size_t n;
};

struct leases *leases_new(void (*expired)(void *ctx, int64_t id), void *ctx)
{
	struct leases *l = xcalloc(1, sizeof(*l));
	pthread_condattr_t ca;

	l->expired = expired;
	l->ctx = ctx;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &ca);
	pthread_condattr_destroy(&ca);
	return l;
}

static struct lease **find(struct leases *l, int64_t id)
{
	struct lease **p = &l->first;

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	return p;
}

static void unlink_lease(struct leases *l, struct lease **p)
{
	struct lease *dead = *p;

	*p = dead->next;
	l->n--;
	free(dead);
}

/* The lease that ends first; NULL = none. */
static struct lease **earliest(struct leases *l)
{
	struct lease **best = NULL;

	for (struct lease **p = &l->first; *p; p = &(*p)->next)
		if (!best || (*p)->end_ms < (*best)->end_ms)
			best = p;
	return best;
}

static void *lease_thread(void *arg)
{
	struct leases *l = arg;

	pthread_mutex_lock(&l->lock);
	while (!l->closing) {
		struct lease **p = earliest(l);

		if (!p) {
			pthread_cond_wait(&l->wake, &l->lock);
		} else if ((*p)->end_ms > clock_ms()) {
			struct timespec ts = {.tv_sec = (time_t)((*p)->end_ms / 1000),
					      .tv_nsec = (long)((*p)->end_ms % 1000) * 1000000};

			pthread_cond_timedwait(&l->wake, &l->lock, &ts);
		} else {
			int64_t id = (*p)->id;

			unlink_lease(l, p);
			pthread_mutex_unlock(&l->lock);
			l->expired(l->ctx, id);
			pthread_mutex_lock(&l->lock);
		}
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

struct leases *leases_free(struct leases *l)
{
	if (!l)
		return NULL;
	pthread_mutex_lock(&l->lock);
	l->closing = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	if (l->running)
		pthread_join(l->thread, NULL);
	while (l->first)
		unlink_lease(l, &l->first);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	free(l);
	return NULL;
}

int leases_add(struct leases *l, int64_t id, int64_t ttl_s)
{
	int r = 0;

	pthread_mutex_lock(&l->lock);
	if (l->n >= LEASES_MAX)
		r = -ENOSPC;
	else if (!l->running)
		r = -pthread_create(&l->thread, NULL, lease_thread, l);
	if (r == 0) {
		struct lease *a = xcalloc(1, sizeof(*a));

		l->running = true;
		*a = (struct lease){.next = l->first,
				    .id = id,
				    .ttl_ms = ttl_s * 1000,
				    .end_ms = clock_ms() + (uint64_t)ttl_s * 1000};
		l->first = a;
		l->n++;
		pthread_cond_signal(&l->wake);
	}
	pthread_mutex_unlock(&l->lock);
	return r;
}

bool leases_has(struct leases *l, int64_t id)
{
	bool there;

	pthread_mutex_lock(&l->lock);
	there = *find(l, id) != NULL;
	pthread_mutex_unlock(&l->lock);
	return there;
}

int leases_keepalive(struct leases *l, int64_t id)
{
	struct lease *a;

	pthread_mutex_lock(&l->lock);
	a = *find(l, id);
	if (a)
		a->end_ms = clock_ms() + (uint64_t)a->ttl_ms;
	pthread_mutex_unlock(&l->lock);
	return a ? 0 : -ENOENT;
}

int leases_remove(struct leases *l, int64_t id)
{
	struct lease **p;
	int r = -ENOENT;

	pthread_mutex_lock(&l->lock);
	p = find(l, id);
	if (*p) {
		unlink_lease(l, p);
		r = 0;
	}
	pthread_mutex_unlock(&l->lock);
	return r;
}

int64_t lease_new_id(void)
{
	int64_t id;

	do {
		random_bytes(&id, sizeof(id));
		id &= INT64_MAX;
	} while (!id);
	return id;
}
