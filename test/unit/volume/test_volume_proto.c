/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: every body there and back; every cut and every flipped byte of an encoded record is refused; lengths beyond their bounds are
 * refused before anything is allocated. The byte positions are those of docs/protocol/volume.md. */
#include "test.h"

#include "volume/proto.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static const struct vol_ino ino = {.folder.b = {3, [15] = 9}, .num = 0x0102030405060708ull};

static void head(void **state)
{
	struct proto_head h = {.type = FRAME_OP,
			       .flags = FRAME_ANSWER | FRAME_LEASED,
			       .body_len = 300,
			       .payload_len = PROTO_PAYLOAD_MAX,
			       .request = 0x1122334455667788ull,
			       .volume = 0xdeadbeef,
			       .group = VOL_GROUPS_MAX - 1,
			       .status = -ESTALE,
			       .epoch = 77,
			       .body_crc = 1,
			       .payload_crc = 2},
			  got;
	uint8_t b[PROTO_HEAD], bad[PROTO_HEAD];

	proto_head_encode(&h, b);
	assert_memory_equal(b, "KVB1", 4);
	assert_int_equal(b[4], FRAME_OP);
	assert_int_equal(b[8] | b[9] << 8, 300);
	assert_int_equal(b[32], 77);
	assert_int_equal(proto_head_decode(b, &got), 0);
	proto_head_encode(&got, bad); /* not the structs: they have padding */
	assert_memory_equal(bad, b, PROTO_HEAD);
	for (size_t i = 0; i < 4; i++) {
		memcpy(bad, b, sizeof(bad));
		bad[i] ^= 1;
		assert_int_equal(proto_head_decode(bad, &got), -EBADMSG);
	}
	memcpy(bad, b, sizeof(bad));
	bad[15] = 1;
	assert_int_equal(proto_head_decode(bad, &got), -EMSGSIZE);
	memcpy(bad, b, sizeof(bad));
	bad[11] = 1;
	assert_int_equal(proto_head_decode(bad, &got), -EMSGSIZE);
	memcpy(bad, b, sizeof(bad));
	bad[4] = FRAME_LAST + 1;
	assert_int_equal(proto_head_decode(bad, &got), -EBADMSG);
	bad[4] = 0;
	assert_int_equal(proto_head_decode(bad, &got), -EBADMSG);
	memcpy(bad, b, sizeof(bad));
	bad[29] = 4;
	assert_int_equal(proto_head_decode(bad, &got), -EBADMSG);
}

/* Each cut of an encoded body is refused, and one more byte too. */
#define CUTS(decode, b, got)                                                     \
	do {                                                                     \
		assert_int_equal(decode((b).data, (b).len, &(got)), 0);          \
		for (size_t n = 0; n < (b).len; n++)                             \
			assert_int_equal(decode((b).data, n, &(got)), -EBADMSG); \
		buf_add(&(b), "x", 1);                                           \
		assert_int_equal(decode((b).data, (b).len, &(got)), -EBADMSG);   \
		(b).len--;                                                       \
		assert_int_equal(decode((b).data, (b).len, &(got)), 0);          \
	} while (0)

static void hello(void **state)
{
	_cleanup_buf_ struct buf b = {0};
	struct proto_hello h = {.version = PROTO_VERSION,
				.role = PROTO_PEER,
				.volume = vol_root,
				.client = 5,
				.incarnation = 6,
				.name = "a1",
				.domain = "a"},
			   got;

	assert_int_equal(proto_hello_encode(&h, &b), 0);
	CUTS(proto_hello_decode, b, got);
	assert_memory_equal(&got, &h, sizeof(h));
	b.data[4] = PROTO_PULL + 1;
	assert_int_equal(proto_hello_decode(b.data, b.len, &got), -EBADMSG);
	b.data[4] = PROTO_CLIENT;
	b.data[38] = 0; /* a zero inside the name */
	assert_int_equal(proto_hello_decode(b.data, b.len, &got), -EBADMSG);
}

