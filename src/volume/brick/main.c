/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu brick: settings, start, the loop's ticks and the end. One process serves one data directory, all volumes that name its node.
 *
 * Threads: the loop thread owns everything; two threads talk to the store (store.c), libuv's pool makes compare-and-swaps, bstore has one for fsync. */
#include "volume/brick/internal.h"

#include <malloc.h>
#include <sys/stat.h>

#define CLIENT_QUEUE (8u << 20)
#define LEAVE_MS     2000 /* a planned stop hands over its groups; not longer */

static const struct setting table[] = {
	{"data", SETTING_STRING, offsetof(struct settings, data), NULL, 0, 0, "DIR", "where the data lies"},
	{"node", SETTING_STRING, offsetof(struct settings, node), NULL, 0, 0, "NAME", "name of this node"},
	{"domain", SETTING_STRING, offsetof(struct settings, domain), "default", 0, 0, "NAME",
	 "failure domain of this node: copies lie in different ones"},
	{"listen", SETTING_STRING, offsetof(struct settings, listen), "0.0.0.0:7710", 0, 0, "IP:PORT",
	 "address for clients and bricks"},
	{"advertise", SETTING_STRING, offsetof(struct settings, advertise), NULL, 0, 0, "IP:PORT",
	 "address that others reach it by; needed when --listen is 0.0.0.0"},
	{"store", SETTING_STRING, offsetof(struct settings, store), "$KUAYU_STORE", 0, 0, "URI",
	 "etcd:http://h1:2379,...: volumes, views and who is alive"},
	{"store-ca", SETTING_STRING, offsetof(struct settings, ca), NULL, 0, 0, "FILE", "CA of the store"},
	{"store-cert", SETTING_STRING, offsetof(struct settings, cert), NULL, 0, 0, "FILE",
	 "certificate for the store"},
	{"store-key", SETTING_STRING, offsetof(struct settings, key), NULL, 0, 0, "FILE", "its key"},
	{"metrics", SETTING_STRING, offsetof(struct settings, metrics), NULL, 0, 0, "IP:PORT",
	 "/metrics and /healthz; default: none"},
	{"run-dir", SETTING_STRING, offsetof(struct settings, run_dir), "/run/kuayu-brick", 0, 0, "DIR",
	 "on a tmpfs: tells a crash from a loss of power"},
	{"waiting-max", SETTING_INT, offsetof(struct settings, waiting), "64", 1, 4096, "N",
	 "operations of one connection in flight; beyond, it is not read from"},
	{"connections-max", SETTING_INT, offsetof(struct settings, connections), "4096", 16, 65536, "N",
	 "connections at once"},
	{"peer-queue", SETTING_INT, offsetof(struct settings, peer_queue_mib), "256", 8, 4096, "MIB",
	 "bytes that may wait for a brick before it is disconnected"},
	{"heal-window", SETTING_INT, offsetof(struct settings, heal_window), "16", 1, 64, "N",
	 "fetches in flight while no client is active; with clients, 4"},
	{"spin-us", SETTING_INT, offsetof(struct settings, spin_us), "0", 0, 1000, "US",
	 "after a frame, look for the next one this long before sleeping"},
	{"awake", SETTING_BOOL, offsetof(struct settings, awake), "true", 0, 0, NULL,
	 "while there is work, this machine's processors do not halt (root): quicker, above all in virtual "
	 "machines, at the price of power; --no-awake: they do"},
	{"heartbeat", SETTING_DURATION, offsetof(struct settings, heartbeat_ms), "50ms", 10, 5000, "TIME",
	 "primary to members"},
	{"suspect", SETTING_DURATION, offsetof(struct settings, suspect_ms), "300ms", 30, 60000, "TIME",
	 "silence after which a member or primary counts as lost"},
	{"read-lease", SETTING_DURATION, offsetof(struct settings, lease_ms), "200ms", 20, 60000, "TIME",
	 "how long a heartbeat's answer allows reading"},
	{"skew", SETTING_DURATION, offsetof(struct settings, skew_ms), "20ms", 1, 10000, "TIME",
	 "added to the leases of others"},
	{"ack-timeout", SETTING_DURATION, offsetof(struct settings, ack_ms), "1s", 50, 60000, "TIME",
	 "a member that has not acknowledged for this long leaves the in-sync set"},
	{"unsure-wait", SETTING_DURATION, offsetof(struct settings, unsure_ms), "10s", 100, 600000, "TIME",
	 "after a loss of power: wait for the others this long"},
	{"checkpoint", SETTING_DURATION, offsetof(struct settings, checkpoint_ms), "5s", 100, 600000, "TIME",
	 "at the latest"},
	{"checkpoint-size", SETTING_INT, offsetof(struct settings, checkpoint_mib), "256", 1, 65536, "MIB",
	 "of log, after which a checkpoint is made"},
	{"scrub-every", SETTING_DURATION, offsetof(struct settings, scrub_ms), "168h", 0, 0, "TIME",
	 "reads everything and compares checksums; 0 = never by itself"},
};

