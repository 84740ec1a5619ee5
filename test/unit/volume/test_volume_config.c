/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes, bricks and views in a store, and following them. */
#include "test.h"

#include "volume/config.h"

static struct store *open_store(void)
{
	struct store *s;
	struct err e = {0};

	assert_int_equal(store_open("mem:", NULL, &s, &e), 0);
	return s;
}

static struct volcfg_volume volume(const char *name, uint32_t groups)
{
	struct volcfg_volume v = {.state = "created", .options = json_pack("{s:s}", "heal-window", "8")};
	struct vol_brick b[3] = {0};
	struct vol_id uuid;
	struct err e = {0};

	random_bytes(&uuid, sizeof(uuid));
	for (int i = 0; i < 3; i++) {
		snprintf(b[i].name, sizeof(b[i].name), "%c1", 'a' + i);
		snprintf(b[i].domain, sizeof(b[i].domain), "%c", 'a' + i);
		snprintf(b[i].address, sizeof(b[i].address), "10.0.0.%d:7710", i + 1);
		strcpy(b[i].path, "/brick");
		b[i].weight = 100;
	}
	assert_int_equal(vol_map_make(name, &uuid, 3, 1, b, 3, groups, false, &v.map, &e), 0);
	return v;
}

static void volumes_come_back_as_they_were(void **st)
{
	struct store *s = open_store();
	struct volcfg_volume v = volume("logs", 128), w = volume("logs2", 4), got = {0};
	struct repl_view view;
	struct err e = {0};
	const char *option;
	char **names;
	int64_t rev;
	size_t n;

	(void)st;
	assert_int_equal(volcfg_get(s, "logs", &got, &e), -ENOENT);
	assert_int_equal(volcfg_create(s, &v, &e), 0);
	assert_int_equal(volcfg_create(s, &v, &e), -EEXIST);
	assert_int_equal(volcfg_create(s, &w, &e), 0);
	assert_int_equal(volcfg_get(s, "logs", &got, &e), 0);
	assert_int_equal(got.map->n_groups, 128);
	assert_true(vol_id_eq(&got.map->uuid, &v.map->uuid));
	assert_string_equal(got.state, "created");
	assert_int_equal(volcfg_option(&got, "heal-window", &option), 0);
	assert_string_equal(option, "8");
	assert_int_equal(volcfg_option(&got, "colour", &option), -ENOENT);
	for (uint32_t g = 0; g < 128; g++) {
		assert_int_equal(volcfg_view_get(s, got.map, g, &view, &rev, &e), 0);
		assert_int_equal(view.epoch, 0);
		assert_int_equal(view.isr, 7);
	}
	strcpy(got.state, "started");
	assert_int_equal(volcfg_put(s, &got, &e), 0);
	assert_int_equal(volcfg_put(s, &got, &e), -EAGAIN); /* its revision is old now */
	volcfg_volume_done(&got);
	assert_int_equal(volcfg_get(s, "logs", &got, &e), 0);
	assert_string_equal(got.state, "started");
	assert_true(got.map->started);
	volcfg_volume_done(&got);
	assert_int_equal(volcfg_list(s, &names, &n, NULL, &e), 0);
	assert_int_equal(n, 2);
	strv_free(names);
	assert_int_equal(volcfg_delete(s, "logs", &e), 0);
	assert_int_equal(volcfg_get(s, "logs", &got, &e), -ENOENT);
	assert_int_equal(volcfg_view_get(s, v.map, 0, &view, &rev, &e), -ENOENT);
	assert_int_equal(volcfg_view_get(s, w.map, 0, &view, &rev, &e), 0);
	volcfg_volume_done(&v);
	volcfg_volume_done(&w);
	store_free(s);
}

