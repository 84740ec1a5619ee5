/* SPDX-License-Identifier: Apache-2.0 */
/* intent: drives operations over two groups. An intent lies in its group's keys; while this member is the group's primary, each has an entry in g->intents
 * whose struct vfs_drive decides what is next (core/vfs/drive.c). Here: steps go to a group of this process directly, else over the link to the brick of its
 * primary; records are submitted; clients that wait are answered.
 * The step's answer goes into a record of this group (vfs_intent_done): the next state, or the end, and then the client that waits is answered when
 * that record is committed. A new primary takes up all it finds. Steps are idempotent (vfs.h), so each may be sent any number of times.
 *
 * Bound: VFS_INTENTS_MAX a group, by core/vfs. An intent is never given up while this member is primary. */
#include "volume/brick/internal.h"

struct intent {
	struct intent *next;
	struct grp *g;
	struct vfs_drive d;
	struct op *waiters;
};

/* What a step's answer needs to find its intent again. */
struct step {
	struct vol *v;
	uint32_t group;
	uint64_t serial, try;
	uint8_t id[16];
};

static struct intent *find(struct grp *g, const uint8_t id[16])
{
	struct intent *in = g->intents;

	while (in && memcmp(in->d.id, id, 16) != 0)
		in = in->next;
	return in;
}

static struct intent *add(struct grp *g, const uint8_t id[16], uint64_t seq)
{
	struct intent *in = xcalloc(1, sizeof(*in));

	in->g = g;
	vfs_drive_init(&in->d, id, seq);
	in->next = g->intents;
	g->intents = in;
	return in;
}

/* It is gone from the keys (or this member is no longer primary): whoever still waits tries again and hears the answer that was kept. */
static void drop(struct intent *in)
{
	struct intent **at = &in->g->intents;

	while (*at != in)
		at = &(*at)->next;
	*at = in->next;
	for (struct op *o = in->waiters, *next; o; o = next) {
		next = o->next;
		o->next = NULL;
		op_refuse(o, -EAGAIN);
	}
	free(in);
}

void intent_attach(struct op *o, const uint8_t id[16], uint64_t seq)
{
	struct intent *in = find(o->g, id);

	if (!in)
		in = add(o->g, id, seq);
	o->next = in->waiters;
	in->waiters = o;
	vfs_result_done(&o->res);
	o->res = (struct vfs_result){0};
	grp_mark(o->g);
}

static void nobody(void *ctx, int status, struct vfs_result *res)
{
	(void)ctx, (void)status, (void)res;
}

/* The record that comes of a step's answer. With the last one goes the answer of one of those who wait; the others ask again. */
static void submit(struct intent *in, struct record *rec, bool finished, struct vfs_result *res)
{
	struct grp *g = in->g;
	struct op *o = finished ? in->waiters : NULL;
	uint64_t client = in->waiters ? in->waiters->client : 0;
	int r;

	if (o) {
		in->waiters = o->next;
		o->next = NULL;
	} else {
		o = op_new(g, NULL);
		o->done = nobody;
	}
	r = delegation_bars(g, rec, client) ? -EAGAIN : op_submit(o, rec);
	vfs_drive_submitted(&in->d, r, rec->seq, clock_ms());
	if (r < 0) {
		if (o->done) {
			op_refuse(o, r);
		} else {
			o->next = in->waiters;
			in->waiters = o;
		}
		return;
	}
	if (finished) {
		o->res = *res;
		*res = (struct vfs_result){0};
		op_grant_folder(o);
		g->v->b->n.intents_driven++;
	}
	op_queue(o);
	if (finished)
		drop(in);
}

static void stepped(struct intent *in, uint64_t try, int status, const struct vfs_result *answer)
{
	struct grp *g = in->g;
	struct record *rec = record_new(g->idx);
	struct vfs_result res;
	bool finished;

	in->d.err = 0;
	switch (vfs_drive_answer(&g->vfs, &in->d, try, status, answer, clock_ms(), clock_wall_us() * 1000,
				 rec, &res, &finished)) {
	case VFS_DRIVE_GONE:
		drop(in);
		break;
	case VFS_DRIVE_SUBMIT:
		submit(in, rec, finished, &res);
		break;
	default:
		if (in->d.err < 0)
			log_warn("volume %s, group %u: an operation over two groups: %s", g->v->name, g->idx,
				 strerror(-in->d.err));
		grp_mark(g);
	}
	vfs_result_done(&res);
	record_unref(rec);
}

