/* SPDX-License-Identifier: Apache-2.0 */
/* What every unit test includes: cmocka with its headers in the right order. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"

/* A list of test functions of this file, run as main(). */
#define TEST_MAIN(...)                                                       \
	int main(void)                                                       \
	{                                                                    \
		const struct CMUnitTest tests[] = {__VA_ARGS__};             \
		return cmocka_run_group_tests_name(NULL, tests, NULL, NULL); \
	}
