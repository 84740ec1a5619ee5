/* SPDX-License-Identifier: Apache-2.0 */
/* `kuayu gateway`. */
#pragma once

/* main() of the role; argv[0] is the verb. Returns an exit status. */
int cmd_gateway(int argc, char **argv);
