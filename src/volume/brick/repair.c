/* SPDX-License-Identifier: Apache-2.0 */
/* repair: blocks whose content does not fit their checksum. Found by a read, by a client (BAD_BLOCK), by another member that fetches them, by recovery after
 * a power loss (marked bad) or by the scrub; fetched from the other in-sync members, one after the other.
 *
 * No member has a good one: that is so when all lost power while a write that nobody synced was on its way to the disks. Recovery knows it of writes that
 * are in the log. A write whose data the disk took before its record looks like bit rot: the checksum is of before, the bytes are not, on all members.
 * So where all members of the group have lost power once (view.fork) and every in-sync member was asked and has it bad, the primary adopts what it has by a
 * write of its own: the block reads as any mixture of what was synced and what was written since, and all copies agree. Alone in the set the primary may
 * have bit rot instead, and those that are catching up the good copy: it adopts at once what recovery found torn, else after ALONE_MS, and only until all data
 * here has been compared since that loss of power (`doubt`; the scrub begins by itself). Otherwise it stays bad: -EIO to who reads it, until it is written
 * or a good copy comes. So it does when the data has gone altogether: an unlink that the disk took and the log did not; zeros would pass for what was
 * synced. Without a fork nothing is ever adopted. A member that cannot be asked just now, or has it good but changed meanwhile: -EAGAIN.
 *
 * Scrub: reads every stripe of every group of the volume here, a few a tick, at most SCRUB_BYTES a second; starts by itself every `scrub-every`, after a loss of
 * power of all members of a group, and on demand. Behind a start that is not sure of its log, and behind a cut, data files without keys are removed (bstore's
 * strays.c). Every few seconds also: blocks that are known as bad (replica_bad_next) are repaired.
 * Bound: REPAIRS_MAX repairs at once a brick; what does not fit is found again. */
#include "volume/brick/internal.h"

#define REPAIRS_MAX   64
#define ALONE_MS      5000	  /* members that have nothing to fetch join long before */
#define SCRUB_BYTES   (32u << 20) /* a second */
#define BAD_LOOK_MS   2000
#define STRAYS_A_TICK 32

struct repair {
	struct vol *v;
	uint32_t group;
	uint64_t serial;
	struct pull_range range;
	uint8_t tried; /* members, bits */
	bool unknown;  /* a member could not be asked, or what it has could not be taken */
	bool failed;   /* a member cannot say what it has */
	bool begun;
	void (*done)(void *ctx, int err);
	void *ctx;
};

struct scrub {
	uint32_t group;
	struct vol_ino ino;
	uint64_t fork; /* of the group's view when its turn came */
	bool entered;  /* it has */
	uint64_t off, start_ms, end_ms, stripes, bad, unreadable, budget_ms;
	bool running;
	uint64_t look_ms;
};

static void next_member(struct repair *r);

static struct grp *group_of(const struct repair *r)
{
	struct grp *g = r->v->open && !r->v->closing ? r->v->grp[r->group] : NULL;

	return g && g->serial == r->serial ? g : NULL;
}

static void finish(struct repair *r, int err)
{
	struct grp *g = group_of(r);

	if (g && r->begun)
		replica_pull_data(g->replica, &r->range, 0, NULL, NULL, 0);
	r->v->b->repairs--;
	if (r->done)
		r->done(r->ctx, g ? err : -ESTALE);
	vol_unref(r->v);
	free(r);
}

static void nobody(void *ctx, int status, struct vfs_result *res)
{
	(void)ctx, (void)status, (void)res;
}

/* Blocks of the range that are bad here. */
static int bad_blocks(struct grp *g, const struct pull_range *range, uint32_t *crcs, uint32_t *ret)
{
	int r = replica_crcs(g->replica, &range->ino, range->off, range->len, crcs);

	*ret = 0;
	for (uint32_t i = 0; r == 0 && i < range->len / VOL_BLOCK; i++)
		*ret += crcs[i] == BLOCK_CRC_BAD;
	return r;
}

/* The primary's own content, whatever it is, becomes the truth: a record with the blocks from the first bad one to the last. Also below the write quorum: members
 * that catch up cannot end as long as a block is bad here. It is not waited for: a read of the blocks waits for what it sees. */
