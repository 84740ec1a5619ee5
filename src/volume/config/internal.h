/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of config. */
#pragma once

#include "volume/config.h"

int volcfg_parse_volume(const struct store_kv *kv, struct volcfg_volume *ret, struct err *e);
int volcfg_parse_folder(const struct store_kv *kv, struct volcfg_folder *ret);
int volcfg_parse_view(const struct vol_map *m, uint32_t group, const struct store_kv *kv,
		      struct repl_view *ret);
