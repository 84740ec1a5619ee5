/* SPDX-License-Identifier: Apache-2.0 */
/* How to reach the API servers: settings, then a kubeconfig (--kubeconfig or $KUBECONFIG), then what Kubernetes puts into a
 * pod (service account files and KUBERNETES_SERVICE_HOST). Understood of a kubeconfig: server, certificate-authority(-data),
 * insecure-skip-tls-verify, client-certificate(-data), client-key(-data), token, tokenFile. Exec plug-ins are not. */
#include "kube/internal.h"

#include <openssl/evp.h>

#define CONFIG_MAX	((size_t)1 << 20)
#define SERVICE_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

void config_done(struct kube_config *c)
{
	strv_free(c->servers);
	free(c->ca_file);
	free(c->cert_file);
	free(c->key_file);
	free(c->ca_pem);
	free(c->cert_pem);
	free(c->key_pem);
	free(c->token);
	*c = (struct kube_config){0};
}

static int base64_text(const char *in, char **ret)
{
	size_t len = strlen(in);
	_cleanup_free_ unsigned char *out = xcalloc(len / 4 * 3 + 4, 1);
	int n, pad = 0;

	if (len % 4 != 0 || len > CONFIG_MAX)
		return -EINVAL;
	for (size_t i = len; i > 0 && in[i - 1] == '='; i--)
		pad++;
	n = EVP_DecodeBlock(out, (const unsigned char *)in, (int)len);
	if (n < pad || pad > 2)
		return -EINVAL;
	out[n - pad] = 0;
	*ret = (char *)take_ptr(out);
	return 0;
}

static json_t *named(const json_t *cfg, const char *list, const char *name, const char *member)
{
	json_t *item;
	size_t i;

	json_array_foreach (js_get(cfg, list), i, item)
		if (name && streq(js_str(item, "name"), name))
			return json_object_get(item, member);
	return NULL;
}

/* "client-key-data" (base64) or "client-key" (a file). */
static int key_material(const json_t *o, const char *name, const char *dir, char **ret_pem, char **ret_file,
			struct err *e)
{
	_cleanup_free_ char *data_name = xasprintf("%s-data", name);
	const char *data = json_string_value(json_object_get(o, data_name));
	const char *file = json_string_value(json_object_get(o, name));

	if (data && *data)
		return base64_text(data, ret_pem) < 0 ? err_set(e, -EINVAL, "%s is no base64", data_name) : 0;
	if (file && *file)
		*ret_file = *file == '/' || !dir ? xstrdup(file) : xasprintf("%s/%s", dir, file);
	return 0;
}

static int token_from(const char *file, char **ret, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	size_t len;
	int r = file_read(file, 65536, &text, &len, e);

	if (r < 0)
		return r;
	text[strcspn(text, " \r\n\t")] = 0;
	*ret = take_ptr(text);
	return 0;
}

static int user_parse(const json_t *user, const char *dir, struct kube_config *c, struct err *e)
{
	const char *token = json_string_value(json_object_get(user, "token"));
	const char *file = json_string_value(json_object_get(user, "tokenFile"));
	int r = key_material(user, "client-certificate", dir, &c->cert_pem, &c->cert_file, e);

	if (r == 0)
		r = key_material(user, "client-key", dir, &c->key_pem, &c->key_file, e);
	if (r < 0)
		return r;
	if (token && *token)
		c->token = xstrdup(token);
	else if (file && *file)
		return token_from(file, &c->token, e);
	return 0;
}

