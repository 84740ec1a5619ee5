/* SPDX-License-Identifier: Apache-2.0 */
/* heal: a member that was away, or has an empty disk, is brought up to date. core/repl asks for it (io->pull); live records come at the same time
 * and win. The keys that changed come from the primary, page by page; ranges of data that differ from all in-sync members in turn.
 *
 *   heal_start -> replica_delta_begin, connections to the sources
 *   DELTA pages -> replica_delta_apply -> ranges to fetch -> FETCH (window) -> replica_pull_data
 *   end of the walk, nothing in flight, nothing bad -> replica_delta_end (-EAGAIN: walk on) -> bstore_settle -> repl_on_delta
 *
 * Heal yields: the window of fetches in flight, over all groups of the brick, is 4 while clients' records came in the last 100 ms, else `heal-window`.
 * Failure: a source that answers wrongly or not at all is left out for a moment; without the primary for 3 s, or after FAILS_MAX failed fetches in a row, the
 * pull ends with an error and core/repl begins again (what came stays useful). Bounds: QUEUE_MAX ranges, PULLS_MAX groups at once. */
#include "volume/brick/internal.h"

#define QUEUE_MAX   4096u
#define QUEUE_LOW   512u
#define PULLS_MAX   4
#define PAGE_BYTES  (256u << 10)
#define FAILS_MAX   64
#define WINDOW_BUSY 4
#define BUSY_MS	    100
#define SOURCE_MS   3000
#define REDIAL_MS   200

struct pull_source {
	struct pull *p;
	uint8_t member;
	struct peer *peer; /* c is to */
	struct conn *c;
	bool ready;
	uint64_t redial_ms;
};

struct pull {
	struct grp *g;
	uint64_t id, epoch, since, start_ms, primary_ms, wait_ms;
	uint8_t sources;
	struct pull_source src[VOL_MEMBERS_MAX];
	bool active, asking, first, walked, full, settling;
	struct delta_cursor cursor;
	uint64_t end_epoch, end_seq, source_seq;
	struct pull_range *queue;
	uint32_t head, n, in_flight, fails, turn;
	uint64_t keys, bytes, bytes_queued;
};

/* What an answer needs to find its pull again. */
struct fetch {
	struct vol *v;
	uint32_t group;
	uint64_t serial, id;
	struct pull_range range;
};

static void pump(struct pull *p);

static struct pull *pull_of(const struct fetch *f)
{
	struct grp *g = f->v->open && !f->v->closing ? f->v->grp[f->group] : NULL;

	return g && g->serial == f->serial && g->pull && g->pull->id == f->id ? g->pull : NULL;
}

static struct fetch *fetch_new(struct pull *p)
{
	struct fetch *f = xcalloc(1, sizeof(*f));

	*f = (struct fetch){.v = p->g->v, .group = p->g->idx, .serial = p->g->serial, .id = p->id};
	f->v->refs++;
	return f;
}

static void fetch_free(struct fetch *f)
{
	vol_unref(f->v);
	free(f);
}

/* ---- life ---- */

void heal_stop(struct grp *g)
{
	struct pull *p = g->pull;

	if (!p)
		return;
	g->pull = NULL;
	for (uint8_t i = 0; i < g->n; i++)
		if (p->src[i].c) {
			struct side *side = p->src[i].c->owner;

			side->source = NULL;
			bconn_close(p->src[i].c, -ECANCELED, NULL);
		}
	g->v->b->pulls_in_flight -= p->in_flight;
	g->v->b->pulls -= p->active;
	free(p->queue);
	free(p);
}

static void finish(struct pull *p, int err)
{
	struct grp *g = p->g;
	struct repl_pos at = {g->replica->epoch, g->replica->seq};

	log_info("volume %s, group %u: %s after %llu ms: %llu keys, %llu KiB", g->v->name, g->idx,
		 err < 0 ? "catching up failed" : "caught up", (unsigned long long)(clock_ms() - p->start_ms),
		 (unsigned long long)p->keys, (unsigned long long)p->bytes >> 10);
	g->v->b->n.heal_done += err == 0;
	heal_stop(g);
	repl_on_delta(g->repl, err, at, clock_ms());
	grp_mark(g);
}

