/* SPDX-License-Identifier: Apache-2.0 */
/* op: clients' operations, and the brick's own.
 *
 * A change: vfs_exec works out a record, repl_submit gives it a number and sends it on its way; the operation waits in its group's queue, is answered
 * when the record is committed, and the sessions that kept what it changed have answered their PUSH. A read: answered when the records that it saw are
 * committed, mostly at once. fsync: repl_sync. An operation over two groups waits for its intent.
 * Refusals say what to do (docs/protocol/volume.md): -ESTALE with the view, -EAGAIN, -EROFS, -ENODEV, -EIO.
 *
 * Bounds: `waiting-max` operations a connection; beyond, it is not read from. When this member is no longer primary, all that wait are
 * refused with -ESTALE: the client asks the new primary with the same id and hears the same answer if the record lived.
 * What is of a folder that is delegated to another client is refused with -EAGAIN, before it is executed or before its record is submitted (delegate.c). */
#include "volume/brick/internal.h"

#define FREE_OPS_MAX 1024

/* ---- life ---- */

struct op *op_new(struct grp *g, struct conn *c)
{
	struct brick *b = g->v->b;
	struct op *o = b->free_ops;

	if (o) {
		b->free_ops = o->next;
		b->n_free_ops--;
		memset(o, 0, offsetof(struct op, res));
		o->done = NULL;
	} else {
		o = xcalloc(1, sizeof(*o));
	}
	o->g = g;
	o->start_us = clock_us();
	if (c) {
		o->c = bconn_ref(c);
		b->waiting++;
		if (++c->waiting >= b->s.waiting)
			bconn_pause(c, true);
	}
	return o;
}

static void op_free(struct op *o)
{
	struct brick *b = o->g->v->b;
	struct conn *c = o->c;

	ensure(o->pushes == 0);
	vfs_result_done(&o->res);
	o->res = (struct vfs_result){0};
	if (b->n_free_ops < FREE_OPS_MAX) {
		o->next = b->free_ops;
		b->free_ops = o;
		b->n_free_ops++;
	} else {
		free(o);
	}
	if (c) {
		b->waiting--;
		if (c->waiting-- == b->s.waiting)
			bconn_pause(c, false);
		bconn_unref(c);
	}
}

void ops_done(struct brick *b)
{
	b->nothing = record_unref(b->nothing);
	for (struct op *o = take_ptr(b->free_ops), *next; o; o = next) {
		next = o->next;
		free(o);
	}
}

/* ---- answers ---- */

static struct proto_head answer_head(const struct op *o, int status)
{
	return (struct proto_head){.type = FRAME_OP,
				   .flags = (uint16_t)(FRAME_ANSWER | o->flags),
				   .request = o->request,
				   .volume = o->g->v->tag,
				   .group = o->g->idx,
				   .status = status,
				   .epoch = o->g->view.epoch};
}

void op_answer(struct op *o)
{
	struct brick *b = o->g->v->b;
	uint64_t us = clock_us() - o->start_us;

	hist_add(&b->latency, us);
	if (o->done) {
		o->done(o->ctx, 0, &o->res);
	} else if (o->c && !o->c->gone) {
		struct proto_head h = answer_head(o, 0);
		struct buf *body = bconn_begin(o->c);

		if (vfs_result_encode(&o->res, body) < 0)
			log_error("an answer is too long");
		if (o->res.payload)
			b->n.op_bytes_out += o->res.payload->len;
		bconn_end(o->c, &h, o->res.payload);
	}
	op_free(o);
}

static void view_body(struct grp *g, struct buf *body)
{
	struct proto_view pv = {.view = g->view};

	if (g->view.epoch > 0 && g->view.primary < g->n) {
		if (g->view.primary == g->self)
			snprintf(pv.primary_address, sizeof(pv.primary_address), "%s", g->v->b->advertise);
		else if (g->member[g->view.primary])
			snprintf(pv.primary_address, sizeof(pv.primary_address), "%s",
				 peer_address(g->member[g->view.primary]));
	}
	proto_view_encode(&pv, body);
}

static const char *refusal_text(int status)
{
	switch (status) {
	case -EAGAIN:
		return "not ready: try again in a moment";
	case -EROFS:
		return "fewer copies are in sync than the write quorum";
	case -ENODEV:
		return "the volume or group is not on this brick";
	default:
		return strerror(-status);
	}
}

void op_text(struct conn *c, const struct proto_head *h, int status, const char *text)
{
	struct proto_head a = {.type = h->type,
			       .flags = (uint16_t)(FRAME_ANSWER | (h->flags & FRAME_TAKEN)),
			       .request = h->request,
			       .volume = h->volume,
			       .group = h->group,
			       .status = status};

	bconn_send(c, &a, text, strlen(text), NULL);
}

