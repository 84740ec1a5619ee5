/* SPDX-License-Identifier: Apache-2.0 */
/* The client library against bricks that do what the test says: tries again with the same id, goes where the view points, believes no checksum that
 * does not hold, keeps nothing that a push has overtaken, gives up in time. Store, frames, connections and threads are real. */
#include "test.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include "volume/client.h"
#include "volume/fake_brick.h"

#define GROUPS 4

struct world {
	struct fake_brick brick[3];
	struct store *store;
	struct vclient *c;
	struct vclient_slot *slot;
	_Atomic int noted, invalidated, resets;
	/* what the bricks saw */
	pthread_mutex_t lock;
	uint64_t number[64];
	int n, hits[3];
	int mode; /* of the test's bricks */
	uint8_t block[VOL_BLOCK];
	_Atomic bool hold;
};

static struct world *w;

static void noted(void *ctx, const struct proto_push *p)
{
	(void)ctx, (void)p;
	atomic_fetch_add(&w->noted, 1);
}

static void invalidated(void *ctx, const struct proto_push *p)
{
	(void)ctx;
	assert_int_equal(p->type, PUSH_ENTRY);
	assert_string_equal(p->name, "x");
	atomic_fetch_add(&w->invalidated, 1);
}

static void reset(void *ctx, uint32_t group)
{
	(void)ctx, (void)group;
	atomic_fetch_add(&w->resets, 1);
}

static bool is_open(void *ctx, const struct vol_ino *ino)
{
	(void)ctx;
	return ino->num == 5;
}

static void set_fork(uint64_t epoch, uint8_t primary, uint8_t isr, uint64_t fork)
{
	const struct vol_map *m = vclient_map(w->c);
	struct repl_view v = {epoch, primary, isr, .fork = fork}, now;
	struct err e = {0};

	for (uint32_t g = 0; g < m->n_groups; g++) {
		struct repl_view is;
		int64_t rev;

		assert_int_equal(volcfg_view_get(w->store, m, g, &is, &rev, &e), 0);
		assert_int_equal(volcfg_view_cas(w->store, m, g, is.epoch, &v, &now, &e), 0);
	}
}

static void set_view(uint64_t epoch, uint8_t primary, uint8_t isr)
{
	set_fork(epoch, primary, isr, 0);
}

static struct vol_map *make_map(void)
{
	struct vol_brick b[3] = {0};
	struct vol_id uuid;
	struct vol_map *m;
	struct err e = {0};

	random_bytes(&uuid, sizeof(uuid));
	for (int i = 0; i < 3; i++) {
		snprintf(b[i].name, sizeof(b[i].name), "%c1", 'a' + i);
		snprintf(b[i].domain, sizeof(b[i].domain), "%c", 'a' + i);
		strcpy(b[i].address, w->brick[i].address);
		strcpy(b[i].path, "/brick");
		b[i].weight = 100;
	}
	assert_int_equal(vol_map_make("logs", &uuid, 3, 1, b, 3, GROUPS, false, &m, &e), 0);
	m->started = true;
	return m;
}

static void open_client(uint64_t timeout_ms)
{
	const struct vclient_options o = {.store = w->store,
					  .volume = "logs",
					  .timeout_ms = timeout_ms,
					  .leases = true,
					  .noted = noted,
					  .invalidate = invalidated,
					  .reset = reset,
					  .is_open = is_open};
	struct err e = {0};

	if (vclient_open(&o, &w->c, &e) < 0)
		fail_msg("%s", e.text);
	set_view(1, 0, 7);
	w->slot = vclient_slot_new(w->c);
}

static int which(struct fake_brick *b)
{
	return (int)(b - w->brick);
}

