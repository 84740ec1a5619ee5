/* SPDX-License-Identifier: Apache-2.0 */
/* What a server does on its own, on two threads:
 *   probe: a linearizable read twice a second; when none has succeeded for 3 s the server refuses requests and ends its watches
 *     (route.c, watch.c), so that clients go to a server whose store answers;
 *   keep: the default namespaces; default/kubernetes with an EndpointSlice of the servers that are alive (each holds a key under a
 *     3 s lease); compaction of the store's history by one of the servers, never younger than one interval. */
#include <arpa/inet.h>
#include <pthread.h>

#include "api/internal.h"

#define PROBE_MS	   500
#define KEEP_MS		   1000
#define FIRST_MS	   50 /* until the default objects are there: until then the server is not ready */
#define MASTER_LEASE_S	   3
#define MASTERS_MAX	   64
#define EVENT_LEASE_USE_MS 60000 /* events of one minute share a lease */

struct keeper {
	struct api *api;
	pthread_t probe, keep;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping;
	int64_t lease;
	int64_t compact_rev, compact_mark; /* revision to drop up to; the mark's mod_rev when it was read */
	uint64_t compact_at_ms;
};

/* false when it is time to stop */
static bool pause_ms(struct keeper *k, uint64_t ms)
{
	struct timespec until = clock_after(ms);
	bool stopping;

	pthread_mutex_lock(&k->lock);
	if (!k->stopping)
		pthread_cond_timedwait(&k->wake, &k->lock, &until);
	stopping = k->stopping;
	pthread_mutex_unlock(&k->lock);
	return !stopping;
}

/* ---- probe ---- */

static void *run_probe(void *arg)
{
	struct keeper *k = arg;
	bool lost = false;

	do {
		struct store_list l = {0};
		struct err e = {0};
		int r = store_range(k->api->store, REGISTRY "none/", NULL, 1, 0, &l, &e);

		if (r == 0) {
			k->api->store_heard_ms = clock_ms();
			store_list_done(&l);
		}
		if ((r < 0) != lost) {
			lost = r < 0;
			if (lost)
				log_warn("the store does not answer: %s", e.text);
			else
				log_info("the store answers");
		}
	} while (pause_ms(k, PROBE_MS));
	return NULL;
}

/* ---- default objects ---- */

static const struct model_kind *kind_of(const char *group, const char *plural)
{
	return model_kind_by_plural(group, NULL, plural);
}

static json_t *object_of(const struct model_kind *kind, const char *ns, const char *name)
{
	char api_version[128];
	json_t *o = json_pack("{ss ss s{ss}}", "kind", kind->kind, "apiVersion",
			      model_api_version(kind, api_version), "metadata", "name", name);

	if (ns)
		js_set_new(o, "metadata.namespace", json_string(ns));
	return o;
}

/* 0 also when it is there already. Takes over obj. */
static int create(struct api *api, const struct model_kind *kind, const char *ns, json_t *obj)
{
	struct call *c = call_of(api, kind, ns, js_str(obj, "metadata.name"));
	json_t *made = NULL;
	int r = object_create(c, obj, &made);

	if (r < 0 && c->code == 409)
		r = 0;
	if (r < 0)
		log_warn("creating %s %s: %s", kind->plural, c->name, js_str_or(c->status, "message", ""));
	json_decref(made);
	json_decref(obj);
	call_free(c);
	return r;
}

static bool there(struct api *api, const struct model_kind *kind, const char *key)
{
	struct obj *o = cache_get(api->cache, kind, key);

	obj_unref(o);
	return o != NULL;
}

static void make_defaults(struct keeper *k)
{
	static const char *const names[] = {"default", "kube-system", "kube-public", "kube-node-lease"};
	const struct model_kind *ns = kind_of("", "namespaces"), *services = kind_of("", "services");
	struct in_addr a = {.s_addr = htonl(k->api->service_net + 1)};
	char ip[INET_ADDRSTRLEN];
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!there(k->api, ns, names[i]))
			r |= create(k->api, ns, NULL, object_of(ns, NULL, names[i]));
	if (r == 0 && !there(k->api, services, "default/kubernetes")) {
		json_t *o = object_of(services, "default", "kubernetes");

		inet_ntop(AF_INET, &a, ip, sizeof(ip));
		js_set_new(o, "metadata.labels",
			   json_pack("{ss ss}", "component", "apiserver", "provider", "kubernetes"));
		js_set_new(o, "spec",
			   json_pack("{ss ss s[{ss si si ss}]}", "type", "ClusterIP", "clusterIP", ip,
				     "ports", "name", "https", "port", 443, "targetPort", k->api->port,
				     "protocol", "TCP"));
		r = create(k->api, services, "default", o);
	}
	if (r == 0)
		k->api->defaults_there = true;
}

