/* SPDX-License-Identifier: Apache-2.0 */
/* Dispatch, and exactly-once. A changing operation with an id leaves its answer under D client slot; the next operation of the slot replaces it.
 * So a retry hears the first answer, and an operation of the slot that is older than the newest one does nothing (-ESTALE): it can only be a
 * late copy. -EAGAIN is not an answer and is not kept, except a lock's, and a step's (its driver takes it as final). An operation that became
 * an intent leaves a pointer to it under D until the intent answers. */
#include <fcntl.h>

#include "core/vfs/internal.h"

#define ANSWER_V1     1
#define ANSWER_RESULT 0
#define ANSWER_INTENT 1
#define SWEEP_MAX     40 /* answers dropped by one record */
#define SWEEP_LOOK    1000

static const struct {
	int (*run)(struct tx *t);
	bool changes;
} ops[] = {
	[VFS_LOOKUP] = {do_lookup, false},
	[VFS_GETATTR] = {do_getattr, false},
	[VFS_SETATTR] = {do_setattr, true},
	[VFS_CREATE] = {do_create, true},
	[VFS_MKDIR] = {do_mkdir, true},
	[VFS_SYMLINK] = {do_symlink, true},
	[VFS_READLINK] = {do_readlink, false},
	[VFS_UNLINK] = {do_unlink, true},
	[VFS_RMDIR] = {do_rmdir, true},
	[VFS_RENAME] = {do_rename, true},
	[VFS_LINK] = {do_link, true},
	[VFS_READDIR] = {do_readdir, false},
	[VFS_READ] = {do_read, false},
	[VFS_WRITE] = {do_write, true},
	[VFS_EXTEND] = {do_extend, true},
	[VFS_TRIM] = {do_trim, true},
	[VFS_FALLOCATE] = {do_fallocate, true},
	[VFS_FSYNC] = {do_getattr, false},
	[VFS_GETXATTR] = {do_getxattr, false},
	[VFS_LISTXATTR] = {do_listxattr, false},
	[VFS_SETXATTR] = {do_setxattr, true},
	[VFS_REMOVEXATTR] = {do_removexattr, true},
	[VFS_LOCK] = {do_lock, true},
	[VFS_GETLOCK] = {do_getlock, false},
	[VFS_UNLOCK_ALL] = {do_unlock_all, true},
	[VFS_STATFS] = {do_statfs, false},
	[VFS_SEEK] = {do_seek, false},
	[VFS_REAP] = {do_reap, true},
	[VFS_WHERE] = {do_where, false},
	[VFS_SWEEP] = {do_sweep, true},
	[VFS_DELEGATE] = {do_delegate, true},
	[VFS_UNDELEGATE] = {do_undelegate, true},
	[VFS_SETATTRS] = {do_setattrs, true},
	[VFS_STEP_MAKE_FOLDER] = {do_step_make_folder, true},
	[VFS_STEP_KILL_FOLDER] = {do_step_kill_folder, true},
	[VFS_STEP_LINK_COUNT] = {do_step_link_count, true},
	[VFS_STEP_PREPARE] = {do_step_prepare, true},
	[VFS_STEP_FINISH] = {do_step_finish, true},
	[VFS_STEP_TOUCH] = {do_step_touch, true},
	[VFS_STEP_ASK] = {do_step_ask, false},
};

static bool is_step(enum vfs_op_type t)
{
	return t >= VFS_STEP_MAKE_FOLDER || t == VFS_TRIM;
}

bool vfs_changes(enum vfs_op_type t)
{
	return (size_t)t < ARRAY_SIZE(ops) && ops[t].changes;
}

uint32_t vfs_group(const struct vol_map *m, const struct vfs_op *op)
{
	bool data = op->type == VFS_READ || op->type == VFS_WRITE || op->type == VFS_FALLOCATE;

	if (op->type == VFS_TRIM)
		return (uint32_t)op->len;
	if (op->type == VFS_STEP_ASK)
		return vfs_intent_group(op->target.folder.b);
	if (op->type == VFS_WHERE && (op->flags & VFS_FOREIGN)) /* off: number of a stripe */
		return vol_group_of_stripe(m, &op->ino, op->off);
	if (m->stripe > 1 && ((data && (op->flags & VFS_FOREIGN)) || op->type == VFS_READ))
		return vol_group_of_stripe(m, &op->ino, op->off / m->stripe_size);
	return vol_owner(m, &op->ino.folder);
}

