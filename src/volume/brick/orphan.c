/* SPDX-License-Identifier: Apache-2.0 */
/* orphan: files without a name that may still be open somewhere. The primary asks every session a second after the last name went, and again every 10 s;
 * when nobody has it open, VFS_REAP removes it, many at once. Who does not answer within its session's time counts as gone, and with it its
 * open files.
 *
 * Data goes from the disks at once, and records may be lost when all members lose power: then a name that had been removed, or replaced by a rename, would be
 * back and what was synced under it gone. So first everybody makes durable that it has no name, at most every SYNC_EVERY_MS for all that wait.
 *
 * Bound: ORPHANS_MAX a group in memory; what is beyond lies in the keys (O) and is found by the next look there. */
#include "volume/brick/internal.h"

#define ASK_AFTER_MS  1000
#define AGAIN_MS      10000
#define ORPHANS_MAX   65536u
#define ASK_MAX	      256 /* a tick of 100 ms */
#define BATCH_MAX     20
#define RELIST_MS     60000
#define SYNC_EVERY_MS 300
#define SWEEP_MS      3600000

struct reap {
	struct vol *v;
	uint32_t group, n;
	uint64_t serial;
	struct vol_ino ino[BATCH_MAX];
};

void orphan_add(struct grp *g, const struct vol_ino *ino, uint64_t due_ms)
{
	struct orphan *o;

	if (g->n_orphans >= ORPHANS_MAX)
		return;
	o = xcalloc(1, sizeof(*o));
	o->ino = *ino;
	o->due_ms = due_ms ? due_ms : clock_ms() + ASK_AFTER_MS;
	*g->orphans_last = o;
	g->orphans_last = &o->next;
	g->n_orphans++;
}

static void unlink_first(struct grp *g)
{
	g->orphans = g->orphans->next;
	if (!g->orphans)
		g->orphans_last = &g->orphans;
	g->n_orphans--;
}

static void later(struct grp *g, struct orphan *o, uint64_t now)
{
	orphan_add(g, &o->ino, now + AGAIN_MS);
	free(o);
}

/* ---- asking ---- */

static bool ask(struct grp *g, struct orphan *o)
{
	struct vol *v = g->v;
	struct proto_push what = {.type = PUSH_ORPHAN, .ino = o->ino};

	o->asked = 0;
	o->open = false;
	for (uint32_t i = 0; i < v->sessions_end; i++)
		if (v->session[i]) {
			struct push *p = session_push(v->session[i], g->idx, &what);

			p->orphan = o;
			p->orphan_of = g;
			o->asked++;
		}
	return o->asked > 0;
}

void orphan_answer(struct grp *g, struct orphan *o, bool open)
{
	o->open |= open;
	if (--o->asked > 0)
		return;
	for (struct orphan **at = &g->asking; *at; at = &(*at)->next)
		if (*at == o) {
			*at = o->next;
			break;
		}
	if (o->open) {
		later(g, o, clock_ms());
		return;
	}
	o->next = g->closed;
	g->closed = o;
}

/* ---- removing ---- */

static void on_reaped(void *ctx, int status, struct vfs_result *res)
{
	struct reap *r = ctx;
	struct vol *v = r->v;
	struct grp *g = v->open && !v->closing ? v->grp[r->group] : NULL;

	if (g && g->serial == r->serial && g->role == REPL_PRIMARY) {
		bool again = status < 0 || !res || res->err < 0 || (res->flags & VFS_MORE);

		/* Those that were left are asked for again: the first one may have been striped, or there was no room for all. */
		v->b->n.orphans_reaped += again ? 0 : r->n;
		for (uint32_t i = 0; i < r->n; i++) {
			struct vfs_attr a;

			if (vfs_stat(&g->vfs, &r->ino[i], &a) == 0 && a.nlink == 0)
				orphan_add(g, &r->ino[i], clock_ms() + (again && status < 0 ? 1000 : 1));
		}
	}
	vol_unref(v);
	free(r);
}

/* Their names are gone for good, or nobody knows. */
static void on_durable(void *ctx, int status, struct vfs_result *res)
{
	struct reap *r = ctx;
	struct vol *v = r->v;
	struct grp *g = v->open && !v->closing ? v->grp[r->group] : NULL;

	if (g && g->serial == r->serial) {
		struct orphan **to = status < 0 || !res || res->err < 0 ? &g->closed : &g->nameless;

		for (struct orphan *o = take_ptr(g->syncing), *next; o; o = next) {
			next = o->next;
			o->next = *to;
			*to = o;
		}
	}
	vol_unref(v);
	free(r);
}

