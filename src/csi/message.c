/* SPDX-License-Identifier: Apache-2.0 */
/* CSI messages to and from our own types. Pure; answers are bytes from outside (fuzz/fuzz_csi.c). Maps are lists of StringPair:
 * the same on the wire. */
#include "csi.pb-c.h"
#include "csi/csi.h"

#define TEXTS_MAX 64 /* access modes, mount options */

const char *csi_method_path(enum csi_method m)
{
	static const char *const paths[CSI_METHODS] = {
		[CSI_CREATE_VOLUME] = "/csi.v1.Controller/CreateVolume",
		[CSI_DELETE_VOLUME] = "/csi.v1.Controller/DeleteVolume",
		[CSI_EXPAND_VOLUME] = "/csi.v1.Controller/ControllerExpandVolume",
		[CSI_NODE_STAGE] = "/csi.v1.Node/NodeStageVolume",
		[CSI_NODE_UNSTAGE] = "/csi.v1.Node/NodeUnstageVolume",
		[CSI_NODE_PUBLISH] = "/csi.v1.Node/NodePublishVolume",
		[CSI_NODE_UNPUBLISH] = "/csi.v1.Node/NodeUnpublishVolume",
		[CSI_NODE_STATS] = "/csi.v1.Node/NodeGetVolumeStats",
	};

	ensure(m < CSI_METHODS);
	return paths[m];
}

/* ---- requests ---- */

struct pairs {
	size_t n;
	Csi__V1__StringPair **v, *store;
};

static void pairs_done(struct pairs *p)
{
	free(p->v);
	free(p->store);
}

/* Texts are borrowed from the object. */
static void pairs_init(struct pairs *p, const json_t *o)
{
	size_t cap = json_object_size(o);
	const char *key;
	json_t *value;

	*p = (struct pairs){.v = xcalloc(cap + 1, sizeof(*p->v)),
			    .store = xcalloc(cap + 1, sizeof(*p->store))};
	json_object_foreach ((json_t *)o, key, value) {
		if (!json_is_string(value) || p->n == cap)
			continue;
		csi__v1__string_pair__init(&p->store[p->n]);
		p->store[p->n].key = (char *)key;
		p->store[p->n].value = (char *)json_string_value(value);
		p->v[p->n] = &p->store[p->n];
		p->n++;
	}
}

/* A volume capability for each access mode; without any one for MULTI_NODE_MULTI_WRITER. */
struct caps {
	Csi__V1__VolumeCapability__MountVolume mount;
	char *flags[TEXTS_MAX];
	size_t n;
	Csi__V1__VolumeCapability__AccessMode mode[TEXTS_MAX];
	Csi__V1__VolumeCapability cap[TEXTS_MAX], *v[TEXTS_MAX];
};

static int mode_of(const char *word)
{
	if (streq(word, "ReadWriteOnce"))
		return CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_WRITER;
	if (streq(word, "ReadOnlyMany"))
		return CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_READER_ONLY;
	return CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__MULTI_NODE_MULTI_WRITER;
}

static void caps_add(struct caps *c, const char *word)
{
	size_t i = c->n++;

	csi__v1__volume_capability__access_mode__init(&c->mode[i]);
	csi__v1__volume_capability__init(&c->cap[i]);
	c->mode[i].mode = (Csi__V1__VolumeCapability__AccessMode__Mode)mode_of(word);
	c->cap[i].access_mode = &c->mode[i];
	c->cap[i].access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT;
	c->cap[i].mount = &c->mount;
	c->v[i] = &c->cap[i];
}

static void caps_init(struct caps *c, const struct csi_request *r)
{
	json_t *t;
	size_t i;

	memset(c, 0, sizeof(*c));
	csi__v1__volume_capability__mount_volume__init(&c->mount);
	if (r->fs_type)
		c->mount.fs_type = (char *)r->fs_type;
	json_array_foreach (r->mount_options, i, t)
		if (json_is_string(t) && c->mount.n_mount_flags < TEXTS_MAX)
			c->flags[c->mount.n_mount_flags++] = (char *)json_string_value(t);
	c->mount.mount_flags = c->flags;
	json_array_foreach (r->access_modes, i, t)
		if (json_is_string(t) && c->n < TEXTS_MAX)
			caps_add(c, json_string_value(t));
	if (!c->n)
		caps_add(c, "ReadWriteMany");
}

static void *pack(const ProtobufCMessage *m, size_t *ret_len)
{
	void *p = xcalloc(1, protobuf_c_message_get_packed_size(m) + 1);

	*ret_len = protobuf_c_message_pack(m, p);
	return p;
}

static char *text(const char *s)
{
	return (char *)(s ? s : "");
}

