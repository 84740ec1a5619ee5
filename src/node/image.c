/* SPDX-License-Identifier: Apache-2.0 */
/* Image cache. A reference is resolved to the digest of its manifest; the manifest's layers are unpacked once by umoci into
 * DIR/HEX/rootfs, which is the lower layer of every container's overlay and never changed afterwards.
 *
 *   reference -> store (STORE/NAME/index.json) --yes--> digest -> unpacked? -> done
 *                   | no                                            | no: umoci unpack (child process) -> rename -> done
 *                   +-> known from a former pull and policy allows -> digest -> done
 *                   +-> back-off over? -> skopeo copy to DIR/tmp -> digest -> umoci ... ; failure: 10 s doubling to 300 s
 *
 * A folder DIR/HEX exists only when it is complete (rename at the end). Requests for an image that is under way wait for it. Loop
 * thread only; the work is done by child processes. Files are not forced to disk before use: DIR/HEX/boot holds the boot's id until a
 * later sync(1) has done that; an image with the id of another boot may have holes and is removed at the start. Nothing is removed here: the cache grows by what is deployed. */
#include "node/image.h"

#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>

#include "node/small.h"

#define FLUSH_MS	 5000 /* after an unpacking: a power cut soon after a deployment costs no second one */
#define BACKOFF_FIRST_MS 10000
#define BACKOFF_MAX_MS	 300000
#define PULL_LIMIT_MS	 600000
#define INDEX_MAX	 ((size_t)1 << 20)
#define CONFIG_MAX	 ((size_t)1 << 20)

struct images {
	uv_loop_t *loop;
	char *dir, *store;
	char *const *insecure;
	struct strmap *ready;	/* digest hex -> struct ready */
	struct strmap *jobs;	/* reference -> struct job */
	struct strmap *backoff; /* reference -> struct backoff */
	unsigned seq;
	char boot_id[64];
	struct timer *flush;
	char **flushing; /* digests that a running sync will have made durable */
};

struct ready {
	char *rootfs, *id;
	json_t *config;
};

struct backoff {
	uint64_t until_ms, delay_ms;
	char *text;
};

struct waiter {
	image_done_fn done;
	void *ctx;
	struct waiter *next;
};

/* A pull or unpack under way. */
struct job {
	struct images *im;
	char *ref, *name, *tag, *layout, *digest, *tmp;
	bool pulled; /* layout is ours, in tmp */
	struct waiter *waiters;
};

int image_ref_split(const char *ref, char **ret_name, char **ret_tag)
{
	const char *at = strchr(ref, '@'), *slash = strrchr(ref, '/');
	const char *colon = strrchr(slash ? slash : ref, ':');

	if (!*ref || *ref == '/' || strstr(ref, "..") || strlen(ref) > 1000)
		return -EINVAL;
	for (const char *p = ref; *p; p++)
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
		      strchr("._-/:@", *p)))
			return -EINVAL;
	if (at) {
		*ret_name = xstrndup(ref, (size_t)(at - ref));
		*ret_tag = xstrdup(at + 1);
		return 0;
	}
	if (colon && !colon[1])
		return -EINVAL;
	*ret_name = colon ? xstrndup(ref, (size_t)(colon - ref)) : xstrdup(ref);
	*ret_tag = xstrdup(colon ? colon + 1 : "latest");
	return 0;
}

static int read_json(const char *path, size_t limit, json_t **ret, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	size_t len;
	int r = file_read(path, limit, &text, &len, e);

	return r < 0 ? r : js_parse_new(text, len, ret, e);
}

static bool digest_ok(const char *d)
{
	return d && str_starts(d, "sha256:") && strlen(d) == 71 && strspn(d + 7, "0123456789abcdef") == 64;
}

int oci_layout_digest(const char *layout, const char *tag, char **ret, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/index.json", layout);
	_cleanup_json_ json_t *index = NULL;
	json_t *m;
	size_t i;
	int r = read_json(path, INDEX_MAX, &index, e);

	if (r < 0)
		return r;
	json_array_foreach (js_get(index, "manifests"), i, m) {
		const char *name = json_string_value(json_object_get(json_object_get(m, "annotations"),
								     "org.opencontainers.image.ref.name"));
		const char *digest = js_str(m, "digest");

		if (digest_ok(digest) && (streq(name, tag) || streq(digest, tag))) {
			*ret = xstrdup(digest);
			return 0;
		}
	}
	return err_set(e, -ENOENT, "no tag %s in %s", tag, layout);
}

