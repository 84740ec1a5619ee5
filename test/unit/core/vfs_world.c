/* SPDX-License-Identifier: Apache-2.0 */
#include "vfs_world.h"

struct world *world_new(uint32_t groups, uint32_t stripe, uint32_t stripe_size)
{
	struct world *w = xcalloc(1, sizeof(*w));
	struct vol_brick bricks[VOL_STRIPE_MAX] = {0};
	struct vol_id uuid = {.b = {1, 2, 3}};
	struct err e = {0};
	uint32_t n = groups < 2 * stripe ? stripe : 2 * stripe;

	ensure(groups <= WORLD_GROUPS);
	for (uint32_t i = 0; i < n; i++) {
		snprintf(bricks[i].name, sizeof(bricks[i].name), "%c%u", (char)('a' + i % 3), i / 3);
		snprintf(bricks[i].domain, sizeof(bricks[i].domain), "%c", (char)('a' + i % 3));
		snprintf(bricks[i].address, sizeof(bricks[i].address), "127.0.0.1:%u", 7000 + i);
		snprintf(bricks[i].path, sizeof(bricks[i].path), "/b%u", i);
		bricks[i].weight = 100;
	}
	if (vol_map_make("test", &uuid, 1, stripe, bricks, n, groups, true, &w->map, &e) < 0)
		ensure_failed(e.text, __FILE__, __LINE__);
	w->map->stripe_size = stripe_size;
	w->n = w->map->n_groups;
	ensure(w->n <= WORLD_GROUPS);
	w->now = 1000000000ll * 1700000000;
	for (uint32_t i = 0; i < w->n; i++) {
		struct world_group *g = &w->g[i];

		g->kv = mem_kv_new();
		g->blob = mem_blob_new();
		ensure(replica_init(&g->replica, i, w->map->stripe_size, mem_kv_table(g->kv),
				    mem_blob_table(g->blob)) == 0);
		ensure(vfs_init(&g->vfs, &g->replica, w->map) == 0);
		g->vfs.bytes_free = g->vfs.bytes_total = 1ull << 50;
	}
	return w;
}

struct world *world_free(struct world *w)
{
	if (!w)
		return NULL;
	for (uint32_t i = 0; i < w->n; i++) {
		replica_done(&w->g[i].replica);
		mem_kv_free(w->g[i].kv);
		mem_blob_free(w->g[i].blob);
	}
	for (unsigned i = 0; i < WORLD_LATE; i++)
		buf_done(&w->late[i].wire);
	vol_map_free(w->map);
	free(w);
	return NULL;
}

/* What goes over the wire comes back the same: every operation of every test goes through the codec. */
static void apply(struct world *w, struct world_group *g, struct record *rec)
{
	w->last_effects = rec->n;
	if (rec->n == 0)
		return;
	rec->epoch = rec->prev_epoch = 1;
	rec->seq = g->replica.seq + 1;
	ensure(replica_apply(&g->replica, rec, false) == 0);
}

static int exec_in(struct world *w, uint32_t group, const struct vfs_op *op, struct vfs_result *res)
{
	struct world_group *g = &w->g[group];
	struct record *rec = record_new(group);
	_cleanup_buf_ struct buf wire = {0}, back = {0};
	struct vfs_result first;
	struct vfs_op copy;
	int r;

	w->now += 1000;
	ensure(vfs_op_encode(op, &wire) == 0);
	ensure(vfs_op_decode(wire.data, wire.len, op->payload, &copy) == 0);
	r = vfs_exec(&g->vfs, &copy, w->now, rec, &first);
	if (r == 0) {
		apply(w, g, rec);
		ensure(vfs_result_encode(&first, &back) == 0);
		ensure(vfs_result_decode(back.data, back.len, first.payload, res) == 0);
	}
	vfs_result_done(&first);
	record_unref(rec);
	return r;
}

