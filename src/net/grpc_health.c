/* SPDX-License-Identifier: Apache-2.0 */
/* The standard health service (gRPC health checking protocol, grpc.health.v1): the server's side, Check and Watch, and
 * the client's Check that probes use.
 *
 * A watch gets the present state at once and each change after it. A watch of an unknown service hears SERVICE_UNKNOWN and
 * waits, as the protocol says. Lock order: the health lock, then a stream's (inside rpc_out_write). `closed` of a stream
 * takes the health lock and is called by the server without the stream's. */
#include "net/grpc_server.h"

#include "health.pb-c.h"

#define SERVICE_NAME_MAX 256

struct health_watch {
	struct health_watch *next;
	struct rpc_health *health;
	struct rpc_out *out;
	char *service;
	int told;
};

void rpc_health_init(struct rpc_health *h)
{
	*h = (struct rpc_health){0};
	pthread_mutex_init(&h->lock, NULL);
}

void rpc_health_done(struct rpc_health *h)
{
	ensure(!h->watches); /* the server has closed them */
	for (size_t i = 0; i < h->n; i++)
		free(h->services[i].name);
	pthread_mutex_destroy(&h->lock);
}

static int status_of(const struct rpc_health *h, const char *service)
{
	for (size_t i = 0; i < h->n; i++)
		if (streq(h->services[i].name, service))
			return h->services[i].serving
				       ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
				       : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
	return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
}

static size_t pack_status(int status, uint8_t out[16])
{
	Grpc__Health__V1__HealthCheckResponse m = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	m.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
	return grpc__health__v1__health_check_response__pack(&m, out);
}

/* Under the lock. */
static void tell(struct health_watch *w)
{
	int status = status_of(w->health, w->service);
	uint8_t bytes[16];

	if (status == w->told)
		return;
	w->told = status;
	rpc_out_write(w->out, bytes, pack_status(status, bytes));
}

void rpc_health_set(struct rpc_health *h, const char *service, bool serving)
{
	size_t i = 0;

	pthread_mutex_lock(&h->lock);
	while (i < h->n && !streq(h->services[i].name, service))
		i++;
	if (i == h->n) {
		ensure(h->n < HEALTH_SERVICES_MAX);
		h->services[h->n++] = (struct health_service){.name = xstrdup(service)};
	}
	h->services[i].serving = serving;
	for (struct health_watch *w = h->watches; w; w = w->next)
		tell(w);
	pthread_mutex_unlock(&h->lock);
}

/* The name of the service asked for; NULL = not understood. Caller frees. */
static char *parse_request(const void *request, size_t len)
{
	Grpc__Health__V1__HealthCheckRequest *q =
		grpc__health__v1__health_check_request__unpack(NULL, len, request);
	char *service = q && strlen(q->service) < SERVICE_NAME_MAX ? xstrdup(q->service) : NULL;

	if (q)
		grpc__health__v1__health_check_request__free_unpacked(q, NULL);
	return service;
}

int rpc_health_unary(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct rpc_health *h = ctx;
	_cleanup_free_ char *service = parse_request(request, len);
	uint8_t bytes[16];
	int status;

	if (!service) {
		err_set(e, -EINVAL, "request not understood");
		return RPC_INVALID_ARGUMENT;
	}
	pthread_mutex_lock(&h->lock);
	status = status_of(h, service);
	pthread_mutex_unlock(&h->lock);
	if (status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN) {
		err_set(e, -ENOENT, "unknown service");
		return RPC_NOT_FOUND;
	}
	return buf_add(reply, bytes, pack_status(status, bytes)) < 0 ? RPC_INTERNAL : RPC_OK;
}

static void watch_closed(void *ctx)
{
	struct health_watch *w = ctx;
	struct rpc_health *h = w->health;

	pthread_mutex_lock(&h->lock);
	for (struct health_watch **p = &h->watches; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			h->n_watches--;
			break;
		}
	pthread_mutex_unlock(&h->lock);
	rpc_out_finish(w->out, RPC_CANCELLED, NULL);
	free(w->service);
	free(w);
}

void rpc_health_watch(void *ctx, struct rpc_out *out, const void *request, size_t len)
{
	struct rpc_health *h = ctx;
	char *service = parse_request(request, len);
	struct health_watch *w;
	bool room;

	if (!service) {
		rpc_out_finish(out, RPC_INVALID_ARGUMENT, "request not understood");
		return;
	}
	w = xcalloc(1, sizeof(*w));
	*w = (struct health_watch){.health = h, .out = out, .service = service, .told = -1};
	pthread_mutex_lock(&h->lock);
	room = h->n_watches < HEALTH_WATCHES_MAX;
	if (room) {
		w->next = h->watches;
		h->watches = w;
		h->n_watches++;
		tell(w);
	}
	pthread_mutex_unlock(&h->lock);
	if (room) { /* from here on watch_closed ends it, perhaps at once */
		rpc_out_on_closed(out, watch_closed, w);
		return;
	}
	rpc_out_finish(out, RPC_RESOURCE_EXHAUSTED, "too many watches");
	free(w->service);
	free(w);
}

/* ---- client ---- */

static int judge(const struct rpc_reply *reply, const char *service, struct err *e)
{
	Grpc__Health__V1__HealthCheckResponse *m = grpc__health__v1__health_check_response__unpack(
		NULL, reply->len, (const uint8_t *)reply->data);
	int status = m ? (int)m->status : -1;

	if (m)
		grpc__health__v1__health_check_response__free_unpacked(m, NULL);
	switch (status) {
	case GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING:
		return 0;
	case GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN:
		return err_set(e, -ENOENT, "service '%s' is not known there", service);
	case -1:
		return err_set(e, -EBADMSG, "health answer not understood");
	default:
		return err_set(e, -EHOSTDOWN, "service '%s' is not serving", service);
	}
}

int rpc_health_check(const char *target, const struct rpc_channel_options *tls, const char *service,
		     int64_t timeout_ms, struct err *e)
{
	struct rpc_channel_options o = tls ? *tls : (struct rpc_channel_options){0};
	Grpc__Health__V1__HealthCheckRequest q = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	uint8_t bytes[SERVICE_NAME_MAX + 16];
	struct rpc_channel *ch;
	struct rpc_reply reply;
	int r;

	if (strlen(service) >= SERVICE_NAME_MAX)
		return err_set(e, -EINVAL, "service name longer than %d bytes", SERVICE_NAME_MAX - 1);
	o.target = target;
	o.connect_timeout_ms = timeout_ms;
	r = rpc_channel_new(&o, &ch, e);
	if (r < 0)
		return r;
	q.service = (char *)service;
	r = rpc_call(ch, "/grpc.health.v1.Health/Check", NULL, 0, bytes,
		     grpc__health__v1__health_check_request__pack(&q, bytes), timeout_ms, &reply, e);
	if (r == 0)
		r = judge(&reply, service, e);
	rpc_reply_done(&reply);
	rpc_channel_free(ch);
	return r;
}
