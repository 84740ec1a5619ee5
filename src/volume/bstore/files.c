/* SPDX-License-Identifier: Apache-2.0 */
/* files: data/GGG/XX/FOLDER.NUM, one plain sparse file a slice, so that an operator sees what is there. GGG is the group in hex, XX a hash
 * of the folder (so that a folder's files lie together), FOLDER 32 hex digits, NUM decimal.
 *
 * Descriptors are kept in a table with an LRU list; a file object lives on by its reference count while a sync thread still works on it.
 * When a dirty one is evicted the next checkpoint (or sync, where its data is not in the log) syncs the whole file system instead of single
 * files. Checkpoints and syncs have flags of their own, so that neither counts on the other, which may not have ended yet.
 * A small write whose record is in the log waits in memory until the owner has sent what the turn has to say (files_settle): opening and writing the
 * file is a good part of what a write to a new file costs, and need not stand between a record and its acknowledgement. Replay writes it anew, so for a
 * crash it makes no difference; everything that looks at the files, or makes them durable, settles first.
 * Reading what is not there, or behind the end, gives zeros. Errors go up as they are: the member leaves the in-sync set.
 * Loop thread only, but for bfile_unref. */
#include "volume/bstore/internal.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

static uint32_t ino_hash(uint32_t group, const struct vol_ino *ino)
{
	uint64_t a, c;

	memcpy(&a, ino->folder.b, 8);
	memcpy(&c, ino->folder.b + 8, 8);
	a = (a ^ c * 0x9e3779b97f4a7c15ull ^ ino->num * 0xff51afd7ed558ccdull ^ group) *
	    0xc4ceb9fe1a85ec53ull;
	return (uint32_t)(a >> 32);
}

static void lru_del(struct bfile *f)
{
	f->lru_prev->lru_next = f->lru_next;
	f->lru_next->lru_prev = f->lru_prev;
}

static void lru_add(struct files *t, struct bfile *f)
{
	f->lru_next = t->lru.lru_next;
	f->lru_prev = &t->lru;
	f->lru_next->lru_prev = f;
	t->lru.lru_next = f;
}

struct bfile *bfile_unref(struct bfile *f)
{
	if (f && --f->refs == 0) {
		close(f->fd);
		free(f);
	}
	return NULL;
}

static struct bfile **find(struct files *t, uint32_t group, const struct vol_ino *ino)
{
	struct bfile **at = &t->bucket[ino_hash(group, ino) & t->mask];

	while (*at && ((*at)->group != group || !vol_ino_eq(&(*at)->ino, ino)))
		at = &(*at)->hash_next;
	return at;
}

static void clean(struct files *t, struct bfile *f, bool large)
{
	if (large) {
		t->n_large -= f->dirty_large;
		f->dirty_large = f->new_for_sync = false;
	} else {
		t->n_dirty -= f->dirty;
		f->dirty = f->new_for_checkpoint = false;
	}
}

static void take_out(struct files *t, struct bfile **at)
{
	struct bfile *f = *at;

	*at = f->hash_next;
	lru_del(f);
	t->n--;
	clean(t, f, false);
	clean(t, f, true);
	bfile_unref(f);
}

/* The least recently used one goes; if possible a clean one. */
static void evict(struct files *t)
{
	struct bfile *f = t->lru.lru_prev;

	for (unsigned tries = 0; tries < 16 && f->lru_prev != &t->lru && f->dirty; tries++)
		f = f->lru_prev;
	if (f->dirty)
		f = t->lru.lru_prev;
	t->evicted_dirty |= f->dirty;
	t->evicted_large |= f->dirty_large;
	take_out(t, find(t, f->group, &f->ino));
}

