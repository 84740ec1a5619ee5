/* SPDX-License-Identifier: Apache-2.0 */
/* Delegations of folders: what their holder may do with numbers and times of its own, and how they end. */
#include "vfs_calls.h"

enum { A = 0xa1, B = 0xb2 };

static struct vfs_op of(uint64_t client, struct vfs_op op)
{
	op.id.client = client;
	return op;
}

static int delegate(struct world *w, uint64_t client, struct vol_ino folder)
{
	return call(w, of(client, (struct vfs_op){.type = VFS_DELEGATE, .ino = folder}));
}

static int undelegate(struct world *w, uint64_t client, struct vol_ino folder)
{
	return call(w, of(client, (struct vfs_op){.type = VFS_UNDELEGATE, .ino = folder}));
}

static struct vfs_op numbered(uint64_t client, struct vol_ino folder, const char *name, uint64_t number,
			      int64_t time)
{
	struct vfs_op op = named(VFS_CREATE, folder, name);

	op.flags = VFS_NUMBERED | VFS_EXCL;
	op.target = (struct vol_ino){folder.folder, number};
	op.attr = (struct vfs_attr){.mode = S_IFREG | 04644, .uid = 10, .gid = 20, .ctime_ns = time};
	return of(client, op);
}

static int born(struct world *w, uint64_t client, struct vol_ino folder, const char *name, uint64_t number,
		uint32_t len)
{
	struct vfs_op op = numbered(client, folder, name, number, 5000);
	int r;

	op.uid = 10;
	op.payload = payload_new(len);
	memset(op.payload->data, 'b', len);
	r = call(w, op);
	payload_unref(op.payload);
	return r;
}

static struct vfs *vfs_of(struct world *w, struct vol_ino folder)
{
	return &w->g[vol_owner(w->map, &folder.folder)].vfs;
}

static uint64_t holder(struct world *w, struct vol_ino folder)
{
	uint64_t client = 0;
	int r = vfs_delegation(vfs_of(w, folder), &folder.folder, &client);

	assert_true(r == 0 || r == -ENOENT);
	return client;
}

static void test_give(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 1);
	int64_t ctime = res.attr.ctime_ns;
	struct vfs_lock first, second;
	struct vfs_op op = of(A, (struct vfs_op){.type = VFS_DELEGATE, .ino = d});

	assert_int_equal(holder(w, d), 0);
	op.id.slot = 3;
	op.id.number = 9;
	assert_int_equal(call(w, op), 0);
	first = res.lock;
	assert_true(vol_ino_eq(&res.attr.ino, &d));
	assert_int_equal(res.attr.ctime_ns, ctime); /* its times do not change */
	assert_int_equal(first.end - first.start + 1, VFS_NUMBERS);
	assert_int_equal(holder(w, d), A);
	assert_int_equal(call(w, op), 0); /* a retry hears the same and changes nothing */
	assert_int_equal(w->last_effects, 0);
	assert_int_equal(res.lock.start, first.start);
	assert_int_equal(res.lock.end, first.end);
	assert_int_equal(delegate(w, B, d), -EBUSY);
	assert_int_equal(delegate(w, A, d), 0); /* more numbers */
	second = res.lock;
	assert_true(second.start > first.end);
	assert_int_equal(create(w, d, "counted", 0600), 0); /* numbers that nobody chose lie behind */
	assert_true(res.attr.ino.num > second.end);
	assert_int_equal(undelegate(w, B, d), 0); /* not its own: nothing */
	assert_int_equal(holder(w, d), A);
	op = (struct vfs_op){.type = VFS_UNDELEGATE, .ino = d, .id = {A, 0, 0}};
	vfs_result_done(&res);
	assert_int_equal(world_exec(w, &op, &res), 0);
	assert_int_equal(holder(w, d), 0);
	assert_int_equal(undelegate(w, A, d), 0);
	assert_int_equal(delegate(w, B, d), 0);
	assert_true(res.lock.start > second.end);
	world_free(w);
}

