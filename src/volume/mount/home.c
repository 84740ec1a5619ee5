/* SPDX-License-Identifier: Apache-2.0 */
/* A folder that is given a home domain (xattr user.kuayu.home). Where a folder lies follows from its id, and its id never changes: an empty folder is
 * therefore replaced by a new one with an id of that home, its mode, owner, times and attributes copied, by a rename over the old one.
 * A folder with something in it stays where it is; folders made in it from then on are at home. Whoever still has the old, empty folder
 * open or as working directory finds it removed. A mount that dies in between may leave an empty folder ".kuayu-home-..." behind. */
#include "volume/mount/internal.h"

#define TEMP_PREFIX ".kuayu-home-"

static int ask(struct mount *m, struct vfs_op *op, struct vfs_result *res)
{
	return ask_brick(m, op, res, NULL);
}

/* Only whether it was done matters. */
static int change(struct mount *m, struct vfs_op *op)
{
	struct vfs_result res = {0};
	int r = ask(m, op, &res);

	vfs_result_done(&res);
	return r;
}

/* The name of a folder in the one that it lies in. -ENOENT: it has none any more. */
static int name_of(struct mount *m, const struct vfs_attr *a, char ret[VFS_NAME_MAX + 1])
{
	char from[VFS_NAME_MAX + 1] = "";
	bool more = true;

	while (more) { /* names only go up: bounded by the folder */
		struct vfs_op op = {.type = VFS_READDIR, .ino = {.folder = a->up}, .len = VFS_READDIR_MAX};
		struct vfs_result res = {0};
		struct vfs_entry e = {0};
		size_t at = 0;
		int r;

		op_name(&op, from);
		r = ask(m, &op, &res);
		more = r == 0 && res.flags & VFS_MORE;
		while (r == 0 && (r = vfs_entry_decode(res.data.data, res.data.len, &at, &e)) == 0) {
			snprintf(from, sizeof(from), "%.*s", (int)e.name_len, e.name);
			if (vol_ino_eq(&e.ino, &a->ino)) {
				snprintf(ret, VFS_NAME_MAX + 1, "%s", from);
				vfs_result_done(&res);
				return 0;
			}
		}
		vfs_result_done(&res);
		if (r != -ENOENT)
			return r;
	}
	return -ENOENT;
}

static int make(struct mount *m, const struct vfs_attr *a, const char *name, struct vol_ino *ret)
{
	struct vfs_op op = {.type = VFS_MKDIR, .ino = {.folder = a->up}, .attr = *a};

	op_name(&op, name);
	random_bytes(op.target.folder.b, sizeof(op.target.folder.b));
	op.target.folder.b[0] = a->home;
	*ret = op.target;
	return change(m, &op);
}

static int copy_xattr(struct mount *m, const struct vol_ino *from, const struct vol_ino *to, const char *name)
{
	struct vfs_op get = {.type = VFS_GETXATTR, .ino = *from}, set = {.type = VFS_SETXATTR, .ino = *to};
	struct vfs_result value = {0};
	int r;

	op_name(&get, name);
	op_name(&set, name);
	r = ask(m, &get, &value);
	if (r == 0) {
		set.data = value.data.data;
		set.data_len = (uint32_t)value.data.len;
		r = change(m, &set);
	}
	vfs_result_done(&value);
	return r == -ENODATA ? 0 : r; /* removed just now */
}

static int copy_xattrs(struct mount *m, const struct vol_ino *from, const struct vol_ino *to)
{
	struct vfs_op op = {.type = VFS_LISTXATTR, .ino = *from};
	struct vfs_result res = {0};
	int r = ask(m, &op, &res);

	for (size_t at = 0; r == 0 && at < res.data.len; at += strlen((const char *)res.data.data + at) + 1)
		r = copy_xattr(m, from, to, (const char *)res.data.data + at);
	vfs_result_done(&res);
	return r;
}

/* What a parent with a group of its own (setgid) may have changed, and the times, behind the attributes that touch them. */
static int copy_attr(struct mount *m, const struct vfs_attr *a, const struct vol_ino *to)
{
	struct vfs_op op = {.type = VFS_SETATTR,
			    .ino = *to,
			    .attr = *a,
			    .set = VFS_SET_MODE | VFS_SET_UID | VFS_SET_GID | VFS_SET_ATIME | VFS_SET_MTIME};

	return change(m, &op);
}

static int swap(struct mount *m, const struct vfs_attr *a, const char *temp, const char *name)
{
	struct vfs_op op = {.type = VFS_RENAME,
			    .ino = {.folder = a->up},
			    .ino2 = {.folder = a->up},
			    .name2 = name,
			    .name2_len = (uint16_t)strlen(name)};

	op_name(&op, temp);
	return change(m, &op);
}

static void take_back(struct mount *m, const struct vfs_attr *a, const char *temp)
{
	struct vfs_op op = {.type = VFS_RMDIR, .ino = {.folder = a->up}};

	op_name(&op, temp);
	(void)change(m, &op);
}

static void names_moved(struct mount *m, const struct vfs_attr *a, const char *name)
{
	struct node *parent = node_find(m, &(struct vol_ino){.folder = a->up});

	if (parent) {
		pthread_mutex_lock(&parent->lock);
		folder_changed(m, parent, name, true, true);
		parent->attr_known = false;
		pthread_mutex_unlock(&parent->lock);
		node_unpin(m, parent);
	}
	cache_inc_epoch(m); /* no lock of the kernel's: the caller holds that of the folder */
}

static int empty(struct mount *m, const struct vol_ino *folder)
{
	struct vfs_op op = {.type = VFS_READDIR, .ino = *folder};
	struct vfs_result res = {0};
	int r;

	op_name(&op, "");
	r = ask(m, &op, &res);
	r = r == 0 && res.data.len ? -ENOTEMPTY : r;
	vfs_result_done(&res);
	return r;
}

int home_move(struct mount *m, const struct vfs_attr *a)
{
	char name[VFS_NAME_MAX + 1], temp[sizeof(TEMP_PREFIX) + 16];
	struct vol_ino to;
	uint64_t random;
	int r;

	if (!S_ISDIR(a->mode) || a->home == 0 || a->home == a->ino.folder.b[0] ||
	    vol_id_eq(&a->ino.folder, &vol_root))
		return 0;
	random_bytes(&random, sizeof(random));
	snprintf(temp, sizeof(temp), TEMP_PREFIX "%016llx", (unsigned long long)random);
	r = empty(m, &a->ino);
	if (r == 0)
		r = name_of(m, a, name);
	if (r == 0)
		r = make(m, a, temp, &to);
	if (r < 0)
		return r;
	r = copy_xattrs(m, &a->ino, &to);
	if (r == 0)
		r = copy_attr(m, a, &to);
	if (r == 0)
		r = swap(m, a, temp, name);
	if (r < 0)
		take_back(m, a, temp);
	else
		names_moved(m, a, name);
	return r;
}
