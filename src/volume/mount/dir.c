/* SPDX-License-Identifier: Apache-2.0 */
/* Reading folders. A brick's listing goes on behind a name, the kernel's behind a number: a handle numbers the entries as they come (1 is ".", 2 "..")
 * and remembers at which name each page began, so that seekdir comes back to the page. A folder that was read from its beginning to its end
 * under one lease is known completely afterwards (names.c).
 *
 * Entries with attributes become known to the kernel (readdirplus) unless a name of the folder was changed from here since the page was
 * fetched: then the page may be older than what the kernel knows. */
#include "volume/mount/internal.h"

#define PAGE_BYTES   (128u << 10)
#define LIST_BYTES   (512u << 10) /* folder_list: a folder larger than this is not listed for its names' sake */
#define PAGES_MAX    (1u << 20)
#define IN_REPLY_MAX 512

struct page {
	uint64_t first; /* number of its first entry */
	char cookie[VFS_NAME_MAX + 1];
};

struct handle {
	pthread_mutex_t lock;
	struct page *page;
	uint32_t n_pages;
	struct buf data; /* of the newest page fetched */
	size_t at;
	uint64_t number; /* of the entry at `at` */
	bool fetched, more;
	char last[VFS_NAME_MAX + 1]; /* newest name taken from data */
	/* when data was asked for */
	uint64_t pushes, changes;
	bool leased;
	/* names so far, while everything read was under one lease and nothing changed */
	bool pure;
	uint64_t pure_tick, pure_changes;
	struct names names;
};

uint64_t changes_of(struct node *n)
{
	uint64_t c;

	pthread_mutex_lock(&n->lock);
	c = n->changes;
	pthread_mutex_unlock(&n->lock);
	return c;
}

/* One page into *data (emptied first). */
static int fetch(struct mount *m, struct node *folder, const char *cookie, uint32_t bytes,
		 struct vfs_result *res, bool *ret_leased)
{
	struct vfs_op op = {.type = VFS_READDIR, .ino = folder->ino, .len = bytes};

	op_name(&op, cookie);
	return ask_brick(m, &op, res, ret_leased);
}

static int add_all(struct mount *m, const struct node *folder, struct names *s, const struct buf *data)
{
	struct vfs_entry e;
	size_t at = 0;
	int r;

	while ((r = vfs_entry_decode(data->data, data->len, &at, &e)) == 0)
		if (names_add(m, s, name_hash(m, e.name, e.name_len),
			      vol_id_eq(&e.ino.folder, &folder->ino.folder) ? e.ino.num : 0) < 0)
			return -ENOSPC;
	return r == -ENOENT ? 0 : r;
}

/* Hands a set of names over to the folder. Inside the gate. */
static void know(struct mount *m, struct node *folder, struct names *s, uint64_t changes)
{
	pthread_mutex_lock(&folder->lock);
	if (folder->changes == changes && !folder->complete) {
		names_done(m, &folder->names);
		folder->names = *s;
		*s = (struct names){0};
		cache_keep(folder);
		folder->complete = true;
	}
	pthread_mutex_unlock(&folder->lock);
}

void folder_list(struct mount *m, struct node *folder)
{
	struct tick t = tick_of(m, &folder->ino, NULL);
	uint64_t changes = changes_of(folder);
	struct vfs_result res = {0};
	struct names s = {0};
	bool leased;

	if (fetch(m, folder, "", LIST_BYTES, &res, &leased) == 0 && leased && !(res.flags & VFS_MORE) &&
	    add_all(m, folder, &s, &res.data) == 0) {
		gate_in(m);
		if (tick_same(m, &t)) {
			know(m, folder, &s, changes);
			(void)cache_learn(m, folder, &res.parent, true, NULL);
		}
		gate_out(m);
	}
	names_done(m, &s);
	vfs_result_done(&res);
}

void ll_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *h = calloc(1, sizeof(*h));
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);

	if (!h) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_init(&h->lock, NULL);
	fi->fh = (uint64_t)(uintptr_t)h;
	atomic_fetch_add(&n->opens, 1);
	if (fuse_reply_open(req, fi) < 0) {
		atomic_fetch_sub(&n->opens, 1);
		free(h);
	}
}

void ll_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;
	struct mount *m = mount_of(req);

	atomic_fetch_sub(&node_of(m, ino)->opens, 1);
	names_done(m, &h->names);
	buf_done(&h->data);
	pthread_mutex_destroy(&h->lock);
	free(h->page);
	free(h);
	fuse_reply_err(req, 0);
}

