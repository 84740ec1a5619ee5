/* SPDX-License-Identifier: Apache-2.0 */
/* Containers: image, command, environment, ports, probes, resources, security. See schema.h. */
#include "model/schema.h"

#include "model/schema_macros.h"

const struct model_object schema_container = {
	"io.k8s.api.core.v1.Container", "A container of a pod.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name, unique in the pod."},
	       {"image", MODEL_STRING, .pb = 2, .text = "Image reference, NAME:TAG."},
	       {"command", MODEL_STRING, .pb = 3, .shape = MODEL_ARRAY,
		.text = "Replaces the image's entry point. $(VAR) is expanded."},
	       {"args", MODEL_STRING, .pb = 4, .shape = MODEL_ARRAY,
		.text = "Arguments; replaces the image's. $(VAR) is expanded."},
	       {"workingDir", MODEL_STRING, .pb = 5, .text = "Working folder; the image's when missing."},
	       {"ports", MODEL_OBJECT, .pb = 6, .shape = MODEL_ARRAY, .object = &schema_container_port,
		.flags = MODEL_MERGE, .merge_key = "containerPort",
		.text = "Ports the container listens on."},
	       {"envFrom", MODEL_OBJECT, .pb = 19, .shape = MODEL_ARRAY, .object = &schema_env_from_source,
		.text = "Config maps and secrets whose keys become environment variables."},
	       {"env", MODEL_OBJECT, .pb = 7, .shape = MODEL_ARRAY, .object = &schema_env_var,
		.flags = MODEL_MERGE, .merge_key = "name", .text = "Environment variables."},
	       {"resources", MODEL_OBJECT, .pb = 8, .object = &schema_resource_requirements, .initial = "{}",
		.text = "What the container needs and may use."},
	       {"resizePolicy", MODEL_RAW, .pb = 23, .shape = MODEL_ARRAY, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"restartPolicy", MODEL_STRING, .pb = 24, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"volumeMounts", MODEL_OBJECT, .pb = 9, .shape = MODEL_ARRAY, .object = &schema_volume_mount,
		.flags = MODEL_MERGE, .merge_key = "mountPath", .text = "Where volumes appear."},
	       {"volumeDevices", MODEL_RAW, .pb = 21, .shape = MODEL_ARRAY,
		.flags = MODEL_UNSUPPORTED | MODEL_MERGE, .merge_key = "devicePath",
		.text = "Not supported by kuayu."},
	       {"livenessProbe", MODEL_OBJECT, .pb = 10, .object = &schema_probe,
		.text = "Container is restarted when this fails."},
	       {"readinessProbe", MODEL_OBJECT, .pb = 11, .object = &schema_probe,
		.text = "Container gets no traffic while this fails."},
	       {"startupProbe", MODEL_OBJECT, .pb = 22, .object = &schema_probe,
		.text = "The other probes wait for this to succeed first."},
	       {"lifecycle", MODEL_OBJECT, .pb = 12, .object = &schema_lifecycle,
		.text = "Hook before the stop."},
	       {"terminationMessagePath", MODEL_STRING, .pb = 13, .initial = "\"/dev/termination-log\"",
		.text = "File whose content becomes the termination message."},
	       {"terminationMessagePolicy", MODEL_STRING, .pb = 20,
		.allowed = ALLOWED("FallbackToLogsOnError", "File"), .initial = "\"File\"",
		.text = "Where the termination message comes from."},
	       {"imagePullPolicy", MODEL_STRING, .pb = 14,
		.allowed = ALLOWED("Always", "IfNotPresent", "Never"), .text = "When the image is pulled."},
	       {"securityContext", MODEL_OBJECT, .pb = 15, .object = &schema_security_context,
		.text = "Security settings; they win over the pod's."},
	       {"stdin", MODEL_BOOL, .pb = 16, .flags = MODEL_UNSUPPORTED, .text = "Not supported by kuayu."},
	       {"stdinOnce", MODEL_BOOL, .pb = 17, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"tty", MODEL_BOOL, .pb = 18, .flags = MODEL_UNSUPPORTED, .text = "Not supported by kuayu."})};

