/* SPDX-License-Identifier: Apache-2.0 */
/* bench-passthrough: the least a FUSE file system can do, as the limit of what a mount in user space can reach here.
 *
 *   bench-passthrough SOURCE MOUNTPOINT      (foreground; ends when unmounted)
 *
 * One copy, no network: every request becomes the same system call on SOURCE. libfuse's low-level interface, several threads,
 * data by splice where the kernel can, 1 MiB requests, names and attributes cached by the kernel for a second. An inode is a
 * node with an O_PATH descriptor, found by device and number in a hash table under one mutex, freed when the kernel forgets
 * it. Enough for the works of bench-work and tar, not for more: no xattrs, no locks, no special files. */
#define FUSE_USE_VERSION 35
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BUCKETS	      4096u
#define CACHE_SECONDS 1.0
#define PROC_PATH     32

struct node {
	struct node *next;
	int fd; /* O_PATH */
	dev_t dev;
	ino_t ino;
	uint64_t lookups;
};

static struct {
	struct node root, *bucket[BUCKETS];
	pthread_mutex_t mutex;
} fs = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static struct node *node_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &fs.root : (struct node *)(uintptr_t)ino;
}

static void proc_path(char out[PROC_PATH], fuse_ino_t ino)
{
	snprintf(out, PROC_PATH, "/proc/self/fd/%d", node_of(ino)->fd);
}

/* The node of an O_PATH descriptor, which it takes over. */
static struct node *node_get(int fd, const struct stat *st)
{
	struct node **head = &fs.bucket[(st->st_ino ^ st->st_dev) % BUCKETS], *n;

	pthread_mutex_lock(&fs.mutex);
	for (n = *head; n; n = n->next)
		if (n->ino == st->st_ino && n->dev == st->st_dev)
			break;
	if (n) {
		close(fd);
	} else if ((n = calloc(1, sizeof *n))) {
		*n = (struct node){.next = *head, .fd = fd, .dev = st->st_dev, .ino = st->st_ino};
		*head = n;
	} else {
		close(fd);
	}
	if (n)
		n->lookups++;
	pthread_mutex_unlock(&fs.mutex);
	return n;
}

static void node_forget(fuse_ino_t ino, uint64_t lookups)
{
	struct node *n = node_of(ino), **p;

	if (n == &fs.root)
		return;
	pthread_mutex_lock(&fs.mutex);
	n->lookups -= lookups;
	if (!n->lookups) {
		for (p = &fs.bucket[(n->ino ^ n->dev) % BUCKETS]; *p != n; p = &(*p)->next)
			;
		*p = n->next;
		close(n->fd);
		free(n);
	}
	pthread_mutex_unlock(&fs.mutex);
}

static int entry_of(fuse_ino_t parent, const char *name, struct fuse_entry_param *e)
{
	int fd = openat(node_of(parent)->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct node *n;

	*e = (struct fuse_entry_param){.attr_timeout = CACHE_SECONDS, .entry_timeout = CACHE_SECONDS};
	if (fd < 0)
		return errno;
	if (fstatat(fd, "", &e->attr, AT_EMPTY_PATH) < 0) {
		int r = errno;
		close(fd);
		return r;
	}
	n = node_get(fd, &e->attr);
	if (!n)
		return ENOMEM;
	e->ino = (uintptr_t)n;
	return 0;
}

static void reply_entry(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	int r = entry_of(parent, name, &e);

	if (r)
		fuse_reply_err(req, r);
	else
		fuse_reply_entry(req, &e);
}

static void reply_status(fuse_req_t req, int result)
{
	fuse_reply_err(req, result < 0 ? errno : 0);
}

/* ---- names ---- */

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_entry(req, parent, name);
}

static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	node_forget(ino, lookups);
	fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *f)
{
	for (size_t i = 0; i < count; i++)
		node_forget(f[i].ino, f[i].nlookup);
	fuse_reply_none(req);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	if (mkdirat(node_of(parent)->fd, name, mode) < 0)
		fuse_reply_err(req, errno);
	else
		reply_entry(req, parent, name);
}

static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	if (symlinkat(target, node_of(parent)->fd, name) < 0)
		fuse_reply_err(req, errno);
	else
		reply_entry(req, parent, name);
}

static void on_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[4097];
	ssize_t n = readlinkat(node_of(ino)->fd, "", target, sizeof target - 1);

	if (n < 0) {
		fuse_reply_err(req, errno);
	} else {
		target[n] = '\0';
		fuse_reply_readlink(req, target);
	}
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_status(req, unlinkat(node_of(parent)->fd, name, 0));
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_status(req, unlinkat(node_of(parent)->fd, name, AT_REMOVEDIR));
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *to_name,
		      unsigned flags)
{
	reply_status(req, renameat2(node_of(parent)->fd, name, node_of(to)->fd, to_name, flags));
}

static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t to, const char *to_name)
{
	char path[PROC_PATH];

	proc_path(path, ino);
	if (linkat(AT_FDCWD, path, node_of(to)->fd, to_name, AT_SYMLINK_FOLLOW) < 0)
		fuse_reply_err(req, errno);
	else
		reply_entry(req, to, to_name);
}

/* ---- attributes ---- */

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	if (fstatat(node_of(ino)->fd, "", &st, AT_EMPTY_PATH) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_attr(req, &st, CACHE_SECONDS);
}

