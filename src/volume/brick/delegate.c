/* SPDX-License-Identifier: Apache-2.0 */
/* delegate: folders that are one client's alone (core/vfs/delegate.c), at the primary of their group.
 *
 * While a folder is delegated, whatever anybody else wants of it - of its names, of it, of the files born in it - is not executed: what the brick has may be
 * older than what the holder has told its programs. The holder is sent a PUSH_RECALL, once, and the other is refused with -EAGAIN: it asks again,
 * in milliseconds. The holder sends what waits and gives the folder back (VFS_UNDELEGATE), and the next try goes on. Who is kept away:
 *   clients: what names the folder or a file born in it; what would change one of those by another name (seen by the record's effects) or show one;
 *   steps of intents, whosoever: their drivers ask again;
 *   reads of a backup: sent to the primary.
 * Not: UNLOCK_ALL, parts of files of other groups (VFS_FOREIGN), the brick's own operations (removing what has no name is one).
 *
 * It ends by the holder, by itself two seconds after the holder's session has ended, and five seconds after a recall that was not followed: then the brick
 * sends UNDELEGATE, and what the holder sends later does nothing (-ESTALE). A new primary finds the delegations in the keys; one whose holder has no
 * session with it lasts as long as a session would since it became primary.
 *
 * The table follows the records as they are submitted, so it is never behind the keys. Before a delegation is answered, what others keep of the folder
 * under caching leases is taken back; nobody gets such a lease while it lasts, because nobody gets that far.
 *
 * Bounds: DELEGATIONS_MAX a group, one recall each; LEASES_TAKEN_MAX leases are taken back for one. */
#include "volume/brick/internal.h"

#define DELEGATIONS_MAX 1024u
#define BUCKETS		256u
#define RESTS		64u
#define REST_MS \
	1000u /* a folder that others wanted is not given away again at once: they must get their turn */
#define RECALL_MS	 5000u
#define TAKE_AGAIN_MS	 200u
#define LEASES_TAKEN_MAX 1024u

struct delegation {
	struct delegation *next;
	struct vol_id folder;
	uint64_t client;
	uint64_t recall_ms; /* 0 = nobody else wants it */
	uint64_t pushed;    /* which dialling of the session was told */
	uint64_t take_ms;   /* not before: the next UNDELEGATE of the brick */
};

struct delegations {
	struct delegation *bucket[BUCKETS];
	uint32_t n;
	uint64_t epoch; /* loaded in; 0 = not */
	struct {
		struct vol_id folder;
		uint64_t until_ms;
	} rest[RESTS];
};

/* ---- table ---- */

static uint32_t hash(const struct vol_id *folder)
{
	uint64_t a;

	memcpy(&a, folder->b + 8, 8);
	return (uint32_t)((a * 0x9e3779b97f4a7c15ull) >> 40);
}

static struct delegation *find(const struct grp *g, const struct vol_id *folder)
{
	struct delegation *d = g->delegations->n ? g->delegations->bucket[hash(folder) % BUCKETS] : NULL;

	while (d && !vol_id_eq(&d->folder, folder))
		d = d->next;
	return d;
}

static void drop(struct grp *g, struct delegation *d)
{
	struct delegations *t = g->delegations;
	struct delegation **at = &t->bucket[hash(&d->folder) % BUCKETS];

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	t->n--;
	if (d->recall_ms) {
		uint32_t i = hash(&d->folder) % RESTS;

		t->rest[i].folder = d->folder;
		t->rest[i].until_ms = clock_ms() + REST_MS;
	}
	free(d);
}

/* As the keys have it now. */
static void follow(struct grp *g, const struct vol_id *folder)
{
	struct delegation *d = find(g, folder);
	uint64_t client;
	bool there = vfs_delegation(&g->vfs, folder, &client) == 0;

	if (d && (!there || d->client != client)) {
		drop(g, d);
		d = NULL;
	}
	if (d || !there)
		return;
	d = xcalloc(1, sizeof(*d));
	d->folder = *folder;
	d->client = client;
	d->next = g->delegations->bucket[hash(folder) % BUCKETS];
	g->delegations->bucket[hash(folder) % BUCKETS] = d;
	g->delegations->n++;
}

/* What the table has stays, with its recalls; what the keys have comes in. */
static int load(struct grp *g)
{
	struct delegations *t = g->delegations;
	struct vol_id folder, after;
	uint64_t client;
	int r;

	for (uint32_t i = 0; i < BUCKETS; i++)
		for (struct delegation *d = t->bucket[i], *next; d; d = next) {
			next = d->next;
			after = d->folder;
			follow(g, &after);
		}
	for (r = vfs_delegation_iter(&g->vfs, NULL, &folder, &client); r == 0;
	     r = vfs_delegation_iter(&g->vfs, &after, &folder, &client)) {
		follow(g, &folder);
		after = folder;
	}
	if (r != -ENOENT)
		return r;
	t->epoch = g->view.epoch;
	return 0;
}

