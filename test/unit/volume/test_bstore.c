/* SPDX-License-Identifier: Apache-2.0 */
/* The brick's store against a model: appending, rollback, restarts, kill -9 at any moment, damage. Power loss: test/volume/bstore_power.c. */
#include "../test.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "bstore_model.h"
#include "volume/bstore.h"
#include "volume/bstore/mem.h"

#define LARGE (200u << 10)

struct ctx {
	char dir[64], run[64];
	uv_loop_t loop;
	struct bstore *b;
	struct bstore_options o;
	bool member[MODEL_GROUPS];
	struct err e;
};

static void ctx_init(struct ctx *c)
{
	*c = (struct ctx){0};
	snprintf(c->dir, sizeof(c->dir), "/tmp/bstore-test-XXXXXX");
	assert_non_null(mkdtemp(c->dir));
	snprintf(c->run, sizeof(c->run), "/dev/shm/bstore-test-%d", (int)getpid());
	assert_int_equal(uv_loop_init(&c->loop), 0);
	memset(c->member, true, sizeof(c->member));
	c->o = (struct bstore_options){.dir = c->dir,
				       .run_dir = c->run,
				       .uuid = {{1, 2, 3}},
				       .node = "a1",
				       .n_groups = MODEL_GROUPS,
				       .stripe_size = MODEL_STRIPE,
				       .member = c->member,
				       .map_bytes = 1u << 30,
				       .loop = &c->loop,
				       .turns = true}; /* data of small writes waits */
}

static int ctx_open(struct ctx *c)
{
	int r = bstore_open(&c->o, &c->b, &c->e);

	if (r < 0) {
		c->b = NULL;
		uv_run(&c->loop, UV_RUN_DEFAULT);
	}
	return r;
}

static void ctx_close(struct ctx *c)
{
	c->b = bstore_close(c->b);
	uv_run(&c->loop, UV_RUN_DEFAULT);
}

static void ctx_done(struct ctx *c)
{
	if (c->b)
		ctx_close(c);
	assert_int_equal(uv_loop_close(&c->loop), 0);
	dir_remove(c->dir, NULL);
	dir_remove(c->run, NULL);
}

/* Of a test with chance in it: another one each time, KUAYU_SEED repeats one. */
static uint64_t test_seed(void)
{
	const char *one = getenv("KUAYU_SEED");
	uint64_t seed = one ? strtoull(one, NULL, 10) : (uint64_t)getpid();

	print_message("KUAYU_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static void append(struct ctx *c, uint64_t seed, const struct model_history *h, uint32_t g, uint64_t epoch)
{
	struct record *rec = model_record(seed, h, g, epoch, bstore_replica(c->b, g)->seq + 1, LARGE);

	assert_int_equal(bstore_append(c->b, rec, false), 0);
	record_unref(rec);
}

/* The store's state is the model's; returns the number of bad blocks. */
static uint64_t check(struct ctx *c, uint64_t seed, const struct model_history *h)
{
	uint64_t all = 0, bad;

	for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
		struct replica *r = bstore_replica(c->b, g);
		struct model m;
		const char *text;

		if (!r) /* not here (test_leave) */
			continue;
		model_init(&m, g);
		model_run(&m, seed, h, r->epoch, r->seq, LARGE);
		text = model_compare(&m, r, &bad);
		if (text)
			fail_msg("seed %llu group %u at %llu/%llu: %s", (unsigned long long)seed, g,
				 (unsigned long long)r->epoch, (unsigned long long)r->seq, text);
		all += bad;
		model_done(&m);
	}
	return all;
}

static struct model_history one_epoch(void)
{
	struct model_history h = {0};

	for (uint32_t g = 0; g < MODEL_GROUPS; g++)
		h.start[g][1] = 1;
	return h;
}

static void test_mem(void **state)
{
	struct mem_map *m = mem_new(NULL);
	char key[16], last[16] = "";
	size_t n = 0;
	struct mem_entry *e;
	struct mem_pos pos;

	for (uint64_t i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "%05llu", (unsigned long long)(i * 7919 % 20000));
		e = mem_make(m, key, 5);
		assert_non_null(e);
		assert_ptr_equal(mem_find(m, key, 5), e);
		e->state = i % 3 ? MEM_VALUE : MEM_NONE;
	}
	assert_int_equal(m->n, 20000);
	assert_int_equal(mem_settle(m), 0);
	for (e = mem_seek(m, "", 0, false, &pos); e; e = mem_next(&pos), n++) {
		struct mem_pos other;

		assert_true(memcmp(last, e->key, 5) < 0);
		assert_true(n == 0 || mem_seek(m, last, 5, true, &other) == e);
		memcpy(last, e->key, 5);
	}
	assert_int_equal(n, 20000 - 6667);
	for (uint64_t i = 0; i < 30000; i++) { /* ascending: leaves stay full */
		snprintf(key, sizeof(key), "x%05llu", (unsigned long long)i);
		mem_make(m, key, 6)->state = MEM_VALUE;
	}
	assert_int_equal(mem_settle(m), 0);
	assert_int_equal(memcmp(mem_seek(m, "x00041", 6, true, &pos)->key, "x00042", 6), 0);
	assert_null(mem_seek(m, "x29999", 6, true, &pos));
	mem_free(m);
}