/* ---- what comes over connections ---- */

static void side_free(struct conn *c)
{
	early_done(c->owner);
	free(c->owner);
	c->owner = NULL;
}

static int hello_in(struct conn *c, const struct proto_head *h, const uint8_t *body, const char **why)
{
	struct brick *b = engine_ctx(c->en);
	struct proto_hello hello;
	struct side *side = c->owner;
	struct vol *v;

	if (h->type != FRAME_HELLO || proto_hello_decode(body, h->body_len, &hello) < 0 ||
	    hello.version != PROTO_VERSION) {
		*why = "no HELLO of this version";
		return -EBADMSG;
	}
	if (!side) {
		side = c->owner = xcalloc(1, sizeof(*side));
		side->b = b;
	}
	c->hello = hello;
	c->body_limit = PROTO_BODY_MAX;
	if (c->dialled) /* the answer to ours */
		return side->source ? heal_hello(c) : peer_hello(c, &hello, why);
	v = vol_by_tag(b, proto_volume_tag(&hello.volume));
	switch (hello.role) {
	case PROTO_SESSION:
		if (v && v->open) {
			hello_send(b, c, hello.role, h);
			return session_hello(c, v, &hello);
		}
		/* fall through */
	case PROTO_CLIENT:
		/* Answers to what it asked may be many and large: it is not read from while it does not take them. */
		c->pause_above = CLIENT_QUEUE;
		c->out_limit = CLIENT_QUEUE + (uint32_t)MIN(b->s.waiting, 256) * PROTO_PAYLOAD_MAX;
		if (!v || !v->open) {
			struct proto_head no = {
				.type = FRAME_HELLO, .flags = FRAME_ANSWER, .status = -ENODEV};
			const char *text = "this brick does not serve the volume";

			bconn_send(c, &no, text, strlen(text), NULL);
			c->hello.role = PROTO_ADMIN;
			return 0;
		}
		break;
	case PROTO_PEER:
		c->out_limit = (uint32_t)MIN((uint64_t)b->s.peer_queue_mib << 20, (uint64_t)UINT32_MAX);
		hello_send(b, c, hello.role, h);
		return peer_hello(c, &hello, why);
	default:
		c->pause_above = CLIENT_QUEUE;
		break;
	}
	hello_send(b, c, hello.role, h);
	return 0;
}

#define ROLE(r) (1u << (r))
#define ALL \
	(ROLE(PROTO_CLIENT) | ROLE(PROTO_SESSION) | ROLE(PROTO_PEER) | ROLE(PROTO_ADMIN) | ROLE(PROTO_PULL))

