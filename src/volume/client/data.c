/* SPDX-License-Identifier: Apache-2.0 */
/* File data: cut at stripes when the volume has several groups a folder, checksums both ways.
 *
 * A write to a stripe of the owner's group carries data, size and times in one record. A stripe elsewhere takes data only; the owner learns the
 * new size afterwards (VFS_EXTEND), before the write returns: a reader never sees a size whose bytes are not there.
 * What is read is compared with the block checksums that the brick keeps, here, at the end of the way; a block that does not fit is reported to the
 * member it came from and read from another one. Reads go out in whole blocks. */
#include "volume/client/internal.h"

#include "base/bytes.h"

/* ---- writing ---- */

static int refresh_gen(struct vclient_slot *s, const struct vol_ino *ino, uint32_t *gen)
{
	struct vfs_op op = {.type = VFS_GETATTR, .ino = *ino};
	struct vfs_result res = {0};
	struct call k = {.group = vol_owner(vclient_map(s->c), &ino->folder), .member = -1};
	int r = call_group(s, &op, &res, &k);

	if (r == 0)
		*gen = res.attr.gen;
	vfs_result_done(&res);
	return r;
}

int write_piece(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, struct call *k)
{
	int r;

	for (int i = 0;; i++) {
		vfs_result_done(res);
		*res = (struct vfs_result){0};
		r = call_group(s, op, res, k);
		if (r != -ESTALE || i >= GEN_TRIES)
			return r;
		r = refresh_gen(s, &op->ino, &op->gen);
		if (r < 0)
			return res->err = r;
	}
}

/* -ESTALE: it was truncated meanwhile, and what was written may be cut already. */
static int extend(struct vclient_slot *s, const struct vfs_op *op, uint64_t size, uint32_t blocks,
		  struct vfs_result *res)
{
	struct vfs_op x = {.type = VFS_EXTEND,
			   .ino = op->ino,
			   .flags = op->flags & (VFS_DURABLE | VFS_RESERVED),
			   .off = op->off,
			   .len = size - op->off,
			   .set = blocks,
			   .gen = op->gen,
			   .uid = op->uid,
			   .gid = op->gid};
	struct call k = {.group = vol_owner(vclient_map(s->c), &op->ino.folder), .member = -1};

	vfs_result_done(res);
	*res = (struct vfs_result){0};
	return call_group(s, &x, res, &k);
}

/* One try with one generation. *ret_off: up to where it is written. -ESTALE: everything has to be written once more. */
static int write_stripes(struct vclient_slot *s, struct vfs_op *op, const uint8_t *data,
			 struct vfs_result *res, uint64_t *ret_off)
{
	const struct vol_map *m = vclient_map(s->c);
	uint32_t owner = vol_owner(m, &op->ino.folder);
	uint64_t end = op->off + op->len, off = op->off;
	uint32_t durable = VFS_DURABLE; /* when all pieces are */
	uint32_t blocks = 0;		/* in other groups, where holes were */
	bool foreign = false, reserved = op->flags & VFS_RESERVED;
	int r = 0;

	while (off < end) {
		uint64_t stripe = off / m->stripe_size, len = MIN((stripe + 1) * m->stripe_size, end) - off;
		struct vfs_op x = *op;
		struct call k = {.group = vol_group_of_stripe(m, &op->ino, stripe),
				 .member = -1,
				 .data = data + (off - op->off)};
		bool cut;

		x.off = off;
		x.len = len;
		x.flags |= (k.group == owner ? 0 : VFS_FOREIGN);
		foreign |= k.group != owner;
		r = reserved ? call_group(s, &x, res, &k) : write_piece(s, &x, res, &k);
		if (reserved && r == -ESTALE)
			return r;
		cut = x.gen != op->gen && off > op->off; /* a truncate between the pieces */
		op->gen = x.gen;
		if (cut)
			return -ESTALE;
		if (r < 0)
			break;
		blocks +=
			k.group != owner ? (uint32_t)MIN(res->attr.blocks, (uint64_t)RECORD_PAYLOAD_MAX) : 0;
		durable &= res->flags;
		off += len;
	}
	*ret_off = off;
	if (reserved && r < 0 && r != -ENOSPC)
		return r; /* a part may still come: whoever appends next keeps it away */
	if (reserved || (off > op->off && (foreign || r < 0))) {
		int e = extend(s, op, off, blocks, res);

		if (e < 0)
			return e;
		if (off > op->off) /* a short write; the next one tells of the error */
			r = 0;
	}
	res->flags &= durable | ~VFS_DURABLE;
	return r;
}

