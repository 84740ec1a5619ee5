/* SPDX-License-Identifier: Apache-2.0 */
/* model: the API objects as JSON with a schema table a kind. From the table come unknown-field checks, defaults,
 * validation, merge keys, OpenAPI v2 and v3, protobuf requests. Objects are jansson objects of the Kubernetes wire form.
 * Pure: no I/O, no clock (times are handed in). */
#pragma once

#include "base/base.h"

struct model_field; /* schema, see schema.h */

struct model_kind {
	const char *group;   /* "" = core */
	const char *version; /* "v1" */
	const char *kind;    /* "Pod" */
	const char *plural;  /* "pods" */
	const char *singular;
	const char *const *short_names; /* NULL-terminated or NULL */
	bool namespaced;
	bool has_status;	       /* status subresource; spec changes raise metadata.generation */
	bool has_scale;		       /* scale subresource */
	const char *const *categories; /* "all" */
	const struct model_field *schema;
};

/* NULL when not known. version NULL = any. */
const struct model_kind *model_kind_by_plural(const char *group, const char *version, const char *plural);
const struct model_kind *model_kind_by_kind(const char *api_version, const char *kind);
const struct model_kind *model_kinds(size_t *ret_n);
/* "v1" or "apps/v1" */
const char *model_api_version(const struct model_kind *k, char out[128]);

/* ---- checks ---- */
/* Array of texts such as `unknown field "spec.foo"` (strict decoding); new reference, maybe empty. Fields that are known
 * to Kubernetes but not supported here are listed too, as `field "spec.hostPID" is not supported`. */
json_t *model_unknown_fields_new(const struct model_kind *k, const json_t *obj);
/* Removes what model_unknown_fields_new names as unknown (not the unsupported ones: those are refused by validation). */
void model_prune(const struct model_kind *k, json_t *obj);
void model_default(const struct model_kind *k, json_t *obj);
/* old NULL = create. Returns 0 or -EINVAL with an array of Kubernetes causes {reason, message, field} in *ret_causes (new). */
int model_validate(const struct model_kind *k, const json_t *obj, const json_t *old, json_t **ret_causes);
/* Array of texts about fields of a valid object that are not, or not fully, carried out; new reference, maybe empty. */
json_t *model_warnings_new(const struct model_kind *k, const json_t *obj);
/* RFC 1123 label and subdomain. */
bool model_name_ok(const char *s);
bool model_subdomain_ok(const char *s);

/* ---- patches; *ret is a new reference; -EINVAL with a text ---- */
int model_patch_strategic(const struct model_kind *k, const json_t *obj, const json_t *patch, json_t **ret,
			  struct err *e);
int model_patch_merge(const json_t *obj, const json_t *patch, json_t **ret, struct err *e); /* RFC 7386 */
int model_patch_json(const json_t *obj, const json_t *patch, json_t **ret, struct err *e);  /* RFC 6902 */

/* ---- selectors ---- */
struct model_selector;
/* "a=b,c!=d,e in (x,y),!f" */
int model_selector_parse(const char *text, struct model_selector **ret, struct err *e);
/* {matchLabels, matchExpressions}, or a plain map as in Service and ReplicationController */
int model_selector_from_json(const json_t *label_selector, struct model_selector **ret, struct err *e);
bool model_selector_match(const struct model_selector *s, const json_t *labels /* may be NULL */);
struct model_selector *model_selector_free(struct model_selector *s);
/* One-off: does `labels` match this LabelSelector? An empty selector matches all, NULL none. */
bool model_labels_match(const json_t *label_selector, const json_t *labels);

/* A LabelSelector as text, as in Scale.status.selector; malloc'ed, maybe "". */
char *model_selector_text(const json_t *label_selector);

struct model_field_selector;
/* "metadata.name=x,spec.nodeName!=y"; -EINVAL for a field that the kind does not offer */
int model_field_selector_parse(const struct model_kind *k, const char *text,
			       struct model_field_selector **ret, struct err *e);
bool model_field_selector_match(const struct model_field_selector *s, const json_t *obj);
struct model_field_selector *model_field_selector_free(struct model_field_selector *s);

/* ---- output ---- */
/* meta.k8s.io/v1 Table of one object or of an array of objects; include = "None", "Metadata" (default), "Object". */
json_t *model_table_new(const struct model_kind *k, const json_t *obj_or_array, const char *include,
			int64_t now_us);

/* ---- OpenAPI and protobuf ---- */
json_t *model_openapi_v3_index_new(void);
json_t *model_openapi_v3_new(const char *group,
			     const char *version); /* NULL when there is no such group-version */
json_t *model_openapi_v2_new(void);
/* gnostic openapi.v2.Document as kubectl 1.20 wants it */
int model_openapi_v2_protobuf(struct buf *out);
/* "k8s\0" + runtime.Unknown -> JSON object; for the kinds that kubectl 1.32 sends so (ConfigMap, Secret, Deployment,
 * Namespace, ...). -ENOTSUP for others. */
int model_from_protobuf(const void *data, size_t len, json_t **ret, struct err *e);

/* ---- quantities (resource.Quantity) ---- */
/* "500m" -> 500, "2" -> 2000, "1Gi" -> 1073741824000: thousandths. -EINVAL, -ERANGE */
int model_quantity_milli(const char *text, int64_t *ret_milli);
/* A quantity in JSON may be text or number. 0 when missing. */
int model_quantity_json(const json_t *q, int64_t *ret_milli);
