/* SPDX-License-Identifier: Apache-2.0 */
/* status: what the bricks say of themselves and the store says of the groups, as one document (docs/volume-internals.md "Status") and as text.
 *
 * The views are the store's, which decides; a brick that knows a newer one is believed. A member's role and progress are its own words; one that does
 * not answer is "offline". */
#include "volume/cmd/internal.h"

/* ---- merging ---- */

/* What brick i says of group g; NULL = nothing. */
static const json_t *said(const struct brick_answer *a, uint32_t i, uint32_t g)
{
	const json_t *groups = js_get(a[i].o, "groups"), *o;
	size_t k;

	json_array_foreach (groups, k, o)
		if (js_int(o, "group", -1) == (int64_t)g)
			return o;
	return NULL;
}

static bool names(const json_t *array, const char *name)
{
	const json_t *v;
	size_t k;

	json_array_foreach (array, k, v)
		if (streq(json_string_value(v), name))
			return true;
	return false;
}

/* The newest view that anybody knows, as a bit set of members and the primary's position. */
static struct repl_view newest_view(const struct vol_map *m, const struct repl_view *stored,
				    const struct brick_answer *a, uint32_t g)
{
	struct repl_view v = *stored;

	repl_view_fill(m, g, &v);
	for (uint32_t j = 0; j < m->n_bricks; j++) { /* whoever is a member by newer news than the store's */
		const json_t *o = said(a, j, g), *row;
		size_t k;
		uint64_t epoch = (uint64_t)js_int(o, "epoch", 0);

		if (!o || epoch <= v.epoch)
			continue;
		json_array_foreach (js_get(o, "members"), k, row) {
			int brick = vol_brick_find(m, js_str_or(row, "brick", "")), slot = 0;

			if (brick < 0 || repl_view_slot(m, g, &v, (uint32_t)brick) >= 0)
				continue;
			while (slot < VOL_MEMBERS_MAX && v.members >> slot & 1)
				slot++;
			if (slot == VOL_MEMBERS_MAX)
				break;
			v.members = (uint8_t)(v.members | 1u << slot);
			v.brick[slot] = (uint16_t)brick;
		}
		v.epoch = epoch;
		v.primary = UINT8_MAX;
		v.isr = 0;
		for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++) {
			int brick = repl_view_brick(m, g, &v, i);

			if (brick >= 0 && names(js_get(o, "isr"), m->brick[brick].name))
				v.isr = (uint8_t)(v.isr | 1u << i);
			if (brick >= 0 && streq(js_str(o, "primary"), m->brick[brick].name))
				v.primary = (uint8_t)i;
		}
	}
	return v;
}

struct heal {
	int64_t out, keys, left, done, rate, seconds;
};

/* The newest record of the group that anybody has, and what the primary knows of a member. */
static int64_t newest_seq(const struct vol_map *m, const struct brick_answer *a, uint32_t g)
{
	int64_t seq = 0;

	for (uint32_t j = 0; j < m->n_bricks; j++)
		seq = MAX(seq, js_int(said(a, j, g), "seq", 0));
	return seq;
}

static int64_t known_seq(const struct vol_map *m, const struct brick_answer *a, uint32_t g, uint32_t brick)
{
	const json_t *own = said(a, brick, g), *row;
	int64_t seq = js_int(own, "seq", 0);
	size_t k;

	for (uint32_t j = 0; j < m->n_bricks && !own; j++)
		json_array_foreach (js_get(said(a, j, g), "members"), k, row)
			if (streq(js_str(row, "brick"), m->brick[brick].name))
				seq = MAX(seq, js_int(row, "seq", 0));
	return seq;
}

static json_t *merge_member(const struct vol_map *m, const struct brick_answer *a, uint32_t g, uint32_t brick,
			    bool in_sync, struct heal *sum)
{
	const json_t *own = said(a, brick, g), *pull = js_get(own, "heal");
	int64_t behind = MAX(newest_seq(m, a, g) - known_seq(m, a, g, brick), (int64_t)0);
	struct heal h = {.keys = js_int(pull, "keys_left", in_sync ? 0 : behind),
			 .left = js_int(pull, "bytes_left", 0),
			 .done = js_int(pull, "bytes_done", 0),
			 .rate = js_int(pull, "bytes_per_s", 0),
			 .seconds = js_int(pull, "seconds_left", 0)};
	const char *role = !a[brick].online ? "offline" : own ? js_str_or(own, "role", "out") : "out";

	if (!in_sync) {
		sum->out++;
		sum->keys += h.keys;
		sum->left += h.left;
		sum->done += h.done;
		sum->rate += h.rate;
		sum->seconds = MAX(sum->seconds, h.seconds);
	}
	return json_pack("{s:s,s:s,s:b,s:I,s:{s:I,s:I,s:I,s:I,s:I}}", "brick", m->brick[brick].name, "role",
			 role, "in_sync", (int)in_sync, "seq", (json_int_t)known_seq(m, a, g, brick), "heal",
			 "keys_left", (json_int_t)h.keys, "bytes_left", (json_int_t)h.left, "bytes_done",
			 (json_int_t)h.done, "bytes_per_s", (json_int_t)h.rate, "seconds_left",
			 (json_int_t)h.seconds);
}

