/* SPDX-License-Identifier: Apache-2.0 */
/* A brick's connections: frames however the bytes are cut, payloads of all sizes, bytes that are no frames, slow receivers, pauses, and that nothing leaves
 * when the end of the turn fails. The other end is a plain socket in the same thread. Also: histograms and the list of the busiest. */
#include "test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "volume/brick/internal.h"

#define PAYLOAD_BIG ((1u << 20) + 3)

static struct {
	uv_loop_t loop;
	struct engine *en;
	struct conn *c;
	int port, frames, closed, closed_err, turn_err, echo;
	uint64_t sum; /* of requests */
	uint32_t told, parts;
	struct side side; /* of an early payload's link */
	struct payload *answer;
	char why[128];
} t;

static void fill(uint8_t *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)((seed + i) * 131 + (i >> 8));
}

static int on_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
		    const char **why)
{
	uint8_t *want = xcalloc(1, MAX(h->body_len, h->payload_len) + 1u);

	(void)why;
	t.c = c;
	c->body_limit = PROTO_BODY_MAX;
	if (h->type == FRAME_EARLY) {
		free(want);
		t.frames++;
		return early_frame(c, h, body, why);
	}
	c->hello.role = c->owner ? PROTO_PEER : PROTO_CLIENT;
	assert_int_equal(t.told, payload && payload->len >= CONN_PART_MIN ? payload->len : 0);
	t.told = 0;
	c->body_limit = PROTO_BODY_MAX;
	t.frames++;
	t.sum += h->request;
	fill(want, h->body_len, h->request);
	assert_memory_equal(body, want, h->body_len);
	if (payload) {
		fill(want, payload->len, h->request + 7);
		assert_memory_equal(payload->data, want, payload->len);
	}
	free(want);
	if (t.echo) {
		struct proto_head a = *h;

		a.flags = FRAME_ANSWER;
		bconn_send(c, &a, body, h->body_len, t.answer ? t.answer : payload);
	}
	return 0;
}

/* What is told of a payload is there, and more each time. */
static void on_part(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
		    uint32_t got)
{
	uint8_t *want = xcalloc(1, got);

	(void)c, (void)body;
	assert_true(got > t.told && got <= payload->len && payload->len == h->payload_len);
	t.told = got;
	t.parts++;
	fill(want, got, h->request + 7);
	assert_memory_equal(payload->data, want, got);
	free(want);
}

static void on_opened(struct conn *c)
{
	(void)c;
}

static void on_closed(struct conn *c, int err, const char *why)
{
	if (c->owner)
		early_done(c->owner);
	t.c = NULL;
	t.closed++;
	t.closed_err = err;
	snprintf(t.why, sizeof(t.why), "%s", why ? why : "");
}

static int on_turn_end(void *ctx)
{
	(void)ctx;
	return t.turn_err;
}

static int setup(void **state)
{
	struct engine_options o = {
		.loop = &t.loop,
		.events = {on_frame, on_opened, on_closed, on_turn_end, NULL, NULL, on_part, early_place},
		.connections_max = 8};

	(void)state;
	memset(&t, 0, sizeof(t));
	uv_loop_init(&t.loop);
	t.en = engine_new(&o);
	t.port = engine_listen(t.en, "127.0.0.1", 0, NULL);
	assert_true(t.port > 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	engine_free(t.en);
	while (uv_run(&t.loop, UV_RUN_NOWAIT))
		;
	assert_int_equal(uv_loop_close(&t.loop), 0);
	return 0;
}

static void spin(int n)
{
	for (int i = 0; i < n; i++)
		uv_run(&t.loop, UV_RUN_NOWAIT);
}

static int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)t.port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	spin(3);
	return fd;
}

/* All bytes, in pieces of at most `piece`, with the loop running in between. */
static void put(int fd, const void *data, size_t len, size_t piece)
{
	const uint8_t *p = data;

	for (int idle = 0; len > 0 && idle < 100000;) {
		ssize_t n = send(fd, p, MIN(len, piece), MSG_NOSIGNAL);

		if (n > 0) {
			p += n;
			len -= (size_t)n;
			idle = 0;
		} else {
			idle++;
		}
		spin(1);
	}
	assert_int_equal(len, 0);
	spin(5);
}

