/* SPDX-License-Identifier: Apache-2.0 */
/* Reconcile functions: golden cases in test/golden/control. A case says what is there, which function runs, and after a line
 * "---" what it wants done. KUAYU_GOLDEN=update writes the second part anew (read the difference before committing it).
 *
 *   # what happens
 *   KIND NAME [owner=KIND/NAME] [node=N] [phase=P] [ready|unready] [deleting] [label:K=V] [{JSON merged into the object}]
 *   provisioner NAME
 *   run FUNCTION NAME [verdict=V] [fenced]
 * Objects are in the namespace "n", their uid is "u-NAME", their age one hour; now is 2026-11-22T12:00:00Z. */
#include "test.h"
#include "control/evict.h"

#include <dirent.h>

#define NOW_US 1795348800000000LL

struct scene {
	struct world *w;
	struct plan p;
};

static void put_owner(json_t *o, char *value)
{
	char *slash = strchr(value, '/');
	_cleanup_json_ json_t *owner = NULL;
	enum kind k;

	assert_non_null(slash);
	*slash = 0;
	k = kind_of(NULL, value);
	assert_true(k < KINDS);
	owner = json_pack("{s:{s:s, s:o}}", "metadata", "name", slash + 1, "uid",
			  json_sprintf("u-%s", slash + 1));
	js_set_new(o, "metadata.ownerReferences", json_pack("[o]", owner_ref_new(owner, k, true)));
}

static void put_word(json_t *o, char *word)
{
	char *eq = strchr(word, '=');

	if (streq(word, "ready") || streq(word, "unready")) {
		js_set_new(o, "status.conditions",
			   json_pack("[{s:s, s:s, s:s}]", "type", "Ready", "status",
				     *word == 'r' ? "True" : "False", "lastTransitionTime",
				     "2026-11-22T11:30:00Z"));
		return;
	}
	if (streq(word, "deleting")) {
		js_set_new(o, "metadata.deletionTimestamp", json_string("2026-11-22T11:59:59Z"));
		return;
	}
	assert_non_null(eq);
	*eq++ = 0;
	if (streq(word, "owner"))
		put_owner(o, eq);
	else if (streq(word, "node"))
		js_set_new(o, "spec.nodeName", json_string(eq));
	else if (streq(word, "phase"))
		js_set_new(o, "status.phase", json_string(eq));
	else if (str_starts(word, "label:"))
		json_object_set_new(js_object(o, "metadata.labels"), word + 6, json_string(eq));
	else
		fail_msg("unknown word %s", word);
}

static void put_object(struct scene *s, char *line)
{
	char *json = strchr(line, '{'), *save, *word, *kind_name, *name;
	_cleanup_json_ json_t *o = NULL, *more = NULL, *merged = NULL;
	char version[128];
	enum kind k;

	if (json) {
		struct err e = {0};

		if (js_parse_new(json, strlen(json), &more, &e) < 0)
			fail_msg("%s: %s", json, e.text);
		*json = 0;
	}
	kind_name = strtok_r(line, " ", &save);
	name = strtok_r(NULL, " ", &save);
	k = kind_of(NULL, kind_name);
	if (k == KINDS)
		fail_msg("unknown kind %s", kind_name);
	o = json_pack("{s:s, s:s, s:{s:s, s:o, s:s, s:s, s:i}}", "apiVersion",
		      model_api_version(&control_kinds[k], version), "kind", kind_name, "metadata", "name",
		      name, "uid", json_sprintf("u-%s", name), "resourceVersion", "7", "creationTimestamp",
		      "2026-11-22T11:00:00Z", "generation", 1);
	if (control_kinds[k].namespaced)
		js_set_new(o, "metadata.namespace", json_string("n"));
	while ((word = strtok_r(NULL, " ", &save)))
		put_word(o, word);
	if (more)
		assert_int_equal(model_patch_merge(o, more, &merged, NULL), 0);
	world_put(s->w, k, merged ? merged : o);
}

static void run_line(struct scene *s, char *line)
{
	char *save, *word = strtok_r(line, " ", &save), *fn, *name;
	struct node_view v = {VERDICT_READY, true, false};

	fn = strtok_r(NULL, " ", &save);
	name = strtok_r(NULL, " ", &save);
	while ((word = strtok_r(NULL, " ", &save))) {
		if (streq(word, "fenced"))
			v.fenced = true;
		for (int i = VERDICT_READY; i <= VERDICT_DEAD; i++)
			if (str_starts(word, "verdict=") && streq(word + 8, verdict_name((enum verdict)i)))
				v.verdict = (enum verdict)i;
	}
	if (streq(fn, "replicaset"))
		replicaset_reconcile(s->w, "n", name, &s->p);
	else if (streq(fn, "deployment"))
		deployment_reconcile(s->w, "n", name, &s->p);
	else if (streq(fn, "statefulset"))
		statefulset_reconcile(s->w, "n", name, &s->p);
	else if (streq(fn, "endpoints"))
		endpoints_reconcile(s->w, "n", name, &s->p);
	else if (streq(fn, "node"))
		node_reconcile(s->w, name, &v, &s->p);
	else if (streq(fn, "claim"))
		claim_reconcile(s->w, "n", name, &s->p);
	else if (streq(fn, "volume"))
		volume_reconcile(s->w, "", name, &s->p);
	else if (streq(fn, "podcidr"))
		podcidr_reconcile(s->w, name, &s->p);
	else if (streq(fn, "podgarbage"))
		podgc_reconcile(s->w, &s->p);
	else if (streq(fn, "garbage"))
		gc_reconcile(s->w, "n", name, &s->p);
	else
		fail_msg("unknown function %s", fn);
}

