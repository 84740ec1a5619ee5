/* SPDX-License-Identifier: Apache-2.0 */
/* Process 1 of a machine: reaps, and plays systemd's part for the units of a JSON file
 *   {"units": {"etcd": {"argv": ["/usr/bin/etcd", ...], "env": {"K": "V"}, "restart": true, "manual": false}, ...}}
 * A unit is one process in a session of its own with its output appended to /var/log/UNIT.log. One that ends is started again after 0.2 s,
 * doubling up to 5 s; the wait is forgotten when it ran for 10 s. Its children (containers) are left alone.
 *
 * Control socket, one command a line and connection, answered by one line `ok`, `ok {json}` or `error text`:
 *   boot            starts all units (but "manual" ones), once the network is there
 *   reload          reads the file again; units that are new (not manual) start, those that are gone stop
 *   start|stop U    stop: SIGTERM, SIGKILL after 5 s
 *   signal U N      sends signal N to its process; it is restarted as after a crash
 *   status          {"etcd": {"pid": 12, "running": true, "starts": 1, "status": 0, "since_ms": 531}, ...}
 * One thread; poll() over a signalfd, the socket and the next timer. Ends on SIGTERM; a power cut is SIGKILL from outside. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "lab/domain.h"

#define UNITS_MAX	 400
#define BACKOFF_FIRST_MS 200
#define BACKOFF_MAX_MS	 5000
#define STABLE_MS	 10000
#define STOP_MS		 5000
#define COMMAND_MAX	 256

struct unit {
	char *name;
	json_t *spec; /* argv, env, restart, manual */
	pid_t pid;    /* 0 = not running */
	bool wanted;
	int starts, status;
	uint64_t since_ms, start_at_ms, kill_at_ms, backoff_ms; /* start_at, kill_at: 0 = none */
};

static struct init {
	const char *file;
	struct unit unit[UNITS_MAX];
	size_t n;
	bool booted, stop;
} in;

static struct unit *unit_find(const char *name)
{
	for (size_t i = 0; name && i < in.n; i++)
		if (streq(in.unit[i].name, name))
			return &in.unit[i];
	return NULL;
}

static _Noreturn void unit_exec(const struct unit *u)
{
	json_t *argv = js_get(u->spec, "argv"), *value;
	char **v = xcalloc(json_array_size(argv) + 1, sizeof *v);
	_cleanup_free_ char *log = xasprintf("/var/log/%s.log", u->name);
	const char *key;
	sigset_t none;
	int fd;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	clearenv();
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	json_object_foreach (js_get(u->spec, "env"), key, value)
		if (json_is_string(value))
			setenv(key, json_string_value(value), 1);
	for (size_t i = 0; i < json_array_size(argv); i++)
		v[i] = xstrdup(json_string_value(json_array_get(argv, i)));
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd >= 0) {
		dup2(fd, 1);
		dup2(fd, 2);
	}
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	dup2(fd, 0);
	execvp(v[0], v);
	dprintf(2, "cannot start %s: %s\n", v[0], strerror(errno));
	_exit(127);
}

static void unit_start(struct unit *u)
{
	pid_t pid;

	u->start_at_ms = 0;
	if (u->pid)
		return;
	pid = fork();
	if (pid == 0)
		unit_exec(u);
	if (pid < 0) {
		u->start_at_ms = clock_ms() + BACKOFF_MAX_MS;
		return;
	}
	u->pid = pid;
	u->starts++;
	u->since_ms = clock_ms();
	log_info("unit %s: started, process %d", u->name, (int)pid);
}

static void unit_stop(struct unit *u)
{
	u->wanted = false;
	u->start_at_ms = 0;
	if (u->pid) {
		kill(u->pid, SIGTERM);
		u->kill_at_ms = clock_ms() + STOP_MS;
	}
}

static void unit_want(struct unit *u)
{
	u->wanted = true;
	u->backoff_ms = 0;
	u->kill_at_ms = 0;
	if (!u->pid)
		unit_start(u);
}

static void unit_ended(struct unit *u, int status)
{
	uint64_t now = clock_ms();

	u->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	log_info("unit %s: process %d ended, status %d", u->name, (int)u->pid, u->status);
	u->pid = 0;
	u->kill_at_ms = 0;
	if (!u->wanted || !js_bool(u->spec, "restart", true)) {
		u->wanted = false;
		return;
	}
	u->backoff_ms = now - u->since_ms >= STABLE_MS || !u->backoff_ms
				? BACKOFF_FIRST_MS
				: MIN(u->backoff_ms * 2, BACKOFF_MAX_MS);
	u->start_at_ms = now + u->backoff_ms;
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < in.n; i++)
			if (in.unit[i].pid == pid)
				unit_ended(&in.unit[i], status);
}

/* Does what is due; the time to the next, in ms, or -1. */
static int timers(void)
{
	uint64_t now = clock_ms(), next = UINT64_MAX;

	for (size_t i = 0; i < in.n; i++) {
		struct unit *u = &in.unit[i];
		if (u->start_at_ms && u->start_at_ms <= now)
			unit_start(u);
		if (u->kill_at_ms && u->kill_at_ms <= now) {
			kill(u->pid, SIGKILL);
			u->kill_at_ms = 0;
		}
		if (u->start_at_ms)
			next = MIN(next, u->start_at_ms);
		if (u->kill_at_ms)
			next = MIN(next, u->kill_at_ms);
	}
	return next == UINT64_MAX ? -1 : (int)MIN(next - now, 60000u);
}

