/* SPDX-License-Identifier: Apache-2.0 */
/* Rename. X, the inode moved, goes from (S, name) to (D, name2), where R may be replaced. S's group coordinates. When D is here as well and R is
 * not a folder of another group, one record does it (the commit); an intent may follow for what other groups keep: X's ctime and
 * its parent, R's link count.
 *
 * States of the intent:
 *   PREPARE  at D's group: checks, holds (D, name2); lookups of it wait from now on. Not when D is here
 *   KILL     at R's group, R a folder: it is empty and dead from now on
 *   --- commit at S's group: (S, name) gone; when D is here (D, name2) = X ---
 *   TOUCH    X's ctime, a folder's parent; before the new name can be changed again, so that two renames leave the later one's parent
 *   TOUCH2   the same for R in an exchange
 *   FINISH   at D's group: (D, name2) = X, visible
 *   COUNT    R, a file: one link less
 *   ABORT    instead, when KILL was refused: D's group lets (D, name2) go
 * A state that is not needed is left out. Before the commit everything is undone, after it everything is done. */
#include "core/vfs/internal.h"

enum { PREPARE = 1, KILL, TOUCH, TOUCH2, FINISH, COUNT, ABORT, END };

static bool exchange(const struct intent *in)
{
	return in->op.flags & VFS_EXCHANGE;
}

static bool other_folder(const struct intent *in)
{
	return !vol_id_eq(&in->op.ino.folder, &in->op.ino2.folder);
}

static bool is_dir(const struct entry *e)
{
	return e->type == S_IFDIR;
}

/* Does the inode live in D's group, where FINISH can change it? */
static bool finish_has(const struct vfs *v, const struct intent *in, const struct entry *e)
{
	return !in->dst_here && vol_owner(v->map, &e->ino.folder) == vol_owner(v->map, &in->op.ino2.folder);
}

static bool foreign(const struct vfs *v, const struct entry *e)
{
	return vol_owner(v->map, &e->ino.folder) != v->replica->group;
}

static bool needs(const struct vfs *v, const struct intent *in, uint8_t state)
{
	switch (state) {
	case TOUCH:
		return foreign(v, &in->moved) && !finish_has(v, in, &in->moved);
	case TOUCH2:
		return exchange(in) && foreign(v, &in->replaced);
	case FINISH:
		return !in->dst_here;
	case COUNT:
		return in->replaced.type && !is_dir(&in->replaced) && !exchange(in) &&
		       foreign(v, &in->replaced) && !finish_has(v, in, &in->replaced);
	default:
		return false;
	}
}

static uint8_t state_after(const struct vfs *v, const struct intent *in, uint8_t state)
{
	do
		state++;
	while (state < ABORT && !needs(v, in, state));
	return state < ABORT ? state : END;
}

/* A folder that changes its parent in another group keeps its new name locked until it knows. */
static bool stays_locked(const struct vfs *v, const struct intent *in, const struct entry *e)
{
	return in->dst_here && other_folder(in) && is_dir(e) && foreign(v, e);
}

/* ---- the commit ---- */

static int commit_names(struct tx *t, struct intent *in)
{
	const struct vfs_op *op = &in->op;
	struct entry e = in->moved;
	int r;

	e.flags = 0;
	if (stays_locked(t->v, in, &e))
		entry_lock(&e, in);
	if (exchange(in)) {
		struct entry back = in->replaced;

		back.flags = 0;
		if (stays_locked(t->v, in, &back))
			entry_lock(&back, in);
		r = entry_put(t, &op->ino.folder, op->name, op->name_len, &back);
	} else {
		r = entry_del(t, &op->ino.folder, op->name, op->name_len);
	}
	if (r == 0 && in->dst_here)
		r = entry_put(t, &op->ino2.folder, op->name2, op->name2_len, &e);
	return r;
}

