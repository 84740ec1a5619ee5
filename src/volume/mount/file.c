/* SPDX-License-Identifier: Apache-2.0 */
/* Open files: reading, writing, making durable.
 *
 * Opening asks nothing when the attributes are known under a lease. Pages stay in the kernel over opens (keep_cache): they are there only as
 * long as a lease protects them. What was read or written without one is dropped behind the reply. Files opened to append, and files that
 * two clients write at once, go past the page cache (direct I/O), so that no page is locked while their writes wait for each other.
 * No write-back unless it is asked for (behind.c): a write that returned is on every in-sync copy.
 * A write behind which an fsync is foreseen, because so many writes came before each of the last ones, or which must be durable anyway (O_SYNC,
 * O_DSYNC), asks for stable storage in the same question; the fsync then asks nobody, unless the inode was changed meanwhile. */
#include <fcntl.h>

#include "volume/mount/internal.h"

#define FIT_TRIES 11

static __thread uint8_t *room; /* for what is read; a thread's, IO_MAX bytes */

static uint8_t *read_room(void)
{
	if (!room)
		room = aligned_alloc(VOL_BLOCK, IO_MAX + 2 * VOL_BLOCK);
	return room;
}

void file_opened(struct mount *m, struct node *n, struct fuse_file_info *fi)
{
	bool contended;

	pthread_mutex_lock(&n->lock);
	contended = n->contended_until > clock_ms();
	pthread_mutex_unlock(&n->lock);
	fi->keep_cache = atomic_load(&n->doubt) == 0;
	if ((fi->flags & O_APPEND || contended) &&
	    ((fi->flags & O_ACCMODE) == O_WRONLY || atomic_load(&m->direct_mmap)))
		fi->direct_io = 1;
	if (fi->flags & O_CREAT &&
	    (fi->flags & O_ACCMODE) == O_WRONLY) { /* the kernel tells O_CREAT with CREATE only */
		fi->direct_io = 1;
		atomic_store(&n->direct, true);
	}
	behind_opened(m, n, fi);
	atomic_fetch_add(&n->opens, 1);
}

void never_opened(struct node *n, struct fuse_file_info *fi)
{
	atomic_fetch_sub(&n->opens, 1);
	behind_closed(fi);
	if (opened_to_write(fi))
		fill_unbar(n);
}

/* open(O_TRUNC): one question instead of SETATTR and OPEN. */
static int truncate_at_open(struct mount *m, fuse_req_t req, struct node *n)
{
	struct tick t = tick_of(m, &n->ino, NULL);
	struct vfs_result res = {0};
	struct vfs_op op;
	bool leased;
	int r;

	behind_drain(m, n);
	op_init(&op, VFS_SETATTR, req, n);
	op.set = VFS_SET_SIZE;
	atomic_fetch_add(&n->writing, 1);
	r = change_call(m, n, NULL, &op, &res, &leased);
	if (r == 0) {
		gate_in(m);
		(void)end_changed(m, n, &res.attr, leased && tick_same(m, &t));
		gate_out(m);
	} else
		cache_unsure(n);
	atomic_fetch_sub(&n->writing, 1);
	vfs_result_done(&res);
	return r;
}

static void open_now(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	bool keep, barred = opened_to_write(fi) || fi->flags & O_TRUNC;
	struct vfs_attr a;
	int r;

	atomic_fetch_add(&n->opens, 1); /* before the question: an unlinked file is not reaped from now on */
	r = fi->flags & O_TRUNC ? truncate_at_open(m, req, n) : meta_refresh(m, req, n, &a, &keep);
	if (r == 0) {
		file_opened(m, n, fi);
		if (barred && !opened_to_write(fi))
			fill_unbar(n);
		barred = false;
		if (fuse_reply_open(req, fi) < 0)
			never_opened(n, fi);
	} else
		fuse_reply_err(req, r == -ENOENT ? meta_gone(req) : -r);
	if (barred)
		fill_unbar(n);
	atomic_fetch_sub(&n->opens, 1);
}

