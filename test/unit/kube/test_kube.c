/* SPDX-License-Identifier: Apache-2.0 */
/* kube: calls with failover between servers, caches (list, watch, resume, 410, silence, own writes), leader election,
 * events; against a fake server on the same loop. */
#include "test.h"
#include "fake.h"
#include "kube/kube.h"

static const struct model_kind pod_kind = {
	.group = "", .version = "v1", .kind = "Pod", .plural = "pods", .namespaced = true};

/* What a test's server does. */
struct scene {
	uv_loop_t loop;
	struct fake *f[2];
	struct kube *k;
	int requests[2];
	int statuses[2]; /* answered to everything when not 0 */
	bool silent[2];	 /* watches are accepted and then say nothing */
	char last_path[2048], last_body[8192];
	struct fake_conn *watch;
	int watches, lists;
	char watch_path[2048];
	const char *list;
	int gone; /* watches answered 410 this often */
	json_t *lease;
	int lease_rv;
	int done, status;
	int added, modified, deleted, synced;
};

static const char *empty_list =
	"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"10\"},\"items\":[]}";

static void serve_lease(struct scene *s, const struct fake_req *r)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_json_ json_t *body = NULL;

	if (streq(r->method, "GET")) {
		if (!s->lease) {
			fake_reply(r->conn, 404, "{\"kind\":\"Status\"}");
			return;
		}
	} else {
		assert_int_equal(js_parse_new(r->body, strlen(r->body), &body, NULL), 0);
		const char *rv = js_str_or(body, "metadata.resourceVersion", "0");

		if (atoi(rv) != s->lease_rv) {
			fake_reply(r->conn, 409, "{\"kind\":\"Status\"}");
			return;
		}
		char next[16];

		snprintf(next, sizeof(next), "%d", ++s->lease_rv);
		js_set_new(body, "metadata.resourceVersion", json_string(next));
		json_decref(s->lease);
		s->lease = json_incref(body);
	}
	text = js_text(s->lease);
	fake_reply(r->conn, 200, text);
}

static void serve(struct scene *s, int i, const struct fake_req *r)
{
	s->requests[i]++;
	snprintf(s->last_path, sizeof(s->last_path), "%s %s", r->method, r->path);
	snprintf(s->last_body, sizeof(s->last_body), "%s", r->body);
	if (s->statuses[i]) {
		fake_reply(r->conn, s->statuses[i], "{\"kind\":\"Status\"}");
	} else if (strstr(r->path, "/leases")) {
		serve_lease(s, r);
	} else if (strstr(r->path, "watch=true")) {
		snprintf(s->watch_path, sizeof(s->watch_path), "%s", r->path);
		if (s->gone > 0) {
			s->gone--;
			s->watches++;
			fake_reply(r->conn, 410, "{\"kind\":\"Status\",\"code\":410}");
			return;
		}
		fake_stream(r->conn);
		s->watch = r->conn;
		s->watches++;
	} else if (streq(r->method, "GET") && str_ends(r->path, "/pods")) {
		s->lists++;
		fake_reply(r->conn, 200, s->list ? s->list : empty_list);
	} else {
		fake_reply(r->conn, 200, "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\"}}");
	}
}

static void serve0(void *ctx, const struct fake_req *r)
{
	serve(ctx, 0, r);
}

static void serve1(void *ctx, const struct fake_req *r)
{
	serve(ctx, 1, r);
}

static void open_scene(struct scene *s)
{
	struct kube_settings set = {0};
	struct err e = {0};

	*s = (struct scene){0};
	uv_loop_init(&s->loop);
	s->f[0] = fake_new(&s->loop, serve0, s);
	s->f[1] = fake_new(&s->loop, serve1, s);
	for (int i = 0; i < 2; i++) {
		_cleanup_free_ char *url = xasprintf("http://127.0.0.1:%d/", fake_port(s->f[i]));

		set.servers = strv_add(set.servers, url);
	}
	assert_int_equal(kube_new(&s->loop, &set, "test", &s->k, &e), 0);
	strv_free(set.servers);
}

static void close_scene(struct scene *s)
{
	kube_free(s->k);
	fake_free(s->f[0]);
	fake_free(s->f[1]);
	json_decref(s->lease);
	for (int i = 0; i < 100 && uv_loop_alive(&s->loop); i++)
		uv_run(&s->loop, UV_RUN_ONCE);
	assert_int_equal(uv_loop_close(&s->loop), 0);
}

static void on_done(void *ctx, int status, json_t *body)
{
	struct scene *s = ctx;

	(void)body;
	s->status = status;
	s->done++;
}

static void calls(void **state)
{
	struct scene s;
	_cleanup_json_ json_t *pod = json_pack("{s:{s:s, s:s}}", "metadata", "name", "p", "namespace", "n");

	(void)state;
	open_scene(&s);
	kube_update(s.k, &pod_kind, "status", pod, on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 1, 2000));
	assert_int_equal(s.status, 200);
	assert_string_equal(s.last_path, "PUT /api/v1/namespaces/n/pods/p/status");
	kube_delete(s.k, &pod_kind, "n", "p", "u-1", 0, on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 2, 2000));
	assert_non_null(strstr(s.last_body, "\"uid\":\"u-1\""));
	kube_patch(s.k, &pod_kind, "n", "../x", NULL, KUBE_PATCH_MERGE, pod, on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 3, 2000));
	assert_string_equal(s.last_path, "PATCH /api/v1/namespaces/n/pods/..%2Fx");
	assert_int_equal(s.requests[1], 0);
	close_scene(&s);
}

