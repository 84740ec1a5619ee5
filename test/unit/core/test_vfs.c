/* SPDX-License-Identifier: Apache-2.0 */
/* core/vfs, operation by operation, over several groups in memory: results, times, link counts, and what the hot path costs. */
#include <fcntl.h>
#include <linux/falloc.h>

#include "vfs_calls.h"

static void test_create(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	int64_t before;

	assert_int_equal(create(w, root, "a", 0640), 0);
	assert_int_equal(w->last_effects, 4); /* entry, inode, folder, answer */
	assert_int_equal(res.attr.mode, S_IFREG | 0640);
	assert_int_equal(res.attr.nlink, 1);
	assert_int_equal(res.attr.uid, 10);
	assert_int_equal(res.attr.gid, 20);
	assert_int_equal(res.attr.ctime_ns, w->now);
	assert_int_equal(res.parent.mtime_ns, w->now);
	assert_int_equal(res.parent.nlink, 2);
	assert_int_equal(res.attr.version, res.parent.version);
	before = res.parent.ctime_ns;
	assert_int_equal(create(w, root, "a", 0640), -EEXIST);
	assert_int_equal(res.attr.mode, S_IFREG | 0640); /* the entry comes along */
	assert_int_equal(getattr(w, root), 0);
	assert_int_equal(res.attr.ctime_ns, before); /* a failure changes nothing */
	assert_int_equal(call(w, named(VFS_CREATE, root, "a")), 0);
	assert_true(res.flags & VFS_EXISTED);
	assert_int_equal(create(w, root, "p", S_IFIFO | 0600), 0);
	assert_int_equal(res.attr.mode, S_IFIFO | 0600);
	assert_int_equal(create(w, root, "s", S_IFSOCK | 0600), 0);
	assert_int_equal(create(w, root, "d", S_IFDIR | 0600), -EINVAL);
	assert_int_equal(create(w, root, "", 0600), -EINVAL);
	assert_int_equal(create(w, root, ".", 0600), -EEXIST);
	assert_int_equal(create(w, root, "x/y", 0600), -EINVAL);
	assert_int_equal(lookup(w, root, "nothing"), -ENOENT);
	assert_int_equal(lookup(w, root, "a"), 0);
	assert_int_equal(create(w, res.attr.ino, "in a file", 0600), -ENOTDIR);
	w->g[vol_owner(w->map, &vol_root)].vfs.reserve = UINT64_MAX;
	assert_int_equal(create(w, root, "full", 0600), -ENOSPC);
	world_free(w);
}

static void test_long_names(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	char name[258];

	memset(name, 'n', 257);
	name[256] = 0;
	assert_int_equal(create(w, root, name, 0600), -ENAMETOOLONG);
	assert_int_equal(lookup(w, root, name), -ENAMETOOLONG);
	name[255] = 0;
	assert_int_equal(create(w, root, name, 0600), 0);
	assert_int_equal(lookup(w, root, name), 0);
	assert_int_equal(call(w, named(VFS_UNLINK, root, name)), 0);
	world_free(w);
}

static void test_devices(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vfs_op op = named(VFS_CREATE, root, "dev");

	op.attr.mode = S_IFCHR | 0666;
	op.attr.rdev = 0x103;
	assert_int_equal(call(w, op), 0);
	assert_int_equal(lookup(w, root, "dev"), 0);
	assert_int_equal(res.attr.rdev, 0x103);
	assert_int_equal(res.attr.mode, S_IFCHR | 0666);
	assert_int_equal(truncate_to(w, res.attr.ino, 5), -EINVAL);
	world_free(w);
}

static void test_symlink(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vfs_op op = named(VFS_SYMLINK, root, "l");
	char *big = xcalloc(1, 5000);
	struct vol_ino ino;

	memset(big, 't', 4999);
	op.data = "../target";
	op.data_len = 9;
	assert_int_equal(call(w, op), 0);
	ino = res.attr.ino;
	assert_int_equal(res.attr.size, 9);
	assert_int_equal(res.attr.mode, S_IFLNK | 0777);
	assert_int_equal(
		call(w, (struct vfs_op){.type = VFS_SETATTR, .ino = ino, .set = VFS_SET_UID, .attr.uid = 5}),
		0);
	assert_int_equal(link_to(w, ino, root, "l2"), 0); /* a changed inode keeps its target */
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_READLINK, .ino = ino}), 0);
	assert_int_equal(res.data.len, 9);
	assert_memory_equal(res.data.data, "../target", 9);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_READLINK, .ino = root}), -EINVAL);
	op = named(VFS_SYMLINK, root, "big");
	op.data = big;
	op.data_len = 4096;
	assert_int_equal(call(w, op), -ENAMETOOLONG);
	op.data_len = 4095;
	assert_int_equal(call(w, op), 0);
	free(big);
	world_free(w);
}

static void test_setgid(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino d;

	assert_int_equal(mkdir_at(w, root, "d", UINT32_MAX, 0755), 0);
	d = res.attr.ino;
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_SETATTR,
						 .ino = d,
						 .set = VFS_SET_MODE | VFS_SET_GID,
						 .attr = {.mode = 02775, .gid = 555}}),
			 0);
	assert_int_equal(res.attr.mode, S_IFDIR | 02775);
	assert_int_equal(create(w, d, "f", 0644), 0);
	assert_int_equal(res.attr.gid, 555);
	assert_int_equal(res.attr.mode, S_IFREG | 0644);
	for (uint32_t g = 0; g < w->n; g++) { /* here and in every other group */
		char name[16];

		snprintf(name, sizeof(name), "g%u", g);
		assert_int_equal(mkdir_at(w, d, name, g, 0700), 0);
		assert_int_equal(lookup(w, d, name), 0);
		assert_int_equal(res.attr.gid, 555);
		assert_int_equal(res.attr.mode, S_IFDIR | 02700);
	}
	world_free(w);
}

