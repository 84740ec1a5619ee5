/* SPDX-License-Identifier: Apache-2.0 */
/* Spawner and monitors.
 *
 *   agent --socketpair--> spawner --fork--> monitor --exec--> crun run --detach --> container's first process
 *
 * One monitor a container. It lives as long as the container, also while the agent is restarted: it holds the ends of the
 * log pipes and writes the log, is the container's parent (PR_SET_CHILD_SUBREAPER) and so learns its exit status, notes it on disk,
 * takes the cgroup and crun's state away, and ends. If its container is a singleton, it kills it when the fence page says so; that
 * needs no agent. The agent learns of changes by a file that appears in the events folder (inotify), or finds them on disk at its start.
 *
 * A monitor has a mount namespace of its own: the overlay of the container's root lives and dies with it, and crun 1.8, which
 * refuses hybrid cgroups, sees a version 1 host there (the unified mount is covered). Single-threaded, poll(2), no allocations per line.
 * If a monitor itself is killed, the agent notices within a second and kills the orphaned container. */
#include "node/monitor.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "node/cgroup.h"
#include "node/fence.h"
#include "node/logfile.h"
#include "node/small.h"

#define CGROUP2_MAGIC	 0x63677270
#define REAPED_MAX	 64  /* statuses kept while crun still runs */
#define PIPE_LINGER_MS	 500 /* after the first process ended, if something keeps its pipes open */
#define CREATE_LIMIT_MS	 30000
#define MONITOR_TEXT_MAX 4096
#define MONITOR_FILE_MAX ((size_t)64 << 10)

struct monitor {
	const char *dir;
	json_t *cfg;
	struct log_file log;
	struct log_stream streams[2];
	int pipes[2]; /* read ends of stdout and stderr, -1 = at its end */
	int signal_fd;
	pid_t crun, init;
	uint64_t init_start;
	int crun_status, init_status; /* wait(2) form */
	bool crun_done, init_done, fenced, killed_late;
	const struct fence_page *fence;
	uint64_t ended_ms, begun_ms;
	struct {
		pid_t pid;
		int status;
	} reaped[REAPED_MAX];
	size_t n_reaped;
};

uint64_t proc_start_time(int pid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/stat", pid), *text = NULL;
	char *p;
	size_t len;

	if (pid <= 0 || file_read(path, 4096, &text, &len, NULL) < 0)
		return 0;
	p = strrchr(text, ')'); /* the name may hold anything */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p + 1, NULL, 10) : 0;
}

bool proc_alive(int pid, uint64_t start)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/stat", pid), *text = NULL;
	char *p;
	size_t len;

	if (pid <= 0 || start == 0 || file_read(path, 4096, &text, &len, NULL) < 0)
		return false;
	p = strrchr(text, ')');
	return p && p[1] == ' ' && p[2] != 'Z' && p[2] != 'X' && proc_start_time(pid) == start;
}

/* ---- files ---- */

static void write_file(struct monitor *m, const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", m->dir, name);

	(void)small_write(path, text, 0600);
}

static void write_json(struct monitor *m, const char *name, json_t *j)
{
	_cleanup_free_ char *text = js_text(j);

	write_file(m, name, text);
	json_decref(j);
}

/* A new file in the events folder: DIR/EVENT.PID.KIND. The agent removes it. */
static void notify(struct monitor *m, const char *kind)
{
	_cleanup_free_ char *path = xasprintf("%s/%s.%d.%s", js_str_or(m->cfg, "events", "/nowhere"),
					      js_str_or(m->cfg, "event", "x"), (int)getpid(), kind);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	(void)fd; /* no agent there: it will read the state at its start */
}

static int failed(struct monitor *m, const char *text)
{
	write_file(m, "fail", text);
	notify(m, "fail");
	return 1;
}

/* ---- namespace, overlay, crun ---- */

