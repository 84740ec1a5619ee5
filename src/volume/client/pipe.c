/* SPDX-License-Identifier: Apache-2.0 */
/* The pipe: writes in flight, many on one connection, on one thread (client.h).
 *
 * Sockets do not block. What is to be sent waits in a FIFO a connection; one sendmsg takes as much of it as the socket does, payloads from
 * where they lie. Answers are found by their request number. A write has a number of its own for ids: all that are in flight have different ones, so the
 * group keeps the answer of each (docs/volume-files.md, exactly once).
 *
 * Trouble of a connection (end, bytes that are no answer, OP_TRY_MS without one although something is in flight, a group in flight
 * that has another primary now) closes it; everything in flight on it goes back as `again`. A brick that could not be reached is not dialled for
 * REDIAL_MS; meanwhile its writes go back at once.
 *
 * Bounds: VCLIENT_PIPE_MAX writes; IN_ROOM bytes of answers a connection. */
#include "volume/client/internal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define IN_ROOM	  (64u << 10)
#define REDIAL_MS 1000
#define IOV_SEND  64
#define KICK	  (1u << 20) /* added to the eventfd; wakes add 1 */
#define READS_MAX 16	     /* of one connection a turn */

struct line { /* to one brick */
	bool up;
	uint64_t dial_at; /* not before */
	uint64_t heard;	  /* the newest answer, or when something was put on an idle line */
	struct vclient_write *fifo[VCLIENT_PIPE_MAX];
	uint32_t first, n, flying;
	uint8_t *in;
	size_t in_len;
};

struct vclient_pipe {
	struct vclient *c;
	void (*back)(struct vclient_write *w, bool again);
	struct vclient_slot *slot; /* its connections are the lines' sockets */
	struct line *line[VOL_BRICKS_MAX];
	struct vclient_write *flying[VCLIENT_PIPE_MAX];
	uint32_t n_flying;
	uint64_t serial;
	int wake;
};

void pipe_kick(struct vclient *c)
{
	int fd = atomic_load(&c->pipe_wake);

	if (fd >= 0)
		(void)eventfd_write(fd, KICK);
}

void vclient_pipe_wake(struct vclient_pipe *p)
{
	(void)eventfd_write(p->wake, 1);
}

