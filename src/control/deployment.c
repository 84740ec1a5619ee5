/* SPDX-License-Identifier: Apache-2.0 */
/* Deployment: one ReplicaSet a template. Finds the set of the current template or makes it, numbers revisions as kubectl
 * wants them (annotation deployment.kubernetes.io/revision; `kubectl rollout undo` writes an old set's template back,
 * which finds that set again and gives it the next number), and drops old sets beyond revisionHistoryLimit. How pods
 * move from old sets to the new one is in rollout.c, what is reported in rollout_status.c. */
#include "control/reconcile.h"

#define REVISION	 "deployment.kubernetes.io/revision"
#define DESIRED_REPLICAS "deployment.kubernetes.io/desired-replicas"
#define MAX_REPLICAS	 "deployment.kubernetes.io/max-replicas"
#define HASH_LABEL	 "pod-template-hash"

static int64_t revision_of(const json_t *o)
{
	const char *text = obj_annotation(o, REVISION);
	int64_t n;

	return text && str_i64(text, &n) == 0 ? n : 0;
}

/* Is the set's template the deployment's, the hash label aside? */
static bool same_template(const json_t *rs, const json_t *template)
{
	_cleanup_json_ json_t *t = json_deep_copy(js_get(rs, "spec.template"));
	json_t *labels = t ? js_get(t, "metadata.labels") : NULL;

	if (labels)
		json_object_del(labels, HASH_LABEL);
	return t && json_equal(t, template);
}

static int by_age(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	int64_t tx = obj_time_us(x, "metadata.creationTimestamp"),
		ty = obj_time_us(y, "metadata.creationTimestamp");

	return tx < ty ? -1 : tx > ty ? 1 : strcmp(obj_name(x), obj_name(y));
}

/* "25%" or a number; percentages are rounded up for surge, down for unavailable. */
static int64_t share(const json_t *v, int64_t otherwise, int64_t total, bool up)
{
	const char *text = json_string_value(v);
	int64_t n;
	_cleanup_free_ char *digits = NULL;

	if (json_is_integer(v))
		return MAX(0, json_integer_value(v));
	if (!text || !str_ends(text, "%"))
		return otherwise;
	digits = xstrndup(text, strlen(text) - 1);
	if (str_i64(digits, &n) < 0 || n < 0 || n > 1000)
		return otherwise;
	return up ? (total * n + 99) / 100 : total * n / 100;
}

static void read_limits(struct rollout *r)
{
	const json_t *rolling = js_get(r->d, "spec.strategy.rollingUpdate");
	int64_t quarter_up, quarter_down;

	r->replicas = js_int(r->d, "spec.replicas", 1);
	quarter_up = (r->replicas + 3) / 4;
	quarter_down = r->replicas / 4;
	if (streq(js_str(r->d, "spec.strategy.type"), "Recreate"))
		return;
	r->surge = share(json_object_get(rolling, "maxSurge"), quarter_up, r->replicas, true);
	r->unavailable = share(json_object_get(rolling, "maxUnavailable"), quarter_down, r->replicas, false);
	if (!r->surge && !r->unavailable)
		r->unavailable = 1;
	r->unavailable = MIN(r->unavailable, r->replicas);
}

static bool copied_annotation(const char *key)
{
	return !streq(key, "kubectl.kubernetes.io/last-applied-configuration") && !streq(key, REVISION) &&
	       !streq(key, "deployment.kubernetes.io/revision-history") && !streq(key, DESIRED_REPLICAS) &&
	       !streq(key, MAX_REPLICAS);
}

/* The annotations a set should have, on top of those it has. */
static json_t *set_annotations(const struct rollout *r, const json_t *rs, int64_t revision)
{
	json_t *out = rs && js_get(rs, "metadata.annotations") ? json_copy(js_get(rs, "metadata.annotations"))
							       : json_object();
	const char *key;
	json_t *value;
	char text[24];

	json_object_foreach (js_get(r->d, "metadata.annotations"), key, value)
		if (copied_annotation(key))
			json_object_set(out, key, value);
	snprintf(text, sizeof(text), "%lld", (long long)revision);
	json_object_set_new(out, REVISION, json_string(text));
	snprintf(text, sizeof(text), "%lld", (long long)r->replicas);
	json_object_set_new(out, DESIRED_REPLICAS, json_string(text));
	snprintf(text, sizeof(text), "%lld", (long long)(r->replicas + r->surge));
	json_object_set_new(out, MAX_REPLICAS, json_string(text));
	return out;
}

