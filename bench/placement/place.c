/* SPDX-License-Identifier: Apache-2.0 */
/* bench-place BRICKS REPLICA STRIPE FOLDERS: the product's own placement (core/place), for the simulation of losses.
 *
 * Makes a volume of BRICKS bricks, spread over three domains, named in the order an operator would use (a1 b1 c1 a2 ...), and
 * prints, for each of FOLDERS folders with pseudo-random ids, one line: the bricks of each group that holds a part of its files,
 * `a,b,c a,b,c ...` (one group without striping). */
#include <stdio.h>
#include <stdlib.h>

#include "core/place/place.h"

#define DOMAINS 3

static uint64_t next(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void random_id(struct vol_id *id, uint64_t *state)
{
	uint64_t words[2] = {next(state), next(state)};

	memcpy(id->b, words, sizeof(words));
	id->b[0] = 0; /* no home domain */
}

static void print_folder(const struct vol_map *m, const struct vol_id *folder)
{
	uint32_t group[VOL_STRIPE_MAX];

	vol_place(m, folder, group);
	for (uint32_t s = 0; s < m->stripe; s++)
		for (uint32_t i = 0; i < m->replica; i++)
			printf("%s%u", i ? "," : s ? " " : "", m->group[group[s]].brick[i]);
	printf("\n");
}

int main(int argc, char **argv)
{
	static struct vol_brick brick[VOL_BRICKS_MAX];
	struct vol_map *m = NULL;
	struct vol_id uuid, folder;
	struct err e = {0};
	uint64_t state = 1;
	unsigned long n, replica, stripe, folders;

	if (argc != 5) {
		fprintf(stderr, "Usage: bench-place BRICKS REPLICA STRIPE FOLDERS\n");
		return 2;
	}
	n = strtoul(argv[1], NULL, 10);
	replica = strtoul(argv[2], NULL, 10);
	stripe = strtoul(argv[3], NULL, 10);
	folders = strtoul(argv[4], NULL, 10);
	if (n < 1 || n > VOL_BRICKS_MAX || folders > 1000000) {
		fprintf(stderr, "bench-place: 1..%d bricks, at most 1000000 folders\n", VOL_BRICKS_MAX);
		return 2;
	}
	for (unsigned long i = 0; i < n; i++) {
		char domain = (char)('a' + i % DOMAINS);
		snprintf(brick[i].name, sizeof(brick[i].name), "%c%lu", domain, i / DOMAINS + 1);
		snprintf(brick[i].domain, sizeof(brick[i].domain), "%c", domain);
		snprintf(brick[i].address, sizeof(brick[i].address), "10.0.%lu.%lu:1", i % DOMAINS,
			 i / DOMAINS + 1);
		snprintf(brick[i].path, sizeof(brick[i].path), "/brick");
		brick[i].weight = 100;
	}
	random_id(&uuid, &state);
	if (vol_map_make("bench", &uuid, (uint32_t)replica, (uint32_t)stripe, brick, (uint32_t)n, 0, false,
			 &m, &e) < 0) {
		fprintf(stderr, "bench-place: %s\n", e.text);
		return 1;
	}
	for (unsigned long i = 0; i < folders; i++) {
		random_id(&folder, &state);
		print_folder(m, &folder);
	}
	vol_map_free(m);
	return 0;
}
