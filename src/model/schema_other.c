/* SPDX-License-Identifier: Apache-2.0 */
/* The smaller groups: EndpointSlice, Lease, Eviction, Scale. See schema.h. */
#include "model/schema.h"

#include "model/schema_macros.h"

const struct model_object schema_endpoint_slice = {
	"io.k8s.api.discovery.v1.EndpointSlice", "Addresses behind a service.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"addressType", MODEL_STRING, .pb = 4, .flags = MODEL_REQUIRED | MODEL_IMMUTABLE,
		.allowed = ALLOWED("FQDN", "IPv4", "IPv6"), .text = "Kind of addresses; cannot be changed."},
	       {"endpoints", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY, .object = &schema_slice_endpoint,
		.text = "The endpoints; at most 1,000."},
	       {"ports", MODEL_OBJECT, .pb = 3, .shape = MODEL_ARRAY, .object = &schema_slice_port,
		.text = "Ports of each endpoint."})};

const struct model_object schema_slice_endpoint = {
	"io.k8s.api.discovery.v1.Endpoint", "One endpoint.",
	FIELDS({"addresses", MODEL_STRING, .pb = 1, .shape = MODEL_ARRAY, .flags = MODEL_REQUIRED,
		.text = "Addresses; clients use the first."},
	       {"conditions", MODEL_OBJECT, .pb = 2, .object = &schema_endpoint_conditions,
		.text = "State of the endpoint."},
	       {"hostname", MODEL_STRING, .pb = 3, .flags = MODEL_PRESENCE, .text = "Host name."},
	       {"targetRef", MODEL_OBJECT, .pb = 4, .object = &schema_object_reference,
		.text = "Object that provides the endpoint."},
	       {"deprecatedTopology", MODEL_STRING, .pb = 5, .shape = MODEL_MAP, .text = "Deprecated."},
	       {"nodeName", MODEL_STRING, .pb = 6, .flags = MODEL_PRESENCE, .text = "Node of the endpoint."},
	       {"zone", MODEL_STRING, .pb = 7, .flags = MODEL_PRESENCE, .text = "Zone of the endpoint."},
	       {"hints", MODEL_OBJECT, .pb = 8, .object = &schema_endpoint_hints,
		.text = "Where the endpoint should be used."})};

const struct model_object schema_endpoint_conditions = {
	"io.k8s.api.discovery.v1.EndpointConditions", "State of an endpoint.",
	FIELDS({"ready", MODEL_BOOL, .pb = 1, .flags = MODEL_PRESENCE, .text = "Takes traffic."},
	       {"serving", MODEL_BOOL, .pb = 2, .flags = MODEL_PRESENCE,
		.text = "Ready, whether or not it is terminating."},
	       {"terminating", MODEL_BOOL, .pb = 3, .flags = MODEL_PRESENCE, .text = "Being deleted."})};

const struct model_object schema_endpoint_hints = {
	"io.k8s.api.discovery.v1.EndpointHints", "Where an endpoint should be used.",
	FIELDS({"forZones", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY, .object = &schema_for_zone,
		.text = "Zones."})};

const struct model_object schema_for_zone = {
	"io.k8s.api.discovery.v1.ForZone", "A zone.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the zone."})};

const struct model_object schema_slice_port = {
	"io.k8s.api.discovery.v1.EndpointPort", "A port.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_PRESENCE,
		.text = "Name; equals the service port's."},
	       {"protocol", MODEL_STRING, .pb = 2, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("SCTP", "TCP", "UDP"), .initial = "\"TCP\"",
		.text = "Transport protocol."},
	       {"port", MODEL_INT, .pb = 3, .flags = MODEL_PRESENCE, .text = "Number; missing = all."},
	       {"appProtocol", MODEL_STRING, .pb = 4, .flags = MODEL_PRESENCE,
		.text = "Application protocol."})};

const struct model_object schema_lease = {
	"io.k8s.api.coordination.v1.Lease", "A lock with a time limit, or a heartbeat.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_lease_spec, .text = "The lease."})};

const struct model_object schema_lease_spec = {
	"io.k8s.api.coordination.v1.LeaseSpec", "The lease.",
	FIELDS({"holderIdentity", MODEL_STRING, .pb = 1, .flags = MODEL_PRESENCE, .text = "Who holds it."},
	       {"leaseDurationSeconds", MODEL_INT, .pb = 2, .flags = MODEL_PRESENCE, LIMITS(1, INT64_MAX),
		.text = "How long it holds after renewTime."},
	       {"acquireTime", MODEL_MICRO_TIME, .pb = 3, .text = "When the holder got it."},
	       {"renewTime", MODEL_MICRO_TIME, .pb = 4, .text = "When the holder renewed it last."},
	       {"leaseTransitions", MODEL_INT, .pb = 5, .flags = MODEL_PRESENCE, LIMITS(0, INT64_MAX),
		.text = "How often it changed hands."},
	       {"strategy", MODEL_STRING, .pb = 6, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"preferredHolder", MODEL_STRING, .pb = 7, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."})};

const struct model_object schema_eviction = {
	"io.k8s.api.policy.v1.Eviction", "Asks for a pod to be evicted.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta, .text = "Names the pod."},
	       {"deleteOptions", MODEL_OBJECT, .pb = 2, .object = &schema_delete_options,
		.text = "Options of the deletion."})};

const struct model_object schema_scale = {
	"io.k8s.api.autoscaling.v1.Scale", "Number of replicas of a set.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_scale_spec, .text = "Desired number."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_scale_status, .text = "Current number."})};

const struct model_object schema_scale_spec = {
	"io.k8s.api.autoscaling.v1.ScaleSpec", "Desired number.",
	FIELDS({"replicas", MODEL_INT, .pb = 1, LIMITS(0, INT64_MAX), .text = "How many pods."})};

const struct model_object schema_scale_status = {
	"io.k8s.api.autoscaling.v1.ScaleStatus", "Current number.",
	FIELDS({"replicas", MODEL_INT, .pb = 1, .text = "How many pods there are."},
	       {"selector", MODEL_STRING, .pb = 2, .text = "Selector of the pods, as text."})};
