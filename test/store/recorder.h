/* SPDX-License-Identifier: Apache-2.0 */
/* Recorder: follows a watch and checks, as events come, what every store promises: revisions rise, none is split over two
 * calls, none lies before the start, progress never runs ahead of an event that comes later. */
#pragma once

#include <pthread.h>

#include "store/store.h"
#include "test.h"

struct seen {
	char *key, *value, *prev;
	int type;
	int64_t rev, prev_rev;
};

struct recorder {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct seen *seen;
	size_t n, cap;
	int64_t from, last; /* last: no event at or below it may come any more */
	size_t progress;    /* calls with n = 0 */
	int64_t progress_rev;
	int ended; /* errno of ended(), 0 = not yet */
	char wrong[200];
	unsigned delay_us; /* in each call */
	struct store_watch *watch;
};

void recorder_start(struct recorder *r, struct store *s, const char *prefix, int64_t from);
/* Each callback takes delay_us. */
void recorder_start_slow(struct recorder *r, struct store *s, const char *prefix, int64_t from,
			 unsigned delay_us);
/* Ends the watch and fails the test if anything was wrong. Events stay until recorder_done. */
void recorder_stop(struct recorder *r);
void recorder_done(struct recorder *r);
/* Waits; fails the test after timeout_ms. */
void recorder_wait_events(struct recorder *r, size_t n, int64_t timeout_ms);
void recorder_wait_progress(struct recorder *r, int64_t rev, int64_t timeout_ms);
int recorder_wait_ended(struct recorder *r, int64_t timeout_ms);