static void test_give_what(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 1), none = {.folder = d.folder};
	char name[16];

	none.folder.b[3] ^= 1;
	assert_int_equal(delegate(w, A, none), -ENOENT);
	assert_int_equal(create(w, d, "f", 0600), 0);
	assert_int_equal(delegate(w, A, res.attr.ino), -EINVAL);
	/* A name in the middle of an operation over two groups. */
	struct vfs_op op = named(VFS_MKDIR, d, "sub");

	do
		random_bytes(&op.target.folder, 16);
	while (vol_owner(w->map, &op.target.folder) == 1);
	vfs_result_done(&res);
	assert_int_equal(world_exec(w, &op, &res), 0);
	assert_true(res.intent);
	assert_int_equal(delegate(w, A, d), -EAGAIN);
	assert_int_equal(holder(w, d), 0);
	world_settle(w);
	assert_int_equal(delegate(w, A, d), 0);
	assert_int_equal(undelegate(w, A, d), 0);
	for (unsigned i = 0; i < 16384; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(create(w, d, name, 0600), 0);
	}
	assert_int_equal(delegate(w, A, d), -E2BIG);
	assert_int_equal(call(w, named(VFS_UNLINK, d, "n0")), 0);
	assert_int_equal(call(w, named(VFS_UNLINK, d, "n1")), 0);
	assert_int_equal(delegate(w, A, d), 0);
	world_free(w);
}

static void test_numbered(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 1);
	uint64_t from, to;
	struct vfs_op op;
	int64_t now;

	assert_int_equal(call(w, numbered(A, d, "f", 5, 5000)), -ESTALE); /* nobody's */
	assert_int_equal(delegate(w, A, d), 0);
	from = res.lock.start;
	to = res.lock.end;
	assert_int_equal(call(w, numbered(B, d, "f", from, 5000)), -ESTALE);
	assert_int_equal(call(w, numbered(A, d, "f", from - 1, 5000)), -ESTALE);
	assert_int_equal(call(w, numbered(A, d, "f", to + 1, 5000)), -ESTALE);
	op = numbered(A, d, "f", from, 5000);
	op.id.slot = 4;
	op.id.number = 1;
	assert_int_equal(call(w, op), 0);
	assert_int_equal(w->last_effects, 4);
	assert_int_equal(call(w, op), 0); /* again: the same answer, not "there already" */
	assert_int_equal(w->last_effects, 0);
	assert_int_equal(res.attr.ino.num, from);
	assert_int_equal(res.attr.ctime_ns, 5000);
	assert_int_equal(res.attr.mtime_ns, 5000);
	assert_int_equal(res.attr.atime_ns, 5000);
	assert_int_equal(res.parent.mtime_ns, 5000);
	assert_int_equal(res.attr.uid, 10);
	assert_int_equal(res.attr.nlink, 1);
	assert_int_equal(lookup(w, d, "f"), 0);
	assert_int_equal(res.attr.ino.num, from);
	assert_int_equal(call(w, numbered(A, d, "g", from, 5000)), -ESTALE); /* a file has it */
	assert_int_equal(call(w, numbered(A, d, "f", from + 1, 5000)), -EEXIST);
	assert_int_equal(call(w, numbered(A, d, "last", to, 0)), 0); /* the primary's time */
	now = w->now;
	assert_int_equal(res.attr.ctime_ns, now);
	assert_int_equal(undelegate(w, A, d), 0);
	assert_int_equal(call(w, numbered(A, d, "late", from + 2, 5000)), -ESTALE);
	assert_int_equal(lookup(w, d, "late"), -ENOENT);
	world_free(w);
}

