/* SPDX-License-Identifier: Apache-2.0 */
/* See catalog.h. */
#include "volume/csi/catalog.h"

#include "core/vfs/vfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define META_MAX ((size_t)1 << 20)

void catalog_volume_done(struct catalog_volume *v)
{
	free(v->name);
	free(v->key);
	json_decref(v->parameters);
	*v = (struct catalog_volume){0};
}

static bool plain(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > CATALOG_KEY_MAX || *s == '.' || str_starts(s, "h-"))
		return false;
	for (; *s; s++)
		if (!(*s >= 'a' && *s <= 'z') && !(*s >= 'A' && *s <= 'Z') && !(*s >= '0' && *s <= '9') &&
		    !strchr("-_.", *s))
			return false;
	return true;
}

void catalog_key(const char *name, char *out)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (plain(name)) {
		strcpy(out, name); /* no longer than CATALOG_KEY_MAX */
		return;
	}
	ensure(EVP_Digest(name, strlen(name), hash, &len, EVP_sha256(), NULL) == 1);
	strcpy(out, "h-");
	for (unsigned i = 0; i < len; i++)
		sprintf(out + 2 + 2 * i, "%02x", hash[i]);
}

/* A key comes in a volume id from outside. */
static bool key_ok(const char *key)
{
	return str_starts(key, "h-") ? strlen(key) == 66 && strspn(key + 2, "0123456789abcdef") == 64
				     : plain(key);
}

char *catalog_path(const struct catalog *c, const char *key)
{
	return xasprintf("%s/%s/volumes/%s", c->root, c->base, key);
}

static char *meta_path(const struct catalog *c, const char *key)
{
	return xasprintf("%s/%s/meta/%s.json", c->root, c->base, key);
}

