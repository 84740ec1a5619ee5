/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu scheduler: entry. Placeholder until the role lands. */
#include "base/base.h"
#include "sched/sched.h"

int cmd_scheduler(int argc, char **argv)
{
	(void)argc, (void)argv;
	fputs("kuayu scheduler: not in this build yet\n", stderr);
	return 1;
}
