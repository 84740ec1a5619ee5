/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel keeps, and dropping it: see internal.h.
 *
 * A drop of pages waits for pages that are locked by reads and writes in flight, a drop of an entry for the folder's lock; both are done by two
 * dropper threads, and who asked for one waits a bounded time only:
 *   - an entry that does not go in time: FUSE_NOTIFY_INC_EPOCH makes every dentry be looked up anew, without any lock;
 *   - pages of a file that this mount is writing: the push is answered after BUSY_WAIT_MS, the pages go when the write is through (the other
 *     writer waits for our answer, our write may wait for the other's). Until then the file counts as contended.
 * An inode that the kernel does not have yet although it was given out (its lookup's answer is on the way) is tried again for some milliseconds. */
#include "volume/mount/internal.h"

#include <sys/uio.h>

#define NOTIFY_INC_EPOCH 8 /* Linux 6.16; not in older headers */
#define MISSING_TRIES	 8 /* 0.1, 0.2 ... 13 ms; less when the kernel forgets it */

/* ---- counters and gate ---- */

static _Atomic uint64_t *counter(struct mount *m, const struct vol_ino *ino)
{
	return &m->tick[ino_hash(ino) % TICKS];
}

struct tick tick_of(struct mount *m, const struct vol_ino *a, const struct vol_ino *b)
{
	return (struct tick){
		.ia = a, .ib = b, .a = atomic_load(counter(m, a)), .b = b ? atomic_load(counter(m, b)) : 0};
}

bool tick_same(struct mount *m, const struct tick *t)
{
	return atomic_load(counter(m, t->ia)) == t->a && (!t->ib || atomic_load(counter(m, t->ib)) == t->b);
}

void gate_in(struct mount *m)
{
	pthread_rwlock_rdlock(&m->gate);
}

void gate_out(struct mount *m)
{
	pthread_rwlock_unlock(&m->gate);
}

/* Every reply that did not see the counters of a push has been given to the kernel when this returns. */
static void gate_pass(struct mount *m)
{
	pthread_rwlock_wrlock(&m->gate);
	pthread_rwlock_unlock(&m->gate);
}

/* Answers about it that are on their way are older. */
static void note(struct mount *m, const struct vol_ino *ino)
{
	atomic_fetch_add(counter(m, ino), 1);
	atomic_fetch_add(&m->pushes, 1);
}

void cache_noted(void *ctx, const struct proto_push *p)
{
	note(ctx, &p->ino);
}

/* ---- telling the kernel ---- */

void cache_inc_epoch(struct mount *m)
{
	struct kernel_head h = {.len = sizeof(h), .error = NOTIFY_INC_EPOCH};

	if (!atomic_load(&m->epoch_works))
		return; /* then no entry is kept in the kernel at all */
	if (write(fuse_session_fd(m->se), &h, sizeof(h)) < 0 && errno == EINVAL) {
		atomic_store(&m->epoch_works, false);
		log_info("this kernel has no FUSE_NOTIFY_INC_EPOCH (Linux 6.16): names are looked up each "
			 "time");
	}
}

static void drop_unref(struct drop *d)
{
	if (--d->refs == 0)
		free(d);
}

/* Of pages: behind `doubted`; no fill is in flight, and none begins. */
static void drop_now(struct mount *m, struct node *n, struct drop *d)
{
	struct timespec pause = {0, 100000};
	int r = 0;

	for (int i = 0; i < MISSING_TRIES && d->off >= 0; i++) {
		r = d->entry ? fuse_lowlevel_notify_inval_entry(m->se, d->id, d->name, strlen(d->name))
			     : fuse_lowlevel_notify_inval_inode(m->se, d->id, d->off, d->len);
		if (d->entry || r != -ENOENT || n->lookups == 0)
			break;
		nanosleep(&pause, NULL);
		pause.tv_nsec *= 2;
	}
	if (!d->entry) {
		end_drop_ends(n, d);
		if (d->size > 0)
			end_raise(m, n, d->size);
		atomic_fetch_sub(&n->doubt, 1);
	}
}

static void *dropper(void *arg)
{
	struct mount *m = arg;
	struct node *n;
	struct drop *d;

	pthread_mutex_lock(&m->drop_lock);
	for (;;) {
		while (!m->drop_first && !atomic_load(&m->stopping))
			pthread_cond_wait(&m->drop_changed, &m->drop_lock);
		d = m->drop_first;
		if (!d)
			break;
		m->drop_first = d->next;
		if (!m->drop_first)
			m->drop_last = &m->drop_first;
		pthread_mutex_unlock(&m->drop_lock);
		n = node_of(m, d->id);
		if (!d->entry)
			fill_wait(m, n);
		drop_now(m, n, d);
		node_unpin(m, n);
		pthread_mutex_lock(&m->drop_lock);
		d->done = true;
		drop_unref(d);
		pthread_cond_broadcast(&m->drop_changed);
	}
	pthread_mutex_unlock(&m->drop_lock);
	return NULL;
}

/* Pages are to go: no fill begins until drop_now has ended. Returns how many are in flight. Under the lock, as a fill looks at the doubt and is counted under
 * it (fill.c): else one that has looked is counted behind our own look, and neither knows of the other. */
static uint32_t doubted(struct node *n)
{
	uint32_t filling;

	pthread_mutex_lock(&n->lock);
	atomic_fetch_add(&n->doubt, 1);
	filling = atomic_load(&n->filling);
	pthread_mutex_unlock(&n->lock);
	return filling;
}

/* Queues a drop; the node is pinned until it is done. NULL: no memory, or it cannot be waited for. */
static struct drop *drop_queue(struct mount *m, struct node *n, const char *name, uint64_t off, uint64_t len,
			       uint64_t size)
{
	struct drop *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	if (!node_pin(m, n->index)) {
		free(d);
		return NULL;
	}
	*d = (struct drop){.refs = 2,
			   .id = node_id(n),
			   .entry = name,
			   .off = (int64_t)off,
			   .len = (int64_t)len,
			   .size = size};
	if (name)
		snprintf(d->name, sizeof(d->name), "%s", name);
	else {
		(void)doubted(n); /* the dropper waits for fills */
		end_drop_begins(n, d);
	}
	pthread_mutex_lock(&m->drop_lock);
	*m->drop_last = d;
	m->drop_last = &d->next;
	pthread_cond_broadcast(&m->drop_changed);
	pthread_mutex_unlock(&m->drop_lock);
	return d;
}

/* True when it is done within so long, and BUSY_WAIT_MS while this mount changes something there. Gives the drop back. */
static bool drop_wait(struct mount *m, struct node *n, struct drop *d, uint64_t ms)
{
	uint64_t start = clock_ms(), waited = 0;
	bool done;

	if (!d)
		return false;
	pthread_mutex_lock(&m->drop_lock);
	while (!d->done && waited < ms) {
		struct timespec t;

		if (waited >= BUSY_WAIT_MS && (d->entry || atomic_load(&n->writing) > 0))
			break;
		t = clock_after(5);
		(void)pthread_cond_clockwait(&m->drop_changed, &m->drop_lock, CLOCK_MONOTONIC, &t);
		waited = clock_ms() - start;
	}
	done = d->done;
	drop_unref(d);
	pthread_mutex_unlock(&m->drop_lock);
	return done;
}

void cache_drop_behind(struct mount *m, struct node *n, uint64_t off, uint64_t len)
{
	struct drop *d = drop_queue(m, n, NULL, off, len, 0);

	if (!d)
		return;
	pthread_mutex_lock(&m->drop_lock);
	drop_unref(d);
	pthread_mutex_unlock(&m->drop_lock);
}

void cache_grow(struct mount *m, struct node *n, uint64_t off, uint64_t size, uint64_t wait_ms)
{
	struct drop d = {.id = node_id(n), .off = (int64_t)off, .size = size};

	if (wait_ms == 0) {
		if (doubted(n) == 0) {
			end_drop_begins(n, &d);
			drop_now(m, n, &d);
			return;
		}
		atomic_fetch_sub(&n->doubt, 1);
	}
	(void)drop_wait(m, n, drop_queue(m, n, NULL, off, 0, size), MAX(wait_ms, (uint64_t)BUSY_WAIT_MS));
}

void cache_drop(struct mount *m, struct node *n, uint64_t off, uint64_t len, uint64_t wait_ms)
{
	(void)drop_wait(m, n, drop_queue(m, n, NULL, off, len, 0), wait_ms);
}

/* ---- pushes ---- */

static void inode_changed(struct mount *m, struct node *n)
{
	bool folder = n->ino.num == 0;
	struct drop *d;

	pthread_mutex_lock(&n->lock);
	n->leased = n->attr_known = n->no_xattrs = false;
	if (folder)
		folder_unsure(m, n);
	else if (atomic_load(&n->writing) > 0)
		n->contended_until = clock_ms() + CONTENDED_MS;
	pthread_mutex_unlock(&n->lock);
	(void)fuse_lowlevel_notify_inval_inode(m->se, node_id(n), -1, 0); /* attributes: takes no lock */
	if (folder) {
		cache_inc_epoch(m);
		return;
	}
	d = drop_queue(m, n, NULL, 0, 0, 0);
	if (!drop_wait(m, n, d, DROP_WAIT_MS)) {
		pthread_mutex_lock(&n->lock);
		n->contended_until = clock_ms() + CONTENDED_MS;
		pthread_mutex_unlock(&n->lock);
	}
}

void cache_folder_changed(struct mount *m, struct node *n)
{
	atomic_fetch_add(counter(m, &n->ino), 1); /* answers on their way are older */
	gate_pass(m);
	inode_changed(m, n);
}

void cache_retired(struct mount *m, struct node *n)
{
	gate_pass(m);
	inode_changed(m, n);
}

void cache_keep(struct node *n)
{
	n->leased = n->leased || !atomic_load(&n->retired);
}

static void entry_changed(struct mount *m, struct node *n, const char *name)
{
	bool all = !name[0];

	pthread_mutex_lock(&n->lock);
	n->attr_known = false;
	if (all) {
		n->leased = false;
		folder_unsure(m, n);
	} else
		folder_changed(m, n, name, true, true);
	pthread_mutex_unlock(&n->lock);
	(void)fuse_lowlevel_notify_inval_inode(m->se, node_id(n), -1, 0);
	if (!atomic_load(&m->epoch_works))
		return;
	if (all || atomic_load(&n->naming) > 0 ||
	    !drop_wait(m, n, drop_queue(m, n, name, 0, 0, 0), DROP_WAIT_MS))
		cache_inc_epoch(m);
}

void cache_invalidate(void *ctx, const struct proto_push *p)
{
	struct mount *m = ctx;
	struct node *n;

	if (p->type == PUSH_UNLOCKED) {
		lock_wake(m);
		return;
	}
	if (p->type == PUSH_RECALL) {
		deleg_recall(m, &p->ino.folder);
		return;
	}
	gate_pass(m);
	n = node_find(m, &p->ino);
	if (!n)
		return;
	if (p->type == PUSH_INODE)
		inode_changed(m, n);
	else if (p->type == PUSH_ENTRY)
		entry_changed(m, n, p->name);
	node_unpin(m, n);
}

/* Everything of a group. Attributes and names first, at once; then the pages, by the droppers. */
void cache_reset(void *ctx, uint32_t group)
{
	struct mount *m = ctx;
	const struct vol_map *map = vclient_map(m->c);
	struct drop *last = NULL;
	struct node *last_node = NULL;
	bool any = false;

	deleg_reset(m, group);
	for (uint32_t i = 0; i < TICKS; i++) /* answers on their way are of before */
		atomic_fetch_add(&m->tick[i], 1);
	atomic_fetch_add(&m->pushes, 1);
	gate_pass(m);
	head_forget_all(m);
	for (uint32_t i = 0; i < m->nodes.used; i++) {
		struct node *n = node_pin(m, i);
		bool had;

		if (!n)
			continue;
		pthread_mutex_lock(&n->lock);
		had = (n->leased || n->attr_known) && vol_owner(map, &n->ino.folder) == group;
		if (had) {
			n->leased = n->attr_known = n->no_xattrs = false;
			if (n->ino.num == 0)
				folder_unsure(m, n);
		}
		pthread_mutex_unlock(&n->lock);
		if (had) {
			any = true;
			(void)fuse_lowlevel_notify_inval_inode(m->se, node_id(n), -1, 0);
		}
		if (had && n->ino.num != 0) {
			struct drop *d = drop_queue(m, n, NULL, 0, 0, 0);

			if (last) {
				pthread_mutex_lock(&m->drop_lock);
				drop_unref(last);
				pthread_mutex_unlock(&m->drop_lock);
			}
			last = d;
			last_node = n;
		}
		node_unpin(m, n);
	}
	if (any)
		cache_inc_epoch(m);
	if (last)
		(void)drop_wait(m, last_node, last, DROP_WAIT_MS);
	lock_wake(m); /* a new primary does not know who waits for a lock */
}

bool cache_is_open(void *ctx, const struct vol_ino *ino)
{
	struct mount *m = ctx;
	struct node *n = node_find(m, ino);
	bool open = n && atomic_load(&n->opens) > 0;

	if (n)
		node_unpin(m, n);
	return open;
}

/* ---- what answers say ---- */

bool cache_learn(struct mount *m, struct node *n, const struct vfs_attr *a, bool keep, struct vfs_attr *ret)
{
	bool may;

	pthread_mutex_lock(&n->lock);
	if (a && a->mode &&
	    (n->attr.mode == 0 || a->version > n->attr.version ||
	     (a->version == n->attr.version && !n->attr_known))) {
		n->attr_known = keep;
		n->attr = *a;
	} /* else: an answer that was overtaken by one of our own changes, or what is known already and may have been changed here since (delegate.c) */
	if (keep)
		cache_keep(n);
	may = n->leased && n->attr_known;
	if (ret)
		*ret = n->attr;
	pthread_mutex_unlock(&n->lock);
	return may;
}

void cache_older(struct mount *m, struct node *n)
{
	note(m, &n->ino);
	cache_unsure(n);
}

void cache_unsure(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	n->attr_known = false;
	pthread_mutex_unlock(&n->lock);
}

/* ---- life ---- */

int cache_start(struct mount *m)
{
	pthread_rwlockattr_t a;

	pthread_rwlockattr_init(&a);
	pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&m->gate, &a);
	pthread_rwlockattr_destroy(&a);
	pthread_mutex_init(&m->drop_lock, NULL);
	pthread_cond_init(&m->drop_changed, NULL);
	m->drop_last = &m->drop_first;
	end_start(m);
	random_bytes(m->name_key, sizeof(m->name_key));
	for (size_t i = 0; i < ARRAY_SIZE(m->dropper); i++)
		if (pthread_create(&m->dropper[i], NULL, dropper, m) != 0)
			return -EAGAIN;
	return 0;
}

void cache_stop(struct mount *m)
{
	pthread_mutex_lock(&m->drop_lock);
	pthread_cond_broadcast(&m->drop_changed);
	pthread_mutex_unlock(&m->drop_lock);
	for (size_t i = 0; i < ARRAY_SIZE(m->dropper); i++)
		pthread_join(m->dropper[i], NULL);
}
