/* SPDX-License-Identifier: Apache-2.0 */
/* Use of CPU and memory by the node, its pods and containers, read from cgroups when asked: /stats/summary in the form that Kubernetes' kubelet
 * gives (Summary API v1alpha1), /metrics for Prometheus. usageNanoCores is the mean since the last time somebody asked (or since the start). */
#include "node/agent.h"

#include <sys/sysinfo.h>

#include "node/cgroup.h"

struct sample {
	uint64_t cpu_ns, at_us;
};

static struct strmap *samples; /* cgroup path -> struct sample, of the last summary */

static uint64_t rate(const char *path, uint64_t cpu_ns)
{
	struct sample *s;
	uint64_t now = clock_us(), per = 0;

	if (!samples)
		samples = strmap_new();
	s = strmap_get(samples, path);
	if (!s) {
		if (strmap_len(samples) > 10000)
			samples = strmap_free(samples, free), samples = strmap_new();
		s = xcalloc(1, sizeof(*s));
		strmap_set(samples, path, s);
	} else if (now > s->at_us && cpu_ns >= s->cpu_ns) {
		per = (cpu_ns - s->cpu_ns) * 1000000 / (now - s->at_us);
	}
	*s = (struct sample){cpu_ns, now};
	return per;
}

static json_t *usage_new(const char *key, const struct cgroup_stats *s)
{
	char now[CLOCK_TEXT_MAX];
	json_t *memory;

	clock_text(now, clock_wall_us(), 0);
	memory = json_pack("{s:s,s:I,s:I,s:I}", "time", now, "usageBytes", (json_int_t)s->memory,
			   "workingSetBytes", (json_int_t)s->memory_working, "rssBytes",
			   (json_int_t)s->memory_rss);
	if (s->memory_limit)
		json_object_set_new(memory, "availableBytes",
				    json_integer((json_int_t)(s->memory_limit -
							      MIN(s->memory_limit, s->memory_working))));
	return json_pack("{s:{s:s,s:I,s:I},s:o}", "cpu", "time", now, "usageNanoCores",
			 (json_int_t)rate(key, s->cpu_ns), "usageCoreNanoSeconds", (json_int_t)s->cpu_ns,
			 "memory", memory);
}

/* Machine totals from /proc: right with every cgroup version. */
static void read_node(struct cgroup_stats *s)
{
	_cleanup_free_ char *stat = NULL, *mem = NULL;
	unsigned long long user = 0, nice_ = 0, sys = 0, idle = 0, io = 0, irq = 0, soft = 0;
	long hz = sysconf(_SC_CLK_TCK);
	struct sysinfo si;
	char *p;
	size_t len;

	*s = (struct cgroup_stats){0};
	if (file_read("/proc/stat", 1 << 20, &stat, &len, NULL) == 0 &&
	    sscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice_, &sys, &idle, &io, &irq,
		   &soft) == 7)
		s->cpu_ns = (user + nice_ + sys + irq + soft) *
			    (1000000000ULL / (unsigned long long)(hz > 0 ? hz : 100));
	if (sysinfo(&si) == 0)
		s->memory_limit = (uint64_t)si.totalram * si.mem_unit;
	if (file_read("/proc/meminfo", 65536, &mem, &len, NULL) == 0 && (p = strstr(mem, "MemAvailable:")))
		s->memory_working = s->memory_limit - MIN(s->memory_limit, strtoull(p + 13, NULL, 10) * 1024);
	s->memory = s->memory_rss = s->memory_working;
}

static json_t *pod_new(const struct pod *p)
{
	json_t *list = json_array(), *o;
	struct cgroup_stats s, sum = {0};
	char when[CLOCK_TEXT_MAX];

	for (size_t i = 0; i < p->n; i++) {
		const struct container *c = p->c[i];

		if (c->state != CONTAINER_RUNNING || cgroup_read(c->cgroup, &s) < 0)
			continue;
		o = usage_new(c->cgroup, &s);
		json_object_set_new(o, "name", json_string(c->name));
		json_object_set_new(o, "startTime", json_string(clock_text(when, c->started_us, 0)));
		json_array_append_new(list, o);
		sum.cpu_ns += s.cpu_ns;
		sum.memory += s.memory;
		sum.memory_working += s.memory_working;
		sum.memory_rss += s.memory_rss;
	}
	o = usage_new(p->cgroup, &sum);
	json_object_set_new(o, "podRef",
			    json_pack("{s:s,s:s,s:s}", "name", p->name, "namespace", p->ns, "uid", p->uid));
	json_object_set_new(o, "startTime", json_string(clock_text(when, p->start_us, 0)));
	json_object_set_new(o, "containers", list);
	return o;
}

