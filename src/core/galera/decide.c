/* SPDX-License-Identifier: Apache-2.0 */
/* core/galera: the rules. contest() finds who may make a new primary component; galera_decide() and galera_grant() both use
 * it, so that a candidate and its voters follow one rule and differ only in what they see. */
#include "core/galera/galera.h"

#include <stdarg.h>

const struct galera_times galera_times_default = {
	.fresh = 3000,
	.calm = 3000,
	.restart = 30000,
	.orphan = 5000,
	.promise = 60000,
};

/* Index of nobody. */
#define NOBODY GALERA_MEMBERS_MAX

static _printf_(2, 3) void say(char *reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, GALERA_REASON_MAX, fmt, ap);
	va_end(ap);
}

static struct galera_decision decision(enum galera_action action, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static struct galera_decision decision(enum galera_action action, const char *fmt, ...)
{
	struct galera_decision d = {.action = action};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d.reason, sizeof(d.reason), fmt, ap);
	va_end(ap);
	return d;
}

static bool fresh(const struct galera_situation *s, const struct galera_times *t, size_t i)
{
	return i == s->self || (s->members[i].age_ms >= 0 && s->members[i].age_ms <= t->fresh);
}

static bool has_data(const struct galera_member *m)
{
	return (m->phase == GALERA_STOPPED || m->phase == GALERA_NON_PRIMARY) && m->uuid[0];
}

/* The first fresh member other than self in that phase; founding: bootstrapping must be so. */
static size_t find(const struct galera_situation *s, const struct galera_times *t, enum galera_phase phase,
		   bool founding)
{
	for (size_t i = 0; i < s->n; i++)
		if (i != s->self && fresh(s, t, i) && s->members[i].phase == phase &&
		    s->members[i].bootstrapping == founding)
			return i;
	return NOBODY;
}

/* Heard, as far as founding goes. Who answers but cannot tell its position is as good as missing once the operator says so. */
static bool heard(const struct galera_situation *s, const struct galera_times *t, size_t i)
{
	return fresh(s, t, i) && !(s->override && s->members[i].phase == GALERA_UNKNOWN);
}

static size_t count_heard(const struct galera_situation *s, const struct galera_times *t)
{
	size_t k = 0;

	for (size_t i = 0; i < s->n; i++)
		k += heard(s, t, i);
	return k;
}

static void name_missing(const struct galera_situation *s, const struct galera_times *t, char *out,
			 size_t size)
{
	size_t used = 0;

	out[0] = 0;
	for (size_t i = 0; i < s->n && used + GALERA_NAME_MAX < size; i++)
		if (!heard(s, t, i))
			used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "",
						 s->members[i].name);
}

/* All that must be heard has been heard; else false and the reason. */
static bool enough_heard(const struct galera_situation *s, const struct galera_times *t, char *reason)
{
	size_t n = count_heard(s, t), majority = s->n / 2 + 1;
	char missing[200];

	if (n == s->n)
		return true;
	name_missing(s, t, missing, sizeof(missing));
	if (!s->override)
		say(reason, "%zu of %zu members heard; waiting for %s, whose data may reach further", n, s->n,
		    missing);
	else if (n < majority)
		say(reason, "override refused: %zu of %zu members heard, a majority of %zu is needed", n,
		    s->n, majority);
	else
		return true;
	return false;
}

/* Every fresh member is down with a known position, or non-primary; else false and the reason. */
static bool all_settled(const struct galera_situation *s, const struct galera_times *t, char *reason)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct galera_member *m = &s->members[i];

		if (!heard(s, t, i) || m->phase == GALERA_EMPTY || m->phase == GALERA_STOPPED ||
		    m->phase == GALERA_NON_PRIMARY)
			continue;
		say(reason, "waiting for %s: %s", m->name,
		    m->phase == GALERA_PRIMARY	 ? "it is in a primary component"
		    : m->phase == GALERA_UNKNOWN ? "its position is not known yet"
						 : "it is starting");
		return false;
	}
	return true;
}

/* The history more than half of those with data share; NULL = none (reason) when *ret_data > 0. */
static const char *common_history(const struct galera_situation *s, const struct galera_times *t,
				  size_t *ret_data)
{
	const char *found = NULL;
	size_t best = 0, data = 0;

	for (size_t i = 0; i < s->n; i++) {
		size_t same = 0;

		if (!fresh(s, t, i) || !has_data(&s->members[i]))
			continue;
		data++;
		for (size_t j = 0; j < s->n; j++)
			same += fresh(s, t, j) && has_data(&s->members[j]) &&
				streq(s->members[i].uuid, s->members[j].uuid);
		if (same > best) {
			best = same;
			found = s->members[i].uuid;
		}
	}
	*ret_data = data;
	return best * 2 > data ? found : NULL;
}

/* Does a come before b as founder? Both have data of one history. */
static bool ahead(const struct galera_member *a, const struct galera_member *b)
{
	if (a->seqno != b->seqno)
		return a->seqno > b->seqno;
	if (a->phase != b->phase)
		return a->phase == GALERA_NON_PRIMARY; /* it runs already */
	return a->safe_to_bootstrap && !b->safe_to_bootstrap;
}