const struct model_object schema_container_port = {
	"io.k8s.api.core.v1.ContainerPort", "A port a container listens on.",
	FIELDS({"name", MODEL_STRING, .pb = 1,
		.text = "Name, unique in the pod; services and probes can refer to it."},
	       {"hostPort", MODEL_INT, .pb = 2, LIMITS(1, 65535), .text = "Port on the node."},
	       {"containerPort", MODEL_INT, .pb = 3, .flags = MODEL_REQUIRED, LIMITS(1, 65535),
		.text = "Port in the pod."},
	       {"protocol", MODEL_STRING, .pb = 4, .allowed = ALLOWED("SCTP", "TCP", "UDP"),
		.initial = "\"TCP\"", .text = "Transport protocol."},
	       {"hostIP", MODEL_STRING, .pb = 5, .flags = MODEL_UNSUPPORTED,
		.text = "Address of the node to bind to."})};

const struct model_object schema_env_var = {
	"io.k8s.api.core.v1.EnvVar", "An environment variable.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name."},
	       {"value", MODEL_STRING, .pb = 2, .text = "Value; $(VAR) is expanded."},
	       {"valueFrom", MODEL_OBJECT, .pb = 3, .object = &schema_env_var_source,
		.text = "Where the value comes from."})};

const struct model_object schema_env_var_source = {
	"io.k8s.api.core.v1.EnvVarSource", "Where a value comes from; one of these.",
	FIELDS({"fieldRef", MODEL_OBJECT, .pb = 1, .object = &schema_object_field_selector,
		.text = "A field of the pod."},
	       {"resourceFieldRef", MODEL_OBJECT, .pb = 2, .object = &schema_resource_field_selector,
		.text = "A resource of a container."},
	       {"configMapKeyRef", MODEL_OBJECT, .pb = 3, .object = &schema_config_map_key_selector,
		.text = "A key of a config map."},
	       {"secretKeyRef", MODEL_OBJECT, .pb = 4, .object = &schema_secret_key_selector,
		.text = "A key of a secret."})};

const struct model_object schema_object_field_selector = {
	"io.k8s.api.core.v1.ObjectFieldSelector", "A field of the pod.",
	FIELDS({"apiVersion", MODEL_STRING, .pb = 1, .initial = "\"v1\"", .text = "Version of the path; v1."},
	       {"fieldPath", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.text = "Such as metadata.name or status.podIP."})};

const struct model_object schema_resource_field_selector = {
	"io.k8s.api.core.v1.ResourceFieldSelector", "A resource of a container.",
	FIELDS({"containerName", MODEL_STRING, .pb = 1, .text = "Container."},
	       {"resource", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "Such as limits.cpu."},
	       {"divisor", MODEL_QUANTITY, .pb = 3, .initial = "\"0\"", .text = "Unit of the value."})};

const struct model_object schema_config_map_key_selector = {
	"io.k8s.api.core.v1.ConfigMapKeySelector", "A key of a config map.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .pb_inner = 1, .text = "Name of the object."},
	       {"key", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "Key."},
	       {"optional", MODEL_BOOL, .pb = 3, .flags = MODEL_PRESENCE,
		.text = "Whether it may be missing."})};

const struct model_object schema_secret_key_selector = {
	"io.k8s.api.core.v1.SecretKeySelector", "A key of a secret.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .pb_inner = 1, .text = "Name of the object."},
	       {"key", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "Key."},
	       {"optional", MODEL_BOOL, .pb = 3, .flags = MODEL_PRESENCE,
		.text = "Whether it may be missing."})};

const struct model_object schema_env_from_source = {
	"io.k8s.api.core.v1.EnvFromSource", "A source of environment variables.",
	FIELDS({"prefix", MODEL_STRING, .pb = 1, .text = "Put before each name."},
	       {"configMapRef", MODEL_OBJECT, .pb = 2, .object = &schema_config_map_env_source,
		.text = "Config map."},
	       {"secretRef", MODEL_OBJECT, .pb = 3, .object = &schema_secret_env_source, .text = "Secret."})};

const struct model_object schema_config_map_env_source = {
	"io.k8s.api.core.v1.ConfigMapEnvSource", "A config map.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .pb_inner = 1, .text = "Name of the object."},
	       {"optional", MODEL_BOOL, .pb = 2, .flags = MODEL_PRESENCE,
		.text = "Whether it may be missing."})};

const struct model_object schema_secret_env_source = {
	"io.k8s.api.core.v1.SecretEnvSource", "A secret.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .pb_inner = 1, .text = "Name of the object."},
	       {"optional", MODEL_BOOL, .pb = 2, .flags = MODEL_PRESENCE,
		.text = "Whether it may be missing."})};

