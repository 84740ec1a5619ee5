/* SPDX-License-Identifier: Apache-2.0 */
/* get and list. A plain read is linearizable: get asks the store; list reads the store's revision, waits until the cache has seen it
 * and answers from the cache (if the cache does not get there in time, from the store). resourceVersion=0 is answered from the
 * cache as it is. Pages behind the first come from the store at the first page's revision. */
#include <openssl/evp.h>

#include "api/internal.h"

#define CACHE_WAIT_MS  1000
#define FRESH_WAIT_MS  3000
#define STORE_PAGE     500
#define LIST_BYTES_MAX ((size_t)1 << 30)

/* ---- filters ---- */

int filter_init(struct call *c, struct filter *f)
{
	const char *labels = http_req_query(c->http, "labelSelector"),
		   *fields = http_req_query(c->http, "fieldSelector");
	struct err e = {0};

	*f = (struct filter){0};
	if (labels && *labels && model_selector_parse(labels, &f->labels, &e) < 0)
		return fail(c, 400, "BadRequest", "unable to parse labelSelector: %s", e.text);
	if (fields && *fields && model_field_selector_parse(c->kind, fields, &f->fields, &e) < 0) {
		filter_done(f);
		return fail(c, 400, "BadRequest", "unable to parse fieldSelector: %s", e.text);
	}
	return 0;
}

void filter_done(struct filter *f)
{
	f->labels = model_selector_free(f->labels);
	f->fields = model_field_selector_free(f->fields);
}

bool filter_match(const struct filter *f, const json_t *obj)
{
	return (!f->labels || model_selector_match(f->labels, js_get(obj, "metadata.labels"))) &&
	       (!f->fields || model_field_selector_match(f->fields, obj));
}

/* ---- revisions ---- */

int current_rev(struct call *c, int64_t *ret)
{
	struct store_list l = {0};
	struct err e = {0};
	int r = store_range(c->api->store, REGISTRY "none/", NULL, 1, 0, &l, &e);

	if (r < 0)
		return fail_store(c, r, &e);
	*ret = l.rev;
	store_list_done(&l);
	return 0;
}

static void list_add(struct obj_list *l, size_t *cap, struct obj *o)
{
	if (!o)
		return;
	if (l->n == *cap) {
		*cap = *cap ? *cap * 2 : 64;
		l->v = xrealloc(l->v, *cap * sizeof(*l->v));
	}
	l->v[l->n++] = o;
}

/* From the store: objects behind key `after` (NULL = from the start) at revision rev (0 = now), at most max (0 = all). */
static int list_store(struct call *c, const struct model_kind *k, const char *ns, const char *after,
		      int64_t rev, size_t max, struct obj_list *ret, bool *ret_more)
{
	_cleanup_free_ char *prefix =
		ns ? xasprintf(REGISTRY "%s/%s/", k->plural, ns) : xasprintf(REGISTRY "%s/", k->plural);
	_cleanup_free_ char *end = xstrdup(prefix), *begin = NULL;
	size_t skip = strlen(REGISTRY) + strlen(k->plural) + 1, cap = 0;
	struct err e = {0};
	bool more = true;

	end[strlen(end) - 1] = '/' + 1;
	begin = after ? xasprintf(REGISTRY "%s/%s%c", k->plural, after, 1) : xstrdup(prefix);
	*ret = (struct obj_list){.rev = rev};
	while (more && (!max || ret->n < max)) {
		struct store_list l = {0};
		int r = store_range(c->api->store, begin, end,
				    max ? MIN(max - ret->n, (size_t)STORE_PAGE) : STORE_PAGE, ret->rev, &l,
				    &e);

		if (r < 0) {
			obj_list_done(ret);
			return fail_store(c, r, &e);
		}
		if (!ret->rev)
			ret->rev = l.rev;
		for (size_t i = 0; i < l.n; i++)
			list_add(ret, &cap,
				 obj_new(k, l.kv[i].key + skip, l.kv[i].value, l.kv[i].value_len,
					 l.kv[i].mod_rev));
		more = l.more && l.n;
		if (more) {
			free(begin);
			begin = xasprintf("%s%c", l.kv[l.n - 1].key, 1);
		}
		store_list_done(&l);
	}
	if (ret_more)
		*ret_more = more;
	return 0;
}

