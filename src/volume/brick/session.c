/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions of clients: pings, pushes and their answers, and what happens when one ends. docs/protocol/volume.md "Sessions and caching leases".
 *
 * Two ends. Its leases end 1,100 ms after the last ping that was heard (the client counts 1,000 from the sending of it), or at once when the client
 * closed the connection in order: then what waited for its answers goes on. The session itself ends after 2,000 ms: its locks are released in every
 * group that this brick is primary of. A client that dials again within that time continues its session, without leases.
 *
 * Bounds: SESSIONS_MAX a volume; only the first SESSIONS_LEASED slots may hold caching leases. */
#include "volume/brick/internal.h"

struct session *session_of(struct vol *v, uint64_t client)
{
	for (uint32_t i = 0; i < v->sessions_end; i++)
		if (v->session[i] && v->session[i]->client == client)
			return v->session[i];
	return NULL;
}

/* ---- pushes ---- */

static void push_done(struct push *p, bool open)
{
	struct op *o = p->op;

	if (o && --o->pushes == 0)
		op_settle(o);
	if (p->reset_of) {
		p->reset_of->resets--;
		grp_mark(p->reset_of);
	}
	if (p->orphan)
		orphan_answer(p->orphan_of, p->orphan, open);
	free(p);
}

struct push *session_push(struct session *s, uint32_t group, const struct proto_push *what)
{
	struct brick *b = s->v->b;
	struct push *p = xcalloc(1, sizeof(*p));

	p->request = ++b->next_request;
	p->group = group;
	p->next = s->pushes;
	s->pushes = p;
	b->n.pushes++;
	if (s->c) { /* else its leases end soon */
		struct proto_head h = {
			.type = FRAME_PUSH, .request = p->request, .volume = s->v->tag, .group = group};

		proto_push_encode(what, bconn_begin(s->c));
		bconn_end(s->c, &h, NULL);
	}
	return p;
}

static void pushes_end(struct session *s)
{
	for (struct push *p = take_ptr(s->pushes), *next; p; p = next) {
		next = p->next;
		push_done(p, false);
	}
}

void push_drop_op(struct vol *v, struct op *o)
{
	for (uint32_t i = 0; o->pushes > 0 && i < v->sessions_end; i++)
		for (struct push *p = v->session[i] ? v->session[i]->pushes : NULL; p; p = p->next)
			if (p->op == o) {
				p->op = NULL;
				o->pushes--;
			}
	ensure(o->pushes == 0);
}

void pushes_forget_orphan(struct vol *v, const struct orphan *o)
{
	for (uint32_t i = 0; i < v->sessions_end; i++)
		for (struct push *p = v->session[i] ? v->session[i]->pushes : NULL; p; p = p->next)
			if (p->orphan == o)
				p->orphan = NULL;
}

/* The group's operations that wait for pushes only are refused; resets do not matter any more. */
void pushes_fail_group(struct grp *g)
{
	struct vol *v = g->v;

	for (uint32_t i = 0; i < v->sessions_end; i++)
		for (struct push *p = v->session[i] ? v->session[i]->pushes : NULL; p; p = p->next) {
			struct op *o = p->op;

			if (p->group != g->idx)
				continue;
			p->reset_of = NULL;
			if (!o)
				continue;
			p->op = NULL;
			if (--o->pushes == 0)
				op_refuse(o, -ESTALE);
		}
	g->resets = 0;
}

void sessions_reset(struct grp *g)
{
	struct vol *v = g->v;
	struct proto_push what = {.type = PUSH_RESET};

	for (uint32_t i = 0; i < v->sessions_end; i++)
		if (v->session[i] && v->session[i]->leased) {
			session_push(v->session[i], g->idx, &what)->reset_of = g;
			g->resets++;
		}
}

/* ---- life ---- */

static int slot_free(const struct vol *v)
{
	for (uint32_t i = 0; i < SESSIONS_MAX; i++)
		if (!v->session[i])
			return (int)i;
	return -EMFILE;
}

