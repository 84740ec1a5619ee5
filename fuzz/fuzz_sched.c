/* SPDX-License-Identifier: Apache-2.0 */
/* [node, node, ..., pod, pod, ...] of any JSON: objects with "node": true are nodes, the rest pods. All are loaded, the last pod is
 * decided; a node that is chosen must have room. */
#include "sched/load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_json_ json_t *list = NULL;
	_cleanup_buf_ struct buf text = {0};
	struct sched_options o = {.reserve = true};
	struct sched_state *s;
	struct sched_decision d;
	struct sched_pod *pod = NULL;
	struct err e;
	json_t *item;
	size_t i;

	if (js_parse_new((const char *)data, size, &list, &e) < 0 || !json_is_array(list) ||
	    json_array_size(list) > 40)
		return 0;
	s = sched_state_new();
	json_array_foreach (list, i, item) {
		if (json_object_get(item, "node")) {
			sched_node_set(s, sched_load_node(item));
		} else {
			if (pod)
				sched_pod_set(s, pod);
			pod = sched_load_pod(item);
		}
	}
	if (pod) {
		sched_pod_del(s, pod->ns.s, pod->name.s);
		sched_decide(s, pod, &o, &d);
		sched_explain(s, pod, &d, &text);
		ensure(!d.node || d.node->used.pods + 1 <= d.node->allocatable.pods);
	}
	sched_pod_free(pod);
	sched_state_free(s);
	return 0;
}
