/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu pki: entry. Placeholder until the role lands. */
#include "base/base.h"
#include "cli/cli.h"

int cmd_pki(int argc, char **argv)
{
	(void)argc, (void)argv;
	fputs("kuayu pki: not in this build yet\n", stderr);
	return 1;
}
