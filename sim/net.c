/* SPDX-License-Identifier: Apache-2.0 */
/* net: messages between bricks: delayed, lost, repeated, reordered (in runs that are not `fifo`), cut off in one or both directions. A message that
 * is on its way when its link is cut still arrives half of the time. */
#include "sim/sim.h"

void net_init(struct sim *s)
{
	memset(s->cut, 0, sizeof(s->cut));
	memset(s->fifo_at, 0, sizeof(s->fifo_at));
}

bool net_reach(struct sim *s, uint8_t from, uint8_t to, uint64_t *ret_delay)
{
	uint64_t d;

	if (from == to) {
		*ret_delay = 5;
		return true;
	}
	if (s->cut[from][to] || (!s->calm && rnd_in(s, s->o.loss)))
		return false;
	d = rnd_us(s, s->o.net_us);
	if (!s->calm && rnd_in(s, s->o.spike))
		d += rnd_below(s, 400 * MS);
	if (s->o.fifo) {
		uint64_t at = MAX(s->now + d, s->fifo_at[from][to] + 1);

		s->fifo_at[from][to] = at;
		d = at - s->now;
	}
	*ret_delay = d;
	return true;
}

struct packet {
	struct repl_msg m;
	struct record *rec;
};

static void packet_free(void *p)
{
	record_unref(((struct packet *)p)->rec);
	free(p);
}

static void show(struct sim *s, uint8_t from, uint8_t to, const struct repl_msg *m)
{
	static const char *const name[] = {"",	     "append", "ack", "heartbeat", "heartbeat-ack", "sync",
					   "synced", "hello",  "cut", "caught-up", "view"};

	trace(s,
	      "%u -> %u group %u %s: epoch %llu at %llu/%llu committed %llu%s%s live %llu/%llu cut %llu/%llu "
	      "record %llu/%llu",
	      from, to, m->group, name[m->type], (unsigned long long)m->epoch,
	      (unsigned long long)m->pos.epoch, (unsigned long long)m->pos.seq, (unsigned long long)m->commit,
	      m->sure ? " sure" : "", m->hears ? " hears" : "", (unsigned long long)m->live.epoch,
	      (unsigned long long)m->live.seq, (unsigned long long)m->cut.epoch,
	      (unsigned long long)m->cut.seq, (unsigned long long)(m->record ? m->record->epoch : 0),
	      (unsigned long long)(m->record ? m->record->seq : 0));
}

static void deliver(struct sim *s, struct event *e)
{
	struct packet *p = e->p;
	struct member *m = &s->brick[e->brick].m[p->m.group];

	if (s->cut[e->a][e->brick] && rnd_in(s, 500000))
		return;
	s->count.messages++;
	if (s->messages)
		show(s, (uint8_t)e->a, e->brick, &p->m);
	m->in_message = true;
	m->in_message_epoch = p->m.epoch;
	repl_on_msg(m->r, &p->m, brick_ms(s, e->brick));
	m->in_message = false;
	member_deltas(m);
}

void net_send(struct sim *s, const struct repl_msg *m, uint8_t from, uint8_t to)
{
	int copies = !s->calm && rnd_in(s, s->o.dup) ? 2 : 1;

	for (int i = 0; i < copies; i++) {
		uint64_t delay;
		struct packet *p;
		struct event *e;

		if (!net_reach(s, from, to, &delay))
			continue;
		p = xcalloc(1, sizeof(*p));
		p->m = *m;
		p->rec = record_ref(m->record);
		e = event_new(s, delay, deliver);
		e->brick = to;
		e->a = from;
		e->p = p;
		e->drop = packet_free;
	}
}
