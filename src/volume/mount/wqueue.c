/* SPDX-License-Identifier: Apache-2.0 */
/* See wqueue.h. Memory: one allocation an extent and one for its bytes, which grows in four steps as neighbours are put into it. */
#include "volume/mount/wqueue.h"

#define OVERHEAD (sizeof(struct wq_extent) + 64)

void wq_file_init(struct wq_file *f)
{
	*f = (struct wq_file){0};
	f->last = &f->first;
}

bool wq_idle(const struct wq_file *f)
{
	return f->n_waiting + f->n_flying == 0;
}

/* ---- extents ---- */

static uint32_t grown(uint32_t need)
{
	static const uint32_t step[] = {4u << 10, 32u << 10, 256u << 10};

	for (size_t i = 0; i < ARRAY_SIZE(step); i++)
		if (need <= step[i])
			return step[i];
	return WQ_EXTENT_MAX;
}

struct wq_extent *wq_extent_new(uint32_t uid, uint32_t gid, uint64_t off, const void *data, uint32_t len)
{
	struct wq_extent *e = calloc(1, sizeof(*e));

	ensure(len > 0 && off % WQ_EXTENT_MAX + len <= WQ_EXTENT_MAX);
	if (!e)
		return NULL;
	*e = (struct wq_extent){.off = off, .len = len, .cap = grown(len), .uid = uid, .gid = gid};
	e->data = malloc(e->cap);
	if (!e->data) {
		free(e);
		return NULL;
	}
	memcpy(e->data, data, len);
	return e;
}

void wq_extent_free(struct wq_extent *e)
{
	if (!e)
		return;
	free(e->data);
	free(e);
}

static bool overlap(const struct wq_extent *a, const struct wq_extent *b)
{
	return a->off < b->off + b->len && b->off < a->off + a->len;
}

/* ---- accounts ---- */

static void charge(struct wq *q, struct wq_file *f, uint64_t bytes)
{
	q->bytes += bytes;
	f->bytes += bytes;
}

static void discharge(struct wq *q, struct wq_file *f, uint64_t bytes)
{
	ensure(q->bytes >= bytes && f->bytes >= bytes);
	q->bytes -= bytes;
	f->bytes -= bytes;
}

static void set_busy(struct wq *q, struct wq_file *f)
{
	if (!q->busy) {
		f->next = f->prev = f;
		q->busy = f;
	} else {
		f->prev = q->busy->prev;
		f->next = q->busy;
		f->prev->next = f->next->prev = f;
	}
	q->n_busy++;
}

static void set_idle(struct wq *q, struct wq_file *f)
{
	ensure(q->n_busy > 0 && f->bytes == 0);
	if (--q->n_busy == 0)
		q->busy = NULL;
	else if (q->busy == f)
		q->busy = f->next;
	f->prev->next = f->next;
	f->next->prev = f->prev;
	f->next = f->prev = NULL;
}

bool wq_room(const struct wq *q, const struct wq_file *f, uint32_t len)
{
	uint64_t need = grown(len) + OVERHEAD;

	return q->bytes == 0 || f->bytes == 0
		       ? q->bytes + need <= MAX(q->limit, need)
		       : q->bytes + need <= q->limit && f->bytes + need <= q->limit / 4 * 3;
}

/* ---- taking writes ---- */

bool wq_merge(struct wq *q, struct wq_file *f, uint32_t uid, uint32_t gid, uint64_t off, const void *data,
	      uint32_t len)
{
	struct wq_extent *e = f->newest;
	uint64_t end = off + len;
	uint32_t need, cap;
	uint8_t *bigger;

	if (!e || e->sealed || e->uid != uid || e->gid != gid || off < e->off || off > e->off + e->len ||
	    end > e->off / WQ_EXTENT_MAX * WQ_EXTENT_MAX + WQ_EXTENT_MAX)
		return false;
	need = (uint32_t)(MAX(end, e->off + e->len) - e->off);
	if (need > e->cap) {
		cap = grown(need);
		if (q->bytes + cap - e->cap > q->limit)
			return false;
		bigger = realloc(e->data, cap);
		if (!bigger)
			return false;
		charge(q, f, cap - e->cap);
		e->data = bigger;
		e->cap = cap;
	}
	memcpy(e->data + (off - e->off), data, len);
	e->len = need;
	return true;
}

