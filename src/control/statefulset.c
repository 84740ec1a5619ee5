/* SPDX-License-Identifier: Apache-2.0 */
/* StatefulSet: pods with stable names NAME-0 .. NAME-(n-1). The name makes a pod of an ordinal unique: the API refuses a
 * second one, and one on a dead node is only removed when it is fenced (evict.c), so no ordinal ever runs twice.
 *
 * OrderedReady: an ordinal is made when all lower ones are available, removed when all higher ones are gone. Parallel:
 * all at once. A rolling update goes from the highest ordinal down to the partition, one at a time, waiting for each to
 * be available; a pod that is both outdated and broken is replaced without waiting (Kubernetes gets stuck there).
 *
 * Claims of volumeClaimTemplates: set_claims.c.
 *
 * A revision is a hash of the template (label controller-revision-hash); there are no ControllerRevision objects, so
 * a pod below the partition that must be made anew gets the current template, and `kubectl rollout undo` of a
 * StatefulSet is not offered. */
#include "control/reconcile.h"

#define REVISION_LABEL "controller-revision-hash"
#define REPLICAS_MAX   10000

struct set {
	const struct world *w;
	json_t *s;
	struct plan *p;
	int64_t start, replicas, min_ready_s, partition;
	bool parallel, on_delete;
	char revision[64];  /* a label value */
	json_t **pods;	    /* by ordinal - start; NULL = none */
	json_t **condemned; /* ordinals outside, highest first, NULL-terminated */
	size_t n_condemned;
	int64_t again_ms;
};

static bool available(struct set *s, const json_t *pod)
{
	return !obj_deleting(pod) && pod_is_running_ready(pod) &&
	       pod_is_available(pod, s->min_ready_s, s->p->now_us, &s->again_ms);
}

static bool updated(const struct set *s, const json_t *pod)
{
	return streq(obj_label(pod, REVISION_LABEL), s->revision);
}

static int64_t ordinal_of(const struct set *s, const json_t *pod)
{
	const char *name = obj_name(pod), *base = obj_name(s->s);
	size_t len = strlen(base);
	int64_t n;

	if (!str_starts(name, base) || name[len] != '-' || str_i64(name + len + 1, &n) < 0 || n < 0)
		return -1;
	return n;
}

static void create(struct set *s, int64_t ordinal)
{
	char *name = xasprintf("%s-%lld", obj_name(s->s), (long long)ordinal), index[24];
	json_t *pod, *labels;

	if (!set_claims_make(s->w, s->s, ordinal, s->p)) {
		free(name);
		return;
	}
	plan_event(s->p, s->s, "Normal", "SuccessfulCreate", "create Pod %s in StatefulSet %s successful",
		   name, obj_name(s->s));
	snprintf(index, sizeof(index), "%lld", (long long)ordinal);
	pod = pod_object_new(js_get(s->s, "spec.template"), s->s, K_STATEFULSET, name);
	labels = js_object(pod, "metadata.labels");
	json_object_set_new(labels, "statefulset.kubernetes.io/pod-name", json_string(obj_name(pod)));
	json_object_set_new(labels, "apps.kubernetes.io/pod-index", json_string(index));
	json_object_set_new(labels, REVISION_LABEL, json_string(s->revision));
	js_set_new(pod, "spec.hostname", json_string(obj_name(pod)));
	if (js_str(s->s, "spec.serviceName"))
		js_set_new(pod, "spec.subdomain", json_string(js_str(s->s, "spec.serviceName")));
	set_claims_mount(s->s, pod, ordinal);
	plan_create(s->p, K_POD, pod);
}

static void delete (struct set *s, json_t *pod, const char *why)
{
	plan_event(s->p, s->s, "Normal", "SuccessfulDelete", "delete Pod %s in StatefulSet %s: %s",
		   obj_name(pod), obj_name(s->s), why);
	plan_delete(s->p, K_POD, pod, -1);
}

static int highest_first(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	size_t lx = strlen(obj_name(x)), ly = strlen(obj_name(y));

	return lx != ly ? (lx > ly ? -1 : 1)
			: -strcmp(obj_name(x), obj_name(y)); /* same base: longer is higher */
}

static void sort_pods(struct set *s)
{
	_cleanup_free_ json_t **all = world_list(s->w, K_POD, obj_ns(s->s), obj_uid(s->s));
	size_t n = 0;

	while (all[n])
		n++;
	s->pods = xcalloc((size_t)s->replicas + 1, sizeof(*s->pods));
	s->condemned = xcalloc(n + 1, sizeof(*s->condemned));
	for (size_t i = 0; i < n; i++) {
		int64_t at = ordinal_of(s, all[i]);

		if (at >= s->start && at < s->start + s->replicas)
			s->pods[at - s->start] = all[i];
		else if (at >= 0)
			s->condemned[s->n_condemned++] = all[i];
	}
	qsort(s->condemned, s->n_condemned, sizeof(*s->condemned), highest_first);
}

/* Makes what is missing; false when a lower ordinal has to come first. */
static bool fill(struct set *s)
{
	bool complete = true;

	for (int64_t i = 0; i < s->replicas; i++) {
		json_t *pod = s->pods[i];

		if (!pod) {
			create(s, s->start + i);
		} else if (pod_is_finished(pod) && !obj_deleting(pod)) {
			plan_event(s->p, s->s, "Warning", "RecreatingFailedPod",
				   "StatefulSet %s recreates %s", obj_name(s->s), obj_name(pod));
			plan_delete(s->p, K_POD, pod, -1);
		} else if (available(s, pod)) {
			continue;
		} else if (!*js_str_or(pod, "spec.nodeName", "") && !obj_deleting(pod)) {
			set_claims_make(s->w, s->s, s->start + i,
					s->p); /* deleted by hand: it waits for them */
		}
		complete = false;
		if (!s->parallel)
			return false;
	}
	return complete || s->parallel;
}