static void begin(void (*op)(struct fake_brick *, const struct proto_head *, const struct vfs_op *,
			     struct fake_answer *),
		  uint64_t timeout_ms)
{
	struct volcfg_volume v = {.state = "started"};
	struct err e = {0};

	w = xcalloc(1, sizeof(*w));
	pthread_mutex_init(&w->lock, NULL);
	for (int i = 0; i < 3; i++) {
		w->brick[i].op = op;
		fake_start(&w->brick[i]);
	}
	assert_int_equal(store_open("mem:", NULL, &w->store, &e), 0);
	v.map = make_map();
	v.options = json_object();
	if (volcfg_create(w->store, &v, &e) < 0)
		fail_msg("%s", e.text);
	vol_map_free(v.map);
	json_decref(v.options);
	open_client(timeout_ms);
}

static void end(void)
{
	w->slot = vclient_slot_free(w->slot);
	w->c = vclient_close(w->c);
	for (int i = 0; i < 3; i++)
		fake_stop(&w->brick[i]);
	w->store = store_free(w->store);
	usleep(50000); /* connections' threads see the end */
	free(w);
}

static bool until(_Atomic int *what, int n, int ms)
{
	for (int i = 0; i < ms && atomic_load(what) < n; i++)
		usleep(1000);
	return atomic_load(what) >= n;
}

static void see(struct fake_brick *b, const struct vfs_op *op)
{
	pthread_mutex_lock(&w->lock);
	w->hits[which(b)]++;
	if (w->n < 64)
		w->number[w->n++] = op->id.number;
	pthread_mutex_unlock(&w->lock);
}

static const struct vol_ino root = {.folder = {.b = {[15] = 1}}};

static int create(bool *leased)
{
	struct vfs_op op = {
		.type = VFS_CREATE, .ino = root, .name = "x", .name_len = 1, .attr.mode = S_IFREG | 0644};
	struct vfs_result res;
	int r = vclient_call(w->slot, &op, &res, leased);

	vfs_result_done(&res);
	return r;
}

/* ---- tries ---- */

static void op_drop_first(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
			  struct fake_answer *a)
{
	(void)h;
	see(b, op);
	if (w->n == 1)
		a->status = -1;
	else if (w->n == 2)
		a->status = -EAGAIN;
	a->res.attr.mode = S_IFREG;
}

static void tries_carry_the_same_id(void **s)
{
	(void)s;
	begin(op_drop_first, 10000);
	assert_int_equal(create(NULL), 0);
	assert_int_equal(w->n, 3);
	assert_true(w->number[0] != 0);
	assert_true(w->number[0] == w->number[1] && w->number[1] == w->number[2]);
	assert_int_equal(MAX(w->hits[0], MAX(w->hits[1], w->hits[2])), 3); /* always the primary */
	assert_int_equal(create(NULL), 0);
	assert_true(w->number[3] == w->number[0] + 1);
	end();
}

static void op_stale(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		     struct fake_answer *a)
{
	const struct vol_map *m = vclient_map(w->c);

	see(b, op);
	if (m->group[h->group].brick[1] != which(b)) {
		a->status = -ESTALE;
		a->view.view = (struct repl_view){9, 1, 6};
	}
	a->res.attr.mode = S_IFREG;
}

static void a_hint_names_the_new_primary(void **s)
{
	(void)s;
	begin(op_stale, 10000);
	assert_int_equal(create(NULL), 0);
	assert_int_equal(w->n, 2);
	end();
}

/* ---- a loss of power between two tries ---- */

enum loss { HANGS_UP = 1, REFUSES, REFUSES_TAKEN };

/* Until the client has heard of that fork: its watch takes its time on a loaded machine. */
static void client_hears_of_fork(uint64_t fork)
{
	const struct vol_ino ino = {root.folder, 7};
	struct vclient_slot *s = vclient_slot_new(w->c);

	for (int i = 0; i < 10000 && vclient_forks_end(s, &ino) != fork; i++)
		usleep(1000);
	vclient_slot_free(s);
}

