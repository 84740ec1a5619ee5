/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the openapi*.c files only. version is 2 or 3. All _new functions give new references. */
#pragma once

#include "model/internal.h"

json_t *openapi_ref_new(int version, const char *name);
json_t *openapi_gvk_new(const struct model_kind *k, const char *suffix);
/* Put an object type and all it refers to into definitions (name -> schema). */
void openapi_define(json_t *definitions, int version, const struct model_object *o);
void openapi_define_kind(json_t *definitions, int version, const struct model_kind *k, bool with_list);
void openapi_define_scalars(json_t *definitions, int version);
/* Adds the paths of a kind, its subresources too. */
void openapi_paths(json_t *paths, int version, const struct model_kind *k);