static void refuse(struct conn *c, const struct proto_head *h, struct grp *g, int status)
{
	struct side *side = c->owner;

	side->b->n.refused++;
	if (status == -ESTALE && g) {
		struct proto_head a = {.type = h->type,
				       .flags = (uint16_t)(FRAME_ANSWER | (h->flags & FRAME_TAKEN)),
				       .request = h->request,
				       .volume = h->volume,
				       .group = h->group,
				       .status = status,
				       .epoch = g->view.epoch};

		view_body(g, bconn_begin(c));
		bconn_end(c, &a, NULL);
		return;
	}
	op_text(c, h, status, refusal_text(status));
}

void op_refuse(struct op *o, int status)
{
	if (o->done) {
		o->done(o->ctx, status, NULL);
	} else if (o->c && !o->c->gone) {
		struct proto_head h = {.type = FRAME_OP,
				       .flags = o->seq > 0 ? FRAME_TAKEN : 0,
				       .request = o->request,
				       .volume = o->g->v->tag,
				       .group = o->g->idx};

		refuse(o->c, &h, o->g, status);
	}
	push_drop_op(o->g->v, o);
	op_free(o);
}

/* ---- waiting ---- */

void op_settle(struct op *o)
{
	struct grp *g = o->g;

	if (!o->committed || o->pushes > 0)
		return;
	if (g->resets > 0 || clock_ms() < g->grace_ms) {
		o->next = g->gated;
		g->gated = o;
		return;
	}
	op_answer(o);
}

void op_wait_read(struct op *o, uint64_t seq)
{
	struct grp *g = o->g;

	if (seq <= repl_committed(g->repl)) {
		op_answer(o);
		return;
	}
	o->seq = seq;
	o->next = g->reads;
	g->reads = o;
}

static void refuse_list(struct op **list, int status)
{
	for (struct op *o = take_ptr(*list), *next; o; o = next) {
		next = o->next;
		o->next = NULL;
		op_refuse(o, status);
	}
}

void op_fail_reads(struct grp *g)
{
	refuse_list(&g->reads, -ESTALE);
	refuse_list(&g->mending, -ESTALE);
}

void op_fail_all(struct grp *g)
{
	op_fail_reads(g);
	refuse_list(&g->syncs, -ESTALE);
	refuse_list(&g->synced, -ESTALE);
	refuse_list(&g->gated, -ESTALE);
	g->last = &g->first;
	refuse_list(&g->first, -ESTALE);
	pushes_fail_group(g); /* committed ones that wait for their pushes only */
}

/* What was seen or made may be kept by the client's session. */
static void grant(struct op *o, const struct vfs_op *vop)
{
	struct session *s;

	if (!o->want_lease || !o->c || repl_role(o->g->repl) != REPL_PRIMARY)
		return;
	s = session_of(o->g->v, o->c->hello.client);
	if (s && lease_grant_result(o->g, vop, &o->res, s))
		o->flags |= FRAME_LEASED;
}

/* The same for the end of an operation over two groups, whose last record has just read the folder: of that only, which is here. */
void op_grant_folder(struct op *o)
{
	struct grp *g = o->g;
	struct session *s;

	if (!o->want_lease || !o->c || o->res.err < 0 || repl_role(g->repl) != REPL_PRIMARY ||
	    (o->type != VFS_MKDIR && o->type != VFS_RMDIR && o->type != VFS_LINK))
		return;
	s = session_of(g->v, o->c->hello.client);
	if (s && s->leased && s->c && lease_grant(g->v, g->idx, LEASE_INODE, &o->ino, s->slot))
		o->flags |= FRAME_LEASED;
}

/* ---- changes ---- */

static int submitted(struct op *o, struct record *rec, int r)
{
	struct grp *g = o->g;

	if (r < 0)
		return r;
	grp_touched(g, rec);
	delegations_changed(g, rec);
	o->seq = rec->seq;
	o->committed = false;
	lease_invalidate(g, rec, o, o->client);
	grp_mark(g);
	return 0;
}

int op_submit(struct op *o, struct record *rec)
{
	return submitted(o, rec, repl_submit(o->g->repl, rec, clock_ms()));
}

int op_submit_own(struct op *o, struct record *rec)
{
	return submitted(o, rec, repl_submit_own(o->g->repl, rec, clock_ms()));
}

static int status_of_submit(int r)
{
	return r == -EROFS ? -EROFS
			   : -EAGAIN; /* also a disk that has failed just now: another member takes over */
}

