/* SPDX-License-Identifier: Apache-2.0 */
/* repl: one member of one group: primary/backup replication with an outside configuration manager (PacificA, Lin 2008), pure. Time comes
 * in as an argument, messages and disk go out through a table of functions; the same code runs in a brick and in the simulator.
 * The protocol with its reasons and a walk through each failure: docs/volume-replication.md.
 *
 * The configuration ("view") of a group - epoch, primary, in-sync set - lives in etcd and changes by compare-and-swap only; each
 * change raises the epoch. Invariants (each has a checker in sim/):
 *   - one primary an epoch; messages of older epochs are refused and answered with the newer view;
 *   - a record is committed when every member of the in-sync set of its epoch has it (and every member that a compare-and-swap of unknown
 *     outcome may have added); the primary answers clients then, and only when the set is not smaller than the write quorum;
 *   - every member of the in-sync set has every committed record; so any of them may become primary, and none else;
 *   - reads are linearizable: a primary reads only while every other in-sync member has granted it a read lease that still runs
 *     (lease_ms from the *sending* of the heartbeat it answers; a member that granted one does not serve as primary of a later epoch before it
 *     ended, by its own clock plus skew_ms); a backup may read under the lease its primary grants it (counted from the sending of the backup's own
 *     message that the grant answers), objects with records not known as committed excepted;
 *   - a primary that removes a member waits until the member's read lease ended before it commits without it;
 *   - a new primary commits its whole log (it re-sends its tail, then its epoch's first record); members cut what it does not have;
 *   - a member that may have lost the end of its log in a power loss (`sure` false) does not become primary while one that is sure may be
 *     there: it must hear from every other in-sync member that it is unsure too, or wait unsure_wait_ms and hear from as many unsure ones as
 *     the write quorum; the newest (epoch, seq) of those wins. Synced records are on every in-sync member's stable storage, so none
 *     of them is lost by it.
 *
 * States: OUT (not in sync; asks the primary) -> CATCHING (live records come and a delta is pulled) -> BACKUP (in the in-sync set)
 *         BACKUP -> PROMOTING (old leases still run, or its log is not committed yet) -> PRIMARY; PRIMARY, BACKUP -> OUT by a newer view
 *         without it, a disk error, or a restart that found its log unsure. PRIMARY -> BACKUP by a planned hand-over.
 *
 * What the shell owes (a brick, the simulator):
 *   - nothing that a callback produced (a message, an answer) leaves before what io->append took before it is in the log file (write(2)); when that
 *     fails: repl_on_disk_error, and nothing leaves. A message that is `ahead` may leave at once when nothing else waits to go to that member; then
 *     io->append returns 0 for its record only when it is in the log file: an answer to it can come before the turn ends;
 *   - now_ms is the machine's monotonic clock, read when it is needed (not once a loop turn): a process that was stopped must not count with
 *     the time before;
 *   - what answers a read - of a client, a DELTA or a FETCH of another member - leaves when repl_committed() has reached repl_pos().seq of the moment of reading
 *     (or when no record behind repl_committed() touches what was read), and not at all when io->rollback or io->changed with another role came in between;
 *   - a DELTA or FETCH is answered only by a member with role PRIMARY or BACKUP and with the asker's epoch. */
#pragma once

#include "core/repl/record.h"

#define REPL_WINDOW_MAX	  1024		/* records in flight; repl_submit answers -EBUSY beyond */
#define REPL_WINDOW_BYTES (64ull << 20) /* likewise, of payload */
#define REPL_SYNCS_MAX	  1024		/* waiting repl_sync; -EBUSY beyond */

struct repl_view {
	uint64_t epoch;	 /* 0 = the group has never had a primary */
	uint8_t primary; /* index of the member */
	uint8_t isr;	 /* bit i = member i is in sync */
	uint64_t
		fork; /* epoch of the newest primary that was chosen among unsure members: committed records may be
			  * missing since then; 0 = never */
	/* Who the members are. A member has the same slot as long as it is one; a slot that is free may be given to another brick in a later epoch. */
	uint8_t members; /* bit i = slot i is taken; 0 = not told: the first `replica` slots, by the map */
	uint8_t joining, leaving;	 /* slot + 1 of who replaces whom; 0 = nobody (move.c) */
	uint16_t brick[VOL_MEMBERS_MAX]; /* of the slots taken: index into the map's bricks; else 0 */
};

