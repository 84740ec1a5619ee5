/* SPDX-License-Identifier: Apache-2.0 */
/* db: mariadbd as a child process: how far its data reaches, first installation, start, stop, what it prints.
 *
 * The own phase follows the process: unknown when it has ended, then (position read) empty or stopped, starting when it runs;
 * primary and non-primary come from watch.c. After a crash the next start waits 0, 1, 2, 4 ... 30 s. As PID 1 of a container this
 * process also reaps what the state transfer scripts leave behind. */
#include "db/internal.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define BACKOFF_MAX_MS 30000
#define HEALTHY_MS     60000 /* ran so long: the next crash starts again at no delay */
#define WEDGED_STOP_MS \
	2000 /* so long for an end in order of one that cannot go on; it has left the group by then */
#define LINE_LIMIT     8192
#define RECOVER_MAX_MS 600000
#define INSTALL_MAX_MS 120000
#define ASIDE_KEPT_MAX 2

/* One life of mariadbd; freed when its handles have closed. */
struct life {
	struct db *d;
	uv_process_t process;
	uv_pipe_t out;
	int handles;
	char line[LINE_LIMIT];
	size_t len;
};

struct db_process {
	struct life *life; /* NULL = not running */
	unsigned generation;
	struct proc *job; /* recovering, installing or cleaning */
	struct proc *flush;
	struct timer *killer;
	int crashes;
	uint64_t started_ms, not_before_ms;
	pid_t orphan; /* seen dead at the last look */
	bool found;   /* the start that an installation runs for */
};

bool process_running(const struct db *d)
{
	return d->process->life != NULL;
}

unsigned process_generation(const struct db *d)
{
	return d->process->generation;
}

bool process_busy(const struct db *d)
{
	return d->process->job || clock_ms() < d->process->not_before_ms;
}

/* ---- what it prints ---- */

/* An applier that ended with an error is not replaced: what comes in is queued, and the whole group waits for this member (flow control), even when it
 * is only joining. Galera 26.4 loses writesets that were queued before a state transfer when more members join meanwhile. */
static bool applier_failed(const char *text)
{
	static const char ended[] = "Applier thread exiting ret: ";
	size_t n = sizeof(ended) - 1;

	return str_starts(text, ended) && text[n] >= '1' && text[n] <= '9';
}

/* What Galera says in a line of the log: "DATE TIME THREAD [LEVEL] WSREP: text". NULL: a line of something else, which may well have a user's words in it. */
static const char *wsrep_text(const char *line)
{
	static const char from[] = "] WSREP: ";
	size_t head = strspn(line, "0123456789-: ");
	const char *at = head > 0 && line[head] == '[' ? strchr(line + head, ']') : NULL;

	return at && str_starts(at, from) ? at + sizeof(from) - 1 : NULL;
}

static void on_line(struct db *d, const char *line)
{
	const char *text = wsrep_text(line);

	fprintf(stderr, "%s\n", line);
	if (!text)
		return;
	if (strstr(text, "Reversing history:"))
		d->diverged = true;
	else if (strstr(text, "node restart required") || strstr(text, "Inconsistent by consensus") ||
		 applier_failed(text))
		d->wedged = true;
}

static void on_output(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct life *l = s->data;

	for (ssize_t i = 0; i < n; i++) {
		char c = buf->base[i];

		if (c != '\n' && l->len + 1 < sizeof(l->line)) {
			l->line[l->len++] = c;
			continue;
		}
		l->line[l->len] = 0;
		on_line(l->d, l->line);
		l->len = 0;
		if (c != '\n')
			l->line[l->len++] = c;
	}
	if (n < 0)
		uv_read_stop(s);
}

static void give_buffer(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	static char shared[65536]; /* loop thread only; used up before the next call */

	(void)h, (void)suggested;
	*buf = uv_buf_init(shared, sizeof(shared));
}

static void life_closed(uv_handle_t *h)
{
	struct life *l = h->data;

	if (--l->handles == 0)
		free(l);
}

/* ---- end ---- */

