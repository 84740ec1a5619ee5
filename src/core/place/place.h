/* SPDX-License-Identifier: Apache-2.0 */
/* place: which bricks hold what. Pure: no I/O, no clock. Everybody who has the volume map and a folder's id computes the same
 * groups, so there is no metadata server to ask.
 *
 * Words (docs/volume.md): brick, stripe, group (an ordered replica set in different domains), folder id, inode id. */
#pragma once

#include "base/base.h"
#include "base/json.h"

#define VOL_BRICKS_MAX	256
#define VOL_REPLICA_MAX 5
#define VOL_MEMBERS_MAX (VOL_REPLICA_MAX + 1) /* of a group: one more while it moves to another brick */
#define VOL_STRIPE_MAX	16
#define VOL_GROUPS_MAX	1024
#define VOL_DOMAINS_MAX 64
#define VOL_NAME_MAX	63 /* volume name: a DNS label */
#define VOL_STRIPE_SIZE (1u << 20)
#define VOL_BLOCK	4096u /* bytes with a checksum of their own */

/* 128 random bits, given once and never changed: a volume's, a folder's. Byte 0 of a folder's id is its home hint:
 * 0 = none, n = domain n - 1 of the map (its groups are those whose first member lies there, when there are any). */
struct vol_id {
	uint8_t b[16];
};

/* A file: the folder it was born in, and a number > 0 that is unique there. A folder itself: its own id and number 0. */
struct vol_ino {
	struct vol_id folder;
	uint64_t num;
};

extern const struct vol_id vol_root; /* the root folder: 15 zero bytes and a 1 */

struct vol_brick {
	char name[64];	  /* node name, unique in the volume: "a1" */
	char domain[64];  /* "a" */
	char address[64]; /* "ip:port" */
	char path[256];	  /* its data directory, as the operator named it */
	uint32_t weight;  /* 100 = normal */
	bool retired; /* replaced: it is to hold nothing; its place in the list stays, so that numbers keep their meaning */
};

struct vol_group {
	uint16_t brick
		[VOL_REPLICA_MAX]; /* where it shall lie: index into the map's bricks; brick[0] is the preferred primary. Who its members are now: the view (core/repl) */
	uint16_t origin
		[VOL_REPLICA_MAX]; /* the bricks it was made on: vol_place looks at these only, so a group that moves keeps its folders */
};

enum vol_kind { VOL_REPLICATED, VOL_STRIPED, VOL_DISTRIBUTED_STRIPED_REPLICATED };

struct vol_map {
	char name[VOL_NAME_MAX + 1];
	struct vol_id uuid;
	uint64_t generation; /* raised by every change of the map */
	bool started;
	uint32_t replica, stripe, stripe_size, write_quorum;
	uint32_t n_bricks, n_groups, n_domains;
	char domains[VOL_DOMAINS_MAX][64]; /* in order of first appearance */
	struct vol_brick *brick;	   /* n_bricks */
	struct vol_group *group;	   /* n_groups, a power of two */
	uint64_t
		serial; /* of this object in this process, for vol_place's cache; 0 = not cached (a map made by hand) */
};

/* Checks brick count against replica and stripe and lays out the groups over few, well-spread brick sets. bricks: n of them, copied.
 * n = replica (stripe 1): replicated. n = stripe, replica 1: striped. n = k x stripe x replica: distributed striped replicated. Else refused.
 * groups 0 = default (16 for up to 6 bricks, else 64). replica 1 only with without_copies. -EINVAL with the numbers that would fit.
 * Brick sets ("copysets"): n / replica disjoint ones with a brick each in different domains, as far as possible bricks that were named one after
 * the other; from three sets on as many again, differently mixed. So at most 2 n / replica different sets hold all data together: the fewer
 * there are, the less likely is it that some folder loses every copy when several bricks are lost at once (Cidon 2013). */
int vol_map_make(const char *name, const struct vol_id *uuid, uint32_t replica, uint32_t stripe,
		 const struct vol_brick *bricks, uint32_t n, uint32_t groups, bool without_copies,
		 struct vol_map **ret, struct err *e);
/* Bricks added (a multiple of stripe x replica, each set of copies in different domains): new sets of the new bricks take over their share of the
 * groups, each whole; no other group changes. generation + 1. */
int vol_map_expand(const struct vol_map *m, const struct vol_brick *more, uint32_t n, struct vol_map **ret,
		   struct err *e);
/* old (by its name) is replaced by a new brick wherever it is to be a member; it stays in the list as retired. -ENOENT, -EEXIST; -EINVAL when a group would
 * have two members in a domain. generation + 1. */
int vol_map_replace(const struct vol_map *m, const char *old, const struct vol_brick *brick,
		    struct vol_map **ret, struct err *e);
uint32_t vol_bricks_active(const struct vol_map *m); /* that are not retired */
struct vol_map *vol_map_free(struct vol_map *m);
json_t *vol_map_to_json(const struct vol_map *m);
int vol_map_from_json(const json_t *o, struct vol_map **ret, struct err *e); /* checks every bound */
enum vol_kind vol_map_kind(const struct vol_map *m);
const char *vol_kind_text(enum vol_kind k); /* "replicated", "striped", "distributed-striped-replicated" */
bool vol_name_valid(const char *name);	    /* a DNS label */
int vol_brick_find(const struct vol_map *m, const char *name); /* index or -1 */
int vol_group_member(const struct vol_map *m, uint32_t group,
		     uint32_t brick); /* position in the group or -1 */

/* The groups of a folder's files: ret[0] owns its entries and the inodes born in it; stripe i of such a file lies in
 * ret[i % stripe]. SM3(volume uuid || folder id), rendezvous over the groups; the further ones are the next by the same ranking that share no brick
 * with those before, as far as there are any. Writes m->stripe numbers. Any thread; a small cache a thread makes it cheap. */
void vol_place(const struct vol_map *m, const struct vol_id *folder, uint32_t *ret);
uint32_t vol_owner(const struct vol_map *m, const struct vol_id *folder); /* ret[0] of vol_place */
uint32_t vol_group_of_stripe(const struct vol_map *m, const struct vol_ino *ino, uint64_t stripe_index);

static inline bool vol_id_eq(const struct vol_id *a, const struct vol_id *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}
static inline bool vol_ino_eq(const struct vol_ino *a, const struct vol_ino *b)
{
	return a->num == b->num && vol_id_eq(&a->folder, &b->folder);
}
void vol_id_text(const struct vol_id *id, char out[33]); /* hex */
int vol_id_parse(const char *hex, struct vol_id *ret);
