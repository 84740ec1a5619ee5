/* SPDX-License-Identifier: Apache-2.0 */
/* dir: whose folder it is, and what became of the life before. brick.json names format, volume and node, gives the folder a random number
 * of its own and counts how often it was opened, by which an old copy of it is known; `lock` keeps a second process out. A page in RUN (tmpfs), mapped, says after a crash what had been written to the log, so a
 * restart knows whether it has all of it; it names the machine's boot, so that it does not outlive a power loss wherever RUN lies. A clean stop
 * leaves the same knowledge in the file `clean`, which the next start takes away. */
#include "volume/bstore/internal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <dirent.h>
#include <sys/stat.h>

#define RUN_MAGIC "kuayurun"

struct run_page {
	char magic[8];
	uint8_t instance[16];
	char boot[40];
	_Atomic uint64_t flushed;
	_Atomic uint32_t failed, ready;
	_Atomic uint8_t sure[VOL_GROUPS_MAX];
};

/* ---- brick.json ---- */

static int folder_is_empty(int dir_fd, bool *ret)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	*ret = true;
	for (struct dirent *de; (de = readdir(d));)
		if (!streq(de->d_name, ".") && !streq(de->d_name, "..") && !streq(de->d_name, "lost+found") &&
		    !streq(de->d_name, "lock"))
			*ret = false;
	closedir(d);
	return 0;
}

static int write_brick_json(const char *path, const json_t *o, struct err *e)
{
	_cleanup_free_ char *text = js_text(o);

	return file_write_atomic(path, text, strlen(text), 0600, e);
}

static int make_brick_json(struct bstore *b, const char *path, struct err *e)
{
	_cleanup_json_ json_t *o = json_object();
	char uuid[33], instance[33];
	struct vol_id id;
	bool empty = false;
	int r = folder_is_empty(b->dir_fd, &empty);

	if (r < 0)
		return err_errno(e, r, "cannot read %s", b->dir);
	if (!empty)
		return err_set(e, -EEXIST, "%s has no brick.json and is not empty: give an empty folder",
			       b->dir);
	random_bytes(id.b, sizeof(id.b));
	vol_id_text(&id, instance);
	vol_id_text(&b->o.uuid, uuid);
	memcpy(b->instance, id.b, sizeof(b->instance));
	js_set_new(o, "format", json_integer(BSTORE_FORMAT));
	js_set_new(o, "volume", json_string(uuid));
	js_set_new(o, "node", json_string(b->o.node ? b->o.node : ""));
	js_set_new(o, "instance", json_string(instance));
	js_set_new(o, "stripeSize", json_integer(b->o.stripe_size));
	js_set_new(o, "opened", json_integer(1));
	b->opened = 1;
	return write_brick_json(path, o, e);
}

/* A full disk is no reason to refuse it: then an old copy made since the last time is not known as one. */
static void count_opening(struct bstore *b, const char *path, json_t *o)
{
	struct err e = {0};

	b->opened_before = (uint64_t)MAX(js_int(o, "opened", 0), (int64_t)0);
	b->opened = b->opened_before + 1;
	js_set_new(o, "opened", json_integer((json_int_t)b->opened));
	if (write_brick_json(path, o, &e) < 0) {
		log_warn("bstore: %s", e.text);
		b->opened = b->opened_before;
	}
}

static int check_brick_json(struct bstore *b, const char *path, const char *text, size_t len, struct err *e)
{
	_cleanup_json_ json_t *o = NULL;
	const char *uuid, *instance, *node;
	struct vol_id id, inst;
	char want[33];

	if (js_parse_new(text, len, &o, NULL) < 0 || !(uuid = js_str(o, "volume")) ||
	    vol_id_parse(uuid, &id) < 0 || !(instance = js_str(o, "instance")) ||
	    vol_id_parse(instance, &inst) < 0 || js_int(o, "format", 0) < 1)
		return err_set(e, -EBADMSG,
			       "%s is damaged: move the brick's folder away and let it be filled anew", path);
	if (js_int(o, "format", 0) > BSTORE_FORMAT)
		return err_set(e, -EPROTONOSUPPORT,
			       "%s has format %d, this program knows %d: use a newer one", path,
			       (int)js_int(o, "format", 0), BSTORE_FORMAT);
	vol_id_text(&b->o.uuid, want);
	if (!vol_id_eq(&id, &b->o.uuid))
		return err_set(e, -EEXIST, "%s belongs to volume %s, not %s: give another folder", b->dir,
			       uuid, want);
	node = js_str_or(o, "node", "");
	if (b->o.node && node[0] && !streq(node, b->o.node))
		return err_set(e, -EEXIST,
			       "%s is the folder of node %.63s, this is %.63s: give each its own (were they "
			       "swapped?), "
			       "or an empty one",
			       b->dir, node, b->o.node);
	if (js_int(o, "stripeSize", b->o.stripe_size) != b->o.stripe_size)
		return err_set(e, -EBADMSG, "%s was made for stripes of %d bytes, the volume has %u", b->dir,
			       (int)js_int(o, "stripeSize", 0), b->o.stripe_size);
	memcpy(b->instance, inst.b, sizeof(b->instance));
	count_opening(b, path, o);
	return 0;
}

void bstore_identity(struct bstore *b, struct vol_id *ret_instance, uint64_t *ret_before, uint64_t *ret_now)
{
	memcpy(ret_instance->b, b->instance, sizeof(ret_instance->b));
	*ret_before = b->opened_before;
	*ret_now = b->opened;
}

