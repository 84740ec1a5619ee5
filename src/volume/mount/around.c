/* SPDX-License-Identifier: Apache-2.0 */
/* See around.h. Zones are kept in sets of a few; neighbours of one file lie in different sets, so that one large file fills all of them evenly. */
#include "volume/mount/around.h"

#define PAGE	 4096u
#define WAYS_MAX 8u
#define SETS_MAX 1024u
#define COST_ONE 256u		/* a whole block takes as much longer as one small read takes */
#define COST_MIN (COST_ONE / 2) /* memory, and the network's bytes, are not free either */
#define COST_MAX (COST_ONE * 16)
#define FORECAST 3u  /* times as many reads as there were will come */
#define SMOOTH	 16u /* times are averaged over about so many */
#define TIME_MAX 100000u
#define LOST_MIN 8u
#define LOST_OF	 8u /* more than one of so many blocks was lost: the zone needs twice as many reads */
#define STRIKES	 8u

struct zone {
	uint64_t file, number, version, read_ms;
	uint32_t reads, given, lost; /* blocks given to the kernel; those that it asked for again */
	uint8_t strikes;
	uint64_t whole; /* blocks: a bit each */
};

struct asked {
	uint64_t file, block;
	bool used;
};

struct around {
	uint32_t block, sets, ways;
	uint64_t small_us, whole_us; /* times SMOOTH; 0 = none yet */
	struct zone *zone;
	struct asked asked[AROUND_ASKED]; /* on their way */
};

struct around *around_new(uint32_t block, uint64_t cache_bytes)
{
	uint64_t zones = cache_bytes / ((uint64_t)block * AROUND_BLOCKS);
	struct around *a = calloc(1, sizeof(*a));

	ensure(block >= 2 * PAGE && (block & (block - 1)) == 0);
	if (!a)
		return NULL;
	a->block = block;
	a->ways = (uint32_t)CLAMP(zones, 1u, WAYS_MAX);
	a->sets = (uint32_t)CLAMP(zones / a->ways, 1u, SETS_MAX);
	a->zone = calloc((size_t)a->sets * a->ways, sizeof(*a->zone));
	if (!a->zone)
		return around_free(a);
	return a;
}

struct around *around_free(struct around *a)
{
	if (a)
		free(a->zone);
	free(a);
	return NULL;
}

static struct zone *set_of(struct around *a, uint64_t file, uint64_t number)
{
	return &a->zone[(file + number) % a->sets * a->ways];
}

static struct zone *kept(struct around *a, uint64_t file, uint64_t number)
{
	struct zone *set = set_of(a, file, number);

	for (uint32_t i = 0; i < a->ways; i++)
		if (set[i].file == file && set[i].number == number)
			return &set[i];
	return NULL;
}

static struct zone *oldest(struct around *a, struct zone *set)
{
	struct zone *z = set;

	for (uint32_t i = 1; i < a->ways; i++)
		if (set[i].read_ms < z->read_ms)
			z = &set[i];
	return z;
}

/* The zone, begun anew where nothing is known of it. */
static struct zone *zone_of(struct around *a, uint64_t file, uint64_t version, uint64_t number,
			    uint64_t now_ms)
{
	struct zone *z = kept(a, file, number);

	if (!z || z->version != version || now_ms > z->read_ms + AROUND_IDLE_MS) {
		z = z ? z : oldest(a, set_of(a, file, number));
		*z = (struct zone){.file = file, .number = number, .version = version};
	}
	z->read_ms = now_ms;
	return z;
}

static struct asked *asked_for(struct around *a, uint64_t file, uint64_t block)
{
	for (uint32_t i = 0; i < AROUND_ASKED; i++)
		if (a->asked[i].used && a->asked[i].file == file && a->asked[i].block == block)
			return &a->asked[i];
	return NULL;
}

static bool ask_for(struct around *a, uint64_t file, uint64_t block)
{
	for (uint32_t i = 0; i < AROUND_ASKED; i++)
		if (!a->asked[i].used) {
			a->asked[i] = (struct asked){.file = file, .block = block, .used = true};
			return true;
		}
	return false;
}

/* A block that was given is asked for again. */
static void lost(struct zone *z)
{
	if (++z->lost < LOST_MIN || z->lost * LOST_OF < z->given)
		return;
	z->strikes = (uint8_t)MIN(z->strikes + 1u, STRIKES);
	z->reads = z->given = z->lost = 0;
	z->whole = 0;
}

/* Reads a zone of so many blocks must have had. */
static uint32_t needed(const struct around *a, uint32_t blocks)
{
	uint64_t cost = COST_MIN;

	if (a->small_us && a->whole_us > a->small_us)
		cost = CLAMP((a->whole_us - a->small_us) * COST_ONE / a->small_us / FORECAST, COST_MIN,
			     COST_MAX);
	return MAX((uint32_t)(blocks * cost / COST_ONE), AROUND_NEED_MIN);
}

bool around_ask(struct around *a, uint64_t file, uint64_t version, uint64_t size, uint64_t off, uint32_t len,
		uint64_t now_ms, uint64_t *ret_off, uint32_t *ret_len)
{
	uint64_t block = off / a->block, from = block * a->block, pages = size / PAGE * PAGE,
		 end = MIN(from + a->block, pages), first = block / AROUND_BLOCKS * AROUND_BLOCKS, bit;
	uint32_t in_zone, need;
	struct zone *z;

	if (len == 0 || off % PAGE || len % PAGE || off >= end || len > end - off || len >= end - from)
		return false;
	z = zone_of(a, file, version, block / AROUND_BLOCKS, now_ms);
	in_zone = (uint32_t)MIN((pages + a->block - 1) / a->block - first, (uint64_t)AROUND_BLOCKS);
	need = needed(a, in_zone) << z->strikes;
	bit = 1ull << block % AROUND_BLOCKS;
	if (z->whole & bit) {
		z->whole &= ~bit;
		lost(z);
		return false;
	}
	if (z->reads < need) {
		z->reads++;
		return false;
	}
	if (asked_for(a, file, block) || !ask_for(a, file, block))
		return false;
	*ret_off = from;
	*ret_len = (uint32_t)(end - from);
	return true;
}

void around_done(struct around *a, uint64_t file, uint64_t version, uint64_t off, bool given)
{
	uint64_t block = off / a->block;
	struct zone *z = kept(a, file, block / AROUND_BLOCKS);
	struct asked *x = asked_for(a, file, block);

	if (x)
		x->used = false;
	if (!given || !z || z->version != version)
		return;
	z->whole |= 1ull << block % AROUND_BLOCKS;
	z->given++;
}

void around_took(struct around *a, bool whole, uint64_t us)
{
	uint64_t *t = whole ? &a->whole_us : &a->small_us;

	us = CLAMP(us, 1u, *t ? *t / SMOOTH * 4 + 1 : TIME_MAX); /* one that had to wait is no measure */
	*t = *t ? *t - *t / SMOOTH + us : us * SMOOTH;
}
