/* SPDX-License-Identifier: Apache-2.0 */
/* From a request to its verb: path, method, authentication, limits; then on a worker thread, or on the loop thread for what the
 * watch cache answers.
 *
 *   /api/v1/[namespaces/NS/]PLURAL[/NAME[/SUB]]     /apis/GROUP/VERSION/[namespaces/NS/]PLURAL[/NAME[/SUB]] */
#include "api/internal.h"

#define STORE_SILENCE_MS \
	3000 /* after so long without the store the server sends its clients to another one */

struct call *call_new(struct api *api, struct http_req *r)
{
	struct call *c = xcalloc(1, sizeof(*c));

	c->api = api;
	c->http = r;
	c->warn = true;
	c->started_us = clock_us();
	return c;
}

struct call *call_of(struct api *api, const struct model_kind *k, const char *ns, const char *name)
{
	struct call *c = call_new(api, NULL);

	c->kind = k;
	c->ns = ns ? xstrdup(ns) : NULL;
	c->name = name ? xstrdup(name) : NULL;
	return c;
}

void call_free(struct call *c)
{
	ensure(!c->http);
	free(c->ns);
	free(c->name);
	free(c->sub);
	json_decref(c->warnings);
	json_decref(c->status);
	free(c);
}

struct job {
	struct call *call;
	void (*fn)(struct call *c);
};

static void on_work(uv_work_t *w)
{
	struct job *j = w->data;

	j->fn(j->call);
}

static void on_worked(uv_work_t *w, int status)
{
	struct job *j = w->data;

	(void)status;
	j->call->api->in_flight--;
	call_free(j->call);
	free(j);
}

void call_queue(struct call *c, void (*fn)(struct call *c))
{
	struct job *j = xcalloc(1, sizeof(*j));

	*j = (struct job){c, fn};
	c->work.data = j;
	c->api->in_flight++;
	ensure(uv_queue_work(&c->api->loop, &c->work, on_work, on_worked) == 0);
}

static void end_failed(struct call *c)
{
	reply_failure(c);
	call_free(c);
}

bool api_store_alive(struct api *api)
{
	uint64_t now = clock_ms(), heard = api->store_heard_ms;

	return now < heard + STORE_SILENCE_MS && cache_ready(api->cache);
}

/* Cuts the path; 0, or -ENOENT. */
static int parse_path(struct call *c, const char *path)
{
	_cleanup_strv_ char **p = strv_split(path, '/', false);
	size_t n = strv_len(p), at;
	const char *group = "", *version;

	if (n >= 3 && streq(p[0], "api")) {
		version = p[1];
		at = 2;
	} else if (n >= 4 && streq(p[0], "apis")) {
		group = p[1];
		version = p[2];
		at = 3;
	} else {
		return -ENOENT;
	}
	/* namespaces/NS/PLURAL..., but namespaces/NS and namespaces/NS/status|finalize are the namespace itself */
	if (streq(p[at], "namespaces") && n >= at + 3 &&
	    !(n == at + 3 && !*group && (streq(p[at + 2], "status") || streq(p[at + 2], "finalize")))) {
		c->ns = xstrdup(p[at + 1]);
		at += 2;
	}
	c->kind = model_kind_by_plural(group, version, p[at]);
	if (!c->kind || n > at + 3)
		return -ENOENT;
	c->name = n > at + 1 ? xstrdup(p[at + 1]) : NULL;
	c->sub = n > at + 2 ? xstrdup(p[at + 2]) : NULL;
	if (c->ns && !c->kind->namespaced)
		return -ENOENT;
	if (!c->ns && c->kind->namespaced && c->name)
		return -ENOENT;
	return 0;
}

/* As Go reads booleans: python3-kubernetes writes True. */
bool query_true(const struct call *c, const char *name)
{
	static const char *const words[] = {"1", "t", "T", "true", "TRUE", "True"};
	const char *v = http_req_query(c->http, name);

	for (size_t i = 0; v && i < ARRAY_SIZE(words); i++)
		if (streq(v, words[i]))
			return true;
	return false;
}

