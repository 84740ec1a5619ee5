/* SPDX-License-Identifier: Apache-2.0 */
/* One operation on one group, with its tries: to the primary that the view names, until it is answered or the time is up. Every try of an
 * operation that changes something carries the same id, so the group does it once. -EAGAIN in a result (a name in the middle of an operation
 * over two groups) is one more reason to try again; for VFS_LOCK it is the answer.
 *
 * A wait of more than a second is logged, with its reason, once for a group; so is its end. */
#include "volume/client/internal.h"

#define PAUSE_MIN_MS	2
#define PAUSE_MAX_MS	100
#define INVALID_SAID_MS 30000 /* the same group's failure is logged at most so often */

enum outcome { DONE, AT_ONCE, SOON };

struct attempt {
	struct vclient_slot *s;
	struct vfs_op *op;
	struct vfs_result *res;
	struct call *k;
	struct repl_view view;
	uint32_t brick;
	int member;
	uint64_t resets;
	bool local_refused; /* a member of the own domain said no: the primary is asked */
	/* A try before this one may have been done, and it was asked under a view with that fork: of the first of them. */
	bool tried;
	uint64_t tried_fork;
	char reason[200];
};

/* Which member to ask, and its brick. False: nobody is known. Publishes what the slot waits for, if it has a connection. */
static bool aim(struct attempt *a, int *ret_fd)
{
	struct vclient *c = a->s->c;
	const struct vol_map *m = vclient_map(c);
	struct group_state *g = &c->group[a->k->group];
	bool known;
	int brick;

	*ret_fd = -1;
	pthread_mutex_lock(&c->lock);
	a->view = g->view;
	known = g->known && g->view.epoch > 0 &&
		repl_view_brick(m, a->k->group, &g->view, g->view.primary) >= 0;
	a->resets = g->resets;
	if (known) {
		a->member = g->view.primary;
		if (a->k->member >= 0)
			a->member = a->k->member;
		else if (a->op->type == VFS_READ && atomic_load(&c->read_local) && !a->local_refused)
			for (int i = 0; i < VOL_MEMBERS_MAX; i++)
				if (g->view.isr >> i & 1 &&
				    (brick = repl_view_brick(m, a->k->group, &g->view, (uint32_t)i)) >= 0 &&
				    streq(m->brick[brick].domain, c->domain))
					a->member = i;
		brick = repl_view_brick(m, a->k->group, &g->view, (uint32_t)a->member);
		if (brick < 0) /* who was to be asked is no member any more */
			brick = repl_view_brick(m, a->k->group, &g->view,
						(uint32_t)(a->member = g->view.primary));
		a->brick = (uint32_t)brick;
		if (a->brick < a->s->n_fd && a->s->fd[a->brick] >= 0) {
			*ret_fd = a->s->busy_fd = a->s->fd[a->brick];
			a->s->busy_group = a->k->group;
			a->s->busy_brick = a->brick;
		}
	}
	pthread_mutex_unlock(&c->lock);
	return known;
}

static void rest(struct vclient_slot *s)
{
	pthread_mutex_lock(&s->kick);
	s->busy_fd = -1;
	pthread_mutex_unlock(&s->kick);
}

static const char *brick_name(struct attempt *a)
{
	return vclient_map(a->s->c)->brick[a->brick].name;
}

static void may_be_done(struct attempt *a)
{
	if (!a->tried)
		a->tried_fork = a->view.fork;
	a->tried = true;
}

static enum outcome refused(struct attempt *a, const struct answer *w)
{
	struct proto_view v;
	int text = (int)MIN(w->head.body_len, 120u);

	if (w->head.flags & FRAME_TAKEN)
		may_be_done(a);
	if (w->head.status == -ESTALE) {
		uint64_t epoch = a->view.epoch;

		if (a->member != a->view.primary && a->k->member < 0) {
			a->local_refused = true;
			return AT_ONCE;
		}
		snprintf(a->reason, sizeof(a->reason), "%s is not its primary", brick_name(a));
		if (proto_view_decode(w->body, w->head.body_len, &v) < 0)
			return SOON;
		client_view_hint(a->s->c, a->k->group, &v.view);
		return v.view.epoch > epoch ? AT_ONCE : SOON;
	}
	snprintf(a->reason, sizeof(a->reason), "%s answers: %s%s%.*s", brick_name(a),
		 strerror(-w->head.status), text > 0 ? ", " : "", text, (const char *)w->body);
	return SOON;
}

