/* SPDX-License-Identifier: Apache-2.0 */
/* What Services get from the cluster: addresses and node ports. Each one in use is a key of its own, /registry/ranges/serviceips/IP and
 * /registry/ranges/servicenodeports/PORT, written and deleted in the same transaction as its Service: no two Services ever
 * have the same one, whichever server made or changed them. The first address is default/kubernetes'. */
#include <arpa/inet.h>

#include "api/internal.h"

#define TRIES_MAX      64
#define NODE_PORT_MIN  30000
#define NODE_PORT_MAX  32767
#define NODE_PORTS_MAX 30 /* of one Service: those it gives back and those it takes go into one transaction */
#define KEYS_MAX       (1 + NODE_PORTS_MAX)

_Static_assert(KEYS_MAX == SERVICE_HOLDS_MAX, "an address and node ports");

int service_net_parse(struct api *api, struct err *e)
{
	_cleanup_strv_ char **p = strv_split(api->s.service_cidr, '/', false);
	struct in_addr a;
	int64_t bits;

	if (strv_len(p) != 2 || inet_pton(AF_INET, p[0], &a) != 1 || str_i64(p[1], &bits) < 0 || bits < 8 ||
	    bits > 29)
		return err_set(e, -EINVAL, "--service-cidr: '%s' is no IPv4 range such as 10.96.0.0/16",
			       api->s.service_cidr);
	api->service_mask = (uint32_t)(0xffffffffULL << (32 - bits));
	api->service_net = ntohl(a.s_addr) & api->service_mask;
	return 0;
}

/* ---- keys ---- */

struct keys {
	char *v[KEYS_MAX];
	size_t n;
};

static void keys_done(struct keys *k)
{
	for (size_t i = 0; i < k->n; i++)
		free(k->v[i]);
	k->n = 0;
}

static bool keys_have(const struct keys *k, const char *key)
{
	for (size_t i = 0; i < k->n; i++)
		if (streq(k->v[i], key))
			return true;
	return false;
}

static void keys_add(struct keys *k, char *key)
{
	if (k->n < KEYS_MAX && !keys_have(k, key))
		k->v[k->n++] = key;
	else
		free(key);
}

static char *ip_key_new(const char *ip)
{
	return xasprintf(REGISTRY "ranges/serviceips/%s", ip);
}

static char *port_key_new(int64_t port)
{
	return xasprintf(REGISTRY "ranges/servicenodeports/%lld", (long long)port);
}

/* What a Service holds; svc NULL = nothing. */
static void keys_of(const json_t *svc, struct keys *ret)
{
	const char *ip = js_str_or(svc, "spec.clusterIP", "");
	json_t *p;
	size_t i;

	if (*ip && !streq(ip, "None"))
		keys_add(ret, ip_key_new(ip));
	json_array_foreach (js_get(svc, "spec.ports"), i, p)
		if (js_int(p, "nodePort", 0))
			keys_add(ret, port_key_new(js_int(p, "nodePort", 0)));
}

size_t service_release(const json_t *svc, struct store_op *ops, size_t room)
{
	struct keys k = {0};
	size_t n;

	keys_of(svc, &k);
	for (n = 0; n < k.n && n < room; n++) {
		ops[n] = (struct store_op){.type = STORE_DELETE, .key = k.v[n]};
		k.v[n] = NULL; /* the caller's */
	}
	keys_done(&k);
	return n;
}

/* ---- picking ---- */

static bool wants_ip(const json_t *svc)
{
	return !streq(js_str(svc, "spec.type"), "ExternalName") &&
	       !streq(js_str(svc, "spec.clusterIP"), "None");
}

static bool wants_node_ports(const json_t *svc)
{
	const char *type = js_str_or(svc, "spec.type", "");

	return streq(type, "NodePort") ||
	       (streq(type, "LoadBalancer") && js_bool(svc, "spec.allocateLoadBalancerNodePorts", false));
}

static bool in_net(const struct api *api, const char *ip)
{
	struct in_addr a;

	return inet_pton(AF_INET, ip, &a) == 1 && (ntohl(a.s_addr) & api->service_mask) == api->service_net;
}

