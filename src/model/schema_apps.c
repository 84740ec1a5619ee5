/* SPDX-License-Identifier: Apache-2.0 */
/* The apps group: ReplicaSet, Deployment, StatefulSet, ControllerRevision. See schema.h. */
#include "model/schema.h"

#include "model/schema_macros.h"

const struct model_object schema_replica_set = {
	"io.k8s.api.apps.v1.ReplicaSet", "Keeps a number of equal pods.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_replica_set_spec,
		.text = "Desired behaviour."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_replica_set_status,
		.text = "Current state."})};

const struct model_object schema_replica_set_spec = {
	"io.k8s.api.apps.v1.ReplicaSetSpec", "Desired behaviour of a replica set.",
	FIELDS({"replicas", MODEL_INT, .pb = 1, .flags = MODEL_PRESENCE, .initial = "1", LIMITS(0, INT64_MAX),
		.text = "How many pods."},
	       {"minReadySeconds", MODEL_INT, .pb = 4, LIMITS(0, INT64_MAX),
		.text = "Seconds a pod must be ready to count as available."},
	       {"selector", MODEL_OBJECT, .pb = 2, .object = &schema_label_selector,
		.flags = MODEL_REQUIRED | MODEL_IMMUTABLE,
		.text = "Pods that belong to it; cannot be changed."},
	       {"template", MODEL_OBJECT, .pb = 3, .object = &schema_pod_template_spec,
		.text = "Pods it makes."})};

const struct model_object schema_replica_set_status = {
	"io.k8s.api.apps.v1.ReplicaSetStatus", "State of a replica set.",
	FIELDS({"replicas", MODEL_INT, .pb = 1, .text = "Pods there are."},
	       {"fullyLabeledReplicas", MODEL_INT, .pb = 2, .text = "Pods with the template's labels."},
	       {"readyReplicas", MODEL_INT, .pb = 4, .text = "Ready pods."},
	       {"availableReplicas", MODEL_INT, .pb = 5, .text = "Available pods."},
	       {"observedGeneration", MODEL_INT64, .pb = 3, .text = "metadata.generation last acted on."},
	       {"conditions", MODEL_OBJECT, .pb = 6, .shape = MODEL_ARRAY,
		.object = &schema_replica_set_condition, .flags = MODEL_MERGE, .merge_key = "type",
		.text = "Latest observations."})};

const struct model_object schema_replica_set_condition = {
	"io.k8s.api.apps.v1.ReplicaSetCondition", "A condition of a replica set.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the condition."},
	       {"status", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "True, False or Unknown."},
	       {"lastTransitionTime", MODEL_TIME, .pb = 3, .text = "When status changed last."},
	       {"reason", MODEL_STRING, .pb = 4, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 5, .text = "Details for people."})};

const struct model_object schema_deployment = {
	"io.k8s.api.apps.v1.Deployment", "Rolls out pods and their changes.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_deployment_spec,
		.text = "Desired behaviour."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_deployment_status,
		.text = "Current state."})};

const struct model_object schema_deployment_spec = {
	"io.k8s.api.apps.v1.DeploymentSpec", "Desired behaviour of a deployment.",
	FIELDS({"replicas", MODEL_INT, .pb = 1, .flags = MODEL_PRESENCE, .initial = "1", LIMITS(0, INT64_MAX),
		.text = "How many pods."},
	       {"selector", MODEL_OBJECT, .pb = 2, .object = &schema_label_selector,
		.flags = MODEL_REQUIRED | MODEL_IMMUTABLE,
		.text = "Pods that belong to it; cannot be changed."},
	       {"template", MODEL_OBJECT, .pb = 3, .object = &schema_pod_template_spec,
		.flags = MODEL_REQUIRED, .text = "Pods it makes."},
	       {"strategy", MODEL_OBJECT, .pb = 4, .object = &schema_deployment_strategy,
		.flags = MODEL_RETAIN_KEYS, .text = "How pods are replaced by new ones."},
	       {"minReadySeconds", MODEL_INT, .pb = 5, LIMITS(0, INT64_MAX),
		.text = "Seconds a pod must be ready to count as available."},
	       {"revisionHistoryLimit", MODEL_INT, .pb = 6, .flags = MODEL_PRESENCE, .initial = "10",
		LIMITS(0, INT64_MAX), .text = "Old replica sets kept for rolling back."},
	       {"paused", MODEL_BOOL, .pb = 7, .text = "True = changes are not rolled out."},
	       {"progressDeadlineSeconds", MODEL_INT, .pb = 9, .flags = MODEL_PRESENCE, .initial = "600",
		LIMITS(0, INT64_MAX),
		.text = "Seconds without progress after which the deployment counts as failed."})};

