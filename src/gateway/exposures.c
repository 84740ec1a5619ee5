/* SPDX-License-Identifier: Apache-2.0 */
/* Services of type LoadBalancer and their EndpointSlices -> what the proxy exposes. Ports that are UDP or SCTP are not exposed. Two
 * Services that want the same port: the older one has it. */
#include "gateway/internal.h"

#include <ctype.h>

#define CLASS "kuayu.io/gateway"

bool service_is_ours(const json_t *service)
{
	const char *class = js_str(service, "spec.loadBalancerClass");

	return streq(js_str(service, "spec.type"), "LoadBalancer") &&
	       !js_get(service, "metadata.deletionTimestamp") && (!class || streq(class, CLASS));
}

static enum protocol protocol_of(const json_t *port)
{
	const char *p = js_str_or(port, "appProtocol", "tcp");

	if (strcasecmp(p, "http") == 0 || streq(p, "kubernetes.io/ws"))
		return PROTOCOL_HTTP;
	if (strcasecmp(p, "grpc") == 0 || streq(p, "kubernetes.io/h2c"))
		return PROTOCOL_H2;
	return PROTOCOL_TCP;
}

static const char *annotation(const json_t *o, const char *name)
{
	return json_string_value(json_object_get(js_get(o, "metadata.annotations"), name));
}

/* A path is copied into the proxy's configuration: printable, no blanks, quotes or comment signs. */
static char *health_path(const json_t *service)
{
	const char *path = annotation(service, "kuayu.io/health-path");

	if (!path || *path != '/' || strlen(path) > 500)
		return NULL;
	for (const char *c = path; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("/-_.~%?=&", *c))
			return NULL;
	return xstrdup(path);
}

static void exposure_done(struct exposure *x)
{
	free(x->name);
	free(x->ns);
	free(x->service);
	free(x->health_path);
	free(x->created);
	route_plan_done(&x->plan);
}

void exposures_done(struct exposures *x)
{
	for (size_t i = 0; i < x->n; i++)
		exposure_done(&x->v[i]);
	free(x->v);
	*x = (struct exposures){0};
}

struct exposure *exposures_find(const struct exposures *x, const char *name)
{
	for (size_t i = 0; i < x->n; i++)
		if (streq(x->v[i].name, name))
			return &x->v[i];
	return NULL;
}

/* ---- endpoints ---- */

struct endpoints {
	size_t n;
	struct route_endpoint *v;
};

static int slice_port(const json_t *slice, const char *name)
{
	const json_t *ports = js_get(slice, "ports"), *p;
	size_t i;

	json_array_foreach (ports, i, p)
		if (streq(js_str_or(p, "name", ""), name))
			return (int)js_int(p, "port", 0);
	return 0;
}

static void endpoint_add(struct endpoints *e, const json_t *o, int port)
{
	const char *address = json_string_value(json_array_get(js_get(o, "addresses"), 0));
	struct route_endpoint *r = &e->v[e->n];

	if (!address || strlen(address) >= sizeof(r->address) || port <= 0 || port > 65535 ||
	    e->n == ROUTE_ENDPOINTS_MAX || strspn(address, "0123456789abcdefABCDEF.:") != strlen(address))
		return;
	*r = (struct route_endpoint){.port = port};
	snprintf(r->address, sizeof(r->address), "%s", address);
	snprintf(r->zone, sizeof(r->zone), "%s", js_str_or(o, "zone", ""));
	r->terminating = js_bool(o, "conditions.terminating", false);
	r->ready = js_bool(o, "conditions.ready", true);
	r->serving = js_bool(o, "conditions.serving", r->ready);
	e->n++;
}

static void endpoints_of(const json_t *slices, const struct exposure *x, const char *port_name,
			 struct endpoints *ret)
{
	const json_t *slice, *o;
	size_t i, k;

