/* SPDX-License-Identifier: Apache-2.0 */
/* The Node object: made at the start if it is missing, labels and addresses kept true, status written when it changes and every 10 s. Taints, podCIDR
 * and unschedulable belong to others (controller, operator) and are never touched, except that --pod-cidr fills an empty podCIDR for a cluster
 * without a controller. */
#include "node/agent.h"

#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "model/model.h"

#define STATUS_MS	   10000
#define RETRY_MS	   1000
#define DISK_LOW_PERCENT   5
#define MEMORY_LOW_PERCENT 3
#define RESERVED_MEMORY	   ((int64_t)128 << 20)

struct node_object {
	struct agent *a;
	struct timer *timer;
	bool created, writing;
	char machine_id[64], os_image[128];
};

static const struct model_kind *nodes_kind(void)
{
	return model_kind_by_plural("", "v1", "nodes");
}

/* ---- the machine ---- */

static void read_os(struct node_object *n)
{
	_cleanup_free_ char *text = NULL, *id = NULL;
	char *p, *end;
	size_t len;

	snprintf(n->os_image, sizeof(n->os_image), "Linux");
	if (file_read("/etc/os-release", 65536, &text, &len, NULL) == 0 &&
	    (p = strstr(text, "PRETTY_NAME=\""))) {
		p += strlen("PRETTY_NAME=\"");
		end = strchr(p, '"');
		if (end)
			snprintf(n->os_image, sizeof(n->os_image), "%.*s", (int)(end - p), p);
	}
	if (file_read("/etc/machine-id", 64, &id, &len, NULL) == 0)
		snprintf(n->machine_id, sizeof(n->machine_id), "%.*s", (int)strcspn(id, "\n"), id);
}

static int64_t memory_total(void)
{
	struct sysinfo si;

	return sysinfo(&si) == 0 ? (int64_t)si.totalram * si.mem_unit : 0;
}

/* Percent of memory that is available. */
static int64_t memory_available_percent(void)
{
	_cleanup_free_ char *text = NULL;
	char *p;
	size_t len;
	int64_t total = memory_total();

	if (file_read("/proc/meminfo", 65536, &text, &len, NULL) < 0 ||
	    !(p = strstr(text, "MemAvailable:")) || !total)
		return 100;
	return strtoll(p + strlen("MemAvailable:"), NULL, 10) * 1024 * 100 / total;
}

int node_capacity(struct agent *a)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	a->cpu_milli = a->s.cpu_milli ? a->s.cpu_milli : (cpus > 0 ? cpus : 1) * 1000;
	a->memory_bytes = a->s.memory_bytes ? a->s.memory_bytes : memory_total();
	return a->memory_bytes > 0 ? 0 : -EIO;
}

/* ---- object ---- */

static json_t *labels_new(struct agent *a)
{
	struct utsname u;
	json_t *l = json_pack("{s:s,s:s}", "kubernetes.io/hostname", a->s.name, "kubernetes.io/os", "linux");

	if (uname(&u) == 0)
		json_object_set_new(l, "kubernetes.io/arch",
				    json_string(streq(u.machine, "x86_64")    ? "amd64"
						: streq(u.machine, "aarch64") ? "arm64"
									      : u.machine));
	if (a->s.zone && *a->s.zone)
		json_object_set_new(l, "topology.kubernetes.io/zone", json_string(a->s.zone));
	for (size_t i = 0; a->s.labels && a->s.labels[i]; i++) {
		char *eq = strchr(a->s.labels[i], '=');
		_cleanup_free_ char *k = eq ? xstrndup(a->s.labels[i], (size_t)(eq - a->s.labels[i])) : NULL;

		if (k)
			json_object_set_new(l, k, json_string(eq + 1));
	}
	return l;
}

static json_t *object_new(struct agent *a)
{
	json_t *o = json_pack("{s:s,s:s,s:{s:s,s:o},s:{}}", "apiVersion", "v1", "kind", "Node", "metadata",
			      "name", a->s.name, "labels", labels_new(a), "spec");

	if (a->s.pod_cidr && *a->s.pod_cidr) {
		(void)js_set_new(o, "spec.podCIDR", json_string(a->s.pod_cidr));
		(void)js_set_new(o, "spec.podCIDRs", json_pack("[s]", a->s.pod_cidr));
	}
	return o;
}

