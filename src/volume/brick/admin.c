/* SPDX-License-Identifier: Apache-2.0 */
/* admin: what operators ask a brick (FRAME_ADMIN, JSON; docs/protocol/volume.md "Questions of operators"), and what bricks tell one another: how much is free on
 * the disks of a group's members, once a second, so that the primary stops in time. */
#include "volume/brick/internal.h"

static void set_int(json_t *o, const char *name, uint64_t v)
{
	json_object_set_new(o, name, json_integer((json_int_t)v));
}

static const char *member_name(const struct grp *g, uint8_t i)
{
	const struct vol_map *m = g->v->doc.map;
	int brick = repl_view_brick(m, g->idx, &g->view, i);

	return brick < 0 ? "" : m->brick[brick].name;
}

static json_t *group_status(const struct grp *g)
{
	static const char *const roles[] = {"out", "catching", "backup", "promoting", "primary"};
	json_t *o = json_object(), *isr = json_array(), *members = json_array();
	struct repl_view view;
	struct repl_pos pos = repl_pos(g->repl);
	enum repl_role role = repl_role(g->repl);

	repl_get_view(g->repl, &view);
	set_int(o, "group", g->idx);
	set_int(o, "epoch", view.epoch);
	set_int(o, "seq", pos.seq);
	set_int(o, "committed", repl_committed(g->repl));
	json_object_set_new(o, "role",
			    json_string(g->v->error && role == REPL_OUT		 ? "failed"
					: repl_lost(g->repl) && role == REPL_OUT ? "lost"
										 : roles[role]));
	json_object_set_new(o, "primary",
			    view.epoch && view.primary < g->n ? json_string(member_name(g, view.primary))
							      : json_null());
	for (uint8_t i = 0; i < g->n; i++) {
		json_t *m;

		if (!member_name(g, i)[0])
			continue;
		m = json_object();
		if (view.isr & 1u << i)
			json_array_append_new(isr, json_string(member_name(g, i)));
		json_object_set_new(m, "brick", json_string(member_name(g, i)));
		set_int(m, "seq", i == g->self ? pos.seq : repl_member_seq(g->repl, i));
		json_array_append_new(members, m);
	}
	json_object_set_new(o, "isr", isr);
	json_object_set_new(o, "members", members);
	if (g->pull) {
		json_t *heal = json_object();

		heal_status(g, heal);
		json_object_set_new(o, "heal", heal);
	}
	return o;
}

static json_t *hist_status(const struct hist *h)
{
	json_t *o = json_object();

	set_int(o, "p50", hist_quantile(h, 0.5));
	set_int(o, "p99", hist_quantile(h, 0.99));
	return o;
}

static json_t *vol_status(const struct vol *v)
{
	struct brick *b = v->b;
	json_t *o = json_object(), *groups = json_array(), *scrub = json_object();
	struct bstore_stats st = {0};

	json_object_set_new(o, "volume", json_string(v->name));
	json_object_set_new(o, "node", json_string(b->s.node));
	json_object_set_new(o, "domain", json_string(b->s.domain));
	set_int(o, "pid", (uint64_t)getpid());
	json_object_set_new(o, "state", json_string(!v->open ? "closed" : v->error ? "failed" : "open"));
	json_object_set_new(o, "error", v->error_text[0] ? json_string(v->error_text) : json_null());
	set_int(o, "early", b->n.early);
	json_object_set_new(o, "latency_us", hist_status(&b->latency));
	json_object_set_new(o, "sync_latency_us", hist_status(&b->sync_latency));
	if (v->open) {
		bstore_get_stats(v->store, &st);
		for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
			if (v->grp[i])
				json_array_append_new(groups, group_status(v->grp[i]));
		scrub_status(v, scrub);
	}
	set_int(o, "bytes_total", st.bytes_total);
	set_int(o, "bytes_free", st.bytes_free);
	set_int(o, "log_bytes", st.log_bytes);
	set_int(o, "checkpoints", st.checkpoints);
	set_int(o, "sessions", v->n_sessions);
	set_int(o, "leases", v->leases.n);
	set_int(o, "lost", v->n_lost);
	json_object_set_new(o, "groups", groups);
	json_object_set_new(o, "scrub", scrub);
	return o;
}

