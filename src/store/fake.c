/* SPDX-License-Identifier: Apache-2.0 */
/* Memory store, for unit tests and for trying things out: a sorted array of keys, each with the chain of its revisions,
 * newest first. One lock; a commit publishes to the hub under it, so watches see revisions in order. Everything is
 * gone with the process. History: the newest STORE_HISTORY_REVS revisions, less when compacted. */
#include "store/internal.h"

struct rec {
	struct rec *older;
	int64_t rev, create_rev, version, lease;
	bool deleted;
	size_t len;
	char value[];
};

struct fake_key {
	char *name;
	struct rec *newest;
};

struct fake {
	struct store store;
	pthread_mutex_t lock;
	struct leases *leases;
	struct fake_key *keys;
	size_t n, cap;
	int64_t rev, compacted;
};

static struct fake *fake_of(struct store *s)
{
	return container_of(s, struct fake, store);
}

/* Index of the first key >= name. */
static size_t find(const struct fake *f, const char *name)
{
	size_t lo = 0, hi = f->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (strcmp(f->keys[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct fake_key *find_exact(const struct fake *f, const char *name)
{
	size_t i = find(f, name);

	return i < f->n && streq(f->keys[i].name, name) ? &f->keys[i] : NULL;
}

/* What the key was at rev; NULL = not there. */
static const struct rec *rec_at(const struct fake_key *k, int64_t rev)
{
	const struct rec *r = k ? k->newest : NULL;

	while (r && r->rev > rev)
		r = r->older;
	return r && !r->deleted ? r : NULL;
}

static void fill_kv(struct store_kv *kv, const struct rec *r)
{
	kv->create_rev = r->create_rev;
	kv->mod_rev = r->rev;
	kv->version = r->version;
	kv->lease = r->lease;
}

static int fake_range(struct store *s, const struct store_span *span, struct store_list *ret, struct err *e)
{
	struct fake *f = fake_of(s);
	int64_t rev;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	rev = span->rev ? span->rev : f->rev;
	ret->rev = rev;
	if (rev < f->compacted)
		r = err_set(e, -ESTALE, "revision %lld was compacted away", (long long)rev);
	else if (rev > f->rev)
		r = err_set(e, -EINVAL, "revision %lld is in the future", (long long)rev);
	for (size_t i = find(f, span->begin); r == 0 && i < f->n; i++) {
		const struct fake_key *k = &f->keys[i];
		const struct rec *at = rec_at(k, rev);

		if (span->exact ? !streq(k->name, span->begin) : span->end && strcmp(k->name, span->end) >= 0)
			break;
		if (!at)
			continue;
		ret->count++;
		if (span->limit && ret->n >= span->limit) {
			ret->more = true;
			continue;
		}
		store_kv_fill(store_list_slot(ret), k->name, at->value, at->len);
		fill_kv(&ret->kv[ret->n - 1], at);
	}
	pthread_mutex_unlock(&f->lock);
	return r;
}

static struct fake_key *key_make(struct fake *f, const char *name)
{
	struct fake_key *k = find_exact(f, name);
	size_t i;

	if (k)
		return k;
	if (f->n == f->cap) {
		f->cap = f->cap ? f->cap * 2 : 64;
		f->keys = xrealloc(f->keys, f->cap * sizeof(*f->keys));
	}
	i = find(f, name);
	memmove(&f->keys[i + 1], &f->keys[i], (f->n - i) * sizeof(*f->keys));
	f->n++;
	f->keys[i] = (struct fake_key){.name = xstrdup(name)};
	return &f->keys[i];
}

/* Writes one revision of one key and its event. */
static void apply(struct fake *f, const struct store_op *op, int64_t rev, struct store_event *ev)
{
	struct fake_key *k = key_make(f, op->key);
	const struct rec *before = rec_at(k, INT64_MAX);
	bool put = op->type == STORE_PUT;
	size_t len = put ? op->value_len : 0;
	struct rec *r = xcalloc(1, sizeof(*r) + len + 1);

	r->rev = rev;
	r->deleted = !put;
	if (put) {
		r->create_rev = before ? before->create_rev : rev;
		r->version = before ? before->version + 1 : 1;
		r->lease = op->lease;
		r->len = len;
		if (len)
			memcpy(r->value, op->value, len);
	}
	ev->type = put ? STORE_EVENT_PUT : STORE_EVENT_DELETE;
	store_kv_fill(&ev->kv, op->key, r->value, len);
	fill_kv(&ev->kv, r);
	if (before) {
		store_kv_fill(&ev->prev, op->key, before->value, before->len);
		fill_kv(&ev->prev, before);
	}
	r->older = k->newest;
	k->newest = r;
}

static void rec_free_chain(struct rec *r)
{
	while (r) {
		struct rec *older = r->older;

		free(r);
		r = older;
	}
}

/* Keeps of each key what a reader at rev or later can see. */
static void compact(struct fake *f, int64_t rev)
{
	size_t kept = 0;

	for (size_t i = 0; i < f->n; i++) {
		struct fake_key *k = &f->keys[i];
		struct rec **p = &k->newest;

		while (*p && (*p)->rev > rev)
			p = &(*p)->older;
		if (*p) {
			rec_free_chain((*p)->older);
			(*p)->older = NULL;
			if ((*p)->deleted) {
				free(*p);
				*p = NULL;
			}
		}
		if (k->newest)
			f->keys[kept++] = *k;
		else
			free(k->name);
	}
	f->n = kept;
	f->compacted = rev;
	hub_compact(f->store.hub, rev);
}

/* Under the lock. Deletes of keys that are not there change nothing and make no revision, as in etcd. */
static int64_t commit(struct fake *f, const struct store_op *ops, size_t n_ops)
{
	struct hub_batch *b = hub_batch_new(f->rev + 1, n_ops);

	b->n = 0;
	for (size_t i = 0; i < n_ops; i++)
		if (ops[i].type == STORE_PUT || rec_at(find_exact(f, ops[i].key), INT64_MAX))
			apply(f, &ops[i], b->rev, &b->ev[b->n++]);
	if (!b->n) {
		hub_batch_unref(b);
		return f->rev;
	}
	f->rev = b->rev;
	hub_publish(f->store.hub, b);
	if (f->rev > f->compacted + STORE_HISTORY_REVS + STORE_HISTORY_REVS / 8)
		compact(f, f->rev - STORE_HISTORY_REVS);
	return f->rev;
}

static int fake_txn(struct store *s, const struct store_cmp *cmp, size_t n_cmp, const struct store_op *ops,
		    size_t n_ops, int64_t *ret_rev, struct err *e)
{
	struct fake *f = fake_of(s);
	int r = 0;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; r == 0 && i < n_cmp; i++) {
		const struct rec *now = rec_at(find_exact(f, cmp[i].key), INT64_MAX);

		if ((now ? now->rev : 0) != cmp[i].mod_rev)
			r = err_set(e, -EEXIST, "%s is at revision %lld, not %lld", cmp[i].key,
				    (long long)(now ? now->rev : 0), (long long)cmp[i].mod_rev);
	}
	for (size_t i = 0; r == 0 && i < n_ops; i++)
		if (ops[i].type == STORE_PUT && ops[i].lease && !leases_has(f->leases, ops[i].lease))
			r = err_set(e, -ENOENT, "lease %lld has ended", (long long)ops[i].lease);
	if (r == 0)
		*ret_rev = commit(f, ops, n_ops);
	pthread_mutex_unlock(&f->lock);
	return r;
}

/* Deletes the keys of a lease that is out of the table, all in one revision. */
static void lease_ended(void *ctx, int64_t id)
{
	struct fake *f = ctx;
	struct store_op *ops = NULL;
	size_t n = 0;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < f->n; i++) {
		const struct rec *r = rec_at(&f->keys[i], INT64_MAX);

		if (r && r->lease == id) {
			ops = xrealloc(ops, (n + 1) * sizeof(*ops));
			ops[n++] = (struct store_op){.type = STORE_DELETE, .key = f->keys[i].name};
		}
	}
	if (n)
		commit(f, ops, n);
	pthread_mutex_unlock(&f->lock);
	free(ops);
}

static int fake_lease_grant(struct store *s, int64_t ttl_s, int64_t *ret_id, struct err *e)
{
	int64_t id = lease_new_id();
	int r = leases_add(fake_of(s)->leases, id, ttl_s);

	if (r < 0)
		return err_errno(e, r, "cannot grant a lease");
	*ret_id = id;
	return 0;
}

static int fake_lease_keepalive(struct store *s, int64_t id, struct err *e)
{
	int r = leases_keepalive(fake_of(s)->leases, id);

	return r < 0 ? err_set(e, r, "lease %lld has ended", (long long)id) : 0;
}

static int fake_lease_revoke(struct store *s, int64_t id, struct err *e)
{
	int r = leases_remove(fake_of(s)->leases, id);

	if (r < 0)
		return err_set(e, r, "lease %lld has ended", (long long)id);
	lease_ended(fake_of(s), id);
	return 0;
}

static int fake_compact(struct store *s, int64_t rev, struct err *e)
{
	struct fake *f = fake_of(s);
	int r = 0;

	pthread_mutex_lock(&f->lock);
	if (rev > f->rev)
		r = err_set(e, -EINVAL, "revision %lld is in the future", (long long)rev);
	else if (rev <= f->compacted)
		r = err_set(e, -ESTALE, "revision %lld was compacted already", (long long)rev);
	else
		compact(f, rev);
	pthread_mutex_unlock(&f->lock);
	return r;
}

static void fake_close(struct store *s)
{
	struct fake *f = fake_of(s);

	leases_free(f->leases);
	hub_free(s->hub);
	for (size_t i = 0; i < f->n; i++) {
		rec_free_chain(f->keys[i].newest);
		free(f->keys[i].name);
	}
	free(f->keys);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct store_driver fake_driver = {
	.close = fake_close,
	.range = fake_range,
	.txn = fake_txn,
	.lease_grant = fake_lease_grant,
	.lease_keepalive = fake_lease_keepalive,
	.lease_revoke = fake_lease_revoke,
	.compact = fake_compact,
};

int fake_open(const char *rest, const struct store_options *o, struct store **ret, struct err *e)
{
	struct fake *f;

	if (*rest)
		return err_set(e, -EINVAL, "nothing may follow 'mem:'");
	f = xcalloc(1, sizeof(*f));
	f->store.driver = &fake_driver;
	f->rev = 1;
	pthread_mutex_init(&f->lock, NULL);
	f->leases = leases_new(lease_ended, f);
	f->store.hub = hub_new(&(struct hub_source){0}, f->rev, true);
	*ret = &f->store;
	return 0;
}