/* ---- servers that are alive ---- */

static int hold_own_key(struct keeper *k, struct err *e)
{
	_cleanup_free_ char *key =
		xasprintf(REGISTRY "masterleases/%s:%d", k->api->s.advertise, k->api->port);
	struct store_op op = {.type = STORE_PUT, .key = key, .value = "1", .value_len = 1};
	struct store_kv kv = {0};
	int64_t rev;
	int r = k->lease ? store_lease_keepalive(k->api->store, k->lease, e) : -ENOENT;

	if (r == 0 && store_get(k->api->store, key, 0, &kv, NULL, e) == 0) {
		store_kv_done(&kv);
		return 0;
	}
	r = store_lease_grant(k->api->store, MASTER_LEASE_S, &k->lease, e);
	if (r < 0)
		return r;
	op.lease = k->lease;
	return store_txn(k->api->store, NULL, 0, &op, 1, &rev, e);
}

struct wanted {
	const char *field;
	json_t *value;
};

/* ctx: a field as it should be */
static int change_field(struct call *c, const json_t *cur, json_t **ret, void *ctx)
{
	const struct wanted *want = ctx;
	json_t *obj = json_deep_copy(cur);

	json_object_set(obj, want->field, want->value);
	*ret = obj;
	if (json_equal(json_object_get(cur, want->field), want->value))
		return 0;
	return prepare_update(c, cur, obj);
}

/* Writes the field where it differs; false = there is no such object. */
static bool keep_field(struct keeper *k, const struct model_kind *kind, const char *field, json_t *value)
{
	struct call *c = call_of(k->api, kind, "default", "kubernetes");
	struct wanted want = {field, value};
	json_t *obj = NULL;
	bool missing;

	missing = object_modify(c, change_field, &want, &obj) < 0 && c->code == 404;
	if (!missing && !obj)
		log_warn("default/kubernetes: %s", js_str_or(c->status, "message", ""));
	json_decref(obj);
	call_free(c);
	return !missing;
}

static json_t *own_port_new(struct keeper *k)
{
	return json_pack("{ss si ss}", "name", "https", "port", k->api->port, "protocol", "TCP");
}

/* One slice a port; servers of a cluster have one port. */
static void keep_slice(struct keeper *k, json_t *endpoints)
{
	const struct model_kind *kind = kind_of("discovery.k8s.io", "endpointslices");
	json_t *o;

	if (keep_field(k, kind, "endpoints", endpoints))
		return;
	o = object_of(kind, "default", "kubernetes");
	js_set_new(o, "metadata.labels", json_object());
	json_object_set_new(js_get(o, "metadata.labels"), "kubernetes.io/service-name",
			    json_string("kubernetes"));
	json_object_set_new(o, "addressType", json_string("IPv4"));
	json_object_set(o, "endpoints", endpoints);
	json_object_set_new(o, "ports", json_pack("[o]", own_port_new(k)));
	(void)create(k->api, kind, "default", o);
}

/* The same in the older form, which kubectl 1.20 reads. */
static void keep_old_form(struct keeper *k, const json_t *endpoints)
{
	const struct model_kind *kind = kind_of("", "endpoints");
	_cleanup_json_ json_t *addresses = json_array(), *subsets = NULL;
	json_t *e, *o;
	size_t i;

	json_array_foreach ((json_t *)endpoints, i, e)
		json_array_append_new(
			addresses,
			json_pack("{sO}", "ip", json_array_get(json_object_get(e, "addresses"), 0)));
	subsets = json_pack("[{sO s[o]}]", "addresses", addresses, "ports", own_port_new(k));
	if (keep_field(k, kind, "subsets", subsets))
		return;
	o = object_of(kind, "default", "kubernetes");
	json_object_set(o, "subsets", subsets);
	(void)create(k->api, kind, "default", o);
}

