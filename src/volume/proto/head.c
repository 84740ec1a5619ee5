/* SPDX-License-Identifier: Apache-2.0 */
/* Frame heads and the small bodies: hello, view, push, bad block. Byte tables: docs/protocol/volume.md, "Frames".
 *
 * Pure functions. A decoder accepts any bytes: it returns -EBADMSG (not what it should be) or -EMSGSIZE (a length beyond its bound), and leaves
 * its output undefined then. Every bound is checked here, so a reader may allocate what a head announces. */
#include "volume/proto.h"
#include "volume/proto/wire.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are copied as they lie in memory");

uint32_t proto_volume_tag(const struct vol_id *uuid)
{
	return (uint32_t)hash_fnv64(uuid->b, sizeof(uuid->b));
}

void proto_head_encode(const struct proto_head *h, uint8_t out[PROTO_HEAD])
{
	uint8_t *p = out;

	ensure(h->group < VOL_GROUPS_MAX && h->type <= UINT8_MAX && h->status >= INT16_MIN &&
	       h->status <= INT16_MAX);
	p = wire_put(p, PROTO_MAGIC, 4);
	p = wire_put(p, h->type, 2);
	p = wire_put(p, h->flags, 2);
	p = wire_put(p, h->body_len, 4);
	p = wire_put(p, h->payload_len, 4);
	p = wire_put(p, h->request, 8);
	p = wire_put(p, h->volume, 4);
	p = wire_put(p, h->group, 2);
	p = wire_put(p, (uint16_t)h->status, 2);
	p = wire_put(p, h->epoch, 8);
	p = wire_put(p, h->body_crc, 4);
	p = wire_put(p, h->payload_crc, 4);
	ensure(p == out + PROTO_HEAD);
}

int proto_head_decode(const uint8_t in[PROTO_HEAD], struct proto_head *ret)
{
	struct wire_in w = wire_in(in, PROTO_HEAD);
	uint32_t magic = wire_u32(&w);

	*ret = (struct proto_head){.type = wire_u16(&w)};
	ret->flags = wire_u16(&w);
	ret->body_len = wire_u32(&w);
	ret->payload_len = wire_u32(&w);
	ret->request = wire_u64(&w);
	ret->volume = wire_u32(&w);
	ret->group = wire_u16(&w);
	ret->status = (int16_t)wire_u16(&w);
	ret->epoch = wire_u64(&w);
	ret->body_crc = wire_u32(&w);
	ret->payload_crc = wire_u32(&w);
	if (magic != PROTO_MAGIC || ret->type < FRAME_HELLO || ret->type > FRAME_LAST ||
	    ret->group >= VOL_GROUPS_MAX)
		return -EBADMSG;
	return ret->body_len > PROTO_BODY_MAX || ret->payload_len > PROTO_PAYLOAD_MAX ? -EMSGSIZE : 0;
}

int proto_hello_encode(const struct proto_hello *h, struct buf *b)
{
	int r = wire_add(b, h->version, 4);

	r = r < 0 ? r : wire_add(b, h->role, 1);
	r = r < 0 ? r : buf_add(b, h->volume.b, sizeof(h->volume.b));
	r = r < 0 ? r : wire_add(b, h->client, 8);
	r = r < 0 ? r : wire_add(b, h->incarnation, 8);
	r = r < 0 ? r : wire_add_str(b, h->name);
	return r < 0 ? r : wire_add_str(b, h->domain);
}

int proto_hello_decode(const void *data, size_t len, struct proto_hello *ret)
{
	struct wire_in in = wire_in(data, len);

	*ret = (struct proto_hello){.version = wire_u32(&in)};
	ret->role = wire_u8(&in);
	wire_id(&in, &ret->volume);
	ret->client = wire_u64(&in);
	ret->incarnation = wire_u64(&in);
	wire_str(&in, ret->name, sizeof(ret->name));
	wire_str(&in, ret->domain, sizeof(ret->domain));
	if (ret->role < PROTO_CLIENT || ret->role > PROTO_PULL)
		return -EBADMSG;
	return wire_end(&in);
}

