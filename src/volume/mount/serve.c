/* SPDX-License-Identifier: Apache-2.0 */
/* The FUSE session: what is agreed with the kernel, the threads that serve it, and its end.
 *
 * A fixed number of threads read requests from one descriptor; each asks the bricks over connections of its own and replies: no hand-over on the
 * way. What libfuse 3.14 does not know yet is added to its answer to INIT on the way out (patch_init): HANDLE_KILLPRIV_V2 (the volume clears suid
 * and sgid at a write by somebody who is not root; else the kernel asks for security.capability before every write) and DIRECT_IO_ALLOW_MMAP.
 * SIGTERM, SIGINT, SIGHUP: unmounts; what is in flight gets a moment to end. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "volume/mount/internal.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define OPCODE_INIT	     26
#define WRITE_HEAD	     80u	/* fuse_in_header and fuse_write_in */
#define ROOM_BYTES	     (2u << 20) /* a huge page */
#define REQUEST_MAX	     (ROOM_BYTES - VOL_BLOCK + WRITE_HEAD)
#define LARGE_REQUEST	     (256 << 10)
#define INIT_EXT	     (1u << 30)
#define HANDLE_KILLPRIV_V2   (1u << 28)
#define DIRECT_IO_ALLOW_MMAP (1u << 4) /* of flags2 */
#define BACKGROUND	     64
#define LOOK_NS		     200000000
#define ENDING_NS	     2000000
#define END_WAIT_MS	     3000
#define FLUSH_MS	     500
#define GIVE_UP_MS	     700 /* of it: then operations that wait are failed, which takes up to 2 s */

struct in_head { /* fuse_in_header and fuse_init_in */
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t uid, gid, pid, padding;
	uint32_t major, minor, max_readahead, flags, flags2;
};

struct out_head {
	uint32_t len;
	int32_t error;
	uint64_t unique;
};

struct init_out { /* fuse_init_out, 64 bytes */
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, unused[7];
};

static struct {
	_Atomic uint64_t unique; /* of the INIT request, until it is answered */
	uint32_t flags, flags2;
} init_request;

static __thread struct vclient_slot *own_slot;

struct mount *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

struct vclient_slot *slot_of(struct mount *m)
{
	if (!own_slot)
		own_slot = vclient_slot_new(m->c);
	ensure(own_slot);
	return own_slot;
}

int ask_brick(struct mount *m, struct vfs_op *op, struct vfs_result *res, bool *ret_leased)
{
	deleg_wait_op(m, op);
	return vclient_call(slot_of(m), op, res, ret_leased);
}

bool told_again(struct told *t, fuse_req_t req, uint64_t ms, bool still)
{
	uint64_t tid = (uint32_t)fuse_req_ctx(req)->pid, now = clock_ms() & UINT32_MAX;
	_Atomic uint64_t *at = &t->at[tid % ARRAY_SIZE(t->at)];
	uint64_t before = atomic_load(at);
	bool again = before >> 32 == tid && (uint32_t)(now - before) < ms;

	atomic_store(at, again && !still ? 0 : tid << 32 | now);
	return again;
}

void op_init(struct vfs_op *op, enum vfs_op_type type, fuse_req_t req, const struct node *n)
{
	const struct fuse_ctx *x = fuse_req_ctx(req);

	*op = (struct vfs_op){
		.type = type, .ino = n->ino, .uid = x->uid, .gid = x->gid, .pid = (uint32_t)x->pid};
}

void op_name(struct vfs_op *op, const char *name)
{
	op->name = name;
	op->name_len = (uint16_t)MIN(strlen(name), (size_t)VFS_NAME_MAX + 1);
}

/* Before 1970, too: the nanoseconds count upwards. */
static struct timespec to_timespec(int64_t ns)
{
	int64_t s = ns / 1000000000, rest = ns % 1000000000;

	return rest < 0 ? (struct timespec){s - 1, rest + 1000000000} : (struct timespec){s, rest};
}

void to_stat(struct mount *m, const struct vfs_attr *a, struct stat *st)
{
	(void)m;
	*st = (struct stat){.st_ino = ino_number(&a->ino),
			    .st_mode = a->mode,
			    .st_nlink = a->nlink,
			    .st_uid = a->uid,
			    .st_gid = a->gid,
			    .st_rdev = a->rdev,
			    .st_size = (off_t)a->size,
			    .st_blocks = (blkcnt_t)a->blocks,
			    .st_blksize = IO_MAX,
			    .st_atim = to_timespec(a->atime_ns),
			    .st_mtim = to_timespec(a->mtime_ns),
			    .st_ctim = to_timespec(a->ctime_ns)};
}

/* ---- what is agreed with the kernel ---- */

