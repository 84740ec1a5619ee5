/* SPDX-License-Identifier: Apache-2.0 */
/* repl, in calm weather: three members in one process, messages in order, a store that answers at once. What happens under faults is for sim/. */
#include "test.h"

#include "core/repl/repl.h"

#define N	3
#define SLOTS	4 /* the most a world has */
#define LOG_MAX 4096
#define Q_MAX	8192

struct member {
	struct world *w;
	uint8_t id;
	bool up, sure;
	struct repl *r;
	struct record *log[LOG_MAX]; /* [seq] */
	uint64_t len, committed, life;
	struct repl_pos live;
	bool cas_due, sync_due, pull_due;
	uint64_t cas_expect, sync_seq;
	struct repl_view cas_next;
	uint64_t synced_cookie;
	int synced_err;
	bool no_fetch;
	unsigned pulls, rollbacks;
	bool lost;
};

struct world {
	struct member m[SLOTS];
	uint8_t n; /* slots; up() makes their members */
	const struct vol_map *map;
	struct repl_view view;
	struct repl_msg q[Q_MAX];
	size_t head, tail;
	uint64_t now;
	bool cut[SLOTS];  /* link of a member */
	bool deaf[SLOTS]; /* one direction of it */
	bool etcd_away, etcd_mute;
	bool ahead, disk_full; /* all records are sent before they are appended; member 0 cannot append */
};

static void send_(void *ctx, const struct repl_msg *m)
{
	struct member *me = ctx;
	struct world *w = me->w;

	assert_true(w->tail - w->head < Q_MAX);
	assert_true(!m->ahead || (m->record->seq == me->len + 1 && m->pos.seq == me->len));
	w->q[w->tail % Q_MAX] = *m;
	record_ref(m->record);
	w->tail++;
}

static int append_(void *ctx, struct record *rec, bool live)
{
	struct member *me = ctx;

	if (me->w->disk_full && me->id == 0)
		return -ENOSPC;
	assert_true(rec->seq < LOG_MAX);
	assert_true(live || rec->seq == me->len + 1);
	record_unref(me->log[rec->seq]);
	me->log[rec->seq] = record_ref(rec);
	if (live)
		me->live = (struct repl_pos){rec->epoch, rec->seq};
	else
		me->len = rec->seq;
	return 0;
}

static void committed_(void *ctx, uint64_t seq)
{
	struct member *me = ctx;

	assert_true(seq >= me->committed);
	me->committed = seq;
}

static void rollback_(void *ctx, struct repl_pos pos, struct repl_pos *ret)
{
	struct member *me = ctx;

	me->rollbacks++;
	if (pos.seq == 0 && me->w->view.fork > 0) /* it is compared as a whole */
		me->committed = 0;
	assert_true(pos.seq >= me->committed);
	for (; me->len > pos.seq; me->len--)
		me->log[me->len] = record_unref(me->log[me->len]);
	*ret = (struct repl_pos){me->len ? me->log[me->len]->epoch : 0, me->len};
}

static void sync_(void *ctx, uint64_t seq)
{
	struct member *me = ctx;

	me->sync_due = true;
	me->sync_seq = seq;
}

static void synced_(void *ctx, uint64_t cookie, int err)
{
	struct member *me = ctx;

	me->synced_cookie = cookie;
	me->synced_err = err;
}

static void propose_(void *ctx, uint64_t expect, const struct repl_view *next)
{
	struct member *me = ctx;

	assert_false(me->cas_due);
	me->cas_due = true;
	me->cas_expect = expect;
	me->cas_next = *next;
}

static void pull_(void *ctx, uint64_t since, uint8_t sources)
{
	struct member *me = ctx;

	me->pulls++;
	me->pull_due = true;
	assert_true(sources != 0 && since <= me->len);
}

static void changed_(void *ctx, enum repl_role role, const struct repl_view *view)
{
}

static struct record *fetch_(void *ctx, uint64_t seq)
{
	struct member *me = ctx;

