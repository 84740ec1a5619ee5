/* SPDX-License-Identifier: Apache-2.0 */
/* scan: reading the log. Trusts no byte: everything is bounded before it is used and has a checksum. The log ends at the first place where no
 * whole frame of this place and life is; what lies behind is dead. A segment is followed by the next one only where that one's head says so.
 * Segments are read, not mapped: a disk error is an error here, not a signal. */
#include "volume/bstore/internal.h"

#include "base/bytes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

void frame_done(struct frame *f)
{
	record_unref(f->rec);
	free(f->patch);
	*f = (struct frame){0};
}

static int parse_payload(const uint8_t *p, uint32_t len, struct payload **ret)
{
	struct payload *pl = payload_new(len);

	if (!pl)
		return -ENOMEM;
	memcpy(pl->data, p, len);
	*ret = pl;
	return 0;
}

/* p: behind the frame's head; len: up to the patches. */
static int parse_record(const uint8_t *p, size_t len, struct frame *f, const char **why)
{
	struct payload *payload = NULL;
	uint32_t body_len, payload_len;
	size_t at, rest;
	struct err e = {0};
	int r;

	*why = "a record's head or length does not hold";
	if (len < RECORD_HEAD || record_decode_head(p, &body_len, &payload_len) < 0 ||
	    body_len > len - RECORD_HEAD)
		return -EBADMSG;
	at = RECORD_HEAD + body_len;
	rest = len - at;
	if (f->flags & FRAME_PAYLOAD) {
		if (payload_len == 0 || payload_len > rest || rest - payload_len > 7 ||
		    !bytes_zero(p + at + payload_len, rest - payload_len))
			return -EBADMSG;
		r = parse_payload(p + at, payload_len, &payload);
		if (r < 0)
			return r;
	} else if (!(f->flags & FRAME_CHUNKS) && (rest > 7 || payload_len > 0)) {
		return -EBADMSG;
	}
	r = record_decode(p, p + RECORD_HEAD, payload, &f->rec, &e);
	payload_unref(payload);
	*why = "a record's checksum or content does not hold";
	if (r < 0)
		return r;
	if (f->flags & FRAME_CHUNKS) {
		if (payload_len == 0 || rest / 4 > PAYLOAD_CHUNKS(RECORD_PAYLOAD_MAX) + 1)
			return -EBADMSG;
		/* Padding may look like one more checksum. */
		if (record_set_chunks(f->rec, (const uint32_t *)(const void *)(p + at),
				      (uint32_t)(rest / 4)) < 0 &&
		    (rest < 8 || record_set_chunks(f->rec, (const uint32_t *)(const void *)(p + at),
						   (uint32_t)(rest / 4 - 1)) < 0))
			return -EBADMSG;
	}
	return 0;
}

int frame_parse(const uint8_t *p, size_t len, uint64_t lsn, uint32_t life, struct frame *ret,
		const char **why)
{
	struct frame f = {0};
	size_t flen, patches;
	int r = 0;

	*why = "end";
	if (len < FRAME_HEAD || le32_get(p) != FRAME_MAGIC || le64_get(p + 16) != lsn ||
	    le32_get(p + 12) != life)
		return 0;
	flen = le32_get(p + 8);
	f.type = p[4];
	f.flags = p[5];
	f.n_patches = le16_get(p + 6);
	f.committed = le64_get(p + 24);
	f.synced = le64_get(p + 32);
	f.lsn = lsn;
	f.next_lsn = lsn + flen;
	patches = f.n_patches * sizeof(struct replica_patch);
	*why = "a frame's head or length does not hold";
	if (flen > len || flen % 8 != 0 || flen < FRAME_HEAD + patches || f.n_patches > REPLICA_PATCHES_MAX ||
	    le32_get(p + 40) != 0 || (f.flags & ~(FRAME_PAYLOAD | FRAME_CHUNKS | FRAME_LIVE)) ||
	    (f.flags & (FRAME_PAYLOAD | FRAME_CHUNKS)) == (FRAME_PAYLOAD | FRAME_CHUNKS))
		return -EBADMSG;
	*why = "a frame's checksum does not hold";
	if (f.type == FRAME_CUT) {
		if (flen != FRAME_HEAD + 24 || f.flags || f.n_patches ||
		    crc32c(crc32c(0, p, 44), p + FRAME_HEAD, 24) != le32_get(p + 44))
			return -EBADMSG;
		f.group = le32_get(p + FRAME_HEAD);
		f.epoch = le64_get(p + FRAME_HEAD + 8);
		f.seq = le64_get(p + FRAME_HEAD + 16);
		*ret = f;
		return (int)flen;
	}
	if (f.type != FRAME_RECORD ||
	    crc32c(crc32c(0, p, 44), p + flen - patches, patches) != le32_get(p + 44))
		return -EBADMSG;
	r = parse_record(p + FRAME_HEAD, flen - FRAME_HEAD - patches, &f, why);
	if (r == 0 && patches) {
		f.patch = malloc(patches);
		if (f.patch)
			memcpy(f.patch, p + flen - patches, patches);
		else
			r = -ENOMEM;
	}
	if (r < 0) {
		frame_done(&f);
		return r;
	}
	*ret = f;
	return (int)flen;
}

