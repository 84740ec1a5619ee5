/* SPDX-License-Identifier: Apache-2.0 */
/* sync: making the log, and data that is not in the log, durable. One thread, one sync at a time: whoever waits when a sync begins
 * shares it (group commit), whoever comes later shares the next. Where a sync takes less than the way to the thread and back (memory,
 * write-back caches with a battery), the loop thread makes it itself, at the end of its turn. After a failed fdatasync nobody knows what the disk holds (the kernel
 * forgets the pages), so the store fails for good (bstore_fail) and only a restart, which checks, goes on.
 * Also the two threads' common frame (worker) and the syncing part of checkpoints. */
#include "volume/bstore/internal.h"

#include <fcntl.h>

/* ---- a thread with one job ---- */

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (w->state != JOB_GIVEN && !w->stop)
			pthread_cond_wait(&w->cond, &w->lock);
		if (w->state != JOB_GIVEN)
			break;
		pthread_mutex_unlock(&w->lock);
		w->run(w->b);
		pthread_mutex_lock(&w->lock);
		w->state = JOB_DONE;
		pthread_cond_broadcast(&w->cond);
		if (!w->reap)
			continue;
		/* Told behind the state: a loop that is quicker would find nothing to take. */
		pthread_mutex_unlock(&w->lock);
		mailbox_post(w->b->mailbox, (mailbox_fn)w->reap, w->b);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int worker_start(struct worker *w, struct bstore *b, void (*run)(struct bstore *b),
		 void (*reap)(struct bstore *b))
{
	*w = (struct worker){.run = run, .reap = reap, .b = b};
	ensure(pthread_mutex_init(&w->lock, NULL) == 0 && pthread_cond_init(&w->cond, NULL) == 0);
	if (pthread_create(&w->thread, NULL, worker_main, w) != 0)
		return -EAGAIN;
	w->started = true;
	return 0;
}

void worker_give(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	ensure(w->state == JOB_NONE);
	w->state = JOB_GIVEN;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

bool worker_busy(struct worker *w)
{
	bool busy;

	pthread_mutex_lock(&w->lock);
	busy = w->state != JOB_NONE;
	pthread_mutex_unlock(&w->lock);
	return busy;
}

bool worker_take(struct worker *w, bool wait)
{
	bool done;

	pthread_mutex_lock(&w->lock);
	while (wait && w->state == JOB_GIVEN)
		pthread_cond_wait(&w->cond, &w->lock);
	done = w->state == JOB_DONE;
	if (done)
		w->state = JOB_NONE;
	pthread_mutex_unlock(&w->lock);
	return done;
}

void worker_stop(struct worker *w)
{
	if (!w->started)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->cond);
	w->started = false;
}

/* ---- one sync ---- */

static int sync_files(struct bstore *b, struct sync_job *j)
{
	if (j->whole)
		return syncfs(b->files.data_fd) < 0 ? -errno : 0;
	for (size_t i = 0; i < j->n_files; i++) {
		if (fdatasync(j->file[i].file->fd) < 0)
			return -errno;
		if (j->file[i].is_new && files_sync_folder(b->files.data_fd, j->file[i].file) < 0)
			return -errno;
	}
	return 0;
}

int sync_run(struct bstore *b, struct sync_job *j)
{
	uint64_t start = clock_us();

	j->err = sync_files(b, j);
	for (uint32_t i = 0; i < j->n_log && j->err == 0; i++)
		if (fdatasync(j->log_fd[i]) < 0)
			j->err = -errno;
	if (j->dir && j->err == 0 && fsync(b->log.dir_fd) < 0)
		j->err = -errno;
	j->us = clock_us() - start;
	return j->err;
}

/* What a sync of the log up to its written end has to do. Descriptors are duplicates: the loop thread may close its own. */
int sync_take_log(struct bstore *b, struct sync_job *j)
{
	struct log *l = &b->log;

	j->n_log = 0;
	for (uint32_t i = 0; i <= l->n_unsynced; i++) {
		int fd = fcntl(i < l->n_unsynced ? l->unsynced_fd[i] : l->fd, F_DUPFD_CLOEXEC, 0);

		if (fd < 0)
			return -errno;
		j->log_fd[j->n_log++] = fd;
	}
	j->dir = l->dir_changes > l->dir_synced ? l->dir_changes : 0;
	j->lsn = lsn_make(l->seg_no, l->at);
	return 0;
}

/* The job is over: segments it synced are closed. */
void sync_give_back_log(struct bstore *b, struct sync_job *j)
{
	struct log *l = &b->log;

	for (uint32_t i = 0; i < j->n_log; i++)
		close(j->log_fd[i]);
	if (j->err == 0)
		l->dir_synced = MAX(l->dir_synced, j->dir);
	if (j->err == 0 && j->lsn > l->synced) {
		/* Those before the segment that the position is in: as many as are not newer than it. */
		uint32_t newer = (uint32_t)(l->seg_no - (j->lsn >> 32)),
			 n = l->n_unsynced > newer ? l->n_unsynced - newer : 0;

		for (uint32_t i = 0; i < n; i++)
			close(l->unsynced_fd[i]);
		l->n_unsynced -= n;
		memmove(l->unsynced_fd, l->unsynced_fd + n, l->n_unsynced * sizeof(l->unsynced_fd[0]));
		l->synced = j->lsn;
	}
	j->n_log = 0;
}