	return me->no_fetch ? NULL : record_ref(me->log[seq]);
}

static void sure_(void *ctx, bool sure)
{
	struct member *me = ctx;

	me->sure = sure;
	me->lost = me->lost && !sure;
}

static const struct repl_io io = {send_,    append_, committed_, rollback_, sync_, synced_,
				  propose_, pull_,   changed_,	 fetch_,    sure_};

static void up(struct world *w, uint8_t i)
{
	struct member *m = &w->m[i];
	struct repl_config c;

	repl_config_default(&c);
	c.group = 1;
	c.self = i;
	c.n = w->n;
	c.brick = i;
	c.life = ++m->life;
	c.lost = m->lost;
	c.handback_ms = 2000;
	c.ahead_from = w->ahead ? 0 : UINT32_MAX;
	m->up = true;
	m->r = repl_new(&c, &io, m);
	repl_start(m->r, (struct repl_pos){m->len ? m->log[m->len]->epoch : 0, m->len}, m->committed, m->sure,
		   w->now);
	repl_plan(m->r, w->map, true);
	repl_on_view(m->r, &w->view, w->now);
}

static void down(struct world *w, uint8_t i)
{
	w->m[i].up = false;
	w->m[i].r = repl_free(w->m[i].r);
	w->m[i].cas_due = w->m[i].sync_due = w->m[i].pull_due = false;
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	w->now = 1000;
	w->n = N;
	for (uint8_t i = 0; i < SLOTS; i++) {
		w->m[i].w = w;
		w->m[i].id = i;
		if (i < N)
			up(w, i);
	}
	return w;
}

static void world_free(struct world *w)
{
	for (; w->head < w->tail; w->head++)
		record_unref(w->q[w->head % Q_MAX].record);
	for (int i = 0; i < SLOTS; i++) {
		repl_free(w->m[i].r);
		for (int k = 0; k < LOG_MAX; k++)
			record_unref(w->m[i].log[k]);
	}
	free(w);
}

static void cas(struct world *w, struct member *m)
{
	m->cas_due = false;
	if (w->etcd_away) {
		repl_on_cas(m->r, -ETIMEDOUT, NULL, w->now);
	} else if (w->view.epoch == m->cas_expect) {
		w->view = m->cas_next;
		repl_on_cas(m->r, 0, NULL, w->now);
	} else {
		repl_on_cas(m->r, -EEXIST, &w->view, w->now);
	}
}

/* A delta, as the replica would do it: everything the source has. */
static void pull(struct world *w, struct member *m)
{
	struct member *s = NULL;

	m->pull_due = false;
	for (int i = 0; i < SLOTS; i++)
		if (w->m[i].up && repl_role(w->m[i].r) == REPL_PRIMARY)
			s = &w->m[i];
	assert_non_null(s);
	for (uint64_t k = m->len + 1; k <= MAX(m->live.seq, repl_committed(s->r)); k++) {
		record_unref(m->log[k]);
		m->log[k] = record_ref(s->log[k]);
	}
	m->len = MAX(m->live.seq, repl_committed(s->r));
	repl_on_delta(m->r, 0, (struct repl_pos){m->log[m->len]->epoch, m->len}, w->now);
}

static void run(struct world *w, unsigned ms)
{
	for (uint64_t end = w->now + ms; w->now < end; w->now += 10) {
		for (int i = 0; i < SLOTS; i++)
			if (w->m[i].up)
				repl_tick(w->m[i].r, w->now);
		for (bool more = true; more;) {
			more = w->head < w->tail;
			if (more) {
				struct repl_msg msg = w->q[w->head++ % Q_MAX];

				if (w->m[msg.to].up && !w->cut[msg.to] && !w->cut[msg.from] &&
				    !w->deaf[msg.to])
					repl_on_msg(w->m[msg.to].r, &msg, w->now);
				record_unref(msg.record);
			}
			for (int i = 0; i < SLOTS; i++) {
				struct member *m = &w->m[i];

				if (m->up && m->cas_due && !w->etcd_mute)
					cas(w, m), more = true;
				if (m->up && m->sync_due) {
					m->sync_due = false;
					repl_on_local_sync(m->r, m->sync_seq, 0, w->now);
					more = true;
				}
				if (m->up && m->pull_due && w->head == w->tail)
					pull(w, m), more = true;
			}
		}
	}
}

