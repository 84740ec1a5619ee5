/* SPDX-License-Identifier: Apache-2.0 */
/* payload: file data with a count of references, and the memory for it.
 *
 * They are taken from a pool, newest first: memory that was just used is mapped already and still in the processor's caches, where fresh memory
 * costs a page fault each 4 KiB and a cache miss each line, and malloc some searching for memory at a multiple of VOL_BLOCK. Sizes are rounded up to powers of two from POOL_MIN to RECORD_PAYLOAD_MAX; what the pool
 * keeps is bounded (POOL_BYTES), the rest goes back to malloc. Any thread; one lock, held for a few instructions.
 * Under the address sanitizer there is no pool, so that it sees each use after the end. */
#include <pthread.h>
#include <sys/mman.h>

#include "core/repl/record.h"

#define POOL_MIN     VOL_BLOCK
#define POOL_SHELVES 11
#define POOL_BYTES   (64u << 20) /* unused ones, all sizes */
#define HUGE_PAGE    (2u << 20)
#define CHUNK_STEP   260u /* chunks summed at once when there is no memory for all */

_Static_assert(POOL_MIN << (POOL_SHELVES - 1) == RECORD_PAYLOAD_MAX, "the largest payload has a shelf");

static struct {
	pthread_mutex_t lock;
	struct payload *free[POOL_SHELVES]; /* linked by owner */
	size_t bytes;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

#ifdef __SANITIZE_ADDRESS__
static const bool pooled = false;
#else
static const bool pooled = true;
#endif

/* Which list: payloads with POOL_MIN << shelf bytes of memory. */
static uint32_t shelf_of(uint32_t len)
{
	uint32_t shelf = 0;

	while (POOL_MIN << shelf < len)
		shelf++;
	return shelf;
}

static void free_payload(struct payload *p)
{
	free(p->data);
	free(p);
}

static void pool_give(struct payload *p)
{
	uint32_t shelf = shelf_of(p->room);

	pthread_mutex_lock(&pool.lock);
	if (pool.bytes + p->room <= POOL_BYTES) {
		pool.bytes += p->room;
		p->owner = pool.free[shelf];
		pool.free[shelf] = p;
		p = NULL;
	}
	pthread_mutex_unlock(&pool.lock);
	if (p)
		free_payload(p);
}

static struct payload *pool_take(uint32_t shelf)
{
	struct payload *p;

	pthread_mutex_lock(&pool.lock);
	p = pool.free[shelf];
	if (p) {
		pool.free[shelf] = p->owner;
		pool.bytes -= p->room;
	}
	pthread_mutex_unlock(&pool.lock);
	return p;
}

static struct payload *fresh(uint32_t room)
{
	struct payload *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->data = aligned_alloc(VOL_BLOCK, room);
	if (!p->data) {
		free(p);
		return NULL;
	}
	if (room >= HUGE_PAGE / 2)
		(void)madvise(p->data, room, MADV_HUGEPAGE);
	return p;
}

struct payload *payload_new(uint32_t len)
{
	bool own = pooled && len <= RECORD_PAYLOAD_MAX;
	uint32_t shelf = own ? shelf_of(len) : 0;
	uint32_t room =
		own ? POOL_MIN << shelf : MAX(VOL_BLOCK, (len + VOL_BLOCK - 1) & ~(uint32_t)(VOL_BLOCK - 1));
	struct payload *p = own ? pool_take(shelf) : NULL;

	if (!p)
		p = fresh(room);
	if (!p)
		return NULL;
	*p = (struct payload){
		.refs = 1, .len = len, .room = room, .data = p->data, .release = own ? pool_give : NULL};
	return p;
}

struct payload *payload_ref(struct payload *p)
{
	if (p)
		p->refs++;
	return p;
}

struct payload *payload_unref(struct payload *p)
{
	if (!p || --p->refs > 0)
		return NULL;
	free(p->chunk_crc);
	p->chunk_crc = NULL;
	if (p->release)
		p->release(p);
	else
		free_payload(p);
	return NULL;
}

/* The checksums of chunks n_chunks .. upto - 1. False: no memory for them. */
static bool sum_chunks(struct payload *p, uint64_t off, uint32_t upto)
{
	uint32_t phase = off % VOL_BLOCK, from, to, sum;

	if (!p->chunk_crc || p->phase != phase) {
		uint32_t *crc = realloc(p->chunk_crc, PAYLOAD_CHUNKS(p->len) * sizeof(*crc));

		if (!crc)
			return false;
		p->chunk_crc = crc;
		p->n_chunks = 0;
		p->summed = false;
		p->phase = phase;
	}
	if (p->n_chunks >= upto)
		return true;
	from = p->n_chunks ? p->n_chunks * VOL_BLOCK - phase : 0;
	to = MIN(upto * VOL_BLOCK - phase, p->len);
	(void)payload_chunks(off + from, p->data + from, to - from, p->chunk_crc + p->n_chunks, &sum);
	p->n_chunks = upto;
	return true;
}

void payload_sum_ahead(struct payload *p, uint64_t off, uint32_t got)
{
	ensure(got <= p->len);
	(void)sum_chunks(p, off, (uint32_t)(off % VOL_BLOCK + got) / VOL_BLOCK);
}

uint32_t payload_sum(struct payload *p, uint64_t off)
{
	uint32_t phase = off % VOL_BLOCK, sum = 0, n, small[CHUNK_STEP];
	uint32_t all = (phase + p->len + VOL_BLOCK - 1) / VOL_BLOCK;

	if (p->chunk_crc && p->phase == phase && p->summed)
		return p->sum;
	if (sum_chunks(p, off, all)) {
		p->sum = crc32c(0, p->chunk_crc, all * sizeof(*p->chunk_crc));
		p->summed = true;
		return p->sum;
	}
	/* No memory for a cache: the sum is the same, piece by piece. */
	for (uint32_t at = 0, len; at < p->len; at += len) {
		uint32_t part;

		len = (uint32_t)MIN((uint64_t)p->len - at, 64 * VOL_BLOCK - (off + at) % VOL_BLOCK);
		n = payload_chunks(off + at, p->data + at, len, small, &part);
		sum = crc32c(sum, small, n * sizeof(*small));
	}
	return sum;
}
