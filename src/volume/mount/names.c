/* SPDX-License-Identifier: Apache-2.0 */
/* The names of a folder, as a set of 64-bit hashes: a folder that was listed whole under a lease, or made here, is known completely, and a name
 * that is not in the set is not there: the lookup before each create costs no question. The hash is keyed with random bits of the mount, so
 * that nobody can choose two names that meet. Two that meet by chance (2^-64) make us ask once too often, until one of them is removed.
 * Bounds: NAMES_MAX a folder, NAMES_ALL_MAX a mount; beyond, the folder is simply not known completely. Callers hold the node's lock. */
#include "volume/mount/internal.h"

#define GONE 1u

uint64_t name_hash(struct mount *m, const char *name, size_t len)
{
	uint64_t h = m->name_key[0] ^ (len * 0x9e3779b97f4a7c15u), w;

	while (len > 0) {
		size_t part = MIN(len, sizeof(w));
		unsigned __int128 p;

		w = 0;
		memcpy(&w, name, part);
		p = (unsigned __int128)(h ^ w) * (m->name_key[1] | 1);
		h = (uint64_t)p ^ (uint64_t)(p >> 64) ^ (h << 23 | h >> 41);
		name += part;
		len -= part;
	}
	return h < 2 ? h + 2 : h;
}

static int names_room(struct names *s)
{
	struct names old = *s;
	uint32_t mask;

	if (s->used + 1 <= s->cap / 4 * 3)
		return 0;
	s->cap = s->n * 2 < s->cap ? s->cap : MAX(64u, s->cap * 2);
	s->slot = calloc(s->cap, 2 * sizeof(*s->slot));
	if (!s->slot) {
		*s = old;
		return -ENOMEM;
	}
	s->number = s->slot + s->cap;
	mask = s->cap - 1;
	for (uint32_t i = 0; i < old.cap; i++)
		if (old.slot[i] > GONE) {
			uint32_t k = (uint32_t)old.slot[i] & mask;

			while (s->slot[k])
				k = (k + 1) & mask;
			s->slot[k] = old.slot[i];
			s->number[k] = old.number[i];
		}
	s->used = s->n;
	free(old.slot);
	return 0;
}

/* Its place, or -1. */
static int64_t place(const struct names *s, uint64_t hash)
{
	if (s->cap == 0)
		return -1;
	for (uint32_t k = (uint32_t)hash & (s->cap - 1); s->slot[k]; k = (k + 1) & (s->cap - 1))
		if (s->slot[k] == hash)
			return k;
	return -1;
}

bool names_has(const struct names *s, uint64_t hash)
{
	return place(s, hash) >= 0;
}

uint64_t names_number(const struct names *s, uint64_t hash)
{
	int64_t k = place(s, hash);

	return k >= 0 ? s->number[k] : 0;
}

int names_add(struct mount *m, struct names *s, uint64_t hash, uint64_t number)
{
	int64_t there = place(s, hash);
	uint32_t k;

	if (there >= 0) {
		s->number[there] = number;
		return 0;
	}
	if (s->n >= NAMES_MAX || atomic_load(&m->names_all) >= NAMES_ALL_MAX)
		return -ENOSPC;
	if (names_room(s) < 0)
		return -ENOSPC;
	for (k = (uint32_t)hash & (s->cap - 1); s->slot[k]; k = (k + 1) & (s->cap - 1))
		;
	s->slot[k] = hash;
	s->number[k] = number;
	s->n++;
	s->used++;
	atomic_fetch_add(&m->names_all, 1);
	return 0;
}

void names_del(struct mount *m, struct names *s, uint64_t hash)
{
	int64_t k = place(s, hash);

	if (k < 0)
		return;
	s->slot[k] = GONE;
	s->n--;
	atomic_fetch_sub(&m->names_all, 1);
}

void names_done(struct mount *m, struct names *s)
{
	atomic_fetch_sub(&m->names_all, s->n);
	free(s->slot);
	*s = (struct names){0};
}

void folder_unsure(struct mount *m, struct node *folder)
{
	folder->complete = false;
	folder->misses = 0; /* worth listing again */
	folder->changes++;
	names_done(m, &folder->names);
}

void folder_made(struct mount *m, struct node *folder, const char *name, uint64_t number)
{
	folder->changes++;
	if (folder->complete && names_add(m, &folder->names, name_hash(m, name, strlen(name)), number) < 0) {
		folder->complete = false;
		names_done(m, &folder->names);
	}
}

void folder_changed(struct mount *m, struct node *folder, const char *name, bool there, bool unsure)
{
	if (there || unsure) {
		folder_made(m, folder, name, 0);
		return;
	}
	folder->changes++;
	if (folder->complete)
		names_del(m, &folder->names, name_hash(m, name, strlen(name)));
}

bool folder_lacks(struct mount *m, struct node *folder, const char *name)
{
	bool lacks;

	pthread_mutex_lock(&folder->lock);
	lacks = folder->leased && folder->complete &&
		!names_has(&folder->names, name_hash(m, name, strlen(name)));
	pthread_mutex_unlock(&folder->lock);
	return lacks;
}
