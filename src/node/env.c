/* SPDX-License-Identifier: Apache-2.0 */
/* Environment and downward API, as the Kubernetes API reference describes EnvVar, EnvFromSource and "dependent environment
 * variables". Results are bounded by the API server's size limit for objects. */
#include "node/env.h"

#include "model/model.h"

char *base64_decode(const char *text, size_t *ret_len)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = strlen(text), n = 0;
	_cleanup_free_ char *out = xcalloc(1, len / 4 * 3 + 4);
	uint32_t acc = 0;
	int bits = 0;

	for (size_t i = 0; i < len; i++) {
		const char *at;

		if (text[i] == '\n' || text[i] == '\r')
			continue;
		if (text[i] == '=')
			break;
		at = strchr(alphabet, text[i]);
		if (!at)
			return NULL;
		acc = acc << 6 | (uint32_t)(at - alphabet);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = (char)(acc >> bits & 0xff);
		}
	}
	out[n] = 0;
	*ret_len = n;
	return take_ptr(out);
}

char *env_key_bytes(const json_t *obj, const char *key, bool secret, size_t *ret_len)
{
	json_t *text = json_object_get(json_object_get(obj, "data"), key);
	json_t *binary = json_object_get(json_object_get(obj, "binaryData"), key);

	if (!secret && json_is_string(text)) {
		*ret_len = json_string_length(text);
		return xstrndup(json_string_value(text), *ret_len);
	}
	if (!secret)
		text = binary;
	return json_is_string(text) ? base64_decode(json_string_value(text), ret_len) : NULL;
}

json_t *pod_container(const json_t *pod, const char *name)
{
	static const char *const lists[] = {"spec.containers", "spec.initContainers"};

	for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
		json_t *c;
		size_t i;

		json_array_foreach (js_get(pod, lists[l]), i, c)
			if (streq(js_str(c, "name"), name))
				return c;
	}
	return NULL;
}

/* metadata.labels['x'] -> x, borrowed from a copy in out. */
static bool subscript(const char *path, const char *prefix, char *out, size_t room)
{
	size_t n = strlen(prefix), len = strlen(path);

	if (!str_starts(path, prefix) || len < n + 4 || path[n] != '[' || path[n + 1] != '\'' ||
	    !str_ends(path, "']"))
		return false;
	snprintf(out, room, "%.*s", (int)(len - n - 4), path + n + 2);
	return true;
}

/* All labels or annotations: key="value" lines, as Kubernetes writes them into files. */
static char *map_lines(const json_t *map)
{
	_cleanup_buf_ struct buf b = {0};
	const char *k;
	json_t *v;

	json_object_foreach ((json_t *)map, k, v) {
		_cleanup_free_ char *q = json_dumps(v, JSON_ENCODE_ANY);

		(void)buf_addf(&b, "%s=%s\n", k, q ? q : "\"\"");
	}
	if (b.len)
		b.data[b.len - 1] = 0;
	return b.len ? buf_take(&b) : xstrdup("");
}

char *env_field(const struct env_sources *s, const char *path)
{
	char key[400];
	const char *v;

	if (subscript(path, "metadata.labels", key, sizeof(key)))
		v = json_string_value(json_object_get(js_get(s->pod, "metadata.labels"), key));
	else if (subscript(path, "metadata.annotations", key, sizeof(key)))
		v = json_string_value(json_object_get(js_get(s->pod, "metadata.annotations"), key));
	else if (streq(path, "metadata.labels") || streq(path, "metadata.annotations"))
		return map_lines(js_get(s->pod, path));
	else if (streq(path, "status.podIP") || streq(path, "status.podIPs"))
		v = s->pod_ip;
	else if (streq(path, "status.hostIP") || streq(path, "status.hostIPs"))
		v = s->host_ip;
	else if (streq(path, "spec.nodeName"))
		v = s->node_name;
	else if (streq(path, "spec.serviceAccountName"))
		v = js_str_or(s->pod, path, "default");
	else if (streq(path, "metadata.name") || streq(path, "metadata.namespace") ||
		 streq(path, "metadata.uid"))
		v = js_str(s->pod, path);
	else
		return NULL;
	return xstrdup(v ? v : "");
}

char *env_resource(const struct env_sources *s, const json_t *container, const json_t *ref)
{
	const char *what = js_str_or(ref, "resource", ""), *dot = strchr(what, '.');
	const char *name = js_str(ref, "containerName");
	int64_t value = 0, divisor = 1000, unit;
	json_t *q;

	if (name)
		container = pod_container(s->pod, name);
	if (!dot || !container)
		return NULL;
	q = js_get(container, str_starts(what, "limits.") ? "resources.limits" : "resources.requests");
	q = json_object_get(q, dot + 1);
	if (q)
		(void)model_quantity_json(q, &value);
	else if (streq(what, "limits.cpu"))
		value = s->node_cpu_milli;
	else if (streq(what, "limits.memory"))
		value = s->node_memory_bytes * 1000;
	q = json_object_get(ref, "divisor");
	if (q && (model_quantity_json(q, &unit) == 0) && unit > 0)
		divisor = unit;
	return xasprintf("%lld", (long long)((value + divisor - 1) / divisor));
}

