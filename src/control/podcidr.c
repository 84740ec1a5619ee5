/* SPDX-License-Identifier: Apache-2.0 */
/* Pod address ranges: each node gets the first free /24 of the cluster's range. All nodes are served by one reconcile,
 * so two of them never get the same one from one state; the resourceVersion in the patch keeps a later state away. */
#include "control/reconcile.h"

#include <arpa/inet.h>

static bool range_parse(const char *range, uint32_t *ret_base, int *ret_bits)
{
	char text[20];
	const char *slash = strchr(range, '/');
	struct in_addr a;
	int64_t bits;

	if (!slash || (size_t)(slash - range) >= sizeof(text))
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)(slash - range), range);
	if (inet_pton(AF_INET, text, &a) != 1 || str_i64(slash + 1, &bits) < 0 || bits < 8 || bits > 24)
		return false;
	*ret_base = ntohl(a.s_addr);
	*ret_bits = (int)bits;
	return (*ret_base & ((1u << (32 - bits)) - 1)) == 0;
}

bool podcidr_range_ok(const char *range)
{
	uint32_t base;
	int bits;

	return range_parse(range, &base, &bits);
}

static const char *cidr_text(uint32_t base, size_t i, char out[32])
{
	uint32_t a = base + (uint32_t)i * 256;

	snprintf(out, 32, "%u.%u.%u.0/24", a >> 24, a >> 16 & 255, a >> 8 & 255);
	return out;
}

void podcidr_reconcile(const struct world *w, const char *range, struct plan *p)
{
	_cleanup_free_ json_t **nodes = world_list(w, K_NODE, NULL, NULL);
	_cleanup_json_ json_t *used = json_object();
	uint32_t base = 0;
	int bits = 0;
	size_t at = 0, n;
	char text[32];

	ensure(range_parse(range, &base, &bits));
	n = (size_t)1 << (24 - bits);
	for (size_t i = 0; nodes[i]; i++)
		if (js_str(nodes[i], "spec.podCIDR"))
			json_object_set_new(used, js_str(nodes[i], "spec.podCIDR"), json_true());
	for (size_t i = 0; nodes[i]; i++) {
		if (js_str(nodes[i], "spec.podCIDR") || obj_deleting(nodes[i]))
			continue;
		while (at < n && json_object_get(used, cidr_text(base, at, text)))
			at++;
		if (at == n) {
			plan_event(p, nodes[i], "Warning", "CIDRNotAvailable",
				   "No pod address range left in %s", range);
			return;
		}
		plan_patch(p, ACTION_PATCH_MERGE, K_NODE, NULL, nodes[i],
			   json_pack("{s:{s:s}, s:{s:s, s:[s]}}", "metadata", "resourceVersion",
				     js_str_or(nodes[i], "metadata.resourceVersion", ""), "spec", "podCIDR",
				     text, "podCIDRs", text));
		at++;
	}
}
