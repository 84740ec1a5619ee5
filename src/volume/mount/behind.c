/* SPDX-License-Identifier: Apache-2.0 */
/* Write-behind: `--write-behind=KIB`, off by default (docs/decisions). A write(2) returns when its bytes are in the queue (wqueue.h).
 *
 * Behind goes a write to a file of which this mount holds a lease: then another mount that changes the file makes the kernel's pages here go before
 * its own write returns. All others go through: to append, O_DIRECT, O_SYNC, O_DSYNC, pages of a mapping, files that another mount writes too,
 * and for a while files of which a write failed. Whatever asks a brick about the file, or promises something about it, drains it first.
 *
 * Threads. FUSE threads put bytes in and wait: for room, or for what they drain; one who drains a file with a single extent sends it
 * himself (small files: no hand-over). The sender takes what may fly, over the client's pipe. Helpers ask again, with all tries, what did not get a
 * final answer at once; meanwhile nothing new of that file flies. On striped volumes helpers send everything.
 * Lock: `lock` guards the queue, flights and lists; inside it nodes.lock may be taken; never a call to a brick or the kernel.
 *
 * Bounds: the option's bytes, FLIGHTS writes in flight, HELPERS threads. Waiting ends with the operations' time limit: when one failed for good
 * (no answer) all that waits of its file is given up with it. */
#include "volume/mount/internal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/timerfd.h>

#define FLIGHTS	   128
#define HELPERS	   8
#define COPY_FIRST (128u << 10) /* longer writes are copied before the lock is taken */
#define THROUGH_MS 5000		/* after a failure writes of the file go through for so long */

struct behind_file {
	struct wq_file q; /* first */
	struct node *n;
	uint32_t group;
	uint64_t through_until;
	_Atomic bool busy; /* something of it is in the queue; changed under lock */
};

struct flight {
	struct vclient_write w;
	struct behind *b;
	struct flight *next;
	struct wq_extent *e;
	struct tick tick;
	bool held; /* counted in its file's held */
};

struct behind {
	struct mount *m;
	pthread_mutex_t lock;
	pthread_cond_t landed, room, trouble;
	uint32_t wait_landed, wait_room;
	struct wq q;
	struct vclient_pipe *pipe;
	struct flight flight[FLIGHTS], *free, *again, **again_last;
	bool asleep, armed, stopping;
	int timer;
	pthread_t sender, helper[HELPERS];
};

/* ---- waking; under lock ---- */

static void wake(struct behind *b)
{
	if (!b->asleep)
		return;
	b->asleep = false;
	vclient_pipe_wake(b->pipe);
}

static void arm(struct behind *b)
{
	const struct itimerspec in = {.it_value = {.tv_nsec = WQ_AGE_US * 1000}};

	if (!b->armed)
		b->armed = timerfd_settime(b->timer, 0, &in, NULL) == 0;
}

static void tell(struct behind *b)
{
	if (b->wait_landed)
		pthread_cond_broadcast(&b->landed);
	if (b->wait_room && b->q.bytes <= b->q.limit / 4 * 3)
		pthread_cond_broadcast(&b->room);
}

/* ---- landing ---- */

static bool hopeless(int r)
{
	return r == -EIO || r == -ENOENT || r == -ESTALE;
}

static void say_failed(const struct flight *f, int r)
{
	char id[33];

	vol_id_text(&f->w.op.ino.folder, id);
	log_error("write-behind: file %s.%llu: %llu bytes at %llu are not written: %s; its next write, fsync "
		  "or "
		  "close is told",
		  id, (unsigned long long)f->w.op.ino.num, (unsigned long long)f->w.op.len,
		  (unsigned long long)f->w.op.off, strerror(-r));
}

/* The kernel's and our own picture of the file, as after any write. */
static void learn(struct mount *m, struct node *n, struct flight *f)
{
	bool keep = false;

	if (f->w.res.err == 0) {
		file_wrote(n, f->w.forks, f->w.op.pid);
		gate_in(m);
		keep = tick_same(m, &f->tick);
		keep = end_changed(m, n, &f->w.res.attr, keep && f->w.leased);
		gate_out(m);
	} else
		cache_unsure(n);
	if (!keep)
		cache_drop_behind(m, n, f->w.op.off, f->w.res.err == 0 ? f->w.op.len : 0);
}

