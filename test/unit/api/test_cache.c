/* SPDX-License-Identifier: Apache-2.0 */
/* The watch cache over the memory store: what it holds, the event window, and what happens behind its end. */
#include "../test.h"

#undef fail /* cmocka's; ours is a function */
#include "api/internal.h"

#define WINDOW 8

static struct {
	struct store *store;
	struct cache *cache;
	_Atomic int moved;
} t;

static void on_changed(void *ctx)
{
	(void)ctx;
	t.moved++;
}

static int64_t put(const char *key, const char *name, const char *extra)
{
	_cleanup_free_ char *text =
		xasprintf("{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"%s\"}%s}",
			  name, extra);
	struct store_op op = {.type = STORE_PUT, .key = key, .value = text, .value_len = strlen(text)};
	struct err e = {0};
	int64_t rev;

	assert_int_equal(store_txn(t.store, NULL, 0, &op, 1, &rev, &e), 0);
	return rev;
}

static int64_t del(const char *key)
{
	struct store_op op = {.type = STORE_DELETE, .key = key};
	struct err e = {0};
	int64_t rev;

	assert_int_equal(store_txn(t.store, NULL, 0, &op, 1, &rev, &e), 0);
	return rev;
}

static const struct model_kind *config_maps(void)
{
	return model_kind_by_plural("", "v1", "configmaps");
}

static int start(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(store_open("mem:", NULL, &t.store, &e), 0);
	put("/registry/configmaps/b/one", "one", "");
	put("/registry/configmaps/a/two", "two", "");
	put("/registry/ranges/serviceips/10.96.0.9", "x", "");
	t.cache = cache_new(t.store, NULL, WINDOW, on_changed, NULL);
	return cache_wait_ready(t.cache, 5000);
}

static int finish(void **state)
{
	(void)state;
	cache_free(t.cache);
	store_free(t.store);
	return 0;
}

static void holds_what_is_stored(void **state)
{
	struct obj_list l;
	struct obj *o;

	(void)state;
	cache_list(t.cache, config_maps(), NULL, &l);
	assert_int_equal(l.n, 2);
	assert_string_equal(l.v[0]->key, "a/two");
	assert_string_equal(l.v[1]->ns, "b");
	assert_string_equal(js_str(l.v[1]->json, "metadata.resourceVersion"), "2");
	obj_list_done(&l);
	cache_list(t.cache, config_maps(), "b", &l);
	assert_int_equal(l.n, 1);
	obj_list_done(&l);
	o = cache_get(t.cache, config_maps(), "a/two");
	assert_non_null(o);
	assert_non_null(strstr(o->text, "\"resourceVersion\":\"3\""));
	obj_unref(o);
	assert_null(cache_get(t.cache, config_maps(), "a/none"));
	assert_true(cache_has_raw(t.cache, "/registry/ranges/serviceips/10.96.0.9"));
}

static void tells_events_in_order(void **state)
{
	struct event ev[WINDOW];
	uint64_t seq, generation;
	int64_t from = cache_rev(t.cache), rev;
	size_t n;

	(void)state;
	put("/registry/configmaps/a/three", "three", "");
	put("/registry/configmaps/a/three", "three", ",\"data\":{}");
	rev = del("/registry/configmaps/a/three");
	assert_int_equal(cache_wait_rev(t.cache, rev, 5000), 0);
	assert_int_equal(cache_event_at(t.cache, from, &seq, &generation), 0);
	assert_int_equal(cache_events(t.cache, generation, seq, ev, WINDOW, &n, &rev), 0);
	assert_int_equal(n, 3);
	assert_int_equal(ev[0].type, EVENT_ADDED);
	assert_null(ev[0].old);
	assert_int_equal(ev[1].type, EVENT_MODIFIED);
	assert_int_equal(ev[2].type, EVENT_DELETED);
	assert_int_equal(ev[2].rev, from + 3);
	assert_ptr_equal(ev[2].old, ev[1].obj);
	assert_non_null(json_object_get(ev[2].obj->json, "data")); /* the last state ... */
	assert_true(strtoll(js_str(ev[2].obj->json, "metadata.resourceVersion"), NULL, 10) ==
		    from + 3); /* ... at the deletion */
	for (size_t i = 0; i < n; i++)
		event_done(&ev[i]);
	assert_true(t.moved > 0);
}

static void forgets_behind_the_window(void **state)
{
	uint64_t seq, generation;
	int64_t from = cache_rev(t.cache), rev = 0, all;
	struct event ev[WINDOW];
	size_t n;

	(void)state;
	assert_int_equal(cache_event_at(t.cache, from, &seq, &generation), 0);
	for (int i = 0; i < WINDOW + 1; i++)
		rev = put("/registry/configmaps/a/busy", "busy", i % 2 ? "" : ",\"data\":{}");
	assert_int_equal(cache_wait_rev(t.cache, rev, 5000), 0);
	assert_int_equal(cache_event_at(t.cache, from, &seq, &generation), -ESTALE);
	assert_int_equal(cache_event_at(t.cache, from + 1, &seq, &generation), 0);
	assert_int_equal(cache_events(t.cache, generation, seq, ev, WINDOW, &n, &all), 0);
	assert_int_equal(n, WINDOW);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(ev[i].rev, from + 2 + (int64_t)i);
		event_done(&ev[i]);
	}
	assert_int_equal(cache_events(t.cache, generation + 1, seq, ev, WINDOW, &n, &all), -ESTALE);
	assert_int_equal(cache_wait_rev(t.cache, rev + 1000, 50), -ETIMEDOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds_what_is_stored),
		cmocka_unit_test(tells_events_in_order),
		cmocka_unit_test(forgets_behind_the_window),
	};

	return cmocka_run_group_tests_name("cache", tests, start, finish);
}