static void frame(struct buf *b, uint64_t request, uint32_t body_len, uint32_t payload_len)
{
	struct proto_head h = {
		.type = FRAME_OP, .request = request, .body_len = body_len, .payload_len = payload_len};
	_cleanup_free_ uint8_t *body = xcalloc(1, body_len + 1u), *payload = xcalloc(1, payload_len + 1u);
	uint8_t head[PROTO_HEAD];

	fill(body, body_len, request);
	fill(payload, payload_len, request + 7);
	h.body_crc = crc32c(0, body, body_len);
	proto_head_encode(&h, head);
	buf_add(b, head, sizeof(head));
	buf_add(b, body, body_len);
	buf_add(b, payload, payload_len);
}

static int open_with_hello(void)
{
	_cleanup_buf_ struct buf b = {0};
	int fd = dial();

	frame(&b, 1, 10, 0);
	put(fd, b.data, b.len, 1000);
	assert_int_equal(t.frames, 1);
	t.frames = 0;
	t.sum = 0;
	return fd;
}

static void pieces(void **state)
{
	static const uint32_t bodies[] = {0, 1, 100, 5000, 65536, 65537, 200000};
	static const uint32_t payloads[] = {0, 1, 4096, 5000, 40000, PAYLOAD_BIG};
	static const size_t sizes[] = {997, 48, 65536, 1 << 20};
	int fd = open_with_hello(), n = 0;
	uint64_t sum = 0;

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		_cleanup_buf_ struct buf b = {0};

		for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
			for (size_t k = 0; k < ARRAY_SIZE(payloads); k++) {
				if (sizes[s] < 1000 && bodies[i] + payloads[k] > 100000)
					continue;
				n++;
				sum += (uint64_t)n;
				frame(&b, (uint64_t)n, bodies[i], payloads[k]);
			}
		put(fd, b.data, b.len, sizes[s]);
	}
	spin(500);
	assert_int_equal(t.frames, n);
	assert_int_equal(t.sum, sum);
	assert_int_equal(t.closed, 0);
	assert_true(t.parts > 3 * ARRAY_SIZE(bodies)); /* not only when they are whole */
	close(fd);
	spin(5);
	assert_int_equal(t.closed, 1);
	assert_int_equal(t.closed_err, 0);
}

/* The kernel may take its time to hand over what was sent: at most 5 s. */
static void spin_to(int frames)
{
	uint64_t end = clock_ms() + 5000;

	while (t.frames < frames && clock_ms() < end)
		spin(1);
	assert_int_equal(t.frames, frames);
}

static void early(struct buf *b, uint64_t id, uint32_t total, uint32_t at, uint32_t len)
{
	struct proto_head h = {.type = FRAME_EARLY, .payload_len = len};
	struct proto_early e = {.id = id, .total = total, .at = at};
	_cleanup_buf_ struct buf body = {0};
	_cleanup_free_ uint8_t *data = xcalloc(1, at + len + 1u);
	uint8_t head[PROTO_HEAD];

	proto_early_encode(&e, &body);
	fill(data, at + len, id);
	h.body_len = (uint32_t)body.len;
	h.body_crc = crc32c(0, body.data, body.len);
	proto_head_encode(&h, head);
	buf_add(b, head, sizeof(head));
	buf_add(b, body.data, body.len);
	buf_add(b, data + at, len);
}

static int open_link(void)
{
	int fd;

	t.frames = 0;
	fd = open_with_hello();
	t.frames = 0;
	memset(&t.side, 0, sizeof(t.side));
	t.c->owner = &t.side;
	t.c->hello.role = PROTO_PEER;
	t.closed = 0;
	return fd;
}

static void expect_early(uint64_t id, uint32_t total)
{
	struct payload *p = early_take(&t.side, id);
	_cleanup_free_ uint8_t *want = xcalloc(1, total);

	assert_non_null(p);
	fill(want, total, id);
	assert_int_equal(p->len, total);
	assert_memory_equal(p->data, want, total);
	payload_unref(p);
	assert_null(early_take(&t.side, id)); /* once */
}

