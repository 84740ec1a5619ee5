/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside model only. */
#pragma once

#include "model/schema.h"

/* Request bodies that have a schema but are no resources. */
const struct model_kind *model_bodies(size_t *ret_n);

/* ---- names.c; s is never NULL ---- */
bool name_is_qualified(const char *s);	 /* label and annotation keys: [PREFIX/]NAME */
bool name_is_label_value(const char *s); /* may be empty */
bool name_is_rfc1035(const char *s);	 /* as model_name_ok, but starts with a letter: services */
bool name_is_env(const char *s);
bool name_is_config_key(const char *s);	    /* keys of config maps and secrets */
const char *name_port_fault(const char *s); /* what is wrong with the name of a port, or NULL */
bool name_is_ipv4(const char *s);

/* ---- faults.c: causes of a validation, with Kubernetes' field paths ---- */
struct at { /* a path; lives on the stack of the walk */
	const struct at *up;
	const char *name; /* ".name"; "" = nothing */
	const char *key;  /* "[key]" */
	int64_t index;	  /* "[index]", -1 = none */
};
#define AT_ROOT		 ((struct at){NULL, "", NULL, -1})
#define AT(up, name_)	 (&(const struct at){(up), (name_), NULL, -1})
#define AT_INDEX(up, i)	 (&(const struct at){(up), "", NULL, (int64_t)(i)})
#define AT_KEY(up, key_) (&(const struct at){(up), "", (key_), -1})

void at_text(const struct at *at, struct buf *out);

#define FAULTS_MAX 100 /* further ones are not collected */
void fault_required(json_t *causes, const struct at *at, const char *detail /* or NULL */);
void fault_invalid(json_t *causes, const struct at *at, const json_t *value, const char *fmt, ...)
	_printf_(4, 5);
void fault_unsupported_value(json_t *causes, const struct at *at, const char *value,
			     const char *const *allowed);
void fault_duplicate(json_t *causes, const struct at *at, const json_t *value);
void fault_forbidden(json_t *causes, const struct at *at, const char *fmt, ...) _printf_(3, 4);
void fault_not_found(json_t *causes, const struct at *at, const char *value);
void fault_type(json_t *causes, const struct at *at, const json_t *value, const char *wanted);
void fault_too_long(json_t *causes, const struct at *at, size_t most);
void fault_too_many(json_t *causes, const struct at *at, size_t have, size_t most);

/* ---- validation of parts ---- */
/* Types, required fields, allowed values and limits as the schema has them. */
void check_schema(json_t *causes, const struct at *at, const struct model_object *o, const json_t *obj);
/* Fields marked immutable. */
void check_immutable(json_t *causes, const struct at *at, const struct model_object *o, const json_t *obj,
		     const json_t *old);

/* ---- bytes.c ---- */
bool bytes_ok(const char *base64);
json_t *bytes_json_new(const void *data, size_t len); /* base64 text */

/* ---- qos.c ---- */
const char *pod_qos_class(const json_t *pod_spec); /* Guaranteed, Burstable, BestEffort */

/* ---- validate_meta.c ---- */
extern const char text_subdomain[], text_label[], text_rfc1035[], text_qualified[], text_label_value[];
void validate_labels(json_t *causes, const struct at *at, const json_t *labels);
void validate_meta(json_t *causes, const struct model_kind *k, const json_t *obj, const json_t *old);

/* ---- selector_text.c ---- */
/* strv_add where the length n is known: adding n values takes n steps, not n * n. */
char **strv_put(char **v, size_t n, const char *s);
void labels_text(struct buf *b, const json_t *labels);
void label_selector_text(struct buf *b, const json_t *selector);

/* ---- validate_*.c; types of obj are right when these run ---- */
extern const char text_config_key[];

struct pod_rules {
	const json_t *volumes; /* object whose members are the names of the pod's volumes */
	bool host_network;
};
bool path_climbs(const char *path); /* has a part ".." */
void validate_relative_path(json_t *causes, const struct at *at, const json_t *path);
/* A field of the pod that an environment variable or a file may show: one of known (ends with NULL), a label or an annotation. */
bool field_path_ok(const char *path, const char *const *known);
/* limits.cpu and the like, of an environment variable or a file. */
void validate_resource_ref(json_t *causes, const struct at *at, const json_t *ref);
void validate_port_value(json_t *causes, const struct at *at, const json_t *port); /* number or name */
void validate_container(json_t *causes, const struct at *at, const json_t *c, const struct pod_rules *rules,
			bool init);
void validate_label_selector(json_t *causes, const struct at *at, const json_t *selector);
void validate_placement(json_t *causes, const struct at *at, const json_t *pod_spec);
/* Claim templates: the spec only. */
void validate_claim_spec(json_t *causes, const struct at *at, const json_t *spec);
void validate_pod_spec(json_t *causes, const struct at *at, const json_t *spec);
void validate_template(json_t *causes, const struct at *at, const json_t *template, const json_t *selector);

/* One a kind; old NULL = create. */
typedef void validate_fn(json_t *causes, const json_t *obj, const json_t *old);
validate_fn validate_pod, validate_deployment, validate_replica_set, validate_stateful_set, validate_revision;
validate_fn validate_service, validate_slice, validate_config_map, validate_secret, validate_node,
	validate_event;
validate_fn validate_binding;
validate_fn validate_claim, validate_volume, validate_storage_class;
