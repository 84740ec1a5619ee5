/* SPDX-License-Identifier: Apache-2.0 */
/* fclient: programs on mounts, each with one operation in flight, and what they saw (struct fop), for check_names and check_data. A question that is
 * not answered, or refused, is asked again with the same id; after the whole time the client gives up: the operation may happen then, or never.
 *
 * Renames over two folders are one at a time in the volume, as a mount's rename lock has it, and are refused when they would make a cycle; one of unknown outcome
 * keeps the lock to the end of the run. A striped write is what the client library makes of it: the piece, then the owner hears of the size. */
#include "sim/files.h"

#define TRY_MS	 250
#define WHOLE_MS 2500
#define CLIENT	 0x1000u

static void ask(struct sim *s, uint8_t id);

static const char *const name_of[FNAMES] = {"a", "b", "c", "d"};

static bool striped(const struct sim *s, const struct vfs_op *op)
{
	return vol_group_of_stripe(s->files->map, &op->ino, op->off / FSTRIPE) !=
	       vol_owner(s->files->map, &op->ino.folder);
}

/* ---- what clients know ---- */

static void learn_dir(struct files *f, const struct vol_id *id)
{
	for (uint32_t i = 0; i < f->n_dirs; i++)
		if (vol_id_eq(&f->dir[i], id))
			return;
	if (f->n_dirs < FDIRS_MAX)
		f->dir[f->n_dirs++] = *id;
}

static void learn_file(struct sim *s, const struct vol_ino *ino)
{
	struct files *f = s->files;

	for (uint32_t i = 0; i < f->n_files; i++)
		if (vol_ino_eq(&f->file[i], ino))
			return;
	f->file[f->n_files < FFILES_MAX ? f->n_files++ : rnd_below(s, FFILES_MAX)] = *ino;
}

static void learn(struct sim *s, const struct vfs_attr *a)
{
	if (S_ISDIR(a->mode))
		learn_dir(s->files, &a->ino.folder);
	else if (S_ISREG(a->mode))
		learn_file(s, &a->ino);
}

/* The file is open from before the first byte is written to long after: it must not be reaped meanwhile. */
static void hold_open(struct sim *s, struct fclient *c, const struct vol_ino *ino)
{
	uint32_t i = 0;

	while (i < c->n_open && !vol_ino_eq(&c->open[i], ino))
		i++;
	if (i < c->n_open)
		return;
	i = c->n_open < ARRAY_SIZE(c->open) ? c->n_open++ : (uint32_t)rnd_below(s, ARRAY_SIZE(c->open));
	c->open[i] = *ino;
}

/* One without a name is opened by nobody who has not got it open: it may be on its way out. */
static bool may_open(struct sim *s, const struct fclient *c, const struct vol_ino *ino)
{
	struct vfs_attr a;
	struct vfs v;

	for (uint32_t i = 0; i < c->n_open; i++)
		if (vol_ino_eq(&c->open[i], ino))
			return true;
	ensure(vfs_init(&v, &s->truth[vol_owner(s->files->map, &ino->folder)].f->r, s->files->map) == 0);
	return vfs_stat(&v, ino, &a) == 0 && a.nlink > 0;
}

bool fclient_has_open(const struct sim *s, const struct vol_ino *ino)
{
	for (uint8_t i = 0; i < s->o.clients && !s->calm; i++)
		for (uint32_t k = 0; k < s->files->client[i].n_open; k++)
			if (vol_ino_eq(&s->files->client[i].open[k], ino))
				return true;
	return false;
}

/* ---- what they do ---- */

static void next_op(struct sim *s, struct event *e);

static void later(struct sim *s, uint8_t id, uint64_t us)
{
	event_new(s, us, next_op)->a = id;
}

/* Would the folder that (dir, name) names come to lie below itself? By the truth of now; nobody else moves folders meanwhile. */
static bool is_below(struct sim *s, const struct vol_id *dir, const struct vol_id *top)
{
	struct vol_id at = *dir;

	for (int i = 0; i < FDIRS_MAX + 2; i++) {
		uint32_t g = vol_owner(s->files->map, &at);
		struct vfs v;
		struct vfs_attr a;
		struct vol_ino ino = {at, 0};

		if (vol_id_eq(&at, top))
			return true;
		if (vol_id_eq(&at, &vol_root))
			return false;
		ensure(vfs_init(&v, &s->truth[g].f->r, s->files->map) == 0);
		if (vfs_stat(&v, &ino, &a) < 0)
			return false;
		at = a.up;
	}
	return true;
}

