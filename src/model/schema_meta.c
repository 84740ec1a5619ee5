/* SPDX-License-Identifier: Apache-2.0 */
/* Tables that every kind shares: metadata, owner references, label selectors, and the meta/v1 request and answer bodies.
 * See schema.h. */
#include "model/schema.h"

#include "model/schema_macros.h"

const struct model_object schema_object_meta = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "Metadata that every persisted object has.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_IMMUTABLE,
		.text = "Name, unique within its namespace (or the cluster for cluster-scoped kinds). Cannot "
			"be changed."},
	       {"generateName", MODEL_STRING, .pb = 2,
		.text = "Prefix for a name that the server makes unique; used only when name is empty."},
	       {"namespace", MODEL_STRING, .pb = 3, .flags = MODEL_IMMUTABLE,
		.text = "Namespace the object lives in. Cannot be changed."},
	       {"selfLink", MODEL_STRING, .pb = 4, .text = "Deprecated; not filled in."},
	       {"uid", MODEL_STRING, .pb = 5, .flags = MODEL_IMMUTABLE,
		.text = "Unique in time and space, set by the server."},
	       {"resourceVersion", MODEL_STRING, .pb = 6,
		.text = "Version of the object in the store, for optimistic concurrency and watches. "
			"Opaque."},
	       {"generation", MODEL_INT64, .pb = 7, LIMITS(0, INT64_MAX),
		.text = "Counts changes of the desired state. Set by the server."},
	       {"creationTimestamp", MODEL_TIME, .pb = 8, .flags = MODEL_IMMUTABLE,
		.text = "Time of creation, set by the server."},
	       {"deletionTimestamp", MODEL_TIME, .pb = 9,
		.text = "Time at which the object will be gone; set by the server when a graceful deletion "
			"begins."},
	       {"deletionGracePeriodSeconds", MODEL_INT64, .pb = 10, .flags = MODEL_PRESENCE,
		.text = "Seconds the object has to end after deletion was asked for."},
	       {"labels", MODEL_STRING, .pb = 11, .shape = MODEL_MAP,
		.text = "Key-value pairs to organise and select objects."},
	       {"annotations", MODEL_STRING, .pb = 12, .shape = MODEL_MAP,
		.text = "Key-value pairs for tools and people; not for selection."},
	       {"ownerReferences", MODEL_OBJECT, .pb = 13, .shape = MODEL_ARRAY,
		.object = &schema_owner_reference, .flags = MODEL_MERGE, .merge_key = "uid",
		.text = "Objects this one depends on; it is collected when all of them are gone."},
	       {"finalizers", MODEL_STRING, .pb = 14, .shape = MODEL_ARRAY, .flags = MODEL_MERGE,
		.text = "Names of parties that must finish before the object is removed from the store."},
	       {"managedFields", MODEL_RAW, .pb = 17, .shape = MODEL_ARRAY,
		.text = "Which workflow manages which fields; not kept by this server."})};

const struct model_object schema_owner_reference = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
	"Names an owner of an object, in the same namespace or cluster-scoped.",
	FIELDS({"apiVersion", MODEL_STRING, .pb = 5, .flags = MODEL_REQUIRED,
		.text = "API version of the owner."},
	       {"kind", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Kind of the owner."},
	       {"name", MODEL_STRING, .pb = 3, .flags = MODEL_REQUIRED, .text = "Name of the owner."},
	       {"uid", MODEL_STRING, .pb = 4, .flags = MODEL_REQUIRED, .text = "UID of the owner."},
	       {"controller", MODEL_BOOL, .pb = 6, .flags = MODEL_PRESENCE,
		.text = "True when the owner is the managing controller; at most one is."},
	       {"blockOwnerDeletion", MODEL_BOOL, .pb = 7, .flags = MODEL_PRESENCE,
		.text = "True when foreground deletion of the owner must wait for this object."})};

const struct model_object schema_label_selector = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
	"A query over labels; all requirements must hold. Empty matches everything.",
	FIELDS({"matchLabels", MODEL_STRING, .pb = 1, .shape = MODEL_MAP,
		.text = "Labels that must be present with exactly these values."},
	       {"matchExpressions", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY,
		.object = &schema_label_selector_requirement,
		.text = "Requirements of the form key, operator, values."})};

const struct model_object schema_label_selector_requirement = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement", "One requirement on a label.",
	FIELDS({"key", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED,
		.text = "Label key the requirement is about."},
	       {"operator", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.allowed = ALLOWED("DoesNotExist", "Exists", "In", "NotIn"),
		.text = "Relation between key and values."},
	       {"values", MODEL_STRING, .pb = 3, .shape = MODEL_ARRAY,
		.text = "Values for In and NotIn; empty for Exists and DoesNotExist."})};