/* Over stripes of several groups. Returns as soon as one piece fails: bytes before it are written (POSIX: a short write). */
static int write_striped(struct vclient_slot *s, struct vfs_op *op, const uint8_t *data,
			 struct vfs_result *res)
{
	uint64_t off = op->off;
	int r;

	for (int i = 0;; i++) {
		r = write_stripes(s, op, data, res, &off);
		if (r != -ESTALE || i >= GEN_TRIES)
			break;
		r = refresh_gen(s, &op->ino, &op->gen);
		if (r < 0)
			break;
	}
	if (r < 0)
		res->err = r;
	op->len = off - op->off; /* what was written */
	return r;
}

/* One record where the end is in a stripe of the owner's (op->off: where the end may be), else under a reservation (core/vfs/append.c). */
static int append_striped(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, struct call *k)
{
	const struct vol_map *m = vclient_map(s->c);
	uint64_t hint = op->off, len = op->len, end = hint;
	uint32_t flags = op->flags & ~VFS_APPEND;
	int r = -ESTALE;

	if (hint / m->stripe_size == (hint + len - 1) / m->stripe_size &&
	    vol_group_of_stripe(m, &op->ino, hint / m->stripe_size) == k->group) {
		op->off = 0;
		r = call_group(s, op, res, k);
	}
	for (int i = 0; r == -ESTALE && i < GEN_TRIES; i++) {
		struct vfs_op x = {.type = VFS_EXTEND,
				   .ino = op->ino,
				   .flags = VFS_APPEND,
				   .len = len,
				   .uid = op->uid,
				   .gid = op->gid};

		vfs_result_done(res);
		*res = (struct vfs_result){0};
		*k = (struct call){.group = k->group, .member = -1};
		r = call_group(s, &x, res, k);
		if (r < 0)
			break;
		r = -ESTALE;
		if (!(res->flags & VFS_APPEND))
			continue; /* one that was given up was in the way */
		op->gen = res->attr.gen;
		op->off = res->attr.size;
		op->flags = flags | VFS_RESERVED;
		r = write_stripes(s, op, op->payload->data, res, &end);
		op->len = r < 0 ? len : end - op->off;
	}
	op->flags = flags;
	return res->err = r;
}

int data_write(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, bool *ret_leased)
{
	const struct vol_map *m = vclient_map(s->c);
	struct call k = {.group = vol_owner(m, &op->ino.folder),
			 .member = -1,
			 .want_lease = ret_leased && s->c->o.leases};
	int r;

	if (!op->payload || op->payload->len == 0 || op->payload->len > RECORD_PAYLOAD_MAX)
		return res->err = -EINVAL;
	op->len = op->payload->len;
	k.data = op->payload->data;
	if (m->stripe == 1) {
		if (op->flags & VFS_APPEND)
			op->off = 0;
		r = write_piece(s, op, res, &k);
		if (ret_leased)
			*ret_leased = k.leased;
		return r;
	}
	if (op->flags & VFS_APPEND)
		return append_striped(s, op, res, &k);
	return write_striped(s, op, op->payload->data, res);
}

/* ---- reading ---- */

static void report_bad(struct vclient_slot *s, uint32_t group, int member, uint32_t brick,
		       const struct vol_ino *ino, uint64_t off)
{
	const struct vol_map *m = vclient_map(s->c);
	struct proto_bad b = {.ino = *ino, .off = off, .member = (uint8_t)member};
	struct proto_head h = {.type = FRAME_BAD_BLOCK,
			       .request = ++s->request,
			       .volume = proto_volume_tag(&m->uuid),
			       .group = group};
	int fd = slot_connect(s, brick);
	char id[33];

	vol_id_text(&ino->folder, id);
	log_error("volume %s: file %s.%llu: what brick %s sent for offset %llu does not fit its checksum; "
		  "another copy is read",
		  s->c->volume, id, (unsigned long long)ino->num, m->brick[brick].name,
		  (unsigned long long)off);
	s->body.len = 0;
	if (fd < 0 || proto_bad_encode(&b, &s->body) < 0)
		return;
	h.body_len = (uint32_t)s->body.len;
	h.body_crc = crc32c(0, s->body.data, s->body.len);
	if (conn_send(fd, &h, s->body.data, NULL) < 0)
		slot_disconnect(s, brick);
}

