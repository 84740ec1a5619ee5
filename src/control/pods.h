/* SPDX-License-Identifier: Apache-2.0 */
/* pods: what all controllers of pods ask of a pod. */
#pragma once

#include "control/plan.h"

#define UNREACHABLE_TAINT "node.kubernetes.io/unreachable"
#define NOT_READY_TAINT	  "node.kubernetes.io/not-ready"

bool pod_is_active(const json_t *pod); /* neither finished nor being deleted */
bool pod_is_finished(const json_t *pod);
bool pod_is_ready(const json_t *pod);
bool pod_is_running_ready(const json_t *pod);
/* Ready for min_ready_s; when only time is missing, *ret_in_ms says how much. */
bool pod_is_available(const json_t *pod, int64_t min_ready_s, int64_t now_us, int64_t *ret_in_ms);
/* Singletons are fenced before they are replaced. */
bool pod_is_singleton(const json_t *pod);
/* Seconds a NoExecute taint is tolerated: INT64_MAX = for ever; `otherwise` when no toleration matches. */
int64_t pod_toleration_s(const json_t *pod, const char *taint_key, const char *taint_value,
			 int64_t otherwise);
bool node_evicts(const json_t *node); /* has a NoExecute taint, whoever set it */
bool node_has_taint(const json_t *node, const char *key, const char *effect);
/* A pod out of a PodTemplateSpec, controlled by owner. name is taken over. */
json_t *pod_object_new(const json_t *template, const json_t *owner, enum kind owner_kind, char *name);