static void open_on(struct put_aside *p)
{
	open_now(p->req, p->ino, &p->fi);
}

void ll_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct put_aside p = {.go_on = open_on, .req = req, .ino = ino, .fi = *fi};

	if ((opened_to_write(fi) || fi->flags & O_TRUNC) && fill_bar(m, node_of(m, ino), &p))
		return;
	open_now(req, ino, fi);
}

void ll_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);

	behind_drain(m, n);
	lock_released(m, n, fi->fh);
	behind_closed(fi);
	if (fi->flock_release)
		(void)lock_release_flock(m, n, fi->lock_owner);
	if (opened_to_write(fi))
		fill_unbar(n);
	if (atomic_fetch_sub(&n->opens, 1) == 1)
		atomic_store(&n->direct, false);
	fuse_reply_err(req, 0);
}

/* close(2) of any descriptor of the file gives up the process's POSIX locks. All data are at the bricks then. */
void ll_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	int r, failed, late;

	behind_drain(m, n);
	deleg_made(m, n);
	failed = behind_error(m, n, fi);
	late = deleg_error(n);
	r = lock_flushed(m, n, fi->lock_owner);
	fuse_reply_err(req, failed ? -failed : late ? -late : -r);
}

/* True: its lookup brought the bytes, the request is answered. */
static bool read_from_lookup(fuse_req_t req, struct mount *m, struct node *n, uint64_t off, uint32_t len)
{
	int64_t got;

	head_read(m, n);
	gate_in(m);
	got = head_take(m, n, off, room, len);
	if (got >= 0) {
		(void)end_fits(n, off, len, (uint32_t)got, true);
		fuse_reply_buf(req, (char *)room, (size_t)got);
	}
	gate_out(m);
	return got >= 0;
}

int64_t file_ask(struct mount *m, struct node *n, uint64_t off, uint8_t *to, uint32_t len, bool *ret_leased)
{
	uint64_t end = UINT64_MAX;

	if (vclient_map(m->c)->stripe > 1) {
		pthread_mutex_lock(&n->lock);
		if (n->leased && n->attr_known)
			end = n->attr.size;
		pthread_mutex_unlock(&n->lock);
	}
	deleg_wait_node(m, n);
	return vclient_read(slot_of(m), &n->ino, end, off, to, len, ret_leased);
}

/* Into the thread's room: bytes that came, inside the gate, or -errno, outside of it. Asked again when they end before the end that is known by now; how often
 * that may happen: others append, or the file was truncated. */
static int64_t read_fitting(fuse_req_t req, struct mount *m, struct node *n, uint64_t off, uint32_t len,
			    struct tick *t, bool *ret_leased)
{
	for (int i = 0;; i++) {
		struct vfs_attr a;
		bool keep;
		int64_t got;

		*t = tick_of(m, &n->ino, NULL);
		got = file_ask(m, n, off, room, len, ret_leased);
		if (got < 0)
			return got;
		gate_in(m);
		if (end_fits(n, off, len, (uint32_t)got, i == FIT_TRIES))
			return got;
		gate_out(m);
		if (i % 4 == 3)
			(void)meta_refresh(m, req, n, &a, &keep);
	}
}