static void small(void **state)
{
	_cleanup_buf_ struct buf b = {0}, c = {0}, d = {0}, f = {0};
	struct proto_view v = {.view = {.epoch = 9,
					.primary = 2,
					.isr = 5,
					.fork = 7,
					.members = 0x17,
					.joining = 5,
					.leaving = 1,
					.brick = {0, 1, 2, 0, 7}},
			       .primary_address = "10.0.0.1:7710"},
			  v2;
	struct proto_push p = {.type = PUSH_ENTRY, .ino = ino}, p2;
	struct proto_bad bad = {.ino = ino, .off = 8192, .member = 1}, bad2;
	struct proto_early e = {.id = 7, .total = PROTO_PAYLOAD_MAX, .at = 4096, .phase = 4095}, e2;

	assert_int_equal(proto_view_encode(&v, &b), 0);
	CUTS(proto_view_decode, b, v2);
	assert_memory_equal(&v, &v2, sizeof(v));
	memset(p.name, 'n', VFS_NAME_MAX);
	assert_int_equal(proto_push_encode(&p, &c), 0);
	CUTS(proto_push_decode, c, p2);
	assert_memory_equal(&p, &p2, sizeof(p));
	c.data[0] = PUSH_RECALL + 1;
	assert_int_equal(proto_push_decode(c.data, c.len, &p2), -EBADMSG);
	assert_int_equal(proto_early_encode(&e, &f), 0);
	for (size_t n = 0; n < f.len; n++)
		assert_int_equal(proto_early_decode(f.data, n, 0, &e2), -EBADMSG);
	assert_int_equal(proto_early_decode(f.data, f.len, PROTO_PAYLOAD_MAX - 4096, &e2), 0);
	assert_true(e2.id == 7 && e2.total == PROTO_PAYLOAD_MAX && e2.at == 4096 && e2.phase == 4095);
	assert_int_equal(proto_early_decode(f.data, f.len, PROTO_PAYLOAD_MAX - 4095, &e2), -EBADMSG);
	f.data[17] = 0x10; /* 4,351 */
	assert_int_equal(proto_early_decode(f.data, f.len, 0, &e2), -EBADMSG);
	f.data[17] = 0;
	f.data[8]++; /* longer than a payload may be */
	assert_int_equal(proto_early_decode(f.data, f.len, 0, &e2), -EBADMSG);
	memset(f.data, 0, 8); /* no id */
	f.data[8]--;
	assert_int_equal(proto_early_decode(f.data, f.len, 0, &e2), -EBADMSG);
	assert_int_equal(proto_bad_encode(&bad, &d), 0);
	CUTS(proto_bad_decode, d, bad2);
	assert_true(vol_ino_eq(&bad.ino, &bad2.ino) && bad.off == bad2.off && bad.member == bad2.member);
	d.data[24] = 1; /* not a block's start */
	assert_int_equal(proto_bad_decode(d.data, d.len, &bad2), -EBADMSG);
}

