/* SPDX-License-Identifier: Apache-2.0 */
/* fbrick: what `kuayu brick` does with an operation on files (src/volume/brick/op.c, intent.c, orphan.c, in short): vfs_exec at the primary, the record goes to
 * core/repl, the answer waits for its commit; intents are driven by vfs_drive; files without a name that nobody has open are reaped. */
#include "sim/files.h"

#define STEP_MS 400
#define REAP_MS 300

/* Kept right by somebody, to some milliseconds. */
static int64_t wall_ns(const struct member *m)
{
	return (int64_t)((m->s->now + m->brick * 7 * MS) * 1000) + 1000000000ll * 1700000000;
}

static uint64_t now_ms(const struct member *m)
{
	return brick_ms(m->s, m->brick);
}

/* ---- answers that wait ---- */

static void send_answer(struct member *m, struct fmsg *a, int status)
{
	if (!a)
		return;
	a->status = status;
	if (status < 0) {
		a->body.len = 0;
		a->payload = payload_unref(a->payload);
	}
	fmsg_send(m->s, a);
}

static void wait_for(struct member *m, struct fmsg *a, uint64_t seq, int when, uint64_t cookie)
{
	struct fmember *f = m->f;

	if (f->n_pending == PENDING_MAX) {
		send_answer(m, a, -EAGAIN);
		return;
	}
	f->pending[f->n_pending++] =
		(struct fpending){.seq = seq, .cookie = cookie, .when = when, .answer = a};
}

void fmember_hold(struct member *m, struct fmsg *answer, uint64_t seq)
{
	wait_for(m, answer, seq, AT_SEEN, 0);
}

static void answer_ready(struct member *m)
{
	struct fmember *f = m->f;
	uint64_t seen = repl_committed(m->r), committed = m->st.mem.committed;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < f->n_pending; i++) {
		struct fpending p = f->pending[i];

		if (p.when == SYNCED)
			send_answer(m, p.answer, p.err);
		else if ((p.when == AT_SEEN && p.seq <= seen) || (p.when == AT_COMMIT && p.seq <= committed))
			send_answer(m, p.answer, 0);
		else
			f->pending[kept++] = p;
	}
	f->n_pending = kept;
}

static void refuse_all(struct member *m)
{
	struct fmember *f = m->f;

	for (uint32_t i = 0; i < f->n_pending; i++)
		send_answer(m, f->pending[i].answer, -ESTALE);
	f->n_pending = 0;
}

void fmember_synced(struct member *m, uint64_t cookie, int err)
{
	for (uint32_t i = 0; i < m->f->n_pending; i++) {
		struct fpending *p = &m->f->pending[i];

		if (p->when != AT_SYNC || p->cookie != cookie)
			continue;
		if (err == 0)
			check_synced(m, p->seq);
		p->when = SYNCED;
		p->err = err < 0 ? -EAGAIN : 0;
	}
}

/* ---- intents ---- */

static struct fintent *intent_find(struct fmember *f, const uint8_t id[16])
{
	for (uint32_t i = 0; i < f->n_intents; i++)
		if (memcmp(f->intent[i].d.id, id, 16) == 0)
			return &f->intent[i];
	return NULL;
}

static struct fintent *intent_add(struct fmember *f, const uint8_t id[16], uint64_t seq)
{
	struct fintent *in;

	if (f->n_intents == INTENTS_MAX)
		return NULL;
	in = &f->intent[f->n_intents++];
	memset(in, 0, sizeof(*in));
	vfs_drive_init(&in->d, id, seq);
	return in;
}

static void intent_drop(struct member *m, struct fintent *in, int status)
{
	struct fmember *f = m->f;

	for (uint32_t i = 0; i < in->n_waiters; i++)
		send_answer(m, in->waiter[i], status);
	*in = f->intent[--f->n_intents];
}

static void intent_attach(struct member *m, const uint8_t id[16], uint64_t seq, struct fmsg *a)
{
	struct fintent *in = intent_find(m->f, id);

	if (!in)
		in = intent_add(m->f, id, seq);
	if (!in || in->n_waiters == ARRAY_SIZE(in->waiter))
		send_answer(m, a, -EAGAIN);
	else if (a)
		in->waiter[in->n_waiters++] = a;
}