static bool named(struct sim *s, const struct vol_id *dir, const char *name, struct vol_ino *ret)
{
	uint32_t g = vol_owner(s->files->map, dir);
	struct vfs_op op = {.type = VFS_LOOKUP, .ino = {*dir, 0}, .name = name, .name_len = 1};
	struct vfs_result res;
	struct vfs v;
	bool is;

	ensure(vfs_init(&v, &s->truth[g].f->r, s->files->map) == 0);
	if (vfs_exec(&v, &op, 0, NULL, &res) < 0) {
		if (!s->files->lost)
			violation(s, "metadata_tree",
				  "folder ..%02x%02x name %s: leads to an inode that is not there",
				  dir->b[14], dir->b[15], name);
		return false;
	}
	is = res.err == 0;
	*ret = res.attr.ino;
	vfs_result_done(&res);
	return is;
}

static bool may_rename(struct sim *s, uint8_t id, struct vfs_op *op)
{
	struct vol_ino moved, other = {.num = 1};

	if (vol_id_eq(&op->ino.folder, &op->ino2.folder))
		return true;
	if (s->files->rename_lock)
		return false;
	if (!named(s, &op->ino.folder, op->name, &moved) ||
	    (op->flags & VFS_EXCHANGE && !named(s, &op->ino2.folder, op->name2, &other)))
		return false;
	op->flags |= VFS_KNOWN;
	op->target = moved;
	op->attr.ino = other;
	if ((moved.num == 0 && is_below(s, &op->ino2.folder, &moved.folder)) ||
	    (other.num == 0 && is_below(s, &op->ino.folder, &other.folder)))
		return false;
	s->files->rename_lock = id + 1;
	s->files->client[id].locked = true;
	return true;
}

static struct vol_ino any_dir(struct sim *s)
{
	uint32_t n = s->files->n_dirs;

	return (struct vol_ino){s->files->dir[rnd_in(s, 300000) ? 0 : rnd_below(s, n)], 0};
}

static bool any_file(struct sim *s, struct vol_ino *ret)
{
	if (s->files->n_files == 0)
		return false;
	*ret = s->files->file[rnd_below(s, s->files->n_files)];
	return true;
}

static void any_name(struct sim *s, char out[2], const char **name, uint16_t *len)
{
	snprintf(out, 2, "%s", name_of[rnd_below(s, FNAMES)]);
	*name = out;
	*len = 1;
}

static struct payload *payload_of(uint64_t value, uint32_t n_cells)
{
	struct payload *p = payload_new(n_cells * CELL);

	for (uint32_t i = 0; i < n_cells * CELL / 8; i++)
		memcpy(p->data + (size_t)i * 8, &value, 8);
	return p;
}

static enum vfs_op_type any_type(struct sim *s)
{
	static const struct {
		enum vfs_op_type type;
		uint32_t weight;
	} types[] = {{VFS_CREATE, 14}, {VFS_MKDIR, 12},	 {VFS_SYMLINK, 2}, {VFS_LINK, 7},    {VFS_UNLINK, 10},
		     {VFS_RMDIR, 7},   {VFS_RENAME, 18}, {VFS_LOOKUP, 12}, {VFS_READDIR, 4}, {VFS_WRITE, 12},
		     {VFS_READ, 10},   {VFS_SETATTR, 6}, {VFS_FSYNC, 3},   {VFS_GETATTR, 2}};
	uint32_t sum = 0, i = 0;
	uint64_t x;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		sum += types[i].weight;
	x = rnd_below(s, sum);
	for (i = 0; x >= types[i].weight; i++)
		x -= types[i].weight;
	return types[i].type;
}

/* False: nothing to do it on. */
static bool choose_data(struct sim *s, struct fop *f, struct fclient *c)
{
	struct vfs_op *op = &f->op;

	if (!any_file(s, &op->ino) || !may_open(s, c, &op->ino))
		return false;
	hold_open(s, c, &op->ino);
	f->cell = (uint8_t)rnd_below(s, CELLS);
	f->n_cells = (uint8_t)(1 + rnd_below(s, 4));
	f->n_cells = (uint8_t)MIN(f->n_cells, FSTRIPE / CELL - f->cell % (FSTRIPE / CELL)); /* one piece */
	op->off = f->cell * CELL;
	op->len = f->n_cells * CELL;
	if (op->type == VFS_WRITE) {
		f->value = ++s->files->value;
		op->payload = payload_of(f->value, f->n_cells);
		op->len = 0;
	} else if (op->type == VFS_SETATTR) {
		op->set = VFS_SET_SIZE;
		op->attr.size = rnd_in(s, 300000) ? 0 : op->off;
		op->off = op->len = 0;
	} else if (op->type != VFS_READ) {
		op->off = op->len = 0;
	}
	return true;
}

