/* SPDX-License-Identifier: Apache-2.0 */
/* base: buffers and limits, maps against a plain array, times, numbers, settings, files, JSON paths. */
#include "test.h"

static void buf_limit(void **state)
{
	_cleanup_buf_ struct buf b = {.limit = 8};

	(void)state;
	assert_int_equal(buf_adds(&b, "1234"), 0);
	assert_int_equal(buf_addf(&b, "%d", 5678), 0);
	assert_int_equal(buf_adds(&b, "9"), -EMSGSIZE);
	assert_string_equal(b.data, "12345678");
	buf_skip(&b, 4);
	assert_string_equal(b.data, "5678");
}

static void strmap_against_array(void **state)
{
	struct strmap *m = strmap_new();
	void *mirror[64] = {0};
	unsigned seed = 7;
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		int k = rand_r(&seed) % 64;
		char key[16];

		snprintf(key, sizeof(key), "key%d", k);
		if (rand_r(&seed) % 3) {
			assert_ptr_equal(strmap_set(m, key, (void *)(intptr_t)(i + 1)), mirror[k]);
			mirror[k] = (void *)(intptr_t)(i + 1);
		} else {
			assert_ptr_equal(strmap_del(m, key), mirror[k]);
			mirror[k] = NULL;
		}
		assert_ptr_equal(strmap_get(m, key), mirror[k]);
	}
	for (int k = 0; k < 64; k++)
		n += mirror[k] != NULL;
	assert_int_equal(strmap_len(m), n);
	strmap_free(m, NULL);
}

static void times(void **state)
{
	char text[CLOCK_TEXT_MAX];
	int64_t us;

	(void)state;
	assert_int_equal(clock_parse("2026-11-22T12:34:56.789012Z", &us), 0);
	assert_string_equal(clock_text(text, us, 6), "2026-11-22T12:34:56.789012Z");
	assert_int_equal(clock_parse("2026-11-22T14:34:56+02:00", &us), 0);
	assert_string_equal(clock_text(text, us, 0), "2026-11-22T12:34:56Z");
	assert_int_equal(clock_parse("2026-11-22", &us), -EINVAL);
	assert_int_equal(clock_parse("2026-13-22T12:34:56Z", &us), -EINVAL);
}

static void numbers(void **state)
{
	int64_t v;

	(void)state;
	assert_int_equal(str_i64("-42", &v), 0);
	assert_int_equal(v, -42);
	assert_int_equal(str_i64("42x", &v), -EINVAL);
	assert_int_equal(str_i64("99999999999999999999", &v), -ERANGE);
	assert_int_equal(str_duration_ms("1.5s", &v), 0);
	assert_int_equal(v, 1500);
	assert_int_equal(str_duration_ms("5 s", &v), -EINVAL);
}

struct demo {
	char *name, *place;
	char **list;
	int64_t port, wait;
	bool flag;
};

static const struct setting demo_settings[] = {
	{"name", SETTING_STRING, offsetof(struct demo, name), "x", 0, 0, "NAME", "a name"},
	{"place", SETTING_STRING, offsetof(struct demo, place), "$KUAYU_TEST_PLACE", 0, 0, "P", "a place"},
	{"list", SETTING_STRINGS, offsetof(struct demo, list), NULL, 0, 0, "A,B", "a list"},
	{"port", SETTING_INT, offsetof(struct demo, port), "80", 1, 65535, "PORT", "a port"},
	{"wait", SETTING_DURATION, offsetof(struct demo, wait), "2s", 0, 0, "TIME", "a time"},
	{"flag", SETTING_BOOL, offsetof(struct demo, flag), "true", 0, 0, NULL, "a switch"},
};

static int parse_demo(struct demo *d, struct err *e, char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	*d = (struct demo){0};
	return settings_parse("demo", "test", demo_settings, ARRAY_SIZE(demo_settings), argc, argv, d, NULL,
			      e);
}

static void settings(void **state)
{
	struct err e = {0};
	struct demo d;

	(void)state;
	assert_int_equal(parse_demo(&d, &e,
				    (char *[]){"demo", "--list=a,b", "--list", "c", "--no-flag",
					       "--wait=250ms", NULL}),
			 0);
	assert_string_equal(d.name, "x");
	assert_int_equal(strv_len(d.list), 3);
	assert_int_equal(d.wait, 250);
	assert_int_equal(d.port, 80);
	assert_false(d.flag);
	assert_null(d.place);
	settings_done(demo_settings, ARRAY_SIZE(demo_settings), &d);
	setenv("KUAYU_TEST_PLACE", "there", 1);
	assert_int_equal(parse_demo(&d, &e, (char *[]){"demo", NULL}), 0);
	assert_string_equal(d.place, "there");
	settings_done(demo_settings, ARRAY_SIZE(demo_settings), &d);
	assert_int_equal(parse_demo(&d, &e, (char *[]){"demo", "--place=here", NULL}), 0);
	assert_string_equal(d.place, "here");
	settings_done(demo_settings, ARRAY_SIZE(demo_settings), &d);
	unsetenv("KUAYU_TEST_PLACE");
	assert_int_equal(parse_demo(&d, &e, (char *[]){"demo", "--port=70000", NULL}), -EINVAL);
	assert_non_null(strstr(e.text, "--port"));
	settings_done(demo_settings, ARRAY_SIZE(demo_settings), &d);
	assert_int_equal(parse_demo(&d, &e, (char *[]){"demo", "--nosuch", NULL}), -EINVAL);
	assert_non_null(strstr(e.text, "--nosuch"));
	settings_done(demo_settings, ARRAY_SIZE(demo_settings), &d);
}

