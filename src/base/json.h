/* SPDX-License-Identifier: Apache-2.0 */
/* jansson with paths. Paths are member names joined by dots ("spec.template.metadata"); a member whose own name has a
 * dot (labels) is read with json_object_get. Borrowed references throughout unless the name says `new`. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 100 /* deeper input is refused */

static inline void json_decref_p(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ __attribute__((cleanup(json_decref_p)))

struct err;

/* NULL when any part is missing or no object on the way. */
json_t *js_get(const json_t *o, const char *path);
const char *js_str(const json_t *o, const char *path); /* NULL when not a string */
const char *js_str_or(const json_t *o, const char *path, const char *otherwise);
int64_t js_int(const json_t *o, const char *path, int64_t otherwise);
bool js_bool(const json_t *o, const char *path, bool otherwise);
/* Makes the objects on the way; takes over value. 0, or -EINVAL when something on the way is no object. */
int js_set_new(json_t *o, const char *path, json_t *value);
void js_del(json_t *o, const char *path);
/* The object at path, made when missing; NULL when something else is there. */
json_t *js_object(json_t *o, const char *path);
json_t *js_array(json_t *o, const char *path);
/* Parses one document: refuses duplicates of a name, more text behind, depth over JSON_DEPTH_MAX. New reference. */
int js_parse_new(const char *text, size_t len, json_t **ret, struct err *e);
/* Compact text; malloc'ed. Never NULL. */
char *js_text(const json_t *o);
