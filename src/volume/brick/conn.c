/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: sockets with frames on the brick's loop, few system calls and no copy of large payloads.
 *
 * Reading. A connection has one buffer. A read takes what there is; whole frames in it are handed out where they lie. A payload gets memory of
 * its own as soon as its head is there: what is in the buffer already is copied, the rest is received directly into it, and the same
 * call (readv) takes the beginning of the next frame. After a large payload reads are short for some frames, so that little of the next
 * one is copied, and the socket wakes the loop only when a good part of a large payload is there (SO_RCVLOWAT). What is there of one is told to the
 * owner at once (part), so that it can be relayed; what a brick relays that way goes to memory that its owner names (place).
 * Writing. Heads and bodies are collected in one buffer a connection, payloads by reference; at the end of the loop's turn all of it goes out with one
 * sendmsg. What the socket does not take waits for it to be writable.
 * A turn: libuv calls timers and readable sockets; before it sleeps (prepare) and after it has served sockets (check) engine_turn runs: turn_end makes
 * what was done safe, then sends. Nothing is sent earlier, so no answer overtakes its log - but for what its owner says needs no log (bconn_end_part,
 * bconn_push), when nothing else is queued before it.
 *
 * Bounds: connections, queued bytes (beyond: closed), bytes of a frame before HELLO, rounds of reading a turn. Bytes that are no frame close the
 * connection. Owner and thread: the loop's. */
#include "volume/brick/conn.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define IN_CAP	       (128u << 10)
#define BODY_INLINE    (64u << 10) /* a longer body gets memory of its own */
#define PAYLOAD_BIG    (32u << 10) /* from here on reads are kept short behind it */
#define READ_SHORT     1024u	   /* a head and body behind a payload */
#define READ_BIG_FOR   8u	   /* frames after a large payload that may be followed by another one */
#define READ_LOWAT     (128u << 10)
#define ROUNDS_MAX     16 /* reads of one connection a turn */
#define TURNS_MAX      64 /* at once; what is left then waits for the next tick */
#define IOV_MAX_SEND   64
#define HELLO_MAX      512u	    /* body, before HELLO */
#define OUT_KEEP       (256u << 10) /* a buffer that grew beyond is given back when it is empty */
#define CONN_SILENT_MS 5000
#define OUT_LIMIT      (64u << 20)

struct seg {
	uint32_t len, from;
	struct payload *payload; /* len bytes of it from `from` on; NULL: the next len bytes of the buffer */
};

struct conn_inside {
	uv_poll_t poll;
	int fd, events;
	bool connecting, paused, choked,
		listed; /* choked: not read from because it does not take what is queued */
	bool busy;	/* inside the owner's frame() */
	bool held;	/* a frame is queued that may leave at the end of the turn only */
	/* in */
	uint8_t *buf;
	uint32_t at, end; /* of what is not yet used */
	struct proto_head head;
	bool have_head;
	uint8_t big;   /* frames for which reads are kept short */
	uint8_t *body; /* own memory of a long one */
	uint32_t body_got;
	struct payload *payload;
	uint32_t payload_at, payload_told; /* where in it the frame's bytes go; how many the owner knows of */
	bool checked;			   /* the body's CRC holds, and there is memory for the payload */
	int lowat;			   /* of the socket */
	uint32_t payload_got, skip; /* skip: bytes of the buffer that the payload's end was copied from */
	/* out */
	struct buf out;
	size_t out_at, begin; /* bytes of out that are sent; where the frame being built begins */
	struct seg *seg;
	uint32_t seg_first, seg_n, seg_cap;
	uint32_t seg_sent; /* bytes of the first that are sent */
	size_t queued;
	struct conn *next_ready;
};

struct engine {
	struct engine_options o;
	uv_poll_t listener;
	uv_prepare_t prepare;
	uv_check_t check;
	int listen_fd;
	struct conn *all, *ready;
	uint32_t n;
	uint64_t frames;
	bool closing;
	int handles;
};

static void conn_update(struct conn *c);

/* ---- life ---- */

struct conn *bconn_ref(struct conn *c)
{
	c->refs++;
	return c;
}

