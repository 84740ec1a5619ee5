/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of a CSI driver. The first byte says which. */
#include "csi/csi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char name[128], version[64], node[256];
	struct csi_result r = {0};
	struct csi_unpacked *hold = NULL;
	int64_t most;

	if (!len)
		return 0;
	switch (data[0] % 7) {
	case 0:
		csi_unpack_plugin_info(data + 1, len - 1, name, version);
		break;
	case 1:
		csi_unpack_controller_caps(data + 1, len - 1, &r);
		break;
	case 2:
		csi_unpack_node_caps(data + 1, len - 1, &r);
		break;
	case 3:
		csi_unpack_node_info(data + 1, len - 1, node, &most);
		break;
	default:
		if (csi_unpack(data[0] % 7 == 4	  ? CSI_CREATE_VOLUME
			       : data[0] % 7 == 5 ? CSI_EXPAND_VOLUME
						  : CSI_NODE_STATS,
			       data + 1, len - 1, &r, &hold) == 0)
			csi_unpacked_free(hold);
	}
	return 0;
}