void sync_thread(struct bstore *b)
{
	sync_run(b, &b->sync);
}

/* ---- waiters ---- */

static bool is_ready(const struct bstore *b, const struct sync_wait *w)
{
	return w->lsn <= b->log.synced && w->data <= b->sync_done && w->outside <= b->outside_durable;
}

/* Calls those that need not wait any more; err < 0: all. */
static void answer(struct bstore *b, int err)
{
	struct sync_wait **at = &b->wait_first, *w, *ready = NULL, **last = &ready;

	while ((w = *at)) {
		if (err == 0 && w->err == 0 && !is_ready(b, w)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = NULL;
		*last = w;
		last = &w->next;
	}
	b->wait_last = at;
	while ((w = ready)) {
		ready = w->next;
		w->done(w->ctx, err < 0 ? err : w->err);
		free(w);
	}
}

void sync_answer_all(struct bstore *b, int err)
{
	answer(b, err);
}

/* The loop thread's job is over, or the thread's is taken. */
static void ended(struct bstore *b)
{
	struct sync_job *j = &b->sync;

	files_give_back(&b->files, j, j->err == 0, true);
	sync_give_back_log(b, j);
	b->stats.syncs++;
	b->stats.sync_us_last = j->us;
	b->stats.sync_us_max = MAX(b->stats.sync_us_max, j->us);
	b->sync_avg_us = (b->sync_avg_us * 7 + (uint32_t)MIN(j->us, 1000000u)) / 8;
	b->sync_done = b->sync_started;
	if (j->err < 0)
		bstore_fail(b, j->err, "a sync");
}

static bool quick(const struct bstore *b)
{
	return b->o.turns && b->sync_avg_us < INLINE_SYNC_US && !b->sync.whole && !b->sync.dir &&
	       b->sync.n_files <= INLINE_FILES_MAX && clock_ms() >= b->sync_inline_ms;
}

void sync_start(struct bstore *b)
{
	bool wanted = false;
	int r;

	b->sync_posted = false;
	answer(b, b->failed);
	for (struct sync_wait *w = b->wait_first; w && !wanted; w = w->next)
		wanted = w->lsn > b->log.synced || w->data > b->sync_done;
	if (!wanted || worker_busy(&b->syncer))
		return;
	r = sync_take_log(b, &b->sync);
	if (r < 0) {
		log_error("bstore: cannot start a sync: %s", strerror(-r));
		return; /* the next tick tries again */
	}
	files_take_dirty(&b->files, true, &b->sync);
	b->sync_started++;
	if (!quick(b)) {
		worker_give(&b->syncer);
		return;
	}
	if (sync_run(b, &b->sync) == 0 && b->sync.us > INLINE_LONG_US)
		b->sync_inline_ms = clock_ms() + INLINE_PAUSE_MS;
	ended(b);
	answer(b, b->failed);
}

bool bstore_turn(struct bstore *b)
{
	if (b->sync_posted)
		sync_start(b);
	return b->sync_posted;
}

void sync_reap(struct bstore *b)
{
	if (!worker_take(&b->syncer, false))
		return;
	ended(b);
	sync_start(b);
}

/* done is never called from in here. Waiters of one loop turn, and those that come while a sync runs, share one. */
static void wait_for(struct bstore *b, uint64_t outside, void (*done)(void *ctx, int err), void *ctx)
{
	struct sync_wait *w = xcalloc(1, sizeof(*w));

	*w = (struct sync_wait){.done = done, .ctx = ctx, .outside = outside};
	*b->wait_last = w;
	b->wait_last = &w->next;
	w->err = bstore_flush(b);
	w->lsn = log_end(&b->log);
	/* Data outside the log is durable with the first sync that begins from now on; none is needed where there is no such data. */
	if (b->files.n_large > 0 || b->files.evicted_large || worker_busy(&b->syncer))
		w->data = b->sync_started + 1;
	if (outside > b->outside_durable)
		checkpoint_start(b);
	if (b->sync_posted)
		return;
	b->sync_posted = true;
	if (!b->o.turns)
		mailbox_post(b->mailbox, (mailbox_fn)sync_start, b);
}

void bstore_sync(struct bstore *b, void (*done)(void *ctx, int err), void *ctx)
{
	wait_for(b, 0, done, ctx);
}

void bstore_settle(struct bstore *b, void (*done)(void *ctx, int err), void *ctx)
{
	bstore_mark_dirty(b);
	b->outside_wanted =
		b->outside; /* a checkpoint that is on its way began before: bstore_tick makes the next one at once */
	wait_for(b, b->outside, done, ctx);
}