/* Removes ordinals beyond the count, the highest first. */
static bool condemn(struct set *s)
{
	for (size_t i = 0; i < s->n_condemned; i++) {
		if (!obj_deleting(s->condemned[i]))
			delete (s, s->condemned[i], "scaled down");
		if (!s->parallel)
			return false;
	}
	return s->n_condemned == 0;
}

/* One at a time, and only while all work: a second one must not go while one is missing. */
static void update(struct set *s)
{
	for (int64_t i = 0; i < s->replicas; i++)
		if (!s->pods[i] || !available(s, s->pods[i]))
			return;
	for (int64_t i = s->replicas - 1; i >= 0 && s->start + i >= s->partition; i--) {
		if (updated(s, s->pods[i]))
			continue;
		delete (s, s->pods[i], "update");
		return;
	}
}

/* Outdated pods that do not work are replaced out of order: nothing is lost, and a bad revision can be repaired. */
static void replace_broken(struct set *s)
{
	for (int64_t i = s->replicas - 1; i >= 0 && s->start + i >= s->partition; i--) {
		json_t *pod = s->pods[i];
		const char *phase = pod ? js_str_or(pod, "status.phase", "Pending") : "";

		if (!pod || obj_deleting(pod) || updated(s, pod) || available(s, pod))
			continue;
		/* One that is starting may still become ready; only one that has been there for a while is broken. */
		if (streq(phase, "Running") &&
		    s->p->now_us - obj_time_us(pod, "metadata.creationTimestamp") < 30 * 1000000LL) {
			plan_again(s->p, 5000);
			continue;
		}
		delete (s, pod, "update of a pod that does not work");
		return;
	}
}

static void set_status(struct set *s)
{
	int64_t replicas = 0, ready = 0, avail = 0, current = 0, new = 0;
	const char *was = js_str(s->s, "status.currentRevision");
	json_t *st = json_object(), *conditions = js_get(s->s, "status.conditions");
	const char *current_revision = was ? was : s->revision;

	for (int64_t i = 0; i < s->replicas + (int64_t)s->n_condemned; i++) {
		const json_t *pod = i < s->replicas ? s->pods[i] : s->condemned[i - s->replicas];

		if (!pod || pod_is_finished(pod))
			continue;
		replicas++;
		ready += pod_is_running_ready(pod);
		avail += available(s, pod);
		if (obj_deleting(pod))
			continue;
		current += streq(obj_label(pod, REVISION_LABEL), current_revision);
		new += updated(s, pod);
	}
	if (!streq(current_revision, s->revision) && new == s->replicas &&
	    ready == s->replicas &&replicas == s->replicas) {
		current_revision = s->revision; /* the update is complete */
		current = new;
	}
	json_object_set_new(st, "observedGeneration", json_integer(js_int(s->s, "metadata.generation", 0)));
	json_object_set_new(st, "replicas", json_integer(replicas));
	json_object_set_new(st, "readyReplicas", json_integer(ready));
	json_object_set_new(st, "availableReplicas", json_integer(avail));
	json_object_set_new(st, "currentReplicas", json_integer(current));
	json_object_set_new(st, "updatedReplicas", json_integer(new));
	json_object_set_new(st, "currentRevision", json_string(current_revision));
	json_object_set_new(st, "updateRevision", json_string(s->revision));
	json_object_set_new(st, "collisionCount", json_integer(js_int(s->s, "status.collisionCount", 0)));
	if (conditions)
		json_object_set_new(st, "conditions", json_deep_copy(conditions));
	plan_status(s->p, K_STATEFULSET, s->s, st);
}

void statefulset_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p)
{
	json_t *obj = world_get(w, K_STATEFULSET, ns, name);
	struct set s = {.w = w, .s = obj, .p = p, .again_ms = -1};
	char hash[11];

	if (!obj)
		return;
	s.start = js_int(obj, "spec.ordinals.start", 0);
	s.replicas = CLAMP(js_int(obj, "spec.replicas", 1), 0, REPLICAS_MAX);
	s.min_ready_s = js_int(obj, "spec.minReadySeconds", 0);
	s.partition = js_int(obj, "spec.updateStrategy.rollingUpdate.partition", 0);
	s.parallel = streq(js_str(obj, "spec.podManagementPolicy"), "Parallel");
	s.on_delete = streq(js_str(obj, "spec.updateStrategy.type"), "OnDelete");
	json_hash(js_get(obj, "spec.template"), 0, hash);
	snprintf(s.revision, sizeof(s.revision), "%.52s-%s", name, hash);
	sort_pods(&s);
	if (!obj_deleting(obj)) {
		bool filled = fill(&s);

		if (filled && condemn(&s) && !s.on_delete)
			update(&s);
		if (!s.on_delete && p->n == 0)
			replace_broken(&s);
		set_claims_keep(w, obj, s.start, s.replicas, p);
	}
	set_status(&s);
	if (s.again_ms >= 0)
		plan_again(p, s.again_ms);
	free(s.pods);
	free(s.condemned);
}
