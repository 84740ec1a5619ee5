/* SPDX-License-Identifier: Apache-2.0 */
/* Caching leases: who may keep what. One table a volume, by (group, inode); the holders are bits of a word. A lease on a folder covers its
 * attributes and all its entries, those that are not there too.
 *
 * A change sends PUSHes when its record is on its way, in parallel with the copies: whoever asks anew meanwhile sees the new state. The answer
 * to the one who changes waits for the holders' answers. Who loses what: a changed entry - that name only, the holder stays; a changed inode - the inode, the
 * holder is gone. The one who changes keeps its own.
 *
 * Who is given a whole folder (delegate.c) has it alone: the leases of others on the files born in it go first. So that nobody need look for them when there are
 * none, each folder has an entry (LEASE_FOLDER) of the sessions that got one; it may say too much, never too little.
 *
 * Bound: LEASES_MAX objects a volume; beyond, none are granted. */
#include "volume/brick/internal.h"

#define SLOTS (2 * LEASES_MAX)

static uint32_t hash(uint32_t group, const struct vol_ino *ino, enum lease_kind kind)
{
	uint64_t a, b;

	memcpy(&a, ino->folder.b, 8);
	memcpy(&b, ino->folder.b + 8, 8);
	a = (a ^ b) * 0xff51afd7ed558ccdull ^ (ino->num * 4 + kind) * 0x9e3779b97f4a7c15ull ^ group;
	return (uint32_t)((a ^ a >> 32) * 0x2545f4914f6cdd1dull >> 40) % SLOTS;
}

static struct lease *find(struct leases *l, uint32_t group, const struct vol_ino *ino, enum lease_kind kind)
{
	if (!l->slot)
		return NULL;
	for (uint32_t i = hash(group, ino, kind);; i = (i + 1) % SLOTS) {
		struct lease *e = &l->slot[i];

		if (e->kind == 0)
			return NULL;
		if (e->kind == kind && e->group == group && vol_ino_eq(&e->ino, ino))
			return e;
	}
}

/* Takes an entry out and closes the gap behind it. */
static void drop(struct leases *l, struct lease *e)
{
	uint32_t hole = (uint32_t)(e - l->slot);

	l->n--;
	for (uint32_t i = (hole + 1) % SLOTS; l->slot[i].kind; i = (i + 1) % SLOTS) {
		uint32_t home = hash(l->slot[i].group, &l->slot[i].ino, l->slot[i].kind);

		if ((i - home + SLOTS) % SLOTS >= (i - hole + SLOTS) % SLOTS) {
			l->slot[hole] = l->slot[i];
			hole = i;
		}
	}
	l->slot[hole].kind = 0;
}

static bool add(struct vol *v, uint32_t group, enum lease_kind kind, const struct vol_ino *ino, uint32_t slot)
{
	struct leases *l = &v->leases;
	struct lease *e = find(l, group, ino, kind);
	uint32_t i;

	if (!e && l->n >= LEASES_MAX)
		return false;
	if (!e) {
		if (!l->slot)
			l->slot = xcalloc(SLOTS, sizeof(*l->slot));
		for (i = hash(group, ino, kind); l->slot[i].kind; i = (i + 1) % SLOTS)
			;
		e = &l->slot[i];
		*e = (struct lease){.ino = *ino, .group = (uint16_t)group, .kind = (uint8_t)kind};
		l->n++;
	}
	e->mask |= 1ull << slot;
	return true;
}

bool lease_grant(struct vol *v, uint32_t group, enum lease_kind kind, const struct vol_ino *ino,
		 uint32_t slot)
{
	struct vol_ino folder = {ino->folder, 0};
	bool born = kind == LEASE_INODE && ino->num != 0;

	if (slot >= SESSIONS_LEASED || (born && !add(v, group, LEASE_FOLDER, &folder, slot)) ||
	    !add(v, group, kind, ino, slot)) {
		v->b->n.lease_refused++;
		return false;
	}
	v->b->n.lease_grants++;
	return true;
}

/* Clears bits, or all of a group; entries without a holder go. */
static void sweep(struct vol *v, uint64_t mask, bool of_group, uint32_t group)
{
	struct leases *l = &v->leases;

	if (!l->slot || l->n == 0)
		return;
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct lease *e = &l->slot[i];

		if (!e->kind || (of_group && e->group != group))
			continue;
		e->mask &= ~mask;
		if (e->mask == 0) {
			drop(l, e);
			i -= l->slot[i].kind != 0; /* another one has moved here */
		}
	}
}

void lease_end_session(struct vol *v, uint32_t slot)
{
	if (slot < SESSIONS_LEASED)
		sweep(v, 1ull << slot, false, 0);
}

