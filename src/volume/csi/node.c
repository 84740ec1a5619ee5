/* SPDX-License-Identifier: Apache-2.0 */
/* The node service. Staging mounts the kuayu volume (once a node, mounts.h) and binds the CSI volume's folder to the staging path;
 * publishing binds the same folder to the pod's path, read-only if wanted. Each step may come again: what is there and right is left, what is
 * there and dead (its mount process died) is taken away first. What is bound is remembered (bound.c), so that it can be bound again when the
 * mount is.
 *
 * Inline volumes of a pod (no staging; context volume and path) bind a folder of a kuayu volume as it is, unless --no-inline. */
#include "volume/csi/driver.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#define EPHEMERAL "csi.storage.k8s.io/ephemeral"

#define UNPACK(type, request, len) csi__v1__##type##__unpack(NULL, len, request)

static int bad_message(struct err *e)
{
	(void)err_set(e, -EINVAL, "the request cannot be read");
	return RPC_INVALID_ARGUMENT;
}

static int refuse(struct err *e, int code, const char *text)
{
	(void)err_set(e, -EINVAL, "%s", text);
	return code;
}

static bool path_ok(const char *p)
{
	return *p == '/' && strlen(p) < DRIVER_TEXT_MAX && !strstr(p, "/../") && !str_ends(p, "/..");
}

/* source is on path already, or nothing is, afterwards. -EEXIST: something else is there. */
static int clear(const char *source, const char *path, bool *ret_there, struct err *e)
{
	int same;

	*ret_there = false;
	if (!mount_is_point(path))
		return 0;
	same = mount_same(source, path);
	if (same == 1) {
		*ret_there = true;
		return 0;
	}
	if (same == 0)
		return err_set(e, -EEXIST, "something else is mounted at %s", path);
	return mount_remove(path, e);
}

static bool is_read_only(const char *path)
{
	struct statvfs st;

	return statvfs(path, &st) == 0 && (st.f_flag & ST_RDONLY);
}

/* Binds source to path unless it is there. */
static int bind_once(const char *source, const char *path, bool read_only, struct err *e)
{
	bool there;
	int r = clear(source, path, &there, e);

	if (r == 0 && there && is_read_only(path) != read_only && read_only)
		return err_set(e, -EEXIST, "%s is published already, and not read-only", path);
	return r < 0 || there ? r : mount_bind(source, path, read_only, e);
}

/* ---- stage ---- */

static int stage(struct driver *d, const Csi__V1__NodeStageVolumeRequest *m, struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_(catalog_done) struct catalog c = {0};
	_cleanup_free_ char *path = NULL;
	int code = driver_find(d, m->volume_id, &c, &v, e);

	if (code != RPC_OK)
		return code;
	path = catalog_path(&c, v.key);
	code = driver_code(bind_once(path, m->staging_target_path, false, e));
	if (code == RPC_OK)
		bound_put(d, m->volume_id, path + strlen(c.root), m->staging_target_path, false);
	return code;
}

int node_stage(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct driver *d = ctx;
	Csi__V1__NodeStageVolumeRequest *m = UNPACK(node_stage_volume_request, request, len);
	Csi__V1__NodeStageVolumeResponse answer = CSI__V1__NODE_STAGE_VOLUME_RESPONSE__INIT;
	int code;

	if (!m)
		return bad_message(e);
	if (!*m->volume_id)
		code = refuse(e, RPC_INVALID_ARGUMENT, "volume_id is missing");
	else if (!path_ok(m->staging_target_path))
		code = refuse(e, RPC_INVALID_ARGUMENT, "staging_target_path is missing or not absolute");
	else if (capability_fault(m->volume_capability))
		code = refuse(e, RPC_INVALID_ARGUMENT, capability_fault(m->volume_capability));
	else
		code = driver_begin(d, m->volume_id, e);
	if (code == RPC_OK) {
		code = stage(d, m, e);
		driver_end(d, m->volume_id);
	}
	if (code != RPC_OK)
		log_warn("NodeStageVolume %.200s: %s", m->volume_id, e->text);
	csi__v1__node_stage_volume_request__free_unpacked(m, NULL);
	return code == RPC_OK ? driver_reply(reply, &answer.base) : code;
}

/* ---- publish ---- */

