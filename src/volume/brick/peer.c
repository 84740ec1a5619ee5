/* SPDX-License-Identifier: Apache-2.0 */
/* Other bricks. Two bricks have one link, whatever volumes they share: the one with the smaller name dials, again and again with a growing pause, and
 * both use it. A new link replaces an older one. Also: questions to bricks, each with one answer or one failure, bounded in time. */
#include "volume/brick/internal.h"

#define BACKOFF_MIN_MS 20
#define BACKOFF_MAX_MS 500
#define DIAL_LIMIT_MS  2000

struct peer *peer_get(struct brick *b, const char *name, bool make)
{
	struct peer *p;

	for (p = b->peers; p; p = p->next)
		if (streq(p->name, name))
			return p;
	if (!make)
		return NULL;
	p = xcalloc(1, sizeof(*p));
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->next = b->peers;
	b->peers = p;
	return p;
}

const char *peer_address(const struct peer *p)
{
	return p->address;
}

void peers_on_bricks(struct brick *b, const struct volcfg_brick *v, size_t n)
{
	for (struct peer *p = b->peers; p; p = p->next)
		p->registered = false;
	for (size_t i = 0; i < n; i++) {
		struct peer *p;

		if (streq(v[i].brick.name, b->s.node))
			continue;
		p = peer_get(b, v[i].brick.name, true);
		if (!streq(p->address, v[i].brick.address) || p->incarnation != v[i].incarnation) {
			p->dial_at_ms = p->backoff_ms = 0;
			if (p->dialling)
				bconn_close(p->dialling, -ESTALE, NULL);
		}
		/* It started anew: a link to its life of before may hang when that ended without a word (a loss of power). */
		if (p->link && p->incarnation != v[i].incarnation &&
		    p->incarnation == (p->link->hello.incarnation & INT64_MAX)) /* as it is registered */
			bconn_close(p->link, -ESTALE, NULL);
		p->registered = true;
		p->incarnation = v[i].incarnation;
		snprintf(p->address, sizeof(p->address), "%s", v[i].brick.address);
		snprintf(p->domain, sizeof(p->domain), "%s", v[i].brick.domain);
	}
}

void hello_send(struct brick *b, struct conn *c, enum proto_role role, const struct proto_head *asked)
{
	struct proto_hello me = {.version = PROTO_VERSION, .role = role, .incarnation = b->incarnation};
	struct proto_head h = {.type = FRAME_HELLO};

	if (asked) {
		h.flags = FRAME_ANSWER;
		h.request = asked->request;
	}
	snprintf(me.name, sizeof(me.name), "%s", b->s.node);
	snprintf(me.domain, sizeof(me.domain), "%s", b->s.domain);
	proto_hello_encode(&me, bconn_begin(c));
	bconn_end(c, &h, NULL);
}

/* Both sides said who they are. */
int peer_hello(struct conn *c, const struct proto_hello *h, const char **why)
{
	struct side *side = c->owner;
	struct brick *b = side->b;
	struct peer *p = side->peer;
	int order = strcmp(b->s.node, h->name);

	if (h->role != PROTO_PEER || order == 0 || (order < 0) != c->dialled) {
		*why = order == 0 ? "another brick with this brick's name"
				  : "not a brick, or it must not dial";
		return -EBADMSG;
	}
	if (p && !streq(p->name, h->name)) {
		*why = "another brick is at this address";
		p->dial_at_ms = clock_ms() + BACKOFF_MAX_MS;
		return -ESTALE;
	}
	if (!p)
		p = side->peer = peer_get(b, h->name, true);
	if (p->link && p->link != c)
		bconn_close(p->link, -ESTALE, NULL);
	p->link = c;
	p->dialling = NULL;
	p->backoff_ms = 0;
	c->out_limit = (uint32_t)MIN((uint64_t)b->s.peer_queue_mib << 20, (uint64_t)UINT32_MAX);
	log_info("brick %s: connected, %s", p->name, c->peer);
	return 0;
}

