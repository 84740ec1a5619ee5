/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that nobody has asked for yet are put into the kernel's cache behind the reply to the read that they came with (FUSE_NOTIFY_STORE).
 *
 * Right as long as nothing has changed the file since it was read, and that must hold until the last page is there: the kernel copies over whatever its
 * cache has, without asking. So:
 *   - A fill begins inside the gate, with the decision that what was read may be kept (internal.h). A push that comes later waits with its drop of the
 *     pages until the fill has ended, then all pages go; it is answered behind that.
 *   - No fill begins while the file is open for writing here, or its size is being changed; to open it so, or to change its size, waits for fills to end.
 *
 * A fill waits for pages that other reads hold locked, and those for a FUSE thread that serves them. So nobody who is needed for that waits for a fill: at
 * most half of the threads fill at a time, fills are outside the gate, and a request that has to wait is put aside and gone on with by the thread
 * whose fill has ended. */
#include <fcntl.h>

#include "volume/mount/internal.h"

int fill_start(struct mount *m)
{
	uint64_t memory = (uint64_t)MAX(sysconf(_SC_PHYS_PAGES), 0) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint32_t block = (uint32_t)m->s.around_kb << 10;

	pthread_mutex_init(&m->fill_lock, NULL);
	pthread_cond_init(&m->fill_ended, NULL);
	/* without leases nothing is kept; one thread alone could not serve what its fill waits for */
	if (block == 0 || !m->s.leases || m->s.threads < 2)
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

bool fill_ask(struct mount *m, struct node *n, uint64_t off, uint32_t len, struct fill *ret)
{
	uint64_t size;
	bool may;

	*ret = (struct fill){.off = off, .len = len};
	if (!m->around || len >= (uint32_t)m->s.around_kb << 10)
		return false;
	pthread_mutex_lock(&n->lock);
	may = n->leased && n->attr_known && n->writers == 0 && atomic_load(&n->writing) == 0 &&
	      n->contended_until <= clock_ms();
	size = n->attr.size;
	ret->version = n->attr.version;
	pthread_mutex_unlock(&n->lock);
	if (!may)
		return false;
	pthread_mutex_lock(&m->fill_lock);
	ret->whole = around_ask(m->around, ino_hash(&n->ino), ret->version, size, off, len, clock_ms(),
				&ret->off, &ret->len);
	pthread_mutex_unlock(&m->fill_lock);
	return ret->whole;
}

void fill_not_begun(struct mount *m, struct node *n, const struct fill *f)
{
	pthread_mutex_lock(&m->fill_lock);
	around_not_given(m->around, ino_hash(&n->ino), f->version, f->off);
	pthread_mutex_unlock(&m->fill_lock);
}

void fill_took(struct mount *m, const struct fill *f, uint64_t us)
{
	if (!m->around || (!f->whole && f->len >= (uint32_t)m->s.around_kb << 10))
		return;
	pthread_mutex_lock(&m->fill_lock);
	around_took(m->around, f->whole, us);
	pthread_mutex_unlock(&m->fill_lock);
}

bool fill_begin(struct mount *m, struct node *n)
{
	if (n->writers > 0 || atomic_load(&n->writing) > 0 || !n->leased || atomic_load(&n->doubt) > 0)
		return false;
	if (atomic_fetch_add(&m->filling, 1) >= (uint32_t)m->s.threads / 2) {
		atomic_fetch_sub(&m->filling, 1);
		return false;
	}
	atomic_fetch_add(&n->filling, 1);
	return true;
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
	atomic_fetch_sub(&m->filling, 1);
	pthread_mutex_lock(&m->fill_lock);
	pthread_cond_broadcast(&m->fill_ended);
	pthread_mutex_unlock(&m->fill_lock);
	for (; p; p = next) {
		next = p->next;
		p->go_on(p);
		free(p);
	}
}

void fill_end(struct mount *m, struct node *n, const struct fill *f, const uint8_t *data, uint64_t got,
	      uint64_t off, uint64_t len)
{
	uint64_t until = f->off + got / VOL_BLOCK * VOL_BLOCK;

	store(m, n, f->off, data, MIN(off, until) - f->off);
	if (until > off + len && atomic_load(&n->doubt) == 0)
		store(m, n, off + len, data + (off + len - f->off), until - (off + len));
	end(m, n);
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