static int commit_folders(struct tx *t, struct intent *in)
{
	const struct vfs_op *op = &in->op;
	struct inode src, dst, *d = &src;
	int r;

	r = hard(t, folder_get(t, &op->ino, &src));
	if (r == 0 && in->dst_here && other_folder(in)) {
		d = &dst;
		r = hard(t, folder_get(t, &op->ino2, d));
	}
	if (r < 0)
		return r;
	src.a.nlink -= is_dir(&in->moved);
	if (in->dst_here) {
		d->a.nlink += is_dir(&in->moved);
		d->a.nlink -= in->replaced.type && is_dir(&in->replaced);
	}
	src.a.nlink += exchange(in) && is_dir(&in->replaced);
	touch(t, &src, true);
	r = inode_put(t, &src);
	if (r == 0 && d != &src) {
		touch(t, d, true);
		r = inode_put(t, d);
	}
	in->res.parent = src.a;
	return r;
}

/* The moved inode, when it is here. */
static int moved_here(struct tx *t, const struct entry *e, const struct vol_id *up, struct vfs_attr *ret)
{
	struct inode in;
	int r;

	if (foreign(t->v, e))
		return 0;
	r = hard(t, inode_get(t, &e->ino, &in));
	if (r < 0)
		return r;
	touch(t, &in, false);
	if (is_dir(e))
		in.a.up = *up;
	r = inode_put(t, &in);
	*ret = in.a;
	return r;
}

/* The replaced inode, when it is here and was not killed by a step. */
static int replaced_here(struct tx *t, struct intent *in)
{
	struct inode inode;
	int r;

	if (!in->replaced.type || foreign(t->v, &in->replaced) || (is_dir(&in->replaced) && !in->dst_here))
		return 0;
	r = hard(t, inode_get(t, &in->replaced.ino, &inode));
	if (r < 0)
		return r;
	if (is_dir(&in->replaced))
		inode.a.nlink = 1; /* the last one goes: dead */
	r = inode_unlink(t, &inode);
	in->res.gone = inode.a;
	return r;
}

static int commit(struct tx *t, struct intent *in)
{
	int r = commit_names(t, in);

	if (r == 0)
		r = commit_folders(t, in);
	if (r == 0)
		r = moved_here(t, &in->moved, &in->op.ino2.folder, &in->res.attr);
	if (r < 0)
		return r;
	if (exchange(in))
		return moved_here(t, &in->replaced, &in->op.ino.folder, &in->res.gone);
	return replaced_here(t, in);
}

/* ---- the operation ---- */

/* May X take R's place? 0, or 1: both are one inode, nothing to do. */
static int check_replace(const struct entry *x, const struct entry *r, uint32_t flags)
{
	if (flags & VFS_NOREPLACE)
		return -EEXIST;
	if (vol_ino_eq(&x->ino, &r->ino))
		return 1;
	if (flags & VFS_EXCHANGE)
		return 0;
	if (is_dir(x) && !is_dir(r))
		return -ENOTDIR;
	return !is_dir(x) && is_dir(r) ? -EISDIR : 0;
}

static int check_names(struct tx *t)
{
	const struct vfs_op *op = t->op;
	int r;

	if ((op->flags & ~(VFS_NOREPLACE | VFS_EXCHANGE | VFS_KNOWN)) ||
	    (op->flags & (VFS_NOREPLACE | VFS_EXCHANGE)) == (VFS_NOREPLACE | VFS_EXCHANGE))
		return -EINVAL;
	r = name_check(op->name, op->name_len);
	return r < 0 ? r : name_check(op->name2, op->name2_len);
}

static int lock_name(struct tx *t, const struct intent *in, const struct vol_id *folder, const char *name,
		     size_t len, const struct entry *e)
{
	struct entry locked = *e;

	entry_lock(&locked, in);
	return entry_put(t, folder, name, len, &locked);
}

