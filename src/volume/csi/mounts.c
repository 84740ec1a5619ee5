/* SPDX-License-Identifier: Apache-2.0 */
/* See mounts.h. A mount is a child of ours in a session of its own, so that it outlives us; the next process finds it in
 * /proc/self/mountinfo and takes it over. One thread looks at all of them every WATCH_MS: a child that ended, or a mount that
 * answers ENOTCONN, is unmounted lazily and started again, after 0.2 s doubling to 5 s. A mount that answers nothing is left alone (it may
 * wait for its bricks); the thread that asked it waits there and no second one is sent. What the command says goes to DIR/VOLUME.log;
 * its last line is quoted when it fails. */
#include "volume/csi/mounts.h"

#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#define WATCH_MS       500
#define READY_POLL_MS  20
#define BACKOFF_MS     200
#define BACKOFF_MAX_MS 5000
#define VOLUMES_MAX    256
#define WORDS_MAX      64
#define STACKED_MAX    64

extern char **environ;

enum state { STATE_NEW, STATE_STARTING, STATE_MOUNTED, STATE_DOWN };

struct volume {
	char *name, *dir, *log;
	enum state state;
	pid_t pid; /* 0 = taken over, or ended */
	uint64_t retry_at_ms, backoff_ms;
	struct probe *probe;
};

/* A look at a mount that may hang; the last of the two that hold it frees it. */
struct probe {
	int users, result; /* atomic; result 1 = no answer yet */
	char *dir;
};

struct mounts {
	char *dir, **command, *store, **options;
	int64_t timeout_ms;
	void (*again)(void *ctx, const char *volume);
	void *ctx;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t watcher;
	bool stopping;
	struct volume v[VOLUMES_MAX];
	size_t n;
};

/* ---- mount points ---- */

int mount_remove(const char *path, struct err *e)
{
	for (int i = 0; i < STACKED_MAX && mount_is_point(path); i++) {
		if (umount2(path, UMOUNT_NOFOLLOW) == 0 || umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) == 0)
			continue;
		return err_errno(e, -errno, "cannot unmount %s", path);
	}
	return 0;
}

int mount_bind(const char *source, const char *path, bool read_only, struct err *e)
{
	struct statvfs st;
	unsigned long keep = 0;

	if (mkdir(path, 0750) < 0 && errno != EEXIST && errno != ENOTCONN)
		return err_errno(e, -errno, "cannot make %s", path);
	if (mount(source, path, NULL, MS_BIND, NULL) < 0)
		return err_errno(e, -errno, "cannot bind %s to %s", source, path);
	if (!read_only)
		return 0;
	if (statvfs(path, &st) == 0)
		keep = ((st.f_flag & ST_NOSUID) ? MS_NOSUID : 0) | ((st.f_flag & ST_NODEV) ? MS_NODEV : 0) |
		       ((st.f_flag & ST_NOEXEC) ? MS_NOEXEC : 0);
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | keep, NULL) < 0) {
		int r = -errno;

		(void)umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH);
		return err_errno(e, r, "cannot make %s read-only", path);
	}
	return 0;
}

int mount_same(const char *source, const char *path)
{
	struct stat a, b;

	if (stat(path, &b) < 0 || stat(source, &a) < 0)
		return -errno;
	return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool mounts_name_ok(const char *s)
{
	if (!s || !*s || *s == '.' || strlen(s) > 63)
		return false;
	for (; *s; s++)
		if (!(*s >= 'a' && *s <= 'z') && !(*s >= 'A' && *s <= 'Z') && !(*s >= '0' && *s <= '9') &&
		    !strchr("-_.", *s))
			return false;
	return true;
}

/* ---- the command ---- */

static void own_command(char out[4096])
{
	ssize_t n = readlink("/proc/self/exe", out, 4095);

	out[n > 0 ? n : 0] = 0;
}

/* COMMAND VOLUME DIR [--store STORE] --foreground [OPTION ...] */
static int start_command(struct mounts *m, struct volume *v, struct err *e)
{
	const char *argv[WORDS_MAX];
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	char self[4096];
	size_t n = 0;
	int r;

	own_command(self);
	if (!m->command) {
		argv[n++] = self;
		argv[n++] = "mount";
	}
	for (char **w = m->command; w && *w && n < WORDS_MAX / 2; w++)
		argv[n++] = *w;
	argv[n++] = v->name;
	argv[n++] = v->dir;
	if (m->store) {
		argv[n++] = "--store";
		argv[n++] = m->store;
	}
	argv[n++] = "--foreground";
	for (char **w = m->options; w && *w && n < WORDS_MAX - 1; w++)
		argv[n++] = *w;
	argv[n] = NULL;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, v->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0640);
	posix_spawn_file_actions_adddup2(&files, 1, 2);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
	r = posix_spawnp(&v->pid, argv[0], &files, &attr, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	if (r != 0) {
		v->pid = 0;
		return err_errno(e, -r, "cannot start %s", argv[0]);
	}
	log_info("volume %s: mounting at %s (process %d)", v->name, v->dir, (int)v->pid);
	return 0;
}

static int say_why(const struct volume *v, int status, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	const char *line = "";
	size_t len = 0;

	if (file_read(v->log, (size_t)1 << 20, &text, &len, NULL) == 0) {
		while (len && text[len - 1] == '\n')
			text[--len] = 0;
		line = strrchr(text, '\n') ? strrchr(text, '\n') + 1 : text;
	}
	return err_set(e, -EIO, "volume %s: the mount command ended with %s %d: %.300s", v->name,
		       WIFSIGNALED(status) ? "signal" : "status",
		       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), line);
}

