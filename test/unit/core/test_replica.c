/* SPDX-License-Identifier: Apache-2.0 */
/* core/repl/replica: keys, data with checksums, the view, bad blocks, replay from a log; and seeded random runs in which a member is away, comes back
 * and gets live records, delta items and pulled blocks in any order, from sources that lag, with links that break and primaries that change: in the
 * end keys and data are the same, and nothing of a record that was never committed is left. */
#include "test.h"
#include "core/repl/replica.h"
#include "sim/mem.h"

#define STRIPE (128u << 10)
#define INODES 4
#define SPAN   (400u << 10) /* bytes of a file that are used */

struct member {
	struct mem_kv *kv;
	struct mem_blob *blob;
	struct replica r;
};

static uint64_t seed;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

static void member_init(struct member *m)
{
	m->kv = mem_kv_new();
	m->blob = mem_blob_new();
	assert_int_equal(replica_init(&m->r, 5, STRIPE, mem_kv_table(m->kv), mem_blob_table(m->blob)), 0);
}

static void member_done(struct member *m)
{
	replica_done(&m->r);
	mem_kv_free(m->kv);
	mem_blob_free(m->blob);
}

static struct vol_ino ino(uint32_t i)
{
	return (struct vol_ino){.folder = {{1, 2, (uint8_t)(i & 1)}}, .num = i + 1};
}

/* ---- records ---- */

static struct record *record_at(uint64_t epoch, uint64_t seq, uint64_t prev)
{
	struct record *r = record_new(5);

	r->epoch = epoch;
	r->seq = seq;
	r->prev_epoch = prev;
	return r;
}

static void add_write(struct record *r, uint32_t i, uint64_t off, uint32_t len, uint32_t gen)
{
	struct payload *p = payload_new(len);
	struct vol_ino n = ino(i);
	uint8_t fill = (uint8_t)(r->seq * 7 + r->epoch);

	for (uint32_t k = 0; k < len; k++)
		p->data[k] = (uint8_t)(fill + k / 97);
	assert_int_equal(record_write(r, &n, gen, off, p), 0);
	payload_unref(p);
}

static void add_random(struct record *r, uint32_t *gen)
{
	struct vol_ino n = ino(rnd(INODES));
	char key[20], value[200];
	uint32_t off = rnd(SPAN), len;

	switch (rnd(12)) {
	case 0:
	case 1:
	case 2:
		snprintf(key, sizeof(key), "%c%02u", "DEIX"[rnd(4)], rnd(20));
		memset(value, (int)r->seq, sizeof(value));
		assert_int_equal(record_put(r, key, strlen(key), value, rnd(sizeof(value))), 0);
		return;
	case 3:
		snprintf(key, sizeof(key), "%c%02u", "DEIX"[rnd(4)], rnd(20));
		assert_int_equal(record_del(r, key, strlen(key)), 0);
		return;
	case 4:
		assert_int_equal(record_trim(r, &n, ++*gen, rnd(2) ? off : off & ~4095u), 0);
		return;
	case 5:
		assert_int_equal(record_punch(r, &n, off, 1 + rnd(SPAN)), 0);
		return;
	case 6:
		if (rnd(4) == 0)
			assert_int_equal(record_drop(r, &n), 0);
		return;
	default:
		if (r->payload)
			return;
		len = rnd(3) ? 1 + rnd(9000) : 1 + rnd(80000);
		if (rnd(3) == 0) {
			off &= ~4095u;
			len = (len + 4095) & ~4095u;
		}
		add_write(r, rnd(INODES), off, len, *gen);
	}
}

static struct record *random_record(uint64_t epoch, uint64_t seq, uint64_t prev, uint32_t *gen)
{
	struct record *r = record_at(epoch, seq, prev);

	for (uint32_t n = 1 + rnd(3); n > 0; n--)
		add_random(r, gen);
	if (r->n == 0)
		record_note(r);
	return r;
}

/* ---- comparing ---- */

static int next_item(struct replica *r, struct delta_cursor *c, struct delta_item *it)
{
	int err;

	do
		err = replica_delta_next(r, c, it);
	while (err == 0 && *(const char *)it->key == 'S' && !it->deleted &&
	       ((const uint8_t *)it->value)[4] == 0 &&
	       ((const uint8_t *)it->value)[5] == 0); /* a stripe of holes is none */
	return c->full ? err : -ENOENT;
}

