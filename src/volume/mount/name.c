/* SPDX-License-Identifier: Apache-2.0 */
/* Names: looking up, making, removing, linking. */
#include <fcntl.h>

#include "volume/mount/internal.h"

#define LIST_AFTER_MISSES 3 /* lookups of names that are not there, before the folder is listed */

/* ---- replies ---- */

static void entry_param(struct mount *m, struct node *n, const struct vfs_attr *a, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){.ino = node_id(n), .generation = n->generation};
	to_stat(m, a, &e->attr);
}

static bool folder_leased(struct mount *m, struct node *folder)
{
	bool leased;

	pthread_mutex_lock(&folder->lock);
	leased = folder->leased;
	pthread_mutex_unlock(&folder->lock);
	return leased && atomic_load(&m->epoch_works);
}

static void reply_absent(fuse_req_t req, struct mount *m, struct node *folder, bool keep)
{
	struct fuse_entry_param e = {.entry_timeout = keep && folder_leased(m, folder) ? KEEP_S : 0};

	if (e.entry_timeout > 0)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, ENOENT);
}

/* What is needed to answer with an entry: its inode's attributes, asked for where they live when they did not come along. */
struct found {
	struct tick tick; /* of the folder */
	uint64_t pushes, changes;
	bool leased, attr_leased;
	struct vfs_attr attr;
	const uint8_t *data; /* all bytes of the file, of attr.version; NULL = they did not come along */
	uint32_t len;
};

static int complete_attr(struct mount *m, struct node *folder, struct found *f, const struct vfs_result *res)
{
	const struct vol_map *map = vclient_map(m->c);
	struct vfs_op op = {.type = VFS_GETATTR, .ino = res->attr.ino};
	struct vfs_result more = {0};
	int r;

	f->attr = res->attr;
	/* the folder's group has given the lease: of what it keeps */
	f->attr_leased =
		f->leased && vol_owner(map, &res->attr.ino.folder) == vol_owner(map, &folder->ino.folder);
	if (!(res->flags & VFS_NO_ATTR))
		return 0;
	r = ask_brick(m, &op, &more, &f->attr_leased);
	if (r == 0)
		f->attr = more.attr;
	vfs_result_done(&more);
	return r;
}

/* The folder is under a lease, and the name leads to what was found, unless it was changed from here meanwhile. */
static void keep_folder(struct mount *m, struct node *folder, const char *name, const struct found *f)
{
	uint64_t hash = name_hash(m, name, strlen(name));

	pthread_mutex_lock(&folder->lock);
	cache_keep(folder);
	if (folder->complete && folder->changes == f->changes && names_has(&folder->names, hash) &&
	    vol_id_eq(&f->attr.ino.folder, &folder->ino.folder))
		(void)names_add(m, &folder->names, hash, f->attr.ino.num);
	pthread_mutex_unlock(&folder->lock);
}

/* Replies with an entry; fi: with an open file. */
static void reply_found(fuse_req_t req, struct mount *m, struct node *folder, const char *name,
			struct found *f, struct fuse_file_info *fi)
{
	struct node *n = moved_lookup(m, req, folder, &f->attr.ino);
	struct fuse_entry_param e;
	struct vfs_attr now;
	bool keep;
	int r;

	if (!n) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (behind_busy(n)) { /* what was asked before the drain is too old */
		r = meta_refresh(m, req, n, &f->attr, &f->attr_leased);
		if (r < 0) {
			node_forget(m, n, 1);
			fuse_reply_err(req, -r);
			return;
		}
		f->data = NULL;
	}
	if (fi &&
	    opened_to_write(
		    fi)) /* who else may have read it already? Another mount has made it, or it is quite new */
		(void)fill_bar(m, n, NULL);
	gate_in(m);
	if (f->leased && tick_same(m, &f->tick))
		keep_folder(m, folder, name, f);
	keep = cache_learn(m, n, &f->attr, f->attr_leased && atomic_load(&m->pushes) == f->pushes, &now);
	if (keep && f->data && now.version == f->attr.version)
		head_put(m, n, now.version, f->data, f->len);
	if (!fi)
		head_looked_up(m, n, &now);
	keep = end_tell(m, n, &now);
	entry_param(m, n, &now, &e);
	e.attr_timeout = keep ? KEEP_S : 0;
	e.entry_timeout = tick_same(m, &f->tick) && folder_leased(m, folder) ? KEEP_S : 0;
	if (fi) {
		file_opened(m, n, fi);
		r = fuse_reply_create(req, &e, fi);
	} else
		r = fuse_reply_entry(req, &e);
	gate_out(m);
	if (r < 0) {
		if (fi)
			never_opened(n, fi);
		node_forget(m, n, 1);
	}
}

/* ---- lookup ---- */