static int enter_mount_namespace(struct monitor *m, struct err *e)
{
	_cleanup_free_ char *opts = NULL;
	const char *unified = "/sys/fs/cgroup/unified", *rootfs = js_str_or(m->cfg, "rootfs", "");
	struct statfs fs;

	if (unshare(CLONE_NEWNS) < 0)
		return err_errno(e, -errno, "mount namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return err_errno(e, -errno, "mount propagation");
	if (statfs(unified, &fs) == 0 && fs.f_type == CGROUP2_MAGIC &&
	    mount("tmpfs", unified, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k") < 0)
		return err_errno(e, -errno, "hiding %s", unified);
	opts = xasprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", js_str_or(m->cfg, "lower", ""),
			 m->dir, m->dir);
	if (mount("overlay", rootfs, "overlay", 0, opts) < 0)
		return err_errno(e, -errno, "overlay of the container's root (%s)", opts);
	return 0;
}

_Noreturn static void exec_crun(struct monitor *m, const int out[2])
{
	_cleanup_free_ char *log = xasprintf("%s/crun.log", m->dir), *pid = xasprintf("%s/crun.pid", m->dir);
	const char *argv[] = {"crun",
			      "--root",
			      js_str_or(m->cfg, "crun_root", ""),
			      "--cgroup-manager=cgroupfs",
			      "--log",
			      log,
			      "run",
			      "--detach",
			      "--pid-file",
			      pid,
			      "--bundle",
			      m->dir,
			      js_str_or(m->cfg, "id", ""),
			      NULL};
	int null = open("/dev/null", O_RDONLY);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	dup2(null, 0);
	dup2(out[0], 1);
	dup2(out[1], 2);
	execvp(argv[0], (char **)argv);
	_exit(127);
}

static int start_crun(struct monitor *m, struct err *e)
{
	int out[2], err[2];

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "log pipes");
	m->crun = fork();
	if (m->crun < 0)
		return err_errno(e, -errno, "fork");
	if (m->crun == 0)
		exec_crun(m, (int[2]){out[1], err[1]});
	close(out[1]);
	close(err[1]);
	m->pipes[0] = out[0];
	m->pipes[1] = err[0];
	(void)fcntl(out[0], F_SETFL, O_NONBLOCK);
	(void)fcntl(err[0], F_SETFL, O_NONBLOCK);
	return 0;
}

/* crun has ended well: who is the container's first process? */
static int find_init(struct monitor *m)
{
	_cleanup_free_ char *path = xasprintf("%s/crun.pid", m->dir), *text = NULL;
	size_t len;

	if (file_read(path, 64, &text, &len, NULL) < 0)
		return -EIO;
	m->init = (pid_t)strtol(text, NULL, 10);
	m->init_start = proc_start_time(m->init);
	for (size_t i = 0; i < m->n_reaped; i++)
		if (m->reaped[i].pid == m->init) {
			m->init_done = true;
			m->init_status = m->reaped[i].status;
			m->ended_ms = clock_ms();
		}
	write_json(m, "pid",
		   json_pack("{s:i,s:I,s:i,s:I,s:I}", "pid", (int)m->init, "start", (json_int_t)m->init_start,
			     "monitor", (int)getpid(), "monitor_start", (json_int_t)proc_start_time(getpid()),
			     "started_us", (json_int_t)clock_wall_us()));
	notify(m, "run");
	return 0;
}

/* ---- the loop ---- */

static void reap(struct monitor *m)
{
	struct signalfd_siginfo si;
	int status;
	pid_t pid;

	while (read(m->signal_fd, &si, sizeof(si)) > 0)
		continue;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == m->crun) {
			m->crun_done = true;
			m->crun_status = status;
		} else if (pid == m->init) {
			m->init_done = true;
			m->init_status = status;
			m->ended_ms = clock_ms();
		} else if (!m->init && m->n_reaped < REAPED_MAX) {
			m->reaped[m->n_reaped].pid = pid;
			m->reaped[m->n_reaped++].status = status;
		}
	}
}

static void read_pipe(struct monitor *m, int i)
{
	char chunk[32768];
	ssize_t n = read(m->pipes[i], chunk, sizeof(chunk));

	if (n > 0) {
		log_file_put(&m->log, &m->streams[i], chunk, (size_t)n);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		close(m->pipes[i]);
		m->pipes[i] = -1;
	}
}

