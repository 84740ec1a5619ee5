/* SPDX-License-Identifier: Apache-2.0 */
/* Caching leases: who hears of what, and the table against a model under random grants and losses. Sessions have no connection here: pushes wait in
 * their lists. */
#include "test.h"

#include "volume/brick/internal.h"

static struct brick b;
static struct vol *v;
static struct grp *g;

static struct session *session_make(uint32_t slot)
{
	struct session *s = v->session[slot] = xcalloc(1, sizeof(*s));

	s->v = v;
	s->client = 100 + slot;
	s->slot = slot;
	s->leased = true;
	v->sessions_end = MAX(v->sessions_end, slot + 1);
	return s;
}

static int setup(void **state)
{
	(void)state;
	v = xcalloc(1, sizeof(*v));
	g = xcalloc(1, sizeof(*g));
	v->b = &b;
	v->refs = 1;
	g->v = v;
	g->idx = 3;
	g->orphans_last = &g->orphans;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < SESSIONS_MAX; i++) {
		if (!v->session[i])
			continue;
		for (struct push *p = v->session[i]->pushes, *next; p; p = next) {
			next = p->next;
			free(p);
		}
		free(v->session[i]);
	}
	leases_done(v);
	orphans_lost(g);
	free(g);
	free(v);
	return 0;
}

static struct vol_ino ino_make(uint8_t folder, uint64_t num)
{
	return (struct vol_ino){.folder.b = {[1] = folder, [15] = 1}, .num = num};
}

static size_t key_make(uint8_t *k, char kind, const struct vol_ino *ino, const char *name)
{
	uint64_t num = htobe64(ino->num);

	k[0] = (uint8_t)kind;
	memcpy(k + 1, ino->folder.b, 16);
	if (kind == 'E') {
		memcpy(k + 17, name, strlen(name));
		return 17 + strlen(name);
	}
	memcpy(k + 17, &num, 8);
	return 25;
}

static void put(struct record *r, char kind, struct vol_ino ino, const char *name)
{
	uint8_t k[KEY_MAX];
	size_t n = key_make(k, kind, &ino, name);

	assert_int_equal(record_put(r, k, n, "x", 1), 0);
}

static uint32_t pushes(const struct session *s)
{
	uint32_t n = 0;

	for (const struct push *p = s->pushes; p; p = p->next)
		n++;
	return n;
}

static void who_hears(void **state)
{
	struct session *maker = session_make(0), *holder = session_make(1), *other = session_make(2);
	struct vol_ino folder = ino_make(1, 0), file = ino_make(1, 5), else_ = ino_make(2, 0);
	struct record *r = record_new(3);
	struct op o = {.g = g};

	(void)state;
	assert_true(lease_grant(v, 3, LEASE_INODE, &folder, maker->slot));
	assert_true(lease_grant(v, 3, LEASE_INODE, &folder, holder->slot));
	assert_true(lease_grant(v, 3, LEASE_INODE, &file, holder->slot));
	assert_true(lease_grant(v, 3, LEASE_INODE, &else_, other->slot));
	assert_true(lease_grant(v, 4, LEASE_INODE, &file, other->slot)); /* another group's */
	put(r, 'E', folder, "name");
	put(r, 'I', folder, NULL);
	put(r, 'I', file, NULL);
	lease_invalidate(g, r, &o, maker->client);
	/* The holder: the name, and the file. The folder's own attributes go with the name. The maker nothing, the other nothing. */
	assert_int_equal(pushes(holder), 2);
	assert_int_equal(pushes(maker), 0);
	assert_int_equal(pushes(other), 0);
	assert_int_equal(o.pushes, 2);
	/* The file's lease is lost with it, the folder's is kept. */
	lease_invalidate(g, r, &o, maker->client);
	assert_int_equal(pushes(holder), 3);
	/* A change of the folder's attributes alone ends it. */
	record_unref(r);
	r = record_new(3);
	put(r, 'I', folder, NULL);
	lease_invalidate(g, r, NULL, 0);
	assert_int_equal(pushes(holder), 4);
	assert_int_equal(pushes(maker), 1); /* nobody's change: all hear */
	lease_invalidate(g, r, NULL, 0);
	assert_int_equal(pushes(holder), 4);
	push_drop_op(v, &o);
	assert_int_equal(o.pushes, 0);
	record_unref(r);
}