static void test_set_id_bits(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vfs_op op;
	struct vol_ino f;

	assert_int_equal(create(w, root, "f", 06755), 0);
	f = res.attr.ino;
	assert_int_equal(write_at(w, f, 0, 1, 10), 0); /* root keeps them */
	assert_int_equal(res.attr.mode, S_IFREG | 06755);
	op = (struct vfs_op){.type = VFS_SETATTR, .ino = f, .set = VFS_SET_UID, .attr.uid = 11};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.mode, S_IFREG | 0755);
	op = (struct vfs_op){.type = VFS_SETATTR, .ino = f, .set = VFS_SET_MODE, .attr.mode = 06745};
	assert_int_equal(call(w, op), 0);
	op = (struct vfs_op){.type = VFS_SETATTR, .ino = f, .set = VFS_SET_SIZE, .uid = 11};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.mode,
			 S_IFREG | 02745); /* setgid without group execute is mandatory locking's */
	world_free(w);
}

static void test_times(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vol_ino f;
	int64_t made;

	assert_int_equal(create(w, root, "f", 0644), 0);
	f = res.attr.ino;
	made = res.attr.mtime_ns;
	assert_int_equal(
		call(w,
		     (struct vfs_op){.type = VFS_SETATTR, .ino = f, .set = VFS_SET_MODE, .attr.mode = 0600}),
		0);
	assert_int_equal(res.attr.mtime_ns, made);
	assert_int_equal(res.attr.ctime_ns, w->now);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_SETATTR,
						 .ino = f,
						 .set = VFS_SET_ATIME | VFS_SET_MTIME,
						 .attr = {.atime_ns = -5, .mtime_ns = 1234567890123456789}}),
			 0);
	assert_int_equal(getattr(w, f), 0);
	assert_int_equal(res.attr.atime_ns, -5);
	assert_int_equal(res.attr.mtime_ns, 1234567890123456789);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_SETATTR,
						 .ino = f,
						 .set = VFS_SET_MTIME_NOW | VFS_SET_ATIME_NOW}),
			 0);
	assert_int_equal(res.attr.mtime_ns, w->now);
	assert_int_equal(truncate_to(w, f, 0), 0); /* no change of size is a truncate still */
	assert_int_equal(res.attr.mtime_ns, w->now);
	world_free(w);
}

static void test_write(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vfs_op op;
	struct vol_ino f;

	assert_int_equal(create(w, root, "f", 0644), 0);
	f = res.attr.ino;
	assert_int_equal(write_at(w, f, 0, 0xaa, 4096), 0);
	assert_int_equal(w->last_effects, 3); /* inode, data, answer */
	assert_int_equal(res.attr.size, 4096);
	assert_int_equal(res.attr.blocks, 8);
	assert_int_equal(res.attr.mtime_ns, w->now);
	assert_int_equal(write_at(w, f, 100, 0xbb, 10), 0);
	assert_int_equal(res.attr.size, 4096);
	assert_int_equal(byte_at(w, f, 105), 0xbb);
	assert_int_equal(byte_at(w, f, 111), 0xaa);
	assert_int_equal(write_at(w, f, 1 << 20, 0xcc, 10), 0); /* a hole */
	assert_int_equal(res.attr.size, (1 << 20) + 10);
	assert_int_equal(res.attr.blocks, 16);
	assert_int_equal(byte_at(w, f, 5000), 0);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_SEEK, .ino = f, .off = 10, .set = SEEK_HOLE}),
			 0);
	assert_int_equal(res.attr.size, 4096);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_SEEK, .ino = f, .off = 5000, .set = SEEK_DATA}),
			 0);
	assert_int_equal(res.attr.size, 1 << 20);
	assert_int_equal(
		call(w, (struct vfs_op){.type = VFS_SEEK, .ino = f, .off = (1 << 20) + 10, .set = SEEK_DATA}),
		-ENXIO);
	op = (struct vfs_op){.type = VFS_WRITE, .ino = f, .flags = VFS_APPEND, .payload = payload_new(5)};
	memset(op.payload->data, 0xdd, 5);
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.size, (1 << 20) + 15);
	op.flags = 0;
	op.off = VFS_SIZE_MAX - 4;
	op.id.number = 0;
	assert_int_equal(call(w, op), -EFBIG);
	payload_unref(op.payload);
	assert_int_equal(byte_at(w, f, (1 << 20) + 12), 0xdd);
	assert_int_equal(write_at(w, root, 0, 1, 1), -EISDIR);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_READ, .ino = f, .off = 1 << 21, .len = 10}), 0);
	assert_null(res.payload);
	world_free(w);
}

/* A small file's bytes come along with its lookup, when they are asked for, are all of it, and are in the folder's group. */
static void test_lookup_with_bytes(void **state)
{
	for (uint32_t stripe = 1; stripe <= 2; stripe++) {
		struct world *w = world_new(8, stripe, VOL_STRIPE_SIZE);
		struct vfs_op op = named(VFS_LOOKUP, root, "f");
		struct vol_ino f;
		bool here;

		assert_int_equal(create(w, root, "f", 0644), 0);
		f = res.attr.ino;
		here = vol_group_of_stripe(w->map, &f, 0) == vol_owner(w->map, &f.folder);
		op.len = 2 * VOL_BLOCK;
		assert_int_equal(call(w, op), 0);
		assert_null(res.payload); /* empty */
		if (here)
			assert_int_equal(write_at(w, f, 0, 0x11, VOL_BLOCK + 5), 0);
		assert_int_equal(call(w, op), 0);
		if (!here) {
			assert_null(res.payload);
			world_free(w);
			continue;
		}
		assert_int_equal(res.attr.size, VOL_BLOCK + 5);
		assert_int_equal(res.crc_off, 0);
		assert_int_equal(res.n_crcs, 2);
		assert_int_equal(res.payload->len, 2 * VOL_BLOCK);
		assert_int_equal(res.payload->data[VOL_BLOCK + 4], 0x11);
		assert_int_equal(res.payload->data[VOL_BLOCK + 5], 0);
		op.len = VOL_BLOCK; /* longer than that: nothing of it */
		assert_int_equal(call(w, op), 0);
		assert_null(res.payload);
		assert_int_equal(res.n_crcs, 0);
		op.len = 0;
		assert_int_equal(call(w, op), 0);
		assert_null(res.payload);
		op.len = UINT64_MAX; /* bounded */
		assert_int_equal(truncate_to(w, f, VFS_LOOKUP_MAX), 0);
		assert_int_equal(call(w, op), 0);
		assert_int_equal(res.payload->len, VFS_LOOKUP_MAX);
		assert_int_equal(truncate_to(w, f, VFS_LOOKUP_MAX + 1), 0);
		assert_int_equal(call(w, op), 0);
		assert_null(res.payload);
		op = named(VFS_LOOKUP, root, "s"); /* nothing but regular files */
		op.len = VOL_BLOCK;
		assert_int_equal(create(w, root, "s", S_IFIFO | 0600), 0);
		assert_int_equal(call(w, op), 0);
		assert_null(res.payload);
		world_free(w);
	}
}

