/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups of a machine. Hosts differ: cgroup v1 (one tree a controller), hybrid (v1 and an empty v2 tree at
 * .../unified) or v2 only. A machine gets one group in each tree; its cgroup namespace starts there, so it sees itself as
 * the root and its paths are the same as on a real machine. */
#include <dirent.h>
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "lab/domain.h"

#define CGROUP_ROOT   "/sys/fs/cgroup"
#define TREES_MAX     24
#define CPU_PERIOD_US 20000

struct tree {
	char dir[256];
	char options[128]; /* v1: controllers, or name=systemd */
	bool v2;
};

static bool is_controllers_option(const char *o)
{
	static const char *const generic[] = {"rw",    "ro",	 "relatime", "noatime",	      "nosuid",
					      "nodev", "noexec", "xattr",    "clone_children"};

	for (size_t i = 0; i < ARRAY_SIZE(generic); i++)
		if (streq(o, generic[i]))
			return false;
	return !str_starts(o, "release_agent") && !str_starts(o, "nsdelegate");
}

/* The trees mounted below /sys/fs/cgroup, without a hybrid host's v2 tree. */
static size_t trees_list(struct tree out[TREES_MAX])
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	size_t n = 0;

	while (f && n < TREES_MAX && (m = getmntent(f))) {
		_cleanup_strv_ char **options = NULL;
		bool v2 = streq(m->mnt_type, "cgroup2");
		if (!str_starts(m->mnt_dir, CGROUP_ROOT) || (!v2 && !streq(m->mnt_type, "cgroup")) ||
		    (v2 && !streq(m->mnt_dir, CGROUP_ROOT)))
			continue;
		out[n] = (struct tree){.v2 = v2};
		snprintf(out[n].dir, sizeof out[n].dir, "%s", m->mnt_dir);
		options = strv_split(m->mnt_opts, ',', false);
		for (char **o = options; o && *o; o++) {
			size_t len = strlen(out[n].options);
			if (is_controllers_option(*o))
				snprintf(out[n].options + len, sizeof out[n].options - len, "%s%s",
					 len ? "," : "", *o);
		}
		n++;
	}
	if (f)
		endmntent(f);
	return n;
}

static bool has_option(const char *options, const char *which)
{
	_cleanup_strv_ char **list = strv_split(options, ',', false);

	return strv_has(list, which);
}

static void write_text(const char *dir, const char *file, const char *text)
{
	char path[700];
	_cleanup_close_ int fd = -1;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		log_debug("%s: %s", path, strerror(errno));
}

static void copy_parent(const char *dir, const char *file)
{
	char path[700];
	_cleanup_free_ char *text = NULL;
	size_t len;

	snprintf(path, sizeof path, "%s/../%s", dir, file);
	if (file_read(path, 4096, &text, &len, NULL) == 0)
		write_text(dir, file, text);
}

/* All machines together get most of the CPU when the host is busy with something else: in life they have CPUs of their own. (A
 * group counts as one process by default, however many are in it.) */
static void favour(const char *dir, const struct tree *t)
{
	write_text(dir, t->v2 ? "cpu.weight" : "cpu.shares", t->v2 ? "10000" : "102400");
}

/* Short periods: a machine that uses up its share stands still for milliseconds, not longer than a busy machine lets anybody wait. What it left unused
 * in one period it has in the next (burst, Linux 5.14): its share is that of some periods. Without it, machines that used less than two thirds of their
 * share stood still in a quarter of all periods, since several of their programs are woken at once. */
static void limit(const char *dir, const struct tree *t, int64_t cpu_millis)
{
	char quota[32], max[64];

	snprintf(quota, sizeof quota, "%lld", (long long)(CPU_PERIOD_US * cpu_millis / 1000));
	if (t->v2) {
		snprintf(max, sizeof max, "%s %d", quota, CPU_PERIOD_US);
		write_text(dir, "cpu.max", max);
		write_text(dir, "cpu.max.burst", quota);
		return;
	}
	snprintf(max, sizeof max, "%d", CPU_PERIOD_US);
	write_text(dir, "cpu.cfs_period_us", max);
	write_text(dir, "cpu.cfs_quota_us", quota);
	write_text(dir, "cpu.cfs_burst_us", quota);
}