static void op_power(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		     struct fake_answer *a)
{
	(void)h;
	see(b, op);
	a->res.attr.mode = S_IFREG;
	a->res.attr.size = op->len;
	if (w->n > 1 || w->mode == 0)
		return;
	a->status = w->mode == HANGS_UP ? -1 : -EAGAIN;
	a->flags = w->mode == REFUSES_TAKEN ? FRAME_TAKEN : 0;
	set_fork(3, 0, 7, 3);
	client_hears_of_fork(3);
}

/* vclient_forks_end behind a write of len bytes. */
static uint64_t forks_of_write(uint32_t len, enum loss mode)
{
	struct payload p = {.refs = 1, .len = len, .data = calloc(1, len)};
	struct vfs_op op = {.type = VFS_WRITE, .ino = {root.folder, 7}, .payload = &p, .len = len};
	struct vfs_result res;
	uint64_t forks;

	begin(op_power, 10000);
	w->mode = (int)mode;
	set_fork(2, 0, 7, 2);
	client_hears_of_fork(2);
	vclient_forks_begin(w->slot);
	assert_int_equal(vclient_call(w->slot, &op, &res, NULL), 0);
	forks = vclient_forks_end(w->slot, &op.ino);
	assert_int_equal(w->n, mode ? 2 : 1);
	assert_true(w->number[0] == w->number[w->n - 1]);
	vfs_result_done(&res);
	free(p.data);
	end();
	return forks;
}

/* Its record may have been kept and answers the second try; data that was not in the log is gone. */
static void a_large_write_over_a_loss_of_power_may_be_gone(void **s)
{
	(void)s;
	assert_int_equal(forks_of_write(200000, 0), 2);
	assert_true(forks_of_write(200000, HANGS_UP) == UINT64_MAX);
	assert_true(forks_of_write(200000, REFUSES_TAKEN) == UINT64_MAX);
	assert_int_equal(forks_of_write(200000, REFUSES), 3);		  /* done once, behind it */
	assert_int_equal(forks_of_write(RECORD_LOGGED_MAX, HANGS_UP), 3); /* the log has its data */
}

static void op_error(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		     struct fake_answer *a)
{
	(void)h;
	see(b, op);
	a->res.err = -EEXIST;
}

static void an_error_of_the_operation_is_the_answer(void **s)
{
	(void)s;
	begin(op_error, 10000);
	assert_int_equal(create(NULL), -EEXIST);
	assert_int_equal(w->n, 1);
	end();
}

static void op_garbage(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		       struct fake_answer *a)
{
	(void)h;
	see(b, op);
	a->garbage = true;
}

static void garbage_ends_in_eio_in_time(void **s)
{
	uint64_t start;

	(void)s;
	begin(op_garbage, 1000);
	start = clock_ms();
	assert_int_equal(create(NULL), -EIO);
	assert_true(clock_ms() - start >= 1000);
	assert_true(w->n > 3);
	assert_true(w->number[0] == w->number[w->n - 1]);
	end();
}

static void op_mute(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		    struct fake_answer *a)
{
	const struct vol_map *m = vclient_map(w->c);

	see(b, op);
	if (m->group[h->group].brick[0] == which(b))
		a->status = 1; /* accepts everything, says nothing: stopped, or cut off */
	a->res.attr.mode = S_IFREG;
}

static void *fail_over(void *arg)
{
	(void)arg;
	usleep(200000);
	set_view(2, 1, 6);
	return NULL;
}

static void a_new_view_ends_the_wait_for_a_mute_primary(void **s)
{
	uint64_t start;
	pthread_t t;

	(void)s;
	begin(op_mute, 10000);
	usleep(100000);
	start = clock_ms();
	assert_int_equal(pthread_create(&t, NULL, fail_over, NULL), 0);
	assert_int_equal(create(NULL), 0);
	assert_true(clock_ms() - start < 1900); /* a try would have lasted 2 s */
	pthread_join(t, NULL);
	assert_true(w->number[0] == w->number[w->n - 1]);
	end();
}