const struct model_object schema_deployment_strategy = {
	"io.k8s.api.apps.v1.DeploymentStrategy", "How pods are replaced.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .allowed = ALLOWED("Recreate", "RollingUpdate"),
		.text = "Kill all first, or one after another."},
	       {"rollingUpdate", MODEL_OBJECT, .pb = 2, .object = &schema_rolling_update_deployment,
		.text = "Settings of a rolling update."})};

const struct model_object schema_rolling_update_deployment = {
	"io.k8s.api.apps.v1.RollingUpdateDeployment", "Settings of a rolling update.",
	FIELDS({"maxUnavailable", MODEL_INT_OR_STRING, .pb = 1,
		.text = "How many pods may be missing, number or percentage."},
	       {"maxSurge", MODEL_INT_OR_STRING, .pb = 2,
		.text = "How many more pods there may be, number or percentage."})};

const struct model_object schema_deployment_status = {
	"io.k8s.api.apps.v1.DeploymentStatus", "State of a deployment.",
	FIELDS({"observedGeneration", MODEL_INT64, .pb = 1, .text = "metadata.generation last acted on."},
	       {"replicas", MODEL_INT, .pb = 2, .text = "Pods there are."},
	       {"updatedReplicas", MODEL_INT, .pb = 3, .text = "Pods of the current template."},
	       {"readyReplicas", MODEL_INT, .pb = 7, .text = "Ready pods."},
	       {"availableReplicas", MODEL_INT, .pb = 4, .text = "Available pods."},
	       {"unavailableReplicas", MODEL_INT, .pb = 5, .text = "Pods still missing."},
	       {"conditions", MODEL_OBJECT, .pb = 6, .shape = MODEL_ARRAY,
		.object = &schema_deployment_condition, .flags = MODEL_MERGE, .merge_key = "type",
		.text = "Latest observations."},
	       {"collisionCount", MODEL_INT, .pb = 8, .flags = MODEL_PRESENCE,
		.text = "Collisions of names of replica sets."})};

const struct model_object schema_deployment_condition = {
	"io.k8s.api.apps.v1.DeploymentCondition", "A condition of a deployment.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the condition."},
	       {"status", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "True, False or Unknown."},
	       {"lastUpdateTime", MODEL_TIME, .pb = 6, .text = "When it was written last."},
	       {"lastTransitionTime", MODEL_TIME, .pb = 7, .text = "When status changed last."},
	       {"reason", MODEL_STRING, .pb = 4, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 5, .text = "Details for people."})};

const struct model_object schema_stateful_set = {
	"io.k8s.api.apps.v1.StatefulSet", "Keeps pods with stable names, one by one.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_stateful_set_spec,
		.text = "Desired behaviour."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_stateful_set_status,
		.text = "Current state."})};

const struct model_object schema_stateful_set_spec = {
	"io.k8s.api.apps.v1.StatefulSetSpec", "Desired behaviour of a stateful set.",
	FIELDS({"replicas", MODEL_INT, .pb = 1, .flags = MODEL_PRESENCE, .initial = "1", LIMITS(0, INT64_MAX),
		.text = "How many pods."},
	       {"selector", MODEL_OBJECT, .pb = 2, .object = &schema_label_selector, .flags = MODEL_REQUIRED,
		.text = "Pods that belong to it; cannot be changed."},
	       {"template", MODEL_OBJECT, .pb = 3, .object = &schema_pod_template_spec,
		.flags = MODEL_REQUIRED, .text = "Pods it makes."},
	       {"volumeClaimTemplates", MODEL_OBJECT, .pb = 4, .shape = MODEL_ARRAY,
		.object = &schema_persistent_volume_claim,
		.text = "Each pod gets a claim TEMPLATE-SET-NUMBER of each; cannot be changed."},
	       {"serviceName", MODEL_STRING, .pb = 5,
		.text = "Headless service that gives the pods their host names; cannot be changed."},
	       {"podManagementPolicy", MODEL_STRING, .pb = 6, .allowed = ALLOWED("OrderedReady", "Parallel"),
		.initial = "\"OrderedReady\"", .text = "Whether pods are made one after another."},
	       {"updateStrategy", MODEL_OBJECT, .pb = 7, .object = &schema_stateful_set_update_strategy,
		.text = "How pods are replaced."},
	       {"revisionHistoryLimit", MODEL_INT, .pb = 8, .flags = MODEL_PRESENCE, .initial = "10",
		LIMITS(0, INT64_MAX), .text = "Old revisions kept for rolling back."},
	       {"minReadySeconds", MODEL_INT, .pb = 9, LIMITS(0, INT64_MAX),
		.text = "Seconds a pod must be ready to count as available."},
	       {"persistentVolumeClaimRetentionPolicy", MODEL_OBJECT, .pb = 10,
		.object = &schema_stateful_set_claim_retention, .initial = "{}",
		.text = "What happens to the claims when pods are not wanted any more."},
	       {"ordinals", MODEL_OBJECT, .pb = 11, .object = &schema_stateful_set_ordinals,
		.text = "How pods are numbered."})};

