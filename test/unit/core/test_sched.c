/* SPDX-License-Identifier: Apache-2.0 */
/* core/sched without JSON: accounting against a recount, decisions against brute force, the same answer twice, the reserve against a
 * full search. Scenarios in words are in test/golden/sched. */
#include "test.h"

#include "core/sched/sched.h"

static struct sched_node *node(const char *name, const char *zone, int64_t cpu, int64_t memory, int64_t pods)
{
	struct sched_node *n = sched_node_new();

	n->name = sched_sym(&n->mem, name);
	n->ready = true;
	n->allocatable = (struct sched_amount){.cpu = cpu, .memory = memory, .pods = pods};
	n->labels.n = 2;
	n->labels.v = sched_alloc(&n->mem, 2, sizeof(struct sched_label));
	n->labels.v[0].key = sched_sym(&n->mem, "kubernetes.io/hostname");
	n->labels.v[0].value = n->name;
	n->labels.v[1].key = sched_sym(&n->mem, "topology.kubernetes.io/zone");
	n->labels.v[1].value = sched_sym(&n->mem, zone);
	return n;
}

static struct sched_pod *pod(const char *name, const char *at, int64_t cpu, int64_t memory)
{
	struct sched_pod *p = sched_pod_new();

	p->ns = sched_sym(&p->mem, "default");
	p->name = sched_sym(&p->mem, name);
	p->node_name = sched_sym(&p->mem, at);
	p->request.cpu = cpu;
	p->request.memory = memory;
	return p;
}

/* Random adds, moves, removals of pods and nodes; after each step what a node has in use is what its pods ask for. */
static void accounting(void **state)
{
	struct sched_state *s = sched_state_new();
	unsigned seed = 11;

	(void)state;
	for (int step = 0; step < 3000; step++) {
		char name[16], at[16];

		snprintf(name, sizeof(name), "p%d", rand_r(&seed) % 60);
		snprintf(at, sizeof(at), "n%d", rand_r(&seed) % 8);
		switch (rand_r(&seed) % 5) {
		case 0:
			sched_pod_del(s, "default", name);
			break;
		case 1:
			if (rand_r(&seed) % 4 == 0)
				sched_node_del(s, at);
			else
				sched_node_set(s, node(at, "a", 4000, 1000, 20));
			break;
		default:
			sched_pod_set(s, pod(name, at, rand_r(&seed) % 500, rand_r(&seed) % 50));
		}
		for (size_t i = 0; i < sched_nodes(s); i++) {
			const struct sched_node *n = sched_node_at(s, i);
			int64_t cpu = 0, memory = 0, count = 0;

			assert_int_equal(n->index, i);
			for (size_t k = 0; k < n->n_pods; k++) {
				cpu += n->pods[k]->request.cpu;
				memory += n->pods[k]->request.memory;
				count++;
				assert_true(sched_same(n->pods[k]->node_name, n->name));
			}
			assert_int_equal(n->used.cpu, cpu);
			assert_int_equal(n->used.memory, memory);
			assert_int_equal(n->used.pods, count);
		}
	}
	sched_state_free(s);
}

/* Fills clusters at random: a pod is refused only when no node has room, and no node is ever overfull. */
static void never_overfull(void **state)
{
	unsigned seed = 5;

	(void)state;
	for (int round = 0; round < 20; round++) {
		struct sched_state *s = sched_state_new();
		size_t placed = 0;

		for (int i = 0; i < 6; i++) {
			char name[16], zone[4] = {(char)('a' + i % 3), 0};

			snprintf(name, sizeof(name), "n%d", i);
			sched_node_set(s, node(name, zone, 2000 + rand_r(&seed) % 4000,
					       4000 + rand_r(&seed) % 4000, 40));
		}
		for (int i = 0; i < 200; i++) {
			char name[16];
			struct sched_pod *p;
			struct sched_decision d, again;

			snprintf(name, sizeof(name), "p%d", i);
			p = pod(name, NULL, rand_r(&seed) % 900, rand_r(&seed) % 900);
			sched_decide(s, p, NULL, &d);
			sched_decide(s, p, NULL, &again);
			assert_ptr_equal(d.node, again.node);
			for (size_t k = 0; k < sched_nodes(s); k++) {
				const struct sched_node *n = sched_node_at(s, k);
				bool room = n->used.cpu + p->request.cpu <= n->allocatable.cpu &&
					    n->used.memory + p->request.memory <= n->allocatable.memory &&
					    n->used.pods < 40;

				assert_int_equal(d.verdicts[k].why == SCHED_FITS, room);
			}
			if (!d.node) {
				sched_pod_free(p);
				continue;
			}
			p->node_name = sched_sym(&p->mem, d.node->name.s);
			sched_pod_set(s, p);
			placed++;
		}
		assert_int_equal(sched_pods(s), placed);
		sched_state_free(s);
	}
}

/* Can pods[i..] be put on the nodes that did not fail? Every way is tried. */
static bool fits(int64_t *room, const int *home, int n_nodes, const int64_t *size, int n, int i, int failed)
{
	if (i == n)
		return true;
	if (home[i] != failed)
		return fits(room, home, n_nodes, size, n, i + 1, failed);
	for (int k = 0; k < n_nodes; k++) {
		bool ok;

		if (k == failed || room[k] < size[i])
			continue;
		room[k] -= size[i];
		ok = fits(room, home, n_nodes, size, n, i + 1, failed);
		room[k] += size[i];
		if (ok)
			return true;
	}
	return false;
}

/* With the reserve on, every state reached survives the loss of any node: checked by full search. */
static void reserve_holds(void **state)
{
	unsigned seed = 3;
	int accepted = 0, refused = 0;

	(void)state;
	for (int round = 0; round < 60; round++) {
		struct sched_state *s = sched_state_new();
		int64_t room[3] = {1000, 1000, 1000}, size[24];
		int home[24], n = 0;

		for (int i = 0; i < 3; i++)
			sched_node_set(s, node((const char *[]){"x", "y", "z"}[i],
					       (const char *[]){"a", "b", "c"}[i], 1000, 1000, 50));
		for (int i = 0; i < 16; i++) {
			struct sched_options o = {.reserve = true};
			struct sched_decision d;
			struct sched_pod *p;
			char name[16];

			snprintf(name, sizeof(name), "p%d", i);
			p = pod(name, NULL, 60 + rand_r(&seed) % 300, 1);
			p->critical = true;
			sched_decide(s, p, &o, &d);
			if (!d.node) {
				refused++;
				sched_pod_free(p);
				continue;
			}
			accepted++;
			home[n] = d.node->name.s[0] - 'x';
			size[n] = p->request.cpu;
			room[home[n]] -= size[n];
			n++;
			p->node_name = sched_sym(&p->mem, d.node->name.s);
			sched_pod_set(s, p);
			for (int failed = 0; failed < 3; failed++)
				assert_true(fits(room, home, 3, size, n, 0, failed));
		}
		sched_state_free(s);
	}
	assert_true(accepted > 100);
	assert_true(refused > 100);
}

TEST_MAIN(cmocka_unit_test(accounting), cmocka_unit_test(never_overfull), cmocka_unit_test(reserve_holds))
