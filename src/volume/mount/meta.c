/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes, symbolic links, extended attributes, space. */
#include "volume/mount/internal.h"

#define GONE_AGAIN_MS 200
#define GRAIN_US \
	4000 /* of ctime, where nothing else changes: a tick of the kernel's clock, as local file systems have it */

/* Attributes of a node: what is known under the lease, else asked for. Call with the gate open; the reply of a caller that keeps needs the gate:
 * the caller looks with cache_learn(NULL) again inside it. */
int meta_refresh(struct mount *m, fuse_req_t req, struct node *n, struct vfs_attr *ret, bool *ret_keep)
{
	struct vfs_result res = {0};
	struct tick t;
	struct vfs_op op;
	bool leased;
	int r;

	behind_drain(m, n);
	t = tick_of(m, &n->ino, NULL);
	gate_in(m);
	*ret_keep = cache_learn(m, n, NULL, false, ret);
	gate_out(m);
	if (*ret_keep)
		return 0;
	op_init(&op, VFS_GETATTR, req, n);
	r = ask_brick(m, &op, &res, &leased);
	if (r == 0) {
		gate_in(m);
		*ret_keep = cache_learn(m, n, &res.attr, leased && tick_same(m, &t), ret);
		gate_out(m);
	}
	vfs_result_done(&res);
	return r;
}

/* The inode of a path is gone: ESTALE, and the kernel walks the path once more with fresh lookups. A thread that meets the next removed inode
 * right then (others make and remove the same folders all the time) is told ENOENT, as on a local file system; programs never see ESTALE for it. */
int meta_gone(fuse_req_t req)
{
	static struct told told;

	return told_again(&told, req, GONE_AGAIN_MS, false) ? ENOENT : ESTALE;
}

void ll_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct vfs_attr a;
	struct stat st;
	bool keep, fresh;
	int r;

	(void)fi;
	pthread_mutex_lock(&n->lock);
	fresh = n->fresh && !n->attr_known;
	n->fresh &= !fresh;
	pthread_mutex_unlock(&n->lock);
	if (fresh) /* a folder made here: its listing tells the attributes too, and that nothing is in it */
		folder_list(m, n);
	r = meta_refresh(m, req, n, &a, &keep);
	if (r < 0) {
		fuse_reply_err(req, r == -ENOENT ? meta_gone(req) : -r);
		return;
	}
	gate_in(m);
	keep = end_tell(m, n, &a) && keep;
	to_stat(m, &a, &st);
	fuse_reply_attr(req, &st, keep ? KEEP_S : 0);
	gate_out(m);
}

/* What 64 bits of nanoseconds can say: the years 1677 to 2262; beyond, the nearest, as other file systems do it. */
static int64_t from_timespec(const struct timespec *t)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)t->tv_sec, 1000000000, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)t->tv_nsec, &ns))
		return t->tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

static void set_fields(struct vfs_op *op, const struct stat *st, int to_set)
{
	static const struct {
		int fuse;
		uint32_t vfs;
	} map[] = {{FUSE_SET_ATTR_MODE, VFS_SET_MODE},
		   {FUSE_SET_ATTR_UID, VFS_SET_UID},
		   {FUSE_SET_ATTR_GID, VFS_SET_GID},
		   {FUSE_SET_ATTR_SIZE, VFS_SET_SIZE},
		   {FUSE_SET_ATTR_ATIME, VFS_SET_ATIME},
		   {FUSE_SET_ATTR_MTIME, VFS_SET_MTIME},
		   {FUSE_SET_ATTR_ATIME_NOW, VFS_SET_ATIME_NOW},
		   {FUSE_SET_ATTR_MTIME_NOW, VFS_SET_MTIME_NOW},
		   {FUSE_SET_ATTR_CTIME, VFS_SET_CTIME}};

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (to_set & map[i].fuse)
			op->set |= map[i].vfs;
	if (op->set & VFS_SET_ATIME_NOW)
		op->set &= ~(uint32_t)VFS_SET_ATIME;
	if (op->set & VFS_SET_MTIME_NOW)
		op->set &= ~(uint32_t)VFS_SET_MTIME;
	op->attr.mode = st->st_mode;
	op->attr.uid = st->st_uid;
	op->attr.gid = st->st_gid;
	op->attr.size = (uint64_t)st->st_size;
	op->attr.atime_ns = from_timespec(&st->st_atim);
	op->attr.mtime_ns = from_timespec(&st->st_mtim);
	op->attr.ctime_ns = from_timespec(&st->st_ctim);
}

/* Owner and mode that the file has already, right behind another change from here: only ctime could move, by less than its grain. Not where chown takes
 * something away (suid, sgid, capabilities). Node locked. */