static void step_done(struct step *s, int status, const struct vfs_result *res)
{
	struct vol *v = s->v;
	struct grp *g = v->open && !v->closing ? v->grp[s->group] : NULL;
	struct intent *in = g && g->serial == s->serial ? find(g, s->id) : NULL;

	if (in)
		stepped(in, s->try, status, res);
	vol_unref(v);
	free(s);
}

static void on_local_step(void *ctx, int status, struct vfs_result *res)
{
	step_done(ctx, status, res);
}

static void on_remote_step(void *ctx, int err, const struct proto_head *h, const uint8_t *body,
			   struct payload *payload)
{
	struct vfs_result res = {0};

	if (h && err == 0)
		err = vfs_result_decode(body, h->body_len, payload, &res);
	step_done(ctx, err, &res);
	vfs_result_done(&res);
}

/* The link to the primary of a group, by the newest view known here: a group that this brick is a member of may know better than the store's watch. */
static struct conn *link_of_primary(struct vol *v, uint32_t group)
{
	const struct vol_map *m = v->doc.map;
	const struct repl_view *view = v->grp[group] ? &v->grp[group]->view : &v->views[group];
	struct peer *p;
	int brick;

	if (v->views[group].epoch > view->epoch)
		view = &v->views[group];
	brick = view->epoch == 0 ? -1 : repl_view_brick(m, group, view, view->primary);
	if (brick < 0)
		return NULL;
	p = peer_get(v->b, m->brick[brick].name, false);
	return p ? p->link : NULL;
}

static void send_step(struct intent *in, uint32_t group, const struct vfs_op *vop)
{
	struct vol *v = in->g->v;
	struct step *s;
	struct conn *c;
	_cleanup_buf_ struct buf body = {0};
	struct proto_head h = {.type = FRAME_OP, .volume = v->tag, .group = group};

	s = xcalloc(1, sizeof(*s));
	*s = (struct step){.v = v, .group = in->g->idx, .serial = in->g->serial, .try = in->d.try};
	memcpy(s->id, in->d.id, 16);
	v->refs++;
	if (v->grp[group] && v->grp[group]->role == REPL_PRIMARY) {
		op_own(v->grp[group], vop, on_local_step, s);
		return;
	}
	c = link_of_primary(v, group);
	if (!c || vfs_op_encode(vop, &body) < 0)
		step_done(s, -EAGAIN, NULL);
	else
		ask_send(v->b, c, &h, body.data, body.len, on_remote_step, s);
}

static void drive(struct intent *in)
{
	_cleanup_buf_ struct buf store = {0};
	struct vfs_op vop;
	uint32_t group = 0;

	switch (vfs_drive_next(&in->g->vfs, &in->d, clock_ms(), &group, &vop, &store)) {
	case VFS_DRIVE_SEND:
		send_step(in, group, &vop);
		break;
	case VFS_DRIVE_GONE:
		drop(in);
		break;
	default:
		break;
	}
}

/* All that wait for a commit up to g->safe, and pauses that are over by now (0: none). */
static void drive_due(struct grp *g, uint64_t now)
{
	struct intent *in;

	if (g->role != REPL_PRIMARY)
		return;
	do { /* driving one may add or drop others */
		for (in = g->intents; in && !vfs_drive_due(&in->d, g->safe, now); in = in->next)
			;
		if (in)
			drive(in);
	} while (in);
}

void intents_committed(struct grp *g)
{
	drive_due(g, 0);
}

void intents_tick(struct grp *g, uint64_t now)
{
	drive_due(g, now);
}

void intents_primary(struct grp *g)
{
	uint8_t id[16], after[16];
	int n = 0;

	for (int r = vfs_intent_iter(&g->vfs, NULL, id); r == 0; r = vfs_intent_iter(&g->vfs, after, id)) {
		if (!find(g, id)) {
			add(g, id,
			    repl_pos(g->repl)
				    .seq); /* not before everything that this primary has is committed */
			n++;
		}
		memcpy(after, id, 16);
	}
	if (n > 0)
		log_info("volume %s, group %u: %d operations over two groups are taken up", g->v->name,
			 g->idx, n);
	grp_mark(g);
}

void intents_lost(struct grp *g)
{
	for (struct intent *in = g->intents; in; in = g->intents) {
		for (struct op *o = take_ptr(in->waiters), *next; o; o = next) {
			next = o->next;
			o->next = NULL;
			op_refuse(o, -ESTALE);
		}
		drop(in);
	}
}
