/* SPDX-License-Identifier: Apache-2.0 */
/* The store's side: this brick's registration, who else is there, which volumes there are, each volume's document and views, and the
 * compare-and-swap of a view. Calls of the store block, so they are made on threads of their own; results come to the loop by mailbox.
 *
 * Two threads. The keeper registers the brick under a lease and keeps it alive; when the lease has ended (the store was away for long) it registers
 * again. The follower lists bricks and volumes whenever a watch says that something changed there, and follows each volume it finds. Both try
 * for ever, once a second at most: a brick serves what it has while the store is away. */
#include "volume/brick/internal.h"

#define BRICKS_PREFIX  "/kuayu/bricks/"
#define VOLUMES_PREFIX "/kuayu/volumes/"
#define RETRY_MS       1000
#define RELIST_MS      30000 /* even when no watch says so */

struct followed {
	struct followed *next;
	struct follower *f;
	char name[VOL_NAME_MAX + 1];
	struct volcfg_watch *watch;
};

struct follower {
	struct brick *b;
	uv_thread_t keeper, lister;
	uv_mutex_t lock;
	uv_cond_t cond;
	bool stop, bricks_changed, volumes_changed, bricks_ended, volumes_ended;
	struct store_watch *bricks_watch, *volumes_watch;
	struct followed *followed; /* the lister's */
	int64_t rev_max;	   /* of the store, as far as it was seen; under lock */
	bool went_back;		   /* the lister's */
};

/* ---- letters to the loop ---- */

struct letter {
	struct brick *b;
	char name[VOL_NAME_MAX + 1];
	struct volcfg_volume *doc;
	uint32_t group;
	struct repl_view view;
	struct volcfg_brick *bricks;
	struct volcfg_folder *folder;
	size_t n;
};

static void post(struct brick *b, mailbox_fn fn, struct letter *l)
{
	l->b = b;
	while (mailbox_post(b->mail, fn, l) < 0) /* full: the loop is behind; none may be lost */
		uv_sleep(5);
}

static void on_doc_letter(void *arg)
{
	struct letter *l = arg;

	if (!l->b->stopping)
		vol_on_doc(l->b, l->name, l->doc);
	if (l->doc) {
		volcfg_volume_done(l->doc);
		free(l->doc);
	}
	free(l);
}

static void on_view_letter(void *arg)
{
	struct letter *l = arg;

	if (!l->b->stopping)
		vol_on_view(l->b, l->name, l->group, &l->view);
	free(l);
}

static void on_folder_letter(void *arg)
{
	struct letter *l = arg;

	if (!l->b->stopping)
		vol_on_folder(l->b, l->name, l->folder);
	free(l->folder);
	free(l);
}

static void on_bricks_letter(void *arg)
{
	struct letter *l = arg;

	if (!l->b->stopping)
		peers_on_bricks(l->b, l->bricks, l->n);
	free(l->bricks);
	free(l);
}

/* ---- one volume ---- */

/* The document is the watch's: a copy goes to the loop. */
static struct volcfg_volume *doc_copy(const struct volcfg_volume *v)
{
	struct volcfg_volume *c = xcalloc(1, sizeof(*c));
	_cleanup_json_ json_t *map = vol_map_to_json(v->map);
	struct err e;

	if (vol_map_from_json(map, &c->map, &e) < 0) {
		log_error("volume %s: %s", v->map->name, e.text);
		free(c);
		return NULL;
	}
	c->options = v->options ? json_deep_copy(v->options) : json_object();
	memcpy(c->state, v->state, sizeof(c->state));
	c->mod_rev = v->mod_rev;
	return c;
}

static void on_doc(void *ctx, const struct volcfg_volume *v)
{
	struct followed *w = ctx;
	struct letter *l = xcalloc(1, sizeof(*l));

	memcpy(l->name, w->name, sizeof(l->name));
	l->doc = v ? doc_copy(v) : NULL;
	if (v && !l->doc) {
		free(l);
		return;
	}
	post(w->f->b, on_doc_letter, l);
}

static void on_view(void *ctx, uint32_t group, const struct repl_view *view)
{
	struct followed *w = ctx;
	struct letter *l = xcalloc(1, sizeof(*l));

	memcpy(l->name, w->name, sizeof(l->name));
	l->group = group;
	l->view = *view;
	post(w->f->b, on_view_letter, l);
}

