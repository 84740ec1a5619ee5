/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler's numbers for Prometheus. */
#include "sched/internal.h"

const double sched_histogram_bounds[HISTOGRAM_MAX] = {0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
						      0.05,   0.1,    0.25,  0.5,    1,	    2.5,  10};

void sched_histogram_add(struct histogram *h, double seconds)
{
	h->count++;
	h->sum += seconds;
	for (size_t i = 0; i < HISTOGRAM_MAX; i++)
		h->bucket[i] += seconds <= sched_histogram_bounds[i];
}

static void write_histogram(const struct histogram *h, const char *name, const char *help, struct buf *out)
{
	buf_addf(out, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
	for (size_t i = 0; i < HISTOGRAM_MAX; i++)
		buf_addf(out, "%s_bucket{le=\"%g\"} %llu\n", name, sched_histogram_bounds[i],
			 (unsigned long long)h->bucket[i]);
	buf_addf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name,
		 (unsigned long long)h->count, name, h->sum, name, (unsigned long long)h->count);
}

void sched_metrics(const struct metrics *m, bool leader, size_t pending, size_t nodes, size_t pods,
		   struct buf *out)
{
	buf_addf(out, "# TYPE kuayu_scheduler_leader gauge\nkuayu_scheduler_leader %d\n", leader);
	buf_addf(out, "# TYPE kuayu_scheduler_pending_pods gauge\nkuayu_scheduler_pending_pods %zu\n",
		 pending);
	buf_addf(out, "# TYPE kuayu_scheduler_nodes gauge\nkuayu_scheduler_nodes %zu\n", nodes);
	buf_addf(out, "# TYPE kuayu_scheduler_assigned_pods gauge\nkuayu_scheduler_assigned_pods %zu\n",
		 pods);
	buf_addf(out,
		 "# TYPE kuayu_scheduler_attempts_total counter\n"
		 "kuayu_scheduler_attempts_total{result=\"scheduled\"} %llu\n"
		 "kuayu_scheduler_attempts_total{result=\"unschedulable\"} %llu\n"
		 "kuayu_scheduler_attempts_total{result=\"error\"} %llu\n",
		 (unsigned long long)m->scheduled, (unsigned long long)m->unschedulable,
		 (unsigned long long)m->bind_errors);
	write_histogram(&m->bound, "kuayu_scheduler_pod_seconds", "First seen to bound.", out);
	write_histogram(&m->decision, "kuayu_scheduler_decision_seconds", "One decision.", out);
}
