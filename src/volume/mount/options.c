/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `kuayu mount`, its own way (--name=value) and mount(8)'s (-o name=value,...). From -o come our own settings, the kernel's
 * flags, and words of mount(8) and fstab that mean nothing here and are passed over. A store's further addresses contain commas, too: in -o
 * a word that begins with http:// or https:// belongs to store=. */
#include "volume/mount/internal.h"

#include <sys/stat.h>

#define S(member) offsetof(struct mount_settings, member)

static const struct setting settings[] = {
	{"store", SETTING_STRING, S(store), "$KUAYU_STORE", 0, 0, "URI",
	 "where the volume is described: etcd:URL,URL,..."},
	{"store-ca", SETTING_STRING, S(store_ca), NULL, 0, 0, "FILE", "CA certificates of etcd"},
	{"store-cert", SETTING_STRING, S(store_cert), NULL, 0, 0, "FILE", "client certificate for etcd"},
	{"store-key", SETTING_STRING, S(store_key), NULL, 0, 0, "FILE", "its key"},
	{"domain", SETTING_STRING, S(domain), NULL, 0, 0, "D",
	 "own domain: reads may go to a copy there (volume option read-policy)"},
	{"timeout", SETTING_DURATION, S(timeout_ms), "30s", 1000, 86400000, "TIME",
	 "one operation, all tries included; then the program gets EIO"},
	{"threads", SETTING_INT, S(threads), "10", 1, 256, "N", "operations at once"},
	{"readahead", SETTING_INT, S(readahead_kb), "4096", 128, 65536, "KIB", "read ahead by the kernel"},
	{"read-around", SETTING_INT, S(around_kb), "512", 0, 1024, "KIB",
	 "small reads of a place that is read much ask for the whole block of so much (a power of two from 8 "
	 "on); 0: "
	 "never"},
	{"write-behind", SETTING_INT, S(behind_kb), "0", 0, 1048576, "KIB",
	 "writes return when they are in a queue of so much memory (at least 4096; try 16384); 0: when they "
	 "are on every in-sync copy"},
	{"awake", SETTING_BOOL, S(awake), "true", 0, 0, NULL,
	 "while there is work, this machine's processors do not halt (root): quicker, above all in virtual "
	 "machines, at the price of power; --no-awake: they do"},
	{"leases", SETTING_BOOL, S(leases), "true", 0, 0, NULL,
	 "keep names, attributes and data in the kernel under leases"},
	{"delegations", SETTING_BOOL, S(delegations), "true", 0, 0, NULL,
	 "folders in which many names are made or removed are this mount's alone for a while, names and "
	 "times are told to bricks behind the "
	 "answer; --no-delegations: each waits"},
	{"allow-other", SETTING_BOOL, S(allow_other), NULL, 0, 0, NULL,
	 "other users may use it; default when root mounts"},
	{"read-only", SETTING_BOOL, S(read_only), "false", 0, 0, NULL, "no changes through this mount"},
	{"log", SETTING_STRING, S(log), NULL, 0, 0, "FILE",
	 "log file; else standard error, or syslog when in the background"},
	{"foreground", SETTING_BOOL, S(foreground), "false", 0, 0, NULL, "stay in the foreground"},
};

static const char *const kernel_flags[] = {"ro",   "nosuid", "nodev", "noexec", "noatime", "sync",  "dirsync",
					   "suid", "dev",    "exec",  "rw",	"async",   "atime", NULL};
static const char *const passed_over[] = {"defaults",
					  "auto",
					  "noauto",
					  "user",
					  "nouser",
					  "users",
					  "owner",
					  "group",
					  "_netdev",
					  "nofail",
					  "relatime",
					  "norelatime",
					  "strictatime",
					  "nostrictatime",
					  "diratime",
					  "nodiratime",
					  "default_permissions",
					  "mand",
					  "nomand",
					  NULL};

static bool listed(const char *const *list, const char *word)
{
	for (; *list; list++)
		if (streq(*list, word))
			return true;
	return false;
}

struct words {
	char **v; /* our own options, as --name=value */
	struct buf kernel;
	char *store;
};

static int take_word(struct words *w, const char *word, struct err *e)
{
	char *text;

	if (!word[0] || listed(passed_over, word) || str_starts(word, "x-") || str_starts(word, "comment="))
		return 0;
	if (str_starts(word, "http://") || str_starts(word, "https://")) {
		if (!w->store)
			return err_set(e, -EINVAL, "-o: %s has no store= before it", word);
		text = xasprintf("%s,%s", w->store, word);
		free(w->store);
		w->store = text;
		return 0;
	}
	if (str_starts(word, "store=")) {
		free(w->store);
		w->store = xstrdup(word + 6);
		return 0;
	}
	if (listed(kernel_flags, word)) {
		buf_addf(&w->kernel, "%s%s", w->kernel.len ? "," : "", word);
		return 0;
	}
	if (streq(word, "remount"))
		return err_set(e, -EINVAL,
			       "-o remount: unmount and mount anew; for ro and rw alone: mount -i -o "
			       "remount,ro DIR");
	if (streq(word, "allow_other"))
		word = "allow-other";
	else if (streq(word, "noallow_other"))
		word = "no-allow-other";
	text = xasprintf("--%s", word);
	w->v = strv_add(w->v, text);
	free(text);
	return 0;
}

