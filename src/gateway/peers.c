/* SPDX-License-Identifier: Apache-2.0 */
/* The gateways know one another by Leases: kube-system/kuayu-gateway-NODE with the annotations kuayu.io/address and kuayu.io/zone,
 * renewed every 10 s. From them come:
 *  - status.loadBalancer.ingress of every Service: the addresses of ALL gateways, also of those that are down now, so that clients
 *    that are told have where to go; a gateway that has gone for good is taken out by deleting its Lease. One writer: the leader.
 *  - distances between zones: --distances, else the time of a TCP connection to a gateway there (a refused one tells as much),
 *    median of nine, every 5 s. */
#include "gateway/internal.h"

#define RENEW_MS   10000
#define MEASURE_MS 5000
#define PEERS_MAX  32
#define PROBE_PORT 10250 /* the node agent's; whether it answers or refuses makes no difference */
#define NAMESPACE  "kube-system"
#define LABEL	   "kuayu.io/gateway"

struct peer {
	char zone[ROUTE_ZONE_MAX], address[ROUTE_ADDRESS_MAX];
	struct route_meter meter;
	bool used, probing;
};

struct probe {
	uv_tcp_t tcp;
	uv_connect_t connect;
	struct peers *peers; /* NULL once the gateway stops */
	struct probe *next;
	size_t index;
	uint64_t start_us;
};

struct peers {
	struct gateway *g;
	struct kube_cache *leases;
	struct kube_leader *leader;
	struct timer *renew, *measure, *status;
	const struct model_kind *lease_kind, *service_kind;
	struct route_distance distances[ROUTE_ZONES_MAX];
	size_t n_distances;
	bool fixed;	   /* --distances */
	unsigned measured; /* rounds */
	struct peer peer[PEERS_MAX];
	struct probe *probes;
};

static const char *annotation(const json_t *o, const char *name)
{
	const char *value = json_string_value(json_object_get(js_get(o, "metadata.annotations"), name));

	return value ? value : "";
}

/* ---- own lease ---- */

static char *lease_name(const struct peers *p)
{
	return xasprintf("kuayu-gateway-%s", p->g->s.node);
}

static json_t *lease_body(const struct peers *p)
{
	_cleanup_free_ char *name = lease_name(p);
	const struct settings *s = &p->g->s;
	char now[CLOCK_TEXT_MAX];

	return json_pack("{s:s, s:s, s:{s:s, s:s, s:{s:s}, s:{s:s, s:s}}, s:{s:s, s:i, s:s}}", "apiVersion",
			 "coordination.k8s.io/v1", "kind", "Lease", "metadata", "name", name, "namespace",
			 NAMESPACE, "labels", LABEL, "true", "annotations", "kuayu.io/address", s->address,
			 "kuayu.io/zone", s->zone, "spec", "holderIdentity", s->node, "leaseDurationSeconds",
			 3 * RENEW_MS / 1000, "renewTime", clock_text(now, clock_wall_us(), 6));
}

static void on_renewed(void *ctx, int status, json_t *body)
{
	struct peers *p = ctx;

	if (status == 404) {
		_cleanup_json_ json_t *lease = lease_body(p);

		kube_create(p->g->kube, p->lease_kind, NAMESPACE, lease, NULL, NULL);
	} else if (status != 200) {
		log_warn("own Lease: %d %s", status, js_str_or(body, "message", ""));
		timer_start(p->renew, RENEW_MS / 10, RENEW_MS);
	}
}

static void on_renew(void *ctx)
{
	struct peers *p = ctx;
	_cleanup_free_ char *name = lease_name(p);
	_cleanup_json_ json_t *lease = lease_body(p);

	kube_patch(p->g->kube, p->lease_kind, NAMESPACE, name, NULL, KUBE_PATCH_MERGE, lease, on_renewed, p);
}

/* ---- status of Services ---- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* [{ip}] of all gateways, in order. */
static json_t *ingress_new(const struct peers *p)
{
	_cleanup_strv_ char **list = xcalloc(1, sizeof(char *));
	json_t *out = json_array(), *lease;

	kube_cache_foreach(p->leases, lease) if (*annotation(lease, "kuayu.io/address") &&
						 !strv_has(list, annotation(lease, "kuayu.io/address")))
		list = strv_add(list, annotation(lease, "kuayu.io/address"));
	qsort(list, strv_len(list), sizeof(list[0]), by_text);
	for (size_t i = 0; list[i]; i++)
		json_array_append_new(out, json_pack("{s:s}", "ip", list[i]));
	return out;
}