static void test_append_and_restart(void **state)
{
	struct model_history h = one_epoch();
	struct ctx c;

	ctx_init(&c);
	assert_int_equal(ctx_open(&c), 0);
	assert_false(bstore_group_sure(c.b, 0));
	bstore_set_sure(c.b, 0, true);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 90; i++) {
			append(&c, 7, &h, (uint32_t)i % MODEL_GROUPS, 1);
			if (i % 10 == 0)
				assert_int_equal(bstore_flush(c.b), 0);
			if (i % 25 == 24)
				bstore_set_committed(c.b, 0, bstore_replica(c.b, 0)->seq - 3);
			if (i == 40 && round == 1)
				assert_int_equal(bstore_checkpoint(c.b, &c.e), 0);
		}
		assert_int_equal(bstore_flush(c.b), 0);
		assert_int_equal(check(&c, 7, &h), 0);
		ctx_close(&c);
		assert_int_equal(ctx_open(&c), 0);
		for (uint32_t g = 0; g < MODEL_GROUPS; g++)
			assert_int_equal(bstore_replica(c.b, g)->seq, 30 * (round + 1));
		assert_true(bstore_group_sure(c.b, 0));
		assert_false(bstore_group_sure(c.b, 1));
		assert_int_equal(check(&c, 7, &h), 0);
		/* What was not known as committed can be sent again. */
		assert_non_null(bstore_fetch(c.b, 1, 30 * (uint64_t)(round + 1)));
	}
	ctx_done(&c);
}

static void test_refusals(void **state)
{
	struct ctx c;
	struct bstore *other;
	_cleanup_free_ char *path = NULL;
	const char *text = "{\"format\":99,\"volume\":\"01020300000000000000000000000000\",\"instance\":"
			   "\"01020300000000000000000000000000\"}";

	ctx_init(&c);
	assert_int_equal(ctx_open(&c), 0);
	assert_int_equal(bstore_open(&c.o, &other, &c.e), -EBUSY);
	assert_non_null(strstr(c.e.text, "another process"));
	ctx_close(&c);
	c.o.uuid.b[0] = 9;
	assert_int_equal(ctx_open(&c), -EEXIST);
	assert_non_null(strstr(c.e.text, "belongs to volume"));
	c.o.uuid.b[0] = 1;
	path = xasprintf("%s/brick.json", c.dir);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, NULL), 0);
	assert_int_equal(ctx_open(&c), -EPROTONOSUPPORT);
	assert_int_equal(file_write_atomic(path, "{", 1, 0600, NULL), 0);
	assert_int_equal(ctx_open(&c), -EBADMSG);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ctx_open(&c), -EEXIST); /* not empty, but no brick's */
	ctx_done(&c);
}

/* Cuts of uncommitted tails, in memory and over restarts; a checkpoint in the middle holds nothing of them. */
static void test_rollback(void **state)
{
	struct model_history h = one_epoch();
	struct ctx c;
	uint64_t epoch = 1, bad = 0;

	ctx_init(&c);
	assert_int_equal(ctx_open(&c), 0);
	for (int round = 0; round < 12; round++) {
		uint64_t keep = bstore_replica(c.b, 0)->seq + 5;

		for (int i = 0; i < 20; i++) {
			append(&c, 3, &h, 0, epoch);
			append(&c, 3, &h, 1, 1);
		}
		assert_int_equal(bstore_flush(c.b), 0);
		bstore_set_committed(c.b, 0, keep - (round % 3));
		bstore_set_committed(c.b, 1, keep);
		if (round % 2)
			assert_int_equal(bstore_checkpoint(c.b, &c.e), 0);
		assert_int_equal(bstore_rollback(c.b, 0, epoch, keep), 0);
		assert_int_equal(bstore_replica(c.b, 0)->seq, keep);
		assert_null(bstore_fetch(c.b, 0, keep + 1));
		h.start[0][++epoch] = keep + 1;
		bad += check(&c, 3, &h);
		if (round % 3 == 2) {
			ctx_close(&c);
			assert_int_equal(ctx_open(&c), 0);
			assert_int_equal(bstore_replica(c.b, 0)->seq, keep);
			check(&c, 3, &h);
		}
	}
	assert_true(bad > 0); /* cut records had written in place */
	/* Behind what is committed: it starts over, also after a restart. */
	bstore_set_committed(c.b, 1, bstore_replica(c.b, 1)->seq);
	assert_int_equal(bstore_rollback(c.b, 1, 1, 5), -ERANGE);
	assert_int_equal(bstore_replica(c.b, 1)->seq, 0);
	ctx_close(&c);
	assert_int_equal(ctx_open(&c), 0);
	assert_int_equal(bstore_replica(c.b, 1)->seq, 0);
	ctx_done(&c);
}