/* In every other schedule, for the seeds that were kept, some creates are of a delegation: with a number and a time of the client's, some with bytes; or
 * such a delegation is asked for or given back. Nobody is kept away from the folder: that is the brick's shell. */
static void choose_create(struct sim *s, struct fop *f, struct fclient *c)
{
	struct vfs_op *op = &f->op;

	op->flags = rnd_in(s, 800000) ? VFS_EXCL : 0;
	if (s->seed % 2 == 0 || rnd_in(s, 400000))
		return;
	if (rnd_in(s, 300000)) {
		*op = (struct vfs_op){.type = c->number_last && rnd_in(s, 300000) ? VFS_UNDELEGATE
										  : VFS_DELEGATE,
				      .ino = op->ino};
		return;
	}
	if (c->number_next >= c->number_last)
		return;
	op->flags |= VFS_NUMBERED;
	op->ino = (struct vol_ino){c->alone, 0};
	op->target = (struct vol_ino){c->alone, c->number_next++};
	op->attr.ctime_ns = 1;
	if (s->o.stripe > 1 || rnd_in(s, 500000))
		return;
	f->value = ++s->files->value;
	f->n_cells = (uint8_t)(1 + rnd_below(s, 6));
	op->payload = payload_of(f->value, f->n_cells);
}

static bool choose_op(struct sim *s, struct fop *f, uint8_t id)
{
	struct fclient *c = &s->files->client[id];
	struct vfs_op *op = &f->op;

	op->type = any_type(s);
	op->ino = any_dir(s);
	switch (op->type) {
	case VFS_WRITE:
	case VFS_READ:
	case VFS_SETATTR:
	case VFS_FSYNC:
	case VFS_GETATTR:
		return choose_data(s, f, c);
	case VFS_READDIR:
		return true;
	default:
		any_name(s, f->name, &op->name, &op->name_len);
	}
	op->attr.mode = op->type == VFS_CREATE ? S_IFREG | 0644 : 0755;
	switch (op->type) {
	case VFS_CREATE:
		choose_create(s, f, c);
		return true;
	case VFS_MKDIR:
		for (int i = 0; i < 16; i++)
			op->target.folder.b[i] = (uint8_t)rnd(s);
		op->target.folder.b[0] = 0;
		return s->files->n_dirs < FDIRS_MAX - CLIENTS_MAX;
	case VFS_SYMLINK:
		op->data = "target";
		op->data_len = 6;
		return true;
	case VFS_LINK:
		op->attr.mode = S_IFREG;
		if (!any_file(s, &op->target) || !may_open(s, c, &op->target))
			return false;
		hold_open(s, c, &op->target);
		return true;
	case VFS_RENAME:
		op->ino2 = any_dir(s);
		any_name(s, f->name2, &op->name2, &op->name2_len);
		op->flags = rnd_in(s, 150000) ? VFS_NOREPLACE : rnd_in(s, 100000) ? VFS_EXCHANGE : 0;
		if (op->flags & VFS_EXCHANGE &&
		    vol_owner(s->files->map, &op->ino.folder) != vol_owner(s->files->map, &op->ino2.folder))
			op->flags = 0;
		return may_rename(s, id, op);
	case VFS_LOOKUP:
		op->len = s->o.stripe == 1 && rnd_in(s, 500000) ? CELLS * CELL : 0;
		return true;
	default:
		return true;
	}
}

/* ---- asking ---- */

/* What goes out: for a striped file the owner's question and the piece's are two. */
static struct vfs_op question(struct sim *s, struct fclient *c)
{
	struct vfs_op op = c->op->op;