int vfs_init(struct vfs *v, struct replica *r, const struct vol_map *map)
{
	*v = (struct vfs){.replica = r, .map = map};
	replica_view(r, &v->view);
	return 0;
}

int vfs_stat(struct vfs *v, const struct vol_ino *ino, struct vfs_attr *ret)
{
	struct tx t = {.v = v};
	struct inode in;
	int r = inode_get(&t, ino, &in);

	if (r == 0)
		*ret = in.a;
	return r;
}

int vfs_orphan_iter(struct vfs *v, const struct vol_ino *after, struct vol_ino *ret, int64_t *ret_since_ns)
{
	struct tx t = {.v = v};
	const void *key, *value;
	size_t key_len, len;
	uint8_t k[KEY_INO] = {'O'};
	struct unpacker u;
	int r;

	r = kv_seek(&t, "O", 1, k, after ? key_ino(k, 'O', after) : 1, after != NULL, &key, &key_len, &value,
		    &len);
	if (r < 0)
		return r;
	if (key_len != KEY_INO)
		return -EIO;
	u = (struct unpacker){.p = value, .n = len};
	memcpy(ret->folder.b, (const uint8_t *)key + 1, 16);
	memcpy(&ret->num, (const uint8_t *)key + 17, 8);
	ret->num = be64toh(ret->num);
	*ret_since_ns = (int64_t)unpack(&u, 8);
	return 0;
}

/* ---- exactly once ---- */

static int answer_get(struct tx *t, const struct vfs_opid *id, uint64_t *ret_number, struct unpacker *ret)
{
	const void *value;
	uint8_t k[16];
	size_t len;
	int r;

	r = kv_get(t, k, key_answer(k, id->client, id->slot), &value, &len);
	if (r < 0)
		return r;
	*ret = (struct unpacker){.p = value, .n = len};
	if (unpack(ret, 1) != ANSWER_V1)
		return hard(t, -EIO);
	*ret_number = unpack(ret, 8);
	unpack(ret, 8); /* time, for the sweep */
	return ret->bad ? hard(t, -EIO) : 0;
}

static void refresh(struct tx *t, struct vfs_attr *a)
{
	struct inode in;

	if (a->mode && inode_get(t, &a->ino, &in) == 0)
		*a = in.a;
}

bool answer_find(struct tx *t)
{
	struct vfs_result *res = t->res;
	const uint8_t *id;
	struct unpacker u;
	uint64_t number;
	int r;

	r = answer_get(t, &t->op->id, &number, &u);
	if (r < 0)
		return r != -ENOENT; /* hard */
	if (number < t->op->id.number)
		return false;
	if (number > t->op->id.number) {
		res->err = -ESTALE;
		return true;
	}
	if (unpack(&u, 1) == ANSWER_INTENT) {
		id = unpack_raw(&u, 16);
		if (!id) {
			hard(t, -EIO);
			return true;
		}
		res->intent = true;
		memcpy(res->intent_id, id, 16);
		return true;
	}
	if (u.bad || vfs_result_decode(u.p + u.at, u.n - u.at, NULL, res) < 0) {
		hard(t, -EIO);
		return true;
	}
	/* Of now, where the inode is here: what the client keeps under a lease must not be older than the lease. */
	refresh(t, &res->attr);
	refresh(t, &res->parent);
	return true;
}

static void answer_head(struct tx *t, struct packer *w, uint64_t number, uint8_t kind)
{
	pack(w, ANSWER_V1, 1);
	pack(w, number, 8);
	pack(w, (uint64_t)t->now, 8);
	pack(w, kind, 1);
}

int answer_pending(struct tx *t, const uint8_t id[16])
{
	uint8_t k[16], value[64];
	struct packer w = {.p = value, .cap = sizeof(value)};

	if (t->op->id.number == 0)
		return 0;
	answer_head(t, &w, t->op->id.number, ANSWER_INTENT);
	pack_raw(&w, id, 16);
	return put_key(t, k, key_answer(k, t->op->id.client, t->op->id.slot), value, w.n);
}

