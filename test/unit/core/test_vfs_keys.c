/* SPDX-License-Identifier: Apache-2.0 */
/* core/vfs: what is kept beside names and data: extended attributes, locks; and listing of folders. */
#include <fcntl.h>
#include <sys/xattr.h>

#include "vfs_calls.h"

static void test_xattrs(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vfs_op op = named(VFS_SETXATTR, root, "user.a");
	char *big = xcalloc(1, VFS_XATTR_MAX + 1);

	assert_int_equal(call(w, named(VFS_GETXATTR, root, "user.a")), -ENODATA);
	op.data = "value";
	op.data_len = 5;
	op.flags = XATTR_REPLACE;
	assert_int_equal(call(w, op), -ENODATA);
	op.flags = XATTR_CREATE;
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.ctime_ns, w->now);
	assert_int_equal(call(w, op), -EEXIST);
	assert_int_equal(call(w, named(VFS_GETXATTR, root, "user.a")), 0);
	assert_int_equal(res.data.len, 5);
	assert_memory_equal(res.data.data, "value", 5);
	op = named(VFS_SETXATTR, root, "user.big");
	op.data = big;
	op.data_len = VFS_XATTR_MAX;
	assert_int_equal(call(w, op), 0);
	op = named(VFS_SETXATTR, root, "user.none");
	assert_int_equal(call(w, op), 0);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_LISTXATTR, .ino = root}), 0);
	assert_int_equal(res.data.len, 7 + 9 + 10);
	assert_memory_equal(res.data.data, "user.a\0user.big\0user.none", 26);
	assert_int_equal(call(w, named(VFS_REMOVEXATTR, root, "user.a")), 0);
	assert_int_equal(call(w, named(VFS_REMOVEXATTR, root, "user.a")), -ENODATA);
	assert_int_equal(call(w, named(VFS_GETXATTR, root, "user.none")), 0);
	assert_int_equal(res.data.len, 0);
	assert_int_equal(call(w, named(VFS_SETXATTR, root, "system.posix_acl_access")), -EOPNOTSUPP);
	op = named(VFS_SETXATTR, root, "user.kuayu.home");
	op.data = "nowhere";
	op.data_len = 7;
	assert_int_equal(call(w, op), -EINVAL);
	op.data = w->map->domains[1];
	op.data_len = (uint32_t)strlen(w->map->domains[1]);
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.home, 2);
	assert_int_equal(mkdir_at(w, root, "d", UINT32_MAX, 0755), 0);
	assert_int_equal(res.attr.home, 2); /* and so on below */
	free(big);
	world_free(w);
}

static void test_reap_many_xattrs(void **state)
{
	struct world *w = world_new(1, 1, VOL_STRIPE_SIZE);
	struct vol_ino f;
	size_t before;

	assert_int_equal(create(w, root, "f", 0644), 0);
	assert_int_equal(call(w, named(VFS_UNLINK, root, "f")), 0);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_REAP, .ino = res.gone.ino}), 0);
	before = mem_kv_len(w->g[0].kv);
	assert_int_equal(create(w, root, "f", 0644), 0);
	f = res.attr.ino;
	for (unsigned i = 0; i <= VFS_XATTRS_MAX; i++) {
		char name[16];

		snprintf(name, sizeof(name), "user.%u", i);
		assert_int_equal(call(w, named(VFS_SETXATTR, f, name)), i < VFS_XATTRS_MAX ? 0 : -ENOSPC);
	}
	assert_int_equal(call(w, named(VFS_UNLINK, root, "f")), 0);
	for (unsigned i = 0;; i++) {
		assert_true(i < 10);
		assert_int_equal(call(w, (struct vfs_op){.type = VFS_REAP, .ino = f}), 0);
		if (!(res.flags & VFS_MORE))
			break;
	}
	(void)before;
	assert_int_equal(getattr(w, f), -ENOENT);
	world_free(w);
}

static int lock(struct world *w, struct vol_ino ino, uint64_t client, uint64_t owner, int type,
		uint64_t start, uint64_t end)
{
	struct vfs_op op = {
		.type = VFS_LOCK,
		.ino = ino,
		.id.client = client,
		.lock = {.start = start, .end = end, .owner = owner, .pid = 9, .type = (uint8_t)type}};

	return call(w, op);
}

