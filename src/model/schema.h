/* SPDX-License-Identifier: Apache-2.0 */
/* The schema of API objects: one constant table an object type, tables refer to one another. A table says everything about a
 * field once: JSON name, type, protobuf number, merge key and strategy, limits, default, whether it may change, whether kuayu
 * supports it, a short description. Checks, defaults, pruning, patches, OpenAPI and the protobuf decoder walk these tables.
 * Names, numbers and merge keys are Kubernetes' own (v1.32): they are the wire format. */
#pragma once

#include "model/model.h"

enum model_type {
	MODEL_STRING,
	MODEL_INT,   /* 32 bits */
	MODEL_INT64, /* 64 bits */
	MODEL_BOOL,
	MODEL_BYTES,	     /* base64 text */
	MODEL_QUANTITY,	     /* text or number */
	MODEL_INT_OR_STRING, /* number or text */
	MODEL_TIME,	     /* RFC 3339, seconds */
	MODEL_MICRO_TIME,    /* RFC 3339, microseconds */
	MODEL_OBJECT,	     /* struct model_object */
	MODEL_RAW,	     /* any JSON */
};

enum model_shape { MODEL_ONE, MODEL_ARRAY, MODEL_MAP /* name -> value */ };

enum model_flag {
	MODEL_REQUIRED = 1 << 0,
	MODEL_IMMUTABLE = 1 << 1,
	MODEL_UNSUPPORTED = 1 << 2, /* known to Kubernetes, refused here unless empty, zero or false */
	MODEL_MERGE = 1 << 3,	    /* strategic merge: arrays are merged, not replaced */
	MODEL_RETAIN_KEYS = 1 << 4, /* strategic merge: $retainKeys is honoured */
	MODEL_PRESENCE = 1 << 5,    /* zero and false differ from a missing field */
};

struct model_field {
	const char *name; /* NULL ends a table */
	enum model_type type;
	enum model_shape shape;
	unsigned flags;
	int pb;	      /* protobuf field number, 0 = not in protobuf */
	int pb_inner; /* not 0: the field is number pb_inner of the message in field pb, inlined in JSON */
	const struct model_object *object;
	const char *merge_key;
	const char *const *allowed; /* NULL-terminated, sorted */
	bool limited;		    /* min and max count */
	int64_t min, max;
	const char *initial; /* default as JSON text */
	const char *text;
};

struct model_object {
	const char *name; /* OpenAPI's name, such as io.k8s.api.core.v1.Pod */
	const char *text;
	const struct model_field *fields;
};

/* The field of that name, or NULL. */
const struct model_field *schema_field(const struct model_object *o, const char *name);
/* Calls fn once for every object type reachable from o, o first; stops and returns when fn does not return 0. */
int schema_walk(const struct model_object *o, int (*fn)(void *ctx, const struct model_object *o), void *ctx);

