/* SPDX-License-Identifier: Apache-2.0 */
/* Operations of core/vfs in one line each, for its tests. */
#pragma once

#include <sys/stat.h>

#include "test.h"

#include "vfs_world.h"

#define helper static inline __attribute__((unused))

static __attribute__((unused)) const struct vol_ino root = {{.b = {[15] = 1}}, 0};
static __attribute__((unused)) struct vfs_result res; /* of the newest call; freed by the next */

helper struct vfs_op named(enum vfs_op_type type, struct vol_ino ino, const char *name)
{
	return (struct vfs_op){.type = type, .ino = ino, .name = name, .name_len = (uint16_t)strlen(name)};
}

helper int call(struct world *w, struct vfs_op op)
{
	vfs_result_done(&res);
	return world_do(w, &op, &res);
}

helper int create(struct world *w, struct vol_ino folder, const char *name, uint32_t mode)
{
	struct vfs_op op = named(VFS_CREATE, folder, name);

	op.flags = VFS_EXCL;
	op.attr.mode = mode;
	op.attr.uid = 10;
	op.attr.gid = 20;
	return call(w, op);
}

/* A new folder whose group is `group` (or any: UINT32_MAX). */
helper int mkdir_at(struct world *w, struct vol_ino parent, const char *name, uint32_t group, uint32_t mode)
{
	struct vfs_op op = named(VFS_MKDIR, parent, name);

	do
		random_bytes(&op.target.folder, 16);
	while (group != UINT32_MAX && vol_owner(w->map, &op.target.folder) != group);
	op.attr.mode = mode;
	op.attr.uid = 10;
	op.attr.gid = 20;
	return call(w, op);
}

helper struct vol_ino folder_at(struct world *w, const char *name, uint32_t group)
{
	assert_int_equal(mkdir_at(w, root, name, group, 0755), 0);
	return res.attr.ino;
}

helper int lookup(struct world *w, struct vol_ino folder, const char *name)
{
	int r = call(w, named(VFS_LOOKUP, folder, name));

	if (r == 0 && (res.flags & VFS_NO_ATTR))
		r = call(w, (struct vfs_op){.type = VFS_GETATTR, .ino = res.attr.ino});
	return r;
}

helper int getattr(struct world *w, struct vol_ino ino)
{
	return call(w, (struct vfs_op){.type = VFS_GETATTR, .ino = ino});
}

helper int rename_to(struct world *w, struct vol_ino from, const char *name, struct vol_ino to,
		     const char *name2, uint32_t flags)
{
	struct vfs_op op = named(VFS_RENAME, from, name);

	op.ino2 = to;
	op.name2 = name2;
	op.name2_len = (uint16_t)strlen(name2);
	op.flags = flags;
	return call(w, op);
}

helper int link_to(struct world *w, struct vol_ino target, struct vol_ino folder, const char *name)
{
	struct vfs_op op = named(VFS_LINK, folder, name);

	op.target = target;
	return call(w, op);
}

helper int write_at(struct world *w, struct vol_ino ino, uint64_t off, uint8_t byte, uint32_t len)
{
	struct vfs_op op = {.type = VFS_WRITE, .ino = ino, .off = off, .payload = payload_new(len)};
	int r;

	memset(op.payload->data, byte, len);
	r = call(w, op);
	payload_unref(op.payload);
	return r;
}

helper int truncate_to(struct world *w, struct vol_ino ino, uint64_t size)
{
	return call(w,
		    (struct vfs_op){.type = VFS_SETATTR, .ino = ino, .set = VFS_SET_SIZE, .attr.size = size});
}

helper uint8_t byte_at(struct world *w, struct vol_ino ino, uint64_t off)
{
	assert_int_equal(call(w, (struct vfs_op){.type = VFS_READ, .ino = ino, .off = off, .len = 1}), 0);
	assert_non_null(res.payload);
	assert_int_equal(res.crc_off % VOL_BLOCK, 0);
	assert_int_equal(res.payload->len, VOL_BLOCK * res.n_crcs);
	return res.payload->data[off - res.crc_off];
}

/* All names, in order. */
helper unsigned list(struct world *w, struct vol_ino folder, uint64_t len, char names[][32], unsigned max)
{
	struct vfs_op op = {.type = VFS_READDIR, .ino = folder, .len = len};
	char last[256] = "";
	unsigned n = 0;

	for (;;) {
		struct vfs_entry e;
		size_t at = 0;
		int r;

		assert_int_equal(call(w, op), 0);
		while ((r = vfs_entry_decode(res.data.data, res.data.len, &at, &e)) == 0) {
			assert_true(n < max);
			assert_true(e.name_len < 32);
			memcpy(names[n], e.name, e.name_len);
			names[n][e.name_len] = 0;
			if (n)
				assert_true(strcmp(names[n - 1], names[n]) < 0);
			if (e.has_attr)
				assert_int_equal(e.attr.mode & S_IFMT, e.mode);
			snprintf(last, sizeof(last), "%s", names[n++]);
		}
		assert_int_equal(r, -ENOENT);
		op.name = last;
		op.name_len = (uint16_t)strlen(last);
		if (!(res.flags & VFS_MORE))
			return n;
	}
}
