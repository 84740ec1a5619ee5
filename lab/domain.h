/* SPDX-License-Identifier: Apache-2.0 */
/* lab-domain: a machine of the lab. domain.c is the power supply outside, domain_mount.c builds the machine's view of the
 * file system, domain_init.c is its process 1, domain_cgroup.c its control groups. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/base.h"

#define DOMAIN_CONTROL "/run/lab-init.sock" /* inside the machine */

struct domain_options {
	char *name;	 /* host name */
	char *units;	 /* unit file, a path of the host */
	char *disk;	 /* image of an ext4 file system; NULL = no disk */
	char *disk_at;	 /* where the disk is mounted, inside the machine only */
	char **disk_dir; /* folders that live on the disk */
	char **bind;	 /* SRC:DST */
	char **tmpfs;	 /* folders that are empty at each start */
	char **keep;	 /* folders that stay visible where they are, whatever is mounted over them */
	char *cgroup;	 /* "/kuayu-lab/b" */
	int64_t cpu_millis;
};

/* Control groups, in every mounted v1 hierarchy (or the one v2). Called outside. cpu_millis: thousandths of a processor; 0 = no limit. */
int cgroup_make(const char *path, int64_t cpu_millis, struct err *e);
/* Moves the caller into it. */
int cgroup_enter(const char *path, struct err *e);
/* Kills what is in it (bounded wait) and removes it with all below. */
int cgroup_remove(const char *path, struct err *e);
/* In the machine, after its cgroup and mount namespaces were unshared: /sys/fs/cgroup as the machine sees it. On a hybrid
 * host the v2 tree is left out, because crun refuses to run with both. */
int cgroup_mount(struct err *e);

/* The machine's mounts; in its mount namespace, PID namespace and network namespace. */
int domain_mount(const struct domain_options *o, struct err *e);
/* Cuts the disk off as a power cut does: what was not flushed is lost. Called outside with the PID of process 1. */
void domain_disk_cut(const struct domain_options *o, pid_t init);

/* Process 1: runs the units until SIGTERM; returns the exit status. */
int domain_init(const struct domain_options *o);