static void failover(void **state)
{
	struct scene s;
	_cleanup_json_ json_t *pod = json_pack("{s:{s:s, s:s}}", "metadata", "name", "p", "namespace", "n");

	(void)state;
	open_scene(&s);
	s.statuses[0] = 503;
	kube_create(s.k, &pod_kind, "n", pod, on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 1, 2000));
	assert_int_equal(s.status, 200);
	assert_int_equal(s.requests[1], 1);
	/* It stays with the one that works. */
	kube_get(s.k, &pod_kind, "n", "p", on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 2, 2000));
	assert_int_equal(s.requests[0], 1);
	/* That one dies: back to the first, which is well again. */
	s.statuses[0] = 0;
	fake_stop(s.f[1]);
	kube_create(s.k, &pod_kind, "n", pod, on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 3, 3000));
	assert_int_equal(s.status, 200);
	assert_int_equal(s.requests[0], 2);
	/* A 409 is an answer, not a failure. */
	s.statuses[0] = 409;
	kube_create(s.k, &pod_kind, "n", pod, on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 4, 2000));
	assert_int_equal(s.status, 409);
	/* Both dead: told so, in time. */
	fake_stop(s.f[0]);
	kube_get(s.k, &pod_kind, "n", "p", on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 5, 6000));
	assert_true(s.status < 0);
	close_scene(&s);
}

/* After a failure of the first server calls go back to it when it is well again. */
static void home(void **state)
{
	struct scene s;
	int never = 0;

	(void)state;
	open_scene(&s);
	s.statuses[0] = 503;
	kube_get(s.k, &pod_kind, "n", "p", on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 1, 2000));
	assert_int_equal(s.requests[1], 1);
	run_until(&s.loop, &never, 1, 3500); /* asked once, answers 503 */
	assert_int_equal(s.requests[0], 2);
	assert_string_equal(s.last_path, "GET /readyz");
	s.statuses[0] = 0;
	assert_true(run_until(&s.loop, &s.requests[0], 4, 7000)); /* two good answers */
	run_until(&s.loop, &never, 1, 100);
	kube_get(s.k, &pod_kind, "n", "p", on_done, &s);
	assert_true(run_until(&s.loop, &s.done, 2, 2000));
	assert_int_equal(s.requests[0], 5);
	assert_int_equal(s.requests[1], 1);
	close_scene(&s);
}

static void on_changed(void *ctx, json_t *old, json_t *obj)
{
	struct scene *s = ctx;

	if (!old)
		s->added++;
	else if (!obj)
		s->deleted++;
	else
		s->modified++;
}

static void on_synced(void *ctx)
{
	((struct scene *)ctx)->synced++;
}

static void event(struct scene *s, const char *type, const char *name, int rv)
{
	char line[512];

	snprintf(line, sizeof(line),
		 "{\"type\":\"%s\",\"object\":{\"kind\":\"Pod\",\"metadata\":{\"namespace\":\"n\",\"name\":"
		 "\"%s\","
		 "\"uid\":\"u-%s\",\"resourceVersion\":\"%d\"}}}",
		 type, name, name, rv);
	fake_write(s->watch, line);
}

static json_t *pod_new(const char *name, const char *rv)
{
	return json_pack("{s:s, s:{s:s, s:s, s:s, s:s}}", "kind", "Pod", "metadata", "namespace", "n", "name",
			 name, "uid", "u", "resourceVersion", rv);
}

