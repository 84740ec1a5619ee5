/* SPDX-License-Identifier: Apache-2.0 */
/* core/sched: cluster snapshot + one pending pod -> a node, or for each node the reason why not.
 *
 * Pure: no I/O, no clock, no threads. Objects come compiled (struct sched_pod, struct sched_node; made by the loader of
 * `kuayu scheduler` from the API's JSON), each with all its memory in an arena of its own. The state owns them, keeps what each node
 * has in use, and holds the scratch memory that a decision needs: it grows with the cluster, a decision itself does not
 * allocate once the sizes have been seen.
 *
 * Semantics are those of kube-scheduler's default plug-ins (NodeUnschedulable, NodeName, TaintToleration, NodeAffinity,
 * NodePorts, NodeResourcesFit, PodTopologySpread, InterPodAffinity), and the texts of refusal are its texts. Beside them: a score
 * behind `struct sched_policy`, and the reserve for one failure. Not here: preemption, volumes. */
#pragma once

#include "base/base.h"

#define SCHED_EXTRA_MAX \
	16 /* resources other than cpu, memory, ephemeral-storage, pods that one object may name */

/* ---- text with its hash: compared without touching the text in nearly all cases ---- */
struct sched_sym {
	uint64_t h; /* 0 = none */
	const char *s;
};

static inline bool sched_same(struct sched_sym a, struct sched_sym b)
{
	return a.h == b.h && (a.h == 0 || __builtin_strcmp(a.s, b.s) == 0);
}

struct sched_chunk;
struct sched_arena {
	struct sched_chunk *head;
};

void *sched_alloc(struct sched_arena *a, size_t n, size_t size);  /* zeroed, never NULL */
struct sched_sym sched_sym(struct sched_arena *a, const char *s); /* NULL gives none; "" is a text */
struct sched_sym sched_key(const char *s);			  /* borrows s: for look-ups */

/* ---- labels and selectors ---- */
struct sched_label {
	struct sched_sym key, value;
};

struct sched_labels {
	size_t n;
	struct sched_label *v;
};

enum sched_op { SCHED_IN, SCHED_NOT_IN, SCHED_EXISTS, SCHED_NOT_EXISTS, SCHED_GT, SCHED_LT };

struct sched_require {
	struct sched_sym key;
	enum sched_op op;
	size_t n;
	struct sched_sym *values;
};

/* All requirements hold; n = 0 matches everything; none matches nothing (a selector that is not given). */
struct sched_selector {
	bool none;
	size_t n;
	struct sched_require *v;
};

bool sched_match(const struct sched_selector *s, const struct sched_labels *labels);
/* none when the label is not there */
struct sched_sym sched_label_get(const struct sched_labels *labels, struct sched_sym key);

/* ---- resources ---- */
struct sched_extra {
	struct sched_sym name;
	int64_t amount;
};

struct sched_amount {
	int64_t cpu;	 /* millicores */
	int64_t memory;	 /* bytes */
	int64_t storage; /* ephemeral-storage, bytes */
	int64_t pods;
	size_t n_extra;
	struct sched_extra extra[SCHED_EXTRA_MAX];
};

/* ---- nodes ---- */
enum sched_effect { SCHED_ANY_EFFECT, SCHED_NO_SCHEDULE, SCHED_PREFER_NO_SCHEDULE, SCHED_NO_EXECUTE };

struct sched_taint {
	struct sched_sym key, value;
	enum sched_effect effect;
};

struct sched_pod;

struct sched_node {
	struct sched_sym name;
	struct sched_labels labels;
	struct sched_amount allocatable;
	size_t n_taints;
	struct sched_taint *taints; /* a node that is not ready carries its taint here, whoever put it */
	bool unschedulable, ready;
	struct sched_arena mem;
	/* kept by the state */
	size_t index;
	struct sched_amount used;
	size_t n_pods, cap_pods;
	struct sched_pod **pods;
	struct sched_sym zone; /* topology.kubernetes.io/zone */
};

struct sched_node *sched_node_new(void);
struct sched_node *sched_node_free(struct sched_node *n);

/* ---- pods ---- */
struct sched_node_term { /* both parts hold; one without any requirement matches nothing */
	struct sched_selector labels, fields;
	int weight; /* preferred only, 1..100 */
};

struct sched_pod_term {
	struct sched_selector selector;
	struct sched_sym topology_key;
	size_t n_namespaces;
	struct sched_sym *namespaces; /* with namespace_selector.none and n = 0: the pod's own */
	struct sched_selector namespace_selector;
	int weight;
};

struct sched_pod_terms {
	size_t n;
	struct sched_pod_term *v;
};

struct sched_toleration {
	struct sched_sym key; /* none = every key */
	bool exists;	      /* else the value must be the same */
	struct sched_sym value;
	enum sched_effect effect;
	bool forever; /* no tolerationSeconds */
};

struct sched_port {
	struct sched_sym protocol, ip; /* "0.0.0.0" = every address */
	int port;
};

struct sched_spread {
	struct sched_sym topology_key;
	struct sched_selector selector;
	int max_skew, min_domains;
	bool hard;	      /* DoNotSchedule */
	bool ignore_affinity; /* nodeAffinityPolicy: Ignore */
	bool honor_taints;    /* nodeTaintsPolicy: Honor */
};