int answer_save(struct tx *t, const struct vfs_opid *id, const struct vfs_result *res, bool only_newest)
{
	uint8_t k[16], value[VFS_RESULT_FIX_MAX + 32];
	struct packer w = {.p = value, .cap = sizeof(value)};
	struct unpacker u;
	uint64_t number;
	int r;

	if (id->number == 0)
		return 0;
	if (only_newest) { /* the client may have given up and gone on */
		r = answer_get(t, id, &number, &u);
		if (r < 0 && r != -ENOENT)
			return r;
		if (r == 0 && number != id->number)
			return 0;
	}
	answer_head(t, &w, id->number, ANSWER_RESULT);
	pack_result(&w, res);
	if (w.over)
		return hard(t, -EIO);
	return put_key(t, k, key_answer(k, id->client, id->slot), value, w.n);
}

/* An intent that came to nothing: the number goes one back, so that a retry is worked out and older copies are still known as such. */
int answer_undo(struct tx *t, const struct vfs_opid *id)
{
	struct vfs_opid before = *id;
	struct vfs_result none = {.err = -ESTALE};
	struct unpacker u;
	uint64_t number;
	int r;

	if (id->number == 0)
		return 0;
	r = answer_get(t, id, &number, &u);
	if (r < 0 || number != id->number)
		return r == -ENOENT ? 0 : r;
	before.number--;
	if (before.number == 0) {
		uint8_t k[16];

		return del_key(t, k, key_answer(k, id->client, id->slot));
	}
	return answer_save(t, &before, &none, false);
}

/* Answers of clients that are long gone. Steps' answers stay: they are few, and a late copy of a step may be any age. */
int do_sweep(struct tx *t)
{
	uint8_t from[KEY_MAX] = {'D'};
	size_t n = 1;
	const void *key, *value;
	size_t key_len, len;
	unsigned dropped = 0;
	int r = 0;

	if (t->op->name_len > 13)
		return -EINVAL;
	if (t->op->name_len) {
		memcpy(from, t->op->name, t->op->name_len);
		n = t->op->name_len;
	}
	for (unsigned i = 0; i < SWEEP_LOOK && dropped < SWEEP_MAX; i++) {
		struct unpacker u;

		r = kv_seek(t, "D", 1, from, n, true, &key, &key_len, &value, &len);
		if (r < 0)
			break;
		u = (struct unpacker){.p = value, .n = len, .at = 9};
		if (key_len != 13 || len < 18)
			return hard(t, -EIO);
		memcpy(from, key, key_len);
		n = key_len;
		if (memcmp(from + 1, "\xff\xff\xff\xff", 4) == 0 ||
		    t->now - (int64_t)unpack(&u, 8) < VFS_ANSWER_MS * 1000000ll ||
		    unpack(&u, 1) != ANSWER_RESULT)
			continue;
		if (del_key(t, from, n) < 0)
			return t->hard;
		dropped++;
	}
	if (r == -ENOENT)
		return 0;
	t->res->flags |= VFS_MORE;
	return r < 0 ? r : hard(t, buf_add(&t->res->data, from, n));
}

int vfs_exec(struct vfs *v, const struct vfs_op *op, int64_t now_ns, struct record *rec,
	     struct vfs_result *res)
{
	struct tx t = {.v = v, .op = op, .now = now_ns, .rec = rec, .res = res, .seq = v->replica->seq + 1};
	bool changes = vfs_changes(op->type), keep,
	     reserves = op->type == VFS_EXTEND && op->flags & VFS_APPEND;
	int r;

	*res = (struct vfs_result){0};
	if ((size_t)op->type >= ARRAY_SIZE(ops) || !ops[op->type].run) {
		res->err = -EOPNOTSUPP;
		return 0;
	}
	if (changes && op->id.number && !reserves &&
	    answer_find(&t)) /* reserving again is harmless, an old answer is not */
		return t.hard;
	r = ops[op->type].run(&t);
	if (t.hard < 0)
		return t.hard;
	res->err = r;
	t.now = now_ns; /* the answer's, whatever time the operation brought along */
	if (is_step(op->type))
		res->flags |= op->pid << 24; /* which state of the intent it answers */
	ensure(r == 0 || !rec || rec->n == 0);
	keep = (r != -EAGAIN && !reserves) || op->type == VFS_LOCK || is_step(op->type);
	if (changes && keep && !res->intent)
		r = answer_save(&t, &op->id, res, false);
	return t.hard;
}
