/* SPDX-License-Identifier: Apache-2.0 */
/* posix-fsx: random operations on one file beside a model of it in memory; each byte that is read is compared.
 *
 *   posix-fsx FILE [--seed=N] [--ops=N] [--seconds=S] [--size=BYTES] [--other=PATH] [--no-mmap] [--no-punch] [--verbose]
 *
 * The idea is that of the well-known file system exerciser of the same name; the program is this project's own. Operations:
 * read, write, read and write through mmap, append, truncate up and down, fallocate (with and without keeping the size), punch
 * hole, zero range, copy_file_range within the file, fsync, close and open again. --other is the same file through another
 * mount: after each close or fsync it is opened there and compared, and some operations are done there. A run is decided
 * by --seed alone: the same seed does the same operations. What a file system does not know (EOPNOTSUPP) is told once and left out.
 * At a difference: the offset, what is and what should be there, the last operations; exit status 1. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HISTORY	   40
#define OP_LEN_MAX (256u << 10)
#define PAGE	   4096u

static struct fsx {
	const char *path, *other;
	uint8_t *model, *buffer;
	size_t size_max, size; /* model[size..] is zero */
	int fd, fd_main, fd_other;
	uint64_t random, seed, ops, done;
	double seconds;
	bool no_mmap, no_punch, verbose, no_fallocate, no_zero, no_copy;
	char history[HISTORY][120];
} x;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "posix-fsx: %s, seed %" PRIu64 ", operation %" PRIu64 ": ", x.path, x.seed, x.done);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nthe last operations:\n");
	for (uint64_t i = x.done >= HISTORY ? x.done - HISTORY + 1 : 0; i <= x.done; i++)
		fprintf(stderr, "  %6" PRIu64 " %s\n", i, x.history[i % HISTORY]);
	exit(1);
}

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(x.history[x.done % HISTORY], sizeof x.history[0], fmt, ap);
	va_end(ap);
	if (x.verbose)
		fprintf(stderr, "%6" PRIu64 " %s\n", x.done, x.history[x.done % HISTORY]);
}

static uint64_t rnd(uint64_t below)
{
	uint64_t z = x.random += 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return below ? (z ^ z >> 31) % below : 0;
}

static const char *side(void)
{
	return x.fd == x.fd_other ? " (other mount)" : "";
}

/* A length: often small, sometimes large, sometimes a multiple of the page size. */
static size_t any_len(void)
{
	size_t n = rnd(4) ? rnd(16u << 10) + 1 : rnd(OP_LEN_MAX) + 1;

	return rnd(5) ? n : (n + PAGE - 1) / PAGE * PAGE;
}

/* An offset below limit (0 when that is 0); often on a page. */
static size_t any_offset(size_t limit)
{
	size_t at = limit ? rnd(limit) : 0;

	return rnd(3) ? at : at / PAGE * PAGE;
}

static void compare(const uint8_t *got, size_t offset, size_t len, const char *how)
{
	if (memcmp(got, x.model + offset, len) == 0)
		return;
	for (size_t i = 0, bad = 0; i < len; i++) {
		if (got[i] == x.model[offset + i])
			continue;
		while (i + bad < len && got[i + bad] != x.model[offset + i + bad])
			bad++;
		fail("%s%s: wrong from byte %zu (0x%zx) on, %zu bytes in a row; is 0x%02x, should be 0x%02x; "
		     "file size %zu",
		     how, side(), offset + i, offset + i, bad, got[i], x.model[offset + i], x.size);
	}
}

static void grow(size_t end)
{
	if (end > x.size)
		x.size = end;
}

static void cut(size_t size)
{
	if (size < x.size)
		memset(x.model + size, 0, x.size - size);
	x.size = size;
}

static void check_size(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		fail("fstat%s: %s", side(), strerror(errno));
	if ((size_t)st.st_size != x.size)
		fail("fstat%s: size is %lld, should be %zu", side(), (long long)st.st_size, x.size);
}

static void check_all(int fd, const char *how)
{
	check_size(fd);
	for (size_t at = 0; at < x.size;) {
		ssize_t n =
			pread(fd, x.buffer, x.size - at < OP_LEN_MAX ? x.size - at : OP_LEN_MAX, (off_t)at);
		if (n <= 0)
			fail("%s%s: at %zu: %s", how, side(), at, n ? strerror(errno) : "end of file");
		compare(x.buffer, at, (size_t)n, how);
		at += (size_t)n;
	}
}

/* ---- operations ---- */

static void op_read(void)
{
	size_t at = any_offset(x.size), len = any_len();
	size_t want = at >= x.size ? 0 : len < x.size - at ? len : x.size - at;
	ssize_t n;

	note("read    %zu + %zu%s", at, len, side());
	n = pread(x.fd, x.buffer, len, (off_t)at);
	if (n < 0 || (size_t)n != want)
		fail("read gave %zd (%s), should give %zu", n, n < 0 ? strerror(errno) : "-", want);
	compare(x.buffer, at, want, "read");
}

