/* SPDX-License-Identifier: Apache-2.0 */
/* wqueue: writes that were taken from programs and are not yet at the bricks. Pure: no thread, no clock, no I/O; the owner locks.
 *
 * Per file a FIFO of extents. A write that touches the newest waiting extent at its end, or lies in it, is put into it; else it becomes an extent of its
 * own. An extent never passes a multiple of WQ_EXTENT_MAX of the file. Extents fly in the FIFO's order, several at once, but never two
 * that overlap: so those in flight may land in any order - tried again, over another connection, at another primary - and the file's bytes come
 * out as if they had landed in the order of the writes. What overlaps one in flight waits, and everything behind it.
 *
 * Bounds: bytes of all files (extents counted with their overhead), of one file (three quarters of it), extents of one file in flight.
 *
 * Errors: a file keeps the newest, with a number (as Linux's errseq_t). Each open file has heard of errors up to some number, apart for write(2) and for
 * fsync(2)/close(2): each hears of each error once. */
#pragma once

#include "base/base.h"

#define WQ_EXTENT_MAX (1u << 20)
#define WQ_FULL	      (256u << 10) /* the newest extent flies at once when it is so long ... */
#define WQ_AGE_US     1000	   /* ... or so old; else it waits for neighbours */
#define WQ_RIPE	      16	   /* so many extents that wait are sent at once */
#define WQ_FLYING_MAX 64	   /* of one file */
#define WQ_LIMIT_MIN  (4u << 20)

struct wq_extent {
	struct wq_extent *next;
	struct wq_file *file;
	uint64_t serial, off, born_us;
	uint32_t len, cap, uid, gid;
	bool sealed; /* nothing more is put into it */
	uint8_t *data;
};

struct wq_file {
	struct wq_file *next, *prev; /* of the busy ones */
	struct wq_extent *first, **last, *newest, *flying;
	uint32_t n_waiting, n_flying;
	uint64_t bytes;
	uint32_t held; /* nothing new flies while it is not 0: some are being tried again */
	int err;
	uint64_t err_number; /* of the newest error; 0 = there was none */
	bool err_heard;	     /* by anybody */
};

struct wq_open {
	uint64_t heard_write, heard_sync;
};

struct wq {
	uint64_t limit, bytes, serial;
	struct wq_file *busy; /* a ring */
	uint32_t n_busy;
};

void wq_file_init(struct wq_file *f);
bool wq_idle(const struct wq_file *f);

/* A new extent with a copy of data. NULL = no memory. len at most WQ_EXTENT_MAX and not past a multiple of it. */
struct wq_extent *wq_extent_new(uint32_t uid, uint32_t gid, uint64_t off, const void *data, uint32_t len);
void wq_extent_free(struct wq_extent *e);
/* Is there room for so many bytes of this file? An empty queue has room for anything. */
bool wq_room(const struct wq *q, const struct wq_file *f, uint32_t len);
/* Puts the bytes into the newest waiting extent, when they fit to it. */
bool wq_merge(struct wq *q, struct wq_file *f, uint32_t uid, uint32_t gid, uint64_t off, const void *data,
	      uint32_t len);
void wq_push(struct wq *q, struct wq_file *f, struct wq_extent *e, uint64_t now_us); /* takes e */
/* Anything of the file that should be sent without waiting for neighbours? */
bool wq_ripe(const struct wq_file *f);
/* The next extent that may fly, from all files in turn; it counts as in flight until wq_land. NULL = none; *ret_young: some wait for neighbours only. */
struct wq_extent *wq_take(struct wq *q, uint64_t now_us, bool *ret_young);
/* The only extent of the file, when it is not in flight yet; now it is. */
struct wq_extent *wq_take_only(struct wq_file *f);
/* It is at the bricks (err 0) or will never be (-errno). Frees it. */
void wq_land(struct wq *q, struct wq_extent *e, int err);
/* All that waits of the file is given up, with this error. */
void wq_drop(struct wq *q, struct wq_file *f, int err);

/* Everything that was taken so far has a number up to wq_mark; wq_settled: all of it has landed. From now on nothing more is put into it. */
uint64_t wq_mark(struct wq *q, struct wq_file *f);
bool wq_settled(const struct wq_file *f, uint64_t mark);

void wq_opened(const struct wq_file *f, struct wq_open *o); /* f may be NULL: nothing was written yet */
int wq_error_write(struct wq_file *f, struct wq_open *o);   /* what write(2) has to say: 0 or -errno */
int wq_error_sync(struct wq_file *f, struct wq_open *o);    /* fsync(2) and close(2) */