int segment_parse(const uint8_t *p, size_t len, const uint8_t uuid[16], uint64_t no, uint32_t *ret_life,
		  uint64_t *ret_prev_end)
{
	if (len < SEGMENT_HEAD || memcmp(p, "kuayulog", 8) != 0 || crc32c(0, p, 60) != le32_get(p + 60) ||
	    le32_get(p + 8) != BSTORE_FORMAT || memcmp(p + 16, uuid, 16) != 0 || le64_get(p + 32) != no)
		return -EBADMSG;
	*ret_life = le32_get(p + 48);
	*ret_prev_end = le64_get(p + 40);
	return 0;
}

static int cmp_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Numbers of the segments there are, ascending. */
static int list_segments(int dir_fd, uint64_t **ret, size_t *ret_n)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	uint64_t *no = NULL;
	size_t n = 0, cap = 0;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	for (struct dirent *de; (de = readdir(d));) {
		unsigned long long v;
		int end = 0;

		if (sscanf(de->d_name, "%20llu.log%n", &v, &end) != 1 || end == 0 || de->d_name[end] ||
		    v == 0 || v > UINT32_MAX)
			continue;
		if (n == cap)
			no = xrealloc(no, (cap = cap ? cap * 2 : 64) * sizeof(*no));
		no[n++] = v;
	}
	closedir(d);
	if (n)
		qsort(no, n, sizeof(*no), cmp_u64);
	*ret = no;
	*ret_n = n;
	return 0;
}

static int read_segment(int dir_fd, uint64_t no, uint8_t **ret, size_t *ret_len)
{
	char name[32];
	_cleanup_close_ int fd = -1;
	struct stat st;
	size_t at = 0;
	off_t size;
	uint8_t *p;

	snprintf(name, sizeof(name), "%08llu.log", (unsigned long long)no);
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size > UINT32_MAX)
		return -EBADMSG;
	/* Allocated but never written: the log ends there at the latest. */
	size = lseek(fd, 0, SEEK_HOLE);
	if (size <= 0 || size > st.st_size)
		size = st.st_size;
	p = malloc((size_t)size + 1);
	if (!p)
		return -ENOMEM;
	while (at < (size_t)size) {
		ssize_t n = pread(fd, p + at, (size_t)size - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int r = -errno;

			free(p);
			return r;
		}
		if (n == 0)
			break;
		at += (size_t)n;
	}
	*ret = p;
	*ret_len = at;
	return 0;
}

/* Frames of one segment from off up to stop (0 = its end). *ret_at: where the first place without a frame is. */
static int scan_segment(const uint8_t *p, size_t len, uint64_t no, uint32_t life, size_t off, size_t stop,
			int (*fn)(void *ctx, struct frame *f), void *ctx, struct log_scan *s, size_t *ret_at)
{
	if (stop && stop < len)
		len = stop;
	while (off < len) {
		struct frame f;
		const char *why;
		int n = frame_parse(p + off, len - off, lsn_make(no, off), life, &f, &why), r;

		if (n == -ENOMEM)
			return n;
		if (n <= 0) {
			s->torn |= n < 0;
			snprintf(s->why, sizeof(s->why), "%s", why);
			break;
		}
		s->synced = MAX(s->synced, f.synced);
		r = fn(ctx, &f);
		frame_done(&f);
		if (r < 0)
			return r;
		off += (size_t)n;
	}
	*ret_at = off;
	return 0;
}