/* A free one as far as the cache knows; the first of the network and its ends are left out. */
static void pick_ip(struct api *api, char out[INET_ADDRSTRLEN])
{
	uint32_t size = ~api->service_mask, at;

	for (int i = 0; i < TRIES_MAX; i++) {
		_cleanup_free_ char *key = NULL;
		struct in_addr a;

		random_bytes(&at, sizeof(at));
		a.s_addr = htonl(api->service_net + 2 + at % (size - 2));
		inet_ntop(AF_INET, &a, out, INET_ADDRSTRLEN);
		key = ip_key_new(out);
		if (!cache_has_raw(api->cache, key))
			return;
	}
}

/* Free as far as the cache knows and not among `taken`; 0 = all are in use. */
static int64_t pick_node_port(struct api *api, const struct keys *taken)
{
	int64_t size = NODE_PORT_MAX - NODE_PORT_MIN + 1;
	uint32_t at;

	random_bytes(&at, sizeof(at));
	for (int64_t i = 0; i < size; i++) {
		int64_t port = NODE_PORT_MIN + (at + i) % size;
		_cleanup_free_ char *key = port_key_new(port);

		if (!keys_have(taken, key) && !cache_has_raw(api->cache, key))
			return port;
	}
	return 0;
}

/* The node port of an earlier port with the same number and another protocol: both are reached at one, as in Kubernetes. */
static int64_t node_port_of_twin(const json_t *ports, size_t before, const json_t *port)
{
	for (size_t i = 0; i < before; i++) {
		const json_t *p = json_array_get(ports, i);

		if (js_int(p, "port", 0) == js_int(port, "port", 0) && js_int(p, "nodePort", 0))
			return js_int(p, "nodePort", 0);
	}
	return 0;
}

static int fill_node_ports(struct call *c, json_t *svc)
{
	json_t *ports = js_get(svc, "spec.ports"), *p;
	struct keys taken = {0};
	int r = 0;
	size_t i;

	keys_of(svc, &taken);
	json_array_foreach (ports, i, p) {
		int64_t port = js_int(p, "nodePort", 0);

		if (port || r < 0)
			continue;
		port = node_port_of_twin(ports, i, p);
		port = port ? port : pick_node_port(c->api, &taken);
		if (!port)
			r = fail(c, 500, "InternalError", "no free node port was found in %d-%d",
				 NODE_PORT_MIN, NODE_PORT_MAX);
		json_object_set_new(p, "nodePort", json_integer(port));
		keys_add(&taken, port_key_new(port));
	}
	keys_done(&taken);
	return r;
}

/* Gives svc what it wants and has not got yet. */
static int fill(struct call *c, json_t *svc)
{
	char ip[INET_ADDRSTRLEN];

	if (wants_ip(svc) && !*js_str_or(svc, "spec.clusterIP", "")) {
		pick_ip(c->api, ip);
		js_set_new(svc, "spec.clusterIP", json_string(ip));
	}
	if (wants_ip(svc))
		js_set_new(svc, "spec.clusterIPs", json_pack("[s]", js_str_or(svc, "spec.clusterIP", "")));
	return wants_node_ports(svc) ? fill_node_ports(c, svc) : 0;
}

/* ---- what was asked for ---- */

static int fail_field(struct call *c, const char *field, json_t *message)
{
	return fail_invalid(c, json_pack("[{ss so ss}]", "reason", "FieldValueInvalid", "message", message,
					 "field", field));
}

/* held: what the Service has already. */
static int check_asked(struct call *c, const json_t *svc, const struct keys *held)
{
	const char *ip = js_str_or(svc, "spec.clusterIP", "");
	json_t *ports = js_get(svc, "spec.ports"), *p;
	size_t i, n = 0;

	if (wants_ip(svc) && *ip && !in_net(c->api, ip))
		return fail_field(
			c, "spec.clusterIPs",
			json_sprintf(
				"Invalid value: \"%s\": failed to allocate IP: the provided IP is not in "
				"the valid range %s",
				ip, c->api->s.service_cidr));
	json_array_foreach (ports, i, p) {
		int64_t port = js_int(p, "nodePort", 0);
		_cleanup_free_ char *key = port_key_new(port),
				    *field = xasprintf("spec.ports[%zu].nodePort", i);

		n += port || wants_node_ports(svc);
		if (port && (port < NODE_PORT_MIN || port > NODE_PORT_MAX) && !keys_have(held, key))
			return fail_field(
				c, field,
				json_sprintf(
					"Invalid value: %lld: provided port is not in the valid range. The "
					"range of valid ports is %d-%d",
					(long long)port, NODE_PORT_MIN, NODE_PORT_MAX));
	}
	if (n > NODE_PORTS_MAX)
		return fail_field(c, "spec.ports",
				  json_sprintf("Too many: %zu: kuayu gives a Service at most %d node ports",
					       n, NODE_PORTS_MAX));
	return 0;
}