struct conn *bconn_unref(struct conn *c)
{
	if (c && --c->refs == 0) {
		ensure(c->gone);
		free(c);
	}
	return NULL;
}

static void inside_clear(struct conn_inside *in)
{
	free(in->buf);
	free(in->body);
	payload_unref(in->payload);
	for (; in->seg_n; in->seg_n--, in->seg_first = (in->seg_first + 1) % in->seg_cap)
		payload_unref(in->seg[in->seg_first].payload);
	free(in->seg);
	buf_done(&in->out);
}

static void on_poll_closed(uv_handle_t *h)
{
	struct conn *c = h->data;

	ensure(!c->in->listed);
	close(c->in->fd);
	inside_clear(c->in);
	free(c->in);
	c->in = NULL;
	bconn_unref(c);
}

void bconn_close(struct conn *c, int err, const char *why)
{
	struct engine *en = c->en;

	if (c->gone)
		return;
	c->gone = true;
	if (c->prev)
		c->prev->next = c->next;
	else
		en->all = c->next;
	if (c->next)
		c->next->prev = c->prev;
	en->n--;
	en->o.events.closed(c, err, why);
	/* A reader above us on the stack may still look at its body: memory goes with the handle. */
	uv_close((uv_handle_t *)&c->in->poll, on_poll_closed);
}

static struct conn *conn_new(struct engine *en, int fd, const char *peer)
{
	struct conn *c = xcalloc(1, sizeof(*c));
	int one = 1;
	unsigned silent_ms = CONN_SILENT_MS;

	c->in = xcalloc(1, sizeof(*c->in));
	c->en = en;
	c->refs = 1;
	c->in->fd = fd;
	c->in->lowat = 1;
	c->body_limit = HELLO_MAX;
	c->out_limit = OUT_LIMIT;
	c->in->out.limit = (size_t)1 << 30;
	c->since_ms = uv_now(en->o.loop);
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Who lost power or was cut off answers nothing; without a limit TCP tries again after ever longer pauses, and finds the one that is back late. */
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silent_ms, sizeof(silent_ms));
	if (uv_poll_init(en->o.loop, &c->in->poll, fd) < 0) {
		close(fd);
		free(c->in);
		free(c);
		return NULL;
	}
	c->in->poll.data = c;
	c->next = en->all;
	if (en->all)
		en->all->prev = c;
	en->all = c;
	en->n++;
	return c;
}

/* ---- reading ---- */

static int in_room(struct conn_inside *in)
{
	if (!in->buf) {
		in->buf = malloc(IN_CAP);
		if (!in->buf)
			return -ENOMEM;
	}
	if (in->at == in->end)
		in->at = in->end = 0;
	if (IN_CAP - in->end < IN_CAP / 4 && in->at > 0) {
		memmove(in->buf, in->buf + in->at, in->end - in->at);
		in->end -= in->at;
		in->at = 0;
	}
	return in->end < IN_CAP ? 0 : -EMSGSIZE;
}

/* Takes from the buffer what belongs to memory of the frame's own. */
static void spill(struct conn_inside *in, uint8_t *to, uint32_t *got, uint32_t want)
{
	uint32_t n = MIN(in->end - in->at, want - *got);

	memcpy(to + *got, in->buf + in->at, n);
	in->at += n;
	*got += n;
}

static int head_in(struct conn *c)
{
	struct conn_inside *in = c->in;
	int r = proto_head_decode(in->buf + in->at, &in->head);

	if (r < 0)
		return r;
	if (in->head.body_len > c->body_limit || (c->hello.role == 0 && in->head.payload_len > 0))
		return -EMSGSIZE;
	if (in->head.body_len > BODY_INLINE) {
		in->body = malloc(in->head.body_len);
		if (!in->body)
			return -ENOMEM;
	}
	in->at += PROTO_HEAD;
	in->body_got = in->payload_got = in->payload_at = in->payload_told = 0;
	in->checked = false;
	in->have_head = true;
	return 0;
}