static void test_truncate(void **state)
{
	static const uint64_t sizes[] = {5000000, 1000000, 9000000, 500000, 9000000};

	for (uint32_t stripe = 1; stripe <= 3; stripe += 2) {
		struct world *w = world_new(8, stripe, VOL_STRIPE_SIZE);
		struct vol_ino f;

		assert_int_equal(create(w, root, "f", 0644), 0);
		f = res.attr.ino;
		for (uint64_t off = 0; off < 8u << 20; off += 1 << 20) {
			if (stripe > 1) { /* as a client does it */
				struct vfs_op op = {.type = VFS_WRITE,
						    .ino = f,
						    .off = off,
						    .payload = payload_new(1 << 20)};

				memset(op.payload->data, 0xaa, 1 << 20);
				if (vol_group_of_stripe(w->map, &f, off >> 20) !=
				    vol_owner(w->map, &f.folder))
					op.flags = VFS_FOREIGN;
				assert_int_equal(call(w, op), 0);
				payload_unref(op.payload);
				assert_int_equal(call(w, (struct vfs_op){.type = VFS_EXTEND,
									 .ino = f,
									 .off = off,
									 .len = 1 << 20}),
						 0);
			} else {
				assert_int_equal(write_at(w, f, off, 0xaa, 1 << 20), 0);
			}
		}
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			assert_int_equal(truncate_to(w, f, sizes[i]), 0);
			assert_int_equal(res.attr.size, sizes[i]);
		}
		for (uint64_t off = 0; off < 9000000; off += 4000) {
			struct vfs_op op = {
				.type = VFS_READ, .ino = f, .off = off, .len = 1, .flags = VFS_FOREIGN};
			uint8_t got;

			assert_int_equal(call(w, op), 0);
			got = res.payload->data[off - res.crc_off];
			if (got != (off < 500000 ? 0xaa : 0))
				fail_msg("stripe %u: byte at %llu is %02x", stripe, (unsigned long long)off,
					 got);
		}
		assert_int_equal(truncate_to(w, f, VFS_SIZE_MAX), 0);
		assert_int_equal(truncate_to(w, f, VFS_SIZE_MAX + 1), -EFBIG);
		assert_int_equal(truncate_to(w, root, 0), -EISDIR);
		world_free(w);
	}
}

/* A slow write of before the truncate is refused; one of after it waits for the slice to hear of it. */
static void test_foreign_generation(void **state)
{
	struct world *w = world_new(8, 3, VOL_STRIPE_SIZE);
	struct vfs_op slow, op = {.type = VFS_SETATTR, .set = VFS_SET_SIZE};
	struct vfs_result r;
	struct vol_ino f;
	uint8_t id[16];

	assert_int_equal(create(w, root, "f", 0644), 0);
	f = op.ino = res.attr.ino;
	assert_int_equal(vol_group_of_stripe(w->map, &f, 0), vol_owner(w->map, &f.folder));
	slow = (struct vfs_op){.type = VFS_WRITE,
			       .ino = f,
			       .flags = VFS_FOREIGN,
			       .off = 1 << 20,
			       .payload = payload_new(4096)};
	assert_int_equal(call(w, slow), 0);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_EXTEND, .ino = f, .off = 1 << 20, .len = 4096}),
			 0);
	assert_int_equal(world_exec(w, &op, &r), 0);
	assert_true(r.intent);
	assert_int_equal(r.attr.size, 0);
	memcpy(id, r.intent_id, 16);
	slow.gen = 1;
	assert_int_equal(call(w, slow), -EAGAIN);
	assert_int_equal(write_at(w, f, 0, 1, 10), -EAGAIN); /* nothing grows meanwhile */
	assert_int_equal(truncate_to(w, f, 100), -EAGAIN);
	assert_int_equal(world_exec(w, &op, &r), 0); /* a retry of it hears which intent */
	assert_true(r.intent);
	assert_memory_equal(r.intent_id, id, 16);
	assert_int_equal(world_settle(w), 1);
	assert_int_equal(world_exec(w, &op, &r), 0);
	assert_false(r.intent);
	slow.gen = 0;
	assert_int_equal(call(w, slow), -ESTALE);
	slow.gen = 1;
	assert_int_equal(call(w, slow), 0);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_EXTEND, .ino = f, .off = 1 << 20, .len = 4096}),
			 -ESTALE);
	assert_int_equal(
		call(w, (struct vfs_op){.type = VFS_EXTEND, .ino = f, .off = 1 << 20, .len = 4096, .gen = 1}),
		0);
	assert_int_equal(call(w, named(VFS_UNLINK, root, "f")), 0);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_REAP, .ino = f}), 0);
	for (uint32_t g = 0; g < w->n; g++)
		assert_int_equal(mem_blob_pages(w->g[g].blob), 0);
	payload_unref(slow.payload);
	world_free(w);
}

/* EXTEND of one slot: the end is reserved, or under a reservation the bytes are there. */
static int at_end(struct world *w, struct vol_ino f, uint32_t slot, uint64_t number, uint32_t flags,
		  uint64_t off, uint32_t gen)
{
	return call(w, (struct vfs_op){.type = VFS_EXTEND,
				       .id = {88, slot, number},
				       .ino = f,
				       .flags = flags,
				       .off = off,
				       .len = VOL_BLOCK,
				       .gen = gen});
}