static int config_parse_json(const json_t *cfg, const char *dir, struct kube_config *c, struct err *e)
{
	const char *current = js_str(cfg, "current-context");
	const json_t *context = named(cfg, "contexts", current, "context"), *cluster, *user;
	const char *server;
	int r;

	if (!context)
		return err_set(e, -EINVAL, "current-context '%s' is not among its contexts",
			       current ? current : "");
	cluster = named(cfg, "clusters", js_str(context, "cluster"), "cluster");
	server = cluster ? js_str(cluster, "server") : NULL;
	if (!server || (!str_starts(server, "https://") && !str_starts(server, "http://")))
		return err_set(e, -EINVAL, "context '%s' has no cluster with a server URL", current);
	c->servers = strv_add(c->servers, server);
	c->insecure = json_is_true(json_object_get(cluster, "insecure-skip-tls-verify"));
	r = key_material(cluster, "certificate-authority", dir, &c->ca_pem, &c->ca_file, e);
	if (r < 0)
		return r;
	user = named(cfg, "users", js_str(context, "user"), "user");
	return user ? user_parse(user, dir, c, e) : 0;
}

int config_parse(const char *text, size_t len, const char *dir, struct kube_config *ret, struct err *e)
{
	_cleanup_json_ json_t *cfg = NULL;
	_cleanup_(config_done) struct kube_config c = {0};
	int r = yaml_parse_new(text, len, &cfg, e);

	if (r < 0)
		return r;
	if (!json_is_object(cfg))
		return err_set(e, -EINVAL, "no kubeconfig");
	r = config_parse_json(cfg, dir, &c, e);
	if (r < 0)
		return r;
	*ret = c;
	c = (struct kube_config){0};
	return 0;
}

static int config_from_file(const char *path, struct kube_config *ret, struct err *e)
{
	_cleanup_free_ char *text = NULL, *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	size_t len;
	int r = file_read(path, CONFIG_MAX, &text, &len, e);

	if (r < 0)
		return r;
	if (slash)
		*slash = 0;
	r = config_parse(text, len, slash ? dir : NULL, ret, e);
	return r < 0 ? err_wrap(e, "kubeconfig %s", path) : 0;
}

static int config_in_cluster(struct kube_config *c, struct err *e)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
	_cleanup_free_ char *url = NULL;

	if (!host || !*host)
		return err_set(e, -EINVAL, "no API server given: use --server, --kubeconfig or $KUBECONFIG");
	url = xasprintf(strchr(host, ':') ? "https://[%s]:%s" : "https://%s:%s", host,
			port && *port ? port : "443");
	c->servers = strv_add(c->servers, url);
	c->ca_file = xstrdup(SERVICE_ACCOUNT "/ca.crt");
	return token_from(SERVICE_ACCOUNT "/token", &c->token, e);
}

static void replace(char **field, char **pem, const char *file)
{
	if (!file)
		return;
	free(*field);
	free(*pem);
	*field = xstrdup(file);
	*pem = NULL;
}

int config_load(const struct kube_settings *s, struct kube_config *ret, struct err *e)
{
	_cleanup_(config_done) struct kube_config c = {0};
	const char *path = s->kubeconfig ? s->kubeconfig : s->servers ? NULL : getenv("KUBECONFIG");
	int r = 0;

	if (path && *path)
		r = config_from_file(path, &c, e);
	else if (!s->servers || !s->servers[0])
		r = config_in_cluster(&c, e);
	if (r < 0)
		return r;
	if (s->servers && s->servers[0]) {
		c.servers = strv_free(c.servers);
		for (size_t i = 0; s->servers[i]; i++)
			c.servers = strv_add(c.servers, s->servers[i]);
	}
	replace(&c.ca_file, &c.ca_pem, s->ca_file);
	replace(&c.cert_file, &c.cert_pem, s->cert_file);
	replace(&c.key_file, &c.key_pem, s->key_file);
	if (s->token_file) {
		char *token = NULL;

		r = token_from(s->token_file, &token, e);
		if (r < 0)
			return r;
		free(c.token);
		c.token = token;
	}
	for (size_t i = 0; c.servers[i]; i++)
		if (!str_starts(c.servers[i], "https://") && !str_starts(c.servers[i], "http://"))
			return err_set(e, -EINVAL, "API server '%s': must start with https://", c.servers[i]);
	*ret = c;
	c = (struct kube_config){0};
	return 0;
}
