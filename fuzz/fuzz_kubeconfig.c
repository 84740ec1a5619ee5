/* SPDX-License-Identifier: Apache-2.0 */
/* kubeconfig files: YAML, then their meaning. No file that the input names is read: tokenFile is taken out of reach. */
#include "kube/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_free_ char *text = xstrndup((const char *)data, len);
	_cleanup_(config_done) struct kube_config c = {0};
	_cleanup_json_ json_t *j = NULL;
	struct err e = {0};

	(void)yaml_parse_new((const char *)data, len, &j, &e);
	if (!strstr(text, "tokenFile"))
		(void)config_parse((const char *)data, len, "/nowhere", &c, &e);
	return 0;
}
