/* SPDX-License-Identifier: Apache-2.0 */
/* sim: a deterministic simulator of a volume's replication. One seed decides everything: the cluster's shape, what every message, disk and etcd
 * does, which faults come when, and what the clients ask. It drives the real src/core/repl; around it are a model of a brick (brick.c), its
 * disk (store_*.c), the network (net.c), etcd (etcd.c), clients (client.c) and faults (fault.c). Checkers (check_*.c) look at every step that matters and
 * at the end, when all faults are gone and everything must be equal again.
 *
 * Time is virtual, in microseconds; a brick's own clock runs at its own rate. One thread; a run of some virtual seconds takes some real milliseconds.
 * A violation ends the run with a sentence; the same seed shows it again, with a trace (./dev sim SEED). */
#pragma once

#include "core/repl/repl.h"
#include "core/repl/replica.h"

#define BRICKS_MAX  5
#define GROUPS_MAX  4
#define CLIENTS_MAX 6
#define REGS	    8	 /* registers a group: keys, each a 4 KiB block's stand-in with unique values */
#define LOG_MAX	    8192 /* records a group in one run */
#define OPS_MAX	    16384
#define MS	    1000ull
#define NOBODY	    255

struct sim;
struct member;

/* ---- one register file: the state of a group ---- */
struct cell {
	uint64_t value, seq; /* of its last change; seq 0 = never */
};
struct regs {
	struct cell reg[REGS];
	struct cell done[CLIENTS_MAX]; /* number of the client's newest operation (exactly once) */
	struct repl_pos pos;	       /* end of the complete prefix */
	uint64_t committed;
	bool dirty; /* an unfinished catching up: cells may be newer than pos */
};
void regs_apply(struct regs *s, const struct record *rec, bool live);

/* ---- a member's disk ---- */
struct fstate; /* files.h: keys and data, in the other kind of schedule */
struct logent {
	struct record *rec;
	bool live;
	struct replica_patch *patch; /* checksums of partly changed blocks; own memory */
	uint32_t n_patches;
};
struct store {
	struct regs mem, ckpt; /* now; at the last checkpoint (durable) */
	struct logent *log;    /* since the checkpoint */
	uint32_t n, durable;   /* entries; of these on stable storage */
	struct logent *ghost;  /* durable entries that were cut since: a power loss may bring them back */
	uint32_t n_ghost;
	uint32_t cuts;
	struct record **recent; /* [seq]: in memory, for fetch */
	uint64_t recent_low;
	bool lost_power;  /* the next recovery finds data that may be torn */
	bool sure;	  /* as io->sure said; gone with a power loss */
	struct fstate *f; /* NULL: registers */
};
void store_init(struct store *s, bool files, uint32_t group);
void store_done(struct store *s);
int store_append(struct store *s, struct record *rec, bool live);
struct repl_pos store_rollback(struct store *s, struct repl_pos pos);
void store_checkpoint(struct store *s);
void store_synced(struct store *s, uint32_t n, uint32_t cuts);
void store_crash(struct sim *sim, struct store *s, bool power);
void store_recover(struct store *s, bool keep_recent); /* after store_crash */
void store_forget_recent(struct store *s, uint64_t upto);

/* ---- events ---- */
struct event {
	uint64_t at, n; /* µs; order of creation */
	void (*fn)(struct sim *s, struct event *e);
	uint8_t brick; /* whose: dropped when it is down, kept when it is stopped; NOBODY */
	uint64_t life; /* 0 = any */
	uint32_t a, b;
	uint64_t u, v;
	void *p;
	void (*drop)(void *p); /* frees p when the event is not run */
};
struct event *event_new(struct sim *s, uint64_t delay_us, void (*fn)(struct sim *, struct event *));

/* ---- clients and their history ---- */
enum op_type { OP_READ, OP_WRITE, OP_SYNC };
struct op {
	enum op_type type;
	uint8_t client, group, reg;
	bool done; /* answered with success */
	uint64_t number, value;
	uint64_t start, end; /* µs */
};
struct client {
	uint8_t id;
	struct op *op; /* in flight */
	uint64_t tries, try_id, deadline;
	uint8_t guess[GROUPS_MAX]; /* brick it asks */
	uint64_t next_number;
	bool stopped;
};

/* ---- bricks ---- */
struct pending {
	uint8_t client;
	enum op_type type;
	uint64_t try_id, seq, value;
};
#define PENDING_MAX 64
struct member {
	struct sim *s;
	uint8_t brick, group, index;
	struct repl *r; /* NULL = down */
	struct store st;
	struct pending pending[PENDING_MAX];
	uint32_t n_pending;
	struct { /* DELTA answers that wait for a commit */
		uint64_t seq;
		void *answer;
	} held[16];
	uint32_t n_held;
	uint64_t pull_id, pull_since, pull_cursor; /* pull in progress; id 0 = none */
	uint64_t pull_asked;			   /* local ms */
	uint8_t pull_sources;
	bool caught_before; /* this life has pulled for this gap */
	uint64_t rollbacks; /* answers made before are void */
	bool lost_power;    /* truth: may miss acknowledged records (until it is in sync again) */
	bool in_message, bad_disk, new_primary;
	bool ahead;	   /* the record that is appended next was sent already */
	uint64_t live_seq; /* newest record that came live in this pull */
	uint64_t in_message_epoch, known_epoch;
	enum repl_role role;
	uint64_t cas_id, sync_at;
	uint64_t records;
	struct fmember *f; /* NULL: registers */
};
struct brick {
	uint8_t id;
	bool up, stopped, leaving;
	bool dying; /* crashes before anything else happens; nobody hears of it any more */
	uint64_t life, started_ms;
	int64_t clock_offset;
	uint32_t clock_ppm;	/* 1,000,000 = right */
	struct event **waiting; /* while it is stopped */
	uint32_t n_waiting, waiting_cap;
	struct member m[GROUPS_MAX];
};