static void on_folder(void *ctx, const char *node, const struct volcfg_folder *f)
{
	struct followed *w = ctx;
	struct letter *l;

	if (!streq(node, w->f->b->s.node))
		return;
	l = xcalloc(1, sizeof(*l));
	memcpy(l->name, w->name, sizeof(l->name));
	if (f) {
		l->folder = xcalloc(1, sizeof(*f));
		*l->folder = *f;
	}
	post(w->f->b, on_folder_letter, l);
}

/* ---- the lister ---- */

static int list_bricks(struct follower *f)
{
	struct letter *l = xcalloc(1, sizeof(*l));
	struct err e = {0};
	int r = volcfg_bricks(f->b->store, &l->bricks, &l->n, &e);

	if (r < 0) {
		free(l);
		return r;
	}
	post(f->b, on_bricks_letter, l);
	return 0;
}

static struct followed *followed_find(struct follower *f, const char *name)
{
	struct followed *w = f->followed;

	while (w && !streq(w->name, name))
		w = w->next;
	return w;
}

static int follow(struct follower *f, const char *name)
{
	struct followed *w = xcalloc(1, sizeof(*w));
	struct volcfg_handler h = {on_doc, on_view, w, on_folder};
	struct err e = {0};
	int r;

	w->f = f;
	snprintf(w->name, sizeof(w->name), "%s", name);
	r = volcfg_watch(f->b->store, name, &h, &w->watch, &e);
	if (r < 0) {
		log_warn("volume %s: cannot be followed: %s", name, e.text);
		free(w);
		return r;
	}
	w->next = f->followed;
	f->followed = w;
	return 0;
}

static void unfollow(struct follower *f, struct followed **at)
{
	struct followed *w = *at;
	struct letter *l = xcalloc(1, sizeof(*l));

	*at = w->next;
	w->watch = volcfg_watch_free(w->watch);
	memcpy(l->name, w->name, sizeof(l->name));
	post(f->b, on_doc_letter, l);
	free(w);
}

/* The highest revision seen, this one included. */
static int64_t rev_seen(struct follower *f, int64_t rev)
{
	uv_mutex_lock(&f->lock);
	rev = f->rev_max = MAX(f->rev_max, rev);
	uv_mutex_unlock(&f->lock);
	return rev;
}

/* A store that is empty, or as it was some time ago, has deleted nothing: its revisions would have risen. Until this process ends volumes that are not there stay
 * as they are; they go on while none of their bricks fails. */
static void store_looked(struct follower *f, int64_t rev, int64_t before)
{
	if (rev < before && !f->went_back) {
		log_error("the store has lost what it knew (revision %lld, it was %lld): volumes that it "
			  "does not know any "
			  "more are kept, and go on as they are; give it back its data",
			  (long long)rev, (long long)before);
		f->went_back = true;
	}
	(void)rev_seen(f, rev);
}

static int list_volumes(struct follower *f)
{
	char **names = NULL;
	size_t n = 0;
	struct err e = {0};
	int64_t rev = 0, before = rev_seen(f, 0);
	int r = volcfg_list(f->b->store, &names, &n, &rev, &e), ret = r;

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (strlen(names[i]) <= VOL_NAME_MAX && !followed_find(f, names[i]) &&
		    follow(f, names[i]) < 0)
			ret = -EAGAIN;
	store_looked(f, rev, before);
	for (struct followed **at = &f->followed; *at;) {
		bool there = f->went_back;

		for (size_t i = 0; i < n; i++)
			there = there || streq(names[i], (*at)->name);
		if (there)
			at = &(*at)->next;
		else
			unfollow(f, at);
	}
	strv_free(names);
	return ret;
}

static void kick(struct follower *f, bool bricks, bool volumes)
{
	uv_mutex_lock(&f->lock);
	f->bricks_changed |= bricks;
	f->volumes_changed |= volumes;
	uv_cond_broadcast(&f->cond);
	uv_mutex_unlock(&f->lock);
}

static void on_brick_events(void *ctx, const struct store_event *ev, size_t n, int64_t rev)
{
	(void)rev_seen(ctx, rev);
	if (n > 0)
		kick(ctx, true, false);
}

