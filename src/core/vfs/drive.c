/* SPDX-License-Identifier: Apache-2.0 */
/* drive: what the driver of an intent does next. The shell (a brick, the simulator) has the clock, the network and the log; this decides. */
#include "core/vfs/internal.h"

void vfs_drive_init(struct vfs_drive *d, const uint8_t id[16], uint64_t seq)
{
	*d = (struct vfs_drive){.state = VFS_COMMITTING, .seq = seq};
	memcpy(d->id, id, 16);
}

bool vfs_drive_due(const struct vfs_drive *d, uint64_t safe, uint64_t now_ms)
{
	return d->state == VFS_COMMITTING ? d->seq <= safe : d->state == VFS_PAUSED && d->again_ms <= now_ms;
}

void vfs_drive_pause(struct vfs_drive *d, uint64_t now_ms)
{
	d->state = VFS_PAUSED;
	d->pause_ms = CLAMP(d->pause_ms * 2, VFS_PAUSE_MIN_MS, VFS_PAUSE_MAX_MS);
	d->again_ms = now_ms + d->pause_ms;
}

enum vfs_drive_do vfs_drive_next(struct vfs *v, struct vfs_drive *d, uint64_t now_ms, uint32_t *ret_group,
				 struct vfs_op *ret_op, struct buf *store)
{
	bool local = false;
	int r = vfs_intent_next(v, d->id, ret_group, ret_op, store, &local);

	if (r == -ENOENT)
		return VFS_DRIVE_GONE;
	if (r < 0 || local || *ret_group >= v->map->n_groups) {
		vfs_drive_pause(d, now_ms);
		return VFS_DRIVE_WAIT;
	}
	d->state = VFS_STEPPING;
	d->try++;
	return VFS_DRIVE_SEND;
}

enum vfs_drive_do vfs_drive_answer(struct vfs *v, struct vfs_drive *d, uint64_t try, int status,
				   const struct vfs_result *answer, uint64_t now_ms, int64_t now_ns,
				   struct record *rec, struct vfs_result *ret_res, bool *ret_finished)
{
	int r;

	*ret_res = (struct vfs_result){0};
	*ret_finished = false;
	if (d->state != VFS_STEPPING || d->try != try)
		return VFS_DRIVE_WAIT; /* of an earlier try */
	if (status < 0 || !answer || !rec) {
		vfs_drive_pause(d, now_ms);
		return VFS_DRIVE_WAIT;
	}
	r = vfs_intent_done(v, d->id, answer, now_ns, rec, ret_res, ret_finished);
	if (r == -ENOENT)
		return VFS_DRIVE_GONE;
	if (r == -EALREADY) { /* another answer was faster: from where it is now */
		d->state = VFS_COMMITTING;
		d->seq = v->replica->seq;
		return VFS_DRIVE_WAIT;
	}
	if (r < 0 || rec->n == 0) {
		ensure(r < 0 || !*ret_finished);
		d->err = r;
		vfs_drive_pause(d, now_ms);
		return VFS_DRIVE_WAIT;
	}
	return VFS_DRIVE_SUBMIT;
}

void vfs_drive_submitted(struct vfs_drive *d, int err, uint64_t seq, uint64_t now_ms)
{
	if (err < 0) { /* the window is full, or copies are missing: the step's answer is kept at its group */
		vfs_drive_pause(d, now_ms);
		return;
	}
	d->state = VFS_COMMITTING;
	d->seq = seq;
	d->pause_ms = 0;
}
