/* SPDX-License-Identifier: Apache-2.0 */
/* cmd: `kuayu volume VERB ...`. One process, one command; docs/volume.md has what operators see. */
#pragma once

int cmd_volume(int argc, char **argv);