static int begin_remote(struct tx *t, struct intent *in)
{
	int r;

	if (in->op.flags & VFS_EXCHANGE)
		return -EINVAL; /* within one group only */
	r = intent_new(t, in);
	if (r == 0)
		r = lock_name(t, in, &in->op.ino.folder, in->op.name, in->op.name_len, &in->moved);
	in->state = PREPARE;
	return r < 0 ? r : intent_begin(t, in);
}

/* D is here: is it possible? Fills in->replaced. 1 = nothing to do. */
static int check_here(struct tx *t, struct intent *in, const struct inode *dst)
{
	const struct vfs_op *op = t->op;
	int r;

	r = entry_claim(t, &op->ino2.folder, op->name2, op->name2_len, &in->replaced);
	if (r == -ENOENT) {
		in->replaced = (struct entry){0};
		if (op->flags & VFS_EXCHANGE)
			return -ENOENT;
	} else {
		if (r == 0)
			r = check_replace(&in->moved, &in->replaced, op->flags);
		if (r)
			return r;
	}
	if (exchange(in) && (op->flags & VFS_KNOWN) && !vol_ino_eq(&in->replaced.ino, &op->attr.ino))
		return -ESTALE;
	if ((op->flags & VFS_EXCHANGE) && is_dir(&in->replaced) &&
	    vol_id_eq(&in->replaced.ino.folder, &op->ino.folder))
		return -EINVAL;
	if (is_dir(&in->moved) && other_folder(in) && !is_dir(&in->replaced) && dst->a.nlink >= VFS_LINK_MAX)
		return -EMLINK;
	if (is_dir(&in->replaced) && !exchange(in) && !foreign(t->v, &in->replaced))
		return folder_empty(t, &in->replaced.ino.folder);
	return 0;
}

int do_rename(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct intent in = {.op = *op};
	struct inode src, dst;
	int r;

	r = check_names(t);
	if (r == 0)
		r = folder_get(t, &op->ino, &src);
	if (r == 0)
		r = entry_claim(t, &op->ino.folder, op->name, op->name_len, &in.moved);
	if (r < 0)
		return r;
	if ((op->flags & VFS_KNOWN) && !vol_ino_eq(&in.moved.ino, &op->target))
		return -ESTALE;
	if (is_dir(&in.moved) && vol_id_eq(&in.moved.ino.folder, &op->ino2.folder))
		return -EINVAL;
	in.dst_here = !other_folder(&in) || is_local(t, &op->ino2);
	if (!in.dst_here)
		return begin_remote(t, &in);
	r = folder_get(t, &op->ino2, &dst);
	if (r == 0)
		r = check_here(t, &in, &dst);
	if (r)
		return r < 0 ? r : 0;
	r = intent_new(t, &in);
	if (r < 0)
		return r;
	if (is_dir(&in.replaced) && !exchange(&in) && foreign(t->v, &in.replaced)) {
		in.state = KILL;
		r = lock_name(t, &in, &op->ino.folder, op->name, op->name_len, &in.moved);
		if (r == 0)
			r = lock_name(t, &in, &op->ino2.folder, op->name2, op->name2_len, &in.replaced);
		return r < 0 ? r : intent_begin(t, &in);
	}
	r = commit(t, &in);
	in.state = state_after(t->v, &in, KILL);
	if (r == 0 && in.state != END)
		return intent_begin(t, &in);
	t->res->attr = in.res.attr;
	t->res->parent = in.res.parent;
	t->res->gone = in.res.gone;
	if (exchange(&in))
		type_only(&t->res->gone, &in.replaced);
	return r;
}

/* ---- the intent ---- */

