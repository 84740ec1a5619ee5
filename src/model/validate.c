/* SPDX-License-Identifier: Apache-2.0 */
/* Validation of a whole object: the schema's checks, metadata, then the checks of the kind (validate_*.c). */
#include "model/internal.h"

static const struct {
	const char *kind;
	validate_fn *fn;
} special[] = {
	{"Pod", validate_pod},
	{"Deployment", validate_deployment},
	{"ReplicaSet", validate_replica_set},
	{"StatefulSet", validate_stateful_set},
	{"ControllerRevision", validate_revision},
	{"Service", validate_service},
	{"EndpointSlice", validate_slice},
	{"ConfigMap", validate_config_map},
	{"Secret", validate_secret},
	{"Node", validate_node},
	{"Event", validate_event},
	{"Binding", validate_binding},
	{"PersistentVolumeClaim", validate_claim},
	{"PersistentVolume", validate_volume},
	{"StorageClass", validate_storage_class},
};

/* With a full list a type fault may be missing from it: then nothing more is looked at either. */
static bool has_type_fault(const json_t *causes)
{
	json_t *c;
	size_t i;

	if (json_array_size(causes) >= FAULTS_MAX)
		return true;
	json_array_foreach (causes, i, c)
		if (streq(js_str(c, "reason"), "FieldValueTypeInvalid"))
			return true;
	return false;
}

int model_validate(const struct model_kind *k, const json_t *obj, const json_t *old, json_t **ret_causes)
{
	_cleanup_json_ json_t *was = NULL;
	json_t *causes = json_array();

	if (old) { /* what is stored may be older than a default */
		was = json_deep_copy(old);
		model_default(k, was);
	}
	if (!json_is_object(obj))
		fault_type(causes, &AT_ROOT, obj, "an object");
	else
		check_schema(causes, &AT_ROOT, k->schema->object, obj);
	if (!has_type_fault(causes)) {
		validate_meta(causes, k, obj, was);
		for (size_t i = 0; i < ARRAY_SIZE(special); i++)
			if (streq(special[i].kind, k->kind))
				special[i].fn(causes, obj, was);
		if (was)
			check_immutable(causes, &AT_ROOT, k->schema->object, obj, was);
	}
	*ret_causes = causes;
	return json_array_size(causes) ? -EINVAL : 0;
}
