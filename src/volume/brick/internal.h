/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a brick. Everything here belongs to the loop thread, except struct follower (store.c).
 *
 *   brick -> engine (connections) -> side (who is at the other end: peer, client, session, pull)
 *         -> peers (other bricks, one link each)
 *         -> volumes -> bstore
 *                    -> groups -> repl (core), replica and vfs (core) -> operations that wait
 *                    -> sessions and their caching leases
 * Files: main.c (settings, life), store.c (etcd: threads), peer.c (links and questions to bricks), vol.c (a volume's life), group.c (core/repl's
 * shell), op.c (clients' operations), early.c (large writes are relayed while they come), session.c, lease.c, delegate.c (folders of one client), intent.c, orphan.c, heal.c (puller), source.c (what a puller is given), repair.c (bad blocks,
 * scrub), admin.c, stat.c (latencies, counters), metrics.c, conn.c (sockets). */
#pragma once

#include <endian.h>

#include "io/io.h"
#include "net/http_server.h"
#include "store/store.h"
#include "volume/brick/brick.h"
#include "volume/brick/conn.h"
#include "volume/bstore.h"
#include "volume/config.h"
#include "volume/proto.h"

#define TICK_MS		10
#define SESSIONS_MAX	1024 /* a volume */
#define SESSIONS_LEASED 64   /* of them may hold caching leases: one bit each */
#define LEASES_MAX	65536
#define LEASE_END_MS	1100 /* after the last ping heard: the client counts 1,000 from its sending */
#define SESSION_END_MS	2000
#define HELLO_WAIT_MS	5000
#define ASK_TIMEOUT_MS	5000
#define RESERVE_MIN	((uint64_t)64 << 20)
#define DIRTY_SLOTS	1024 /* power of two */
#define EARLY_LINK_MAX	16   /* payloads a link that run ahead of their records */

struct settings {
	char *data, *node, *domain, *listen, *advertise, *store, *metrics, *run_dir;
	char *ca, *cert, *key; /* to etcd */
	int64_t waiting, connections, heal_window, spin_us;
	bool awake;
	int64_t heartbeat_ms, suspect_ms, lease_ms, skew_ms, ack_ms, unsure_ms;
	int64_t checkpoint_ms, checkpoint_mib, peer_queue_mib, scrub_ms;
};

/* ---- counters and latencies (stat.c) ---- */
#define HIST_BUCKETS 128
struct hist { /* microseconds, 4 buckets a power of two; two of them, swapped every 10 s */
	uint32_t now[HIST_BUCKETS], before[HIST_BUCKETS];
	uint64_t count, sum_us;
};
void hist_add(struct hist *h, uint64_t us);
void hist_turn(struct hist *h);
uint64_t hist_quantile(const struct hist *h, double q);

#define TOP_MAX 64
struct top_row {
	uint8_t key[24];
	char name[64];
	uint64_t ops, bytes;
};
struct top { /* the busiest of many: Metwally's "space saving" (2005); halved every 10 s */
	struct top_row row[TOP_MAX];
	uint32_t n;
};
void top_add(struct top *t, const void *key, size_t len, const char *name, uint64_t bytes);
void top_turn(struct top *t);

struct counters {
	uint64_t ops, op_bytes_in, op_bytes_out, refused, pushes, lease_grants, lease_refused;
	uint64_t heal_keys, heal_bytes, heal_done, bad_blocks, repaired, scrubbed, fetched_bytes;
	uint64_t views_proposed, dials, disconnects, bad_frames, orphans_reaped, intents_driven, early,
		recalls;
};

/* ---- who is at the other end of a connection ---- */
struct pull;
struct side {
	struct brick *b;
	struct peer *peer;
	struct session *session;
	struct pull_source *source; /* dialled by a pull */
	uint8_t probe; /* dialled to see whether somebody listens there at all: tries left, this one counted */
	struct early *early; /* a client's: the WRITE that is coming and already relayed */
	/* A link's: payloads that run ahead of their records (early.c). */
	uint64_t early_id, early_newest; /* newest sent, newest received */
	uint32_t early_out;
	struct early_in {
		uint64_t id;
		struct payload *payload; /* NULL = free */
		uint32_t got;
	} early_in[EARLY_LINK_MAX];
};

/* ---- other bricks ---- */
struct peer {
	struct peer *next;
	char name[64], domain[64], address[64]; /* address "" = not known yet */
	uint64_t incarnation;
	bool registered;
	struct conn *link; /* up: HELLO done both ways */
	struct conn *dialling;
	uint64_t dial_at_ms, backoff_ms;
	uint32_t down_events;
};