static void on_exit_of(uv_process_t *p, int64_t status, int sig)
{
	struct life *l = p->data;
	struct db *d = l->d;
	struct db_process *pr = d->process;
	uint64_t ran = clock_ms() - pr->started_ms;

	pr->life = NULL;
	uv_close((uv_handle_t *)&l->process, life_closed);
	uv_close((uv_handle_t *)&l->out, life_closed);
	pr->killer = timer_free(pr->killer);
	watch_follow(d, false, pr->generation);
	d->sample = (struct db_sample){0};
	db_own(d)->bootstrapping = false;
	db_set_phase(d, GALERA_UNKNOWN);
	if (d->stopping) {
		log_info("mariadbd has stopped");
		return;
	}
	d->crashed++;
	if (ran >= HEALTHY_MS)
		pr->crashes = 0;
	if (pr->crashes > 0)
		pr->not_before_ms =
			clock_ms() + (uint64_t)MIN(1000 << MIN(pr->crashes - 1, 5), BACKOFF_MAX_MS);
	pr->crashes++;
	log_warn("mariadbd ended after %llu ms (status %lld, signal %d)", (unsigned long long)ran,
		 (long long)status, sig);
	pods_event(d, "Warning", "MemberEnded", sig ? "mariadbd was killed" : "mariadbd ended");
}

static void on_kill_time(void *ctx)
{
	struct db *d = ctx;

	if (!d->process->life)
		return;
	log_warn("mariadbd does not stop; killing it");
	uv_process_kill(&d->process->life->process, SIGKILL);
}

void process_stop(struct db *d)
{
	struct db_process *pr = d->process;

	if (pr->job)
		proc_kill(pr->job, SIGKILL);
	if (!pr->life || pr->killer)
		return;
	uv_process_kill(&pr->life->process, SIGTERM);
	pr->killer = timer_new(d->loop, on_kill_time, d);
	timer_start(pr->killer, (uint64_t)(d->wedged ? MIN(d->s.stop_ms, WEDGED_STOP_MS) : d->s.stop_ms),
		    1000);
}

/* ---- start ---- */

/* A real pipe, not libuv's socket pair: scripts of the state transfer open /dev/stderr. */
static int spawn(struct db *d, const char *const *argv)
{
	struct life *l = xcalloc(1, sizeof(*l));
	uv_stdio_container_t stdio[3] = {
		{.flags = UV_IGNORE}, {.flags = UV_INHERIT_FD}, {.flags = UV_INHERIT_FD}};
	uv_process_options_t o = {.file = argv[0],
				  .args = (char **)(uintptr_t)argv,
				  .exit_cb = on_exit_of,
				  .stdio = stdio,
				  .stdio_count = 3};
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		free(l);
		return -errno;
	}
	l->d = d;
	l->process.data = l->out.data = l;
	l->handles = 2;
	uv_pipe_init(d->loop, &l->out, 0);
	uv_pipe_open(&l->out, fds[0]);
	stdio[1].data.fd = stdio[2].data.fd = fds[1];
	r = uv_spawn(d->loop, &l->process, &o);
	close(fds[1]);
	if (r < 0) {
		uv_close((uv_handle_t *)&l->process, life_closed);
		uv_close((uv_handle_t *)&l->out, life_closed);
		return r;
	}
	uv_read_start((uv_stream_t *)&l->out, give_buffer, on_output);
	d->process->life = l;
	return 0;
}

static void start_failed(struct db *d, const char *text)
{
	log_error("%s", text);
	d->process->not_before_ms = clock_ms() + 5000;
	db_own(d)->bootstrapping = false;
	db_set_phase(d, GALERA_UNKNOWN);
}

/* grastate.dat as Galera wants it of a founder that did not stop in order. */
static int allow_bootstrap(struct db *d, struct err *e)
{
	const struct galera_member *own = db_own(d);
	_cleanup_free_ char *path = xasprintf("%s/grastate.dat", d->data_dir), *text = NULL;
	int r;

	if (!own->uuid[0])
		return 0;
	text = xasprintf(
		"# GALERA saved state\nversion: 2.1\nuuid:    %s\nseqno:   %lld\nsafe_to_bootstrap: 1\n",
		own->uuid, (long long)own->seqno);
	r = file_write_atomic(path, text, strlen(text), 0640, e);
	if (r == 0 && (r = config_give(d, path)) < 0)
		err_errno(e, r, "%s: chown", path);
	return r;
}

