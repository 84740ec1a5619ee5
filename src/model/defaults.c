/* SPDX-License-Identifier: Apache-2.0 */
/* Defaults: first those the schema tables hold, wherever the object around the field exists; then those that depend on other
 * fields, here by kind. Nulls are dropped before, as Kubernetes' decoder does. Input may be anything: wrong types are left for
 * validation. */
#include "model/internal.h"

static void drop_nulls(json_t *j)
{
	const char *name;
	void *tmp;
	json_t *v;
	size_t i;

	json_object_foreach_safe (j, tmp, name, v) {
		if (json_is_null(v))
			json_object_del(j, name);
		else
			drop_nulls(v);
	}
	json_array_foreach (j, i, v)
		drop_nulls(v);
}

static void default_str(json_t *o, const char *name, const char *value)
{
	const char *have = json_string_value(json_object_get(o, name));

	if (json_is_object(o) && (!json_object_get(o, name) || (have && !*have)))
		json_object_set_new(o, name, json_string(value));
}

/* Takes value over. */
static void default_new(json_t *o, const char *name, json_t *value)
{
	if (json_is_object(o) && !json_object_get(o, name))
		json_object_set_new(o, name, value);
	else
		json_decref(value);
}

/* A quantity given as a number becomes text, so that clients see one type only. */
static json_t *quantity_text_new(const json_t *number)
{
	char text[64];

	if (json_is_integer(number))
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(number));
	else
		snprintf(text, sizeof(text), "%.9g", json_real_value(number));
	return json_string(text);
}

static void quantities(const struct model_field *f, json_t *obj, json_t *v)
{
	const char *key;
	void *tmp;
	json_t *w;

	if (f->shape == MODEL_ONE && json_is_number(v))
		json_object_set_new(obj, f->name, quantity_text_new(v));
	json_object_foreach_safe (f->shape == MODEL_MAP ? v : NULL, tmp, key, w)
		if (json_is_number(w))
			json_object_set_new(v, key, quantity_text_new(w));
}

static void default_tables(const struct model_object *o, json_t *obj)
{
	const char *key;
	json_t *w;
	size_t i;

	for (const struct model_field *f = o->fields; f->name; f++) {
		json_t *v = json_object_get(obj, f->name);
		bool empty = json_is_string(v) && f->initial && !json_string_length(v);

		if ((!v || empty) && f->initial && json_is_object(obj)) {
			json_object_set_new(obj, f->name, json_loads(f->initial, JSON_DECODE_ANY, NULL));
			v = json_object_get(obj, f->name);
		}
		if (v && f->type == MODEL_QUANTITY)
			quantities(f, obj, v);
		if (!v || f->type != MODEL_OBJECT)
			continue;
		if (f->shape == MODEL_ONE)
			default_tables(f->object, v);
		json_array_foreach (f->shape == MODEL_ARRAY ? v : NULL, i, w)
			default_tables(f->object, w);
		json_object_foreach (f->shape == MODEL_MAP ? v : NULL, key, w)
			default_tables(f->object, w);
	}
}

/* ---- pods ---- */

/* Kubernetes: Always for :latest and for no tag, IfNotPresent otherwise (also with a digest). */
static const char *pull_policy(const char *image)
{
	const char *slash = strrchr(image, '/'), *tag = strrchr(slash ? slash : image, ':');

	if (strchr(image, '@'))
		return "IfNotPresent";
	return !tag || streq(tag, ":latest") ? "Always" : "IfNotPresent";
}

static void default_probe(json_t *container, const char *name)
{
	static const char *const zero_means_default[] = {"timeoutSeconds", "periodSeconds",
							 "successThreshold", "failureThreshold"};
	static const int values[] = {1, 10, 1, 3};
	json_t *probe = json_object_get(container, name);

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		json_t *v = json_object_get(probe, zero_means_default[i]);

		if (json_is_integer(v) && json_integer_value(v) == 0)
			json_object_set_new(probe, zero_means_default[i], json_integer(values[i]));
	}
}

