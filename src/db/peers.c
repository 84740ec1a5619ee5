/* SPDX-License-Identifier: Apache-2.0 */
/* db: the other supervisors. Each is asked for its state every DB_POLL_MS over HTTP; a state is as old as the asking, not as the
 * answer. Votes: a candidate first votes for itself, then asks all it has heard lately; with all votes needed in one epoch it may
 * act. A vote is durable before it is given (state.json), so a restarted supervisor cannot give the same epoch twice.
 *
 * Nothing here needs the Kubernetes API: a cluster whose sites all lost power finds its most advanced member as soon as the
 * members reach one another, whether or not an API server is up yet. */
#include "db/internal.h"

#include <arpa/inet.h>
#include <netdb.h>

#define STATE_MAX	((size_t)65536)
#define CALL_MAX_MS	1000
#define ELECTION_MAX_MS 3000
#define ELECTION_GAP_MS 1000
#define LOOKUP_GAP_MS	1000

struct db_election {
	enum galera_action action;
	uint64_t epoch, until_ms;
	size_t needed, votes;
};

/* Ballots still on their way find another epoch, or no election, and count for nothing. */
static void election_end(struct db *d)
{
	free(d->election);
	d->election = NULL;
	d->election_after_ms = clock_ms() + ELECTION_GAP_MS;
}

/* ---- states ---- */

json_t *peers_state_new(struct db *d)
{
	const struct galera_member *m = db_own(d);
	json_t *j = json_object();

	json_object_set_new(j, "name", json_string(m->name));
	json_object_set_new(j, "cluster", json_string(d->s.cluster));
	json_object_set_new(j, "address", json_string(d->s.address));
	json_object_set_new(j, "phase", json_string(galera_phase_name(m->phase)));
	json_object_set_new(j, "uuid", json_string(m->uuid));
	json_object_set_new(j, "seqno", json_integer(m->seqno));
	json_object_set_new(j, "safeToBootstrap", json_boolean(m->safe_to_bootstrap));
	json_object_set_new(j, "bootstrapping", json_boolean(m->bootstrapping));
	json_object_set_new(j, "epoch", json_integer((json_int_t)d->promised_epoch));
	json_object_set_new(j, "state", json_string(d->sample.state_text));
	json_object_set_new(j, "clusterSize", json_integer(d->sample.cluster_size));
	json_object_set_new(j, "action", json_string(galera_action_name(d->decision.action)));
	json_object_set_new(j, "reason", json_string(d->decision.reason));
	return j;
}

static void take_state(struct db_peer *p, const json_t *j)
{
	struct galera_member m = {0};
	int64_t epoch = js_int(j, "epoch", 0);

	if (!streq(js_str(j, "cluster"), p->d->s.cluster) || !streq(js_str(j, "name"), p->m.name) ||
	    !js_str(j, "phase") || galera_phase_parse(js_str(j, "phase"), &m.phase) < 0)
		return;
	snprintf(m.name, sizeof(m.name), "%s", p->m.name);
	snprintf(m.uuid, sizeof(m.uuid), "%s", js_str_or(j, "uuid", ""));
	m.seqno = js_int(j, "seqno", -1);
	m.safe_to_bootstrap = js_bool(j, "safeToBootstrap", false);
	m.bootstrapping = js_bool(j, "bootstrapping", false);
	m.component = js_int(j, "clusterSize", 0);
	if (m.phase != p->m.phase)
		log_info("%s is %s", m.name, galera_phase_name(m.phase));
	p->m = m;
	p->epoch = (uint64_t)MAX(epoch, 0);
	p->heard_ms = p->asked_ms;
}

static void on_state(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct db_peer *p = ctx;
	_cleanup_json_ json_t *j = NULL;

	(void)text;
	p->call = NULL;
	if (status == 200 && js_parse_new(body, len, &j, NULL) == 0)
		take_state(p, j);
}

static void ask(struct db_peer *p, uint64_t now)
{
	_cleanup_free_ char *url =
		xasprintf("http://%s:%lld/state", p->address, (long long)p->d->s.status_port);
	struct http_call_options o = {.method = "GET",
				      .url = url,
				      .timeout_ms = CALL_MAX_MS,
				      .connect_timeout_ms = CALL_MAX_MS,
				      .answer_max = STATE_MAX,
				      .done = on_state,
				      .ctx = p};

	p->asked_ms = now;
	p->call = http_call_new(p->d->http, &o);
}

/* ---- addresses: a name is looked up again and again, for a pod may come back with another one ---- */

void peers_address(struct db_peer *p, const char *address)
{
	struct err e = {0};

	if (!address || !*address || strlen(address) >= sizeof(p->address) || streq(address, p->address))
		return;
	log_info("%s is at %s", p->m.name, address);
	snprintf(p->address, sizeof(p->address), "%s", address);
	if (state_save(p->d, &e) < 0)
		log_warn("%s", e.text);
}

