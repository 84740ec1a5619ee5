/* SPDX-License-Identifier: Apache-2.0 */
/* where, mkdir: paths of a volume, asked of the bricks by the client library. A path is NAME:/PATH, or lies on a mount of this machine: then the
 * mount table tells the volume, and no brick needs to know about mounts. */
#include "volume/cmd/internal.h"

#include <endian.h>
#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>

#define STRIPES_MAX 100000 /* that one answer lists */
#define TEXT_ROWS   64

struct place {
	char volume[VOL_NAME_MAX + 1];
	char path[PATH_MAX]; /* within the volume, begins with / */
	struct vclient *client;
	struct vclient_slot *slot;
	struct vol_ino ino;
	struct vfs_attr attr;
};

/* ---- which volume, which path in it ---- */

static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = 0;
}

/* The longest mount of a volume that path lies below. */
static bool on_mount(const char *path, struct place *p)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	size_t size = 0, best = 0;

	while (f && getline(&line, &size, f) > 0) {
		char where[PATH_MAX], kind[64], source[256], *dash = strstr(line, " - ");
		size_t n;

		if (!dash || sscanf(line, "%*d %*d %*s %*s %4095s", where) != 1 ||
		    sscanf(dash + 3, "%63s %255s", kind, source) != 2 || !streq(kind, "fuse.kuayu"))
			continue;
		unescape(where);
		n = streq(where, "/") ? 0 : strlen(where);
		if (strncmp(path, where, n) != 0 || (path[n] != '/' && path[n] != 0) || n + 1 <= best ||
		    !vol_name_valid(source))
			continue;
		best = n + 1;
		memcpy(p->volume, source, strlen(source) + 1); /* vol_name_valid: it fits */
		snprintf(p->path, sizeof(p->path), "%s", path[n] ? path + n : "/");
	}
	if (f)
		fclose(f);
	return best > 0;
}

/* The folder of a path that need not be there itself is made absolute, then its last name is put behind. */
static int absolute(const char *word, bool last_new, char out[PATH_MAX], struct err *e)
{
	_cleanup_free_ char *copy = xstrdup(word);
	size_t n = strlen(copy);
	char *slash, *name;

	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = 0;
	if (!last_new)
		return realpath(copy, out) ? 0 : err_errno(e, -errno, "%s", word);
	slash = strrchr(copy, '/');
	name = slash ? slash + 1 : copy;
	if (slash)
		*slash = 0;
	if (!realpath(!slash ? "." : copy[0] ? copy : "/", out))
		return err_errno(e, -errno, "%s", word);
	if (strlen(out) + strlen(name) + 2 > PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "%s: too long", word);
	if (!streq(out, "/"))
		strcat(out, "/");
	strcat(out, name);
	return 0;
}

static int parse_place(const char *word, bool last_new, struct place *p, struct err *e)
{
	const char *colon = strchr(word, ':'), *slash = strchr(word, '/');
	char path[PATH_MAX];
	int r;

	if (colon && (!slash || colon < slash) && colon[1] == '/') {
		if ((size_t)(colon - word) >= sizeof(p->volume) || strlen(colon + 1) >= sizeof(p->path))
			return err_set(e, -EINVAL, "'%s' is not NAME:/PATH", word);
		memcpy(p->volume, word, (size_t)(colon - word));
		strcpy(p->path, colon + 1);
		return 0;
	}
	r = absolute(word, last_new, path, e);
	if (r < 0)
		return r;
	if (!on_mount(path, p))
		return err_set(e, -EINVAL, "%s is not on a mounted volume; write NAME:/PATH instead", path);
	return 0;
}

/* ---- asking ---- */