const struct model_object schema_stateful_set_ordinals = {
	"io.k8s.api.apps.v1.StatefulSetOrdinals", "How pods are numbered.",
	FIELDS({"start", MODEL_INT, .pb = 1, LIMITS(0, INT64_MAX), .text = "First number."})};

const struct model_object schema_stateful_set_claim_retention = {
	"io.k8s.api.apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy",
	"What happens to the claims of volumeClaimTemplates.",
	FIELDS({"whenDeleted", MODEL_STRING, .pb = 1, .allowed = ALLOWED("Delete", "Retain"),
		.initial = "\"Retain\"", .text = "When the set is deleted."},
	       {"whenScaled", MODEL_STRING, .pb = 2, .allowed = ALLOWED("Delete", "Retain"),
		.initial = "\"Retain\"", .text = "When the set is scaled down."})};

const struct model_object schema_stateful_set_update_strategy = {
	"io.k8s.api.apps.v1.StatefulSetUpdateStrategy", "How pods are replaced.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .allowed = ALLOWED("OnDelete", "RollingUpdate"),
		.initial = "\"RollingUpdate\"", .text = "By hand, or one after another."},
	       {"rollingUpdate", MODEL_OBJECT, .pb = 2,
		.object = &schema_rolling_update_stateful_set_strategy,
		.text = "Settings of a rolling update."})};

const struct model_object schema_rolling_update_stateful_set_strategy = {
	"io.k8s.api.apps.v1.RollingUpdateStatefulSetStrategy", "Settings of a rolling update.",
	FIELDS({"partition", MODEL_INT, .pb = 1, .flags = MODEL_PRESENCE, LIMITS(0, INT64_MAX),
		.text = "Pods with lower numbers are left alone."},
	       {"maxUnavailable", MODEL_INT_OR_STRING, .pb = 2, .flags = MODEL_UNSUPPORTED,
		.text = "How many pods may be missing."})};

const struct model_object schema_stateful_set_status = {
	"io.k8s.api.apps.v1.StatefulSetStatus", "State of a stateful set.",
	FIELDS({"observedGeneration", MODEL_INT64, .pb = 1, .text = "metadata.generation last acted on."},
	       {"replicas", MODEL_INT, .pb = 2, .text = "Pods there are."},
	       {"readyReplicas", MODEL_INT, .pb = 3, .text = "Ready pods."},
	       {"currentReplicas", MODEL_INT, .pb = 4, .text = "Pods of the current revision."},
	       {"updatedReplicas", MODEL_INT, .pb = 5, .text = "Pods of the update revision."},
	       {"currentRevision", MODEL_STRING, .pb = 6, .text = "Revision before the update."},
	       {"updateRevision", MODEL_STRING, .pb = 7, .text = "Revision after the update."},
	       {"collisionCount", MODEL_INT, .pb = 9, .flags = MODEL_PRESENCE,
		.text = "Collisions of names of revisions."},
	       {"conditions", MODEL_OBJECT, .pb = 10, .shape = MODEL_ARRAY,
		.object = &schema_stateful_set_condition, .flags = MODEL_MERGE, .merge_key = "type",
		.text = "Latest observations."},
	       {"availableReplicas", MODEL_INT, .pb = 11, .text = "Available pods."})};

const struct model_object schema_stateful_set_condition = {
	"io.k8s.api.apps.v1.StatefulSetCondition", "A condition of a stateful set.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the condition."},
	       {"status", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "True, False or Unknown."},
	       {"lastTransitionTime", MODEL_TIME, .pb = 3, .text = "When status changed last."},
	       {"reason", MODEL_STRING, .pb = 4, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 5, .text = "Details for people."})};

const struct model_object schema_controller_revision = {
	"io.k8s.api.apps.v1.ControllerRevision", "A snapshot of a controller's template.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"data", MODEL_RAW, .pb = 2, .text = "The snapshot."},
	       {"revision", MODEL_INT64, .pb = 3, .flags = MODEL_REQUIRED,
		.text = "Number of the revision."})};