/* What is left of the way to where the group shall lie. */
struct moves {
	int groups, members, joining;
};

/* {"to": [bricks that are still to come], "joining", "leaving"}; NULL when the group is in its place. */
static json_t *merge_move(const struct vol_map *m, const struct repl_view *v, uint32_t g, struct moves *sum)
{
	json_t *to = json_array(), *o = json_object();
	int joining = v->joining ? repl_view_brick(m, g, v, v->joining - 1u) : -1,
	    leaving = v->leaving ? repl_view_brick(m, g, v, v->leaving - 1u) : -1;
	int here = 0;

	for (uint32_t j = 0; j < VOL_MEMBERS_MAX; j++)
		here += repl_view_brick(m, g, v, j) >= 0;
	for (uint32_t j = 0; j < m->replica; j++) {
		uint32_t brick = m->group[g].brick[j];

		if (repl_view_slot(m, g, v, brick) < 0 || joining == (int)brick)
			json_array_append_new(to, json_string(m->brick[brick].name));
	}
	sum->members += (int)json_array_size(to);
	sum->joining += joining >= 0;
	json_object_set_new(o, "to", to);
	if (joining >= 0)
		json_object_set_new(o, "joining", json_string(m->brick[joining].name));
	if (leaving >= 0)
		json_object_set_new(o, "leaving", json_string(m->brick[leaving].name));
	if (json_array_size(to) > 0 || here > (int)m->replica) {
		sum->groups++;
		return o;
	}
	json_decref(o);
	return NULL;
}

static json_t *merge_group(const struct vol_map *m, const struct repl_view *v, const struct brick_answer *a,
			   uint32_t g, struct heal *sum, struct moves *moves)
{
	json_t *isr = json_array(), *members = json_array(), *move = merge_move(m, v, g, moves), *o;
	int primary = v->epoch > 0 ? repl_view_brick(m, g, v, v->primary) : -1;

	for (uint32_t j = 0; j < VOL_MEMBERS_MAX; j++) {
		int brick = repl_view_brick(m, g, v, j);
		bool in = v->epoch > 0 && (v->isr >> j & 1);

		if (brick < 0)
			continue;
		if (in)
			json_array_append_new(isr, json_string(m->brick[brick].name));
		json_array_append_new(members, merge_member(m, a, g, (uint32_t)brick, in, sum));
	}
	o = json_pack("{s:i,s:I,s:o,s:o,s:o}", "group", (int)g, "epoch", (json_int_t)v->epoch, "primary",
		      primary >= 0 ? json_string(m->brick[primary].name) : json_null(), "isr", isr, "members",
		      members);
	if (move)
		json_object_set_new(o, "move", move);
	return o;
}

static json_t *merge_brick(const struct vol_map *m, const struct repl_view *views,
			   const struct brick_answer *a, uint32_t i)
{
	int primary = 0, in_sync = 0, groups = 0;
	const json_t *error = js_get(a[i].o, "error"), *latency = js_get(a[i].o, "latency_us"),
		     *sync = js_get(a[i].o, "sync_latency_us");

	for (uint32_t g = 0; g < m->n_groups; g++) {
		int j = repl_view_slot(m, g, &views[g], i);

		if (j < 0)
			continue;
		groups++;
		primary += views[g].epoch > 0 && views[g].primary == j;
		in_sync += views[g].epoch > 0 && (views[g].isr >> j & 1);
	}
	return json_pack("{s:s,s:s,s:s,s:s,s:b,s:I,s:i,s:i,s:i,s:I,s:I,s:I,s:{s:I,s:I},s:{s:I,s:I},s:o}",
			 "name", m->brick[i].name, "domain", m->brick[i].domain, "address", a[i].address,
			 "path", m->brick[i].path, "online", (int)a[i].online, "pid",
			 (json_int_t)js_int(a[i].o, "pid", 0), "groups_primary", primary, "groups_in_sync",
			 in_sync, "groups", groups, "groups_lost", (json_int_t)js_int(a[i].o, "lost", 0),
			 "bytes_total", (json_int_t)js_int(a[i].o, "bytes_total", 0), "bytes_free",
			 (json_int_t)js_int(a[i].o, "bytes_free", 0), "latency_us", "p50",
			 (json_int_t)js_int(latency, "p50", 0), "p99", (json_int_t)js_int(latency, "p99", 0),
			 "sync_latency_us", "p50", (json_int_t)js_int(sync, "p50", 0), "p99",
			 (json_int_t)js_int(sync, "p99", 0), "error",
			 a[i].error[0]		 ? json_string(a[i].error)
			 : json_is_string(error) ? json_string(json_string_value(error))
						 : json_null());
}