void op_queue(struct op *o)
{
	o->next = NULL;
	*o->g->last = o;
	o->g->last = &o->next;
}

/* Waits until all that is in the log now is on everybody's stable storage. Negative: it does not wait. */
static int wait_sync(struct op *o)
{
	struct grp *g = o->g;
	int r;

	o->cookie = ++g->v->b->next_request;
	o->next = g->syncs;
	g->syncs = o;
	r = repl_sync(g->repl, o->cookie, clock_ms());
	for (struct op **at = &g->syncs; r < 0 && *at; at = &(*at)->next)
		if (*at == o) {
			*at = o->next;
			o->next = NULL;
			break;
		}
	grp_mark(g);
	return r;
}

/* A change that was asked to be durable: one answer for both. Where that cannot be, it is a change like any other, and fsync comes by itself. */
static bool durable_too(struct op *o, const struct vfs_op *vop, uint64_t seq)
{
	if (!(vop->flags & VFS_DURABLE) || o->res.err < 0 ||
	    (vop->type != VFS_WRITE && vop->type != VFS_EXTEND))
		return false;
	o->seq = seq;
	o->durable = true;
	if (wait_sync(o) == 0)
		return true;
	o->durable = false;
	return false;
}

/* Who asks: a client, or 0 = the step of an intent. The brick's own operations, false, are everybody's. */
static bool asked_by(const struct op *o, const struct vfs_op *vop, uint64_t *ret_client)
{
	bool step = vop->type >= VFS_STEP_MAKE_FOLDER || vop->type == VFS_TRIM;

	*ret_client = o->c && !step ? o->c->hello.client : 0;
	return o->c || step;
}

/* Something of a folder that is another client's: what was worked out is forgotten. */
static bool barred(struct op *o, const struct vfs_op *vop, const struct record *rec)
{
	uint64_t client;

	if (!asked_by(o, vop, &client))
		return false;
	return (rec && delegation_bars(o->g, rec, client)) ||
	       (client && delegation_hides(o->g, vop, &o->res, client));
}

/* 0: rec has it, or is empty. */
static int work_out(struct op *o, const struct vfs_op *vop, struct record *rec)
{
	struct grp *g = o->g;
	int r = vop->type == VFS_DELEGATE ? delegation_may(g, vop) : 0;

	if (!rec)
		return -ENOMEM;
	if (r < 0) {
		o->res.err = r;
		return 0;
	}
	space_look(g);
	return vfs_exec(&g->vfs, vop, clock_wall_us() * 1000, rec, &o->res);
}

static void op_change(struct op *o, const struct vfs_op *vop)
{
	struct grp *g = o->g;
	struct record *rec = record_new(g->idx);
	int r = work_out(o, vop, rec);

	if (r < 0) {
		log_warn("volume %s, group %u: operation %d failed: %s", g->v->name, g->idx, vop->type,
			 strerror(-r));
		record_unref(rec);
		op_refuse(o, -EIO);
		return;
	}
	if (barred(o, vop, rec)) {
		record_unref(rec);
		op_refuse(o, -EAGAIN);
		return;
	}
	if (rec->n == 0) {
		record_unref(rec);
		/* It makes no record, so nothing else judges it: below the write quorum nothing is acknowledged (a retry's kept answer), and who has lost its leases
		 * does not know what is there (a failure). */
		if (!repl_may_read(g->repl, clock_ms()))
			op_refuse(o, -EAGAIN);
		else if (!repl_may_write(g->repl))
			op_refuse(o, -EROFS);
		else if (o->res.intent) /* asked again: it is still at work */
			intent_attach(o, o->res.intent_id, repl_pos(g->repl).seq);
		else if (
			!durable_too(
				o, vop,
				repl_pos(g->repl)
					.seq)) /* an answer of before, or a failure that is not kept: what it saw must be committed */
			op_wait_read(o, repl_pos(g->repl).seq);
		return;
	}
	r = op_submit(o, rec);
	record_unref(rec);
	if (r < 0)
		op_refuse(o, status_of_submit(r));
	else if (o->res.intent)
		intent_attach(o, o->res.intent_id, o->seq);
	else {
		if (vop->type == VFS_DELEGATE && o->res.err == 0)
			lease_take_folder(g, &vop->ino.folder, o, o->client);
		grant(o, vop);
		if (!durable_too(o, vop, o->seq))
			op_queue(o);
	}
}

/* ---- reads ---- */

/* The record of an operation that changes nothing: stays empty. */
static struct record *nothing(struct brick *b)
{
	if (!b->nothing)
		b->nothing = record_new(0);
	ensure(b->nothing && b->nothing->n == 0);
	return b->nothing;
}

