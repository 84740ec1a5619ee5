/* SPDX-License-Identifier: Apache-2.0 */
/* etcd store: calls and failover. Endpoints are tried in the order given, the local one first. A call that fails or does
 * not answer within its try's time marks the endpoint and goes to the next at once; an endpoint that has lost quorum is
 * left like a dead one, because reads are linearizable and then do not answer. The minder asks marked endpoints twice a
 * second and brings those back that answer a linearizable read; it also asks the feed's endpoint each second, so that the
 * feed leaves a member that was cut off from the majority.
 *
 * A powered-off machine sends nothing, not even a reset. What notices it: the try's time (0.6 s), the feed's own pings on
 * its watch stream (etcd_feed.c), and TCP_USER_TIMEOUT, which the library sets from silence_ms, so that connections to a
 * dead machine do not linger. HTTP/2 keepalive alone could not do it: etcd cuts clients off that ping more often than
 * every 5 s unless it is started with --grpc-keepalive-min-time.
 *
 * Threads: calls from any thread, plus minder and feed. `lock` guards endpoints' marks and slots; no call runs under it. */
#include "store/etcd.h"

#include "base/hash.h"

#define RETRY_PAUSE_MS 50 /* after a round through all endpoints */
#define MINDER_MS      500
#define MINDER_TRY_MS  500
#define FEED_TRY_MS    900
#define KEEPALIVE_MS   5500 /* etcd's default lower limit is 5 s */
#define SILENCE_MS     1500
#define MESSAGE_MAX    ((size_t)256 << 20)
#define PAGE	       500 /* keys a range call */
#define RANGE_RESTARTS 3

static const char method_range[] = "/etcdserverpb.KV/Range";

uint64_t etcd_deadline(struct etcd *c)
{
	return clock_ms() + (uint64_t)c->store.timeout_ms;
}

bool etcd_closing(struct etcd *c)
{
	bool closing;

	pthread_mutex_lock(&c->lock);
	closing = c->closing;
	pthread_mutex_unlock(&c->lock);
	return closing;
}

void etcd_sleep(struct etcd *c, int64_t ms)
{
	uint64_t until = clock_ms() + (uint64_t)ms;
	struct timespec ts = {.tv_sec = (time_t)(until / 1000), .tv_nsec = (long)(until % 1000) * 1000000};

	pthread_mutex_lock(&c->lock);
	while (!c->closing && clock_ms() < until)
		pthread_cond_timedwait(&c->changed, &c->lock, &ts);
	pthread_mutex_unlock(&c->lock);
}

/* ---- endpoints ---- */

size_t etcd_pick(struct etcd *c)
{
	size_t best = 0;

	pthread_mutex_lock(&c->lock);
	for (size_t i = 1; i < c->n_ep; i++)
		if (c->ep[i].failed_ms < c->ep[best].failed_ms)
			best = i;
	pthread_mutex_unlock(&c->lock);
	return best;
}

void etcd_failed(struct etcd *c, size_t ep, const char *why)
{
	bool news;

	pthread_mutex_lock(&c->lock);
	news = !c->ep[ep].failed_ms;
	c->ep[ep].failed_ms = clock_ms();
	pthread_mutex_unlock(&c->lock);
	if (news)
		log_warn("store: leaving etcd endpoint %s: %s", c->ep[ep].address, why);
}

bool etcd_has_failed(struct etcd *c, size_t ep, bool *ret_other)
{
	bool failed;

	pthread_mutex_lock(&c->lock);
	failed = c->ep[ep].failed_ms != 0;
	*ret_other = false;
	for (size_t i = 0; i < c->n_ep; i++)
		if (i != ep && !c->ep[i].failed_ms)
			*ret_other = true;
	pthread_mutex_unlock(&c->lock);
	return failed;
}

static void endpoint_up(struct etcd *c, size_t ep)
{
	bool news;

	pthread_mutex_lock(&c->lock);
	news = c->ep[ep].failed_ms != 0;
	c->ep[ep].failed_ms = 0;
	pthread_mutex_unlock(&c->lock);
	if (news)
		log_info("store: etcd endpoint %s answers again", c->ep[ep].address);
}

