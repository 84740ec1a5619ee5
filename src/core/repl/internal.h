/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of repl among themselves. One struct repl is one member of one group; one thread; nothing is allocated after repl_new but the
 * first record of an epoch.
 *   repl.c		life, the functions of repl.h, messages in and out
 *   repl_log.c		the end of the log in memory: ring of uncommitted records, epochs, appending, cutting
 *   repl_primary.c	sending, commit, leases, removing and admitting members
 *   repl_backup.c	receiving as a backup or while catching up
 *   repl_view.c	views: adoption, compare-and-swap, elections, hand-over
 *   repl_sync.c	fsync
 *   move.c		which members come and go (repl.h) */
#pragma once

#include "core/repl/repl.h"

#define RING		2048u /* twice the window: each failed epoch adds a NOTE */
#define EPOCHS		64u
#define RESEND_MS	100u
#define HAND_WAIT_MS	500u  /* no intake for so long, when the store does not answer */
#define SYNC_TIMEOUT_MS 5000u /* a member that takes longer to make its log durable leaves */
#define ALONE_SUSPECTS	4u    /* times suspect_ms: how long a primary that hears too few is quiet */
#define LIVE_AHEAD	512u  /* records on their way to a member that is catching up */
#define STAMP_SHIFT	10    /* stamp = ms << 10 | counter */

_Static_assert(RING >= 2 * REPL_WINDOW_MAX && (RING & (RING - 1)) == 0, "ring");

enum peer_state {
	PEER_OUT,     /* not in sync, not served */
	PEER_LIVE,    /* gets committed records while it pulls a delta */
	PEER_JOINING, /* has all; gets every record; a join is proposed */
	PEER_ISR
};

struct peer {
	enum peer_state st;
	uint64_t life, stamp; /* newest heard of */
	uint64_t stamp_ms;    /* when the newest one came */
	/* As primary: */
	uint64_t heard_ms;	      /* last message of this epoch */
	bool matched;		      /* its log is known to be a prefix of mine up to acked */
	bool bad;		      /* in the set, but must not be: remove */
	bool down;		      /* its connection broke, and nothing was heard since */
	uint64_t acked, next, synced; /* next = first seq not sent */
	uint64_t sync_sent;
	/* A CUT with a gap told it that records follow behind `base`; 0 once it has answered (acked is then what it has of them). acked itself moves by the
	 * member's own words only: it may never have taken that CUT. */
	uint64_t base;
	uint64_t
		attempt; /* stamp of the message that began this catching up: earlier positions speak of another attempt */
	uint64_t resend_ms, sync_ms;
	uint64_t lag_ms;      /* since when acked has not moved although more was sent */
	uint64_t lease_until; /* it granted me */
	uint64_t granted_ms;  /* last heartbeat with a lease for it; 0 = none */
	/* What it said of itself (HELLO, VIEW), valid for epoch said_epoch: */
	uint64_t said_ms, said_epoch;
	struct repl_pos said_pos;
	bool said_sure, said_hears, said_lost, said;
};

struct epoch_end {
	uint64_t epoch, last; /* the epoch's newest record in my log */
};

struct repl {
	struct repl_config c;
	struct repl_io io;
	void *ctx;
	bool started, view_known;
	struct repl_view view;
	uint64_t view_ms; /* adopted at */
	enum repl_role role, told_role;
	uint64_t told_epoch;
	uint64_t start_ms, tick_ms, last_stamp;

	/* Log. */
	struct repl_pos pos;  /* end of the complete prefix */
	struct repl_pos live; /* catching up with a gap: newest record that came; else = pos */
	bool whole;	      /* no gap */
	bool sure;	      /* no acknowledged record can be missing */
	bool lost;	      /* acknowledged records are missing: never sure, and nothing of it counts */
	bool failed, leaving;
	bool matched;	 /* backup: my log is a prefix of this epoch's primary's */
	uint64_t cut_ok; /* a CUT must answer a later stamp than this */
	uint64_t committed, delivered;
	uint64_t ring_low; /* the ring holds (ring_low, pos.seq] */
	struct record *ring[RING];
	uint64_t ring_bytes;
	struct epoch_end epochs[EPOCHS];
	uint32_t n_epochs;

	/* Backup. */
	uint64_t heard_ms;    /* the primary of the view */
	uint64_t suspect_ms;  /* began to suspect it; 0 = does not */
	uint64_t hello_ms;    /* last HELLO sent */
	uint64_t read_until;  /* lease from the primary */
	uint64_t grant_until; /* lease granted to grant_to in grant_epoch, by my clock, with skew */
	uint64_t grant_ms;    /* when */
	uint8_t grant_to;     /* UINT8_MAX: not known (a restart) */
	uint64_t grant_epoch;
	uint64_t caught_ms;  /* last CAUGHT_UP sent; 0 = none */
	uint64_t caught_seq; /* what must be durable before */

	/* Primary. */
	struct peer peer[VOL_MEMBERS_MAX];
	uint8_t maybe;	     /* members that a proposal of unknown outcome may have added */
	uint64_t hold_until; /* nothing is committed before: leases of others */
	uint64_t note_seq;   /* this epoch's first record */
	uint64_t heartbeat_ms;
	uint64_t alone_ms; /* since when too many are silent; 0 = they are not */
	bool handing;	   /* hand-over: no intake */
	uint64_t handing_ms, handback_next;
	const struct vol_map *map; /* where the group shall lie; NULL: it never moves */
	bool may_begin;
	bool gone; /* not a member any more */
	uint8_t handing_to;

	/* Compare-and-swap. */
	bool cas_busy;
	uint64_t cas_next, cas_delay;
	struct repl_view proposed;
	bool unsure_bid;   /* proposed while unsure, by the rule for that */
	uint64_t gap_fork; /* view.fork when the present gap was first pulled for */