void lease_end_group(struct vol *v, uint32_t group)
{
	sweep(v, UINT64_MAX, true, group);
}

void leases_done(struct vol *v)
{
	free(v->leases.slot);
	v->leases = (struct leases){0};
}

/* ---- granting ---- */

static bool of_group(const struct vol *v, uint32_t group, const struct vol_id *folder,
		     const struct vfs_op *vop)
{
	return vol_id_eq(folder, &vop->ino.folder) || vol_owner(v->doc.map, folder) == group;
}

static bool grant_entries(struct grp *g, const struct vfs_op *vop, const struct vfs_result *res,
			  uint32_t slot)
{
	struct vfs_entry e;
	size_t at = 0;

	while (vfs_entry_decode(res->data.data, res->data.len, &at, &e) == 0)
		if (e.has_attr && !lease_grant(g->v, g->idx, LEASE_INODE, &e.ino, slot))
			return false;
	return true;
}

static bool has_name(enum vfs_op_type t)
{
	return t == VFS_LOOKUP || t == VFS_CREATE || t == VFS_MKDIR || t == VFS_SYMLINK || t == VFS_UNLINK ||
	       t == VFS_RMDIR || t == VFS_RENAME || t == VFS_LINK || t == VFS_READDIR;
}

bool lease_grant_result(struct grp *g, const struct vfs_op *vop, const struct vfs_result *res,
			struct session *s)
{
	struct vol *v = g->v;
	bool ok = true;

	if (!s->leased || !s->c)
		return false;
	if (vop->type == VFS_LOCK) { /* waits for it: told when one is released */
		if (res->err == -EAGAIN)
			lease_grant(v, g->idx, LEASE_LOCK, &vop->ino, s->slot);
		return false;
	}
	if (res->err < 0 && !(vop->type == VFS_LOOKUP && res->err == -ENOENT))
		return false;
	ok = lease_grant(v, g->idx, LEASE_INODE, &vop->ino, s->slot);
	if (vop->type == VFS_RENAME && ok && of_group(v, g->idx, &vop->ino2.folder, vop))
		ok = lease_grant(v, g->idx, LEASE_INODE, &vop->ino2, s->slot);
	if (ok && has_name(vop->type) && res->attr.mode && !(res->flags & VFS_NO_ATTR) &&
	    of_group(v, g->idx, &res->attr.ino.folder, vop))
		ok = lease_grant(v, g->idx, LEASE_INODE, &res->attr.ino, s->slot);
	if (ok && vop->type == VFS_READDIR)
		ok = grant_entries(g, vop, res, s->slot);
	return ok;
}

/* ---- taking back ---- */

static void push_to(struct grp *g, uint64_t mask, const struct proto_push *what, struct op *o)
{
	while (mask) {
		uint32_t slot = (uint32_t)__builtin_ctzll(mask);
		struct session *s = g->v->session[slot];
		struct push *p;

		mask &= mask - 1;
		if (!s || !s->leased)
			continue;
		p = session_push(s, g->idx, what);
		if (o && what->type != PUSH_UNLOCKED) {
			p->op = o;
			o->pushes++;
		}
	}
}

static void inode_changed(struct grp *g, const struct vol_ino *ino, enum lease_kind kind, struct op *o,
			  uint64_t own)
{
	struct lease *e = find(&g->v->leases, g->idx, ino, kind);
	struct proto_push what = {.type = kind == LEASE_LOCK ? PUSH_UNLOCKED : PUSH_INODE, .ino = *ino};
	uint64_t mask;

	if (!e || !(mask = e->mask & ~own))
		return;
	e->mask &= own;
	if (!e->mask)
		drop(&g->v->leases, e);
	push_to(g, mask, &what, o);
}

static void entry_changed(struct grp *g, const struct vol_ino *folder, const uint8_t *name, size_t len,
			  struct op *o, uint64_t own)
{
	struct lease *e = find(&g->v->leases, g->idx, folder, LEASE_INODE);
	struct proto_push what = {.type = PUSH_ENTRY, .ino = *folder};

	if (!e || !(e->mask & ~own) || len > VFS_NAME_MAX)
		return;
	memcpy(what.name, name, len);
	push_to(g, e->mask & ~own, &what, o);
}

/* Key: kind, folder, number big endian. */
static void key_ino(const struct effect *e, struct vol_ino *ret)
{
	uint64_t num = 0;

	memcpy(ret->folder.b, e->key + 1, 16);
	if (e->key_len >= 25)
		memcpy(&num, e->key + 17, 8);
	ret->num = be64toh(num);
}

/* ---- all of a folder ---- */