/* Two slots append to a striped file: never the same place, no size before its bytes, whoever is given up writes nothing any more. */
static void test_reserved_end(void **state)
{
	struct world *w = world_new(8, 3, VOL_STRIPE_SIZE);
	struct vfs_op piece = {.type = VFS_WRITE, .flags = VFS_APPEND, .payload = payload_new(VOL_BLOCK)};
	uint64_t end = VOL_STRIPE_SIZE;
	struct vol_ino f;

	assert_int_equal(create(w, root, "f", 0644), 0);
	f = piece.ino = res.attr.ino;
	assert_int_equal(call(w, piece), 0); /* all in a stripe of the owner's: one record */
	assert_int_equal(res.attr.size, VOL_BLOCK);
	assert_int_equal(truncate_to(w, f, end), 0);
	assert_int_equal(call(w, piece), -ESTALE); /* the next byte is another group's */

	assert_int_equal(at_end(w, f, 1, 10, VFS_APPEND, 0, 0), 0);
	assert_true(res.flags & VFS_APPEND);
	assert_int_equal(res.attr.size, end);
	assert_int_equal(at_end(w, f, 1, 10, VFS_APPEND, 0, 0), 0); /* asked again */
	assert_true(res.flags & VFS_APPEND);
	assert_int_equal(at_end(w, f, 1, 9, VFS_APPEND, 0, 0), -ESTALE); /* a late copy */
	assert_int_equal(at_end(w, f, 2, 5, VFS_APPEND, 0, 0), -EAGAIN);
	assert_int_equal(at_end(w, f, 2, 6, VFS_RESERVED, end, 0), -ESTALE); /* not its own */
	assert_int_equal(at_end(w, f, 1, 11, VFS_RESERVED, end, 0), 0);
	end += VOL_BLOCK;
	assert_int_equal(res.attr.size, end);
	assert_int_equal(at_end(w, f, 1, 12, VFS_RESERVED, end, 0), -ESTALE);

	/* the answer to 10, asked for once more behind another's append, names no old place */
	assert_int_equal(at_end(w, f, 1, 10, VFS_APPEND, 0, 0), 0);
	assert_int_equal(res.attr.size, end);

	/* it does not come back: given up, its parts are refused in all groups */
	w->now += (int64_t)VFS_APPEND_MS * 1000000;
	assert_int_equal(at_end(w, f, 2, 7, VFS_APPEND, 0, 0), 0);
	assert_false(res.flags & VFS_APPEND);
	assert_int_equal(res.attr.gen, 1);
	assert_int_equal(res.attr.size, end);
	assert_int_equal(at_end(w, f, 2, 7, VFS_APPEND, 0, 0), 0); /* asked again: worked out anew */
	assert_true(res.flags & VFS_APPEND);
	assert_int_equal(at_end(w, f, 1, 13, VFS_RESERVED, end, 0), -ESTALE);
	piece.id = (struct vfs_opid){88, 1, 14};
	piece.flags = VFS_FOREIGN;
	piece.off = end;
	assert_int_equal(call(w, piece), -ESTALE);

	/* a truncate ends a reservation; growing does not */
	assert_int_equal(truncate_to(w, f, 3ull * VOL_STRIPE_SIZE), 0);
	assert_int_equal(at_end(w, f, 2, 8, VFS_RESERVED, end, 1), 0);
	assert_int_equal(res.attr.size, 3ull * VOL_STRIPE_SIZE);
	assert_int_equal(at_end(w, f, 2, 9, VFS_APPEND, 0, 0), 0);
	assert_int_equal(truncate_to(w, f, 5), 0);
	assert_int_equal(at_end(w, f, 2, 10, VFS_RESERVED, 3ull * VOL_STRIPE_SIZE, 2), -ESTALE);
	piece.id = (struct vfs_opid){88, 2, 11};
	piece.flags = VFS_RESERVED;
	piece.off = 3ull * VOL_STRIPE_SIZE;
	piece.gen = 2;
	assert_int_equal(call(w, piece), -ESTALE);
	assert_int_equal(getattr(w, f), 0);
	assert_int_equal(res.attr.size, 5);
	payload_unref(piece.payload);
	world_free(w);
}

static void test_fallocate(void **state)
{
	struct world *w = world_new(2, 1, VOL_STRIPE_SIZE);
	struct vfs_op op;
	struct vol_ino f;

	assert_int_equal(create(w, root, "f", 0644), 0);
	f = res.attr.ino;
	assert_int_equal(write_at(w, f, 0, 0xaa, 65536), 0);
	op = (struct vfs_op){.type = VFS_FALLOCATE,
			     .ino = f,
			     .off = 4096,
			     .len = 8192,
			     .set = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.size, 65536);
	assert_int_equal(res.attr.blocks, 128 - 16);
	assert_int_equal(byte_at(w, f, 4095), 0xaa);
	assert_int_equal(byte_at(w, f, 4096), 0);
	assert_int_equal(byte_at(w, f, 12288), 0xaa);
	op = (struct vfs_op){
		.type = VFS_FALLOCATE, .ino = f, .off = 65000, .len = 8192, .set = FALLOC_FL_KEEP_SIZE};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.size, 65536);
	op.set = 0;
	assert_int_equal(call(w, op), 0);
	assert_int_equal(res.attr.size, 65000 + 8192);
	op = (struct vfs_op){
		.type = VFS_FALLOCATE, .ino = f, .off = 0, .len = 100, .set = FALLOC_FL_ZERO_RANGE};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(byte_at(w, f, 99), 0);
	assert_int_equal(byte_at(w, f, 100), 0xaa);
	op.set = FALLOC_FL_COLLAPSE_RANGE;
	assert_int_equal(call(w, op), -EOPNOTSUPP);
	op.set = 0;
	op.len = 0;
	assert_int_equal(call(w, op), -EINVAL);
	op.len = 1ull << 60;
	assert_int_equal(call(w, op), -EFBIG);
	op.len = 1ull << 45;
	w->g[vol_owner(w->map, &vol_root)].vfs.bytes_free = 1 << 30;
	assert_int_equal(call(w, op), -ENOSPC);
	/* Enough when it was measured, but what was taken since may be more: no answer before it is known. */
	op.off = 65000 + 8192;
	op.len = 1 << 20;
	w->g[vol_owner(w->map, &vol_root)].vfs.bytes_taken = (1u << 30) - (1 << 20) + 1;
	assert_int_equal(call(w, op), -EAGAIN);
	w->g[vol_owner(w->map, &vol_root)].vfs.bytes_taken--;
	assert_int_equal(call(w, op), 0);
	w->g[vol_owner(w->map, &vol_root)].vfs.files_reserve = 4096;
	w->g[vol_owner(w->map, &vol_root)].vfs.files_free = 4095;
	assert_int_equal(call(w, op), -ENOSPC);
	world_free(w);
}

