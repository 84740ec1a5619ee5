/* SPDX-License-Identifier: Apache-2.0 */
/* Link commands of the wire:
 *   delay A B DELAY [JITTER]   both directions; `delay A>B ...` only from A to B (likewise for the others)
 *   loss A B PERCENT%          frames lost at random
 *   cut A B | heal A B         nothing passes | passes again
 *   isolate A [except B,C]     cut A from every other site but those
 *   heal-all                   no cut anywhere; delay and loss stay */
#include "lab/wire_control.h"

#include <math.h>

#include "base/base.h"

int wire_words(char *line, char *words[WIRE_WORDS_MAX])
{
	int n = 0;

	for (char *save = NULL, *w = strtok_r(line, " \t\r", &save); w; w = strtok_r(NULL, " \t\r", &save)) {
		if (n == WIRE_WORDS_MAX)
			return -E2BIG;
		words[n++] = w;
	}
	return n;
}

int wire_duration_us(const char *text, uint64_t *ret_us)
{
	char *unit;
	double v = strtod(text, &unit), factor = 0;

	if (unit == text || !isfinite(v) || v < 0)
		return -EINVAL;
	if (streq(unit, "us"))
		factor = 1;
	else if (streq(unit, "ms"))
		factor = 1000;
	else if (streq(unit, "s"))
		factor = 1000000;
	if (factor == 0 || v * factor > (double)WIRE_DELAY_MAX_US)
		return -EINVAL;
	*ret_us = (uint64_t)(v * factor + 0.5);
	return 0;
}

static int parse_loss(const char *text, uint32_t *ret_ppm)
{
	char *unit;
	double v = strtod(text, &unit);

	if (unit == text || !streq(unit, "%") || !(v >= 0 && v <= 100))
		return -EINVAL;
	*ret_ppm = (uint32_t)(v * 10000 + 0.5);
	return 0;
}

struct pair {
	int a, b;
	bool both;
	int words; /* how many words it took */
};

/* "A B" or "A>B"; sites that are not known yet are made, so that links can be set before ports are plugged. */
static int parse_pair(struct wire_net *n, char **words, int n_words, struct pair *p, struct err *e)
{
	char *arrow = n_words > 0 ? strchr(words[0], '>') : NULL;
	const char *second = arrow ? arrow + 1 : n_words > 1 ? words[1] : NULL;

	if (!second)
		return err_set(e, -EINVAL, "two sites are needed: A B, or A>B for one direction");
	if (arrow)
		*arrow = '\0';
	p->both = !arrow;
	p->words = arrow ? 1 : 2;
	p->a = wire_site(n, words[0], true);
	p->b = wire_site(n, second, true);
	if (p->a < 0 || p->b < 0)
		return err_set(e, -EINVAL, "no such site, no valid name or too many sites: %s, %s", words[0],
			       second);
	return 0;
}

static void isolate(struct wire_net *n, int site, char *except)
{
	bool keep[WIRE_SITES_MAX] = {[0] = false};

	keep[site] = true;
	for (char *save = NULL, *w = strtok_r(except, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		int i = wire_site(n, w, false);
		if (i >= 0)
			keep[i] = true;
	}
	for (int i = 0; i < n->n_sites; i++)
		if (!keep[i])
			n->link[site][i].cut = n->link[i][site].cut = true;
}

static int cmd_isolate(struct wire_net *n, char **words, int n_words, struct err *e)
{
	char none[] = "";
	int site;

	if (n_words != 2 && !(n_words == 4 && streq(words[2], "except")))
		return err_set(e, -EINVAL, "isolate A [except B,C]");
	site = wire_site(n, words[1], false);
	if (site < 0)
		return err_set(e, -EINVAL, "no such site: %s", words[1]);
	isolate(n, site, n_words == 4 ? words[3] : none);
	return 0;
}

static void heal_all(struct wire_net *n)
{
	for (int i = 0; i < n->n_sites; i++)
		for (int j = 0; j < n->n_sites; j++)
			n->link[i][j].cut = false;
}

int wire_link_command(struct wire_net *n, char **words, int n_words, struct err *e)
{
	const char *verb = n_words ? words[0] : "";
	bool delay = streq(verb, "delay"), loss = streq(verb, "loss"), cut = streq(verb, "cut");
	uint64_t delay_us = 0, jitter_us = 0;
	uint32_t ppm = 0;
	struct pair p = {.words = 0};
	char **rest;
	int n_rest;

	if (streq(verb, "isolate"))
		return cmd_isolate(n, words, n_words, e);
	if (streq(verb, "heal-all") && n_words == 1)
		return heal_all(n), 0;
	if (!delay && !loss && !cut && !streq(verb, "heal"))
		return -ENOSYS;
	if (parse_pair(n, words + 1, n_words - 1, &p, e) < 0)
		return -EINVAL;
	rest = words + 1 + p.words;
	n_rest = n_words - 1 - p.words;
	if (delay && (n_rest < 1 || n_rest > 2 || wire_duration_us(rest[0], &delay_us) < 0 ||
		      (n_rest == 2 && wire_duration_us(rest[1], &jitter_us) < 0)))
		return err_set(e, -EINVAL, "delay A B DELAY [JITTER]; units us, ms, s; at most 60s");
	if (loss && (n_rest != 1 || parse_loss(rest[0], &ppm) < 0))
		return err_set(e, -EINVAL, "loss A B PERCENT%%");
	if (!delay && !loss && n_rest)
		return err_set(e, -EINVAL, "%s A B takes no more words", verb);
	for (int i = 0; i < (p.both ? 2 : 1); i++) {
		struct wire_link *l = i ? &n->link[p.b][p.a] : &n->link[p.a][p.b];
		if (delay)
			l->delay_us = delay_us, l->jitter_us = jitter_us;
		else if (loss)
			l->loss_ppm = ppm;
		else
			l->cut = cut;
	}
	return 0;
}
