/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of Docker's volume plugins on a catalog: {JSON in} -> {JSON out}. They may wait for the volume: worker threads only. */
#pragma once

#include "volume/csi/catalog.h"
#include "volume/csi/mounts.h"

#define PLUGIN_BASE ".kuayu-docker"

struct plugin {
	const char *volume; /* the kuayu volume that holds Docker's */
	struct mounts *mounts;
};

/* path: "/VolumeDriver.Create". body: the request, not NULL. *ret is the answer (new): its member Err is "" when all went well.
 * Returns the HTTP status: 200, 404 (no such call), 500 (Err says why). */
int plugin_call(struct plugin *p, const char *path, const json_t *body, json_t **ret);