const struct model_object schema_list_meta = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", "Metadata of lists.",
	FIELDS({"selfLink", MODEL_STRING, .pb = 1, .text = "Deprecated; not filled in."},
	       {"resourceVersion", MODEL_STRING, .pb = 2,
		.text = "Version of the store the list was read at."},
	       {"continue", MODEL_STRING, .pb = 3,
		.text = "Token to go on with when the list was cut by a limit."},
	       {"remainingItemCount", MODEL_INT64, .pb = 4, .flags = MODEL_PRESENCE,
		.text = "How many items follow, where known."})};

const struct model_object schema_delete_options = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "Options of a delete request.",
	FIELDS(KIND_FIELDS,
	       {"gracePeriodSeconds", MODEL_INT64, .pb = 1, .flags = MODEL_PRESENCE, LIMITS(0, INT64_MAX),
		.text = "Seconds before the object is removed; 0 at once; missing = the kind's default."},
	       {"preconditions", MODEL_OBJECT, .pb = 2, .object = &schema_preconditions,
		.text = "Must hold before the deletion is carried out."},
	       {"orphanDependents", MODEL_BOOL, .pb = 3, .flags = MODEL_PRESENCE,
		.text = "Deprecated: use propagationPolicy."},
	       {"propagationPolicy", MODEL_STRING, .pb = 4, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Background", "Foreground", "Orphan"),
		.text = "How dependents are collected."},
	       {"dryRun", MODEL_STRING, .pb = 5, .shape = MODEL_ARRAY,
		.text = "\"All\" = check but do not persist."},
	       {"ignoreStoreReadErrorWithClusterBreakingPotential", MODEL_BOOL, .pb = 6,
		.flags = MODEL_UNSUPPORTED | MODEL_PRESENCE, .text = "Not supported by kuayu."})};

const struct model_object schema_preconditions = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.Preconditions", "Must hold before an operation is carried out.",
	FIELDS({"uid", MODEL_STRING, .pb = 1, .flags = MODEL_PRESENCE, .text = "UID the object must have."},
	       {"resourceVersion", MODEL_STRING, .pb = 2, .flags = MODEL_PRESENCE,
		.text = "resourceVersion the object must have."})};

const struct model_object schema_status = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.Status",
	"Answer of a call that does not answer with an object.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_list_meta, .text = "List metadata."},
	       {"status", MODEL_STRING, .pb = 2, .text = "Success or Failure."},
	       {"message", MODEL_STRING, .pb = 3, .text = "What happened, for people."},
	       {"reason", MODEL_STRING, .pb = 4, .text = "What happened, one word for machines."},
	       {"details", MODEL_OBJECT, .pb = 5, .object = &schema_status_details,
		.text = "More about the reason."},
	       {"code", MODEL_INT, .pb = 6, .text = "HTTP status code."})};

const struct model_object schema_status_details = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.StatusDetails", "More about why a call failed.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .text = "Name of the object concerned."},
	       {"group", MODEL_STRING, .pb = 2, .text = "API group of the object concerned."},
	       {"kind", MODEL_STRING, .pb = 3, .text = "Kind of the object concerned."},
	       {"uid", MODEL_STRING, .pb = 6, .text = "UID of the object concerned."},
	       {"causes", MODEL_OBJECT, .pb = 4, .shape = MODEL_ARRAY, .object = &schema_status_cause,
		.text = "Single faults found."},
	       {"retryAfterSeconds", MODEL_INT, .pb = 5, .text = "When to try again."})};

const struct model_object schema_status_cause = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.StatusCause", "One fault.",
	FIELDS({"reason", MODEL_STRING, .pb = 1, .text = "One word for machines."},
	       {"message", MODEL_STRING, .pb = 2, .text = "For people."},
	       {"field", MODEL_STRING, .pb = 3, .text = "The field that caused it."})};

const struct model_object schema_condition = {
	"io.k8s.apimachinery.pkg.apis.meta.v1.Condition", "A condition of an object's state.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the condition."},
	       {"status", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.allowed = ALLOWED("False", "True", "Unknown"), .text = "Whether it holds."},
	       {"observedGeneration", MODEL_INT64, .pb = 3,
		.text = "metadata.generation it was computed from."},
	       {"lastTransitionTime", MODEL_TIME, .pb = 4, .flags = MODEL_REQUIRED,
		.text = "When status changed last."},
	       {"reason", MODEL_STRING, .pb = 5, .flags = MODEL_REQUIRED, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 6, .flags = MODEL_REQUIRED, .text = "Details for people."})};
