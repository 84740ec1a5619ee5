/* SPDX-License-Identifier: Apache-2.0 */
/* The table of methods, the identity service, and what the other two services share. */
#include "volume/csi/driver.h"

#include <sys/stat.h>

int driver_reply(struct buf *reply, const ProtobufCMessage *m)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	_cleanup_free_ uint8_t *bytes = xcalloc(1, len + 1);

	protobuf_c_message_pack(m, bytes);
	return buf_add(reply, bytes, len) < 0 ? RPC_RESOURCE_EXHAUSTED : RPC_OK;
}

int driver_code(int r)
{
	switch (r) {
	case 0:
		return RPC_OK;
	case -EINVAL:
		return RPC_INVALID_ARGUMENT;
	case -ENOENT:
		return RPC_NOT_FOUND;
	case -EEXIST:
		return RPC_ALREADY_EXISTS;
	case -ENOSPC:
	case -EDQUOT:
		return RPC_RESOURCE_EXHAUSTED;
	case -ETIMEDOUT:
		return RPC_DEADLINE_EXCEEDED;
	case -ENOTCONN:
	case -EIO:
		return RPC_UNAVAILABLE;
	default:
		return RPC_INTERNAL;
	}
}

int driver_begin(struct driver *d, const char *id, struct err *e)
{
	int at = -1, r = RPC_OK;

	pthread_mutex_lock(&d->lock);
	for (int i = 0; i < DRIVER_BUSY_MAX && r == RPC_OK; i++) {
		if (!d->busy[i])
			at = at < 0 ? i : at;
		else if (streq(d->busy[i], id))
			r = RPC_ABORTED;
	}
	if (r == RPC_OK && at < 0)
		r = RPC_RESOURCE_EXHAUSTED;
	if (r == RPC_OK)
		d->busy[at] = xstrdup(id);
	pthread_mutex_unlock(&d->lock);
	if (r == RPC_ABORTED)
		(void)err_set(e, -EBUSY, "volume '%.200s' is being worked on", id);
	else if (r != RPC_OK)
		(void)err_set(e, -EBUSY, "%d volumes are being worked on", DRIVER_BUSY_MAX);
	return r;
}

void driver_end(struct driver *d, const char *id)
{
	pthread_mutex_lock(&d->lock);
	for (int i = 0; i < DRIVER_BUSY_MAX; i++)
		if (d->busy[i] && streq(d->busy[i], id)) {
			free(d->busy[i]);
			d->busy[i] = NULL;
			break;
		}
	pthread_mutex_unlock(&d->lock);
}

bool volume_id_parse(const char *id, struct volume_id *ret)
{
	const char *slash = strchr(id, '/');

	if (!slash || (size_t)(slash - id) >= sizeof(ret->volume) || strlen(slash + 1) > CATALOG_KEY_MAX ||
	    strchr(slash + 1, '/'))
		return false;
	snprintf(ret->volume, sizeof(ret->volume), "%.*s", (int)(slash - id), id);
	snprintf(ret->key, sizeof(ret->key), "%s", slash + 1);
	return mounts_name_ok(ret->volume);
}

void catalog_done(struct catalog *c)
{
	free(c->root);
	c->root = NULL;
}

int driver_catalog(struct driver *d, const char *volume, struct catalog *ret, struct err *e)
{
	*ret = (struct catalog){.base = DRIVER_BASE};
	return mounts_get(d->mounts, volume, &ret->root, e);
}

int driver_find(struct driver *d, const char *id, struct catalog *ret_c, struct catalog_volume *ret_v,
		struct err *e)
{
	struct volume_id v;
	int r;

	if (!*id) {
		(void)err_set(e, -EINVAL, "volume_id is missing");
		return RPC_INVALID_ARGUMENT;
	}
	if (!volume_id_parse(id, &v)) {
		(void)err_set(e, -ENOENT, "no volume '%.200s'", id);
		return RPC_NOT_FOUND;
	}
	r = driver_catalog(d, v.volume, ret_c, e);
	if (r == 0)
		r = catalog_get(ret_c, v.key, ret_v, e);
	if (r < 0)
		catalog_done(ret_c);
	return driver_code(r);
}

const char *capability_fault(const Csi__V1__VolumeCapability *c)
{
	if (!c)
		return "volume_capability is missing";
	if (c->access_type_case == CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK)
		return "block volumes are not offered";
	if (c->access_type_case != CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT)
		return "volume_capability has no access type";
	if (!c->access_mode ||
	    c->access_mode->mode <= CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__UNKNOWN ||
	    c->access_mode->mode > CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_MULTI_WRITER)
		return "volume_capability has no known access mode";
	return NULL;
}