static int ask(struct attempt *a, int fd, struct answer *w)
{
	struct vclient_slot *s = a->s;
	struct proto_head h = {.type = FRAME_OP,
			       .request = ++s->request,
			       .volume = proto_volume_tag(&vclient_map(s->c)->uuid),
			       .group = a->k->group,
			       .epoch = a->view.epoch};
	int r;

	s->body.len = 0;
	r = vfs_op_encode(a->op, &s->body);
	if (r < 0)
		return r;
	h.body_len = (uint32_t)s->body.len;
	h.body_crc = crc32c(0, s->body.data, s->body.len);
	if (a->k->want_lease)
		h.flags |= FRAME_WANT_LEASE;
	if (a->member != a->view.primary)
		h.flags |= FRAME_ANY_MEMBER;
	if (a->k->data) {
		h.payload_len = (uint32_t)a->op->len;
		(void)payload_chunks(a->op->off, a->k->data, h.payload_len, s->crc, &h.payload_crc);
	}
	r = conn_send(fd, &h, s->body.data, a->k->data);
	return r < 0 ? r : conn_answer(s, fd, h.request, a->k->into, a->k->room, w);
}

/* Nothing ended a lease that the answer grants meanwhile. Also looks whether what is answered may have been lost: the answer is older than the group's newest
 * fork; or it is that of an earlier try, whose record outlived the loss of power that lies between, but not its data, which is not in the log. */
static bool lease_holds(struct attempt *a)
{
	struct vclient *c = a->s->c;
	struct group_state *g = &c->group[a->k->group];
	bool holds;

	pthread_mutex_lock(&c->lock);
	holds = g->leases_hold && g->resets == a->resets && g->view.epoch == a->view.epoch;
	a->s->forked |=
		g->view.fork != a->view.fork || (a->tried && a->tried_fork != a->view.fork &&
						 a->op->type == VFS_WRITE && a->op->len > RECORD_LOGGED_MAX);
	pthread_mutex_unlock(&c->lock);
	return holds;
}

static enum outcome answered(struct attempt *a, const struct answer *w)
{
	int r;

	if (w->head.status != 0)
		return refused(a, w);
	vfs_result_done(a->res);
	*a->res = (struct vfs_result){0};
	r = vfs_result_decode(w->body, w->head.body_len, NULL, a->res);
	if (r < 0) {
		may_be_done(a);
		snprintf(a->reason, sizeof(a->reason), "%s sent an answer that is none", brick_name(a));
		slot_disconnect(a->s, a->brick);
		return SOON;
	}
	if (a->res->err == -EAGAIN && !a->k->again_is_answer) {
		snprintf(a->reason, sizeof(a->reason), "the name is locked by another operation");
		return SOON;
	}
	a->k->got = w->payload_len;
	a->k->from = a->member;
	a->k->from_brick = a->brick;
	a->k->others = a->view.isr & (uint8_t) ~(1u << a->member);
	a->k->leased = lease_holds(a) && w->head.flags & FRAME_LEASED;
	return DONE;
}

static enum outcome attempt(struct attempt *a)
{
	struct answer w;
	enum outcome o;
	int fd, r = 0;

	if (!aim(a, &fd)) {
		snprintf(a->reason, sizeof(a->reason), "it has no primary");
		return SOON;
	}
	if (fd < 0) {
		r = slot_connect(a->s, a->brick);
		if (r >= 0)
			return AT_ONCE; /* aim again: the view may have changed meanwhile */
		snprintf(a->reason, sizeof(a->reason), "%s (%s) cannot be reached: %s", brick_name(a),
			 vclient_map(a->s->c)->brick[a->brick].address, strerror(-r));
		a->local_refused = true;
		return SOON;
	}
	r = ask(a, fd, &w);
	rest(a->s);
	if (r == 0) {
		o = answered(a, &w);
		return o;
	}
	may_be_done(a);
	slot_disconnect(a->s, a->brick);
	a->local_refused = true;
	snprintf(a->reason, sizeof(a->reason), "%s does not answer: %s", brick_name(a), strerror(-r));
	return r == -EPIPE || r == -ECONNRESET ? AT_ONCE : SOON;
}