static void default_container(json_t *c, bool host_network)
{
	const char *image = js_str(c, "image");
	json_t *port;
	size_t i;

	if (image && *image)
		default_str(c, "imagePullPolicy", pull_policy(image));
	default_probe(c, "livenessProbe");
	default_probe(c, "readinessProbe");
	default_probe(c, "startupProbe");
	json_array_foreach (json_object_get(c, "ports"), i, port)
		if (host_network && json_is_integer(json_object_get(port, "containerPort")))
			default_new(port, "hostPort", json_copy(json_object_get(port, "containerPort")));
}

static void default_volume(json_t *v)
{
	if (json_is_object(v) && json_object_size(v) == 1 && json_object_get(v, "name"))
		json_object_set_new(v, "emptyDir", json_object());
}

static void default_pod_spec(json_t *spec)
{
	bool host_network = js_bool(spec, "hostNetwork", false);
	json_t *v;
	size_t i;

	if (js_str(spec, "serviceAccountName"))
		default_str(spec, "serviceAccount", js_str(spec, "serviceAccountName"));
	else if (js_str(spec, "serviceAccount"))
		default_str(spec, "serviceAccountName", js_str(spec, "serviceAccount"));
	json_array_foreach (json_object_get(spec, "volumes"), i, v)
		default_volume(v);
	json_array_foreach (json_object_get(spec, "initContainers"), i, v)
		default_container(v, host_network);
	json_array_foreach (json_object_get(spec, "containers"), i, v)
		default_container(v, host_network);
}

/* Requests equal limits where only limits are given. */
static void default_requests(json_t *c)
{
	json_t *limits = js_get(c, "resources.limits"), *requests, *v;
	const char *name;

	if (!json_object_size(limits))
		return;
	requests = js_object(c, "resources.requests");
	json_object_foreach (limits, name, v)
		default_new(requests, name, json_copy(v));
}

static void default_pod(json_t *obj)
{
	json_t *spec = json_object_get(obj, "spec"), *c;
	size_t i;

	default_pod_spec(spec);
	json_array_foreach (json_object_get(spec, "initContainers"), i, c)
		default_requests(c);
	json_array_foreach (json_object_get(spec, "containers"), i, c)
		default_requests(c);
	default_new(spec, "enableServiceLinks", json_true());
	if (streq(js_str(spec, "priorityClassName"), "system-node-critical"))
		default_new(spec, "priority", json_integer(2000001000));
	else if (streq(js_str(spec, "priorityClassName"), "system-cluster-critical"))
		default_new(spec, "priority", json_integer(2000000000));
	default_str(js_object(obj, "status"), "phase", "Pending");
	default_str(js_object(obj, "status"), "qosClass", pod_qos_class(spec));
}

/* ---- workloads ---- */

static void default_deployment(json_t *obj)
{
	json_t *strategy =
		json_is_object(json_object_get(obj, "spec")) ? js_object(obj, "spec.strategy") : NULL;
	json_t *rolling;

	default_str(strategy, "type", "RollingUpdate");
	if (streq(js_str(strategy, "type"), "RollingUpdate")) {
		rolling = js_object(strategy, "rollingUpdate");
		default_new(rolling, "maxUnavailable", json_string("25%"));
		default_new(rolling, "maxSurge", json_string("25%"));
	}
	default_pod_spec(js_get(obj, "spec.template.spec"));
}

static void default_claim(json_t *obj)
{
	default_str(js_object(obj, "status"), "phase", "Pending");
}