struct vclient_pipe *vclient_pipe_new(struct vclient *c, void (*back)(struct vclient_write *w, bool again))
{
	struct vclient_pipe *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	*p = (struct vclient_pipe){.c = c,
				   .back = back,
				   .slot = vclient_slot_new(c),
				   .wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	if (!p->slot || p->wake < 0)
		return vclient_pipe_free(p);
	pthread_mutex_lock(&c->lock);
	atomic_store(&c->pipe_wake, p->wake);
	pthread_mutex_unlock(&c->lock);
	return p;
}

struct vclient_pipe *vclient_pipe_free(struct vclient_pipe *p)
{
	if (!p)
		return NULL;
	ensure(p->n_flying == 0);
	pthread_mutex_lock(&p->c->lock); /* nobody is inside pipe_kick */
	if (atomic_load(&p->c->pipe_wake) == p->wake)
		atomic_store(&p->c->pipe_wake, -1);
	pthread_mutex_unlock(&p->c->lock);
	for (uint32_t i = 0; i < VOL_BRICKS_MAX; i++)
		if (p->line[i]) {
			free(p->line[i]->in);
			free(p->line[i]);
		}
	vclient_slot_free(p->slot);
	if (p->wake >= 0)
		close(p->wake);
	free(p);
	return NULL;
}

void vclient_write_init(struct vclient *c, struct vclient_write *w)
{
	*w = (struct vclient_write){0};
	pthread_mutex_lock(&c->lock);
	w->number = ++c->next_slot;
	pthread_mutex_unlock(&c->lock);
}

void vclient_write_done(struct vclient_write *w)
{
	vfs_result_done(&w->res);
	buf_done(&w->head);
}

/* ---- lines ---- */

static void land(struct vclient_pipe *p, struct vclient_write *w, bool again)
{
	uint32_t at = (uint32_t)(w->request % VCLIENT_PIPE_MAX);

	ensure(w->flying && p->flying[at] == w);
	p->flying[at] = NULL;
	p->n_flying--;
	p->line[w->brick]->flying--;
	w->flying = false;
	p->back(w, again);
}

static void line_down(struct vclient_pipe *p, uint32_t brick)
{
	struct line *l = p->line[brick];

	slot_disconnect(p->slot, brick);
	l->up = false;
	l->first = l->n = 0;
	l->in_len = 0;
	for (uint32_t i = 0; i < VCLIENT_PIPE_MAX && l->flying > 0; i++)
		if (p->flying[i] && p->flying[i]->brick == brick) {
			p->flying[i]->tried = p->flying[i]->sent > 0;
			land(p, p->flying[i], true);
		}
}

static bool line_up(struct vclient_pipe *p, uint32_t brick)
{
	struct line *l = p->line[brick];
	int fd, flags;

	if (l && l->up)
		return true;
	if (!l) {
		l = calloc(1, sizeof(*l));
		if (!l || !(l->in = malloc(IN_ROOM))) {
			free(l);
			return false;
		}
		p->line[brick] = l;
	}
	if (clock_ms() < l->dial_at)
		return false;
	fd = slot_connect(p->slot, brick);
	if (fd < 0 || (flags = fcntl(fd, F_GETFL)) < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		slot_disconnect(p->slot, brick);
		l->dial_at = clock_ms() + REDIAL_MS;
		return false;
	}
	l->up = true;
	return true;
}

/* ---- out ---- */

static bool aim(struct vclient_pipe *p, struct vclient_write *w)
{
	struct vclient *c = p->c;
	const struct vol_map *m = vclient_map(c);
	struct group_state *g = &c->group[w->group];
	int brick;

	pthread_mutex_lock(&c->lock);
	brick = g->known && g->view.epoch > 0 ? repl_view_brick(m, w->group, &g->view, g->view.primary) : -1;
	w->view = g->view;
	w->resets = g->resets;
	pthread_mutex_unlock(&c->lock);
	if (brick >= 0)
		w->brick = (uint32_t)brick;
	return brick >= 0 && brick < VOL_BRICKS_MAX;
}

static int encode(struct vclient_pipe *p, struct vclient_write *w)
{
	static const uint8_t zero[PROTO_HEAD];
	struct proto_head h = {.type = FRAME_OP,
			       .flags = p->c->o.leases ? FRAME_WANT_LEASE : 0,
			       .request = w->request,
			       .volume = proto_volume_tag(&vclient_map(p->c)->uuid),
			       .group = w->group,
			       .epoch = w->view.epoch,
			       .payload_len = (uint32_t)w->op.len};
	int r;

	w->head.len = 0;
	buf_add(&w->head, zero, PROTO_HEAD);
	r = vfs_op_encode(&w->op, &w->head);
	if (r < 0)
		return r;
	h.body_len = (uint32_t)(w->head.len - PROTO_HEAD);
	h.body_crc = crc32c(0, w->head.data + PROTO_HEAD, h.body_len);
	(void)payload_chunks(w->op.off, w->data, h.payload_len, p->slot->crc, &h.payload_crc);
	proto_head_encode(&h, (uint8_t *)w->head.data);
	return 0;
}

bool vclient_pipe_send(struct vclient_pipe *p, struct vclient_write *w)
{
	struct line *l;

	ensure(!w->flying && w->op.type == VFS_WRITE && w->op.len > 0 && w->op.len <= RECORD_PAYLOAD_MAX);
	w->op.id = (struct vfs_opid){p->c->id, w->number, ++w->count};
	w->tried = false;
	if (p->n_flying == VCLIENT_PIPE_MAX || !aim(p, w) || !line_up(p, w->brick))
		return false;
	do
		w->request = ++p->serial;
	while (p->flying[w->request % VCLIENT_PIPE_MAX]);
	if (encode(p, w) < 0)
		return false;
	l = p->line[w->brick];
	if (l->flying == 0)
		l->heard = clock_ms();
	l->fifo[(l->first + l->n++) % VCLIENT_PIPE_MAX] = w;
	l->flying++;
	w->sent = 0;
	w->flying = true;
	p->flying[w->request % VCLIENT_PIPE_MAX] = w;
	p->n_flying++;
	return true;
}

static void went_out(struct line *l, size_t n)
{
	while (n > 0) {
		struct vclient_write *w = l->fifo[l->first];
		size_t left = w->head.len + w->op.len - w->sent, part = MIN(n, left);

		w->sent += part;
		n -= part;
		if (part < left)
			return;
		l->first = (l->first + 1) % VCLIENT_PIPE_MAX;
		l->n--;
	}
}

/* False: the connection is broken. */
static bool flush_line(struct vclient_pipe *p, uint32_t brick)
{
	struct line *l = p->line[brick];

	while (l->n > 0) {
		struct iovec v[IOV_SEND];
		struct msghdr m = {.msg_iov = v};
		size_t asked = 0;
		ssize_t n;

		for (uint32_t i = 0; i < l->n && m.msg_iovlen + 2 <= IOV_SEND; i++) {
			struct vclient_write *w = l->fifo[(l->first + i) % VCLIENT_PIPE_MAX];
			size_t in_data = w->sent > w->head.len ? w->sent - w->head.len : 0;

			if (w->sent < w->head.len)
				v[m.msg_iovlen++] =
					(struct iovec){(char *)w->head.data + w->sent, w->head.len - w->sent};
			v[m.msg_iovlen++] = (struct iovec){(char *)w->data + in_data, w->op.len - in_data};
			asked += w->head.len + w->op.len - w->sent;
		}
		n = sendmsg(p->slot->fd[brick], &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		went_out(l, (size_t)n);
		if ((size_t)n < asked)
			return true;
	}
	return true;
}

/* ---- in ---- */

/* Is it final? Then w has its result. */
static bool final(struct vclient_pipe *p, struct vclient_write *w, const struct proto_head *h,
		  const uint8_t *body)
{
	struct vclient *c = p->c;
	struct group_state *g = &c->group[w->group];
	struct proto_view v;

	if (h->status == -ESTALE && proto_view_decode(body, h->body_len, &v) == 0)
		client_view_hint(c, w->group, &v.view);
	w->tried = h->status != 0 && h->flags & FRAME_TAKEN;
	if (h->status != 0)
		return false;
	vfs_result_done(&w->res);
	w->res = (struct vfs_result){0};
	if (vfs_result_decode(body, h->body_len, NULL, &w->res) < 0 || w->res.err == -EAGAIN ||
	    w->res.err == -ESTALE)
		return false;
	pthread_mutex_lock(&c->lock);
	w->leased = g->leases_hold && g->resets == w->resets && g->view.epoch == w->view.epoch &&
		    h->flags & FRAME_LEASED;
	w->forks = g->view.fork == w->view.fork ? g->view.fork : UINT64_MAX;
	pthread_mutex_unlock(&c->lock);
	return true;
}

static int frame(struct vclient_pipe *p, uint32_t brick, const struct proto_head *h, const uint8_t *body)
{
	struct vclient_write *w = p->flying[h->request % VCLIENT_PIPE_MAX];

	if (!(h->flags & FRAME_ANSWER) || h->type != FRAME_OP || h->payload_len > 0 ||
	    crc32c(0, body, h->body_len) != h->body_crc)
		return -EBADMSG;
	if (!w || w->request != h->request || w->brick != brick || w->sent < w->head.len + w->op.len)
		return -EBADMSG;
	p->line[brick]->heard = clock_ms();
	land(p, w, !final(p, w, h, body));
	return 0;
}

/* The whole frames in the buffer. */
static int frames(struct vclient_pipe *p, uint32_t brick)
{
	struct line *l = p->line[brick];
	size_t at = 0;
	int r = 0;

	while (r == 0 && l->in_len - at >= PROTO_HEAD) {
		struct proto_head h;

		r = proto_head_decode(l->in + at, &h);
		if (r == 0 && PROTO_HEAD + (size_t)h.body_len > IN_ROOM)
			r = -EMSGSIZE;
		if (r < 0 || l->in_len - at < PROTO_HEAD + (size_t)h.body_len)
			break;
		r = frame(p, brick, &h, l->in + at + PROTO_HEAD);
		at += PROTO_HEAD + h.body_len;
	}
	if (r == 0 && at > 0) {
		memmove(l->in, l->in + at, l->in_len - at);
		l->in_len -= at;
	}
	return r;
}

/* False: the connection is of no use any more. */
static bool read_line(struct vclient_pipe *p, uint32_t brick)
{
	struct line *l = p->line[brick];

	for (int i = 0; i < READS_MAX; i++) {
		size_t room = IN_ROOM - l->in_len;
		ssize_t n = recv(p->slot->fd[brick], l->in + l->in_len, room, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		l->in_len += (size_t)n;
		if (frames(p, brick) < 0)
			return false;
		if ((size_t)n < room)
			return true;
	}
	return true;
}

/* ---- a turn ---- */

/* Is somebody in flight whose group has another primary now? */
static bool moved(struct vclient_pipe *p, uint32_t brick)
{
	struct vclient *c = p->c;
	const struct vol_map *m = vclient_map(c);
	bool found = false;

	pthread_mutex_lock(&c->lock);
	for (uint32_t i = 0; i < VCLIENT_PIPE_MAX && !found; i++) {
		struct vclient_write *w = p->flying[i];
		const struct repl_view *v = w ? &c->group[w->group].view : NULL;

		found = w && w->brick == brick && repl_view_brick(m, w->group, v, v->primary) != (int)brick;
	}
	pthread_mutex_unlock(&c->lock);
	return found;
}

static void look_after(struct vclient_pipe *p, bool kicked)
{
	uint64_t now = clock_ms();

	for (uint32_t i = 0; i < VOL_BRICKS_MAX; i++) {
		struct line *l = p->line[i];

		if (l && l->up && l->flying > 0 && (now - l->heard >= OP_TRY_MS || (kicked && moved(p, i))))
			line_down(p, i);
	}
}

static uint32_t poll_set(struct vclient_pipe *p, int fd, struct pollfd *v, uint32_t *brick)
{
	uint32_t n = 0;

	v[n++] = (struct pollfd){.fd = p->wake, .events = POLLIN};
	v[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
	for (uint32_t i = 0; i < VOL_BRICKS_MAX; i++)
		if (p->line[i] && p->line[i]->up) {
			brick[n] = i;
			v[n++] = (struct pollfd){.fd = p->slot->fd[i],
						 .events = (short)(POLLIN | (p->line[i]->n ? POLLOUT : 0))};
		}
	return n;
}

void vclient_pipe_run(struct vclient_pipe *p, int fd, int timeout_ms)
{
	struct pollfd v[VOL_BRICKS_MAX + 2];
	uint32_t brick[VOL_BRICKS_MAX + 2], n;
	bool kicked = false;
	eventfd_t woken;

	for (uint32_t i = 0; i < VOL_BRICKS_MAX; i++)
		if (p->line[i] && p->line[i]->up && !flush_line(p, i))
			line_down(p, i);
	n = poll_set(p, fd, v, brick);
	if (p->n_flying > 0 && (timeout_ms < 0 || timeout_ms > OP_TRY_MS / 4))
		timeout_ms = OP_TRY_MS / 4;
	if (poll(v, n, timeout_ms) > 0) {
		if (v[0].revents) {
			kicked = eventfd_read(p->wake, &woken) == 0 && woken >= KICK;
		}
		for (uint32_t i = 2; i < n; i++)
			if (v[i].revents & ~POLLOUT && !read_line(p, brick[i]))
				line_down(p, brick[i]);
	}
	look_after(p, kicked);
}

int vclient_write_again(struct vclient_slot *s, struct vclient_write *w)
{
	struct payload data = {.refs = 1, .len = (uint32_t)w->op.len, .data = (uint8_t *)w->data};
	struct call k = {.group = w->group,
			 .member = -1,
			 .want_lease = s->c->o.leases,
			 .data = w->data,
			 .keep_id = w->op.id.number > 0,
			 .tried = w->tried,
			 .tried_fork = w->view.fork};
	uint64_t off = w->op.off, len = w->op.len, done = 0;
	int r;

	vclient_forks_begin(s);
	w->leased = false;
	if (vclient_map(s->c)->stripe > 1) {
		w->op.payload = &data;
		do { /* a short write: the rest tells why */
			data.data = (uint8_t *)w->data + done;
			data.len = (uint32_t)(len - done);
			w->op.off = off + done;
			vfs_result_done(&w->res);
			r = vclient_call(s, &w->op, &w->res, NULL);
			done += r == 0 ? w->op.len : 0;
		} while (r == 0 && w->op.len > 0 && done < len);
		if (r == 0 && done < len)
			r = w->res.err = -EIO;
		w->op.payload = NULL;
		w->op.off = off;
		w->op.len = len;
	} else {
		r = write_piece(s, &w->op, &w->res, &k);
		w->leased = k.leased;
	}
	w->forks = vclient_forks_end(s, &w->op.ino);
	return r;
}
