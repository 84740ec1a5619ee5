/* SPDX-License-Identifier: Apache-2.0 */
/* Plays test/golden/sched/NAME.txt: a cluster and pending pods in words, made into API objects, loaded and decided as the scheduler
 * does it. Lines (indented lines under a node or pod are JSON that is merged into its spec):
 *   node NAME WORD...      cpu=4 memory=8Gi pods=110 (defaults) zone=Z taint=KEY=VALUE:EFFECT unschedulable notready, else labels
 *   namespace NAME label=value...
 *   pod NAME on=NODE WORD...   ns= cpu= memory= owner= priority= port= tolerate=KEY[=VALUE][:EFFECT] select=KEY=VALUE critical terminating
 *   pending NAME WORD...   the same, without on=
 *   option reserve
 *   delete NAME | delete-node NAME
 *   -> NODE                the answer for the last pending pod: this node; the pod is placed there
 *   -> none TEXT           or: refused, with this text */
#include <dirent.h>

#include "test.h"

#include "sched/load.h"

#define WORDS_MAX 40

struct play {
	const char *file;
	int line;
	struct sched_state *state;
	struct sched_options options;
	json_t *pending; /* pod to be decided */
	json_t *last;	 /* node or pod that indented lines belong to, not yet in the state */
	bool last_is_node;
	int answers, wrong;
};

#define play_fail(p, ...)                                     \
	do {                                                  \
		print_error("%s:%d: ", (p)->file, (p)->line); \
		fail_msg(__VA_ARGS__);                        \
	} while (0)

static json_t *parse(struct play *p, const char *text)
{
	struct err e = {0};
	json_t *j = NULL;

	if (js_parse_new(text, strlen(text), &j, &e) < 0)
		play_fail(p, "%s in: %s", e.text, text);
	return j;
}

static void put_str(json_t *o, const char *path, const char *value)
{
	assert_int_equal(js_set_new(o, path, json_string(value)), 0);
}

/* "KEY=VALUE:EFFECT" */
static json_t *taint_of(const char *text, bool toleration)
{
	_cleanup_free_ char *copy = xstrdup(text);
	char *effect = strrchr(copy, ':'), *value;
	json_t *t = json_object();

	if (effect)
		*effect++ = 0;
	value = strchr(copy, '=');
	if (value)
		*value++ = 0;
	if (*copy)
		put_str(t, "key", copy);
	if (value)
		put_str(t, "value", value);
	if (effect)
		put_str(t, "effect", effect);
	if (toleration)
		put_str(t, "operator", value ? "Equal" : "Exists");
	return t;
}

static void label(json_t *o, const char *key, const char *value)
{
	json_object_set_new(js_object(o, "metadata.labels"), key, json_string(value));
}

static json_t *make_node(char **words)
{
	json_t *o = json_object(), *ready = json_object();

	put_str(o, "metadata.name", words[0]);
	label(o, "kubernetes.io/hostname", words[0]);
	put_str(o, "status.allocatable.cpu", "4");
	put_str(o, "status.allocatable.memory", "8Gi");
	put_str(o, "status.allocatable.pods", "110");
	put_str(ready, "type", "Ready");
	put_str(ready, "status", "True");
	json_array_append(js_array(o, "status.conditions"), ready);
	for (char **w = words + 1; *w; w++) {
		char *value = strchr(*w, '=');

		if (value)
			*value++ = 0;
		if (streq(*w, "unschedulable"))
			js_set_new(o, "spec.unschedulable", json_true());
		else if (streq(*w, "notready"))
			put_str(ready, "status", "False");
		else if (streq(*w, "taint"))
			json_array_append_new(js_array(o, "spec.taints"), taint_of(value, false));
		else if (streq(*w, "zone"))
			label(o, "topology.kubernetes.io/zone", value);
		else if (streq(*w, "cpu") || streq(*w, "memory") || streq(*w, "pods") || strchr(*w, '.') ||
			 streq(*w, "ephemeral-storage"))
			json_object_set_new(js_object(o, "status.allocatable"), *w, json_string(value));
		else
			label(o, *w, value ? value : "");
	}
	json_decref(ready);
	return o;
}

static void owner(json_t *o, const char *uid)
{
	json_t *ref = json_object();

	put_str(ref, "uid", uid);
	js_set_new(ref, "controller", json_true());
	json_array_append_new(js_array(o, "metadata.ownerReferences"), ref);
}

static void host_port(json_t *container, const char *value)
{
	json_t *port = json_object();

	js_set_new(port, "hostPort", json_integer(atoi(value)));
	json_array_append_new(js_array(container, "ports"), port);
}

static void pod_word(json_t *o, json_t *container, const char *word, const char *value)
{
	if (streq(word, "on"))
		put_str(o, "spec.nodeName", value);
	else if (streq(word, "ns"))
		put_str(o, "metadata.namespace", value);
	else if (streq(word, "cpu") || streq(word, "memory") || strchr(word, '.') ||
		 streq(word, "ephemeral-storage"))
		json_object_set_new(js_object(container, "resources.requests"), word, json_string(value));
	else if (streq(word, "owner"))
		owner(o, value);
	else if (streq(word, "priority"))
		js_set_new(o, "spec.priority", json_integer(atoi(value)));
	else if (streq(word, "port"))
		host_port(container, value);
	else if (streq(word, "tolerate"))
		json_array_append_new(js_array(o, "spec.tolerations"), taint_of(value ? value : "", true));
	else if (streq(word, "critical"))
		json_object_set_new(js_object(o, "metadata.annotations"), "kuayu.io/critical",
				    json_string("true"));
	else if (streq(word, "terminating"))
		put_str(o, "metadata.deletionTimestamp", "2026-11-22T00:00:00Z");
	else
		label(o, word, value ? value : "");
}