static int make_base(const struct catalog *c, struct err *e)
{
	static const char *const folders[] = {"volumes", "meta", "trash"};
	static const mode_t modes[] = {0711, 0700, 0700};

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s/%s", c->root, c->base, folders[i]);
		int r = dir_make(path, modes[i], e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* What mkdir makes is cut by the umask. */
static int make_plain(const char *path, mode_t mode, struct err *e)
{
	if (mkdir(path, 0700) < 0)
		return errno == EEXIST ? -EEXIST : err_errno(e, -errno, "cannot make %s", path);
	return chmod(path, mode) < 0 ? err_errno(e, -errno, "mode of %s", path) : 0;
}

static void set_home(const char *path, const char *home)
{
	if (setxattr(path, VFS_HOME_XATTR, home, strlen(home), 0) < 0)
		log_warn("%s: home %s: %s", path, home, strerror(errno));
}

/* Made in a folder that has the home, then moved; the folders made in it later have it too. */
static int make_at_home(const struct catalog *c, const char *path, const struct catalog_wanted *w,
			struct err *e)
{
	_cleanup_free_ char *parent = xasprintf("%s/%s/home/%s", c->root, c->base, w->home), *born = NULL;
	char tail[13];
	int r = dir_make(parent, 0700, e);

	if (r < 0)
		return r;
	set_home(parent, w->home);
	random_name(tail, 12);
	born = xasprintf("%s/%s", parent, tail);
	r = make_plain(born, w->mode, e);
	if (r < 0)
		return r;
	set_home(born, w->home);
	if (rename(born, path) < 0) {
		r = errno == EEXIST || errno == ENOTEMPTY ? 0 : err_errno(e, -errno, "cannot make %s", path);
		(void)rmdir(born);
	}
	return r;
}

static int make_folder(const struct catalog *c, const char *key, const struct catalog_wanted *w,
		       struct err *e)
{
	_cleanup_free_ char *path = catalog_path(c, key);
	int r;

	if (access(path, F_OK) == 0)
		return 0;
	r = w->home ? make_at_home(c, path, w, e) : make_plain(path, w->mode, e);
	return r == -EEXIST ? 0 : r;
}

int catalog_get(const struct catalog *c, const char *key, struct catalog_volume *ret, struct err *e)
{
	_cleanup_free_ char *path = NULL, *text = NULL;
	_cleanup_json_ json_t *meta = NULL;
	size_t len;
	int r;

	if (!key_ok(key))
		return err_set(e, -ENOENT, "no volume '%.100s'", key);
	path = meta_path(c, key);
	r = file_read(path, META_MAX, &text, &len, e);
	if (r == -ENOENT)
		return err_set(e, -ENOENT, "no volume '%s'", key);
	if (r == 0)
		r = js_parse_new(text, len, &meta, e);
	if (r < 0)
		return err_wrap(e, "%s", path);
	if (!js_str(meta, "name"))
		return err_set(e, -EBADMSG, "%s is damaged", path);
	*ret = (struct catalog_volume){.name = xstrdup(js_str(meta, "name")),
				       .key = xstrdup(key),
				       .bytes = js_int(meta, "bytes", 0),
				       .parameters =
					       json_object_get(meta, "parameters")
						       ? json_incref(json_object_get(meta, "parameters"))
						       : json_object()};
	return 0;
}

/* Writes META beside its place under a name of its own; the caller links or renames it. */
static int write_meta(const struct catalog *c, const struct catalog_volume *v, char **ret_tmp, struct err *e)
{
	_cleanup_json_ json_t *meta = json_pack("{s:s, s:I, s:O}", "name", v->name, "bytes",
						(json_int_t)v->bytes, "parameters", v->parameters);
	_cleanup_free_ char *text = NULL, *tmp = NULL;
	char tail[13];
	int r;

	if (!meta)
		return err_set(e, -EINVAL, "the name or a parameter is no UTF-8");
	text = js_text(meta);
	random_name(tail, 12);
	tmp = xasprintf("%s/%s/meta/.new-%s", c->root, c->base, tail);
	r = file_write_atomic(tmp, text, strlen(text), 0600, e);
	if (r == 0)
		*ret_tmp = take_ptr(tmp);
	return r;
}

static bool fits(const struct catalog_volume *v, const struct catalog_wanted *w)
{
	return v->bytes >= w->bytes && (!w->limit || v->bytes <= w->limit) &&
	       json_equal(v->parameters, (json_t *)w->parameters);
}

static int create_new(const struct catalog *c, const struct catalog_volume *v, const struct catalog_wanted *w,
		      struct err *e)
{
	_cleanup_free_ char *path = meta_path(c, v->key), *tmp = NULL;
	int r = make_base(c, e);

	if (r == 0)
		r = make_folder(c, v->key, w, e);
	if (r == 0)
		r = write_meta(c, v, &tmp, e);
	if (r < 0)
		return r;
	if (link(tmp, path) < 0)
		r = errno == EEXIST ? -EEXIST : err_errno(e, -errno, "cannot make %s", path);
	(void)unlink(tmp);
	return r;
}

int catalog_create(const struct catalog *c, const struct catalog_wanted *w, struct catalog_volume *ret,
		   struct err *e)
{
	struct catalog_volume v;
	char key[CATALOG_KEY_MAX + 1];
	int r;

	catalog_key(w->name, key);
	r = catalog_get(c, key, ret, e);
	if (r == -ENOENT) {
		v = (struct catalog_volume){.name = xstrdup(w->name),
					    .key = xstrdup(key),
					    .bytes = w->bytes,
					    .parameters = json_deep_copy(w->parameters)};
		r = create_new(c, &v, w, e);
		if (r == 0) {
			*ret = v;
			return 0;
		}
		catalog_volume_done(&v);
		if (r == -EEXIST) /* another node was faster */
			r = catalog_get(c, key, ret, e);
	}
	if (r < 0)
		return r;
	if (!fits(ret, w)) {
		catalog_volume_done(ret);
		return err_set(e, -EEXIST, "volume '%.100s' exists with another size or other parameters",
			       w->name);
	}
	r = make_folder(c, key, w, e); /* someone removed it by hand, or a node died in between */
	if (r < 0)
		catalog_volume_done(ret);
	return r;
}

int catalog_remove(const struct catalog *c, const char *key, struct err *e)
{
	_cleanup_free_ char *meta = NULL, *path = NULL, *gone = NULL;
	char tail[13];
	int r;

	if (!key_ok(key))
		return 0;
	meta = meta_path(c, key);
	path = catalog_path(c, key);
	random_name(tail, 12);
	gone = xasprintf("%s/%s/trash/%s.%s", c->root, c->base, key, tail);
	if (unlink(meta) < 0 && errno != ENOENT && errno != ENOTDIR)
		return err_errno(e, -errno, "cannot remove %s", meta);
	if (access(path, F_OK) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : err_errno(e, -errno, "%s", path);
	r = make_base(c, e);
	if (r == 0 && rename(path, gone) < 0 && errno != ENOENT)
		r = err_errno(e, -errno, "cannot move %s away", path);
	return r;
}

int catalog_expand(const struct catalog *c, const char *key, int64_t bytes, int64_t *ret, struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_free_ char *path = NULL, *tmp = NULL;
	int r = catalog_get(c, key, &v, e);

	if (r < 0)
		return r;
	if (v.bytes < bytes) {
		v.bytes = bytes;
		path = meta_path(c, key);
		r = write_meta(c, &v, &tmp, e);
		if (r == 0 && rename(tmp, path) < 0)
			r = err_errno(e, -errno, "cannot replace %s", path);
	}
	*ret = v.bytes;
	return r;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int catalog_list(const struct catalog *c, char ***ret, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/%s/meta", c->root, c->base);
	size_t n = 0, cap = 64;
	struct dirent *de;
	char **out;
	DIR *d = opendir(dir);

	if (!d && errno != ENOENT)
		return err_errno(e, -errno, "%s", dir);
	out = xcalloc(cap, sizeof(*out));
	while (d && (de = readdir(d)) && n < CATALOG_VOLUMES_MAX) {
		size_t len = strlen(de->d_name);

		if (de->d_name[0] == '.' || !str_ends(de->d_name, ".json"))
			continue;
		if (n + 1 == cap) {
			out = xrealloc(out, 2 * cap * sizeof(*out));
			cap *= 2;
		}
		out[n++] = xstrndup(de->d_name, len - 5);
	}
	if (d)
		closedir(d);
	out[n] = NULL;
	if (n)
		qsort(out, n, sizeof(*out), compare);
	*ret = out;
	return 0;
}

void catalog_empty_trash(const struct catalog *c)
{
	_cleanup_free_ char *dir = xasprintf("%s/%s/trash", c->root, c->base);
	struct dirent *de;
	DIR *d = opendir(dir);

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, de->d_name);

		if (!streq(de->d_name, ".") && !streq(de->d_name, ".."))
			(void)dir_remove(path, NULL);
	}
	if (d)
		closedir(d);
}