static void adopt(struct repair *r, struct grp *g, const uint32_t *crcs)
{
	uint32_t n = r->range.len / VOL_BLOCK, first = 0, last = n - 1;
	struct record *rec = record_new(g->idx);
	struct payload *p;
	struct op *o;
	uint32_t gen = 0;
	int err = -ENOMEM;

	while (crcs[first] != BLOCK_CRC_BAD)
		first++;
	while (crcs[last] != BLOCK_CRC_BAD)
		last--;
	p = payload_new((last - first + 1) * VOL_BLOCK);
	if (rec && p) {
		err = g->replica->blob->read(g->replica->blob, g->idx, &r->range.ino,
					     r->range.off + (uint64_t)first * VOL_BLOCK, p->data, p->len);
		if (err == 0)
			err = replica_slice_gen(g->replica, &r->range.ino, &gen);
		if (err == 0)
			err = record_write(rec, &r->range.ino, gen,
					   r->range.off + (uint64_t)first * VOL_BLOCK, p);
	}
	payload_unref(p);
	if (err == 0) {
		o = op_new(g, NULL);
		o->done = nobody;
		err = op_submit_own(o, rec);
		if (err == 0) {
			log_warn("volume %s, group %u: no member has a good copy of %u blocks: the primary's "
				 "are adopted",
				 g->v->name, g->idx, last - first + 1);
			op_queue(o);
		} else {
			op_refuse(o, err);
		}
	}
	finish(r, err);
	record_unref(rec);
}

/* Every in-sync member was asked and has it bad. 0, or what to answer. */
static int may_adopt(const struct repair *r, struct grp *g)
{
	bool torn = bstore_torn(g->v->store, g->idx, &r->range.ino, r->range.off);

	if (g->view.fork == 0 || (!torn && bstore_fd(g->v->store, g->idx, &r->range.ino) == -ENOENT))
		return -EIO;
	if (r->tried)
		return 0;
	if (!g->doubt)
		return -EIO;
	if (torn)
		return 0;
	return clock_ms() - g->primary_ms >= ALONE_MS ? 0 : -EAGAIN;
}

static void give_up(struct repair *r, struct grp *g)
{
	uint32_t crcs[REPAIR_LEN / VOL_BLOCK], bad = 0;
	int err = bad_blocks(g, &r->range, crcs, &bad);

	if (err == 0 && bad > 0) {
		if (!grp_is_primary(g) || r->unknown)
			err = -EAGAIN;
		else
			err = r->failed ? -EIO : may_adopt(r, g);
	}
	if (err < 0 || bad == 0) { /* 0: written meanwhile */
		finish(r, err);
		return;
	}
	if (r->begun)
		replica_pull_data(g->replica, &r->range, 0, NULL, NULL, 0);
	r->begun = false;
	adopt(r, g, crcs);
}

static void on_fetched(void *ctx, int err, const struct proto_head *h, const uint8_t *body,
		       struct payload *payload)
{
	struct repair *r = ctx;
	struct grp *g = group_of(r);
	uint32_t crcs[REPAIR_LEN / VOL_BLOCK], mine[REPAIR_LEN / VOL_BLOCK], n = r->range.len / VOL_BLOCK,
									     bad = 0;
	uint64_t source_seq;

	if (!g) {
		finish(r, -ESTALE);
		return;
	}
	if (err == 0 && (!payload || payload->len != r->range.len ||
			 proto_fetched_decode(body, h->body_len, n, &source_seq, crcs) < 0))
		err = -EBADMSG;
	if (err < 0) {
		if (err == -EIO)
			r->failed = true;
		else
			r->unknown = true;
		next_member(r);
		return;
	}
	for (uint32_t i = 0; i < n; i++) /* known as bad there, or it does not fit what it should be */
		if (crcs[i] > BLOCK_CRC_BAD && block_crc(payload->data + (size_t)i * VOL_BLOCK) != crcs[i])
			crcs[i] = BLOCK_CRC_BAD;
	replica_pull_data(g->replica, &r->range, source_seq, crcs, payload->data, r->range.len);
	r->begun = false;
	bstore_mark_dirty(g->v->store);
	if (bad_blocks(g, &r->range, mine, &bad) < 0 || bad > 0) {
		for (uint32_t i = 0; i < n; i++)
			r->unknown |= mine[i] == BLOCK_CRC_BAD && crcs[i] != BLOCK_CRC_BAD;
		next_member(r);
		return;
	}
	g->v->b->n.repaired++;
	finish(r, 0);
}

