/* SPDX-License-Identifier: Apache-2.0 */
/* Delegated folders: names that are this mount's alone (VFS_DELEGATE), so that programs need not wait for each of them.
 *
 * Who makes or removes several names of a folder within a second asks for it. While it is held, a brick lets nobody else look at the folder or the files born in
 * it before it was given back, so what is answered here is what everybody will see:
 *   - create of a name that is not there: answered at once with a number of the delegation's. The file is made with its first write (one operation for both, and
 *     one wait), its close, whatever else asks for it, or after BORN_MS;
 *   - unlink of a file with one name that nobody here has open, utimens, and a chmod that takes nothing away: answered at once, sent behind ("errands").
 *     Times go along with a chmod or chown that follows within TIMES_MS (tar, cp -p), modes and times of several files with one another: one operation.
 * A write and a close still wait until file and bytes are on every in-sync copy. What only an errand knows is lost when this process is killed before it was
 * sent: names removed, times, and modes that allow more. Whoever calls fsync or locks files does not get that far: its folder is not delegated for CAREFUL_MS. fsync of a folder waits for its
 * errands and tells of their errors.
 *
 * A file has one errand at a time; of two names that meet the second waits. Every other question to a brick waits for the errands of the folder that it is about
 * (deleg_wait), and a removed folder for those of all empty ones. Errands carry ids as all operations do: nothing is done twice. A lease that ends (cache_reset) and a recall end the
 * delegation: errands are sent, then it is given back. It is a record of the group, so a new primary knows of it.
 *
 * Threads: RUNNERS send errands, ask and give back; lock: delegs.lock, then node.lock. Bounds: DELEGS_MAX folders, PENDING_MAX errands a folder. */
#include "volume/mount/internal.h"

#define DELEGS_MAX   32
#define DELEGS_SPARE 8 /* of them, so many are free or become so */
#define PENDING_MAX  64
#define RUNNERS	     6
#define BORN_MS	     20	  /* a file that nobody writes, closes or looks at is made after so long */
#define TIMES_MS     20	  /* times and modes are sent after so long */
#define TIMES_OLD_MS 1	  /* those that have waited so long go along with others that are sent */
#define TIMES_MAX    32	  /* when so many errands of the folder wait: at once */
#define IDLE_MS	     2000 /* unused: given back */
#define SCORE	     3	  /* names changed, not more than SCORE_MS apart, before it is asked for */
#define SCORE_MS     1000
#define REFUSED_MS   5000  /* not asked again so soon */
#define RECALLED_MS  10000 /* others use it, too */
#define CAREFUL_MS   60000 /* after an fsync, or a lock */
#define LOOK_MS	     500

enum deleg_state { ASKING, HELD, ENDING };

struct errand {
	struct errand *next;
	struct deleg *d;
	struct node *n; /* pinned: the file */
	struct vfs_op op;
	uint64_t due_ms, name;
	bool running;
	char text[VFS_NAME_MAX + 1];
};

struct deleg {
	bool used, busy; /* busy: a runner asks, or gives back */
	enum deleg_state state;
	struct vol_id id;
	struct node *folder; /* pinned; NULL: recalled, and not known here */
	uint64_t next, last; /* numbers for files */
	uint64_t used_ms;
	uint32_t pending, waiters; /* waiters: nothing new is answered here until they are gone */
};

struct delegs {
	pthread_mutex_t lock;
	pthread_cond_t work, landed;
	struct deleg d[DELEGS_MAX];
	struct errand *first, **last;
	uint64_t alarm_ms; /* a runner that waits looks by itself then; UINT64_MAX: none does */
	pthread_t runner[RUNNERS];
	bool stop;
};

static struct deleg *find(struct delegs *t, const struct vol_id *id)
{
	for (uint32_t i = 0; i < DELEGS_MAX; i++)
		if (t->d[i].used && vol_id_eq(&t->d[i].id, id))
			return &t->d[i];
	return NULL;
}

static bool any(const struct mount *m)
{
	return m->delegs && atomic_load_explicit(&m->n_delegs, memory_order_relaxed) > 0;
}

static int64_t wall_ns(void)
{
	return (int64_t)clock_wall_us() * 1000;
}

/* ---- errands; all under lock unless said ---- */

static struct errand *errand_new(struct mount *m, struct deleg *d, struct node *n, const struct vfs_op *op,
				 const char *name)
{
	struct errand *e = calloc(1, sizeof(*e));

	if (!e || !node_pin(m, n->index)) {
		free(e);
		return NULL;
	}
	*e = (struct errand){.d = d, .n = n, .op = *op};
	if (name) {
		snprintf(e->text, sizeof(e->text), "%s", name);
		op_name(&e->op, e->text);
		e->name = name_hash(m, name, strlen(name));
	}
	return e;
}