/* A question to a brick. done is called exactly once: with its answer, or with h NULL and err. */
typedef void (*ask_fn)(void *ctx, int err, const struct proto_head *h, const uint8_t *body,
		       struct payload *payload);
struct ask {
	struct ask *next;
	struct conn *c;
	uint64_t request, until_ms;
	ask_fn done;
	void *ctx;
};
#define ASK_BUCKETS 256

/* ---- sessions and leases ---- */
struct push {
	struct push *next;
	uint64_t request;
	struct op *op;	      /* waits for it; NULL = nobody */
	struct grp *reset_of; /* PUSH_RESET */
	struct grp *orphan_of;
	struct orphan *orphan; /* PUSH_ORPHAN */
	uint32_t group;
};
struct session {
	struct vol *v;
	uint64_t client;
	char name[64];
	uint32_t slot;
	struct conn *c;		/* NULL: broken, not yet at its end */
	uint64_t ping_ms, dial; /* dial: of no other connection of a session */
	bool leased;		/* its leases still count */
	bool closed;		/* in order, by the client */
	struct push *pushes;
	uint64_t ops, bytes;
};

/* INODE: of a folder all its entries too. LOCK: waits for one. FOLDER: got an INODE lease of a file born in this folder, and may have it still. */
enum lease_kind { LEASE_INODE = 1, LEASE_LOCK, LEASE_FOLDER };
struct lease {
	struct vol_ino ino;
	uint16_t group;
	uint8_t kind; /* 0 = free */
	uint64_t mask;
};
struct leases {
	struct lease *slot; /* open addressing; 2 * LEASES_MAX */
	uint32_t n;
};

/* ---- operations that wait ---- */
struct op {
	struct op *next; /* of the group's queue, by seq */
	struct grp *g;
	struct conn *c; /* a reference; NULL: for done */
	uint64_t request, seq, start_us;
	uint64_t cookie; /* of repl_sync */
	uint16_t flags;
	int sync_err;
	bool durable; /* a change that waits for its sync too */
	uint8_t tries;
	uint32_t pushes; /* sessions that must answer first */
	bool committed, want_lease;
	uint8_t type;
	uint64_t client;
	struct vol_ino ino;
	struct vfs_result res;
	/* Instead of a connection: the brick's own operations. status as in the frame's head. */
	void (*done)(void *ctx, int status, struct vfs_result *res);
	void *ctx;
};

struct orphan {
	struct orphan *next;
	struct vol_ino ino;
	uint64_t due_ms;
	uint32_t asked;
	bool open;
};

struct intent;
struct delegations;

/* A group that this brick is no member of any more: its keys and files are removed, step by step, then that is made durable. */
enum leaving { STAYS, REMOVING, SETTLING };

/* ---- groups ---- */
struct room { /* of a member: bytes free; what this brick had appended when that was measured at the latest; and at the newest telling */
	uint64_t free, taken, told;
};

struct grp {
	struct vol *v;
	uint32_t idx;
	uint8_t self, n;
	struct peer *member[VOL_MEMBERS_MAX]; /* by slot; NULL at self, and where nobody is */
	struct repl *repl;
	struct replica *replica;
	struct vfs vfs;
	bool append_failed;
	int append_err;
	bool ready, changed, rolled_back,
		down; /* ready: listed; changed: role or view; down: its disk failed */
	struct grp *next_ready;
	enum repl_role role, next_role; /* as the shell has acted upon; as the core said last */
	uint8_t ahead;			/* members that were sent the record that is appended next (bits) */
	struct repl_view view;
	uint64_t committed, safe;    /* committed; committed and flushed */
	uint64_t serial;	     /* of this opening: what comes back from threads must match */
	struct op *first, **last;    /* wait for their commit, by seq */
	struct op *reads;	     /* wait until what they saw is committed */
	struct op *mending;	     /* reads that wait for a bad block's repair */
	struct op *syncs, *synced;   /* wait for repl_sync; and it has come */
	uint64_t all_dirty;	     /* a new primary's log up to here: anything may be touched by it */
	struct op *gated;	     /* committed, wait for the resets */
	uint32_t resets;	     /* sessions that must answer a reset first */
	uint64_t grace_ms;	     /* a brick that has just started: no change is answered before */
	uint64_t dirty[DIRTY_SLOTS]; /* newest record that touched what hashes here */
	struct intent *intents;
	struct delegations *delegations;	/* NULL = none known */
	struct orphan *orphans, **orphans_last; /* by the time they are due */
	/* Sessions are asked; nobody has it open; that it has no name is being made durable; and is. */
	struct orphan *asking, *closed, *syncing, *nameless;
	uint64_t orphans_ms; /* not before: the next sync for them */
	uint32_t n_orphans;
	struct pull *pull;
	uint64_t pull_epoch; /* of the last one */
	/* repair.c. doubt: all its members lost power in this life, and not all of its data here was looked at since; scrubbed: it was, and what was bad is being
	 * repaired */
	bool doubt, scrubbed;
	bool strays;	     /* there may be data files without keys */
	uint64_t primary_ms; /* since when it is primary */
	bool proposing;
	uint64_t sweep_ms, relist_ms;	   /* when old answers, and orphans, are looked for next */
	struct room room[VOL_MEMBERS_MAX]; /* space.c */
};

