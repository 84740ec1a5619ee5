/* SPDX-License-Identifier: Apache-2.0 */
/* Hash map from string to pointer; keys are copied, values belong to the caller. */
#pragma once

#include <stddef.h>

struct strmap;

struct strmap *strmap_new(void);
/* free_value may be NULL. Accepts NULL, returns NULL. */
struct strmap *strmap_free(struct strmap *m, void (*free_value)(void *));
void *strmap_get(const struct strmap *m, const char *key);
/* Returns the value that was there before, or NULL. value must not be NULL. */
void *strmap_set(struct strmap *m, const char *key, void *value);
/* Returns the value that was there, or NULL. */
void *strmap_del(struct strmap *m, const char *key);
size_t strmap_len(const struct strmap *m);
/* Iterates: start with *pos = 0; false at the end. Deleting the current key is allowed, adding is not. */
int strmap_next(const struct strmap *m, size_t *pos, const char **ret_key, void **ret_value);

#define strmap_foreach(m, key, value) \
	for (size_t _pos_##value = 0; strmap_next((m), &_pos_##value, &(key), (void **)&(value));)
