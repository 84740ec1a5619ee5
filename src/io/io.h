/* SPDX-License-Identifier: Apache-2.0 */
/* io: libuv helpers. One loop thread a process; other threads talk to it by mailbox only. */
#pragma once

#include <uv.h>

#include "base/base.h"

/* ---- mailbox: any thread -> loop thread ---- */
struct mailbox;

typedef void (*mailbox_fn)(void *arg);

struct mailbox *mailbox_new(uv_loop_t *loop);
/* Runs fn(arg) on the loop thread, in order. Thread-safe. Bound: 65,536 waiting; -ENOBUFS beyond. */
int mailbox_post(struct mailbox *m, mailbox_fn fn, void *arg);
/* Loop thread only; runs what waits, then closes. The memory goes when the loop has closed its handle. */
void mailbox_close(struct mailbox *m);

/* ---- timer: a uv_timer_t that frees itself on close ---- */
struct timer;

struct timer *timer_new(uv_loop_t *loop, void (*fn)(void *ctx), void *ctx);
void timer_start(struct timer *t, uint64_t after_ms, uint64_t repeat_ms);
void timer_stop(struct timer *t);
struct timer *timer_free(struct timer *t); /* accepts NULL, returns NULL */

/* ---- child process with collected output ---- */
struct proc;

struct proc_result {
	int status;	 /* exit code, 128 + signal, or negative errno when it could not start */
	bool timed_out;	 /* it was killed at the time limit */
	const char *out; /* stdout, zero-terminated; cut at out_limit */
	size_t out_len;
	const char *err_text; /* stderr, likewise */
};

struct proc_options {
	const char *const *argv; /* NULL-terminated; argv[0] searched in PATH */
	const char *const *env;	 /* NULL = inherit */
	const char *cwd;
	const char *input;   /* text for stdin; NULL = /dev/null */
	uint64_t timeout_ms; /* 0 = 60,000; SIGKILL then */
	size_t out_limit;    /* bytes each of stdout and stderr; 0 = 1 MiB */
};

/* done is called once, on the loop thread, never from inside proc_run. */
struct proc *proc_run(uv_loop_t *loop, const struct proc_options *o,
		      void (*done)(void *ctx, const struct proc_result *res), void *ctx);
void proc_kill(struct proc *p, int sig);
/* The same, blocking, for worker threads and commands: returns status as above; out/err_text malloc'ed (may be NULL to drop). */
int proc_run_wait(const struct proc_options *o, char **ret_out, char **ret_err);

/* ---- stop on SIGTERM and SIGINT ---- */
/* Calls fn once on the first of them; a second one ends the process at once. Ignores SIGPIPE. */
void stop_signals(uv_loop_t *loop, void (*fn)(void *ctx), void *ctx);