int dir_open(struct bstore *b, bool *ret_fresh, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/brick.json", b->dir), *text = NULL;
	size_t len = 0;
	int r;

	r = dir_make(b->dir, 0700, e);
	if (r < 0)
		return r;
	b->dir_fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->dir_fd < 0)
		return err_errno(e, -errno, "cannot open %s", b->dir);
	b->lock_fd = openat(b->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (b->lock_fd < 0)
		return err_errno(e, -errno, "cannot open %s/lock", b->dir);
	if (flock(b->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, -EBUSY, "%s is in use by another process", b->dir);
	*ret_fresh = access(path, F_OK) < 0 && errno == ENOENT;
	if (*ret_fresh)
		return make_brick_json(b, path, e);
	r = file_read(path, 65536, &text, &len, e);
	return r < 0 ? r : check_brick_json(b, path, text, len, e);
}

/* ---- the page in RUN ---- */

static void boot_id(char out[40])
{
	_cleanup_free_ char *text = NULL;

	memset(out, 0, 40);
	if (file_read("/proc/sys/kernel/random/boot_id", 100, &text, NULL, NULL) == 0)
		snprintf(out, 40, "%.36s", text);
}

static char *run_path_of(const struct bstore *b)
{
	struct vol_id id;
	char text[33];

	memcpy(id.b, b->instance, sizeof(id.b));
	vol_id_text(&id, text);
	return xasprintf("%s/bstore-%s", b->o.run_dir, text);
}

static void read_page(struct bstore *b, struct run_state *ret)
{
	_cleanup_free_ char *path = b->o.run_dir ? run_path_of(b) : NULL, *data = NULL;
	struct run_page p;
	char boot[40];
	size_t len = 0;

	if (!path || file_read(path, 65536, &data, &len, NULL) < 0 || len != sizeof(p))
		return;
	memcpy(&p, data, sizeof(p));
	boot_id(boot);
	if (memcmp(p.magic, RUN_MAGIC, 8) != 0 || memcmp(p.instance, b->instance, 16) != 0 ||
	    memcmp(p.boot, boot, 40) != 0 || p.failed || !p.ready)
		return;
	ret->same = true;
	ret->flushed = p.flushed;
	memcpy(ret->sure, (const void *)p.sure, sizeof(ret->sure));
}

/* Text of `clean`: the log's end, then a digit a group, then a checksum over both. */
static void read_clean(struct bstore *b, struct run_state *ret)
{
	_cleanup_free_ char *path = xasprintf("%s/clean", b->dir), *text = NULL;
	char sure[VOL_GROUPS_MAX + 1];
	unsigned long long lsn;
	unsigned sum;
	size_t len;
	int end = 0;

	if (file_read(path, 65536, &text, &len, NULL) < 0)
		return;
	unlinkat(b->dir_fd, "clean", 0);
	fsync(b->dir_fd);
	if (sscanf(text, "%20llu %1024[01]%n %x", &lsn, sure, &end, &sum) != 3 ||
	    sum != crc32c(0, text, (size_t)end))
		return;
	ret->same = true;
	ret->flushed = lsn;
	memset(ret->sure, 0, sizeof(ret->sure));
	for (size_t i = 0; sure[i]; i++)
		ret->sure[i] = sure[i] == '1';
}

void run_read(struct bstore *b, struct run_state *ret)
{
	*ret = (struct run_state){0};
	read_page(b, ret);
	read_clean(b, ret);
}

int clean_set(struct bstore *b)
{
	_cleanup_free_ char *path = xasprintf("%s/clean", b->dir);
	_cleanup_buf_ struct buf t = {0};

	buf_addf(&t, "%llu ", (unsigned long long)log_end(&b->log));
	for (uint32_t i = 0; i < b->o.n_groups; i++)
		buf_addf(&t, "%d", b->group[i].sure);
	buf_addf(&t, " %x\n", crc32c(0, t.data, t.len));
	return file_write_atomic(path, t.data, t.len, 0600, NULL);
}

int run_open(struct bstore *b, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct run_page *p;
	int r;

	if (!b->o.run_dir)
		return 0;
	r = dir_make(b->o.run_dir, 0755, e);
	if (r < 0)
		return r;
	b->run_path = run_path_of(b);
	fd = open(b->run_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*p)) < 0)
		return err_errno(e, -errno, "cannot make %s", b->run_path);
	p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return err_errno(e, -errno, "cannot map %s", b->run_path);
	p->ready = 0;
	memcpy(p->magic, RUN_MAGIC, 8);
	memcpy(p->instance, b->instance, 16);
	boot_id(p->boot);
	p->failed = 0;
	for (uint32_t i = 0; i < VOL_GROUPS_MAX; i++)
		p->sure[i] = i < b->o.n_groups && b->group[i].sure;
	b->run = p;
	run_set(b);
	p->ready = 1;
	return 0;
}

/* After each write to the log, before anything of it is acknowledged. */
void run_set(struct bstore *b)
{
	if (b->run)
		b->run->flushed = lsn_make(b->log.seg_no, b->log.at);
}

void run_set_failed(struct bstore *b)
{
	if (b->run)
		b->run->failed = 1;
}

void bstore_set_sure(struct bstore *b, uint32_t group, bool sure)
{
	ensure(group < b->o.n_groups);
	b->group[group].sure = sure;
	if (b->run)
		b->run->sure[group] = sure;
}

bool bstore_group_sure(struct bstore *b, uint32_t group)
{
	return group < b->o.n_groups && b->group[group].sure;
}

/* The page stays: after a clean stop it says the same as `clean`. */
void run_close(struct bstore *b)
{
	if (b->run)
		munmap(b->run, sizeof(*b->run));
	b->run = NULL;
	free(b->run_path);
	b->run_path = NULL;
}
