/* SPDX-License-Identifier: Apache-2.0 */
/* config.json after the OCI runtime specification 1.0, as crun 1.8 reads it.
 *
 * Kubernetes' rules: command replaces the image's entrypoint (and drops its cmd), args replaces its cmd; $(VAR) is expanded in both;
 * environment: image, then the pod's; working folder: container, image, "/"; user: runAsUser, image, root. Privileged: all
 * capabilities, all devices, nothing masked. Resources: cpu request -> shares, cpu limit -> quota of 100 ms, memory limit,
 * a fixed limit of tasks. */
#include "node/oci.h"

#include "model/model.h"
#include "node/env.h"

#define PIDS_MAX      4096
#define CPU_PERIOD_US 100000

static const char *const default_caps[] = {
	"CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",	   "CAP_FOWNER",
	"CAP_MKNOD",   "CAP_NET_RAW",	   "CAP_SETGID",	   "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP",	   "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
	"CAP_KILL",    "CAP_AUDIT_WRITE"};

static const char *const all_caps[] = {"CAP_CHOWN",	      "CAP_DAC_OVERRIDE",     "CAP_DAC_READ_SEARCH",
				       "CAP_FOWNER",	      "CAP_FSETID",	      "CAP_KILL",
				       "CAP_SETGID",	      "CAP_SETUID",	      "CAP_SETPCAP",
				       "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
				       "CAP_NET_ADMIN",	      "CAP_NET_RAW",	      "CAP_IPC_LOCK",
				       "CAP_IPC_OWNER",	      "CAP_SYS_MODULE",	      "CAP_SYS_RAWIO",
				       "CAP_SYS_CHROOT",      "CAP_SYS_PTRACE",	      "CAP_SYS_PACCT",
				       "CAP_SYS_ADMIN",	      "CAP_SYS_BOOT",	      "CAP_SYS_NICE",
				       "CAP_SYS_TIME",	      "CAP_SYS_TTY_CONFIG",   "CAP_MKNOD",
				       "CAP_LEASE",	      "CAP_AUDIT_WRITE",      "CAP_AUDIT_CONTROL",
				       "CAP_SETFCAP",	      "CAP_SYSLOG",	      "CAP_BLOCK_SUSPEND",
				       "CAP_AUDIT_READ"};

static bool array_has(const json_t *a, const char *s)
{
	json_t *v;
	size_t i;

	json_array_foreach ((json_t *)a, i, v)
		if (streq(json_string_value(v), s))
			return true;
	return false;
}

/* "NET_ADMIN" or "CAP_NET_ADMIN" -> the latter; owned by out. */
static const char *cap_name(const char *name, char out[64])
{
	snprintf(out, 64, "%s%s", str_starts(name, "CAP_") ? "" : "CAP_", name);
	return out;
}

static bool dropped(const json_t *drop, const char *cap)
{
	return array_has(drop, "ALL") || array_has(drop, "all") || array_has(drop, cap) ||
	       array_has(drop, cap + 4);
}

static json_t *capabilities_new(const json_t *container, bool privileged)
{
	const json_t *add = js_get(container, "securityContext.capabilities.add");
	const json_t *drop = js_get(container, "securityContext.capabilities.drop");
	bool all = privileged || array_has(add, "ALL");
	const char *const *base = all ? all_caps : default_caps;
	size_t n = all ? ARRAY_SIZE(all_caps) : ARRAY_SIZE(default_caps), i;
	_cleanup_json_ json_t *list = json_array();
	char name[64];
	json_t *v;

	for (i = 0; i < n; i++)
		if (privileged || !dropped(drop, base[i]))
			json_array_append_new(list, json_string(base[i]));
	json_array_foreach ((json_t *)add, i, v) {
		const char *cap = cap_name(json_string_value(v) ? json_string_value(v) : "", name);

		for (size_t k = 0; k < ARRAY_SIZE(all_caps); k++)
			if (streq(cap, all_caps[k]) && !array_has(list, cap))
				json_array_append_new(list, json_string(cap));
	}
	return json_pack("{s:O,s:O,s:O}", "bounding", list, "effective", list, "permitted", list);
}

/* ---- user ---- */