void heal_start(struct grp *g, uint64_t since, uint8_t sources)
{
	struct pull *p;
	struct repl_view view;
	uint64_t from = 0;
	int r;

	heal_stop(g);
	repl_get_view(g->repl, &view);
	p = g->pull = xcalloc(1, sizeof(*p));
	p->g = g;
	p->id = ++g->v->b->next_serial;
	p->epoch = view.epoch;
	p->start_ms = p->primary_ms = clock_ms();
	p->sources = sources;
	p->first = true;
	p->queue = xcalloc(QUEUE_MAX, sizeof(*p->queue));
	for (uint8_t i = 0; i < g->n; i++) {
		p->src[i].p = p;
		p->src[i].member = i;
	}
	r = replica_delta_begin(g->replica, g->pull_epoch == view.epoch, &from);
	if (r == 0 && since == 0 && from > 0) {
		from = 0;
		r = replica_delta_wipe(g->replica);
	}
	g->pull_epoch = view.epoch;
	p->since = from;
	p->full = from == 0;
	bstore_mark_dirty(g->v->store);
	if (r < 0) {
		log_error("volume %s, group %u: catching up cannot begin: %s", g->v->name, g->idx,
			  strerror(-r));
		p->fails = FAILS_MAX; /* told to the core by the tick: not from inside its call */
	}
	log_info("volume %s, group %u: catching up from record %llu", g->v->name, g->idx,
		 (unsigned long long)from);
}

/* ---- sources ---- */

static void dial(struct pull *p, struct pull_source *s, uint64_t now)
{
	struct grp *g = p->g;
	struct brick *b = g->v->b;
	struct side *side = xcalloc(1, sizeof(*side));
	struct err e = {0};

	side->b = b;
	side->source = s;
	s->redial_ms = now + REDIAL_MS;
	s->peer = g->member[s->member];
	s->c = engine_dial(b->engine, peer_address(g->member[s->member]), side, &e);
	if (!s->c)
		free(side);
}

int heal_hello(struct conn *c)
{
	struct side *side = c->owner;
	struct pull_source *s = side->source;

	c->out_limit = 16u << 20;
	s->ready = true;
	pump(s->p);
	return 0;
}

void heal_conn_closed(struct conn *c)
{
	struct side *side = c->owner;

	side->source->ready = false;
	side->source->c = NULL;
	side->source = NULL;
}

static struct pull_source *primary_source(struct pull *p)
{
	struct repl_view view;

	repl_get_view(p->g->repl, &view);
	return view.primary < p->g->n && p->src[view.primary].ready ? &p->src[view.primary] : NULL;
}

static struct pull_source *next_source(struct pull *p)
{
	for (uint8_t i = 0; i < p->g->n; i++) {
		struct pull_source *s = &p->src[++p->turn % p->g->n];

		if (s->ready)
			return s;
	}
	return NULL;
}

/* Of the epoch of now: it may rise while a member catches up. */
static struct proto_head question(const struct pull *p, enum frame_type type)
{
	struct repl_view view;

	repl_get_view(p->g->repl, &view);
	return (struct proto_head){
		.type = type, .volume = p->g->v->tag, .group = p->g->idx, .epoch = view.epoch};
}

/* ---- data ---- */

static void enqueue(struct pull *p, const struct pull_range *range)
{
	ensure(p->n < QUEUE_MAX);
	p->queue[(p->head + p->n++) % QUEUE_MAX] = *range;
	p->bytes_queued += range->len;
}

static int fetched(struct pull *p, const struct fetch *f, int err, const struct proto_head *h,
		   const uint8_t *body, struct payload *payload)
{
	struct replica *r = p->g->replica;
	uint32_t n = f->range.len / VOL_BLOCK;
	_cleanup_free_ uint32_t *crcs = malloc(n * sizeof(*crcs));
	uint64_t source_seq = 0;

	if (!crcs)
		err = -ENOMEM;
	if (err == 0 && (!payload || payload->len != f->range.len ||
			 payload_sum(payload, f->range.off) != h->payload_crc))
		err = -EBADMSG;
	if (err == 0)
		err = proto_fetched_decode(body, h->body_len, n, &source_seq, crcs);
	if (err < 0) {
		replica_pull_data(r, &f->range, 0, NULL, NULL, 0);
		return err;
	}
	err = replica_pull_data(r, &f->range, source_seq, crcs, payload->data, f->range.len);
	bstore_mark_dirty(p->g->v->store);
	return err;
}

static void on_fetched(void *ctx, int err, const struct proto_head *h, const uint8_t *body,
		       struct payload *payload)
{
	struct fetch *f = ctx;
	struct pull *p = pull_of(f);

