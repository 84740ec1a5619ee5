/* SPDX-License-Identifier: Apache-2.0 */
/* Lookup and attributes. Reads have no effects and may be answered by any member under a lease.
 *
 * A name that another group's rename prepared here answers -EAGAIN to lookups: whether the old or the new file is there is decided in that other
 * group, within two messages. Names locked by an intent of this group show the old state: here the change is one record. */
#include "core/vfs/internal.h"

int do_lookup(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct inode folder, in;
	struct entry e;
	int r;

	r = folder_get(t, &op->ino, &folder);
	if (r < 0)
		return r;
	t->res->parent = folder.a;
	if (op->name_len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	r = entry_find(t, &op->ino.folder, op->name, op->name_len, &e);
	if (r < 0)
		return r;
	if (e.flags & ENTRY_PREPARED) {
		memcpy(t->res->intent_id, e.intent, 16);
		return -EAGAIN;
	}
	if (e.flags & ENTRY_HIDDEN)
		return -ENOENT;
	type_only(&t->res->attr, &e);
	t->res->flags = VFS_NO_ATTR;
	if (!vol_id_eq(&e.ino.folder, &op->ino.folder) && !is_local(t, &e.ino))
		return 0;
	r = inode_get(t, &e.ino, &in);
	if (r < 0)
		return r == -ENOENT ? hard(t, -EIO) : r;
	t->res->attr = in.a;
	t->res->flags = 0;
	return take_all(t, &in);
}

int do_getattr(struct tx *t)
{
	struct inode in;
	int r = inode_get(t, &t->op->ino, &in);

	if (r == 0)
		t->res->attr = in.a;
	return r;
}

int do_readlink(struct tx *t)
{
	struct inode in;
	int r = inode_get(t, &t->op->ino, &in);

	if (r < 0)
		return r;
	if (!S_ISLNK(in.a.mode))
		return -EINVAL;
	t->res->attr = in.a;
	return hard(t, buf_add(&t->res->data, in.tail, in.tail_len));
}

int do_statfs(struct tx *t)
{
	t->res->attr = (struct vfs_attr){.ino = {vol_root, 0},
					 .mode = S_IFDIR,
					 .size = t->v->bytes_total,
					 .blocks = t->v->bytes_free,
					 .version = t->v->files_free};
	return 0;
}

/* {stripe4, seq8} of the stripes in this group, straight from the S keys: their values begin with the sequence number. */
int do_where(struct tx *t)
{
	struct replica *rep = t->v->replica;
	uint8_t k[2 + KEY_INO + 4], item[12];
	uint32_t from = htobe32((uint32_t)t->op->off), stripe;
	uint16_t group = htobe16((uint16_t)rep->group);
	struct inode in;
	int r;

	r = inode_get(t, &t->op->ino, &in);
	if (r == 0)
		t->res->attr = in.a;
	else if (r != -ENOENT || t->hard)
		return r;
	memcpy(k, &group, 2);
	key_ino(k + 2, 'S', &t->op->ino);
	memcpy(k + 2 + KEY_INO, &from, 4);
	for (unsigned i = 0; i < 4096; i++) {
		const void *key, *value;
		size_t key_len, len;
		struct packer w = {.p = item, .cap = sizeof(item)};
		uint64_t seq;

		r = rep->kv->seek(rep->kv, k, sizeof(k), i > 0, 2 + KEY_INO, &key, &key_len, &value, &len);
		if (r == -ENOENT || (r == 0 && key_len != sizeof(k)))
			return 0;
		if (r < 0 || len < 8)
			return hard(t, r < 0 ? r : -EIO);
		memcpy(k, key, sizeof(k));
		memcpy(&stripe, k + 2 + KEY_INO, 4);
		memcpy(&seq, value, 8);
		pack(&w, be32toh(stripe), 4);
		pack(&w, be64toh(seq), 8);
		if (buf_add(&t->res->data, item, sizeof(item)) < 0)
			return hard(t, -ENOMEM);
	}
	t->res->flags |= VFS_MORE;
	return 0;
}

static uint64_t blocks_of(uint64_t size)
{
	return (size + VOL_BLOCK - 1) / VOL_BLOCK * (VOL_BLOCK / 512);
}

/* Changes the size in `in` and cuts what is behind it in this group. *ret_foreign: other groups hold parts that must be cut as well: the
 * generation is raised then, so that older writes on their way are refused there. */
int truncate_local(struct tx *t, struct inode *in, uint64_t size, bool *ret_foreign)
{
	uint64_t old = in->a.size;
	const struct vol_map *m = t->v->map;
	bool reserved = in->flags & INODE_RESERVED;

	*ret_foreign = false;
	in->a.size = size;
	if (size > old) {
		if (blocks_of(size) != blocks_of(old))
			in->flags |= INODE_SPARSE;
		return 0;
	}
	if (size == 0)
		in->flags &= (uint8_t)~INODE_SPARSE;
	in->a.blocks = MIN(in->a.blocks, blocks_of(size));
	if (size == old)
		return 0;
	drop_reservation(in);
	/* At a border, too: the next part of a write may be on its way to the group behind it. */
	if (m->stripe > 1 && (old >= m->stripe_size || reserved)) {
		uint32_t groups[VOL_STRIPE_MAX];

		*ret_foreign = stripe_groups(t->v, &in->a.ino, groups) > 1;
		in->a.gen += *ret_foreign;
	}
	return hard(t, record_trim(t->rec, &in->a.ino, in->a.gen, size));
}

/* As the kernel does it for a local file system: a new owner takes set-id bits from everything but folders, a truncate by a user likewise. */
static void drop_set_id(struct inode *in)
{
	if (S_ISDIR(in->a.mode))
		return;
	in->a.mode &= ~(uint32_t)S_ISUID;
	if (in->a.mode & S_IXGRP)
		in->a.mode &= ~(uint32_t)S_ISGID;
}

static int check_size(const struct inode *in, const struct vfs_op *op)
{
	if (!(op->set & VFS_SET_SIZE))
		return 0;
	if (S_ISDIR(in->a.mode))
		return -EISDIR;
	if (!S_ISREG(in->a.mode))
		return -EINVAL;
	if (op->attr.size > VFS_SIZE_MAX)
		return -EFBIG;
	return in->flags & INODE_TRIMMING ? -EAGAIN : 0;
}

static int set_plain(struct tx *t, const struct vfs_op *op, struct inode *in)
{
	int r = op->set & (VFS_SET_UID | VFS_SET_GID | VFS_SET_SIZE) ? drop_capability(t, in) : 0;

	touch(t, in, (op->set & VFS_SET_SIZE) != 0);
	if (op->set & (VFS_SET_UID | VFS_SET_GID) || (op->set & VFS_SET_SIZE && op->uid != 0))
		drop_set_id(in);
	if (op->set & VFS_SET_UID)
		in->a.uid = op->attr.uid;
	if (op->set & VFS_SET_GID)
		in->a.gid = op->attr.gid;
	if (op->set & VFS_SET_MODE)
		in->a.mode = (in->a.mode & S_IFMT) | (op->attr.mode & 07777);
	if (op->set & VFS_SET_ATIME)
		in->a.atime_ns = op->attr.atime_ns;
	if (op->set & VFS_SET_ATIME_NOW)
		in->a.atime_ns = t->now;
	if (op->set & VFS_SET_MTIME)
		in->a.mtime_ns = op->attr.mtime_ns;
	if (op->set & VFS_SET_MTIME_NOW)
		in->a.mtime_ns = t->now;
	if (op->set & VFS_SET_CTIME)
		in->a.ctime_ns = op->attr.ctime_ns;
	return r;
}

int do_setattr(struct tx *t)
{
	struct intent intent = {.op = *t->op};
	bool foreign = false;
	struct inode in;
	int r;

	r = inode_get(t, &t->op->ino, &in);
	if (r == 0)
		r = check_size(&in, t->op);
	if (r == 0)
		r = delegation_time(t, &t->op->ino.folder);
	if (r < 0)
		return r;
	if (t->op->set & VFS_SET_SIZE) {
		if (t->op->attr.size < in.a.size && t->v->map->stripe > 1) {
			r = intent_new(t, &intent); /* before the first effect: there may be too many */
			if (r < 0)
				return r;
		}
		r = truncate_local(t, &in, t->op->attr.size, &foreign);
		if (r < 0)
			return r;
	}
	r = set_plain(t, t->op, &in);
	if (foreign)
		in.flags |= INODE_TRIMMING;
	if (r == 0)
		r = inode_put(t, &in);
	t->res->attr = in.a;
	if (r < 0 || !foreign)
		return r;
	intent.res.attr = in.a;
	return intent_begin(t, &intent);
}

/* ---- of many files ---- */

int vfs_set_encode(const struct vfs_set *s, struct buf *b)
{
	uint8_t x[VFS_SET_BYTES];
	struct packer w = {.p = x, .cap = sizeof(x)};

	pack(&w, s->num, 8);
	pack(&w, s->set, 4);
	pack(&w, s->mode, 4);
	pack(&w, (uint64_t)s->atime_ns, 8);
	pack(&w, (uint64_t)s->mtime_ns, 8);
	pack(&w, (uint64_t)s->ctime_ns, 8);
	return buf_add(b, x, sizeof(x));
}

/* As the SETATTR that it stands for. */
static int set_decode(struct unpacker *u, const struct vol_ino *folder, struct vfs_op *ret)
{
	*ret = (struct vfs_op){.type = VFS_SETATTR, .ino = {folder->folder, unpack(u, 8)}};
	ret->set = (uint32_t)unpack(u, 4);
	ret->attr.mode = (uint32_t)unpack(u, 4);
	ret->attr.atime_ns = (int64_t)unpack(u, 8);
	ret->attr.mtime_ns = (int64_t)unpack(u, 8);
	ret->attr.ctime_ns = (int64_t)unpack(u, 8);
	return u->bad || ret->ino.num == 0 || ret->set & ~(uint32_t)VFS_SETS_MASK ? -EINVAL : 0;
}

static int show(struct tx *t, const struct vfs_attr *a)
{
	uint8_t x[VFS_ATTR_MAX];
	struct packer w = {.p = x, .cap = sizeof(x)};

	pack_attr(&w, a);
	ensure(!w.over);
	t->res->attr = *a;
	return buf_add(&t->res->data, x, w.n) < 0 ? hard(t, -ENOMEM) : 0;
}

int vfs_attr_decode(const void *data, size_t len, size_t *at, struct vfs_attr *ret)
{
	struct unpacker u = {.p = data, .n = len, .at = *at};

	if (*at == len)
		return -ENOENT;
	unpack_attr(&u, ret);
	if (u.bad)
		return -EBADMSG;
	*at = u.at;
	return 0;
}

int do_setattrs(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct unpacker u = {.p = (const uint8_t *)op->data, .n = op->data_len};
	uint32_t n = op->data_len / VFS_SET_BYTES;
	struct vfs_op set[VFS_SETS_MAX];
	struct inode in[VFS_SETS_MAX];
	int r;

	if (op->ino.num != 0 || n == 0 || n > VFS_SETS_MAX || op->data_len % VFS_SET_BYTES)
		return -EINVAL;
	r = delegation_check(t, &op->ino.folder);
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = set_decode(&u, &op->ino, &set[i]);
		if (r == 0)
			r = inode_get(t, &set[i].ino, &in[i]);
		for (uint32_t k = 0; r == 0 && k < i; k++)
			r = set[k].ino.num == set[i].ino.num ? -EINVAL : 0; /* what is read is of before */
	}
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		t->now = set[i].attr.ctime_ns;
		r = set_plain(t, &set[i], &in[i]);
		if (r == 0)
			r = inode_put(t, &in[i]);
		if (r == 0)
			r = show(t, &in[i].a);
	}
	return r;
}
