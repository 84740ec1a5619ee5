/* SPDX-License-Identifier: Apache-2.0 */
/* names_linearizable: what clients were answered about each name of each folder - made, found, listed, moved, removed, and what is there at the end - is
 * explained by one order of the operations on that name. So a retry that is done again, an acknowledged operation that is undone, and an answer that
 * was never true are seen. An operation on two names is judged at each for itself.
 * data_linearizable: the same for each part of each file, in volumes that are not striped (there a read is several questions). */
#include "sim/files.h"
#include "sim/search.h"

static uint64_t hash(const struct vol_ino *ino)
{
	uint64_t h = hash_fnv64(ino->folder.b, 16) ^ (ino->num * 0x9e3779b97f4a7c15u);

	return h == CELL_NONE || h == CELL_SOME ? 1 : h;
}

static bool same_name(const struct fop *f, const struct vol_id *dir, char name)
{
	return vol_id_eq(&f->op.ino.folder, dir) && f->name[0] == name;
}

static bool same_name2(const struct fop *f, const struct vol_id *dir, char name)
{
	return vol_id_eq(&f->op.ino2.folder, dir) && f->name2[0] == name;
}

static void was(struct cell_op *o, uint64_t value)
{
	o->pre = WAS;
	o->was = value;
}

static void set(struct cell_op *o, uint64_t value)
{
	o->sets = true;
	o->to = value;
}

/* A new name. */
static bool making(const struct fop *f, struct cell_op *o)
{
	bool known = f->op.type == VFS_MKDIR || f->op.type == VFS_LINK;
	uint64_t made = known ? hash(&f->op.target) : f->maybe ? CELL_SOME : hash(&f->ino);

	if (f->err == -EEXIST) {
		o->pre = WAS_SOMETHING;
		return true;
	}
	if (f->err < 0)
		return false;
	if (f->flags & VFS_EXISTED) {
		was(o, hash(&f->ino));
		return true;
	}
	was(o, CELL_NONE);
	set(o, made);
	return true;
}

static bool taking(const struct fop *f, struct cell_op *o)
{
	if (f->err == -ENOENT) {
		was(o, CELL_NONE);
		return true;
	}
	o->pre = WAS_SOMETHING;
	if (f->err == 0)
		set(o, CELL_NONE);
	return f->err == 0 || f->err == -EISDIR || f->err == -ENOTDIR || f->err == -ENOTEMPTY;
}

static bool moving(const struct fop *f, bool source, struct cell_op *o)
{
	bool swap = f->op.flags & VFS_EXCHANGE,
	     self = vol_id_eq(&f->op.ino.folder, &f->op.ino2.folder) && f->name[0] == f->name2[0];

	if (f->maybe) {
		if (self)
			return false;
		o->pre = source || swap ? WAS_SOMETHING : WAS_ANYTHING;
		set(o, source && !swap ? CELL_NONE : CELL_SOME);
		return true;
	}
	o->pre = WAS_SOMETHING;
	if (f->err == -EEXIST || f->err == -ENOTEMPTY || f->err == -EISDIR || f->err == -ENOTDIR)
		return true;
	if (f->err < 0)
		return false;
	if (self || f->mode == 0) /* two names of one inode: nothing happened */
		return true;
	if (source) {
		was(o, hash(&f->ino));
		set(o, swap ? CELL_SOME : CELL_NONE);
		return true;
	}
	o->pre = swap ? WAS_SOMETHING : WAS_ANYTHING;
	if (f->op.flags & VFS_NOREPLACE)
		was(o, CELL_NONE);
	set(o, hash(&f->ino));
	return true;
}

static bool listing(const struct fop *f, char name, struct cell_op *o)
{
	const struct vol_ino *there = &f->there[name - 'a'];

	was(o, there->num == UINT64_MAX ? CELL_NONE : hash(there));
	return f->done && f->err == 0;
}

/* What f did to, or saw of, the name; false: nothing. */
static bool project(const struct fop *f, const struct vol_id *dir, char name, bool source, struct cell_op *o)
{
	*o = (struct cell_op){.start = f->start, .end = f->end, .who = (uint32_t)f->number};
	switch (f->op.type) {
	case VFS_CREATE:
	case VFS_MKDIR:
	case VFS_SYMLINK:
	case VFS_LINK:
		return source && same_name(f, dir, name) && making(f, o);
	case VFS_UNLINK:
	case VFS_RMDIR:
		return source && same_name(f, dir, name) && taking(f, o);
	case VFS_RENAME:
		return (source ? same_name(f, dir, name) : same_name2(f, dir, name)) && moving(f, source, o);
	case VFS_LOOKUP:
		if (!source || !same_name(f, dir, name) || !f->done || (f->err < 0 && f->err != -ENOENT))
			return false;
		was(o, f->err == 0 ? hash(&f->ino) : CELL_NONE);
		return true;
	case VFS_READDIR:
		return source && vol_id_eq(&f->op.ino.folder, dir) && listing(f, name, o);
	default:
		return false;
	}
}

static uint64_t name_at_the_end(struct sim *s, const struct vol_id *dir, char name)
{
	uint32_t g = vol_owner(s->files->map, dir);
	uint8_t k[18] = {'E'};
	struct kv view;
	const void *value;
	struct vol_ino ino;
	size_t len;

	memcpy(k + 1, dir->b, 16);
	k[17] = (uint8_t)name;
	replica_view(&s->truth[g].f->r, &view);
	if (view.get(&view, k, sizeof(k), &value, &len) < 0)
		return CELL_NONE;
	memcpy(&ino, (const uint8_t *)value + 4, sizeof(ino));
	return hash(&ino);
}