static void on_done(void *arg, int err)
{
	*(int *)arg = err == 0 ? 1 : err;
}

static size_t files_of(const struct ctx *c, uint32_t group)
{
	char pattern[128];
	glob_t found = {0};
	size_t n;

	snprintf(pattern, sizeof(pattern), "%s/data/%03x/*/*", c->dir, group);
	n = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
	globfree(&found);
	return n;
}

/* Steps of 7 keys; how many there were. */
static int remove_all(struct ctx *c, uint32_t group)
{
	int steps = 1, done = 0, r;

	while ((r = bstore_remove(c->b, group, 7)) == 1)
		assert_true(++steps < 100000);
	assert_int_equal(r, 0);
	bstore_settle(c->b, on_done, &done);
	while (!done)
		uv_run(&c->loop, UV_RUN_ONCE);
	assert_int_equal(done, 1);
	bstore_removed(c->b, group);
	return steps;
}

/* A group goes while the store is open, in steps; a restart in the middle finds the rest; others are not touched; it comes back as if it had never been here. */
static void test_leave(void **state)
{
	struct model_history h = one_epoch();
	struct ctx c;

	ctx_init(&c);
	assert_int_equal(ctx_open(&c), 0);
	for (int i = 0; i < 180; i++) {
		append(&c, 7, &h, (uint32_t)i % MODEL_GROUPS, 1);
		if (i == 90)
			assert_int_equal(bstore_checkpoint(c.b, &c.e), 0);
	}
	bstore_set_committed(c.b, 0, 20);
	assert_int_equal(bstore_flush(c.b), 0);
	assert_true(files_of(&c, 0) > 0 && files_of(&c, 1) > 0);
	assert_false(bstore_left_over(c.b, 0)); /* a member's */
	assert_int_equal(bstore_leave(c.b, 0), 0);
	assert_null(bstore_replica(c.b, 0));
	assert_true(bstore_left_over(c.b, 0));
	assert_int_equal(bstore_remove(c.b, 0, 3), 1);
	assert_int_equal(check(&c, 7, &h), 0);
	ctx_close(&c);

	c.member[0] = false;
	assert_int_equal(ctx_open(&c), 0);
	assert_null(bstore_replica(c.b, 0));
	assert_true(bstore_left_over(c.b, 0));
	assert_true(remove_all(&c, 0) > 1);
	assert_false(bstore_left_over(c.b, 0));
	assert_int_equal(files_of(&c, 0), 0);
	assert_int_equal(check(&c, 7, &h), 0);

	assert_int_equal(bstore_join(c.b, 0), 0);
	assert_int_equal(bstore_replica(c.b, 0)->seq, 0);
	assert_int_equal(bstore_committed(c.b, 0), 0);
	assert_false(bstore_group_sure(c.b, 0));
	for (int i = 0; i < 20; i++)
		append(&c, 7, &h, 0, 1);
	assert_int_equal(bstore_flush(c.b), 0);
	assert_int_equal(check(&c, 7, &h), 0);
	ctx_close(&c);
	c.member[0] = true;
	assert_int_equal(ctx_open(&c), 0);
	assert_int_equal(bstore_replica(c.b, 0)->seq, 20);
	assert_int_equal(check(&c, 7, &h), 0);
	ctx_done(&c);
}

/* A file as a slice's would be, with that name. */
static void make_file(struct ctx *c, const char *name)
{
	struct vol_id id;
	char full[160];
	int fd, n;

	assert_int_equal(vol_id_parse("00112233445566778899aabbccddeeff", &id), 0);
	n = snprintf(full, sizeof(full), "%s/data/000/%02x", c->dir, hash_fnv32(id.b, 16) & 0xff);
	assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
	snprintf(full + n, sizeof(full) - (size_t)n, "/%s", name);
	fd = open(full, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0 && write(fd, "x", 1) == 1);
	close(fd);
}