	if (p) {
		p->in_flight--;
		p->g->v->b->pulls_in_flight--;
		err = fetched(p, f, err, h, body, payload);
		if (err == 0) {
			p->bytes += f->range.len;
			p->g->v->b->n.heal_bytes += f->range.len;
			p->fails = 0;
		} else {
			if (err != -EAGAIN)
				p->fails++;
			p->wait_ms = clock_ms() + 5;
			enqueue(p, &f->range);
		}
		pump(p);
	}
	fetch_free(f);
}

static bool send_fetch(struct pull *p)
{
	struct pull_source *s = next_source(p);
	_cleanup_buf_ struct buf body = {0};
	struct proto_head h = question(p, FRAME_FETCH);
	struct pull_range range;
	struct fetch *f;
	int r;

	if (!s)
		return false;
	range = p->queue[p->head % QUEUE_MAX];
	p->head = (p->head + 1) % QUEUE_MAX;
	p->n--;
	p->bytes_queued -= range.len;
	r = replica_pull_begin(p->g->replica, &range);
	if (r == -EBUSY)
		return true;
	if (r < 0) {
		p->fails++;
		enqueue(p, &range);
		return false;
	}
	f = fetch_new(p);
	f->range = range;
	proto_fetch_encode(&range, &body);
	p->in_flight++;
	p->g->v->b->pulls_in_flight++;
	ask_send(p->g->v->b, s->c, &h, body.data, body.len, on_fetched, f);
	return true;
}

/* ---- keys ---- */

static int apply_page(struct pull *p, const struct proto_head *h, const uint8_t *body)
{
	struct replica *r = p->g->replica;
	struct pull_range ranges[PULL_RANGES_MAX];
	struct delta_item item;
	struct proto_delta d;
	size_t at = 0;
	int err = proto_delta_decode(body, h->body_len, &at, &d);

	if (err < 0)
		return err;
	if (d.full && !p->full && p->first) { /* the source does not know any more what changed since */
		err = replica_delta_wipe(r);
		p->full = true;
	}
	p->first = false;
	while (err == 0 && (err = proto_item_decode(body, h->body_len, &at, &item)) == 0) {
		size_t n = 0;

		err = replica_delta_apply(r, &item, ranges, &n);
		p->keys++;
		p->g->v->b->n.heal_keys++;
		for (size_t i = 0; err == 0 && i < n; i++) {
			if (p->n == QUEUE_MAX) /* found again as bad at the end */
				break;
			enqueue(p, &ranges[i]);
		}
	}
	if (err != -ENOENT)
		return err;
	bstore_mark_dirty(p->g->v->store);
	p->cursor = d.cursor;
	p->source_seq = d.seq;
	p->end_epoch = d.epoch;
	p->end_seq = d.seq;
	p->walked = h->flags & FRAME_DONE;
	return 0;
}

static void on_page(void *ctx, int err, const struct proto_head *h, const uint8_t *body,
		    struct payload *payload)
{
	struct fetch *f = ctx;
	struct pull *p = pull_of(f);

	(void)payload;
	if (p) {
		p->asking = false;
		if (err == 0)
			err = apply_page(p, h, body);
		if (err < 0) {
			p->fails += err == -ERANGE ? FAILS_MAX : 1;
			if (err == -ERANGE) /* the source cannot go on from the cursor: everything anew */
				p->g->pull_epoch = 0;
			p->wait_ms = clock_ms() + 20;
		} else {
			p->fails = 0;
		}
		pump(p);
	}
	fetch_free(f);
}

static void ask_page(struct pull *p, struct pull_source *s)
{
	_cleanup_buf_ struct buf body = {0};
	struct proto_head h = question(p, FRAME_DELTA);
	struct proto_delta_ask ask = {.since = p->since, .first = p->first, .limit = PAGE_BYTES};

	if (!p->first)
		ask.cursor = p->cursor;
	proto_delta_ask_encode(&ask, &body);
	p->asking = true;
	ask_send(p->g->v->b, s->c, &h, body.data, body.len, on_page, fetch_new(p));
}

/* ---- the end ---- */

static void on_settled(void *ctx, int err)
{
	struct fetch *f = ctx;
	struct pull *p = pull_of(f);

	if (p)
		finish(p, err);
	fetch_free(f);
}

