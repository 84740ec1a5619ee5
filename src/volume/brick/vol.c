/* SPDX-License-Identifier: Apache-2.0 */
/* A volume's life on this brick: opened when its document says started and names this node, closed when it says something else, its data directory
 * kept when it is deleted (renamed to deleted-..., for the operator to remove).
 *
 * Opening and closing run on the loop (recovery reads the log): other volumes wait meanwhile. A data directory that cannot be opened is tried again
 * every few seconds and shown in the status; the other copies serve. */
#include "volume/brick/internal.h"

#define RETRY_OPEN_MS 3000
#define REOPEN_MS     5000 /* after a disk error */
#define INDEX_KEEP    200000
#define INDEX_MAX     4000000
#define INDEX_STEP    10000
#define FORGET_ROUNDS 16

struct vol *vol_by_tag(struct brick *b, uint32_t tag)
{
	for (struct vol *v = b->vols; v; v = v->next)
		if (v->tag == tag && v->doc.map)
			return v;
	return NULL;
}

struct vol *vol_by_name(struct brick *b, const char *name)
{
	for (struct vol *v = b->vols; v; v = v->next)
		if (streq(v->name, name))
			return v;
	return NULL;
}

const char *vol_option(const struct vol *v, const char *name, const char *otherwise)
{
	const char *value;

	return volcfg_option(&v->doc, name, &value) == 0 ? value : otherwise;
}

void vol_unref(struct vol *v)
{
	if (--v->refs > 0)
		return;
	for (size_t i = 0; i < v->n_old; i++)
		vol_map_free(v->old_maps[i]);
	free(v->old_maps);
	volcfg_volume_done(&v->doc);
	free(v->views);
	free(v->have_view);
	free(v->leaving);
	free(v);
}

static void dir_of(const struct vol *v, const char *prefix, char *out, size_t size)
{
	char hex[33];

	vol_id_text(&v->doc.map->uuid, hex);
	snprintf(out, size, "%s/%s%s-%.8s", v->b->s.data, prefix, v->name, hex);
}

static int open_store(struct vol *v, struct err *e)
{
	const struct vol_map *m = v->doc.map;
	_cleanup_free_ bool *member = xcalloc(m->n_groups, sizeof(*member));
	char dir[4096], run[4096], hex[33];
	struct bstore_options o = {.dir = dir,
				   .run_dir = v->b->s.run_dir[0] ? run : NULL,
				   .uuid = m->uuid,
				   .node = v->b->s.node,
				   .n_groups = m->n_groups,
				   .stripe_size = m->stripe_size,
				   .member = member,
				   .checkpoint_ms = (uint32_t)v->b->s.checkpoint_ms,
				   .checkpoint_bytes = (uint64_t)v->b->s.checkpoint_mib << 20,
				   .loop = v->b->loop,
				   .turns = true};

	for (uint32_t g = 0; g < m->n_groups; g++)
		member[g] = repl_view_slot(m, g, &v->views[g], v->self) >= 0;
	dir_of(v, "", dir, sizeof(dir));
	vol_id_text(&m->uuid, hex);
	snprintf(run, sizeof(run), "%s/%s-%s", v->b->s.run_dir, v->b->s.node, hex);
	if (o.run_dir && dir_make(run, 0700, e) < 0)
		return e->code;
	return bstore_open(&o, &v->store, e);
}

/* Kept for the operator, as after a deletion. */
static void set_aside(struct vol *v, const char *prefix, const char *why)
{
	char from[4096], to[4096];

	dir_of(v, "", from, sizeof(from));
	dir_of(v, prefix, to, sizeof(to));
	if (rename(from, to) == 0)
		log_info("volume %s %s: its data is in %s now and may be removed", v->name, why, to);
}

/* Not before the views are known: they say which groups are here. */
static void vol_open(struct vol *v)
{
	const struct vol_map *m = v->doc.map;
	struct err e = {0};
	int r;

	if (!moves_views_known(v))
		return;
	if (moves_retired(v)) {
		set_aside(v, "left-", "has another brick instead of this one");
		return;
	}
	r = open_store(v, &e);
	if (r < 0) {
		if (strncmp(v->error_text, e.text, sizeof(v->error_text) - 1) != 0)
			log_error("volume %s: %s", v->name, e.text);
		v->error = r;
		snprintf(v->error_text, sizeof(v->error_text), "%.199s", e.text);
		v->retry_open_ms = clock_ms() + RETRY_OPEN_MS;
		return;
	}
	v->error = 0;
	v->error_text[0] = 0;
	folder_opened(v);
	v->grp = xcalloc(m->n_groups, sizeof(*v->grp));
	v->open = true;
	for (uint32_t i = 0; i < m->n_groups; i++)
		if (bstore_replica(v->store, i))
			v->grp[i] = grp_new(v, i);
	space_measure(v);
	log_info("volume %s: open", v->name);
	for (uint32_t i = 0; i < m->n_groups; i++)
		if (v->grp[i])
			grp_start(v->grp[i]);
	moves_opened(v);
}