#define PATH_ROOM 80
static void path_of(uint32_t group, const struct vol_ino *ino, char out[PATH_ROOM])
{
	static const char hex[16] = "0123456789abcdef";
	uint32_t folder = hash_fnv32(ino->folder.b, 16) & 0xff;
	char digit[20], *p = out;
	uint64_t num = ino->num;
	int n = 0;

	/* GGG/XX/FOLDER.NUM, by hand: printf took as long as half of the opening */
	for (int shift = 8; shift >= 0; shift -= 4)
		*p++ = hex[group >> shift & 15];
	*p++ = '/';
	*p++ = hex[folder >> 4];
	*p++ = hex[folder & 15];
	*p++ = '/';
	for (size_t i = 0; i < sizeof(ino->folder.b); i++) {
		*p++ = hex[ino->folder.b[i] >> 4];
		*p++ = hex[ino->folder.b[i] & 15];
	}
	*p++ = '.';
	do
		digit[n++] = (char)('0' + num % 10);
	while ((num /= 10) > 0);
	while (n > 0)
		*p++ = digit[--n];
	*p = '\0';
}

/* Both folders above a slice. Their own entries are made durable at once: this happens 256 times a group. */
static int make_folders(struct files *t, const char *path)
{
	char dir[PATH_ROOM];
	const size_t ends[] = {3, 6};

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		_cleanup_close_ int fd = -1;

		snprintf(dir, sizeof(dir), "%.*s", (int)ends[i], path);
		if (mkdirat(t->data_fd, dir, 0700) == 0) {
			snprintf(dir, sizeof(dir), "%.*s", i == 0 ? 0 : 3, path);
			fd = i == 0 ? dup(t->data_fd)
				    : openat(t->data_fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			if (fd < 0 || fsync(fd) < 0)
				return -errno;
		} else if (errno != EEXIST) {
			return -errno;
		}
	}
	return 0;
}

/* Nobody else makes files here: what is not there and is made is new. */
static int make_slice(struct files *t, const char *path)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	int fd = openat(t->data_fd, path, flags, 0600), r;

	if (fd < 0 && errno == ENOENT) {
		r = make_folders(t, path);
		if (r < 0)
			return r;
		fd = openat(t->data_fd, path, flags, 0600);
	}
	return fd >= 0 ? fd : -errno;
}

/* Somebody put a folder, a link or a device where a slice was: it is as if the file had been removed, which the checksums tell. What it is nobody knows, so it is kept. */
static int set_aside(struct files *t, const char *path)
{
	char aside[PATH_ROOM + 8];

	snprintf(aside, sizeof(aside), "%s.aside", path);
	if (renameat(t->data_fd, path, t->data_fd, aside) < 0 && errno != ENOENT)
		return -errno;
	log_error(
		"bstore: %s/data/%s is no file and is now %s.aside; its bytes are fetched from other copies",
		t->b->dir, path, path);
	return 0;
}

static int open_there(struct files *t, const char *path)
{
	struct stat st;
	int fd = openat(t->data_fd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), r;

	if (fd >= 0 && (fstat(fd, &st) < 0 || S_ISREG(st.st_mode)))
		return fd;
	if (fd < 0 && errno != EISDIR && errno != ELOOP && errno != ENXIO && errno != ENODEV)
		return -errno;
	if (fd >= 0)
		close(fd);
	r = set_aside(t, path);
	return r < 0 ? r : -ENOENT;
}

static int open_slice(struct files *t, uint32_t group, const struct vol_ino *ino, enum files_open how,
		      bool *ret_created)
{
	char path[PATH_ROOM];
	int fd = -EEXIST;

	path_of(group, ino, path);
	if (how == FILES_NEW)
		fd = make_slice(t, path);
	if (fd == -EEXIST) {
		fd = open_there(t, path);
		if (fd != -ENOENT || how == FILES_THERE)
			return fd;
		fd = make_slice(t, path);
	}
	*ret_created = fd >= 0;
	return fd;
}

int files_fd(struct files *t, uint32_t group, const struct vol_ino *ino, enum files_open how,
	     struct bfile **ret)
{
	struct bfile **at = find(t, group, ino), *f = *at;
	bool created = false;
	int fd;

