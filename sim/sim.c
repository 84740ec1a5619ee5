/* SPDX-License-Identifier: Apache-2.0 */
/* sim: the event queue, chance, and one run from its seed to its verdict. */
#include "sim/files.h"

#include <stdarg.h>

/* ---- chance: splitmix64 ---- */

uint64_t rnd(struct sim *s)
{
	uint64_t z = s->rng += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t rnd_below(struct sim *s, uint64_t n)
{
	return n ? rnd(s) % n : 0;
}

bool rnd_in(struct sim *s, uint32_t ppm)
{
	return rnd_below(s, 1000000) < ppm;
}

uint64_t rnd_us(struct sim *s, uint64_t mean)
{
	uint64_t d = mean / 2 + rnd_below(s, mean + 1);

	return rnd_in(s, 30000) ? d * (2 + rnd_below(s, 10)) : d;
}

/* ---- words ---- */

void trace(struct sim *s, const char *fmt, ...)
{
	va_list ap;

	if (!s->trace)
		return;
	printf("%8.3f ms  ", (double)s->now / 1000);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void violation(struct sim *s, const char *checker, const char *fmt, ...)
{
	va_list ap;

	if (s->failed)
		return;
	s->failed = true;
	snprintf(s->checker, sizeof(s->checker), "%s", checker);
	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
	trace(s, "VIOLATION of %s: %s", checker, s->why);
}

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->n < b->n;
}

static void heap_push(struct sim *s, struct event *e)
{
	size_t i = s->n_heap++;

	if (s->n_heap > s->heap_cap) {
		s->heap_cap = MAX(s->heap_cap * 2, (size_t)1024);
		s->heap = xrealloc(s->heap, s->heap_cap * sizeof(*s->heap));
	}
	for (; i > 0 && before(e, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = e;
}

static struct event *heap_pop(struct sim *s)
{
	struct event *top = s->heap[0], *last = s->heap[--s->n_heap];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < s->n_heap) {
		if (k + 1 < s->n_heap && before(s->heap[k + 1], s->heap[k]))
			k++;
		if (!before(s->heap[k], last))
			break;
		s->heap[i] = s->heap[k];
		i = k;
	}
	s->heap[i] = last;
	return top;
}

struct event *event_new(struct sim *s, uint64_t delay_us, void (*fn)(struct sim *, struct event *))
{
	struct event *e = s->free_events;

	if (e)
		s->free_events = e->p;
	else
		e = xcalloc(1, sizeof(*e));
	*e = (struct event){.at = s->now + delay_us, .n = ++s->n_events, .fn = fn, .brick = NOBODY};
	heap_push(s, e);
	return e;
}

static void event_drop(struct sim *s, struct event *e)
{
	if (e->drop && e->p)
		e->drop(e->p);
	e->p = s->free_events;
	e->drop = NULL;
	s->free_events = e;
}

static void run_one(struct sim *s, struct event *e)
{
	struct brick *b = e->brick == NOBODY ? NULL : &s->brick[e->brick];

	s->now = MAX(s->now, e->at);
	if (b && b->stopped) {
		if (b->n_waiting == b->waiting_cap) {
			b->waiting_cap = MAX(b->waiting_cap * 2, 64u);
			b->waiting = xrealloc(b->waiting, b->waiting_cap * sizeof(*b->waiting));
		}
		b->waiting[b->n_waiting++] = e;
		return;
	}
	if (!b || (b->up && (e->life == 0 || e->life == b->life)))
		e->fn(s, e);
	event_drop(s, e);
}

void sim_step_until(struct sim *s, uint64_t us)
{
	while (!s->failed && s->n_heap > 0 && s->heap[0]->at <= us) {
		s->steps++;
		run_one(s, heap_pop(s));
	}
	s->now = MAX(s->now, us);
}

/* ---- a run ---- */

static uint32_t pick(struct sim *s, const uint32_t *list, size_t n)
{
	return list[rnd_below(s, n)];
}

/* Faults are drawn a run, so that some runs have much of one kind and none of another. */
static void choose(struct sim *s)
{
	static const uint32_t some[] = {0, 0, 20, 60, 100}, ppm[] = {0, 0, 1000, 10000, 50000};
	struct options *o = &s->o;

	o->n = rnd_in(s, 800000) ? 3 : rnd_in(s, 700000) ? 5 : rnd_in(s, 500000) ? 2 : 1;
	o->groups = rnd_in(s, 300000) ? 2 : 1;
	o->clients = (uint8_t)(2 + rnd_below(s, CLIENTS_MAX - 1));
	o->write_quorum = o->n == 1 ? 1 : rnd_in(s, 850000) ? 2 : (uint8_t)(1 + rnd_below(s, o->n));
	o->backup_reads = rnd_in(s, 500000);
	o->fifo = rnd_in(s, 600000);
	o->keep_recent = rnd_in(s, 500000);
	o->strict_unsure = rnd_in(s, 700000);
	o->duration_ms = (uint32_t)(2000 + rnd_below(s, 6000));
	o->loss = pick(s, ppm, 5);
	o->dup = pick(s, ppm, 5);
	o->spike = pick(s, ppm, 5);
	o->cas_lost = pick(s, (const uint32_t[]){0, 0, 50000, 300000}, 4);
	o->etcd_delay_us = pick(s, (const uint32_t[]){1000, 5000, 50000}, 3);
	o->net_us = pick(s, (const uint32_t[]){100, 300, 1000, 5000}, 4);
	o->fault_ms = pick(s, (const uint32_t[]){100, 300, 700, 2000}, 4);
	o->handback_ms = pick(s, (const uint32_t[]){0, 500, 2000}, 3);
	o->p_crash = pick(s, some, 5);
	o->p_power = pick(s, some, 5);
	o->p_power_all = pick(s, (const uint32_t[]){0, 0, 0, 30}, 4);
	o->p_stop = pick(s, some, 5);
	o->p_part = pick(s, some, 5);
	o->p_oneway = pick(s, some, 5);
	o->p_etcd = pick(s, some, 5);
	o->p_disk = pick(s, (const uint32_t[]){0, 0, 20}, 3);
	o->p_slow = pick(s, some, 5);
	o->p_leave = pick(s, (const uint32_t[]){0, 0, 30}, 3);
	o->p_reset = pick(s, (const uint32_t[]){0, 0, 60}, 3);
	o->aim = pick(s, (const uint32_t[]){0, 0, 0, 500000}, 4);
	o->ahead = s->seed * 0x9e3779b97f4a7c15ull >> 63; /* not drawn: older seeds stay what they are */
	if (!o->files)
		return;
	o->groups = (uint8_t)pick(s, (const uint32_t[]){1, 2, 4, 4}, 4);
	o->stripe = (uint8_t)(o->groups > 1 && rnd_in(s, 400000) ? 2 : 1);
	o->duration_ms = (uint32_t)(1500 + rnd_below(s, 3000));
	o->net_us = pick(s, (const uint32_t[]){100, 300, 1000}, 3);
}

static void describe(struct sim *s)
{
	const struct options *o = &s->o;

	trace(s,
	      "seed %llu%s: %u members, %u groups, %u clients, write quorum %u%s%s%s; loss %u dup %u spike "
	      "%u "
	      "ppm, message %u us%s, etcd %u us, lost swaps %u ppm; "
	      "a fault every %u ms for %u ms",
	      (unsigned long long)s->seed, o->files ? o->stripe > 1 ? " (files, striped)" : " (files)" : "",
	      o->n, o->groups, o->clients, o->write_quorum, o->backup_reads ? ", backups read" : "",
	      o->strict_unsure ? "" : ", unsure wait 2 s", o->ahead ? ", sent ahead" : "", o->loss, o->dup,
	      o->spike, o->net_us, o->fifo ? " in order" : "", o->etcd_delay_us, o->cas_lost, o->fault_ms,
	      o->duration_ms);
}

static bool settled(struct sim *s, char why[256])
{
	return (!s->files || files_quiet(s, why)) && is_converged(s, why);
}

/* Everything heals; then the members must become equal in bounded time. */
static void settle(struct sim *s)
{
	char why[256] = "";
	uint64_t end;

	clients_stop(s);
	s->calm = true;
	fault_heal(s);
	trace(s, "all faults end");
	for (end = s->now + 40000 * MS; s->now < end && !s->failed;) {
		sim_step_until(s, s->now + 100 * MS);
		if (settled(s, why))
			break;
	}
	if (!s->failed && !is_converged(s, why))
		violation(s, "replicas_converge", "40 s after the last fault: %s", why);
	else if (!s->failed && !settled(s, why))
		violation(s, "metadata_tree", "40 s after the last fault: %s", why);
}

void sim_run(struct sim *s, uint64_t seed, bool files, bool show, bool messages)
{
	memset(s, 0, sizeof(*s));
	s->seed = s->rng = seed;
	s->trace = show;
	s->messages = show && messages;
	s->op = xcalloc(OPS_MAX, sizeof(*s->op));
	for (int i = 0; i < 4; i++)
		rnd(s);
	s->o.files = files;
	choose(s);
	describe(s);
	net_init(s);
	if (files)
		files_init(s);
	brick_init(s);
	if (files)
		fclient_start(s);
	else
		client_init(s);
	fault_init(s);
	sim_step_until(s, s->o.duration_ms * MS);
	settle(s);
	if (!s->failed)
		check_converged(s);
	if (files) {
		if (!s->failed)
			check_tree(s);
		if (!s->failed)
			check_names(s);
		if (!s->failed)
			check_data(s);
		return;
	}
	for (uint8_t g = 0; g < s->o.groups && !s->failed; g++)
		check_exactly_once(s, g);
	if (!s->failed)
		check_linearizable(s);
}

void sim_done(struct sim *s)
{
	for (uint8_t b = 0; b < s->o.n; b++) {
		for (uint32_t i = 0; i < s->brick[b].n_waiting; i++)
			event_drop(s, s->brick[b].waiting[i]);
		free(s->brick[b].waiting);
		for (uint8_t g = 0; g < s->o.groups; g++) {
			struct member *m = &s->brick[b].m[g];

			if (m->f)
				fmember_done(m);
			repl_free(m->r);
			for (uint32_t i = 0; i < m->n_held; i++)
				free(m->held[i].answer);
			store_done(&m->st);
		}
	}
	while (s->n_heap > 0)
		event_drop(s, heap_pop(s));
	for (struct event *e = s->free_events, *next; e; e = next) {
		next = e->p;
		free(e);
	}
	for (uint8_t g = 0; g < s->o.groups; g++) {
		fstate_free(s->truth[g].f);
		for (uint64_t i = 0; i < LOG_MAX; i++)
			record_unref(s->truth[g].rec[i]);
	}
	files_done(s);
	free(s->heap);
	free(s->op);
}