static int open_place(struct cmd *c, struct place *p, struct err *e)
{
	struct vclient_options o = {.store = c->store,
				    .volume = p->volume,
				    .domain = c->domain,
				    .timeout_ms = (uint64_t)c->timeout_ms};
	_cleanup_free_ char *name = xstrdup(p->volume);
	struct cmd named = {.store = c->store, .words = &name, .n = 1};
	struct volcfg_volume v = {0};
	int r = started_volume(&named, &v, e); /* else it would be waited for */

	volcfg_volume_done(&v);
	if (r == 0)
		r = vclient_open(&o, &p->client, e);
	if (r < 0)
		return r;
	p->slot = vclient_slot_new(p->client);
	return p->slot ? 0 : err_set(e, -ENOMEM, "no memory");
}

static void place_done(struct place *p)
{
	vclient_slot_free(p->slot);
	vclient_close(p->client);
}

static int lookup(struct place *p, const char *name, size_t len, struct err *e)
{
	struct vfs_op op = {.type = VFS_LOOKUP, .ino = p->ino, .name = name, .name_len = (uint16_t)len};
	struct vfs_result res = {0};
	int r = vclient_call(p->slot, &op, &res, NULL);

	if (r == 0 && !(res.attr.mode & S_IFMT)) { /* the entry's inode is elsewhere */
		op = (struct vfs_op){.type = VFS_GETATTR, .ino = res.attr.ino};
		vfs_result_done(&res);
		res = (struct vfs_result){0};
		r = vclient_call(p->slot, &op, &res, NULL);
	}
	if (r == 0) {
		p->ino = res.attr.ino;
		p->attr = res.attr;
	}
	vfs_result_done(&res);
	return r < 0 ? err_errno(e, r, "%s:%s, at '%.*s'", p->volume, p->path, (int)len, name) : 0;
}

/* Walks p->path; with keep_last up to its folder, and the name is given back. */
static int walk(struct place *p, const char **ret_last, struct err *e)
{
	struct vfs_op op = {.type = VFS_GETATTR, .ino = {.folder = vol_root}};
	struct vfs_result res = {0};
	int r = vclient_call(p->slot, &op, &res, NULL);

	p->ino = op.ino;
	p->attr = res.attr;
	vfs_result_done(&res);
	if (r < 0)
		return err_errno(e, r, "%s: the root folder", p->volume);
	for (const char *at = p->path; r == 0;) {
		size_t n;

		at += strspn(at, "/");
		n = strcspn(at, "/");
		if (n > VFS_NAME_MAX)
			return err_set(e, -ENAMETOOLONG, "%s: a name longer than %d bytes", p->path,
				       VFS_NAME_MAX);
		if (ret_last && n > 0 && at[n + strspn(at + n, "/")] == 0) {
			*ret_last = at;
			return 0;
		}
		if (n == 0)
			return ret_last ? err_set(e, -EEXIST, "%s:%s exists", p->volume, p->path) : 0;
		r = lookup(p, at, n, e);
		at += n;
	}
	return r;
}

/* Versions of the stripes that lie in the group of stripe `first` (in[i] = 0: a hole). */
static int versions(struct place *p, uint64_t first, uint64_t *seq, uint64_t n, struct err *e)
{
	struct vfs_op op = {.type = VFS_WHERE, .ino = p->ino, .flags = VFS_FOREIGN, .off = first};

	for (uint64_t turn = 0; turn <= n; turn++) {
		struct vfs_result res = {0};
		uint64_t last = op.off;
		int r = vclient_call(p->slot, &op, &res, NULL);
		bool more = res.flags & VFS_MORE;

		for (size_t at = 0; r == 0 && at + 12 <= res.data.len; at += 12) {
			uint32_t stripe;
			uint64_t s;

			memcpy(&stripe, res.data.data + at, 4);
			memcpy(&s, res.data.data + at + 4, 8);
			last = le32toh(stripe);
			if (last < n)
				seq[last] = le64toh(s);
		}
		vfs_result_done(&res);
		if (r < 0)
			return err_errno(e, r, "%s:%s", p->volume, p->path);
		if (!more || last + vclient_map(p->client)->stripe >= n)
			return 0;
		op.off = last + vclient_map(p->client)->stripe; /* the group's next */
	}
	return 0;
}

/* ---- where ---- */