/* ---- etcd ---- */
struct etcd_group {
	struct repl_view view;
	uint64_t applied_us;
};

/* ---- what is true, for the checkers ---- */
struct truth {
	struct record *rec[LOG_MAX]; /* [seq]: first seen committed */
	uint64_t len, synced;	     /* up to synced: fsync was answered */
	struct regs regs;
	uint64_t epoch_owner_epoch[1024];
	uint8_t epoch_owner[1024]; /* brick */
	uint64_t epoch_life[1024];
	bool excuse;   /* an election among unsure members may lose what was not synced */
	uint64_t lost; /* records that were lost as the rules allow */
	struct fstate *f;
};

struct options {
	uint8_t n, groups, clients, write_quorum;
	bool backup_reads, fifo, keep_recent, strict_unsure, files;
	bool ahead; /* records go to the members before they are appended; now and then the primary dies in between */
	uint8_t stripe;
	uint32_t duration_ms, loss, dup, spike, cas_lost, etcd_delay_us, net_us, fault_ms, handback_ms, aim;
	uint32_t p_crash, p_power, p_power_all, p_stop, p_part, p_oneway, p_etcd, p_disk, p_slow, p_leave,
		p_reset;
};

struct sim {
	uint64_t seed, rng, now, n_events, steps;
	struct options o;
	struct event **heap;
	size_t n_heap, heap_cap;
	struct event *free_events;
	struct brick brick[BRICKS_MAX];
	bool cut[BRICKS_MAX][BRICKS_MAX]; /* [from][to] */
	uint64_t fifo_at[BRICKS_MAX][BRICKS_MAX];
	bool cut_etcd[BRICKS_MAX], etcd_away;
	uint32_t slow_disk[BRICKS_MAX];
	struct etcd_group etcd[GROUPS_MAX];
	struct client client[CLIENTS_MAX];
	struct op *op;
	size_t n_ops;
	uint64_t next_value, next_try;
	struct truth truth[GROUPS_MAX];
	struct files *files; /* NULL: registers */
	bool calm;	     /* no more faults */
	bool trace, messages, failed;
	char why[512], checker[64];
	struct {
		uint64_t commits, views, crashes, power, power_all, stops, partitions, cas_unknown, deltas,
			cuts, unsure, lost, acked, messages, syncs, handovers, disk;
	} count;
};

/* ---- random ---- */
uint64_t rnd(struct sim *s);		       /* 64 bits */
uint64_t rnd_below(struct sim *s, uint64_t n); /* [0, n) */
bool rnd_in(struct sim *s, uint32_t ppm);      /* true with ppm / 1,000,000 */
uint64_t rnd_us(struct sim *s, uint64_t mean); /* mostly around mean, with a tail */

/* ---- parts ---- */
void trace(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void violation(struct sim *s, const char *checker, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void sim_run(struct sim *s, uint64_t seed, bool files, bool show, bool messages);
void sim_done(struct sim *s);
void sim_step_until(struct sim *s, uint64_t us);

void net_init(struct sim *s);
void net_send(struct sim *s, const struct repl_msg *m, uint8_t from, uint8_t to);
bool net_reach(struct sim *s, uint8_t from, uint8_t to, uint64_t *ret_delay); /* false: lost */

void etcd_propose(struct member *m, uint64_t expect, const struct repl_view *next);
void etcd_watch_tick(struct sim *s);

void brick_init(struct sim *s);
void brick_up(struct sim *s, uint8_t b);
void brick_down(struct sim *s, uint8_t b, bool power);
void brick_stop(struct sim *s, uint8_t b);
void brick_cont(struct sim *s, uint8_t b);
uint64_t brick_ms(const struct sim *s, uint8_t b);
struct member *member_at(struct sim *s, uint8_t group, uint8_t index);
uint8_t brick_of(const struct sim *s, uint8_t group, uint8_t index);
const char *role_name(enum repl_role r);
/* A client's question at a brick; answered by client_answer. */
struct question {
	enum op_type type;
	uint8_t client, group, reg;
	uint64_t number, value, try_id;
};
void brick_question(struct sim *s, uint8_t b, const struct question *q);
void member_deltas(struct member *m);

void client_init(struct sim *s);
void client_answer(struct sim *s, uint8_t from_brick, uint8_t client, uint64_t try_id, int err,
		   uint64_t value);
void clients_stop(struct sim *s);

void fault_init(struct sim *s);
void fault_heal(struct sim *s);
void fault_crash(struct sim *s, uint8_t b); /* before the next event */
bool fault_joined(struct sim *s, uint8_t primary,
		  uint8_t joined); /* bricks; true: the swap's answer is lost */

/* ---- checkers ---- */
void check_committed(struct member *m, uint64_t upto); /* committed_never_lost, exactly_once */
void check_difference(struct sim *s, const struct regs *a, const struct regs *t);
void check_primary(struct member *m); /* committed_never_lost: it has everything */
void check_election(struct member *m, const struct repl_view *old, const struct repl_view *next);
void check_epoch(struct member *m, uint64_t epoch);    /* one_primary_an_epoch */
void check_fenced(struct member *m, const char *what); /* fenced */
void check_synced(struct member *m, uint64_t upto);    /* fsync_durable: notes; check_primary judges */
void check_exactly_once(struct sim *s, uint8_t group);
void check_linearizable(struct sim *s);
void check_converged(struct sim *s);
bool is_converged(struct sim *s, char why[256]);
