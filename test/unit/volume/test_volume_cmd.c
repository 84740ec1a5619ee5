/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu volume: its verbs against a store in memory with bricks that are registered but do not answer, what is refused and with which words, and how
 * the bricks' answers become one status. */
#include <fcntl.h>

#include "test.h"
#include "volume/cmd/internal.h"

struct fixture {
	struct cmd c;
	struct err e;
	char *words[40];
	int out, saved;
};

static void brick(struct fixture *f, const char *name)
{
	struct volcfg_brick b = {.incarnation = 1};
	int64_t lease;

	snprintf(b.brick.name, sizeof(b.brick.name), "%s", name);
	snprintf(b.brick.domain, sizeof(b.brick.domain), "%c", name[0]);
	snprintf(b.brick.address, sizeof(b.brick.address), "127.0.0.1:1");
	snprintf(b.brick.path, sizeof(b.brick.path), "/brick");
	assert_int_equal(volcfg_register(f->c.store, &b, &lease, NULL), 0);
}

/* The verb's text goes to a file that is thrown away. */
static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	static const char *const names[] = {"a1", "b1", "c1", "a2", "b2", "c2"};

	assert_int_equal(store_open("mem:", NULL, &f->c.store, NULL), 0);
	f->c.output = xstrdup("text");
	f->c.timeout_ms = 500;
	f->c.yes = true;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		brick(f, names[i]);
	fflush(stdout);
	f->saved = dup(STDOUT_FILENO);
	f->out = open("/dev/null", O_WRONLY | O_CLOEXEC);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	store_free(f->c.store);
	free(f->c.output);
	close(f->saved);
	close(f->out);
	free(f);
	return 0;
}

/* Runs a verb with words in one string; its result. */
static int verb(struct fixture *f, int (*fn)(struct cmd *, struct err *), const char *words)
{
	_cleanup_strv_ char **w = strv_split(words, ' ', false);
	int r;

	f->c.words = w;
	f->c.n = strv_len(w);
	f->e = (struct err){0};
	fflush(stdout);
	dup2(f->out, STDOUT_FILENO);
	r = fn(&f->c, &f->e);
	fflush(stdout);
	dup2(f->saved, STDOUT_FILENO);
	f->c.words = NULL;
	return r;
}

static void refused(struct fixture *f, int (*fn)(struct cmd *, struct err *), const char *words,
		    const char *text)
{
	int r = verb(f, fn, words);

	if (r >= 0 || !strstr(f->e.text, text))
		fail_msg("%s: %d, '%s' does not say '%s'", words, r, f->e.text, text);
}