/* ---- volumes ---- */
struct vol {
	struct vol *next;
	struct brick *b;
	char name[VOL_NAME_MAX + 1];
	uint32_t tag;
	int refs; /* store calls in flight */
	struct volcfg_volume doc;
	struct vol_map **old_maps; /* workers may still read them */
	size_t n_old;
	bool open, dirty, closing;
	int error;
	char error_text[200];
	uint32_t self;		 /* index of this brick in the map */
	struct repl_view *views; /* n_groups: what the store said last */
	bool *have_view;
	uint8_t *leaving;  /* n_groups: enum leaving */
	uint64_t moves_ms; /* when moves are looked at next */
	struct bstore *store;
	struct grp **grp; /* n_groups; NULL: not a member */
	struct session *session[SESSIONS_MAX];
	uint32_t n_sessions, sessions_end; /* sessions_end: slots in use are below */
	struct leases leases;
	struct top files, clients;
	struct scrub *scrub;
	uint64_t client_op_ms; /* a client was active */
	uint32_t sampled;
	uint64_t retry_open_ms;
	uint64_t reserve; /* of bytes free: space.c */
	/* folder.c: what the store knows of this brick's folder; what it is; groups in it that lack what was acknowledged */
	struct volcfg_folder folder, own_folder;
	bool folder_known, folder_due, folder_putting;
	uint64_t folder_retry_ms;
	uint32_t n_lost;
};

struct brick {
	struct settings s;
	uv_loop_t *loop;
	struct mailbox *mail;
	struct store *store;
	struct follower *follower;
	struct engine *engine;
	struct http_server *http;
	struct timer *tick;
	uv_idle_t spin;
	bool spinning;
	uint64_t spin_until_us, spin_frames;
	uint64_t start_ms, incarnation, life, next_request, next_serial, ticks, stop_ms;
	char advertise[64];
	int port;
	struct peer *peers;
	struct ask *asks[ASK_BUCKETS];
	uint32_t n_asks;
	struct vol *vols;
	struct grp *ready;
	uint32_t waiting;     /* operations of clients */
	uint64_t taken, told; /* space.c: bytes appended, at the latest telling */
	uint32_t pulls, pulls_in_flight, repairs;
	struct awake awake;
	uint64_t records; /* of other primaries, so far */
	struct op *free_ops;
	struct early *early;	/* of the write that is just being served */
	struct record *nothing; /* of reads */
	uint32_t n_free_ops;
	struct hist latency, sync_latency;
	struct counters n;
	bool stopping;
};

/* ---- store.c ---- */
struct follower *follower_new(struct brick *b);
struct follower *follower_free(struct follower *f); /* joins its threads, ends watches */
void store_propose(struct grp *g, uint64_t expect, const struct repl_view *next);
/* from the store, on the loop thread; doc is owned by the callee's caller; NULL = deleted */
void vol_on_doc(struct brick *b, const char *name, struct volcfg_volume *doc);
void vol_on_view(struct brick *b, const char *name, uint32_t group, const struct repl_view *view);
void vol_on_folder(struct brick *b, const char *name,
		   const struct volcfg_folder *f); /* this brick's; NULL = not known */
void peers_on_bricks(struct brick *b, const struct volcfg_brick *v, size_t n);

/* ---- folder.c ---- */
void folder_opened(struct vol *v);
void folder_tick(struct vol *v, uint64_t now);

/* ---- peer.c ---- */
struct peer *peer_get(struct brick *b, const char *name, bool make);
int peer_hello(struct conn *c, const struct proto_hello *h, const char **why);
#define PEER_PROBES 3
void peer_probe(struct brick *b, struct peer *p, uint8_t tries); /* its link is down: is its process gone? */
void links_tick(struct brick *b);
void links_done(struct brick *b);
/* The address where clients and bricks reach it: as registered, else as in the map. */
const char *peer_address(const struct peer *p);
uint64_t ask_send(struct brick *b, struct conn *c, struct proto_head *h, const void *body, size_t len,
		  ask_fn done, void *ctx);
