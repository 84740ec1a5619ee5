/* SPDX-License-Identifier: Apache-2.0 */
/* Placement: affinity, tolerations, topology spread. See schema.h. */
#include "model/schema.h"

#include "model/schema_macros.h"

const struct model_object schema_affinity = {
	"io.k8s.api.core.v1.Affinity", "Rules for placement.",
	FIELDS({"nodeAffinity", MODEL_OBJECT, .pb = 1, .object = &schema_node_affinity,
		.text = "Rules about nodes."},
	       {"podAffinity", MODEL_OBJECT, .pb = 2, .object = &schema_pod_affinity,
		.text = "Rules to be near other pods."},
	       {"podAntiAffinity", MODEL_OBJECT, .pb = 3, .object = &schema_pod_anti_affinity,
		.text = "Rules to be away from other pods."})};

const struct model_object schema_node_affinity = {
	"io.k8s.api.core.v1.NodeAffinity", "Rules about nodes.",
	FIELDS({"requiredDuringSchedulingIgnoredDuringExecution", MODEL_OBJECT, .pb = 1,
		.object = &schema_node_selector, .text = "Must hold."},
	       {"preferredDuringSchedulingIgnoredDuringExecution", MODEL_OBJECT, .pb = 2,
		.shape = MODEL_ARRAY, .object = &schema_preferred_scheduling_term, .text = "Should hold."})};

const struct model_object schema_node_selector = {
	"io.k8s.api.core.v1.NodeSelector", "Terms of which one must match.",
	FIELDS({"nodeSelectorTerms", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY,
		.object = &schema_node_selector_term, .flags = MODEL_REQUIRED, .text = "Terms."})};

const struct model_object schema_node_selector_term = {
	"io.k8s.api.core.v1.NodeSelectorTerm", "Requirements that must all hold; empty matches nothing.",
	FIELDS({"matchExpressions", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY,
		.object = &schema_node_selector_requirement, .text = "By labels."},
	       {"matchFields", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY,
		.object = &schema_node_selector_requirement, .text = "By fields (metadata.name)."})};

