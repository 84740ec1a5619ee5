/* SPDX-License-Identifier: Apache-2.0 */
/* bench-work: one unit of work on a mounted file system, the same system calls for every contender; prints one JSON object.
 *
 *   bench-work WORK PATH [--size=MIB] [--count=N] [--seconds=S] [--after=S] [--jobs=N] [--copies=N] [--folders=N] [--seed=N] [--direct]
 *
 * Files: seq_write (1 MiB writes, fsync at the end), seq_read, rand_read, rand_write (fsync at the end, in the time),
 *   rand_write_fsync (one after each write), change (--count ranges of 4 KiB, then fsync), check (reads all of a seq_write
 *   file and compares), stall (appends 4 KiB + fsync; longest gap that ended --after seconds from
 *   its begin on).
 * Folders: create, stat, read, delete of --count files of 4 KiB in --folders folders below PATH.
 * tcp: throughput of a loopback connection; PATH is not used.
 * --copies=3 does each write to PATH.1 .. PATH.3 too: the raw limit of three copies. The bytes of a file follow from --seed
 * and the offset, so that they cannot be compressed and can be checked. Random works are bounded by --seconds and --count,
 * whichever comes first. Exit status 1 and a text on stderr when a system call fails. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB	      (1u << 20)
#define SMALL	      4096u
#define COPIES_MAX    4
#define JOBS_MAX      64
#define LATENCIES_MAX (1u << 20) /* per job; later ones are counted, not kept */

struct options {
	const char *work, *path;
	uint64_t size, count, seed;
	double seconds, after; /* after: stall's gaps that ended before are not looked at, seconds */
	unsigned jobs, copies, folders;
	bool direct;
};

struct job {
	const struct options *o;
	unsigned index;
	int fd[COPIES_MAX];
	uint64_t random, done;
	uint32_t *latency_us;
	pthread_t thread;
};