static int submit(struct world *w, uint8_t i)
{
	struct record *rec = record_new(1);
	int err;

	assert_int_equal(record_put(rec, "Ex", 2, &w->now, 8), 0);
	err = repl_submit(w->m[i].r, rec, w->now);
	record_unref(rec);
	return err;
}

static void same_logs(struct world *w)
{
	for (int i = 1; i < N; i++) {
		assert_int_equal(w->m[i].len, w->m[0].len);
		assert_int_equal(w->m[i].committed, w->m[0].committed);
		for (uint64_t k = 1; k <= w->m[0].len; k++)
			assert_true(w->m[i].log[k] == w->m[0].log[k]);
	}
}

static void normal(void **state)
{
	struct world *w = world_new();
	uint64_t before;

	run(w, 300);
	assert_int_equal(w->view.epoch, 1);
	assert_int_equal(w->view.isr, 7);
	assert_int_equal(repl_role(w->m[0].r), REPL_PRIMARY);
	assert_true(repl_is_primary(w->m[0].r, w->now));
	before = w->m[0].committed;
	for (int i = 0; i < 100; i++)
		assert_int_equal(submit(w, 0), 0);
	assert_int_equal(submit(w, 1), -EAGAIN);
	assert_int_equal(repl_sync(w->m[0].r, 77, w->now), 0);
	run(w, 100);
	assert_int_equal(w->m[0].committed, before + 100);
	assert_int_equal(w->m[0].synced_cookie, 77);
	assert_int_equal(w->m[0].synced_err, 0);
	run(w, 100);
	same_logs(w);
	world_free(w);
}

/* The preferred primary is back and is to get its role, but the store does not answer: changes go on, in the old epoch; and in the new one when the swap turns out
 * to be in force. */
static void hand_over_without_store(void **state)
{
	struct world *w = world_new();
	uint64_t t, last, pause = 0, epoch;

	run(w, 300);
	down(w, 0);
	run(w, 1000);
	assert_true(repl_is_primary(w->m[1].r, w->now));
	up(w, 0);
	for (t = w->now; w->view.isr != 7; assert_true(w->now < t + 2000))
		run(w, 10);
	w->etcd_mute = true;
	epoch = w->view.epoch;
	for (t = last = w->now; w->now < t + 4000; run(w, 10)) { /* the hand-over is due in the middle */
		if (submit(w, 1) == 0)
			last = w->now;
		pause = MAX(pause, w->now - last);
		submit(w, 1);
	}
	assert_true(w->m[1].cas_due);
	assert_true(pause > 0 && pause <= 700);
	assert_true(repl_committed(w->m[1].r) + 10 > repl_pos(w->m[1].r).seq);
	assert_int_equal(w->view.epoch, epoch);
	assert_int_equal(submit(w, 1), 0);
	w->etcd_mute = false;
	for (t = w->now; !repl_is_primary(w->m[0].r, w->now); assert_true(w->now < t + 1000))
		run(w, 10);
	assert_int_equal(submit(w, 0), 0);
	run(w, 1000);
	assert_int_equal(w->view.isr, 7);
	same_logs(w);
	world_free(w);
}