static json_t *resources_new(struct agent *a, int64_t memory)
{
	_cleanup_free_ char *cpu = a->cpu_milli % 1000 ? xasprintf("%lldm", (long long)a->cpu_milli)
						       : xasprintf("%lld", (long long)a->cpu_milli / 1000);
	_cleanup_free_ char *mem = xasprintf("%lldKi", (long long)memory / 1024), *disk = NULL, *pods = NULL;
	struct statvfs vfs;

	disk = statvfs(a->s.data, &vfs) == 0
		       ? xasprintf("%lldKi", (long long)(vfs.f_blocks * (vfs.f_frsize / 1024)))
		       : xstrdup("0");
	pods = xasprintf("%lld", (long long)a->s.pods_max);
	return json_pack("{s:s,s:s,s:s,s:s}", "cpu", cpu, "memory", mem, "ephemeral-storage", disk, "pods",
			 pods);
}

static json_t *info_new(struct node_object *n)
{
	struct utsname u = {0};
	_cleanup_free_ char *boot = NULL;
	size_t len = 0;

	(void)uname(&u);
	if (file_read("/proc/sys/kernel/random/boot_id", 64, &boot, &len, NULL) == 0)
		boot[strcspn(boot, "\n")] = 0;
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "machineID", n->machine_id,
			 "systemUUID", n->machine_id, "bootID", boot ? boot : "", "kernelVersion", u.release,
			 "osImage", n->os_image, "containerRuntimeVersion", "crun://1.8", "kubeletVersion",
			 "v1.32.0-kuayu-" KUAYU_VERSION, "kubeProxyVersion", "", "operatingSystem", "linux",
			 "architecture",
			 streq(u.machine, "x86_64")    ? "amd64"
			 : streq(u.machine, "aarch64") ? "arm64"
						       : u.machine);
}

static void add_condition(json_t *list, const json_t *old, const char *type, bool is, const char *reason,
			  const char *message)
{
	char now[CLOCK_TEXT_MAX];
	const char *since = NULL;
	json_t *c;
	size_t i;

	json_array_foreach ((json_t *)old, i, c)
		if (streq(js_str(c, "type"), type) && streq(js_str(c, "status"), is ? "True" : "False"))
			since = js_str(c, "lastTransitionTime");
	clock_text(now, clock_wall_us(), 0);
	json_array_append_new(list,
			      json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "type", type, "status",
					is ? "True" : "False", "reason", reason, "message", message,
					"lastHeartbeatTime", now, "lastTransitionTime", since ? since : now));
}

static json_t *conditions_new(struct node_object *n, const json_t *node)
{
	struct agent *a = n->a;
	const json_t *old = js_get(node, "status.conditions");
	bool network = sandboxes_started(a->sandboxes), disk = false,
	     memory = memory_available_percent() < MEMORY_LOW_PERCENT;
	struct statvfs vfs;
	json_t *list = json_array();

	if (statvfs(a->s.data, &vfs) == 0 && vfs.f_blocks)
		disk = vfs.f_bavail * 100 / vfs.f_blocks < DISK_LOW_PERCENT;
	add_condition(list, old, "MemoryPressure", memory, memory ? "LowMemory" : "EnoughMemory",
		      memory ? "less than 3 % of the memory is available" : "enough memory is available");
	add_condition(list, old, "DiskPressure", disk, disk ? "LowDisk" : "EnoughDisk",
		      disk ? "less than 5 % of the data disk is free" : "enough disk is free");
	add_condition(list, old, "PIDPressure", false, "EnoughPIDs", "enough process ids are free");
	add_condition(list, old, "Ready", network, network ? "NodeAgentReady" : "NetworkNotReady",
		      network ? "node agent is ready" : "the node has no pod network yet (spec.podCIDR)");
	return list;
}