static void on_lookup(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
	struct db_peer *p = req->data;
	char text[INET_ADDRSTRLEN];

	p->looking_up = false;
	if (status == 0 && list && list->ai_family == AF_INET &&
	    uv_ip4_name((const struct sockaddr_in *)(const void *)list->ai_addr, text, sizeof(text)) == 0)
		peers_address(p, text);
	uv_freeaddrinfo(list);
}

static void look_up(struct db_peer *p, uint64_t now)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};

	p->looked_up_ms = now;
	p->lookup.data = p;
	p->looking_up = uv_getaddrinfo(p->d->loop, &p->lookup, on_lookup, p->host, NULL, &hints) == 0;
}

void peers_tick(struct db *d)
{
	uint64_t now = clock_ms();

	for (size_t i = 0; i < d->n; i++) {
		struct db_peer *p = &d->peers[i];

		if (i != d->self && p->host[0] && !p->fixed && !p->looking_up &&
		    now - p->looked_up_ms >= LOOKUP_GAP_MS)
			look_up(p, now);
		if (i != d->self && p->address[0] && !p->call && now - p->asked_ms >= DB_POLL_MS)
			ask(p, now);
	}
	if (d->election && now >= d->election->until_ms) {
		log_info("not all votes came in epoch %llu", (unsigned long long)d->election->epoch);
		election_end(d);
	}
}

/* ---- voting ---- */

static size_t index_of(const struct db *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++)
		if (streq(d->peers[i].m.name, name))
			return i;
	return GALERA_MEMBERS_MAX;
}

static bool vote(struct db *d, size_t candidate, uint64_t epoch, bool override,
		 char reason[GALERA_REASON_MAX])
{
	struct galera_situation s = db_situation(d);
	struct galera_vote v = {.promised_epoch = d->promised_epoch,
				.promised_to = index_of(d, d->promised_to),
				.promised_age_ms = (int64_t)(clock_ms() - d->promised_at_ms),
				.candidate = candidate,
				.epoch = epoch};
	struct err e = {0};

	s.override = override;
	if (!galera_grant(&s, &galera_times_default, &v, reason))
		return false;
	d->promised_epoch = epoch;
	d->promised_at_ms = clock_ms();
	snprintf(d->promised_to, sizeof(d->promised_to), "%s", d->peers[candidate].m.name);
	if (state_save(d, &e) < 0) {
		snprintf(reason, GALERA_REASON_MAX, "no: cannot save the vote: %.200s", e.text);
		return false;
	}
	return true;
}

void peers_vote_used(struct db *d)
{
	struct err e = {0};

	if (!d->promised_to[0])
		return;
	d->promised_to[0] = 0;
	if (state_save(d, &e) < 0)
		log_warn("%s", e.text);
}

int peers_vote(struct db *d, const json_t *request, bool *ret_granted, char reason[GALERA_REASON_MAX])
{
	const char *candidate = js_str(request, "candidate");
	int64_t epoch = js_int(request, "epoch", 0);
	size_t i = candidate ? index_of(d, candidate) : GALERA_MEMBERS_MAX;

	if (i == GALERA_MEMBERS_MAX || epoch < 1)
		return -EINVAL;
	*ret_granted = vote(d, i, (uint64_t)epoch, js_bool(request, "override", false), reason);
	if (*ret_granted && i != d->self && d->election)
		election_end(d); /* late ballots of the own, older epoch must not count any more */
	log_info("vote for %s in epoch %lld: %s", candidate, (long long)epoch, reason);
	return 0;
}

/* One question of an election on its way. */
struct ballot {
	struct db *d;
	uint64_t epoch; /* the election it belongs to */
	size_t peer;
};

static void count_vote(struct db *d)
{
	struct db_election *el = d->election;
	enum galera_action action = el->action;

	if (++el->votes < el->needed)
		return;
	log_info("elected in epoch %llu with %zu votes", (unsigned long long)el->epoch, el->votes);
	election_end(d);
	db_elected(d, action);
}

static void on_ballot(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct ballot *b = ctx;
	struct db *d = b->d;
	const char *name = d->peers[b->peer].m.name;
	_cleanup_json_ json_t *j = NULL;

	if (d->election && d->election->epoch == b->epoch) {
		if (status == 200 && js_parse_new(body, len, &j, NULL) == 0 && js_bool(j, "granted", false))
			count_vote(d);
		else {
			log_info("no vote from %s: %s", name,
				 j	? js_str_or(j, "reason", "")
				 : text ? text
					: "");
			election_end(d);
		}
	}
	free(b);
}

static void ask_vote(struct db *d, size_t peer, const char *body)
{
	_cleanup_free_ char *url =
		xasprintf("http://%s:%lld/vote", d->peers[peer].address, (long long)d->s.status_port);
	_cleanup_free_ char *auth = xasprintf("Authorization: Bearer %s", d->token);
	struct ballot *b = xcalloc(1, sizeof(*b));
	struct http_call_options o = {.method = "POST",
				      .url = url,
				      .headers =
					      (const char *[]){auth, "Content-Type: application/json", NULL},
				      .body = body,
				      .body_len = strlen(body),
				      .timeout_ms = ELECTION_MAX_MS,
				      .connect_timeout_ms = CALL_MAX_MS,
				      .answer_max = STATE_MAX,
				      .done = on_ballot,
				      .ctx = b};

	*b = (struct ballot){d, d->election->epoch, peer};
	http_call_new(d->http, &o);
}