/* Has our child ended? Its status then. */
static bool reaped(struct volume *v, int *ret_status)
{
	if (v->pid <= 0 || waitpid(v->pid, ret_status, WNOHANG) != v->pid)
		return false;
	v->pid = 0;
	return true;
}

/* Without the lock: only the one that set STATE_STARTING comes here. */
static int bring_up(struct mounts *m, struct volume *v, struct err *e)
{
	uint64_t until = clock_ms() + (uint64_t)m->timeout_ms;
	int status, r;

	r = mount_remove(v->dir, e);
	if (r == 0)
		r = dir_make(v->dir, 0700, e);
	if (r == 0)
		r = start_command(m, v, e);
	while (r == 0 && !mount_is_point(v->dir)) {
		if (reaped(v, &status))
			return say_why(v, status, e);
		if (clock_ms() >= until) {
			kill(v->pid, SIGKILL);
			(void)waitpid(v->pid, &status, 0);
			v->pid = 0;
			return err_set(e, -ETIMEDOUT, "volume %s was not mounted within %lld ms", v->name,
				       (long long)m->timeout_ms);
		}
		usleep(READY_POLL_MS * 1000);
	}
	return r;
}

/* ---- watching ---- */

static void probe_leave(struct probe *p)
{
	if (__atomic_sub_fetch(&p->users, 1, __ATOMIC_ACQ_REL))
		return;
	free(p->dir);
	free(p);
}

static void *run_probe(void *arg)
{
	struct probe *p = arg;
	struct statvfs st;

	__atomic_store_n(&p->result, statvfs(p->dir, &st) == 0 ? 0 : -errno, __ATOMIC_RELEASE);
	probe_leave(p);
	return NULL;
}

/* true: its file system says that nobody serves it any more. */
static bool probe_dead(struct volume *v)
{
	pthread_t t;
	int result;

	if (v->probe) {
		result = __atomic_load_n(&v->probe->result, __ATOMIC_ACQUIRE);
		if (result == 1)
			return false;
		probe_leave(v->probe);
		v->probe = NULL;
		return result == -ENOTCONN || result == -ECONNABORTED;
	}
	v->probe = xcalloc(1, sizeof(*v->probe));
	*v->probe = (struct probe){.users = 2, .result = 1, .dir = xstrdup(v->dir)};
	if (pthread_create(&t, NULL, run_probe, v->probe) == 0) {
		pthread_detach(t);
	} else {
		v->probe->users = 1;
		probe_leave(v->probe);
		v->probe = NULL;
	}
	return false;
}

/* Under the lock, which it lets go while the command starts. */
static int start_locked(struct mounts *m, struct volume *v, struct err *e)
{
	bool before = v->state == STATE_DOWN;
	int r;

	v->state = STATE_STARTING;
	pthread_mutex_unlock(&m->lock);
	r = bring_up(m, v, e);
	if (r == 0 && before && m->again)
		m->again(m->ctx, v->name);
	pthread_mutex_lock(&m->lock);
	if (r == 0) {
		v->state = STATE_MOUNTED;
		v->backoff_ms = 0;
	} else {
		v->state = before ? STATE_DOWN : STATE_NEW;
		v->backoff_ms = CLAMP(v->backoff_ms * 2, BACKOFF_MS, BACKOFF_MAX_MS);
		v->retry_at_ms = clock_ms() + v->backoff_ms;
	}
	pthread_cond_broadcast(&m->wake);
	return r;
}

