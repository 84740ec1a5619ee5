/* SPDX-License-Identifier: Apache-2.0 */
/* repl: one member of one group: primary/backup replication with an outside configuration manager (PacificA, Lin 2008), pure. Time comes
 * in as an argument, messages and disk go out through a table of functions; the same code runs in a brick and in the simulator.
 *
 * The configuration ("view") of a group - epoch, primary, in-sync set - lives in etcd and changes by compare-and-swap only; each
 * change raises the epoch. Invariants (each has a checker in sim/):
 *   - one primary an epoch; messages of older epochs are refused and answered with the newer view;
 *   - a record is committed when every member of the in-sync set of its epoch has it; the primary answers clients then, and only when the
 *     set is not smaller than the write quorum;
 *   - every member of the in-sync set has every committed record; so any of them may become primary, and none else;
 *   - reads are linearizable: a primary reads only while every other in-sync member has granted it a read lease that still runs
 *     (lease_ms from the *sending* of the heartbeat it answers; a member that granted one does not take part in a later epoch before it ended, by its own
 *     clock plus skew_ms); a backup may read under the lease its primary grants it, blocks with records not known as committed excepted;
 *   - a primary that removes a member waits until the member's read lease ended before it commits without it;
 *   - a new primary commits its whole log (it re-sends its tail under its epoch's first record); members cut what it does not have;
 *   - a member that may have lost the end of its log in a power loss (`sure` false) does not become primary while one that is sure may be
 *     there: it must hear from every other in-sync member, or wait unsure_wait_ms and have the newest (epoch, seq) of at least a write
 *     quorum of unsure ones; fsynced records are on every in-sync member's stable storage, so none of them is lost by it.
 *
 * States: OUT (not in sync; asks the primary) -> CATCHING (live records come and a delta is pulled) -> BACKUP (in the in-sync set)
 *         BACKUP -> PROMOTING (its compare-and-swap is on its way, or old leases still run) -> PRIMARY; PRIMARY, BACKUP -> OUT by a newer view
 *         without it, a disk error, or a restart that found its log unsure. */
#pragma once

#include "core/repl/record.h"

#define REPL_WINDOW_MAX 1024 /* records in flight; repl_submit answers -EBUSY beyond */

struct repl_view {
	uint64_t epoch;	 /* 0 = the group has never had a primary */
	uint8_t primary; /* index of the member */
	uint8_t isr;	 /* bit i = member i is in sync */
};

struct repl_pos {
	uint64_t epoch, seq;
};

struct repl_config {
	uint32_t group;
	uint8_t self, n;      /* members are 0..n-1, in the map's order; 0 is the preferred primary */
	uint8_t write_quorum; /* default 2 */
	uint32_t heartbeat_ms, suspect_ms, lease_ms, skew_ms, ack_timeout_ms, unsure_wait_ms;
};
void repl_config_default(struct repl_config *c); /* 50, 300, 200, 20, 1000, 10000 */

enum repl_role { REPL_OUT, REPL_CATCHING, REPL_BACKUP, REPL_PROMOTING, REPL_PRIMARY };

enum repl_msg_type {
	REPL_MSG_APPEND = 1, /* primary -> member: record; commit = newest committed seq */
	REPL_MSG_ACK,	     /* member -> primary: pos = newest record it has */
	REPL_MSG_HEARTBEAT, /* primary -> member: commit, stamp; grants a read lease when the member is in sync */
	REPL_MSG_HEARTBEAT_ACK, /* stamp returned, pos; grants the primary its read lease */
	REPL_MSG_SYNC,		/* primary -> member: make everything up to pos.seq durable */
	REPL_MSG_SYNCED,	/* pos.seq is durable here */
	REPL_MSG_HELLO,		/* a member that is out or unsure -> everyone: pos, sure */
	REPL_MSG_CUT, /* primary -> member: your log agrees with mine up to pos; drop what is behind, then pull a delta from there */
	REPL_MSG_CAUGHT_UP, /* member -> primary: delta applied up to pos.seq, live records follow without a gap */
	REPL_MSG_VIEW	    /* your epoch is old: this is the newer view (a hint; etcd decides) */
};

