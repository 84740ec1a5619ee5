/* SPDX-License-Identifier: Apache-2.0 */
/* client: programs that use the volume, each with one operation in flight. A question that is not answered in time is asked again with the same number, at
 * another brick; after the whole time the client gives up: that operation may or may not have happened, now or later. */
#include "sim/sim.h"

#define TRY_MS	 250
#define WHOLE_MS 3000

static void next_op(struct sim *s, struct event *e);
static void ask(struct sim *s, struct client *c);

static void later(struct sim *s, struct client *c, uint64_t us)
{
	event_new(s, us, next_op)->a = c->id;
}

static void take_question(struct sim *s, struct event *e)
{
	brick_question(s, e->brick, e->p);
}

static void try_over(struct sim *s, struct event *e)
{
	struct client *c = &s->client[e->a];

	if (!c->op || c->try_id != e->u)
		return;
	c->guess[c->op->group] = (uint8_t)rnd_below(s, s->o.n);
	ask(s, c);
}

static void ask(struct sim *s, struct client *c)
{
	uint8_t b = c->guess[c->op->group];
	struct question *q;
	uint64_t delay;
	struct event *e;

	if (s->now > c->deadline || c->stopped) {
		c->op = NULL; /* not known */
		later(s, c, rnd_us(s, 2 * MS));
		return;
	}
	if (c->op->type == OP_READ && s->o.backup_reads && rnd_in(s, 500000))
		b = (uint8_t)rnd_below(s, s->o.n);
	else if (rnd_in(s, 100000))
		b = c->guess[c->op->group] = (uint8_t)rnd_below(s, s->o.n); /* it has heard of something */
	c->try_id = ++s->next_try;
	c->tries++;
	e = event_new(s, TRY_MS * MS / (1 + rnd_below(s, 8)), try_over);
	e->a = c->id;
	e->u = c->try_id;
	if (rnd_in(s, s->calm ? 0 : s->o.loss))
		return;
	q = xcalloc(1, sizeof(*q));
	*q = (struct question){c->op->type,   c->id,	    c->op->group, c->op->reg,
			       c->op->number, c->op->value, c->try_id};
	delay = rnd_us(s, s->o.net_us) + (!s->calm && rnd_in(s, s->o.spike) ? rnd_below(s, 2000 * MS) : 0);
	e = event_new(s, delay, take_question);
	e->brick = b;
	e->p = q;
	e->drop = free;
}

static void next_op(struct sim *s, struct event *e)
{
	struct client *c = &s->client[e->a];
	struct op *op;
	uint64_t kind = rnd_below(s, 100);

	if (c->stopped || c->op || s->n_ops == OPS_MAX)
		return;
	op = c->op = &s->op[s->n_ops++];
	op->type = kind < 45 ? OP_WRITE : kind < 92 ? OP_READ : OP_SYNC;
	op->client = c->id;
	op->group = (uint8_t)rnd_below(s, s->o.groups);
	op->reg = (uint8_t)rnd_below(s, REGS);
	op->number = op->type == OP_WRITE ? ++c->next_number : 0;
	op->value = op->type == OP_WRITE ? ++s->next_value : 0;
	op->start = s->now;
	c->tries = 0;
	c->deadline = s->now + WHOLE_MS * MS;
	ask(s, c);
}

struct reply {
	uint8_t from, client;
	int err;
	uint64_t try_id, value;
};

static void take_answer(struct sim *s, struct event *e)
{
	struct reply *r = e->p;
	struct client *c = &s->client[r->client];

	if (!c->op || c->try_id != r->try_id)
		return;
	if (r->err < 0) {
		/* Somebody else, or in a moment. */
		c->try_id = 0;
		if (rnd_in(s, 600000))
			c->guess[c->op->group] = (uint8_t)rnd_below(s, s->o.n);
		c->try_id = ++s->next_try;
		e = event_new(s, rnd_us(s, 10 * MS), try_over);
		e->a = c->id;
		e->u = c->try_id;
		return;
	}
	c->op->done = true;
	c->op->end = s->now;
	if (c->op->type == OP_READ)
		c->op->value = r->value;
	else
		s->count.acked++;
	c->op = NULL;
	c->try_id = 0;
	later(s, c, rnd_us(s, 2 * MS));
}

void client_answer(struct sim *s, uint8_t from_brick, uint8_t client, uint64_t try_id, int err,
		   uint64_t value)
{
	struct reply *r;
	struct event *e;

	if (rnd_in(s, s->calm ? 0 : s->o.loss))
		return;
	r = xcalloc(1, sizeof(*r));
	*r = (struct reply){from_brick, client, err, try_id, value};
	e = event_new(s, rnd_us(s, s->o.net_us), take_answer);
	e->p = r;
	e->drop = free;
}

void client_init(struct sim *s)
{
	for (uint8_t i = 0; i < s->o.clients; i++) {
		s->client[i].id = i;
		later(s, &s->client[i], rnd_below(s, 300 * MS));
	}
}

void clients_stop(struct sim *s)
{
	for (uint8_t i = 0; i < s->o.clients; i++)
		s->client[i].stopped = true;
}