static void test_create(void **state)
{
	struct fixture *f = *state;
	struct volcfg_volume v = {0};

	refused(f, cmd_create, "logs replica 3 a1:/brick b1:/brick", "3 make a replicated volume");
	refused(f, cmd_create, "logs replica x a1:/brick", "must be followed by a number");
	refused(f, cmd_create, "logs replica 3 a1 b1 c1", "NODE:/PATH");
	refused(f, cmd_create, "logs replica 3 a1:/brick b1:/brick z9:/brick", "no brick runs on node z9");
	refused(f, cmd_create, "logs replica 3 a1:/brick b1:/brick c1:/other", "keeps its data in /brick");
	refused(f, cmd_create, "logs replica 3 a1:/brick a2:/brick b1:/brick", "different domains");
	refused(f, cmd_create, "logs stripe 3 a1:/brick b1:/brick c1:/brick", "--without-copies");
	refused(f, cmd_create, "Logs replica 3 a1:/brick b1:/brick c1:/brick", "no volume name");
	refused(f, cmd_create, "logs replica 3", "no bricks were named");
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), -ENOENT);
	assert_int_equal(
		verb(f, cmd_create,
		     "logs replica 3 stripe 2 a1:/brick/ b1:/brick c1:/brick a2:/brick b2:/brick c2:/brick"),
		0);
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), 0);
	assert_int_equal(v.map->replica, 3);
	assert_int_equal(v.map->stripe, 2);
	assert_string_equal(v.map->brick[4].domain, "b");
	assert_string_equal(v.map->brick[0].path, "/brick");
	assert_string_equal(v.state, "created");
	volcfg_volume_done(&v);
	refused(f, cmd_create, "logs replica 3 a1:/brick b1:/brick c1:/brick", "exists");
	f->c.dry_run = true;
	assert_int_equal(verb(f, cmd_create, "other replica 3 a1:/brick b1:/brick c1:/brick"), 0);
	f->c.dry_run = false;
	assert_int_equal(volcfg_get(f->c.store, "other", &v, NULL), -ENOENT);
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	struct volcfg_volume v = {0};

	assert_int_equal(verb(f, cmd_create, "logs replica 3 a1:/brick b1:/brick c1:/brick"), 0);
	refused(f, cmd_start, "nope", "there is no volume 'nope'");
	refused(f, cmd_stop, "logs", "not started");
	refused(f, cmd_scrub, "logs", "kuayu volume start logs");
	/* never started: it may grow */
	assert_int_equal(verb(f, cmd_expand, "logs a2:/brick b2:/brick c2:/brick"), 0);
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), 0);
	assert_int_equal(v.map->n_bricks, 6);
	volcfg_volume_done(&v);
	assert_int_equal(verb(f, cmd_start, "logs"), 0);
	refused(f, cmd_start, "logs", "started already");
	refused(f, cmd_delete, "logs", "kuayu volume stop logs");
	brick(f, "a3");
	brick(f, "b3");
	brick(f, "c3");
	refused(f, cmd_expand, "logs a3:/brick", "add 3, 6 or 9");
	/* started: it grows too, and its groups move; a brick is replaced by another of its domain */
	assert_int_equal(verb(f, cmd_expand, "logs a3:/brick b3:/brick c3:/brick"), 0);
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), 0);
	assert_int_equal(v.map->n_bricks, 9);
	assert_string_equal(v.state, "started");
	volcfg_volume_done(&v);
	brick(f, "a4");
	brick(f, "b4");
	refused(f, cmd_replace_brick, "logs a1:/brick b4:/brick", "name a brick in domain a");
	refused(f, cmd_replace_brick, "logs x1:/brick a4:/brick", "no brick on node x1");
	refused(f, cmd_replace_brick, "logs a1:/brick a2:/brick", "node a2 has, or had, a brick");
	refused(f, cmd_replace_brick, "logs a1:/other a4:/brick", "not in /other");
	refused(f, cmd_replace_brick, "logs a1:/brick a4:/brick now", "replace-brick NAME");
	assert_int_equal(verb(f, cmd_replace_brick, "logs a1:/brick a4:/brick commit force"), 0);
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), 0);
	assert_int_equal(vol_bricks_active(v.map), 9);
	assert_true(v.map->brick[0].retired && streq(v.map->brick[9].name, "a4"));
	for (uint32_t g = 0; g < v.map->n_groups; g++)
		assert_int_equal(vol_group_member(v.map, g, 0), -1);
	volcfg_volume_done(&v);
	refused(f, cmd_scrub, "logs", "no brick of volume logs answers");
	assert_int_equal(verb(f, cmd_info, "logs"), 0);
	assert_int_equal(verb(f, cmd_list, ""), 0);
	assert_int_equal(verb(f, cmd_bricks, ""), 0);
	assert_int_equal(verb(f, cmd_status, "logs"), 0);
	assert_int_equal(verb(f, cmd_stop, "logs"), 0);
	assert_int_equal(verb(f, cmd_delete, "logs"), 0);
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), -ENOENT);
}

static void test_options(void **state)
{
	struct fixture *f = *state;
	struct volcfg_volume v = {0};
	uint64_t generation;

	assert_int_equal(verb(f, cmd_create, "logs replica 3 a1:/brick b1:/brick c1:/brick"), 0);
	refused(f, cmd_set, "logs color red", "no option 'color'");
	refused(f, cmd_set, "logs write-quorum 4", "number of 1 to 3");
	refused(f, cmd_set, "logs write-quorum 0", "number of 1 to 3");
	refused(f, cmd_set, "logs read-policy fastest", "primary|local");
	refused(f, cmd_set, "logs write-quorum", "usage");
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), 0);
	generation = v.map->generation;
	volcfg_volume_done(&v);
	assert_int_equal(verb(f, cmd_set, "logs write-quorum 1 read-policy local"), 0);
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), 0);
	assert_int_equal(v.map->write_quorum, 1);
	assert_true(v.map->generation > generation);
	assert_string_equal(js_str(v.options, "read-policy"), "local");
	volcfg_volume_done(&v);
	assert_int_equal(verb(f, cmd_reset, "logs"), 0);
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), 0);
	assert_int_equal(v.map->write_quorum, 2);
	assert_int_equal(json_object_size(v.options), 0);
	volcfg_volume_done(&v);
	/* every default passes its own check */
	for (size_t i = 0; i < n_vol_options; i++) {
		struct vol_map m = {.replica = 3};

		assert_int_equal(vol_option_check(&vol_options[i], &m, vol_options[i].initial, &f->e), 0);
	}
}