static void fill_model(size_t at, size_t len)
{
	uint64_t r = 0;

	for (size_t i = 0; i < len; i++) {
		if (i % 8 == 0)
			r = rnd(0) | rnd(UINT64_MAX);
		x.model[at + i] = (uint8_t)(r >> i % 8 * 8 | 1); /* never 0: holes are told from data */
	}
}

static void op_write(void)
{
	size_t at = rnd(8) ? any_offset(x.size_max) : x.size, len = any_len();
	ssize_t n;

	if (rnd(3) && x.size)
		at = any_offset(x.size + PAGE);
	if (at >= x.size_max)
		return op_read();
	if (len > x.size_max - at)
		len = x.size_max - at;
	note("write   %zu + %zu%s", at, len, side());
	fill_model(at, len);
	n = pwrite(x.fd, x.model + at, len, (off_t)at);
	if (n < 0 || (size_t)n != len)
		fail("write gave %zd (%s)", n, n < 0 ? strerror(errno) : "short");
	grow(at + len);
}

static void op_truncate(void)
{
	size_t to = rnd(6) ? any_offset(x.size + x.size / 2 + 1) : any_offset(x.size_max);

	if (to > x.size_max)
		to = x.size_max;
	note("truncate %zu -> %zu%s", x.size, to, side());
	if (ftruncate(x.fd, (off_t)to) < 0)
		fail("truncate: %s", strerror(errno));
	cut(to);
	check_size(x.fd);
}

static void op_mmap(bool writes)
{
	size_t at = any_offset(x.size) / PAGE * PAGE, len = any_len();
	uint8_t *map;

	if (x.no_mmap || at >= x.size)
		return op_read();
	if (len > x.size - at)
		len = x.size - at;
	note("map%s %zu + %zu%s", writes ? "write" : "read ", at, len, side());
	map = mmap(NULL, len, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, x.fd, (off_t)at);
	if (map == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	if (writes) {
		fill_model(at, len);
		memcpy(map, x.model + at, len);
		if (msync(map, len, MS_SYNC) < 0)
			fail("msync: %s", strerror(errno));
	} else {
		compare(map, at, len, "mapread");
	}
	if (munmap(map, len) < 0)
		fail("munmap: %s", strerror(errno));
}

/* True when it was done; *unknown is set when the file system does not know it. */
static bool try_fallocate(int mode, size_t at, size_t len, const char *name, bool *unknown)
{
	if (fallocate(x.fd, mode, (off_t)at, (off_t)len) == 0)
		return true;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		fail("%s: %s", name, strerror(errno));
	fprintf(stderr, "posix-fsx: %s is not known here (%s): left out\n", name, strerror(errno));
	*unknown = true;
	return false;
}

static void op_fallocate(void)
{
	bool keep = rnd(2);
	size_t at = any_offset(x.size_max), len = any_len();

	if (x.no_fallocate || at >= x.size_max)
		return op_read();
	if (len > x.size_max - at)
		len = x.size_max - at;
	note("fallocate%s %zu + %zu%s", keep ? " (keep size)" : "", at, len, side());
	if (try_fallocate(keep ? FALLOC_FL_KEEP_SIZE : 0, at, len, "fallocate", &x.no_fallocate) && !keep)
		grow(at + len);
	check_size(x.fd);
}

static void op_punch(void)
{
	size_t at = any_offset(x.size), len = any_len();

	if (x.no_punch || !x.size)
		return op_read();
	note("punch   %zu + %zu%s", at, len, side());
	if (!try_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len, "punch hole", &x.no_punch))
		return;
	if (at < x.size)
		memset(x.model + at, 0, len < x.size - at ? len : x.size - at);
	check_size(x.fd);
}

static void op_zero(void)
{
	size_t at = any_offset(x.size_max), len = any_len();
	bool keep = rnd(2);

	if (x.no_zero || at >= x.size_max)
		return op_read();
	if (len > x.size_max - at)
		len = x.size_max - at;
	note("zero range%s %zu + %zu%s", keep ? " (keep size)" : "", at, len, side());
	if (!try_fallocate(FALLOC_FL_ZERO_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0), at, len, "zero range",
			   &x.no_zero))
		return;
	if (at < x.size)
		memset(x.model + at, 0, len < x.size - at ? len : x.size - at);
	if (!keep)
		grow(at + len);
	check_size(x.fd);
}

static void op_copy(void)
{
	size_t from = any_offset(x.size), to = any_offset(x.size_max), len = any_len(), done = 0;

	if (x.no_copy || from >= x.size || to >= x.size_max)
		return op_read();
	if (len > x.size - from)
		len = x.size - from;
	if (len > x.size_max - to)
		len = x.size_max - to;
	if ((from < to ? to - from : from - to) < len)
		return op_read(); /* ranges must not overlap */
	note("copy    %zu -> %zu + %zu%s", from, to, len, side());
	while (done < len) {
		off_t in = (off_t)(from + done), out = (off_t)(to + done);
		ssize_t n = copy_file_range(x.fd, &in, x.fd, &out, len - done, 0);
		if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS) && !done) {
			fprintf(stderr, "posix-fsx: copy_file_range is not known here: left out\n");
			x.no_copy = true;
			return;
		}
		if (n <= 0)
			fail("copy gave %zd: %s", n, strerror(errno));
		done += (size_t)n;
	}
	memcpy(x.model + to, x.model + from, len);
	grow(to + len);
	check_size(x.fd);
}

