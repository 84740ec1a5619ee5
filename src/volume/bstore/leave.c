/* SPDX-License-Identifier: Apache-2.0 */
/* leave: groups that come to this brick and go while the store is open. A group that goes is forgotten at once (bstore_leave); its keys and files are removed
 * in steps of a bounded number of keys (bstore_remove), between which the loop does other things. The log says with a cut to 0 that older records of
 * the group are void, so that nothing of them comes back when it is a member again; the caller waits for bstore_settle before that. A crash in the
 * middle: recovery leaves out records of groups this brick is no member of, and what is left over is found again (bstore_left_over). */
#include "volume/bstore/internal.h"

#include <dirent.h>
#include <fcntl.h>

int bstore_join(struct bstore *b, uint32_t group)
{
	struct bgroup *g = &b->group[group];
	int r;

	ensure(group < b->o.n_groups && !g->member);
	r = b->failed ? b->failed
		      : replica_init(&g->replica, group, b->o.stripe_size, &b->kv, &b->files.blob);
	if (r == 0 && (r = replica_saved_committed(&g->replica, &g->committed)) < 0)
		replica_done(&g->replica);
	if (r < 0)
		return r;
	g->member = true;
	bstore_set_sure(b, group, false);
	return 0;
}

int bstore_leave(struct bstore *b, uint32_t group)
{
	struct bgroup *g = &b->group[group];
	int r;

	ensure(group < b->o.n_groups && g->member);
	r = files_settle(&b->files);
	if (r == 0)
		r = bstore_flush(b);
	g->member = false;
	undo_ring_done(&g->undo);
	g->committed = 0;
	ring_drop(b, group, 0);
	replica_done(&g->replica);
	bstore_set_sure(b, group, false);
	g->removed_len = 0;
	bstore_mark_dirty(b);
	if (r == 0)
		r = log_cut_mark(&b->log, group, 0, 0);
	return r == 0 ? bstore_flush(b) : r;
}

/* The group's first key behind `removed`. -ENOENT: none. */
static int next_key(struct bstore *b, uint32_t group, struct bgroup *g, const uint8_t **ret, size_t *ret_len)
{
	uint8_t first[2] = {(uint8_t)(group >> 8), (uint8_t)group};
	const void *key, *value, *from = g->removed_len ? g->removed : first;
	size_t key_len, len, from_len = g->removed_len ? g->removed_len : sizeof(first);
	int r = b->kv.seek(&b->kv, from, from_len, g->removed_len > 0, sizeof(first), &key, &key_len, &value,
			   &len);

	if (r < 0)
		return r;
	if (key_len < 3)
		return -ENOENT;
	if (key_len > sizeof(g->removed))
		return -EIO;
	*ret = key;
	*ret_len = key_len;
	return 0;
}

bool bstore_left_over(struct bstore *b, uint32_t group)
{
	struct bgroup *g = &b->group[group];
	char folder[16];
	const uint8_t *key;
	size_t len;

	if (group >= b->o.n_groups || g->member)
		return false;
	g->removed_len = 0;
	snprintf(folder, sizeof(folder), "%03x", group & 0xfff);
	return next_key(b, group, g, &key, &len) == 0 ||
	       faccessat(b->files.data_fd, folder, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Files whose keys a crash took away. Up to *left of them; the folders stay, as a checkpoint may be about to sync them (bstore_removed). */
static int remove_folder(struct bstore *b, const char *path, uint32_t *left)
{
	int fd = openat(b->files.data_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *e;
	int r = 0;

	if (!d) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r == -ENOENT ? 0 : r;
	}
	while (r == 0 && *left > 0 && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if (unlinkat(fd, e->d_name, 0) < 0 && errno != ENOENT)
			r = -errno;
		(*left)--;
	}
	closedir(d);
	return r;
}

static int remove_files(struct bstore *b, uint32_t group, uint32_t left)
{
	char path[16];
	int r = 0;

	for (unsigned i = 0; i < 256 && r == 0 && left > 0; i++) {
		snprintf(path, sizeof(path), "%03x/%02x", group & 0xfff, i & 0xff);
		r = remove_folder(b, path, &left);
	}
	return r < 0 ? r : left == 0;
}

void bstore_removed(struct bstore *b, uint32_t group)
{
	char path[16];

	for (unsigned i = 0; i <= 256; i++) {
		snprintf(path, sizeof(path), i < 256 ? "%03x/%02x" : "%03x", group & 0xfff, i & 0xff);
		(void)unlinkat(b->files.data_fd, path,
			       AT_REMOVEDIR); /* one that is not empty, or not there, stays so */
	}
}

/* Stripes, and what they were before a full delta, name the files that there are. */
static int remove_file(struct bstore *b, uint32_t group, const uint8_t *key, size_t len, struct vol_ino *last)
{
	struct vol_ino ino;

	if ((key[2] != 'S' && key[2] != 'J') || len != 31)
		return 0;
	memcpy(ino.folder.b, key + 3, 16);
	memcpy(&ino.num, key + 19, 8);
	ino.num = be64toh(ino.num);
	if (vol_ino_eq(&ino, last))
		return 0;
	*last = ino;
	return b->files.blob.drop(&b->files.blob, group, &ino);
}

int bstore_remove(struct bstore *b, uint32_t group, uint32_t keys)
{
	struct bgroup *g = &b->group[group];
	struct vol_ino last = {0};

	ensure(group < b->o.n_groups && !g->member);
	if (b->failed)
		return b->failed;
	bstore_mark_dirty(b);
	for (uint32_t i = 0; i < keys; i++) {
		const uint8_t *key;
		size_t len;
		int r = next_key(b, group, g, &key, &len);

		if (r == -ENOENT)
			return remove_files(b, group, keys);
		if (r < 0)
			return r;
		memcpy(g->removed, key, len);
		g->removed_len = len;
		r = remove_file(b, group, g->removed, len, &last);
		if (r == 0)
			r = b->kv.del(&b->kv, g->removed, len);
		if (r < 0)
			return r;
	}
	return 1;
}
