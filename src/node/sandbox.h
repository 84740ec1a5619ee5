/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes: network, host-name and IPC namespaces of a pod, made in advance, held by bind mounts instead of a process. */
#pragma once

#include "io/io.h"

struct sandboxes;

struct sandbox {
	char *name; /* folder DIR/NAME holding net, uts, ipc, ip */
	char *ip;
	char *ns_net, *ns_uts, *ns_ipc; /* paths */
};

struct sandboxes_options {
	const char *dir;
	const char *bridge; /* "kuayu0" */
	int ready;	    /* how many wait prepared; 0 = 4 */
	int mtu;	    /* 0 = 1500 */
};

typedef void (*sandbox_done_fn)(void *ctx, struct sandbox *sb, const char *text);

struct sandboxes *sandboxes_new(uv_loop_t *loop, const struct sandboxes_options *o);
/* Takes over a sandbox that a pod had before the agent was restarted; NULL when it does not exist any more. Before _start. */
struct sandbox *sandboxes_adopt(struct sandboxes *s, const char *name);
/* The pod network, "10.78.1.0/24": makes the bridge with .1 and begins to fill the pool. Leftover sandboxes that nobody adopted are
 * used again if they fit, else removed. Calling it again does nothing. */
int sandboxes_start(struct sandboxes *s, const char *cidr, struct err *e);
bool sandboxes_started(const struct sandboxes *s);
/* done is called once, from inside when one is ready, else later; sb NULL = failed, text says why. */
void sandbox_take(struct sandboxes *s, sandbox_done_fn done, void *ctx);
void sandbox_cancel(struct sandboxes *s, void *ctx);
/* Removes it; accepts NULL. Its processes must have ended. */
void sandbox_release(struct sandboxes *s, struct sandbox *sb);
/* How many are ready now. */
int sandboxes_ready(const struct sandboxes *s);
/* "10.78.1.0/24" -> network address in host order and prefix length. */
int cidr_parse(const char *text, uint32_t *ret_net, int *ret_bits);