/* The body is whole. */
static int body_in(struct conn *c, const uint8_t *body, const char **why)
{
	struct conn_inside *in = c->in;

	if (crc32c(0, body, in->head.body_len) != in->head.body_crc) {
		*why = "the checksum of a frame's body does not hold";
		return -EBADMSG;
	}
	in->checked = true;
	if (in->head.payload_len == 0)
		return 0;
	if (in->head.type == FRAME_EARLY && c->en->o.events.place) {
		in->payload = payload_ref(c->en->o.events.place(c, &in->head, body, &in->payload_at, why));
		if (!in->payload)
			return -EBADMSG;
		ensure(in->payload_at <= in->payload->len &&
		       in->head.payload_len <= in->payload->len - in->payload_at);
		return 0;
	}
	in->payload = payload_new(in->head.payload_len);
	return in->payload ? 0 : -ENOMEM;
}

static void tell_part(struct conn *c, const uint8_t *body)
{
	struct conn_inside *in = c->in;

	if (in->head.type != FRAME_OP || in->head.payload_len < CONN_PART_MIN ||
	    in->payload_got == in->payload_told || !c->en->o.events.part)
		return;
	in->payload_told = in->payload_got;
	c->en->o.events.part(c, &in->head, body, in->payload, in->payload_got);
}

static void frame_done(struct conn_inside *in)
{
	in->big = in->head.payload_len >= PAYLOAD_BIG ? READ_BIG_FOR : (uint8_t)(in->big - (in->big > 0));
	free(in->body);
	in->body = NULL;
	in->payload = payload_unref(in->payload);
	in->have_head = false;
}

/* 1: a frame was handled; 0: more bytes are needed. */
static int frame_in(struct conn *c, const char **why)
{
	struct conn_inside *in = c->in;
	const uint8_t *body;
	int r;

	if (!in->have_head) {
		if (in->end - in->at < PROTO_HEAD)
			return 0;
		r = head_in(c);
		if (r < 0) {
			*why = "not a frame, or too long";
			return r;
		}
	}
	if (in->body) {
		spill(in, in->body, &in->body_got, in->head.body_len);
		if (in->body_got < in->head.body_len)
			return 0;
		body = in->body;
	} else {
		/* A short body stays at `at` until its payload is whole. */
		if (in->body_got == 0 && in->end - in->at < in->head.body_len)
			return 0;
		body = in->buf + in->at;
	}
	if (!in->checked) {
		r = body_in(c, body, why);
		if (r < 0)
			return r;
	}
	if (in->payload && in->payload_got < in->head.payload_len) {
		uint32_t from = in->at + (in->body ? 0 : in->head.body_len);
		uint32_t n = MIN(in->end - from, in->head.payload_len - in->payload_got);

		memcpy(in->payload->data + in->payload_at + in->payload_got, in->buf + from, n);
		in->payload_got += n;
		if (in->payload_got == in->head.payload_len)
			in->skip = n; /* what follows the payload stays where it is */
		else
			in->end -= n;
	}
	if (in->payload) {
		tell_part(c, body);
		if (in->payload_got < in->head.payload_len)
			return 0;
	}
	if (!in->body)
		in->at += in->head.body_len;
	in->at += in->skip;
	in->skip = 0;
	c->en->frames++;
	in->busy = true;
	r = c->en->o.events.frame(c, &in->head, body, in->payload, why);
	in->busy = false;
	if (c->gone)
		return -ECONNRESET;
	frame_done(in);
	return r < 0 ? r : 1;
}

/* One read; the number of bytes asked for goes to *ret_asked. */
static ssize_t take(struct conn_inside *in, size_t *ret_asked)
{
	struct iovec v[2];
	int n = 0;
	uint32_t room;

	if (in->have_head && in->body && in->body_got < in->head.body_len)
		v[n++] = (struct iovec){in->body + in->body_got, in->head.body_len - in->body_got};
	else if (in->have_head && in->payload && in->payload_got < in->head.payload_len &&
		 (in->body || in->end - in->at >= in->head.body_len))
		v[n++] = (struct iovec){in->payload->data + in->payload_at + in->payload_got,
					in->head.payload_len - in->payload_got};
	room = IN_CAP - in->end;
	if (in->big > 0 || (n && v[0].iov_len >= PAYLOAD_BIG))
		room = MIN(room, READ_SHORT);
	v[n++] = (struct iovec){in->buf + in->end, room};
	*ret_asked = v[0].iov_len + (n == 2 ? v[1].iov_len : 0);
	return readv(in->fd, v, n);
}

