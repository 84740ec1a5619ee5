/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: one connection to every brick, served by one thread; what the bricks push is worked off by a few workers, because dropping
 * something from the kernel's caches may wait for a lock of the kernel, and pings must not.
 *
 * What may be kept (docs/protocol/volume.md, "Sessions and caching leases"): leases of a group hold while the sessions with all its in-sync members
 * are alive and its primary stays the same. A session is alive for SESSION_MS from the *sending* of the newest ping that was answered. When they
 * end, the group's `resets` is raised first (answers on their way are then not kept) and the owner is told to drop what it has.
 * A push is answered when the owner has dropped what it names. More than PUSHES_MAX waiting: the session is closed, which ends all its leases. */
#include "volume/client/internal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define REDIAL_MS    200
#define DIALLING_MS  1000
#define IN_MAX	     (64u << 10) /* frames of a session are small */
#define READS_A_TURN 16
#define SAY_MS	     1000 /* a brick that has just started opens its volumes: nobody needs to know */

bool session_alive(const struct session *x, uint64_t now)
{
	return x->up && x->alive_from && now < x->alive_from + SESSION_MS;
}

void sessions_wake(struct vclient *c)
{
	uint64_t one = 1;

	if (c->sessions.wake >= 0 && write(c->sessions.wake, &one, sizeof(one)) < 0)
		return; /* it is awake already */
}

/* ---- pushes ---- */

static bool enqueue(struct vclient *c, struct push_job *j)
{
	struct sessions *ss = &c->sessions;
	bool room;

	pthread_mutex_lock(&ss->queue_lock);
	room = ss->waiting < PUSHES_MAX || !j->session;
	if (room) {
		*ss->last = j;
		ss->last = &j->next;
		ss->waiting++;
		pthread_cond_signal(&ss->queue_changed);
	}
	pthread_mutex_unlock(&ss->queue_lock);
	if (!room)
		free(j);
	return room;
}

