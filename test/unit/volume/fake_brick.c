/* SPDX-License-Identifier: Apache-2.0 */
#include "volume/fake_brick.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include "base/base.h"

struct conn {
	struct fake_brick *b;
	int fd;
};

static bool all(int fd, void *p, size_t n)
{
	return n == 0 || recv(fd, p, n, MSG_WAITALL) == (ssize_t)n;
}

static void send_answer(int fd, const struct proto_head *q, int status, uint16_t flags, const void *body,
			size_t len, const void *payload, uint32_t payload_len)
{
	struct proto_head h = {.type = q->type,
			       .flags = FRAME_ANSWER | flags,
			       .request = q->request,
			       .volume = q->volume,
			       .group = q->group,
			       .status = status,
			       .epoch = q->epoch,
			       .body_len = (uint32_t)len,
			       .body_crc = crc32c(0, body, len),
			       .payload_len = payload_len};
	uint8_t head[PROTO_HEAD];

	proto_head_encode(&h, head);
	(void)!send(fd, head, sizeof(head), MSG_NOSIGNAL | MSG_MORE);
	(void)!send(fd, body, len, MSG_NOSIGNAL | (payload_len ? MSG_MORE : 0));
	if (payload_len)
		(void)!send(fd, payload, payload_len, MSG_NOSIGNAL);
}

/* False: hang up. */
static bool answer_op(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *p)
{
	struct fake_answer a = {0};
	_cleanup_buf_ struct buf out = {0};
	struct vfs_op op;

	if (vfs_op_decode(body, h->body_len, h->payload_len ? p : NULL, &op) < 0)
		return false;
	atomic_fetch_add(&c->b->asked, 1);
	c->b->op(c->b, h, &op, &a);
	if (a.status == -1)
		return false;
	if (a.status == 1)
		return true;
	if (a.garbage)
		buf_adds(&out, "this is no result");
	else if (a.status == -ESTALE)
		proto_view_encode(&a.view, &out);
	else if (a.status < 0)
		buf_adds(&out, "not now");
	else
		vfs_result_encode(&a.res, &out);
	send_answer(c->fd, h, a.status, a.flags, out.data, out.len, a.payload, a.payload_len);
	return true;
}

static bool serve_frame(struct conn *c)
{
	uint8_t head[PROTO_HEAD], *body;
	struct payload p = {.refs = 1};
	struct proto_head h;
	bool go = false;

	if (!all(c->fd, head, sizeof(head)) || proto_head_decode(head, &h) < 0)
		return false;
	body = malloc(h.body_len + 1);
	p.data = malloc(h.payload_len + 1);
	p.len = h.payload_len;
	if (all(c->fd, body, h.body_len) && all(c->fd, p.data, h.payload_len))
		switch (h.type) {
		case FRAME_HELLO: {
			struct proto_hello hello;

			go = proto_hello_decode(body, h.body_len, &hello) == 0;
			if (go && hello.role == PROTO_SESSION)
				atomic_store(&c->b->session, c->fd);
			if (go && atomic_load(&c->b->refuses)) {
				h.request = 0; /* as a brick does it */
				send_answer(c->fd, &h, -ENODEV, 0, "no", 2, NULL, 0);
			} else
				send_answer(c->fd, &h, 0, 0, body, h.body_len, NULL, 0);
			break;
		}
		case FRAME_PING:
			go = true;
			if (!atomic_load(&c->b->silent))
				send_answer(c->fd, &h, 0, 0, NULL, 0, NULL, 0);
			break;
		case FRAME_PUSH:
			go = true;
			atomic_store(&c->b->push_status, h.status);
			atomic_fetch_add(&c->b->push_answers, 1);
			break;
		case FRAME_BAD_BLOCK:
			go = true;
			atomic_fetch_add(&c->b->bad_blocks, 1);
			break;
		case FRAME_OP:
			go = answer_op(c, &h, body, &p);
			break;
		default:
			break;
		}
	free(body);
	free(p.data);
	return go;
}

static void *serve_conn(void *arg)
{
	struct conn *c = arg;

	while (!atomic_load(&c->b->stop) && serve_frame(c))
		;
	if (atomic_load(&c->b->session) == c->fd)
		atomic_store(&c->b->session, -1);
	close(c->fd);
	free(c);
	return NULL;
}

static void *accept_all(void *arg)
{
	struct fake_brick *b = arg;
	int fd;

	while ((fd = accept(b->listener, NULL, NULL)) >= 0) {
		struct conn *c = xcalloc(1, sizeof(*c));
		pthread_t t;

		*c = (struct conn){b, fd};
		if (pthread_create(&t, NULL, serve_conn, c) == 0)
			pthread_detach(t);
	}
	return NULL;
}

void fake_start(struct fake_brick *b)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	atomic_store(&b->session, -1);
	b->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ensure(bind(b->listener, (struct sockaddr *)&a, len) == 0 && listen(b->listener, 64) == 0);
	ensure(getsockname(b->listener, (struct sockaddr *)&a, &len) == 0);
	snprintf(b->address, sizeof(b->address), "127.0.0.1:%d", ntohs(a.sin_port));
	ensure(pthread_create(&b->thread, NULL, accept_all, b) == 0);
}

/* Connections that are open stay with their threads until the client closes them. */
void fake_stop(struct fake_brick *b)
{
	atomic_store(&b->stop, true);
	shutdown(b->listener, SHUT_RDWR);
	pthread_join(b->thread, NULL);
	close(b->listener);
}

void fake_push(struct fake_brick *b, const struct proto_push *p, uint64_t request)
{
	_cleanup_buf_ struct buf out = {0};
	struct proto_head h = {.type = FRAME_PUSH, .request = request};
	uint8_t head[PROTO_HEAD];
	int fd = atomic_load(&b->session);

	ensure(proto_push_encode(p, &out) == 0);
	h.body_len = (uint32_t)out.len;
	h.body_crc = crc32c(0, out.data, out.len);
	proto_head_encode(&h, head);
	(void)!send(fd, head, sizeof(head), MSG_NOSIGNAL | MSG_MORE);
	(void)!send(fd, out.data, out.len, MSG_NOSIGNAL);
}
