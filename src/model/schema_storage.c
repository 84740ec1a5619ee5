/* SPDX-License-Identifier: Apache-2.0 */
/* Storage: PersistentVolumeClaim, PersistentVolume, StorageClass, CSIDriver, CSINode, and the volume sources of a pod that lead to
 * them. See schema.h. Of the sources of a PersistentVolume only csi and hostPath are carried out. */
#include "model/schema.h"

#include "model/schema_macros.h"

#define ACCESS_MODES ALLOWED("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce")
#define UNSUPPORTED_SOURCE(name_, number)                                                  \
	{                                                                                  \
		name_, MODEL_RAW, .pb = 2, .pb_inner = number, .flags = MODEL_UNSUPPORTED, \
				  .text = "Not supported by kuayu."                        \
	}
#define UNSUPPORTED_SECRET(name_, number)                                   \
	{                                                                   \
		name_, MODEL_RAW, .pb = number, .flags = MODEL_UNSUPPORTED, \
				  .text = "Not supported by kuayu."         \
	}

/* ---- claims ---- */

const struct model_object schema_persistent_volume_claim = {
	"io.k8s.api.core.v1.PersistentVolumeClaim", "A request for storage, and what it was given.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_persistent_volume_claim_spec,
		.text = "What is wanted."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_persistent_volume_claim_status,
		.text = "Current state."})};

const struct model_object schema_persistent_volume_claim_spec = {
	"io.k8s.api.core.v1.PersistentVolumeClaimSpec", "What a claim wants.",
	FIELDS({"accessModes", MODEL_STRING, .pb = 1, .shape = MODEL_ARRAY, .allowed = ACCESS_MODES,
		.text = "From where it is used: ReadWriteOnce, ReadOnlyMany, ReadWriteMany."},
	       {"selector", MODEL_OBJECT, .pb = 4, .object = &schema_label_selector,
		.text = "Labels that a volume made by hand must have."},
	       {"resources", MODEL_OBJECT, .pb = 2, .object = &schema_volume_resource_requirements,
		.initial = "{}", .text = "How much; may grow when the class allows it."},
	       {"volumeName", MODEL_STRING, .pb = 3, .text = "The volume the claim is bound to."},
	       {"storageClassName", MODEL_STRING, .pb = 5, .flags = MODEL_PRESENCE,
		.text = "Class of the volume; missing = the default class, \"\" = none."},
	       {"volumeMode", MODEL_STRING, .pb = 6, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Filesystem"), .initial = "\"Filesystem\"",
		.text = "Only Filesystem here."},
	       {"dataSource", MODEL_RAW, .pb = 7, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"dataSourceRef", MODEL_RAW, .pb = 8, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"volumeAttributesClassName", MODEL_STRING, .pb = 9,
		.flags = MODEL_UNSUPPORTED | MODEL_PRESENCE, .text = "Not supported by kuayu."})};

const struct model_object schema_volume_resource_requirements = {
	"io.k8s.api.core.v1.VolumeResourceRequirements", "Amounts of storage.",
	FIELDS({"limits", MODEL_QUANTITY, .pb = 1, .shape = MODEL_MAP, .text = "Most that may be given."},
	       {"requests", MODEL_QUANTITY, .pb = 2, .shape = MODEL_MAP, .text = "Least that is needed."})};

const struct model_object schema_persistent_volume_claim_status = {
	"io.k8s.api.core.v1.PersistentVolumeClaimStatus", "State of a claim.",
	FIELDS({"phase", MODEL_STRING, .pb = 1, .text = "Pending, Bound or Lost."},
	       {"accessModes", MODEL_STRING, .pb = 2, .shape = MODEL_ARRAY,
		.text = "What the volume offers."},
	       {"capacity", MODEL_QUANTITY, .pb = 3, .shape = MODEL_MAP, .text = "What the volume holds."},
	       {"conditions", MODEL_OBJECT, .pb = 4, .shape = MODEL_ARRAY,
		.object = &schema_persistent_volume_claim_condition, .flags = MODEL_MERGE,
		.merge_key = "type", .text = "Latest observations."},
	       {"allocatedResources", MODEL_QUANTITY, .pb = 5, .shape = MODEL_MAP,
		.text = "What was asked for when it is being resized."},
	       {"allocatedResourceStatuses", MODEL_STRING, .pb = 7, .shape = MODEL_MAP,
		.text = "State of a resize."},
	       {"currentVolumeAttributesClassName", MODEL_STRING, .pb = 8, .flags = MODEL_PRESENCE,
		.text = "Not used by kuayu."},
	       {"modifyVolumeStatus", MODEL_RAW, .pb = 9, .text = "Not used by kuayu."})};