/* Bytes that went past the buffer: into body or payload. */
static void took(struct conn_inside *in, size_t n)
{
	uint32_t *got = NULL, want = 0;

	if (in->have_head && in->body && in->body_got < in->head.body_len)
		got = &in->body_got, want = in->head.body_len;
	else if (in->have_head && in->payload && in->payload_got < in->head.payload_len &&
		 (in->body || in->end - in->at >= in->head.body_len))
		got = &in->payload_got, want = in->head.payload_len;
	if (got) {
		uint32_t direct = (uint32_t)MIN(n, (size_t)(want - *got));

		*got += direct;
		n -= direct;
	}
	in->end += (uint32_t)n;
}

/* Not read from: too much of it is in flight, or waits to be taken by it. */
static bool stopped(const struct conn *c)
{
	return c->in->paused || (c->pause_above > 0 && c->in->queued > c->pause_above);
}

/* The whole frames that are in the buffer. False: the connection is gone. */
static bool frames(struct conn *c)
{
	const char *why = NULL;
	int r = 1;

	while (r > 0 && !stopped(c)) {
		r = frame_in(c, &why);
		if (c->gone)
			return false;
	}
	if (r < 0)
		bconn_close(c, r, why);
	c->in->choked =
		r >
		0; /* there may be more in the buffer: when it takes its answers, or is not paused any more */
	return r >= 0;
}

static void conn_read_some(struct conn *c)
{
	int r;

	for (int round = 0; round < ROUNDS_MAX && !stopped(c); round++) {
		size_t asked;
		ssize_t n;

		r = in_room(c->in);
		if (r < 0) {
			bconn_close(c, r, "no room for a frame");
			return;
		}
		n = take(c->in, &asked);
		if (n == 0) {
			bconn_close(c, 0, NULL);
			return;
		}
		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				bconn_close(c, -errno, NULL);
			return;
		}
		took(c->in, (size_t)n);
		if (!frames(c))
			return;
		if ((size_t)n < asked)
			return;
	}
}

/* While much of a payload is to come, the socket is not ready before a good part of it (or its end) is there: fewer wake-ups. */
static void set_lowat(struct conn_inside *in)
{
	uint32_t left = in->have_head && in->payload ? in->head.payload_len - in->payload_got : 0;
	int want = left >= PAYLOAD_BIG || (left > 0 && in->lowat > 1) ? (int)MIN(left, READ_LOWAT) : 1;

	if (want == in->lowat)
		return;
	if (setsockopt(in->fd, SOL_SOCKET, SO_RCVLOWAT, &want, sizeof(want)) == 0)
		in->lowat = want;
}

static void conn_read(struct conn *c)
{
	conn_read_some(c);
	if (!c->gone)
		set_lowat(c->in);
}

/* ---- writing ---- */

static struct seg *seg_add(struct conn_inside *in)
{
	if (in->seg_n == in->seg_cap) {
		uint32_t cap = in->seg_cap ? in->seg_cap * 2 : 16;
		struct seg *bigger = xcalloc(cap, sizeof(*bigger));

		for (uint32_t i = 0; i < in->seg_n; i++)
			bigger[i] = in->seg[(in->seg_first + i) % in->seg_cap];
		free(in->seg);
		in->seg = bigger;
		in->seg_first = 0;
		in->seg_cap = cap;
	}
	return &in->seg[(in->seg_first + in->seg_n++) % in->seg_cap];
}

struct buf *bconn_begin(struct conn *c)
{
	static const uint8_t zero[PROTO_HEAD];
	static struct buf nowhere = {.limit = (size_t)64 << 20};

	if (c->gone) {
		nowhere.len = 0;
		return &nowhere;
	}
	c->in->begin = c->in->out.len;
	buf_add(&c->in->out, zero, PROTO_HEAD);
	return &c->in->out;
}

