/* SPDX-License-Identifier: Apache-2.0 */
/* fault: what goes wrong, and when. Every fault ends after a while; at the end of the run all of them end (fault_heal). */
#include "sim/sim.h"

static void restart(struct sim *s, struct event *e)
{
	brick_up(s, (uint8_t)e->a);
}

static void cont(struct sim *s, struct event *e)
{
	brick_cont(s, (uint8_t)e->a);
}

static void unslow(struct sim *s, struct event *e)
{
	s->slow_disk[e->a] = 0;
}

static void etcd_back(struct sim *s, struct event *e)
{
	if (e->a == NOBODY)
		s->etcd_away = false;
	else
		s->cut_etcd[e->a] = false;
}

static void mend_links(struct sim *s, struct event *e)
{
	trace(s, "links are mended");
	memset(s->cut, 0, sizeof(s->cut));
}

/* How long: mostly around the times of the protocol, sometimes long. */
static uint64_t how_long(struct sim *s)
{
	return (rnd_in(s, 500000)   ? rnd_below(s, 400)
		: rnd_in(s, 700000) ? rnd_below(s, 1500)
				    : rnd_below(s, 5000)) *
		       MS +
	       1;
}

static void after(struct sim *s, uint64_t us, void (*fn)(struct sim *, struct event *), uint32_t a)
{
	event_new(s, us, fn)->a = a;
}

/* brick `to` is told that the connection of `from` was closed and that it refuses new ones: true after a crash, and sometimes not. */
static void reset(struct sim *s, struct event *e)
{
	for (uint8_t g = 0; g < s->o.groups; g++) {
		struct member *m = &s->brick[e->brick].m[g];

		repl_on_peer_down(m->r, s->brick[e->a].m[g].index, brick_ms(s, e->brick));
		member_deltas(m);
	}
}

static void tell_reset(struct sim *s, uint8_t from, uint8_t to)
{
	struct event *e = event_new(s, rnd_us(s, 2 * MS), reset);

	e->brick = to;
	e->a = from;
}

static void crash(struct sim *s, uint8_t b, bool power)
{
	if (!s->brick[b].up)
		return;
	brick_down(s, b, power);
	if (power)
		s->count.power++;
	else
		s->count.crashes++;
	after(s, how_long(s), restart, b);
	for (uint8_t i = 0; i < s->o.n; i++)
		if (i != b && !power && rnd_in(s, 700000))
			tell_reset(s, b, i);
}

static void cut_links(struct sim *s, bool one_way)
{
	uint8_t b = (uint8_t)rnd_below(s, s->o.n), c = (uint8_t)rnd_below(s, s->o.n);
	bool whole = rnd_in(s, 500000);

	s->count.partitions++;
	trace(s, "link %u %s %s is cut", b, one_way ? "->" : "<->",
	      whole ? "everybody" : (const char *[]){"0", "1", "2", "3", "4"}[c]);
	for (uint8_t i = 0; i < s->o.n; i++)
		if (i != b && (whole || i == c)) {
			s->cut[b][i] = true;
			if (!one_way)
				s->cut[i][b] = true;
		}
	if (whole && rnd_in(s, 300000)) {
		s->cut_etcd[b] = true;
		after(s, how_long(s), etcd_back, b);
	}
	after(s, how_long(s), mend_links, 0);
}

static void fail_disk(struct sim *s, uint8_t b)
{
	if (!s->brick[b].up)
		return;
	trace(s, "brick %u: its disk fails", b);
	s->count.disk++;
	for (uint8_t g = 0; g < s->o.groups; g++) {
		s->brick[b].m[g].bad_disk = true;
		if (!s->brick[b].stopped && rnd_in(s, 500000))
			repl_on_disk_error(s->brick[b].m[g].r, brick_ms(s, b));
	}
}

static void leave(struct sim *s, uint8_t b)
{
	if (!s->brick[b].up || s->brick[b].stopped)
		return;
	trace(s, "brick %u: is asked to stop", b);
	s->brick[b].leaving = true;
	for (uint8_t g = 0; g < s->o.groups; g++) {
		repl_leave(s->brick[b].m[g].r, brick_ms(s, b));
		member_deltas(&s->brick[b].m[g]);
	}
	/* It ends a second later, whether it got its roles handed over or not. */
	s->count.handovers++;
}

static void down_at_once(struct sim *s, struct event *e)
{
	crash(s, (uint8_t)e->a, false);
}

static void down_later(struct sim *s, struct event *e)
{
	if (!s->calm)
		crash(s, (uint8_t)e->a, false);
}

void fault_crash(struct sim *s, uint8_t b)
{
	s->brick[b].dying = true;
	after(s, 0, down_at_once, b);
}

