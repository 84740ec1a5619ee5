/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait for a server that has been found dead, and did not refuse: ended here, so that the proxy sends those that may be
 * sent again to a living one, and the clients of the others learn it at once.
 *
 * HAProxy's own `on-marked-down shutdown-sessions` would end requests that are still connecting too, which can move by
 * themselves and then fail without need; so it is set for TCP only, and for HTTP this file picks from `show sess` those that are
 * connected (state 7 or 8 of the server's side). Between looking and ending a session's number may pass to another one: that
 * one is then ended like the rest; a matter of a millisecond in rare moments. */
#include "gateway/internal.h"

#define ENDED_MAX 2000 /* at a time; the rest at the next beat */

static bool is_dead(const struct proxy_state *state, const char *backend, const char *server)
{
	for (size_t i = 0; i < state->n; i++)
		if (streq(state->v[i].o.name, server) && streq(state->v[i].backend, backend))
			return state->v[i].o.health == ROUTE_DOWN;
	return false;
}

/* The word behind " KEY=", up to a blank. */
static bool word(const char *line, const char *key, char *out, size_t size)
{
	const char *at = strstr(line, key);
	size_t n;

	if (!at)
		return false;
	at += strlen(key);
	n = strcspn(at, " ");
	if (n >= size)
		return false;
	memcpy(out, at, n);
	out[n] = 0;
	return true;
}

size_t sessions_to_end(const char *text, const struct proxy_state *state, struct buf *out)
{
	_cleanup_strv_ char **lines = strv_split(text, '\n', false);
	size_t n = 0;

	for (size_t i = 0; lines[i] && n < ENDED_MAX; i++) {
		char backend[600], server[ROUTE_SERVER_MAX], side[32];
		size_t id = strspn(lines[i], "0123456789abcdefx");

		if (!id || lines[i][id] != ':' || !word(lines[i], " be=", backend, sizeof(backend)) ||
		    !word(lines[i], " srv=", server, sizeof(server)) ||
		    !word(lines[i], " scb=[", side, sizeof(side)))
			continue;
		if (atoi(side) < 7 || atoi(side) > 8 || !is_dead(state, backend, server))
			continue;
		if (buf_addf(out, "shutdown session %.*s;", (int)id, lines[i]) < 0)
			break;
		n++;
	}
	return n;
}

bool sessions_waiting(const struct proxy_state *state)
{
	for (size_t i = 0; i < state->n; i++)
		if (state->v[i].o.health == ROUTE_DOWN && state->v[i].o.sessions > 0)
			return true;
	return false;
}
