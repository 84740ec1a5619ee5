/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu db: entry. Placeholder until the role lands. */
#include "base/base.h"
#include "db/db.h"

int cmd_db(int argc, char **argv)
{
	(void)argc, (void)argv;
	fputs("kuayu db: not in this build yet\n", stderr);
	return 1;
}
