/* SPDX-License-Identifier: Apache-2.0 */
/* mem: keys and file data in memory, behind the tables of core/repl/replica.h: for unit tests and for the simulator, which can take
 * snapshots (a crash goes back to one) and let a power loss take or tear what was not synced. */
#pragma once

#include "core/repl/replica.h"

/* ---- ordered keys ---- */
struct mem_kv; /* mem_kv_table(m) is the table to hand on */
struct mem_kv *mem_kv_new(void);
struct mem_kv *mem_kv_free(struct mem_kv *m);
struct kv *mem_kv_table(struct mem_kv *m);
struct mem_kv *mem_kv_clone(const struct mem_kv *m); /* independent of m */
size_t mem_kv_len(const struct mem_kv *m);
bool mem_kv_eq(const struct mem_kv *a, const struct mem_kv *b);
/* The next n changes work, those behind fail with err (-EIO, -ENOSPC) until this is called again; n UINT64_MAX = none fails. */
void mem_kv_fail(struct mem_kv *m, uint64_t n, int err);
/* Calls since the last reset: what a hot path costs. */
struct mem_kv_calls {
	uint64_t get, put, del, seek;
};
struct mem_kv_calls mem_kv_calls(struct mem_kv *m, bool reset);

/* ---- file data: pages of VOL_BLOCK ---- */
struct mem_blob;
struct mem_blob *mem_blob_new(void);
struct mem_blob *mem_blob_free(struct mem_blob *m);
struct blob *mem_blob_table(struct mem_blob *m);
/* As it is now; what is not synced in m is not synced in the clone. */
struct mem_blob *mem_blob_clone(const struct mem_blob *m);
/* All that was written is durable from here on. */
void mem_blob_sync(struct mem_blob *m);
/* Power went: each page changed since the last sync independently keeps its old content, has its new one, or is torn (sectors of 512 bytes of
 * either). random: uniform 64 bits. */
void mem_blob_power_loss(struct mem_blob *m, uint64_t (*random)(void *ctx), void *ctx);
/* Flips one bit of a page that has data, as rot does. False: no such page. */
bool mem_blob_rot(struct mem_blob *m, uint32_t group, const struct vol_ino *ino, uint64_t off);
void mem_blob_fail(struct mem_blob *m, uint64_t n, int err); /* as mem_kv_fail, for changes */
void mem_blob_fail_reads(struct mem_blob *m, int err);	     /* 0 = none */
/* Same bytes (absent pages are zeros). */
bool mem_blob_eq(const struct mem_blob *a, const struct mem_blob *b);
size_t mem_blob_pages(const struct mem_blob *m);
