/* SPDX-License-Identifier: Apache-2.0 */
/* The HAProxy process: started, watched, replaced, taken up again.
 *
 *   nothing --start--> starting --answers at the socket with its configuration--> current
 *   current --start--> current + starting: the new one gets the listening sockets over the old one's socket (-x) and tells it to finish
 *                      (-sf); no connection is refused. If the new one fails to start, the old one goes on.
 *   current --died--> nothing
 *
 * A process is its own session and outlives the gateway; a gateway that starts finds it at the socket and takes it up. Only what
 * answers at the socket counts as current. */
#include "gateway/internal.h"

#include <signal.h>

#define START_LIMIT_MS 5000
#define BACKOFF_MS     100
#define BACKOFF_MAX_MS 5000

struct child {
	uv_process_t process;
	struct proxy *proxy; /* NULL once the gateway has let go of it */
	int64_t pid;
	struct child *next;
};

struct proxy {
	uv_loop_t *loop;
	char *program, *data;
	struct child *children;
	int64_t pid;	  /* current, 0 = none */
	char config[17];  /* of the current one */
	int64_t next_pid; /* being started, 0 = none */
	char next_config[17];
	uint64_t next_ms;
	unsigned failures;
	uint64_t failed_ms, starts;
};

static void failed(struct proxy *p, const char *what)
{
	p->failures++;
	p->failed_ms = clock_ms();
	log_error("proxy: %s; next try in %llu ms", what, (unsigned long long)proxy_wait_ms(p));
}

static void on_child_closed(uv_handle_t *h)
{
	free(container_of((uv_process_t *)h, struct child, process));
}

static void on_exit_child(uv_process_t *u, int64_t status, int sig)
{
	struct child *c = container_of(u, struct child, process);
	struct proxy *p = c->proxy;

	if (p) {
		struct child **at = &p->children;

		while (*at != c)
			at = &(*at)->next;
		*at = c->next;
		if (c->pid == p->next_pid) {
			p->next_pid = 0;
			failed(p, "it could not start (see its messages above)");
		} else if (c->pid == p->pid && !p->next_pid) {
			p->pid = 0;
			log_error("proxy: process %lld ended with status %lld, signal %d", (long long)c->pid,
				  (long long)status, sig);
			failed(p, "it died");
		} else {
			if (c->pid == p->pid) /* told to finish by the one being started */
				p->pid = 0;
			log_info("proxy: old process %lld has finished", (long long)c->pid);
		}
	}
	uv_close((uv_handle_t *)u, on_child_closed);
}

struct proxy *proxy_new(uv_loop_t *loop, const char *program, const char *data)
{
	struct proxy *p = xcalloc(1, sizeof(*p));

	p->loop = loop;
	p->program = xstrdup(program);
	p->data = xstrdup(data);
	return p;
}

void proxy_start(struct proxy *p, const char *hash)
{
	_cleanup_free_ char *file = xasprintf("%s/haproxy.cfg", p->data),
			    *socket = xasprintf("%s/haproxy.sock", p->data);
	_cleanup_free_ char *old = xasprintf("%lld", (long long)p->pid);
	char *argv[] = {p->program, "-db", "-f", file, "-x", socket, "-sf", old, NULL};
	uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE},
					 {.flags = UV_INHERIT_FD, .data.fd = 2},
					 {.flags = UV_INHERIT_FD, .data.fd = 2}};
	uv_process_options_t o = {.file = p->program,
				  .args = argv,
				  .flags = UV_PROCESS_DETACHED,
				  .stdio = stdio,
				  .stdio_count = 3,
				  .exit_cb = on_exit_child};
	struct child *c = xcalloc(1, sizeof(*c));
	int r;

	ensure(!p->next_pid);
	if (!p->pid)
		argv[4] = NULL;
	c->proxy = p;
	r = uv_spawn(p->loop, &c->process, &o);
	if (r < 0) {
		log_error("proxy: cannot start %s: %s", p->program, uv_strerror(r));
		uv_close((uv_handle_t *)&c->process, on_child_closed);
		failed(p, "it could not start");
		return;
	}
	uv_unref((uv_handle_t *)&c->process);
	c->pid = c->process.pid;
	c->next = p->children;
	p->children = c;
	p->next_pid = c->pid;
	p->next_ms = clock_ms();
	p->starts++;
	snprintf(p->next_config, sizeof(p->next_config), "%s", hash);
}

void proxy_observed(struct proxy *p, int64_t pid, const char *config)
{
	if (pid == p->next_pid) {
		log_info("proxy: process %lld serves%s", (long long)pid,
			 p->pid ? ", the old one finishes" : "");
		p->next_pid = 0;
		p->failures = 0;
		p->pid = pid;
	} else if (!p->pid) {
		log_info("proxy: process %lld was running already and is taken up", (long long)pid);
		p->pid = pid;
	}
	if (pid == p->pid)
		snprintf(p->config, sizeof(p->config), "%s", config);
}

/* Ended, maybe not yet waited for by whoever its parent is now. */
static bool is_gone(int64_t pid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%lld/stat", (long long)pid), *text = NULL;
	const char *behind_name;

	if (kill((pid_t)pid, 0) < 0 && errno == ESRCH)
		return true;
	if (file_read(path, 4096, &text, NULL, NULL) < 0)
		return false;
	behind_name = strrchr(text, ')');
	return behind_name && str_starts(behind_name, ") Z");
}

/* Only the death of a process that is not our child is found here; children tell it themselves. */
void proxy_silent(struct proxy *p)
{
	if (p->pid && is_gone(p->pid)) {
		p->pid = 0;
		failed(p, "it died");
	}
	if (p->next_pid && clock_ms() - p->next_ms > START_LIMIT_MS) {
		kill((pid_t)p->next_pid, SIGKILL);
		log_error("proxy: process %lld does not answer and is ended", (long long)p->next_pid);
	}
}

bool proxy_running(const struct proxy *p)
{
	return p->pid != 0;
}

bool proxy_starting(const struct proxy *p)
{
	return p->next_pid != 0;
}

uint64_t proxy_wait_ms(const struct proxy *p)
{
	uint64_t pause =
		p->failures ? MIN((uint64_t)BACKOFF_MS << MIN(p->failures - 1, 10u), (uint64_t)BACKOFF_MAX_MS)
			    : 0;
	uint64_t past = clock_ms() - p->failed_ms;

	return p->failures && past < pause ? pause - past : 0;
}

const char *proxy_config(const struct proxy *p)
{
	return p->pid ? p->config : "";
}

uint64_t proxy_starts(const struct proxy *p)
{
	return p->starts;
}

struct proxy *proxy_free(struct proxy *p, bool keep)
{
	if (!p)
		return NULL;
	for (struct child *c = p->children; c; c = c->next) {
		c->proxy = NULL;
		if (!keep)
			kill((pid_t)c->pid, SIGTERM);
	}
	if (!keep && p->pid)
		kill((pid_t)p->pid, SIGTERM);
	free(p->program);
	free(p->data);
	free(p);
	return NULL;
}
