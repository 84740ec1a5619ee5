/* SPDX-License-Identifier: Apache-2.0 */
/* What this node has staged and published, in a file STATE/bound.json: when a mount process dies, its bind mounts are dead too;
 * once the volume is mounted anew they are bound again on top of the dead ones. A container whose mount is a slave of the target's (as
 * `kuayu node` makes it, or HostToContainer propagation) sees the new one at once and goes on with its next open().
 *
 * The file is written before an answer is given, so it never misses what a caller was told; a line too many does no harm. */
#include "volume/csi/driver.h"

#define FILE_MAX ((size_t)16 << 20)

static void bound_free(struct bound *b)
{
	free(b->id);
	free(b->source);
	free(b->target);
}

/* Under the lock. */
static void save(struct driver *d)
{
	_cleanup_json_ json_t *list = json_array();
	_cleanup_free_ char *text = NULL;
	struct err e = {0};

	for (size_t i = 0; i < d->n_bound; i++) {
		const struct bound *b = &d->bound[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s, s:b}", "id", b->id, "source", b->source,
						"target", b->target, "readOnly", b->read_only));
	}
	text = js_text(list);
	if (file_write_atomic(d->bound_file, text, strlen(text), 0600, &e) < 0)
		log_error("%s", e.text);
}

static void put_locked(struct driver *d, const char *id, const char *source, const char *target,
		       bool read_only)
{
	for (size_t i = 0; i < d->n_bound; i++)
		if (streq(d->bound[i].target, target)) {
			bound_free(&d->bound[i]);
			d->bound[i] = d->bound[--d->n_bound];
			break;
		}
	if (d->n_bound == DRIVER_BOUND_MAX)
		return; /* works, but would not come back by itself */
	d->bound = xrealloc(d->bound, (d->n_bound + 1) * sizeof(*d->bound));
	d->bound[d->n_bound++] = (struct bound){xstrdup(id), xstrdup(source), xstrdup(target), read_only};
}

void bound_put(struct driver *d, const char *id, const char *source, const char *target, bool read_only)
{
	pthread_mutex_lock(&d->lock);
	put_locked(d, id, source, target, read_only);
	save(d);
	pthread_mutex_unlock(&d->lock);
}

void bound_drop(struct driver *d, const char *target)
{
	pthread_mutex_lock(&d->lock);
	for (size_t i = 0; i < d->n_bound; i++)
		if (streq(d->bound[i].target, target)) {
			bound_free(&d->bound[i]);
			d->bound[i] = d->bound[--d->n_bound];
			save(d);
			break;
		}
	pthread_mutex_unlock(&d->lock);
}

int bound_load(struct driver *d, struct err *e)
{
	_cleanup_json_ json_t *list = NULL;
	_cleanup_free_ char *text = NULL;
	size_t len, i;
	json_t *o;
	int r = file_read(d->bound_file, FILE_MAX, &text, &len, e);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = js_parse_new(text, len, &list, e);
	if (r < 0) {
		log_warn("%s: %s; what was bound before will not be bound again", d->bound_file, e->text);
		return 0;
	}
	json_array_foreach (list, i, o)
		put_locked(d, js_str_or(o, "id", ""), js_str_or(o, "source", ""), js_str_or(o, "target", ""),
			   js_bool(o, "readOnly", false));
	return 0;
}

static struct bound *copy_all(struct driver *d, size_t *ret_n)
{
	struct bound *out;

	pthread_mutex_lock(&d->lock);
	out = xcalloc(d->n_bound + 1, sizeof(*out));
	*ret_n = d->n_bound;
	for (size_t i = 0; i < d->n_bound; i++) {
		const struct bound *b = &d->bound[i];

		out[i] = (struct bound){xstrdup(b->id), xstrdup(b->source), xstrdup(b->target), b->read_only};
	}
	pthread_mutex_unlock(&d->lock);
	return out;
}

static void free_all(struct bound *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bound_free(&v[i]);
	free(v);
}

static bool is_of(const struct bound *b, const char *volume)
{
	size_t n = strlen(volume);

	return strncmp(b->id, volume, n) == 0 && b->id[n] == '/';
}

/* Binds on top where what is there is not the folder it should be. */
static void repair(const struct bound *b, const char *root)
{
	_cleanup_free_ char *source = xasprintf("%s%s", root, b->source);
	struct err e = {0};

	if (mount_is_point(b->target) && mount_same(source, b->target) == 1)
		return;
	if (!mount_is_point(b->target) && access(b->target, F_OK) < 0)
		return; /* the pod has gone without a word */
	if (mount_bind(source, b->target, b->read_only, &e) < 0)
		log_error("%s", e.text);
	else
		log_info("%s bound again", b->target);
}

void bound_again(void *ctx, const char *volume)
{
	struct driver *d = ctx;
	_cleanup_free_ char *root = NULL;
	size_t n;
	struct bound *all = copy_all(d, &n);

	root = mounts_path(d->mounts, volume);
	for (size_t i = 0; i < n; i++)
		if (is_of(&all[i], volume))
			repair(&all[i], root);
	free_all(all, n);
}

void bound_check(struct driver *d)
{
	size_t n;
	struct bound *all = copy_all(d, &n);

	for (size_t i = 0; i < n && !d->stopping; i++) {
		_cleanup_free_ char *root = NULL;
		struct volume_id v;
		struct err e = {0};

		if (!volume_id_parse(all[i].id, &v))
			continue;
		if (mounts_get(d->mounts, v.volume, &root, &e) < 0)
			log_warn("%s", e.text);
		else
			repair(&all[i], root);
	}
	free_all(all, n);
}

void bound_done(struct driver *d)
{
	free_all(d->bound, d->n_bound);
	d->bound = NULL;
	d->n_bound = 0;
}