static void errand_put(struct mount *m, struct errand *e, uint64_t due_ms)
{
	struct delegs *t = m->delegs;

	e->due_ms = due_ms;
	*t->last = e;
	t->last = &e->next;
	e->d->pending++;
	e->d->used_ms = clock_ms();
	atomic_store(&e->n->errand, e);
	if (due_ms < t->alarm_ms)
		pthread_cond_signal(&t->work);
}

static void take_out(struct delegs *t, struct errand *e)
{
	struct errand **at = &t->first;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	if (!*at)
		t->last = at;
}

/* Everything of the folder is sent now. */
static void hurry(struct delegs *t, const struct deleg *d)
{
	bool some = false;

	for (struct errand *e = t->first; e; e = e->next)
		if (e->d == d && e->due_ms > 0) {
			e->due_ms = 0;
			some = true;
		}
	if (some)
		pthread_cond_broadcast(&t->work);
}

/* A runner is about to be away: another one sees to what is due later, of which nobody was told. */
static void hand_over(struct delegs *t)
{
	if (t->alarm_ms != UINT64_MAX)
		return;
	for (struct errand *e = t->first; e; e = e->next)
		if (!e->running && e->due_ms > 0) {
			pthread_cond_signal(&t->work);
			return;
		}
}

/* Attributes were set. Inside the gate. */
static void learn_set(struct mount *m, struct node *n, const struct vfs_attr *a, bool keep)
{
	(void)end_changed(m, n, a, keep);
	pthread_mutex_lock(&n->lock);
	n->touched = a->version;
	pthread_mutex_unlock(&n->lock);
}

/* What came of it. Not under lock. */
static void learn(struct mount *m, struct errand *e, int r, const struct vfs_result *res, bool keep,
		  bool last)
{
	struct node *folder = e->d->folder;

	if (r == 0) {
		gate_in(m);
		if (e->op.type == VFS_UNLINK)
			(void)cache_learn(m, e->n, &res->gone, false, NULL);
		else if (e->op.type == VFS_SETATTR)
			learn_set(m, e->n, &res->attr, keep);
		else
			(void)end_changed(m, e->n, &res->attr, keep);
		if (last && res->parent.mode) /* else the folder's times are newer here */
			(void)cache_learn(m, folder, &res->parent, keep, NULL);
		gate_out(m);
		return;
	}
	if (e->op.type == VFS_UNLINK && r == -ENOENT)
		return; /* it is not there */
	log_warn("%s of a file in a folder that was this mount's alone failed after it was answered: %s",
		 e->op.type == VFS_CREATE   ? "making"
		 : e->op.type == VFS_UNLINK ? "removing"
					    : "setting mode or times",
		 strerror(-r));
	atomic_store(e->op.type == VFS_UNLINK ? &folder->late_err : &e->n->late_err, -r);
	cache_unsure(e->n);
	pthread_mutex_lock(&folder->lock);
	folder_unsure(m, folder);
	pthread_mutex_unlock(&folder->lock);
	cache_inc_epoch(m);
}

/* It is over; e is gone. Not under lock. */
static void errand_done(struct mount *m, struct errand *e)
{
	struct delegs *t = m->delegs;

	pthread_mutex_lock(&t->lock);
	take_out(t, e);
	atomic_store(&e->n->errand, NULL);
	if (--e->d->pending == 0 && e->d->state == ENDING)
		pthread_cond_signal(&t->work);
	pthread_cond_broadcast(&t->landed);
	pthread_mutex_unlock(&t->lock);
	node_unpin(m, e->n);
	free(e);
}

/* Sends it, with all tries. Not under lock; it is marked as running, and gone afterwards. res: the caller's. */
static int run(struct mount *m, struct errand *e, struct vfs_result *res, bool *ret_leased)
{
	struct delegs *t = m->delegs;
	struct node *folder = e->d->folder;
	struct tick tick = tick_of(m, &e->n->ino, &folder->ino);
	bool last;
	int r;

	atomic_fetch_add(&e->n->writing, 1);
	r = change_now(m, e->n, folder, &e->op, res, ret_leased);
	pthread_mutex_lock(&t->lock);
	last = e->d->pending == 1;
	pthread_mutex_unlock(&t->lock);
	*ret_leased = *ret_leased && tick_same(m, &tick);
	learn(m, e, r, res, *ret_leased, last);
	atomic_fetch_sub(&e->n->writing, 1);
	errand_done(m, e);
	return r;
}

static void run_here(struct mount *m, struct errand *e)
{
	struct vfs_result res = {0};
	bool leased;

	(void)run(m, e, &res, &leased);
	vfs_result_done(&res);
}

/* ---- modes and times of several files: one operation ---- */

/* May it be sent with others? */
static bool may_go_along(const struct errand *e)
{
	return e->op.type == VFS_SETATTR && !(e->op.set & ~(uint32_t)VFS_SETS_MASK) &&
	       atomic_load(&e->n->writing) == 0; /* else what is known here of the file is still to come */
}