/* What a status of etcd means to us. -EAGAIN: ask elsewhere. */
static int meaning(int code, const struct err *e)
{
	switch (code) {
	case RPC_UNAVAILABLE:
	case RPC_DEADLINE_EXCEEDED:
	case RPC_CANCELLED:
	case RPC_INTERNAL:
	case RPC_UNKNOWN:
	case RPC_ABORTED:
		return -EAGAIN;
	case RPC_OUT_OF_RANGE:
		return strstr(e->text, "compacted") ? -ESTALE : -EINVAL;
	case RPC_RESOURCE_EXHAUSTED:
		if (strstr(e->text, "space exceeded"))
			return -ENOSPC;
		return strstr(e->text, "larger than max") ? -EMSGSIZE : -EAGAIN;
	default:
		return rpc_errno(code);
	}
}

static int call_at(struct etcd *c, size_t ep, const char *method, const ProtobufCMessage *req,
		   const ProtobufCMessageDescriptor *type, int64_t timeout_ms, ProtobufCMessage **ret,
		   struct err *e)
{
	struct rpc_reply reply;
	struct err why = {0};
	size_t len;
	_cleanup_free_ void *bytes = etcd_pack(req, &len);
	int r = rpc_call(c->ep[ep].ch, method, NULL, 0, bytes, len, timeout_ms, &reply, &why);

	if (r == 0) {
		*ret = protobuf_c_message_unpack(type, NULL, reply.len, (const uint8_t *)reply.data);
		rpc_reply_done(&reply);
		return *ret ? 0 : err_set(e, -EBADMSG, "%s: answer not understood", c->ep[ep].address);
	}
	r = reply.code == RPC_OK ? r : meaning(reply.code, &why);
	return err_set(e, r, "etcd %s", why.text);
}

int etcd_try(struct etcd *c, const char *method, const ProtobufCMessage *req,
	     const ProtobufCMessageDescriptor *type, uint64_t deadline_ms, unsigned tries,
	     ProtobufCMessage **ret, struct err *e)
{
	uint64_t now = clock_ms();
	unsigned round = MIN(tries / (unsigned)c->n_ep, 3u);
	struct err why = {0};
	size_t ep;
	int r;

	if (tries && tries % c->n_ep == 0)
		etcd_sleep(c, RETRY_PAUSE_MS);
	if (now >= deadline_ms || etcd_closing(c)) {
		if (e && e->text[0])
			err_wrap(e, "etcd did not answer in time; last");
		else
			err_set(e, -ETIMEDOUT, "etcd did not answer in time");
		return -ETIMEDOUT;
	}
	ep = etcd_pick(c);
	r = call_at(c, ep, method, req, type, MIN((int64_t)(deadline_ms - now), ETCD_TRY_MS << round), ret,
		    &why);
	if (r == -EAGAIN)
		etcd_failed(c, ep, why.text);
	else
		endpoint_up(c, ep);
	return r < 0 ? err_set(e, r, "%s", why.text) : 0;
}

int etcd_call(struct etcd *c, const char *method, const ProtobufCMessage *req,
	      const ProtobufCMessageDescriptor *type, uint64_t deadline_ms, ProtobufCMessage **ret,
	      struct err *e)
{
	struct err why = {0};
	unsigned tries = 0;
	int r;

	do
		r = etcd_try(c, method, req, type, deadline_ms, tries++, ret, &why);
	while (r == -EAGAIN);
	if (r < 0 && e)
		*e = why;
	return r;
}

/* A linearizable read of nothing: answers only with a quorum behind it. */
static int ask(struct etcd *c, size_t ep, int64_t timeout_ms, int64_t *ret_rev, struct err *e)
{
	Etcd__RangeRequest req = ETCD__RANGE_REQUEST__INIT;
	ProtobufCMessage *m;
	int r;

	req.key = etcd_bytes(ETCD_MARKERS);
	req.count_only = true;
	r = call_at(c, ep, method_range, &req.base, &etcd__range_response__descriptor, timeout_ms, &m, e);
	if (r < 0)
		return r;
	*ret_rev = ((Etcd__RangeResponse *)m)->header ? ((Etcd__RangeResponse *)m)->header->revision : 0;
	protobuf_c_message_free_unpacked(m, NULL);
	return 0;
}

static void mind(struct etcd *c, size_t ep, bool feed_turn)
{
	struct err why = {0};
	int64_t rev, seen = hub_rev(c->store.hub);
	bool failed, feed;

	pthread_mutex_lock(&c->lock);
	failed = c->ep[ep].failed_ms != 0;
	feed = feed_turn && c->feed_ep == (int)ep;
	pthread_mutex_unlock(&c->lock);
	if (!failed && !feed)
		return;
	if (ask(c, ep, failed ? MINDER_TRY_MS : FEED_TRY_MS, &rev, &why) == 0) {
		endpoint_up(c, ep);
		if (rev < seen && rev < hub_rev(c->store.hub)) { /* the feed has not begun anew meanwhile */
			pthread_mutex_lock(&c->lock);
			c->went_back = true;
			pthread_mutex_unlock(&c->lock);
		}
	} else if (feed)
		etcd_failed(c, ep, why.text);
}

