/* SPDX-License-Identifier: Apache-2.0 */
/* A real etcd cluster of three on loopback, with TLS everywhere, in a folder that goes with it. Members die with the test. */
#pragma once

#include "test.h"

#define CLUSTER_MEMBERS 3

struct cluster {
	char dir[64];
	int client_port[CLUSTER_MEMBERS], peer_port[CLUSTER_MEMBERS];
	pid_t pid[CLUSTER_MEMBERS]; /* 0 = not running */
	char *ca, *cert, *key;	    /* the client's files */
};

/* Moves this process into a network namespace of its own, for cluster_power; before any thread. */
void cluster_isolate(void);
/* false and a message when it cannot be started. */
bool cluster_start(struct cluster *c);
void cluster_stop(struct cluster *c);
/* "etcd:https://...", beginning with member first. Caller frees. */
char *cluster_uri(const struct cluster *c, int first);
void cluster_kill(struct cluster *c, int member); /* SIGKILL, and waits */
void cluster_restart(struct cluster *c, int member);
void cluster_freeze(struct cluster *c, int member, bool frozen); /* SIGSTOP: connected, but silent */
/* Power off: the member is frozen, and no packet passes to or from it, so there is no reset either. false: not possible here
 * (not root); nothing was done. */
bool cluster_power(struct cluster *c, int member, bool on);
/* The leader's index; -1 = there is none. */
int cluster_leader(struct cluster *c);
