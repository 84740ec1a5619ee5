/* SPDX-License-Identifier: Apache-2.0 */
/* core/route, gateway part: the endpoints of one Service -> the servers a gateway's proxy should have, and the steps from what it
 * has to that. (The node verdict of the same room is in verdict.h.)
 *
 * Pure. Own zone first: its endpoints are active servers. Endpoints of other zones are backups, which the proxy uses by itself at
 * the moment no active one is alive: the failover needs no controller. Among backups the nearest zone (and any about as near)
 * has the full weight and the others the least there is, so that they take next to nothing while a nearer one lives and everything
 * when none does.
 *
 * Not ready endpoints drain: what is connected may go on, nothing new arrives. An endpoint that has gone drains, is cut
 * off after a while, and is deleted. If no endpoint at all is ready, those that still serve while terminating are used. */
#pragma once

#include "base/base.h"

#define ROUTE_ZONE_MAX	    64
#define ROUTE_ADDRESS_MAX   46
#define ROUTE_SERVER_MAX    (ROUTE_ZONE_MAX + ROUTE_ADDRESS_MAX + 10)
#define ROUTE_ENDPOINTS_MAX 1000 /* of one Service port; more are left out */
#define ROUTE_ZONES_MAX	    64
#define ROUTE_WEIGHT_LOCAL  100
#define ROUTE_WEIGHT_NEAR   256
#define ROUTE_WEIGHT_FAR    1

struct route_endpoint {
	char address[ROUTE_ADDRESS_MAX];
	int port;
	char zone[ROUTE_ZONE_MAX]; /* "" = not known */
	bool ready, serving, terminating;
};

struct route_distance {
	char zone[ROUTE_ZONE_MAX];
	double ms; /* < 0 = not known */
};

struct route_service {
	const char *zone; /* the gateway's own */
	const struct route_distance *distances;
	size_t n_distances;
	const struct route_endpoint *endpoints;
	size_t n_endpoints;
	bool local_only; /* externalTrafficPolicy: Local */
};

struct route_server {
	char name[ROUTE_SERVER_MAX]; /* ZONE_ADDRESS_PORT */
	char address[ROUTE_ADDRESS_MAX];
	int port;
	char zone[ROUTE_ZONE_MAX];
	bool backup, drain;
	int weight; /* 1..256 */
};

struct route_plan {
	size_t n;
	struct route_server *v; /* in order of name; malloc */
};

void route_plan(const struct route_service *s, struct route_plan *ret);
void route_plan_done(struct route_plan *p);

/* ---- what the proxy has -> what is to be done ---- */
enum route_health { ROUTE_UP, ROUTE_DOWN };
enum route_admin { ROUTE_READY, ROUTE_DRAIN, ROUTE_MAINT };

struct route_observed {
	char name[ROUTE_SERVER_MAX];
	enum route_health health;
	enum route_admin admin;
	bool backup;
	int weight;
	int64_t sessions;
	int64_t draining_ms; /* how long it has been drained; 0 = just now or not */
};

enum route_step_kind {
	ROUTE_ADD,
	ROUTE_SET_READY,
	ROUTE_SET_DRAIN,
	ROUTE_SET_WEIGHT,
	ROUTE_SET_MAINT,
	ROUTE_DELETE
};

struct route_step {
	enum route_step_kind kind;
	const char *name;		   /* borrowed from plan or observed */
	const struct route_server *server; /* ROUTE_ADD, ROUTE_SET_WEIGHT: the wanted state */
};

/* Fills ret (room for n_have * 2 + plan->n * 2 steps) and returns how many. Level-triggered: repeat with what is then observed until
 * nothing is left to do. drain_ms_max: a server that has gone is cut off after so long. */
size_t route_steps(const struct route_plan *plan, const struct route_observed *have, size_t n_have,
		   int64_t drain_ms_max, struct route_step *ret);

/* ---- who serves now? For the timeline of failovers ---- */
/* The zone that takes new requests: own zone, else the zones of the living backups with the highest weight joined by '+'; "" = nobody. */
void route_serving(const struct route_plan *plan, const struct route_observed *have, size_t n_have, char *out,
		   size_t size);

/* ---- distances, measured ---- */
#define ROUTE_SAMPLES	  9
#define ROUTE_SAMPLES_MIN 3 /* nothing is shown before */

struct route_meter {
	double sample_ms[ROUTE_SAMPLES];
	size_t n, next;
	double shown_ms; /* what plans use; < 0 = nothing yet */
};

void route_meter_init(struct route_meter *m);
/* Median of the last samples; what is shown changes only when the median has left it by a third and a millisecond, so that plans
 * do not follow noise. Returns whether it changed. */
bool route_meter_add(struct route_meter *m, double ms);
