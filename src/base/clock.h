/* SPDX-License-Identifier: Apache-2.0 */
/* Time. Intervals use the monotonic clock, only texts for people and the API use the wall clock. */
#pragma once

#include <stdint.h>
#include <time.h>

#define CLOCK_TEXT_MAX 40

uint64_t clock_ms(void);		  /* monotonic, milliseconds */
uint64_t clock_us(void);		  /* monotonic, microseconds */
struct timespec clock_after(uint64_t ms); /* monotonic time so long from now, for waits that end */
int64_t clock_wall_ms(void);		  /* since 1970, milliseconds */
int64_t clock_wall_us(void);		  /* since 1970, microseconds */
/* RFC 3339 in UTC; digits = 0, 3 or 6 behind the second. Returns out. */
const char *clock_text(char out[CLOCK_TEXT_MAX], int64_t wall_us, int digits);
/* Parses RFC 3339 with "Z" or an offset; 0 or -EINVAL. */
int clock_parse(const char *text, int64_t *ret_wall_us);
