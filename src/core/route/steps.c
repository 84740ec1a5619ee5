/* SPDX-License-Identifier: Apache-2.0 */
/* From what the proxy has to what it should have; who serves; measured distances.
 *
 * Life of a server in the proxy:  ADD -> ready <-> drain -> maint -> deleted.  Only a server in maint can be deleted. One that
 * is gone from the plan drains until its sessions have ended, it is found dead, or drain_ms_max is over. */
#include "core/route/route.h"

static const struct route_server *wanted(const struct route_plan *plan, const char *name)
{
	for (size_t i = 0; i < plan->n; i++)
		if (streq(plan->v[i].name, name))
			return &plan->v[i];
	return NULL;
}

static const struct route_observed *present(const struct route_observed *have, size_t n_have,
					    const char *name)
{
	for (size_t i = 0; i < n_have; i++)
		if (streq(have[i].name, name))
			return &have[i];
	return NULL;
}

static size_t keep(const struct route_server *want, const struct route_observed *h, struct route_step *ret)
{
	size_t n = 0;

	if (h->weight != want->weight)
		ret[n++] = (struct route_step){ROUTE_SET_WEIGHT, want->name, want};
	if (want->drain && h->admin == ROUTE_READY)
		ret[n++] = (struct route_step){ROUTE_SET_DRAIN, want->name, want};
	if (!want->drain && h->admin != ROUTE_READY)
		ret[n++] = (struct route_step){ROUTE_SET_READY, want->name, want};
	return n;
}

static size_t remove_one(const struct route_observed *h, int64_t drain_ms_max, struct route_step *ret)
{
	bool over = h->sessions == 0 || h->health == ROUTE_DOWN || h->draining_ms >= drain_ms_max;
	size_t n = 0;

	if (h->admin == ROUTE_READY && h->health == ROUTE_UP && h->sessions > 0) {
		ret[n++] = (struct route_step){ROUTE_SET_DRAIN, h->name, NULL};
	} else if (h->admin != ROUTE_MAINT && over) {
		ret[n++] = (struct route_step){ROUTE_SET_MAINT, h->name, NULL};
		ret[n++] = (struct route_step){ROUTE_DELETE, h->name, NULL};
	} else if (h->admin == ROUTE_MAINT) {
		ret[n++] = (struct route_step){ROUTE_DELETE, h->name, NULL};
	}
	return n;
}

size_t route_steps(const struct route_plan *plan, const struct route_observed *have, size_t n_have,
		   int64_t drain_ms_max, struct route_step *ret)
{
	size_t n = 0;

	/* First what takes traffic, then what gives it up: there is no moment without a server. */
	for (size_t i = 0; i < plan->n; i++) {
		const struct route_observed *h = present(have, n_have, plan->v[i].name);

		if (h)
			n += keep(&plan->v[i], h, ret + n);
		else
			ret[n++] = (struct route_step){ROUTE_ADD, plan->v[i].name, &plan->v[i]};
	}
	for (size_t i = 0; i < n_have; i++)
		if (!wanted(plan, have[i].name))
			n += remove_one(&have[i], drain_ms_max, ret + n);
	return n;
}

/* ---- who serves ---- */

static bool serves(const struct route_server *r, const struct route_observed *have, size_t n_have)
{
	const struct route_observed *h = present(have, n_have, r->name);

	return h && !r->drain && h->admin == ROUTE_READY && h->health == ROUTE_UP;
}

static void join_zone(char *out, size_t size, const char *zone)
{
	size_t len = strlen(out), n = strlen(zone);

	for (const char *p = out; *p; p += strcspn(p, "+"), p += *p == '+')
		if (strcspn(p, "+") == n && strncmp(p, zone, n) == 0)
			return;
	snprintf(out + len, size - len, "%s%s", len ? "+" : "", *zone ? zone : "?");
}

void route_serving(const struct route_plan *plan, const struct route_observed *have, size_t n_have, char *out,
		   size_t size)
{
	int top = 0;

	ensure(size > 0);
	*out = 0;
	for (size_t i = 0; i < plan->n; i++)
		if (!plan->v[i].backup && serves(&plan->v[i], have, n_have))
			join_zone(out, size, plan->v[i].zone);
	if (*out)
		return;
	for (size_t i = 0; i < plan->n; i++)
		if (serves(&plan->v[i], have, n_have))
			top = MAX(top, plan->v[i].weight);
	for (size_t i = 0; i < plan->n && top; i++)
		if (plan->v[i].weight == top && serves(&plan->v[i], have, n_have))
			join_zone(out, size, plan->v[i].zone);
}

/* ---- distances ---- */

void route_meter_init(struct route_meter *m)
{
	*m = (struct route_meter){.shown_ms = -1};
}

static double median(const struct route_meter *m)
{
	double v[ROUTE_SAMPLES];

	for (size_t i = 0; i < m->n; i++) {
		size_t k = i;

		for (; k > 0 && v[k - 1] > m->sample_ms[i]; k--)
			v[k] = v[k - 1];
		v[k] = m->sample_ms[i];
	}
	return v[m->n / 2];
}

bool route_meter_add(struct route_meter *m, double ms)
{
	double now, gap;

	m->sample_ms[m->next] = ms;
	m->next = (m->next + 1) % ROUTE_SAMPLES;
	m->n = MIN(m->n + 1, (size_t)ROUTE_SAMPLES);
	if (m->n < ROUTE_SAMPLES_MIN)
		return false;
	now = median(m);
	gap = now > m->shown_ms ? now - m->shown_ms : m->shown_ms - now;
	if (m->shown_ms >= 0 && (gap < 1 || gap < m->shown_ms / 3))
		return false;
	m->shown_ms = now;
	return true;
}