static bool holds_groups(const struct vol_map *m, const struct repl_view *views, uint32_t brick)
{
	for (uint32_t g = 0; g < m->n_groups; g++)
		if (repl_view_slot(m, g, &views[g], brick) >= 0)
			return true;
	return false;
}

json_t *status_merge(const struct volcfg_volume *v, const struct repl_view *stored,
		     const struct brick_answer *a)
{
	const struct vol_map *m = v->map;
	_cleanup_free_ struct repl_view *views = xcalloc(m->n_groups, sizeof(*views));
	json_t *bricks = json_array(), *groups = json_array();
	struct heal sum = {0};
	struct moves moves = {0};

	for (uint32_t g = 0; g < m->n_groups; g++) {
		views[g] = newest_view(m, &stored[g], a, g);
		json_array_append_new(groups, merge_group(m, &views[g], a, g, &sum, &moves));
	}
	for (uint32_t i = 0; i < m->n_bricks; i++)
		if (!m->brick[i].retired || holds_groups(m, views, i))
			json_array_append_new(bricks, merge_brick(m, views, a, i));
	return json_pack("{s:s,s:s,s:s,s:i,s:i,s:i,s:o,s:o,s:{s:I,s:I,s:I,s:I,s:I,s:I},s:{s:i,s:i,s:i},s:b}",
			 "volume", m->name, "state", v->state, "kind", vol_kind_text(vol_map_kind(m)),
			 "replica", (int)m->replica, "stripe", (int)m->stripe, "write_quorum",
			 (int)m->write_quorum, "bricks", bricks, "groups", groups, "heal", "members_out",
			 (json_int_t)sum.out, "keys_left", (json_int_t)sum.keys, "bytes_left",
			 (json_int_t)sum.left, "bytes_done", (json_int_t)sum.done, "bytes_per_s",
			 (json_int_t)sum.rate, "seconds_left", (json_int_t)sum.seconds, "moves", "groups",
			 moves.groups, "members", moves.members, "joining", moves.joining, "in_sync",
			 (int)(sum.out == 0));
}

int get_status(struct cmd *c, const struct volcfg_volume *v, json_t **ret, struct err *e)
{
	const struct vol_map *m = v->map;
	_cleanup_free_ struct repl_view *views = xcalloc(m->n_groups, sizeof(*views));
	struct brick_answer *a = NULL;
	int64_t rev;
	int r = ask_bricks(c, m, "status", &a, e);

	for (uint32_t g = 0; g < m->n_groups && r == 0; g++)
		r = volcfg_view_get(c->store, m, g, &views[g], &rev, e);
	if (r == 0)
		*ret = status_merge(v, views, a);
	answers_free(a, m->n_bricks);
	return r;
}

/* ---- text ---- */