int rename_step(struct vfs *v, const struct intent *in, struct vfs_op *ret)
{
	const struct vfs_op *op = &in->op;

	*ret = (struct vfs_op){.ino = op->ino2,
			       .name = op->name2,
			       .name_len = op->name2_len,
			       .target = in->moved.ino,
			       .flags = op->flags,
			       .attr = {.mode = in->moved.type},
			       .data = in->id,
			       .data_len = 16};
	switch (in->state) {
	case PREPARE:
		ret->type = VFS_STEP_PREPARE;
		return 0;
	case FINISH:
	case ABORT:
		ret->type = VFS_STEP_FINISH;
		ret->set = in->state == FINISH;
		return 0;
	case KILL:
		*ret = (struct vfs_op){.type = VFS_STEP_KILL_FOLDER, .ino = in->replaced.ino};
		return 0;
	case TOUCH:
	case TOUCH2:
		*ret = (struct vfs_op){
			.type = VFS_STEP_TOUCH,
			/* The parent only where the name is locked meanwhile: else it may have moved on. */
			.set = other_folder(in),
			.ino = in->state == TOUCH ? in->moved.ino : in->replaced.ino,
			.attr = {.ctime_ns = in->when,
				 .up = in->state == TOUCH ? op->ino2.folder : op->ino.folder}};
		return 0;
	case COUNT:
		*ret = (struct vfs_op){.type = VFS_STEP_LINK_COUNT, .ino = in->replaced.ino, .set = 2};
		return 0;
	default:
		return -EIO;
	}
}

/* Every name held here is let go. */
static int unlock_names(struct tx *t, const struct intent *in, bool committed)
{
	const struct vfs_op *op = &in->op;
	struct entry first = in->moved, second = in->replaced;
	int r = 0;

	first.flags = second.flags = 0;
	if (!committed) {
		r = entry_put(t, &op->ino.folder, op->name, op->name_len, &first);
		if (r == 0 && in->dst_here)
			r = entry_put(t, &op->ino2.folder, op->name2, op->name2_len, &second);
		return r;
	}
	if (stays_locked(t->v, in, &first))
		r = entry_put(t, &op->ino2.folder, op->name2, op->name2_len, &first);
	if (r == 0 && exchange(in) && stays_locked(t->v, in, &second))
		r = entry_put(t, &op->ino.folder, op->name, op->name_len, &second);
	return r;
}

static int go_on(struct tx *t, struct intent *in, bool *ret_finished)
{
	int r;

	in->state = state_after(t->v, in, in->state);
	*ret_finished = in->state == END;
	if (in->state != END)
		return intent_put(t, in);
	r = unlock_names(t, in, true);
	if (exchange(in))
		type_only(&in->res.gone, &in->replaced);
	return r < 0 ? r : intent_finish(t, in, 0);
}

static int give_up(struct tx *t, struct intent *in, int err, bool *ret_finished)
{
	int r = unlock_names(t, in, false);

	*ret_finished = true;
	return r < 0 ? r : intent_finish(t, in, err);
}

static int do_commit(struct tx *t, struct intent *in, bool *ret_finished)
{
	int r = commit(t, in);

	in->state = KILL;
	return r < 0 ? r : go_on(t, in, ret_finished);
}

static int prepared(struct tx *t, struct intent *in, const struct vfs_result *step, bool *ret_finished)
{
	if (step->err < 0 || (step->flags & VFS_EXISTED))
		return give_up(t, in, step->err, ret_finished);
	in->replaced = (struct entry){.ino = step->gone.ino, .type = step->gone.mode & S_IFMT};
	if (!is_dir(&in->replaced))
		return do_commit(t, in, ret_finished);
	in->state = KILL;
	return intent_put(t, in);
}

static int killed(struct tx *t, struct intent *in, const struct vfs_result *step, bool *ret_finished)
{
	if (step->err == 0) {
		in->res.gone = step->attr;
		return do_commit(t, in, ret_finished);
	}
	if (in->dst_here)
		return give_up(t, in, step->err, ret_finished);
	in->err = step->err;
	in->state = ABORT;
	return intent_put(t, in);
}

