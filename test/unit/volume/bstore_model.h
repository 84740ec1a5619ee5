/* SPDX-License-Identifier: Apache-2.0 */
/* bstore_model: records out of a seed, and what a store that applied them must hold. A record is made of (seed, group, epoch, seq) alone, so a model can
 * be built for any position long after the process that wrote it was killed. */
#pragma once

#include "sim/mem.h"

#define MODEL_GROUPS 3
#define MODEL_INOS   12
#define MODEL_EPOCHS 256
#define MODEL_STRIPE (1u << 20)

/* Which epochs there were: epoch e began at seq start[e] (what had been there was cut); 0 = not used. Shared between processes. */
struct model_history {
	uint64_t start[MODEL_GROUPS][MODEL_EPOCHS];
};
uint64_t model_epoch_of(const struct model_history *h, uint32_t group, uint64_t epoch, uint64_t seq);
/* Its content depends on the arguments only. Payloads are up to large_max bytes. */
struct record *model_record(uint64_t seed, const struct model_history *h, uint32_t group, uint64_t epoch,
			    uint64_t seq, uint32_t large_max);

struct model {
	struct mem_kv *kv;
	struct mem_blob *blob;
	struct replica r;
};
void model_init(struct model *m, uint32_t group);
void model_done(struct model *m);
/* Applies what is missing up to (epoch, seq). */
void model_run(struct model *m, uint64_t seed, const struct model_history *h, uint64_t epoch, uint64_t seq,
	       uint32_t large_max);
/* Same keys (those of the file system and the stripes) and same bytes. Blocks that are bad in r count in *ret_bad and are not compared. Returns NULL, or what
 * differs. */
const char *model_compare(struct model *m, struct replica *r, uint64_t *ret_bad);