static void dial(struct brick *b, struct peer *p, uint64_t now)
{
	struct side *side = xcalloc(1, sizeof(*side));
	struct err e = {0};

	side->b = b;
	side->peer = p;
	b->n.dials++;
	p->backoff_ms = CLAMP(p->backoff_ms * 2, BACKOFF_MIN_MS, BACKOFF_MAX_MS);
	p->dial_at_ms = now + p->backoff_ms;
	p->dialling = engine_dial(b->engine, p->address, side, &e);
	if (!p->dialling)
		free(side);
}

/* The link ended in order or by a reset: when nobody listens at its address any more, its process is gone, and the groups need not wait to suspect it. */
void peer_probe(struct brick *b, struct peer *p, uint8_t tries)
{
	struct side *side;
	struct err e = {0};
	struct conn *c;

	if (b->stopping || !p->address[0])
		return;
	side = xcalloc(1, sizeof(*side));
	side->b = b;
	side->peer = p;
	side->probe = tries;
	c = engine_dial(b->engine, p->address, side, &e);
	if (!c)
		free(side);
	if (!c && e.code == -ECONNREFUSED)
		grp_peer_down(b, p);
	p->dial_at_ms = p->backoff_ms = 0;
}

void links_tick(struct brick *b)
{
	uint64_t now = clock_ms();

	for (struct peer *p = b->peers; p; p = p->next) {
		if (p->link || !p->address[0] || strcmp(b->s.node, p->name) > 0)
			continue;
		if (p->dialling && uv_now(b->loop) - p->dialling->since_ms > DIAL_LIMIT_MS)
			bconn_close(p->dialling, -ETIMEDOUT, NULL);
		if (!p->dialling && now >= p->dial_at_ms)
			dial(b, p, now);
	}
}

void links_done(struct brick *b)
{
	for (struct peer *p = b->peers, *next; p; p = next) {
		next = p->next;
		free(p);
	}
	b->peers = NULL;
}

/* ---- questions ---- */

uint64_t ask_send(struct brick *b, struct conn *c, struct proto_head *h, const void *body, size_t len,
		  ask_fn done, void *ctx)
{
	struct ask *a = xcalloc(1, sizeof(*a));

	*a = (struct ask){.c = c,
			  .request = ++b->next_request,
			  .until_ms = clock_ms() + ASK_TIMEOUT_MS,
			  .done = done,
			  .ctx = ctx};
	a->next = b->asks[a->request % ASK_BUCKETS];
	b->asks[a->request % ASK_BUCKETS] = a;
	b->n_asks++;
	h->request = a->request;
	bconn_send(c, h, body, len, NULL);
	return a->request;
}

bool ask_answer(struct brick *b, struct conn *c, const struct proto_head *h, const uint8_t *body,
		struct payload *payload)
{
	for (struct ask **at = &b->asks[h->request % ASK_BUCKETS]; *at; at = &(*at)->next) {
		struct ask *a = *at;

		if (a->request != h->request || a->c != c)
			continue;
		*at = a->next;
		b->n_asks--;
		a->done(a->ctx, h->status, h, body, payload);
		free(a);
		return true;
	}
	return false;
}

void asks_fail(struct brick *b, struct conn *c, int err)
{
	uint64_t now = clock_ms();
	struct ask *failed = NULL;

	for (size_t i = 0; i < ASK_BUCKETS && b->n_asks > 0; i++)
		for (struct ask **at = &b->asks[i]; *at;) {
			struct ask *a = *at;

			if (c ? a->c != c : now < a->until_ms) {
				at = &a->next;
				continue;
			}
			*at = a->next;
			b->n_asks--;
			a->next = failed;
			failed = a;
		}
	for (struct ask *a = failed, *next; a; a = next) {
		next = a->next;
		a->done(a->ctx, err, NULL, NULL, NULL);
		free(a);
	}
}
