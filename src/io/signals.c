/* SPDX-License-Identifier: Apache-2.0 */
/* SIGTERM and SIGINT: the first asks to stop, the second insists. */
#include "io/io.h"

#include <signal.h>

struct stop {
	uv_signal_t term, intr;
	void (*fn)(void *ctx);
	void *ctx;
	int seen;
};

static void on_signal(uv_signal_t *s, int signum)
{
	struct stop *stop = s->data;

	if (stop->seen++)
		_exit(128 + signum);
	log_info("stopping on signal %d", signum);
	stop->fn(stop->ctx);
}

void stop_signals(uv_loop_t *loop, void (*fn)(void *ctx), void *ctx)
{
	static struct stop stop; /* one loop a process */

	ensure(!stop.fn);
	stop.fn = fn;
	stop.ctx = ctx;
	signal(SIGPIPE, SIG_IGN);
	uv_signal_init(loop, &stop.term);
	uv_signal_init(loop, &stop.intr);
	stop.term.data = stop.intr.data = &stop;
	uv_signal_start(&stop.term, on_signal, SIGTERM);
	uv_signal_start(&stop.intr, on_signal, SIGINT);
	uv_unref((uv_handle_t *)&stop.term);
	uv_unref((uv_handle_t *)&stop.intr);
}
