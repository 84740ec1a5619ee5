/* SPDX-License-Identifier: Apache-2.0 */
/* File data. A write is one effect WRITE and the inode's new size, times and version in the same record. In a volume striped over several
 * groups data of other groups' stripes goes there with VFS_FOREIGN and its truncate generation, and the owner hears of the size, and of the blocks that
 * were holes before, by VFS_EXTEND.
 *
 * st_blocks is exact while a file has no holes and while those it has are written over; a cut or a punch in a sparse file makes it an upper bound. Of a
 * striped file with holes it may miss what a write that had to begin anew had brought. */
#include <fcntl.h>
#include <linux/falloc.h>

#include "core/vfs/internal.h"

static uint64_t blocks_of(uint64_t size)
{
	return (size + VOL_BLOCK - 1) / VOL_BLOCK * (VOL_BLOCK / 512);
}

static bool striped(const struct tx *t)
{
	return t->v->map->stripe > 1;
}

static int regular_get(struct tx *t, struct inode *in)
{
	int r = inode_get(t, &t->op->ino, in);

	if (r < 0)
		return r;
	if (S_ISDIR(in->a.mode))
		return -EISDIR;
	return S_ISREG(in->a.mode) ? 0 : -EINVAL;
}

/* Blocks of [off, off + len) that hold data here. */
static int data_blocks(struct tx *t, uint64_t off, uint64_t len, uint64_t *ret)
{
	uint32_t crcs[RECORD_PAYLOAD_MAX / VOL_BLOCK + 2];
	uint64_t first = off / VOL_BLOCK, last = (off + len - 1) / VOL_BLOCK;
	int r;

	*ret = 0;
	ensure(len > 0 && len <= RECORD_PAYLOAD_MAX);
	r = hard(t, replica_crcs(t->v->replica, &t->op->ino, off, (uint32_t)len, crcs));
	for (uint64_t i = 0; r == 0 && i <= last - first; i++)
		*ret += crcs[i] != BLOCK_CRC_HOLE;
	return r;
}

/* Size and st_blocks after [off, off + len) was written. */
static int grow(struct tx *t, struct inode *in, uint64_t off, uint64_t len)
{
	uint64_t size = in->a.size, end = off + len, have, touched;
	int r;

	if (off > size && off / VOL_BLOCK > (size + VOL_BLOCK - 1) / VOL_BLOCK)
		in->flags |= INODE_SPARSE;
	in->a.size = MAX(size, end);
	if (!(in->flags & INODE_SPARSE)) {
		in->a.blocks = blocks_of(in->a.size);
		return 0;
	}
	r = data_blocks(t, off, len, &have);
	if (r < 0)
		return r;
	touched = (end - 1) / VOL_BLOCK - off / VOL_BLOCK + 1;
	in->a.blocks = MIN(in->a.blocks + (touched - have) * (VOL_BLOCK / 512), blocks_of(in->a.size));
	return 0;
}

static int check_range(uint64_t off, uint64_t len)
{
	return off > VFS_SIZE_MAX || len > VFS_SIZE_MAX - off ? -EFBIG : 0;
}

int no_room(const struct tx *t, uint64_t len)
{
	const struct vfs *v = t->v;

	if (v->files_free < v->files_reserve || v->bytes_free < v->reserve ||
	    v->bytes_free - v->reserve < len)
		return -ENOSPC;
	return v->bytes_free - v->reserve - len < v->bytes_taken ? -EAGAIN : 0;
}

/* A write by a user takes the set-id bits, anybody's the capabilities, as the kernel does it for a local file. */
static int written(struct tx *t, struct inode *in)
{
	touch(t, in, true);
	if (t->op->uid != 0 && (in->a.mode & (S_ISUID | S_ISGID))) {
		in->a.mode &= ~(uint32_t)S_ISUID;
		if (in->a.mode & S_IXGRP)
			in->a.mode &= ~(uint32_t)S_ISGID;
	}
	return drop_capability(t, in);
}