static void test_first_bytes(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 1), f;
	struct payload *five;
	struct vfs_op op;
	uint64_t from;

	assert_int_equal(delegate(w, A, d), 0);
	from = res.lock.start;
	assert_int_equal(born(w, A, d, "f", from, 5000), 0);
	assert_int_equal(w->last_effects, 5); /* entry, inode, folder, answer, data */
	f = res.attr.ino;
	assert_int_equal(res.attr.size, 5000);
	assert_int_equal(res.attr.blocks, 16);
	assert_int_equal(res.attr.mtime_ns, 5000);
	assert_int_equal(res.attr.mode, S_IFREG | 0644); /* as a user's write takes the set-id bits */
	assert_int_equal(res.attr.version, res.parent.version);
	assert_int_equal(byte_at(w, f, 0), 'b');
	assert_int_equal(byte_at(w, f, 4999), 'b');
	assert_int_equal(res.payload->data[5000 - res.crc_off], 0);
	assert_int_equal(write_at(w, f, 5000, 'w', 10), 0);
	assert_int_equal(res.attr.size, 5010);
	assert_int_equal(born(w, A, d, "max", from + 1, VFS_BORN_MAX), 0);
	assert_int_equal(born(w, A, d, "more", from + 2, VFS_BORN_MAX + 1), -EINVAL);
	op = numbered(A, d, "pipe", from + 3, 1);
	op.attr.mode = S_IFIFO | 0600;
	op.payload = five = payload_new(5);
	assert_int_equal(call(w, op), -EINVAL);
	op = of(A, named(VFS_CREATE, d, "counted"));
	op.payload = five;
	assert_int_equal(call(w, op), -EINVAL);
	payload_unref(five);
	vfs_of(w, d)->bytes_free = 10000;
	assert_int_equal(born(w, A, d, "full", from + 4, 20000), -ENOSPC);
	assert_int_equal(lookup(w, d, "full"), -ENOENT);
	vfs_of(w, d)->bytes_taken = 9000;
	assert_int_equal(born(w, A, d, "maybe", from + 5, 5000), -EAGAIN);
	vfs_of(w, d)->bytes_taken = 0;
	assert_int_equal(born(w, A, d, "maybe", from + 5, 5000), 0);
	world_free(w);
}

/* In a striped volume the first stripe is the folder's group's, or there are no bytes. */
static void test_first_bytes_striped(void **state)
{
	struct world *w = world_new(4, 2, 4096);
	struct vol_ino d = folder_at(w, "d", 1), f;
	bool here;

	assert_int_equal(delegate(w, A, d), 0);
	f = (struct vol_ino){d.folder, res.lock.start};
	here = vol_group_of_stripe(w->map, &f, 0) == vol_owner(w->map, &d.folder);
	assert_int_equal(born(w, A, d, "f", f.num, 4000), here ? 0 : -EINVAL);
	if (here)
		assert_int_equal(byte_at(w, f, 3999), 'b');
	world_free(w);
}

static void test_unlink_known(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 1), f;
	struct vfs_op op = named(VFS_UNLINK, d, "f");

	op.flags = VFS_KNOWN;
	op.target = (struct vol_ino){d.folder, 1};
	assert_int_equal(call(w, op), -ENOENT);
	assert_int_equal(create(w, d, "f", 0600), 0);
	f = res.attr.ino;
	assert_int_equal(call(w, op), -ESTALE);
	assert_int_equal(lookup(w, d, "f"), 0);
	op.target = f;
	assert_int_equal(call(w, op), 0);
	assert_int_equal(lookup(w, d, "f"), -ENOENT);
	world_free(w);
}

static void test_times(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 1), e = folder_at(w, "e", 2), f, g, away;
	struct vfs_op set = {.type = VFS_SETATTR,
			     .flags = VFS_TIMED,
			     .set = VFS_SET_MODE | VFS_SET_MTIME_NOW},
		      un = named(VFS_UNLINK, d, "f");

	assert_int_equal(create(w, d, "f", 0600), 0);
	f = res.attr.ino;
	assert_int_equal(create(w, d, "g", 0600), 0);
	g = res.attr.ino;
	assert_int_equal(create(w, e, "away", 0600), 0);
	away = res.attr.ino;
	assert_int_equal(rename_to(w, e, "away", d, "away", 0), 0);
	set.attr = (struct vfs_attr){.mode = 0640, .ctime_ns = 700};
	set.ino = f;
	assert_int_equal(call(w, of(A, set)),
			 -ESTALE); /* nobody's: it was taken back since, and others have been there */
	assert_int_equal(delegate(w, A, d), 0);
	assert_int_equal(call(w, of(B, set)), -ESTALE);
	assert_int_equal(call(w, of(A, set)), 0);
	assert_int_equal(res.attr.ctime_ns, 700);
	assert_int_equal(res.attr.mtime_ns, 700);
	set.ino = away; /* born elsewhere: its folder counts */
	assert_int_equal(call(w, of(A, set)), -ESTALE);
	assert_int_equal(link_to(w, f, d, "f2"), 0);
	un.flags = VFS_TIMED;
	un.attr.ctime_ns = 900;
	assert_int_equal(call(w, of(B, un)), -ESTALE);
	assert_int_equal(lookup(w, d, "f"), 0);
	un.flags = 0;
	assert_int_equal(call(w, of(B, un)), 0);
	assert_int_equal(res.parent.mtime_ns, w->now);
	un.flags = VFS_TIMED;
	un = of(A, un);
	un.name = "f2";
	un.name_len = 2;
	assert_int_equal(call(w, un), 0);
	assert_int_equal(res.parent.mtime_ns, 900);
	assert_int_equal(res.parent.ctime_ns, 900);
	assert_int_equal(res.gone.ctime_ns, 900);
	assert_int_equal(res.gone.nlink, 0);
	un.name = "away"; /* over two groups */
	un.name_len = 4;
	assert_int_equal(call(w, un), 0);
	assert_int_equal(res.parent.mtime_ns, 900);
	assert_int_equal(lookup(w, d, "g"), 0);
	assert_true(vol_ino_eq(&res.attr.ino, &g));
	world_free(w);
}