int cgroup_make(const char *path, int64_t cpu_millis, struct err *e)
{
	struct tree tree[TREES_MAX];
	size_t n = trees_list(tree);

	for (size_t i = 0; i < n; i++) {
		_cleanup_strv_ char **part = strv_split(path, '/', false);
		char dir[512];
		snprintf(dir, sizeof dir, "%.255s", tree[i].dir);
		for (char **p = part; p && *p; p++) {
			size_t len = strlen(dir);
			if (tree[i].v2)
				write_text(dir, "cgroup.subtree_control", "+cpu +memory +pids +cpuset");
			snprintf(dir + len, sizeof dir - len, "/%s", *p);
			if (mkdir(dir, 0755) < 0 && errno != EEXIST)
				return err_errno(e, -errno, "make control group %s", dir);
			if (p == part)
				favour(dir, &tree[i]);
			if (!tree[i].v2 && strstr(tree[i].options, "cpuset")) {
				copy_parent(dir, "cpuset.cpus");
				copy_parent(dir, "cpuset.mems");
			}
		}
		if (cpu_millis && (tree[i].v2 || has_option(tree[i].options, "cpu")))
			limit(dir, &tree[i], cpu_millis);
	}
	return 0;
}

int cgroup_enter(const char *path, struct err *e)
{
	struct tree tree[TREES_MAX];
	size_t n = trees_list(tree);

	for (size_t i = 0; i < n; i++) {
		char file[600];
		_cleanup_close_ int fd = -1;
		snprintf(file, sizeof file, "%.255s%s/cgroup.procs", tree[i].dir, path);
		fd = open(file, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) < 0)
			return err_errno(e, -errno, "enter %s", file);
	}
	return 0;
}

static void kill_members(const char *dir)
{
	char path[4096 + 16];
	_cleanup_free_ char *text = NULL;
	size_t len;

	snprintf(path, sizeof path, "%s/cgroup.procs", dir);
	if (file_read(path, 1 << 20, &text, &len, NULL) < 0)
		return;
	for (char *save = NULL, *p = strtok_r(text, "\n", &save); p; p = strtok_r(NULL, "\n", &save)) {
		int64_t pid;
		if (str_i64(p, &pid) == 0 && pid > 1)
			kill((pid_t)pid, SIGKILL);
	}
}

/* Depth first; true when dir is gone. Bound: the kernel's own depth of groups. */
static bool tree_remove(const char *dir, int depth)
{
	DIR *d = opendir(dir);
	struct dirent *entry;

	if (!d)
		return errno == ENOENT;
	while (depth < 32 && (entry = readdir(d))) {
		char sub[4096];
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		if (snprintf(sub, sizeof sub, "%s/%s", dir, entry->d_name) < (int)sizeof sub)
			tree_remove(sub, depth + 1);
	}
	closedir(d);
	kill_members(dir);
	return rmdir(dir) == 0 || errno == ENOENT;
}

int cgroup_remove(const char *path, struct err *e)
{
	struct tree tree[TREES_MAX];
	size_t n = trees_list(tree);

	for (size_t i = 0; i < n; i++) {
		char dir[512];
		bool gone = false;
		snprintf(dir, sizeof dir, "%.255s%s", tree[i].dir, path);
		for (int attempt = 0; attempt < 250 && !gone; attempt++) { /* 5 s */
			gone = tree_remove(dir, 0);
			if (!gone)
				usleep(20000);
		}
		if (!gone)
			return err_set(e, -EBUSY, "control group %s does not go away", dir);
	}
	return 0;
}

int cgroup_mount(struct err *e)
{
	struct tree tree[TREES_MAX];
	size_t n = trees_list(tree);

	/* The host's /sys goes with all that is mounted in it: it shows the host's interfaces and trees. */
	umount2("/sys", MNT_DETACH);
	if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return err_errno(e, -errno, "mount /sys");
	if (n == 1 && tree[0].v2) {
		/* v2 forbids processes beside groups: process 1 goes into a leaf of its own. */
		if (mount("cgroup2", CGROUP_ROOT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
			return err_errno(e, -errno, "mount %s", CGROUP_ROOT);
		if (mkdir(CGROUP_ROOT "/init", 0755) < 0 && errno != EEXIST)
			return err_errno(e, -errno, "make %s/init", CGROUP_ROOT);
		write_text(CGROUP_ROOT "/init", "cgroup.procs", "0");
		write_text(CGROUP_ROOT, "cgroup.subtree_control", "+cpu +memory +pids +cpuset +io");
		return 0;
	}
	if (mount("tmpfs", CGROUP_ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=1m") < 0)
		return err_errno(e, -errno, "mount %s", CGROUP_ROOT);
	for (size_t i = 0; i < n; i++) {
		if (tree[i].v2)
			continue;
		if (mkdir(tree[i].dir, 0755) < 0 && errno != EEXIST)
			return err_errno(e, -errno, "make %s", tree[i].dir);
		if (mount("cgroup", tree[i].dir, "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC,
			  tree[i].options) < 0)
			return err_errno(e, -errno, "mount %s (%s)", tree[i].dir, tree[i].options);
	}
	return 0;
}