/* Kills the container when fencing demands it; while it is being made, crun, and what it has begun goes with the cgroup. Returns the poll time-out in ms, -1 = none. */
static int check_fence(struct monitor *m)
{
	uint64_t wait_ms;

	if (!m->fence || m->init_done || (!m->init && m->crun_done))
		return -1;
	if (fence_decide(clock_ms(), fence_last(m->fence), &wait_ms) == FENCE_RUN)
		return (int)wait_ms + 1;
	if (!m->fenced)
		log_warn("container %s: no lease renewal for %d ms, fenced", js_str_or(m->cfg, "id", ""),
			 FENCE_AFTER_MS);
	m->fenced = true;
	kill(m->init ? m->init : m->crun, SIGKILL); /* ours until waited for: the pid cannot be reused */
	return 100;
}

static int poll_timeout(struct monitor *m)
{
	int t = check_fence(m);

	if (!m->init)
		return t < 0 ? 1000 : MIN(t, 1000);
	return m->init_done ? 50 : t;
}

static int run_loop(struct monitor *m)
{
	for (;;) {
		struct pollfd fds[3] = {
			{m->signal_fd, POLLIN, 0}, {m->pipes[0], POLLIN, 0}, {m->pipes[1], POLLIN, 0}};
		int timeout = poll_timeout(m);

		if (poll(fds, 3, timeout) < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < 2; i++)
			if (m->pipes[i] >= 0 && fds[1 + i].revents)
				read_pipe(m, i);
		log_file_flush(&m->log);
		reap(m);
		if (m->crun_done && !m->init) {
			if (m->crun_status != 0 || find_init(m) < 0)
				return -ECHILD;
		}
		if (!m->crun_done && clock_ms() - m->begun_ms > CREATE_LIMIT_MS)
			kill(m->crun, SIGKILL);
		if (m->init_done &&
		    ((m->pipes[0] < 0 && m->pipes[1] < 0) || clock_ms() - m->ended_ms > PIPE_LINGER_MS))
			return 0;
	}
}

static void crun_delete(struct monitor *m)
{
	const char *argv[] = {
		"crun",	  "--root",  js_str_or(m->cfg, "crun_root", ""), "--cgroup-manager=cgroupfs",
		"delete", "--force", js_str_or(m->cfg, "id", ""),	 NULL};
	const char *cgroup = js_str_or(m->cfg, "cgroup", "/kuayu-none");
	_cleanup_free_ char *pod = xstrdup(cgroup);
	pid_t pid = fork();
	sigset_t none;

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], (char **)argv);
		_exit(127);
	}
	if (pid > 0)
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	cgroup_remove(cgroup);
	*strrchr(pod, '/') = 0;
	cgroup_remove_empty(pod);
}

static void report_exit(struct monitor *m)
{
	int sig = WIFSIGNALED(m->init_status) ? WTERMSIG(m->init_status) : 0;
	int code = sig ? 128 + sig : WEXITSTATUS(m->init_status);
	bool oom = cgroup_oom_kills(js_str_or(m->cfg, "cgroup", "/kuayu-none")) > 0 &&
		   (sig == SIGKILL || code == 137);

	write_json(m, "exit",
		   json_pack("{s:i,s:i,s:b,s:b,s:I}", "code", code, "signal", sig, "oom", oom, "fenced",
			     m->fenced, "finished_us", (json_int_t)clock_wall_us()));
	notify(m, "exit");
}

static int failed_to_create(struct monitor *m)
{
	_cleanup_free_ char *path = xasprintf("%s/crun.log", m->dir), *text = NULL;
	size_t len = 0;

	if (file_read(path, MONITOR_FILE_MAX, &text, &len, NULL) < 0 || len == 0) {
		free(text);
		text = xasprintf("crun ended with status %d; see the container's log",
				 WIFEXITED(m->crun_status) ? WEXITSTATUS(m->crun_status) : -1);
	}
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ' ';
	cgroup_kill(js_str_or(m->cfg, "cgroup", "/kuayu-none")); /* what a killed crun had begun */
	crun_delete(m);
	return failed(m, text);
}