static void vol_close(struct vol *v)
{
	if (!v->open)
		return;
	v->closing = true;
	scrub_done(v);
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
		v->grp[i] = grp_free(v->grp[i]);
	sessions_done(v);
	leases_done(v);
	free(v->grp);
	v->grp = NULL;
	v->open = v->dirty = v->closing = false;
	v->store = bstore_close(v->store);
	log_info("volume %s: closed", v->name);
}

static bool find_self(struct vol *v)
{
	for (uint32_t i = 0; i < v->doc.map->n_bricks; i++)
		if (streq(v->doc.map->brick[i].name, v->b->s.node)) {
			v->self = i;
			return true;
		}
	return false;
}

static void vol_drop(struct vol *v, bool deleted)
{
	struct brick *b = v->b;
	struct vol **at = &b->vols;

	vol_close(v);
	if (deleted && v->doc.map)
		set_aside(v, "deleted-", "was deleted");
	while (*at != v)
		at = &(*at)->next;
	*at = v->next;
	vol_unref(v);
}

static bool started(const struct vol *v)
{
	return v->doc.map && streq(v->doc.state, "started");
}

/* The new document takes the old one's place; workers may still read the old map, so it stays. */
static void take_doc(struct vol *v, struct volcfg_volume *doc)
{
	uint32_t had = v->doc.map ? v->doc.map->n_groups : 0;

	if (v->doc.map) {
		v->old_maps = xrealloc(v->old_maps, (v->n_old + 1) * sizeof(*v->old_maps));
		v->old_maps[v->n_old++] = take_ptr(v->doc.map);
	}
	volcfg_volume_done(&v->doc);
	v->doc = *doc;
	*doc = (struct volcfg_volume){0};
	v->tag = proto_volume_tag(&v->doc.map->uuid);
	if (v->doc.map->n_groups > had) {
		v->views = xrealloc(v->views, v->doc.map->n_groups * sizeof(*v->views));
		v->have_view = xrealloc(v->have_view, v->doc.map->n_groups * sizeof(*v->have_view));
		v->leaving = xrealloc(v->leaving, v->doc.map->n_groups * sizeof(*v->leaving));
		for (uint32_t i = had; i < v->doc.map->n_groups; i++) {
			v->views[i] = (struct repl_view){0};
			v->have_view[i] = false;
			v->leaving[i] = STAYS;
		}
	}
}

/* What every group was set up with. Where groups shall lie may change: their primaries see to it. */
static bool same_groups(const struct vol_map *a, const struct vol_map *b)
{
	return a->n_groups == b->n_groups && a->replica == b->replica && a->stripe_size == b->stripe_size &&
	       a->write_quorum == b->write_quorum && b->n_bricks >= a->n_bricks;
}

void vol_on_doc(struct brick *b, const char *name, struct volcfg_volume *doc)
{
	struct vol *v = vol_by_name(b, name);

	if (v && (!doc || !vol_id_eq(&v->doc.map->uuid, &doc->map->uuid))) {
		vol_drop(v, true);
		v = NULL;
	}
	if (!doc)
		return;
	if (!v) {
		v = xcalloc(1, sizeof(*v));
		v->b = b;
		v->refs = 1;
		snprintf(v->name, sizeof(v->name), "%s", name);
		v->next = b->vols;
		b->vols = v;
	} else if (v->open && !same_groups(v->doc.map, doc->map)) {
		log_info("volume %s: the map has changed", name);
		vol_close(v);
	}
	take_doc(v, doc);
	for (uint32_t i = 0; i < v->doc.map->n_bricks; i++) {
		const struct vol_brick *br = &v->doc.map->brick[i];
		struct peer *p;

		if (streq(br->name, b->s.node))
			continue;
		p = peer_get(b, br->name, true);
		if (!p->address[0])
			snprintf(p->address, sizeof(p->address), "%s", br->address);
		if (!p->domain[0])
			snprintf(p->domain, sizeof(p->domain), "%s", br->domain);
	}
	if (v->open)
		for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
			if (v->grp[i]) {
				v->grp[i]->vfs.map = v->doc.map;
				grp_members(v->grp[i]);
				repl_plan(v->grp[i]->repl, v->doc.map, false);
			}
	if (!started(v))
		vol_close(v);
	else if (!v->open && find_self(v))
		vol_open(v);
}

