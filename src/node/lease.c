/* SPDX-License-Identifier: Apache-2.0 */
/* The node's Lease (kube-node-lease/NODE): renewed every second, with what this node hears of its peers. The time of SENDING of the last
 * renewal that the API acknowledged goes into the fence page; from it singletons are fenced (fence.h).
 *
 * A server that has lost its power answers nothing at all, and a renewal that hangs on it must not fence a healthy node. So each server
 * has a client of its own here: the nearest one that has lately answered is asked first; without an answer after HEDGE_MS the same renewal goes
 * to the next one, until all have been asked; a server with a renewal still out is asked last. Renewals may arrive late or twice: they
 * only say that this node lived when they were sent, and the time of sending is what counts here. */
#include "node/agent.h"

#include "model/model.h"

#define RENEW_MS	 1000
#define HEDGE_MS	 350
#define DISTRUST_MS	 5000 /* a server that failed is asked last for so long */
#define LEASE_DURATION_S 4
#define OUT_MAX		 8 /* renewals under way on one server */
#define LEASE_NS	 "kube-node-lease"
#define SERVERS_MAX	 9

struct server {
	struct kube *kube;
	int out;	    /* under way */
	uint64_t failed_ms; /* last failure; 0 = none since the last success */
	uint64_t asked;	    /* round in which it was asked last */
};

struct lease {
	struct agent *a;
	struct timer *timer, *hedge;
	struct server servers[SERVERS_MAX]; /* nearest first */
	size_t n;
	uint64_t round, answered; /* rounds begin at 1 */
	bool missing;		  /* has to be created */
	int failures;
};

struct renewal {
	struct lease *l;
	struct server *to;
	uint64_t sent_ms, round;
};

static const struct model_kind *leases_kind(void)
{
	return model_kind_by_plural("coordination.k8s.io", "v1", "leases");
}

static json_t *body_new(struct lease *l, bool whole)
{
	struct agent *a = l->a;
	_cleanup_json_ json_t *view = peers_view_new(a->peers);
	_cleanup_free_ char *text = js_text(view);
	char when[CLOCK_TEXT_MAX];
	json_t *o = json_pack("{s:{s:{s:s}},s:{s:s,s:i,s:s}}", "metadata", "annotations", "kuayu.io/peers",
			      text, "spec", "holderIdentity", a->s.name, "leaseDurationSeconds",
			      LEASE_DURATION_S, "renewTime", clock_text(when, clock_wall_us(), 6));

	if (whole) {
		json_object_set_new(o, "apiVersion", json_string("coordination.k8s.io/v1"));
		json_object_set_new(o, "kind", json_string("Lease"));
		(void)js_set_new(o, "metadata.name", json_string(a->s.name));
		(void)js_set_new(o, "metadata.namespace", json_string(LEASE_NS));
	}
	return o;
}

static void renewed(struct agent *a, uint64_t sent_ms)
{
	fence_renewed(a->fence, sent_ms);
	if (a->fenced && fence_decide(clock_ms(), fence_last(a->fence), NULL) == FENCE_RUN) {
		a->fenced = false;
		a->fence_ended_ms = clock_ms();
		log_info("lease renewed: singleton pods may run");
		pods_kick(a);
	}
}

/* ---- choice of the server ---- */

static bool worse(const struct server *a, const struct server *b, uint64_t now)
{
	bool distrust_a = a->failed_ms && now - a->failed_ms < DISTRUST_MS;
	bool distrust_b = b->failed_ms && now - b->failed_ms < DISTRUST_MS;

	return (a->out > 0) != (b->out > 0) ? a->out > 0 : distrust_a && !distrust_b;
}

/* The best one that has not been asked in this round; NULL = all have. Ties go to the nearer one. */
static struct server *pick(struct lease *l)
{
	struct server *best = NULL;

