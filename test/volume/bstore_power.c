/* SPDX-License-Identifier: Apache-2.0 */
/* Power cuts of a brick's disk. A writer appends, flushes, syncs, commits, cuts and makes checkpoints on ext4 on a loop device; at a random moment the
 * file system is shut down without writing its journal or data (EXT4_IOC_SHUTDOWN, no log flush) and the writer is killed; the file system is mounted again and
 * the store recovers. Then:
 *   - every synced record is there, on the chain of epochs it was synced on: no cut tail comes back;
 *   - keys and bytes are those of a model that applied exactly the recovered records;
 *   - the only blocks that are bad (or found bad on reading) are those that records behind the last sync, or cut ones, had touched;
 *   - the store does not call itself sure.
 * Bad blocks are then filled from the model by the same calls that a brick pulls with, and must all be good; the next round goes on from there.
 *   bstore_power SECONDS [SEED]     77 = skipped: not root, or no loop devices */
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "bstore_model.h"
#include "volume/bstore.h"

#define LARGE	 (300u << 10)
#define SHUTDOWN 0x8004587du
#define APPENDED 200000
#define BLOCKS	 (5 * MODEL_STRIPE / VOL_BLOCK)
#define IMAGE_MB 600
#define SKIPPED	 77

struct shared {
	struct model_history h;
	uint64_t epoch[MODEL_GROUPS], committed[MODEL_GROUPS], flushed[MODEL_GROUPS];
	struct {
		uint64_t epoch, seq;
	} synced[MODEL_GROUPS];
	/* this round's */
	struct {
		uint32_t group;
		uint64_t epoch, seq;
	} appended[APPENDED];
	_Atomic uint64_t n_appended;
	uint64_t syncs, cuts, all;
	_Atomic bool off; /* the power goes: what is answered from now on was not seen by anybody */
};

struct power {
	char image[64], mnt[64], dir[96], run[64], loop_dev[64];
	uv_loop_t loop;
	struct bstore *b;
	bool member[MODEL_GROUPS];
	struct shared *sh;
	struct model
		model[MODEL_GROUPS]; /* at what the last recovery had: all of it was made committed then */
	uint64_t seed;
	/* writer: one sync at a time */
	bool syncing;
	uint64_t sync_epoch[MODEL_GROUPS], sync_seq[MODEL_GROUPS];
};

