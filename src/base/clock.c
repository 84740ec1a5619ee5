/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks and RFC 3339 texts (section 5.6; leap seconds read as :60 are taken as the next minute). */
#include "base/base.h"

#include <time.h>

static uint64_t read_us(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

uint64_t clock_us(void)
{
	return read_us(CLOCK_MONOTONIC);
}

uint64_t clock_ms(void)
{
	return clock_us() / 1000;
}

struct timespec clock_after(uint64_t ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

int64_t clock_wall_us(void)
{
	return (int64_t)read_us(CLOCK_REALTIME);
}

int64_t clock_wall_ms(void)
{
	return clock_wall_us() / 1000;
}

const char *clock_text(char out[CLOCK_TEXT_MAX], int64_t wall_us, int digits)
{
	time_t s = (time_t)(wall_us / 1000000);
	long us = (long)(wall_us % 1000000);
	struct tm tm;
	size_t n;

	gmtime_r(&s, &tm);
	n = strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
	if (digits == 3)
		n += (size_t)snprintf(out + n, CLOCK_TEXT_MAX - n, ".%03ld", us / 1000);
	else if (digits == 6)
		n += (size_t)snprintf(out + n, CLOCK_TEXT_MAX - n, ".%06ld", us);
	snprintf(out + n, CLOCK_TEXT_MAX - n, "Z");
	return out;
}

int clock_parse(const char *text, int64_t *ret_wall_us)
{
	struct tm tm = {0};
	int n = 0, off = 0;
	int64_t us = 0, scale = 100000;
	const char *p;

	if (!text ||
	    sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
		   &tm.tm_min, &tm.tm_sec, &n) != 6 ||
	    !n)
		return -EINVAL;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour < 0 ||
	    tm.tm_hour > 23 || tm.tm_min < 0 || tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 60 ||
	    tm.tm_year < 1)
		return -EINVAL;
	p = text + n;
	if (*p == '.')
		for (p++; *p >= '0' && *p <= '9'; p++, scale /= 10)
			us += (*p - '0') * scale;
	if (*p == '+' || *p == '-') {
		int h, m;

		if (strlen(p) != 6 || sscanf(p + 1, "%2d:%2d", &h, &m) != 2)
			return -EINVAL;
		off = (*p == '+' ? 1 : -1) * (h * 60 + m) * 60;
	} else if (strcmp(p, "Z") != 0) {
		return -EINVAL;
	}
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*ret_wall_us = ((int64_t)timegm(&tm) - off) * 1000000 + us;
	return 0;
}