static bool exists(struct call *c, const char *key, int64_t *ret_rev)
{
	struct store_kv kv = {0};
	bool there = store_get(c->api->store, key, 0, &kv, NULL, NULL) == 0;

	*ret_rev = there ? kv.mod_rev : 0;
	store_kv_done(&kv);
	return there;
}

/* Something that svc asks for by itself belongs to another Service. 0 = it is free. */
static int check_free(struct call *c, const json_t *svc, const struct keys *held)
{
	const char *ip = js_str_or(svc, "spec.clusterIP", "");
	_cleanup_free_ char *ip_key = *ip ? ip_key_new(ip) : NULL;
	int64_t rev;
	json_t *p;
	size_t i;

	if (ip_key && !streq(ip, "None") && !keys_have(held, ip_key) && exists(c, ip_key, &rev))
		return fail_field(
			c, "spec.clusterIPs",
			json_sprintf("Invalid value: [\"%s\"]: failed to allocate IP %s: provided IP is "
				     "already allocated",
				     ip, ip));
	json_array_foreach (js_get(svc, "spec.ports"), i, p) {
		int64_t port = js_int(p, "nodePort", 0);
		_cleanup_free_ char *key = port_key_new(port),
				    *field = xasprintf("spec.ports[%zu].nodePort", i);

		if (port && !keys_have(held, key) && exists(c, key, &rev))
			return fail_field(
				c, field,
				json_sprintf("Invalid value: %lld: provided port is already allocated",
					     (long long)port));
	}
	return 0;
}

/* ---- commit ---- */

static int commit_once(struct call *c, const char *key, const struct keys *held, json_t *svc, int64_t expect)
{
	_cleanup_free_ char *owner = xasprintf("%s/%s", c->ns, c->name);
	struct store_op ops[2 * KEYS_MAX];
	struct store_cmp cmp[KEYS_MAX];
	struct commit o = {.more = ops, .cmp = cmp};
	struct keys want = {0};
	int r;

	keys_of(svc, &want);
	for (size_t i = 0; i < want.n; i++) {
		if (keys_have(held, want.v[i]))
			continue;
		cmp[o.n_cmp++] = (struct store_cmp){want.v[i], 0};
		ops[o.n_more++] = (struct store_op){
			.type = STORE_PUT, .key = want.v[i], .value = owner, .value_len = strlen(owner)};
	}
	for (size_t i = 0; i < held->n; i++)
		if (!keys_have(&want, held->v[i]))
			ops[o.n_more++] = (struct store_op){.type = STORE_DELETE, .key = held->v[i]};
	r = object_commit(c, key, svc, expect, &o);
	keys_done(&want);
	return r;
}

int service_commit(struct call *c, const char *key, const json_t *cur, json_t *svc, int64_t expect)
{
	struct keys held = {0};
	int r;

	_Static_assert(1 + 2 * KEYS_MAX <= STORE_TXN_OPS_MAX,
		       "one transaction changes a Service and all it holds");
	keys_of(cur, &held);
	r = check_asked(c, svc, &held);
	if (r == 0 && c->dry_run)
		r = check_free(c, svc, &held);
	for (int i = 0; r == 0; i++) {
		_cleanup_json_ json_t *full = json_deep_copy(svc);
		int64_t rev;

		r = i < TRIES_MAX ? fill(c, full)
				  : fail(c, 500, "InternalError", "no free address was found in %s",
					 c->api->s.service_cidr);
		if (r < 0)
			break;
		r = commit_once(c, key, &held, full, expect);
		if (r == 0) {
			json_object_clear(svc);
			json_object_update(svc, full);
			break;
		}
		if (r != -EEXIST)
			break;
		(void)exists(c, key, &rev);
		if (rev != expect)
			break; /* someone was faster with this Service */
		r = check_free(c, svc, &held);
	}
	keys_done(&held);
	return r;
}
