/* SPDX-License-Identifier: Apache-2.0 */
/* kubectl get for PersistentVolumeClaim, PersistentVolume, StorageClass, CSIDriver, CSINode. */
#include "model/table.h"

static void cell_modes(json_t *cells, const json_t *modes)
{
	static const char *const shorts[][2] = {{"ReadWriteOnce", "RWO"},
						{"ReadOnlyMany", "ROX"},
						{"ReadWriteMany", "RWX"},
						{"ReadWriteOncePod", "RWOP"}};
	_cleanup_buf_ struct buf b = {.limit = 256};
	json_t *m;
	size_t i;

	for (size_t k = 0; k < ARRAY_SIZE(shorts); k++)
		json_array_foreach (modes, i, m)
			if (streq(json_string_value(m), shorts[k][0])) {
				join(&b, shorts[k][1]);
				break;
			}
	cell_buf(cells, &b, "");
}

static void cell_phase(json_t *cells, const json_t *obj)
{
	cell(cells, js_str(obj, "metadata.deletionTimestamp") ? "Terminating" : js_str(obj, "status.phase"));
}

/* Quantities are text after defaulting. */
static void cell_storage(json_t *cells, const json_t *amounts)
{
	cell(cells, json_string_value(json_object_get(amounts, "storage")));
}

static void cells_claim(json_t *cells, const json_t *claim, int64_t now_us)
{
	bool bound = *js_str_or(claim, "spec.volumeName", "");

	cell(cells, js_str(claim, "metadata.name"));
	cell_phase(cells, claim);
	cell(cells, js_str(claim, "spec.volumeName"));
	cell_storage(cells, bound ? js_get(claim, "status.capacity") : NULL);
	cell_modes(cells, bound ? js_get(claim, "status.accessModes") : NULL);
	cell(cells, js_str(claim, "spec.storageClassName"));
	cell_or(cells, js_str(claim, "spec.volumeAttributesClassName"), "<unset>");
	cell_age(cells, claim, now_us);
	cell_or(cells, js_str(claim, "spec.volumeMode"), "<unset>");
}

#define COLUMNS_STORAGE                                                        \
	{"StorageClass", "string", "", 0, "Class."},                           \
	{                                                                      \
		"VolumeAttributesClass", "string", "", 0, "Not used by kuayu." \
	}

const struct table table_claim = {
	"PersistentVolumeClaim",
	COLUMNS(COLUMN_NAME, {"Status", "string", "", 0, "Pending, Bound, Lost or Terminating."},
		{"Volume", "string", "", 0, "The volume it is bound to."},
		{"Capacity", "string", "", 0, "What the volume holds."},
		{"Access Modes", "string", "", 0, "What the volume offers."}, COLUMNS_STORAGE, COLUMN_AGE,
		{"VolumeMode", "string", "", 1, "Filesystem."}),
	cells_claim,
};

static void cells_volume(json_t *cells, const json_t *pv, int64_t now_us)
{
	_cleanup_free_ char *claim =
		json_is_object(js_get(pv, "spec.claimRef"))
			? xasprintf("%s/%s", js_str_or(pv, "spec.claimRef.namespace", ""),
				    js_str_or(pv, "spec.claimRef.name", ""))
			: NULL;

	cell(cells, js_str(pv, "metadata.name"));
	cell_storage(cells, js_get(pv, "spec.capacity"));
	cell_modes(cells, js_get(pv, "spec.accessModes"));
	cell(cells, js_str(pv, "spec.persistentVolumeReclaimPolicy"));
	cell_phase(cells, pv);
	cell(cells, claim);
	cell(cells, js_str(pv, "spec.storageClassName"));
	cell_or(cells, js_str(pv, "spec.volumeAttributesClassName"), "<unset>");
	cell(cells, js_str(pv, "status.reason"));
	cell_age(cells, pv, now_us);
	cell_or(cells, js_str(pv, "spec.volumeMode"), "<unset>");
}

