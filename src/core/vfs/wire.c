/* SPDX-License-Identifier: Apache-2.0 */
/* The wire form of operations, results and folder listings; results are kept in the same form under D, operations in intents. An operation is
 * a type, a mask of the fields that follow, and the fields in the mask's order: docs/protocol/volume.md. Decoders take bytes from anybody: they
 * bound every length, know every mask bit and want the input used up to its last byte. */
#include "core/vfs/internal.h"

enum {
	OP_ID = 1,
	OP_INO = 2,
	OP_INO2 = 4,
	OP_TARGET = 8,
	OP_NAME = 16,
	OP_NAME2 = 32,
	OP_FLAGS = 64,
	OP_SET = 128,
	OP_GEN = 256,
	OP_OFF = 512,
	OP_LEN = 1024,
	OP_ATTR = 2048,
	OP_LOCK = 4096,
	OP_CALLER = 8192,
	OP_DATA = 16384,
	OP_ALL = 32767
};
enum {
	RES_ATTR = 1,
	RES_PARENT = 2,
	RES_GONE = 4,
	RES_LOCK = 8,
	RES_INTENT = 16,
	RES_INTENT_ID = 32,
	RES_DATA = 64,
	RES_CRCS = 128,
	RES_ALL = 255
};
#define RESULT_CRCS_MAX (RECORD_PAYLOAD_MAX / VOL_BLOCK + 2)
#define RESULT_DATA_MAX (2u << 20)

void pack(struct packer *w, uint64_t v, unsigned bytes)
{
	if (w->cap - w->n < bytes) {
		w->over = true;
		return;
	}
	v = htole64(v);
	memcpy(w->p + w->n, &v, bytes);
	w->n += bytes;
}

void pack_raw(struct packer *w, const void *data, size_t len)
{
	if (w->cap - w->n < len) {
		w->over = true;
		return;
	}
	if (len)
		memcpy(w->p + w->n, data, len);
	w->n += len;
}

const uint8_t *unpack_raw(struct unpacker *r, size_t len)
{
	const uint8_t *p = r->p + r->at;

	if (r->bad || r->n - r->at < len) {
		r->bad = true;
		return NULL;
	}
	r->at += len;
	return p;
}

uint64_t unpack(struct unpacker *r, unsigned bytes)
{
	const uint8_t *p = unpack_raw(r, bytes);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, bytes);
	return le64toh(v);
}

void pack_ino(struct packer *w, const struct vol_ino *ino)
{
	pack_raw(w, ino->folder.b, 16);
	pack(w, ino->num, 8);
}

void unpack_ino(struct unpacker *r, struct vol_ino *ret)
{
	const uint8_t *p = unpack_raw(r, 16);

	*ret = (struct vol_ino){0};
	if (p)
		memcpy(ret->folder.b, p, 16);
	ret->num = unpack(r, 8);
}

void pack_attr(struct packer *w, const struct vfs_attr *a)
{
	pack_ino(w, &a->ino);
	pack(w, a->size, 8);
	pack(w, a->blocks, 8);
	pack(w, (uint64_t)a->atime_ns, 8);
	pack(w, (uint64_t)a->mtime_ns, 8);
	pack(w, (uint64_t)a->ctime_ns, 8);
	pack(w, a->mode, 2);
	pack(w, a->nlink, 4);
	pack(w, a->uid, 4);
	pack(w, a->gid, 4);
	pack(w, a->rdev, 4);
	pack(w, a->gen, 4);
	pack(w, a->version, 8);
	pack(w, a->home, 1);
	if (a->ino.num == 0)
		pack_raw(w, a->up.b, 16);
}

void unpack_attr(struct unpacker *r, struct vfs_attr *ret)
{
	struct vfs_attr a = {0};
	const uint8_t *up;

	unpack_ino(r, &a.ino);
	a.size = unpack(r, 8);
	a.blocks = unpack(r, 8);
	a.atime_ns = (int64_t)unpack(r, 8);
	a.mtime_ns = (int64_t)unpack(r, 8);
	a.ctime_ns = (int64_t)unpack(r, 8);
	a.mode = (uint32_t)unpack(r, 2);
	a.nlink = (uint32_t)unpack(r, 4);
	a.uid = (uint32_t)unpack(r, 4);
	a.gid = (uint32_t)unpack(r, 4);
	a.rdev = (uint32_t)unpack(r, 4);
	a.gen = (uint32_t)unpack(r, 4);
	a.version = unpack(r, 8);
	a.home = (uint8_t)unpack(r, 1);
	if (a.ino.num == 0) {
		up = unpack_raw(r, 16);
		if (up)
			memcpy(a.up.b, up, 16);
	}
	*ret = a;
}

