/* SPDX-License-Identifier: Apache-2.0 */
/* The suite every store passes. The program that includes it opens the store. */
#pragma once

#include "recorder.h"

/* Runs all of it over s; returns the number of failed tests, as cmocka does. */
int conformance_run(const char *name, struct store *s);