/* Who may ask what: docs/protocol/volume.md. */
static const uint32_t allowed[FRAME_LAST + 1] = {
	[FRAME_OP] = ROLE(PROTO_CLIENT) | ROLE(PROTO_SESSION) | ROLE(PROTO_PEER),
	[FRAME_REPL] = ROLE(PROTO_PEER),
	[FRAME_DELTA] = ROLE(PROTO_PULL),
	[FRAME_FETCH] = ROLE(PROTO_PULL) | ROLE(PROTO_PEER),
	[FRAME_PUSH] = 0,
	[FRAME_PING] = ROLE(PROTO_SESSION) | ROLE(PROTO_CLIENT) | ROLE(PROTO_PEER),
	[FRAME_ADMIN] = ALL,
	[FRAME_BAD_BLOCK] = ROLE(PROTO_CLIENT) | ROLE(PROTO_SESSION),
	[FRAME_EARLY] = ROLE(PROTO_PEER),
};

static int op_in(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
		 const char **why)
{
	struct side *side = c->owner;
	struct brick *b = side->b;
	int r;

	b->early = side->early;
	r = op_frame(c, h, body, payload, why);
	b->early = NULL;
	if (c->owner && side->early)
		early_end(side);
	return r;
}

static int on_frame(struct conn *c, const struct proto_head *h, const uint8_t *body, struct payload *payload,
		    const char **why)
{
	struct brick *b = engine_ctx(c->en);

	if (c->hello.role == 0)
		return hello_in(c, h, body, why);
	if (h->flags & FRAME_ANSWER) {
		if (h->type == FRAME_PUSH && c->hello.role == PROTO_SESSION)
			return session_frame(c, h, body, why);
		ask_answer(b, c, h, body, payload); /* one that is not waited for any more is dropped */
		return 0;
	}
	if (!(allowed[h->type] & ROLE(c->hello.role))) {
		*why = "a frame that this role may not send";
		return -EBADMSG;
	}
	switch (h->type) {
	case FRAME_OP:
		return op_in(c, h, body, payload, why);
	case FRAME_EARLY:
		return early_frame(c, h, body, why);
	case FRAME_REPL:
		return grp_on_msg(c, h, body, payload, why);
	case FRAME_DELTA:
		return source_delta(c, h, body, why);
	case FRAME_FETCH:
		return source_fetch(c, h, body, why);
	case FRAME_PING:
		return session_frame(c, h, body, why);
	case FRAME_BAD_BLOCK:
		return repair_frame(c, h, body, why);
	default:
		return admin_frame(c, h, body, why);
	}
}

static void on_opened(struct conn *c)
{
	struct side *side = c->owner;

	if (side->probe) /* it lives, or is dying and its listening socket goes last: then this ends with a reset */
		return;
	c->body_limit = PROTO_BODY_MAX;
	hello_send(side->b, c, side->source ? PROTO_PULL : PROTO_PEER, NULL);
}

static void on_closed(struct conn *c, int err, const char *why)
{
	struct brick *b = engine_ctx(c->en);
	struct side *side = c->owner;
	bool ended = err == 0 || err == -ECONNRESET || err == -EPIPE; /* by the other side */

	b->n.disconnects++;
	if (why) {
		b->n.bad_frames += err == -EBADMSG || err == -EMSGSIZE;
		log_warn("connection of %s %s closed: %s", c->hello.name[0] ? c->hello.name : "somebody",
			 c->peer, why);
	}
	asks_fail(b, c, err ? err : -ECONNRESET);
	if (!side)
		return;
	if (side->session)
		session_closed(side->session, err);
	if (side->source)
		heal_conn_closed(c);
	if (side->peer) {
		if (side->peer->link == c) {
			side->peer->link = NULL;
			side->peer->down_events++;
			if (!b->stopping)
				log_info("brick %s: disconnected%s%s", side->peer->name, err ? ": " : "",
					 err ? strerror(-err) : "");
			if (ended)
				peer_probe(b, side->peer, PEER_PROBES);
		}
		if (side->probe && err == -ECONNREFUSED)
			grp_peer_down(b, side->peer);
		else if (side->probe > 1 && !side->peer->link && ended)
			peer_probe(b, side->peer, (uint8_t)(side->probe - 1));
		if (side->peer->dialling == c)
			side->peer->dialling = NULL;
	}
	side_free(c);
}