static void test_links(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino here = folder_at(w, "here", 0), there = folder_at(w, "there", 1), f;

	assert_int_equal(create(w, here, "f", 0644), 0);
	f = res.attr.ino;
	assert_int_equal(link_to(w, f, here, "g"), 0);
	assert_int_equal(res.attr.nlink, 2);
	assert_int_equal(res.attr.ctime_ns, w->now);
	assert_int_equal(link_to(w, f, there, "h"), 0); /* the inode lives in another group than the name */
	assert_int_equal(res.attr.nlink, 3);
	assert_int_equal(link_to(w, f, there, "h"), -EEXIST);
	assert_int_equal(link_to(w, here, there, "d"), -EPERM);
	assert_int_equal(lookup(w, there, "h"), 0);
	assert_true(vol_ino_eq(&res.attr.ino, &f));
	assert_int_equal(res.attr.nlink, 3);
	assert_int_equal(call(w, named(VFS_UNLINK, there, "h")), 0);
	assert_int_equal(res.gone.nlink, 2);
	assert_int_equal(lookup(w, there, "h"), -ENOENT);
	assert_int_equal(call(w, named(VFS_UNLINK, here, "f")), 0);
	assert_int_equal(res.gone.nlink, 1);
	assert_int_equal(call(w, named(VFS_UNLINK, here, "g")), 0);
	assert_int_equal(res.gone.nlink, 0);
	assert_int_equal(link_to(w, f, there, "again"), -ENOENT);
	assert_int_equal(lookup(w, there, "again"), -ENOENT);
	assert_int_equal(call(w, named(VFS_UNLINK, root, "here")), -EISDIR);
	world_free(w);
}

static void test_link_max(void **state)
{
	struct world *w = world_new(1, 1, VOL_STRIPE_SIZE);
	struct vol_ino f;
	int r = 0;

	assert_int_equal(create(w, root, "f", 0644), 0);
	f = res.attr.ino;
	for (unsigned i = 1; r == 0 && i < VFS_LINK_MAX + 5; i++) {
		char name[16];

		snprintf(name, sizeof(name), "l%u", i);
		r = link_to(w, f, root, name);
		if (r < 0)
			assert_int_equal(i, VFS_LINK_MAX);
	}
	assert_int_equal(r, -EMLINK);
	world_free(w);
}

static void test_orphans(void **state)
{
	struct world *w = world_new(1, 1, VOL_STRIPE_SIZE);
	struct vol_ino f, more[3], got;
	struct packer_ {
		uint8_t b[72];
	} list;
	int64_t since;
	struct vfs_op op;

	assert_int_equal(create(w, root, "f", 0644), 0);
	f = res.attr.ino;
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_REAP, .ino = f}), -EBUSY);
	assert_int_equal(write_at(w, f, 0, 7, 5000), 0);
	assert_int_equal(call(w, named(VFS_UNLINK, root, "f")), 0);
	assert_int_equal(write_at(w, f, 0, 8, 100), 0); /* who has it open goes on */
	assert_int_equal(byte_at(w, f, 50), 8);
	for (unsigned i = 0; i < 3; i++) {
		char name[4] = {'a' + (char)i};

		assert_int_equal(create(w, root, name, 0644), 0);
		more[i] = res.attr.ino;
		if (i != 1)
			assert_int_equal(call(w, named(VFS_UNLINK, root, name)), 0);
		memcpy(list.b + i * 24, &more[i], 24);
	}
	assert_int_equal(vfs_orphan_iter(&w->g[0].vfs, NULL, &got, &since), 0);
	assert_true(vol_ino_eq(&got, &f));
	assert_true(since > 0 && since < w->now);
	op = (struct vfs_op){.type = VFS_REAP, .ino = f, .data = list.b, .data_len = 72};
	assert_int_equal(call(w, op), 0);
	assert_int_equal(vfs_orphan_iter(&w->g[0].vfs, NULL, &got, &since), -ENOENT);
	assert_int_equal(mem_blob_pages(w->g[0].blob), 0);
	assert_int_equal(getattr(w, f), -ENOENT);
	assert_int_equal(getattr(w, more[0]), -ENOENT);
	assert_int_equal(getattr(w, more[1]), 0); /* has a name */
	assert_int_equal(getattr(w, more[2]), -ENOENT);
	world_free(w);
}

static void test_rmdir(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);

	for (uint32_t g = 0; g < w->n; g++) {
		struct vol_ino d = folder_at(w, "d", g);

		assert_int_equal(getattr(w, root), 0);
		assert_int_equal(res.attr.nlink, 3);
		assert_int_equal(create(w, d, "f", 0644), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, root, "d")), -ENOTEMPTY);
		assert_int_equal(call(w, named(VFS_RMDIR, d, "f")), -ENOTDIR);
		assert_int_equal(call(w, named(VFS_UNLINK, d, "f")), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, root, "d")), 0);
		assert_int_equal(getattr(w, root), 0);
		assert_int_equal(res.attr.nlink, 2);
		assert_int_equal(res.attr.mtime_ns, w->now - 1000); /* the operation before this one */
		assert_int_equal(create(w, d, "late", 0644), -ENOENT);
		assert_int_equal(mkdir_at(w, d, "late", UINT32_MAX, 0755), -ENOENT);
		assert_int_equal(getattr(w, d), 0);
		assert_int_equal(res.attr.nlink, 0);
		assert_int_equal(call(w, (struct vfs_op){.type = VFS_REAP, .ino = d}), 0);
		assert_int_equal(getattr(w, d), -ENOENT);
	}
	assert_int_equal(call(w, named(VFS_RMDIR, root, ".")), -EINVAL);
	assert_int_equal(call(w, named(VFS_RMDIR, root, "..")), -ENOTEMPTY);
	world_free(w);
}