static void *minder_thread(void *arg)
{
	struct etcd *c = arg;

	for (unsigned turn = 0; !etcd_closing(c); turn++) {
		for (size_t i = 0; i < c->n_ep && !etcd_closing(c); i++)
			mind(c, i, turn % 2 == 0);
		etcd_sleep(c, MINDER_MS);
	}
	return NULL;
}

int etcd_revision(struct etcd *c, int64_t *ret, struct err *e)
{
	Etcd__RangeRequest req = ETCD__RANGE_REQUEST__INIT;
	ProtobufCMessage *m;
	int r;

	req.key = etcd_bytes(ETCD_MARKERS);
	req.count_only = true;
	r = etcd_call(c, method_range, &req.base, &etcd__range_response__descriptor, etcd_deadline(c), &m, e);
	if (r < 0)
		return r;
	*ret = ((Etcd__RangeResponse *)m)->header ? ((Etcd__RangeResponse *)m)->header->revision : 0;
	protobuf_c_message_free_unpacked(m, NULL);
	return *ret > 0 ? 0 : err_set(e, -EBADMSG, "etcd's answer has no revision");
}

/* ---- ranges ---- */

static int page_add(const Etcd__RangeResponse *m, const struct store_span *span, struct store_list *l,
		    bool first, struct err *e)
{
	if (!m->header || m->header->revision < 1)
		return err_set(e, -EBADMSG, "etcd's answer has no revision");
	if (first) {
		l->rev = span->rev ? span->rev : m->header->revision;
		l->count = m->count;
	}
	for (size_t i = 0; i < m->n_kvs; i++) {
		struct store_kv kv = {0};

		if (etcd_kv_to(m->kvs[i], &kv))
			*store_list_slot(l) = kv;
	}
	l->more = m->more;
	return 0;
}

/* One page behind what l holds already. *page shrinks when its answer is too big. 1 = there is more to fetch. */
static int range_page(struct etcd *c, const struct store_span *span, int64_t *page, uint64_t deadline_ms,
		      struct store_list *l, struct err *e)
{
	Etcd__RangeRequest req = ETCD__RANGE_REQUEST__INIT;
	bool first = !l->rev;
	int64_t want = span->limit ? MIN(*page, (int64_t)(span->limit - l->n)) : *page;
	ProtobufCMessage *m;
	int r;

	req.key = first ? etcd_bytes(span->begin) : etcd_bytes(l->kv[l->n - 1].key);
	if (!first)
		req.key.len++; /* the zero byte behind: the next possible key */
	if (!span->exact)
		req.range_end = span->end ? etcd_bytes(span->end)
					  : (ProtobufCBinaryData){.data = (uint8_t *)"", .len = 1};
	req.revision = first ? span->rev : l->rev;
	req.limit = want;
	r = etcd_call(c, method_range, &req.base, &etcd__range_response__descriptor, deadline_ms, &m, e);
	if (r == -EMSGSIZE && *page > 1) {
		*page /= 4;
		return 1;
	}
	if (r < 0)
		return r;
	r = page_add((Etcd__RangeResponse *)m, span, l, first, e);
	protobuf_c_message_free_unpacked(m, NULL);
	if (r < 0)
		return r;
	return l->more && l->n && !(span->limit && l->n >= span->limit);
}

static int etcd_range(struct store *s, const struct store_span *span, struct store_list *ret, struct err *e)
{
	struct etcd *c = etcd_of(s);
	uint64_t deadline = etcd_deadline(c);
	struct store_list l = {0};
	int64_t page = PAGE;
	int r;

	if (span->end && strcmp(span->begin, span->end) >= 0) { /* etcd refuses an empty range */
		r = etcd_revision(c, &ret->rev, e);
		ret->rev = span->rev ? span->rev : ret->rev;
		return r;
	}
	for (int restarts = 0;; restarts++) {
		while ((r = range_page(c, span, &page, deadline, &l, e)) == 1)
			;
		if (r == 0) {
			*ret = l;
			return 0;
		}
		store_list_done(&l);
		/* the newest state was compacted away between two pages: take the newer one */
		if (r != -ESTALE || span->rev || restarts == RANGE_RESTARTS)
			return r;
	}
}