static bool same_addresses(const json_t *have, const json_t *want)
{
	if (json_array_size(have) != json_array_size(want))
		return false;
	for (size_t i = 0; i < json_array_size(want); i++)
		if (!streq(js_str(json_array_get(have, i), "ip"), js_str(json_array_get(want, i), "ip")))
			return false;
	return true;
}

static void status_write(struct peers *p, const json_t *service, json_t *ingress)
{
	_cleanup_json_ json_t *patch =
		json_pack("{s:{s:{s:O}}}", "status", "loadBalancer", "ingress", ingress);

	kube_patch(p->g->kube, p->service_kind, js_str(service, "metadata.namespace"),
		   js_str(service, "metadata.name"), "status", KUBE_PATCH_MERGE, patch, NULL, NULL);
}

/* Services that are no longer of type LoadBalancer lose what was written. */
static void on_status(void *ctx)
{
	struct peers *p = ctx;
	_cleanup_json_ json_t *want = NULL, *nothing = json_array();
	json_t *service;

	if (!gateways_leading(p) || !kube_cache_synced(p->leases) || !kube_cache_synced(p->g->services))
		return;
	want = ingress_new(p);
	kube_cache_foreach(p->g->services, service)
	{
		json_t *have = js_get(service, "status.loadBalancer.ingress");

		if (service_is_ours(service) && !same_addresses(have, want))
			status_write(p, service, want);
		else if (!streq(js_str(service, "spec.type"), "LoadBalancer") && json_array_size(have))
			status_write(p, service, nothing);
	}
}

/* Changes that come together are written together; the slow repetition repairs what failed. */
void gateways_services_changed(struct peers *p)
{
	if (p)
		timer_start(p->status, 100, RENEW_MS);
}

bool gateways_leading(const struct peers *p)
{
	return p->leader && kube_leader_is(p->leader);
}

/* ---- distances ---- */

static void publish(struct peers *p, const char *zone, double ms)
{
	struct route_distance *d = NULL;

	for (size_t i = 0; i < p->n_distances && !d; i++)
		if (streq(p->distances[i].zone, zone))
			d = &p->distances[i];
	if (!d) {
		if (p->n_distances == ROUTE_ZONES_MAX)
			return;
		d = &p->distances[p->n_distances++];
		snprintf(d->zone, sizeof(d->zone), "%s", zone);
	}
	d->ms = ms;
}

static void on_probe_closed(uv_handle_t *h)
{
	free(container_of((uv_tcp_t *)h, struct probe, tcp));
}

static void on_probed(uv_connect_t *r, int status)
{
	struct probe *b = container_of(r, struct probe, connect);
	struct peers *p = b->peers;

	if (p) {
		struct peer *peer = &p->peer[b->index];
		struct probe **at = &p->probes;

		while (*at != b)
			at = &(*at)->next;
		*at = b->next;
		peer->probing = false;
		if ((status == 0 || status == UV_ECONNREFUSED) &&
		    route_meter_add(&peer->meter, (double)(clock_us() - b->start_us) / 1000)) {
			log_info("zone %s is %.2f ms away", peer->zone, peer->meter.shown_ms);
			publish(p, peer->zone, peer->meter.shown_ms);
			gateway_kick(p->g);
		}
	}
	if (!uv_is_closing((uv_handle_t *)&b->tcp))
		uv_close((uv_handle_t *)&b->tcp, on_probe_closed);
}

static void probe(struct peers *p, size_t index)
{
	struct probe *b;
	struct sockaddr_in a;

	if (p->peer[index].probing || uv_ip4_addr(p->peer[index].address, PROBE_PORT, &a) < 0)
		return;
	b = xcalloc(1, sizeof(*b));
	b->peers = p;
	b->index = index;
	b->start_us = clock_us();
	b->next = p->probes;
	p->probes = b;
	p->peer[index].probing = true;
	ensure(uv_tcp_init(p->g->loop, &b->tcp) == 0);
	uv_unref((uv_handle_t *)&b->tcp);
	if (uv_tcp_connect(&b->connect, &b->tcp, (struct sockaddr *)&a, on_probed) < 0)
		on_probed(&b->connect, UV_EINVAL);
}

