/* SPDX-License-Identifier: Apache-2.0 */
/* haproxy.cfg (HAProxy 2.6). What each setting is for is said here and in docs/gateway.md.
 *
 * Time-outs. A long poll or a stream may be silent for long, so client, server and tunnel wait an hour; dead peers are found by other
 * means: servers by health checks (their sessions are ended then, see sessions.c), clients by TCP keep-alive. Connecting
 * may take 500 ms: twice a 200 ms jitter both ways, and also the pause before the same server is tried again.
 *
 * Retries. A request that could not be sent (connection refused or timed out) goes to another server, whatever it is. One that was
 * sent and not answered is sent again only if that is harmless: GET, HEAD, PUT, DELETE, OPTIONS, or any with the header
 * Idempotency-Key. */
#include "gateway/internal.h"

void haproxy_server(const struct exposure *x, const struct route_server *r, struct buf *out)
{
	/* Remote servers get one more chance before they count as dead: the links between domains jitter. */
	buf_addf(out,
		 "%sweight %d check inter 300ms fastinter 100ms downinter 300ms fall %d rise 2 observe "
		 "layer4 error-limit 1 "
		 "on-error fastinter pool-purge-delay 2s%s%s",
		 r->backup ? "backup " : "", r->weight, r->backup ? 3 : 2,
		 x->protocol == PROTOCOL_TCP ? " on-marked-down shutdown-sessions" : "",
		 x->protocol == PROTOCOL_H2 ? " proto h2" : "");
}

static void write_global(const struct haproxy_options *o, const char *hash, struct buf *out)
{
	buf_addf(out,
		 "# written by kuayu gateway; changes are lost\n"
		 "global\n"
		 "\tsetenv KUAYU_CONFIG %s\n"
		 "\tstats socket unix@%s/haproxy.sock mode 600 level admin expose-fd listeners\n"
		 "\tstats timeout 10s\n"
		 "\tserver-state-file %s/servers.state\n"
		 "\thard-stop-after %ds\n"
		 "\tnbthread %d\n"
		 "\tspread-checks 5\n"
		 "\ttune.bufsize 32768\n"
		 "\tmax-spread-checks 100ms\n",
		 hash, o->data, o->data, STOP_MS, o->threads);
	if (o->drop_rights)
		buf_adds(out, "\tuser haproxy\n\tgroup haproxy\n");
}

static void write_defaults(struct buf *out)
{
	buf_adds(out, "defaults\n"
		      "\tload-server-state-from-file global\n"
		      "\ttimeout connect 500ms\n"
		      "\ttimeout check 700ms\n"
		      "\ttimeout client 1h\n"
		      "\ttimeout server 1h\n"
		      "\ttimeout tunnel 1h\n"
		      "\ttimeout client-fin 10s\n"
		      "\ttimeout server-fin 10s\n"
		      "\ttimeout queue 5s\n"
		      "\ttimeout http-request 10s\n"
		      "\ttimeout http-keep-alive 75s\n"
		      "\tretries 5\n"
		      "\toption redispatch 1\n"
		      "\toption idle-close-on-response\n"
		      "\toption allbackups\n"
		      "\toption clitcpka\n"
		      "\tclitcpka-idle 5s\n"
		      "\tclitcpka-intvl 2s\n"
		      "\tclitcpka-cnt 3\n"
		      "\toption srvtcpka\n"
		      "\tsrvtcpka-idle 2s\n"
		      "\tsrvtcpka-intvl 1s\n"
		      "\tsrvtcpka-cnt 3\n");
}

static void write_frontend(const struct exposure *x, const struct haproxy_options *o, struct buf *out)
{
	bool v6 = strchr(o->address, ':') != NULL;

	buf_addf(out, "frontend %s\n\tmode %s\n\tbind %s%s%s:%d%s\n", x->name,
		 x->protocol == PROTOCOL_TCP ? "tcp" : "http", v6 ? "[" : "", o->address, v6 ? "]" : "",
		 x->port, x->protocol == PROTOCOL_H2 ? " proto h2" : "");
	if (x->protocol != PROTOCOL_TCP)
		buf_adds(out, "\toption forwardfor\n");
	buf_addf(out, "\tdefault_backend %s\n", x->name);
}

static void write_http(const struct exposure *x, struct buf *out)
{
	buf_adds(out, "\tmode http\n"
		      "\thttp-reuse safe\n"
		      "\tretry-on conn-failure empty-response 0rtt-rejected response-timeout 503\n"
		      "\thttp-request disable-l7-retry unless { method GET HEAD PUT DELETE OPTIONS } or "
		      "{ req.hdr(idempotency-key) -m found }\n");
	if (x->response_timeout_ms)
		buf_addf(out, "\ttimeout server %lldms\n", (long long)x->response_timeout_ms);
	if (x->health_path && x->protocol == PROTOCOL_HTTP)
		buf_addf(
			out,
			"\toption httpchk\n\thttp-check send meth GET uri %s ver HTTP/1.1 hdr Host gateway\n",
			x->health_path);
}

static void write_backend(const struct exposure *x, struct buf *out)
{
	buf_addf(out, "backend %s\n", x->name);
	if (x->protocol == PROTOCOL_TCP)
		buf_adds(out, "\tmode tcp\n");
	else
		write_http(x, out);
	if (x->affinity)
		buf_adds(out, "\tbalance source\n\thash-type consistent\n");
	else
		buf_addf(out, "\tbalance %s\n", x->protocol == PROTOCOL_TCP ? "leastconn" : "roundrobin");
}

static void write_servers(const struct exposure *x, struct buf *out)
{
	for (size_t i = 0; i < x->plan.n; i++) {
		const struct route_server *r = &x->plan.v[i];

		buf_addf(out, "\tserver %s %s:%d ", r->name, r->address, r->port);
		haproxy_server(x, r, out);
		buf_adds(out, "\n");
	}
}

static void write_all(const struct exposures *x, const struct haproxy_options *o, const char *hash,
		      bool servers, struct buf *out)
{
	write_global(o, hash, out);
	write_defaults(out);
	for (size_t i = 0; i < x->n; i++) {
		write_frontend(&x->v[i], o, out);
		write_backend(&x->v[i], out);
		if (servers)
			write_servers(&x->v[i], out);
	}
}

void haproxy_hash(const struct exposures *x, const struct haproxy_options *o, char ret_hash[17])
{
	_cleanup_buf_ struct buf out = {0};

	write_all(x, o, "", false, &out);
	snprintf(ret_hash, 17, "%016llx", (unsigned long long)hash_fnv64(out.data, out.len));
}

void haproxy_config(const struct exposures *x, const struct haproxy_options *o, const char *hash,
		    struct buf *out)
{
	write_all(x, o, hash, true, out);
}
