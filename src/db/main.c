/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu db: PID 1 of a MariaDB container; supervises one member of a Galera cluster.
 *
 * Five times a second: what is known of all members -> core/galera's decision -> one action. The decision is logged when it
 * changes. A mariadbd that is in a primary component is left alone whatever else is away: peers, API, network. Ends on SIGTERM
 * after mariadbd has stopped in order. */
#include "db/internal.h"
#include "db/db.h"

#include <signal.h>

#define S(member) offsetof(struct db_settings, member)

static const struct setting settings[] = {
	{"name", SETTING_STRING, S(name), NULL, 0, 0, "NAME",
	 "this member; default $POD_NAME, then the host name"},
	{"address", SETTING_STRING, S(address), NULL, 0, 0, "IP",
	 "this member's address; default $POD_IP, then the first one of the host"},
	{"peers", SETTING_STRINGS, S(peers), NULL, 0, 0, "NAME=IP,...",
	 "all members; else they are the pods of the StatefulSet"},
	{"service", SETTING_STRING, S(service), NULL, 0, 0, "NAME",
	 "headless service of the StatefulSet: members are found by name, without the Kubernetes API"},
	{"members", SETTING_INT, S(members), "3", 1, GALERA_MEMBERS_MAX, "N", "replicas of the StatefulSet"},
	{"kubernetes", SETTING_BOOL, S(kubernetes), "true", 0, 0, NULL,
	 "use the Kubernetes API: state as annotations, events, addresses of members not named otherwise"},
	{"namespace", SETTING_STRING, S(ns), NULL, 0, 0, "NS",
	 "namespace; default $POD_NAMESPACE, then the pod's"},
	{"selector", SETTING_STRING, S(selector), "app=mariadb", 0, 0, "LABELS",
	 "labels of the members' pods"},
	{"cluster", SETTING_STRING, S(cluster), "kuayu", 0, 0, "NAME", "name of the Galera cluster"},
	{"data", SETTING_STRING, S(data), "/var/lib/mysql", 0, 0, "DIR", "where everything durable is"},
	{"run", SETTING_STRING, S(run_dir), "/run/mysqld", 0, 0, "DIR", "my.cnf and the socket"},
	{"secret-dir", SETTING_STRING, S(secret_dir), NULL, 0, 0, "DIR",
	 "files sst-password, user, password, database; else environment"},
	{"user", SETTING_STRING, S(user), "mysql", 0, 0, "USER", "who mariadbd runs as"},
	{"port", SETTING_INT, S(port), "3306", 1, 65535, "PORT", "MariaDB's port"},
	{"status-port", SETTING_INT, S(status_port), "9104", 1, 65535, "PORT",
	 "health, metrics and the supervisors' own talk"},
	{"buffer-pool", SETTING_INT, S(buffer_pool_mb), "64", 5, 1 << 20, "MIB", "InnoDB's buffer pool"},
	{"log-file", SETTING_INT, S(log_file_mb), "48", 4, 1 << 20, "MIB", "InnoDB's redo log"},
	{"gcache", SETTING_INT, S(gcache_mb), "128", 1, 1 << 20, "MIB",
	 "write sets kept for members that return (incremental instead of full state transfer)"},
	{"connections", SETTING_INT, S(connections), "200", 10, 100000, "N", "client connections"},
	{"keepalive", SETTING_DURATION, S(keepalive_ms), "200ms", 50, 60000, "TIME",
	 "between signs of life in the group"},
	{"suspect", SETTING_DURATION, S(suspect_ms), "2s", 200, 600000, "TIME",
	 "a member silent for so long is dropped when all others agree"},
	{"inactive", SETTING_DURATION, S(inactive_ms), "4s", 400, 600000, "TIME",
	 "a member silent for so long is dropped"},
	{"stop-time", SETTING_DURATION, S(stop_ms), "20s", 0, 0, "TIME",
	 "mariadbd is killed when it takes longer to stop"},
	KUBE_SETTINGS(struct db_settings, kube),
};

void db_set_phase(struct db *d, enum galera_phase phase)
{
	struct galera_member *own = db_own(d);

	if (own->phase == phase)
		return;
	log_info("phase %s -> %s", galera_phase_name(own->phase), galera_phase_name(phase));
	own->phase = phase;
	d->phase_since_ms = clock_ms();
}

struct galera_situation db_situation(struct db *d)
{
	struct galera_situation s = {.n = d->n,
				     .self = d->self,
				     .diverged = d->diverged,
				     .wedged = d->wedged,
				     .broken = d->unreadable >= DB_UNREADABLE};
	uint64_t now = clock_ms();

	for (size_t i = 0; i < d->n; i++) {
		s.members[i] = d->peers[i].m;
		s.members[i].age_ms = i == d->self		  ? 0
				      : d->peers[i].heard_ms == 0 ? -1
								  : (int64_t)(now - d->peers[i].heard_ms);
	}
	s.phase_ms = (int64_t)(now - d->phase_since_ms);
	s.calm_ms = (int64_t)(now - d->calm_since_ms);
	s.stuck_ms = (int64_t)(now - d->serving_ms);
	s.override = d->override_pod || now < d->override_until_ms;
	return s;
}

