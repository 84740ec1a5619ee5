/* SPDX-License-Identifier: Apache-2.0 */
/* Documents of volumes, bricks and views in the store. A document that cannot be read (another version's, or damaged) is an error for who asked
 * for it by name and is passed over, with a line in the log, by lists and watches. */
#include "volume/config/internal.h"

#define BRICKS	  "/kuayu/bricks/"
#define VOLUMES	  "/kuayu/volumes/"
#define BATCH	  48 /* operations a transaction */
#define CAS_TRIES 16

static void key_of(char key[STORE_KEY_MAX], const char *name)
{
	snprintf(key, STORE_KEY_MAX, VOLUMES "%s", name);
}

static void view_key(char key[STORE_KEY_MAX], const char *name, uint32_t group)
{
	snprintf(key, STORE_KEY_MAX, VOLUMES "%s/view/%04u", name, group);
}

/* ---- bricks ---- */

int volcfg_register(struct store *s, const struct volcfg_brick *b, int64_t *ret_lease, struct err *e)
{
	_cleanup_json_ json_t *o =
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "name", b->brick.name, "domain", b->brick.domain,
			  "address", b->brick.address, "path", b->brick.path, "version", KUAYU_VERSION,
			  "incarnation", (json_int_t)(b->incarnation & INT64_MAX));
	_cleanup_free_ char *text = NULL;
	char key[STORE_KEY_MAX];
	struct store_op op = {.type = STORE_PUT, .key = key};
	int64_t lease, rev;
	int r;

	if (!o)
		return err_set(e, -EINVAL, "brick %s: a name that is no UTF-8", b->brick.name);
	r = store_lease_grant(s, BRICK_LEASE_S, &lease, e);
	if (r < 0)
		return r;
	text = js_text(o);
	snprintf(key, sizeof(key), BRICKS "%s", b->brick.name);
	op.value = text;
	op.value_len = strlen(text);
	op.lease = lease;
	r = store_txn(s, NULL, 0, &op, 1, &rev, e);
	if (r < 0)
		return r;
	*ret_lease = lease;
	return 0;
}

static int copy_text(char *out, size_t size, const char *text)
{
	if (!text || strlen(text) >= size)
		return -EINVAL;
	strcpy(out, text);
	return 0;
}

static int brick_parse(const struct store_kv *kv, struct volcfg_brick *ret)
{
	_cleanup_json_ json_t *o = NULL;

	*ret = (struct volcfg_brick){.brick.weight = 100};
	if (js_parse_new(kv->value, kv->value_len, &o, NULL) < 0 ||
	    copy_text(ret->brick.name, sizeof(ret->brick.name), js_str(o, "name")) < 0 ||
	    copy_text(ret->brick.domain, sizeof(ret->brick.domain), js_str(o, "domain")) < 0 ||
	    copy_text(ret->brick.address, sizeof(ret->brick.address), js_str(o, "address")) < 0 ||
	    copy_text(ret->brick.path, sizeof(ret->brick.path), js_str(o, "path")) < 0)
		return -EBADMSG;
	ret->incarnation = (uint64_t)js_int(o, "incarnation", 0);
	return 0;
}

int volcfg_bricks(struct store *s, struct volcfg_brick **ret, size_t *ret_n, struct err *e)
{
	struct store_list l = {0};
	int r = store_range(s, BRICKS, NULL, 0, 0, &l, e);

	if (r < 0)
		return r;
	*ret = xcalloc(MAX(l.n, 1u), sizeof(**ret));
	*ret_n = 0;
	for (size_t i = 0; i < l.n; i++)
		if (brick_parse(&l.kv[i], *ret + *ret_n) == 0)
			(*ret_n)++;
		else
			log_warn("%s is no brick's document", l.kv[i].key);
	store_list_done(&l);
	return 0;
}

/* ---- volumes ---- */

void volcfg_volume_done(struct volcfg_volume *v)
{
	v->map = vol_map_free(v->map);
	json_decref(v->options);
	v->options = NULL;
}

