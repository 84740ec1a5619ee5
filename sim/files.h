/* SPDX-License-Identifier: Apache-2.0 */
/* files: the other kind of schedule. Instead of registers the members keep files and folders: core/vfs on core/repl's replica (keys and data in memory,
 * mem.h), several groups, intents driven by vfs_drive, deltas with fetches, repair of bad blocks, clients that ask again with the same operation id.
 * Network, disks, etcd, clocks and faults are those of the register kind. */
#pragma once

#include <sys/stat.h>

#include "core/vfs/vfs.h"
#include "sim/mem.h"
#include "sim/sim.h"

#define CELL	    2048u /* bytes that one value fills: half a block, so that blocks are partly written */
#define CELLS	    12u	  /* of a file at most */
#define FSTRIPE	    (2u * VOL_BLOCK)
#define FNAMES	    4
#define FDIRS_MAX   24
#define FFILES_MAX  48
#define FOPS_MAX    4096
#define INTENTS_MAX 64 /* driven at once by one member of the simulator */

/* ---- a group's keys and data ---- */
struct fstate {
	struct mem_kv *kv, *ckpt;
	struct mem_blob *blob;
	struct replica r;
	bool broken; /* r is not initialised */
};
struct fstate *fstate_new(uint32_t group);
struct fstate *fstate_free(struct fstate *f);
int fstate_append(struct fstate *f, struct record *rec, bool live);
void fstate_checkpoint(struct fstate *f, uint64_t committed);
/* The last checkpoint, and the log's records again (redo: their data too); what the records that were cut wrote is distrusted. */
void fstate_restore(struct fstate *f, const struct logent *log, uint32_t n, struct record *const *cut,
		    uint32_t n_cut, bool redo);
void fstate_start_over(struct fstate *f);
void fstate_power_loss(struct sim *s, struct fstate *f);
bool fstate_same(const struct fstate *a, const struct fstate *truth, bool whole, char why[160]);
/* The next key of the group with this first byte behind `from` (NULL = first): pointers into the map. */
bool fstate_next(const struct fstate *f, char kind, const uint8_t **key, size_t *key_len,
		 const uint8_t **value, size_t *len);

/* ---- messages ---- */
enum fmsg_type { F_OP, F_ANSWER, F_DELTA, F_PAGE, F_FETCH, F_DATA };
struct fmsg {
	enum fmsg_type type;
	uint8_t from, to, group;    /* bricks; from NOBODY: a client */
	uint8_t client, from_group; /* OP and its ANSWER: who asked */
	bool step, any, done, full; /* any: a backup may answer */
	bool first;		    /* DELTA */
	uint8_t intent[16];	    /* step */
	uint64_t id, epoch, since;  /* id: of the try, or of the pull */
	uint64_t ask, end_epoch, seq;
	int status;
	struct buf body; /* operation, result, items, checksums */
	struct payload *payload;
	struct delta_cursor cursor;
	struct pull_range range;
};
struct fmsg *fmsg_new(enum fmsg_type type, uint8_t from, uint8_t to, uint8_t group);
void fmsg_free(void *m);
void fmsg_send(struct sim *s, struct fmsg *m); /* takes it */

/* ---- a member ---- */
struct fpending {
	uint64_t seq, cookie;
	enum { AT_COMMIT, AT_SEEN, AT_SYNC, SYNCED } when;
	int err;
	struct fmsg *answer; /* NULL: nobody waits */
};
struct fintent {
	struct vfs_drive d;
	uint64_t sent_ms;
	struct fmsg *waiter[4];
	uint32_t n_waiters;
};
struct fpull {
	bool on, first, full, walked;
	uint64_t id, ask, since, asked_ms, primary_ms, wait_ms;
	struct delta_cursor cursor;
	uint64_t end_epoch, end_seq;
	struct pull_range queue[PULL_RANGES_MAX * 2];
	uint32_t n, fails;
	bool fetching;
	struct pull_range range;
	uint64_t fetch_ms;
};
struct frepair {
	bool on;
	struct pull_range range;
	uint64_t id, sent_ms, look_ms;
	uint8_t tried;
	bool all_bad;
};
struct fmember {
	struct vfs vfs;
	struct fpending pending[PENDING_MAX];
	uint32_t n_pending;
	struct fintent intent[INTENTS_MAX];
	uint32_t n_intents;
	bool changed, rolled_back, was_primary;
	uint64_t pull_epoch, reap_ms;
	struct fpull pull;
	struct frepair repair;
};

void fmember_init(struct member *m);
void fmember_done(struct member *m);
void fmember_down(struct member *m); /* crash */
void fmember_turn(struct member *m); /* after every call of the core */
void fmember_tick(struct member *m);
void fmember_changed(struct member *m);
void fmember_rolled_back(struct member *m);
void fmember_synced(struct member *m, uint64_t cookie, int err);
void fmember_op(struct member *m, struct fmsg *q);
int fmember_submit(struct member *m, struct record *rec);
void fmember_hold(struct member *m, struct fmsg *answer,
		  uint64_t seq); /* until everything up to seq is committed */

void fheal_start(struct member *m, uint64_t since);
void fheal_stop(struct member *m);
void fheal_tick(struct member *m);
void fheal_msg(struct member *m, struct fmsg *q);
void frepair_tick(struct member *m);

/* ---- clients ---- */
struct fop {
	struct vfs_op op;
	char name[2], name2[2];
	uint8_t client, cell, n_cells;
	bool done, maybe; /* answered; sent and not answered */
	bool any;
	int err;
	uint64_t number, value, start, end;
	struct vol_ino ino;   /* of the answer */
	uint32_t flags, mode; /* of the answer */
	uint64_t cells[CELLS], size;
	struct vol_ino there[FNAMES]; /* READDIR; number UINT64_MAX = not there */
};
struct fclient {
	struct fop *op;
	uint64_t try_id, deadline, number;
	uint32_t gen, phase; /* of a striped write */
	bool locked;
	uint8_t guess[GROUPS_MAX];
	struct vol_ino open[4]; /* files that it has open */
	uint32_t n_open;
	struct vol_id alone;		   /* a folder that was delegated to it, maybe it still is */
	uint64_t number_next, number_last; /* for its new files there; last 0 = none */
};
struct files {
	struct vol_map *map;
	struct fop *op;
	size_t n_ops;
	struct fclient client[CLIENTS_MAX];
	struct vol_id dir[FDIRS_MAX];
	struct vol_ino file[FFILES_MAX];
	uint32_t n_dirs, n_files;
	uint64_t value;
	uint8_t rename_lock; /* client + 1 */
	bool lost; /* committed records of some group, as the rules allow: no tree over groups can be asked for */
	uint64_t intents, steps, reaped, repaired, adopted, renames;
};
void files_init(struct sim *s);
void files_done(struct sim *s);
void fclient_start(struct sim *s);
void fclient_answer(struct sim *s, struct fmsg *a);
bool fclient_has_open(const struct sim *s, const struct vol_ino *ino);

/* ---- checkers ---- */
void check_record(struct sim *s, uint8_t group,
		  const struct record *rec); /* one_name_a_folder, no_old_generation */
bool files_quiet(struct sim *s, char why[256]);
void check_tree(struct sim *s);
void check_names(struct sim *s);
void check_data(struct sim *s);