static bool spec_valid(const json_t *spec)
{
	json_t *argv = js_get(spec, "argv"), *word;
	size_t i;

	json_array_foreach (argv, i, word)
		if (!json_is_string(word))
			return false;
	return json_array_size(argv) > 0;
}

static int units_load(struct err *e)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_json_ json_t *doc = NULL;
	json_t *units, *spec;
	const char *name;
	size_t len;
	int r = file_read(in.file, 1 << 20, &text, &len, e);

	r = r < 0 ? r : js_parse_new(text, len, &doc, e);
	if (r < 0)
		return err_wrap(e, "%s", in.file);
	units = js_get(doc, "units");
	json_object_foreach (units, name, spec) {
		struct unit *u = unit_find(name);
		if (strchr(name, '/') || !spec_valid(spec))
			return err_set(e, -EINVAL,
				       "%s: unit %s needs a name without / and argv, a list of texts",
				       in.file, name);
		if (!u) {
			if (in.n == UNITS_MAX)
				return err_set(e, -ENOSPC, "%s: more than %d units", in.file, UNITS_MAX);
			u = &in.unit[in.n++];
			*u = (struct unit){.name = xstrdup(name)};
			if (in.booted && !js_bool(spec, "manual", false))
				u->wanted = true, u->start_at_ms = clock_ms();
		}
		json_decref(u->spec);
		u->spec = json_incref(spec);
	}
	for (size_t i = 0; i < in.n; i++)
		if (!json_object_get(units, in.unit[i].name) && in.unit[i].wanted)
			unit_stop(&in.unit[i]);
	return 0;
}

static json_t *status_new(void)
{
	json_t *all = json_object();

	for (size_t i = 0; i < in.n; i++) {
		const struct unit *u = &in.unit[i];
		json_object_set_new(all, u->name,
				    json_pack("{s:i, s:b, s:b, s:i, s:i, s:I}", "pid", (int)u->pid, "running",
					      u->pid != 0, "wanted", (int)u->wanted, "starts", u->starts,
					      "status", u->status, "since_ms",
					      (json_int_t)(u->starts ? clock_ms() - u->since_ms : 0)));
	}
	return all;
}

static int unit_command(const char *verb, const char *name, const char *arg, struct err *e)
{
	struct unit *u = unit_find(name);
	int64_t sig;

	if (!u)
		return err_set(e, -ENOENT, "no such unit: %s", name ? name : "");
	if (streq(verb, "start"))
		return unit_want(u), 0;
	if (streq(verb, "stop"))
		return unit_stop(u), 0;
	if (!streq(verb, "signal"))
		return err_set(e, -EINVAL, "unknown command %s", verb);
	if (!arg || str_i64(arg, &sig) < 0 || sig < 1 || sig > 64)
		return err_set(e, -EINVAL, "signal UNIT NUMBER");
	if (!u->pid)
		return err_set(e, -ESRCH, "unit %s is not running", name);
	return kill(u->pid, (int)sig) < 0 ? err_errno(e, -errno, "signal") : 0;
}

static char *command(char *line)
{
	struct err e = {.code = 0};
	char *save = NULL, *verb = strtok_r(line, " \n", &save), *name = strtok_r(NULL, " \n", &save),
	     *arg = strtok_r(NULL, " \n", &save);
	int r = 0;

	if (!verb)
		return xstrdup("error empty\n");
	if (streq(verb, "status")) {
		_cleanup_json_ json_t *status = status_new();
		_cleanup_free_ char *text = js_text(status);
		return xasprintf("ok %s\n", text);
	}
	if (streq(verb, "boot")) {
		in.booted = true;
		for (size_t i = 0; i < in.n; i++)
			if (!js_bool(in.unit[i].spec, "manual", false))
				unit_want(&in.unit[i]);
	} else if (streq(verb, "reload")) {
		r = units_load(&e);
	} else {
		r = unit_command(verb, name, arg, &e);
	}
	return r < 0 ? xasprintf("error %s\n", e.text) : xstrdup("ok\n");
}

static void client(int listener)
{
	_cleanup_close_ int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct timeval limit = {.tv_sec = 1};
	_cleanup_free_ char *answer = NULL;
	char line[COMMAND_MAX];
	ssize_t n;

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	n = read(fd, line, sizeof line - 1); /* one line in one write: the only client is the lab's library */
	if (n <= 0)
		return;
	line[n] = '\0';
	answer = command(line);
	if (write(fd, answer, strlen(answer)) < 0)
		log_warn("answer not sent: %s", strerror(errno));
}

static int listen_at(const char *path, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, 16) < 0) {
		int r = err_errno(e, -errno, "listen on %s", path);
		if (fd >= 0)
			close(fd);
		return r;
	}
	return fd;
}

int domain_init(const struct domain_options *o)
{
	struct err e = {.code = 0};
	_cleanup_close_ int listener = listen_at(DOMAIN_CONTROL, &e);
	_cleanup_close_ int sigfd = -1;
	sigset_t set;

	in.file = o->units;
	if (listener < 0 || units_load(&e) < 0) {
		log_error("%s", e.text);
		return 1;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	while (!in.stop) {
		struct pollfd p[2] = {{.fd = sigfd, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
		struct signalfd_siginfo si;
		int n = poll(p, 2, timers());
		while (n > 0 && read(sigfd, &si, sizeof si) == sizeof si)
			if (si.ssi_signo == SIGTERM)
				in.stop = true;
		reap();
		if (n > 0 && (p[1].revents & POLLIN))
			client(listener);
	}
	return 0;
}