	/* fsync. */
	struct {
		uint64_t seq, cookie;
	} syncs[REPL_SYNCS_MAX];
	uint32_t sync_head, sync_n;
	uint64_t sync_ms, sync_want, sync_asked, synced, durable;
	uint32_t sync_out, sync_skip; /* io->sync calls on their way; of these, from before a rollback */
};

static inline uint8_t bit(uint8_t i)
{
	return (uint8_t)(1u << i);
}
static inline bool in_set(uint8_t set, uint8_t i)
{
	return (set & bit(i)) != 0;
}
static inline bool is_self_primary(const struct repl *r)
{
	return r->role == REPL_PRIMARY || r->role == REPL_PROMOTING;
}
/* May count as an in-sync member, or become primary. */
static inline bool usable(const struct repl *r)
{
	return r->sure && r->whole && !r->failed && !r->leaving;
}
static inline bool set_role_quorum(const struct repl *r, uint8_t set)
{
	return repl_copies(&r->view, set) >= r->c.write_quorum;
}
static inline bool is_member(const struct repl *r, uint8_t i)
{
	return in_set(repl_members(&r->view, r->c.n), i);
}
/* Slot i is the same member in both. */
static inline bool same_member(const struct repl *r, const struct repl_view *a, const struct repl_view *b,
			       uint8_t i)
{
	return in_set(repl_members(a, r->c.n), i) && in_set(repl_members(b, r->c.n), i) &&
	       (!a->members || !b->members || a->brick[i] == b->brick[i]);
}
static inline int pos_cmp(struct repl_pos a, struct repl_pos b)
{
	return a.epoch != b.epoch ? (a.epoch < b.epoch ? -1 : 1)
	       : a.seq != b.seq	  ? (a.seq < b.seq ? -1 : 1)
				  : 0;
}

/* repl.c */
void repl_send(struct repl *r, uint8_t to, struct repl_msg *m, uint64_t now); /* fills the common fields */
void repl_send_type(struct repl *r, uint8_t to, enum repl_msg_type t, uint64_t now);
void repl_broadcast_hello(struct repl *r, uint64_t now);
void repl_set_role(struct repl *r, enum repl_role role); /* and tells the shell, also of a new view */
void repl_fail(struct repl *r, uint64_t now);
void repl_set_sure(struct repl *r, bool sure);

/* repl_log.c */
int log_append(struct repl *r, struct record *rec, bool live);
struct record *log_get(struct repl *r, uint64_t seq); /* a reference; NULL = not in memory */
bool log_has(struct repl *r, uint64_t seq);
void log_release(struct repl *r, uint64_t upto); /* committed records leave the ring */
void log_cut(struct repl *r, struct repl_pos pos);
void log_epoch_add(struct repl *r, uint64_t epoch, uint64_t seq);
/* The epoch's newest record in my log; false = not known. */
bool log_epoch_last(const struct repl *r, uint64_t epoch, uint64_t *ret);
uint64_t log_epoch_of(const struct repl *r, uint64_t seq); /* 0 = not known */
/* Where a log that ends at pos (and is committed up to commit) agrees with mine. */
struct repl_pos log_agree(const struct repl *r, struct repl_pos pos, uint64_t commit);

/* repl_primary.c */
void primary_begin(struct repl *r, bool again, uint8_t before, uint64_t now);
void primary_end(struct repl *r);
void primary_send_ahead(struct repl *r, struct record *rec, uint64_t now); /* before it is appended */
void primary_advance(struct repl *r, uint64_t now);			   /* what is committed now */
void primary_on_pos(struct repl *r, uint8_t from, const struct repl_msg *m, uint64_t now);
void primary_on_hello(struct repl *r, uint8_t from, const struct repl_msg *m, uint64_t now);
void primary_on_caught_up(struct repl *r, uint8_t from, const struct repl_msg *m, uint64_t now);
void primary_tick(struct repl *r, uint64_t now);
/* What a member must have durable before it may count. */
uint64_t primary_join_floor(const struct repl *r);
bool primary_leased(const struct repl *r, uint64_t now);
uint64_t primary_lease_end(const struct repl *r);

/* repl_backup.c */
void backup_on_append(struct repl *r, const struct repl_msg *m, uint64_t now);
void backup_on_heartbeat(struct repl *r, const struct repl_msg *m, uint64_t now);
void backup_on_cut(struct repl *r, const struct repl_msg *m, uint64_t now);
void backup_out(struct repl *r); /* becomes OUT */
void backup_caught_up(struct repl *r, uint64_t now);
void backup_tell(struct repl *r, uint64_t commit);
void backup_commit(struct repl *r, uint64_t commit);

/* repl_view.c */
void view_adopt(struct repl *r, const struct repl_view *v, bool confirmed, uint64_t now);
void view_propose(struct repl *r, uint8_t primary, uint8_t isr, uint64_t fork, uint64_t now);
void view_propose_move(struct repl *r, const struct repl_view *next, uint64_t now);
bool view_well_formed(const struct repl *r, const struct repl_view *v);
bool view_may_propose(const struct repl *r, uint64_t now);
void view_tick(struct repl *r, uint64_t now); /* elections */

/* repl_sync.c */
void sync_answer(struct repl *r); /* those that are durable everywhere */
void sync_fail_all(struct repl *r, int err);
void sync_local(struct repl *r, uint64_t upto); /* asks the shell */
void sync_serve(struct repl *r, uint64_t now);	/* as a backup: what the primary wants */
void sync_tick(struct repl *r, uint64_t now);	/* lost messages */
void sync_cut(struct repl *r);