static void launch(struct db *d, bool found)
{
	_cleanup_free_ char *defaults = xasprintf("--defaults-file=%s", d->cnf), *position = NULL;
	const struct galera_member *own = db_own(d);
	const char *argv[5] = {"mariadbd", defaults};
	struct err e = {0};
	size_t n = 2;
	int r;

	if (own->uuid[0]) {
		position = xasprintf("--wsrep_start_position=%s:%lld", own->uuid, (long long)own->seqno);
		argv[n++] = position;
	}
	if (found)
		argv[n++] = "--wsrep-new-cluster";
	r = config_write(d, &e);
	if (r == 0 && found)
		r = allow_bootstrap(d, &e);
	if (r == 0 && (r = spawn(d, argv)) < 0)
		err_errno(&e, r, "cannot start mariadbd");
	if (r < 0) {
		start_failed(d, e.text);
		return;
	}
	d->process->generation++;
	d->process->started_ms = clock_ms();
	d->diverged = d->wedged = false;
	d->founded += found;
	d->joined += !found;
	watch_follow(d, true, d->process->generation);
	if (found && d->sst_password)
		watch_make_users(d);
}

/* ---- first installation: into data.new, renamed when complete ---- */

static void on_installed(void *ctx, const struct proc_result *res)
{
	struct db *d = ctx;
	_cleanup_free_ char *new_dir = xasprintf("%s.new", d->data_dir);

	d->process->job = NULL;
	if (d->stopping)
		return;
	if (res->status != 0) {
		_cleanup_free_ char *text = xasprintf("mariadb-install-db failed (%d): %s%s", res->status,
						      res->out, res->err_text);

		start_failed(d, text);
		return;
	}
	if (rename(new_dir, d->data_dir) < 0) {
		start_failed(d, "cannot rename the new data directory");
		return;
	}
	launch(d, d->process->found);
}

static bool has_tables(struct db *d)
{
	_cleanup_free_ char *path = xasprintf("%s/mysql", d->data_dir);

	return access(path, F_OK) == 0;
}

static int fresh_dir(struct db *d, const char *path, struct err *e)
{
	int r = dir_remove(path, e);

	if (r == 0)
		r = dir_make(path, 0750, e);
	if (r == 0 && (r = config_give(d, path)) < 0)
		err_errno(e, r, "%s: chown", path);
	return r;
}

static void install(struct db *d, bool found)
{
	_cleanup_free_ char *new_dir = xasprintf("%s.new", d->data_dir),
			    *data = xasprintf("--datadir=%s", new_dir);
	_cleanup_free_ char *user = xasprintf("--user=%s", d->s.user);
	_cleanup_free_ char *log_size =
		xasprintf("--innodb-log-file-size=%lldM", (long long)d->s.log_file_mb);
	struct proc_options o = {.argv = (const char *[]){"mariadb-install-db", "--no-defaults", data, user,
							  "--auth-root-authentication-method=socket",
							  "--skip-test-db", "--skip-name-resolve", log_size,
							  NULL},
				 .timeout_ms = INSTALL_MAX_MS};
	struct err e = {0};

	if (fresh_dir(d, new_dir, &e) < 0 || dir_remove(d->data_dir, &e) < 0) {
		start_failed(d, e.text);
		return;
	}
	d->process->found = found;
	d->process->job = proc_run(d->loop, &o, on_installed, d);
}

void process_start(struct db *d, bool found)
{
	struct err e = {0};

	ensure(!process_running(d) && !process_busy(d));
	db_own(d)->bootstrapping = found;
	db_set_phase(d, GALERA_STARTING);
	if (found && !has_tables(d))
		install(d, found);
	else if (!found && !db_own(d)->uuid[0] && fresh_dir(d, d->data_dir, &e) < 0)
		start_failed(d, e.text);
	else
		launch(d, found);
}

/* ---- how far the data reaches ---- */

static void position_known(struct db *d)
{
	struct galera_member *own = db_own(d);

	d->unreadable = 0;
	if (!own->uuid[0])
		own->seqno = -1;
	log_info("data reaches %s:%lld", own->uuid[0] ? own->uuid : "none", (long long)own->seqno);
	db_set_phase(d, own->uuid[0] ? GALERA_STOPPED : GALERA_EMPTY);
}

static void on_recovered(void *ctx, const struct proc_result *res)
{
	struct db *d = ctx;
	struct galera_member *own = db_own(d);
	const char *at = NULL, *next = res->err_text;
	char uuid[GALERA_UUID_LEN + 1];
	int64_t seqno;

	d->process->job = NULL;
	if (d->stopping)
		return;
	while ((next = strstr(next, "Recovered position: "))) {
		next += strlen("Recovered position: ");
		at = next;
	}
	if (res->status != 0 || !at || galera_position_parse(at, uuid, &seqno) < 0) {
		_cleanup_free_ char *text =
			xasprintf("cannot read the position (mariadbd --wsrep-recover, status %d): %s",
				  res->status, res->err_text);

		d->unreadable++;
		start_failed(d, text);
		return;
	}
	snprintf(own->uuid, sizeof(own->uuid), "%s", uuid);
	own->seqno = seqno;
	position_known(d);
}

