/* SPDX-License-Identifier: Apache-2.0 */
/* heal, scrub, top: asking all bricks for work or for figures, and showing how it goes. Copies that are behind are brought up to date by the bricks
 * without being asked; `heal` shows it, `heal full` and `scrub` have every byte read and compared with its checksum. */
#include "volume/cmd/internal.h"

#include <time.h>

#define WAIT_LOOKS_MAX 1000000 /* of one waiting command */

static void pause_ms(int64_t ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

int started_volume(struct cmd *c, struct volcfg_volume *v, struct err *e)
{
	int r = get_volume(c, v, e);

	if (r < 0)
		return r;
	if (streq(v->state, "started"))
		return 0;
	r = err_set(e, -EINVAL, "volume %s is not started: kuayu volume start %s", v->map->name,
		    v->map->name);
	volcfg_volume_done(v);
	return r;
}

/* The verb to every brick; those that do not take it are named. */
static int tell(struct cmd *c, const struct vol_map *m, const char *verb, struct err *e)
{
	struct brick_answer *a = NULL;
	uint32_t ok = 0;
	int r = ask_bricks(c, m, verb, &a, e);

	for (uint32_t i = 0; i < m->n_bricks && r == 0; i++) {
		ok += a[i].online && a[i].o;
		if (!a[i].o)
			fprintf(stderr, "brick %s: %s\n", m->brick[i].name, a[i].error);
	}
	answers_free(a, m->n_bricks);
	if (r == 0 && ok == 0)
		return err_set(e, -EHOSTUNREACH, "no brick of volume %s answers", m->name);
	return r;
}

/* ---- heal ---- */

static void progress(const json_t *o)
{
	int64_t left = js_int(o, "heal.bytes_left", 0), done = js_int(o, "heal.bytes_done", 0);
	int percent = left + done > 0 ? (int)(100 * done / (left + done)) : 0;
	char bar[31], a[32], b[32], rate[32];

	for (int i = 0; i < 30; i++)
		bar[i] = i * 100 < percent * 30 ? '#' : '.';
	bar[30] = 0;
	printf("%s[%s] %3d %%  %lld copies out  %lld keys left  %s of %s  %s/s  %lld s left%s",
	       isatty(STDOUT_FILENO) ? "\r\033[K" : "", bar, percent,
	       (long long)js_int(o, "heal.members_out", 0), (long long)js_int(o, "heal.keys_left", 0),
	       bytes_text(a, (uint64_t)done), bytes_text(b, (uint64_t)(done + left)),
	       bytes_text(rate, (uint64_t)js_int(o, "heal.bytes_per_s", 0)),
	       (long long)js_int(o, "heal.seconds_left", 0), isatty(STDOUT_FILENO) ? "" : "\n");
	fflush(stdout);
}

static int heal_wait(struct cmd *c, const struct volcfg_volume *v, struct err *e)
{
	for (int i = 0; i < WAIT_LOOKS_MAX; i++) {
		_cleanup_json_ json_t *o = NULL;
		int r = get_status(c, v, &o, e);

		if (r < 0)
			return r;
		if (js_bool(o, "in_sync", false)) {
			printf("%sall copies in sync\n", isatty(STDOUT_FILENO) ? "\r\033[K" : "");
			return 0;
		}
		progress(o);
		if (c->once)
			return 0;
		pause_ms(c->interval_ms);
	}
	return err_set(e, -ETIMEDOUT, "volume %s is still not in sync", v->map->name);
}

int cmd_heal(struct cmd *c, struct err *e)
{
	const char *what = c->n > 1 ? c->words[1] : "";
	_cleanup_json_ json_t *o = NULL;
	struct volcfg_volume v = {0};
	int r;

	if (what[0] && !streq(what, "info") && !streq(what, "full"))
		return err_set(e, -EINVAL, "heal NAME [info|full], not '%s'", what);
	r = started_volume(c, &v, e);
	if (r < 0)
		return r;
	if (streq(what, "full"))
		r = tell(c, v.map, "heal", e);
	if (r == 0 && c->wait)
		r = heal_wait(c, &v, e);
	else if (r == 0)
		r = get_status(c, &v, &o, e);
	if (r == 0 && o && wants_json(c))
		print_json(o);
	else if (r == 0 && o)
		status_print(o, stdout);
	if (r == 0 && streq(what, "full") && !wants_json(c))
		printf("every brick reads its blocks and repairs what does not fit: kuayu volume scrub %s "
		       "status\n",
		       v.map->name);
	volcfg_volume_done(&v);
	return r;
}

/* ---- scrub ---- */

static void scrub_row(const struct brick_answer *a, json_t *all)
{
	const json_t *s = js_get(a->o, "scrub");
	const char *state = !a->o			   ? "offline"
			    : js_bool(s, "running", false) ? "running"
			    : js_get(s, "stripes")	   ? "done"
							   : "never";

	if (all)
		json_array_append_new(all, json_pack("{s:s,s:s,s:I,s:I}", "brick", a->brick->name, "state",
						     state, "stripes", (json_int_t)js_int(s, "stripes", 0),
						     "bad_blocks", (json_int_t)js_int(s, "bad_blocks", 0)));
	else
		printf("%-10s %-8s %10lld %10lld\n", a->brick->name, state,
		       (long long)js_int(s, "stripes", 0), (long long)js_int(s, "bad_blocks", 0));
}

int cmd_scrub(struct cmd *c, struct err *e)
{
	const char *what = c->n > 1 ? c->words[1] : "start";
	_cleanup_json_ json_t *all = wants_json(c) ? json_array() : NULL;
	struct brick_answer *a = NULL;
	struct volcfg_volume v = {0};
	int r;

	if (!streq(what, "start") && !streq(what, "status"))
		return err_set(e, -EINVAL, "scrub NAME [start|status], not '%s'", what);
	r = started_volume(c, &v, e);
	if (r < 0)
		return r;
	if (streq(what, "start"))
		r = tell(c, v.map, "scrub", e);
	if (r == 0)
		r = ask_bricks(c, v.map, "status", &a, e);
	if (r == 0 && !all)
		printf("%-10s %-8s %10s %10s\n", "BRICK", "SCRUB", "STRIPES", "BAD BLOCKS");
	for (uint32_t i = 0; i < v.map->n_bricks && r == 0; i++)
		scrub_row(&a[i], all);
	if (r == 0 && all)
		print_json(all);
	answers_free(a, v.map->n_bricks);
	volcfg_volume_done(&v);
	return r;
}

/* ---- top ---- */

/* Adds a brick's rows to those of the others: same key, sums. */
static void add_rows(json_t *all, const json_t *rows, const char *key1, const char *key2)
{
	const json_t *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		_cleanup_free_ char *key =
			xasprintf("%s/%lld%s", js_str_or(row, key1, ""), (long long)js_int(row, key2, 0),
				  js_str_or(row, key2, ""));
		json_t *have = json_object_get(all, key);

		if (!have) {
			json_object_set_new(all, key, json_deep_copy(row));
			continue;
		}
		json_object_set_new(have, "ops",
				    json_integer(js_int(have, "ops", 0) + js_int(row, "ops", 0)));
		json_object_set_new(have, "bytes",
				    json_integer(js_int(have, "bytes", 0) + js_int(row, "bytes", 0)));
	}
}

