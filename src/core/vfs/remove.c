/* SPDX-License-Identifier: Apache-2.0 */
/* What takes a name away. An inode without names stays under O: somebody may have it open, which only the clients know. The shell asks
 * them and then sends VFS_REAP, which takes up to a record's room of them at once. A removed folder stays likewise, dead (no links): nothing can
 * be made in it any more. */
#include "core/vfs/internal.h"

#define REAP_ROOM (RECORD_EFFECTS_MAX - 4)

int do_unlink(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct intent intent = {.op = *op};
	struct inode folder, in;
	struct entry e;
	bool local;
	int r;

	r = folder_get(t, &op->ino, &folder);
	if (r == 0)
		r = name_check(op->name, op->name_len);
	if (r == 0)
		r = entry_claim(t, &op->ino.folder, op->name, op->name_len, &e);
	if (r < 0)
		return r;
	if ((op->flags & VFS_KNOWN) && !vol_ino_eq(&e.ino, &op->target))
		return -ESTALE;
	if (e.type == S_IFDIR)
		return -EISDIR;
	r = delegation_time(t, &op->ino.folder);
	if (r < 0)
		return r;
	local = is_local(t, &e.ino);
	if (local)
		r = hard(t, inode_get(t, &e.ino, &in)); /* an entry without its inode: damage */
	else
		r = intent_new(t, &intent);
	if (r < 0)
		return r;
	touch(t, &folder, true);
	r = entry_del(t, &op->ino.folder, op->name, op->name_len);
	if (r == 0)
		r = inode_put(t, &folder);
	if (r < 0)
		return r;
	t->res->parent = folder.a;
	if (local) {
		r = inode_unlink(t, &in);
		t->res->gone = in.a;
		return r;
	}
	intent.moved = e;
	intent.res.parent = folder.a;
	return intent_begin(t, &intent);
}

/* Empty, and from now on dead: nobody's alone any more either. */
static int kill_folder(struct tx *t, struct inode *in)
{
	int r = folder_empty(t, &in->a.ino.folder);

	if (r < 0)
		return r;
	in->a.nlink = 0;
	touch(t, in, true);
	r = delegation_drop(t, &in->a.ino.folder);
	if (r == 0)
		r = inode_put(t, in);
	return r < 0 ? r : orphan_put(t, &in->a.ino);
}

int do_step_kill_folder(struct tx *t)
{
	struct inode in;
	int r = folder_get(t, &t->op->ino, &in);

	if (r == 0)
		r = kill_folder(t, &in);
	if (r == 0)
		t->res->attr = in.a;
	return r;
}

int do_rmdir(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct intent intent = {.op = *op};
	struct inode folder, in;
	struct entry e;
	int r;

	r = folder_get(t, &op->ino, &folder);
	if (r < 0)
		return r;
	if (op->name_len == 1 && op->name[0] == '.')
		return -EINVAL;
	if (op->name_len == 2 && memcmp(op->name, "..", 2) == 0)
		return -ENOTEMPTY;
	r = name_check(op->name, op->name_len);
	if (r == 0)
		r = entry_claim(t, &op->ino.folder, op->name, op->name_len, &e);
	if (r < 0)
		return r;
	if (e.type != S_IFDIR)
		return -ENOTDIR;
	if (is_local(t, &e.ino)) {
		r = folder_get(t, &e.ino, &in);
		if (r < 0)
			return hard(t, r);
		r = kill_folder(t, &in);
		if (r < 0)
			return r;
		folder.a.nlink--;
		touch(t, &folder, true);
		r = entry_del(t, &op->ino.folder, op->name, op->name_len);
		if (r == 0)
			r = inode_put(t, &folder);
		t->res->gone = in.a;
		t->res->parent = folder.a;
		return r;
	}
	r = intent_new(t, &intent);
	if (r < 0)
		return r;
	intent.moved = e;
	entry_lock(&e, &intent);
	r = entry_put(t, &op->ino.folder, op->name, op->name_len, &e);
	return r < 0 ? r : intent_begin(t, &intent);
}