static void make_durable(struct grp *g)
{
	struct vfs_op vop = {.type = VFS_FSYNC, .flags = VFS_FOREIGN, .ino = g->closed->ino};
	struct reap *r = xcalloc(1, sizeof(*r));

	*r = (struct reap){.v = g->v, .group = g->idx, .serial = g->serial};
	g->syncing = take_ptr(g->closed);
	g->v->refs++;
	op_own(g, &vop, on_durable, r);
}

static void reap(struct grp *g)
{
	struct reap *r = xcalloc(1, sizeof(*r));
	struct vfs_op vop = {.type = VFS_REAP};
	uint8_t more[BATCH_MAX * 24];

	*r = (struct reap){.v = g->v, .group = g->idx, .serial = g->serial};
	while (g->nameless && r->n < BATCH_MAX) {
		struct orphan *o = g->nameless;

		g->nameless = o->next;
		if (r->n > 0) {
			memcpy(more + (r->n - 1) * 24, o->ino.folder.b, 16);
			memcpy(more + (r->n - 1) * 24 + 16, &o->ino.num, 8);
		}
		r->ino[r->n++] = o->ino;
		free(o);
	}
	vop.ino = r->ino[0];
	vop.data = more;
	vop.data_len = (r->n - 1) * 24;
	g->v->refs++;
	op_own(g, &vop, on_reaped, r);
}

/* ---- life ---- */

static void relist(struct grp *g)
{
	struct vol_ino ino, after;
	int64_t since;
	bool first = true;

	while (g->n_orphans < ORPHANS_MAX &&
	       vfs_orphan_iter(&g->vfs, first ? NULL : &after, &ino, &since) == 0) {
		orphan_add(g, &ino, 0);
		after = ino;
		first = false;
	}
}

/* Answers that were kept for clients that are long gone: some a record, until the end of the keys. */
struct sweep {
	struct vol *v;
	uint32_t group;
	uint64_t serial;
	uint8_t key[16];
	uint16_t len;
};

static void sweep(struct sweep *s);

static void on_swept(void *ctx, int status, struct vfs_result *res)
{
	struct sweep *s = ctx;

	if (status == 0 && res->err == 0 && (res->flags & VFS_MORE) && res->data.len <= sizeof(s->key)) {
		s->len = (uint16_t)res->data.len;
		memcpy(s->key, res->data.data, res->data.len);
		sweep(s);
		return;
	}
	vol_unref(s->v);
	free(s);
}

static void sweep(struct sweep *s)
{
	struct grp *g = s->v->open && !s->v->closing ? s->v->grp[s->group] : NULL;
	struct vfs_op vop = {.type = VFS_SWEEP, .name = (const char *)s->key, .name_len = s->len};

	if (g && g->serial == s->serial)
		op_own(g, &vop, on_swept, s);
	else
		on_swept(s, -ESTALE, NULL);
}

void orphans_tick(struct grp *g, uint64_t now)
{
	if (g->role != REPL_PRIMARY)
		return;
	for (int n = 0; n < ASK_MAX && g->orphans && g->orphans->due_ms <= now; n++) {
		struct orphan *o = g->orphans;

		unlink_first(g);
		if (ask(g, o)) {
			o->next = g->asking;
			g->asking = o;
		} else {
			o->next = g->closed;
			g->closed = o;
		}
	}
	if (g->closed && !g->syncing && now >= g->orphans_ms) {
		g->orphans_ms = now + SYNC_EVERY_MS;
		make_durable(g);
	}
	for (int n = 0; n < ASK_MAX / BATCH_MAX && g->nameless; n++)
		reap(g);
	if (now >= g->relist_ms) { /* those that did not fit */
		g->relist_ms = now + RELIST_MS;
		if (!g->orphans && !g->asking && !g->closed && !g->syncing && !g->nameless)
			relist(g);
	}
	if (now >= g->sweep_ms) {
		struct sweep *s = xcalloc(1, sizeof(*s));

		*s = (struct sweep){.v = g->v, .group = g->idx, .serial = g->serial};
		g->v->refs++;
		g->sweep_ms = now + SWEEP_MS;
		sweep(s);
	}
}

void orphans_primary(struct grp *g)
{
	relist(g);
	g->relist_ms = clock_ms() + RELIST_MS;
	g->sweep_ms = clock_ms() + SWEEP_MS;
}

static void list_free(struct vol *v, struct orphan **list)
{
	for (struct orphan *o = take_ptr(*list), *next; o; o = next) {
		next = o->next;
		pushes_forget_orphan(v, o);
		free(o);
	}
}

void orphans_lost(struct grp *g)
{
	list_free(g->v, &g->orphans);
	list_free(g->v, &g->asking);
	list_free(g->v, &g->closed);
	list_free(g->v, &g->syncing);
	list_free(g->v, &g->nameless);
	g->orphans_last = &g->orphans;
	g->n_orphans = 0;
}