/* A read that waits in g->mending. The group may be closed meanwhile, and then the operation was refused. */
struct reread {
	struct vol *v;
	uint32_t group;
	uint64_t serial, cookie;
	struct vfs_op vop;
};

static void op_read(struct op *o, const struct vfs_op *vop);

/* May this member answer reads now? 0, or what to refuse with. */
static int readable(struct grp *g, bool primary)
{
	bool may = repl_may_read(g->repl, clock_ms());

	if (primary)
		return may ? 0 : -EAGAIN;
	return may && repl_role(g->repl) == REPL_BACKUP && repl_committed(g->repl) == repl_pos(g->repl).seq
		       ? 0
		       : -ESTALE;
}

static struct op *reread_take(const struct reread *rr)
{
	struct vol *v = rr->v;
	struct grp *g = v->open && !v->closing ? v->grp[rr->group] : NULL;

	if (!g || g->serial != rr->serial)
		return NULL;
	for (struct op **at = &g->mending; *at; at = &(*at)->next) {
		struct op *o = *at;

		if (o->cookie != rr->cookie)
			continue;
		*at = o->next;
		o->next = NULL;
		return o;
	}
	return NULL;
}

/* -EIO is the client's answer only when the primary knows that no copy is good. What could not be found out now is asked again; who is a backup sends the
 * client to the primary. Repairs take a while: whether this member may read is judged anew. */
static void on_repaired(void *ctx, int err)
{
	struct reread *rr = ctx;
	struct op *o = reread_take(rr);
	struct grp *g = o ? o->g : NULL;
	bool primary = g && repl_role(g->repl) == REPL_PRIMARY;

	if (!g) {
		free(rr);
		return;
	}
	if (err == 0)
		err = readable(g, primary);
	if (err == 0 && o->c)
		err = delegation_gate(g, &rr->vop, o->c->hello.client);
	if (err == 0) {
		vfs_result_done(&o->res);
		op_read(o, &rr->vop);
	} else if (primary && err == -EIO) {
		op_answer(o);
	} else {
		op_refuse(o, primary ? -EAGAIN : -ESTALE);
	}
	free(rr);
}

/* A block here is bad: it is fetched from another member, then read again. */
static void read_repair(struct op *o, const struct vfs_op *vop)
{
	struct grp *g = o->g;
	struct reread *rr = xcalloc(1, sizeof(*rr));

	o->tries++;
	o->cookie = ++g->v->b->next_request;
	o->next = g->mending;
	g->mending = o;
	*rr = (struct reread){
		.v = g->v, .group = g->idx, .serial = g->serial, .cookie = o->cookie, .vop = *vop};
	rr->vop.name = rr->vop.name2 = NULL;
	rr->vop.data = NULL;
	rr->vop.payload = NULL;
	repair_block(g, &vop->ino, o->res.crc_off, on_repaired, rr);
}

/* As many repairs as the range may need, and some for what changes meanwhile. */
static uint32_t repairs_of(const struct vfs_op *vop)
{
	return (uint32_t)(MIN(vop->len, (uint64_t)RECORD_PAYLOAD_MAX) / REPAIR_LEN) + 4;
}

static uint64_t read_saw(const struct op *o, const struct vfs_op *vop)
{
	struct grp *g = o->g;
	uint64_t seq = grp_touch_seq(g, &vop->ino);

	if (vop->type == VFS_READDIR || repl_role(g->repl) != REPL_PRIMARY)
		return repl_pos(g->repl).seq;
	if (o->res.attr.mode)
		seq = MAX(seq, grp_touch_seq(g, &o->res.attr.ino));
	return seq;
}

static void op_read(struct op *o, const struct vfs_op *vop)
{
	struct grp *g = o->g;
	int r = vfs_exec(&g->vfs, vop, clock_wall_us() * 1000, nothing(g->v->b), &o->res);

	if (r < 0) {
		log_warn("volume %s, group %u: read %d failed: %s", g->v->name, g->idx, vop->type,
			 strerror(-r));
		op_refuse(o, -EIO);
	} else if (vop->type == VFS_READ && o->res.err == -EIO && o->tries < repairs_of(vop)) {
		read_repair(o, vop);
	} else if (barred(o, vop, NULL)) {
		op_refuse(o, repl_role(g->repl) == REPL_PRIMARY ? -EAGAIN : -ESTALE);
	} else {
		grant(o, vop);
		op_wait_read(o, read_saw(o, vop));
	}
}