static int set_many(struct world *w, uint64_t client, struct vol_ino folder, const struct vfs_set *s,
		    uint32_t n)
{
	struct buf b = {0};
	int r;

	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(vfs_set_encode(&s[i], &b), 0);
	r = call(w, of(client, (struct vfs_op){.type = VFS_SETATTRS,
					       .ino = folder,
					       .data = b.data,
					       .data_len = (uint32_t)b.len}));
	buf_done(&b);
	return r;
}

static void test_many(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 1), e = folder_at(w, "e", 1);
	struct vfs_set s[VFS_SETS_MAX + 1] = {0};
	uint64_t from, version;
	struct vfs_attr last;
	char name[16];
	size_t at = 0;

	assert_int_equal(delegate(w, A, d), 0);
	from = res.lock.start;
	for (uint32_t i = 0; i < ARRAY_SIZE(s); i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(born(w, A, d, name, from + i, 100), 0);
		s[i] = (struct vfs_set){
			.num = from + i, .set = VFS_SET_MTIME, .mtime_ns = 7000 + i, .ctime_ns = 9000 + i};
	}
	s[1].set = VFS_SET_MODE | VFS_SET_ATIME;
	s[1].mode = 0640;
	s[1].atime_ns = -5;
	assert_int_equal(set_many(w, A, d, s, VFS_SETS_MAX), 0);
	version = res.attr.version;
	for (uint32_t i = 0; i < VFS_SETS_MAX; i++) {
		struct vfs_attr a;

		assert_int_equal(vfs_attr_decode(res.data.data, res.data.len, &at, &a), 0);
		assert_int_equal(a.ino.num, s[i].num);
		assert_int_equal(a.ctime_ns, 9000 + i);
		assert_int_equal(vfs_stat(vfs_of(w, d), &(struct vol_ino){d.folder, s[i].num}, &a), 0);
		assert_int_equal(a.version, version);
		assert_int_equal(a.ctime_ns, 9000 + i);
		assert_int_equal(a.mtime_ns, i == 1 ? 5000 : 7000 + i);
		assert_int_equal(a.mode & 07777, i == 1 ? 0640 : 0644);
		assert_int_equal(a.size, 100);
		if (i == 1)
			assert_int_equal(a.atime_ns, -5);
	}
	assert_int_equal(vfs_attr_decode(res.data.data, res.data.len, &at, &last), -ENOENT);
	at -= 2;
	assert_int_equal(vfs_attr_decode(res.data.data, res.data.len, &at, &last), -EBADMSG);
	/* All or none. */
	s[0].mtime_ns = 1;
	s[2].num = from + 1000;
	assert_int_equal(set_many(w, A, d, s, 3), -ENOENT);
	s[2].num = s[0].num;
	assert_int_equal(set_many(w, A, d, s, 3), -EINVAL);
	s[2].num = 0;
	assert_int_equal(set_many(w, A, d, s, 3), -EINVAL);
	s[2].num = from + 2;
	s[2].set = VFS_SET_SIZE;
	assert_int_equal(set_many(w, A, d, s, 3), -EINVAL);
	s[2].set = VFS_SET_UID;
	assert_int_equal(set_many(w, A, d, s, 3), -EINVAL);
	s[2].set = VFS_SET_MODE;
	assert_int_equal(set_many(w, A, d, s, VFS_SETS_MAX + 1), -EINVAL);
	assert_int_equal(set_many(w, A, d, s, 0), -EINVAL);
	assert_int_equal(
		call(w, of(A, (struct vfs_op){.type = VFS_SETATTRS, .ino = d, .data = s, .data_len = 39})),
		-EINVAL);
	assert_int_equal(set_many(w, B, d, s, 1), -ESTALE);
	assert_int_equal(set_many(w, A, e, s, 1), -ESTALE);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_GETATTR, .ino = {d.folder, from}}), 0);
	assert_int_equal(res.attr.version, version);
	assert_int_equal(undelegate(w, A, d), 0);
	assert_int_equal(set_many(w, A, d, s, 1), -ESTALE);
	world_free(w);
}