int fmember_submit(struct member *m, struct record *rec)
{
	int r;

	if (m->records > LOG_MAX / 2 || m->f->n_pending >= PENDING_MAX - 4)
		return -EAGAIN;
	r = repl_submit(m->r, rec, now_ms(m));
	if (r == 0)
		m->records++;
	return r;
}

static void intent_submit(struct member *m, struct fintent *in, struct record *rec, bool finished,
			  const struct vfs_result *res)
{
	int r = fmember_submit(m, rec);

	vfs_drive_submitted(&in->d, r, rec->seq, now_ms(m));
	if (r < 0 || !finished)
		return;
	m->s->files->intents++;
	if (in->n_waiters > 0) {
		struct fmsg *a = in->waiter[--in->n_waiters];

		ensure(vfs_result_encode(res, &a->body) == 0);
		wait_for(m, a, rec->seq, AT_COMMIT, 0);
	}
	intent_drop(m, in, -EAGAIN);
}

static void stepped(struct member *m, struct fintent *in, uint64_t try, int status,
		    const struct vfs_result *answer)
{
	struct record *rec = record_new(m->group);
	struct vfs_result res;
	bool finished;

	in->d.err = 0;
	switch (vfs_drive_answer(&m->f->vfs, &in->d, try, status, answer, now_ms(m), wall_ns(m), rec, &res,
				 &finished)) {
	case VFS_DRIVE_GONE:
		intent_drop(m, in, -EAGAIN);
		break;
	case VFS_DRIVE_SUBMIT:
		intent_submit(m, in, rec, finished, &res);
		break;
	default:
		if (in->d.err < 0 && !m->s->files->lost)
			violation(m->s, "operations", "group %u: an intent cannot go on: %s", m->group,
				  strerror(-in->d.err));
	}
	vfs_result_done(&res);
	record_unref(rec);
}

/* To the primary of the step's group, by the view known here: mostly another brick. */
static void send_step(struct member *m, struct fintent *in, uint32_t group, const struct vfs_op *op)
{
	struct sim *s = m->s;
	struct repl_view v;
	struct fmsg *q;

	in->sent_ms = now_ms(m);
	repl_get_view(s->brick[m->brick].m[group].r, &v);
	if (v.epoch == 0) {
		stepped(m, in, in->d.try, -EAGAIN, NULL);
		return;
	}
	q = fmsg_new(F_OP, m->brick, brick_of(s, (uint8_t)group, v.primary), (uint8_t)group);
	q->from_group = m->group;
	q->step = true;
	q->id = in->d.try;
	memcpy(q->intent, in->d.id, 16);
	ensure(vfs_op_encode(op, &q->body) == 0);
	s->files->steps++;
	fmsg_send(s, q);
}

static void step_answer(struct member *m, const struct fmsg *a)
{
	struct fintent *in = intent_find(m->f, a->intent);
	struct vfs_result res = {0};

	if (!in || m->role != REPL_PRIMARY)
		return;
	if (a->status == 0)
		ensure(vfs_result_decode(a->body.data, a->body.len, NULL, &res) == 0);
	stepped(m, in, a->id, a->status, a->status == 0 ? &res : NULL);
	vfs_result_done(&res);
}

static void drive(struct member *m)
{
	struct fmember *f = m->f;

	for (uint32_t i = 0; i < f->n_intents && m->role == REPL_PRIMARY;) {
		struct fintent *in = &f->intent[i];
		_cleanup_buf_ struct buf store = {0};
		uint32_t group = 0;
		struct vfs_op op;

		if (in->d.state == VFS_STEPPING && now_ms(m) - in->sent_ms > STEP_MS) {
			stepped(m, in, in->d.try, -ETIMEDOUT, NULL);
			continue;
		}
		if (!vfs_drive_due(&in->d, m->st.mem.committed, now_ms(m))) {
			i++;
			continue;
		}
		switch (vfs_drive_next(&f->vfs, &in->d, now_ms(m), &group, &op, &store)) {
		case VFS_DRIVE_SEND:
			send_step(m, in, group, &op);
			i++;
			break;
		case VFS_DRIVE_GONE:
			intent_drop(m, in, -EAGAIN);
			break;
		default:
			i++;
		}
	}
}

