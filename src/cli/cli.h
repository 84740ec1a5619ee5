/* SPDX-License-Identifier: Apache-2.0 */
/* Verbs that belong to no role. */
#pragma once

int cmd_pki(int argc, char **argv);