static int parse_verb(struct call *c)
{
	const char *m = http_req_method(c->http);

	if (streq(m, "GET") || streq(m, "HEAD"))
		c->verb = query_true(c, "watch") ? VERB_WATCH : c->name ? VERB_GET : VERB_LIST;
	else if (streq(m, "POST"))
		c->verb = VERB_CREATE;
	else if (streq(m, "PUT") && c->name)
		c->verb = VERB_UPDATE;
	else if (streq(m, "PATCH") && c->name)
		c->verb = VERB_PATCH;
	else if (streq(m, "DELETE"))
		c->verb = c->name ? VERB_DELETE : VERB_DELETECOLLECTION;
	else
		return fail(c, 405, "MethodNotAllowed",
			    "the server does not allow this method on the requested resource");
	if (c->verb == VERB_CREATE && c->name && !c->sub)
		return fail(c, 405, "MethodNotAllowed",
			    "the server does not allow this method on the requested resource");
	if (c->verb == VERB_CREATE && !c->ns && c->kind->namespaced)
		c->ns = xstrdup(
			"default"); /* as Kubernetes: the object may still name another, which is then refused */
	return 0;
}

static int parse_query(struct call *c)
{
	const char *dry = http_req_query(c->http, "dryRun"), *fv = http_req_query(c->http, "fieldValidation");

	if (dry && *dry && !streq(dry, "All"))
		return fail(c, 400, "BadRequest",
			    "dryRun: Unsupported value: \"%s\": supported values: \"All\"", dry);
	c->dry_run = dry && *dry;
	if (fv && !streq(fv, "") && !streq(fv, "Ignore") && !streq(fv, "Warn") && !streq(fv, "Strict"))
		return fail(c, 400, "BadRequest",
			    "fieldValidation: Unsupported value: \"%s\": supported values: \"Ignore\", "
			    "\"Strict\", \"Warn\"",
			    fv);
	c->strict = streq(fv, "Strict");
	c->warn = !streq(fv, "Ignore");
	return 0;
}

/* The function that serves a verb on a subresource; NULL = none does. */
static void (*sub_runner(const struct call *c))(struct call *)
{
	bool pods = streq(c->kind->plural, "pods") && !*c->kind->group;

	if (streq(c->sub, "status") && c->kind->has_status)
		return c->verb == VERB_GET	? run_get
		       : c->verb == VERB_UPDATE ? run_update
		       : c->verb == VERB_PATCH	? run_patch
						: NULL;
	if (streq(c->sub, "scale") && c->kind->has_scale)
		return c->verb == VERB_GET || c->verb == VERB_UPDATE || c->verb == VERB_PATCH ? run_scale
											      : NULL;
	if (streq(c->sub, "finalize") && streq(c->kind->plural, "namespaces"))
		return c->verb == VERB_UPDATE ? run_update : NULL;
	if (pods && streq(c->sub, "binding"))
		return c->verb == VERB_CREATE ? run_binding : NULL;
	if (pods && streq(c->sub, "eviction"))
		return c->verb == VERB_CREATE ? run_eviction : NULL;
	if (pods && streq(c->sub, "log"))
		return c->verb == VERB_GET ? log_begin : NULL;
	return NULL;
}

static void (*runner(const struct call *c))(struct call *)
{
	static void (*const by_verb[])(struct call *) = {
		[VERB_GET] = run_get,	    [VERB_LIST] = run_list,
		[VERB_WATCH] = watch_begin, [VERB_CREATE] = run_create,
		[VERB_UPDATE] = run_update, [VERB_PATCH] = run_patch,
		[VERB_DELETE] = run_delete, [VERB_DELETECOLLECTION] = run_deletecollection,
	};

	if (c->verb == VERB_DELETECOLLECTION && streq(c->kind->plural, "namespaces"))
		return NULL; /* as Kubernetes: one by one */
	return c->sub ? sub_runner(c) : by_verb[c->verb];
}

