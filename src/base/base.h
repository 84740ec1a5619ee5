/* SPDX-License-Identifier: Apache-2.0 */
/* base: what every room may use. Errors, logging, memory clean-up, buffers, strings, maps, files, time, JSON paths,
 * settings tables. Nothing here knows about Kubernetes, networks or the product. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/settings.h"
#include "base/str.h"
#include "base/strmap.h"
#include "base/util.h"