void vol_on_view(struct brick *b, const char *name, uint32_t group, const struct repl_view *view)
{
	struct vol *v = vol_by_name(b, name);

	if (!v || !v->doc.map || group >= v->doc.map->n_groups || view->epoch < v->views[group].epoch)
		return;
	v->views[group] = *view;
	v->have_view[group] = true;
	if (v->open && v->grp[group]) {
		repl_on_view(v->grp[group]->repl, view, clock_ms());
		grp_mark(v->grp[group]);
	} else if (!v->open && started(v) && !v->error && find_self(v)) {
		vol_open(v);
	}
}

/* Disk error: this member leaves the in-sync sets; the others go on. */
void vol_failed(struct vol *v, int err, const char *what)
{
	uint64_t now = clock_ms();

	v->retry_open_ms = now + REOPEN_MS;
	if (!v->error)
		log_error("volume %s: %s: %s; this brick leaves the in-sync sets", v->name, what,
			  strerror(-err));
	v->error = err;
	snprintf(v->error_text, sizeof(v->error_text), "%s: %s", what, strerror(-err));
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
		if (v->grp[i] && !v->grp[i]->down) {
			v->grp[i]->down = true;
			repl_on_disk_error(v->grp[i]->repl, now);
			grp_mark(v->grp[i]);
		}
}

/* The index of changes is kept as far back as a member that returns may need it: while all are in sync, the newest INDEX_KEEP records; else more, but
 * not without end: who is away for longer compares everything. */
static void forget(struct grp *g)
{
	uint64_t committed = repl_committed(g->repl), keep = INDEX_KEEP;
	enum repl_role role = repl_role(g->repl);

	if (role != REPL_PRIMARY && role != REPL_BACKUP)
		return;
	if (g->view.isr != g->view.members)
		keep = INDEX_MAX;
	if (committed <= keep + g->replica->floor + INDEX_STEP)
		return;
	for (int i = 0; i < FORGET_ROUNDS; i++)
		if (replica_forget(g->replica, committed - keep) != 1)
			break;
	bstore_mark_dirty(g->v->store);
}

static bool all_out(const struct vol *v)
{
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
		if (v->grp[i] && repl_role(v->grp[i]->repl) != REPL_OUT)
			return false;
	return true;
}

static void vol_tick(struct vol *v, uint64_t now)
{
	if (!v->open) {
		if (started(v) && v->error && now >= v->retry_open_ms && find_self(v))
			vol_open(v);
		return;
	}
	if (v->error && now >= v->retry_open_ms &&
	    all_out(v)) { /* a disk that was full has room, or the fault has passed: as after a restart */
		log_info("volume %s: opened again after: %s", v->name, v->error_text);
		vol_close(v);
		return;
	}
	sessions_tick(v, now);
	if (v->b->ticks % 20 == 0)
		space_measure(v);
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++) {
		struct grp *g = v->grp[i];

		if (!g)
			continue;
		repl_tick(g->repl, now);
		heals_tick(g, now);
		if (g->intents)
			intents_tick(g, now);
		if (v->b->ticks % 10 == 0) {
			orphans_tick(g, now);
			delegations_tick(g, now);
		}
		if (g->gated || g->reads)
			grp_mark(g);
		if (v->b->ticks % 100 == i % 100)
			forget(g);
	}
	bstore_tick(v->store);
	folder_tick(v, now);
	scrub_tick(v, now);
	moves_tick(v, now);
	if (moves_retired(v)) {
		vol_close(v);
		vol_open(v);
	}
}

void vols_tick(struct brick *b)
{
	uint64_t now = clock_ms();

	bool tell = false;

	for (struct vol *v = b->vols; v; v = v->next) {
		vol_tick(v, now);
		tell = tell || (v->open && space_tell(v));
	}
	if (tell)
		admin_tick(b);
}

void vols_done(struct brick *b)
{
	while (b->vols)
		vol_drop(b->vols, false);
}
