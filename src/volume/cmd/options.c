/* SPDX-License-Identifier: Apache-2.0 */
/* options: one table for everything `kuayu volume set` takes: check, defaults and help come out of it. */
#include "volume/cmd/internal.h"

const struct vol_option vol_options[] = {
	{"write-quorum", "2", NULL, 1, 0,
	 "copies that must be in sync for changes; with fewer the volume is read-only until one is back. 1: "
	 "the last copy alone goes on"},
	{"read-policy", "primary", "primary|local", 0, 0,
	 "who answers reads: the group's primary, or the in-sync copy in the reader's own domain (kuayu "
	 "mount --domain)"},
	{"heal-window", "16", NULL, 1, 64,
	 "fetches in flight a brick while it is brought up to date and no client is active (else 4)"},
};
const size_t n_vol_options = ARRAY_SIZE(vol_options);

const struct vol_option *vol_option_find(const char *name)
{
	for (size_t i = 0; i < n_vol_options; i++)
		if (streq(vol_options[i].name, name))
			return &vol_options[i];
	return NULL;
}

int vol_option_check(const struct vol_option *o, const struct vol_map *m, const char *value, struct err *e)
{
	int64_t n, max = o->max ? o->max : m->replica;

	if (o->values) {
		_cleanup_strv_ char **all = strv_split(o->values, '|', false);

		if (strv_has(all, value))
			return 0;
		return err_set(e, -EINVAL, "%s: '%s' is not one of %s", o->name, value, o->values);
	}
	if (str_i64(value, &n) < 0 || n < o->min || n > max)
		return err_set(e, -EINVAL, "%s: '%s' is not a number of %lld to %lld", o->name, value,
			       (long long)o->min, (long long)max);
	return 0;
}

void vol_option_apply(const struct vol_option *o, struct volcfg_volume *v, const char *value)
{
	int64_t n = 0;

	if (value)
		json_object_set_new(v->options, o->name, json_string(value));
	else
		json_object_del(v->options, o->name);
	if (streq(o->name, "write-quorum")) {
		(void)str_i64(value ? value : o->initial, &n);
		v->map->write_quorum = (uint32_t)CLAMP(n, 1, (int64_t)v->map->replica);
		v->map->generation++;
	}
}

int cmd_reset(struct cmd *c, struct err *e)
{
	struct volcfg_volume v = {0};
	int r = get_volume(c, &v, e);

	if (r < 0)
		return r;
	if (c->n == 2 && !vol_option_find(c->words[1]))
		r = err_set(e, -EINVAL, "no option '%s'; 'kuayu volume set help' lists them", c->words[1]);
	for (size_t i = 0; i < n_vol_options && r == 0; i++)
		if (c->n < 2 || streq(c->words[1], vol_options[i].name))
			vol_option_apply(&vol_options[i], &v, NULL);
	if (r == 0)
		r = volcfg_put(c->store, &v, e);
	if (r == 0)
		printf("volume %s: %s as by default\n", v.map->name, c->n == 2 ? c->words[1] : "all options");
	volcfg_volume_done(&v);
	return r;
}

static void print_help(void)
{
	for (size_t i = 0; i < n_vol_options; i++) {
		const struct vol_option *o = &vol_options[i];
		_cleanup_free_ char *range =
			o->values ? xstrdup(o->values)
			: o->max  ? xasprintf("%lld..%lld", (long long)o->min, (long long)o->max)
				  : xasprintf("%lld..replica", (long long)o->min);

		printf("%-14s %-14s default %-9s %s\n", o->name, range, o->initial, o->text);
	}
}

/* set NAME OPTION VALUE [OPTION VALUE ...] */
int cmd_set(struct cmd *c, struct err *e)
{
	struct volcfg_volume v = {0};
	int r;

	if (c->n == 1 && streq(c->words[0], "help")) {
		print_help();
		return 0;
	}
	if (c->n < 3 || c->n % 2 == 0)
		return err_set(e, -EINVAL,
			       "usage: kuayu volume set NAME OPTION VALUE ...; 'kuayu volume set help' lists "
			       "the options");
	r = get_volume(c, &v, e);
	for (size_t i = 1; i < c->n && r == 0; i += 2) {
		const struct vol_option *o = vol_option_find(c->words[i]);

		if (!o)
			r = err_set(e, -EINVAL, "no option '%s'; 'kuayu volume set help' lists them",
				    c->words[i]);
		else
			r = vol_option_check(o, v.map, c->words[i + 1], e);
		if (r == 0)
			vol_option_apply(o, &v, c->words[i + 1]);
	}
	if (r == 0)
		r = volcfg_put(c->store, &v, e);
	for (size_t i = 1; i < c->n && r == 0; i += 2)
		printf("volume %s: %s = %s\n", v.map->name, c->words[i], c->words[i + 1]);
	volcfg_volume_done(&v);
	return r;
}