static int foreign_gen(struct tx *t)
{
	uint32_t gen;
	int r = slice_get(t, &t->op->ino, &gen);

	if (r < 0)
		return r;
	if (t->op->gen < gen)
		return -ESTALE;		       /* truncated meanwhile: the client reads the inode again */
	return t->op->gen > gen ? -EAGAIN : 0; /* the truncate is on its way to us */
}

static int write_foreign(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint64_t len = op->payload->len, have;
	int r = foreign_gen(t);

	if (r == 0)
		r = no_room(t, len);
	if (r == 0)
		r = data_blocks(t, op->off, len, &have);
	if (r < 0)
		return r;
	/* what the owner adds to st_blocks, with EXTEND */
	t->res->attr.blocks =
		((op->off + len - 1) / VOL_BLOCK - op->off / VOL_BLOCK + 1 - have) * (VOL_BLOCK / 512);
	return hard(t, record_write(t->rec, &op->ino, op->gen, op->off, op->payload));
}

/* The owner's part of an append over several groups, and an append that is all the owner's: in one stripe of its own, the end being nobody's. */
static bool may_write(struct tx *t, const struct inode *in, uint64_t off, uint64_t len)
{
	const struct vol_map *m = t->v->map;

	if (t->op->flags & VFS_RESERVED)
		return holds_end(t, in);
	return !(t->op->flags & VFS_APPEND) || !striped(t) || len == 0 ||
	       (!(in->flags & INODE_RESERVED) && off / m->stripe_size == (off + len - 1) / m->stripe_size &&
		vol_group_of_stripe(m, &in->a.ino, off / m->stripe_size) == t->v->replica->group);
}

int do_write(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint64_t len = op->payload ? op->payload->len : 0, off = op->off;
	struct inode in;
	int r;

	if (len > RECORD_PAYLOAD_MAX)
		return -EINVAL;
	if (op->flags & VFS_FOREIGN) {
		r = check_range(off, len);
		return r < 0 || len == 0 ? r : write_foreign(t);
	}
	r = regular_get(t, &in);
	if (r < 0)
		return r;
	if (op->flags & VFS_APPEND)
		off = in.a.size;
	r = check_range(off, len);
	if (r == 0 && !may_write(t, &in, off, len))
		r = -ESTALE;
	if (r == 0)
		r = no_room(t, len);
	if (r == 0 && off + len > in.a.size && (in.flags & INODE_TRIMMING))
		r = -EAGAIN;
	t->res->attr = in.a;
	if (r < 0 || len == 0)
		return r;
	r = grow(t, &in, off, len);
	if (r < 0)
		return r;
	r = written(t, &in);
	if (r == 0)
		r = inode_put(t, &in);
	if (r == 0)
		r = hard(t, record_write(t->rec, &op->ino, in.a.gen, off, op->payload));
	t->res->attr = in.a;
	return r;
}

int write_born(struct tx *t, struct inode *in)
{
	struct payload *p = t->op->payload;
	int r = grow(t, in, 0, p->len);

	if (r == 0)
		r = written(t, in);
	return r < 0 ? r : hard(t, record_write(t->rec, &in->a.ino, in->a.gen, 0, p));
}

int do_extend(struct tx *t)
{
	const struct vfs_op *op = t->op;
	bool append = op->flags & VFS_APPEND, reserved = op->flags & VFS_RESERVED;
	uint8_t store[RESERVATION_LEN];
	struct inode in;
	int r;

	r = regular_get(t, &in);
	if (r < 0)
		return r;
	if (!append && (op->gen != in.a.gen || (reserved && !holds_end(t, &in))))
		return -ESTALE; /* what was written is cut already */
	r = check_range(append ? in.a.size : op->off, op->len);
	if (r == 0 && append)
		r = no_room(t, op->len);
	if (r == 0 && append)
		return reserve_end(t, &in, store);
	if (r == 0 && op->off + op->len > in.a.size && (in.flags & INODE_TRIMMING))
		r = -EAGAIN;
	if (r < 0)
		return r;
	if (reserved)
		drop_reservation(&in);
	if (op->len) {
		if (op->off > in.a.size && op->off / VOL_BLOCK > (in.a.size + VOL_BLOCK - 1) / VOL_BLOCK)
			in.flags |= INODE_SPARSE;
		in.a.size = MAX(in.a.size, op->off + op->len);
		in.a.blocks = in.flags & INODE_SPARSE ? MIN(in.a.blocks + op->set, blocks_of(in.a.size))
						      : blocks_of(in.a.size);
		r = written(t, &in);
	}
	if (r == 0 && (op->len || reserved))
		r = inode_put(t, &in);
	t->res->attr = in.a;
	return r;
}

