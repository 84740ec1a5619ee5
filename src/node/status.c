/* SPDX-License-Identifier: Apache-2.0 */
/* status of a pod, computed from its containers. Pure: reads the structures, changes nothing. After the Kubernetes API reference, Pod v1
 * (phase, conditions, container states) and the pod lifecycle page. */
#include "node/agent.h"

#include "model/model.h"

bool pod_restarts(const struct pod *p, const struct container *c)
{
	const char *policy = js_str_or(p->obj, "spec.restartPolicy", "Always");

	if (p->deleting || p->vanished)
		return false;
	if (c->init)
		return c->exit_code != 0 && !streq(policy, "Never");
	return streq(policy, "Always") || (streq(policy, "OnFailure") && c->exit_code != 0);
}

static bool init_done(const struct pod *p)
{
	for (size_t i = 0; i < p->n_init; i++)
		if (p->c[i]->state != CONTAINER_EXITED || p->c[i]->exit_code != 0)
			return false;
	return true;
}

const char *pod_phase(const struct pod *p)
{
	size_t ended = 0, failed = 0, begun = 0;

	for (size_t i = 0; i < p->n_init; i++)
		if (p->c[i]->state == CONTAINER_EXITED && p->c[i]->exit_code != 0 &&
		    !pod_restarts(p, p->c[i]))
			return p->deleting && p->c[i]->attempt < 0 ? "Pending" : "Failed";
	for (size_t i = p->n_init; i < p->n; i++) {
		const struct container *c = p->c[i];
		bool over = c->state == CONTAINER_EXITED && !pod_restarts(p, c);

		ended += over;
		failed += over && c->exit_code != 0;
		begun += c->state == CONTAINER_RUNNING || c->state == CONTAINER_EXITED || c->attempt > 0;
	}
	if (ended == p->n - p->n_init && p->n > p->n_init)
		return failed ? "Failed" : "Succeeded";
	return init_done(p) && begun > 0 ? "Running" : "Pending";
}

static bool containers_ready(const struct pod *p)
{
	for (size_t i = p->n_init; i < p->n; i++)
		if (p->c[i]->state != CONTAINER_RUNNING || !p->c[i]->ready)
			return false;
	return p->n > p->n_init;
}

bool pod_ready(const struct pod *p)
{
	return containers_ready(p) && !p->deleting;
}

/* Sums requests or limits; *all is cleared when a container lacks one. */
static bool same_for(const json_t *c, const char *resource, bool *any)
{
	json_t *req = json_object_get(js_get(c, "resources.requests"), resource);
	json_t *lim = json_object_get(js_get(c, "resources.limits"), resource);
	int64_t r = 0, l = 0;

	if (req || lim)
		*any = true;
	if (!lim || model_quantity_json(lim, &l) < 0)
		return false;
	return !req || (model_quantity_json(req, &r) == 0 && r == l);
}

const char *pod_status_qos(const json_t *pod)
{
	static const char *const lists[] = {"spec.containers", "spec.initContainers"};
	bool guaranteed = true, any = false;

	for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
		json_t *c;
		size_t i;

		json_array_foreach (js_get(pod, lists[l]), i, c) {
			bool cpu = same_for(c, "cpu", &any), memory = same_for(c, "memory", &any);

			guaranteed = guaranteed && cpu && memory;
		}
	}
	return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

/* ---- container statuses ---- */

static json_t *waiting_new(const char *reason, const char *message)
{
	json_t *w = json_pack("{s:s}", "reason", reason);

	if (message)
		json_object_set_new(w, "message", json_string(message));
	return json_pack("{s:o}", "waiting", w);
}

static json_t *state_new(const struct pod *p, const struct container *c)
{
	char when[CLOCK_TEXT_MAX];

	switch (c->state) {
	case CONTAINER_RUNNING:
		return json_pack("{s:{s:s}}", "running", "startedAt", clock_text(when, c->started_us, 0));
	case CONTAINER_EXITED:
		if (!pod_restarts(p, c))
			return json_pack("{s:o}", "terminated", container_terminated_new(c));
		return waiting_new("CrashLoopBackOff", "back-off restarting failed container");
	default:
		if (p->setup_reason)
			return waiting_new(p->setup_reason, p->setup_message);
		return waiting_new(c->reason ? c->reason : "ContainerCreating", c->message);
	}
}

