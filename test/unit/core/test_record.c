/* SPDX-License-Identifier: Apache-2.0 */
/* core/repl/record: the checksum against its published values and against the tables, chunks, building and decoding, and that no single
 * flipped bit, cut or forged length gets through. */
#include "test.h"
#include "core/repl/record.h"

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		p[i] = (uint8_t)(seed >> 33);
	}
}

static void test_crc(void **state)
{
	uint8_t zeros[32] = {0}, ones[32], up[32];
	_cleanup_free_ uint8_t *p = malloc(20000);

	memset(ones, 255, sizeof(ones));
	for (uint8_t i = 0; i < 32; i++)
		up[i] = i;
	/* RFC 3720 B.4 */
	assert_int_equal(crc32c(0, zeros, 32), 0x8A9136AA);
	assert_int_equal(crc32c(0, ones, 32), 0x62A8AB43);
	assert_int_equal(crc32c(0, up, 32), 0x46DD794E);
	assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283);
	fill(p, 20000, 1);
	for (size_t len = 0; len < 20000; len = len * 9 / 8 + 1)
		for (size_t at = 0; at < 9 && at + len <= 20000; at += 4) {
			uint32_t whole = crc32c_soft(0, p + at, len);

			assert_int_equal(crc32c(0, p + at, len), whole);
			assert_int_equal(crc32c(crc32c(0, p + at, len / 3), p + at + len / 3, len - len / 3),
					 whole);
		}
}

static void test_chunks(void **state)
{
	_cleanup_free_ uint8_t *p = malloc(300000);
	static const struct {
		uint64_t off;
		uint32_t len, n;
	} cases[] = {{0, 4096, 1},     {0, 1, 1},	{1, 4096, 2},	      {4095, 2, 2},   {0, 40960, 10},
		     {100, 40960, 11}, {4095, 4098, 3}, {8192, 12288 + 5, 4}, {5, 290000, 71}};

	fill(p, 300000, 2);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t out[80], sum, n = payload_chunks(cases[i].off, p, cases[i].len, out, &sum);
		uint64_t at = cases[i].off, end = at + cases[i].len;

		assert_int_equal(n, cases[i].n);
		assert_int_equal(sum, crc32c_soft(0, out, 4 * n));
		for (uint32_t k = 0; at < end; k++) {
			uint64_t stop = MIN(end, (at / VOL_BLOCK + 1) * VOL_BLOCK);

			assert_int_equal(out[k], crc32c_soft(0, p + (at - cases[i].off), stop - at));
			at = stop;
		}
	}
	assert_int_equal(block_crc(p), crc32c_soft(0, p, VOL_BLOCK));
}

static struct record *sample(uint32_t payload_len, uint64_t off)
{
	struct record *r = record_new(9);
	struct vol_ino ino = {{{4, 5, 6}}, 77};
	char big[5000];

	memset(big, 'v', sizeof(big));
	r->epoch = 7;
	r->seq = 1234;
	r->prev_epoch = 6;
	assert_int_equal(record_put(r, "key", 3, "value", 5), 0);
	assert_int_equal(record_put(r, "empty", 5, NULL, 0), 0);
	assert_int_equal(record_put(r, "big", 3, big, sizeof(big)),
			 0); /* the body moves: effects must follow */
	assert_int_equal(record_del(r, "gone", 4), 0);
	assert_int_equal(record_trim(r, &ino, 3, 999), 0);
	assert_int_equal(record_punch(r, &ino, 4096, 8192), 0);
	assert_int_equal(record_drop(r, &ino), 0);
	assert_int_equal(record_note(r), 0);
	if (payload_len > 0) {
		struct payload *p = payload_new(payload_len);

		fill(p->data, payload_len, off + payload_len);
		assert_int_equal(record_write(r, &ino, 2, off, p), 0);
		assert_int_equal(record_write(r, &ino, 2, off, p), -E2BIG); /* one payload a record */
		payload_unref(p);
	}
	return r;
}

