/* SPDX-License-Identifier: Apache-2.0 */
/* Settings tables: see settings.h. Cold code. */
#include "base/base.h"

static void *field(const struct setting *s, void *out)
{
	return (char *)out + s->offset;
}

static int assign_number(const struct setting *s, const char *value, int64_t *ret, struct err *e)
{
	bool duration = s->type == SETTING_DURATION;
	int64_t min = s->min, max = s->max ? s->max : INT64_MAX, v;
	int r = duration ? str_duration_ms(value, &v) : str_i64(value, &v);

	if (r < 0)
		return err_set(e, -EINVAL, "--%s: '%s' is not a %s", s->name, value,
			       duration ? "duration (examples: 250ms, 2s, 1m)" : "whole number");
	if (v < min || v > max)
		return err_set(e, -EINVAL, "--%s: %s is out of range (%lld to %lld%s)", s->name, value,
			       (long long)min, (long long)max, duration ? " ms" : "");
	*ret = v;
	return 0;
}

static int assign(const struct setting *s, void *out, const char *value, struct err *e)
{
	void *f = field(s, out);

	switch (s->type) {
	case SETTING_STRING:
		free(*(char **)f);
		*(char **)f = xstrdup(value);
		return 0;
	case SETTING_STRINGS: {
		_cleanup_strv_ char **parts = strv_split(value, ',', false);

		for (size_t i = 0; parts[i]; i++)
			*(char ***)f = strv_add(*(char ***)f, parts[i]);
		return 0;
	}
	case SETTING_INT:
	case SETTING_DURATION:
		return assign_number(s, value, f, e);
	case SETTING_BOOL:
		if (!streq(value, "true") && !streq(value, "false"))
			return err_set(e, -EINVAL, "--%s: '%s' is not true or false", s->name, value);
		*(bool *)f = streq(value, "true");
		return 0;
	}
	return -EINVAL;
}

static void help(const char *verb, const char *about, const struct setting *table, size_t n)
{
	printf("Usage: kuayu %s [OPTION ...]\n%s\n\nOptions:\n", verb, about);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *left = xasprintf("--%s%s%s", table[i].name, table[i].arg ? "=" : "",
						      table[i].arg ? table[i].arg : "");

		printf("  %-34s %s", left, table[i].text);
		if (table[i].initial)
			printf(" (default: %s)", table[i].initial);
		putchar('\n');
	}
}

static const struct setting *find(const struct setting *table, size_t n, const char *name, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (strlen(table[i].name) == len && strncmp(table[i].name, name, len) == 0)
			return &table[i];
	return NULL;
}

/* One option at argv[*i]; moves *i over a value that stands as the next word. */
static int option(const char *verb, const struct setting *table, size_t n, int argc, char **argv, int *i,
		  void *out, struct err *e)
{
	const char *name = argv[*i] + 2, *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct setting *s = find(table, n, name, len);

	if (!s && !eq && str_starts(name, "no-") && (s = find(table, n, name + 3, len - 3)) &&
	    s->type == SETTING_BOOL)
		return assign(s, out, "false", e);
	if (!s)
		return err_set(e, -EINVAL, "unknown option --%.*s; see 'kuayu %s --help'", (int)len, name,
			       verb);
	if (eq)
		return assign(s, out, eq + 1, e);
	if (s->type == SETTING_BOOL)
		return assign(s, out, "true", e);
	if (*i + 1 >= argc)
		return err_set(e, -EINVAL, "--%s needs a value (%s)", s->name, s->arg ? s->arg : "VALUE");
	return assign(s, out, argv[++*i], e);
}

static const char *initial(const struct setting *s)
{
	const char *text = s->initial;

	if (!text || text[0] != '$')
		return text;
	text = getenv(text + 1);
	return text && text[0] ? text : NULL;
}

int settings_parse(const char *verb, const char *about, const struct setting *table, size_t n, int argc,
		   char **argv, void *out, char ***ret_words, struct err *e)
{
	_cleanup_free_ char **words = xcalloc((size_t)argc + 1, sizeof(char *));
	size_t n_words = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		if (initial(&table[i]) && (r = assign(&table[i], out, initial(&table[i]), e)) < 0)
			return r;
	for (int i = 1; i < argc; i++) {
		if (streq(argv[i], "--help") || streq(argv[i], "-h")) {
			help(verb, about, table, n);
			return 1;
		}
		if (str_starts(argv[i], "--")) {
			r = option(verb, table, n, argc, argv, &i, out, e);
			if (r < 0)
				return r;
		} else if (ret_words) {
			words[n_words++] = argv[i];
		} else {
			return err_set(e, -EINVAL, "unexpected word '%s'; see 'kuayu %s --help'", argv[i],
				       verb);
		}
	}
	if (ret_words)
		*ret_words = take_ptr(words);
	return 0;
}

void settings_done(const struct setting *table, size_t n, void *out)
{
	for (size_t i = 0; i < n; i++) {
		if (table[i].type == SETTING_STRING) {
			free(*(char **)field(&table[i], out));
			*(char **)field(&table[i], out) = NULL;
		} else if (table[i].type == SETTING_STRINGS) {
			*(char ***)field(&table[i], out) = strv_free(*(char ***)field(&table[i], out));
		}
	}
}

int settings_main(const char *verb, const char *about, const struct setting *table, size_t n, int argc,
		  char **argv, void *out, int (*run)(void *out, struct err *e))
{
	struct err e = {0};
	int r = settings_parse(verb, about, table, n, argc, argv, out, NULL, &e);

	if (r == 0) {
		log_init(verb, LOG_LEVEL_INFO);
		r = run(out, &e);
	}
	if (r < 0)
		fprintf(stderr, "kuayu %s: %s\n", verb, e.text);
	settings_done(table, n, out);
	return r < 0 ? 1 : 0;
}
