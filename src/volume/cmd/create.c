/* SPDX-License-Identifier: Apache-2.0 */
/* create, expand, replace-brick, start, stop, delete, info, list, bricks: the volume's document in the store. Bricks follow it by themselves. */
#include "volume/cmd/internal.h"

struct layout {
	uint32_t replica, stripe;
	struct vol_brick brick[VOL_BRICKS_MAX];
	uint32_t n;
};

/* ---- words ---- */

static int count_word(const char *what, const char *text, uint32_t *ret, struct err *e)
{
	uint64_t n;

	if (!text || str_u64(text, &n) < 0 || n == 0 || n > VOL_BRICKS_MAX)
		return err_set(e, -EINVAL, "%s must be followed by a number, not '%s'", what,
			       text ? text : "");
	*ret = (uint32_t)n;
	return 0;
}

static int brick_word(const char *word, struct vol_brick *ret, struct err *e)
{
	const char *colon = strchr(word, ':');
	size_t n = colon ? (size_t)(colon - word) : 0, path;

	if (n == 0 || n >= sizeof(ret->name) || colon[1] != '/')
		return err_set(e, -EINVAL, "'%s' is no brick: NODE:/PATH, such as a1:/brick", word);
	path = strlen(colon + 1);
	while (path > 1 && colon[path] == '/')
		path--;
	if (path >= sizeof(ret->path))
		return err_set(e, -EINVAL, "brick %.*s: the path is longer than %zu bytes", (int)n, word,
			       sizeof(ret->path) - 1);
	*ret = (struct vol_brick){.weight = 100};
	memcpy(ret->name, word, n);
	memcpy(ret->path, colon + 1, path);
	return 0;
}

static int parse_layout(struct cmd *c, size_t at, struct layout *l, struct err *e)
{
	int r = 0;

	*l = (struct layout){.replica = 1, .stripe = 1};
	for (size_t i = at; i < c->n && r == 0; i++) {
		if (streq(c->words[i], "replica")) {
			r = count_word("replica", c->words[i + 1], &l->replica, e);
			i++;
		} else if (streq(c->words[i], "stripe")) {
			r = count_word("stripe", c->words[i + 1], &l->stripe, e);
			i++;
		} else if (streq(c->words[i], "force")) {
			c->force = true;
		} else if (l->n == VOL_BRICKS_MAX) {
			r = err_set(e, -EINVAL, "more than %d bricks", VOL_BRICKS_MAX);
		} else {
			r = brick_word(c->words[i], &l->brick[l->n++], e);
		}
	}
	return r == 0 && l->n == 0 ? err_set(e, -EINVAL, "no bricks were named: NODE:/PATH ...") : r;
}

/* ---- what the bricks say of themselves ---- */

static const struct vol_brick *registered(const struct volcfg_brick *all, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (streq(all[i].brick.name, name))
			return &all[i].brick;
	return NULL;
}

static bool same_path(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);

	while (n > 1 && a[n - 1] == '/')
		n--;
	while (m > 1 && b[m - 1] == '/')
		m--;
	return n == m && memcmp(a, b, n) == 0;
}

/* Domain and address come from the brick itself. */
static int fill_bricks(struct cmd *c, struct layout *l, struct err *e)
{
	_cleanup_free_ struct volcfg_brick *all = NULL;
	size_t n = 0;
	int r = volcfg_bricks(c->store, &all, &n, e);

	for (uint32_t i = 0; i < l->n && r == 0; i++) {
		struct vol_brick *b = &l->brick[i];
		const struct vol_brick *there = registered(all, n, b->name);

		if (!there)
			r = err_set(e, -EHOSTUNREACH,
				    "no brick runs on node %s: start 'kuayu brick --node %s --data %s ...' "
				    "there; 'kuayu volume bricks' lists those that run",
				    b->name, b->name, b->path);
		else if (!same_path(there->path, b->path) && !c->force)
			r = err_set(e, -EINVAL, "the brick on node %s keeps its data in %s, not in %s",
				    b->name, there->path, b->path);
		if (r < 0)
			break;
		memcpy(b->domain, there->domain, sizeof(b->domain));
		memcpy(b->address, there->address, sizeof(b->address));
		memcpy(b->path, there->path, sizeof(b->path));
	}
	return r;
}