json_t *pairs_object_new(size_t n, Csi__V1__StringPair *const *v)
{
	json_t *o = json_object();

	for (size_t i = 0; i < n; i++) {
		json_t *value = json_string(v[i]->value);

		if (value)
			json_object_set_new(o, v[i]->key, value);
	}
	return o;
}

const char *pair_value(size_t n, Csi__V1__StringPair *const *v, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (streq(v[i]->key, key))
			return v[i]->value;
	return NULL;
}

/* ---- identity ---- */

static int plugin_info(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct driver *d = ctx;
	Csi__V1__GetPluginInfoResponse m = CSI__V1__GET_PLUGIN_INFO_RESPONSE__INIT;

	m.name = (char *)d->name;
	m.vendor_version = (char *)KUAYU_VERSION;
	return driver_reply(reply, &m.base);
}

static int plugin_caps(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Csi__V1__GetPluginCapabilitiesResponse m = CSI__V1__GET_PLUGIN_CAPABILITIES_RESPONSE__INIT;
	Csi__V1__PluginCapability__Service service = CSI__V1__PLUGIN_CAPABILITY__SERVICE__INIT;
	Csi__V1__PluginCapability__VolumeExpansion grow = CSI__V1__PLUGIN_CAPABILITY__VOLUME_EXPANSION__INIT;
	Csi__V1__PluginCapability caps[2] = {CSI__V1__PLUGIN_CAPABILITY__INIT,
					     CSI__V1__PLUGIN_CAPABILITY__INIT};
	Csi__V1__PluginCapability *list[2] = {&caps[0], &caps[1]};

	service.type = CSI__V1__PLUGIN_CAPABILITY__SERVICE__TYPE__CONTROLLER_SERVICE;
	grow.type = CSI__V1__PLUGIN_CAPABILITY__VOLUME_EXPANSION__TYPE__ONLINE;
	caps[0].type_case = CSI__V1__PLUGIN_CAPABILITY__TYPE_SERVICE;
	caps[0].service = &service;
	caps[1].type_case = CSI__V1__PLUGIN_CAPABILITY__TYPE_VOLUME_EXPANSION;
	caps[1].volume_expansion = &grow;
	m.n_capabilities = 2;
	m.capabilities = list;
	return driver_reply(reply, &m.base);
}

static int probe(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Csi__V1__ProbeResponse m = CSI__V1__PROBE_RESPONSE__INIT;
	Csi__V1__BoolValue yes = CSI__V1__BOOL_VALUE__INIT;

	yes.value = 1;
	m.ready = &yes;
	return driver_reply(reply, &m.base);
}

#define CONTROLLER "/csi.v1.Controller/"
#define NODE	   "/csi.v1.Node/"

const struct rpc_method driver_methods[] = {
	{.path = "/csi.v1.Identity/GetPluginInfo", .unary = plugin_info},
	{.path = "/csi.v1.Identity/GetPluginCapabilities", .unary = plugin_caps},
	{.path = "/csi.v1.Identity/Probe", .unary = probe},
	{.path = CONTROLLER "CreateVolume", .unary = csi_create_volume},
	{.path = CONTROLLER "DeleteVolume", .unary = csi_delete_volume},
	{.path = CONTROLLER "ValidateVolumeCapabilities", .unary = csi_validate_volume},
	{.path = CONTROLLER "ListVolumes", .unary = csi_list_volumes},
	{.path = CONTROLLER "GetCapacity", .unary = csi_get_capacity},
	{.path = CONTROLLER "ControllerGetCapabilities", .unary = controller_caps},
	{.path = CONTROLLER "ControllerExpandVolume", .unary = csi_expand_volume},
	{.path = NODE "NodeStageVolume", .unary = node_stage},
	{.path = NODE "NodeUnstageVolume", .unary = node_unstage},
	{.path = NODE "NodePublishVolume", .unary = node_publish},
	{.path = NODE "NodeUnpublishVolume", .unary = node_unpublish},
	{.path = NODE "NodeGetVolumeStats", .unary = node_stats},
	{.path = NODE "NodeGetCapabilities", .unary = node_caps},
	{.path = NODE "NodeGetInfo", .unary = node_info},
};
const size_t driver_n_methods = ARRAY_SIZE(driver_methods);
