/* SPDX-License-Identifier: Apache-2.0 */
/* Leader election by a Lease object, as Kubernetes' own controllers do it, with compare-and-swap by resourceVersion.
 *
 *   FOLLOWER --lease free, or unchanged for 4/5 of duration by the own clock--> update --200--> LEADER
 *   LEADER   --no renewal since 2/3 duration after the sending of the last one that succeeded--> FOLLOWER
 *
 * Nobody reads another's clock: a follower counts from the moment it SAW the lease change, a leader from the moment it
 * SENT the renewal, which is earlier. So a leader has stopped before anybody else can start, as long as clocks run
 * equally fast (the margin is 2/15 of duration, 400 ms of 3 s). A leader that was held up (a stopped process) finds out by
 * kube_leader_is, which looks at the clock. An update with unknown outcome is followed by a read. */
#include "kube/internal.h"

static const struct model_kind lease_kind = {.group = "coordination.k8s.io",
					     .version = "v1",
					     .kind = "Lease",
					     .plural = "leases",
					     .namespaced = true};

struct kube_leader {
	struct kube *k;
	char *ns, *name, *identity;
	int64_t duration_ms, renew_ms;
	struct kube_leader_options o;
	struct timer *tick, *limit;
	bool busy; /* a call is on its way */
	bool leading;
	bool freeing;  /* freed during a call: gives the lease up and goes when that has ended */
	json_t *lease; /* as last read or written; NULL = none */
	char *seen;    /* its resourceVersion */
	uint64_t seen_ms;
	uint64_t sent_ms;
	uint64_t limit_ms; /* leading ends here */
};

static void stop(struct kube_leader *l, const char *why)
{
	if (!l->leading)
		return;
	l->leading = false;
	timer_stop(l->limit);
	log_warn("no longer the leader of %s: %s", l->name, why);
	if (l->o.stopped)
		l->o.stopped(l->o.ctx);
}

static void on_limit(void *ctx)
{
	stop(ctx, "the lease could not be renewed in time");
}

static void take(struct kube_leader *l, json_t *lease)
{
	const char *rv = js_str_or(lease, "metadata.resourceVersion", "");

	if (!l->seen || !streq(l->seen, rv)) {
		free(l->seen);
		l->seen = xstrdup(rv);
		l->seen_ms = clock_ms();
	}
	json_decref(l->lease);
	l->lease = json_incref(lease);
}

/* The lease with us as its holder (holder "" gives it up). */
static json_t *lease_new(const struct kube_leader *l, const char *holder);

/* The end of a freed leader: gives the lease up if it is held. */
static void finish(struct kube_leader *l)
{
	if (l->leading && l->lease) {
		_cleanup_json_ json_t *lease = lease_new(l, "");

		kube_update(l->k, &lease_kind, NULL, lease, NULL, NULL);
	}
	timer_free(l->tick);
	timer_free(l->limit);
	json_decref(l->lease);
	free(l->seen);
	free(l->ns);
	free(l->name);
	free(l->identity);
	free(l);
}

static void on_written(void *ctx, int status, json_t *body)
{
	struct kube_leader *l = ctx;
	uint64_t limit;

	l->busy = false;
	if (status != 200 && status != 201) {
		log_debug("lease %s: write answered %d", l->name, status);
		json_decref(l->lease); /* read it again before the next write */
		l->lease = NULL;
		if (l->freeing) {
			finish(l);
			return;
		}
		timer_start(l->tick, l->leading ? 20 : backoff_ms(1), (uint64_t)l->renew_ms);
		return;
	}
	take(l, body);
	if (l->freeing) {
		finish(l);
		return;
	}
	limit = l->sent_ms + (uint64_t)l->duration_ms * 2 / 3;
	if (clock_ms() >= limit) { /* came too late to count */
		stop(l, "the renewal took too long");
		return;
	}
	l->limit_ms = limit;
	timer_start(l->limit, limit - clock_ms(), 0);
	if (l->leading)
		return;
	l->leading = true;
	log_info("leader of %s", l->name);
	if (l->o.started)
		l->o.started(l->o.ctx);
}