static int volume_parse(const char *key, const char *text, size_t len, int64_t mod_rev,
			struct volcfg_volume *ret, struct err *e)
{
	_cleanup_json_ json_t *o = NULL;
	const char *state;
	int r;

	*ret = (struct volcfg_volume){.mod_rev = mod_rev};
	r = js_parse_new(text, len, &o, e);
	if (r == 0)
		r = vol_map_from_json(o, &ret->map, e);
	if (r < 0)
		return err_wrap(e, "%s", key);
	state = js_str_or(o, "state", "created");
	if (copy_text(ret->state, sizeof(ret->state), state) < 0) {
		volcfg_volume_done(ret);
		return err_set(e, -EBADMSG, "%s: a state that is none", key);
	}
	ret->map->started = streq(state, "started");
	ret->options =
		json_is_object(js_get(o, "options")) ? json_deep_copy(js_get(o, "options")) : json_object();
	return 0;
}

int volcfg_get(struct store *s, const char *name, struct volcfg_volume *ret, struct err *e)
{
	struct store_kv kv = {0};
	char key[STORE_KEY_MAX];
	int r;

	if (!vol_name_valid(name))
		return err_set(e, -EINVAL, "'%s' is no name of a volume", name);
	key_of(key, name);
	r = store_get(s, key, 0, &kv, NULL, e);
	if (r == -ENOENT)
		return err_set(e, r, "volume %s does not exist", name);
	if (r < 0)
		return r;
	r = volume_parse(key, kv.value, kv.value_len, kv.mod_rev, ret, e);
	store_kv_done(&kv);
	return r;
}

int volcfg_list(struct store *s, char ***ret_names, size_t *ret_n, int64_t *ret_rev, struct err *e)
{
	struct store_list l = {0};
	char **names = NULL;
	int r = store_range(s, VOLUMES, NULL, 0, 0, &l, e);

	if (r < 0)
		return r;
	names = xcalloc(1, sizeof(*names));
	for (size_t i = 0; i < l.n; i++)
		if (!strchr(l.kv[i].key + strlen(VOLUMES), '/'))
			names = strv_add(names, l.kv[i].key + strlen(VOLUMES));
	*ret_n = strv_len(names);
	*ret_names = names;
	if (ret_rev)
		*ret_rev = l.rev;
	store_list_done(&l);
	return 0;
}

static char *volume_text(const struct volcfg_volume *v, const char *created)
{
	_cleanup_json_ json_t *o = vol_map_to_json(v->map);

	json_object_set_new(o, "state", json_string(v->state[0] ? v->state : "created"));
	json_object_set_new(o, "started", json_boolean(streq(v->state, "started")));
	if (v->options)
		json_object_set(o, "options", v->options);
	else
		json_object_set_new(o, "options", json_object());
	json_object_set_new(o, "created", json_string(created));
	return js_text(o);
}

/* ---- views ---- */

static const char *member_name(const struct vol_map *m, uint32_t group, const struct repl_view *v,
			       uint32_t slot)
{
	int brick = repl_view_brick(m, group, v, slot);

	return brick < 0 ? "" : m->brick[brick].name;
}

static char *view_text(const struct vol_map *m, uint32_t group, const struct repl_view *v)
{
	_cleanup_json_ json_t *o = json_object(), *isr = json_array(), *members = json_array();
	struct repl_view full = *v;

	repl_view_fill(m, group, &full);
	v = &full;
	json_object_set_new(o, "epoch", json_integer((json_int_t)v->epoch));
	json_object_set_new(o, "primary", json_string(member_name(m, group, v, v->primary)));
	for (uint32_t i = 0; i < VOL_MEMBERS_MAX && v->members >> i; i++) {
		json_array_append_new(members, json_string(member_name(m, group, v, i)));
		if (v->isr >> i & 1)
			json_array_append_new(isr, json_string(member_name(m, group, v, i)));
	}
	json_object_set(o, "isr", isr);
	json_object_set(o, "members", members);
	if (v->joining)
		json_object_set_new(o, "joining", json_string(member_name(m, group, v, v->joining - 1u)));
	if (v->leaving)
		json_object_set_new(o, "leaving", json_string(member_name(m, group, v, v->leaving - 1u)));
	if (v->fork)
		json_object_set_new(o, "fork", json_integer((json_int_t)v->fork));
	return js_text(o);
}