static void delta(void **state)
{
	_cleanup_buf_ struct buf a = {0}, b = {0}, f = {0};
	struct proto_delta_ask ask = {.since = 7,
				      .first = true,
				      .limit = 1000,
				      .cursor = {.full = true, .key_len = 3}},
			       ask2;
	struct proto_delta d = {.epoch = 1, .seq = 2, .floor = 3, .cursor = {.seq = 4, .i = 5}}, d2;
	struct delta_item i1 = {.seq = 9, .key = "Ikey", .key_len = 4, .value = "value", .value_len = 5}, got;
	struct delta_item i2 = {.seq = 10, .key = "Egone", .key_len = 5, .deleted = true};
	struct pull_range range = {.ino = ino, .off = 1 << 20, .len = 65536}, range2;
	size_t at = 0;

	memcpy(ask.cursor.key, "abc", 3);
	assert_int_equal(proto_delta_ask_encode(&ask, &a), 0);
	CUTS(proto_delta_ask_decode, a, ask2);
	assert_true(ask2.since == 7 && ask2.first && ask2.limit == 1000 && ask2.cursor.full &&
		    ask2.cursor.key_len == 3 && memcmp(ask2.cursor.key, "abc", 3) == 0);
	assert_int_equal(proto_delta_encode(&d, &b), 0);
	assert_int_equal(proto_item_encode(&i1, &b), 0);
	assert_int_equal(proto_item_encode(&i2, &b), 0);
	assert_int_equal(proto_delta_decode(b.data, b.len, &at, &d2), 0);
	assert_true(d2.epoch == 1 && d2.seq == 2 && d2.floor == 3 && !d2.full && d2.cursor.seq == 4 &&
		    d2.cursor.i == 5);
	assert_int_equal(proto_item_decode(b.data, b.len, &at, &got), 0);
	assert_true(got.seq == 9 && !got.deleted && got.value_len == 5 && memcmp(got.value, "value", 5) == 0);
	for (size_t n = at + 1, cut; n < b.len; n++) {
		cut = at;
		assert_int_equal(proto_item_decode(b.data, n, &cut, &got), -EBADMSG);
	}
	assert_int_equal(proto_item_decode(b.data, b.len, &at, &got), 0);
	assert_true(got.seq == 10 && got.deleted && got.key_len == 5);
	assert_int_equal(proto_item_decode(b.data, b.len, &at, &got), -ENOENT);
	assert_int_equal(proto_fetch_encode(&range, &f), 0);
	CUTS(proto_fetch_decode, f, range2);
	assert_true(vol_ino_eq(&range.ino, &range2.ino) && range.off == range2.off &&
		    range.len == range2.len);
	f.data[32] = 1;
	assert_int_equal(proto_fetch_decode(f.data, f.len, &range2), -EBADMSG);
}

static struct record *record_make(void)
{
	struct record *r = record_new(3);
	struct payload *p = payload_new(6000);

	for (uint32_t i = 0; i < p->len; i++)
		p->data[i] = (uint8_t)(i * 7);
	assert_int_equal(record_put(r, "Ikey", 4, "value", 5), 0);
	assert_int_equal(record_write(r, &ino, 1, 5000, p), 0);
	payload_unref(p);
	r->epoch = 4;
	r->seq = 100;
	r->prev_epoch = 4;
	return r;
}

static void append(void **state)
{
	_cleanup_buf_ struct buf b = {0};
	struct record *r = record_make(), *got = NULL;
	struct repl_msg m = {.type = REPL_MSG_APPEND,
			     .group = 3,
			     .from = 1,
			     .to = 2,
			     .epoch = 4,
			     .pos = {4, 100},
			     .commit = 99,
			     .record = r},
			m2;

	assert_int_equal(proto_repl_encode(&m, &b), 0);
	assert_int_equal(proto_repl_decode(b.data, b.len, r->payload, &m2, &got), 0);
	assert_true(m2.record == got && got->seq == 100 && got->n == 2 && got->payload == r->payload);
	assert_int_equal(m2.commit, 99);
	record_unref(got);
	for (size_t n = 0; n < b.len; n++) {
		assert_int_equal(proto_repl_decode(b.data, n, r->payload, &m2, &got), -EBADMSG);
		assert_null(got);
	}
	assert_int_equal(proto_repl_decode(b.data, b.len, NULL, &m2, &got), -EBADMSG);
	for (size_t i = 132; i < b.len; i++) { /* the record: any flipped bit */
		b.data[i] ^= 0x10;
		assert_int_equal(proto_repl_decode(b.data, b.len, r->payload, &m2, &got), -EBADMSG);
		b.data[i] ^= 0x10;
	}
	b.data[4] = 2; /* the message's group is not the record's */
	assert_int_equal(proto_repl_decode(b.data, b.len, r->payload, &m2, &got), -EBADMSG);
	record_unref(r);
}

static void damaged_payload(void **state)
{
	_cleanup_buf_ struct buf b = {0};
	struct record *r = record_make(), *got = NULL;
	struct repl_msg m = {.type = REPL_MSG_APPEND, .group = 3, .epoch = 4, .record = r}, m2;
	struct payload *p = payload_new(r->payload->len);

	assert_int_equal(proto_repl_encode(&m, &b), 0);
	memcpy(p->data, r->payload->data, p->len);
	p->data[5999] ^= 1;
	assert_int_equal(proto_repl_decode(b.data, b.len, p, &m2, &got), -EBADMSG);
	assert_null(got);
	payload_unref(p);
	record_unref(r);
}

