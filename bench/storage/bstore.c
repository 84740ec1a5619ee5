/* SPDX-License-Identifier: Apache-2.0 */
/* bench-bstore: what the brick's store costs by itself: records a second and CPU a record, for create-like records, 4 KiB and 1 MiB writes; one
 * flush a batch, as a brick does one a loop turn; commits follow a batch later; checkpoints run as they do in a brick. One JSON line a work.
 *   bench-bstore DIR [RUN] [works: create,small,large,smallfile]
 * CPU is of the whole process (loop, sync and checkpoint threads), so checkpoints are in it. */
#include <sys/resource.h>

#include "volume/bstore.h"

#define GROUPS	16
#define SECONDS 4

struct bench {
	uv_loop_t loop;
	struct bstore *b;
	uint64_t epoch;
	uint64_t n, seq_committed[GROUPS];
	struct payload *small, *large;
};

static uint64_t cpu_us(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static size_t key_of(uint8_t *k, char kind, uint64_t folder, uint64_t num)
{
	k[0] = (uint8_t)kind;
	memset(k + 1, (int)(folder * 37 % 251), 16);
	memcpy(k + 1, &folder, 8);
	for (int i = 0; i < 8; i++)
		k[17 + i] = (uint8_t)(num >> (56 - 8 * i));
	return 25;
}

static struct vol_ino ino_of(uint64_t folder, uint64_t num)
{
	struct vol_ino ino = {.num = num};
	uint8_t k[32];

	key_of(k, 'I', folder, num);
	memcpy(ino.folder.b, k + 1, 16);
	return ino;
}

/* As a create in core/vfs: entry, inode, folder's inode, next number, answer. */
static void add_create(struct record *rec, uint64_t n)
{
	uint8_t k[64], v[160];
	uint64_t folder = n / 1000;
	size_t len;

	memset(v, (int)n, sizeof(v));
	len = key_of(k, 'E', folder, 0) - 8;
	len += (size_t)snprintf((char *)k + len, sizeof(k) - len, "file-%08llu.dat", (unsigned long long)n);
	record_put(rec, k, len, v, 33);
	record_put(rec, k, key_of(k, 'I', folder, n + 1), v, 110);
	record_put(rec, k, key_of(k, 'I', folder, 0), v, 110);
	record_put(rec, k, key_of(k, 'N', folder, 0) - 8, v, 8);
	record_put(rec, k, key_of(k, 'D', n % 8, 0) - 13, v, 160);
}

static struct record *next_record(struct bench *t, const char *work, uint32_t g)
{
	struct record *rec = record_new(g);
	struct replica *r = bstore_replica(t->b, g);
	uint64_t n = t->n++;
	struct vol_ino ino;
	uint8_t k[64], v[110] = {0};

	rec->epoch = 1;
	rec->seq = r->seq + 1;
	rec->prev_epoch = r->epoch;
	if (streq(work, "create") || streq(work, "smallfile"))
		add_create(rec, n);
	if (streq(work, "create"))
		return rec;
	ino = streq(work, "smallfile") ? ino_of(n / 1000, n + 1) : ino_of(999999 + g, 1 + n / GROUPS / 65536);
	record_put(rec, k, key_of(k, 'I', 999999 + g, 1), v, sizeof(v));
	record_put(rec, k, key_of(k, 'D', n % 8, 0) - 13, v, sizeof(v));
	if (streq(work, "large"))
		record_write(rec, &ino, 0, n / GROUPS % 256 * (1u << 20), t->large);
	else if (streq(work, "smallfile"))
		record_write(rec, &ino, 0, 0, t->small);
	else
		record_write(rec, &ino, 0, n * 2654435761u % 65536 * VOL_BLOCK, t->small);
	return rec;
}

static int run(struct bench *t, const char *work, uint32_t batch)
{
	uint64_t start = clock_us(), cpu = cpu_us(RUSAGE_SELF), loop = cpu_us(RUSAGE_THREAD), n = 0,
		 worst = 0;
	struct bstore_stats st, before;

	bstore_get_stats(t->b, &before);
	while (clock_us() - start < SECONDS * 1000000) {
		uint64_t turn = clock_us();

		for (uint32_t i = 0; i < batch; i++, n++) {
			uint32_t g = (uint32_t)(n / 4 % GROUPS);
			struct record *rec = next_record(t, work, g);
			int r = bstore_append(t->b, rec, false);

			record_unref(rec);
			if (r < 0) {
				fprintf(stderr, "append: %s\n", strerror(-r));
				return 1;
			}
		}
		if (bstore_flush(t->b) < 0)
			return 1;
		for (uint32_t g = 0; g < GROUPS; g++) {
			bstore_set_committed(t->b, g, t->seq_committed[g]);
			t->seq_committed[g] = bstore_replica(t->b, g)->seq;
		}
		bstore_tick(t->b);
		uv_run(&t->loop, UV_RUN_NOWAIT);
		worst = MAX(worst, clock_us() - turn);
	}
	loop = cpu_us(RUSAGE_THREAD) - loop;
	bstore_checkpoint(t->b, NULL);
	cpu = cpu_us(RUSAGE_SELF) - cpu;
	bstore_get_stats(t->b, &st);
	printf("{\"work\":\"%s\",\"batch\":%u,\"records_per_s\":%.0f,\"cpu_us_per_record\":%.2f,\"loop_cpu_"
	       "us_per_record\":%.2f,\"worst_turn_ms\":%.1f,"
	       "\"checkpoints\":%llu}\n",
	       work, batch, (double)n * 1e6 / (double)(clock_us() - start), (double)cpu / (double)n,
	       (double)loop / (double)n, (double)worst / 1e3,
	       (unsigned long long)(st.checkpoints - before.checkpoints));
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	bool member[GROUPS];
	struct bench t = {0};
	struct err e = {0};
	const char *works = argc > 3 ? argv[3] : "create,small,large,smallfile";
	_cleanup_strv_ char **w = strv_split(works, ',', false);
	int r = 0;

	if (argc < 2)
		return 2;
	memset(member, true, sizeof(member));
	uv_loop_init(&t.loop);
	t.small = payload_new(4096);
	t.large = payload_new(1u << 20);
	random_bytes(t.small->data, 4096);
	random_bytes(t.large->data, 1u << 20);
	for (size_t i = 0; w[i] && r == 0; i++) {
		_cleanup_free_ char *dir = xasprintf("%s/%s", argv[1], w[i]);
		struct bstore_options o = {.dir = dir,
					   .run_dir = argc > 2 ? argv[2] : NULL,
					   .uuid = {{1}},
					   .node = "bench",
					   .n_groups = GROUPS,
					   .stripe_size = VOL_STRIPE_SIZE,
					   .member = member,
					   .loop = &t.loop};

		dir_remove(dir, NULL);
		if (bstore_open(&o, &t.b, &e) < 0) {
			fprintf(stderr, "%s\n", e.text);
			return 1;
		}
		memset(t.seq_committed, 0, sizeof(t.seq_committed));
		r = run(&t, w[i], streq(w[i], "large") ? 4 : 16);
		bstore_close(t.b);
		uv_run(&t.loop, UV_RUN_DEFAULT);
		dir_remove(dir, NULL);
	}
	return r;
}