static json_t *container_status_new(const struct pod *p, const struct container *c)
{
	json_t *s = json_pack("{s:s,s:s,s:s,s:b,s:I,s:o}", "name", c->name, "image",
			      c->image_ref ? c->image_ref : js_str_or(container_spec(c), "image", ""),
			      "imageID", c->image_id ? c->image_id : "", "ready",
			      c->init ? c->state == CONTAINER_EXITED && c->exit_code == 0
				      : c->ready && c->state == CONTAINER_RUNNING,
			      "restartCount", (json_int_t)c->restarts, "state", state_new(p, c));

	json_object_set_new(s, "started", json_boolean(c->state == CONTAINER_RUNNING && c->started));
	if (c->id && c->attempt >= 0) {
		_cleanup_free_ char *id = xasprintf("kuayu://%s", c->id);

		json_object_set_new(s, "containerID", json_string(id));
	}
	if (c->state == CONTAINER_EXITED && pod_restarts(p, c))
		json_object_set_new(s, "lastState",
				    json_pack("{s:o}", "terminated", container_terminated_new(c)));
	else if (c->last_state)
		json_object_set(s, "lastState", c->last_state);
	else
		json_object_set_new(s, "lastState", json_object());
	return s;
}

/* ---- conditions ---- */

static const json_t *old_condition(const json_t *conditions, const char *type)
{
	json_t *c;
	size_t i;

	json_array_foreach ((json_t *)conditions, i, c)
		if (streq(js_str(c, "type"), type))
			return c;
	return NULL;
}

static const json_t *old_conditions(const struct pod *p)
{
	const json_t *c = json_object_get(p->status, "conditions");

	return c ? c : js_get(p->obj, "status.conditions");
}

static void add_condition(json_t *list, const struct pod *p, const char *type, bool is, const char *reason,
			  const char *message, int64_t now_us)
{
	const json_t *old = old_condition(old_conditions(p), type);
	const char *status = is ? "True" : "False";
	char when[CLOCK_TEXT_MAX];
	json_t *c = json_pack("{s:s,s:s,s:n}", "type", type, "status", status, "lastProbeTime");

	if (old && streq(js_str(old, "status"), status) && js_str(old, "lastTransitionTime"))
		json_object_set(c, "lastTransitionTime", json_object_get(old, "lastTransitionTime"));
	else
		json_object_set_new(c, "lastTransitionTime", json_string(clock_text(when, now_us, 0)));
	if (!is && reason)
		json_object_set_new(c, "reason", json_string(reason));
	if (!is && message)
		json_object_set_new(c, "message", json_string(message));
	json_array_append_new(list, c);
}

/* "containers with unready status: [a b]" */
static char *unready_text(const struct pod *p)
{
	_cleanup_buf_ struct buf b = {0};

	(void)buf_adds(&b, "containers with unready status: [");
	for (size_t i = p->n_init, k = 0; i < p->n; i++)
		if (p->c[i]->state != CONTAINER_RUNNING || !p->c[i]->ready)
			(void)buf_addf(&b, "%s%s", k++ ? " " : "", p->c[i]->name);
	(void)buf_adds(&b, "]");
	return buf_take(&b);
}

static json_t *conditions_new(const struct pod *p, const char *phase, int64_t now_us)
{
	static const char *const own[] = {"Initialized", "ContainersReady", "Ready", "PodScheduled"};
	bool over = streq(phase, "Succeeded") || streq(phase, "Failed");
	const char *why = streq(phase, "Succeeded") ? "PodCompleted"
			  : over		    ? "PodFailed"
						    : "ContainersNotReady";
	_cleanup_free_ char *unready = over ? NULL : unready_text(p);
	json_t *list = json_array(), *c;
	size_t i;

	add_condition(list, p, "Initialized", init_done(p), "ContainersNotInitialized", NULL, now_us);
	add_condition(list, p, "Ready", pod_ready(p) && !over, why, unready, now_us);
	add_condition(list, p, "ContainersReady", containers_ready(p) && !over, why, unready, now_us);
	add_condition(list, p, "PodScheduled", true, NULL, NULL, now_us);
	/* Others' conditions stay. */
	json_array_foreach (js_get(p->obj, "status.conditions"), i, c) {
		bool ours = false;

		for (size_t k = 0; k < ARRAY_SIZE(own); k++)
			ours = ours || streq(js_str(c, "type"), own[k]);
		if (!ours)
			json_array_append(list, c);
	}
	return list;
}

json_t *pod_status_new(const struct pod *p, int64_t now_us)
{
	const char *phase = pod_phase(p);
	char when[CLOCK_TEXT_MAX];
	json_t *inits = json_array(), *apps = json_array();
	json_t *s = json_pack("{s:s,s:s,s:s,s:s,s:o}", "phase", phase, "qosClass", pod_status_qos(p->obj),
			      "hostIP", p->a->s.address, "startTime", clock_text(when, p->start_us, 0),
			      "conditions", conditions_new(p, phase, now_us));

	for (size_t i = 0; i < p->n; i++)
		json_array_append_new(i < p->n_init ? inits : apps, container_status_new(p, p->c[i]));
	if (p->n_init)
		json_object_set(s, "initContainerStatuses", inits);
	json_object_set(s, "containerStatuses", apps);
	json_decref(inits);
	json_decref(apps);
	if (p->ip) {
		json_object_set_new(s, "podIP", json_string(p->ip));
		json_object_set_new(s, "podIPs", json_pack("[{s:s}]", "ip", p->ip));
	}
	return s;
}