/* An answer is as old as it is, whatever times the operation brought along: it is not swept before its hour. */
static void test_answers_age(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 1);
	struct vfs_op op, sweep = {.type = VFS_SWEEP, .ino = d};
	uint64_t from;

	assert_int_equal(delegate(w, A, d), 0);
	from = res.lock.start;
	op = numbered(A, d, "f", from, 1);
	op.id.slot = 8;
	op.id.number = 4;
	assert_int_equal(call(w, op), 0);
	assert_int_equal(call(w, sweep), 0);
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.ino.num, from);
	assert_int_equal(w->last_effects, 0);
	world_free(w);
}

/* The folder is removed: nothing of the delegation is left, in its own group and by a step. */
static void test_removed(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino top = folder_at(w, "top", 1), d[2];
	uint64_t from;
	uint64_t client;
	struct vol_id id;

	for (uint32_t i = 0; i < 2; i++) {
		const char *name = i ? "there" : "here";
		struct vfs_op reap = {.type = VFS_REAP};

		assert_int_equal(mkdir_at(w, top, name, 1 + i, 0755), 0);
		d[i] = res.attr.ino;
		assert_int_equal(delegate(w, A, d[i]), 0);
		from = res.lock.start;
		assert_int_equal(call(w, numbered(A, d[i], "f", from, 5)), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, top, name)), -ENOTEMPTY);
		assert_int_equal(holder(w, d[i]), A);
		assert_int_equal(call(w, named(VFS_UNLINK, d[i], "f")), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, top, name)), 0);
		assert_int_equal(holder(w, d[i]), 0);
		assert_int_equal(call(w, numbered(A, d[i], "f", from + 1, 5)), -ESTALE);
		assert_int_equal(delegate(w, A, d[i]), -ENOENT);
		reap.ino = d[i];
		assert_int_equal(call(w, reap), 0);
		assert_int_equal(vfs_delegation_iter(vfs_of(w, d[i]), NULL, &id, &client), -ENOENT);
	}
	world_free(w);
}

static void test_iter(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vol_id id, after;
	unsigned n = 0, mine = 0;
	uint64_t client;
	char name[8];

	for (unsigned i = 0; i < 50; i++) {
		struct vol_ino d;

		snprintf(name, sizeof(name), "d%u", i);
		d = folder_at(w, name, 1);
		assert_int_equal(delegate(w, i % 2 ? A : B, d), 0);
	}
	for (int r = vfs_delegation_iter(&w->g[1].vfs, NULL, &id, &client); r == 0;
	     r = vfs_delegation_iter(&w->g[1].vfs, &after, &id, &client)) {
		assert_true(n == 0 || memcmp(after.b, id.b, 16) < 0);
		after = id;
		n++;
		mine += client == A;
	}
	assert_int_equal(n, 50);
	assert_int_equal(mine, 25);
	assert_int_equal(vfs_delegation_iter(&w->g[0].vfs, NULL, &id, &client), -ENOENT);
	world_free(w);
}

TEST_MAIN(cmocka_unit_test(test_give), cmocka_unit_test(test_give_what), cmocka_unit_test(test_numbered),
	  cmocka_unit_test(test_first_bytes), cmocka_unit_test(test_first_bytes_striped),
	  cmocka_unit_test(test_unlink_known), cmocka_unit_test(test_times), cmocka_unit_test(test_many),
	  cmocka_unit_test(test_answers_age), cmocka_unit_test(test_removed), cmocka_unit_test(test_iter))
