/* SPDX-License-Identifier: Apache-2.0 */
/* Service rules.
 *
 *   map services  { address . protocol . port : goto chain of the service port }     prerouting and output, destination NAT
 *   map nodeports { protocol . port : goto chain }                                   the same, for the node's own addresses
 *   set refused   { address . protocol . port }                                      no endpoint: rejected at once, not timed out;
 *                                                                                    so is all of the service network that is unknown
 *   set hairpin   { address . address }                                              a pod reaching itself through a service
 *
 * Endpoints are chosen at random, or by client address for sessionAffinity ClientIP. trafficDistribution PreferClose: endpoints of this
 * node if there are any, else of this zone, else all. Only endpoints that are ready count, except when none is but some are still
 * serving while they end. The text replaces the table in one transaction: packets see the old or the new table. Every word that comes from
 * an API object is checked (addresses parsed, ports as numbers, protocols from a list) before it goes into the text. */
#include "node/rules.h"

#include <arpa/inet.h>

#define ENDPOINTS_MAX 1000

static bool ipv4_ok(const char *s)
{
	struct in_addr a;

	return s && inet_pton(AF_INET, s, &a) == 1;
}

static bool port_ok(int64_t p)
{
	return p > 0 && p < 65536;
}

static bool cidr_ok(const char *s)
{
	_cleanup_free_ char *net = s ? xstrndup(s, strcspn(s, "/")) : NULL;
	int64_t bits;

	return net && ipv4_ok(net) && s[strlen(net)] == '/' && str_i64(s + strlen(net) + 1, &bits) == 0 &&
	       bits >= 0 && bits <= 32;
}

static const char *protocol_of(const json_t *port)
{
	const char *p = js_str_or(port, "protocol", "TCP");

	return streq(p, "TCP") ? "tcp" : streq(p, "UDP") ? "udp" : streq(p, "SCTP") ? "sctp" : NULL;
}

/* The slice's port that belongs to this service port: by name. 0 = none. */
static int64_t slice_port(const json_t *slice, const json_t *port)
{
	const char *name = js_str_or(port, "name", "");
	json_t *p;
	size_t i;

	json_array_foreach (js_get(slice, "ports"), i, p)
		if (streq(js_str_or(p, "name", ""), name) &&
		    streq(js_str_or(p, "protocol", "TCP"), js_str_or(port, "protocol", "TCP")))
			return js_int(p, "port", 0);
	return 0;
}

static bool belongs(const json_t *slice, const json_t *service)
{
	json_t *owner = json_object_get(js_get(slice, "metadata.labels"), "kubernetes.io/service-name");

	return owner && streq(json_string_value(owner), js_str(service, "metadata.name")) &&
	       streq(js_str(slice, "metadata.namespace"), js_str(service, "metadata.namespace")) &&
	       streq(js_str_or(slice, "addressType", "IPv4"), "IPv4");
}

enum closeness { ANYWHERE, SAME_ZONE, SAME_NODE };

static enum closeness how_close(const struct rules_input *in, const json_t *ep)
{
	if (streq(js_str(ep, "nodeName"), in->node))
		return SAME_NODE;
	if (in->zone && *in->zone && streq(js_str(ep, "zone"), in->zone))
		return SAME_ZONE;
	return ANYWHERE;
}

static void collect(const struct rules_input *in, const json_t *slice, int64_t port, bool ending,
		    json_t *lists[3])
{
	json_t *ep, *addr;
	size_t i, k;

	json_array_foreach (js_get(slice, "endpoints"), i, ep) {
		bool ready = js_bool(ep, "conditions.ready", true);
		bool serving = js_bool(ep, "conditions.serving", ready) &&
			       js_bool(ep, "conditions.terminating", false);

		if (ending ? !serving : !ready)
			continue;
		json_array_foreach (json_object_get(ep, "addresses"), k, addr)
			if (ipv4_ok(json_string_value(addr)) && json_array_size(lists[0]) < ENDPOINTS_MAX)
				for (int c = 0; c <= (int)how_close(in, ep); c++)
					json_array_append_new(lists[c],
							      json_pack("[O,I]", addr, (json_int_t)port));
	}
}