/* Is there a whole frame behind off? Then bytes in between were lost or damaged; its word on what was durable counts. */
static void look_behind(const uint8_t *p, size_t len, uint64_t no, uint32_t life, size_t off,
			struct log_scan *s)
{
	for (off = (off + 8) & ~7ul; off + FRAME_HEAD <= len; off += 8) {
		struct frame f;
		const char *why;

		if (le32_get(p + off) != FRAME_MAGIC ||
		    frame_parse(p + off, len - off, lsn_make(no, off), life, &f, &why) <= 0)
			continue;
		s->torn = true;
		s->synced = MAX(s->synced, f.synced);
		frame_done(&f);
	}
}

/* Reads segment i of the list and the next one's head: *ret_stop is where this one ends by that (0 = nothing says so). */
static int next_head(int dir_fd, const uint8_t uuid[16], uint64_t next, uint64_t no, size_t *ret_stop)
{
	uint8_t head[SEGMENT_HEAD];
	_cleanup_close_ int fd = -1;
	uint64_t prev_end;
	uint32_t life;
	char name[32];

	*ret_stop = 0;
	snprintf(name, sizeof(name), "%08llu.log", (unsigned long long)next);
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
	    segment_parse(head, sizeof(head), uuid, next, &life, &prev_end) == 0 && prev_end >> 32 == no)
		*ret_stop = prev_end & UINT32_MAX;
	return 0;
}

int log_scan(int dir_fd, const uint8_t uuid[16], uint64_t from, int (*fn)(void *ctx, struct frame *f),
	     void *ctx, struct log_scan *ret, struct err *e)
{
	_cleanup_free_ uint64_t *no = NULL;
	size_t n = 0, i = 0;
	int r = list_segments(dir_fd, &no, &n);

	*ret = (struct log_scan){.end = from};
	if (r < 0)
		return err_errno(e, r, "cannot read the log's folder");
	if (n == 0)
		return 0;
	ret->first_seg = no[0];
	ret->last_seg = no[n - 1];
	while (i < n && no[i] < from >> 32)
		i++;
	if (i == n || (from && no[i] != from >> 32)) {
		ret->torn = true;
		snprintf(ret->why, sizeof(ret->why), "segment %llu is not there",
			 (unsigned long long)(from >> 32));
		return 0;
	}
	for (bool more = true; more && i < n; i++) {
		_cleanup_free_ uint8_t *p = NULL;
		size_t len = 0, off = SEGMENT_HEAD, stop = 0, at = 0;
		uint64_t prev_end;
		uint32_t life;

		r = read_segment(dir_fd, no[i], &p, &len);
		if (r == 0 && i + 1 < n)
			r = next_head(dir_fd, uuid, no[i + 1], no[i], &stop);
		if (r < 0)
			return err_errno(e, r, "cannot read log segment %llu", (unsigned long long)no[i]);
		if (segment_parse(p, len, uuid, no[i], &life, &prev_end) < 0) {
			ret->torn = true;
			snprintf(ret->why, sizeof(ret->why), "the head of segment %llu does not hold",
				 (unsigned long long)no[i]);
			break;
		}
		if (from >> 32 == no[i])
			off = MAX(off, (size_t)(from & UINT32_MAX));
		r = scan_segment(p, len, no[i], life, off, stop, fn, ctx, ret, &at);
		if (r < 0)
			return err_errno(e, r, "reading log segment %llu", (unsigned long long)no[i]);
		ret->end = lsn_make(no[i], at);
		more = stop && at == stop;
		if (!more)
			look_behind(p, stop ? MIN(stop, len) : len, no[i], life, at, ret);
	}
	return 0;
}