/* Field `index` of the line of a passwd-like text whose field `key` is `value`; malloc'ed or NULL. */
static char *colon_field(const char *text, size_t key, const char *value, size_t index)
{
	for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
		_cleanup_free_ char *line = xstrndup(p, strcspn(p, "\n"));
		_cleanup_strv_ char **f = strv_split(line, ':', true);

		if (strv_len(f) > MAX(index, key) && streq(f[key], value))
			return xstrdup(f[index]);
	}
	return NULL;
}

static int lookup(const char *text, const char *name, size_t index, int64_t *ret)
{
	_cleanup_free_ char *number = NULL;

	if (str_i64(name, ret) == 0)
		return *ret < 0 ? -EINVAL : 0;
	number = text ? colon_field(text, 0, name, index) : NULL;
	return number ? str_i64(number, ret) : -ENOENT;
}

static int user_from_image(const struct oci_input *in, int64_t *uid, int64_t *gid, struct err *e)
{
	_cleanup_free_ char *user = xstrdup(js_str_or(in->image, "User", ""));
	char *colon = strchr(user, ':');

	if (!*user)
		return 0;
	if (colon)
		*colon++ = 0;
	if (lookup(in->passwd, user, 2, uid) < 0)
		return err_set(e, -EINVAL, "user \"%s\" of the image is not in its /etc/passwd", user);
	if (colon && lookup(in->group, colon, 2, gid) < 0)
		return err_set(e, -EINVAL, "group \"%s\" of the image is not in its /etc/group", colon);
	return 0;
}

static int user_new(const struct oci_input *in, json_t **ret, struct err *e)
{
	const json_t *psc = js_get(in->pod, "spec.securityContext"),
		     *csc = js_get(in->container, "securityContext");
	int64_t uid = 0, gid = -1, want;
	json_t *groups = json_array(), *g;
	size_t i;
	int r = user_from_image(in, &uid, &gid, e);

	if (r < 0) {
		json_decref(groups);
		return r;
	}
	want = js_int(csc, "runAsUser", js_int(psc, "runAsUser", -1));
	if (want >= 0) {
		uid = want;
		gid = -1;
	}
	if (js_int(csc, "runAsGroup", js_int(psc, "runAsGroup", -1)) >= 0)
		gid = js_int(csc, "runAsGroup", js_int(psc, "runAsGroup", -1));
	if (gid < 0) { /* the user's own group */
		_cleanup_free_ char *number = xasprintf("%lld", (long long)uid);
		_cleanup_free_ char *own = in->passwd ? colon_field(in->passwd, 2, number, 3) : NULL;

		if (!own || str_i64(own, &gid) < 0 || gid < 0)
			gid = 0;
	}
	json_array_foreach (js_get(psc, "supplementalGroups"), i, g)
		json_array_append(groups, g);
	if (js_int(psc, "fsGroup", -1) >= 0)
		json_array_append_new(groups, json_integer(js_int(psc, "fsGroup", 0)));
	if (uid == 0 && js_bool(csc, "runAsNonRoot", js_bool(psc, "runAsNonRoot", false))) {
		json_decref(groups);
		return err_set(e, -EINVAL, "container has runAsNonRoot and image will run as root");
	}
	*ret = json_pack("{s:I,s:I,s:o}", "uid", (json_int_t)uid, "gid", (json_int_t)gid, "additionalGids",
			 groups);
	return 0;
}

/* ---- process ---- */

static void append_all(json_t *out, const json_t *list, const json_t *vars)
{
	json_t *v;
	size_t i;

	json_array_foreach ((json_t *)list, i, v) {
		const char *text = json_string_value(v) ? json_string_value(v) : "";
		_cleanup_free_ char *t = vars ? env_expand(text, vars) : xstrdup(text);

		json_array_append_new(out, json_string(t));
	}
}

static json_t *args_new(const struct oci_input *in)
{
	const json_t *command = json_object_get(in->container, "command"),
		     *args = json_object_get(in->container, "args");
	json_t *out = json_array();

	if (json_array_size(command) > 0)
		append_all(out, command, in->env);
	else
		append_all(out, json_object_get(in->image, "Entrypoint"), NULL);
	if (json_array_size(args) > 0)
		append_all(out, args, in->env);
	else if (json_array_size(command) == 0)
		append_all(out, json_object_get(in->image, "Cmd"), NULL);
	return out;
}

