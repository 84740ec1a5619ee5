/* SPDX-License-Identifier: Apache-2.0 */
/* core/galera: what one member of a MariaDB + Galera cluster does next, from what it knows of itself and the others.
 *
 * Pure: no I/O, no clock, no memory of its own. The shell (src/db) observes, asks, and acts. Safety, in one sentence: a new
 * primary component is made only when every member (or, after an operator's explicit word, a majority) has just said that
 * it is in none and how far its data reaches, it is made by the one whose data reaches furthest, and all of those it heard have
 * voted for it in an epoch they give to nobody else. So a minority never makes one, and two are never made at once. */
#pragma once

#include "base/base.h"

#define GALERA_MEMBERS_MAX 9
#define GALERA_NAME_MAX	   64
#define GALERA_UUID_LEN	   36
#define GALERA_REASON_MAX  300

/* How a member says it is. Only moves along these arrows:
 *
 *   unknown -> empty | stopped         position read (RECOVER)
 *   empty | stopped -> starting        JOIN or BOOTSTRAP
 *   starting -> primary                took part in a primary component
 *   primary <-> non-primary            by Galera
 *   starting | non-primary | primary -> unknown   mariadbd ended
 */
enum galera_phase {
	GALERA_UNKNOWN, /* not heard of, or mariadbd is down and its position has not been read */
	GALERA_EMPTY,	/* mariadbd is down; no valid data: new, or a broken state transfer */
	GALERA_STOPPED, /* mariadbd is down; position known */
	GALERA_STARTING,
	GALERA_NON_PRIMARY,
	GALERA_PRIMARY,
};

struct galera_member {
	char name[GALERA_NAME_MAX];
	enum galera_phase phase;
	int64_t age_ms;			/* since it said so; own = 0; < 0 = never */
	char uuid[GALERA_UUID_LEN + 1]; /* history its data belongs to; "" = none */
	int64_t seqno;			/* last transaction it has */
	bool safe_to_bootstrap;		/* it was the last one to leave, in order */
	bool bootstrapping;		/* STARTING as the founder of a new primary component */
	int64_t component; /* PRIMARY: members in its component, as Galera counts them; 0 = not known */
};

struct galera_situation {
	struct galera_member
		members[GALERA_MEMBERS_MAX]; /* all that belong to the cluster, heard of or not */
	size_t n;
	size_t self;
	int64_t phase_ms; /* how long the own phase has lasted */
	int64_t calm_ms; /* how long no fresh member has been primary, and the set of fresh ones has been the same */
	int64_t stuck_ms; /* how long it has been PRIMARY without serving and without catching up */
	bool diverged;	  /* Galera refused to join because the own data reaches further than the cluster's */
	bool wedged;	  /* mariadbd said that it cannot go on without a restart, but did not end */
	bool broken;	  /* reading the own position failed again and again */
	bool override;	  /* the operator said: go on without the members that are missing */
};

/* Times of the rules; all in milliseconds. */
struct galera_times {
	int64_t fresh;	 /* what was said longer ago does not count */
	int64_t calm;	 /* so long Galera itself gets the chance to make the component whole again */
	int64_t restart; /* outside a primary component so long, although there is one: start again */
	int64_t orphan;	 /* joining so long although all say that there is no primary component: give up */
	int64_t promise; /* a vote binds so long against others when the one voted for cannot be heard */
};

extern const struct galera_times galera_times_default;

enum galera_action {
	GALERA_WAIT,	     /* stay as it is: down, or non-primary */
	GALERA_RECOVER,	     /* read the position of the data (mariadbd is down) */
	GALERA_BOOTSTRAP,    /* collect votes, then start mariadbd as founder */
	GALERA_PC_BOOTSTRAP, /* collect votes, then declare the running group primary */
	GALERA_JOIN,	     /* start mariadbd as a member of the others' group */
	GALERA_RUN,	     /* leave it alone */
	GALERA_RESTART,	     /* end mariadbd; what follows is decided when it is down */
	GALERA_SET_ASIDE,    /* keep the own data in another place and start empty */
};

struct galera_decision {
	enum galera_action action;
	char reason[GALERA_REASON_MAX]; /* one sentence for the operator */
};

struct galera_decision galera_decide(const struct galera_situation *s, const struct galera_times *t);

/* A vote: may `candidate` (an index) make a new primary component in `epoch`? */
struct galera_vote {
	uint64_t promised_epoch; /* highest this member ever voted in; 0 = none */
	size_t promised_to;	 /* index, with promised_epoch > 0 */
	int64_t promised_age_ms;
	size_t candidate;
	uint64_t epoch;
};

/* The answer of s->self; the reason is filled in both cases. The shell makes it durable before it answers. */
bool galera_grant(const struct galera_situation *s, const struct galera_times *t, const struct galera_vote *v,
		  char reason[GALERA_REASON_MAX]);
/* Votes a candidate needs, its own among them. */
size_t galera_votes_needed(const struct galera_situation *s);

const char *galera_phase_name(enum galera_phase p);
int galera_phase_parse(const char *name, enum galera_phase *ret); /* 0 or -EINVAL */
const char *galera_action_name(enum galera_action a);

#define GALERA_NO_UUID "00000000-0000-0000-0000-000000000000"
/* "UUID:SEQNO" as mariadbd prints it. An all-zero UUID gives "" and -1. 0 or -EINVAL. */
int galera_position_parse(const char *text, char ret_uuid[GALERA_UUID_LEN + 1], int64_t *ret_seqno);
/* Fills uuid, seqno and safe_to_bootstrap from the text of grastate.dat. 0 or -EINVAL. */
int galera_grastate_parse(const char *text, struct galera_member *m);