const struct model_object schema_persistent_volume_claim_condition = {
	"io.k8s.api.core.v1.PersistentVolumeClaimCondition", "A condition of a claim.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED,
		.text = "Name of the condition, such as Resizing."},
	       {"status", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "True, False or Unknown."},
	       {"lastProbeTime", MODEL_TIME, .pb = 3, .text = "Last time it was looked at."},
	       {"lastTransitionTime", MODEL_TIME, .pb = 4, .text = "When status changed last."},
	       {"reason", MODEL_STRING, .pb = 5, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 6, .text = "Details for people."})};

/* ---- volumes ---- */

const struct model_object schema_persistent_volume = {
	"io.k8s.api.core.v1.PersistentVolume", "A piece of storage of the cluster.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_persistent_volume_spec,
		.text = "What it is and where."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_persistent_volume_status,
		.text = "Current state."})};

const struct model_object schema_persistent_volume_spec = {
	"io.k8s.api.core.v1.PersistentVolumeSpec", "What a volume is and where.",
	FIELDS({"capacity", MODEL_QUANTITY, .pb = 1, .shape = MODEL_MAP, .text = "What it holds."},
	       {"hostPath", MODEL_OBJECT, .pb = 2, .pb_inner = 3, .object = &schema_host_path_volume_source,
		.text = "A folder that is the same on every node."},
	       {"csi", MODEL_OBJECT, .pb = 2, .pb_inner = 22, .object = &schema_csi_persistent_volume_source,
		.text = "A volume of a CSI driver."},
	       UNSUPPORTED_SOURCE("gcePersistentDisk", 1), UNSUPPORTED_SOURCE("awsElasticBlockStore", 2),
	       UNSUPPORTED_SOURCE("glusterfs", 4), UNSUPPORTED_SOURCE("nfs", 5), UNSUPPORTED_SOURCE("rbd", 6),
	       UNSUPPORTED_SOURCE("iscsi", 7), UNSUPPORTED_SOURCE("cinder", 8),
	       UNSUPPORTED_SOURCE("cephfs", 9), UNSUPPORTED_SOURCE("fc", 10),
	       UNSUPPORTED_SOURCE("flocker", 11), UNSUPPORTED_SOURCE("flexVolume", 12),
	       UNSUPPORTED_SOURCE("azureFile", 13), UNSUPPORTED_SOURCE("vsphereVolume", 14),
	       UNSUPPORTED_SOURCE("quobyte", 15), UNSUPPORTED_SOURCE("azureDisk", 16),
	       UNSUPPORTED_SOURCE("photonPersistentDisk", 17), UNSUPPORTED_SOURCE("portworxVolume", 18),
	       UNSUPPORTED_SOURCE("scaleIO", 19), UNSUPPORTED_SOURCE("local", 20),
	       UNSUPPORTED_SOURCE("storageos", 21),
	       {"accessModes", MODEL_STRING, .pb = 3, .shape = MODEL_ARRAY, .allowed = ACCESS_MODES,
		.text = "From where it can be used."},
	       {"claimRef", MODEL_OBJECT, .pb = 4, .object = &schema_object_reference,
		.text = "The claim it is bound to, or kept for."},
	       {"persistentVolumeReclaimPolicy", MODEL_STRING, .pb = 5,
		.allowed = ALLOWED("Delete", "Retain"), .initial = "\"Retain\"",
		.text = "What happens to it when its claim has gone."},
	       {"storageClassName", MODEL_STRING, .pb = 6, .text = "Class it belongs to; \"\" = none."},
	       {"mountOptions", MODEL_STRING, .pb = 7, .shape = MODEL_ARRAY,
		.text = "Handed to the driver when it is mounted."},
	       {"volumeMode", MODEL_STRING, .pb = 8, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Filesystem"), .initial = "\"Filesystem\"",
		.text = "Only Filesystem here."},
	       {"nodeAffinity", MODEL_RAW, .pb = 9, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"volumeAttributesClassName", MODEL_STRING, .pb = 10,
		.flags = MODEL_UNSUPPORTED | MODEL_PRESENCE, .text = "Not supported by kuayu."})};