static int send_frame(int fd, const struct proto_head *h, const void *body)
{
	uint8_t head[PROTO_HEAD];
	struct iovec iov[2] = {{head, sizeof(head)}, {(void *)body, h->body_len}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	proto_head_encode(h, head);
	n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	/* A session's socket is never full while the brick lives: frames are tiny. */
	return n == (ssize_t)(sizeof(head) + h->body_len) ? 0 : -EPIPE;
}

static void answer_push(struct vclient *c, const struct push_job *j, int status)
{
	struct proto_head h = {.type = FRAME_PUSH,
			       .flags = FRAME_ANSWER,
			       .request = j->request,
			       .volume = proto_volume_tag(&vclient_map(c)->uuid),
			       .group = j->group,
			       .status = status};

	pthread_mutex_lock(&c->lock);
	if (j->session->fd >= 0 && j->session->serial == j->serial &&
	    send_frame(j->session->fd, &h, NULL) < 0)
		(void)shutdown(j->session->fd, SHUT_RDWR);
	pthread_mutex_unlock(&c->lock);
}

static void work_off(struct vclient *c, struct push_job *j)
{
	int status = 0;

	if (!j->session || j->push.type == PUSH_RESET) {
		if (c->o.reset)
			c->o.reset(c->o.ctx, j->group);
	} else if (j->push.type == PUSH_ORPHAN)
		status = c->o.is_open && c->o.is_open(c->o.ctx, &j->push.ino);
	else if (c->o.invalidate)
		c->o.invalidate(c->o.ctx, &j->push);
	if (j->session)
		answer_push(c, j, status);
	free(j);
}

static void *worker(void *arg)
{
	struct vclient *c = arg;
	struct sessions *ss = &c->sessions;
	struct push_job *j;

	for (;;) {
		pthread_mutex_lock(&ss->queue_lock);
		while (!ss->first && !atomic_load(&c->closing))
			pthread_cond_wait(&ss->queue_changed, &ss->queue_lock);
		j = ss->first;
		if (j) {
			ss->first = j->next;
			if (!ss->first)
				ss->last = &ss->first;
			ss->waiting--;
		}
		pthread_mutex_unlock(&ss->queue_lock);
		if (!j)
			return NULL;
		work_off(c, j);
	}
}

/* ---- leases ---- */

/* The brick of the group's primary, when sessions with it and all other in-sync members are alive; else -1. Under lock. */
static int leases_of(struct vclient *c, const struct vol_map *m, uint32_t group, uint64_t now)
{
	struct group_state *g = &c->group[group];
	int from = g->known && g->view.epoch > 0 ? repl_view_brick(m, group, &g->view, g->view.primary) : -1;

	for (uint32_t k = 0; k < VOL_MEMBERS_MAX && from >= 0; k++) {
		int brick = repl_view_brick(m, group, &g->view, k);

		if (g->view.isr >> k & 1 && (brick < 0 || (uint32_t)brick >= c->sessions.n ||
					     !session_alive(&c->sessions.session[brick], now)))
			from = -1;
	}
	return from;
}

/* Which groups' leases hold now. Those that held and do not any more are reset. */
static void judge(struct vclient *c)
{
	const struct vol_map *m = vclient_map(c);
	uint64_t now = clock_ms();

	for (uint32_t i = 0; i < m->n_groups; i++) {
		struct group_state *g = &c->group[i];
		struct push_job *j = NULL;
		int from;

		pthread_mutex_lock(&c->lock);
		from = leases_of(c, m, i, now);
		if (g->leases_hold && from != g->leases_from) {
			g->resets++;
			j = xcalloc(1, sizeof(*j));
			j->group = i;
		}
		g->leases_hold = from >= 0;
		g->leases_from = from;
		pthread_mutex_unlock(&c->lock);
		if (j)
			(void)enqueue(c, j);
	}
}

bool vclient_leases_hold(struct vclient *c, uint32_t group)
{
	const struct vol_map *m = vclient_map(c);
	const struct group_state *g = &c->group[group];
	bool hold;

	pthread_mutex_lock(&c->lock);
	hold = g->leases_hold && leases_of(c, m, group, clock_ms()) == g->leases_from;
	pthread_mutex_unlock(&c->lock);
	return hold;
}

/* ---- connections ---- */

static void hang_up(struct vclient *c, struct session *x)
{
	pthread_mutex_lock(&c->lock);
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
	x->up = x->connecting = false;
	x->alive_from = 0;
	x->in_len = 0;
	x->dial_at = clock_ms() + REDIAL_MS;
	pthread_mutex_unlock(&c->lock);
}

static void dial(struct vclient *c, struct session *x)
{
	const struct vol_map *m = vclient_map(c);
	int fd = conn_dial(m->brick[x->brick].address, 0);
	uint64_t now = clock_ms();

	pthread_mutex_lock(&c->lock);
	x->fd = fd;
	x->connecting = fd >= 0;
	x->dialled_at = now;
	x->dial_at = now + REDIAL_MS;
	x->serial++;
	pthread_mutex_unlock(&c->lock);
}

static void say_hello(struct vclient *c, struct session *x)
{
	struct proto_head h = {.type = FRAME_HELLO, .volume = proto_volume_tag(&vclient_map(c)->uuid)};
	struct buf b = {0};
	int err = 0, r;
	socklen_t size = sizeof(err);

	x->connecting = false;
	proto_tcp_connected(x->fd);
	r = getsockopt(x->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0 || err
		    ? -EPIPE
		    : conn_hello(c, &b, PROTO_SESSION);
	if (r == 0) {
		h.request = x->pinged_at = clock_ms();
		h.body_len = (uint32_t)b.len;
		h.body_crc = crc32c(0, b.data, b.len);
		r = send_frame(x->fd, &h, b.data);
	}
	buf_done(&b);
	if (r < 0)
		hang_up(c, x);
}

static void ping(struct vclient *c, struct session *x, uint64_t now)
{
	struct proto_head h = {
		.type = FRAME_PING, .request = now, .volume = proto_volume_tag(&vclient_map(c)->uuid)};
	int r;

	x->pinged_at = now;
	pthread_mutex_lock(&c->lock);
	r = send_frame(x->fd, &h, NULL);
	pthread_mutex_unlock(&c->lock);
	if (r < 0)
		hang_up(c, x);
}

static int on_push(struct vclient *c, struct session *x, const struct proto_head *h, const uint8_t *body)
{
	struct push_job *j = xcalloc(1, sizeof(*j));

	if (h->group >= VOL_GROUPS_MAX || proto_push_decode(body, h->body_len, &j->push) < 0) {
		free(j);
		return -EBADMSG;
	}
	j->session = x;
	j->serial = x->serial;
	j->request = h->request;
	j->group = h->group;
	if (j->push.type == PUSH_RESET) {
		pthread_mutex_lock(&c->lock);
		c->group[h->group].resets++;
		pthread_mutex_unlock(&c->lock);
	} else if (c->o.noted && j->push.type != PUSH_ORPHAN)
		c->o.noted(c->o.ctx, &j->push);
	return enqueue(c, j) ? 0 : -ENOBUFS;
}

static const char *brick_name(struct vclient *c, const struct session *x)
{
	return vclient_map(c)->brick[x->brick].name;
}

static void came_up(struct vclient *c, struct session *x)
{
	if (x->complained)
		log_info("volume %s: brick %s serves it again", c->volume, brick_name(c, x));
	x->complained = false;
	x->refused_at = 0;
}

/* It is asked again every REDIAL_MS, maybe for days: said once. */
static int refused(struct vclient *c, struct session *x, uint64_t now)
{
	if (x->refused_at == 0)
		x->refused_at = now;
	if (!x->complained && now - x->refused_at >= SAY_MS) {
		log_warn("volume %s: brick %s runs and does not serve it; 'kuayu volume status %s' says why",
			 c->volume, brick_name(c, x), c->volume);
		x->complained = true;
	}
	return -ENODEV;
}

static int on_frame(struct vclient *c, struct session *x, const struct proto_head *h, const uint8_t *body)
{
	if (crc32c(0, body, h->body_len) != h->body_crc || h->payload_len > 0)
		return -EBADMSG;
	switch (h->type) {
	case FRAME_HELLO:
		if (h->flags & FRAME_ANSWER && h->status == -ENODEV)
			return refused(c, x, clock_ms());
		/* fall through */
	case FRAME_PING:
		if (!(h->flags & FRAME_ANSWER) || h->status != 0 || h->request > clock_ms())
			return -EBADMSG;
		pthread_mutex_lock(&c->lock);
		x->up = true;
		/* a ping's number is the time of its sending */
		x->alive_from = MAX(x->alive_from, h->type == FRAME_HELLO ? x->pinged_at : h->request);
		pthread_mutex_unlock(&c->lock);
		came_up(c, x);
		return 0;
	case FRAME_PUSH:
		return on_push(c, x, h, body);
	default:
		return -EBADMSG;
	}
}

/* All whole frames in the buffer. -ENODEV: the brick does not take us. */
static int take_frames(struct vclient *c, struct session *x)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && x->in_len - at >= PROTO_HEAD) {
		struct proto_head h;
		size_t whole;

		r = proto_head_decode(x->in + at, &h);
		if (r < 0)
			break;
		whole = (size_t)PROTO_HEAD + h.body_len + h.payload_len;
		if (whole > IN_MAX)
			r = -EBADMSG;
		else if (x->in_len - at < whole)
			break;
		else {
			r = on_frame(c, x, &h, x->in + at + PROTO_HEAD);
			at += whole;
		}
	}
	memmove(x->in, x->in + at, x->in_len - at);
	x->in_len -= at;
	return r;
}

