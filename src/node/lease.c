/* SPDX-License-Identifier: Apache-2.0 */
/* The node's Lease (kube-node-lease/NODE): renewed every second, with what this node hears of its peers. The time of SENDING of the last
 * renewal that the API acknowledged goes into the fence page; from it singletons are fenced (fence.h). Several renewals may be under way:
 * a slow or dead server must not hold back the next try, which goes to another server. */
#include "node/agent.h"

#include "model/model.h"

#define RENEW_MS	 1000
#define LEASE_DURATION_S 4
#define IN_FLIGHT_MAX	 6
#define LEASE_NS	 "kube-node-lease"
#define CLIENTS_MAX	 5

struct lease {
	struct agent *a;
	struct timer *timer;
	int in_flight;
	struct kube *clients[CLIENTS_MAX]; /* a->kube first; the others begin with another server each */
	size_t n_clients, turn;
	bool missing; /* has to be created */
	int failures;
};

struct renewal {
	struct lease *l;
	uint64_t sent_ms;
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

static void on_answer(void *ctx, int status, json_t *body)
{
	struct renewal *r = ctx;
	struct lease *l = r->l;

	l->in_flight--;
	if (status == 200 || status == 201) {
		if (l->failures)
			log_info("lease renewed again after %d failures", l->failures);
		l->failures = 0;
		l->missing = false;
		renewed(l->a, r->sent_ms);
	} else if (status == 404) {
		const char *missing = js_str(body, "details.name");

		if (!l->missing || !streq(missing, LEASE_NS))
			timer_start(l->timer, 20, RENEW_MS);
		l->missing = true;
	} else if (status == 409) {
		l->missing = false; /* created meanwhile */
	} else if (l->failures++ == 0) {
		log_warn("lease renewal failed: %d %s", status, js_str_or(body, "message", ""));
	}
	free(r);
}

/* While an answer is still out after a second, the server may hang: the next renewal goes to another one. */
static struct kube *pick(struct lease *l)
{
	if (l->in_flight == 0)
		return l->clients[0];
	l->turn = (l->turn + 1) % l->n_clients;
	return l->clients[l->turn];
}

static void make_clients(struct lease *l)
{
	struct kube_settings s = l->a->s.kube;
	size_t n = strv_len(s.servers);
	struct err e = {0};

	l->clients[l->n_clients++] = l->a->kube;
	for (size_t i = 1; i < MIN(n, CLIENTS_MAX); i++) {
		char **servers = NULL;

		for (size_t k = 0; k < n; k++)
			servers = strv_add(servers, l->a->s.kube.servers[(i + k) % n]);
		s.servers = servers;
		if (kube_new(l->a->loop, &s, "kuayu-node-lease/" KUAYU_VERSION, &l->clients[l->n_clients],
			     &e) == 0)
			l->n_clients++;
		else
			log_warn("client for lease renewals: %s", e.text);
		strv_free(servers);
	}
}

static void make_namespace(struct lease *l)
{
	_cleanup_json_ json_t *ns = json_pack("{s:s,s:s,s:{s:s}}", "apiVersion", "v1", "kind", "Namespace",
					      "metadata", "name", LEASE_NS);

	kube_create(l->a->kube, model_kind_by_plural("", "v1", "namespaces"), NULL, ns, NULL, NULL);
}

static void on_due(void *ctx)
{
	struct lease *l = ctx;
	_cleanup_json_ json_t *body = NULL;
	struct renewal *r;
	struct kube *kube;

	if (l->in_flight >= IN_FLIGHT_MAX)
		return;
	timer_start(l->timer, RENEW_MS, RENEW_MS);
	body = body_new(l, l->missing);
	r = xcalloc(1, sizeof(*r));
	r->l = l;
	r->sent_ms = clock_ms();
	kube = pick(l);
	l->in_flight++;
	if (l->missing) {
		make_namespace(l);
		kube_create(kube, leases_kind(), LEASE_NS, body, on_answer, r);
	} else {
		kube_patch(kube, leases_kind(), LEASE_NS, l->a->s.name, NULL, KUBE_PATCH_MERGE, body,
			   on_answer, r);
	}
}

void lease_renew(struct agent *a)
{
	if (a->lease)
		timer_start(a->lease->timer, 0, RENEW_MS);
}

struct lease *lease_new(struct agent *a)
{
	struct lease *l = xcalloc(1, sizeof(*l));

	l->a = a;
	make_clients(l);
	l->timer = timer_new(a->loop, on_due, l);
	timer_start(l->timer, 0, RENEW_MS);
	return l;
}