void bconn_end(struct conn *c, struct proto_head *h, struct payload *payload)
{
	if (!c->gone)
		c->in->held = true;
	bconn_end_part(c, h, payload, 0, payload ? payload->len : 0);
}

void bconn_end_part(struct conn *c, struct proto_head *h, struct payload *payload, uint32_t from,
		    uint32_t payload_len)
{
	struct conn_inside *in = c->in;
	size_t len;
	struct seg *last;

	if (c->gone)
		return;
	len = in->out.len - in->begin;
	ensure(len - PROTO_HEAD <= PROTO_BODY_MAX);
	h->body_len = (uint32_t)(len - PROTO_HEAD);
	h->payload_len = payload_len;
	h->body_crc = crc32c(0, in->out.data + in->begin + PROTO_HEAD, h->body_len);
	proto_head_encode(h, (uint8_t *)in->out.data + in->begin);
	last = in->seg_n ? &in->seg[(in->seg_first + in->seg_n - 1) % in->seg_cap] : NULL;
	if (last && !last->payload && last->len < (1u << 30))
		last->len += (uint32_t)len;
	else
		*seg_add(in) = (struct seg){.len = (uint32_t)len};
	in->queued += len;
	if (payload) {
		*seg_add(in) =
			(struct seg){.len = payload_len, .from = from, .payload = payload_ref(payload)};
		in->queued += payload_len;
	}
	if (!in->listed) {
		in->listed = true;
		in->next_ready = c->en->ready;
		c->en->ready = bconn_ref(c);
	}
}

void bconn_send(struct conn *c, struct proto_head *h, const void *body, size_t len, struct payload *payload)
{
	buf_add(bconn_begin(c), body, len);
	bconn_end(c, h, payload);
}

size_t bconn_queued(const struct conn *c)
{
	return c->gone ? 0 : c->in->queued;
}

static void sent(struct conn_inside *in, size_t n)
{
	in->queued -= n;
	while (n > 0) {
		struct seg *s = &in->seg[in->seg_first];
		uint32_t part = (uint32_t)MIN(n, (size_t)(s->len - in->seg_sent));

		if (!s->payload)
			in->out_at += part;
		in->seg_sent += part;
		n -= part;
		if (in->seg_sent < s->len)
			break;
		payload_unref(s->payload);
		in->seg_first = (in->seg_first + 1) % in->seg_cap;
		in->seg_n--;
		in->seg_sent = 0;
	}
	if (in->seg_n == 0) {
		in->out.len = in->out_at = 0;
		if (in->out.cap > OUT_KEEP) {
			size_t limit = in->out.limit;

			buf_done(&in->out);
			in->out.limit = limit;
		}
	} else if (in->out_at > OUT_KEEP && in->out_at > in->out.len / 2) {
		buf_skip(&in->out, in->out_at);
		in->out_at = 0;
	}
}

