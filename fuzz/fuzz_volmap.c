/* SPDX-License-Identifier: Apache-2.0 */
/* A volume map from the store: what is taken must place folders inside its groups, encode to the same map, and survive an expansion by its own
 * bricks' twins. */
#include "core/place/place.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_json_ json_t *o = NULL;
	struct vol_map *m = NULL, *again = NULL, *wider = NULL;
	struct vol_brick more[16];
	struct err e;
	uint32_t at[VOL_STRIPE_MAX], n;

	if (js_parse_new((const char *)data, size, &o, NULL) < 0 || vol_map_from_json(o, &m, &e) < 0)
		return 0;
	vol_place(m, &vol_root, at);
	for (uint32_t i = 0; i < m->stripe; i++)
		ensure(at[i] < m->n_groups);
	json_t *text = vol_map_to_json(m);
	ensure(vol_map_from_json(text, &again, &e) == 0);
	ensure(memcmp(m->group, again->group, m->n_groups * sizeof(*m->group)) == 0);
	json_decref(text);
	n = MIN(m->n_bricks, (uint32_t)ARRAY_SIZE(more));
	for (uint32_t i = 0; i < n; i++) {
		more[i] = m->brick[i];
		snprintf(more[i].name, sizeof(more[i].name), "twin-%u", i);
	}
	if (vol_map_expand(m, more, n, &wider, &e) == 0)
		for (uint32_t g = 0; g < wider->n_groups; g++)
			for (uint32_t j = 0; j < wider->replica; j++)
				ensure(wider->group[g].brick[j] < wider->n_bricks);
	vol_map_free(m);
	vol_map_free(again);
	vol_map_free(wider);
	return 0;
}
