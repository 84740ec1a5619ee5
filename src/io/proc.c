/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes with collected output and a time limit. The result is given when the process has ended and both pipes
 * are at their end, or 200 ms after the process ended if something that it left behind keeps a pipe open.
 * Output over the limit is read and dropped, so that the child never blocks on it. */
#include "io/io.h"

#include <signal.h>

#define PROC_TIMEOUT_MS	    60000
#define PROC_OUT_LIMIT	    ((size_t)1 << 20)
#define PROC_PIPE_LINGER_MS 200

struct proc {
	uv_process_t process;
	uv_pipe_t in, out, err;
	uv_timer_t timer;
	uv_write_t write;
	char *input;
	struct buf out_buf, err_buf;
	int open_handles; /* memory goes at 0 */
	int open_pipes;
	bool started, exited, reported, timed_out;
	int status;
	char chunk[16384];
	void (*done)(void *ctx, const struct proc_result *res);
	void *ctx;
};

static void on_handle_closed(uv_handle_t *h)
{
	struct proc *p = h->data;

	if (--p->open_handles > 0)
		return;
	buf_done(&p->out_buf);
	buf_done(&p->err_buf);
	free(p->input);
	free(p);
}

static void close_handle(void *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, on_handle_closed);
}

static void report(struct proc *p)
{
	struct proc_result res = {.status = p->status,
				  .timed_out = p->timed_out,
				  .out = p->out_buf.data ? p->out_buf.data : "",
				  .out_len = p->out_buf.len,
				  .err_text = p->err_buf.data ? p->err_buf.data : ""};

	if (p->reported)
		return;
	p->reported = true;
	p->done(p->ctx, &res);
	close_handle(&p->process);
	close_handle(&p->in);
	close_handle(&p->out);
	close_handle(&p->err);
	close_handle(&p->timer);
}

static void on_timer(uv_timer_t *t)
{
	struct proc *p = t->data;

	if (p->exited || !p->started) {
		report(p);
		return;
	}
	p->timed_out = true;
	uv_process_kill(&p->process, SIGKILL);
}

static void on_exit_status(uv_process_t *u, int64_t status, int sig)
{
	struct proc *p = u->data;

	p->exited = true;
	p->status = sig ? 128 + sig : (int)status;
	if (p->open_pipes)
		uv_timer_start(&p->timer, on_timer, PROC_PIPE_LINGER_MS, 0);
	else
		report(p);
}

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *b)
{
	struct proc *p = h->data;

	(void)size;
	*b = uv_buf_init(p->chunk, sizeof(p->chunk));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct proc *p = s->data;
	struct buf *to = s == (uv_stream_t *)&p->out ? &p->out_buf : &p->err_buf;

	if (n > 0)
		buf_add(to, b->base, MIN((size_t)n, to->limit - to->len));
	if (n >= 0)
		return;
	uv_read_stop(s);
	p->open_pipes--;
	if (p->exited && !p->open_pipes)
		report(p);
}

static void on_written(uv_write_t *w, int status)
{
	struct proc *p = w->data;

	(void)status; /* a child that does not read its input says so by its exit status */
	close_handle(&p->in);
}

static void init_handles(struct proc *p, uv_loop_t *loop, size_t limit)
{
	uv_pipe_init(loop, &p->in, 0);
	uv_pipe_init(loop, &p->out, 0);
	uv_pipe_init(loop, &p->err, 0);
	uv_timer_init(loop, &p->timer);
	p->process.data = p->in.data = p->out.data = p->err.data = p->timer.data = p->write.data = p;
	p->open_handles = 5;
	p->out_buf.limit = p->err_buf.limit = limit;
}

static void feed(struct proc *p, const char *input)
{
	uv_buf_t b;

	if (!input)
		return;
	p->input = xstrdup(input);
	b = uv_buf_init(p->input, (unsigned)strlen(input));
	if (uv_write(&p->write, (uv_stream_t *)&p->in, &b, 1, on_written) < 0)
		close_handle(&p->in);
}

struct proc *proc_run(uv_loop_t *loop, const struct proc_options *o,
		      void (*done)(void *ctx, const struct proc_result *res), void *ctx)
{
	struct proc *p = xcalloc(1, sizeof(*p));
	uv_stdio_container_t io[3];
	uv_process_options_t u = {.file = o->argv[0],
				  .args = (char **)o->argv,
				  .env = (char **)o->env,
				  .cwd = o->cwd,
				  .stdio = io,
				  .stdio_count = 3,
				  .exit_cb = on_exit_status};
	int r;

	p->done = done;
	p->ctx = ctx;
	init_handles(p, loop, o->out_limit ? o->out_limit : PROC_OUT_LIMIT);
	io[0].flags = o->input ? UV_CREATE_PIPE | UV_READABLE_PIPE : UV_IGNORE;
	io[0].data.stream = (uv_stream_t *)&p->in;
	io[1].flags = io[2].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
	io[1].data.stream = (uv_stream_t *)&p->out;
	io[2].data.stream = (uv_stream_t *)&p->err;
	r = uv_spawn(loop, &p->process, &u);
	if (r < 0) {
		p->status = r;
		buf_addf(&p->err_buf, "cannot start %s: %s", o->argv[0], uv_strerror(r));
		uv_timer_start(&p->timer, on_timer, 0, 0);
		return p;
	}
	p->started = true;
	p->open_pipes = 2;
	uv_read_start((uv_stream_t *)&p->out, on_alloc, on_read);
	uv_read_start((uv_stream_t *)&p->err, on_alloc, on_read);
	feed(p, o->input);
	uv_timer_start(&p->timer, on_timer, o->timeout_ms ? o->timeout_ms : PROC_TIMEOUT_MS, 0);
	return p;
}

void proc_kill(struct proc *p, int sig)
{
	if (p->started && !p->exited)
		uv_process_kill(&p->process, sig);
}

struct wait_result {
	char **out, **err;
	int status;
};

static void on_waited(void *ctx, const struct proc_result *res)
{
	struct wait_result *w = ctx;

	w->status = res->timed_out ? -ETIMEDOUT : res->status;
	if (w->out)
		*w->out = xstrdup(res->out);
	if (w->err)
		*w->err = xstrdup(res->err_text);
}

int proc_run_wait(const struct proc_options *o, char **ret_out, char **ret_err)
{
	struct wait_result w = {.out = ret_out, .err = ret_err};
	uv_loop_t loop;

	ensure(uv_loop_init(&loop) == 0);
	proc_run(&loop, o, on_waited, &w);
	uv_run(&loop, UV_RUN_DEFAULT);
	ensure(uv_loop_close(&loop) == 0);
	return w.status;
}
