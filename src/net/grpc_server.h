/* SPDX-License-Identifier: Apache-2.0 */
/* What the server and its health service share. */
#pragma once

#include <pthread.h>

#include "net/grpc.h"

#define HEALTH_SERVICES_MAX 64
#define HEALTH_WATCHES_MAX  256

/* Which services serve, and the streams that want to hear of changes. */
struct rpc_health {
	pthread_mutex_t lock;
	struct health_service {
		char *name;
		bool serving;
	} services[HEALTH_SERVICES_MAX];
	size_t n;
	struct health_watch *watches;
	size_t n_watches;
};

void rpc_health_init(struct rpc_health *h);
void rpc_health_done(struct rpc_health *h);
void rpc_health_set(struct rpc_health *h, const char *service, bool serving);
/* Check and Watch. */
int rpc_health_unary(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e);
void rpc_health_watch(void *ctx, struct rpc_out *out, const void *request, size_t len);
