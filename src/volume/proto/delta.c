/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of FRAME_DELTA and FRAME_FETCH: how a member that was away asks for the keys that changed, and for ranges of file data. The
 * cursor is the source's; the asker returns it as it came, so its bounds are checked on both sides. */
#include "volume/proto.h"
#include "volume/proto/wire.h"

static int cursor_encode(const struct delta_cursor *c, struct buf *b)
{
	int r = wire_add(b, c->full, 1);

	ensure(c->key_len <= sizeof(c->key));
	r = r < 0 ? r : wire_add(b, c->seq, 8);
	r = r < 0 ? r : wire_add(b, c->i, 2);
	r = r < 0 ? r : wire_add(b, c->key_len, 2);
	return r < 0 ? r : buf_add(b, c->key, c->key_len);
}

static void cursor_decode(struct wire_in *in, struct delta_cursor *ret)
{
	const void *key;

	*ret = (struct delta_cursor){.full = wire_bool(in)};
	ret->seq = wire_u64(in);
	ret->i = wire_u16(in);
	ret->key_len = wire_u16(in);
	key = wire_take(in, ret->key_len);
	if (!key || ret->key_len > sizeof(ret->key)) {
		in->bad = true;
		ret->key_len = 0;
		return;
	}
	memcpy(ret->key, key, ret->key_len);
}

int proto_delta_ask_encode(const struct proto_delta_ask *a, struct buf *b)
{
	int r = wire_add(b, a->since, 8);

	r = r < 0 ? r : wire_add(b, a->first, 1);
	r = r < 0 ? r : wire_add(b, a->limit, 4);
	return r < 0 ? r : cursor_encode(&a->cursor, b);
}

int proto_delta_ask_decode(const void *data, size_t len, struct proto_delta_ask *ret)
{
	struct wire_in in = wire_in(data, len);

	*ret = (struct proto_delta_ask){.since = wire_u64(&in)};
	ret->first = wire_bool(&in);
	ret->limit = wire_u32(&in);
	cursor_decode(&in, &ret->cursor);
	return wire_end(&in);
}

int proto_delta_encode(const struct proto_delta *d, struct buf *b)
{
	int r = wire_add(b, d->epoch, 8);

	r = r < 0 ? r : wire_add(b, d->seq, 8);
	r = r < 0 ? r : wire_add(b, d->floor, 8);
	r = r < 0 ? r : wire_add(b, d->full, 1);
	return r < 0 ? r : cursor_encode(&d->cursor, b);
}

int proto_delta_decode(const void *data, size_t len, size_t *at, struct proto_delta *ret)
{
	struct wire_in in = wire_in(data, len);

	*ret = (struct proto_delta){.epoch = wire_u64(&in)};
	ret->seq = wire_u64(&in);
	ret->floor = wire_u64(&in);
	ret->full = wire_bool(&in);
	cursor_decode(&in, &ret->cursor);
	if (in.bad)
		return -EBADMSG;
	*at = (size_t)(in.p - (const uint8_t *)data);
	return 0;
}

int proto_item_encode(const struct delta_item *i, struct buf *b)
{
	int r = wire_add(b, i->seq, 8);

	r = r < 0 ? r : wire_add(b, i->deleted, 1);
	r = r < 0 ? r : wire_add(b, i->key_len, 2);
	r = r < 0 ? r : wire_add(b, i->value_len, 4);
	r = r < 0 ? r : buf_add(b, i->key, i->key_len);
	return r < 0 ? r : buf_add(b, i->value, i->value_len);
}

int proto_item_decode(const void *data, size_t len, size_t *at, struct delta_item *ret)
{
	struct wire_in in = wire_in(data, len);

	if (*at == len)
		return -ENOENT;
	if (!wire_take(&in, *at))
		return -EBADMSG;
	*ret = (struct delta_item){.seq = wire_u64(&in)};
	ret->deleted = wire_bool(&in);
	ret->key_len = wire_u16(&in);
	ret->value_len = wire_u32(&in);
	ret->key = wire_take(&in, ret->key_len);
	ret->value = wire_take(&in, ret->value_len);
	if (in.bad || ret->key_len == 0 || ret->key_len > KEY_MAX || ret->value_len > VALUE_MAX ||
	    (ret->deleted && ret->value_len))
		return -EBADMSG;
	*at = (size_t)(in.p - (const uint8_t *)data);
	return 0;
}

int proto_fetch_encode(const struct pull_range *f, struct buf *b)
{
	int r = wire_add_ino(b, &f->ino);

	r = r < 0 ? r : wire_add(b, f->off, 8);
	r = r < 0 ? r : wire_add(b, f->len, 4);
	return r < 0 ? r : wire_add(b, f->seq, 8);
}

int proto_fetch_decode(const void *data, size_t len, struct pull_range *ret)
{
	struct wire_in in = wire_in(data, len);

	wire_ino(&in, &ret->ino);
	ret->off = wire_u64(&in);
	ret->len = wire_u32(&in);
	ret->seq = wire_u64(&in);
	if (ret->len == 0 || ret->len > PROTO_PAYLOAD_MAX || ret->len % VOL_BLOCK || ret->off % VOL_BLOCK ||
	    ret->off >= VFS_SIZE_MAX)
		return -EBADMSG;
	return wire_end(&in);
}

int proto_fetched_encode(uint64_t source_seq, const uint32_t *crcs, uint32_t n, struct buf *b)
{
	int r = wire_add(b, source_seq, 8);

	return r < 0 ? r : buf_add(b, crcs, n * sizeof(*crcs));
}

int proto_fetched_decode(const void *data, size_t len, uint32_t n, uint64_t *ret_source_seq,
			 uint32_t *ret_crcs)
{
	struct wire_in in = wire_in(data, len);
	const void *crcs;

	*ret_source_seq = wire_u64(&in);
	crcs = wire_take(&in, n * sizeof(*ret_crcs));
	if (!crcs || wire_end(&in) < 0)
		return -EBADMSG;
	memcpy(ret_crcs, crcs, n * sizeof(*ret_crcs));
	return 0;
}
