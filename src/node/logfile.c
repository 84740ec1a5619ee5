/* SPDX-License-Identifier: Apache-2.0 */
/* Container log files, written by monitors, read by the agent for `kubectl logs`.
 *
 * Rotation: at LOG_FILE_MAX the file is renamed to PATH.1 (older ones move up, the oldest goes) and a new PATH is begun. A
 * reader that follows notices by the inode, reads the rest of the renamed file first and goes on in the new one. Reading is bounded by
 * the files' sizes (50 MiB). */
#include "node/logfile.h"

#include <fcntl.h>
#include <sys/stat.h>

int log_file_open(struct log_file *f, const char *path)
{
	struct stat st;

	f->path = path;
	f->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (f->fd < 0 || fstat(f->fd, &st) < 0)
		return -errno;
	f->size = st.st_size;
	return 0;
}

static void put_record(struct log_file *f, struct log_stream *s, char tag)
{
	char when[CLOCK_TEXT_MAX];

	if (buf_addf(&f->out, "%s %s %c ", clock_text(when, clock_wall_us(), 6), s->name, tag) == 0 &&
	    buf_add(&f->out, s->line, s->len) == 0)
		(void)buf_add(&f->out, "\n", 1);
	s->len = 0;
}

void log_file_put(struct log_file *f, struct log_stream *s, const char *data, size_t len)
{
	while (len > 0) {
		const char *nl = memchr(data, '\n', len);
		size_t n = MIN(nl ? (size_t)(nl - data) : len, sizeof(s->line) - s->len);

		memcpy(s->line + s->len, data, n);
		s->len += n;
		data += n;
		len -= n;
		if (nl && data == nl) {
			put_record(f, s, 'F');
			data++;
			len--;
		} else if (s->len == sizeof(s->line)) {
			put_record(f, s, 'P');
		}
	}
}

void log_file_end(struct log_file *f, struct log_stream *s)
{
	if (s->len > 0)
		put_record(f, s, 'F');
}