static void print_action(const struct action *a, struct buf *out)
{
	static const char *const names[] = {"create",
					    "update",
					    "merge",
					    "merge-strategic",
					    "delete",
					    "delete-unless-owner",
					    "delete-unless-node",
					    "event",
					    "csi-create",
					    "csi-delete",
					    "csi-expand",
					    "release"};
	const json_t *o = a->obj ? a->obj : a->body;
	_cleanup_free_ char *text = NULL;

	buf_adds(out, names[a->type]);
	if (a->type == ACTION_EVENT) {
		buf_addf(out, " %s %s: %s\n", obj_name(o), js_str(a->body, "reason"),
			 js_str(a->body, "message"));
		return;
	}
	buf_addf(out, " %s%s%s %s", control_kinds[a->kind].kind, a->subresource ? "/" : "",
		 a->subresource ? a->subresource : "", obj_name(o));
	if (a->type == ACTION_DELETE && a->grace_s >= 0)
		buf_addf(out, " grace=%lld", (long long)a->grace_s);
	if (a->type == ACTION_UPDATE && a->subresource)
		text = json_dumps(json_object_get(a->body, "status"), JSON_SORT_KEYS | JSON_COMPACT);
	else if (a->body && a->type != ACTION_DELETE && !(a->type == ACTION_CREATE && a->kind == K_POD))
		text = json_dumps(a->body, JSON_SORT_KEYS | JSON_COMPACT);
	else if (a->type == ACTION_CREATE)
		text = json_dumps(js_get(a->body, "metadata.labels"), JSON_SORT_KEYS | JSON_COMPACT);
	buf_addf(out, "%s%s\n", text ? " " : "", text ? text : "");
}

static void run_case(const char *dir, const char *file)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, file), *text = NULL, *input = NULL;
	_cleanup_buf_ struct buf out = {0};
	struct scene s = {.w = world_new()};
	size_t len;
	char *cut, *save, *line;

	assert_int_equal(file_read(path, 1 << 20, &text, &len, NULL), 0);
	cut = strstr(text, "---\n");
	if (!cut)
		fail_msg("%s: no ---", file);
	input = xstrndup(text, (size_t)(cut - text));
	plan_init(&s.p, NOW_US);
	s.p.fixed_names = 1;
	for (line = strtok_r(input, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (str_starts(line, "provisioner "))
			world_set_provisioner(s.w, line + strlen("provisioner "));
		else if (str_starts(line, "run "))
			run_line(&s, line);
		else if (*line != '#')
			put_object(&s, line);
	for (size_t i = 0; i < s.p.n; i++)
		print_action(&s.p.actions[i], &out);
	if (s.p.again_ms >= 0)
		buf_addf(&out, "again in %lld ms\n", (long long)s.p.again_ms);
	if (!out.len)
		buf_adds(&out, "nothing\n");
	plan_done(&s.p);
	world_free(s.w);
	if (streq(getenv("KUAYU_GOLDEN"), "update")) {
		_cleanup_free_ char *all = xasprintf("%.*s---\n%s", (int)(cut - text), text, out.data);

		assert_int_equal(file_write_atomic(path, all, strlen(all), 0644, NULL), 0);
	} else if (!streq(out.data, cut + 4)) {
		fail_msg("%s: expected\n%sgot\n%s", file, cut + 4, out.data);
	}
}

static void golden(void **state)
{
	const char *root = getenv("KUAYU_SOURCE");
	_cleanup_free_ char *dir = xasprintf("%s/test/golden/control", root ? root : ".");
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
	assert_true(cases >= 20);
}

static void ranges(void **state)
{
	(void)state;
	assert_true(podcidr_range_ok("10.78.0.0/16"));
	assert_true(podcidr_range_ok("10.78.4.0/24"));
	assert_false(podcidr_range_ok("10.78.0.1/16"));
	assert_false(podcidr_range_ok("10.78.0.0/28"));
	assert_false(podcidr_range_ok("fd00::/16"));
	assert_false(podcidr_range_ok("10.78.0.0"));
}

/* What we deleted at once stays away although a lagging cache shows it again; a new object of that name does not. */
static void buried(void **state)
{
	struct world *w = world_new();
	_cleanup_json_ json_t *a =
		json_pack("{s:{s:s, s:s, s:s}}", "metadata", "namespace", "n", "name", "p", "uid", "1");
	_cleanup_json_ json_t *b =
		json_pack("{s:{s:s, s:s, s:s}}", "metadata", "namespace", "n", "name", "p", "uid", "2");

	(void)state;
	world_put(w, K_POD, a);
	world_bury(w, K_POD, a);
	assert_null(world_get(w, K_POD, "n", "p"));
	world_put(w, K_POD, a);
	assert_null(world_get(w, K_POD, "n", "p"));
	world_put(w, K_POD, b);
	assert_ptr_equal(world_get(w, K_POD, "n", "p"), b);
	world_bury(w, K_POD, a);
	assert_ptr_equal(world_get(w, K_POD, "n", "p"), b);
	world_free(w);
}

TEST_MAIN(cmocka_unit_test(golden), cmocka_unit_test(ranges), cmocka_unit_test(buried))
