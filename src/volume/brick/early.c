/* SPDX-License-Identifier: Apache-2.0 */
/* early: a large WRITE is relayed while it is still arriving.
 *
 * The record of a write can be made when its last byte is there and the checksum holds, and only then is it ordered, logged and sent. Its bytes need not wait
 * for that: as they come from the client the primary passes them on to the in-sync members (FRAME_EARLY, in steps, between other frames), which gather them in
 * memory and do nothing else with them. The APPEND then names the gathered payload instead of carrying it; a member checks it against the record's
 * checksums as ever. A write that is refused, damaged or never completed (its client died) is dropped on both sides; a link that breaks forgets everything.
 * A record that is sent again carries its payload: an id is used once.
 *
 * So receiving, relaying and the members' receiving overlap, and the order of records is what it was: core/repl knows nothing of this.
 *
 * Bounds: EARLY_LINK_MAX payloads of at most RECORD_PAYLOAD_MAX bytes a link and direction, on both sides; a link that has EARLY_QUEUE_MAX bytes waiting gets
 * nothing early. Memory and thread: the loop's. */
#include "volume/brick/internal.h"

#define EARLY_STEP	(128u << 10)
#define EARLY_QUEUE_MAX (16u << 20)

/* One write on its way from a client; of the client's connection. */
struct early {
	struct payload *payload; /* borrowed: the connection's */
	uint64_t off;		 /* in the file, as the client says */
	uint32_t sent;
	uint32_t n;
	struct {
		struct conn *link; /* a reference */
		uint64_t id;
	} to[VOL_MEMBERS_MAX];
};

/* ---- sending ---- */

static void add_target(struct early *e, struct grp *g, uint8_t member)
{
	struct conn *link = g->member[member] ? g->member[member]->link : NULL;
	struct side *side = link && !link->gone ? link->owner : NULL;

	if (!side || side->early_out >= EARLY_LINK_MAX || bconn_queued(link) > EARLY_QUEUE_MAX)
		return;
	side->early_out++;
	e->to[e->n].link = bconn_ref(link);
	e->to[e->n++].id = ++side->early_id;
}

static struct early *begin(struct conn *c, const struct proto_head *h, const uint8_t *body,
			   struct payload *payload)
{
	struct side *side = c->owner;
	struct vol *v = vol_by_tag(side->b, h->volume);
	struct grp *g = v && v->open && h->group < v->doc.map->n_groups ? v->grp[h->group] : NULL;
	struct vfs_op vop;
	struct early *e;

	if (!g || !grp_is_primary(g) || !repl_may_write(g->repl) ||
	    vfs_op_decode(body, h->body_len, payload, &vop) < 0 || vop.type != VFS_WRITE)
		return NULL;
	e = xcalloc(1, sizeof(*e));
	e->payload = payload;
	e->off = vop.off;
	for (uint8_t i = 0; i < g->n; i++)
		if (i != g->self && g->view.isr & 1u << i)
			add_target(e, g, i);
	return e;
}

static void relay(const struct early *e, uint32_t from, uint32_t len)
{
	for (uint32_t i = 0; i < e->n; i++) {
		struct proto_head h = {.type = FRAME_EARLY};
		struct proto_early pe = {.id = e->to[i].id,
					 .total = e->payload->len,
					 .at = from,
					 .phase = (uint16_t)(e->off % VOL_BLOCK)};

		proto_early_encode(&pe, bconn_begin(e->to[i].link));
		bconn_end_part(e->to[i].link, &h, len ? e->payload : NULL, from, len);
	}
}

void early_part(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
		uint32_t got)
{
	struct side *side = c->owner;

	if (h->flags & FRAME_ANSWER || !side ||
	    (c->hello.role != PROTO_CLIENT && c->hello.role != PROTO_SESSION))
		return;
	if (!side->early && got < payload->len)
		side->early = begin(c, h, body, payload);
	if (!side->early || (got < payload->len && got - side->early->sent < EARLY_STEP))
		return;
	relay(side->early, side->early->sent, got - side->early->sent);
	payload_sum_ahead(payload, side->early->off, got); /* while it is in the caches */
	side->early->sent = got;
}