char *bytes_text(char out[32], uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)bytes;
	size_t u = 0;

	for (; v >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
		v /= 1024;
	snprintf(out, 32, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return out;
}

static void time_text(char out[32], int64_t us)
{
	if (us == 0)
		snprintf(out, 32, "-");
	else if (us < 1000)
		snprintf(out, 32, "%lld us", (long long)us);
	else
		snprintf(out, 32, "%.1f ms", (double)us / 1000);
}

static void print_bricks(const json_t *status, FILE *f)
{
	const json_t *b;
	size_t i;

	fprintf(f, "\n%-10s %-8s %-22s %-7s %8s %8s %9s %11s %11s %9s %9s %9s\n", "BRICK", "DOMAIN",
		"ADDRESS", "ONLINE", "PID", "PRIMARY", "IN-SYNC", "USED", "FREE", "P50", "P99", "FLUSH P99");
	json_array_foreach (js_get(status, "bricks"), i, b) {
		int64_t total = js_int(b, "bytes_total", 0), left = js_int(b, "bytes_free", 0);
		char used[32], rest[32], p50[32], p99[32], flush[32];

		time_text(p50, js_int(b, "latency_us.p50", 0));
		time_text(p99, js_int(b, "latency_us.p99", 0));
		time_text(flush, js_int(b, "sync_latency_us.p99", 0));
		fprintf(f, "%-10s %-8s %-22s %-7s %8lld %8lld %5lld/%-3lld %11s %11s %9s %9s %9s\n",
			js_str_or(b, "name", ""), js_str_or(b, "domain", ""), js_str_or(b, "address", ""),
			js_bool(b, "online", false) ? "yes" : "NO", (long long)js_int(b, "pid", 0),
			(long long)js_int(b, "groups_primary", 0), (long long)js_int(b, "groups_in_sync", 0),
			(long long)js_int(b, "groups", 0), bytes_text(used, (uint64_t)(total - left)),
			bytes_text(rest, (uint64_t)left), p50, p99, flush);
	}
}

/* Is there a pull that knows how much it has to do? Of a brick that is away, or cannot open its store, nobody knows. */
static bool heals(const json_t *heal)
{
	return js_int(heal, "bytes_left", 0) > 0 || js_int(heal, "bytes_per_s", 0) > 0 ||
	       js_int(heal, "seconds_left", 0) > 0;
}

static void print_out(const json_t *status, FILE *f)
{
	const json_t *g, *member;
	bool first = true;
	size_t i, j;

	json_array_foreach (js_get(status, "groups"), i, g)
		json_array_foreach (js_get(g, "members"), j, member) {
			char left[32], rate[32];
			const json_t *heal = js_get(member, "heal");

			if (js_bool(member, "in_sync", false))
				continue;
			if (first)
				fprintf(f, "\n%-6s %6s %-10s %-10s %-10s %10s %11s %13s %9s\n", "GROUP",
					"EPOCH", "PRIMARY", "OUT", "ROLE", "KEYS LEFT", "BYTES LEFT", "SPEED",
					"TIME LEFT");
			first = false;
			if (!heals(heal)) {
				fprintf(f, "%-6lld %6lld %-10s %-10s %-10s %10lld %11s %13s %9s\n",
					(long long)js_int(g, "group", 0), (long long)js_int(g, "epoch", 0),
					js_str_or(g, "primary", "none"), js_str_or(member, "brick", ""),
					js_str_or(member, "role", ""),
					(long long)js_int(heal, "keys_left", 0), "-", "-", "-");
				continue;
			}
			fprintf(f, "%-6lld %6lld %-10s %-10s %-10s %10lld %11s %11s/s %7lld s\n",
				(long long)js_int(g, "group", 0), (long long)js_int(g, "epoch", 0),
				js_str_or(g, "primary", "none"), js_str_or(member, "brick", ""),
				js_str_or(member, "role", ""), (long long)js_int(member, "heal.keys_left", 0),
				bytes_text(left, (uint64_t)js_int(member, "heal.bytes_left", 0)),
				bytes_text(rate, (uint64_t)js_int(member, "heal.bytes_per_s", 0)),
				(long long)js_int(member, "heal.seconds_left", 0));
		}
}

static void print_moves(const json_t *status, FILE *f)
{
	const json_t *g, *name;
	size_t i, j;

	fprintf(f, "\n%-6s %-10s %-10s %-20s %10s %11s\n", "MOVES", "LEAVES", "JOINS", "STILL TO COME",
		"KEYS LEFT", "BYTES LEFT");
	json_array_foreach (js_get(status, "groups"), i, g) {
		char to[200] = "", left[32];
		const json_t *member, *heal = NULL;

		if (!js_get(g, "move"))
			continue;
		json_array_foreach (js_get(g, "move.to"), j, name)
			snprintf(to + strlen(to), sizeof(to) - strlen(to), "%s%.60s", j ? " " : "",
				 json_string_value(name));
		json_array_foreach (js_get(g, "members"), j, member)
			if (streq(js_str(member, "brick"), js_str_or(g, "move.joining", "")))
				heal = js_get(member, "heal");
		fprintf(f, "%-6lld %-10s %-10s %-20s %10lld %11s\n", (long long)js_int(g, "group", 0),
			js_str_or(g, "move.leaving", "-"), js_str_or(g, "move.joining", "-"), to,
			(long long)js_int(heal, "keys_left", 0),
			bytes_text(left, (uint64_t)js_int(heal, "bytes_left", 0)));
	}
}

/* What an operator can do about it. */
static void print_advice(const json_t *status, FILE *f)
{
	const json_t *b, *g;
	int64_t quorum = js_int(status, "write_quorum", 1), below = 0, none = 0;
	size_t i;

	json_array_foreach (js_get(status, "bricks"), i, b)
		if (js_str(b, "error"))
			fprintf(f, "! brick %s: %s%s\n", js_str_or(b, "name", ""), js_str(b, "error"),
				js_bool(b, "online", false) ? "" : "; is 'kuayu brick' running on its node?");
	json_array_foreach (js_get(status, "bricks"), i, b)
		if (js_int(b, "groups_lost", 0) > 0)
			fprintf(f,
				"! brick %s: its folder is a new one or an older copy: %lld groups wait "
				"there to be filled "
				"from other bricks. When no brick has them (no primary), and its folder is "
				"all there is: "
				"kuayu volume stop %s; kuayu volume start %s --force\n",
				js_str_or(b, "name", ""), (long long)js_int(b, "groups_lost", 0),
				js_str_or(status, "volume", ""), js_str_or(status, "volume", ""));
	json_array_foreach (js_get(status, "groups"), i, g) {
		below += (int64_t)json_array_size(js_get(g, "isr")) < quorum;
		none += !js_str(g, "primary");
	}
	if (none > 0)
		fprintf(f, "! %lld group%s without a primary yet\n", (long long)none, none == 1 ? "" : "s");
	if (below > none)
		fprintf(f,
			"! %lld group%s with fewer than %lld copies in sync: changes wait there. Bring "
			"bricks back, or allow it: "
			"kuayu volume set %s write-quorum 1\n",
			(long long)below, below == 1 ? "" : "s", (long long)quorum,
			js_str_or(status, "volume", ""));
}

void status_print(const json_t *status, FILE *f)
{
	char left[32], rate[32];
	int64_t out = js_int(status, "heal.members_out", 0);
	bool started = streq(js_str(status, "state"), "started");

	fprintf(f, "Volume %s: %s, %s, replica %lld, stripe %lld\n", js_str_or(status, "volume", ""),
		js_str_or(status, "state", ""), js_str_or(status, "kind", ""),
		(long long)js_int(status, "replica", 0), (long long)js_int(status, "stripe", 0));
	if (!started)
		fprintf(f, "not started: kuayu volume start %s\n", js_str_or(status, "volume", ""));
	else if (out == 0)
		fprintf(f, "all copies in sync\n");
	else if (heals(js_get(status, "heal")))
		fprintf(f, "%lld cop%s out of sync: %lld keys, %s to heal, %s/s, %lld s left\n",
			(long long)out, out == 1 ? "y" : "ies",
			(long long)js_int(status, "heal.keys_left", 0),
			bytes_text(left, (uint64_t)js_int(status, "heal.bytes_left", 0)),
			bytes_text(rate, (uint64_t)js_int(status, "heal.bytes_per_s", 0)),
			(long long)js_int(status, "heal.seconds_left", 0));
	else
		fprintf(f, "%lld cop%s out of sync, by %lld keys or more; nothing is healed now\n",
			(long long)out, out == 1 ? "y" : "ies",
			(long long)js_int(status, "heal.keys_left", 0));
	if (js_int(status, "moves.groups", 0) > 0)
		fprintf(f, "%lld groups move to other bricks\n",
			(long long)js_int(status, "moves.groups", 0));
	print_bricks(status, f);
	if (js_int(status, "moves.groups", 0) > 0)
		print_moves(status, f);
	if (started && out > 0)
		print_out(status, f);
	if (started)
		print_advice(status, f);
}

static int status_one(struct cmd *c, const struct volcfg_volume *v, json_t *all, struct err *e)
{
	json_t *o = NULL;
	int r = get_status(c, v, &o, e);

	if (r < 0)
		return r;
	if (all)
		json_array_append(all, o);
	else
		status_print(o, stdout);
	json_decref(o);
	return 0;
}

int cmd_status(struct cmd *c, struct err *e)
{
	_cleanup_json_ json_t *all = wants_json(c) ? json_array() : NULL;
	_cleanup_strv_ char **list = NULL;
	struct volcfg_volume v = {0};
	size_t n = 1;
	int r = c->n > 0 ? 0 : volcfg_list(c->store, &list, &n, NULL, e);

	for (size_t i = 0; i < n && r == 0; i++) {
		r = c->n > 0 ? get_volume(c, &v, e) : volcfg_get(c->store, list[i], &v, e);
		if (r == 0)
			r = status_one(c, &v, all, e);
		volcfg_volume_done(&v);
	}
	if (r == 0 && all)
		print_json(c->n > 0 ? json_array_get(all, 0) : all);
	return r;
}
