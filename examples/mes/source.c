/* SPDX-License-Identifier: Apache-2.0 */
/* mes-orders: the office that places orders. So many a second, each for one machine drawn from the given names, each under its own
 * Idempotency-Key; an order that was not acknowledged is sent again, to the next gateway, until it is or the time is over.
 *
 * Events (JSON lines, t in ms): placed {key, m, t0}; order {key, m, t0, tries, status} acknowledged; failed {key, m, t0, tries}; end
 * {placed, acked, failed}. */
#include "floor.h"

#define IN_FLIGHT_MAX 2000

struct office {
	struct floor f;
	int64_t interval_ms, duration_ms, drain_ms, machines_count;
	char *prefix, *events;
	char **gateways, **machine_prefixes;
	size_t gateway;
	uint64_t placed, acked, failed, in_flight;
	uint64_t ends_at;
	bool placing;
};

struct order {
	struct office *o;
	struct timer *retry;
	char key[64], machine[48];
	int64_t t0_us;
	unsigned tries, quantity;
	size_t gateway;
};

static void send_order(struct order *r);

static void order_end(struct order *r, const char *ev, int status)
{
	floor_event(&r->o->f, ev,
		    json_pack("{s:s,s:s,s:f,s:i,s:i}", "key", r->key, "m", r->machine, "t0",
			      (double)r->t0_us / 1000.0, "tries", (int)r->tries, "status", status));
	r->o->in_flight--;
	timer_free(r->retry);
	free(r);
}

static void on_answer(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct order *r = ctx;

	(void)body, (void)len;
	if (status == 200 || status == 201) {
		r->o->acked++;
		r->o->gateway = r->gateway;
		order_end(r, "order", status);
	} else if (!r->o->placing && clock_ms() >= r->o->ends_at) {
		r->o->failed++;
		order_end(r, "failed", status);
	} else {
		log_debug("order %s: %d %s", r->key, status, text ? text : "");
		r->gateway = (r->gateway + 1) % r->o->f.n_gateways;
		timer_start(r->retry, floor_backoff(r->tries > 1 ? r->tries - 2 : 0), 0);
	}
}

static void on_retry(void *ctx)
{
	send_order(ctx);
}

static void send_order(struct order *r)
{
	_cleanup_free_ char *url = xasprintf("%s/api/orders", r->o->f.gateways[r->gateway]);
	_cleanup_free_ char *key = xasprintf("Idempotency-Key: %s", r->key);
	_cleanup_free_ char *body =
		xasprintf("{\"product\":\"shirt\",\"quantity\":%u,\"source\":\"%s\",\"machines\":[\"%s\"]}",
			  r->quantity, r->o->prefix, r->machine);

	r->tries++;
	http_call_new(r->o->f.http,
		      &(struct http_call_options){
			      .method = "POST",
			      .url = url,
			      .body = body,
			      .body_len = strlen(body),
			      .headers = (const char *[]){"Content-Type: application/json", key, NULL},
			      .timeout_ms = FLOOR_ANSWER_MS,
			      .connect_timeout_ms = FLOOR_CONNECT_MS,
			      .done = on_answer,
			      .ctx = r,
		      });
}

static void on_place(void *ctx)
{
	struct office *o = ctx;
	struct order *r;
	uint32_t pick[2];

	if (!o->placing || o->in_flight >= IN_FLIGHT_MAX)
		return;
	r = xcalloc(1, sizeof(*r));
	random_bytes(pick, sizeof(pick));
	r->o = o;
	r->retry = timer_new(o->f.loop, on_retry, r);
	r->gateway = o->gateway;
	r->t0_us = clock_wall_us();
	r->quantity = pick[1] % 90 + 10;
	snprintf(r->key, sizeof(r->key), "%.20s-%llx-%llu", o->prefix, (unsigned long long)getpid(),
		 (unsigned long long)++o->placed);
	snprintf(r->machine, sizeof(r->machine), "%.28s%03d",
		 o->machine_prefixes[pick[0] % strv_len(o->machine_prefixes)],
		 (int)(pick[1] % (uint32_t)o->machines_count) + 1);
	o->in_flight++;
	floor_event(
		&o->f, "placed",
		json_pack("{s:s,s:s,s:f}", "key", r->key, "m", r->machine, "t0", (double)r->t0_us / 1000.0));
	send_order(r);
}

static void on_stop(void *ctx)
{
	struct office *o = ctx;

	o->placing = false;
	o->ends_at = clock_ms() + (uint64_t)o->drain_ms;
}

static void on_tick(void *ctx)
{
	struct office *o = ctx;

	if (o->placing && o->ends_at && clock_ms() >= o->ends_at)
		on_stop(o);
	if (o->placing || (o->in_flight && clock_ms() < o->ends_at + FLOOR_ANSWER_MS + 500))
		return;
	floor_event(&o->f, "end",
		    json_pack("{s:I,s:I,s:I}", "placed", (json_int_t)o->placed, "acked", (json_int_t)o->acked,
			      "failed", (json_int_t)(o->placed - o->acked)));
	exit(0);
}

#define S(field) offsetof(struct office, field)
static const struct setting table[] = {
	{"gateways", SETTING_STRINGS, S(gateways), NULL, 0, 0, "URL,...", "gateways, the own domain's first"},
	{"interval", SETTING_DURATION, S(interval_ms), "200ms", 1, 3600000, "TIME", "one order each"},
	{"duration", SETTING_DURATION, S(duration_ms), "0", 0, 0, "TIME",
	 "stop by itself after so long; 0 = on SIGTERM"},
	{"drain", SETTING_DURATION, S(drain_ms), "20s", 0, 3600000, "TIME",
	 "then wait so long for what is not acknowledged"},
	{"prefix", SETTING_STRING, S(prefix), "office", 0, 0, "TEXT", "first part of the keys"},
	{"machine-prefixes", SETTING_STRINGS, S(machine_prefixes), NULL, 0, 0, "TEXT,...",
	 "orders go to machines TEXT001 ..."},
	{"machines", SETTING_INT, S(machines_count), "100", 1, 999, "N", "... to TEXTN"},
	{"events", SETTING_STRING, S(events), NULL, 0, 0, "FILE", "append what happens, as JSON lines"},
};

int main(int argc, char **argv)
{
	struct office o = {0};
	struct err e = {0};
	int r = settings_parse("mes-orders", "Places orders with the MES.", table, ARRAY_SIZE(table), argc,
			       argv, &o, NULL, &e);

	if (r > 0)
		return 0;
	log_init("orders", LOG_LEVEL_INFO);
	if (r == 0 && !strv_len(o.machine_prefixes))
		r = err_set(&e, -EINVAL, "--machine-prefixes: at least one");
	if (r == 0)
		r = floor_init(&o.f, o.gateways, o.events, 256, &e);
	if (r < 0) {
		fprintf(stderr, "mes-orders: %s\n", e.text);
		return 2;
	}
	o.placing = true;
	o.ends_at = o.duration_ms ? clock_ms() + (uint64_t)o.duration_ms : 0;
	stop_signals(o.f.loop, on_stop, &o);
	timer_start(timer_new(o.f.loop, on_place, &o), (uint64_t)o.interval_ms, (uint64_t)o.interval_ms);
	timer_start(timer_new(o.f.loop, on_tick, &o), 100, 100);
	return uv_run(o.f.loop, UV_RUN_DEFAULT);
}