static bool lacks(fuse_req_t req, struct mount *m, struct node *folder, const char *name)
{
	bool answered = false;

	gate_in(m);
	if (folder_lacks(m, folder, name)) {
		reply_absent(req, m, folder, true);
		answered = true;
	}
	gate_out(m);
	return answered;
}

static bool worth_listing(struct node *folder)
{
	bool worth;

	pthread_mutex_lock(&folder->lock);
	worth = !folder->complete && (folder->fresh || folder->misses == LIST_AFTER_MISSES);
	folder->fresh = false;
	if (worth)
		folder->misses++;
	pthread_mutex_unlock(&folder->lock);
	return worth;
}

void ll_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = mount_of(req);
	struct node *folder = node_of(m, parent);
	struct found f = {.tick = tick_of(m, &folder->ino, NULL),
			  .pushes = atomic_load(&m->pushes),
			  .changes = changes_of(folder)};
	struct vfs_result res = {0};
	struct vfs_op op;
	uint8_t *data;
	int r;

	if (strlen(name) > VFS_NAME_MAX) { /* not just absent */
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	if (worth_listing(folder)) {
		folder_list(m, folder);
		f.tick = tick_of(m, &folder->ino, NULL);
		f.changes = changes_of(folder);
	}
	if (lacks(req, m, folder, name))
		return;
	op_init(&op, VFS_LOOKUP, req, folder);
	op_name(&op, name);
	data = head_room(m);
	deleg_wait_op(m, &op);
	r = data ? vclient_lookup(slot_of(m), &op, &res, &f.leased, data, HEAD_MAX, &f.len)
		 : ask_brick(m, &op, &res, &f.leased);
	f.data = f.len > 0 ? data : NULL;
	if (r == 0)
		r = complete_attr(m, folder, &f, &res);
	if (r == 0)
		reply_found(req, m, folder, name, &f, NULL);
	else if (r == -ENOENT) {
		bool keep;

		gate_in(m);
		keep = tick_same(m, &f.tick);
		pthread_mutex_lock(&folder->lock);
		if (f.leased && keep)
			cache_keep(folder);
		if (folder->misses < LIST_AFTER_MISSES)
			folder->misses++;
		pthread_mutex_unlock(&folder->lock);
		reply_absent(req, m, folder, keep);
		gate_out(m);
	} else
		fuse_reply_err(req, -r);
	vfs_result_done(&res);
}

void ll_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	struct mount *m = mount_of(req);

	if (ino != FUSE_ROOT_ID)
		node_forget(m, node_of(m, ino), n);
	fuse_reply_none(req);
}

void ll_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *f)
{
	struct mount *m = mount_of(req);

	for (size_t i = 0; i < n; i++)
		if (f[i].ino != FUSE_ROOT_ID)
			node_forget(m, node_of(m, f[i].ino), f[i].nlookup);
	fuse_reply_none(req);
}

/* ---- making ---- */

/* One operation that changes a name of a folder: asks, and keeps the books. Before the reply to the kernel. */
static int change_name(struct mount *m, struct node *folder, struct vfs_op *op, const char *name, bool makes,
		       struct vfs_result *res, struct found *f)
{
	int r;

	*f = (struct found){.tick = tick_of(m, &folder->ino, NULL), .pushes = atomic_load(&m->pushes)};
	r = change_call(m, folder, NULL, op, res, &f->leased);
	pthread_mutex_lock(&folder->lock);
	if (r == 0)
		folder_changed(m, folder, name, makes, false);
	else if (r == -EIO || r == -EEXIST || r == -ENOENT)
		folder_changed(m, folder, name, r != -ENOENT, r == -EIO);
	if (r == 0 || r == -EIO)
		folder->attr_known = false;
	f->changes = folder->changes;
	pthread_mutex_unlock(&folder->lock);
	if (r == 0 || r == -EIO)
		moved_changed(m, folder);
	if (r == 0 && (op->type == VFS_CREATE || op->type == VFS_UNLINK))
		deleg_named(m, folder);
	if (r == 0 && res->parent.mode) {
		gate_in(m);
		(void)cache_learn(m, folder, &res->parent, f->leased && tick_same(m, &f->tick), NULL);
		gate_out(m);
	}
	return r;
}

static void make(fuse_req_t req, fuse_ino_t parent, const char *name, struct vfs_op *op)
{
	struct mount *m = mount_of(req);
	struct node *folder = node_of(m, parent);
	struct vfs_result res = {0};
	struct found f;
	int r;

	naming_begin(folder);
	op_name(op, name);
	r = change_name(m, folder, op, name, true, &res, &f);
	if (r == 0)
		r = complete_attr(m, folder, &f, &res);
	if (r == 0 && op->type == VFS_MKDIR) {
		struct node *n = node_lookup(m, &f.attr.ino);

		if (n) {
			pthread_mutex_lock(&n->lock);
			n->fresh = true;
			deleg_fresh(n);
			pthread_mutex_unlock(&n->lock);
		}
		reply_found(req, m, folder, name, &f, NULL);
		if (n)
			node_forget(m, n, 1);
	} else if (r == 0)
		reply_found(req, m, folder, name, &f, NULL);
	else
		fuse_reply_err(req, -r);
	naming_end(folder);
	vfs_result_done(&res);
}

