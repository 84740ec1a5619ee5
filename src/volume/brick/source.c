/* SPDX-License-Identifier: Apache-2.0 */
/* source: what an in-sync member gives to one that catches up: pages of changed keys (DELTA) and ranges of data (FETCH). Both are answered by a primary or
 * backup of the asker's epoch only, and leave when all that was seen is committed (core/repl/repl.h "What the shell owes"). */
#include "volume/brick/internal.h"

#define PAGE_MAX  (1u << 20) /* bytes of items */
#define ITEMS_MAX 4096

/* An answer that waits for its commit. */
struct held {
	struct conn *c;
	struct proto_head h;
	struct buf body;
	struct payload *payload;
	struct brick *b;
};

static void on_held(void *ctx, int status, struct vfs_result *res)
{
	struct held *w = ctx;

	(void)res;
	if (status == 0) {
		w->b->n.fetched_bytes += w->payload ? w->payload->len : 0;
		bconn_send(w->c, &w->h, w->body.data, w->body.len, w->payload);
	} else {
		op_text(w->c, &w->h, status, "");
	}
	bconn_unref(w->c);
	payload_unref(w->payload);
	buf_done(&w->body);
	free(w);
}

static struct grp *group_of(struct conn *c, const struct proto_head *h)
{
	struct side *side = c->owner;
	struct vol *v = vol_by_tag(side->b, h->volume);
	struct grp *g = v && v->open && h->group < v->doc.map->n_groups ? v->grp[h->group] : NULL;
	enum repl_role role = g ? repl_role(g->repl) : REPL_OUT;
	struct repl_view view;

	if (!g || (role != REPL_PRIMARY && role != REPL_BACKUP))
		return NULL;
	repl_get_view(g->repl, &view);
	return view.epoch == h->epoch ? g : NULL;
}

static struct held *held_new(struct grp *g, struct conn *c, const struct proto_head *h)
{
	struct held *w = xcalloc(1, sizeof(*w));

	w->b = g->v->b;
	w->c = bconn_ref(c);
	w->h = (struct proto_head){.type = h->type,
				   .flags = FRAME_ANSWER,
				   .request = h->request,
				   .volume = h->volume,
				   .group = h->group,
				   .epoch = h->epoch};
	return w;
}

static void hold(struct grp *g, struct held *w)
{
	struct op *o = op_new(g, NULL);

	o->done = on_held;
	o->ctx = w;
	op_wait_read(o, repl_pos(g->repl).seq);
	grp_mark(g);
}

/* Items from the cursor on; true: the walk is at its end. */
static int page(struct grp *g, struct delta_cursor *cur, uint32_t limit, struct buf *items)
{
	struct delta_item item;
	int r = 0;

	for (uint32_t n = 0; n < ITEMS_MAX && items->len < limit; n++) {
		r = replica_delta_next(g->replica, cur, &item);
		if (r < 0)
			return r;
		r = proto_item_encode(&item, items);
		if (r < 0)
			return r;
	}
	return 0;
}

int source_delta(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why)
{
	struct grp *g = group_of(c, h);
	_cleanup_buf_ struct buf items = {0};
	struct proto_delta_ask ask;
	struct proto_delta d = {0};
	struct held *w;
	int r;

	if (proto_delta_ask_decode(body, h->body_len, &ask) < 0) {
		*why = "a malformed question for a delta";
		return -EBADMSG;
	}
	if (!g) {
		op_text(c, h, -ESTALE, "not in sync, or of another epoch");
		return 0;
	}
	d.cursor = ask.cursor;
	r = ask.first ? replica_delta_start(g->replica, ask.since, &d.cursor) : 0;
	d.full = d.cursor.full; /* how this page began: a walk of all keys may end in it */
	if (r == 0)
		r = page(g, &d.cursor, MIN(ask.limit, PAGE_MAX), &items);
	if (r < 0 && r != -ENOENT) {
		op_text(c, h, r == -ESTALE ? -ERANGE : -EIO, strerror(-r));
		return 0;
	}
	w = held_new(g, c, h);
	if (r == -ENOENT)
		w->h.flags |= FRAME_DONE;
	d.epoch = g->replica->epoch;
	d.seq = g->replica->seq;
	d.floor = g->replica->floor;
	proto_delta_encode(&d, &w->body);
	buf_add(&w->body, items.data, items.len);
	hold(g, w);
	return 0;
}

/* The range as it lies here; a block that cannot be read is bad. */
static int read_range(struct grp *g, const struct pull_range *range, uint8_t *to, uint32_t *crcs)
{
	struct blob *bl = g->replica->blob;
	int r = replica_crcs(g->replica, &range->ino, range->off, range->len, crcs);

	if (r < 0 || bl->read(bl, g->idx, &range->ino, range->off, to, range->len) == 0)
		return r;
	for (uint32_t at = 0; at < range->len; at += VOL_BLOCK)
		if (bl->read(bl, g->idx, &range->ino, range->off + at, to + at, VOL_BLOCK) < 0) {
			memset(to + at, 0, VOL_BLOCK);
			crcs[at / VOL_BLOCK] = BLOCK_CRC_BAD;
		}
	return 0;
}

/* The receiver judges each block by its checksum and asks again for those that do not fit. It cannot end before they are mended here, and here nobody may
 * have read them since they became bad. */
static void look_at(struct grp *g, const struct pull_range *range, const struct payload *p,
		    const uint32_t *crcs)
{
	uint32_t n = range->len / VOL_BLOCK;

	if (!p->summed || p->n_chunks != n) /* no memory for the sums: the next fetch looks */
		return;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t off = range->off + (uint64_t)i * VOL_BLOCK;

		if (crcs[i] <= BLOCK_CRC_BAD || p->chunk_crc[i] == crcs[i])
			continue;
		repair_block(g, &range->ino, off, NULL, NULL);
		i += (uint32_t)(REPAIR_LEN - off % REPAIR_LEN) / VOL_BLOCK - 1;
	}
}

int source_fetch(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why)
{
	struct grp *g = group_of(c, h);
	struct pull_range range;
	uint32_t *crcs, n;
	struct held *w;
	int r;

	if (proto_fetch_decode(body, h->body_len, &range) < 0) {
		*why = "a malformed question for data";
		return -EBADMSG;
	}
	if (!g || g->replica->seq < range.seq) {
		op_text(c, h, g ? -EAGAIN : -ESTALE, "not in sync, behind, or of another epoch");
		return 0;
	}
	n = range.len / VOL_BLOCK;
	w = held_new(g, c, h);
	w->payload = payload_new(range.len);
	crcs = malloc(n * sizeof(*crcs));
	r = w->payload && crcs ? read_range(g, &range, w->payload->data, crcs) : -ENOMEM;
	if (r < 0) {
		w->h.status = -EIO;
		w->payload = payload_unref(w->payload);
	} else {
		w->h.payload_crc = payload_sum(w->payload, range.off);
		proto_fetched_encode(g->replica->seq, crcs, n, &w->body);
	}
	if (r == 0)
		look_at(g, &range, w->payload, crcs);
	free(crcs);
	hold(g, w);
	return 0;
}