/* ---- the pipe: many writes in flight ---- */

#define WRITES 20

static struct {
	struct vclient_pipe *pipe;
	struct vclient_write w[WRITES];
	int back, again[WRITES];
	/* what the bricks saw, by offset */
	struct vfs_opid id[WRITES][4];
	_Atomic int seen[WRITES];
	uint8_t data[VOL_BLOCK];
} px;

static void pipe_back(struct vclient_write *x, bool again)
{
	px.back++;
	px.again[x->op.off / VOL_BLOCK] += again;
}

static void pipe_begin(void)
{
	memset(&px, 0, sizeof(px));
	memset(px.data, 'p', sizeof(px.data));
	px.pipe = vclient_pipe_new(w->c, pipe_back);
	assert_non_null(px.pipe);
	for (uint32_t i = 0; i < WRITES; i++) {
		struct vclient_write *x = &px.w[i];

		vclient_write_init(w->c, x);
		x->op = (struct vfs_op){
			.type = VFS_WRITE, .ino = {root.folder, 7}, .off = i * VOL_BLOCK, .len = VOL_BLOCK};
		x->group = vol_owner(vclient_map(w->c), &x->op.ino.folder);
		x->data = px.data;
		for (int k = 0; k < 200 && !x->flying && !vclient_pipe_send(px.pipe, x); k++)
			usleep(10000); /* the view is on its way */
		assert_true(x->flying);
	}
}

static void pipe_run_all(int ms)
{
	uint64_t until_ms = clock_ms() + (uint64_t)ms;

	while (px.back < WRITES && clock_ms() < until_ms)
		vclient_pipe_run(px.pipe, -1, 100);
	assert_int_equal(px.back, WRITES);
}

static void pipe_end(void)
{
	for (int i = 0; i < WRITES; i++)
		vclient_write_done(&px.w[i]);
	px.pipe = vclient_pipe_free(px.pipe);
	end();
}

static int pipe_see(const struct vfs_op *op)
{
	uint32_t i = (uint32_t)(op->off / VOL_BLOCK);
	int n = atomic_fetch_add(&px.seen[i], 1);

	ensure(i < WRITES && op->payload && op->payload->len == VOL_BLOCK && op->payload->data[0] == 'p');
	if (n < 4)
		px.id[i][n] = op->id;
	return n;
}

static void op_pipe(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		    struct fake_answer *a)
{
	const struct vol_map *m = vclient_map(w->c);
	uint32_t i = (uint32_t)(op->off / VOL_BLOCK);
	int n;

	if (w->mode == 2 && m->group[h->group].brick[0] == which(b)) {
		a->status = 1; /* stopped */
		return;
	}
	n = pipe_see(op);
	if (w->mode == 1 && n == 0 && i == 5)
		a->status = -EAGAIN;
	if (w->mode == 1 && n == 0 && i == 9)
		a->status = -1; /* the connection ends; what follows on it is not seen */
	a->res.attr.mode = S_IFREG;
	a->res.attr.size = op->off + op->len;
	a->res.err = i == 3 ? -ENOSPC : 0;
}

static void a_pipe_has_many_in_flight(void **s)
{
	(void)s;
	begin(op_pipe, 10000);
	pipe_begin();
	pipe_run_all(5000);
	for (int i = 0; i < WRITES; i++) {
		assert_int_equal(px.again[i], 0);
		assert_int_equal(atomic_load(&px.seen[i]), 1);
		assert_int_equal(px.w[i].res.err, i == 3 ? -ENOSPC : 0);
		assert_int_equal(px.w[i].res.attr.size, (i + 1) * VOL_BLOCK);
		for (int k = 0; k < i; k++) /* else the answer of one would take the other's place */
			assert_int_not_equal(px.id[i][0].slot, px.id[k][0].slot);
	}
	pipe_end();
}