static void primary_lost(void **state)
{
	struct world *w = world_new();
	uint64_t t, len;

	run(w, 300);
	submit(w, 0);
	run(w, 100);
	len = w->m[1].len;
	down(w, 0);
	for (t = w->now; !repl_is_primary(w->m[1].r, w->now); assert_true(w->now < t + 1000))
		run(w, 10);
	assert_int_equal(w->view.primary, 1);
	assert_int_equal(w->view.isr, 6);
	assert_true(w->m[1].len > len);
	assert_int_equal(submit(w, 1), 0);
	run(w, 50);
	/* It comes back with a record that nobody else has. */
	len = ++w->m[0].len;
	w->m[0].log[len] = record_new(1);
	w->m[0].log[len]->epoch = w->m[0].log[len]->prev_epoch = 1;
	w->m[0].log[len]->seq = len;
	w->m[0].sure = true;
	up(w, 0);
	run(w, 500);
	assert_int_equal(w->view.isr, 7);
	assert_int_equal(w->m[0].rollbacks, 1);
	assert_int_equal(w->m[0].pulls, 0); /* the records were still in memory */
	same_logs(w);
	/* The preferred primary gets its role back, once. */
	run(w, 3000);
	assert_int_equal(w->view.primary, 0);
	assert_true(repl_is_primary(w->m[0].r, w->now));
	assert_int_equal(submit(w, 0), 0);
	run(w, 100);
	same_logs(w);
	world_free(w);
}

static void backup_lost(void **state)
{
	struct world *w = world_new();
	uint64_t t, c;

	run(w, 300);
	down(w, 2);
	assert_int_equal(submit(w, 0), 0);
	c = w->m[0].committed;
	run(w, 50);
	assert_int_equal(w->m[0].committed, c); /* not without it */
	for (t = w->now; w->m[0].committed == c; assert_true(w->now < t + 800))
		run(w, 10);
	assert_int_equal(w->view.isr, 3);
	/* Below the write quorum: reads go on, writes do not. */
	down(w, 1);
	run(w, 1000);
	assert_int_equal(w->view.isr, 3); /* silent is not gone: the other one could take over, if it lives */
	run(w, 1000);
	assert_int_equal(w->view.isr, 1);
	assert_int_equal(submit(w, 0), -EROFS);
	assert_true(repl_may_read(w->m[0].r, w->now));
	/* Both come back, one of them must pull. */
	w->m[0].no_fetch = true;
	w->m[1].sure = w->m[2].sure = true;
	up(w, 1);
	up(w, 2);
	run(w, 1000);
	assert_int_equal(w->view.isr, 7);
	assert_true(w->m[2].pulls > 0);
	assert_int_equal(submit(w, 0), 0);
	run(w, 200);
	assert_int_equal(w->m[2].len, w->m[0].len);
	world_free(w);
}

/* Records that the others have before the primary: it cannot append one, or dies before it does. One of the others takes over and has it, once. */
static void sent_ahead(void **state)
{
	for (int dies = 0; dies < 2; dies++) {
		struct world *w = world_new();
		uint64_t len;

		w->ahead = true;
		for (uint8_t i = 0; i < N; i++) {
			down(w, i);
			up(w, i);
		}
		run(w, 300);
		for (int i = 0; i < 100; i++)
			assert_int_equal(submit(w, 0), 0);
		run(w, 100);
		same_logs(w);
		len = w->m[0].len;
		w->disk_full = true;
		assert_int_equal(submit(w, 0), -EIO);
		assert_int_equal(w->m[0].len, len);
		assert_int_equal(submit(w, 0), -EIO); /* no other record of that number */
		if (dies) {
			down(w, 0);
			w->m[0].sure = true;
		}
		run(w, 1000);
		assert_int_not_equal(w->view.primary, 0);
		assert_int_equal(w->view.isr, 6);
		assert_int_equal(w->m[1].log[len + 1]->epoch, 1);
		assert_true(w->m[1].log[len + 1] == w->m[2].log[len + 1]);
		assert_true(w->m[w->view.primary].committed > len + 1);
		w->disk_full = false;
		if (!dies)
			down(w, 0);
		w->m[0].sure = true;
		up(w, 0);
		run(w, 1000);
		assert_int_equal(w->view.isr, 7);
		same_logs(w);
		world_free(w);
	}
}