/* A final answer; own: not of the pool. */
static void landed(struct behind *b, struct flight *f, bool own)
{
	struct behind_file *bf = (struct behind_file *)f->e->file;
	struct node *n = bf->n;
	int r = f->w.res.err;
	bool idle;

	if (hopeless(r))
		r = r == -ENOENT ? -ESTALE : r;
	learn(b->m, n, f);
	if (r < 0)
		say_failed(f, r);
	vfs_result_done(&f->w.res);
	f->w.res = (struct vfs_result){0};
	pthread_mutex_lock(&b->lock);
	if (f->held) {
		f->held = false;
		bf->q.held--;
		wake(b);
	}
	wq_land(&b->q, f->e, r);
	f->e = NULL;
	if (r < 0) {
		bf->through_until = clock_ms() + THROUGH_MS;
		if (hopeless(r))
			wq_drop(&b->q, &bf->q, r);
	}
	idle = wq_idle(&bf->q);
	atomic_store(&bf->busy, !idle);
	if (!own) {
		f->next = b->free;
		b->free = f;
	}
	tell(b);
	pthread_mutex_unlock(&b->lock);
	if (idle) {
		atomic_fetch_sub(&n->writing, 1);
		node_unpin(b->m, n);
	}
}

/* ---- sending ---- */

static void prepare(struct behind *b, struct flight *f)
{
	struct wq_extent *e = f->e;
	struct behind_file *bf = (struct behind_file *)e->file;
	struct node *n = bf->n;

	f->w.op = (struct vfs_op){
		.type = VFS_WRITE, .ino = n->ino, .uid = e->uid, .gid = e->gid, .off = e->off, .len = e->len};
	f->w.group = bf->group;
	f->w.data = e->data;
	f->w.ctx = f;
	f->tick = tick_of(b->m, &n->ino, NULL);
	pthread_mutex_lock(&n->lock);
	f->w.op.gen = n->attr.gen;
	pthread_mutex_unlock(&n->lock);
}

static void ask_again(struct behind *b, struct flight *f, bool hold)
{
	pthread_mutex_lock(&b->lock);
	f->held = hold;
	f->e->file->held += hold;
	f->next = NULL;
	*b->again_last = f;
	b->again_last = &f->next;
	pthread_cond_signal(&b->trouble);
	pthread_mutex_unlock(&b->lock);
}

static void back(struct vclient_write *w, bool again)
{
	struct flight *f = w->ctx;

	if (again)
		ask_again(f->b, f, true);
	else
		landed(f->b, f, false);
}

/* What may fly now; a list. False: it is over. */
static bool take(struct behind *b, struct flight **ret)
{
	struct flight **last = ret, *f;
	uint64_t now = clock_us();
	bool young = false;

	*ret = NULL;
	pthread_mutex_lock(&b->lock);
	while ((f = b->free)) {
		f->e = wq_take(&b->q, now, &young);
		if (!f->e)
			break;
		b->free = f->next;
		f->next = NULL;
		*last = f;
		last = &f->next;
	}
	if (young)
		arm(b);
	b->asleep = true;
	pthread_mutex_unlock(&b->lock);
	return *ret || !b->stopping;
}

static void *sender(void *arg)
{
	struct behind *b = arg;
	bool striped = vclient_map(b->m->c)->stripe > 1;
	struct flight *f, *next;
	uint64_t ticks;

	while (take(b, &f)) {
		for (; f; f = next) {
			next = f->next;
			prepare(b, f);
			if (striped || !vclient_pipe_send(b->pipe, &f->w))
				ask_again(b, f, !striped);
		}
		vclient_pipe_run(b->pipe, b->timer, -1);
		pthread_mutex_lock(&b->lock);
		b->asleep = false;
		if (b->armed && read(b->timer, &ticks, sizeof(ticks)) > 0)
			b->armed = false;
		pthread_mutex_unlock(&b->lock);
	}
	return NULL;
}