	if (f) {
		if (t->lru.lru_next != f) {
			lru_del(f);
			lru_add(t, f);
		}
		*ret = f;
		return 0;
	}
	while (t->n >= t->n_max)
		evict(t);
	fd = open_slice(t, group, ino, how, &created);
	if (fd < 0)
		return fd;
	f = calloc(1, sizeof(*f));
	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	*f = (struct bfile){.refs = 1, .fd = fd, .group = group, .ino = *ino};
	f->new_for_sync = f->new_for_checkpoint = created;
	at = find(t, group, ino);
	f->hash_next = *at;
	*at = f;
	lru_add(t, f);
	t->n++;
	*ret = f;
	return 0;
}

int files_look(struct files *t, uint32_t group, const struct vol_ino *ino)
{
	struct bfile **at;
	struct stat open_one, named;
	char path[PATH_ROOM];
	int r = files_settle(t);

	if (r < 0)
		return r;
	at = find(t, group, ino);
	if (!*at)
		return 0;
	path_of(group, ino, path);
	if (fstat((*at)->fd, &open_one) < 0 ||
	    (fstatat(t->data_fd, path, &named, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT))
		return -errno;
	if (open_one.st_nlink > 0 && named.st_ino == open_one.st_ino)
		return 0;
	t->evicted_dirty |= (*at)->dirty;
	t->evicted_large |= (*at)->dirty_large;
	take_out(t, at);
	return 0;
}

static void mark(struct files *t, struct bfile *f, bool large)
{
	if (!f->dirty)
		t->n_dirty++;
	f->dirty = true;
	if (large && !f->dirty_large) {
		t->n_large++;
		f->dirty_large = true;
	}
}

/* ---- write-back ----
 * The kernel by itself begins when GBs are dirty, then stops writers for as long as the disk needs. Large writes are handed to the disk early instead, by a
 * thread that may wait for it, so that the loop thread need not and a sync at the end finds little to do. */

void writeback_thread(struct bstore *b)
{
	for (uint32_t i = 0; i < b->files.n_begin; i++)
		sync_file_range(b->files.begin[i]->fd, 0, 0,
				SYNC_FILE_RANGE_WRITE); /* errors are met by the sync */
}

static void wrote_large(struct files *t, struct bfile *f, uint32_t len)
{
	f->written += len;
	if (f->written < WRITEBACK_BYTES || t->n_begin >= WRITEBACK_FILES || worker_busy(&t->b->writeback))
		return;
	f->written = 0;
	f->refs++;
	t->begin[t->n_begin++] = f;
}

/* Once a flush: takes what the thread is done with, gives it more. */
void files_begin_writeback(struct files *t)
{
	struct worker *w = &t->b->writeback;

	if (t->n_begin == 0)
		return;
	if (worker_take(w, false)) {
		while (t->n_begin > 0)
			bfile_unref(t->begin[--t->n_begin]);
	} else if (!worker_busy(w)) {
		worker_give(w);
	}
}

/* ---- the blob ---- */

static int write_now(struct files *t, uint32_t group, const struct vol_ino *ino, uint64_t off,
		     const uint8_t *p, uint32_t len, bool large)
{
	struct bfile *f;
	int r;

	r = files_fd(t, group, ino, off == 0 ? FILES_NEW : FILES_MAKE, &f);
	if (r < 0)
		return r;
	mark(t, f, large);
	if (large)
		wrote_large(t, f, len);
	while (len) {
		ssize_t n = pwrite(f->fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (uint32_t)n;
	}
	return 0;
}

int files_settle(struct files *t)
{
	struct bstore *b = t->b;

	for (; t->later_at < t->later_n; t->later_at++) {
		struct later *l = &t->later[t->later_at];
		int r = write_now(t, l->group, &l->ino, l->off, t->later_data + l->at, l->len, false);

		if (r == 0)
			continue;
		b->stats.error = r;
		if (r != -ENOSPC && r != -EDQUOT)
			bstore_fail(b, r, "writing data");
		return r;
	}
	t->later_at = t->later_n = t->later_bytes = 0;
	return 0;
}

/* Takes the write if it may wait: its bytes come with the record into the log, from where a replay writes them. (Of records that are applied while
 * catching up a replay does not.) */
static bool put_off(struct files *t, uint32_t group, const struct vol_ino *ino, uint64_t off,
		    const void *data, uint32_t len)
{
	struct bstore *b = t->b;

	if (!t->later_on || b->recording_seq == 0 || b->recording_large || len > LATER_BYTES)
		return false;
	if (t->later_n == LATER_MAX || t->later_bytes + len > LATER_BYTES)
		return false;
	memcpy(t->later_data + t->later_bytes, data, len);
	t->later[t->later_n++] = (struct later){group, t->later_bytes, len, *ino, off};
	t->later_bytes += len;
	return true;
}

static int slice_write(struct blob *bl, uint32_t group, const struct vol_ino *ino, uint64_t off,
		       const void *data, uint32_t len)
{
	struct files *t = container_of(bl, struct files, blob);
	int r;

	if (t->frozen || put_off(t, group, ino, off, data, len))
		return 0;
	r = files_settle(t);
	if (r < 0 || put_off(t, group, ino, off, data, len))
		return r;
	return write_now(t, group, ino, off, data, len, t->b->recording_large);
}

static int slice_read(struct blob *bl, uint32_t group, const struct vol_ino *ino, uint64_t off, void *data,
		      uint32_t len)
{
	struct files *t = container_of(bl, struct files, blob);
	uint8_t *p = data;
	struct bfile *f;
	int r = files_settle(t);

	if (r == 0)
		r = files_fd(t, group, ino, FILES_THERE, &f);
	if (r < 0 && r != -ENOENT)
		return r;
	while (r == 0 && len) {
		ssize_t n = pread(f->fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		p += n;
		off += (uint64_t)n;
		len -= (uint32_t)n;
	}
	memset(p, 0, len);
	return 0;
}

/* Before bytes from off on go away: 1 and the file and its size; 0 = it has none there (or is not to be touched). */
static int longer_than(struct files *t, uint32_t group, const struct vol_ino *ino, uint64_t off,
		       struct bfile **ret, uint64_t *size)
{
	struct stat st;
	int r;

	if (t->frozen)
		return 0;
	r = files_settle(t);
	if (r < 0)
		return r;
	r = files_fd(t, group, ino, FILES_THERE, ret);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (fstat((*ret)->fd, &st) < 0)
		return -errno;
	*size = (uint64_t)st.st_size;
	if (*size <= off)
		return 0;
	mark(t, *ret, false);
	return 1;
}

static int slice_trim(struct blob *bl, uint32_t group, const struct vol_ino *ino, uint64_t off)
{
	struct bfile *f;
	uint64_t size;
	int r = longer_than(container_of(bl, struct files, blob), group, ino, off, &f, &size);

	if (r <= 0)
		return r;
	return ftruncate(f->fd, (off_t)off) < 0 ? -errno : 0;
}

static int write_zeros(int fd, uint64_t off, uint64_t len)
{
	static const uint8_t zeros[65536];

	while (len) {
		ssize_t n = pwrite(fd, zeros, MIN(len, sizeof(zeros)), (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int slice_punch(struct blob *bl, uint32_t group, const struct vol_ino *ino, uint64_t off, uint64_t len)
{
	struct bfile *f;
	uint64_t size;
	int r = longer_than(container_of(bl, struct files, blob), group, ino, off, &f, &size);

	if (r <= 0)
		return r;
	if (off + len >= size)
		return ftruncate(f->fd, (off_t)off) < 0 ? -errno : 0;
	if (fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0)
		return 0;
	return errno == EOPNOTSUPP || errno == ENOSYS ? write_zeros(f->fd, off, len) : -errno;
}

/* An unlinked name that comes back after a power loss is an orphan file without keys; its content is not believed without checksums. */
static int slice_drop(struct blob *bl, uint32_t group, const struct vol_ino *ino)
{
	struct files *t = container_of(bl, struct files, blob);
	struct bfile **at;
	char path[PATH_ROOM];
	int r;

	if (t->frozen)
		return 0;
	r = files_settle(t); /* else it would come back */
	if (r < 0)
		return r;
	at = find(t, group, ino);
	if (*at)
		take_out(t, at);
	path_of(group, ino, path);
	if (unlinkat(t->data_fd, path, 0) < 0 && errno != ENOENT)
		return errno == EISDIR ? set_aside(t, path) : -errno;
	return 0;
}

/* ---- handing dirty files to a sync or a checkpoint ---- */

void files_take_dirty(struct files *t, bool large, struct sync_job *j)
{
	size_t want = large ? t->n_large : t->n_dirty;
	bool *evicted = large ? &t->evicted_large : &t->evicted_dirty;

	j->whole = *evicted || want > SYNC_FILES_MAX;
	*evicted = false;
	j->file = xcalloc(want + 1, sizeof(*j->file));
	j->n_files = 0;
	for (struct bfile *f = t->lru.lru_next; f != &t->lru && j->n_files < want; f = f->lru_next) {
		if (large ? !f->dirty_large : !f->dirty)
			continue;
		f->refs++;
		j->file[j->n_files++] =
			(struct sync_file){f, large ? f->new_for_sync : f->new_for_checkpoint};
		clean(t, f, large);
	}
}

void files_give_back(struct files *t, struct sync_job *j, bool ok, bool large)
{
	for (size_t i = 0; i < j->n_files; i++) {
		struct bfile *f = j->file[i].file;

		if (!ok && *find(t, f->group, &f->ino) == f)
			mark(t, f, large);
		bfile_unref(f);
	}
	if (!ok)
		*(large ? &t->evicted_large : &t->evicted_dirty) = true;
	free(j->file);
	j->file = NULL;
	j->n_files = 0;
}

/* Sync threads: makes the folder entry of a slice durable. */
int files_sync_folder(int data_fd, const struct bfile *f)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_ROOM];

	path_of(f->group, &f->ino, path);
	path[6] = 0;
	fd = openat(data_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* ---- life ---- */

int files_open(struct files *t, struct bstore *b, int dir_fd, struct err *e)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	*t = (struct files){.b = b, .mask = 4 * FILES_OPEN_MAX - 1};
	t->n_max = getrlimit(RLIMIT_NOFILE, &lim) == 0 ? CLAMP((size_t)lim.rlim_cur / 4, 64, FILES_OPEN_MAX)
						       : 256;
	t->lru.lru_next = t->lru.lru_prev = &t->lru;
	t->bucket = xcalloc(t->mask + 1, sizeof(struct bfile *));
	t->later_data = xcalloc(1, LATER_BYTES);
	t->blob = (struct blob){slice_write, slice_read, slice_trim, slice_punch, slice_drop};
	if (mkdirat(dir_fd, "data", 0700) < 0 && errno != EEXIST)
		return err_errno(e, -errno, "cannot make the data folder");
	t->data_fd = openat(dir_fd, "data", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return t->data_fd < 0 ? err_errno(e, -errno, "cannot open the data folder") : 0;
}

void files_close(struct files *t)
{
	if (!t->bucket)
		return;
	for (struct bfile *f = t->lru.lru_next, *next; f != &t->lru; f = next) {
		next = f->lru_next;
		bfile_unref(f);
	}
	free(t->bucket);
	free(t->later_data);
	t->bucket = NULL;
	close(t->data_fd);
}
