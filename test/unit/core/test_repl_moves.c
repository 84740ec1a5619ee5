/* SPDX-License-Identifier: Apache-2.0 */
/* repl with groups that move, in bad weather: six bricks, a group of three members whose place the map changes again and again, while bricks crash, messages get lost and the
 * store is away or swaps without an answer. Whoever is dropped forgets all. What was committed once is in the log of every later primary, and in the end the members are
 * the map's, in sync and alike. (The simulator's groups do not move.) */
#include "test.h"

#include "core/repl/repl.h"

#define BRICKS	6
#define GROUP	1
#define LOG_MAX 8192
#define Q_MAX	16384
#define SEEDS	40

struct world;
struct node {
	struct world *w;
	uint16_t id;
	struct repl *r; /* NULL: down, or no member */
	bool crashed, sure;
	struct record *log[LOG_MAX]; /* [seq] */
	uint64_t len, committed, life;
	struct repl_pos live_pos;
	bool cas_due, sync_due, pull_due;
	uint64_t cas_expect, sync_seq, pull_since;
	struct repl_view cas_next;
};

struct world {
	struct node b[BRICKS];
	struct repl_view view;
	struct vol_map *map;
	struct repl_msg q[Q_MAX];
	size_t head, tail;
	uint64_t now, rng, n_truth, moves, crashes;
	struct record *truth[LOG_MAX]; /* committed at a primary */
	bool calm, etcd_away;
};

static uint32_t rnd(struct world *w, uint32_t n)
{
	w->rng = w->rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(w->rng >> 33) % n;
}

static void send_(void *ctx, const struct repl_msg *m)
{
	struct world *w = ((struct node *)ctx)->w;

	assert_true(w->tail - w->head < Q_MAX);
	w->q[w->tail++ % Q_MAX] = *m;
	record_ref(m->record);
}

static int append_(void *ctx, struct record *rec, bool live)
{
	struct node *me = ctx;

	assert_true(rec->seq < LOG_MAX);
	assert_true(live || rec->seq == me->len + 1);
	record_unref(me->log[rec->seq]);
	me->log[rec->seq] = record_ref(rec);
	if (live)
		me->live_pos = (struct repl_pos){rec->epoch, rec->seq};
	else
		me->len = rec->seq;
	return 0;
}

/* What a primary says is committed is what was committed before, and more. */
static void committed_(void *ctx, uint64_t seq)
{
	struct node *me = ctx;
	struct world *w = me->w;

	me->committed = MAX(me->committed, seq);
	if (repl_role(me->r) < REPL_PROMOTING)
		return;
	assert_true(seq <= me->len);
	for (uint64_t k = 1; k <= MIN(seq, w->n_truth); k++)
		if (me->log[k] != w->truth[k])
			fail_msg("record %llu was committed and is another one now", (unsigned long long)k);
	for (; w->n_truth < seq; w->n_truth++)
		w->truth[w->n_truth + 1] = record_ref(me->log[w->n_truth + 1]);
}

static void rollback_(void *ctx, struct repl_pos pos, struct repl_pos *ret)
{
	struct node *me = ctx;

	for (; me->len > pos.seq; me->len--)
		me->log[me->len] = record_unref(me->log[me->len]);
	*ret = (struct repl_pos){me->len ? me->log[me->len]->epoch : 0, me->len};
}

static void sync_(void *ctx, uint64_t seq)
{
	struct node *me = ctx;

	me->sync_due = true;
	me->sync_seq = seq;
}

static void synced_(void *ctx, uint64_t cookie, int err)
{
}

static void propose_(void *ctx, uint64_t expect, const struct repl_view *next)
{
	struct node *me = ctx;

	me->cas_due = true;
	me->cas_expect = expect;
	me->cas_next = *next;
}

static void pull_(void *ctx, uint64_t since, uint8_t sources)
{
	struct node *me = ctx;

	me->pull_due = true;
	me->pull_since = since;
}

static void changed_(void *ctx, enum repl_role role, const struct repl_view *view)
{
}

static struct record *fetch_(void *ctx, uint64_t seq)
{
	struct node *me = ctx;

	return rnd(me->w, 10) == 0 ? NULL : record_ref(me->log[seq]);
}

static void sure_(void *ctx, bool sure)
{
	((struct node *)ctx)->sure = sure;
}

static const struct repl_io io = {send_,    append_, committed_, rollback_, sync_, synced_,
				  propose_, pull_,   changed_,	 fetch_,    sure_};

static void up(struct world *w, struct node *b)
{
	struct repl_config c;
	int slot = repl_view_slot(w->map, GROUP, &w->view, b->id);

	if (b->r || b->crashed || slot < 0)
		return;
	repl_config_default(&c);
	c.group = GROUP;
	c.self = (uint8_t)slot;
	c.n = VOL_MEMBERS_MAX;
	c.brick = b->id;
	c.life = ++b->life;
	c.handback_ms = 1000;
	b->r = repl_new(&c, &io, b);
	b->live_pos = (struct repl_pos){0};
	repl_plan(b->r, w->map, true);
	repl_start(b->r, (struct repl_pos){b->len ? b->log[b->len]->epoch : 0, b->len},
		   MIN(b->committed, b->len), b->sure, w->now);
	repl_on_view(b->r, &w->view, w->now);
}

