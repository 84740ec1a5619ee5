/* SPDX-License-Identifier: Apache-2.0 */
/* Latency histograms and the busiest files and clients. Loop thread; constant memory; nothing here can fail. */
#include "volume/brick/internal.h"

/* 0, 1, 2, 3, then four buckets a power of two. */
static uint32_t bucket(uint64_t us)
{
	uint32_t e = 63 - (uint32_t)__builtin_clzll(us | 1);

	return us < 4 ? (uint32_t)us : MIN((e - 1) * 4 + (uint32_t)(us >> (e - 2) & 3), HIST_BUCKETS - 1u);
}

static uint64_t bucket_start(uint32_t i)
{
	return i < 4 ? i : (uint64_t)(4 + i % 4) << (i / 4 - 1);
}

void hist_add(struct hist *h, uint64_t us)
{
	h->now[bucket(us)]++;
	h->count++;
	h->sum_us += us;
}

void hist_turn(struct hist *h)
{
	memcpy(h->before, h->now, sizeof(h->before));
	memset(h->now, 0, sizeof(h->now));
}

uint64_t hist_quantile(const struct hist *h, double q)
{
	uint64_t all = 0, seen = 0;

	for (uint32_t i = 0; i < HIST_BUCKETS; i++)
		all += h->now[i] + h->before[i];
	for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
		seen += h->now[i] + h->before[i];
		if (all > 0 && (double)seen >= q * (double)all)
			return bucket_start(i + 1);
	}
	return 0;
}

void top_add(struct top *t, const void *key, size_t len, const char *name, uint64_t bytes)
{
	struct top_row *least = &t->row[0], *row;

	ensure(len <= sizeof(least->key));
	for (uint32_t i = 0; i < t->n; i++) {
		row = &t->row[i];
		if (memcmp(row->key, key, len) == 0) {
			row->ops++;
			row->bytes += bytes;
			/* busy ones move to the front, where they are found soon */
			if (i > 0 && t->row[i - 1].ops < row->ops) {
				struct top_row was = t->row[i - 1];

				t->row[i - 1] = *row;
				*row = was;
			}
			return;
		}
		if (row->ops < least->ops)
			least = row;
	}
	if (t->n < TOP_MAX) {
		least = &t->row[t->n++];
		*least = (struct top_row){0};
	}
	/* the newcomer takes over the count of the one it replaces: an upper bound */
	memset(least->key, 0, sizeof(least->key));
	memcpy(least->key, key, len);
	snprintf(least->name, sizeof(least->name), "%s", name ? name : "");
	least->ops++;
	least->bytes = least->ops == 1 ? bytes : least->bytes + bytes;
}

void top_turn(struct top *t)
{
	for (uint32_t i = 0; i < t->n; i++) {
		t->row[i].ops /= 2;
		t->row[i].bytes /= 2;
	}
}