/* ---- leases and compaction ---- */

static int etcd_lease_grant(struct store *s, int64_t ttl_s, int64_t *ret_id, struct err *e)
{
	struct etcd *c = etcd_of(s);
	Etcd__LeaseGrantRequest req = ETCD__LEASE_GRANT_REQUEST__INIT;
	ProtobufCMessage *m = NULL;
	int r;

	/* the id is ours, so that asking again after an unknown outcome finds the same lease */
	req.id = lease_new_id();
	req.ttl = ttl_s;
	r = etcd_call(c, "/etcdserverpb.Lease/LeaseGrant", &req.base, &etcd__lease_grant_response__descriptor,
		      etcd_deadline(c), &m, e);
	protobuf_c_message_free_unpacked(m, NULL);
	if (r < 0 && r != -EPERM && r != -EEXIST) /* "lease already exists": granted by the try before */
		return r;
	*ret_id = req.id;
	return 0;
}

static int keepalive_at(struct etcd *c, size_t ep, int64_t id, int64_t timeout_ms, struct err *e)
{
	static const struct rpc_meta leader = {"hasleader", "true"};
	Etcd__LeaseKeepAliveRequest req = ETCD__LEASE_KEEP_ALIVE_REQUEST__INIT;
	Etcd__LeaseKeepAliveResponse *m;
	struct rpc_reply reply = {0};
	struct rpc_stream *st;
	_cleanup_free_ void *bytes = NULL;
	size_t len;
	int r;

	req.id = id;
	bytes = etcd_pack(&req.base, &len);
	r = rpc_stream_new(c->ep[ep].ch, "/etcdserverpb.Lease/LeaseKeepAlive", &leader, 1, &st, e);
	if (r < 0)
		return -EAGAIN;
	r = rpc_stream_send(st, bytes, len, timeout_ms);
	if (r == 0 || r == -EPIPE)
		r = rpc_stream_recv(st, timeout_ms, &reply, e);
	rpc_stream_free(st);
	if (r < 0)
		return -EAGAIN;
	m = etcd__lease_keep_alive_response__unpack(NULL, reply.len, (const uint8_t *)reply.data);
	rpc_reply_done(&reply);
	r = !m ? -EAGAIN : m->ttl > 0 ? 0 : -ENOENT;
	if (r == -ENOENT)
		err_set(e, r, "lease %lld has ended", (long long)id);
	etcd__lease_keep_alive_response__free_unpacked(m, NULL);
	return r;
}

static int etcd_lease_keepalive(struct store *s, int64_t id, struct err *e)
{
	struct etcd *c = etcd_of(s);
	uint64_t deadline = etcd_deadline(c);
	struct err why = {0};
	int r = -EAGAIN;

	for (unsigned tries = 0; r == -EAGAIN; tries++) {
		size_t ep = etcd_pick(c);
		uint64_t now = clock_ms();

		if (now >= deadline)
			return err_set(e, -ETIMEDOUT, "lease not kept alive in time: %s", why.text);
		if (tries && tries % c->n_ep == 0)
			etcd_sleep(c, RETRY_PAUSE_MS);
		r = keepalive_at(c, ep, id, MIN((int64_t)(deadline - now), ETCD_TRY_MS), &why);
		if (r == -EAGAIN)
			etcd_failed(c, ep, why.text);
	}
	if (r < 0 && e)
		*e = why;
	return r;
}

static int etcd_lease_revoke(struct store *s, int64_t id, struct err *e)
{
	struct etcd *c = etcd_of(s);
	Etcd__LeaseRevokeRequest req = ETCD__LEASE_REVOKE_REQUEST__INIT;
	uint64_t deadline = etcd_deadline(c);
	ProtobufCMessage *m = NULL;
	struct err why = {0};
	unsigned tries = 0;
	int r;

	req.id = id;
	do
		r = etcd_try(c, "/etcdserverpb.Lease/LeaseRevoke", &req.base,
			     &etcd__lease_revoke_response__descriptor, deadline, tries++, &m, &why);
	while (r == -EAGAIN);
	protobuf_c_message_free_unpacked(m, NULL);
	if (r == -ENOENT && tries > 1)
		return 0; /* a try before has done it */
	if (r < 0 && e)
		*e = why;
	return r;
}