static void op_fsync(struct op *o, const struct vfs_op *vop)
{
	struct grp *g = o->g;
	int r = vfs_exec(&g->vfs, vop, 0, nothing(g->v->b), &o->res);

	if (r < 0 || (o->res.err < 0 && !(vop->flags & VFS_FOREIGN))) {
		if (r < 0)
			op_refuse(o, -EIO);
		else
			op_wait_read(o, read_saw(o, vop));
		return;
	}
	o->res.err = 0;
	r = wait_sync(o);
	if (r < 0)
		op_refuse(o, status_of_submit(r));
}

/* ---- in ---- */

/* 0, or what to refuse it with. */
static int may(struct grp *g, const struct proto_head *h, const struct vfs_op *vop, bool changes)
{
	enum repl_role role = repl_role(g->repl);

	if (role == REPL_PRIMARY) {
		if (h->epoch && h->epoch != g->view.epoch)
			return -ESTALE;
		return changes ? 0 : readable(g, true); /* a change: repl_submit judges */
	}
	if (role == REPL_PROMOTING)
		return -EAGAIN;
	if (changes || vop->type == VFS_FSYNC || role != REPL_BACKUP || !(h->flags & FRAME_ANY_MEMBER))
		return -ESTALE;
	return readable(g, false);
}

static void start(struct op *o, const struct vfs_op *vop, bool changes)
{
	o->type = (uint8_t)vop->type;
	o->client = vop->id.client;
	o->ino = vop->ino;
	if (changes)
		op_change(o, vop);
	else if (vop->type == VFS_FSYNC)
		op_fsync(o, vop);
	else
		op_read(o, vop);
}

static void count(struct vol *v, struct conn *c, const struct vfs_op *vop)
{
	uint64_t bytes = vop->payload ? vop->payload->len : vop->type == VFS_READ ? vop->len : 0;

	v->b->n.ops++;
	v->b->n.op_bytes_in += vop->payload ? vop->payload->len : 0;
	if (++v->sampled % 8) /* one in eight: cheap, and as good for telling who is busy */
		return;
	v->client_op_ms = uv_now(v->b->loop);
	top_add(&v->clients, &c->hello.client, sizeof(c->hello.client), c->hello.name, bytes * 8);
	top_add(&v->files, &vop->ino, sizeof(vop->ino), NULL, bytes * 8);
}

int op_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
	     const char **why)
{
	struct side *side = c->owner;
	struct vol *v = vol_by_tag(side->b, h->volume);
	struct grp *g = v && v->open && h->group < v->doc.map->n_groups ? v->grp[h->group] : NULL;
	bool peer = c->hello.role == PROTO_PEER, changes;
	struct vfs_op vop;
	struct op *o;
	int r;

	if (!g) {
		refuse(c, h, NULL, -ENODEV);
		return 0;
	}
	r = vfs_op_decode(body, h->body_len, payload, &vop);
	if (r < 0 ||
	    (!peer && (vop.type >= VFS_STEP_MAKE_FOLDER || vop.type == VFS_TRIM || vop.type == VFS_REAP ||
		       ((vop.id.number || vop.id.client) && vop.id.client != c->hello.client)))) {
		*why = "an operation that is malformed, or not a client's";
		return -EBADMSG;
	}
	if (payload && payload_sum(payload, vop.off) != h->payload_crc) {
		refuse(c, h, g, -EIO);
		return 0;
	}
	changes = vfs_changes(vop.type);
	r = may(g, h, &vop, changes);
	if (r == 0)
		r = delegation_gate(g, &vop, c->hello.client);
	if (r < 0) {
		refuse(c, h, g, r);
		return 0;
	}
	count(v, c, &vop);
	o = op_new(g, c);
	o->request = h->request;
	o->want_lease = (h->flags & FRAME_WANT_LEASE) && !(h->flags & FRAME_ANY_MEMBER && !grp_is_primary(g));
	start(o, &vop, changes);
	return 0;
}

void op_own(struct grp *g, const struct vfs_op *vop,
	    void (*done)(void *ctx, int status, struct vfs_result *res), void *ctx)
{
	struct proto_head h = {.type = FRAME_OP};
	bool changes = vfs_changes(vop->type);
	int r = may(g, &h, vop, changes);
	struct op *o;

	if (r == 0 && vop->type >= VFS_STEP_MAKE_FOLDER) /* of an intent of another group of this brick */
		r = delegation_gate(g, vop, 0);
	if (r < 0) {
		done(ctx, r, NULL);
		return;
	}
	o = op_new(g, NULL);
	o->done = done;
	o->ctx = ctx;
	start(o, vop, changes);
}