/* Data files of records that were lost go, a few a call; the others stay, and what is no data file. */
static void test_strays(void **state)
{
	struct model_history h = one_epoch();
	uint64_t removed, all = 0;
	uint32_t calls = 0;
	size_t before;
	struct ctx c;
	int r;

	ctx_init(&c);
	assert_int_equal(ctx_open(&c), 0);
	for (int i = 0; i < 120; i++)
		append(&c, 7, &h, (uint32_t)i % MODEL_GROUPS, 1);
	assert_int_equal(bstore_flush(c.b), 0);
	assert_int_equal(bstore_settle_data(c.b), 0);
	while ((r = bstore_strays(c.b, 0, 1, &removed)) > 0)
		assert_true(
			++calls <
			10000); /* what dropped files left is possible here: a model's file without stripes */
	assert_int_equal(r, 0);
	before = files_of(&c, 0);
	assert_true(before > 0);
	for (int i = 0; i < 30; i++) {
		char name[64];

		snprintf(name, sizeof(name), "00112233445566778899aabbccddeeff.%d", i);
		make_file(&c, name);
	}
	make_file(&c, "00112233445566778899aabbccddeeff.007"); /* not as one is written */
	make_file(&c, "README");
	assert_int_equal(files_of(&c, 0), before + 32);
	for (calls = 0; (r = bstore_strays(c.b, 0, 4, &removed)) > 0; calls++) {
		assert_true(removed <= 4);
		all += removed;
	}
	assert_int_equal(r, 0);
	assert_int_equal(all + removed, 30);
	assert_true(calls >= 30 / 4);
	assert_int_equal(files_of(&c, 0), before + 2);
	assert_int_equal(check(&c, 7, &h), 0);
	assert_int_equal(bstore_strays(c.b, 0, 1, &removed), 1); /* left in the middle */
	ctx_done(&c);
}

static void test_sync(void **state)
{
	struct model_history h = one_epoch();
	struct bstore_stats st;
	struct ctx c;
	int done[3] = {0};

	ctx_init(&c);
	c.o.turns = false;
	assert_int_equal(ctx_open(&c), 0);
	for (int i = 0; i < 20; i++)
		append(&c, 5, &h, 0, 1);
	for (int i = 0; i < 3; i++)
		bstore_sync(c.b, on_done, &done[i]);
	assert_int_equal(done[0], 0);
	while (!done[0] || !done[1] || !done[2])
		uv_run(&c.loop, UV_RUN_ONCE);
	assert_true(done[0] == 1 && done[1] == 1 && done[2] == 1);
	bstore_get_stats(c.b, &st);
	assert_int_equal(st.syncs, 1);
	assert_int_equal(st.checkpoints, 0);
	done[0] = 0;
	bstore_settle(c.b, on_done, &done[0]);
	while (!done[0])
		uv_run(&c.loop, UV_RUN_ONCE);
	bstore_get_stats(c.b, &st);
	assert_int_equal(st.checkpoints, 1);
	done[0] = 0;
	bstore_sync(c.b, on_done, &done[0]);
	ctx_close(&c);
	assert_true(done[0] == 1 || done[0] == -ECANCELED);
	ctx_done(&c);
}

/* Syncs begin at the end of the owner's turn; where they take no time (here: memory, on a quiet machine) they end there too. */
static void test_sync_turns(void **state)
{
	struct model_history h = one_epoch();
	struct bstore_stats st;
	struct ctx c;

	ctx_init(&c);
	dir_remove(c.dir, NULL);
	snprintf(c.dir, sizeof(c.dir), "/dev/shm/bstore-turns-%d", (int)getpid());
	assert_int_equal(mkdir(c.dir, 0700), 0);
	assert_int_equal(ctx_open(&c), 0);
	for (int i = 0; i < 200; i++) {
		int done = 0;

		append(&c, 5, &h, 0, 1);
		bstore_sync(c.b, on_done, &done);
		assert_int_equal(done, 0); /* never from inside */
		assert_false(bstore_turn(c.b));
		while (!done) { /* in the thread */
			uv_run(&c.loop, UV_RUN_ONCE);
			(void)bstore_turn(c.b);
		}
		assert_int_equal(done, 1);
	}
	bstore_get_stats(c.b, &st);
	assert_int_equal(st.syncs, 200);
	ctx_close(&c);
	ctx_done(&c);
}

/* ---- kill -9 ---- */

struct shared {
	struct model_history h;
	uint64_t epoch[MODEL_GROUPS], flushed[MODEL_GROUPS], committed[MODEL_GROUPS];
	_Atomic uint64_t steps;
};