/* data holds whole blocks from off on (a multiple of VOL_BLOCK), zeros behind what came. The first block that does not fit, or UINT64_MAX. */
static uint64_t verify(struct vclient_slot *s, const struct vfs_result *res, uint64_t off,
		       const uint8_t *data, uint32_t blocks)
{
	uint32_t sum, n;

	if (blocks == 0)
		return UINT64_MAX;
	if (res->n_crcs < blocks || res->crc_off != off)
		return off;
	n = payload_chunks(off, data, blocks * VOL_BLOCK, s->crc, &sum);
	ensure(n == blocks);
	for (uint32_t i = 0; i < blocks; i++) {
		if (res->crcs[i] == s->crc[i])
			continue;
		if (res->crcs[i] != BLOCK_CRC_HOLE || !bytes_zero(data + (size_t)i * VOL_BLOCK, VOL_BLOCK))
			return off + (uint64_t)i * VOL_BLOCK;
	}
	return UINT64_MAX;
}

/* One piece inside one group, off and len multiples of VOL_BLOCK. Bytes that came (the rest of data is zeros) or -errno. */
static int64_t read_piece(struct vclient_slot *s, const struct vol_ino *ino, uint32_t group, uint64_t off,
			  uint8_t *data, uint32_t len, bool foreign, bool want_lease, bool *ret_leased)
{
	const struct vol_map *m = vclient_map(s->c);
	struct call k = {.group = group, .into = data, .room = len, .member = -1, .want_lease = want_lease};
	int64_t r = -EIO;

	for (uint32_t i = 0; i <= m->replica; i++) {
		struct vfs_op op = {.type = VFS_READ,
				    .ino = *ino,
				    .off = off,
				    .len = len,
				    .flags = foreign ? VFS_FOREIGN : 0};
		struct vfs_result res = {0};
		uint32_t blocks, got;
		uint64_t bad;

		r = call_group(s, &op, &res, &k);
		if (r < 0) {
			vfs_result_done(&res);
			return r;
		}
		blocks = (k.got + VOL_BLOCK - 1) / VOL_BLOCK;
		memset(data + k.got, 0, len - k.got);
		bad = verify(s, &res, off, data, blocks);
		/* the last block comes whole; the file ends where its owner says */
		got = foreign || res.attr.mode == 0 || res.attr.size >= off + k.got ? k.got
		      : res.attr.size > off ? (uint32_t)(res.attr.size - off)
					    : 0;
		vfs_result_done(&res);
		if (bad == UINT64_MAX) {
			*ret_leased = k.leased;
			return got;
		}
		report_bad(s, group, k.from, k.from_brick, ino, bad);
		k.member =
			k.from; /* the next one that is in sync; when there is none, this one may have been repaired */
		for (int n = 0; n < VOL_MEMBERS_MAX; n++) {
			k.member = (k.member + 1) % VOL_MEMBERS_MAX;
			if (k.others >> k.member & 1)
				break;
		}
		r = -EIO;
	}
	return r;
}

static int64_t read_blocks(struct vclient_slot *s, const struct vol_ino *ino, uint64_t size, uint64_t off,
			   uint8_t *data, uint32_t len, bool *ret_leased)
{
	const struct vol_map *m = vclient_map(s->c);
	uint32_t owner = vol_owner(m, &ino->folder), done = 0;
	bool want = ret_leased && s->c->o.leases, leased = true;

	if (m->stripe == 1) {
		int64_t n = read_piece(s, ino, owner, off, data, len, false, want, &leased);

		if (ret_leased)
			*ret_leased = leased;
		return n;
	}
	/* A lease is the owner's to give; data elsewhere is changed with its knowledge (VFS_EXTEND). */
	while (done < len && off + done < size) {
		uint64_t at = off + done, stripe = at / m->stripe_size;
		uint32_t part = (uint32_t)MIN((uint64_t)len - done, (stripe + 1) * m->stripe_size - at);
		uint32_t group = vol_group_of_stripe(m, ino, stripe);
		bool one = false;
		int64_t n = read_piece(s, ino, group, at, data + done, part, group != owner,
				       want && group == owner, &one);

		if (n < 0)
			return n;
		leased &= one;
		done += part;
	}
	if (ret_leased)
		*ret_leased = leased && done > 0;
	return done;
}

