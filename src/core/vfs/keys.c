/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and the records behind them: inodes, entries, slices. The values are compact and begin with a version byte; a value that does not
 * decode is a damaged disk's or a bug's: -EIO, never a crash. Inode numbers are part of the key, so they are not in the value. */
#include "core/vfs/internal.h"

#define INODE_V1  1
#define SLICE_V1  2
#define ENTRY_V1  1
#define INODE_FIX 79

int hard(struct tx *t, int r)
{
	if (r < 0 && t->hard == 0)
		t->hard = r;
	return r;
}

static void ino_key(uint8_t *k, const struct vol_ino *ino)
{
	uint64_t num = htobe64(ino->num);

	memcpy(k, ino->folder.b, 16);
	memcpy(k + 16, &num, 8);
}

size_t key_ino(uint8_t *k, char kind, const struct vol_ino *ino)
{
	k[0] = (uint8_t)kind;
	ino_key(k + 1, ino);
	return KEY_INO;
}

size_t key_entry(uint8_t *k, const struct vol_id *folder, const char *name, size_t len)
{
	k[0] = 'E';
	memcpy(k + 1, folder->b, 16);
	if (len)
		memcpy(k + 17, name, len);
	return 17 + len;
}

size_t key_xattr(uint8_t *k, const struct vol_ino *ino, const char *name, size_t len)
{
	key_ino(k, 'X', ino);
	if (len)
		memcpy(k + KEY_INO, name, len);
	return KEY_INO + len;
}

size_t key_intent(uint8_t *k, const uint8_t id[16])
{
	k[0] = 'T';
	memcpy(k + 1, id, 16);
	return 17;
}

size_t key_answer(uint8_t *k, uint64_t client, uint32_t slot)
{
	uint64_t c = htobe64(client);
	uint32_t s = htobe32(slot);

	k[0] = 'D';
	memcpy(k + 1, &c, 8);
	memcpy(k + 9, &s, 4);
	return 13;
}

int kv_get(struct tx *t, const void *key, size_t len, const void **ret, size_t *ret_len)
{
	int r = t->v->view.get(&t->v->view, key, len, ret, ret_len);

	return r == -ENOENT ? r : hard(t, r);
}

int kv_seek(struct tx *t, const void *prefix, size_t prefix_len, const void *from, size_t len, bool after,
	    const void **ret_key, size_t *ret_key_len, const void **ret, size_t *ret_len)
{
	int r;

	if (len < prefix_len || memcmp(from, prefix, prefix_len) != 0)
		return -ENOENT;
	r = t->v->view.seek(&t->v->view, from, len, after, prefix_len, ret_key, ret_key_len, ret, ret_len);
	return r == -ENOENT ? r : hard(t, r);
}

int put_key(struct tx *t, const void *key, size_t len, const void *value, size_t value_len)
{
	return hard(t, record_put(t->rec, key, len, value, value_len));
}

int del_key(struct tx *t, const void *key, size_t len)
{
	return hard(t, record_del(t->rec, key, len));
}

/* ---- inodes ---- */

int inode_decode(const void *value, size_t len, const struct vol_ino *ino, struct inode *ret)
{
	struct unpacker r = {.p = value, .n = len};
	struct inode in = {.a.ino = *ino};

	if (unpack(&r, 1) != INODE_V1)
		return -EIO;
	in.flags = (uint8_t)unpack(&r, 1);
	in.a.mode = (uint32_t)unpack(&r, 2);
	in.a.nlink = (uint32_t)unpack(&r, 4);
	in.a.uid = (uint32_t)unpack(&r, 4);
	in.a.gid = (uint32_t)unpack(&r, 4);
	in.a.size = unpack(&r, 8);
	in.a.blocks = unpack(&r, 8);
	in.a.atime_ns = (int64_t)unpack(&r, 8);
	in.a.mtime_ns = (int64_t)unpack(&r, 8);
	in.a.ctime_ns = (int64_t)unpack(&r, 8);
	in.a.version = unpack(&r, 8);
	in.a.gen = (uint32_t)unpack(&r, 4);
	in.a.rdev = (uint32_t)unpack(&r, 4);
	in.xattrs = (uint16_t)unpack(&r, 2);
	in.a.home = (uint8_t)unpack(&r, 1);
	if (ino->num == 0) {
		const uint8_t *up;

		in.next = unpack(&r, 8);
		up = unpack_raw(&r, 16);
		if (up)
			memcpy(in.a.up.b, up, 16);
	}
	if (r.bad)
		return -EIO;
	in.tail_len = (uint32_t)(len - r.at);
	in.tail = r.p + r.at;
	*ret = in;
	return 0;
}

