/* SPDX-License-Identifier: Apache-2.0 */
/* Following one volume: a list first, then the store's watch from the revision behind it. A watch that ends (its history was compacted away while the
 * store could not be reached) is begun again with a list, by a thread of ours; what was told already is told once more then, which is
 * harmless: views carry epochs, maps generations. */
#include "volume/config/internal.h"

#include <pthread.h>

#define RETRY_MS 500

struct volcfg_watch {
	struct store *s;
	struct volcfg_handler h;
	char *name, *key;
	struct vol_map *map; /* newest; callbacks are never two at once */
	struct store_watch *watch;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int64_t rev_max; /* of the store, as far as it was seen; between two watches the keeper's */
	bool thread_runs, ended, stop;
};

static void told_volume(struct volcfg_watch *w, const struct store_kv *kv)
{
	struct volcfg_volume v;
	struct err e = {0};
	json_t *o;

	if (volcfg_parse_volume(kv, &v, &e) < 0) {
		log_error("%s", e.text);
		return;
	}
	w->h.volume(w->h.ctx, &v);
	w->map = vol_map_free(w->map);
	o = vol_map_to_json(v.map);
	if (vol_map_from_json(o, &w->map, &e) < 0)
		log_error("%s: %s", kv->key, e.text);
	json_decref(o);
	volcfg_volume_done(&v);
}

static void told_view(struct volcfg_watch *w, const struct store_kv *kv, const char *number)
{
	struct repl_view v;
	int64_t group;

	/* digits with leading zeros */
	while (number[0] == '0' && number[1])
		number++;
	if (!w->map || str_i64(number, &group) < 0 || group < 0 || group >= w->map->n_groups)
		return;
	if (volcfg_parse_view(w->map, (uint32_t)group, kv, &v) < 0)
		log_warn("%s is no view of the map's bricks", kv->key);
	else
		w->h.view(w->h.ctx, (uint32_t)group, &v);
}

static void told_folder(struct volcfg_watch *w, const struct store_kv *kv, const char *node)
{
	_cleanup_free_ struct volcfg_folder *f = xcalloc(1, sizeof(*f));

	if (!w->h.folder)
		return;
	if (volcfg_parse_folder(kv, f) < 0)
		log_warn("%s does not describe a folder", kv->key);
	else
		w->h.folder(w->h.ctx, node, f);
}

static void told(struct volcfg_watch *w, const struct store_kv *kv, bool volume)
{
	size_t n = strlen(w->key);

	if (volume ? streq(kv->key, w->key) : false)
		told_volume(w, kv);
	else if (!volume && str_starts(kv->key + n, "/view/"))
		told_view(w, kv, kv->key + n + 6);
	else if (!volume && str_starts(kv->key + n, "/folder/"))
		told_folder(w, kv, kv->key + n + 8);
}

static void on_events(void *ctx, const struct store_event *ev, size_t n, int64_t rev)
{
	struct volcfg_watch *w = ctx;

	w->rev_max = MAX(w->rev_max, rev);
	for (size_t i = 0; i < n; i++) {
		if (ev[i].type == STORE_EVENT_PUT)
			told(w, &ev[i].kv, streq(ev[i].kv.key, w->key));
		else if (streq(ev[i].kv.key, w->key))
			w->h.volume(w->h.ctx, NULL);
		else if (w->h.folder && str_starts(ev[i].kv.key + strlen(w->key), "/folder/"))
			w->h.folder(w->h.ctx, ev[i].kv.key + strlen(w->key) + 8, NULL);
	}
}

static void on_ended(void *ctx, int why)
{
	struct volcfg_watch *w = ctx;

	(void)why;
	pthread_mutex_lock(&w->lock);
	w->ended = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static int begin(struct volcfg_watch *w, struct err *e)
{
	const struct store_watch_handler h = {.events = on_events, .ended = on_ended, .ctx = w};
	struct store_list l = {0};
	bool there = false;
	int r = store_range(w->s, w->key, NULL, 0, 0, &l, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < l.n; i++)
		if (streq(l.kv[i].key, w->key)) {
			told(w, &l.kv[i], true);
			there = true;
		}
	for (size_t i = 0; i < l.n; i++)
		told(w, &l.kv[i], false);
	if (!there && l.rev >= w->rev_max) /* else the store has lost what it knew: nothing was deleted */
		w->h.volume(w->h.ctx, NULL);
	w->rev_max = MAX(w->rev_max, l.rev);
	r = store_watch(w->s, w->key, l.rev + 1, &h, &w->watch, e);
	store_list_done(&l);
	return r;
}

static bool wait_ended(struct volcfg_watch *w)
{
	bool stop;

	pthread_mutex_lock(&w->lock);
	while (!w->ended && !w->stop)
		pthread_cond_wait(&w->changed, &w->lock);
	w->ended = false;
	stop = w->stop;
	pthread_mutex_unlock(&w->lock);
	return !stop;
}

static void *keep_going(void *arg)
{
	struct volcfg_watch *w = arg;

	while (wait_ended(w)) {
		struct err e = {0};

		w->watch = store_watch_free(w->watch);
		if (begin(w, &e) < 0) {
			log_warn("volume %s: %s", w->name, e.text);
			usleep(RETRY_MS * 1000);
			pthread_mutex_lock(&w->lock);
			w->ended = true;
			pthread_mutex_unlock(&w->lock);
		}
	}
	return NULL;
}

int volcfg_watch(struct store *s, const char *name, const struct volcfg_handler *h, struct volcfg_watch **ret,
		 struct err *e)
{
	struct volcfg_watch *w;
	int r;

	if (!vol_name_valid(name))
		return err_set(e, -EINVAL, "'%s' is no name of a volume", name);
	w = xcalloc(1, sizeof(*w));
	w->s = s;
	w->h = *h;
	w->name = xstrdup(name);
	w->key = xasprintf("/kuayu/volumes/%s", name);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	r = begin(w, e);
	if (r == 0 && (r = -pthread_create(&w->thread, NULL, keep_going, w)) < 0)
		err_errno(e, r, "thread");
	w->thread_runs = r == 0;
	if (r < 0)
		volcfg_watch_free(w);
	else
		*ret = w;
	return r;
}

struct volcfg_watch *volcfg_watch_free(struct volcfg_watch *w)
{
	if (!w)
		return NULL;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	if (w->thread_runs)
		pthread_join(w->thread, NULL);
	store_watch_free(w->watch);
	vol_map_free(w->map);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w->name);
	free(w->key);
	free(w);
	return NULL;
}
