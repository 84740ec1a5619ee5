/* SPDX-License-Identifier: Apache-2.0 */
/* The CSI driver's parts. Handlers run on the gRPC server's threads. */
#pragma once

#include <pthread.h>

#include "csi.pb-c.h"
#include "net/grpc.h"
#include "volume/csi/catalog.h"
#include "volume/csi/mounts.h"

#define DRIVER_BASE	 ".kuayu-csi"
#define DRIVER_ID_MAX	 256
#define DRIVER_TEXT_MAX	 4096 /* paths from outside */
#define DRIVER_BUSY_MAX	 256  /* volumes that are worked on at once */
#define DRIVER_BOUND_MAX 10000

/* What is staged or published: kept in a file, so that it can be bound again after a mount died. */
struct bound {
	char *id, *source; /* below the mount: "volumes/KEY" of the catalog, or a folder of the volume */
	char *target;
	bool read_only;
};

struct driver {
	const char *name, *node_id, *volume; /* volume: where a class names none; NULL */
	char *bound_file;
	bool inline_volumes;
	struct mounts *mounts;
	struct rpc_server *server;
	pthread_mutex_t lock;
	char *busy[DRIVER_BUSY_MAX];
	struct bound *bound;
	size_t n_bound;
	bool stopping;
};

/* ---- methods.c ---- */
/* A unary handler's answer; returns RPC_OK. */
int driver_reply(struct buf *reply, const ProtobufCMessage *m);
/* An errno as the code CSI wants. */
int driver_code(int r);
/* One call a volume at a time: RPC_ABORTED when there is one. The key goes back with driver_end. */
int driver_begin(struct driver *d, const char *id, struct err *e);
void driver_end(struct driver *d, const char *id);
extern const struct rpc_method driver_methods[];
extern const size_t driver_n_methods;

/* "VOLUME/KEY" */
struct volume_id {
	char volume[64], key[CATALOG_KEY_MAX + 1];
};
/* false: not one of ours. */
bool volume_id_parse(const char *id, struct volume_id *ret);
/* The catalog of a volume, mounted first if it has to be; catalog_done frees. */
int driver_catalog(struct driver *d, const char *volume, struct catalog *ret, struct err *e);
void catalog_done(struct catalog *c);
/* The catalog and the entry; RPC code. */
int driver_find(struct driver *d, const char *id, struct catalog *ret_c, struct catalog_volume *ret_v,
		struct err *e);
/* Only mounted file systems, in a mode we know. NULL = fine, else what is wrong. */
const char *capability_fault(const Csi__V1__VolumeCapability *c);
json_t *pairs_object_new(size_t n, Csi__V1__StringPair *const *v);
const char *pair_value(size_t n, Csi__V1__StringPair *const *v, const char *key);

/* ---- controller.c, node.c: unary handlers ---- */
typedef int method_fn(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e);
method_fn csi_create_volume, csi_delete_volume, csi_validate_volume, csi_list_volumes, csi_get_capacity,
	controller_caps, csi_expand_volume;
method_fn node_stage, node_unstage, node_publish, node_unpublish, node_stats, node_caps, node_info;

/* ---- bound.c ---- */
int bound_load(struct driver *d, struct err *e);
/* Remembers; replaces what was at the same target. */
void bound_put(struct driver *d, const char *id, const char *source, const char *target, bool read_only);
void bound_drop(struct driver *d, const char *target);
/* Binds all of the volume again, on top of what is dead; for mounts_options.again, ctx = driver. */
void bound_again(void *ctx, const char *volume);
/* The same for all volumes after a start; only what does not work. */
void bound_check(struct driver *d);
void bound_done(struct driver *d);