static void test_mkdir_same_id(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);

	for (uint32_t g = 0; g < w->n; g++) {
		struct vol_ino d = folder_at(w, "d", g);
		struct vfs_op op = named(VFS_MKDIR, root, "e");

		op.target = d;
		assert_int_equal(call(w, op), -EINVAL); /* never two names for one folder */
		assert_int_equal(lookup(w, root, "e"), -ENOENT);
		assert_int_equal(call(w, named(VFS_RMDIR, root, "d")), 0);
		assert_int_equal(call(w, op), -EINVAL);
	}
	world_free(w);
}

/* Every combination of where source, destination, moved and replaced live. */
static void test_rename(void **state)
{
	struct world *w = world_new(8, 1, VOL_STRIPE_SIZE);
	struct vol_ino s, d, x, r;

	for (uint32_t i = 0; i < 3 * 3 * 3 * 2; i++) {
		uint32_t gd = i % 3, gx = i / 3 % 3, gr = i / 9 % 3;
		bool dirs = i / 27;

		s = folder_at(w, "s", 0);
		d = folder_at(w, "d", gd);
		if (dirs) {
			assert_int_equal(mkdir_at(w, s, "x", gx, 0755), 0);
			x = res.attr.ino;
			assert_int_equal(mkdir_at(w, d, "r", gr, 0755), 0);
			r = res.attr.ino;
			assert_int_equal(create(w, r, "full", 0644), 0);
			assert_int_equal(rename_to(w, s, "x", d, "r", 0), -ENOTEMPTY);
			assert_int_equal(call(w, named(VFS_UNLINK, r, "full")), 0);
			assert_int_equal(lookup(w, s, "x"), 0);
		} else {
			struct vol_ino born = folder_at(w, "bx", gx);

			assert_int_equal(create(w, born, "t", 0644), 0);
			x = res.attr.ino;
			assert_int_equal(rename_to(w, born, "t", s, "x", 0), 0);
			assert_int_equal(lookup(w, born, "t"), -ENOENT);
			assert_int_equal(call(w, named(VFS_RMDIR, root, "bx")), 0);
			born = folder_at(w, "br", gr);
			assert_int_equal(create(w, born, "t", 0644), 0);
			r = res.attr.ino;
			assert_int_equal(rename_to(w, born, "t", d, "r", VFS_NOREPLACE), 0);
			assert_int_equal(call(w, named(VFS_RMDIR, root, "br")), 0);
		}
		assert_int_equal(rename_to(w, s, "x", d, "r", VFS_NOREPLACE), -EEXIST);
		assert_int_equal(rename_to(w, s, "nothing", d, "r", 0), -ENOENT);
		assert_int_equal(rename_to(w, s, "x", d, "r", 0), 0);
		assert_int_equal(lookup(w, s, "x"), -ENOENT);
		assert_int_equal(lookup(w, d, "r"), 0);
		assert_true(vol_ino_eq(&res.attr.ino, &x));
		assert_true(res.attr.ctime_ns > w->now - 20000);
		assert_int_equal(res.attr.nlink, dirs ? 2 : 1);
		if (dirs)
			assert_true(vol_id_eq(&res.attr.up, &d.folder));
		assert_int_equal(getattr(w, r), 0);
		assert_int_equal(res.attr.nlink, 0);
		assert_int_equal(getattr(w, d), 0);
		assert_int_equal(res.attr.nlink, dirs ? 3 : 2);
		assert_int_equal(getattr(w, s), 0);
		assert_int_equal(res.attr.nlink, 2);
		assert_int_equal(call(w, named(dirs ? VFS_RMDIR : VFS_UNLINK, d, "r")), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, root, "d")), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, root, "s")), 0);
	}
	world_free(w);
}

static void test_rename_kinds(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);

	for (uint32_t g = 0; g < 2; g++) {
		struct vol_ino a = folder_at(w, "a", 0), b = folder_at(w, "b", g), f;

		assert_int_equal(create(w, a, "f", 0644), 0);
		f = res.attr.ino;
		assert_int_equal(mkdir_at(w, b, "d", UINT32_MAX, 0755), 0);
		assert_int_equal(rename_to(w, a, "f", b, "d", 0), -EISDIR);
		assert_int_equal(rename_to(w, b, "d", a, "f", 0), -ENOTDIR);
		assert_int_equal(rename_to(w, root, "a", a, "in itself", 0), -EINVAL);
		assert_int_equal(link_to(w, f, b, "g"), 0);
		assert_int_equal(rename_to(w, a, "f", b, "g", 0),
				 0); /* both are one inode: nothing happens */
		assert_int_equal(lookup(w, a, "f"), 0);
		assert_int_equal(res.attr.nlink, 2);
		assert_int_equal(lookup(w, b, "g"), 0);
		assert_int_equal(rename_to(w, a, "f", a, "f", 0), 0);
		assert_int_equal(rename_to(w, a, "f", a, "h", 0), 0);
		assert_int_equal(lookup(w, a, "h"), 0);
		assert_int_equal(rename_to(w, a, "h", b, "d", VFS_EXCHANGE), g ? -EINVAL : 0);
		assert_int_equal(world_settle(w), 0);
		world_free(w);
		w = world_new(4, 1, VOL_STRIPE_SIZE);
	}
	world_free(w);
}