/* ---- pages of a handle ---- */

static int load(struct mount *m, struct node *folder, struct handle *h, const char *cookie, uint64_t number)
{
	struct tick t = tick_of(m, &folder->ino, NULL);
	struct vfs_result res = {0};
	bool leased;
	int r;

	h->pushes = atomic_load(&m->pushes);
	h->changes = changes_of(folder);
	if (number == 0) {
		h->pure = true;
		h->pure_tick = t.a;
		h->pure_changes = h->changes;
		names_done(m, &h->names);
	}
	r = fetch(m, folder, cookie, PAGE_BYTES, &res, &leased);
	if (r < 0) {
		vfs_result_done(&res);
		return r;
	}
	h->leased = leased;
	h->more = res.flags & VFS_MORE;
	buf_done(&h->data);
	h->data = res.data;
	res.data = (struct buf){0};
	h->at = 0;
	h->number = number;
	h->fetched = true;
	vfs_result_done(&res);
	gate_in(m);
	h->pure = h->pure && leased && t.a == h->pure_tick && h->changes == h->pure_changes &&
		  tick_same(m, &t) && add_all(m, folder, &h->names, &h->data) == 0;
	if (h->pure && !h->more) {
		know(m, folder, &h->names, h->pure_changes);
		h->pure = false;
	}
	gate_out(m);
	return 0;
}

static int note_page(struct handle *h, const char *cookie, uint64_t first)
{
	if (h->n_pages && h->page[h->n_pages - 1].first >= first)
		return 0;
	if (h->n_pages >= PAGES_MAX)
		return -EOVERFLOW;
	if ((h->n_pages & (h->n_pages - 1)) == 0)
		h->page = xrealloc(h->page, (h->n_pages ? h->n_pages * 2 : 1) * sizeof(*h->page));
	h->page[h->n_pages].first = first;
	snprintf(h->page[h->n_pages].cookie, sizeof(h->page->cookie), "%s", cookie);
	h->n_pages++;
	return 0;
}

static void take_last(struct handle *h, const struct vfs_entry *e)
{
	memcpy(h->last, e->name, MIN((size_t)e->name_len, sizeof(h->last) - 1));
	h->last[MIN((size_t)e->name_len, sizeof(h->last) - 1)] = '\0';
}

/* Makes `at` stand at entry number `want`, or at the end (0 entries left and no more). */
static int stand_at(struct mount *m, struct node *folder, struct handle *h, uint64_t want)
{
	struct vfs_entry e;
	int r;

	if (!h->fetched || want == 0 || want < h->number) {
		const char *cookie = "";
		uint64_t first = 0;

		if (want == 0)
			h->n_pages = 0;
		for (uint32_t i = h->n_pages; i > 0 && want > 0; i--)
			if (h->page[i - 1].first <= want) {
				cookie = h->page[i - 1].cookie;
				first = h->page[i - 1].first;
				break;
			}
		r = load(m, folder, h, cookie, first);
		if (r < 0 || (r = note_page(h, cookie, first)) < 0)
			return r;
	}
	while (h->number < want || (h->at >= h->data.len && h->more)) {
		size_t at = h->at;

		r = vfs_entry_decode(h->data.data, h->data.len, &at, &e);
		if (r == 0 && h->number < want) {
			take_last(h, &e);
			h->at = at;
			h->number++;
			continue;
		}
		if (r != -ENOENT)
			return r;
		if (!h->more)
			return 0;
		{
			char cookie[VFS_NAME_MAX + 1];

			memcpy(cookie, h->last, sizeof(cookie));
			r = load(m, folder, h, cookie, h->number);
			if (r < 0 || (r = note_page(h, cookie, h->number)) < 0)
				return r;
		}
	}
	return 0;
}

/* ---- replies ---- */

struct reply {
	fuse_req_t req;
	struct mount *m;
	struct node *folder;
	char *out;
	size_t size, len;
	bool plus, link; /* link: the kernel may take the entries for its own */
	bool keep;
	struct node *child[IN_REPLY_MAX];
	uint32_t n;
};