static int member_of(const struct vol_map *m, uint32_t group, const struct repl_view *v, const char *name)
{
	int brick = name ? vol_brick_find(m, name) : -1;

	return brick < 0 ? -1 : repl_view_slot(m, group, v, (uint32_t)brick);
}

/* Slots by name, "" = free. A view without them is an older version's, of a group that never moved: it lies where it was made. */
static int members_parse(const struct vol_map *m, uint32_t group, const json_t *members,
			 struct repl_view *ret)
{
	const json_t *name;
	size_t i;

	if (!members) {
		ret->members = (uint8_t)((1u << m->replica) - 1);
		memcpy(ret->brick, m->group[group].origin, m->replica * sizeof(ret->brick[0]));
		return 0;
	}
	if (!json_is_array(members) || json_array_size(members) > VOL_MEMBERS_MAX)
		return -EBADMSG;
	json_array_foreach (members, i, name) {
		const char *text = json_string_value(name);
		int brick = text && text[0] ? vol_brick_find(m, text) : -1;

		if (!text || (text[0] && brick < 0))
			return -EBADMSG;
		if (brick < 0)
			continue;
		ret->members = (uint8_t)(ret->members | 1u << i);
		ret->brick[i] = (uint16_t)brick;
	}
	return ret->members ? 0 : -EBADMSG;
}

static int move_parse(const struct vol_map *m, uint32_t group, const json_t *o, struct repl_view *ret)
{
	const char *joining = js_str(o, "joining"), *leaving = js_str(o, "leaving");
	int j = member_of(m, group, ret, joining), l = member_of(m, group, ret, leaving);

	if (!joining && !leaving)
		return 0;
	if (j < 0 || l < 0)
		return -EBADMSG;
	ret->joining = (uint8_t)(j + 1);
	ret->leaving = (uint8_t)(l + 1);
	return 0;
}

static int view_parse(const struct vol_map *m, uint32_t group, const char *text, size_t len,
		      struct repl_view *ret)
{
	_cleanup_json_ json_t *o = NULL;
	int64_t epoch;
	json_t *name;
	size_t i;
	int k;

	if (js_parse_new(text, len, &o, NULL) < 0 || (epoch = js_int(o, "epoch", -1)) < 0)
		return -EBADMSG;
	*ret = (struct repl_view){.epoch = (uint64_t)epoch,
				  .fork = (uint64_t)MAX(js_int(o, "fork", 0), (int64_t)0)};
	if (members_parse(m, group, js_get(o, "members"), ret) < 0 || move_parse(m, group, o, ret) < 0)
		return -EBADMSG;
	k = member_of(m, group, ret, js_str(o, "primary"));
	if (k < 0)
		return -EBADMSG;
	ret->primary = (uint8_t)k;
	json_array_foreach (js_get(o, "isr"), i, name) {
		k = member_of(m, group, ret, json_string_value(name));
		if (k < 0)
			return -EBADMSG;
		ret->isr = (uint8_t)(ret->isr | 1u << k);
	}
	return 0;
}

int volcfg_view_get(struct store *s, const struct vol_map *m, uint32_t group, struct repl_view *ret,
		    int64_t *ret_rev, struct err *e)
{
	struct store_kv kv = {0};
	char key[STORE_KEY_MAX];
	int r;

	view_key(key, m->name, group);
	r = store_get(s, key, 0, &kv, NULL, e);
	if (r < 0)
		return r;
	r = view_parse(m, group, kv.value, kv.value_len, ret);
	*ret_rev = kv.mod_rev;
	store_kv_done(&kv);
	return r < 0 ? err_set(e, r, "%s is no view", key) : 0;
}