static void test_exchange(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);

	for (uint32_t g = 0; g < 3; g++) {
		struct vol_ino a = folder_at(w, "a", 0), b = folder_at(w, "b", 0), x, y;

		assert_int_equal(mkdir_at(w, a, "x", g, 0755), 0);
		x = res.attr.ino;
		assert_int_equal(create(w, b, "y", 0644), 0);
		y = res.attr.ino;
		assert_int_equal(rename_to(w, a, "x", b, "none", VFS_EXCHANGE), -ENOENT);
		assert_int_equal(rename_to(w, a, "x", b, "y", VFS_EXCHANGE), 0);
		assert_int_equal(lookup(w, a, "x"), 0);
		assert_true(vol_ino_eq(&res.attr.ino, &y));
		assert_int_equal(lookup(w, b, "y"), 0);
		assert_true(vol_ino_eq(&res.attr.ino, &x));
		assert_true(vol_id_eq(&res.attr.up, &b.folder));
		assert_int_equal(getattr(w, a), 0);
		assert_int_equal(res.attr.nlink, 2);
		assert_int_equal(getattr(w, b), 0);
		assert_int_equal(res.attr.nlink, 3);
		assert_int_equal(call(w, named(VFS_UNLINK, a, "x")), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, b, "y")), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, root, "a")), 0);
		assert_int_equal(call(w, named(VFS_RMDIR, root, "b")), 0);
	}
	world_free(w);
}

static void test_once(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vfs_op op = named(VFS_CREATE, root, "f"), old;
	struct vfs_result first, second;

	op.flags = VFS_EXCL;
	op.id = (struct vfs_opid){.client = 5, .slot = 3, .number = 10};
	assert_int_equal(world_exec(w, &op, &first), 0);
	assert_int_equal(world_exec(w, &op, &second), 0); /* not -EEXIST */
	assert_int_equal(w->last_effects, 0);
	assert_true(vol_ino_eq(&first.attr.ino, &second.attr.ino));
	assert_int_equal(first.parent.version, second.parent.version);
	assert_int_equal(write_at(w, first.attr.ino, 0, 1, 500), 0);
	assert_int_equal(world_exec(w, &op, &second), 0);
	assert_int_equal(second.attr.size, 500); /* attributes of now */
	old = op;
	op.id.number = 11;
	assert_int_equal(world_exec(w, &op, &second), -EEXIST);
	assert_int_equal(w->last_effects, 1);
	assert_int_equal(call(w, named(VFS_UNLINK, root, "f")), 0);
	assert_int_equal(world_exec(w, &op, &second), -EEXIST);	 /* failures are answers too */
	assert_int_equal(world_exec(w, &old, &second), -ESTALE); /* a late copy */
	assert_int_equal(lookup(w, root, "f"), -ENOENT);
	world_free(w);
}

static void test_sweep(void **state)
{
	struct world *w = world_new(1, 1, VOL_STRIPE_SIZE);
	struct vfs_op op;
	size_t left;

	for (unsigned i = 0; i < 100; i++) {
		op = named(VFS_CREATE, root, "f");
		op.id = (struct vfs_opid){.client = i + 1, .slot = 1, .number = 1};
		assert_int_equal(world_exec(w, &op, &res), 0);
	}
	left = mem_kv_len(w->g[0].kv);
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_SWEEP}), 0);
	assert_int_equal(mem_kv_len(w->g[0].kv), left);
	w->now += (VFS_ANSWER_MS + 1) * 1000000ll;
	op = (struct vfs_op){.type = VFS_SWEEP};
	for (unsigned i = 0;; i++) {
		char next[32];

		assert_true(i < 10);
		assert_int_equal(call(w, op), 0);
		if (!(res.flags & VFS_MORE))
			break;
		memcpy(next, res.data.data, res.data.len);
		op.name = next;
		op.name_len = (uint16_t)res.data.len;
	}
	assert_true(mem_kv_len(w->g[0].kv) <= left);
	op = named(VFS_CREATE, root, "f");
	op.id = (struct vfs_opid){.client = 1, .slot = 1, .number = 1};
	assert_int_equal(world_exec(w, &op, &res), 0);
	assert_int_equal(w->last_effects, 1); /* it is not known any more */
	world_free(w);
}

/* A name in the middle of an operation over two groups: changes are asked to come again; nobody sees it before it is there. */
static void test_locked_names(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino a = folder_at(w, "a", 0), b = folder_at(w, "b", 1);
	struct vfs_op op = named(VFS_RENAME, a, "f"), make = named(VFS_MKDIR, a, "m"), ask;
	static char names[8][32];
	struct vfs_result r;
	uint8_t id[16];

	do
		random_bytes(&make.target.folder, 16);
	while (vol_owner(w->map, &make.target.folder) != 1);
	assert_int_equal(world_exec(w, &make, &r), 0);
	assert_true(r.intent);
	assert_int_equal(lookup(w, a, "m"), -ENOENT);
	assert_int_equal(list(w, a, 0, names, 8), 0);
	assert_int_equal(create(w, a, "m", 0644), -EAGAIN);
	assert_memory_equal(res.intent_id, r.intent_id, 16);
	assert_int_equal(vfs_intent_group(res.intent_id), 0);
	assert_int_equal(call(w, named(VFS_RMDIR, root, "a")), -EAGAIN); /* it may become a name yet */
	assert_int_equal(world_settle(w), 1);
	assert_int_equal(lookup(w, a, "m"), 0);
	assert_int_equal(create(w, a, "f", 0644), 0);
	op.ino2 = b;
	op.name2 = "g";
	op.name2_len = 1;
	assert_int_equal(world_exec(w, &op, &r), 0);
	memcpy(id, r.intent_id, 16);
	assert_int_equal(lookup(w, a, "f"), 0);
	assert_int_equal(call(w, named(VFS_UNLINK, a, "f")), -EAGAIN);
	assert_int_equal(lookup(w, b, "g"), -ENOENT);
	assert_int_equal(world_drive(w, 0, id, WORLD_TWICE, &r),
			 0); /* prepared and, R being none, committed */
	assert_int_equal(lookup(w, a, "f"), -ENOENT);
	assert_int_equal(call(w, named(VFS_LOOKUP, b, "g")), -EAGAIN);
	ask = (struct vfs_op){.type = VFS_STEP_ASK};
	memcpy(&ask.target.folder, id, 16);
	assert_int_equal(world_exec(w, &ask, &r), 0);
	assert_true(r.intent);
	assert_int_equal(world_settle(w), 1);
	assert_int_equal(lookup(w, b, "g"), 0);
	assert_int_equal(world_exec(w, &ask, &r), 0);
	assert_false(r.intent);
	world_free(w);
}