/* One sendmsg of at most IOV_MAX_SEND pieces. */
static ssize_t send_some(struct conn_inside *in, size_t *ret_asked)
{
	struct iovec v[IOV_MAX_SEND];
	struct msghdr m = {.msg_iov = v};
	size_t at = in->out_at;
	uint32_t skip = in->seg_sent;

	for (uint32_t i = 0; i < in->seg_n && i < IOV_MAX_SEND; i++, skip = 0) {
		struct seg *s = &in->seg[(in->seg_first + i) % in->seg_cap];

		v[i].iov_len = s->len - skip;
		if (s->payload) {
			v[i].iov_base = s->payload->data + s->from + skip;
		} else {
			v[i].iov_base = in->out.data + at;
			at += v[i].iov_len;
		}
		m.msg_iovlen++;
		*ret_asked += v[i].iov_len;
	}
	return sendmsg(in->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void bconn_push(struct conn *c)
{
	struct conn_inside *in = c->gone ? NULL : c->in;
	bool all = true;

	while (in && !in->connecting && !in->held && in->seg_n > 0 && all) {
		size_t asked = 0;
		ssize_t n = send_some(in, &asked);

		if (n < 0)
			return;
		sent(in, (size_t)n);
		all = (size_t)n == asked;
	}
}

static void conn_flush(struct conn *c)
{
	struct conn_inside *in = c->in;

	in->held = false;
	if (in->connecting)
		return;
	while (in->seg_n > 0) {
		size_t asked = 0;
		ssize_t n = send_some(in, &asked);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			bconn_close(c, -errno, NULL);
			return;
		}
		if (n < 0)
			break;
		sent(in, (size_t)n);
		if ((size_t)n < asked)
			break;
	}
	if (in->queued > c->out_limit) {
		bconn_close(c, -ENOBUFS, "it does not take what is sent to it");
		return;
	}
	/* It takes its answers again. */
	if (in->choked && !stopped(c)) {
		in->choked = false;
		if (!in->busy && in->buf && !frames(c))
			return;
	}
	conn_update(c);
}

static int turn(struct engine *en)
{
	struct conn *c, *next;
	int r = en->o.events.turn_end(en->o.events.ctx);

	for (c = take_ptr(en->ready); c; c = next) {
		next = c->in->next_ready;
		c->in->listed = false;
		if (r < 0)
			bconn_close(c, r, "what was done could not be made safe");
		else if (!c->gone)
			conn_flush(c);
		bconn_unref(c);
	}
	return r;
}

/* Answers may have led to more work, which the loop would sleep upon. */
void engine_turn(struct engine *en)
{
	for (int i = 0; i < TURNS_MAX && (turn(en) > 0 || en->ready); i++)
		;
	if (en->o.events.turn_sent)
		en->o.events.turn_sent(en->o.events.ctx);
}

/* ---- events ---- */

static void on_poll(uv_poll_t *p, int status, int events)
{
	struct conn *c = p->data;
	int err = 0;
	socklen_t len = sizeof(err);

	if (status < 0) { /* libuv says EBADF for every error of a socket */
		getsockopt(c->in->fd, SOL_SOCKET, SO_ERROR, &err, &len);
		bconn_close(c, err ? -err : status == UV_EBADF ? -ECONNRESET : status, NULL);
		return;
	}
	if (c->in->connecting) {
		getsockopt(c->in->fd, SOL_SOCKET, SO_ERROR, &err, &len);
		if (err) {
			bconn_close(c, -err, NULL);
			return;
		}
		c->in->connecting = false;
		proto_tcp_connected(c->in->fd);
		c->en->o.events.opened(c);
		if (c->gone)
			return;
		conn_flush(c);
		return;
	}
	if (events & UV_WRITABLE)
		conn_flush(c);
	if (!c->gone && events & UV_READABLE)
		conn_read(c);
}

static void conn_update(struct conn *c)
{
	struct conn_inside *in = c->in;
	int events = (stopped(c) || in->connecting ? 0 : UV_READABLE) |
		     (in->connecting || in->seg_n > 0 ? UV_WRITABLE : 0);

	if (events == in->events)
		return;
	in->events = events;
	if (events)
		uv_poll_start(&in->poll, events, on_poll);
	else
		uv_poll_stop(&in->poll);
}

void bconn_pause(struct conn *c, bool paused)
{
	if (c->gone || c->in->paused == paused)
		return;
	c->in->paused = paused;
	/* Whole frames may wait in the buffer: no event will tell of them. Inside the owner's frame() the reader above goes on by itself. */
	if (!paused && !c->in->busy && c->in->buf && !frames(c))
		return;
	if (!c->gone)
		conn_update(c);
}

static void on_accept(uv_poll_t *p, int status, int events)
{
	struct engine *en = p->data;

	for (int i = 0; i < 64; i++) {
		struct sockaddr_in a;
		socklen_t len = sizeof(a);
		char ip[INET_ADDRSTRLEN] = "", peer[64];
		int fd = accept4(en->listen_fd, (struct sockaddr *)&a, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct conn *c;

		if (fd < 0)
			return;
		if (en->n >= en->o.connections_max) {
			close(fd);
			continue;
		}
		inet_ntop(AF_INET, &a.sin_addr, ip, sizeof(ip));
		snprintf(peer, sizeof(peer), "%s:%d", ip, ntohs(a.sin_port));
		proto_tcp_connected(fd);
		c = conn_new(en, fd, peer);
		if (c)
			conn_update(c);
	}
}

static int parse_address(const char *text, int default_port, struct sockaddr_in *ret)
{
	char ip[INET_ADDRSTRLEN];
	const char *colon = strrchr(text, ':');
	int64_t port = default_port;
	size_t len = colon ? (size_t)(colon - text) : strlen(text);

	if (len >= sizeof(ip) || (colon && (str_i64(colon + 1, &port) < 0 || port < 0 || port > 65535)))
		return -EINVAL;
	memcpy(ip, text, len);
	ip[len] = 0;
	*ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	return inet_pton(AF_INET, ip, &ret->sin_addr) == 1 ? 0 : -EINVAL;
}

struct conn *engine_dial(struct engine *en, const char *address, void *owner, struct err *e)
{
	struct sockaddr_in a;
	struct conn *c;
	int fd, r;

	if (parse_address(address, PROTO_PORT, &a) < 0) {
		err_set(e, -EINVAL, "'%s' is not an address IP:PORT", address);
		return NULL;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		err_errno(e, -errno, "no socket");
		return NULL;
	}
	proto_tcp_new(fd);
	r = connect(fd, (struct sockaddr *)&a, sizeof(a));
	if (r < 0 && errno != EINPROGRESS) {
		err_errno(e, -errno, "%s", address);
		close(fd);
		return NULL;
	}
	c = conn_new(en, fd, address);
	if (!c)
		return NULL;
	c->owner = owner;
	c->dialled = true;
	c->in->connecting = true;
	conn_update(c);
	return c;
}

int engine_listen(struct engine *en, const char *address, int port, struct err *e)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int one = 1, fd;

	if (parse_address(address, port, &a) < 0)
		return err_set(e, -EINVAL, "'%s' is not an address IP:PORT", address);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, -errno, "no socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	proto_tcp_new(fd);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 512) < 0) {
		int r = -errno;

		close(fd);
		return err_errno(e, r, "cannot listen on %s", address);
	}
	getsockname(fd, (struct sockaddr *)&a, &len);
	en->listen_fd = fd;
	ensure(uv_poll_init(en->o.loop, &en->listener, fd) == 0);
	en->listener.data = en;
	en->handles++;
	uv_poll_start(&en->listener, UV_READABLE, on_accept);
	return ntohs(a.sin_port);
}