static void data_and_locks(void **state)
{
	struct session *holder = session_make(1), *waiter = session_make(2);
	struct vol_ino file = ino_make(1, 5);
	struct record *r = record_new(3), *l = record_new(3);
	struct payload *p = payload_new(100);
	struct op o = {.g = g};

	(void)state;
	memset(p->data, 1, 100);
	assert_true(lease_grant(v, 3, LEASE_INODE, &file, holder->slot));
	assert_true(lease_grant(v, 3, LEASE_LOCK, &file, waiter->slot));
	assert_int_equal(record_write(r, &file, 0, 10, p), 0);
	lease_invalidate(g, r, &o, 0);
	assert_int_equal(pushes(holder), 1);
	assert_int_equal(pushes(waiter), 0);
	put(l, 'L', file, NULL);
	lease_invalidate(g, l, &o, 0);
	assert_int_equal(pushes(waiter), 1);
	assert_int_equal(o.pushes, 1); /* nobody waits for one who waits for a lock */
	push_drop_op(v, &o);
	/* Who has lost its lease by time hears nothing and is not waited for. */
	assert_true(lease_grant(v, 3, LEASE_INODE, &file, holder->slot));
	holder->leased = false;
	lease_invalidate(g, r, &o, 0);
	assert_int_equal(o.pushes, 0);
	payload_unref(p);
	record_unref(r);
	record_unref(l);
}

/* A folder is given to one: what the others keep of its files is taken back, of all of them and of nothing else. */
static void one_alone(void **state)
{
	struct session *maker = session_make(0), *holder = session_make(1), *other = session_make(2);
	struct vol_ino folder = ino_make(1, 0), else_ = ino_make(2, 7), ino;
	struct op o = {.g = g};

	(void)state;
	assert_int_equal(lease_others(g, &folder.folder, maker->client), 0);
	for (uint64_t i = 1; i <= 500; i++) {
		ino = ino_make(1, i);
		assert_true(lease_grant(v, 3, LEASE_INODE, &ino, maker->slot));
		assert_true(i % 2 || lease_grant(v, 3, LEASE_INODE, &ino, holder->slot));
	}
	assert_true(lease_grant(v, 3, LEASE_INODE, &folder,
				other->slot)); /* the folder itself: its change tells */
	assert_true(lease_grant(v, 3, LEASE_INODE, &else_, other->slot));
	assert_true(lease_grant(v, 4, LEASE_INODE, &ino, other->slot)); /* another group's */
	assert_int_equal(lease_others(g, &folder.folder, maker->client), 250);
	assert_int_equal(lease_others(g, &folder.folder, holder->client), 500);
	lease_take_folder(g, &folder.folder, &o, maker->client);
	assert_int_equal(pushes(holder), 250);
	assert_int_equal(pushes(maker) + pushes(other), 0);
	assert_int_equal(o.pushes, 250);
	assert_int_equal(lease_others(g, &folder.folder, maker->client), 0);
	assert_int_equal(lease_others(g, &folder.folder, holder->client), 500);
	assert_int_equal(v->leases.n,
			 500 + 1 + 2 + 3); /* files, folder's entry; folder; else_ and ino with theirs */
	lease_take_folder(g, &folder.folder, NULL, maker->client);
	assert_int_equal(pushes(holder), 250);
	lease_take_folder(g, &folder.folder, NULL, 0);
	assert_int_equal(pushes(maker), 500);
	push_drop_op(v, &o);
	for (uint32_t i = 0; i < 3; i++)
		lease_end_session(v, i);
	assert_int_equal(v->leases.n, 0);
}

