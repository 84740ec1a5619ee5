/* SPDX-License-Identifier: Apache-2.0 */
/* ask: one question of an operator (FRAME_ADMIN) to every brick of a volume at once, a thread a brick, each with a time limit for the whole of dial,
 * greeting and answer. A brick that does not answer is no error: it is shown as it is. */
#include "volume/cmd/internal.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

struct asking {
	struct brick_answer *a;
	const struct vol_map *map;
	const char *question;
	uint64_t deadline;
	pthread_t thread;
	bool started;
};

/* Waits for the socket; -ETIMEDOUT at the deadline. */
static int wait_fd(int fd, short events, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now = clock_ms();
	int r = now >= deadline ? 0 : poll(&p, 1, (int)(deadline - now));

	return r > 0 ? 0 : r < 0 ? -errno : -ETIMEDOUT;
}

static int dial(const char *address, uint64_t deadline)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *info;
	const char *colon = strrchr(address, ':');
	char host[64];
	int fd, r = 0, err = 0;
	socklen_t len = sizeof(err);

	if (!colon || (size_t)(colon - address) >= sizeof(host))
		return -EINVAL;
	snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
	if (getaddrinfo(host, colon + 1, &hints, &info) != 0)
		return -EHOSTUNREACH;
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || (connect(fd, info->ai_addr, info->ai_addrlen) < 0 && errno != EINPROGRESS))
		r = -errno;
	freeaddrinfo(info);
	if (r == 0)
		r = wait_fd(fd, POLLOUT, deadline);
	if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0)
		r = -err;
	if (r < 0 && fd >= 0)
		close(fd);
	return r < 0 ? r : fd;
}

static int move(int fd, void *data, size_t len, bool out, uint64_t deadline)
{
	uint8_t *p = data;

	while (len > 0) { /* each turn moves bytes or ends at the deadline */
		ssize_t n = out ? send(fd, p, len, MSG_NOSIGNAL) : recv(fd, p, len, 0);
		int r;

		if (n == 0)
			return -EPIPE;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		r = wait_fd(fd, out ? POLLOUT : POLLIN, deadline);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Sends one frame and gives back the body of its answer. */
static int ask(int fd, enum frame_type type, uint64_t request, const struct asking *q, struct buf *body,
	       struct buf *answer, int *ret_status)
{
	struct proto_head h = {.type = (uint16_t)type,
			       .request = request,
			       .volume = proto_volume_tag(&q->map->uuid),
			       .body_len = (uint32_t)body->len,
			       .body_crc = crc32c(0, body->data, body->len)};
	uint8_t head[PROTO_HEAD];
	_cleanup_free_ char *text = NULL;
	int r;

	proto_head_encode(&h, head);
	r = move(fd, head, sizeof(head), true, q->deadline);
	if (r == 0)
		r = move(fd, body->data, body->len, true, q->deadline);
	if (r == 0)
		r = move(fd, head, sizeof(head), false, q->deadline);
	if (r == 0)
		r = proto_head_decode(head, &h);
	if (r < 0)
		return r;
	if (h.type != type || !(h.flags & FRAME_ANSWER) || h.request != request || h.payload_len > 0)
		return -EBADMSG;
	text = malloc((size_t)h.body_len + 1);
	if (!text)
		return -ENOMEM;
	r = move(fd, text, h.body_len, false, q->deadline);
	if (r == 0 && crc32c(0, text, h.body_len) != h.body_crc)
		r = -EBADMSG;
	if (r == 0)
		r = buf_add(answer, text, h.body_len);
	*ret_status = h.status;
	return r;
}

static int converse(struct asking *q, int fd)
{
	struct proto_hello hello = {.version = PROTO_VERSION,
				    .role = PROTO_ADMIN,
				    .volume = q->map->uuid,
				    .name = "kuayu volume"};
	_cleanup_buf_ struct buf body = {0}, answer = {0};
	struct err e = {0};
	int status = 0, r = proto_hello_encode(&hello, &body);

	if (r == 0)
		r = ask(fd, FRAME_HELLO, 1, q, &body, &answer, &status);
	if (r == 0 && status < 0) {
		snprintf(q->a->error, sizeof(q->a->error), "refused: %.*s", (int)MIN(answer.len, 150u),
			 answer.len ? answer.data : "");
		return status;
	}
	if (r < 0)
		return r;
	body.len = answer.len = 0;
	r = buf_adds(&body, q->question);
	if (r == 0)
		r = ask(fd, FRAME_ADMIN, 2, q, &body, &answer, &status);
	if (r == 0)
		r = js_parse_new(answer.data, answer.len, &q->a->o, &e);
	if (r == 0 && status < 0) {
		snprintf(q->a->error, sizeof(q->a->error), "%.190s",
			 js_str_or(q->a->o, "error", strerror(-status)));
		json_decref(q->a->o);
		q->a->o = NULL;
	}
	return r;
}

static void *ask_one(void *arg)
{
	struct asking *q = arg;
	uint64_t start = clock_us();
	int fd = dial(q->a->address, q->deadline), r = fd;

	if (fd >= 0) {
		r = converse(q, fd);
		close(fd);
	}
	q->a->us = clock_us() - start;
	q->a->online = r == 0;
	if (r < 0 && !q->a->error[0])
		snprintf(q->a->error, sizeof(q->a->error), "%s", strerror(-r));
	return NULL;
}

int ask_bricks(struct cmd *c, const struct vol_map *m, const char *verb, struct brick_answer **ret,
	       struct err *e)
{
	_cleanup_json_ json_t *question = json_pack("{s:s,s:s}", "verb", verb, "volume", m->name);
	_cleanup_free_ char *text = js_text(question);
	_cleanup_free_ struct asking *q = xcalloc(m->n_bricks, sizeof(*q));
	_cleanup_free_ struct volcfg_brick *there = NULL;
	struct brick_answer *a = xcalloc(m->n_bricks, sizeof(*a));
	uint64_t deadline = clock_ms() + (uint64_t)c->timeout_ms;
	size_t n = 0;
	int r = volcfg_bricks(c->store, &there, &n, e);

	if (r < 0) {
		free(a);
		return r;
	}
	for (uint32_t i = 0; i < m->n_bricks; i++) {
		a[i].brick = &m->brick[i];
		snprintf(a[i].address, sizeof(a[i].address), "%s", m->brick[i].address);
		for (size_t k = 0; k < n; k++)
			if (streq(there[k].brick.name, m->brick[i].name)) {
				a[i].known = true;
				snprintf(a[i].address, sizeof(a[i].address), "%s", there[k].brick.address);
			}
		q[i] = (struct asking){.a = &a[i], .map = m, .question = text, .deadline = deadline};
		q[i].started = pthread_create(&q[i].thread, NULL, ask_one, &q[i]) == 0;
		if (!q[i].started)
			ask_one(&q[i]);
	}
	for (uint32_t i = 0; i < m->n_bricks; i++)
		if (q[i].started)
			pthread_join(q[i].thread, NULL);
	*ret = a;
	return 0;
}

struct brick_answer *answers_free(struct brick_answer *a, uint32_t n)
{
	for (uint32_t i = 0; a && i < n; i++)
		json_decref(a[i].o);
	free(a);
	return NULL;
}