/* The folder of an inline volume: named by the pod, so it must not climb. */
static int inline_source(struct driver *d, const Csi__V1__NodePublishVolumeRequest *m, char **ret_root,
			 char **ret_source, struct err *e)
{
	const char *volume = pair_value(m->n_volume_context, m->volume_context, "volume");
	const char *path = pair_value(m->n_volume_context, m->volume_context, "path");
	_cleanup_free_ char *root = NULL, *full = NULL, *real = NULL;
	char home[DRIVER_TEXT_MAX];
	int r;

	if (!d->inline_volumes)
		return refuse(e, RPC_INVALID_ARGUMENT, "inline volumes are switched off (--no-inline)");
	if (!volume)
		volume = d->volume;
	if (!volume)
		return refuse(e, RPC_INVALID_ARGUMENT, "volumeAttributes: 'volume' is missing");
	r = mounts_get(d->mounts, volume, &root, e);
	if (r < 0)
		return driver_code(r);
	full = xasprintf("%s/%s", root, path ? path : "");
	real = realpath(full, NULL);
	if (!real && errno == ENOENT && !strstr(full, "/..") && dir_make(full, 0777, e) == 0) {
		(void)chmod(full, 0777);
		real = realpath(full, NULL);
	}
	if (!real || !realpath(root, home))
		return refuse(e, RPC_NOT_FOUND, "volumeAttributes: 'path' is not there");
	if (strncmp(real, home, strlen(home)) != 0 || (real[strlen(home)] && real[strlen(home)] != '/') ||
	    str_starts(real + strlen(home), "/" DRIVER_BASE))
		return refuse(e, RPC_INVALID_ARGUMENT, "volumeAttributes: 'path' leads out of the volume");
	*ret_root = take_ptr(root);
	*ret_source = take_ptr(real);
	return RPC_OK;
}

static int publish(struct driver *d, const Csi__V1__NodePublishVolumeRequest *m, struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_(catalog_done) struct catalog c = {0};
	_cleanup_free_ char *source = NULL;
	bool read_only =
		m->readonly || m->volume_capability->access_mode->mode ==
				       CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_READER_ONLY;
	int code;

	if (streq(pair_value(m->n_volume_context, m->volume_context, EPHEMERAL), "true")) {
		code = inline_source(d, m, &c.root, &source, e);
	} else if (!path_ok(m->staging_target_path)) {
		return refuse(e, RPC_FAILED_PRECONDITION, "staging_target_path is missing");
	} else {
		code = driver_find(d, m->volume_id, &c, &v, e);
		if (code == RPC_OK && !mount_is_point(m->staging_target_path))
			return refuse(e, RPC_FAILED_PRECONDITION, "the volume is not staged here");
		if (code == RPC_OK)
			source = catalog_path(&c, v.key);
	}
	if (code != RPC_OK)
		return code;
	code = driver_code(bind_once(source, m->target_path, read_only, e));
	if (code == RPC_OK)
		bound_put(d, m->volume_id, source + strlen(c.root), m->target_path, read_only);
	return code;
}

int node_publish(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct driver *d = ctx;
	Csi__V1__NodePublishVolumeRequest *m = UNPACK(node_publish_volume_request, request, len);
	Csi__V1__NodePublishVolumeResponse answer = CSI__V1__NODE_PUBLISH_VOLUME_RESPONSE__INIT;
	int code;

	if (!m)
		return bad_message(e);
	if (!*m->volume_id)
		code = refuse(e, RPC_INVALID_ARGUMENT, "volume_id is missing");
	else if (!path_ok(m->target_path))
		code = refuse(e, RPC_INVALID_ARGUMENT, "target_path is missing or not absolute");
	else if (capability_fault(m->volume_capability))
		code = refuse(e, RPC_INVALID_ARGUMENT, capability_fault(m->volume_capability));
	else
		code = driver_begin(d, m->target_path, e); /* several pods at once are fine */
	if (code == RPC_OK) {
		code = publish(d, m, e);
		driver_end(d, m->target_path);
	}
	if (code != RPC_OK)
		log_warn("NodePublishVolume %.200s: %s", m->volume_id, e->text);
	csi__v1__node_publish_volume_request__free_unpacked(m, NULL);
	return code == RPC_OK ? driver_reply(reply, &answer.base) : code;
}

/* ---- the way back ---- */

/* Nothing is left at path; the folder goes too when we made it (publish). */
static int take_away(struct driver *d, const char *path, bool folder, struct err *e)
{
	int code = driver_begin(d, path, e), r;

	if (code != RPC_OK)
		return code;
	bound_drop(d, path);
	r = mount_remove(path, e);
	if (r == 0 && folder && rmdir(path) < 0 && errno != ENOENT && errno != ENOTDIR)
		r = err_errno(e, -errno, "cannot remove %s", path);
	driver_end(d, path);
	return driver_code(r);
}

int node_unpublish(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Csi__V1__NodeUnpublishVolumeRequest *m = UNPACK(node_unpublish_volume_request, request, len);
	Csi__V1__NodeUnpublishVolumeResponse answer = CSI__V1__NODE_UNPUBLISH_VOLUME_RESPONSE__INIT;
	int code;

	if (!m)
		return bad_message(e);
	code = !*m->volume_id ? refuse(e, RPC_INVALID_ARGUMENT, "volume_id is missing")
	       : !path_ok(m->target_path)
		       ? refuse(e, RPC_INVALID_ARGUMENT, "target_path is missing or not absolute")
		       : take_away(ctx, m->target_path, true, e);
	csi__v1__node_unpublish_volume_request__free_unpacked(m, NULL);
	return code == RPC_OK ? driver_reply(reply, &answer.base) : code;
}

