/* SPDX-License-Identifier: Apache-2.0 */
/* The core group's smaller kinds: Namespace, Service, Endpoints, ConfigMap, Secret, ServiceAccount, Event, Binding. See
 * schema.h. */
#include "model/schema.h"

#include "model/schema_macros.h"

const struct model_object schema_namespace = {
	"io.k8s.api.core.v1.Namespace", "Scope for names of objects.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_namespace_spec,
		.text = "Desired behaviour."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_namespace_status,
		.text = "Current state."})};

const struct model_object schema_namespace_spec = {
	"io.k8s.api.core.v1.NamespaceSpec", "What must happen before the namespace is removed.",
	FIELDS({"finalizers", MODEL_STRING, .pb = 1, .shape = MODEL_ARRAY,
		.text = "Finalizers that must be empty before the namespace is removed."})};

const struct model_object schema_namespace_status = {
	"io.k8s.api.core.v1.NamespaceStatus", "State of a namespace.",
	FIELDS({"phase", MODEL_STRING, .pb = 1, .text = "Active or Terminating."},
	       {"conditions", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY,
		.object = &schema_namespace_condition, .flags = MODEL_MERGE, .merge_key = "type",
		.text = "Latest observations."})};

const struct model_object schema_namespace_condition = {
	"io.k8s.api.core.v1.NamespaceCondition", "A condition of a namespace.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .text = "Name of the condition."},
	       {"status", MODEL_STRING, .pb = 2, .text = "True, False or Unknown."},
	       {"lastTransitionTime", MODEL_TIME, .pb = 4, .text = "When status changed last."},
	       {"reason", MODEL_STRING, .pb = 5, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 6, .text = "Details for people."})};

const struct model_object schema_config_map = {
	"io.k8s.api.core.v1.ConfigMap", "Configuration data for pods.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"immutable", MODEL_BOOL, .pb = 4, .flags = MODEL_PRESENCE,
		.text = "If true, data cannot be changed; only the metadata can."},
	       {"data", MODEL_STRING, .pb = 2, .shape = MODEL_MAP, .text = "UTF-8 data by key."},
	       {"binaryData", MODEL_BYTES, .pb = 3, .shape = MODEL_MAP,
		.text = "Other data by key, base64."})};

const struct model_object schema_secret = {
	"io.k8s.api.core.v1.Secret", "Confidential data for pods.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"immutable", MODEL_BOOL, .pb = 5, .flags = MODEL_PRESENCE,
		.text = "If true, data cannot be changed; only the metadata can."},
	       {"data", MODEL_BYTES, .pb = 2, .shape = MODEL_MAP, .text = "Data by key, base64."},
	       {"stringData", MODEL_STRING, .pb = 4, .shape = MODEL_MAP,
		.text = "Plain text by key; merged into data on write, never shown."},
	       {"type", MODEL_STRING, .pb = 3, .flags = MODEL_IMMUTABLE, .initial = "\"Opaque\"",
		.text = "What the data is for; checked for the well-known types."})};

const struct model_object schema_service_account = {
	"io.k8s.api.core.v1.ServiceAccount", "An identity for processes in pods.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"secrets", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY, .object = &schema_object_reference,
		.flags = MODEL_MERGE, .merge_key = "name", .text = "Secrets pods of this account may use."},
	       {"imagePullSecrets", MODEL_OBJECT, .pb = 3, .shape = MODEL_ARRAY,
		.object = &schema_local_object_reference, .text = "Secrets to pull images with."},
	       {"automountServiceAccountToken", MODEL_BOOL, .pb = 4, .flags = MODEL_PRESENCE,
		.text = "Whether pods get a token mounted."})};