static json_t *group_said(int epoch, const char *primary, const char *isr, int seq, const char *role,
			  int keys, int bytes)
{
	json_t *o = json_pack("{s:i,s:i,s:s,s:i,s:s,s:[]}", "group", 0, "epoch", epoch, "primary", primary,
			      "seq", seq, "role", role, "isr");
	_cleanup_strv_ char **names = strv_split(isr, ' ', false);

	for (size_t i = 0; names[i]; i++)
		json_array_append_new(json_object_get(o, "isr"), json_string(names[i]));
	if (keys >= 0)
		json_object_set_new(o, "heal",
				    json_pack("{s:i,s:i,s:i,s:i,s:i}", "keys_left", keys, "bytes_left", bytes,
					      "bytes_done", 500, "bytes_per_s", 100, "seconds_left",
					      bytes / 100));
	return o;
}

/* Three bricks, one group looked at: a stale view in the store, one member that heals, one that does not answer. */
static void test_merge(void **state)
{
	struct fixture *f = *state;
	struct volcfg_volume v = {0};
	struct brick_answer a[3] = {0};
	struct repl_view *views;
	_cleanup_json_ json_t *o = NULL;
	const json_t *g, *m;
	const char *name[3];

	f->c.groups = 1;
	assert_int_equal(verb(f, cmd_create, "logs replica 3 a1:/brick b1:/brick c1:/brick"), 0);
	f->c.groups = 0;
	assert_int_equal(volcfg_get(f->c.store, "logs", &v, NULL), 0);
	assert_int_equal(v.map->n_groups, 1);
	views = xcalloc(1, sizeof(*views));
	for (uint32_t i = 0; i < 3; i++) {
		a[i].brick = &v.map->brick[i];
		name[i] = v.map->brick[v.map->group[0].brick[i]].name;
	}
	/* nobody has led yet */
	o = status_merge(&v, views, a);
	assert_false(js_bool(o, "in_sync", true));
	assert_int_equal(js_int(o, "heal.members_out", 0), 3);
	json_decref(o);
	/* the store says epoch 3, all in sync; the primary knows better */
	views[0] = (struct repl_view){.epoch = 3, .primary = 0, .isr = 7};
	uint32_t p = v.map->group[0].brick[0], h = v.map->group[0].brick[1];
	a[p].online = a[h].online = true;
	a[p].o = json_pack("{s:i,s:I,s:[o]}", "pid", 11, "bytes_free", (json_int_t)5000000000, "groups",
			   group_said(4, name[0], name[0], 100, "primary", -1, 0));
	a[h].o = json_pack("{s:i,s:[o]}", "pid", 12, "groups",
			   group_said(4, name[0], name[0], 60, "catching", 7, 3000));
	o = status_merge(&v, views, a);
	assert_false(js_bool(o, "in_sync", true));
	assert_int_equal(js_int(o, "heal.members_out", 0), 2);
	assert_int_equal(js_int(o, "heal.bytes_left", 0), 3000);
	assert_int_equal(js_int(o, "heal.bytes_per_s", 0), 100);
	assert_int_equal(js_int(o, "heal.seconds_left", 0), 30);
	g = json_array_get(js_get(o, "groups"), 0);
	assert_int_equal(js_int(g, "epoch", 0), 4);
	assert_string_equal(js_str(g, "primary"), name[0]);
	assert_int_equal(json_array_size(js_get(g, "isr")), 1);
	m = json_array_get(js_get(g, "members"), 1);
	assert_string_equal(js_str(m, "role"), "catching");
	assert_int_equal(js_int(m, "heal.keys_left", 0), 7);
	m = json_array_get(js_get(g, "members"), 2);
	assert_string_equal(js_str(m, "role"), "offline");
	assert_int_equal(js_int(m, "heal.keys_left", 0), 100); /* all that the newest member has */
	m = json_array_get(js_get(o, "bricks"), p);
	assert_int_equal(js_int(m, "groups_primary", 0), 1);
	assert_int_equal(js_int(m, "bytes_free", 0), 5000000000);
	json_decref(o);
	/* all in sync */
	views[0] = (struct repl_view){.epoch = 5, .primary = 1, .isr = 7};
	o = status_merge(&v, views, a);
	assert_true(js_bool(o, "in_sync", false));
	assert_int_equal(js_int(o, "heal.keys_left", 1), 0);
	assert_string_equal(js_str(json_array_get(js_get(o, "groups"), 0), "primary"), name[1]);
	for (uint32_t i = 0; i < 3; i++)
		json_decref(a[i].o);
	free(views);
	volcfg_volume_done(&v);
}

static void test_bytes(void **state)
{
	char t[32];

	assert_string_equal(bytes_text(t, 0), "0 B");
	assert_string_equal(bytes_text(t, 1023), "1023 B");
	assert_string_equal(bytes_text(t, 1536), "1.5 KiB");
	assert_string_equal(bytes_text(t, (uint64_t)5 << 40), "5.0 TiB");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
TEST_MAIN(T(test_create), T(test_life), T(test_options), T(test_merge), T(test_bytes))
