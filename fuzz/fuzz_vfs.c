/* SPDX-License-Identifier: Apache-2.0 */
/* Operations, results and folder listings as a client or a brick may send them; the first byte says which. What is accepted is encoded again, and
 * that decodes to the same bytes. */
#include "core/vfs/vfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_op(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf a = {0}, b = {0};
	struct vfs_op op, again;

	if (vfs_op_decode(data, size, NULL, &op) < 0)
		return;
	ensure(op.name_len <= VFS_NAME_MAX + 1 && op.name2_len <= VFS_NAME_MAX + 1 &&
	       op.data_len <= VFS_XATTR_MAX);
	ensure(vfs_op_encode(&op, &a) == 0);
	ensure(vfs_op_decode(a.data, a.len, NULL, &again) == 0);
	ensure(vfs_op_encode(&again, &b) == 0);
	ensure(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
}

static void try_result(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf a = {0}, b = {0};
	struct vfs_result res, again;

	if (vfs_result_decode(data, size, NULL, &res) < 0)
		return;
	ensure(res.err <= 0);
	ensure(vfs_result_encode(&res, &a) == 0);
	ensure(vfs_result_decode(a.data, a.len, NULL, &again) == 0);
	ensure(vfs_result_encode(&again, &b) == 0);
	ensure(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
	vfs_result_done(&res);
	vfs_result_done(&again);
}

static void try_entries(const uint8_t *data, size_t size)
{
	struct vfs_entry e;
	size_t at = 0, was = 0;

	while (vfs_entry_decode(data, size, &at, &e) == 0) {
		ensure(at > was && at <= size);
		ensure(e.name_len > 0 && e.name_len <= VFS_NAME_MAX && !memchr(e.name, '/', e.name_len));
		was = at;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] % 3 == 0)
		try_op(data + 1, size - 1);
	else if (data[0] % 3 == 1)
		try_result(data + 1, size - 1);
	else
		try_entries(data + 1, size - 1);
	return 0;
}
