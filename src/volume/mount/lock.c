/* SPDX-License-Identifier: Apache-2.0 */
/* Locks of files: fcntl(2) and flock(2), held by the owner's group, so they hold against programs on every mount. Who must wait does not
 * occupy a FUSE thread (the one who unlocks needs one): the request is kept and tried again when a brick says that something was unlocked, and at
 * least every RETRY_MS. An interrupted wait (a signal) ends with EINTR. At most WAITERS_MAX wait; beyond, ENOLCK.
 *
 * Who gives them up: a process's fcntl locks end with its first close of the file, which comes as FLUSH with the owner. A flock lock and an open file
 * description's lock (F_OFD_SETLK) end with the last close, RELEASE; but for the latter the kernel says neither that there was one nor its owner.
 * So each inode has a list of (open file, owner) that asked for fcntl locks; FLUSH takes the owner off it, and what is left of an open file at its
 * RELEASE are its OFD locks. */
#include <fcntl.h>
#include <sys/file.h>

#include "volume/mount/internal.h"

#define RETRY_MS    250
#define LOOK_MS	    20 /* for interrupts */
#define WAITERS_MAX 4096

struct held {
	struct held *next;
	uint64_t fh, owner;
};

struct waiter {
	struct waiter *next;
	fuse_req_t req;
	struct node *n; /* pinned */
	uint64_t fh;
	struct vfs_lock lock;
};

/* Before the question: without an answer it may be held, too. A list is as long as the file has open descriptions that lock it. */
static int remember(struct node *n, uint64_t fh, uint64_t owner)
{
	struct held *h;
	int r = 0;

	pthread_mutex_lock(&n->lock);
	for (h = n->held; h && (h->fh != fh || h->owner != owner); h = h->next)
		;
	if (!h) {
		h = fh ? malloc(sizeof(*h)) : NULL;
		if (h) {
			*h = (struct held){.next = n->held, .fh = fh, .owner = owner};
			n->held = h;
		} else
			r = -ENOLCK;
	}
	pthread_mutex_unlock(&n->lock);
	return r;
}

/* Takes entries off the list: with fh those of this open file (0: of any), with `one` only of this owner. NULL: none; the caller frees them. */
static struct held *take_held(struct node *n, uint64_t fh, const uint64_t *one)
{
	struct held **p = &n->held, *h, *taken = NULL;

	pthread_mutex_lock(&n->lock);
	while ((h = *p)) {
		if ((fh && h->fh != fh) || (one && h->owner != *one)) {
			p = &h->next;
			continue;
		}
		*p = h->next;
		h->next = taken;
		taken = h;
	}
	pthread_mutex_unlock(&n->lock);
	return taken;
}

static void held_free(struct held *h)
{
	while (h) {
		struct held *next = h->next;

		free(h);
		h = next;
	}
}

void lock_forget(struct node *n)
{
	held_free(n->held);
	n->held = NULL;
}

static int ask(struct mount *m, struct node *n, uint64_t fh, const struct vfs_lock *l)
{
	struct vfs_op op = {.type = VFS_LOCK, .ino = n->ino, .lock = *l, .pid = l->pid};
	struct vfs_result res = {0};
	bool told; /* asking for a lease, we are told when it is unlocked */
	int r = 0;

	if (!l->flock && l->type != F_UNLCK)
		r = remember(n, fh, l->owner);
	if (r == 0)
		r = ask_brick(m, &op, &res, &told);
	vfs_result_done(&res);
	if (r == 0 && !l->flock && l->type == F_UNLCK && l->start == 0 && l->end >= INT64_MAX)
		held_free(take_held(n, fh, &l->owner));
	return r;
}

static int release_owner(struct mount *m, struct node *n, uint64_t owner, bool flock)
{
	struct vfs_op op = {.type = VFS_UNLOCK_ALL,
			    .ino = n->ino,
			    .lock = {.owner = owner, .flock = flock, .end = UINT64_MAX, .type = F_UNLCK}};
	int r = 0;

	for (int i = 0; i < VFS_LOCKS_MAX; i++) {
		struct vfs_result res = {0};
		bool more;

		r = ask_brick(m, &op, &res, NULL);
		more = res.flags & VFS_MORE;
		vfs_result_done(&res);
		if (r < 0 || !more)
			break;
	}
	return r;
}

int lock_release_flock(struct mount *m, struct node *n, uint64_t owner)
{
	return release_owner(m, n, owner, true);
}

int lock_flushed(struct mount *m, struct node *n, uint64_t owner)
{
	struct held *mine = take_held(n, 0, &owner);
	int r = mine ? release_owner(m, n, owner, false) : 0;

	held_free(mine);
	return r;
}

void lock_released(struct mount *m, struct node *n, uint64_t fh)
{
	struct held *left = fh ? take_held(n, fh, NULL) : NULL;

	for (struct held *h = left; h; h = h->next)
		(void)release_owner(m, n, h->owner, false);
	held_free(left);
}

/* ---- who waits ---- */

static void end_wait(struct mount *m, struct waiter *w, int r)
{
	fuse_reply_err(w->req, -r);
	node_unpin(m, w->n);
	free(w);
}