static void forget(struct node *b)
{
	for (int k = 0; k < LOG_MAX; k++)
		b->log[k] = record_unref(b->log[k]);
	b->len = b->committed = 0;
	b->sure = false;
}

static void down(struct node *b)
{
	/* what came out of order is no part of the log */
	for (uint64_t k = b->len + 1; k < LOG_MAX; k++)
		b->log[k] = record_unref(b->log[k]);
	b->r = repl_free(b->r);
	b->cas_due = b->sync_due = b->pull_due = false;
}

/* As a brick does: it is a member by the store's view or it has nothing. */
static void follow(struct world *w)
{
	for (int i = 0; i < BRICKS; i++) {
		struct node *b = &w->b[i];

		if (b->r && repl_gone(b->r)) {
			down(b);
			forget(b);
		} else if (!b->r && !b->crashed && repl_view_slot(w->map, GROUP, &w->view, b->id) < 0) {
			forget(b);
		}
		up(w, b);
	}
}

/* ---- the world's turn ---- */

static void deliver(struct world *w, const struct repl_msg *m)
{
	struct node *to = &w->b[m->view.brick[m->to]];

	if (!to->r || (!w->calm && rnd(w, 40) == 0))
		return;
	if (repl_view_slot(w->map, GROUP, &w->view, to->id) != m->to) /* the shell knows which slot it has */
		return;
	repl_on_msg(to->r, m, w->now);
}

static void cas(struct world *w, struct node *b)
{
	bool silent = !w->calm && rnd(w, 20) == 0, ok = w->view.epoch == b->cas_expect && !w->etcd_away;

	b->cas_due = false;
	if (ok) {
		for (int i = 0; i < VOL_MEMBERS_MAX; i++)
			w->moves += (b->cas_next.members >> i & 1) && !(w->view.members >> i & 1);
		if (w->view.members & (uint8_t)~b->cas_next.members) /* dropped: its successor is there */
			assert_true(repl_copies(&b->cas_next, b->cas_next.isr) >=
				    MIN(repl_copies(&w->view, w->view.isr), 3u));
		assert_true(__builtin_popcount(b->cas_next.members) <= 4);
		w->view = b->cas_next;
	}
	if (silent || w->etcd_away)
		repl_on_cas(b->r, -ETIMEDOUT, NULL, w->now);
	else
		repl_on_cas(b->r, ok ? 0 : -EEXIST, &w->view, w->now);
}

static void pull(struct world *w, struct node *b)
{
	struct node *s = NULL;
	struct repl_view v, mine;
	uint64_t end;

	b->pull_due = false;
	repl_get_view(b->r, &mine);
	for (int i = 0; i < BRICKS; i++)
		if (w->b[i].r && repl_role(w->b[i].r) == REPL_PRIMARY) {
			repl_get_view(w->b[i].r, &v);
			if (v.epoch == mine.epoch && repl_is_primary(w->b[i].r, w->now))
				s = &w->b[i];
		}
	if (!s || (!w->calm && rnd(w, 4) == 0)) {
		repl_on_delta(b->r, -EIO, (struct repl_pos){0}, w->now);
		return;
	}
	end = MAX(b->live_pos.seq, repl_committed(s->r));
	if (end > s->len)
		end = s->len;
	for (uint64_t k = b->pull_since + 1; k <= end; k++) {
		record_unref(b->log[k]);
		b->log[k] = record_ref(s->log[k]);
	}
	b->len = end;
	repl_on_delta(b->r, 0, (struct repl_pos){b->log[end]->epoch, end}, w->now);
}

static bool serve(struct world *w)
{
	bool more = w->head < w->tail;

	if (more) {
		struct repl_msg m = w->q[w->head++ % Q_MAX];

		deliver(w, &m);
		record_unref(m.record);
	}
	for (int i = 0; i < BRICKS; i++) {
		struct node *b = &w->b[i];

		if (b->r && b->cas_due)
			cas(w, b), more = true;
		if (b->r && b->sync_due) {
			b->sync_due = false;
			repl_on_local_sync(b->r, b->sync_seq, 0, w->now);
			more = true;
		}
		if (b->r && b->pull_due && (w->head == w->tail || rnd(w, 8) == 0))
			pull(w, b), more = true;
	}
	return more;
}

