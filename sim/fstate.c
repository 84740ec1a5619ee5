/* SPDX-License-Identifier: Apache-2.0 */
/* fstate: a group's keys and data in one member, and on its disk: the checkpoint's keys are kept as a copy, data lies in place (with what a power loss does
 * to unsynced pages), the log is store.c's. Records hold their payload in the log, so a recovery writes it again. */
#include "sim/files.h"

static void setup(struct fstate *f, uint32_t group)
{
	ensure(replica_init(&f->r, group, FSTRIPE, mem_kv_table(f->kv), mem_blob_table(f->blob)) == 0);
}

struct fstate *fstate_new(uint32_t group)
{
	struct fstate *f = xcalloc(1, sizeof(*f));

	f->kv = mem_kv_new();
	f->ckpt = mem_kv_new();
	f->blob = mem_blob_new();
	setup(f, group);
	return f;
}

struct fstate *fstate_free(struct fstate *f)
{
	if (!f)
		return NULL;
	replica_done(&f->r);
	mem_kv_free(f->kv);
	mem_kv_free(f->ckpt);
	mem_blob_free(f->blob);
	free(f);
	return NULL;
}

int fstate_append(struct fstate *f, struct record *rec, bool live)
{
	return live ? replica_apply_live(&f->r, rec) : replica_apply(&f->r, rec, false);
}

void fstate_checkpoint(struct fstate *f, uint64_t committed)
{
	ensure(replica_save(&f->r, committed) == 0);
	mem_kv_free(f->ckpt);
	f->ckpt = mem_kv_clone(f->kv);
	mem_blob_sync(f->blob);
}

/* Of one effect: the bytes, as the log has them. */
static void redo_effect(struct fstate *f, const struct record *rec, const struct effect *e)
{
	struct blob *b = mem_blob_table(f->blob);

	switch (e->type) {
	case EFFECT_WRITE:
		b->write(b, rec->group, &e->ino, e->off, rec->payload->data, rec->payload->len);
		break;
	case EFFECT_TRIM:
		b->trim(b, rec->group, &e->ino, e->off);
		break;
	case EFFECT_PUNCH:
		b->punch(b, rec->group, &e->ino, e->off, e->len);
		break;
	case EFFECT_DROP:
		b->drop(b, rec->group, &e->ino);
		break;
	default:
		break;
	}
}

/* Every block: after a power loss what the log does not have may have reached the disk, and what pulls brought since the checkpoint is in no log. */
static void verify_all(struct fstate *f)
{
	struct vol_ino ino = {0};
	uint64_t off = 0;

	while (replica_stripe_next(&f->r, &ino, &off) == 0) {
		replica_verify(&f->r, &ino, off, FSTRIPE, NULL);
		off += FSTRIPE;
	}
}

void fstate_restore(struct fstate *f, const struct logent *log, uint32_t n, struct record *const *cut,
		    uint32_t n_cut, bool redo)
{
	uint32_t group = f->r.group;

	replica_done(&f->r);
	mem_kv_free(f->kv);
	f->kv = mem_kv_clone(f->ckpt);
	setup(f, group);
	for (uint32_t i = 0; i < n; i++) {
		const struct logent *e = &log[i];

		for (uint32_t k = 0; redo && k < e->rec->n; k++)
			redo_effect(f, e->rec, &e->rec->effect[k]);
		f->r.n_patches = e->n_patches;
		if (e->n_patches > 0)
			memcpy(f->r.patch, e->patch, e->n_patches * sizeof(*e->patch));
		ensure(replica_apply(&f->r, e->rec, true) == 0);
	}
	while (n_cut > 0)
		ensure(replica_distrust(&f->r, cut[--n_cut]) == 0);
	verify_all(f);
}

void fstate_start_over(struct fstate *f)
{
	f->r.seq = f->r.epoch = 0;
	fstate_checkpoint(f, 0);
}

static uint64_t dice(void *ctx)
{
	return rnd(ctx);
}

void fstate_power_loss(struct sim *s, struct fstate *f)
{
	mem_blob_power_loss(f->blob, dice, s);
}

