/* SPDX-License-Identifier: Apache-2.0 */
/* The way back to the nearest API server. After a failure a client goes to the next server; without this it would stay there, in another
 * domain, and the next failure of that domain would hit it for no reason. While the server in use is not the first one, the first is asked for
 * /readyz every few seconds; after two good answers in a row calls and watches go back to it. Loop thread only. */
#include "kube/internal.h"

#define HOME_EVERY_MS 3000
#define HOME_ASK_MS   1000
#define HOME_GOOD     2

struct kube_home {
	struct kube *k;
	struct timer *timer;
	struct http_call *call;
	int good; /* answers in a row */
};

static void on_answer(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct kube_home *h = ctx;
	struct kube *k = h->k;
	struct kube_cache *next;
	size_t from = k->current;

	(void)body, (void)len, (void)text;
	h->call = NULL;
	h->good = status == 200 ? h->good + 1 : 0;
	if (h->good < HOME_GOOD || from == 0)
		return;
	h->good = 0;
	k->current = 0;
	log_info("API server %s: back to it", k->servers[0]);
	for (struct kube_cache *c = k->caches; c; c = next) {
		next = cache_next(c);
		cache_server_left(c, from);
	}
}

static void on_due(void *ctx)
{
	struct kube_home *h = ctx;
	_cleanup_free_ char *url = NULL;

	if (h->k->current == 0 || h->call) {
		h->good = h->call ? h->good : 0;
		return;
	}
	url = xasprintf("%s/readyz", h->k->servers[0]);
	h->call = http_call_new(h->k->http, &(struct http_call_options){.method = "GET",
									.url = url,
									.timeout_ms = HOME_ASK_MS,
									.connect_timeout_ms = HOME_ASK_MS,
									.done = on_answer,
									.ctx = h});
}

struct kube_home *kube_home_new(struct kube *k)
{
	struct kube_home *h = xcalloc(1, sizeof(*h));

	h->k = k;
	h->timer = timer_new(k->loop, on_due, h);
	if (k->n_servers > 1)
		timer_start(h->timer, HOME_EVERY_MS, HOME_EVERY_MS);
	return h;
}

struct kube_home *kube_home_free(struct kube_home *h)
{
	if (!h)
		return NULL;
	if (h->call)
		http_call_cancel(h->call);
	timer_free(h->timer);
	free(h);
	return NULL;
}
