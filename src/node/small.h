/* SPDX-License-Identifier: Apache-2.0 */
/* Small state files: replaced whole, but not forced to disk. */
#pragma once

#include "base/base.h"

/* Old or new content for every reader. No fsync: it may take seconds on a busy disk, and the loop thread must not wait; what is lost in
 * a power cut describes processes that are gone too. 0 or -errno, logged. */
int small_write(const char *path, const char *text, mode_t mode);
