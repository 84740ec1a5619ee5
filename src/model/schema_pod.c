/* SPDX-License-Identifier: Apache-2.0 */
/* Pod and PodTemplateSpec: everything but containers, which are in schema_container.c, and placement, in
 * schema_placement.c. See schema.h. */
#include "model/schema.h"

#include "model/schema_macros.h"

const struct model_object schema_pod = {
	"io.k8s.api.core.v1.Pod", "Containers that run together on a node.",
	FIELDS(KIND_FIELDS,
	       {"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Standard metadata."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_pod_spec, .text = "Desired behaviour."},
	       {"status", MODEL_OBJECT, .pb = 3, .object = &schema_pod_status,
		.text = "Current state, written by the node agent."})};

const struct model_object schema_pod_template_spec = {
	"io.k8s.api.core.v1.PodTemplateSpec", "Pods that a controller makes.",
	FIELDS({"metadata", MODEL_OBJECT, .pb = 1, .object = &schema_object_meta,
		.text = "Labels and annotations of the pods."},
	       {"spec", MODEL_OBJECT, .pb = 2, .object = &schema_pod_spec,
		.text = "Desired behaviour of the pods."})};

const struct model_object schema_pod_spec = {
	"io.k8s.api.core.v1.PodSpec", "Desired behaviour of a pod.",
	FIELDS({"volumes", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY, .object = &schema_volume,
		.flags = MODEL_MERGE | MODEL_RETAIN_KEYS, .merge_key = "name",
		.text = "Volumes that containers can mount."},
	       {"initContainers", MODEL_OBJECT, .pb = 20, .shape = MODEL_ARRAY, .object = &schema_container,
		.flags = MODEL_MERGE, .merge_key = "name",
		.text = "Containers that run to completion one after another before the others start."},
	       {"containers", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY, .object = &schema_container,
		.flags = MODEL_REQUIRED | MODEL_MERGE, .merge_key = "name",
		.text = "Containers of the pod; at least one."},
	       {"ephemeralContainers", MODEL_RAW, .pb = 34, .shape = MODEL_ARRAY,
		.flags = MODEL_UNSUPPORTED | MODEL_MERGE, .merge_key = "name",
		.text = "Not supported by kuayu."},
	       {"restartPolicy", MODEL_STRING, .pb = 3, .allowed = ALLOWED("Always", "Never", "OnFailure"),
		.initial = "\"Always\"", .text = "When containers that ended are started again."},
	       {"terminationGracePeriodSeconds", MODEL_INT64, .pb = 4, .flags = MODEL_PRESENCE,
		.initial = "30", .text = "Seconds between the stop signal and the kill signal."},
	       {"activeDeadlineSeconds", MODEL_INT64, .pb = 5, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"dnsPolicy", MODEL_STRING, .pb = 6,
		.allowed = ALLOWED("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
		.initial = "\"ClusterFirst\"", .text = "Where names are looked up."},
	       {"nodeSelector", MODEL_STRING, .pb = 7, .shape = MODEL_MAP,
		.text = "Labels the node must have."},
	       {"serviceAccountName", MODEL_STRING, .pb = 8, .text = "Service account the pod runs as."},
	       {"serviceAccount", MODEL_STRING, .pb = 9, .text = "Deprecated alias of serviceAccountName."},
	       {"automountServiceAccountToken", MODEL_BOOL, .pb = 21,
		.flags = MODEL_UNSUPPORTED | MODEL_PRESENCE, .text = "Not supported by kuayu."},
	       {"nodeName", MODEL_STRING, .pb = 10,
		.text = "Node the pod is bound to; set by the scheduler."},
	       {"hostNetwork", MODEL_BOOL, .pb = 11, .text = "Use the node's network namespace."},
	       {"hostPID", MODEL_BOOL, .pb = 12, .text = "Use the node's process namespace."},
	       {"hostIPC", MODEL_BOOL, .pb = 13, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"shareProcessNamespace", MODEL_BOOL, .pb = 27, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Share one process namespace between the containers."},
	       {"securityContext", MODEL_OBJECT, .pb = 14, .object = &schema_pod_security_context,
		.initial = "{}", .text = "Users, groups and other security settings of the whole pod."},
	       {"imagePullSecrets", MODEL_OBJECT, .pb = 15, .shape = MODEL_ARRAY,
		.object = &schema_local_object_reference, .flags = MODEL_UNSUPPORTED | MODEL_MERGE,
		.merge_key = "name", .text = "Not supported by kuayu."},
	       {"hostname", MODEL_STRING, .pb = 16, .text = "Host name of the pod; its name when missing."},
	       {"subdomain", MODEL_STRING, .pb = 17,
		.text = "Name of a headless service that gives the pod its host name."},
	       {"affinity", MODEL_OBJECT, .pb = 18, .object = &schema_affinity,
		.text = "Rules for placement."},
	       {"schedulerName", MODEL_STRING, .pb = 19, .initial = "\"default-scheduler\"",
		.text = "Scheduler that places the pod."},
	       {"tolerations", MODEL_OBJECT, .pb = 22, .shape = MODEL_ARRAY, .object = &schema_toleration,
		.text = "Taints the pod tolerates."},
	       {"hostAliases", MODEL_OBJECT, .pb = 23, .shape = MODEL_ARRAY, .object = &schema_host_alias,
		.flags = MODEL_MERGE, .merge_key = "ip", .text = "Further lines for /etc/hosts."},
	       {"priorityClassName", MODEL_STRING, .pb = 24,
		.allowed = ALLOWED("system-cluster-critical", "system-node-critical"),
		.text = "Critical pods come before others and are kept fitting when a node or a domain "
			"fails."},
	       {"priority", MODEL_INT, .pb = 25, .flags = MODEL_PRESENCE,
		.text = "Higher is more important."},
	       {"dnsConfig", MODEL_RAW, .pb = 26, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"readinessGates", MODEL_RAW, .pb = 28, .shape = MODEL_ARRAY, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"runtimeClassName", MODEL_STRING, .pb = 29, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"enableServiceLinks", MODEL_BOOL, .pb = 30, .flags = MODEL_PRESENCE,
		.text = "Whether services of the namespace appear in the environment."},
	       {"preemptionPolicy", MODEL_STRING, .pb = 31, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"overhead", MODEL_QUANTITY, .pb = 32, .shape = MODEL_MAP, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"topologySpreadConstraints", MODEL_OBJECT, .pb = 33, .shape = MODEL_ARRAY,
		.object = &schema_topology_spread_constraint, .flags = MODEL_MERGE,
		.merge_key = "topologyKey", .text = "How pods spread over zones and nodes."},
	       {"setHostnameAsFQDN", MODEL_BOOL, .pb = 35, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"os", MODEL_OBJECT, .pb = 36, .object = &schema_pod_os,
		.text = "Operating system of the pod: linux."},
	       {"hostUsers", MODEL_BOOL, .pb = 37, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."},
	       {"schedulingGates", MODEL_RAW, .pb = 38, .shape = MODEL_ARRAY,
		.flags = MODEL_UNSUPPORTED | MODEL_MERGE, .merge_key = "name",
		.text = "Not supported by kuayu."},
	       {"resourceClaims", MODEL_RAW, .pb = 39, .shape = MODEL_ARRAY,
		.flags = MODEL_UNSUPPORTED | MODEL_MERGE | MODEL_RETAIN_KEYS, .merge_key = "name",
		.text = "Not supported by kuayu."},
	       {"resources", MODEL_OBJECT, .pb = 40, .object = &schema_resource_requirements,
		.flags = MODEL_UNSUPPORTED, .text = "Not supported by kuayu."})};

const struct model_object schema_pod_os = {
	"io.k8s.api.core.v1.PodOS", "Operating system of a pod.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED,
		.allowed = ALLOWED("linux", "windows"), .text = "linux is the only one supported here."})};

const struct model_object schema_host_alias = {
	"io.k8s.api.core.v1.HostAlias", "A line of /etc/hosts.",
	FIELDS({"ip", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Address."},
	       {"hostnames", MODEL_STRING, .pb = 2, .shape = MODEL_ARRAY, .text = "Names for it."})};

const struct model_object schema_pod_security_context = {
	"io.k8s.api.core.v1.PodSecurityContext", "Security settings of a pod.",
	FIELDS({"seLinuxOptions", MODEL_RAW, .pb = 1, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"windowsOptions", MODEL_RAW, .pb = 8, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"runAsUser", MODEL_INT64, .pb = 2, .flags = MODEL_PRESENCE, LIMITS(0, 2147483647),
		.text = "User id processes run as."},
	       {"runAsGroup", MODEL_INT64, .pb = 6, .flags = MODEL_PRESENCE, LIMITS(0, 2147483647),
		.text = "Group id processes run as."},
	       {"runAsNonRoot", MODEL_BOOL, .pb = 3, .flags = MODEL_PRESENCE,
		.text = "Refuse to run as user 0."},
	       {"supplementalGroups", MODEL_INT64, .pb = 4, .shape = MODEL_ARRAY,
		.text = "Further group ids."},
	       {"supplementalGroupsPolicy", MODEL_STRING, .pb = 12,
		.flags = MODEL_UNSUPPORTED | MODEL_PRESENCE, .text = "Not supported by kuayu."},
	       {"fsGroup", MODEL_INT64, .pb = 5, .flags = MODEL_PRESENCE, LIMITS(0, 2147483647),
		.text = "Group that owns the volumes."},
	       {"sysctls", MODEL_RAW, .pb = 7, .shape = MODEL_ARRAY, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"fsGroupChangePolicy", MODEL_STRING, .pb = 9, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("Always", "OnRootMismatch"),
		.text = "When the owner of volumes is changed."},
	       {"seccompProfile", MODEL_RAW, .pb = 10, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"appArmorProfile", MODEL_RAW, .pb = 11, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"seLinuxChangePolicy", MODEL_STRING, .pb = 13, .flags = MODEL_UNSUPPORTED | MODEL_PRESENCE,
		.text = "Not supported by kuayu."})};

const struct model_object schema_volume = {
	"io.k8s.api.core.v1.Volume", "A volume of a pod.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name, unique in the pod."},
	       {"hostPath", MODEL_OBJECT, .pb = 2, .pb_inner = 1, .object = &schema_host_path_volume_source,
		.text = "A file or folder of the node."},
	       {"emptyDir", MODEL_OBJECT, .pb = 2, .pb_inner = 2, .object = &schema_empty_dir_volume_source,
		.text = "An empty folder that lives as long as the pod."},
	       {"gcePersistentDisk", MODEL_RAW, .pb = 2, .pb_inner = 3, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"awsElasticBlockStore", MODEL_RAW, .pb = 2, .pb_inner = 4, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"gitRepo", MODEL_RAW, .pb = 2, .pb_inner = 5, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"secret", MODEL_OBJECT, .pb = 2, .pb_inner = 6, .object = &schema_secret_volume_source,
		.text = "A secret as files."},
	       {"nfs", MODEL_RAW, .pb = 2, .pb_inner = 7, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"iscsi", MODEL_RAW, .pb = 2, .pb_inner = 8, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"glusterfs", MODEL_RAW, .pb = 2, .pb_inner = 9, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"persistentVolumeClaim", MODEL_OBJECT, .pb = 2, .pb_inner = 10,
		.object = &schema_claim_volume_source, .text = "The volume of a claim."},
	       {"rbd", MODEL_RAW, .pb = 2, .pb_inner = 11, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"flexVolume", MODEL_RAW, .pb = 2, .pb_inner = 12, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"cinder", MODEL_RAW, .pb = 2, .pb_inner = 13, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"cephfs", MODEL_RAW, .pb = 2, .pb_inner = 14, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"flocker", MODEL_RAW, .pb = 2, .pb_inner = 15, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"downwardAPI", MODEL_OBJECT, .pb = 2, .pb_inner = 16,
		.object = &schema_downward_api_volume_source, .text = "Fields of the pod as files."},
	       {"fc", MODEL_RAW, .pb = 2, .pb_inner = 17, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"azureFile", MODEL_RAW, .pb = 2, .pb_inner = 18, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"configMap", MODEL_OBJECT, .pb = 2, .pb_inner = 19,
		.object = &schema_config_map_volume_source, .text = "A config map as files."},
	       {"vsphereVolume", MODEL_RAW, .pb = 2, .pb_inner = 20, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"quobyte", MODEL_RAW, .pb = 2, .pb_inner = 21, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"azureDisk", MODEL_RAW, .pb = 2, .pb_inner = 22, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"photonPersistentDisk", MODEL_RAW, .pb = 2, .pb_inner = 23, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"projected", MODEL_RAW, .pb = 2, .pb_inner = 26, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"portworxVolume", MODEL_RAW, .pb = 2, .pb_inner = 24, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"scaleIO", MODEL_RAW, .pb = 2, .pb_inner = 25, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"storageos", MODEL_RAW, .pb = 2, .pb_inner = 27, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"csi", MODEL_OBJECT, .pb = 2, .pb_inner = 28, .object = &schema_csi_volume_source,
		.text = "A volume that a CSI driver makes for this pod."},
	       {"ephemeral", MODEL_RAW, .pb = 2, .pb_inner = 29, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."},
	       {"image", MODEL_RAW, .pb = 2, .pb_inner = 30, .flags = MODEL_UNSUPPORTED,
		.text = "Not supported by kuayu."})};

const struct model_object schema_host_path_volume_source = {
	"io.k8s.api.core.v1.HostPathVolumeSource", "A file or folder of the node.",
	FIELDS({"path", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Path on the node."},
	       {"type", MODEL_STRING, .pb = 2, .flags = MODEL_PRESENCE,
		.allowed = ALLOWED("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File",
				   "FileOrCreate", "Socket"),
		.initial = "\"\"", .text = "What must be there before."})};

const struct model_object schema_empty_dir_volume_source = {
	"io.k8s.api.core.v1.EmptyDirVolumeSource", "An empty folder that lives as long as the pod.",
	FIELDS({"medium", MODEL_STRING, .pb = 1, .allowed = ALLOWED("", "Memory"), .text = "Memory = tmpfs."},
	       {"sizeLimit", MODEL_QUANTITY, .pb = 2, .text = "Most bytes it may hold."})};

const struct model_object schema_config_map_volume_source = {
	"io.k8s.api.core.v1.ConfigMapVolumeSource", "A config map as files.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .pb_inner = 1, .text = "Name of the object."},
	       {"items", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY, .object = &schema_key_to_path,
		.text = "Keys to show and where; missing = all, by their names."},
	       {"defaultMode", MODEL_INT, .pb = 3, .flags = MODEL_PRESENCE, .initial = "420", LIMITS(0, 511),
		.text = "Mode of the files (decimal in JSON; 420 = 0644)."},
	       {"optional", MODEL_BOOL, .pb = 4, .flags = MODEL_PRESENCE,
		.text = "Whether the config map may be missing."})};

const struct model_object schema_secret_volume_source = {
	"io.k8s.api.core.v1.SecretVolumeSource", "A secret as files.",
	FIELDS({"secretName", MODEL_STRING, .pb = 1, .text = "Name of the secret."},
	       {"items", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY, .object = &schema_key_to_path,
		.text = "Keys to show and where; missing = all, by their names."},
	       {"defaultMode", MODEL_INT, .pb = 3, .flags = MODEL_PRESENCE, .initial = "420", LIMITS(0, 511),
		.text = "Mode of the files (decimal in JSON; 420 = 0644)."},
	       {"optional", MODEL_BOOL, .pb = 4, .flags = MODEL_PRESENCE,
		.text = "Whether the secret may be missing."})};

const struct model_object schema_downward_api_volume_source = {
	"io.k8s.api.core.v1.DownwardAPIVolumeSource", "Fields of the pod as files.",
	FIELDS({"items", MODEL_OBJECT, .pb = 1, .shape = MODEL_ARRAY,
		.object = &schema_downward_api_volume_file, .text = "The files."},
	       {"defaultMode", MODEL_INT, .pb = 2, .flags = MODEL_PRESENCE, .initial = "420", LIMITS(0, 511),
		.text = "Mode of the files (decimal in JSON; 420 = 0644)."})};

const struct model_object schema_downward_api_volume_file = {
	"io.k8s.api.core.v1.DownwardAPIVolumeFile", "One file.",
	FIELDS({"path", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Relative path of the file."},
	       {"fieldRef", MODEL_OBJECT, .pb = 2, .object = &schema_object_field_selector,
		.text = "A field of the pod."},
	       {"resourceFieldRef", MODEL_OBJECT, .pb = 3, .object = &schema_resource_field_selector,
		.text = "A resource of a container."},
	       {"mode", MODEL_INT, .pb = 4, .flags = MODEL_PRESENCE, LIMITS(0, 511),
		.text = "Mode of the file."})};

const struct model_object schema_key_to_path = {
	"io.k8s.api.core.v1.KeyToPath", "Where a key appears in a volume.",
	FIELDS({"key", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Key."},
	       {"path", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "Relative path of the file."},
	       {"mode", MODEL_INT, .pb = 3, .flags = MODEL_PRESENCE, LIMITS(0, 511),
		.text = "Mode of the file."})};

const struct model_object schema_pod_status = {
	"io.k8s.api.core.v1.PodStatus", "State of a pod.",
	FIELDS({"phase", MODEL_STRING, .pb = 1, .text = "Pending, Running, Succeeded, Failed or Unknown."},
	       {"conditions", MODEL_OBJECT, .pb = 2, .shape = MODEL_ARRAY, .object = &schema_pod_condition,
		.flags = MODEL_MERGE, .merge_key = "type", .text = "Latest observations."},
	       {"message", MODEL_STRING, .pb = 3, .text = "Details for people."},
	       {"reason", MODEL_STRING, .pb = 4, .text = "One word why."},
	       {"nominatedNodeName", MODEL_STRING, .pb = 11,
		.text = "Node where others were pushed away for this pod."},
	       {"hostIP", MODEL_STRING, .pb = 5, .text = "Address of the node."},
	       {"hostIPs", MODEL_OBJECT, .pb = 16, .shape = MODEL_ARRAY, .object = &schema_host_ip,
		.flags = MODEL_MERGE, .merge_key = "ip", .text = "Addresses of the node."},
	       {"podIP", MODEL_STRING, .pb = 6, .text = "Address of the pod."},
	       {"podIPs", MODEL_OBJECT, .pb = 12, .shape = MODEL_ARRAY, .object = &schema_pod_ip,
		.flags = MODEL_MERGE, .merge_key = "ip", .text = "Addresses of the pod."},
	       {"startTime", MODEL_TIME, .pb = 7, .text = "When the node took the pod over."},
	       {"initContainerStatuses", MODEL_OBJECT, .pb = 10, .shape = MODEL_ARRAY,
		.object = &schema_container_status, .text = "State of the init containers."},
	       {"containerStatuses", MODEL_OBJECT, .pb = 8, .shape = MODEL_ARRAY,
		.object = &schema_container_status, .text = "State of the containers."},
	       {"qosClass", MODEL_STRING, .pb = 9,
		.text = "Quality of service: Guaranteed, Burstable or BestEffort."},
	       {"ephemeralContainerStatuses", MODEL_OBJECT, .pb = 13, .shape = MODEL_ARRAY,
		.object = &schema_container_status, .text = "State of ephemeral containers."},
	       {"resize", MODEL_STRING, .pb = 14, .text = "State of a resize."},
	       {"resourceClaimStatuses", MODEL_RAW, .pb = 15, .shape = MODEL_ARRAY,
		.flags = MODEL_MERGE | MODEL_RETAIN_KEYS, .merge_key = "name",
		.text = "State of resource claims."})};

const struct model_object schema_host_ip = {"io.k8s.api.core.v1.HostIP", "An address of a node.",
					    FIELDS({"ip", MODEL_STRING, .pb = 1, .text = "Address."})};

const struct model_object schema_pod_ip = {"io.k8s.api.core.v1.PodIP", "An address of a pod.",
					   FIELDS({"ip", MODEL_STRING, .pb = 1, .text = "Address."})};

const struct model_object schema_pod_condition = {
	"io.k8s.api.core.v1.PodCondition", "A condition of a pod.",
	FIELDS({"type", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED,
		.text = "Name of the condition, such as Ready."},
	       {"status", MODEL_STRING, .pb = 2, .flags = MODEL_REQUIRED, .text = "True, False or Unknown."},
	       {"lastProbeTime", MODEL_TIME, .pb = 3, .text = "Last time it was looked at."},
	       {"lastTransitionTime", MODEL_TIME, .pb = 4, .text = "When status changed last."},
	       {"reason", MODEL_STRING, .pb = 5, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 6, .text = "Details for people."})};

const struct model_object schema_container_status = {
	"io.k8s.api.core.v1.ContainerStatus", "State of a container.",
	FIELDS({"name", MODEL_STRING, .pb = 1, .flags = MODEL_REQUIRED, .text = "Name of the container."},
	       {"state", MODEL_OBJECT, .pb = 2, .object = &schema_container_state,
		.text = "What it does now."},
	       {"lastState", MODEL_OBJECT, .pb = 3, .object = &schema_container_state,
		.text = "What it did before."},
	       {"ready", MODEL_BOOL, .pb = 4, .text = "Whether it passes its readiness probe."},
	       {"restartCount", MODEL_INT, .pb = 5, .text = "How often it was restarted."},
	       {"image", MODEL_STRING, .pb = 6, .text = "Image it runs."},
	       {"imageID", MODEL_STRING, .pb = 7, .text = "Digest of the image."},
	       {"containerID", MODEL_STRING, .pb = 8, .text = "Id at the runtime."},
	       {"started", MODEL_BOOL, .pb = 9, .flags = MODEL_PRESENCE,
		.text = "Whether it passed its startup probe."},
	       {"allocatedResources", MODEL_QUANTITY, .pb = 10, .shape = MODEL_MAP,
		.text = "Resources given to it."},
	       {"resources", MODEL_OBJECT, .pb = 11, .object = &schema_resource_requirements,
		.text = "Resources in force."},
	       {"volumeMounts", MODEL_RAW, .pb = 12, .shape = MODEL_ARRAY, .flags = MODEL_MERGE,
		.merge_key = "mountPath", .text = "State of its mounts."},
	       {"user", MODEL_RAW, .pb = 13, .text = "User it runs as."},
	       {"allocatedResourcesStatus", MODEL_RAW, .pb = 14, .shape = MODEL_ARRAY, .flags = MODEL_MERGE,
		.merge_key = "name", .text = "State of its devices."})};

const struct model_object schema_container_state = {
	"io.k8s.api.core.v1.ContainerState", "State of a container; one of these.",
	FIELDS({"waiting", MODEL_OBJECT, .pb = 1, .object = &schema_container_state_waiting,
		.text = "Not running yet."},
	       {"running", MODEL_OBJECT, .pb = 2, .object = &schema_container_state_running,
		.text = "Running."},
	       {"terminated", MODEL_OBJECT, .pb = 3, .object = &schema_container_state_terminated,
		.text = "Ended."})};

const struct model_object schema_container_state_waiting = {
	"io.k8s.api.core.v1.ContainerStateWaiting", "Not running yet.",
	FIELDS({"reason", MODEL_STRING, .pb = 1, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 2, .text = "Details for people."})};

const struct model_object schema_container_state_running = {
	"io.k8s.api.core.v1.ContainerStateRunning", "Running.",
	FIELDS({"startedAt", MODEL_TIME, .pb = 1, .text = "Since when."})};

const struct model_object schema_container_state_terminated = {
	"io.k8s.api.core.v1.ContainerStateTerminated", "Ended.",
	FIELDS({"exitCode", MODEL_INT, .pb = 1, .text = "Exit status."},
	       {"signal", MODEL_INT, .pb = 2, .text = "Signal that ended it."},
	       {"reason", MODEL_STRING, .pb = 3, .text = "One word why."},
	       {"message", MODEL_STRING, .pb = 4, .text = "Details for people."},
	       {"startedAt", MODEL_TIME, .pb = 5, .text = "When it started."},
	       {"finishedAt", MODEL_TIME, .pb = 6, .text = "When it ended."},
	       {"containerID", MODEL_STRING, .pb = 7, .text = "Id at the runtime."})};
