/* SPDX-License-Identifier: Apache-2.0 */
/* grastate.dat and "UUID:SEQNO" as a power cut may have left them. */
#include "core/galera/galera.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = xstrndup((const char *)data, size);
	struct galera_member m = {0};
	char uuid[GALERA_UUID_LEN + 1];
	int64_t seqno;

	if (galera_grastate_parse(text, &m) == 0)
		ensure(strlen(m.uuid) == 0 ? m.seqno == -1 : strlen(m.uuid) == GALERA_UUID_LEN);
	if (galera_position_parse(text, uuid, &seqno) == 0)
		ensure(strlen(uuid) == 0 ? seqno == -1 : strlen(uuid) == GALERA_UUID_LEN);
	return 0;
}