bool fstate_next(const struct fstate *f, char kind, const uint8_t **key, size_t *key_len,
		 const uint8_t **value, size_t *len)
{
	struct kv *kv = mem_kv_table(f->kv);
	uint8_t from[KEY_MAX + 8] = {(uint8_t)(f->r.group >> 8), (uint8_t)f->r.group, (uint8_t)kind};
	size_t n = *key ? *key_len : 3;
	const void *k, *v;

	if (*key)
		memcpy(from, *key, n);
	if (kv->seek(kv, from, n, *key != NULL, 3, &k, key_len, &v, len) < 0)
		return false;
	*key = k;
	*value = v;
	return true;
}

#define S_HEAD 14u /* seq8 gen4 count2; then checksums, then what catching up keeps beside them */

static uint32_t blocks_of(const uint8_t *v)
{
	return (uint32_t)v[12] << 8 | v[13];
}

static bool same_stripe(const uint8_t *a, const uint8_t *b, bool whole)
{
	uint32_t n = blocks_of(a);

	if (memcmp(a, b, S_HEAD) != 0)
		return false;
	for (uint32_t i = 0; i < n; i++) { /* a bad block is one that is known to be fetched */
		uint32_t x, y;

		memcpy(&x, a + S_HEAD + 4 * i, 4);
		memcpy(&y, b + S_HEAD + 4 * i, 4);
		if (x != y && (whole || x != BLOCK_CRC_BAD))
			return false;
	}
	return true;
}

/* Without stripes that are holes altogether: catching up leaves some for a while. */
static bool next_same_kind(const struct fstate *f, char kind, const uint8_t **key, size_t *key_len,
			   const uint8_t **value, size_t *len)
{
	bool there;

	do
		there = fstate_next(f, kind, key, key_len, value, len);
	while (there && kind == 'S' && blocks_of(*value) == 0);
	return there;
}

/* whole: no bad blocks, and the bytes fit. */
bool fstate_same(const struct fstate *a, const struct fstate *truth, bool whole, char why[160])
{
	static const char kinds[] = "DEHILNOSTX";

	for (const char *kind = kinds; *kind; kind++) {
		const uint8_t *k = NULL, *v, *k2 = NULL, *v2;
		size_t kn, n, kn2, n2;
		bool x = next_same_kind(a, *kind, &k, &kn, &v, &n),
		     y = next_same_kind(truth, *kind, &k2, &kn2, &v2, &n2);

		while (x && y && kn == kn2 && memcmp(k, k2, kn) == 0) {
			bool same =
				*kind == 'S' ? same_stripe(v, v2, whole) : n == n2 && memcmp(v, v2, n) == 0;

			if (!same) {
				size_t at = 0;

				while (at < MIN(n, n2) - 1 && v[at] == v2[at])
					at++;
				snprintf(why, 160,
					 "a key of kind %c (..%02x%02x) has another value: byte %zu is %02x, "
					 "not %02x",
					 *kind, k[kn - 2], k[kn - 1], at, v[at], v2[at]);
				return false;
			}
			x = next_same_kind(a, *kind, &k, &kn, &v, &n);
			y = next_same_kind(truth, *kind, &k2, &kn2, &v2, &n2);
		}
		if (x || y) {
			int c = !x ? 1 : !y ? -1 : memcmp(k, k2, MIN(kn, kn2));
			const uint8_t *k3 = c < 0 ? k : k2;
			size_t n3 = c < 0 ? kn : kn2;
			char hex[2 * 36 + 1] = "";

			for (size_t i = 3; i < n3 && i < 38; i++)
				snprintf(hex + 2 * (i - 3), 3, "%02x", k3[i]);
			snprintf(why, 160, "a key of kind %c, %s, is %s", *kind, hex,
				 c < 0 ? "there and should not be" : "missing");
			return false;
		}
	}
	if (whole) {
		struct vol_ino ino = {0};
		uint64_t off = 0;
		uint32_t bad = 0;
		struct replica *r = (struct replica *)(uintptr_t)&a->r;

		while (replica_stripe_next(r, &ino, &off) == 0) {
			ensure(replica_verify(r, &ino, off, FSTRIPE, &bad) == 0);
			if (bad > 0) {
				snprintf(why, 160, "%u blocks of a stripe do not hold what they should", bad);
				return false;
			}
			off += FSTRIPE;
		}
	}
	return true;
}