static void cache(void **state)
{
	struct scene s;
	struct kube_cache_handler h = {on_changed, on_synced, &s};

	(void)state;
	open_scene(&s);
	struct kube_cache *c = kube_cache_new(s.k, &pod_kind, "n", NULL, &h);

	assert_false(kube_cache_synced(c));
	assert_true(run_until(&s.loop, &s.watches, 1, 2000));
	assert_true(kube_cache_synced(c));
	assert_int_equal(s.synced, 1);
	event(&s, "ADDED", "p1", 11);
	event(&s, "ADDED", "p2", 12);
	event(&s, "MODIFIED", "p1", 13);
	event(&s, "DELETED", "p2", 14);
	assert_true(run_until(&s.loop, &s.deleted, 1, 2000));
	assert_int_equal(s.added, 2);
	assert_int_equal(s.modified, 1);
	assert_int_equal(kube_cache_len(c), 1);
	assert_non_null(kube_cache_get(c, "n", "p1"));

	/* Own writes are seen at once; the watch's older news does not undo them; a deleted object does not come back. */
	_cleanup_json_ json_t *newer = pod_new("p1", "20"), *late = pod_new("p2", "12"),
			      *fresh = pod_new("p3", "21");

	kube_cache_apply(c, newer);
	kube_cache_apply(c, late);
	kube_cache_apply(c, fresh);
	assert_int_equal(kube_cache_len(c), 2);
	event(&s, "MODIFIED", "p1", 15);
	event(&s, "MODIFIED", "p3", 22);
	assert_true(run_until(&s.loop, &s.modified, 3, 2000));
	assert_string_equal(js_str(kube_cache_get(c, "n", "p1"), "metadata.resourceVersion"), "20");

	/* The stream ends: it goes on from where it was. */
	fake_end(s.watch);
	assert_true(run_until(&s.loop, &s.watches, 2, 2000));
	assert_non_null(strstr(s.watch_path, "resourceVersion=22"));
	/* 410: lists again and tells the differences only. */
	s.gone = 1;
	s.list = "{\"metadata\":{\"resourceVersion\":\"30\"},\"items\":[{\"metadata\":{\"namespace\":\"n\","
		 "\"name\":\"p3\","
		 "\"uid\":\"u\",\"resourceVersion\":\"22\"}},{\"metadata\":{\"namespace\":\"n\",\"name\":"
		 "\"p4\","
		 "\"uid\":\"u4\",\"resourceVersion\":\"29\"}}]}";
	fake_end(s.watch);
	assert_true(run_until(&s.loop, &s.lists, 2, 3000));
	assert_true(run_until(&s.loop, &s.added, 4, 3000));
	assert_int_equal(s.deleted, 2);
	assert_int_equal(kube_cache_len(c), 2);
	assert_string_equal(js_str(kube_cache_get(c, "n", "p4"), "kind"), "Pod");
	close_scene(&s);
}

/* A server that answers calls but whose watch says nothing any more is left. */
static void silence(void **state)
{
	struct scene s;
	struct kube_cache_handler h = {on_changed, on_synced, &s};

	(void)state;
	open_scene(&s);
	kube_cache_new(s.k, &pod_kind, NULL, NULL, &h);
	assert_true(run_until(&s.loop, &s.watches, 1, 2000));
	for (int i = 0; i < 2; i++) {
		int never = 0;

		event(&s, "BOOKMARK", "", 11 + i);
		run_until(&s.loop, &never, 1, 100);
	}
	assert_true(run_until(&s.loop, &s.watches, 2, 5000));
	assert_int_equal(s.requests[1], 1);
	assert_non_null(strstr(s.watch_path, "resourceVersion=12"));
	close_scene(&s);
}

struct term {
	int started, stopped;
};

static void on_started(void *ctx)
{
	((struct term *)ctx)->started++;
}

static void on_stopped(void *ctx)
{
	((struct term *)ctx)->stopped++;
}

static struct kube_leader *candidate(struct scene *s, struct term *t, const char *name)
{
	struct kube_leader_options o = {.ns = "kube-system",
					.name = "l",
					.identity = name,
					.duration_ms = 600,
					.renew_ms = 100,
					.started = on_started,
					.stopped = on_stopped,
					.ctx = t};

	return kube_leader_new(s->k, &o);
}

static void leader(void **state)
{
	struct scene s;
	struct term a = {0}, b = {0};
	int never = 0;

	(void)state;
	open_scene(&s);
	struct kube_leader *la = candidate(&s, &a, "a"), *lb;

	assert_true(run_until(&s.loop, &a.started, 1, 2000));
	lb = candidate(&s, &b, "b");
	run_until(&s.loop, &never, 1, 1500);
	assert_int_equal(b.started, 0);
	assert_int_equal(a.stopped, 0);
	/* Given up: the other takes it without waiting. */
	la = kube_leader_free(la);
	assert_true(run_until(&s.loop, &b.started, 1, 550));
	/* Servers that answer nothing useful: the leader stops by itself. */
	s.statuses[0] = s.statuses[1] = 500;
	assert_true(run_until(&s.loop, &b.stopped, 1, 1500));
	assert_false(kube_leader_is(lb));
	/* Well again: it leads again, as its own lease is still there. */
	s.statuses[0] = s.statuses[1] = 0;
	assert_true(run_until(&s.loop, &b.started, 2, 2000));
	kube_leader_free(lb);
	close_scene(&s);
}

static void events(void **state)
{
	struct scene s;
	_cleanup_json_ json_t *pod = pod_new("p1", "5");

	(void)state;
	open_scene(&s);
	for (int i = 0; i < 60; i++)
		kube_event(s.k, pod, "Normal", "Tested", "number %d", i % 2);
	assert_true(run_until(&s.loop, &s.requests[0], 25, 3000));
	assert_int_equal(s.requests[0], 25); /* the burst */
	assert_true(str_starts(s.last_path, "PATCH /api/v1/namespaces/n/events/p1."));
	assert_non_null(strstr(s.last_body, "kuayu.io/time"));
	close_scene(&s);
}

TEST_MAIN(cmocka_unit_test(calls), cmocka_unit_test(failover), cmocka_unit_test(home),
	  cmocka_unit_test(cache), cmocka_unit_test(silence), cmocka_unit_test(leader),
	  cmocka_unit_test(events))
