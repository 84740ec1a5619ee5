/* SPDX-License-Identifier: Apache-2.0 */
/* See csi.h. */
#include "csi/csi.h"

#define TICK_MS	 500
#define ASK_MS	 2000
#define RENEW_MS 60000

struct entry {
	struct csi_drivers *all;
	struct csi_driver d;
	uint64_t ask_at_ms;
	bool asking, complained;
};

struct csi_drivers {
	struct entry *v;
	size_t n;
	struct timer *timer;
	void (*seen)(void *ctx, const struct csi_driver *d);
	void *ctx;
};

/* true when something differs. */
static bool learn(struct csi_driver *d, const struct csi_result *r)
{
	bool same = streq(d->name, r->name) && streq(d->node_id, r->node_id) &&
		    d->controller == r->controller && d->expand == r->expand && d->stage == r->stage &&
		    d->stats == r->stats && d->volumes_max == r->volumes_max;

	if (same)
		return false;
	free(d->name);
	free(d->node_id);
	*d = (struct csi_driver){.csi = d->csi,
				 .name = xstrdup(r->name),
				 .node_id = r->node_id ? xstrdup(r->node_id) : NULL,
				 .controller = r->controller,
				 .expand = r->expand,
				 .stage = r->stage,
				 .stats = r->stats,
				 .volumes_max = r->volumes_max};
	return true;
}

static void on_info(void *ctx, const struct csi_result *r)
{
	struct entry *e = ctx;

	e->asking = false;
	e->ask_at_ms = clock_ms() + (r->code == RPC_OK ? RENEW_MS : ASK_MS);
	if (r->code != RPC_OK) {
		if (!e->complained)
			log_warn("CSI driver at %s: %s", csi_endpoint(e->d.csi), r->text);
		e->complained = true;
		return;
	}
	e->complained = false;
	if (!learn(&e->d, r))
		return;
	log_info("CSI driver %s %s at %s", r->name, r->version, csi_endpoint(e->d.csi));
	e->all->seen(e->all->ctx, &e->d);
}

static void on_timer(void *ctx)
{
	struct csi_drivers *all = ctx;

	for (size_t i = 0; i < all->n; i++) {
		struct entry *e = &all->v[i];

		if (e->asking || clock_ms() < e->ask_at_ms)
			continue;
		e->asking = true;
		csi_call(e->d.csi, &(struct csi_request){.method = CSI_INFO, .done = on_info, .ctx = e});
	}
}

int csi_drivers_new(uv_loop_t *loop, char *const *endpoints,
		    void (*seen)(void *ctx, const struct csi_driver *d), void *ctx, struct csi_drivers **ret,
		    struct err *e)
{
	size_t n = endpoints ? strv_len((char **)endpoints) : 0;
	struct csi_drivers *all = xcalloc(1, sizeof(*all));

	all->seen = seen;
	all->ctx = ctx;
	all->v = xcalloc(n + 1, sizeof(*all->v));
	for (size_t i = 0; i < n; i++) {
		int r = csi_new(loop, endpoints[i], &all->v[i].d.csi, e);

		if (r < 0) {
			csi_drivers_free(all);
			return err_wrap(e, "%s", endpoints[i]);
		}
		all->v[all->n++].all = all;
	}
	if (n) {
		all->timer = timer_new(loop, on_timer, all);
		timer_start(all->timer, 0, TICK_MS);
	}
	*ret = all;
	return 0;
}

struct csi_drivers *csi_drivers_free(struct csi_drivers *all)
{
	if (!all)
		return NULL;
	for (size_t i = 0; i < all->n; i++) {
		csi_free(all->v[i].d.csi);
		free(all->v[i].d.name);
		free(all->v[i].d.node_id);
	}
	timer_free(all->timer);
	free(all->v);
	free(all);
	return NULL;
}

const struct csi_driver *csi_drivers_find(const struct csi_drivers *all, const char *name)
{
	for (size_t i = 0; all && name && i < all->n; i++)
		if (streq(all->v[i].d.name, name))
			return &all->v[i].d;
	return NULL;
}