static void strike(struct sim *s, struct event *e)
{
	const struct options *o = &s->o;
	const uint32_t weight[] = {o->p_crash, o->p_power, o->p_power_all, o->p_stop,  o->p_part, o->p_oneway,
				   o->p_etcd,  o->p_disk,  o->p_slow,	   o->p_leave, o->p_reset};
	uint8_t b = (uint8_t)rnd_below(s, o->n);
	uint32_t sum = 0, k = 0;
	uint64_t x;

	if (s->calm)
		return;
	event_new(s, rnd_us(s, o->fault_ms * MS), strike);
	for (size_t i = 0; i < ARRAY_SIZE(weight); i++)
		sum += weight[i];
	x = rnd_below(s, sum);
	while (k < ARRAY_SIZE(weight) - 1 && x >= weight[k])
		x -= weight[k++];
	if (sum == 0)
		return;
	switch (k) {
	case 0:
	case 1:
		crash(s, b, k == 1);
		break;
	case 2:
		s->count.power_all++;
		for (uint8_t i = 0; i < o->n; i++)
			crash(s, i, true);
		break;
	case 3:
		s->count.stops++;
		brick_stop(s, b);
		after(s, how_long(s), cont, b);
		break;
	case 4:
	case 5:
		cut_links(s, k == 5);
		break;
	case 6:
		trace(s, "etcd is away");
		s->etcd_away = true;
		after(s, how_long(s), etcd_back, NOBODY);
		break;
	case 7:
		fail_disk(s, b);
		after(s, how_long(s), down_later, b);
		break;
	case 8:
		s->slow_disk[b] = (uint32_t)(rnd_below(s, 300) * MS);
		after(s, how_long(s), unslow, b);
		break;
	case 9:
		leave(s, b);
		after(s, 1000 * MS, down_later, b);
		break;
	case 10: {
		uint8_t c = (uint8_t)rnd_below(s, o->n);

		/* By something between that lets nothing through any more, half of the time: it goes on alone, and must not be believed dead. */
		if (rnd_in(s, 500000)) {
			for (uint8_t i = 0; i < o->n; i++)
				if (i != b)
					s->cut[b][i] = s->cut[i][b] = true;
			s->cut_etcd[b] = true;
			after(s, how_long(s), etcd_back, b);
			after(s, how_long(s), mend_links, 0);
		}
		trace(s, "brick %u: its connections are reset", b);
		for (uint8_t i = 0; i < o->n; i++)
			if (i != b && (i == c || rnd_in(s, 500000)))
				tell_reset(s, b, i);
		break;
	}
	default:
		break;
	}
}

/* ---- aimed ---- */

/* The second half of an aimed join, see fault_joined. */
static void isolate(struct sim *s, struct event *e)
{
	uint8_t p = (uint8_t)e->a;

	if (s->calm)
		return;
	trace(s, "brick %u: is cut off from everybody, its connections are reset", p);
	for (uint8_t i = 0; i < s->o.n; i++) {
		if (i == p)
			continue;
		s->cut[p][i] = s->cut[i][p] = true;
		s->cut_etcd[i] = false;
		tell_reset(s, p, i);
		if (rnd_in(s, 500000))
			tell_reset(s, p, i); /* and once more, when it has tried again */
	}
	after(s, (300 + rnd_below(s, 700)) * MS, mend_links, 0);
	after(s, (300 + rnd_below(s, 700)) * MS, etcd_back, p);
}

/* A swap that takes a member into the set came into force: the primary does not hear of it, nor do those whose leases it has, and it loses the new member. A
 * while later - the new member's lease has ended, the others' have not - it is cut off, and the new member may become primary at once. */
bool fault_joined(struct sim *s, uint8_t primary, uint8_t joined)
{
	if (s->calm || primary == joined || !rnd_in(s, s->o.aim))
		return false;
	trace(s, "aimed: brick %u does not hear that %u is in the set, and loses it", primary, joined);
	for (uint8_t i = 0; i < s->o.n; i++)
		s->cut_etcd[i] = i != joined;
	s->cut[primary][joined] = s->cut[joined][primary] = true;
	after(s, (170 + rnd_below(s, 130)) * MS, isolate, primary);
	return true;
}

void fault_init(struct sim *s)
{
	event_new(s, rnd_us(s, s->o.fault_ms * MS), strike);
}

void fault_heal(struct sim *s)
{
	memset(s->cut, 0, sizeof(s->cut));
	memset(s->cut_etcd, 0, sizeof(s->cut_etcd));
	memset(s->slow_disk, 0, sizeof(s->slow_disk));
	s->etcd_away = false;
	for (uint8_t b = 0; b < s->o.n; b++) {
		brick_cont(s, b);
		for (uint8_t g = 0; g < s->o.groups; g++)
			if (s->brick[b].m[g].bad_disk || s->brick[b].leaving) {
				brick_down(s, b, false);
				break;
			}
		brick_up(s, b);
	}
}