	*ret = (struct endpoints){0, xcalloc(ROUTE_ENDPOINTS_MAX, sizeof(ret->v[0]))};
	json_array_foreach (slices, i, slice) {
		const json_t *labels = js_get(slice, "metadata.labels");
		int port;

		if (!streq(json_string_value(json_object_get(labels, "kubernetes.io/service-name")),
			   x->service) ||
		    !streq(js_str(slice, "metadata.namespace"), x->ns) ||
		    streq(js_str(slice, "addressType"), "FQDN"))
			continue;
		port = slice_port(slice, port_name);
		json_array_foreach (js_get(slice, "endpoints"), k, o)
			endpoint_add(ret, o, port);
	}
}

/* ---- exposures ---- */

static void plan(struct exposure *x, const json_t *slices, const char *port_name,
		 const struct exposure_input *in)
{
	struct endpoints e;
	struct route_service s = {.zone = in->zone,
				  .distances = in->distances,
				  .n_distances = in->n_distances,
				  .local_only = x->local_only};

	endpoints_of(slices, x, port_name, &e);
	s.endpoints = e.v;
	s.n_endpoints = e.n;
	route_plan(&s, &x->plan);
	free(e.v);
}

static void expose(struct exposures *ret, const json_t *service, const json_t *port, const json_t *slices,
		   const struct exposure_input *in)
{
	struct exposure *x = &ret->v[ret->n];
	const char *timeout = annotation(service, "kuayu.io/response-timeout");

	*x = (struct exposure){
		.ns = xstrdup(js_str_or(service, "metadata.namespace", "")),
		.service = xstrdup(js_str_or(service, "metadata.name", "")),
		.port = (int)js_int(port, "port", 0),
		.protocol = protocol_of(port),
		.affinity = streq(js_str(service, "spec.sessionAffinity"), "ClientIP"),
		.local_only = streq(js_str(service, "spec.externalTrafficPolicy"), "Local"),
		.health_path = health_path(service),
		.created = xasprintf("%s %s/%s", js_str_or(service, "metadata.creationTimestamp", ""),
				     js_str_or(service, "metadata.namespace", ""),
				     js_str_or(service, "metadata.name", "")),
	};
	x->name = xasprintf("%s_%s_%d", x->ns, x->service, x->port);
	if (timeout && (str_duration_ms(timeout, &x->response_timeout_ms) < 0 || x->response_timeout_ms <= 0))
		x->response_timeout_ms = 0;
	plan(x, slices, js_str_or(port, "name", ""), in);
	ret->n++;
}

static int by_age(const void *a, const void *b)
{
	return strcmp(((const struct exposure *)a)->created, ((const struct exposure *)b)->created);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct exposure *)a)->name, ((const struct exposure *)b)->name);
}

/* Leaves one exposure a port. */
static void settle_conflicts(struct exposures *x, json_t *denied)
{
	size_t n = 0;

	for (size_t i = 0; i < x->n; i++) {
		size_t k = 0;

		while (k < n && x->v[k].port != x->v[i].port)
			k++;
		if (k < n) {
			_cleanup_free_ char *key = xasprintf("%s/%s", x->v[i].ns, x->v[i].service);
			_cleanup_free_ char *why = xasprintf("port %d is already exposed for Service %s/%s",
							     x->v[i].port, x->v[k].ns, x->v[k].service);

			json_object_set_new(denied, key, json_string(why));
			exposure_done(&x->v[i]);
			continue;
		}
		x->v[n++] = x->v[i];
	}
	x->n = n;
}

void exposures_build(const json_t *services, const json_t *slices, const struct exposure_input *in,
		     struct exposures *ret, json_t **ret_denied)
{
	const json_t *service, *port;
	size_t i, k;

	*ret = (struct exposures){0, xcalloc(EXPOSURES_MAX, sizeof(ret->v[0]))};
	*ret_denied = json_object();
	json_array_foreach (services, i, service)
		json_array_foreach (js_get(service, "spec.ports"), k, port)
			if (service_is_ours(service) && ret->n < EXPOSURES_MAX &&
			    js_int(port, "port", 0) > 0 && streq(js_str_or(port, "protocol", "TCP"), "TCP"))
				expose(ret, service, port, slices, in);
	qsort(ret->v, ret->n, sizeof(ret->v[0]), by_age);
	settle_conflicts(ret, *ret_denied);
	qsort(ret->v, ret->n, sizeof(ret->v[0]), by_name);
}