static void messages(void **state)
{
	struct record *rec;

	for (int t = REPL_MSG_ACK; t <= REPL_MSG_VIEW; t++) {
		_cleanup_buf_ struct buf b = {0};
		struct repl_msg m = {.type = t,
				     .group = 1023,
				     .from = 4,
				     .to = 3,
				     .epoch = 1,
				     .pos = {2, 3},
				     .commit = 4,
				     .stamp = 5,
				     .echo = 7,
				     .life = 8,
				     .live = {9, 10},
				     .cut = {11, 12},
				     .sure = t % 2,
				     .hears = t % 3 == 0,
				     .failed = t % 5 == 0,
				     .lease = t % 7 == 0,
				     .lost = t % 4 == 0,
				     .view = {1, 1, 7, 6, 0x2f, 6, 1, {0, 1, 2, 255, 0, 4}}},
				m2;
		_cleanup_buf_ struct buf b2 = {0};

		assert_int_equal(proto_repl_encode(&m, &b), 0);
		assert_int_equal(b.len, 132);
		assert_int_equal(proto_repl_decode(b.data, b.len, NULL, &m2, &rec), 0);
		assert_true(m2.type == m.type && m2.view.fork == 6 && m2.live.seq == 10 &&
			    m2.cut.epoch == 11 && m2.hears == m.hears && m2.failed == m.failed &&
			    m2.lease == m.lease && m2.lost == m.lost && m2.sure == m.sure && m2.echo == 7 &&
			    m2.life == 8);
		assert_memory_equal(&m2.view, &m.view, sizeof(m.view));
		assert_int_equal(proto_repl_encode(&m2, &b2), 0);
		assert_int_equal(b2.len, b.len);
		assert_memory_equal(b2.data, b.data, b.len);
		for (size_t n = 0; n < b.len; n++)
			assert_int_equal(proto_repl_decode(b.data, n, NULL, &m2, &rec), -EBADMSG);
		b.data[63] = 1;
		assert_int_equal(proto_repl_decode(b.data, b.len, NULL, &m2, &rec), -EBADMSG);
		b.data[63] = 0;
		b.data[1] = VOL_MEMBERS_MAX;
		assert_int_equal(proto_repl_decode(b.data, b.len, NULL, &m2, &rec), -EBADMSG);
	}
}

static void congestion_of(int fd, char name[16])
{
	socklen_t len = 15;

	memset(name, 0, 16);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len), 0);
}

/* Between near processes nothing is paced, on both sides; a default that does not pace is left alone. */
static void near(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int plain = socket(AF_INET, SOCK_STREAM, 0), listener = socket(AF_INET, SOCK_STREAM, 0);
	int out = socket(AF_INET, SOCK_STREAM, 0), in;
	char was[16], name[16];

	(void)state;
	proto_tcp_new(listener);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	proto_tcp_new(out);
	assert_int_equal(connect(out, (struct sockaddr *)&a, sizeof(a)), 0);
	in = accept(listener, NULL, NULL);
	assert_true(in >= 0);
	congestion_of(plain, was);
	for (int i = 0; i < 2; i++) {
		congestion_of(i ? in : out, name);
		if (strncmp(was, "bbr", 3) != 0)
			assert_string_equal(name, was);
		else
			assert_int_not_equal(strncmp(name, "bbr", 3), 0);
	}
	proto_tcp_connected(out); /* how far a loaded machine finds itself is not asserted */
	proto_tcp_connected(-1);
	close(in);
	close(out);
	close(listener);
	close(plain);
}

TEST_MAIN(cmocka_unit_test(near), cmocka_unit_test(head), cmocka_unit_test(hello), cmocka_unit_test(small),
	  cmocka_unit_test(delta), cmocka_unit_test(append), cmocka_unit_test(damaged_payload),
	  cmocka_unit_test(messages))
