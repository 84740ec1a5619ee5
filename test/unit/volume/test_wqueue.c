/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of writes behind: what is put together, what may fly, what errors say; and random interleavings against a plain file. A failure of the
 * model prints its seed: KUAYU_SEED=N runs that one, KUAYU_SEEDS=N that many. */
#include "test.h"

#include "volume/mount/wqueue.h"

#define FILES	   3
#define SIZE	   (WQ_EXTENT_MAX + (96u << 10)) /* of a file: one bound of extents in it */
#define NEAR_BOUND (WQ_EXTENT_MAX - (48u << 10))

static struct wq queue(uint64_t limit)
{
	return (struct wq){.limit = limit};
}

static void put(struct wq *q, struct wq_file *f, uint64_t off, const char *text)
{
	uint32_t len = (uint32_t)strlen(text);

	if (!wq_merge(q, f, 0, 0, off, text, len))
		wq_push(q, f, wq_extent_new(0, 0, off, text, len), 0);
}

static struct wq_extent *take(struct wq *q, uint64_t now)
{
	bool young = false;

	return wq_take(q, now, &young);
}

static void neighbours_are_put_together(void **s)
{
	struct wq q = queue(WQ_LIMIT_MIN);
	struct wq_file f;
	struct wq_extent *e;

	(void)s;
	wq_file_init(&f);
	put(&q, &f, 10, "abc");
	put(&q, &f, 13, "def");	   /* behind it */
	put(&q, &f, 11, "XY");	   /* over it */
	put(&q, &f, 14, "longer"); /* over its end */
	assert_int_equal(f.n_waiting, 1);
	put(&q, &f, 9, "-");  /* before it: one of its own */
	put(&q, &f, 13, "?"); /* not the newest any more */
	assert_int_equal(f.n_waiting, 3);
	e = take(&q, WQ_AGE_US);
	assert_int_equal(e->off, 10);
	assert_int_equal(e->len, 10);
	assert_memory_equal(e->data, "aXYdlonger", 10);
	wq_land(&q, e, 0);
	wq_drop(&q, &f, -EIO);
	assert_int_equal(q.bytes, 0);
	assert_null(q.busy);
}

static void other_users_bytes_and_sealed_ones_are_apart(void **s)
{
	struct wq q = queue(WQ_LIMIT_MIN);
	struct wq_file f;

	(void)s;
	wq_file_init(&f);
	put(&q, &f, 0, "abc");
	assert_false(wq_merge(&q, &f, 1, 0, 3, "d", 1));
	assert_false(wq_merge(&q, &f, 0, 1, 3, "d", 1));
	assert_false(wq_merge(&q, &f, 0, 0, 4, "d", 1)); /* a gap */
	(void)wq_mark(&q, &f);
	assert_false(wq_merge(&q, &f, 0, 0, 3, "d", 1));
	wq_drop(&q, &f, -EIO);
}

static void what_overlaps_waits(void **s)
{
	struct wq q = queue(WQ_LIMIT_MIN);
	struct wq_file f;
	struct wq_extent *a, *b;

	(void)s;
	wq_file_init(&f);
	put(&q, &f, 0, "aaaa");
	put(&q, &f, 8, "bbbb");
	put(&q, &f, 2, "cc");
	put(&q, &f, 20, "dd");
	a = take(&q, WQ_AGE_US);
	b = take(&q, WQ_AGE_US);
	assert_true(a && b && a->off == 0 && b->off == 8);
	assert_null(take(&q, WQ_AGE_US)); /* c overlaps a, d keeps its place behind c */
	wq_land(&q, b, 0);
	assert_null(take(&q, WQ_AGE_US));
	wq_land(&q, a, 0);
	f.held = 1;
	assert_null(take(&q, WQ_AGE_US));
	f.held = 0;
	a = take(&q, WQ_AGE_US);
	b = take(&q, WQ_AGE_US);
	assert_true(a && b && a->off == 2 && b->off == 20);
	wq_land(&q, a, 0);
	wq_land(&q, b, 0);
	assert_true(wq_idle(&f));
}

static void the_newest_waits_for_neighbours_a_while(void **s)
{
	struct wq q = queue(WQ_LIMIT_MIN);
	struct wq_file f;
	struct wq_extent *e;
	bool young = false;

	(void)s;
	wq_file_init(&f);
	put(&q, &f, 0, "a");
	assert_null(wq_take(&q, WQ_AGE_US - 1, &young));
	assert_true(young);
	assert_false(wq_ripe(&f));
	put(&q, &f, 100, "b");
	e = wq_take(&q, 0, &young); /* not the newest */
	assert_int_equal(e->off, 0);
	assert_null(wq_take(&q, 0, &young));
	(void)wq_mark(&q, &f); /* somebody drains it */
	assert_true(wq_ripe(&f));
	assert_null(wq_take_only(&f));
	wq_land(&q, e, 0);
	e = wq_take_only(&f);
	assert_int_equal(e->off, 100);
	wq_land(&q, e, 0);
}