/* ---- move.c: groups that move to other bricks (pure) ---- */

/* What comes next so that the group's members are those of the map, and the view that does it (epoch + 1). One member is replaced at a time:
 * ADD the new one beside the old (more members than `replica` for a while) -> it catches up and joins the in-sync set -> TURN: the old one hands
 * the primary's role over if it has it -> DROP the old one from set and members. The in-sync set is never smaller after a step than before the ADD.
 * A replacement that the map does not want any more (it was changed again) is dropped likewise. */
enum repl_move { REPL_MOVE_NONE, REPL_MOVE_WAIT, REPL_MOVE_ADD, REPL_MOVE_TURN, REPL_MOVE_DROP };
enum repl_move repl_move_next(const struct vol_map *m, uint32_t group, const struct repl_view *v,
			      struct repl_view *ret);
/* How many copies of `set` count for the write quorum: who is about to leave does not when its successor is there (they may share a domain). */
uint32_t repl_copies(const struct repl_view *v, uint8_t set);
/* The brick in a slot; -1 = the slot is free, or the map does not know it (a map of before). */
int repl_view_brick(const struct vol_map *m, uint32_t group, const struct repl_view *v, uint32_t slot);
int repl_view_slot(const struct vol_map *m, uint32_t group, const struct repl_view *v,
		   uint32_t brick); /* or -1 */
/* members, when it was not told: as the map has it. */
void repl_view_fill(const struct vol_map *m, uint32_t group, struct repl_view *v);
static inline uint8_t repl_members(const struct repl_view *v, uint8_t n)
{
	return (uint8_t)(v->members ? v->members : (1u << n) - 1);
}

struct repl_pos {
	uint64_t epoch, seq;
};

struct repl_config {
	uint32_t group;
	uint8_t self,
		n; /* slots are 0..n-1; without a map (repl_plan) all are members and 0 is the preferred primary */
	uint16_t brick;	      /* this member's, as in views that name members */
	uint8_t write_quorum; /* default 2 (n when n is less) */
	bool backup_reads;    /* backups get read leases; then removing one takes lease_ms + skew_ms longer */
	uint64_t life;	      /* this process's: greater at every start of the member */
	bool lost; /* what is here is not what this member had when it was last in the set (a new disk, an old copy); then it is not sure either */
	uint32_t heartbeat_ms, suspect_ms, lease_ms, skew_ms, ack_timeout_ms, unsure_wait_ms;
	uint32_t handback_ms; /* in sync for so long: the preferred primary gets its role back; 0 = never */
	/* A record with a payload of so many bytes and more goes to the in-sync members before the primary appends it itself, so that all of them write it at the same time. */
	uint32_t ahead_from;
};
void repl_config_default(struct repl_config *c); /* 50, 300, 200, 20, 1000, 10000; 10000; more than 64 KiB */

enum repl_role { REPL_OUT, REPL_CATCHING, REPL_BACKUP, REPL_PROMOTING, REPL_PRIMARY };

/* Messages may be lost, repeated and reordered. Every message carries the sender's view (a view is known to its sender only once it was in
 * etcd, so the receiver adopts a newer one), life, stamp, echo, pos and commit. */
enum repl_msg_type {
	REPL_MSG_APPEND = 1, /* primary -> member: record; commit = newest committed seq */
	REPL_MSG_ACK,	     /* member -> primary: pos = newest record it has */
	REPL_MSG_HEARTBEAT, /* primary -> member: commit; grants a read lease when the member is in sync and `lease` is set */
	REPL_MSG_HEARTBEAT_ACK, /* pos; grants the primary its read lease */
	REPL_MSG_SYNC,		/* primary -> member: make everything up to live.seq durable */
	REPL_MSG_SYNCED,	/* live.seq is durable here */
	REPL_MSG_HELLO, /* a member that is out, unsure or without primary -> everyone: pos, sure, hears */
	REPL_MSG_CUT, /* primary -> member: your log agrees with mine up to `cut`; drop what is behind; records from live.seq + 1 on follow, pull a
		       * delta when there is a gap between. Answers the message with stamp `echo`. live.seq 0: start again with a HELLO */
	REPL_MSG_CAUGHT_UP, /* member -> primary: everything up to pos.seq is here and durable, records follow without a gap */
	REPL_MSG_VIEW /* answers a message of an older epoch, and HELLO: this is what I know */
};