/* Before anything goes out: the log. */
static int on_turn_end(void *ctx)
{
	struct brick *b = ctx;
	bool more = false;
	int ret = 0;

	for (struct vol *v = b->vols; v; v = v->next)
		if (v->open)
			more |= bstore_turn(v->store);
	grp_turn_roles(b);
	for (struct vol *v = b->vols; v; v = v->next) {
		int r;

		if (!v->open || !v->dirty)
			continue;
		v->dirty = false;
		r = bstore_flush(v->store);
		if (r < 0) {
			vol_failed(v, r, "cannot write the log");
			ret = r;
		}
	}
	if (ret < 0)
		return ret;
	grp_turn_answers(b);
	return more || b->ready != NULL;
}

/* What need not be done before: data that is in the log goes into its files. */
static void on_turn_sent(void *ctx)
{
	struct brick *b = ctx;

	for (struct vol *v = b->vols; v; v = v->next) {
		int r = v->open && !v->error ? bstore_settle_data(v->store) : 0;

		if (r < 0)
			vol_failed(v, r, "cannot write data");
	}
}

/* ---- ticks ---- */

static void on_tick(void *ctx)
{
	struct brick *b = ctx;
	uint64_t now = clock_ms();

	b->ticks++;
	awake_look(&b->awake, b->n.ops + b->records, now);
	vols_tick(b);
	links_tick(b);
	if (b->stop_ms && (grp_leave_all(b) || now - b->stop_ms > LEAVE_MS)) {
		b->stopping = true;
		uv_stop(b->loop);
	}
	if (b->ticks % 10 == 0)
		asks_fail(b, NULL, -ETIMEDOUT);
	if (b->ticks % 100 == 0) {
		admin_tick(b);
		for (struct conn *c = engine_first(b->engine), *next; c; c = next) {
			next = c->next;
			if (c->hello.role == 0 && uv_now(b->loop) - c->since_ms > HELLO_WAIT_MS)
				bconn_close(c, -ETIMEDOUT, NULL);
		}
	}
	if (b->ticks % 1000 == 0) {
		hist_turn(&b->latency);
		hist_turn(&b->sync_latency);
		for (struct vol *v = b->vols; v; v = v->next) {
			top_turn(&v->files);
			top_turn(&v->clients);
		}
	}
}

/* While frames come, the loop does not sleep: an idle handle makes libuv poll without waiting. */
static void on_spin(uv_idle_t *h)
{
	struct brick *b = h->data;
	uint64_t now = clock_us();

	if (engine_activity(b->engine) != b->spin_frames) {
		b->spin_frames = engine_activity(b->engine);
		b->spin_until_us = now + (uint64_t)b->s.spin_us;
	} else if (now >= b->spin_until_us) {
		uv_idle_stop(h);
		b->spinning = false;
	}
}

static void on_spin_check(uv_check_t *h)
{
	struct brick *b = h->data;

	if (b->spinning || engine_activity(b->engine) == b->spin_frames)
		return;
	b->spinning = true;
	b->spin_until_us = clock_us() + (uint64_t)b->s.spin_us;
	uv_idle_start(&b->spin, on_spin);
}

static void on_http(void *ctx, struct http_req *req)
{
	_cleanup_buf_ struct buf out = {0};

	if (streq(http_req_path(req), "/healthz")) {
		http_reply_text(req, 200, "ok");
	} else if (streq(http_req_path(req), "/metrics")) {
		metrics_text(ctx, &out);
		http_reply(req, 200, "text/plain; version=0.0.4", out.data, out.len, NULL);
	} else {
		http_reply_text(req, 404, "there are /healthz and /metrics");
	}
}

/* ---- life ---- */

