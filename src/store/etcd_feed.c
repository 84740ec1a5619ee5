/* SPDX-License-Identifier: Apache-2.0 */
/* Watches of the etcd store. One stream, the feed, watches the whole key space and fills the hub; all watches of this
 * process hang on the hub. Because etcd gives every revision at least one event, a watch on everything sees each revision,
 * and that is what makes three promises cheap to keep:
 *   - progress: nothing happened on a prefix up to R, as soon as the feed has seen R. (etcd 3.4's own progress answers may
 *     run ahead of events still to be sent, etcd issue 15220, so their revision is never used.)
 *   - nothing skipped: a gap in the revisions is a loss (etcd before 3.5 can lose a delete made exactly at a compacted
 *     revision) and is told as -ESTALE, so that callers list again.
 *   - one place to reconnect: at the revision behind the last one seen.
 *
 * The stream asks for a leader ("hasleader"), so a member that was cut off from the majority ends it. The feed also sends a
 * progress request every PING_MS; SILENCE_MS without any message and it goes to the next endpoint: that is how a powered-off
 * machine is noticed. It also leaves an endpoint that others have marked (etcd.c) once another is up. When the preferred endpoint has been well for RETURN_MS the feed goes back to it. */
#include "store/etcd.h"

#define PING_MS		300
#define SILENCE_MS	1000
#define CONNECT_MS	1200 /* until the watch is created */
#define RETURN_MS	10000
#define PAUSE_MS	50
#define HISTORY_EVENTS	5000
#define HISTORY_WAIT_MS 1500 /* without a message */

static const char method_watch[] = "/etcdserverpb.Watch/Watch";

/* A watch on the whole key space from a revision. */
struct session {
	struct etcd *c;
	size_t ep;
	struct rpc_stream *st;
	bool created;
	uint64_t heard_ms, asked_ms, since_ms;
	struct err why;
};

static int send_request(struct session *w, const Etcd__WatchRequest *req)
{
	size_t len;
	_cleanup_free_ void *bytes = etcd_pack(&req->base, &len);
	int r = rpc_stream_send(w->st, bytes, len, CONNECT_MS);

	/* -EPIPE: the stream has ended; reading it tells why */
	return r == -EPIPE ? 0 : r;
}

static int session_begin(struct session *w, struct etcd *c, size_t ep, int64_t from)
{
	static const struct rpc_meta leader = {"hasleader", "true"};
	Etcd__WatchCreateRequest create = ETCD__WATCH_CREATE_REQUEST__INIT;
	Etcd__WatchRequest req = ETCD__WATCH_REQUEST__INIT;
	int r;

	*w = (struct session){.c = c, .ep = ep, .heard_ms = clock_ms(), .since_ms = clock_ms()};
	w->asked_ms = w->heard_ms;
	r = rpc_stream_new(c->ep[ep].ch, method_watch, &leader, 1, &w->st, &w->why);
	if (r < 0)
		return r;
	/* key and end of one zero byte: everything */
	create.key = create.range_end = (ProtobufCBinaryData){.data = (uint8_t *)"", .len = 1};
	create.start_revision = from;
	create.prev_kv = true;
	req.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
	req.create_request = &create;
	r = send_request(w, &req);
	if (r < 0)
		err_errno(&w->why, r, "%s: cannot ask for a watch", c->ep[ep].address);
	return r;
}

/* The next message with events, or a plain answer; -ETIMEDOUT = none yet. */
static int session_next(struct session *w, int64_t wait_ms, Etcd__WatchResponse **ret)
{
	struct rpc_reply reply;
	Etcd__WatchResponse *m;
	int r = rpc_stream_recv(w->st, wait_ms, &reply, &w->why);

	if (r == -ETIMEDOUT && reply.code == RPC_OK)
		return -ETIMEDOUT;
	if (r < 0)
		return -EAGAIN;
	m = etcd__watch_response__unpack(NULL, reply.len, (const uint8_t *)reply.data);
	rpc_reply_done(&reply);
	if (!m)
		return err_set(&w->why, -EAGAIN, "%s: watch answer not understood", w->c->ep[w->ep].address);
	w->heard_ms = clock_ms();
	if (m->created)
		w->created = true;
	if (m->canceled) {
		r = m->compact_revision > 0 ? -ESTALE : -EAGAIN;
		err_set(&w->why, r, "%s: watch ended: %s", w->c->ep[w->ep].address, m->cancel_reason);
		etcd__watch_response__free_unpacked(m, NULL);
		return r;
	}
	*ret = m;
	return 0;
}

static int session_ping(struct session *w)
{
	Etcd__WatchProgressRequest progress = ETCD__WATCH_PROGRESS_REQUEST__INIT;
	Etcd__WatchRequest req = ETCD__WATCH_REQUEST__INIT;

	w->asked_ms = clock_ms();
	req.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
	req.progress_request = &progress;
	return send_request(w, &req);
}

/* ---- the feed ---- */

/* Publishes each revision of a message. -ESTALE: there is a gap. */
static int publish(struct session *w, const Etcd__WatchResponse *m)
{
	struct hub *hub = w->c->store.hub;

	for (size_t at = 0; at < m->n_events;) {
		struct hub_events v = {0};
		int64_t last = hub_rev(hub), rev = etcd_events_to(m, &at, "", &v);
		struct hub_batch *b;

		if (rev != last + 1) {
			hub_events_done(&v);
			if (rev < 0)
				return err_set(&w->why, -EAGAIN, "watch event without a revision");
			if (rev <= last)
				continue; /* seen before */
			return err_set(&w->why, -ESTALE, "revisions %lld to %lld are missing",
				       (long long)last + 1, (long long)rev - 1);
		}
		b = hub_batch_new(rev, v.n);
		if (v.n)
			memcpy(b->ev, v.ev, v.n * sizeof(*v.ev));
		free(v.ev); /* the strings are the batch's now */
		hub_publish(hub, b);
	}
	return 0;
}