const struct model_object schema_resource_requirements = {
	"io.k8s.api.core.v1.ResourceRequirements", "What a container needs and may use.",
	FIELDS({"limits", MODEL_QUANTITY, .pb = 1, .shape = MODEL_MAP, .text = "Most it may use."},
	       {"requests", MODEL_QUANTITY, .pb = 2, .shape = MODEL_MAP,
		.text = "What it needs; the scheduler counts this. Equals limits when missing."},
	       {"claims", MODEL_RAW, .pb = 3, .shape = MODEL_ARRAY, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."})};

const struct model_object schema_volume_mount = {
	"io.k8s.api.core.v1.VolumeMount", "Where a volume appears in a container.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the volume."},
	       {"readOnly", MODEL_BOOL, .pb = 2, .text = "Mounted read-only."},
	       {"recursiveReadOnly", MODEL_STRING, .pb = 7, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"mountPath", MODEL_STRING, .pb = 3, .flags = MODEL_REQUIRED,
		.text = "Path in the container; no ':'."},
	       {"subPath", MODEL_STRING, .pb = 4, .text = "Path in the volume."},
	       {"mountPropagation", MODEL_STRING, .pb = 5, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("None"), .text = "Mounts do not spread between node and container."},
	       {"subPathExpr", MODEL_STRING, .pb = 6, .text = "Path in the volume; $(VAR) is expanded."})};

const struct model_object schema_probe = {
	"io.k8s.api.core.v1.Probe", "A check of a container; exactly one handler.",
	FIELDS({"exec", MODEL_OBJECT, .pb = 1, .pb_inner = 1, .object = &schema_exec_action,
		.text = "Run a command; status 0 is success."},
	       {"httpGet", MODEL_OBJECT, .pb = 1, .pb_inner = 2, .object = &schema_http_get_action,
		.text = "Ask by HTTP; 200 to 399 is success."},
	       {"tcpSocket", MODEL_OBJECT, .pb = 1, .pb_inner = 3, .object = &schema_tcp_socket_action,
		.text = "Open a connection."},
	       {"grpc", MODEL_OBJECT, .pb = 1, .pb_inner = 4, .object = &schema_grpc_action,
		.text = "Ask by the gRPC health protocol."},
	       {"initialDelaySeconds", MODEL_INT, .pb = 2, LIMITS(0, INT64_MAX),
		.text = "Seconds after the start before the first check."},
	       {"timeoutSeconds", MODEL_INT, .pb = 3, .initial = "1", LIMITS(0, INT64_MAX),
		.text = "Seconds before a check counts as failed."},
	       {"periodSeconds", MODEL_INT, .pb = 4, .initial = "10", LIMITS(0, INT64_MAX),
		.text = "Seconds between checks."},
	       {"successThreshold", MODEL_INT, .pb = 5, .initial = "1", LIMITS(0, INT64_MAX),
		.text = "Successes in a row that count as success."},
	       {"failureThreshold", MODEL_INT, .pb = 6, .initial = "3", LIMITS(0, INT64_MAX),
		.text = "Failures in a row that count as failure."},
	       {"terminationGracePeriodSeconds", MODEL_INT64, .pb = 7, .flags = MODEL_PRESENCE,
		LIMITS(1, INT64_MAX),
		.text = "Grace period when this probe fails; the pod's when missing."})};

const struct model_object schema_exec_action = {
	"io.k8s.api.core.v1.ExecAction", "A command.",
	FIELDS({"command", MODEL_STRING, .pb = 1, .shape = MODEL_ARRAY,
		.text = "Program and arguments; no shell."})};

const struct model_object schema_http_get_action = {
	"io.k8s.api.core.v1.HTTPGetAction", "An HTTP request.",
	FIELDS({"path", MODEL_STRING, .pb = 1, .initial = "\"/\"", .text = "Path."},
	       {"port", MODEL_INT_OR_STRING, .pb = 2, .flags = MODEL_REQUIRED,
		.text = "Port, number or name."},
	       {"host", MODEL_STRING, .pb = 3, .text = "Host; the pod's address when missing."},
	       {"scheme", MODEL_STRING, .pb = 4, .allowed = ALLOWED("HTTP", "HTTPS"), .initial = "\"HTTP\"",
		.text = "Scheme."},
	       {"httpHeaders", MODEL_OBJECT, .pb = 5, .shape = MODEL_ARRAY, .object = &schema_http_header,
		.text = "Headers."})};

const struct model_object schema_http_header = {
	"io.k8s.api.core.v1.HTTPHeader", "An HTTP header.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name."},
	       {"value", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "Value."})};