/* Appends, flushes, commits, cuts and makes checkpoints until it is killed. */
static void writer(struct ctx *c, uint64_t seed, struct shared *sh)
{
	uint64_t s = seed * 31 + sh->steps;

	if (ctx_open(c) < 0)
		_exit(3);
	for (;; sh->steps++) {
		uint32_t g = (uint32_t)(s = s * 6364136223846793005ull + 1442695040888963407ull, s >> 40) %
			     MODEL_GROUPS;
		struct replica *r = bstore_replica(c->b, g);

		append(c, seed, &sh->h, g, sh->epoch[g]);
		if ((s >> 33) % 4 == 0) {
			if (((s >> 45) % 2 ? bstore_write_log(c->b) : bstore_flush(c->b)) < 0)
				_exit(4);
			for (g = 0; g < MODEL_GROUPS; g++)
				sh->flushed[g] = bstore_replica(c->b, g)->seq;
		}
		g = (uint32_t)(s >> 20) % MODEL_GROUPS;
		r = bstore_replica(c->b, g);
		if ((s >> 36) % 8 == 0 && sh->flushed[g] > 4 && sh->flushed[g] - 4 > sh->committed[g]) {
			bstore_set_committed(c->b, g, sh->flushed[g] - 4);
			sh->committed[g] = sh->flushed[g] - 4;
		}
		if ((s >> 50) % 24 == 0 && r->seq > sh->committed[g] && sh->epoch[g] + 1 < MODEL_EPOCHS) {
			uint64_t to = sh->committed[g] + (s >> 8) % (r->seq - sh->committed[g]);

			sh->flushed[g] = MIN(sh->flushed[g], to);
			if (bstore_rollback(c->b, g, model_epoch_of(&sh->h, g, sh->epoch[g], to), to) < 0)
				_exit(5);
			sh->h.start[g][sh->epoch[g] + 1] = to + 1;
			sh->epoch[g]++;
		}
		(void)bstore_turn(c->b);
		if ((s >> 44) % 3 == 0 && bstore_settle_data(c->b) < 0)
			_exit(6);
		bstore_tick(c->b);
		uv_run(&c->loop, UV_RUN_NOWAIT);
	}
}

static void test_kill(void **state)
{
	struct shared *sh =
		mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t seed = test_seed(), replayed = 0;
	struct ctx c;

	ctx_init(&c);
	c.o.checkpoint_ms = 60;
	sh->h = one_epoch();
	for (uint32_t g = 0; g < MODEL_GROUPS; g++)
		sh->epoch[g] = 1;
	for (int round = 0; round < 5; round++) {
		struct bstore_stats st;
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			writer(&c, seed, sh);
		usleep(100000 + (useconds_t)(seed * 77 + (uint64_t)round * 1234567) % 200000);
		for (int i = 0; i < 20000 && sh->steps <= 25 * (unsigned)(round + 1); i++)
			usleep(1000); /* a slow machine */
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFSIGNALED(status)) /* it runs until then */
			fail_msg("seed %llu, round %d: the writer ended by itself, status %d",
				 (unsigned long long)seed, round, WEXITSTATUS(status));
		assert_int_equal(ctx_open(&c), 0);
		bstore_get_stats(c.b, &st);
		replayed += st.replayed;
		for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
			struct replica *r = bstore_replica(c.b, g);

			assert_true(r->seq >= sh->flushed[g]);
			assert_true(bstore_committed(c.b, g) <= sh->committed[g]);
			/* A new epoch, wherever a cut was interrupted. */
			sh->flushed[g] = r->seq;
			sh->h.start[g][sh->epoch[g] + 1] = 0;
		}
		check(&c, seed, &sh->h);
		for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
			/* Epochs whose cut had not been flushed have never been. */
			for (uint64_t k = bstore_replica(c.b, g)->epoch + 1; k < MODEL_EPOCHS; k++)
				sh->h.start[g][k] = 0;
			sh->h.start[g][++sh->epoch[g]] = sh->flushed[g] + 1;
		}
		ctx_close(&c);
	}
	assert_true(sh->steps > 100);
	assert_true(replayed > 0);
	munmap(sh, sizeof(*sh));
	ctx_done(&c);
}

/* ---- damage ---- */

/* A folder as a killed process leaves it: a checkpoint, and a log behind it. */
static void make_folder(struct ctx *c, const struct model_history *h, uint64_t seed)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (ctx_open(c) < 0)
			_exit(1);
		for (int i = 0; i < 60; i++)
			append(c, seed, h, (uint32_t)i % MODEL_GROUPS, 1);
		for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
			bstore_set_sure(c->b, g, true);
			bstore_set_committed(c->b, g, 20);
		}
		if (bstore_checkpoint(c->b, NULL) < 0)
			_exit(2);
		for (int i = 0; i < 60; i++)
			append(c, seed, h, (uint32_t)i % MODEL_GROUPS, 1);
		_exit(bstore_flush(c->b) == 0 ? 0 : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void copy(const char *from, const char *to)
{
	const char *const rm[] = {"rm", "-rf", to, NULL}, *const cp[] = {"cp", "-a", "--sparse=always",
									 from, to,   NULL};

	assert_int_equal(proc_run_wait(&(struct proc_options){.argv = rm}, NULL, NULL), 0);
	assert_int_equal(proc_run_wait(&(struct proc_options){.argv = cp}, NULL, NULL), 0);
}

static void flip(const char *path, uint64_t at, uint8_t mask)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t v = 0;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &v, 1, (off_t)at), 1);
	v ^= mask;
	assert_int_equal(pwrite(fd, &v, 1, (off_t)at), 1);
}

