/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that has answered a small read asks for the block around it (around.h), when it is worth it, and puts what comes into the kernel's cache
 * (FUSE_NOTIFY_STORE). The reader does not wait for it.
 *
 * Right as long as nothing has changed the file since it was read, and that must hold until the last page is there: the kernel copies over whatever its
 * cache has, without asking. So:
 *   - A fill begins inside the gate, with the decision that what was read may be kept (internal.h). A push that comes later waits with its drop of the
 *     pages until the fill has ended, then all pages go; it is answered behind that.
 *   - No fill begins while the file is open for writing here, or its size is being changed; to open it so, or to change its size, waits for fills to end.
 *   - Nor while pages of it are dropped: the drop either is seen by the fill (doubt) or sees it (filling), as both look and count under the node's lock.
 *   - Nor when this mount has changed it while the brick was asked: its version is the one that was known before the question.
 *
 * A fill waits for pages that other reads hold locked, and those for a FUSE thread that serves them. So nobody who is needed for that waits for a fill: a
 * few threads fill at a time (AROUND_ASKED), fills are outside the gate, and a request that has to wait is put aside and gone on with by the thread
 * whose fill has ended. */
#include <fcntl.h>

#include "volume/mount/internal.h"

struct block {
	uint64_t off, version; /* of the inode, when it was chosen */
	uint32_t len;
};

int fill_start(struct mount *m)
{
	uint64_t memory = (uint64_t)MAX(sysconf(_SC_PHYS_PAGES), 0) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint32_t block = (uint32_t)m->s.around_kb << 10;

	pthread_mutex_init(&m->fill_lock, NULL);
	pthread_cond_init(&m->fill_ended, NULL);
	/* without leases nothing is kept; with so few threads none would serve what fills wait for */
	if (block == 0 || !m->s.leases || m->s.threads <= AROUND_ASKED)
		return 0;
	m->around = around_new(block, memory / FILL_SHARE);
	return m->around ? 0 : -ENOMEM;
}

void fill_stop(struct mount *m)
{
	m->around = around_free(m->around);
	pthread_cond_destroy(&m->fill_ended);
	pthread_mutex_destroy(&m->fill_lock);
}

bool fill_may(const struct mount *m, size_t len)
{
	return m->around && len < (size_t)m->s.around_kb << 10;
}

void fill_took(struct mount *m, bool whole, uint64_t us)
{
	pthread_mutex_lock(&m->fill_lock);
	around_took(m->around, whole, us);
	pthread_mutex_unlock(&m->fill_lock);
}

/* Node locked. */
static bool allowed(const struct node *n)
{
	return n->leased && n->writers == 0 && atomic_load(&n->writing) == 0 && atomic_load(&n->doubt) == 0;
}

static bool choose(struct mount *m, struct node *n, uint64_t off, uint32_t len, struct block *ret)
{
	uint64_t size;
	bool may;

	pthread_mutex_lock(&n->lock);
	may = allowed(n) && n->attr_known && n->contended_until <= clock_ms();
	size = n->attr.size;
	ret->version = n->attr.version;
	pthread_mutex_unlock(&n->lock);
	if (!may)
		return false;
	pthread_mutex_lock(&m->fill_lock);
	may = around_ask(m->around, ino_hash(&n->ino), ret->version, size, off, len, clock_ms(), &ret->off,
			 &ret->len);
	pthread_mutex_unlock(&m->fill_lock);
	return may;
}

/* Bytes of the block that came and may be kept: a fill has begun. 0: none. */
static uint64_t ask_and_begin(struct mount *m, struct node *n, const struct block *b, uint8_t *room)
{
	struct tick t = tick_of(m, &n->ino, NULL);
	uint64_t start = clock_us();
	bool leased, keep;
	int64_t got = file_ask(m, n, b->off, room, b->len, &leased);

	if (got < VOL_BLOCK)
		return 0;
	fill_took(m, true, clock_us() - start);
	gate_in(m);
	keep = tick_same(m, &t);
	pthread_mutex_lock(&n->lock);
	if (keep && leased)
		cache_keep(n);
	keep = keep && allowed(n) && n->attr_known && n->attr.version == b->version &&
	       end_known(n, &n->attr); /* the kernel takes the end of the bytes for the file's */
	if (keep)
		atomic_fetch_add(&n->filling, 1);
	pthread_mutex_unlock(&n->lock);
	gate_out(m);
	return keep ? (uint64_t)got / VOL_BLOCK * VOL_BLOCK : 0;
}

static void store(struct mount *m, struct node *n, uint64_t off, const uint8_t *data, size_t len)
{
	struct fuse_bufvec v = FUSE_BUFVEC_INIT(len);

	if (len == 0)
		return;
	v.buf[0].mem = (void *)data;
	(void)fuse_lowlevel_notify_store(m->se, node_id(n), (off_t)off, &v,
					 0); /* gone, or no memory: as well */
}

static void end(struct mount *m, struct node *n)
{
	struct put_aside *p = NULL, *next;

	pthread_mutex_lock(&n->lock);
	if (atomic_fetch_sub(&n->filling, 1) == 1)
		p = take_ptr(n->aside);
	pthread_mutex_unlock(&n->lock);
	pthread_mutex_lock(&m->fill_lock);
	pthread_cond_broadcast(&m->fill_ended);
	pthread_mutex_unlock(&m->fill_lock);
	for (; p; p = next) {
		next = p->next;
		p->go_on(p);
		free(p);
	}
}

void fill_around(struct mount *m, struct node *n, uint64_t off, uint32_t len, uint8_t *room)
{
	struct block b;
	uint64_t got, from, to;

	if (!choose(m, n, off, len, &b))
		return;
	got = ask_and_begin(m, n, &b, room);
	from = MIN(off - b.off, got);
	to = off + len - b.off;
	if (got > 0) { /* but for what the reader has */
		store(m, n, b.off, room, from);
		store(m, n, b.off + to, room + to, got > to ? got - to : 0);
		end(m, n);
	}
	pthread_mutex_lock(&m->fill_lock);
	around_done(m->around, ino_hash(&n->ino), b.version, b.off, got > 0);
	pthread_mutex_unlock(&m->fill_lock);
}

void fill_wait(struct mount *m, struct node *n)
{
	pthread_mutex_lock(&m->fill_lock);
	while (atomic_load(&n->filling) > 0)
		pthread_cond_wait(&m->fill_ended, &m->fill_lock);
	pthread_mutex_unlock(&m->fill_lock);
}

bool fill_bar(struct mount *m, struct node *n, const struct put_aside *p)
{
	struct put_aside *aside = NULL;
	bool wait;

	pthread_mutex_lock(&n->lock);
	n->writers++;
	wait = atomic_load(&n->filling) > 0;
	if (wait && p && (aside = malloc(sizeof(*aside)))) {
		*aside = *p;
		aside->next = n->aside;
		n->aside = aside;
	}
	pthread_mutex_unlock(&n->lock);
	if (wait && !aside)
		fill_wait(m, n);
	return aside;
}

void fill_unbar(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	ensure(n->writers > 0);
	n->writers--;
	pthread_mutex_unlock(&n->lock);
}