bool ask_answer(struct brick *b, struct conn *c, const struct proto_head *h, const uint8_t *body,
		struct payload *payload);
void asks_fail(struct brick *b, struct conn *c, int err); /* c NULL = those out of time */
/* asked: the HELLO that this one answers; NULL = it is the first. */
void hello_send(struct brick *b, struct conn *c, enum proto_role role, const struct proto_head *asked);

/* ---- vol.c ---- */
struct vol *vol_by_tag(struct brick *b, uint32_t tag);
struct vol *vol_by_name(struct brick *b, const char *name);
void vol_unref(struct vol *v);
void vols_tick(struct brick *b);
void vols_done(struct brick *b);
void vol_failed(struct vol *v, int err, const char *what); /* disk error: leaves the in-sync sets */
const char *vol_option(const struct vol *v, const char *name, const char *otherwise);

/* ---- move.c: groups that come to this brick and go ---- */
bool moves_views_known(const struct vol *v);
bool moves_retired(const struct vol *v); /* replaced, and a member of nothing */
void moves_opened(struct vol *v);
void moves_tick(struct vol *v, uint64_t now);

/* ---- group.c ---- */
void grp_members(struct grp *g); /* who they are by its view; also when the map has changed */
struct grp *grp_new(struct vol *v, uint32_t idx);
struct grp *grp_free(struct grp *g);
void grp_start(struct grp *g);
void grp_mark(struct grp *g);	      /* looks at it at the end of the turn */
void grp_turn_roles(struct brick *b); /* role changes since the last turn */
void grp_turn_answers(struct brick *b);
int grp_on_msg(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
	       const char **why);
bool grp_is_primary(const struct grp *g);
bool grp_leads(const struct grp *g); /* by its newest view, whatever its lease says */

void grp_peer_down(struct brick *b, struct peer *p);
void grp_touched(struct grp *g, const struct record *rec); /* rec is on its way to its commit */
/* Newest record not known as committed that may have touched this inode, or this entry's folder; 0 = none. */
uint64_t grp_touch_seq(const struct grp *g, const struct vol_ino *ino);
bool grp_leave_all(struct brick *b); /* a planned stop; true when all groups are left */

/* ---- op.c ---- */
int op_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
	     const char **why);
/* The brick's own: executes on the primary here; -EAGAIN or -ESTALE in done when it is not. */
void op_own(struct grp *g, const struct vfs_op *vop,
	    void (*done)(void *ctx, int status, struct vfs_result *res), void *ctx);
struct op *op_new(struct grp *g, struct conn *c);
void op_queue(struct op *o);		       /* answered when its record is committed */
void op_wait_read(struct op *o, uint64_t seq); /* answered when seq is committed; at once when it is */
void op_text(struct conn *c, const struct proto_head *h, int status, const char *text);
void op_settle(struct op *o); /* something it waited for has come */
void op_answer(struct op *o);
void op_refuse(struct op *o, int status);
void op_fail_all(struct grp *g);   /* no longer primary */
void op_fail_reads(struct grp *g); /* what they saw may be gone */
void op_grant_folder(struct op *o);
int op_submit(struct op *o, struct record *rec);     /* repl_submit, pushes, dirty map; then queued */
int op_submit_own(struct op *o, struct record *rec); /* also below the write quorum: repl_submit_own */
void ops_done(struct brick *b);

/* ---- early.c ---- */
void early_part(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
		uint32_t got);
void early_end(struct side *side); /* the frame was served, or will not come */
/* The id by which the member at the end of link has the payload of the write that is being served; 0 = it has not. */
uint64_t early_use(struct brick *b, const struct conn *link, const struct payload *payload);
struct payload *early_place(struct conn *c, const struct proto_head *h, const uint8_t *body, uint32_t *ret_at,
			    const char **why);
int early_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why);
struct payload *early_take(struct side *side, uint64_t id); /* the caller's; NULL = it is not whole */
void early_done(struct side *side);

/* ---- session.c ---- */
int session_hello(struct conn *c, struct vol *v, const struct proto_hello *h);
void session_closed(struct session *s, int err);
int session_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why);
struct session *session_of(struct vol *v, uint64_t client);
void sessions_tick(struct vol *v, uint64_t now);
void sessions_reset(struct grp *g); /* a new primary's */
void sessions_done(struct vol *v);
struct push *session_push(struct session *s, uint32_t group, const struct proto_push *p);
void push_drop_op(struct vol *v, struct op *o); /* o waits for no session any more */
void pushes_fail_group(struct grp *g);
void pushes_forget_orphan(struct vol *v, const struct orphan *o);

