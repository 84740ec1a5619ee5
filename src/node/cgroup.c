/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups: reading usage, removing, killing. Limits of containers are set by crun from its config.json.
 * Any thread; no state. Files that are missing (another version, a controller not mounted) count as zero. */
#include "node/cgroup.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define CGROUP_ROOT   "/sys/fs/cgroup"
#define CGROUP2_MAGIC 0x63677270
#define DEPTH_MAX     8

bool cgroup_is_v2(void)
{
	struct statfs fs;

	return statfs(CGROUP_ROOT, &fs) == 0 && fs.f_type == CGROUP2_MAGIC;
}

static void remove_tree(const char *dir, int depth)
{
	DIR *d = depth < DEPTH_MAX ? opendir(dir) : NULL;
	struct dirent *de;

	if (!d)
		return;
	while ((de = readdir(d))) {
		_cleanup_free_ char *sub = NULL;

		if (de->d_type != DT_DIR || streq(de->d_name, ".") || streq(de->d_name, ".."))
			continue;
		sub = xasprintf("%s/%s", dir, de->d_name);
		remove_tree(sub, depth + 1);
	}
	closedir(d);
	(void)rmdir(dir);
}

/* Calls fn for the group's folder in each hierarchy. */
static void each_hierarchy(const char *path, void (*fn)(const char *dir, int arg), int arg)
{
	struct dirent *de;
	DIR *d;

	if (!*path || strstr(path, ".."))
		return;
	if (cgroup_is_v2()) {
		_cleanup_free_ char *dir = xasprintf(CGROUP_ROOT "%s", path);

		fn(dir, arg);
		return;
	}
	d = opendir(CGROUP_ROOT);
	if (!d)
		return;
	while ((de = readdir(d))) {
		_cleanup_free_ char *dir = NULL;

		if (de->d_type != DT_DIR || de->d_name[0] == '.')
			continue;
		dir = xasprintf(CGROUP_ROOT "/%s%s", de->d_name, path);
		fn(dir, arg);
	}
	closedir(d);
}

void cgroup_remove(const char *path)
{
	each_hierarchy(path, remove_tree, 0);
}

static void remove_one(const char *dir, int unused)
{
	(void)unused;
	(void)rmdir(dir);
}

void cgroup_remove_empty(const char *path)
{
	each_hierarchy(path, remove_one, 0);
}

static void kill_tree(const char *dir, int depth)
{
	_cleanup_free_ char *procs = xasprintf("%s/cgroup.procs", dir);
	DIR *d = depth < DEPTH_MAX ? opendir(dir) : NULL;
	FILE *f = fopen(procs, "re");
	struct dirent *de;
	int pid;

	while (f && fscanf(f, "%d", &pid) == 1)
		if (pid > 1)
			kill(pid, SIGKILL);
	if (f)
		fclose(f);
	while (d && (de = readdir(d))) {
		_cleanup_free_ char *sub = NULL;

		if (de->d_type != DT_DIR || de->d_name[0] == '.')
			continue;
		sub = xasprintf("%s/%s", dir, de->d_name);
		kill_tree(sub, depth + 1);
	}
	if (d)
		closedir(d);
}

void cgroup_kill(const char *path)
{
	each_hierarchy(path, kill_tree, 0);
	each_hierarchy(path, kill_tree, 0);
}

static char *read_text(const char *controller, const char *path, const char *file)
{
	_cleanup_free_ char *name = cgroup_is_v2()
					    ? xasprintf(CGROUP_ROOT "%s/%s", path, file)
					    : xasprintf(CGROUP_ROOT "/%s%s/%s", controller, path, file);
	char *text = NULL;
	size_t len;

	return file_read(name, 65536, &text, &len, NULL) < 0 ? NULL : text;
}

static uint64_t read_number(const char *controller, const char *path, const char *file)
{
	_cleanup_free_ char *text = read_text(controller, path, file);

	return text ? strtoull(text, NULL, 10) : 0;
}

/* "name value" lines. */
static uint64_t read_field(const char *controller, const char *path, const char *file, const char *name)
{
	_cleanup_free_ char *text = read_text(controller, path, file);
	size_t n = strlen(name);

	for (char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (strncmp(p, name, n) == 0 && p[n] == ' ')
			return strtoull(p + n + 1, NULL, 10);
	return 0;
}

int64_t cgroup_oom_kills(const char *path)
{
	return (int64_t)(cgroup_is_v2() ? read_field("", path, "memory.events", "oom_kill")
					: read_field("memory", path, "memory.oom_control", "oom_kill"));
}

static void read_v1(const char *path, struct cgroup_stats *s)
{
	uint64_t inactive = read_field("memory", path, "memory.stat", "total_inactive_file");

	s->cpu_ns = read_number("cpuacct", path, "cpuacct.usage");
	s->memory = read_number("memory", path, "memory.usage_in_bytes");
	s->memory_working = s->memory > inactive ? s->memory - inactive : 0;
	s->memory_rss = read_field("memory", path, "memory.stat", "total_rss");
	s->memory_limit = read_number("memory", path, "memory.limit_in_bytes");
	if (s->memory_limit >= (uint64_t)1 << 62)
		s->memory_limit = 0;
	s->pids = read_number("pids", path, "pids.current");
	s->throttled_ns = read_field("cpu", path, "cpu.stat", "throttled_time");
}

static void read_v2(const char *path, struct cgroup_stats *s)
{
	uint64_t inactive = read_field("", path, "memory.stat", "inactive_file");

	s->cpu_ns = read_field("", path, "cpu.stat", "usage_usec") * 1000;
	s->memory = read_number("", path, "memory.current");
	s->memory_working = s->memory > inactive ? s->memory - inactive : 0;
	s->memory_rss = read_field("", path, "memory.stat", "anon");
	s->memory_limit = read_number("", path, "memory.max"); /* "max" -> 0 */
	s->pids = read_number("", path, "pids.current");
	s->throttled_ns = read_field("", path, "cpu.stat", "throttled_usec") * 1000;
}

int cgroup_read(const char *path, struct cgroup_stats *ret)
{
	bool v2 = cgroup_is_v2();
	_cleanup_free_ char *dir = xasprintf(CGROUP_ROOT "%s%s", v2 ? "" : "/memory", path);

	*ret = (struct cgroup_stats){0};
	if (access(dir, F_OK) < 0)
		return -errno;
	if (v2)
		read_v2(path, ret);
	else
		read_v1(path, ret);
	return 0;
}

void cgroup_set_shares(const char *path, int64_t shares)
{
	int64_t weight = 1 + (shares - 2) * 9999 / 262142; /* as crun and systemd convert */
	_cleanup_free_ char *name = cgroup_is_v2() ? xasprintf(CGROUP_ROOT "%s/cpu.weight", path)
						   : xasprintf(CGROUP_ROOT "/cpu%s/cpu.shares", path);
	FILE *f = fopen(name, "we");

	if (!f)
		return;
	fprintf(f, "%lld\n", (long long)(cgroup_is_v2() ? MAX(weight, 1) : shares));
	fclose(f);
}
