/* SPDX-License-Identifier: Apache-2.0 */
/* core/route, gateway part. test/golden/route/NAME.txt are scenarios in words, a file may hold several:
 *   zone Z | distance ZONE MS | local-only      the gateway
 *   endpoint ADDRESS:PORT zone=Z STATE           STATE: ready, unready, terminating (serves), gone (terminating, serves no more)
 *   have NAME up|down [drain|maint] weight=N sessions=N draining=MS backup     what the proxy has
 *   want NAME active|backup weight=N [drain]     each planned server, in order
 *   do add|ready|drain|weight|maint|delete NAME  each step, in order
 *   serving ZONES|nobody                         ends a scenario; `forget` before the next one drops endpoints and servers
 * Beside them: random endpoints, where repeating the steps must always reach the plan. */
#include <dirent.h>

#include "test.h"

#include "core/route/route.h"

#define MANY 64

struct play {
	const char *file;
	int line;
	char zone[ROUTE_ZONE_MAX];
	struct route_distance distances[MANY];
	struct route_endpoint endpoints[MANY];
	struct route_observed have[MANY];
	struct route_service service;
	size_t n_have;
	struct buf wanted; /* the want and do lines */
	int scenarios, wrong;
};

static const char *step_names[] = {
	[ROUTE_ADD] = "add",	       [ROUTE_SET_READY] = "ready", [ROUTE_SET_DRAIN] = "drain",
	[ROUTE_SET_WEIGHT] = "weight", [ROUTE_SET_MAINT] = "maint", [ROUTE_DELETE] = "delete",
};

static void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from);
}

static void endpoint(struct play *p, char **w)
{
	struct route_endpoint *e = &p->endpoints[p->service.n_endpoints++];
	char *colon = strrchr(w[1], ':');

	ensure(p->service.n_endpoints < MANY);
	*e = (struct route_endpoint){.port = atoi(colon + 1)};
	*colon = 0;
	copy(e->address, sizeof(e->address), w[1]);
	for (w += 2; *w; w++) {
		if (str_starts(*w, "zone="))
			copy(e->zone, sizeof(e->zone), *w + 5);
		else if (streq(*w, "ready"))
			e->ready = e->serving = true;
		else if (streq(*w, "terminating"))
			e->serving = e->terminating = true;
		else if (streq(*w, "gone"))
			e->terminating = true;
	}
}

static void have(struct play *p, char **w)
{
	struct route_observed *h = &p->have[p->n_have++];

	ensure(p->n_have < MANY);
	*h = (struct route_observed){.weight = ROUTE_WEIGHT_LOCAL};
	copy(h->name, sizeof(h->name), w[1]);
	for (w += 2; *w; w++) {
		const char *value = strchr(*w, '=');

		if (streq(*w, "down"))
			h->health = ROUTE_DOWN;
		else if (streq(*w, "drain"))
			h->admin = ROUTE_DRAIN;
		else if (streq(*w, "maint"))
			h->admin = ROUTE_MAINT;
		else if (streq(*w, "backup"))
			h->backup = true;
		else if (str_starts(*w, "weight="))
			h->weight = atoi(value + 1);
		else if (str_starts(*w, "sessions="))
			h->sessions = atoi(value + 1);
		else if (str_starts(*w, "draining="))
			h->draining_ms = atoi(value + 1);
	}
}

static void judge(struct play *p, const char *serving_line)
{
	_cleanup_buf_ struct buf got = {0};
	struct route_step steps[4 * MANY];
	struct route_plan plan;
	char serving[200];
	size_t n;

	p->service.zone = p->zone;
	p->service.distances = p->distances;
	p->service.endpoints = p->endpoints;
	route_plan(&p->service, &plan);
	for (size_t i = 0; i < plan.n; i++)
		buf_addf(&got, "want %s %s weight=%d%s\n", plan.v[i].name,
			 plan.v[i].backup ? "backup" : "active", plan.v[i].weight,
			 plan.v[i].drain ? " drain" : "");
	n = route_steps(&plan, p->have, p->n_have, 30000, steps);
	for (size_t i = 0; i < n; i++)
		buf_addf(&got, "do %s %s\n", step_names[steps[i].kind], steps[i].name);
	route_serving(&plan, p->have, p->n_have, serving, sizeof(serving));
	buf_addf(&got, "serving %s\n", *serving ? serving : "nobody");
	buf_addf(&p->wanted, "%s\n", serving_line);
	if (!streq(got.data, p->wanted.data)) {
		print_error("%s:%d\n--- wanted\n%s--- got\n%s", p->file, p->line, p->wanted.data, got.data);
		p->wrong++;
	}
	buf_skip(&p->wanted, p->wanted.len);
	route_plan_done(&plan);
	p->scenarios++;
}

static void play_line(struct play *p, const char *line)
{
	_cleanup_strv_ char **w = strv_split(line, ' ', false);

	if (streq(w[0], "zone"))
		copy(p->zone, sizeof(p->zone), w[1] ? w[1] : "");
	else if (streq(w[0], "local-only"))
		p->service.local_only = true;
	else if (streq(w[0], "distance")) {
		struct route_distance *d = &p->distances[p->service.n_distances++];

		copy(d->zone, sizeof(d->zone), w[1]);
		d->ms = atof(w[2]);
	} else if (streq(w[0], "endpoint"))
		endpoint(p, w);
	else if (streq(w[0], "have"))
		have(p, w);
	else if (streq(w[0], "want") || streq(w[0], "do"))
		buf_addf(&p->wanted, "%s\n", line);
	else if (streq(w[0], "serving"))
		judge(p, line);
	else if (streq(w[0], "forget"))
		p->service.n_endpoints = p->n_have = 0;
	else
		fail_msg("%s:%d: unknown word %s", p->file, p->line, w[0]);
}