static int64_t first_size(const struct rollout *r)
{
	int64_t room = r->replicas + r->surge - rollout_sum(r, "spec.replicas", false);

	if (streq(js_str(r->d, "spec.strategy.type"), "Recreate"))
		return r->replicas;
	return CLAMP(room, 0, r->replicas);
}

static void create_set(struct rollout *r, int64_t revision, int64_t *collisions)
{
	const json_t *template = js_get(r->d, "spec.template");
	_cleanup_free_ char *name = NULL;
	json_t *rs, *t, *labels, *selector;
	char hash[11];

	json_hash(template, (uint32_t)*collisions, hash);
	name = xasprintf("%.200s-%s", obj_name(r->d), hash);
	if (world_get(r->w, K_REPLICASET, obj_ns(r->d), name)) { /* another one's, or being deleted */
		++*collisions;
		plan_again(r->p, 100);
		return;
	}
	t = json_deep_copy(template);
	js_set_new(t, "metadata.labels." HASH_LABEL, json_string(hash));
	labels = json_deep_copy(js_get(t, "metadata.labels"));
	selector = json_deep_copy(js_get(r->d, "spec.selector"));
	js_set_new(selector, "matchLabels." HASH_LABEL, json_string(hash));
	rs = json_pack("{s:s, s:s, s:{s:s, s:s, s:o, s:o, s:[o]}, s:{s:I, s:I, s:o, s:o}}", "apiVersion",
		       "apps/v1", "kind", "ReplicaSet", "metadata", "name", name, "namespace", obj_ns(r->d),
		       "labels", labels, "annotations", set_annotations(r, NULL, revision), "ownerReferences",
		       owner_ref_new(r->d, K_DEPLOYMENT, true), "spec", "replicas", (json_int_t)first_size(r),
		       "minReadySeconds", (json_int_t)js_int(r->d, "spec.minReadySeconds", 0), "selector",
		       selector, "template", t);
	ensure(rs);
	plan_event(r->p, r->d, "Normal", "ScalingReplicaSet", "Scaled up replica set %s to %lld", name,
		   (long long)first_size(r));
	plan_create(r->p, K_REPLICASET, rs);
	r->news = "NewReplicaSetCreated";
}

static void keep_annotation(json_t *annotations, const json_t *rs, const char *key)
{
	const char *was = obj_annotation(rs, key);

	if (was)
		json_object_set_new(annotations, key, json_string(was));
}

/* Revision and annotations of the current set and of the deployment; true when something is written. */
static bool number_revision(struct rollout *r, int64_t revision)
{
	int64_t now = revision_of(r->newest);
	json_t *want = set_annotations(r, r->newest, MAX(revision, now));
	char text[24];

	if (now < revision)
		r->news = "FoundNewReplicaSet";
	/* Scaling writes the counts itself, when it has scaled. */
	keep_annotation(want, r->newest, DESIRED_REPLICAS);
	keep_annotation(want, r->newest, MAX_REPLICAS);
	if (!json_equal(want, js_get(r->newest, "metadata.annotations")) ||
	    js_int(r->newest, "spec.minReadySeconds", 0) != js_int(r->d, "spec.minReadySeconds", 0)) {
		plan_patch(r->p, ACTION_PATCH_MERGE, K_REPLICASET, NULL, r->newest,
			   json_pack("{s:{s:s, s:o}, s:{s:I}}", "metadata", "resourceVersion",
				     js_str_or(r->newest, "metadata.resourceVersion", ""), "annotations",
				     want, "spec", "minReadySeconds",
				     (json_int_t)js_int(r->d, "spec.minReadySeconds", 0)));
		return true;
	}
	json_decref(want);
	snprintf(text, sizeof(text), "%lld", (long long)now);
	if (streq(obj_annotation(r->d, REVISION), text))
		return false;
	plan_patch(r->p, ACTION_PATCH_MERGE, K_DEPLOYMENT, NULL, r->d,
		   json_pack("{s:{s:{s:s}}}", "metadata", "annotations", REVISION, text));
	return true;
}

