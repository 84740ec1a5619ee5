/* SPDX-License-Identifier: Apache-2.0 */
/* What is mounted where, by /proc/self/mountinfo (proc(5)): unlike stat(2) this never waits for the file system behind a mount. */
#include "base/base.h"

#define MOUNTINFO_MAX ((size_t)16 << 20)

/* One field of mountinfo, its \ooo undone in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
		    s[3] <= '7') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

bool mount_is_point(const char *path)
{
	_cleanup_free_ char *text = NULL;
	char *save, *line;

	if (file_read("/proc/self/mountinfo", MOUNTINFO_MAX, &text, NULL, NULL) < 0)
		return false;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *field = line;

		for (int i = 0; field && i < 4; i++) {
			field = strchr(field, ' ');
			field = field ? field + 1 : NULL;
		}
		if (!field)
			continue;
		field[strcspn(field, " ")] = 0;
		unescape(field);
		if (streq(field, path))
			return true;
	}
	return false;
}