static json_t *group_json(struct cmd *c, const struct vol_map *m, uint32_t g, struct err *e)
{
	json_t *bricks = json_array(), *isr = json_array(), *primary = NULL;
	struct repl_view v = {0};
	int64_t rev;
	int r = volcfg_view_get(c->store, m, g, &v, &rev, e);

	for (uint32_t j = 0; j < VOL_MEMBERS_MAX; j++) {
		int brick = repl_view_brick(m, g, &v, j);
		const struct vol_brick *b = &m->brick[MAX(brick, 0)];

		if (brick < 0)
			continue;

		json_array_append_new(bricks, json_pack("{s:s,s:s,s:s}", "name", b->name, "domain", b->domain,
							"path", b->path));
		if (r == 0 && v.epoch > 0 && (v.isr >> j & 1))
			json_array_append_new(isr, json_string(b->name));
		if (r == 0 && v.epoch > 0 && v.primary == j)
			primary = json_string(b->name);
	}
	return json_pack("{s:i,s:I,s:o,s:o,s:o}", "group", (int)g, "epoch", (json_int_t)v.epoch, "primary",
			 primary ? primary : json_null(), "isr", isr, "bricks", bricks);
}

static json_t *stripes_json(const struct place *p, const struct vol_map *m, const uint64_t *seq, uint64_t n)
{
	json_t *a = json_array();

	for (uint64_t i = 0; i < n; i++)
		json_array_append_new(a, json_pack("{s:I,s:i,s:I}", "stripe", (json_int_t)i, "group",
						   (int)vol_group_of_stripe(m, &p->ino, i), "version",
						   (json_int_t)seq[i]));
	return a;
}

static json_t *where_json(struct cmd *c, const struct place *p, const uint64_t *seq, uint64_t n,
			  struct err *e)
{
	const struct vol_map *m = vclient_map(p->client);
	json_t *groups = json_array();
	uint32_t g[VOL_STRIPE_MAX];
	char folder[33];

	vol_place(m, &p->ino.folder, g);
	vol_id_text(&p->ino.folder, folder);
	for (uint32_t i = 0; i < m->stripe; i++)
		json_array_append_new(groups, group_json(c, m, g[i], e));
	return json_pack("{s:s,s:s,s:s,s:I,s:s,s:I,s:i,s:i,s:s,s:o,s:o}", "volume", m->name, "path", p->path,
			 "folder", folder, "number", (json_int_t)p->ino.num, "type",
			 S_ISDIR(p->attr.mode)	 ? "folder"
			 : S_ISREG(p->attr.mode) ? "file"
						 : "other",
			 "size", (json_int_t)p->attr.size, "stripe_size", (int)m->stripe_size, "owner_group",
			 (int)g[0], "home",
			 p->ino.folder.b[0] > 0 && p->ino.folder.b[0] <= m->n_domains
				 ? m->domains[p->ino.folder.b[0] - 1]
				 : "",
			 "groups", groups, "stripes", stripes_json(p, m, seq, n));
}

static void where_text(const json_t *o)
{
	const json_t *g, *b, *s;
	size_t i, j;

	printf("%s:%s: %s, %lld bytes, folder %s, number %lld\n", js_str_or(o, "volume", ""),
	       js_str_or(o, "path", ""), js_str_or(o, "type", ""), (long long)js_int(o, "size", 0),
	       js_str_or(o, "folder", ""), (long long)js_int(o, "number", 0));
	if (js_str_or(o, "home", "")[0])
		printf("at home in domain %s\n", js_str_or(o, "home", ""));
	json_array_foreach (js_get(o, "groups"), i, g) {
		printf("group %lld%s: epoch %lld, primary %s, bricks", (long long)js_int(g, "group", 0),
		       i == 0 ? " (owner of the name and the inode)" : "", (long long)js_int(g, "epoch", 0),
		       js_str_or(g, "primary", "none"));
		json_array_foreach (js_get(g, "bricks"), j, b)
			printf(" %s:%s", js_str_or(b, "name", ""), js_str_or(b, "path", ""));
		printf(", in sync");
		json_array_foreach (js_get(g, "isr"), j, b)
			printf(" %s", json_string_value(b));
		putchar('\n');
	}
	json_array_foreach (js_get(o, "stripes"), i, s) {
		if (i == 0)
			printf("%8s %6s %10s\n", "STRIPE", "GROUP", "VERSION");
		if (i == TEXT_ROWS) {
			printf("... and %zu more; -o json has all\n",
			       json_array_size(js_get(o, "stripes")) - i);
			break;
		}
		if (js_int(s, "version", 0) > 0)
			printf("%8lld %6lld %10lld\n", (long long)js_int(s, "stripe", 0),
			       (long long)js_int(s, "group", 0), (long long)js_int(s, "version", 0));
		else
			printf("%8lld %6lld %10s\n", (long long)js_int(s, "stripe", 0),
			       (long long)js_int(s, "group", 0), "hole");
	}
}

