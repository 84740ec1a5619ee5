/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu controller: entry. Placeholder until the role lands. */
#include "base/base.h"
#include "control/control.h"

int cmd_controller(int argc, char **argv)
{
	(void)argc, (void)argv;
	fputs("kuayu controller: not in this build yet\n", stderr);
	return 1;
}