int volcfg_view_cas(struct store *s, const struct vol_map *m, uint32_t group, uint64_t expect_epoch,
		    const struct repl_view *next, struct repl_view *now, struct err *e)
{
	_cleanup_free_ char *text = view_text(m, group, next);
	char key[STORE_KEY_MAX];
	struct store_cmp cmp = {.key = key};
	struct store_op op = {.type = STORE_PUT, .key = key, .value = text, .value_len = strlen(text)};
	int64_t rev;
	int r;

	for (uint32_t i = 0; i < VOL_MEMBERS_MAX; i++)
		if (next->members >> i & 1 && repl_view_brick(m, group, next, i) < 0)
			return err_set(e, -EAGAIN, "group %u has a member that this map does not know yet",
				       group);
	r = volcfg_view_get(s, m, group, now, &cmp.mod_rev, e);

	if (r < 0)
		return r;
	if (now->epoch != expect_epoch)
		return err_set(e, -EEXIST, "group %u is in epoch %llu", group,
			       (unsigned long long)now->epoch);
	view_key(key, m->name, group);
	r = store_txn(s, &cmp, 1, &op, 1, &rev, e);
	if (r == -EEXIST && volcfg_view_get(s, m, group, now, &cmp.mod_rev, e) < 0)
		return -EAGAIN;
	if (r == 0)
		*now = *next;
	return r;
}

/* ---- folders ---- */

int volcfg_folder_put(struct store *s, const char *volume, const char *node, const struct volcfg_folder *f,
		      struct err *e)
{
	_cleanup_json_ json_t *o = json_object();
	_cleanup_free_ char *text = NULL;
	json_t *lost = json_array();
	char uuid[33], instance[33], key[STORE_KEY_MAX];
	struct store_op op = {.type = STORE_PUT, .key = key};
	int64_t rev;

	vol_id_text(&f->volume, uuid);
	vol_id_text(&f->instance, instance);
	for (uint32_t g = 0; g < VOL_GROUPS_MAX; g++)
		if (f->lost[g])
			json_array_append_new(lost, json_integer(g));
	js_set_new(o, "volume", json_string(uuid));
	js_set_new(o, "instance", json_string(instance));
	js_set_new(o, "opened", json_integer((json_int_t)f->opened));
	js_set_new(o, "lost", lost);
	op.value = text = js_text(o);
	op.value_len = strlen(text);
	snprintf(key, sizeof(key), VOLUMES "%s/folder/%s", volume, node);
	return store_txn(s, NULL, 0, &op, 1, &rev, e);
}

int volcfg_parse_folder(const struct store_kv *kv, struct volcfg_folder *ret)
{
	_cleanup_json_ json_t *o = NULL;
	const char *uuid, *instance;
	const json_t *group;
	size_t i;

	*ret = (struct volcfg_folder){0};
	if (js_parse_new(kv->value, kv->value_len, &o, NULL) < 0 || !(uuid = js_str(o, "volume")) ||
	    !(instance = js_str(o, "instance")) || vol_id_parse(uuid, &ret->volume) < 0 ||
	    vol_id_parse(instance, &ret->instance) < 0 || js_int(o, "opened", -1) < 0)
		return -EBADMSG;
	ret->opened = (uint64_t)js_int(o, "opened", 0);
	json_array_foreach (js_get(o, "lost"), i, group)
		if (json_integer_value(group) >= 0 && json_integer_value(group) < VOL_GROUPS_MAX)
			ret->lost[json_integer_value(group)] = true;
	return 0;
}

static int delete_below(struct store *s, const char *prefix, struct err *e)
{
	struct store_list l = {0};
	struct store_op op = {.type = STORE_DELETE};
	int64_t rev;
	int r = store_range(s, prefix, NULL, 0, 0, &l, e);

	for (size_t i = 0; i < l.n && r == 0; i++) {
		op.key = l.kv[i].key;
		r = store_txn(s, NULL, 0, &op, 1, &rev, e);
	}
	store_list_done(&l);
	return r;
}

int volcfg_folders_forget(struct store *s, const char *volume, struct err *e)
{
	char below[STORE_KEY_MAX];

	snprintf(below, sizeof(below), VOLUMES "%s/folder/", volume);
	return delete_below(s, below, e);
}

/* ---- creating, changing, deleting ---- */

