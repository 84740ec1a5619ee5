/* SPDX-License-Identifier: Apache-2.0 */
/* API objects -> compiled objects of core/sched. */
#pragma once

#include "core/sched/sched.h"

/* Tolerant: a field that cannot be read counts as not given (the API server has validated it). Never NULL. */
struct sched_node *sched_load_node(const json_t *node);
struct sched_pod *sched_load_pod(const json_t *pod);
/* labels of a Namespace, with kubernetes.io/metadata.name */
struct sched_labels sched_load_namespace(const json_t *ns, struct sched_arena *mem);
/* Succeeded or Failed: uses nothing any more. */
bool sched_load_pod_finished(const json_t *pod);
