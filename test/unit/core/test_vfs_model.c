/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations over several groups against a simple file system: a table of (folder, name) -> node. Up to four operations over two
 * groups are in flight at once; their drivers are lost, run again, their messages come twice and come late. After each run everything is
 * finished and the keys of all groups must be exactly the model's tree: names, kinds, link counts, parents, contents; then everything is removed
 * and nothing may be left. A failure prints its seed: KUAYU_SEED=N runs that one, KUAYU_SEEDS=N that many. */
#include <fcntl.h>
#include <sys/stat.h>

#include "test.h"

#include "vfs_world.h"

#define NODES	48
#define NAMES	4
#define PENDING 4
#define CELLS	64 /* of 4 KiB a file */
#define STRIPE	65536u

struct node {
	bool used, dir, dead; /* dead: a folder without a name */
	struct vol_ino ino;
	unsigned names; /* of a file */
	int up;		/* of a folder */
	uint32_t cells; /* size */
	uint8_t cell[CELLS];
	bool gone; /* reaped */
};

struct pending {
	bool used, committed, lost;
	struct vfs_op op;
	uint32_t group;
	uint8_t id[16];
	int dir, dir2, name, name2, node, node2; /* node: target or moved; node2: replaced */
	bool folder_rename;
	int decided; /* what it would have answered at the step before the last: a refusal is decided there */
};

struct play {
	struct world *w;
	uint64_t seed, x;
	struct node node[NODES];
	int n;
	int at[NODES][NAMES]; /* node there, -1 = none */
	struct pending p[PENDING];
	unsigned done, again;
};

static const char *const name_of[NAMES] = {"a", "b", "c", "d"};

