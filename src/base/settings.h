/* SPDX-License-Identifier: Apache-2.0 */
/* One table a role for every setting: name, type, unit, range, default, text. Command line, --help and (later) man page
 * come out of it. Options are written --name=value or --name value; a switch is --name or --no-name. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum setting_type {
	SETTING_STRING,	  /* char *     */
	SETTING_STRINGS,  /* char **    may be given again; commas separate */
	SETTING_INT,	  /* int64_t    */
	SETTING_DURATION, /* int64_t    milliseconds; "250ms", "2s" */
	SETTING_BOOL,	  /* bool       */
};

struct setting {
	const char *name;
	enum setting_type type;
	size_t offset; /* offsetof() in the role's own struct */
	const char *
		initial; /* text, NULL = none; "$NAME" = that of the environment, when it is there and not empty */
	int64_t min, max; /* SETTING_INT and _DURATION; both 0 = any not negative */
	const char *arg;  /* word for the value in --help, with its unit */
	const char *text;
};

/* Fills `out` with the defaults, then with argv[1..]. Words that are no options are put into *ret_words (NULL = refuse
 * them; borrowed from argv, array malloc'ed). Returns 0, 1 after --help was printed, or -EINVAL with a text that names the option. */
int settings_parse(const char *verb, const char *about, const struct setting *table, size_t n, int argc,
		   char **argv, void *out, char ***ret_words, struct err *e);
/* Frees what settings_parse allocated in out. */
void settings_done(const struct setting *table, size_t n, void *out);
/* What a role's main does: reads the settings into out, begins the log, calls run(out, e), prints its error. Returns the exit status. */
int settings_main(const char *verb, const char *about, const struct setting *table, size_t n, int argc,
		  char **argv, void *out, int (*run)(void *out, struct err *e));
