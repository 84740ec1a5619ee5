/* SPDX-License-Identifier: Apache-2.0 */
/* What the factory side's programs share: the list of gateways, the event file, waiting times. */
#pragma once

#include "net/http_client.h"

/* A gateway without power is told from one that is slow by TCP: bytes that nobody acknowledges for so long. So time-outs of
 * requests can be long, and a slow moment of the database does not make everybody send everything again elsewhere. */
#define FLOOR_UNACKED_MS     1000
#define FLOOR_ANSWER_MS	     6000
#define FLOOR_CONNECT_MS     300
#define FLOOR_BACKOFF_MS     100
#define FLOOR_BACKOFF_MS_MAX 1000

struct floor {
	uv_loop_t *loop;
	struct http_client *http;
	char **gateways; /* base URLs; [0] = the own domain's */
	size_t n_gateways;
	FILE *events; /* JSON lines */
	bool stopping;
};

/* One JSON line with "t" = wall clock in milliseconds. Takes over fields (an object). */
void floor_event(struct floor *f, const char *ev, json_t *fields);
/* 100, 200, 400 ... 1,000 ms, each +-25 %. */
uint64_t floor_backoff(unsigned failures);
/* Half of ms to one and a half, evenly: what a hundred machines do after the same event, they do not do in the same moment. */
uint64_t floor_spread(int64_t ms);
int floor_init(struct floor *f, char **gateways, const char *events_file, int connections, struct err *e);