int list_now(struct call *c, const struct model_kind *k, const char *ns, struct obj_list *ret)
{
	int64_t rev;

	if (current_rev(c, &rev) < 0)
		return -1;
	if (cache_wait_rev(c->api->cache, rev, CACHE_WAIT_MS) == 0 &&
	    cache_list(c->api->cache, k, ns, ret) == 0)
		return 0;
	return list_store(c, k, ns, NULL, 0, 0, ret, NULL);
}

/* ---- continue tokens: base64 of "REVISION KEY" ---- */

static char *token_new(int64_t rev, const char *key)
{
	_cleanup_free_ char *plain = xasprintf("%lld %s", (long long)rev, key);
	size_t n = strlen(plain);
	char *out = xcalloc(1, n * 4 / 3 + 8);

	EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)plain, (int)n);
	return out;
}

static int token_parse(const char *token, int64_t *ret_rev, char **ret_key)
{
	size_t n = strlen(token);
	_cleanup_free_ char *plain = NULL;
	char *space;

	if (n > 4 * STORE_KEY_MAX || n % 4)
		return -EINVAL;
	plain = xcalloc(1, n + 4);
	if (EVP_DecodeBlock((unsigned char *)plain, (const unsigned char *)token, (int)n) < 0)
		return -EINVAL;
	space = strchr(plain, ' ');
	if (!space || !space[1])
		return -EINVAL;
	*space = 0;
	if (str_i64(plain, ret_rev) < 0 || *ret_rev <= 0)
		return -EINVAL;
	*ret_key = xstrdup(space + 1);
	return 0;
}

/* ---- answers ---- */

struct page {
	struct obj **v; /* borrowed */
	size_t n;
	int64_t rev;
	char *next;	   /* continue token; NULL = the end */
	int64_t remaining; /* -1 = not known */
};

static json_t *array_of(const struct page *p, bool partial)
{
	json_t *a = json_array();

	for (size_t i = 0; i < p->n; i++)
		if (partial)
			json_array_append_new(a, partial_new(p->v[i]->json));
		else
			json_array_append(a, p->v[i]->json);
	return a;
}

static void set_list_meta(json_t *list, const struct page *p)
{
	js_set_new(list, "metadata.resourceVersion", json_sprintf("%lld", (long long)p->rev));
	if (p->next)
		js_set_new(list, "metadata.continue", json_string(p->next));
	if (p->next && p->remaining >= 0)
		js_set_new(list, "metadata.remainingItemCount", json_integer(p->remaining));
}

static void reply_list_tree(struct call *c, const struct page *p)
{
	_cleanup_json_ json_t *items = array_of(p, c->output == OUTPUT_PARTIAL), *list = NULL;
	_cleanup_free_ char *text = NULL;

	if (c->output == OUTPUT_TABLE) {
		list = model_table_new(c->kind, items, http_req_query(c->http, "includeObject"),
				       clock_wall_us());
		js_set_new(list, "apiVersion", json_sprintf("meta.k8s.io/%s", c->table_version));
	} else {
		list = json_pack("{ss ss so sO}", "kind", "PartialObjectMetadataList", "apiVersion",
				 "meta.k8s.io/v1", "metadata", json_object(), "items", items);
	}
	set_list_meta(list, p);
	text = js_text(list);
	reply_raw_text(c, 200, text, strlen(text));
}