static void same_keys(struct member *a, struct member *b)
{
	struct delta_cursor x, y;
	struct delta_item i, j;
	int e1, e2;

	replica_delta_start(&a->r, 0, &x);
	replica_delta_start(&b->r, 0, &y);
	for (;;) {
		e1 = next_item(&a->r, &x, &i);
		e2 = next_item(&b->r, &y, &j);
		assert_int_equal(e1, e2);
		if (e1 < 0)
			return;
		assert_int_equal(i.key_len, j.key_len);
		assert_memory_equal(i.key, j.key, i.key_len);
		if (i.seq != j.seq)
			fail_msg("key %.*s (%zu): seq %llu and %llu", (int)i.key_len, (const char *)i.key,
				 i.key_len, (unsigned long long)i.seq, (unsigned long long)j.seq);
		assert_int_equal(i.value_len, j.value_len);
		if (i.value_len > 0)
			assert_memory_equal(i.value, j.value, i.value_len);
	}
}

static void same_data(struct member *a, struct member *b)
{
	static uint8_t x[2 * SPAN + 8192], y[2 * SPAN + 8192];

	for (uint32_t i = 0; i < INODES; i++) {
		struct vol_ino n = ino(i);
		uint64_t bad = 0;

		assert_int_equal(replica_read(&a->r, &n, 0, x, sizeof(x), &bad), 0);
		assert_int_equal(replica_read(&b->r, &n, 0, y, sizeof(y), &bad), 0);
		assert_memory_equal(x, y, sizeof(x));
	}
}

/* ---- plain ---- */

static void apply(struct member *m, struct record *r)
{
	assert_int_equal(replica_apply(&m->r, r, false), 0);
	record_unref(r);
}

static void test_data(void **state)
{
	static uint8_t model[SPAN + 100000], got[SPAN + 100000];
	struct vol_ino n = ino(0);
	struct member m;
	uint64_t bad;

	seed = 3;
	member_init(&m);
	for (uint64_t seq = 1; seq <= 1500; seq++) {
		struct record *r = record_at(1, seq, seq > 1);
		uint32_t off = rnd(SPAN), len = 1 + rnd(rnd(2) ? 5000 : 90000);

		switch (rnd(6)) {
		case 0:
			record_trim(r, &n, 1, off);
			memset(model + off, 0, sizeof(model) - off);
			break;
		case 1:
			record_punch(r, &n, off, len);
			memset(model + off, 0, len);
			break;
		default:
			add_write(r, 0, off, len, 1);
			memcpy(model + off, r->payload->data, len);
		}
		apply(&m, r);
		off = rnd(SPAN);
		len = 1 + rnd(90000);
		assert_int_equal(replica_read(&m.r, &n, off, got, len, &bad), 0);
		assert_memory_equal(got, model + off, len);
	}
	/* where data is, and the checksums that go with it */
	for (uint64_t at = 0;;) {
		uint32_t crc[2];
		uint64_t data, hole;

		if (replica_seek_data(&m.r, &n, at, false, &data) < 0)
			break;
		assert_int_equal(replica_seek_data(&m.r, &n, data, true, &hole), 0);
		assert_true(hole > data && data >= at);
		for (uint64_t b = at; b + 4096 <= data; b += 4096) {
			assert_int_equal(replica_crcs(&m.r, &n, b, 4096, crc), 0);
			assert_int_equal(crc[0], BLOCK_CRC_HOLE);
		}
		assert_int_equal(replica_crcs(&m.r, &n, data, 1, crc), 0);
		assert_int_equal(crc[0], block_crc(model + data / 4096 * 4096));
		at = hole;
	}
	member_done(&m);
}

