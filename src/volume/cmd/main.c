/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu volume VERB: the table of verbs and what they have in common. A verb gets its words and an open store, returns 0 or -errno with one
 * sentence, which is printed here. Exit status: 0, 1 = it failed, 2 = it was asked wrongly. */
#include "volume/cmd/internal.h"

#include <stdarg.h>

#define S(field) offsetof(struct cmd, field)

static const struct setting settings[] = {
	{"store", SETTING_STRING, S(store_uri), "$KUAYU_STORE", 0, 0, "URI",
	 "where volumes are described: etcd:URL,URL,..."},
	{"store-ca", SETTING_STRING, S(ca), NULL, 0, 0, "FILE", "CA of the store"},
	{"store-cert", SETTING_STRING, S(cert), NULL, 0, 0, "FILE", "certificate for the store"},
	{"store-key", SETTING_STRING, S(key), NULL, 0, 0, "FILE", "its key"},
	{"output", SETTING_STRING, S(output), "text", 0, 0, "json|text", "also -o"},
	{"timeout", SETTING_DURATION, S(timeout_ms), "2s", 100, 600000, "TIME",
	 "a brick that says nothing for so long is offline"},
	{"yes", SETTING_BOOL, S(yes), "false", 0, 0, NULL, "do not ask (also -y)"},
	{"force", SETTING_BOOL, S(force), "false", 0, 0, NULL,
	 "create: also with bricks that are not registered or have another path; start: believe bricks' "
	 "folders that "
	 "were replaced, as they are; stop, delete: whatever the state"},
	{"without-copies", SETTING_BOOL, S(without_copies), "false", 0, 0, NULL,
	 "create: one copy is enough; losing any brick loses data"},
	{"groups", SETTING_INT, S(groups), "0", 0, VOL_GROUPS_MAX, "N",
	 "create: number of groups, a power of two (0 = by size)"},
	{"stripe-size", SETTING_INT, S(stripe_kib), "1024", 64, 1024, "KIB",
	 "create: bytes of a file in one group before the next one's begin, a power of two"},
	{"wait", SETTING_BOOL, S(wait), "false", 0, 0, NULL,
	 "heal: until all copies are in sync; expand, replace-brick: until all groups have moved"},
	{"once", SETTING_BOOL, S(once), "false", 0, 0, NULL, "top, heal --wait: print once"},
	{"interval", SETTING_DURATION, S(interval_ms), "1s", 50, 3600000, "TIME",
	 "top, heal --wait: time between two looks"},
	{"home", SETTING_STRING, S(home), NULL, 0, 0, "DOMAIN", "mkdir: the folder's primary is there"},
	{"domain", SETTING_STRING, S(domain), NULL, 0, 0, "DOMAIN", "where, mkdir: own domain"},
	{"dry-run", SETTING_BOOL, S(dry_run), "false", 0, 0, NULL,
	 "create, expand, replace-brick: show what would be"},
};

#define NO_WORDS SIZE_MAX

static const struct verb {
	const char *name;
	int (*run)(struct cmd *c, struct err *e);
	size_t min, max; /* words; max 0: any number */
	const char *usage, *text;
} verbs[] = {
	{"create", cmd_create, 2, 0, "NAME [replica N] [stripe M] NODE:/PATH ...",
	 "makes a volume of bricks"},
	{"start", cmd_start, 1, 1, "NAME", "bricks serve it, it can be mounted"},
	{"stop", cmd_stop, 1, 1, "NAME", "nobody can use it any more; data stays"},
	{"status", cmd_status, 0, 1, "[NAME]", "bricks, copies in sync, what is still to heal"},
	{"info", cmd_info, 0, 1, "[NAME]", "layout, bricks and options"},
	{"list", cmd_list, 0, NO_WORDS, "", "names, kinds and states"},
	{"bricks", cmd_bricks, 0, NO_WORDS, "", "bricks that are alive, used or not"},
	{"set", cmd_set, 1, 0, "NAME OPTION VALUE ... | help", "changes options"},
	{"reset", cmd_reset, 1, 2, "NAME [OPTION]", "options as by default"},
	{"delete", cmd_delete, 1, 1, "NAME", "forgets a stopped volume; the bricks keep its files aside"},
	{"expand", cmd_expand, 2, 0, "NAME NODE:/PATH ...",
	 "adds bricks; groups move there while clients go on"},
	{"replace-brick", cmd_replace_brick, 3, 5, "NAME OLD:/PATH NEW:/PATH",
	 "another brick takes the place of one, dead or alive"},
	{"heal", cmd_heal, 1, 2, "NAME [info|full]",
	 "brings copies up to date (they do so by themselves); progress"},
	{"scrub", cmd_scrub, 1, 2, "NAME [start|status]",
	 "reads everything and repairs what does not fit its checksum"},
	{"top", cmd_top, 1, 2, "NAME [files|clients]", "busiest files and clients"},
	{"where", cmd_where, 1, 1, "PATH | NAME:/PATH", "bricks, primary and versions of a file's stripes"},
	{"mkdir", cmd_mkdir, 1, 1, "--home DOMAIN PATH | NAME:/PATH",
	 "a folder whose primary is in a domain"},
};