static void rotate(struct log_file *f)
{
	for (int i = LOG_FILES - 1; i > 0; i--) {
		_cleanup_free_ char *from = i > 1 ? xasprintf("%s.%d", f->path, i - 1) : xstrdup(f->path);
		_cleanup_free_ char *to = xasprintf("%s.%d", f->path, i);

		(void)rename(from, to);
	}
	close(f->fd);
	f->size = 0;
	f->fd = open(f->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

void log_file_flush(struct log_file *f)
{
	size_t done = 0;

	while (done < f->out.len && f->fd >= 0) {
		ssize_t n = write(f->fd, f->out.data + done, f->out.len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
		f->size += n;
	}
	buf_skip(&f->out, f->out.len);
	if (f->fd < 0 || f->size >= LOG_FILE_MAX)
		rotate(f);
}

bool log_record_format(const char *rec, size_t len, const struct log_options *o, struct buf *out)
{
	const char *end = rec + len, *stream, *tag, *text;
	char when[CLOCK_TEXT_MAX];
	int64_t at;

	stream = memchr(rec, ' ', len);
	if (!stream || stream - rec >= (ptrdiff_t)sizeof(when))
		return false;
	tag = memchr(stream + 1, ' ', (size_t)(end - stream - 1));
	if (!tag || end - tag < 3 || (tag[1] != 'F' && tag[1] != 'P') || tag[2] != ' ')
		return false;
	text = tag + 3;
	memcpy(when, rec, (size_t)(stream - rec));
	when[stream - rec] = 0;
	if (clock_parse(when, &at) < 0)
		return false;
	if (at < o->since_us)
		return true;
	if (o->timestamps)
		(void)buf_addf(out, "%s ", when);
	(void)buf_add(out, text, (size_t)(end - text));
	if (tag[1] == 'F')
		(void)buf_add(out, "\n", 1);
	return true;
}

/* Formats whole records of data[0..len); returns how many bytes were used. */
static size_t format_records(const char *data, size_t len, const struct log_options *o, struct buf *out)
{
	size_t used = 0;

	while (used < len) {
		const char *nl = memchr(data + used, '\n', len - used);

		if (!nl)
			break;
		log_record_format(data + used, (size_t)(nl - data) - used, o, out);
		used = (size_t)(nl - data) + 1;
	}
	return used;
}

static int read_from(int fd, off_t offset, struct buf *b)
{
	char chunk[65536];

	for (;;) {
		ssize_t n = pread(fd, chunk, sizeof(chunk), offset + (off_t)b->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		if (buf_add(b, chunk, (size_t)n) < 0)
			return 0; /* the rest comes with the next read */
	}
}

/* Start of the last `lines` lines. */
static size_t tail_start(const char *data, size_t len, int64_t lines)
{
	size_t at = len;

	if (lines == 0)
		return len;
	if (at > 0 && data[at - 1] == '\n')
		at--;
	while (at > 0)
		if (data[at - 1] == '\n' && --lines == 0)
			return at;
		else
			at--;
	return 0;
}

int log_read(const char *path, const struct log_options *o, struct buf *out, struct log_tail *ret_tail)
{
	_cleanup_buf_ struct buf all = {0};
	size_t skip;

	if (ret_tail)
		*ret_tail = (struct log_tail){.fd = -1};
	for (int i = LOG_FILES - 1; i >= 0; i--) {
		_cleanup_free_ char *name = i ? xasprintf("%s.%d", path, i) : xstrdup(path);
		_cleanup_close_ int fd = open(name, O_RDONLY | O_CLOEXEC);
		_cleanup_buf_ struct buf b = {0};
		size_t used;

		if (fd < 0)
			continue;
		if (read_from(fd, 0, &b) < 0)
			return -EIO;
		used = b.data ? format_records(b.data, b.len, o, &all) : 0;
		if (i == 0 && ret_tail) {
			*ret_tail = (struct log_tail){.fd = fd, .offset = (off_t)used};
			fd = -1;
		}
	}
	if (!all.data)
		return 0;
	skip = o->tail_lines >= 0 ? tail_start(all.data, all.len, o->tail_lines) : 0;
	if (o->limit_bytes >= 0 && all.len - skip > (size_t)o->limit_bytes)
		return buf_add(out, all.data + skip, (size_t)o->limit_bytes);
	return buf_add(out, all.data + skip, all.len - skip);
}

int log_read_end(const char *path, int64_t lines, struct buf *out)
{
	const struct log_options o = {.tail_lines = lines, .limit_bytes = -1};
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_buf_ struct buf b = {0}, all = {0};
	const char *nl;
	struct stat st;
	size_t skip;
	off_t from;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	from = MAX(st.st_size - LOG_END_MAX, 0);
	if (read_from(fd, from, &b) < 0)
		return -EIO;
	nl = from && b.len ? memchr(b.data, '\n', b.len) : NULL; /* the first record may be cut */
	if (nl)
		buf_skip(&b, (size_t)(nl + 1 - b.data));
	if (b.len)
		format_records(b.data, b.len, &o, &all);
	if (!all.len)
		return 0;
	skip = tail_start(all.data, all.len, lines);
	return buf_add(out, all.data + skip, all.len - skip);
}

static void read_rest(const struct log_options *o, struct buf *out, struct log_tail *t)
{
	_cleanup_buf_ struct buf b = {0};

	if (read_from(t->fd, t->offset, &b) == 0 && b.data)
		t->offset += (off_t)format_records(b.data, b.len, o, out);
}

void log_read_more(const char *path, const struct log_options *o, struct buf *out, struct log_tail *t)
{
	struct stat now, mine;
	bool rotated = t->fd < 0;

	/* Looked at before reading: what is written after the rename below goes to the new file only. */
	if (t->fd >= 0 && stat(path, &now) == 0 && fstat(t->fd, &mine) == 0)
		rotated = now.st_ino != mine.st_ino;
	if (t->fd >= 0)
		read_rest(o, out, t);
	if (!rotated)
		return;
	log_tail_done(t);
	t->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (t->fd >= 0)
		read_rest(o, out, t);
}

void log_tail_done(struct log_tail *t)
{
	if (t->fd >= 0)
		close(t->fd);
	*t = (struct log_tail){.fd = -1};
}
