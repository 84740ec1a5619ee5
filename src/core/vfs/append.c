/* SPDX-License-Identifier: Apache-2.0 */
/* Appending to a file that is striped over several groups. Nobody may see a size whose bytes are not there, and two who append must not get the same place;
 * so the owner reserves the end of the file for one slot at a time, the slot writes the parts, and EXTEND with VFS_RESERVED makes them visible and
 * ends the reservation:
 *
 *   EXTEND, VFS_APPEND -> place   WRITE foreign ... WRITE, VFS_RESERVED ...   EXTEND, VFS_RESERVED
 *
 * A reservation that is in the way for VFS_APPEND_MS, or is of an older operation of the same slot, is given up as by a truncate to the size that the file has:
 * the new generation keeps what is still on its way away from all groups, and what came is cut. Its slot gets -ESTALE and begins anew, and so it does
 * behind a truncate. So how long a reservation counts is a matter of speed only.
 *
 * Asking again is harmless: as the slot has not written before it has the answer, its place may be any. Therefore no answer is kept: one that is
 * repeated later would name a place that meanwhile is another's.
 *
 * The reservation is the inode's tail: client8 slot4 number8 off8 since8 (ns). */
#include "core/vfs/internal.h"

struct reservation {
	struct vfs_opid id;
	uint64_t off;
	int64_t since;
};

static bool reservation_get(const struct inode *in, struct reservation *ret)
{
	struct unpacker u = {.p = in->tail, .n = in->tail_len};

	if (!(in->flags & INODE_RESERVED))
		return false;
	ret->id.client = unpack(&u, 8);
	ret->id.slot = (uint32_t)unpack(&u, 4);
	ret->id.number = unpack(&u, 8);
	ret->off = unpack(&u, 8);
	ret->since = (int64_t)unpack(&u, 8);
	return !u.bad;
}

static bool same_slot(const struct vfs_opid *a, const struct vfs_opid *b)
{
	return a->client == b->client && a->slot == b->slot;
}

bool holds_end(const struct tx *t, const struct inode *in)
{
	const struct vfs_op *op = t->op;
	struct reservation r;

	return op->gen == in->a.gen && reservation_get(in, &r) && same_slot(&r.id, &op->id) &&
	       (op->type == VFS_WRITE ? op->off >= r.off : op->off == r.off);
}

void drop_reservation(struct inode *in)
{
	if (in->flags & INODE_RESERVED)
		in->tail_len = 0;
	in->flags &= (uint8_t)~INODE_RESERVED;
}

/* A truncate to the size that it has; its answer has no VFS_APPEND. */
static int give_up(struct tx *t, struct inode *in)
{
	struct intent intent = {.op = {.type = VFS_SETATTR,
				       .id = t->op->id,
				       .ino = t->op->ino,
				       .set = VFS_SET_SIZE,
				       .attr.size = in->a.size}};
	uint32_t groups[VOL_STRIPE_MAX];
	bool foreign = stripe_groups(t->v, &in->a.ino, groups) > 1;
	int r = foreign ? intent_new(t, &intent) : 0;

	if (r < 0)
		return r;
	drop_reservation(in);
	in->a.gen++;
	in->flags |= foreign ? INODE_TRIMMING : 0;
	r = inode_put(t, in);
	if (r == 0)
		r = hard(t, record_trim(t->rec, &in->a.ino, in->a.gen, in->a.size));
	t->res->attr = intent.res.attr = in->a;
	return r < 0 || !foreign ? r : intent_begin(t, &intent);
}

int reserve_end(struct tx *t, struct inode *in, uint8_t store[RESERVATION_LEN])
{
	const struct vfs_opid *id = &t->op->id;
	struct packer w = {.p = store, .cap = RESERVATION_LEN};
	struct reservation old;
	int r;

	if (in->flags & INODE_TRIMMING)
		return -EAGAIN;
	if (reservation_get(in, &old) && !(same_slot(&old.id, id) && old.id.number == id->number)) {
		bool fresh = t->now >= old.since && t->now - old.since < VFS_APPEND_MS * 1000000ll;

		if (same_slot(&old.id, id) && id->number < old.id.number)
			return -ESTALE; /* a copy that came late */
		return fresh && !same_slot(&old.id, id) ? -EAGAIN : give_up(t, in);
	}
	pack(&w, id->client, 8);
	pack(&w, id->slot, 4);
	pack(&w, id->number, 8);
	pack(&w, in->a.size, 8);
	pack(&w, (uint64_t)t->now, 8);
	in->flags |= INODE_RESERVED;
	in->tail = store;
	in->tail_len = (uint32_t)w.n;
	r = inode_put(t, in);
	t->res->attr = in->a;
	t->res->flags |= VFS_APPEND;
	return r;
}
