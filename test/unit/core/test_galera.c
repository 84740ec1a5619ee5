/* SPDX-License-Identifier: Apache-2.0 */
/* core/galera against test/golden/galera/: each file holds cases of this form (reasons are compared word for word):
 *
 *   case all three lost power
 *   a stopped red:10 [safe] [age=MS|never] [founding] [of=N]     a member: name, phase, history:seqno
 *   options calm=MS for=MS stuck=MS diverged broken wedged override       for the expectations that follow
 *   a: wait: REASON                                       what that member decides when it sees all this
 *   b votes on a in 5 [promised 4 to c MS ago]: yes: ...  whether that member gives its vote
 *
 * and the parsers of Galera's texts, and a seeded run that checks that no two founders are ever voted for at once. */
#include <dirent.h>
#include <stdarg.h>

#include "test.h"
#include "core/galera/galera.h"

struct golden {
	const char *file;
	int line, cases, checks, wrong;
	char name[200];
	struct galera_situation s;
};

static size_t member_index(struct golden *g, const char *name)
{
	for (size_t i = 0; i < g->s.n; i++)
		if (streq(g->s.members[i].name, name))
			return i;
	fail_msg("%s:%d: no member '%s'", g->file, g->line, name);
	return 0;
}

static int64_t number(struct golden *g, const char *text)
{
	int64_t n;

	if (str_i64(text, &n) < 0)
		fail_msg("%s:%d: '%s' is no number", g->file, g->line, text);
	return n;
}

static void read_member(struct golden *g, char **w)
{
	struct galera_member *m = &g->s.members[g->s.n++];
	char *colon;

	*m = (struct galera_member){.seqno = -1};
	snprintf(m->name, sizeof(m->name), "%s", w[0]);
	if (galera_phase_parse(w[1], &m->phase) < 0)
		fail_msg("%s:%d: phase '%s'", g->file, g->line, w[1]);
	for (w += 2; *w; w++) {
		if (streq(*w, "safe"))
			m->safe_to_bootstrap = true;
		else if (streq(*w, "founding"))
			m->bootstrapping = true;
		else if (str_starts(*w, "of="))
			m->component = number(g, *w + 3);
		else if (streq(*w, "age=never"))
			m->age_ms = -1;
		else if (str_starts(*w, "age="))
			m->age_ms = number(g, *w + 4);
		else if ((colon = strchr(*w, ':'))) {
			*colon = 0;
			snprintf(m->uuid, sizeof(m->uuid), "%s", *w);
			m->seqno = number(g, colon + 1);
		} else
			fail_msg("%s:%d: '%s'", g->file, g->line, *w);
	}
}

static void read_options(struct golden *g, char **w)
{
	g->s.calm_ms = g->s.phase_ms = 10000;
	g->s.stuck_ms = 0;
	g->s.diverged = g->s.override = g->s.broken = g->s.wedged = false;
	for (w++; *w; w++) {
		if (str_starts(*w, "calm="))
			g->s.calm_ms = number(g, *w + 5);
		else if (str_starts(*w, "for="))
			g->s.phase_ms = number(g, *w + 4);
		else if (streq(*w, "diverged"))
			g->s.diverged = true;
		else if (str_starts(*w, "stuck="))
			g->s.stuck_ms = number(g, *w + 6);
		else if (streq(*w, "wedged"))
			g->s.wedged = true;
		else if (streq(*w, "broken"))
			g->s.broken = true;
		else if (streq(*w, "override"))
			g->s.override = true;
		else
			fail_msg("%s:%d: option '%s'", g->file, g->line, *w);
	}
}

static void compare(struct golden *g, const char *got, const char *want)
{
	g->checks++;
	if (streq(got, want))
		return;
	g->wrong++;
	print_error("%s:%d: case %s\n  want %s\n  got  %s\n", g->file, g->line, g->name, want, got);
}

/* What others see of self is older; self always knows itself. */
static void check_decision(struct golden *g, const char *self, const char *want)
{
	char got[GALERA_REASON_MAX + 40];
	struct galera_decision d;

	g->s.self = member_index(g, self);
	d = galera_decide(&g->s, &galera_times_default);
	snprintf(got, sizeof(got), "%s: %s", galera_action_name(d.action), d.reason);
	compare(g, got, want);
}

static void check_vote(struct golden *g, char **w, const char *want)
{
	struct galera_vote v = {.candidate = GALERA_MEMBERS_MAX};
	char reason[GALERA_REASON_MAX];
	bool yes;

	g->s.self = member_index(g, w[0]);
	v.candidate = member_index(g, w[3]);
	v.epoch = (uint64_t)number(g, w[5]);
	if (w[6]) {
		v.promised_epoch = (uint64_t)number(g, w[7]);
		v.promised_to = member_index(g, w[9]);
		v.promised_age_ms = number(g, w[10]);
	}
	yes = galera_grant(&g->s, &galera_times_default, &v, reason);
	compare(g, reason, want);
	assert_int_equal(yes, str_starts(want, "yes"));
}

static void read_line(struct golden *g, char *line)
{
	char *text = strstr(line, ": ");
	_cleanup_strv_ char **w = NULL;

	if (line[0] == '#' || !line[0])
		return;
	if (str_starts(line, "case ")) {
		g->cases++;
		snprintf(g->name, sizeof(g->name), "%s", line + 5);
		g->s = (struct galera_situation){.calm_ms = 10000, .phase_ms = 10000};
		return;
	}
	if (text) {
		*text = 0;
		text += 2;
	}
	w = strv_split(line, ' ', false);
	if (streq(w[0], "options"))
		read_options(g, w);
	else if (!text)
		read_member(g, w);
	else if (strv_len(w) == 1)
		check_decision(g, w[0], text);
	else
		check_vote(g, w, text);
}

