/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes of a pod: POD/volumes/NAME.
 *
 * ConfigMap, Secret and downward API volumes are written as Kubernetes writes them: the files in a new folder ..N, the link ..data swapped
 * to it by rename(2), each key a link to ..data/KEY: a reader sees all keys of one version. They are rewritten only when the
 * content differs (a hash is kept in the link's name). emptyDir is a folder, or a tmpfs for medium Memory; hostPath is the node's own path.
 * Claims and CSI volumes are in claim_volume.c. Sub-paths are resolved here, once, and must stay inside the volume. Content is small (1 MiB objects): written on the loop thread. */
#include "node/agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "model/model.h"
#include "node/oci.h"

struct vfile {
	char *path, *data;
	size_t len;
	mode_t mode;
};

struct vfiles {
	struct vfile f[512];
	size_t n;
	int64_t group; /* -1 = root's; else the files are this group's, which may read them (fsGroup, as in Kubernetes) */
};

static void vfiles_free_p(struct vfiles **v)
{
	for (size_t i = 0; *v && i < (*v)->n; i++) {
		free((*v)->f[i].path);
		free((*v)->f[i].data);
	}
	free(*v);
}

static bool path_ok(const char *p)
{
	_cleanup_strv_ char **parts = strv_split(p, '/', true);

	if (!*p || *p == '/')
		return false;
	for (size_t i = 0; parts[i]; i++)
		if (!*parts[i] || str_starts(parts[i], ".."))
			return false;
	return true;
}

static int add_file(struct vfiles *v, const char *path, char *data, size_t len, mode_t mode, struct err *e)
{
	if (!path_ok(path) || v->n == ARRAY_SIZE(v->f)) {
		free(data);
		return err_set(e, -EINVAL, "bad path \"%s\" in a volume, or more than %zu files", path,
			       ARRAY_SIZE(v->f));
	}
	v->f[v->n++] = (struct vfile){xstrdup(path), data, len, v->group < 0 ? mode : mode | 0440};
	return 0;
}

static char *volume_path(struct pod *p, const char *name)
{
	return xasprintf("%s/volumes/%s", p->dir, name);
}

/* ---- content ---- */

static int add_keys(struct vfiles *v, const json_t *obj, const char *list, bool secret, mode_t mode,
		    struct err *e)
{
	const char *k;
	json_t *val;

	json_object_foreach (json_object_get(obj, list), k, val) {
		size_t len = 0;
		char *data = env_key_bytes(obj, k, secret, &len);
		int r = data ? add_file(v, k, data, len, mode, e) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static int object_files(struct pod *p, const json_t *src, bool secret, struct vfiles *v, struct err *e)
{
	const char *name = js_str_or(src, secret ? "secretName" : "name", "");
	struct kube_cache *cache = secret ? p->a->secrets : p->a->config_maps;
	json_t *obj = kube_cache_get(cache, p->ns, name), *items = json_object_get(src, "items"), *item;
	mode_t mode = (mode_t)js_int(src, "defaultMode", 0644) & 0777;
	bool optional = js_bool(src, "optional", false);
	size_t i;
	int r;

	if (!obj)
		return optional ? 0
				: err_set(e, -ENOENT, "%s \"%s\" not found", secret ? "secret" : "configmap",
					  name);
	if (!items) {
		r = add_keys(v, obj, "data", secret, mode, e);
		return r < 0 || secret ? r : add_keys(v, obj, "binaryData", false, mode, e);
	}
	json_array_foreach (items, i, item) {
		const char *key = js_str_or(item, "key", "");
		size_t len = 0;
		char *data = env_key_bytes(obj, key, secret, &len);

		if (!data && optional)
			continue;
		if (!data)
			return err_set(e, -ENOENT, "%s \"%s\" has no key \"%s\"",
				       secret ? "secret" : "configmap", name, key);
		r = add_file(v, js_str_or(item, "path", key), data, len,
			     (mode_t)js_int(item, "mode", mode) & 0777, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int downward_files(struct pod *p, const json_t *src, struct vfiles *v, struct err *e)
{
	mode_t mode = (mode_t)js_int(src, "defaultMode", 0644) & 0777;
	struct env_sources s;
	json_t *item;
	size_t i;
	int r;

	pod_env_sources(p, &s);
	json_array_foreach (json_object_get(src, "items"), i, item) {
		json_t *field = json_object_get(item, "fieldRef"),
		       *res = json_object_get(item, "resourceFieldRef");
		char *text = field ? env_field(&s, js_str_or(field, "fieldPath", ""))
				   : env_resource(&s, NULL, res);

		if (!text)
			return err_set(e, -EINVAL, "downward API volume: unknown field");
		r = add_file(v, js_str_or(item, "path", ""), text, strlen(text),
			     (mode_t)js_int(item, "mode", mode) & 0777, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- writing ---- */

static int write_plain(const char *path, const struct vfile *f, int64_t group)
{
	_cleanup_close_ int fd = -1;
	size_t done = 0;
	_cleanup_free_ char *dir = xstrdup(path);

	*strrchr(dir, '/') = 0;
	if (dir_make(dir, 0755, NULL) < 0)
		return -EIO;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, f->mode);
	if (fd < 0)
		return -errno;
	while (done < f->len) {
		ssize_t n = write(fd, f->data + done, f->len - done);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	if (group >= 0 && fchown(fd, (uid_t)-1, (gid_t)group) < 0)
		return -errno;
	return fchmod(fd, f->mode) < 0 ? -errno : 0;
}

/* LINK -> target, atomically. */
static int swap_link(const char *dir, const char *name, const char *target)
{
	_cleanup_free_ char *tmp = xasprintf("%s/..tmp", dir), *path = xasprintf("%s/%s", dir, name);

	(void)unlink(tmp);
	if (symlink(target, tmp) < 0 || rename(tmp, path) < 0)
		return -errno;
	return 0;
}

/* Links of keys that are gone are removed, of new ones made. */
static int link_keys(const char *dir, const struct vfiles *v)
{
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		bool keep = str_starts(de->d_name, "..") || streq(de->d_name, ".");

		for (size_t i = 0; i < v->n && !keep; i++) {
			size_t n = strlen(de->d_name);

			keep = strncmp(v->f[i].path, de->d_name, n) == 0 &&
			       (v->f[i].path[n] == 0 || v->f[i].path[n] == '/');
		}
		if (!keep)
			(void)unlinkat(dirfd(d), de->d_name, 0);
	}
	if (d)
		closedir(d);
	for (size_t i = 0; i < v->n; i++) {
		_cleanup_free_ char *top = xstrndup(v->f[i].path, strcspn(v->f[i].path, "/"));
		_cleanup_free_ char *link = xasprintf("%s/%s", dir, top), *to = xasprintf("..data/%s", top);

		if (symlink(to, link) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static uint64_t content_hash(const struct vfiles *v)
{
	uint64_t h = 1 + (uint64_t)(v->group + 1);

	for (size_t i = 0; i < v->n; i++)
		h = h * 1000003 ^ hash_fnv64(v->f[i].path, strlen(v->f[i].path)) ^
		    hash_fnv64(v->f[i].data, v->f[i].len) * 31 ^ v->f[i].mode;
	return h;
}

static int write_files(const char *dir, const struct vfiles *v, struct err *e)
{
	_cleanup_free_ char *name = xasprintf("..%016llx", (unsigned long long)content_hash(v));
	_cleanup_free_ char *data = xasprintf("%s/..data", dir), *fresh = xasprintf("%s/%s", dir, name),
			    *old = NULL;
	char now[64] = "";
	int r;

	if (dir_make(dir, 0755, e) < 0)
		return -EIO;
	if (readlink(data, now, sizeof(now) - 1) > 0 && streq(now, name))
		return 0;
	r = dir_make(fresh, 0755, e);
	for (size_t i = 0; i < v->n && r == 0; i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", fresh, v->f[i].path);

		r = write_plain(path, &v->f[i], v->group);
	}
	if (r == 0)
		r = swap_link(dir, "..data", name);
	if (r == 0)
		r = link_keys(dir, v);
	if (r < 0)
		return err_errno(e, r, "volume %s", dir);
	if (*now) {
		old = xasprintf("%s/%s", dir, now);
		(void)dir_remove(old, NULL);
	}
	return 0;
}

static int write_empty_dir(struct pod *p, const json_t *src, const char *dir, struct err *e)
{
	int64_t group = js_int(p->obj, "spec.securityContext.fsGroup", -1), limit = 0;
	struct stat st;

	if (stat(dir, &st) == 0)
		return 0;
	if (dir_make(dir, 0777, e) < 0)
		return -EIO;
	if (streq(js_str(src, "medium"), "Memory")) {
		_cleanup_free_ char *opts = NULL;

		(void)model_quantity_json(json_object_get(src, "sizeLimit"), &limit);
		opts = limit > 0 ? xasprintf("mode=1777,size=%lld", (long long)(limit / 1000))
				 : xstrdup("mode=1777");
		if (mount("tmpfs", dir, "tmpfs", MS_NOSUID | MS_NODEV, opts) < 0)
			return err_errno(e, -errno, "tmpfs for an emptyDir");
	}
	if (group >= 0 && chown(dir, (uid_t)-1, (gid_t)group) < 0)
		return err_errno(e, -errno, "group of an emptyDir");
	return chmod(dir, group >= 0 ? 02777 : 0777) < 0 ? err_errno(e, -errno, "mode of an emptyDir") : 0;
}

static int write_host_path(const json_t *src, struct err *e)
{
	static const struct {
		const char *type, *text;
		mode_t mode;
	} special[] = {{"Socket", "socket", S_IFSOCK},
		       {"CharDevice", "character device", S_IFCHR},
		       {"BlockDevice", "block device", S_IFBLK}};
	const char *path = js_str_or(src, "path", ""), *type = js_str_or(src, "type", "");
	struct stat st;
	bool there = stat(path, &st) == 0;

	if (*path != '/' || strstr(path, "/../"))
		return err_set(e, -EINVAL, "hostPath \"%s\" is no absolute path", path);
	if (streq(type, "File") || streq(type, "FileOrCreate")) {
		_cleanup_close_ int fd = !there && streq(type, "FileOrCreate")
						 ? open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)
						 : -1;

		return (there && S_ISREG(st.st_mode)) || fd >= 0
			       ? 0
			       : err_set(e, -ENOENT, "hostPath %s is no file", path);
	}
	if (streq(type, "Directory"))
		return there && S_ISDIR(st.st_mode) ? 0
						    : err_set(e, -ENOENT, "hostPath %s is no folder", path);
	for (size_t i = 0; i < ARRAY_SIZE(special); i++)
		if (streq(type, special[i].type))
			return there && (st.st_mode & S_IFMT) == special[i].mode
				       ? 0
				       : err_set(e, -ENOENT, "hostPath %s is no %s", path, special[i].text);
	if (!there)
		return dir_make(path, 0755, e);
	if (streq(type, "DirectoryOrCreate") && !S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "hostPath %s is no folder", path);
	return 0;
}

static int write_volume(struct pod *p, const json_t *vol, struct err *e)
{
	__attribute__((cleanup(vfiles_free_p))) struct vfiles *v = xcalloc(1, sizeof(*v));
	_cleanup_free_ char *dir = volume_path(p, js_str_or(vol, "name", ""));
	const json_t *src;
	int r;

	v->group = js_int(p->obj, "spec.securityContext.fsGroup", -1);
	if (claim_volume_is(p, js_str_or(vol, "name", "")))
		return 0; /* claim_volume.c */
	if ((src = json_object_get(vol, "emptyDir")))
		return write_empty_dir(p, src, dir, e);
	if ((src = json_object_get(vol, "hostPath")))
		return write_host_path(src, e);
	if ((src = json_object_get(vol, "configMap")))
		r = object_files(p, src, false, v, e);
	else if ((src = json_object_get(vol, "secret")))
		r = object_files(p, src, true, v, e);
	else if ((src = json_object_get(vol, "downwardAPI")))
		r = downward_files(p, src, v, e);
	else
		return err_set(e, -ENOTSUP, "volume \"%s\" is of a kind that this node does not offer",
			       js_str_or(vol, "name", ""));
	return r < 0 ? r : write_files(dir, v, e);
}

int volumes_write(struct pod *p, struct err *e)
{
	json_t *vol;
	size_t i;

	json_array_foreach (js_get(p->obj, "spec.volumes"), i, vol) {
		int r = path_ok(js_str_or(vol, "name", "")) ? write_volume(p, vol, e)
							    : err_set(e, -EINVAL, "bad name of a volume");

		if (r < 0)
			return r;
	}
	return 0;
}

void volumes_remove(struct pod *p)
{
	json_t *vol;
	size_t i;

	json_array_foreach (js_get(p->obj, "spec.volumes"), i, vol) {
		_cleanup_free_ char *dir = volume_path(p, js_str_or(vol, "name", "none"));

		if (streq(js_str(vol, "emptyDir.medium"), "Memory"))
			while (umount2(dir, MNT_DETACH) == 0)
				continue;
	}
}

/* ---- mounts of a container ---- */

static char *volume_source(struct pod *p, const char *name, bool *ret_writable)
{
	json_t *vol;
	size_t i;

	json_array_foreach (js_get(p->obj, "spec.volumes"), i, vol) {
		if (!streq(js_str(vol, "name"), name))
			continue;
		*ret_writable = json_object_get(vol, "hostPath") || json_object_get(vol, "emptyDir");
		if (json_object_get(vol, "hostPath"))
			return xstrdup(js_str_or(vol, "hostPath.path", "/nowhere"));
		return volume_path(p, name);
	}
	return NULL;
}

/* Real path of SOURCE/SUB, made as a folder where missing in writable volumes; -EINVAL when it leaves the volume. */
static int resolve_sub_path(const char *source, const char *sub, bool writable, char **ret, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", source, sub);
	char root[PATH_MAX], real[PATH_MAX];
	size_t n;

	if (!path_ok(sub))
		return err_set(e, -EINVAL, "bad subPath \"%s\"", sub);
	if (access(path, F_OK) < 0 && writable && dir_make(path, 0755, e) < 0)
		return -EIO;
	if (!realpath(source, root) || !realpath(path, real))
		return err_errno(e, -errno, "subPath %s", sub);
	n = strlen(root);
	if (strncmp(real, root, n) != 0 || (real[n] && real[n] != '/'))
		return err_set(e, -EINVAL, "subPath \"%s\" leads out of its volume", sub);
	*ret = xstrdup(real);
	return 0;
}

static int one_mount(struct pod *p, const json_t *vm, const json_t *env, struct oci_mount *m, struct err *e)
{
	const char *name = js_str_or(vm, "name", ""), *target = js_str_or(vm, "mountPath", "");
	const char *sub = js_str_or(vm, "subPath", ""), *expr = js_str_or(vm, "subPathExpr", "");
	_cleanup_free_ char *expanded = *expr ? env_expand(expr, env) : xstrdup(sub), *source = NULL;
	bool writable = false;

	if (*target != '/')
		return err_set(e, -EINVAL, "mountPath \"%s\" is not absolute", target);
	if (claim_volume_is(p, name)) {
		int r;

		if (*expanded && !path_ok(expanded))
			return err_set(e, -EINVAL, "bad subPath \"%s\"", expanded);
		r = claim_volume_source(p, name, expanded, &m->source, &m->read_only, e);
		if (r < 0)
			return r;
		m->read_only |= js_bool(vm, "readOnly", false);
		m->slave = true;
		m->target = xstrdup(target);
		return 0;
	}
	source = volume_source(p, name, &writable);
	if (!source)
		return err_set(e, -EINVAL, "the pod has no volume \"%s\"", name);
	m->read_only = js_bool(vm, "readOnly", false) || !writable;
	if (*expanded) {
		int r = resolve_sub_path(source, expanded, writable, &m->source, e);

		if (r < 0)
			return r;
	} else {
		m->source = take_ptr(source);
	}
	m->target = xstrdup(target);
	return 0;
}

static bool mounted(const json_t *container, const char *target)
{
	json_t *vm;
	size_t i;

	json_array_foreach (json_object_get(container, "volumeMounts"), i, vm)
		if (streq(js_str(vm, "mountPath"), target))
			return true;
	return false;
}

int volumes_mounts(struct container *c, const json_t *container, const json_t *env,
		   struct oci_mount **ret_mounts, size_t *ret_n, struct err *e)
{
	const char *message = js_str_or(container, "terminationMessagePath", "/dev/termination-log");
	struct pod *p = c->pod;
	static const char *const own[][2] = {{"etc-hosts", "/etc/hosts"},
					     {"etc-hostname", "/etc/hostname"},
					     {"etc-resolv.conf", "/etc/resolv.conf"}};
	json_t *list = json_object_get(container, "volumeMounts"), *vm;
	struct oci_mount *m = xcalloc(json_array_size(list) + ARRAY_SIZE(own) + 2, sizeof(*m));
	size_t n = 0, i;

	for (i = 0; i < ARRAY_SIZE(own); i++) {
		_cleanup_free_ char *source = xasprintf("%s/%s", p->dir, own[i][0]);

		if (!mounted(container, own[i][1]) && access(source, F_OK) == 0)
			m[n++] = (struct oci_mount){take_ptr(source), xstrdup(own[i][1]), false};
	}
	if (*message == '/' && !mounted(container, message))
		m[n++] = (struct oci_mount){xasprintf("%s/termination-log", c->dir), xstrdup(message), false};
	json_array_foreach (list, i, vm) {
		int r = one_mount(p, vm, env, &m[n], e);

		if (r < 0) {
			volumes_free_mounts(m, n + 1);
			return r;
		}
		n++;
	}
	*ret_mounts = m;
	*ret_n = n;
	return 0;
}

void volumes_free_mounts(struct oci_mount *m, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(m[i].source);
		free(m[i].target);
	}
	free(m);
}
