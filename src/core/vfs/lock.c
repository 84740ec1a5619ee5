/* SPDX-License-Identifier: Apache-2.0 */
/* fcntl(2) and flock(2) locks. All ranges of one owner on one inode are one value under L inode kind1 client8 owner8: an operation is one put
 * or one delete however it splits and merges. Ranges of a value are sorted, do not overlap, and neighbours of one type are one range.
 * fcntl and flock locks do not see each other. Waiting for a lock is the client's: it asks again when it hears that one was released. */
#include <fcntl.h>

#include "core/vfs/internal.h"

#define KEY_LOCK   (KEY_INO + 1 + 8 + 8)
#define LOCK_V1	   1
#define LOCK_RANGE 21 /* start8 end8 pid4 type1 */

struct ranges {
	uint32_t n;
	struct vfs_lock at[VFS_LOCKS_MAX + 3];
};

static size_t key_lock(uint8_t *k, const struct vol_ino *ino, bool flock, uint64_t client, uint64_t owner)
{
	key_ino(k, 'L', ino);
	k[KEY_INO] = flock;
	client = htobe64(client);
	owner = htobe64(owner);
	memcpy(k + KEY_INO + 1, &client, 8);
	memcpy(k + KEY_INO + 9, &owner, 8);
	return KEY_LOCK;
}

static int ranges_decode(const void *value, size_t len, struct ranges *ret)
{
	struct unpacker u = {.p = value, .n = len};

	if (unpack(&u, 1) != LOCK_V1)
		return -EIO;
	for (ret->n = 0; !u.bad && u.at < u.n && ret->n < VFS_LOCKS_MAX; ret->n++) {
		struct vfs_lock *l = &ret->at[ret->n];

		*l = (struct vfs_lock){.start = unpack(&u, 8)};
		l->end = unpack(&u, 8);
		l->pid = (uint32_t)unpack(&u, 4);
		l->type = (uint8_t)unpack(&u, 1);
	}
	return u.bad || u.at != u.n ? -EIO : 0;
}

static int ranges_put(struct tx *t, const uint8_t *key, const struct ranges *s)
{
	static uint8_t value[1 + VFS_LOCKS_MAX * LOCK_RANGE]; /* one loop thread */
	struct packer w = {.p = value, .cap = sizeof(value)};

	if (s->n == 0)
		return del_key(t, key, KEY_LOCK);
	pack(&w, LOCK_V1, 1);
	for (uint32_t i = 0; i < s->n; i++) {
		pack(&w, s->at[i].start, 8);
		pack(&w, s->at[i].end, 8);
		pack(&w, s->at[i].pid, 4);
		pack(&w, s->at[i].type, 1);
	}
	ensure(!w.over);
	return put_key(t, key, KEY_LOCK, value, w.n);
}

/* Cuts [l->start, l->end] out of the ranges and puts l there unless it is F_UNLCK; sorted and merged again. */
static void ranges_set(const struct ranges *in, const struct vfs_lock *l, struct ranges *out)
{
	bool placed = l->type == F_UNLCK;

	out->n = 0;
	for (uint32_t i = 0; i <= in->n; i++) {
		const struct vfs_lock *x = i < in->n ? &in->at[i] : NULL;
		struct vfs_lock part;

		if (x && x->start < l->start) {
			part = *x;
			part.end = MIN(x->end, l->start - 1);
			out->at[out->n++] = part;
		}
		if (!placed && (!x || x->end > l->end || x->start > l->end)) {
			out->at[out->n++] = *l;
			placed = true;
		}
		if (x && x->end > l->end) {
			part = *x;
			part.start = MAX(x->start, l->end + 1);
			out->at[out->n++] = part;
		}
	}
}

static void ranges_merge(struct ranges *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->n; i++) {
		struct vfs_lock *last = n ? &s->at[n - 1] : NULL;

		if (last && last->type == s->at[i].type && last->end + 1 == s->at[i].start)
			last->end = s->at[i].end;
		else
			s->at[n++] = s->at[i];
	}
	s->n = n;
}

/* Another owner's range that l cannot be beside: 1 and *ret; 0 none; negative. */
static int conflict(struct tx *t, const struct vfs_lock *l, const uint8_t *own, struct vfs_lock *ret,
		    struct ranges *s)
{
	uint8_t prefix[KEY_INO + 1], from[KEY_LOCK];
	size_t n = sizeof(prefix);