static void what_a_pipe_does_not_hear_is_asked_again_with_its_id(void **s)
{
	int again = 0;

	(void)s;
	begin(op_pipe, 10000);
	w->mode = 1;
	pipe_begin();
	pipe_run_all(5000);
	assert_int_equal(px.again[5], 1);
	assert_int_equal(px.again[9], 1);
	for (int i = 0; i < WRITES; i++) {
		again += px.again[i];
		if (px.again[i])
			assert_int_equal(vclient_write_again(w->slot, &px.w[i]), i == 3 ? -ENOSPC : 0);
		assert_int_equal(px.w[i].res.attr.size, (i + 1) * VOL_BLOCK);
		for (int n = 1; n < atomic_load(&px.seen[i]); n++)
			assert_memory_equal(&px.id[i][n], &px.id[i][0], sizeof(px.id[i][0]));
	}
	assert_true(again > WRITES / 2); /* all behind the broken one, too */
	pipe_end();
}

static void a_new_primary_ends_a_pipes_wait(void **s)
{
	uint64_t start = clock_ms();
	pthread_t t;

	(void)s;
	begin(op_pipe, 10000);
	w->mode = 2;
	pipe_begin();
	assert_int_equal(pthread_create(&t, NULL, fail_over, NULL), 0);
	pipe_run_all(5000);
	assert_true(clock_ms() - start < 1900); /* silence would have lasted 2 s */
	pthread_join(t, NULL);
	for (int i = 0; i < WRITES; i++) {
		assert_int_equal(px.again[i], 1);
		assert_int_equal(vclient_write_again(w->slot, &px.w[i]), i == 3 ? -ENOSPC : 0);
	}
	pipe_end();
}

/* ---- reading ---- */

static void op_read(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		    struct fake_answer *a)
{
	static __thread uint32_t crc;

	(void)h;
	see(b, op);
	crc = block_crc(w->block);
	if (w->mode == 1 && w->n == 1)
		crc ^= 4;
	if (w->mode == 2)
		crc ^= 4;
	a->res.attr = (struct vfs_attr){.ino = op->ino, .mode = S_IFREG | 0644, .size = 1000};
	a->res.crc_off = op->off;
	a->res.n_crcs = 1;
	a->res.crcs = &crc;
	a->payload = w->block;
	a->payload_len = VOL_BLOCK;
}

static int64_t read_it(void *data, uint32_t len, uint64_t off)
{
	const struct vol_ino ino = {.folder = root.folder, .num = 3};
	bool leased;

	return vclient_read(w->slot, &ino, UINT64_MAX, off, data, len, &leased);
}

static void fill_block(void)
{
	for (int i = 0; i < 1000; i++)
		w->block[i] = (uint8_t)(i * 7 + 1);
}

static void reading_ends_where_the_file_ends(void **s)
{
	uint8_t data[VOL_BLOCK];

	(void)s;
	begin(op_read, 10000);
	fill_block();
	assert_int_equal(read_it(data, VOL_BLOCK, 0), 1000);
	assert_memory_equal(data, w->block, 1000);
	assert_int_equal(read_it(data, 100, 950), 50);
	assert_memory_equal(data, w->block + 950, 50);
	assert_int_equal(read_it(data, 100, 10), 100);
	assert_memory_equal(data, w->block + 10, 100);
	end();
}

static void a_bad_block_is_reported_and_read_elsewhere(void **s)
{
	uint8_t data[VOL_BLOCK];
	int bad = 0;

	(void)s;
	begin(op_read, 10000);
	fill_block();
	w->mode = 1;
	assert_int_equal(read_it(data, VOL_BLOCK, 0), 1000);
	assert_memory_equal(data, w->block, 1000);
	for (int i = 0; i < 3; i++) {
		assert_true(w->hits[i] <= 1);
		(void)until(&w->brick[i].bad_blocks, 1, 50);
		bad += atomic_load(&w->brick[i].bad_blocks);
	}
	assert_int_equal(bad, 1);
	w->mode = 2; /* no good copy: no bytes at all */
	assert_int_equal(read_it(data, VOL_BLOCK, 0), -EIO);
	end();
}