int session_hello(struct conn *c, struct vol *v, const struct proto_hello *h)
{
	struct side *side = c->owner;
	struct session *s = session_of(v, h->client);
	int slot;

	if (!s) {
		slot = slot_free(v);
		if (slot < 0)
			return slot;
		s = v->session[slot] = xcalloc(1, sizeof(*s));
		s->v = v;
		s->client = h->client;
		s->slot = (uint32_t)slot;
		v->n_sessions++;
		v->sessions_end = MAX(v->sessions_end, s->slot + 1);
		log_info("volume %s: client %016llx of %s", v->name, (unsigned long long)h->client, h->name);
	} else {
		struct conn *old = s->c;

		s->c = NULL;
		if (old) {
			((struct side *)old->owner)->session = NULL;
			bconn_close(old, -ESTALE, NULL);
		}
		s->leased = false; /* it dropped what it kept before it dialled again */
		lease_end_session(v, s->slot);
		pushes_end(s);
	}
	snprintf(s->name, sizeof(s->name), "%s", h->name);
	s->c = c;
	s->dial = ++side->b->next_request;
	s->leased = true;
	s->ping_ms = clock_ms();
	side->session = s;
	return 0;
}

static void leases_ended(struct session *s)
{
	s->leased = false;
	lease_end_session(s->v, s->slot);
	pushes_end(s);
}

/* Locks of a client that is gone, in one group: some a record, until none is left. */
struct unlock {
	struct vol *v;
	uint32_t group;
	uint64_t serial, client;
};

static void unlock(struct unlock *u);

static void on_unlocked(void *ctx, int status, struct vfs_result *res)
{
	struct unlock *u = ctx;

	if (status == 0 && res->err == 0 && (res->flags & VFS_MORE)) {
		unlock(u);
		return;
	}
	vol_unref(u->v);
	free(u);
}

static void unlock(struct unlock *u)
{
	struct grp *g = u->v->open && !u->v->closing ? u->v->grp[u->group] : NULL;
	struct vfs_op vop = {.type = VFS_UNLOCK_ALL, .id.client = u->client};

	if (g && g->serial == u->serial && !session_of(u->v, u->client))
		op_own(g, &vop, on_unlocked, u);
	else
		on_unlocked(u, -ESTALE, NULL);
}

static void unlock_all(struct vol *v, uint64_t client)
{
	for (uint32_t i = 0; !v->closing && i < v->doc.map->n_groups; i++) {
		struct unlock *u;

		if (!v->grp[i] || v->grp[i]->role != REPL_PRIMARY)
			continue;
		u = xcalloc(1, sizeof(*u));
		*u = (struct unlock){v, i, v->grp[i]->serial, client};
		v->refs++;
		unlock(u);
	}
}

static void session_end(struct session *s)
{
	struct vol *v = s->v;

	log_info("volume %s: client %016llx of %s is gone", v->name, (unsigned long long)s->client, s->name);
	leases_ended(s);
	v->session[s->slot] = NULL;
	v->n_sessions--;
	while (v->sessions_end > 0 && !v->session[v->sessions_end - 1])
		v->sessions_end--;
	unlock_all(v, s->client);
	free(s);
}

void session_closed(struct session *s, int err)
{
	s->c = NULL;
	if (err == 0) { /* in order: the client's process ended, or it dropped what it kept */
		leases_ended(s);
		s->closed = true;
	}
}

void sessions_tick(struct vol *v, uint64_t now)
{
	for (uint32_t i = 0; i < v->sessions_end; i++) {
		struct session *s = v->session[i];

		if (!s)
			continue;
		if (s->leased && now - s->ping_ms > LEASE_END_MS)
			leases_ended(s);
		if (now - s->ping_ms > SESSION_END_MS) {
			struct conn *c = s->c;

			if (c) {
				((struct side *)c->owner)->session = NULL;
				bconn_close(c, -ETIMEDOUT, NULL);
			}
			session_end(s);
		}
	}
}

void sessions_done(struct vol *v)
{
	for (uint32_t i = 0; i < SESSIONS_MAX; i++) {
		struct session *s = v->session[i];

		if (!s)
			continue;
		if (s->c) {
			((struct side *)s->c->owner)->session = NULL;
			bconn_close(s->c, -ENODEV, NULL);
		}
		pushes_end(s);
		free(s);
		v->session[i] = NULL;
	}
	v->n_sessions = v->sessions_end = 0;
}

/* ---- frames ---- */

static void answer_in(struct session *s, const struct proto_head *h)
{
	for (struct push **at = &s->pushes; *at; at = &(*at)->next) {
		struct push *p = *at;

		if (p->request != h->request)
			continue;
		*at = p->next;
		push_done(p, h->status == 1);
		return;
	}
}

int session_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why)
{
	struct side *side = c->owner;
	struct session *s = side->session;

	if (h->type == FRAME_PUSH) {
		if (s)
			answer_in(s, h);
		return 0;
	}
	if (s) {
		s->ping_ms = clock_ms();
		/* Leases that had ended by time are not taken up again: the client dropped all. From now on it may have new ones. */
		s->leased = true;
	}
	op_text(c, h, 0, "");
	return 0;
}
