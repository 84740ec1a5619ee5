/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of a slot: blocking sockets with time limits, used by one thread. A question goes out with one sendmsg, its answer comes with one
 * recv when it is small; the bytes of a READ go straight into the caller's memory.
 *
 * Any fault - silence, a frame that is none, an answer to something else - ends the connection: the operation is asked again on a new one
 * with the same id, so nothing is done twice. */
#include "volume/client/internal.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#define SEND_TIMES_MAX 4096 /* parts that one frame may be sent in */

static int address_parse(const char *address, struct sockaddr_storage *ret, socklen_t *ret_len)
{
	char host[64];
	const char *colon = strrchr(address, ':');
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *info;

	if (!colon || colon == address || (size_t)(colon - address) >= sizeof(host))
		return -EINVAL;
	memcpy(host, address, (size_t)(colon - address));
	host[colon - address] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &info) != 0)
		return -EHOSTUNREACH;
	memcpy(ret, info->ai_addr, info->ai_addrlen);
	*ret_len = info->ai_addrlen;
	freeaddrinfo(info);
	return 0;
}

int conn_dial(const char *address, uint64_t timeout_ms)
{
	struct sockaddr_storage to;
	socklen_t len, size = sizeof(int);
	int fd, one = 1, err = 0, r = address_parse(address, &to, &len);
	struct pollfd p;
	unsigned silent_ms = SILENT_MS;

	if (r < 0)
		return r;
	fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	proto_tcp_new(fd);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silent_ms, sizeof(silent_ms));
	if (connect(fd, (struct sockaddr *)&to, len) == 0)
		return fd;
	r = -errno;
	if (r == -EINPROGRESS && timeout_ms == 0)
		return fd;
	if (r == -EINPROGRESS) {
		p = (struct pollfd){.fd = fd, .events = POLLOUT};
		r = poll(&p, 1, (int)timeout_ms);
		if (r <= 0)
			r = r < 0 ? -errno : -ETIMEDOUT;
		else
			r = getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0 ? -errno : -err;
	}
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

int conn_block(int fd, uint64_t timeout_ms)
{
	struct timeval t = {.tv_sec = (time_t)(timeout_ms / 1000),
			    .tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000)};
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)) < 0)
		return -errno;
	return 0;
}

int conn_hello(struct vclient *c, struct buf *out, enum proto_role role)
{
	struct proto_hello h = {.version = PROTO_VERSION,
				.role = role,
				.volume = atomic_load(&c->map)->uuid,
				.client = c->id};

	if (gethostname(h.name, sizeof(h.name) - 1) < 0)
		strcpy(h.name, "client");
	if (c->domain)
		snprintf(h.domain, sizeof(h.domain), "%s", c->domain);
	out->len = 0;
	return proto_hello_encode(&h, out);
}

int conn_send(int fd, const struct proto_head *h, const void *body, const void *payload)
{
	uint8_t head[PROTO_HEAD];
	struct iovec iov[3] = {
		{head, sizeof(head)}, {(void *)body, h->body_len}, {(void *)payload, h->payload_len}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = payload ? 3 : 2};

	proto_head_encode(h, head);
	for (int i = 0; i < SEND_TIMES_MAX; i++) {
		ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		while (m.msg_iovlen > 0 && (size_t)n >= m.msg_iov->iov_len) {
			n -= (ssize_t)m.msg_iov->iov_len;
			m.msg_iov++;
			m.msg_iovlen--;
		}
		if (m.msg_iovlen == 0)
			return 0;
		m.msg_iov->iov_base = (char *)m.msg_iov->iov_base + n;
		m.msg_iov->iov_len -= (size_t)n;
	}
	return -ETIMEDOUT;
}