/* Nothing serves it: says what is missing where Kubernetes would have it. */
static void fail_no_runner(struct call *c)
{
	static const char *const known[] = {"status", "scale", "finalize", "binding", "eviction", "log"};
	bool offered = !c->sub;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		offered |= streq(c->sub, known[i]);
	if (offered)
		fail(c, 405, "MethodNotAllowed",
		     "the server does not allow this method on the requested resource");
	else
		fail(c, 405, "MethodNotAllowed", "kuayu does not offer %s/%s", c->kind->plural, c->sub);
}

static void fail_no_path(struct call *c, const char *path)
{
	_cleanup_strv_ char **p = strv_split(path, '/', false);
	size_t n = strv_len(p), at;
	bool core = n >= 3 && streq(p[0], "api"), named = n >= 4 && streq(p[0], "apis");

	c->kind = NULL;
	at = core ? 2 : 3;
	if ((core || named) && n >= at + 3 && streq(p[at], "namespaces"))
		at += 2;
	if ((core || named) && !model_kind_by_plural(core ? "" : p[1], core ? p[1] : p[2], p[at]))
		fail(c, 404, "NotFound",
		     "the server could not find the requested resource: kuayu does not offer %.100s in "
		     "%.100s%s%.100s",
		     p[at], p[1], core ? "" : "/", core ? "" : p[2]);
	else
		fail(c, 404, "NotFound", "the server could not find the requested resource");
}

static int admit(struct call *c)
{
	if (!api_store_alive(c->api))
		return fail(c, 503, "ServiceUnavailable",
			    "this server cannot reach its store at the moment; ask another one");
	if (c->api->in_flight >= c->api->s.workers * 16)
		return fail(c, 429, "TooManyRequests", "too many requests are being served, try again later");
	return 0;
}

static void serve(struct call *c, const char *path)
{
	void (*run)(struct call *);

	if (parse_path(c, path) < 0) {
		fail_no_path(c, path);
		end_failed(c);
		return;
	}
	if (parse_verb(c) < 0 || parse_query(c) < 0 || admit(c) < 0) {
		end_failed(c);
		return;
	}
	negotiate(c);
	run = runner(c);
	if (!run) {
		fail_no_runner(c);
		end_failed(c);
	} else if (run == watch_begin || run == log_begin) {
		run(c);
	} else if (run == run_list && list_from_cache(c)) {
		call_free(c);
	} else {
		call_queue(c, run);
	}
}

static void health(struct api *api, struct http_req *r, const char *path)
{
	if (streq(path, "/livez") || (api_store_alive(api) && api->defaults_there))
		http_reply_text(r, 200, "ok");
	else if (!api_store_alive(api))
		http_reply_text(r, 503, "[-]store failed: not heard from for 3 s, or not read yet");
	else
		http_reply_text(r, 503, "[-]defaults failed: the default namespaces are not there yet");
}

void route(void *ctx, struct http_req *r)
{
	struct api *api = ctx;
	const char *path = http_req_path(r);
	struct call *c;

	if (str_starts(path, "/healthz") || str_starts(path, "/livez") || str_starts(path, "/readyz")) {
		health(api, r, path);
		return;
	}
	c = call_new(api, r);
	c->user = authenticate(api, r);
	if (!c->user && !streq(path, "/version")) {
		fail(c, 401, "Unauthorized", "Unauthorized");
		end_failed(c);
		return;
	}
	if (streq(path, "/metrics")) {
		metrics_reply(api, r);
	} else if (!reviews(c, path) && !discovery(api, r)) {
		serve(c, path);
		return;
	}
	c->http = NULL;
	call_free(c);
}