const struct model_object schema_local_object_reference = {
	"io.k8s.api.core.v1.LocalObjectReference", "Names an object in the same namespace.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .text = "Name of the object."})};

const struct model_object schema_object_reference = {
	"io.k8s.api.core.v1.ObjectReference", "Names another object.",
	FIELDS({"kind", MODEL_STRING, .pb = 1, .text = "Kind of the object."},
	       {"namespace", MODEL_STRING, .pb = 2, .text = "Namespace of the object."},
	       {"name", MODEL_STRING, .pb = 3, .text = "Name of the object."},
	       {"uid", MODEL_STRING, .pb = 4, .text = "UID of the object."},
	       {"apiVersion", MODEL_STRING, .pb = 5, .text = "API version of the object."},
	       {"resourceVersion", MODEL_STRING, .pb = 6,
		.text = "Version of the object the reference was made to."},
	       {"fieldPath", MODEL_STRING, .pb = 7,
		.text = "Part of the object, such as spec.containers{name}."})};

const struct model_object schema_binding = {
	"io.k8s.api.core.v1.Binding", "Binds a pod to a node.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"target", MODEL_OBJECT, .pb = 2, .object = &schema_object_reference, .flags = MODEL_REQUIRED,
		.text = "The node."})};

const struct model_object schema_event = {
	"io.k8s.api.core.v1.Event", "Report of something that happened to an object.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"involvedObject", MODEL_OBJECT, .pb = 2, .object = &schema_object_reference,
		.flags = MODEL_REQUIRED, .text = "The object the event is about."},
	       {"reason", MODEL_STRING, .pb = 3, .text = "One word why, for machines."},
	       {"message", MODEL_STRING, .pb = 4, .text = "Text for people."},
	       {"source", MODEL_OBJECT, .pb = 5, .object = &schema_event_source, .text = "Who reports."},
	       {"firstTimestamp", MODEL_TIME, .pb = 6, .text = "First time it was recorded."},
	       {"lastTimestamp", MODEL_TIME, .pb = 7, .text = "Last time it was recorded."},
	       {"count", MODEL_INT, .pb = 8, .text = "How often it happened."},
	       {"type", MODEL_STRING, .pb = 9, .text = "Normal or Warning."},
	       {"eventTime", MODEL_MICRO_TIME, .pb = 10, .text = "First time it was seen."},
	       {"series", MODEL_OBJECT, .pb = 11, .object = &schema_event_series,
		.text = "Data about repetition."},
	       {"action", MODEL_STRING, .pb = 12, .text = "What was done."},
	       {"related", MODEL_OBJECT, .pb = 13, .object = &schema_object_reference,
		.text = "A second object concerned."},
	       {"reportingComponent", MODEL_STRING, .pb = 14,
		.text = "Controller that reports, such as kuayu.io/node."},
	       {"reportingInstance", MODEL_STRING, .pb = 15,
		.text = "Instance of the controller, such as kuayu-node-a1."})};

const struct model_object schema_event_source = {
	"io.k8s.api.core.v1.EventSource", "Who reports an event.",
	FIELDS({"component", MODEL_STRING, .pb = 1, .text = "Component."},
	       {"host", MODEL_STRING, .pb = 2, .text = "Node it runs on."})};

const struct model_object schema_event_series = {
	"io.k8s.api.core.v1.EventSeries", "Repetition of an event.",
	FIELDS({"count", MODEL_INT, .pb = 1, .text = "Occurrences so far."},
	       {"lastObservedTime", MODEL_MICRO_TIME, .pb = 2, .text = "Time of the last one."})};

const struct model_object schema_service = {
	"io.k8s.api.core.v1.Service", "A stable address for a set of pods.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_service_spec, .text = "Desired behaviour."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_service_status,
		.text = "Current state."})};