/* The root folder is there from the beginning: its record is written by its first change. */
static void root_inode(struct inode *ret)
{
	*ret = (struct inode){.a = {.ino = {vol_root, 0}, .mode = S_IFDIR | 0755, .nlink = 2, .up = vol_root},
			      .next = 1};
}

int inode_get(struct tx *t, const struct vol_ino *ino, struct inode *ret)
{
	uint8_t k[KEY_INO];
	const void *value;
	size_t len;
	int r;

	r = kv_get(t, k, key_ino(k, 'I', ino), &value, &len);
	if (r == -ENOENT && ino->num == 0 && vol_id_eq(&ino->folder, &vol_root)) {
		root_inode(ret);
		return 0;
	}
	if (r < 0)
		return r;
	if (len && *(const uint8_t *)value == SLICE_V1)
		return -ENOENT;
	return hard(t, inode_decode(value, len, ino, ret));
}

int inode_put(struct tx *t, struct inode *in)
{
	uint8_t k[KEY_INO], value[INODE_FIX + 32 + VFS_SYMLINK_MAX];
	struct packer w = {.p = value, .cap = sizeof(value)};

	in->a.version = t->seq;
	pack(&w, INODE_V1, 1);
	pack(&w, in->flags, 1);
	pack(&w, in->a.mode, 2);
	pack(&w, in->a.nlink, 4);
	pack(&w, in->a.uid, 4);
	pack(&w, in->a.gid, 4);
	pack(&w, in->a.size, 8);
	pack(&w, in->a.blocks, 8);
	pack(&w, (uint64_t)in->a.atime_ns, 8);
	pack(&w, (uint64_t)in->a.mtime_ns, 8);
	pack(&w, (uint64_t)in->a.ctime_ns, 8);
	pack(&w, in->a.version, 8);
	pack(&w, in->a.gen, 4);
	pack(&w, in->a.rdev, 4);
	pack(&w, in->xattrs, 2);
	pack(&w, in->a.home, 1);
	if (in->a.ino.num == 0) {
		pack(&w, in->next, 8);
		pack_raw(&w, in->a.up.b, 16);
	}
	pack_raw(&w, in->tail, in->tail_len);
	if (w.over)
		return hard(t, -EIO);
	return put_key(t, k, key_ino(k, 'I', &in->a.ino), value, w.n);
}

int folder_get(struct tx *t, const struct vol_ino *ino, struct inode *ret)
{
	int r = inode_get(t, ino, ret);

	if (r < 0)
		return r;
	if (!S_ISDIR(ret->a.mode))
		return -ENOTDIR;
	return ret->a.nlink == 0 ? -ENOENT : 0;
}

void touch(struct tx *t, struct inode *in, bool data)
{
	in->a.ctime_ns = t->now;
	if (data)
		in->a.mtime_ns = t->now;
}

/* A setgid folder gives its group to what is made in it, and to folders the bit as well. */
void inherit(struct inode *in, const struct inode *folder)
{
	if (!(folder->a.mode & S_ISGID))
		return;
	in->a.gid = folder->a.gid;
	if (S_ISDIR(in->a.mode))
		in->a.mode |= S_ISGID;
}

int orphan_put(struct tx *t, const struct vol_ino *ino)
{
	uint64_t since = htole64((uint64_t)t->now);
	uint8_t k[KEY_INO];

	return put_key(t, k, key_ino(k, 'O', ino), &since, sizeof(since));
}

int inode_unlink(struct tx *t, struct inode *in)
{
	int r;

	if (in->a.nlink > 0)
		in->a.nlink--;
	touch(t, in, false);
	r = inode_put(t, in);
	if (r == 0 && in->a.nlink == 0)
		r = orphan_put(t, &in->a.ino);
	return r;
}

int slice_get(struct tx *t, const struct vol_ino *ino, uint32_t *ret_gen)
{
	uint8_t k[KEY_INO];
	struct unpacker u;
	const void *value;
	size_t len;
	int r;

	r = kv_get(t, k, key_ino(k, 'I', ino), &value, &len);
	*ret_gen = 0;
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	u = (struct unpacker){.p = value, .n = len};
	if (unpack(&u, 1) != SLICE_V1)
		return -EINVAL; /* the inode itself is here: no foreign slice */
	*ret_gen = (uint32_t)unpack(&u, 4);
	return u.bad ? hard(t, -EIO) : 0;
}