void peers_elect(struct db *d, enum galera_action action)
{
	struct galera_situation s = db_situation(d);
	uint64_t now = clock_ms(), epoch = d->promised_epoch;
	_cleanup_free_ char *body = NULL;
	char reason[GALERA_REASON_MAX];

	if (d->election || now < d->election_after_ms)
		return;
	for (size_t i = 0; i < d->n; i++)
		epoch = MAX(epoch, d->peers[i].epoch);
	epoch++;
	if (!vote(d, d->self, epoch, s.override, reason)) {
		if (!streq(reason, d->vote_reason))
			log_info("own vote: %s", reason);
		snprintf(d->vote_reason, sizeof(d->vote_reason), "%s", reason);
		d->election_after_ms = now + ELECTION_GAP_MS;
		return;
	}
	d->elections++;
	d->election = xcalloc(1, sizeof(*d->election));
	*d->election = (struct db_election){.action = action,
					    .epoch = epoch,
					    .until_ms = now + ELECTION_MAX_MS,
					    .needed = galera_votes_needed(&s)};
	body = xasprintf("{\"candidate\":\"%s\",\"epoch\":%llu,\"override\":%s}", db_own(d)->name,
			 (unsigned long long)epoch, s.override ? "true" : "false");
	for (size_t i = 0; i < d->n; i++)
		if (i != d->self && s.members[i].age_ms >= 0 &&
		    s.members[i].age_ms <= galera_times_default.fresh &&
		    !(s.override && s.members[i].phase == GALERA_UNKNOWN))
			ask_vote(d, i, body);
	count_vote(d);
}

/* ---- who they are ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct db_peer *)a)->m.name, ((const struct db_peer *)b)->m.name);
}

static int add_peer(struct db *d, const char *name, const char *host, struct err *e)
{
	struct db_peer *p = &d->peers[d->n];
	struct in_addr ignored;

	if (d->n == GALERA_MEMBERS_MAX)
		return err_set(e, -E2BIG, "more than %d members", GALERA_MEMBERS_MAX);
	if (!*name || strlen(name) >= GALERA_NAME_MAX || strlen(host) >= sizeof(p->host))
		return err_set(e, -EINVAL, "member '%s' at '%s': name or address too long", name, host);
	snprintf(p->m.name, sizeof(p->m.name), "%s", name);
	snprintf(p->host, sizeof(p->host), "%s", host);
	p->fixed = inet_pton(AF_INET, host, &ignored) == 1;
	if (p->fixed)
		snprintf(p->address, sizeof(p->address), "%s", host);
	p->m.seqno = -1;
	p->d = d;
	d->n++;
	return 0;
}

static int list_given(struct db *d, struct err *e)
{
	for (char **p = d->s.peers; *p; p++) {
		_cleanup_free_ char *name = xstrdup(*p);
		char *eq = strchr(name, '=');
		int r;

		if (!eq)
			return err_set(e, -EINVAL, "--peers=%s: wants NAME=ADDRESS", *p);
		*eq = 0;
		if ((r = add_peer(d, name, eq + 1, e)) < 0)
			return r;
	}
	return 0;
}

/* The pods of the StatefulSet: BASE-0 .. BASE-(members - 1); with --service found by name, BASE-0.SERVICE. */
static int list_pods(struct db *d, struct err *e)
{
	const char *dash = strrchr(d->s.name, '-');
	int base = dash ? (int)(dash - d->s.name) : 0, r = 0;

	if (!dash)
		return err_set(e, -EINVAL,
			       "without --peers, --name must be a StatefulSet's pod, like mariadb-0");
	for (int i = 0; i < d->s.members && r == 0; i++) {
		_cleanup_free_ char *name = xasprintf("%.*s-%d", base, d->s.name, i);
		_cleanup_free_ char *host =
			d->s.service ? xasprintf("%s.%s", name, d->s.service) : xstrdup("");

		r = add_peer(d, name, host, e);
	}
	return r;
}

int peers_init(struct db *d, struct err *e)
{
	struct http_client_options o = {0};
	int r = d->s.peers && d->s.peers[0] ? list_given(d, e) : list_pods(d, e);

	if (r < 0)
		return r;
	qsort(d->peers, d->n, sizeof(d->peers[0]), by_name);
	for (size_t i = 1; i < d->n; i++)
		if (streq(d->peers[i].m.name, d->peers[i - 1].m.name))
			return err_set(e, -EINVAL, "member %s is named twice", d->peers[i].m.name);
	d->self = index_of(d, d->s.name);
	if (d->self == GALERA_MEMBERS_MAX)
		return err_set(e, -EINVAL, "%s is not one of the members", d->s.name);
	d->http = http_client_new(d->loop, &o, e);
	return d->http ? 0 : -EIO;
}

void peers_done(struct db *d)
{
	d->http = http_client_free(d->http);
	free(d->election);
	d->election = NULL;
}
