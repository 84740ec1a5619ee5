/* SPDX-License-Identifier: Apache-2.0 */
/* Notation of the schema tables; only the schema_*.c files include it. */
#pragma once

#define FIELDS(...)                  \
	(const struct model_field[]) \
	{                            \
		__VA_ARGS__,         \
		{                    \
			0            \
		}                    \
	}
#define ALLOWED(...)              \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}
#define LIMITS(lo, hi) .limited = true, .min = lo, .max = hi

#define KIND_FIELDS                                                                                 \
	{"apiVersion", MODEL_STRING, .text = "Version of this form of the object, GROUP/VERSION."}, \
	{                                                                                           \
		"kind", MODEL_STRING, .text = "Kind of the object."                                 \
	}