static void files(void **state)
{
	_cleanup_free_ char *text = NULL;
	char dir[] = "/tmp/kuayu-test-XXXXXX";
	char path[64];
	size_t len;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a/b/c", dir);
	assert_int_equal(dir_make(path, 0755, NULL), 0);
	assert_int_equal(dir_make(path, 0755, NULL), 0);
	strcat(path, "/f");
	assert_int_equal(file_write_atomic(path, "hello", 5, 0600, NULL), 0);
	assert_int_equal(file_read(path, 5, &text, &len, NULL), 0);
	assert_string_equal(text, "hello");
	free(take_ptr(text));
	assert_int_equal(file_read(path, 4, &text, &len, NULL), -EFBIG);
	assert_int_equal(dir_remove(dir, NULL), 0);
	assert_int_not_equal(access(dir, F_OK), 0);
	assert_int_equal(dir_remove(dir, NULL), 0);
}

static void json_paths(void **state)
{
	static const char in[] = "{\"a\":{\"b\":[1],\"s\":\"t\"}}";
	_cleanup_json_ json_t *o = NULL;
	_cleanup_free_ char *text = NULL;
	struct err e;

	(void)state;
	assert_int_equal(js_parse_new(in, strlen(in), &o, &e), 0);
	assert_string_equal(js_str(o, "a.s"), "t");
	assert_null(js_str(o, "a.b.c"));
	assert_int_equal(js_set_new(o, "a.x.y", json_integer(3)), 0);
	assert_int_equal(js_int(o, "a.x.y", 0), 3);
	assert_int_equal(js_set_new(o, "a.s.z", json_integer(3)), -EINVAL);
	js_del(o, "a.b");
	js_del(o, "no.such");
	text = js_text(o);
	assert_string_equal(text, "{\"a\":{\"s\":\"t\",\"x\":{\"y\":3}}}");
}

static void json_refused(void **state)
{
	_cleanup_buf_ struct buf b = {0};
	json_t *o = NULL;
	struct err e;

	(void)state;
	assert_int_equal(js_parse_new("{\"a\":1,\"a\":2}", strlen("{\"a\":1,\"a\":2}"), &o, &e), -EINVAL);
	for (int i = 0; i < 200; i++)
		buf_adds(&b, "[");
	for (int i = 0; i < 200; i++)
		buf_adds(&b, "]");
	assert_int_equal(js_parse_new(b.data, b.len, &o, &e), -EINVAL);
	assert_null(o);
}

/* Looks every 10 ms, n events in each. When is it held for the first time from then on, when no more? In looks; -1 = never. */
static int looks_until(struct awake *a, uint64_t n, bool held, uint64_t *events, uint64_t *now)
{
	for (int i = 0; i < 100; i++) {
		*events += n;
		*now += 10;
		a->held = awake_step(a, *events, *now);
		if (a->held == held)
			return i;
	}
	return -1;
}

static void awake_follows_work(void **state)
{
	struct awake a = AWAKE_OFF;
	uint64_t events = 1000000, now = 5;

	(void)state;
	assert_false(awake_step(&a, events, now)); /* what was before does not count */
	assert_int_equal(looks_until(&a, 14, true, &events, &now), -1);
	assert_int_equal(looks_until(&a, 15, true, &events, &now), 0);
	assert_int_equal(looks_until(&a, 5, false, &events, &now), -1); /* 500 a second keep it */
	assert_int_equal(looks_until(&a, 0, false, &events, &now), 9);
	assert_int_equal(looks_until(&a, 0, true, &events, &now), -1);
	assert_int_equal(looks_until(&a, 15, true, &events, &now), 0);
	now += 60000; /* a look that was late: few events for its time */
	a.held = awake_step(&a, ++events, now);
	assert_false(a.held);
	awake_look(&a, events + 1000, now + 10); /* off: nothing */
	assert_false(a.held);
}

TEST_MAIN(cmocka_unit_test(awake_follows_work), cmocka_unit_test(buf_limit),
	  cmocka_unit_test(strmap_against_array), cmocka_unit_test(times), cmocka_unit_test(numbers),
	  cmocka_unit_test(settings), cmocka_unit_test(files), cmocka_unit_test(json_paths),
	  cmocka_unit_test(json_refused))
