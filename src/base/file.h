/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files and folders. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct err;

/* Reads at most limit bytes; *ret is malloc'ed and zero-terminated. -EFBIG when longer. */
int file_read(const char *path, size_t limit, char **ret, size_t *ret_len, struct err *e);
/* Writes a temporary file beside it, fsyncs, renames over path and fsyncs the folder: old or new, never half. */
int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct err *e);
/* mkdir -p; 0 if it is there already. */
int dir_make(const char *path, mode_t mode, struct err *e);
/* Is something mounted at this absolute path? Does not touch the file system behind it. */
bool mount_is_point(const char *path);
/* rm -rf without crossing file systems or following links; 0 if it is not there. */
int dir_remove(const char *path, struct err *e);