static void turn(struct world *w)
{
	w->now += 10;
	for (int i = 0; i < BRICKS; i++) {
		struct node *b = &w->b[i];
		struct record *rec;

		if (!b->r)
			continue;
		if (!w->etcd_away && rnd(w, 5) == 0)
			repl_on_view(b->r, &w->view, w->now);
		repl_tick(b->r, w->now);
		if (repl_role(b->r) != REPL_PRIMARY || repl_pos(b->r).seq > LOG_MAX - 200)
			continue;
		rec = record_new(GROUP);
		assert_int_equal(record_put(rec, "Ex", 2, &w->now, 8), 0);
		(void)repl_submit(b->r, rec, w->now);
		record_unref(rec);
	}
	for (int n = 0; serve(w); n++)
		assert_true(n < 100000);
	follow(w);
}

/* ---- what happens ---- */

static void new_place(struct world *w)
{
	struct vol_group *g = &w->map->group[GROUP];
	uint16_t at = (uint16_t)rnd(w, 3), to = (uint16_t)rnd(w, BRICKS);

	for (int i = 0; i < 3; i++)
		if (g->brick[i] == to)
			return;
	g->brick[at] = to;
}

static void fault(struct world *w)
{
	struct node *b = &w->b[rnd(w, BRICKS)];
	int gone = 0;

	for (int i = 0; i < BRICKS; i++)
		gone += w->b[i].crashed;
	switch (rnd(w, 6)) {
	case 0:
	case 1:
		new_place(w);
		break;
	case 2:
		if (gone < 2 && b->r) {
			down(b);
			b->crashed = true;
			w->crashes++;
		}
		break;
	case 3:
	case 4:
		b->crashed = false;
		break;
	default:
		w->etcd_away = !w->etcd_away && rnd(w, 3) == 0;
	}
}

static bool settled(const struct world *w)
{
	if (w->view.isr != w->view.members || w->view.joining)
		return false;
	for (int j = 0; j < 3; j++)
		if (repl_view_slot(w->map, GROUP, &w->view, w->map->group[GROUP].brick[j]) < 0)
			return false;
	return __builtin_popcount(w->view.members) == 3;
}

static void check_end(struct world *w)
{
	for (int j = 0; j < 3; j++) {
		struct node *b = &w->b[w->map->group[GROUP].brick[j]];

		assert_non_null(b->r);
		assert_true(b->len >= w->n_truth);
		for (uint64_t k = 1; k <= w->n_truth; k++)
			assert_ptr_equal(b->log[k], w->truth[k]);
	}
}

static struct world *world_new(uint64_t seed)
{
	static const struct vol_id uuid = {{9}};
	struct world *w = calloc(1, sizeof(*w));
	struct vol_brick b[BRICKS] = {0};

	for (uint16_t i = 0; i < BRICKS; i++) {
		b[i].weight = 100;
		snprintf(b[i].name, sizeof(b[i].name), "%c1", 'a' + i);
		snprintf(b[i].domain, sizeof(b[i].domain), "%c", 'a' + i);
		strcpy(b[i].address, "127.0.0.1:1");
		strcpy(b[i].path, "/brick");
		w->b[i].w = w;
		w->b[i].id = i;
	}
	assert_int_equal(vol_map_make("logs", &uuid, 3, 1, b, BRICKS, 2, false, &w->map, NULL), 0);
	w->rng = seed * 7919;
	w->now = 1000;
	w->view.isr = 7;
	repl_view_fill(w->map, GROUP, &w->view);
	follow(w);
	return w;
}

static void world_free(struct world *w)
{
	for (; w->head < w->tail; w->head++)
		record_unref(w->q[w->head % Q_MAX].record);
	for (int i = 0; i < BRICKS; i++) {
		w->b[i].r = repl_free(w->b[i].r);
		forget(&w->b[i]);
	}
	for (int k = 0; k < LOG_MAX; k++)
		record_unref(w->truth[k]);
	vol_map_free(w->map);
	free(w);
}

static void bad_weather(void **state)
{
	uint64_t moves = 0, crashes = 0, records = 0;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world *w = world_new(seed);
		int t = 0;

		while (t++ < 2000) {
			turn(w);
			if (t > 50 && rnd(w, 25) == 0)
				fault(w);
		}
		w->calm = true;
		w->etcd_away = false;
		for (int i = 0; i < BRICKS; i++)
			w->b[i].crashed = false;
		for (t = 0; t < 3000 && !settled(w); t++)
			turn(w);
		if (!settled(w))
			fail_msg("seed %llu: members %x, in sync %x, primary %u, joining %u",
				 (unsigned long long)seed, w->view.members, w->view.isr, w->view.primary,
				 w->view.joining);
		for (t = 0; t < 50; t++)
			turn(w);
		check_end(w);
		moves += w->moves;
		crashes += w->crashes;
		records += w->n_truth;
		world_free(w);
	}
	print_message("%llu members added, %llu crashes, %llu records committed\n", (unsigned long long)moves,
		      (unsigned long long)crashes, (unsigned long long)records);
	assert_true(moves > 5 * SEEDS && crashes > SEEDS && records > 200 * SEEDS);
}

TEST_MAIN(cmocka_unit_test(bad_weather))
