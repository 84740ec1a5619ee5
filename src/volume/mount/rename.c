/* SPDX-License-Identifier: Apache-2.0 */
/* Renaming. A folder that moves to another folder could be put below itself by two clients that each see only their own half: such a rename holds the
 * volume's rename lock (a lock on the root folder, owner 0; inside this mount a mutex) while it walks from the new parent up to the root. */
#include <fcntl.h>

#include "volume/mount/internal.h"

#define DEPTH_MAX    4096
#define LOCK_WAIT_MS 20
#define LOCK_TRIES   1500 /* 30 s */
#define STALE_TRIES  32

static pthread_mutex_t renaming = PTHREAD_MUTEX_INITIALIZER;

static int volume_lock(struct mount *m, short type)
{
	struct vfs_op op = {.type = VFS_LOCK,
			    .ino = {.folder = vol_root},
			    .lock = {.end = UINT64_MAX, .type = (uint8_t)type}};
	int r = -EAGAIN;

	for (int i = 0; i < LOCK_TRIES && r == -EAGAIN; i++) {
		struct vfs_result res = {0};

		r = ask_brick(m, &op, &res, NULL);
		vfs_result_done(&res);
		if (r == -EAGAIN)
			usleep(LOCK_WAIT_MS * 1000);
	}
	return r == -EAGAIN ? -EBUSY : r;
}

static int look(struct mount *m, fuse_req_t req, struct node *folder, const char *name, struct vol_ino *ret)
{
	struct vfs_result res = {0};
	struct vfs_op op;
	int r;

	op_init(&op, VFS_LOOKUP, req, folder);
	op_name(&op, name);
	r = ask_brick(m, &op, &res, NULL);
	*ret = res.attr.ino;
	vfs_result_done(&res);
	return r;
}

/* -EINVAL when `moved` is `folder` or above it. */
static int not_above(struct mount *m, const struct vol_id *moved, struct vol_id folder)
{
	for (int i = 0; i < DEPTH_MAX; i++) {
		struct vfs_op op = {.type = VFS_GETATTR, .ino = {.folder = folder}};
		struct vfs_result res = {0};
		int r;

		if (vol_id_eq(&folder, moved))
			return -EINVAL;
		if (vol_id_eq(&folder, &vol_root))
			return 0;
		r = ask_brick(m, &op, &res, NULL);
		folder = res.attr.up;
		vfs_result_done(&res);
		if (r < 0)
			return r;
	}
	return -ELOOP;
}

/* Takes the volume's lock when a folder changes its parent; *ret_locked then. What was found goes with the operation: should another client have put
 * something else there meanwhile, it is refused, because that was not looked at. */
static int folder_moves(struct mount *m, fuse_req_t req, struct node *from, const char *name, struct node *to,
			const char *newname, struct vfs_op *op, bool *ret_locked)
{
	struct vol_ino a, b = {.num = 1};
	uint32_t flags = op->flags;
	int r;

	*ret_locked = false;
	if (from == to)
		return 0;
	r = look(m, req, from, name, &a);
	if (r == 0 && flags & VFS_EXCHANGE)
		r = look(m, req, to, newname, &b);
	if (r < 0)
		return r;
	op->flags |= VFS_KNOWN;
	op->target = a;
	op->attr.ino = b;
	if (a.num != 0 && b.num != 0)
		return 0;
	pthread_mutex_lock(&renaming);
	r = volume_lock(m, F_WRLCK);
	if (r < 0) {
		pthread_mutex_unlock(&renaming);
		return r;
	}
	*ret_locked = true;
	if (a.num == 0)
		r = not_above(m, &a.folder, to->ino.folder);
	if (r == 0 && b.num == 0)
		r = not_above(m, &b.folder, from->ino.folder);
	return r;
}

/* keep: under the lease of from's group. */
static void learn_result(struct mount *m, struct node *from, const struct vfs_result *res, bool keep)
{
	const struct vfs_attr *a[2] = {&res->attr, &res->gone};
	const struct vol_map *map = vclient_map(m->c);

	for (int i = 0; i < 2; i++) {
		struct node *n = a[i]->mode ? node_find(m, &a[i]->ino) : NULL;

		if (!n)
			continue;
		cache_unsure(n); /* times, link count, a folder's parent */
		if (i == 0 && keep && vol_owner(map, &a[i]->ino.folder) == vol_owner(map, &from->ino.folder))
			(void)cache_learn(m, n, a[i], true, NULL);
		node_unpin(m, n);
	}
}

void ll_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
	       unsigned int flags)
{
	struct mount *m = mount_of(req);
	struct node *from = node_of(m, parent), *to = node_of(m, newparent);
	struct vfs_result res = {0};
	struct vfs_op op;
	bool locked = false, leased = false;
	uint64_t pushes;
	struct tick t;
	int r;

	if (flags & ~(unsigned int)(RENAME_NOREPLACE | RENAME_EXCHANGE)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	op_init(&op, VFS_RENAME, req, from);
	op_name(&op, name);
	op.ino2 = to->ino;
	op.name2 = newname;
	op.name2_len = (uint16_t)strlen(newname);
	op.flags =
		(flags & RENAME_NOREPLACE ? VFS_NOREPLACE : 0) | (flags & RENAME_EXCHANGE ? VFS_EXCHANGE : 0);
	behind_drain_all(m); /* a new name is not seen before what was written to the file */
	deleg_end_empty(m);  /* one of them may be replaced */
	naming_begin(from);
	naming_begin(to);
	if (from != to) {
		atomic_fetch_add(&m->renames, 1);
		atomic_store(&m->moving_ms, clock_ms());
	}
	r = -ESTALE;
	for (int i = 0; i < STALE_TRIES && r == -ESTALE; i++) {
		vfs_result_done(&res);
		res = (struct vfs_result){0};
		r = folder_moves(m, req, from, name, to, newname, &op, &locked);
		t = tick_of(m, &from->ino, &to->ino);
		pushes = atomic_load(&m->pushes);
		if (r == 0)
			r = change_call(m, from, to, &op, &res, &leased);
		if (locked) {
			(void)volume_lock(m, F_UNLCK);
			pthread_mutex_unlock(&renaming);
		}
	}
	if (r == 0 || r == -EIO) {
		bool swap = op.flags & VFS_EXCHANGE;

		pthread_mutex_lock(&from->lock);
		folder_changed(m, from, name, swap, r < 0);
		from->attr_known = false;
		pthread_mutex_unlock(&from->lock);
		pthread_mutex_lock(&to->lock);
		folder_changed(m, to, newname, true, r < 0);
		to->attr_known = false;
		pthread_mutex_unlock(&to->lock);
		gate_in(m);
		if (r == 0 && res.parent.mode)
			(void)cache_learn(m, from, &res.parent, leased && tick_same(m, &t), NULL);
		learn_result(m, from, &res, r == 0 && leased && atomic_load(&m->pushes) == pushes);
		gate_out(m);
		moved_changed(m, from);
		moved_changed(m, to);
		if (r == 0)
			moved_here(m, &res.attr.ino, to);
	}
	if (from != to) {
		atomic_store(&m->moving_ms, clock_ms());
		atomic_fetch_sub(&m->renames, 1);
	}
	fuse_reply_err(req, -r);
	naming_end(from);
	naming_end(to);
	vfs_result_done(&res);
}