struct verdict {	/* of a child about a damaged folder */
	bool lost;	/* a group lost records */
	char text[200]; /* what is wrong; empty: nothing */
};

static int wrong(struct verdict *v, uint32_t group, const char *text)
{
	snprintf(v->text, sizeof(v->text), "group %u: %s", group, text);
	return 2;
}

static int check_damaged(struct ctx *c, const struct model_history *h, uint64_t seed, struct verdict *v)
{
	if (ctx_open(c) < 0)
		return strlen(c->e.text) > 20 ? 1 : wrong(v, 0, "refused without a text");
	for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
		struct replica *r = bstore_replica(c->b, g);
		const char *text;
		struct model m;
		uint64_t bad;

		if (r->seq < 40) {
			v->lost = true;
			if (bstore_group_sure(c->b, g))
				return wrong(v, g, "lost records and is sure");
		}
		model_init(&m, g);
		model_run(&m, seed, h, r->epoch, r->seq, LARGE);
		text = model_compare(&m, r, &bad);
		if (text)
			return wrong(v, g, text);
		model_done(&m);
	}
	ctx_close(c);
	return 0;
}

/* In a child, because damage may end it: 0 = opened and what it has is right (damaged blocks aside), 1 = refused with a text. ret_lost: a group lost records. */
static int open_damaged(struct ctx *c, const struct model_history *h, uint64_t seed, int turn, bool *ret_lost)
{
	struct verdict *v = mmap(NULL, sizeof(*v), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		log_init("damaged", LOG_LEVEL_ERROR + 1);
		_exit(check_damaged(c, h, seed, v));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status))
		fail_msg("seed %llu, turn %d: ended by signal %d", (unsigned long long)seed, turn,
			 WTERMSIG(status));
	if (WEXITSTATUS(status) > 1)
		fail_msg("seed %llu, turn %d: %s", (unsigned long long)seed, turn, v->text);
	*ret_lost = v->lost;
	munmap(v, sizeof(*v));
	return WEXITSTATUS(status);
}

/* Up to where the file has anything but zeros. */
static uint64_t used(const char *path)
{
	_cleanup_free_ char *data = NULL;
	size_t n;

	assert_int_equal(file_read(path, 512u << 20, &data, &n, NULL), 0);
	while (n > 0 && data[n - 1] == 0)
		n--;
	return n;
}

/* A folder with content, a copy of it at *ret_good, and the path of the file in it that is to be damaged; both new. */
static void begin_damage(struct ctx *c, const struct model_history *h, uint64_t seed, const char *file,
			 char **ret_good, char **ret_path)
{
	ctx_init(c);
	*ret_good = xasprintf("%s.good", c->dir);
	*ret_path = xasprintf("%s/%s", c->dir, file);
	make_folder(c, h, seed);
	copy(c->dir, *ret_good);
}

static void end_damage(struct ctx *c, const char *good)
{
	dir_remove(good, NULL);
	ctx_done(c);
}

static void test_damaged_log(void **state)
{
	struct model_history h = one_epoch();
	uint64_t seed = test_seed(), lost = 0, s = seed, end;
	_cleanup_free_ char *good = NULL, *path = NULL;
	struct ctx c;
	bool one;

	begin_damage(&c, &h, seed, "log/00000001.log", &good, &path);
	assert_int_equal(open_damaged(&c, &h, seed, -1, &one), 0);
	assert_false(one);
	copy(good, c.dir);
	end = used(path);
	assert_true(end > 0);
	for (int i = 0; i < 12; i++) {
		copy(good, c.dir);
		for (int n = 0; n <= i % 3; n++) {
			s = s * 6364136223846793005ull + 1442695040888963407ull;
			flip(path, (s >> 20) % end, (uint8_t)(1u << (s >> 60) % 8));
		}
		assert_int_equal(open_damaged(&c, &h, seed, i, &one), 0);
		lost += one;
	}
	assert_true(lost > 0);
	copy(good, c.dir);
	assert_int_equal(truncate(path, 300000), 0);
	assert_int_equal(open_damaged(&c, &h, seed, 99, &one), 0);
	end_damage(&c, good);
}

