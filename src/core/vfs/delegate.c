/* SPDX-License-Identifier: Apache-2.0 */
/* Delegations of folders (as NFSv4's directory delegations, RFC 8881 section 10.9, and CephFS's exclusive caps with asynchronous creates): while one
 * client has a folder, its names and the attributes of the files born in it are that client's alone. It answers its programs itself, with inode numbers
 * and times of its own choice, and sends CREATE, UNLINK and SETATTR behind; here those are checked against the record of the delegation, so that one
 * that was taken back, or is another's by now, changes nothing (-ESTALE).
 *
 * Key N folder16; value: version1, client8, from8, to8 (inclusive), time8 (ns). One a folder. It is replicated like every key, so a new primary knows it.
 * Who is kept away, and when it is taken back, is the shell's business (src/volume/brick/delegate.c); it also bounds how many there are. */
#include "core/vfs/internal.h"

#define DELEGATION_V1 1
#define NAMES_MAX     16384 /* looked through before a folder is given away */

static size_t key_delegation(uint8_t *k, const struct vol_id *folder)
{
	k[0] = 'N';
	memcpy(k + 1, folder->b, 16);
	return KEY_DELEGATION;
}

int delegation_get(struct tx *t, const struct vol_id *folder, struct delegation *ret)
{
	uint8_t k[KEY_DELEGATION];
	struct delegation d;
	struct unpacker u;
	const void *value;
	size_t len;
	int r;

	r = kv_get(t, k, key_delegation(k, folder), &value, &len);
	if (r < 0)
		return r;
	u = (struct unpacker){.p = value, .n = len};
	if (unpack(&u, 1) != DELEGATION_V1)
		return hard(t, -EIO);
	d = (struct delegation){.client = unpack(&u, 8)};
	d.from = unpack(&u, 8);
	d.to = unpack(&u, 8);
	if (u.bad)
		return hard(t, -EIO);
	*ret = d;
	return 0;
}

int delegation_drop(struct tx *t, const struct vol_id *folder)
{
	uint8_t k[KEY_DELEGATION];
	struct delegation d;
	int r = delegation_get(t, folder, &d);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return del_key(t, k, key_delegation(k, folder));
}

int delegation_check(struct tx *t, const struct vol_id *folder)
{
	struct delegation d;
	int r = delegation_get(t, folder, &d);

	return r == -ENOENT || (r == 0 && d.client != t->op->id.client) ? -ESTALE : r;
}

int delegation_time(struct tx *t, const struct vol_id *folder)
{
	int r = t->op->flags & VFS_TIMED ? delegation_check(t, folder) : 0;

	if (r == 0 && t->op->flags & VFS_TIMED)
		t->now = t->op->attr.ctime_ns;
	return r;
}

/* No name of it is in the middle of an operation. */
static int look_through(struct tx *t, const struct vol_id *folder)
{
	uint8_t prefix[KEY_MAX], from[KEY_MAX];
	size_t n = key_entry(prefix, folder, NULL, 0), from_len = n;

	memcpy(from, prefix, n);
	for (unsigned i = 0; i <= NAMES_MAX; i++) {
		const void *key, *value;
		size_t key_len, len;
		struct entry e;
		int r = kv_seek(t, prefix, n, from, from_len, true, &key, &key_len, &value, &len);

		if (r < 0)
			return r == -ENOENT ? 0 : r;
		r = hard(t, entry_decode(value, len, &e));
		if (r < 0)
			return r;
		if (e.flags & (ENTRY_HIDDEN | ENTRY_LOCKED | ENTRY_PREPARED)) {
			memcpy(t->res->intent_id, e.intent, 16);
			return -EAGAIN;
		}
		if (key_len > sizeof(from))
			return hard(t, -EIO);
		memcpy(from, key, key_len);
		from_len = key_len;
	}
	return -E2BIG;
}

int do_delegate(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint8_t k[KEY_DELEGATION], value[40];
	struct packer w = {.p = value, .cap = sizeof(value)};
	struct inode folder;
	struct delegation d;
	int r;

	if (op->ino.num != 0 || op->id.client == 0)
		return -EINVAL;
	if (!is_local(t, &op->ino))
		return -ENOENT;
	r = folder_get(t, &op->ino, &folder);
	if (r < 0)
		return r;
	r = delegation_get(t, &op->ino.folder, &d);
	if (r == 0 && d.client != op->id.client)
		return -EBUSY;
	if (r == 0 || r == -ENOENT)
		r = look_through(t, &op->ino.folder);
	if (r < 0)
		return r;
	d = (struct delegation){.client = op->id.client, .from = numbers_take(t, &folder, VFS_NUMBERS)};
	d.to = d.from + VFS_NUMBERS - 1;
	pack(&w, DELEGATION_V1, 1);
	pack(&w, d.client, 8);
	pack(&w, d.from, 8);
	pack(&w, d.to, 8);
	pack(&w, (uint64_t)t->now, 8);
	ensure(!w.over);
	r = put_key(t, k, key_delegation(k, &op->ino.folder), value, w.n);
	if (r == 0)
		r = inode_put(t, &folder);
	t->res->attr = folder.a;
	t->res->lock = (struct vfs_lock){.start = d.from, .end = d.to};
	return r;
}

int do_undelegate(struct tx *t)
{
	struct delegation d;
	int r = delegation_get(t, &t->op->ino.folder, &d);

	if (r < 0 || d.client != t->op->id.client)
		return r == -ENOENT ? 0 : r;
	return delegation_drop(t, &t->op->ino.folder);
}

/* A file with a number that the client chose. */
int delegation_number(struct tx *t, struct vol_ino *ret)
{
	const struct vfs_op *op = t->op;
	struct vol_ino ino = {op->ino.folder, op->target.num};
	struct delegation d;
	struct inode there;
	int r;

	r = delegation_get(t, &op->ino.folder, &d);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (d.client != op->id.client || ino.num < d.from || ino.num > d.to)
		return -ESTALE;
	r = inode_get(t, &ino, &there);
	if (r != -ENOENT)
		return r < 0 ? r : -ESTALE;
	*ret = ino;
	return 0;
}

/* ---- for the shell ---- */

int vfs_delegation(struct vfs *v, const struct vol_id *folder, uint64_t *ret_client)
{
	struct tx t = {.v = v};
	struct delegation d;
	int r = delegation_get(&t, folder, &d);

	if (r == 0)
		*ret_client = d.client;
	return r;
}

int vfs_delegation_iter(struct vfs *v, const struct vol_id *after, struct vol_id *ret, uint64_t *ret_client)
{
	struct tx t = {.v = v};
	uint8_t k[KEY_DELEGATION] = {'N'};
	const void *key, *value;
	size_t key_len, len;
	int r;

	r = kv_seek(&t, "N", 1, k, after ? key_delegation(k, after) : 1, true, &key, &key_len, &value, &len);
	if (r < 0)
		return r;
	if (key_len != KEY_DELEGATION)
		return -EIO;
	memcpy(ret->b, (const uint8_t *)key + 1, 16);
	return vfs_delegation(v, ret, ret_client);
}

int vfs_name(struct vfs *v, const struct vol_id *folder, const char *name, size_t len, struct vol_ino *ret)
{
	struct tx t = {.v = v};
	struct entry e;
	int r;

	if (name_check(name, len) < 0)
		return -ENOENT;
	r = entry_find(&t, folder, name, len, &e);
	if (r == 0)
		*ret = e.ino;
	return r;
}