#define check(y, cond)                                                                                      \
	do {                                                                                                \
		if (!(cond))                                                                                \
			fail_msg("seed %llu: line %d: %s", (unsigned long long)(y)->seed, __LINE__, #cond); \
	} while (0)

static void trace(const struct play *y, const char *what, const struct pending *p, int r)
{
	if (getenv("KUAYU_TRACE"))
		printf("%s: slot %u op %d flags %u (%d %s) (%d %s) node %d -> %d\n", what, p->op.id.slot,
		       p->op.type, p->op.flags, p->dir, name_of[p->name], p->dir2, name_of[p->name2], p->node,
		       r);
}

static uint32_t pick(struct play *y, uint32_t n)
{
	y->x ^= y->x << 13;
	y->x ^= y->x >> 7;
	y->x ^= y->x << 17;
	return (uint32_t)(y->x >> 20) % n;
}

static int new_node(struct play *y, bool dir, struct vol_ino ino)
{
	int i = y->n++;

	check(y, i < NODES);
	y->node[i] = (struct node){.used = true, .dir = dir, .ino = ino, .up = -1};
	for (int k = 0; k < NAMES; k++)
		y->at[i][k] = -1;
	return i;
}

static bool empty(const struct play *y, int dir)
{
	for (int k = 0; k < NAMES; k++)
		if (y->at[dir][k] >= 0)
			return false;
	return true;
}

static bool below(const struct play *y, int dir, int top)
{
	for (; dir >= 0; dir = y->node[dir].up)
		if (dir == top)
			return true;
	return false;
}

/* Does an operation in flight hold this name, or is it about to change this node? */
static bool name_hot(const struct play *y, int dir, int name)
{
	for (int i = 0; i < PENDING; i++) {
		const struct pending *p = &y->p[i];

		if (p->used && ((p->dir == dir && p->name == name) || (p->dir2 == dir && p->name2 == name)))
			return true;
	}
	return false;
}

static bool node_hot(const struct play *y, int node)
{
	for (int i = 0; i < PENDING; i++) {
		const struct pending *p = &y->p[i];

		if (p->used && (p->node == node || p->node2 == node))
			return true;
		if (p->used && p->dir2 >= 0 && !p->committed && y->at[p->dir2][p->name2] == node)
			return true; /* came there since the rename began: it is what will be replaced */
	}
	return false;
}

/* Somebody may be making a name in there that is not seen yet. */
static bool inside_hot(const struct play *y, int dir)
{
	for (int i = 0; i < PENDING; i++)
		if (y->p[i].used && (y->p[i].dir == dir || y->p[i].dir2 == dir))
			return true;
	return false;
}

/* ---- what the model expects, and does ---- */

static void put_name(struct play *y, int dir, int name, int node)
{
	check(y, y->at[dir][name] < 0 && !y->node[dir].dead);
	y->at[dir][name] = node;
	if (y->node[node].dir)
		y->node[node].up = dir;
	else
		y->node[node].names++;
}

static void take_name(struct play *y, int dir, int name)
{
	int node = y->at[dir][name];

	check(y, node >= 0);
	y->at[dir][name] = -1;
	if (!y->node[node].dir)
		y->node[node].names--;
}

static void kill_dir(struct play *y, int node)
{
	check(y, y->node[node].dir && empty(y, node) && !y->node[node].dead);
	y->node[node].dead = true;
	y->node[node].up = -1;
}

static int expect_rename(const struct play *y, const struct pending *p, uint32_t flags)
{
	int x = y->at[p->dir][p->name], r;

	if (y->node[p->dir].dead || x < 0)
		return -ENOENT;
	if (x == p->dir2)
		return -EINVAL;
	if (y->node[p->dir2].dead)
		return -ENOENT;
	r = y->at[p->dir2][p->name2];
	if (flags & VFS_EXCHANGE && r < 0)
		return -ENOENT;
	if (r < 0)
		return 0;
	if (flags & VFS_NOREPLACE)
		return -EEXIST;
	if (r == x || flags & VFS_EXCHANGE)
		return 0;
	if (y->node[x].dir != y->node[r].dir)
		return y->node[x].dir ? -ENOTDIR : -EISDIR;
	return y->node[r].dir && !empty(y, r) ? -ENOTEMPTY : 0;
}

static void model_rename(struct play *y, const struct pending *p)
{
	int x = y->at[p->dir][p->name], r = y->at[p->dir2][p->name2];

	check(y, x >= 0);
	if (x == r)
		return;
	take_name(y, p->dir, p->name);
	if (r >= 0)
		take_name(y, p->dir2, p->name2);
	if (p->op.flags & VFS_EXCHANGE)
		put_name(y, p->dir, p->name, r);
	else if (r >= 0 && y->node[r].dir)
		kill_dir(y, r);
	put_name(y, p->dir2, p->name2, x);
}

/* ---- operations ---- */

static struct vfs_op op_of(struct play *y, enum vfs_op_type type, int slot, int dir, int name)
{
	return (struct vfs_op){.type = type,
			       .id = {.client = 9, .slot = (uint32_t)slot, .number = ++y->w->number},
			       .ino = y->node[dir].ino,
			       .name = name_of[name],
			       .name_len = 1};
}

static int expect(const struct play *y, const struct pending *p)
{
	int there = y->at[p->dir][p->name];

	if (p->op.type == VFS_RENAME)
		return expect_rename(y, p, p->op.flags);
	if (y->node[p->dir].dead)
		return -ENOENT;
	switch (p->op.type) {
	case VFS_CREATE:
	case VFS_MKDIR:
		return there >= 0 ? -EEXIST : 0;
	case VFS_LINK:
		if (there >= 0)
			return -EEXIST;
		return y->node[p->node].names == 0 ? -ENOENT : 0;
	case VFS_UNLINK:
		if (there < 0)
			return -ENOENT;
		return y->node[there].dir ? -EISDIR : 0;
	default: /* RMDIR */
		if (there < 0)
			return -ENOENT;
		if (!y->node[there].dir)
			return -ENOTDIR;
		return empty(y, there) ? 0 : -ENOTEMPTY;
	}
}

/* It happened. An unlink's name and a rename's names go with the commit, which may be long before the answer. */
static void happened(struct play *y, struct pending *p, const struct vfs_result *res)
{
	int there = y->at[p->dir][p->name];

	switch (p->op.type) {
	case VFS_CREATE:
		put_name(y, p->dir, p->name, new_node(y, false, res->attr.ino));
		break;
	case VFS_MKDIR:
		put_name(y, p->dir, p->name, new_node(y, true, p->op.target));
		break;
	case VFS_LINK:
		put_name(y, p->dir, p->name, p->node);
		break;
	case VFS_UNLINK:
		take_name(y, p->dir, p->name);
		break;
	case VFS_RMDIR:
		take_name(y, p->dir, p->name);
		kill_dir(y, there);
		break;
	default:
		model_rename(y, p);
	}
}

static bool entry_there(struct play *y, int dir, int name, struct vol_ino *ret)
{
	struct world_group *g = &y->w->g[vol_owner(y->w->map, &y->node[dir].ino.folder)];
	uint8_t k[32] = {'E'};
	const void *value;
	size_t len;

	memcpy(k + 1, y->node[dir].ino.folder.b, 16);
	k[17] = (uint8_t)name_of[name][0];
	if (g->vfs.view.get(&g->vfs.view, k, 18, &value, &len) < 0)
		return false;
	memcpy(ret->folder.b, (const uint8_t *)value + 4, 16);
	memcpy(&ret->num, (const uint8_t *)value + 20, 8);
	return true;
}

static void see_commit(struct play *y, struct pending *p)
{
	struct vol_ino there;
	bool have;

	if (p->committed || (p->op.type != VFS_RENAME && p->op.type != VFS_UNLINK))
		return;
	have = entry_there(y, p->dir, p->name, &there);
	if (have && (p->node < 0 || vol_ino_eq(&there, &y->node[p->node].ino)))
		return;
	p->committed = true;
	if (p->dir2 >= 0)
		p->node2 = y->at[p->dir2][p->name2];
	trace(y, "committed", p, 0);
	happened(y, p, NULL);
}

/* A name or folder that something in flight holds: the answer may be that of before, of after, or try again. */
static bool undecided(const struct play *y, const struct pending *p)
{
	bool hot = name_hot(y, p->dir, p->name) || node_hot(y, p->dir);
	int there = y->at[p->dir][p->name];

	if (p->dir2 >= 0) {
		int r = y->at[p->dir2][p->name2];

		hot |= name_hot(y, p->dir2, p->name2) || node_hot(y, p->dir2);
		hot |= r >= 0 && y->node[r].dir && (inside_hot(y, r) || node_hot(y, r));
	}
	if (there >= 0 && y->node[there].dir)
		hot |= inside_hot(y, there) || node_hot(y, there);
	if (p->op.type == VFS_LINK)
		hot |= node_hot(y, p->node);
	return hot;
}

static void run(struct play *y, int slot, struct pending *p)
{
	bool hot = undecided(y, p);
	struct vfs_result res;
	int want = expect(y, p), r;

	p->group = vfs_group(y->w->map, &p->op);
	r = world_exec(y->w, &p->op, &res);
	trace(y, res.intent ? "begun" : "done", p, r);
	if (res.intent) {
		check(y, r == 0);
		memcpy(p->id, res.intent_id, 16);
		p->used = true;
		y->p[slot] = *p;
		see_commit(y, &y->p[slot]);
		vfs_result_done(&res);
		return;
	}
	if (r == -EAGAIN) {
		check(y, hot);
		y->again++;
	} else if (!hot) {
		if (r != want)
			fail_msg("seed %llu: op %d answered %d, not %d", (unsigned long long)y->seed,
				 p->op.type, r, want);
	}
	y->done++;
	if (r == 0)
		happened(y, p, &res);
	vfs_result_done(&res);
	if (r != -EAGAIN && pick(y, 4) == 0) { /* the answer was lost: the client asks again */
		check(y, world_exec(y->w, &p->op, &res) == r && !res.intent && y->w->last_effects == 0);
		vfs_result_done(&res);
	}
}

static void ended(struct play *y, struct pending *p, struct vfs_result *res)
{
	int want = p->committed ? 0 : expect(y, p);
	bool hot;

	trace(y, "ended", p, res->err);
	p->used = false; /* from here on it is not in its own way */
	hot = p->lost || undecided(y, p);
	if (p->committed)
		check(y, res->err == 0);
	else if (res->err == 0 && p->op.type == VFS_RENAME)
		; /* two names of one file: nothing happened, when it was decided */
	else if (res->err == 0)
		happened(y, p, res);
	else if (res->err == -EAGAIN)
		y->again++;
	else if (!hot)
		check(y, res->err == want || res->err == p->decided);
	y->done++;
}

static void drive(struct play *y)
{
	struct pending *p = &y->p[pick(y, PENDING)];
	static const unsigned hows[] = {0, 0, 0, WORLD_TWICE, WORLD_LOSE};
	unsigned how = hows[pick(y, ARRAY_SIZE(hows))];
	struct vfs_result res;
	int r, want;

	if (!p->used)
		return;
	p->lost |= how == WORLD_LOSE;
	want = p->committed ? 0 : expect(y, p);
	r = world_drive(y->w, p->group, p->id, how, &res);
	check(y, r >= 0);
	if (r == 0) {
		p->decided = want;
		see_commit(y, p);
	} else {
		struct vfs_result repeated;

		see_commit(y, p);
		ended(y, p, &res);
		if (res.err != -EAGAIN) { /* the client asks once more */
			world_exec(y->w, &p->op, &repeated);
			check(y, repeated.err == res.err && !repeated.intent && y->w->last_effects == 0);
			vfs_result_done(&repeated);
			world_remember(y->w, p->group, &p->op);
		}
	}
	vfs_result_done(&res);
}

static int any_dir(struct play *y)
{
	for (;;) {
		int i = (int)pick(y, (uint32_t)y->n);

		if (y->node[i].dir && !y->node[i].gone && (!y->node[i].dead || pick(y, 8) == 0))
			return i;
	}
}

static void change(struct play *y)
{
	static const enum vfs_op_type types[] = {VFS_CREATE, VFS_MKDIR, VFS_MKDIR,  VFS_LINK,	VFS_UNLINK,
						 VFS_RMDIR,  VFS_RMDIR, VFS_RENAME, VFS_RENAME, VFS_RENAME};
	struct pending p = {.dir2 = -1, .node = -1, .node2 = -1};
	int slot = (int)pick(y, PENDING), there;

	if (y->p[slot].used)
		return;
	p.dir = any_dir(y);
	p.name = (int)pick(y, NAMES);
	p.op = op_of(y, types[pick(y, ARRAY_SIZE(types))], slot, p.dir, p.name);
	there = y->at[p.dir][p.name];
	switch (p.op.type) {
	case VFS_CREATE:
	case VFS_MKDIR:
		if (y->n > NODES - PENDING - 2)
			return;
		p.op.flags = VFS_EXCL;
		p.op.attr.mode = 0755;
		for (int i = 0; p.op.type == VFS_MKDIR && i < 16; i++)
			p.op.target.folder.b[i] = (uint8_t)pick(y, 256);
		break;
	case VFS_LINK:
		p.node = (int)pick(y, (uint32_t)y->n);
		if (y->node[p.node].dir || y->node[p.node].gone)
			return;
		p.op.target = y->node[p.node].ino;
		break;
	case VFS_UNLINK:
	case VFS_RMDIR:
		p.node = there;
		break;
	default:
		p.node = there;
		p.dir2 = any_dir(y);
		p.name2 = (int)pick(y, NAMES);
		p.node2 = y->at[p.dir2][p.name2];
		p.op.ino2 = y->node[p.dir2].ino;
		p.op.name2 = name_of[p.name2];
		p.op.name2_len = 1;
		p.op.flags = (const uint32_t[]){0, 0, 0, VFS_NOREPLACE, VFS_EXCHANGE}[pick(y, 5)];
		if (p.op.flags == VFS_EXCHANGE &&
		    (vol_owner(y->w->map, &p.op.ino.folder) != vol_owner(y->w->map, &p.op.ino2.folder) ||
		     (p.node2 >= 0 && y->node[p.node2].dir && below(y, p.dir, p.node2))))
			return;
		/* What the client and its kernel see to: no cycle, one folder rename at a time in the volume. */
		p.folder_rename =
			p.dir != p.dir2 && ((there >= 0 && y->node[there].dir) || p.op.flags == VFS_EXCHANGE);
		if (p.folder_rename && there >= 0 && there != p.dir2 && below(y, p.dir2, there))
			return;
		for (int i = 0; i < PENDING; i++)
			if (p.folder_rename && y->p[i].used && y->p[i].folder_rename)
				return;
	}
	run(y, slot, &p);
}

/* ---- data ---- */

static bool data_op(struct play *y, int f, enum vfs_op_type type, uint32_t cell, uint32_t n, uint8_t byte)
{
	struct vfs_op op = {.type = type, .ino = y->node[f].ino, .off = cell * 4096ull};
	bool owner = vol_group_of_stripe(y->w->map, &op.ino, op.off / STRIPE) ==
		     vol_owner(y->w->map, &op.ino.folder);
	struct vfs_result res;
	struct vfs_attr attr;

	check(y, vfs_stat(&y->w->g[vol_owner(y->w->map, &op.ino.folder)].vfs, &op.ino, &attr) == 0);
	op.payload = payload_new(n * 4096);
	memset(op.payload->data, byte, n * 4096);
	op.gen = attr.gen;
	op.flags = owner ? 0 : VFS_FOREIGN;
	op.id = (struct vfs_opid){.client = 9, .slot = 100, .number = ++y->w->number};
	check(y, world_do(y->w, &op, &res) == 0);
	vfs_result_done(&res);
	payload_unref(op.payload);
	if (!owner) {
		op = (struct vfs_op){
			.type = VFS_EXTEND, .ino = op.ino, .off = op.off, .len = n * 4096, .gen = attr.gen};
		op.id = (struct vfs_opid){.client = 9, .slot = 100, .number = ++y->w->number};
		check(y, world_do(y->w, &op, &res) == 0);
		vfs_result_done(&res);
	}
	return true;
}

static void data(struct play *y)
{
	int f = (int)pick(y, (uint32_t)y->n);
	uint32_t cell = pick(y, CELLS), n = 1 + pick(y, 8);
	uint8_t byte = (uint8_t)(1 + pick(y, 255));
	struct vfs_result res;

	if (y->node[f].dir || y->node[f].gone || node_hot(y, f))
		return;
	n = MIN(n, STRIPE / 4096 - cell % (STRIPE / 4096));
	if (getenv("KUAYU_TRACE"))
		printf("data: node %d cell %u n %u byte %02x\n", f, cell, n, byte);
	if (pick(y, 3)) {
		data_op(y, f, VFS_WRITE, cell, n, byte);
		memset(y->node[f].cell + cell, byte, n);
		y->node[f].cells = MAX(y->node[f].cells, cell + n);
	} else {
		struct vfs_op op = {.type = VFS_SETATTR,
				    .ino = y->node[f].ino,
				    .set = VFS_SET_SIZE,
				    .attr.size = cell * 4096};

		op.id = (struct vfs_opid){.client = 9, .slot = 100, .number = ++y->w->number};
		check(y, world_do(y->w, &op, &res) == 0);
		vfs_result_done(&res);
		if (cell < CELLS)
			memset(y->node[f].cell + cell, 0, CELLS - cell);
		y->node[f].cells = cell;
	}
}

static void check_data(struct play *y, int f)
{
	for (uint32_t at = 0; at < CELLS; at += STRIPE / 4096) {
		struct vfs_op op = {.type = VFS_READ,
				    .ino = y->node[f].ino,
				    .off = at * 4096ull,
				    .len = STRIPE,
				    .flags = VFS_FOREIGN};
		struct vfs_result res;

		check(y, world_exec(y->w, &op, &res) == 0);
		for (uint32_t i = 0; getenv("KUAYU_TRACE") && i < STRIPE / 4096; i++)
			if (res.payload->data[i * 4096] != y->node[f].cell[at + i])
				printf("node %d cell %u: %02x, not %02x\n", f, at + i,
				       res.payload->data[i * 4096], y->node[f].cell[at + i]);
		for (uint32_t i = 0; i < STRIPE / 4096; i++)
			check(y, res.payload->data[i * 4096] == y->node[f].cell[at + i] &&
					 res.payload->data[i * 4096 + 4095] == y->node[f].cell[at + i]);
		vfs_result_done(&res);
	}
}

/* ---- the end ---- */

static void reap(struct play *y, int i)
{
	struct vfs_op op = {.type = VFS_REAP, .ino = y->node[i].ino};
	struct vfs_result res;

	check(y, world_do(y->w, &op, &res) == 0 && !(res.flags & VFS_MORE));
	vfs_result_done(&res);
	if (getenv("KUAYU_TRACE"))
		printf("reap %d\n", i);
	y->node[i].gone = true;
	y->node[i].cells = 0;
}

static bool orphan(const struct play *y, int i)
{
	return !y->node[i].gone && (y->node[i].dir ? y->node[i].dead : y->node[i].names == 0) &&
	       !node_hot(y, i);
}

static unsigned count_keys(struct play *y, char kind)
{
	unsigned n = 0;

	for (uint32_t g = 0; g < y->w->n; g++) {
		struct vfs *v = &y->w->g[g].vfs;
		uint8_t from[KEY_MAX] = {(uint8_t)kind};
		size_t len = 1;

		for (;;) {
			const void *key, *value;
			size_t key_len, value_len;

			if (v->view.seek(&v->view, from, len, true, 1, &key, &key_len, &value, &value_len) <
			    0)
				break;
			memcpy(from, key, len = key_len);
			n++;
		}
	}
	return n;
}

static void check_node(struct play *y, int i)
{
	const struct node *n = &y->node[i];
	struct vfs_attr a;
	unsigned links = 2;
	int r = vfs_stat(&y->w->g[vol_owner(y->w->map, &n->ino.folder)].vfs, &n->ino, &a);

	if (n->gone) {
		check(y, r == -ENOENT);
		return;
	}
	check(y, r == 0);
	check(y, S_ISDIR(a.mode) == n->dir);
	if (!n->dir) {
		check(y, a.nlink == n->names);
		check(y, a.size == n->cells * 4096ull);
		check_data(y, i);
		return;
	}
	for (int k = 0; k < NAMES; k++)
		links += y->at[i][k] >= 0 && y->node[y->at[i][k]].dir;
	check(y, a.nlink == (n->dead ? 0 : links));
	if (!n->dead && i)
		check(y, vol_id_eq(&a.up, &y->node[n->up].ino.folder));
}

/* Everything is at rest: the keys are exactly the model. */
static void check_all(struct play *y)
{
	unsigned names = 0, orphans = 0, inodes = 0, root_written;
	struct vol_ino there;

	check(y, count_keys(y, 'T') == 0);
	for (int i = 0; i < y->n; i++) {
		check_node(y, i);
		orphans += orphan(y, i);
		inodes += !y->node[i].gone;
		for (int k = 0; y->node[i].dir && k < NAMES; k++) {
			bool have = entry_there(y, i, k, &there);

			check(y, have == (y->at[i][k] >= 0));
			if (have)
				check(y, vol_ino_eq(&there, &y->node[y->at[i][k]].ino));
			names += have;
		}
		if (y->node[i].dir && !y->node[i].dead)
			check(y, below(y, i, 0));
	}
	check(y, count_keys(y, 'E') == names);
	check(y, count_keys(y, 'O') == orphans);
	if (y->w->map->stripe > 1)
		return; /* slices have I keys too */
	root_written = count_keys(y, 'I') - inodes + 1;
	check(y, root_written <= 1);
}

static void remove_all(struct play *y)
{
	for (bool more = true; more;) {
		more = false;
		for (int i = 0; i < y->n; i++)
			for (int k = 0; k < NAMES; k++) {
				int x = y->at[i][k];
				struct pending p = {.dir = i, .name = k, .dir2 = -1, .node = -1, .node2 = -1};
				struct vfs_result res;

				if (x < 0 || (y->node[x].dir && !empty(y, x)))
					continue;
				p.op = op_of(y, y->node[x].dir ? VFS_RMDIR : VFS_UNLINK, 0, i, k);
				check(y, world_do(y->w, &p.op, &res) == 0);
				happened(y, &p, &res);
				vfs_result_done(&res);
				more = true;
			}
	}
	for (int i = 1; i < y->n; i++)
		if (orphan(y, i))
			reap(y, i);
	check_all(y);
	check(y, count_keys(y, 'I') <= 1);
	for (uint32_t g = 0; g < y->w->n; g++)
		check(y, mem_blob_pages(y->w->g[g].blob) == 0);
}

static void settle(struct play *y)
{
	for (unsigned i = 0; i < 100000; i++) {
		bool any = false;

		for (int k = 0; k < PENDING; k++)
			any |= y->p[k].used;
		if (!any)
			return;
		drive(y);
	}
	check(y, !"an intent never ends");
}

static void play(uint64_t seed, unsigned *done, unsigned *again)
{
	struct play *y = xcalloc(1, sizeof(*y));

	y->seed = seed;
	y->x = seed * 0x9e3779b97f4a7c15u + 1;
	y->w = world_new((uint32_t[]){1, 2, 4, 8}[pick(y, 4)], 1, STRIPE);
	if (y->w->n >= 8 && pick(y, 2)) {
		world_free(y->w);
		y->w = world_new(8, 3, STRIPE);
	}
	new_node(y, true, (struct vol_ino){vol_root, 0});
	for (unsigned i = 0; i < 150; i++) {
		uint32_t what = pick(y, 20);

		if (what < 11)
			change(y);
		else if (what < 16)
			drive(y);
		else if (what < 17)
			data(y);
		else if (what < 18)
			world_late(y->w, pick(y, WORLD_LATE));
		else {
			int k = (int)pick(y, (uint32_t)y->n);

			if (orphan(y, k) && !inside_hot(y, k))
				reap(y, k);
		}
	}
	settle(y);
	check_all(y);
	for (unsigned i = 0; i < WORLD_LATE; i++)
		world_late(y->w, i);
	check_all(y);
	remove_all(y);
	*done += y->done;
	*again += y->again;
	world_free(y->w);
	free(y);
}

static void test_model(void **state)
{
	const char *one = getenv("KUAYU_SEED"), *many = getenv("KUAYU_SEEDS");
	unsigned done = 0, again = 0, n = many ? (unsigned)atoi(many) : 1500;

	if (one)
		play((uint64_t)atoll(one), &done, &again);
	for (uint64_t seed = 1; !one && seed <= n; seed++)
		play(seed, &done, &again);
	print_message("%u seeds, %u operations ended, %u of them to be tried again\n", one ? 1 : n, done,
		      again);
	assert_true(done > (one ? 0 : n * 20));
	assert_true(one || again > n / 10); /* the operations really meet */
}

TEST_MAIN(cmocka_unit_test(test_model))