static void golden(void **state)
{
	const char *source = getenv("KUAYU_SOURCE");
	_cleanup_free_ char *folder = xasprintf("%s/test/golden/route", source ? source : ".");
	struct dirent **names;
	int n = scandir(folder, &names, NULL, alphasort), scenarios = 0, wrong = 0;

	(void)state;
	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", folder, names[i]->d_name), *text = NULL;
		struct play *p = xcalloc(1, sizeof(*p));
		char *next;

		p->file = path;
		if (str_ends(path, ".txt") && !str_starts(names[i]->d_name, "verdict"))
			assert_int_equal(file_read(path, 1 << 20, &text, NULL, NULL), 0);
		for (char *line = text; line; line = next) {
			next = strchr(line, '\n');
			if (next)
				*next++ = 0;
			p->line++;
			if (*line && *line != '#')
				play_line(p, line);
		}
		scenarios += p->scenarios;
		wrong += p->wrong;
		buf_done(&p->wanted);
		free(p);
		free(names[i]);
	}
	free(names);
	print_message("%d scenarios\n", scenarios);
	assert_int_equal(wrong, 0);
	assert_true(scenarios >= 12);
}

/* A proxy as simple as can be: does the steps, lets a session end now and then. */
static size_t apply(struct route_observed *h, size_t n, const struct route_step *steps, size_t n_steps)
{
	for (size_t i = 0; i < n_steps; i++) {
		size_t k = 0;

		while (k < n && !streq(h[k].name, steps[i].name))
			k++;
		switch (steps[i].kind) {
		case ROUTE_ADD:
			assert_int_equal(k, n);
			assert_true(n < MANY);
			h[n] = (struct route_observed){.backup = steps[i].server->backup,
						       .weight = steps[i].server->weight};
			copy(h[n++].name, ROUTE_SERVER_MAX, steps[i].server->name);
			break;
		case ROUTE_SET_READY:
			h[k].admin = ROUTE_READY;
			break;
		case ROUTE_SET_DRAIN:
			h[k].admin = ROUTE_DRAIN;
			break;
		case ROUTE_SET_MAINT:
			h[k].admin = ROUTE_MAINT;
			h[k].sessions = 0;
			break;
		case ROUTE_SET_WEIGHT:
			h[k].weight = steps[i].server->weight;
			break;
		case ROUTE_DELETE:
			assert_true(k < n);
			assert_int_equal(h[k].admin, ROUTE_MAINT);
			memmove(h + k, h + k + 1, (--n - k) * sizeof(h[0]));
		}
	}
	return n;
}

static void steps_reach_the_plan(void **state)
{
	static struct route_observed h[MANY];
	size_t n = 0;
	unsigned seed = 9;

	(void)state;
	for (int round = 0; round < 500; round++) {
		struct route_endpoint e[12];
		struct route_service s = {.zone = "a", .endpoints = e, .n_endpoints = rand_r(&seed) % 12};
		struct route_plan plan;
		struct route_step steps[4 * MANY];
		size_t left;
		int turns = 0;

		for (size_t i = 0; i < s.n_endpoints; i++) {
			e[i] = (struct route_endpoint){
				.port = 80, .ready = rand_r(&seed) % 2, .serving = rand_r(&seed) % 2};
			snprintf(e[i].address, sizeof(e[i].address), "10.0.0.%d", rand_r(&seed) % 20);
			snprintf(e[i].zone, sizeof(e[i].zone), "%c", e[i].address[7] % 3 + 'a');
		}
		route_plan(&s, &plan);
		while ((left = route_steps(&plan, h, n, 3000, steps)) > 0 || turns == 0) {
			size_t was = n;
			struct route_observed before[MANY];

			memcpy(before, h, sizeof(before));
			/* names of steps may point into what is observed */
			for (size_t i = 0; i < left; i++)
				for (size_t k = 0; k < was; k++)
					if (steps[i].name == h[k].name)
						steps[i].name = before[k].name;
			n = apply(h, n, steps, left);
			for (size_t k = 0; k < n; k++) {
				h[k].draining_ms = h[k].admin == ROUTE_DRAIN ? h[k].draining_ms + 1000 : 0;
				h[k].health = rand_r(&seed) % 8 ? ROUTE_UP : ROUTE_DOWN;
				h[k].sessions = rand_r(&seed) % 3;
			}
			assert_true(++turns < 20);
		}
		for (size_t i = 0; i < plan.n; i++) {
			size_t k = 0;

			while (k < n && !streq(h[k].name, plan.v[i].name))
				k++;
			assert_true(k < n);
			assert_int_equal(h[k].admin, plan.v[i].drain ? ROUTE_DRAIN : ROUTE_READY);
			assert_int_equal(h[k].backup, plan.v[i].backup);
		}
		route_plan_done(&plan);
	}
}

static void meter(void **state)
{
	struct route_meter m;

	(void)state;
	route_meter_init(&m);
	assert_false(route_meter_add(&m, 5));
	assert_false(route_meter_add(&m, 7));
	assert_true(m.shown_ms < 0);
	assert_true(route_meter_add(&m, 5));
	assert_int_equal((int)m.shown_ms, 5);
	/* one slow sample changes nothing, a lasting change does */
	assert_false(route_meter_add(&m, 5.2));
	assert_false(route_meter_add(&m, 5.1));
	assert_false(route_meter_add(&m, 200));
	for (int i = 0; i < 9; i++)
		route_meter_add(&m, 20);
	assert_int_equal((int)m.shown_ms, 20);
}

TEST_MAIN(cmocka_unit_test(golden), cmocka_unit_test(steps_reach_the_plan), cmocka_unit_test(meter))