static void pack_lock(struct packer *w, const struct vfs_lock *l)
{
	pack(w, l->start, 8);
	pack(w, l->end, 8);
	pack(w, l->owner, 8);
	pack(w, l->pid, 4);
	pack(w, l->type, 1);
	pack(w, l->flock, 1);
}

static void unpack_lock(struct unpacker *r, struct vfs_lock *ret)
{
	uint64_t flock;

	ret->start = unpack(r, 8);
	ret->end = unpack(r, 8);
	ret->owner = unpack(r, 8);
	ret->pid = (uint32_t)unpack(r, 4);
	ret->type = (uint8_t)unpack(r, 1);
	flock = unpack(r, 1);
	ret->flock = flock == 1;
	if (flock > 1)
		r->bad = true;
}

/* ---- operations ---- */

static bool ino_set(const struct vol_ino *ino)
{
	static const struct vol_ino none;

	return !vol_ino_eq(ino, &none);
}

static bool attr_set(const struct vfs_attr *a)
{
	return a->mode || a->nlink || a->uid || a->gid || a->rdev || a->size || a->blocks || a->atime_ns ||
	       a->mtime_ns || a->ctime_ns || a->gen || a->version || a->home || ino_set(&a->ino) ||
	       ino_set(&(struct vol_ino){.folder = a->up});
}

static uint32_t op_mask(const struct vfs_op *op)
{
	uint32_t m = 0;

	m |= op->id.number || op->id.client || op->id.slot ? OP_ID : 0;
	m |= ino_set(&op->ino) ? OP_INO : 0;
	m |= ino_set(&op->ino2) ? OP_INO2 : 0;
	m |= ino_set(&op->target) ? OP_TARGET : 0;
	m |= op->name_len ? OP_NAME : 0;
	m |= op->name2_len ? OP_NAME2 : 0;
	m |= op->flags ? OP_FLAGS : 0;
	m |= op->set ? OP_SET : 0;
	m |= op->gen ? OP_GEN : 0;
	m |= op->off ? OP_OFF : 0;
	m |= op->len ? OP_LEN : 0;
	m |= attr_set(&op->attr) ? OP_ATTR : 0;
	m |= op->lock.start || op->lock.end || op->lock.owner || op->lock.pid || op->lock.type ||
			     op->lock.flock
		     ? OP_LOCK
		     : 0;
	m |= op->uid || op->gid || op->pid ? OP_CALLER : 0;
	m |= op->data_len ? OP_DATA : 0;
	return m;
}

int vfs_op_encode(const struct vfs_op *op, struct buf *b)
{
	uint8_t fix[1024];
	struct packer w = {.p = fix, .cap = sizeof(fix)};
	uint32_t m = op_mask(op);
	int r;

	if (op->name_len > VFS_NAME_MAX + 1 || op->name2_len > VFS_NAME_MAX + 1 ||
	    op->data_len > VFS_XATTR_MAX)
		return -E2BIG;
	pack(&w, (uint64_t)op->type, 1);
	pack(&w, m, 4);
	if (m & OP_ID) {
		pack(&w, op->id.client, 8);
		pack(&w, op->id.slot, 4);
		pack(&w, op->id.number, 8);
	}
	if (m & OP_INO)
		pack_ino(&w, &op->ino);
	if (m & OP_INO2)
		pack_ino(&w, &op->ino2);
	if (m & OP_TARGET)
		pack_ino(&w, &op->target);
	if (m & OP_NAME) {
		pack(&w, op->name_len, 2);
		pack_raw(&w, op->name, op->name_len);
	}
	if (m & OP_NAME2) {
		pack(&w, op->name2_len, 2);
		pack_raw(&w, op->name2, op->name2_len);
	}
	if (m & OP_FLAGS)
		pack(&w, op->flags, 4);
	if (m & OP_SET)
		pack(&w, op->set, 4);
	if (m & OP_GEN)
		pack(&w, op->gen, 4);
	if (m & OP_OFF)
		pack(&w, op->off, 8);
	if (m & OP_LEN)
		pack(&w, op->len, 8);
	if (m & OP_ATTR)
		pack_attr(&w, &op->attr);
	if (m & OP_LOCK)
		pack_lock(&w, &op->lock);
	if (m & OP_CALLER) {
		pack(&w, op->uid, 4);
		pack(&w, op->gid, 4);
		pack(&w, op->pid, 4);
	}
	if (m & OP_DATA)
		pack(&w, op->data_len, 4);
	ensure(!w.over);
	r = buf_add(b, fix, w.n);
	if (r == 0 && op->data_len)
		r = buf_add(b, op->data, op->data_len);
	return r;
}