static void on_volume_events(void *ctx, const struct store_event *ev, size_t n, int64_t rev)
{
	(void)rev_seen(ctx, rev);
	for (size_t i = 0; i < n; i++)
		if (!strchr(ev[i].kv.key + strlen(VOLUMES_PREFIX), '/')) {
			kick(ctx, false, true);
			return;
		}
}

static void on_bricks_ended(void *ctx, int why)
{
	((struct follower *)ctx)->bricks_ended = true;
	kick(ctx, true, false);
}

static void on_volumes_ended(void *ctx, int why)
{
	((struct follower *)ctx)->volumes_ended = true;
	kick(ctx, false, true);
}

/* From the newest revision on: what is there is listed after the watch began. */
static int watch(struct follower *f, const char *prefix, const struct store_watch_handler *h,
		 struct store_watch **ret)
{
	struct store_list l = {0};
	struct err e = {0};
	int r = store_range(f->b->store, prefix, NULL, 1, 0, &l, &e);
	int64_t rev = l.rev;

	if (r < 0)
		return r;
	store_list_done(&l);
	return store_watch(f->b->store, prefix, rev + 1, h, ret, &e);
}

static int watches(struct follower *f)
{
	struct store_watch_handler bricks = {on_brick_events, on_bricks_ended, f};
	struct store_watch_handler volumes = {on_volume_events, on_volumes_ended, f};
	int r = 0;

	if (f->bricks_ended)
		f->bricks_watch = store_watch_free(f->bricks_watch);
	if (f->volumes_ended)
		f->volumes_watch = store_watch_free(f->volumes_watch);
	f->bricks_ended = f->volumes_ended = false;
	if (!f->bricks_watch)
		r = watch(f, BRICKS_PREFIX, &bricks, &f->bricks_watch);
	if (r == 0 && !f->volumes_watch)
		r = watch(f, VOLUMES_PREFIX, &volumes, &f->volumes_watch);
	return r;
}

static void lister(void *arg)
{
	struct follower *f = arg;
	bool bricks = true, volumes = true, failed = false;

	while (true) {
		uv_mutex_lock(&f->lock);
		if (!f->stop && !bricks && !volumes && !f->bricks_changed && !f->volumes_changed)
			if (uv_cond_timedwait(&f->cond, &f->lock, RELIST_MS * 1000000ull) < 0)
				bricks = volumes = true;
		if (!f->stop && failed)
			uv_cond_timedwait(&f->cond, &f->lock, RETRY_MS * 1000000ull);
		bricks |= f->bricks_changed;
		volumes |= f->volumes_changed;
		f->bricks_changed = f->volumes_changed = false;
		if (f->stop) {
			uv_mutex_unlock(&f->lock);
			return;
		}
		uv_mutex_unlock(&f->lock);
		failed = watches(f) < 0;
		if (!failed && bricks)
			failed = list_bricks(f) < 0 || (bricks = false);
		if (!failed && volumes)
			failed = list_volumes(f) < 0 || (volumes = false);
	}
}

/* ---- the keeper ---- */

static bool stopped(struct follower *f, uint64_t wait_ms)
{
	uint64_t until = clock_ms() + wait_ms, now;
	bool stop;

	uv_mutex_lock(&f->lock);
	while (!f->stop && (now = clock_ms()) < until)
		uv_cond_timedwait(&f->cond, &f->lock, (until - now) * 1000000ull);
	stop = f->stop;
	uv_mutex_unlock(&f->lock);
	return stop;
}

/* *told: of the failure, once until it succeeds. */
static int register_brick(struct brick *b, int64_t *ret_lease, bool *told)
{
	struct volcfg_brick me = {.incarnation = b->incarnation, .brick.weight = 100};
	struct err e = {0};
	int r;

	snprintf(me.brick.name, sizeof(me.brick.name), "%s", b->s.node);
	snprintf(me.brick.domain, sizeof(me.brick.domain), "%s", b->s.domain);
	snprintf(me.brick.address, sizeof(me.brick.address), "%s", b->advertise);
	snprintf(me.brick.path, sizeof(me.brick.path), "%s", b->s.data);
	r = volcfg_register(b->store, &me, ret_lease, &e);
	if (r < 0 && !*told)
		log_warn("cannot register, tries on: %s", e.text);
	else if (r == 0)
		log_info("registered as %s at %s", b->s.node, b->advertise);
	*told = r < 0;
	return r;
}

