/* SPDX-License-Identifier: Apache-2.0 */
/* Names of services for pods, without a DNS server: /etc/hosts and FOO_SERVICE_HOST variables.
 *
 * /etc/hosts has every Service (NAME in its own namespace, NAME.NS, NAME.NS.svc, NAME.NS.svc.cluster.local) and the ready pods of headless
 * services by their host names (pod-0.NAME...). Containers hold a bind mount of the file, so it is rewritten in place: one pwrite of
 * everything, then the length; a reader that falls between sees old lines behind new ones, never a half line of the new text. */
#include "node/agent.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/stat.h>

static bool ipv4_ok(const char *s)
{
	struct in_addr a;

	return s && inet_pton(AF_INET, s, &a) == 1;
}

/* "10.0.0.1 \t a.ns.svc.cluster.local a.ns.svc a.ns [a]" */
static void add_line(struct buf *b, const char *ip, const char *name, const char *ns, bool own_ns)
{
	(void)buf_addf(b, "%s\t%s.%s.svc.cluster.local %s.%s.svc %s.%s", ip, name, ns, name, ns, name, ns);
	if (own_ns)
		(void)buf_addf(b, " %s", name);
	(void)buf_adds(b, "\n");
}

static void add_headless(struct agent *a, struct buf *b, const json_t *slice, const char *ns)
{
	const char *sns = js_str_or(slice, "metadata.namespace", "");
	const char *name = json_string_value(
		json_object_get(js_get(slice, "metadata.labels"), "kubernetes.io/service-name"));
	json_t *service = name ? kube_cache_get(a->service_cache, sns, name) : NULL, *ep;
	bool all = js_bool(service, "spec.publishNotReadyAddresses", false);
	size_t i;

	if (!streq(js_str(service, "spec.clusterIP"), "None"))
		return;
	json_array_foreach (js_get(slice, "endpoints"), i, ep) {
		const char *host = js_str(ep, "hostname"), *target = js_str(ep, "targetRef.name");
		const char *ip = json_string_value(json_array_get(json_object_get(ep, "addresses"), 0));
		_cleanup_free_ char *full = NULL;

		if (!host)
			host = target;
		if (!host || !ipv4_ok(ip) || !(all || js_bool(ep, "conditions.ready", true)))
			continue;
		full = xasprintf("%s.%s", host, name);
		add_line(b, ip, full, sns, streq(sns, ns));
	}
}

char *services_hosts(struct agent *a, const char *ns)
{
	_cleanup_buf_ struct buf b = {0};
	json_t *o;

	kube_cache_foreach(a->service_cache, o)
	{
		const char *ip = js_str(o, "spec.clusterIP"), *sns = js_str_or(o, "metadata.namespace", "");

		if (ipv4_ok(ip))
			add_line(&b, ip, js_str_or(o, "metadata.name", "x"), sns, streq(sns, ns));
	}
	kube_cache_foreach(a->slices, o) add_headless(a, &b, o, ns);
	return b.len ? buf_take(&b) : xstrdup("");
}

/* As Kubernetes: with a subdomain (pods of a StatefulSet have one) the whole name comes first, which `hostname -f` finds. */
static void add_own_line(struct buf *b, const struct pod *p)
{
	const char *host = js_str_or(p->obj, "spec.hostname", p->name),
		   *sub = js_str_or(p->obj, "spec.subdomain", "");

	(void)buf_addf(b, "%s\t", p->ip);
	if (*sub)
		(void)buf_addf(b, "%s.%s.%s.svc.cluster.local ", host, sub, p->ns);
	(void)buf_addf(b, "%s\n", host);
}

void hosts_write(struct pod *p)
{
	_cleanup_free_ char *services = services_hosts(p->a, p->ns),
			    *path = xasprintf("%s/etc-hosts", p->dir), *old = NULL;
	_cleanup_close_ int fd = -1;
	_cleanup_buf_ struct buf b = {0};
	json_t *alias, *name;
	size_t i, k, len;

	(void)buf_adds(&b, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
	if (p->ip && p->host_network)
		(void)buf_addf(&b, "%s\t%s\n", p->ip, p->a->s.name);
	else if (p->ip)
		add_own_line(&b, p);
	json_array_foreach (js_get(p->obj, "spec.hostAliases"), i, alias)
		json_array_foreach (json_object_get(alias, "hostnames"), k, name)
			if (ipv4_ok(js_str(alias, "ip")) && json_is_string(name))
				(void)buf_addf(&b, "%s\t%s\n", js_str(alias, "ip"), json_string_value(name));
	(void)buf_adds(&b, services);
	if (file_read(path, (size_t)16 << 20, &old, &len, NULL) == 0 && streq(old, b.data))
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || pwrite(fd, b.data, b.len, 0) != (ssize_t)b.len || ftruncate(fd, (off_t)b.len) < 0)
		log_error("%s: %s", path, strerror(errno));
}

/* "my-db" -> MY_DB */
static char *env_name(const char *name)
{
	char *s = xstrdup(name);

	for (char *p = s; *p; p++)
		*p = *p >= 'a' && *p <= 'z'				    ? (char)(*p - 32)
		     : (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') ? *p
									    : '_';
	return s;
}

static void set_env(json_t *env, const char *prefix, const char *suffix, const char *value)
{
	_cleanup_free_ char *name = xasprintf("%s%s", prefix, suffix);

	json_object_set_new(env, name, json_string(value));
}

static void add_service_env(json_t *env, const json_t *service, const char *as)
{
	_cleanup_free_ char *prefix = env_name(as);
	json_t *port;
	size_t i;

	set_env(env, prefix, "_SERVICE_HOST", js_str(service, "spec.clusterIP"));
	json_array_foreach (js_get(service, "spec.ports"), i, port) {
		_cleanup_free_ char *number = xasprintf("%lld", (long long)js_int(port, "port", 0));

		if (i == 0)
			set_env(env, prefix, "_SERVICE_PORT", number);
		if (js_str(port, "name")) {
			_cleanup_free_ char *p = env_name(js_str(port, "name")),
					    *s = xasprintf("_SERVICE_PORT_%s", p);

			set_env(env, prefix, s, number);
		}
	}
}

json_t *services_env_new(struct agent *a, const char *ns, bool all)
{
	json_t *env = json_object(), *api = kube_cache_get(a->service_cache, "default", "kubernetes"), *o;

	if (api && ipv4_ok(js_str(api, "spec.clusterIP")))
		add_service_env(env, api, "kubernetes");
	if (!all)
		return env;
	kube_cache_foreach(a->service_cache, o) if (streq(js_str(o, "metadata.namespace"), ns) &&
						    ipv4_ok(js_str(o, "spec.clusterIP")))
		add_service_env(env, o, js_str_or(o, "metadata.name", "x"));
	return env;
}
