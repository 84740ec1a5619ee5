/* SPDX-License-Identifier: Apache-2.0 */
/* kubectl get pods: READY and STATUS are worked out of the container states as Kubernetes' printer does. */
#include "model/table.h"

struct pod_view {
	char reason[128];
	int64_t ready, total, restarts;
	int64_t last_restart_us; /* 0 = never */
};

/* Counts restarts of a container and remembers the latest. */
static void count_restarts(struct pod_view *v, const json_t *c)
{
	const char *finished = js_str(c, "lastState.terminated.finishedAt");
	int64_t at;

	v->restarts += js_int(c, "restartCount", 0);
	if (finished && clock_parse(finished, &at) == 0)
		v->last_restart_us = MAX(v->last_restart_us, at);
}

static void reason_of_end(struct pod_view *v, const char *prefix, const json_t *terminated)
{
	const char *reason = js_str_or(terminated, "reason", "");
	int64_t sig = js_int(terminated, "signal", 0);

	if (*reason)
		snprintf(v->reason, sizeof(v->reason), "%s%s", prefix, reason);
	else if (sig)
		snprintf(v->reason, sizeof(v->reason), "%sSignal:%lld", prefix, (long long)sig);
	else
		snprintf(v->reason, sizeof(v->reason), "%sExitCode:%lld", prefix,
			 (long long)js_int(terminated, "exitCode", 0));
}

/* True while the init containers are not through. */
static bool init_containers(struct pod_view *v, const json_t *pod)
{
	json_t *list = js_get(pod, "status.initContainerStatuses"), *c;
	size_t i;

	json_array_foreach (list, i, c) {
		json_t *ended = js_get(c, "state.terminated");
		const char *waiting = js_str_or(c, "state.waiting.reason", "");

		count_restarts(v, c);
		if (ended && js_int(ended, "exitCode", 0) == 0)
			continue;
		if (ended)
			reason_of_end(v, "Init:", ended);
		else if (*waiting && !streq(waiting, "PodInitializing"))
			snprintf(v->reason, sizeof(v->reason), "Init:%s", waiting);
		else
			snprintf(v->reason, sizeof(v->reason), "Init:%zu/%zu", i,
				 json_array_size(js_get(pod, "spec.initContainers")));
		return true;
	}
	return false;
}

static bool condition_true(const json_t *pod, const char *type)
{
	json_t *c;
	size_t i;

	json_array_foreach (js_get(pod, "status.conditions"), i, c)
		if (streq(js_str(c, "type"), type))
			return streq(js_str(c, "status"), "True");
	return false;
}

static void containers(struct pod_view *v, const json_t *pod)
{
	json_t *list = js_get(pod, "status.containerStatuses");
	bool running = false;

	v->restarts = v->last_restart_us = 0;
	for (size_t i = json_array_size(list); i-- > 0;) {
		json_t *c = json_array_get(list, i), *ended = js_get(c, "state.terminated");
		const char *waiting = js_str_or(c, "state.waiting.reason", "");

		count_restarts(v, c);
		if (*waiting) {
			snprintf(v->reason, sizeof(v->reason), "%s", waiting);
		} else if (ended) {
			reason_of_end(v, "", ended);
		} else if (js_bool(c, "ready", false) && js_get(c, "state.running")) {
			running = true;
			v->ready++;
		}
	}
	if (running && streq(v->reason, "Completed"))
		strcpy(v->reason, condition_true(pod, "Ready") ? "Running" : "NotReady");
}

static void pod_view(struct pod_view *v, const json_t *pod)
{
	const char *phase = js_str_or(pod, "status.phase", ""), *reason = js_str_or(pod, "status.reason", "");
	bool initialising;

	snprintf(v->reason, sizeof(v->reason), "%s", *reason ? reason : phase);
	v->total = (int64_t)json_array_size(js_get(pod, "spec.containers"));
	initialising = init_containers(v, pod);
	if (!initialising || condition_true(pod, "Initialized"))
		containers(v, pod);
	if (!js_str(pod, "metadata.deletionTimestamp"))
		return;
	if (streq(reason, "NodeLost"))
		strcpy(v->reason, "Unknown");
	else if (!streq(phase, "Succeeded") && !streq(phase, "Failed"))
		strcpy(v->reason, "Terminating");
}

static void cells_pod(json_t *cells, const json_t *pod, int64_t now_us)
{
	struct pod_view v = {.ready = 0};
	char text[160], ago[AGE_MAX];

	pod_view(&v, pod);
	cell(cells, js_str(pod, "metadata.name"));
	snprintf(text, sizeof(text), "%lld/%lld", (long long)v.ready, (long long)v.total);
	cell(cells, text);
	cell(cells, v.reason);
	if (v.restarts && v.last_restart_us)
		snprintf(text, sizeof(text), "%lld (%s ago)", (long long)v.restarts,
			 age_text(ago, now_us - v.last_restart_us));
	else
		snprintf(text, sizeof(text), "%lld", (long long)v.restarts);
	cell(cells, text);
	cell_age(cells, pod, now_us);
	cell_or(cells, js_str(pod, "status.podIP"), "<none>");
	cell_or(cells, js_str(pod, "spec.nodeName"), "<none>");
	cell_or(cells, js_str(pod, "status.nominatedNodeName"), "<none>");
	cell(cells, "<none>");
}

const struct table table_pod = {
	"Pod",
	COLUMNS(COLUMN_NAME, {"Ready", "string", "", 0, "Ready containers of all."},
		{"Status", "string", "", 0, "State of the pod, or why it does not run."},
		{"Restarts", "string", "", 0, "How often its containers were restarted."}, COLUMN_AGE,
		{"IP", "string", "", 1, "Address of the pod."}, {"Node", "string", "", 1, "Node of the pod."},
		{"Nominated Node", "string", "", 1, "Node where others were pushed away for it."},
		{"Readiness Gates", "string", "", 1, "Further conditions of readiness."}),
	cells_pod,
};