const struct model_object schema_node_selector_requirement = {
	"io.k8s.api.core.v1.NodeSelectorRequirement", "One requirement.",
	FIELDS({"key", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Label key or field."},
	       {"operator", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.allowed = ALLOWED("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"),
		.text = "Relation between key and values."},
	       {"values", MODEL_STRING, .pb = 3, .shape = MODEL_ARRAY, .text = "Values."})};

const struct model_object schema_preferred_scheduling_term = {
	"io.k8s.api.core.v1.PreferredSchedulingTerm", "A weighted term.",
	FIELDS({"weight", MODEL_INT, .pb = 1, .flags = MODEL_REQUIRED, LIMITS(1, 100), .text = "Weight."},
	       {"preference", MODEL_OBJECT, .pb = 2, .object = &schema_node_selector_term,
		.flags = MODEL_REQUIRED, .text = "Term."})};

const struct model_object schema_pod_affinity = {
	"io.k8s.api.core.v1.PodAffinity", "Rules to be near other pods.",
	FIELDS({"requiredDuringSchedulingIgnoredDuringExecution", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY,
		.object = &schema_pod_affinity_term, .text = "Must hold."},
	       {"preferredDuringSchedulingIgnoredDuringExecution", MODEL_OBJECT, .pb = 2,
		.shape = MODEL_ARRAY, .object = &schema_weighted_pod_affinity_term, .text = "Should hold."})};

const struct model_object schema_pod_anti_affinity = {
	"io.k8s.api.core.v1.PodAntiAffinity", "Rules to be away from other pods.",
	FIELDS({"requiredDuringSchedulingIgnoredDuringExecution", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY,
		.object = &schema_pod_affinity_term, .text = "Must hold."},
	       {"preferredDuringSchedulingIgnoredDuringExecution", MODEL_OBJECT, .pb = 2,
		.shape = MODEL_ARRAY, .object = &schema_weighted_pod_affinity_term, .text = "Should hold."})};

const struct model_object schema_weighted_pod_affinity_term = {
	"io.k8s.api.core.v1.WeightedPodAffinityTerm", "A weighted term.",
	FIELDS({"weight", MODEL_INT, .pb = 1, .flags = MODEL_REQUIRED, LIMITS(1, 100), .text = "Weight."},
	       {"podAffinityTerm", MODEL_OBJECT, .pb = 2, .object = &schema_pod_affinity_term,
		.flags = MODEL_REQUIRED, .text = "Term."})};

const struct model_object schema_pod_affinity_term = {
	"io.k8s.api.core.v1.PodAffinityTerm",
	"Pods and the topology in which to be near them or away from them.",
	FIELDS({"labelSelector", MODEL_OBJECT, .pb = 1, .object = &schema_label_selector,
		.text = "Which pods."},
	       {"namespaces", MODEL_STRING, .pb = 2, .shape = MODEL_ARRAY,
		.text = "In which namespaces; missing = the pod's own."},
	       {"topologyKey", MODEL_STRING, .pb = 3, .flags = MODEL_REQUIRED,
		.text = "Node label whose equal values mean the same place."},
	       {"namespaceSelector", MODEL_OBJECT, .pb = 4, .object = &schema_label_selector,
		.text = "Namespaces by label."},
	       {"matchLabelKeys", MODEL_STRING, .pb = 5, .shape = MODEL_ARRAY, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"mismatchLabelKeys", MODEL_STRING, .pb = 6, .shape = MODEL_ARRAY, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."})};

const struct model_object schema_toleration = {
	"io.k8s.api.core.v1.Toleration", "A taint that is tolerated.",
	FIELDS({"key", MODEL_STRING, .pb = 1, .text = "Key of the taint; empty with Exists = all."},
	       {"operator", MODEL_STRING, .pb = 2, .allowed = ALLOWED("Equal", "Exists"),
		.text = "Relation between key and value; Equal when missing."},
	       {"value", MODEL_STRING, .pb = 3, .text = "Value of the taint."},
	       {"effect", MODEL_STRING, .pb = 4,
		.allowed = ALLOWED("NoExecute", "NoSchedule", "PreferNoSchedule"),
		.text = "Effect of the taint; empty = all."},
	       {"tolerationSeconds", MODEL_INT64, .pb = 5, .flags = MODEL_PRESENCE,
		.text = "How long a NoExecute taint is tolerated; missing = forever."})};

const struct model_object schema_topology_spread_constraint = {
	"io.k8s.api.core.v1.TopologySpreadConstraint", "How pods spread.",
	FIELDS({"maxSkew", MODEL_INT, .pb = 1, .flags = MODEL_REQUIRED, LIMITS(1, INT64_MAX),
		.text = "Largest difference in number of pods between two places."},
	       {"topologyKey", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.text = "Node label whose equal values mean the same place."},
	       {"whenUnsatisfiable", MODEL_STRING, .pb = 3, .flags = MODEL_REQUIRED,
		.allowed = ALLOWED("DoNotSchedule", "ScheduleAnyway"),
		.text = "What to do when it cannot hold."},
	       {"labelSelector", MODEL_OBJECT, .pb = 4, .object = &schema_label_selector,
		.text = "Which pods are counted."},
	       {"minDomains", MODEL_INT, .pb = 5, .flags = MODEL_PRESENCE, LIMITS(1, INT64_MAX),
		.text = "How many places there must be."},
	       {"nodeAffinityPolicy", MODEL_STRING, .pb = 6, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Honor", "Ignore"), .text = "Whether nodes excluded by affinity count."},
	       {"nodeTaintsPolicy", MODEL_STRING, .pb = 7, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Honor", "Ignore"), .text = "Whether nodes excluded by taints count."},
	       {"matchLabelKeys", MODEL_STRING, .pb = 8, .shape = MODEL_ARRAY,
		.text = "Label keys whose values are taken from the pod."})};
