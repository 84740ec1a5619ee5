/* SPDX-License-Identifier: Apache-2.0 */
/* Valid fields that are carried out in part only: not worth a refusal, because common manifests have them, but never taken in silence. */
#include "model/internal.h"

static void add(json_t *list, const struct at *at, const char *text)
{
	_cleanup_buf_ struct buf path = {.limit = 4096};

	if (json_array_size(list) >= FAULTS_MAX)
		return;
	at_text(at, &path);
	json_array_append_new(list, json_sprintf("%s: %s", path.data ? path.data : "", text));
}

static void containers(json_t *list, const struct at *at, const json_t *spec, const char *name)
{
	const struct at *all = AT(at, name);
	const json_t *c;
	size_t i;

	json_array_foreach (json_object_get(spec, name), i, c) {
		const struct at *limits = AT(AT(AT_INDEX(all, i), "resources"), "limits");

		if (json_object_get(js_get(c, "resources.limits"), "ephemeral-storage"))
			add(list, AT_KEY(limits, "ephemeral-storage"), "kuayu does not enforce it");
	}
}

static void pod_spec(json_t *list, const struct at *at, const json_t *spec)
{
	const char *account = js_str_or(spec, "serviceAccountName", "");
	const struct at *volumes = AT(at, "volumes");
	const json_t *v;
	size_t i;

	json_array_foreach (json_object_get(spec, "volumes"), i, v)
		if (js_get(v, "emptyDir.sizeLimit") && !streq(js_str(v, "emptyDir.medium"), "Memory"))
			add(list, AT(AT(AT_INDEX(volumes, i), "emptyDir"), "sizeLimit"),
			    "kuayu enforces it with medium Memory only");
	if (*account && !streq(account, "default"))
		add(list, AT(at, "serviceAccountName"), "kuayu gives pods no token of their service account");
	containers(list, at, spec, "initContainers");
	containers(list, at, spec, "containers");
}

json_t *model_warnings_new(const struct model_kind *k, const json_t *obj)
{
	const struct at root = AT_ROOT, *spec = AT(&root, "spec");
	json_t *list = json_array();

	if (streq(k->kind, "Pod"))
		pod_spec(list, spec, js_get(obj, "spec"));
	else if (js_get(obj, "spec.template.spec.containers"))
		pod_spec(list, AT(AT(spec, "template"), "spec"), js_get(obj, "spec.template.spec"));
	else if (streq(k->kind, "Service") && streq(js_str(obj, "spec.type"), "ExternalName"))
		add(list, AT(spec, "externalName"),
		    "kuayu has no DNS server: pods cannot look the Service's name up");
	return list;
}