static void drop_history(struct rollout *r)
{
	int64_t limit = js_int(r->d, "spec.revisionHistoryLimit", 10), old = 0;

	for (size_t i = 0; i < r->n; i++)
		old += r->sets[i] != r->newest;
	while (old > limit) {
		json_t *oldest = NULL;

		for (size_t i = 0; i < r->n; i++) {
			json_t *rs = r->sets[i];

			if (!rs || rs == r->newest)
				continue;
			if (!oldest || revision_of(rs) < revision_of(oldest))
				oldest = rs;
		}
		old--;
		for (size_t i = 0; i < r->n; i++)
			if (r->sets[i] == oldest)
				r->sets[i] = r->sets[--r->n];
		if (oldest && !obj_deleting(oldest) && js_int(oldest, "spec.replicas", 0) == 0 &&
		    js_int(oldest, "status.replicas", 0) == 0)
			plan_delete(r->p, K_REPLICASET, oldest, -1);
	}
}

static void adopt(const struct world *w, json_t *d, struct plan *p)
{
	_cleanup_free_ json_t **sets = world_list(w, K_REPLICASET, obj_ns(d), NULL);

	for (size_t i = 0; sets[i]; i++) {
		json_t *refs = js_get(sets[i], "metadata.ownerReferences");

		if (obj_controller(sets[i]) || obj_deleting(sets[i]) ||
		    !model_labels_match(js_get(d, "spec.selector"), js_get(sets[i], "metadata.labels")))
			continue;
		refs = refs ? json_deep_copy(refs) : json_array();
		json_array_append_new(refs, owner_ref_new(d, K_DEPLOYMENT, true));
		plan_patch(p, ACTION_PATCH_MERGE, K_REPLICASET, NULL, sets[i],
			   json_pack("{s:{s:s, s:o}}", "metadata", "uid", obj_uid(sets[i]), "ownerReferences",
				     refs));
	}
}

/* Were replicas changed since the sets were last sized? */
static bool scaling(const struct rollout *r)
{
	for (size_t i = 0; i < r->n; i++) {
		const char *text = obj_annotation(r->sets[i], DESIRED_REPLICAS);
		int64_t desired;

		if (js_int(r->sets[i], "spec.replicas", 0) > 0 && text && str_i64(text, &desired) == 0 &&
		    desired != r->replicas)
			return true;
	}
	return false;
}

static void steer(struct rollout *r, int64_t *collisions)
{
	const json_t *template = js_get(r->d, "spec.template");
	bool paused = js_bool(r->d, "spec.paused", false);
	bool recreate = streq(js_str(r->d, "spec.strategy.type"), "Recreate");
	int64_t revision = 0;

	for (size_t i = 0; i < r->n && !r->newest; i++) /* the oldest that fits, as in Kubernetes */
		if (!obj_deleting(r->sets[i]) && same_template(r->sets[i], template))
			r->newest = r->sets[i];
	for (size_t i = 0; i < r->n; i++)
		if (r->sets[i] != r->newest)
			revision = MAX(revision, revision_of(r->sets[i]));
	if (r->newest && number_revision(r, revision + 1))
		return;
	if (paused || scaling(r)) {
		if (rollout_scale(r) || paused)
			return;
	}
	if (recreate)
		rollout_recreate(r);
	if (!r->newest && (!recreate || rollout_sum(r, "spec.replicas", true) == 0)) {
		if (r->p->again_ms < 0) /* a recreation still waits for old pods */
			create_set(r, revision + 1, collisions);
		return;
	}
	if (!recreate)
		rollout_rolling(r);
	if (rollout_complete(r))
		drop_history(r);
}

void deployment_reconcile(const struct world *w, const char *ns, const char *name, struct plan *p)
{
	json_t *d = world_get(w, K_DEPLOYMENT, ns, name);
	_cleanup_free_ json_t **sets = NULL;
	struct rollout r = {.w = w, .d = d, .p = p};
	int64_t collisions;

	if (!d)
		return;
	sets = world_list(w, K_REPLICASET, ns, obj_uid(d));
	while (sets[r.n])
		r.n++;
	qsort(sets, r.n, sizeof(*sets), by_age);
	r.sets = sets;
	read_limits(&r);
	collisions = js_int(d, "status.collisionCount", 0);
	if (!obj_deleting(d)) {
		adopt(w, d, p);
		if (p->n)
			return;
		steer(&r, &collisions);
	}
	rollout_status(&r, collisions);
}
