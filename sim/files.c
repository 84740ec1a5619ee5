/* SPDX-License-Identifier: Apache-2.0 */
/* files: the volume's map and the messages of this kind of schedule: operations, steps of intents, deltas and fetches. Like net.c's they are delayed, lost,
 * repeated and reordered; body and payload belong to the message. */
#include "sim/files.h"

void files_init(struct sim *s)
{
	struct vol_brick bricks[2 * VOL_STRIPE_MAX] = {0};
	struct vol_id uuid = {.b = {7, 7, 7}};
	struct files *f = s->files = xcalloc(1, sizeof(*f));
	struct err e = {0};
	uint32_t n = s->o.groups < 2u * s->o.stripe ? s->o.stripe : 2u * s->o.stripe;

	uuid.b[3] = (uint8_t)s->seed;
	uuid.b[4] = (uint8_t)(s->seed >> 8);
	for (uint32_t i = 0; i < n;
	     i++) { /* who has which group is the simulator's: the map places folders only */
		snprintf(bricks[i].name, sizeof(bricks[i].name), "%c%u", (char)('a' + i % 3), i / 3);
		snprintf(bricks[i].domain, sizeof(bricks[i].domain), "%c", (char)('a' + i % 3));
		snprintf(bricks[i].address, sizeof(bricks[i].address), "127.0.0.1:%u", 7000 + i);
		snprintf(bricks[i].path, sizeof(bricks[i].path), "/b%u", i);
		bricks[i].weight = 100;
	}
	if (vol_map_make("sim", &uuid, 1, s->o.stripe, bricks, n, s->o.groups, true, &f->map, &e) < 0)
		ensure_failed(e.text, __FILE__, __LINE__);
	ensure(f->map->n_groups == s->o.groups);
	f->map->stripe_size = FSTRIPE;
	f->op = xcalloc(FOPS_MAX, sizeof(*f->op));
	f->dir[f->n_dirs++] = vol_root;
	for (uint8_t g = 0; g < s->o.groups; g++)
		s->truth[g].f = fstate_new(g);
}

void files_done(struct sim *s)
{
	if (!s->files)
		return;
	vol_map_free(s->files->map);
	free(s->files->op);
	free(s->files);
	s->files = NULL;
}

struct fmsg *fmsg_new(enum fmsg_type type, uint8_t from, uint8_t to, uint8_t group)
{
	struct fmsg *m = xcalloc(1, sizeof(*m));

	*m = (struct fmsg){.type = type, .from = from, .to = to, .group = group};
	return m;
}

void fmsg_free(void *p)
{
	struct fmsg *m = p;

	if (!m)
		return;
	buf_done(&m->body);
	payload_unref(m->payload);
	free(m);
}

static void deliver(struct sim *s, struct event *e)
{
	struct fmsg *m = e->p;

	e->p = NULL;
	if (m->to == NOBODY) {
		fclient_answer(s, m);
		fmsg_free(m);
		return;
	}
	if (m->from != NOBODY && s->cut[m->from][m->to] && rnd_in(s, 500000)) {
		fmsg_free(m);
		return;
	}
	s->count.messages++;
	if (m->type == F_OP || m->type == F_ANSWER)
		fmember_op(&s->brick[m->to].m[m->group], m);
	else
		fheal_msg(&s->brick[m->to].m[m->group], m);
	member_deltas(&s->brick[e->brick].m[m->group]);
	fmsg_free(m);
}

static struct fmsg *copy(const struct fmsg *m)
{
	struct fmsg *c = xcalloc(1, sizeof(*c));

	*c = *m;
	c->body = (struct buf){0};
	buf_add(&c->body, m->body.data, m->body.len);
	c->payload = payload_ref(m->payload);
	return c;
}

/* To and from clients: not cut off, but lost, late and repeated. */
static bool reach(struct sim *s, const struct fmsg *m, uint64_t *ret_delay)
{
	if (m->from != NOBODY && m->to != NOBODY)
		return net_reach(s, m->from, m->to, ret_delay);
	*ret_delay = rnd_us(s, s->o.net_us);
	if (s->calm)
		return true;
	if (rnd_in(s, s->o.spike))
		*ret_delay += rnd_below(s, 2000 * MS);
	return !rnd_in(s, s->o.loss);
}

void fmsg_send(struct sim *s, struct fmsg *m)
{
	int copies = !s->calm && rnd_in(s, s->o.dup) ? 2 : 1;

	for (int i = 0; i < copies; i++) {
		uint64_t delay;
		struct event *e;

		if (!reach(s, m, &delay))
			continue;
		e = event_new(s, delay, deliver);
		e->brick = m->to;
		e->p = copy(m);
		e->drop = fmsg_free;
	}
	fmsg_free(m);
}