struct repl_msg {
	enum repl_msg_type type;
	uint32_t group;
	uint8_t from, to;
	uint64_t epoch; /* the sender's */
	struct repl_pos pos;
	uint64_t commit;
	uint64_t stamp; /* the primary's clock at sending, ms; returned as it came */
	bool sure;
	struct repl_view view;
	struct record *record; /* APPEND; borrowed */
};

/* What the core asks of its shell. None may call back into the core. */
struct repl_io {
	void (*send)(void *ctx, const struct repl_msg *m); /* the shell takes a reference of m->record */
	/* Append to the log and apply (replica_apply, or _live while catching up), in order. Negative: the member takes itself out. */
	int (*append)(void *ctx, struct record *rec, bool live);
	/* Every record up to seq is committed: answers to clients may go, checkpoints may contain it. */
	void (*committed)(void *ctx, uint64_t seq);
	/* Drop every record behind pos from log and state, and distrust what they wrote. 0; negative: state unusable, full delta (pos 0). */
	int (*rollback)(void *ctx, struct repl_pos pos);
	/* Make everything up to seq durable, then call repl_on_local_sync. */
	void (*sync)(void *ctx, uint64_t seq);
	/* Everything up to seq is durable on every in-sync member: answers repl_sync(cookie). err < 0: not (no longer primary). */
	void (*synced)(void *ctx, uint64_t cookie, int err);
	/* Compare-and-swap of the view in etcd: expects epoch `expect`. Answer by repl_on_cas. One at a time. */
	void (*propose)(void *ctx, uint64_t expect, const struct repl_view *next);
	/* Pull everything that changed since `since` from in-sync members (0 = everything), then call repl_on_delta. */
	void (*pull)(void *ctx, uint64_t since, uint8_t sources);
	/* Role or view changed (serving clients starts or ends). A new primary's shell re-drives intents here. */
	void (*changed)(void *ctx, enum repl_role role, const struct repl_view *view);
	/* An earlier record of this epoch at `seq` is needed to re-send it; NULL = not in memory (the member is then sent a CUT + delta). */
	struct record *(*fetch)(void *ctx, uint64_t seq);
};

struct repl;
struct repl *repl_new(const struct repl_config *c, const struct repl_io *io, void *ctx);
struct repl *repl_free(struct repl *r);
/* Once, with what recovery found. */
void repl_start(struct repl *r, struct repl_pos pos, uint64_t committed, bool sure, uint64_t now_ms);
void repl_on_view(struct repl *r, const struct repl_view *v,
		  uint64_t now_ms); /* etcd said so (watch or read) */
void repl_on_cas(struct repl *r, int err, const struct repl_view *now_there, uint64_t now_ms);
void repl_on_msg(struct repl *r, const struct repl_msg *m, uint64_t now_ms);
void repl_on_local_sync(struct repl *r, uint64_t seq, int err, uint64_t now_ms);
void repl_on_delta(struct repl *r, int err, uint64_t seq, uint64_t now_ms);
void repl_on_disk_error(struct repl *r,
			uint64_t now_ms);	 /* the member leaves the in-sync set by its own wish */
void repl_tick(struct repl *r, uint64_t now_ms); /* every 10..25 ms */

/* Primary only: gives rec its (epoch, seq), appends, sends. -EAGAIN not primary (or its lease ran out), -EROFS fewer in sync than the write
 * quorum, -EBUSY window full. Takes its own reference. */
int repl_submit(struct repl *r, struct record *rec, uint64_t now_ms);
/* synced(cookie) follows when everything submitted so far is durable everywhere. -EAGAIN as above. */
int repl_sync(struct repl *r, uint64_t cookie, uint64_t now_ms);
bool repl_may_read(const struct repl *r, uint64_t now_ms); /* primary, or backup under a lease */
bool repl_is_primary(const struct repl *r, uint64_t now_ms);
enum repl_role repl_role(const struct repl *r);
void repl_get_view(const struct repl *r, struct repl_view *ret);
struct repl_pos repl_pos(const struct repl *r);
uint64_t repl_committed(const struct repl *r);
/* For status: per member, the newest seq it acknowledged; 0 = unknown. */
uint64_t repl_member_seq(const struct repl *r, uint8_t member);