static void unpack_name(struct unpacker *u, const char **ret, uint16_t *ret_len)
{
	size_t n = (size_t)unpack(u, 2);

	if (n == 0 || n > VFS_NAME_MAX + 1)
		u->bad = true;
	*ret = (const char *)unpack_raw(u, n);
	*ret_len = (uint16_t)n;
}

static bool type_known(uint64_t t)
{
	return (t >= VFS_LOOKUP && t <= VFS_SETATTRS) || (t >= VFS_STEP_MAKE_FOLDER && t <= VFS_STEP_ASK);
}

static void unpack_op_tail(struct unpacker *u, uint32_t m, struct vfs_op *op)
{
	if (m & OP_FLAGS)
		op->flags = (uint32_t)unpack(u, 4);
	if (m & OP_SET)
		op->set = (uint32_t)unpack(u, 4);
	if (m & OP_GEN)
		op->gen = (uint32_t)unpack(u, 4);
	if (m & OP_OFF)
		op->off = unpack(u, 8);
	if (m & OP_LEN)
		op->len = unpack(u, 8);
	if (m & OP_ATTR)
		unpack_attr(u, &op->attr);
	if (m & OP_LOCK)
		unpack_lock(u, &op->lock);
	if (m & OP_CALLER) {
		op->uid = (uint32_t)unpack(u, 4);
		op->gid = (uint32_t)unpack(u, 4);
		op->pid = (uint32_t)unpack(u, 4);
	}
	if (m & OP_DATA) {
		op->data_len = (uint32_t)unpack(u, 4);
		if (op->data_len == 0 || op->data_len > VFS_XATTR_MAX)
			u->bad = true;
		op->data = unpack_raw(u, op->data_len);
	}
}

int vfs_op_decode(const void *data, size_t len, struct payload *payload, struct vfs_op *ret)
{
	struct unpacker u = {.p = data, .n = len};
	struct vfs_op op = {.payload = payload};
	uint64_t type = unpack(&u, 1);
	uint32_t m = (uint32_t)unpack(&u, 4);

	if (u.bad || !type_known(type) || (m & ~(uint32_t)OP_ALL))
		return -EBADMSG;
	op.type = (enum vfs_op_type)type;
	if (m & OP_ID) {
		op.id.client = unpack(&u, 8);
		op.id.slot = (uint32_t)unpack(&u, 4);
		op.id.number = unpack(&u, 8);
	}
	if (m & OP_INO)
		unpack_ino(&u, &op.ino);
	if (m & OP_INO2)
		unpack_ino(&u, &op.ino2);
	if (m & OP_TARGET)
		unpack_ino(&u, &op.target);
	if (m & OP_NAME)
		unpack_name(&u, &op.name, &op.name_len);
	if (m & OP_NAME2)
		unpack_name(&u, &op.name2, &op.name2_len);
	unpack_op_tail(&u, m, &op);
	if (u.bad || u.at != u.n)
		return -EBADMSG;
	*ret = op;
	return 0;
}

/* ---- results ---- */

static uint32_t result_mask(const struct vfs_result *res)
{
	static const uint8_t none[16];
	uint32_t m = 0;

	m |= attr_set(&res->attr) ? RES_ATTR : 0;
	m |= attr_set(&res->parent) ? RES_PARENT : 0;
	m |= attr_set(&res->gone) ? RES_GONE : 0;
	m |= res->lock.type || res->lock.owner || res->lock.start || res->lock.end || res->lock.pid ||
			     res->lock.flock
		     ? RES_LOCK
		     : 0;
	m |= res->intent ? RES_INTENT : 0;
	m |= memcmp(res->intent_id, none, 16) != 0 ? RES_INTENT_ID : 0;
	m |= res->data.len ? RES_DATA : 0;
	m |= res->n_crcs ? RES_CRCS : 0;
	return m;
}

static void pack_result_mask(struct packer *w, const struct vfs_result *res, uint32_t m)
{
	pack(w, (uint32_t)res->err, 4);
	pack(w, res->flags, 4);
	pack(w, m, 1);
	if (m & RES_ATTR)
		pack_attr(w, &res->attr);
	if (m & RES_PARENT)
		pack_attr(w, &res->parent);
	if (m & RES_GONE)
		pack_attr(w, &res->gone);
	if (m & RES_LOCK)
		pack_lock(w, &res->lock);
	if (m & RES_INTENT_ID)
		pack_raw(w, res->intent_id, 16);
}

void pack_result(struct packer *w, const struct vfs_result *res)
{
	pack_result_mask(w, res, result_mask(res) & ~(uint32_t)(RES_DATA | RES_CRCS));
}

