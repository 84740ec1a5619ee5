/* SPDX-License-Identifier: Apache-2.0 */
/* verdict: is a node ready, slow, cut off or dead? A pure function of what the controller has observed. */
#pragma once

#include "base/base.h"

enum verdict {
	VERDICT_READY,
	VERDICT_SLOW,	   /* its lease is late; nothing is done yet */
	VERDICT_RETURNING, /* was dead or cut off, renews again, has to be steady first */
	VERDICT_CUT_OFF,   /* lives (a peer or its kernel answers), but does not reach the API */
	VERDICT_DEAD,	   /* nobody hears it */
};
const char *verdict_name(enum verdict v);

/* What a node said in its lease about another one. */
struct verdict_view {
	const char *node;
	int64_t silent_ms; /* since it last heard it, when it wrote that */
	bool refused;	   /* the other's kernel answered that no agent listens */
};

struct verdict_node {
	const char *name, *zone;
	bool has_lease;
	int64_t lease_ms; /* since the controller SAW the last renewal (or the node, when there is no lease) */
	int64_t steady_ms; /* since when renewals come without a gap */
	unsigned flaps;	   /* times it was dead or cut off lately */
	enum verdict before;
	const struct verdict_view *views;
	size_t n_views;
};

struct verdict_limits {
	int64_t late_ms;     /* 1,500: a lease not renewed for longer is late; a view older counts no more */
	int64_t heard_ms;    /* 800: heard by a peer within this = alive */
	int64_t cut_off_ms;  /* 3,000: late for so long although a peer hears it */
	int64_t alone_ms;    /* 4,000: late for so long and nobody can say anything */
	int64_t all_late_ms; /* 10,000: every node is late although the store takes writes */
	int64_t fence_ms; /* 4,500: its singleton pods have stopped by themselves (the agent: before 4,000) */
	int64_t steady_ms; /* 1,000: renewals without a gap before it counts as ready again; doubles a flap */
};
extern const struct verdict_limits verdict_limits_default;

struct verdict_result {
	enum verdict verdict;
	bool passed; /* false: nothing can be said now, `verdict` is the one before */
	bool fenced; /* its singleton pods may be started elsewhere */
	char why[200];
};

/* contact_ms: since when the controller sees writes come through the store without a gap; < 0 = it does not now.
 * Writes n results. limits NULL = default. */
void verdict_pass(const struct verdict_node *nodes, size_t n, int64_t contact_ms,
		  const struct verdict_limits *limits, struct verdict_result *ret);