static void *pack_controller(const struct csi_request *r, struct caps *caps, struct pairs *parameters,
			     size_t *ret_len)
{
	Csi__V1__CapacityRange range = CSI__V1__CAPACITY_RANGE__INIT;
	Csi__V1__CreateVolumeRequest create = CSI__V1__CREATE_VOLUME_REQUEST__INIT;
	Csi__V1__DeleteVolumeRequest delete = CSI__V1__DELETE_VOLUME_REQUEST__INIT;
	Csi__V1__ControllerExpandVolumeRequest expand = CSI__V1__CONTROLLER_EXPAND_VOLUME_REQUEST__INIT;

	range.required_bytes = r->bytes;
	if (r->method == CSI_DELETE_VOLUME) {
		delete.volume_id = text(r->volume_id);
		return pack(&delete.base, ret_len);
	}
	if (r->method == CSI_EXPAND_VOLUME) {
		expand.volume_id = text(r->volume_id);
		expand.capacity_range = &range;
		expand.volume_capability = caps->v[0];
		return pack(&expand.base, ret_len);
	}
	create.name = text(r->name);
	create.capacity_range = r->bytes ? &range : NULL;
	create.n_volume_capabilities = caps->n;
	create.volume_capabilities = caps->v;
	create.n_parameters = parameters->n;
	create.parameters = parameters->v;
	return pack(&create.base, ret_len);
}

static void *pack_node(const struct csi_request *r, struct caps *caps, struct pairs *context, size_t *ret_len)
{
	Csi__V1__NodeStageVolumeRequest stage = CSI__V1__NODE_STAGE_VOLUME_REQUEST__INIT;
	Csi__V1__NodePublishVolumeRequest publish = CSI__V1__NODE_PUBLISH_VOLUME_REQUEST__INIT;
	Csi__V1__NodeUnstageVolumeRequest unstage = CSI__V1__NODE_UNSTAGE_VOLUME_REQUEST__INIT;
	Csi__V1__NodeUnpublishVolumeRequest unpublish = CSI__V1__NODE_UNPUBLISH_VOLUME_REQUEST__INIT;
	Csi__V1__NodeGetVolumeStatsRequest stats = CSI__V1__NODE_GET_VOLUME_STATS_REQUEST__INIT;

	switch (r->method) {
	case CSI_NODE_STAGE:
		stage.volume_id = text(r->volume_id);
		stage.staging_target_path = text(r->staging);
		stage.volume_capability = caps->v[0];
		stage.n_volume_context = context->n;
		stage.volume_context = context->v;
		return pack(&stage.base, ret_len);
	case CSI_NODE_UNSTAGE:
		unstage.volume_id = text(r->volume_id);
		unstage.staging_target_path = text(r->staging);
		return pack(&unstage.base, ret_len);
	case CSI_NODE_PUBLISH:
		publish.volume_id = text(r->volume_id);
		publish.staging_target_path = text(r->staging);
		publish.target_path = text(r->target);
		publish.volume_capability = caps->v[0];
		publish.readonly = r->read_only;
		publish.n_volume_context = context->n;
		publish.volume_context = context->v;
		return pack(&publish.base, ret_len);
	case CSI_NODE_UNPUBLISH:
		unpublish.volume_id = text(r->volume_id);
		unpublish.target_path = text(r->target);
		return pack(&unpublish.base, ret_len);
	default:
		stats.volume_id = text(r->volume_id);
		stats.volume_path = text(r->target);
		stats.staging_target_path = text(r->staging);
		return pack(&stats.base, ret_len);
	}
}

void *csi_pack(const struct csi_request *r, size_t *ret_len)
{
	struct pairs parameters, context;
	struct caps caps;
	void *out;

	ensure(csi_method_path(r->method));
	caps_init(&caps, r);
	pairs_init(&parameters, r->parameters);
	pairs_init(&context, r->context);
	out = r->method < CSI_NODE_STAGE ? pack_controller(r, &caps, &parameters, ret_len)
					 : pack_node(r, &caps, &context, ret_len);
	pairs_done(&parameters);
	pairs_done(&context);
	return out;
}

/* ---- answers ---- */

struct csi_unpacked {
	Csi__V1__CreateVolumeResponse *created;
	json_t *context;
};

struct csi_unpacked *csi_unpacked_free(struct csi_unpacked *u)
{
	if (u) {
		if (u->created)
			csi__v1__create_volume_response__free_unpacked(u->created, NULL);
		json_decref(u->context);
		free(u);
	}
	return NULL;
}

/* Members that are no UTF-8 are left out. */
static json_t *object_new(size_t n, Csi__V1__StringPair *const *v)
{
	json_t *o = json_object();

	for (size_t i = 0; i < n && i < CSI_PAIRS_MAX; i++) {
		json_t *value = json_string(v[i]->value);

		if (value)
			json_object_set_new(o, v[i]->key, value);
	}
	return o;
}

static int unpack_created(const void *data, size_t len, struct csi_result *ret, struct csi_unpacked *u)
{
	u->created = csi__v1__create_volume_response__unpack(NULL, len, data);
	if (!u->created || !u->created->volume || !*u->created->volume->volume_id)
		return -EBADMSG;
	u->context = object_new(u->created->volume->n_volume_context, u->created->volume->volume_context);
	ret->volume_id = u->created->volume->volume_id;
	ret->bytes = u->created->volume->capacity_bytes;
	ret->context = u->context;
	return 0;
}

