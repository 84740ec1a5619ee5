/* SPDX-License-Identifier: Apache-2.0 */
/* What a Deployment reports: counts, the condition Available, and the condition Progressing, which `kubectl rollout
 * status` and progressDeadlineSeconds live by. Reasons and texts are Kubernetes'. */
#include "control/reconcile.h"

bool rollout_complete(const struct rollout *r)
{
	return r->newest && js_int(r->newest, "status.replicas", 0) == r->replicas &&
	       rollout_sum(r, "status.replicas", false) == r->replicas &&
	       rollout_sum(r, "status.availableReplicas", false) == r->replicas &&
	       js_int(r->newest, "status.observedGeneration", 0) >=
		       js_int(r->newest, "metadata.generation", 0);
}

static json_t *counts(const struct rollout *r, int64_t collisions)
{
	int64_t available = rollout_sum(r, "status.availableReplicas", false);
	int64_t wanted = rollout_sum(r, "spec.replicas", false);
	json_t *s = json_object(), *conditions = js_get(r->d, "status.conditions");

	json_object_set_new(s, "observedGeneration", json_integer(js_int(r->d, "metadata.generation", 0)));
	json_object_set_new(s, "replicas", json_integer(rollout_sum(r, "status.replicas", false)));
	json_object_set_new(s, "updatedReplicas",
			    json_integer(r->newest ? js_int(r->newest, "status.replicas", 0) : 0));
	json_object_set_new(s, "readyReplicas", json_integer(rollout_sum(r, "status.readyReplicas", false)));
	json_object_set_new(s, "availableReplicas", json_integer(available));
	json_object_set_new(s, "unavailableReplicas", json_integer(MAX(0, wanted - available)));
	if (collisions)
		json_object_set_new(s, "collisionCount", json_integer(collisions));
	if (conditions)
		json_object_set_new(s, "conditions", json_deep_copy(conditions));
	return s;
}

static const json_t *condition(const json_t *status, const char *type)
{
	json_t *c;
	size_t i;

	json_array_foreach (js_get(status, "conditions"), i, c)
		if (streq(js_str(c, "type"), type))
			return c;
	return NULL;
}

static bool progressed(const struct rollout *r, const json_t *s)
{
	static const char *const more[] = {"updatedReplicas", "readyReplicas", "availableReplicas"};
	const json_t *old = json_object_get(r->d, "status");
	int64_t old_left = js_int(old, "replicas", 0) - js_int(old, "updatedReplicas", 0);

	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		if (js_int(s, more[i], 0) > js_int(old, more[i], 0))
			return true;
	return js_int(s, "replicas", 0) - js_int(s, "updatedReplicas", 0) < old_left;
}

static void touch(const struct plan *p, json_t *status, const char *type)
{
	json_t *c = (json_t *)condition(status, type);

	if (c)
		json_object_set_new(c, "lastUpdateTime", plan_time(p));
}

static void judge_progress(struct rollout *r, json_t *s)
{
	const json_t *now = condition(s, "Progressing");
	const char *reason = now ? js_str_or(now, "reason", "") : "",
		   *set = r->newest ? obj_name(r->newest) : "";
	int64_t deadline_s = js_int(r->d, "spec.progressDeadlineSeconds", 600), left_us;
	char text[400];

	if (js_bool(r->d, "spec.paused", false)) {
		status_condition(r->p, s, "Progressing", "Unknown", "DeploymentPaused",
				 "Deployment is paused");
		return;
	}
	if (streq(reason, "DeploymentPaused")) {
		status_condition(r->p, s, "Progressing", "Unknown", "DeploymentResumed",
				 "Deployment is resumed");
	} else if (r->news) {
		snprintf(text, sizeof(text),
			 streq(r->news, "FoundNewReplicaSet") ? "Found new replica set \"%s\""
							      : "Created new replica set%s",
			 streq(r->news, "FoundNewReplicaSet") ? set : "");
		status_condition(r->p, s, "Progressing", "True", r->news, text);
		touch(r->p, s, "Progressing");
	} else if (rollout_complete(r)) {
		snprintf(text, sizeof(text), "ReplicaSet \"%s\" has successfully progressed.", set);
		status_condition(r->p, s, "Progressing", "True", "NewReplicaSetAvailable", text);
	} else if (streq(reason, "NewReplicaSetAvailable") &&
		   js_int(s, "replicas", 0) == js_int(s, "updatedReplicas", 0)) {
		return; /* rolled out; what is missing now is no matter of progress */
	} else if (progressed(r, s) || !now || streq(reason, "NewReplicaSetAvailable")) {
		snprintf(text, sizeof(text), "%s \"%s\" is progressing.",
			 r->newest ? "ReplicaSet" : "Deployment", r->newest ? set : obj_name(r->d));
		status_condition(r->p, s, "Progressing", "True", "ReplicaSetUpdated", text);
		touch(r->p, s, "Progressing");
	} else if (!streq(reason, "ProgressDeadlineExceeded")) {
		left_us = obj_time_us(now, "lastUpdateTime") + deadline_s * 1000000 - r->p->now_us;
		if (left_us > 0) {
			plan_again(r->p, left_us / 1000 + 10);
			return;
		}
		snprintf(text, sizeof(text), "%s \"%s\" has timed out progressing.",
			 r->newest ? "ReplicaSet" : "Deployment", r->newest ? set : obj_name(r->d));
		status_condition(r->p, s, "Progressing", "False", "ProgressDeadlineExceeded", text);
	}
}

void rollout_status(struct rollout *r, int64_t collisions)
{
	json_t *s = counts(r, collisions);

	if (js_int(s, "availableReplicas", 0) >= r->replicas - r->unavailable)
		status_condition(r->p, s, "Available", "True", "MinimumReplicasAvailable",
				 "Deployment has minimum availability.");
	else
		status_condition(r->p, s, "Available", "False", "MinimumReplicasUnavailable",
				 "Deployment does not have minimum availability.");
	judge_progress(r, s);
	plan_status(r->p, K_DEPLOYMENT, r->d, s);
}
