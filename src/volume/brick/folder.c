/* SPDX-License-Identifier: Apache-2.0 */
/* folder: does the folder of a volume hold what this brick had when it last took part? A new disk, an old copy put back: being in a group's in-sync set then
 * says nothing of what is here, and a primary of it would cut the others back to it. The store knows which folder it was and how often that had been
 * opened, and which of its groups had not caught up yet; what does not fit is lost: such a member waits to be filled (core/repl).
 *
 * The store is told on libuv's pool, again after a second when it does not answer. Told late: an old copy is not known as one. The loop thread owns the rest. */
#include "volume/brick/internal.h"

#define RETRY_MS 1000

struct put {
	uv_work_t work;
	struct vol *v;
	struct volcfg_folder folder;
	struct err e;
	int err;
};

void vol_on_folder(struct brick *b, const char *name, const struct volcfg_folder *f)
{
	struct vol *v = vol_by_name(b, name);

	if (!v)
		return;
	v->folder_known = f != NULL;
	if (f)
		v->folder = *f;
}

/* The store is open, its groups are not yet. */
void folder_opened(struct vol *v)
{
	const struct vol_map *m = v->doc.map;
	struct volcfg_folder *mine = &v->own_folder;
	bool known = v->folder_known && vol_id_eq(&v->folder.volume, &m->uuid), other;
	uint64_t before;

	*mine = (struct volcfg_folder){.volume = m->uuid};
	bstore_identity(v->store, &mine->instance, &before, &mine->opened);
	other = known && (!vol_id_eq(&mine->instance, &v->folder.instance) || before < v->folder.opened);
	v->n_lost = 0;
	for (uint32_t g = 0; g < m->n_groups; g++) {
		mine->lost[g] = known && bstore_replica(v->store, g) && v->views[g].epoch > 0 &&
				(other || v->folder.lost[g]);
		v->n_lost += mine->lost[g];
	}
	if (other)
		log_warn("volume %s: its folder is %s: what it acknowledged is not here, it waits to be "
			 "filled",
			 v->name,
			 vol_id_eq(&mine->instance, &v->folder.instance) ? "an older copy of the one it had"
									 : "not the one it had");
	v->folder_due = true;
}

static void put_work(uv_work_t *w)
{
	struct put *p = w->data;

	p->err = volcfg_folder_put(p->v->b->store, p->v->name, p->v->b->s.node, &p->folder, &p->e);
}

static void put_done(uv_work_t *w, int status)
{
	struct put *p = w->data;
	struct vol *v = p->v;

	v->folder_putting = false;
	if (status < 0 || p->err < 0) {
		v->folder_due = true;
		v->folder_retry_ms = clock_ms() + RETRY_MS;
	}
	vol_unref(v);
	free(p);
}

void folder_tick(struct vol *v, uint64_t now)
{
	struct put *p;

	for (uint32_t g = 0; g < v->doc.map->n_groups && v->n_lost > 0; g++)
		if (v->own_folder.lost[g] && (!v->grp[g] || !repl_lost(v->grp[g]->repl))) {
			v->own_folder.lost[g] = false;
			v->n_lost--;
			v->folder_due = true;
		}
	if (!v->folder_due || v->folder_putting || now < v->folder_retry_ms)
		return;
	p = xcalloc(1, sizeof(*p));
	p->v = v;
	p->folder = v->own_folder;
	p->work.data = p;
	v->refs++;
	v->folder_due = false;
	v->folder_putting = true;
	ensure(uv_queue_work(v->b->loop, &p->work, put_work, put_done) == 0);
}