static void golden_cases(void **state)
{
	_cleanup_free_ char *dir = xasprintf("%s/test/golden/galera", getenv("KUAYU_SOURCE"));
	struct golden g = {0};
	struct dirent *e;
	DIR *d = opendir(dir);

	(void)state;
	assert_non_null(d);
	while ((e = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, e->d_name), *text = NULL;
		char *save, *line;

		if (!str_ends(e->d_name, ".txt"))
			continue;
		assert_int_equal(file_read(path, 1 << 20, &text, NULL, NULL), 0);
		g.file = e->d_name;
		g.line = 0;
		for (save = text; (line = strsep(&save, "\n"));) {
			g.line++;
			read_line(&g, line);
		}
	}
	closedir(d);
	print_message("%d cases, %d decisions, %d wrong\n", g.cases, g.checks, g.wrong);
	assert_true(g.cases >= 36);
	assert_int_equal(g.wrong, 0);
}

static void texts(void **state)
{
	struct galera_member m = {0};
	char uuid[GALERA_UUID_LEN + 1];
	int64_t seqno;

	(void)state;
	assert_int_equal(galera_grastate_parse("# GALERA saved state\nversion: 2.1\n"
					       "uuid:    d6d91d0b-e2b8-11f0-9f6b-4f3a2fb1a6c1\nseqno:   42\n"
					       "safe_to_bootstrap: 1\n",
					       &m),
			 0);
	assert_string_equal(m.uuid, "d6d91d0b-e2b8-11f0-9f6b-4f3a2fb1a6c1");
	assert_int_equal(m.seqno, 42);
	assert_true(m.safe_to_bootstrap);
	assert_int_equal(galera_grastate_parse("uuid: " GALERA_NO_UUID "\nseqno: -1\n", &m), 0);
	assert_string_equal(m.uuid, "");
	assert_false(m.safe_to_bootstrap);
	assert_int_equal(galera_grastate_parse("uuid: d6d91d0b\nseqno: 1\n", &m), -EINVAL);
	assert_int_equal(galera_grastate_parse("uuid: " GALERA_NO_UUID "\n", &m), -EINVAL);
	assert_int_equal(galera_grastate_parse("", &m), -EINVAL);
	assert_int_equal(
		galera_position_parse("d6d91d0b-e2b8-11f0-9f6b-4f3a2fb1a6c1:17,0-1-17", uuid, &seqno), 0);
	assert_int_equal(seqno, 17);
	assert_int_equal(galera_position_parse(GALERA_NO_UUID ":-1", uuid, &seqno), 0);
	assert_string_equal(uuid, "");
	assert_int_equal(galera_position_parse("d6d91d0b-e2b8-11f0-9f6b-4f3a2fb1a6c1:", uuid, &seqno),
			 -EINVAL);
	assert_int_equal(galera_position_parse("x:1", uuid, &seqno), -EINVAL);
}

/* Random situations, each member with its own stale view of the others; every voter answers by what it sees. Whoever gets all votes
 * needed must be furthest of all in truth, and no primary component may exist. */
static void founders_are_right(void **state)
{
	uint64_t seed = 20261122, founders = 0;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		struct galera_situation truth = {.n = 3, .calm_ms = 10000, .phase_ms = 10000};
		bool primary = false, unknown = false;
		size_t votes = 0, candidate;
		int64_t furthest = -1;

		for (size_t i = 0; i < 3; i++) {
			struct galera_member *m = &truth.members[i];

			seed = seed * 6364136223846793005u + 1442695040888963407u;
			snprintf(m->name, sizeof(m->name), "m%zu", i);
			m->phase = (enum galera_phase)((seed >> 33) % 6);
			m->seqno = -1;
			if (m->phase >= GALERA_STOPPED) {
				snprintf(m->uuid, sizeof(m->uuid), "red");
				m->seqno = (int64_t)((seed >> 40) % 3);
				furthest = MAX(furthest, m->seqno);
			}
			m->bootstrapping = m->phase == GALERA_STARTING && (seed >> 50) % 2;
			m->age_ms = (seed >> 55) % 4 ? 100 : 9000;
			primary |= m->phase == GALERA_PRIMARY;
			unknown |= m->phase == GALERA_UNKNOWN || m->age_ms > 3000;
		}
		candidate = (seed >> 60) % 3;
		for (size_t i = 0; i < 3; i++) {
			struct galera_situation s = truth;
			struct galera_vote v = {.candidate = candidate, .epoch = 1};
			char reason[GALERA_REASON_MAX];

			s.self = i;
			votes += galera_grant(&s, &galera_times_default, &v, reason);
		}
		if (votes < galera_votes_needed(&truth))
			continue;
		founders++;
		assert_false(primary);
		assert_false(unknown && truth.members[candidate].phase == GALERA_UNKNOWN);
		assert_int_equal(truth.members[candidate].seqno, furthest);
	}
	assert_true(founders > 1000);
}

TEST_MAIN(cmocka_unit_test(golden_cases), cmocka_unit_test(texts), cmocka_unit_test(founders_are_right))
