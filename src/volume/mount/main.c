/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu mount, kuayu umount.
 *
 * Without --foreground the process forks before it has any thread: the child mounts and tells the parent through a pipe that it is ready, or why
 * not; the parent ends with 0 or 1. A dead mount on DIR (its process was killed) is taken away first. */
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>

#include "volume/mount.h"
#include "volume/mount/internal.h"

#define READY_WAIT_MS 60000

/* ---- the mount table ---- */

/* The newest mount on dir: its type, device and source (which may be NULL). False: none. */
static bool mounted_from(const char *dir, char type[64], char source[256], unsigned *ret_major,
			 unsigned *ret_minor)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	while (f && getline(&line, &size, f) > 0) {
		unsigned major, minor;
		char where[4096], kind[64], from[256] = "", *dash = strstr(line, " - ");

		if (!dash || sscanf(line, "%*d %*d %u:%u %*s %4095s", &major, &minor, where) != 3 ||
		    sscanf(dash + 3, "%63s %255s", kind, from) < 1)
			continue;
		for (char *p = where, *q = where;; q++) { /* \040 */
			if (p[0] == '\\' && p[1] && p[2] && p[3]) {
				*q = (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + p[3] - '0');
				p += 4;
			} else
				*q = *p++;
			if (!*q)
				break;
		}
		if (streq(where, dir)) {
			found = true;
			strcpy(type, kind);
			if (source)
				strcpy(source, from);
			*ret_major = major;
			*ret_minor = minor;
		}
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

static bool mounted(const char *dir, char type[64], unsigned *ret_major, unsigned *ret_minor)
{
	return mounted_from(dir, type, NULL, ret_major, ret_minor);
}

/* One upon the other would hide it, and need as many unmounts. */
static bool is_there_already(const struct mount_settings *s)
{
	char type[64], source[256];
	unsigned major, minor;

	return mounted_from(s->dir, type, source, &major, &minor) && streq(type, "fuse.kuayu") &&
	       streq(source, s->volume);
}

static void clear_dead(const char *dir)
{
	char type[64];
	unsigned major, minor;
	struct stat st;

	if (stat(dir, &st) == 0 || (errno != ENOTCONN && errno != ECONNABORTED) ||
	    !mounted(dir, type, &major, &minor) || !streq(type, "fuse.kuayu"))
		return;
	log_warn("%s: a mount whose process is gone is taken away", dir);
	if (umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
		log_warn("%s: %s", dir, strerror(errno));
}

static void raise_readahead(const struct mount *m)
{
	char type[64], path[64];
	unsigned major, minor;
	FILE *f;

	if (!mounted(m->s.dir, type, &major, &minor))
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
	f = fopen(path, "we");
	if (!f || fprintf(f, "%lld\n", (long long)m->s.readahead_kb) < 0)
		log_info("readahead stays as it is: %s: %s", path, strerror(errno));
	if (f)
		fclose(f);
}

/* ---- in the background ---- */

static void *to_syslog(void *arg)
{
	FILE *f = fdopen((int)(intptr_t)arg, "r");
	char line[1024];

	openlog("kuayu-mount", LOG_PID, LOG_DAEMON);
	while (f && fgets(line, sizeof(line), f)) {
		int level = strstr(line, " ERROR ")  ? LOG_ERR
			    : strstr(line, " WARN ") ? LOG_WARNING
						     : LOG_INFO;

		syslog(level, "%.*s", (int)strcspn(line, "\n"), line);
	}
	return NULL;
}

/* A log file stays what it is; a terminal or a pipe of the caller is not held on to. */
static void detach_output(const struct mount *m)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), pipes[2];
	struct stat st;
	pthread_t t;

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
	}
	if (m->s.log || (fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode)))
		return;
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return;
	if (pthread_create(&t, NULL, to_syslog, (void *)(intptr_t)pipes[0]) == 0) {
		pthread_detach(t);
		dup2(pipes[1], STDERR_FILENO);
	}
	close(pipes[1]);
}

struct start {
	struct mount *m;
	int fd; /* to the parent; -1 = none */
};

static void is_ready(void *ctx)
{
	struct start *s = ctx;
	ssize_t n = 0;

	raise_readahead(s->m);
	log_info("volume %s is mounted on %s", s->m->s.volume, s->m->s.dir);
	if (s->fd >= 0) {
		n = write(s->fd, "", 1);
		close(s->fd);
		s->fd = -1;
		detach_output(s->m);
	}
	(void)n;
}

/* The parent's part: 0 when a zero byte comes, else the child's text. */
static int wait_for_child(int fd, pid_t child)
{
	char text[1024];
	ssize_t n;

	do
		n = read(fd, text, sizeof(text) - 1);
	while (n < 0 && errno == EINTR);
	if (n > 0 && text[0] == '\0')
		return 0;
	if (n > 0) {
		text[n] = '\0';
		fprintf(stderr, "%s", text);
	} else
		fprintf(stderr, "kuayu mount: the process ended at its start\n");
	(void)waitpid(child, NULL, 0);
	return 1;
}

/* ---- the whole ---- */

static int open_volume(struct mount *m, struct err *e)
{
	const struct store_options so = {
		.ca_file = m->s.store_ca, .cert_file = m->s.store_cert, .key_file = m->s.store_key};
	const struct vclient_options o = {.store_uri = m->s.store,
					  .store_options = &so,
					  .volume = m->s.volume,
					  .domain = m->s.domain,
					  .timeout_ms = (uint64_t)m->s.timeout_ms,
					  .leases = m->s.leases,
					  .noted = cache_noted,
					  .invalidate = cache_invalidate,
					  .reset = cache_reset,
					  .is_open = cache_is_open,
					  .ctx = m};

	return vclient_open(&o, &m->c, e);
}

