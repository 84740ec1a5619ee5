/* SPDX-License-Identifier: Apache-2.0 */
/* Docker's volume plugin protocol (docs.docker.com/engine/extend/plugins_volume) on a catalog below /.kuayu-docker of one kuayu volume:
 * a Docker volume is a folder there, so every host that runs the plugin for the same kuayu volume has the same Docker volumes (scope
 * global). Mount and Unmount need nothing but the kuayu volume's own mount; Docker itself counts which containers of its host use a volume and
 * does not remove it before. It does not know of other hosts': removing a volume that another host uses takes its files away. */
#include "volume/docker/plugin.h"

#define SIZE_MAX_BYTES ((int64_t)1 << 60)

typedef int call_fn(struct plugin *p, const struct catalog *c, const json_t *body, json_t *out,
		    struct err *e);

/* ---- one volume ---- */

static int key_of(const json_t *body, char key[CATALOG_KEY_MAX + 1], struct err *e)
{
	const char *name = js_str_or(body, "Name", "");

	if (!*name)
		return err_set(e, -EINVAL, "the volume's name is missing");
	catalog_key(name, key);
	return 0;
}

static int look_up(const struct catalog *c, const json_t *body, struct catalog_volume *ret, struct err *e)
{
	char key[CATALOG_KEY_MAX + 1];
	int r = key_of(body, key, e);

	if (r == 0)
		r = catalog_get(c, key, ret, e);
	return r == -ENOENT ? err_set(e, r, "no such volume: %.200s", js_str_or(body, "Name", "")) : r;
}

/* "10G", "512Mi", "1000": bytes. */
static int parse_size(const char *text, int64_t *ret)
{
	static const char suffixes[] = "KMGT";
	char *end;
	double n = strtod(text, &end);
	const char *s = *end ? strchr(suffixes, *end >= 'a' ? *end - 32 : *end) : NULL;

	if (end == text || n < 0 || (*end && !s))
		return -EINVAL;
	if (s && !streq(end + 1, "") && strcasecmp(end + 1, "i") != 0 && strcasecmp(end + 1, "b") != 0 &&
	    strcasecmp(end + 1, "ib") != 0)
		return -EINVAL;
	for (int i = 0; s && i <= s - suffixes; i++)
		n *= 1024;
	if (n > (double)SIZE_MAX_BYTES)
		return -EINVAL;
	*ret = (int64_t)n;
	return 0;
}

static int create(struct plugin *p, const struct catalog *c, const json_t *body, json_t *out, struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_json_ json_t *parameters = json_object();
	char key[CATALOG_KEY_MAX + 1], *end = NULL;
	const char *name;
	mode_t mode = 0777;
	int64_t bytes = 0;
	json_t *value;
	int r = key_of(body, key, e);

	json_object_foreach (json_object_get(body, "Opts"), name, value) {
		const char *text = json_is_string(value) ? json_string_value(value) : "";

		if (streq(name, "mode"))
			mode = (mode_t)strtoul(text, &end, 8);
		else if (!streq(name, "size") || parse_size(text, &bytes) < 0)
			return err_set(e, -EINVAL, "option %.100s=%.100s: there are mode=0770 and size=10G",
				       name, text);
		if (end && (*end || end == text || mode > 07777))
			return err_set(e, -EINVAL, "option mode=%.100s must be octal, such as 0770", text);
		json_object_set(parameters, name, value);
	}
	return r < 0 ? r
		     : catalog_create(c,
				      &(struct catalog_wanted){.name = js_str_or(body, "Name", ""),
							       .bytes = bytes,
							       .parameters = parameters,
							       .mode = mode},
				      &v, e);
}

static int delete_volume(struct plugin *p, const struct catalog *c, const json_t *body, json_t *out,
			 struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	int r = look_up(c, body, &v, e);

	if (r == 0)
		r = catalog_remove(c, v.key, e);
	if (r == 0)
		catalog_empty_trash(c);
	return r;
}

static int where(struct plugin *p, const struct catalog *c, const json_t *body, json_t *out, struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_free_ char *path = NULL;
	int r = look_up(c, body, &v, e);

	if (r < 0)
		return r;
	path = catalog_path(c, v.key);
	if (access(path, F_OK) < 0)
		return err_errno(e, -errno, "volume %s: %s", v.name, path);
	json_object_set_new(out, "Mountpoint", json_string(path));
	return 0;
}

static int unmount(struct plugin *p, const struct catalog *c, const json_t *body, json_t *out, struct err *e)
{
	return 0; /* the kuayu volume stays mounted for the next one */
}

static json_t *describe_new(const struct catalog *c, const struct catalog_volume *v)
{
	_cleanup_free_ char *path = catalog_path(c, v->key);

	return json_pack("{s:s, s:s}", "Name", v->name, "Mountpoint", path);
}

static int get(struct plugin *p, const struct catalog *c, const json_t *body, json_t *out, struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	int r = look_up(c, body, &v, e);
	json_t *o;

	if (r < 0)
		return r;
	o = describe_new(c, &v);
	json_object_set_new(o, "Status",
			    json_pack("{s:s, s:I}", "kuayuVolume", p->volume, "bytes", (json_int_t)v.bytes));
	json_object_set_new(out, "Volume", o);
	return 0;
}

static int list(struct plugin *p, const struct catalog *c, const json_t *body, json_t *out, struct err *e)
{
	_cleanup_strv_ char **keys = NULL;
	json_t *all = json_array();
	int r;

	json_object_set_new(out, "Volumes", all);
	r = catalog_list(c, &keys, e);
	for (size_t i = 0; r == 0 && keys[i]; i++) {
		struct catalog_volume v;

		if (catalog_get(c, keys[i], &v, NULL) < 0)
			continue; /* removed meanwhile */
		json_array_append_new(all, describe_new(c, &v));
		catalog_volume_done(&v);
	}
	return r;
}

/* ---- the table ---- */

static const struct {
	const char *path;
	call_fn *fn;
} calls[] = {
	{"/VolumeDriver.Create", create},   {"/VolumeDriver.Remove", delete_volume},
	{"/VolumeDriver.Path", where},	    {"/VolumeDriver.Mount", where},
	{"/VolumeDriver.Unmount", unmount}, {"/VolumeDriver.Get", get},
	{"/VolumeDriver.List", list},
};

static int on_catalog(struct plugin *p, call_fn *fn, const json_t *body, json_t *out)
{
	struct catalog c = {.base = PLUGIN_BASE};
	struct err e = {0};
	int r = mounts_get(p->mounts, p->volume, &c.root, &e);

	if (r == 0)
		r = fn(p, &c, body, out, &e);
	free(c.root);
	json_object_set_new(out, "Err", json_string(r < 0 ? e.text : ""));
	return r < 0 ? 500 : 200;
}

int plugin_call(struct plugin *p, const char *path, const json_t *body, json_t **ret)
{
	*ret = NULL;
	if (streq(path, "/Plugin.Activate"))
		*ret = json_pack("{s:[s]}", "Implements", "VolumeDriver");
	else if (streq(path, "/VolumeDriver.Capabilities"))
		*ret = json_pack("{s:{s:s}}", "Capabilities", "Scope", "global");
	if (*ret)
		return 200;
	*ret = json_object();
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (streq(path, calls[i].path))
			return on_catalog(p, calls[i].fn, body, *ret);
	json_object_set_new(*ret, "Err", json_string("no such call"));
	return 404;
}
