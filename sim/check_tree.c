/* SPDX-License-Identifier: Apache-2.0 */
/* metadata_tree: when nothing fails any more and all operations over several groups have ended, the keys of all groups are one tree. Every folder but the
 * root has exactly one name, and it lies in the folder that its parent pointer says; every name's inode exists, has its kind and lives where it must;
 * a file has as many links as names, a folder two and one a subfolder; nothing is without a name, no name is held, from every folder the root is
 * reached, no data is left of what is gone or was cut off.
 *
 * After an election among members that lost power, records that were not synced may be gone in one group and not in another: then it is not judged. */
#include "sim/files.h"

#define INODES_MAX 8192
#define V_INODE	   1

struct tinode {
	struct vol_ino ino;
	struct vfs_attr a;
	uint32_t group, names, subfolders;
	struct vol_id in; /* folder of its (last) name */
};
struct tree {
	struct sim *s;
	struct tinode *node;
	uint32_t n;
};

static void ino_of(const uint8_t *key, struct vol_ino *ret)
{
	memcpy(ret->folder.b, key, 16);
	memcpy(&ret->num, key + 16, 8);
	ret->num = be64toh(ret->num);
}

static struct tinode *find(struct tree *t, const struct vol_ino *ino)
{
	for (uint32_t i = 0; i < t->n; i++)
		if (vol_ino_eq(&t->node[i].ino, ino))
			return &t->node[i];
	return NULL;
}