/* e, and others that wait in the same folder and have for a while: all of them are marked as running. Under lock. */
static uint32_t companions(struct errand *e, uint64_t now, struct errand **ret)
{
	bool alone = !may_go_along(e);
	uint32_t n = 0;

	e->running = true;
	ret[n++] = e;
	for (struct errand *x = e->next; x && !alone && n < VFS_SETS_MAX; x = x->next) {
		if (x->d != e->d || x->running || !may_go_along(x) ||
		    x->due_ms > now + TIMES_MS - TIMES_OLD_MS)
			continue;
		x->running = true;
		ret[n++] = x;
	}
	return n;
}

/* All or none: 0 or -errno. Not under lock; they are marked as running. */
static int run_together(struct mount *m, struct errand *const *e, uint32_t n)
{
	struct vfs_op op = {.type = VFS_SETATTRS, .ino = {.folder = e[0]->d->id}, .pid = e[0]->op.pid};
	_cleanup_buf_ struct buf data = {0};
	struct node *node[VFS_SETS_MAX];
	struct vfs_result res = {0};
	bool leased, sent = true;
	struct tick tick[VFS_SETS_MAX];
	uint32_t pid[VFS_SETS_MAX];
	size_t at = 0;
	int r;

	for (uint32_t i = 0; i < n; i++) {
		const struct vfs_op *o = &e[i]->op;
		struct vfs_set s = {.num = e[i]->n->ino.num,
				    .set = o->set,
				    .mode = o->attr.mode & 07777,
				    .atime_ns = o->attr.atime_ns,
				    .mtime_ns = o->attr.mtime_ns,
				    .ctime_ns = o->attr.ctime_ns};

		node[i] = e[i]->n;
		pid[i] = o->pid;
		tick[i] = tick_of(m, &node[i]->ino, NULL);
		atomic_fetch_add(&node[i]->writing, 1);
		sent = sent && vfs_set_encode(&s, &data) == 0;
	}
	op.data = data.data;
	op.data_len = (uint32_t)data.len;
	r = sent ? change_many(m, node, pid, n, &op, &res, &leased) : -ENOMEM;
	gate_in(m);
	for (uint32_t i = 0; i < n; i++) {
		struct vfs_attr a;
		bool told = r == 0 && vfs_attr_decode(res.data.data, res.data.len, &at, &a) == 0 &&
			    vol_ino_eq(&a.ino, &node[i]->ino);

		if (told)
			learn_set(m, node[i], &a, leased && tick_same(m, &tick[i]));
		else if (r == 0) /* the answer to a retry, which says nothing of them */
			cache_older(m, node[i]);
		atomic_fetch_sub(&node[i]->writing, 1);
	}
	gate_out(m);
	vfs_result_done(&res);
	return r;
}

static void run_some(struct mount *m, struct errand *const *e, uint32_t n)
{
	int r = n > 1 ? run_together(m, e, n) : -ECANCELED;

	for (uint32_t i = 0; i < n; i++) {
		if (r != 0 && r != -EIO && r != -ESTALE) { /* one of them is refused, or it is the only one */
			run_here(m, e[i]);
			continue;
		}
		if (r < 0)
			learn(m, e[i], r, NULL, false, false);
		errand_done(m, e[i]);
	}
}

/* ---- waiting ---- */

void deleg_wait(struct mount *m, const struct vol_id *folder)
{
	struct delegs *t = m->delegs;
	struct deleg *d;

	if (!any(m))
		return;
	pthread_mutex_lock(&t->lock);
	d = find(t, folder);
	if (d && d->pending > 0) {
		hurry(t, d);
		d->waiters++;
		while (d->pending > 0)
			pthread_cond_wait(&t->landed, &t->lock); /* each errand has its time limit */
		d->waiters--;
	}
	pthread_mutex_unlock(&t->lock);
}