static bool changes_nothing(const struct node *n, const struct vfs_op *op)
{
	const uint32_t owner = VFS_SET_UID | VFS_SET_GID;
	const struct vfs_attr *a = &n->attr;

	if (n->ino.num == 0 || !n->leased || !n->attr_known || a->version != n->touched ||
	    clock_us() - n->touched_us >= GRAIN_US)
		return false;
	if (op->set & ~(owner | VFS_SET_MODE) ||
	    (op->set & owner && (a->mode & (S_ISUID | S_ISGID) || !n->no_xattrs)))
		return false;
	return (!(op->set & VFS_SET_UID) || op->attr.uid == a->uid) &&
	       (!(op->set & VFS_SET_GID) || op->attr.gid == a->gid) &&
	       (!(op->set & VFS_SET_MODE) || (op->attr.mode & 07777) == (a->mode & 07777));
}

/* True: answered without asking anybody. */
static bool answer_here(fuse_req_t req, struct mount *m, struct node *n, const struct vfs_op *op)
{
	struct vfs_attr a;
	struct stat st;
	bool may;

	gate_in(m);
	pthread_mutex_lock(&n->lock);
	may = changes_nothing(n, op);
	a = n->attr;
	pthread_mutex_unlock(&n->lock);
	may = may && end_may_tell(n, &a);
	if (may) {
		to_stat(m, &a, &st);
		fuse_reply_attr(req, &st, KEEP_S);
	}
	gate_out(m);
	return may;
}

static void setattr_now(fuse_req_t req, fuse_ino_t ino, const struct stat *st, int to_set)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct tick t;
	struct vfs_result res = {0};
	struct vfs_attr a;
	struct vfs_op op;
	bool leased = false, keep;
	uint64_t sent_us;
	int r;

	op_init(&op, VFS_SETATTR, req, n);
	set_fields(&op, st, to_set);
	if (op.set == 0) { /* nothing that is kept here */
		ll_getattr(req, ino, NULL);
		return;
	}
	behind_drain(m, n);
	if (answer_here(req, m, n, &op) || deleg_setattr(req, m, n, &op))
		return;
	t = tick_of(m, &n->ino, NULL);
	sent_us = clock_us();
	atomic_fetch_add(&n->writing, 1);
	if (!deleg_with_times(m, n, &op, &res, &leased, &r) ||
	    r == -ESTALE) /* -ESTALE: the times were too late */
		r = change_call(m, n, NULL, &op, &res, &leased);
	moved_changed(m, n);
	if (r < 0) {
		cache_unsure(n);
		fuse_reply_err(req, -r);
	} else {
		struct stat now;

		gate_in(m);
		(void)end_changed(m, n, &res.attr, leased && tick_same(m, &t));
		pthread_mutex_lock(&n->lock);
		n->touched = res.attr.version;
		n->touched_us = sent_us;
		pthread_mutex_unlock(&n->lock);
		keep = end_tell(m, n, &a);
		to_stat(m, &a, &now);
		fuse_reply_attr(req, &now, keep ? KEEP_S : 0);
		gate_out(m);
	}
	atomic_fetch_sub(&n->writing, 1);
	vfs_result_done(&res);
}

static void setattr_on(struct put_aside *p)
{
	struct node *n = node_of(mount_of(p->req), p->ino);

	setattr_now(p->req, p->ino, &p->st, p->to_set);
	fill_unbar(n);
}

void ll_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct put_aside p = {.go_on = setattr_on, .req = req, .ino = ino, .st = *st, .to_set = to_set};

	(void)fi;
	if (!(to_set & FUSE_SET_ATTR_SIZE))
		setattr_now(req, ino, st, to_set);
	else if (!fill_bar(m, n, &p)) {
		setattr_now(req, ino, st, to_set);
		fill_unbar(n);
	}
}

void ll_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct mount *m = mount_of(req);
	struct vfs_result res = {0};
	struct vfs_op op;
	int r;

	op_init(&op, VFS_READLINK, req, node_of(m, ino));
	r = ask_brick(m, &op, &res, NULL);
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (res.data.len == 0 || res.data.len > VFS_SYMLINK_MAX)
		fuse_reply_err(req, EIO);
	else
		fuse_reply_readlink(req, res.data.data); /* a buf is terminated */
	vfs_result_done(&res);
}

void ll_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct mount *m = mount_of(req);
	const struct vol_map *map = vclient_map(m->c);
	struct vfs_result res = {0};
	struct vfs_op op;
	struct statvfs v = {.f_bsize = VOL_BLOCK, .f_frsize = VOL_BLOCK, .f_namemax = VFS_NAME_MAX};
	int r;

	(void)ino;
	op_init(&op, VFS_STATFS, req, node_of(m, FUSE_ROOT_ID));
	r = ask_brick(m, &op, &res, NULL);
	v.f_blocks = res.attr.size / VOL_BLOCK;
	v.f_bfree = v.f_bavail = res.attr.blocks / VOL_BLOCK;
	v.f_ffree = v.f_favail = res.attr.version;
	v.f_files = v.f_ffree;
	v.f_fsid = proto_volume_tag(&map->uuid);
	vfs_result_done(&res);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_statfs(req, &v);
}