/* Deletes keys that begin with prefix while there is room. */
static int drop_prefix(struct tx *t, const uint8_t *prefix, size_t n, unsigned *room)
{
	uint8_t from[KEY_MAX];
	size_t from_len = n;

	memcpy(from, prefix, n);
	for (;;) {
		const void *key, *value;
		size_t key_len, len;
		int r = kv_seek(t, prefix, n, from, from_len, true, &key, &key_len, &value, &len);

		if (r < 0)
			return r == -ENOENT ? 0 : r;
		if (*room == 0)
			return -E2BIG;
		if (key_len > sizeof(from))
			return hard(t, -EIO);
		memcpy(from, key, key_len);
		from_len = key_len;
		r = del_key(t, from, from_len);
		if (r < 0)
			return r;
		(*room)--;
	}
}

/* 0 = gone with this record; -E2BIG = some of it is, the rest needs another one; -EAGAIN = not an orphan. */
int reap_local(struct tx *t, const struct vol_ino *ino, unsigned *room)
{
	unsigned need = ino->num == 0 ? 4 : 3;
	uint8_t k[KEY_MAX];
	struct inode in;
	int r;

	r = inode_get(t, ino, &in);
	if (r < 0)
		return r;
	if (in.a.nlink > 0)
		return -EBUSY;
	if (in.xattrs) {
		r = drop_prefix(t, k, key_ino(k, 'X', ino), room);
		if (r < 0)
			return r;
	}
	r = drop_prefix(t, k, key_ino(k, 'L', ino), room);
	if (r < 0)
		return r;
	if (*room < need)
		return -E2BIG;
	*room -= need;
	r = ino->num == 0 ? delegation_drop(t, &ino->folder) : 0;
	if (r == 0)
		r = del_key(t, k, key_ino(k, 'I', ino));
	if (r == 0)
		r = del_key(t, k, key_ino(k, 'O', ino));
	if (r == 0 && S_ISREG(in.a.mode))
		r = hard(t, record_drop(t->rec, ino));
	return r;
}

static bool has_foreign(struct tx *t, const struct inode *in)
{
	const struct vol_map *m = t->v->map;
	uint32_t groups[VOL_STRIPE_MAX];

	return S_ISREG(in->a.mode) && m->stripe > 1 && (in->a.gen > 0 || in->a.size > m->stripe_size) &&
	       stripe_groups(t->v, &in->a.ino, groups) > 1;
}

/* One whose data lies in other groups too: they drop it first. */
static int reap_striped(struct tx *t, const struct inode *in)
{
	struct intent intent = {.op = *t->op};
	uint32_t none = 0;
	int r;

	if (in->flags & INODE_TRIMMING)
		return -EAGAIN;
	intent.op.data = NULL;
	intent.op.data_len = none;
	intent.op.name_len = 0;
	r = intent_new(t, &intent);
	if (r == 0) {
		struct inode held = *in;

		held.flags |= INODE_TRIMMING; /* one at a time */
		r = inode_put(t, &held);
	}
	return r < 0 ? r : intent_begin(t, &intent);
}

int do_reap(struct tx *t)
{
	const struct vfs_op *op = t->op;
	unsigned room = REAP_ROOM;
	struct unpacker u = {.p = op->data, .n = op->data_len};
	struct vol_ino ino = op->ino;
	struct inode in;
	int r;

	if (op->data_len % 24)
		return -EINVAL;
	r = inode_get(t, &ino, &in);
	if (r < 0)
		return r;
	if (in.a.nlink > 0)
		return -EBUSY;
	if (has_foreign(t, &in))
		return reap_striped(t, &in);
	for (;;) {
		r = reap_local(t, &ino, &room);
		if (t->hard < 0)
			return t->hard;
		if (r == -E2BIG) {
			t->res->flags |= VFS_MORE;
			return 0;
		}
		do { /* the next one that is an orphan of this group alone */
			if (u.at >= u.n)
				return 0;
			unpack_ino(&u, &ino);
			r = inode_get(t, &ino, &in);
			if (t->hard < 0)
				return t->hard;
		} while (r < 0 || in.a.nlink > 0 || has_foreign(t, &in));
	}
}
