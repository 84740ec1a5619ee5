/* SPDX-License-Identifier: Apache-2.0 */
/* `kuayu csi`. */
#pragma once

/* main() of the role; argv[0] is the verb. Returns an exit status. */
int cmd_csi(int argc, char **argv);
