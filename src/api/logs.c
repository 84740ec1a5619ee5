/* SPDX-License-Identifier: Apache-2.0 */
/* pods/log: handed through from the node agent that runs the pod,
 * GET https://NODE:10250/containerLogs/NAMESPACE/POD/CONTAINER?..., with the API server's client certificate. Loop thread. */
#include "api/internal.h"

#define NODE_PORT	10250
#define LOG_STREAMS_MAX 256
#define QUEUE_HIGH	((size_t)4 << 20) /* so much waits for a slow client: the node agent waits too */
#define QUEUE_LOW	((size_t)1 << 20)
#define RESUME_MS	20
#define WHOLE_LOG_MS	600000

struct log_stream {
	struct call *call;
	struct http_call *fetch; /* NULL = over */
	struct timer *resume;	 /* runs while fetch is paused */
	bool begun, follows;
	struct buf error;
};

static const char *const passed_on[] = {"follow",     "tailLines", "sinceSeconds", "sinceTime",
					"timestamps", "previous",  "limitBytes"};

static void free_stream(struct log_stream *l)
{
	timer_free(l->resume);
	l->call->api->log_streams--;
	l->call->http = NULL;
	call_free(l->call);
	buf_done(&l->error);
	free(l);
}

/* The client has gone, or all has been sent. */
static void on_closed(void *ctx)
{
	struct log_stream *l = ctx;

	if (l->fetch)
		http_call_cancel(l->fetch);
	metrics_count(l->call->api->metrics, l->call, 200, 0);
	free_stream(l);
}

static void on_data(void *ctx, const char *data, size_t len)
{
	struct log_stream *l = ctx;

	if (!l->begun) {
		l->begun = true;
		http_stream_begin(l->call->http, 200, "text/plain", on_closed, l);
	}
	(void)http_stream_write(l->call->http, data, len);
	if (http_stream_queued(l->call->http) > QUEUE_HIGH) {
		http_call_pause(l->fetch, true);
		timer_start(l->resume, RESUME_MS, RESUME_MS);
	}
}

static void on_resume(void *ctx)
{
	struct log_stream *l = ctx;

	if (l->fetch && http_stream_queued(l->call->http) > QUEUE_LOW)
		return;
	timer_stop(l->resume);
	if (l->fetch)
		http_call_pause(l->fetch, false);
}

static void on_done(void *ctx, int status, const char *body, size_t len, const char *text)
{
	struct log_stream *l = ctx;

	l->fetch = NULL;
	if (l->begun && status < 0 && !l->follows) {
		http_stream_cut(l->call->http);
	} else if (l->begun) {
		http_stream_end(l->call->http);
	} else if (status >= 200 && status < 300) {
		http_reply(l->call->http, 200, "text/plain", body, len, NULL);
		free_stream(l);
	} else {
		while (body && len && body[len - 1] == '\n')
			len--;
		if (status == 400 || status == 404)
			fail(l->call, 400, "BadRequest", "%.*s", (int)MIN(len, (size_t)500),
			     body ? body : "");
		else if (status > 0)
			fail(l->call, 500, "InternalError", "the node agent answered %d: %.*s", status,
			     (int)MIN(len, (size_t)300), body ? body : "");
		else
			fail(l->call, 503, "ServiceUnavailable", "the pod's node agent cannot be reached: %s",
			     text ? text : strerror(-status));
		reply_failure(l->call);
		free_stream(l);
	}
}

