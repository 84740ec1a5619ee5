/* SPDX-License-Identifier: Apache-2.0 */
/* A folder's names in byte order, from behind a name: so listing goes on at the right place however the folder changed meanwhile, and every name
 * that was there all the time comes exactly once. Attributes of inodes that live in this group come along. */
#include "core/vfs/internal.h"

#define ENTRY_WIRE_MAX (2 + VFS_NAME_MAX + VFS_ATTR_MAX)

static int add(struct tx *t, const char *name, size_t len, const struct entry *e)
{
	uint8_t item[ENTRY_WIRE_MAX];
	struct packer w = {.p = item, .cap = sizeof(item)};
	struct inode in;
	bool attr;
	int r;

	attr = vol_id_eq(&e->ino.folder, &t->op->ino.folder) || is_local(t, &e->ino);
	if (attr) {
		r = inode_get(t, &e->ino, &in);
		if (r < 0)
			return hard(t, r == -ENOENT ? -EIO : r);
	}
	pack(&w, attr, 1);
	pack(&w, len, 1);
	pack_raw(&w, name, len);
	if (attr) {
		pack_attr(&w, &in.a);
	} else {
		pack_ino(&w, &e->ino);
		pack(&w, e->type, 2);
	}
	ensure(!w.over);
	return hard(t, buf_add(&t->res->data, item, w.n));
}

int do_readdir(struct tx *t)
{
	const struct vfs_op *op = t->op;
	size_t limit = op->len ? (size_t)MIN(op->len, VFS_READDIR_MAX) : 65536, n;
	uint8_t prefix[32], from[KEY_MAX];
	struct inode folder;
	int r;

	if (op->name_len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	r = inode_get(t, &op->ino, &folder);
	if (r < 0)
		return r;
	if (!S_ISDIR(folder.a.mode))
		return -ENOTDIR;
	t->res->parent = folder.a;
	limit = MAX(limit, ENTRY_WIRE_MAX);
	key_entry(prefix, &op->ino.folder, NULL, 0);
	n = key_entry(from, &op->ino.folder, op->name, op->name_len);
	while (t->res->data.len + ENTRY_WIRE_MAX <= limit) {
		const void *key, *value;
		size_t key_len, len;
		struct entry e;

		r = kv_seek(t, prefix, 17, from, n, true, &key, &key_len, &value, &len);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		if (key_len > sizeof(from))
			return hard(t, -EIO);
		memcpy(from, key, key_len);
		n = key_len;
		r = hard(t, entry_decode(value, len, &e));
		if (r == 0 && !(e.flags & ENTRY_HIDDEN))
			r = add(t, (const char *)from + 17, n - 17, &e);
		if (r < 0)
			return r;
	}
	t->res->flags |= VFS_MORE;
	return 0;
}