#define check(cond, ...)                                         \
	do {                                                     \
		if (!(cond)) {                                   \
			fprintf(stderr, "FAILED (%s): ", #cond); \
			fprintf(stderr, __VA_ARGS__);            \
			fprintf(stderr, "\n");                   \
			return -1;                               \
		}                                                \
	} while (0)

static int command(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int command(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return system(text) == 0 ? 0 : -1;
}

static int open_store(struct power *p, struct err *e)
{
	struct bstore_options o = {.dir = p->dir,
				   .run_dir = p->run,
				   .uuid = {{7}},
				   .node = "a1",
				   .n_groups = MODEL_GROUPS,
				   .stripe_size = MODEL_STRIPE,
				   .member = p->member,
				   .map_bytes = 1u << 30,
				   .checkpoint_ms = 150,
				   .loop = &p->loop};
	int r = bstore_open(&o, &p->b, e);

	if (r < 0)
		p->b = NULL;
	return r;
}

/* ---- the writer ---- */

static void on_synced(void *ctx, int err)
{
	struct power *p = ctx;

	p->syncing = false;
	if (err < 0 || p->sh->off)
		return;
	for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
		p->sh->synced[g].seq = p->sync_seq[g];
		p->sh->synced[g].epoch = p->sync_epoch[g];
	}
	p->sh->syncs++;
}

static void stop_here(void)
{
	for (;;)
		pause(); /* the disk is gone; the kill comes */
}

static void cut(struct power *p, uint32_t g, uint64_t s)
{
	struct shared *sh = p->sh;
	struct replica *r = bstore_replica(p->b, g);
	uint64_t to = sh->committed[g] + (s >> 8) % (r->seq - sh->committed[g]);

	/* What was synced and is cut now need not be there any more. */
	if (sh->synced[g].seq > to) {
		sh->synced[g].seq = to;
		sh->synced[g].epoch = model_epoch_of(&sh->h, g, sh->epoch[g], to);
	}
	if (p->sync_seq[g] > to) {
		p->sync_seq[g] = to;
		p->sync_epoch[g] = model_epoch_of(&sh->h, g, sh->epoch[g], to);
	}
	if (bstore_rollback(p->b, g, model_epoch_of(&sh->h, g, sh->epoch[g], to), to) < 0)
		stop_here();
	sh->h.start[g][sh->epoch[g] + 1] = to + 1;
	sh->epoch[g]++;
	sh->flushed[g] = to;
	sh->cuts++;
}

static void writer(struct power *p, uint64_t s)
{
	struct shared *sh = p->sh;
	struct err e = {0};

	if (open_store(p, &e) < 0) {
		if (e.code == -EIO || e.code == -EROFS)
			stop_here();
		fprintf(stderr, "writer: %s\n", e.text);
		_exit(3);
	}
	for (;;) {
		uint32_t g = (uint32_t)(s = s * 6364136223846793005ull + 1442695040888963407ull, s >> 40) %
			     MODEL_GROUPS;
		struct replica *r = bstore_replica(p->b, g);
		struct record *rec = model_record(p->seed, &sh->h, g, sh->epoch[g], r->seq + 1, LARGE);
		uint64_t n = sh->n_appended;

		sh->appended[n].group = g;
		sh->appended[n].epoch = rec->epoch;
		sh->appended[n].seq = rec->seq;
		sh->n_appended = n + 1;
		if (n + 2 >= APPENDED || bstore_append(p->b, rec, false) < 0)
			stop_here();
		record_unref(rec);
		if ((s >> 33) % 4 == 0) {
			if (bstore_flush(p->b) < 0)
				stop_here();
			for (g = 0; g < MODEL_GROUPS; g++)
				sh->flushed[g] = bstore_replica(p->b, g)->seq;
		}
		if ((s >> 45) % 16 == 0 && !p->syncing) {
			p->syncing = true;
			for (g = 0; g < MODEL_GROUPS; g++) {
				p->sync_seq[g] = bstore_replica(p->b, g)->seq;
				p->sync_epoch[g] = bstore_replica(p->b, g)->epoch;
			}
			bstore_sync(p->b, on_synced, p);
		}
		g = (uint32_t)(s >> 20) % MODEL_GROUPS;
		if ((s >> 36) % 8 == 0 && sh->flushed[g] > 4 && sh->flushed[g] - 4 > sh->committed[g]) {
			sh->committed[g] = sh->flushed[g] - 4;
			bstore_set_committed(p->b, g, sh->committed[g]);
		}
		if ((s >> 50) % 40 == 0 && bstore_replica(p->b, g)->seq > sh->committed[g] &&
		    sh->epoch[g] + 2 < MODEL_EPOCHS)
			cut(p, g, s);
		bstore_tick(p->b);
		uv_run(&p->loop, UV_RUN_NOWAIT);
	}
}

/* ---- what may be bad ---- */

static uint8_t may_be_bad[MODEL_GROUPS][3][MODEL_INOS + 1][BLOCKS];

static void touch(uint32_t g, const struct vol_ino *ino, uint64_t off, uint64_t len)
{
	uint64_t end =
		len > BLOCKS * (uint64_t)VOL_BLOCK - off ? BLOCKS : (off + len + VOL_BLOCK - 1) / VOL_BLOCK;

	for (uint64_t i = off / VOL_BLOCK; i < end; i++)
		may_be_bad[g][ino->folder.b[1]][ino->num][i] = 1;
}

static void touch_record(const struct record *rec)
{
	for (uint32_t i = 0; i < rec->n; i++) {
		const struct effect *f = &rec->effect[i];

		if (f->type == EFFECT_WRITE || f->type == EFFECT_PUNCH)
			touch(rec->group, &f->ino, f->off, f->len);
		else if (f->type == EFFECT_TRIM || f->type == EFFECT_DROP)
			touch(rec->group, &f->ino, f->off, UINT64_MAX);
	}
}

/* Records of this round that were not synced, or were cut. */
static void find_touched(struct power *p)
{
	struct shared *sh = p->sh;

	memset(may_be_bad, 0, sizeof(may_be_bad));
	for (uint64_t i = 0; i < sh->n_appended; i++) {
		uint32_t g = sh->appended[i].group;
		uint64_t seq = sh->appended[i].seq, epoch = sh->appended[i].epoch;
		struct record *rec;

		if (seq <= sh->synced[g].seq && model_epoch_of(&sh->h, g, sh->synced[g].epoch, seq) == epoch)
			continue;
		rec = model_record(p->seed, &sh->h, g, epoch, seq, LARGE);
		touch_record(rec);
		record_unref(rec);
	}
}

static int check_bad(struct power *p, uint32_t g, uint64_t *ret_bad)
{
	struct replica *r = bstore_replica(p->b, g);
	static uint32_t sums[MODEL_STRIPE / VOL_BLOCK];
	struct vol_ino ino = {0};
	uint64_t off = 0;

	/* Read everything: what does not hold becomes bad. */
	while (replica_stripe_next(r, &ino, &off) == 0) {
		uint32_t bad = 0;

		check(replica_verify(r, &ino, off, MODEL_STRIPE, &bad) == 0, "verify");
		check(replica_crcs(r, &ino, off, MODEL_STRIPE, sums) == 0, "crcs");
		for (uint32_t i = 0; i < ARRAY_SIZE(sums); i++) {
			if (sums[i] != BLOCK_CRC_BAD)
				continue;
			++*ret_bad;
			check(may_be_bad[g][ino.folder.b[1]][ino.num][off / VOL_BLOCK + i],
			      "seed %llu group %u: block %llu of file %u/%llu is bad, but only synced "
			      "records had touched it",
			      (unsigned long long)p->seed, g, (unsigned long long)(off / VOL_BLOCK + i),
			      ino.folder.b[1], (unsigned long long)ino.num);
		}
		off += MODEL_STRIPE;
	}
	return 0;
}

/* As a brick does it, with the model as the other member. */
static int heal(struct power *p, uint32_t g, struct model *m)
{
	struct replica *r = bstore_replica(p->b, g);
	struct pull_range range[PULL_RANGES_MAX];
	static uint32_t sums[MODEL_STRIPE / VOL_BLOCK];
	static uint8_t data[MODEL_STRIPE];
	struct vol_ino ino = {0};
	uint64_t off = 0, bad;
	size_t n;

	do {
		check(replica_bad_next(r, &ino, &off, range, &n) == 0, "bad_next");
		for (size_t i = 0; i < n; i++) {
			check(replica_pull_begin(r, &range[i]) == 0, "pull_begin");
			check(replica_read(&m->r, &range[i].ino, range[i].off, data, range[i].len, &bad) == 0,
			      "model read");
			check(replica_crcs(&m->r, &range[i].ino, range[i].off, range[i].len, sums) == 0,
			      "model crcs");
			check(replica_pull_data(r, &range[i], m->r.seq, sums, data, range[i].len) == 0,
			      "pull_data");
		}
	} while (n > 0);
	bstore_mark_dirty(p->b);
	return 0;
}

static int check_group(struct power *p, uint32_t g, uint64_t *ret_bad)
{
	struct replica *r = bstore_replica(p->b, g);
	struct shared *sh = p->sh;
	struct model *m = &p->model[g];
	const char *text;
	uint64_t bad = 0;

	check(r->seq >= sh->synced[g].seq, "seed %llu group %u: %llu recovered, %llu was synced",
	      (unsigned long long)p->seed, g, (unsigned long long)r->seq,
	      (unsigned long long)sh->synced[g].seq);
	check(model_epoch_of(&sh->h, g, r->epoch, sh->synced[g].seq) == sh->synced[g].epoch ||
		      !sh->synced[g].seq,
	      "seed %llu group %u: a cut tail came back: at %llu/%llu, synced %llu/%llu",
	      (unsigned long long)p->seed, g, (unsigned long long)r->epoch, (unsigned long long)r->seq,
	      (unsigned long long)sh->synced[g].epoch, (unsigned long long)sh->synced[g].seq);
	check(!bstore_group_sure(p->b, g), "sure after a power loss");
	check(bstore_committed(p->b, g) <= sh->committed[g], "more is committed than ever was");
	if (check_bad(p, g, ret_bad) < 0)
		return -1;
	model_run(m, p->seed, &sh->h, r->epoch, r->seq, LARGE);
	text = model_compare(m, r, &bad);
	check(!text, "seed %llu group %u at %llu/%llu: %s", (unsigned long long)p->seed, g,
	      (unsigned long long)r->epoch, (unsigned long long)r->seq, text);
	if (heal(p, g, m) < 0)
		return -1;
	text = model_compare(m, r, &bad);
	check(!text && bad == 0, "seed %llu group %u after healing: %s, %llu bad",
	      (unsigned long long)p->seed, g, text ? text : "", (unsigned long long)bad);
	return 0;
}

static int check_all(struct power *p, struct bstore_stats *sum, uint64_t *ret_bad)
{
	struct shared *sh = p->sh;
	struct bstore_stats st;
	struct err e = {0};

	find_touched(p);
	check(open_store(p, &e) == 0, "%s", e.text);
	bstore_get_stats(p->b, &st);
	sum->replayed += st.replayed;
	sum->dropped += st.dropped;
	sum->torn += st.torn;
	for (uint32_t g = 0; g < MODEL_GROUPS; g++)
		if (check_group(p, g, ret_bad) < 0)
			return -1;
	for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
		struct replica *r = bstore_replica(p->b, g);

		bstore_set_committed(p->b, g, r->seq);
		sh->committed[g] = sh->flushed[g] = sh->synced[g].seq = r->seq;
		sh->synced[g].epoch = r->epoch;
		/* Epochs whose cut was lost have never been. */
		for (uint64_t k = r->epoch + 1; k < MODEL_EPOCHS; k++)
			sh->h.start[g][k] = 0;
		sh->h.start[g][++sh->epoch[g]] = r->seq + 1;
	}
	p->b = bstore_close(p->b);
	uv_run(&p->loop, UV_RUN_DEFAULT);
	return 0;
}