/* Tries all that wait; interrupted ones end. retry: ask the bricks, too. */
static void look_at_waiters(struct mount *m, bool retry)
{
	struct waiter *list, *keep = NULL, **last = &keep, *w;
	uint32_t gone = 0;

	pthread_mutex_lock(&m->wait_lock);
	list = m->waiters;
	m->waiters = NULL;
	pthread_mutex_unlock(&m->wait_lock);
	while ((w = list)) {
		int r = -EAGAIN;

		list = w->next;
		if (fuse_req_interrupted(w->req))
			r = -EINTR;
		else if (retry)
			r = ask(m, w->n, w->fh, &w->lock);
		if (r == -EAGAIN) {
			w->next = NULL;
			*last = w;
			last = &w->next;
			continue;
		}
		gone++;
		end_wait(m, w, r);
	}
	pthread_mutex_lock(&m->wait_lock);
	*last = m->waiters;
	m->waiters = keep;
	m->n_waiters -= gone;
	pthread_mutex_unlock(&m->wait_lock);
}

static void *locker(void *arg)
{
	struct mount *m = arg;
	uint64_t tried = 0;

	while (!atomic_load(&m->stopping)) {
		struct timespec t;
		bool retry;

		pthread_mutex_lock(&m->wait_lock);
		if (!m->waiters && !atomic_load(&m->stopping))
			pthread_cond_wait(&m->wait_changed, &m->wait_lock);
		else if (!m->unlocked) {
			t = clock_after(LOOK_MS);
			(void)pthread_cond_clockwait(&m->wait_changed, &m->wait_lock, CLOCK_MONOTONIC, &t);
		}
		retry = m->unlocked || clock_ms() >= tried + RETRY_MS;
		m->unlocked = false;
		pthread_mutex_unlock(&m->wait_lock);
		look_at_waiters(m, retry);
		if (retry)
			tried = clock_ms();
	}
	return NULL;
}

void lock_wake(struct mount *m)
{
	pthread_mutex_lock(&m->wait_lock);
	m->unlocked = true;
	pthread_cond_signal(&m->wait_changed);
	pthread_mutex_unlock(&m->wait_lock);
}

int lock_start(struct mount *m)
{
	pthread_mutex_init(&m->wait_lock, NULL);
	pthread_cond_init(&m->wait_changed, NULL);
	return -pthread_create(&m->locker, NULL, locker, m);
}

void lock_stop(struct mount *m)
{
	lock_wake(m);
	pthread_join(m->locker, NULL);
}

/* ---- requests ---- */

static void take(fuse_req_t req, fuse_ino_t ino, uint64_t fh, const struct vfs_lock *l, bool wait)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct waiter *w;
	int r;

	behind_drain(m, n); /* who gets the lock next sees it */
	deleg_careful(m, n);
	r = ask(m, n, fh, l);
	if (r != -EAGAIN || !wait) {
		fuse_reply_err(req, r == -EAGAIN ? EAGAIN : -r);
		return;
	}
	w = calloc(1, sizeof(*w));
	pthread_mutex_lock(&m->wait_lock);
	if (!w || m->n_waiters >= WAITERS_MAX) {
		pthread_mutex_unlock(&m->wait_lock);
		free(w);
		fuse_reply_err(req, ENOLCK);
		return;
	}
	*w = (struct waiter){
		.req = req, .n = node_pin(m, n->index), .fh = fh, .lock = *l, .next = m->waiters};
	m->waiters = w;
	m->n_waiters++;
	m->unlocked = true; /* it may have been unlocked since we asked */
	pthread_cond_signal(&m->wait_changed);
	pthread_mutex_unlock(&m->wait_lock);
}

static struct vfs_lock from_flock(const struct flock *f, const struct fuse_file_info *fi)
{
	return (struct vfs_lock){.start = (uint64_t)f->l_start,
				 .end = f->l_len == 0 ? UINT64_MAX : (uint64_t)(f->l_start + f->l_len - 1),
				 .owner = fi->lock_owner,
				 .pid = (uint32_t)f->l_pid,
				 .type = (uint8_t)f->l_type};
}

void ll_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	struct vfs_lock l = from_flock(lock, fi);

	take(req, ino, fi->fh, &l, sleep && l.type != F_UNLCK);
}

void ll_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	struct mount *m = mount_of(req);
	struct vfs_op op;
	struct vfs_result res = {0};
	int r;

	op_init(&op, VFS_GETLOCK, req, node_of(m, ino));
	op.lock = from_flock(lock, fi);
	r = ask_brick(m, &op, &res, NULL);
	if (r == 0) {
		lock->l_type = res.lock.type;
		if (lock->l_type != F_UNLCK) {
			lock->l_whence = SEEK_SET;
			lock->l_start = (off_t)res.lock.start;
			lock->l_len =
				res.lock.end >= INT64_MAX ? 0 : (off_t)(res.lock.end - res.lock.start + 1);
			lock->l_pid = (pid_t)res.lock.pid;
		}
		fuse_reply_lock(req, lock);
	} else
		fuse_reply_err(req, -r);
	vfs_result_done(&res);
}

void ll_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct vfs_lock l = {.end = UINT64_MAX,
			     .owner = fi->lock_owner,
			     .flock = true,
			     .pid = (uint32_t)fuse_req_ctx(req)->pid};

	l.type = op & LOCK_SH ? F_RDLCK : op & LOCK_EX ? F_WRLCK : F_UNLCK;
	take(req, ino, fi->fh, &l, !(op & LOCK_NB) && l.type != F_UNLCK);
}