/* ---- operations ---- */

static int may(const struct member *m, const struct fmsg *q, const struct vfs_op *op, bool changes)
{
	uint64_t now = now_ms(m);

	if (m->role == REPL_PRIMARY)
		return changes || repl_may_read(m->r, now) ? 0 : -EAGAIN;
	if (changes || op->type == VFS_FSYNC || m->role != REPL_BACKUP || !q->any)
		return -ESTALE;
	return repl_may_read(m->r, now) && repl_committed(m->r) == repl_pos(m->r).seq ? 0 : -ESTALE;
}

static void do_change(struct member *m, const struct vfs_op *op, struct fmsg *a)
{
	struct record *rec = record_new(m->group);
	struct vfs_result res;
	int r = vfs_exec(&m->f->vfs, op, wall_ns(m), rec, &res);

	if (r < 0) {
		if (!m->s->files->lost)
			violation(m->s, "operations",
				  "group %u: operation %u of %llx cannot be worked out: %s", m->group,
				  op->type, (unsigned long long)op->id.client, strerror(-r));
		send_answer(m, a, -EIO);
		goto out;
	}
	if (a)
		ensure(vfs_result_encode(&res, &a->body) == 0);
	if (rec->n == 0) {
		if (!repl_may_read(m->r, now_ms(m)))
			send_answer(m, a, -EAGAIN);
		else if (!repl_may_write(m->r))
			send_answer(m, a, -EROFS);
		else if (res.intent) {
			if (a)
				a->body.len = 0;
			intent_attach(m, res.intent_id, repl_pos(m->r).seq, a);
		} else {
			wait_for(m, a, repl_pos(m->r).seq, AT_SEEN, 0);
		}
		goto out;
	}
	r = fmember_submit(m, rec);
	if (r < 0) {
		send_answer(m, a, -EAGAIN);
	} else if (res.intent) {
		if (a)
			a->body.len = 0;
		intent_attach(m, res.intent_id, rec->seq, a);
	} else {
		wait_for(m, a, rec->seq, AT_COMMIT, 0);
	}
out:
	vfs_result_done(&res);
	record_unref(rec);
}

static void do_read(struct member *m, const struct vfs_op *op, struct fmsg *a)
{
	struct record *nothing = record_new(m->group);
	struct vfs_result res;
	int r = vfs_exec(&m->f->vfs, op, wall_ns(m), nothing, &res);

	ensure(nothing->n == 0);
	record_unref(nothing);
	if (r < 0 || (op->type == VFS_READ && res.err == -EIO)) {
		if (op->type == VFS_READ) /* becomes known as bad, and is fetched */
			replica_verify(&m->st.f->r, &op->ino, res.crc_off / FSTRIPE * FSTRIPE, FSTRIPE, NULL);
		send_answer(m, a, -EAGAIN);
	} else {
		ensure(vfs_result_encode(&res, &a->body) == 0);
		a->payload = payload_ref(res.payload);
		wait_for(m, a, repl_pos(m->r).seq, AT_SEEN, 0);
	}
	vfs_result_done(&res);
}

static void do_fsync(struct member *m, struct fmsg *a)
{
	uint64_t cookie = ++m->s->next_try, upto = repl_pos(m->r).seq;
	struct vfs_result res = {0};
	uint32_t n = m->f->n_pending;
	int r;

	ensure(vfs_result_encode(&res, &a->body) == 0);
	wait_for(m, a, upto, AT_SYNC, cookie);
	if (m->f->n_pending == n)
		return;
	r = repl_sync(m->r, cookie, now_ms(m));
	if (r < 0) {
		struct fmsg *back = m->f->pending[--m->f->n_pending].answer;

		send_answer(m, back, -EAGAIN);
	}
}

