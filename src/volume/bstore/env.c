/* SPDX-License-Identifier: Apache-2.0 */
/* env: the LMDB environment: opening, growing, renewing the read transaction, checksums of values.
 *
 * LMDB follows page numbers without checking them, so a damaged file can end the process, or hide keys. Therefore each value carries a CRC32C of key and value,
 * and before the file is opened for use a child process walks its pages (walk.c) for a bounded time: if the child dies or finds damage, opening is refused with
 * a text that says what to do. What lies behind that bound, or is damaged while the brick runs, is met by the checksum, or by a crash of the brick, whose restart walks again. */
#include "volume/bstore/internal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define WALK_MS	    2000 /* of the child; it is killed after twice that */
#define VALUE_SUM   4u
#define VALUE_PLAIN (VALUE_MAX + 8192u)

int mdb_errno(int r)
{
	switch (r) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL:
	case ENOSPC:
		return -ENOSPC;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_PANIC:
	case MDB_INVALID:
	case MDB_VERSION_MISMATCH:
		return -EBADMSG;
	case ENOMEM:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

/* As mdb_errno; damage is said once. */
int env_errno(struct bstore *b, int r)
{
	int err = mdb_errno(r);

	if (err == -EBADMSG && !b->failed)
		bstore_fail(b, err,
			    "reading the metadata store (damaged: move the brick's folder away and let it be "
			    "filled anew)");
	return err;
}

static uint32_t value_sum(const MDB_val *k, const void *data, size_t len)
{
	return crc32c(crc32c(0, k->mv_data, k->mv_size), data, len);
}

/* Checks the value and leaves its checksum out of v. */
bool env_value_ok(const MDB_val *k, MDB_val *v)
{
	uint32_t sum;

	if (v->mv_size < VALUE_SUM)
		return false;
	v->mv_size -= VALUE_SUM;
	memcpy(&sum, (const uint8_t *)v->mv_data + v->mv_size, VALUE_SUM);
	return sum == value_sum(k, v->mv_data, v->mv_size);
}

int env_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *k, const void *data, size_t len)
{
	MDB_val v = {len + VALUE_SUM, NULL};
	uint32_t sum = value_sum(k, data, len);
	int r = mdb_put(txn, dbi, k, &v, MDB_RESERVE);

	if (r != 0)
		return r;
	if (len)
		memcpy(v.mv_data, data, len);
	memcpy((uint8_t *)v.mv_data + len, &sum, VALUE_SUM);
	return 0;
}

static void on_assert(MDB_env *env, const char *text)
{
	log_error("bstore: the metadata store is damaged: %s", text);
}

int env_refresh(struct bstore *b)
{
	int r;

	if (b->cursor)
		mdb_cursor_close(b->cursor);
	b->cursor = NULL;
	if (b->read)
		mdb_txn_abort(b->read);
	b->read = NULL;
	r = mdb_txn_begin(b->env, NULL, MDB_RDONLY, &b->read);
	if (r == 0)
		r = mdb_cursor_open(b->read, b->dbi, &b->cursor);
	return mdb_errno(r);
}

int env_room(struct bstore *b)
{
	MDB_envinfo info;
	MDB_stat st;
	int r = mdb_env_info(b->env, &info);

	if (r == 0)
		r = mdb_env_stat(b->env, &st);
	if (r != 0)
		return mdb_errno(r);
	if ((info.me_last_pgno + 1) * st.ms_psize < info.me_mapsize / 2)
		return 0;
	mdb_cursor_close(b->cursor);
	mdb_txn_abort(b->read);
	b->cursor = NULL;
	b->read = NULL;
	r = mdb_env_set_mapsize(b->env, info.me_mapsize * 2);
	if (r != 0)
		log_error("bstore: the metadata map cannot grow to %zu bytes: %s", info.me_mapsize * 2,
			  mdb_strerror(r));
	return env_refresh(b);
}

static int walk(const char *path, struct err *e)
{
	_cleanup_free_ char *file = xasprintf("%s/data.mdb", path);
	uint64_t end = clock_ms() + 2 * WALK_MS;
	pid_t pid = fork();
	int status = 0, r;

	if (pid < 0)
		return 0; /* no memory for a child: then without */
	if (pid == 0) {
		/* Neither outlives the brick, nor keeps its lock and connections. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_range(3, ~0u, 0);
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		signal(SIGABRT, SIG_DFL);
		_exit(walk_ok(file, clock_ms() + WALK_MS) ? 0 : 3);
	}
	while ((r = waitpid(pid, &status, WNOHANG)) == 0 || (r < 0 && errno == EINTR)) {
		if (clock_ms() > end) {
			kill(pid, SIGKILL); /* the disk is slow: no verdict */
			waitpid(pid, &status, 0);
			return 0;
		}
		usleep(500);
	}
	if (r < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
		return 0;
	return err_set(
		e, -EBADMSG,
		"the metadata store %s is damaged: move the brick's folder away and let it be filled anew",
		path);
}

static int sync_folder(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int env_open(struct bstore *b, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/meta", b->dir);
	/* The log's folder is made after this: without it nothing was ever kept, and a power loss in the middle of the very first start may have left anything. */
	bool first = faccessat(b->dir_fd, "log", F_OK, 0) < 0 && errno == ENOENT;
	MDB_txn *t;
	int r = first ? dir_remove(path, e) : 0;

	if (r == 0)
		r = dir_make(path, 0700, e);
	if (r == 0)
		r = first ? sync_folder(b->dir) : walk(path, e);
	if (r < 0)
		return r;
	r = mdb_env_create(&b->env);
	if (r == 0)
		r = mdb_env_set_mapsize(b->env, b->o.map_bytes ? b->o.map_bytes : MAP_BYTES);
	if (r == 0)
		r = mdb_env_open(b->env, path, MDB_NOTLS | MDB_NORDAHEAD, 0600);
	if (r == 0) {
		mdb_env_set_assert(b->env, on_assert);
		r = mdb_txn_begin(b->env, NULL, 0, &t);
	}
	if (r == 0) {
		r = mdb_dbi_open(t, NULL, 0, &b->dbi);
		if (r == 0)
			r = mdb_txn_commit(t);
		else
			mdb_txn_abort(t);
	}
	if (r == 0)
		r = mdb_env_sync(b->env, 1);
	if (r == 0 && first && sync_folder(path) < 0)
		r = EIO;
	if (r != 0)
		return err_set(e, mdb_errno(r) ? mdb_errno(r) : -EIO,
			       "the metadata store %s cannot be opened: %s; move the brick's folder away and "
			       "let it be filled anew",
			       path, mdb_strerror(r));
	return env_refresh(b);
}

void env_close(struct bstore *b)
{
	if (b->cursor)
		mdb_cursor_close(b->cursor);
	if (b->read)
		mdb_txn_abort(b->read);
	if (b->env)
		mdb_env_close(b->env);
	b->cursor = NULL;
	b->read = NULL;
	b->env = NULL;
}