/* What a hole has on the disk (of a record that was cut) is never seen. */
static void test_hole(void **state)
{
	uint8_t junk[4096], got[4096];
	struct vol_ino n = ino(0);
	struct member m;
	struct record *r;
	uint64_t bad;

	member_init(&m);
	memset(junk, 0xaa, sizeof(junk));
	mem_blob_table(m.blob)->write(mem_blob_table(m.blob), 5, &n, 8192, junk, sizeof(junk));
	assert_int_equal(replica_read(&m.r, &n, 8192, got, 4096, &bad), 0);
	assert_int_equal(got[0] | got[4095], 0);
	r = record_at(1, 1, 0);
	add_write(r, 0, 8192 + 100, 50, 0);
	apply(&m, r);
	assert_int_equal(replica_read(&m.r, &n, 8192, got, 4096, &bad), 0);
	assert_int_equal(got[99] | got[150] | got[4095], 0);
	assert_int_not_equal(got[100], 0);
	member_done(&m);
}

static void test_rot(void **state)
{
	uint8_t got[40960];
	struct vol_ino n = ino(0), at = {0};
	struct pull_range range[PULL_RANGES_MAX];
	struct member a, b;
	struct record *r;
	uint64_t bad = 0, off = 0;
	uint32_t crcs[16], count;
	size_t n_ranges;

	member_init(&a);
	member_init(&b);
	r = record_at(1, 1, 0);
	add_write(r, 0, 0, 65536, 0);
	assert_int_equal(replica_apply(&b.r, r, false), 0);
	apply(&a, r);
	assert_true(mem_blob_rot(a.blob, 5, &n, 20480));
	assert_int_equal(replica_read(&a.r, &n, 100, got, 30000, &bad), -EIO);
	assert_int_equal(bad, 20480);
	/* a partial write does not make it good */
	r = record_at(1, 2, 1);
	add_write(r, 0, 20490, 10, 0);
	assert_int_equal(replica_apply(&b.r, r, false), 0);
	apply(&a, r);
	assert_int_equal(replica_read(&a.r, &n, 20480, got, 4096, &bad), -EIO);
	assert_true(mem_blob_rot(a.blob, 5, &n, 0));
	assert_int_equal(replica_verify(&a.r, &n, 0, 65536, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(replica_bad_next(&a.r, &at, &off, range, &n_ranges), 0);
	assert_int_equal(n_ranges, 1);
	assert_int_equal(range[0].off, 0);
	assert_int_equal(range[0].len, 6 * 4096); /* blocks 0 and 5 */
	range[0].len = 65536;
	/* from a good copy; not over what changed meanwhile */
	assert_int_equal(replica_pull_begin(&a.r, range), 0);
	assert_int_equal(replica_pull_begin(&a.r, range), -EBUSY);
	assert_int_equal(replica_crcs(&b.r, &n, 0, 65536, crcs), 0);
	static uint8_t data[65536];
	assert_int_equal(replica_read(&b.r, &n, 0, data, sizeof(data), &bad), 0);
	r = record_at(1, 3, 2);
	add_write(r, 0, 5, 10, 0);
	assert_int_equal(replica_apply(&b.r, r, false), 0);
	apply(&a, r);
	assert_int_equal(replica_pull_data(&a.r, range, 2, crcs, data, 65536), 0);
	assert_int_equal(replica_verify(&a.r, &n, 0, 65536, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(replica_pull_begin(&a.r, range), 0);
	assert_int_equal(replica_crcs(&b.r, &n, 0, 65536, crcs), 0);
	assert_int_equal(replica_read(&b.r, &n, 0, data, sizeof(data), &bad), 0);
	assert_int_equal(replica_pull_data(&a.r, range, 4, crcs, data, 65536),
			 -EAGAIN); /* it knows records that are not here */
	assert_int_equal(replica_pull_begin(&a.r, range), 0);
	assert_int_equal(replica_pull_data(&a.r, range, 3, crcs, data, 65536), 0);
	off = 0;
	at = (struct vol_ino){0};
	assert_int_equal(replica_bad_next(&a.r, &at, &off, range, &n_ranges), 0);
	assert_int_equal(n_ranges, 0);
	same_keys(&a, &b);
	same_data(&a, &b);
	member_done(&a);
	member_done(&b);
}

static void test_view(void **state)
{
	struct member m;
	struct record *r;
	struct kv v;
	const void *key, *value;
	size_t key_len, len;

	member_init(&m);
	r = record_at(1, 1, 0);
	record_put(r, "E1", 2, "one", 3);
	record_put(r, "Iab", 3, "", 0);
	record_put(r, "X", 1, "x", 1);
	add_write(r, 0, 0, 10, 3);
	struct vol_ino n = ino(0);
	record_trim(r, &n, 7, 5);
	apply(&m, r);
	replica_view(&m.r, &v);
	assert_int_equal(v.get(&v, "E1", 2, &value, &len), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(value, "one", 3);
	assert_int_equal(v.get(&v, "G", 1, &value, &len), -ENOENT);
	assert_int_equal(v.get(&v, "E", 1, &value, &len), -ENOENT);
	assert_int_equal(v.seek(&v, "", 0, false, 0, &key, &key_len, &value, &len), 0);
	assert_memory_equal(key, "E1", 2);
	assert_int_equal(v.seek(&v, "E1", 2, true, 0, &key, &key_len, &value, &len), 0);
	assert_memory_equal(key, "Iab", 3); /* H and G are not seen */
	assert_int_equal(len, 0);
	assert_int_equal(v.seek(&v, "J", 1, false, 0, &key, &key_len, &value, &len), 0);
	assert_memory_equal(key, "X", 1); /* nor S */
	assert_int_equal(v.seek(&v, "X", 1, true, 0, &key, &key_len, &value, &len), -ENOENT);
	assert_int_equal(v.seek(&v, "E", 1, false, 1, &key, &key_len, &value, &len), 0);
	assert_memory_equal(key, "E1", 2);
	assert_int_equal(v.seek(&v, "E1", 2, true, 1, &key, &key_len, &value, &len), -ENOENT);
	assert_int_equal(v.seek(&v, "J", 1, false, 1, &key, &key_len, &value, &len), -ENOENT);
	assert_int_equal(v.put(&v, "E", 1, "", 0), -EPERM);
	uint32_t gen;
	assert_int_equal(replica_slice_gen(&m.r, &n, &gen), 0);
	assert_int_equal(gen, 7);
	/* sequence */
	r = record_at(1, 3, 1);
	assert_int_equal(replica_apply(&m.r, r, false), -EBADMSG);
	record_unref(r);
	/* what is saved is found again */
	assert_int_equal(replica_save(&m.r, 1), 0);
	struct replica again;
	uint64_t committed;
	assert_int_equal(replica_init(&again, 5, STRIPE, mem_kv_table(m.kv), mem_blob_table(m.blob)), 0);
	assert_int_equal(again.seq, 1);
	assert_int_equal(again.epoch, 1);
	assert_int_equal(replica_saved_committed(&again, &committed), 0);
	assert_int_equal(committed, 1);
	replica_done(&again);
	member_done(&m);
}

/* A checkpoint, then a log with patches: keys come out the same though the data on the disk is newer than each record. */
static void test_replay(void **state)
{
	struct record *log[400];
	struct replica_patch *patch[400];
	uint32_t n_patches[400], gen = 0;
	struct member m, back;

	for (uint64_t run = 1; run <= 20; run++) {
		seed = run * 999;
		member_init(&m);
		for (uint32_t i = 0; i < 100; i++)
			apply(&m, random_record(1, m.r.seq + 1, m.r.seq > 0, &gen));
		replica_save(&m.r, 100);
		back = (struct member){.kv = mem_kv_clone(m.kv), .blob = m.blob};
		for (uint32_t i = 0; i < ARRAY_SIZE(log); i++) {
			log[i] = random_record(1, m.r.seq + 1, 1, &gen);
			assert_int_equal(replica_apply(&m.r, log[i], false), 0);
			n_patches[i] = m.r.n_patches;
			patch[i] = xcalloc(m.r.n_patches + 1, sizeof(*patch[i]));
			memcpy(patch[i], m.r.patch, m.r.n_patches * sizeof(*patch[i]));
		}
		assert_int_equal(
			replica_init(&back.r, 5, STRIPE, mem_kv_table(back.kv), mem_blob_table(back.blob)),
			0);
		for (uint32_t i = 0; i < ARRAY_SIZE(log); i++) {
			memcpy(back.r.patch, patch[i], n_patches[i] * sizeof(*patch[i]));
			back.r.n_patches = n_patches[i];
			assert_int_equal(replica_apply(&back.r, log[i], true), 0);
			record_unref(log[i]);
			free(patch[i]);
		}
		same_keys(&m, &back);
		same_data(&m, &back);
		replica_done(&back.r);
		mem_kv_free(back.kv);
		member_done(&m);
	}
}

/* ---- catching up ---- */

struct world {
	struct member source[2], away; /* source[0] is the primary; [1] lags */
	struct record *rec[4000];      /* by seq */
	uint64_t n, epoch, given;      /* given: newest live record at the member */
	uint32_t gen;
	struct delta_cursor cursor;
	bool walking, ended;
	uint64_t end_seq;
	struct answer {
		struct pull_range range;
		uint64_t seq;
		uint32_t crcs[STRIPE / 4096];
		uint8_t *data;
	} answer[8];
	uint32_t n_answers;
	struct pull_range queue[2000];
	uint32_t n_queue;
	uint32_t pulled;
};

static void world_write(struct world *w)
{
	uint64_t prev = w->n > 0 ? w->rec[w->n]->epoch : 0;

	w->rec[w->n + 1] = random_record(w->epoch, w->n + 1, prev, &w->gen);
	w->n++;
	assert_int_equal(replica_apply(&w->source[0].r, w->rec[w->n], false), 0);
}

static void lagging(struct world *w, uint64_t upto)
{
	while (w->source[1].r.seq < upto)
		assert_int_equal(replica_apply(&w->source[1].r, w->rec[w->source[1].r.seq + 1], false), 0);
}

/* One pull answered at a source that has what is asked for, or refused. */
static void world_pull(struct world *w)
{
	struct pull_range range = w->queue[--w->n_queue];
	struct replica *s = &w->source[rnd(2)].r;
	struct answer *a = &w->answer[w->n_answers];
	uint64_t bad = 0;

	if (replica_pull_begin(&w->away.r, &range) < 0)
		return;
	if (s->seq < range.seq)
		s = &w->source[0].r;
	a->range = range;
	a->seq = s->seq;
	a->data = xcalloc(1, range.len);
	assert_int_equal(replica_crcs(s, &range.ino, range.off, range.len, a->crcs), 0);
	assert_int_equal(replica_read(s, &range.ino, range.off, a->data, range.len, &bad), 0);
	w->n_answers++;
}

static void world_answer(struct world *w, bool lost)
{
	uint32_t i = rnd(w->n_answers);
	struct answer a = w->answer[i];

	w->answer[i] = w->answer[--w->n_answers];
	assert_int_equal(
		replica_pull_data(&w->away.r, &a.range, a.seq, a.crcs, lost ? NULL : a.data, a.range.len), 0);
	w->pulled += lost ? 0 : a.range.len / 4096;
	free(a.data);
}

static void world_walk(struct world *w)
{
	struct replica *s = &w->source[0].r;
	struct pull_range range[PULL_RANGES_MAX];
	struct delta_item it;
	size_t n;
	int err = replica_delta_next(s, &w->cursor, &it);

	if (err == -ENOENT) {
		w->ended = true;
		w->end_seq = s->seq;
		return;
	}
	assert_int_equal(err, 0);
	w->ended = false;
	assert_int_equal(replica_delta_apply(&w->away.r, &it, range, &n), 0);
	for (size_t i = 0; i < n && w->n_queue < ARRAY_SIZE(w->queue); i++)
		w->queue[w->n_queue++] = range[i];
}

static bool world_bad(struct world *w)
{
	struct vol_ino at = {0};
	struct pull_range range[PULL_RANGES_MAX];
	uint64_t off = 0;
	size_t n;
	bool any = false;

	for (;;) {
		assert_int_equal(replica_bad_next(&w->away.r, &at, &off, range, &n), 0);
		if (n == 0)
			return any;
		any = true;
		for (size_t i = 0; i < n && w->n_queue < ARRAY_SIZE(w->queue); i++)
			w->queue[w->n_queue++] = range[i];
	}
}

static void world_begin(struct world *w, bool continued)
{
	uint64_t since;

	while (w->n_answers > 0)
		free(w->answer[--w->n_answers].data);
	w->n_queue = 0;
	assert_int_equal(replica_delta_begin(&w->away.r, continued, &since), 0);
	replica_delta_start(&w->source[0].r, since, &w->cursor);
	if (w->cursor.full && since > 0)
		assert_int_equal(replica_delta_wipe(&w->away.r), 0);
	w->ended = false;
	w->given = w->n; /* live records from here on */
}

static void live(struct world *w)
{
	if (w->given < w->n)
		assert_int_equal(replica_apply_live(&w->away.r, w->rec[++w->given]), 0);
}

/* Random steps until the member is caught up. */
static void catch_up(struct world *w, uint32_t writes)
{
	for (uint32_t step = 0; step < 100000; step++) {
		switch (rnd(8)) {
		case 0:
			if (writes > 0) {
				writes--;
				world_write(w);
				lagging(w, w->n > 8 ? w->n - rnd(8) : 0);
			}
			break;
		case 1:
			live(w);
			break;
		case 2:
		case 3:
			world_walk(w);
			break;
		case 4:
		case 5:
			if (w->n_queue > 0 && w->n_answers < ARRAY_SIZE(w->answer))
				world_pull(w);
			break;
		default:
			if (w->n_answers > 0)
				world_answer(w, rnd(10) == 0);
		}
		if (w->ended && w->n_queue == 0 && w->n_answers == 0 && !world_bad(w) &&
		    replica_delta_end(&w->away.r, false, w->epoch, w->end_seq) == 0)
			return;
	}
	fail_msg("seed %llu: never caught up", (unsigned long long)seed);
}

static void world_init(struct world *w, uint64_t s)
{
	memset(w, 0, sizeof(*w));
	seed = s * 7919 + 13;
	w->epoch = 1;
	for (int i = 0; i < 2; i++)
		member_init(&w->source[i]);
	member_init(&w->away);
}

static void world_done(struct world *w)
{
	for (uint64_t i = 1; i <= w->n; i++)
		record_unref(w->rec[i]);
	while (w->n_answers > 0)
		free(w->answer[--w->n_answers].data);
	for (int i = 0; i < 2; i++)
		member_done(&w->source[i]);
	member_done(&w->away);
}

static void finish(struct world *w)
{
	while (w->away.r.seq < w->n)
		assert_int_equal(replica_apply(&w->away.r, w->rec[w->away.r.seq + 1], false), 0);
	lagging(w, w->n);
	same_keys(&w->source[0], &w->source[1]);
	same_keys(&w->source[0], &w->away);
	same_data(&w->source[0], &w->away);
}

static void both(struct world *w, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		world_write(w);
		if (w->away.r.seq + 1 == w->n)
			assert_int_equal(replica_apply(&w->away.r, w->rec[w->n], false), 0);
	}
}

static void alone(struct world *w, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		world_write(w);
	lagging(w, w->n);
}

static void test_away(void **state)
{
	static struct world w;

	for (uint64_t run = 0; run < 300; run++) {
		world_init(&w, run);
		both(&w, rnd(60));
		alone(&w, 1 + rnd(60));
		if (rnd(3) == 0) /* the index was cut: everything is compared */
			while (replica_forget(&w.source[0].r, w.n - rnd(5)) == 1)
				;
		world_begin(&w, false);
		catch_up(&w, rnd(60));
		finish(&w);
		/* and it can be a source itself, away again with a broken link in between */
		both(&w, 10);
		alone(&w, rnd(30));
		world_begin(&w, false);
		for (uint32_t i = rnd(60); i > 0; i--)
			rnd(2) ? world_walk(&w) : live(&w);
		alone(&w, rnd(20));
		world_begin(&w, true);
		catch_up(&w, rnd(20));
		finish(&w);
		world_done(&w);
	}
}

/* While the member catches up, the primary is lost with records that nobody else has; they must leave no trace. */
static void test_lost_primary(void **state)
{
	static struct world w;

	for (uint64_t run = 0; run < 200; run++) {
		uint64_t known;
		struct member lost;

		world_init(&w, 5000 + run);
		both(&w, rnd(40));
		alone(&w, 1 + rnd(40));
		world_begin(&w, false);
		known = w.n;
		for (uint32_t i = 0; i < 40; i++) {
			if (rnd(2))
				world_write(&w);
			live(&w); /* uncommitted */
			if (w.source[0].r.seq == known)
				world_walk(&w);
			lagging(&w, known);
		}
		while (w.given < w.n)
			live(&w);
		/* source[1] takes over with its log */
		while (w.n > known)
			record_unref(w.rec[w.n--]);
		lost = w.source[0];
		w.source[0] = w.source[1];
		w.source[1] = lost;
		member_done(&w.source[1]);
		member_init(&w.source[1]);
		w.epoch = 2;
		lagging(&w, w.n);
		world_begin(&w, false);
		assert_true(w.cursor.full);
		catch_up(&w, rnd(40));
		finish(&w);
		world_done(&w);
	}
}

/* An empty member gets everything; one whose keys are lost but not its data fetches nothing that fits. */
static void test_full(void **state)
{
	static struct world w;

	world_init(&w, 77);
	alone(&w, 300);
	world_begin(&w, false);
	assert_true(w.cursor.full);
	catch_up(&w, 30);
	finish(&w);
	assert_true(w.pulled > 0);
	w.pulled = 0;
	w.away.r.dirty = true;
	world_begin(&w, false);
	assert_int_equal(w.away.r.seq, 0);
	catch_up(&w, 0);
	finish(&w);
	assert_int_equal(w.pulled, 0);
	world_done(&w);
}

/* Few changes in much data: only what changed is fetched. */
static void test_ranges(void **state)
{
	static struct world w;

	world_init(&w, 1);
	for (uint32_t i = 0; i < 30; i++) {
		struct record *r = record_at(1, w.n + 1, w.n > 0);

		add_write(r, 0, (uint64_t)i * STRIPE, STRIPE, 0);
		w.rec[++w.n] = r;
		for (int k = 0; k < 2; k++)
			assert_int_equal(replica_apply(&w.source[k].r, r, false), 0);
		assert_int_equal(replica_apply(&w.away.r, r, false), 0);
	}
	for (uint32_t i = 0; i < 10; i++) {
		struct record *r = record_at(1, w.n + 1, 1);

		add_write(r, 0, (uint64_t)i * 3 * STRIPE + 4096, 4096, 0);
		w.rec[++w.n] = r;
		for (int k = 0; k < 2; k++)
			assert_int_equal(replica_apply(&w.source[k].r, r, false), 0);
	}
	world_begin(&w, false);
	catch_up(&w, 0);
	finish(&w);
	assert_int_equal(w.pulled, 10);
	world_done(&w);
}

/* What an operation costs in keys. */
static void test_cost(void **state)
{
	struct mem_kv_calls c;
	struct member m;
	struct record *r;

	member_init(&m);
	r = record_at(1, 1, 0);
	add_write(r, 0, 0, 8192, 0);
	apply(&m, r);
	mem_kv_calls(m.kv, true);
	r = record_at(1, 2, 1);
	record_put(r, "I1", 2, "v", 1);
	record_put(r, "D1", 2, "v", 1);
	add_write(r, 0, 4096, 4096, 0);
	apply(&m, r);
	c = mem_kv_calls(m.kv, true);
	assert_int_equal(c.get, 1);
	assert_int_equal(c.put, 4); /* I, D, S, C */
	assert_int_equal(c.del, 0);
	assert_int_equal(c.seek, 0);
	member_done(&m);
}

static void test_errors(void **state)
{
	struct member m;
	struct record *r;

	member_init(&m);
	r = record_at(1, 1, 0);
	add_write(r, 0, 100, 5000, 0);
	mem_blob_fail(m.blob, 0, -ENOSPC);
	assert_int_equal(replica_apply(&m.r, r, false), -ENOSPC);
	assert_int_equal(m.r.seq, 0);
	mem_blob_fail(m.blob, UINT64_MAX, 0);
	mem_kv_fail(m.kv, 0, -EIO);
	assert_int_equal(replica_apply(&m.r, r, false), -EIO);
	mem_kv_fail(m.kv, UINT64_MAX, 0);
	record_unref(r);
	member_done(&m);
}

TEST_MAIN(cmocka_unit_test(test_data), cmocka_unit_test(test_hole), cmocka_unit_test(test_rot),
	  cmocka_unit_test(test_view), cmocka_unit_test(test_replay), cmocka_unit_test(test_away),
	  cmocka_unit_test(test_lost_primary), cmocka_unit_test(test_full), cmocka_unit_test(test_ranges),
	  cmocka_unit_test(test_cost), cmocka_unit_test(test_errors))