/* Who may make the next primary component: an index, or NOBODY with the reason. preferred wins where only the operator can
 * tell (histories differ, override). */
static size_t contest(const struct galera_situation *s, const struct galera_times *t, size_t preferred,
		      char *reason)
{
	size_t data, best = NOBODY;
	const char *history;

	if (!enough_heard(s, t, reason) || !all_settled(s, t, reason))
		return NOBODY;
	history = common_history(s, t, &data);
	if (!data) {
		if (count_heard(s, t) < s->n) {
			say(reason, "override refused: no member that was heard has any data");
			return NOBODY;
		}
		return 0;
	}
	if (!history) {
		if (s->override && has_data(&s->members[preferred]))
			return preferred;
		say(reason, "members hold data of different histories and none has a majority; an operator "
			    "must choose");
		return NOBODY;
	}
	for (size_t i = 0; i < s->n; i++) {
		const struct galera_member *m = &s->members[i];

		if (fresh(s, t, i) && has_data(m) && streq(m->uuid, history) &&
		    (best == NOBODY || ahead(m, &s->members[best])))
			best = i;
	}
	return best;
}

/* Down or non-primary, and nobody to join. */
static struct galera_decision stand(const struct galera_situation *s, const struct galera_times *t)
{
	const struct galera_member *self = &s->members[s->self], *m;
	char reason[GALERA_REASON_MAX];
	size_t winner = contest(s, t, s->self, reason);
	bool running = self->phase == GALERA_NON_PRIMARY;

	if (winner == NOBODY)
		return decision(GALERA_WAIT, "%s", reason);
	m = &s->members[winner];
	if (winner != s->self)
		return decision(GALERA_WAIT, "waiting for %s to make the primary component (%s)", m->name,
				!m->uuid[0]		  ? "first start"
				: m->seqno > self->seqno  ? "its data reaches further"
				: m->seqno == self->seqno ? "same data, it comes first"
							  : "its history has the majority");
	if ((running || find(s, t, GALERA_NON_PRIMARY, false) != NOBODY) && s->calm_ms < t->calm)
		return decision(GALERA_WAIT, "giving Galera %lld ms to heal by itself", (long long)t->calm);
	if (!self->uuid[0])
		return decision(GALERA_BOOTSTRAP, "first start: no member has any data");
	return decision(running ? GALERA_PC_BOOTSTRAP : GALERA_BOOTSTRAP,
			"no primary component anywhere, and nobody's data reaches further than %s:%lld",
			self->uuid, (long long)self->seqno);
}

static struct galera_decision decide_down(const struct galera_situation *s, const struct galera_times *t)
{
	const struct galera_member *self = &s->members[s->self];
	size_t p = find(s, t, GALERA_PRIMARY, false), f = find(s, t, GALERA_STARTING, true);
	const struct galera_member *m = &s->members[p];

	if (p == NOBODY && f != NOBODY)
		return decision(GALERA_WAIT, "waiting: %s is making the primary component",
				s->members[f].name);
	if (p == NOBODY)
		return stand(s, t);
	if (s->diverged)
		return decision(
			GALERA_SET_ASIDE,
			"own data reaches further than that of %s's primary component, made without it",
			m->name);
	if (self->phase == GALERA_EMPTY)
		return decision(GALERA_JOIN, "joining %s; no data yet: full state transfer", m->name);
	if (m->uuid[0] && !streq(m->uuid, self->uuid))
		return decision(GALERA_SET_ASIDE, "own data is of another history (%s) than that of %s (%s)",
				self->uuid, m->name, m->uuid);
	return decision(GALERA_JOIN, "joining %s from position %lld", m->name, (long long)self->seqno);
}

/* Every member of a primary component is fresh and self is none of them: whoever is in it, STARTING ones included, is counted. */
static bool left_out(const struct galera_situation *s, const struct galera_times *t)
{
	int64_t component = 0, primary = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct galera_member *m = &s->members[i];

		if (i == s->self || !fresh(s, t, i) || m->phase != GALERA_PRIMARY)
			continue;
		primary++;
		component = MAX(component, m->component);
	}
	return component > 0 && component <= primary;
}

static struct galera_decision decide_starting(const struct galera_situation *s, const struct galera_times *t)
{
	size_t p = find(s, t, GALERA_PRIMARY, false);

	if (s->members[s->self].bootstrapping)
		return decision(GALERA_RUN, "making the primary component");
	if (p != NOBODY && s->phase_ms >= t->restart && left_out(s, t))
		return decision(GALERA_RESTART, "%s's primary component did not take this member in",
				s->members[p].name);
	if (p != NOBODY)
		return decision(GALERA_RUN, "joining %s", s->members[p].name);
	if (find(s, t, GALERA_STARTING, true) == NOBODY && count_heard(s, t) == s->n &&
	    MIN(s->calm_ms, s->phase_ms) >= t->orphan)
		return decision(GALERA_RESTART, "the primary component to join has gone");
	return decision(GALERA_RUN, "joining");
}