static void on_prepare(uv_prepare_t *p)
{
	engine_turn(p->data);
}

static void on_check(uv_check_t *p)
{
	engine_turn(p->data);
}

struct engine *engine_new(const struct engine_options *o)
{
	struct engine *en = xcalloc(1, sizeof(*en));

	en->o = *o;
	en->listen_fd = -1;
	uv_prepare_init(o->loop, &en->prepare);
	uv_check_init(o->loop, &en->check);
	en->prepare.data = en->check.data = en;
	en->handles = 2;
	uv_prepare_start(&en->prepare, on_prepare);
	uv_check_start(&en->check, on_check);
	return en;
}

static void on_handle_closed(uv_handle_t *h)
{
	struct engine *en = h->data;

	if (--en->handles > 0)
		return;
	if (en->listen_fd >= 0)
		close(en->listen_fd);
	free(en);
}

struct engine *engine_free(struct engine *en)
{
	if (!en)
		return NULL;
	for (struct conn *c = take_ptr(en->ready), *next; c; c = next) {
		next = c->in->next_ready;
		c->in->listed = false;
		conn_flush(c);
		bconn_unref(c);
	}
	while (en->all)
		bconn_close(en->all, -ESHUTDOWN, NULL);
	if (en->listen_fd >= 0)
		uv_close((uv_handle_t *)&en->listener, on_handle_closed);
	uv_close((uv_handle_t *)&en->prepare, on_handle_closed);
	uv_close((uv_handle_t *)&en->check, on_handle_closed);
	return NULL;
}

void *engine_ctx(const struct engine *en)
{
	return en->o.events.ctx;
}

struct conn *engine_first(const struct engine *en)
{
	return en->all;
}

uint64_t engine_activity(const struct engine *en)
{
	return en->frames;
}
