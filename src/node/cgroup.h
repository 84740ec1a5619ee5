/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups, version 1, hybrid and 2. `path` is the group's path below each controller: "/kuayu/podUID/name". */
#pragma once

#include "base/base.h"

bool cgroup_is_v2(void);
/* Removes the group in every hierarchy (it and the groups below must hold no process); what is not there is fine. */
void cgroup_remove(const char *path);
/* Removes it where it is empty of groups and processes. */
void cgroup_remove_empty(const char *path);
/* SIGKILL to every process in it (twice: a fork may slip through once). */
void cgroup_kill(const char *path);
/* How many processes the kernel killed in it for lack of memory; 0 when not known. */
int64_t cgroup_oom_kills(const char *path);

struct cgroup_stats {
	uint64_t cpu_ns;	 /* used since its start */
	uint64_t memory;	 /* bytes in use */
	uint64_t memory_working; /* without inactive file pages: what Kubernetes calls the working set */
	uint64_t memory_rss;
	uint64_t memory_limit; /* 0 = none */
	uint64_t pids;
	uint64_t throttled_ns;
};

/* -ENOENT when there is no such group. path "" = the whole machine as far as cgroups know it. */
int cgroup_read(const char *path, struct cgroup_stats *ret);
/* Relative CPU weight of a pod against others: 2..262144 (version 1's cpu.shares). */
void cgroup_set_shares(const char *path, int64_t shares);
