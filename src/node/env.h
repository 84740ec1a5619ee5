/* SPDX-License-Identifier: Apache-2.0 */
/* What a pod's fields refer to: environment variables, downward API values, $(VAR) in texts. Pure. */
#pragma once

#include "base/base.h"

struct env_sources {
	const json_t *pod;
	const char *pod_ip, *host_ip, *node_name;
	/* Borrowed objects, NULL when not there. */
	json_t *(*config_map)(void *ctx, const char *ns, const char *name);
	json_t *(*secret)(void *ctx, const char *ns, const char *name);
	void *ctx;
	const json_t *services; /* FOO_SERVICE_HOST ...: object of texts, may be NULL */
	int64_t node_cpu_milli; /* what resourceFieldRef gives where no limit is set */
	int64_t node_memory_bytes;
};

/* Environment of a container in the order of the API: services, envFrom, env; object name -> text, new. -ENOENT names the
 * ConfigMap, Secret or key that is missing (not for optional ones); -EINVAL. */
int env_resolve(const struct env_sources *s, const json_t *container, json_t **ret, struct err *e);
/* $(NAME) -> its value, $$ -> $, unknown names stay as they are. malloc'ed. */
char *env_expand(const char *text, const json_t *vars);
/* Value of a downward API field path ("metadata.labels['a']", "status.podIP"); malloc'ed or NULL. */
char *env_field(const struct env_sources *s, const char *path);
/* "limits.memory" with its divisor; malloc'ed or NULL. */
char *env_resource(const struct env_sources *s, const json_t *container, const json_t *ref);
/* Key of a ConfigMap or Secret (binaryData and data are base64 there): malloc'ed bytes, NULL = no such key. */
char *env_key_bytes(const json_t *obj, const char *key, bool secret, size_t *ret_len);
/* RFC 4648; NULL when malformed. malloc'ed, zero-terminated behind *ret_len. */
char *base64_decode(const char *text, size_t *ret_len);
/* Container of a pod by name, init containers too. Borrowed, NULL. */
json_t *pod_container(const json_t *pod, const char *name);