static int put_views(struct store *s, const struct vol_map *m, struct err *e)
{
	for (uint32_t from = 0; from < m->n_groups; from += BATCH) {
		uint32_t n = MIN(m->n_groups - from, (uint32_t)BATCH);
		char key[BATCH][VOL_NAME_MAX + 64], *text[BATCH];
		struct store_op op[BATCH];
		int64_t rev;
		int r;

		for (uint32_t i = 0; i < n; i++) {
			struct repl_view v = {.isr = (uint8_t)((1u << m->replica) - 1)};

			text[i] = view_text(m, from + i, &v);
			snprintf(key[i], sizeof(key[i]), VOLUMES "%s/view/%04u", m->name, from + i);
			op[i] = (struct store_op){.type = STORE_PUT,
						  .key = key[i],
						  .value = text[i],
						  .value_len = strlen(text[i])};
		}
		r = store_txn(s, NULL, 0, op, n, &rev, e);
		for (uint32_t i = 0; i < n; i++)
			free(text[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Views first: who finds the volume finds them all. Two who create the same name at once: one of them gets -EEXIST, and the views are alike. */
int volcfg_create(struct store *s, const struct volcfg_volume *v, struct err *e)
{
	char key[STORE_KEY_MAX], now[CLOCK_TEXT_MAX];
	_cleanup_free_ char *text = volume_text(v, clock_text(now, clock_wall_us(), 0));
	struct store_cmp cmp = {.key = key};
	struct store_op op = {.type = STORE_PUT, .key = key, .value = text, .value_len = strlen(text)};
	struct store_kv kv = {0};
	int64_t rev;
	int r;

	key_of(key, v->map->name);
	r = store_get(s, key, 0, &kv, NULL, NULL);
	store_kv_done(&kv);
	if (r == -ENOENT)
		r = put_views(s, v->map, e);
	else if (r == 0)
		r = -EEXIST;
	if (r == 0)
		r = store_txn(s, &cmp, 1, &op, 1, &rev, e);
	return r == -EEXIST ? err_set(e, r, "volume %s exists already", v->map->name) : r;
}

int volcfg_put(struct store *s, const struct volcfg_volume *v, struct err *e)
{
	_cleanup_json_ json_t *before = NULL;
	_cleanup_free_ char *text = NULL;
	char key[STORE_KEY_MAX];
	struct store_cmp cmp = {.key = key, .mod_rev = v->mod_rev};
	struct store_op op = {.type = STORE_PUT, .key = key};
	struct store_kv kv = {0};
	int64_t rev;
	int r;

	key_of(key, v->map->name);
	r = store_get(s, key, 0, &kv, NULL, e);
	if (r < 0)
		return r;
	if (js_parse_new(kv.value, kv.value_len, &before, NULL) < 0)
		before = json_object();
	store_kv_done(&kv);
	op.value = text = volume_text(v, js_str_or(before, "created", ""));
	op.value_len = strlen(text);
	r = store_txn(s, &cmp, 1, &op, 1, &rev, e);
	return r == -EEXIST ? err_set(e, -EAGAIN, "volume %s was changed meanwhile", v->map->name) : r;
}

/* Views that do not name their members, an older version's, get them: from now on they need not be where the map says. */
static int name_members(struct store *s, const struct vol_map *m, struct err *e)
{
	for (uint32_t g = 0; g < m->n_groups; g++)
		for (int try = 0;; try++) {
			_cleanup_free_ char *text = NULL;
			char key[STORE_KEY_MAX];
			struct store_cmp cmp = {.key = key};
			struct store_op op = {.type = STORE_PUT, .key = key};
			struct store_kv kv = {0};
			struct repl_view v;
			int64_t rev;
			bool there;
			int r;

			view_key(key, m->name, g);
			r = store_get(s, key, 0, &kv, NULL, e);
			if (r < 0)
				return r;
			cmp.mod_rev = kv.mod_rev;
			there = memmem(kv.value, kv.value_len, "\"members\"", 9) != NULL;
			r = there ? 0 : view_parse(m, g, kv.value, kv.value_len, &v);
			store_kv_done(&kv);
			if (r < 0)
				return err_set(e, r, "%s is no view", key);
			if (there)
				break;
			op.value = text = view_text(m, g, &v);
			op.value_len = strlen(text);
			r = store_txn(s, &cmp, 1, &op, 1, &rev, e);
			if (r == 0)
				break;
			if (r != -EEXIST || try == CAS_TRIES)
				return r;
		}
	return 0;
}

int volcfg_move(struct store *s, const struct volcfg_volume *v, const struct vol_map *to, struct err *e)
{
	struct volcfg_volume next = *v;
	int r = name_members(s, v->map, e);

	next.map = (struct vol_map *)to;
	return r < 0 ? r : volcfg_put(s, &next, e);
}

/* One transaction: a start that comes at the same time either sees all of it or makes it fail. */
int volcfg_expand(struct store *s, const struct volcfg_volume *v, const struct vol_map *wider, struct err *e)
{
	struct volcfg_volume next = *v;
	char now[CLOCK_TEXT_MAX], key[STORE_TXN_OPS_MAX][VOL_NAME_MAX + 64];
	_cleanup_strv_ char **text = NULL;
	struct store_cmp cmp = {.key = key[0], .mod_rev = v->mod_rev};
	struct store_op op[STORE_TXN_OPS_MAX];
	size_t n = 1;
	int64_t rev;
	int r;

	if (streq(v->state, "started"))
		return err_set(e, -EBUSY, "volume %s is started", wider->name);
	next.map = (struct vol_map *)wider;
	_cleanup_free_ char *doc = volume_text(&next, clock_text(now, clock_wall_us(), 0));
	snprintf(key[0], sizeof(key[0]), VOLUMES "%s", wider->name);
	op[0] = (struct store_op){.type = STORE_PUT, .key = key[0], .value = doc, .value_len = strlen(doc)};
	for (uint32_t g = 0; g < wider->n_groups; g++) {
		struct repl_view first = {.isr = (uint8_t)((1u << wider->replica) - 1)};
		_cleanup_free_ char *view = NULL;

		if (memcmp(v->map->group[g].brick, wider->group[g].brick, sizeof(wider->group[g].brick)) == 0)
			continue;
		if (n == STORE_TXN_OPS_MAX)
			return err_set(e, -E2BIG, "more than %d groups would move at once: add fewer bricks",
				       STORE_TXN_OPS_MAX - 1);
		view = view_text(wider, g, &first);
		text = strv_add(text, view);
		snprintf(key[n], sizeof(key[n]), VOLUMES "%s/view/%04u", wider->name, g);
		op[n] = (struct store_op){.type = STORE_PUT, .key = key[n], .value_len = strlen(view)};
		n++;
	}
	for (size_t i = 1; i < n; i++)
		op[i].value = text[i - 1];
	r = store_txn(s, &cmp, 1, op, n, &rev, e);
	return r == -EEXIST ? err_set(e, -EAGAIN, "volume %s was changed meanwhile", wider->name) : r;
}

int volcfg_delete(struct store *s, const char *name, struct err *e)
{
	char key[STORE_KEY_MAX], below[STORE_KEY_MAX + 1];
	struct store_op op = {.type = STORE_DELETE, .key = key};
	int64_t rev;
	int r;

	key_of(key, name);
	r = store_txn(s, NULL, 0, &op, 1, &rev, e);
	if (r < 0)
		return r;
	snprintf(below, sizeof(below), "%s/", key);
	return delete_below(s, below, e);
}

int volcfg_option(const struct volcfg_volume *v, const char *name, const char **ret)
{
	const char *text = json_string_value(json_object_get(v->options, name));

	if (!text)
		return -ENOENT;
	*ret = text;
	return 0;
}

int volcfg_parse_volume(const struct store_kv *kv, struct volcfg_volume *ret, struct err *e)
{
	return volume_parse(kv->key, kv->value, kv->value_len, kv->mod_rev, ret, e);
}

int volcfg_parse_view(const struct vol_map *m, uint32_t group, const struct store_kv *kv,
		      struct repl_view *ret)
{
	return view_parse(m, group, kv->value, kv->value_len, ret);
}
