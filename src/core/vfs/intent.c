/* SPDX-License-Identifier: Apache-2.0 */
/* Intents: operations that need more than one group. The group of op.ino is the coordinator: its record of the intent (T) says what the
 * operation is, how far it got (state), and what its answer will be. The shell of the coordinator's primary sends the step of the state to the
 * step's group until that answers, and puts the answer into a record here, which is the next state or the end.
 *
 * Exactly once: a step has an id of its own - client = the coordinating group, slot = the intent's slot (0..VFS_INTENTS_MAX-1, one living
 * intent each), number = sequence number of the intent's record x 32 + state - so the target keeps its answer under D and a copy that comes
 * late, even after years, does nothing. A state is left only with its step's answer, so every step is executed exactly once.
 *
 * No waiting: a step that finds a name held answers -EAGAIN at once, the intent ends and lets its own names go, the client tries again. So
 * a -> b against b -> a ends in two -EAGAIN or in one that wins, never in a deadlock.
 *
 * States (state 1 is the first; each line: step, where -> on its answer):
 *   MKDIR    1 MAKE_FOLDER, folder's group  -> ok: name visible, nlink + 1. error: name gone
 *   LINK     1 LINK_COUNT + 1, inode's      -> ok: name visible. error: name gone
 *   UNLINK   1 LINK_COUNT - 1, inode's      -> end (the name went with the first record)
 *   RMDIR    1 KILL_FOLDER, folder's        -> ok: name gone, nlink - 1. error: name unlocked
 *   SETATTR  i TRIM, i-th stripe group      -> next group; end: the file may grow again
 *   REAP     i TRIM + DROP, i-th group      -> next group; end: inode gone
 *   RENAME   see rename.c */
#include "core/vfs/internal.h"

#define INTENT_V1   1
#define STEP_CLIENT 0xffffffff00000000ull
#define T_MAX	    (VFS_RESULT_FIX_MAX + 2048)

static uint32_t slot_of(const uint8_t id[16])
{
	return (uint32_t)id[0] << 8 | id[1];
}

static uint64_t seq_of(const uint8_t id[16])
{
	uint64_t seq;

	memcpy(&seq, id + 2, 8);
	return be64toh(seq);
}

uint32_t vfs_intent_group(const uint8_t id[16])
{
	uint32_t group;

	memcpy(&group, id + 10, 4);
	return be32toh(group);
}

/* The lowest free slot; T keys are sorted by it. */
int intent_new(struct tx *t, struct intent *in)
{
	uint32_t slot = 0, group = htobe32(t->v->replica->group);
	uint64_t seq = htobe64(t->seq);
	uint8_t from[17] = {'T'};
	size_t n = 1;
	int r;

	for (; slot < VFS_INTENTS_MAX; slot++) {
		const void *key, *value;
		size_t key_len, len;

		r = kv_seek(t, "T", 1, from, n, true, &key, &key_len, &value, &len);
		if (r < 0 && r != -ENOENT)
			return r;
		if (r == 0 && key_len != 17)
			return hard(t, -EIO);
		if (r == -ENOENT || slot_of((const uint8_t *)key + 1) > slot)
			break;
		memcpy(from, key, n = 17);
	}
	if (slot == VFS_INTENTS_MAX)
		return -EAGAIN;
	memset(in->id, 0, 16);
	in->id[0] = (uint8_t)(slot >> 8);
	in->id[1] = (uint8_t)slot;
	memcpy(in->id + 2, &seq, 8);
	memcpy(in->id + 10, &group, 4);
	in->state = 1;
	return 0;
}

void entry_lock(struct entry *e, const struct intent *in)
{
	e->flags |= ENTRY_LOCKED;
	memcpy(e->intent, in->id, 16);
}

static void pack_entry(struct packer *w, const struct entry *e)
{
	pack(w, e->type, 2);
	pack_ino(w, &e->ino);
}

static void unpack_entry(struct unpacker *r, struct entry *e)
{
	*e = (struct entry){.type = (uint32_t)unpack(r, 2)};
	unpack_ino(r, &e->ino);
}

/* version1 state1 here1 when8 err4 moved26 replaced26, length2 + answer so far, length2 + operation. */
int intent_put(struct tx *t, struct intent *in)
{
	_cleanup_buf_ struct buf op = {.limit = 4096};
	uint8_t k[17], value[T_MAX], answer[VFS_RESULT_FIX_MAX];
	struct packer w = {.p = value, .cap = sizeof(value)}, a = {.p = answer, .cap = sizeof(answer)};
	struct vfs_op bare = in->op;
	int r;

	bare.payload = NULL;
	bare.data = NULL;
	bare.data_len = 0;
	in->when = t->now;
	r = vfs_op_encode(&bare, &op);
	if (r < 0)
		return hard(t, r);
	pack_result(&a, &in->res);
	pack(&w, INTENT_V1, 1);
	pack(&w, in->state, 1);
	pack(&w, in->dst_here, 1);
	pack(&w, (uint64_t)in->when, 8);
	pack(&w, (uint32_t)in->err, 4);
	pack_entry(&w, &in->moved);
	pack_entry(&w, &in->replaced);
	pack(&w, a.n, 2);
	pack_raw(&w, answer, a.n);
	pack(&w, op.len, 2);
	pack_raw(&w, op.data, op.len);
	if (w.over || a.over)
		return hard(t, -EIO);
	return put_key(t, k, key_intent(k, in->id), value, w.n);
}

