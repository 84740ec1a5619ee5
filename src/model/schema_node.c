/* SPDX-License-Identifier: Apache-2.0 */
/* Node: what the scheduler and the node lifecycle controller look at. See schema.h. */
#include "model/schema.h"

#include "model/schema_macros.h"

const struct model_object schema_node = {
	"io.k8s.api.core.v1.Node", "A machine that runs pods.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_node_spec, .text = "Desired behaviour."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_node_status,
		.text = "Current state, written by the node agent."})};

const struct model_object schema_node_spec = {
	"io.k8s.api.core.v1.NodeSpec", "Desired behaviour of a node.",
	FIELDS({"podCIDR", MODEL_STRING, .pb = 1, .text = "Addresses for the node's pods."},
	       {"podCIDRs", MODEL_STRING, .pb = 7, .shape = MODEL_ARRAY, .flags = MODEL_MERGE,
		.text = "Address ranges for the node's pods, one a family."},
	       {"providerID", MODEL_STRING, .pb = 3, .text = "Name of the node at its provider."},
	       {"unschedulable", MODEL_BOOL, .pb = 4, .text = "True = no new pods (kubectl cordon)."},
	       {"taints", MODEL_OBJECT, .pb = 5, .shape = MODEL_ARRAY, .object = &schema_taint,
		.text = "Marks that keep pods away unless they tolerate them."},
	       {"configSource", MODEL_RAW, .pb = 6, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"externalID", MODEL_STRING, .pb = 2, .text = "Deprecated."})};

const struct model_object schema_taint = {
	"io.k8s.api.core.v1.Taint", "Keeps pods without a matching toleration away.",
	FIELDS({"key", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Key."},
	       {"value", MODEL_STRING, .pb = 2, .text = "Value."},
	       {"effect", MODEL_STRING, .pb = 3, .flags = MODEL_REQUIRED,
		.allowed = ALLOWED("NoExecute", "NoSchedule", "PreferNoSchedule"),
		.text = "What happens to pods that do not tolerate it."},
	       {"timeAdded", MODEL_TIME, .pb = 4, .text = "When it was added (NoExecute)."})};

const struct model_object schema_node_status = {
	"io.k8s.api.core.v1.NodeStatus", "State of a node.",
	FIELDS({"capacity", MODEL_QUANTITY, .pb = 1, .shape = MODEL_MAP,
		.text = "Everything the machine has."},
	       {"allocatable", MODEL_QUANTITY, .pb = 2, .shape = MODEL_MAP,
		.text = "What pods may use of it."},
	       {"phase", MODEL_STRING, .pb = 3, .text = "Deprecated."},
	       {"conditions", MODEL_OBJECT, .pb = 4, .shape = MODEL_ARRAY, .object = &schema_node_condition,
		.flags = MODEL_MERGE, .merge_key = "type", .text = "Latest observations."},
	       {"addresses", MODEL_OBJECT, .pb = 5, .shape = MODEL_ARRAY, .object = &schema_node_address,
		.flags = MODEL_MERGE, .merge_key = "type", .text = "Addresses of the node."},
	       {"daemonEndpoints", MODEL_OBJECT, .pb = 6, .object = &schema_node_daemon_endpoints,
		.text = "Ports of the node agent."},
	       {"nodeInfo", MODEL_OBJECT, .pb = 7, .object = &schema_node_system_info,
		.text = "Identity and versions."},
	       {"images", MODEL_OBJECT, .pb = 8, .shape = MODEL_ARRAY, .object = &schema_container_image,
		.text = "Images on the node."},
	       {"volumesInUse", MODEL_STRING, .pb = 9, .shape = MODEL_ARRAY, .text = "Volumes in use."},
	       {"volumesAttached", MODEL_OBJECT, .pb = 10, .shape = MODEL_ARRAY,
		.object = &schema_attached_volume, .text = "Volumes attached."},
	       {"config", MODEL_RAW, .pb = 11, .text = "State of dynamic configuration."},
	       {"runtimeHandlers", MODEL_RAW, .pb = 12, .shape = MODEL_ARRAY,
		.text = "Runtimes of the node."},
	       {"features", MODEL_RAW, .pb = 13, .text = "Features of the node."})};

const struct model_object schema_node_condition = {
	"io.k8s.api.core.v1.NodeCondition", "A condition of a node.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED,
		.text = "Name of the condition, such as Ready."},
	       {"status", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.allowed = ALLOWED("False", "True", "Unknown"), .text = "Whether it holds."},
	       {"lastHeartbeatTime", MODEL_TIME, .pb = 3, .text = "Last time it was reported."},
	       {"lastTransitionTime", MODEL_TIME, .pb = 4, .text = "When status changed last."},
	       {"reason", MODEL_STRING, .pb = 5, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 6, .text = "Details for people."})};

const struct model_object schema_node_address = {
	"io.k8s.api.core.v1.NodeAddress", "An address of a node.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED,
		.text = "InternalIP, ExternalIP or Hostname."},
	       {"address", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "The address."})};

const struct model_object schema_node_daemon_endpoints = {
	"io.k8s.api.core.v1.NodeDaemonEndpoints", "Ports of the node agent.",
	FIELDS({"kubeletEndpoint", MODEL_OBJECT, .pb = 1, .object = &schema_daemon_endpoint,
		.text = "Port of the node agent."})};

const struct model_object schema_daemon_endpoint = {
	"io.k8s.api.core.v1.DaemonEndpoint", "A port.",
	FIELDS({"Port", MODEL_INT, .pb = 1, .text = "Number of the port."})};

const struct model_object schema_node_system_info = {
	"io.k8s.api.core.v1.NodeSystemInfo", "Identity and versions of a node.",
	FIELDS({"machineID", MODEL_STRING, .pb = 1, .text = "Identity of the machine."},
	       {"systemUUID", MODEL_STRING, .pb = 2, .text = "Identity of the hardware."},
	       {"bootID", MODEL_STRING, .pb = 3, .text = "Identity of this boot."},
	       {"kernelVersion", MODEL_STRING, .pb = 4, .text = "Version of the kernel."},
	       {"osImage", MODEL_STRING, .pb = 5, .text = "Operating system."},
	       {"containerRuntimeVersion", MODEL_STRING, .pb = 6,
		.text = "Version of the container runtime."},
	       {"kubeletVersion", MODEL_STRING, .pb = 7, .text = "Version of the node agent."},
	       {"kubeProxyVersion", MODEL_STRING, .pb = 8, .text = "Deprecated."},
	       {"operatingSystem", MODEL_STRING, .pb = 9, .text = "linux."},
	       {"architecture", MODEL_STRING, .pb = 10, .text = "Processor architecture, such as amd64."})};

const struct model_object schema_container_image = {
	"io.k8s.api.core.v1.ContainerImage", "An image on a node.",
	FIELDS({"names", MODEL_STRING, .pb = 1, .shape = MODEL_ARRAY, .text = "Names of the image."},
	       {"sizeBytes", MODEL_INT64, .pb = 2, .text = "Size in bytes."})};

const struct model_object schema_attached_volume = {
	"io.k8s.api.core.v1.AttachedVolume", "A volume attached to a node.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .text = "Name."},
	       {"devicePath", MODEL_STRING, .pb = 2, .text = "Device."})};
