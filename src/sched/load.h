/* SPDX-License-Identifier: Apache-2.0 */
/* API objects -> compiled objects of core/sched. */
#pragma once

#include "core/sched/sched.h"

/* Tolerant: a field that cannot be read counts as not given (the API server has validated it). Never NULL. */
struct sched_node *load_node(const json_t *node);
struct sched_pod *load_pod(const json_t *pod);
/* labels of a Namespace, with kubernetes.io/metadata.name */
struct sched_labels load_namespace(const json_t *ns, struct sched_arena *mem);
/* Succeeded or Failed: uses nothing any more. */
bool load_pod_finished(const json_t *pod);
