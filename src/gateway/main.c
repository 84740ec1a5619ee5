/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu gateway: entry. Placeholder until the role lands. */
#include "base/base.h"
#include "gateway/gateway.h"

int cmd_gateway(int argc, char **argv)
{
	(void)argc, (void)argv;
	fputs("kuayu gateway: not in this build yet\n", stderr);
	return 1;
}