/* Fills from `have` to at least `need` bytes, at most `room`. */
static int receive(int fd, uint8_t *to, size_t *have, size_t need, size_t room)
{
	for (int i = 0; i < SEND_TIMES_MAX && *have < need; i++) {
		ssize_t n =
			recv(fd, to + *have, room - *have, room - *have == need - *have ? MSG_WAITALL : 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (n == 0)
			return -EPIPE;
		*have += (size_t)n;
	}
	return *have < need ? -ETIMEDOUT : 0;
}

static int slot_room(struct vclient_slot *s, size_t need)
{
	uint8_t *bigger;

	if (need <= s->in_cap)
		return 0;
	bigger = realloc(s->in, need);
	if (!bigger)
		return -ENOMEM;
	s->in = bigger;
	s->in_cap = need;
	return 0;
}

int conn_answer(struct vclient_slot *s, int fd, uint64_t request, void *data, uint32_t len,
		struct answer *ret)
{
	/* A large READ: little is taken along with the head, so that little is copied. */
	size_t have = 0, rest, first = len > (16u << 10) ? 4096 : ANSWER_ROOM;
	int r = receive(fd, s->in, &have, PROTO_HEAD, first);

	if (r < 0)
		return r;
	r = proto_head_decode(s->in, &ret->head);
	if (r < 0)
		return r;
	if (!(ret->head.flags & FRAME_ANSWER) ||
	    (ret->head.request != request && ret->head.type != FRAME_HELLO) || ret->head.payload_len > len)
		return -EBADMSG;
	r = slot_room(s, (size_t)PROTO_HEAD + ret->head.body_len);
	if (r < 0)
		return r;
	r = receive(fd, s->in, &have, (size_t)PROTO_HEAD + ret->head.body_len,
		    MAX(have, (size_t)PROTO_HEAD + ret->head.body_len));
	if (r < 0)
		return r;
	ret->body = s->in + PROTO_HEAD;
	if (crc32c(0, ret->body, ret->head.body_len) != ret->head.body_crc)
		return -EBADMSG;
	rest = have - PROTO_HEAD - ret->head.body_len;
	if (rest > ret->head.payload_len)
		return -EBADMSG; /* somebody speaks unasked */
	if (rest > 0)
		memcpy(data, ret->body + ret->head.body_len, rest);
	ret->payload_len = ret->head.payload_len;
	return rest < ret->payload_len ? receive(fd, data, &rest, ret->payload_len, ret->payload_len) : 0;
}

static int hello(struct vclient_slot *s, int fd, const struct vol_map *m)
{
	struct proto_head h = {
		.type = FRAME_HELLO, .request = ++s->request, .volume = proto_volume_tag(&m->uuid)};
	struct answer a;
	int r = conn_hello(s->c, &s->body, PROTO_CLIENT);

	if (r < 0)
		return r;
	h.body_len = (uint32_t)s->body.len;
	h.body_crc = crc32c(0, s->body.data, s->body.len);
	r = conn_send(fd, &h, s->body.data, NULL);
	if (r == 0)
		r = conn_answer(s, fd, h.request, NULL, 0, &a);
	return r < 0 ? r : a.head.status;
}

int slot_connect(struct vclient_slot *s, uint32_t brick)
{
	const struct vol_map *m = vclient_map(s->c);
	int fd, r;

	if (brick >= m->n_bricks)
		return -ENODEV;
	if (brick >= s->n_fd) {
		s->fd = xrealloc(s->fd, m->n_bricks * sizeof(*s->fd));
		for (; s->n_fd < m->n_bricks; s->n_fd++)
			s->fd[s->n_fd] = -1;
	}
	if (s->fd[brick] >= 0)
		return s->fd[brick];
	fd = conn_dial(m->brick[brick].address, DIAL_MS);
	if (fd < 0)
		return fd;
	proto_tcp_connected(fd);
	r = conn_block(fd, DIAL_MS);
	if (r == 0)
		r = hello(s, fd, m);
	if (r == 0)
		r = conn_block(fd, OP_TRY_MS);
	if (r < 0) {
		close(fd);
		return r;
	}
	s->fd[brick] = fd;
	return fd;
}

void slot_disconnect(struct vclient_slot *s, uint32_t brick)
{
	if (brick >= s->n_fd || s->fd[brick] < 0)
		return;
	close(s->fd[brick]);
	s->fd[brick] = -1;
}