#define ill(t, fmt, ...)                                                \
	do {                                                            \
		violation((t)->s, "metadata_tree", fmt, ##__VA_ARGS__); \
		return;                                                 \
	} while (0)
#define ID(ino) (ino)->folder.b[14], (ino)->folder.b[15], (unsigned long long)(ino)->num

static void add_inode(struct tree *t, uint32_t g, const struct vol_ino *ino)
{
	struct tinode *n = &t->node[t->n];
	struct vfs v;

	if (t->n == INODES_MAX)
		return;
	*n = (struct tinode){.ino = *ino, .group = g};
	ensure(vfs_init(&v, &t->s->truth[g].f->r, t->s->files->map) == 0);
	if (vfs_stat(&v, ino, &n->a) < 0)
		ill(t, "inode ..%02x%02x:%llu cannot be read", ID(ino));
	t->n++;
	if (vol_owner(t->s->files->map, &ino->folder) != g)
		ill(t, "inode ..%02x%02x:%llu lies in group %u", ID(ino), g);
}

static void gather_inodes(struct tree *t)
{
	struct vol_ino root = {vol_root, 0};

	for (uint8_t g = 0; g < t->s->o.groups; g++) {
		const uint8_t *k = NULL, *v;
		size_t kn, n;

		while (fstate_next(t->s->truth[g].f, 'I', &k, &kn, &v, &n)) {
			struct vol_ino ino;

			ino_of(k + 3, &ino);
			if (n > 9 && v[8] == V_INODE)
				add_inode(t, g, &ino);
		}
	}
	if (!find(t, &root)) /* it is there without being written */
		add_inode(t, vol_owner(t->s->files->map, &vol_root), &root);
}

static void one_entry(struct tree *t, uint32_t g, const uint8_t *k, const uint8_t *v, size_t n)
{
	struct vol_ino folder = {0}, ino;
	struct tinode *dir, *x;
	uint16_t type;

	memcpy(folder.folder.b, k + 3, 16);
	if (n < 8 + 28)
		ill(t, "a name of ..%02x%02x:%llu is damaged", ID(&folder));
	v += 8;
	memcpy(&type, v + 2, 2);
	memcpy(&ino, v + 4, sizeof(ino));
	dir = find(t, &folder);
	x = find(t, &ino);
	if (!dir || dir->a.nlink == 0)
		ill(t, "name %c lies in folder ..%02x%02x:%llu, which is %s", k[19], ID(&folder),
		    dir ? "dead" : "not there");
	if (dir->group != g)
		ill(t, "name %c of ..%02x%02x:%llu lies in group %u", k[19], ID(&folder), g);
	if (v[1] != 0)
		ill(t, "name %c of ..%02x%02x:%llu is held (flags %u) by nobody", k[19], ID(&folder), v[1]);
	if (!x)
		ill(t, "name %c of ..%02x%02x:%llu leads to ..%02x%02x:%llu, which is not there", k[19],
		    ID(&folder), ID(&ino));
	if ((x->a.mode & S_IFMT) != type)
		ill(t, "name %c of ..%02x%02x:%llu has another kind than its inode", k[19], ID(&folder));
	x->names++;
	x->in = folder.folder;
	dir->subfolders += S_ISDIR(type);
}

static void gather_names(struct tree *t)
{
	for (uint8_t g = 0; g < t->s->o.groups && !t->s->failed; g++) {
		const uint8_t *k = NULL, *v;
		size_t kn, n;

		while (!t->s->failed && fstate_next(t->s->truth[g].f, 'E', &k, &kn, &v, &n))
			one_entry(t, g, k, v, n);
	}
}

static void judge_folder(struct tree *t, struct tinode *x)
{
	struct tinode *up = x;
	bool is_root = vol_id_eq(&x->ino.folder, &vol_root);

	if (x->names != (is_root ? 0 : 1))
		ill(t, "folder ..%02x%02x:%llu has %u names", ID(&x->ino), x->names);
	if (x->a.nlink != 2 + x->subfolders)
		ill(t, "folder ..%02x%02x:%llu has %u links and %u subfolders", ID(&x->ino), x->a.nlink,
		    x->subfolders);
	if (!is_root && !vol_id_eq(&x->a.up, &x->in))
		ill(t, "folder ..%02x%02x:%llu has another parent pointer than its name", ID(&x->ino));
	for (uint32_t i = 0; i <= t->n && up && !vol_id_eq(&up->ino.folder, &vol_root); i++) {
		struct vol_ino at = {up->a.up, 0};

		if (t->s->trace && i > 0 && i < 10)
			trace(t->s, "  ..%02x%02x lies in ..%02x%02x", up->ino.folder.b[14],
			      up->ino.folder.b[15], at.folder.b[14], at.folder.b[15]);
		up = i == t->n ? NULL : find(t, &at);
	}
	if (!up)
		ill(t, "from folder ..%02x%02x:%llu the root is not reached", ID(&x->ino));
}

static void judge(struct tree *t)
{
	for (uint32_t i = 0; i < t->n && !t->s->failed; i++) {
		struct tinode *x = &t->node[i];

		if (S_ISDIR(x->a.mode))
			judge_folder(t, x);
		else if (x->names == 0)
			ill(t, "inode ..%02x%02x:%llu has no name and %u links", ID(&x->ino), x->a.nlink);
		else if (x->names != x->a.nlink)
			ill(t, "inode ..%02x%02x:%llu has %u names and %u links", ID(&x->ino), x->names,
			    x->a.nlink);
	}
}

/* Was a write there that nobody knows the end of? What it leaves behind the end of a striped file may stay. */
static bool unfinished_write(const struct sim *s, const struct vol_ino *ino)
{
	for (size_t i = 0; i < s->files->n_ops; i++)
		if (s->files->op[i].op.type == VFS_WRITE && s->files->op[i].maybe &&
		    vol_ino_eq(&s->files->op[i].op.ino, ino))
			return true;
	return false;
}

static void judge_data(struct tree *t)
{
	for (uint8_t g = 0; g < t->s->o.groups; g++) {
		const uint8_t *k = NULL, *v;
		size_t kn, n;

		while (fstate_next(t->s->truth[g].f, 'S', &k, &kn, &v, &n)) {
			struct vol_ino ino;
			struct tinode *x;
			uint32_t index;
			uint64_t end;

			ino_of(k + 3, &ino);
			memcpy(&index, k + 27, 4);
			end = (uint64_t)be32toh(index) * FSTRIPE + (n - 14) / 4 * VOL_BLOCK;
			x = find(t, &ino);
			if (unfinished_write(t->s, &ino))
				continue;
			if (!x)
				ill(t, "group %u has data of ..%02x%02x:%llu, which is gone", g, ID(&ino));
			if (end > (x->a.size + VOL_BLOCK - 1) / VOL_BLOCK * VOL_BLOCK)
				ill(t, "group %u has data of ..%02x%02x:%llu up to %llu, its size is %llu", g,
				    ID(&ino), (unsigned long long)end, (unsigned long long)x->a.size);
		}
	}
}

void check_tree(struct sim *s)
{
	struct tree t = {.s = s};

	if (s->files->lost)
		return;
	t.node = xcalloc(INODES_MAX, sizeof(*t.node));
	gather_inodes(&t);
	if (!s->failed)
		gather_names(&t);
	if (!s->failed)
		judge(&t);
	if (!s->failed)
		judge_data(&t);
	free(t.node);
}

/* No operation over several groups is on its way, nothing waits to be removed or repaired. */
bool files_quiet(struct sim *s, char why[256])
{
	bool lost = s->files->lost; /* then some may stay for ever */

	for (uint8_t g = 0; g < s->o.groups; g++) {
		const uint8_t *k = NULL, *v;
		size_t kn, n;

		if (!lost && fstate_next(s->truth[g].f, 'T', &k, &kn, &v, &n)) {
			snprintf(why, 256, "group %u: an operation over several groups is left, in state %u",
				 g, v[9]);
			return false;
		}
		k = NULL;
		if (!lost && fstate_next(s->truth[g].f, 'O', &k, &kn, &v, &n)) {
			snprintf(why, 256, "group %u: something without a name is left", g);
			return false;
		}
		for (uint8_t b = 0; b < s->o.n; b++) {
			k = NULL;
			if (!fstate_next(s->brick[b].m[g].st.f, 'B', &k, &kn, &v, &n))
				continue;
			snprintf(why, 256, "group %u: brick %u has bad blocks", g, b);
			return false;
		}
	}
	return true;
}