/* Payloads that run ahead of their records: gathered piece by piece, two at a time, with other frames in between, however the bytes are cut. */
static void early_pieces(void **state)
{
	static const size_t cuts[] = {4000, 70000, 1 << 20};
	int fd = open_link(), frames = 0;

	(void)state;
	for (uint64_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		_cleanup_buf_ struct buf b = {0};

		early(&b, 10 * i + 1, 300000, 0, 100000);
		early(&b, 10 * i + 2, 1 << 20, 0, 140000);
		frame(&b, 3, 100, 5000);
		early(&b, 10 * i + 1, 300000, 100000, 150000);
		early(&b, 10 * i + 3, 5, 0, 5);
		put(fd, b.data, b.len, cuts[i]);
		spin_to(frames += 5);
		assert_null(early_take(&t.side, 10 * i + 1)); /* not whole */
		b.len = 0;
		early(&b, 10 * i + 2, 1 << 20, 140000, (1 << 20) - 140000);
		early(&b, 10 * i + 1, 300000, 250000, 50000);
		early(&b, 10 * i + 3, 1, 0, 0); /* dropped */
		put(fd, b.data, b.len, cuts[i]);
		spin_to(frames += 3);
		expect_early(10 * i + 1, 300000);
		expect_early(10 * i + 2, 1 << 20);
		assert_null(early_take(&t.side, 10 * i + 3));
	}
	assert_int_equal(t.closed, 0);
	close(fd);
	spin(5);
}

/* What does not fit ends the link, and what was gathered is given back. */
static void early_wrong(void **state)
{
	(void)state;
	for (int kind = 0; kind < 7; kind++) {
		_cleanup_buf_ struct buf b = {0};
		int fd = open_link();

		early(&b, 5, 300000, 0, 100000);
		if (kind == 0) /* a gap */
			early(&b, 5, 300000, 100001, 1000);
		else if (kind == 1) /* the same bytes again */
			early(&b, 5, 300000, 0, 1000);
		else if (kind == 2) /* another length */
			early(&b, 5, 300001, 100000, 1000);
		else if (kind == 3) /* an old id */
			early(&b, 4, 10, 0, 10);
		else if (kind == 4) /* beyond its end */
			early(&b, 5, 300000, 100000, 200001);
		else if (kind == 5) /* one that was never there is dropped */
			early(&b, 6, 1, 0, 0);
		else /* too many */
			for (uint64_t i = 0; i < EARLY_LINK_MAX; i++)
				early(&b, 6 + i, 10, 0, 5);
		put(fd, b.data, b.len, b.len);
		assert_int_equal(t.closed, 1);
		assert_int_equal(t.closed_err, -EBADMSG);
		assert_true(t.why[0]);
		for (uint32_t i = 0; i < EARLY_LINK_MAX; i++)
			assert_null(t.side.early_in[i].payload);
		close(fd);
		spin(5);
	}
}

/* A client may not send them. */
static void early_client(void **state)
{
	_cleanup_buf_ struct buf b = {0};
	int fd = open_with_hello();

	(void)state;
	t.closed = 0;
	early(&b, 1, 10, 0, 10);
	put(fd, b.data, b.len, b.len);
	assert_int_equal(t.closed_err, -EBADMSG);
	assert_int_equal(t.closed, 1);
	close(fd);
	spin(5);
}

static void every_cut(void **state)
{
	_cleanup_buf_ struct buf b = {0};
	int fd = open_with_hello();

	(void)state;
	for (uint64_t i = 1; i <= 3; i++)
		frame(&b, i, 30, 20);
	for (size_t cut = 1; cut < b.len; cut++) {
		t.frames = 0;
		put(fd, b.data, cut, cut);
		put(fd, b.data + cut, b.len - cut, b.len);
		assert_int_equal(t.frames, 3);
	}
	close(fd);
	spin(5);
}

static void echoed(void **state)
{
	_cleanup_buf_ struct buf b = {0}, got = {0};
	int fd = open_with_hello();
	uint8_t part[65536];

	(void)state;
	t.echo = 1;
	for (uint64_t i = 1; i <= 20; i++)
		frame(&b, i, 300, i % 5 == 0 ? PAYLOAD_BIG : 4096);
	for (size_t at = 0, idle = 0; got.len < b.len && idle < 100000; idle++) {
		ssize_t n =
			at < b.len ? send(fd, b.data + at, MIN(b.len - at, (size_t)70000), MSG_NOSIGNAL) : 0;

		at += n > 0 ? (size_t)n : 0;
		spin(1);
		n = recv(fd, part, sizeof(part), 0);
		if (n > 0) {
			buf_add(&got, part, (size_t)n);
			idle = 0;
		}
	}
	assert_int_equal(got.len, b.len);
	for (size_t at = 0; at < b.len;) {
		struct proto_head h, a;

		proto_head_decode((uint8_t *)b.data + at, &h);
		proto_head_decode((uint8_t *)got.data + at, &a);
		assert_int_equal(a.flags, FRAME_ANSWER);
		assert_int_equal(a.request, h.request);
		at += PROTO_HEAD;
		assert_memory_equal(b.data + at, got.data + at, h.body_len + h.payload_len);
		at += h.body_len + h.payload_len;
	}
	close(fd);
	spin(5);
}