struct sched_pod {
	struct sched_sym ns, name, uid, owner; /* owner = uid of the controlling object */
	struct sched_labels labels;
	struct sched_amount request;
	struct sched_sym node_name; /* where it is bound, or must go */
	int priority;
	bool critical;	  /* must survive one failure: see the reserve */
	bool bound;	  /* never leaves its node (tolerates unreachable for ever) */
	bool terminating; /* not counted by topology spread */
	struct sched_selector node_selector;
	bool node_required; /* node_terms: at least one must match */
	size_t n_node_terms, n_node_preferred;
	struct sched_node_term *node_terms, *node_preferred;
	struct sched_pod_terms affinity, affinity_preferred, anti, anti_preferred;
	size_t n_tolerations, n_ports, n_spread;
	struct sched_toleration *tolerations;
	struct sched_port *ports;
	struct sched_spread *spread;
	struct sched_arena mem;
	/* kept by the state */
	struct sched_node *node;
	size_t index, node_slot;
};

struct sched_pod *sched_pod_new(void);
struct sched_pod *sched_pod_free(struct sched_pod *p);

/* ---- state ---- */
struct sched_state;

struct sched_state *sched_state_new(void);
struct sched_state *sched_state_free(struct sched_state *s);
/* Takes n over; replaces the node of the same name. Pods keep their place. */
void sched_node_set(struct sched_state *s, struct sched_node *n);
void sched_node_del(struct sched_state *s, const char *name);
/* Takes p over; p->node_name is where it runs (the node may come later). Replaces the pod of the same name. */
void sched_pod_set(struct sched_state *s, struct sched_pod *p);
void sched_pod_del(struct sched_state *s, const char *ns, const char *name);
const struct sched_pod *sched_pod_get(const struct sched_state *s, const char *ns, const char *name);
/* Labels of a namespace, for namespaceSelector; takes the arena over. NULL labels = forget it. */
void sched_namespace_set(struct sched_state *s, const char *name, struct sched_arena *mem,
			 const struct sched_labels *labels);
size_t sched_nodes(const struct sched_state *s);
size_t sched_pods(const struct sched_state *s);
const struct sched_node *sched_node_at(const struct sched_state *s, size_t i);

/* ---- score ---- */
/* The part of the score that is not the user's own preference: how good is each feasible node for the cluster? The built-in one
 * balances cpu against memory, spreads the replicas of one owner over zones and nodes, and keeps room for the kinds of
 * pods that run here (scarcity). A learned policy fills the same function. */
struct sched_policy {
	const char *name;
	void *ctx;
	/* feasible[i] tells which of the sched_nodes() nodes count; ret[i] in 0..100, higher is better. May use only s. */
	void (*score)(void *ctx, struct sched_state *s, const struct sched_pod *pod, const bool *feasible,
		      double *ret);
};

extern const struct sched_policy sched_policy_default;

struct sched_options {
	const struct sched_policy *policy; /* NULL = the built-in one */
	bool reserve;			   /* any one node or zone fails and all critical pods still fit */
};

/* ---- decision ---- */
enum sched_why {
	SCHED_FITS,
	SCHED_UNSCHEDULABLE,
	SCHED_OTHER_NODE,
	SCHED_TAINT,
	SCHED_NODE_AFFINITY,
	SCHED_PORTS,
	SCHED_RESOURCES,
	SCHED_SPREAD,
	SCHED_SPREAD_LABEL,
	SCHED_POD_AFFINITY,
	SCHED_POD_ANTI_AFFINITY,
	SCHED_OTHERS_ANTI_AFFINITY,
	SCHED_RESERVE,
};

enum {
	SCHED_LACK_PODS = 1,
	SCHED_LACK_CPU = 2,
	SCHED_LACK_MEMORY = 4,
	SCHED_LACK_STORAGE = 8,
	SCHED_LACK_EXTRA = 16
};

struct sched_verdict {
	enum sched_why why;
	unsigned lack; /* SCHED_RESOURCES: bits; SCHED_LACK_EXTRA << i for the pod's i-th extra */
	const struct sched_taint *taint; /* SCHED_TAINT */
	struct sched_sym failure;	 /* SCHED_RESERVE: the zone or node whose loss could not be covered */
	bool failure_zone;
	const struct sched_pod *homeless; /* SCHED_RESERVE: the critical pod that would have no place */
	double score;			  /* SCHED_FITS */
};

struct sched_decision {
	const struct sched_node *node; /* NULL = none fits */
	size_t n_nodes, n_feasible;
	const struct sched_verdict *verdicts; /* of every node; valid until the state is next used */
};

/* pod is not part of the state. Equal scores go to the node with fewer pods, then by name: the same input gives the same answer. */
void sched_decide(struct sched_state *s, const struct sched_pod *pod, const struct sched_options *o,
		  struct sched_decision *ret);
/* "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable." as kube-scheduler writes it. */
void sched_explain(const struct sched_state *s, const struct sched_pod *pod, const struct sched_decision *d,
		   struct buf *out);