void ll_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct tick t;
	bool leased, keep, direct = fi && fi->flags & O_DIRECT, around = !direct && fill_may(m, size);
	uint64_t start;
	int64_t got;

	behind_drain(m, n);
	if (!read_room()) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (read_from_lookup(req, m, n, (uint64_t)off, (uint32_t)MIN(size, IO_MAX)))
		return;
	start = around ? clock_us() : 0;
	got = read_fitting(req, m, n, (uint64_t)off, (uint32_t)MIN(size, IO_MAX), &t, &leased);
	if (got < 0) {
		fuse_reply_err(req, got == -ENOENT ? ESTALE : (int)-got);
		return;
	}
	keep = tick_same(m, &t);
	pthread_mutex_lock(&n->lock);
	if (keep && leased)
		cache_keep(n);
	keep &= n->leased;
	pthread_mutex_unlock(&n->lock);
	start = around ? clock_us() - start : 0;
	if (around)
		(void)node_pin(m, n->index); /* the kernel may forget it behind the reply */
	fuse_reply_buf(req, (char *)room, (size_t)got);
	gate_out(m);
	if (around)
		fill_took(m, false, start);
	if (!keep && !direct)
		cache_drop_behind(m, n, (uint64_t)off, size);
	if (around && keep)
		fill_around(m, n, (uint64_t)off, (uint32_t)size, room);
	if (around)
		node_unpin(m, n);
}

/* ---- what was not synced when all copies lost power ----
 * Is told by the first fsync of the inode, and by the first one of each thread that had changed it: several programs change one folder, each syncs what it
 * did, and whoever came second would hear that all is well. */

static struct changer *changer_of(struct node *n, uint32_t tid)
{
	for (uint32_t i = 0; i < n->n_changers; i++)
		if (n->changer[i].tid == tid)
			return &n->changer[i];
	return NULL;
}

/* An entry for tid. When there are too many they share one, of nobody (0). NULL: no memory. */
static struct changer *changer_make(struct node *n, uint32_t tid)
{
	struct changer *c = changer_of(n, tid), *more;

	if (c)
		return c;
	if (n->n_changers == CHANGERS_MAX) {
		c = changer_of(n, 0);
		c = c ? c : &n->changer[CHANGERS_MAX - 1];
		c->tid = 0;
		return c;
	}
	more = realloc(n->changer, (n->n_changers + 1u) * sizeof(*more));
	if (!more)
		return NULL;
	n->changer = more;
	c = &more[n->n_changers++];
	*c = (struct changer){.tid = tid};
	return c;
}

void file_wrote(struct node *n, uint64_t forks, uint32_t tid)
{
	struct changer *c;

	pthread_mutex_lock(&n->lock);
	if (!n->dirty || forks == UINT64_MAX)
		n->forks = forks;
	n->dirty = true;
	n->durable = 0;
	n->written++;
	c = changer_make(n, tid);
	if (c) {
		if (!c->dirty || forks == UINT64_MAX)
			c->forks = forks;
		c->dirty = true;
		c->written = n->written;
	}
	pthread_mutex_unlock(&n->lock);
}

/* All that was written up to `written` is durable, under `forks`. Who is still in the list: has changed it since, or is to be told. */
static void changers_synced(struct node *n, uint64_t written, uint64_t forks)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < n->n_changers; i++) {
		struct changer c = n->changer[i];

		c.lost = c.lost || (c.dirty && c.forks != forks);
		c.dirty = c.dirty && c.written > written;
		c.forks = forks;
		if (c.dirty || c.lost)
			n->changer[left++] = c;
	}
	n->n_changers = (uint8_t)left;
}

bool node_synced(struct node *n, uint64_t written, uint64_t forks, uint32_t tid)
{
	struct changer *c;
	bool tell = false;

	if (n->dirty) {
		tell = n->forks != forks;
		n->dirty = n->written != written;
		n->forks = forks;
		changers_synced(n, written, forks);
	}
	c = changer_of(n, tid);
	if (!c)
		c = changer_of(n, 0);
	if (c && c->lost) {
		tell = true;
		c->lost = false;
		if (!c->dirty)
			*c = n->changer[--n->n_changers];
	}
	if (n->n_changers == 0)
		node_changers_done(n);
	return tell;
}

void node_changers_done(struct node *n)
{
	free(n->changer);
	n->changer = NULL;
	n->n_changers = 0;
}

/* Behind vclient_forks_begin and an operation that changes n. */
static void changed(struct vclient_slot *s, struct node *n, int r, uint32_t tid)
{
	if (r == 0 || r == -EIO) /* -EIO: it may have been done */
		file_wrote(n, vclient_forks_end(s, &n->ino), tid);
}