static int take_list(struct words *w, const char *list, struct err *e)
{
	_cleanup_strv_ char **v = strv_split(list, ',', false);
	int r = 0;

	for (char **p = v; *p && r == 0; p++)
		r = take_word(w, *p, e);
	return r;
}

/* argv without -o, and what was in -o. */
static int unfold(int argc, char **argv, struct words *w, struct err *e)
{
	int r = 0;

	for (int i = 0; i < argc && r == 0; i++) {
		if (streq(argv[i], "-o")) {
			if (++i == argc)
				return err_set(e, -EINVAL, "-o needs a list of options");
			r = take_list(w, argv[i], e);
		} else if (str_starts(argv[i], "-o"))
			r = take_list(w, argv[i] + 2, e);
		else if (streq(argv[i], "-f"))
			w->v = strv_add(w->v, "--foreground");
		else if (i > 0 && (streq(argv[i], "-n") || streq(argv[i], "-s") || streq(argv[i], "-v")))
			continue; /* mount(8) says so to its helpers */
		else
			w->v = strv_add(w->v, argv[i]);
	}
	if (w->store && r == 0) {
		_cleanup_free_ char *text = xasprintf("--store=%s", w->store);

		w->v = strv_add(w->v, text);
	}
	return r;
}

static int check(struct mount_settings *s, char **words, struct err *e)
{
	struct stat st;

	if (!words || !words[0] || !words[1] || words[2])
		return err_set(e, -EINVAL,
			       "what to mount where: kuayu mount VOLUME DIR --store etcd:URL,...");
	if (!s->store)
		return err_set(
			e, -EINVAL,
			"where is the volume described? --store etcd:http://HOST:2379, or KUAYU_STORE");
	if (s->behind_kb > 0 && s->behind_kb < WQ_LIMIT_MIN >> 10)
		return err_set(e, -EINVAL, "--write-behind is 0 or at least %u", WQ_LIMIT_MIN >> 10);
	if (s->around_kb != 0 && (s->around_kb < 8 || (s->around_kb & (s->around_kb - 1))))
		return err_set(e, -EINVAL, "--read-around is 0 or a power of two from 8 to 1024");
	if (s->behind_kb > 0 && !s->leases)
		return err_set(e, -EINVAL, "--write-behind needs leases");
	if (!vol_name_valid(words[0]))
		return err_set(e, -EINVAL, "'%s' is no name of a volume", words[0]);
	s->volume = xstrdup(words[0]);
	s->dir = realpath(words[1], NULL);
	if (!s->dir && errno != ENOTCONN && errno != ECONNABORTED)
		return err_errno(e, -errno, "%s", words[1]);
	if (s->dir && stat(s->dir, &st) == 0 && !S_ISDIR(st.st_mode))
		return err_errno(e, -ENOTDIR, "%s", words[1]);
	if (!s->dir) /* a dead mount */
		s->dir = words[1][0] == '/' ? xstrdup(words[1]) : NULL;
	if (!s->dir)
		return err_set(e, -ENOTCONN, "%s is a dead mount: kuayu umount %s", words[1], words[1]);
	return 0;
}

int options_parse(int argc, char **argv, struct mount_settings *s, struct err *e)
{
	struct words w = {0};
	char **words = NULL;
	int r;

	*s = (struct mount_settings){0};
	r = unfold(argc, argv, &w, e);
	if (r == 0)
		r = settings_parse("mount", "Mounts a volume: kuayu mount VOLUME DIR --store etcd:URL,...",
				   settings, ARRAY_SIZE(settings), (int)strv_len(w.v), w.v, s, &words, e);
	if (r == 0)
		r = check(s, words, e);
	if (r == 0) {
		bool said = false;

		for (char **p = w.v; *p; p++)
			said |= str_starts(*p, "--allow-other") || str_starts(*p, "--no-allow-other");
		if (!said)
			s->allow_other = geteuid() == 0;
		if (s->read_only)
			buf_adds(&w.kernel, w.kernel.len ? ",ro" : "ro");
		s->fuse_options = xstrdup(w.kernel.data ? w.kernel.data : "");
	}
	free(words);
	strv_free(w.v);
	buf_done(&w.kernel);
	free(w.store);
	return r;
}

void options_done(struct mount_settings *s)
{
	free(s->volume);
	free(s->dir);
	free(s->fuse_options);
	settings_done(settings, ARRAY_SIZE(settings), s);
}