static void same_effects(const struct record *a, const struct record *b)
{
	assert_int_equal(a->n, b->n);
	for (uint32_t i = 0; i < a->n; i++) {
		const struct effect *x = &a->effect[i], *y = &b->effect[i];

		assert_int_equal(x->type, y->type);
		assert_int_equal(x->key_len, y->key_len);
		assert_int_equal(x->value_len, y->value_len);
		if (x->key_len)
			assert_memory_equal(x->key, y->key, x->key_len);
		if (x->value_len)
			assert_memory_equal(x->value, y->value, x->value_len);
		assert_true(vol_ino_eq(&x->ino, &y->ino));
		assert_int_equal(x->gen, y->gen);
		assert_int_equal(x->off, y->off);
		assert_int_equal(x->len, y->len);
	}
}

static void test_round(void **state)
{
	static const uint32_t lens[] = {0, 1, 4096, 70000, 2u << 20};

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		struct record *r = sample(lens[i], 5000), *back = NULL;
		uint8_t head[RECORD_HEAD];
		uint32_t body_len, payload_len;

		assert_int_equal(r->effect[0].key[0], 0x6b);
		record_encode_head(r, head);
		assert_int_equal(record_decode_head(head, &body_len, &payload_len), 0);
		assert_int_equal(body_len, r->body_len);
		assert_int_equal(payload_len, lens[i]);
		assert_int_equal(record_decode(head, r->body, r->payload, &back, NULL), 0);
		same_effects(r, back);
		assert_int_equal(back->epoch, 7);
		assert_int_equal(back->seq, 1234);
		assert_int_equal(back->prev_epoch, 6);
		assert_int_equal(back->group, 9);
		assert_int_equal(back->n_chunks, r->n_chunks);
		assert_memory_equal(back->chunk_crc, r->chunk_crc, r->n_chunks * 4);
		record_unref(back);
		/* the payload elsewhere: its checksums are given back */
		assert_int_equal(record_decode(head, r->body, NULL, &back, NULL), 0);
		assert_null(back->payload);
		if (lens[i] > 0) {
			assert_int_equal(record_set_chunks(back, r->chunk_crc, r->n_chunks - 1), -EBADMSG);
			assert_int_equal(record_set_chunks(back, r->chunk_crc, r->n_chunks), 0);
			assert_memory_equal(back->chunk_crc, r->chunk_crc, r->n_chunks * 4);
		} else {
			assert_int_equal(record_set_chunks(back, &body_len, 1), -EBADMSG);
		}
		record_unref(back);
		record_unref(r);
	}
}

static void test_damage(void **state)
{
	struct record *r = sample(5000, 10), *back = NULL;
	uint8_t head[RECORD_HEAD], bad[RECORD_HEAD];
	_cleanup_free_ uint8_t *body = malloc(r->body_len);
	struct payload *p = payload_new(5000);

	record_encode_head(r, head);
	for (uint32_t bit = 0; bit < RECORD_HEAD * 8; bit++) {
		uint32_t body_len, payload_len;

		memcpy(bad, head, sizeof(bad));
		bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (record_decode_head(bad, &body_len, &payload_len) == 0 && body_len <= r->body_len)
			assert_int_equal(record_decode(bad, r->body, r->payload, &back, NULL), -EBADMSG);
	}
	for (uint32_t i = 0; i < r->body_len; i++) {
		memcpy(body, r->body, r->body_len);
		body[i] ^= 4;
		assert_int_equal(record_decode(head, body, r->payload, &back, NULL), -EBADMSG);
	}
	for (uint32_t i = 0; i < 5000; i += 7) {
		memcpy(p->data, r->payload->data, 5000);
		free(p->chunk_crc);
		p->chunk_crc = NULL;
		p->data[i] ^= 1;
		assert_int_equal(record_decode(head, r->body, p, &back, NULL), -EBADMSG);
	}
	payload_unref(p);
	record_unref(r);
}

