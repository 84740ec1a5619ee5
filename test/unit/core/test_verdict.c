/* SPDX-License-Identifier: Apache-2.0 */
/* Node verdict: golden cases in test/golden/verdict. A case is a text: what the controller observed, a line "---", the
 * verdicts. KUAYU_GOLDEN=update writes the second part anew (read the difference before committing it).
 *
 *   # what happens
 *   contact MS|none
 *   node NAME zone=Z lease=MS|none [steady=MS] [flaps=N] [before=VERDICT] [hears PEER=MS|refused ...] */
#include "test.h"
#include "core/route/verdict.h"

#include <dirent.h>

#define NODES_MAX 32
#define VIEWS_MAX 32

struct scene {
	int64_t contact_ms;
	struct verdict_node nodes[NODES_MAX];
	struct verdict_view views[NODES_MAX][VIEWS_MAX];
	size_t n;
};

static int64_t number(const char *s)
{
	int64_t n = -1;

	if (!streq(s, "none") && str_i64(s, &n) < 0)
		fail_msg("no number: %s", s);
	return n;
}

static enum verdict verdict_of(const char *s)
{
	for (int v = VERDICT_READY; v <= VERDICT_DEAD; v++)
		if (streq(s, verdict_name((enum verdict)v)))
			return (enum verdict)v;
	fail_msg("no verdict: %s", s);
	return VERDICT_READY;
}

static void read_word(struct scene *s, char *name, const char *value, bool views)
{
	struct verdict_node *n = &s->nodes[s->n];

	if (views) {
		assert_true(n->n_views < VIEWS_MAX);
		s->views[s->n][n->n_views++] = streq(value, "refused")
						       ? (struct verdict_view){name, INT64_MAX, true}
						       : (struct verdict_view){name, number(value), false};
	} else if (streq(name, "zone")) {
		n->zone = value;
	} else if (streq(name, "lease")) {
		n->has_lease = !streq(value, "none");
		n->lease_ms = n->has_lease ? number(value) : INT64_MAX;
	} else if (streq(name, "known")) {
		n->lease_ms = number(value);
	} else if (streq(name, "steady")) {
		n->steady_ms = number(value);
	} else if (streq(name, "flaps")) {
		n->flaps = (unsigned)number(value);
	} else if (streq(name, "before")) {
		n->before = verdict_of(value);
	} else {
		fail_msg("unknown word %s", name);
	}
}

static void read_node(struct scene *s, char *line)
{
	bool views = false;
	char *save, *word = strtok_r(line, " ", &save);
	struct verdict_node *n = &s->nodes[s->n];

	assert_true(s->n < NODES_MAX);
	*n = (struct verdict_node){
		.name = strtok_r(NULL, " ", &save), .steady_ms = 60000, .views = s->views[s->n]};
	while ((word = strtok_r(NULL, " ", &save))) {
		char *eq = strchr(word, '=');

		if (streq(word, "hears")) {
			views = true;
			continue;
		}
		assert_non_null(eq);
		*eq = 0;
		read_word(s, word, eq + 1, views);
	}
	s->n++;
}

static void run_case(const char *dir, const char *file)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, file), *text = NULL, *input = NULL;
	struct buf out = {0};
	struct scene s = {0};
	struct verdict_result res[NODES_MAX];
	size_t len;
	char *cut, *save, *line;

	assert_int_equal(file_read(path, 65536, &text, &len, NULL), 0);
	cut = strstr(text, "---\n");
	assert_non_null(cut);
	input = xstrndup(text, (size_t)(cut - text));
	for (line = strtok_r(input, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (str_starts(line, "contact "))
			s.contact_ms = number(line + 8);
		else if (str_starts(line, "node "))
			read_node(&s, line);
		else if (*line != '#')
			fail_msg("%s: %s", file, line);
	}
	verdict_pass(s.nodes, s.n, s.contact_ms, NULL, res);
	for (size_t i = 0; i < s.n; i++)
		buf_addf(&out, "%s %s%s%s: %s\n", s.nodes[i].name, verdict_name(res[i].verdict),
			 res[i].passed ? "" : " (kept)",
			 res[i].fenced && res[i].verdict >= VERDICT_CUT_OFF ? " fenced" : "", res[i].why);
	if (streq(getenv("KUAYU_GOLDEN"), "update")) {
		_cleanup_free_ char *all =
			xasprintf("%.*s---\n%s", (int)(cut - text), text, out.data ? out.data : "");

		assert_int_equal(file_write_atomic(path, all, strlen(all), 0644, NULL), 0);
	} else if (!streq(out.data, cut + 4)) {
		fail_msg("%s: expected\n%sgot\n%s", file, cut + 4, out.data);
	}
	buf_done(&out);
}

static void golden(void **state)
{
	const char *root = getenv("KUAYU_SOURCE");
	_cleanup_free_ char *dir = xasprintf("%s/test/golden/verdict", root ? root : ".");
	struct dirent **list;
	int n = scandir(dir, &list, NULL, alphasort), cases = 0;

	(void)state;
	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		if (str_ends(list[i]->d_name, ".txt")) {
			run_case(dir, list[i]->d_name);
			cases++;
		}
		free(list[i]);
	}
	free(list);
	assert_true(cases >= 24);
}

TEST_MAIN(cmocka_unit_test(golden))