static void on_readable(struct vclient *c, struct session *x)
{
	for (int i = 0; i < READS_A_TURN; i++) {
		int r;
		ssize_t n = recv(x->fd, x->in + x->in_len, IN_MAX - x->in_len, MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			hang_up(c, x);
			return;
		}
		x->in_len += (size_t)n;
		r = take_frames(c, x);
		if (r < 0) {
			if (r != -ENODEV && !x->complained) {
				log_warn("volume %s: brick %s sent something on its session that is no frame "
					 "of it",
					 c->volume, brick_name(c, x));
				x->complained = true;
			}
			hang_up(c, x);
			return;
		}
	}
}

/* ---- the thread ---- */

/* Bricks that the map has gained. */
static void grow(struct vclient *c)
{
	struct sessions *ss = &c->sessions;
	uint32_t n = vclient_map(c)->n_bricks;

	for (; ss->n < n && ss->n < VOL_BRICKS_MAX; ss->n++) {
		struct session *x = &ss->session[ss->n];

		*x = (struct session){.brick = ss->n, .fd = -1, .in = malloc(IN_MAX)};
		if (!x->in)
			return;
	}
}

static void turn(struct vclient *c, struct pollfd *p)
{
	struct sessions *ss = &c->sessions;
	uint64_t now = clock_ms(), junk;
	int wait = 50;

	p[0] = (struct pollfd){.fd = ss->wake, .events = POLLIN};
	for (uint32_t i = 0; i < ss->n; i++) {
		struct session *x = &ss->session[i];

		if (x->fd < 0 && now >= x->dial_at)
			dial(c, x);
		else if (x->fd >= 0 && !x->up && now > x->dialled_at + DIALLING_MS)
			hang_up(c, x);
		else if (x->up && now >= x->pinged_at + PING_MS)
			ping(c, x, now);
		p[i + 1] = (struct pollfd){.fd = x->fd, .events = x->connecting ? POLLOUT : POLLIN};
	}
	if (poll(p, ss->n + 1, wait) > 0) {
		if (p[0].revents && read(ss->wake, &junk, sizeof(junk)) < 0)
			junk = 0;
		for (uint32_t i = 0; i < ss->n; i++) {
			struct session *x = &ss->session[i];

			if (x->fd < 0 || !p[i + 1].revents)
				continue;
			if (x->connecting)
				say_hello(c, x);
			else
				on_readable(c, x);
		}
	}
	judge(c);
}