int change_call(struct mount *m, struct node *n, struct node *n2, struct vfs_op *op, struct vfs_result *res,
		bool *ret_leased)
{
	deleg_wait_op(m, op);
	return change_now(m, n, n2, op, res, ret_leased);
}

int change_many(struct mount *m, struct node *const *n, const uint32_t *pid, uint32_t count,
		struct vfs_op *op, struct vfs_result *res, bool *ret_leased)
{
	struct vclient_slot *s = slot_of(m);
	int r;

	vclient_forks_begin(s);
	r = vclient_call(s, op, res, ret_leased);
	for (uint32_t i = 0; i < count; i++)
		changed(s, n[i], r, pid[i]);
	return r;
}

int change_now(struct mount *m, struct node *n, struct node *n2, struct vfs_op *op, struct vfs_result *res,
	       bool *ret_leased)
{
	struct node *const both[] = {n, n2};
	const uint32_t pid[] = {op->pid, op->pid};

	return change_many(m, both, pid, n2 && n2 != n ? 2 : 1, op, res, ret_leased);
}

int node_sync(struct mount *m, struct node *n, uint32_t tid)
{
	struct vclient_slot *s = slot_of(m);
	uint64_t written, forks;
	bool lost = false;
	int r;

	deleg_wait(m, &n->ino.folder);
	pthread_mutex_lock(&n->lock);
	written = n->written;
	pthread_mutex_unlock(&n->lock);
	r = vclient_fsync(s, &n->ino);
	vclient_forks_begin(s);
	forks = vclient_forks_end(s, &n->ino);
	pthread_mutex_lock(&n->lock);
	if (r == 0)
		lost = node_synced(n, written, forks, tid);
	pthread_mutex_unlock(&n->lock);
	if (lost)
		log_warn(
			"fsync: all copies of a file or folder lost power after it was changed: what was not "
			"synced may be gone");
	return lost ? -EIO : r;
}

/* ---- fsync that is foreseen ---- */

/* Is this write to be durable? Node locked. */
static bool foresee_sync(const struct mount *m, struct node *n, const struct fuse_file_info *fi)
{
	bool wanted = n->steady >= STEADY_MIN && n->since_sync + 1u == n->sync_every;

	if (n->since_sync < UINT16_MAX)
		n->since_sync++;
	if (n->since_sync > n->sync_every)
		n->steady = 0;
	return m->s.leases && (wanted || (fi && fi->flags & O_DSYNC));
}

/* Node locked. */
static void count_sync(struct node *n)
{
	if (n->since_sync == 0)
		return;
	n->steady = n->since_sync == n->sync_every ? MIN(n->steady + 1, STEADY_MIN) : 0;
	n->sync_every = n->since_sync;
	n->since_sync = 0;
}

/* Like file_wrote, of a durable write. It covers what was answered before it began (`before`: writes then): the logs that it touched are durable up
 * to it, and a file of one group has no other. */
static void wrote_durably(struct mount *m, struct node *n, const struct vfs_op *op, uint64_t forks,
			  uint64_t before, uint64_t version)
{
	pthread_mutex_lock(&n->lock);
	if (forks != UINT64_MAX && n->written == before &&
	    (!n->dirty || (n->forks == forks && vclient_map(m->c)->stripe == 1))) {
		n->dirty = false;
		n->durable = version;
		changers_synced(n, n->written, forks);
		if (n->n_changers == 0)
			node_changers_done(n);
		n->written++;
		pthread_mutex_unlock(&n->lock);
		return;
	}
	pthread_mutex_unlock(&n->lock);
	file_wrote(n, forks, op->pid);
}

/* Nothing of the inode has changed, here or elsewhere, since it was made durable. Node locked. */
static bool still_durable(const struct node *n)
{
	return !n->dirty && n->n_changers == 0 && n->durable && n->leased && n->attr_known &&
	       n->attr.version == n->durable;
}

