/* SPDX-License-Identifier: Apache-2.0 */
/* What makes a name. A file is born in the folder's own group: entry, inode, the folder's times and next number, the answer: four puts. A
 * folder lives where its random id says, mostly in another group; then its name is reserved here and an intent makes it there. */
#include <sys/sysmacros.h>

#include "core/vfs/internal.h"

/* The folder and a free name in it. -EEXIST fills *ret_there. */
static int place_for(struct tx *t, struct inode *folder, struct entry *ret_there)
{
	const struct vfs_op *op = t->op;
	int r;

	r = folder_get(t, &op->ino, folder);
	if (r < 0)
		return r;
	t->res->parent = folder->a;
	r = name_check(op->name, op->name_len);
	if (r < 0)
		return r == -EINVAL && op->name_len && op->name[0] == '.' ? -EEXIST : r;
	r = entry_claim(t, &op->ino.folder, op->name, op->name_len, ret_there);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : -EEXIST;
}

static int show_there(struct tx *t, const struct entry *there)
{
	struct inode in;
	int r;

	type_only(&t->res->attr, there);
	t->res->flags = VFS_NO_ATTR;
	if (!is_local(t, &there->ino))
		return 0;
	r = inode_get(t, &there->ino, &in);
	if (r < 0)
		return r == -ENOENT ? hard(t, -EIO) : r;
	t->res->attr = in.a;
	t->res->flags = 0;
	return 0;
}

/* The new inode in a folder: entry, inode, folder. */
static int born(struct tx *t, struct inode *folder, struct inode *in)
{
	const struct vfs_op *op = t->op;
	struct entry e;
	int r;

	in->a.atime_ns = in->a.mtime_ns = in->a.ctime_ns = t->now;
	e = (struct entry){.ino = in->a.ino, .type = in->a.mode & S_IFMT};
	touch(t, folder, true);
	r = inode_put(t, in);
	if (r == 0)
		r = entry_put(t, &op->ino.folder, op->name, op->name_len, &e);
	if (r == 0)
		r = inode_put(t, folder);
	t->res->attr = in->a;
	t->res->parent = folder->a;
	return r;
}

/* The folder's next number, but none below the time in microseconds: when all copies lost power the count may stand before numbers whose files are
 * gone, and a client that still holds one of those must not meet another file under it. */
uint64_t numbers_take(const struct tx *t, struct inode *folder, uint64_t n)
{
	uint64_t first;

	if (t->now > 0)
		folder->next = MAX(folder->next, (uint64_t)t->now / 1000);
	first = folder->next;
	folder->next += n;
	return first;
}

/* `in` has its number already when the client chose it. */
static int born_file(struct tx *t, struct inode *folder, struct inode *in)
{
	const struct vfs_op *op = t->op;

	if (in->a.ino.num == 0)
		in->a.ino = (struct vol_ino){op->ino.folder, numbers_take(t, folder, 1)};
	in->a.nlink = 1;
	in->a.uid = op->attr.uid;
	in->a.gid = op->attr.gid;
	inherit(in, folder);
	return born(t, folder, in);
}

/* Bytes come only with a regular file of a delegation, few enough to be in the log with their record, and only when they lie in this group. */
static int check_bytes(const struct tx *t, uint32_t type)
{
	const struct vfs_op *op = t->op;
	const struct vol_map *m = t->v->map;
	struct vol_ino ino = {op->ino.folder, op->target.num};

	if (!op->payload || op->payload->len == 0)
		return 0;
	if (!(op->flags & VFS_NUMBERED) || type != S_IFREG || op->payload->len > VFS_BORN_MAX)
		return -EINVAL;
	return m->stripe > 1 && vol_group_of_stripe(m, &ino, 0) != t->v->replica->group ? -EINVAL : 0;
}

int do_create(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint32_t type = op->attr.mode & S_IFMT;
	uint64_t len = op->payload ? op->payload->len : 0;
	struct inode folder, in = {0};
	struct entry there;
	int r;

	if (type == 0)
		type = S_IFREG;
	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK)
		return -EINVAL;
	r = check_bytes(t, type);
	if (r == 0 && (op->flags & VFS_NUMBERED))
		r = delegation_number(t, &in.a.ino);
	if (r < 0)
		return r;
	if ((op->flags & VFS_NUMBERED) && op->attr.ctime_ns)
		t->now = op->attr.ctime_ns;
	r = place_for(t, &folder, &there);
	if (r == -EEXIST && name_check(op->name, op->name_len) == 0) {
		int r2 = show_there(t, &there);

		if (r2 < 0)
			return r2;
		if (op->flags & VFS_EXCL)
			return -EEXIST;
		t->res->flags |= VFS_EXISTED;
		return 0;
	}
	if (r == 0)
		r = no_room(t, len);
	if (r < 0)
		return r;
	in.a.mode = type | (op->attr.mode & 07777);
	if (type == S_IFCHR || type == S_IFBLK)
		in.a.rdev = op->attr.rdev;
	r = len ? write_born(t, &in) : 0;
	return r < 0 ? r : born_file(t, &folder, &in);
}