static void die(const char *what, const char *path)
{
	fprintf(stderr, "bench-work: %s %s: %s\n", what, path, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t mix(uint64_t x) /* splitmix64's finalizer: 64 well-mixed bits of any number */
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t next_random(struct job *j)
{
	return mix(j->random++);
}

/* The bytes of a file with this seed from offset on; both are multiples of 8. */
static void fill(void *buffer, size_t len, uint64_t offset, uint64_t seed)
{
	uint64_t *p = buffer, base = mix(seed) + offset;

	for (size_t i = 0; i < len / 8; i++)
		p[i] = (base + i * 8) * 0x9e3779b97f4a7c15ull; /* not random, but no two alike: cheap */
}

static void *aligned(size_t len)
{
	void *p = NULL;

	if (posix_memalign(&p, 4096, len))
		die("memory", "");
	return p;
}

static void copy_path(char *out, size_t size, const char *path, unsigned copy)
{
	if (copy)
		snprintf(out, size, "%s.%u", path, copy);
	else
		snprintf(out, size, "%s", path);
}

static int open_copy(const struct options *o, unsigned copy, int flags)
{
	char path[4096];
	int fd;

	copy_path(path, sizeof path, o->path, copy);
	fd = open(path, flags | O_CLOEXEC | (o->direct ? O_DIRECT : 0), 0644);
	if (fd < 0)
		die("open", path);
	return fd;
}

static void write_all(int fd, const void *data, size_t len, uint64_t offset)
{
	const char *p = data;

	while (len) { /* bound: each turn writes at least a byte */
		ssize_t n = pwrite(fd, p, len, (off_t)offset);
		if (n <= 0)
			die("write", "");
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
}

static void read_all(int fd, void *data, size_t len, uint64_t offset)
{
	char *p = data;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)offset);
		if (n <= 0)
			die(n ? "read" : "read: file too short", "");
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* One line of JSON; latencies may be NULL. */
static void report(const struct options *o, const char *unit, double value, double seconds, uint64_t count,
		   uint32_t *latency_us, size_t n)
{
	printf("{\"work\": \"%s\", \"unit\": \"%s\", \"value\": %.3f, \"seconds\": %.6f, \"count\": %" PRIu64,
	       o->work, unit, value, seconds, count);
	if (n) {
		qsort(latency_us, n, sizeof *latency_us, compare_u32);
		printf(", \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u", latency_us[n / 2],
		       latency_us[n * 99 / 100], latency_us[n - 1]);
	}
	printf("}\n");
}

/* ---- one big file ---- */

static void seq_write(const struct options *o)
{
	int fd[COPIES_MAX];
	char *buffer = aligned(MIB);
	double start = now_s(), s;

	for (unsigned c = 0; c < o->copies; c++)
		fd[c] = open_copy(o, c, O_WRONLY | O_CREAT | O_TRUNC);
	for (uint64_t at = 0; at < o->size; at += MIB) {
		fill(buffer, MIB, at, o->seed);
		for (unsigned c = 0; c < o->copies; c++)
			write_all(fd[c], buffer, MIB, at);
	}
	for (unsigned c = 0; c < o->copies; c++)
		if (fsync(fd[c]) < 0 || close(fd[c]) < 0)
			die("fsync", o->path);
	s = now_s() - start;
	report(o, "MB/s", (double)o->size / 1e6 / s, s, o->size / MIB, NULL, 0);
	free(buffer);
}

static void seq_read(const struct options *o, bool compare)
{
	char *buffer = aligned(MIB), *want = aligned(MIB);
	double start = now_s(), s;
	int fd = open_copy(o, 0, O_RDONLY);

	for (uint64_t at = 0; at < o->size; at += MIB) {
		read_all(fd, buffer, MIB, at);
		if (!compare)
			continue;
		fill(want, MIB, at, o->seed);
		if (memcmp(buffer, want, MIB) != 0) {
			fprintf(stderr, "bench-work: %s: wrong bytes in MiB %" PRIu64 "\n", o->path,
				at / MIB);
			exit(1);
		}
	}
	close(fd);
	s = now_s() - start;
	report(o, "MB/s", (double)o->size / 1e6 / s, s, o->size / MIB, NULL, 0);
	free(buffer);
	free(want);
}

static void *random_job(void *arg)
{
	struct job *j = arg;
	const struct options *o = j->o;
	bool writes = strcmp(o->work, "rand_read") != 0, sync = strcmp(o->work, "rand_write_fsync") == 0;
	char *buffer = aligned(SMALL);
	double begin = now_s(), t = begin;

	while (t - begin < o->seconds && j->done < o->count) {
		uint64_t at = next_random(j) % (o->size / SMALL) * SMALL;
		double end;
		if (writes)
			fill(buffer, SMALL, at, o->seed);
		for (unsigned c = 0; c < (writes ? o->copies : 1); c++) {
			if (writes)
				write_all(j->fd[c], buffer, SMALL, at);
			else
				read_all(j->fd[c], buffer, SMALL, at);
		}
		for (unsigned c = 0; sync && c < o->copies; c++)
			if (fsync(j->fd[c]) < 0)
				die("fsync", o->path);
		end = now_s();
		if (j->done < LATENCIES_MAX)
			j->latency_us[j->done] = (uint32_t)((end - t) * 1e6);
		j->done++;
		t = end;
	}
	free(buffer);
	return NULL;
}

static void rand_io(const struct options *o)
{
	struct job *jobs = calloc(o->jobs, sizeof *jobs);
	uint32_t *all = malloc((size_t)o->jobs * LATENCIES_MAX * sizeof *all);
	bool writes = strcmp(o->work, "rand_read") != 0;
	double start, s;
	uint64_t done = 0;
	size_t n = 0;

	if (!jobs || !all)
		die("memory", "");
	for (unsigned i = 0; i < o->jobs; i++) {
		jobs[i] = (struct job){.o = o,
				       .index = i,
				       .random = mix(o->seed + i),
				       .latency_us = all + (size_t)i * LATENCIES_MAX};
		for (unsigned c = 0; c < (writes ? o->copies : 1); c++)
			jobs[i].fd[c] = open_copy(o, c, writes ? O_RDWR : O_RDONLY);
	}
	start = now_s();
	for (unsigned i = 0; i < o->jobs; i++)
		if (pthread_create(&jobs[i].thread, NULL, random_job, &jobs[i]))
			die("thread", "");
	for (unsigned i = 0; i < o->jobs; i++) {
		pthread_join(jobs[i].thread, NULL);
		done += jobs[i].done;
	}
	for (unsigned c = 0; writes && c < o->copies; c++)
		if (fsync(jobs[0].fd[c]) < 0)
			die("fsync", o->path);
	s = now_s() - start;
	for (unsigned i = 0; i < o->jobs; i++) { /* close up the gaps between the jobs' latencies */
		size_t kept = jobs[i].done < LATENCIES_MAX ? jobs[i].done : LATENCIES_MAX;
		memmove(all + n, jobs[i].latency_us, kept * sizeof *all);
		n += kept;
	}
	report(o, "IOPS", (double)done / s, s, done, all, n);
	free(all);
	free(jobs);
}

/* --count ranges of 4 KiB, spread evenly, get the bytes of another seed. */
static void change(const struct options *o)
{
	char *buffer = aligned(SMALL);
	int fd = open_copy(o, 0, O_WRONLY);
	double start = now_s(), s;

	for (uint64_t i = 0; i < o->count; i++) {
		uint64_t at = o->size / o->count * i / SMALL * SMALL;
		fill(buffer, SMALL, at, o->seed + 1);
		write_all(fd, buffer, SMALL, at);
	}
	if (fsync(fd) < 0 || close(fd) < 0)
		die("fsync", o->path);
	s = now_s() - start;
	report(o, "writes/s", (double)o->count / s, s, o->count, NULL, 0);
	free(buffer);
}

/* The longest time between two acknowledgements of a writer that flushes each record. */
static void stall(const struct options *o)
{
	uint32_t *latency = malloc(LATENCIES_MAX * sizeof *latency);
	char *buffer = aligned(SMALL);
	double begin = now_s(), last = begin, gap = 0, gap_at = 0;
	int fd = open_copy(o, 0, O_WRONLY | O_CREAT | O_TRUNC);
	uint64_t n = 0;

	if (!latency)
		die("memory", "");
	while (last - begin < o->seconds && n < LATENCIES_MAX) {
		double t;
		fill(buffer, SMALL, n * SMALL, o->seed);
		write_all(fd, buffer, SMALL, n % 1024 * SMALL);
		if (fsync(fd) < 0)
			die("fsync", o->path);
		t = now_s();
		latency[n++] = (uint32_t)((t - last) * 1e6);
		if (t - begin >= o->after && t - last > gap) {
			gap = t - last;
			gap_at = last - begin;
		}
		last = t;
	}
	close(fd);
	printf("{\"work\": \"stall\", \"unit\": \"ms\", \"value\": %.3f, \"seconds\": %.3f, \"count\": "
	       "%" PRIu64 ", \"gap_at_s\": %.3f",
	       gap * 1000, last - begin, n, gap_at);
	qsort(latency, n, sizeof *latency, compare_u32);
	printf(", \"p50_us\": %u, \"p99_us\": %u}\n", latency[n / 2], latency[n * 99 / 100]);
	free(latency);
	free(buffer);
}

/* ---- many small files ---- */

static void small_path(char *out, size_t size, const struct options *o, unsigned copy, uint64_t i)
{
	char root[3072];

	copy_path(root, sizeof root, o->path, copy);
	snprintf(out, size, "%s/d%02" PRIu64 "/file-%06" PRIu64, root, i % o->folders, i);
}

static void small_folders(const struct options *o)
{
	char root[3072], path[4096];

	for (unsigned c = 0; c < o->copies; c++) {
		copy_path(root, sizeof root, o->path, c);
		if (mkdir(root, 0755) < 0 && errno != EEXIST)
			die("mkdir", root);
		for (unsigned i = 0; i < o->folders; i++) {
			snprintf(path, sizeof path, "%s/d%02u", root, i);
			if (mkdir(path, 0755) < 0 && errno != EEXIST)
				die("mkdir", path);
		}
	}
}

static void small_one(const struct options *o, const char *path, char *buffer, uint64_t i)
{
	struct stat st;
	int fd;

	if (strcmp(o->work, "stat") == 0) {
		if (lstat(path, &st) < 0)
			die("stat", path);
	} else if (strcmp(o->work, "delete") == 0) {
		if (unlink(path) < 0)
			die("unlink", path);
	} else if (strcmp(o->work, "create") == 0) {
		fill(buffer, SMALL, i * SMALL, o->seed);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0)
			die("create", path);
		write_all(fd, buffer, SMALL, 0);
		if (close(fd) < 0)
			die("close", path);
	} else {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			die("open", path);
		read_all(fd, buffer, SMALL, 0);
		close(fd);
	}
}

static void small_files(const struct options *o)
{
	uint32_t *latency = malloc(LATENCIES_MAX * sizeof *latency);
	char *buffer = aligned(SMALL), path[4096];
	bool writes = strcmp(o->work, "create") == 0 || strcmp(o->work, "delete") == 0;
	double start, t, s;
	size_t n = 0;

	if (!latency)
		die("memory", "");
	if (strcmp(o->work, "create") == 0)
		small_folders(o);
	start = t = now_s();
	for (uint64_t i = 0; i < o->count; i++) {
		double end;
		for (unsigned c = 0; c < (writes ? o->copies : 1); c++) {
			small_path(path, sizeof path, o, c, i);
			small_one(o, path, buffer, i);
		}
		end = now_s();
		if (n < LATENCIES_MAX)
			latency[n++] = (uint32_t)((end - t) * 1e6);
		t = end;
	}
	s = t - start;
	report(o, "files/s", (double)o->count / s, s, o->count, latency, n);
	free(latency);
	free(buffer);
}

/* ---- loopback TCP ---- */

struct tcp_sender {
	uint16_t port;
	uint64_t bytes;
};

static void *tcp_send(void *arg)
{
	struct tcp_sender *t = arg;
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = t->port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char *buffer = aligned(MIB);

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		die("connect", "loopback");
	memset(buffer, 'x', MIB);
	for (uint64_t sent = 0; sent < t->bytes;) {
		ssize_t n = send(fd, buffer, MIB, MSG_NOSIGNAL);
		if (n <= 0)
			die("send", "loopback");
		sent += (uint64_t)n;
	}
	close(fd);
	free(buffer);
	return NULL;
}

static void tcp(const struct options *o)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;
	char *buffer = aligned(MIB);
	struct tcp_sender sender = {.bytes = o->size};
	pthread_t thread;
	uint64_t got = 0;
	double start, s;
	ssize_t n;

	if (listener < 0 || bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&at, &len) < 0)
		die("listen", "loopback");
	sender.port = at.sin_port;
	if (pthread_create(&thread, NULL, tcp_send, &sender))
		die("thread", "");
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		die("accept", "loopback");
	start = now_s();
	while ((n = recv(fd, buffer, MIB, 0)) > 0)
		got += (uint64_t)n;
	s = now_s() - start;
	pthread_join(thread, NULL);
	close(fd);
	close(listener);
	report(o, "MB/s", (double)got / 1e6 / s, s, got / MIB, NULL, 0);
	free(buffer);
}