static int power_round(struct power *p, uint64_t s, struct bstore_stats *sum, uint64_t *ret_bad)
{
	uint32_t flag = 2;
	int fd, status;
	pid_t pid;

	p->sh->n_appended = 0;
	p->sh->off = false;
	pid = fork();
	if (pid == 0)
		writer(p, s);
	usleep((s >> 50) % 4 ? 20000 + (useconds_t)(s >> 20) % 500000
			     : (useconds_t)(s >> 20) % 20000); /* also while it opens */
	fd = open(p->mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(fd >= 0, "open mount");
	p->sh->off = true;
	check(ioctl(fd, SHUTDOWN, &flag) == 0, "shutdown: %s", strerror(errno));
	close(fd);
	kill(pid, SIGKILL);
	check(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "the writer ended by itself: %d",
	      status);
	p->sh->all += p->sh->n_appended;
	for (int i = 0; i < 50 && (status = umount(p->mnt)) < 0 && errno == EBUSY; i++)
		usleep(10000); /* a child of the writer's is just ending */
	check(status == 0, "umount: %s", strerror(errno));
	check(command("mount -t ext4 %s %s", p->loop_dev, p->mnt) == 0, "mount again");
	dir_remove(p->run, NULL);
	return check_all(p, sum, ret_bad);
}

static int set_up(struct power *p)
{
	_cleanup_free_ char *out = NULL;
	FILE *f;
	char text[256];

	snprintf(p->image, sizeof(p->image), "/dev/shm/bstore-power-%d.img", (int)getpid());
	snprintf(p->mnt, sizeof(p->mnt), "/tmp/bstore-power-%d", (int)getpid());
	snprintf(p->dir, sizeof(p->dir), "%s/brick", p->mnt);
	snprintf(p->run, sizeof(p->run), "/dev/shm/bstore-power-%d.run", (int)getpid());
	if (geteuid() != 0 || access("/dev/loop-control", R_OK | W_OK) < 0)
		return -1;
	/* A mount namespace that somebody else makes from ours would keep the file system mounted. */
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	if (command("truncate -s %dM %s && mkfs.ext4 -q -F %s", IMAGE_MB, p->image, p->image) < 0)
		return -1;
	snprintf(text, sizeof(text), "losetup --find --show %s", p->image);
	f = popen(text, "r");
	if (!f || !fgets(p->loop_dev, sizeof(p->loop_dev), f))
		p->loop_dev[0] = 0;
	if (f)
		pclose(f);
	p->loop_dev[strcspn(p->loop_dev, "\n")] = 0;
	if (!p->loop_dev[0] || mkdir(p->mnt, 0700) < 0)
		return -1;
	return command("mount -t ext4 %s %s", p->loop_dev, p->mnt);
}

static void tear_down(struct power *p)
{
	umount(p->mnt);
	rmdir(p->mnt);
	if (p->loop_dev[0])
		command("losetup -d %s", p->loop_dev);
	unlink(p->image);
	dir_remove(p->run, NULL);
}

int main(int argc, char **argv)
{
	static struct power p;
	struct bstore_stats sum = {0};
	uint64_t end = clock_ms() + 1000 * (argc > 1 ? (uint64_t)atoi(argv[1]) : 10), s, bad = 0, rounds = 0;
	int r = 0;

	p.seed = argc > 2 ? (uint64_t)atoll(argv[2]) : clock_us() % 1000000007;
	s = p.seed * 0x9e3779b97f4a7c15ull;
	if (set_up(&p) < 0) {
		fprintf(stderr, "skipped: needs root, mkfs.ext4 and loop devices\n");
		tear_down(&p);
		return SKIPPED;
	}
	log_init("power", LOG_LEVEL_ERROR);
	memset(p.member, true, sizeof(p.member));
	uv_loop_init(&p.loop);
	p.sh = mmap(NULL, sizeof(*p.sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
		p.sh->h.start[g][p.sh->epoch[g] = 1] = 1;
		model_init(&p.model[g], g);
	}
	for (; r == 0 && clock_ms() < end && p.sh->epoch[0] + 40 < MODEL_EPOCHS &&
	       p.sh->epoch[1] + 40 < MODEL_EPOCHS && p.sh->epoch[2] + 40 < MODEL_EPOCHS;
	     rounds++) {
		s = s * 6364136223846793005ull + 1442695040888963407ull;
		r = power_round(&p, s, &sum, &bad);
	}
	printf("seed %llu: %llu power cuts, %llu records appended, %llu syncs, %llu rollbacks; %llu "
	       "replayed, %llu dropped, %llu torn ends, %llu bad blocks found\n",
	       (unsigned long long)p.seed, (unsigned long long)rounds, (unsigned long long)p.sh->all,
	       (unsigned long long)p.sh->syncs, (unsigned long long)p.sh->cuts,
	       (unsigned long long)sum.replayed, (unsigned long long)sum.dropped,
	       (unsigned long long)sum.torn, (unsigned long long)bad);
	if (r == 0 && (p.sh->syncs < rounds / 2 || sum.replayed == 0)) {
		fprintf(stderr, "FAILED: too little happened\n");
		r = -1;
	}
	for (uint32_t g = 0; g < MODEL_GROUPS; g++)
		model_done(&p.model[g]);
	tear_down(&p);
	return r < 0;
}