static bool emit(struct reply *p, const char *name, struct vol_ino ino, uint32_t mode,
		 const struct vfs_attr *a, off_t next)
{
	struct fuse_entry_param e = {0};
	size_t left = p->size - p->len, need;
	struct node *n = NULL;
	struct vfs_attr now;
	bool keep;

	need = p->plus ? fuse_add_direntry_plus(p->req, NULL, 0, name, NULL, 0)
		       : fuse_add_direntry(p->req, NULL, 0, name, NULL, 0);
	if (need > left || p->n == IN_REPLY_MAX)
		return false;
	e.attr.st_ino = ino_number(&ino);
	e.attr.st_mode = mode;
	if (!p->plus) {
		p->len += fuse_add_direntry(p->req, p->out + p->len, left, name, &e.attr, next);
		return true;
	}
	if (a && p->link)
		n = node_lookup(p->m, &ino);
	if (n && behind_busy(n)) { /* its size is not known before it is drained */
		node_forget(p->m, n, 1);
		n = NULL;
	}
	keep = n && cache_learn(p->m, n, a, p->keep, &now);
	if (n && !end_may_tell(n, &now)) { /* to be looked up */
		node_forget(p->m, n, 1);
		n = NULL;
	}
	if (n) {
		to_stat(p->m, &now, &e.attr);
		e.ino = node_id(n);
		e.generation = n->generation;
		e.attr_timeout = keep ? KEEP_S : 0;
		e.entry_timeout = p->keep && atomic_load(&p->m->epoch_works) ? KEEP_S : 0;
		p->child[p->n++] = n;
		if (ino.num == 0)
			moved_listed(n, p->folder);
	}
	p->len += fuse_add_direntry_plus(p->req, p->out + p->len, left, name, &e, next);
	return true;
}

static int fill(struct reply *p, struct handle *h, uint64_t off)
{
	struct vfs_entry e;
	size_t at;
	int r;

	if (off == 0 && !emit(p, ".", p->folder->ino, S_IFDIR, NULL, 1))
		return 0;
	if (off <= 1) {
		struct vol_ino up = {.folder = p->folder->attr.up};

		if (!emit(p, "..", up, S_IFDIR, NULL, 2))
			return 0;
	}
	for (;;) {
		char name[VFS_NAME_MAX + 1];

		at = h->at;
		r = vfs_entry_decode(h->data.data, h->data.len, &at, &e);
		if (r < 0)
			return r == -ENOENT ? 0 : -EIO;
		memcpy(name, e.name, e.name_len);
		name[e.name_len] = '\0';
		if (!emit(p, name, e.ino, e.mode, e.has_attr ? &e.attr : NULL, (off_t)(h->number + 3)))
			return 0;
		take_last(h, &e);
		h->at = at;
		h->number++;
	}
}

static void read_folder(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi,
			bool plus)
{
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;
	struct mount *m = mount_of(req);
	struct reply p = {.req = req,
			  .m = m,
			  .folder = node_of(m, ino),
			  .size = size,
			  .plus = plus,
			  .out = malloc(size)};
	int r;

	pthread_mutex_lock(&h->lock);
	r = p.out ? stand_at(m, p.folder, h, off <= 2 ? 0 : (uint64_t)off - 2) : -ENOMEM;
	gate_in(m);
	if (r == 0) {
		p.link = changes_of(p.folder) == h->changes && !atomic_load(&p.folder->retired);
		p.keep = p.link && h->leased && atomic_load(&m->pushes) == h->pushes;
		if (p.keep) {
			pthread_mutex_lock(&p.folder->lock);
			cache_keep(p.folder);
			pthread_mutex_unlock(&p.folder->lock);
		}
		r = fill(&p, h, (uint64_t)off);
	}
	pthread_mutex_unlock(&h->lock); /* behind the reply the handle may be gone */
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		r = fuse_reply_buf(req, p.out, p.len);
	gate_out(m);
	for (uint32_t i = 0; i < p.n && r < 0; i++)
		node_forget(m, p.child[i], 1);
	free(p.out);
}

void ll_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_folder(req, ino, size, off, fi, false);
}

void ll_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_folder(req, ino, size, off, fi, true);
}

void ll_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct mount *m = mount_of(req);
	struct node *n = node_of(m, ino);
	int r, late;

	(void)datasync, (void)fi;
	deleg_careful(m, n);
	r = node_sync(m, n, (uint32_t)fuse_req_ctx(req)->pid);
	late = deleg_error(n);
	fuse_reply_err(req, late ? -late : -r);
}