static void keeper(void *arg)
{
	struct follower *f = arg;
	struct store *s = f->b->store;
	uint64_t wait = 0, last_ok = 0;
	int64_t lease = 0;
	bool told = false;
	struct err e;

	while (!stopped(f, wait)) {
		int r;

		wait = BRICK_LEASE_S * 1000 / 4;
		if (!lease && register_brick(f->b, &lease, &told) < 0) {
			lease = 0;
			wait = RETRY_MS;
			continue;
		}
		r = store_lease_keepalive(s, lease, &e);
		if (r == 0) {
			last_ok = clock_ms();
		} else if (r == -ENOENT || clock_ms() - last_ok > BRICK_LEASE_S * 1000) {
			log_warn("the registration has ended: %s", e.text);
			lease = 0;
			wait = r == -ENOENT ? 0 : RETRY_MS;
		}
	}
	if (lease)
		store_lease_revoke(s, lease, &e);
}

/* ---- compare-and-swap of a view ---- */

struct cas {
	uv_work_t work;
	struct grp *g;
	struct vol *v;
	const struct vol_map *map;
	uint32_t group;
	uint64_t expect, serial;
	struct repl_view next, now;
	int err;
};

static void cas_work(uv_work_t *w)
{
	struct cas *c = w->data;
	struct err e = {0};

	c->err = volcfg_view_cas(c->v->b->store, c->map, c->group, c->expect, &c->next, &c->now, &e);
	if (c->err < 0 && c->err != -EEXIST)
		log_warn("volume %s, group %u: epoch %llu could not be proposed: %s", c->v->name, c->group,
			 (unsigned long long)c->next.epoch, e.text);
}

static void cas_done(uv_work_t *w, int status)
{
	struct cas *c = w->data;
	struct vol *v = c->v;

	/* The group may have been closed meanwhile; volumes stay until their last reference goes. */
	if (!v->closing && v->open && v->grp[c->group] == c->g && c->g->serial == c->serial) {
		c->g->proposing = false;
		repl_on_cas(c->g->repl, status < 0 ? status : c->err, &c->now, clock_ms());
		grp_mark(c->g);
	}
	vol_unref(v);
	free(c);
}

void store_propose(struct grp *g, uint64_t expect, const struct repl_view *next)
{
	struct cas *c = xcalloc(1, sizeof(*c));

	*c = (struct cas){.g = g,
			  .v = g->v,
			  .map = g->v->doc.map,
			  .group = g->idx,
			  .serial = g->serial,
			  .expect = expect,
			  .next = *next};
	c->work.data = c;
	g->v->refs++;
	g->v->b->n.views_proposed++;
	g->proposing = true;
	ensure(uv_queue_work(g->v->b->loop, &c->work, cas_work, cas_done) == 0);
}

/* ---- life ---- */

struct follower *follower_new(struct brick *b)
{
	struct follower *f = xcalloc(1, sizeof(*f));

	f->b = b;
	ensure(uv_mutex_init(&f->lock) == 0 && uv_cond_init(&f->cond) == 0);
	ensure(uv_thread_create(&f->keeper, keeper, f) == 0 && uv_thread_create(&f->lister, lister, f) == 0);
	return f;
}

struct follower *follower_free(struct follower *f)
{
	if (!f)
		return NULL;
	uv_mutex_lock(&f->lock);
	f->stop = true;
	uv_cond_broadcast(&f->cond);
	uv_mutex_unlock(&f->lock);
	uv_thread_join(&f->keeper);
	uv_thread_join(&f->lister);
	store_watch_free(f->bricks_watch);
	store_watch_free(f->volumes_watch);
	for (struct followed *w = f->followed, *next; w; w = next) {
		next = w->next;
		volcfg_watch_free(w->watch);
		free(w);
	}
	uv_cond_destroy(&f->cond);
	uv_mutex_destroy(&f->lock);
	free(f);
	return NULL;
}