static void print_layout(const struct vol_map *m)
{
	printf("%s: %u bricks, replica %u, stripe %u, %u groups\n", vol_kind_text(vol_map_kind(m)),
	       m->n_bricks, m->replica, m->stripe, m->n_groups);
	for (uint32_t g = 0; g < m->n_groups; g++) {
		printf("  group %u:", g);
		for (uint32_t j = 0; j < m->replica; j++)
			printf(" %s", m->brick[m->group[g].brick[j]].name);
		putchar('\n');
	}
}

int cmd_create(struct cmd *c, struct err *e)
{
	struct volcfg_volume v = {.state = "created"};
	_cleanup_free_ struct layout *l = xcalloc(1, sizeof(*l));
	struct vol_id uuid;
	int r;

	random_bytes(&uuid, sizeof(uuid));
	if ((c->stripe_kib & (c->stripe_kib - 1)) != 0)
		return err_set(e, -EINVAL, "--stripe-size %d: a power of two of KiB, 64 to 1024",
			       (int)c->stripe_kib);
	r = parse_layout(c, 1, l, e);
	if (r == 0)
		r = fill_bricks(c, l, e);
	if (r == 0)
		r = vol_map_make(c->words[0], &uuid, l->replica, l->stripe, l->brick, l->n,
				 (uint32_t)c->groups, c->without_copies, &v.map, e);
	if (r < 0)
		return r;
	if (c->stripe_kib)
		v.map->stripe_size = (uint32_t)c->stripe_kib << 10;
	v.options = json_object();
	if (c->dry_run)
		print_layout(v.map);
	else
		r = volcfg_create(c->store, &v, e);
	if (r == 0 && !c->dry_run)
		printf("volume %s: created (%s, %u bricks); start it: kuayu volume start %s\n", v.map->name,
		       vol_kind_text(vol_map_kind(v.map)), v.map->n_bricks, v.map->name);
	volcfg_volume_done(&v);
	return r;
}

/* ---- start, stop, delete ---- */

static int set_state(struct cmd *c, struct volcfg_volume *v, const char *state, struct err *e)
{
	snprintf(v->state, sizeof(v->state), "%s", state);
	v->map->started = streq(state, "started");
	v->map->generation++;
	return volcfg_put(c->store, v, e);
}

/* Names of the map's bricks that are not registered now; "" = none. */
static int absent_bricks(struct cmd *c, const struct vol_map *m, struct buf *out, struct err *e)
{
	_cleanup_free_ struct volcfg_brick *all = NULL;
	size_t n = 0;
	int r = volcfg_bricks(c->store, &all, &n, e);

	for (uint32_t i = 0; i < m->n_bricks && r == 0; i++)
		if (!m->brick[i].retired && !registered(all, n, m->brick[i].name))
			r = buf_addf(out, "%s%s", out->len ? ", " : "", m->brick[i].name);
	return r;
}

int cmd_start(struct cmd *c, struct err *e)
{
	_cleanup_buf_ struct buf absent = {0};
	struct volcfg_volume v = {0};
	int r = get_volume(c, &v, e);

	if (r < 0)
		return r;
	if (streq(v.state, "started") && !c->force)
		r = err_set(e, -EALREADY, "volume %s is started already", v.map->name);
	if (r == 0)
		r = absent_bricks(c, v.map, &absent, e);
	if (r == 0 && c->force && !streq(v.state, "started"))
		r = volcfg_folders_forget(c->store, v.map->name, e);
	if (r == 0)
		r = set_state(c, &v, "started", e);
	if (r == 0)
		printf("volume %s: started; mount it: kuayu mount %s DIR\n", v.map->name, v.map->name);
	if (r == 0 && absent.len)
		printf("warning: these bricks do not run: %s\n", absent.data);
	volcfg_volume_done(&v);
	return r;
}

int cmd_stop(struct cmd *c, struct err *e)
{
	struct volcfg_volume v = {0};
	int r = get_volume(c, &v, e);

	if (r < 0)
		return r;
	if (!streq(v.state, "started") && !c->force)
		r = err_set(e, -EALREADY, "volume %s is not started", v.map->name);
	else if (!confirmed(c, "Stop volume %s? Its mounts will wait and then fail.", v.map->name))
		r = err_set(e, -ECANCELED, "nothing was done");
	if (r == 0)
		r = set_state(c, &v, "stopped", e);
	if (r == 0)
		printf("volume %s: stopped\n", v.map->name);
	volcfg_volume_done(&v);
	return r;
}