void fmember_op(struct member *m, struct fmsg *q)
{
	struct vfs_op op;
	struct fmsg *a;
	bool changes;
	int r;

	if (q->type == F_ANSWER) {
		step_answer(m, q);
		return;
	}
	ensure(vfs_op_decode(q->body.data, q->body.len, q->payload, &op) == 0);
	changes = vfs_changes(op.type);
	r = may(m, q, &op, changes);
	a = fmsg_new(F_ANSWER, m->brick, q->from, q->from_group);
	a->client = q->client;
	a->id = q->id;
	a->step = q->step;
	memcpy(a->intent, q->intent, 16);
	if (r < 0)
		send_answer(m, a, r);
	else if (changes)
		do_change(m, &op, a);
	else if (op.type == VFS_FSYNC)
		do_fsync(m, a);
	else
		do_read(m, &op, a);
}

/* ---- files without a name ---- */

static void reap(struct member *m)
{
	struct vol_ino ino, after;
	bool first = true;
	int64_t since;

	for (int n = 0; n < 8 && vfs_orphan_iter(&m->f->vfs, first ? NULL : &after, &ino, &since) == 0; n++) {
		struct vfs_op op = {.type = VFS_REAP, .ino = ino};

		after = ino;
		first = false;
		if (fclient_has_open(m->s, &ino) || wall_ns(m) - since < REAP_MS * 1000000ll)
			continue;
		m->s->files->reaped++;
		do_change(m, &op, NULL);
	}
}

/* ---- life ---- */

void fmember_init(struct member *m)
{
	struct fmember *f = m->f;

	memset(f, 0, sizeof(*f));
	ensure(vfs_init(&f->vfs, &m->st.f->r, m->s->files->map) == 0);
	f->vfs.bytes_free = f->vfs.bytes_total = 1ull << 40;
	m->st.mem.dirty = m->st.f->r.dirty;
}

void fmember_down(struct member *m)
{
	struct fmember *f = m->f;

	for (uint32_t i = 0; i < f->n_pending; i++)
		fmsg_free(f->pending[i].answer);
	for (uint32_t i = 0; i < f->n_intents; i++)
		for (uint32_t k = 0; k < f->intent[i].n_waiters; k++)
			fmsg_free(f->intent[i].waiter[k]);
	f->n_pending = f->n_intents = 0;
	fheal_stop(m);
}

void fmember_done(struct member *m)
{
	fmember_down(m);
	free(m->f);
	m->f = NULL;
}

void fmember_changed(struct member *m)
{
	m->f->changed = true;
}

void fmember_rolled_back(struct member *m)
{
	m->f->changed = m->f->rolled_back = true;
}

static void role_changed(struct member *m)
{
	struct fmember *f = m->f;
	bool primary = m->role == REPL_PRIMARY;
	uint8_t id[16], after[16];

	f->changed = false;
	if (primary != f->was_primary || f->rolled_back || !primary)
		refuse_all(m);
	f->rolled_back = false;
	if (!primary)
		while (f->n_intents > 0)
			intent_drop(m, &f->intent[0], -ESTALE);
	if (primary && !f->was_primary)
		for (int r = vfs_intent_iter(&f->vfs, NULL, id); r == 0;
		     r = vfs_intent_iter(&f->vfs, after, id)) {
			if (!intent_find(f, id))
				intent_add(f, id, repl_pos(m->r).seq);
			memcpy(after, id, 16);
		}
	f->was_primary = primary;
	if (m->role != REPL_CATCHING)
		fheal_stop(m);
}

void fmember_turn(struct member *m)
{
	if (m->f->changed)
		role_changed(m);
	answer_ready(m);
	drive(m);
}

void fmember_tick(struct member *m)
{
	struct fmember *f = m->f;
	uint64_t now = now_ms(m);

	fheal_tick(m);
	frepair_tick(m);
	if (m->role == REPL_PRIMARY && now >= f->reap_ms) {
		uint8_t id[16];

		f->reap_ms = now + REAP_MS;
		reap(m);
		/* those that did not fit */
		if (f->n_intents == 0 && vfs_intent_iter(&f->vfs, NULL, id) == 0)
			intent_add(f, id, repl_pos(m->r).seq);
	}
}
