/* SPDX-License-Identifier: Apache-2.0 */
/* log, the writing side: frames are collected in a buffer and go out by one write(2) a loop turn. Byte tables: docs/protocol/brick-store.md.
 *
 * Segments have a fixed size and are allocated whole when they are made, so that a full disk shows then and not in the middle, and are used
 * again after a checkpoint, so that their syncs need no new blocks. What an old life left behind the end cannot be taken for frames: each
 * frame carries its own position and the number of its life (one opening of the log). A segment's head says where its predecessor ended,
 * so bytes behind a torn end, or of a failed write, stay dead for ever: after either a new segment begins.
 * A failed write leaves the buffer's frames out of the log altogether; the caller undoes them. */
#include "volume/bstore/internal.h"

#include "base/bytes.h"

#include <fcntl.h>
#include <sys/stat.h>

static void segment_name(uint64_t no, char out[32])
{
	snprintf(out, 32, "%08llu.log", (unsigned long long)no);
}

static void spare_name(int i, char out[32])
{
	snprintf(out, 32, "spare-%d", i);
}

static int write_at(int fd, const void *data, size_t len, uint64_t off)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* A file of a segment's size with blocks of its own: a spare one or a new one. Allocation is tried; file systems without it do without. */
static int segment_file(struct log *l, const char *name)
{
	char spare[32];
	int fd, r;

	if (l->n_spare > 0) {
		spare_name(l->spare[l->n_spare - 1], spare);
		fd = openat(l->dir_fd, spare, O_RDWR | O_CLOEXEC);
		l->n_spare--;
		if (fd >= 0 && renameat(l->dir_fd, spare, l->dir_fd, name) == 0)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	fd = openat(l->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (fallocate(fd, 0, 0, (off_t)l->seg_bytes) == 0)
		return fd;
	r = errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -errno;
	if (r < 0) {
		unlinkat(l->dir_fd, name, 0);
		close(fd);
		return r;
	}
	return fd;
}

static int new_segment(struct log *l, uint64_t no, uint64_t prev_end)
{
	uint8_t head[SEGMENT_HEAD] = "kuayulog";
	char name[32];
	int fd, r;

	segment_name(no, name);
	fd = segment_file(l, name);
	if (fd < 0)
		return fd;
	le32_put(head + 8, BSTORE_FORMAT);
	memcpy(head + 16, l->uuid, 16);
	le64_put(head + 32, no);
	le64_put(head + 40, prev_end);
	le32_put(head + 48, l->life);
	le32_put(head + 60, crc32c(0, head, 60));
	r = write_at(fd, head, sizeof(head), 0);
	if (r < 0) {
		unlinkat(l->dir_fd, name, 0);
		close(fd);
		return r;
	}
	if (l->fd >= 0) {
		ensure(l->n_unsynced < ARRAY_SIZE(l->unsynced_fd));
		l->unsynced_fd[l->n_unsynced++] = l->fd;
	}
	l->fd = fd;
	l->seg_no = no;
	l->at = SEGMENT_HEAD;
	l->broken = false;
	l->dir_changes++;
	if (!l->oldest_seg)
		l->oldest_seg = no;
	return 0;
}

int log_open(struct log *l, int dir_fd, const uint8_t uuid[16], uint64_t seg_bytes, uint64_t seg_no,
	     uint64_t prev_end, struct err *e)
{
	uint64_t oldest = l->oldest_seg;
	char name[32];
	int r;

	*l = (struct log){.dir_fd = dir_fd, .fd = -1, .seg_bytes = seg_bytes, .oldest_seg = oldest};
	l->buf.limit = 2 * LOG_BUFFER_MAX + RECORD_BODY_MAX;
	memcpy(l->uuid, uuid, 16);
	random_bytes(&l->life, sizeof(l->life));
	for (int i = 0; i < SPARE_SEGMENTS_MAX; i++) {
		struct stat st;

		spare_name(i, name);
		if (fstatat(dir_fd, name, &st, 0) < 0)
			continue;
		if ((uint64_t)st.st_size == seg_bytes)
			l->spare[l->n_spare++] = i;
		else
			unlinkat(dir_fd, name, 0);
	}
	r = new_segment(l, seg_no, prev_end);
	return r < 0 ? err_errno(e, r, "cannot make a log segment of %llu MiB",
				 (unsigned long long)seg_bytes >> 20)
		     : 0;
}

void log_close(struct log *l)
{
	for (uint32_t i = 0; i < l->n_unsynced; i++)
		close(l->unsynced_fd[i]);
	l->n_unsynced = 0;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	buf_done(&l->buf);
}

uint64_t log_end(const struct log *l)
{
	return lsn_make(l->seg_no, l->at + l->buf.len);
}

uint64_t log_bytes(const struct log *l, uint64_t since)
{
	uint64_t segs = l->seg_no - (since >> 32);

	return segs > l->seg_no ? 0 : segs * l->seg_bytes + l->at + l->buf.len - (since & UINT32_MAX);
}

/* Room for a frame in this segment; else what is buffered goes out and the next segment begins. */
static int frame_room(struct log *l, size_t len)
{
	int r;

	if (len > l->seg_bytes - SEGMENT_HEAD)
		return -E2BIG;
	if (!l->broken && l->at + l->buf.len + len <= l->seg_bytes && l->buf.len + len <= LOG_BUFFER_MAX)
		return 0;
	r = log_flush(l);
	if (r < 0 || (!l->broken && l->at + len <= l->seg_bytes))
		return r;
	if (l->n_unsynced >= ARRAY_SIZE(l->unsynced_fd)) {
		/* Nobody syncs and checkpoints do not end: the oldest is synced here. */
		if (fdatasync(l->unsynced_fd[0]) < 0)
			return -errno;
		close(l->unsynced_fd[0]);
		memmove(l->unsynced_fd, l->unsynced_fd + 1, --l->n_unsynced * sizeof(l->unsynced_fd[0]));
	}
	return new_segment(l, l->seg_no + 1, lsn_make(l->seg_no, l->at));
}

static void frame_head(struct log *l, uint8_t *p, uint8_t type, uint8_t flags, uint16_t n_patches, size_t len)
{
	memset(p, 0, FRAME_HEAD);
	le32_put(p, FRAME_MAGIC);
	p[4] = type;
	p[5] = flags;
	le16_put(p + 6, n_patches);
	le32_put(p + 8, (uint32_t)len);
	le32_put(p + 12, l->life);
	le64_put(p + 16, log_end(l));
	le64_put(p + 32, l->synced);
}

static int add(struct log *l, const void *data, size_t len)
{
	return buf_add(&l->buf, data, len) < 0 ? -ENOMEM : 0;
}

/* Frame: head, record head, body, chunks' checksums or payload, zeros up to a multiple of 8, patches. The head's checksum covers the head and the
 * patches: record head, body and data have their own. */
int log_record(struct log *l, const struct record *rec, uint64_t committed, uint8_t flags,
	       const struct replica_patch *patch, uint32_t n, uint64_t *ret_lsn)
{
	size_t chunks = flags & FRAME_CHUNKS ? rec->n_chunks * 4ul : 0,
	       payload = flags & FRAME_PAYLOAD ? rec->payload_len : 0;
	size_t len = FRAME_HEAD + RECORD_HEAD + rec->body_len + chunks + payload + n * sizeof(*patch),
	       pad = -len & 7;
	uint8_t head[FRAME_HEAD + RECORD_HEAD];
	static const uint8_t zeros[8];
	int r = frame_room(l, len + pad);

	if (r < 0)
		return r;
	*ret_lsn = log_end(l);
	frame_head(l, head, FRAME_RECORD, flags, (uint16_t)n, len + pad);
	le64_put(head + 24, committed);
	le32_put(head + 44, crc32c(crc32c(0, head, 44), patch, n * sizeof(*patch)));
	record_encode_head(rec, head + FRAME_HEAD);
	r = add(l, head, sizeof(head));
	if (r == 0)
		r = add(l, rec->body, rec->body_len);
	if (r == 0 && chunks)
		r = add(l, rec->chunk_crc, chunks);
	if (r == 0 && payload)
		r = add(l, rec->payload->data, payload);
	if (r == 0)
		r = add(l, zeros, pad);
	if (r == 0 && n)
		r = add(l, patch, n * sizeof(*patch));
	return r;
}

int log_cut_mark(struct log *l, uint32_t group, uint64_t epoch, uint64_t seq)
{
	uint8_t f[FRAME_HEAD + 24] = {0};
	int r = frame_room(l, sizeof(f));

	if (r < 0)
		return r;
	frame_head(l, f, FRAME_CUT, 0, 0, sizeof(f));
	le32_put(f + FRAME_HEAD, group);
	le64_put(f + FRAME_HEAD + 8, epoch);
	le64_put(f + FRAME_HEAD + 16, seq);
	le32_put(f + 44, crc32c(crc32c(0, f, 44), f + FRAME_HEAD, 24));
	return add(l, f, sizeof(f));
}

int log_flush(struct log *l)
{
	int r;

	if (l->buf.len == 0)
		return 0;
	r = write_at(l->fd, l->buf.data, l->buf.len, l->at);
	if (r == 0)
		l->at += l->buf.len;
	else
		l->broken = true;
	l->buf.len = 0;
	return r;
}

static void spare_or_remove(struct log *l, const char *name)
{
	char spare[32];
	bool used[SPARE_SEGMENTS_MAX] = {0};
	int i = 0;

	for (uint32_t k = 0; k < l->n_spare; k++)
		used[l->spare[k]] = true;
	while (i < SPARE_SEGMENTS_MAX && used[i])
		i++;
	if (i < SPARE_SEGMENTS_MAX) {
		spare_name(i, spare);
		if (renameat(l->dir_fd, name, l->dir_fd, spare) == 0) {
			l->spare[l->n_spare++] = i;
			return;
		}
	}
	unlinkat(l->dir_fd, name, 0);
}

void log_forget(struct log *l, uint64_t lsn)
{
	char name[32];

	for (; l->oldest_seg < (lsn >> 32) && l->oldest_seg < l->seg_no; l->oldest_seg++) {
		segment_name(l->oldest_seg, name);
		spare_or_remove(l, name);
	}
}
