/* SPDX-License-Identifier: Apache-2.0 */
/* space: nothing that takes room is accepted when it might not fit on the fullest in-sync member, so that no disk gets full: a record that cannot
 * be applied takes its member out, and with all disks full nobody could delete anything any more.
 *
 * Three figures a member: what was free when it was measured (statvfs), what this brick has appended since then (`taken`, an upper bound: data that is
 * overwritten takes nothing), and the reserve. Free without the reserve too little: -ENOSPC. Only too little when all of `taken` is subtracted: -EAGAIN,
 * and the client asks again in a moment (vfs.bytes_taken). The own disk is measured again at once when it matters; the other members tell their figure
 * once a second, and at the next tick when they took a sixteenth of what they have left, so a doubt lasts a few ticks. A figure that
 * arrives may be older than what we sent last; so everything since the one before it counts as taken. */
#include "volume/brick/internal.h"

#define TELL_PART     16 /* of what is left */
#define MEASURE_PART  8
#define FILES_RESERVE 4096u /* inodes; 1/16 of them on a small disk */

static uint64_t reserve_of(const struct bstore_stats *st)
{
	if (st->bytes_total < 8 * RESERVE_MIN) /* a small disk, of a test or a device */
		return st->bytes_total / 16;
	return MAX(RESERVE_MIN, st->bytes_total / 100);
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* The least of what the in-sync members have, as measured and as it may be. */
static void sum_up(struct grp *g)
{
	uint64_t now = g->v->b->taken, measured = UINT64_MAX, left = UINT64_MAX;

	for (uint8_t i = 0; i < g->n; i++) {
		const struct room *m = &g->room[i];

		if (!(g->view.isr & 1u << i) && i != g->self)
			continue;
		measured = MIN(measured, m->free);
		left = MIN(left, minus(m->free, now - m->taken));
	}
	g->vfs.bytes_free = measured;
	g->vfs.bytes_taken = measured - left;
}

void space_measure(struct vol *v)
{
	struct bstore_stats st;

	bstore_measure(v->store);
	bstore_get_stats(v->store, &st);
	v->reserve = reserve_of(&st);
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++) {
		struct grp *g = v->grp[i];

		if (!g)
			continue;
		g->room[g->self] = (struct room){.free = st.bytes_free, .taken = v->b->taken};
		g->vfs.bytes_total = st.bytes_total;
		g->vfs.files_free = st.files_free;
		g->vfs.reserve = v->reserve;
		g->vfs.files_reserve = MIN(FILES_RESERVE, st.files_total / 16);
		sum_up(g);
	}
}

void space_look(struct grp *g)
{
	const struct room *own = &g->room[g->self];

	if ((g->v->b->taken - own->taken) * MEASURE_PART > minus(own->free, g->v->reserve))
		space_measure(g->v);
	sum_up(g);
}

void space_take(struct brick *b, const struct record *rec)
{
	b->taken += rec->body_len + (rec->payload_len ? rec->payload_len + 2 * VOL_BLOCK : 0);
}

void space_told(struct grp *g, uint8_t member, uint64_t bytes_free)
{
	struct room *m = &g->room[member];

	*m = (struct room){.free = bytes_free, .taken = m->told, .told = g->v->b->taken};
}

bool space_tell(struct vol *v)
{
	struct brick *b = v->b;

	for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
		if (v->grp[i]) {
			const struct room *own = &v->grp[i]->room[v->grp[i]->self];
			uint64_t left = minus(own->free, b->taken - own->taken + v->reserve);

			return (b->taken - b->told) * TELL_PART > left;
		}
	return false;
}
