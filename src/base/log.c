/* SPDX-License-Identifier: Apache-2.0 */
/* Logging: one write(2) a line, so that lines of threads and processes do not mix. Line breaks in a message become
 * spaces. Lines are cut at 2 KiB. */
#include "base/base.h"

#include <stdarg.h>

static const char *role_name = "kuayu";
static enum log_level level_min = LOG_LEVEL_INFO;

void log_init(const char *role, enum log_level level)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};
	const char *env = getenv("KUAYU_LOG");

	role_name = role;
	level_min = level;
	for (size_t i = 0; env && i < ARRAY_SIZE(names); i++)
		if (streq(env, names[i]))
			level_min = (enum log_level)i;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	static const char *const tags[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
	char line[2048], when[CLOCK_TEXT_MAX];
	va_list ap;
	int n, m;

	if (level < level_min)
		return;
	n = snprintf(line, sizeof(line), "%s %s %s: ", clock_text(when, clock_wall_us(), 3), tags[level],
		     role_name);
	va_start(ap, fmt);
	m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	n = MIN(n + MAX(m, 0), (int)sizeof(line) - 2);
	for (int i = 0; i < n; i++)
		if (line[i] == '\n' || line[i] == '\r')
			line[i] = ' ';
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to say it */
}