/* Restarts the calm when the set of fresh members or a phase changes, and while any is primary. */
static void update_calm(struct db *d)
{
	struct galera_situation s = db_situation(d);
	uint32_t signature = 1;

	for (size_t i = 0; i < s.n; i++) {
		bool fresh = s.members[i].age_ms >= 0 && s.members[i].age_ms <= galera_times_default.fresh;

		signature = signature * 16 + (fresh ? 1 + (uint32_t)s.members[i].phase : 0);
		if (fresh && s.members[i].phase == GALERA_PRIMARY)
			d->calm_since_ms = clock_ms();
	}
	if (signature != d->calm_signature) {
		d->calm_signature = signature;
		d->calm_since_ms = clock_ms();
	}
}

/* Joining (1) and joined (3) members catch up; a server that does not answer is left to readiness. */
static void update_serving(struct db *d)
{
	const struct db_sample *m = &d->sample;
	bool answers = clock_ms() - d->sample_ms <= (uint64_t)galera_times_default.fresh;

	if (db_own(d)->phase != GALERA_PRIMARY || !answers || m->ready || m->local_state == 1 ||
	    m->local_state == 3)
		d->serving_ms = clock_ms();
}

static void act(struct db *d, enum galera_action action)
{
	switch (action) {
	case GALERA_RECOVER:
		process_recover(d);
		break;
	case GALERA_JOIN:
		process_start(d, false);
		break;
	case GALERA_BOOTSTRAP:
	case GALERA_PC_BOOTSTRAP:
		peers_elect(d, action);
		break;
	case GALERA_SET_ASIDE:
		pods_event(d, "Warning", "DataSetAside", d->decision.reason);
		process_set_aside(d);
		break;
	case GALERA_RESTART:
		process_stop(d);
		break;
	case GALERA_WAIT:
	case GALERA_RUN:
		break;
	}
}

static struct galera_decision decide(struct db *d)
{
	struct galera_situation s = db_situation(d);
	struct galera_decision next = galera_decide(&s, &galera_times_default);

	if (next.action != d->decision.action || !streq(next.reason, d->decision.reason))
		log_info("%s: %s", galera_action_name(next.action), next.reason);
	d->decision = next;
	return next;
}

void db_elected(struct db *d, enum galera_action action)
{
	if (d->stopping)
		return;
	if (decide(d).action != action) {
		log_info("elected, but things have changed");
		return;
	}
	pods_event(d, "Normal", "PrimaryComponent", d->decision.reason);
	pods_override_used(d);
	d->override_until_ms = 0;
	if (action == GALERA_PC_BOOTSTRAP)
		watch_pc_bootstrap(d);
	else if (!process_running(d) && !process_busy(d))
		process_start(d, true);
}

static void on_tick(void *ctx)
{
	struct db *d = ctx;
	struct galera_decision next;

	process_reap_orphans(d);
	if (d->stopping) {
		if (!process_running(d))
			uv_stop(d->loop);
		return;
	}
	peers_tick(d);
	pods_tick(d);
	update_calm(d);
	update_serving(d);
	next = decide(d);
	if (process_running(d) || !process_busy(d))
		act(d, next.action);
}

static void on_stop(void *ctx)
{
	struct db *d = ctx;

	d->stopping = true;
	process_stop(d);
}

static int start(struct db *d, struct err *e)
{
	int r;

	if ((r = config_init(d, e)) < 0 || (r = peers_init(d, e)) < 0 || (r = state_load(d, e)) < 0)
		return r;
	d->box = mailbox_new(d->loop);
	process_init(d);
	watch_init(d);
	if ((r = config_write(d, e)) < 0 || (r = status_init(d, e)) < 0 || (r = pods_init(d, e)) < 0)
		return r;
	d->phase_since_ms = d->calm_since_ms = d->serving_ms = clock_ms();
	d->tick = timer_new(d->loop, on_tick, d);
	timer_start(d->tick, 0, DB_TICK_MS);
	stop_signals(d->loop, on_stop, d);
	log_info("member %s at %s of %zu; data in %s", d->s.name, d->s.address, d->n, d->s.data);
	return 0;
}

static void done(struct db *d)
{
	timer_free(d->tick);
	pods_done(d);
	status_done(d);
	peers_done(d);
	watch_done(d);
	process_done(d);
	if (d->box)
		mailbox_close(d->box);
	free(d->sst_password);
	free(d->app_user);
	free(d->app_password);
	free(d->app_database);
	free(d->data_dir);
	free(d->cnf);
	free(d->socket);
}

int cmd_db(int argc, char **argv)
{
	struct db d = {0};
	struct err e = {0};
	int r = settings_parse("db", "Supervises one MariaDB + Galera member (PID 1 of its container).",
			       settings, ARRAY_SIZE(settings), argc, argv, &d.s, NULL, &e);

	if (r != 0) {
		if (r < 0)
			fprintf(stderr, "kuayu db: %s\n", e.text);
		settings_done(settings, ARRAY_SIZE(settings), &d.s);
		return r < 0 ? 2 : 0;
	}
	log_init("db", LOG_LEVEL_INFO);
	d.loop = uv_default_loop();
	r = start(&d, &e);
	if (r == 0)
		uv_run(d.loop, UV_RUN_DEFAULT);
	else
		log_error("%s", e.text);
	done(&d);
	settings_done(settings, ARRAY_SIZE(settings), &d.s);
	return r == 0 ? 0 : 1;
}