static void say_waiting(struct attempt *a, uint64_t since)
{
	struct vclient *c = a->s->c;
	struct group_state *g = &c->group[a->k->group];
	uint32_t reason = crc32c(0, a->reason, strlen(a->reason));
	uint64_t now = clock_ms();
	bool say;

	pthread_mutex_lock(&c->lock);
	say = g->said == 0 ||
	      (g->said < WAIT_SAID_MAX && reason != g->said_reason && now - g->said_at >= WAIT_SAID_MS);
	if (g->said == 0)
		g->waiting_since = since;
	if (say) {
		g->said++;
		g->said_reason = reason;
		g->said_at = now;
	}
	pthread_mutex_unlock(&c->lock);
	if (say)
		log_warn("volume %s, group %u: waiting for an answer: %s", c->volume, a->k->group, a->reason);
}

static void say_goes_on(struct vclient *c, uint32_t group)
{
	struct group_state *g = &c->group[group];
	uint64_t since = 0;

	pthread_mutex_lock(&c->lock);
	if (g->said)
		since = g->waiting_since;
	g->said = 0;
	pthread_mutex_unlock(&c->lock);
	if (since)
		log_info("volume %s, group %u: goes on after %.1f s", c->volume, group,
			 (double)(clock_ms() - since) / 1000);
}

static int give_up(struct attempt *a)
{
	static _Atomic uint64_t newest[VOL_GROUPS_MAX];
	struct vclient *c = a->s->c;
	uint64_t now = clock_ms(), before = atomic_load(&newest[a->k->group]);

	if ((before == 0 || now - before > INVALID_SAID_MS) &&
	    atomic_compare_exchange_strong(&newest[a->k->group], &before, now))
		log_error("volume %s, group %u: input/output error for a program: no answer in %.0f s: %s",
			  c->volume, a->k->group, (double)c->timeout_ms / 1000, a->reason);
	vfs_result_done(a->res);
	*a->res = (struct vfs_result){.err = -EIO};
	return -EIO;
}

int call_group(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, struct call *k)
{
	struct vclient *c = s->c;
	struct attempt a = {.s = s,
			    .op = op,
			    .res = res,
			    .k = k,
			    .tried = k->keep_id && k->tried,
			    .tried_fork = k->tried_fork};
	uint64_t since = 0, pause = PAUSE_MIN_MS, now;

	if (!k->keep_id)
		op->id = (struct vfs_opid){c->id, s->number, vfs_changes(op->type) ? ++s->op : 0};
	k->keep_id = false;
	for (uint32_t at_once = 0;;) {
		enum outcome o = attempt(&a);

		if (o == DONE)
			break;
		now = clock_ms();
		if (since == 0)
			since = now;
		if (now - since >= c->timeout_ms || atomic_load(&c->closing))
			return give_up(&a);
		if (a.reason[0] && now - since >= WAIT_SAID_MS)
			say_waiting(&a, since);
		if (o == AT_ONCE && ++at_once < 8)
			continue;
		at_once = 0;
		client_wait(c, pause);
		pause = MIN(pause * 2, PAUSE_MAX_MS);
	}
	if (c->group[k->group].said)
		say_goes_on(c, k->group);
	return res->err;
}

int vclient_call(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, bool *ret_leased)
{
	const struct vol_map *m = vclient_map(s->c);
	struct call k = {.member = -1,
			 .want_lease = ret_leased && s->c->o.leases,
			 .again_is_answer = op->type == VFS_LOCK};
	int r;

	*res = (struct vfs_result){0};
	if (ret_leased)
		*ret_leased = false;
	if (op->type == VFS_WRITE)
		return data_write(s, op, res, ret_leased);
	if (op->type == VFS_FSYNC)
		return res->err = data_fsync(s, &op->ino);
	if (op->type == VFS_SEEK && m->stripe > 1)
		return data_seek(s, op, res);
	if (op->type == VFS_STATFS)
		return data_statfs(s, op, res);
	if (op->type == VFS_READ) {
		int64_t n;

		if (op->len > RECORD_PAYLOAD_MAX)
			return res->err = -EINVAL;
		res->payload = payload_new((uint32_t)op->len);
		if (!res->payload)
			return res->err = -ENOMEM;
		n = data_read(s, &op->ino, UINT64_MAX, op->off, res->payload->data, (uint32_t)op->len,
			      ret_leased);
		if (n < 0) {
			res->payload = payload_unref(res->payload);
			return res->err = (int)n;
		}
		res->payload->len = (uint32_t)n;
		return 0;
	}
	k.group = vfs_group(m, op);
	if (op->payload && op->type == VFS_CREATE)
		k.data = op->payload->data;
	r = call_group(s, op, res, &k);
	if (ret_leased)
		*ret_leased = k.leased;
	return r;
}