static void call(struct kube_leader *l, const char *method, const char *path, const json_t *body,
		 kube_done_fn done)
{
	l->busy = true;
	kube_call(l->k, &(struct kube_request){.method = method,
					       .path = path,
					       .body = body,
					       .timeout_ms = l->duration_ms * 2 / 3,
					       .attempt_ms = MAX(200, l->duration_ms / 4),
					       .again = true,
					       .done = done,
					       .ctx = l});
}

static json_t *lease_new(const struct kube_leader *l, const char *holder)
{
	json_t *lease =
		l->lease ? json_deep_copy(l->lease)
			 : json_pack("{s:s, s:s, s:{s:s, s:s}}", "apiVersion", "coordination.k8s.io/v1",
				     "kind", "Lease", "metadata", "namespace", l->ns, "name", l->name);
	bool ours = streq(js_str(lease, "spec.holderIdentity"), holder);
	char now[CLOCK_TEXT_MAX];

	clock_text(now, clock_wall_us(), 6);
	js_set_new(lease, "spec.holderIdentity", json_string(holder));
	js_set_new(lease, "spec.leaseDurationSeconds", json_integer(MAX(1, (l->duration_ms + 999) / 1000)));
	js_set_new(lease, "spec.renewTime", json_string(now));
	if (!ours) {
		js_set_new(lease, "spec.acquireTime", json_string(now));
		js_set_new(lease, "spec.leaseTransitions",
			   json_integer(js_int(lease, "spec.leaseTransitions", 0) + 1));
	}
	return lease;
}

static void write_lease(struct kube_leader *l)
{
	_cleanup_json_ json_t *lease = lease_new(l, l->identity);
	_cleanup_free_ char *path = kube_path(&lease_kind, l->ns, l->lease ? l->name : NULL, NULL);

	l->sent_ms = clock_ms();
	call(l, l->lease ? "PUT" : "POST", path, lease, on_written);
}

static void on_read(void *ctx, int status, json_t *body)
{
	struct kube_leader *l = ctx;
	const char *holder;

	l->busy = false;
	if (status == 404) {
		json_decref(l->lease);
		l->lease = NULL;
		write_lease(l);
		return;
	}
	if (status != 200 || !body) {
		log_debug("lease %s: read answered %d", l->name, status);
		return;
	}
	take(l, body);
	holder = js_str_or(l->lease, "spec.holderIdentity", "");
	if (streq(holder, l->identity)) {
		write_lease(l);
	} else {
		uint64_t free_ms = l->seen_ms + (uint64_t)l->duration_ms * 4 / 5, now = clock_ms();

		stop(l, "another one holds the lease");
		if (!*holder || now >= free_ms)
			write_lease(l);
		else if (free_ms - now < (uint64_t)l->renew_ms) /* look again in the very moment */
			timer_start(l->tick, free_ms - now + 1, (uint64_t)l->renew_ms);
	}
}

static void on_tick(void *ctx)
{
	struct kube_leader *l = ctx;
	_cleanup_free_ char *path = NULL;

	if (l->busy)
		return;
	if (l->leading && l->lease) {
		write_lease(l);
		return;
	}
	path = kube_path(&lease_kind, l->ns, l->name, NULL);
	call(l, "GET", path, NULL, on_read);
}

struct kube_leader *kube_leader_new(struct kube *k, const struct kube_leader_options *o)
{
	struct kube_leader *l = xcalloc(1, sizeof(*l));

	l->k = k;
	l->o = *o;
	l->ns = xstrdup(o->ns);
	l->name = xstrdup(o->name);
	l->identity = xstrdup(o->identity);
	l->duration_ms = o->duration_ms ? o->duration_ms : 3000;
	l->renew_ms = o->renew_ms ? o->renew_ms : 500;
	l->tick = timer_new(k->loop, on_tick, l);
	l->limit = timer_new(k->loop, on_limit, l);
	timer_start(l->tick, 0, (uint64_t)l->renew_ms);
	return l;
}

bool kube_leader_is(const struct kube_leader *l)
{
	return l->leading && clock_ms() < l->limit_ms;
}

struct kube_leader *kube_leader_free(struct kube_leader *l)
{
	if (!l)
		return NULL;
	timer_stop(l->tick);
	timer_stop(l->limit);
	l->freeing = true;
	if (l->leading && l->busy)
		return NULL;
	kube_cancel(l->k, l);
	finish(l);
	return NULL;
}
