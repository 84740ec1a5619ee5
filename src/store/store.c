/* SPDX-License-Identifier: Apache-2.0 */
/* The front of every store: picks the driver by URI and checks all arguments, so that the three drivers refuse the same
 * things in the same words. No state of its own; thread-safe as the drivers are. */
#include "store/internal.h"

#define TIMEOUT_MS_DEFAULT 5000
#define LEASE_TTL_MAX_S	   (365 * 24 * 3600)

int store_open(const char *uri, const struct store_options *o, struct store **ret, struct err *e)
{
	static const struct store_options none = {0};
	static const struct {
		const char *scheme;
		int (*open)(const char *rest, const struct store_options *o, struct store **ret,
			    struct err *e);
	} drivers[] = {{"mem:", fake_open}, {"sqlite:", sqlite_open}, {"etcd:", etcd_open}};

	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
		if (str_starts(uri, drivers[i].scheme)) {
			struct store *s;
			int r = drivers[i].open(uri + strlen(drivers[i].scheme), o ? o : &none, &s, e);

			if (r < 0)
				return r;
			s->timeout_ms = o && o->timeout_ms > 0 ? o->timeout_ms : TIMEOUT_MS_DEFAULT;
			*ret = s;
			return 0;
		}
	return err_set(
		e, -EINVAL,
		"store '%s' is not understood; say etcd:https://HOST:2379,..., sqlite:PATH or mem:", uri);
}

struct store *store_free(struct store *s)
{
	if (s)
		s->driver->close(s);
	return NULL;
}

static int check_key(const char *key, struct err *e)
{
	if (!*key)
		return err_set(e, -EINVAL, "a key must not be empty");
	if (*key == STORE_RESERVED)
		return err_set(e, -EINVAL, "keys that start with byte 1 are the store's own");
	if (strlen(key) > STORE_KEY_MAX)
		return err_set(e, -EINVAL, "key longer than %d bytes: %.60s...", STORE_KEY_MAX, key);
	return 0;
}

int store_get(struct store *s, const char *key, int64_t rev, struct store_kv *ret, int64_t *ret_rev,
	      struct err *e)
{
	struct store_span span = {.begin = key, .exact = true, .rev = rev};
	struct store_list l = {0};
	int r = check_key(key, e);

	if (r < 0)
		return r;
	r = s->driver->range(s, &span, &l, e);
	if (r < 0)
		return r;
	if (ret_rev)
		*ret_rev = l.rev;
	if (!l.n) {
		store_list_done(&l);
		return err_set(e, -ENOENT, "no key %s", key);
	}
	*ret = l.kv[0];
	l.n = 0;
	store_list_done(&l);
	return 0;
}

/* First string behind all that start with prefix; NULL = there is none. Caller frees. */
static char *prefix_end(const char *prefix)
{
	char *end = xstrdup(prefix);

	for (size_t n = strlen(end); n; n--) {
		if ((unsigned char)end[n - 1] < 0xff) {
			end[n - 1] = (char)((unsigned char)end[n - 1] + 1);
			end[n] = 0;
			return end;
		}
	}
	free(end);
	return NULL;
}

int store_range(struct store *s, const char *begin, const char *end, size_t limit, int64_t rev,
		struct store_list *ret, struct err *e)
{
	_cleanup_free_ char *behind = end ? NULL : prefix_end(begin);
	struct store_span span = {.begin = begin, .end = end ? end : behind, .limit = limit, .rev = rev};
	struct store_list l = {0};
	int r;

	if (strlen(begin) > STORE_KEY_MAX || (end && strlen(end) > STORE_KEY_MAX))
		return err_set(e, -EINVAL, "range bound longer than %d bytes", STORE_KEY_MAX);
	if (strcmp(begin, STORE_FIRST_KEY) < 0)
		span.begin = STORE_FIRST_KEY;
	r = s->driver->range(s, &span, &l, e);
	if (r < 0)
		return r;
	*ret = l;
	return 0;
}

