/* SPDX-License-Identifier: Apache-2.0 */
/* Pods that wait for a node. */
#include "sched/internal.h"

struct pending *sched_pending_new(const char *key, json_t *pod)
{
	struct pending *p = xcalloc(1, sizeof(*p));

	p->key = xstrdup(key);
	p->seen_us = clock_us();
	sched_pending_update(p, pod);
	return p;
}

void sched_pending_free(void *ptr)
{
	struct pending *p = ptr;

	if (!p)
		return;
	sched_pod_free(p->compiled);
	json_decref(p->pod);
	free(p->message);
	free(p->key);
	free(p);
}

bool sched_same_json(const json_t *a, const json_t *b, const char *path)
{
	const json_t *x = js_get(a, path), *y = js_get(b, path);

	return x == y || json_equal(x, y); /* json_equal calls two missing ones different */
}

/* A new spec or new labels are a new question: asked at once. Status changes are not (we write them ourselves). */
void sched_pending_update(struct pending *p, json_t *pod)
{
	bool same = p->pod && sched_same_json(p->pod, pod, "spec") &&
		    sched_same_json(p->pod, pod, "metadata.labels");

	json_incref(pod);
	json_decref(p->pod);
	p->pod = pod;
	if (same || p->binding)
		return;
	sched_pod_free(p->compiled);
	p->compiled = sched_load_pod(pod);
	p->waiting = false;
	p->not_before_ms = 0;
}

uint64_t sched_pending_backoff_ms(unsigned attempts)
{
	unsigned shift = MIN(attempts ? attempts - 1 : 0, 10u);

	return MIN((uint64_t)BACKOFF_FIRST_MS << shift, (uint64_t)BACKOFF_MAX_MS);
}

int sched_pending_compare(const void *a, const void *b)
{
	const struct pending *pa = *(struct pending *const *)a, *pb = *(struct pending *const *)b;

	if (pa->compiled->priority != pb->compiled->priority)
		return pa->compiled->priority > pb->compiled->priority ? -1 : 1;
	if (pa->seen_us != pb->seen_us)
		return pa->seen_us < pb->seen_us ? -1 : 1;
	return strcmp(pa->key, pb->key);
}