int node_unstage(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Csi__V1__NodeUnstageVolumeRequest *m = UNPACK(node_unstage_volume_request, request, len);
	Csi__V1__NodeUnstageVolumeResponse answer = CSI__V1__NODE_UNSTAGE_VOLUME_RESPONSE__INIT;
	int code;

	if (!m)
		return bad_message(e);
	code = !*m->volume_id ? refuse(e, RPC_INVALID_ARGUMENT, "volume_id is missing")
	       : !path_ok(m->staging_target_path)
		       ? refuse(e, RPC_INVALID_ARGUMENT, "staging_target_path is missing or not absolute")
		       : take_away(ctx, m->staging_target_path, false, e);
	csi__v1__node_unstage_volume_request__free_unpacked(m, NULL);
	return code == RPC_OK ? driver_reply(reply, &answer.base) : code;
}

/* ---- looking ---- */

static int stats(struct driver *d, const Csi__V1__NodeGetVolumeStatsRequest *m, struct buf *reply,
		 struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_(catalog_done) struct catalog c = {0};
	Csi__V1__NodeGetVolumeStatsResponse answer = CSI__V1__NODE_GET_VOLUME_STATS_RESPONSE__INIT;
	Csi__V1__VolumeUsage usage[2] = {CSI__V1__VOLUME_USAGE__INIT, CSI__V1__VOLUME_USAGE__INIT},
			     *list[2] = {&usage[0], &usage[1]};
	struct statvfs st;
	int code;

	if (!*m->volume_id || !path_ok(m->volume_path))
		return refuse(e, RPC_INVALID_ARGUMENT, "volume_id or volume_path is missing");
	code = driver_find(d, m->volume_id, &c, &v, e);
	if (code != RPC_OK)
		return code;
	if (!mount_is_point(m->volume_path))
		return refuse(e, RPC_NOT_FOUND, "the volume is not mounted at volume_path");
	if (statvfs(m->volume_path, &st) < 0)
		return driver_code(err_errno(e, -errno, "%s", m->volume_path));
	usage[0].unit = CSI__V1__VOLUME_USAGE__UNIT__BYTES;
	usage[0].total = (int64_t)(st.f_blocks * st.f_frsize);
	usage[0].available = (int64_t)(st.f_bavail * st.f_frsize);
	usage[0].used = (int64_t)((st.f_blocks - st.f_bfree) * st.f_frsize);
	usage[1].unit = CSI__V1__VOLUME_USAGE__UNIT__INODES;
	usage[1].total = (int64_t)st.f_files;
	usage[1].available = (int64_t)st.f_favail;
	usage[1].used = (int64_t)(st.f_files - st.f_ffree);
	answer.n_usage = 2;
	answer.usage = list;
	return driver_reply(reply, &answer.base);
}

int node_stats(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Csi__V1__NodeGetVolumeStatsRequest *m = UNPACK(node_get_volume_stats_request, request, len);
	int code = m ? stats(ctx, m, reply, e) : bad_message(e);

	if (m)
		csi__v1__node_get_volume_stats_request__free_unpacked(m, NULL);
	return code;
}

int node_caps(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	static const Csi__V1__NodeServiceCapability__RPC__Type types[] = {
		CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__STAGE_UNSTAGE_VOLUME,
		CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__GET_VOLUME_STATS,
	};
	Csi__V1__NodeServiceCapability__RPC rpc[ARRAY_SIZE(types)];
	Csi__V1__NodeServiceCapability caps[ARRAY_SIZE(types)], *all[ARRAY_SIZE(types)];
	Csi__V1__NodeGetCapabilitiesResponse answer = CSI__V1__NODE_GET_CAPABILITIES_RESPONSE__INIT;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		csi__v1__node_service_capability__rpc__init(&rpc[i]);
		csi__v1__node_service_capability__init(&caps[i]);
		rpc[i].type = types[i];
		caps[i].type_case = CSI__V1__NODE_SERVICE_CAPABILITY__TYPE_RPC;
		caps[i].rpc = &rpc[i];
		all[i] = &caps[i];
	}
	answer.n_capabilities = ARRAY_SIZE(types);
	answer.capabilities = all;
	return driver_reply(reply, &answer.base);
}

int node_info(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	const struct driver *d = ctx;
	Csi__V1__NodeGetInfoResponse answer = CSI__V1__NODE_GET_INFO_RESPONSE__INIT;

	answer.node_id = (char *)d->node_id;
	return driver_reply(reply, &answer.base);
}