int vfs_result_encode(const struct vfs_result *res, struct buf *b)
{
	uint8_t fix[VFS_RESULT_FIX_MAX];
	struct packer w = {.p = fix, .cap = sizeof(fix)};
	uint32_t m = result_mask(res);
	int r;

	if (res->n_crcs > RESULT_CRCS_MAX || res->data.len > RESULT_DATA_MAX)
		return -E2BIG;
	pack_result_mask(&w, res, m);
	if (m & RES_CRCS) {
		pack(&w, res->crc_off, 8);
		pack(&w, res->n_crcs, 4);
	}
	if (m & RES_DATA)
		pack(&w, res->data.len, 4);
	ensure(!w.over);
	r = buf_add(b, fix, w.n);
	for (uint32_t i = 0; r == 0 && i < res->n_crcs; i++) {
		uint32_t c = htole32(res->crcs[i]);

		r = buf_add(b, &c, 4);
	}
	if (r == 0 && res->data.len)
		r = buf_add(b, res->data.data, res->data.len);
	return r;
}

/* CRCs and data, their lengths first. */
static int unpack_result_tail(struct unpacker *u, uint32_t m, struct vfs_result *res)
{
	const uint8_t *crcs, *data;
	size_t n_crcs = 0, n_data = 0;

	if (m & RES_CRCS) {
		res->crc_off = unpack(u, 8);
		n_crcs = (size_t)unpack(u, 4);
		if (n_crcs == 0 || n_crcs > RESULT_CRCS_MAX)
			return -EBADMSG;
	}
	if (m & RES_DATA) {
		n_data = (size_t)unpack(u, 4);
		if (n_data == 0 || n_data > RESULT_DATA_MAX)
			return -EBADMSG;
	}
	crcs = unpack_raw(u, n_crcs * 4);
	data = unpack_raw(u, n_data);
	if (u->bad || u->at != u->n)
		return -EBADMSG;
	if (n_data && buf_add(&res->data, data, n_data) < 0)
		return -EBADMSG;
	if (n_crcs) {
		res->crcs = xcalloc(n_crcs, 4);
		res->n_crcs = (uint32_t)n_crcs;
		for (size_t i = 0; i < n_crcs; i++) {
			uint32_t c;

			memcpy(&c, crcs + i * 4, 4);
			res->crcs[i] = le32toh(c);
		}
	}
	return 0;
}

int vfs_result_decode(const void *data, size_t len, struct payload *payload, struct vfs_result *ret)
{
	struct unpacker u = {.p = data, .n = len};
	struct vfs_result res = {0};
	const uint8_t *id;
	uint32_t m;
	int r;

	res.err = (int32_t)(uint32_t)unpack(&u, 4);
	res.flags = (uint32_t)unpack(&u, 4);
	m = (uint32_t)unpack(&u, 1);
	if (u.bad || res.err > 0 || res.err < -4095)
		return -EBADMSG;
	if (m & RES_ATTR)
		unpack_attr(&u, &res.attr);
	if (m & RES_PARENT)
		unpack_attr(&u, &res.parent);
	if (m & RES_GONE)
		unpack_attr(&u, &res.gone);
	if (m & RES_LOCK)
		unpack_lock(&u, &res.lock);
	res.intent = m & RES_INTENT;
	if (m & RES_INTENT_ID) {
		id = unpack_raw(&u, 16);
		if (id)
			memcpy(res.intent_id, id, 16);
	}
	r = unpack_result_tail(&u, m, &res);
	if (r < 0)
		return r;
	res.payload = payload_ref(payload);
	*ret = res;
	return 0;
}

void vfs_result_done(struct vfs_result *r)
{
	buf_done(&r->data);
	payload_unref(r->payload);
	free(r->crcs);
	*r = (struct vfs_result){0};
}

/* ---- folder listings ---- */

/* {flags1: 1 = attributes follow} {length1} name, then the attributes or {folder16 number8 mode2}. */
int vfs_entry_decode(const void *data, size_t len, size_t *at, struct vfs_entry *ret)
{
	struct unpacker u = {.p = data, .n = len, .at = *at};
	struct vfs_entry e = {0};
	uint64_t flags;

	if (*at == len)
		return -ENOENT;
	if (*at > len)
		return -EBADMSG;
	flags = unpack(&u, 1);
	e.name_len = (uint16_t)unpack(&u, 1);
	e.name = (const char *)unpack_raw(&u, e.name_len);
	if (u.bad || flags > 1 || name_check(e.name, e.name_len) < 0)
		return -EBADMSG;
	e.has_attr = flags == 1;
	if (e.has_attr) {
		unpack_attr(&u, &e.attr);
		e.ino = e.attr.ino;
		e.mode = e.attr.mode & S_IFMT;
	} else {
		unpack_ino(&u, &e.ino);
		e.mode = (uint32_t)unpack(&u, 2) & S_IFMT;
	}
	if (u.bad)
		return -EBADMSG;
	*at = u.at;
	*ret = e;
	return 0;
}