static int by_ops(const void *a, const void *b)
{
	int64_t x = js_int(*(json_t *const *)a, "ops", 0), y = js_int(*(json_t *const *)b, "ops", 0);

	return x < y ? 1 : x > y ? -1 : 0;
}

/* The busiest 20, in order. */
static json_t *busiest(json_t *all)
{
	size_t n = json_object_size(all), i = 0;
	_cleanup_free_ json_t **row = xcalloc(n + 1, sizeof(*row));
	json_t *out = json_array(), *o;
	const char *key;

	json_object_foreach (all, key, o)
		row[i++] = o;
	qsort(row, n, sizeof(*row), by_ops);
	for (i = 0; i < MIN(n, 20u); i++)
		json_array_append(out, row[i]);
	return out;
}

static void print_top(const json_t *files, const json_t *clients, const char *what)
{
	const json_t *o;
	char text[32];
	size_t i;

	if (!streq(what, "clients")) {
		printf("%-34s %12s %12s %12s\n", "FILE: FOLDER ID", "NUMBER", "OPERATIONS", "BYTES");
		json_array_foreach (files, i, o)
			printf("%-34s %12lld %12lld %12s\n", js_str_or(o, "folder", ""),
			       (long long)js_int(o, "num", 0), (long long)js_int(o, "ops", 0),
			       bytes_text(text, (uint64_t)js_int(o, "bytes", 0)));
	}
	if (!streq(what, "files")) {
		printf("%-34s %12s %12s\n", "CLIENT", "OPERATIONS", "BYTES");
		json_array_foreach (clients, i, o)
			printf("%-16s %-17s %12lld %12s\n", js_str_or(o, "client", ""),
			       js_str_or(o, "host", ""), (long long)js_int(o, "ops", 0),
			       bytes_text(text, (uint64_t)js_int(o, "bytes", 0)));
	}
}

static int top_once(struct cmd *c, const struct vol_map *m, const char *what, struct err *e)
{
	_cleanup_json_ json_t *files = json_object(), *clients = json_object(), *f = NULL, *k = NULL;
	struct brick_answer *a = NULL;
	int r = ask_bricks(c, m, "top", &a, e);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < m->n_bricks; i++) {
		add_rows(files, js_get(a[i].o, "files"), "folder", "num");
		add_rows(clients, js_get(a[i].o, "clients"), "client", "host");
	}
	answers_free(a, m->n_bricks);
	f = busiest(files);
	k = busiest(clients);
	if (wants_json(c)) {
		_cleanup_json_ json_t *o = json_pack("{s:O,s:O}", "files", f, "clients", k);

		print_json(o);
	} else {
		if (isatty(STDOUT_FILENO) && !c->once)
			printf("\033[H\033[J");
		print_top(f, k, what);
	}
	fflush(stdout);
	return 0;
}

int cmd_top(struct cmd *c, struct err *e)
{
	const char *what = c->n > 1 ? c->words[1] : "";
	struct volcfg_volume v = {0};
	int r;

	if (what[0] && !streq(what, "files") && !streq(what, "clients"))
		return err_set(e, -EINVAL, "top NAME [files|clients], not '%s'", what);
	r = started_volume(c, &v, e);
	if (r < 0)
		return r;
	r = top_once(c, v.map, what, e);
	/* on a terminal again and again, as top(1); else once */
	for (int i = 0; i < WAIT_LOOKS_MAX && r == 0 && isatty(STDOUT_FILENO) && !c->once && !wants_json(c);
	     i++) {
		pause_ms(c->interval_ms);
		r = top_once(c, v.map, what, e);
	}
	volcfg_volume_done(&v);
	return r;
}