/* The manifest's configuration blob; its `config` member is what containers need. */
static int read_config(const char *layout, const char *digest, json_t **ret, struct err *e)
{
	_cleanup_free_ char *mpath = xasprintf("%s/blobs/sha256/%s", layout, digest + 7), *cpath = NULL;
	_cleanup_json_ json_t *manifest = NULL;
	const char *config;
	int r = read_json(mpath, CONFIG_MAX, &manifest, e);

	if (r < 0)
		return r;
	config = js_str(manifest, "config.digest");
	if (!digest_ok(config))
		return err_set(e, -EINVAL, "manifest %s names no configuration", digest);
	cpath = xasprintf("%s/blobs/sha256/%s", layout, config + 7);
	return read_json(cpath, CONFIG_MAX, ret, e);
}

/* ---- what is unpacked ---- */

static struct ready *find_ready(struct images *im, const char *name, const char *digest)
{
	struct ready *r = strmap_get(im->ready, digest);
	_cleanup_free_ char *rootfs = NULL, *cpath = NULL;
	json_t *config = NULL;

	if (r)
		return r;
	rootfs = xasprintf("%s/%s/rootfs", im->dir, digest + 7);
	cpath = xasprintf("%s/%s/config.json", im->dir, digest + 7);
	if (access(rootfs, F_OK) < 0 || read_json(cpath, CONFIG_MAX, &config, NULL) < 0)
		return NULL;
	r = xcalloc(1, sizeof(*r));
	r->rootfs = take_ptr(rootfs);
	r->id = xasprintf("%s@%s", name, digest);
	r->config = config;
	strmap_set(im->ready, digest, r);
	return r;
}

static void give(struct waiter *w, const struct ready *r, const char *why, const char *text)
{
	struct image img = {0};

	if (r)
		img = (struct image){.rootfs = r->rootfs, .id = r->id, .config = js_get(r->config, "config")};
	w->done(w->ctx, r ? &img : NULL, r ? NULL : why, text);
}

static char *refs_path(struct images *im, const char *ref)
{
	return xasprintf("%s/refs/%016llx", im->dir, (unsigned long long)hash_fnv64(ref, strlen(ref)));
}

/* Digest that a former pull of this reference found; malloc'ed or NULL. */
static char *known_digest(struct images *im, const char *ref)
{
	_cleanup_free_ char *path = refs_path(im, ref), *text = NULL;
	char *space;
	size_t len;

	if (file_read(path, 2048, &text, &len, NULL) < 0)
		return NULL;
	space = strchr(text, ' ');
	if (!space)
		return NULL;
	*space = 0;
	return digest_ok(text) && streq(space + 1, ref) ? xstrdup(text) : NULL;
}

static void remember_digest(struct images *im, const char *ref, const char *digest)
{
	_cleanup_free_ char *path = refs_path(im, ref), *text = xasprintf("%s %s", digest, ref);

	(void)small_write(path, text, 0600);
}

/* ---- jobs ---- */

static void job_end(struct job *j, const struct ready *r, const char *why, const char *text)
{
	struct images *im = j->im;
	struct waiter *w = j->waiters, *next;
	struct backoff *b = strmap_get(im->backoff, j->ref);

	strmap_del(im->jobs, j->ref);
	if (r && b) {
		strmap_del(im->backoff, j->ref);
		free(b->text);
		free(b);
	} else if (!r) {
		if (!b) {
			b = xcalloc(1, sizeof(*b));
			strmap_set(im->backoff, j->ref, b);
		}
		b->delay_ms = b->delay_ms ? MIN(b->delay_ms * 2, BACKOFF_MAX_MS) : BACKOFF_FIRST_MS;
		b->until_ms = clock_ms() + b->delay_ms;
		free(b->text);
		b->text = xstrdup(text);
		log_warn("image %s: %s: %s", j->ref, why, text);
	}
	for (; w; w = next) {
		next = w->next;
		give(w, r, why, text);
		free(w);
	}
	(void)dir_remove(j->tmp, NULL);
	free(j->ref);
	free(j->name);
	free(j->tag);
	free(j->layout);
	free(j->digest);
	free(j->tmp);
	free(j);
}

static void on_unpacked(void *ctx, const struct proc_result *res)
{
	struct job *j = ctx;
	struct images *im = j->im;
	_cleanup_free_ char *final = xasprintf("%s/%s", im->dir, j->digest + 7), *text = NULL;
	_cleanup_free_ char *bundle = xasprintf("%s/bundle", j->tmp),
			    *cpath = xasprintf("%s/config.json", bundle);
	_cleanup_free_ char *bpath = xasprintf("%s/boot", bundle);
	_cleanup_json_ json_t *config = NULL;
	struct err e = {0};
	struct ready *r;

	if (res->status != 0) {
		text = xasprintf("umoci unpack: %.300s", res->timed_out ? "took too long" : res->err_text);
		job_end(j, NULL, "ErrImagePull", text);
		return;
	}
	if (read_config(j->layout, j->digest, &config, &e) < 0) {
		job_end(j, NULL, "ErrImagePull", e.text);
		return;
	}
	text = js_text(config);
	if (small_write(cpath, text, 0600) < 0 || small_write(bpath, im->boot_id, 0600) < 0) {
		job_end(j, NULL, "ErrImagePull", "the image's folder cannot be written");
		return;
	}
	if (rename(bundle, final) < 0 && errno != EEXIST && errno != ENOTEMPTY) {
		job_end(j, NULL, "ErrImagePull", strerror(errno));
		return;
	}
	r = find_ready(im, j->name, j->digest);
	if (j->pulled)
		remember_digest(im, j->ref, j->digest);
	timer_start(im->flush, FLUSH_MS, 0);
	log_info("image %s unpacked (%s)", j->ref, j->digest);
	job_end(j, r, r ? NULL : "ErrImagePull", "the unpacked image is not readable");
}