	key_ino(prefix, 'L', &t->op->ino);
	prefix[KEY_INO] = l->flock;
	memcpy(from, prefix, n);
	for (;;) { /* bounded by the owners of locks on one inode */
		const void *key, *value;
		size_t key_len, len;
		int r = kv_seek(t, prefix, sizeof(prefix), from, n, true, &key, &key_len, &value, &len);

		if (r < 0)
			return r == -ENOENT ? 0 : r;
		if (key_len != KEY_LOCK)
			return hard(t, -EIO);
		memcpy(from, key, key_len);
		n = key_len;
		if (memcmp(from, own, KEY_LOCK) == 0)
			continue;
		r = hard(t, ranges_decode(value, len, s));
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < s->n; i++)
			if (s->at[i].start <= l->end && s->at[i].end >= l->start &&
			    (s->at[i].type == F_WRLCK || l->type == F_WRLCK)) {
				*ret = s->at[i];
				memcpy(&ret->owner, from + KEY_INO + 9, 8);
				ret->owner = be64toh(ret->owner);
				ret->flock = l->flock;
				return 1;
			}
	}
}

static int lock_check(struct tx *t, struct vfs_lock *l)
{
	struct inode in;
	int r = inode_get(t, &t->op->ino, &in);

	if (r < 0)
		return r;
	*l = t->op->lock;
	if (l->flock) {
		l->start = 0;
		l->end = UINT64_MAX;
	}
	if (l->start > l->end || (l->type != F_RDLCK && l->type != F_WRLCK && l->type != F_UNLCK))
		return -EINVAL;
	return 0;
}

int do_lock(struct tx *t)
{
	const struct vfs_op *op = t->op;
	_cleanup_free_ struct ranges *old = xcalloc(2, sizeof(*old));
	struct ranges *new = old + 1;
	uint8_t own[KEY_LOCK];
	struct vfs_lock l;
	const void *value;
	size_t len;
	int r;

	r = lock_check(t, &l);
	if (r < 0)
		return r;
	key_lock(own, &op->ino, l.flock, op->id.client, l.owner);
	if (l.type != F_UNLCK) {
		r = conflict(t, &l, own, &t->res->lock, old);
		if (r)
			return r > 0 ? -EAGAIN : r;
	}
	r = kv_get(t, own, KEY_LOCK, &value, &len);
	old->n = 0;
	if (r == 0)
		r = hard(t, ranges_decode(value, len, old));
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT && l.type == F_UNLCK)
		return 0;
	ranges_set(old, &l, new);
	ranges_merge(new);
	if (new->n > VFS_LOCKS_MAX)
		return -ENOLCK;
	return ranges_put(t, own, new);
}

int do_getlock(struct tx *t)
{
	_cleanup_free_ struct ranges *s = xcalloc(1, sizeof(*s));
	uint8_t own[KEY_LOCK];
	struct vfs_lock l;
	int r;

	r = lock_check(t, &l);
	if (r < 0)
		return r;
	key_lock(own, &t->op->ino, l.flock, t->op->id.client, l.owner);
	t->res->lock = l;
	r = conflict(t, &l, own, &t->res->lock, s);
	if (r == 0)
		t->res->lock.type = F_UNLCK;
	return r < 0 ? r : 0;
}

static int unlock_owner(struct tx *t)
{
	const struct vfs_op *op = t->op;
	uint8_t key[KEY_LOCK];
	const void *value;
	size_t len;
	int r;

	key_lock(key, &op->ino, op->lock.flock, op->id.client, op->lock.owner);
	r = kv_get(t, key, KEY_LOCK, &value, &len);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return del_key(t, key, KEY_LOCK);
}

/* Every lock of a client in the group: a search through all locks, for a session that ended. */
int do_unlock_all(struct tx *t)
{
	uint64_t client = htobe64(t->op->id.client);
	unsigned room = RECORD_EFFECTS_MAX - 4;
	uint8_t from[KEY_MAX] = {'L'};
	size_t n = 1;

	if (t->op->lock.owner)
		return unlock_owner(t);
	for (;;) {
		const void *key, *value;
		size_t key_len, len;
		int r = kv_seek(t, "L", 1, from, n, true, &key, &key_len, &value, &len);

		if (r < 0)
			return r == -ENOENT ? 0 : r;
		if (key_len != KEY_LOCK)
			return hard(t, -EIO);
		memcpy(from, key, key_len);
		n = key_len;
		if (memcmp(from + KEY_INO + 1, &client, 8) != 0)
			continue;
		if (room-- == 0) {
			t->res->flags |= VFS_MORE;
			return 0;
		}
		r = del_key(t, from, n);
		if (r < 0)
			return r;
	}
}
