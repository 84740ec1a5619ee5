/* SPDX-License-Identifier: Apache-2.0 */
/* core/galera: names of phases and actions, and the two texts Galera leaves its position in: grastate.dat and the
 * "UUID:SEQNO" that `mariadbd --wsrep-recover` prints. Strict about bytes: these files survive power cuts. */
#include "core/galera/galera.h"

#include <ctype.h>

static const char *const phase_names[] = {
	[GALERA_UNKNOWN] = "unknown",	      [GALERA_EMPTY] = "empty",
	[GALERA_STOPPED] = "stopped",	      [GALERA_STARTING] = "starting",
	[GALERA_NON_PRIMARY] = "non-primary", [GALERA_PRIMARY] = "primary",
};

static const char *const action_names[] = {
	[GALERA_WAIT] = "wait",		  [GALERA_RECOVER] = "recover",
	[GALERA_BOOTSTRAP] = "bootstrap", [GALERA_PC_BOOTSTRAP] = "pc-bootstrap",
	[GALERA_JOIN] = "join",		  [GALERA_RUN] = "run",
	[GALERA_RESTART] = "restart",	  [GALERA_SET_ASIDE] = "set-aside",
};

const char *galera_phase_name(enum galera_phase p)
{
	ensure((size_t)p < ARRAY_SIZE(phase_names));
	return phase_names[p];
}

int galera_phase_parse(const char *name, enum galera_phase *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(phase_names); i++)
		if (streq(name, phase_names[i])) {
			*ret = (enum galera_phase)i;
			return 0;
		}
	return -EINVAL;
}

const char *galera_action_name(enum galera_action a)
{
	ensure((size_t)a < ARRAY_SIZE(action_names));
	return action_names[a];
}

static bool is_uuid(const char *s, size_t len)
{
	if (len != GALERA_UUID_LEN)
		return false;
	for (size_t i = 0; i < len; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return true;
}

/* "" for the all-zero one. */
static void set_uuid(char out[GALERA_UUID_LEN + 1], const char *s)
{
	memcpy(out, s, GALERA_UUID_LEN);
	out[GALERA_UUID_LEN] = 0;
	if (streq(out, GALERA_NO_UUID))
		out[0] = 0;
}

int galera_position_parse(const char *text, char ret_uuid[GALERA_UUID_LEN + 1], int64_t *ret_seqno)
{
	const char *colon = strchr(text, ':');
	char number[24];
	int64_t seqno;
	size_t n;

	if (!colon || !is_uuid(text, (size_t)(colon - text)))
		return -EINVAL;
	n = strcspn(colon + 1, " ,\t\r\n"); /* MariaDB adds ",domain-server-sequence" */
	if (n == 0 || n >= sizeof(number))
		return -EINVAL;
	memcpy(number, colon + 1, n);
	number[n] = 0;
	if (str_i64(number, &seqno) < 0)
		return -EINVAL;
	set_uuid(ret_uuid, text);
	*ret_seqno = ret_uuid[0] ? seqno : -1;
	return 0;
}

/* The value behind "name:" at the start of a line, cut at white space; false = not there or too long. */
static bool line_value(const char *text, const char *name, char *out, size_t size)
{
	size_t len = strlen(name), n;

	for (const char *at = text; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
		if (strncmp(at, name, len) != 0 || at[len] != ':')
			continue;
		at += len + 1;
		at += strspn(at, " \t");
		n = strcspn(at, " \t\r\n");
		if (n >= size)
			return false;
		memcpy(out, at, n);
		out[n] = 0;
		return n > 0;
	}
	return false;
}

int galera_grastate_parse(const char *text, struct galera_member *m)
{
	char uuid[64], seqno[32], safe[8];
	int64_t n;

	if (!line_value(text, "uuid", uuid, sizeof(uuid)) || !is_uuid(uuid, strlen(uuid)) ||
	    !line_value(text, "seqno", seqno, sizeof(seqno)) || str_i64(seqno, &n) < 0)
		return -EINVAL;
	set_uuid(m->uuid, uuid);
	m->seqno = m->uuid[0] ? n : -1;
	m->safe_to_bootstrap = line_value(text, "safe_to_bootstrap", safe, sizeof(safe)) && streq(safe, "1");
	return 0;
}
