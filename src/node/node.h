/* SPDX-License-Identifier: Apache-2.0 */
/* `kuayu node`. */
#pragma once

/* main() of the role; argv[0] is the verb. Returns an exit status. */
int cmd_node(int argc, char **argv);