static int check_ops(const struct store_op *ops, size_t n_ops, struct err *e)
{
	size_t bytes = 0;

	for (size_t i = 0; i < n_ops; i++) {
		int r = check_key(ops[i].key, e);

		if (r < 0)
			return r;
		bytes += strlen(ops[i].key);
		if (ops[i].type == STORE_PUT) {
			if (ops[i].value_len > STORE_VALUE_MAX)
				return err_set(e, -EMSGSIZE, "value of %s has %zu bytes, the limit is %zu",
					       ops[i].key, ops[i].value_len, STORE_VALUE_MAX);
			bytes += ops[i].value_len;
		}
		for (size_t j = 0; j < i; j++)
			if (streq(ops[i].key, ops[j].key))
				return err_set(e, -EINVAL, "key %s twice in one transaction", ops[i].key);
	}
	if (bytes > STORE_TXN_BYTES_MAX)
		return err_set(e, -EMSGSIZE, "transaction of %zu bytes, the limit is %zu", bytes,
			       STORE_TXN_BYTES_MAX);
	return 0;
}

int store_txn(struct store *s, const struct store_cmp *cmp, size_t n_cmp, const struct store_op *ops,
	      size_t n_ops, int64_t *ret_rev, struct err *e)
{
	int64_t rev = 0;
	int r;

	if (!n_ops || n_ops > STORE_TXN_OPS_MAX || n_cmp > STORE_TXN_OPS_MAX)
		return err_set(e, -EINVAL,
			       "a transaction has 1 to %d operations and at most as many compares",
			       STORE_TXN_OPS_MAX);
	for (size_t i = 0; i < n_cmp; i++)
		if ((r = check_key(cmp[i].key, e)) < 0)
			return r;
	r = check_ops(ops, n_ops, e);
	if (r < 0)
		return r;
	r = s->driver->txn(s, cmp, n_cmp, ops, n_ops, &rev, e);
	if (r < 0)
		return r;
	if (ret_rev)
		*ret_rev = rev;
	return 0;
}

int store_watch(struct store *s, const char *prefix, int64_t from_rev, const struct store_watch_handler *h,
		struct store_watch **ret, struct err *e)
{
	if (strlen(prefix) > STORE_KEY_MAX)
		return err_set(e, -EINVAL, "prefix longer than %d bytes", STORE_KEY_MAX);
	if (s->driver->watch_begin) {
		int r = s->driver->watch_begin(s, e);

		if (r < 0)
			return r;
	}
	return hub_watch(s->hub, prefix, MAX(from_rev, 1), h, ret, e);
}

int store_lease_grant(struct store *s, int64_t ttl_s, int64_t *ret_id, struct err *e)
{
	if (ttl_s < 1 || ttl_s > LEASE_TTL_MAX_S)
		return err_set(e, -EINVAL, "a lease lasts 1 to %d seconds", LEASE_TTL_MAX_S);
	return s->driver->lease_grant(s, ttl_s, ret_id, e);
}

int store_lease_keepalive(struct store *s, int64_t id, struct err *e)
{
	return s->driver->lease_keepalive(s, id, e);
}

int store_lease_revoke(struct store *s, int64_t id, struct err *e)
{
	return s->driver->lease_revoke(s, id, e);
}

int store_compact(struct store *s, int64_t rev, struct err *e)
{
	if (rev < 1)
		return err_set(e, -EINVAL, "cannot compact at revision %lld", (long long)rev);
	return s->driver->compact(s, rev, e);
}

void store_kv_fill(struct store_kv *kv, const char *key, const void *value, size_t len)
{
	kv->key = xstrdup(key);
	kv->value = xcalloc(1, len + 1);
	if (len)
		memcpy(kv->value, value, len);
	kv->value_len = len;
}

struct store_kv *store_list_slot(struct store_list *l)
{
	if ((l->n & (l->n - 1)) == 0) /* room doubles at each power of two */
		l->kv = xrealloc(l->kv, (l->n ? l->n * 2 : 1) * sizeof(*l->kv));
	l->kv[l->n] = (struct store_kv){0};
	return &l->kv[l->n++];
}

void store_kv_done(struct store_kv *kv)
{
	free(kv->key);
	free(kv->value);
	*kv = (struct store_kv){0};
}

void store_list_done(struct store_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		store_kv_done(&l->kv[i]);
	free(l->kv);
	*l = (struct store_list){0};
}