static void test_damaged_meta(void **state)
{
	struct model_history h = one_epoch();
	uint64_t seed = test_seed(), refused = 0, s = seed;
	_cleanup_free_ char *good = NULL, *path = NULL;
	struct stat st;
	struct ctx c;
	bool one;

	begin_damage(&c, &h, seed, "meta/data.mdb", &good, &path);
	assert_int_equal(stat(path, &st), 0);
	for (int i = 0; i < 16; i++) {
		copy(good, c.dir);
		for (int n = 0; n < 12; n++) {
			s = s * 6364136223846793005ull + 1442695040888963407ull;
			flip(path, (s >> 20) % (uint64_t)st.st_size / (i % 2 ? 1 : 64) * (i % 2 ? 1 : 64),
			     (uint8_t)(1u + (s >> 57)));
		}
		refused += open_damaged(&c, &h, seed, i, &one) == 1;
	}
	assert_true(refused > 4);
	copy(good, c.dir);
	assert_int_equal(truncate(path, st.st_size / 2), 0);
	assert_int_equal(open_damaged(&c, &h, seed, 99, &one), 1);
	end_damage(&c, good);
}

/* What LMDB itself does not notice, in the pages that the newest checkpoint has (src/volume/bstore/walk.c says how they are made). */
enum { HIDE_KEYS, LOSE_KEY, CHILD_TWICE, OTHER_NUMBER, KEYS_SWAPPED, FREE_BUT_USED, PAGES_BEYOND, N_DAMAGE };

static void damage_page(uint8_t *file, int what)
{
	uint8_t *head[2] = {file + 16, file + 4096 + 16};
	uint8_t *newest = le64_get(head[0] + 128) < le64_get(head[1] + 128) ? head[1] : head[0];
	uint64_t root_no = le64_get(newest + 72 + 40);
	uint8_t *root = file + root_no * 4096, *leaf, *frees = file + le64_get(newest + 24 + 40) * 4096;
	uint8_t *child[2], two[2];

	assert_int_equal(le16_get(root + 10), 1); /* a branch */
	assert_int_equal(le16_get(frees + 10), 2);
	for (int i = 0; i < 2; i++)
		child[i] = root + le16_get(root + 16 + 2 * i);
	leaf = file + (uint64_t)le16_get(child[0]) * 4096;
	switch (what) {
	case HIDE_KEYS: /* of the second leaf: a search for its first ones ends in the first leaf */
		child[1][8] ^= 1;
		break;
	case LOSE_KEY:
		leaf[12] = (uint8_t)(leaf[12] - 2);
		break;
	case CHILD_TWICE:
		memcpy(child[0], child[1], 6);
		break;
	case OTHER_NUMBER: /* the next change of this page would free that one */
		root[0] ^= 1;
		break;
	case KEYS_SWAPPED:
		memcpy(two, leaf + 16, 2);
		memcpy(leaf + 16, leaf + 18, 2);
		memcpy(leaf + 18, two, 2);
		break;
	case FREE_BUT_USED: /* of the list's first entry, the first page */
		le64_put(frees + le16_get(frees + 16) + 8 + 8 + 8, root_no);
		break;
	default: /* where the next change would put new pages */
		le64_put(newest + 120, 2);
	}
}

static void test_damaged_pages(void **state)
{
	struct model_history h = one_epoch();
	_cleanup_free_ char *good = NULL, *path = NULL;
	struct stat st;
	struct ctx c;
	bool one;

	begin_damage(&c, &h, 8, "meta/data.mdb", &good, &path);
	assert_int_equal(ctx_open(&c), 0);
	assert_int_equal(bstore_checkpoint(c.b, NULL), 0); /* the second one: some pages are free */
	ctx_close(&c);
	copy(c.dir, good);
	assert_int_equal(open_damaged(&c, &h, 8, -1, &one), 0);
	assert_int_equal(stat(path, &st), 0);
	for (int i = 0; i < N_DAMAGE; i++) {
		int fd;
		uint8_t *file;

		copy(good, c.dir);
		fd = open(path, O_RDWR | O_CLOEXEC);
		file = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		assert_ptr_not_equal(file, MAP_FAILED);
		close(fd);
		damage_page(file, i);
		munmap(file, (size_t)st.st_size);
		if (open_damaged(&c, &h, 8, i, &one) != 1)
			fail_msg("damage %d was not noticed", i);
	}
	end_damage(&c, good);
}

/* ---- a failing disk: these take the place of libc's for everything in this program ---- */

static struct {
	_Atomic int write_err, sync_err, after; /* writes: this many work before */
} fault;

ssize_t pwrite(int fd, const void *p, size_t n, off_t off)
{
	if (fault.write_err && fault.after-- <= 0) {
		errno = fault.write_err;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, p, n, off);
}