json_t *stats_summary_new(struct agent *a)
{
	struct cgroup_stats s;
	json_t *node, *pods = json_array();
	const char *uid;
	struct pod *p;

	read_node(&s);
	node = usage_new("node", &s);
	json_object_set_new(node, "nodeName", json_string(a->s.name));
	strmap_foreach (a->pods, uid, p)
		if (!p->torn_down)
			json_array_append_new(pods, pod_new(p));
	return json_pack("{s:o,s:o}", "node", node, "pods", pods);
}

static void head(struct buf *b, const char *name, const char *type, const char *help)
{
	(void)buf_addf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void container_metrics(struct agent *a, struct buf *b, bool cpu)
{
	const char *uid;
	struct pod *p;

	head(b, cpu ? "container_cpu_usage_seconds_total" : "container_memory_working_set_bytes",
	     cpu ? "counter" : "gauge",
	     cpu ? "CPU time used by the container" : "memory in use without inactive file pages");
	strmap_foreach (a->pods, uid, p)
		for (size_t i = 0; i < p->n; i++) {
			const struct container *c = p->c[i];
			struct cgroup_stats s;

			if (c->state != CONTAINER_RUNNING || cgroup_read(c->cgroup, &s) < 0)
				continue;
			(void)buf_addf(b, "%s{namespace=\"%s\",pod=\"%s\",container=\"%s\"} ",
				       cpu ? "container_cpu_usage_seconds_total"
					   : "container_memory_working_set_bytes",
				       p->ns, p->name, c->name);
			if (cpu)
				(void)buf_addf(b, "%.6f\n", (double)s.cpu_ns / 1e9);
			else
				(void)buf_addf(b, "%llu\n", (unsigned long long)s.memory_working);
		}
}

static void one(struct buf *b, const char *name, const char *type, const char *help, double value)
{
	head(b, name, type, help);
	(void)buf_addf(b, "%s %.15g\n", name, value);
}

void stats_metrics(struct agent *a, struct buf *b)
{
	struct cgroup_stats s;
	size_t running = 0;
	const char *uid;
	struct pod *p;

	strmap_foreach (a->pods, uid, p)
		for (size_t i = 0; i < p->n; i++)
			running += p->c[i]->state == CONTAINER_RUNNING;
	read_node(&s);
	one(b, "node_cpu_usage_seconds_total", "counter", "CPU time used by the machine",
	    (double)s.cpu_ns / 1e9);
	one(b, "node_memory_working_set_bytes", "gauge", "memory of the machine that is not available",
	    (double)s.memory_working);
	one(b, "kuayu_node_pods", "gauge", "pods on this node", (double)strmap_len(a->pods));
	one(b, "kuayu_node_containers_running", "gauge", "containers that run", (double)running);
	one(b, "kuayu_node_container_starts_total", "counter", "containers started", (double)a->starts);
	one(b, "kuayu_node_container_start_failures_total", "counter", "containers that could not be started",
	    (double)a->start_failures);
	one(b, "kuayu_node_container_restarts_total", "counter", "containers started again",
	    (double)a->restarts);
	one(b, "kuayu_node_fencings_total", "counter",
	    "singleton containers stopped because the lease was lost", (double)a->fencings);
	one(b, "kuayu_node_fenced", "gauge", "1 while no singleton may run here", a->fenced);
	one(b, "kuayu_node_sandboxes_ready", "gauge", "sandboxes prepared for the next pods",
	    sandboxes_ready(a->sandboxes));
	one(b, "kuayu_node_lease_age_seconds", "gauge", "since the sending of the last good lease renewal",
	    fence_last(a->fence) ? (double)(clock_ms() - fence_last(a->fence)) / 1e3 : -1);
	container_metrics(a, b, true);
	container_metrics(a, b, false);
}
