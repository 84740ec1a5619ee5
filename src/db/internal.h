/* SPDX-License-Identifier: Apache-2.0 */
/* db: what the files of this room share. One struct db a process. Everything runs on the loop thread, except watch.c's thread,
 * which talks to MariaDB (blocking) and reports by mailbox.
 *
 *   main.c     settings, start, the tick: situation -> core/galera's decision -> action
 *   config.c   name, address, secrets, my.cnf
 *   process.c  mariadbd as a child: position, installation, start, stop, back-off
 *   watch.c    the wsrep state through the local socket; SQL for first users and for pc.bootstrap
 *   peers.c    the other supervisors: their states, and votes (asking for them, and giving)
 *   pods.c     the Kubernetes side: peers' addresses from their pods, own state as annotations, events, override
 *   status.c   HTTP: /readyz /healthz /metrics for Kubernetes, /state /vote /override for the others and the operator */
#pragma once

#include "core/galera/galera.h"
#include "io/io.h"
#include "kube/kube.h"
#include "net/http_client.h"
#include "net/http_server.h"

struct db_settings {
	char *name, *address, *data, *run_dir, *secret_dir, *cluster, *user;
	char **peers;
	bool kubernetes;
	char *ns, *selector, *service;
	int64_t members, port, status_port;
	int64_t buffer_pool_mb, log_file_mb, gcache_mb, connections;
	int64_t keepalive_ms, suspect_ms, inactive_ms, stop_ms;
	struct kube_settings kube;
};

#define DB_GROUP_PORT 4567
#define DB_IST_PORT   4568
#define DB_SST_PORT   4444
#define DB_POLL_MS    400
#define DB_TICK_MS    200
#define DB_UNREADABLE 3 /* so often, and the own data counts as broken */

/* What the watch thread saw last. */
struct db_sample {
	unsigned generation; /* of the mariadbd that was asked */
	bool ok;	     /* it answered */
	bool primary, ready;
	int local_state; /* 1 joining, 2 donor, 3 joined, 4 synced */
	char state_text[32];
	char uuid[GALERA_UUID_LEN + 1];
	int64_t seqno, cluster_size, recv_queue, send_queue, cert_failures, bf_aborts, replicated, received;
	double flow_paused;
	bool users_made; /* this time */
	char error[200];
};

struct db_peer {
	struct db *d;
	struct galera_member m; /* what it said last; own: kept here too */
	char host[128];		/* name or address it was given by; "" = by its pod */
	char address[64];	/* "" = not known */
	uv_getaddrinfo_t lookup;
	bool looking_up, fixed; /* host is an address */
	uint64_t looked_up_ms;
	uint64_t epoch;	   /* highest it has voted in */
	uint64_t heard_ms; /* clock_ms() when its last state was asked for; 0 = never */
	uint64_t asked_ms;
	struct http_call *call;
};

struct db {
	struct db_settings s;
	uv_loop_t *loop;
	struct mailbox *box;
	struct timer *tick;
	struct http_client *http;
	struct http_server *server;
	struct kube *kube;
	struct kube_cache *pods;
	json_t *published; /* annotations as last written */
	uint64_t published_ms;

	struct db_peer peers[GALERA_MEMBERS_MAX]; /* sorted by name, self among them */
	size_t n, self;
	char token[65]; /* supervisors show it to one another */
	char *sst_password, *app_user, *app_password, *app_database;
	char *data_dir, *cnf, *socket;
	uid_t uid;
	gid_t gid;

	/* own state */
	uint64_t phase_since_ms, calm_since_ms;
	uint64_t serving_ms; /* when it last served, caught up, or was not in a primary component */
	uint32_t calm_signature;
	bool diverged, wedged, stopping;
	int unreadable;		    /* times in a row that the position could not be read */
	uint64_t override_until_ms; /* by HTTP */
	bool override_pod;	    /* by annotation of the own pod */
	struct galera_decision decision;

	/* the promise of this member; durable in state.json */
	uint64_t promised_epoch, promised_at_ms;
	char promised_to
		[GALERA_NAME_MAX]; /* "" = used up: this member has been in a primary component since */
	char vote_reason[GALERA_REASON_MAX]; /* last told */

	struct db_election *election;
	uint64_t election_after_ms;

	struct db_process *process;
	struct db_watch *watch;
	struct db_sample sample;
	uint64_t sample_ms;
	uint64_t founded, joined, crashed, elections; /* counters */
};

static inline struct galera_member *db_own(struct db *d)
{
	return &d->peers[d->self].m;
}

/* ---- config.c ---- */
int config_init(struct db *d, struct err *e);
/* Writes my.cnf with the addresses known now. */
int config_write(struct db *d, struct err *e);
int config_give(const struct db *d, const char *path); /* chown to MariaDB's user */
int state_load(struct db *d, struct err *e);
int state_save(struct db *d, struct err *e);

/* ---- main.c ---- */
void db_set_phase(struct db *d, enum galera_phase phase);
struct galera_situation db_situation(struct db *d);
/* Called by peers.c when all votes for `action` are there. */
void db_elected(struct db *d, enum galera_action action);

/* ---- process.c ---- */
void process_init(struct db *d);
bool process_running(const struct db *d);
unsigned process_generation(const struct db *d);
bool process_busy(const struct db *d); /* reading the position, installing or backing off */
void process_recover(struct db *d);
void process_start(struct db *d, bool found);
void process_stop(struct db *d);
void process_set_aside(struct db *d);
void process_flush(struct db *d); /* the data's file system, after a start */
void process_reap_orphans(struct db *d);
void process_done(struct db *d);

/* ---- watch.c ---- */
void watch_init(struct db *d);
void watch_follow(struct db *d, bool running, unsigned generation);
void watch_make_users(struct db *d);
void watch_pc_bootstrap(struct db *d);
void watch_done(struct db *d);

/* ---- peers.c ---- */
int peers_init(struct db *d, struct err *e);
void peers_tick(struct db *d);
/* Takes a new address over; remembered for the next start. Not understood ones are ignored. */
void peers_address(struct db_peer *p, const char *address);
json_t *peers_state_new(struct db *d); /* own, as others read it */
void peers_elect(struct db *d, enum galera_action action);
/* This member is in a primary component: whoever its vote was for needs it no more. */
void peers_vote_used(struct db *d);
/* Gives or refuses this member's vote. 0 or -EINVAL (not understood). */
int peers_vote(struct db *d, const json_t *request, bool *ret_granted, char reason[GALERA_REASON_MAX]);
void peers_done(struct db *d);

/* ---- pods.c ---- */
int pods_init(struct db *d, struct err *e);
void pods_tick(struct db *d);
void pods_event(struct db *d, const char *type, const char *reason, const char *text);
void pods_override_used(struct db *d);
void pods_done(struct db *d);

/* ---- status.c ---- */
int status_init(struct db *d, struct err *e);
/* NULL = ready; else why not. */
const char *status_unready(struct db *d);
void status_done(struct db *d);
