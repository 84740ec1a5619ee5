/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by machines.c and source.c. */
#include "floor.h"

void floor_event(struct floor *f, const char *ev, json_t *fields)
{
	_cleanup_free_ char *text = NULL;

	json_object_set_new(fields, "ev", json_string(ev));
	json_object_set_new(fields, "t", json_real((double)clock_wall_us() / 1000.0));
	text = json_dumps(fields, JSON_COMPACT | JSON_REAL_PRECISION(16));
	if (f->events && text)
		fprintf(f->events, "%s\n", text);
	json_decref(fields);
}

uint64_t floor_backoff(unsigned failures)
{
	uint64_t ms = FLOOR_BACKOFF_MS << MIN(failures, 4u);
	uint16_t r;

	ms = MIN(ms, FLOOR_BACKOFF_MS_MAX);
	random_bytes(&r, sizeof(r));
	return ms * 3 / 4 + ms * r / 131072;
}

uint64_t floor_spread(int64_t ms)
{
	uint16_t r;

	random_bytes(&r, sizeof(r));
	return (uint64_t)(ms / 2 + ms * r / UINT16_MAX);
}

int floor_init(struct floor *f, char **gateways, const char *events_file, int connections, struct err *e)
{
	f->loop = uv_default_loop();
	f->gateways = gateways;
	f->n_gateways = strv_len(gateways);
	if (!f->n_gateways)
		return err_set(e, -EINVAL, "--gateways: at least one URL, the own domain's first");
	if (events_file) {
		f->events = fopen(events_file, "ae");
		if (!f->events)
			return err_errno(e, -errno, "cannot open %s", events_file);
		setvbuf(f->events, NULL, _IOLBF, 0);
	}
	f->http = http_client_new(f->loop,
				  &(struct http_client_options){.connections_max = connections,
								.unacked_max_ms = FLOOR_UNACKED_MS},
				  e);
	return f->http ? 0 : e->code;
}