static int unpack_expanded(const void *data, size_t len, struct csi_result *ret)
{
	Csi__V1__ControllerExpandVolumeResponse *m =
		csi__v1__controller_expand_volume_response__unpack(NULL, len, data);

	if (!m)
		return -EBADMSG;
	ret->bytes = m->capacity_bytes;
	csi__v1__controller_expand_volume_response__free_unpacked(m, NULL);
	return 0;
}

static int unpack_stats(const void *data, size_t len, struct csi_result *ret)
{
	Csi__V1__NodeGetVolumeStatsResponse *m =
		csi__v1__node_get_volume_stats_response__unpack(NULL, len, data);

	if (!m)
		return -EBADMSG;
	for (size_t i = 0; i < m->n_usage; i++) {
		int at = m->usage[i]->unit == CSI__V1__VOLUME_USAGE__UNIT__BYTES    ? 0
			 : m->usage[i]->unit == CSI__V1__VOLUME_USAGE__UNIT__INODES ? 1
										    : -1;

		if (at < 0)
			continue;
		ret->total[at] = m->usage[i]->total;
		ret->used[at] = m->usage[i]->used;
		ret->available[at] = m->usage[i]->available;
	}
	csi__v1__node_get_volume_stats_response__free_unpacked(m, NULL);
	return 0;
}

int csi_unpack(enum csi_method m, const void *data, size_t len, struct csi_result *ret,
	       struct csi_unpacked **ret_hold)
{
	struct csi_unpacked *u = xcalloc(1, sizeof(*u));
	int r = 0;

	if (m == CSI_CREATE_VOLUME)
		r = unpack_created(data, len, ret, u);
	else if (m == CSI_EXPAND_VOLUME)
		r = unpack_expanded(data, len, ret);
	else if (m == CSI_NODE_STATS)
		r = unpack_stats(data, len, ret);
	if (r < 0) {
		csi_unpacked_free(u);
		return r;
	}
	*ret_hold = u;
	return 0;
}

int csi_unpack_plugin_info(const void *data, size_t len, char name[128], char version[64])
{
	Csi__V1__GetPluginInfoResponse *m = csi__v1__get_plugin_info_response__unpack(NULL, len, data);
	int r = m && *m->name && strlen(m->name) < 128 ? 0 : -EBADMSG;

	if (r == 0) {
		snprintf(name, 128, "%s", m->name);
		snprintf(version, 64, "%s", m->vendor_version);
	}
	if (m)
		csi__v1__get_plugin_info_response__free_unpacked(m, NULL);
	return r;
}

int csi_unpack_controller_caps(const void *data, size_t len, struct csi_result *ret)
{
	Csi__V1__ControllerGetCapabilitiesResponse *m =
		csi__v1__controller_get_capabilities_response__unpack(NULL, len, data);

	if (!m)
		return -EBADMSG;
	for (size_t i = 0; i < m->n_capabilities; i++) {
		const Csi__V1__ControllerServiceCapability *c = m->capabilities[i];

		if (c->type_case != CSI__V1__CONTROLLER_SERVICE_CAPABILITY__TYPE_RPC || !c->rpc)
			continue;
		ret->controller |= c->rpc->type ==
				   CSI__V1__CONTROLLER_SERVICE_CAPABILITY__RPC__TYPE__CREATE_DELETE_VOLUME;
		ret->expand |=
			c->rpc->type == CSI__V1__CONTROLLER_SERVICE_CAPABILITY__RPC__TYPE__EXPAND_VOLUME;
	}
	csi__v1__controller_get_capabilities_response__free_unpacked(m, NULL);
	return 0;
}

int csi_unpack_node_caps(const void *data, size_t len, struct csi_result *ret)
{
	Csi__V1__NodeGetCapabilitiesResponse *m =
		csi__v1__node_get_capabilities_response__unpack(NULL, len, data);

	if (!m)
		return -EBADMSG;
	for (size_t i = 0; i < m->n_capabilities; i++) {
		const Csi__V1__NodeServiceCapability *c = m->capabilities[i];

		if (c->type_case != CSI__V1__NODE_SERVICE_CAPABILITY__TYPE_RPC || !c->rpc)
			continue;
		ret->stage |=
			c->rpc->type == CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__STAGE_UNSTAGE_VOLUME;
		ret->stats |= c->rpc->type == CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__GET_VOLUME_STATS;
	}
	csi__v1__node_get_capabilities_response__free_unpacked(m, NULL);
	return 0;
}

int csi_unpack_node_info(const void *data, size_t len, char node_id[256], int64_t *ret_volumes_max)
{
	Csi__V1__NodeGetInfoResponse *m = csi__v1__node_get_info_response__unpack(NULL, len, data);
	int r = m && *m->node_id && strlen(m->node_id) < 256 ? 0 : -EBADMSG;

	if (r == 0) {
		snprintf(node_id, 256, "%s", m->node_id);
		*ret_volumes_max = m->max_volumes_per_node;
	}
	if (m)
		csi__v1__node_get_info_response__free_unpacked(m, NULL);
	return r;
}