static ssize_t read_request(int fd, void *buf, size_t len, void *ctx)
{
	ssize_t n = read(fd, buf, MIN(len, REQUEST_MAX));
	const struct in_head *h = buf;
	struct mount *m = ctx;

	if (m->s.awake && n > 0)
		atomic_fetch_add_explicit(&m->requests, 1, memory_order_relaxed);
	if (n >= (ssize_t)offsetof(struct in_head, flags2) && h->opcode == OPCODE_INIT) {
		init_request.flags = h->flags;
		init_request.flags2 = n >= (ssize_t)sizeof(*h) && h->flags & INIT_EXT ? h->flags2 : 0;
		atomic_store(&init_request.unique, h->unique);
	}
	return n;
}

static void patch_init(struct mount *m, struct iovec *iov, int count)
{
	const struct out_head *h = iov[0].iov_base;
	struct init_out *o;

	if (count < 2 || h->error != 0 || h->unique != atomic_load(&init_request.unique) ||
	    iov[1].iov_len < sizeof(*o))
		return;
	o = iov[1].iov_base;
	if (init_request.flags & HANDLE_KILLPRIV_V2) {
		o->flags |= HANDLE_KILLPRIV_V2;
		atomic_store(&m->killpriv, true);
	}
	if (init_request.flags2 & DIRECT_IO_ALLOW_MMAP) {
		o->flags |= INIT_EXT;
		o->flags2 |= DIRECT_IO_ALLOW_MMAP;
		atomic_store(&m->direct_mmap, true);
	}
	atomic_store(&init_request.unique, 0);
}

static ssize_t write_reply(int fd, struct iovec *iov, int count, void *ctx)
{
	if (atomic_load_explicit(&init_request.unique, memory_order_relaxed))
		patch_init(ctx, iov, count);
	return writev(fd, iov, count);
}

static void ll_init(void *ctx, struct fuse_conn_info *conn)
{
	const unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS |
			      FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
			      FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS |
			      FUSE_CAP_EXPLICIT_INVAL_DATA;

	(void)ctx;
	conn->want = conn->capable & want;
	conn->max_write = IO_MAX;
	conn->max_readahead = UINT32_MAX; /* what the kernel has; raised behind the mount, see main.c */
	conn->max_background = BACKGROUND;
	conn->congestion_threshold = BACKGROUND * 3 / 4;
	conn->time_gran = 1;
}

static const struct fuse_lowlevel_ops operations = {
	.init = ll_init,
	.lookup = ll_lookup,
	.forget = ll_forget,
	.forget_multi = ll_forget_multi,
	.getattr = ll_getattr,
	.setattr = ll_setattr,
	.readlink = ll_readlink,
	.mknod = ll_mknod,
	.mkdir = ll_mkdir,
	.unlink = ll_unlink,
	.rmdir = ll_rmdir,
	.symlink = ll_symlink,
	.rename = ll_rename,
	.link = ll_link,
	.open = ll_open,
	.read = ll_read,
	.write = ll_write,
	.flush = ll_flush,
	.release = ll_release,
	.fsync = ll_fsync,
	.opendir = ll_opendir,
	.readdir = ll_readdir,
	.readdirplus = ll_readdirplus,
	.releasedir = ll_releasedir,
	.fsyncdir = ll_fsyncdir,
	.statfs = ll_statfs,
	.setxattr = ll_setxattr,
	.getxattr = ll_getxattr,
	.listxattr = ll_listxattr,
	.removexattr = ll_removexattr,
	.create = ll_create,
	.getlk = ll_getlk,
	.setlk = ll_setlk,
	.flock = ll_flock,
	.fallocate = ll_fallocate,
	.lseek = ll_lseek,
};

/* ---- threads ---- */

/* Memory for a thread's requests. The bytes of a WRITE begin at a page, as they do in the kernel, which copies page by page. A thread that serves large ones gets a huge
 * page: the kernel looks up each page that it copies to. Others would only waste memory. */
static void use_huge_page(uint8_t *room)
{
	if (madvise(room, ROOM_BYTES, MADV_HUGEPAGE) == 0)
		(void)madvise(room, ROOM_BYTES, MADV_COLLAPSE);
}

static void *fuse_thread(void *arg)
{
	struct mount *m = arg;
	uint8_t *room = aligned_alloc(ROOM_BYTES, ROOM_BYTES);
	struct fuse_buf b = {0};
	bool huge = false;

	ensure(room);
	b.mem = room + VOL_BLOCK - WRITE_HEAD;
	while (!fuse_session_exited(m->se)) {
		int r = fuse_session_receive_buf(m->se, &b);

		if (r >= LARGE_REQUEST && !huge) {
			use_huge_page(room);
			huge = true;
		}
		if (r == -EINTR || r == -EAGAIN)
			continue;
		if (r <= 0)
			break; /* unmounted */
		fuse_session_process_buf(m->se, &b);
	}
	free(room);
	kill(getpid(), SIGUSR2); /* tells serve() */
	return NULL;
}