static void there_is_a_bound_for_all_and_for_one(void **s)
{
	struct wq q = queue(WQ_LIMIT_MIN);
	struct wq_file f, g;
	uint8_t *big = xcalloc(1, WQ_EXTENT_MAX);
	uint32_t n = 0;

	(void)s;
	wq_file_init(&f);
	wq_file_init(&g);
	for (; wq_room(&q, &f, WQ_EXTENT_MAX) && n < 100; n++)
		wq_push(&q, &f, wq_extent_new(0, 0, (uint64_t)n * WQ_EXTENT_MAX, big, WQ_EXTENT_MAX), 0);
	assert_int_equal(n, 2); /* three quarters, with the overhead */
	assert_true(wq_room(&q, &g, WQ_EXTENT_MAX));
	wq_push(&q, &g, wq_extent_new(0, 0, 0, big, WQ_EXTENT_MAX), 0);
	assert_false(wq_room(&q, &g, WQ_EXTENT_MAX));
	assert_true(q.bytes <= q.limit);
	wq_drop(&q, &f, -EIO);
	wq_drop(&q, &g, -EIO);
	assert_int_equal(q.bytes, 0);
	free(big);
}

static void each_open_file_hears_of_an_error_once(void **s)
{
	struct wq q = queue(WQ_LIMIT_MIN);
	struct wq_file f;
	struct wq_open a, b, c;

	(void)s;
	wq_file_init(&f);
	wq_opened(NULL, &a);
	wq_opened(&f, &b);
	put(&q, &f, 0, "a");
	wq_land(&q, take(&q, WQ_AGE_US), -ENOSPC);
	assert_int_equal(wq_error_write(&f, &a), -ENOSPC);
	assert_int_equal(wq_error_write(&f, &a), 0);
	assert_int_equal(wq_error_sync(&f, &a), -ENOSPC); /* told by write already, but never silent here */
	assert_int_equal(wq_error_sync(&f, &a), 0);
	assert_int_equal(wq_error_sync(&f, &b), -ENOSPC);
	assert_int_equal(wq_error_write(&f, &b), 0);
	wq_opened(&f, &c); /* somebody has heard of it: not news */
	assert_int_equal(wq_error_sync(&f, &c), 0);
	put(&q, &f, 0, "b");
	wq_land(&q, take(&q, WQ_AGE_US), -EIO);
	wq_opened(&f, &c); /* nobody has */
	assert_int_equal(wq_error_sync(&f, &c), -EIO);
	assert_int_equal(wq_error_sync(&f, &a), -EIO);
}

/* ---- the model ---- */

struct mark {
	uint64_t number;
	uint32_t *stamp; /* of the model then; NULL = unused */
};

struct world {
	struct wq q;
	struct wq_file file[FILES];
	uint8_t *model[FILES], *brick[FILES];
	uint32_t *stamp[FILES], *landed[FILES]; /* number of the write that each byte is of */
	struct wq_extent *flying[FILES * WQ_FLYING_MAX];
	uint32_t *flying_stamp[FILES * WQ_FLYING_MAX]; /* the stamps of its bytes when it took off */
	uint32_t n, writes;
	struct mark mark[FILES];
	uint64_t random, seed, serial[FILES];
};

static uint32_t rnd(struct world *w, uint32_t below)
{
	w->random = w->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((w->random >> 33) % below);
}