const struct table table_volume = {
	"PersistentVolume",
	COLUMNS(COLUMN_NAME, {"Capacity", "string", "", 0, "What it holds."},
		{"Access Modes", "string", "", 0, "From where it can be used."},
		{"Reclaim Policy", "string", "", 0, "What happens when its claim has gone."},
		{"Status", "string", "", 0, "Available, Bound, Released, Failed or Terminating."},
		{"Claim", "string", "", 0, "The claim it is bound to."}, COLUMNS_STORAGE,
		{"Reason", "string", "", 0, "Why it failed."}, COLUMN_AGE,
		{"VolumeMode", "string", "", 1, "Filesystem."}),
	cells_volume,
};

static void cells_storage_class(json_t *cells, const json_t *sc, int64_t now_us)
{
	const char *name = js_str_or(sc, "metadata.name", "");
	const json_t *notes = js_get(sc, "metadata.annotations");
	const char *first =
		json_string_value(json_object_get(notes, "storageclass.kubernetes.io/is-default-class"));
	_cleanup_free_ char *text = xasprintf("%s%s", name, streq(first, "true") ? " (default)" : "");

	cell(cells, text);
	cell(cells, js_str(sc, "provisioner"));
	cell_or(cells, js_str(sc, "reclaimPolicy"), "Delete");
	cell_or(cells, js_str(sc, "volumeBindingMode"), "Immediate");
	json_array_append_new(cells, json_boolean(js_bool(sc, "allowVolumeExpansion", false)));
	cell_age(cells, sc, now_us);
}

const struct table table_storage_class = {
	"StorageClass",
	COLUMNS(COLUMN_NAME, {"Provisioner", "string", "", 0, "Driver that makes the volumes."},
		{"ReclaimPolicy", "string", "", 0, "What happens to a volume when its claim has gone."},
		{"VolumeBindingMode", "string", "", 0, "When a volume is made."},
		{"AllowVolumeExpansion", "string", "", 0, "Whether claims may grow."}, COLUMN_AGE),
	cells_storage_class,
};

static void cells_csi_driver(json_t *cells, const json_t *driver, int64_t now_us)
{
	static const char *const switches[] = {"spec.attachRequired", "spec.podInfoOnMount",
					       "spec.storageCapacity"};
	_cleanup_buf_ struct buf modes = {.limit = 256};
	json_t *m;
	size_t i;

	cell(cells, js_str(driver, "metadata.name"));
	for (i = 0; i < ARRAY_SIZE(switches); i++)
		json_array_append_new(cells, json_boolean(js_bool(driver, switches[i], i == 0)));
	cell(cells, "<unset>");
	json_array_append_new(cells, json_boolean(js_bool(driver, "spec.requiresRepublish", false)));
	json_array_foreach (js_get(driver, "spec.volumeLifecycleModes"), i, m)
		join(&modes, json_is_string(m) ? json_string_value(m) : "");
	cell_buf(cells, &modes, "<none>");
	cell_age(cells, driver, now_us);
}

const struct table table_csi_driver = {
	"CSIDriver",
	COLUMNS(COLUMN_NAME, {"AttachRequired", "boolean", "", 0, "Whether volumes are attached first."},
		{"PodInfoOnMount", "boolean", "", 0, "Whether the driver is told of the pod."},
		{"StorageCapacity", "boolean", "", 0, "Whether free space is looked at."},
		{"TokenRequests", "string", "", 0, "Not used by kuayu."},
		{"RequiresRepublish", "boolean", "", 0, "Not used by kuayu."},
		{"Modes", "string", "", 0, "Persistent, Ephemeral."}, COLUMN_AGE),
	cells_csi_driver,
};

static void cells_csi_node(json_t *cells, const json_t *node, int64_t now_us)
{
	cell(cells, js_str(node, "metadata.name"));
	cell_int(cells, (int64_t)json_array_size(js_get(node, "spec.drivers")));
	cell_age(cells, node, now_us);
}

const struct table table_csi_node = {
	"CSINode",
	COLUMNS(COLUMN_NAME, {"Drivers", "integer", "", 0, "Number of drivers."}, COLUMN_AGE),
	cells_csi_node,
};
