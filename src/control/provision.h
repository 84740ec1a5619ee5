/* SPDX-License-Identifier: Apache-2.0 */
/* provision: the CSI drivers that make volumes, and what the manager has them do. Loop thread. */
#pragma once

#include "control/manager.h"
#include "csi/csi.h"

struct provision;

/* endpoints: "unix:///..." of drivers with a controller service; NULL = none. */
int provision_new(struct manager *m, char *const *endpoints, struct provision **ret, struct err *e);
struct provision *provision_free(struct provision *p); /* accepts NULL */

typedef void (*provision_done_fn)(void *ctx, bool ok);
/* One of ACTION_CSI_*; done comes once, maybe at once. */
void provision_carry_out(struct manager *m, const struct action *a, provision_done_fn done, void *ctx);