static void check_other(void)
{
	int fd, saved = x.fd;

	if (!x.other)
		return;
	fd = open(saved == x.fd_other ? x.path : x.other, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail("open on the other side: %s", strerror(errno));
	check_all(fd, "read on the other side after a flush");
	close(fd);
}

static int reopen(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail("open %s: %s", path, strerror(errno));
	return fd;
}

/* Close-to-open: after the close here, an open there sees it all. Sides may change at that moment only. */
static void op_reopen(void)
{
	bool to_other = x.other && rnd(2);

	note("close%s, open%s", side(), to_other ? " on the other mount" : "");
	if (close(x.fd) < 0)
		fail("close: %s", strerror(errno));
	x.fd_main = x.fd_other = -1;
	x.fd = reopen(to_other ? x.other : x.path);
	*(to_other ? &x.fd_other : &x.fd_main) = x.fd;
	check_all(x.fd, "read after opening");
}

static void op_fsync(void)
{
	note("fsync%s", side());
	if (rnd(2) ? fsync(x.fd) < 0 : fdatasync(x.fd) < 0)
		fail("fsync: %s", strerror(errno));
	check_other();
}

static void op_append(void)
{
	size_t len = any_len();
	int flags = fcntl(x.fd, F_GETFL);
	ssize_t n;

	if (len > x.size_max - x.size)
		return op_truncate();
	note("append  %zu + %zu%s", x.size, len, side());
	fill_model(x.size, len);
	if (fcntl(x.fd, F_SETFL, flags | O_APPEND) < 0)
		fail("O_APPEND: %s", strerror(errno));
	n = write(x.fd, x.model + x.size, len);
	if (n < 0 || (size_t)n != len)
		fail("append gave %zd (%s)", n, n < 0 ? strerror(errno) : "short");
	fcntl(x.fd, F_SETFL, flags);
	grow(x.size + len);
	check_size(x.fd);
}

static void step(void)
{
	static void (*const rare[])(void) = {op_fsync, op_reopen, op_append, op_copy};
	uint64_t r = rnd(100);

	if (r < 22)
		op_read();
	else if (r < 48)
		op_write();
	else if (r < 56)
		op_mmap(false);
	else if (r < 64)
		op_mmap(true);
	else if (r < 75)
		op_truncate();
	else if (r < 80)
		op_fallocate();
	else if (r < 86)
		op_punch();
	else if (r < 90)
		op_zero();
	else
		rare[rnd(4)]();
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", required_argument, NULL, 's'},
		{"ops", required_argument, NULL, 'n'},
		{"seconds", required_argument, NULL, 't'},
		{"size", required_argument, NULL, 'z'},
		{"other", required_argument, NULL, 'o'},
		{"no-mmap", no_argument, NULL, 'm'},
		{"no-punch", no_argument, NULL, 'p'},
		{"verbose", no_argument, NULL, 'v'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			x.seed = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			x.ops = strtoull(optarg, NULL, 10);
			break;
		case 't':
			x.seconds = strtod(optarg, NULL);
			break;
		case 'z':
			x.size_max = strtoull(optarg, NULL, 10);
			break;
		case 'o':
			x.other = optarg;
			break;
		case 'm':
			x.no_mmap = true;
			break;
		case 'p':
			x.no_punch = x.no_zero = x.no_fallocate = true;
			break;
		case 'v':
			x.verbose = true;
			break;
		default:
			exit(2);
		}
	}
	if (argc - optind != 1 || x.size_max < PAGE) {
		fprintf(stderr, "Usage: posix-fsx FILE [--seed=N] [--ops=N] [--seconds=S] [--size=BYTES] "
				"[--other=PATH] [--no-mmap]"
				" [--no-punch] [--verbose]\n");
		exit(2);
	}
	x.path = argv[optind];
}

int main(int argc, char **argv)
{
	double begin = now_s();

	x = (struct fsx){
		.seed = 1, .ops = 2000, .seconds = 1e9, .size_max = 3u << 20, .fd_main = -1, .fd_other = -1};
	parse(argc, argv);
	x.random = x.seed;
	x.random = rnd(UINT64_MAX) * 0xff51afd7ed558ccdull; /* neighbouring seeds must not share a sequence */
	x.model = calloc(1, x.size_max);
	x.buffer = malloc(OP_LEN_MAX + PAGE);
	if (!x.model || !x.buffer)
		fail("no memory");
	x.fd = x.fd_main = open(x.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (x.fd < 0)
		fail("open: %s", strerror(errno));
	for (x.done = 0; x.done < x.ops && now_s() - begin < x.seconds; x.done++)
		step();
	note("the end");
	check_all(x.fd, "read at the end");
	if (close(x.fd) < 0)
		fail("close: %s", strerror(errno));
	x.fd = -2; /* neither side: compare there */
	check_other();
	printf("posix-fsx: seed %" PRIu64 ": %" PRIu64 " operations, no difference\n", x.seed, x.done);
	return 0;
}