static int intent_get(struct tx *t, const uint8_t id[16], struct intent *ret)
{
	const void *value;
	const uint8_t *p;
	struct unpacker u;
	uint8_t k[17];
	size_t len, n;
	int r;

	r = kv_get(t, k, key_intent(k, id), &value, &len);
	if (r < 0)
		return r;
	*ret = (struct intent){0};
	memcpy(ret->id, id, 16);
	u = (struct unpacker){.p = value, .n = len};
	if (unpack(&u, 1) != INTENT_V1)
		return hard(t, -EIO);
	ret->state = (uint8_t)unpack(&u, 1);
	ret->dst_here = unpack(&u, 1) == 1;
	ret->when = (int64_t)unpack(&u, 8);
	ret->err = (int32_t)(uint32_t)unpack(&u, 4);
	unpack_entry(&u, &ret->moved);
	unpack_entry(&u, &ret->replaced);
	n = (size_t)unpack(&u, 2);
	p = unpack_raw(&u, n);
	if (!p || vfs_result_decode(p, n, NULL, &ret->res) < 0)
		return hard(t, -EIO);
	n = (size_t)unpack(&u, 2);
	p = unpack_raw(&u, n);
	if (!p || vfs_op_decode(p, n, NULL, &ret->op) < 0)
		return hard(t, -EIO);
	return 0;
}

int intent_begin(struct tx *t, struct intent *in)
{
	int r = intent_put(t, in);

	if (r == 0)
		r = answer_pending(t, in->id);
	t->res->intent = true;
	memcpy(t->res->intent_id, in->id, 16);
	return r;
}

int intent_finish(struct tx *t, struct intent *in, int err)
{
	uint8_t k[17];
	int r;

	*t->res = in->res;
	t->res->err = err;
	r = del_key(t, k, key_intent(k, in->id));
	if (r < 0)
		return r;
	return err == -EAGAIN ? answer_undo(t, &in->op.id) : answer_save(t, &in->op.id, t->res, true);
}

int vfs_intent_iter(struct vfs *v, const uint8_t *after, uint8_t ret[16])
{
	struct tx t = {.v = v};
	const void *key, *value;
	size_t key_len, len;
	uint8_t k[17] = {'T'};
	int r;

	r = kv_seek(&t, "T", 1, k, after ? key_intent(k, after) : 1, after != NULL, &key, &key_len, &value,
		    &len);
	if (r < 0)
		return r;
	if (key_len != 17)
		return -EIO;
	memcpy(ret, (const uint8_t *)key + 1, 16);
	return 0;
}

/* ---- what to do next ---- */

static int step_op(struct vfs *v, const struct intent *in, struct vfs_op *ret)
{
	uint32_t groups[VOL_STRIPE_MAX];

	switch (in->op.type) {
	case VFS_MKDIR:
		*ret = (struct vfs_op){
			.type = VFS_STEP_MAKE_FOLDER, .ino = in->op.target, .attr = in->op.attr};
		ret->attr.up = in->op.ino.folder;
		ret->attr.ctime_ns = in->when;
		return 0;
	case VFS_LINK:
		*ret = (struct vfs_op){.type = VFS_STEP_LINK_COUNT, .ino = in->op.target, .set = 1};
		return 0;
	case VFS_UNLINK:
		*ret = (struct vfs_op){.type = VFS_STEP_LINK_COUNT, .ino = in->moved.ino, .set = 2};
		return 0;
	case VFS_RMDIR:
		*ret = (struct vfs_op){.type = VFS_STEP_KILL_FOLDER, .ino = in->moved.ino};
		return 0;
	case VFS_RENAME:
		return rename_step(v, in, ret);
	case VFS_SETATTR:
	case VFS_REAP:
		if (in->state >= stripe_groups(v, &in->op.ino, groups))
			return -EIO;
		*ret = (struct vfs_op){.type = VFS_TRIM,
				       .ino = in->op.ino,
				       .off = in->op.attr.size,
				       .gen = in->res.attr.gen,
				       .len = groups[in->state]};
		if (in->op.type == VFS_REAP)
			ret->flags = VFS_DROP;
		return 0;
	default:
		return -EIO;
	}
}

int vfs_intent_next(struct vfs *v, const uint8_t id[16], uint32_t *ret_group, struct vfs_op *ret_op,
		    struct buf *store, bool *ret_local)
{
	struct tx t = {.v = v};
	struct intent in;
	struct vfs_op op;
	int r;

	*ret_local = false;
	r = intent_get(&t, id, &in);
	if (r == 0)
		r = step_op(v, &in, &op);
	if (r < 0)
		return r;
	op.id = (struct vfs_opid){.client = STEP_CLIENT | v->replica->group,
				  .slot = slot_of(id),
				  .number = seq_of(id) * 32 + in.state};
	op.pid = in.state;
	store->len = 0;
	r = vfs_op_encode(&op, store);
	if (r == 0)
		r = vfs_op_decode(store->data, store->len, NULL, ret_op);
	if (r == 0)
		*ret_group = vfs_group(v->map, ret_op);
	return r;
}

