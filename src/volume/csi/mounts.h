/* SPDX-License-Identifier: Apache-2.0 */
/* mounts: every kuayu volume that the CSI driver or the Docker plugin needs, mounted once a node at DIR/VOLUME by a mount command
 * that is watched and started again. Any thread. */
#pragma once

#include "base/base.h"

struct mounts;

struct mounts_options {
	const char *dir;      /* the mounts lie in here; made */
	const char *command;  /* words separated by blanks; NULL = "kuayu mount" of this executable */
	const char *store;    /* handed on; NULL = none */
	char *const *options; /* further words for the command; may be NULL */
	int64_t timeout_ms;   /* until a mount must be there */
	/* A volume was mounted anew after its mount had died: what was bound from it has to be bound again. */
	void (*again)(void *ctx, const char *volume);
	void *ctx;
};

int mounts_new(const struct mounts_options *o, struct mounts **ret, struct err *e);
/* Stops watching; the mounts stay, because pods use them. Accepts NULL, returns NULL. */
struct mounts *mounts_free(struct mounts *m);
/* Mounts the volume if it is not; *ret is its path (malloc'ed). -EINVAL: no name of a volume; -ETIMEDOUT; -EIO: the command ended. */
int mounts_get(struct mounts *m, const char *volume, char **ret, struct err *e);
/* Where the volume is or would be mounted; malloc'ed. */
char *mounts_path(const struct mounts *m, const char *volume);
bool mounts_name_ok(const char *volume);

/* ---- helpers on mount points ---- */
/* Unmounts all that lies on path, dead or not; the folder stays. 0 when nothing was there. */
int mount_remove(const char *path, struct err *e);
/* path -> source, read-only if wanted; path is made. On top of what is there. */
int mount_bind(const char *source, const char *path, bool read_only, struct err *e);
/* Both name the same folder of the same file system; -ENOTCONN when path leads to a dead mount, other -errno. 1 = yes. */
int mount_same(const char *source, const char *path);