/* The root is there: somebody answers before the kernel is asked to mount. */
static int knock(struct mount *m, struct err *e)
{
	struct vclient_slot *s = vclient_slot_new(m->c);
	struct vfs_op op = {.type = VFS_GETATTR, .ino = {.folder = vol_root}};
	struct vfs_result res = {0};
	int r = s ? vclient_call(s, &op, &res, NULL) : -ENOMEM;

	vfs_result_done(&res);
	vclient_slot_free(s);
	return r < 0 ? err_errno(e, r, "volume %s does not answer", m->s.volume) : 0;
}

static int run(struct mount *m, struct start *start, struct err *e)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = nodes_init(&m->nodes);
	if (r < 0 || (r = cache_start(m)) < 0 || (r = lock_start(m)) < 0 || (r = fill_start(m)) < 0 ||
	    (r = head_start(m)) < 0)
		return err_errno(e, r, "start");
	r = open_volume(m, e);
	if (r == 0)
		r = knock(m, e);
	if (r == 0 && (r = behind_start(m)) < 0)
		(void)err_errno(e, r, "write-behind");
	if (r == 0 && (r = deleg_start(m)) < 0)
		(void)err_errno(e, r, "delegations");
	if (r == 0) {
		waker_start(m);
		r = serve(m, is_ready, start);
		if (r < 0)
			err_set(e, r, "cannot mount on %s (the reason is above)", m->s.dir);
	}
	behind_stop(m);
	deleg_stop(m);
	atomic_store(&m->stopping, true);
	waker_stop(m);
	lock_stop(m);
	m->c = vclient_close(m->c); /* pushes end before the droppers do */
	deleg_done(m);
	cache_stop(m);
	fill_stop(m);
	head_stop(m);
	if (m->se)
		fuse_session_destroy(m->se);
	nodes_done(&m->nodes);
	return r;
}

static int mount_here(struct mount *m, int fd)
{
	struct start start = {.m = m, .fd = fd};
	struct err e = {0};
	int r = run(m, &start, &e), out = start.fd >= 0 ? start.fd : STDERR_FILENO;

	if (r < 0 && e.text[0])
		dprintf(out, "kuayu mount: %s\n", e.text);
	return r < 0;
}

int cmd_mount(int argc, char **argv)
{
	struct mount *m = xcalloc(1, sizeof(*m)); /* the process's; freed by its end */
	struct err e = {0};
	int r = options_parse(argc, argv, &m->s, &e), pipes[2], fd;
	pid_t child;

	if (r != 0) {
		if (r < 0)
			fprintf(stderr, "kuayu mount: %s\n", e.text);
		options_done(&m->s);
		free(m);
		return r < 0 ? 2 : 0;
	}
	if (m->s.log && ((fd = open(m->s.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640)) < 0 ||
			 dup2(fd, STDERR_FILENO) < 0)) {
		fprintf(stderr, "kuayu mount: --log %s: %s\n", m->s.log, strerror(errno));
		return 1;
	}
	log_init("mount", LOG_LEVEL_INFO);
	clear_dead(m->s.dir);
	if (is_there_already(&m->s)) {
		fprintf(stderr, "kuayu mount: volume %s is mounted on %s already\n", m->s.volume, m->s.dir);
		return 1;
	}
	if (m->s.foreground)
		return mount_here(m, -1);
	if (pipe2(pipes, O_CLOEXEC) < 0 || (child = fork()) < 0) {
		fprintf(stderr, "kuayu mount: %s\n", strerror(errno));
		return 1;
	}
	if (child > 0) {
		close(pipes[1]);
		return wait_for_child(pipes[0], child);
	}
	close(pipes[0]);
	setsid();
	return mount_here(m, pipes[1]);
}

int cmd_umount(int argc, char **argv)
{
	char type[64], *dir;
	unsigned major, minor;
	bool lazy = argc == 3 && (streq(argv[1], "-l") || streq(argv[1], "--lazy"));

	if (argc != 2 + lazy || streq(argv[1], "--help")) {
		fprintf(argc == 2 ? stdout : stderr, "Usage: kuayu umount [--lazy] DIR\n\nUnmounts a volume; "
						     "--lazy: also when it is in use.\n");
		return argc == 2 ? 0 : 2;
	}
	dir = realpath(argv[argc - 1], NULL);
	if (!dir && (errno == ENOTCONN || errno == ECONNABORTED))
		dir = xstrdup(argv[argc - 1]);
	if (!dir || !mounted(dir, type, &major, &minor) || !streq(type, "fuse.kuayu")) {
		fprintf(stderr, "kuayu umount: no volume is mounted on %s\n", argv[argc - 1]);
		free(dir);
		return 1;
	}
	if (umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0) {
		if (errno == EPERM) {
			execlp("fusermount3", "fusermount3", "-u", lazy ? "-z" : dir, lazy ? dir : NULL,
			       NULL);
			fprintf(stderr, "kuayu umount: fusermount3: %s\n", strerror(errno));
		} else
			fprintf(stderr, "kuayu umount: %s: %s%s\n", dir, strerror(errno),
				errno == EBUSY ? " (a program uses it; --lazy unmounts it when it is free)"
					       : "");
		free(dir);
		return 1;
	}
	free(dir);
	return 0;
}