static void default_stateful_set(json_t *obj)
{
	json_t *strategy =
		json_is_object(json_object_get(obj, "spec")) ? js_object(obj, "spec.updateStrategy") : NULL;
	json_t *claim;
	size_t i;

	default_str(strategy, "type", "RollingUpdate");
	if (streq(js_str(strategy, "type"), "RollingUpdate"))
		default_new(js_object(strategy, "rollingUpdate"), "partition", json_integer(0));
	json_array_foreach (js_get(obj, "spec.volumeClaimTemplates"), i, claim) {
		default_str(claim, "apiVersion", "v1");
		default_str(claim, "kind", "PersistentVolumeClaim");
		default_claim(claim);
	}
	default_pod_spec(js_get(obj, "spec.template.spec"));
}

static void default_replica_set(json_t *obj)
{
	default_pod_spec(js_get(obj, "spec.template.spec"));
}

/* ---- the rest ---- */

static void default_service(json_t *obj)
{
	json_t *spec = json_object_get(obj, "spec"), *port;
	const char *type = js_str_or(spec, "type", "ClusterIP");
	bool outside = streq(type, "NodePort") || streq(type, "LoadBalancer");
	size_t i;

	default_str(spec, "sessionAffinity", "None");
	if (json_is_object(spec) && streq(js_str(spec, "sessionAffinity"), "ClientIP"))
		default_new(js_object(spec, "sessionAffinityConfig.clientIP"), "timeoutSeconds",
			    json_integer(10800));
	json_array_foreach (json_object_get(spec, "ports"), i, port) {
		json_t *target = json_object_get(port, "targetPort");

		bool empty = json_is_string(target) && !json_string_length(target);

		if (empty || (json_is_integer(target) && !json_integer_value(target)))
			json_object_del(port, "targetPort");
		if (json_is_integer(json_object_get(port, "port")))
			default_new(port, "targetPort", json_copy(json_object_get(port, "port")));
	}
	if (streq(type, "ExternalName"))
		return;
	default_str(spec, "internalTrafficPolicy", "Cluster");
	if (outside)
		default_str(spec, "externalTrafficPolicy", "Cluster");
	if (streq(type, "LoadBalancer"))
		default_new(spec, "allocateLoadBalancerNodePorts", json_false());
	default_new(spec, "ipFamilies", json_pack("[s]", "IPv4"));
	default_str(spec, "ipFamilyPolicy", "SingleStack");
}

static void default_secret(json_t *obj)
{
	json_t *plain = json_object_get(obj, "stringData"), *data, *v;
	const char *name;

	if (!json_object_size(plain))
		return;
	data = js_object(obj, "data");
	json_object_foreach (plain, name, v)
		if (data && json_is_string(v))
			json_object_set_new(data, name,
					    bytes_json_new(json_string_value(v), json_string_length(v)));
	if (data)
		json_object_del(obj, "stringData");
}

static void default_namespace(json_t *obj)
{
	const char *name = js_str(obj, "metadata.name");

	if (name)
		default_str(js_object(obj, "metadata.labels"), "kubernetes.io/metadata.name", name);
	default_str(js_object(obj, "status"), "phase", "Active");
}

static void default_slice(json_t *obj)
{
	json_t *port;
	size_t i;

	json_array_foreach (json_object_get(obj, "ports"), i, port)
		default_new(port, "name", json_string(""));
}

void model_default(const struct model_kind *k, json_t *obj)
{
	static const struct {
		const char *kind;
		void (*fn)(json_t *obj);
	} special[] = {
		{"Pod", default_pod},
		{"Deployment", default_deployment},
		{"ReplicaSet", default_replica_set},
		{"StatefulSet", default_stateful_set},
		{"Service", default_service},
		{"Secret", default_secret},
		{"Namespace", default_namespace},
		{"EndpointSlice", default_slice},
		{"PersistentVolumeClaim", default_claim},
		{"PersistentVolume", default_claim}, /* Pending as well */
	};

	if (!json_is_object(obj))
		return;
	drop_nulls(obj);
	js_del(obj, "metadata.managedFields");
	default_tables(k->schema->object, obj);
	for (size_t i = 0; i < ARRAY_SIZE(special); i++)
		if (streq(special[i].kind, k->kind))
			special[i].fn(obj);
}