static struct peer *peer_of(struct peers *p, const char *zone, const char *address)
{
	struct peer *free_slot = NULL;

	for (size_t i = 0; i < PEERS_MAX; i++) {
		struct peer *peer = &p->peer[i];

		if (peer->used && streq(peer->zone, zone) && streq(peer->address, address))
			return peer;
		if (!peer->used && !free_slot)
			free_slot = peer;
	}
	if (free_slot) {
		*free_slot = (struct peer){.used = true};
		snprintf(free_slot->zone, sizeof(free_slot->zone), "%s", zone);
		snprintf(free_slot->address, sizeof(free_slot->address), "%s", address);
		route_meter_init(&free_slot->meter);
	}
	return free_slot;
}

static void on_measure(void *ctx)
{
	struct peers *p = ctx;
	json_t *lease;

	if (++p->measured == ROUTE_SAMPLES) /* the first ones come quickly */
		timer_start(p->measure, MEASURE_MS, MEASURE_MS);

	kube_cache_foreach(p->leases, lease)
	{
		const char *zone = annotation(lease, "kuayu.io/zone"),
			   *address = annotation(lease, "kuayu.io/address");
		struct peer *peer;

		if (streq(zone, p->g->s.zone) || !*address || !(peer = peer_of(p, zone, address)))
			continue;
		probe(p, (size_t)(peer - p->peer));
	}
}

/* "b:5" */
static void fixed_distances(struct peers *p, char *const *list)
{
	for (size_t i = 0; list && list[i]; i++) {
		_cleanup_strv_ char **part = strv_split(list[i], ':', true);

		if (strv_len(part) == 2)
			publish(p, part[0], atof(part[1]));
		else
			log_warn("--distances: '%s' is not ZONE:MILLISECONDS", list[i]);
		p->fixed = true;
	}
}

const struct route_distance *gateways_distances(const struct peers *p, size_t *ret_n)
{
	*ret_n = p->n_distances;
	return p->distances;
}

/* ---- life ---- */

static void on_lease(void *ctx, json_t *old, json_t *obj)
{
	if (!old || !obj ||
	    !json_equal(js_get(old, "metadata.annotations"), js_get(obj, "metadata.annotations")))
		gateways_services_changed(ctx);
}

static void on_started(void *ctx)
{
	gateways_services_changed(ctx);
}

struct peers *gateways_new(struct gateway *g)
{
	struct peers *p = xcalloc(1, sizeof(*p));
	struct kube_cache_handler h = {on_lease, NULL, p};
	struct kube_leader_options o = {.ns = NAMESPACE,
					.name = "kuayu-gateway",
					.identity = g->s.node,
					.duration_ms = 6000,
					.renew_ms = 1500,
					.started = on_started,
					.ctx = p};

	p->g = g;
	p->lease_kind = model_kind_by_plural("coordination.k8s.io", "v1", "leases");
	p->service_kind = model_kind_by_plural("", "v1", "services");
	ensure(p->lease_kind && p->service_kind);
	p->renew = timer_new(g->loop, on_renew, p);
	p->measure = timer_new(g->loop, on_measure, p);
	p->status = timer_new(g->loop, on_status, p);
	fixed_distances(p, g->s.distances);
	p->leases = kube_cache_new(g->kube, p->lease_kind, NAMESPACE,
				   "labelSelector=kuayu.io%2Fgateway%3Dtrue", &h);
	p->leader = kube_leader_new(g->kube, &o);
	timer_start(p->renew, 0, RENEW_MS);
	timer_start(p->status, RENEW_MS, RENEW_MS);
	if (!p->fixed)
		timer_start(p->measure, 1000, MEASURE_MS / 10);
	return p;
}

struct peers *gateways_free(struct peers *p)
{
	if (!p)
		return NULL;
	for (struct probe *b = p->probes; b; b = b->next) {
		b->peers = NULL;
		uv_close((uv_handle_t *)&b->tcp, on_probe_closed);
	}
	kube_cancel(p->g->kube, p);
	p->leader = kube_leader_free(p->leader);
	kube_cache_free(p->leases);
	timer_free(p->renew);
	timer_free(p->measure);
	timer_free(p->status);
	free(p);
	return NULL;
}