/* a -> b against b -> a: nobody waits for the other. */
static void test_crossing_renames(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino a = folder_at(w, "a", 0), b = folder_at(w, "b", 1);
	struct vfs_op one = named(VFS_RENAME, a, "f"), two = named(VFS_RENAME, b, "f");
	struct vfs_result r;
	uint8_t id1[16], id2[16];

	assert_int_equal(create(w, a, "f", 0644), 0);
	assert_int_equal(create(w, b, "f", 0644), 0);
	one.ino2 = b;
	two.ino2 = a;
	one.name2 = two.name2 = "f";
	one.name2_len = two.name2_len = 1;
	one.id = (struct vfs_opid){1, 1, 1};
	two.id = (struct vfs_opid){2, 1, 1};
	assert_int_equal(world_exec(w, &one, &r), 0);
	memcpy(id1, r.intent_id, 16);
	assert_int_equal(world_exec(w, &two, &r), 0);
	memcpy(id2, r.intent_id, 16);
	assert_int_equal(world_drive(w, 0, id1, 0, &r), 1);
	assert_int_equal(r.err, -EAGAIN);
	assert_int_equal(world_do(w, &one, &r),
			 -EAGAIN); /* a retry is worked out anew; the other one is still there */
	assert_int_equal(world_drive(w, 1, id2, 0, &r), 0);
	assert_int_equal(world_settle(w), 1);
	assert_int_equal(world_do(w, &two, &r), 0);
	assert_int_equal(lookup(w, a, "f"), 0); /* two's file, and one's is gone with its only name */
	assert_int_equal(lookup(w, b, "f"), -ENOENT);
	assert_int_equal(world_do(w, &one, &r), 0);
	assert_int_equal(lookup(w, b, "f"), 0);
	world_free(w);
}

/* A moved folder is not moved on before it knows its parent, else the parent of the slower message would stay. */
static void test_parent_first(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino a = folder_at(w, "a", 0), b = folder_at(w, "b", 0), x;
	struct vfs_op op = named(VFS_RENAME, a, "x");
	struct vfs_result r;

	assert_int_equal(mkdir_at(w, a, "x", 1, 0755), 0);
	x = res.attr.ino;
	op.ino2 = b;
	op.name2 = "x";
	op.name2_len = 1;
	assert_int_equal(world_exec(w, &op, &r), 0);
	assert_true(r.intent);
	assert_int_equal(lookup(w, b, "x"), 0); /* it is there already */
	assert_int_equal(lookup(w, a, "x"), -ENOENT);
	assert_int_equal(rename_to(w, b, "x", a, "x", 0), -EAGAIN);
	assert_int_equal(world_settle(w), 1);
	assert_int_equal(getattr(w, x), 0);
	assert_true(vol_id_eq(&res.attr.up, &b.folder));
	assert_int_equal(rename_to(w, b, "x", a, "x", 0), 0);
	assert_int_equal(getattr(w, x), 0);
	assert_true(vol_id_eq(&res.attr.up, &a.folder));
	world_free(w);
}

static void test_statfs(void **state)
{
	struct world *w = world_new(1, 1, VOL_STRIPE_SIZE);

	w->g[0].vfs.bytes_free = 5;
	w->g[0].vfs.bytes_total = 6;
	w->g[0].vfs.files_free = 7;
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_STATFS}), 0);
	assert_int_equal(res.attr.blocks, 5);
	assert_int_equal(res.attr.size, 6);
	assert_int_equal(res.attr.version, 7);
	world_free(w);
}

/* What the first world made is lost with its power; the second goes on from before that, later. */
static void test_numbers_after_a_loss(void **state)
{
	struct world *w = world_new(4, 1, VOL_STRIPE_SIZE), *again = world_new(4, 1, VOL_STRIPE_SIZE);
	struct vol_ino lost[20];

	for (unsigned i = 0; i < ARRAY_SIZE(lost); i++) {
		char name[8];

		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(create(w, root, name, 0644), 0);
		lost[i] = res.attr.ino;
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(lost[i].num, lost[k].num);
	}
	again->now = w->now + 1000000;
	assert_int_equal(create(again, root, "new", 0644), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(lost); i++)
		assert_int_not_equal(res.attr.ino.num, lost[i].num);
	again->now = 1000; /* a clock far behind: still no number twice */
	lost[0] = res.attr.ino;
	assert_int_equal(create(again, root, "newer", 0644), 0);
	assert_int_equal(res.attr.ino.num, lost[0].num + 1);
	world_free(w);
	world_free(again);
}

TEST_MAIN(cmocka_unit_test(test_create), cmocka_unit_test(test_numbers_after_a_loss),
	  cmocka_unit_test(test_long_names), cmocka_unit_test(test_devices), cmocka_unit_test(test_symlink),
	  cmocka_unit_test(test_setgid), cmocka_unit_test(test_set_id_bits), cmocka_unit_test(test_times),
	  cmocka_unit_test(test_write), cmocka_unit_test(test_lookup_with_bytes),
	  cmocka_unit_test(test_truncate), cmocka_unit_test(test_foreign_generation),
	  cmocka_unit_test(test_reserved_end), cmocka_unit_test(test_fallocate), cmocka_unit_test(test_links),
	  cmocka_unit_test(test_link_max), cmocka_unit_test(test_orphans), cmocka_unit_test(test_rmdir),
	  cmocka_unit_test(test_mkdir_same_id), cmocka_unit_test(test_rename),
	  cmocka_unit_test(test_rename_kinds), cmocka_unit_test(test_exchange), cmocka_unit_test(test_once),
	  cmocka_unit_test(test_sweep), cmocka_unit_test(test_locked_names),
	  cmocka_unit_test(test_crossing_renames), cmocka_unit_test(test_parent_first),
	  cmocka_unit_test(test_statfs))