/* Before the reply to a write that went past the page cache: the kernel has dropped its pages before it, but who else has the file open may have read them again
 * meanwhile, as they were; reads on their way are asked again from now on when they ended too soon (end.c). What was appended ends where the brick says, which may
 * be behind the end that the kernel knows. */
static void drop_read_meanwhile(struct mount *m, struct node *n, const struct fuse_file_info *fi,
				const struct vfs_op *op, const struct vfs_result *res)
{
	uint64_t off = op->off, len = op->len;

	if (!fi || fi->writepage || atomic_load(&n->opens) < 2 ||
	    !(fi->flags & (O_APPEND | O_DIRECT) || atomic_load(&n->direct)))
		return;
	(void)cache_learn(m, n, &res->attr, false, NULL);
	if (fi->flags & O_APPEND) {
		pthread_mutex_lock(&n->lock);
		off = MIN(n->zeros_from, res->attr.size - MIN(res->attr.size, len));
		pthread_mutex_unlock(&n->lock);
		len = 0;
	}
	cache_drop(m, n, off, len, DROP_WAIT_MS);
}

/* To the write that made the file: what it said is known already. */
static void reply_born(fuse_req_t req, struct mount *m, struct node *n, const struct fuse_file_info *fi,
		       const struct vfs_op *op, struct vfs_result *res, int r)
{
	bool keep;

	if (r == 0)
		drop_read_meanwhile(m, n, fi, op, res);
	gate_in(m);
	keep = cache_learn(m, n, NULL, false, NULL);
	if (r < 0)
		fuse_reply_err(req, r == -ENOENT || r == -EEXIST ? ESTALE : -r);
	else
		fuse_reply_write(req, (size_t)op->len);
	gate_out(m);
	if (!keep || r < 0)
		cache_drop_behind(m, n, 0, op->len);
	vfs_result_done(res);
}

void ll_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct tick t;
	struct payload p = {.refs = 1, .len = (uint32_t)size, .data = (uint8_t *)data};
	struct vfs_result res = {0};
	bool leased = false, keep;
	struct vfs_op op;
	uint64_t before, forks;
	int r;

	op_init(&op, VFS_WRITE, req, n);
	op.off = (uint64_t)off;
	op.len = size;
	op.payload = &p;
	if (fi && fi->flags & O_APPEND && !fi->writepage)
		op.flags |= VFS_APPEND;
	if (deleg_write(m, n, &op, &res, &leased, &r)) {
		reply_born(req, m, n, fi, &op, &res, r);
		return;
	}
	r = behind_write(m, n, &op, fi, data);
	if (r != -ENOTSUP) {
		if (r < 0)
			fuse_reply_err(req, -r);
		else
			fuse_reply_write(req, size);
		return;
	}
	t = tick_of(m, &n->ino, NULL);
	pthread_mutex_lock(&n->lock);
	op.gen = n->attr.gen;
	before = n->written;
	op.flags |= foresee_sync(m, n, fi) ? VFS_DURABLE : 0;
	pthread_mutex_unlock(&n->lock);
	atomic_fetch_add(&n->writing, 1);
	vclient_forks_begin(slot_of(m));
	r = vclient_call(slot_of(m), &op, &res, &leased);
	if (r < 0 && op.len == size)
		op.len = 0;
	forks = vclient_forks_end(slot_of(m), &n->ino);
	if (r == 0 && res.flags & VFS_DURABLE)
		wrote_durably(m, n, &op, forks, before, res.attr.version);
	else if (r == 0 || op.len > 0)
		file_wrote(n, forks, op.pid);
	if (r < 0 && op.len == 0) {
		cache_unsure(n);
		fuse_reply_err(req, r == -ENOENT ? ESTALE : -r);
		keep = false;
	} else {
		drop_read_meanwhile(m, n, fi, &op, &res);
		gate_in(m);
		keep = tick_same(m, &t);
		keep = end_changed(m, n, &res.attr, keep && leased);
		fuse_reply_write(req, (size_t)op.len);
		gate_out(m);
	}
	atomic_fetch_sub(&n->writing, 1);
	if (!keep)
		cache_drop_behind(m, n, (uint64_t)off, size);
	vfs_result_done(&res);
}

