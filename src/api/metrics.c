/* SPDX-License-Identifier: Apache-2.0 */
/* Prometheus metrics: requests and their latency by verb, watches, objects, the store. Counters are atomic: calls end on any
 * thread. Names are those of Kubernetes' own API server where it has them. */
#include "api/internal.h"

#define VERBS	8
#define CLASSES 6 /* status / 100 */

static const uint64_t bounds_us[] = {1000,   2500,   5000,   10000,   25000,   50000,
				     100000, 250000, 500000, 1000000, 2500000, 5000000};
#define BOUNDS (sizeof(bounds_us) / sizeof(bounds_us[0]))

struct metrics {
	_Atomic uint64_t count[VERBS][CLASSES];
	_Atomic uint64_t bucket[VERBS][BOUNDS + 1];
	_Atomic uint64_t sum_us[VERBS];
};

const char *verb_name(enum verb v)
{
	static const char *const names[] = {"get",    "list",  "watch",	 "create",
					    "update", "patch", "delete", "deletecollection"};

	return names[v];
}

struct metrics *metrics_new(void)
{
	return xcalloc(1, sizeof(struct metrics));
}

struct metrics *metrics_free(struct metrics *m)
{
	free(m);
	return NULL;
}

void metrics_count(struct metrics *m, const struct call *c, int code, uint64_t us)
{
	size_t b = 0;

	m->count[c->verb][CLAMP(code / 100, 0, CLASSES - 1)]++;
	if (c->verb == VERB_WATCH)
		return;
	while (b < BOUNDS && us > bounds_us[b])
		b++;
	m->bucket[c->verb][b]++;
	m->sum_us[c->verb] += us;
}

static void add_requests(struct buf *b, struct metrics *m)
{
	buf_adds(b, "# TYPE apiserver_request_total counter\n");
	for (size_t v = 0; v < VERBS; v++)
		for (size_t k = 1; k < CLASSES; k++)
			if (m->count[v][k])
				buf_addf(b, "apiserver_request_total{verb=\"%s\",code=\"%zuxx\"} %llu\n",
					 verb_name((enum verb)v), k, (unsigned long long)m->count[v][k]);
	buf_adds(b, "# TYPE apiserver_request_duration_seconds histogram\n");
	for (size_t v = 0; v < VERBS; v++) {
		const char *name = verb_name((enum verb)v);
		uint64_t all = 0;

		if (v == VERB_WATCH)
			continue;
		for (size_t i = 0; i <= BOUNDS; i++) {
			all += m->bucket[v][i];
			if (i < BOUNDS)
				buf_addf(b,
					 "apiserver_request_duration_seconds_bucket{verb=\"%s\",le=\"%g\"} "
					 "%llu\n",
					 name, (double)bounds_us[i] / 1e6, (unsigned long long)all);
		}
		buf_addf(b, "apiserver_request_duration_seconds_bucket{verb=\"%s\",le=\"+Inf\"} %llu\n", name,
			 (unsigned long long)all);
		buf_addf(b, "apiserver_request_duration_seconds_sum{verb=\"%s\"} %g\n", name,
			 (double)m->sum_us[v] / 1e6);
		buf_addf(b, "apiserver_request_duration_seconds_count{verb=\"%s\"} %llu\n", name,
			 (unsigned long long)all);
	}
}

void metrics_reply(struct api *api, struct http_req *r)
{
	_cleanup_buf_ struct buf b = {0};

	add_requests(&b, api->metrics);
	buf_addf(&b,
		 "# TYPE apiserver_current_inflight_requests gauge\napiserver_current_inflight_requests %d\n",
		 api->in_flight);
	buf_addf(&b,
		 "# TYPE apiserver_longrunning_requests "
		 "gauge\napiserver_longrunning_requests{verb=\"watch\"} %zu\n",
		 watches_count(api->watches));
	buf_addf(&b, "# TYPE apiserver_storage_objects gauge\napiserver_storage_objects %zu\n",
		 cache_objects(api->cache));
	buf_addf(&b, "# TYPE kuayu_api_revision gauge\nkuayu_api_revision %lld\n",
		 (long long)cache_rev(api->cache));
	buf_addf(&b, "# TYPE kuayu_api_store_up gauge\nkuayu_api_store_up %d\n", api_store_alive(api));
	buf_addf(&b, "# TYPE kuayu_api_store_silence_seconds gauge\nkuayu_api_store_silence_seconds %g\n",
		 (double)(clock_ms() - api->store_heard_ms) / 1e3);
	http_reply(r, 200, "text/plain; version=0.0.4", b.data, b.len, NULL);
}