static void test_locks(void **state)
{
	struct world *w = world_new(1, 1, VOL_STRIPE_SIZE);
	struct vfs_op op;

	assert_int_equal(lock(w, root, 1, 1, F_WRLCK, 0, 99), 0);
	assert_int_equal(lock(w, root, 1, 2, F_WRLCK, 50, 60), -EAGAIN);
	assert_int_equal(res.lock.start, 0);
	assert_int_equal(res.lock.end, 99);
	assert_int_equal(res.lock.pid, 9);
	assert_int_equal(res.lock.type, F_WRLCK);
	assert_int_equal(lock(w, root, 2, 1, F_RDLCK, 0, 0), -EAGAIN); /* owners are a client's own */
	assert_int_equal(lock(w, root, 1, 1, F_UNLCK, 40, 59), 0);     /* split */
	assert_int_equal(lock(w, root, 2, 1, F_WRLCK, 40, 59), 0);
	assert_int_equal(lock(w, root, 2, 1, F_WRLCK, 39, 59), -EAGAIN);
	assert_int_equal(lock(w, root, 2, 1, F_UNLCK, 0, UINT64_MAX), 0);
	assert_int_equal(lock(w, root, 1, 1, F_WRLCK, 30, 70), 0); /* merge */
	op = (struct vfs_op){.type = VFS_GETLOCK,
			     .ino = root,
			     .id.client = 2,
			     .lock = {.start = 45, .end = 45, .type = F_RDLCK}};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.lock.type, F_WRLCK);
	assert_int_equal(res.lock.start, 0);
	assert_int_equal(res.lock.end, 99);
	assert_int_equal(lock(w, root, 1, 1, F_RDLCK, 10, 20), 0); /* of another type: three ranges */
	assert_int_equal(lock(w, root, 2, 1, F_RDLCK, 15, 15), 0);
	assert_int_equal(lock(w, root, 2, 1, F_RDLCK, 21, 21), -EAGAIN);
	assert_int_equal(lock(w, root, 1, 1, F_WRLCK, 15, 15), -EAGAIN);
	op.lock.start = op.lock.end = 200;
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.lock.type, F_UNLCK);
	op = (struct vfs_op){.type = VFS_LOCK,
			     .ino = root,
			     .id.client = 3,
			     .lock = {.owner = 1, .type = F_WRLCK, .flock = true}};
	assert_int_equal(call(w, op), 0); /* flock does not see fcntl */
	op.id.client = 4;
	op.id.number = 0;
	assert_int_equal(call(w, op), -EAGAIN);
	op = (struct vfs_op){.type = VFS_UNLOCK_ALL, .ino = root, .id.client = 1, .lock.owner = 1};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(lock(w, root, 9, 1, F_WRLCK, 16, 99), 0);
	op = (struct vfs_op){.type = VFS_UNLOCK_ALL, .ino = root, .id.client = 3};
	assert_int_equal(call(w, op), 0);
	op = (struct vfs_op){.type = VFS_LOCK,
			     .ino = root,
			     .id.client = 4,
			     .lock = {.owner = 1, .type = F_WRLCK, .flock = true}};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(lock(w, root, 9, 1, F_RDLCK, 5, 4), -EINVAL);
	world_free(w);
}

static void test_lock_bound(void **state)
{
	struct world *w = world_new(1, 1, VOL_STRIPE_SIZE);

	for (unsigned i = 0; i < VFS_LOCKS_MAX; i++)
		assert_int_equal(lock(w, root, 1, 1, F_WRLCK, i * 10, i * 10 + 3), 0);
	assert_int_equal(lock(w, root, 1, 1, F_WRLCK, 1000000, 1000001), -ENOLCK);
	assert_int_equal(lock(w, root, 1, 1, F_UNLCK, 1, 1), -ENOLCK); /* a split */
	assert_int_equal(lock(w, root, 1, 1, F_WRLCK, 0, UINT64_MAX), 0);
	assert_int_equal(lock(w, root, 1, 1, F_WRLCK, 1000000, 1000001), 0);
	world_free(w);
}

/* Against bytes: random sets and releases of two owners, each byte of 0..63 has its holder. */
static void test_lock_model(void **state)
{
	struct world *w = world_new(1, 1, VOL_STRIPE_SIZE);
	uint8_t held[2][64] = {0}; /* 0 none, else type + 1 */
	uint32_t x = 12345;

	for (unsigned i = 0; i < 4000; i++) {
		uint64_t a, b, who;
		bool clash = false;
		int type, r;

		x = x * 1664525 + 1013904223;
		a = x >> 8 & 63;
		b = a + (x >> 14 & 15);
		b = MIN(b, 63u);
		who = x >> 20 & 1;
		type = (int[]){F_RDLCK, F_WRLCK, F_UNLCK}[(x >> 24) % 3];
		for (uint64_t k = a; k <= b; k++)
			clash |= type != F_UNLCK && held[!who][k] &&
				 (type == F_WRLCK || held[!who][k] == F_WRLCK + 1);
		r = lock(w, root, 1, who + 1, type, a, b);
		assert_int_equal(r, clash ? -EAGAIN : 0);
		for (uint64_t k = a; !clash && k <= b; k++)
			held[who][k] = type == F_UNLCK ? 0 : (uint8_t)(type + 1);
	}
	world_free(w);
}

static void test_readdir(void **state)
{
	static char names[600][32];
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d = folder_at(w, "d", 2);

	assert_int_equal(list(w, d, 0, names, 600), 0);
	for (unsigned i = 0; i < 500; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%03u", (i * 7) % 500);
		assert_int_equal(i % 50 ? create(w, d, name, 0644) : mkdir_at(w, d, name, i % 4, 0755), 0);
	}
	assert_int_equal(list(w, d, 0, names, 600), 500);
	assert_int_equal(list(w, d, 1, names, 600), 500);
	assert_string_equal(names[0], "000");
	assert_string_equal(names[499], "499");
	assert_int_equal(list(w, root, 0, names, 600), 1);
	assert_int_equal(lookup(w, d, "007"), 0);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_READDIR, .ino = res.attr.ino}), -ENOTDIR);
	world_free(w);
}

TEST_MAIN(cmocka_unit_test(test_xattrs), cmocka_unit_test(test_reap_many_xattrs),
	  cmocka_unit_test(test_locks), cmocka_unit_test(test_lock_bound), cmocka_unit_test(test_lock_model),
	  cmocka_unit_test(test_readdir))
