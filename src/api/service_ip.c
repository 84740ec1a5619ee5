/* SPDX-License-Identifier: Apache-2.0 */
/* Cluster addresses of Services. An address in use is a key of its own, /registry/ranges/serviceips/IP, written and deleted in
 * the same transaction as its Service: no two Services ever have the same one, whichever server made them. The first address is
 * default/kubernetes'. */
#include <arpa/inet.h>

#include "api/internal.h"

#define IP_TRIES_MAX 64

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

char *service_ip_key(const char *ip)
{
	return xasprintf(REGISTRY "ranges/serviceips/%s", ip);
}

bool service_wants_ip(const json_t *svc)
{
	return !streq(js_str(svc, "spec.type"), "ExternalName") &&
	       !streq(js_str(svc, "spec.clusterIP"), "None");
}

static bool in_net(const struct api *api, const char *ip)
{
	struct in_addr a;

	return inet_pton(AF_INET, ip, &a) == 1 && (ntohl(a.s_addr) & api->service_mask) == api->service_net;
}

/* A free one as far as the cache knows; the first of the network and its ends are left out. */
static void pick(struct api *api, char out[INET_ADDRSTRLEN])
{
	uint32_t size = ~api->service_mask, at;

	for (int i = 0; i < IP_TRIES_MAX; i++) {
		_cleanup_free_ char *key = NULL;
		struct in_addr a;

		random_bytes(&at, sizeof(at));
		a.s_addr = htonl(api->service_net + 2 + at % (size - 2));
		inet_ntop(AF_INET, &a, out, INET_ADDRSTRLEN);
		key = service_ip_key(out);
		if (!cache_has_raw(api->cache, key))
			return;
	}
}

static bool exists(struct call *c, const char *key)
{
	struct store_kv kv = {0};
	bool there = store_get(c->api->store, key, 0, &kv, NULL, NULL) == 0;

	store_kv_done(&kv);
	return there;
}

int service_commit_create(struct call *c, const char *key, json_t *svc)
{
	const char *asked = js_str_or(svc, "spec.clusterIP", "");
	_cleanup_free_ char *owner = xasprintf("%s/%s", c->ns, c->name),
			    *fixed = *asked ? xstrdup(asked) : NULL;

	if (fixed && !in_net(c->api, fixed))
		return fail_invalid(c, json_pack("[{ss so ss}]", "reason", "FieldValueInvalid", "message",
						 json_sprintf("Invalid value: \"%s\": failed to allocate IP: "
							      "the provided IP is not in the valid range %s",
							      fixed, c->api->s.service_cidr),
						 "field", "spec.clusterIPs"));
	for (int i = 0; i < IP_TRIES_MAX; i++) {
		char ip[INET_ADDRSTRLEN];
		_cleanup_free_ char *ip_key = NULL;
		struct store_op op;
		struct store_cmp cmp;
		int r;

		if (fixed)
			snprintf(ip, sizeof(ip), "%s", fixed);
		else
			pick(c->api, ip);
		ip_key = service_ip_key(ip);
		op = (struct store_op){
			.type = STORE_PUT, .key = ip_key, .value = owner, .value_len = strlen(owner)};
		cmp = (struct store_cmp){ip_key, 0};
		js_set_new(svc, "spec.clusterIP", json_string(ip));
		js_set_new(svc, "spec.clusterIPs", json_pack("[s]", ip));
		r = object_commit(c, key, svc, 0,
				  &(struct commit){.more = &op, .n_more = 1, .cmp = &cmp, .n_cmp = 1});
		if (r != -EEXIST || exists(c, key))
			return r;
		if (fixed && exists(c, ip_key))
			return fail_invalid(
				c, json_pack("[{ss so ss}]", "reason", "FieldValueInvalid", "message",
					     json_sprintf("Invalid value: [\"%s\"]: failed to allocate IP "
							  "%s: provided IP is already allocated",
							  fixed, fixed),
					     "field", "spec.clusterIPs"));
	}
	return fail(c, 500, "InternalError", "no free address was found in %s", c->api->s.service_cidr);
}