static void op_owner(struct vfs_op *op, fuse_req_t req, mode_t mode)
{
	const struct fuse_ctx *x = fuse_req_ctx(req);

	op->attr.mode = mode;
	op->attr.uid = x->uid;
	op->attr.gid = x->gid;
}

void ll_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct vfs_op op;

	op_init(&op, VFS_CREATE, req, node_of(mount_of(req), parent));
	op_owner(&op, req, mode);
	op.attr.rdev = (uint32_t)rdev;
	op.flags = VFS_EXCL;
	make(req, parent, name, &op);
}

void ll_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct node *folder = node_of(mount_of(req), parent);
	struct vfs_op op;

	op_init(&op, VFS_MKDIR, req, folder);
	op_owner(&op, req, mode | S_IFDIR);
	random_bytes(op.target.folder.b, sizeof(op.target.folder.b));
	pthread_mutex_lock(&folder->lock);
	op.target.folder.b[0] = folder->attr.home;
	pthread_mutex_unlock(&folder->lock);
	make(req, parent, name, &op);
}

void ll_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	struct vfs_op op;

	op_init(&op, VFS_SYMLINK, req, node_of(mount_of(req), parent));
	op_owner(&op, req, S_IFLNK | 0777);
	op.data = link;
	op.data_len = (uint32_t)strlen(link);
	make(req, parent, name, &op);
}

void ll_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct vfs_op op;

	op_init(&op, VFS_LINK, req, node_of(m, parent));
	op.target = n->ino;
	pthread_mutex_lock(&n->lock);
	op.attr.mode = n->attr.mode;
	pthread_mutex_unlock(&n->lock);
	behind_drain(m, n); /* a new name is not seen before what was written to the file */
	cache_unsure(n);    /* its link count, whatever becomes of it */
	make(req, parent, name, &op);
}

/* Also for the second try of the kernel after -ESTALE: somebody else made the file meanwhile. The kernel has not checked its permissions. */
static int created_elsewhere(fuse_req_t req, const struct vfs_attr *a, const struct fuse_file_info *fi)
{
	const struct fuse_ctx *x = fuse_req_ctx(req);

	if (fi->flags & O_EXCL)
		return -EEXIST;
	return x->uid == 0 && S_ISREG(a->mode) && !(fi->flags & O_TRUNC) ? 0 : -ESTALE;
}

void ll_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *folder = node_of(m, parent), *n = NULL;
	struct vfs_result res = {0};
	struct vfs_op op;
	struct found f;
	int r;

	op_init(&op, VFS_CREATE, req, folder);
	op_owner(&op, req, mode);
	op.flags = VFS_EXCL;
	op_name(&op, name);
	if (deleg_create(req, m, folder, name, &op, fi))
		return;
	naming_begin(folder);
	r = change_name(m, folder, &op, name, true, &res, &f);
	if (r == -EEXIST)
		r = created_elsewhere(req, &res.attr, fi);
	else if (r == 0)
		n = node_lookup(m, &res.attr.ino);
	if (n) {
		pthread_mutex_lock(&n->lock);
		n->no_xattrs = f.leased;
		pthread_mutex_unlock(&n->lock);
	}
	if (r == 0)
		r = complete_attr(m, folder, &f, &res);
	if (r == 0)
		reply_found(req, m, folder, name, &f, fi);
	else
		fuse_reply_err(req, -r);
	if (n)
		node_forget(m, n, 1);
	naming_end(folder);
	vfs_result_done(&res);
}

/* ---- removing ---- */

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, enum vfs_op_type type)
{
	struct mount *m = mount_of(req);
	struct node *folder = node_of(m, parent), *n;
	struct vfs_result res = {0};
	struct vfs_op op;
	struct found f;
	int r;

	op_init(&op, type, req, folder);
	op_name(&op, name);
	if (type == VFS_UNLINK && deleg_unlink(req, m, folder, name, &op))
		return;
	if (type == VFS_RMDIR)
		deleg_end_empty(m);
	naming_begin(folder);
	r = change_name(m, folder, &op, name, false, &res, &f);
	if (r == 0 && res.gone.mode && (n = node_find(m, &res.gone.ino))) {
		gate_in(m);
		(void)cache_learn(m, n, &res.gone, false, NULL);
		gate_out(m);
		node_unpin(m, n);
	}
	fuse_reply_err(req, -r);
	naming_end(folder);
	vfs_result_done(&res);
}

void ll_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, VFS_UNLINK);
}

void ll_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, VFS_RMDIR);
}