static void unpack(struct job *j)
{
	_cleanup_free_ char *image = xasprintf("%s:%s", j->layout, j->pulled ? "pulled" : j->tag);
	_cleanup_free_ char *bundle = xasprintf("%s/bundle", j->tmp);
	_cleanup_free_ char *rootfs = xasprintf("%s/rootfs", bundle);
	/* Gently: one thread, lowest priority, idle I/O. Unpacking must not starve heartbeats, leases and etcd beside it. */
	const char *argv[] = {"env",   "GOMAXPROCS=1", "nice",	 "-n",	    "24",  "ionice", "-c", "3",
			      "umoci", "raw",	       "unpack", "--image", image, rootfs,   NULL};
	struct proc_options o = {.argv = argv, .timeout_ms = PULL_LIMIT_MS, .out_limit = 4096};

	(void)dir_make(bundle, 0755, NULL);
	proc_run(j->im->loop, &o, on_unpacked, j);
}

static void on_pulled(void *ctx, const struct proc_result *res)
{
	struct job *j = ctx;
	_cleanup_free_ char *text = NULL;
	struct err e = {0};
	struct ready *r;

	if (res->status != 0) {
		size_t n = strlen(res->err_text);

		text = xasprintf("skopeo: %s",
				 res->timed_out ? "took too long" : res->err_text + (n > 300 ? n - 300 : 0));
		job_end(j, NULL, "ErrImagePull", text);
		return;
	}
	if (oci_layout_digest(j->layout, "pulled", &j->digest, &e) < 0) {
		job_end(j, NULL, "ErrImagePull", e.text);
		return;
	}
	r = find_ready(j->im, j->name, j->digest);
	if (r) {
		remember_digest(j->im, j->ref, j->digest);
		job_end(j, r, NULL, NULL);
		return;
	}
	unpack(j);
}

static void pull(struct job *j)
{
	_cleanup_free_ char *from =
		xasprintf("docker://%s%s%s", j->name, strchr(j->tag, ':') ? "@" : ":", j->tag);
	_cleanup_free_ char *to = NULL, *host = xstrndup(j->name, strcspn(j->name, "/"));
	bool insecure = j->im->insecure && strv_has(j->im->insecure, host);
	const char *argv[] = {"skopeo",
			      "copy",
			      "--insecure-policy",
			      insecure ? "--src-tls-verify=false" : "--src-tls-verify=true",
			      from,
			      NULL,
			      NULL};
	struct proc_options o = {.argv = argv, .timeout_ms = PULL_LIMIT_MS, .out_limit = 8192};

	j->pulled = true;
	j->layout = xasprintf("%s/layout", j->tmp);
	to = xasprintf("oci:%s:pulled", j->layout);
	argv[5] = to;
	proc_run(j->im->loop, &o, on_pulled, j);
}

static void wait_for(struct job *j, image_done_fn done, void *ctx)
{
	struct waiter *w = xcalloc(1, sizeof(*w));

	w->done = done;
	w->ctx = ctx;
	w->next = j->waiters;
	j->waiters = w;
}

static struct job *job_new(struct images *im, const char *ref, const char *name, const char *tag)
{
	struct job *j = xcalloc(1, sizeof(*j));

	j->im = im;
	j->ref = xstrdup(ref);
	j->name = xstrdup(name);
	j->tag = xstrdup(tag);
	j->tmp = xasprintf("%s/tmp.%d.%u", im->dir, (int)getpid(), im->seq++);
	(void)dir_make(j->tmp, 0700, NULL);
	strmap_set(im->jobs, ref, j);
	return j;
}

static const char *default_policy(const char *policy, const char *tag)
{
	return policy && *policy ? policy : streq(tag, "latest") ? "Always" : "IfNotPresent";
}

