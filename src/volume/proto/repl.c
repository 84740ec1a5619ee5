/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of FRAME_REPL: the fixed part of 132 bytes; behind it, for an APPEND, the record's head and body. The record's payload is the frame's.
 *
 * record_decode checks the record's own sums (head and body, and the payload's); here are the bounds of the message and that
 * record and message are of the same group. */
#include "volume/proto.h"
#include "volume/proto/wire.h"

#define REPL_FIXED  132
#define REPL_SURE   1u
#define REPL_HEARS  2u
#define REPL_FAILED 4u
#define REPL_LEASE  8u
#define REPL_LOST   16u
#define REPL_FLAGS  31u

int proto_repl_encode(const struct repl_msg *m, struct buf *b)
{
	uint8_t fixed[REPL_FIXED + RECORD_HEAD] = {0};
	uint8_t *p = fixed;
	int r;

	p = wire_put(p, m->type, 1);
	p = wire_put(p, m->from, 1);
	p = wire_put(p, m->to, 1);
	p = wire_put(p,
		     (m->sure ? REPL_SURE : 0) | (m->hears ? REPL_HEARS : 0) | (m->failed ? REPL_FAILED : 0) |
			     (m->lease ? REPL_LEASE : 0) | (m->lost ? REPL_LOST : 0),
		     1);
	p = wire_put(p, m->group, 4);
	p = wire_put(p, m->epoch, 8);
	p = wire_put(p, m->pos.epoch, 8);
	p = wire_put(p, m->pos.seq, 8);
	p = wire_put(p, m->commit, 8);
	p = wire_put(p, m->stamp, 8);
	p = wire_put(p, m->view.epoch, 8);
	p = wire_put(p, m->view.primary, 1);
	p = wire_put(p, m->view.isr, 1);
	p = wire_put(p, m->view.members, 1);
	p = wire_put(p, m->view.joining, 1);
	p = wire_put(p, m->view.leaving, 1);
	p += 3;
	p = wire_put(p, m->view.fork, 8);
	p = wire_put(p, m->echo, 8);
	p = wire_put(p, m->life, 8);
	p = wire_put(p, m->live.epoch, 8);
	p = wire_put(p, m->live.seq, 8);
	p = wire_put(p, m->cut.epoch, 8);
	p = wire_put(p, m->cut.seq, 8);
	for (int i = 0; i < VOL_MEMBERS_MAX; i++)
		p = wire_put(p, m->view.brick[i], 2);
	if (m->type != REPL_MSG_APPEND)
		return buf_add(b, fixed, REPL_FIXED);
	ensure(m->record);
	record_encode_head(m->record, fixed + REPL_FIXED);
	r = buf_add(b, fixed, sizeof(fixed));
	return r < 0 ? r : buf_add(b, m->record->body, m->record->body_len);
}

static int decode_record(struct wire_in *in, struct payload *payload, struct repl_msg *m, struct record **ret)
{
	const uint8_t *head = wire_take(in, RECORD_HEAD), *body;
	uint32_t body_len, payload_len;
	int r;

	if (!head)
		return -EBADMSG;
	r = record_decode_head(head, &body_len, &payload_len);
	if (r < 0)
		return r;
	body = wire_take(in, body_len);
	if (!body || wire_end(in) < 0 || payload_len != (payload ? payload->len : 0))
		return -EBADMSG;
	r = record_decode(head, body, payload, ret, NULL);
	if (r < 0)
		return r;
	if ((*ret)->group != m->group) {
		*ret = record_unref(*ret);
		return -EBADMSG;
	}
	m->record = *ret;
	return 0;
}

int proto_repl_decode(const void *data, size_t len, struct payload *payload, struct repl_msg *ret,
		      struct record **ret_record)
{
	struct wire_in in = wire_in(data, len);
	const uint8_t *zero;
	uint8_t flags;

	*ret_record = NULL;
	*ret = (struct repl_msg){.type = wire_u8(&in)};
	ret->from = wire_u8(&in);
	ret->to = wire_u8(&in);
	flags = wire_u8(&in);
	ret->sure = flags & REPL_SURE;
	ret->hears = flags & REPL_HEARS;
	ret->failed = flags & REPL_FAILED;
	ret->lease = flags & REPL_LEASE;
	ret->lost = flags & REPL_LOST;
	ret->group = wire_u32(&in);
	ret->epoch = wire_u64(&in);
	ret->pos.epoch = wire_u64(&in);
	ret->pos.seq = wire_u64(&in);
	ret->commit = wire_u64(&in);
	ret->stamp = wire_u64(&in);
	ret->view.epoch = wire_u64(&in);
	ret->view.primary = wire_u8(&in);
	ret->view.isr = wire_u8(&in);
	ret->view.members = wire_u8(&in);
	ret->view.joining = wire_u8(&in);
	ret->view.leaving = wire_u8(&in);
	zero = wire_take(&in, 3);
	ret->view.fork = wire_u64(&in);
	ret->echo = wire_u64(&in);
	ret->life = wire_u64(&in);
	ret->live.epoch = wire_u64(&in);
	ret->live.seq = wire_u64(&in);
	ret->cut.epoch = wire_u64(&in);
	ret->cut.seq = wire_u64(&in);
	for (int i = 0; i < VOL_MEMBERS_MAX; i++)
		ret->view.brick[i] = wire_u16(&in);
	if (!zero || memcmp(zero, "\0\0", 3) != 0 || flags & ~REPL_FLAGS || ret->type < REPL_MSG_APPEND ||
	    ret->type > REPL_MSG_VIEW || ret->from >= VOL_MEMBERS_MAX || ret->to >= VOL_MEMBERS_MAX ||
	    ret->group >= VOL_GROUPS_MAX || !proto_view_ok(&ret->view))
		return -EBADMSG;
	if (ret->type == REPL_MSG_APPEND)
		return decode_record(&in, payload, ret, ret_record);
	return payload ? -EBADMSG : wire_end(&in);
}