static int monitor_setup(struct monitor *m, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/monitor.json", m->dir), *text = NULL;
	size_t len;
	sigset_t set;
	int r = file_read(path, MONITOR_FILE_MAX, &text, &len, e);

	if (r < 0)
		return r;
	r = js_parse_new(text, len, &m->cfg, e);
	if (r < 0)
		return r;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (m->signal_fd < 0)
		return err_errno(e, -errno, "signalfd");
	if (js_bool(m->cfg, "singleton", false)) {
		m->fence = fence_map(js_str_or(m->cfg, "fence", ""), false, e);
		if (!m->fence)
			return -EIO;
		if (fence_decide(clock_ms(), fence_last(m->fence), NULL) != FENCE_RUN)
			return err_set(e, -EPERM, "the node has no valid lease: singleton not started");
	}
	r = log_file_open(&m->log, js_str_or(m->cfg, "log", ""));
	return r < 0 ? err_errno(e, r, "log file") : enter_mount_namespace(m, e);
}

/* DIR/lock: held by the monitor as long as it lives. Returns the descriptor, or -EWOULDBLOCK when another holds it. */
static int monitor_lock(const char *dir)
{
	_cleanup_free_ char *path = xasprintf("%s/lock", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), r;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

bool monitor_lives(const char *dir)
{
	_cleanup_close_ int fd = monitor_lock(dir);

	return fd == -EWOULDBLOCK;
}

int monitor_main(const char *dir)
{
	struct monitor *m = xcalloc(1, sizeof(*m));
	struct err e = {0};

	m->dir = dir;
	m->pipes[0] = m->pipes[1] = -1;
	m->streams[0].name = "stdout";
	m->streams[1].name = "stderr";
	m->begun_ms = clock_ms();
	if (monitor_lock(dir) < 0) /* kept open until the end */
		return failed(m, "cannot lock the container's folder");
	if (monitor_setup(m, &e) < 0 || start_crun(m, &e) < 0)
		return failed(m, e.text);
	if (run_loop(m) < 0)
		return failed_to_create(m);
	for (int i = 0; i < 2; i++)
		log_file_end(&m->log, &m->streams[i]);
	log_file_flush(&m->log);
	report_exit(m);
	crun_delete(m);
	return 0;
}

/* ---- spawner ---- */

/* The name in `ps`, written over the command line. argv is a verb's: the program's own name lies before it. */
static void rename_process(int argc, char **argv, const char *name)
{
	char *first = program_invocation_name;
	size_t room = first + strlen(first) + 1 == argv[0] ? strlen(first) + 1 : 0;

	if (room == 0)
		first = argv[0];
	for (int i = 0; i < argc; i++)
		if (argv[i] == first + room)
			room += strlen(argv[i]) + 1;
	prctl(PR_SET_NAME, "kuayu-monitor");
	if (room < 2)
		return;
	memset(first, 0, room);
	snprintf(first, room, "%s", name);
}

_Noreturn static void become_monitor(const char *dir, int argc, char **argv)
{
	_cleanup_free_ char *name = xasprintf("kuayu-monitor %s", dir);

	rename_process(argc, argv, name);
	setsid();
	_exit(monitor_main(dir));
}

_Noreturn static void spawner_main(int fd, int argc, char **argv)
{
	char dir[MONITOR_TEXT_MAX];

	signal(SIGCHLD, SIG_IGN); /* monitors are not waited for */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	for (;;) {
		ssize_t n = recv(fd, dir, sizeof(dir) - 1, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(0); /* the agent has gone */
		dir[n] = 0;
		if (fork() == 0) {
			signal(SIGCHLD, SIG_DFL);
			close(fd);
			become_monitor(dir, argc, argv);
		}
	}
}

int spawner_start(int argc, char **argv)
{
	int sv[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(sv[0]);
		prctl(PR_SET_NAME, "kuayu-spawner");
		spawner_main(sv[1], argc, argv);
	}
	close(sv[1]);
	return sv[0];
}

int spawner_run(int fd, const char *dir)
{
	size_t n = strlen(dir);

	if (n >= MONITOR_TEXT_MAX)
		return -ENAMETOOLONG;
	return send(fd, dir, n, MSG_NOSIGNAL) == (ssize_t)n ? 0 : -errno;
}
