/* SPDX-License-Identifier: Apache-2.0 */
/* Peer heartbeats: a datagram to every other node each 200 ms, a note of when each was heard. What is heard goes into the Lease; it lets
 * the controller tell a dead node from one that is cut off from the API only.
 *
 * Datagram: "kuayu1 NAME" (text, at most 300 bytes). Accepted only from the InternalIP that the Node object of that name has; not
 * authenticated beyond that: a forger inside the network can at most delay a verdict. */
#include "node/agent.h"

#include <arpa/inet.h>

#define SEND_MS	  200
#define PREFIX	  "kuayu1 "
#define PEERS_MAX 1024

struct peer {
	char name[254];
	char address[INET_ADDRSTRLEN];
	uint64_t heard_ms; /* 0 = never */
	bool silent;
};

struct peers {
	struct agent *a;
	uv_udp_t udp;
	struct timer *timer;
	struct strmap *by_name;
	char chunk[512];
};

static const char *internal_ip(const json_t *node)
{
	json_t *x;
	size_t i;

	json_array_foreach (js_get(node, "status.addresses"), i, x)
		if (streq(js_str(x, "type"), "InternalIP"))
			return js_str(x, "address");
	return NULL;
}

static struct peer *peer_of(struct peers *p, const char *name)
{
	struct peer *x = strmap_get(p->by_name, name);

	if (!x && strmap_len(p->by_name) < PEERS_MAX) {
		x = xcalloc(1, sizeof(*x));
		snprintf(x->name, sizeof(x->name), "%s", name);
		strmap_set(p->by_name, name, x);
	}
	return x;
}

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *b)
{
	struct peers *p = h->data;

	(void)size;
	*b = uv_buf_init(p->chunk, sizeof(p->chunk) - 1);
}

static void on_datagram(uv_udp_t *u, ssize_t n, const uv_buf_t *b, const struct sockaddr *from,
			unsigned flags)
{
	struct peers *p = u->data;
	char address[INET_ADDRSTRLEN];
	struct peer *x;

	(void)flags;
	if (n <= (ssize_t)strlen(PREFIX) || !from || from->sa_family != AF_INET)
		return;
	b->base[n] = 0;
	if (!str_starts(b->base, PREFIX))
		return;
	x = strmap_get(p->by_name, b->base + strlen(PREFIX));
	inet_ntop(AF_INET, &((const struct sockaddr_in *)from)->sin_addr, address, sizeof(address));
	if (!x || !streq(x->address, address))
		return;
	x->heard_ms = clock_ms();
	if (x->silent) {
		x->silent = false;
		log_info("peer %s is heard again", x->name);
		lease_renew(p->a);
	}
}

static void ping(struct peers *p, const struct peer *x)
{
	struct sockaddr_in to;
	char text[300];
	uv_buf_t b = uv_buf_init(text, (unsigned)snprintf(text, sizeof(text), PREFIX "%s", p->a->s.name));

	if (uv_ip4_addr(x->address, (int)p->a->s.heartbeat_port, &to) < 0)
		return;
	(void)uv_udp_try_send(&p->udp, &b, 1, (struct sockaddr *)&to); /* lost ones are what this is about */
}

static void on_due(void *ctx)
{
	struct peers *p = ctx;
	uint64_t now = clock_ms();
	json_t *node;

	if (!p->a->nodes)
		return;
	kube_cache_foreach(p->a->nodes, node)
	{
		const char *name = js_str_or(node, "metadata.name", ""), *ip = internal_ip(node);
		struct peer *x;

		if (streq(name, p->a->s.name) || !ip)
			continue;
		x = peer_of(p, name);
		if (!x)
			continue;
		snprintf(x->address, sizeof(x->address), "%s", ip);
		ping(p, x);
		if (x->heard_ms && !x->silent && now - x->heard_ms > PEER_SILENT_MS) {
			x->silent = true;
			log_warn("peer %s is silent for %llu ms", x->name,
				 (unsigned long long)(now - x->heard_ms));
			lease_renew(p->a);
		}
	}
}

json_t *peers_view_new(const struct peers *p)
{
	json_t *o = json_object();
	uint64_t now = clock_ms();
	const char *name;
	struct peer *x;

	strmap_foreach (p->by_name, name, x) {
		if (p->a->nodes && kube_cache_synced(p->a->nodes) && !kube_cache_get(p->a->nodes, NULL, name))
			continue;
		if (x->heard_ms)
			json_object_set_new(o, name, json_integer((json_int_t)(now - x->heard_ms)));
	}
	return o;
}

struct peers *peers_new(struct agent *a, struct err *e)
{
	struct peers *p = xcalloc(1, sizeof(*p));
	struct sockaddr_in at;
	int r;

	p->a = a;
	p->by_name = strmap_new();
	r = uv_ip4_addr(a->s.address, (int)a->s.heartbeat_port, &at);
	if (r == 0)
		r = uv_udp_init(a->loop, &p->udp);
	if (r == 0)
		r = uv_udp_bind(&p->udp, (struct sockaddr *)&at, UV_UDP_REUSEADDR);
	p->udp.data = p;
	if (r == 0)
		r = uv_udp_recv_start(&p->udp, on_alloc, on_datagram);
	if (r < 0) {
		err_set(e, r, "heartbeats on %s:%d: %s", a->s.address, (int)a->s.heartbeat_port,
			uv_strerror(r));
		return NULL;
	}
	p->timer = timer_new(a->loop, on_due, p);
	timer_start(p->timer, SEND_MS, SEND_MS);
	return p;
}