static int keep_endpoints(struct keeper *k, struct err *e)
{
	_cleanup_json_ json_t *endpoints = json_array();
	struct store_list l = {0};
	size_t skip = strlen(REGISTRY "masterleases/");
	int r = hold_own_key(k, e);

	if (r == 0)
		r = store_range(k->api->store, REGISTRY "masterleases/", NULL, MASTERS_MAX, 0, &l, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < l.n; i++) {
		const char *at = l.kv[i].key + skip, *colon = strchr(at, ':');

		if (colon && atoi(colon + 1) == k->api->port)
			json_array_append_new(endpoints,
					      json_pack("{s[o] s{sb sb sb}}", "addresses",
							json_stringn(at, (size_t)(colon - at)), "conditions",
							"ready", 1, "serving", 1, "terminating", 0));
	}
	store_list_done(&l);
	keep_slice(k, endpoints);
	keep_old_form(k, endpoints);
	return 0;
}

/* ---- compaction ---- */

/* As Kubernetes: whoever moves the mark drops the history older than the revision noted one interval ago. */
static void compact(struct keeper *k)
{
	static const char key[] = REGISTRY "compact_rev";
	struct store_kv kv = {0};
	struct store_cmp cmp = {key, k->compact_mark};
	struct store_op op = {.type = STORE_PUT, .key = key, .value = "1", .value_len = 1};
	int64_t drop = k->compact_rev, rev;
	struct err e = {0};
	int r = store_txn(k->api->store, &cmp, 1, &op, 1, &rev, &e);

	if (r == 0) {
		k->compact_mark = k->compact_rev = rev;
		if (drop > 0) {
			r = store_compact(k->api->store, drop, &e);
			if (r < 0 && r != -ESTALE)
				log_warn("compaction to revision %lld: %s", (long long)drop, e.text);
			else
				log_info("history up to revision %lld dropped", (long long)drop);
		}
	} else if (r == -EEXIST && store_get(k->api->store, key, 0, &kv, &rev, &e) == 0) {
		k->compact_mark = kv.mod_rev;
		k->compact_rev =
			rev; /* if nobody moves the mark within an interval, this server drops up to here */
		store_kv_done(&kv);
	}
}

static void *run_keep(void *arg)
{
	struct keeper *k = arg;
	bool failing = false;

	do {
		struct err e = {0};
		int r;

		if (!cache_ready(k->api->cache))
			continue;
		make_defaults(k); /* default/kubernetes comes back when it was deleted */
		r = k->api->defaults_there ? keep_endpoints(k, &e) : 0;
		if (r < 0 && !failing)
			log_warn("own endpoint: %s", e.text);
		failing = r < 0;
		if (r == 0)
			namespaces_end(k->api);
		if (clock_ms() >= k->compact_at_ms) {
			compact(k);
			k->compact_at_ms = clock_ms() + (uint64_t)k->api->s.compact_ms;
		}
	} while (pause_ms(k, k->api->defaults_there ? KEEP_MS : FIRST_MS));
	return NULL;
}

struct keeper *keeper_new(struct api *api)
{
	struct keeper *k = xcalloc(1, sizeof(*k));
	pthread_condattr_t a;

	k->api = api;
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->wake, &a);
	ensure(pthread_create(&k->probe, NULL, run_probe, k) == 0 &&
	       pthread_create(&k->keep, NULL, run_keep, k) == 0);
	return k;
}

struct keeper *keeper_free(struct keeper *k)
{
	struct err e = {0};

	if (!k)
		return NULL;
	pthread_mutex_lock(&k->lock);
	k->stopping = true;
	pthread_cond_broadcast(&k->wake);
	pthread_mutex_unlock(&k->lock);
	pthread_join(k->probe, NULL);
	pthread_join(k->keep, NULL);
	if (k->lease)
		(void)store_lease_revoke(k->api->store, k->lease, &e);
	pthread_mutex_destroy(&k->lock);
	pthread_cond_destroy(&k->wake);
	free(k);
	return NULL;
}

/* Events go an hour after they were last written; those of one minute share a lease. */
int event_lease(struct api *api, int64_t *ret, struct err *e)
{
	int64_t now = (int64_t)clock_ms(), ttl_s = (api->s.event_ttl_ms + EVENT_LEASE_USE_MS) / 1000, id;
	int r = 0;

	pthread_mutex_lock(&api->event_lease_lock);
	if (!api->event_lease || now > api->event_lease_until_ms) {
		r = store_lease_grant(api->store, ttl_s, &id, e);
		if (r == 0) {
			api->event_lease = id;
			api->event_lease_until_ms = now + EVENT_LEASE_USE_MS;
		}
	}
	*ret = api->event_lease;
	pthread_mutex_unlock(&api->event_lease_lock);
	return r;
}