/* 0, or -EIO when all copies lost power since something was written and it may be gone: a program that is told so writes again. */
void ll_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	bool durable;
	int r;

	(void)datasync;
	behind_drain(m, n);
	deleg_wait_node(m, n); /* what was answered before is durable with it, or its error told */
	deleg_careful(m, n);
	r = behind_error(m, n, fi);
	if (r == 0)
		r = deleg_error(n);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	pthread_mutex_lock(&n->lock);
	count_sync(n);
	durable = still_durable(n);
	pthread_mutex_unlock(&n->lock);
	fuse_reply_err(req, durable ? 0 : -node_sync(m, n, (uint32_t)fuse_req_ctx(req)->pid));
}

static int fallocate_parts(struct mount *m, struct vfs_op *op, struct vfs_result *res, bool *ret_leased)
{
	const struct vol_map *map = vclient_map(m->c);
	uint64_t end = op->off + op->len;
	uint32_t owner = vol_owner(map, &op->ino.folder);
	int r = 0;

	if (map->stripe == 1)
		return ask_brick(m, op, res, ret_leased);
	/* Slices elsewhere by stripe, then the owner for its own stripes and the size. */
	if (op->set & (uint32_t)(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		for (uint64_t off = op->off; off < end && r == 0;) {
			uint64_t stripe = off / map->stripe_size,
				 len = MIN((stripe + 1) * map->stripe_size, end) - off;

			if (vol_group_of_stripe(map, &op->ino, stripe) != owner) {
				struct vfs_op x = *op;

				x.off = off;
				x.len = len;
				x.flags |= VFS_FOREIGN;
				r = ask_brick(m, &x, res, NULL);
				vfs_result_done(res);
				*res = (struct vfs_result){0};
			}
			off += len;
		}
	return r < 0 ? r : ask_brick(m, op, res, ret_leased);
}

void ll_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	struct tick t;
	struct vfs_result res = {0};
	struct vfs_op op;
	bool leased;
	int r;

	(void)fi;
	behind_drain(m, n);
	t = tick_of(m, &n->ino, NULL);
	op_init(&op, VFS_FALLOCATE, req, n);
	op.off = (uint64_t)off;
	op.len = (uint64_t)len;
	op.set = (uint32_t)mode;
	pthread_mutex_lock(&n->lock);
	op.gen = n->attr.gen;
	pthread_mutex_unlock(&n->lock);
	atomic_fetch_add(&n->writing, 1);
	vclient_forks_begin(slot_of(m));
	r = fallocate_parts(m, &op, &res, &leased);
	changed(slot_of(m), n, r, op.pid);
	if (r == 0 && res.attr.mode) {
		gate_in(m);
		(void)end_changed(m, n, &res.attr, leased && tick_same(m, &t));
		gate_out(m);
	} else
		cache_unsure(n);
	fuse_reply_err(req, -r);
	atomic_fetch_sub(&n->writing, 1);
	if (r == 0 && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		cache_drop_behind(m, n, (uint64_t)off, (uint64_t)len);
	vfs_result_done(&res);
}

void ll_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct vfs_result res = {0};
	struct vfs_op op;
	int r;

	(void)fi;
	behind_drain(m, node_of(m, ino));
	op_init(&op, VFS_SEEK, req, node_of(m, ino));
	op.off = (uint64_t)off;
	op.set = (uint32_t)whence;
	r = ask_brick(m, &op, &res, NULL);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_lseek(req, (off_t)res.attr.size);
	vfs_result_done(&res);
}