#define must(w, cond)                                                                    \
	do {                                                                             \
		if (!(cond))                                                             \
			fail_msg("seed %llu: %s", (unsigned long long)(w)->seed, #cond); \
	} while (0)

static void a_write(struct world *w)
{
	static uint8_t data[64u << 10];
	uint32_t i = rnd(w, FILES), len = 1 + rnd(w, rnd(w, 4) ? 5000 : sizeof(data));
	uint32_t off = rnd(w, 3) ? NEAR_BOUND + rnd(w, 96u << 10) : rnd(w, SIZE);
	struct wq_file *f = &w->file[i];

	if (f->newest && rnd(w, 2)) /* go on where the newest ends */
		off = (uint32_t)(f->newest->off + f->newest->len);
	off = MIN(off, SIZE - 1);
	len = (uint32_t)MIN((uint64_t)len, MIN(SIZE - off, WQ_EXTENT_MAX - off % WQ_EXTENT_MAX));
	if (!wq_room(&w->q, f, len))
		return;
	w->writes++;
	for (uint32_t k = 0; k < len; k++) {
		data[k] = (uint8_t)rnd(w, 256);
		w->stamp[i][off + k] = w->writes;
	}
	memcpy(w->model[i] + off, data, len);
	if (!wq_merge(&w->q, f, 0, 0, off, data, len))
		wq_push(&w->q, f, wq_extent_new(0, 0, off, data, len), w->writes);
	must(w, w->q.bytes <= w->q.limit);
}

static void takes_off(struct world *w)
{
	bool young = false;
	struct wq_extent *e = wq_take(&w->q, w->writes + rnd(w, 2) * WQ_AGE_US, &young);
	uint32_t i;

	if (!e)
		return;
	i = (uint32_t)(e->file - w->file);
	must(w, e->serial > w->serial[i]); /* in the order of the FIFO */
	must(w, e->off / WQ_EXTENT_MAX == (e->off + e->len - 1) / WQ_EXTENT_MAX);
	w->serial[i] = e->serial;
	for (uint32_t k = 0; k < w->n; k++)
		must(w, w->flying[k]->file != e->file || w->flying[k]->off + w->flying[k]->len <= e->off ||
				e->off + e->len <= w->flying[k]->off);
	/* A byte's newest write is in this extent or in a later one: then the stamp is too new here, which only weakens the check. */
	w->flying_stamp[w->n] = memcpy(xcalloc(e->len, 4), w->stamp[i] + e->off, e->len * 4u);
	w->flying[w->n++] = e;
	must(w, e->file->n_flying <= WQ_FLYING_MAX);
}

/* At the brick: any of those in flight, any number of times before its answer. */
static void arrives(struct world *w, uint32_t k)
{
	struct wq_extent *e = w->flying[k];
	uint32_t i = (uint32_t)(e->file - w->file);

	memcpy(w->brick[i] + e->off, e->data, e->len);
	memcpy(w->landed[i] + e->off, w->flying_stamp[k], e->len * 4u);
}

static void lands(struct world *w)
{
	uint32_t k;

	if (w->n == 0)
		return;
	k = rnd(w, w->n);
	arrives(w, k);
	wq_land(&w->q, w->flying[k], 0);
	free(w->flying_stamp[k]);
	w->n--;
	w->flying[k] = w->flying[w->n];
	w->flying_stamp[k] = w->flying_stamp[w->n];
}

static void drains(struct world *w)
{
	uint32_t i = rnd(w, FILES);
	struct mark *m = &w->mark[i];

	if (m->stamp)
		return;
	m->number = wq_mark(&w->q, &w->file[i]);
	m->stamp = memcpy(xcalloc(SIZE, 4), w->stamp[i], SIZE * 4u);
}

/* What was written before a drain began is there when it ends, or newer bytes are. */
static void look_at_marks(struct world *w)
{
	for (uint32_t i = 0; i < FILES; i++) {
		struct mark *m = &w->mark[i];

		if (!m->stamp || !wq_settled(&w->file[i], m->number))
			continue;
		for (uint32_t k = 0; k < SIZE; k++)
			must(w, w->landed[i][k] >= m->stamp[k]);
		free(m->stamp);
		m->stamp = NULL;
	}
}

static void one_world(uint64_t seed)
{
	struct world *w = xcalloc(1, sizeof(*w));

	*w = (struct world){.q = queue(WQ_LIMIT_MIN), .random = seed * 2 + 1, .seed = seed};
	for (int i = 0; i < FILES; i++) {
		wq_file_init(&w->file[i]);
		w->model[i] = xcalloc(1, SIZE);
		w->brick[i] = xcalloc(1, SIZE);
		w->stamp[i] = xcalloc(SIZE, 4);
		w->landed[i] = xcalloc(SIZE, 4);
	}
	for (int step = 0; step < 1500; step++) {
		uint32_t what = rnd(w, 16);

		if (what < 7)
			a_write(w);
		else if (what < 11)
			takes_off(w);
		else if (what < 14)
			lands(w);
		else if (what == 14 && w->n > 0)
			arrives(w, rnd(w, w->n));
		else
			drains(w);
		if (step % 16 == 0)
			look_at_marks(w);
	}
	for (int i = 0; i < FILES; i++)
		(void)wq_mark(&w->q, &w->file[i]);
	for (int step = 0; w->q.busy && step < 100000; step++) {
		takes_off(w);
		if (rnd(w, 2))
			lands(w);
	}
	look_at_marks(w);
	must(w, w->q.busy == NULL && w->q.bytes == 0 && w->n == 0);
	for (int i = 0; i < FILES; i++) {
		must(w, !w->mark[i].stamp);
		must(w, memcmp(w->model[i], w->brick[i], SIZE) == 0);
		free(w->model[i]);
		free(w->brick[i]);
		free(w->stamp[i]);
		free(w->landed[i]);
	}
	free(w);
}

static void any_interleaving_ends_as_the_writes_did(void **s)
{
	const char *one = getenv("KUAYU_SEED"), *many = getenv("KUAYU_SEEDS");
	uint64_t n = many ? strtoull(many, NULL, 10) : 30;

	(void)s;
	if (one)
		one_world(strtoull(one, NULL, 10));
	else
		for (uint64_t seed = 1; seed <= n; seed++)
			one_world(seed);
}

TEST_MAIN(cmocka_unit_test(neighbours_are_put_together),
	  cmocka_unit_test(other_users_bytes_and_sealed_ones_are_apart),
	  cmocka_unit_test(what_overlaps_waits), cmocka_unit_test(the_newest_waits_for_neighbours_a_while),
	  cmocka_unit_test(there_is_a_bound_for_all_and_for_one),
	  cmocka_unit_test(each_open_file_hears_of_an_error_once),
	  cmocka_unit_test(any_interleaving_ends_as_the_writes_did))
