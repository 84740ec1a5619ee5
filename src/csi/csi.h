/* SPDX-License-Identifier: Apache-2.0 */
/* csi: the user's side of the Container Storage Interface 1.x (proto/csi.proto): one driver behind one socket, called from a loop
 * thread. Used by the node agent (node service) and the controllers (controller service); works with any CSI driver that needs no
 * secrets, no attaching and no topology.
 *
 * Calls block in threads of the client (CSI_THREADS at once, CSI_QUEUE_MAX waiting) and end by their time limit; `done` comes on the
 * loop thread. A call may be sent again after any failure: CSI demands that they are idempotent. */
#pragma once

#include "io/io.h"
#include "net/grpc.h"

#define CSI_THREADS   4
#define CSI_QUEUE_MAX 1024
#define CSI_PAIRS_MAX 1000 /* members of a map taken from a driver */

struct csi;

enum csi_method {
	CSI_INFO, /* name and capabilities: several calls in one */
	CSI_CREATE_VOLUME,
	CSI_DELETE_VOLUME,
	CSI_EXPAND_VOLUME,
	CSI_NODE_STAGE,
	CSI_NODE_UNSTAGE,
	CSI_NODE_PUBLISH,
	CSI_NODE_UNPUBLISH,
	CSI_NODE_STATS,
	CSI_METHODS,
};

struct csi_result {
	int code; /* enum rpc_code */
	const char *text;
	/* CSI_INFO */
	const char *name, *version, *node_id;
	bool controller; /* offers the controller service with create and delete */
	bool expand, stage, stats;
	int64_t volumes_max; /* a node; 0 = no limit */
	/* CSI_CREATE_VOLUME, CSI_EXPAND_VOLUME */
	const char *volume_id;
	int64_t bytes;
	const json_t *context;
	/* CSI_NODE_STATS: bytes, inodes */
	int64_t total[2], used[2], available[2];
};

/* Everything is copied; what a method does not use is not looked at. */
struct csi_request {
	enum csi_method method;
	const char *name, *volume_id, *staging, *target;
	int64_t bytes;		     /* required; 0 = none */
	const json_t *parameters;    /* text -> text; NULL = {} */
	const json_t *context;	     /* text -> text */
	const json_t *access_modes;  /* Kubernetes' words: ReadWriteOnce, ... */
	const json_t *mount_options; /* texts */
	const char *fs_type;
	bool read_only;
	int64_t timeout_ms; /* 0 = 30,000 */
	void (*done)(void *ctx, const struct csi_result *r);
	void *ctx;
};

/* endpoint: "unix:///run/x.sock". Does not connect yet. */
int csi_new(uv_loop_t *loop, const char *endpoint, struct csi **ret, struct err *e);
/* Calls on their way end without done. Accepts NULL, returns NULL. */
struct csi *csi_free(struct csi *c);
void csi_call(struct csi *c, const struct csi_request *r);
const char *csi_endpoint(const struct csi *c);

/* ---- drivers.c: several drivers, which say themselves who they are ---- */
struct csi_drivers;
struct csi_driver {
	struct csi *csi;
	char *name;    /* NULL = has not been heard yet */
	char *node_id; /* NULL = no node service */
	bool controller, expand, stage, stats;
	int64_t volumes_max;
};
/* Asks each endpoint every 2 s until it answers, then once a minute. seen: it answered for the first time, or differently. */
int csi_drivers_new(uv_loop_t *loop, char *const *endpoints,
		    void (*seen)(void *ctx, const struct csi_driver *d), void *ctx, struct csi_drivers **ret,
		    struct err *e);
struct csi_drivers *csi_drivers_free(struct csi_drivers *d); /* accepts NULL */
const struct csi_driver *csi_drivers_find(const struct csi_drivers *d, const char *name);

/* ---- message.c: pure ---- */
/* "/csi.v1.Node/NodePublishVolume"; NULL for CSI_INFO. */
const char *csi_method_path(enum csi_method m);
/* malloc'ed */
void *csi_pack(const struct csi_request *r, size_t *ret_len);
/* An answer from bytes. What result points to lives in *ret_hold (free with csi_unpacked_free). -EBADMSG. */
struct csi_unpacked;
int csi_unpack(enum csi_method m, const void *data, size_t len, struct csi_result *ret,
	       struct csi_unpacked **ret_hold);
struct csi_unpacked *csi_unpacked_free(struct csi_unpacked *u);
/* The parts of CSI_INFO, which are calls of their own. */
int csi_unpack_plugin_info(const void *data, size_t len, char name[128], char version[64]);
int csi_unpack_controller_caps(const void *data, size_t len, struct csi_result *ret);
int csi_unpack_node_caps(const void *data, size_t len, struct csi_result *ret);
int csi_unpack_node_info(const void *data, size_t len, char node_id[256], int64_t *ret_volumes_max);