/* The role is acted upon at the end of a turn, but operations come before that: so the first one of an epoch that needs the table loads it. */
static int loaded(struct grp *g)
{
	if (!g->delegations)
		g->delegations = xcalloc(1, sizeof(*g->delegations));
	return g->delegations->epoch == g->view.epoch ? 0 : load(g);
}

void delegations_primary(struct grp *g)
{
	int r = loaded(g);

	if (r < 0)
		log_warn("volume %s, group %u: cannot read who has its folders: %s", g->v->name, g->idx,
			 strerror(-r));
	else if (g->delegations->n > 0)
		log_info("volume %s, group %u: %u folders are delegated", g->v->name, g->idx,
			 g->delegations->n);
}

void delegations_lost(struct grp *g)
{
	struct delegations *t = take_ptr(g->delegations);

	for (uint32_t i = 0; t && i < BUCKETS; i++)
		for (struct delegation *d = t->bucket[i], *next; d; d = next) {
			next = d->next;
			free(d);
		}
	free(t);
}

uint32_t delegations_count(const struct grp *g)
{
	return g->delegations ? g->delegations->n : 0;
}

void delegations_changed(struct grp *g, const struct record *rec)
{
	struct vol_id folder;

	if (!g->delegations) /* will be loaded */
		return;
	for (uint32_t i = 0; i < rec->n; i++) {
		const struct effect *e = &rec->effect[i];

		if ((e->type != EFFECT_PUT && e->type != EFFECT_DEL) || e->key_len != 17 || e->key[0] != 'N')
			continue;
		memcpy(folder.b, e->key + 1, 16);
		follow(g, &folder);
	}
}

/* ---- recall ---- */

static void tell(struct grp *g, struct delegation *d)
{
	struct session *s = session_of(g->v, d->client);
	struct proto_push what = {.type = PUSH_RECALL, .ino = {d->folder, 0}};

	if (!s || !s->c || s->dial == d->pushed)
		return;
	d->pushed = s->dial;
	session_push(s, g->idx, &what);
}

static void recall(struct grp *g, struct delegation *d)
{
	if (!d->recall_ms) {
		d->recall_ms = clock_ms();
		g->v->b->n.recalls++;
	}
	tell(g, d);
}

/* Is it somebody else's? Then it is wanted back. client 0: a step's, so everybody is somebody else. */
static bool taken(struct grp *g, const struct vol_id *folder, uint64_t client)
{
	struct delegation *d = find(g, folder);

	if (!d || d->client == client)
		return false;
	recall(g, d);
	return true;
}

/* ---- the gate ---- */

static bool is_step(const struct vfs_op *vop)
{
	return vop->type >= VFS_STEP_MAKE_FOLDER;
}

static bool let_through(const struct vfs_op *vop)
{
	switch (vop->type) {
	case VFS_STATFS:
	case VFS_DELEGATE: /* answers -EBUSY */
	case VFS_UNDELEGATE:
	case VFS_UNLOCK_ALL:
	case VFS_SWEEP:
	case VFS_REAP:
	case VFS_TRIM:
	case VFS_STEP_ASK:
		return true;
	default:
		return vop->flags & VFS_FOREIGN;
	}
}

/* The folder that would be removed if it is empty, which only its holder knows. */
static bool would_kill(struct grp *g, const struct vfs_op *vop, uint64_t client)
{
	struct vol_ino victim;
	int r = -ENOENT;

	if (vop->type == VFS_RMDIR)
		r = vfs_name(&g->vfs, &vop->ino.folder, vop->name, vop->name_len, &victim);
	else if (vop->type == VFS_RENAME)
		r = vfs_name(&g->vfs, &vop->ino2.folder, vop->name2, vop->name2_len, &victim);
	return r == 0 && victim.num == 0 && taken(g, &victim.folder, client);
}

/* A backup has no table. */
static int gate_backup(struct grp *g, const struct vfs_op *vop, uint64_t client)
{
	uint64_t holder;
	int r = vfs_delegation(&g->vfs, &vop->ino.folder, &holder);

	return r == -ENOENT || (r == 0 && holder == client) ? 0 : -ESTALE;
}

int delegation_gate(struct grp *g, const struct vfs_op *vop, uint64_t client)
{
	int r;

	if (is_step(vop))
		client = 0;
	if (repl_role(g->repl) != REPL_PRIMARY)
		return let_through(vop) ? 0 : gate_backup(g, vop, client);
	r = loaded(g);
	if (r < 0)
		return -EAGAIN;
	if (g->delegations->n == 0 || let_through(vop))
		return 0;
	return taken(g, &vop->ino.folder, client) || taken(g, &vop->ino2.folder, client) ||
			       taken(g, &vop->target.folder, client) || would_kill(g, vop, client)
		       ? -EAGAIN
		       : 0;
}

