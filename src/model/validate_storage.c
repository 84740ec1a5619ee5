/* SPDX-License-Identifier: Apache-2.0 */
/* PersistentVolumeClaim, PersistentVolume, StorageClass. Types are known to be right here. */
#include "model/internal.h"

static int64_t amount(const json_t *o, const char *path)
{
	int64_t milli = 0;

	(void)model_quantity_json(json_object_get(js_get(o, path), "storage"), &milli);
	return milli;
}

static void access_modes(json_t *causes, const struct at *at, const json_t *spec)
{
	if (!json_array_size(json_object_get(spec, "accessModes")))
		fault_required(causes, AT(at, "accessModes"), "at least 1 access mode is required");
}

static void class_name(json_t *causes, const struct at *at, const json_t *spec)
{
	json_t *name = json_object_get(spec, "storageClassName");

	if (json_string_length(name) && !model_subdomain_ok(json_string_value(name)))
		fault_invalid(causes, AT(at, "storageClassName"), name, "%s", text_subdomain);
}

/* ---- claims ---- */

void validate_claim_spec(json_t *causes, const struct at *at, const json_t *spec)
{
	const struct at *resources = AT(at, "resources"), *requests = AT(resources, "requests");
	json_t *storage = json_object_get(js_get(spec, "resources.requests"), "storage");

	access_modes(causes, at, spec);
	if (!storage)
		fault_required(causes, AT_KEY(resources, "storage"), NULL);
	else if (amount(spec, "resources.requests") <= 0)
		fault_invalid(causes, AT_KEY(requests, "storage"), storage, "must be greater than zero");
	if (json_object_get(spec, "selector"))
		validate_label_selector(causes, AT(at, "selector"), json_object_get(spec, "selector"));
	class_name(causes, at, spec);
}

/* What may change: the binding, a class that was not given, and the size of a bound claim. */
static void claim_update(json_t *causes, const struct at *at, const json_t *obj, const json_t *old)
{
	const struct at *resources = AT(at, "resources"), *requests = AT(resources, "requests");
	_cleanup_json_ json_t *now = json_deep_copy(json_object_get(obj, "spec")),
			      *was = json_deep_copy(json_object_get(old, "spec"));
	bool bound = streq(js_str(old, "status.phase"), "Bound");

	if (!*js_str_or(was, "volumeName", "")) {
		json_object_del(now, "volumeName");
		json_object_del(was, "volumeName");
	}
	if (!json_object_get(was, "storageClassName"))
		json_object_del(now, "storageClassName");
	if (bound && amount(now, "resources.requests") < amount(was, "resources.requests") &&
	    amount(now, "resources.requests") < amount(old, "status.capacity"))
		fault_forbidden(causes, AT(requests, "storage"),
				"field can not be less than status.capacity");
	if (bound) {
		js_del(now, "resources.requests");
		js_del(was, "resources.requests");
	}
	if (!json_equal(now, was))
		fault_forbidden(causes, at,
				"spec is immutable after creation except resources.requests and "
				"volumeAttributesClassName for bound claims");
}

void validate_claim(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "spec");

	validate_claim_spec(causes, at, json_object_get(obj, "spec"));
	if (old && json_object_get(old, "spec") && json_object_get(obj, "spec"))
		claim_update(causes, at, obj, old);
}

/* ---- volumes ---- */

static const char *const sources[] = {"csi", "hostPath"};

static void volume_source(json_t *causes, const struct at *at, const json_t *spec)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
		if (json_object_get(spec, sources[i]) && n++)
			fault_forbidden(causes, AT(at, sources[i]),
					"may not specify more than 1 volume type");
	if (!n)
		fault_required(causes, at, "must specify a volume type");
	if (path_climbs(js_str_or(spec, "hostPath.path", "")))
		fault_invalid(causes, AT(AT(at, "hostPath"), "path"), js_get(spec, "hostPath.path"),
			      "must not contain '..'");
}

static void volume_update(json_t *causes, const struct at *at, const json_t *now, const json_t *old)
{
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		const json_t *a = json_object_get(now, sources[i]), *b = json_object_get(old, sources[i]);

		if (a != b && !(a && b && json_equal(a, b))) {
			fault_forbidden(causes, AT(at, "persistentvolumesource"),
					"spec.persistentvolumesource is immutable after creation");
			return;
		}
	}
}

void validate_volume(json_t *causes, const json_t *obj, const json_t *old)
{
	const struct at root = AT_ROOT, *at = AT(&root, "spec");
	json_t *spec = json_object_get(obj, "spec"), *was = json_object_get(old, "spec");
	json_t *storage = json_object_get(json_object_get(spec, "capacity"), "storage");

	access_modes(causes, at, spec);
	if (!storage)
		fault_required(causes, AT(at, "capacity"), NULL);
	else if (amount(spec, "capacity") <= 0)
		fault_invalid(causes, AT_KEY(AT(at, "capacity"), "storage"), storage,
			      "must be greater than zero");
	volume_source(causes, at, spec);
	class_name(causes, at, spec);
	if (was && spec)
		volume_update(causes, at, spec, was);
}

/* ---- classes ---- */

void validate_storage_class(json_t *causes, const json_t *obj, const json_t *old)
{
	static const char *const fixed[] = {"parameters", "provisioner", "reclaimPolicy",
					    "volumeBindingMode"};
	const struct at root = AT_ROOT;
	json_t *provisioner = json_object_get(obj, "provisioner");

	if (json_string_length(provisioner) && !name_is_qualified(json_string_value(provisioner)))
		fault_invalid(causes, AT(&root, "provisioner"), provisioner, "%s", text_qualified);
	for (size_t i = 0; old && i < ARRAY_SIZE(fixed); i++) {
		const json_t *a = json_object_get(obj, fixed[i]), *b = json_object_get(old, fixed[i]);

		if (a != b && !(a && b && json_equal(a, b)))
			fault_forbidden(causes, AT(&root, fixed[i]), "updates to %s are forbidden.",
					fixed[i]);
	}
}