void wq_push(struct wq *q, struct wq_file *f, struct wq_extent *e, uint64_t now_us)
{
	if (wq_idle(f))
		set_busy(q, f);
	e->file = f;
	e->serial = ++q->serial;
	e->born_us = now_us;
	e->next = NULL;
	*f->last = e;
	f->last = &e->next;
	f->newest = e;
	f->n_waiting++;
	charge(q, f, e->cap + OVERHEAD);
}

/* ---- flying ---- */

static bool young(const struct wq_extent *e, uint64_t now_us)
{
	return e == e->file->newest && !e->sealed && e->len < WQ_FULL && now_us < e->born_us + WQ_AGE_US;
}

static bool may_fly(const struct wq_file *f)
{
	if (!f->first || f->held || f->n_flying >= WQ_FLYING_MAX)
		return false;
	for (const struct wq_extent *x = f->flying; x; x = x->next)
		if (overlap(x, f->first))
			return false;
	return true;
}

bool wq_ripe(const struct wq_file *f)
{
	return may_fly(f) && (f->n_waiting >= WQ_RIPE || f->first->sealed || f->first->len >= WQ_FULL);
}

static struct wq_extent *lift(struct wq_file *f)
{
	struct wq_extent *e = f->first;

	f->first = e->next;
	if (!f->first) {
		f->last = &f->first;
		f->newest = NULL;
	}
	f->n_waiting--;
	e->next = f->flying;
	f->flying = e;
	f->n_flying++;
	return e;
}

struct wq_extent *wq_take(struct wq *q, uint64_t now_us, bool *ret_young)
{
	struct wq_file *f = q->busy;

	for (uint32_t i = 0; i < q->n_busy; i++, f = f->next) {
		if (!may_fly(f))
			continue;
		if (young(f->first, now_us)) {
			*ret_young = true;
			continue;
		}
		q->busy = f->next;
		return lift(f);
	}
	return NULL;
}

struct wq_extent *wq_take_only(struct wq_file *f)
{
	return f->n_waiting == 1 && f->n_flying == 0 && !f->held ? lift(f) : NULL;
}

static void failed(struct wq_file *f, int err)
{
	f->err = err;
	f->err_number++;
	f->err_heard = false;
}

void wq_land(struct wq *q, struct wq_extent *e, int err)
{
	struct wq_file *f = e->file;
	struct wq_extent **p = &f->flying;

	while (*p && *p != e)
		p = &(*p)->next;
	ensure(*p == e);
	*p = e->next;
	f->n_flying--;
	discharge(q, f, e->cap + OVERHEAD);
	wq_extent_free(e);
	if (err < 0)
		failed(f, err);
	if (wq_idle(f))
		set_idle(q, f);
}

void wq_drop(struct wq *q, struct wq_file *f, int err)
{
	struct wq_extent *e;
	bool any = f->first;

	while ((e = f->first)) {
		f->first = e->next;
		f->n_waiting--;
		discharge(q, f, e->cap + OVERHEAD);
		wq_extent_free(e);
	}
	f->last = &f->first;
	f->newest = NULL;
	if (!any)
		return;
	failed(f, err);
	if (wq_idle(f))
		set_idle(q, f);
}

/* ---- waiting for them ---- */

uint64_t wq_mark(struct wq *q, struct wq_file *f)
{
	if (f->newest)
		f->newest->sealed = true;
	return q->serial;
}

bool wq_settled(const struct wq_file *f, uint64_t mark)
{
	if (f->first && f->first->serial <= mark)
		return false;
	for (const struct wq_extent *x = f->flying; x; x = x->next)
		if (x->serial <= mark)
			return false;
	return true;
}

/* ---- errors ---- */

/* An error nobody has heard of yet is told to who opens the file now. */
void wq_opened(const struct wq_file *f, struct wq_open *o)
{
	uint64_t known = f ? f->err_number - (f->err_number > 0 && !f->err_heard) : 0;

	*o = (struct wq_open){known, known};
}

static int hear(struct wq_file *f, uint64_t *heard)
{
	if (*heard == f->err_number)
		return 0;
	*heard = f->err_number;
	return f->err;
}

int wq_error_write(struct wq_file *f, struct wq_open *o)
{
	return hear(f, &o->heard_write);
}

int wq_error_sync(struct wq_file *f, struct wq_open *o)
{
	int r = hear(f, &o->heard_sync);

	o->heard_write = f->err_number;
	f->err_heard |= r < 0;
	return r;
}