/* ---- extended attributes ---- */

static bool has_none(struct node *n)
{
	bool none;

	pthread_mutex_lock(&n->lock);
	none = n->leased && n->no_xattrs;
	pthread_mutex_unlock(&n->lock);
	return none;
}

static void reply_data(fuse_req_t req, int r, const struct buf *data, size_t size)
{
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (size == 0)
		fuse_reply_xattr(req, data->len);
	else if (data->len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, data->data, data->len);
}

/* Does it have any at all? Programs (ls, cp) ask for several that are not there; one question answers them all while the lease holds. */
static void look_for_any(struct mount *m, struct node *n)
{
	struct tick t = tick_of(m, &n->ino, NULL);
	struct vfs_op op = {.type = VFS_LISTXATTR, .ino = n->ino};
	struct vfs_result res = {0};
	bool leased;

	if (ask_brick(m, &op, &res, &leased) == 0 && res.data.len == 0) {
		gate_in(m);
		pthread_mutex_lock(&n->lock);
		n->no_xattrs = (leased || n->leased) && tick_same(m, &t);
		pthread_mutex_unlock(&n->lock);
		gate_out(m);
	}
	vfs_result_done(&res);
}

void ll_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct vfs_result res = {0};
	struct vfs_op op;
	int r;

	if (has_none(n)) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	op_init(&op, VFS_GETXATTR, req, n);
	op_name(&op, name);
	r = ask_brick(m, &op, &res, NULL);
	if (r == -ENODATA)
		look_for_any(m, n); /* before the answer: req and n may be gone after it */
	reply_data(req, r, &res.data, size);
	vfs_result_done(&res);
}

void ll_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct vfs_result res = {0};
	struct vfs_op op;
	int r;

	if (has_none(n)) {
		reply_data(req, 0, &res.data, size);
		return;
	}
	op_init(&op, VFS_LISTXATTR, req, n);
	r = ask_brick(m, &op, &res, NULL);
	reply_data(req, r, &res.data, size);
	vfs_result_done(&res);
}

static void move_home(struct mount *m, const struct vfs_op *op, const struct vfs_attr *a)
{
	int r = op->type == VFS_SETXATTR && vfs_names_home(op) ? home_move(m, a) : 0;

	if (r < 0 && r != -ENOTEMPTY && r != -ENOENT)
		log_warn(
			"an empty folder was not moved to its new home domain, new folders in it will be: %s",
			strerror(-r));
}

static void change_xattr(fuse_req_t req, struct vfs_op *op, struct node *n)
{
	struct mount *m = mount_of(req);
	struct tick t;
	struct vfs_result res = {0};
	bool leased;
	int r;

	behind_drain(m, n);
	t = tick_of(m, &n->ino, NULL);
	pthread_mutex_lock(&n->lock);
	n->no_xattrs = false;
	pthread_mutex_unlock(&n->lock);
	atomic_fetch_add(&n->writing, 1);
	r = change_call(m, n, NULL, op, &res, &leased);
	moved_changed(m, n);
	if (r == 0 && res.attr.mode) {
		gate_in(m);
		(void)cache_learn(m, n, &res.attr, leased && tick_same(m, &t), NULL);
		gate_out(m);
	} else
		cache_unsure(n);
	pthread_mutex_lock(&n->lock);
	n->no_xattrs = false;
	pthread_mutex_unlock(&n->lock);
	if (r == 0)
		move_home(m, op, &res.attr);
	fuse_reply_err(req, -r);
	atomic_fetch_sub(&n->writing, 1);
	vfs_result_done(&res);
}

void ll_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct node *n = node_of(mount_of(req), ino);
	struct vfs_op op;

	if (size > VFS_XATTR_MAX) {
		fuse_reply_err(req, E2BIG);
		return;
	}
	op_init(&op, VFS_SETXATTR, req, n);
	op_name(&op, name);
	op.data = value;
	op.data_len = (uint32_t)size;
	op.flags = (uint32_t)flags; /* XATTR_CREATE, XATTR_REPLACE */
	change_xattr(req, &op, n);
}

void ll_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct node *n = node_of(mount_of(req), ino);
	struct vfs_op op;

	op_init(&op, VFS_REMOVEXATTR, req, n);
	op_name(&op, name);
	change_xattr(req, &op, n);
}