static void *helper(void *arg)
{
	struct behind *b = arg;

	pthread_mutex_lock(&b->lock);
	for (;;) {
		struct flight *f;

		while (!b->again && !b->stopping)
			pthread_cond_wait(&b->trouble, &b->lock);
		f = b->again;
		if (!f)
			break;
		b->again = f->next;
		if (!b->again)
			b->again_last = &b->again;
		pthread_mutex_unlock(&b->lock);
		f->w.res.err = vclient_write_again(slot_of(b->m), &f->w);
		landed(b, f, false);
		pthread_mutex_lock(&b->lock);
		wake(b); /* a flight is free */
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* ---- taking ---- */

/* The file's part of the queue, made at first use. Under lock. */
static struct behind_file *file_of(struct behind *b, struct node *n)
{
	struct behind_file *bf = atomic_load(&n->behind);

	if (bf)
		return bf;
	bf = calloc(1, sizeof(*bf));
	if (!bf)
		return NULL;
	wq_file_init(&bf->q);
	bf->n = n;
	bf->group = vol_owner(vclient_map(b->m->c), &n->ino.folder);
	atomic_store(&n->behind, bf);
	return bf;
}

void behind_file_free(struct node *n)
{
	struct behind_file *bf = atomic_load(&n->behind);

	if (!bf)
		return;
	ensure(wq_idle(&bf->q)); /* else the node would be pinned */
	atomic_store(&n->behind, NULL);
	free(bf);
}

static struct wq_open *open_of(const struct fuse_file_info *fi)
{
	return fi ? (struct wq_open *)(uintptr_t)fi->fh : NULL;
}

static bool may(struct node *n, const struct fuse_file_info *fi)
{
	bool yes;

	if (!open_of(fi) || fi->writepage || fi->flags & (O_APPEND | O_DIRECT | O_SYNC | O_DSYNC))
		return false;
	pthread_mutex_lock(&n->lock);
	yes = n->leased && n->contended_until <= clock_ms();
	pthread_mutex_unlock(&n->lock);
	return yes;
}

/* Under lock. */
static int put(struct behind *b, struct behind_file *bf, const struct vfs_op *op, uint64_t off,
	       const char *data, uint32_t len, struct wq_extent *ready)
{
	while (!wq_room(&b->q, &bf->q, len)) {
		wake(b);
		b->wait_room++;
		pthread_cond_wait(&b->room, &b->lock);
		b->wait_room--;
	}
	if (!ready) {
		if (wq_merge(&b->q, &bf->q, op->uid, op->gid, off, data, len))
			goto put;
		ready = wq_extent_new(op->uid, op->gid, off, data, len);
		if (!ready)
			return -ENOMEM;
	}
	if (wq_idle(&bf->q)) {
		ensure(node_pin(b->m, bf->n->index));
		atomic_fetch_add(&bf->n->writing, 1);
		atomic_store(&bf->busy, true);
	}
	wq_push(&b->q, &bf->q, ready, clock_us());
put:
	if (wq_ripe(&bf->q))
		wake(b);
	else if (b->asleep)
		arm(b);
	return 0;
}

int behind_write(struct mount *m, struct node *n, const struct vfs_op *op, const struct fuse_file_info *fi,
		 const char *data)
{
	struct behind *b = m->behind;
	struct behind_file *bf;
	int r = 0;

	if (!b)
		return -ENOTSUP;
	if (!may(n, fi)) {
		behind_drain(m, n);
		return -ENOTSUP;
	}
	for (uint64_t done = 0, left; r == 0 && (left = op->len - done) > 0;) {
		uint64_t off = op->off + done;
		uint32_t len = (uint32_t)MIN(left, WQ_EXTENT_MAX - off % WQ_EXTENT_MAX);
		struct wq_extent *e =
			len > COPY_FIRST ? wq_extent_new(op->uid, op->gid, off, data + done, len) : NULL;

		pthread_mutex_lock(&b->lock);
		bf = file_of(b, n);
		if (!bf)
			r = -ENOMEM;
		else if (done == 0 && (r = wq_error_write(&bf->q, open_of(fi))) == 0 &&
			 clock_ms() < bf->through_until)
			r = -ENOTSUP;
		if (r == 0)
			r = put(b, bf, op, off, data + done, len, e);
		else
			wq_extent_free(e);
		pthread_mutex_unlock(&b->lock);
		done += len;
	}
	if (r == -ENOTSUP)
		behind_drain(m, n);
	return r;
}

/* ---- draining ---- */

bool behind_busy(struct node *n)
{
	struct behind_file *bf = atomic_load(&n->behind);

	return bf && atomic_load(&bf->busy);
}

/* The caller's own thread sends the only extent. Under lock, which is given up meanwhile. */
static void send_here(struct behind *b, struct wq_extent *e)
{
	struct flight f = {.e = e};

	pthread_mutex_unlock(&b->lock);
	prepare(b, &f);
	f.w.res.err = vclient_write_again(slot_of(b->m), &f.w);
	landed(b, &f, true);
	vclient_write_done(&f.w);
	pthread_mutex_lock(&b->lock);
}

void behind_drain(struct mount *m, struct node *n)
{
	struct behind *b = m->behind;
	struct behind_file *bf = b ? atomic_load(&n->behind) : NULL;
	struct wq_extent *e;
	uint64_t mark;

	if (!bf || !atomic_load(&bf->busy))
		return;
	pthread_mutex_lock(&b->lock);
	if (!wq_idle(&bf->q)) {
		mark = wq_mark(&b->q, &bf->q);
		e = wq_take_only(&bf->q);
		if (e)
			send_here(b, e);
		while (!wq_settled(&bf->q, mark)) {
			wake(b);
			b->wait_landed++;
			pthread_cond_wait(&b->landed, &b->lock);
			b->wait_landed--;
		}
	}
	pthread_mutex_unlock(&b->lock);
}

static bool all_settled(const struct wq *q, uint64_t mark)
{
	const struct wq_file *f = q->busy;

	for (uint32_t i = 0; i < q->n_busy; i++, f = f->next)
		if (!wq_settled(f, mark))
			return false;
	return true;
}

static uint64_t mark_all(struct behind *b)
{
	struct wq_file *f = b->q.busy;

	for (uint32_t i = 0; i < b->q.n_busy; i++, f = f->next)
		(void)wq_mark(&b->q, f);
	wake(b);
	return b->q.serial;
}

void behind_drain_all(struct mount *m)
{
	struct behind *b = m->behind;
	uint64_t mark;

	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	mark = mark_all(b);
	while (!all_settled(&b->q, mark)) {
		b->wait_landed++;
		pthread_cond_wait(&b->landed, &b->lock);
		b->wait_landed--;
	}
	pthread_mutex_unlock(&b->lock);
}

/* ---- open files ---- */

void behind_opened(struct mount *m, struct node *n, struct fuse_file_info *fi)
{
	struct behind *b = m->behind;
	struct wq_open *o = malloc(sizeof(*o));
	struct behind_file *bf;

	/* Without a queue, too: it tells open files from one another (lock.c). */
	fi->fh = (uint64_t)(uintptr_t)o; /* no memory: its writes go through, and it takes no locks */
	if (!o || !b)
		return;
	pthread_mutex_lock(&b->lock);
	bf = atomic_load(&n->behind);
	wq_opened(bf ? &bf->q : NULL, o);
	pthread_mutex_unlock(&b->lock);
}

void behind_closed(struct fuse_file_info *fi)
{
	free(open_of(fi));
	fi->fh = 0;
}

int behind_error(struct mount *m, struct node *n, const struct fuse_file_info *fi)
{
	struct behind *b = m->behind;
	struct behind_file *bf = b ? atomic_load(&n->behind) : NULL;
	int r;

	if (!bf || !open_of(fi))
		return 0;
	pthread_mutex_lock(&b->lock);
	r = wq_error_sync(&bf->q, open_of(fi));
	pthread_mutex_unlock(&b->lock);
	return r;
}

/* ---- life ---- */

int behind_start(struct mount *m)
{
	struct behind *b;
	pthread_condattr_t a;

	if (m->s.behind_kb == 0)
		return 0;
	b = xcalloc(1, sizeof(*b));
	b->m = m;
	b->q.limit = (uint64_t)m->s.behind_kb << 10;
	b->again_last = &b->again;
	pthread_mutex_init(&b->lock, NULL);
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&b->landed, &a);
	pthread_condattr_destroy(&a);
	pthread_cond_init(&b->room, NULL);
	pthread_cond_init(&b->trouble, NULL);
	b->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	b->pipe = vclient_pipe_new(m->c, back);
	if (b->timer < 0 || !b->pipe)
		return -ENOMEM;
	for (int i = 0; i < FLIGHTS; i++) {
		vclient_write_init(m->c, &b->flight[i].w);
		b->flight[i].b = b;
		b->flight[i].next = b->free;
		b->free = &b->flight[i];
	}
	if (pthread_create(&b->sender, NULL, sender, b) != 0)
		ensure(!"a thread at the start");
	for (int i = 0; i < HELPERS; i++)
		if (pthread_create(&b->helper[i], NULL, helper, b) != 0)
			ensure(!"a thread at the start");
	m->behind = b;
	return 0;
}

bool behind_flush(struct mount *m)
{
	struct behind *b = m->behind;
	struct timespec until;
	bool all;

	if (!b)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(m->s.timeout_ms / 1000 + 1);
	pthread_mutex_lock(&b->lock);
	(void)mark_all(b);
	b->wait_landed++;
	while (b->q.n_busy > 0 && pthread_cond_timedwait(&b->landed, &b->lock, &until) == 0)
		;
	b->wait_landed--;
	all = b->q.n_busy == 0;
	if (!all)
		log_error("write-behind: %llu bytes of %u files are lost: no answer in time",
			  (unsigned long long)b->q.bytes, b->q.n_busy);
	pthread_mutex_unlock(&b->lock);
	return all;
}

void behind_stop(struct mount *m)
{
	struct behind *b = m->behind;

	if (!b)
		return;
	if (!behind_flush(m))
		_exit(1); /* its threads still wait for answers */
	pthread_mutex_lock(&b->lock);
	b->stopping = true;
	pthread_cond_broadcast(&b->trouble);
	b->asleep = false;
	vclient_pipe_wake(b->pipe);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->sender, NULL);
	for (int i = 0; i < HELPERS; i++)
		pthread_join(b->helper[i], NULL);
	b->pipe = vclient_pipe_free(b->pipe);
	for (int i = 0; i < FLIGHTS; i++)
		vclient_write_done(&b->flight[i].w);
	close(b->timer);
	m->behind = NULL;
	free(b);
}