json_t *rules_endpoints_new(const struct rules_input *in, const json_t *service, const json_t *port)
{
	bool close = streq(js_str(service, "spec.trafficDistribution"), "PreferClose");
	json_t *lists[3] = {json_array(), json_array(), json_array()}, *slice, *ret;
	size_t i;

	for (int ending = 0; ending < 2 && json_array_size(lists[0]) == 0; ending++)
		json_array_foreach (in->slices, i, slice) {
			int64_t target = belongs(slice, service) ? slice_port(slice, port) : 0;

			if (port_ok(target))
				collect(in, slice, target, ending, lists);
		}
	ret = close && json_array_size(lists[SAME_NODE])   ? lists[SAME_NODE]
	      : close && json_array_size(lists[SAME_ZONE]) ? lists[SAME_ZONE]
							   : lists[ANYWHERE];
	json_incref(ret);
	for (i = 0; i < 3; i++)
		json_decref(lists[i]);
	return ret;
}

/* ---- text ---- */

struct texts {
	struct buf chains, services, nodeports, refused, hairpin;
	unsigned n;
	struct strmap *seen; /* hairpin addresses, node ports */
};

static void add_element(struct buf *b, const char *text)
{
	(void)buf_addf(b, "%s%s", b->len ? ", " : "", text);
}

static void add_chain(struct texts *t, const json_t *service, const char *proto, const json_t *eps)
{
	bool sticky = streq(js_str(service, "spec.sessionAffinity"), "ClientIP");
	json_t *ep;
	size_t i;

	(void)buf_addf(&t->chains, "\tchain s%u {\n\t\tmeta l4proto %s dnat ip to %s mod %zu map { ", t->n,
		       proto, sticky ? "jhash ip saddr" : "numgen random", json_array_size(eps));
	json_array_foreach ((json_t *)eps, i, ep) {
		const char *ip = json_string_value(json_array_get(ep, 0));

		(void)buf_addf(&t->chains, "%s%zu : %s . %lld", i ? ", " : "", i, ip,
			       (long long)json_integer_value(json_array_get(ep, 1)));
		if (!strmap_get(t->seen, ip)) {
			_cleanup_free_ char *pair = xasprintf("%s . %s", ip, ip);

			strmap_set(t->seen, ip, t);
			add_element(&t->hairpin, pair);
		}
	}
	(void)buf_adds(&t->chains, " }\n\t}\n");
}

static void add_address(struct texts *t, const char *ip, const char *proto, int64_t port, bool refused)
{
	_cleanup_free_ char *key = NULL;

	if (!ipv4_ok(ip))
		return;
	key = refused ? xasprintf("%s . %s . %lld", ip, proto, (long long)port)
		      : xasprintf("%s . %s . %lld : goto s%u", ip, proto, (long long)port, t->n);
	add_element(refused ? &t->refused : &t->services, key);
}

static void add_service(const struct rules_input *in, const json_t *service, struct texts *t)
{
	const char *ip = js_str_or(service, "spec.clusterIP", "");
	json_t *port, *ext;
	size_t i, k;

	if (!ipv4_ok(ip) || streq(js_str(service, "spec.type"), "ExternalName"))
		return;
	json_array_foreach (js_get(service, "spec.ports"), i, port) {
		const char *proto = protocol_of(port);
		int64_t number = js_int(port, "port", 0), node_port = js_int(port, "nodePort", 0);
		_cleanup_json_ json_t *eps = NULL;
		bool none;

		if (!proto || !port_ok(number))
			continue;
		eps = rules_endpoints_new(in, service, port);
		none = json_array_size(eps) == 0;
		add_address(t, ip, proto, number, none);
		json_array_foreach (js_get(service, "spec.externalIPs"), k, ext)
			add_address(t, json_string_value(ext), proto, number, none);
		if (port_ok(node_port) && !none) {
			_cleanup_free_ char *name = xasprintf("%s . %lld", proto, (long long)node_port);
			_cleanup_free_ char *key = xasprintf("%s : goto s%u", name, t->n);

			if (!strmap_set(t->seen, name, t))
				add_element(&t->nodeports, key);
		}
		if (!none) {
			add_chain(t, service, proto, eps);
			t->n++;
		}
	}
}

/* hostPort: a chain with one target, entered like a node port. */
static void add_host_port(const json_t *hp, struct texts *t)
{
	const char *proto = json_string_value(json_array_get(hp, 0)),
		   *ip = json_string_value(json_array_get(hp, 2));
	int64_t port = json_integer_value(json_array_get(hp, 1)),
		target = json_integer_value(json_array_get(hp, 3));
	_cleanup_free_ char *key = NULL, *name = NULL;

	if (!proto || !(streq(proto, "tcp") || streq(proto, "udp") || streq(proto, "sctp")) || !ipv4_ok(ip) ||
	    !port_ok(port) || !port_ok(target))
		return;
	name = xasprintf("%s . %lld", proto, (long long)port);
	if (strmap_get(t->seen, name))
		return; /* taken: the scheduler should not have let it come to this */
	strmap_set(t->seen, name, t);
	key = xasprintf("%s : goto s%u", name, t->n);
	add_element(&t->nodeports, key);
	(void)buf_addf(&t->chains, "\tchain s%u {\n\t\tmeta l4proto %s dnat ip to %s:%lld\n\t}\n", t->n++,
		       proto, ip, (long long)target);
}