	for (size_t i = 0; i < l->n; i++) {
		struct server *s = &l->servers[i];

		if (s->asked != l->round && s->out < OUT_MAX && (!best || worse(best, s, clock_ms())))
			best = s;
	}
	return best;
}

static void ask(struct lease *l);

static void on_failed(struct lease *l, struct renewal *r, int status, json_t *body)
{
	if (status == 404) {
		l->missing = true;
		timer_start(l->timer, 20, RENEW_MS); /* at once, as a new object */
		return;
	}
	if (status == 409) {
		l->missing = false; /* made meanwhile */
		return;
	}
	r->to->failed_ms = clock_ms();
	if (l->failures++ == 0)
		log_warn("lease renewal failed: %d %s", status, js_str_or(body, "message", ""));
	if (r->round == l->round && l->answered != l->round)
		ask(l);
}

static void on_answer(void *ctx, int status, json_t *body)
{
	struct renewal *r = ctx;
	struct lease *l = r->l;

	r->to->out--;
	if (status == 200 || status == 201) {
		if (l->failures)
			log_info("lease renewed again after %d failures", l->failures);
		l->failures = 0;
		l->missing = false;
		l->answered = MAX(l->answered, r->round);
		r->to->failed_ms = 0;
		renewed(l->a, r->sent_ms);
	} else {
		on_failed(l, r, status, body);
	}
	free(r);
}

static void make_namespace(struct kube *kube)
{
	_cleanup_json_ json_t *ns = json_pack("{s:s,s:s,s:{s:s}}", "apiVersion", "v1", "kind", "Namespace",
					      "metadata", "name", LEASE_NS);

	kube_create(kube, model_kind_by_plural("", "v1", "namespaces"), NULL, ns, NULL, NULL);
}

/* Sends this round's renewal to the next server. */
static void ask(struct lease *l)
{
	struct server *s = pick(l);
	_cleanup_json_ json_t *body = NULL;
	struct renewal *r;

	if (!s)
		return;
	body = body_new(l, l->missing);
	r = xcalloc(1, sizeof(*r));
	r->l = l;
	r->to = s;
	r->round = s->asked = l->round;
	r->sent_ms = clock_ms();
	s->out++;
	timer_start(l->hedge, HEDGE_MS, 0);
	if (l->missing) {
		make_namespace(s->kube);
		kube_create(s->kube, leases_kind(), LEASE_NS, body, on_answer, r);
	} else {
		kube_patch(s->kube, leases_kind(), LEASE_NS, l->a->s.name, NULL, KUBE_PATCH_MERGE, body,
			   on_answer, r);
	}
}

static void on_hedge(void *ctx)
{
	struct lease *l = ctx;

	if (l->answered != l->round)
		ask(l);
}

static void on_due(void *ctx)
{
	struct lease *l = ctx;

	l->round++;
	ask(l);
}

void lease_renew(struct agent *a)
{
	if (a->lease)
		timer_start(a->lease->timer, 0, RENEW_MS);
}

/* One client a server; with a kubeconfig only, the agent's own client. */
static void make_clients(struct lease *l)
{
	struct kube_settings s = l->a->s.kube;
	struct err e = {0};

	for (char **url = l->a->s.kube.servers; url && *url && l->n < SERVERS_MAX; url++) {
		char *one[] = {*url, NULL};

		s.servers = one;
		if (kube_new(l->a->loop, &s, "kuayu-node-lease/" KUAYU_VERSION, &l->servers[l->n].kube, &e) ==
		    0)
			l->n++;
		else
			log_warn("client for lease renewals: %s", e.text);
	}
	if (l->n == 0)
		l->servers[l->n++].kube = l->a->kube;
}

struct lease *lease_new(struct agent *a)
{
	struct lease *l = xcalloc(1, sizeof(*l));

	l->a = a;
	make_clients(l);
	l->timer = timer_new(a->loop, on_due, l);
	l->hedge = timer_new(a->loop, on_hedge, l);
	timer_start(l->timer, 0, RENEW_MS);
	return l;
}