/* It is used up: 0 in its place. */
static void release(struct early *e, uint32_t i)
{
	struct side *side = e->to[i].link->owner;

	if (side && !e->to[i].link->gone)
		side->early_out--;
	e->to[i].id = 0;
}

uint64_t early_use(struct brick *b, const struct conn *link, const struct payload *payload)
{
	struct early *e = b->early;

	for (uint32_t i = 0; e && e->payload == payload && e->sent == payload->len && i < e->n; i++) {
		uint64_t id = e->to[i].id;

		if (e->to[i].link != link || id == 0)
			continue;
		release(e, i);
		return id;
	}
	return 0;
}

void early_end(struct side *side)
{
	struct early *e = take_ptr(side->early);

	if (e && side->b->early == e)
		side->b->early = NULL;
	for (uint32_t i = 0; e && i < e->n; i++) {
		struct proto_head h = {.type = FRAME_EARLY};
		struct proto_early pe = {.id = e->to[i].id, .total = 1};

		if (pe.id && e->sent > 0) { /* a member knows of it */
			proto_early_encode(&pe, bconn_begin(e->to[i].link));
			bconn_end(e->to[i].link, &h, NULL);
		}
		if (pe.id)
			release(e, i);
		bconn_unref(e->to[i].link);
	}
	free(e);
}

/* ---- receiving ---- */

static struct early_in *find(struct side *side, uint64_t id)
{
	for (uint32_t i = 0; i < EARLY_LINK_MAX; i++)
		if (side->early_in[i].payload && side->early_in[i].id == id)
			return &side->early_in[i];
	return NULL;
}

static struct early_in *find_free(struct side *side)
{
	for (uint32_t i = 0; i < EARLY_LINK_MAX; i++)
		if (!side->early_in[i].payload)
			return &side->early_in[i];
	return NULL;
}

struct payload *early_place(struct conn *c, const struct proto_head *h, const uint8_t *body, uint32_t *ret_at,
			    const char **why)
{
	struct side *side = c->owner;
	struct proto_early pe;
	struct early_in *x;

	*why = "bytes of a payload that do not fit";
	if (c->hello.role != PROTO_PEER || !side ||
	    proto_early_decode(body, h->body_len, h->payload_len, &pe) < 0)
		return NULL;
	x = find(side, pe.id);
	if (!x && pe.at == 0 && pe.id > side->early_newest && (x = find_free(side))) {
		*x = (struct early_in){.id = pe.id, .payload = payload_new(pe.total)};
		side->early_newest = pe.id;
	}
	if (!x || !x->payload || pe.at != x->got || pe.total != x->payload->len)
		return NULL;
	*ret_at = pe.at;
	*why = NULL;
	return x->payload;
}

int early_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why)
{
	struct side *side = c->owner;
	struct proto_early pe;
	struct early_in *x;

	if (proto_early_decode(body, h->body_len, h->payload_len, &pe) < 0 || !(x = find(side, pe.id))) {
		*why = "bytes of a payload that is not known";
		return -EBADMSG;
	}
	x->got += h->payload_len;
	if (h->payload_len == 0)
		x->payload = payload_unref(x->payload);
	else
		payload_sum_ahead(x->payload, pe.phase, x->got);
	return 0;
}

struct payload *early_take(struct side *side, uint64_t id)
{
	struct early_in *x = find(side, id);

	if (!x || x->got < x->payload->len)
		return NULL;
	if (side->b)
		side->b->n.early++;
	return take_ptr(x->payload);
}

void early_done(struct side *side)
{
	early_end(side);
	for (uint32_t i = 0; i < EARLY_LINK_MAX; i++)
		side->early_in[i].payload = payload_unref(side->early_in[i].payload);
}
