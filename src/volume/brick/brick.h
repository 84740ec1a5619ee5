/* SPDX-License-Identifier: Apache-2.0 */
/* brick: one process over one data directory: `kuayu brick`. docs/volume.md, docs/volume-internals.md. */
#pragma once

int cmd_brick(int argc, char **argv);