int fdatasync(int fd)
{
	if (fault.sync_err) {
		errno = fault.sync_err;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* The disk gets full in the middle of anything: what was refused is not there, what was flushed is, and it goes on when there is room. */
static void test_full_disk(void **state)
{
	struct model_history h = one_epoch();
	uint64_t seed = test_seed(), refused = 0;
	struct ctx c;

	ctx_init(&c);
	assert_int_equal(ctx_open(&c), 0);
	for (int round = 0; round < 16; round++) {
		uint64_t flushed[MODEL_GROUPS];
		bool at_once =
			false; /* the log's write in the middle of a turn failed: its end says so, too */
		int r = 0;

		for (uint32_t g = 0; g < MODEL_GROUPS; g++)
			flushed[g] = bstore_replica(c.b, g)->seq;
		fault.after = round % 7;
		fault.write_err = ENOSPC;
		for (int i = 0; i < 40 && r == 0; i++) {
			uint32_t g = (uint32_t)i % MODEL_GROUPS;
			struct record *rec =
				model_record(seed, &h, g, 1, bstore_replica(c.b, g)->seq + 1, LARGE);

			r = bstore_append(c.b, rec, false);
			record_unref(rec);
			if (r == 0 && i % 5 == 4 && round % 2) {
				r = bstore_write_log(c.b);
				at_once = r < 0;
			} else if (r == 0 && i % 5 == 4) {
				r = bstore_flush(c.b);
			}
			for (g = 0; g < MODEL_GROUPS && r == 0 && i % 5 == 4; g++)
				flushed[g] = bstore_replica(c.b, g)->seq;
		}
		fault.write_err = 0;
		assert_int_equal(r, -ENOSPC);
		refused++;
		if (at_once)
			assert_int_equal(bstore_flush(c.b), -ENOSPC);
		assert_int_equal(bstore_flush(c.b), 0);
		for (uint32_t g = 0; g < MODEL_GROUPS; g++)
			assert_true(bstore_replica(c.b, g)->seq >= flushed[g]);
		check(&c, seed, &h);
		for (uint32_t g = 0; g < MODEL_GROUPS; g++)
			append(&c, seed, &h, g, 1);
		assert_int_equal(bstore_flush(c.b), 0);
		if (round % 4 == 3) {
			uint64_t before[MODEL_GROUPS];

			for (uint32_t g = 0; g < MODEL_GROUPS; g++)
				before[g] = bstore_replica(c.b, g)->seq;
			ctx_close(&c);
			assert_int_equal(ctx_open(&c), 0);
			for (uint32_t g = 0; g < MODEL_GROUPS; g++)
				assert_int_equal(bstore_replica(c.b, g)->seq, before[g]);
			check(&c, seed, &h);
		}
	}
	assert_int_equal(refused, 16);
	ctx_done(&c);
}

/* A sync that fails is never forgotten: nothing more is taken, and the next start is not sure of itself. */
static void test_failing_sync(void **state)
{
	struct model_history h = one_epoch();
	struct bstore_stats st;
	struct ctx c;
	int done = 0;

	ctx_init(&c);
	c.o.turns = false;
	assert_int_equal(ctx_open(&c), 0);
	bstore_set_sure(c.b, 0, true);
	for (int i = 0; i < 20; i++)
		append(&c, 11, &h, 0, 1);
	fault.sync_err = EIO;
	bstore_sync(c.b, on_done, &done);
	while (!done)
		uv_run(&c.loop, UV_RUN_ONCE);
	fault.sync_err = 0;
	assert_int_equal(done, -EIO);
	bstore_get_stats(c.b, &st);
	assert_int_equal(st.error, -EIO);
	done = 0;
	bstore_sync(c.b, on_done, &done);
	while (!done)
		uv_run(&c.loop, UV_RUN_ONCE);
	assert_int_equal(done, -EIO);
	assert_int_equal(bstore_flush(c.b), -EIO);
	assert_int_equal(bstore_checkpoint(c.b, &c.e), -EIO);
	ctx_close(&c);
	assert_int_equal(ctx_open(&c), 0);
	assert_false(bstore_group_sure(c.b, 0));
	assert_int_equal(bstore_replica(c.b, 0)->seq, 20);
	check(&c, 11, &h);
	ctx_done(&c);
}

TEST_MAIN(cmocka_unit_test(test_full_disk), cmocka_unit_test(test_failing_sync), cmocka_unit_test(test_mem),
	  cmocka_unit_test(test_append_and_restart), cmocka_unit_test(test_refusals),
	  cmocka_unit_test(test_rollback), cmocka_unit_test(test_leave), cmocka_unit_test(test_strays),
	  cmocka_unit_test(test_sync), cmocka_unit_test(test_sync_turns), cmocka_unit_test(test_kill),
	  cmocka_unit_test(test_damaged_log), cmocka_unit_test(test_damaged_meta),
	  cmocka_unit_test(test_damaged_pages))