const struct model_object schema_service_spec = {
	"io.k8s.api.core.v1.ServiceSpec", "What a service exposes and to whom.",
	FIELDS({"ports", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY, .object = &schema_service_port,
		.flags = MODEL_MERGE, .merge_key = "port", .text = "Ports exposed."},
	       {"selector", MODEL_STRING, .pb = 2, .shape = MODEL_MAP,
		.text = "Pods with these labels get the traffic; empty = endpoints are managed by others. "
			"Ignored for ExternalName."},
	       {"clusterIP", MODEL_STRING, .pb = 3,
		.text = "Virtual address, given by the server; \"None\" = headless."},
	       {"clusterIPs", MODEL_STRING, .pb = 18, .shape = MODEL_ARRAY,
		.text = "Virtual addresses; the first equals clusterIP."},
	       {"type", MODEL_STRING, .pb = 4,
		.allowed = ALLOWED("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
		.initial = "\"ClusterIP\"",
		.text = "How the service is exposed. LoadBalancer = by every domain's gateway."},
	       {"externalIPs", MODEL_STRING, .pb = 5, .shape = MODEL_ARRAY,
		.text = "Further addresses that nodes accept for it."},
	       {"sessionAffinity", MODEL_STRING, .pb = 7, .allowed = ALLOWED("ClientIP", "None"),
		.text = "Whether connections of one client address go to the same pod."},
	       {"loadBalancerIP", MODEL_STRING, .pb = 8, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"loadBalancerSourceRanges", MODEL_STRING, .pb = 9, .shape = MODEL_ARRAY,
		.flags = MODEL_UNSUPPORTED, .text = "Not supported by kuayu."},
	       {"externalName", MODEL_STRING, .pb = 10,
		.text = "Host name that the service is an alias of (type ExternalName)."},
	       {"externalTrafficPolicy", MODEL_STRING, .pb = 11, .allowed = ALLOWED("Cluster"),
		.text = "Traffic from outside goes to all endpoints."},
	       {"healthCheckNodePort", MODEL_INT, .pb = 12, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"publishNotReadyAddresses", MODEL_BOOL, .pb = 13,
		.text = "Whether endpoints count as ready whatever their pods say."},
	       {"sessionAffinityConfig", MODEL_OBJECT, .pb = 14, .object = &schema_session_affinity_config,
		.text = "Settings of session affinity."},
	       {"ipFamilies", MODEL_STRING, .pb = 19, .shape = MODEL_ARRAY,
		.text = "Address families; only IPv4 here."},
	       {"ipFamilyPolicy", MODEL_STRING, .pb = 17, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("PreferDualStack", "RequireDualStack", "SingleStack"),
		.text = "How many address families; here SingleStack."},
	       {"allocateLoadBalancerNodePorts", MODEL_BOOL, .pb = 20,
		.flags = MODEL_UNSUPPORTED | MODEL_PRESENCE, .text = "Not supported by kuayu."},
	       {"loadBalancerClass", MODEL_STRING, .pb = 21, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"internalTrafficPolicy", MODEL_STRING, .pb = 22, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Cluster"), .text = "Traffic inside the cluster goes to all endpoints."},
	       {"trafficDistribution", MODEL_STRING, .pb = 23, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("PreferClose"),
		.text = "PreferClose = endpoints of the own zone first."})};

const struct model_object schema_service_port = {
	"io.k8s.api.core.v1.ServicePort", "A port of a service.",
	FIELDS({"name", MODEL_STRING, .pb = 1,
		.text = "Name, unique in the service; needed when there are several ports."},
	       {"protocol", MODEL_STRING, .pb = 2, .allowed = ALLOWED("SCTP", "TCP", "UDP"),
		.initial = "\"TCP\"", .text = "Transport protocol."},
	       {"appProtocol", MODEL_STRING, .pb = 6, .flags = MODEL_PRESENCE,
		.text = "Application protocol, such as http, grpc or kubernetes.io/h2c; gateways use it."},
	       {"port", MODEL_INT, .pb = 3, .flags = MODEL_REQUIRED, LIMITS(1, 65535),
		.text = "Port of the service."},
	       {"targetPort", MODEL_INT_OR_STRING, .pb = 4,
		.text = "Port of the pods, number or name; the same as port when missing."},
	       {"nodePort", MODEL_INT, .pb = 5, LIMITS(0, 65535),
		.text = "Port on every node (type NodePort)."})};

const struct model_object schema_session_affinity_config = {
	"io.k8s.api.core.v1.SessionAffinityConfig", "Settings of session affinity.",
	FIELDS({"clientIP", MODEL_OBJECT, .pb = 1, .object = &schema_client_ip_config,
		.text = "Settings of affinity by client address."})};

const struct model_object schema_client_ip_config = {
	"io.k8s.api.core.v1.ClientIPConfig", "Settings of affinity by client address.",
	FIELDS({"timeoutSeconds", MODEL_INT, .pb = 1, .flags = MODEL_PRESENCE, LIMITS(1, 86400),
		.text = "How long a client stays with its pod after the last connection."})};

const struct model_object schema_service_status = {
	"io.k8s.api.core.v1.ServiceStatus", "State of a service.",
	FIELDS({"loadBalancer", MODEL_OBJECT, .pb = 1, .object = &schema_load_balancer_status,
		.text = "State of the load balancer."},
	       {"conditions", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY, .object = &schema_condition,
		.flags = MODEL_MERGE, .merge_key = "type", .text = "Latest observations."})};

const struct model_object schema_load_balancer_status = {
	"io.k8s.api.core.v1.LoadBalancerStatus", "State of a load balancer.",
	FIELDS({"ingress", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY,
		.object = &schema_load_balancer_ingress, .text = "Addresses it can be reached at."})};

const struct model_object schema_load_balancer_ingress = {
	"io.k8s.api.core.v1.LoadBalancerIngress", "One address of a load balancer: a gateway.",
	FIELDS({"ip", MODEL_STRING, .pb = 1, .text = "Address."},
	       {"hostname", MODEL_STRING, .pb = 2, .text = "Host name."},
	       {"ipMode", MODEL_STRING, .pb = 3, .flags = MODEL_PRESENCE,
		.text = "How traffic to ip is delivered."},
	       {"ports", MODEL_OBJECT, .pb = 4, .shape = MODEL_ARRAY, .object = &schema_port_status,
		.text = "State of the ports."})};

const struct model_object schema_port_status = {
	"io.k8s.api.core.v1.PortStatus", "State of a load balancer's port.",
	FIELDS({"port", MODEL_INT, .pb = 1, .text = "Port."},
	       {"protocol", MODEL_STRING, .pb = 2, .text = "Protocol."},
	       {"error", MODEL_STRING, .pb = 3, .flags = MODEL_PRESENCE, .text = "Fault, if any."})};

const struct model_object schema_endpoints = {
	"io.k8s.api.core.v1.Endpoints", "Addresses behind a service (older form of EndpointSlice).",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"subsets", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY, .object = &schema_endpoint_subset,
		.text = "Sets of addresses with the same ports."})};