static int split_address(const char *text, char *ip, size_t size, int *ret_port)
{
	const char *colon = strrchr(text, ':');
	int64_t port;

	if (!colon || (size_t)(colon - text) >= size || str_i64(colon + 1, &port) < 0 || port < 0 ||
	    port > 65535)
		return -EINVAL;
	memcpy(ip, text, (size_t)(colon - text));
	ip[colon - text] = 0;
	*ret_port = (int)port;
	return 0;
}

static bool name_ok(const char *s)
{
	size_t n = s ? strlen(s) : 0;

	return n > 0 && n < 64 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

static int check(const struct settings *s, struct err *e)
{
	char ip[64];
	int port;

	if (!s->data || !s->node || !s->store)
		return err_set(e, -EINVAL, "--data, --node and --store are needed");
	if (!name_ok(s->node) || !name_ok(s->domain))
		return err_set(e, -EINVAL,
			       "--node and --domain: letters, digits, '-', '_' and '.', at most 63");
	if (split_address(s->listen, ip, sizeof(ip), &port) < 0)
		return err_set(e, -EINVAL, "--listen: '%s' is not IP:PORT", s->listen);
	if (s->metrics && split_address(s->metrics, ip, sizeof(ip), &port) < 0)
		return err_set(e, -EINVAL, "--metrics: '%s' is not IP:PORT", s->metrics);
	if (s->advertise &&
	    (split_address(s->advertise, ip, sizeof(ip), &port) < 0 || strlen(s->advertise) >= 64))
		return err_set(e, -EINVAL, "--advertise: '%s' is not IP:PORT", s->advertise);
	if (!s->advertise && str_starts(s->listen, "0.0.0.0:"))
		return err_set(
			e, -EINVAL,
			"--advertise is needed when --listen is 0.0.0.0: how do others reach this brick?");
	if (s->skew_ms >= s->suspect_ms || s->lease_ms >= s->suspect_ms)
		return err_set(e, -EINVAL, "--read-lease and --skew must be shorter than --suspect");
	return 0;
}

static int start_http(struct brick *b, struct err *e)
{
	char ip[64];
	struct http_server_options o = {.address = ip, .handle = on_http, .ctx = b};

	if (!b->s.metrics)
		return 0;
	split_address(b->s.metrics, ip, sizeof(ip), &o.port);
	b->http = http_server_new(b->loop, &o, e);
	return b->http ? 0 : e->code ? e->code : -EIO;
}

/* A number that is greater at every start on this data directory, whatever the wall clock does. */
static int next_life(struct brick *b, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/life", b->s.data), *old = NULL, *text = NULL;
	uint64_t was = 0;
	size_t len;

	if (file_read(path, 64, &old, &len, NULL) == 0) {
		old[strcspn(old, "\n")] = 0;
		if (str_u64(old, &was) < 0)
			return err_set(e, -EBADMSG,
				       "%s is damaged: remove it when the machine's clock is right", path);
	}
	b->life = MAX((uint64_t)clock_wall_us(), was + 1);
	text = xasprintf("%llu\n", (unsigned long long)b->life);
	return file_write_atomic(path, text, strlen(text), 0600, e);
}

static int start(struct brick *b, struct err *e)
{
	struct store_options so = {.ca_file = b->s.ca, .cert_file = b->s.cert, .key_file = b->s.key};
	struct engine_options eo = {.loop = b->loop,
				    .events = {on_frame, on_opened, on_closed, on_turn_end, b, on_turn_sent,
					       early_part, early_place},
				    .connections_max = (uint32_t)b->s.connections};
	char ip[64];
	int r, port;

	b->awake = AWAKE_OFF;
	b->start_ms = clock_ms();
	random_bytes(&b->incarnation, sizeof(b->incarnation));
	r = dir_make(b->s.data, 0700, e);
	if (r == 0 && b->s.run_dir[0])
		r = dir_make(b->s.run_dir, 0700, e);
	if (r == 0)
		r = next_life(b, e);
	if (r == 0)
		r = store_open(b->s.store, &so, &b->store, e);
	if (r < 0)
		return r;
	b->mail = mailbox_new(b->loop);
	b->engine = engine_new(&eo);
	split_address(b->s.listen, ip, sizeof(ip), &port);
	r = engine_listen(b->engine, b->s.listen, port, e);
	if (r < 0)
		return r;
	b->port = r;
	if (b->s.advertise)
		snprintf(b->advertise, sizeof(b->advertise), "%s", b->s.advertise);
	else
		snprintf(b->advertise, sizeof(b->advertise), "%.50s:%d", ip, b->port);
	r = start_http(b, e);
	if (r < 0)
		return r;
	if (b->s.awake)
		awake_open(&b->awake);
	b->tick = timer_new(b->loop, on_tick, b);
	timer_start(b->tick, TICK_MS, TICK_MS);
	b->follower = follower_new(b);
	return 0;
}

static void start_spin(struct brick *b, uv_check_t *check)
{
	uv_idle_init(b->loop, &b->spin);
	uv_check_init(b->loop, check);
	b->spin.data = check->data = b;
	if (b->s.spin_us > 0)
		uv_check_start(check, on_spin_check);
}

static void on_stop(void *ctx)
{
	struct brick *b = ctx;

	log_info("stopping: groups are handed over");
	b->stop_ms = clock_ms();
	grp_leave_all(b);
}

/* Closed handles and last calls get a moment, bounded. */
static void drain_loop(uv_loop_t *loop, uint64_t ms)
{
	uint64_t until = clock_ms() + ms;

	while (clock_ms() < until && uv_run(loop, UV_RUN_NOWAIT))
		uv_sleep(5);
}

static void done(struct brick *b, uv_check_t *spin_check)
{
	b->stopping = true;
	b->follower = follower_free(b->follower);
	timer_free(b->tick);
	awake_close(&b->awake);
	vols_done(b);
	b->engine = engine_free(b->engine);
	uv_close((uv_handle_t *)&b->spin, NULL);
	uv_close((uv_handle_t *)spin_check, NULL);
	if (b->http)
		b->http = http_server_free(b->http);
	drain_loop(b->loop, 200);
	if (b->mail)
		mailbox_close(b->mail);
	drain_loop(b->loop, 20);
	links_done(b);
	ops_done(b);
	b->store = store_free(b->store);
}

int cmd_brick(int argc, char **argv)
{
	struct brick *b = xcalloc(1, sizeof(*b));
	uv_check_t spin_check;
	struct err e = {0};
	int r;

	r = settings_parse("brick", "Keeps copies of volumes' files on one data directory and serves them.",
			   table, ARRAY_SIZE(table), argc, argv, &b->s, NULL, &e);
	if (r == 0)
		r = check(&b->s, &e);
	if (r != 0) {
		if (r < 0)
			fprintf(stderr, "kuayu brick: %s\n", e.text);
		free(b);
		return r < 0 ? 2 : 0;
	}
	setenv("UV_THREADPOOL_SIZE", "8", 0); /* compare-and-swaps of many groups at once */
	mallopt(M_MMAP_THRESHOLD,
		32 << 20); /* payloads come from memory that is there already; more is refused */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	log_init("brick", LOG_LEVEL_INFO);
	b->loop = uv_default_loop();
	stop_signals(b->loop, on_stop, b);
	r = start(b, &e);
	start_spin(b, &spin_check);
	if (r < 0) {
		log_error("%s", e.text);
		return 1;
	}
	log_info("node %s in domain %s serves %s at %s, known as %s", b->s.node, b->s.domain, b->s.data,
		 b->s.listen, b->advertise);
	uv_run(b->loop, UV_RUN_DEFAULT);
	done(b, &spin_check);
	settings_done(table, ARRAY_SIZE(table), &b->s);
	free(b);
	return 0;
}
