/* SPDX-License-Identifier: Apache-2.0 */
/* config: volumes, bricks and group views in the store. Calls block (worker threads and commands); the watch's callbacks come on a thread of
 * the store. Keys, all JSON:
 *   /kuayu/bricks/NAME			{"name","domain","address","path","version","incarnation"} under the brick's lease: there = alive
 *   /kuayu/volumes/NAME		the map (vol_map_to_json) + {"state":"created|started|stopped","options":{...},"created":RFC3339}
 *   /kuayu/volumes/NAME/view/GGGG	{"epoch":7,"primary":"a1","isr":["a1","b1","c1"],"members":["a1","b1","c1"]}; "fork":N when it is not 0. Members
 *					by slot, "" = free; while one replaces another: "joining":NAME,"leaving":NAME. Its members are the view's
 *					affair, where they shall be the map's
 *   /kuayu/volumes/NAME/folder/NODE	{"volume":UUID,"instance":32 hex,"opened":N,"lost":[group, ...]}: what the brick's folder was when it opened it last.
 *					Another folder, or one that was opened less often, does not have what the brick acknowledged: its groups are
 *					lost there until they have caught up */
#pragma once

#include "core/place/place.h"
#include "core/repl/repl.h"
#include "store/store.h"

#define BRICK_LEASE_S 5

struct volcfg_brick {
	struct vol_brick brick;
	uint64_t incarnation;
};

int volcfg_register(struct store *s, const struct volcfg_brick *b, int64_t *ret_lease,
		    struct err *e); /* then store_lease_keepalive */
int volcfg_bricks(struct store *s, struct volcfg_brick **ret, size_t *ret_n, struct err *e);

/* A volume's document: map and options (a JSON object of strings, see docs/volume.md "options"). mod_rev for compare-and-swap. */
struct volcfg_volume {
	struct vol_map *map;
	json_t *options;
	char state[16];
	int64_t mod_rev;
};
void volcfg_volume_done(struct volcfg_volume *v);
int volcfg_get(struct store *s, const char *name, struct volcfg_volume *ret, struct err *e); /* -ENOENT */
/* *ret_rev (may be NULL): the store's revision then; it rises with each change of anything, unless the store lost what it had. */
int volcfg_list(struct store *s, char ***ret_names, size_t *ret_n, int64_t *ret_rev, struct err *e);
int volcfg_create(struct store *s, const struct volcfg_volume *v,
		  struct err *e); /* with a first view a group: epoch 0; -EEXIST */
int volcfg_put(struct store *s, const struct volcfg_volume *v,
	       struct err *e); /* CAS on mod_rev; -EAGAIN = changed meanwhile */
/* The volume, which was never started (its groups hold nothing), gets another map with more bricks; views of groups that move begin anew. */
int volcfg_expand(struct store *s, const struct volcfg_volume *v, const struct vol_map *wider, struct err *e);
/* Another map for a volume that holds data: more bricks, or others. Its bricks move its groups there (core/repl/move.c). CAS on v->mod_rev: -EAGAIN. */
int volcfg_move(struct store *s, const struct volcfg_volume *v, const struct vol_map *to, struct err *e);
int volcfg_delete(struct store *s, const char *name, struct err *e);
int volcfg_option(const struct volcfg_volume *v, const char *name, const char **ret); /* -ENOENT = default */

/* View of one group, its members named. 0 and *ret_rev; epoch 0 when none yet. */
int volcfg_view_get(struct store *s, const struct vol_map *m, uint32_t group, struct repl_view *ret,
		    int64_t *ret_rev, struct err *e);
/* -EEXIST: another one is there now (*now is it). */
int volcfg_view_cas(struct store *s, const struct vol_map *m, uint32_t group, uint64_t expect_epoch,
		    const struct repl_view *next, struct repl_view *now, struct err *e);

struct volcfg_folder {
	struct vol_id volume, instance;
	uint64_t opened;
	bool lost[VOL_GROUPS_MAX];
};
int volcfg_folder_put(struct store *s, const char *volume, const char *node, const struct volcfg_folder *f,
		      struct err *e);
/* From now on bricks' folders are believed as they are. */
int volcfg_folders_forget(struct store *s, const char *volume, struct err *e);

/* Follows one volume: first everything there is, then changes. Callbacks on the store's thread, never two at once. */
struct volcfg_handler {
	void (*volume)(void *ctx, const struct volcfg_volume *v); /* NULL = deleted */
	void (*view)(void *ctx, uint32_t group, const struct repl_view *view);
	void *ctx;
	/* May be NULL. f NULL: nothing is known of it (any more). Comes before the first views. */
	void (*folder)(void *ctx, const char *node, const struct volcfg_folder *f);
};
struct volcfg_watch;
int volcfg_watch(struct store *s, const char *name, const struct volcfg_handler *h, struct volcfg_watch **ret,
		 struct err *e);
struct volcfg_watch *volcfg_watch_free(struct volcfg_watch *w);
