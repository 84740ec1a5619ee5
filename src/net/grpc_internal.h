/* SPDX-License-Identifier: Apache-2.0 */
/* What client and server of gRPC share: starting the library, slices, files of certificates. */
#pragma once

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>

#include "net/grpc.h"

#define RPC_MESSAGE_MAX ((size_t)4 << 20)
#define RPC_PEM_MAX	((size_t)1 << 20)

/* Starts the library once a process; it stays until the end. */
void rpc_init(void);
gpr_timespec rpc_deadline(int64_t timeout_ms); /* < 0 = never */
grpc_byte_buffer *rpc_bytes(const void *data, size_t len);
/* malloc'ed and zero-terminated; -ENOMEM, or -EBADMSG when it cannot be read (compression). */
int rpc_bytes_copy(grpc_byte_buffer *b, char **ret, size_t *ret_len);
/* PEM texts; NULL where the file is NULL. Caller frees. */
struct rpc_pem {
	char *ca, *cert, *key;
};
int rpc_pem_read(struct rpc_pem *p, const char *ca_file, const char *cert_file, const char *key_file,
		 struct err *e);
void rpc_pem_done(struct rpc_pem *p);
grpc_arg rpc_arg_int(const char *name, int64_t value);