const struct model_object schema_tcp_socket_action = {
	"io.k8s.api.core.v1.TCPSocketAction", "A connection.",
	FIELDS({"port", MODEL_INT_OR_STRING, .pb = 1, .flags = MODEL_REQUIRED,
		.text = "Port, number or name."},
	       {"host", MODEL_STRING, .pb = 2, .text = "Host; the pod's address when missing."})};

const struct model_object schema_grpc_action = {
	"io.k8s.api.core.v1.GRPCAction", "A gRPC health request.",
	FIELDS({"port", MODEL_INT, .pb = 1, .flags = MODEL_REQUIRED, LIMITS(1, 65535), .text = "Port."},
	       {"service", MODEL_STRING, .pb = 2, .flags = MODEL_PRESENCE, .initial = "\"\"",
		.text = "Service to ask for."})};

const struct model_object schema_lifecycle = {
	"io.k8s.api.core.v1.Lifecycle", "Hooks at start and stop.",
	FIELDS({"postStart", MODEL_OBJECT, .pb = 1, .object = &schema_lifecycle_handler,
		.text = "Right after the start; a failure stops the container."},
	       {"preStop", MODEL_OBJECT, .pb = 2, .object = &schema_lifecycle_handler,
		.text = "Before the stop signal."})};

const struct model_object schema_lifecycle_handler = {
	"io.k8s.api.core.v1.LifecycleHandler", "A hook; exactly one of these.",
	FIELDS({"exec", MODEL_OBJECT, .pb = 1, .object = &schema_exec_action, .text = "Run a command."},
	       {"httpGet", MODEL_OBJECT, .pb = 2, .object = &schema_http_get_action,
		.flags = MODEL_UNSUPPORTED, .text = "Not supported by kuayu."},
	       {"tcpSocket", MODEL_OBJECT, .pb = 3, .object = &schema_tcp_socket_action,
		.flags = MODEL_UNSUPPORTED, .text = "Not supported by kuayu."},
	       {"sleep", MODEL_RAW, .pb = 4, .flags = MODEL_UNSUPPORTED, .text = "Not supported by kuayu."})};

const struct model_object schema_security_context = {
	"io.k8s.api.core.v1.SecurityContext", "Security settings of a container.",
	FIELDS({"capabilities", MODEL_OBJECT, .pb = 1, .object = &schema_capabilities,
		.text = "Capabilities added and dropped."},
	       {"privileged", MODEL_BOOL, .pb = 2, .flags = MODEL_PRESENCE,
		.text = "All rights on the node."},
	       {"seLinuxOptions", MODEL_RAW, .pb = 3, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"windowsOptions", MODEL_RAW, .pb = 10, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"runAsUser", MODEL_INT64, .pb = 4, .flags = MODEL_PRESENCE, LIMITS(0, 2147483647),
		.text = "User id."},
	       {"runAsGroup", MODEL_INT64, .pb = 8, .flags = MODEL_PRESENCE, LIMITS(0, 2147483647),
		.text = "Group id."},
	       {"runAsNonRoot", MODEL_BOOL, .pb = 5, .flags = MODEL_PRESENCE,
		.text = "Refuse to run as user 0."},
	       {"readOnlyRootFilesystem", MODEL_BOOL, .pb = 6, .flags = MODEL_PRESENCE,
		.text = "Root file system is read-only."},
	       {"allowPrivilegeEscalation", MODEL_BOOL, .pb = 7, .flags = MODEL_PRESENCE,
		.text = "Whether a process can gain more rights than its parent."},
	       {"procMount", MODEL_STRING, .pb = 9, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"seccompProfile", MODEL_RAW, .pb = 11, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"appArmorProfile", MODEL_RAW, .pb = 12, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."})};

const struct model_object schema_capabilities = {
	"io.k8s.api.core.v1.Capabilities", "Capabilities added and dropped.",
	FIELDS({"add", MODEL_STRING, .pb = 1, .shape = MODEL_ARRAY, .text = "Added."},
	       {"drop", MODEL_STRING, .pb = 2, .shape = MODEL_ARRAY, .text = "Dropped."})};