const struct model_object schema_endpoint_subset = {
	"io.k8s.api.core.v1.EndpointSubset", "Addresses with the same ports.",
	FIELDS({"addresses", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY, .object = &schema_endpoint_address,
		.text = "Ready addresses."},
	       {"notReadyAddresses", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY,
		.object = &schema_endpoint_address, .text = "Addresses that are not ready."},
	       {"ports", MODEL_OBJECT, .pb = 3, .shape = MODEL_ARRAY, .object = &schema_endpoint_port,
		.text = "Their ports."})};

const struct model_object schema_endpoint_address = {
	"io.k8s.api.core.v1.EndpointAddress", "One address.",
	FIELDS({"ip", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "IP address."},
	       {"hostname", MODEL_STRING, .pb = 3, .text = "Host name of the endpoint."},
	       {"nodeName", MODEL_STRING, .pb = 4, .flags = MODEL_PRESENCE, .text = "Node of the endpoint."},
	       {"targetRef", MODEL_OBJECT, .pb = 2, .object = &schema_object_reference,
		.text = "Object that provides the endpoint."})};

const struct model_object schema_endpoint_port = {
	"io.k8s.api.core.v1.EndpointPort", "One port.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .text = "Name of the port."},
	       {"port", MODEL_INT, .pb = 2, .flags = MODEL_REQUIRED, .text = "Number."},
	       {"protocol", MODEL_STRING, .pb = 3, .text = "Protocol."},
	       {"appProtocol", MODEL_STRING, .pb = 4, .flags = MODEL_PRESENCE,
		.text = "Application protocol."})};