struct repl_msg {
	enum repl_msg_type type;
	uint32_t group;
	uint8_t from, to;
	uint64_t epoch; /* the sender's: view.epoch */
	struct repl_pos
		pos; /* newest record of the sender (complete prefix; while catching: newest record without a gap since the CUT) */
	uint64_t commit; /* newest seq the sender knows as committed */
	uint64_t stamp;	 /* of the sender: its clock, strictly rising */
	uint64_t
		echo; /* newest stamp of the receiver that the sender has seen; 0 = none. CUT: of the message it answers */
	uint64_t life;	      /* of the sender */
	struct repl_pos live; /* SYNC, SYNCED, CUT */
	struct repl_pos cut;  /* CUT; epoch 0 = the member's own */
	bool sure;	      /* the sender's log is complete */
	bool hears;	      /* the sender is, or hears, the primary of its view */
	bool failed;	      /* the sender's disk failed, or it is leaving */
	bool lost; /* the sender's state is no beginning for anybody: lost (repl_config), or an unfinished catching up */
	bool lease; /* HEARTBEAT, HEARTBEAT_ACK: a read lease is granted */
	struct repl_view view;
	struct record *record; /* APPEND; borrowed */
	bool ahead; /* APPEND, not on the wire: the sender's own io->append of the record comes next; it may leave before */
};

/* What the core asks of its shell. None may call back into the core. */
struct repl_io {
	void (*send)(void *ctx, const struct repl_msg *m); /* the shell takes a reference of m->record */
	/* Append to the log and apply (replica_apply, or _live while catching up), in order. Negative: the member takes itself out. */
	int (*append)(void *ctx, struct record *rec, bool live);
	/* Every record up to seq is committed: answers to clients may go, checkpoints may contain it. Not called below the write quorum at a primary. */
	void (*committed)(void *ctx, uint64_t seq);
	/* Drop every record behind pos from log and state, and distrust what they wrote; *ret = where the state is now (pos.epoch 0 when the caller does
	 * not know the record's epoch; *ret has it). May go back further than asked when it must: {0, 0} = nothing of the state can be relied on (full delta). */
	void (*rollback)(void *ctx, struct repl_pos pos, struct repl_pos *ret);
	/* Make everything up to seq durable, then call repl_on_local_sync. Answered in order. */
	void (*sync)(void *ctx, uint64_t seq);
	/* Everything up to seq is durable on every in-sync member: answers repl_sync(cookie), possibly before that returned. err < 0: not (no longer primary). */
	void (*synced)(void *ctx, uint64_t cookie, int err);
	/* Compare-and-swap of the view in etcd: expects epoch `expect`. Answer by repl_on_cas. One at a time. */
	void (*propose)(void *ctx, uint64_t expect, const struct repl_view *next);
	/* Pull everything that changed since `since` from in-sync members (0 = everything), make it durable (checkpoint), then call repl_on_delta. A new pull
	 * ends an older one, which is not answered. */
	void (*pull)(void *ctx, uint64_t since, uint8_t sources);
	/* Role or view changed (serving clients starts or ends). A new primary's shell re-drives intents here. */
	void (*changed)(void *ctx, enum repl_role role, const struct repl_view *view);
	/* The record at `seq` is needed to re-send it; NULL = not in memory (the member is then sent a CUT + delta). A reference for the caller. */
	struct record *(*fetch)(void *ctx, uint64_t seq);
	/* sure false: from now on the member's log may miss records that it acknowledged or needs (it is catching up); true: complete. Kept so that the
	 * next start after a mere crash finds it (repl_start's sure = this and no power loss since). */
	void (*sure)(void *ctx, bool sure);
};