static json_t *make_pod(char **words)
{
	json_t *o = json_object(), *container = json_object();

	put_str(o, "metadata.name", words[0]);
	put_str(o, "metadata.namespace", "default");
	json_array_append_new(js_array(o, "spec.containers"), container);
	for (char **w = words + 1; *w; w++) {
		char *value = strchr(*w, '=');

		if (value)
			*value++ = 0;
		if (streq(*w, "select")) {
			char *v = strchr(value, '=');

			*v++ = 0;
			json_object_set_new(js_object(o, "spec.nodeSelector"), value, json_string(v));
		} else {
			pod_word(o, container, *w, value);
		}
	}
	return o;
}

/* Puts the object that is complete now into the state. */
static void flush(struct play *p)
{
	if (p->last && p->last_is_node)
		sched_node_set(p->state, sched_load_node(p->last));
	else if (p->last)
		sched_pod_set(p->state, sched_load_pod(p->last));
	json_decref(p->last);
	p->last = NULL;
}

static void merge(struct play *p, const char *text)
{
	json_t *to = p->pending ? p->pending : p->last, *fragment = parse(p, text);

	if (!to)
		play_fail(p, "nothing to merge into");
	assert_int_equal(json_object_update_recursive(js_object(to, "spec"), fragment), 0);
	json_decref(fragment);
}

static void answer(struct play *p, const char *want)
{
	struct sched_pod *pod;
	struct sched_decision d;
	_cleanup_buf_ struct buf text = {0};

	if (!p->pending)
		play_fail(p, "no pending pod");
	pod = sched_load_pod(p->pending);
	sched_decide(p->state, pod, &p->options, &d);
	if (d.node)
		buf_adds(&text, d.node->name.s);
	else {
		buf_adds(&text, "none ");
		sched_explain(p->state, pod, &d, &text);
	}
	if (!streq(text.data, want)) {
		for (size_t i = 0; i < d.n_nodes; i++)
			print_error("  %s: why %d, score %.3f\n", sched_node_at(p->state, i)->name.s,
				    (int)d.verdicts[i].why, d.verdicts[i].score);
		print_error("%s:%d: %s\n  wanted: %s\n  got:    %s\n", p->file, p->line, pod->name.s, want,
			    text.data);
		p->wrong++;
	}
	if (d.node) {
		pod->node_name = sched_sym(&pod->mem, d.node->name.s);
		sched_pod_set(p->state, pod);
	} else {
		sched_pod_free(pod);
	}
	json_decref(p->pending);
	p->pending = NULL;
	p->answers++;
}

static void namespace(struct play *p, char **words)
{
	json_t *o = json_object();
	struct sched_arena mem = {0};
	struct sched_labels labels;

	put_str(o, "metadata.name", words[0]);
	for (char **w = words + 1; *w; w++) {
		char *value = strchr(*w, '=');

		*value++ = 0;
		label(o, *w, value);
	}
	labels = sched_load_namespace(o, &mem);
	sched_namespace_set(p->state, words[0], &mem, &labels);
	json_decref(o);
}

static void play_line(struct play *p, char *line)
{
	_cleanup_strv_ char **words = NULL;

	if (*line == '\t' || *line == ' ') {
		merge(p, line);
		return;
	}
	flush(p);
	if (str_starts(line, "-> ")) {
		answer(p, line + 3);
		return;
	}
	if (p->pending)
		play_fail(p, "the pending pod has no answer");
	words = strv_split(line, ' ', false);
	if (streq(words[0], "option") && streq(words[1], "reserve"))
		p->options.reserve = true;
	else if (streq(words[0], "node"))
		p->last = make_node(words + 1), p->last_is_node = true;
	else if (streq(words[0], "pod"))
		p->last = make_pod(words + 1), p->last_is_node = false;
	else if (streq(words[0], "pending"))
		p->pending = make_pod(words + 1);
	else if (streq(words[0], "namespace"))
	namespace(p, words + 1);
	else if (streq(words[0], "delete")) sched_pod_del(p->state, "default", words[1]);
	else if (streq(words[0], "delete-node")) sched_node_del(p->state, words[1]);
	else play_fail(p, "unknown word: %s", words[0]);
}

/* Returns how many answers were wrong. */
static int play_file(const char *path)
{
	struct play p = {.file = path, .state = sched_state_new()};
	_cleanup_free_ char *text = NULL;
	char *next;

	assert_int_equal(file_read(path, 1 << 20, &text, NULL, NULL), 0);
	for (char *line = text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		p.line++;
		if (*line && *line != '#')
			play_line(&p, line);
	}
	if (p.pending || p.answers == 0)
		play_fail(&p, "no answer");
	json_decref(p.last);
	sched_state_free(p.state);
	return p.wrong;
}

static void golden(void **state)
{
	_cleanup_free_ char *folder =
		xasprintf("%s/test/golden/sched", getenv("KUAYU_SOURCE") ? getenv("KUAYU_SOURCE") : ".");
	struct dirent **names;
	int n = scandir(folder, &names, NULL, alphasort), played = 0, wrong = 0;

	(void)state;
	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", folder, names[i]->d_name);

		if (str_ends(path, ".txt")) {
			wrong += play_file(path);
			played++;
		}
		free(names[i]);
	}
	free(names);
	print_message("%d scenarios\n", played);
	assert_int_equal(wrong, 0);
	assert_true(played >= 24);
}

TEST_MAIN(cmocka_unit_test(golden))
