/* SPDX-License-Identifier: Apache-2.0 */
/* Small state files. Any thread. */
#include "node/small.h"

#include <fcntl.h>

int small_write(const char *path, const char *text, mode_t mode)
{
	_cleanup_free_ char *tmp = xasprintf("%s.tmp", path);
	_cleanup_close_ int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	size_t len = strlen(text);
	ssize_t n = fd < 0 ? -1 : write(fd, text, len);
	int r = n == (ssize_t)len && rename(tmp, path) == 0 ? 0
		: n >= 0 && n < (ssize_t)len		    ? -ENOSPC
							    : -errno;

	if (r < 0)
		log_error("%s: %s", path, strerror(-r));
	return r;
}
