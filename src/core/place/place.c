/* SPDX-License-Identifier: Apache-2.0 */
/* place: folder -> groups. SM3 (GB/T 32905) of volume uuid and folder id gives 256 bits; each group's weight for the folder is a mix of 128 of
 * them with the group's number, and the heaviest group owns the folder (rendezvous hashing, Thaler 1998).
 *
 * The number of groups never changes, so neither does a folder's owner; expanding a volume moves groups between bricks. Every operation asks
 * here, so the newest folders a thread asked about are kept: found by the map object's serial number, which no other map ever has. */
#include "core/place/place.h"

#include <openssl/evp.h>

#define CACHE 512 /* folders a thread; a power of two */

const struct vol_id vol_root = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

struct cached {
	uint64_t serial;
	struct vol_id folder;
	uint16_t group[VOL_STRIPE_MAX];
};

static uint64_t mix(uint64_t x)
{
	/* splitmix64's finaliser (Steele 2014) */
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static void digest(const struct vol_map *m, const struct vol_id *folder, uint64_t ret[2])
{
	uint8_t in[32], out[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	memcpy(in, m->uuid.b, 16);
	memcpy(in + 16, folder->b, 16);
	/* SM3 is part of every OpenSSL that this can be linked with (checked by the unit test): no failure to report */
	ensure(EVP_Digest(in, sizeof(in), out, &len, EVP_sm3(), NULL) == 1 && len == 32);
	memcpy(ret, out, 16);
}

static bool shares_brick(const struct vol_map *m, uint32_t a, uint32_t b)
{
	for (uint32_t i = 0; i < m->replica; i++)
		for (uint32_t j = 0; j < m->replica; j++)
			if (m->group[a].origin[i] == m->group[b].origin[j])
				return true;
	return false;
}

static bool led_from(const struct vol_map *m, uint32_t group, const char *domain)
{
	return streq(m->brick[m->group[group].origin[0]].domain, domain);
}

/* 0 = may not be taken; else more is better: at home before elsewhere, on other bricks than those before. */
static int fitness(const struct vol_map *m, uint32_t group, const char *home, const uint32_t *taken,
		   uint32_t n)
{
	int fit = 1;

	for (uint32_t i = 0; i < n; i++)
		if (taken[i] == group)
			return 0;
	if (home && led_from(m, group, home))
		fit += 1;
	for (uint32_t i = 0; i < n; i++)
		if (shares_brick(m, taken[i], group))
			return fit;
	return fit + 2;
}

static void rank(const struct vol_map *m, const struct vol_id *folder, uint32_t *ret)
{
	const char *home =
		folder->b[0] > 0 && folder->b[0] <= m->n_domains ? m->domains[folder->b[0] - 1] : NULL;
	uint64_t d[2], weight[VOL_GROUPS_MAX];

	digest(m, folder, d);
	for (uint32_t g = 0; g < m->n_groups; g++)
		weight[g] = mix(d[0] ^ mix(d[1] + (g + 1) * 0x9e3779b97f4a7c15u));
	for (uint32_t k = 0; k < m->stripe; k++) {
		int best_fit = 0;
		uint32_t best = 0;

		for (uint32_t g = 0; g < m->n_groups; g++) {
			int fit = fitness(m, g, home, ret, k);

			if (fit > best_fit || (fit == best_fit && fit > 0 && weight[g] > weight[best])) {
				best_fit = fit;
				best = g;
			}
		}
		ret[k] = best;
	}
}

static struct cached *cached(const struct vol_map *m, const struct vol_id *folder)
{
	static _Thread_local struct cached cache[CACHE];
	struct cached *c;
	uint64_t h;
	uint32_t ret[VOL_STRIPE_MAX];

	memcpy(&h, folder->b + 8, 8);
	c = &cache[mix(h ^ m->serial) % CACHE];
	if (m->serial != 0 && c->serial == m->serial && vol_id_eq(&c->folder, folder))
		return c;
	rank(m, folder, ret);
	c->serial = m->serial;
	c->folder = *folder;
	for (uint32_t i = 0; i < m->stripe; i++)
		c->group[i] = (uint16_t)ret[i];
	return c;
}

void vol_place(const struct vol_map *m, const struct vol_id *folder, uint32_t *ret)
{
	const struct cached *c = cached(m, folder);

	for (uint32_t i = 0; i < m->stripe; i++)
		ret[i] = c->group[i];
}

uint32_t vol_owner(const struct vol_map *m, const struct vol_id *folder)
{
	return cached(m, folder)->group[0];
}

uint32_t vol_group_of_stripe(const struct vol_map *m, const struct vol_ino *ino, uint64_t stripe_index)
{
	return cached(m, &ino->folder)->group[stripe_index % m->stripe];
}

void vol_id_text(const struct vol_id *id, char out[33])
{
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", id->b[i]);
}

static int nibble(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

int vol_id_parse(const char *hex, struct vol_id *ret)
{
	struct vol_id id;

	if (!hex || strlen(hex) != 32)
		return -EINVAL;
	for (int i = 0; i < 16; i++) {
		int hi = nibble(hex[2 * i]), lo = nibble(hex[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		id.b[i] = (uint8_t)(hi << 4 | lo);
	}
	*ret = id;
	return 0;
}