static int where(struct cmd *c, struct place *p, struct err *e)
{
	const struct vol_map *m = vclient_map(p->client);
	_cleanup_free_ uint64_t *seq = NULL;
	_cleanup_json_ json_t *o = NULL;
	uint64_t n = 0;
	int r = walk(p, NULL, e);

	if (r < 0)
		return r;
	if (S_ISREG(p->attr.mode))
		n = MIN((p->attr.size + m->stripe_size - 1) / m->stripe_size, (uint64_t)STRIPES_MAX);
	seq = xcalloc(n + 1, sizeof(*seq));
	for (uint64_t i = 0; i < MIN(n, (uint64_t)m->stripe) && r == 0; i++)
		r = versions(p, i, seq, n, e);
	if (r < 0)
		return r;
	o = where_json(c, p, seq, n, e);
	if (wants_json(c))
		print_json(o);
	else
		where_text(o);
	return 0;
}

int cmd_where(struct cmd *c, struct err *e)
{
	struct place p = {0};
	int r = parse_place(c->words[0], false, &p, e);

	if (r == 0)
		r = open_place(c, &p, e);
	if (r == 0)
		r = where(c, &p, e);
	place_done(&p);
	return r;
}

/* ---- mkdir ---- */

static int make_folder(struct cmd *c, struct place *p, struct err *e)
{
	const struct vol_map *m = vclient_map(p->client);
	struct vfs_op op = {.type = VFS_MKDIR, .uid = getuid(), .gid = getgid(), .pid = (uint32_t)getpid()};
	struct vfs_result res = {0};
	const char *name = NULL;
	uint32_t home = 0;
	int r;

	while (home < m->n_domains && !streq(m->domains[home], c->home))
		home++;
	if (home == m->n_domains)
		return err_set(e, -EINVAL, "volume %s has no bricks in domain '%s'", m->name, c->home);
	r = walk(p, &name, e);
	if (r < 0)
		return r;
	op.ino = p->ino;
	op.name = name;
	op.name_len = (uint16_t)strcspn(name, "/");
	op.attr = (struct vfs_attr){
		.mode = S_IFDIR | 0755, .uid = op.uid, .gid = op.gid, .home = (uint8_t)(home + 1)};
	random_bytes(op.target.folder.b, sizeof(op.target.folder.b));
	op.target.folder.b[0] = (uint8_t)(home + 1);
	r = vclient_call(p->slot, &op, &res, NULL);
	vfs_result_done(&res);
	if (r < 0)
		return err_errno(e, r, "%s:%s", p->volume, p->path);
	printf("%s:%s: made, at home in domain %s\n", p->volume, p->path, c->home);
	return 0;
}

int cmd_mkdir(struct cmd *c, struct err *e)
{
	struct place p = {0};
	int r;

	if (!c->home)
		return err_set(e, -EINVAL,
			       "usage: kuayu volume mkdir --home DOMAIN PATH (without a home domain: mkdir "
			       "on the mount)");
	r = parse_place(c->words[0], true, &p, e);
	if (r == 0)
		r = open_place(c, &p, e);
	if (r == 0)
		r = make_folder(c, &p, e);
	place_done(&p);
	return r;
}