/* A primary that hears nobody, but is heard: it gets quiet, and the others take over. One whose connections broke does not wait. */
static void primary_deaf(void **state)
{
	struct world *w = world_new();

	run(w, 300);
	assert_int_equal(submit(w, 0), 0);
	run(w, 50);
	w->deaf[0] = true;
	run(w, 1200);
	assert_int_not_equal(w->view.primary, 0);
	assert_int_equal(w->view.isr, 6);
	assert_int_equal(submit(w, w->view.primary), 0);
	run(w, 100);
	assert_true(w->m[w->view.primary].committed >= 2);
	w->deaf[0] = false;
	run(w, 5000);
	assert_int_equal(w->view.isr, 7);
	same_logs(w);
	while (w->view.primary != 0)
		run(w, 100);
	down(w, 1);
	down(w, 2);
	repl_on_peer_down(w->m[0].r, 1, w->now);
	repl_on_peer_down(w->m[0].r, 2, w->now);
	run(w, 100);
	assert_int_equal(w->view.isr, 1);
	world_free(w);
}

static void etcd_away(void **state)
{
	struct world *w = world_new();
	uint64_t c;

	run(w, 300);
	w->etcd_away = true;
	assert_int_equal(submit(w, 0), 0);
	run(w, 100);
	c = w->m[0].committed;
	down(w, 0);
	run(w, 2000);
	assert_int_equal(w->view.epoch, 1);
	assert_false(repl_is_primary(w->m[1].r, w->now) || repl_is_primary(w->m[2].r, w->now));
	w->etcd_away = false;
	run(w, 2000);
	assert_true(repl_is_primary(w->m[1].r, w->now));
	assert_true(w->m[1].committed > c);
	world_free(w);
}

static void all_unsure(void **state)
{
	struct world *w = world_new();

	run(w, 300);
	for (int i = 0; i < 10; i++)
		submit(w, 0);
	run(w, 100);
	for (uint8_t i = 0; i < N; i++)
		down(w, i);
	/* Power loss: 0 and 2 lose the end of their logs. */
	for (int i = 0; i < 2; i++) {
		struct member *m = &w->m[2 * i];

		for (int k = 0; k < 2 + i; k++)
			m->log[m->len] = record_unref(m->log[m->len]), m->len--;
		m->committed = MIN(m->committed, m->len);
	}
	for (uint8_t i = 0; i < N; i++) {
		w->m[i].sure = false;
		up(w, i);
	}
	run(w, 1500);
	assert_int_equal(w->view.primary, 1);
	assert_int_equal(w->view.isr, 7);
	assert_int_equal(w->view.fork, 2);
	same_logs(w);
	world_free(w);
}

static void empty(struct member *m)
{
	for (; m->len > 0; m->len--)
		m->log[m->len] = record_unref(m->log[m->len]);
	m->committed = 0;
	m->sure = false;
	m->lost = true;
}

/* All end in order, and the last one, alone in the set, comes back with a new disk. It must not lead, and cut off what the others have; the newest of them does. */
static void set_lost(void **state)
{
	struct world *w = world_new();
	uint64_t had;

	run(w, 300);
	for (int i = 0; i < 10; i++)
		submit(w, 0);
	run(w, 100);
	down(w, 0);
	run(w, 1500);
	assert_int_equal(w->view.isr, 6);
	for (int i = 0; i < 5; i++)
		submit(w, w->view.primary);
	run(w, 100);
	had = w->m[1].len;
	assert_true(had > w->m[0].len && had == w->m[2].len);
	down(w, 1);
	run(w, 1500);
	assert_int_equal(w->view.isr, 4);
	down(w, 2);
	empty(&w->m[2]);
	up(w, 2);
	run(w, 12000);
	assert_int_equal(w->view.isr, 4); /* it waits for somebody who has something */
	assert_int_equal(repl_role(w->m[2].r), REPL_OUT);
	up(w, 0);
	run(w, 12000);
	assert_int_equal(w->view.isr, 4); /* not enough: 1 may have what 0 has not */
	up(w, 1);
	run(w, 2000);
	assert_int_equal(w->view.primary, 1);
	assert_int_equal(w->view.isr, 7);
	assert_true(w->view.fork > 0 && w->m[2].len >= had);
	assert_false(w->m[2].lost);
	same_logs(w);
	world_free(w);
}

