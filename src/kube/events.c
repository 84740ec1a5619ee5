/* SPDX-License-Identifier: Apache-2.0 */
/* Events for people: what happened to which object and why. The same event again within its memory counts up the one
 * that exists. Bounds: 10 a second with bursts of 25 (33 with those of nodes), beyond is dropped and counted; the last 256 different ones are
 * remembered. Events are best effort: a write that fails is not repeated. The time with milliseconds is in the
 * annotation kuayu.io/time (core/v1 Events have whole seconds only), which is what failover timelines are drawn from. */
#include "kube/internal.h"

#define RATE_PER_S 10
#define BURST	   33
#define RESERVED   8 /* of the burst, for Events of nodes: a failover is told even when pods make many */
#define REMEMBERED 256

static const struct model_kind event_kind = {
	.group = "", .version = "v1", .kind = "Event", .plural = "events", .namespaced = true};

struct seen {
	uint64_t hash;
	char *ns, *name;
	int64_t count;
};

struct recorder {
	struct kube *k;
	struct seen seen[REMEMBERED]; /* ring */
	size_t at;
	double tokens;
	uint64_t filled_ms;
	uint64_t dropped, told;
};

struct recorder *recorder_new(struct kube *k)
{
	struct recorder *r = xcalloc(1, sizeof(*r));

	r->k = k;
	r->tokens = BURST;
	r->filled_ms = clock_ms();
	return r;
}

struct recorder *recorder_free(struct recorder *r)
{
	if (!r)
		return NULL;
	for (size_t i = 0; i < REMEMBERED; i++) {
		free(r->seen[i].ns);
		free(r->seen[i].name);
	}
	free(r);
	return NULL;
}

static bool allowed(struct recorder *r, bool of_node)
{
	uint64_t now = clock_ms();

	r->tokens = MIN((double)BURST, r->tokens + (double)(now - r->filled_ms) * RATE_PER_S / 1000);
	r->filled_ms = now;
	if (r->tokens < (of_node ? 1 : RESERVED + 1)) {
		if (r->dropped++ == 0)
			log_warn("events come faster than %d/s: some are dropped", RATE_PER_S);
		return false;
	}
	if (r->dropped > r->told)
		log_info("%llu events were dropped", (unsigned long long)(r->dropped - r->told));
	r->told = r->dropped;
	r->tokens -= 1;
	return true;
}

static void count_up(struct recorder *r, struct seen *s, const char *time, const char *exact)
{
	_cleanup_json_ json_t *patch =
		json_pack("{s:I, s:s, s:{s:{s:s}}}", "count", (json_int_t)++s->count, "lastTimestamp", time,
			  "metadata", "annotations", "kuayu.io/time", exact);

	kube_patch(r->k, &event_kind, s->ns, s->name, NULL, KUBE_PATCH_MERGE, patch, NULL, NULL);
}

static json_t *reference(const json_t *o)
{
	static const char *const names[] = {"namespace", "name", "uid", "resourceVersion"};
	json_t *ref = json_object();

	json_object_set_new(ref, "kind", json_string(js_str_or(o, "kind", "")));
	json_object_set_new(ref, "apiVersion", json_string(js_str_or(o, "apiVersion", "v1")));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *v = json_string_value(json_object_get(json_object_get(o, "metadata"), names[i]));

		if (v)
			json_object_set_new(ref, names[i], json_string(v));
	}
	return ref;
}

void kube_event(struct kube *k, const json_t *involved, const char *type, const char *reason, const char *fmt,
		...)
{
	struct recorder *r = k->recorder;
	char text[1024], time[CLOCK_TEXT_MAX], exact[CLOCK_TEXT_MAX], suffix[17];
	const char *ns = js_str_or(involved, "metadata.namespace", "default");
	const char *name = js_str_or(involved, "metadata.name", "unknown");
	_cleanup_free_ char *id = NULL, *event_name = NULL;
	_cleanup_json_ json_t *ev = NULL;
	int64_t now = clock_wall_us();
	uint64_t hash;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!allowed(r, streq(js_str(involved, "kind"), "Node")))
		return;
	clock_text(time, now, 0);
	clock_text(exact, now, 3);
	id = xasprintf("%s|%s|%s|%s|%s|%s", ns, name, js_str_or(involved, "metadata.uid", ""), type, reason,
		       text);
	hash = hash_fnv64(id, strlen(id));
	for (size_t i = 0; i < REMEMBERED; i++)
		if (r->seen[i].name && r->seen[i].hash == hash) {
			count_up(r, &r->seen[i], time, exact);
			return;
		}
	random_name(suffix, 16);
	event_name = xasprintf("%.200s.%s", name, suffix);
	ev = json_pack("{s:s, s:s, s:{s:s, s:s, s:{s:s}}, s:o, s:s, s:s, s:s, s:{s:s}, s:s, s:s, s:i}",
		       "apiVersion", "v1", "kind", "Event", "metadata", "name", event_name, "namespace", ns,
		       "annotations", "kuayu.io/time", exact, "involvedObject", reference(involved), "reason",
		       reason, "message", text, "type", type, "source", "component", k->component,
		       "firstTimestamp", time, "lastTimestamp", time, "count", 1);
	if (!ev)
		return; /* a text that is no UTF-8 */
	kube_create(k, &event_kind, ns, ev, NULL, NULL);
	struct seen *s = &r->seen[r->at++ % REMEMBERED];

	free(s->ns);
	free(s->name);
	*s = (struct seen){.hash = hash, .ns = xstrdup(ns), .name = take_ptr(event_name), .count = 1};
}