static void reply_list(struct call *c, const struct page *p)
{
	_cleanup_buf_ struct buf b = {.limit = LIST_BYTES_MAX};
	char api_version[128];
	int r = 0;

	if (c->output != OUTPUT_OBJECT) {
		reply_list_tree(c, p);
		return;
	}
	buf_addf(&b, "{\"kind\":\"%sList\",\"apiVersion\":\"%s\",\"metadata\":{\"resourceVersion\":\"%lld\"",
		 c->kind->kind, model_api_version(c->kind, api_version), (long long)p->rev);
	if (p->next)
		buf_addf(&b, ",\"continue\":\"%s\"", p->next);
	if (p->next && p->remaining >= 0)
		buf_addf(&b, ",\"remainingItemCount\":%lld", (long long)p->remaining);
	buf_adds(&b, "},\"items\":[");
	for (size_t i = 0; i < p->n && r == 0; i++) {
		if (i)
			r = buf_add(&b, ",", 1);
		if (r == 0)
			r = buf_add(&b, p->v[i]->text, p->v[i]->text_len);
	}
	if (r == 0)
		r = buf_adds(&b, "]}");
	if (r < 0) {
		fail(c, 413, "RequestEntityTooLarge",
		     "the list is larger than this server sends at once; use limit");
		reply_failure(c);
	} else {
		reply_raw_text(c, 200, b.data, b.len);
	}
}

/* The objects that match, at most limit (0 = all); more = the store has further ones behind l. */
static void reply_page(struct call *c, const struct obj_list *l, const struct filter *f, size_t limit,
		       bool more)
{
	_cleanup_free_ struct obj **v = xcalloc(l->n + 1, sizeof(*v));
	_cleanup_free_ char *next = NULL;
	struct page p = {.v = v, .rev = l->rev, .remaining = -1};
	size_t i = 0;

	for (; i < l->n && (!limit || p.n < limit); i++)
		if (filter_match(f, l->v[i]->json))
			v[p.n++] = l->v[i];
	if (i && (i < l->n || more)) {
		next = token_new(l->rev, l->v[i - 1]->key);
		if (!f->labels && !f->fields && !more)
			p.remaining = (int64_t)(l->n - i);
	}
	p.next = next;
	reply_list(c, &p);
}

static int parse_limit(struct call *c, size_t *ret)
{
	const char *text = http_req_query(c->http, "limit");
	int64_t n = 0;

	if (text && *text && (str_i64(text, &n) < 0 || n < 0))
		return fail(c, 400, "BadRequest", "limit: '%s' is not a number", text);
	*ret = (size_t)n;
	return 0;
}

static int parse_rev(struct call *c, int64_t *ret)
{
	const char *text = http_req_query(c->http, "resourceVersion");

	*ret = -1;
	if (text && *text && (str_i64(text, ret) < 0 || *ret < 0))
		return fail(c, 400, "BadRequest", "resourceVersion: Invalid value: \"%s\": not a number",
			    text);
	return 0;
}

static int wait_fresh(struct call *c, int64_t rev)
{
	if (cache_wait_rev(c->api->cache, rev, FRESH_WAIT_MS) == 0)
		return 0;
	fail(c, 504, "Timeout", "Too large resource version: %lld, current: %lld", (long long)rev,
	     (long long)cache_rev(c->api->cache));
	js_set_new(c->status, "details.causes",
		   json_pack("[{ss ss}]", "reason", "ResourceVersionTooLarge", "message",
			     "Too large resource version"));
	return -1;
}

static int list_page(struct call *c, const char *token, const struct filter *f, size_t limit)
{
	_cleanup_free_ char *after = NULL;
	struct obj_list l;
	bool more = false;
	int64_t rev;

	if (token_parse(token, &rev, &after) < 0)
		return fail(c, 400, "BadRequest", "continue key is not valid");
	if (list_store(c, c->kind, c->ns, after, rev, f->labels || f->fields ? 0 : limit, &l, &more) < 0) {
		if (c->code == 410)
			fail(c, 410, "Expired",
			     "The provided continue parameter is too old to display a consistent list "
			     "result. You can start a new list "
			     "without the continue parameter.");
		return -1;
	}
	reply_page(c, &l, f, limit, more);
	obj_list_done(&l);
	return 0;
}

