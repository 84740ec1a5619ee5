/* SPDX-License-Identifier: Apache-2.0 */
/* Node verdict. Two independent witnesses are asked before a node is called dead:
 *   1. its lease in the store, which the controller sees being renewed every second;
 *   2. the other nodes, which ping each other past API and store and write into their own leases what they hear.
 *
 *                     lease renewed            lease late
 *   heard by a peer   ready                    slow, after cut_off_ms: cut off (alive, but does not reach the API)
 *   heard by none     ready (a link is cut)    dead after late_ms when at least half of the others say so
 *   nobody can say    ready                    dead after alone_ms
 *
 * The controller distrusts itself first. Ages are counted only as far back as its own contact with the store reaches
 * (min(age, contact)), so after an outage everybody has a full period to be seen again. When all leases are late at
 * once the common cause is the store or the controller, not the nodes. A peer whose own lease is late is no witness:
 * it may be cut off itself. A node that returns must be steady for a while, longer each time (flapping).
 *
 * No I/O, no clock, no memory. Not here: what is done about it (control/nodes.c). */
#include "core/route/verdict.h"

const struct verdict_limits verdict_limits_default = {
	.late_ms = 1500,
	.heard_ms = 800,
	.cut_off_ms = 3000,
	.alone_ms = 4000,
	.all_late_ms = 10000,
	.fence_ms = 4500,
	.steady_ms = 1000,
};

const char *verdict_name(enum verdict v)
{
	static const char *const names[] = {
		[VERDICT_READY] = "ready",     [VERDICT_SLOW] = "slow", [VERDICT_RETURNING] = "returning",
		[VERDICT_CUT_OFF] = "cut-off", [VERDICT_DEAD] = "dead",
	};

	ensure((size_t)v < ARRAY_SIZE(names));
	return names[v];
}

/* What the others say about one node. */
struct witnesses {
	size_t heard, silent, refused, others;
	const char *hears, *misses; /* one of each, for the text */
};

struct scene {
	const struct verdict_node *nodes;
	size_t n;
	int64_t contact_ms;
	const struct verdict_limits *l;
	size_t n_fresh;
	int64_t youngest_ms; /* the least late lease */
};

static int64_t age(const struct scene *s, const struct verdict_node *n)
{
	return MIN(n->lease_ms, s->contact_ms);
}

static bool late(const struct scene *s, const struct verdict_node *n)
{
	return n->lease_ms > s->l->late_ms || !n->has_lease;
}

static const struct verdict_view *view_of(const struct verdict_node *by, const char *name)
{
	for (size_t i = 0; i < by->n_views; i++)
		if (streq(by->views[i].node, name))
			return &by->views[i];
	return NULL;
}

static struct witnesses ask(const struct scene *s, const struct verdict_node *about)
{
	struct witnesses w = {0};

	for (size_t i = 0; i < s->n; i++) {
		const struct verdict_node *by = &s->nodes[i];
		const struct verdict_view *v;

		if (by == about)
			continue;
		/* Neighbours that fell silent with it share its fate: they are not missing witnesses. */
		if (late(s, by) && streq(by->zone, about->zone))
			continue;
		w.others++;
		v = late(s, by) ? NULL : view_of(by, about->name);
		if (!v)
			continue;
		if (v->refused) {
			w.refused++;
			w.hears = by->name;
		} else if (v->silent_ms <= s->l->heard_ms) {
			w.heard++;
			w.hears = by->name;
		} else {
			w.silent++;
			w.misses = by->name;
		}
	}
	return w;
}

