/* SPDX-License-Identifier: Apache-2.0 */
/* strays: data files that no key speaks of. The disk may have a new file whose record was lost with the power or was cut off again, and one whose unlink it
 * lost though the record stayed. Nobody reads them, their numbers are never given again, so they would only take room, for ever.
 *
 * A walk over the group's 256 folders, a bounded number of entries a call; readdir may or may not show what is made meanwhile, and what is made has keys. Only of
 * a group whose keys are complete: while it catches up they are not. One walk at a time; a call for another group begins anew. Loop thread only. */
#include "volume/bstore/internal.h"

#include <dirent.h>
#include <fcntl.h>

#define FOLDERS 256u

/* FOLDER.NUM, as files.c writes it, in the folder where it puts it. */
static bool parse(const char *name, uint32_t folder, struct vol_ino *ret)
{
	char hex[33], again[64], *end;

	if (strlen(name) < 34 || name[32] != '.')
		return false;
	memcpy(hex, name, 32);
	hex[32] = 0;
	if (vol_id_parse(hex, &ret->folder) < 0)
		return false;
	ret->num = strtoull(name + 33, &end, 10);
	vol_id_text(&ret->folder, hex);
	snprintf(again, sizeof(again), "%s.%llu", hex, (unsigned long long)ret->num);
	return streq(again, name) && (hash_fnv32(ret->folder.b, 16) & 0xff) == folder;
}

/* 1: no stripe of it has data. */
static int is_stray(struct replica *r, const struct vol_ino *ino)
{
	struct vol_ino found = *ino;
	uint64_t off = 0;
	int err = replica_stripe_next(r, &found, &off);

	if (err < 0)
		return err == -ENOENT ? 1 : err;
	return !vol_ino_eq(&found, ino);
}

void strays_end(struct bstore *b)
{
	if (b->strays.dir)
		closedir(b->strays.dir);
	b->strays = (struct strays){0};
}

/* The next folder that there is; -ENOENT: that was the last. */
static int next_folder(struct bstore *b)
{
	struct strays *s = &b->strays;
	char path[16];
	int fd;

	for (; s->folder < FOLDERS; s->folder++) {
		snprintf(path, sizeof(path), "%03x/%02x", s->group & 0xfff, s->folder & 0xff);
		fd = openat(b->files.data_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return -errno;
		s->dir = fdopendir(fd);
		if (!s->dir) {
			close(fd);
			return -ENOMEM;
		}
		s->folder++;
		return 0;
	}
	return -ENOENT;
}

static int step(struct bstore *b, uint32_t entries, uint64_t *ret_removed)
{
	struct strays *s = &b->strays;
	struct blob *bl = &b->files.blob;
	int r = 0;

	while (entries > 0) {
		const struct dirent *e;
		struct vol_ino ino;

		if (!s->dir && (r = next_folder(b)) < 0)
			return r;
		errno = 0;
		e = readdir(s->dir);
		if (!e && errno)
			return -errno;
		if (!e) {
			closedir(take_ptr(s->dir));
			continue; /* at most FOLDERS times */
		}
		entries--;
		if (!parse(e->d_name, s->folder - 1, &ino))
			continue;
		r = is_stray(&b->group[s->group].replica, &ino);
		if (r > 0) {
			r = bl->drop(bl, s->group, &ino);
			(*ret_removed)++;
		}
		if (r < 0)
			return r;
	}
	return 1;
}

int bstore_strays(struct bstore *b, uint32_t group, uint32_t entries, uint64_t *ret_removed)
{
	int r;

	ensure(group < b->o.n_groups && b->group[group].member && !b->group[group].replica.catching);
	*ret_removed = 0;
	if (!b->strays.on || b->strays.group != group) {
		strays_end(b);
		b->strays = (struct strays){.on = true, .group = group};
	}
	r = b->failed ? b->failed : step(b, entries, ret_removed);
	if (r <= 0)
		strays_end(b);
	return r == -ENOENT ? 0 : r;
}