static void add_escaped(struct buf *b, const char *s)
{
	for (; *s; s++) {
		if ((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
		    strchr("-._~", *s))
			buf_add(b, s, 1);
		else
			buf_addf(b, "%%%02X", (unsigned char)*s);
	}
}

static const char *node_address(struct api *api, const char *node, struct obj **ret)
{
	const struct model_kind *k = model_kind_by_plural("", "v1", "nodes");
	struct obj *o = cache_get(api->cache, k, node);
	const json_t *a;
	size_t i;

	*ret = o;
	json_array_foreach (js_get(o ? o->json : NULL, "status.addresses"), i, a)
		if (streq(js_str(a, "type"), "InternalIP"))
			return js_str(a, "address");
	return NULL;
}

static void names_of(const json_t *containers, struct buf *out)
{
	const json_t *one;
	size_t i;

	json_array_foreach ((json_t *)containers, i, one)
		buf_addf(out, "%s%s", out->len ? " " : "", js_str_or(one, "name", ""));
}

/* The container asked for, or the only one. */
static const char *container_of_pod(struct call *c, const json_t *pod)
{
	static const char *const lists[] = {"spec.containers", "spec.initContainers"};
	const char *asked = http_req_query(c->http, "container");
	_cleanup_buf_ struct buf names = {.limit = 4096}, init = {.limit = 4096};
	const json_t *one;
	size_t i;

	if (!asked || !*asked) {
		if (json_array_size(js_get(pod, "spec.containers")) == 1)
			return js_str(json_array_get(js_get(pod, "spec.containers"), 0), "name");
		names_of(js_get(pod, lists[0]), &names);
		names_of(js_get(pod, lists[1]), &init);
		fail(c, 400, "BadRequest",
		     "a container name must be specified for pod %s, choose one of: [%s]%s%s%s", c->name,
		     names.len ? names.data : "", init.len ? " or one of the init containers: [" : "",
		     init.len ? init.data : "", init.len ? "]" : "");
		return NULL;
	}
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		json_array_foreach (js_get(pod, lists[l]), i, one)
			if (streq(js_str(one, "name"), asked))
				return asked;
	fail(c, 400, "BadRequest", "container %s is not valid for pod %s", asked, c->name);
	return NULL;
}

static int log_url(struct call *c, struct buf *url)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", c->ns, c->name);
	struct obj *pod = cache_get(c->api->cache, c->kind, key), *node = NULL;
	const char *container, *address = NULL, *node_name, *sep = "?";
	int port, r = 0;

	if (!pod)
		return fail_not_found(c);
	container = container_of_pod(c, pod->json);
	node_name = js_str_or(pod->json, "spec.nodeName", "");
	if (!container)
		r = -1;
	else if (!*node_name)
		r = fail(c, 400, "BadRequest", "pod %s does not have a host assigned", c->name);
	else if (!(address = node_address(c->api, node_name, &node)))
		r = fail(c, 503, "ServiceUnavailable", "node %s has no address", node_name);
	if (r == 0) {
		port = (int)js_int(node->json, "status.daemonEndpoints.kubeletEndpoint.Port", NODE_PORT);
		buf_addf(url, "https://%s:%d/containerLogs/%s/%s/%s", address, port, c->ns, c->name,
			 container);
		for (size_t i = 0; i < ARRAY_SIZE(passed_on); i++) {
			const char *v = http_req_query(c->http, passed_on[i]);

			if (!v || !*v)
				continue;
			buf_addf(url, "%s%s=", sep, passed_on[i]);
			add_escaped(url, v);
			sep = "&";
		}
	}
	obj_unref(pod);
	obj_unref(node);
	return r;
}

void log_begin(struct call *c)
{
	_cleanup_buf_ struct buf url = {0};
	bool endless = query_true(c, "follow");
	struct log_stream *l;
	struct http_call_options o = {.method = "GET",
				      .timeout_ms = endless ? -1 : WHOLE_LOG_MS,
				      .connect_timeout_ms = 3000,
				      .data = on_data,
				      .done = on_done};
	int r = log_url(c, &url);

	if (r == 0 && !c->api->nodes)
		r = fail(c, 503, "ServiceUnavailable",
			 "this server has no --node-ca/--node-cert/--node-key to reach node agents with");
	if (r == 0 && c->api->log_streams >= LOG_STREAMS_MAX)
		r = fail(c, 429, "TooManyRequests", "too many logs are being read");
	if (r < 0) {
		reply_failure(c);
		call_free(c);
		return;
	}
	l = xcalloc(1, sizeof(*l));
	l->call = c;
	l->follows = endless;
	l->resume = timer_new(&c->api->loop, on_resume, l);
	c->api->log_streams++;
	o.url = url.data;
	o.ctx = l;
	l->fetch = http_call_new(c->api->nodes, &o);
}