const struct model_object schema_csi_persistent_volume_source = {
	"io.k8s.api.core.v1.CSIPersistentVolumeSource", "A volume of a CSI driver.",
	FIELDS({"driver", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the driver."},
	       {"volumeHandle", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.text = "The driver's name for the volume."},
	       {"readOnly", MODEL_BOOL, .pb = 3, .text = "Published read-only."},
	       {"fsType", MODEL_STRING, .pb = 4, .text = "File system the driver should make."},
	       {"volumeAttributes", MODEL_STRING, .pb = 5, .shape = MODEL_MAP,
		.text = "Handed to the driver as they are."},
	       UNSUPPORTED_SECRET("controllerPublishSecretRef", 6),
	       UNSUPPORTED_SECRET("nodeStageSecretRef", 7), UNSUPPORTED_SECRET("nodePublishSecretRef", 8),
	       UNSUPPORTED_SECRET("controllerExpandSecretRef", 9),
	       UNSUPPORTED_SECRET("nodeExpandSecretRef", 10))};

const struct model_object schema_persistent_volume_status = {
	"io.k8s.api.core.v1.PersistentVolumeStatus", "State of a volume.",
	FIELDS({"phase", MODEL_STRING, .pb = 1, .text = "Pending, Available, Bound, Released or Failed."},
	       {"message", MODEL_STRING, .pb = 2, .text = "Details for people."},
	       {"reason", MODEL_STRING, .pb = 3, .text = "One word why."},
	       {"lastPhaseTransitionTime", MODEL_TIME, .pb = 4, .text = "When phase changed last."})};

/* ---- sources of a pod ---- */

const struct model_object schema_claim_volume_source = {
	"io.k8s.api.core.v1.PersistentVolumeClaimVolumeSource", "The volume of a claim.",
	FIELDS({"claimName", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED,
		.text = "Name of the claim, in the pod's namespace."},
	       {"readOnly", MODEL_BOOL, .pb = 2, .text = "Mounted read-only in all containers."})};

const struct model_object schema_csi_volume_source = {
	"io.k8s.api.core.v1.CSIVolumeSource", "A volume that a CSI driver makes for one pod.",
	FIELDS({"driver", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the driver."},
	       {"readOnly", MODEL_BOOL, .pb = 2, .flags = MODEL_PRESENCE, .text = "Published read-only."},
	       {"fsType", MODEL_STRING, .pb = 3, .flags = MODEL_PRESENCE,
		.text = "File system the driver should make."},
	       {"volumeAttributes", MODEL_STRING, .pb = 4, .shape = MODEL_MAP,
		.text = "Handed to the driver as they are."},
	       UNSUPPORTED_SECRET("nodePublishSecretRef", 5))};

/* ---- storage.k8s.io ---- */

const struct model_object schema_storage_class = {
	"io.k8s.api.storage.v1.StorageClass", "How volumes for claims are made.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata; the annotation storageclass.kubernetes.io/is-default-class makes "
			"it the "
			"default."},
	       {"provisioner", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.text = "Name of the CSI driver that makes the volumes."},
	       {"parameters", MODEL_STRING, .pb = 3, .shape = MODEL_MAP,
		.text = "Handed to the driver as they are."},
	       {"reclaimPolicy", MODEL_STRING, .pb = 4, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Delete", "Retain"), .initial = "\"Delete\"",
		.text = "What happens to a volume when its claim has gone."},
	       {"mountOptions", MODEL_STRING, .pb = 5, .shape = MODEL_ARRAY,
		.text = "Handed to the driver when a volume is mounted."},
	       {"allowVolumeExpansion", MODEL_BOOL, .pb = 6, .flags = MODEL_PRESENCE,
		.text = "Whether claims may grow."},
	       {"volumeBindingMode", MODEL_STRING, .pb = 7, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Immediate", "WaitForFirstConsumer"), .initial = "\"Immediate\"",
		.text = "Whether a volume is made at once or when a pod needs it."},
	       {"allowedTopologies", MODEL_RAW, .pb = 8, .shape = MODEL_ARRAY, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."})};

const struct model_object schema_csi_driver = {
	"io.k8s.api.storage.v1.CSIDriver", "What the cluster should know of a CSI driver.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata; the name is the driver's."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_csi_driver_spec, .flags = MODEL_REQUIRED,
		.text = "What it is like."})};

const struct model_object schema_csi_driver_spec = {
	"io.k8s.api.storage.v1.CSIDriverSpec", "What a CSI driver is like.",
	FIELDS({"attachRequired", MODEL_BOOL, .pb = 1, .flags = MODEL_PRESENCE, .initial = "true",
		.text = "Whether volumes are attached to nodes first; drivers that need it do not work "
			"here."},
	       {"podInfoOnMount", MODEL_BOOL, .pb = 2, .flags = MODEL_PRESENCE, .initial = "false",
		.text = "Whether the driver is told which pod a volume is for."},
	       {"volumeLifecycleModes", MODEL_STRING, .pb = 3, .shape = MODEL_ARRAY,
		.allowed = ALLOWED("Ephemeral", "Persistent"), .initial = "[\"Persistent\"]",
		.text = "Persistent = by claims; Ephemeral = inline in a pod."},
	       {"storageCapacity", MODEL_BOOL, .pb = 4, .flags = MODEL_PRESENCE, .initial = "false",
		.text = "Whether the scheduler should look at the driver's free space; not done here."},
	       {"fsGroupPolicy", MODEL_STRING, .pb = 5, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("File", "None", "ReadWriteOnceWithFSType"),
		.initial = "\"ReadWriteOnceWithFSType\"",
		.text = "Whether fsGroup is applied to its volumes."},
	       {"tokenRequests", MODEL_RAW, .pb = 6, .shape = MODEL_ARRAY, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"requiresRepublish", MODEL_BOOL, .pb = 7, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"seLinuxMount", MODEL_BOOL, .pb = 8, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."})};

const struct model_object schema_csi_node = {
	"io.k8s.api.storage.v1.CSINode", "The CSI drivers of a node.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata; the name is the node's."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_csi_node_spec, .flags = MODEL_REQUIRED,
		.text = "The drivers."})};

const struct model_object schema_csi_node_spec = {
	"io.k8s.api.storage.v1.CSINodeSpec", "The CSI drivers of a node.",
	FIELDS({"drivers", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY, .object = &schema_csi_node_driver,
		.flags = MODEL_MERGE, .merge_key = "name", .text = "Drivers that answer there."})};

const struct model_object schema_csi_node_driver = {
	"io.k8s.api.storage.v1.CSINodeDriver", "A CSI driver on a node.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the driver."},
	       {"nodeID", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.text = "The driver's name for the node."},
	       {"topologyKeys", MODEL_STRING, .pb = 3, .shape = MODEL_ARRAY,
		.text = "Labels by which the driver tells nodes apart."},
	       {"allocatable", MODEL_OBJECT, .pb = 4, .object = &schema_volume_node_resources,
		.text = "Limits of the driver on this node."})};

const struct model_object schema_volume_node_resources = {
	"io.k8s.api.storage.v1.VolumeNodeResources", "Limits of a driver on a node.",
	FIELDS({"count", MODEL_INT, .pb = 1, .flags = MODEL_PRESENCE,
		.text = "Most volumes at once; missing = no limit."})};