static json_t *status_new(struct node_object *n, const json_t *node)
{
	struct agent *a = n->a;
	const char *colon = strrchr(a->s.listen, ':');

	return json_pack("{s:[{s:s,s:s},{s:s,s:s}],s:o,s:o,s:o,s:o,s:{s:{s:i}}}", "addresses", "type",
			 "InternalIP", "address", a->s.address, "type", "Hostname", "address", a->s.name,
			 "capacity", resources_new(a, a->memory_bytes), "allocatable",
			 resources_new(a, MAX(a->memory_bytes - RESERVED_MEMORY, a->memory_bytes / 2)),
			 "conditions", conditions_new(n, node), "nodeInfo", info_new(n), "daemonEndpoints",
			 "kubeletEndpoint", "Port", colon ? atoi(colon + 1) : 10250);
}

/* ---- writing ---- */

static void on_written(void *ctx, int status, json_t *body)
{
	struct node_object *n = ctx;

	n->writing = false;
	if (status != 200) {
		log_warn("node status: API answered %d %s", status, js_str_or(body, "message", ""));
		n->created = status != 404 && n->created;
		timer_start(n->timer, RETRY_MS, 0);
	}
}

static void write_status(struct node_object *n)
{
	struct agent *a = n->a;
	json_t *node = a->nodes ? kube_cache_get(a->nodes, NULL, a->s.name) : NULL;
	_cleanup_json_ json_t *patch = json_pack("{s:o}", "status", status_new(n, node));

	n->writing = true;
	kube_patch(a->kube, nodes_kind(), NULL, a->s.name, "status", KUBE_PATCH_MERGE, patch, on_written, n);
	timer_start(n->timer, STATUS_MS, 0);
}

static void on_labelled(void *ctx, int status, json_t *body)
{
	struct node_object *n = ctx;

	n->writing = false;
	if (status == 200) {
		n->created = true;
		node_object_seen(n->a, body);
		write_status(n);
	} else {
		log_warn("node labels: API answered %d %s", status, js_str_or(body, "message", ""));
		timer_start(n->timer, RETRY_MS, 0);
	}
}

static void on_created(void *ctx, int status, json_t *body)
{
	struct node_object *n = ctx;

	n->writing = false;
	if (status == 201 || status == 200) {
		log_info("node %s registered", n->a->s.name);
		n->created = true;
		node_object_seen(n->a, body);
		write_status(n);
	} else if (
		status ==
		409) { /* there already: labels of this configuration win over older ones of the same name */
		_cleanup_json_ json_t *patch = json_pack("{s:{s:o}}", "metadata", "labels", labels_new(n->a));

		n->writing = true;
		kube_patch(n->a->kube, nodes_kind(), NULL, n->a->s.name, NULL, KUBE_PATCH_MERGE, patch,
			   on_labelled, n);
	} else {
		log_warn("registering the node: API answered %d %s", status, js_str_or(body, "message", ""));
		timer_start(n->timer, RETRY_MS, 0);
	}
}

static void on_due(void *ctx)
{
	struct node_object *n = ctx;

	if (n->writing) {
		timer_start(n->timer, RETRY_MS, 0);
	} else if (n->created) {
		write_status(n);
	} else {
		_cleanup_json_ json_t *o = object_new(n->a);

		n->writing = true;
		kube_create(n->a->kube, nodes_kind(), NULL, o, on_created, n);
	}
}

void node_object_seen(struct agent *a, json_t *node)
{
	const char *cidr = js_str(node, "spec.podCIDR");
	struct err e = {0};

	if (!cidr || !*cidr || sandboxes_started(a->sandboxes))
		return;
	if (sandboxes_start(a->sandboxes, cidr, &e) < 0) {
		log_error("pod network: %s", e.text);
		return;
	}
	log_info("pod network %s on %s", cidr, a->s.bridge);
	services_changed(a);
	timer_start(a->node->timer, 0, 0); /* Ready now */
	pods_kick(a);
}

struct node_object *node_object_new(struct agent *a)
{
	struct node_object *n = xcalloc(1, sizeof(*n));

	n->a = a;
	read_os(n);
	n->timer = timer_new(a->loop, on_due, n);
	timer_start(n->timer, 0, 0);
	return n;
}