static void look(struct mounts *m, struct volume *v)
{
	int status = 0;
	struct err e = {0};

	if (v->state == STATE_MOUNTED) {
		bool ended = reaped(v, &status);

		if (ended)
			(void)say_why(v, status, &e);
		else if (!mount_is_point(v->dir))
			(void)err_set(&e, -ENOENT, "volume %s: somebody has unmounted it", v->name);
		else if (probe_dead(v))
			(void)err_set(&e, -ENOTCONN, "volume %s: its mount has died", v->name);
		else
			return;
		log_error("%s; mounting again", e.text);
		v->state = STATE_DOWN;
		v->backoff_ms = 0;
		v->retry_at_ms = 0;
	}
	if (v->state == STATE_DOWN && clock_ms() >= v->retry_at_ms && start_locked(m, v, &e) < 0)
		log_error("%s", e.text);
}

static void *run_watcher(void *arg)
{
	struct mounts *m = arg;

	pthread_mutex_lock(&m->lock);
	while (!m->stopping) {
		struct timespec until;

		for (size_t i = 0; i < m->n && !m->stopping; i++)
			look(m, &m->v[i]);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += WATCH_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (!m->stopping)
			pthread_cond_clockwait(&m->wake, &m->lock, CLOCK_MONOTONIC, &until);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

/* ---- public ---- */

static char **strv_copy(char *const *v)
{
	char **out = NULL;

	for (; v && *v; v++)
		out = strv_add(out, *v);
	return out;
}

int mounts_new(const struct mounts_options *o, struct mounts **ret, struct err *e)
{
	struct mounts *m;
	int r = dir_make(o->dir, 0700, e);

	if (r < 0)
		return r;
	m = xcalloc(1, sizeof(*m));
	m->dir = xstrdup(o->dir);
	m->command = o->command ? strv_split(o->command, ' ', false) : NULL;
	m->store = o->store ? xstrdup(o->store) : NULL;
	m->options = strv_copy(o->options);
	m->timeout_ms = o->timeout_ms;
	m->again = o->again;
	m->ctx = o->ctx;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->wake, NULL);
	if (pthread_create(&m->watcher, NULL, run_watcher, m) != 0) {
		free(m);
		return err_set(e, -EAGAIN, "cannot start a thread");
	}
	*ret = m;
	return 0;
}

struct mounts *mounts_free(struct mounts *m)
{
	if (!m)
		return NULL;
	pthread_mutex_lock(&m->lock);
	m->stopping = true;
	pthread_cond_broadcast(&m->wake);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->watcher, NULL);
	for (size_t i = 0; i < m->n; i++) {
		free(m->v[i].name);
		free(m->v[i].dir);
		free(m->v[i].log);
		if (m->v[i].probe)
			probe_leave(m->v[i].probe);
	}
	pthread_mutex_destroy(&m->lock);
	pthread_cond_destroy(&m->wake);
	strv_free(m->command);
	strv_free(m->options);
	free(m->store);
	free(m->dir);
	free(m);
	return NULL;
}

/* The volume's entry, new or not; NULL when there are too many. */
static struct volume *find(struct mounts *m, const char *name)
{
	struct volume *v;

	for (size_t i = 0; i < m->n; i++)
		if (streq(m->v[i].name, name))
			return &m->v[i];
	if (m->n == VOLUMES_MAX)
		return NULL;
	v = &m->v[m->n++];
	*v = (struct volume){.name = xstrdup(name),
			     .dir = xasprintf("%s/%s", m->dir, name),
			     .log = xasprintf("%s/%s.log", m->dir, name)};
	return v;
}

char *mounts_path(const struct mounts *m, const char *volume)
{
	return xasprintf("%s/%s", m->dir, volume);
}

int mounts_get(struct mounts *m, const char *volume, char **ret, struct err *e)
{
	struct volume *v;
	int r = 0;

	if (!mounts_name_ok(volume))
		return err_set(e, -EINVAL, "'%s' is no name of a volume", volume ? volume : "");
	pthread_mutex_lock(&m->lock);
	v = find(m, volume);
	if (v && v->state == STATE_NEW && mount_is_point(v->dir))
		v->state = STATE_MOUNTED; /* of a process before us */
	while (v && v->state == STATE_STARTING)
		pthread_cond_wait(&m->wake, &m->lock); /* ends by timeout_ms */
	if (!v)
		r = err_set(e, -ENOSPC, "more than %d volumes", VOLUMES_MAX);
	else if (v->state != STATE_MOUNTED)
		r = start_locked(m, v, e);
	if (r == 0)
		*ret = xstrdup(v->dir);
	pthread_mutex_unlock(&m->lock);
	return r;
}