int cmd_delete(struct cmd *c, struct err *e)
{
	struct volcfg_volume v = {0};
	int r = get_volume(c, &v, e);

	if (r < 0)
		return r;
	if (streq(v.state, "started") && !c->force)
		r = err_set(e, -EBUSY, "volume %s is started; first: kuayu volume stop %s", v.map->name,
			    v.map->name);
	else if (!confirmed(c,
			    "Delete volume %s? Its bricks keep the files aside until they are removed there.",
			    v.map->name))
		r = err_set(e, -ECANCELED, "nothing was done");
	if (r == 0)
		r = volcfg_delete(c->store, v.map->name, e);
	if (r == 0)
		printf("volume %s: deleted; its data is kept on the bricks as deleted-%s-... and may be "
		       "removed there\n",
		       v.map->name, v.map->name);
	volcfg_volume_done(&v);
	return r;
}

/* ---- expand ---- */

static uint32_t print_moves(const struct vol_map *from, const struct vol_map *to)
{
	uint32_t moved = 0;

	for (uint32_t g = 0; g < from->n_groups; g++) {
		if (memcmp(from->group[g].brick, to->group[g].brick, sizeof(from->group[g].brick)) == 0)
			continue;
		moved++;
		printf("  group %u:", g);
		for (uint32_t j = 0; j < from->replica; j++)
			printf(" %s", from->brick[from->group[g].brick[j]].name);
		printf(" ->");
		for (uint32_t j = 0; j < to->replica; j++)
			printf(" %s", to->brick[to->group[g].brick[j]].name);
		putchar('\n');
	}
	return moved;
}

/* ---- moves ---- */

/* What is still to move, from the newest status; 0 = all groups lie where they shall, and are in sync. */
static int moves_left(struct cmd *c, const char *name, int64_t *ret, json_t **ret_status, struct err *e)
{
	struct volcfg_volume v = {0};
	int r = volcfg_get(c->store, name, &v, e);

	if (r < 0)
		return r;
	r = get_status(c, &v, ret_status, e);
	if (r == 0)
		*ret = js_int(*ret_status, "moves.groups", 0) + !js_bool(*ret_status, "in_sync", false);
	volcfg_volume_done(&v);
	return r;
}

/* Until every group lies where the map says. The bricks do it; this only watches, and may be ended at any time. */
static int wait_moved(struct cmd *c, const char *name, struct err *e)
{
	char said[200] = "";

	for (;;) {
		char line[200], bytes[32];
		json_t *status = NULL;
		int64_t left = 1;
		struct err why = {0};
		int r = moves_left(c, name, &left, &status, &why);

		if (r == -ENOENT)
			return err_set(e, r, "%s", why.text);
		if (r < 0)
			snprintf(line, sizeof(line), "waiting: %.150s", why.text);
		else
			snprintf(line, sizeof(line),
				 "%lld groups to move, %lld members under way, %s to copy, %lld s",
				 (long long)js_int(status, "moves.groups", 0),
				 (long long)js_int(status, "moves.joining", 0),
				 bytes_text(bytes, (uint64_t)js_int(status, "heal.bytes_left", 0)),
				 (long long)js_int(status, "heal.seconds_left", 0));
		json_decref(status);
		if (r == 0 && left == 0) {
			printf("volume %s: all groups are in their places and in sync\n", name);
			return 0;
		}
		if (!streq(line, said))
			fprintf(stderr, "%s\n", line);
		memcpy(said, line, sizeof(said));
		usleep((useconds_t)(CLAMP(c->interval_ms, 100, 60000) * 1000));
	}
}

/* The new map into the store; bricks take it from there. A volume that was never started holds nothing: its groups are laid out anew at once. */
static int put_moved(struct cmd *c, struct volcfg_volume *v, const struct vol_map *to, struct err *e)
{
	if (streq(v->state, "created"))
		return volcfg_expand(c->store, v, to, e);
	return volcfg_move(c->store, v, to, e);
}

