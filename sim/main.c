/* SPDX-License-Identifier: Apache-2.0 */
/* main: kuayu-sim [--files | --both] SEED | --runs N [--from SEED] | --seconds S [--from SEED] | --seeds FILE. Prints one line a violation and a summary; exit status 1 on
 * a violation. */
#include "sim/sim.h"

#include <signal.h>
#include <time.h>

static struct sim sim; /* big */

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct total {
	uint64_t runs, bad, acked, commits, views, crashes, power, power_all, stops, partitions, deltas, cuts,
		unsure, lost, unknown, messages, disk, steps;
};

static bool messages, files, both;

/* An assertion of the product failed: which seed was it? */
static void on_abort(int sig)
{
	printf("seed %llu: assertion: see above\n", (unsigned long long)sim.seed);
	fflush(stdout);
	_exit(1);
}

static void one(struct total *t, uint64_t seed, bool show)
{
	sim_run(&sim, seed, files || (both && seed % 16 == 0), show, messages);
	t->runs++;
	t->acked += sim.count.acked;
	t->commits += sim.count.commits;
	t->views += sim.count.views;
	t->crashes += sim.count.crashes;
	t->power += sim.count.power;
	t->power_all += sim.count.power_all;
	t->stops += sim.count.stops;
	t->partitions += sim.count.partitions;
	t->deltas += sim.count.deltas;
	t->cuts += sim.count.cuts;
	t->unsure += sim.count.unsure;
	t->lost += sim.count.lost;
	t->unknown += sim.count.cas_unknown;
	t->messages += sim.count.messages;
	t->disk += sim.count.disk;
	t->steps += sim.steps;
	if (sim.failed) {
		t->bad++;
		printf("seed %llu: %s: %s\n", (unsigned long long)seed, sim.checker, sim.why);
		fflush(stdout);
	}
	sim_done(&sim);
}

static void summary(const struct total *t, double s)
{
	printf("%llu schedules, %llu violations; %.0f a minute; %llu operations acknowledged, %llu messages, "
	       "%llu views, %llu crashes, %llu power losses "
	       "(%llu of all), %llu stops, %llu partitions, %llu disk errors, %llu lost answers of etcd, "
	       "%llu deltas, %llu cuts, %llu unsure elections "
	       "(%llu unsynced records lost)\n",
	       (unsigned long long)t->runs, (unsigned long long)t->bad, (double)t->runs / MAX(s, 1e-9) * 60,
	       (unsigned long long)t->acked, (unsigned long long)t->messages, (unsigned long long)t->views,
	       (unsigned long long)t->crashes, (unsigned long long)t->power, (unsigned long long)t->power_all,
	       (unsigned long long)t->stops, (unsigned long long)t->partitions, (unsigned long long)t->disk,
	       (unsigned long long)t->unknown, (unsigned long long)t->deltas, (unsigned long long)t->cuts,
	       (unsigned long long)t->unsure, (unsigned long long)t->lost);
}

/* Lines: SEED [comment]. */
static int seeds_of(struct total *t, const char *path)
{
	FILE *f = fopen(path, "re");
	char line[256];

	if (!f) {
		fprintf(stderr, "sim: cannot read %s\n", path);
		return -1;
	}
	while (fgets(line, sizeof(line), f))
		if (line[0] >= '0' && line[0] <= '9')
			one(t, strtoull(line, NULL, 10), false);
	fclose(f);
	return 0;
}

int main(int argc, char **argv)
{
	struct total t = {0};
	uint64_t runs = 0, from = 1;
	double seconds = 0, start = now_s();
	bool first = false;

	signal(SIGABRT, on_abort);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc)
			runs = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			seconds = strtod(argv[++i], NULL);
		else if (strcmp(argv[i], "--from") == 0 && i + 1 < argc)
			from = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--messages") == 0)
			messages = true; /* in the trace */
		else if (strcmp(argv[i], "--files") == 0)
			files = true; /* the other kind of schedule */
		else if (strcmp(argv[i], "--both") == 0)
			both = true; /* one in sixteen of them */
		else if (strcmp(argv[i], "--first") == 0)
			first = true; /* stop at the first violation */
		else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
			if (seeds_of(&t, argv[++i]) < 0)
				return 2;
		} else if (argv[i][0] >= '0' && argv[i][0] <= '9')
			one(&t, strtoull(argv[i], NULL, 10), true);
		else {
			fprintf(stderr, "usage: kuayu-sim [--files | --both] [--messages] SEED | --runs N | "
					"--seconds S [--from "
					"SEED] [--first] | --seeds FILE\n");
			return 2;
		}
	}
	for (uint64_t i = 0; (i < runs || now_s() - start < seconds) && !(first && t.bad > 0); i++)
		one(&t, from + i, false);
	summary(&t, now_s() - start);
	return t.bad > 0;
}
