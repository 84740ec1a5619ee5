/* SPDX-License-Identifier: Apache-2.0 */
/* How a Deployment moves its pods from old ReplicaSets to the new one. Invariants of a rolling update, held by every
 * single step: not more than replicas + maxSurge pods wanted in all, not fewer than replicas - maxUnavailable available.
 * Steps are sized from what is wanted (spec) and what is available (status), as in Kubernetes; a set is scaled by a merge
 * patch with its resourceVersion, so two steps from one state are impossible. */
#include "control/reconcile.h"

#define DESIRED_REPLICAS "deployment.kubernetes.io/desired-replicas"
#define MAX_REPLICAS	 "deployment.kubernetes.io/max-replicas"

int64_t rollout_sum(const struct rollout *r, const char *path, bool old_only)
{
	int64_t sum = 0;

	for (size_t i = 0; i < r->n; i++)
		if (!old_only || r->sets[i] != r->newest)
			sum += js_int(r->sets[i], path, 0);
	return sum;
}

/* A set that was just told to shrink still reports the pods that go. */
static int64_t available_of(const json_t *rs)
{
	return MIN(js_int(rs, "status.availableReplicas", 0), js_int(rs, "spec.replicas", 0));
}

void rollout_scale_set(struct rollout *r, json_t *rs, int64_t to)
{
	int64_t from = js_int(rs, "spec.replicas", 0);
	char desired[24], max[24];

	snprintf(desired, sizeof(desired), "%lld", (long long)r->replicas);
	snprintf(max, sizeof(max), "%lld", (long long)(r->replicas + r->surge));
	if (from == to && streq(obj_annotation(rs, DESIRED_REPLICAS), desired))
		return;
	if (from != to)
		plan_event(r->p, r->d, "Normal", "ScalingReplicaSet",
			   "Scaled %s replica set %s from %lld to %lld", to > from ? "up" : "down",
			   obj_name(rs), (long long)from, (long long)to);
	plan_patch(r->p, ACTION_PATCH_MERGE, K_REPLICASET, NULL, rs,
		   json_pack("{s:{s:s, s:{s:s, s:s}}, s:{s:I}}", "metadata", "resourceVersion",
			     js_str_or(rs, "metadata.resourceVersion", ""), "annotations", DESIRED_REPLICAS,
			     desired, MAX_REPLICAS, max, "spec", "replicas", (json_int_t)to));
}

/* ---- rolling update ---- */
static bool grow_newest(struct rollout *r)
{
	int64_t size = js_int(r->newest, "spec.replicas", 0), to = r->replicas;
	int64_t room = r->replicas + r->surge - rollout_sum(r, "spec.replicas", false);

	if (size == r->replicas)
		return false;
	if (size < r->replicas)
		to = size + CLAMP(room, 0, r->replicas - size);
	if (to == size)
		return false;
	rollout_scale_set(r, r->newest, to);
	return true;
}

/* Pods that are not available may go first: that takes nothing away. */
static bool shrink_unhealthy(struct rollout *r, int64_t allowed)
{
	bool done = false;

	for (size_t i = 0; i < r->n && allowed > 0; i++) {
		int64_t size = js_int(r->sets[i], "spec.replicas", 0), sick, by;

		if (r->sets[i] == r->newest || !size)
			continue;
		sick = size - available_of(r->sets[i]);
		by = MIN(sick, allowed);
		if (by <= 0)
			continue;
		rollout_scale_set(r, r->sets[i], size - by);
		allowed -= by;
		done = true;
	}
	return done;
}

static void shrink_old(struct rollout *r)
{
	int64_t total = rollout_sum(r, "spec.replicas", false), least = r->replicas - r->unavailable;
	int64_t new_missing = js_int(r->newest, "spec.replicas", 0) - available_of(r->newest);
	int64_t allowed = total - least - new_missing, spare = -least;

	if (allowed <= 0 || shrink_unhealthy(r, allowed))
		return;
	for (size_t i = 0; i < r->n; i++)
		spare += available_of(r->sets[i]);
	for (size_t i = 0; i < r->n && spare > 0; i++) {
		int64_t size = js_int(r->sets[i], "spec.replicas", 0), by = MIN(size, spare);

		if (r->sets[i] == r->newest || by <= 0)
			continue;
		rollout_scale_set(r, r->sets[i], size - by);
		spare -= by;
	}
}