static json_t *env_array_new(const struct oci_input *in)
{
	_cleanup_json_ json_t *all = json_object();
	json_t *out = json_array(), *v;
	const char *k;
	size_t i;

	json_object_set_new(all, "PATH",
			    json_string("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
	json_object_set_new(all, "HOSTNAME", json_string(in->hostname));
	json_array_foreach (json_object_get(in->image, "Env"), i, v) {
		const char *text = json_string_value(v), *eq = text ? strchr(text, '=') : NULL;
		_cleanup_free_ char *name = eq ? xstrndup(text, (size_t)(eq - text)) : NULL;

		if (name)
			json_object_set_new(all, name, json_string(eq + 1));
	}
	json_object_update(all, (json_t *)in->env);
	if (!json_object_get(all, "HOME"))
		json_object_set_new(all, "HOME", json_string("/root"));
	json_object_foreach (all, k, v) {
		_cleanup_free_ char *line = xasprintf("%s=%s", k, json_string_value(v));

		json_array_append_new(out, json_string(line));
	}
	return out;
}

static json_t *cwd_new(const struct oci_input *in)
{
	const char *cwd = js_str_or(in->container, "workingDir", "");

	if (!*cwd)
		cwd = js_str_or(in->image, "WorkingDir", "");
	return json_string(cwd[0] == '/' ? cwd : "/");
}

static int process_new(const struct oci_input *in, bool privileged, json_t **ret, struct err *e)
{
	_cleanup_json_ json_t *args = args_new(in), *user = NULL;
	int r;

	if (json_array_size(args) == 0)
		return err_set(e, -EINVAL,
			       "no command specified: neither the container nor its image names one");
	r = user_new(in, &user, e);
	if (r < 0)
		return r;
	*ret = json_pack("{s:b,s:O,s:O,s:o,s:o,s:o,s:b}", "terminal", 0, "user", user, "args", args, "env",
			 env_array_new(in), "cwd", cwd_new(in), "capabilities",
			 capabilities_new(in->container, privileged), "noNewPrivileges",
			 !privileged &&
				 !js_bool(in->container, "securityContext.allowPrivilegeEscalation", true));
	return 0;
}

/* ---- mounts ---- */

static void add_mount(json_t *list, const char *target, const char *type, const char *source,
		      const char *options)
{
	_cleanup_strv_ char **o = strv_split(options, ',', false);
	json_t *opts = json_array();

	for (size_t i = 0; o && o[i]; i++)
		json_array_append_new(opts, json_string(o[i]));
	json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:o}", "destination", target, "type", type,
					      "source", source, "options", opts));
}

static int by_depth(const void *a, const void *b)
{
	return strcmp((*(const struct oci_mount *const *)a)->target,
		      (*(const struct oci_mount *const *)b)->target);
}