static int moved(struct cmd *c, const struct volcfg_volume *v, const struct vol_map *to, struct err *e)
{
	if (!streq(v->state, "started"))
		return 0;
	if (c->wait)
		return wait_moved(c, to->name, e);
	printf("its groups move now, while clients go on: kuayu volume status %s\n", to->name);
	return 0;
}

/* SOURCE NEW [commit force], as operators of GlusterFS know it. */
int cmd_replace_brick(struct cmd *c, struct err *e)
{
	_cleanup_free_ struct layout *l = xcalloc(1, sizeof(*l));
	struct volcfg_volume v = {0};
	struct vol_map *to = NULL;
	struct vol_brick old;
	int r;

	if (c->n != 3 && !(c->n == 5 && streq(c->words[3], "commit") && streq(c->words[4], "force")))
		return err_set(e, -EINVAL, "replace-brick NAME NODE:/PATH NEW:/PATH [commit force]");
	r = brick_word(c->words[1], &old, e);
	if (r == 0)
		r = brick_word(c->words[2], &l->brick[l->n++], e);
	if (r == 0)
		r = get_volume(c, &v, e);
	if (r < 0)
		return r;
	r = vol_brick_find(v.map, old.name);
	if (r >= 0 && !same_path(v.map->brick[r].path, old.path) && !c->force)
		r = err_set(e, -EINVAL, "the brick on node %s keeps its data in %s, not in %s", old.name,
			    v.map->brick[r].path, old.path);
	else
		r = fill_bricks(c, l, e);
	if (r == 0)
		r = vol_map_replace(v.map, old.name, &l->brick[0], &to, e);
	if (r == 0 && c->dry_run) {
		printf("%u of %u groups would move\n", print_moves(v.map, to), v.map->n_groups);
	} else if (r == 0) {
		r = put_moved(c, &v, to, e);
		if (r == 0) {
			printf("volume %s: %s takes the place of %s\n", to->name, l->brick[0].name, old.name);
			r = moved(c, &v, to, e);
		}
	}
	vol_map_free(to);
	volcfg_volume_done(&v);
	return r;
}

int cmd_expand(struct cmd *c, struct err *e)
{
	_cleanup_free_ struct layout *l = xcalloc(1, sizeof(*l));
	struct vol_map *wider = NULL;
	struct volcfg_volume v = {0};
	int r = get_volume(c, &v, e);

	if (r < 0)
		return r;
	r = parse_layout(c, 1, l, e);
	if (r == 0)
		r = fill_bricks(c, l, e);
	if (r == 0)
		r = vol_map_expand(v.map, l->brick, l->n, &wider, e);
	if (r == 0 && c->dry_run)
		printf("%u of %u groups would move\n", print_moves(v.map, wider), v.map->n_groups);
	if (r == 0 && !c->dry_run) {
		r = put_moved(c, &v, wider, e);
		if (r == 0) {
			printf("volume %s: %u bricks now\n", wider->name, vol_bricks_active(wider));
			r = moved(c, &v, wider, e);
		}
	}
	vol_map_free(wider);
	volcfg_volume_done(&v);
	return r;
}

/* ---- looking ---- */

static void info_text(const struct volcfg_volume *v)
{
	const struct vol_map *m = v->map;
	const char *key;
	json_t *value;
	char uuid[33];
	uint32_t n = 0;

	vol_id_text(&m->uuid, uuid);
	printf("Volume Name: %s\nType: %s\nVolume ID: %s\nStatus: %s\nNumber of Bricks: %u x %u = %u\n",
	       m->name, vol_kind_text(vol_map_kind(m)), uuid, v->state, vol_bricks_active(m) / m->replica,
	       m->replica, vol_bricks_active(m));
	printf("Stripe: %u x %u KiB\nGroups: %u\nWrite Quorum: %u\nBricks:\n", m->stripe,
	       m->stripe_size >> 10, m->n_groups, m->write_quorum);
	for (uint32_t i = 0; i < m->n_bricks; i++)
		if (!m->brick[i].retired)
			printf("Brick%u: %s:%s (domain %s, %s)\n", ++n, m->brick[i].name, m->brick[i].path,
			       m->brick[i].domain, m->brick[i].address);
	if (json_object_size(v->options) > 0)
		puts("Options Reconfigured:");
	json_object_foreach (v->options, key, value)
		printf("%s: %s\n", key, json_string_value(value));
}