static void refused(const struct buf *b, int err)
{
	int fd = open_with_hello();

	t.closed = 0;
	put(fd, b->data, b->len, b->len);
	assert_int_equal(t.closed, 1);
	assert_int_equal(t.closed_err, err);
	assert_true(t.why[0]);
	assert_int_equal(t.frames, 0);
	close(fd);
	spin(5);
}

static void no_frames(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_adds(&b, "GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n.............................");
	refused(&b, -EBADMSG);
	b.len = 0;
	frame(&b, 1, 100, 0);
	b.data[PROTO_HEAD + 50] ^= 1; /* the body's checksum */
	refused(&b, -EBADMSG);
	b.len = 0;
	frame(&b, 1, 0, 0);
	memset(b.data + 8, 0xff, 8); /* lengths */
	refused(&b, -EMSGSIZE);
	buf_done(&b);
}

/* Before HELLO nobody gets memory for much. */
static void first_frame(void **state)
{
	struct buf b = {0};
	int fd = dial();

	(void)state;
	frame(&b, 1, 1000, 0);
	put(fd, b.data, b.len, b.len);
	assert_int_equal(t.closed_err, -EMSGSIZE);
	close(fd);
	fd = dial();
	b.len = 0;
	frame(&b, 1, 10, 10);
	put(fd, b.data, b.len, b.len);
	assert_int_equal(t.closed, 2);
	assert_int_equal(t.frames, 0);
	close(fd);
	buf_done(&b);
}

static void slow_receiver(void **state)
{
	struct payload *p = payload_new(1 << 20);
	struct proto_head h = {.type = FRAME_OP};
	int fd = open_with_hello();

	(void)state;
	for (int i = 0; i < 256 && t.c; i++) {
		bconn_send(t.c, &h, "x", 1, p);
		assert_true(bconn_queued(t.c) <= t.c->out_limit + 2 * p->len);
		spin(2);
	}
	assert_int_equal(t.closed, 1);
	assert_int_equal(t.closed_err, -ENOBUFS);
	assert_int_equal(p->refs, 1);
	payload_unref(p);
	close(fd);
}