static uint64_t bit_of(struct vol *v, uint64_t client)
{
	struct session *s = session_of(v, client);

	return s && s->slot < SESSIONS_LEASED ? 1ull << s->slot : 0;
}

/* Sessions but own that may have leases of files born in it: mostly none, and then nothing is looked through. */
static uint64_t folder_others(struct grp *g, const struct vol_id *folder, uint64_t own)
{
	struct vol_ino ino = {*folder, 0};
	struct lease *e = find(&g->v->leases, g->idx, &ino, LEASE_FOLDER);

	return e ? e->mask & ~own : 0;
}

static bool born_in(const struct grp *g, const struct lease *e, const struct vol_id *folder, uint64_t own)
{
	return e->kind == LEASE_INODE && e->group == g->idx && e->ino.num != 0 &&
	       vol_id_eq(&e->ino.folder, folder) && (e->mask & ~own);
}

uint32_t lease_others(struct grp *g, const struct vol_id *folder, uint64_t client)
{
	uint64_t own = bit_of(g->v, client);
	uint32_t n = 0;

	if (!folder_others(g, folder, own))
		return 0;
	for (uint32_t i = 0; i < SLOTS; i++)
		n += born_in(g, &g->v->leases.slot[i], folder, own);
	return n;
}

void lease_take_folder(struct grp *g, const struct vol_id *folder, struct op *o, uint64_t client)
{
	struct leases *l = &g->v->leases;
	uint64_t own = bit_of(g->v, client);
	struct vol_ino ino = {*folder, 0};
	struct lease *e;

	if (!folder_others(g, folder, own))
		return;
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct proto_push what = {.type = PUSH_INODE};
		uint64_t mask;

		e = &l->slot[i];
		if (!born_in(g, e, folder, own))
			continue;
		mask = e->mask & ~own;
		what.ino = e->ino;
		e->mask &= own;
		if (!e->mask) {
			drop(l, e);
			i--; /* another one may have moved here */
		}
		push_to(g, mask, &what, o);
	}
	e = find(l, g->idx, &ino, LEASE_FOLDER);
	e->mask &= own;
	if (!e->mask)
		drop(l, e);
}

static bool entry_of(const struct record *rec, const struct vol_id *folder)
{
	for (uint32_t i = 0; i < rec->n; i++)
		if (rec->effect[i].key_len > 17 && rec->effect[i].key[0] == 'E' &&
		    memcmp(rec->effect[i].key + 1, folder->b, 16) == 0)
			return true;
	return false;
}

/* Nobody makes anything in it any more. */
static void folder_gone(struct grp *g, const struct vol_ino *ino)
{
	struct lease *e = find(&g->v->leases, g->idx, ino, LEASE_FOLDER);

	if (e)
		drop(&g->v->leases, e);
}

static void key_changed(struct grp *g, const struct record *rec, const struct effect *e, struct op *o,
			uint64_t own)
{
	struct vol_ino ino;

	if (e->key_len < 17)
		return;
	key_ino(e, &ino);
	switch (e->key[0]) {
	case 'E':
		ino.num = 0;
		entry_changed(g, &ino, e->key + 17, e->key_len - 17, o, own);
		break;
	case 'I':
		if (ino.num == 0 && e->type == EFFECT_DEL)
			folder_gone(g, &ino);
		if (ino.num == 0 && entry_of(rec, &ino.folder))
			break; /* its holders hear of the entry */
		inode_changed(g, &ino, LEASE_INODE, o, own);
		break;
	case 'X':
		inode_changed(g, &ino, LEASE_INODE, o, own);
		break;
	case 'L':
		inode_changed(g, &ino, LEASE_LOCK, o, own);
		break;
	default:
		break;
	}
}

void lease_invalidate(struct grp *g, const struct record *rec, struct op *o, uint64_t client)
{
	struct session *s;
	uint64_t own = 0;

	for (uint32_t i = 0; i < rec->n; i++) { /* also who has lost its last name */
		const struct effect *e = &rec->effect[i];
		struct vol_ino ino;

		if (e->type == EFFECT_PUT && e->key[0] == 'O' && e->key_len == 25) {
			key_ino(e, &ino);
			orphan_add(g, &ino, 0);
		}
	}
	if (g->v->leases.n == 0)
		return;
	s = session_of(g->v, client);
	if (s && s->slot < SESSIONS_LEASED)
		own = 1ull << s->slot;
	for (uint32_t i = 0; i < rec->n; i++) {
		const struct effect *e = &rec->effect[i];

		if (e->type == EFFECT_PUT || e->type == EFFECT_DEL)
			key_changed(g, rec, e, o, own);
		else if (e->type != EFFECT_NOTE)
			inode_changed(g, &e->ino, LEASE_INODE, o, own);
	}
}
