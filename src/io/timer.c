/* SPDX-License-Identifier: Apache-2.0 */
/* Timer whose memory goes when libuv has let go of its handle. */
#include "io/io.h"

struct timer {
	uv_timer_t t;
	void (*fn)(void *ctx);
	void *ctx;
};

static void on_timer(uv_timer_t *u)
{
	struct timer *t = u->data;

	t->fn(t->ctx);
}

struct timer *timer_new(uv_loop_t *loop, void (*fn)(void *ctx), void *ctx)
{
	struct timer *t = xcalloc(1, sizeof(*t));

	t->fn = fn;
	t->ctx = ctx;
	ensure(uv_timer_init(loop, &t->t) == 0);
	t->t.data = t;
	return t;
}

void timer_start(struct timer *t, uint64_t after_ms, uint64_t repeat_ms)
{
	uv_timer_start(&t->t, on_timer, after_ms, repeat_ms);
}

void timer_stop(struct timer *t)
{
	uv_timer_stop(&t->t);
}

static void on_closed(uv_handle_t *h)
{
	free(h->data);
}

struct timer *timer_free(struct timer *t)
{
	if (t)
		uv_close((uv_handle_t *)&t->t, on_closed);
	return NULL;
}