bool proto_view_ok(const struct repl_view *v)
{
	if (v->primary >= VOL_MEMBERS_MAX || (v->isr | v->members) >> VOL_MEMBERS_MAX ||
	    v->joining > VOL_MEMBERS_MAX || v->leaving > VOL_MEMBERS_MAX)
		return false;
	for (int i = 0; i < VOL_MEMBERS_MAX; i++)
		if (v->brick[i] >= VOL_BRICKS_MAX)
			return false;
	return true;
}

int proto_view_encode(const struct proto_view *v, struct buf *b)
{
	int r = wire_add(b, v->view.epoch, 8);

	r = r < 0 ? r : wire_add(b, v->view.primary, 1);
	r = r < 0 ? r : wire_add(b, v->view.isr, 1);
	r = r < 0 ? r : wire_add(b, v->view.fork, 8);
	r = r < 0 ? r : wire_add(b, v->view.members, 1);
	r = r < 0 ? r : wire_add(b, v->view.joining, 1);
	r = r < 0 ? r : wire_add(b, v->view.leaving, 1);
	for (int i = 0; i < VOL_MEMBERS_MAX; i++)
		r = r < 0 ? r : wire_add(b, v->view.brick[i], 2);
	return r < 0 ? r : wire_add_str(b, v->primary_address);
}

int proto_view_decode(const void *data, size_t len, struct proto_view *ret)
{
	struct wire_in in = wire_in(data, len);

	*ret = (struct proto_view){.view.epoch = wire_u64(&in)};
	ret->view.primary = wire_u8(&in);
	ret->view.isr = wire_u8(&in);
	ret->view.fork = wire_u64(&in);
	ret->view.members = wire_u8(&in);
	ret->view.joining = wire_u8(&in);
	ret->view.leaving = wire_u8(&in);
	for (int i = 0; i < VOL_MEMBERS_MAX; i++)
		ret->view.brick[i] = wire_u16(&in);
	wire_str(&in, ret->primary_address, sizeof(ret->primary_address));
	if (!proto_view_ok(&ret->view))
		return -EBADMSG;
	return wire_end(&in);
}

int proto_push_encode(const struct proto_push *p, struct buf *b)
{
	int r = wire_add(b, p->type, 1);

	r = r < 0 ? r : wire_add_ino(b, &p->ino);
	return r < 0 ? r : wire_add_str(b, p->name);
}

int proto_push_decode(const void *data, size_t len, struct proto_push *ret)
{
	struct wire_in in = wire_in(data, len);

	*ret = (struct proto_push){.type = wire_u8(&in)};
	wire_ino(&in, &ret->ino);
	wire_str(&in, ret->name, sizeof(ret->name));
	if (ret->type < PUSH_INODE || ret->type > PUSH_RECALL)
		return -EBADMSG;
	return wire_end(&in);
}

int proto_bad_encode(const struct proto_bad *p, struct buf *b)
{
	int r = wire_add_ino(b, &p->ino);

	r = r < 0 ? r : wire_add(b, p->off, 8);
	return r < 0 ? r : wire_add(b, p->member, 1);
}

int proto_bad_decode(const void *data, size_t len, struct proto_bad *ret)
{
	struct wire_in in = wire_in(data, len);

	wire_ino(&in, &ret->ino);
	ret->off = wire_u64(&in);
	ret->member = wire_u8(&in);
	if (ret->member >= VOL_MEMBERS_MAX || ret->off >= VFS_SIZE_MAX || ret->off % VOL_BLOCK)
		return -EBADMSG;
	return wire_end(&in);
}

int proto_early_encode(const struct proto_early *e, struct buf *b)
{
	int r = wire_add(b, e->id, 8);

	r = r < 0 ? r : wire_add(b, e->total, 4);
	r = r < 0 ? r : wire_add(b, e->at, 4);
	return r < 0 ? r : wire_add(b, e->phase, 2);
}

int proto_early_decode(const void *data, size_t len, uint32_t payload_len, struct proto_early *ret)
{
	struct wire_in in = wire_in(data, len);

	*ret = (struct proto_early){.id = wire_u64(&in)};
	ret->total = wire_u32(&in);
	ret->at = wire_u32(&in);
	ret->phase = wire_u16(&in);
	if (ret->phase >= VOL_BLOCK || ret->id == 0 || ret->total == 0 || ret->total > PROTO_PAYLOAD_MAX ||
	    ret->at > ret->total || payload_len > ret->total - ret->at)
		return -EBADMSG;
	return wire_end(&in);
}
