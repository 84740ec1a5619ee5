/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu api: entry. Placeholder until the role lands. */
#include "base/base.h"
#include "api/api.h"

int cmd_api(int argc, char **argv)
{
	(void)argc, (void)argv;
	fputs("kuayu api: not in this build yet\n", stderr);
	return 1;
}