/* Tables, one a kind; shared ones are in the file that owns them. */
extern const struct model_object schema_object_meta;
extern const struct model_object schema_owner_reference;
extern const struct model_object schema_label_selector;
extern const struct model_object schema_label_selector_requirement;
extern const struct model_object schema_list_meta;
extern const struct model_object schema_delete_options;
extern const struct model_object schema_preconditions;
extern const struct model_object schema_status;
extern const struct model_object schema_status_details;
extern const struct model_object schema_status_cause;
extern const struct model_object schema_condition;
extern const struct model_object schema_namespace;
extern const struct model_object schema_namespace_spec;
extern const struct model_object schema_namespace_status;
extern const struct model_object schema_namespace_condition;
extern const struct model_object schema_config_map;
extern const struct model_object schema_secret;
extern const struct model_object schema_service_account;
extern const struct model_object schema_local_object_reference;
extern const struct model_object schema_object_reference;
extern const struct model_object schema_binding;
extern const struct model_object schema_event;
extern const struct model_object schema_event_source;
extern const struct model_object schema_event_series;
extern const struct model_object schema_service;
extern const struct model_object schema_service_spec;
extern const struct model_object schema_service_port;
extern const struct model_object schema_session_affinity_config;
extern const struct model_object schema_client_ip_config;
extern const struct model_object schema_service_status;
extern const struct model_object schema_load_balancer_status;
extern const struct model_object schema_load_balancer_ingress;
extern const struct model_object schema_port_status;
extern const struct model_object schema_endpoints;
extern const struct model_object schema_endpoint_subset;
extern const struct model_object schema_endpoint_address;
extern const struct model_object schema_endpoint_port;
extern const struct model_object schema_node;
extern const struct model_object schema_node_spec;
extern const struct model_object schema_taint;
extern const struct model_object schema_node_status;
extern const struct model_object schema_node_condition;
extern const struct model_object schema_node_address;
extern const struct model_object schema_node_daemon_endpoints;
extern const struct model_object schema_daemon_endpoint;
extern const struct model_object schema_node_system_info;
extern const struct model_object schema_container_image;
extern const struct model_object schema_attached_volume;
extern const struct model_object schema_pod;
extern const struct model_object schema_pod_template_spec;
extern const struct model_object schema_pod_spec;
extern const struct model_object schema_pod_os;
extern const struct model_object schema_host_alias;
extern const struct model_object schema_pod_security_context;
extern const struct model_object schema_volume;
extern const struct model_object schema_host_path_volume_source;
extern const struct model_object schema_empty_dir_volume_source;
extern const struct model_object schema_config_map_volume_source;
extern const struct model_object schema_secret_volume_source;
extern const struct model_object schema_downward_api_volume_source;
extern const struct model_object schema_downward_api_volume_file;
extern const struct model_object schema_key_to_path;
extern const struct model_object schema_pod_status;
extern const struct model_object schema_host_ip;
extern const struct model_object schema_pod_ip;
extern const struct model_object schema_pod_condition;
extern const struct model_object schema_container_status;
extern const struct model_object schema_container_state;
extern const struct model_object schema_container_state_waiting;
extern const struct model_object schema_container_state_running;
extern const struct model_object schema_container_state_terminated;
extern const struct model_object schema_container;
extern const struct model_object schema_container_port;
extern const struct model_object schema_env_var;
extern const struct model_object schema_env_var_source;
extern const struct model_object schema_object_field_selector;
extern const struct model_object schema_resource_field_selector;
extern const struct model_object schema_config_map_key_selector;
extern const struct model_object schema_secret_key_selector;
extern const struct model_object schema_env_from_source;
extern const struct model_object schema_config_map_env_source;
extern const struct model_object schema_secret_env_source;
extern const struct model_object schema_resource_requirements;
extern const struct model_object schema_volume_mount;
extern const struct model_object schema_probe;
extern const struct model_object schema_exec_action;
extern const struct model_object schema_http_get_action;
extern const struct model_object schema_http_header;
extern const struct model_object schema_tcp_socket_action;
extern const struct model_object schema_grpc_action;
extern const struct model_object schema_lifecycle;
extern const struct model_object schema_lifecycle_handler;
extern const struct model_object schema_security_context;
extern const struct model_object schema_capabilities;
extern const struct model_object schema_affinity;
extern const struct model_object schema_node_affinity;
extern const struct model_object schema_node_selector;
extern const struct model_object schema_node_selector_term;
extern const struct model_object schema_node_selector_requirement;
extern const struct model_object schema_preferred_scheduling_term;
extern const struct model_object schema_pod_affinity;
extern const struct model_object schema_pod_anti_affinity;
extern const struct model_object schema_weighted_pod_affinity_term;
extern const struct model_object schema_pod_affinity_term;
extern const struct model_object schema_toleration;
extern const struct model_object schema_topology_spread_constraint;
extern const struct model_object schema_replica_set;
extern const struct model_object schema_replica_set_spec;
extern const struct model_object schema_replica_set_status;
extern const struct model_object schema_replica_set_condition;
extern const struct model_object schema_deployment;
extern const struct model_object schema_deployment_spec;
extern const struct model_object schema_deployment_strategy;
extern const struct model_object schema_rolling_update_deployment;
extern const struct model_object schema_deployment_status;
extern const struct model_object schema_deployment_condition;
extern const struct model_object schema_stateful_set;
extern const struct model_object schema_stateful_set_spec;
extern const struct model_object schema_stateful_set_ordinals;
extern const struct model_object schema_stateful_set_claim_retention;
extern const struct model_object schema_stateful_set_update_strategy;
extern const struct model_object schema_rolling_update_stateful_set_strategy;
extern const struct model_object schema_stateful_set_status;
extern const struct model_object schema_stateful_set_condition;
extern const struct model_object schema_controller_revision;
extern const struct model_object schema_endpoint_slice;
extern const struct model_object schema_slice_endpoint;
extern const struct model_object schema_endpoint_conditions;
extern const struct model_object schema_endpoint_hints;
extern const struct model_object schema_for_zone;
extern const struct model_object schema_slice_port;
extern const struct model_object schema_lease;
extern const struct model_object schema_lease_spec;
extern const struct model_object schema_persistent_volume_claim;
extern const struct model_object schema_persistent_volume_claim_spec;
extern const struct model_object schema_volume_resource_requirements;
extern const struct model_object schema_persistent_volume_claim_status;
extern const struct model_object schema_persistent_volume_claim_condition;
extern const struct model_object schema_persistent_volume;
extern const struct model_object schema_persistent_volume_spec;
extern const struct model_object schema_csi_persistent_volume_source;
extern const struct model_object schema_persistent_volume_status;
extern const struct model_object schema_claim_volume_source;
extern const struct model_object schema_csi_volume_source;
extern const struct model_object schema_storage_class;
extern const struct model_object schema_csi_driver;
extern const struct model_object schema_csi_driver_spec;
extern const struct model_object schema_csi_node;
extern const struct model_object schema_csi_node_spec;
extern const struct model_object schema_csi_node_driver;
extern const struct model_object schema_volume_node_resources;
extern const struct model_object schema_eviction;
extern const struct model_object schema_scale;
extern const struct model_object schema_scale_spec;
extern const struct model_object schema_scale_status;
