/* SPDX-License-Identifier: Apache-2.0 */
/* around: which small reads ask for the whole block around them. Pure: no thread, no clock, no I/O; the owner locks.
 *
 * Bricks check each 4 KiB for itself, so a block of (mostly) 512 KiB costs more than the few bytes that were read out of it: it pays only when others of
 * its pages are read soon, and before anybody changes the file. So reads that the kernel had no page for are counted, in zones of AROUND_BLOCKS
 * blocks. The forecast: three times as many as a zone has had will come. Whole blocks save those questions, and cost what they take longer than small reads;
 * both times are measured. Where that pays, and from one read for two blocks on, blocks of the zone are asked for whole, each once. So what is spent in vain
 * where the reads end right then is a few times what was spent on them.
 * A read of a block that was given to the kernel already: its pages are gone again (memory is short). When that is often so, twice as many reads are
 * needed, each time.
 * A zone begins anew when the file has changed, or after AROUND_IDLE_MS without a read.
 *
 * Bound: the zones kept, least recently read ones go first; so files, or places of files, that are read too thinly never get there. */
#pragma once

#include "base/base.h"

#define AROUND_BLOCKS	64u    /* of a zone */
#define AROUND_IDLE_MS	60000u /* what was read before is no evidence any more */
#define AROUND_ASKED	2u     /* blocks on their way: what the reader itself asks for comes first */
#define AROUND_NEED_MIN 8u     /* reads of a zone, however small the file is */

struct around;

/* block: bytes, a power of two from 8 KiB on; cache_bytes: of file data that zones may stand for. NULL = no memory. */
struct around *around_new(uint32_t block, uint64_t cache_bytes);
struct around *around_free(struct around *a);
/* The kernel wants [off, off + len) of a file of `size` bytes, which has not changed as long as its version is the same. True: ask for
 * *ret_len bytes from *ret_off on, which lie in one block and in the file, are whole pages and contain what is wanted; around_done tells what
 * became of it. */
bool around_ask(struct around *a, uint64_t file, uint64_t version, uint64_t size, uint64_t off, uint32_t len,
		uint64_t now_ms, uint64_t *ret_off, uint32_t *ret_len);
/* The block that around_ask said was asked for has been given to the kernel, or was not and will not be. */
void around_done(struct around *a, uint64_t file, uint64_t version, uint64_t off, bool given);
/* So long it took to ask for a whole block, or for less than one. */
void around_took(struct around *a, bool whole, uint64_t us);