void process_recover(struct db *d)
{
	_cleanup_free_ char *path = xasprintf("%s/grastate.dat", d->data_dir), *text = NULL;
	_cleanup_free_ char *defaults = xasprintf("--defaults-file=%s", d->cnf);
	struct proc_options o = {.argv = (const char *[]){"mariadbd", defaults, "--wsrep-recover", NULL},
				 .timeout_ms = RECOVER_MAX_MS};
	struct galera_member *own = db_own(d);
	struct err e = {0};
	int r;

	ensure(!process_running(d) && !process_busy(d));
	own->uuid[0] = 0;
	own->seqno = -1;
	own->safe_to_bootstrap = false;
	r = file_read(path, 65536, &text, NULL, NULL);
	if (!has_tables(d) ||
	    (r == 0 && galera_grastate_parse(text, own) == 0 && (!own->uuid[0] || own->seqno >= 0))) {
		if (!has_tables(d))
			own->uuid[0] = 0;
		position_known(d);
		return;
	}
	if (config_write(d, &e) < 0) {
		start_failed(d, e.text);
		return;
	}
	d->process->job = proc_run(d->loop, &o, on_recovered, d);
}

/* After a state transfer MariaDB moves files into place without flushing them: a power cut would find them half there. */
static void on_flushed(void *ctx, const struct proc_result *res)
{
	struct db *d = ctx;

	d->process->flush = NULL;
	if (res->status != 0)
		log_warn("sync: %s", res->err_text);
}

void process_flush(struct db *d)
{
	struct proc_options o = {.argv = (const char *[]){"sync", "-f", d->data_dir, NULL},
				 .timeout_ms = RECOVER_MAX_MS};

	if (!d->process->flush)
		d->process->flush = proc_run(d->loop, &o, on_flushed, d);
}

/* ---- data that must not be lost silently, although it must not be used ---- */

static void on_cleaned(void *ctx, const struct proc_result *res)
{
	struct db *d = ctx;

	(void)res;
	d->process->job = NULL;
}

static int is_aside(const struct dirent *e)
{
	return str_starts(e->d_name, "aside-");
}

static void remove_old_asides(struct db *d)
{
	struct dirent **list;
	int n = scandir(d->s.data, &list, is_aside, alphasort);

	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", d->s.data, list[i]->d_name);
		struct proc_options o = {
			.argv = (const char *[]){"rm", "-rf", "--one-file-system", path, NULL},
			.timeout_ms = RECOVER_MAX_MS};

		if (i + ASIDE_KEPT_MAX < n && !d->process->job)
			d->process->job = proc_run(d->loop, &o, on_cleaned, d);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

void process_set_aside(struct db *d)
{
	_cleanup_free_ char *path = xasprintf("%s/aside-%lld", d->s.data, (long long)clock_wall_ms() / 1000);
	struct galera_member *own = db_own(d);

	if (rename(d->data_dir, path) < 0) {
		start_failed(d, "cannot move the data directory aside");
		return;
	}
	log_warn("the data is kept in %s (its position: %s:%lld)", path,
		 own->uuid[0] ? own->uuid : "not known", (long long)own->seqno);
	d->diverged = false;
	own->uuid[0] = 0;
	position_known(d);
	remove_old_asides(d);
}

/* ---- PID 1 ---- */

void process_reap_orphans(struct db *d)
{
	struct db_process *pr = d->process;

	if (getpid() != 1)
		return;
	/* libuv reaps its own children at once; who is still dead at the next look belongs to nobody */
	for (int i = 0; i < 64; i++) {
		siginfo_t info = {0};

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0) {
			pr->orphan = 0;
			return;
		}
		if (info.si_pid != pr->orphan) {
			pr->orphan = info.si_pid;
			return;
		}
		waitpid(info.si_pid, NULL, WNOHANG);
	}
}

void process_init(struct db *d)
{
	d->process = xcalloc(1, sizeof(*d->process));
}

void process_done(struct db *d)
{
	if (!d->process)
		return;
	timer_free(d->process->killer);
	free(d->process);
	d->process = NULL;
}
