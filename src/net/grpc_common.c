/* SPDX-License-Identifier: Apache-2.0 */
/* See grpc_internal.h. The library's own messages go to our log at debug level: what matters reaches callers as status. */
#include "net/grpc_internal.h"

#include <limits.h>
#include <pthread.h>

static void to_log(gpr_log_func_args *a)
{
	log_debug("grpc: %s", a->message);
}

/* gRPC core only reads its sockets while some call waits. Calls that fail at once because the server was away then starve the TLS
 * handshake with the server that is back, and it never ends; a poller in the background carries it on. Its period bounds how long each
 * step of such a handshake takes. */
#define BACKUP_POLL_MS "50"

static void init_once(void)
{
	setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", BACKUP_POLL_MS, 0);
	gpr_set_log_function(to_log);
	gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
	grpc_init();
}

void rpc_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_once);
}

gpr_timespec rpc_deadline(int64_t timeout_ms)
{
	if (timeout_ms < 0)
		return gpr_inf_future(GPR_CLOCK_MONOTONIC);
	return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

grpc_byte_buffer *rpc_bytes(const void *data, size_t len)
{
	grpc_slice slice = grpc_slice_from_copied_buffer(data ? data : "", len);
	grpc_byte_buffer *b = grpc_raw_byte_buffer_create(&slice, 1);

	grpc_slice_unref(slice);
	return b;
}

int rpc_bytes_copy(grpc_byte_buffer *b, char **ret, size_t *ret_len)
{
	grpc_byte_buffer_reader reader;
	grpc_slice slice;
	size_t at = 0, len = grpc_byte_buffer_length(b);
	char *data;

	if (!grpc_byte_buffer_reader_init(&reader, b))
		return -EBADMSG;
	data = malloc(len + 1);
	while (data && grpc_byte_buffer_reader_next(&reader, &slice)) {
		size_t n = MIN(GRPC_SLICE_LENGTH(slice), len - at);

		memcpy(data + at, GRPC_SLICE_START_PTR(slice), n);
		at += n;
		grpc_slice_unref(slice);
	}
	grpc_byte_buffer_reader_destroy(&reader);
	if (!data)
		return -ENOMEM;
	data[at] = 0;
	*ret = data;
	*ret_len = at;
	return 0;
}

int rpc_pem_read(struct rpc_pem *p, const char *ca_file, const char *cert_file, const char *key_file,
		 struct err *e)
{
	struct rpc_pem pem = {0};
	int r = 0;

	if (!cert_file != !key_file)
		return err_set(e, -EINVAL, "a certificate needs its key, and a key its certificate");
	if (ca_file)
		r = file_read(ca_file, RPC_PEM_MAX, &pem.ca, NULL, e);
	if (r == 0 && cert_file)
		r = file_read(cert_file, RPC_PEM_MAX, &pem.cert, NULL, e);
	if (r == 0 && key_file)
		r = file_read(key_file, RPC_PEM_MAX, &pem.key, NULL, e);
	if (r < 0) {
		rpc_pem_done(&pem);
		return r;
	}
	*p = pem;
	return 0;
}

void rpc_pem_done(struct rpc_pem *p)
{
	if (p->key)
		explicit_bzero(p->key, strlen(p->key));
	free(p->ca);
	free(p->cert);
	free(p->key);
	*p = (struct rpc_pem){0};
}

grpc_arg rpc_arg_int(const char *name, int64_t value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER,
			  .key = (char *)name,
			  .value.integer = (int)MIN(value, (int64_t)INT_MAX)};
}

int rpc_errno(int code)
{
	switch (code) {
	case RPC_OK:
		return 0;
	case RPC_CANCELLED:
		return -ECANCELED;
	case RPC_INVALID_ARGUMENT:
	case RPC_OUT_OF_RANGE:
		return -EINVAL;
	case RPC_DEADLINE_EXCEEDED:
		return -ETIMEDOUT;
	case RPC_NOT_FOUND:
		return -ENOENT;
	case RPC_ALREADY_EXISTS:
		return -EEXIST;
	case RPC_PERMISSION_DENIED:
	case RPC_UNAUTHENTICATED:
		return -EACCES;
	case RPC_RESOURCE_EXHAUSTED:
		return -ENOBUFS;
	case RPC_FAILED_PRECONDITION:
		return -EPERM;
	case RPC_UNIMPLEMENTED:
		return -EOPNOTSUPP;
	case RPC_UNAVAILABLE:
		return -EAGAIN;
	default:
		return -EIO;
	}
}
