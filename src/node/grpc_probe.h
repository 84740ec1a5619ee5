/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC health check (grpc.health.v1.Health/Check), the client side of one unary call over cleartext HTTP/2. */
#pragma once

#include "io/io.h"

struct grpc_probe;

/* done is called once, never from inside; ok = the answer was SERVING. service "" = the whole server. */
struct grpc_probe *grpc_probe_new(uv_loop_t *loop, const char *ip, int port, const char *service,
				  int64_t timeout_ms, void (*done)(void *ctx, bool ok, const char *text),
				  void *ctx);
/* done is not called any more. */
void grpc_probe_cancel(struct grpc_probe *g);

/* What a server's bytes so far say: 0 = go on reading, 1 = SERVING, -ENODATA = an answer that is not SERVING, -EPROTO = no
 * HTTP/2, or the call was refused. *used: bytes of whole frames, to be skipped; ret_answer: bytes to be sent (SETTINGS and PING
 * acknowledgements). Pure. */
int grpc_probe_parse(const unsigned char *data, size_t len, size_t *used, struct buf *ret_answer);
