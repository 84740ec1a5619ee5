/* SPDX-License-Identifier: Apache-2.0 */
/* What people and the console want to know about failovers: one JSON line on standard output and an Event on the Service each time
 * the zone that serves it here changes. */
#include "gateway/internal.h"

void gateway_timeline_line(struct gateway *g, json_t *line)
{
	char now[CLOCK_TEXT_MAX];
	char *text;

	json_object_set_new(line, "time", json_string(clock_text(now, clock_wall_us(), 3)));
	json_object_set_new(line, "gateway", json_string(g->s.node));
	text = js_text(line);
	printf("%s\n", text);
	fflush(stdout);
	free(text);
	json_decref(line);
}

static const char *event_of(const struct gateway *g, const char *from, const char *to)
{
	if (!*to)
		return "GatewayNoServer";
	if (streq(to, g->s.zone))
		return "GatewayReturned";
	return streq(from, g->s.zone) ? "GatewayFailover" : "GatewayMoved";
}

static void tell(struct gateway *g, const struct exposure *x, const char *from, const char *to)
{
	const char *event = event_of(g, from, to);
	json_t *service = kube_cache_get(g->services, x->ns, x->service);

	g->failovers += streq(event, "GatewayFailover");
	gateway_timeline_line(g,
			      json_pack("{s:s, s:s, s:s, s:i, s:s, s:s}", "event", event, "namespace", x->ns,
					"service", x->service, "port", x->port, "from", from, "to", to));
	if (service)
		kube_event(g->kube, service, *to ? "Normal" : "Warning", event,
			   "gateway %s in zone %s: port %d moved from %s to %s", g->s.node, g->s.zone,
			   x->port, *from ? from : "nobody", *to ? to : "nobody");
}

void gateway_timeline_serving(struct gateway *g, const struct exposure *x, const char *serving)
{
	char *before = strmap_get(g->serving, x->name);

	if (streq(before, serving))
		return;
	if (before)
		tell(g, x, before, serving);
	strmap_set(g->serving, x->name, xstrdup(serving));
	free(before);
}
