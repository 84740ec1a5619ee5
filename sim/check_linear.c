/* SPDX-License-Identifier: Apache-2.0 */
/* linearizable: what clients saw of each register is explained by one order of its operations that respects real time.
 *
 * Written values are unique, so the question is easy (Gibbons and Korach, "Testing shared memories", 1997): an operation cluster is a write and
 * the reads that returned its value. With f = the earliest end and l = the latest start in a cluster, an order exists exactly when no read ends before
 * its write starts, the spans [f, l] of clusters with f < l do not overlap one another, and no cluster's [l, f] (l <= f) lies within another's span. A write of
 * unknown outcome has no end; when nobody read it, it may not have happened. The initial value 0 is a write before everything. */
#include "sim/sim.h"

struct cluster {
	uint64_t value, f, l; /* earliest end, latest start */
	bool used;
};

static int by_low(const void *a, const void *b)
{
	const struct cluster *x = a, *y = b;
	uint64_t p = MIN(x->f, x->l), q = MIN(y->f, y->l);

	return p < q ? -1 : p > q;
}

static void judge(struct sim *s, struct cluster *c, size_t n, uint8_t group, uint8_t reg)
{
	uint64_t end = 0, end_value = 0;
	bool any = false;

	qsort(c, n, sizeof(*c), by_low);
	for (size_t i = 0; i < n; i++) {
		bool forward = c[i].f < c[i].l;
		uint64_t high = MAX(c[i].f, c[i].l);

		if (any && (forward ? MIN(c[i].f, c[i].l) < end : high < end)) {
			violation(
				s, "linearizable",
				"group %u register %u: value %llu was there while %llu was (around %.3f ms)",
				group, reg, (unsigned long long)c[i].value, (unsigned long long)end_value,
				(double)MIN(c[i].f, c[i].l) / 1000);
			return;
		}
		if (forward && (!any || high > end)) {
			end = high;
			end_value = c[i].value;
			any = true;
		}
	}
}

static void check_register(struct sim *s, struct cluster *c, uint8_t group, uint8_t reg)
{
	size_t n = 0;

	memset(c, 0, (s->next_value + 1) * sizeof(*c));
	c[0].used = true; /* the initial value */
	for (size_t i = 0; i < s->n_ops; i++) {
		const struct op *op = &s->op[i];

		if (op->group != group || op->reg != reg || op->type != OP_WRITE)
			continue;
		c[op->value] =
			(struct cluster){op->value, op->done ? op->end : UINT64_MAX, op->start, op->done};
	}
	for (size_t i = 0; i < s->n_ops; i++) {
		const struct op *op = &s->op[i];
		struct cluster *k;

		if (op->group != group || op->reg != reg || op->type != OP_READ || !op->done)
			continue;
		k = &c[MIN(op->value, s->next_value)];
		if (op->value > s->next_value ||
		    (op->value > 0 && (k->value != op->value || op->end < k->l))) {
			violation(s, "linearizable",
				  "group %u register %u: value %llu was read before it was written", group,
				  reg, (unsigned long long)op->value);
			return;
		}
		k->used = true;
		k->f = MIN(k->f, op->end);
	}
	/* Latest starts only now: a read's start must not hide that it ended before the write began. */
	for (size_t i = 0; i < s->n_ops; i++) {
		const struct op *op = &s->op[i];

		if (op->group == group && op->reg == reg && op->type == OP_READ && op->done)
			c[op->value].l = MAX(c[op->value].l, op->start);
	}
	for (size_t i = 0; i <= s->next_value; i++)
		if (c[i].used)
			c[n++] = c[i];
	judge(s, c, n, group, reg);
}

void check_linearizable(struct sim *s)
{
	struct cluster *c = xcalloc(s->next_value + 2, sizeof(*c));

	for (uint8_t g = 0; g < s->o.groups; g++)
		for (uint8_t reg = 0; reg < REGS && !s->failed && s->truth[g].lost == 0; reg++)
			check_register(s, c, g, reg);
	free(c);
}