int do_symlink(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct inode folder, in;
	struct entry there;
	int r;

	r = place_for(t, &folder, &there);
	if (r < 0)
		return r;
	if (op->data_len == 0 || memchr(op->data, 0, op->data_len))
		return op->data_len ? -EINVAL : -ENOENT;
	if (op->data_len > VFS_SYMLINK_MAX)
		return -ENAMETOOLONG;
	r = no_room(t, 0);
	if (r < 0)
		return r;
	in = (struct inode){.a = {.mode = S_IFLNK | 0777, .size = op->data_len},
			    .tail = op->data,
			    .tail_len = op->data_len};
	return born_file(t, &folder, &in);
}

static void new_folder(struct inode *in, const struct vol_id *id, const struct vfs_attr *a,
		       const struct vol_id *up)
{
	*in = (struct inode){.a = {.ino = {*id, 0},
				   .mode = S_IFDIR | (a->mode & 07777),
				   .nlink = 2,
				   .uid = a->uid,
				   .gid = a->gid,
				   .up = *up,
				   .home = a->home},
			     .next = 1};
}

int do_mkdir(struct tx *t)
{
	static const struct vol_id none;
	const struct vfs_op *op = t->op;
	struct intent intent = {.op = *op};
	struct inode folder, in, taken;
	struct entry there, e;
	int r;

	r = place_for(t, &folder, &there);
	if (r < 0)
		return r;
	if (folder.a.nlink >= VFS_LINK_MAX)
		return -EMLINK;
	if (vol_id_eq(&op->target.folder, &none) || op->target.num)
		return -EINVAL;
	r = no_room(t, 0);
	if (r < 0)
		return r;
	new_folder(&in, &op->target.folder, &op->attr, &op->ino.folder);
	inherit(&in, &folder);
	if (in.a.home == 0)
		in.a.home = folder.a.home;
	if (is_local(t, &op->target)) {
		r = inode_get(t, &op->target, &taken);
		if (r != -ENOENT)
			return r < 0 ? r : -EINVAL;
		folder.a.nlink++;
		return born(t, &folder, &in);
	}
	intent.op.attr = in.a; /* inherited here; the other group cannot see the parent */
	r = intent_new(t, &intent);
	if (r < 0)
		return r;
	e = (struct entry){.ino = op->target, .type = S_IFDIR, .flags = ENTRY_HIDDEN};
	entry_lock(&e, &intent);
	r = entry_put(t, &op->ino.folder, op->name, op->name_len, &e);
	return r < 0 ? r : intent_begin(t, &intent);
}

int do_step_make_folder(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct inode in, taken;
	int r;

	r = inode_get(t, &op->ino, &taken);
	if (r != -ENOENT)
		return r < 0 ? r : -EINVAL; /* ids are random: no honest client has two folders of one id */
	r = no_room(t, 0);
	if (r ==
	    -ENOSPC) /* -EAGAIN would be final here; the parent's group has looked too, and it is little */
		return r;
	new_folder(&in, &op->ino.folder, &op->attr, &op->attr.up);
	in.a.atime_ns = in.a.mtime_ns = in.a.ctime_ns = op->attr.ctime_ns;
	r = inode_put(t, &in);
	t->res->attr = in.a;
	return r;
}

int do_link(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct intent intent = {.op = *op};
	struct inode folder, in;
	struct entry there, e;
	int r;

	if (op->target.num == 0)
		return -EPERM;
	r = place_for(t, &folder, &there);
	if (r < 0)
		return r;
	if (!is_local(t, &op->target)) {
		r = intent_new(t, &intent);
		if (r < 0)
			return r;
		e = (struct entry){.ino = op->target, .type = op->attr.mode & S_IFMT, .flags = ENTRY_HIDDEN};
		entry_lock(&e, &intent);
		r = entry_put(t, &op->ino.folder, op->name, op->name_len, &e);
		return r < 0 ? r : intent_begin(t, &intent);
	}
	r = inode_get(t, &op->target, &in);
	if (r < 0)
		return r;
	if (in.a.nlink == 0)
		return -ENOENT;
	if (in.a.nlink >= VFS_LINK_MAX)
		return -EMLINK;
	in.a.nlink++;
	touch(t, &in, false);
	touch(t, &folder, true);
	e = (struct entry){.ino = in.a.ino, .type = in.a.mode & S_IFMT};
	r = inode_put(t, &in);
	if (r == 0)
		r = entry_put(t, &op->ino.folder, op->name, op->name_len, &e);
	if (r == 0)
		r = inode_put(t, &folder);
	t->res->attr = in.a;
	t->res->parent = folder.a;
	return r;
}

/* One name more or less of an inode whose entry is in another group: set = 1 more, 2 less. */
int do_step_link_count(struct tx *t)
{
	struct inode in;
	int r;

	if (t->op->ino.num == 0 || t->op->set < 1 || t->op->set > 2)
		return -EINVAL;
	r = inode_get(t, &t->op->ino, &in);
	if (r < 0)
		return r;
	if (in.a.nlink == 0)
		return -ENOENT;
	if (t->op->set == 2) {
		r = inode_unlink(t, &in);
	} else {
		if (in.a.nlink >= VFS_LINK_MAX)
			return -EMLINK;
		in.a.nlink++;
		touch(t, &in, false);
		r = inode_put(t, &in);
	}
	t->res->attr = in.a;
	return r;
}
