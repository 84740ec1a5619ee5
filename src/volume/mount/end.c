/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a file, as the kernel knows it: nobody reads zeros where another mount has appended.
 *
 * A page that the kernel fills while the file ends in it has zeros behind the end. That is right as long as the kernel believes in that end: it gives no more to
 * programs. It must not hear of a longer file while it has such a page, nor fill one afterwards from an answer that was asked for before. The
 * kernel leaves both to us (FUSE_EXPLICIT_INVAL_DATA); drops for a push come too late for this, as the answers with a new size overtake pushes.
 *
 * So of each file is kept where zeros may begin in the kernel's pages (`zeros_from`):
 *   - A read that ends before the end that is known by now is asked again. Else zeros begin at its end, at the latest.
 *   - A reply with attributes waits, outside the gate, until the pages from there on are gone (end_tell). New answers are of the new size then, and those
 *     on their way end before what is known since before the drop, or hold their pages locked until they were replied, which the drop waits for.
 *   - What this mount changed under a lease that it had before leaves the kernel with right pages, unless something else is going on there: writes that go
 *     past the page cache drop the pages themselves (file.c).
 *
 * Dropping is not enough for the reply itself: Linux passes over the size in a reply that was asked for before the drop, and zeroes the rest of a page that it has read
 * newer when a reply raises the size afterwards. So the size is raised first, by a store of one byte that cannot be read (store_nothing): a kernel that does this in another
 * order leaves the size as it was, and the reply raises it.
 *
 * The wait is bounded: a drop waits for pages that are locked by reads and writes, which need a thread. When it is over the reply goes out; what was locked is
 * asked again, by the first rule. */
#include <sys/mman.h>
#include <sys/uio.h>

#include "volume/mount/internal.h"

#define NOTIFY_STORE 4
#define GROW_WAIT_MS 100
#define TELL_TRIES   10

/* Node locked: pages with zeros from here on may be there from now on. */
static void zeros_at(struct node *n, uint64_t at)
{
	n->zeros_from = MIN(n->zeros_from, at);
	for (struct drop *d = n->end_drop; d; d = d->end_next)
		d->zeros_since = MIN(d->zeros_since, at);
}

bool end_fits(struct node *n, uint64_t off, uint32_t len, uint32_t got, bool last)
{
	uint64_t end = off + got;
	bool fits;

	if (got == len || (off | len) % VOL_BLOCK)
		return true; /* no end, or not for pages */
	pthread_mutex_lock(&n->lock);
	fits = last || end >= n->attr.size;
	if (fits) {
		zeros_at(n, end);
		n->size_told = MIN(n->size_told, end); /* the kernel may take it for the file's end */
	}
	pthread_mutex_unlock(&n->lock);
	return fits;
}

void end_drop_begins(struct node *n, struct drop *d)
{
	d->zeros_since = UINT64_MAX;
	pthread_mutex_lock(&n->lock);
	d->to_end = d->len == 0 && (uint64_t)d->off <= n->zeros_from;
	if (d->to_end) {
		d->end_next = n->end_drop;
		n->end_drop = d;
	}
	pthread_mutex_unlock(&n->lock);
}

void end_drop_ends(struct node *n, struct drop *d)
{
	struct drop **at = &n->end_drop;

	if (!d->to_end)
		return;
	pthread_mutex_lock(&n->lock);
	while (*at != d)
		at = &(*at)->end_next;
	*at = d->end_next;
	n->zeros_from = MAX(n->zeros_from, d->zeros_since);
	pthread_mutex_unlock(&n->lock);
}

bool end_changed(struct mount *m, struct node *n, const struct vfs_attr *a, bool keep)
{
	bool before;

	pthread_mutex_lock(&n->lock);
	before = n->leased;
	pthread_mutex_unlock(&n->lock);
	keep = cache_learn(m, n, a, keep, NULL) && keep;
	if (before && keep && atomic_load(&n->writing) <= 1 && atomic_load(&n->doubt) == 0) {
		pthread_mutex_lock(&n->lock);
		if (n->attr.version == a->version)
			n->zeros_from = n->size_told = n->attr.size;
		pthread_mutex_unlock(&n->lock);
	}
	return keep;
}

bool end_known(const struct node *n, const struct vfs_attr *a)
{
	return !S_ISREG(a->mode) || (a->size <= n->size_told && a->size <= n->zeros_from);
}

bool end_may_tell(struct node *n, const struct vfs_attr *a)
{
	bool may;

	pthread_mutex_lock(&n->lock);
	may = end_known(n, a);
	if (may && S_ISREG(a->mode)) { /* where it is less the kernel makes zeros */
		zeros_at(n, a->size);
		n->size_told = a->size;
	}
	pthread_mutex_unlock(&n->lock);
	return may;
}

/* FUSE_NOTIFY_STORE with a byte that cannot be read: the kernel takes its place for the end of the file, then fails to copy it. */
static void store_nothing(struct mount *m, fuse_ino_t ino, uint64_t size)
{
	struct {
		struct kernel_head h;
		uint64_t ino, off;
		uint32_t len, padding;
	} x = {.h = {.len = sizeof(x) + 1, .error = NOTIFY_STORE}, .ino = ino, .off = size - 1, .len = 1};
	struct iovec iov[2] = {{&x, sizeof(x)}, {m->nowhere, 1}};

	(void)!writev(fuse_session_fd(m->se), iov, 2);
}

void end_raise(struct mount *m, struct node *n, uint64_t size)
{
	bool may;

	pthread_mutex_lock(&n->lock);
	may = size <= n->zeros_from;
	pthread_mutex_unlock(&n->lock);
	if (!may)
		return;
	store_nothing(m, node_id(n), size);
	pthread_mutex_lock(&n->lock);
	n->size_told = MAX(n->size_told, size);
	pthread_mutex_unlock(&n->lock);
}

void end_start(struct mount *m)
{
	m->nowhere = mmap(NULL, VOL_BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ensure(m->nowhere != MAP_FAILED);
}

/* Pages that may end in zeros before the size that is known by now are dropped, and the kernel learns of it. A quarter of the threads may wait for what the
 * others do, another one for long. */
static void grow(struct mount *m, struct node *n)
{
	uint32_t waiting = atomic_fetch_add(&m->growing, 1);
	uint64_t from, to;

	pthread_mutex_lock(&n->lock);
	from = n->zeros_from;
	to = n->attr.size;
	pthread_mutex_unlock(&n->lock);
	cache_grow(m, n, from < to ? from : UINT64_MAX, to,
		   waiting < (uint64_t)m->s.threads / 4	  ? 0
		   : waiting < (uint64_t)m->s.threads / 2 ? GROW_WAIT_MS
							  : BUSY_WAIT_MS);
	atomic_fetch_sub(&m->growing, 1);
}

bool end_tell(struct mount *m, struct node *n, struct vfs_attr *ret)
{
	bool keep;

	for (int i = 0;; i++) {
		keep = cache_learn(m, n, NULL, false, ret);
		if (end_may_tell(n, ret) || i == TELL_TRIES)
			return keep;
		gate_out(m);
		grow(m, n);
		gate_in(m);
	}
}