void images_get(struct images *im, const char *ref, const char *policy, image_done_fn done, void *ctx)
{
	_cleanup_free_ char *name = NULL, *tag = NULL, *layout = NULL, *digest = NULL;
	struct waiter w = {.done = done, .ctx = ctx};
	struct job *j = strmap_get(im->jobs, ref);
	struct backoff *b = strmap_get(im->backoff, ref);
	struct ready *r = NULL;

	if (image_ref_split(ref, &name, &tag) < 0) {
		give(&w, NULL, "InvalidImageName", "the image reference is malformed");
		return;
	}
	if (j) {
		wait_for(j, done, ctx);
		return;
	}
	policy = default_policy(policy, tag);
	layout = im->store ? xasprintf("%s/%s", im->store, name) : NULL;
	if (layout && oci_layout_digest(layout, tag, &digest, NULL) == 0) {
		r = find_ready(im, name, digest);
	} else if (!streq(policy, "Always") && (digest = known_digest(im, ref))) {
		r = find_ready(im, name, digest);
		free(take_ptr(layout)); /* if it is gone, pull again */
		free(take_ptr(digest));
	} else {
		free(take_ptr(layout));
	}
	if (r) {
		give(&w, r, NULL, NULL);
	} else if (streq(policy, "Never") && !digest) {
		give(&w, NULL, "ErrImageNeverPull",
		     "the image is not on this node and its pull policy is Never");
	} else if (b && clock_ms() < b->until_ms) {
		give(&w, NULL, "ImagePullBackOff", b->text);
	} else {
		j = job_new(im, ref, name, tag);
		wait_for(j, done, ctx);
		j->layout = take_ptr(layout);
		j->digest = take_ptr(digest);
		if (j->digest)
			unpack(j);
		else
			pull(j);
	}
}

void images_cancel(struct images *im, void *ctx)
{
	const char *key;
	struct job *j;

	strmap_foreach (im->jobs, key, j) {
		for (struct waiter **p = &j->waiters; *p;) {
			struct waiter *w = *p;

			if (w->ctx == ctx) {
				*p = w->next;
				free(w);
			} else {
				p = &w->next;
			}
		}
	}
}

/* ---- durability ---- */

static void on_synced(void *ctx, const struct proc_result *res)
{
	struct images *im = ctx;

	for (size_t i = 0; res->status == 0 && im->flushing && im->flushing[i]; i++) {
		_cleanup_free_ char *boot = xasprintf("%s/%s/boot", im->dir, im->flushing[i] + 7);

		(void)unlink(boot);
	}
	if (res->status != 0)
		timer_start(im->flush, FLUSH_MS, 0);
	im->flushing = strv_free(im->flushing);
}

static void on_flush(void *ctx)
{
	struct images *im = ctx;
	const char *argv[] = {"nice", "-n", "24", "ionice", "-c", "3", "sync", "-f", im->dir, NULL};
	struct proc_options o = {.argv = argv, .timeout_ms = PULL_LIMIT_MS, .out_limit = 4096};
	const char *digest;
	struct ready *r;

	if (im->flushing) {
		timer_start(im->flush, FLUSH_MS, 0);
		return;
	}
	strmap_foreach (im->ready, digest, r)
		im->flushing = strv_add(im->flushing, digest);
	if (im->flushing)
		proc_run(im->loop, &o, on_synced, im);
}

/* Images of another boot that were never synced, and what was being pulled when a former agent ended. */
static void remove_torn(struct images *im)
{
	DIR *d = opendir(im->dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *dir = xasprintf("%s/%s", im->dir, de->d_name),
				    *boot = xasprintf("%s/boot", dir);
		_cleanup_free_ char *id = NULL;
		size_t len;

		if (str_starts(de->d_name, "tmp."))
			(void)dir_remove(dir, NULL);
		else if (file_read(boot, sizeof(im->boot_id), &id, &len, NULL) == 0 &&
			 !streq(id, im->boot_id))
			(void)dir_remove(dir, NULL);
		else if (id)
			timer_start(im->flush, FLUSH_MS, 0);
	}
	if (d)
		closedir(d);
}

struct images *images_new(uv_loop_t *loop, const struct images_options *o, struct err *e)
{
	_cleanup_free_ char *refs = xasprintf("%s/refs", o->dir), *boot = NULL;
	struct images *im;
	size_t len;

	if (dir_make(refs, 0700, e) < 0)
		return NULL;
	im = xcalloc(1, sizeof(*im));
	im->loop = loop;
	im->dir = xstrdup(o->dir);
	im->store = o->store && *o->store ? xstrdup(o->store) : NULL;
	im->insecure = o->insecure;
	im->ready = strmap_new();
	im->jobs = strmap_new();
	im->backoff = strmap_new();
	im->flush = timer_new(loop, on_flush, im);
	if (file_read("/proc/sys/kernel/random/boot_id", sizeof(im->boot_id) - 1, &boot, &len, NULL) == 0)
		snprintf(im->boot_id, sizeof(im->boot_id), "%.*s", (int)strcspn(boot, "\n"), boot);
	remove_torn(im);
	return im;
}