/* All lose power at once; one comes back with an old copy that was sure when it was made, the others miss the ends of their logs. */
static void one_lost(void **state)
{
	struct world *w = world_new();

	run(w, 300);
	for (int i = 0; i < 10; i++)
		submit(w, 0);
	run(w, 100);
	for (uint8_t i = 0; i < N; i++) {
		down(w, i);
		w->m[i].sure = false;
	}
	empty(&w->m[0]);
	up(w, 0);
	run(w, 12000);
	assert_int_equal(w->view.isr, 7);
	up(w, 1);
	run(w, 200);
	up(w, 2);
	run(w, 2000);
	assert_int_equal(w->view.isr, 7);
	assert_true(w->view.fork > 0 && w->m[0].len >= 10);
	same_logs(w);
	world_free(w);
}

/* ---- a member is replaced by another ---- */

static struct vol_map *map_of_four(struct vol_map **ret_before)
{
	static const struct vol_id uuid = {{9}};
	struct vol_brick b[4] = {{.name = "a1", .domain = "a"},
				 {.name = "b1", .domain = "b"},
				 {.name = "c1", .domain = "c"},
				 {.name = "a2", .domain = "a"}};
	struct vol_map *to = NULL;

	for (int i = 0; i < 4; i++) {
		b[i].weight = 100;
		strcpy(b[i].address, "127.0.0.1:1");
		strcpy(b[i].path, "/brick");
	}
	assert_int_equal(vol_map_make("logs", &uuid, 3, 1, b, 3, 2, false, ret_before, NULL), 0);
	for (uint16_t i = 0; i < 3; i++)
		(*ret_before)->group[1].brick[i] = i;
	assert_int_equal(vol_map_replace(*ret_before, "a1", &b[3], &to, NULL), 0);
	return to;
}

/* Group 1 lies on bricks 0, 1, 2, the slots of the same numbers, and its primary is 0. */
static struct world *world_of_four(struct vol_map **ret_before, struct vol_map **ret_to)
{
	struct world *w = calloc(1, sizeof(*w));

	*ret_to = map_of_four(ret_before);
	w->now = 1000;
	w->n = SLOTS;
	w->map = *ret_before;
	w->view = (struct repl_view){.isr = 7, .members = 7, .brick = {0, 1, 2}};
	for (uint8_t i = 0; i < SLOTS; i++) {
		w->m[i].w = w;
		w->m[i].id = i;
		if (i < 3)
			up(w, i);
	}
	run(w, 300);
	assert_int_equal(w->view.isr, 7);
	assert_int_equal(w->view.primary, 0);
	return w;
}

static void plan(struct world *w, const struct vol_map *to, bool may_begin)
{
	w->map = to;
	for (int i = 0; i < SLOTS; i++)
		if (w->m[i].up)
			repl_plan(w->m[i].r, to, may_begin);
}

/* The brick of slot 3 learns that it is a member, and those that are none are freed, as a brick does. */
static void follow(struct world *w)
{
	for (uint8_t i = 0; i < SLOTS; i++) {
		bool member = w->view.members >> i & 1;

		if (member && !w->m[i].up)
			up(w, i);
		else if (!member && w->m[i].up && repl_gone(w->m[i].r))
			down(w, i);
	}
}

