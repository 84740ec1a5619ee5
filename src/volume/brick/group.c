/* SPDX-License-Identifier: Apache-2.0 */
/* group: core/repl's shell. Messages in and out, the log, answers at commit, roles.
 *
 * core/repl calls the functions of repl_io and none of them may call back, so a change of role is only noted; it is acted upon at the end of the loop's
 * turn (grp_turn_roles), before the log is flushed. Answers to clients come after the flush (grp_turn_answers), so nothing leaves that is not in the log.
 *
 * What is touched. A read at the primary sees records that are not committed yet; its answer must wait for those it saw. Each record marks what
 * it touches (a folder or an inode) in a small table of sequence numbers by hash; a read waits for the newest number among those it looked at. A
 * collision costs a wait of one round trip, nothing else. */
#include "volume/brick/internal.h"

static uint64_t touch_hash(const void *folder, uint64_t num)
{
	uint64_t a, b;

	memcpy(&a, folder, 8);
	memcpy(&b, (const uint8_t *)folder + 8, 8);
	a = (a ^ num * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
	return (a ^ b ^ a >> 29) % DIRTY_SLOTS;
}

static void touch(struct grp *g, const void *folder, uint64_t num, uint64_t seq)
{
	g->dirty[touch_hash(folder, num)] = seq;
}

void grp_touched(struct grp *g, const struct record *rec)
{
	for (uint32_t i = 0; i < rec->n; i++) {
		const struct effect *e = &rec->effect[i];
		uint64_t num = 0;

		switch (e->type) {
		case EFFECT_PUT:
		case EFFECT_DEL:
			if (e->key_len < 17 || e->key[0] == 'T')
				break;
			if (e->key[0] != 'E' && e->key_len >= 25)
				memcpy(&num, e->key + 17, 8);
			touch(g, e->key + 1, be64toh(num), rec->seq);
			break;
		case EFFECT_NOTE:
			break;
		default:
			touch(g, e->ino.folder.b, e->ino.num, rec->seq);
		}
	}
}

uint64_t grp_touch_seq(const struct grp *g, const struct vol_ino *ino)
{
	return MAX(g->dirty[touch_hash(ino->folder.b, ino->num)], g->all_dirty);
}

void grp_mark(struct grp *g)
{
	if (g->ready)
		return;
	g->ready = true;
	g->next_ready = g->v->b->ready;
	g->v->b->ready = g;
}

/* ---- what core/repl asks ---- */

static void on_send(void *ctx, const struct repl_msg *m)
{
	struct grp *g = ctx;
	struct conn *c = m->to < g->n && g->member[m->to] ? g->member[m->to]->link : NULL;
	struct proto_head h = {.type = FRAME_REPL, .volume = g->v->tag, .group = g->idx, .epoch = m->epoch};
	struct payload *p = m->record ? m->record->payload : NULL;

	if (!c || (m->record && m->record->payload_len > 0 && !p))
		return;
	if (m->record)
		h.payload_crc = m->record->payload_crc;
	if (p)
		h.request = early_use(g->v->b, c, p);
	proto_repl_encode(m, bconn_begin(c));
	if (m->ahead) {
		bconn_end_part(c, &h, h.request ? NULL : p, 0, p && !h.request ? p->len : 0);
		g->ahead |= (uint8_t)(1u << m->to);
	} else {
		bconn_end(c, &h, h.request ? NULL : p);
	}
}

/* The members are told of the record before it is written here, and write it meanwhile. They may acknowledge it before this turn ends, and then it counts as had by all,
 * so it goes to the log file at once. */
static int append_ahead(struct grp *g, struct record *rec)
{
	int r;

	for (uint8_t i = 0; i < g->n; i++)
		if (g->ahead & 1u << i && g->member[i] && g->member[i]->link)
			bconn_push(g->member[i]->link);
	g->ahead = 0;
	r = bstore_append(g->v->store, rec, false);
	return r < 0 ? r : bstore_write_log(g->v->store);
}

static int on_append(void *ctx, struct record *rec, bool live)
{
	struct grp *g = ctx;
	int r = g->ahead ? append_ahead(g, rec) : bstore_append(g->v->store, rec, live);

	if (r < 0) {
		log_error("volume %s, group %u: record %llu cannot be applied: %s", g->v->name, g->idx,
			  (unsigned long long)rec->seq, strerror(-r));
		g->append_err = r;
		g->append_failed = true; /* told to the others of the volume at the end of the turn */
		grp_mark(g);
		return r;
	}
	space_take(g->v->b, rec);
	g->v->dirty = true;
	return 0;
}

static void on_committed(void *ctx, uint64_t seq)
{
	struct grp *g = ctx;

	g->committed = seq;
	bstore_set_committed(g->v->store, g->idx, seq);
	grp_mark(g);
}

static void on_rollback(void *ctx, struct repl_pos pos, struct repl_pos *ret)
{
	struct grp *g = ctx;
	int r = bstore_rollback(g->v->store, g->idx, pos.epoch, pos.seq);

	if (r == -ERANGE)
		log_info("volume %s, group %u: cannot go back to %llu, which is older than what is kept for "
			 "that: "
			 "everything is compared with the primary",
			 g->v->name, g->idx, (unsigned long long)pos.seq);
	else if (r < 0)
		log_error("volume %s, group %u: cannot go back to %llu: %s", g->v->name, g->idx,
			  (unsigned long long)pos.seq, strerror(-r));
	*ret = r < 0 ? (struct repl_pos){0} : (struct repl_pos){g->replica->epoch, g->replica->seq};
	g->changed = true;
	g->rolled_back = g->strays = true;
	grp_mark(g);
}

struct local_sync {
	struct vol *v;
	uint32_t group;
	uint64_t serial, seq, start_us;
};

static void on_local_synced(void *ctx, int err)
{
	struct local_sync *s = ctx;
	struct vol *v = s->v;
	struct grp *g = v->open && !v->closing ? v->grp[s->group] : NULL;

	if (g && g->serial == s->serial) {
		hist_add(&v->b->sync_latency, clock_us() - s->start_us);
		if (err < 0)
			vol_failed(v, err, "cannot make data durable");
		repl_on_local_sync(g->repl, s->seq, err, clock_ms());
		grp_mark(g);
	}
	vol_unref(v);
	free(s);
}

static void on_sync(void *ctx, uint64_t seq)
{
	struct grp *g = ctx;
	struct local_sync *s = xcalloc(1, sizeof(*s));

	*s = (struct local_sync){g->v, g->idx, g->serial, seq, clock_us()};
	g->v->refs++;
	bstore_sync(g->v->store, on_local_synced, s);
}

static void on_synced(void *ctx, uint64_t cookie, int err)
{
	struct grp *g = ctx;

	for (struct op **at = &g->syncs; *at; at = &(*at)->next) {
		struct op *o = *at;

		if (o->cookie != cookie)
			continue;
		*at = o->next;
		o->next = NULL;
		/* Not answered in here: that could reach the core again. */
		o->sync_err = err;
		o->next = g->synced;
		g->synced = o;
		grp_mark(g);
		return;
	}
}

static void on_propose(void *ctx, uint64_t expect, const struct repl_view *next)
{
	store_propose(ctx, expect, next);
}

static void on_pull(void *ctx, uint64_t since, uint8_t sources)
{
	heal_start(ctx, since, sources);
}

void grp_members(struct grp *g)
{
	const struct vol_map *m = g->v->doc.map;

	for (uint8_t i = 0; i < g->n; i++) {
		int brick = repl_view_brick(m, g->idx, &g->view, i);
		struct peer *p = brick < 0 || (uint32_t)brick == g->v->self
					 ? NULL
					 : peer_get(g->v->b, m->brick[brick].name, true);

		if (g->member[i] != p && i != g->self)
			g->room[i] = (struct room){.free = UINT64_MAX};
		g->member[i] = p;
	}
}

static void on_changed(void *ctx, enum repl_role role, const struct repl_view *view)
{
	struct grp *g = ctx;
	bool others = view->members && (view->members != g->view.members ||
					memcmp(view->brick, g->view.brick, sizeof(view->brick)) != 0);

	if (g->view.epoch > 0 && view->fork > g->view.fork)
		repair_fork(g);
	g->next_role = role;
	g->view = *view;
	if (others)
		grp_members(g);
	g->changed = true;
	grp_mark(g);
}

static struct record *on_fetch(void *ctx, uint64_t seq)
{
	struct grp *g = ctx;

	struct record *rec = bstore_fetch(g->v->store, g->idx, seq);

	/* One whose data is in its file only (a replayed one) cannot be sent again: the member gets a delta. */
	return rec && rec->payload_len > 0 && !rec->payload ? NULL : record_ref(rec);
}

static void on_sure(void *ctx, bool sure)
{
	struct grp *g = ctx;

	bstore_set_sure(g->v->store, g->idx, sure);
}

static const struct repl_io io = {
	.send = on_send,
	.append = on_append,
	.committed = on_committed,
	.rollback = on_rollback,
	.sync = on_sync,
	.synced = on_synced,
	.propose = on_propose,
	.pull = on_pull,
	.changed = on_changed,
	.fetch = on_fetch,
	.sure = on_sure,
};

/* ---- life ---- */

struct grp *grp_new(struct vol *v, uint32_t idx)
{
	const struct vol_map *m = v->doc.map;
	const struct settings *s = &v->b->s;
	struct grp *g = xcalloc(1, sizeof(*g));
	struct repl_config c;
	int slot;

	g->v = v;
	g->idx = idx;
	g->n = VOL_MEMBERS_MAX;
	g->view = v->views[idx];
	g->last = &g->first;
	g->orphans_last = &g->orphans;
	g->serial = ++v->b->next_serial;
	g->replica = bstore_replica(v->store, idx);
	slot = repl_view_slot(m, idx, &g->view, v->self);
	ensure(slot >= 0);
	g->self = (uint8_t)slot;
	for (uint8_t i = 0; i < g->n; i++)
		g->room[i].free = UINT64_MAX;
	grp_members(g);
	ensure(vfs_init(&g->vfs, g->replica, m) == 0);
	repl_config_default(&c);
	c.group = idx;
	c.self = g->self;
	c.brick = (uint16_t)v->self;
	c.n = g->n;
	c.life = v->b->life;
	c.lost = v->own_folder.lost[idx];
	c.write_quorum = (uint8_t)CLAMP(m->write_quorum, 1u, m->replica);
	c.backup_reads = !streq(vol_option(v, "read-policy", "primary"), "primary");
	c.heartbeat_ms = (uint32_t)s->heartbeat_ms;
	c.suspect_ms = (uint32_t)s->suspect_ms;
	c.lease_ms = (uint32_t)s->lease_ms;
	c.skew_ms = (uint32_t)s->skew_ms;
	c.ack_timeout_ms = (uint32_t)s->ack_ms;
	c.unsure_wait_ms = (uint32_t)s->unsure_ms;
	g->repl = repl_new(&c, &io, g);
	ensure(g->repl);
	return g;
}

void grp_start(struct grp *g)
{
	struct repl_pos pos = {g->replica->epoch, g->replica->seq};
	uint64_t committed = bstore_committed(g->v->store, g->idx), now = clock_ms();

	/* A catching up that was not finished: the keys are no prefix of anything. Everything is compared. */
	if (g->replica->dirty)
		pos = (struct repl_pos){0, 0};

	g->committed = g->safe = committed;
	g->strays = !bstore_group_sure(g->v->store, g->idx);
	g->grace_ms = g->v->b->start_ms + LEASE_END_MS;
	g->view = (struct repl_view){0};
	repl_plan(g->repl, g->v->doc.map, false);
	repl_start(g->repl, pos, committed, bstore_group_sure(g->v->store, g->idx) && !repl_lost(g->repl),
		   now);
	if (g->v->have_view[g->idx])
		repl_on_view(g->repl, &g->v->views[g->idx], now);
	grp_mark(g);
}

struct grp *grp_free(struct grp *g)
{
	struct grp **at;

	if (!g)
		return NULL;
	heal_stop(g);
	intents_lost(g);
	orphans_lost(g);
	delegations_lost(g);
	op_fail_all(g);
	if (g->ready) {
		for (at = &g->v->b->ready; *at != g; at = &(*at)->next_ready)
			;
		*at = g->next_ready;
	}
	repl_free(g->repl);
	free(g);
	return NULL;
}

bool grp_is_primary(const struct grp *g)
{
	return repl_is_primary(g->repl, clock_ms());
}

/* ---- messages ---- */

/* The slots of a message are those of its view; most often that is the one of now. */
static bool sent_by(const struct grp *g, const struct repl_msg *m, const struct peer *p)
{
	const struct vol_map *map = g->v->doc.map;
	int from;

	if (m->from >= g->n || m->to != g->self || m->group != g->idx)
		return false;
	if (m->view.epoch == g->view.epoch || !m->view.members)
		return g->member[m->from] == p;
	from = repl_view_brick(map, g->idx, &m->view, m->from);
	return p && from >= 0 && repl_view_brick(map, g->idx, &m->view, m->to) == (int)g->v->self &&
	       streq(map->brick[from].name, p->name);
}

int grp_on_msg(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
	       const char **why)
{
	struct side *side = c->owner;
	struct vol *v = vol_by_tag(side->b, h->volume);
	struct grp *g = v && v->open && h->group < v->doc.map->n_groups ? v->grp[h->group] : NULL;
	struct payload *early = h->request && !payload ? early_take(side, h->request) : NULL;
	struct record *rec = NULL;
	struct repl_msg m;
	int r;

	if (!g) { /* not open yet, or the maps differ for a moment: as if it had been lost */
		payload_unref(early);
		return 0;
	}
	r = proto_repl_decode(body, h->body_len, early ? early : payload, &m, &rec);
	payload_unref(early);
	if (r < 0) {
		*why = "a replication message that is malformed or damaged";
		return r;
	}
	side->b->records += rec != NULL;
	if (sent_by(g, &m, side->peer)) {
		repl_on_msg(g->repl, &m, clock_ms());
		grp_mark(g);
	}
	record_unref(rec);
	return 0;
}

void grp_peer_down(struct brick *b, struct peer *p)
{
	uint64_t now = clock_ms();

	for (struct vol *v = b->vols; v; v = v->next)
		for (uint32_t i = 0; v->open && i < v->doc.map->n_groups; i++)
			for (uint8_t m = 0; v->grp[i] && m < v->grp[i]->n; m++)
				if (v->grp[i]->member[m] == p) {
					repl_on_peer_down(v->grp[i]->repl, m, now);
					grp_mark(v->grp[i]);
				}
}

bool grp_leave_all(struct brick *b)
{
	uint64_t now = clock_ms();
	bool all = true;

	for (struct vol *v = b->vols; v; v = v->next)
		for (uint32_t i = 0; v->open && i < v->doc.map->n_groups; i++)
			if (v->grp[i]) {
				repl_leave(v->grp[i]->repl, now);
				all = all && repl_role(v->grp[i]->repl) == REPL_OUT;
			}
	return all;
}

/* ---- the end of a turn ---- */

static const char *role_name(enum repl_role role)
{
	static const char *const names[] = {"out", "catching up", "backup", "promoting", "primary"};

	return names[role];
}

static void role_changed(struct grp *g)
{
	enum repl_role was = g->role;

	g->role = g->next_role;
	log_info("volume %s, group %u: %s, epoch %llu, in sync 0x%x, record %llu, committed %llu", g->v->name,
		 g->idx, role_name(g->role), (unsigned long long)g->view.epoch, g->view.isr,
		 (unsigned long long)repl_pos(g->repl).seq, (unsigned long long)repl_committed(g->repl));
	if (was == REPL_PRIMARY && g->role != REPL_PRIMARY) {
		intents_lost(g);
		orphans_lost(g);
		delegations_lost(g);
		op_fail_all(g);
		lease_end_group(g->v, g->idx);
	} else if (was != g->role || g->rolled_back) {
		op_fail_reads(g);
	}
	if (g->role == REPL_PRIMARY && was != REPL_PRIMARY) {
		g->primary_ms = clock_ms();
		g->all_dirty = repl_pos(g->repl).seq;
		memset(g->dirty, 0, sizeof(g->dirty));
		sessions_reset(g);
		intents_primary(g);
		delegations_primary(g);
		orphans_primary(g);
	}
	if (g->role != REPL_CATCHING)
		heal_stop(g);
	g->rolled_back = false;
}

void grp_turn_roles(struct brick *b)
{
	for (struct grp *g = b->ready; g; g = g->next_ready) {
		if (g->append_failed) {
			g->append_failed = false;
			vol_failed(g->v, g->append_err, "cannot apply a record");
		}
		if (g->changed) {
			g->changed = false;
			role_changed(g);
		}
	}
}

static void answer_synced(struct grp *g)
{
	for (struct op *o = take_ptr(g->synced), *next; o; o = next) {
		next = o->next;
		o->next = NULL;
		if (o->sync_err < 0) {
			op_refuse(o, o->sync_err == -EIO ? -EAGAIN : -ESTALE);
		} else if (o->seq > g->safe) { /* durable, but its commit is not told yet */
			o->next = g->synced;
			g->synced = o;
		} else if (o->durable) {
			o->res.flags |= VFS_DURABLE;
			o->committed = true;
			op_settle(o);
		} else {
			op_answer(o);
		}
	}
}

static void answer_reads(struct grp *g)
{
	uint64_t committed = repl_committed(g->repl);

	for (struct op **at = &g->reads; *at;) {
		struct op *o = *at;

		if (o->seq > committed) {
			at = &o->next;
			continue;
		}
		*at = o->next;
		op_answer(o);
	}
}

static void answer_gated(struct grp *g)
{
	if (!g->gated || g->resets > 0 || clock_ms() < g->grace_ms)
		return;
	for (struct op *o = take_ptr(g->gated), *next; o; o = next) {
		next = o->next;
		op_answer(o);
	}
}

/* Everything of this turn is in the log. */
void grp_turn_answers(struct brick *b)
{
	for (struct grp *g = take_ptr(b->ready), *next; g; g = next) {
		next = g->next_ready;
		g->ready = false;
		g->safe = g->committed;
		while (g->first && g->first->seq <= g->safe) {
			struct op *o = g->first;

			g->first = o->next;
			if (!g->first)
				g->last = &g->first;
			o->next = NULL;
			o->committed = true;
			op_settle(o);
		}
		answer_synced(g);
		answer_reads(g);
		answer_gated(g);
		intents_committed(g);
	}
}