static void test_bounds(void **state)
{
	struct record *r = record_new(0);
	struct vol_ino ino = {{{1}}, 1};
	struct payload *p = payload_new(10);
	_cleanup_free_ uint8_t *value = calloc(1, VALUE_MAX + 1);
	char key[KEY_MAX + 1] = {0};

	assert_int_equal(record_put(r, key, KEY_MAX + 1, "", 0), -E2BIG);
	assert_int_equal(record_put(r, key, 0, "", 0), -E2BIG);
	assert_int_equal(record_put(r, key, 1, value, VALUE_MAX + 1), -E2BIG);
	assert_int_equal(record_write(r, &ino, 0, RECORD_OFF_MAX - 9, p), -E2BIG);
	assert_int_equal(record_punch(r, &ino, 5, RECORD_OFF_MAX), -E2BIG);
	assert_int_equal(record_trim(r, &ino, 0, RECORD_OFF_MAX + 1), -E2BIG);
	assert_int_equal(r->n, 0);
	for (uint32_t i = 0; i < 15; i++)
		assert_int_equal(record_put(r, key, 1, value, VALUE_MAX), 0);
	assert_int_equal(record_put(r, key, 1, value, VALUE_MAX), -E2BIG); /* the body is full */
	for (uint32_t i = 15; i < RECORD_EFFECTS_MAX; i++)
		assert_int_equal(record_del(r, key, 1), 0);
	assert_int_equal(record_del(r, key, 1), -E2BIG);
	payload_unref(p);
	record_unref(r);
}

/* Memory of large payloads comes back newest first, zero in all that says what is in it; the smallest of a class has room for the largest. */
static void test_pool(void **state)
{
	struct payload *a = payload_new(1u << 20), *b = payload_new(600000), *c;
	uint8_t *was;
	uint32_t sum;

	memset(a->data, 1, a->len);
	memset(b->data, 2, b->room);
	sum = payload_sum(a, 0);
	assert_true(a->room >= a->len && b->room >= b->len);
	was = a->data;
	b->len = 5; /* what was read may be less than the memory */
	payload_unref(b);
	payload_unref(a);
	c = payload_new((1u << 20) - 5);
#ifndef __SANITIZE_ADDRESS__
	assert_ptr_equal(c->data, was);
#endif
	assert_null(c->chunk_crc);
	assert_int_equal(c->refs, 1);
	assert_int_equal(c->len, (1u << 20) - 5);
	memset(c->data, 1, c->room);
	c->len = 1u << 20;
	assert_int_equal(payload_sum(c, 0), sum);
	payload_unref(c);
	for (uint32_t i = 0; i < 3; i++) { /* more than the pool keeps */
		struct payload *many[40];

		for (uint32_t k = 0; k < ARRAY_SIZE(many); k++) {
			many[k] = payload_new(RECORD_PAYLOAD_MAX);
			assert_int_equal((uintptr_t)many[k]->data % VOL_BLOCK, 0);
			many[k]->data[0] = many[k]->data[RECORD_PAYLOAD_MAX - 1] = 1;
		}
		for (uint32_t k = 0; k < ARRAY_SIZE(many); k++)
			payload_unref(many[k]);
	}
	(void)was;
}

/* Checksums worked out while the bytes come, in any steps and at any offset, are those of the whole. */
static void test_ahead(void **state)
{
	static const uint32_t offs[] = {0, 1, 100, 4095, 4096, 70000}, lens[] = {1, 4096, 5000, 300001};

	for (uint32_t i = 0; i < ARRAY_SIZE(offs) * ARRAY_SIZE(lens); i++) {
		uint32_t off = offs[i % ARRAY_SIZE(offs)], len = lens[i / ARRAY_SIZE(offs)], got = 0;
		struct payload *whole = payload_new(len), *p = payload_new(len);

		for (uint32_t k = 0; k < len; k++)
			whole->data[k] = (uint8_t)(k * 7 + k / 300);
		memset(p->data, 0xee, len);
		while (got < len) {
			uint32_t n = MIN(1 + (got * 31 + i * 977) % 60000, len - got);

			memcpy(p->data + got, whole->data + got, n);
			got += n;
			payload_sum_ahead(p, off, got);
			if (got < len / 2 && i % 3 == 0)
				payload_sum_ahead(p, off + 5, got); /* a wrong guess is no harm */
		}
		assert_int_equal(payload_sum(p, off), payload_sum(whole, off));
		assert_int_equal(p->n_chunks, whole->n_chunks);
		assert_memory_equal(p->chunk_crc, whole->chunk_crc, whole->n_chunks * 4);
		assert_int_equal(payload_sum(p, off + 9), payload_sum(whole, off + 9));
		payload_unref(whole);
		payload_unref(p);
	}
}

TEST_MAIN(cmocka_unit_test(test_crc), cmocka_unit_test(test_chunks), cmocka_unit_test(test_round),
	  cmocka_unit_test(test_damage), cmocka_unit_test(test_bounds), cmocka_unit_test(test_pool),
	  cmocka_unit_test(test_ahead))