static void last_name(void **state)
{
	struct vol_ino file = ino_make(1, 9);
	struct record *r = record_new(3);

	(void)state;
	put(r, 'O', file, NULL);
	lease_invalidate(g, r, NULL, 0);
	assert_int_equal(g->n_orphans, 1);
	assert_true(vol_ino_eq(&g->orphans->ino, &file));
	record_unref(r);
}

#define INOS 3000
/* What the table says, against bits in an array. */
static void model(void **state)
{
	static uint64_t want[2][INOS], of_folder[2][7];
	uint32_t n = 0;

	(void)state;
	memset(want, 0, sizeof(want));
	memset(of_folder, 0, sizeof(of_folder));
	for (uint32_t i = 0; i < 8; i++)
		session_make(i);
	srandom(7);
	for (int step = 0; step < 200000; step++) {
		uint32_t k = (uint32_t)random() % INOS, group = (uint32_t)random() % 2,
			 slot = (uint32_t)random() % 8;
		struct vol_ino ino = ino_make((uint8_t)(k % 7), k);

		if (random() % 3) {
			assert_true(lease_grant(v, group, LEASE_INODE, &ino, slot));
			want[group][k] |= 1ull << slot;
			of_folder[group][k % 7] |= k > 0 ? 1ull << slot : 0;
		} else if (random() % 1000 == 0) {
			lease_end_session(v, slot);
			for (uint32_t i = 0; i < INOS; i++)
				want[0][i] &= ~(1ull << slot), want[1][i] &= ~(1ull << slot);
			for (uint32_t i = 0; i < 7; i++)
				of_folder[0][i] &= ~(1ull << slot), of_folder[1][i] &= ~(1ull << slot);
		} else {
			struct record *r = record_new(group);
			uint32_t before = 0, after = 0;

			g->idx = group;
			put(r, 'I', ino, NULL);
			for (uint32_t i = 0; i < 8; i++)
				before += pushes(v->session[i]);
			lease_invalidate(g, r, NULL, 0);
			for (uint32_t i = 0; i < 8; i++) {
				struct session *s = v->session[i];

				after += pushes(s);
				for (struct push *p = s->pushes, *next; p; p = next) {
					next = p->next;
					free(p);
				}
				s->pushes = NULL;
			}
			assert_int_equal(before, 0);
			assert_int_equal(after, __builtin_popcountll(want[group][k]));
			want[group][k] = 0;
			record_unref(r);
		}
	}
	for (uint32_t i = 0; i < INOS; i++)
		n += (want[0][i] != 0) + (want[1][i] != 0);
	for (uint32_t i = 0; i < 7; i++)
		n += (of_folder[0][i] != 0) + (of_folder[1][i] != 0);
	assert_int_equal(v->leases.n, n);
	lease_end_group(v, 0);
	for (n = 0, g->idx = 0; n < 8; n++)
		lease_end_session(v, n);
	assert_int_equal(v->leases.n, 0);
}

static void full(void **state)
{
	(void)state;
	session_make(0);
	for (uint32_t i = 0; i < LEASES_MAX + 10; i++) {
		struct vol_ino ino = ino_make(1, i);

		assert_int_equal(lease_grant(v, 3, LEASE_INODE, &ino, 0),
				 i < LEASES_MAX - 1); /* and one entry for the folder */
	}
	assert_int_equal(v->leases.n, LEASES_MAX);
	assert_false(lease_grant(v, 3, LEASE_INODE, &(struct vol_ino){.folder = vol_root},
				 SESSIONS_LEASED)); /* a slot without a bit */
	lease_end_session(v, 0);
	assert_int_equal(v->leases.n, 0);
}

#define LEASE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

TEST_MAIN(LEASE_TEST(who_hears), LEASE_TEST(data_and_locks), LEASE_TEST(one_alone), LEASE_TEST(last_name),
	  LEASE_TEST(model), LEASE_TEST(full))