static void usage(FILE *f)
{
	fputs("Usage: kuayu volume VERB ... [OPTION ...]\n\nVerbs:\n", f);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(f, "  %-13s %-44s %s\n", verbs[i].name, verbs[i].usage, verbs[i].text);
	fputs("\n'kuayu volume VERB --help' lists the options.\n", f);
}

/* -o X, -oX and -y as operators of kubectl and gluster write them. */
static char **long_options(int argc, char **argv, int *ret_argc)
{
	char **out = xcalloc((size_t)argc + 1, sizeof(*out));
	int n = 0;

	for (int i = 0; i < argc; i++) {
		if (i > 0 && streq(argv[i], "-o"))
			out[n++] = xstrdup("--output");
		else if (i > 0 && str_starts(argv[i], "-o") && argv[i][2])
			out[n++] = xasprintf("--output=%s", argv[i] + 2 + (argv[i][2] == '='));
		else if (i > 0 && streq(argv[i], "-y"))
			out[n++] = xstrdup("--yes");
		else
			out[n++] = xstrdup(argv[i]);
	}
	*ret_argc = n;
	return out;
}

int get_volume(struct cmd *c, struct volcfg_volume *ret, struct err *e)
{
	int r;

	if (c->n == 0)
		return err_set(e, -EINVAL, "which volume? 'kuayu volume list' has the names");
	if (!vol_name_valid(c->words[0]))
		return err_set(e, -EINVAL, "'%.80s' is no volume name", c->words[0]);
	r = volcfg_get(c->store, c->words[0], ret, e);
	if (r == -ENOENT)
		return err_set(e, r, "there is no volume '%s'; 'kuayu volume list' has the names",
			       c->words[0]);
	return r;
}

bool confirmed(const struct cmd *c, const char *fmt, ...)
{
	char line[16];
	va_list ap;

	if (c->yes || c->force || !isatty(STDIN_FILENO))
		return true;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(" (y/n) ");
	fflush(stdout);
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

void print_json(const json_t *o)
{
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
}

static int run(struct cmd *c, const struct verb *v, struct err *e)
{
	int r;

	if (!streq(c->output, "json") && !streq(c->output, "text"))
		return err_set(e, -EINVAL, "-o: '%s' is not json or text", c->output);
	if (c->n < v->min)
		return err_set(e, -EINVAL, "usage: kuayu volume %s %s", v->name, v->usage);
	if (v->max && c->n > (v->max == NO_WORDS ? 0 : v->max))
		return err_set(e, -EINVAL, "'%.80s' is too much; usage: kuayu volume %s %s",
			       c->words[v->max == NO_WORDS ? 0 : v->max], v->name, v->usage);
	if (v->run == cmd_set && streq(c->words[0], "help"))
		return cmd_set(c, e);
	if (!c->store_uri)
		return err_set(
			e, -EINVAL,
			"where are the volumes described? --store etcd:http://HOST:2379, or KUAYU_STORE");
	c->so = (struct store_options){.ca_file = c->ca, .cert_file = c->cert, .key_file = c->key};
	r = store_open(c->store_uri, &c->so, &c->store, e);
	if (r == 0)
		r = v->run(c, e);
	c->store = store_free(c->store);
	return r;
}

int cmd_volume(int argc, char **argv)
{
	const struct verb *v = NULL;
	struct cmd c = {0};
	struct err e = {0};
	_cleanup_strv_ char **args = NULL;
	_cleanup_free_ char *title = NULL;
	int n, r;

	if (argc < 2 || streq(argv[1], "help") || streq(argv[1], "--help") || streq(argv[1], "-h")) {
		usage(argc < 2 ? stderr : stdout);
		return argc < 2 ? 2 : 0;
	}
	log_init("volume", LOG_LEVEL_WARN);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (streq(verbs[i].name, argv[1]))
			v = &verbs[i];
	if (!v) {
		fprintf(stderr, "kuayu volume: unknown verb '%s'; 'kuayu volume help' lists them\n", argv[1]);
		return 2;
	}
	args = long_options(argc - 1, argv + 1, &n);
	title = xasprintf("volume %s %s", v->name, v->usage);
	r = settings_parse(title, v->text, settings, ARRAY_SIZE(settings), n, args, &c, &c.words, &e);
	while (r == 0 && c.words && c.words[c.n])
		c.n++;
	if (r == 0)
		r = run(&c, v, &e);
	free(c.words);
	settings_done(settings, ARRAY_SIZE(settings), &c);
	if (r > 0)
		return 0; /* --help */
	if (r < 0)
		fprintf(stderr, "kuayu volume %s: %s\n", v->name, e.text[0] ? e.text : strerror(-r));
	return r == -EINVAL ? 2 : r < 0;
}
