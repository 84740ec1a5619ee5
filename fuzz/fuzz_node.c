/* SPDX-License-Identifier: Apache-2.0 */
/* What the node agent parses of others' bytes: log records, a gRPC server's answer, image references, texts with $(VAR), networks, base64, pods. */
#include "node/agent.h"
#include "node/grpc_probe.h"
#include "node/logfile.h"
#include "node/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void texts(const char *text, size_t size)
{
	struct log_options o = {.tail_lines = -1, .limit_bytes = -1, .timestamps = true};
	_cleanup_json_ json_t *vars = json_pack("{s:s}", "A", "b");
	_cleanup_free_ char *expanded = env_expand(text, vars), *bytes = NULL;
	_cleanup_buf_ struct buf b = {0};
	char *name, *tag;
	uint32_t net;
	size_t n;
	int bits;

	ensure(expanded);
	log_record_format(text, size, &o, &b);
	if (image_ref_split(text, &name, &tag) == 0) {
		ensure(*name != '/' && !strstr(name, ".."));
		free(name);
		free(tag);
	}
	(void)cidr_parse(text, &net, &bits);
	bytes = base64_decode(text, &n);
	if (bytes)
		ensure(n <= size);
}

static void pod(const char *text, size_t size)
{
	_cleanup_json_ json_t *obj = NULL, *cfg = NULL, *env = json_object();
	struct oci_input in = {
		.env = env, .rootfs = "/r", .cgroup = "/c", .hostname = "h", .passwd = text, .group = text};

	if (js_parse_new(text, size, &obj, NULL) < 0)
		return;
	(void)fence_pod_is_singleton(obj);
	(void)pod_status_qos(obj);
	in.pod = in.container = in.image = obj;
	(void)oci_config_new(&in, &cfg, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = xstrndup((const char *)data, size);
	_cleanup_buf_ struct buf answer = {0};
	size_t used;
	int r = grpc_probe_parse(data, size, &used, &answer);

	ensure(r <= 1 && used <= size);
	texts(text, strlen(text));
	pod(text, strlen(text));
	return 0;
}