/* A step: the part of a file in this group is cut at off, or dropped; older writes are refused from now on. */
int do_trim(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint8_t k[KEY_INO];
	uint32_t gen;
	int r;

	r = slice_get(t, &op->ino, &gen);
	if (r < 0)
		return r;
	if (op->flags & VFS_DROP) {
		r = del_key(t, k, key_ino(k, 'I', &op->ino));
		return r < 0 ? r : hard(t, record_drop(t->rec, &op->ino));
	}
	if (op->gen <= gen)
		return 0;
	r = slice_put(t, &op->ino, op->gen);
	return r < 0 ? r : hard(t, record_trim(t->rec, &op->ino, op->gen, op->off));
}

/* Holes in [off, off + len): less blocks, as far as counting them is cheap. */
static int punched(struct tx *t, struct inode *in, uint64_t off, uint64_t len)
{
	uint64_t first = (off + VOL_BLOCK - 1) / VOL_BLOCK, last, end, have;
	int r;

	if (off >= in->a.size || len == 0)
		return 0;
	end = MIN(off + len, in->a.size);
	last = end == in->a.size ? (end + VOL_BLOCK - 1) / VOL_BLOCK : end / VOL_BLOCK;
	if (last <= first)
		return 0;
	if (!(in->flags & INODE_SPARSE)) {
		in->a.blocks -= MIN(in->a.blocks, (last - first) * (VOL_BLOCK / 512));
	} else if ((last - first) * VOL_BLOCK <= RECORD_PAYLOAD_MAX && !striped(t)) {
		r = data_blocks(t, first * VOL_BLOCK, (last - first) * VOL_BLOCK, &have);
		if (r < 0)
			return r;
		in->a.blocks -= MIN(in->a.blocks, have * (VOL_BLOCK / 512));
	}
	in->flags |= INODE_SPARSE;
	return 0;
}

