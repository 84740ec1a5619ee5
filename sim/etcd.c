/* SPDX-License-Identifier: Apache-2.0 */
/* etcd: one view a group, changed by compare-and-swap. What the model does to its users: answers that come late or not at all (the swap happened,
 * happens later, or never does), watches that lag, times when it cannot be reached. */
#include "sim/sim.h"

static bool away(struct sim *s, uint8_t b)
{
	return s->etcd_away || s->cut_etcd[b];
}

static void watch(struct sim *s, struct event *e)
{
	struct member *m = &s->brick[e->brick].m[e->a];
	struct repl_view *old = e->p;

	if (away(s, e->brick))
		return;
	/* A watch may be behind; but that a group has no view yet is only said when it is so. */
	repl_on_view(m->r, old->epoch > 0 && rnd_in(s, 500000) ? old : &s->etcd[e->a].view,
		     brick_ms(s, e->brick));
	member_deltas(m);
}

static void tell(struct sim *s, uint8_t group, uint8_t b, uint64_t delay)
{
	struct event *e = event_new(s, delay, watch);

	e->brick = b;
	e->a = group;
	e->p = xcalloc(1, sizeof(struct repl_view));
	memcpy(e->p, &s->etcd[group].view, sizeof(struct repl_view));
	e->drop = free;
}

static void answer(struct sim *s, struct event *e)
{
	struct member *m = &s->brick[e->brick].m[e->a];
	struct repl_view *there = e->p;

	if (e->u == 0 || m->cas_id != e->u)
		return; /* timed out before */
	m->cas_id = 0;
	if ((int)e->v == -ETIMEDOUT)
		s->count.cas_unknown++;
	repl_on_cas(m->r, (int)e->v, there, brick_ms(s, e->brick));
	member_deltas(m);
}

struct swap {
	uint64_t expect, id;
	struct repl_view next;
	uint8_t brick, group;
	bool silent, sure;
	uint64_t life;
};

static uint8_t lowest(uint8_t set)
{
	return (uint8_t)__builtin_ctz(set);
}

static void apply(struct sim *s, struct event *e)
{
	struct swap *w = e->p;
	struct etcd_group *g = &s->etcd[w->group];
	uint8_t joined = w->next.isr & (uint8_t)~g->view.isr;
	struct repl_view *there = xcalloc(1, sizeof(*there));
	bool ok = g->view.epoch == w->expect;
	struct event *a;

	if (ok) {
		if (!w->sure)
			check_election(&s->brick[w->brick].m[w->group], &g->view, &w->next);
		if (g->view.epoch > 0 && joined && w->next.primary == g->view.primary &&
		    fault_joined(s, w->brick, brick_of(s, w->group, lowest(joined))))
			w->silent = true;
		g->view = w->next;
		s->count.views++;
		trace(s, "etcd: group %u epoch %llu primary %u in sync %x%s", w->group,
		      (unsigned long long)w->next.epoch, w->next.primary, w->next.isr,
		      w->next.fork == w->next.epoch ? " (fork)" : "");
		for (uint8_t b = 0; b < s->o.n; b++)
			if (!rnd_in(s, 100000)) /* the periodic read finds it later */
				tell(s, w->group, b,
				     rnd_us(s, s->o.etcd_delay_us) +
					     (rnd_in(s, 100000) ? rnd_below(s, 500 * MS) : 0));
	}
	*there = g->view;
	a = event_new(s, rnd_us(s, s->o.etcd_delay_us / 2), answer);
	a->p = there;
	a->drop = free;
	a->brick = w->brick;
	a->life = w->life;
	a->a = w->group;
	a->u = w->silent || away(s, w->brick) ? 0 : w->id; /* id 0 never matches: the answer is lost */
	a->v = (uint64_t)(int64_t)(ok ? 0 : -EEXIST);
}

void etcd_propose(struct member *m, uint64_t expect, const struct repl_view *next)
{
	struct sim *s = m->s;
	struct brick *b = &s->brick[m->brick];
	bool lost = !s->calm && rnd_in(s, s->o.cas_lost);
	struct event *e;

	ensure(m->cas_id == 0);
	m->cas_id = ++s->next_try;
	trace(s, "brick %u group %u: proposes epoch %llu primary %u in sync %x", m->brick, m->group,
	      (unsigned long long)next->epoch, next->primary, next->isr);
	if (!away(s, m->brick) && !(lost && rnd_in(s, 300000))) {
		struct swap *w = xcalloc(1, sizeof(*w));

		*w = (struct swap){expect, m->cas_id, *next, m->brick, m->group, lost, m->st.sure, b->life};
		e = event_new(s,
			      rnd_us(s, s->o.etcd_delay_us / 2) +
				      (lost && rnd_in(s, 500000) ? rnd_below(s, 3000 * MS) : 0),
			      apply);
		e->p = w;
		e->drop = free;
	}
	/* No answer: the outcome is not known. */
	e = event_new(s, (300 + rnd_below(s, 700)) * MS, answer);
	e->brick = m->brick;
	e->life = b->life;
	e->a = m->group;
	e->u = m->cas_id;
	e->v = (uint64_t)(int64_t)-ETIMEDOUT;
}

static void periodic(struct sim *s, struct event *e)
{
	for (uint8_t g = 0; g < s->o.groups; g++)
		for (uint8_t b = 0; b < s->o.n; b++)
			tell(s, g, b, rnd_us(s, s->o.etcd_delay_us));
	event_new(s, 1000 * MS, periodic);
}

void etcd_watch_tick(struct sim *s)
{
	periodic(s, NULL);
}