static void next_member(struct repair *r)
{
	struct grp *g = group_of(r);
	_cleanup_buf_ struct buf body = {0};
	struct proto_head h = {.type = FRAME_FETCH, .volume = r->v->tag, .group = r->group};

	if (!g) {
		finish(r, -ESTALE);
		return;
	}
	for (uint8_t i = 0; i < g->n; i++) {
		struct conn *c = g->member[i] ? g->member[i]->link : NULL;

		if (i == g->self || r->tried & 1u << i || !(g->view.isr & 1u << i))
			continue;
		r->tried |= (uint8_t)(1u << i);
		if (!c) {
			r->unknown = true;
			continue;
		}
		if (!r->begun) {
			if (replica_pull_begin(g->replica, &r->range) < 0) {
				finish(r, -EAGAIN);
				return;
			}
			r->begun = true;
		}
		h.epoch = g->view.epoch;
		proto_fetch_encode(&r->range, &body);
		ask_send(r->v->b, c, &h, body.data, body.len, on_fetched, r);
		return;
	}
	give_up(r, g);
}

void repair_block(struct grp *g, const struct vol_ino *ino, uint64_t off, void (*done)(void *ctx, int err),
		  void *ctx)
{
	struct vol *v = g->v;
	struct repair *r;
	uint32_t bad = 0;
	uint64_t start = off / REPAIR_LEN * REPAIR_LEN;

	if (v->b->repairs >= REPAIRS_MAX) {
		if (done)
			done(ctx, -EAGAIN);
		return;
	}
	v->b->repairs++;
	v->b->n.bad_blocks++;
	r = xcalloc(1, sizeof(*r));
	*r = (struct repair){.v = v, .group = g->idx, .serial = g->serial, .done = done, .ctx = ctx};
	r->range = (struct pull_range){.ino = *ino, .off = start, .len = REPAIR_LEN};
	v->refs++;
	replica_verify(g->replica, ino, start, REPAIR_LEN, &bad); /* those that are bad become known as bad */
	if (bad == 0) {
		finish(r, 0);
		return;
	}
	log_warn("volume %s, group %u: %u bad blocks near offset %llu of a file: fetched from others",
		 v->name, g->idx, bad, (unsigned long long)off);
	next_member(r);
}

int repair_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why)
{
	struct side *side = c->owner;
	struct vol *v = vol_by_tag(side->b, h->volume);
	struct grp *g = v && v->open && h->group < v->doc.map->n_groups ? v->grp[h->group] : NULL;
	struct proto_bad bad;

	if (proto_bad_decode(body, h->body_len, &bad) < 0) {
		*why = "a malformed report of a bad block";
		return -EBADMSG;
	}
	if (g && repl_role(g->repl) >= REPL_BACKUP && bad.member == g->self)
		repair_block(g, &bad.ino, bad.off, NULL, NULL);
	return 0;
}

/* ---- scrub ---- */

void scrub_start(struct vol *v)
{
	if (!v->scrub)
		v->scrub = xcalloc(1, sizeof(*v->scrub));
	if (v->scrub->running)
		return;
	*v->scrub = (struct scrub){.running = true, .start_ms = clock_ms(), .look_ms = v->scrub->look_ms};
	log_info("volume %s: scrub begins", v->name);
}

void scrub_done(struct vol *v)
{
	free(v->scrub);
	v->scrub = NULL;
}

static void scrub_end(struct vol *v)
{
	struct scrub *s = v->scrub;

	s->running = false;
	s->end_ms = clock_ms();
	log_info("volume %s: scrub of %llu stripes: %llu bad blocks", v->name, (unsigned long long)s->stripes,
		 (unsigned long long)s->bad);
}

static void scrub_step(struct vol *v)
{
	struct scrub *s = v->scrub;
	uint32_t size = v->doc.map->stripe_size, done = 0;

	while (s->running && done < SCRUB_BYTES / 1000 * TICK_MS) {
		struct grp *g = s->group < v->doc.map->n_groups ? v->grp[s->group] : NULL;
		uint32_t bad = 0;
		bool there;
		int r;

		if (s->group >= v->doc.map->n_groups) {
			scrub_end(v);
			return;
		}
		there = g && repl_role(g->repl) >= REPL_BACKUP;
		if (!s->entered)
			s->fork = there ? g->view.fork : UINT64_MAX;
		s->entered = true;
		r = there ? replica_stripe_next(g->replica, &s->ino, &s->off) : -ENOENT;
		if (r < 0) {
			if (there && r == -ENOENT && g->doubt)
				g->scrubbed = s->fork == g->view.fork;
			s->group++;
			s->entered = false;
			s->ino = (struct vol_ino){0};
			s->off = 0;
			continue;
		}
		r = bstore_look(v->store, s->group, &s->ino);
		if (r == 0)
			r = replica_verify(g->replica, &s->ino, s->off, size, &bad);
		if (r < 0 && !s->unreadable++)
			log_error("volume %s, group %u: a scrub cannot read a file: %s", v->name, s->group,
				  strerror(-r));
		s->off += size;
		s->stripes++;
		v->b->n.scrubbed++;
		done += size;
		s->bad += bad;
	}
}

