/* SPDX-License-Identifier: Apache-2.0 */
/* search: can what was seen of one cell (a name, a part of a file) be explained by one order of its operations that respects real time? */
#pragma once

#include "base/base.h"

#define CELL_NONE 0u
#define CELL_SOME UINT64_MAX /* something is there, it is not known what */

struct cell_op {
	uint64_t start, end; /* end UINT64_MAX: of unknown outcome */
	enum { WAS_ANYTHING, WAS, WAS_SOMETHING } pre;
	uint64_t was; /* pre WAS */
	bool sets;
	uint64_t to;
	uint32_t who; /* the operation's number, for people */
};
/* ops in any order; they are sorted. False: no order explains it; *ret_who: the operation at which that was seen. Gives up (true) beyond its bounds: 64
 * operations at once, 50,000 states. */
bool cell_explained(struct cell_op *ops, size_t n, uint64_t initial, uint32_t *ret_who);