int slice_put(struct tx *t, const struct vol_ino *ino, uint32_t gen)
{
	uint8_t k[KEY_INO], value[5];
	struct packer w = {.p = value, .cap = sizeof(value)};

	pack(&w, SLICE_V1, 1);
	pack(&w, gen, 4);
	return put_key(t, k, key_ino(k, 'I', ino), value, w.n);
}

bool is_local(const struct tx *t, const struct vol_ino *ino)
{
	return vol_owner(t->v->map, &ino->folder) == t->v->replica->group;
}

uint32_t stripe_groups(const struct vfs *v, const struct vol_ino *ino, uint32_t *ret)
{
	uint32_t all[VOL_STRIPE_MAX], n = 0;

	vol_place(v->map, &ino->folder, all);
	for (uint32_t i = 0; i < v->map->stripe && i < VOL_STRIPE_MAX; i++) {
		bool have = false;

		for (uint32_t k = 0; k < n; k++)
			have |= ret[k] == all[i];
		if (!have)
			ret[n++] = all[i];
	}
	return n;
}

/* ---- entries ---- */

int name_check(const char *name, size_t len)
{
	if (len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.') ||
	    memchr(name, '/', len) || memchr(name, 0, len))
		return -EINVAL;
	return 0;
}

int entry_decode(const void *value, size_t len, struct entry *ret)
{
	struct unpacker r = {.p = value, .n = len};
	struct entry e = {0};
	const uint8_t *id;

	if (unpack(&r, 1) != ENTRY_V1)
		return -EIO;
	e.flags = (uint8_t)unpack(&r, 1);
	e.type = (uint32_t)unpack(&r, 2);
	unpack_ino(&r, &e.ino);
	if (e.flags & ENTRY_LOCKED) {
		id = unpack_raw(&r, 16);
		if (id)
			memcpy(e.intent, id, 16);
	}
	if (r.bad)
		return -EIO;
	*ret = e;
	return 0;
}

int entry_find(struct tx *t, const struct vol_id *folder, const char *name, size_t len, struct entry *ret)
{
	uint8_t k[KEY_MAX];
	const void *value;
	size_t value_len;
	int r;

	r = kv_get(t, k, key_entry(k, folder, name, len), &value, &value_len);
	if (r < 0)
		return r;
	return hard(t, entry_decode(value, value_len, ret));
}

int entry_put(struct tx *t, const struct vol_id *folder, const char *name, size_t len, const struct entry *e)
{
	uint8_t k[KEY_MAX], value[64];
	struct packer w = {.p = value, .cap = sizeof(value)};

	pack(&w, ENTRY_V1, 1);
	pack(&w, e->flags, 1);
	pack(&w, e->type, 2);
	pack_ino(&w, &e->ino);
	if (e->flags & ENTRY_LOCKED)
		pack_raw(&w, e->intent, 16);
	return put_key(t, k, key_entry(k, folder, name, len), value, w.n);
}

int entry_del(struct tx *t, const struct vol_id *folder, const char *name, size_t len)
{
	uint8_t k[KEY_MAX];

	return del_key(t, k, key_entry(k, folder, name, len));
}

int entry_claim(struct tx *t, const struct vol_id *folder, const char *name, size_t len, struct entry *ret)
{
	int r = entry_find(t, folder, name, len, ret);

	if (r < 0 || !(ret->flags & ENTRY_LOCKED))
		return r;
	memcpy(t->res->intent_id, ret->intent, 16);
	return -EAGAIN;
}

int folder_empty(struct tx *t, const struct vol_id *folder)
{
	const void *key, *value;
	size_t key_len, value_len;
	uint8_t k[KEY_MAX];
	size_t n = key_entry(k, folder, NULL, 0);
	struct entry e;
	int r;

	r = kv_seek(t, k, n, k, n, false, &key, &key_len, &value, &value_len);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = hard(t, entry_decode(value, value_len, &e));
	if (r < 0)
		return r;
	if (!(e.flags & ENTRY_HIDDEN))
		return -ENOTEMPTY;
	memcpy(t->res->intent_id, e.intent, 16);
	return -EAGAIN;
}

void type_only(struct vfs_attr *a, const struct entry *e)
{
	*a = (struct vfs_attr){.ino = e->ino, .mode = e->type};
}
