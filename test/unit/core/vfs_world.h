/* SPDX-License-Identifier: Apache-2.0 */
/* A volume in memory for the tests of core/vfs: some groups, each one member whose records are applied at once, and the part of a brick's
 * shell that drives intents. Anything may be interrupted: drive one step at a time, lose the driver, deliver a step twice. */
#pragma once

#include "core/vfs/vfs.h"
#include "sim/mem.h"

#define WORLD_GROUPS 8
#define WORLD_LATE   64

struct world_group {
	struct replica replica;
	struct mem_kv *kv;
	struct mem_blob *blob;
	struct vfs vfs;
};
struct world {
	struct vol_map *map;
	uint32_t n;
	struct world_group g[WORLD_GROUPS];
	int64_t now; /* ns; every operation adds a microsecond */
	uint32_t last_effects;
	uint64_t number; /* of the operations' ids */
	/* Messages of the past, to be delivered once more. */
	struct world_late {
		uint32_t group;
		struct buf wire;
	} late[WORLD_LATE];
	unsigned n_late;
};

struct world *world_new(uint32_t groups, uint32_t stripe, uint32_t stripe_size);
struct world *world_free(struct world *w);
/* Executes op in the group that must, applies its record. Gives it a fresh id when it changes something and has none. */
int world_exec(struct world *w, struct vfs_op *op, struct vfs_result *res);
/* One round of one intent: -ENOENT no such; 1 = it ended and res is its answer. */
#define WORLD_TWICE 1u /* the step is delivered again at once */
#define WORLD_LOSE  2u /* the driver is lost between the step and its record */
int world_drive(struct world *w, uint32_t group, const uint8_t id[16], unsigned how, struct vfs_result *res);
/* Delivers one of the newest messages again: nothing may happen. */
void world_remember(struct world *w, uint32_t group, const struct vfs_op *op);
void world_late(struct world *w, unsigned i);
/* exec, and the intent to its end. */
int world_do(struct world *w, struct vfs_op *op, struct vfs_result *res);
/* Drives every intent of every group to its end; returns how many there were. */
unsigned world_settle(struct world *w);
