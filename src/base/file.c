/* SPDX-License-Identifier: Apache-2.0 */
/* Whole-file reads with a limit, atomic durable writes, mkdir -p, rm -rf. */
#include "base/base.h"

#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <sys/stat.h>

int file_read(const char *path, size_t limit, char **ret, size_t *ret_len, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_buf_ struct buf b = {.limit = limit + 1};
	char chunk[16384];

	if (fd < 0)
		return err_errno(e, -errno, "cannot open %s", path);
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, -errno, "cannot read %s", path);
		if (!n)
			break;
		if (b.len + (size_t)n > limit || buf_add(&b, chunk, (size_t)n) < 0)
			return err_set(e, -EFBIG, "%s is larger than %zu bytes", path, limit);
	}
	if (ret_len)
		*ret_len = b.len;
	*ret = buf_take(&b);
	return 0;
}

static int write_all(int fd, const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_parent(const char *path)
{
	_cleanup_free_ char *copy = xstrdup(path);
	_cleanup_close_ int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct err *e)
{
	_cleanup_free_ char *tmp = xasprintf("%s.tmp%d", path, (int)getpid());
	_cleanup_close_ int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	int r;

	if (fd < 0)
		return err_errno(e, -errno, "cannot create %s", tmp);
	r = write_all(fd, data, len);
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(tmp, path) < 0))
		r = -errno;
	if (r == 0)
		r = sync_parent(path);
	if (r < 0) {
		unlink(tmp);
		return err_errno(e, r, "cannot write %s", path);
	}
	return 0;
}

int dir_make(const char *path, mode_t mode, struct err *e)
{
	char p[PATH_MAX];

	if (strlen(path) >= sizeof(p))
		return err_set(e, -ENAMETOOLONG, "path too long: %.80s...", path);
	strcpy(p, path);
	for (char *s = p + 1; *p; s++) {
		char c = *s;

		if (c && c != '/')
			continue;
		*s = 0;
		if (mkdir(p, mode) < 0 && errno != EEXIST)
			return err_errno(e, -errno, "cannot make folder %s", p);
		*s = c;
		if (!c)
			break;
	}
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

int dir_remove(const char *path, struct err *e)
{
	if (nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0 && errno != ENOENT)
		return err_errno(e, -errno, "cannot remove %s", path);
	return 0;
}