void rollout_rolling(struct rollout *r)
{
	ensure(r->newest);
	if (!grow_newest(r) && rollout_sum(r, "spec.replicas", true) > 0)
		shrink_old(r);
}

/* ---- recreate ---- */
static bool old_pods_left(const struct rollout *r)
{
	for (size_t i = 0; i < r->n; i++) {
		_cleanup_free_ json_t **pods = NULL;

		if (r->sets[i] == r->newest)
			continue;
		pods = world_list(r->w, K_POD, obj_ns(r->d), obj_uid(r->sets[i]));
		for (size_t j = 0; pods[j]; j++)
			if (!pod_is_finished(pods[j]))
				return true;
	}
	return false;
}

void rollout_recreate(struct rollout *r)
{
	bool shrunk = false;

	for (size_t i = 0; i < r->n; i++)
		if (r->sets[i] != r->newest && js_int(r->sets[i], "spec.replicas", 0) > 0) {
			rollout_scale_set(r, r->sets[i], 0);
			shrunk = true;
		}
	if (shrunk || old_pods_left(r)) {
		plan_again(r->p, 1000); /* the end of a pod is an event; this is for the unforeseen */
		return;
	}
	if (r->newest && js_int(r->newest, "spec.replicas", 0) != r->replicas)
		rollout_scale_set(r, r->newest, r->replicas);
}

/* ---- scaling ---- */
static json_t *only_active(const struct rollout *r, size_t *ret_active)
{
	json_t *one = NULL;

	*ret_active = 0;
	for (size_t i = 0; i < r->n; i++)
		if (js_int(r->sets[i], "spec.replicas", 0) > 0) {
			++*ret_active;
			one = r->sets[i];
		}
	if (*ret_active == 0)
		return r->newest ? r->newest : r->n ? r->sets[r->n - 1] : NULL;
	return *ret_active == 1 ? one : NULL;
}

/* In the middle of an update: the difference is shared out in proportion to the sets' sizes, what is left by rounding
 * goes to the newest. */
static bool scale_in_proportion(struct rollout *r)
{
	int64_t total = rollout_sum(r, "spec.replicas", false);
	int64_t want = r->replicas > 0 ? r->replicas + r->surge : 0, left = want - total;
	size_t before = r->p->n;
	int64_t *to = xcalloc(r->n, sizeof(*to));

	for (size_t i = 0; i < r->n; i++) {
		int64_t size = js_int(r->sets[i], "spec.replicas", 0);
		int64_t part = total ? (want - total) * size / total : 0;

		to[i] = size + part;
		left -= part;
	}
	for (size_t i = r->n; i-- > 0 && left != 0;) {
		bool here =
			r->sets[i] == r->newest || (!r->newest && js_int(r->sets[i], "spec.replicas", 0) > 0);

		if (here) {
			int64_t by = MAX(left, -to[i]);

			to[i] += by;
			left -= by;
		}
	}
	for (size_t i = 0; i < r->n; i++)
		if (js_int(r->sets[i], "spec.replicas", 0) > 0)
			rollout_scale_set(r, r->sets[i], to[i]);
	free(to);
	return r->p->n > before;
}

bool rollout_scale(struct rollout *r)
{
	size_t active, before = r->p->n;
	json_t *one = only_active(r, &active);

	if (one) {
		rollout_scale_set(r, one, r->replicas);
		return r->p->n > before;
	}
	if (!r->n || streq(js_str(r->d, "spec.strategy.type"), "Recreate"))
		return false;
	return scale_in_proportion(r);
}