static void moves_on(struct world *w, unsigned ms, uint32_t *submitted)
{
	for (unsigned t = 0; t < ms; t += 10) {
		for (uint8_t i = 0; i < SLOTS; i++)
			if (w->m[i].up && repl_role(w->m[i].r) == REPL_PRIMARY && submit(w, i) == 0)
				(*submitted)++;
		run(w, 10);
		follow(w);
		assert_true(repl_copies(&w->view, w->view.isr) >= 2);
	}
}

/* The primary itself is replaced, while records come: four members for a while, then the new one leads and has every record. */
static void replaced(void **state)
{
	struct vol_map *before, *to;
	struct world *w = world_of_four(&before, &to);
	uint32_t n = 0;
	uint64_t had;

	moves_on(w, 200, &n);
	plan(w, to, false);
	moves_on(w, 200, &n);
	assert_int_equal(w->view.members, 7); /* not before the shell says so */
	plan(w, to, true);
	moves_on(w, 2000, &n);
	assert_int_equal(w->view.members, 14);
	assert_int_equal(w->view.isr, 14);
	assert_int_equal(w->view.primary, 3);
	assert_true(w->view.joining == 0 && w->view.leaving == 0 && w->view.brick[3] == 3);
	assert_false(w->m[0].up);
	assert_true(n > 150 && w->m[3].pulls == 1);
	run(w, 200);
	had = w->m[3].len;
	assert_true(had >= n);
	for (uint64_t k = 1; k <= had; k++)
		assert_true(w->m[3].log[k] == w->m[1].log[k] && w->m[3].log[k] == w->m[2].log[k]);
	/* who was replaced comes back from a pause of its own, with the view of before: nobody listens, and it serves nobody */
	up(w, 0);
	moves_on(w, 500, &n);
	assert_false(w->m[0].up);
	assert_int_equal(w->view.primary, 3);
	world_free(w);
	vol_map_free(before);
	vol_map_free(to);
}

/* The one that leads is lost while its successor catches up, and comes back when it is not wanted any more. */
static void replaced_and_lost(void **state)
{
	struct vol_map *before, *to;
	struct world *w = world_of_four(&before, &to);
	uint32_t n = 0;

	moves_on(w, 200, &n);
	plan(w, to, true);
	for (int i = 0; i < 100 && !w->view.joining; i++)
		moves_on(w, 10, &n);
	assert_int_equal(w->view.members, 15);
	w->cut[3] = true; /* it cannot catch up */
	down(w, 0);
	w->m[0].sure = true;
	for (int i = 0; i < 100; i++) {
		for (uint8_t k = 1; k < 3; k++)
			if (repl_role(w->m[k].r) == REPL_PRIMARY)
				(void)submit(w, k);
		run(w, 10);
	}
	assert_int_equal(w->view.isr, 6);
	assert_int_equal(w->view.members, 15); /* nobody is dropped before its successor is in sync */
	w->cut[3] = false;
	if (!w->m[3].up)
		up(w, 3);
	for (int i = 0; i < 200; i++)
		run(w, 10);
	assert_int_equal(w->view.members, 14);
	assert_int_equal(w->view.isr, 14);
	up(w, 0);
	moves_on(w, 500, &n);
	assert_false(w->m[0].up);
	assert_int_equal(w->view.isr, 14);
	run(w, 12000);
	assert_int_equal(w->view.primary, 3); /* preferred by the map */
	for (uint64_t k = 1; k <= w->m[1].len; k++)
		assert_true(w->m[3].log[k] == w->m[1].log[k]);
	world_free(w);
	vol_map_free(before);
	vol_map_free(to);
}

TEST_MAIN(cmocka_unit_test(replaced), cmocka_unit_test(replaced_and_lost), cmocka_unit_test(normal),
	  cmocka_unit_test(hand_over_without_store), cmocka_unit_test(primary_lost),
	  cmocka_unit_test(backup_lost), cmocka_unit_test(primary_deaf), cmocka_unit_test(sent_ahead),
	  cmocka_unit_test(etcd_away), cmocka_unit_test(all_unsure), cmocka_unit_test(set_lost),
	  cmocka_unit_test(one_lost))