/* ---- leases ---- */

static void op_leased(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		      struct fake_answer *a)
{
	(void)h;
	see(b, op);
	a->flags = FRAME_LEASED;
	a->res.attr.mode = S_IFREG;
}

static bool soon_leased(void)
{
	bool leased = false;

	for (int i = 0; i < 300 && !leased; i++) {
		assert_int_equal(create(&leased), 0);
		usleep(10000);
	}
	return leased;
}

static void begin_leased(void)
{
	begin(op_leased, 10000);
	assert_true(soon_leased());
	atomic_store(&w->resets, 0);
}

static void leases_end(void)
{
	bool leased;

	assert_true(until(&w->resets, GROUPS, 3000));
	assert_int_equal(create(&leased), 0);
	assert_false(leased);
}

static void leases_need_living_sessions(void **s)
{
	(void)s;
	begin_leased();
	atomic_store(&w->brick[2].silent, true); /* a backup: it may be the next primary */
	leases_end();
	atomic_store(&w->brick[2].silent, false);
	assert_true(soon_leased());
	end();
}

static void a_brick_that_does_not_serve_is_asked_again(void **s)
{
	(void)s;
	begin_leased();
	atomic_store(&w->brick[2].refuses, true);
	assert_true(shutdown(atomic_load(&w->brick[2].session), SHUT_RDWR) == 0);
	leases_end();
	usleep(1500000); /* long enough for it to be said */
	atomic_store(&w->brick[2].refuses, false);
	assert_true(soon_leased());
	end();
}

static void a_new_primary_ends_leases(void **s)
{
	(void)s;
	begin_leased();
	set_view(2, 1, 7);
	assert_true(until(&w->resets, GROUPS, 3000));
	assert_true(soon_leased());
	end();
}

static void pushes_are_worked_off_and_answered(void **s)
{
	struct proto_push p = {.type = PUSH_ENTRY, .ino = root, .name = "x"},
			  o = {.type = PUSH_ORPHAN, .ino = {.num = 5}};
	struct fake_brick *b;

	(void)s;
	begin(op_leased, 10000);
	assert_true(soon_leased());
	b = &w->brick[1];
	fake_push(b, &p, 77);
	assert_true(until(&b->push_answers, 1, 2000));
	assert_int_equal(atomic_load(&w->noted), 1);
	assert_int_equal(atomic_load(&w->invalidated), 1);
	assert_int_equal(atomic_load(&b->push_status), 0);
	fake_push(b, &o, 78);
	assert_true(until(&b->push_answers, 2, 2000));
	assert_int_equal(atomic_load(&b->push_status), 1); /* open here */
	end();
}

TEST_MAIN(cmocka_unit_test(tries_carry_the_same_id), cmocka_unit_test(a_hint_names_the_new_primary),
	  cmocka_unit_test(a_large_write_over_a_loss_of_power_may_be_gone),
	  cmocka_unit_test(an_error_of_the_operation_is_the_answer),
	  cmocka_unit_test(garbage_ends_in_eio_in_time),
	  cmocka_unit_test(a_new_view_ends_the_wait_for_a_mute_primary),
	  cmocka_unit_test(reading_ends_where_the_file_ends),
	  cmocka_unit_test(a_bad_block_is_reported_and_read_elsewhere),
	  cmocka_unit_test(leases_need_living_sessions),
	  cmocka_unit_test(a_brick_that_does_not_serve_is_asked_again),
	  cmocka_unit_test(a_new_primary_ends_leases), cmocka_unit_test(pushes_are_worked_off_and_answered),
	  cmocka_unit_test(a_pipe_has_many_in_flight),
	  cmocka_unit_test(what_a_pipe_does_not_hear_is_asked_again_with_its_id),
	  cmocka_unit_test(a_new_primary_ends_a_pipes_wait))
