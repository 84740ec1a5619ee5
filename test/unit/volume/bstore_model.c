/* SPDX-License-Identifier: Apache-2.0 */
/* bstore_model: see the header. The model is the same core/repl code over memory; what is tested is the store under it. */
#include "bstore_model.h"

struct rng {
	uint64_t s;
};

static uint64_t next(struct rng *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t below(struct rng *r, uint64_t n)
{
	return next(r) % n;
}

static struct vol_ino ino_of(uint64_t n)
{
	struct vol_ino ino = {.num = 1 + n % MODEL_INOS};

	memset(ino.folder.b, 0x11, sizeof(ino.folder.b));
	ino.folder.b[1] = (uint8_t)(n % 3);
	return ino;
}

uint64_t model_epoch_of(const struct model_history *h, uint32_t group, uint64_t epoch, uint64_t seq)
{
	for (uint64_t e = epoch; e > 0; e--)
		if (h->start[group][e] && h->start[group][e] <= seq)
			return e;
	return 0;
}

static struct payload *data_of(struct rng *r, uint32_t len)
{
	struct payload *p = payload_new(len);
	struct rng data = {next(r)};

	for (uint32_t i = 0; i < len; i += 8) {
		uint64_t v = next(&data);

		memcpy(p->data + i, &v, MIN(8u, len - i));
	}
	return p;
}

static void add_write(struct record *rec, struct rng *r, uint32_t large_max)
{
	struct vol_ino ino = ino_of(next(r));
	uint64_t off = below(r, 3 * MODEL_STRIPE);
	uint32_t len;
	struct payload *p;

	switch (below(r, 4)) {
	case 0: /* a part of a block or of two */
		len = 1 + (uint32_t)below(r, 5000);
		break;
	case 1: /* whole blocks */
		off &= ~4095ull;
		len = 4096 * (1 + (uint32_t)below(r, 16));
		break;
	case 2: /* large, anywhere */
		len = 65537 + (uint32_t)below(r, large_max - 65537);
		break;
	default:
		off &= ~4095ull;
		len = (65536 + (uint32_t)below(r, large_max - 65536)) & ~4095u;
	}
	p = data_of(r, len);
	ensure(record_write(rec, &ino, 0, off, p) == 0);
	payload_unref(p);
}

static void add_keys(struct record *rec, struct rng *r)
{
	uint8_t value[3000];
	char key[64];

	for (uint64_t n = below(r, 4) + 1; n > 0; n--) {
		struct vol_id folder = ino_of(next(r)).folder;
		size_t len = 17;

		key[0] = "EIN"[below(r, 3)];
		memcpy(key + 1, folder.b, 16);
		len += (size_t)snprintf(key + 17, sizeof(key) - 17, "n%llu",
					(unsigned long long)below(r, 300));
		if (below(r, 3) == 0) {
			ensure(record_del(rec, key, len) == 0);
			continue;
		}
		memset(value, (int)below(r, 256), sizeof(value));
		ensure(record_put(rec, key, len, value,
				  below(r, 20) ? below(r, 120) : below(r, sizeof(value))) == 0);
	}
}

struct record *model_record(uint64_t seed, const struct model_history *h, uint32_t group, uint64_t epoch,
			    uint64_t seq, uint32_t large_max)
{
	struct rng r = {seed * 0x100000001b3ull ^ (uint64_t)group << 56 ^ epoch << 40 ^ seq};
	struct record *rec = record_new(group);
	struct vol_ino ino = ino_of(next(&r));

	ensure(rec);
	rec->epoch = epoch;
	rec->seq = seq;
	rec->prev_epoch = model_epoch_of(h, group, epoch, seq - 1);
	if (below(&r, 4))
		add_keys(rec, &r);
	switch (below(&r, 16)) {
	case 0:
		ensure(record_trim(rec, &ino, (uint32_t)seq, below(&r, 3 * MODEL_STRIPE)) == 0);
		break;
	case 1:
		ensure(record_punch(rec, &ino, below(&r, 3 * MODEL_STRIPE), 1 + below(&r, 300000)) == 0);
		break;
	case 2:
		if (below(&r, 4) == 0)
			ensure(record_drop(rec, &ino) == 0);
		break;
	case 3: /* nothing */
	case 4:
	case 5:
	case 6:
		break;
	default:
		add_write(rec, &r, large_max);
	}
	if (rec->n == 0)
		ensure(record_note(rec) == 0);
	return rec;
}

void model_init(struct model *m, uint32_t group)
{
	m->kv = mem_kv_new();
	m->blob = mem_blob_new();
	ensure(replica_init(&m->r, group, MODEL_STRIPE, mem_kv_table(m->kv), mem_blob_table(m->blob)) == 0);
}

void model_done(struct model *m)
{
	replica_done(&m->r);
	mem_kv_free(m->kv);
	mem_blob_free(m->blob);
}

void model_run(struct model *m, uint64_t seed, const struct model_history *h, uint64_t epoch, uint64_t seq,
	       uint32_t large_max)
{
	while (m->r.seq < seq) {
		uint64_t next_seq = m->r.seq + 1;
		struct record *rec =
			model_record(seed, h, m->r.group, model_epoch_of(h, m->r.group, epoch, next_seq),
				     next_seq, large_max);

		ensure(replica_apply(&m->r, rec, false) == 0);
		record_unref(rec);
	}
}

static bool counts(const uint8_t *key, size_t len)
{
	return len > 2 && !strchr("GBZJCS", key[2]);
}

/* Walks both in step; S keys are left to the data's comparison, where bad blocks are known. */
static const char *compare_keys(struct kv *a, struct kv *b, uint32_t group)
{
	uint8_t at[2][600] = {{(uint8_t)(group >> 8), (uint8_t)group},
			      {(uint8_t)(group >> 8), (uint8_t)group}};
	size_t len[2] = {2, 2};

	for (;;) {
		struct kv *kv[2] = {a, b};
		const void *key[2], *value[2];
		size_t value_len[2];
		bool end[2];

		for (int i = 0; i < 2; i++) {
			int r;
			size_t n;

			do {
				r = kv[i]->seek(kv[i], at[i], len[i], true, 2, &key[i], &n, &value[i],
						&value_len[i]);
				end[i] = r < 0;
				if (!end[i]) {
					memcpy(at[i], key[i], n);
					len[i] = n;
				}
			} while (!end[i] && !counts(at[i], len[i]));
		}
		if (end[0] || end[1])
			return end[0] == end[1] ? NULL : "one has more keys";
		if (len[0] != len[1] || memcmp(at[0], at[1], len[0]) != 0)
			return "keys differ";
		if (value_len[0] != value_len[1] || memcmp(value[0], value[1], value_len[0]) != 0)
			return "values differ";
	}
}

static const char *compare_block(struct replica *a, struct replica *b, const struct vol_ino *ino,
				 uint64_t off, uint32_t sum, uint64_t *ret_bad)
{
	uint8_t x[VOL_BLOCK], y[VOL_BLOCK];
	uint32_t sum_b = 0;
	uint64_t bad;

	ensure(replica_crcs(b, ino, off, VOL_BLOCK, &sum_b) == 0);
	if (sum_b == BLOCK_CRC_BAD) {
		++*ret_bad;
		return NULL;
	}
	if (sum != sum_b)
		return "checksums differ";
	if (replica_read(b, ino, off, y, VOL_BLOCK, &bad) < 0) {
		++*ret_bad; /* found now */
		return NULL;
	}
	if (replica_read(a, ino, off, x, VOL_BLOCK, &bad) < 0)
		return "the model cannot be read";
	return memcmp(x, y, VOL_BLOCK) ? "bytes differ" : NULL;
}

const char *model_compare(struct model *m, struct replica *r, uint64_t *ret_bad)
{
	const char *text = compare_keys(m->r.kv, r->kv, r->group);
	static uint32_t sums[MODEL_STRIPE / VOL_BLOCK];

	*ret_bad = 0;
	if (m->r.seq != r->seq || m->r.epoch != r->epoch)
		return "positions differ";
	for (uint64_t n = 0; n < 3 * MODEL_INOS && !text; n++) {
		struct vol_ino ino = ino_of(n);

		for (uint64_t s = 0; s < 5 && !text; s++) {
			if (replica_crcs(&m->r, &ino, s * MODEL_STRIPE, MODEL_STRIPE, sums) < 0)
				return "the model has no checksums";
			for (uint32_t i = 0; i < ARRAY_SIZE(sums) && !text; i++)
				text = compare_block(&m->r, r, &ino,
						     s * MODEL_STRIPE + i * (uint64_t)VOL_BLOCK, sums[i],
						     ret_bad);
		}
	}
	return text;
}
