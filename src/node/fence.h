/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing: a node that could not renew its lease stops its singleton pods itself, before others start them. */
#pragma once

#include "base/base.h"

/* Shared memory of the agent (writer) and the monitors of singleton containers (readers), file DATA/run/fence. Fields
 * are written with single 8-byte stores. */
struct fence_page {
	uint64_t magic;
	uint64_t
		last_sent_ms; /* monotonic clock at the sending of the last renewal that succeeded; 0 = none yet */
};
#define FENCE_MAGIC    0x6b75617975666e31ULL
#define FENCE_AFTER_MS 3000 /* controllers replace singletons at 4,500 ms or later */

enum fence_verdict {
	FENCE_RUN,  /* singleton containers may run and be started */
	FENCE_KILL, /* kill them now; start none */
};

/* The decision, pure. *ret_wait_ms (may be NULL): how long it holds if nothing is heard, for FENCE_RUN. A clock that seems to
 * run backwards counts as no renewal. */
enum fence_verdict fence_decide(uint64_t now_ms, uint64_t last_sent_ms, uint64_t *ret_wait_ms);

/* true for pods that must never run twice and do not stay bound to their node: owned by a StatefulSet or annotated
 * kuayu.io/singleton=true, unless they tolerate node.kubernetes.io/unreachable:NoExecute for ever. */
bool fence_pod_is_singleton(const json_t *pod);

/* Maps the page; create = agent. NULL and a text on errors. */
struct fence_page *fence_map(const char *path, bool create, struct err *e);
void fence_renewed(struct fence_page *p, uint64_t sent_ms);
uint64_t fence_last(const struct fence_page *p);