static int set_times(const char *path, const struct stat *attr, int valid)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	if (valid & FUSE_SET_ATTR_ATIME)
		t[0] = attr->st_atim;
	if (valid & FUSE_SET_ATTR_ATIME_NOW)
		t[0].tv_nsec = UTIME_NOW;
	if (valid & FUSE_SET_ATTR_MTIME)
		t[1] = attr->st_mtim;
	if (valid & FUSE_SET_ATTR_MTIME_NOW)
		t[1].tv_nsec = UTIME_NOW;
	return utimensat(AT_FDCWD, path, t, 0);
}

static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid,
		       struct fuse_file_info *fi)
{
	char path[PROC_PATH];
	int r = 0;

	proc_path(path, ino);
	if (valid & FUSE_SET_ATTR_MODE)
		r = chmod(path, attr->st_mode);
	if (!r && (valid & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		r = fchownat(node_of(ino)->fd, "", valid & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
			     valid & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1, AT_EMPTY_PATH);
	if (!r && (valid & FUSE_SET_ATTR_SIZE))
		r = fi ? ftruncate((int)fi->fh, attr->st_size) : truncate(path, attr->st_size);
	if (!r && (valid & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)))
		r = set_times(path, attr, valid);
	if (r < 0)
		fuse_reply_err(req, errno);
	else
		on_getattr(req, ino, fi);
}

static void on_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;

	if (fstatvfs(node_of(ino)->fd, &st) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}

/* ---- data ---- */

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	char path[PROC_PATH];
	int fd;

	proc_path(path, ino);
	fd = open(path, (fi->flags & ~O_NOFOLLOW) | O_CLOEXEC);
	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	fi->fh = (uint64_t)fd;
	fuse_reply_open(req, fi);
}

static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	int fd = openat(node_of(parent)->fd, name, (fi->flags | O_CREAT | O_CLOEXEC) & ~O_NOFOLLOW, mode), r;
	struct fuse_entry_param e;

	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	fi->fh = (uint64_t)fd;
	r = entry_of(parent, name, &e);
	if (r) {
		close(fd);
		fuse_reply_err(req, r);
	} else {
		fuse_reply_create(req, &e, fi);
	}
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(size);

	data.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	data.buf[0].fd = (int)fi->fh;
	data.buf[0].pos = offset;
	fuse_reply_data(req, &data, FUSE_BUF_SPLICE_MOVE);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t offset,
		     struct fuse_file_info *fi)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(fuse_buf_size(in));
	ssize_t n;

	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	out.buf[0].fd = (int)fi->fh;
	out.buf[0].pos = offset;
	n = fuse_buf_copy(&out, in, 0);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void on_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	reply_status(req, data_only ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

/* ---- folders ---- */

static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int fd = openat(node_of(ino)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		fuse_reply_err(req, errno);
		return;
	}
	fi->fh = (uintptr_t)d;
	fuse_reply_open(req, fi);
}

static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	DIR *d = (DIR *)(uintptr_t)fi->fh;
	char *buffer = malloc(size);
	struct dirent *entry;
	size_t used = 0;

	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	seekdir(d, offset);
	while ((entry = readdir(d))) { /* bound: the buffer is full */
		struct stat st = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};
		size_t n = fuse_add_direntry(req, buffer + used, size - used, entry->d_name, &st, telldir(d));
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static void on_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	closedir((DIR *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static void on_init(void *data, struct fuse_conn_info *conn)
{
	conn->want |= conn->capable & (FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_SPLICE_READ);
	conn->max_write = conn->max_readahead = 1u << 20;
}

static const struct fuse_lowlevel_ops operations = {
	.init = on_init,
	.lookup = on_lookup,
	.forget = on_forget,
	.forget_multi = on_forget_multi,
	.mkdir = on_mkdir,
	.symlink = on_symlink,
	.readlink = on_readlink,
	.unlink = on_unlink,
	.rmdir = on_rmdir,
	.rename = on_rename,
	.link = on_link,
	.getattr = on_getattr,
	.setattr = on_setattr,
	.statfs = on_statfs,
	.open = on_open,
	.create = on_create,
	.read = on_read,
	.write_buf = on_write,
	.release = on_release,
	.fsync = on_fsync,
	.opendir = on_opendir,
	.readdir = on_readdir,
	.releasedir = on_releasedir,
};

int main(int argc, char **argv)
{
	char *words[] = {argv[0], "-odefault_permissions,allow_other,fsname=bench-passthrough", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(2, words);
	struct fuse_loop_config config = {.max_idle_threads = 8};
	struct fuse_session *session;
	struct rlimit files;
	int r = 1;

	if (argc != 3) {
		fprintf(stderr, "Usage: bench-passthrough SOURCE MOUNTPOINT\n");
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max; /* each known inode holds a descriptor */
		setrlimit(RLIMIT_NOFILE, &files);
	}
	umask(0);
	fs.root.fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fs.root.fd < 0) {
		perror(argv[1]);
		return 1;
	}
	session = fuse_session_new(&args, &operations, sizeof operations, NULL);
	if (session && fuse_set_signal_handlers(session) == 0) {
		if (fuse_session_mount(session, argv[2]) == 0) {
			r = fuse_session_loop_mt(session, &config);
			fuse_session_unmount(session);
		}
		fuse_remove_signal_handlers(session);
	}
	if (session)
		fuse_session_destroy(session);
	fuse_opt_free_args(&args);
	return r ? 1 : 0;
}