/* Blocks that are still bad: lost answers, or data that changed while it was fetched. */
static uint32_t enqueue_bad(struct pull *p)
{
	struct pull_range ranges[PULL_RANGES_MAX];
	struct vol_ino ino = {0};
	uint64_t off = 0;
	uint32_t all = 0;
	size_t n = 0;

	while (p->n + PULL_RANGES_MAX < QUEUE_LOW &&
	       replica_bad_next(p->g->replica, &ino, &off, ranges, &n) == 0 && n > 0) {
		for (size_t i = 0; i < n; i++)
			enqueue(p, &ranges[i]);
		all += (uint32_t)n;
	}
	return all;
}

static void try_end(struct pull *p)
{
	struct grp *g = p->g;
	int r;

	if (enqueue_bad(p) > 0) {
		p->fails++; /* data that no source has right must not keep us here for ever */
		p->wait_ms = clock_ms() + 5;
		return;
	}
	r = replica_delta_end(g->replica, p->full, p->end_epoch, p->end_seq);
	if (r == -EAGAIN) {
		p->walked = false;
		p->wait_ms = clock_ms() + 2;
		return;
	}
	if (r < 0) {
		log_warn("volume %s, group %u: catching up cannot end: %s", g->v->name, g->idx, strerror(-r));
		p->fails = FAILS_MAX;
		return;
	}
	p->settling = true;
	bstore_mark_dirty(g->v->store);
	bstore_settle(g->v->store, on_settled, fetch_new(p));
}

static uint32_t window(const struct pull *p)
{
	const struct vol *v = p->g->v;
	int64_t most = v->b->s.heal_window;

	if (uv_now(v->b->loop) - v->client_op_ms < BUSY_MS)
		return WINDOW_BUSY;
	(void)str_i64(vol_option(v, "heal-window", ""), &most);
	return (uint32_t)CLAMP(most, 1, 64);
}

static void pump(struct pull *p)
{
	struct brick *b = p->g->v->b;
	struct pull_source *primary = primary_source(p);

	if (p->settling || p->fails >= FAILS_MAX || clock_ms() < p->wait_ms)
		return;
	while (p->n > 0 && (b->pulls_in_flight < window(p) || p->in_flight == 0))
		if (!send_fetch(p))
			break;
	if (!p->asking && !p->walked && p->n < QUEUE_LOW && primary)
		ask_page(p, primary);
	if (p->walked && !p->asking && p->n == 0 && p->in_flight == 0)
		try_end(p);
}

void heals_tick(struct grp *g, uint64_t now)
{
	struct pull *p = g->pull;

	if (!p || p->settling)
		return;
	if (!p->active) {
		if (g->v->b->pulls >= PULLS_MAX && p->fails < FAILS_MAX)
			return;
		p->active = true;
		g->v->b->pulls++;
		p->primary_ms = now;
	}
	for (uint8_t i = 0; i < g->n; i++) {
		struct pull_source *s = &p->src[i];

		if (s->c && s->peer != g->member[i]) /* the slot's member is another one, or gone */
			bconn_close(s->c, -ECANCELED, NULL);
		if ((p->sources | g->view.isr) & 1u << i && g->member[i] && i != g->self && !s->c &&
		    now >= s->redial_ms)
			dial(p, s, now);
	}
	if (primary_source(p))
		p->primary_ms = now;
	if (p->fails >= FAILS_MAX || now - p->primary_ms > SOURCE_MS) {
		finish(p, -EIO);
		return;
	}
	pump(p);
}

void heal_status(const struct grp *g, json_t *into)
{
	const struct pull *p = g->pull;
	uint64_t ms, rate, keys;

	if (!p)
		return;
	ms = MAX(clock_ms() - p->start_ms, (uint64_t)1);
	rate = p->bytes * 1000 / ms;
	keys = p->walked || p->cursor.full || p->source_seq < p->cursor.seq ? 0
									    : p->source_seq - p->cursor.seq;
	json_object_set_new(into, "keys_left", json_integer((json_int_t)keys));
	json_object_set_new(into, "keys_done", json_integer((json_int_t)p->keys));
	json_object_set_new(into, "bytes_left", json_integer((json_int_t)p->bytes_queued));
	json_object_set_new(into, "bytes_done", json_integer((json_int_t)p->bytes));
	json_object_set_new(into, "bytes_per_s", json_integer((json_int_t)rate));
	json_object_set_new(into, "seconds_left",
			    json_integer(rate ? (json_int_t)(p->bytes_queued / rate) : 0));
}
