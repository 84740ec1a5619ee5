/* SPDX-License-Identifier: Apache-2.0 */
/* Heads and chunked bodies: what is accepted and what is refused. */
#include "../test.h"
#include "net/http_parse.h"

static ssize_t parse(const char *text, struct http_head *h)
{
	return http_head_parse(text, strlen(text), h);
}

static void accepts(void **state)
{
	struct http_head h;

	assert_int_equal(
		parse("GET /a%20b/c?x=1&y=a+b%26c&z HTTP/1.1\r\nHost: h\r\nAccept:  x/y \r\n\r\nrest", &h),
		65);
	assert_string_equal(h.method, "GET");
	assert_string_equal(h.path, "/a b/c");
	assert_int_equal(h.n_query, 3);
	assert_string_equal(h.query[1].value, "a b&c");
	assert_string_equal(h.query[2].value, "");
	assert_string_equal(http_head_field(&h, "accept"), "x/y");
	assert_true(h.keep_alive);
	http_head_done(&h);
	assert_true(parse("POST / HTTP/1.1\r\nhost: h\r\nContent-Length: 5\r\nConnection: foo, Close\r\n\r\n",
			  &h) > 0);
	assert_int_equal(h.content_length, 5);
	assert_false(h.keep_alive);
	http_head_done(&h);
	assert_true(parse("\r\nGET http://h:1/x HTTP/1.0\r\n\r\n", &h) > 0);
	assert_string_equal(h.path, "/x");
	http_head_done(&h);
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: h\r\n", &h), 0);
}

static void refuses(void **state)
{
	static const char *const bad[] = {
		"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
		"GET x HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nHost: g\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
	};
	struct http_head h;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse(bad[i], &h), -EBADMSG);
	assert_int_equal(parse("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", &h),
			 -ENOTSUP);
}

static void chunks(void **state)
{
	static const char text[] = "5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: t\r\n\r\nnext";
	_cleanup_buf_ struct buf out = {.limit = 6}, small = {.limit = 5};
	struct http_chunks c = {0}, d = {0}, bad = {0};
	size_t at = 0;

	while (c.state != CHUNK_DONE) { /* a byte at a time */
		assert_int_equal(http_chunks_feed(&c, text + at, 1, &out), 1);
		at++;
	}
	assert_string_equal(text + at, "next");
	assert_string_equal(out.data, "hello!");
	assert_int_equal(http_chunks_feed(&d, text, sizeof(text) - 1, &small), -EMSGSIZE);
	assert_int_equal(http_chunks_feed(&bad, "g\r\n", 3, &out), -EBADMSG);
}

TEST_MAIN(cmocka_unit_test(accepts), cmocka_unit_test(refuses), cmocka_unit_test(chunks))