/* The size as the owner knows it, for a caller who does not. With its lease what is read afterwards may be kept, from any group: who writes there tells the
 * owner before the write returns. */
static int64_t size_of(struct vclient_slot *s, const struct vol_ino *ino, bool *ret_leased)
{
	struct vfs_op op = {.type = VFS_GETATTR, .ino = *ino};
	struct vfs_result res = {0};
	struct call k = {.group = vol_owner(vclient_map(s->c), &ino->folder),
			 .member = -1,
			 .want_lease = ret_leased && s->c->o.leases};
	int64_t r = call_group(s, &op, &res, &k);

	if (ret_leased)
		*ret_leased = k.leased;
	if (r == 0)
		r = (int64_t)MIN(res.attr.size, (uint64_t)INT64_MAX);
	vfs_result_done(&res);
	return r;
}

int64_t data_read(struct vclient_slot *s, const struct vol_ino *ino, uint64_t size, uint64_t off, void *data,
		  uint32_t len, bool *ret_leased)
{
	uint64_t head = off % VOL_BLOCK, from = off - head;
	uint32_t whole;
	int64_t n;

	if (len == 0 || off >= size)
		return 0;
	if (len > RECORD_PAYLOAD_MAX - 2 * VOL_BLOCK && (head || len % VOL_BLOCK))
		len = RECORD_PAYLOAD_MAX - 2 * VOL_BLOCK;
	len = MIN(len, RECORD_PAYLOAD_MAX);
	if (size == UINT64_MAX && vclient_map(s->c)->stripe > 1) {
		n = size_of(s, ino, ret_leased);
		ret_leased = NULL;
		if (n < 0)
			return n;
		size = (uint64_t)n;
		if (off >= size)
			return 0;
	}
	if (head == 0 && len % VOL_BLOCK == 0) {
		n = read_blocks(s, ino, size, off, data, len, ret_leased);
		return n < 0 ? n : MIN(n, (int64_t)MIN(size - off, (uint64_t)len));
	}
	whole = (uint32_t)((head + len + VOL_BLOCK - 1) / VOL_BLOCK * VOL_BLOCK);
	if (!s->bounce)
		s->bounce = aligned_alloc(VOL_BLOCK, RECORD_PAYLOAD_MAX);
	if (!s->bounce)
		return -ENOMEM;
	n = read_blocks(s, ino, size, from, s->bounce, whole, ret_leased);
	if (n < 0)
		return n;
	n = MIN(n, (int64_t)MIN(size - from, (uint64_t)whole)) - (int64_t)head;
	n = CLAMP(n, 0, (int64_t)len);
	memcpy(data, s->bounce + head, (size_t)n);
	return n;
}

int64_t vclient_read(struct vclient_slot *s, const struct vol_ino *ino, uint64_t size, uint64_t off,
		     void *data, uint32_t len, bool *ret_leased)
{
	if (ret_leased)
		*ret_leased = false;
	return data_read(s, ino, size, off, data, len, ret_leased);
}

int vclient_lookup(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res, bool *ret_leased,
		   void *data, uint32_t room, uint32_t *ret_len)
{
	struct call k = {.group = vfs_group(vclient_map(s->c), op),
			 .member = -1,
			 .into = data,
			 .room = room,
			 .want_lease = s->c->o.leases};
	uint64_t size;
	int r;

	ensure(op->type == VFS_LOOKUP && room % VOL_BLOCK == 0);
	*res = (struct vfs_result){0};
	*ret_len = 0;
	op->len = room;
	r = call_group(s, op, res, &k);
	*ret_leased = k.leased;
	size = res->attr.size;
	/* what does not fit its checksum is read again, and that read tells of it */
	if (r == 0 && !(res->flags & VFS_NO_ATTR) && size > 0 && size <= k.got && k.got % VOL_BLOCK == 0 &&
	    verify(s, res, 0, data, k.got / VOL_BLOCK) == UINT64_MAX)
		*ret_len = (uint32_t)size;
	return r;
}

