/* SPDX-License-Identifier: Apache-2.0 */
/* mount: the verbs `kuayu mount` and `kuayu umount`. See docs/volume-mount.md. */
#pragma once

int cmd_mount(int argc, char **argv);
int cmd_umount(int argc, char **argv);