static void say(struct verdict_result *r, enum verdict v, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void say(struct verdict_result *r, enum verdict v, const char *fmt, ...)
{
	va_list ap;

	r->verdict = v;
	r->passed = true;
	va_start(ap, fmt);
	vsnprintf(r->why, sizeof(r->why), fmt, ap);
	va_end(ap);
}

static void undecided(struct verdict_result *r, const struct verdict_node *n, const char *why)
{
	say(r, n->before, "no verdict: %s", why);
	r->passed = false;
}

static void judge_renewing(const struct scene *s, const struct verdict_node *n, struct verdict_result *r)
{
	struct witnesses w = ask(s, n);
	unsigned doublings = n->flaps > 1 ? MIN(n->flaps - 1, 5) : 0;
	int64_t hold_ms = s->l->steady_ms << doublings;

	if (n->before >= VERDICT_RETURNING && n->steady_ms < hold_ms)
		say(r, VERDICT_RETURNING, "renews its lease for %lld ms, must do so for %lld ms",
		    (long long)n->steady_ms, (long long)hold_ms);
	else if (w.silent && w.heard)
		say(r, VERDICT_READY, "renews its lease; %s does not hear it (link cut), %s does", w.misses,
		    w.hears);
	else if (w.silent)
		say(r, VERDICT_READY, "renews its lease, although %s does not hear it", w.misses);
	else
		say(r, VERDICT_READY, "renews its lease");
}

static void judge_late(const struct scene *s, const struct verdict_node *n, struct verdict_result *r)
{
	const struct verdict_limits *l = s->l;
	struct witnesses w = ask(s, n);
	int64_t ms = age(s, n), dead_ms;
	long long t = ms;

	if (w.refused || w.heard) {
		const char *what = w.heard ? "hears it" : "sees its host answer without its agent";

		if (ms >= l->cut_off_ms)
			say(r, VERDICT_CUT_OFF, "no renewal for %lld ms, but %s %s", t, w.hears, what);
		else
			say(r, VERDICT_SLOW, "no renewal for %lld ms, %s %s", t, w.hears, what);
		return;
	}
	if (!w.silent) {
		if (ms >= l->alone_ms)
			say(r, VERDICT_DEAD, "no renewal for %lld ms, nobody else can tell", t);
		else
			say(r, VERDICT_SLOW, "no renewal for %lld ms, nobody else can tell yet", t);
		return;
	}
	dead_ms = w.silent * 2 >= w.others ? l->late_ms : l->cut_off_ms;
	if (ms > dead_ms)
		say(r, VERDICT_DEAD, "no renewal for %lld ms, not heard by %zu of %zu others", t, w.silent,
		    w.others);
	else
		say(r, VERDICT_SLOW, "no renewal for %lld ms, not heard by %zu of %zu others yet", t,
		    w.silent, w.others);
}

static void judge(const struct scene *s, const struct verdict_node *n, struct verdict_result *r)
{
	bool given_up = n->before == VERDICT_DEAD || n->before == VERDICT_CUT_OFF;

	*r = (struct verdict_result){.verdict = n->before};
	if (s->contact_ms < 0) {
		undecided(r, n, "the controller itself has no contact with the store");
		return;
	}
	r->fenced = age(s, n) >= s->l->fence_ms;
	if (!late(s, n)) {
		judge_renewing(s, n, r);
	} else if (given_up) {
		say(r, n->before, "still no renewal"); /* what was acted upon stays until it returns */
	} else if (age(s, n) <= s->l->late_ms) {
		undecided(r, n, "contact with the store is too young");
	} else if (s->n > 1 && s->n_fresh == 0 && s->youngest_ms < s->l->all_late_ms) {
		undecided(r, n,
			  "every node's lease is late: the store or the controller is the likely cause");
	} else if (n->before == VERDICT_RETURNING) {
		struct witnesses w = ask(s, n);

		say(r, w.heard || w.refused ? VERDICT_CUT_OFF : VERDICT_DEAD, "still no renewal");
	} else {
		judge_late(s, n, r);
	}
}

void verdict_pass(const struct verdict_node *nodes, size_t n, int64_t contact_ms,
		  const struct verdict_limits *limits, struct verdict_result *ret)
{
	struct scene s = {nodes, n, contact_ms, limits ? limits : &verdict_limits_default, 0, INT64_MAX};

	for (size_t i = 0; i < n; i++) {
		if (!late(&s, &nodes[i]))
			s.n_fresh++;
		s.youngest_ms = MIN(s.youngest_ms, age(&s, &nodes[i]));
	}
	for (size_t i = 0; i < n; i++)
		judge(&s, &nodes[i], &ret[i]);
}