struct repl;
struct repl *repl_new(const struct repl_config *c, const struct repl_io *io,
		      void *ctx); /* NULL = no memory */
struct repl *repl_free(struct repl *r);
/* Once, with what recovery found. pos: end of the complete prefix; {0, 0} when a catching up was not finished (replica.dirty): everything is compared then. */
void repl_start(struct repl *r, struct repl_pos pos, uint64_t committed, bool sure, uint64_t now_ms);
/* etcd said so (watch or read); epoch 0 = there is none yet. Must not be called with a guess: a member without a view does nothing. */
void repl_on_view(struct repl *r, const struct repl_view *v, uint64_t now_ms);
/* 0: it is in force. -EEXIST: *now_there is. Else: not known whether it is, or will be (now_there is ignored). */
void repl_on_cas(struct repl *r, int err, const struct repl_view *now_there, uint64_t now_ms);
void repl_on_msg(struct repl *r, const struct repl_msg *m, uint64_t now_ms);
void repl_on_local_sync(struct repl *r, uint64_t seq, int err, uint64_t now_ms);
/* err 0: everything up to `at` is here and durable: (epoch, seq) of the replica after replica_delta_end and a checkpoint; at least the newest record given to
 * io->append so far. Records that follow are ordinary ones from at.seq + 1 on. */
void repl_on_delta(struct repl *r, int err, struct repl_pos at, uint64_t now_ms);
void repl_on_disk_error(struct repl *r,
			uint64_t now_ms); /* the member leaves the in-sync set by its own wish */
/* The member's process is gone (its connection was closed and it refuses new ones): suspicion at once. Leases are waited for all the same. */
void repl_on_peer_down(struct repl *r, uint8_t member, uint64_t now_ms);
/* Planned stop: hands the primary role over and leaves. The shell waits (bounded) until repl_role() is OUT. */
void repl_leave(struct repl *r, uint64_t now_ms);
void repl_tick(struct repl *r, uint64_t now_ms); /* every 10..25 ms */
/* Where the group shall lie; m is used until the next call. may_begin: the primary may add a member now (the shell bounds how many groups move at once). */
void repl_plan(struct repl *r, const struct vol_map *m, bool may_begin);
bool repl_lost(const struct repl *r); /* repl_config's, until it has caught up and joined */
bool repl_gone(
	const struct repl *r); /* no member any more by its newest view: to be freed, and its state removed */

/* Primary only: gives rec its (epoch, seq), appends, sends. -EAGAIN not primary (or its lease ran out long ago, or a hand-over is on its way), -EROFS fewer
 * in sync than the write quorum, -EBUSY window full, -EIO disk. Takes its own reference. */
int repl_submit(struct repl *r, struct record *rec, uint64_t now_ms);
/* Likewise, also below the write quorum: for a record that nobody is told of as done (repair of blocks that no member has), without which no member could
 * catch up and the quorum would never be there again. */
int repl_submit_own(struct repl *r, struct record *rec, uint64_t now_ms);
/* synced(cookie) follows when everything submitted so far is durable everywhere. -EAGAIN as above; -EBUSY. */
int repl_sync(struct repl *r, uint64_t cookie, uint64_t now_ms);
bool repl_may_read(const struct repl *r, uint64_t now_ms); /* primary, or backup under a lease */
bool repl_is_primary(const struct repl *r, uint64_t now_ms);
bool repl_may_write(const struct repl *r); /* primary, not below the write quorum */
enum repl_role repl_role(const struct repl *r);
void repl_get_view(const struct repl *r, struct repl_view *ret);
struct repl_pos repl_pos(const struct repl *r);
/* Every in-sync member has the records up to here: what readers may see. Below the write quorum it may be ahead of io->committed. */
uint64_t repl_committed(const struct repl *r);
/* For status: per member, the newest seq it acknowledged; 0 = unknown. */
uint64_t repl_member_seq(const struct repl *r, uint8_t member);