void check_names(struct sim *s)
{
	struct files *f = s->files;
	struct cell_op *ops;

	if (f->lost)
		return;
	ops = xcalloc(2 * f->n_ops + 1, sizeof(*ops));
	for (uint32_t d = 0; d < f->n_dirs; d++)
		for (char name = 'a'; name < 'a' + FNAMES && !s->failed; name++) {
			uint32_t who = 0;
			size_t n = 0;

			for (size_t i = 0; i < f->n_ops; i++)
				for (int source = 1; source >= 0; source--)
					n += project(&f->op[i], &f->dir[d], name, source, &ops[n]);
			ops[n] = (struct cell_op){.start = s->now + 1, .end = s->now + 2, .who = UINT32_MAX};
			was(&ops[n++], name_at_the_end(s, &f->dir[d], name));
			if (cell_explained(ops, n, CELL_NONE, &who))
				continue;
			violation(
				s, "names_linearizable",
				"folder ..%02x%02x name %c: no order explains %zu answers up to operation %d",
				f->dir[d].b[14], f->dir[d].b[15], name, n, (int)who);
			for (size_t i = 0; i < n; i++)
				trace(s, "  %llu..%lld us: operation %d: was %s %llx%s %llx",
				      (unsigned long long)ops[i].start, (long long)ops[i].end,
				      (int)ops[i].who,
				      ops[i].pre == WAS		    ? ""
				      : ops[i].pre == WAS_SOMETHING ? "something"
								    : "anything",
				      (unsigned long long)ops[i].was, ops[i].sets ? ", becomes" : "",
				      (unsigned long long)ops[i].to);
		}
	free(ops);
}

/* ---- data ---- */

static bool project_data(const struct fop *f, uint8_t cell, struct cell_op *o)
{
	bool inside = cell >= f->cell && cell < f->cell + f->n_cells;

	*o = (struct cell_op){.start = f->start, .end = f->end, .who = (uint32_t)f->number};
	if (f->err < 0 || !(f->done || f->maybe))
		return false;
	switch (f->op.type) {
	case VFS_CREATE: /* with its first bytes */
		set(o, f->value);
		return inside && !(f->flags & VFS_EXISTED);
	case VFS_WRITE:
		set(o, f->value);
		return inside;
	case VFS_LOOKUP: /* and what came along */
	case VFS_READ:
		if (inside && f->done)
			was(o, f->cells[cell - f->cell]);
		return inside && f->done;
	case VFS_SETATTR:
		set(o, CELL_NONE);
		return f->op.attr.size <= (uint64_t)cell * CELL;
	default:
		return false;
	}
}

static uint64_t cell_at_the_end(struct sim *s, const struct vol_ino *ino, uint8_t cell)
{
	uint32_t g = vol_owner(s->files->map, &ino->folder);
	uint64_t value = 0, bad;
	struct vfs_attr a;
	struct vfs v;

	ensure(vfs_init(&v, &s->truth[g].f->r, s->files->map) == 0);
	if (vfs_stat(&v, ino, &a) < 0 || a.size <= (uint64_t)cell * CELL ||
	    replica_read(&s->truth[g].f->r, ino, (uint64_t)cell * CELL, &value, 8, &bad) < 0)
		return CELL_NONE;
	return value;
}

void check_data(struct sim *s)
{
	struct files *f = s->files;
	struct cell_op *ops;

	if (f->lost || s->o.stripe > 1)
		return;
	ops = xcalloc(f->n_ops + 1, sizeof(*ops));
	for (uint32_t d = 0; d < f->n_files; d++)
		for (uint8_t cell = 0; cell < CELLS && !s->failed; cell++) {
			const struct vol_ino *ino = &f->file[d];
			uint32_t g = vol_owner(f->map, &ino->folder), who = 0;
			struct vfs_attr a;
			struct vfs v;
			size_t n = 0;

			for (size_t i = 0; i < f->n_ops; i++)
				if (vol_ino_eq(&f->op[i].op.ino, ino) ||
				    (f->op[i].op.type == VFS_CREATE &&
				     vol_ino_eq(&f->op[i].op.target, ino)) ||
				    (f->op[i].op.type == VFS_LOOKUP && vol_ino_eq(&f->op[i].ino, ino)))
					n += project_data(&f->op[i], cell, &ops[n]);
			ensure(vfs_init(&v, &s->truth[g].f->r, f->map) == 0);
			if (vfs_stat(&v, ino, &a) == 0) { /* else it was reaped */
				ops[n] = (struct cell_op){
					.start = s->now + 1, .end = s->now + 2, .who = UINT32_MAX};
				was(&ops[n++], cell_at_the_end(s, ino, cell));
			}
			if (!cell_explained(ops, n, CELL_NONE, &who))
				violation(s, "data_linearizable",
					  "file ..%02x%02x:%llu cell %u: no order explains %zu answers up to "
					  "operation %d",
					  ino->folder.b[14], ino->folder.b[15], (unsigned long long)ino->num,
					  cell, n, (int)who);
		}
	free(ops);
}