static void put_set(struct buf *out, const char *head, const char *type, const struct buf *elements)
{
	(void)buf_addf(out, "\t%s {\n\t\ttype %s;\n", head, type);
	if (elements->len)
		(void)buf_addf(out, "\t\telements = { %s }\n", elements->data);
	(void)buf_adds(out, "\t}\n");
}

static void put_masquerade(const struct rules_input *in, struct buf *out)
{
	_cleanup_buf_ struct buf nets = {0};

	(void)buf_adds(out, "\tchain postrouting {\n\t\ttype nat hook postrouting priority 100;\n"
			    "\t\tct status dnat ip saddr . ip daddr @hairpin masquerade\n");
	for (size_t i = 0; in->cluster_cidrs && in->cluster_cidrs[i]; i++)
		if (cidr_ok(in->cluster_cidrs[i]) && !streq(in->cluster_cidrs[i], in->pod_cidr))
			add_element(&nets, in->cluster_cidrs[i]);
	if (cidr_ok(in->pod_cidr)) {
		add_element(&nets, in->pod_cidr);
		(void)buf_addf(out, "\t\tip saddr %s ip daddr != { %s } masquerade\n", in->pod_cidr,
			       nets.data);
		/* From outside by a node port to another node's pod: its answer must come back through here. */
		(void)buf_addf(
			out,
			"\t\tct status dnat oifname != \"lo\" ip saddr != %s ip daddr != %s masquerade\n",
			in->pod_cidr, in->pod_cidr);
	}
	(void)buf_adds(out, "\t}\n");
}

int rules_text(const struct rules_input *in, struct buf *out)
{
	struct texts t = {.seen = strmap_new()};
	json_t *service;
	size_t i;
	int r;

	json_array_foreach (in->services, i, service)
		add_service(in, service, &t);
	json_array_foreach (in->host_ports, i, service)
		add_host_port(service, &t);
	(void)buf_adds(out, "table ip kuayu\ndelete table ip kuayu\ntable ip kuayu {\n");
	put_set(out, "map services", "ipv4_addr . inet_proto . inet_service : verdict", &t.services);
	put_set(out, "map nodeports", "inet_proto . inet_service : verdict", &t.nodeports);
	put_set(out, "set refused", "ipv4_addr . inet_proto . inet_service", &t.refused);
	put_set(out, "set hairpin", "ipv4_addr . ipv4_addr", &t.hairpin);
	if (t.chains.len)
		(void)buf_add(out, t.chains.data, t.chains.len);
	(void)buf_adds(
		out,
		"\tchain dispatch {\n\t\tip daddr . meta l4proto . th dport vmap @services\n"
		"\t\tfib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap "
		"@nodeports\n\t}\n"
		"\tchain prerouting {\n\t\ttype nat hook prerouting priority -100;\n"
		"\t\tmeta l4proto { tcp, udp, sctp } jump dispatch\n\t}\n"
		"\tchain output {\n\t\ttype nat hook output priority -100;\n"
		"\t\tmeta l4proto { tcp, udp, sctp } jump dispatch\n\t}\n"
		/* TCP by a reset: ICMP errors are rate-limited, the second client would wait a second. */
		"\tchain refused_now {\n\t\tmeta l4proto tcp reject with tcp reset\n\t\treject\n\t}\n"
		"\tchain refuse {\n\t\tmeta l4proto { tcp, udp, sctp } ip daddr . meta l4proto . th dport "
		"@refused jump refused_now\n");
	if (cidr_ok(in->service_cidr)) /* a service that is not known (yet), a port that it does not have */
		(void)buf_addf(out, "\t\tmeta l4proto { tcp, udp, sctp } ip daddr %s jump refused_now\n",
			       in->service_cidr);
	(void)buf_adds(
		out,
		"\t}\n"
		"\tchain forward_filter {\n\t\ttype filter hook forward priority 0;\n\t\tjump refuse\n\t}\n"
		"\tchain output_filter {\n\t\ttype filter hook output priority 0;\n\t\tjump refuse\n\t}\n");
	put_masquerade(in, out);
	r = buf_adds(out, "}\n");
	strmap_free(t.seen, NULL);
	buf_done(&t.chains);
	buf_done(&t.services);
	buf_done(&t.nodeports);
	buf_done(&t.refused);
	buf_done(&t.hairpin);
	return r;
}
