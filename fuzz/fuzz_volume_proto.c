/* SPDX-License-Identifier: Apache-2.0 */
/* Every decoder of frames: the first byte chooses it, the rest is its body. What it accepts must encode to the same bytes. */
#include "volume/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROUND(type, name)                                                       \
	do {                                                                    \
		struct type v;                                                  \
		if (name##_decode(data, size, &v) == 0)                         \
			ensure(name##_encode(&v, &b) == 0 && b.len == size &&   \
			       (size == 0 || memcmp(b.data, data, size) == 0)); \
	} while (0)

static void head(const uint8_t *data, size_t size)
{
	uint8_t out[PROTO_HEAD];
	struct proto_head h;

	if (size < PROTO_HEAD || proto_head_decode(data, &h) < 0)
		return;
	ensure(h.body_len <= PROTO_BODY_MAX && h.payload_len <= PROTO_PAYLOAD_MAX);
	proto_head_encode(&h, out);
	ensure(memcmp(out, data, PROTO_HEAD) == 0);
}

static void items(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf b = {0};
	struct proto_delta d;
	struct delta_item i;
	size_t at = 0;

	if (proto_delta_decode(data, size, &at, &d) < 0)
		return;
	ensure(proto_delta_encode(&d, &b) == 0 && b.len == at);
	while (proto_item_decode(data, size, &at, &i) == 0)
		ensure(proto_item_encode(&i, &b) == 0 && b.len == at);
	ensure(memcmp(b.data, data, b.len) == 0);
}

static void repl(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf b = {0};
	struct record *rec = NULL;
	struct repl_msg m;

	if (proto_repl_decode(data, size, NULL, &m, &rec) < 0) {
		ensure(!rec);
		return;
	}
	ensure(!rec == (m.type != REPL_MSG_APPEND));
	ensure(proto_repl_encode(&m, &b) == 0 && b.len == size && memcmp(b.data, data, size) == 0);
	record_unref(rec);
}

static void early(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf b = {0};
	struct proto_early e;

	if (proto_early_decode(data, size, 1, &e) < 0)
		return;
	ensure(e.id > 0 && e.at < e.total && e.total <= PROTO_PAYLOAD_MAX);
	ensure(proto_early_encode(&e, &b) == 0 && b.len == size && memcmp(b.data, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf b = {0};
	uint8_t which;

	if (size == 0)
		return 0;
	which = *data++;
	size--;
	switch (which % 10) {
	case 0:
		head(data, size);
		break;
	case 1:
		ROUND(proto_hello, proto_hello);
		break;
	case 2:
		ROUND(proto_view, proto_view);
		break;
	case 3:
		ROUND(proto_push, proto_push);
		break;
	case 4:
		ROUND(proto_bad, proto_bad);
		break;
	case 5:
		ROUND(proto_delta_ask, proto_delta_ask);
		break;
	case 6:
		ROUND(pull_range, proto_fetch);
		break;
	case 7:
		items(data, size);
		break;
	case 9:
		early(data, size);
		break;
	default:
		repl(data, size);
	}
	return 0;
}