int do_fallocate(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint32_t mode = op->set;
	bool zeros = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	struct inode in;
	int r;

	if (mode & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if ((mode & FALLOC_FL_PUNCH_HOLE) && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (op->len == 0)
		return -EINVAL;
	r = check_range(op->off, op->len);
	if (r < 0)
		return r;
	if (op->flags & VFS_FOREIGN) {
		r = foreign_gen(t);
		return r < 0 || !zeros ? r : hard(t, record_punch(t->rec, &op->ino, op->off, op->len));
	}
	r = regular_get(t, &in);
	if (r == 0 && !(mode & FALLOC_FL_PUNCH_HOLE))
		r = no_room(t, op->off + op->len > in.a.size ? op->off + op->len - in.a.size : 0);
	if (r == 0 && (in.flags & INODE_TRIMMING))
		r = -EAGAIN;
	if (r < 0)
		return r;
	if (zeros) {
		r = punched(t, &in, op->off, op->len);
		if (r < 0)
			return r;
	}
	if (!(mode & FALLOC_FL_KEEP_SIZE) && op->off + op->len > in.a.size) {
		if (blocks_of(op->off + op->len) != blocks_of(in.a.size))
			in.flags |= INODE_SPARSE;
		in.a.size = op->off + op->len;
	}
	r = written(t, &in);
	if (r == 0)
		r = inode_put(t, &in);
	if (r == 0 && zeros)
		r = hard(t, record_punch(t->rec, &op->ino, op->off, op->len));
	t->res->attr = in.a;
	return r;
}

/* The blocks [start, end) into the result; -EIO: the one at crc_off is bad. */
static int take_blocks(struct tx *t, const struct vol_ino *ino, uint64_t start, uint64_t end)
{
	struct vfs_result *res = t->res;
	uint64_t bad = 0;
	int r;

	res->payload = payload_new((uint32_t)(end - start));
	res->n_crcs = (uint32_t)((end - start) / VOL_BLOCK);
	res->crcs = malloc(res->n_crcs * sizeof(uint32_t));
	if (!res->payload || !res->crcs)
		return hard(t, -ENOMEM);
	res->crc_off = start;
	r = replica_crcs(t->v->replica, ino, start, (uint32_t)(end - start), res->crcs);
	if (r == 0)
		r = replica_read(t->v->replica, ino, start, res->payload->data, (uint32_t)(end - start),
				 &bad);
	if (r < 0) {
		res->payload = payload_unref(res->payload);
		res->n_crcs = 0;
		res->crc_off = bad;
	}
	return r;
}

int take_all(struct tx *t, const struct inode *in)
{
	const struct vol_map *m = t->v->map;
	int r;

	if (!S_ISREG(in->a.mode) || in->a.size == 0 || in->a.size > MIN(t->op->len, VFS_LOOKUP_MAX) ||
	    (m->stripe > 1 && vol_group_of_stripe(m, &in->a.ino, 0) != vol_owner(m, &in->a.ino.folder)))
		return 0;
	r = take_blocks(t, &in->a.ino, 0, (in->a.size + VOL_BLOCK - 1) / VOL_BLOCK * VOL_BLOCK);
	if (r < 0) /* READ tells, and has it repaired */
		t->res->crc_off = 0;
	return r == -EIO && !t->hard ? 0 : r;
}

/* Whole blocks, so that the reader can check them end to end; *res->payload ends with the block that holds the last byte. */
int do_read(struct tx *t)
{
	const struct vfs_op *op = t->op;
	struct vfs_result *res = t->res;
	uint64_t len = op->len, start, end;
	struct inode in;
	int r;

	if (!(op->flags & VFS_FOREIGN)) {
		r = regular_get(t, &in);
		if (r < 0)
			return r;
		res->attr = in.a;
		if (op->off >= in.a.size)
			return 0;
		len = MIN(len, in.a.size - op->off);
	} else if (op->off > VFS_SIZE_MAX) {
		return -EINVAL;
	}
	start = op->off / VOL_BLOCK * VOL_BLOCK;
	end = (op->off + MIN(len, RECORD_PAYLOAD_MAX) + VOL_BLOCK - 1) / VOL_BLOCK * VOL_BLOCK;
	if (len == 0)
		return 0;
	if (end - start > RECORD_PAYLOAD_MAX)
		end = start + RECORD_PAYLOAD_MAX;
	return take_blocks(t, &op->ino, start, end);
}

int do_seek(struct tx *t)
{
	const struct vfs_op *op = t->op;
	bool hole = op->set == SEEK_HOLE;
	uint64_t at = op->off;
	struct inode in;
	int r;

	if (op->set != SEEK_HOLE && op->set != SEEK_DATA)
		return -EINVAL;
	r = regular_get(t, &in);
	if (r < 0)
		return r;
	if (op->off >= in.a.size)
		return -ENXIO;
	if (striped(t) ||
	    !(in.flags &
	      INODE_SPARSE)) { /* all of it counts as data: allowed, and true when there are no holes */
		at = hole ? in.a.size : op->off;
	} else {
		r = replica_seek_data(t->v->replica, &op->ino, op->off, hole, &at);
		if (r == -ENXIO && hole) {
			r = 0;
			at = in.a.size;
		}
		if (r < 0)
			return r == -ENXIO ? r : hard(t, r);
		if (at >= in.a.size) {
			if (!hole)
				return -ENXIO;
			at = in.a.size;
		}
	}
	t->res->attr = in.a;
	t->res->attr.size = at;
	return 0;
}