static void views_change_by_compare_and_swap(void **st)
{
	struct store *s = open_store();
	struct volcfg_volume v = volume("logs", 4);
	struct repl_view next = {.epoch = 1, .primary = 2, .isr = 6, .fork = 1}, now = {0}, get;
	struct err e = {0};
	int64_t rev;

	(void)st;
	assert_int_equal(volcfg_create(s, &v, &e), 0);
	assert_int_equal(volcfg_view_cas(s, v.map, 1, 0, &next, &now, &e), 0);
	assert_int_equal(volcfg_view_get(s, v.map, 1, &get, &rev, &e), 0);
	assert_int_equal(get.epoch, 1);
	assert_int_equal(get.primary, 2);
	assert_int_equal(get.isr, 6);
	assert_int_equal(get.fork, 1);
	next.primary = 1;
	assert_int_equal(volcfg_view_cas(s, v.map, 1, 0, &next, &now, &e), -EEXIST);
	assert_int_equal(now.primary, 2);
	volcfg_volume_done(&v);
	store_free(s);
}

static void bricks_are_there_while_their_lease_is(void **st)
{
	struct store *s = open_store();
	struct volcfg_brick b = {.brick = {.name = "a1",
					   .domain = "a",
					   .address = "1.2.3.4:7710",
					   .path = "/b"},
				 .incarnation = 77},
			    *got;
	struct err e = {0};
	int64_t lease;
	size_t n;

	(void)st;
	assert_int_equal(volcfg_register(s, &b, &lease, &e), 0);
	assert_int_equal(volcfg_bricks(s, &got, &n, &e), 0);
	assert_int_equal(n, 1);
	assert_string_equal(got[0].brick.address, "1.2.3.4:7710");
	assert_int_equal(got[0].incarnation, 77);
	free(got);
	assert_int_equal(store_lease_revoke(s, lease, &e), 0);
	assert_int_equal(volcfg_bricks(s, &got, &n, &e), 0);
	assert_int_equal(n, 0);
	free(got);
	store_free(s);
}

struct seen {
	_Atomic int volumes, gone, views, epoch;
};

static void on_volume(void *ctx, const struct volcfg_volume *v)
{
	struct seen *x = ctx;

	if (v)
		x->volumes++;
	else
		x->gone++;
}

static void on_view(void *ctx, uint32_t group, const struct repl_view *v)
{
	struct seen *x = ctx;

	x->views++;
	if (group == 3)
		x->epoch = (int)v->epoch;
}

static bool soon(_Atomic int *what, int value)
{
	for (int i = 0; i < 3000 && *what != value; i++)
		usleep(1000);
	return *what == value;
}

static void a_watch_tells_all_and_then_changes(void **st)
{
	struct store *s = open_store();
	struct volcfg_volume v = volume("logs", 4), other = volume("logs2", 4);
	struct repl_view next = {.epoch = 1, .isr = 7}, now;
	struct seen x = {0};
	const struct volcfg_handler h = {on_volume, on_view, &x};
	struct volcfg_watch *w;
	struct err e = {0};

	(void)st;
	assert_int_equal(volcfg_create(s, &v, &e), 0);
	assert_int_equal(volcfg_create(s, &other, &e), 0);
	assert_int_equal(volcfg_watch(s, "logs", &h, &w, &e), 0);
	assert_int_equal(x.volumes, 1);
	assert_int_equal(x.views, 4);
	assert_int_equal(volcfg_view_cas(s, v.map, 3, 0, &next, &now, &e), 0);
	assert_true(soon(&x.epoch, 1));
	assert_int_equal(volcfg_delete(s, "logs", &e), 0);
	assert_true(soon(&x.gone, 1));
	assert_int_equal(x.volumes, 1);
	volcfg_watch_free(w);
	volcfg_volume_done(&v);
	volcfg_volume_done(&other);
	store_free(s);
}

TEST_MAIN(cmocka_unit_test(volumes_come_back_as_they_were),
	  cmocka_unit_test(views_change_by_compare_and_swap),
	  cmocka_unit_test(bricks_are_there_while_their_lease_is),
	  cmocka_unit_test(a_watch_tells_all_and_then_changes))
