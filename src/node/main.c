/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu node: entry. Placeholder until the role lands. */
#include "base/base.h"
#include "node/node.h"

int cmd_node(int argc, char **argv)
{
	(void)argc, (void)argv;
	fputs("kuayu node: not in this build yet\n", stderr);
	return 1;
}
