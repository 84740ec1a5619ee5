/* SPDX-License-Identifier: Apache-2.0 */
/* The servers that one Service port should have in this gateway. */
#include <stdlib.h>

#include "core/route/route.h"

/* Zones this much farther than the nearest still count as equally near. */
#define NEAR_FACTOR 1.5
#define NEAR_MS	    2.0

static double distance(const struct route_service *s, const char *zone)
{
	for (size_t i = 0; i < s->n_distances; i++)
		if (streq(s->distances[i].zone, zone) && s->distances[i].ms >= 0)
			return s->distances[i].ms;
	return -1;
}

static bool is_local(const struct route_service *s, const struct route_endpoint *e)
{
	return streq(s->zone, e->zone);
}

/* Ready endpoints take traffic; without any, those that still serve while they terminate. */
static bool takes_traffic(const struct route_endpoint *e, bool any_ready)
{
	return any_ready ? e->ready && !e->terminating : e->serving;
}

static bool left_out(const struct route_service *s, const struct route_endpoint *e)
{
	return s->local_only && !is_local(s, e);
}

/* The nearest zone with a backup that takes traffic; -1 when no distance is known. */
static double nearest(const struct route_service *s, size_t n, bool any_ready)
{
	double best = -1;

	for (size_t i = 0; i < n; i++) {
		const struct route_endpoint *e = &s->endpoints[i];
		double d = distance(s, e->zone);

		if (is_local(s, e) || left_out(s, e) || !takes_traffic(e, any_ready))
			continue;
		if (d >= 0 && (best < 0 || d < best))
			best = d;
	}
	return best;
}

static int weight_of(const struct route_service *s, const struct route_endpoint *e, double nearest_ms)
{
	double d = distance(s, e->zone);

	if (is_local(s, e))
		return ROUTE_WEIGHT_LOCAL;
	if (nearest_ms < 0)
		return ROUTE_WEIGHT_NEAR; /* nothing known: all alike */
	return d >= 0 && (d <= nearest_ms * NEAR_FACTOR || d <= nearest_ms + NEAR_MS) ? ROUTE_WEIGHT_NEAR
										      : ROUTE_WEIGHT_FAR;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct route_server *)a)->name, ((const struct route_server *)b)->name);
}

/* The proxy's names take letters, digits and . _ : - */
static void server_name(struct route_server *r)
{
	snprintf(r->name, sizeof(r->name), "%s_%s_%d", r->zone, r->address, r->port);
	for (char *c = r->name; *c; c++)
		if (!strchr("._:-", *c) && !((*c | 32) >= 'a' && (*c | 32) <= 'z') &&
		    !(*c >= '0' && *c <= '9'))
			*c = '-';
}

/* The same address listed twice (two slices in the middle of a move): the one that takes traffic counts. */
static void unite(struct route_plan *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n; i++) {
		if (n && streq(p->v[n - 1].name, p->v[i].name)) {
			if (!p->v[i].drain)
				p->v[n - 1] = p->v[i];
			continue;
		}
		p->v[n++] = p->v[i];
	}
	p->n = n;
}

void route_plan(const struct route_service *s, struct route_plan *ret)
{
	size_t n = MIN(s->n_endpoints, (size_t)ROUTE_ENDPOINTS_MAX);
	bool any_ready = false;
	double nearest_ms;

	*ret = (struct route_plan){0, xcalloc(n + 1, sizeof(ret->v[0]))};
	for (size_t i = 0; i < n; i++)
		any_ready |= !left_out(s, &s->endpoints[i]) && takes_traffic(&s->endpoints[i], true);
	nearest_ms = nearest(s, n, any_ready);
	for (size_t i = 0; i < n; i++) {
		const struct route_endpoint *e = &s->endpoints[i];
		struct route_server *r = &ret->v[ret->n];

		if (left_out(s, e))
			continue;
		memcpy(r->address, e->address, sizeof(r->address));
		memcpy(r->zone, e->zone, sizeof(r->zone));
		r->port = e->port;
		server_name(r);
		r->backup = !is_local(s, e);
		r->drain = !takes_traffic(e, any_ready);
		r->weight = weight_of(s, e, nearest_ms);
		ret->n++;
	}
	qsort(ret->v, ret->n, sizeof(ret->v[0]), by_name);
	unite(ret);
}

void route_plan_done(struct route_plan *p)
{
	free(p->v);
	*p = (struct route_plan){0};
}
