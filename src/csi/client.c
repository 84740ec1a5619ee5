/* SPDX-License-Identifier: Apache-2.0 */
/* See csi.h. Calls wait in a queue that a few threads work off; each thread keeps nothing, so a driver that hangs costs one thread
 * until the time limit of that call. csi_free does not wait for threads: they hold the shared part (struct pool) together and the
 * last one lets it go; what they bring home after that is dropped. */
#include "csi/csi.h"

#include <pthread.h>

#define TIMEOUT_MS 30000
#define INFO_MS	   5000

struct call {
	struct call *next;
	struct pool *pool;
	enum csi_method method;
	void *bytes;
	size_t len;
	int64_t timeout_ms;
	void (*done)(void *ctx, const struct csi_result *r);
	void *ctx;
	/* the answer */
	struct csi_result result;
	struct csi_unpacked *hold;
	char name[128], version[64], node_id[256];
	struct err e;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct rpc_channel *ch;
	struct call *first, **last;
	size_t waiting;
	int users; /* threads and the client */
	bool closed;
	struct mailbox *home; /* under the lock; NULL when closed */
};

struct csi {
	struct pool *pool;
	char *endpoint;
};

static void call_free(struct call *c)
{
	csi_unpacked_free(c->hold);
	free(c->bytes);
	free(c);
}

/* Under the lock, which it lets go. */
static void pool_leave(struct pool *p)
{
	bool last = --p->users == 0;

	pthread_mutex_unlock(&p->lock);
	if (!last)
		return;
	while (p->first) {
		struct call *c = p->first;

		p->first = c->next;
		call_free(c);
	}
	rpc_channel_free(p->ch);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* ---- in a thread ---- */

static int ask(struct pool *p, const char *path, const void *bytes, size_t len, int64_t timeout_ms,
	       struct rpc_reply *reply, struct err *e)
{
	(void)rpc_call(p->ch, path, NULL, 0, bytes, len, timeout_ms, reply, e);
	return reply->code;
}

static int bad_answer(struct call *c, int r)
{
	if (r == 0)
		return RPC_OK;
	(void)err_set(&c->e, r, "the driver's answer cannot be read");
	return RPC_INTERNAL;
}

/* A driver that lacks a service does not offer what it would have been asked. */
static int run_info(struct call *c)
{
	static const char *const paths[] = {"/csi.v1.Identity/GetPluginInfo",
					    "/csi.v1.Controller/ControllerGetCapabilities",
					    "/csi.v1.Node/NodeGetCapabilities", "/csi.v1.Node/NodeGetInfo"};

	for (int i = 0; i < (int)ARRAY_SIZE(paths); i++) {
		struct rpc_reply reply;
		struct err e = {0};
		int code = ask(c->pool, paths[i], NULL, 0, INFO_MS, &reply, &e), r = 0;

		if (code == RPC_UNIMPLEMENTED && i > 0)
			continue;
		if (code != RPC_OK) {
			c->e = e;
			return code;
		}
		if (i == 0)
			r = csi_unpack_plugin_info(reply.data, reply.len, c->name, c->version);
		else if (i == 1)
			r = csi_unpack_controller_caps(reply.data, reply.len, &c->result);
		else if (i == 2)
			r = csi_unpack_node_caps(reply.data, reply.len, &c->result);
		else
			r = csi_unpack_node_info(reply.data, reply.len, c->node_id, &c->result.volumes_max);
		rpc_reply_done(&reply);
		if (r < 0)
			return bad_answer(c, r);
	}
	c->result.name = c->name;
	c->result.version = c->version;
	c->result.node_id = *c->node_id ? c->node_id : NULL;
	return RPC_OK;
}

static int run_one(struct call *c)
{
	struct rpc_reply reply;
	int code = ask(c->pool, csi_method_path(c->method), c->bytes, c->len, c->timeout_ms, &reply, &c->e);

	if (code == RPC_OK) {
		code = bad_answer(c, csi_unpack(c->method, reply.data, reply.len, &c->result, &c->hold));
		rpc_reply_done(&reply);
	}
	return code;
}

static void at_home(void *arg)
{
	struct call *c = arg;

	if (!c->pool->closed) /* written on this thread only */
		c->done(c->ctx, &c->result);
	call_free(c);
}

static void *run_thread(void *arg)
{
	struct pool *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->closed) {
		struct call *c = p->first;

		if (!c) {
			pthread_cond_wait(&p->wake, &p->lock);
			continue;
		}
		p->first = c->next;
		if (!p->first)
			p->last = &p->first;
		p->waiting--;
		pthread_mutex_unlock(&p->lock);
		c->result.code = c->method == CSI_INFO ? run_info(c) : run_one(c);
		c->result.text = c->e.text;
		pthread_mutex_lock(&p->lock);
		if (!p->home || mailbox_post(p->home, at_home, c) < 0)
			call_free(c);
	}
	pool_leave(p);
	return NULL;
}

/* ---- on the loop thread ---- */

int csi_new(uv_loop_t *loop, const char *endpoint, struct csi **ret, struct err *e)
{
	struct rpc_channel_options o = {.target = endpoint, .connect_timeout_ms = 2000};
	struct pool *p = xcalloc(1, sizeof(*p));
	struct csi *c;
	int r;

	r = rpc_channel_new(&o, &p->ch, e);
	if (r < 0) {
		free(p);
		return r;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	p->last = &p->first;
	p->home = mailbox_new(loop);
	p->users = 1;
	for (int i = 0; i < CSI_THREADS; i++) {
		pthread_t t;

		if (pthread_create(&t, NULL, run_thread, p) != 0)
			break;
		pthread_detach(t);
		p->users++;
	}
	c = xcalloc(1, sizeof(*c));
	c->pool = p;
	c->endpoint = xstrdup(endpoint);
	*ret = c;
	if (p->users == 1) {
		*ret = csi_free(c);
		return err_set(e, -EAGAIN, "cannot start a thread");
	}
	return 0;
}

struct csi *csi_free(struct csi *c)
{
	struct pool *p;
	struct mailbox *home;

	if (!c)
		return NULL;
	p = c->pool;
	pthread_mutex_lock(&p->lock);
	p->closed = true;
	home = take_ptr(p->home);
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	mailbox_close(home); /* drops the answers that wait: closed is set */
	pthread_mutex_lock(&p->lock);
	pool_leave(p);
	free(c->endpoint);
	free(c);
	return NULL;
}

void csi_call(struct csi *c, const struct csi_request *r)
{
	struct call *call = xcalloc(1, sizeof(*call));
	struct pool *p = c->pool;
	bool full;

	ensure(r->done);
	*call = (struct call){.pool = p,
			      .method = r->method,
			      .timeout_ms = r->timeout_ms ? r->timeout_ms : TIMEOUT_MS,
			      .done = r->done,
			      .ctx = r->ctx};
	if (r->method != CSI_INFO)
		call->bytes = csi_pack(r, &call->len);
	pthread_mutex_lock(&p->lock);
	full = p->waiting >= CSI_QUEUE_MAX;
	if (!full) {
		*p->last = call;
		p->last = &call->next;
		p->waiting++;
		pthread_cond_signal(&p->wake);
	}
	pthread_mutex_unlock(&p->lock);
	if (!full)
		return;
	call->result.code = RPC_RESOURCE_EXHAUSTED;
	call->result.text = "too many calls wait for the CSI driver";
	if (mailbox_post(p->home, at_home, call) < 0)
		call_free(call);
}

const char *csi_endpoint(const struct csi *c)
{
	return c->endpoint;
}
