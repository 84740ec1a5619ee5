/* SPDX-License-Identifier: Apache-2.0 */
/* A real etcd cluster of three with TLS everywhere, in a folder that goes with it. As root each member has a network namespace of
 * its own, routed through the test's, so that members can be cut off and powered off; else all are on loopback. Members
 * die with the test. */
#pragma once

#include "test.h"

#define CLUSTER_MEMBERS 3

struct cluster {
	char dir[64];
	bool apart; /* namespaces of their own */
	char address[CLUSTER_MEMBERS][16];
	int client_port[CLUSTER_MEMBERS], peer_port[CLUSTER_MEMBERS];
	pid_t pid[CLUSTER_MEMBERS];    /* 0 = not running */
	pid_t holder[CLUSTER_MEMBERS]; /* keeps the member's namespace */
	char *ca, *cert, *key;	       /* the client's files */
};

/* Moves this process into a network namespace of its own where that is allowed; before any thread. false and a message when
 * the cluster cannot be started. */
bool cluster_start(struct cluster *c);
void cluster_stop(struct cluster *c);
/* "etcd:https://...", beginning with member first. Caller frees. */
char *cluster_uri(const struct cluster *c, int first);
void cluster_kill(struct cluster *c, int member); /* SIGKILL, and waits */
void cluster_restart(struct cluster *c, int member);
void cluster_lose(struct cluster *c, int member);		 /* its data, while it does not run */
void cluster_freeze(struct cluster *c, int member, bool frozen); /* SIGSTOP: connected, but silent */
/* Power off: the member is frozen, and no packet passes to or from it, so there is no reset either. */
void cluster_power(struct cluster *c, int member, bool on);
/* Cut off from the other members, not from clients. */
void cluster_cut(struct cluster *c, int member, bool cut);
/* The leader's index; -1 = there is none. */
int cluster_leader(struct cluster *c);