	op.id = (struct vfs_opid){
		.client = CLIENT + c->op->client, .slot = 0, .number = vfs_changes(op.type) ? c->number : 0};
	if (s->o.stripe == 1)
		return op;
	if (op.type == VFS_WRITE && striped(s, &op)) {
		if (c->phase == 0) {
			op.type = VFS_GETATTR;
			op.payload = NULL;
			op.id.number = 0;
		} else if (c->phase == 1) {
			op.flags = VFS_FOREIGN;
			op.gen = c->gen;
		} else {
			op.type = VFS_EXTEND;
			op.payload = NULL;
			op.len = c->op->n_cells * CELL;
			op.gen = c->gen;
		}
	} else if (op.type == VFS_READ && striped(s, &op)) {
		op.flags = VFS_FOREIGN;
	}
	return op;
}

static void op_over(struct sim *s, struct fclient *c, bool known)
{
	struct fop *f = c->op;

	f->op.payload = payload_unref(f->op.payload);
	f->maybe = !known;
	f->done = known;
	if (known && c->locked)
		s->files->rename_lock = 0;
	c->locked = false; /* of one that may still happen: nobody gets it any more */
	f->end = known ? s->now : UINT64_MAX;
	c->op = NULL;
	c->try_id = 0;
	later(s, f->client, rnd_us(s, 3 * MS));
}

static void try_over(struct sim *s, struct event *e)
{
	struct fclient *c = &s->files->client[e->a];
	uint32_t g;
	struct vfs_op op;

	if (!c->op || c->try_id != e->u)
		return;
	op = question(s, c);
	g = vfs_group(s->files->map, &op);
	c->guess[g] = (uint8_t)rnd_below(s, s->o.n);
	ask(s, (uint8_t)e->a);
}

static void ask(struct sim *s, uint8_t id)
{
	struct fclient *c = &s->files->client[id];
	struct vfs_op op = question(s, c);
	uint32_t g = vfs_group(s->files->map, &op);
	uint8_t b = c->guess[g];
	struct fmsg *q;
	struct event *e;

	if (s->now > c->deadline || s->client[id].stopped) {
		op_over(s, c, false);
		return;
	}
	if (!vfs_changes(op.type) && op.type != VFS_FSYNC && s->o.backup_reads && rnd_in(s, 500000)) {
		b = (uint8_t)rnd_below(s, s->o.n);
		c->op->any = true;
	}
	c->try_id = ++s->next_try;
	e = event_new(s, TRY_MS * MS / (1 + rnd_below(s, 8)), try_over);
	e->a = id;
	e->u = c->try_id;
	q = fmsg_new(F_OP, NOBODY, b, (uint8_t)g);
	q->client = id;
	q->id = c->try_id;
	q->any = c->op->any;
	ensure(vfs_op_encode(&op, &q->body) == 0);
	q->payload = payload_ref(op.payload);
	fmsg_send(s, q);
}

static void next_op(struct sim *s, struct event *e)
{
	struct files *f = s->files;
	uint8_t id = (uint8_t)e->a;
	struct fclient *c = &f->client[id];
	struct fop *op;

	if (s->client[id].stopped || c->op || f->n_ops == FOPS_MAX)
		return;
	op = &f->op[f->n_ops];
	memset(op, 0, sizeof(*op));
	op->client = id;
	if (!choose_op(s, op, id)) {
		later(s, id, rnd_us(s, MS));
		return;
	}
	f->n_ops++;
	op->number = c->number + 1;
	c->number += vfs_changes(op->op.type);
	c->op = op;
	c->phase = 0;
	op->start = s->now;
	op->end = UINT64_MAX;
	op->maybe = true;
	c->deadline = s->now + WHOLE_MS * MS;
	if (s->trace)
		trace(s, "client %u: operation %u flags %x in ..%02x%02x %s -> ..%02x%02x %s, number %llu",
		      id, op->op.type, op->op.flags, op->op.ino.folder.b[14], op->op.ino.folder.b[15],
		      op->name, op->op.ino2.folder.b[14], op->op.ino2.folder.b[15], op->name2,
		      (unsigned long long)c->number);
	ask(s, id);
}

/* ---- answers ---- */

static void again(struct sim *s, uint8_t id, uint64_t us, bool other)
{
	struct fclient *c = &s->files->client[id];
	struct event *e;

	c->try_id = ++s->next_try;
	e = event_new(s, us, try_over);
	e->a = id;
	e->u = c->try_id;
	(void)other;
}

static void take_list(struct sim *s, struct fop *f, const struct vfs_result *res)
{
	struct vfs_entry e;
	size_t at = 0;

	for (int k = 0; k < FNAMES; k++)
		f->there[k].num = UINT64_MAX;
	while (vfs_entry_decode(res->data.data, res->data.len, &at, &e) == 0)
		for (int k = 0; k < FNAMES; k++)
			if (e.name_len == 1 && e.name[0] == name_of[k][0])
				f->there[k] = e.ino;
}

