/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes, one key each; the inode counts them, so that one without any costs no search. user.kuayu.home of a folder names a domain:
 * folders made in it from then on have their primary there. */
#include <sys/xattr.h>

#include "core/vfs/internal.h"

/* As local file systems: a prefix that is known and nothing behind it is -EINVAL. */
static int space_of(const char *name, size_t len)
{
	static const char *const known[] = {"user.", "trusted.", "security."};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		size_t n = strlen(known[i]);

		if (len >= n && memcmp(name, known[i], n) == 0)
			return len > n ? 0 : -EINVAL;
	}
	return -EOPNOTSUPP;
}

static int xattr_name(const struct vfs_op *op)
{
	if (op->name_len > VFS_NAME_MAX)
		return -ERANGE;
	if (op->name_len == 0 || memchr(op->name, 0, op->name_len))
		return -EINVAL;
	return space_of(op->name, op->name_len);
}

/* The operation's inode, its attribute's key (*ret_n bytes in k) and value; -ENODATA with inode and key when it has none of this name. */
static int find_xattr(struct tx *t, struct inode *in, uint8_t k[KEY_MAX], size_t *ret_n, const void **ret,
		      size_t *ret_len)
{
	const struct vfs_op *op = t->op;
	int r = inode_get(t, &op->ino, in);

	if (r == 0)
		r = xattr_name(op);
	if (r < 0)
		return r;
	*ret_n = key_xattr(k, &op->ino, op->name, op->name_len);
	r = in->xattrs == 0 ? -ENOENT : kv_get(t, k, *ret_n, ret, ret_len);
	return r == -ENOENT ? -ENODATA : r;
}

int do_getxattr(struct tx *t)
{
	uint8_t k[KEY_MAX];
	const void *value;
	struct inode in;
	size_t n, len;
	int r = find_xattr(t, &in, k, &n, &value, &len);

	return r < 0 ? r : hard(t, buf_add(&t->res->data, value, len));
}

int do_listxattr(struct tx *t)
{
	uint8_t prefix[KEY_INO], from[KEY_MAX];
	size_t n = KEY_INO;
	struct inode in;
	int r;

	r = inode_get(t, &t->op->ino, &in);
	if (r < 0 || in.xattrs == 0)
		return r;
	key_ino(prefix, 'X', &t->op->ino);
	memcpy(from, prefix, n);
	for (;;) { /* bounded by VFS_XATTRS_MAX */
		const void *key, *value;
		size_t key_len, len;

		r = kv_seek(t, prefix, KEY_INO, from, n, true, &key, &key_len, &value, &len);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		if (key_len > sizeof(from))
			return hard(t, -EIO);
		memcpy(from, key, key_len);
		n = key_len;
		if (buf_add(&t->res->data, from + KEY_INO, n - KEY_INO) < 0 ||
		    buf_add(&t->res->data, "", 1) < 0)
			return hard(t, -ENOMEM);
	}
}

/* The domain's number + 1; 0 for "" (no home). */
static int home_of(struct tx *t, const char *name, size_t len, uint8_t *ret)
{
	const struct vol_map *m = t->v->map;

	*ret = 0;
	if (len == 0)
		return 0;
	for (uint32_t i = 0; i < m->n_domains; i++)
		if (strlen(m->domains[i]) == len && memcmp(m->domains[i], name, len) == 0) {
			*ret = (uint8_t)(i + 1);
			return 0;
		}
	return -EINVAL;
}

static bool is_home(const struct vfs_op *op, const struct inode *in)
{
	return S_ISDIR(in->a.mode) && vfs_names_home(op);
}

int do_setxattr(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint8_t k[KEY_MAX];
	const void *value;
	struct inode in;
	size_t n, len;
	bool there;
	int r = find_xattr(t, &in, k, &n, &value, &len);

	if (r < 0 && r != -ENODATA)
		return r;
	if (op->data_len > VFS_XATTR_MAX)
		return -E2BIG;
	there = r == 0;
	if (there && (op->flags & XATTR_CREATE))
		return -EEXIST;
	if (!there && (op->flags & XATTR_REPLACE))
		return -ENODATA;
	if (!there && in.xattrs >= VFS_XATTRS_MAX)
		return -ENOSPC;
	r = no_room(t, 0);
	if (r < 0)
		return r;
	if (is_home(op, &in)) {
		r = home_of(t, op->data, op->data_len, &in.a.home);
		if (r < 0)
			return r;
	}
	in.xattrs = (uint16_t)(in.xattrs + !there);
	touch(t, &in, false);
	r = inode_put(t, &in);
	if (r == 0)
		r = put_key(t, k, n, op->data_len ? op->data : "", op->data_len);
	t->res->attr = in.a;
	return r;
}

int do_removexattr(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint8_t k[KEY_MAX];
	const void *value;
	struct inode in;
	size_t n, len;
	int r = find_xattr(t, &in, k, &n, &value, &len);

	if (r < 0)
		return r;
	if (is_home(op, &in))
		in.a.home = 0;
	in.xattrs = (uint16_t)(in.xattrs - (in.xattrs > 0));
	touch(t, &in, false);
	r = del_key(t, k, n);
	if (r == 0)
		r = inode_put(t, &in);
	t->res->attr = in.a;
	return r;
}

int drop_capability(struct tx *t, struct inode *in)
{
	static const char name[] = "security.capability";
	uint8_t k[KEY_MAX];
	const void *value;
	size_t n, len;
	int r;

	if (in->xattrs == 0 || S_ISDIR(in->a.mode))
		return 0;
	n = key_xattr(k, &in->a.ino, name, sizeof(name) - 1);
	r = kv_get(t, k, n, &value, &len);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	in->xattrs--;
	return del_key(t, k, n);
}