/* Short questions with long answers that are not taken: it is not read from, and goes on when they are. */
static void choked(void **state)
{
	_cleanup_buf_ struct buf b = {0};
	int fd = open_with_hello(), handled;
	size_t got = 0, want;
	uint8_t part[65536];

	(void)state;
	t.echo = 1;
	t.answer = payload_new(65536);
	t.c->pause_above = 1 << 20;
	for (uint64_t i = 1; i <= 500; i++)
		frame(&b, i, 10, 0);
	want = 500 * (PROTO_HEAD + 10 + (size_t)t.answer->len);
	assert_int_equal(send(fd, b.data, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
	spin(300);
	handled = t.frames;
	assert_in_range(handled, 16, 400);
	assert_true(bconn_queued(t.c) <= t.c->pause_above + 2 * t.answer->len);
	spin(300);
	assert_int_equal(t.frames, handled);
	for (int idle = 0; got < want && idle < 100000; idle++) {
		ssize_t n = recv(fd, part, sizeof(part), 0);

		if (n > 0) {
			got += (size_t)n;
			idle = 0;
		}
		spin(1);
		assert_true(!t.c || bconn_queued(t.c) <= t.c->pause_above + 2 * t.answer->len);
	}
	assert_int_equal(got, want);
	assert_int_equal(t.frames, 500);
	assert_int_equal(t.closed, 0);
	t.answer = payload_unref(t.answer);
	close(fd);
	spin(5);
}

static void paused(void **state)
{
	_cleanup_buf_ struct buf b = {0};
	int fd = open_with_hello();

	(void)state;
	for (uint64_t i = 1; i <= 5; i++)
		frame(&b, i, 100, 5000);
	bconn_pause(t.c, true);
	put(fd, b.data, b.len, b.len);
	assert_int_equal(t.frames, 0);
	bconn_pause(t.c, false);
	spin(5);
	assert_int_equal(t.frames, 5);
	close(fd);
	spin(5);
}

static void failed_turn(void **state)
{
	struct proto_head h = {.type = FRAME_OP};
	int fd = open_with_hello();
	char got[10];

	(void)state;
	bconn_send(t.c, &h, "secret", 6, NULL);
	t.turn_err = -EIO;
	spin(3);
	assert_int_equal(t.closed, 1);
	assert_int_equal(t.closed_err, -EIO);
	assert_true(recv(fd, got, sizeof(got), 0) <= 0);
	close(fd);
}

/* What need not wait for the end of the turn leaves at once, unless something before it has to. */
static void pushed(void **state)
{
	struct proto_head h = {.type = FRAME_EARLY};
	int fd = open_with_hello();
	char got[256];

	(void)state;
	buf_add(bconn_begin(t.c), "go", 2);
	bconn_end_part(t.c, &h, NULL, 0, 0);
	bconn_push(t.c);
	assert_int_equal(recv(fd, got, sizeof(got), 0), PROTO_HEAD + 2);
	h.type = FRAME_OP;
	bconn_send(t.c, &h, "secret", 6, NULL);
	h.type = FRAME_EARLY;
	buf_add(bconn_begin(t.c), "go", 2);
	bconn_end_part(t.c, &h, NULL, 0, 0);
	bconn_push(t.c);
	assert_int_equal(recv(fd, got, sizeof(got), 0), -1);
	spin(3);
	assert_int_equal(recv(fd, got, sizeof(got), 0), 2 * PROTO_HEAD + 8);
	t.turn_err = -EIO;
	bconn_send(t.c, &h, "secret", 6, NULL);
	bconn_push(t.c);
	spin(3);
	assert_true(recv(fd, got, sizeof(got), 0) <= 0);
	close(fd);
}

static void many(void **state)
{
	int fd[12];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		fd[i] = dial();
	for (size_t i = 0, open = 0; i <= ARRAY_SIZE(fd); i++) {
		char c;

		if (i == ARRAY_SIZE(fd))
			assert_int_equal(open, 8);
		else
			open += recv(fd[i], &c, 1, 0) < 0 && errno == EAGAIN;
	}
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	spin(5);
}

static void quantiles(void **state)
{
	struct hist h = {0};

	(void)state;
	assert_int_equal(hist_quantile(&h, 0.5), 0);
	for (uint64_t us = 1; us <= 1000; us++)
		hist_add(&h, us);
	assert_in_range(hist_quantile(&h, 0.5), 500, 640);
	assert_in_range(hist_quantile(&h, 0.99), 990, 1280);
	hist_add(&h, UINT64_MAX / 2);
	hist_turn(&h);
	hist_add(&h, 5);
	assert_in_range(hist_quantile(&h, 0.5), 500, 640);
	hist_turn(&h);
	assert_in_range(hist_quantile(&h, 0.5), 5, 6);
	assert_int_equal(h.count, 1002);
}

static void busiest(void **state)
{
	struct top top = {0};
	bool found = false;

	(void)state;
	for (uint64_t i = 0; i < 20000; i++) {
		uint64_t key = i % 4 == 0 ? 7 : i;

		top_add(&top, &key, sizeof(key), "x", 10);
	}
	assert_int_equal(top.n, TOP_MAX);
	for (uint32_t i = 0; i < top.n; i++) {
		uint64_t key;

		memcpy(&key, top.row[i].key, sizeof(key));
		found = found || (key == 7 && top.row[i].ops >= 4000);
	}
	assert_true(found);
}

#define CONN_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

TEST_MAIN(CONN_TEST(pieces), CONN_TEST(early_pieces), CONN_TEST(early_wrong), CONN_TEST(early_client),
	  CONN_TEST(every_cut), CONN_TEST(echoed), CONN_TEST(no_frames), CONN_TEST(first_frame),
	  CONN_TEST(slow_receiver), CONN_TEST(choked), CONN_TEST(paused), CONN_TEST(failed_turn),
	  CONN_TEST(pushed), CONN_TEST(many), cmocka_unit_test(quantiles), cmocka_unit_test(busiest))