/* Names and inodes; what is only removed because it had no name is not the holder's any more. */
static bool of_holder(const struct effect *e)
{
	if ((e->type != EFFECT_PUT && e->type != EFFECT_DEL) || e->key_len < 17)
		return false;
	return e->key[0] == 'E' || (e->type == EFFECT_PUT && (e->key[0] == 'I' || e->key[0] == 'X'));
}

bool delegation_bars(struct grp *g, const struct record *rec, uint64_t client)
{
	struct vol_id folder;

	if (loaded(g) < 0)
		return true;
	if (g->delegations->n == 0)
		return false;
	for (uint32_t i = 0; i < rec->n; i++) {
		if (!of_holder(&rec->effect[i]))
			continue;
		memcpy(folder.b, rec->effect[i].key + 1, 16);
		if (taken(g, &folder, client))
			return true;
	}
	return false;
}

/* Of an inode that was found by a name elsewhere. */
static bool hidden(struct grp *g, const struct vfs_op *vop, const struct vfs_attr *a, uint64_t client)
{
	uint64_t holder;

	if (a->mode == 0 || vol_id_eq(&a->ino.folder, &vop->ino.folder))
		return false;
	if (repl_role(g->repl) == REPL_PRIMARY)
		return taken(g, &a->ino.folder, client);
	return vfs_delegation(&g->vfs, &a->ino.folder, &holder) == 0 && holder != client;
}

bool delegation_hides(struct grp *g, const struct vfs_op *vop, const struct vfs_result *res, uint64_t client)
{
	bool primary = repl_role(g->repl) == REPL_PRIMARY;
	struct vfs_entry e;
	size_t at = 0;

	if (primary && loaded(g) < 0)
		return true;
	if ((primary && g->delegations->n == 0) || let_through(vop))
		return false;
	if (!(res->flags & VFS_NO_ATTR) && hidden(g, vop, &res->attr, client))
		return true;
	while (vop->type == VFS_READDIR && vfs_entry_decode(res->data.data, res->data.len, &at, &e) == 0)
		if (e.has_attr && hidden(g, vop, &e.attr, client))
			return true;
	return false;
}

/* ---- giving ---- */

int delegation_may(struct grp *g, const struct vfs_op *vop)
{
	const struct vol_id *folder = &vop->ino.folder;
	struct session *s = session_of(g->v, vop->id.client);
	const struct delegation *d;
	uint32_t i = hash(folder) % RESTS;

	if (loaded(g) < 0 || !s || !s->leased || !s->c)
		return -EBUSY;
	d = find(g, folder);
	if (d ? d->client != vop->id.client || d->recall_ms : g->delegations->n >= DELEGATIONS_MAX)
		return -EBUSY;
	if (vol_id_eq(&g->delegations->rest[i].folder, folder) &&
	    clock_ms() < g->delegations->rest[i].until_ms)
		return -EBUSY;
	return lease_others(g, folder, vop->id.client) > LEASES_TAKEN_MAX ? -EBUSY : 0;
}

/* ---- taking ---- */

static void nobody(void *ctx, int status, struct vfs_result *res)
{
	(void)ctx, (void)status, (void)res;
}

/* d is gone when this is under way: it was submitted. */
static void take(struct grp *g, struct delegation *d, uint64_t now, const char *why)
{
	struct vfs_op vop = {.type = VFS_UNDELEGATE, .ino = {d->folder, 0}, .id.client = d->client};

	log_info("volume %s, group %u: a folder of client %016llx is taken back: %s", g->v->name, g->idx,
		 (unsigned long long)d->client, why);
	d->take_ms = now + TAKE_AGAIN_MS;
	op_own(g, &vop, nobody, NULL);
}

static void look(struct grp *g, struct delegation *d, uint64_t now)
{
	if (now < d->take_ms)
		return;
	if (!session_of(g->v, d->client)) {
		if (now - g->primary_ms >= SESSION_END_MS)
			take(g, d, now, "it is gone");
	} else if (d->recall_ms && now - d->recall_ms >= RECALL_MS) {
		take(g, d, now, "it did not give it back");
	} else if (d->recall_ms) {
		tell(g, d); /* it may have dialled anew */
	}
}

void delegations_tick(struct grp *g, uint64_t now)
{
	if (g->role != REPL_PRIMARY || repl_role(g->repl) != REPL_PRIMARY || !g->delegations ||
	    g->delegations->n == 0 || loaded(g) < 0)
		return;
	for (uint32_t i = 0; i < BUCKETS; i++)
		for (struct delegation *d = g->delegations->bucket[i], *next; d; d = next) {
			next = d->next;
			look(g, d, now);
		}
}