static void *run(void *arg)
{
	struct vclient *c = arg;
	struct pollfd *p = xcalloc(VOL_BRICKS_MAX + 1, sizeof(*p));

	while (!atomic_load(&c->closing)) {
		grow(c);
		turn(c, p);
	}
	for (uint32_t i = 0; i < c->sessions.n; i++)
		hang_up(c, &c->sessions.session[i]);
	free(p);
	return NULL;
}

int sessions_start(struct vclient *c, struct err *e)
{
	struct sessions *ss = &c->sessions;

	pthread_mutex_init(&ss->queue_lock, NULL);
	pthread_cond_init(&ss->queue_changed, NULL);
	ss->last = &ss->first;
	ss->session = xcalloc(VOL_BRICKS_MAX, sizeof(*ss->session));
	ss->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ss->wake < 0)
		return err_errno(e, -errno, "eventfd");
	ss->started = true;
	for (int i = 0; i < PUSH_WORKERS; i++)
		if (pthread_create(&ss->worker[i], NULL, worker, c) != 0)
			ensure(!"a thread at the start");
	if (pthread_create(&ss->thread, NULL, run, c) != 0)
		ensure(!"a thread at the start");
	return 0;
}

void sessions_stop(struct vclient *c)
{
	struct sessions *ss = &c->sessions;

	if (!ss->started)
		return;
	sessions_wake(c);
	pthread_join(ss->thread, NULL);
	pthread_mutex_lock(&ss->queue_lock);
	pthread_cond_broadcast(&ss->queue_changed);
	pthread_mutex_unlock(&ss->queue_lock);
	for (int i = 0; i < PUSH_WORKERS; i++)
		pthread_join(ss->worker[i], NULL);
	for (uint32_t i = 0; i < ss->n; i++)
		free(ss->session[i].in);
	free(ss->session);
	close(ss->wake);
	ss->wake = -1;
	pthread_mutex_destroy(&ss->queue_lock);
	pthread_cond_destroy(&ss->queue_changed);
}