void world_remember(struct world *w, uint32_t group, const struct vfs_op *op)
{
	struct world_late *l = &w->late[w->n_late++ % WORLD_LATE];

	buf_done(&l->wire);
	l->group = group;
	ensure(vfs_op_encode(op, &l->wire) == 0);
}

void world_late(struct world *w, unsigned i)
{
	struct world_late *l = &w->late[i % WORLD_LATE];
	struct vfs_result res;
	struct vfs_op op;

	if (l->wire.len == 0)
		return;
	ensure(vfs_op_decode(l->wire.data, l->wire.len, NULL, &op) == 0);
	ensure(exec_in(w, l->group, &op, &res) == 0);
	ensure(w->last_effects == 0);
	vfs_result_done(&res);
}

int world_exec(struct world *w, struct vfs_op *op, struct vfs_result *res)
{
	int r;

	if (vfs_changes(op->type) && op->id.number == 0 && op->type != VFS_REAP && op->type != VFS_SWEEP)
		op->id = (struct vfs_opid){
			.client = op->id.client ? op->id.client : 77, .slot = 1, .number = ++w->number};
	r = exec_in(w, vfs_group(w->map, op), op, res);
	if (r < 0)
		*res = (struct vfs_result){.err = r};
	else if (op->id.number && res->err != -EAGAIN && vfs_changes(op->type) && !op->payload &&
		 !res->intent)
		world_remember(w, vfs_group(w->map, op), op);
	return res->err;
}

int world_drive(struct world *w, uint32_t group, const uint8_t id[16], unsigned how, struct vfs_result *res)
{
	struct vfs *v = &w->g[group].vfs;
	_cleanup_buf_ struct buf store = {0};
	struct vfs_result step = {0}, again = {0};
	struct record *rec;
	struct vfs_op op;
	bool local, finished;
	uint32_t to;
	int r;

	*res = (struct vfs_result){0};
	r = vfs_intent_next(v, id, &to, &op, &store, &local);
	if (r < 0)
		return r;
	r = exec_in(w, to, &op, &step);
	ensure(r == 0);
	world_remember(w, to, &op);
	if (how & WORLD_LOSE) {
		vfs_result_done(&step);
		return 0;
	}
	if (how & WORLD_TWICE) {
		ensure(exec_in(w, to, &op, &again) == 0);
		ensure(again.err == step.err && again.flags == step.flags && w->last_effects == 0);
	}
	rec = record_new(group);
	w->now += 1000;
	r = vfs_intent_done(v, id, &step, w->now, rec, res, &finished);
	if (r == 0)
		apply(w, &w->g[group], rec);
	if (r == 0 && !finished &&
	    (how & WORLD_TWICE)) /* a second driver with the old answer changes nothing */
		ensure(vfs_intent_done(v, id, &step, w->now, rec, res, &finished) == -EALREADY && !finished);
	vfs_result_done(&step);
	vfs_result_done(&again);
	record_unref(rec);
	return r < 0 ? r : finished;
}

int world_do(struct world *w, struct vfs_op *op, struct vfs_result *res)
{
	uint32_t group = vfs_group(w->map, op);
	uint8_t id[16];
	int r = world_exec(w, op, res);

	if (!res->intent)
		return r;
	memcpy(id, res->intent_id, 16);
	vfs_result_done(res);
	for (unsigned i = 0; i < 40; i++) {
		r = world_drive(w, group, id, 0, res);
		ensure(r >= 0);
		if (r == 1)
			return res->err;
		vfs_result_done(res);
	}
	ensure_failed("an intent without end", __FILE__, __LINE__);
}

unsigned world_settle(struct world *w)
{
	unsigned n = 0;
	uint8_t id[16];

	for (uint32_t g = 0; g < w->n; g++)
		while (vfs_intent_iter(&w->g[g].vfs, NULL, id) == 0) {
			struct vfs_result res;
			int r = 0;

			for (unsigned i = 0; r == 0; i++) {
				ensure(i < 40);
				r = world_drive(w, g, id, 0, &res);
				vfs_result_done(&res);
			}
			ensure(r == 1);
			n++;
		}
	return n;
}