static json_t *info_json(const struct volcfg_volume *v)
{
	json_t *o = vol_map_to_json(v->map);

	json_object_set_new(o, "kind", json_string(vol_kind_text(vol_map_kind(v->map))));
	json_object_set_new(o, "state", json_string(v->state));
	json_object_set_new(o, "options", json_deep_copy(v->options));
	return o;
}

/* Every volume, or the one that was named. */
static int each_volume(struct cmd *c, void (*fn)(const struct volcfg_volume *v, void *ctx), void *ctx,
		       struct err *e)
{
	_cleanup_strv_ char **names = NULL;
	struct volcfg_volume v = {0};
	size_t n = 0;
	int r;

	if (c->n > 0) {
		r = get_volume(c, &v, e);
		if (r == 0)
			fn(&v, ctx);
		volcfg_volume_done(&v);
		return r;
	}
	r = volcfg_list(c->store, &names, &n, NULL, e);
	for (size_t i = 0; i < n && r == 0; i++) {
		r = volcfg_get(c->store, names[i], &v, e);
		if (r == -ENOENT) { /* deleted just now */
			r = 0;
			continue;
		}
		if (r == 0)
			fn(&v, ctx);
		volcfg_volume_done(&v);
	}
	return r;
}

static void info_one(const struct volcfg_volume *v, void *ctx)
{
	json_t *all = ctx;

	if (all)
		json_array_append_new(all, info_json(v));
	else
		info_text(v);
}

int cmd_info(struct cmd *c, struct err *e)
{
	_cleanup_json_ json_t *all = wants_json(c) ? json_array() : NULL;
	int r = each_volume(c, info_one, all, e);

	if (r == 0 && all)
		print_json(c->n > 0 ? json_array_get(all, 0) : all);
	return r;
}

struct listing {
	json_t *all; /* NULL: as text */
	bool headed;
};

static void list_head(struct listing *l)
{
	if (!l->all && !l->headed)
		printf("%-20s %-31s %-8s %6s  %s\n", "NAME", "KIND", "STATE", "BRICKS", "REPLICA x STRIPE");
	l->headed = true;
}

static void list_one(const struct volcfg_volume *v, void *ctx)
{
	struct listing *l = ctx;
	json_t *all = l->all;
	const char *kind = vol_kind_text(vol_map_kind(v->map));

	if (all)
		json_array_append_new(all, json_pack("{s:s,s:s,s:s,s:i,s:i,s:i}", "name", v->map->name,
						     "kind", kind, "state", v->state, "bricks",
						     (int)vol_bricks_active(v->map), "replica",
						     (int)v->map->replica, "stripe", (int)v->map->stripe));
	list_head(l);
	if (!all)
		printf("%-20s %-31s %-8s %6u  %u x %u\n", v->map->name, kind, v->state,
		       vol_bricks_active(v->map), v->map->replica, v->map->stripe);
}

int cmd_list(struct cmd *c, struct err *e)
{
	_cleanup_json_ json_t *all = wants_json(c) ? json_array() : NULL;
	struct listing l = {.all = all};
	int r = each_volume(c, list_one, &l, e);

	if (r == 0)
		list_head(&l); /* also when there is none */
	if (r == 0 && all)
		print_json(all);
	return r;
}

int cmd_bricks(struct cmd *c, struct err *e)
{
	_cleanup_free_ struct volcfg_brick *b = NULL;
	_cleanup_json_ json_t *all = json_array();
	size_t n = 0;
	int r = volcfg_bricks(c->store, &b, &n, e);

	if (r < 0)
		return r;
	if (!wants_json(c))
		printf("%-12s %-10s %-24s %s\n", "NODE", "DOMAIN", "ADDRESS", "PATH");
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(all, json_pack("{s:s,s:s,s:s,s:s}", "name", b[i].brick.name, "domain",
						     b[i].brick.domain, "address", b[i].brick.address, "path",
						     b[i].brick.path));
		if (!wants_json(c))
			printf("%-12s %-10s %-24s %s\n", b[i].brick.name, b[i].brick.domain,
			       b[i].brick.address, b[i].brick.path);
	}
	if (wants_json(c))
		print_json(all);
	return 0;
}