/* ---- what an answer leads to ---- */

/* A name that was reserved becomes visible, or goes. */
static int reserved_done(struct tx *t, struct intent *in, const struct vfs_result *step,
			 const struct vol_ino *ino)
{
	const struct vfs_op *op = &in->op;
	struct inode folder;
	struct entry e;
	int r;

	if (step->err < 0) {
		r = entry_del(t, &op->ino.folder, op->name, op->name_len);
		return r < 0 ? r : intent_finish(t, in, step->err);
	}
	r = hard(t, folder_get(t, &op->ino, &folder)); /* not empty, so it is there */
	if (r < 0)
		return r;
	e = (struct entry){.ino = *ino, .type = step->attr.mode & S_IFMT};
	folder.a.nlink += op->type == VFS_MKDIR;
	touch(t, &folder, true);
	r = entry_put(t, &op->ino.folder, op->name, op->name_len, &e);
	if (r == 0)
		r = inode_put(t, &folder);
	in->res.attr = step->attr;
	in->res.parent = folder.a;
	return r < 0 ? r : intent_finish(t, in, 0);
}

static int rmdir_done(struct tx *t, struct intent *in, const struct vfs_result *step)
{
	const struct vfs_op *op = &in->op;
	struct entry e = in->moved;
	struct inode folder;
	int r;

	if (step->err < 0) {
		e.flags = 0;
		r = entry_put(t, &op->ino.folder, op->name, op->name_len, &e);
		return r < 0 ? r : intent_finish(t, in, step->err);
	}
	r = hard(t, folder_get(t, &op->ino, &folder));
	if (r < 0)
		return r;
	folder.a.nlink--;
	touch(t, &folder, true);
	r = entry_del(t, &op->ino.folder, op->name, op->name_len);
	if (r == 0)
		r = inode_put(t, &folder);
	in->res.gone = step->attr;
	in->res.parent = folder.a;
	return r < 0 ? r : intent_finish(t, in, 0);
}

static int trim_done(struct tx *t, struct intent *in, bool *ret_finished)
{
	unsigned room = RECORD_EFFECTS_MAX - 4;
	uint32_t groups[VOL_STRIPE_MAX];
	struct inode inode;
	int r;

	if (in->state + 1u < stripe_groups(t->v, &in->op.ino, groups)) {
		in->state++;
		return intent_put(t, in);
	}
	*ret_finished = true;
	if (in->op.type == VFS_REAP) {
		r = reap_local(t, &in->op.ino, &room);
		if (t->hard < 0)
			return t->hard;
		if (r == -E2BIG)
			in->res.flags |= VFS_MORE;
		return intent_finish(t, in, 0);
	}
	r = inode_get(t, &in->op.ino, &inode);
	if (r == -ENOENT)
		return intent_finish(t, in, 0);
	if (r < 0)
		return r;
	inode.flags &= (uint8_t)~INODE_TRIMMING;
	r = inode_put(t, &inode);
	in->res.attr = inode.a;
	return r < 0 ? r : intent_finish(t, in, 0);
}

static int stepped(struct tx *t, struct intent *in, const struct vfs_result *step, bool *ret_finished)
{
	*ret_finished = true;
	switch (in->op.type) {
	case VFS_MKDIR:
		return reserved_done(t, in, step, &in->op.target);
	case VFS_LINK:
		return reserved_done(t, in, step, &in->op.target);
	case VFS_UNLINK:
		in->res.gone = step->attr;
		return intent_finish(t, in, 0);
	case VFS_RMDIR:
		return rmdir_done(t, in, step);
	case VFS_RENAME:
		return rename_stepped(t, in, step, ret_finished);
	default:
		*ret_finished = false;
		return trim_done(t, in, ret_finished);
	}
}

int vfs_intent_done(struct vfs *v, const uint8_t id[16], const struct vfs_result *step, int64_t now_ns,
		    struct record *rec, struct vfs_result *res, bool *ret_finished)
{
	struct tx t = {.v = v, .now = now_ns, .rec = rec, .res = res, .seq = v->replica->seq + 1};
	struct intent in;
	int r;

	*res = (struct vfs_result){0};
	*ret_finished = false;
	r = intent_get(&t, id, &in);
	if (r < 0)
		return r;
	if (!step)
		return -EINVAL;
	if (step->flags >> 24 != in.state)
		return -EALREADY; /* another driver was faster */
	t.op = &in.op;
	r = stepped(&t, &in, step, ret_finished);
	return t.hard < 0 ? t.hard : r;
}

int do_step_ask(struct tx *t)
{
	struct intent in;
	uint8_t id[16];
	int r;

	memcpy(id, t->op->target.folder.b, 16);
	r = intent_get(t, id, &in);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	t->res->intent = true;
	memcpy(t->res->intent_id, id, 16);
	return 0;
}