/* The cells of a read; one that is torn is a violation by itself. */
static void take_cells(struct sim *s, struct fop *f, const struct vfs_result *res)
{
	uint64_t end = res->crc_off + (res->payload ? res->payload->len : 0);

	for (uint8_t k = 0; k < f->n_cells; k++) {
		uint64_t off = (f->cell + k) * (uint64_t)CELL;
		const uint8_t *d;
		bool beyond = !(f->op.flags & VFS_FOREIGN) && s->o.stripe == 1 && off >= res->attr.size;

		f->cells[k] = 0;
		if (!res->payload || off < res->crc_off || off + CELL > end || beyond)
			continue;
		d = res->payload->data + (off - res->crc_off);
		memcpy(&f->cells[k], d, 8);
		for (uint32_t i = 8; i < CELL; i += 8)
			if (memcmp(d, d + i, 8) != 0 && !s->files->lost) {
				violation(s, "data_linearizable",
					  "client %u read cell %u of a file torn in the middle", f->client,
					  f->cell + k);
				return;
			}
	}
	f->size = res->attr.size;
}

/* True: it goes on with another question. */
static bool striped_write(struct sim *s, struct fclient *c, const struct vfs_result *res)
{
	if (s->o.stripe == 1 || c->op->op.type != VFS_WRITE || !striped(s, &c->op->op))
		return false;
	if (res->err == -ESTALE) { /* truncated meanwhile: all of it once more */
		c->phase = 0;
	} else if (res->err < 0) {
		return false;
	} else if (c->phase == 0) {
		c->gen = res->attr.gen;
		c->phase = 1;
		return true;
	} else if (c->phase == 2) {
		return false;
	} else {
		c->phase = 2;
	}
	c->number++;
	return true;
}

static void take_result(struct sim *s, uint8_t id, const struct fmsg *a)
{
	struct fclient *c = &s->files->client[id];
	struct fop *f = c->op;
	struct vfs_result res = {0};

	ensure(vfs_result_decode(a->body.data, a->body.len, a->payload, &res) == 0);
	if (res.err == -EAGAIN) {
		again(s, id, rnd_us(s, 10 * MS), false);
	} else if (striped_write(s, c, &res)) {
		ask(s, id);
	} else {
		f->err = res.err;
		f->ino = res.attr.ino;
		f->flags = res.flags;
		f->mode = res.attr.mode;
		if (res.err == 0 && f->op.type == VFS_READDIR)
			take_list(s, f, &res);
		if (f->op.type == VFS_LOOKUP && res.payload) { /* all of the file */
			f->cell = 0;
			f->n_cells = CELLS;
		}
		if (res.err == 0 && (f->op.type == VFS_READ || (f->op.type == VFS_LOOKUP && f->n_cells > 0)))
			take_cells(s, f, &res);
		if (f->op.type == VFS_DELEGATE && res.err == 0) {
			c->alone = f->op.ino.folder;
			c->number_next = res.lock.start;
			c->number_last = res.lock.end;
		}
		if (res.err == -ESTALE && !(f->op.flags & (VFS_KNOWN | VFS_NUMBERED)))
			violation(s, "operations",
				  "client %u hears that its newest operation %llu is an old one", id,
				  (unsigned long long)c->number);
		if (res.err == 0)
			learn(s, &res.attr);
		if (res.err == 0 && vfs_changes(f->op.type))
			s->count.acked++;
		if (s->trace)
			trace(s, "client %u: operation %u answered %d, ..%02x%02x:%llu", id, f->op.type,
			      res.err, f->ino.folder.b[14], f->ino.folder.b[15],
			      (unsigned long long)f->ino.num);
		op_over(s, c, true);
	}
	vfs_result_done(&res);
}

void fclient_answer(struct sim *s, struct fmsg *a)
{
	uint8_t id = a->client;
	struct fclient *c = &s->files->client[id];

	if (!c->op || c->try_id != a->id)
		return;
	if (a->status < 0)
		again(s, id, rnd_us(s, 8 * MS), true);
	else
		take_result(s, id, a);
}

void fclient_start(struct sim *s)
{
	for (uint8_t i = 0; i < s->o.clients; i++)
		later(s, i, rnd_below(s, 300 * MS));
}