static int etcd_compact(struct store *s, int64_t rev, struct err *e)
{
	struct etcd *c = etcd_of(s);
	Etcd__CompactionRequest req = ETCD__COMPACTION_REQUEST__INIT;
	uint64_t deadline = etcd_deadline(c);
	ProtobufCMessage *m = NULL;
	struct err why = {0};
	unsigned tries = 0;
	int r;

	req.revision = rev;
	do
		r = etcd_try(c, "/etcdserverpb.KV/Compact", &req.base, &etcd__compaction_response__descriptor,
			     deadline, tries++, &m, &why);
	while (r == -EAGAIN);
	protobuf_c_message_free_unpacked(m, NULL);
	if (r == -ESTALE && tries > 1)
		r = 0; /* a try before has done it */
	if (r < 0) {
		if (e)
			*e = why;
		return r;
	}
	hub_compact(s->hub, rev);
	etcd_markers_clean(c, rev);
	return 0;
}

/* ---- opening and closing ---- */

static int etcd_watch_begin(struct store *s, struct err *e)
{
	struct etcd *c = etcd_of(s);
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (!c->feed_runs)
		r = -pthread_create(&c->feed, NULL, etcd_feed_thread, c);
	if (r == 0)
		c->feed_runs = true;
	pthread_mutex_unlock(&c->lock);
	return r < 0 ? err_errno(e, r, "cannot start the watch thread") : 0;
}

static void etcd_close(struct store *s)
{
	struct etcd *c = etcd_of(s);

	pthread_mutex_lock(&c->lock);
	c->closing = true;
	if (c->feed_stream)
		rpc_stream_cancel(c->feed_stream);
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	if (c->minder_runs)
		pthread_join(c->minder, NULL);
	if (c->feed_runs)
		pthread_join(c->feed, NULL);
	hub_free(s->hub);
	for (size_t i = 0; i < c->n_ep; i++) {
		rpc_channel_free(c->ep[i].ch);
		free(c->ep[i].address);
	}
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static const struct store_driver etcd_driver = {
	.close = etcd_close,
	.range = etcd_range,
	.txn = etcd_txn,
	.watch_begin = etcd_watch_begin,
	.lease_grant = etcd_lease_grant,
	.lease_keepalive = etcd_lease_keepalive,
	.lease_revoke = etcd_lease_revoke,
	.compact = etcd_compact,
};

static struct etcd *etcd_new(void)
{
	struct etcd *c = xcalloc(1, sizeof(*c));
	pthread_condattr_t ca;
	uint64_t instance;

	c->store.driver = &etcd_driver;
	c->feed_ep = -1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &ca);
	pthread_condattr_destroy(&ca);
	random_bytes(&instance, sizeof(instance));
	snprintf(c->instance, sizeof(c->instance), "%016llx", (unsigned long long)instance);
	c->store.hub = hub_new(&(struct hub_source){.history = etcd_history, .ctx = c}, 0, false);
	return c;
}

int etcd_open(const char *rest, const struct store_options *o, struct store **ret, struct err *e)
{
	_cleanup_strv_ char **addresses = NULL;
	struct etcd *c;
	bool tls;
	int r = etcd_parse_uri(rest, &addresses, &tls, e);

	if (r < 0)
		return r;
	if (!tls && (o->ca_file || o->cert_file))
		return err_set(e, -EINVAL,
			       "certificates are given but the etcd endpoints say http://; use https://");
	c = etcd_new();
	for (size_t i = 0; r == 0 && addresses[i]; i++) {
		const struct rpc_channel_options co = {.target = addresses[i],
						       .tls = tls,
						       .ca_file = o->ca_file,
						       .cert_file = o->cert_file,
						       .key_file = o->key_file,
						       .keepalive_ms = KEEPALIVE_MS,
						       .silence_ms = SILENCE_MS,
						       .message_max = MESSAGE_MAX,
						       .keep_connected = true};

		r = rpc_channel_new(&co, &c->ep[i].ch, e);
		if (r == 0) {
			c->ep[i].address = xstrdup(addresses[i]);
			c->n_ep++;
		}
	}
	if (r == 0) {
		r = -pthread_create(&c->minder, NULL, minder_thread, c);
		c->minder_runs = r == 0;
		if (r < 0)
			err_errno(e, r, "cannot start a thread");
	}
	if (r < 0) {
		etcd_close(&c->store);
		return r;
	}
	*ret = &c->store;
	return 0;
}