static json_t *mounts_new(const struct oci_input *in, bool privileged)
{
	json_t *list = json_array();
	const struct oci_mount **sorted = xcalloc(in->n_mounts + 1, sizeof(*sorted));

	add_mount(list, "/proc", "proc", "proc", "nosuid,noexec,nodev");
	add_mount(list, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
	add_mount(list, "/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620");
	add_mount(list, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
	add_mount(list, "/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k");
	/* sysfs shows the devices of the network namespace it is mounted in; a pod on the node's network gets the node's own. */
	if (in->ns_net)
		add_mount(list, "/sys", "sysfs", "sysfs",
			  privileged ? "nosuid,noexec,nodev" : "nosuid,noexec,nodev,ro");
	else
		add_mount(list, "/sys", "bind", "/sys",
			  privileged ? "rbind,nosuid,noexec,nodev" : "rbind,nosuid,noexec,nodev,ro");
	for (size_t i = 0; i < in->n_mounts; i++)
		sorted[i] = &in->mounts[i];
	qsort(sorted, in->n_mounts, sizeof(*sorted), by_depth);
	for (size_t i = 0; i < in->n_mounts; i++)
		add_mount(list, sorted[i]->target, "bind", sorted[i]->source,
			  sorted[i]->slave
				  ? (sorted[i]->read_only ? "rbind,rslave,ro" : "rbind,rslave,rw")
				  : (sorted[i]->read_only ? "rbind,rprivate,ro" : "rbind,rprivate,rw"));
	free(sorted);
	return list;
}

/* ---- linux ---- */

static int64_t quantity(const json_t *container, const char *list, const char *name)
{
	int64_t milli = 0;

	(void)model_quantity_json(json_object_get(js_get(container, list), name), &milli);
	return milli;
}

int64_t oci_cpu_millis(const json_t *container)
{
	int64_t cpu = quantity(container, "resources.requests", "cpu");

	return cpu ? cpu : quantity(container, "resources.limits", "cpu");
}

int64_t oci_shares(int64_t cpu_millis)
{
	return CLAMP(cpu_millis * 1024 / 1000, 2, 262144);
}

static json_t *resources_new(const struct oci_input *in, bool privileged)
{
	int64_t cpu = oci_cpu_millis(in->container);
	int64_t cpu_max = quantity(in->container, "resources.limits", "cpu");
	int64_t memory = quantity(in->container, "resources.limits", "memory") / 1000;
	json_t *cpu_json = json_object();
	json_t *r = json_pack("{s:{s:i}}", "pids", "limit", PIDS_MAX);

	json_object_set_new(cpu_json, "shares", json_integer(oci_shares(cpu)));
	if (cpu_max > 0) {
		json_object_set_new(cpu_json, "quota",
				    json_integer(MAX(cpu_max * CPU_PERIOD_US / 1000, 1000)));
		json_object_set_new(cpu_json, "period", json_integer(CPU_PERIOD_US));
	}
	json_object_set_new(r, "cpu", cpu_json);
	if (memory > 0)
		json_object_set_new(r, "memory", json_pack("{s:I}", "limit", (json_int_t)memory));
	if (privileged)
		json_object_set_new(r, "devices", json_pack("[{s:b,s:s}]", "allow", 1, "access", "rwm"));
	return r;
}

static void add_namespace(json_t *list, const char *type, const char *path)
{
	json_t *ns = json_pack("{s:s}", "type", type);

	if (path)
		json_object_set_new(ns, "path", json_string(path));
	json_array_append_new(list, ns);
}

static json_t *namespaces_new(const struct oci_input *in)
{
	json_t *list = json_array();

	if (!js_bool(in->pod, "spec.hostPID", false))
		add_namespace(list, "pid", NULL);
	add_namespace(list, "mount", NULL);
	if (in->ns_net)
		add_namespace(list, "network", in->ns_net);
	if (in->ns_uts)
		add_namespace(list, "uts", in->ns_uts);
	if (in->ns_ipc)
		add_namespace(list, "ipc", in->ns_ipc);
	return list;
}

static json_t *linux_new(const struct oci_input *in, bool privileged)
{
	json_t *l = json_pack("{s:s,s:o,s:o}", "cgroupsPath", in->cgroup, "resources",
			      resources_new(in, privileged), "namespaces", namespaces_new(in));

	for (size_t i = 0; i < in->n_mounts; i++)
		if (in->mounts[i].slave)
			json_object_set_new(l, "rootfsPropagation", json_string("rslave"));
	if (privileged)
		return l;
	json_object_set_new(l, "maskedPaths",
			    json_pack("[s,s,s,s,s,s,s]", "/proc/acpi", "/proc/kcore", "/proc/keys",
				      "/proc/timer_list", "/proc/sched_debug", "/proc/scsi",
				      "/sys/firmware"));
	json_object_set_new(l, "readonlyPaths",
			    json_pack("[s,s,s,s,s]", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
				      "/proc/sysrq-trigger"));
	return l;
}

int oci_config_new(const struct oci_input *in, json_t **ret, struct err *e)
{
	bool privileged = js_bool(in->container, "securityContext.privileged", false);
	json_t *process = NULL;
	int r = process_new(in, privileged, &process, e);

	if (r < 0)
		return r;
	*ret = json_pack("{s:s,s:o,s:{s:s,s:b},s:o,s:o}", "ociVersion", "1.0.0", "process", process, "root",
			 "path", in->rootfs, "readonly",
			 js_bool(in->container, "securityContext.readOnlyRootFilesystem", false), "mounts",
			 mounts_new(in, privileged), "linux", linux_new(in, privileged));
	return *ret ? 0 : err_set(e, -EINVAL, "the container has a text that is not UTF-8");
}