/* ---- over all groups of a file ---- */

int data_fsync(struct vclient_slot *s, const struct vol_ino *ino)
{
	const struct vol_map *m = vclient_map(s->c);
	uint32_t groups[VOL_STRIPE_MAX];
	int r = 0;

	vol_place(m, &ino->folder, groups);
	/* foreign data first: the owner's size is durable only with the bytes it speaks of */
	for (uint32_t i = ino->num == 0 ? 1 : m->stripe; i > 0 && r == 0; i--) {
		struct vfs_op op = {.type = VFS_FSYNC, .ino = *ino, .flags = i > 1 ? VFS_FOREIGN : 0};
		struct vfs_result res = {0};
		struct call k = {.group = groups[i - 1], .member = -1};

		r = call_group(s, &op, &res, &k);
		vfs_result_done(&res);
	}
	return r;
}

void vclient_forks_begin(struct vclient_slot *s)
{
	s->forked = false;
}

uint64_t vclient_forks_end(struct vclient_slot *s, const struct vol_ino *ino)
{
	const struct vol_map *m = vclient_map(s->c);
	uint32_t groups[VOL_STRIPE_MAX];
	uint64_t sum = 0;

	if (s->forked)
		return UINT64_MAX;
	vol_place(m, &ino->folder, groups);
	pthread_mutex_lock(&s->c->lock);
	for (uint32_t i = 0; i < m->stripe; i++)
		sum += s->c->group[groups[i]].view.fork;
	pthread_mutex_unlock(&s->c->lock);
	return sum;
}

int vclient_fsync(struct vclient_slot *s, const struct vol_ino *ino)
{
	return data_fsync(s, ino);
}

/* SEEK_DATA and SEEK_HOLE over several groups: stripe by stripe would ask too often; all up to the end counts as data, which POSIX allows. */
int data_seek(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res)
{
	int64_t size = size_of(s, &op->ino, NULL);

	if (size < 0)
		return res->err = (int)size;
	if (op->off >= (uint64_t)size)
		return res->err = -ENXIO;
	res->attr.size = op->set == SEEK_HOLE ? (uint64_t)size : op->off;
	return 0;
}

static bool same_bricks(const struct vol_map *m, uint32_t a, uint32_t b)
{
	for (uint32_t i = 0; i < m->replica; i++) {
		bool found = false;

		for (uint32_t j = 0; j < m->replica; j++)
			found |= m->group[a].brick[i] == m->group[b].brick[j];
		if (!found)
			return false;
	}
	return true;
}

static bool seen_before(const struct vol_map *m, uint32_t g)
{
	for (uint32_t i = 0; i < g; i++)
		if (same_bricks(m, i, g))
			return true;
	return false;
}

/* Of how many sets are the bricks of group g? Two from three sets on, see vol_map_make. */
static uint32_t shared_by(const struct vol_map *m, uint32_t g)
{
	uint32_t most = 1;

	for (uint32_t j = 0; j < m->replica; j++) {
		uint32_t n = 0;

		for (uint32_t i = 0; i < m->n_groups; i++) {
			bool in = false;

			for (uint32_t k = 0; k < m->replica; k++)
				in |= m->group[i].brick[k] == m->group[g].brick[j];
			n += in && !seen_before(m, i);
		}
		most = MAX(most, n);
	}
	return most;
}

/* Space of the volume: each set of bricks once, and of bricks that are in several sets a share. */
int data_statfs(struct vclient_slot *s, struct vfs_op *op, struct vfs_result *res)
{
	const struct vol_map *m = vclient_map(s->c);
	struct vfs_attr sum = {0};
	int r;

	for (uint32_t g = 0; g < m->n_groups; g++) {
		struct call k = {.group = g, .member = -1};
		uint32_t sets;

		if (seen_before(m, g))
			continue;
		sets = shared_by(m, g);
		vfs_result_done(res);
		*res = (struct vfs_result){0};
		r = call_group(s, op, res, &k);
		if (r < 0)
			return r;
		sum.size += res->attr.size / sets;
		sum.blocks += res->attr.blocks / sets;
		sum.version += res->attr.version / sets;
	}
	res->attr = sum;
	return 0;
}
