/* SPDX-License-Identifier: Apache-2.0 */
/* `kuayu docker-volume`. */
#pragma once

/* main() of the role; argv[0] is the verb. Returns an exit status. */
int cmd_docker_volume(int argc, char **argv);