int rename_stepped(struct tx *t, struct intent *in, const struct vfs_result *step, bool *ret_finished)
{
	*ret_finished = false;
	switch (in->state) {
	case PREPARE:
		return prepared(t, in, step, ret_finished);
	case KILL:
		return killed(t, in, step, ret_finished);
	case ABORT:
		return give_up(t, in, in->err, ret_finished);
	case TOUCH:
		if (step->err == 0)
			in->res.attr = step->attr;
		break;
	case FINISH:
		if (step->gone.mode)
			in->res.gone = step->gone;
		if (step->attr.mode)
			in->res.attr = step->attr;
		break;
	case COUNT:
		in->res.gone = step->attr;
		break;
	default:
		break;
	}
	return go_on(t, in, ret_finished);
}

/* ---- the steps, at their targets ---- */

int do_step_prepare(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct entry x = {.ino = op->target, .type = op->attr.mode & S_IFMT}, there;
	struct inode dst;
	int r;

	if (op->data_len != 16)
		return -EINVAL;
	r = folder_get(t, &op->ino, &dst);
	if (r < 0)
		return r;
	r = entry_claim(t, &op->ino.folder, op->name, op->name_len, &there);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT) {
		there = x;
		there.flags = ENTRY_HIDDEN;
		if (is_dir(&x) && dst.a.nlink >= VFS_LINK_MAX)
			return -EMLINK;
	} else {
		r = check_replace(&x, &there, op->flags);
		if (r > 0) {
			t->res->flags |= VFS_EXISTED;
			return 0;
		}
		if (r < 0)
			return r;
		type_only(&t->res->gone, &there);
	}
	there.flags |= ENTRY_LOCKED | ENTRY_PREPARED;
	memcpy(there.intent, op->data, 16);
	return entry_put(t, &op->ino.folder, op->name, op->name_len, &there);
}

static int finish_abort(struct tx *t, struct entry *there)
{
	const struct vfs_op *op = t->op;

	if (there->flags & ENTRY_HIDDEN)
		return entry_del(t, &op->ino.folder, op->name, op->name_len);
	there->flags = 0;
	return entry_put(t, &op->ino.folder, op->name, op->name_len, there);
}

int do_step_finish(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct entry x = {.ino = op->target, .type = op->attr.mode & S_IFMT}, there;
	struct inode dst, gone;
	bool replaced;
	int r;

	r = folder_get(t, &op->ino, &dst);
	if (r == 0)
		r = entry_find(t, &op->ino.folder, op->name, op->name_len, &there);
	if (r < 0)
		return r;
	if (op->data_len != 16 || !(there.flags & ENTRY_PREPARED) || memcmp(there.intent, op->data, 16) != 0)
		return -EINVAL;
	if (!op->set)
		return finish_abort(t, &there);
	replaced = !(there.flags & ENTRY_HIDDEN);
	dst.a.nlink += is_dir(&x);
	dst.a.nlink -= replaced && is_dir(&there);
	touch(t, &dst, true);
	r = entry_put(t, &op->ino.folder, op->name, op->name_len, &x);
	if (r == 0)
		r = inode_put(t, &dst);
	if (r == 0)
		r = moved_here(t, &x, &op->ino.folder, &t->res->attr);
	if (r == 0 && replaced && !is_dir(&there) && !foreign(t->v, &there)) {
		r = hard(t, inode_get(t, &there.ino, &gone));
		if (r == 0)
			r = inode_unlink(t, &gone);
		t->res->gone = gone.a;
	}
	t->res->parent = dst.a;
	return r;
}

int do_step_touch(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct inode in;
	int r;

	r = inode_get(t, &op->ino, &in);
	if (r < 0)
		return r;
	in.a.ctime_ns = MAX(in.a.ctime_ns, op->attr.ctime_ns);
	if (S_ISDIR(in.a.mode) && op->set)
		in.a.up = op->attr.up;
	r = inode_put(t, &in);
	t->res->attr = in.a;
	return r;
}