void deleg_wait_node(struct mount *m, struct node *n)
{
	struct delegs *t = m->delegs;
	struct errand *e;

	if (!atomic_load(&n->errand))
		return;
	pthread_mutex_lock(&t->lock);
	e = atomic_load(&n->errand);
	if (e && !e->running) {
		e->running = true; /* ours: no hand-over between threads */
		pthread_mutex_unlock(&t->lock);
		run_here(m, e);
		return;
	}
	while (e && atomic_load(&n->errand) == e)
		pthread_cond_wait(&t->landed, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

void deleg_wait_op(struct mount *m, const struct vfs_op *op)
{
	if (!any(m))
		return;
	deleg_wait(m, &op->ino.folder);
	if (op->type == VFS_RENAME)
		deleg_wait(m, &op->ino2.folder);
	if (op->type == VFS_LINK)
		deleg_wait(m, &op->target.folder);
}

int deleg_error(struct node *n)
{
	return atomic_load_explicit(&n->late_err, memory_order_relaxed) ? -atomic_exchange(&n->late_err, 0)
									: 0;
}

/* ---- fast answers ---- */

/* The folder's delegation, if it may be used now; under lock, inside the gate. */
static struct deleg *usable(struct mount *m, const struct vol_id *folder)
{
	struct deleg *d = find(m->delegs, folder);

	return d && d->state == HELD && d->pending < PENDING_MAX && d->waiters == 0 &&
			       vclient_leases_hold(m->c, vol_owner(vclient_map(m->c), folder))
		       ? d
		       : NULL;
}

static bool name_on_its_way(const struct delegs *t, const struct deleg *d, uint64_t hash)
{
	for (const struct errand *e = t->first; e; e = e->next)
		if (e->d == d && e->name == hash)
			return true;
	return false;
}

/* Node of the folder locked: its times as of now, as the brick will set them. */
static void touched(struct node *folder, int64_t now)
{
	folder->attr.mtime_ns = folder->attr.ctime_ns = now;
}

/* Is the name surely not there, and may a file be made without a question? Folder locked. */
static bool may_make(struct mount *m, const struct node *folder, uint64_t hash)
{
	return folder->leased && folder->complete && folder->attr_known && !(folder->attr.mode & S_ISGID) &&
	       atomic_load(&folder->naming) == 0 && !atomic_load(&folder->retired) &&
	       atomic_load(&m->epoch_works) && !names_has(&folder->names, hash);
}

/* The file, known to this mount only. NULL: as any other. */
static struct node *make_here(struct mount *m, struct deleg *d, const char *name, struct vfs_op op)
{
	struct node *folder = d->folder, *n;
	uint64_t hash = name_hash(m, name, strlen(name));
	struct vol_ino ino = {.folder = d->id, .num = d->next};
	struct errand *e;
	bool may;

	pthread_mutex_lock(&folder->lock);
	may = d->next <= d->last && may_make(m, folder, hash);
	pthread_mutex_unlock(&folder->lock);
	if (!may || name_on_its_way(m->delegs, d, hash))
		return NULL;
	n = node_lookup(m, &ino);
	if (!n)
		return NULL;
	op.flags |= VFS_NUMBERED;
	op.target.num = ino.num;
	op.attr.ctime_ns = wall_ns();
	e = errand_new(m, d, n, &op, name);
	if (!e) {
		node_forget(m, n, 1);
		return NULL;
	}
	d->next++;
	pthread_mutex_lock(&n->lock);
	n->attr = (struct vfs_attr){.ino = ino,
				    .mode = S_IFREG | (op.attr.mode & 07777),
				    .nlink = 1,
				    .uid = op.attr.uid,
				    .gid = op.attr.gid};
	n->attr.atime_ns = n->attr.mtime_ns = n->attr.ctime_ns = op.attr.ctime_ns;
	n->attr_known = n->leased = n->no_xattrs = true;
	n->zeros_from = n->size_told = 0;
	pthread_mutex_unlock(&n->lock);
	pthread_mutex_lock(&folder->lock);
	folder_made(m, folder, name, ino.num);
	touched(folder, op.attr.ctime_ns);
	pthread_mutex_unlock(&folder->lock);
	errand_put(m, e, clock_ms() + BORN_MS);
	return n;
}

bool deleg_create(fuse_req_t req, struct mount *m, struct node *folder, const char *name,
		  const struct vfs_op *op, struct fuse_file_info *fi)
{
	struct delegs *t = m->delegs;
	struct fuse_entry_param e = {.entry_timeout = KEEP_S, .attr_timeout = KEEP_S};
	struct node *n = NULL;
	struct vfs_attr a;
	struct deleg *d;

	if (!any(m) || fi->flags & O_DSYNC)
		return false;
	gate_in(m);
	pthread_mutex_lock(&t->lock);
	d = usable(m, &folder->ino.folder);
	if (d && d->folder == folder)
		n = make_here(m, d, name, *op);
	pthread_mutex_unlock(&t->lock);
	if (n) {
		pthread_mutex_lock(&n->lock);
		a = n->attr;
		pthread_mutex_unlock(&n->lock);
		if (opened_to_write(fi))
			(void)fill_bar(m, n, NULL); /* quite new: nobody reads it */
		e.ino = node_id(n);
		e.generation = n->generation;
		to_stat(m, &a, &e.attr);
		file_opened(m, n, fi);
		if (fuse_reply_create(req, &e, fi) < 0) {
			never_opened(n, fi);
			node_forget(m, n, 1);
		}
	}
	gate_out(m);
	return n;
}

/* A file with one name, born here, that nobody has open, and all of it known. Node locked. */
static bool may_unlink(const struct node *n)
{
	return n->leased && n->attr_known && n->attr.nlink == 1 && !S_ISDIR(n->attr.mode) && n->attr.mode &&
	       atomic_load(&n->opens) == 0 && !atomic_load(&n->errand) && !atomic_load(&n->retired);
}

static bool unlink_here(struct mount *m, struct deleg *d, const char *name, struct vfs_op op)
{
	struct node *folder = d->folder, *n;
	uint64_t hash = name_hash(m, name, strlen(name)), num = 0;
	struct errand *e = NULL;
	bool may;

	pthread_mutex_lock(&folder->lock);
	if (folder->leased && folder->complete && folder->attr_known && atomic_load(&folder->naming) == 0 &&
	    !atomic_load(&folder->retired))
		num = names_number(&folder->names, hash);
	pthread_mutex_unlock(&folder->lock);
	op.target = (struct vol_ino){.folder = d->id, .num = num};
	n = num && !name_on_its_way(m->delegs, d, hash) ? node_find(m, &op.target) : NULL;
	if (!n)
		return false;
	op.flags = VFS_KNOWN | VFS_TIMED;
	op.attr.ctime_ns = wall_ns();
	pthread_mutex_lock(&n->lock);
	may = may_unlink(n);
	pthread_mutex_unlock(&n->lock);
	if (may)
		e = errand_new(m, d, n, &op, name);
	if (e) {
		pthread_mutex_lock(&n->lock);
		n->attr.nlink = 0;
		n->attr.ctime_ns = op.attr.ctime_ns;
		pthread_mutex_unlock(&n->lock);
		pthread_mutex_lock(&folder->lock);
		folder_changed(m, folder, name, false, false);
		touched(folder, op.attr.ctime_ns);
		pthread_mutex_unlock(&folder->lock);
		errand_put(m, e, 0);
	}
	node_unpin(m, n);
	return e;
}

bool deleg_unlink(fuse_req_t req, struct mount *m, struct node *folder, const char *name,
		  const struct vfs_op *op)
{
	struct delegs *t = m->delegs;
	bool done = false;
	struct deleg *d;

	if (!any(m))
		return false;
	gate_in(m);
	pthread_mutex_lock(&t->lock);
	d = usable(m, &folder->ino.folder);
	if (d && d->folder == folder)
		done = unlink_here(m, d, name, *op);
	pthread_mutex_unlock(&t->lock);
	if (done)
		fuse_reply_err(req, 0);
	gate_out(m);
	return done;
}

/* Of what op sets nothing is taken away from anybody when it comes late, or is lost. Node locked. */
static bool may_come_late(const struct vfs_attr *a, const struct vfs_op *op)
{
	const uint32_t times = VFS_SET_ATIME | VFS_SET_MTIME | VFS_SET_ATIME_NOW | VFS_SET_MTIME_NOW;
	const uint32_t had = a->mode & 07777, mode = op->attr.mode & 07777;

	if (op->set & ~(times | VFS_SET_MODE))
		return false;
	return !(op->set & VFS_SET_MODE) ||
	       (!(had & ~mode) && !(mode & 07000) && (op->uid == 0 || op->uid == a->uid));
}

/* Node locked. */
static void set_fields(struct vfs_attr *a, const struct vfs_op *op)
{
	if (op->set & VFS_SET_MODE)
		a->mode = (a->mode & S_IFMT) | (op->attr.mode & 07777);
	if (op->set & VFS_SET_ATIME)
		a->atime_ns = op->attr.atime_ns;
	if (op->set & VFS_SET_MTIME)
		a->mtime_ns = op->attr.mtime_ns;
	a->ctime_ns = op->attr.ctime_ns;
}

static void set_here(struct vfs_attr *a, struct vfs_op *op, int64_t now)
{
	const uint32_t times = op->set & (VFS_SET_ATIME_NOW | VFS_SET_MTIME_NOW);

	if (times & VFS_SET_ATIME_NOW)
		op->attr.atime_ns = now;
	if (times & VFS_SET_MTIME_NOW)
		op->attr.mtime_ns = now;
	op->set &= ~times;
	op->set |= (times & VFS_SET_ATIME_NOW ? VFS_SET_ATIME : 0) |
		   (times & VFS_SET_MTIME_NOW ? VFS_SET_MTIME : 0);
	op->attr.ctime_ns = now;
	op->flags |= VFS_TIMED;
	set_fields(a, op);
}

/* What op sets is set by `to`, too. */
static void set_too(struct vfs_op *to, const struct vfs_op *op)
{
	if (op->set & VFS_SET_MODE)
		to->attr.mode = op->attr.mode;
	if (op->set & VFS_SET_UID)
		to->attr.uid = op->attr.uid;
	if (op->set & VFS_SET_GID)
		to->attr.gid = op->attr.gid;
	if (op->set & VFS_SET_ATIME)
		to->attr.atime_ns = op->attr.atime_ns;
	if (op->set & VFS_SET_MTIME)
		to->attr.mtime_ns = op->attr.mtime_ns;
	to->set |= op->set;
	to->attr.ctime_ns = op->attr.ctime_ns;
}

/* The file's errand, if it is of this kind and nobody has it in hand; under lock. */
static struct errand *waiting(struct node *n, enum vfs_op_type type)
{
	struct errand *e = atomic_load(&n->errand);

	return e && e->op.type == type && !e->running ? e : NULL;
}

bool deleg_setattr(fuse_req_t req, struct mount *m, struct node *n, struct vfs_op *op)
{
	struct delegs *t = m->delegs;
	struct errand *e = NULL;
	struct stat st;
	struct deleg *d;
	bool may;

	if (!any(m) || n->ino.num == 0)
		return false;
	gate_in(m);
	pthread_mutex_lock(&t->lock);
	d = usable(m, &n->ino.folder);
	e = waiting(n, VFS_SETATTR);
	pthread_mutex_lock(&n->lock);
	may = d && d->folder && n->leased && n->attr_known && n->attr.nlink > 0 &&
	      (e || !atomic_load(&n->errand)) && !atomic_load(&n->retired) && end_known(n, &n->attr) &&
	      may_come_late(&n->attr, op);
	if (may) {
		set_here(&n->attr, op, wall_ns());
		n->touched = n->attr.version;
		n->touched_us = clock_us();
		to_stat(m, &n->attr, &st);
	}
	pthread_mutex_unlock(&n->lock);
	if (may && e)
		set_too(&e->op, op);
	else if (may && (e = errand_new(m, d, n, op, NULL)))
		errand_put(m, e, d->pending < TIMES_MAX ? clock_ms() + TIMES_MS : 0);
	else if (may) {
		cache_unsure(n);
		op->flags &= ~VFS_TIMED;
	}
	pthread_mutex_unlock(&t->lock);
	may = may && e;
	if (may)
		fuse_reply_attr(req, &st, KEEP_S);
	gate_out(m);
	return may;
}

/* Takes what waits of the file over, if it is of this kind; NULL: it is done, or somebody does it. */
static struct errand *claim(struct mount *m, struct node *n, enum vfs_op_type type)
{
	struct errand *e;

	if (!atomic_load(&n->errand))
		return NULL;
	pthread_mutex_lock(&m->delegs->lock);
	e = waiting(n, type);
	if (e)
		e->running = true; /* ours */
	pthread_mutex_unlock(&m->delegs->lock);
	return e;
}

bool deleg_with_times(struct mount *m, struct node *n, const struct vfs_op *op, struct vfs_result *res,
		      bool *ret_leased, int *ret)
{
	struct errand *e = op->set & ~(uint32_t)(VFS_SET_MODE | VFS_SET_UID | VFS_SET_GID)
				   ? NULL
				   : claim(m, n, VFS_SETATTR);

	if (!e)
		return false;
	set_too(&e->op, op);
	e->op.attr.ctime_ns = wall_ns();
	e->op.uid = op->uid;
	e->op.gid = op->gid;
	e->op.pid = op->pid;
	*ret = run(m, e, res, ret_leased);
	return true;
}

bool deleg_write(struct mount *m, struct node *n, struct vfs_op *op, struct vfs_result *res, bool *ret_leased,
		 int *ret)
{
	const struct vol_map *map = vclient_map(m->c);
	struct errand *e;

	if (!atomic_load(&n->errand))
		return false;
	if ((op->off == 0 || op->flags & VFS_APPEND) && op->len <= VFS_BORN_MAX &&
	    (map->stripe == 1 || vol_group_of_stripe(map, &n->ino, 0) == vol_owner(map, &n->ino.folder))) {
		e = claim(m, n, VFS_CREATE);
		if (e) {
			e->op.payload = op->payload;
			e->op.len = op->len;
			*ret = run(m, e, res, ret_leased);
			(void)deleg_error(n); /* told now */
			return true;
		}
	}
	deleg_wait_node(m, n);
	return false;
}

void deleg_made(struct mount *m, struct node *n)
{
	struct errand *e;

	if (!atomic_load(&n->errand))
		return;
	e = claim(m, n, VFS_CREATE);
	if (e) {
		run_here(m, e);
		return;
	}
	pthread_mutex_lock(&m->delegs->lock); /* a runner makes it? */
	e = atomic_load(&n->errand);
	while (e && atomic_load(&n->errand) == e && e->op.type == VFS_CREATE) /* else it is freed */
		pthread_cond_wait(&m->delegs->landed, &m->delegs->lock);
	pthread_mutex_unlock(&m->delegs->lock);
}

/* ---- asking and giving back ---- */

static void end(struct delegs *t, struct deleg *d)
{
	if (d->state == ENDING)
		return;
	d->state = ENDING;
	hurry(t, d);
	pthread_cond_broadcast(&t->work);
}

/* One for a new delegation, or NULL. In time the one that was not used for longest is given back. */
static struct deleg *slot_free(struct mount *m)
{
	struct delegs *t = m->delegs;
	struct deleg *oldest = NULL, *found = NULL;
	uint32_t ending = 0;

	for (uint32_t i = 0; i < DELEGS_MAX; i++) {
		struct deleg *d = &t->d[i];

		if (!d->used)
			found = d;
		ending += !d->used || d->state == ENDING;
		if (d->used && d->state == HELD && (!oldest || d->used_ms < oldest->used_ms))
			oldest = d;
	}
	if (oldest && ending <= DELEGS_SPARE)
		end(t, oldest);
	return found;
}

void deleg_fresh(struct node *folder)
{
	folder->name_score = SCORE - 1;
	folder->name_score_ms = clock_ms();
}

void deleg_named(struct mount *m, struct node *folder)
{
	struct delegs *t = m->delegs;
	uint64_t now = clock_ms();
	struct deleg *d;
	bool ask;

	if (!t)
		return;
	pthread_mutex_lock(&folder->lock);
	folder->name_score = now - folder->name_score_ms <= SCORE_MS ? MIN(folder->name_score + 1, SCORE) : 1;
	folder->name_score_ms = now;
	ask = folder->name_score >= SCORE && folder->leased && now >= folder->deleg_not_before &&
	      !atomic_load(&folder->retired);
	pthread_mutex_unlock(&folder->lock);
	if (!ask)
		return;
	pthread_mutex_lock(&t->lock);
	d = find(t, &folder->ino.folder) || t->stop ? NULL : slot_free(m);
	if (d && node_pin(m, folder->index)) {
		*d = (struct deleg){.used = true,
				    .state = ASKING,
				    .id = folder->ino.folder,
				    .folder = folder,
				    .used_ms = now};
		atomic_fetch_add(&m->n_delegs, 1);
		pthread_cond_signal(&t->work);
	}
	pthread_mutex_unlock(&t->lock);
}

void deleg_careful(struct mount *m, const struct node *n)
{
	struct vol_ino ino = {.folder = n->ino.folder};
	struct node *folder;
	struct deleg *d;

	if (!m->delegs || !(folder = node_find(m, &ino)))
		return;
	pthread_mutex_lock(&folder->lock);
	folder->deleg_not_before = clock_ms() + CAREFUL_MS;
	pthread_mutex_unlock(&folder->lock);
	node_unpin(m, folder);
	if (!any(m))
		return;
	pthread_mutex_lock(&m->delegs->lock);
	d = find(m->delegs, &ino.folder);
	if (d)
		end(m->delegs, d);
	pthread_mutex_unlock(&m->delegs->lock);
}

/* d is busy; under lock again afterwards. */
static void free_slot(struct mount *m, struct deleg *d)
{
	struct node *folder = d->folder;

	ensure(d->pending == 0);
	*d = (struct deleg){0};
	atomic_fetch_sub(&m->n_delegs, 1);
	pthread_cond_broadcast(&m->delegs->landed);
	pthread_mutex_unlock(&m->delegs->lock);
	if (folder)
		node_unpin(m, folder);
	pthread_mutex_lock(&m->delegs->lock);
}

static void ask_for(struct mount *m, struct deleg *d)
{
	struct delegs *t = m->delegs;
	struct node *folder = d->folder;
	struct vfs_op op = {.type = VFS_DELEGATE, .ino = {.folder = d->id}};
	struct vfs_result res = {0};
	bool complete;
	int r;

	d->busy = true;
	hand_over(t);
	pthread_mutex_unlock(&t->lock);
	r = vclient_call(slot_of(m), &op, &res, NULL);
	pthread_mutex_lock(&folder->lock);
	if (r < 0)
		folder->deleg_not_before = clock_ms() + REFUSED_MS;
	complete = folder->complete;
	pthread_mutex_unlock(&folder->lock);
	if (r == 0 && !complete)
		folder_list(m, folder);
	pthread_mutex_lock(&t->lock);
	d->busy = false;
	if (r < 0 && r != -EIO && r != -EBUSY) {
		free_slot(m, d);
	} else if (r < 0 || t->stop) {
		d->state =
			ENDING; /* perhaps it is ours: asked for by a try before, or not given back in time */
	} else if (d->state == ASKING) {
		d->state = HELD;
		d->next = res.lock.start;
		d->last = res.lock.end;
		d->used_ms = clock_ms();
	}
	vfs_result_done(&res);
}

static void give_back(struct mount *m, struct deleg *d)
{
	struct delegs *t = m->delegs;
	struct vfs_op op = {.type = VFS_UNDELEGATE, .ino = {.folder = d->id}};
	struct vfs_result res = {0};

	d->busy = true;
	hand_over(t);
	pthread_mutex_unlock(&t->lock);
	(void)vclient_call(slot_of(m), &op, &res, NULL); /* a brick takes it by itself when this fails */
	vfs_result_done(&res);
	pthread_mutex_lock(&t->lock);
	free_slot(m, d);
}

void deleg_recall(struct mount *m, const struct vol_id *folder)
{
	struct delegs *t = m->delegs;
	struct deleg *d;

	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	d = find(t, folder);
	if (d) {
		if (d->folder) {
			pthread_mutex_lock(&d->folder->lock);
			d->folder->deleg_not_before = clock_ms() + RECALLED_MS;
			pthread_mutex_unlock(&d->folder->lock);
		}
		end(t, d);
	} else if (!t->stop && (d = slot_free(m))) {
		*d = (struct deleg){.used = true, .state = ENDING, .id = *folder};
		atomic_fetch_add(&m->n_delegs, 1);
		pthread_cond_signal(&t->work);
	}
	pthread_mutex_unlock(&t->lock);
}

void deleg_reset(struct mount *m, uint32_t group)
{
	const struct vol_map *map = vclient_map(m->c);
	struct delegs *t = m->delegs;

	if (!any(m))
		return;
	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < DELEGS_MAX; i++)
		if (t->d[i].used && vol_owner(map, &t->d[i].id) == group)
			end(t, &t->d[i]);
	pthread_mutex_unlock(&t->lock);
}

void deleg_end_empty(struct mount *m)
{
	struct delegs *t = m->delegs;
	bool some = true;

	if (!any(m))
		return;
	pthread_mutex_lock(&t->lock);
	while (some) {
		some = false;
		for (uint32_t i = 0; i < DELEGS_MAX; i++) {
			struct deleg *d = &t->d[i];
			bool empty;

			if (!d->used || !d->folder)
				continue;
			pthread_mutex_lock(&d->folder->lock);
			empty = d->folder->names.n == 0;
			pthread_mutex_unlock(&d->folder->lock);
			if (!empty)
				continue;
			end(t, d);
			some = true;
		}
		if (some)
			pthread_cond_wait(&t->landed, &t->lock);
	}
	pthread_mutex_unlock(&t->lock);
}

/* ---- runners ---- */

/* One thing that is to be done now; under lock before and after. False: nothing; *ret_next: when to look again. */
static bool do_one(struct mount *m, uint64_t now, uint64_t *ret_next)
{
	struct errand *some[VFS_SETS_MAX];
	struct delegs *t = m->delegs;
	uint32_t n;

	*ret_next = now + LOOK_MS;
	for (struct errand *e = t->first; e; e = e->next) {
		if (e->running)
			continue;
		if (e->due_ms > now && !t->stop) {
			*ret_next = MIN(*ret_next, e->due_ms);
			continue;
		}
		n = companions(e, now, some);
		hand_over(t);
		pthread_mutex_unlock(&t->lock);
		run_some(m, some, n);
		pthread_mutex_lock(&t->lock);
		return true;
	}
	for (uint32_t i = 0; i < DELEGS_MAX; i++) {
		struct deleg *d = &t->d[i];

		if (!d->used || d->busy)
			continue;
		if (d->state == ASKING) {
			ask_for(m, d);
			return true;
		}
		if (d->state == HELD && (t->stop || (d->pending == 0 && now - d->used_ms >= IDLE_MS)))
			end(t, d);
		if (d->state == ENDING && d->pending == 0 && d->waiters == 0) {
			give_back(m, d);
			return true;
		}
	}
	return false;
}

static bool in_use(const struct delegs *t)
{
	for (uint32_t i = 0; i < DELEGS_MAX; i++)
		if (t->d[i].used)
			return true;
	return false;
}

static void *runner(void *arg)
{
	struct mount *m = arg;
	struct delegs *t = m->delegs;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		uint64_t now = clock_ms(), next;
		struct timespec until;

		if (do_one(m, now, &next))
			continue;
		if (t->stop && !in_use(t))
			break;
		if (next < t->alarm_ms)
			t->alarm_ms = next;
		else
			next = now + LOOK_MS; /* another one looks in time */
		until = clock_after(next - now);
		(void)pthread_cond_timedwait(&t->work, &t->lock, &until);
		if (t->alarm_ms == next)
			t->alarm_ms = UINT64_MAX;
	}
	pthread_cond_broadcast(&t->work);
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

/* ---- life ---- */

int deleg_start(struct mount *m)
{
	pthread_condattr_t a;
	struct delegs *t;

	if (!m->s.leases || !m->s.delegations)
		return 0;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&t->work, &a);
	pthread_cond_init(&t->landed, &a);
	pthread_condattr_destroy(&a);
	t->last = &t->first;
	t->alarm_ms = UINT64_MAX;
	m->delegs = t;
	for (uint32_t i = 0; i < RUNNERS; i++)
		if (pthread_create(&t->runner[i], NULL, runner, m) != 0)
			return -EAGAIN;
	return 0;
}

void deleg_flush(struct mount *m, uint64_t ms)
{
	struct delegs *t = m->delegs;
	struct timespec until;

	if (!t)
		return;
	until = clock_after(ms);
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	for (uint32_t i = 0; i < DELEGS_MAX; i++)
		if (t->d[i].used)
			end(t, &t->d[i]);
	pthread_cond_broadcast(&t->work);
	while (in_use(t) && pthread_cond_timedwait(&t->landed, &t->lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&t->lock);
}

void deleg_stop(struct mount *m)
{
	if (!m->delegs)
		return;
	deleg_flush(m, 0);
	for (uint32_t i = 0; i < RUNNERS; i++)
		pthread_join(m->delegs->runner[i], NULL);
}

void deleg_done(struct mount *m)
{
	free(m->delegs);
	m->delegs = NULL;
}
