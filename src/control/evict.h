/* SPDX-License-Identifier: Apache-2.0 */
/* evict: what follows from the verdict on a node. */
#pragma once

#include "control/reconcile.h"
#include "core/route/verdict.h"

#define REASON_SILENT "NodeStatusUnknown"

struct node_view {
	enum verdict verdict;
	bool known;  /* a verdict has been passed (and confirmed when it is dead or cut-off) */
	bool fenced; /* its singletons have stopped; confirmed */
};

void node_reconcile(const struct world *w, const char *name, const struct node_view *v, struct plan *p);