/* Blocks that are known as bad: repaired, as many as may be at once. */
static void repair_known(struct vol *v)
{
	struct pull_range ranges[PULL_RANGES_MAX];

	for (uint32_t i = 0; i < v->doc.map->n_groups; i++) {
		struct grp *g = v->grp[i];
		struct vol_ino ino = {0};
		uint64_t off = 0;
		bool none = true;
		size_t n = 1;
		int r = 0;

		if (!g || (repl_role(g->repl) != REPL_PRIMARY && repl_role(g->repl) != REPL_BACKUP))
			continue;
		while (n > 0 && v->b->repairs < REPAIRS_MAX / 2) { /* one turn a stripe */
			r = replica_bad_next(g->replica, &ino, &off, ranges, &n);
			if (r < 0)
				break;
			none = none && n == 0;
			for (size_t k = 0; k < n && v->b->repairs < REPAIRS_MAX / 2; k++)
				for (uint64_t at = ranges[k].off / REPAIR_LEN * REPAIR_LEN;
				     at < ranges[k].off + ranges[k].len; at += REPAIR_LEN)
					repair_block(g, &ranges[k].ino, at, NULL, NULL);
		}
		if (r == 0 && n == 0 && none && g->scrubbed)
			g->doubt = g->scrubbed = false;
	}
}

void repair_fork(struct grp *g)
{
	g->doubt = true;
	g->scrubbed = false;
}

/* Is there data here to look at since all lost power? */
static bool in_doubt(const struct vol *v)
{
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
		if (v->grp[i] && v->grp[i]->doubt && !v->grp[i]->scrubbed &&
		    repl_role(v->grp[i]->repl) >= REPL_BACKUP)
			return true;
	return false;
}

/* Data files that records left which were lost, or cut. A few a tick, of one group after the other. */
static void strays_step(struct vol *v)
{
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++) {
		struct grp *g = v->grp[i];
		enum repl_role role = g ? repl_role(g->repl) : REPL_OUT;
		uint64_t removed;
		int r;

		if (!g || !g->strays || (role != REPL_PRIMARY && role != REPL_BACKUP))
			continue;
		r = bstore_strays(v->store, i, STRAYS_A_TICK, &removed);
		if (removed > 0)
			log_info("volume %s, group %u: %llu files removed that no record speaks of", v->name,
				 i, (unsigned long long)removed);
		if (r < 0)
			log_warn("volume %s, group %u: its data files cannot be looked through: %s", v->name,
				 i, strerror(-r));
		g->strays = r > 0;
		return;
	}
}

void scrub_tick(struct vol *v, uint64_t now)
{
	struct scrub *s = v->scrub;

	if (!s) {
		s = v->scrub = xcalloc(1, sizeof(*s));
		s->end_ms = now;
	}
	if (now >= s->look_ms) {
		s->look_ms = now + BAD_LOOK_MS;
		repair_known(v);
		if (!s->running && in_doubt(v))
			scrub_start(v);
	}
	strays_step(v);
	if (s->running) {
		/* a pause while clients are active: one tick of eight */
		if (uv_now(v->b->loop) - v->client_op_ms > 100 || v->b->ticks % 8 == 0)
			scrub_step(v);
	} else if (v->b->s.scrub_ms > 0 && now - s->end_ms > (uint64_t)v->b->s.scrub_ms) {
		scrub_start(v);
	}
}

void scrub_status(const struct vol *v, json_t *into)
{
	const struct scrub *s = v->scrub;

	if (!s)
		return;
	json_object_set_new(into, "running", json_boolean(s->running));
	json_object_set_new(into, "stripes", json_integer((json_int_t)s->stripes));
	json_object_set_new(into, "bad_blocks", json_integer((json_int_t)s->bad));
}