static int list_first(struct call *c, const struct filter *f, size_t limit)
{
	const char *match = http_req_query(c->http, "resourceVersionMatch");
	struct obj_list l;
	int64_t rev;
	int r;

	if (parse_rev(c, &rev) < 0)
		return -1;
	if (match && *match && rev < 0)
		return fail(c, 422, "Invalid",
			    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless "
			    "resourceVersion is provided");
	if (match && *match && !streq(match, "Exact") && !streq(match, "NotOlderThan"))
		return fail(
			c, 422, "Invalid",
			"resourceVersionMatch: Unsupported value: \"%.50s\": supported values: \"Exact\", "
			"\"NotOlderThan\"",
			match);
	if (streq(match, "Exact") && rev == 0)
		return fail(
			c, 422, "Invalid",
			"resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for "
			"resourceVersion \"0\"");
	if (streq(match, "Exact")) {
		r = list_store(c, c->kind, c->ns, NULL, rev, 0, &l, NULL);
	} else if (rev < 0) {
		r = list_now(c, c->kind, c->ns, &l);
	} else {
		r = wait_fresh(c, rev);
		if (r == 0 && cache_list(c->api->cache, c->kind, c->ns, &l) < 0)
			r = list_store(c, c->kind, c->ns, NULL, 0, 0, &l, NULL);
	}
	if (r < 0)
		return -1;
	reply_page(c, &l, f, limit, false);
	obj_list_done(&l);
	return 0;
}

void run_list(struct call *c)
{
	const char *token = http_req_query(c->http, "continue");
	struct filter f;
	size_t limit;
	int r = filter_init(c, &f);

	if (r == 0) {
		r = parse_limit(c, &limit);
		if (r == 0)
			r = token && *token ? list_page(c, token, &f, limit) : list_first(c, &f, limit);
		filter_done(&f);
	}
	if (r < 0)
		reply_failure(c);
}

bool list_from_cache(struct call *c)
{
	const char *rev = http_req_query(c->http, "resourceVersion"),
		   *token = http_req_query(c->http, "continue"),
		   *match = http_req_query(c->http, "resourceVersionMatch");
	struct obj_list l;
	struct filter f;
	size_t limit;

	if (!streq(rev, "0") || (token && *token) || (match && *match) || c->output == OUTPUT_TABLE)
		return false;
	if (filter_init(c, &f) < 0 || parse_limit(c, &limit) < 0) {
		reply_failure(c);
		return true;
	}
	if (cache_list(c->api->cache, c->kind, c->ns, &l) < 0) {
		filter_done(&f);
		return false;
	}
	reply_page(c, &l, &f, limit, false);
	obj_list_done(&l);
	filter_done(&f);
	return true;
}

/* ---- get ---- */

static int get_from_store(struct call *c, const char *key, struct obj **ret)
{
	_cleanup_free_ char *full = object_key(c->kind, c->ns, c->name);
	struct store_kv kv = {0};
	struct err e = {0};
	struct obj *cached;
	int r = store_get(c->api->store, full, 0, &kv, NULL, &e);

	if (r == -ENOENT)
		return fail_not_found(c);
	if (r < 0)
		return fail_store(c, r, &e);
	cached = cache_get(c->api->cache, c->kind, key);
	if (cached && cached->rev == kv.mod_rev) {
		*ret = cached;
	} else {
		obj_unref(cached);
		*ret = obj_new(c->kind, key, kv.value, kv.value_len, kv.mod_rev);
		if (!*ret)
			r = fail(c, 500, "InternalError", "the stored object cannot be read");
	}
	store_kv_done(&kv);
	return r;
}

static int get(struct call *c, struct obj **ret)
{
	_cleanup_free_ char *key = c->ns ? xasprintf("%s/%s", c->ns, c->name) : xstrdup(c->name);
	int64_t rev;

	if (parse_rev(c, &rev) < 0)
		return -1;
	if (rev < 0)
		return get_from_store(c, key, ret);
	if (wait_fresh(c, rev) < 0)
		return -1;
	*ret = cache_get(c->api->cache, c->kind, key);
	return *ret ? 0 : get_from_store(c, key, ret); /* the cache may be filled anew just now */
}

void run_get(struct call *c)
{
	struct obj *o = NULL;

	if (get(c, &o) < 0) {
		reply_failure(c);
		return;
	}
	if (c->output == OUTPUT_OBJECT)
		reply_raw_text(c, 200, o->text, o->text_len);
	else
		reply_object(c, o->json);
	obj_unref(o);
}