/* True when the feed should move: away from a marked endpoint, or back to one that comes before its own. */
static bool better_endpoint(const struct session *w)
{
	bool other, failed = etcd_has_failed(w->c, w->ep, &other);

	hub_set_reachable(w->c->store.hub, !failed);
	if (failed)
		return other;
	return clock_ms() - w->since_ms > RETURN_MS && etcd_pick(w->c) < w->ep;
}

static bool went_back(struct etcd *c)
{
	bool back;

	pthread_mutex_lock(&c->lock);
	back = c->went_back;
	pthread_mutex_unlock(&c->lock);
	return back;
}

static void set_feed_endpoint(struct etcd *c, int ep, struct rpc_stream *st)
{
	pthread_mutex_lock(&c->lock);
	c->feed_ep = ep;
	c->feed_stream = st;
	pthread_mutex_unlock(&c->lock);
}

/* Follows the stream until something is wrong; 0 = move or close, no fault of the endpoint. */
static int session_follow(struct session *w)
{
	while (!etcd_closing(w->c)) {
		Etcd__WatchResponse *m = NULL;
		uint64_t now = clock_ms();
		int r;

		if (now - w->heard_ms > (w->created ? SILENCE_MS : CONNECT_MS))
			return err_set(&w->why, -ETIMEDOUT, "%s: silent for %d ms", w->c->ep[w->ep].address,
				       (int)(now - w->heard_ms));
		if (w->created && now - w->asked_ms >= PING_MS) {
			if (session_ping(w) < 0)
				return err_set(&w->why, -ETIMEDOUT, "%s: takes no more requests",
					       w->c->ep[w->ep].address);
			if (went_back(w->c))
				return err_set(&w->why, -ESTALE,
					       "etcd's newest revision was %lld and is lower now",
					       (long long)hub_rev(w->c->store.hub));
			if (better_endpoint(w))
				return 0;
		}
		r = session_next(w, PING_MS / 2, &m);
		if (r == -ETIMEDOUT)
			continue;
		if (r < 0)
			return r;
		if (m->created)
			hub_set_reachable(w->c->store.hub, true);
		r = publish(w, m);
		etcd__watch_response__free_unpacked(m, NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Compacted, a gap, or a store that has lost its data: every watch is told to list again, and the feed starts at the newest revision. */
static void start_anew(struct etcd *c, int why)
{
	struct err e = {0};
	int64_t rev;

	while (!etcd_closing(c)) {
		if (etcd_revision(c, &rev, &e) == 0) {
			hub_reset(c->store.hub, rev, why);
			pthread_mutex_lock(&c->lock);
			c->went_back = false;
			pthread_mutex_unlock(&c->lock);
			return;
		}
		etcd_sleep(c, PAUSE_MS);
	}
}

void *etcd_feed_thread(void *arg)
{
	struct etcd *c = arg;

	start_anew(c, 0);
	while (!etcd_closing(c)) {
		size_t ep = etcd_pick(c);
		struct session w;
		int r = session_begin(&w, c, ep, hub_rev(c->store.hub) + 1);

		set_feed_endpoint(c, (int)ep, w.st);
		if (r == 0)
			r = session_follow(&w);
		set_feed_endpoint(c, -1, NULL);
		rpc_stream_free(w.st);
		hub_set_reachable(c->store.hub, false);
		if (etcd_closing(c))
			return NULL;
		if (r == -ESTALE) {
			log_warn("store: %s; watches must list again", w.why.text);
			start_anew(c, -ESTALE);
		} else if (r < 0) {
			etcd_failed(c, ep, w.why.text);
			etcd_sleep(c, PAUSE_MS);
		}
	}
	return NULL;
}

/* ---- history ---- */

/* Takes the events of one message; stops behind `to` or when out is full. 1 = goes on. */
static int collect(const Etcd__WatchResponse *m, const char *prefix, int64_t to, struct hub_events *out,
		   int64_t *next)
{
	for (size_t at = 0; at < m->n_events;) {
		int64_t rev = etcd_events_to(m, &at, prefix, out);

		if (rev < 0)
			return -EAGAIN;
		if (rev != *next)
			return -ESTALE;
		*next = rev + 1;
		if (rev >= to || out->n >= HISTORY_EVENTS)
			return 0;
	}
	return 1;
}

int etcd_history(void *ctx, const char *prefix, int64_t from, int64_t to, const bool *stop,
		 struct hub_events *out, int64_t *ret_next)
{
	struct etcd *c = ctx;
	size_t ep = etcd_pick(c);
	int64_t next = from;
	struct session w;
	int r = session_begin(&w, c, ep, from);

	for (r = r < 0 ? r : 1; r == 1;) {
		Etcd__WatchResponse *m = NULL;

		if (etcd_closing(c) || __atomic_load_n(stop, __ATOMIC_RELAXED)) {
			r = -ECANCELED;
			break;
		}
		if (clock_ms() - w.heard_ms > HISTORY_WAIT_MS) {
			r = -EAGAIN;
			break;
		}
		r = session_next(&w, PING_MS / 2, &m);
		if (r == 0) {
			r = collect(m, prefix, to, out, &next);
			etcd__watch_response__free_unpacked(m, NULL);
		} else if (r == -ETIMEDOUT) {
			r = 1;
		}
	}
	rpc_stream_free(w.st);
	if (r == -EAGAIN && next > from)
		r = 0; /* what came so far is whole */
	else if (r == -EAGAIN)
		etcd_failed(c, ep, w.why.text);
	if (r == 0)
		*ret_next = next;
	return r;
}