/* ---- lease.c ---- */
bool lease_grant(struct vol *v, uint32_t group, enum lease_kind kind, const struct vol_ino *ino,
		 uint32_t slot);
void lease_end_session(struct vol *v, uint32_t slot);
void lease_end_group(struct vol *v, uint32_t group);
/* Who must hear of rec's effects: pushes are sent; o (may be NULL) waits for their answers. client: who makes the change. */
void lease_invalidate(struct grp *g, const struct record *rec, struct op *o, uint64_t client);
bool lease_grant_result(struct grp *g, const struct vfs_op *vop, const struct vfs_result *res,
			struct session *s);
/* Others than client: how many of their leases are of files born in the folder; and those are taken back, o waits for their answers. */
uint32_t lease_others(struct grp *g, const struct vol_id *folder, uint64_t client);
void lease_take_folder(struct grp *g, const struct vol_id *folder, struct op *o, uint64_t client);
void leases_done(struct vol *v);

/* ---- delegate.c ---- */
/* Before vop is executed for client: 0, or what it is refused with, because a folder it is about is delegated to another one. */
int delegation_gate(struct grp *g, const struct vfs_op *vop, uint64_t client);
/* After it was worked out: rec would change, or res shows, what is another one's. client 0: a step's. Primary only, and any member. */
bool delegation_bars(struct grp *g, const struct record *rec, uint64_t client);
bool delegation_hides(struct grp *g, const struct vfs_op *vop, const struct vfs_result *res, uint64_t client);
int delegation_may(struct grp *g, const struct vfs_op *vop); /* a DELEGATE: 0, or -EBUSY for its result */
void delegations_changed(struct grp *g, const struct record *rec); /* rec was submitted */
void delegations_primary(struct grp *g);
void delegations_lost(struct grp *g);
void delegations_tick(struct grp *g, uint64_t now);
uint32_t delegations_count(const struct grp *g);

/* ---- intent.c ---- */
void intent_attach(struct op *o, const uint8_t id[16],
		   uint64_t seq);    /* o is answered when it is done; seq: of its record */
void intents_primary(struct grp *g); /* a new primary takes up what it finds */
void intents_lost(struct grp *g);
void intents_committed(struct grp *g); /* g->safe has moved */
void intents_tick(struct grp *g, uint64_t now);

/* ---- orphan.c ---- */
void orphan_add(struct grp *g, const struct vol_ino *ino, uint64_t due_ms);
void orphans_primary(struct grp *g);
void orphans_lost(struct grp *g);
void orphans_tick(struct grp *g, uint64_t now);
void orphan_answer(struct grp *g, struct orphan *o, bool open);

/* ---- heal.c, source.c, repair.c ---- */
void heal_start(struct grp *g, uint64_t since, uint8_t sources);
void heal_stop(struct grp *g);
void heals_tick(struct grp *g, uint64_t now);
void heal_status(const struct grp *g, json_t *into);
int heal_hello(struct conn *c);
void heal_conn_closed(struct conn *c);
int source_delta(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why);
int source_fetch(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why);
#define REPAIR_LEN (64u << 10) /* what one repair looks at: the part of the file, so long, that off is in */
/* done: 0; -EAGAIN: not known yet, or not now; -EIO: no copy is good, and none may be made so; -ESTALE: the group was closed. May be called from inside. */
void repair_block(struct grp *g, const struct vol_ino *ino, uint64_t off, void (*done)(void *ctx, int err),
		  void *ctx);
void repair_fork(struct grp *g); /* all members of the group lost power, and it has elected its primary */
int repair_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why);
void scrub_tick(struct vol *v, uint64_t now);
void scrub_start(struct vol *v);
void scrub_done(struct vol *v);
void scrub_status(const struct vol *v, json_t *into);

/* ---- admin.c, metrics.c ---- */
int admin_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why);
void admin_tick(struct brick *b); /* tells other members how much is free */

/* ---- space.c ---- */
void space_measure(struct vol *v);			    /* the own disk; also what statfs answers */
void space_look(struct grp *g);				    /* before an operation that may need room */
void space_take(struct brick *b, const struct record *rec); /* it was appended */
void space_told(struct grp *g, uint8_t member, uint64_t bytes_free);
bool space_tell(struct vol *v); /* the others should hear of it now */
void metrics_text(struct brick *b, struct buf *out);
