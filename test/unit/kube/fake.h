/* SPDX-License-Identifier: Apache-2.0 */
/* A fake HTTP server on the test's own loop: the test sees each request and says the answer, now or later, whole or as a
 * stream, or stays silent. Only what a test needs: Content-Length bodies, keep-alive, chunked streams. */
#pragma once

#include "io/io.h"

struct fake;
struct fake_conn;

struct fake_req {
	struct fake_conn *conn;
	const char *method, *path, *body, *head; /* path with query; valid during the handler */
};

struct fake *fake_new(uv_loop_t *loop, void (*handle)(void *ctx, const struct fake_req *r), void *ctx);
int fake_port(const struct fake *f);
/* Stops listening and cuts all connections; false = only forgets what it was told to serve. */
void fake_stop(struct fake *f);
void fake_free(struct fake *f);
void fake_reply(struct fake_conn *c, int status, const char *body);
void fake_stream(struct fake_conn *c);
void fake_write(struct fake_conn *c, const char *line);
void fake_end(struct fake_conn *c);
/* Runs the loop until *flag >= want or ms have passed. */
bool run_until(uv_loop_t *loop, const int *flag, int want, uint64_t ms);
