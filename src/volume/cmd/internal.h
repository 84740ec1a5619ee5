/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs of `kuayu volume` share: their settings, the open store, asking bricks, the option table. */
#pragma once

#include "volume/client.h"
#include "volume/cmd/cmd.h"

struct cmd {
	/* settings */
	char *store_uri, *ca, *cert, *key, *output, *home, *domain;
	int64_t timeout_ms, groups, stripe_kib, interval_ms;
	bool yes, without_copies, force, wait, once, dry_run;
	/* the rest */
	char **words; /* behind the verb */
	size_t n;
	struct store_options so;
	struct store *store;
};

static inline bool wants_json(const struct cmd *c)
{
	return streq(c->output, "json");
}

int cmd_create(struct cmd *c, struct err *e);
int cmd_start(struct cmd *c, struct err *e);
int cmd_stop(struct cmd *c, struct err *e);
int cmd_delete(struct cmd *c, struct err *e);
int cmd_expand(struct cmd *c, struct err *e);
int cmd_replace_brick(struct cmd *c, struct err *e);
int cmd_set(struct cmd *c, struct err *e);
int cmd_reset(struct cmd *c, struct err *e);
int cmd_info(struct cmd *c, struct err *e);
int cmd_list(struct cmd *c, struct err *e);
int cmd_bricks(struct cmd *c, struct err *e);
int cmd_status(struct cmd *c, struct err *e);
int cmd_heal(struct cmd *c, struct err *e);
int cmd_scrub(struct cmd *c, struct err *e);
int cmd_top(struct cmd *c, struct err *e);
int cmd_where(struct cmd *c, struct err *e);
int cmd_mkdir(struct cmd *c, struct err *e);

/* The volume of words[0], which must be there. */
int get_volume(struct cmd *c, struct volcfg_volume *ret, struct err *e);
int started_volume(struct cmd *c, struct volcfg_volume *v,
		   struct err *e); /* likewise; -EINVAL: it is not started */
/* Asks the operator on a terminal; true when there is none, or with --yes. */
bool confirmed(const struct cmd *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void print_json(const json_t *o);

/* ---- options.c: what `set` knows ---- */
struct vol_option {
	const char *name, *initial, *values; /* values: "a|b", or NULL: a number of min..max */
	int64_t min, max;		     /* max 0 = the volume's replica count */
	const char *text;
};
extern const struct vol_option vol_options[];
extern const size_t n_vol_options;
const struct vol_option *vol_option_find(const char *name);
/* -EINVAL with what would be right. */
int vol_option_check(const struct vol_option *o, const struct vol_map *m, const char *value, struct err *e);
/* Into the map where it belongs there, and into the options. value NULL = default. */
void vol_option_apply(const struct vol_option *o, struct volcfg_volume *v, const char *value);

/* ---- ask.c: every brick at once ---- */
struct brick_answer {
	const struct vol_brick *brick;
	char address[64];
	bool online; /* it answered */
	bool known;  /* it is registered in the store */
	json_t *o;   /* its answer, NULL = none; owned */
	uint64_t us; /* how long it took */
	char error[200];
};
/* {"verb": verb, "volume": name} to each brick of the map; ret has n_bricks answers, freed by answers_free. */
int ask_bricks(struct cmd *c, const struct vol_map *m, const char *verb, struct brick_answer **ret,
	       struct err *e);
struct brick_answer *answers_free(struct brick_answer *a, uint32_t n);

/* ---- status.c ---- */
/* The bricks' answers and the store's views (n_groups) as one document (docs/volume-internals.md "Status"); pure. */
json_t *status_merge(const struct volcfg_volume *v, const struct repl_view *views,
		     const struct brick_answer *a);
void status_print(const json_t *status, FILE *f);
int get_status(struct cmd *c, const struct volcfg_volume *v, json_t **ret, struct err *e);
char *bytes_text(char out[32], uint64_t bytes);