static void set_text(json_t *vars, const char *name, const char *value)
{
	json_t *v = json_string(value);

	/* What is no UTF-8 cannot be in an environment that JSON describes. */
	json_object_set_new(vars, name, v ? v : json_string(""));
}

static bool name_is_env(const char *s)
{
	if (!*s || strchr(s, '='))
		return false;
	return true;
}

static int add_all(const struct env_sources *s, const json_t *from, bool secret, json_t *vars, struct err *e)
{
	const json_t *ref = json_object_get(from, secret ? "secretRef" : "configMapRef");
	const char *ns = js_str_or(s->pod, "metadata.namespace", ""), *name = js_str_or(ref, "name", "");
	const char *prefix = js_str_or(from, "prefix", ""), *k;
	json_t *obj, *v;

	if (!ref)
		return 0;
	obj = secret ? s->secret(s->ctx, ns, name) : s->config_map(s->ctx, ns, name);
	if (!obj && js_bool(ref, "optional", false))
		return 0;
	if (!obj)
		return err_set(e, -ENOENT, "%s \"%s\" not found", secret ? "secret" : "configmap", name);
	json_object_foreach (json_object_get(obj, "data"), k, v) {
		size_t len;
		_cleanup_free_ char *value = env_key_bytes(obj, k, secret, &len);
		_cleanup_free_ char *full = xasprintf("%s%s", prefix, k);

		if (value && name_is_env(full))
			set_text(vars, full, value);
	}
	return 0;
}

static int key_ref(const struct env_sources *s, const json_t *ref, bool secret, char **ret, struct err *e)
{
	const char *ns = js_str_or(s->pod, "metadata.namespace", ""), *name = js_str_or(ref, "name", "");
	const char *key = js_str_or(ref, "key", "");
	json_t *obj = secret ? s->secret(s->ctx, ns, name) : s->config_map(s->ctx, ns, name);
	size_t len;

	*ret = obj ? env_key_bytes(obj, key, secret, &len) : NULL;
	if (*ret || js_bool(ref, "optional", false))
		return 0;
	if (!obj)
		return err_set(e, -ENOENT, "%s \"%s\" not found", secret ? "secret" : "configmap", name);
	return err_set(e, -ENOENT, "couldn't find key %s in %s %s/%s", key, secret ? "Secret" : "ConfigMap",
		       ns, name);
}

static int value_from(const struct env_sources *s, const json_t *container, const json_t *from, char **ret,
		      struct err *e)
{
	json_t *ref;

	*ret = NULL;
	if ((ref = json_object_get(from, "configMapKeyRef")))
		return key_ref(s, ref, false, ret, e);
	if ((ref = json_object_get(from, "secretKeyRef")))
		return key_ref(s, ref, true, ret, e);
	if ((ref = json_object_get(from, "fieldRef"))) {
		*ret = env_field(s, js_str_or(ref, "fieldPath", ""));
		return *ret ? 0 : err_set(e, -EINVAL, "unknown field %s", js_str_or(ref, "fieldPath", ""));
	}
	if ((ref = json_object_get(from, "resourceFieldRef"))) {
		*ret = env_resource(s, container, ref);
		return *ret ? 0 : err_set(e, -EINVAL, "unknown resource %s", js_str_or(ref, "resource", ""));
	}
	return err_set(e, -EINVAL, "valueFrom names no known source");
}

int env_resolve(const struct env_sources *s, const json_t *container, json_t **ret, struct err *e)
{
	_cleanup_json_ json_t *vars = s->services ? json_copy((json_t *)s->services) : json_object();
	json_t *item;
	size_t i;
	int r;

	json_array_foreach (json_object_get(container, "envFrom"), i, item) {
		r = add_all(s, item, false, vars, e);
		if (r == 0)
			r = add_all(s, item, true, vars, e);
		if (r < 0)
			return r;
	}
	json_array_foreach (json_object_get(container, "env"), i, item) {
		const char *name = js_str_or(item, "name", "");
		const json_t *from = json_object_get(item, "valueFrom");
		_cleanup_free_ char *value = NULL;

		if (!name_is_env(name))
			return err_set(e, -EINVAL, "bad name of an environment variable: \"%s\"", name);
		if (from)
			r = value_from(s, container, from, &value, e);
		else
			r = (value = env_expand(js_str_or(item, "value", ""), vars)) ? 0 : -ENOMEM;
		if (r < 0)
			return r;
		if (value)
			set_text(vars, name, value);
	}
	*ret = take_ptr(vars);
	return 0;
}

char *env_expand(const char *text, const json_t *vars)
{
	_cleanup_buf_ struct buf b = {0};

	while (*text) {
		const char *end;

		if (text[0] == '$' && text[1] == '$') {
			(void)buf_add(&b, "$", 1);
			text += 2;
			continue;
		}
		end = text[0] == '$' && text[1] == '(' ? strchr(text + 2, ')') : NULL;
		if (end) {
			_cleanup_free_ char *name = xstrndup(text + 2, (size_t)(end - text - 2));
			const char *value = json_string_value(json_object_get(vars, name));

			if (value)
				(void)buf_adds(&b, value);
			else
				(void)buf_add(&b, text, (size_t)(end - text + 1));
			text = end + 1;
			continue;
		}
		(void)buf_add(&b, text++, 1);
	}
	return buf_take(&b);
}