static struct galera_decision decide_non_primary(const struct galera_situation *s,
						 const struct galera_times *t)
{
	size_t p = find(s, t, GALERA_PRIMARY, false), f = find(s, t, GALERA_STARTING, true);

	if (p != NOBODY && s->phase_ms >= t->restart)
		return decision(GALERA_RESTART,
				"%s is in a primary component and this member did not get back into it",
				s->members[p].name);
	if (p != NOBODY)
		return decision(GALERA_WAIT, "cut off from the primary component of %s; Galera merges again",
				s->members[p].name);
	if (f != NOBODY)
		return decision(GALERA_WAIT, "waiting: %s is making the primary component",
				s->members[f].name);
	return stand(s, t);
}

static struct galera_decision decide_primary(const struct galera_situation *s, const struct galera_times *t)
{
	const struct galera_member *self = &s->members[s->self];
	size_t p = find(s, t, GALERA_PRIMARY, false);

	for (size_t i = 0; i < s->n; i++) {
		const struct galera_member *m = &s->members[i];

		if (i != s->self && fresh(s, t, i) && m->phase == GALERA_PRIMARY && m->uuid[0] &&
		    self->uuid[0] && !streq(m->uuid, self->uuid))
			return decision(
				GALERA_RUN,
				"two primary components with different histories (also %s): an operator must "
				"stop one",
				m->name);
	}
	/* Galera leaves a donor whose component broke up during the transfer a donor for ever */
	if (s->stuck_ms >= t->restart && p != NOBODY && find(s, t, GALERA_STARTING, false) == NOBODY)
		return decision(GALERA_RESTART, "in the primary component, but serving nobody; %s goes on",
				s->members[p].name);
	return decision(GALERA_RUN, "in the primary component");
}

struct galera_decision galera_decide(const struct galera_situation *s, const struct galera_times *t)
{
	const struct galera_member *self = &s->members[s->self];

	ensure(s->n >= 1 && s->n <= GALERA_MEMBERS_MAX && s->self < s->n);
	if (s->wedged &&
	    self->phase >= GALERA_STARTING) /* at once, whoever else is there: it holds all of them up */
		return decision(GALERA_RESTART, "mariadbd cannot go on and does not end");
	switch (self->phase) {
	case GALERA_UNKNOWN:
		if (s->broken && find(s, t, GALERA_PRIMARY, false) != NOBODY)
			return decision(GALERA_SET_ASIDE,
					"own data cannot be read; the primary component has all of it");
		return decision(GALERA_RECOVER, "reading how far the data reaches");
	case GALERA_EMPTY:
	case GALERA_STOPPED:
		return decide_down(s, t);
	case GALERA_STARTING:
		return decide_starting(s, t);
	case GALERA_NON_PRIMARY:
		return decide_non_primary(s, t);
	case GALERA_PRIMARY:
		return decide_primary(s, t);
	}
	ensure(false);
	return decision(GALERA_WAIT, "no such phase");
}

bool galera_grant(const struct galera_situation *s, const struct galera_times *t, const struct galera_vote *v,
		  char reason[GALERA_REASON_MAX])
{
	const struct galera_member *self = &s->members[s->self];
	char why[GALERA_REASON_MAX];
	size_t winner, founder;

	ensure(s->n >= 1 && s->n <= GALERA_MEMBERS_MAX && s->self < s->n);
	if (v->candidate >= s->n || !fresh(s, t, v->candidate)) {
		say(reason, "no: the candidate has not been heard of lately");
		return false;
	}
	if (v->epoch < v->promised_epoch ||
	    (v->epoch == v->promised_epoch && v->promised_to != v->candidate)) {
		say(reason, "no: epoch %llu is taken", (unsigned long long)v->promised_epoch);
		return false;
	}
	if (v->promised_epoch && v->promised_to < s->n && v->promised_to != v->candidate &&
	    !fresh(s, t, v->promised_to) && v->promised_age_ms < t->promise) {
		say(reason, "no: %s has this vote and may be using it", s->members[v->promised_to].name);
		return false;
	}
	if (self->phase == GALERA_UNKNOWN) {
		say(reason, "no: the position of %s is not known yet", self->name);
		return false;
	}
	founder = find(s, t, GALERA_STARTING, true);
	if (self->phase == GALERA_STARTING || self->phase == GALERA_PRIMARY || founder != NOBODY) {
		say(reason, "no: %s is %s", founder != NOBODY ? s->members[founder].name : self->name,
		    self->phase == GALERA_PRIMARY ? "in a primary component" : "starting");
		return false;
	}
	winner = contest(s, t, v->candidate, why);
	if (winner == NOBODY) {
		say(reason, "no: %.*s", GALERA_REASON_MAX - 5, why);
		return false;
	}
	if (winner != v->candidate) {
		say(reason, "no: %s comes first", s->members[winner].name);
		return false;
	}
	say(reason, "yes: %s in epoch %llu", s->members[winner].name, (unsigned long long)v->epoch);
	return true;
}

size_t galera_votes_needed(const struct galera_situation *s)
{
	return s->override ? count_heard(s, &galera_times_default) : s->n;
}