/* ---- processors that do not halt (--no-awake: they do) ---- */

#define LOOK_MS	     20 /* while it is held */
#define LOOK_IDLE_MS 50

static void *waker_thread(void *arg)
{
	struct mount *m = arg;

	while (!atomic_load(&m->stopping)) {
		usleep((m->awake.held ? LOOK_MS : LOOK_IDLE_MS) * 1000);
		awake_look(&m->awake, atomic_load(&m->requests), clock_ms());
	}
	awake_close(&m->awake);
	return NULL;
}

void waker_start(struct mount *m)
{
	m->awake = AWAKE_OFF;
	if (m->s.awake)
		awake_open(&m->awake);
	if (m->awake.fd >= 0)
		m->waking = pthread_create(&m->waker, NULL, waker_thread, m) == 0;
}

void waker_stop(struct mount *m)
{
	ensure(atomic_load(&m->stopping));
	if (m->waking)
		pthread_join(m->waker, NULL);
}

static void unmount(struct mount *m)
{
	if (umount2(m->s.dir, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno == EPERM) {
		char *cmd[] = {"fusermount3", "-u", "-z", m->s.dir, NULL};
		pid_t pid = fork();

		if (pid == 0) {
			execvp(cmd[0], cmd);
			_exit(127);
		}
	}
}

/* Until the first thread has seen the end of the connection. After a signal while files are open, operations that still wait are failed before the process
 * ends: a page that one of them holds would keep a dropper in the kernel, and that the connection, for ever. */
static void wait_for_end(struct mount *m, pthread_t *t, int n)
{
	sigset_t set;
	uint64_t until = 0, give_up = UINT64_MAX;
	bool ending = false; /* a thread told so just before its end */
	int left = n;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	while (left > 0 && (until == 0 || clock_ms() < until)) {
		struct timespec tick = {0, ending ? ENDING_NS : LOOK_NS};
		int sig = sigtimedwait(&set, NULL, &tick);

		ending = ending || sig == SIGUSR2;
		if (sig == SIGTERM || sig == SIGINT || sig == SIGHUP) {
			log_info("signal %d: unmounting %s", sig, m->s.dir);
			unmount(m);
			until = clock_ms() + END_WAIT_MS;
			give_up = MIN(give_up, clock_ms() + GIVE_UP_MS);
		}
		if (left > 0 && clock_ms() >= give_up) {
			give_up = UINT64_MAX;
			(void)behind_flush(m);
			deleg_flush(m, FLUSH_MS);
			vclient_give_up(m->c);
			until = clock_ms() + END_WAIT_MS - GIVE_UP_MS;
		}
		for (int i = 0; i < n; i++)
			if (t[i] && pthread_tryjoin_np(t[i], NULL) == 0) {
				t[i] = 0;
				left--;
				if (until == 0)
					until = clock_ms() + END_WAIT_MS;
			}
	}
	if (left > 0) {
		(void)behind_flush(m);
		deleg_flush(m, FLUSH_MS);
		log_warn("%s: %d operations in flight are given up", m->s.dir, left);
		_exit(1);
	}
}

int serve(struct mount *m, void (*ready)(void *ctx), void *ctx)
{
	static const struct fuse_custom_io io = {.writev = write_reply, .read = read_request};
	char *options = xasprintf("fsname=%s,subtype=kuayu,default_permissions%s%s%s", m->s.volume,
				  m->s.allow_other ? ",allow_other" : "", m->s.fuse_options[0] ? "," : "",
				  m->s.fuse_options);
	char *argv[] = {"kuayu", "-o", options, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	int n = (int)m->s.threads, r = -EINVAL;
	pthread_t *t = xcalloc((size_t)n, sizeof(*t));

	m->se = fuse_session_new(&args, &operations, sizeof(operations), m);
	fuse_opt_free_args(&args);
	free(options);
	if (!m->se)
		goto out;
	r = -EIO;
	if (fuse_session_mount(m->se, m->s.dir) < 0 ||
	    fuse_session_custom_io(m->se, &io, fuse_session_fd(m->se)) < 0)
		goto out;
	atomic_store(&m->epoch_works, true);
	r = 0;
	for (int i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, fuse_thread, m) != 0)
			ensure(!"a thread at the start");
	ready(ctx);
	wait_for_end(m, t, n);
	fuse_session_unmount(m->se);
out:
	free(t);
	return r;
}