static json_t *top_rows(const struct top *t, bool files)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < t->n; i++) {
		const struct top_row *row = &t->row[i];
		json_t *o;

		if (row->ops == 0)
			continue;
		o = json_object();
		if (files) {
			struct vol_ino ino;
			char hex[33];

			memcpy(&ino, row->key, sizeof(ino));
			vol_id_text(&ino.folder, hex);
			json_object_set_new(o, "folder", json_string(hex));
			set_int(o, "num", ino.num);
		} else {
			uint64_t client;
			char hex[17];

			memcpy(&client, row->key, sizeof(client));
			snprintf(hex, sizeof(hex), "%016llx", (unsigned long long)client);
			json_object_set_new(o, "client", json_string(hex));
			json_object_set_new(o, "host", json_string(row->name));
		}
		set_int(o, "ops", row->ops * 8);
		set_int(o, "bytes", row->bytes);
		json_array_append_new(a, o);
	}
	return a;
}

static json_t *answer(struct brick *b, struct vol *v, const char *verb, int *ret_status)
{
	json_t *o;

	*ret_status = 0;
	if (!v) {
		*ret_status = -ENODEV;
		return json_pack("{s:s}", "error", "the volume is not on this brick");
	}
	if (streq(verb, "status"))
		return vol_status(v);
	if (streq(verb, "scrub") || streq(verb, "heal")) {
		if (v->open)
			scrub_start(v);
		return vol_status(v);
	}
	if (streq(verb, "top")) {
		o = json_object();
		json_object_set_new(o, "node", json_string(b->s.node));
		json_object_set_new(o, "files", top_rows(&v->files, true));
		json_object_set_new(o, "clients", top_rows(&v->clients, false));
		return o;
	}
	*ret_status = -EINVAL;
	return json_pack("{s:s}", "error", "verbs are status, heal, scrub and top");
}

/* {"verb":"space","volumes":{NAME: bytes free}} of another brick; no answer. */
static void space_in(struct brick *b, struct peer *p, const json_t *q)
{
	const json_t *all = json_object_get(q, "volumes"), *value;
	const char *name;

	json_object_foreach ((json_t *)all, name, value) {
		struct vol *v = vol_by_name(b, name);

		for (uint32_t i = 0; v && v->open && i < v->doc.map->n_groups; i++)
			for (uint8_t m = 0; v->grp[i] && m < v->grp[i]->n; m++)
				if (v->grp[i]->member[m] == p && json_is_integer(value))
					space_told(v->grp[i], m, (uint64_t)MAX(json_integer_value(value), 0));
	}
}

int admin_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why)
{
	struct side *side = c->owner;
	struct brick *b = side->b;
	_cleanup_json_ json_t *q = NULL, *a = NULL;
	_cleanup_free_ char *text = NULL;
	struct proto_head out = {
		.type = FRAME_ADMIN, .flags = FRAME_ANSWER, .request = h->request, .volume = h->volume};
	const char *verb, *name;
	struct vol *v;
	struct err e;
	int status;

	if (js_parse_new((const char *)body, h->body_len, &q, &e) < 0 || !(verb = js_str(q, "verb"))) {
		*why = "a malformed question of an operator";
		return -EBADMSG;
	}
	if (streq(verb, "space") && side->peer) {
		space_in(b, side->peer, q);
		return 0;
	}
	name = js_str(q, "volume");
	v = name ? vol_by_name(b, name) : vol_by_tag(b, h->volume);
	a = answer(b, v, verb, &status);
	out.status = status;
	text = js_text(a);
	bconn_send(c, &out, text, strlen(text), NULL);
	return 0;
}

void admin_tick(struct brick *b)
{
	_cleanup_json_ json_t *o = json_object();
	_cleanup_free_ char *text = NULL;
	json_t *all = json_object();

	b->told = b->taken;
	json_object_set_new(o, "verb", json_string("space"));
	json_object_set_new(o, "volumes", all);
	for (struct vol *v = b->vols; v; v = v->next) {
		struct bstore_stats st;

		if (!v->open)
			continue;
		space_measure(v);
		bstore_get_stats(v->store, &st);
		set_int(all, v->name, st.bytes_free);
	}
	if (json_object_size(all) == 0)
		return;
	text = js_text(o);
	for (struct peer *p = b->peers; p; p = p->next) {
		struct proto_head h = {.type = FRAME_ADMIN};

		if (p->link)
			bconn_send(p->link, &h, text, strlen(text), NULL);
	}
}