/* ---- command line ---- */

static void parse(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{"size", required_argument, NULL, 's'},	   {"count", required_argument, NULL, 'n'},
		{"seconds", required_argument, NULL, 't'}, {"after", required_argument, NULL, 'a'},
		{"jobs", required_argument, NULL, 'j'},	   {"copies", required_argument, NULL, 'c'},
		{"folders", required_argument, NULL, 'f'}, {"seed", required_argument, NULL, 'r'},
		{"direct", no_argument, NULL, 'd'},	   {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 10) : 0;
		switch (c) {
		case 's':
			o->size = n * MIB;
			break;
		case 'n':
			o->count = n;
			break;
		case 't':
			o->seconds = strtod(optarg, NULL);
			break;
		case 'a':
			o->after = strtod(optarg, NULL);
			break;
		case 'j':
			o->jobs = (unsigned)n;
			break;
		case 'c':
			o->copies = (unsigned)n;
			break;
		case 'f':
			o->folders = (unsigned)n;
			break;
		case 'r':
			o->seed = n;
			break;
		case 'd':
			o->direct = true;
			break;
		default:
			exit(2);
		}
	}
	if (argc - optind != 2 || !o->size || !o->count || !o->jobs || o->jobs > JOBS_MAX || !o->copies ||
	    o->copies > COPIES_MAX || !o->folders) {
		fprintf(stderr,
			"Usage: bench-work WORK PATH [--size=MIB] [--count=N] [--seconds=S] [--after=S] "
			"[--jobs=1..%d]"
			" [--copies=1..%d] [--folders=N] [--seed=N] [--direct]\n",
			JOBS_MAX, COPIES_MAX);
		exit(2);
	}
	o->work = argv[optind];
	o->path = argv[optind + 1];
}

int main(int argc, char **argv)
{
	struct options o = {.size = 256ull * MIB,
			    .count = 1u << 30,
			    .seed = 1,
			    .seconds = 5,
			    .jobs = 1,
			    .copies = 1,
			    .folders = 10};

	parse(&o, argc, argv);
	if (strcmp(o.work, "seq_write") == 0)
		seq_write(&o);
	else if (strcmp(o.work, "seq_read") == 0 || strcmp(o.work, "check") == 0)
		seq_read(&o, o.work[0] == 'c');
	else if (strncmp(o.work, "rand_", 5) == 0)
		rand_io(&o);
	else if (strcmp(o.work, "change") == 0)
		change(&o);
	else if (strcmp(o.work, "stall") == 0)
		stall(&o);
	else if (strcmp(o.work, "tcp") == 0)
		tcp(&o);
	else if (strcmp(o.work, "create") == 0 || strcmp(o.work, "stat") == 0 ||
		 strcmp(o.work, "read") == 0 || strcmp(o.work, "delete") == 0)
		small_files(&o);
	else {
		fprintf(stderr, "bench-work: unknown work '%s'\n", o.work);
		return 2;
	}
	return 0;
}
